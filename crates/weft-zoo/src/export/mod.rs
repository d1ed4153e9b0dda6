//! Checkpoints of a zoo as files: safetensors, npz, or the ONNX model that they came from.
//!
//! An export first decides everything (names of files, layouts, original models and their checksums) and writes then, so
//! that what is refused leaves nothing behind. Each file is whole or not there; one that is there already stays if it
//! has the same content and stops the export if it has another. A `README.md` says what the folder holds, under which
//! licences and from where, and how to load it.

mod ancestry;
mod layout;
mod npz;
mod readme;
mod transformers;

pub use transformers::LlamaExport;

use crate::atomic::AtomicFile;
use crate::import::BINDING;
use crate::tensors::stage_tensors;
use crate::zoo::Zoo;
use crate::{Entry, Error, Purpose, Result, checkpoint_metadata, onnx};
use ancestry::{Ancestry, Originals};
use layout::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use weft_core::{Digest, Monitor};

/// The label that becomes a part of a file's name.
const PHRASE: &str = "phrase";

/// The longest part of a file's name that a label becomes, in characters.
const MAX_SLUG: usize = 60;

/// What checkpoints are written as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportForm {
    /// A safetensors file each, with all that is known of the checkpoint as metadata.
    Safetensors(TensorNames),
    /// An npz archive of `f32` arrays each.
    Npz(TensorNames),
    /// The model that they came from each, with their weights in it.
    Onnx(Graphs),
}

impl ExportForm {
    /// The end of a file's name.
    #[must_use]
    pub fn extension(&self) -> &'static str {
        match self {
            Self::Safetensors(_) => "safetensors",
            Self::Npz(_) => "npz",
            Self::Onnx(_) => "onnx",
        }
    }
}

/// Whose names and layout tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TensorNames {
    /// The architecture's.
    #[default]
    Own,
    /// Those of the file that a checkpoint, or the nearest of its ancestors, came from.
    Original,
}

/// The models that take the weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Graphs {
    /// One for all.
    File(PathBuf),
    /// For each checkpoint the file that it, or the nearest of its ancestors, came from.
    Originals {
        /// The folder that was imported: recorded paths are relative to it.
        folder: PathBuf,
        /// More zoos in which ancestors are looked up.
        ancestors: Vec<PathBuf>,
    },
}

/// A file that an export wrote, or found as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The file.
    pub path: PathBuf,
    /// The checkpoint.
    pub digest: Digest,
    /// Whether the file was there already with the same content.
    pub unchanged: bool,
    /// Why it is not in the names that were asked for, if it is not.
    pub note: Option<String>,
}

/// A file to write.
struct Planned<'a> {
    entry: &'a Entry,
    file_name: String,
    layout: Layout,
    note: Option<String>,
}

/// What decides the layout of a checkpoint, with a note where that is not the one that was asked for.
type Layouts<'a> = Box<dyn FnMut(&Entry) -> Result<(Layout, Option<String>)> + 'a>;

impl Zoo {
    /// Writes checkpoints as files of their own into a folder, which is made if it is not there, with a `README.md`.
    ///
    /// The files are named by the beginnings of the digests, and by the label `phrase` where there is one.
    ///
    /// # Errors
    /// [`Error::NoOriginal`] and [`Error::OtherFile`] for a checkpoint whose original model is not known, not there or
    /// another one, [`Error::Layout`] for a recorded layout that cannot be written, and [`Error::Quarantined`]: nothing
    /// is written then. [`Error::Exists`] rather than replacing another file, [`Error::Onnx`] for a model that does not
    /// take the weights, [`Error::Interrupted`] between two files, and those of [`Zoo::load`]: the files before stay.
    pub fn export_as(&self, entries: &[Entry], form: &ExportForm, folder: &Path, monitor: &Monitor<'_>) -> Result<Vec<Exported>> {
        let planned = self.plan(entries, form, folder)?;
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        monitor.start("export", planned.len() as u64, "networks");
        let mut exported = Vec::with_capacity(planned.len());
        for plan in &planned {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let path = folder.join(&plan.file_name);
            let unchanged = !self.stage(plan, form, folder)?.commit_unless_other(&path)?;
            exported.push(Exported { path, digest: plan.entry.record().digest, unchanged, note: plan.note.clone() });
            monitor.progress(exported.len() as u64);
        }
        if !planned.is_empty() {
            readme::write(&readme::Contents { zoo: self, form, planned: &planned }, folder)?;
        }
        monitor.finish();
        Ok(exported)
    }

    /// Decides what to write, and reads no weights.
    fn plan<'a>(&self, entries: &'a [Entry], form: &ExportForm, folder: &Path) -> Result<Vec<Planned<'a>>> {
        readme::check_replaceable(folder)?;
        if let Some(entry) = entries.iter().find(|entry| entry.record().quarantine.is_some()) {
            // With the words of a load, which would refuse it after the files before it were written.
            self.load(std::slice::from_ref(entry), Purpose::Evaluate)?;
        }
        let names = file_names(entries, form.extension());
        let mut layouts: Layouts<'_> = match form {
            ExportForm::Safetensors(TensorNames::Own) | ExportForm::Npz(TensorNames::Own) => Box::new(|_| Ok((Layout::Own, None))),
            ExportForm::Safetensors(TensorNames::Original) | ExportForm::Npz(TensorNames::Original) => {
                let ancestry = Ancestry::new(self, &[])?;
                Box::new(move |entry| layout::original(&ancestry, entry.record(), self.architecture()))
            }
            ExportForm::Onnx(Graphs::File(path)) => Box::new(|_| Ok((Layout::Model(path.clone()), None))),
            ExportForm::Onnx(Graphs::Originals { folder, ancestors }) => {
                let mut originals = Originals::new(Ancestry::new(self, ancestors)?, folder);
                Box::new(move |entry| Ok((Layout::Model(originals.of(entry.record())?), None)))
            }
        };
        let plan = |(entry, file_name)| {
            let (layout, note) = layouts(entry)?;
            Ok(Planned { entry, file_name, layout, note })
        };
        entries.iter().zip(names).map(plan).collect()
    }

    /// Writes a checkpoint into a temporary file.
    fn stage(&self, plan: &Planned<'_>, form: &ExportForm, folder: &Path) -> Result<AtomicFile> {
        let network = self.load(std::slice::from_ref(plan.entry), Purpose::Evaluate)?;
        let (architecture, row) = (self.architecture(), network.row(0));
        match (&plan.layout, form) {
            (Layout::Model(original), _) => onnx::stage_onnx(original, architecture, row, folder),
            (layout, ExportForm::Npz(_)) => npz::stage(folder, &layout.tensors(architecture, row)),
            (layout, _) => {
                let tensors = layout.tensors(architecture, row);
                let tensors: Vec<_> =
                    tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect();
                let mut metadata = checkpoint_metadata(architecture, plan.entry.record());
                if matches!(layout, Layout::Bound(_)) {
                    // The file itself has that layout now.
                    metadata.remove(BINDING);
                }
                stage_tensors(folder, &tensors, &metadata)
            }
        }
    }
}

/// A name for each checkpoint's file; where two digests begin alike, with the whole digest.
fn file_names(entries: &[Entry], extension: &str) -> Vec<String> {
    let mut count: BTreeMap<String, BTreeSet<Digest>> = BTreeMap::new();
    for entry in entries {
        let digest = entry.record().digest;
        count.entry(digest.short()).or_default().insert(digest);
    }
    let name = |entry: &Entry| {
        let record = entry.record();
        let short = record.digest.short();
        let stem = if count[&short].len() > 1 { record.digest.to_string() } else { short };
        let phrase = record.labels.get(PHRASE).map(|phrase| slug(phrase)).filter(|phrase| !phrase.is_empty());
        phrase.map_or_else(|| format!("{stem}.{extension}"), |phrase| format!("{stem}-{phrase}.{extension}"))
    };
    entries.iter().map(name).collect()
}

/// Text as a part of a file's name: letters and digits in lower case, and one `_` for whatever else.
fn slug(text: &str) -> String {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).collect();
    words.join("_").chars().take(MAX_SLUG).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_parts_of_names() {
        let check = |text: &str, expected: &str| assert_eq!(slug(text), expected);
        check("Hey Hal", "hey_hal");
        check("../../etc/passwd", "etc_passwd");
        check("привет, мир!", "привет_мир");
        check("\0\n|", "");
        check(&"long ".repeat(99), &"long_".repeat(12));
    }
}
