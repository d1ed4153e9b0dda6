//! Memory-mapped files: any, and those of safetensors.

use crate::header::{Header, PREFIX_BYTES, TensorInfo, header_len};
use crate::{Error, HeaderFault, Result, TensorFault};
use memmap2::Mmap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use weft_core::Digest;

/// A regular file in memory, read only.
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Mmap,
}

impl std::fmt::Debug for MappedFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MappedFile").field("path", &self.path).field("len", &self.map.len()).finish()
    }
}

impl MappedFile {
    /// Maps a file; its pages are read when they are touched.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let (file, _) = open_regular(path)?;
        // SAFETY: the map is only read. Shards are immutable once they bear their name; a foreign file that another
        // process truncates while it is read can end this process with a bus error, but never yields other memory.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))?;
        Ok(Self { path: path.to_owned(), map })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Gives the pages back that were touched; they are read again when they are touched again.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        {
            // SAFETY: pages of a map that is only read hold what the file does, now and when they are read again. That it was
            // not heeded costs memory alone.
            let _ = unsafe { self.map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    /// Checks the header of a safetensors file.
    pub(crate) fn safetensors_header(&self) -> Result<Header> {
        let fail = |fault| Error::Header { path: self.path.clone(), fault };
        let len = self.map.len() as u64;
        if len < PREFIX_BYTES {
            return Err(fail(HeaderFault::Truncated { expected: PREFIX_BYTES, got: len }));
        }
        parse_header(&self.map).map_err(fail)
    }
}

/// A safetensors file whose header has been checked in full.
pub(crate) struct Mapped {
    file: MappedFile,
    header: Header,
}

impl Mapped {
    /// Opens a file and checks its header; no tensor is read.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let header = file.safetensors_header()?;
        Ok(Self { file, header })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// The digest of the whole file.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of_bytes(self.file.bytes())
    }

    /// A tensor's bytes.
    pub(crate) fn bytes(&self, info: &TensorInfo) -> &[u8] {
        &self.file.bytes()[info.range.clone()]
    }

    /// Reads a whole tensor.
    pub(crate) fn read(&self, name: &str, info: &TensorInfo) -> Result<Vec<f32>> {
        let values = info.num_values();
        let mut out = Vec::new();
        if out.try_reserve_exact(values).is_err() {
            return Err(self.fault(name, TensorFault::Memory { values }));
        }
        out.resize(values, 0.0);
        info.dtype.convert(self.bytes(info), &mut out);
        Ok(out)
    }

    /// An error about one of the file's tensors.
    pub(crate) fn fault(&self, tensor: &str, fault: TensorFault) -> Error {
        Error::Tensor { path: self.file.path.clone(), tensor: tensor.to_owned(), fault }
    }
}

/// Maps a whole file of another format.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let (file, _) = open_regular(path)?;
    // SAFETY: as above: the map is only read, and a file that is cut short meanwhile can at worst end this process.
    unsafe { Mmap::map(&file) }.map_err(Error::io("map", path))
}

/// Reads and checks a file's header alone.
pub(crate) fn read_header(path: &Path) -> Result<Header> {
    let fail = |fault| Error::Header { path: path.to_owned(), fault };
    let (mut file, len) = open_regular(path)?;
    if len < PREFIX_BYTES {
        return Err(fail(HeaderFault::Truncated { expected: PREFIX_BYTES, got: len }));
    }
    let mut prefix = [0; PREFIX_BYTES as usize];
    file.read_exact(&mut prefix).map_err(Error::io("read", path))?;
    let mut json = vec![0; header_len(prefix, len).map_err(fail)? as usize];
    file.read_exact(&mut json).map_err(Error::io("read", path))?;
    Header::parse(&json, len).map_err(fail)
}

/// Opens a file and tells its length; what is not a regular file (a folder, a pipe) is refused.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    let irregular = || {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file");
        Error::Io { doing: "read", path: path.to_owned(), source }
    };
    // Opening a pipe would wait for one that writes.
    if !std::fs::metadata(path).map_err(Error::io("open", path))?.is_file() {
        return Err(irregular());
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    if metadata.is_file() { Ok((file, metadata.len())) } else { Err(irregular()) }
}

fn parse_header(map: &[u8]) -> Result<Header, HeaderFault> {
    let file_len = map.len() as u64;
    let Some((prefix, rest)) = map.split_first_chunk() else {
        return Err(HeaderFault::Truncated { expected: PREFIX_BYTES, got: file_len });
    };
    let len = header_len(*prefix, file_len)? as usize;
    Header::parse(&rest[..len], file_len)
}
