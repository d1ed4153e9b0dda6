//! Population shards: every tensor of the architecture with a leading axis of networks, `[n, …shape]`.

use crate::atomic::AtomicFile;
use crate::mapped::Mapped;
use crate::source::SourceDtype;
use crate::tensors::{Metadata, encode_header, little_endian};
use crate::{Error, Result, TensorFault};
use std::path::{Path, PathBuf};
use weft_core::{Architecture, Digest, Population};

const EXTENSION: &str = ".safetensors";

/// A shard's file name: its content's digest, so that the same append gives the same file.
pub(super) fn file_name(digest: &Digest) -> String {
    format!("{digest}{EXTENSION}")
}

/// The digest in a shard's file name.
pub(super) fn digest_in(name: &str) -> Option<Digest> {
    name.strip_suffix(EXTENSION)?.parse().ok()
}

/// Writes the networks at `rows` as a durable shard in `folder`, and names it by its digest.
pub(super) fn write(folder: &Path, population: &Population, rows: &[usize]) -> Result<Digest> {
    let architecture = population.architecture();
    let with_rows = |shape: &[usize]| [&[rows.len()], shape].concat();
    let declared: Vec<_> = architecture.tensors().iter().map(|t| (t.name.as_str(), with_rows(&t.shape))).collect();
    let metadata = Metadata::from([("format".to_owned(), "weft population shard 1".to_owned())]);
    let mut file = AtomicFile::create_in(folder)?;
    let mut hasher = blake3::Hasher::new();
    let header = encode_header(&declared, &metadata);
    hasher.update(&header);
    file.write(&header)?;
    let mut buffer = Vec::new();
    for tensor in architecture.tensors() {
        for &row in rows {
            let bytes = little_endian(&population.row(row)[tensor.range()], &mut buffer);
            hasher.update(bytes);
            file.write(bytes)?;
        }
    }
    let digest = Digest::from_bytes(*hasher.finalize().as_bytes());
    file.commit(&folder.join(file_name(&digest)))?;
    Ok(digest)
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

    /// The digest of the file as it is now.
    pub(super) fn digest(&self) -> Digest {
        self.file.digest()
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
