//! Files that are either whole or not there.
//!
//! A file is written under a temporary name in its final folder, synced, renamed, and the folder is synced:
//! a reader, or a process that starts after a power failure, sees the old file or the new one.

use crate::{Error, Result};
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Ends the name of every temporary file, so that leftovers of a killed process can be told from others.
pub(crate) const SUFFIX: &str = ".weft-tmp";

/// Whether a file name is that of a temporary file of this module.
pub(crate) fn is_temporary(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(SUFFIX)
}

/// A file being written; it is removed again unless it is committed.
pub(crate) struct AtomicFile {
    path: PathBuf,
    writer: Option<BufWriter<File>>,
}

impl AtomicFile {
    /// Opens a temporary file in `folder`.
    pub(crate) fn create_in(folder: &Path) -> Result<Self> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        // A killed process of the same number may have left the name that we would take.
        loop {
            let name = format!(".{}-{}{SUFFIX}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(name);
            match File::create_new(&path) {
                Ok(file) => return Ok(Self { path, writer: Some(BufWriter::with_capacity(1 << 20, file)) }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::Io { doing: "create", path, source }),
            }
        }
    }

    /// Appends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let writer = self.writer.as_mut().expect("the writer lives until the commit");
        writer.write_all(bytes).map_err(Error::io("write", &self.path))
    }

    /// Where the bytes lie until the commit.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes what was appended visible to readers of the temporary file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let writer = self.writer.as_mut().expect("the writer lives until the commit");
        writer.flush().map_err(Error::io("write", &self.path))
    }

    /// Makes what was flushed durable under its temporary name.
    pub(crate) fn sync(&self) -> Result<()> {
        let writer = self.writer.as_ref().expect("the writer lives until the commit");
        writer.get_ref().sync_all().map_err(Error::io("sync", &self.path))
    }

    /// Makes the file durable under its final name, which must lie in the same folder.
    pub(crate) fn commit(mut self, to: &Path) -> Result<()> {
        let writer = self.writer.take().expect("the writer lives until the commit");
        let done = writer
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&self.path, to));
        if let Err(source) = done {
            // The error that led here says more than a failure to clean up would.
            let _ = std::fs::remove_file(&self.path);
            return Err(Error::Io { doing: "write", path: to.to_owned(), source });
        }
        sync_folder(parent_of(to))
    }

    /// As [`AtomicFile::commit`], unless something is there: a file of the same content stays and makes this `false`.
    ///
    /// # Errors
    /// [`Error::Exists`] if it has another content.
    pub(crate) fn commit_unless_other(mut self, to: &Path) -> Result<bool> {
        if to.symlink_metadata().is_err() {
            return self.commit(to).map(|()| true);
        }
        self.flush()?;
        let same = to.is_file() && same_content(&self.path, to).map_err(Error::io("read", to))?;
        if same { Ok(false) } else { Err(Error::Exists { path: to.to_owned() }) }
    }
}

/// Whether two files have the same bytes.
fn same_content(a: &Path, b: &Path) -> std::io::Result<bool> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::with_capacity(1 << 16, a), BufReader::with_capacity(1 << 16, b));
    loop {
        let (left, right) = (a.fill_buf()?, b.fill_buf()?);
        let len = left.len().min(right.len());
        if left[..len] != right[..len] {
            return Ok(false);
        }
        if len == 0 {
            return Ok(left.len() == right.len());
        }
        a.consume(len);
        b.consume(len);
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a whole file so that its name never stands for a part of it.
///
/// # Errors
/// [`Error::Io`]; then the old file, if there was one, is as it was.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create_in(parent_of(path))?;
    file.write(bytes)?;
    file.commit(path)
}

/// The folder of a path; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(Error::io("sync", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_whole_files_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        write_atomic(&path, b"one").unwrap();
        write_atomic(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        let mut dropped = AtomicFile::create_in(dir.path()).unwrap();
        dropped.write(b"half").unwrap();
        drop(dropped);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_atomic(&dir.path().join("absent/a.txt"), b"x").is_err());
    }

    #[test]
    fn other_files_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let commit = |bytes: &[u8]| {
            let mut file = AtomicFile::create_in(dir.path()).unwrap();
            file.write(bytes).unwrap();
            file.commit_unless_other(&path)
        };
        assert!(commit(b"one").unwrap() && !commit(b"one").unwrap());
        for other in [&b"two"[..], b"longer", b""] {
            assert!(matches!(commit(other), Err(Error::Exists { .. })));
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn temporary_names_are_recognized() {
        let dir = tempfile::tempdir().unwrap();
        let file = AtomicFile::create_in(dir.path()).unwrap();
        assert!(is_temporary(file.path.file_name().unwrap().to_str().unwrap()));
        assert!(!is_temporary("a.safetensors"));
    }
}
