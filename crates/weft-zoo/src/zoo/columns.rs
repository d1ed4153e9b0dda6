//! Networks that are too large to be held, read a block of weights at a time.

use super::catalogue::Entry;
use super::load::usable_places;
use super::shard::Shard;
use super::{Purpose, Zoo};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Architecture, Digest, WeightsHasher};

/// Values that are read at a time to be digested.
const PIECE: usize = 1 << 18;

/// The same weights of many networks, read on demand.
///
/// Shards are read, not mapped: what was read leaves no page behind that would count as this process's memory.
#[derive(Debug)]
pub struct Columns {
    architecture: Arc<Architecture>,
    shards: Vec<OpenShard>,
    /// Shard and row of each network.
    places: Vec<(usize, usize)>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct OpenShard {
    path: PathBuf,
    file: File,
    /// Where the values of each of the architecture's tensors begin.
    starts: Vec<u64>,
}

impl Zoo {
    /// Opens the weights of entries to be read in blocks, and checks each network against its digest.
    ///
    /// # Errors
    /// As [`Zoo::load`].
    pub fn columns(&self, entries: &[Entry], purpose: Purpose) -> Result<Columns> {
        let places = usable_places(entries, purpose)?;
        let mut number: BTreeMap<Digest, usize> = BTreeMap::new();
        let mut columns =
            Columns { architecture: self.architecture.clone(), shards: Vec::new(), places: Vec::new(), buffer: Vec::new() };
        for place in places {
            let shard = if let Some(&shard) = number.get(&place.shard) {
                shard
            } else {
                columns.shards.push(OpenShard::open(&self.shard_path(&place.shard), &self.architecture)?);
                number.insert(place.shard, columns.shards.len() - 1);
                columns.shards.len() - 1
            };
            columns.places.push((shard, place.row));
        }
        for (i, entry) in entries.iter().enumerate() {
            columns.check(i, &entry.record().digest)?;
        }
        Ok(columns)
    }
}

impl OpenShard {
    fn open(path: &Path, architecture: &Architecture) -> Result<Self> {
        let starts = Shard::open(path, architecture)?.starts();
        let file = File::open(path).map_err(Error::io("open", path))?;
        Ok(Self { path: path.to_owned(), file, starts })
    }
}

impl Columns {
    /// The number of networks, `n`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The architecture of all networks.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// Reads the weights at `columns` of every network.
    ///
    /// # Shapes
    /// `out` is `[n, columns]`, row-major; columns are counted as [`Architecture::tensors`] lays a row out.
    ///
    /// # Errors
    /// [`Error::Io`] if a shard cannot be read.
    ///
    /// # Panics
    /// If `out` has another length, or a column is beyond the architecture's weights.
    pub fn read(&mut self, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        assert!(columns.end <= self.architecture.num_parameters(), "a column beyond the last weight");
        assert_eq!(out.len(), self.len() * columns.len(), "room for every network's weights");
        if columns.is_empty() {
            return Ok(());
        }
        for (i, row) in out.chunks_exact_mut(columns.len()).enumerate() {
            self.read_row(i, columns.clone(), row)?;
        }
        Ok(())
    }

    /// Reads weights of one network.
    fn read_row(&mut self, i: usize, columns: Range<usize>, out: &mut [f32]) -> Result<()> {
        let (shard, row) = self.places[i];
        let OpenShard { path, file, starts } = &mut self.shards[shard];
        let tensors = self.architecture.tensors();
        let first = tensors.partition_point(|tensor| tensor.range().end <= columns.start);
        for (tensor, start) in tensors.iter().zip(starts).skip(first) {
            let range = tensor.range();
            let part = range.start.max(columns.start)..range.end.min(columns.end);
            if part.is_empty() {
                break;
            }
            let value = row * tensor.num_values() + (part.start - range.start);
            self.buffer.resize(4 * part.len(), 0);
            let read = file.seek(SeekFrom::Start(*start + 4 * value as u64)).and_then(|_| file.read_exact(&mut self.buffer));
            read.map_err(Error::io("read", path))?;
            let out = &mut out[part.start - columns.start..part.end - columns.start];
            for (value, bytes) in out.iter_mut().zip(self.buffer.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
        }
        Ok(())
    }

    /// Compares one network's digest.
    fn check(&mut self, i: usize, expected: &Digest) -> Result<()> {
        let architecture = self.architecture.clone();
        let (mut hasher, mut piece) = (WeightsHasher::new(), Vec::new());
        for tensor in WeightsHasher::order(&architecture) {
            let spec = &architecture.tensors()[tensor];
            hasher.tensor(spec);
            for start in spec.range().step_by(PIECE) {
                let columns = start..(start + PIECE).min(spec.range().end);
                piece.resize(columns.len(), 0.0);
                self.read_row(i, columns, &mut piece)?;
                hasher.values(&piece);
            }
        }
        let got = hasher.finish();
        if got == *expected {
            return Ok(());
        }
        let (shard, row) = self.places[i];
        Err(Error::Corrupt { shard: self.shards[shard].path.clone(), row, expected: *expected, got })
    }
}
