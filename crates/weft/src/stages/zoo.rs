//! Stage 1: a zoo is trained, or an existing one is taken as it is.

use super::runs::{self, PlannedRun};
use super::{Session, append, data};
use crate::cache::{Completed, Running};
use crate::config::{ArchitectureConfig, TasksConfig, TrainZooConfig, ZooConfig};
use crate::run::Stage;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use weft_core::families::Automaton;
use weft_core::{Architecture, Dataset, Digest, Monitor, Population, Provenance, Recipe, Record, Seed, Task};
use weft_net::{Device, RunResult};
use weft_zoo::Zoo;

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 1;

pub(super) fn run(session: &Session) -> Result<(Completed, bool)> {
    match (&session.config.zoo, &session.config.architecture) {
        (ZooConfig::Existing(existing), architecture) => existing_zoo(session, &existing.path, architecture.as_ref()),
        (ZooConfig::Train(config), Some(architecture)) => train(session, config, architecture),
        (ZooConfig::Train(_), None) => {
            let got = "none".to_owned();
            Err(Error::Range { what: "the architecture of a zoo to train", expected: "named in the run file".to_owned(), got })
        }
    }
}

fn existing_zoo(session: &Session, path: &Path, architecture: Option<&ArchitectureConfig>) -> Result<(Completed, bool)> {
    let zoo = Zoo::open(path)?;
    if let Some(config) = architecture {
        let asked = data::architecture(config, session.data.as_ref().map(|(dataset, _)| dataset), None)?;
        if !asked.same_graph(zoo.architecture()) {
            let reason = format!("the zoo holds `{}` networks", zoo.architecture().name());
            let what = format!("`{}` of the run file", asked.name());
            return Err(Error::Misfit { what, other: format!("the zoo `{}`", path.display()), reason });
        }
    }
    if session.config.evaluate.textures.is_some() && Automaton::of(zoo.architecture()).is_none() {
        let reason = format!("it holds `{}` networks, which are no texture automata", zoo.architecture().name());
        let what = "`[evaluate.textures]` of the run file".to_owned();
        return Err(Error::Misfit { what, other: format!("the zoo `{}`", path.display()), reason });
    }
    let completed = Completed { folder: path.to_owned(), output: zoo.digest()?, wall_secs: 0.0 };
    Ok((completed, true))
}

fn train(session: &Session, config: &TrainZooConfig, architecture: &ArchitectureConfig) -> Result<(Completed, bool)> {
    let dataset = session.dataset(Stage::Zoo)?;
    let architecture = Arc::new(data::architecture(architecture, Some(dataset), config.tasks.as_ref())?);
    if let Some(TasksConfig::Subsets(subsets)) = &config.tasks {
        let (names, classes) = (subsets.names.len(), dataset.num_classes());
        if names != 0 && names != classes {
            let expected = format!("one for each of the data's {classes} classes");
            return Err(Error::Range { what: "`zoo.train.tasks.subsets.names`", expected, got: names.to_string() });
        }
    }
    let recipe = config.recipe.to_recipe(dataset.range(weft_core::Part::Train).len())?;
    let text = Digest::of_bytes(weft_zoo::architecture_to_toml(&architecture).as_bytes());
    let key = session.key(("zoo", "zoo"), VERSION, &[]).setting("train", config).input("architecture", text);
    let (completed, fresh) = session.unless_fresh(key, |running| {
        let runs = runs::plan(config, dataset.num_classes(), session.seed)?;
        let job = Job { session, config, dataset, architecture, recipe, runs };
        // What is wrong with the last recipe is said before the first is trained.
        job.runs.iter().try_for_each(|run| job.recipe_of(run).map(drop))?;
        job.run(running)
    })?;
    // Checkpoints that were imported since make it another zoo, though nothing is trained again.
    let output = Zoo::open(&completed.folder)?.digest()?;
    Ok((Completed { output, ..completed }, fresh))
}

struct Job<'a> {
    session: &'a Session<'a>,
    config: &'a TrainZooConfig,
    dataset: &'a Dataset,
    architecture: Arc<Architecture>,
    recipe: Recipe,
    runs: Vec<PlannedRun>,
}

/// A block of runs.
struct Trained {
    runs: Vec<RunResult>,
    secs_each: f64,
}

impl Job<'_> {
    fn run(&self, running: Running) -> Result<Completed> {
        let mut zoo = if Zoo::exists(running.folder()) {
            Zoo::open(running.folder())?
        } else {
            Zoo::create(running.folder(), &self.session.config.run.name, self.architecture.clone(), None)?
        };
        let total = self.runs.len();
        let complete = zoo.runs()?;
        let session = self.session;
        let missing: Vec<&PlannedRun> = self.runs.iter().filter(|run| !complete.contains(&run.name)).collect();
        if missing.len() < total {
            session.monitor.note(format!("zoo: {} of {total} networks are there, goes on", total - missing.len()));
        }
        // A block goes in as a whole or not at all; no device is without one.
        let share = missing.len().div_ceil(session.device.all().len());
        let at_once = self.config.runs_at_once.min(share).max(1);
        let of_one_recipe = missing.chunk_by(|a, b| a.recipe == b.recipe);
        let blocks: Vec<&[&PlannedRun]> = of_one_recipe.flat_map(|runs| runs.chunks(at_once)).collect();
        session.monitor.start("train zoo", missing.len() as u64, "networks");
        weft_net::share_out(
            &blocks,
            (&session.device, session.monitor),
            |block, device, monitor| self.train_block(block, device, monitor),
            |block, trained| self.append(&mut zoo, block, &trained),
        )?;
        session.monitor.finish();
        let digest = zoo.digest()?;
        drop(zoo);
        running.complete_as(&["zoo.toml"], digest)
    }

    fn train_block(&self, block: &[&PlannedRun], device: &Device, monitor: &Monitor) -> Result<Trained> {
        if monitor.should_stop() {
            return Err(Error::Interrupted { stage: Stage::Zoo.name() });
        }
        let since = Instant::now();
        let seeds: Vec<Seed> = block.iter().map(|run| run.seed).collect();
        let tasks: Option<Vec<Task>> = block.iter().map(|run| run.task.clone()).collect();
        let labelled = (self.dataset, tasks.as_deref());
        let recipe = block.first().map_or_else(|| Ok(self.recipe.clone()), |run| self.recipe_of(run))?;
        let runs = weft_net::train(&self.architecture, labelled, &recipe, &seeds, device, monitor)?;
        Ok(Trained { runs, secs_each: since.elapsed().as_secs_f64() / block.len() as f64 })
    }

    fn recipe_of(&self, run: &PlannedRun) -> Result<Recipe> {
        let examples = self.dataset.range(weft_core::Part::Train).len();
        Ok(run.recipe.as_ref().map_or_else(|| Ok(self.recipe.clone()), |(_, recipe)| recipe.to_recipe(examples))?)
    }

    fn append(&self, zoo: &mut Zoo, block: &[&PlannedRun], trained: &Trained) -> Result<()> {
        let dim = self.architecture.num_parameters();
        let mut rows = Vec::with_capacity(trained.runs.iter().map(|r| r.snapshots.len()).sum::<usize>() * dim);
        let mut records = Vec::new();
        for (run, result) in block.iter().zip(&trained.runs) {
            records.extend(self.records(run, result, trained.secs_each)?);
            result.snapshots.iter().for_each(|snapshot| rows.extend_from_slice(&snapshot.row));
        }
        append(zoo, &Population::new(self.architecture.clone(), rows)?, &records)
    }

    fn records(&self, run: &PlannedRun, result: &RunResult, train_secs: f64) -> Result<Vec<Record>> {
        let task = run.task.iter().map(|task| (Task::LABEL.to_owned(), task.name().to_owned()));
        let text = run.task.iter().filter_map(|task| self.session.config.zoo.describe(task));
        let text = text.map(|text| (Task::TEXT.to_owned(), text));
        let recipe = run.recipe.iter().map(|(name, _)| (runs::RECIPE.to_owned(), name.clone()));
        let labels: BTreeMap<String, String> = task.chain(text).chain(recipe).collect();
        let recipe = self.recipe_of(run)?;
        let last = result.snapshots.len() - 1;
        let record = |(i, snapshot): (usize, &weft_net::Snapshot)| Record {
            step: Some(snapshot.step),
            is_final: i == last,
            split: Some(run.split),
            labels: labels.clone(),
            recipe: Some(recipe.clone()),
            metrics: BTreeMap::from([
                ("train-loss".to_owned(), snapshot.train_loss),
                ("train-secs".to_owned(), train_secs),
                ("validation-accuracy".to_owned(), snapshot.validation.accuracy),
                ("validation-loss".to_owned(), snapshot.validation.loss),
            ]),
            provenance: Provenance {
                source: format!("trained by weft {} on {}", env!("CARGO_PKG_VERSION"), self.dataset.name()),
                licence: self.config.licence.clone(),
                ..Provenance::default()
            },
            ..Record::new(Digest::of_weights(&self.architecture, &snapshot.row), run.name.as_str())
        };
        Ok(result.snapshots.iter().enumerate().map(record).collect())
    }
}
