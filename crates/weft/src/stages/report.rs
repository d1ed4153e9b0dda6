//! The report of a run, put together from what its stages left.

use super::evaluate::SampleFacts;
use super::{Done, Session, read_json, train};
use crate::report::data::{Costs, Evaluation, Fact, Provenance, Report, StageTime, TaskReport, TextureReport, ZooFacts};
use crate::run::{Stage, StageOutcome};
use crate::{Result, report};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use weft_core::{Activation, Architecture, Dataset, Op, Part, Recipe, Split};
use weft_zoo::{Entry, Filter, Zoo};

/// Makes `report.json` and `report.html` of a run whose stages up to the evaluation are complete.
pub(super) fn write(session: &Session, done: &Done, stages: &[StageOutcome]) -> Result<(Report, PathBuf)> {
    let evaluation = &done.of(Stage::Evaluate).folder;
    let raw = Zoo::open(&done.of(Stage::Zoo).folder)?;
    let entries = raw.records(&Filter::default())?;
    let tasks: Option<TaskReport> =
        evaluation.join("tasks.json").exists().then(|| read_json(&evaluation.join("tasks.json"))).transpose()?;
    // What only an evaluation of one task writes.
    let file = |name: &str| evaluation.join(name);
    let textures: Option<TextureReport> =
        evaluation.join("textures.json").exists().then(|| read_json(&evaluation.join("textures.json"))).transpose()?;
    let one = tasks.is_none() && textures.is_none();
    // A run without data has figures of its own kind, and no accuracy to show.
    let figures = |stage, name: &str| session.data.is_some().then(|| done.of(stage).folder.join(name));
    let page = Report {
        title: session.config.run.name.clone(),
        zoo: zoo_facts(session.data.as_ref().map(|(dataset, _)| dataset), &raw, &entries),
        evaluation: if one { read_json(&file("evaluation.json"))? } else { Evaluation::default() },
        filters: if one { read_json(&file("filters.json"))? } else { Vec::new() },
        canonicalization: figures(Stage::Canonicalize, "canonicalize.json").map(|path| read_json(&path)).transpose()?,
        structure: figures(Stage::Canonicalize, "structure.json").map(|path| read_json(&path)).transpose()?,
        codec: figures(Stage::Encode, "codec.json").map(|path| read_json(&path)).transpose()?,
        training: train::trainings(done.of(Stage::Train))?.into_iter().map(|training| training.curve).collect(),
        ablation: if one { read_json(&file("ablation.json"))? } else { Vec::new() },
        costs: if one {
            costs(session, done, &entries)?
        } else {
            Costs { machine: machine(session), peak_memory_bytes: peak_memory(), ..Costs::default() }
        },
        recipes: file("recipes.json").exists().then(|| read_json(&file("recipes.json"))).transpose()?,
        tasks,
        textures,
        stages: stages.iter().map(stage_time).collect(),
        provenance: provenance(session, done),
    };
    super::write_json(&session.output.join("report.json"), &page)?;
    let path = session.output.join("report.html");
    weft_zoo::write_atomic(&path, report::page(&page).as_bytes())?;
    Ok((page, path))
}

fn stage_time(outcome: &StageOutcome) -> StageTime {
    StageTime { name: outcome.stage.name().to_owned(), secs: outcome.wall_secs, reused: outcome.reused }
}

fn zoo_facts(dataset: Option<&Dataset>, raw: &Zoo, entries: &[Entry]) -> ZooFacts {
    let runs = |split| {
        entries.iter().map(Entry::record).filter(|r| r.split == Some(split)).map(|r| r.run.as_str()).collect::<BTreeSet<_>>().len()
    };
    let licences: BTreeSet<&str> = entries.iter().map(|entry| entry.record().provenance.licence.as_str()).collect();
    let recipe = entries.iter().find_map(|entry| entry.record().recipe.as_ref());
    let examples = |part| dataset.map_or(0, |dataset| dataset.range(part).len());
    ZooFacts {
        name: raw.name().to_owned(),
        architecture: describe_architecture(raw.architecture()),
        num_parameters: raw.architecture().num_parameters(),
        num_train_runs: runs(Split::Train),
        num_test_runs: runs(Split::Test),
        num_checkpoints: entries.len(),
        dataset: dataset.map_or_else(String::new, |dataset| dataset.name().to_owned()),
        num_test_examples: examples(Part::Test),
        num_validation_examples: examples(Part::Validation),
        recipe: recipe.map_or_else(|| "unknown".to_owned(), describe_recipe),
        licence: licences.into_iter().collect::<Vec<_>>().join(", "),
    }
}

/// Of a perceptron the widths and the activations, in short; of others the name.
fn describe_architecture(architecture: &Architecture) -> String {
    let of_perceptron = |op: &Op| matches!(op, Op::Input { .. } | Op::Linear { .. } | Op::Activation(_));
    if !architecture.nodes().iter().all(|node| of_perceptron(&node.op)) {
        return architecture.name().to_owned();
    }
    let mut widths = vec![architecture.num_inputs().to_string()];
    let mut activations: Vec<Activation> = Vec::new();
    for (node, width) in architecture.nodes().iter().zip(architecture.widths()) {
        match node.op {
            Op::Linear { .. } => widths.push(width.to_string()),
            Op::Activation(activation) if !activations.contains(&activation) => activations.push(activation),
            _ => {}
        }
    }
    let names: Vec<_> = activations.iter().map(|a| a.name()).collect();
    format!("{}, {}", widths.join("-"), names.join(", "))
}

fn describe_recipe(recipe: &Recipe) -> String {
    let length = match recipe.duration {
        weft_core::Duration::Epochs(n) => format!("{n} epochs"),
        weft_core::Duration::Steps(n) => format!("{n} steps"),
    };
    let optimizer = match recipe.optimizer {
        weft_core::Optimizer::Sgd { .. } => "SGD",
        weft_core::Optimizer::Adam { .. } => "Adam",
        weft_core::Optimizer::AdamW { .. } => "AdamW",
    };
    let snapshots = match recipe.snapshot_steps.len() {
        0 => String::new(),
        n => format!(", {n} snapshots on the way"),
    };
    format!("{optimizer} {}, {length}, batch {}{snapshots}", recipe.learning_rate, recipe.batch_size)
}

fn costs(session: &Session, done: &Done, entries: &[Entry]) -> Result<Costs> {
    let facts: Vec<SampleFacts> = read_json(&done.of(Stage::Evaluate).folder.join("samples.json"))?;
    let samples: Vec<super::sample::Sampling> = read_json(&done.of(Stage::Sample).folder.join("sampling.json"))?;
    let of_run: BTreeMap<&str, f64> =
        entries.iter().filter_map(|e| Some((e.record().run.as_str(), *e.record().metrics.get("train-secs")?))).collect();
    let run_secs = (!of_run.is_empty()).then(|| of_run.values().sum::<f64>() / of_run.len() as f64);
    // The flow and the chosen refiner; the others are trained for the tables alone.
    let fitted = train::trainings(done.of(Stage::Train))?.iter().take(samples.len()).map(|t| t.secs).sum::<f64>();
    let accuracy = facts.iter().map(|f| f.accuracy).sum::<f64>() / facts.len().max(1) as f64;
    Ok(Costs {
        machine: machine(session),
        zoo_secs: run_secs.map(|secs| secs * of_run.len() as f64),
        run_secs,
        fit_secs: Some(done.of(Stage::Encode).wall_secs + fitted),
        sample_secs: samples.last().map(|s| s.sample_secs),
        sample_batch: session.config.sample.count,
        sgd_secs: run_secs.zip(fraction_until(entries, accuracy)).map(|(secs, fraction)| secs * fraction),
        peak_memory_bytes: peak_memory(),
    })
}

/// The part of a run after which its snapshots have an accuracy, on validation examples; all of it if none has.
fn fraction_until(entries: &[Entry], accuracy: f64) -> Option<f64> {
    let mut by_step: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for record in entries.iter().map(Entry::record) {
        if let (Some(step), Some(&value)) = (record.step, record.metrics.get("validation-accuracy")) {
            by_step.entry(step).or_default().push(value);
        }
    }
    let last = *by_step.keys().next_back()? as f64;
    let reached = by_step.iter().find(|(_, values)| values.iter().sum::<f64>() / values.len() as f64 >= accuracy);
    Some(reached.map_or(1.0, |(&step, _)| step as f64 / last))
}

fn machine(session: &Session) -> String {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{threads} threads of {}, networks on {}", std::env::consts::ARCH, session.device)
}

/// The most memory that this process ever held, where the system tells.
pub(crate) fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

fn provenance(session: &Session, done: &Done) -> Provenance {
    let fact = |name: &str, value: String| Fact { name: name.to_owned(), value };
    let stages = Stage::ALL.into_iter().filter(|&stage| stage <= Stage::Sample);
    let mut digests: Vec<Fact> = session.data.iter().map(|(_, digest)| fact("data", digest.to_string())).collect();
    digests.extend(stages.map(|stage| fact(stage.name(), done.of(stage).output.to_string())));
    Provenance {
        weft_version: env!("CARGO_PKG_VERSION").to_owned(),
        seeds: vec![fact("run", session.config.run.seed.to_string())],
        digests,
        config_toml: session.config.to_toml(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::families::{Family, ResNet};

    #[test]
    fn architectures_are_named_by_what_they_are() {
        let mlp = Architecture::mlp("m", &[784, 16, 10], Activation::Relu).unwrap();
        assert_eq!(describe_architecture(&mlp), "784-16-10, relu");
        let resnet = Family::ResNet(ResNet::resnet18([3, 32, 32], 10)).build("resnet-18").unwrap();
        assert_eq!(describe_architecture(&resnet), "resnet-18");
    }
}
