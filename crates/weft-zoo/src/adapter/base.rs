//! The base model of an adapter: its name, and the modules that an adapter may update.
//!
//! Adapters name a base by a repository or a folder; two such names are one base if their last parts are the same but for
//! case. Names prove little, so the modules and their shapes are compared as well. A checkpoint may have its modules
//! with or without the name of the network in front (`model.`, `transformer.`, `bert.`): the same model class is saved
//! either way, so one prefix may be on one side alone, for all modules alike.

use super::{AdapterFault, AdapterUpdate, AdapterWeights};
use crate::source::{AdapterKind, Source, open_sources};
use crate::{Error, Result, read_bounded, rotary_from_name};
use std::collections::BTreeMap;
use std::path::Path;
use weft_core::RopePairs;

/// The longest settings of a model that are read.
const MAX_CONFIG_BYTES: u64 = 4 << 20;

/// The most attention heads that a base is believed to have.
const MAX_HEADS: usize = 1 << 16;

/// The most modules that a base may have.
const MAX_MODULES: usize = 1 << 20;

/// Parts of diffusers' pipelines that adapters update, by their folders.
const COMPONENTS: [&str; 5] = ["unet", "transformer", "text_encoder", "text_encoder_2", "text_encoder_3"];

/// A base model, without its values.
#[derive(Debug, Clone)]
pub struct BaseModel {
    name: String,
    modules: BTreeMap<String, Vec<usize>>,
    /// Its files, with the prefix that their names have here.
    sources: Vec<(String, Source)>,
    config: Option<serde_json::Map<String, serde_json::Value>>,
    /// In which order rows of queries and keys stand, if it is not what the files say.
    rotary: Option<RopePairs>,
}

impl BaseModel {
    /// Opens a folder of a model or of a pipeline of diffusers, or a file of weights; with `config.json` beside it.
    ///
    /// # Errors
    /// Those of [`open_sources`]; [`Error::Adapter`] for a folder with too many modules.
    pub fn open(path: &Path) -> Result<Self> {
        let (mut modules, mut sources) = (BTreeMap::new(), Vec::new());
        let components: Vec<&str> = COMPONENTS.into_iter().filter(|component| path.join(component).is_dir()).collect();
        for component in &components {
            // A pipeline may keep the settings of a part and not its weights.
            if let Ok(found) = open_sources(&path.join(component)) {
                sources.extend(found.into_iter().map(|source| (format!("{component}."), source)));
            }
        }
        if components.is_empty() {
            sources.extend(open_sources(path)?.into_iter().map(|source| (String::new(), source)));
        }
        for (prefix, source) in &sources {
            add_modules(&mut modules, prefix, source);
        }
        if modules.is_empty() || modules.len() > MAX_MODULES {
            let what = format!("the base has {} modules", modules.len());
            return Err(AdapterFault::NotRead { what, hint: "name the folder of a model with its weights" }.at(path));
        }
        let config = config_beside(path)?;
        let named = config.as_ref().and_then(|config| config.get("_name_or_path")).and_then(|name| name.as_str());
        let name = named.filter(|name| !name.is_empty()).map_or_else(|| folder_name(path), ToOwned::to_owned);
        Ok(Self { name, modules, sources, config, rotary: None })
    }

    /// A base of known modules: shapes of their weights by name.
    #[must_use]
    pub fn of_modules(name: &str, modules: BTreeMap<String, Vec<usize>>) -> Self {
        Self { name: name.to_owned(), modules, sources: Vec::new(), config: None, rotary: None }
    }

    /// The same base with the settings of its `config.json`.
    #[must_use]
    pub fn with_config(self, config: serde_json::Map<String, serde_json::Value>) -> Self {
        Self { config: Some(config), ..self }
    }

    /// The same base in another order of the rows of queries and keys, into which whoever computes with it brings them.
    #[must_use]
    pub fn with_rotary(self, rotary: RopePairs) -> Self {
        Self { rotary: Some(rotary), ..self }
    }

    /// The same base under the name that adapters know it by.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// What it is called: its settings' word, else the folder's.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shapes of its modules' weights, by name.
    #[must_use]
    pub fn modules(&self) -> &BTreeMap<String, Vec<usize>> {
        &self.modules
    }

    /// The values of a module's weight, as the file stores them; `None` if the base is known by its modules' shapes alone.
    ///
    /// # Errors
    /// Those of [`Source::read`].
    pub(super) fn weight(&self, module: &str) -> Result<Option<Vec<f32>>> {
        for (prefix, source) in &self.sources {
            let Some(name) = module.strip_prefix(prefix.as_str()).map(|name| format!("{name}.weight")) else { continue };
            if let Some((key, _)) = source.tensors().iter().find(|(_, tensor)| tensor.stored_name == name) {
                return source.read(key).map(Some);
            }
        }
        Ok(None)
    }

    /// In which order its rows of queries and keys stand: llama2.c's binaries have their own.
    #[must_use]
    pub fn rotary(&self) -> RopePairs {
        let said = self.sources.iter().find_map(|(_, source)| source.metadata().get("rope"));
        self.rotary.or_else(|| said.and_then(|word| rotary_from_name(word))).unwrap_or(RopePairs::Halves)
    }

    /// Heads of queries and of keys, by the settings or by a binary of llama2.c; `target` needs them.
    ///
    /// # Errors
    /// [`AdapterFault::Needs`].
    pub(super) fn heads(&self, target: &'static str) -> Result<[usize; 2], AdapterFault> {
        let said = |key: &str| self.sources.iter().find_map(|(_, source)| source.metadata().get(key)?.parse().ok());
        let known =
            |key: &str, own: &str| self.setting(key).or_else(|| said(own)).filter(|heads: &usize| (1..=MAX_HEADS).contains(heads));
        let heads = known("num_attention_heads", "n_heads").ok_or_else(|| {
            let what = "`num_attention_heads` in the base's `config.json`".to_owned();
            AdapterFault::Needs { target, what }
        })?;
        Ok([heads, known("num_key_value_heads", "n_kv_heads").unwrap_or(heads)])
    }

    /// A whole number of its settings.
    pub(super) fn setting(&self, key: &str) -> Option<usize> {
        self.config.as_ref()?.get(key)?.as_u64().and_then(|value| usize::try_from(value).ok())
    }

    /// A yes or no of its settings; no where it is not said.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.config.as_ref().and_then(|config| config.get(key)).and_then(serde_json::Value::as_bool).unwrap_or(false)
    }

    /// Whether its output layer is its embedding: its settings say so, or it has no such layer (`lm_head`).
    ///
    /// Settings of some families leave it out, because it is their default.
    pub(super) fn is_tied(&self) -> bool {
        let is_head = |module: &String| module == "lm_head" || module.ends_with(".lm_head");
        self.flag("tie_word_embeddings") || !self.modules.keys().any(is_head)
    }

    /// A text of its settings.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.config.as_ref()?.get(key)?.as_str()
    }

    /// Checks that an adapter belongs here: its base's name unless `renamed`, its modules and their shapes.
    ///
    /// The result is the prefix that all names of the adapter have and the base has not, or the other way round, if there is one.
    ///
    /// # Errors
    /// [`AdapterFault::OtherBase`], [`AdapterFault::Rotary`], [`AdapterFault::NoModule`] and [`AdapterFault::BaseShape`], each with both named.
    pub fn check(&self, adapter: &AdapterWeights, renamed: bool) -> Result<Prefix, AdapterFault> {
        if let Some(got) = adapter.base.as_deref().filter(|got| !renamed && !same_base(got, &self.name)) {
            return Err(AdapterFault::OtherBase { got: got.to_owned(), expected: self.name.clone() });
        }
        adapter.check_rotary(self.rotary())?;
        let adapter_of = adapter.base.as_ref().map_or_else(String::new, |base| format!(" of `{base}`"));
        let Some(first) = adapter.updates.first() else { return self.check_whole(adapter, Prefix::None, &adapter_of) };
        let prefix = self.prefix(&first.module).ok_or_else(|| AdapterFault::NoModule {
            module: first.module.clone(),
            base: self.name.clone(),
            adapter_of: adapter_of.clone(),
        })?;
        for update in &adapter.updates {
            let (base, module) = (self.name.clone(), update.module.clone());
            let Some(shape) = prefix.apply(&module).and_then(|name| self.modules.get(&name)) else {
                return Err(AdapterFault::NoModule { module, base, adapter_of });
            };
            let got = stored_shape(update, adapter.fan_in_fan_out);
            if *shape != got {
                return Err(AdapterFault::BaseShape { module, got, expected: shape.clone(), base, adapter_of });
            }
        }
        self.check_whole(adapter, prefix, &adapter_of)
    }

    /// Whole tensors have the base's shape where the base has them; a head may be new.
    fn check_whole(&self, adapter: &AdapterWeights, prefix: Prefix, adapter_of: &str) -> Result<Prefix, AdapterFault> {
        for tensor in &adapter.whole {
            let module = tensor.module();
            let Some(expected) = module.and_then(|m| self.modules.get(&prefix.apply(m)?)) else { continue };
            if *expected != tensor.shape {
                let (module, got) = (tensor.name.clone(), tensor.shape.clone());
                let (expected, base) = (expected.clone(), self.name.clone());
                return Err(AdapterFault::BaseShape { module, got, expected, base, adapter_of: adapter_of.to_owned() });
            }
        }
        Ok(prefix)
    }

    /// How names of an adapter become names here, by one of them.
    fn prefix(&self, module: &str) -> Option<Prefix> {
        if self.modules.contains_key(module) {
            return Some(Prefix::None);
        }
        if let Some((start, _)) = module.split_once('.').filter(|(_, rest)| self.modules.contains_key(*rest)) {
            return Some(Prefix::OfAdapter(format!("{start}.")));
        }
        let ends =
            |name: &&String| name.strip_suffix(module).is_some_and(|start| start.ends_with('.') && start.matches('.').count() == 1);
        let name = self.modules.keys().find(ends)?;
        Some(Prefix::OfBase(name[..name.len() - module.len()].to_owned()))
    }
}

/// A prefix that names have on one side alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prefix {
    /// The names are the same.
    None,
    /// The adapter's names have it.
    OfAdapter(String),
    /// The base's names have it.
    OfBase(String),
}

impl Prefix {
    /// The base's name of an adapter's module.
    pub(super) fn apply(&self, module: &str) -> Option<String> {
        match self {
            Self::None => Some(module.to_owned()),
            Self::OfAdapter(prefix) => module.strip_prefix(prefix.as_str()).map(ToOwned::to_owned),
            Self::OfBase(prefix) => Some(format!("{prefix}{module}")),
        }
    }

    /// The adapter's name of a base's module.
    pub(super) fn undo(&self, module: &str) -> Option<String> {
        match self {
            Self::None => Some(module.to_owned()),
            Self::OfAdapter(prefix) => Some(format!("{prefix}{module}")),
            Self::OfBase(prefix) => module.strip_prefix(prefix.as_str()).map(ToOwned::to_owned),
        }
    }
}

/// Whether two names of a base mean the same: equal, or with the same last part but for case.
#[must_use]
pub fn same_base(one: &str, other: &str) -> bool {
    let last = |name: &str| name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
    one == other || last(one) == last(other)
}

/// The shape that a base stores an updated weight in.
pub(super) fn stored_shape(update: &AdapterUpdate, fan_in_fan_out: bool) -> Vec<usize> {
    match update.kind {
        AdapterKind::Linear if !fan_in_fan_out => vec![update.fan_out, update.fan_in],
        AdapterKind::Linear | AdapterKind::Embedding => vec![update.fan_in, update.fan_out],
        AdapterKind::Conv => {
            let mut shape = update.a_shape();
            shape[0] = update.fan_out;
            shape
        }
    }
}

fn add_modules(modules: &mut BTreeMap<String, Vec<usize>>, prefix: &str, source: &Source) {
    for tensor in source.tensors().values() {
        if let Some(module) = tensor.stored_name.strip_suffix(".weight").filter(|_| tensor.shape.len() > 1) {
            modules.insert(format!("{prefix}{module}"), tensor.shape.clone());
        }
    }
}

fn config_beside(path: &Path) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let file = folder.join("config.json");
    if !file.exists() {
        return Ok(None);
    }
    let text = read_bounded(&file, MAX_CONFIG_BYTES)?;
    serde_json::from_slice(&text).map(Some).map_err(|error| Error::Json { what: "`config.json`", reason: error.to_string() })
}

fn folder_name(path: &Path) -> String {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let full = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    full.file_name().map_or_else(|| full.display().to_string(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(names: &[&str]) -> BaseModel {
        BaseModel::of_modules("org/Base-1B", names.iter().map(|name| ((*name).to_owned(), vec![4, 3])).collect())
    }

    fn adapter(of: &str, module: &str, [fan_out, fan_in]: [usize; 2]) -> AdapterWeights {
        let update = AdapterUpdate::linear(module, [fan_out, 1, fan_in], vec![1.0; fan_in], vec![1.0; fan_out]);
        AdapterWeights { base: Some(of.to_owned()), updates: vec![update], ..AdapterWeights::default() }
    }

    #[test]
    fn adapters_of_others_are_refused_with_both_named() {
        let base = base(&["model.h.0.q"]);
        let check = |adapter: &AdapterWeights| base.check(adapter, false).map_err(|fault| fault.to_string());
        assert_eq!(check(&adapter("elsewhere/base-1b", "model.h.0.q", [4, 3])), Ok(Prefix::None));
        assert_eq!(check(&adapter("org/Base-1B", "h.0.q", [4, 3])), Ok(Prefix::OfBase("model.".to_owned())));
        assert_eq!(check(&adapter("org/Base-1B", "x.model.h.0.q", [4, 3])), Ok(Prefix::OfAdapter("x.".to_owned())));
        let other = adapter("org/Base-7B", "model.h.0.q", [4, 3]);
        assert_eq!(check(&other).unwrap_err(), "it is an adapter of `org/Base-7B`, not of `org/Base-1B`");
        assert_eq!(base.check(&other, true), Ok(Prefix::None));
        let shape = check(&adapter("Base-1B", "model.h.0.q", [5, 3])).unwrap_err();
        assert_eq!(shape, "module `model.h.0.q` has shape [5, 3] in the adapter of `Base-1B` and [4, 3] in the base `org/Base-1B`");
        let module = check(&adapter("Base-1B", "model.h.7.q", [4, 3])).unwrap_err();
        assert!(module.contains("`org/Base-1B` has no module `model.h.7.q`") && module.contains("`Base-1B`"), "{module}");
        let turned = AdapterWeights { fan_in_fan_out: true, ..adapter("Base-1B", "model.h.0.q", [3, 4]) };
        assert_eq!(check(&turned), Ok(Prefix::None));
    }
}
