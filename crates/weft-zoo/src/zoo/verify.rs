//! Checking a zoo against its digests, and clearing up what killed appends left.

use super::Filter;
use super::Zoo;
use super::catalogue::Entry;
use super::shard::{self, Shard};
use crate::atomic::is_temporary;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_core::{Digest, Monitor};

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VerifyReport {
    /// Shards that were read.
    pub shards: usize,
    /// Checkpoints whose digests were compared.
    pub checkpoints: usize,
    /// Everything that is wrong; empty for a sound zoo.
    pub faults: Vec<Fault>,
    /// Sound or not, shards that no checkpoint names. A killed append leaves such a one; an older copy of the catalogue
    /// makes many, and they are all that is left of what it does not know.
    pub unreferenced: Vec<PathBuf>,
    /// What was removed: half-written files of killed appends, and unreferenced shards where that was asked for.
    pub removed: Vec<PathBuf>,
}

/// What a verification does with shards that no checkpoint names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreferenced {
    /// They are listed.
    Keep,
    /// They are removed, which cannot be undone.
    Prune,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Something wrong with a zoo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The file that is damaged, missing or foreign.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl Zoo {
    /// Reads every shard and compares every digest; lists all faults, and removes half-written files of killed appends.
    ///
    /// # Errors
    /// [`Error::Interrupted`]; [`Error::Io`] or [`Error::Catalogue`] if the zoo cannot be read at all. Damage is not
    /// an error but a fault in the report.
    pub fn verify(&self, unreferenced: Unreferenced, monitor: &Monitor<'_>) -> Result<VerifyReport> {
        let mut report = VerifyReport::default();
        // While the lock is held, no other process is between its shard and its commit. A zoo on a read-only disk cannot
        // be locked, nor cleaned.
        let lock = self.catalogue.lock();
        self.check_catalogue(&mut report)?;
        self.clean(lock.is_ok(), unreferenced, &mut report)?;
        let mut of_shard: BTreeMap<Digest, Vec<Entry>> = BTreeMap::new();
        match self.records(&Filter { with_quarantined: true, ..Filter::default() }) {
            Ok(entries) => {
                for (shard, entry) in entries.into_iter().filter_map(|entry| Some((entry.shard()?, entry))) {
                    of_shard.entry(shard).or_default().push(entry);
                }
            }
            Err(error) => report.add(self.catalogue.path(), &error),
        }
        let shards = self.catalogue.shards()?;
        // Shards never change, so the long part needs no lock.
        drop(lock);
        monitor.start("verify zoo", shards.len() as u64, "shards");
        for (done, (digest, rows)) in shards.iter().enumerate() {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            self.check_shard(digest, *rows, of_shard.get(digest).map_or(&[], Vec::as_slice), &mut report);
            monitor.progress(done as u64 + 1);
        }
        monitor.finish();
        Ok(report)
    }

    /// SQLite's own check of its pages, indexes and references.
    fn check_catalogue(&self, report: &mut VerifyReport) -> Result<()> {
        for pragma in ["PRAGMA integrity_check", "PRAGMA foreign_key_check"] {
            let mut statement = self.catalogue.db().prepare(pragma).map_err(self.catalogue.fail())?;
            let mut rows = statement.query([]).map_err(self.catalogue.fail())?;
            while let Some(row) = rows.next().map_err(self.catalogue.fail())? {
                let text: String = row.get(0).map_err(self.catalogue.fail())?;
                if text != "ok" {
                    report.fault(self.catalogue.path(), format!("SQLite finds: {text}"));
                }
            }
        }
        Ok(())
    }

    /// Removes files that an append began, deals with those that no row names, and names what is foreign.
    fn clean(&self, may_remove: bool, unreferenced: Unreferenced, report: &mut VerifyReport) -> Result<()> {
        let shards = self.catalogue.shards()?;
        let folder = self.shards();
        let mut names = Vec::new();
        for item in std::fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
            names.push(item.map_err(Error::io("list", &folder))?.file_name());
        }
        names.sort();
        for name in names {
            let (path, name) = (folder.join(&name), name.to_string_lossy().into_owned());
            match shard::digest_in(&name) {
                Some(digest) if shards.contains_key(&digest) => continue,
                // A catalogue that was put back from a copy knows less than the folder holds.
                Some(_) if unreferenced == Unreferenced::Keep => {
                    report.unreferenced.push(path);
                    continue;
                }
                None if !is_temporary(&name) => {
                    report.fault(&path, "not a file of a zoo".to_owned());
                    continue;
                }
                _ => {}
            }
            if may_remove && std::fs::remove_file(&path).is_ok() {
                report.removed.push(path);
            } else {
                report.fault(&path, "no checkpoint names it, and it cannot be removed".to_owned());
            }
        }
        Ok(())
    }

    fn check_shard(&self, digest: &Digest, rows: i64, entries: &[Entry], report: &mut VerifyReport) {
        report.shards += 1;
        let path = self.shard_path(digest);
        let shard = match Shard::open(&path, &self.architecture) {
            Ok(shard) => shard,
            Err(error) => return report.add(&path, &error),
        };
        let got = shard.digest();
        if got != *digest {
            report.fault(&path, format!("its digest is {}, its name says {}", got.short(), digest.short()));
        }
        if i64::try_from(shard.rows()) != Ok(rows) || entries.len() != shard.rows() {
            let reason = format!("{} networks, the catalogue has {rows} with {} checkpoints", shard.rows(), entries.len());
            report.fault(&path, reason);
        }
        let mut weights = vec![0.0; self.architecture.num_parameters()];
        for entry in entries {
            report.checkpoints += 1;
            let (record, Some(row)) = (entry.record(), entry.row()) else { continue };
            if let Err(error) = shard.read(row, &record.digest, &mut weights) {
                report.fault(&path, format!("checkpoint {} of run `{}`: {error}", record.digest.short(), record.run));
            }
        }
    }
}

impl VerifyReport {
    fn fault(&mut self, path: &Path, reason: String) {
        self.faults.push(Fault { path: path.to_owned(), reason });
    }

    fn add(&mut self, path: &Path, error: &Error) {
        let cause = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
        self.fault(path, format!("{error}{cause}"));
    }
}
