//! The one place where an import reads a file: what comes out is [`Candidate`]s, whatever the format.

use crate::checkpoint::{fits, read_weights};
use crate::mapped::{Mapped, read_header};
use crate::tensors::Metadata;
use crate::{Error, Result};
use sha2::{Digest as _, Sha256 as Hasher};
use std::io::Read as _;
use std::path::Path;
use weft_core::{Architecture, Sha256};

/// One network of a file, as it was read.
pub(super) struct Candidate {
    /// Its weights in the architecture's order, whatever they are.
    pub(super) row: Vec<f32>,
    /// What the file says of it.
    pub(super) metadata: Metadata,
    /// The file's format.
    pub(super) format: &'static str,
    /// Why it must be quarantined.
    pub(super) defect: Option<String>,
}

/// Refuses what can be seen to be no network of the architecture without reading its weights.
pub(super) fn glance(path: &Path, architecture: &Architecture) -> Result<()> {
    let header = read_header(path)?;
    fits(&header, architecture).map_err(|(tensor, fault)| Error::Tensor { path: path.to_owned(), tensor, fault })
}

/// Reads every network of a file, in the file's order.
pub(super) fn read_candidates(path: &Path, architecture: &Architecture) -> Result<Vec<Candidate>> {
    let file = Mapped::open(path)?;
    let (row, non_finite) = read_weights(&file, architecture)?;
    let defect = non_finite.map(|(tensor, fault)| format!("tensor `{tensor}`: {fault}"));
    Ok(vec![Candidate { row, metadata: file.header().metadata.clone(), format: "safetensors", defect }])
}

/// The SHA-256 of a file, in memory that does not depend on its length.
pub(super) fn sha256(path: &Path) -> Result<Sha256> {
    let mut file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Sha256(hasher.finalize().into())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}

/// Applies a function to all items, on all processors; the results are in the order of the items.
pub(super) fn in_parallel<T: Sync, U: Send>(items: &[T], function: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let next = std::sync::atomic::AtomicUsize::new(0);
    // Items are taken one by one: a large file among small ones keeps one thread busy, not those behind it waiting.
    let work = || {
        let mut results = Vec::new();
        loop {
            let i = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let Some(item) = items.get(i) else { return results };
            results.push((i, function(item)));
        }
    };
    let mut results: Vec<(usize, U)> = if threads.min(items.len()) < 2 {
        work()
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads.min(items.len())).map(|_| scope.spawn(work)).collect();
            let join =
                |worker: std::thread::ScopedJoinHandle<'_, _>| worker.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
            workers.into_iter().flat_map(join).collect()
        })
    };
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4's own examples.
    #[test]
    fn sha256_golden() {
        let dir = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expected: &str| {
            let path = dir.path().join("a");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(sha256(&path).unwrap().to_string(), expected);
        };
        check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(&vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}
