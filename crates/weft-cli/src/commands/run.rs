//! `weft quickstart`, `weft run` and the commands of single stages.

use crate::args::{Quickstart, Run, Sample, Settings, StageRun};
use crate::output::Answer;
use crate::table::{duration, table};
use anyhow::Context as _;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use weft::config::{BestBy, BestOfConfig, ExistingZooConfig, RunConfig, ZooConfig};
use weft::report::data::{Report, RowKind, TaskReport, TaskRow, TaskRowKind, TextureEvaluation, TextureRow};
use weft::{GeneratorName, GuideRequest, Monitor, Outcome, SampleOptions, SampleRequest, Stage};

pub(super) fn quickstart(arguments: Quickstart, monitor: &Monitor) -> anyhow::Result<Answer> {
    let mut config = RunConfig::quickstart(&arguments.settings.overrides()).map_err(weft::Error::from)?;
    if let Some(path) = arguments.zoo {
        config.zoo = ZooConfig::Existing(ExistingZooConfig { path });
        config.architecture = None;
    }
    config.run.output = arguments.output.unwrap_or(config.run.output);
    config.run.seed = arguments.seed.unwrap_or(config.run.seed);
    Ok(answer(&weft::run(&config, Stage::Export, monitor)?))
}

pub(super) fn run(arguments: &Run, monitor: &Monitor) -> anyhow::Result<Answer> {
    let until = match &arguments.until {
        Some(name) => name.parse().map_err(anyhow::Error::msg)?,
        None => Stage::Export,
    };
    Ok(answer(&weft::run(&read(&arguments.file, &arguments.settings)?, until, monitor)?))
}

pub(super) fn until(arguments: &StageRun, stage: Stage, monitor: &Monitor) -> anyhow::Result<Answer> {
    Ok(answer(&weft::run(&read(&arguments.file, &arguments.settings)?, stage, monitor)?))
}

pub(super) fn sample(arguments: Sample, monitor: &Monitor) -> anyhow::Result<Answer> {
    let config = read(&arguments.file, &arguments.settings)?;
    let Some(folder) = arguments.output else {
        return Ok(answer(&weft::run(&config, Stage::Sample, monitor)?));
    };
    let mut condition = BTreeMap::new();
    for (field, value) in &arguments.condition {
        if condition.insert(field.clone(), value.as_str().into()).is_some() {
            anyhow::bail!("the condition names `{field}` twice");
        }
    }
    let generator = GeneratorName::ALL.into_iter().find(|name| arguments.generator.as_deref() == Some(name.name()));
    let request = SampleRequest { count: arguments.count, seed: arguments.seed, condition, generator, folder };
    let (scale, steps) = (arguments.guide_scale, arguments.guide_steps);
    let guide = arguments.guide.map(|examples| GuideRequest { examples, scale, steps });
    let by = BestBy::ALL.into_iter().find(|by| arguments.by.as_deref() == Some(by.name()));
    let best_of = arguments.best_of.zip(by).map(|(n, by)| BestOfConfig { n, by });
    let written = weft::sample_with(&config, &request, &SampleOptions { guide, best_of }, monitor)?;
    let human = written.iter().fold(String::new(), |text, path| text + &path.display().to_string() + "\n");
    Ok(Answer { human, json: serde_json::json!({ "files": written }), done: true })
}

fn read(file: &Path, settings: &Settings) -> weft::Result<RunConfig> {
    Ok(RunConfig::read(file, &settings.overrides())?)
}

fn answer(outcome: &Outcome) -> Answer {
    let json = serde_json::to_value(outcome).context("the outcome of a run").unwrap_or_default();
    Answer { human: human(outcome), json, done: true }
}

fn human(outcome: &Outcome) -> String {
    let rows: Vec<Vec<String>> = outcome
        .stages
        .iter()
        .map(|s| {
            let how = if s.reused { "reused" } else { "done" };
            vec![s.stage.name().to_owned(), how.to_owned(), duration(s.wall_secs), s.folder.display().to_string()]
        })
        .collect();
    let mut text = table(&["stage", "", "time", "folder"], &rows);
    if let Some(report) = &outcome.report {
        text.push('\n');
        text.push_str(&figures(report));
    }
    if let Some(page) = &outcome.page {
        let _ = writeln!(text, "\nreport: {}", page.display());
    }
    text
}

/// The rows and verdicts of an evaluation over held-out tasks.
fn of_tasks(tasks: &TaskReport) -> String {
    let evaluation = &tasks.evaluation;
    let row = |row: &TaskRow| {
        let mark = if row.kind == TaskRowKind::Ours { "*" } else { "" };
        let accuracy = format!("{:.2} ± {:.2}", row.accuracy.mean * 100.0, row.accuracy.se * 100.0);
        vec![format!("{}{mark}", row.name), accuracy, row.disagreement.map_or_else(String::new, |d| format!("{:.2}", d.mean))]
    };
    let rows: Vec<Vec<String>> = evaluation.rows.iter().map(row).collect();
    let mut text = table(&["networks", "accuracy %", "disagreement"], &rows);
    let (tasks, clusters) = (evaluation.tasks.len(), evaluation.num_clusters);
    let _ = writeln!(text, "* ours. Test examples of {tasks} held-out tasks, {clusters} of them independent.");
    for verdict in &evaluation.verdicts {
        let condition = if verdict.uses_condition { "uses its condition" } else { "ignores its condition" };
        let regression = if verdict.is_regression == Some(true) { "; one answer a task: a regression" } else { "" };
        let not_beaten = match verdict.not_beaten.join(", ") {
            names if names.is_empty() => "beats all baselines".to_owned(),
            names => format!("does not beat: {names}"),
        };
        let (gap, se) = (100.0 * verdict.gap.mean, 100.0 * verdict.gap.se);
        let _ = writeln!(
            text,
            "{}: {condition}; {gap:+.2} ± {se:.2} points beside trained networks; {not_beaten}{regression}",
            verdict.generator
        );
    }
    text
}

/// The rows of an evaluation of texture automata.
fn of_textures(evaluation: &TextureEvaluation) -> String {
    let row = |row: &TextureRow| {
        let mark = if row.kind == RowKind::Generator { "*" } else { "" };
        let ratios = [row.distance, row.texture, row.texture_runs, row.pairwise].map(|figure| format!("{:.2}", figure.mean));
        let fractions = [row.flat, row.alive, row.new].map(|figure| format!("{:.1}", 100.0 * figure.mean));
        [format!("{}{mark}", row.name)].into_iter().chain(ratios).chain(fractions).collect()
    };
    let rows: Vec<Vec<String>> = evaluation.rows.iter().map(row).collect();
    let mut text = table(
        &[
            "automata",
            "weights/d1",
            "texture/two automata",
            "/two runs",
            "pairwise",
            "flat %",
            "alive %",
            "alive, cannot be a copy %",
        ],
        &rows,
    );
    text.push_str("* ours; the other rows are the zoo's own automata and baselines.\n");
    text
}

/// The report's rows in short.
fn figures(report: &Report) -> String {
    if let Some(tasks) = &report.tasks {
        return of_tasks(tasks);
    }
    if let Some(textures) = &report.textures {
        return of_textures(&textures.evaluation);
    }
    let ours = |kind| matches!(kind, RowKind::Generator | RowKind::Refined);
    let rows: Vec<Vec<String>> = report
        .evaluation
        .rows
        .iter()
        .map(|row| {
            let mark = if ours(row.kind) { "*" } else { "" };
            let number = |value: f64| format!("{value:.3}");
            vec![
                format!("{}{mark}", row.name),
                format!("{:.2}", row.accuracy.mean * 100.0),
                number(row.distance.mean),
                number(row.functional.mean),
                number(row.pairwise.mean),
                number(row.disagreement.mean),
            ]
        })
        .collect();
    let mut text = table(&["networks", "accuracy %", "distance/d1", "functional/f1", "pairwise", "disagreement"], &rows);
    text.push_str("* ours; the other rows are held-out runs and baselines. All accuracies on test examples.\n");
    for verdict in &report.evaluation.verdicts {
        let finding = format!("{:?}", verdict.finding).to_lowercase();
        let _ = writeln!(
            text,
            "at {} (bar: {}): {finding}; {} {:.3} ± {:.3}, best baseline {} {:.3} ± {:.3}, held-out runs {:.3}",
            verdict.threshold,
            verdict.bar,
            verdict.ours,
            verdict.ours_npd.mean,
            verdict.ours_npd.se,
            verdict.baseline,
            verdict.baseline_npd.mean,
            verdict.baseline_npd.se,
            verdict.held_out_npd.mean
        );
    }
    text
}
