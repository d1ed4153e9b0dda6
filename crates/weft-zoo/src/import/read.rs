//! What an import sees of a file: its checksum and, network by network, a digest and what the file says.

use super::network::{Network, open_networks};
use crate::checkpoint::Described;
use crate::source::{sha256_of_digests, sha256_of_file};
use crate::{Result, Source, open_sources};
use std::collections::BTreeSet;
use std::path::Path;
use weft_core::{Architecture, Digest, Sha256};

/// The entry of a network's metadata that says under which names and in which layout its file has it, as
/// [`crate::binding_to_text`] writes it.
pub const BINDING: &str = "binding";

/// The file that tells an adapter's folder.
pub(super) const ADAPTER: &str = "adapter_config.json";

/// What is kept of a network once its weights were read.
pub(super) struct Seen {
    pub(super) digest: Digest,
    pub(super) described: Described,
    pub(super) format: &'static str,
    /// Why it must be quarantined.
    pub(super) defect: Option<String>,
}

/// Whether a file's name says that it is an ONNX model, which is read by its graph and not as a list of tensors.
#[must_use]
pub fn is_onnx(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx"))
}

/// The checksum of a file and, unless it is a known one, all its networks.
///
/// Where no file is known yet, both are computed at once: each takes about as long as the other.
pub(super) fn look(path: &Path, architecture: &Architecture, known: &BTreeSet<Sha256>) -> Result<(Sha256, Vec<Seen>)> {
    if known.is_empty() {
        let networks = open_networks(path, architecture)?;
        return std::thread::scope(|scope| {
            let hashed = scope.spawn(|| sha256(path));
            let seen = see(&networks, path, architecture);
            Ok((hashed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?, seen?))
        });
    }
    // A model is read as a whole when it is opened; of others, opening looks at the header alone.
    let networks = if is_onnx(path) { None } else { Some(open_networks(path, architecture)?) };
    let sha256 = sha256(path)?;
    if known.contains(&sha256) {
        return Ok((sha256, Vec::new()));
    }
    let networks = networks.map_or_else(|| open_networks(path, architecture), Ok)?;
    Ok((sha256, see(&networks, path, architecture)?))
}

fn see(networks: &[Network], path: &Path, architecture: &Architecture) -> Result<Vec<Seen>> {
    let see = |network: &Network| {
        let described = Described::parse(&network.metadata, path)?;
        let (digest, defect) = network.examine(architecture)?;
        Ok(Seen { digest, described, format: network.format, defect })
    };
    networks.iter().map(see).collect()
}

/// The SHA-256 of a file, in memory that does not depend on its length; of a checkpoint of several files, that of their digests.
fn sha256(path: &Path) -> Result<Sha256> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    if !name.ends_with(".index.json") && name != ADAPTER {
        return sha256_of_file(path);
    }
    let sources = open_sources(path)?;
    let digests = sources.iter().flat_map(Source::files).map(|file| sha256_of_file(file)).collect::<Result<Vec<_>>>()?;
    Ok(sha256_of_digests(digests))
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
