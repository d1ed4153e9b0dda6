//! Folders that are either whole or not there.
//!
//! A folder is filled under a temporary name beside its place, synced, and renamed; then the folder that it lies in is synced. Who fills one
//! holds a lock on it, so that what a killed process left of the same name is known from what another is writing, and is cleared away.

use crate::atomic::{SUFFIX, parent_of, sync_folder};
use crate::{Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder being filled; it is removed again unless it is committed.
#[derive(Debug)]
pub struct StagedFolder {
    out: PathBuf,
    path: PathBuf,
    /// Locked while the folder is filled.
    lock: Option<File>,
}

impl StagedFolder {
    /// Begins a folder that is to have the name `out`; the folders above are made.
    ///
    /// # Errors
    /// [`Error::Exists`] if something is there that is not an empty folder, or [`Error::Io`].
    pub fn begin(out: &Path) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        refuse_existing(out)?;
        let parent = parent_of(out);
        std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let name = out.file_name().unwrap_or_default().to_string_lossy().into_owned();
        clear_leftovers(parent, &name);
        loop {
            let number = COUNTER.fetch_add(1, Ordering::Relaxed);
            let path = parent.join(format!(".{name}.{}-{number}{SUFFIX}", std::process::id()));
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                made => made.map_err(Error::io("create", &path))?,
            }
            // A file system without locks has none to heed either.
            let lock = File::open(&path).ok().filter(|folder| folder.try_lock().is_ok());
            return Ok(Self { out: out.to_owned(), path, lock });
        }
    }

    /// Where its files go until it is committed.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// [`Error::Io`], also if something has come to its place meanwhile; then nothing is left of it.
    pub fn commit(mut self) -> Result<()> {
        sync_folder(&self.path)?;
        std::fs::rename(&self.path, &self.out).map_err(Error::io("write", &self.out))?;
        self.path = PathBuf::new();
        sync_folder(parent_of(&self.out))
    }
}

impl Drop for StagedFolder {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What led here says more than a failure to clean up would.
            let _ = std::fs::remove_dir_all(&self.path);
        }
        self.lock = None;
    }
}

/// Lets `fill` write into a folder that takes the name `out` when all of it is there, and gives what it gives.
///
/// # Errors
/// Those of [`StagedFolder`], or what `fill` returns; then nothing is left of it.
pub fn write_folder<T, E: From<Error>>(out: &Path, fill: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E> {
    let staged = StagedFolder::begin(out)?;
    let filled = fill(staged.path())?;
    staged.commit()?;
    Ok(filled)
}

/// Refuses a path with something at it, but for an empty folder.
///
/// # Errors
/// [`Error::Exists`].
pub fn refuse_existing(out: &Path) -> Result<()> {
    let empty = std::fs::read_dir(out).is_ok_and(|mut items| items.next().is_none());
    if out.symlink_metadata().is_ok() && !empty { Err(Error::Exists { path: out.to_owned() }) } else { Ok(()) }
}

/// Removes what killed processes left of folders of a name: what no one has locked.
fn clear_leftovers(parent: &Path, name: &str) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let own = path.file_name().and_then(|file| file.to_str()).and_then(|file| file.strip_prefix('.')?.strip_suffix(SUFFIX));
        let number = |rest: &str| rest.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        let is_own = own
            .and_then(|own| own.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.strip_prefix('.').is_some_and(number));
        let is_folder = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        let is_left = || File::open(&path).is_ok_and(|folder| folder.try_lock().is_ok());
        if is_own && is_folder && is_left() {
            // The next writer of this name tries again.
            let _ = std::fs::remove_dir_all(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = entries.collect();
        names.sort();
        names
    }

    #[test]
    fn folders_are_whole_or_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/new");
        let fill = |folder: &Path| crate::write_atomic(&folder.join("a"), b"1");
        let failed: Result<()> = write_folder(&out, |folder| {
            fill(folder)?;
            Err(Error::Exists { path: "x".into() })
        });
        assert!(failed.is_err());
        assert_eq!(names(&dir.path().join("deep")), Vec::<String>::new());
        std::fs::create_dir(&out).unwrap();
        write_folder(&out, fill).unwrap();
        assert_eq!((names(&out), names(&dir.path().join("deep"))), (vec!["a".to_owned()], vec!["new".to_owned()]));
        assert!(matches!(write_folder(&out, fill), Err(Error::Exists { .. })));
    }

    #[test]
    fn what_killed_processes_left_is_cleared_and_what_others_write_is_not() {
        let dir = tempfile::tempdir().unwrap();
        for left in [".new.weft-tmp", ".new.99-0.weft-tmp", ".new.x.weft-tmp", ".newer.99-0.weft-tmp"] {
            std::fs::create_dir_all(dir.path().join(left).join("shards")).unwrap();
        }
        let other = StagedFolder::begin(&dir.path().join("new")).unwrap();
        let own = StagedFolder::begin(&dir.path().join("new")).unwrap();
        assert!(other.path().is_dir() && own.path().is_dir());
        own.commit().unwrap();
        drop(other);
        assert_eq!(names(dir.path()), [".new.x.weft-tmp", ".newer.99-0.weft-tmp", "new"]);
    }
}
