//! Adapters trained over a frozen base.

use crate::args::Settings;
use crate::output::Answer;
use crate::table::{count, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;
use weft::Monitor;
use weft::adapters::generate::{GeneratedView, GroupView};
use weft::adapters::train::{self, GroupMeans, TrainedView, Unit};
use weft::config::AdapterRunConfig;

pub(super) fn train(run: &Path, settings: &Settings, monitor: &Monitor) -> anyhow::Result<Answer> {
    let config = AdapterRunConfig::read(run, &settings.overrides()).map_err(weft::Error::from)?;
    let view = train::train(&config, monitor)?;
    Ok(Answer { human: trained(&view), json: serde_json::to_value(&view).context("what was trained")?, done: true })
}

fn trained(view: &TrainedView) -> String {
    let adapters = count(view.rows.len(), "adapter");
    let of = match view.unit {
        Unit::BitsAByte => "bits a byte of passages that none was trained on",
        Unit::Accuracy => "accuracy on sentences that none was trained on",
    };
    let mut text = format!(
        "{}: {adapters} of {} on {} in {:.1} s; {of}\n\n",
        view.output.display(),
        count(view.parameters, "weight"),
        view.device,
        view.train_secs
    );
    let row = |means: &GroupMeans| {
        let figures = [means.base, means.multi_task, means.oracle].map(|figure| format!("{figure:.4}"));
        let wins = format!("{} of {}", means.oracle_wins, means.tasks);
        [vec![means.group.clone(), means.tasks.to_string()], figures.to_vec(), vec![wins]].concat()
    };
    let rows: Vec<Vec<String>> = view.means.iter().map(row).collect();
    text.push_str(&table(&[&view.tasks, "count", "base", "one adapter of all", "own adapter", "own is better"], &rows));
    if let Some(generated) = &view.generated {
        text.push_str(&of_held_out(generated, &view.tasks));
    }
    if !view.skipped.is_empty() {
        let skipped: Vec<String> = view.skipped.iter().map(|(id, reason)| format!("{id} ({reason})")).collect();
        let _ = writeln!(text, "note: left out: {}", skipped.join(", "));
    }
    text
}

/// Rows on held-out tasks, in the unit of the run, and what they mean.
fn of_held_out(view: &GeneratedView, tasks: &str) -> String {
    let mut text = String::new();
    let GeneratedView { evaluation, gap, gain, .. } = view;
    let all = GroupView { group: "held-out".to_owned(), evaluation: evaluation.clone(), gap: gap.clone(), gain: gain.clone() };
    for group in std::iter::once(&all).chain(&view.groups) {
        let _ = writeln!(text, "\n{} {tasks}, {} of them independent\n", group.group, group.evaluation.num_clusters);
        text.push_str(&judged(group, view.unit));
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
    for learnt in &view.learnt {
        let (made, own, shown) = (learnt.sample_secs, view.own_secs, &learnt.shown);
        let share = made / own;
        let _ = writeln!(text, "an adapter from {shown} takes {:.2} ms, {share:.6} of training one ({own:.2} s)", made * 1e3);
    }
    text
}

/// The rows of one group, and what is said of each generator.
fn judged(group: &GroupView, unit: Unit) -> String {
    let share = |share: f64| format!("{:.1} %", share * 100.0);
    let ways = group.gap.iter().zip(&group.gain);
    let rows = group.evaluation.rows.iter().zip(ways).map(|(row, (gap, gain))| {
        let figure = format!("{:.4} ± {:.4}", unit.score(row.accuracy.mean), row.accuracy.se);
        vec![row.name.clone(), figure, share(*gain), share(*gap)]
    });
    let mut text = table(&["adapter", unit.name(), "from the base", "from that of all"], &rows.collect::<Vec<_>>());
    for verdict in &group.evaluation.verdicts {
        let uses = if verdict.uses_condition { "uses what it is shown" } else { "ignores what it is shown" };
        let beaten = if verdict.not_beaten.is_empty() { "none".to_owned() } else { verdict.not_beaten.join(", ") };
        let _ = writeln!(text, "{}: {uses}; not beaten: {beaten}", verdict.generator);
    }
    text
}
