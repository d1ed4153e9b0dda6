//! The one place where an import reads a file: what comes out is [`Candidate`]s, whatever the format.

use crate::checkpoint::{fits, read_weights};
use crate::mapped::{Mapped, read_header};
use crate::onnx::read_onnx_any;
use crate::tensors::Metadata;
use crate::{Binding, Error, Result, Source, TensorFault, binding_to_text, open_sources};
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

/// The entry of a network's metadata that says under which names and in which layout its file has it, as
/// [`crate::binding_to_text`] writes it.
pub const BINDING: &str = "binding";

/// Refuses what can be seen to be no network of the architecture without reading its weights.
pub(super) fn glance(path: &Path, architecture: &Architecture) -> Result<()> {
    if is_onnx(path) {
        return Ok(()); // a graph and its weights are read at once
    }
    if is_own(path, architecture) {
        return Ok(());
    }
    let sources = open_sources(path)?;
    let first = sources.first().ok_or_else(|| no_network(path))?;
    Binding::find(first, architecture).map(|_| ())
}

/// Reads every network of a file, in the file's order.
pub(super) fn read_candidates(path: &Path, architecture: &Architecture) -> Result<Vec<Candidate>> {
    if is_onnx(path) {
        return Ok(vec![of_onnx(path, architecture)?]);
    }
    if is_own(path, architecture) {
        let file = Mapped::open(path)?;
        let (row, non_finite) = read_weights(&file, architecture)?;
        let defect = non_finite.map(|(tensor, fault)| defect(&tensor, &fault));
        return Ok(vec![Candidate { row, metadata: file.header().metadata.clone(), format: "safetensors", defect }]);
    }
    let sources = open_sources(path)?;
    if sources.is_empty() {
        return Err(no_network(path));
    }
    sources.iter().map(|source| of_source(source, architecture)).collect()
}

/// A safetensors file under the architecture's own names, as we write them.
fn is_own(path: &Path, architecture: &Architecture) -> bool {
    read_header(path).is_ok_and(|header| fits(&header, architecture).is_ok())
}

/// Whether a file's name says that it is an ONNX model, which is read by its graph and not as a list of tensors.
#[must_use]
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

fn no_network(path: &Path) -> Error {
    Error::UnknownFormat { path: path.to_owned(), reason: "it holds no network".to_owned(), known: String::new() }
}

fn of_onnx(path: &Path, architecture: &Architecture) -> Result<Candidate> {
    let network = read_onnx_any(path)?;
    if !network.architecture.same_graph(architecture) {
        let reason = format!("its graph is `{}`, not that of `{}`", network.architecture.name(), architecture.name());
        return Err(Error::NotInferred { path: path.to_owned(), reason, hint: "import it into a zoo of its own" });
    }
    let defect = network.first_non_finite().map(|(tensor, index)| defect(tensor, &TensorFault::NonFinite { index }));
    Ok(Candidate { row: network.weights(), metadata: Metadata::new(), format: "onnx", defect })
}

/// Why a network must be quarantined.
fn defect(tensor: &str, fault: &TensorFault) -> String {
    format!("tensor `{tensor}`: {fault}")
}

fn of_source(source: &Source, architecture: &Architecture) -> Result<Candidate> {
    let binding = Binding::find(source, architecture)?;
    let mut metadata = source.metadata().clone();
    if let Some(member) = source.member() {
        metadata.insert("member".to_owned(), member.to_owned());
    }
    if binding.naming() != Binding::OWN {
        metadata.insert(BINDING.to_owned(), binding_to_text(&binding));
    }
    let defect = source.first_non_finite()?.map(|(tensor, index)| defect(&tensor, &TensorFault::NonFinite { index }));
    let row = if defect.is_some() { binding.bind_any(source, architecture)? } else { binding.bind(source, architecture)? };
    Ok(Candidate { row, metadata, format: source.format().name(), defect })
}

/// The SHA-256 of a file, in memory that does not depend on its length; of a checkpoint of several files, that of their digests.
pub(super) fn sha256(path: &Path) -> Result<Sha256> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if !name.ends_with(".index.json") && name != ADAPTER {
        return sha256_of_one(path);
    }
    let mut hasher = Hasher::new();
    for file in open_sources(path)?.iter().flat_map(Source::files) {
        hasher.update(sha256_of_one(file)?.0);
    }
    Ok(Sha256(hasher.finalize().into()))
}

/// The file that tells an adapter's folder.
pub(super) const ADAPTER: &str = "adapter_config.json";

fn sha256_of_one(path: &Path) -> Result<Sha256> {
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
