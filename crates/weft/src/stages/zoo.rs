//! Stage 1: a zoo is trained, or an existing one is taken as it is.

use super::{Session, append, data};
use crate::cache::{Completed, Running};
use crate::config::{ArchitectureConfig, TrainZooConfig, ZooConfig};
use crate::run::Stage;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use weft_core::{Architecture, Dataset, Digest, Event, Monitor, Population, Provenance, Recipe, Record, Seed, Split};
use weft_net::RunResult;
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
        let asked = data::architecture(config, session.data.as_ref().map(|(dataset, _)| dataset))?;
        if !asked.same_graph(zoo.architecture()) {
            let reason = format!("the zoo holds `{}` networks", zoo.architecture().name());
            let what = format!("`{}` of the run file", asked.name());
            return Err(Error::Misfit { what, other: format!("the zoo `{}`", path.display()), reason });
        }
    }
    let completed = Completed { folder: path.to_owned(), output: zoo.digest()?, wall_secs: 0.0 };
    Ok((completed, true))
}

fn train(session: &Session, config: &TrainZooConfig, architecture: &ArchitectureConfig) -> Result<(Completed, bool)> {
    let dataset = session.dataset(Stage::Zoo)?;
    let architecture = Arc::new(data::architecture(architecture, Some(dataset))?);
    let recipe = config.recipe.to_recipe(dataset.range(weft_core::Part::Train).len())?;
    let text = Digest::of_bytes(weft_zoo::architecture_to_toml(&architecture).as_bytes());
    let key = session.key(("zoo", "zoo"), VERSION, &[]).setting("train", config).input("architecture", text);
    let (completed, fresh) = session.unless_fresh(key, |running| {
        let job = Job { session, config, dataset, architecture, recipe };
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
}

impl Job<'_> {
    fn run(&self, running: Running) -> Result<Completed> {
        let mut zoo = if Zoo::exists(running.folder()) {
            Zoo::open(running.folder())?
        } else {
            Zoo::create(running.folder(), &self.session.config.run.name, self.architecture.clone(), None)?
        };
        let total = self.config.runs + self.config.held_out_runs;
        let complete = zoo.runs()?;
        let monitor = self.session.monitor;
        let at_once = self.config.runs_at_once;
        let blocks = (0..total).step_by(at_once).map(|first| first..(first + at_once).min(total));
        // A block goes in as a whole or not at all.
        let missing: Vec<_> = blocks.filter(|block| !complete.contains(&run_name(block.start))).collect();
        let num_missing = missing.iter().map(ExactSizeIterator::len).sum::<usize>();
        if num_missing < total {
            monitor.note(format!("zoo: {} of {total} networks are there, goes on", total - num_missing));
        }
        monitor.start("train zoo", num_missing as u64, "networks");
        let mut done = 0;
        for block in missing {
            self.train_block(&mut zoo, block.clone(), done)?;
            done += block.len() as u64;
            monitor.progress(done);
        }
        monitor.finish();
        let digest = zoo.digest()?;
        drop(zoo);
        running.complete_as(&["zoo.toml"], digest)
    }

    /// Trains a block and appends it; `done` networks were trained before.
    fn train_block(&self, zoo: &mut Zoo, block: Range<usize>, done: u64) -> Result<()> {
        self.session.check_stop(Stage::Zoo)?;
        let since = Instant::now();
        let runs = self.train_runs(block.clone(), done)?;
        let train_secs = since.elapsed().as_secs_f64() / block.len() as f64;
        let dim = self.architecture.num_parameters();
        let mut rows = Vec::with_capacity(runs.iter().map(|r| r.snapshots.len()).sum::<usize>() * dim);
        let mut records = Vec::new();
        for (run, result) in block.zip(&runs) {
            records.extend(self.records(run, result, train_secs));
            result.snapshots.iter().for_each(|snapshot| rows.extend_from_slice(&snapshot.row));
        }
        append(zoo, &Population::new(self.architecture.clone(), rows)?, &records)
    }

    fn train_runs(&self, block: Range<usize>, before: u64) -> Result<Vec<RunResult>> {
        let session = self.session;
        let seeds: Vec<Seed> = block.map(|run| session.seed.fork("zoo").index(run as u64)).collect();
        // Inside a block, networks are counted from the block's first.
        let sink = |event: Event| {
            if let Event::Progress { done } = event {
                session.monitor.progress(before + done);
            }
        };
        let monitor = Monitor::new(&sink, session.monitor.stop_flag());
        Ok(weft_net::train(&self.architecture, self.dataset, &self.recipe, &seeds, &session.device, &monitor)?)
    }

    fn records(&self, run: usize, result: &RunResult, train_secs: f64) -> Vec<Record> {
        let split = if run < self.config.runs { Split::Train } else { Split::Test };
        let last = result.snapshots.len() - 1;
        let record = |(i, snapshot): (usize, &weft_net::Snapshot)| Record {
            step: Some(snapshot.step),
            is_final: i == last,
            split: Some(split),
            recipe: Some(self.recipe.clone()),
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
            ..Record::new(Digest::of_weights(&self.architecture, &snapshot.row), run_name(run))
        };
        result.snapshots.iter().enumerate().map(record).collect()
    }
}

/// The name of a run in the catalogue.
fn run_name(run: usize) -> String {
    format!("run-{run:05}")
}
