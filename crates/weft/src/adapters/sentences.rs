//! Sentences as tokens, and as vectors by the encoder that is the base of adapters.

use crate::text::open_tokenizer;
use crate::{Error, Result};
use std::path::Path;
use tokenizers::Tokenizer;
use weft_core::{Digest, Seed};
use weft_net::adapters::Adapters;

/// Tokens of a sentence of random words.
const RANDOM_TOKENS: usize = 5;

/// Reads sentences with a base that is an encoder.
pub(super) struct SentenceReader {
    tokenizer: Tokenizer,
    on: Adapters,
    digest: Digest,
}

impl SentenceReader {
    /// Takes a base with the digest of its weights, its tokenizer's file, and how many tokens of a sentence are read at most.
    pub(super) fn new(on: Adapters, weights: Digest, tokenizer: &Path, tokens: usize) -> Result<Self> {
        if on.base().is_decoder() {
            let reason = "it says the next token; an encoder of the BERT family is wanted".to_owned();
            return Err(Error::Misfit { what: "the base".to_owned(), other: "telling intents apart".to_owned(), reason });
        }
        let (tokenizer, bytes) = open_tokenizer(tokenizer, on.base().vocabulary(), tokens.min(on.base().max_tokens()))?;
        let digest = Digest::of_parts([weights.to_string().as_bytes(), &bytes]);
        Ok(Self { tokenizer, on, digest })
    }

    /// What tells it from others: the base's weights and the tokenizer.
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    /// A sentence's tokens.
    ///
    /// # Errors
    /// [`Error::Range`] if the tokenizer makes none of it.
    pub(super) fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let refuse =
            |got: String| Error::Range { what: "a text", expected: "words that the base's tokenizer knows".to_owned(), got };
        let tokens = self.tokenizer.encode(text, true).map_err(|error| refuse(error.to_string()))?;
        let ids = tokens.get_ids().to_vec();
        if ids.is_empty() { Err(refuse(format!("`{}`", text.escape_debug()))) } else { Ok(ids) }
    }

    /// Vectors of sentences by the base alone, of length 1.
    pub(super) fn vectors(&self, sentences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        Ok(self.on.encode(&vec![0.0; self.on.layout().num_parameters()], sentences)?)
    }

    /// Sentences of random words, as tokens.
    pub(super) fn random(&self, count: usize, seed: Seed) -> Result<Vec<Vec<u32>>> {
        let vocabulary = self.tokenizer.get_vocab_size(false);
        let text = |i: usize| -> Result<String> {
            let ids = seed.index(i as u64).indices(RANDOM_TOKENS, vocabulary);
            let text = self.tokenizer.decode(&ids, true).map_err(|error| Error::Range {
                what: "random tokens",
                expected: "some that the tokenizer can write".to_owned(),
                got: error.to_string(),
            })?;
            // Tokens that stand for nothing are not written.
            Ok(if text.trim().is_empty() { ids[0].to_string() } else { text })
        };
        (0..count).map(|i| self.tokens(&text(i)?)).collect()
    }
}
