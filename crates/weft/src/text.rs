//! Texts as vectors by a trained encoder: BERT from a folder, such as `MiniLM`. Nothing is downloaded.
//!
//! The folder holds `model.safetensors`, `config.json` and `tokenizer.json`, as Hugging Face's do. The architecture is inferred from the weights and run by
//! the engine's interpreter, so that the encoder is a network like any other. A text's vector is the mean of its last layer over all tokens,
//! scaled to length 1 (Reimers & Gurevych 2019, *Sentence-BERT*).

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tokenizers::{Tokenizer, TruncationParams};
use weft_core::{Architecture, Digest, Op};
use weft_zoo::Hints;

/// Tokens of a text, the two at its ends counted; what is longer is cut off.
const MAX_TOKENS: usize = 256;
/// The largest file of a tokenizer.
const MAX_TOKENIZER_BYTES: u64 = 64 << 20;

/// A trained encoder of texts.
pub struct TextEncoder {
    architecture: Architecture,
    row: Vec<f32>,
    tokenizer: Tokenizer,
    digest: Digest,
    known: Mutex<BTreeMap<String, Vec<f32>>>,
}

impl TextEncoder {
    /// Reads an encoder from a folder.
    ///
    /// # Errors
    /// Files that are missing, too large or not what they should be, and weights that are not those of an encoder of tokens.
    pub fn open(folder: &Path) -> Result<Self> {
        let weights = folder.join("model.safetensors");
        let source = weft_zoo::open_sources(&weights)?.into_iter().next();
        let source = source.ok_or_else(|| damaged(&weights, "it holds no network"))?;
        let inferred = weft_zoo::infer(&source, &Hints::default())?;
        let row = inferred.binding.bind(&source, &inferred.architecture)?;
        let architecture = inferred.architecture;
        let Op::InputIds { length, vocabulary } = &architecture.nodes()[0].op else {
            return Err(damaged(&weights, "its network does not read tokens"));
        };
        let path = folder.join("tokenizer.json");
        let (tokenizer, bytes) = open_tokenizer(&path, *vocabulary, MAX_TOKENS.min(*length))?;
        let digest = Digest::of_parts([Digest::of_weights(&architecture, &row).to_string().as_bytes(), &bytes]);
        Ok(Self { architecture, row, tokenizer, digest, known: Mutex::default() })
    }

    /// What tells the encoder from others: its weights and its tokenizer.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The vector of a text, of length 1.
    ///
    /// # Errors
    /// A text of which the tokenizer makes no token, or that it cannot read.
    pub fn encode(&self, text: &str) -> Result<Vec<f32>> {
        if let Some(known) = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(text) {
            return Ok(known.clone());
        }
        let refuse =
            |got: String| Error::Range { what: "a text", expected: "words that the encoder's tokenizer knows".to_owned(), got };
        let tokens = self.tokenizer.encode(text, true).map_err(|error| refuse(error.to_string()))?;
        let ids: Vec<f32> = tokens.get_ids().iter().map(|&id| id as f32).collect();
        if ids.is_empty() {
            return Err(refuse(format!("`{text}`")));
        }
        let network = weft_net::with_tokens(&self.architecture, ids.len())?;
        // A pooler behind it, which reads the first token alone, has no say.
        let of_tokens = |shape: &Vec<usize>| shape.len() == 2 && shape[0] == ids.len();
        let layer = network.shapes().iter().rposition(of_tokens).ok_or_else(|| refuse(format!("`{text}`")))?;
        let last = weft_net::interpret_captured(&network, (&self.row[..]).into(), &ids, &[layer])?.concat();
        let d = last.len() / ids.len();
        let mut sum = vec![0.0_f64; d];
        last.chunks_exact(d).for_each(|token| sum.iter_mut().zip(token).for_each(|(s, &v)| *s += f64::from(v)));
        let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
        let vector: Vec<f32> = sum.into_iter().map(|v| (v / length.max(f64::MIN_POSITIVE)) as f32).collect();
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(text.to_owned(), vector.clone());
        Ok(vector)
    }
}

/// Reads a tokenizer that makes at most so many tokens of a text, for a network that knows so many different ones; with the file's bytes.
pub(crate) fn open_tokenizer(path: &Path, vocabulary: usize, max_length: usize) -> Result<(Tokenizer, Vec<u8>)> {
    let bytes = read_small(path)?;
    let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| damaged(path, &error.to_string()))?;
    if tokenizer.get_vocab_size(true) > vocabulary {
        let reason = format!("it has {} tokens and the network knows {vocabulary}", tokenizer.get_vocab_size(true));
        return Err(damaged(path, &reason));
    }
    let truncation = TruncationParams { max_length, ..TruncationParams::default() };
    tokenizer.with_truncation(Some(truncation)).map_err(|error| damaged(path, &error.to_string()))?;
    tokenizer.with_padding(None);
    Ok((tokenizer, bytes))
}

fn damaged(path: &Path, reason: &str) -> Error {
    Error::Given { path: PathBuf::from(path), reason: reason.to_owned() }
}

/// A file that is no larger than a tokenizer may be.
fn read_small(path: &Path) -> Result<Vec<u8>> {
    Ok(weft_zoo::read_bounded(path, MAX_TOKENIZER_BYTES)?)
}
