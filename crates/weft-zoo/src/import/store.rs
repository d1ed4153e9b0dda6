//! The second half of an import: what was found sound is read again and appended.

use super::read::{in_parallel, read_candidates};
use super::{ImportReport, Refusal, refusal};
use crate::zoo::Zoo;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use weft_core::{Architecture, Digest, Monitor, Population, Record, Sha256};

/// Networks are appended in blocks of about this many bytes.
const BLOCK_BYTES: usize = 64 << 20;

/// What an import has found, before anything is changed.
#[derive(Debug)]
pub struct Examined {
    files: Vec<File>,
    planned: Vec<Planned>,
    /// Networks to quarantine, with the files that they come from.
    quarantined: Vec<(usize, Record)>,
    pub(super) report: ImportReport,
}

/// A file that was read.
#[derive(Debug)]
struct File {
    path: PathBuf,
    source: String,
    sha256: Sha256,
    /// Networks of it that are still to be appended.
    waiting: usize,
    /// Whether something of it is left that another import might take.
    refused: bool,
}

/// A network that goes in.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) file: usize,
    /// Its place in the file.
    pub(super) index: usize,
    pub(super) record: Record,
}

impl Examined {
    pub(super) fn new(report: ImportReport) -> Self {
        Self { files: Vec::new(), planned: Vec::new(), quarantined: Vec::new(), report }
    }

    pub(super) fn add_file(&mut self, path: PathBuf, source: String, sha256: Sha256) -> usize {
        self.files.push(File { path, source, sha256, waiting: 0, refused: false });
        self.files.len() - 1
    }

    pub(super) fn add_planned(&mut self, planned: Planned) {
        self.files[planned.file].waiting += 1;
        self.planned.push(planned);
    }

    pub(super) fn add_quarantined(&mut self, file: usize, record: Record) {
        self.quarantined.push((file, record));
    }

    pub(super) fn refuse(&mut self, file: usize, reason: String) {
        self.files[file].refused = true;
        self.report.refused.push(Refusal { path: self.files[file].path.clone(), reason });
    }

    /// Whether there is anything to store: sound networks, or such as must be quarantined.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty() && self.quarantined.is_empty()
    }

    /// What would be reported if nothing were stored.
    #[must_use]
    pub fn into_report(self) -> ImportReport {
        self.report
    }

    /// Appends what was found sound, in blocks, and quarantines what was not.
    ///
    /// # Errors
    /// [`Error::Interrupted`] between two blocks; [`Error::Architecture`] for another architecture than that of the
    /// examination; errors of the zoo itself.
    pub fn store(mut self, zoo: &mut Zoo, monitor: &Monitor<'_>) -> Result<ImportReport> {
        let planned = std::mem::take(&mut self.planned);
        let block = (BLOCK_BYTES / (4 * zoo.architecture().num_parameters())).max(1);
        let mut done = 0;
        monitor.start("import checkpoints", planned.len() as u64, "networks");
        for block in planned.chunks(block) {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            self.append(zoo, block)?;
            done += block.len();
            monitor.progress(done as u64);
        }
        self.quarantine(zoo)?;
        // Files without new networks come last: what they are copies of is stored by now.
        let rest = self.files.iter().filter(|file| file.waiting == 0 && !file.refused);
        zoo.remember_files(&rest.map(|file| (file.sha256, file.source.clone())).collect::<Vec<_>>())?;
        monitor.finish();
        Ok(self.report)
    }

    /// Reads a block of networks again and appends them; a file that changed in between is refused.
    fn append(&mut self, zoo: &mut Zoo, block: &[Planned]) -> Result<()> {
        let architecture = zoo.architecture().clone();
        let of_files: Vec<&[Planned]> = block.chunk_by(|a, b| a.file == b.file).collect();
        let files = &self.files;
        let read = in_parallel(&of_files, |networks| reread(&files[networks[0].file].path, networks, &architecture));
        let (mut data, mut kept) = (Vec::new(), Vec::new());
        for (networks, rows) in of_files.into_iter().zip(read) {
            for (network, row) in networks.iter().zip(rows) {
                match row {
                    Ok(mut row) => {
                        data.append(&mut row);
                        kept.push(network);
                    }
                    Err(error) => {
                        self.files[network.file].refused = true;
                        self.report.refused.push(refusal(self.files[network.file].path.clone(), &error));
                    }
                }
            }
        }
        let population = Population::new(architecture, data);
        let population = population.map_err(|source| Error::Domain { origin: "import".to_owned(), source })?;
        let records: Vec<Record> = kept.iter().map(|network| network.record.clone()).collect();
        let appended = zoo.append(&population, &records)?;
        self.report.read += appended.added;
        for refused in appended.refused {
            let same = |network: &&&Planned| network.record.run == refused.run && network.record.step == refused.step;
            if let Some(network) = kept.iter().find(same) {
                self.refuse(network.file, refused.reason);
            }
        }
        for network in block {
            self.files[network.file].waiting -= 1;
        }
        let mut whole: Vec<usize> = block.iter().map(|network| network.file).collect();
        whole.dedup();
        let whole = whole.into_iter().map(|file| &self.files[file]).filter(|file| file.waiting == 0 && !file.refused);
        zoo.remember_files(&whole.map(|file| (file.sha256, file.source.clone())).collect::<Vec<_>>())
    }

    fn quarantine(&mut self, zoo: &mut Zoo) -> Result<()> {
        let (files, records): (Vec<usize>, Vec<Record>) = std::mem::take(&mut self.quarantined).into_iter().unzip();
        if records.is_empty() {
            return Ok(());
        }
        zoo.quarantine(&records)?;
        for (file, record) in files.into_iter().zip(records) {
            let reason = record.quarantine.unwrap_or_default();
            self.report.quarantined.push(Refusal { path: self.files[file].path.clone(), reason });
        }
        Ok(())
    }
}

/// Reads networks of one file again.
fn reread(path: &Path, networks: &[Planned], architecture: &Architecture) -> Vec<Result<Vec<f32>>> {
    let mut rows: Vec<Option<Vec<f32>>> = match read_candidates(path, architecture) {
        Ok(candidates) => candidates.into_iter().map(|candidate| Some(candidate.row)).collect(),
        Err(error) => {
            // The file is one, its error is told once for each network that was to come from it.
            let reason = super::refusal(path.to_owned(), &error).reason;
            return networks.iter().map(|_| Err(Error::Changed { path: path.to_owned(), reason: reason.clone() })).collect();
        }
    };
    let row = |network: &Planned| {
        let row = rows.get_mut(network.index).and_then(Option::take);
        let row = row.filter(|row| Digest::of_weights(architecture, row) == network.record.digest);
        let reason = "its weights are not those that were examined".to_owned();
        row.ok_or_else(|| Error::Changed { path: path.to_owned(), reason })
    };
    networks.iter().map(row).collect()
}
