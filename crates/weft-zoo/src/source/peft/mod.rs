//! Adapter folders of the PEFT library: low-rank updates of a base model's weights.
//!
//! A module with weight `W` (out × in) has `A` (r × in) and `B` (out × r); the adapted weight is `W + s·B·A` with
//! `s = alpha / r`, or `alpha / √r` for rank-stabilized adapters. Rank and alpha may differ by module
//! (`rank_pattern`, `alpha_pattern`). Adapters with a magnitude vector (DoRA) are recognized and named.
//!
//! # References
//! Hu et al., "LoRA" (2021); Kalajdzievski, "A rank stabilization scaling factor" (2023); Liu et al., "DoRA" (2024);
//! the PEFT library's `LoraConfig`, `get_pattern_key` and `get_peft_model_state_dict`.

mod config;
mod keys;
mod patterns;

use super::{Source, SourceFault, SourceFormat, pytorch, safetensors};
use crate::mapped::MappedFile;
use crate::{Error, Result};
pub(crate) use config::Config;
use keys::Part;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file of settings.
pub(super) const CONFIG: &str = "adapter_config.json";

/// The files of weights, the likelier first.
const WEIGHTS: [&str; 2] = ["adapter_model.safetensors", "adapter_model.bin"];

/// The longest file of settings that is read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// What an adapter consists of.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// The model that it was trained on, as the settings name it.
    pub base_model: Option<String>,
    /// The modules with a low-rank update, in the order of their names.
    pub modules: Vec<AdapterModule>,
    /// Tensors that replace one of the base model's as a whole (`modules_to_save`, biases): the name in the adapter
    /// by the name in the base model.
    pub replaced: BTreeMap<String, String>,
    /// Whether the base model stores these weights in × out, as GPT-2 does.
    pub fan_in_fan_out: bool,
}

/// A module with a low-rank update.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterModule {
    /// Its name in the base model, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// The kind of module.
    pub kind: AdapterKind,
    /// The rank of the update.
    pub rank: usize,
    /// What the product of the factors is multiplied by.
    pub scaling: f64,
    /// The name of the first factor: rank × in.
    pub a: String,
    /// The name of the second factor: out × rank.
    pub b: String,
    /// The name of a bias of the second factor.
    pub b_bias: Option<String>,
    /// The name of the magnitude vector, for DoRA.
    pub magnitude: Option<String>,
}

impl AdapterModule {
    /// Whether the update is one of DoRA: direction and magnitude apart.
    #[must_use]
    pub fn is_dora(&self) -> bool {
        self.magnitude.is_some()
    }
}

/// The kind of module that an update belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterKind {
    /// A linear map: factors of two axes.
    Linear,
    /// A table of embeddings: `A` is rank × entries.
    Embedding,
    /// A convolution: `A` has its kernel, `B` a kernel of ones.
    Conv,
}

pub(super) fn open(path: &Path) -> Result<Source> {
    // The folder stands for its settings and the other way round.
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let config_path = folder.join(CONFIG);
    let fail = |fault| Error::Source { path: folder.to_owned(), format: SourceFormat::Peft, fault };
    let file = MappedFile::open(&config_path)?;
    let len = file.bytes().len() as u64;
    if len > MAX_CONFIG_BYTES {
        return Err(fail(SourceFault::TooLarge { what: format!("`{CONFIG}`"), got: len, limit: MAX_CONFIG_BYTES }));
    }
    let config = Config::parse(file.bytes()).map_err(fail)?;
    let weights = find_weights(folder).map_err(fail)?;
    let is_torch = weights.extension().is_some_and(|extension| extension == "bin");
    let mut source = if is_torch { pytorch::open(&weights)? } else { safetensors::open(&weights)? };
    let adapter = adapter(&source, &config).map_err(fail)?;
    source.metadata.extend(config.metadata());
    source.adapter = Some(adapter);
    Ok(Source { path: folder.to_owned(), format: SourceFormat::Peft, files: vec![config_path, weights], ..source })
}

fn find_weights(folder: &Path) -> Result<PathBuf, SourceFault> {
    let found = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| SourceFault::MissingFile { name: WEIGHTS[0].to_owned() })
}

/// The tensors of one module.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    b_bias: Option<String>,
    magnitude: Option<String>,
    is_embedding: bool,
}

fn adapter(source: &Source, config: &Config) -> Result<Adapter, SourceFault> {
    let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
    let mut replaced = BTreeMap::new();
    for name in source.tensors().keys() {
        let (module, part) = keys::parse(name)?;
        if part == Part::Whole {
            if let Some(first) = replaced.insert(module, name.clone()) {
                return Err(SourceFault::Duplicate { name: first });
            }
            continue;
        }
        let parts = modules.entry(module).or_default();
        parts.is_embedding |= matches!(part, Part::A { embedding: true } | Part::B { embedding: true });
        let place = match part {
            Part::A { .. } => &mut parts.a,
            Part::B { .. } => &mut parts.b,
            Part::BBias => &mut parts.b_bias,
            Part::Magnitude | Part::Whole => &mut parts.magnitude,
        };
        if let Some(first) = place.replace(name.clone()) {
            // Two adapters of one module, or one tensor under two spellings.
            return Err(SourceFault::Duplicate { name: first });
        }
    }
    if modules.is_empty() {
        return Err(SourceFault::Empty);
    }
    let names: Vec<&str> = modules.keys().map(String::as_str).collect();
    let settings = config.ranks_and_alphas(&names)?;
    let modules = modules.into_iter().zip(settings);
    let modules = modules.map(|((module, parts), rank_and_alpha)| parts.check(source, config, module, rank_and_alpha));
    let modules = modules.collect::<Result<_, _>>()?;
    Ok(Adapter { base_model: config.base_model.clone(), modules, replaced, fan_in_fan_out: config.fan_in_fan_out })
}

impl Parts {
    fn check(
        self,
        source: &Source,
        config: &Config,
        module: String,
        (rank, alpha): (usize, f64),
    ) -> Result<AdapterModule, SourceFault> {
        let missing =
            |part: &str| SourceFault::MissingTensor { tensor: format!("{module}.{part}"), file: "the adapter".to_owned() };
        let a = self.a.ok_or_else(|| missing("lora_A"))?;
        let b = self.b.ok_or_else(|| missing("lora_B"))?;
        let (a_shape, b_shape) = (&source.tensors()[&a].shape, &source.tensors()[&b].shape);
        let refuse = |reason| SourceFault::malformed(format!("module `{module}`"), reason);
        let kind = match (self.is_embedding, a_shape.len()) {
            (true, 2) => AdapterKind::Embedding,
            (false, 2) => AdapterKind::Linear,
            (false, 3..=5) => AdapterKind::Conv,
            (_, axes) => return Err(refuse(format!("`lora_A` has {axes} axes"))),
        };
        // PEFT would refuse such a file as well: it makes tensors of the declared rank first.
        let fits = a_shape[0] == rank && b_shape.get(1) == Some(&rank) && b_shape.len() == a_shape.len();
        if !fits || b_shape[2..].iter().any(|&axis| axis != 1) {
            return Err(refuse(format!("its factors have shapes {a_shape:?} and {b_shape:?}, its rank is {rank}")));
        }
        let scaling = config.scaling(rank, alpha);
        if config.use_dora && self.magnitude.is_none() {
            return Err(missing("lora_magnitude_vector"));
        }
        Ok(AdapterModule { module, kind, rank, scaling, a, b, b_bias: self.b_bias, magnitude: self.magnitude })
    }
}
