//! Adapters made from some text.

use crate::args::adapter::generate::{Generate, Model};
use crate::output::Answer;
use crate::table::plain;
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::Monitor;
use weft::adapters::generate::{self, GenerateRequest, Like};

pub(super) fn generate(arguments: Generate, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Generate { generator, sample, model, count, seed, like, strength, rank, adapters, encoder, output } = arguments;
    let sample = match (sample.prompt, sample.examples) {
        (_, Some(path)) => Some(generate::read_sample(&path)?),
        (prompt, None) => prompt.map(String::into_bytes),
    };
    let model = model.map(|model| match model {
        Model::Hyper => generate::Model::Hyper,
        Model::Ridge => generate::Model::Ridge,
        Model::Flow => generate::Model::Flow,
    });
    let like = like.map(|name| Like { name, strength });
    let request = GenerateRequest { generator, sample, model, count, seed, like, rank, adapters, encoder, output };
    let view = generate::generate(&request, monitor)?;
    let mut human = String::new();
    for path in &view.written {
        let _ = writeln!(human, "{}", path.display());
    }
    let near = view.nearest.iter().zip(&view.cosines).map(|(name, cosine)| format!("{} ({cosine:.3})", plain(name)));
    let near = near.collect::<Vec<_>>().join(", ");
    let near = if near.is_empty() { near } else { format!("; nearest in training, with cosines: {near}") };
    let _ = writeln!(human, "in {:.1} ms{near}", view.millis);
    for note in &view.notes {
        let _ = writeln!(human, "note: {note}");
    }
    Ok(Answer { human, json: serde_json::to_value(&view).context("what was made")?, done: true })
}
