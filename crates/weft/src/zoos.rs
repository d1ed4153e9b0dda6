//! Zoos on their own: what `weft zoo …` does.
//!
//! The views here are made to be shown or serialized; the catalogue's own types know no format.

use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Activation, Monitor, Split};
use weft_zoo::{Entry, Filter, ImportOptions, Quantiles, SplitStats, Zoo};

/// One checkpoint as a catalogue row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointView {
    /// Digest of the weights, in full.
    pub digest: String,
    /// The run that it is a snapshot of.
    pub run: String,
    /// Its optimizer step, if known.
    pub step: Option<u64>,
    /// Whether it is the last of its run.
    pub is_final: bool,
    /// `train` or `test`.
    pub split: &'static str,
    /// Figures such as `validation-accuracy`.
    pub metrics: BTreeMap<String, f64>,
    /// SPDX licence expression.
    pub licence: String,
    /// Whether a generator made it.
    pub synthetic: bool,
    /// Where it came from.
    pub source: String,
    /// Digests of what it was derived from.
    pub parents: Vec<String>,
    /// The training recipe, if known.
    pub recipe: Option<serde_json::Value>,
}

impl From<&Entry> for CheckpointView {
    fn from(entry: &Entry) -> Self {
        let record = entry.record();
        Self {
            digest: record.digest.to_string(),
            run: record.run.clone(),
            step: record.step,
            is_final: record.is_final,
            split: record.split.name(),
            metrics: record.metrics.clone(),
            licence: record.provenance.licence.clone(),
            synthetic: record.provenance.synthetic,
            source: record.provenance.source.clone(),
            parents: record.provenance.parents.iter().map(ToString::to_string).collect(),
            recipe: record.recipe.as_ref().and_then(|r| serde_json::from_str(&weft_zoo::recipe_to_json(r)).ok()),
        }
    }
}

/// Which checkpoints of a zoo are meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// `train` or `test` runs alone.
    pub split: Option<Split>,
    /// The last snapshots alone.
    pub final_only: bool,
    /// At least this validation accuracy.
    pub min_accuracy: Option<f64>,
    /// One run alone.
    pub run: Option<String>,
    /// Digests that begin so.
    pub digest_prefix: Option<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Leaving out so many first.
    pub offset: usize,
}

impl Selection {
    fn filter(&self) -> Filter {
        Filter {
            split: self.split,
            final_only: self.final_only,
            min_accuracy: self.min_accuracy,
            run: self.run.clone(),
            digest_prefix: self.digest_prefix.clone(),
            limit: self.limit,
            offset: self.offset,
        }
    }
}

/// Lists checkpoints, in the order in which they came in.
///
/// # Errors
/// The folder is no zoo, or its catalogue cannot be read.
pub fn list(zoo: &Path, selection: &Selection) -> Result<Vec<CheckpointView>> {
    let entries = Zoo::open(zoo)?.records(&selection.filter())?;
    Ok(entries.iter().map(CheckpointView::from).collect())
}

/// The one checkpoint whose digest begins so.
///
/// # Errors
/// None or several do.
pub fn show(zoo: &Path, digest_prefix: &str) -> Result<CheckpointView> {
    let selection = Selection { digest_prefix: Some(digest_prefix.to_owned()), limit: Some(2), ..Selection::default() };
    let mut found = list(zoo, &selection)?;
    match (found.len(), found.pop()) {
        (1, Some(view)) => Ok(view),
        (0, _) => Err(Error::NoCheckpoint { zoo: zoo.to_owned(), digest: digest_prefix.to_owned() }),
        _ => {
            let expected = "the beginning of one digest alone".to_owned();
            Err(Error::Range { what: "the digest", expected, got: format!("`{digest_prefix}`, which several share") })
        }
    }
}

/// A zoo in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatsView {
    /// The zoo's name.
    pub name: String,
    /// Digest of architecture and records, timings aside.
    pub digest: String,
    /// Digest of the zoo that it was made from.
    pub parent: Option<String>,
    /// The architecture's name.
    pub architecture: String,
    /// Weights of one network.
    pub num_parameters: usize,
    /// Checkpoints in all.
    pub checkpoints: usize,
    /// Training runs.
    pub runs: usize,
    /// Checkpoints that a generator made.
    pub synthetic: usize,
    /// Different recipes.
    pub recipes: usize,
    /// Shard files.
    pub shards: usize,
    /// Their size.
    pub num_bytes: u64,
    /// One entry a split.
    pub splits: Vec<SplitView>,
}

/// A split in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SplitView {
    /// `train` or `test`.
    pub split: &'static str,
    /// Its runs.
    pub runs: usize,
    /// Its checkpoints.
    pub checkpoints: usize,
    /// Validation accuracy of the last networks, if known: minimum, lower quartile, median, upper quartile, maximum.
    pub accuracy_quantiles: Option<[f64; 5]>,
    /// Their mean.
    pub accuracy_mean: Option<f64>,
    /// Their standard deviation.
    pub accuracy_std: Option<f64>,
}

impl From<&SplitStats> for SplitView {
    fn from(stats: &SplitStats) -> Self {
        let accuracy = stats.accuracy.as_ref();
        let five = |q: &Quantiles| [q.min, q.lower, q.median, q.upper, q.max];
        Self {
            split: stats.split.name(),
            runs: stats.runs,
            checkpoints: stats.checkpoints,
            accuracy_quantiles: accuracy.map(five),
            accuracy_mean: accuracy.map(|q| q.mean),
            accuracy_std: accuracy.map(|q| q.std),
        }
    }
}

/// Counts a zoo's checkpoints and sums up their accuracies.
///
/// # Errors
/// The folder is no zoo, or its catalogue cannot be read.
pub fn stats(zoo: &Path) -> Result<StatsView> {
    let zoo = Zoo::open(zoo)?;
    let stats = zoo.stats()?;
    Ok(StatsView {
        name: zoo.name().to_owned(),
        digest: zoo.digest()?.to_string(),
        parent: zoo.parent().map(|digest| digest.to_string()),
        architecture: zoo.architecture().name().to_owned(),
        num_parameters: zoo.architecture().num_parameters(),
        checkpoints: stats.checkpoints,
        runs: stats.runs,
        synthetic: stats.synthetic,
        recipes: stats.recipes,
        shards: stats.shards,
        num_bytes: stats.num_bytes,
        splits: stats.splits.iter().map(SplitView::from).collect(),
    })
}

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct VerifyView {
    /// Shards that were read.
    pub shards: usize,
    /// Checkpoints whose digest was computed anew.
    pub checkpoints: usize,
    /// Everything that is wrong.
    pub faults: Vec<FileFault>,
    /// Leftovers of killed processes, now removed.
    pub removed: Vec<PathBuf>,
}

/// A file with what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileFault {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub reason: String,
}

/// Reads a whole zoo and computes every digest anew.
///
/// # Errors
/// The folder is no zoo, or the user stopped it. Faults are reported, not returned.
pub fn verify(zoo: &Path, monitor: &Monitor) -> Result<VerifyView> {
    let report = Zoo::open(zoo)?.verify(monitor)?;
    let faults = report.faults.into_iter().map(|fault| FileFault { path: fault.path, reason: fault.reason }).collect();
    Ok(VerifyView { shards: report.shards, checkpoints: report.checkpoints, faults, removed: report.removed })
}

/// How files are imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// Files, or folders of `.safetensors` files.
    pub paths: Vec<PathBuf>,
    /// The zoo that they go into; it is made if it is not there.
    pub zoo: PathBuf,
    /// An architecture file; without it a perceptron is inferred from the first file's shapes.
    pub architecture: Option<PathBuf>,
    /// The activation of an inferred perceptron, which shapes do not tell.
    pub activation: Activation,
    /// Fraction of the runs that is held out.
    pub test_fraction: f64,
    /// SPDX licence expression of files that name none.
    pub licence: String,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportView {
    /// The zoo.
    pub zoo: PathBuf,
    /// Checkpoints that went in.
    pub read: usize,
    /// Files that were there already, or are no checkpoints.
    pub skipped: Vec<FileFault>,
    /// Files that do not fit, with the tensor that does not.
    pub refused: Vec<FileFault>,
}

/// Imports checkpoints; what does not fit is refused by name and the rest goes in.
///
/// # Errors
/// No file is found, the architecture cannot be had, or the zoo cannot be written.
pub fn import(import: &Import, monitor: &Monitor) -> Result<ImportView> {
    let mut zoo = if Zoo::exists(&import.zoo) { Zoo::open(&import.zoo)? } else { create(import)? };
    let options = ImportOptions { test_fraction: import.test_fraction, licence: import.licence.clone() };
    let report = weft_zoo::import(&mut zoo, &import.paths, &options, monitor)?;
    let faults =
        |refusals: Vec<weft_zoo::Refusal>| refusals.into_iter().map(|r| FileFault { path: r.path, reason: r.reason }).collect();
    Ok(ImportView { zoo: import.zoo.clone(), read: report.read, skipped: faults(report.skipped), refused: faults(report.refused) })
}

fn create(import: &Import) -> Result<Zoo> {
    let architecture = match &import.architecture {
        Some(path) => weft_zoo::find_architecture(path)?,
        None => infer(&import.paths, import.activation)?,
    };
    let name = import.zoo.file_name().map_or_else(|| "zoo".to_owned(), |name| name.to_string_lossy().into_owned());
    Ok(Zoo::create(&import.zoo, &name, Arc::new(architecture), None)?)
}

/// The perceptron of the first file that has the shapes of one.
fn infer(paths: &[PathBuf], activation: Activation) -> Result<weft_core::Architecture> {
    let mut first_error = None;
    for path in weft_zoo::find_checkpoints(paths)? {
        match weft_zoo::infer_mlp(&path, activation) {
            Ok(architecture) => return Ok(architecture),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.map_or_else(|| Error::NothingToImport { paths: paths.to_vec() }, Error::Zoo))
}

/// Writes selected checkpoints as one file each, named by digest, and returns the paths.
///
/// # Errors
/// The folder is no zoo, a shard is damaged, or a file cannot be written.
pub fn export(zoo: &Path, selection: &Selection, folder: &Path, monitor: &Monitor) -> Result<Vec<PathBuf>> {
    let zoo = Zoo::open(zoo)?;
    let entries = zoo.records(&selection.filter())?;
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    monitor.start("export", entries.len() as u64, "networks");
    let mut written = Vec::with_capacity(entries.len());
    for entry in &entries {
        if monitor.should_stop() {
            return Err(Error::Interrupted { stage: "export" });
        }
        let path = folder.join(format!("{}.safetensors", entry.record().digest.short()));
        zoo.export(entry, &path)?;
        written.push(path);
        monitor.progress(written.len() as u64);
    }
    monitor.finish();
    Ok(written)
}
