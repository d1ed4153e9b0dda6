//! Single networks as safetensors files.
//!
//! Tensor names and layout are `PyTorch`'s (`layers.0.weight`, out × in), so a file that is written here loads
//! there and the other way round. What is known of the network travels as text metadata.

use crate::atomic::{AtomicFile, parent_of};
use crate::format::{recipe_from_json, recipe_to_json};
use crate::header::Header;
use crate::import::BINDING;
use crate::mapped::{Mapped, read_header};
use crate::tensors::{Metadata, encode_header, first_non_finite, little_endian, write_tensors};
use crate::{Error, Result, TensorFault};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use weft_core::{Architecture, Digest, Record};

/// Reads the weights of one network as a flat row in the architecture's order.
///
/// # Errors
/// [`Error::Tensor`] names the first tensor that is missing, unknown, misshapen or not finite; [`Error::Header`]
/// and [`Error::Io`] for a file that cannot be read at all.
pub fn read_checkpoint(path: &Path, architecture: &Architecture) -> Result<Vec<f32>> {
    let file = Mapped::open(path)?;
    let (row, non_finite) = read_weights(&file, architecture)?;
    match non_finite {
        None => Ok(row),
        Some((tensor, fault)) => Err(file.fault(&tensor, fault)),
    }
}

/// A tensor with what is wrong with it.
pub(crate) type Fault = (String, TensorFault);

/// Reads the weights of one network whatever they are, and names the first tensor with one that is not finite.
pub(crate) fn read_weights(file: &Mapped, architecture: &Architecture) -> Result<(Vec<f32>, Option<Fault>)> {
    let header = file.header();
    fits(header, architecture).map_err(|(tensor, fault)| file.fault(&tensor, fault))?;
    let (mut row, mut non_finite) = (vec![0.0; architecture.num_parameters()], None);
    for spec in architecture.tensors() {
        let (info, values) = (&header.tensors[&spec.name], &mut row[spec.range()]);
        info.dtype.convert(file.bytes(info), values);
        if let (None, Some(index)) = (&non_finite, first_non_finite(values)) {
            non_finite = Some((spec.name.clone(), TensorFault::NonFinite { index }));
        }
    }
    Ok((row, non_finite))
}

/// Checks that a file has the architecture's tensors, in their shapes, and no others.
pub(crate) fn fits(header: &Header, architecture: &Architecture) -> Result<(), Fault> {
    for spec in architecture.tensors() {
        let info = header.tensors.get(&spec.name).ok_or_else(|| (spec.name.clone(), TensorFault::Missing))?;
        info.check_shape(&spec.shape).and_then(|()| info.check_float()).map_err(|fault| (spec.name.clone(), fault))?;
    }
    let known: BTreeSet<&str> = architecture.tensors().iter().map(|spec| spec.name.as_str()).collect();
    match header.tensors.keys().find(|name| !known.contains(name.as_str())) {
        Some(extra) => Err((extra.clone(), TensorFault::Extra { architecture: architecture.name().to_owned() })),
        None => Ok(()),
    }
}

/// Writes one network, atomically.
///
/// # Errors
/// [`Error::Io`].
///
/// # Panics
/// If `row` has not as many values as the architecture has weights.
pub fn write_checkpoint(path: &Path, architecture: &Architecture, row: &[f32], metadata: &Metadata) -> Result<()> {
    assert_eq!(row.len(), architecture.num_parameters(), "weights of another architecture");
    let tensors: Vec<_> = architecture.tensors().iter().map(|t| (t.name.clone(), t.shape.clone(), &row[t.range()])).collect();
    write_tensors(path, &tensors, metadata)
}

/// Writes one network whose weights come piece by piece, atomically: without [`CheckpointWriter::commit`] there is no file.
pub struct CheckpointWriter {
    path: PathBuf,
    file: AtomicFile,
    buffer: Vec<u8>,
    /// Weights that are still to come.
    missing: usize,
}

impl CheckpointWriter {
    /// Writes what stands before the weights.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn begin(path: &Path, architecture: &Architecture, metadata: &Metadata) -> Result<Self> {
        let declared: Vec<_> = architecture.tensors().iter().map(|t| (t.name.as_str(), t.shape.clone())).collect();
        let mut file = AtomicFile::create_in(parent_of(path))?;
        file.write(&encode_header(&declared, metadata))?;
        Ok(Self { path: path.to_owned(), file, buffer: Vec::new(), missing: architecture.num_parameters() })
    }

    /// Writes the next weights, in the order of a row.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If there are more than the architecture has.
    pub fn write(&mut self, values: &[f32]) -> Result<()> {
        assert!(values.len() <= self.missing, "weights of another architecture");
        self.missing -= values.len();
        values.chunks(1 << 16).try_for_each(|piece| self.file.write(little_endian(piece, &mut self.buffer)))
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If weights are missing.
    pub fn commit(self) -> Result<()> {
        assert_eq!(self.missing, 0, "weights of another architecture");
        self.file.commit(&self.path)
    }
}

/// Reads a file's text entries alone.
///
/// # Errors
/// [`Error::Io`] or [`Error::Header`].
pub fn read_metadata(path: &Path) -> Result<Metadata> {
    Ok(read_header(path)?.metadata)
}

/// What is known of a checkpoint, as text entries that [`crate::import`] reads back.
///
/// `synthetic`, `licence` and `parents` are always there. The split is not: it belongs to a zoo.
#[must_use]
pub fn checkpoint_metadata(architecture: &Architecture, record: &Record) -> Metadata {
    let parents: Vec<String> = record.provenance.parents.iter().map(ToString::to_string).collect();
    let mut metadata = BTreeMap::from([
        ("architecture".to_owned(), architecture.name().to_owned()),
        ("digest".to_owned(), record.digest.to_string()),
        // Readers of other libraries look here for the framework whose layout it is.
        ("format".to_owned(), "pt".to_owned()),
        ("licence".to_owned(), record.provenance.licence.clone()),
        ("parents".to_owned(), parents.join(" ")),
        ("run".to_owned(), record.run.clone()),
        ("source".to_owned(), record.provenance.source.clone()),
        ("synthetic".to_owned(), record.provenance.synthetic.to_string()),
    ]);
    if let Some(step) = record.step {
        metadata.insert("step".to_owned(), step.to_string());
    }
    if let Some(recipe) = &record.recipe {
        metadata.insert("recipe".to_owned(), recipe_to_json(recipe));
    }
    for (name, value) in &record.metrics {
        metadata.insert(format!("{METRIC}{name}"), value.to_string());
    }
    for (key, value) in &record.labels {
        metadata.insert(format!("{LABEL}{key}"), value.clone());
    }
    // Free entries never replace those above.
    for (key, value) in &record.provenance.metadata {
        metadata.entry(key.clone()).or_insert_with(|| value.clone());
    }
    metadata
}

/// Before the name of a metric in metadata.
const METRIC: &str = "metric.";

/// Before the key of a label in metadata.
const LABEL: &str = "label.";

/// Entries that [`checkpoint_metadata`] writes of what a record has fields for.
const OWN_KEYS: [&str; 11] =
    ["architecture", "digest", "format", "licence", "license", "parents", "run", "source", "synthetic", "step", "recipe"];

/// The longest text that has a field of its own, in bytes.
const MAX_TEXT: usize = 1_000;

/// The most metrics, labels or parents of one checkpoint.
const MAX_ENTRIES: usize = 1_000;

/// The most bytes of free entries that are kept of one checkpoint.
const MAX_FREE_BYTES: usize = 16 << 10;

/// The most bytes of its binding, for which those of other entries leave no room; that of a network of 1,000 tensors has about 10,000.
const MAX_BINDING_BYTES: usize = 1 << 20;

/// The entry that names those which were left out because they are too long.
const LEFT_OUT: &str = "weft.left-out";

/// What [`checkpoint_metadata`] wrote, or another program in the same words.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Described {
    pub(crate) run: Option<String>,
    pub(crate) step: Option<u64>,
    pub(crate) licence: Option<String>,
    pub(crate) synthetic: bool,
    pub(crate) parents: Vec<Digest>,
    pub(crate) recipe: Option<weft_core::Recipe>,
    pub(crate) metrics: BTreeMap<String, f64>,
    pub(crate) labels: BTreeMap<String, String>,
    /// What a record has no place for.
    pub(crate) free: Metadata,
}

impl Described {
    /// Reads the entries that a record has places for, and keeps the others as far as they are not too long.
    pub(crate) fn parse(metadata: &Metadata, path: &Path) -> Result<Self> {
        let get = |key: &str| metadata.get(key).filter(|text| !text.is_empty());
        let fail = |key: &str, got: &str, expected| Error::Metadata {
            path: path.to_owned(),
            key: key.to_owned(),
            got: got.to_owned(),
            expected,
        };
        let mut described = Self { run: get("run").cloned(), ..Self::default() };
        described.licence = get("licence").or_else(|| get("license")).cloned();
        if let Some(text) = get("step") {
            described.step = Some(text.parse().map_err(|_| fail("step", text, "a number of steps"))?);
        }
        if let Some(text) = get("synthetic") {
            described.synthetic = text.parse().map_err(|_| fail("synthetic", text, "`true` or `false`"))?;
        }
        if let Some(text) = get("parents") {
            let parents = text.split_whitespace().map(str::parse).collect::<Result<_, _>>();
            described.parents = parents.map_err(|_| fail("parents", text, "digests"))?;
        }
        if let Some(text) = get("recipe") {
            described.recipe = Some(recipe_from_json(text)?);
        }
        for (key, text) in metadata {
            if let Some(name) = key.strip_prefix(METRIC) {
                let value = text.parse().ok().filter(|v: &f64| v.is_finite());
                described.metrics.insert(name.to_owned(), value.ok_or_else(|| fail(key, text, "a finite number"))?);
            } else if let Some(name) = key.strip_prefix(LABEL).filter(|name| !name.is_empty()) {
                described.labels.insert(name.to_owned(), text.clone());
            }
        }
        described.check_sizes(path)?;
        described.keep_free(metadata);
        Ok(described)
    }

    /// Refuses what is longer than anyone would write: all of it goes into the catalogue.
    fn check_sizes(&self, path: &Path) -> Result<()> {
        let texts = [("run", self.run.as_deref()), ("licence", self.licence.as_deref())];
        let texts = texts.into_iter().filter_map(|(key, text)| Some((key, text?)));
        let names = self.metrics.keys().map(|name| ("metric.…", name.as_str()));
        let labels = self.labels.iter().flat_map(|(key, value)| [("label.…", key.as_str()), ("label.…", value)]);
        let counts = [("metric.…", self.metrics.len()), ("label.…", self.labels.len()), ("parents", self.parents.len())];
        let long =
            texts.chain(names).chain(labels).find(|(_, text)| text.len() > MAX_TEXT).map(|(key, text)| (key, text.len(), "bytes"));
        let many = || counts.into_iter().find(|(_, count)| *count > MAX_ENTRIES).map(|(key, count)| (key, count, "entries"));
        let Some((key, got, unit)) = long.or_else(many) else { return Ok(()) };
        Err(Error::Metadata { path: path.to_owned(), key: key.to_owned(), got: format!("{got} {unit}"), expected: "at most 1,000" })
    }

    /// Keeps the entries without a place of their own, shortest first, and names those for which there is no room.
    fn keep_free(&mut self, metadata: &Metadata) {
        let is_free = |key: &str| !OWN_KEYS.contains(&key) && !key.starts_with(METRIC) && !key.starts_with(LABEL);
        let mut free: Vec<_> = metadata.iter().filter(|(key, _)| is_free(key)).collect();
        free.sort_by_key(|(key, value)| key.len() + value.len());
        let (mut room, mut left_out) = (MAX_FREE_BYTES, Vec::new());
        for (key, value) in free {
            if key == BINDING && value.len() <= MAX_BINDING_BYTES {
                self.free.insert(key.clone(), value.clone());
                continue;
            }
            match room.checked_sub(key.len() + value.len()) {
                Some(rest) => {
                    room = rest;
                    self.free.insert(key.clone(), value.clone());
                }
                None => left_out.push(key.chars().take(100).collect::<String>()),
            }
        }
        if !left_out.is_empty() {
            let more = if left_out.len() > 20 { " …" } else { "" };
            left_out.truncate(20);
            self.free.insert(LEFT_OUT.to_owned(), left_out.join(" ") + more);
        }
    }
}
