//! `weft zoo stats` and `weft zoo verify`.

use super::describe;
use crate::args::zoo::ZooStats;
use crate::output::Answer;
use crate::table::{bytes, count, table};
use anyhow::Context as _;
use std::fmt::Write as _;
use std::path::Path;
use weft::Monitor;
use weft::zoos;

pub(super) fn stats(arguments: ZooStats, monitor: &Monitor) -> anyhow::Result<Answer> {
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
    if view.quarantined > 0 {
        let _ = writeln!(human, "{} beside them in quarantine", count(view.quarantined, "checkpoint"));
    }
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
    json["structure"] = crate::commands::structure::measure(arguments, &mut human, monitor)?;
    Ok(Answer { human, json, done: true })
}

pub(super) fn verify(zoo: &Path, prune: bool, monitor: &Monitor) -> anyhow::Result<Answer> {
    let view = if prune { zoos::prune(zoo, monitor)? } else { zoos::verify(zoo, monitor)? };
    let mut human = String::new();
    for path in &view.removed {
        let _ = writeln!(human, "removed: {}: no checkpoint names it", path.display());
    }
    for path in &view.unreferenced {
        let _ = writeln!(human, "unreferenced: {}: no checkpoint names it; --prune removes it", path.display());
    }
    describe(&mut human, "damaged", &view.faults);
    let verdict = if view.faults.is_empty() { "clean".to_owned() } else { count(view.faults.len(), "fault") };
    let (checkpoints, shards) = (count(view.checkpoints, "checkpoint"), count(view.shards, "shard"));
    let _ = writeln!(human, "{checkpoints} in {shards}: {verdict}");
    let done = view.faults.is_empty();
    Ok(Answer { human, json: serde_json::to_value(&view).context("a verification")?, done })
}
