//! A folder's path, spelled after what is in it.
//!
//! vLLM keeps what it has computed of prompts and finds it by the adapter's name and path, not by what the adapter holds.
//! An adapter that is loaded from the same folder with other weights would so go on from what the old one computed. A path
//! may end in any number of `/` and `/.` and name the same folder: here they spell a digest, so other weights are
//! another path, and the same weights the same one. vLLM before 0.31 looks at the name alone, which this does not mend.
//!
//! # References
//! vLLM 0.32, `vllm/v1/core/kv_cache_utils.py` (`_gen_lora_extra_hash_keys`); its issues 30931 and 42125.

use crate::Result;
use std::path::Path;
use weft_core::Digest;
use weft_zoo::adapter::AdapterFile;

/// Bits of the digest that are spelled.
const BITS: u32 = 32;

/// The version of vLLM, major and minor, from which on the path counts.
pub(super) const VLLM_KEEPS_BY_PATH: [u32; 2] = [0, 31];

/// The path of an adapter's folder, spelled after its files.
///
/// # Errors
/// A file that cannot be read.
pub(super) fn spelled(folder: &Path, file: &AdapterFile) -> Result<String> {
    let mut files: Vec<_> = file.files.iter().collect();
    files.sort();
    let digests = files.into_iter().map(|file| weft_zoo::sha256_of_file(file)).collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(path_of(folder, &Digest::of_parts(digests.iter().map(|digest| digest.0.as_slice()))))
}

fn path_of(folder: &Path, digest: &Digest) -> String {
    let [a, b, c, d, ..] = digest.as_bytes();
    let bits = u32::from_le_bytes([*a, *b, *c, *d]);
    let mut path = folder.display().to_string();
    for bit in 0..BITS {
        path.push_str(if bits >> bit & 1 == 1 { "/." } else { "/" });
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_content_is_another_path_of_the_same_folder() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let paths = [b"old".as_slice(), b"new", b"old"].map(|content| path_of(&folder, &Digest::of_bytes(content)));
        assert_eq!(paths[0], paths[2]);
        assert_ne!(paths[0], paths[1]);
        for path in paths {
            assert!(path.starts_with(folder.to_str().unwrap()), "{path}");
            assert_eq!(Path::new(&path).canonicalize().unwrap(), folder);
            assert_eq!(Path::new(&path).join("adapter_config.json"), folder.join("adapter_config.json"));
        }
    }
}
