//! Adapters from files: folders of PEFT, `pytorch_lora_weights.safetensors` of diffusers, files of kohya's scripts.

use super::base::BaseModel;
use super::parts::{Gathered, gather};
use super::{AdapterFault, AdapterUpdate, AdapterWeights, WholeTensor, flat, rotary_in};
use crate::source::{AdapterKind, AdapterModule, Source, open_sources};
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The file of an adapter of diffusers in its folder.
pub(super) const DIFFUSERS_FILE: &str = "pytorch_lora_weights.safetensors";

/// The settings of an adapter of PEFT.
pub(super) const PEFT_CONFIG: &str = "adapter_config.json";

/// Whose names the tensors of an adapter have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdapterNaming {
    /// The PEFT library: a folder with `adapter_config.json`.
    Peft,
    /// diffusers: `unet.….lora_A.weight`, or one of the older spellings.
    Diffusers,
    /// kohya's scripts: `lora_unet_….lora_down.weight`, with `.alpha`.
    Kohya,
}

impl AdapterNaming {
    /// A short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peft => "peft",
            Self::Diffusers => "diffusers",
            Self::Kohya => "kohya",
        }
    }
}

/// An adapter that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterFile {
    /// The file or folder that was named.
    pub path: PathBuf,
    /// The files that it consists of.
    pub files: Vec<PathBuf>,
    /// Whose names it has.
    pub naming: AdapterNaming,
    /// Its values.
    pub weights: AdapterWeights,
    /// What people should know.
    pub notes: Vec<String>,
}

impl AdapterWeights {
    /// Reads an adapter in any naming: a folder of PEFT or of diffusers, or a file of diffusers or of kohya's scripts.
    ///
    /// Names of kohya's scripts have underscores for dots; a base, if it is given, says which are which, else the known words of
    /// diffusers' and of the original networks do. An update that is zero is allowed; the notes say it.
    ///
    /// # Errors
    /// Those of [`open_sources`], and [`Error::Adapter`]: names of no known adapter, factors that are missing, stand twice or do
    /// not fit each other, NaN, and low-rank forms that are not read, each by name.
    pub fn read(path: &Path, base: Option<&BaseModel>) -> Result<AdapterFile> {
        let opened = file_of(path)?;
        let source = open_one(&opened)?;
        let fail = |fault: AdapterFault| fault.at(path);
        let mut notes = Vec::new();
        let (naming, weights) = if let Some(adapter) = source.adapter() {
            (AdapterNaming::Peft, of_peft(&source, adapter)?)
        } else {
            let naming = naming_of(&source).map_err(fail)?;
            let Gathered { weights, notes: found } = gather(&source, naming, base)?;
            notes = found;
            (naming, weights)
        };
        let rotary = rotary_in(&weights.metadata).map_err(fail)?;
        let weights = AdapterWeights { rotary, ..weights }.checked().map_err(fail)?;
        let zeros = weights.zero_modules().count();
        if zeros > 0 {
            notes.push(match weights.updates.len() {
                all if all == zeros => "every update is zero: the adapter changes nothing".to_owned(),
                all => format!("the updates of {zeros} of {all} modules are zero"),
            });
        }
        Ok(AdapterFile { path: path.to_owned(), files: source.files().to_vec(), naming, weights, notes })
    }
}

/// The file to open for a path: a folder has a known one, or one alone.
fn file_of(path: &Path) -> Result<PathBuf> {
    let beside = |folder: &Path| folder.join(PEFT_CONFIG).is_file().then(|| folder.to_owned());
    if !path.is_dir() {
        let name = path.file_name().unwrap_or_default();
        let is_peft = name == "adapter_model.safetensors" || name == "adapter_model.bin" || name == PEFT_CONFIG;
        return Ok(path.parent().filter(|_| is_peft).and_then(beside).unwrap_or_else(|| path.to_owned()));
    }
    if let Some(folder) = beside(path) {
        return Ok(folder);
    }
    let known = path.join(DIFFUSERS_FILE);
    if known.is_file() {
        return Ok(known);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io("read", path))? {
        let file = entry.map_err(Error::io("read", path))?.path();
        if file.is_file() && file.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(file);
        }
    }
    if let [one] = found.as_slice() {
        return Ok(one.clone());
    }
    let what =
        format!("the folder has neither `{PEFT_CONFIG}` nor `{DIFFUSERS_FILE}`, and {} other safetensors files", found.len());
    Err(AdapterFault::NotRead { what, hint: "name one file" }.at(path))
}

fn open_one(path: &Path) -> Result<Source> {
    let mut sources = open_sources(path)?;
    if sources.len() == 1 {
        return Ok(sources.remove(0));
    }
    let fault = AdapterFault::NotRead { what: format!("it holds {} networks", sources.len()), hint: "an adapter is one" };
    Err(fault.at(path))
}

/// Tells diffusers' names from kohya's.
fn naming_of(source: &Source) -> Result<AdapterNaming, AdapterFault> {
    let names = || source.tensors().values().map(|tensor| tensor.stored_name.as_str());
    if names().any(|name| name.starts_with("base_model.model.")) {
        let what = "its tensors have PEFT's names, and there is no `adapter_config.json` beside it".to_owned();
        return Err(AdapterFault::NotRead { what, hint: "rank and alpha stand there: name the folder that has it" });
    }
    if names().any(flat::is_flat) {
        return Ok(AdapterNaming::Kohya);
    }
    if names().any(|name| name.contains(".lora") || name.contains("_lora.")) {
        return Ok(AdapterNaming::Diffusers);
    }
    let first = names().next().unwrap_or_default().to_owned();
    let reason = "no tensor of the file is a factor of an update".to_owned();
    Err(AdapterFault::Name { name: first, naming: "PEFT's, diffusers' or kohya's", reason })
}

fn of_peft(source: &Source, adapter: &crate::source::Adapter) -> Result<AdapterWeights> {
    let updates = adapter.modules.iter().map(|module| update(source, module)).collect::<Result<_>>()?;
    let whole = |(name, stored): (&String, &String)| {
        let values = source.read(stored)?;
        Ok(WholeTensor { name: name.clone(), shape: source.tensors()[stored].shape.clone(), values })
    };
    Ok(AdapterWeights {
        base: adapter.base_model.clone(),
        updates,
        whole: adapter.replaced.iter().map(whole).collect::<Result<_>>()?,
        fan_in_fan_out: adapter.fan_in_fan_out,
        rotary: None,
        metadata: source.metadata().clone(),
    })
}

fn update(source: &Source, module: &AdapterModule) -> Result<AdapterUpdate> {
    let (a, b) = (&source.tensors()[&module.a].shape, &source.tensors()[&module.b].shape);
    let read = |name: &Option<String>| name.as_deref().map(|name| source.read(name)).transpose();
    Ok(AdapterUpdate {
        module: module.module.clone(),
        kind: module.kind,
        rank: module.rank,
        fan_in: a[1..].iter().product(),
        fan_out: b[0],
        kernel: if module.kind == AdapterKind::Conv { a[2..].to_vec() } else { Vec::new() },
        scaling: module.scaling,
        a: source.read(&module.a)?,
        b: source.read(&module.b)?,
        b_bias: read(&module.b_bias)?,
        magnitude: read(&module.magnitude)?,
    })
}
