//! What a checkpoint was made of, and the files that its ancestors came from.

use crate::zoo::Zoo;
use crate::{Error, Filter, Result, sha256_of_file};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Component, Path, PathBuf};
use weft_core::{Digest, Record, Sha256};

/// The most ancestors of one checkpoint that are looked at.
const MAX_ANCESTORS: usize = 10_000;

/// What the source of a canonical form begins with; the rest is the raw network's source.
const CANONICAL: &str = "canonical form of ";

/// Zoos in which parents are looked up.
pub(super) struct Ancestry<'a> {
    zoo: &'a Zoo,
    others: Vec<Zoo>,
}

impl<'a> Ancestry<'a> {
    pub(super) fn new(zoo: &'a Zoo, others: &[PathBuf]) -> Result<Self> {
        Ok(Self { zoo, others: others.iter().map(|path| Zoo::open(path)).collect::<Result<_>>()? })
    }

    /// What is wanted of a record or of the nearest of its ancestors that has it; of several as near, the first parent's.
    pub(super) fn nearest<T>(&self, record: &Record, wanted: impl Fn(&Record) -> Option<T>) -> Result<Option<T>> {
        if let Some(found) = wanted(record) {
            return Ok(Some(found));
        }
        let mut queue: VecDeque<Digest> = record.provenance.parents.iter().copied().collect();
        let mut seen = BTreeSet::from([record.digest]);
        while let Some(digest) = queue.pop_front() {
            if !seen.insert(digest) || seen.len() > MAX_ANCESTORS {
                continue;
            }
            for zoo in std::iter::once(self.zoo).chain(&self.others) {
                let filter = Filter { digest_prefix: Some(digest.to_string()), with_quarantined: true, ..Filter::default() };
                let Some(entry) = zoo.records(&filter)?.into_iter().next() else { continue };
                if let Some(found) = wanted(entry.record()) {
                    return Ok(Some(found));
                }
                queue.extend(&entry.record().provenance.parents);
            }
        }
        Ok(None)
    }
}

/// The ONNX models that checkpoints came from.
pub(super) struct Originals<'a> {
    ancestry: Ancestry<'a>,
    folder: &'a Path,
    /// Checksums of the files looked at so far.
    known: BTreeMap<PathBuf, Sha256>,
}

impl<'a> Originals<'a> {
    pub(super) fn new(ancestry: Ancestry<'a>, folder: &'a Path) -> Self {
        Self { ancestry, folder, known: BTreeMap::new() }
    }

    /// The model that a checkpoint, or the nearest of its ancestors, came from; its checksum is that of the catalogue.
    pub(super) fn of(&mut self, record: &Record) -> Result<PathBuf> {
        let digest = record.digest;
        let fail = |reason: String| Error::NoOriginal { digest, reason };
        let from_model = |record: &Record| {
            let provenance = &record.provenance;
            let is_onnx = provenance.format.as_deref() == Some("onnx");
            is_onnx.then(|| Some((provenance.source.clone(), provenance.file_sha256?))).flatten()
        };
        let Some((source, expected)) = self.ancestry.nearest(record, from_model)? else {
            let reason = match record.provenance.format.as_deref() {
                Some(format) => format!("it came from a file of format `{format}`, and no ancestor from an ONNX model"),
                None => "neither it nor an ancestor that is known here came from an ONNX model".to_owned(),
            };
            return Err(fail(reason));
        };
        let source = source.trim_start_matches(CANONICAL);
        let below = relative(source).ok_or_else(|| fail(format!("its recorded path `{source}` leads out of the folder")))?;
        let path = self.folder.join(below);
        if !path.is_file() {
            return Err(fail(format!(
                "there is no file `{}`; originals are looked for in the folder that was imported",
                path.display()
            )));
        }
        self.check(path, expected, digest)
    }

    fn check(&mut self, path: PathBuf, expected: Sha256, digest: Digest) -> Result<PathBuf> {
        let got = match self.known.get(&path) {
            Some(&got) => got,
            None => *self.known.entry(path.clone()).or_insert(sha256_of_file(&path)?),
        };
        if got == expected {
            return Ok(path);
        }
        Err(Error::OtherFile { got: got.to_string(), path, digest, expected: expected.to_string() })
    }
}

/// A recorded path, if it stays below the folder that it is taken from.
fn relative(source: &str) -> Option<PathBuf> {
    let path = Path::new(source);
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    (stays && !source.is_empty() && !source.contains('\0')).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_are_refused() {
        assert_eq!(relative("en/hey/hey.onnx"), Some(PathBuf::from("en/hey/hey.onnx")));
        for source in ["", "/etc/passwd", "../a.onnx", "en/../../a.onnx", "a\0b"] {
            assert_eq!(relative(source), None, "{source:?}");
        }
    }
}
