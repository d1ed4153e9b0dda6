//! Bringing checkpoints from elsewhere into a zoo.
//!
//! An import has two halves. [`examine`] reads every file once, decides what becomes of it and changes nothing;
//! [`Examined::store`] reads those that go in again, block by block, and appends them. Either can be stopped, and the
//! same import goes on: a file that was taken in whole is known by its SHA-256 and is not looked into again. Whatever the
//! format, weights come from one place, [`network::Reader`].

mod find;
mod labels;
pub(crate) mod licence;
mod network;
mod plan;
mod read;
mod store;

pub use find::find_checkpoints;
pub use labels::{LabelRule, LabelSource};
pub use read::{BINDING, is_onnx};
pub use store::Examined;

use crate::checkpoint::Described;
use crate::zoo::{Zoo, not_recordable};
use crate::{Error, Filter, Result};
use find::Found;
use labels::labels_of;
use licence::{Licences, UNKNOWN, is_allowed};
use read::{Seen, in_parallel, look};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use weft_core::{Architecture, Digest, Monitor, Provenance, Record, Sha256};

/// How checkpoints are imported.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportOptions {
    /// The share of runs that go into the test split, in `[0, 1)`.
    pub test_fraction: f64,
    /// The licence of checkpoints whose files name none; without it, that of the nearest licence file beside or above
    /// them is looked for, no further up than the folder that was named.
    pub licence: Option<String>,
    /// The licences that are let in; if there are none, all are.
    pub allowed_licences: Vec<String>,
    /// Labels from where files lie. They come before labels of the same key in a file's metadata.
    pub labels: Vec<LabelRule>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { test_fraction: 0.125, licence: None, allowed_licences: Vec::new(), labels: Vec::new() }
    }
}

/// What became of the files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ImportReport {
    /// Checkpoints that are now in the zoo and were not before.
    pub read: usize,
    /// Files and networks that the zoo had already, or that came twice, with the file that they are the same as.
    pub skipped: Vec<Refusal>,
    /// Networks that are in the catalogue with a reason and in no split.
    pub quarantined: Vec<Refusal>,
    /// Files that are no sound checkpoints of the zoo's architecture, or whose licence is not allowed.
    pub refused: Vec<Refusal>,
    /// Files in the folders whose names say that they are no checkpoints.
    pub ignored: usize,
}

/// A file that was not imported, or not as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Files are read in batches of this size, each by all processors.
const BATCH: usize = 32;

/// Imports files of every format that is read; see [`find_checkpoints`] for what a folder stands for.
///
/// A file that is not sound is refused by name and the rest go in. Metadata may name a checkpoint's `run`, `step`,
/// `licence` and more, as [`crate::checkpoint_metadata`] writes them; without a run, a file is a run of its own. The
/// last step of a run is its final checkpoint. Runs are divided by the digests of their names: the division depends
/// on the set of runs in the zoo and the import together, not on their order; a run that the zoo knows keeps its split.
///
/// # Errors
/// [`Error::Setting`] for a test fraction out of range, [`Error::Interrupted`] between two batches or blocks, and errors
/// of the zoo itself.
pub fn import(zoo: &mut Zoo, paths: &[PathBuf], options: &ImportOptions, monitor: &Monitor<'_>) -> Result<ImportReport> {
    let architecture = zoo.architecture().clone();
    examine(Some(zoo), &architecture, paths, options, monitor)?.store(zoo, monitor)
}

/// Reads every file and decides what becomes of it, for a zoo that is there or for one that is still to be made.
///
/// # Errors
/// Those of [`import`].
pub fn examine(
    zoo: Option<&Zoo>,
    architecture: &Architecture,
    paths: &[PathBuf],
    options: &ImportOptions,
    monitor: &Monitor<'_>,
) -> Result<Examined> {
    let fraction = options.test_fraction;
    if !(0.0..1.0).contains(&fraction) {
        return Err(Error::Setting { setting: "test-fraction", expected: "in [0, 1)", got: fraction.to_string() });
    }
    let search = find::search(paths);
    let report = ImportReport { refused: search.refused, ignored: search.ignored, ..ImportReport::default() };
    let mut examiner = Examiner {
        zoo,
        architecture,
        options,
        licences: Licences::default(),
        known: zoo.map(Zoo::files).transpose()?.into_iter().flatten().map(|(sha256, _)| sha256).collect(),
        first_file: BTreeMap::new(),
        first_network: BTreeMap::new(),
        sound: Vec::new(),
        recipes: BTreeMap::new(),
        examined: Examined::new(report),
    };
    monitor.start("examine files", search.files.len() as u64, "files");
    let mut done = 0;
    for batch in search.files.chunks(BATCH) {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        examiner.batch(batch)?;
        done += batch.len();
        monitor.progress(done as u64);
    }
    monitor.finish();
    let known = zoo.map(Zoo::run_states).transpose()?.unwrap_or_default();
    examiner.examined.plan(&known, examiner.sound, fraction);
    Ok(examiner.examined)
}

/// A sound network that the zoo has not, with all that is known of it but its split.
struct Sound {
    file: usize,
    index: usize,
    record: Record,
}

struct Examiner<'a> {
    zoo: Option<&'a Zoo>,
    architecture: &'a Architecture,
    options: &'a ImportOptions,
    licences: Licences,
    /// Files that the zoo was given before.
    known: BTreeSet<Sha256>,
    /// The first file of each content, and of each network.
    first_file: BTreeMap<Sha256, PathBuf>,
    first_network: BTreeMap<Digest, PathBuf>,
    sound: Vec<Sound>,
    /// Which recipes, as JSON, a catalogue can take.
    recipes: BTreeMap<String, bool>,
    examined: Examined,
}

impl Examiner<'_> {
    fn batch(&mut self, batch: &[Found]) -> Result<()> {
        let (architecture, known) = (self.architecture, &self.known);
        for (found, looked) in batch.iter().zip(in_parallel(batch, |found| look(&found.path, architecture, known))) {
            let path = found.path.clone();
            let (sha256, networks) = match looked {
                Ok(looked) => looked,
                Err(error) => {
                    self.examined.report.refused.push(refusal(path, &error));
                    continue;
                }
            };
            if let Some(reason) = self.file_like(&sha256)? {
                self.examined.report.skipped.push(Refusal { path, reason });
                continue;
            }
            self.first_file.insert(sha256, path);
            self.file(found, sha256, networks)?;
        }
        Ok(())
    }

    /// Why a file need not be read: it was, in this import or in one before.
    fn file_like(&self, sha256: &Sha256) -> Result<Option<String>> {
        if let Some(other) = self.first_file.get(sha256) {
            return Ok(Some(format!("the same file as `{}`", other.display())));
        }
        let source = self.zoo.map(|zoo| zoo.source_of_file(sha256)).transpose()?.flatten();
        Ok(source.map(|source| format!("imported before, as `{source}`")))
    }

    /// Why a network need not be read.
    fn network_like(&self, digest: &Digest) -> Result<Option<String>> {
        if let Some(other) = self.first_network.get(digest) {
            return Ok(Some(format!("the same network as `{}`", other.display())));
        }
        let Some(zoo) = self.zoo else { return Ok(None) };
        let filter = Filter { digest_prefix: Some(digest.to_string()), with_quarantined: true, ..Filter::default() };
        let entry = zoo.records(&filter)?.into_iter().next();
        Ok(entry.map(|entry| format!("the zoo has its network already, from `{}`", entry.record().provenance.source)))
    }

    fn file(&mut self, found: &Found, sha256: Sha256, networks: Vec<Seen>) -> Result<()> {
        let file = self.examined.add_file(found.path.clone(), found.source(), sha256);
        for (index, seen) in networks.into_iter().enumerate() {
            let licence = self.licence(&seen.described, found);
            let allowed = &self.options.allowed_licences;
            if !allowed.is_empty() && !is_allowed(&licence, allowed) {
                let reason = format!("its licence `{licence}` is not allowed; allowed: {}", allowed.join(", "));
                self.examined.refuse(file, reason);
                continue;
            }
            if let Some(reason) = self.network_like(&seen.digest)? {
                self.examined.report.skipped.push(Refusal { path: found.path.clone(), reason });
                continue;
            }
            let record = self.record(seen, licence, (&found.source(), sha256));
            let is_sound = record.quarantine.is_none();
            if let Some(reason) = not_recordable(&record, &mut self.recipes).filter(|_| is_sound) {
                self.examined.refuse(file, reason);
                continue;
            }
            self.first_network.insert(record.digest, found.path.clone());
            if is_sound {
                self.sound.push(Sound { file, index, record });
            } else {
                self.examined.add_quarantined(file, record);
            }
        }
        Ok(())
    }

    fn licence(&mut self, described: &Described, found: &Found) -> String {
        let given = described.licence.clone().or_else(|| self.options.licence.clone());
        given.or_else(|| self.licences.beside(&found.path, &found.root)).unwrap_or_else(|| UNKNOWN.to_owned())
    }

    fn record(&self, seen: Seen, licence: String, (source, sha256): (&str, Sha256)) -> Record {
        let described = seen.described;
        let run = described.run.unwrap_or_else(|| format!("file-{}", &seen.digest.to_string()[..16]));
        let mut labels = described.labels;
        labels.append(&mut labels_of(&self.options.labels, source));
        Record {
            step: described.step,
            is_final: false,
            split: None,
            recipe: described.recipe,
            metrics: described.metrics,
            labels,
            quarantine: seen.defect,
            provenance: Provenance {
                source: source.to_owned(),
                licence,
                parents: described.parents,
                synthetic: described.synthetic,
                file_sha256: Some(sha256),
                format: Some(seen.format.to_owned()),
                metadata: described.free,
            },
            ..Record::new(seen.digest, run)
        }
    }
}

fn refusal(path: PathBuf, error: &Error) -> Refusal {
    let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
    Refusal { path, reason: format!("{error}{cause}") }
}
