//! Checkpoints of a zoo as files.

use super::Selection;
use crate::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;
use weft_core::Monitor;
use weft_zoo::Zoo;

pub use weft_zoo::{ExportForm, Graphs, TensorNames};

/// What is exported.
#[derive(Debug, Clone, PartialEq)]
pub struct Export {
    /// The zoo.
    pub zoo: PathBuf,
    /// Which of its checkpoints.
    pub selection: Selection,
    /// As what.
    pub form: ExportForm,
    /// The folder of the files; it is made if it is not there.
    pub folder: PathBuf,
}

/// What an export did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportView {
    /// A file a checkpoint, in the order of the selection.
    pub files: Vec<PathBuf>,
    /// How many of them were there already.
    pub unchanged: usize,
    /// Files that are not as they were asked for, by the reason.
    pub notes: Vec<ExportNote>,
}

/// Files that are not as they were asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ExportNote {
    /// Why.
    pub reason: String,
    /// The files.
    pub files: Vec<PathBuf>,
}

/// Writes selected checkpoints as one file each, named by digest and phrase, and a `README.md` about them.
///
/// # Errors
/// The folder is no zoo, a shard is damaged, an original model is missing or another one, another file is in the way,
/// or a file cannot be written.
pub fn export(export: &Export, monitor: &Monitor) -> Result<ExportView> {
    let zoo = Zoo::open(&export.zoo)?;
    let entries = export.selection.entries(&zoo)?;
    let done = zoo.export_as(&entries, &export.form, &export.folder, monitor).map_err(|e| Error::Zoo(e).during("export"))?;
    let mut notes: Vec<ExportNote> = Vec::new();
    for file in &done {
        let Some(reason) = &file.note else { continue };
        match notes.iter_mut().find(|note| note.reason == *reason) {
            Some(note) => note.files.push(file.path.clone()),
            None => notes.push(ExportNote { reason: reason.clone(), files: vec![file.path.clone()] }),
        }
    }
    let unchanged = done.iter().filter(|file| file.unchanged).count();
    Ok(ExportView { files: done.into_iter().map(|file| file.path).collect(), unchanged, notes })
}
