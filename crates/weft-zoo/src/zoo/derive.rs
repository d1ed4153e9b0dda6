//! Zoos made of other zoos: their checkpoints with other records, their shards shared where nothing of them changes.
//!
//! A derived zoo is built under a temporary name beside its place and gets its own name when it is whole, so that a
//! process that is killed leaves no part of one. The next derivation of the same name clears the rest away.

use super::append::insert;
use super::catalogue::Entry;
use super::{Purpose, Zoo, shard};
use crate::atomic::sync_folder;
use crate::{Error, Result, StagedFolder};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Architecture, Digest, Monitor, Record};

/// A zoo that is not yet at its place.
pub(super) struct Derived {
    path: PathBuf,
    /// Open while it is built.
    zoo: Option<Zoo>,
    /// Where it is built.
    folder: StagedFolder,
}

impl Derived {
    /// Begins a zoo that is to be in `path`, where nothing may be.
    pub(super) fn begin(path: &Path, name: &str, architecture: Arc<Architecture>, parents: &[Digest]) -> Result<Self> {
        let occupied = |reason: &str| Error::Occupied { path: path.to_owned(), reason: reason.to_owned() };
        if Zoo::exists(path) {
            return Err(occupied("there is a zoo already"));
        }
        if path.file_name().is_none() {
            return Err(occupied("the path does not end in a name"));
        }
        match std::fs::read_dir(path).map(|mut items| items.next().is_none()) {
            Ok(true) => {}
            Ok(false) => return Err(occupied("the folder is not empty")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("list", path)(error)),
        }
        let folder = StagedFolder::begin(path)?;
        let zoo = Zoo::create_from(folder.path(), name, architecture, parents)?;
        Ok(Self { path: path.to_owned(), zoo: Some(zoo), folder })
    }

    /// Takes checkpoints of a zoo, each with the record that it is to have here, shard by shard.
    pub(super) fn take(&mut self, source: &Zoo, checkpoints: Vec<(Entry, Record)>, monitor: &Monitor<'_>) -> Result<()> {
        let Some(zoo) = &mut self.zoo else { return Ok(()) };
        let rows = source.catalogue.shards()?;
        let mut order: Vec<Option<Digest>> = Vec::new();
        let mut of_shard: BTreeMap<Option<Digest>, Vec<(Entry, Record)>> = BTreeMap::new();
        for (entry, record) in checkpoints {
            let shard = entry.shard();
            if !of_shard.contains_key(&shard) {
                order.push(shard);
            }
            of_shard.entry(shard).or_default().push((entry, record));
        }
        for shard in order {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let members = of_shard.remove(&shard).unwrap_or_default();
            match shard {
                Some(digest) if rows.get(&digest) == Some(&(members.len() as i64)) => zoo.share(source, digest, members)?,
                _ => zoo.rewrite(source, members)?,
            }
        }
        Ok(())
    }

    /// Remembers the files that a source has taken in whole.
    pub(super) fn take_files(&mut self, source: &Zoo) -> Result<()> {
        let files = source.files()?;
        self.zoo.as_mut().map_or(Ok(()), |zoo| zoo.remember_files(&files))
    }

    /// Brings the zoo to its place.
    pub(super) fn finish(mut self) -> Result<Zoo> {
        if let Some(zoo) = self.zoo.take() {
            // SQLite finds its journal by the path at which it was opened, so the zoo is closed before it moves.
            sync_folder(&zoo.shards())?;
        }
        self.folder.commit()?;
        Zoo::open(&self.path)
    }
}

impl Zoo {
    /// Writes a new zoo of the same architecture that names this one as its parent; what `fill` makes of it is what it returns.
    ///
    /// The zoo is in its place once `fill` has succeeded and not before: a failure, or a killed process, leaves none.
    ///
    /// # Errors
    /// [`Error::Occupied`] if something is there, what cannot be written, or what `fill` returns.
    #[expect(clippy::missing_panics_doc, reason = "a zoo that is begun is there until it is finished")]
    pub fn derive<T, E: From<Error>>(&self, path: &Path, name: &str, fill: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        let mut derived = Derived::begin(path, name, self.architecture.clone(), &[self.digest()?])?;
        let done = fill(derived.zoo.as_mut().expect("the zoo was just begun"))?;
        derived.finish()?;
        Ok(done)
    }

    /// Takes over a whole shard: a second name of the same file where the file system has such, else a copy.
    fn share(&mut self, source: &Self, digest: Digest, mut members: Vec<(Entry, Record)>) -> Result<()> {
        let (from, to) = (source.shard_path(&digest), self.shard_path(&digest));
        if std::fs::hard_link(&from, &to).is_err() {
            let copied = std::fs::copy(&from, &to).and_then(|_| std::fs::File::open(&to)?.sync_all());
            copied.map_err(Error::io("copy", &from))?;
        }
        members.sort_by_key(|(entry, _)| entry.row());
        let records: Vec<&Record> = members.iter().map(|(_, record)| record).collect();
        self.enter(Some(digest), &records)
    }

    /// Writes the networks of a part of a shard as a shard of their own. Of quarantined ones nothing but the row stays.
    fn rewrite(&mut self, source: &Self, members: Vec<(Entry, Record)>) -> Result<()> {
        let usable = |(entry, record): &(Entry, Record)| entry.record().quarantine.is_none() && record.quarantine.is_none();
        let (usable, quarantined): (Vec<_>, Vec<_>) = members.into_iter().partition(usable);
        self.enter(None, &quarantined.iter().map(|(_, record)| record).collect::<Vec<_>>())?;
        if usable.is_empty() {
            return Ok(());
        }
        let (entries, records): (Vec<Entry>, Vec<Record>) = usable.into_iter().unzip();
        let population = source.load(&entries, Purpose::Transform)?;
        let shard = shard::write(&self.shards(), &population, &(0..entries.len()).collect::<Vec<_>>())?;
        self.enter(Some(shard), &records.iter().collect::<Vec<_>>())
    }

    fn enter(&mut self, shard: Option<Digest>, records: &[&Record]) -> Result<()> {
        let transaction = self.catalogue.lock()?;
        insert(&transaction, shard, records).map_err(self.catalogue.fail())?;
        transaction.commit().map_err(self.catalogue.fail())
    }
}
