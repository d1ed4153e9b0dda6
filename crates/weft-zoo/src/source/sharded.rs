//! Checkpoints in several files: an index that places each tensor in one of the files beside it.

use super::{Source, SourceFault, SourceFormat, SourceTensor, pytorch, safetensors};
use crate::mapped::MappedFile;
use crate::pairs::Pairs;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The longest index that is read.
const MAX_INDEX_BYTES: u64 = 25 << 20;

/// The most files that an index may name.
const MAX_SHARDS: usize = 4096;

pub(super) fn open(path: &Path) -> Result<Source> {
    let fail = |fault| Error::Source { path: path.to_owned(), format: SourceFormat::Sharded, fault };
    let index = MappedFile::open(path)?;
    let len = index.bytes().len() as u64;
    if len > MAX_INDEX_BYTES {
        return Err(fail(SourceFault::TooLarge { what: "the index".to_owned(), got: len, limit: MAX_INDEX_BYTES }));
    }
    let placed = parse(index.bytes()).map_err(fail)?;
    let mut by_shard: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (tensor, shard) in &placed {
        by_shard.entry(shard).or_default().push(tensor);
    }
    if by_shard.is_empty() {
        return Err(fail(SourceFault::Empty));
    }
    if by_shard.len() > MAX_SHARDS {
        let what = "the number of its files".to_owned();
        return Err(fail(SourceFault::TooMany { what, got: by_shard.len() as u64, limit: MAX_SHARDS as u64 }));
    }
    let (mut tensors, mut files) = (BTreeMap::new(), vec![path.to_owned()]);
    for (&shard, names) in &by_shard {
        let shard_path = beside(path, shard).map_err(fail)?;
        let mut found = open_shard(&shard_path)?;
        for &name in names {
            let missing = || fail(SourceFault::MissingTensor { tensor: name.to_owned(), file: shard.to_owned() });
            tensors.insert(name.to_owned(), found.remove(name).ok_or_else(missing)?);
        }
        if let Some(name) = found.into_keys().next() {
            return Err(fail(SourceFault::UnlistedTensor { tensor: name, file: shard.to_owned() }));
        }
        files.push(shard_path);
    }
    let source = Source { files, ..Source::new(path, SourceFormat::Sharded, tensors) };
    source.normalized().with_scales()
}

/// The tensors of a shard by the names that they have there.
fn open_shard(path: &Path) -> Result<BTreeMap<String, SourceTensor>> {
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        return Ok(safetensors::open_tensors(path)?.0);
    }
    let shard = pytorch::open(path)?;
    Ok(shard.tensors.into_values().map(|tensor| (tensor.stored_name.clone(), tensor)).collect())
}

/// The path of a file that must lie in the index's own folder.
fn beside(index: &Path, name: &str) -> Result<PathBuf, SourceFault> {
    // A plain name has one component, which is the name itself: no `..`, no folder, no drive, no root.
    let plain = Path::new(name).file_name().is_some_and(|file| file == name);
    if !plain || name.contains(['/', '\\', ':', '\0']) {
        return Err(SourceFault::Outside { name: name.to_owned() });
    }
    let folder = index.parent().unwrap_or(Path::new(""));
    let path = folder.join(name);
    let missing = |_| SourceFault::MissingFile { name: name.to_owned() };
    // A link that leads elsewhere would be a way out of the folder.
    if path.symlink_metadata().map_err(missing)?.is_symlink() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let (target, folder) = (path.canonicalize().map_err(missing)?, folder.canonicalize().map_err(missing)?);
        if target.parent() != Some(&folder) {
            return Err(SourceFault::Outside { name: name.to_owned() });
        }
    }
    Ok(path)
}

/// The file of each tensor.
fn parse(json: &[u8]) -> Result<BTreeMap<String, String>, SourceFault> {
    let index: Index = serde_json::from_slice(json).map_err(|error| SourceFault::malformed("the index", error.to_string()))?;
    let mut placed = BTreeMap::new();
    for (tensor, shard) in index.weight_map.0 {
        if placed.insert(tensor.clone(), shard).is_some() {
            return Err(SourceFault::Duplicate { name: tensor });
        }
    }
    Ok(placed)
}

#[derive(Deserialize)]
struct Index {
    weight_map: Pairs<String>,
}
