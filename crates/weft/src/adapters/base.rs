//! Frozen bases of adapters: read in the order of Transformers, written for it, and what they compute with an adapter.
//!
//! A base in llama2.c's layout gets its rows of queries and keys in the order of Transformers as it is read, so that adapters over it are those of
//! its copy for Transformers, and load in PEFT.

use super::read as read_adapter;
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::families::{Family, Llama};
use weft_core::{Digest, RopePairs, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, Adapters, Base, LoraConfig, initial_adapter};
use weft_zoo::adapter::{BaseModel, licence_beside};
use weft_zoo::{Hints, LlamaExport, Metadata, Source, Vocabulary};

/// The most tokens of a sequence that logits are given of.
const MAX_TOKENS: usize = 1 << 16;
/// Names of files that say nothing of the network in them.
const PLAIN: [&str; 3] = ["model", "pytorch_model", "consolidated"];

/// Opens the one network of a file or folder.
fn open(path: &Path) -> Result<Source> {
    let damaged = |reason: &str| Error::Damaged { path: path.to_owned(), reason: reason.to_owned() };
    let mut sources = weft_zoo::open_sources(path)?;
    match sources.len() {
        0 => Err(damaged("it holds no network")),
        1 => Ok(sources.remove(0)),
        _ => Err(damaged("it holds several networks; name one file")),
    }
}

/// The base of a file of weights, its rows of queries and keys in the order of Transformers, and the digest of its weights.
pub(super) fn read(path: &Path) -> Result<(Arc<Base>, Digest)> {
    let source = open(path)?;
    let inferred = weft_zoo::infer(&source, &Hints::default())?;
    let row = inferred.binding.bind(&source, &inferred.architecture)?;
    let (architecture, row) = weft_zoo::in_transformers_layout(inferred, row)?;
    let digest = Digest::of_weights(&architecture, &row);
    Ok((Arc::new(Base::new(&Arc::new(architecture), &row)?), digest))
}

/// A base to write for Transformers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseExport {
    /// A file of weights, such as a binary of llama2.c.
    pub input: PathBuf,
    /// The folder to write; it must not be there.
    pub output: PathBuf,
    /// Its tokenizer, a file of llama2.c.
    pub vocabulary: Option<PathBuf>,
    /// What adapters call it; the file's name, or its folder's, where none is given.
    pub name: Option<String>,
    /// Its licence as an SPDX expression; what lies beside it says where none is given.
    pub licence: Option<String>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BaseView {
    /// The folder.
    pub output: PathBuf,
    /// What adapters call it.
    pub name: String,
    /// Its licence, as far as it is known.
    pub licence: String,
    /// Its weights.
    pub parameters: usize,
    /// In which order rows of queries and keys stood: `halves` or `interleaved`.
    pub from: &'static str,
    /// The files.
    pub files: Vec<PathBuf>,
    /// What was assumed.
    pub notes: Vec<String>,
}

/// Writes a decoder of the Llama family as a folder that Transformers loads, whole or not at all; rows of queries and keys come into its order.
///
/// # Errors
/// A file that is no such decoder, a tokenizer of another number of tokens, or a folder that is there already.
pub fn export_base(request: &BaseExport) -> Result<BaseView> {
    weft_zoo::refuse_existing(&request.output)?;
    let source = open(&request.input)?;
    let inferred = weft_zoo::infer(&source, &Hints::default())?;
    let notes = inferred.notes.clone();
    let Some(Family::Llama(family)) = inferred.family.clone() else {
        let what = format!("the network in `{}`", request.input.display());
        let reason = format!("it is `{}`, no decoder of the family `llama`", inferred.architecture.name());
        return Err(Error::Misfit { what, other: "Transformers' `LlamaForCausalLM`".to_owned(), reason });
    };
    let from = family.pairs;
    let row = inferred.binding.bind(&source, &inferred.architecture)?;
    let (_, row) = weft_zoo::in_transformers_layout(inferred, row)?;
    let vocabulary = request.vocabulary.as_deref().map(Vocabulary::open).transpose()?;
    let file = source.files().last().map_or(source.path(), PathBuf::as_path);
    let sha256 = weft_zoo::sha256_of_file(file)?.to_string();
    let name = request.name.clone().unwrap_or_else(|| name_of(&request.input));
    let folder = if request.input.is_dir() { &request.input } else { request.input.parent().unwrap_or(Path::new("")) };
    let licence = request.licence.clone().unwrap_or_else(|| licence_beside(folder));
    let export = LlamaExport {
        family: &Llama { pairs: RopePairs::Halves, ..family },
        row: &row,
        name: &name,
        licence: &licence,
        source: [&file.file_name().unwrap_or_default().to_string_lossy(), &sha256],
        from,
        vocabulary: vocabulary.as_ref(),
    };
    let files = export.write(&request.output)?;
    let output = request.output.clone();
    Ok(BaseView { output, name, licence, parameters: row.len(), from: weft_zoo::rotary_name(from), files, notes })
}

/// What a base is called by its path.
fn name_of(path: &Path) -> String {
    let full = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let stem = full.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let says_nothing = full.is_file() && PLAIN.iter().any(|plain| stem.starts_with(plain));
    let folder = if says_nothing { full.parent().unwrap_or(&full) } else { &full };
    match folder.file_name() {
        Some(name) if says_nothing || full.is_dir() => name.to_string_lossy().into_owned(),
        _ => stem,
    }
}

/// The tokens to say something of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// By number.
    Tokens(Vec<u32>),
    /// A text, and the tokenizer of llama2.c that cuts it; the token that starts a text comes first.
    Text(String, PathBuf),
}

/// A base, an adapter of it, and tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogitsRequest {
    /// The base: a folder of Transformers, or a file of weights.
    pub base: PathBuf,
    /// The name that the adapter knows it by, where the folder has another.
    pub base_name: Option<String>,
    /// The adapter; without one the base alone computes.
    pub adapter: Option<PathBuf>,
    /// The tokens.
    pub prompt: Prompt,
    /// The file to write; it must not be there.
    pub output: PathBuf,
}

/// What a base says of tokens: logits of the next one, or an encoder's vector.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LogitsView {
    /// The file, with a tensor `logits`, `[tokens, vocabulary]`; of an encoder `vector`, `[width]`, of length 1: the mean over tokens.
    pub output: PathBuf,
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Different tokens, or an encoder's width.
    pub vocabulary: usize,
    /// The mean of `−ln p` of each token but the first, in nats; none of one token.
    pub loss: Option<f64>,
    /// The likeliest token behind the last; none of an encoder.
    pub next: Option<u32>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Computes logits of the next token behind each, or the vector of a sentence, on the CPU in `f32`, and writes it: what another runtime is held against.
///
/// # Errors
/// A base that is no decoder, an adapter of another or with more than low-rank updates of its linear maps, tokens that it does not know or too many, or a
/// file that is there already.
pub fn logits(request: &LogitsRequest) -> Result<LogitsView> {
    weft_zoo::refuse_existing(&request.output)?;
    let (base, _) = read(&request.base)?;
    let tokens = match &request.prompt {
        Prompt::Tokens(tokens) => tokens.clone(),
        Prompt::Text(text, vocabulary) => {
            let start = std::iter::once(Vocabulary::START);
            start.chain(Vocabulary::open(vocabulary)?.encode(text)).collect()
        }
    };
    if tokens.len() > MAX_TOKENS {
        let expected = format!("at most {MAX_TOKENS}");
        return Err(Error::Range { what: "the number of tokens", expected, got: tokens.len().to_string() });
    }
    let (layout, row, notes) = if let Some(adapter) = &request.adapter {
        factors(request, &base, adapter)?
    } else {
        let layout = AdapterLayout::new(&base, &LoraConfig::query_and_value(&base, 1))?;
        // Its second factor is 0, and so is the update.
        let row = initial_adapter(&layout, Seed::new(0));
        (layout, row, Vec::new())
    };
    let (vocabulary, is_decoder) = (base.vocabulary(), base.is_decoder());
    let adapters = Adapters::new(base, layout, &Device::cpu())?;
    if !is_decoder {
        let vector = adapters.encode(&row, std::slice::from_ref(&tokens))?.concat();
        weft_zoo::write_tensors(&request.output, &[("vector".to_owned(), vec![vector.len()], &vector)], &Metadata::new())?;
        let output = request.output.clone();
        return Ok(LogitsView { output, tokens, vocabulary: vector.len(), loss: None, next: None, notes });
    }
    let logits = adapters.logits(&row, &tokens)?;
    let shape = vec![tokens.len(), vocabulary];
    weft_zoo::write_tensors(&request.output, &[("logits".to_owned(), shape, &logits)], &Metadata::new())?;
    let rows = || logits.chunks_exact(vocabulary);
    let nats = |(z, &next): (&[f32], &u32)| {
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        f64::from(max - z[next as usize]) + z.iter().map(|z| f64::from(z - max).exp()).sum::<f64>().ln()
    };
    let predicted = tokens.len() - 1;
    let loss = (predicted > 0).then(|| rows().zip(&tokens[1..]).map(nats).sum::<f64>() / predicted as f64);
    let likeliest = |z: &[f32]| z.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(at, _)| at as u32);
    let next = rows().next_back().map(likeliest);
    Ok(LogitsView { output: request.output.clone(), tokens, vocabulary, loss, next, notes })
}

/// An adapter's layout over its base, its factors, and what people should know.
fn factors(request: &LogitsRequest, base: &Base, path: &Path) -> Result<(AdapterLayout, Vec<f32>, Vec<String>)> {
    let model = BaseModel::open(&request.base)?;
    let model = match &request.base_name {
        Some(name) => model.named(name),
        None => model,
    };
    // Its reader has brought its rows into this order.
    let file = read_adapter(path, Some(&model.with_rotary(RopePairs::Halves)))?;
    let (lora, row) = file.weights.to_lora().map_err(|fault| Error::Zoo(fault.at(path)))?;
    let architecture = Family::Lora(lora).build("adapter")?;
    Ok((AdapterLayout::of(base, Arc::new(architecture))?, row, file.notes))
}

#[cfg(test)]
mod tests;
