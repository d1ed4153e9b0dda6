//! The formats of domain types, which are themselves not serializable: what is on disk may change its version
//! without touching the domain, and the other way round.

mod architecture;
mod binding;
mod recipe;

pub(crate) use architecture::ArchitectureFile;
pub use architecture::{architecture_from_toml, architecture_to_toml, family_from_toml, family_to_toml, read_architecture};
pub use binding::{binding_from_json, binding_from_text, binding_to_json, binding_to_text};
pub use recipe::{recipe_from_json, recipe_to_json};

use crate::{Error, Result, read_bounded};
use std::path::Path;

/// The longest text file that is read.
const MAX_TEXT_BYTES: u64 = 16 << 20;

/// Reads a text file of bounded length.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    let bytes = read_bounded(path, MAX_TEXT_BYTES)?;
    String::from_utf8(bytes).map_err(|error| Error::Toml { path: path.to_owned(), reason: format!("it is no text: {error}") })
}
