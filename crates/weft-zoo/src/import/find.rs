//! Which files an import looks at.

use super::Refusal;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// How deep folders may nest below the one that was named.
const MAX_DEPTH: usize = 64;

/// The ends of names of files that are read when a folder is named.
const EXTENSIONS: [&str; 7] = ["safetensors", "onnx", "pt", "pth", "ckpt", "bin", "npz"];

/// The names that a `LICENSE` file may have, in lower case and without an extension.
const LICENCE_FILES: [&str; 4] = ["license", "licence", "copying", "unlicense"];

/// A file to import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// The folder that was named, or that of a file that was named.
    pub(super) root: PathBuf,
}

impl Found {
    /// The path below the root, with `/` between its parts: the same wherever the root lies.
    pub(super) fn source(&self) -> String {
        let below = self.path.strip_prefix(&self.root).unwrap_or(&self.path);
        below.components().map(|part| part.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }
}

/// What the paths of an import stand for.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Search {
    pub(super) files: Vec<Found>,
    /// Folders that cannot be listed.
    pub(super) refused: Vec<Refusal>,
    /// Files in folders whose names no reader claims.
    pub(super) ignored: usize,
}

/// The checkpoint files that paths stand for: a file for itself, a folder for all files below it whose names end as those of
/// a format that is read, in the order of their names. An adapter's or a sharded checkpoint's folder is one, by its JSON file.
///
/// # Errors
/// [`Error::Io`] for a folder that cannot be listed.
pub fn find_checkpoints(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let search = search(paths);
    match search.refused.into_iter().next() {
        None => Ok(search.files.into_iter().map(|found| found.path).collect()),
        Some(Refusal { path, reason }) => Err(Error::Io { doing: "list", path, source: std::io::Error::other(reason) }),
    }
}

pub(super) fn search(paths: &[PathBuf]) -> Search {
    let mut search = Search::default();
    for path in paths {
        if path.is_dir() {
            let before = search.files.len();
            search.folder(path);
            search.files[before..].sort_by(|a, b| a.path.cmp(&b.path));
        } else {
            let root = crate::atomic::parent_of(path).to_owned();
            search.files.push(Found { path: path.clone(), root });
        }
    }
    search
}

impl Search {
    fn folder(&mut self, root: &Path) {
        let mut folders = vec![(root.to_owned(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            let items = std::fs::read_dir(&folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
            let items = match items {
                Ok(items) if depth <= MAX_DEPTH => items,
                Ok(_) => {
                    let reason = format!("more than {MAX_DEPTH} folders deep");
                    self.refused.push(Refusal { path: folder, reason });
                    continue;
                }
                Err(error) => {
                    self.refused.push(Refusal { path: folder, reason: format!("cannot be listed: {error}") });
                    continue;
                }
            };
            // A checkpoint of several files is one; its parts are not looked at for themselves.
            let is_whole = |item: &std::fs::DirEntry| {
                let name = item.file_name().to_string_lossy().to_lowercase();
                name.ends_with(".index.json") || name == super::read::ADAPTER
            };
            let whole: Vec<PathBuf> = items.iter().filter(|item| is_whole(item)).map(std::fs::DirEntry::path).collect();
            self.files.extend(whole.iter().map(|path| Found { path: path.clone(), root: root.to_owned() }));
            for item in items {
                let path = item.path();
                if !whole.is_empty() && !item.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                // The type of the item itself: a link to a folder is not followed, so there is no way round in circles.
                if item.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push((path, depth + 1));
                } else if path.extension().is_some_and(|extension| EXTENSIONS.iter().any(|known| extension == *known)) {
                    self.files.push(Found { path, root: root.to_owned() });
                } else if !is_licence(&path) {
                    self.ignored += 1;
                }
            }
        }
    }
}

/// Whether a file's name says that it holds a licence.
pub(super) fn is_licence(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    LICENCE_FILES.contains(&stem.as_str()) && matches!(extension.as_deref(), None | Some("txt" | "md" | "rst"))
}
