//! A generator learnt from adapters that are there.

use crate::args::adapter::learn::Learn;
use crate::args::adapter::space::Per;
use crate::output::Answer;
use crate::table::{count, plain, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use weft::Monitor;
use weft::adapters::codec;
use weft::adapters::learn::{self, CheckView, Encoder, LearntView};

pub(super) fn learn(arguments: Learn, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Learn { adapters, descriptions, encoder, per, components, steps, width, folds, seed, device, output } = arguments;
    let per = match per {
        Per::Adapter => codec::Per::Adapter,
        Per::Module => codec::Per::Module,
    };
    let encoder = Encoder::parse(&encoder);
    let request = learn::Learn { adapters, descriptions, encoder, per, components, steps, width, folds, seed, device, output };
    let view = learn::learn(&request, monitor)?;
    Ok(Answer { human: learnt(&view), json: serde_json::to_value(&view).context("what was learnt")?, done: true })
}

fn learnt(view: &LearntView) -> String {
    let of = count(view.adapters, "adapter");
    let base = view.base.as_ref().map_or_else(String::new, |base| format!(" of `{}`", plain(base)));
    let [grams, learning, _] = view.secs;
    let mut text = format!(
        "{}: learnt from {of}{base} of {} and {}; inner products took {grams:.1} s, learning {learning:.1} s\ncodes of {} keep {:.2} % of the variance\n",
        view.generator.display(),
        count(view.modules, "module"),
        count(view.descriptions, "description"),
        count(view.code_len, "number"),
        view.kept_variance * 100.0
    );
    if let Some(check) = &view.check {
        text.push_str(&checked(check));
    }
    for note in &view.notes {
        let _ = writeln!(text, "note: {}", plain(note));
    }
    text
}

fn checked(check: &CheckView) -> String {
    let rows = check.evaluation.rows.iter().zip(&check.distances);
    let rows: Vec<_> = rows
        .map(|(row, distance)| {
            let part = format!("{:.1} ± {:.1}", row.accuracy.mean * 100.0, row.accuracy.se * 100.0);
            vec![row.name.clone(), part, format!("{distance:.2}")]
        })
        .collect();
    let mut text = format!(
        "\nadapters that were left out, {} folds, {} of them independent; what is foretold of their variance about the mean, and how far it is from what it was made of:\n\n",
        check.folds, check.evaluation.num_clusters
    );
    text.push_str(&table(&["", "foretold, %", "distance, d₁"], &rows));
    for verdict in &check.evaluation.verdicts {
        let than: Vec<&str> = check
            .evaluation
            .comparisons
            .iter()
            .filter(|c| c.ours == verdict.generator && c.better)
            .map(|c| c.with.as_str())
            .collect();
        let than = if than.is_empty() { "none of the rows".to_owned() } else { than.join(", ") };
        let _ = writeln!(text, "{}: nearer by two standard errors, paired, than {than}", verdict.generator);
    }
    let _ = writeln!(
        text,
        "\nno combination of the others reaches {:.1} ± {:.1} % of it",
        check.beyond.mean * 100.0,
        check.beyond.se * 100.0
    );
    text
}
