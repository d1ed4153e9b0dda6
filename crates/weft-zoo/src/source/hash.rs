//! The checksum that others publish for files.

use crate::mapped::open_regular;
use crate::{Error, Result};
use sha2::{Digest as _, Sha256 as Hasher};
use std::io::Read;
use std::path::Path;
use weft_core::Sha256;

/// Bytes that are read at a time: they stay in the cache until they are hashed.
const BLOCK_BYTES: usize = 1 << 18;

/// The SHA-256 of a file, read block by block.
///
/// # Errors
/// [`Error::Io`].
pub fn sha256_of_file(path: &Path) -> Result<Sha256> {
    let (mut file, _) = open_regular(path)?;
    let mut hasher = Hasher::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        match file.read(&mut block) {
            Ok(0) => break,
            Ok(len) => hasher.update(&block[..len]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
    Ok(Sha256(hasher.finalize().into()))
}

/// The SHA-256 of several one after the other, in their order: that of a checkpoint of several files.
pub(crate) fn sha256_of_digests(digests: impl IntoIterator<Item = Sha256>) -> Sha256 {
    let mut hasher = Hasher::new();
    digests.into_iter().for_each(|digest| hasher.update(digest.0));
    Sha256(hasher.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of FIPS 180-4's own examples.
    #[test]
    fn published_digests() {
        let dir = tempfile::tempdir().unwrap();
        let check = |bytes: &[u8], expected: &str| {
            let path = dir.path().join("file");
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(sha256_of_file(&path).unwrap().to_string(), expected);
        };
        check(b"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        check(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        check(&vec![b'a'; 1_000_000], "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
        assert!(matches!(sha256_of_file(dir.path()), Err(Error::Io { .. })));
    }
}
