//! Adapters made from some text.

use crate::args::adapter::generate::{Generate, Model};
use crate::output::Answer;
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::adapters::generate::{self, GenerateRequest, Like};

pub(super) fn generate(arguments: Generate) -> anyhow::Result<Answer> {
    let Generate { generator, sample, model, count, seed, like, strength, output } = arguments;
    let sample = match (sample.prompt, sample.examples) {
        (_, Some(path)) => generate::read_sample(&path)?,
        (prompt, None) => prompt.unwrap_or_default().into_bytes(),
    };
    let model = match model {
        Model::Hyper => generate::Model::Hyper,
        Model::Flow => generate::Model::Flow,
    };
    let like = like.map(|name| Like { name, strength });
    let view = generate::generate(&GenerateRequest { generator, sample, model, count, seed, like, output })?;
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
