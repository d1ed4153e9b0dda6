//! What `weft zoo stats` and `weft zoo verify` show.

use crate::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use weft_core::Monitor;
use weft_zoo::{Quantiles, SplitStats, Unreferenced, Zoo};

/// A zoo in figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StatsView {
    /// The zoo's name.
    pub name: String,
    /// Digest of architecture and records, timings aside.
    pub digest: String,
    /// Digests of the zoos that it was made from.
    pub parents: Vec<String>,
    /// The architecture's name.
    pub architecture: String,
    /// Weights of one network.
    pub num_parameters: usize,
    /// Checkpoints in all, the quarantined ones aside.
    pub checkpoints: usize,
    /// Quarantined checkpoints.
    pub quarantined: usize,
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
        parents: zoo.parents().iter().map(ToString::to_string).collect(),
        architecture: zoo.architecture().name().to_owned(),
        num_parameters: zoo.architecture().num_parameters(),
        checkpoints: stats.checkpoints,
        quarantined: stats.quarantined,
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
    /// Shards that no checkpoint names: left by a killed append, or all that is left of what a newer catalogue knew.
    pub unreferenced: Vec<PathBuf>,
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
    view(&Zoo::open(zoo)?, Unreferenced::Keep, monitor)
}

/// As [`verify`], and removes shards that no checkpoint names. If the catalogue is an old copy, what newer ones knew is
/// lost for ever.
///
/// # Errors
/// As [`verify`].
pub fn prune(zoo: &Path, monitor: &Monitor) -> Result<VerifyView> {
    view(&Zoo::open(zoo)?, Unreferenced::Prune, monitor)
}

fn view(zoo: &Zoo, unreferenced: Unreferenced, monitor: &Monitor) -> Result<VerifyView> {
    let report = zoo.verify(unreferenced, monitor)?;
    let faults = report.faults.into_iter().map(|fault| FileFault { path: fault.path, reason: fault.reason }).collect();
    let (unreferenced, removed) = (report.unreferenced, report.removed);
    Ok(VerifyView { shards: report.shards, checkpoints: report.checkpoints, faults, unreferenced, removed })
}
