//! The second half of an import: what was found sound is read again and appended.

use super::network::{Network, Reader, open_networks};
use super::read::in_parallel;
use super::{ImportReport, Refusal, refusal};
use crate::zoo::{Appended, Zoo};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use weft_core::{Architecture, Digest, Monitor, Population, Record, Sha256};

/// Networks are appended in blocks of about this many bytes; a larger one goes straight from its file into its shard.
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
        let block = BLOCK_BYTES / (4 * zoo.architecture().num_parameters());
        let mut done = 0;
        monitor.start("import checkpoints", planned.len() as u64, "networks");
        for networks in planned.chunks(block.max(1)) {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let (kept, appended) = match networks {
                [network] if block == 0 => self.append_large(zoo, network)?,
                block => self.append_block(zoo, block)?,
            };
            self.settle(zoo, networks, &kept, appended)?;
            done += networks.len();
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
    fn append_block<'a>(&mut self, zoo: &mut Zoo, block: &'a [Planned]) -> Result<(Vec<&'a Planned>, Appended)> {
        let architecture = zoo.architecture().clone();
        let of_files: Vec<&[Planned]> = block.chunk_by(|a, b| a.file == b.file).collect();
        let files = &self.files;
        let read = in_parallel(&of_files, |networks| reread(&files[networks[0].file].path, networks, &architecture));
        let mut data = Vec::with_capacity(block.len() * architecture.num_parameters());
        let mut kept = Vec::new();
        for (networks, rows) in of_files.into_iter().zip(read) {
            for (network, row) in networks.iter().zip(rows) {
                match row {
                    Ok(row) => {
                        data.extend_from_slice(&row);
                        kept.push(network);
                    }
                    Err(error) => self.refuse(network.file, refusal(PathBuf::new(), &error).reason),
                }
            }
        }
        let population = Population::new(architecture, data);
        let population = population.map_err(|source| Error::Domain { origin: "import".to_owned(), source })?;
        let records: Vec<Record> = kept.iter().map(|network| network.record.clone()).collect();
        let appended = zoo.append_digested(&population, &records)?;
        Ok((kept, appended))
    }

    /// Appends a network that is too large to be held; what is in its shard is compared with its digest.
    fn append_large<'a>(&mut self, zoo: &mut Zoo, planned: &'a Planned) -> Result<(Vec<&'a Planned>, Appended)> {
        let (architecture, path) = (zoo.architecture().clone(), self.files[planned.file].path.clone());
        let changed = |reason: String| Error::Changed { path: path.clone(), reason };
        let appended = open_networks(&path, &architecture).map_err(|error| changed(refusal(path.clone(), &error).reason)).and_then(
            |networks: Vec<Network>| {
                let network = networks.get(planned.index).ok_or_else(|| changed(OTHER.to_owned()))?;
                let mut reader = Reader::new(network);
                zoo.append_streamed(&planned.record, &mut |i, give| reader.tensor(&architecture, i, give))
            },
        );
        match appended {
            Ok(Some(appended)) => return Ok((vec![planned], appended)),
            Ok(None) => self.refuse(planned.file, refusal(PathBuf::new(), &changed(OTHER.to_owned())).reason),
            Err(error @ (Error::Changed { .. } | Error::Tensor { .. })) => {
                self.refuse(planned.file, refusal(PathBuf::new(), &error).reason);
            }
            Err(error) => return Err(error),
        }
        Ok((Vec::new(), Appended::default()))
    }

    /// Enters what became of networks into the report, and remembers files of which all went in.
    fn settle(&mut self, zoo: &mut Zoo, networks: &[Planned], kept: &[&Planned], appended: Appended) -> Result<()> {
        self.report.read += appended.added;
        for refused in appended.refused {
            let same = |network: &&&Planned| network.record.run == refused.run && network.record.step == refused.step;
            if let Some(network) = kept.iter().find(same) {
                self.refuse(network.file, refused.reason);
            }
        }
        for network in networks {
            self.files[network.file].waiting -= 1;
        }
        let mut whole: Vec<usize> = networks.iter().map(|network| network.file).collect();
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

/// What is said of a network that is another than it was.
const OTHER: &str = "its weights are not those that were examined";

/// Reads networks of one file again.
fn reread(path: &Path, networks: &[Planned], architecture: &Architecture) -> Vec<Result<Vec<f32>>> {
    let changed = |reason: String| Error::Changed { path: path.to_owned(), reason };
    let told = |error: &Error| refusal(path.to_owned(), error).reason;
    let opened = match open_networks(path, architecture) {
        Ok(opened) => opened,
        // The file is one, its error is told once for each network that was to come from it.
        Err(error) => return networks.iter().map(|_| Err(changed(told(&error)))).collect(),
    };
    let row = |planned: &Planned| {
        let network = opened.get(planned.index).ok_or_else(|| changed(OTHER.to_owned()))?;
        let row = network.row(architecture).map_err(|error| changed(told(&error)))?;
        let is_same = Digest::of_weights(architecture, &row) == planned.record.digest;
        if is_same { Ok(row) } else { Err(changed(OTHER.to_owned())) }
    };
    networks.iter().map(row).collect()
}
