//! Zoos made of other zoos.

use super::{condition, in_text};
use crate::Result;
use serde::Serialize;
use std::path::PathBuf;
use weft_core::Monitor;
use weft_zoo::{SplitOptions, Zoo};

/// How a zoo is divided anew.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitRequest {
    /// The zoo, which stays as it is.
    pub zoo: PathBuf,
    /// Where the new one goes.
    pub output: PathBuf,
    /// What no split may part: `run`, `lineage`, or a label such as `phrase`.
    pub by: String,
    /// The share of checkpoints in the test split, in `(0, 1)`.
    pub test_fraction: f64,
    /// Which ones those are.
    pub seed: u64,
    /// The checkpoints that the new zoo has; all, if there is no condition.
    pub condition: Option<String>,
}

/// What a division did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SplitOutcome {
    /// The new zoo.
    pub zoo: PathBuf,
    /// Groups of checkpoints that belong together.
    pub groups: usize,
    /// Those in the test split.
    pub test_groups: usize,
    /// Checkpoints in the training split.
    pub train: usize,
    /// Checkpoints in the test split.
    pub test: usize,
    /// Checkpoints without the label, which their run and their parents alone hold together.
    pub without_label: usize,
}

/// Writes a new zoo with the checkpoints of another and other splits.
///
/// # Errors
/// The folder is no zoo or the output is taken, the zoo has no such label, or all of it hangs together.
pub fn split(request: &SplitRequest, monitor: &Monitor) -> Result<SplitOutcome> {
    let zoo = Zoo::open(&request.zoo)?;
    let options = SplitOptions {
        by: request.by.clone(),
        test_fraction: request.test_fraction,
        seed: request.seed,
        condition: request.condition.as_deref().map(condition).transpose()?,
    };
    let text = request.condition.as_deref().unwrap_or_default();
    let (_, report) = zoo.split(&request.output, &options, monitor).map_err(in_text(text))?;
    Ok(SplitOutcome {
        zoo: request.output.clone(),
        groups: report.groups,
        test_groups: report.test_groups,
        train: report.train,
        test: report.test,
        without_label: report.without_label,
    })
}

/// Which zoos are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The zoos, which stay as they are; of what several know of a checkpoint, the first counts.
    pub zoos: Vec<PathBuf>,
    /// Where the new one goes.
    pub output: PathBuf,
    /// The checkpoints that the new zoo has; all, if there is no condition.
    pub condition: Option<String>,
}

/// What a merger did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct MergeView {
    /// The new zoo.
    pub zoo: PathBuf,
    /// Checkpoints that came from each zoo.
    pub taken: Vec<usize>,
    /// Checkpoints that an earlier zoo had already.
    pub duplicates: usize,
    /// Runs that had the name of another run in an earlier zoo.
    pub renamed: Vec<Renamed>,
    /// Training checkpoints that became test ones because something that belongs to them is one.
    pub moved_to_test: usize,
}

/// A run that has another name in the new zoo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Renamed {
    /// The zoo that it comes from.
    pub zoo: String,
    /// Its name there.
    pub from: String,
    /// Its name in the new zoo.
    pub to: String,
}

/// Writes a new zoo with the checkpoints of several of one architecture.
///
/// # Errors
/// A folder is no zoo or the output is taken, or the architectures differ.
pub fn merge(request: &Merge, monitor: &Monitor) -> Result<MergeView> {
    let zoos = request.zoos.iter().map(|zoo| Zoo::open(zoo)).collect::<Result<Vec<_>, _>>()?;
    let expr = request.condition.as_deref().map(condition).transpose()?;
    let text = request.condition.as_deref().unwrap_or_default();
    let (_, report) = Zoo::merge(&zoos, &request.output, expr.as_ref(), monitor).map_err(in_text(text))?;
    let renamed = report.renamed.into_iter().map(|(zoo, from, to)| Renamed { zoo, from, to }).collect();
    let (zoo, taken, duplicates) = (request.output.clone(), report.taken, report.duplicates);
    Ok(MergeView { zoo, taken, duplicates, renamed, moved_to_test: report.moved_to_test })
}
