//! Adapters made from some text.

use crate::args::adapter::generate::{Generate, Model};
use crate::output::Answer;
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::adapters::generate::{self, GenerateRequest};

/// The longest file of text that is read.
const MAX_TEXT_BYTES: u64 = 1 << 20;

pub(super) fn generate(arguments: Generate) -> anyhow::Result<Answer> {
    let Generate { generator, sample, model, count, seed, output } = arguments;
    let sample = match (sample.prompt, sample.examples) {
        (_, Some(path)) => {
            let shown = path.display();
            let len = std::fs::metadata(&path).with_context(|| format!("cannot read `{shown}`"))?.len();
            anyhow::ensure!(len <= MAX_TEXT_BYTES, "`{shown}` has {len} bytes, and at most {MAX_TEXT_BYTES} are read");
            std::fs::read(&path).with_context(|| format!("cannot read `{shown}`"))?
        }
        (prompt, None) => prompt.unwrap_or_default().into_bytes(),
    };
    let model = match model {
        Model::Hyper => generate::Model::Hyper,
        Model::Flow => generate::Model::Flow,
    };
    let view = generate::generate(&GenerateRequest { generator, sample, model, count, seed, output })?;
    let mut human = String::new();
    for path in &view.written {
        let _ = writeln!(human, "{}", path.display());
    }
    let _ = writeln!(human, "in {:.1} ms; nearest in training: {}", view.millis, view.nearest.join(", "));
    for note in &view.notes {
        let _ = writeln!(human, "note: {note}");
    }
    Ok(Answer { human, json: serde_json::to_value(&view).context("what was made")?, done: true })
}
