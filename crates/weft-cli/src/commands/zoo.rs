//! `weft zoo …`.

use crate::args;
use crate::output::Answer;
use crate::table::{bytes, count, table};
use anyhow::Context as _;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;
use weft::zoos::{self, CheckpointView, FileFault, Import, Selection};
use weft::{Monitor, Stage};

pub(super) fn dispatch(command: args::Zoo, monitor: &Monitor) -> anyhow::Result<Answer> {
    match command {
        args::Zoo::Train(arguments) => super::run::until(&arguments, Stage::Zoo, monitor),
        args::Zoo::Import(arguments) => import(arguments, monitor),
        args::Zoo::Ls { zoo, selection } => list(&zoo, selection),
        args::Zoo::Show { zoo, digest } => show(&zoo, &digest),
        args::Zoo::Stats(arguments) => stats(arguments, monitor),
        args::Zoo::Export { zoo, output, selection } => {
            let written = zoos::export(&zoo, &self::selection(selection)?, &output, monitor)?;
            let human = format!("{} in {}\n", count(written.len(), "network"), output.display());
            Ok(Answer { human, json: json!({ "files": written }), done: true })
        }
        args::Zoo::Verify { zoo } => verify(&zoo, monitor),
    }
}

fn selection(arguments: args::Selection) -> anyhow::Result<Selection> {
    let split = arguments.split.map(|split| split.parse()).transpose().map_err(weft::Error::Core)?;
    let args::Selection { final_only, min_accuracy, run, limit, offset, .. } = arguments;
    Ok(Selection { split, final_only, min_accuracy, run, digest_prefix: None, limit, offset })
}

fn import(arguments: args::Import, monitor: &Monitor) -> anyhow::Result<Answer> {
    let activation = arguments.activation.parse().map_err(weft::Error::Core)?;
    let args::Import { paths, output: zoo, architecture, test_fraction, licence, .. } = arguments;
    let view = zoos::import(&Import { paths, zoo, architecture, activation, test_fraction, licence }, monitor)?;
    let mut human = format!("{} into {}\n", count(view.read, "network"), view.zoo.display());
    describe(&mut human, "skipped", &view.skipped);
    describe(&mut human, "refused", &view.refused);
    let done = view.refused.is_empty();
    Ok(Answer { human, json: serde_json::to_value(&view).context("the report of an import")?, done })
}

fn describe(text: &mut String, what: &str, faults: &[FileFault]) {
    for fault in faults {
        let path = fault.path.display().to_string();
        // A reason that names the file already needs no other name before it.
        let name = if fault.reason.contains(&path) { String::new() } else { format!("{path}: ") };
        let _ = writeln!(text, "{what}: {name}{}", fault.reason);
    }
}

fn list(zoo: &Path, selection: args::Selection) -> anyhow::Result<Answer> {
    let views = zoos::list(zoo, &self::selection(selection)?)?;
    let row = |v: &CheckpointView| {
        let step = v.step.map_or_else(|| "–".to_owned(), |s| s.to_string());
        let accuracy = v.metrics.get("validation-accuracy").map_or_else(|| "–".to_owned(), |a| format!("{a:.4}"));
        let last = if v.is_final { "last" } else { "" };
        vec![v.digest[..12].to_owned(), v.run.clone(), v.split.to_owned(), step, last.to_owned(), accuracy]
    };
    let rows: Vec<_> = views.iter().map(row).collect();
    let human = table(&["digest", "run", "split", "step", "", "accuracy"], &rows);
    Ok(Answer { human, json: serde_json::to_value(&views).context("a list of checkpoints")?, done: true })
}

fn show(zoo: &Path, digest: &str) -> anyhow::Result<Answer> {
    let view = zoos::show(zoo, digest)?;
    let mut rows = vec![
        vec!["digest".to_owned(), view.digest.clone()],
        vec!["run".to_owned(), view.run.clone()],
        vec!["split".to_owned(), view.split.to_owned()],
        vec!["step".to_owned(), view.step.map_or_else(|| "unknown".to_owned(), |s| s.to_string())],
        vec!["last of its run".to_owned(), if view.is_final { "yes" } else { "no" }.to_owned()],
        vec!["source".to_owned(), view.source.clone()],
        vec!["licence".to_owned(), view.licence.clone()],
        vec!["synthetic".to_owned(), if view.synthetic { "yes" } else { "no" }.to_owned()],
    ];
    rows.extend(view.metrics.iter().map(|(name, value)| vec![name.clone(), format!("{value:.6}")]));
    rows.extend(view.parents.iter().map(|parent| vec!["parent".to_owned(), parent.clone()]));
    rows.extend(view.recipe.iter().map(|recipe| vec!["recipe".to_owned(), recipe.to_string()]));
    let width = rows.iter().map(|row| row[0].chars().count()).max().unwrap_or(0);
    let human = rows.iter().fold(String::new(), |text, row| text + &format!("{:<width$}  {}\n", row[0], row[1]));
    Ok(Answer { human, json: serde_json::to_value(&view).context("a checkpoint")?, done: true })
}

fn stats(arguments: args::ZooStats, monitor: &Monitor) -> anyhow::Result<Answer> {
    let view = zoos::stats(&arguments.zoo)?;
    let mut human = format!(
        "{}: {} of {}, {} ({}), {} in {}\ndigest {}\n",
        view.name,
        count(view.checkpoints, "checkpoint"),
        count(view.runs, "run"),
        view.architecture,
        count(view.num_parameters, "parameter"),
        bytes(view.num_bytes),
        count(view.shards, "shard"),
        view.digest
    );
    let rows: Vec<_> = view
        .splits
        .iter()
        .map(|s| {
            let accuracy =
                s.accuracy_quantiles.map_or_else(|| vec!["–".to_owned(); 5], |q| q.iter().map(|a| format!("{a:.4}")).collect());
            let mean = s.accuracy_mean.map_or_else(|| "–".to_owned(), |m| format!("{m:.4} ± {:.4}", s.accuracy_std.unwrap_or(0.0)));
            [vec![s.split.to_owned(), s.runs.to_string(), s.checkpoints.to_string(), mean], accuracy].concat()
        })
        .collect();
    human.push_str(&table(&["split", "runs", "checkpoints", "validation accuracy", "min", "25 %", "median", "75 %", "max"], &rows));
    let mut json = serde_json::to_value(&view).context("a zoo's figures")?;
    json["structure"] = super::structure::measure(arguments, &mut human, monitor)?;
    Ok(Answer { human, json, done: true })
}

fn verify(zoo: &Path, monitor: &Monitor) -> anyhow::Result<Answer> {
    let view = zoos::verify(zoo, monitor)?;
    let mut human = String::new();
    for path in &view.removed {
        let _ = writeln!(human, "removed: {}: left by an append that did not end", path.display());
    }
    describe(&mut human, "damaged", &view.faults);
    let verdict = if view.faults.is_empty() { "clean".to_owned() } else { count(view.faults.len(), "fault") };
    let (checkpoints, shards) = (count(view.checkpoints, "checkpoint"), count(view.shards, "shard"));
    let _ = writeln!(human, "{checkpoints} in {shards}: {verdict}");
    let done = view.faults.is_empty();
    Ok(Answer { human, json: serde_json::to_value(&view).context("a verification")?, done })
}
