//! Bringing checkpoints from elsewhere into a zoo.

use crate::checkpoint::{Described, read_checkpoint, read_metadata};
use crate::zoo::Zoo;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft_core::{Architecture, Digest, Monitor, Population, Provenance, Record, Split};

/// How checkpoints are imported.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// The share of runs that go into the test split, in `[0, 1)`.
    pub test_fraction: f64,
    /// The licence of checkpoints whose files name none.
    pub licence: String,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { test_fraction: 0.125, licence: "unknown".to_owned() }
    }
}

/// What became of the files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportReport {
    /// Checkpoints that are now in the zoo and were not before.
    pub read: usize,
    /// Files whose network the zoo had already.
    pub skipped: Vec<Refusal>,
    /// Files that are no sound checkpoints of the zoo's architecture.
    pub refused: Vec<Refusal>,
}

/// A file that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Networks are appended in blocks of about this many bytes.
const BLOCK_BYTES: usize = 64 << 20;

/// Imports safetensors files; a folder stands for the files in it that end in `.safetensors`.
///
/// A file that is not sound is refused by name and the rest go in. Metadata may name a checkpoint's `run`, `step`,
/// `licence` and more, as [`crate::checkpoint_metadata`] writes them; without a run, a file is a run of its own. The
/// last step of a run is its final checkpoint. Runs are divided by the digests of their names: the division depends
/// on the set of runs, not on their order; a run that the zoo knows keeps its split.
///
/// # Errors
/// [`Error::Setting`] for a test fraction out of range, [`Error::Interrupted`] between two blocks, and errors of the
/// zoo itself.
pub fn import(zoo: &mut Zoo, paths: &[PathBuf], options: &ImportOptions, monitor: &Monitor<'_>) -> Result<ImportReport> {
    let fraction = options.test_fraction;
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Setting { setting: "test-fraction", expected: "in [0, 1)", got: fraction.to_string() });
    }
    let files = find_checkpoints(paths)?;
    let mut report = ImportReport::default();
    let mut done = files.len();
    // Every file is read twice: to see what it is, and to append it once its run's split is decided.
    monitor.start("import checkpoints", 2 * done as u64, "reads");
    let candidates = examine(zoo, files, &mut report, monitor)?;
    let plan = plan(zoo, candidates, options, &mut report)?;
    let block = (BLOCK_BYTES / (4 * zoo.architecture().num_parameters())).max(1);
    for block in plan.chunks(block) {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        append(zoo, block, &mut report)?;
        done += block.len();
        monitor.progress(done as u64);
    }
    monitor.finish();
    Ok(report)
}

/// The checkpoint files that paths stand for: a file for itself, a folder for all `.safetensors` files below it, in
/// the order of their names.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be listed.
pub fn find_checkpoints(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let (mut folders, mut found) = (vec![path.clone()], Vec::new());
        while let Some(folder) = folders.pop() {
            for item in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
                let item = item.map_err(Error::io("list", &folder))?;
                // The type of the item itself: a link to a folder is not followed, so there is no way round in circles.
                if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(item.path());
                } else if item.path().extension().is_some_and(|extension| extension == "safetensors") {
                    found.push(item.path());
                }
            }
        }
        found.sort();
        files.append(&mut found);
    }
    Ok(files)
}

/// A sound checkpoint that the zoo has not.
struct Candidate {
    path: PathBuf,
    digest: Digest,
    run: String,
    described: Described,
}

/// Reads every file once; the weights are not kept.
fn examine(zoo: &Zoo, files: Vec<PathBuf>, report: &mut ImportReport, monitor: &Monitor<'_>) -> Result<Vec<Candidate>> {
    let mut first: BTreeMap<Digest, PathBuf> = BTreeMap::new();
    let mut candidates = Vec::new();
    for (done, path) in files.into_iter().enumerate() {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        monitor.progress(done as u64);
        let read = |path| -> Result<_> {
            let row = read_checkpoint(path, zoo.architecture())?;
            let described = Described::parse(&read_metadata(path)?, path)?;
            Ok((Digest::of_weights(zoo.architecture(), &row), described))
        };
        let (digest, described) = match read(&path) {
            Ok(read) => read,
            Err(error) => {
                report.refused.push(refusal(path, &error));
                continue;
            }
        };
        if let Some(other) = first.get(&digest) {
            report.skipped.push(Refusal { path, reason: format!("the same network as `{}`", other.display()) });
        } else if zoo.contains(&digest)? {
            report.skipped.push(Refusal { path, reason: "the zoo has it already".to_owned() });
        } else {
            first.insert(digest, path.clone());
            let run = described.run.clone().unwrap_or_else(|| format!("file-{}", &digest.to_string()[..16]));
            candidates.push(Candidate { path, digest, run, described });
        }
    }
    Ok(candidates)
}

/// Gives every candidate its record: runs in the order of their first file, each in the order of its steps.
fn plan(
    zoo: &Zoo,
    candidates: Vec<Candidate>,
    options: &ImportOptions,
    report: &mut ImportReport,
) -> Result<Vec<(PathBuf, Record)>> {
    let known = zoo.run_states()?;
    let mut order: Vec<String> = Vec::new();
    let mut members: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        if known.get(&candidate.run).is_some_and(|run| run.complete) {
            let reason = format!("the zoo has the final checkpoint of its run `{}` already", candidate.run);
            report.refused.push(Refusal { path: candidate.path, reason });
            continue;
        }
        if !members.contains_key(&candidate.run) {
            order.push(candidate.run.clone());
        }
        members.entry(candidate.run.clone()).or_default().push(candidate);
    }
    let splits = divide(&order, options.test_fraction);
    let mut plan = Vec::new();
    for run in order {
        let split = known.get(&run).map_or(splits[&run], |state| state.split);
        let mut snapshots = members.remove(&run).unwrap_or_default();
        snapshots.sort_by_key(|c| c.described.step);
        let last = snapshots.len() - 1;
        for (i, candidate) in snapshots.into_iter().enumerate() {
            plan.push(candidate.into_record(i == last, split, &options.licence));
        }
    }
    Ok(plan)
}

/// Divides runs by the order of their names' digests; at least one on either side if there are two.
fn divide(runs: &[String], test_fraction: f64) -> BTreeMap<String, Split> {
    let mut order: Vec<&String> = runs.iter().collect();
    order.sort_by_key(|run| Digest::of_bytes(run.as_bytes()));
    let wanted = (runs.len() as f64 * test_fraction).round() as usize;
    let least = usize::from(test_fraction > 0.0 && runs.len() > 1);
    let num_test = wanted.clamp(least, runs.len().saturating_sub(1).max(least));
    let split = |i| if i < num_test { Split::Test } else { Split::Train };
    order.into_iter().enumerate().map(|(i, run)| (run.clone(), split(i))).collect()
}

impl Candidate {
    fn into_record(self, is_final: bool, split: Split, licence: &str) -> (PathBuf, Record) {
        let provenance = Provenance {
            source: self.path.display().to_string(),
            licence: self.described.licence.unwrap_or_else(|| licence.to_owned()),
            parents: self.described.parents,
            synthetic: self.described.synthetic,
        };
        let record = Record {
            digest: self.digest,
            run: self.run,
            step: self.described.step,
            is_final,
            split,
            recipe: self.described.recipe,
            metrics: self.described.metrics,
            provenance,
        };
        (self.path, record)
    }
}

/// Reads a block of files again and appends it; a file that changed in between is refused.
fn append(zoo: &mut Zoo, block: &[(PathBuf, Record)], report: &mut ImportReport) -> Result<()> {
    let architecture = zoo.architecture().clone();
    let (mut data, mut records) = (Vec::new(), Vec::new());
    for (path, record) in block {
        match reread(path, &architecture, &record.digest) {
            Ok(mut row) => {
                data.append(&mut row);
                records.push(record.clone());
            }
            Err(error) => report.refused.push(refusal(path.clone(), &error)),
        }
    }
    let population = Population::new(architecture, data).map_err(|source| Error::Domain { origin: "import".to_owned(), source })?;
    let appended = zoo.append(&population, &records)?;
    report.read += appended.added;
    for refused in appended.refused {
        let path = records
            .iter()
            .position(|r| r.run == refused.run && r.step == refused.step)
            .map(|i| records[i].provenance.source.clone());
        report.refused.push(Refusal { path: path.unwrap_or_default().into(), reason: refused.reason });
    }
    Ok(())
}

fn reread(path: &std::path::Path, architecture: &Architecture, digest: &Digest) -> Result<Vec<f32>> {
    let row = read_checkpoint(path, architecture)?;
    let got = Digest::of_weights(architecture, &row);
    if got == *digest {
        return Ok(row);
    }
    Err(Error::Corrupt { shard: path.to_owned(), row: 0, expected: *digest, got })
}

fn refusal(path: PathBuf, error: &Error) -> Refusal {
    let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
    Refusal { path, reason: format!("{error}{cause}") }
}
