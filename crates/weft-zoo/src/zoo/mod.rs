//! Zoos: many checkpoints of one architecture on disk, with what is known of each.
//!
//! ```text
//! ZOO/
//!   zoo.toml               format version, name, parent, architecture; written last, never changed
//!   catalogue.sqlite       one row a checkpoint
//!   shards/DIGEST.safetensors   every tensor with a leading axis of checkpoints; named by content, never changed
//! ```
//!
//! An append takes the catalogue's write lock, writes and syncs a shard under a temporary name, renames it, syncs
//! the folder and commits one transaction. A process killed before the commit leaves at most a file that no row
//! names; it is not part of the zoo, and [`Zoo::verify`] lists or removes it. The lock spans all of it, so that a
//! verification beside an append does not take the new shard for such a leftover.

mod append;
mod catalogue;
mod columns;
mod derive;
mod filter;
mod groups;
mod load;
mod merge;
mod schema;
mod shard;
mod split;
mod stats;
mod verify;

pub use append::{Appended, RefusedRecord};
pub(crate) use append::{ReadTensor, not_recordable};
pub use catalogue::Entry;
pub use columns::Columns;
pub use filter::Filter;
pub use load::Purpose;
pub use merge::MergeReport;
pub use split::{SplitOptions, SplitReport};
pub use stats::{Quantiles, SplitStats, Stats};
pub use verify::{Fault, Unreferenced, VerifyReport};

use crate::atomic::{is_temporary, sync_folder, write_atomic};
use crate::format::{ArchitectureFile, architecture_to_toml, read_text, recipe_to_json};
use crate::{Error, Result, checkpoint_metadata, write_checkpoint};
use catalogue::Catalogue;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Architecture, Digest, Record, Split};

/// The version of the folder's layout; the catalogue's tables have their own, and older ones are brought up to date.
const FORMAT_VERSION: i64 = 2;

/// The oldest version that is read. Version 1 differs in the catalogue's tables alone.
const OLDEST_VERSION: i64 = 1;

const MANIFEST: &str = "zoo.toml";
const CATALOGUE: &str = "catalogue.sqlite";
const SHARDS: &str = "shards";

/// An open zoo.
///
/// It can be sent to another thread but not shared between threads; any number of processes may have the same zoo
/// open, one of which writes at a time.
#[derive(Debug)]
pub struct Zoo {
    path: PathBuf,
    name: String,
    parents: Vec<Digest>,
    architecture: Arc<Architecture>,
    catalogue: Catalogue,
}

/// What `zoo.toml` holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Manifest {
    #[expect(dead_code, reason = "it was checked before the rest was believed")]
    format_version: i64,
    name: String,
    parent: Option<String>,
    #[serde(default)]
    parents: Vec<String>,
    architecture: ArchitectureFile,
}

/// The part of `zoo.toml` that every version has.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Versioned {
    format_version: i64,
}

impl Zoo {
    /// Whether there is a zoo in the folder.
    #[must_use]
    pub fn exists(path: &Path) -> bool {
        path.join(MANIFEST).is_file()
    }

    /// Creates an empty zoo; `parent` is the digest of the zoo that it is derived from.
    ///
    /// # Errors
    /// [`Error::Occupied`] if the folder holds anything but the rest of a creation that was killed.
    pub fn create(path: &Path, name: &str, architecture: Arc<Architecture>, parent: Option<Digest>) -> Result<Self> {
        Self::create_from(path, name, architecture, parent.as_slice())
    }

    /// Creates an empty zoo that is derived from any number of others.
    fn create_from(path: &Path, name: &str, architecture: Arc<Architecture>, parents: &[Digest]) -> Result<Self> {
        std::fs::create_dir_all(path).map_err(Error::io("create", path))?;
        clear_unfinished(path)?;
        let shards = path.join(SHARDS);
        std::fs::create_dir(&shards).map_err(Error::io("create", &shards))?;
        let catalogue = Catalogue::create(&path.join(CATALOGUE))?;
        sync_folder(path)?;
        let quote = |text: &str| toml::Value::from(text).to_string();
        let parent_line = match parents {
            [] => String::new(),
            [parent] => format!("parent = \"{parent}\"\n"),
            several => format!("parents = [{}]\n", several.iter().map(|d| format!("\"{d}\"")).collect::<Vec<_>>().join(", ")),
        };
        let text = format!(
            "# Written by weft. Change nothing here: the shards depend on it.\nformat-version = {FORMAT_VERSION}\nname = {}\n{parent_line}\n\
             [architecture]\n{}",
            quote(name),
            architecture_to_toml(&architecture)
        );
        write_atomic(&path.join(MANIFEST), text.as_bytes())?;
        Ok(Self { path: path.to_owned(), name: name.to_owned(), parents: parents.to_vec(), architecture, catalogue })
    }

    /// Opens a zoo.
    ///
    /// # Errors
    /// [`Error::NotAZoo`] says what is missing, [`Error::Version`] if another version wrote it, [`Error::Toml`] or
    /// [`Error::Catalogue`] if it is damaged.
    pub fn open(path: &Path) -> Result<Self> {
        let manifest = path.join(MANIFEST);
        for missing in [MANIFEST, CATALOGUE] {
            if !path.join(missing).is_file() {
                return Err(Error::NotAZoo { path: path.to_owned(), missing });
            }
        }
        let text = read_text(&manifest)?;
        let fail = |e: toml::de::Error| Error::Toml { path: manifest.clone(), reason: e.to_string().trim_end().to_owned() };
        let got = toml::from_str::<Versioned>(&text).map_err(fail)?.format_version;
        if !(OLDEST_VERSION..=FORMAT_VERSION).contains(&got) {
            return Err(Error::Version { path: manifest, got, expected: FORMAT_VERSION });
        }
        let parsed: Manifest = toml::from_str(&text).map_err(fail)?;
        let parents = parsed.parent.iter().chain(&parsed.parents).map(|digest| digest.parse()).collect::<Result<_, _>>();
        let parents = parents.map_err(|source| Error::Domain { origin: format!("`{}`, `parent`", manifest.display()), source })?;
        let architecture = Arc::new(parsed.architecture.check(&manifest)?);
        let catalogue = Catalogue::open(&path.join(CATALOGUE))?;
        Ok(Self { path: path.to_owned(), name: parsed.name, parents, architecture, catalogue })
    }

    /// The zoo's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The zoo's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest of the zoo that this one is derived from; the first, if there are several.
    #[must_use]
    pub fn parent(&self) -> Option<Digest> {
        self.parents.first().copied()
    }

    /// The digests of all zoos that this one is derived from.
    #[must_use]
    pub fn parents(&self) -> &[Digest] {
        &self.parents
    }

    /// The architecture of every network in the zoo.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The number of checkpoints that pass a filter.
    ///
    /// # Errors
    /// [`Error::Catalogue`].
    pub fn count(&self, filter: &Filter) -> Result<usize> {
        self.catalogue.count(filter)
    }

    /// The checkpoints that pass a filter, in the order in which they were appended.
    ///
    /// # Errors
    /// [`Error::Catalogue`], or [`Error::Row`] for a row that cannot be understood.
    pub fn records(&self, filter: &Filter) -> Result<Vec<Entry>> {
        self.catalogue.records(filter)
    }

    /// The names of the complete runs: those whose final checkpoint is in the zoo.
    ///
    /// # Errors
    /// [`Error::Catalogue`].
    pub fn runs(&self) -> Result<BTreeSet<String>> {
        let runs = self.run_states()?;
        Ok(runs.into_iter().filter(|(_, state)| state.complete).map(|(name, _)| name).collect())
    }

    /// Every run, with its split.
    pub(crate) fn run_states(&self) -> Result<BTreeMap<String, RunState>> {
        self.catalogue.runs()
    }

    /// Finds fields by their names: columns, labels, metrics and metadata.
    ///
    /// # Errors
    /// [`Error::Query`] lists the names that there are; [`Error::Catalogue`].
    pub fn fields<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<crate::Field>> {
        let known = self.catalogue.names()?;
        names.into_iter().map(|name| known.field(&crate::Name { text: name.to_owned(), column: 1 })).collect()
    }

    /// Whether a network is in the zoo, quarantined or not.
    ///
    /// # Errors
    /// [`Error::Catalogue`].
    pub fn contains(&self, digest: &Digest) -> Result<bool> {
        self.catalogue.contains(digest)
    }

    /// A digest of the architecture and of all records in their order, the quarantined ones aside.
    ///
    /// Left out are what two runs of one command may differ in: where checkpoints lie (shards, sources), what file they
    /// came in (its SHA-256, format and metadata), and timings (metrics whose names end in `-secs`); and the deviation
    /// that proves a canonical form, which changes nothing that is read.
    ///
    /// # Errors
    /// [`Error::Catalogue`] or [`Error::Row`].
    pub fn digest(&self) -> Result<Digest> {
        let mut parts = vec![Digest::of_bytes(architecture_to_toml(&self.architecture).as_bytes())];
        parts.extend(self.records(&Filter::default())?.iter().map(|entry| digest_of(entry.record())));
        Ok(Digest::of_parts(parts.iter().map(|digest| digest.as_bytes().as_slice())))
    }

    /// Writes one checkpoint as a safetensors file of its own, with what the catalogue knows of it.
    ///
    /// # Errors
    /// Those of [`Zoo::load`] and [`write_checkpoint`].
    pub fn export(&self, entry: &Entry, path: &Path) -> Result<()> {
        let network = self.load(std::slice::from_ref(entry), Purpose::Evaluate)?;
        write_checkpoint(path, &self.architecture, network.row(0), &checkpoint_metadata(&self.architecture, entry.record()))
    }

    /// The path of a shard.
    fn shard_path(&self, digest: &Digest) -> PathBuf {
        self.shards().join(shard::file_name(digest))
    }

    /// The folder of the shards.
    fn shards(&self) -> PathBuf {
        self.path.join(SHARDS)
    }
}

/// What a catalogue knows of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunState {
    pub(crate) split: Split,
    pub(crate) complete: bool,
}

fn digest_of(record: &Record) -> Digest {
    let metrics = record.metrics.iter().filter(|(name, _)| !name.ends_with("-secs"));
    // By their bits: text would have to be exact, and would say no more.
    let metrics: Vec<(&String, u64)> = metrics.map(|(name, value)| (name, value.to_bits())).collect();
    let (step, is_final, provenance) = (record.step, record.is_final, &record.provenance);
    let split = record.split.map_or("none", Split::name);
    let known = (split, step, is_final, provenance.synthetic, &provenance.parents, metrics);
    let recipe = record.recipe.as_ref().map(recipe_to_json).unwrap_or_default();
    let mut text = format!("{} {known:?} {recipe}", record.digest);
    // A record that has none is digested as it was before there were labels.
    if !record.labels.is_empty() {
        let _ = write!(text, " {:?}", record.labels);
    }
    Digest::of_parts([text.as_bytes(), record.run.as_bytes(), record.provenance.licence.as_bytes()])
}

/// Removes what a killed creation left: a folder is a zoo only once it has its manifest, which is written last.
fn clear_unfinished(path: &Path) -> Result<()> {
    let occupied = |reason: String| Err(Error::Occupied { path: path.to_owned(), reason });
    if Zoo::exists(path) {
        return occupied("there is a zoo already".to_owned());
    }
    let mut leftovers = Vec::new();
    for item in std::fs::read_dir(path).map_err(Error::io("list", path))? {
        let item = item.map_err(Error::io("list", path))?;
        let name = item.file_name().to_string_lossy().into_owned();
        if name != SHARDS && !name.starts_with(CATALOGUE) && !is_temporary(&name) {
            return occupied(format!("`{name}` is in the way"));
        }
        leftovers.push(item.path());
    }
    for leftover in leftovers {
        // `remove_dir` takes only an empty folder: shards without a manifest are not ours to delete.
        let removed = if leftover.is_dir() { std::fs::remove_dir(&leftover) } else { std::fs::remove_file(&leftover) };
        removed.map_err(Error::io("remove", &leftover))?;
    }
    Ok(())
}
