//! Bindings as JSON, so that a catalogue can keep the layout that a network came in and give it back in that.

use super::MAX_TEXT_BYTES;
use crate::binding::{Binding, Part, Repeat, StoredTensor};
use crate::{Error, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use serde::{Deserialize, Serialize};
use std::io::Read as _;
use weft_core::Architecture;

/// JSON up to this length stays readable; that of a large network, which repeats itself, is compressed.
const MAX_PLAIN_BYTES: usize = 4 << 10;

/// Before a binding that is compressed.
const DEFLATED: &str = "deflate:";

/// Writes a binding as the text that a catalogue keeps: JSON or, where that is long, JSON compressed.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "reading from memory cannot fail")]
pub fn binding_to_text(binding: &Binding) -> String {
    let json = binding_to_json(binding);
    if json.len() <= MAX_PLAIN_BYTES {
        return json;
    }
    let mut bytes = Vec::new();
    DeflateEncoder::new(json.as_bytes(), Compression::best()).read_to_end(&mut bytes).expect("reading from memory cannot fail");
    format!("{DEFLATED}{}", STANDARD.encode(bytes))
}

/// Reads what [`binding_to_text`] wrote.
///
/// # Errors
/// As [`binding_from_json`], and for text that cannot be decompressed or becomes too long.
pub fn binding_from_text(text: &str, architecture: &Architecture) -> Result<Binding> {
    let Some(encoded) = text.strip_prefix(DEFLATED) else { return binding_from_json(text, architecture) };
    let fail = |reason: String| Error::Json { what: "binding", reason };
    let bytes = STANDARD.decode(encoded).map_err(|error| fail(error.to_string()))?;
    let mut json = String::new();
    let mut decoder = DeflateDecoder::new(bytes.as_slice()).take(MAX_TEXT_BYTES + 1);
    let len = decoder.read_to_string(&mut json).map_err(|error| fail(error.to_string()))?;
    if len as u64 > MAX_TEXT_BYTES {
        return Err(fail(format!("it is longer than {MAX_TEXT_BYTES} bytes")));
    }
    binding_from_json(&json, architecture)
}

/// Writes a binding as one line of JSON; equal bindings give equal text.
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "numbers and names always serialize")]
pub fn binding_to_json(binding: &Binding) -> String {
    let tensor = |t: &StoredTensor| TensorJson { name: t.name.clone(), shape: t.shape.clone() };
    let json = BindingJson {
        naming: binding.naming().to_owned(),
        stored: binding.stored().iter().map(tensor).collect(),
        parts: binding.parts().iter().map(|p| (p.stored, p.transposed, p.values.start, p.values.end)).collect(),
        repeats: binding.repeats().iter().map(|r| (tensor(&r.stored), r.of)).collect(),
        ignored: binding.ignored().to_vec(),
    };
    serde_json::to_string(&json).expect("numbers and names always serialize")
}

/// Reads a binding of an architecture from JSON.
///
/// # Errors
/// [`Error::Json`] with line and column, or with what does not fit the architecture.
pub fn binding_from_json(text: &str, architecture: &Architecture) -> Result<Binding> {
    let fail = |reason: String| Error::Json { what: "binding", reason };
    let json: BindingJson = serde_json::from_str(text).map_err(|e| fail(e.to_string()))?;
    let tensor = |t: TensorJson| StoredTensor { name: t.name, shape: t.shape };
    let part = |(stored, transposed, start, end)| Part { stored, transposed, values: start..end };
    let repeat = |(stored, of)| Repeat { stored: tensor(stored), of };
    let binding = Binding::new(
        json.naming,
        json.stored.into_iter().map(tensor).collect(),
        json.parts.into_iter().map(part).collect(),
        json.repeats.into_iter().map(repeat).collect(),
        json.ignored,
    );
    binding.check(architecture).map_err(fail)?;
    Ok(binding)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BindingJson {
    naming: String,
    stored: Vec<TensorJson>,
    /// Stored tensor, transposed, start and end of its values.
    parts: Vec<(usize, bool, usize, usize)>,
    /// Stored tensor, and which of the architecture's it repeats.
    repeats: Vec<(TensorJson, usize)>,
    ignored: Vec<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorJson {
    name: String,
    shape: Vec<usize>,
}
