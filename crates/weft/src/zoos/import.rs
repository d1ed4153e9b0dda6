//! Bringing files into a zoo.

use super::FileFault;
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{Activation, Architecture, Monitor};
use weft_zoo::{ImportOptions, ImportReport, LabelRule, Refusal, Zoo};

/// How files are imported.
#[derive(Debug, Clone, PartialEq)]
pub struct Import {
    /// Files, or folders of `.safetensors` files.
    pub paths: Vec<PathBuf>,
    /// The zoo that they go into; it is made if it is not there.
    pub zoo: PathBuf,
    /// An architecture file; without it a perceptron is inferred from the first file's shapes.
    pub architecture: Option<PathBuf>,
    /// The activation, where neither shapes nor settings beside the file tell it.
    pub activation: Option<Activation>,
    /// Fraction of the runs that is held out.
    pub test_fraction: f64,
    /// SPDX licence expression of files that name none; without it, licence files beside or above them are looked for.
    pub licence: Option<String>,
    /// The licences that are let in; all, if there are none.
    pub allowed_licences: Vec<String>,
    /// Rules for labels: `KEY=file-stem`, `KEY=folder`, `KEY=folder:N` or `KEY=text`.
    pub labels: Vec<String>,
}

/// What an import did.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImportView {
    /// The zoo.
    pub zoo: PathBuf,
    /// Checkpoints that went in.
    pub read: usize,
    /// Files that were there already, with what they are the same as.
    pub skipped: Vec<FileFault>,
    /// Networks that are in the catalogue with a reason and in no split.
    pub quarantined: Vec<FileFault>,
    /// Files that do not fit, with the tensor that does not, or whose licence is not allowed.
    pub refused: Vec<FileFault>,
    /// Files in the folders whose names say that they are no checkpoints.
    pub ignored: usize,
}

/// Imports checkpoints; what does not fit is refused by name and the rest goes in.
///
/// A zoo that is not there is made once there is something to put into it.
///
/// # Errors
/// No file is found, or the zoo cannot be written.
pub fn import(import: &Import, monitor: &Monitor) -> Result<ImportView> {
    let options = ImportOptions {
        test_fraction: import.test_fraction,
        licence: import.licence.clone(),
        allowed_licences: import.allowed_licences.clone(),
        labels: import.labels.iter().map(|rule| LabelRule::parse(rule)).collect::<Result<_, _>>()?,
    };
    if Zoo::exists(&import.zoo) {
        let mut zoo = Zoo::open(&import.zoo)?;
        return Ok(view(import, weft_zoo::import(&mut zoo, &import.paths, &options, monitor)?));
    }
    let architecture = match &import.architecture {
        Some(path) => weft_zoo::find_architecture(path)?,
        None => match infer(import)? {
            Ok(architecture) => architecture,
            Err(refused) => return Ok(view(import, ImportReport { refused, ..ImportReport::default() })),
        },
    };
    let examined = weft_zoo::examine(None, &architecture, &import.paths, &options, monitor)?;
    if examined.is_empty() {
        return Ok(view(import, examined.into_report()));
    }
    let name = import.zoo.file_name().map_or_else(|| "zoo".to_owned(), |name| name.to_string_lossy().into_owned());
    let mut zoo = Zoo::create(&import.zoo, &name, Arc::new(architecture), None)?;
    Ok(view(import, examined.store(&mut zoo, monitor)?))
}

fn view(import: &Import, report: ImportReport) -> ImportView {
    let faults = |refusals: Vec<Refusal>| refusals.into_iter().map(|r| FileFault { path: r.path, reason: r.reason }).collect();
    ImportView {
        zoo: import.zoo.clone(),
        read: report.read,
        skipped: faults(report.skipped),
        quarantined: faults(report.quarantined),
        refused: faults(report.refused),
        ignored: report.ignored,
    }
}

/// The architecture of the first file that shows one, or why each file does not.
fn infer(import: &Import) -> Result<std::result::Result<Architecture, Vec<Refusal>>> {
    let hints = weft_zoo::Hints { activation: import.activation, ..weft_zoo::Hints::default() };
    let of_file = |path: &Path| {
        if weft_zoo::is_onnx(path) {
            return Ok(weft_zoo::onnx::read_onnx(path)?.architecture);
        }
        let sources = weft_zoo::open_sources(path)?;
        let first = sources.first().ok_or_else(|| weft_zoo::Error::NotInferred {
            path: path.to_owned(),
            reason: "it holds no network".to_owned(),
            hint: "name another file",
        })?;
        Ok(weft_zoo::infer(first, &hints)?.architecture)
    };
    let mut refused = Vec::new();
    for path in weft_zoo::find_checkpoints(&import.paths)? {
        match of_file(&path) {
            Ok(architecture) => return Ok(Ok(architecture)),
            Err::<_, weft_zoo::Error>(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
                refused.push(Refusal { path, reason: format!("{error}{cause}") });
            }
        }
    }
    if refused.is_empty() { Err(Error::NothingToImport { paths: import.paths.clone() }) } else { Ok(Err(refused)) }
}
