//! Adding checkpoints to a zoo.

use super::schema::NewNames;
use super::{RunState, Zoo, shard};
use crate::format::{recipe_from_json, recipe_to_json};
use crate::query::ACCURACY;
use crate::tensors::first_non_finite;
use crate::{Error, Result};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};
use weft_core::{Architecture, Digest, Population, Record, Split};

/// What became of the checkpoints of an append.
#[derive(Debug, Clone, PartialEq, Default)]
#[must_use]
pub struct Appended {
    /// The number of checkpoints that are now in the zoo and were not before.
    pub added: usize,
    /// Networks that the zoo had already, or that stood twice in the append.
    pub duplicates: Vec<Digest>,
    /// Checkpoints that no zoo takes.
    pub refused: Vec<RefusedRecord>,
}

/// A checkpoint that was not appended.
#[derive(Debug, Clone, PartialEq)]
pub struct RefusedRecord {
    /// Its run.
    pub run: String,
    /// Its step.
    pub step: Option<u64>,
    /// What is wrong with it, by name.
    pub reason: String,
}

impl Zoo {
    /// Appends networks with their records, all of them or, if it fails, none; when it returns they are durable.
    ///
    /// A network that the zoo has is left out, as is one with a weight or figure that is not finite; both are
    /// reported. Nothing is said of them in the catalogue.
    ///
    /// # Errors
    /// [`Error::Architecture`], [`Error::Count`], or [`Error::Record`] if a record's digest is not that of its
    /// network, if a run would stand in two splits, or if it would have two final checkpoints; [`Error::Io`] and
    /// [`Error::Catalogue`] if the disk or SQLite refuses.
    pub fn append(&mut self, population: &Population, records: &[Record]) -> Result<Appended> {
        self.append_with(population, records, Digests::Compare)
    }

    /// [`Zoo::append`] of networks whose digests the caller has compared.
    pub(crate) fn append_digested(&mut self, population: &Population, records: &[Record]) -> Result<Appended> {
        self.append_with(population, records, Digests::Known)
    }

    /// Appends one network whose weights come piece by piece, in memory that does not depend on its size.
    ///
    /// Nothing is appended, and there is no answer, if what was written has not the record's digest.
    pub(crate) fn append_streamed(&mut self, record: &Record, read: &mut ReadTensor<'_>) -> Result<Option<Appended>> {
        let mut report = Appended::default();
        if let Some(reason) = not_recordable(record, &mut BTreeMap::new()) {
            report.refused.push(RefusedRecord { run: record.run.clone(), step: record.step, reason });
            return Ok(Some(report));
        }
        let transaction = self.catalogue.lock()?;
        let kept = self.check(std::slice::from_ref(record), vec![0], &mut report)?;
        if !kept.is_empty() {
            let Some(shard) = shard::write_streamed(&self.shards(), &self.architecture, &record.digest, read)? else {
                return Ok(None);
            };
            insert(&transaction, Some(shard), &[record]).map_err(self.catalogue.fail())?;
        }
        transaction.commit().map_err(self.catalogue.fail())?;
        report.added = kept.len();
        Ok(Some(report))
    }

    fn append_with(&mut self, population: &Population, records: &[Record], digests: Digests) -> Result<Appended> {
        if !population.architecture().same_graph(&self.architecture) {
            let (expected, got) = (self.architecture.name().to_owned(), population.architecture().name().to_owned());
            return Err(Error::Architecture { expected, got });
        }
        if population.len() != records.len() {
            return Err(Error::Count { networks: population.len(), records: records.len() });
        }
        let mut report = Appended::default();
        let finite = sort_out((population, records), digests, &mut report)?;
        let transaction = self.catalogue.lock()?;
        let kept = self.check(records, finite, &mut report)?;
        if !kept.is_empty() {
            let shard = shard::write(&self.shards(), population, &kept)?;
            let kept: Vec<&Record> = kept.iter().map(|&i| &records[i]).collect();
            insert(&transaction, Some(shard), &kept).map_err(self.catalogue.fail())?;
        }
        transaction.commit().map_err(self.catalogue.fail())?;
        report.added = kept.len();
        Ok(report)
    }

    /// Enters checkpoints that nothing may be made of, each with its reason, and returns how many are new.
    ///
    /// Their weights are not kept. They are in no split and in no listing that does not ask for them, and are never
    /// loaded. A network that the zoo has stays what it is.
    ///
    /// # Errors
    /// [`Error::Record`] for a record without a reason, [`Error::Catalogue`].
    pub fn quarantine(&mut self, records: &[Record]) -> Result<usize> {
        if let Some(record) = records.iter().find(|record| record.quarantine.is_none()) {
            return Err(Error::Record { run: record.run.clone(), reason: "it is quarantined without a reason".to_owned() });
        }
        let transaction = self.catalogue.lock()?;
        let (mut seen, mut new) = (BTreeSet::new(), Vec::new());
        for record in records {
            if seen.insert(record.digest) && !self.catalogue.contains(&record.digest)? {
                let mut record = Record { split: None, is_final: false, ..record.clone() };
                record.metrics.retain(|_, value| value.is_finite());
                record.step = record.step.filter(|&step| i64::try_from(step).is_ok());
                record.recipe = record.recipe.filter(|recipe| recipe_from_json(&recipe_to_json(recipe)).is_ok());
                new.push(record);
            }
        }
        insert(&transaction, None, &new.iter().collect::<Vec<_>>()).map_err(self.catalogue.fail())?;
        transaction.commit().map_err(self.catalogue.fail())?;
        Ok(new.len())
    }

    /// The rows that are new to the zoo; runs must keep their split and have one end.
    fn check(&self, records: &[Record], rows: Vec<usize>, report: &mut Appended) -> Result<Vec<usize>> {
        let mut runs = self.catalogue.runs()?;
        let mut seen = BTreeSet::new();
        let mut kept = Vec::with_capacity(rows.len());
        for i in rows {
            let record = &records[i];
            if !seen.insert(record.digest) || self.catalogue.contains(&record.digest)? {
                report.duplicates.push(record.digest);
                continue;
            }
            let fail = |reason: String| Error::Record { run: record.run.clone(), reason };
            let (Some(split), None) = (record.split, &record.quarantine) else {
                return Err(fail("a record without a split, or in quarantine, cannot be appended with weights".to_owned()));
            };
            let run = runs.entry(record.run.clone()).or_insert(RunState { split, complete: false });
            if run.split != split {
                return Err(fail(format!("it is in the {} split, it cannot also be in {}", run.split.name(), split.name())));
            }
            if record.is_final && std::mem::replace(&mut run.complete, true) {
                return Err(fail("it has a final checkpoint already".to_owned()));
            }
            kept.push(i);
        }
        Ok(kept)
    }
}

/// Whether the digests of records are still to be compared with those of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digests {
    Compare,
    Known,
}

/// Gives the values of one of the architecture's tensors, piece by piece.
pub(crate) type ReadTensor<'a> = dyn FnMut(usize, &mut dyn FnMut(&[f32]) -> Result<()>) -> Result<()> + 'a;

/// Refuses what is not finite, and compares the digests of the rest.
fn sort_out((population, records): (&Population, &[Record]), digests: Digests, report: &mut Appended) -> Result<Vec<usize>> {
    let mut rows = Vec::with_capacity(records.len());
    let mut recipes = BTreeMap::new();
    for (i, (weights, record)) in population.rows().zip(records).enumerate() {
        if let Some(reason) = not_storable(population.architecture(), weights, record, &mut recipes) {
            report.refused.push(RefusedRecord { run: record.run.clone(), step: record.step, reason });
            continue;
        }
        if digests == Digests::Compare && population.digest(i) != record.digest {
            let (expected, got) = (record.digest.short(), population.digest(i).short());
            let reason = format!("its record has digest {expected}, its weights {got}");
            return Err(Error::Record { run: record.run.clone(), reason });
        }
        rows.push(i);
    }
    Ok(rows)
}

/// Why a checkpoint cannot be stored, if so. `recipes` remembers which recipes can.
fn not_storable(
    architecture: &Architecture,
    weights: &[f32],
    record: &Record,
    recipes: &mut BTreeMap<String, bool>,
) -> Option<String> {
    if let Some(index) = first_non_finite(weights) {
        let tensor = architecture.tensors().iter().find(|t| t.range().contains(&index));
        let tensor = tensor.expect("every weight lies in a tensor");
        return Some(format!("tensor `{}`: value {} is not finite", tensor.name, index - tensor.range().start));
    }
    not_recordable(record, recipes)
}

/// Why a catalogue cannot take a record, if so.
pub(crate) fn not_recordable(record: &Record, recipes: &mut BTreeMap<String, bool>) -> Option<String> {
    if let Some((name, _)) = record.metrics.iter().find(|(_, value)| !value.is_finite()) {
        return Some(format!("metric `{name}` is not finite"));
    }
    if record.step.is_some_and(|step| i64::try_from(step).is_err()) {
        return Some("its step is above 2⁶³".to_owned());
    }
    let json = recipe_to_json(record.recipe.as_ref()?);
    let readable = *recipes.entry(json).or_insert_with_key(|json| recipe_from_json(json).is_ok());
    (!readable).then(|| "its recipe has a figure that is not finite".to_owned())
}

/// Inserts a shard and its rows, or checkpoints without weights; runs and recipes that are known are found again.
pub(super) fn insert(db: &Connection, shard: Option<Digest>, records: &[&Record]) -> rusqlite::Result<()> {
    let shard = match shard {
        Some(digest) => {
            let row = (digest.as_bytes(), records.len() as i64);
            db.execute("INSERT INTO shards (digest, num_rows) VALUES (?1, ?2)", row)?;
            Some(db.last_insert_rowid())
        }
        None => None,
    };
    // A run that had nothing but quarantined checkpoints gets its split with the first sound one.
    let mut add_run = db.prepare_cached(
        "INSERT INTO runs (name, split) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET split = excluded.split WHERE split IS NULL",
    )?;
    let mut find_run = db.prepare_cached("SELECT id FROM runs WHERE name = ?1")?;
    let mut add_recipe = db.prepare_cached("INSERT INTO recipes (json) VALUES (?1) ON CONFLICT DO NOTHING")?;
    let mut find_recipe = db.prepare_cached("SELECT id FROM recipes WHERE json = ?1")?;
    let mut recipes: BTreeMap<String, i64> = BTreeMap::new();
    let mut names = NewNames::default();
    for (row, record) in records.iter().enumerate() {
        add_run.execute((&record.run, record.split.map(Split::name)))?;
        let run: i64 = find_run.query_row([&record.run], |row| row.get(0))?;
        let json = record.recipe.as_ref().map(recipe_to_json);
        if let Some(json) = json.as_ref().filter(|json| !recipes.contains_key(*json)) {
            add_recipe.execute([json])?;
            recipes.insert(json.clone(), find_recipe.query_row([json], |row| row.get(0))?);
        }
        let recipe = json.and_then(|json| recipes.get(&json).copied());
        insert_checkpoint(db, record, (run, recipe), shard.map(|shard| (shard, row as i64)))?;
        names.add("label", record.labels.keys());
        names.add("metric", record.metrics.keys());
        names.add("metadata", record.provenance.metadata.keys());
    }
    names.store(db)
}

fn insert_checkpoint(
    db: &Connection,
    record: &Record,
    (run, recipe): (i64, Option<i64>),
    place: Option<(i64, i64)>,
) -> rusqlite::Result<()> {
    let mut add = db.prepare_cached(
        "INSERT INTO checkpoints (digest, run, step, is_final, recipe, accuracy, metrics, source, licence, parents, synthetic, shard, \
         shard_row, file_sha256, format, metadata, quarantine, max_deviation) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
    )?;
    let provenance = &record.provenance;
    let metrics = serde_json::to_string(&record.metrics).expect("finite numbers always serialize");
    let metadata = serde_json::to_string(&provenance.metadata).expect("texts always serialize");
    let parents: Vec<String> = provenance.parents.iter().map(ToString::to_string).collect();
    add.execute(rusqlite::params![
        record.digest.as_bytes(),
        run,
        record.step.map(|step| step as i64),
        record.is_final,
        recipe,
        record.metrics.get(ACCURACY),
        metrics,
        provenance.source,
        provenance.licence,
        parents.join(" "),
        provenance.synthetic,
        place.map(|(shard, _)| shard),
        place.map(|(_, row)| row),
        provenance.file_sha256.map(|sha256| sha256.0),
        provenance.format,
        metadata,
        record.quarantine,
        record.max_deviation.filter(|deviation| deviation.is_finite()),
    ])?;
    let checkpoint = db.last_insert_rowid();
    let mut label = db.prepare_cached("INSERT INTO labels (checkpoint, key, value) VALUES (?1, ?2, ?3)")?;
    record.labels.iter().try_for_each(|(key, value)| label.execute((checkpoint, key, value)).map(drop))
}

#[cfg(test)]
impl super::catalogue::Catalogue {
    /// Inserts rows for networks that no shard holds, so that a test can build a large catalogue quickly.
    pub(super) fn insert_without_weights(&self, records: &[Record]) {
        let transaction = self.lock().unwrap();
        insert(&transaction, Some(Digest::of_bytes(b"no such shard")), &records.iter().collect::<Vec<_>>()).unwrap();
        transaction.commit().unwrap();
    }
}
