//! `weft zoo …`.

mod canonicalize;
mod export;
mod figures;
mod import;

use crate::args::zoo::{Merge, Selection, Split, Zoo};
use crate::output::Answer;
use crate::table::{count, plain, table};
use anyhow::Context as _;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use weft::zoos::{self, CheckpointView, FileFault, SplitRequest};
use weft::{Monitor, Stage};

/// Runs a command on zoos; one line each.
pub(super) fn dispatch(command: Zoo, monitor: &Monitor) -> anyhow::Result<Answer> {
    match command {
        Zoo::Train(arguments) => super::run::until(&arguments, Stage::Zoo, monitor),
        Zoo::Import(arguments) => import::import(arguments, monitor),
        Zoo::Ls { zoo, selection, columns } if columns.is_empty() => list(&zoo, selection),
        Zoo::Ls { zoo, selection, columns } => list_columns(&zoo, selection, &columns),
        Zoo::Show { zoo, digest } => show(&zoo, &digest),
        Zoo::Nearest { zoo, file, count } => {
            let found = zoos::nearest(&zoo, &file, count, monitor)?;
            let row = |n: &zoos::Near| {
                vec![n.digest[..12].to_owned(), n.run.clone(), format!("{:.4}", n.distance), format!("{:.4}", n.relative)]
            };
            let human = table(&["digest", "run", "distance", "relative"], &found.iter().map(row).collect::<Vec<_>>());
            Ok(Answer { human, json: serde_json::to_value(&found).context("the nearest networks")?, done: true })
        }
        Zoo::Canonicalize(arguments) => canonicalize::canonicalize(arguments, monitor),
        Zoo::Stats(arguments) => figures::stats(arguments, monitor),
        Zoo::Export(arguments) => export::export(arguments, monitor),
        Zoo::Split(arguments) => split(arguments, monitor),
        Zoo::Merge(arguments) => merge(arguments, monitor),
        Zoo::Verify { zoo, prune } => figures::verify(&zoo, prune, monitor),
    }
}

fn selection(arguments: Selection) -> anyhow::Result<zoos::Selection> {
    let split = arguments.split.map(|split| split.parse()).transpose().map_err(weft::Error::Core)?;
    let Selection { final_only, min_accuracy, run, condition, sort, limit, offset, .. } = arguments;
    let rest = zoos::Selection::default();
    Ok(zoos::Selection { split, final_only, min_accuracy, run, condition, sort, limit, offset, ..rest })
}

/// One line a file with what is to be said of it.
fn describe(text: &mut String, what: &str, faults: &[FileFault]) {
    for fault in faults {
        let path = fault.path.display().to_string();
        // A reason that names the file already needs no other name before it.
        let name = if fault.reason.contains(&path) { String::new() } else { format!("{path}: ") };
        let _ = writeln!(text, "{what}: {}", plain(&format!("{name}{}", fault.reason)));
    }
}

fn list(zoo: &Path, selection: Selection) -> anyhow::Result<Answer> {
    let views = zoos::list(zoo, &self::selection(selection)?)?;
    let row = |v: &CheckpointView| {
        let step = v.step.map_or_else(|| "–".to_owned(), |s| s.to_string());
        let accuracy = v.metrics.get("validation-accuracy").map_or_else(|| "–".to_owned(), |a| format!("{a:.4}"));
        let last = if v.is_final { "last" } else { "" };
        vec![v.digest[..12].to_owned(), v.run.clone(), v.split.unwrap_or("none").to_owned(), step, last.to_owned(), accuracy]
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    let human = table(&["digest", "run", "split", "step", "", "accuracy"], &rows);
    Ok(Answer { human, json: serde_json::to_value(&views).context("a list of checkpoints")?, done: true })
}

fn list_columns(zoo: &Path, selection: Selection, columns: &[String]) -> anyhow::Result<Answer> {
    let rows = zoos::list_columns(zoo, &self::selection(selection)?, columns)?;
    let cell = |(column, value): (&String, &Value)| match value {
        Value::Null => "–".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(digest) if column == "digest" => digest.chars().take(12).collect(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    };
    let cells: Vec<Vec<String>> = rows.iter().map(|row| columns.iter().zip(row).map(cell).collect()).collect();
    let head: Vec<&str> = columns.iter().map(String::as_str).collect();
    let object = |row: Vec<Value>| columns.iter().cloned().zip(row).collect::<serde_json::Map<_, _>>();
    let json = rows.into_iter().map(|row| Value::Object(object(row))).collect();
    Ok(Answer { human: table(&head, &cells), json, done: true })
}

fn show(zoo: &Path, digest: &str) -> anyhow::Result<Answer> {
    let view = zoos::show(zoo, digest)?;
    let yes = |flag: bool| if flag { "yes" } else { "no" }.to_owned();
    let mut rows = vec![("digest".to_owned(), view.digest.clone()), ("run".to_owned(), view.run.clone())];
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    row("split", view.split.unwrap_or("none").to_owned());
    if let Some(reason) = &view.quarantine {
        row("quarantined", reason.clone());
    }
    row("step", view.step.map_or_else(|| "unknown".to_owned(), |s| s.to_string()));
    row("last of its run", yes(view.is_final));
    row("source", view.source.clone());
    row("licence", view.licence.clone());
    row("synthetic", yes(view.synthetic));
    view.format.iter().for_each(|format| row("format", format.clone()));
    view.file_sha256.iter().for_each(|sha256| row("sha256 of the file", sha256.clone()));
    view.place.iter().for_each(|(shard, at)| row("weights", format!("row {at} of shard {shard}")));
    view.max_deviation.iter().for_each(|deviation| row("max-deviation", format!("{deviation:e}")));
    view.metrics.iter().for_each(|(name, value)| row(name, format!("{value:.6}")));
    view.labels.iter().for_each(|(key, value)| row(&format!("label {key}"), value.clone()));
    view.metadata.iter().for_each(|(key, value)| row(&format!("metadata {key}"), value.clone()));
    view.parents.iter().for_each(|parent| row("parent", parent.clone()));
    view.recipe.iter().for_each(|recipe| row("recipe", recipe.to_string()));
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let human =
        rows.iter().fold(String::new(), |text, (name, value)| text + &format!("{:<width$}  {}\n", plain(name), plain(value)));
    Ok(Answer { human, json: serde_json::to_value(&view).context("a checkpoint")?, done: true })
}

fn split(arguments: Split, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Split { zoo, by, test_fraction, seed, condition, output } = arguments;
    let request = SplitRequest { zoo, output, by, test_fraction, seed, condition };
    let done = zoos::split(&request, monitor)?;
    let mut human = format!(
        "{} and {} in {}: {} of {} held out\n",
        count(done.train, "training checkpoint"),
        count(done.test, "test checkpoint"),
        done.zoo.display(),
        done.test_groups,
        count(done.groups, "group"),
    );
    if done.without_label > 0 {
        let without = count(done.without_label, "checkpoint");
        let _ = writeln!(human, "{without} without `{}`: held together by their runs and parents alone", request.by);
    }
    Ok(Answer { human, json: serde_json::to_value(&done).context("a division")?, done: true })
}

fn merge(arguments: Merge, monitor: &Monitor) -> anyhow::Result<Answer> {
    let Merge { zoos, condition, output } = arguments;
    let request = zoos::Merge { zoos, output, condition };
    let done = zoos::merge(&request, monitor)?;
    let mut human = format!("{} in {}\n", count(done.taken.iter().sum(), "checkpoint"), done.zoo.display());
    for (zoo, taken) in request.zoos.iter().zip(&done.taken) {
        let _ = writeln!(human, "from {}: {}", zoo.display(), count(*taken, "checkpoint"));
    }
    for (number, what) in [(done.duplicates, "in an earlier zoo already"), (done.moved_to_test, "moved to the test split")] {
        if number > 0 {
            let _ = writeln!(human, "{what}: {}", count(number, "checkpoint"));
        }
    }
    for renamed in &done.renamed {
        let _ = writeln!(
            human,
            "renamed: run `{}` of {} is another one than that of an earlier zoo: `{}`",
            renamed.from, renamed.zoo, renamed.to
        );
    }
    Ok(Answer { human, json: serde_json::to_value(&done).context("a merger")?, done: true })
}
