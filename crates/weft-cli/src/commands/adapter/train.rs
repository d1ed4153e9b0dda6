//! Adapters trained over a frozen base.

use crate::args::Settings;
use crate::output::Answer;
use crate::table::{count, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;
use weft::Monitor;
use weft::adapters::generate::GeneratedView;
use weft::adapters::train::{self, LanguageMeans, TrainedView};
use weft::config::AdapterRunConfig;

pub(super) fn train(run: &Path, settings: &Settings, monitor: &Monitor) -> anyhow::Result<Answer> {
    let config = AdapterRunConfig::read(run, &settings.overrides()).map_err(weft::Error::from)?;
    let view = train::train(&config, monitor)?;
    Ok(Answer { human: trained(&view), json: serde_json::to_value(&view).context("what was trained")?, done: true })
}

fn trained(view: &TrainedView) -> String {
    let adapters = count(view.rows.len(), "adapter");
    let mut text = format!(
        "{}: {adapters} of {} on {} in {:.1} s; bits a byte of passages that none was trained on\n\n",
        view.output.display(),
        count(view.parameters, "weight"),
        view.device,
        view.train_secs
    );
    let row = |name: &str, means: &LanguageMeans| {
        let bits = [means.base, means.multi_task, means.oracle].map(|bits| format!("{bits:.4}"));
        let wins = format!("{} of {}", means.oracle_wins, means.languages);
        [vec![name.to_owned(), means.languages.to_string()], bits.to_vec(), vec![wins]].concat()
    };
    let rows = [row("of training", &view.means[0]), row("held out", &view.means[1])];
    text.push_str(&table(&["languages", "count", "base", "one adapter of all", "own adapter", "own is better"], &rows));
    if let Some(generated) = &view.generated {
        text.push_str(&of_held_out(generated));
    }
    if !view.skipped.is_empty() {
        let skipped: Vec<String> = view.skipped.iter().map(|(id, reason)| format!("{id} ({reason})")).collect();
        let _ = writeln!(text, "note: left out: {}", skipped.join(", "));
    }
    text
}

/// Rows on held-out languages, in bits a byte, and what they mean.
fn of_held_out(view: &GeneratedView) -> String {
    let rows = view.evaluation.rows.iter().zip(&view.gap).map(|(row, gap)| {
        vec![row.name.clone(), format!("{:.4} ± {:.4}", -row.accuracy.mean, row.accuracy.se), format!("{:.1} %", gap * 100.0)]
    });
    let mut text = format!("\nheld-out languages, {} of them independent\n\n", view.evaluation.num_clusters);
    text.push_str(&table(&["adapter", "bits a byte", "of the gap"], &rows.collect::<Vec<_>>()));
    for verdict in &view.evaluation.verdicts {
        let uses = if verdict.uses_condition { "uses what it is shown" } else { "ignores what it is shown" };
        let beaten = if verdict.not_beaten.is_empty() { "none".to_owned() } else { verdict.not_beaten.join(", ") };
        let _ = writeln!(text, "{}: {uses}; not beaten: {beaten}", verdict.generator);
    }
    if !view.merges_lost.is_empty() {
        let lost: Vec<String> = view.merges_lost.iter().map(|(name, lost)| format!("{name}: {:.1} %", lost * 100.0)).collect();
        let _ = writeln!(text, "energy of updates that truncation to the rank lost: {}", lost.join("; "));
    }
    if let Some(few) = &view.few_steps {
        for row in few.from_all.iter().chain([&few.from_hyper]) {
            let (name, millis, rate) = (&row.name, row.sample_secs * 1e3, row.learning_rate);
            let _ = writeln!(text, "{name}: {millis:.2} ms from a sample, learning rate {rate}");
        }
        let _ = writeln!(text, "of {} training languages, the best is: {}", few.tried, few.chosen);
    }
    let [made, own] = view.sample_secs;
    let _ = writeln!(text, "an adapter from a sample takes {:.2} ms, {:.6} of training one ({own:.2} s)", made * 1e3, made / own);
    text
}
