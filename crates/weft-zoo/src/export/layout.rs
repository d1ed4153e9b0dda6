//! The names and layout that tensors are written in.

use super::ancestry::Ancestry;
use crate::binding::Binding;
use crate::format::binding_from_text;
use crate::import::BINDING;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::PathBuf;
use weft_core::{Architecture, Record};

/// The longest name of a tensor that is written, in bytes.
const MAX_NAME: usize = 1_000;

/// The most axes that `NumPy` reads.
const MAX_AXES: usize = 32;

/// A tensor to write.
pub(super) type Tensor = (String, Vec<usize>, Vec<f32>);

/// How a checkpoint is laid out in its file.
pub(super) enum Layout {
    /// As the architecture has it.
    Own,
    /// As the file had it that it came from.
    Bound(Binding),
    /// In an ONNX model.
    Model(PathBuf),
}

impl Layout {
    /// The tensors of a row.
    pub(super) fn tensors(&self, architecture: &Architecture, row: &[f32]) -> Vec<Tensor> {
        match self {
            Self::Bound(binding) => binding.unbind(architecture, row),
            Self::Own | Self::Model(_) => {
                let tensor = |spec: &weft_core::TensorSpec| (spec.name.clone(), spec.shape.clone(), row[spec.range()].to_vec());
                architecture.tensors().iter().map(tensor).collect()
            }
        }
    }

    /// Names and shapes alone.
    pub(super) fn shapes(&self, architecture: &Architecture) -> Vec<(String, Vec<usize>)> {
        match self {
            Self::Bound(binding) => {
                let repeats = binding.repeats().iter().map(|repeat| &repeat.stored);
                binding.stored().iter().chain(repeats).map(|t| (t.name.clone(), t.shape.clone())).collect()
            }
            Self::Own | Self::Model(_) => architecture.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect(),
        }
    }
}

/// The layout of the file that a checkpoint came from; the architecture's own, with a note, where none is known.
pub(super) fn original(ancestry: &Ancestry<'_>, record: &Record, architecture: &Architecture) -> Result<(Layout, Option<String>)> {
    let from_file = |record: &Record| {
        let format = record.provenance.format.clone()?;
        Some((record.digest, format, record.provenance.metadata.get(BINDING).cloned()))
    };
    let own = |note: String| Ok((Layout::Own, Some(note)));
    match ancestry.nearest(record, from_file)? {
        None => own("it did not come from a file, so its tensors have the architecture's own names".to_owned()),
        Some((digest, _, Some(text))) => {
            let fail = |reason: String| Error::Layout { digest, reason };
            let binding = binding_from_text(&text, architecture).map_err(|error| fail(error.to_string()))?;
            check(&binding).map_err(fail)?;
            Ok((Layout::Bound(binding), None))
        }
        Some((_, format, None)) if format == "onnx" => {
            own("it came from an ONNX model, whose tensors have the architecture's own names here".to_owned())
        }
        // Recorded is what differs from the architecture's own names and layout.
        Some((.., None)) => Ok((Layout::Own, None)),
    }
}

/// Refuses names and shapes that a file cannot have: a catalogue may come from anywhere.
fn check(binding: &Binding) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let repeats = binding.repeats().iter().map(|repeat| &repeat.stored);
    for tensor in binding.stored().iter().chain(repeats) {
        let name = tensor.name.as_str();
        let shown: String = name.chars().take(100).collect();
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') || name == "__metadata__" {
            return Err(format!("no tensor can be called `{shown}`"));
        }
        if tensor.shape.len() > MAX_AXES {
            return Err(format!("`{shown}` has {} axes", tensor.shape.len()));
        }
        if !names.insert(name) {
            return Err(format!("two tensors are called `{shown}`"));
        }
    }
    Ok(())
}
