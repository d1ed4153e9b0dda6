//! Binaries of llama2.c: seven integers, and the tensors of a Llama-like decoder one after the other.
//!
//! Shapes: `d` model width, `f` width of the feed-forward layer, `l` layers, `k` width of keys and values, `v`
//! vocabulary, `t` positions, `e` half the width of a head.
//!
//! | in the file | here, a layer each |
//! |---|---|
//! | `tok_embeddings [v, d]` | `model.embed_tokens.weight` |
//! | `rms_att [l, d]` | `model.layers.{i}.input_layernorm.weight` |
//! | `wq [l, d, d]`, `wk`, `wv [l, k, d]`, `wo [l, d, d]` | `model.layers.{i}.self_attn.{q,k,v,o}_proj.weight` |
//! | `rms_ffn [l, d]` | `model.layers.{i}.post_attention_layernorm.weight` |
//! | `w1 [l, f, d]`, `w2 [l, d, f]`, `w3 [l, f, d]` | `model.layers.{i}.mlp.{gate,down,up}_proj.weight` |
//! | `rms_final [d]` | `model.norm.weight` |
//! | `freq_cis_real`, `freq_cis_imag [t, e]` | left out: they follow from the numbers |
//! | `wcls [v, d]`, if the vocabulary's number is negative | `lm_head.weight` |
//!
//! Names are those of Hugging Face's Llama. The values are not: rotary positions turn neighboring pairs of rows of
//! `q` and `k` here, halves of a head there; the metadata say `rope = interleaved`.
//!
//! # References
//! Karpathy, llama2.c, `export.py` (version 0) and `run.c`.

use super::{Place, Source, SourceDtype, SourceFault, SourceFormat, SourceTensor};
use crate::mapped::MappedFile;
use crate::tensors::Metadata;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Seven integers of 32 bits.
const HEADER_BYTES: usize = 28;

/// What the integers are, in their order.
const FIELDS: [&str; 7] = ["dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len"];

/// The numbers of a header that belong together.
struct Config {
    fields: [u64; 7],
    shared_classifier: bool,
}

impl Config {
    fn parse(bytes: &[u8]) -> Result<Self, SourceFault> {
        let header = bytes.first_chunk::<HEADER_BYTES>();
        let expected = HEADER_BYTES as u64;
        let header = header.ok_or(SourceFault::Length { expected, got: bytes.len() as u64 })?;
        let mut fields = [0; 7];
        let mut shared_classifier = true;
        for (i, chunk) in header.as_chunks::<4>().0.iter().enumerate() {
            let value = i32::from_le_bytes(*chunk);
            let is_vocabulary = FIELDS[i] == "vocab_size";
            if value == 0 || (value < 0 && !is_vocabulary) {
                return Err(Self::refuse(i, value.to_string(), "a positive number"));
            }
            shared_classifier &= value > 0;
            fields[i] = u64::from(value.unsigned_abs());
        }
        let [dim, _, _, heads, kv_heads, ..] = fields;
        if dim % heads != 0 || !(dim / heads).is_multiple_of(2) {
            return Err(Self::refuse(3, heads.to_string(), "a number of heads that gives each an even share of `dim`"));
        }
        if heads % kv_heads != 0 {
            return Err(Self::refuse(4, kv_heads.to_string(), "a divisor of `n_heads`"));
        }
        Ok(Self { fields, shared_classifier })
    }

    fn refuse(field: usize, got: String, expected: &'static str) -> SourceFault {
        SourceFault::Setting { field: FIELDS[field].to_owned(), got, expected }
    }

    /// The parts of the file in their order: how many layers, the name, and the shape of each layer.
    fn parts(&self) -> [(u64, &'static str, Vec<u64>); 14] {
        let [d, f, l, heads, kv_heads, v, t] = self.fields;
        let (k, e) = (d / heads * kv_heads, d / heads / 2);
        let wcls = u64::from(!self.shared_classifier);
        [
            (1, "model.embed_tokens.weight", vec![v, d]),
            (l, "input_layernorm.weight", vec![d]),
            (l, "self_attn.q_proj.weight", vec![d, d]),
            (l, "self_attn.k_proj.weight", vec![k, d]),
            (l, "self_attn.v_proj.weight", vec![k, d]),
            (l, "self_attn.o_proj.weight", vec![d, d]),
            (l, "post_attention_layernorm.weight", vec![d]),
            (l, "mlp.gate_proj.weight", vec![f, d]),
            (l, "mlp.down_proj.weight", vec![d, f]),
            (l, "mlp.up_proj.weight", vec![f, d]),
            (1, "model.norm.weight", vec![d]),
            (1, REAL, vec![t, e]),
            (1, IMAGINARY, vec![t, e]),
            (wcls, "lm_head.weight", vec![v, d]),
        ]
    }

    /// The length of a file with this header.
    fn file_bytes(&self) -> u64 {
        let of = |(layers, _, shape): &(u64, &str, Vec<u64>)| shape.iter().fold(*layers, |size, &axis| size.saturating_mul(axis));
        let values = self.parts().iter().map(of).fold(0, u64::saturating_add);
        values.saturating_mul(4).saturating_add(HEADER_BYTES as u64)
    }
}

/// Tables that follow from the numbers.
const REAL: &str = "freq_cis_real";
const IMAGINARY: &str = "freq_cis_imag";

/// Checks that a file is of this format; nothing but its header and its length says so.
pub(super) fn recognize(bytes: &[u8]) -> Result<(), SourceFault> {
    check(bytes).map(|_| ())
}

fn check(bytes: &[u8]) -> Result<Config, SourceFault> {
    let config = Config::parse(bytes)?;
    let (expected, got) = (config.file_bytes(), bytes.len() as u64);
    if expected == got { Ok(config) } else { Err(SourceFault::Length { expected, got }) }
}

pub(super) fn open(path: &Path) -> Result<Source> {
    let file = Arc::new(MappedFile::open(path)?);
    let config =
        check(file.bytes()).map_err(|fault| Error::Source { path: path.to_owned(), format: SourceFormat::Llama2c, fault })?;
    let mut tensors = BTreeMap::new();
    let mut at = HEADER_BYTES;
    for (layers, name, shape) in config.parts() {
        // All of it lies within the file, so no product overflows.
        let shape: Vec<usize> = shape.iter().map(|&axis| axis as usize).collect();
        let bytes = 4 * shape.iter().product::<usize>();
        for layer in 0..layers {
            let is_whole = name.starts_with("model.") || name.starts_with("lm_head");
            let name = if is_whole { name.to_owned() } else { format!("model.layers.{layer}.{name}") };
            if !name.ends_with(REAL) && !name.ends_with(IMAGINARY) {
                let place = Place::Mapped { file: Arc::clone(&file), range: at..at + bytes };
                tensors.insert(name.clone(), SourceTensor::new(name, shape.clone(), SourceDtype::F32, place));
            }
            at += bytes;
        }
    }
    let mut metadata: Metadata =
        FIELDS.iter().zip(config.fields).map(|(field, value)| ((*field).to_owned(), value.to_string())).collect();
    metadata.insert("rope".to_owned(), "interleaved".to_owned());
    metadata.insert("shared_classifier".to_owned(), config.shared_classifier.to_string());
    Ok(Source { metadata, ..Source::new(path, SourceFormat::Llama2c, tensors) })
}
