//! What is said of adapters, and what turns it into numbers.

use crate::text::TextEncoder;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_core::{embed_bytes, embed_text};

/// The longest file of descriptions.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The longest description, in bytes.
const MAX_TEXT: usize = 1 << 16;
/// The most descriptions of one adapter.
const MAX_WORDINGS: usize = 64;

/// What reads descriptions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Encoder {
    /// Hashes of words and letters, which need no files.
    #[default]
    Hashing,
    /// Frequencies of bytes, and of their pairs and triples: for texts whose language or script matters.
    Bytes,
    /// A trained encoder of texts from a folder, such as `MiniLM`.
    Bert(PathBuf),
}

impl Encoder {
    /// `hashing`, `bytes`, or the folder of a trained encoder.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "hashing" => Self::Hashing,
            "bytes" => Self::Bytes,
            folder => Self::Bert(folder.into()),
        }
    }
}

/// An encoder as a generator's folder names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) enum StoredEncoder {
    Hashing,
    Bytes,
    /// Its folder, and the digest of its weights and tokenizer.
    Bert {
        path: PathBuf,
        digest: String,
    },
}

/// What reads descriptions, with its files.
pub(super) enum Words {
    Hashing,
    Bytes,
    Bert(PathBuf, Box<TextEncoder>),
}

impl Words {
    /// Reads the encoder's files.
    pub(super) fn open(encoder: &Encoder) -> Result<Self> {
        Ok(match encoder {
            Encoder::Hashing => Self::Hashing,
            Encoder::Bytes => Self::Bytes,
            Encoder::Bert(folder) => {
                let place = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
                Self::Bert(place, Box::new(TextEncoder::open(folder)?))
            }
        })
    }

    /// Reads them where they were, or in another folder; they must be the same.
    pub(super) fn again(stored: &StoredEncoder, moved_to: Option<&Path>) -> Result<Self> {
        let StoredEncoder::Bert { path, digest } = stored else {
            if let Some(folder) = moved_to {
                let (what, expected) = ("`--encoder`", "left out: the generator needs no files to read texts".to_owned());
                return Err(Error::Range { what, expected, got: folder.display().to_string() });
            }
            return Ok(if *stored == StoredEncoder::Bytes { Self::Bytes } else { Self::Hashing });
        };
        let folder = moved_to.unwrap_or(path);
        let encoder = TextEncoder::open(folder)?;
        if encoder.digest().to_string() == *digest {
            return Ok(Self::Bert(folder.to_owned(), Box::new(encoder)));
        }
        let (what, other) = (format!("the text encoder `{}`", folder.display()), "the generator".to_owned());
        let reason = "it learnt with another; `--encoder DIR` names the folder of that one".to_owned();
        Err(Error::Misfit { what, other, reason })
    }

    pub(super) fn stored(&self) -> StoredEncoder {
        match self {
            Self::Hashing => StoredEncoder::Hashing,
            Self::Bytes => StoredEncoder::Bytes,
            Self::Bert(path, encoder) => StoredEncoder::Bert { path: path.clone(), digest: encoder.digest().to_string() },
        }
    }

    /// The vector of a text.
    pub(super) fn vector(&self, text: &[u8]) -> Result<Vec<f32>> {
        if matches!(self, Self::Bytes) {
            return Ok(embed_bytes(text));
        }
        let text = std::str::from_utf8(text).map_err(|error| Error::Range {
            what: "a description",
            expected: "UTF-8, with this encoder".to_owned(),
            got: error.to_string(),
        })?;
        if let Self::Bert(_, encoder) = self { encoder.encode(text) } else { Ok(embed_text(text)) }
    }
}

/// Descriptions by the names of adapters.
pub(super) type Descriptions = BTreeMap<String, Vec<String>>;

/// Reads descriptions: of a file that ends in `.json` an object of names with a text or a list of texts, else a line each, `NAME`, a tab, and the text. A
/// name may have several lines; empty ones, and those that begin with `#`, are skipped.
///
/// # Errors
/// A file that is no such, with the line; a text that is empty or longer than 64 KiB; more than 64 of one adapter; or none at all.
pub(super) fn read(path: &Path) -> Result<Descriptions> {
    let bytes = weft_zoo::read_bounded(path, MAX_FILE_BYTES)?;
    let damaged = |reason: String| Error::Given { path: path.to_owned(), reason };
    let text = std::str::from_utf8(&bytes).map_err(|error| damaged(format!("it is not UTF-8: {error}")))?;
    let pairs = if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        of_json(text).map_err(damaged)?
    } else {
        of_lines(text).map_err(damaged)?
    };
    let mut all = Descriptions::new();
    for (name, text) in pairs {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX_TEXT {
            let found = if text.is_empty() { "empty".to_owned() } else { format!("of {} bytes", text.len()) };
            return Err(damaged(format!(
                "a description of `{}` is {found}; 1 to {MAX_TEXT} bytes are wanted",
                name.escape_debug()
            )));
        }
        let own = all.entry(name).or_default();
        if !own.iter().any(|known| known == text) {
            own.push(text.to_owned());
        }
    }
    if let Some((name, own)) = all.iter().find(|(_, own)| own.len() > MAX_WORDINGS) {
        let name = name.escape_debug();
        return Err(damaged(format!("`{name}` has {} descriptions; at most {MAX_WORDINGS} are read", own.len())));
    }
    if all.is_empty() {
        return Err(damaged("it holds no description: a line is a name, a tab and a text".to_owned()));
    }
    Ok(all)
}

fn of_json(text: &str) -> Result<Vec<(String, String)>, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    let wanted = |error: serde_json::Error| format!("it is no object of names with a text or a list of texts: {error}");
    let found: BTreeMap<String, serde_json::Value> = serde_json::from_str(text).map_err(wanted)?;
    let mut all = BTreeMap::new();
    for (name, value) in found {
        let reason = || format!("what it says of `{}` is neither a text nor a list of texts", name.escape_debug());
        let texts: Texts = serde_json::from_value(value).map_err(|_| reason())?;
        all.insert(name, texts);
    }
    let texts = |(name, texts): (String, Texts)| {
        let texts = match texts {
            Texts::One(text) => vec![text],
            Texts::Several(texts) => texts,
        };
        texts.into_iter().map(move |text| (name.clone(), text))
    };
    Ok(all.into_iter().flat_map(texts).collect())
}

fn of_lines(text: &str) -> Result<Vec<(String, String)>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    let pair = |(at, line): (usize, &str)| {
        let (name, text) = line.split_once('\t').ok_or_else(|| format!("line {} has no tab between a name and a text", at + 1))?;
        Ok((name.trim().to_owned(), text.to_owned()))
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(file: &str, text: &str) -> Result<Descriptions> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, text).unwrap();
        read(&path)
    }

    #[test]
    fn descriptions_are_read_from_lines_and_json() {
        let expected: Descriptions = [("a", vec!["one", "two words"]), ("b", vec!["three"])]
            .map(|(n, t)| (n.to_owned(), t.into_iter().map(String::from).collect()))
            .into();
        assert_eq!(of("d.tsv", "# names\na\tone\n\nb\tthree\na\t two words\na\tone\n").unwrap(), expected);
        assert_eq!(of("d.json", r#"{"a": ["one", "two words"], "b": "three"}"#).unwrap(), expected);
        for (file, text, part) in [
            ("d.tsv", "a one", "line 1 has no tab"),
            ("d.tsv", "a\t ", "`a` is empty"),
            ("d.tsv", "# nothing\n", "holds no description"),
            ("d.json", r#"{"a": 3}"#, "`a` is neither a text nor a list"),
            ("d.json", "[1]", "no object of names"),
            ("d.json", r#"{"a": ""}"#, "`a` is empty"),
        ] {
            let message = of(file, text).unwrap_err().to_string();
            assert!(message.contains(part), "`{part}` is not in {message}");
        }
        let many = (0..65).map(|i| format!("a\ttext {i}")).collect::<Vec<_>>().join("\n");
        assert!(of("d.tsv", &many).unwrap_err().to_string().contains("65 descriptions"));
        assert!(of("d.tsv", &format!("a\t{}", "x".repeat(MAX_TEXT + 1))).is_err());
    }

    #[test]
    fn texts_are_vectors_by_the_encoder_that_is_named() {
        let hashing = Words::open(&Encoder::parse("hashing")).unwrap();
        assert_eq!(hashing.vector(b"turn on").unwrap(), embed_text("turn on"));
        assert!(hashing.vector(b"\xff").unwrap_err().to_string().contains("UTF-8"));
        let bytes = Words::again(&StoredEncoder::Bytes, None).unwrap();
        assert_eq!(bytes.vector(b"\xff").unwrap(), embed_bytes(b"\xff"));
        assert!(Words::again(&StoredEncoder::Bytes, Some(Path::new("x"))).err().unwrap().to_string().contains("--encoder"));
        assert_eq!(Encoder::parse("models/minilm"), Encoder::Bert("models/minilm".into()));
    }
}
