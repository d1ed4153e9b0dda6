//! The catalogue: one SQLite row a checkpoint; runs, recipes and shards are tables of their own.

use super::RunState;
use super::filter::Filter;
use super::schema::{CATALOGUE_VERSION, SCHEMA};
use crate::format::recipe_from_json;
use crate::query::Names;
use crate::{Error, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params_from_iter};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_core::{Digest, Provenance, Recipe, Record, Sha256, Split};

/// How long a writer waits for another process's append.
const PATIENCE: Duration = Duration::from_mins(2);

/// A checkpoint of an open zoo: its record, and where its weights lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    record: Record,
    place: Option<Place>,
}

/// Where the weights of a checkpoint lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) shard: Digest,
    pub(super) row: usize,
}

impl Entry {
    /// What is known of the checkpoint.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is known of the checkpoint, without a copy.
    #[must_use]
    pub fn into_record(self) -> Record {
        self.record
    }

    /// The digest that names the checkpoint's shard; none if it is quarantined and its weights were not kept.
    #[must_use]
    pub fn shard(&self) -> Option<Digest> {
        self.place.map(|place| place.shard)
    }

    /// The checkpoint's row in its shard.
    #[must_use]
    pub fn row(&self) -> Option<usize> {
        self.place.map(|place| place.row)
    }

    pub(super) fn place(&self) -> Option<Place> {
        self.place
    }
}

/// An open catalogue.
#[derive(Debug)]
pub(super) struct Catalogue {
    path: PathBuf,
    db: Connection,
}

impl Catalogue {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let catalogue = Self::connect(path, flags)?;
        let schema = format!("BEGIN; {SCHEMA} PRAGMA user_version = {CATALOGUE_VERSION}; COMMIT;");
        catalogue.db.execute_batch(&schema).map_err(catalogue.fail())?;
        Ok(catalogue)
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        let catalogue = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        catalogue.migrate()?;
        Ok(catalogue)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self> {
        let fail = |source| Error::Catalogue { path: path.to_owned(), source };
        let db = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(fail)?;
        db.busy_timeout(PATIENCE).map_err(fail)?;
        // EXTRA is FULL that also makes the end of the rollback journal durable: a committed row survives a power
        // failure. A catalogue may come from elsewhere, so what its schema says is not trusted.
        let settings = "PRAGMA synchronous = EXTRA; PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF;";
        db.execute_batch(settings).map_err(fail)?;
        Ok(Self { path: path.to_owned(), db })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    /// Wraps SQLite's errors with the catalogue's path.
    pub(super) fn fail(&self) -> impl Fn(rusqlite::Error) -> Error + Copy + '_ {
        |source| Error::Catalogue { path: self.path.clone(), source }
    }

    /// Takes the write lock; dropping the transaction gives it back and changes nothing.
    pub(super) fn lock(&self) -> Result<Transaction<'_>> {
        Transaction::new_unchecked(&self.db, TransactionBehavior::Immediate).map_err(self.fail())
    }

    pub(super) fn contains(&self, digest: &Digest) -> Result<bool> {
        let mut statement = self.db.prepare_cached("SELECT 1 FROM checkpoints WHERE digest = ?1").map_err(self.fail())?;
        statement.exists([digest.as_bytes()]).map_err(self.fail())
    }

    pub(super) fn runs(&self) -> Result<BTreeMap<String, RunState>> {
        let sql = "SELECT name, split, EXISTS (SELECT 1 FROM checkpoints c WHERE c.run = runs.id AND c.is_final) FROM runs \
                   WHERE split IS NOT NULL";
        let mut statement = self.db.prepare_cached(sql).map_err(self.fail())?;
        let mut rows = statement.query([]).map_err(self.fail())?;
        let mut runs = BTreeMap::new();
        while let Some(row) = rows.next().map_err(self.fail())? {
            let (name, split, complete): (String, String, bool) = row.try_into().map_err(self.fail())?;
            runs.insert(name, RunState { split: self.parse_split(&split, 0)?, complete });
        }
        Ok(runs)
    }

    /// The shards with the number of networks in each.
    pub(super) fn shards(&self) -> Result<BTreeMap<Digest, i64>> {
        let mut statement = self.db.prepare_cached("SELECT id, digest, num_rows FROM shards").map_err(self.fail())?;
        let mut rows = statement.query([]).map_err(self.fail())?;
        let mut shards = BTreeMap::new();
        while let Some(row) = rows.next().map_err(self.fail())? {
            let (id, digest, num_rows): (i64, Vec<u8>, i64) = row.try_into().map_err(self.fail())?;
            shards.insert(self.parse_digest(&digest, id)?, num_rows);
        }
        Ok(shards)
    }

    /// The names that a filter may use.
    pub(super) fn names(&self) -> Result<Names> {
        let mut statement = self.db.prepare_cached("SELECT kind, name FROM names").map_err(self.fail())?;
        let mut rows = statement.query([]).map_err(self.fail())?;
        let mut names = Names::default();
        while let Some(row) = rows.next().map_err(self.fail())? {
            let (kind, name): (String, String) = row.try_into().map_err(self.fail())?;
            let known = match kind.as_str() {
                "label" => &mut names.labels,
                "metric" => &mut names.metrics,
                _ => &mut names.metadata,
            };
            known.insert(name);
        }
        Ok(names)
    }

    fn sql(&self, filter: &Filter) -> Result<(String, Vec<Value>)> {
        let names = if filter.needs_names() { self.names()? } else { Names::default() };
        filter.sql(&names)
    }

    pub(super) fn count(&self, filter: &Filter) -> Result<usize> {
        let (conditions, parameters) = self.sql(filter)?;
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM checkpoints c JOIN runs r ON r.id = c.run {conditions})");
        let count: i64 = self.db.query_row(&sql, params_from_iter(parameters), |row| row.get(0)).map_err(self.fail())?;
        Ok(count.max(0) as usize)
    }

    pub(super) fn records(&self, filter: &Filter) -> Result<Vec<Entry>> {
        let (conditions, parameters) = self.sql(filter)?;
        let sql = format!(
            "SELECT c.id, c.digest, r.name, r.split, c.step, c.is_final, c.recipe, c.metrics, c.source, c.licence, c.parents, \
             c.synthetic, s.digest, c.shard_row, c.file_sha256, c.format, c.metadata, c.quarantine, c.max_deviation, \
             (SELECT json_group_object(l.key, l.value) FROM labels l WHERE l.checkpoint = c.id) \
             FROM checkpoints c JOIN runs r ON r.id = c.run LEFT JOIN shards s ON s.id = c.shard {conditions}"
        );
        let mut statement = self.db.prepare_cached(&sql).map_err(self.fail())?;
        let mut rows = statement.query(params_from_iter(parameters)).map_err(self.fail())?;
        let (mut entries, mut recipes) = (Vec::new(), BTreeMap::new());
        while let Some(row) = rows.next().map_err(self.fail())? {
            entries.push(self.entry(row, &mut recipes)?);
        }
        Ok(entries)
    }

    fn entry(&self, row: &rusqlite::Row<'_>, recipes: &mut BTreeMap<i64, Recipe>) -> Result<Entry> {
        let text = |column: usize| row.get_ref(column).and_then(|v| Ok(v.as_str()?)).map_err(self.fail());
        let id: i64 = row.get(0).map_err(self.fail())?;
        let fail = |reason: String| self.bad_row(id, reason);
        let digest = row.get_ref(1).and_then(|v| Ok(v.as_blob()?)).map_err(self.fail())?;
        let step: Option<i64> = row.get(4).map_err(self.fail())?;
        let step = step.map(u64::try_from).transpose().map_err(|_| fail("a negative step".to_owned()))?;
        let recipe = match row.get(6).map_err(self.fail())? {
            Some(recipe) => Some(self.recipe(recipe, recipes)?),
            None => None,
        };
        let quarantine: Option<String> = row.get(17).map_err(self.fail())?;
        let split: Option<String> = row.get(3).map_err(self.fail())?;
        let split = split.filter(|_| quarantine.is_none()).map(|split| self.parse_split(&split, id)).transpose()?;
        let json = |column: usize, what: &str| match text(column)? {
            "{}" => Ok(BTreeMap::new()),
            json => serde_json::from_str(json).map_err(|e| fail(format!("{what}: {e}"))),
        };
        let record = Record {
            digest: self.parse_digest(digest, id)?,
            run: text(2)?.to_owned(),
            step,
            is_final: row.get(5).map_err(self.fail())?,
            split,
            recipe,
            metrics: serde_json::from_str(text(7)?).map_err(|e| fail(format!("metrics: {e}")))?,
            labels: json(19, "labels")?,
            quarantine,
            max_deviation: row.get(18).map_err(self.fail())?,
            provenance: self.provenance(row, id, json(16, "metadata")?)?,
        };
        Ok(Entry { record, place: self.place(row, id)? })
    }

    fn provenance(&self, row: &rusqlite::Row<'_>, id: i64, metadata: BTreeMap<String, String>) -> Result<Provenance> {
        let text = |column: usize| row.get_ref(column).and_then(|v| Ok(v.as_str()?)).map_err(self.fail());
        let parents = text(10)?.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let file: Option<Vec<u8>> = row.get(14).map_err(self.fail())?;
        let file = file.map(|bytes| <[u8; 32]>::try_from(bytes).map(Sha256)).transpose();
        Ok(Provenance {
            source: text(8)?.to_owned(),
            licence: text(9)?.to_owned(),
            parents: parents.map_err(|e: weft_core::Error| self.bad_row(id, e.to_string()))?,
            synthetic: row.get(11).map_err(self.fail())?,
            file_sha256: file.map_err(|bytes| self.bad_row(id, format!("a SHA-256 of {} bytes", bytes.len())))?,
            format: row.get(15).map_err(self.fail())?,
            metadata,
        })
    }

    fn place(&self, row: &rusqlite::Row<'_>, id: i64) -> Result<Option<Place>> {
        let shard: Option<Vec<u8>> = row.get(12).map_err(self.fail())?;
        let place: Option<i64> = row.get(13).map_err(self.fail())?;
        let (Some(shard), Some(place)) = (shard, place) else { return Ok(None) };
        let row = usize::try_from(place).map_err(|_| self.bad_row(id, "a negative row of a shard".to_owned()))?;
        Ok(Some(Place { shard: self.parse_digest(&shard, id)?, row }))
    }

    /// A recipe by its row; each is read once, however many checkpoints share it.
    fn recipe(&self, id: i64, known: &mut BTreeMap<i64, Recipe>) -> Result<Recipe> {
        if let Some(recipe) = known.get(&id) {
            return Ok(recipe.clone());
        }
        let mut statement = self.db.prepare_cached("SELECT json FROM recipes WHERE id = ?1").map_err(self.fail())?;
        let json: String = statement.query_row([id], |row| row.get(0)).map_err(self.fail())?;
        let recipe = recipe_from_json(&json)?;
        known.insert(id, recipe.clone());
        Ok(recipe)
    }

    fn parse_digest(&self, bytes: &[u8], row: i64) -> Result<Digest> {
        let bytes = bytes.try_into().map_err(|_| self.bad_row(row, format!("a digest of {} bytes", bytes.len())))?;
        Ok(Digest::from_bytes(bytes))
    }

    fn parse_split(&self, text: &str, row: i64) -> Result<Split> {
        text.parse().map_err(|e: weft_core::Error| self.bad_row(row, e.to_string()))
    }

    fn bad_row(&self, row: i64, reason: String) -> Error {
        Error::Row { path: self.path.clone(), row, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::{ACCURACY, Expr, SortKey};
    use weft_core::{Optimizer, Precision, Schedule};

    const RUNS: u64 = 10_000;
    const SNAPSHOTS: u64 = 10;

    fn record(i: u64) -> Record {
        let (run, step) = (i / SNAPSHOTS, i % SNAPSHOTS + 1);
        let recipe = Recipe {
            optimizer: Optimizer::ADAM,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            batch_size: 64,
            duration: weft_core::Duration::Steps(SNAPSHOTS),
            snapshot_steps: (1..SNAPSHOTS).collect(),
            precision: Precision::Single,
        };
        Record {
            step: Some(step),
            is_final: step == SNAPSHOTS,
            split: Some(if run.is_multiple_of(8) { Split::Test } else { Split::Train }),
            recipe: Some(recipe),
            metrics: BTreeMap::from([(ACCURACY.to_owned(), step as f64 / 10.0), ("train-loss".to_owned(), 1.0 / step as f64)]),
            labels: BTreeMap::from([("phrase".to_owned(), format!("phrase {}", run % 100))]),
            provenance: Provenance {
                source: "a test".to_owned(),
                licence: "MIT".to_owned(),
                file_sha256: Some(Sha256([i as u8; 32])),
                format: Some("safetensors".to_owned()),
                metadata: BTreeMap::from([("author".to_owned(), format!("author {}", i % 7))]),
                ..Provenance::default()
            },
            ..Record::new(Digest::of_bytes(&i.to_le_bytes()), format!("run-{run:05}"))
        }
    }

    #[test]
    fn a_hundred_thousand_checkpoints() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("catalogue.sqlite");
        let records: Vec<Record> = (0..RUNS * SNAPSHOTS).map(record).collect();
        Catalogue::create(&path).unwrap().insert_without_weights(&records);
        let catalogue = Catalogue::open(&path).unwrap();
        let count = |filter: &Filter| catalogue.count(filter).unwrap();
        assert_eq!(count(&Filter::default()), 100_000);
        assert_eq!(count(&Filter { final_only: true, ..Filter::default() }), 10_000);
        assert_eq!(count(&Filter { split: Some(Split::Test), ..Filter::default() }), 12_500);
        assert_eq!(count(&Filter { min_accuracy: Some(0.9), ..Filter::default() }), 20_000);
        assert_eq!(count(&Filter { min_accuracy: Some(0.9), limit: Some(7), offset: 19_995, ..Filter::default() }), 5);
        assert_eq!(catalogue.runs().unwrap().len(), 10_000);
        let recipes: i64 = catalogue.db().query_row("SELECT count(*) FROM recipes", [], |row| row.get(0)).unwrap();
        assert_eq!(recipes, 1, "recipes are interned");

        let all = catalogue.records(&Filter::default()).unwrap();
        assert!(all.iter().map(Entry::record).eq(&records), "every record comes back as it was, in order");
        let one = catalogue.records(&Filter { run: Some("run-00042".to_owned()), ..Filter::default() }).unwrap();
        assert!(one.iter().map(Entry::record).eq(&records[420..430]));
        let prefix = records[777].digest.short();
        let found = catalogue.records(&Filter { digest_prefix: Some(prefix), ..Filter::default() }).unwrap();
        assert!(found.iter().map(Entry::record).eq([&records[777]]));
        assert_eq!(count(&Filter { digest_prefix: Some("xyz".to_owned()), ..Filter::default() }), 0);

        let check = |text: &str, expected: &dyn Fn(&Record) -> bool| {
            let filter = Filter { condition: Some(Expr::parse(text).unwrap()), ..Filter::default() };
            let found = records.iter().filter(|record| expected(record)).count();
            assert!(found > 0 && count(&filter) == found, "{text}: {} of {found}", count(&filter));
        };
        let phrase = |r: &Record| r.labels["phrase"].clone();
        check("split = \"train\" and accuracy >= 0.9 and phrase like \"PHRASE 4%\"", &|r| {
            r.split == Some(Split::Train) && r.metrics[ACCURACY] >= 0.9 && phrase(r).starts_with("phrase 4")
        });
        let author = |r: &Record| r.provenance.metadata["author"].clone();
        check("train-loss < 0.11 and author in (\"author 1\", \"author 2\")", &|r| {
            r.metrics["train-loss"] < 0.11 && ["author 1", "author 2"].contains(&author(r).as_str())
        });
        check("not (author = \"author 1\" or phrase != \"phrase 7\")", &|r| author(r) != "author 1" && phrase(r) == "phrase 7");
        let sort = ["-train-loss", "phrase", "-step"].map(|key| SortKey::parse(key).unwrap()).to_vec();
        let sorted = catalogue.records(&Filter { sort, limit: Some(2), offset: 9_999, ..Filter::default() }).unwrap();
        let known: Vec<_> = sorted.iter().map(|e| (e.record().step, e.record().labels["phrase"].as_str())).collect();
        assert_eq!(known, [(Some(1), "phrase 99"), (Some(2), "phrase 0")]);
    }

    /// Listing a run or a digest must not walk through the table.
    #[test]
    fn filters_use_indexes() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(&dir.path().join("catalogue.sqlite")).unwrap();
        let check = |filter: Filter, index: &str| {
            let (conditions, parameters) = catalogue.sql(&filter).unwrap();
            let sql = format!("EXPLAIN QUERY PLAN SELECT c.id FROM checkpoints c JOIN runs r ON r.id = c.run {conditions}");
            let mut statement = catalogue.db().prepare(&sql).unwrap();
            let rows = statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<String> = rows.map(Result::unwrap).collect();
            assert!(plan.iter().any(|line| line.contains(index)), "{plan:?}");
        };
        check(Filter { run: Some("r".to_owned()), ..Filter::default() }, "checkpoints_run");
        check(Filter { digest_prefix: Some("ab".to_owned()), ..Filter::default() }, "sqlite_autoindex_checkpoints");
        let label =
            |text: &str| Filter { condition: Some(Expr::parse(text).unwrap()), with_quarantined: true, ..Filter::default() };
        catalogue.db().execute("INSERT INTO names VALUES ('label', 'phrase')", []).unwrap();
        check(label("phrase = \"a\""), "labels_value");
    }
}
