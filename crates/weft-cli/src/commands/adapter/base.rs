//! Bases of adapters: for Transformers, and what they compute.

use crate::args::adapter::base::{Export, Logits};
use crate::output::Answer;
use crate::table::{count, plain};
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::adapters::{self, BaseExport, LogitsRequest, Prompt};

pub(super) fn export(arguments: Export) -> anyhow::Result<Answer> {
    let Export { weights, output, vocabulary, name, licence } = arguments;
    let view = adapters::export_base(&BaseExport { input: weights, output, vocabulary, name, licence })?;
    let mut human = format!("{}: `{}`, {}\n", view.output.display(), plain(&view.name), count(view.parameters, "weight"));
    if view.from == "interleaved" {
        human.push_str("rows of queries and keys came from the order of llama2.c into that of Transformers\n");
    }
    super::notes(&mut human, &view.notes);
    Ok(Answer { human, json: serde_json::to_value(&view).context("a base")?, done: true })
}

pub(super) fn logits(arguments: Logits) -> anyhow::Result<Answer> {
    let Logits { base, adapter, base_name, prompt, vocabulary, output } = arguments;
    let prompt = match (prompt.prompt, vocabulary) {
        (Some(text), Some(vocabulary)) => Prompt::Text(text, vocabulary),
        _ => Prompt::Tokens(prompt.tokens.unwrap_or_default()),
    };
    let view = adapters::logits(&LogitsRequest { base, base_name, adapter, prompt, output })?;
    let tokens = count(view.tokens.len(), "token");
    let output = view.output.display();
    let mut human = match view.next {
        Some(_) => format!("{output}: logits of {tokens}, {} each\n", view.vocabulary),
        None => format!("{output}: the vector of {tokens}, {} numbers\n", view.vocabulary),
    };
    if let (Some(loss), Some(next)) = (view.loss, view.next) {
        let _ = writeln!(human, "{loss:.4} nats a token; the likeliest behind the last is {next}");
    }
    super::notes(&mut human, &view.notes);
    Ok(Answer { human, json: serde_json::to_value(&view).context("logits")?, done: true })
}
