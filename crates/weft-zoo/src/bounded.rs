//! Small files that are read whole: regular ones alone, and never more than is allowed, however they grow.

use crate::mapped::open_regular;
use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// Reads a regular file of at most `limit` bytes.
///
/// The length that the file system tells is not trusted: a file that grows while it is read is refused like one that was too long before.
///
/// # Errors
/// [`Error::Io`] for what is not there or no regular file (a folder, a pipe), [`Error::TooLong`].
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("a.json");
/// std::fs::write(&path, "{}")?;
/// assert_eq!(weft_zoo::read_bounded(&path, 2)?, b"{}");
/// assert!(weft_zoo::read_bounded(&path, 1).is_err());
/// assert!(weft_zoo::read_bounded(folder.path(), 1 << 20).is_err());
/// # Ok(())
/// # }
/// ```
pub fn read_bounded(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let too_long = || Error::TooLong { path: path.to_owned(), limit };
    let (file, len) = open_regular(path)?;
    if len > limit {
        return Err(too_long());
    }
    let mut bytes = Vec::with_capacity(len as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_or_no_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, [7; 100]).unwrap();
        assert_eq!(read_bounded(&path, 100).unwrap().len(), 100);
        let error = read_bounded(&path, 99).unwrap_err().to_string();
        assert!(error.contains("99") && error.contains('`'), "{error}");
        assert!(matches!(read_bounded(&dir.path().join("b"), 9), Err(Error::Io { .. })));
        // Says that it has no bytes, and has some.
        #[cfg(target_os = "linux")]
        assert!(matches!(read_bounded(Path::new("/proc/self/maps"), 9), Err(Error::TooLong { .. })));
    }

    /// Whoever opens a pipe to read it waits until another writes: nobody does here.
    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_are_refused_without_waiting_for_a_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let error = read_bounded(&path, 9).unwrap_err();
        assert!(matches!(&error, Error::Io { source, .. } if source.to_string().contains("not a regular file")), "{error:?}");
    }
}
