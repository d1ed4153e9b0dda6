//! `[text.…]`: how texts of conditions become numbers.

use super::{Nothing, data_folder};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What encodes texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TextConfig {
    /// Hashes of words and letters, which need no files.
    Hashing(Nothing),
    /// A trained encoder from a folder, such as `MiniLM`.
    Bert(BertConfig),
}

/// `[text.bert]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BertConfig {
    /// The folder of `model.safetensors` and `tokenizer.json`; a relative one starts where data do.
    pub path: PathBuf,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self::Hashing(Nothing {})
    }
}

impl TextConfig {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The folder of the trained encoder, if there is one.
    #[must_use]
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Hashing(_) => None,
            Self::Bert(bert) => Some(data_folder().join(&bert.path)),
        }
    }
}
