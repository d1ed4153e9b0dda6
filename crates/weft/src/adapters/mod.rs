//! Low-rank adapters: what is in one, into other formats, before a runtime, and onto a server.
//!
//! Folders of them are compared ([`zoo`]), encoded and decoded ([`codec`]) and merged ([`merge`]) by what they do, with the mathematics of
//! [`weft_codec::adapter`]. They are trained over a frozen base ([`train`]) and generated for what none was trained on ([`generate`]), also of adapters that others trained
//! ([`learn`]).

mod base;
pub mod codec;
mod deploy;
pub mod generate;
mod import;
mod intents;
mod kept;
mod languages;
pub mod learn;
mod lint;
pub mod merge;
mod sentences;
mod tasks;
pub mod train;
mod twins;
pub mod zoo;

pub use base::{BaseExport, BaseView, LogitsRequest, LogitsView, Prompt, export_base, logits};
pub use deploy::{Deploy, DeployView, Engine, ExchangeView, deploy};
pub use import::{Import, ImportView, import};
pub use lint::{FindingView, Lint, LintView, lint};
pub use weft_zoo::adapter::{AdapterProfile, Runtime};
pub use weft_zoo::rotary_from_name;

use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_core::RopePairs;
use weft_zoo::AdapterKind;
use weft_zoo::adapter::{
    AdapterExport, AdapterFault, AdapterFile, AdapterNaming, AdapterParent, AdapterProvenance, AdapterUpdate, AdapterWeights,
    BaseModel, licence_beside, written_files,
};

/// The base model that adapters are checked against.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BaseChoice {
    /// Its folder, with weights and `config.json`.
    pub folder: Option<PathBuf>,
    /// The name that adapters know it by, where the folder has another.
    pub name: Option<String>,
}

impl BaseChoice {
    fn open(&self) -> Result<Option<BaseModel>> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let base = BaseModel::open(folder)?;
        Ok(Some(match &self.name {
            Some(name) => base.named(name),
            None => base,
        }))
    }
}

/// What is in an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AdapterView {
    /// The file or folder.
    pub path: PathBuf,
    /// Whose names it has.
    pub naming: &'static str,
    /// The base that it names.
    pub base: Option<String>,
    /// Its licence, as far as it is known.
    pub licence: String,
    /// The number of its values.
    pub num_values: usize,
    /// How many modules have a rank, by rank.
    pub ranks: BTreeMap<usize, usize>,
    /// The modules, in the order of their names.
    pub modules: Vec<ModuleView>,
    /// Tensors that replace one of the base's as a whole.
    pub whole: Vec<String>,
    /// What people should know.
    pub notes: Vec<String>,
}

/// The update of one module.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ModuleView {
    /// Its name in the base.
    pub module: String,
    /// `linear`, `embedding` or `convolution`.
    pub kind: &'static str,
    /// The rank.
    pub rank: usize,
    /// Inputs.
    pub fan_in: usize,
    /// Outputs.
    pub fan_out: usize,
    /// What `B·A` is multiplied by.
    pub scaling: f64,
    /// The Frobenius norm of the update; of DoRA's before its magnitudes.
    pub norm: f64,
    /// Whether the update is zero.
    pub zero: bool,
    /// Whether it has magnitudes (DoRA).
    pub dora: bool,
}

/// Shows what is in an adapter; checks it against the base, if one is given.
///
/// # Errors
/// The adapter is unsound, or belongs to another base.
pub fn show(path: &Path, base: &BaseChoice) -> Result<AdapterView> {
    let base = base.open()?;
    let file = read(path, base.as_ref())?;
    let mut ranks = BTreeMap::new();
    for update in &file.weights.updates {
        *ranks.entry(update.rank).or_default() += 1;
    }
    Ok(AdapterView {
        licence: licence(&file),
        path: file.path,
        naming: file.naming.name(),
        base: file.weights.base.clone(),
        num_values: file.weights.num_values(),
        ranks,
        modules: file.weights.updates.iter().map(ModuleView::of).collect(),
        whole: file.weights.whole.iter().map(|tensor| tensor.name.clone()).collect(),
        notes: file.notes,
    })
}

impl ModuleView {
    fn of(update: &AdapterUpdate) -> Self {
        Self {
            module: update.module.clone(),
            kind: match update.kind {
                AdapterKind::Linear => "linear",
                AdapterKind::Embedding => "embedding",
                AdapterKind::Conv => "convolution",
            },
            rank: update.rank,
            fan_in: update.fan_in,
            fan_out: update.fan_out,
            scaling: update.scaling,
            norm: update.norm(),
            zero: update.is_zero(),
            dora: update.is_dora(),
        }
    }
}

/// An adapter and what it becomes.
#[derive(Debug, Clone, PartialEq)]
pub struct Convert {
    /// The adapter.
    pub input: PathBuf,
    /// The file or folder to write; it must not be there.
    pub output: PathBuf,
    /// As what.
    pub profile: AdapterProfile,
    /// The base.
    pub base: BaseChoice,
    /// The part of a pipeline that modules without one belong to, such as `unet`.
    pub component: Option<String>,
    /// In which order its rows of queries and keys stand, where the file does not say it; PEFT's is halves.
    pub rotary: Option<RopePairs>,
}

/// What a conversion wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ConvertView {
    /// The file or folder.
    pub output: PathBuf,
    /// As what.
    pub profile: &'static str,
    /// Its files.
    pub files: Vec<PathBuf>,
    /// The number of modules.
    pub modules: usize,
    /// What people should know.
    pub notes: Vec<String>,
}

/// Writes an adapter as another profile: exactly, or not at all.
///
/// # Errors
/// The adapter is unsound or belongs to another base, the profile cannot hold it, or something is there already.
pub fn convert(convert: &Convert) -> Result<ConvertView> {
    let base = convert.base.open()?;
    let file = read_as(convert.rotary, &convert.input, base.as_ref())?;
    let mut view = write(&file, base.as_ref(), convert)?;
    view.notes.splice(0..0, file.notes);
    Ok(view)
}

fn write(file: &AdapterFile, base: Option<&BaseModel>, convert: &Convert) -> Result<ConvertView> {
    let mut command = vec!["weft adapter convert".to_owned(), convert.input.display().to_string(), "-o".to_owned()];
    command.extend([convert.output.display().to_string(), format!("--profile {}", convert.profile.name())]);
    command.extend(convert.base.folder.iter().map(|folder| format!("--base {}", folder.display())));
    command.extend(convert.base.name.iter().map(|name| format!("--base-name {name}")));
    command.extend(convert.rotary.map(|rotary| format!("--rotary {}", weft_zoo::rotary_name(rotary))));
    command.extend(convert.component.iter().map(|component| format!("--component {component}")));
    let provenance = AdapterProvenance {
        parents: vec![parent(file)?],
        configuration: command.join(" "),
        synthetic: is_synthetic(&file.weights),
        ..AdapterProvenance::default()
    };
    let of_pipeline = file.naming != AdapterNaming::Peft;
    let component = convert.component.as_deref();
    let export = AdapterExport { profile: convert.profile, base, component, of_pipeline, provenance: &provenance };
    let mut weights = file.weights.clone();
    if weights.base.is_none() {
        weights.base = base.map(|base| base.name().to_owned());
    }
    let modules = weights.updates.len();
    let notes = weights.write(&export, &convert.output)?;
    let files = written_files(convert.profile, &convert.output);
    Ok(ConvertView { output: convert.output.clone(), profile: convert.profile.name(), files, modules, notes })
}

/// Reads an adapter and checks that it belongs to the base.
fn read(path: &Path, base: Option<&BaseModel>) -> Result<AdapterFile> {
    read_as(None, path, base)
}

/// The same, with rows of queries and keys in a known order, out of which they come into that of Transformers.
fn read_as(rotary: Option<RopePairs>, path: &Path, base: Option<&BaseModel>) -> Result<AdapterFile> {
    let mut file = AdapterWeights::read(path, base)?;
    let fail = |fault: AdapterFault| Error::Zoo(fault.at(path));
    match rotary {
        None => {}
        Some(RopePairs::Halves) => {
            file.weights.check_rotary(RopePairs::Halves).map_err(fail)?;
            file.weights.rotary = rotary;
        }
        Some(RopePairs::Interleaved) => {
            let base = base.ok_or_else(|| {
                let what = "the base's heads: `--base DIR`".to_owned();
                fail(AdapterFault::Needs { target: "an adapter in the order of Transformers", what })
            })?;
            file.weights = file.weights.turned_to_halves(base).map_err(fail)?;
            file.notes.push("rows of queries and keys came from the order of llama2.c into that of Transformers".to_owned());
        }
    }
    if let Some(base) = base {
        base.check(&file.weights, false).map_err(|fault| Error::Zoo(fault.at(path)))?;
    }
    Ok(file)
}

/// Whether a generator made it, as far as it says.
fn is_synthetic(weights: &AdapterWeights) -> bool {
    weights.metadata.get("weft.synthetic").is_some_and(|said| said == "true")
}

fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) }
}

fn licence(file: &AdapterFile) -> String {
    licence_beside(folder_of(&file.path))
}

fn parent(file: &AdapterFile) -> Result<AdapterParent> {
    let name = file.path.file_name().map_or_else(|| file.path.display().to_string(), |name| name.to_string_lossy().into_owned());
    let weights = file.files.last().unwrap_or(&file.path);
    Ok(AdapterParent { name, sha256: weft_zoo::sha256_of_file(weights)?.to_string(), licence: licence(file) })
}
