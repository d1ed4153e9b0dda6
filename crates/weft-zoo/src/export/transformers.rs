//! A decoder of the Llama family as a folder that Transformers loads.
//!
//! ```text
//! config.json          LlamaForCausalLM with its sizes
//! model.safetensors    weights under Transformers' names, rows of queries and keys in the order of halves
//! tokenizer.json       the pieces of a tokenizer of llama2.c, if there is one, for the library `tokenizers`
//! weft.json            where it comes from
//! README.md            the same for people, with the licence
//! ```
//!
//! # References
//! Transformers, `LlamaConfig` and `LlamaForCausalLM`.

use crate::{Error, Metadata, Result, Vocabulary, rotary_name, write_atomic, write_folder, write_tensors};
use serde_json::json;
use std::path::{Path, PathBuf};
use weft_core::families::{Family, Llama};
use weft_core::{Architecture, RopePairs};

/// The files, in the order in which they are written.
const FILES: [&str; 5] = ["config.json", "model.safetensors", "tokenizer.json", "weft.json", "README.md"];

/// A decoder to write, and what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct LlamaExport<'a> {
    /// Its family and sizes; rotary positions must turn halves.
    pub family: &'a Llama,
    /// Its weights, in the layout of the family's architecture.
    pub row: &'a [f32],
    /// What adapters call it.
    pub name: &'a str,
    /// Its licence as an SPDX expression, or `unknown`.
    pub licence: &'a str,
    /// The name of the file that it was read from, and that file's SHA-256 in hexadecimal.
    pub source: [&'a str; 2],
    /// In which order the rows of queries and keys stood there.
    pub from: RopePairs,
    /// Its tokenizer.
    pub vocabulary: Option<&'a Vocabulary>,
}

impl LlamaExport<'_> {
    /// Writes the folder, whole or not at all; the result is its files.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Io`], or [`Error::Llama`] for rotary positions that do not turn halves, sizes that no network has, weights of
    /// another number, or a tokenizer of another.
    pub fn write(&self, out: &Path) -> Result<Vec<PathBuf>> {
        let refuse = |reason: String| Error::Llama { name: self.name.to_owned(), reason };
        let architecture = self.architecture()?;
        if self.row.len() != architecture.num_parameters() {
            return Err(refuse(format!("it has {} weights, its sizes say {}", self.row.len(), architecture.num_parameters())));
        }
        if let Some(at) = crate::tensors::first_non_finite(self.row) {
            return Err(refuse(format!("weight {at} is {}", self.row[at])));
        }
        let tokens = self.vocabulary.map_or(self.family.vocabulary, Vocabulary::len);
        if tokens != self.family.vocabulary {
            return Err(refuse(format!("its tokenizer has {tokens} pieces, and it knows {} tokens", self.family.vocabulary)));
        }
        let tensors: Vec<_> = architecture
            .tensors()
            .iter()
            .map(|tensor| (tensor.name.clone(), tensor.shape.clone(), &self.row[tensor.range()]))
            .collect();
        let tokenizer = self.vocabulary.map(Vocabulary::to_tokenizer_json).transpose().map_err(refuse)?;
        write_folder(out, |folder| {
            let write = |name: &str, text: &str| write_atomic(&folder.join(name), text.as_bytes());
            write(FILES[0], &format!("{:#}\n", self.config()))?;
            write_tensors(&folder.join(FILES[1]), &tensors, &self.metadata())?;
            if let Some(tokenizer) = &tokenizer {
                write(FILES[2], tokenizer)?;
            }
            write(FILES[3], &format!("{:#}\n", self.provenance()))?;
            write(FILES[4], &self.card())
        })?;
        let written = FILES.iter().filter(|file| tokenizer.is_some() || **file != FILES[2]);
        Ok(written.map(|file| out.join(file)).collect())
    }

    fn architecture(&self) -> Result<Architecture> {
        let refuse = |reason: String| Error::Llama { name: self.name.to_owned(), reason };
        if self.family.pairs != RopePairs::Halves {
            return Err(refuse("its rotary positions turn neighbors, and Transformers turns halves".to_owned()));
        }
        Family::Llama(self.family.clone()).build("llama").map_err(|error| refuse(error.to_string()))
    }

    fn config(&self) -> serde_json::Value {
        let Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta, epsilon, .. } =
            *self.family;
        json!({
            "_name_or_path": self.name,
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "bos_token_id": Vocabulary::START,
            "eos_token_id": Vocabulary::END,
            "head_dim": d_model / num_heads,
            "hidden_act": "silu",
            "hidden_size": d_model,
            "intermediate_size": d_hidden,
            "max_position_embeddings": length,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": num_heads,
            "num_hidden_layers": depth,
            "num_key_value_heads": num_kv_heads,
            "rms_norm_eps": epsilon,
            "rope_theta": theta,
            "tie_word_embeddings": tied,
            "torch_dtype": "float32",
            "vocab_size": vocabulary,
        })
    }

    fn metadata(&self) -> Metadata {
        let [file, sha256] = self.source;
        Metadata::from([
            // Transformers refuses files that do not say it.
            ("format".to_owned(), "pt".to_owned()),
            ("weft.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("weft.base".to_owned(), self.name.to_owned()),
            ("weft.licence".to_owned(), self.licence.to_owned()),
            ("weft.parents".to_owned(), format!("{sha256} {file}")),
            ("weft.rotary".to_owned(), rotary_name(self.family.pairs).to_owned()),
        ])
    }

    fn provenance(&self) -> serde_json::Value {
        let [file, sha256] = self.source;
        json!({
            "weft": env!("CARGO_PKG_VERSION"),
            "kind": "base",
            "name": self.name,
            "licence": self.licence,
            "rotary": rotary_name(self.family.pairs),
            "parents": [{ "name": file, "sha256": sha256, "licence": self.licence, "rotary": rotary_name(self.from) }],
        })
    }

    fn card(&self) -> String {
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let [file, sha256] = self.source;
        let order = match self.from {
            RopePairs::Halves => "as they were",
            RopePairs::Interleaved => "in the order of Transformers (in the file, neighbors are turned together)",
        };
        format!(
            "---\nlibrary_name: transformers\nlicense: {}\ntags:\n- weft\n---\n\n# {}\n\nWritten by weft {} of {} (SHA-256 `{sha256}`): weights in \
             `f32`, rows of queries and keys {order}. Adapters of it that Weft writes are in the same order, and load in PEFT.\n",
            quote(&self.licence.to_lowercase()),
            self.name.replace(['\n', '\r'], " "),
            env!("CARGO_PKG_VERSION"),
            quote(file),
        )
    }
}
