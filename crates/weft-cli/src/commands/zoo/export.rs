//! `weft zoo export`.

use crate::args::zoo::{Export, Form, Names};
use crate::output::Answer;
use crate::table::{count, plain};
use anyhow::{Context as _, bail};
use std::fmt::Write as _;
use weft::Monitor;
use weft::zoos::{self, ExportForm, Graphs, TensorNames};

pub(super) fn export(arguments: Export, monitor: &Monitor) -> anyhow::Result<Answer> {
    let form = form(&arguments)?;
    let Export { zoo, output: folder, selection, .. } = arguments;
    let export = zoos::Export { zoo, selection: super::selection(selection)?, form, folder };
    let view = zoos::export(&export, monitor)?;
    let mut human = format!("{} in {}\n", count(view.files.len(), "network"), export.folder.display());
    if view.unchanged > 0 {
        let _ = writeln!(human, "{} there already", count(view.unchanged, "network"));
    }
    for note in &view.notes {
        let _ = writeln!(human, "note: {}: {}", count(note.files.len(), "network"), plain(&note.reason));
    }
    Ok(Answer { human, json: serde_json::to_value(&view).context("an export")?, done: true })
}

/// What is to be written; options that would have no effect are refused.
fn form(arguments: &Export) -> anyhow::Result<ExportForm> {
    let Export { form, names, graph, originals, ancestors, .. } = arguments;
    let has_graph = graph.is_some() || originals.is_some();
    let names = match (names, form) {
        (Names::Own, _) => TensorNames::Own,
        (Names::Original, Form::Onnx) => bail!("`--names` has no meaning with `--as onnx`: a model keeps its own names"),
        (Names::Original, _) => TensorNames::Original,
    };
    Ok(match (form, graph, originals) {
        (Form::Safetensors | Form::Npz, ..) if has_graph => bail!("`--graph` and `--originals` need `--as onnx`"),
        (Form::Safetensors, ..) => ExportForm::Safetensors(names),
        (Form::Npz, ..) => ExportForm::Npz(names),
        (Form::Onnx, Some(graph), _) => ExportForm::Onnx(Graphs::File(graph.clone())),
        (Form::Onnx, None, Some(folder)) => {
            ExportForm::Onnx(Graphs::Originals { folder: folder.clone(), ancestors: ancestors.clone() })
        }
        (Form::Onnx, None, None) => bail!(
            "`--as onnx` needs the models that take the weights: `--graph FILE` for all, or `--originals DIR`, the folder that was imported"
        ),
    })
}
