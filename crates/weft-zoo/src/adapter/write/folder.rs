//! Folders that are either whole or not there.

use crate::atomic::{parent_of, sync_folder};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder being written; it is removed again unless it is committed.
struct Staged {
    path: PathBuf,
    committed: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Lets `fill` write into a folder that takes the name `out` when all of it is there.
pub(super) fn write_folder(out: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    refuse_existing(out)?;
    let parent = parent_of(out);
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let path = parent.join(format!(".{}-{number}-adapter.weft-tmp", std::process::id()));
    if path.exists() {
        // Of a killed process with our number.
        std::fs::remove_dir_all(&path).map_err(Error::io("remove", &path))?;
    }
    std::fs::create_dir(&path).map_err(Error::io("create", &path))?;
    let mut staged = Staged { path, committed: false };
    fill(&staged.path)?;
    sync_folder(&staged.path)?;
    std::fs::rename(&staged.path, out).map_err(Error::io("write", out))?;
    staged.committed = true;
    sync_folder(parent)
}

/// Refuses a path with something at it, but for an empty folder.
pub(super) fn refuse_existing(out: &Path) -> Result<()> {
    let empty = std::fs::read_dir(out).is_ok_and(|mut items| items.next().is_none());
    if out.symlink_metadata().is_ok() && !empty { Err(Error::Exists { path: out.to_owned() }) } else { Ok(()) }
}
