//! The tokenizer of llama2.c: pieces with scores, merged from the best on, and bytes for what has no piece.
//!
//! A file is the length of its longest piece and then, a piece after the other, a score (`f32`), a length (`i32`) and so many bytes, all
//! little-endian. Piece 0 is unknown, 1 starts a text, 2 ends one, and 3 to 258 are the bytes.
//!
//! # References
//! Karpathy, llama2.c, `tokenizer.py` and `run.c`; Sennrich et al., *Neural Machine Translation of Rare Words with Subword Units* (2016);
//! Kudo and Richardson, *`SentencePiece`* (2018).

use crate::{Error, Result, read_bounded};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;

const WHAT: &str = "a tokenizer of llama2.c";

/// The largest file, and the longest piece.
const MAX_BYTES: u64 = 64 << 20;
const MAX_PIECE: usize = 4096;

/// The most that is written of joins of pieces.
const MAX_JOINS_BYTES: u64 = 256 << 20;

/// Where the bytes start among the pieces.
const FIRST_BYTE: usize = 3;

/// What the pieces before these are called elsewhere.
const SPECIAL: [&str; FIRST_BYTE] = ["<unk>", "<s>", "</s>"];

/// Pieces of text with their numbers.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    pieces: Vec<Vec<u8>>,
    scores: Vec<f32>,
    numbers: BTreeMap<Vec<u8>, u32>,
}

impl Vocabulary {
    /// The token that a text starts with.
    pub const START: u32 = 1;

    /// The token that a text ends with.
    pub const END: u32 = 2;

    /// Reads a file of llama2.c.
    ///
    /// # Errors
    /// A file that is missing, too large, cut short, or without the pieces of all bytes.
    pub fn open(path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Data { path: path.to_owned(), expected: WHAT, reason };
        Self::parse(&read_bounded(path, MAX_BYTES)?).map_err(fail)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (header, mut rest) = bytes.split_first_chunk::<4>().ok_or("it is empty")?;
        let longest = u32::from_le_bytes(*header) as usize;
        if longest > MAX_PIECE {
            return Err(format!("its longest piece has {longest} bytes, at most {MAX_PIECE} are read"));
        }
        let mut vocabulary = Self { pieces: Vec::new(), scores: Vec::new(), numbers: BTreeMap::new() };
        while !rest.is_empty() {
            let number = vocabulary.pieces.len();
            let short = || format!("piece {number} is cut short");
            let (score, after) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            let (len, after) = after.split_first_chunk::<4>().ok_or_else(short)?;
            let (score, len) = (f32::from_le_bytes(*score), u32::from_le_bytes(*len) as usize);
            if !score.is_finite() || len == 0 || len > longest {
                return Err(format!("piece {number} has score {score} and {len} bytes, of {longest} at most"));
            }
            let piece = after.get(..len).ok_or_else(short)?;
            // Of two alike, the first has the say.
            vocabulary.numbers.entry(piece.to_vec()).or_insert(number as u32);
            vocabulary.pieces.push(piece.to_vec());
            vocabulary.scores.push(score);
            rest = &after[len..];
        }
        let is_byte =
            |byte: usize| vocabulary.pieces.get(FIRST_BYTE + byte).is_some_and(|p| *p == format!("<0x{byte:02X}>").into_bytes());
        match (0..256).find(|&byte| !is_byte(byte)) {
            Some(byte) => Err(format!("piece {} is not the byte {byte}", FIRST_BYTE + byte)),
            None => Ok(vocabulary),
        }
    }

    /// The number of pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there is none; a file that was read has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The tokens of a text, without a start: characters or their bytes behind a space, of which the pair whose joint piece has the best score
    /// is joined, the first of equals, until no pair has one.
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        if text.is_empty() {
            return Vec::new();
        }
        let mut tokens: Vec<Option<u32>> = Vec::with_capacity(text.len() + 1);
        let mut buffer = [0; 4];
        for c in std::iter::once(' ').chain(text.chars()) {
            let bytes = c.encode_utf8(&mut buffer).as_bytes();
            match self.numbers.get(bytes) {
                Some(&number) => tokens.push(Some(number)),
                None => tokens.extend(bytes.iter().map(|&byte| Some(u32::from(byte) + FIRST_BYTE as u32))),
            }
        }
        self.join(&mut tokens);
        tokens.into_iter().flatten().collect()
    }

    /// The piece of two in a row, ordered by score, then by place.
    fn pair(&self, tokens: &[Option<u32>], left: usize, right: usize) -> Option<Pair> {
        let (a, b) = (tokens[left]?, tokens[right]?);
        let joined = [self.pieces[a as usize].as_slice(), self.pieces[b as usize].as_slice()].concat();
        let number = *self.numbers.get(&joined)?;
        Some(Pair { score: Order(self.scores[number as usize]), left: Reverse(left), right, of: [a, b], number })
    }

    /// Joins pairs from the best on; what is joined to its left is none.
    fn join(&self, tokens: &mut [Option<u32>]) {
        let count = tokens.len();
        let (mut previous, mut next): (Vec<usize>, Vec<usize>) = (0..count).map(|i| (i.wrapping_sub(1), i + 1)).unzip();
        let mut pairs: BinaryHeap<Pair> = (1..count).filter_map(|i| self.pair(tokens, i - 1, i)).collect();
        while let Some(Pair { left: Reverse(left), right, of, number, .. }) = pairs.pop() {
            // A pair of which one has been joined since is no more.
            if tokens[left] != Some(of[0]) || tokens[right] != Some(of[1]) || next[left] != right {
                continue;
            }
            (tokens[left], tokens[right]) = (Some(number), None);
            next[left] = next[right];
            if let Some(previous) = previous.get_mut(next[left]) {
                *previous = left;
                pairs.extend(self.pair(tokens, left, next[left]));
            }
            if left > 0 {
                pairs.extend(self.pair(tokens, previous[left], left));
            }
        }
    }

    /// The bytes of tokens; those that start, end or are unknown have none. A text's first space is its own.
    #[must_use]
    pub fn decode(&self, tokens: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &token in tokens {
            let token = token as usize;
            match token.checked_sub(FIRST_BYTE) {
                Some(byte) if byte < 256 => bytes.push(byte as u8),
                Some(_) => bytes.extend(self.pieces.get(token).into_iter().flatten()),
                None => {}
            }
        }
        bytes
    }

    /// The same tokenizer as a `tokenizer.json` of the library `tokenizers`, which puts [`Vocabulary::START`] in front of a text.
    ///
    /// Joins are listed by the score of what they make. Of joins with the same score, the library takes the one that stands first in the list where
    /// [`Vocabulary::encode`] takes the leftmost; tokenizers that were trained have no two scores alike.
    ///
    /// # Errors
    /// The reason, if a piece is no text or stands twice, for which the format has no place, or if there are too many joins.
    pub fn to_tokenizer_json(&self) -> Result<String, String> {
        let mut pieces = serde_json::Map::new();
        for (number, piece) in self.pieces.iter().enumerate() {
            let text = match number {
                0..FIRST_BYTE => SPECIAL[number],
                _ => std::str::from_utf8(piece).map_err(|_| format!("piece {number} of its tokenizer is no text"))?,
            };
            if pieces.insert(text.to_owned(), number.into()).is_some() {
                return Err(format!("piece {number} of its tokenizer, `{text}`, stands twice"));
            }
        }
        let added = SPECIAL.iter().enumerate().map(|(id, content)| {
            serde_json::json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true })
        });
        let start = serde_json::json!({ "SpecialToken": { "id": SPECIAL[1], "type_id": 0 } });
        let text = |which: &str, type_id: usize| serde_json::json!({ "Sequence": { "id": which, "type_id": type_id } });
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": { "type": "Prepend", "prepend": " " },
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [start.clone(), text("A", 0)],
                "pair": [start.clone(), text("A", 0), start, text("B", 1)],
                "special_tokens": { SPECIAL[1]: { "id": SPECIAL[1], "ids": [Self::START], "tokens": [SPECIAL[1]] } },
            },
            "decoder": {
                "type": "Sequence",
                "decoders": [{ "type": "ByteFallback" }, { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }],
            },
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": SPECIAL[0],
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": pieces,
                "merges": self.joins()?,
            },
        });
        Ok(format!("{json:#}\n"))
    }

    /// All ways to make a piece of two, from the best score on; of bounded length together.
    fn joins(&self) -> Result<Vec<[&str; 2]>, String> {
        let first = FIRST_BYTE + 256;
        let own = |piece: &[u8]| self.numbers.get(piece).is_some_and(|&number| number as usize >= first);
        let mut order: Vec<usize> = (first..self.pieces.len()).collect();
        order.sort_by_key(|&number| (Reverse(Order(self.scores[number])), number));
        let splits = |number: usize| {
            let piece = std::str::from_utf8(&self.pieces[number]).unwrap_or_default();
            let places = piece.char_indices().skip(1).map(move |(at, _)| piece.split_at(at));
            places.filter(|(left, right)| own(left.as_bytes()) && own(right.as_bytes())).map(|(left, right)| [left, right])
        };
        let (mut joins, mut length) = (Vec::new(), 0);
        for join in order.into_iter().flat_map(splits) {
            length += join.concat().len() as u64 + 16;
            if length > MAX_JOINS_BYTES {
                return Err(format!("its tokenizer has joins of more than {MAX_JOINS_BYTES} bytes"));
            }
            joins.push(join);
        }
        Ok(joins)
    }
}

/// A score, in the order of numbers; all are finite.
#[derive(Debug, PartialEq, Clone, Copy)]
struct Order(f32);

impl Eq for Order {}

impl PartialOrd for Order {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Order {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Two tokens in a row, and the piece that they make.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    score: Order,
    left: Reverse<usize>,
    right: usize,
    of: [u32; 2],
    number: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(pieces: &[(&str, f32)]) -> Vec<u8> {
        let bytes: Vec<(String, f32)> = ["<unk>".to_owned(), "\n<s>\n".to_owned(), "\n</s>\n".to_owned()]
            .into_iter()
            .chain((0..256).map(|byte| format!("<0x{byte:02X}>")))
            .map(|piece| (piece, 0.0))
            .chain(pieces.iter().map(|&(piece, score)| (piece.to_owned(), score)))
            .collect();
        let mut file = 8u32.to_le_bytes().to_vec();
        for (piece, score) in bytes {
            file.extend(score.to_le_bytes());
            file.extend((piece.len() as u32).to_le_bytes());
            file.extend(piece.as_bytes());
        }
        file
    }

    const PIECES: [(&str, f32); 9] = [
        (" ", -9.0),
        ("a", -8.0),
        ("b", -7.0),
        ("ab", -3.0),
        ("ba", -2.0),
        (" a", -4.0),
        ("aba", -1.0),
        ("é", -6.0),
        ("bab", -1.0),
    ];

    /// The definition, a pair at a time.
    fn slowly(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
        let mut tokens: Vec<u32> = Vec::new();
        for c in format!(" {text}").chars() {
            let piece = c.to_string().into_bytes();
            match vocabulary.numbers.get(&piece) {
                Some(&number) => tokens.push(number),
                None => tokens.extend(piece.iter().map(|&byte| u32::from(byte) + 3)),
            }
        }
        loop {
            let mut best: Option<(f32, usize, u32)> = None;
            for at in 1..tokens.len() {
                let pair = [at - 1, at].map(|i| vocabulary.pieces[tokens[i] as usize].clone()).concat();
                if let Some(&number) = vocabulary.numbers.get(&pair) {
                    let score = vocabulary.scores[number as usize];
                    if best.is_none_or(|(most, ..)| score > most) {
                        best = Some((score, at - 1, number));
                    }
                }
            }
            let Some((_, at, number)) = best else { return tokens };
            tokens[at] = number;
            tokens.remove(at + 1);
        }
    }

    #[test]
    fn texts_are_merged_as_the_definition_says_and_come_back() {
        let vocabulary = Vocabulary::parse(&file(&PIECES)).unwrap();
        assert_eq!(vocabulary.len(), 259 + 9);
        // " ab" is " ", "a", "b": the best pair is "ab", and " ab" is no piece.
        assert_eq!(vocabulary.encode("ab"), [259, 262]);
        // ü has no piece and is two bytes.
        assert_eq!(vocabulary.encode("éü"), [259, 266, 3 + 0xc3, 3 + 0xbc]);
        for text in ["abab", "babba", "aaaaabbbb", "bababababab", "a ba é ab\nüba", "ab ab ab aba bab aab", "  a  "] {
            let tokens = vocabulary.encode(text);
            assert_eq!(tokens, slowly(&vocabulary, text), "{text}");
            assert_eq!(vocabulary.decode(&tokens), format!(" {text}").as_bytes());
        }
        assert!(vocabulary.encode("").is_empty() && vocabulary.decode(&[0, 1, 2, 9999]).is_empty());
    }

    #[test]
    fn damaged_files_are_refused() {
        let whole = file(&PIECES);
        let check = |bytes: &[u8], expected: &str| {
            let reason = Vocabulary::parse(bytes).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(&[], "empty");
        check(&whole[..whole.len() - 1], "piece 267 is cut short");
        check(&[u32::MAX.to_le_bytes().as_slice(), &whole[4..]].concat(), "4294967295 bytes");
        check(&whole[..4 + 3 * 8 + 5 + 5 + 6], "piece 3 is not the byte 0");
        let mut long = whole.clone();
        long[8..12].copy_from_slice(&9u32.to_le_bytes());
        check(&long, "9 bytes, of 8");
        let mut strange = whole;
        strange[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        check(&strange, "score NaN");
    }
}
