//! Files of llama.cpp: GGUF version 3 with `general.type = adapter` and `adapter.type = lora`.
//!
//! llama.cpp adds `alpha / r · B·A`, with one alpha a file and the rank of each pair. Tensors have the names of the
//! model's with `.lora_a` and `.lora_b` behind; extents stand innermost first. Llama's files have the rows of queries
//! and keys in another order than Hugging Face's, head by head the two halves interleaved, and `B` must follow.
//! Embeddings have `A` transposed. Where a base's output layer is its embedding, llama.cpp looks the update up for both, and
//! its multiplication ends the program (`GGML_ASSERT(ggml_can_mul_mat(a, b))` in `build_lora_mm`): such an update is refused.
//!
//! # References
//! llama.cpp, `convert_lora_to_gguf.py`, `convert_hf_to_gguf.py` (`LlamaModel.permute`), `src/llama-adapter.cpp`,
//! `src/llama-graph.cpp`; ggml's GGUF specification. `tests/python/test_engines.py` runs llama.cpp.

use super::super::profile::plain;
use super::super::{AdapterFault, AdapterUpdate, AdapterWeights, BaseModel};
use super::AdapterExport;
use crate::atomic::{AtomicFile, parent_of};
use crate::rotary::interleaved_from_halves;
use crate::source::AdapterKind;
use crate::tensors::little_endian;
use crate::{Result, refuse_existing};
use std::collections::BTreeMap;
use std::path::Path;

const TARGET: &str = "a GGUF file";

/// Data of tensors begin at multiples of this.
const ALIGNMENT: usize = 32;

/// Types of values.
const STRING: u32 = 8;
const F32_VALUE: u32 = 6;
const U32_VALUE: u32 = 4;

/// Models whose linear maps have Llama's names, and what llama.cpp calls them.
const MODELS: [(&str, &str); 6] =
    [("llama", "llama"), ("mistral", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("gemma", "gemma"), ("gemma2", "gemma2")];

/// Modules of a layer.
const IN_LAYER: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// A tensor to write: name, extents outermost first, values.
type Tensor = (String, [usize; 2], Vec<f32>);

pub(super) fn write(adapter: AdapterWeights, export: &AdapterExport<'_>, out: &Path) -> Result<()> {
    let fail = |fault: AdapterFault| fault.at(out);
    let base = export.base.ok_or_else(|| {
        let what = "the base's folder with `config.json`: `--base DIR`".to_owned();
        fail(AdapterFault::Needs { target: TARGET, what })
    })?;
    let layout = Layout::of(base).map_err(fail)?;
    let (alpha, adapter) = one_alpha(adapter);
    let mut tensors = Vec::with_capacity(2 * adapter.updates.len());
    // The converter passes over a base's own weights as well.
    if let Some(tensor) = adapter.whole.iter().find(|tensor| !tensor.is_base_layer()) {
        return Err(fail(AdapterFault::NotHeld {
            what: format!("the adapter replaces `{}` as a whole", tensor.name),
            target: TARGET,
        }));
    }
    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for update in &adapter.updates {
        let pair = layout.tensors(update).map_err(fail)?;
        // Names with and without `model.`, and numbers with and without zeros in front, become one.
        if let Some(other) = taken.insert(pair[0].0.clone(), &update.module) {
            let what = format!("modules `{other}` and `{}` are one there, `{}`", update.module, pair[0].0);
            return Err(fail(AdapterFault::NotHeld { what, target: TARGET }));
        }
        tensors.extend(pair);
    }
    refuse_existing(out)?;
    let mut file = AtomicFile::create_in(parent_of(out))?;
    file.write(&header(&layout, alpha, &adapter, export, &tensors))?;
    let mut buffer = Vec::new();
    for (_, _, values) in &tensors {
        let bytes = little_endian(values, &mut buffer);
        file.write(bytes)?;
        file.write(&vec![0; bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
    }
    file.commit(out)
}

/// What the base's settings say of its files.
struct Layout {
    architecture: &'static str,
    num_heads: usize,
    num_kv_heads: usize,
    tied: bool,
}

impl Layout {
    fn of(base: &BaseModel) -> Result<Self, AdapterFault> {
        let needs = |what: &str| AdapterFault::Needs { target: TARGET, what: format!("{what} in the base's `config.json`") };
        let model = base.text("model_type").ok_or_else(|| needs("`model_type`"))?;
        let known = MODELS.iter().find(|(name, _)| *name == model).ok_or_else(|| {
            let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
            AdapterFault::NotHeld {
                what: format!("the base is of type `{model}`, not one of `{}`", names.join("`, `")),
                target: TARGET,
            }
        })?;
        let [num_heads, num_kv_heads] = base.heads(TARGET)?;
        Ok(Self { architecture: known.1, num_heads, num_kv_heads, tied: base.is_tied() })
    }

    /// Both factors under llama.cpp's names.
    fn tensors(&self, update: &AdapterUpdate) -> Result<[Tensor; 2], AdapterFault> {
        let AdapterUpdate { module, rank, fan_in, fan_out, .. } = update;
        plain(update, TARGET)?;
        let refuse = |why: &str| AdapterFault::NotHeld { what: format!("module `{module}` {why}"), target: TARGET };
        let name = name_of(module).ok_or_else(|| refuse("has no name there"))?;
        if name == "output" && self.tied {
            return Err(refuse("is tied to the embedding of the base"));
        }
        let (mut a, mut b) = ((name.clone() + ".weight.lora_a", [*rank, *fan_in], update.a.clone()), update.b.clone());
        match (update.kind, name.rsplit('.').next()) {
            (AdapterKind::Conv, _) => return Err(refuse("is a convolution")),
            (AdapterKind::Embedding, _) if name != "token_embd" => return Err(refuse("is a table of embeddings")),
            (AdapterKind::Linear, _) if name == "token_embd" => return Err(refuse("is a linear map")),
            (AdapterKind::Embedding, _) if self.tied => {
                return Err(refuse("is the base's output layer too, and an update of both ends llama.cpp"));
            }
            (AdapterKind::Embedding, _) => {
                let transposed = (0..fan_in * rank).map(|i| update.a[i % rank * fan_in + i / rank]).collect();
                a = (a.0, [*fan_in, *rank], transposed);
            }
            (_, Some(part @ ("attn_q" | "attn_k"))) if self.architecture == "llama" => {
                let heads = if part == "attn_q" { self.num_heads } else { self.num_kv_heads };
                if !fan_out.is_multiple_of(2 * heads) {
                    return Err(refuse(&format!("has {fan_out} outputs, which {heads} heads of even width do not divide")));
                }
                b = interleaved_from_halves(&b, *rank, heads);
            }
            _ => {}
        }
        Ok([a, (name + ".weight.lora_b", [*fan_out, *rank], b)])
    }
}

/// llama.cpp's name of a module, without `.weight`.
fn name_of(module: &str) -> Option<String> {
    let inner = module.strip_prefix("model.").unwrap_or(module);
    match inner {
        "embed_tokens" => return Some("token_embd".to_owned()),
        "lm_head" => return Some("output".to_owned()),
        _ => {}
    }
    let (layer, part) = inner.strip_prefix("layers.")?.split_once('.')?;
    let number: usize = layer.parse().ok()?;
    let (_, name) = IN_LAYER.iter().find(|(theirs, _)| *theirs == part)?;
    Some(format!("blk.{number}.{name}"))
}

/// One alpha for all modules: the one that they share, or the first rank with the rest in `B`.
fn one_alpha(mut adapter: AdapterWeights) -> (f32, AdapterWeights) {
    let alpha = |update: &AdapterUpdate| update.scaling * update.rank as f64;
    let first = adapter.updates.first().map_or(1.0, alpha);
    // llama.cpp takes an alpha of 0 for none.
    let same = |value: f64| value.to_bits() == first.to_bits();
    if first != 0.0 && same(f64::from(first as f32)) && adapter.updates.iter().all(|update| same(alpha(update))) {
        return (first as f32, adapter);
    }
    let common = adapter.updates.first().map_or(1, |update| update.rank) as f64;
    for update in &mut adapter.updates {
        let factor = alpha(update) / common;
        update.b.iter_mut().for_each(|value| *value = (f64::from(*value) * factor) as f32);
        update.scaling = common / update.rank as f64;
    }
    (common as f32, adapter)
}

/// Everything before the data.
fn header(layout: &Layout, alpha: f32, adapter: &AdapterWeights, export: &AdapterExport<'_>, tensors: &[Tensor]) -> Vec<u8> {
    let mut texts = vec![
        ("general.architecture".to_owned(), layout.architecture.to_owned()),
        ("general.type".to_owned(), "adapter".to_owned()),
        ("adapter.type".to_owned(), "lora".to_owned()),
    ];
    if let Some(base) = &adapter.base {
        texts.push(("general.base_model.0.name".to_owned(), base.clone()));
    }
    let own = super::card::metadata(adapter, export).into_iter().filter(|(key, _)| key.starts_with("weft."));
    texts.extend(own);
    let mut numbers =
        vec![("general.file_type", U32_VALUE, 0_u32.to_le_bytes()), ("adapter.lora.alpha", F32_VALUE, alpha.to_le_bytes())];
    if adapter.base.is_some() {
        numbers.push(("general.base_model.count", U32_VALUE, 1_u32.to_le_bytes()));
    }
    let mut bytes = b"GGUF".to_vec();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend(3_u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(((texts.len() + numbers.len()) as u64).to_le_bytes());
    for (key, value) in &texts {
        text(&mut bytes, key);
        bytes.extend(STRING.to_le_bytes());
        text(&mut bytes, value);
    }
    for (key, kind, value) in numbers {
        text(&mut bytes, key);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
    }
    let mut offset = 0_u64;
    for (name, [rows, columns], values) in tensors {
        text(&mut bytes, name);
        bytes.extend(2_u32.to_le_bytes());
        bytes.extend((*columns as u64).to_le_bytes());
        bytes.extend((*rows as u64).to_le_bytes());
        // F32.
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        offset += (4 * values.len()).next_multiple_of(ALIGNMENT) as u64;
    }
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_llama() {
        let check = |module: &str, expected: Option<&str>| assert_eq!(name_of(module).as_deref(), expected, "{module}");
        check("model.layers.3.self_attn.q_proj", Some("blk.3.attn_q"));
        check("layers.0.mlp.down_proj", Some("blk.0.ffn_down"));
        check("lm_head", Some("output"));
        check("model.layers.x.self_attn.q_proj", None);
        check("transformer.h.0.attn.c_attn", None);
    }

    #[test]
    fn one_alpha_gives_the_same_updates() {
        let update = |rank: usize, scaling: f64| AdapterUpdate {
            scaling,
            ..AdapterUpdate::linear(&format!("m{rank}"), [1, rank, 1], vec![1.0; rank], vec![3.0; rank])
        };
        let product = |alpha: f64, u: &AdapterUpdate| alpha / u.rank as f64 * f64::from(u.b[0]) * u.rank as f64;
        for scalings in [[2.0, 1.0], [2.0, 0.25], [0.0, 0.0]] {
            let updates = vec![update(4, scalings[0]), update(8, scalings[1])];
            let expected: Vec<f64> = updates.iter().map(|u| u.scaling * 3.0 * u.rank as f64).collect();
            let (alpha, adapter) = one_alpha(AdapterWeights { updates, ..AdapterWeights::default() });
            let got: Vec<f64> = adapter.updates.iter().map(|u| product(f64::from(alpha), u)).collect();
            assert_eq!(got, expected, "{scalings:?}");
            assert!(alpha > 0.0);
        }
    }
}
