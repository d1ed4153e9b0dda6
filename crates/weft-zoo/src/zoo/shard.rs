//! Population shards: every tensor of the architecture with a leading axis of networks, `[n, …shape]`.

use super::ReadTensor;
use crate::atomic::AtomicFile;
use crate::mapped::Mapped;
use crate::source::SourceDtype;
use crate::tensors::{Metadata, encode_header, little_endian};
use crate::{Error, Result, TensorFault};
use std::path::{Path, PathBuf};
use weft_core::{Architecture, Digest, Population, WeightsHasher};

const EXTENSION: &str = ".safetensors";

/// A shard's file name: its content's digest, so that the same append gives the same file.
pub(super) fn file_name(digest: &Digest) -> String {
    format!("{digest}{EXTENSION}")
}

/// The digest in a shard's file name.
pub(super) fn digest_in(name: &str) -> Option<Digest> {
    name.strip_suffix(EXTENSION)?.parse().ok()
}

/// Values that are brought to bytes, hashed and written at a time: they stay in the cache meanwhile.
const PIECE: usize = 1 << 15;

/// A shard being written; it is removed again unless it is committed.
struct Writer<'a> {
    folder: &'a Path,
    file: AtomicFile,
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes the header of a shard of so many networks.
    fn begin(folder: &'a Path, architecture: &Architecture, rows: usize) -> Result<Self> {
        let with_rows = |shape: &[usize]| [&[rows], shape].concat();
        let declared: Vec<_> = architecture.tensors().iter().map(|t| (t.name.as_str(), with_rows(&t.shape))).collect();
        let metadata = Metadata::from([("format".to_owned(), "weft population shard 1".to_owned())]);
        let header = encode_header(&declared, &metadata);
        let mut file = AtomicFile::create_in(folder)?;
        file.write(&header)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        Ok(Self { folder, file, hasher, buffer: Vec::new() })
    }

    /// Writes the next values.
    fn values(&mut self, values: &[f32]) -> Result<()> {
        for piece in values.chunks(PIECE) {
            let bytes = little_endian(piece, &mut self.buffer);
            self.hasher.update(bytes);
            self.file.write(bytes)?;
        }
        Ok(())
    }

    /// Makes the shard durable under the name of its digest.
    fn commit(self) -> Result<Digest> {
        let digest = Digest::from_bytes(*self.hasher.finalize().as_bytes());
        self.file.commit(&self.folder.join(file_name(&digest)))?;
        Ok(digest)
    }
}

/// Writes the networks at `rows` as a durable shard in `folder`, and names it by its digest.
pub(super) fn write(folder: &Path, population: &Population, rows: &[usize]) -> Result<Digest> {
    let mut writer = Writer::begin(folder, population.architecture(), rows.len())?;
    for tensor in population.architecture().tensors() {
        for &row in rows {
            writer.values(&population.row(row)[tensor.range()])?;
        }
    }
    writer.commit()
}

/// Writes one network, tensor by tensor, as a durable shard; nothing is left, and nothing named, if what was written has not
/// its digest.
pub(super) fn write_streamed(
    folder: &Path,
    architecture: &Architecture,
    expected: &Digest,
    read: &mut ReadTensor<'_>,
) -> Result<Option<Digest>> {
    let mut writer = Writer::begin(folder, architecture, 1)?;
    for i in 0..architecture.tensors().len() {
        read(i, &mut |values| writer.values(values))?;
    }
    writer.file.flush()?;
    let written = Shard::open(writer.file.path(), architecture)?;
    // The disk takes as long for the bytes as the processor for their digest.
    let (synced, got) = std::thread::scope(|scope| {
        let sync = scope.spawn(|| writer.file.sync());
        let got = written.digest_of_network(0);
        (sync.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), got)
    });
    synced?;
    if got == *expected { writer.commit().map(Some) } else { Ok(None) }
}

/// An open shard whose header fits the architecture.
pub(super) struct Shard<'a> {
    path: PathBuf,
    architecture: &'a Architecture,
    file: Mapped,
    rows: usize,
}

impl<'a> Shard<'a> {
    /// Opens a shard and checks its header; no weight is read.
    pub(super) fn open(path: &Path, architecture: &'a Architecture) -> Result<Self> {
        let file = Mapped::open(path)?;
        let header = file.header();
        let first = &architecture.tensors()[0].name;
        let rows = header.tensors.get(first).and_then(|info| info.shape.first().copied()).unwrap_or(0);
        for spec in architecture.tensors() {
            let info = header.tensors.get(&spec.name).ok_or_else(|| file.fault(&spec.name, TensorFault::Missing))?;
            let expected = [&[rows], spec.shape.as_slice()].concat();
            info.check_shape(&expected).map_err(|fault| file.fault(&spec.name, fault))?;
            if info.dtype != SourceDtype::F32 {
                let fault = crate::HeaderFault::Dtype { tensor: spec.name.clone(), dtype: format!("{:?}", info.dtype) };
                return Err(Error::Header { path: path.to_owned(), fault });
            }
        }
        if header.tensors.len() != architecture.tensors().len() {
            let known = |name: &String| architecture.tensors().iter().any(|t| t.name == *name);
            let extra = header.tensors.keys().find(|name| !known(name)).expect("there are more tensors than declared ones");
            return Err(file.fault(extra, TensorFault::Extra { architecture: architecture.name().to_owned() }));
        }
        Ok(Self { path: path.to_owned(), architecture, file, rows })
    }

    /// The number of networks.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Where the values of each of the architecture's tensors begin in the file.
    pub(super) fn starts(&self) -> Vec<u64> {
        let start = |name: &String| self.file.header().tensors[name].range.start as u64;
        self.architecture.tensors().iter().map(|spec| start(&spec.name)).collect()
    }

    /// The digest of the file as it is now.
    pub(super) fn digest(&self) -> Digest {
        self.file.digest()
    }

    /// The digest of one network, which is there.
    fn digest_of_network(&self, row: usize) -> Digest {
        let (mut hasher, mut piece) = (WeightsHasher::new(), Vec::new());
        for i in WeightsHasher::order(self.architecture) {
            let spec = &self.architecture.tensors()[i];
            let (info, len) = (&self.file.header().tensors[&spec.name], 4 * spec.num_values());
            hasher.tensor(spec);
            for bytes in self.file.bytes(info)[row * len..(row + 1) * len].chunks(4 * PIECE) {
                piece.resize(bytes.len() / 4, 0.0);
                info.dtype.convert(bytes, &mut piece);
                hasher.values(&piece);
            }
        }
        hasher.finish()
    }

    /// Gathers one network and checks that it is the one that its digest names.
    pub(super) fn read(&self, row: usize, expected: &Digest, out: &mut [f32]) -> Result<()> {
        if row >= self.rows {
            return Err(Error::ShardRow { shard: self.path.clone(), row, rows: self.rows });
        }
        for spec in self.architecture.tensors() {
            let info = &self.file.header().tensors[&spec.name];
            let len = 4 * spec.num_values();
            let bytes = &self.file.bytes(info)[row * len..(row + 1) * len];
            info.dtype.convert(bytes, &mut out[spec.range()]);
        }
        let got = Digest::of_weights(self.architecture, out);
        if got == *expected {
            return Ok(());
        }
        Err(Error::Corrupt { shard: self.path.clone(), row, expected: *expected, got })
    }
}
