//! The formats of domain types, which are themselves not serializable: what is on disk may change its version
//! without touching the domain, and the other way round.

mod architecture;
mod binding;
mod recipe;

pub(crate) use architecture::ArchitectureFile;
pub use architecture::{architecture_from_toml, architecture_to_toml, family_from_toml, family_to_toml, read_architecture};
pub use binding::{binding_from_json, binding_from_text, binding_to_json, binding_to_text};
pub use recipe::{recipe_from_json, recipe_to_json};

use crate::{Error, Result};
use std::io::Read;
use std::path::Path;

/// The longest text file that is read.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Reads a text file of bounded length.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
    let mut text = String::new();
    let len = file.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text).map_err(Error::io("read", path))?;
    if len as u64 > MAX_TEXT_BYTES {
        return Err(Error::Toml { path: path.to_owned(), reason: format!("it is longer than {MAX_TEXT_BYTES} bytes") });
    }
    Ok(text)
}
