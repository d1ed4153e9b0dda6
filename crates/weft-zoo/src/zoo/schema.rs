//! The catalogue's tables, and how those of older versions become them.

use super::Zoo;
use super::catalogue::Catalogue;
use crate::{Error, Result};
use rusqlite::{Connection, Transaction};
use std::collections::BTreeSet;

/// The version of the catalogue's tables.
pub(super) const CATALOGUE_VERSION: i64 = 2;

/// A run without a split has nothing but quarantined checkpoints; those need no weights, all others do.
pub(super) const SCHEMA: &str = "
CREATE TABLE shards (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  num_rows INTEGER NOT NULL
) STRICT;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  split TEXT CHECK (split IN ('train', 'test'))
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
  shard INTEGER REFERENCES shards (id),
  shard_row INTEGER,
  file_sha256 BLOB,
  format TEXT,
  metadata TEXT NOT NULL DEFAULT '{}',
  quarantine TEXT,
  max_deviation REAL,
  UNIQUE (shard, shard_row),
  CHECK ((shard IS NULL) = (shard_row IS NULL)),
  CHECK (shard IS NOT NULL OR quarantine IS NOT NULL),
  CHECK (NOT is_final OR quarantine IS NULL)
) STRICT;
CREATE INDEX checkpoints_run ON checkpoints (run, is_final);
CREATE INDEX checkpoints_accuracy ON checkpoints (accuracy);
CREATE INDEX checkpoints_file ON checkpoints (file_sha256) WHERE file_sha256 IS NOT NULL;
CREATE UNIQUE INDEX checkpoints_final ON checkpoints (run) WHERE is_final;
CREATE TABLE labels (
  checkpoint INTEGER NOT NULL REFERENCES checkpoints (id),
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (checkpoint, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX labels_value ON labels (key, value);
CREATE TABLE names (
  kind TEXT NOT NULL CHECK (kind IN ('label', 'metric', 'metadata')),
  name TEXT NOT NULL,
  PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE files (
  sha256 BLOB PRIMARY KEY,
  source TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

/// What version 1 called its tables, out of the way of those of version 2; its indexes go with its tables.
const SET_ASIDE: &str = "
DROP INDEX checkpoints_run;
DROP INDEX checkpoints_accuracy;
DROP INDEX checkpoints_final;
ALTER TABLE shards RENAME TO old_shards;
ALTER TABLE runs RENAME TO old_runs;
ALTER TABLE recipes RENAME TO old_recipes;
ALTER TABLE checkpoints RENAME TO old_checkpoints;
";

const COPY: &str = "
INSERT INTO shards (id, digest, num_rows) SELECT id, digest, num_rows FROM old_shards;
INSERT INTO runs (id, name, split) SELECT id, name, split FROM old_runs;
INSERT INTO recipes (id, json) SELECT id, json FROM old_recipes;
INSERT INTO checkpoints
  (id, digest, run, step, is_final, recipe, accuracy, metrics, source, licence, parents, synthetic, shard, shard_row)
  SELECT id, digest, run, step, is_final, recipe, accuracy, metrics, source, licence, parents, synthetic, shard, shard_row
  FROM old_checkpoints;
INSERT INTO names (kind, name) SELECT DISTINCT 'metric', m.key FROM checkpoints c, json_each(c.metrics) m;
DROP TABLE old_checkpoints;
DROP TABLE old_runs;
DROP TABLE old_recipes;
DROP TABLE old_shards;
";

impl Catalogue {
    /// Brings an older catalogue to this version in one transaction: it is changed as a whole or not at all.
    ///
    /// Whoever comes second, of two processes that open the same old zoo, finds the work done.
    pub(super) fn migrate(&self) -> Result<()> {
        let expected = CATALOGUE_VERSION;
        if self.version()? == expected {
            return Ok(());
        }
        // Tables that refer to each other are replaced; SQLite heeds this setting outside of a transaction alone.
        self.db().execute_batch("PRAGMA foreign_keys = OFF").map_err(self.fail())?;
        let result = self.lock().and_then(|transaction| match self.version()? {
            got if got == expected => Ok(()),
            1 => self.migrate_1(transaction),
            got => Err(Error::Version { path: self.path().to_owned(), got, expected }),
        });
        self.db().execute_batch("PRAGMA foreign_keys = ON").map_err(self.fail())?;
        result
    }

    fn version(&self) -> Result<i64> {
        self.db().query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(self.fail())
    }

    fn migrate_1(&self, transaction: Transaction<'_>) -> Result<()> {
        let batch = format!("{SET_ASIDE}{SCHEMA}{COPY} PRAGMA user_version = {CATALOGUE_VERSION};");
        transaction.execute_batch(&batch).map_err(self.fail())?;
        let broken = transaction.prepare("PRAGMA foreign_key_check").and_then(|mut check| check.exists([]));
        if broken.map_err(self.fail())? {
            let reason = "a reference of the old catalogue leads nowhere; nothing was changed".to_owned();
            return Err(Error::Row { path: self.path().to_owned(), row: 0, reason });
        }
        transaction.commit().map_err(self.fail())
    }
}

/// Remembers the names of labels, metrics and metadata, so that a filter knows them without a walk through all rows.
#[derive(Debug, Default)]
pub(super) struct NewNames(BTreeSet<(&'static str, String)>);

impl NewNames {
    pub(super) fn add<'a>(&mut self, kind: &'static str, names: impl Iterator<Item = &'a String>) {
        for name in names {
            // Most records repeat what those before had.
            if !self.0.contains(&(kind, name.clone())) {
                self.0.insert((kind, name.clone()));
            }
        }
    }

    pub(super) fn store(&self, db: &Connection) -> rusqlite::Result<()> {
        let mut add = db.prepare_cached("INSERT INTO names (kind, name) VALUES (?1, ?2) ON CONFLICT DO NOTHING")?;
        self.0.iter().try_for_each(|(kind, name)| add.execute((kind, name)).map(drop))
    }
}

impl Zoo {
    /// Whether a file was taken in before, whole; then the source that it was recorded under.
    ///
    /// # Errors
    /// [`Error::Catalogue`].
    pub fn source_of_file(&self, sha256: &weft_core::Sha256) -> Result<Option<String>> {
        use rusqlite::OptionalExtension as _;
        let catalogue = &self.catalogue;
        let mut find = catalogue.db().prepare_cached("SELECT source FROM files WHERE sha256 = ?1").map_err(catalogue.fail())?;
        find.query_row([sha256.0], |row| row.get(0)).optional().map_err(catalogue.fail())
    }

    /// The files that were taken in whole.
    pub(crate) fn files(&self) -> Result<Vec<(weft_core::Sha256, String)>> {
        let catalogue = &self.catalogue;
        let mut find = catalogue.db().prepare_cached("SELECT sha256, source FROM files").map_err(catalogue.fail())?;
        let rows = find.query_map([], |row| Ok((weft_core::Sha256(row.get(0)?), row.get(1)?)));
        rows.and_then(Iterator::collect).map_err(catalogue.fail())
    }

    /// Remembers files of which nothing more is to be read: every network of theirs is in the catalogue.
    pub(crate) fn remember_files(&mut self, files: &[(weft_core::Sha256, String)]) -> Result<()> {
        let catalogue = &self.catalogue;
        let transaction = catalogue.lock()?;
        let sql = "INSERT INTO files (sha256, source) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        for (sha256, source) in files {
            let add = transaction.prepare_cached(sql).and_then(|mut add| add.execute((sha256.0, source)));
            add.map_err(catalogue.fail())?;
        }
        transaction.commit().map_err(catalogue.fail())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Expr, Filter, Purpose, Unreferenced};
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;
    use weft_core::{Activation, Architecture, Monitor, Population, Provenance, Record, Seed, Split};

    /// The tables of version 1, as they were.
    const VERSION_1: &str = "
CREATE TABLE shards (id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, num_rows INTEGER NOT NULL) STRICT;
CREATE TABLE runs (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, split TEXT NOT NULL CHECK (split IN ('train', 'test'))
) STRICT;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, json TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE checkpoints (
  id INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, run INTEGER NOT NULL REFERENCES runs (id), step INTEGER,
  is_final INTEGER NOT NULL, recipe INTEGER REFERENCES recipes (id), accuracy REAL, metrics TEXT NOT NULL, source TEXT NOT NULL,
  licence TEXT NOT NULL, parents TEXT NOT NULL, synthetic INTEGER NOT NULL, shard INTEGER NOT NULL REFERENCES shards (id),
  shard_row INTEGER NOT NULL, UNIQUE (shard, shard_row)
) STRICT;
CREATE INDEX checkpoints_run ON checkpoints (run, is_final);
CREATE INDEX checkpoints_accuracy ON checkpoints (accuracy);
CREATE UNIQUE INDEX checkpoints_final ON checkpoints (run) WHERE is_final;
";

    /// Makes the zoo in a folder one of version 1.
    fn downgrade(zoo: &Path) {
        let (new, old) = (zoo.join("catalogue.sqlite"), zoo.join("old.sqlite"));
        let db = Connection::open(&old).unwrap();
        db.execute_batch(VERSION_1).unwrap();
        db.execute("ATTACH ?1 AS new", [new.to_str().unwrap()]).unwrap();
        for table in ["shards", "runs", "recipes"] {
            db.execute_batch(&format!("INSERT INTO {table} SELECT * FROM new.{table}")).unwrap();
        }
        let columns =
            "id, digest, run, step, is_final, recipe, accuracy, metrics, source, licence, parents, synthetic, shard, shard_row";
        db.execute_batch(&format!("INSERT INTO checkpoints SELECT {columns} FROM new.checkpoints; PRAGMA user_version = 1"))
            .unwrap();
        drop(db);
        std::fs::rename(old, new).unwrap();
        let manifest = zoo.join("zoo.toml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(manifest, text.replace("format-version = 2", "format-version = 1")).unwrap();
    }

    /// A zoo of six runs with recipes, steps, metrics and parents.
    fn zoo(path: &Path) -> Zoo {
        let architecture = Arc::new(Architecture::mlp("tiny", &[4, 3, 2], Activation::Relu).unwrap());
        let mut zoo = Zoo::create(path, "old", architecture.clone(), None).unwrap();
        for block in 0..3 {
            let data = Seed::new(block).normals(4 * architecture.num_parameters());
            let population = Population::new(architecture.clone(), data).unwrap();
            let record = |i: usize| Record {
                step: (i % 2 == 1).then_some(10),
                is_final: i % 2 == 1,
                split: Some(if block == 1 { Split::Test } else { Split::Train }),
                metrics: BTreeMap::from([("validation-accuracy".to_owned(), 0.1 * i as f64), ("loss-\"x\"".to_owned(), 1.0 / 3.0)]),
                provenance: Provenance {
                    source: "trained".to_owned(),
                    licence: "MIT".to_owned(),
                    parents: vec![population.digest(0)],
                    synthetic: i == 2,
                    ..Provenance::default()
                },
                ..Record::new(population.digest(i), format!("run-{block}-{}", i / 2))
            };
            let _ = zoo.append(&population, &(0..4).map(record).collect::<Vec<_>>()).unwrap();
        }
        zoo
    }

    #[test]
    fn a_zoo_of_version_1_becomes_one_of_version_2_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (records, digest, weights) = {
            let zoo = zoo(dir.path());
            let entries = zoo.records(&Filter::default()).unwrap();
            (entries.clone(), zoo.digest().unwrap(), zoo.load(&entries, Purpose::Evaluate).unwrap())
        };
        downgrade(dir.path());
        let version = |path: &Path| {
            let db = Connection::open(path.join("catalogue.sqlite")).unwrap();
            db.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(version(dir.path()), 1);
        // Two processes open it at once; one of them does the work.
        let digests = std::thread::scope(|scope| {
            let open = || Zoo::open(dir.path()).and_then(|zoo| zoo.digest()).unwrap();
            let workers = [scope.spawn(open), scope.spawn(open)];
            workers.map(|worker| worker.join().unwrap())
        });
        assert_eq!((digests, version(dir.path())), ([digest; 2], CATALOGUE_VERSION));
        let mut zoo = Zoo::open(dir.path()).unwrap();
        assert_eq!(zoo.records(&Filter::default()).unwrap(), records);
        assert_eq!(zoo.load(&records, Purpose::Evaluate).unwrap(), weights);
        assert_eq!(zoo.digest().unwrap(), digest);
        assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
        let condition = Some(Expr::parse("`loss-\"x\"` < 0.34 and accuracy > 0.25").unwrap());
        assert_eq!(zoo.count(&Filter { condition, ..Filter::default() }).unwrap(), 3);

        // The tables are those of a new zoo, so it can be written on.
        let tables = |path: &Path| -> Vec<(String, Option<String>)> {
            let db = Connection::open(path.join("catalogue.sqlite")).unwrap();
            let mut read = db.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name").unwrap();
            read.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        let fresh = tempfile::tempdir().unwrap();
        drop(self::zoo(fresh.path()));
        assert_eq!(tables(dir.path()), tables(fresh.path()));
        let bad = Record { quarantine: Some("a test".to_owned()), ..Record::new(weft_core::Digest::of_bytes(b"nan"), "run-9") };
        assert_eq!(zoo.quarantine(&[bad]).unwrap(), 1);
    }

    #[test]
    fn a_migration_that_fails_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(zoo(dir.path()));
        downgrade(dir.path());
        let catalogue = dir.path().join("catalogue.sqlite");
        Connection::open(&catalogue).unwrap().execute_batch("PRAGMA foreign_keys = OFF; DELETE FROM shards WHERE id = 2").unwrap();
        let before = std::fs::read(&catalogue).unwrap();
        let error = Zoo::open(dir.path()).unwrap_err();
        assert!(error.to_string().contains("leads nowhere"), "{error}");
        assert_eq!(std::fs::read(&catalogue).unwrap(), before);
        Connection::open(&catalogue).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
        assert!(matches!(Zoo::open(dir.path()), Err(Error::Version { got: 7, expected: 2, .. })));
    }
}
