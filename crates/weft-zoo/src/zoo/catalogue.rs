//! The catalogue: one SQLite row a checkpoint; runs, recipes and shards are tables of their own.

use super::{FORMAT_VERSION, RunState};
use crate::format::recipe_from_json;
use crate::{Error, Result};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params_from_iter};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use weft_core::{Digest, Provenance, Recipe, Record, Split};

const SCHEMA: &str = "
CREATE TABLE shards (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  num_rows INTEGER NOT NULL
) STRICT;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  split TEXT NOT NULL CHECK (split IN ('train', 'test'))
) STRICT;
CREATE TABLE recipes (
  id INTEGER PRIMARY KEY,
  json TEXT NOT NULL UNIQUE
) STRICT;
CREATE TABLE checkpoints (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  run INTEGER NOT NULL REFERENCES runs (id),
  step INTEGER,
  is_final INTEGER NOT NULL,
  recipe INTEGER REFERENCES recipes (id),
  accuracy REAL,
  metrics TEXT NOT NULL,
  source TEXT NOT NULL,
  licence TEXT NOT NULL,
  parents TEXT NOT NULL,
  synthetic INTEGER NOT NULL,
  shard INTEGER NOT NULL REFERENCES shards (id),
  shard_row INTEGER NOT NULL,
  UNIQUE (shard, shard_row)
) STRICT;
CREATE INDEX checkpoints_run ON checkpoints (run, is_final);
CREATE INDEX checkpoints_accuracy ON checkpoints (accuracy);
CREATE UNIQUE INDEX checkpoints_final ON checkpoints (run) WHERE is_final;
";

/// The metric that has an index.
pub(super) const ACCURACY: &str = "validation-accuracy";

/// How long a writer waits for another process's append.
const PATIENCE: Duration = Duration::from_mins(2);

/// Which checkpoints are meant; the default means all.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Those of one split.
    pub split: Option<Split>,
    /// The last snapshot of each run alone.
    pub final_only: bool,
    /// Those whose `validation-accuracy` is known and at least this, in `[0, 1]`.
    pub min_accuracy: Option<f64>,
    /// Those of one run.
    pub run: Option<String>,
    /// Those whose digest begins with these hexadecimal digits.
    pub digest_prefix: Option<String>,
    /// No more than this many.
    pub limit: Option<usize>,
    /// Without this many of the first.
    pub offset: usize,
}

/// A checkpoint of an open zoo: its record, and where its weights lie.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    record: Record,
    shard: Digest,
    row: usize,
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

    /// The digest that names the checkpoint's shard.
    #[must_use]
    pub fn shard(&self) -> Digest {
        self.shard
    }

    /// The checkpoint's row in its shard.
    #[must_use]
    pub fn row(&self) -> usize {
        self.row
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
        let schema = format!("BEGIN; {SCHEMA} PRAGMA user_version = {FORMAT_VERSION}; COMMIT;");
        catalogue.db.execute_batch(&schema).map_err(catalogue.fail())?;
        Ok(catalogue)
    }

    pub(super) fn open(path: &Path) -> Result<Self> {
        let catalogue = Self::connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let got = catalogue.db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(catalogue.fail())?;
        if got != FORMAT_VERSION {
            return Err(Error::Version { path: path.to_owned(), got, expected: FORMAT_VERSION });
        }
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
        let sql = "SELECT name, split, EXISTS (SELECT 1 FROM checkpoints c WHERE c.run = runs.id AND c.is_final) FROM runs";
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

    pub(super) fn count(&self, filter: &Filter) -> Result<usize> {
        let (conditions, parameters) = filter.sql();
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM checkpoints c JOIN runs r ON r.id = c.run {conditions})");
        let count: i64 = self.db.query_row(&sql, params_from_iter(parameters), |row| row.get(0)).map_err(self.fail())?;
        Ok(count.max(0) as usize)
    }

    pub(super) fn records(&self, filter: &Filter) -> Result<Vec<Entry>> {
        let (conditions, parameters) = filter.sql();
        let sql = format!(
            "SELECT c.id, c.digest, r.name, r.split, c.step, c.is_final, c.recipe, c.metrics, c.source, c.licence, c.parents, \
             c.synthetic, s.digest, c.shard_row FROM checkpoints c JOIN runs r ON r.id = c.run JOIN shards s ON s.id = c.shard {conditions}"
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
        let blob = |column: usize| row.get_ref(column).and_then(|v| Ok(v.as_blob()?)).map_err(self.fail());
        let id: i64 = row.get(0).map_err(self.fail())?;
        let fail = |reason: String| self.bad_row(id, reason);
        let step: Option<i64> = row.get(4).map_err(self.fail())?;
        let step = step.map(u64::try_from).transpose().map_err(|_| fail("a negative step".to_owned()))?;
        let recipe = match row.get(6).map_err(self.fail())? {
            Some(recipe) => Some(self.recipe(recipe, recipes)?),
            None => None,
        };
        let parents = text(10)?.split_whitespace().map(str::parse).collect::<Result<_, _>>();
        let provenance = Provenance {
            source: text(8)?.to_owned(),
            licence: text(9)?.to_owned(),
            parents: parents.map_err(|e: weft_core::Error| fail(e.to_string()))?,
            synthetic: row.get(11).map_err(self.fail())?,
        };
        let record = Record {
            digest: self.parse_digest(blob(1)?, id)?,
            run: text(2)?.to_owned(),
            step,
            is_final: row.get(5).map_err(self.fail())?,
            split: self.parse_split(text(3)?, id)?,
            recipe,
            metrics: serde_json::from_str(text(7)?).map_err(|e| fail(format!("metrics: {e}")))?,
            provenance,
        };
        let place: i64 = row.get(13).map_err(self.fail())?;
        let place = usize::try_from(place).map_err(|_| fail("a negative row of a shard".to_owned()))?;
        Ok(Entry { record, shard: self.parse_digest(blob(12)?, id)?, row: place })
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

impl Filter {
    /// The filter as the end of a query over `checkpoints c` and `runs r`, with its parameters.
    fn sql(&self) -> (String, Vec<Value>) {
        let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
        if let Some(split) = self.split {
            conditions.push("r.split = ?");
            parameters.push(Value::from(split.name().to_owned()));
        }
        if self.final_only {
            conditions.push("c.is_final");
        }
        if let Some(accuracy) = self.min_accuracy {
            conditions.push("c.accuracy >= ?");
            parameters.push(Value::from(accuracy));
        }
        if let Some(run) = &self.run {
            conditions.push("r.name = ?");
            parameters.push(Value::from(run.clone()));
        }
        if let Some(prefix) = &self.digest_prefix {
            conditions.push("c.digest BETWEEN ? AND ?");
            let (low, high) = digest_range(prefix);
            parameters.extend([Value::from(low), Value::from(high)]);
        }
        let mut sql = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        sql += " ORDER BY c.id LIMIT ? OFFSET ?";
        let bounded = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        parameters.extend([Value::from(self.limit.map_or(-1, bounded)), Value::from(bounded(self.offset))]);
        (sql, parameters)
    }
}

/// The smallest and the largest digest that begin with the digits; an empty range if they are no such digits.
fn digest_range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let fill = |digit: &str| {
        let digits = format!("{}{}", prefix.to_lowercase(), digit.repeat(64usize.saturating_sub(prefix.len())));
        digits.parse::<Digest>().map(|digest| digest.as_bytes().to_vec())
    };
    match (fill("0"), fill("f")) {
        (Ok(low), Ok(high)) => (low, high),
        _ => (vec![1], vec![0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::{Optimizer, Schedule};

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
        };
        Record {
            digest: Digest::of_bytes(&i.to_le_bytes()),
            run: format!("run-{run:05}"),
            step: Some(step),
            is_final: step == SNAPSHOTS,
            split: if run.is_multiple_of(8) { Split::Test } else { Split::Train },
            recipe: Some(recipe),
            metrics: BTreeMap::from([(ACCURACY.to_owned(), step as f64 / 10.0), ("train-loss".to_owned(), 1.0 / step as f64)]),
            provenance: Provenance { source: "a test".to_owned(), licence: "MIT".to_owned(), parents: vec![], synthetic: false },
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
    }

    /// Listing a run or a digest must not walk through the table.
    #[test]
    fn filters_use_indexes() {
        let dir = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::create(&dir.path().join("catalogue.sqlite")).unwrap();
        let check = |filter: Filter, index: &str| {
            let (conditions, parameters) = filter.sql();
            let sql = format!("EXPLAIN QUERY PLAN SELECT c.id FROM checkpoints c JOIN runs r ON r.id = c.run {conditions}");
            let mut statement = catalogue.db().prepare(&sql).unwrap();
            let rows = statement.query_map(params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
            let plan: Vec<String> = rows.map(Result::unwrap).collect();
            assert!(plan.iter().any(|line| line.contains(index)), "{plan:?}");
        };
        check(Filter { run: Some("r".to_owned()), ..Filter::default() }, "checkpoints_run");
        check(Filter { digest_prefix: Some("ab".to_owned()), ..Filter::default() }, "sqlite_autoindex_checkpoints");
    }

    #[test]
    fn digest_ranges() {
        let (low, high) = digest_range("aB1");
        assert_eq!((low[..3].to_vec(), high[..3].to_vec()), (vec![0xab, 0x10, 0], vec![0xab, 0x1f, 0xff]));
        for bad in ["g", "é", &"0".repeat(65)] {
            let (low, high) = digest_range(bad);
            assert!(low > high, "{bad}");
        }
    }
}
