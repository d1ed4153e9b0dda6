//! Stage 5, first half: samples are measured against held-out runs and every baseline.
//!
//! ```text
//! evaluation/
//!   evaluation.json         units, rows, verdicts, parity
//!   ablation.json           the refiner's settings changed one at a time
//!   filters.json            sampled first-layer weights beside their nearest training network's
//!   samples.json            each sample of the run's last generator: accuracy, distance, nearest network
//! ```

use super::best::Judge;
use super::models::{self, Learnt, Models, Proposal, RefinerPlan, Role};
use super::train::ModelTraining;
use super::{Done, Session, canonicalize, conditional, neighbors, recipes, sample, tasks_of, train, write_json};
use crate::Result;
use crate::cache::{Completed, Running};
use crate::report::data::{AblationRow, FilterPair};
use crate::run::Stage;
use serde::{Deserialize, Serialize};
use weft_canon::{Group, Matching, match_to};
use weft_core::{Architecture, Condition, Digest, Op, Part, Population, Split};
use weft_eval::{Context, ContextInput, Costs, Measurements, Options, Row, RowInput, RowKind};
use weft_gen::Generator;
use weft_gen::trivial::{Trivial, TrivialGenerator};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;
/// Floating-point operations that the search for one network's dead units may take, and the examples that it looks at in any case.
const DEAD_FLOPS: f64 = 4e12;
const DEAD_LEAST: usize = 1_000;
/// Pairs of networks whose filters are shown.
const PAIRS: usize = 6;

/// One measured sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct SampleFacts {
    /// The generator.
    pub(super) generator: String,
    /// The number of its seed.
    pub(super) set: usize,
    /// Its number in the set.
    pub(super) index: usize,
    /// Test accuracy.
    pub(super) accuracy: f64,
    /// Distance to the nearest training network, over `d₁`.
    pub(super) distance: f64,
    /// Digest of that network, in the canonical zoo.
    pub(super) nearest: String,
}

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let stages = [Stage::Canonicalize, Stage::Encode, Stage::Train, Stage::Sample];
    let upstream = stages.map(|stage| (stage.name(), done.of(stage)));
    let key = session
        .key(("evaluate", "evaluation"), VERSION, &upstream)
        .setting("evaluate", &session.config.evaluate)
        .setting("baselines", &session.config.baselines)
        .setting("sample", &session.config.sample)
        .setting("zoo", &session.config.zoo);
    let key = session.config.architecture.iter().fold(key, |key, architecture| key.setting("architecture", architecture));
    session.unless_fresh(key, |running| evaluate(session, done, running))
}

/// The canonical zoo's networks, as an evaluation wants them.
struct Networks {
    entries: Vec<Entry>,
    train: Population,
    is_final: Vec<bool>,
    run: Vec<u32>,
    held_out: Population,
}

impl Networks {
    fn load(done: &Done) -> Result<Self> {
        let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
        let entries = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
        let held_out = zoo.records(&Filter { split: Some(Split::Test), final_only: true, ..Filter::default() })?;
        let mut numbers = std::collections::BTreeMap::new();
        let run = entries
            .iter()
            .map(|entry| {
                let next = numbers.len() as u32;
                *numbers.entry(entry.record().run.clone()).or_insert(next)
            })
            .collect();
        Ok(Self {
            train: zoo.load(&entries, Purpose::Evaluate)?,
            is_final: entries.iter().map(|entry| entry.record().is_final).collect(),
            run,
            held_out: zoo.load(&held_out, Purpose::Evaluate)?,
            entries,
        })
    }
}

fn evaluate(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let networks = Networks::load(done)?;
    let (records, num_classes) = (networks.entries.iter().map(Entry::record), session.dataset(Stage::Evaluate)?.num_classes());
    if tasks_of(records, networks.train.architecture(), num_classes)?.is_some() {
        return conditional::evaluate(session, done, running);
    }
    let config = &session.config.evaluate;
    let options = Options {
        thresholds: config.thresholds.clone(),
        snapshot_thresholds: config.snapshot_thresholds.clone(),
        fixed_bars: config.bars.clone(),
        max_train_examples: dead_unit_examples(networks.train.architecture()),
        seed: session.seed.fork("evaluate"),
        ..Options::default()
    };
    let input = ContextInput {
        train: &networks.train,
        train_is_final: &networks.is_final,
        train_run: &networks.run,
        held_out: &networks.held_out,
        dataset: session.dataset(Stage::Evaluate)?,
        device: &session.device,
    };
    let context = Context::new(input, &options, session.monitor)?;
    let Learnt { set, condition, .. } = models::learn_from(session, done)?;
    let table = Table {
        session,
        done,
        context: &context,
        networks: &networks,
        models: Models::new(session, &done.of(Stage::Train).folder, set.clone()),
        condition,
        trainings: train::trainings(done.of(Stage::Train))?,
        judge: session.config.sample.best_of.map(|best_of| Judge::new(session, done, &set, best_of)).transpose()?,
    };
    let mut rows = table.baselines(|kind| TrivialGenerator::new(kind, set.clone()))?;
    let (own, facts, filters) = table.own()?;
    let (refined, ablation) = table.other_refiners(own.last())?;
    rows.extend(own);
    rows.extend(refined);
    let folder = running.folder();
    write_json(&folder.join("evaluation.json"), &context.evaluate(rows))?;
    write_json(&folder.join("ablation.json"), &ablation)?;
    write_json(&folder.join("filters.json"), &filters)?;
    write_json(&folder.join("samples.json"), &facts)?;
    let mut files = vec!["evaluation.json", "ablation.json", "filters.json", "samples.json"];
    if let Some(found) = recipes::evaluate(session, done)? {
        write_json(&folder.join("recipes.json"), &found)?;
        files.push("recipes.json");
    }
    // Figures hold times; what later stages read is in the facts alone.
    let text = serde_json::to_string(&facts).unwrap_or_default();
    let output = Digest::of_bytes(text.as_bytes());
    running.complete_as(&files, output)
}

/// On how many training examples a unit must be silent to count as dead: all, or as many as a network runs in [`DEAD_FLOPS`].
fn dead_unit_examples(architecture: &Architecture) -> usize {
    ((DEAD_FLOPS / weft_net::forward_flops(architecture)) as usize).max(DEAD_LEAST)
}

/// What rows are made from.
struct Table<'a> {
    session: &'a Session<'a>,
    done: &'a Done,
    context: &'a Context<'a>,
    networks: &'a Networks,
    models: Models<'a>,
    condition: Condition,
    trainings: Vec<ModelTraining>,
    /// What chooses among samples, baselines' as the run's own.
    judge: Option<Judge<'a>>,
}

impl Table<'_> {
    fn baselines(&self, make: impl Fn(Trivial) -> TrivialGenerator) -> Result<Vec<Row>> {
        let (session, config) = (self.session, &self.session.config.baselines);
        let mut rows = Vec::new();
        if config.generators.contains(&crate::config::BaselineName::NullCopies) {
            let sample = &session.config.sample;
            let copies = |i| self.context.null_copies(sample.count, sample::seed_of(session, i));
            let sets = (0..sample.seeds).map(copies).collect::<std::result::Result<Vec<_>, _>>()?;
            let input = RowInput { name: "null-copies", kind: RowKind::NullCopy, sets: &sets, costs: Costs::default() };
            rows.push(self.context.row(input, session.monitor)?);
        }
        for kind in models::baselines(config) {
            let generator = make(kind);
            let fit_secs = match kind {
                Trivial::PcaGaussian | Trivial::Kde => self.done.of(Stage::Encode).wall_secs,
                _ => 0.0,
            };
            rows.push(self.row(&generator, RowKind::Baseline, (fit_secs, 0.0))?);
        }
        for resized in neighbors::baselines(session, self.networks.train.architecture())? {
            rows.push(self.row(&resized, RowKind::Baseline, (0.0, 0.0))?);
        }
        Ok(rows)
    }

    fn row(&self, generator: &dyn Generator, kind: RowKind, (fit_secs, fit_flops): (f64, f64)) -> Result<Row> {
        let (sets, sample_secs) = sample::sets(self.session, generator, &self.condition, self.judge.as_ref())?;
        let costs = self.costs(
            (
                sample_secs,
                self.session.config.sample.best_of.map_or(1.0, |best_of| best_of.n as f64) * generator.flops_per_sample(),
            ),
            (fit_secs, fit_flops),
        );
        Ok(self.context.row(RowInput { name: generator.name(), kind, sets: &sets, costs }, self.session.monitor)?)
    }

    /// The rows of the run's own generators, with the facts and filters of the last one's samples.
    fn own(&self) -> Result<(Vec<Row>, Vec<SampleFacts>, Vec<FilterPair>)> {
        let architecture = self.networks.train.architecture();
        let samples = sample::samples_of(self.done.of(Stage::Sample), architecture, self.session.config.sample.seeds)?;
        let mut rows = Vec::with_capacity(samples.len());
        let (mut facts, mut filters) = (Vec::new(), Vec::new());
        for (i, samples) in samples.iter().enumerate() {
            let name = &samples.sampling.name;
            let measured = samples.sets.iter().map(|set| self.context.measure(name, set, self.session.monitor));
            let measured = measured.collect::<std::result::Result<Vec<_>, _>>()?;
            let kind = if i == 0 { RowKind::Generator } else { RowKind::Refined };
            // The flow, and for the refined one its refiner too, come first among the trained models.
            let fit = self.trainings.iter().take(i + 1).fold((self.done.of(Stage::Encode).wall_secs, 0.0), add);
            let costs = self.costs((samples.sampling.sample_secs, samples.sampling.flops), fit);
            rows.push(self.context.row_from(name, kind, &measured, costs));
            facts = measured.iter().enumerate().flat_map(|(set, m)| self.facts(name, set, m)).collect();
            filters = self.filters(name, &samples.sets[0], &measured[0])?;
        }
        Ok((rows, facts, filters))
    }

    fn facts(&self, name: &str, set: usize, measured: &Measurements) -> Vec<SampleFacts> {
        let fact = |index: usize| {
            let nearest = self.networks.entries[measured.nearest[index]].record();
            SampleFacts {
                generator: name.to_owned(),
                set,
                index,
                accuracy: measured.accuracy[index],
                distance: measured.distance[index] / self.context.units().d1,
                nearest: nearest.digest.to_string(),
            }
        };
        (0..measured.len()).map(fact).collect()
    }

    /// The refiner behind baselines, as rows, and its settings changed one at a time.
    fn other_refiners(&self, chosen: Option<&Row>) -> Result<(Vec<Row>, Vec<AblationRow>)> {
        let (mut rows, mut ablation) = (Vec::new(), Vec::new());
        for plan in models::refiners(self.session.config) {
            let training = self.trainings.iter().find(|t| t.file == plan.file);
            match &plan.role {
                Role::Chosen => ablation.extend(chosen.map(|row| ablation_row("as chosen", row))),
                Role::Baseline => rows.push(self.refined_row(&plan, training)?),
                Role::Ablation(settings) => ablation.push(ablation_row(settings, &self.refined_row(&plan, training)?)),
            }
        }
        Ok((rows, ablation))
    }

    fn refined_row(&self, plan: &RefinerPlan, training: Option<&ModelTraining>) -> Result<Row> {
        let flow = self.trainings.first().filter(|_| plan.proposal == Proposal::Flow);
        let fit = flow.into_iter().chain(training).fold((self.done.of(Stage::Encode).wall_secs, 0.0), add);
        self.row(self.models.refined(plan)?.as_ref(), RowKind::Refined, fit)
    }

    fn costs(&self, (sample_secs, sample_flops): (f64, f64), (fit_secs, fit_flops): (f64, f64)) -> Costs {
        let run = self.run_flops();
        Costs {
            sample_secs: Some(sample_secs),
            fit_secs: Some(fit_secs),
            sample_run_equivalents: run.map(|run| sample_flops / run),
            fit_run_equivalents: run.map(|run| fit_flops / run),
        }
    }

    /// Floating-point operations of one training run, the mean over runs; a backward pass takes twice those of a forward pass.
    fn run_flops(&self) -> Option<f64> {
        let examples = self.session.dataset(Stage::Evaluate).ok()?.range(Part::Train).len();
        let finals = self.networks.entries.iter().map(weft_zoo::Entry::record).filter(|record| record.is_final);
        let recipes: Vec<_> = finals.filter_map(|record| record.recipe.as_ref()).collect();
        let shown = recipes.iter().map(|recipe| recipe.batch_size as f64 * recipe.num_steps(examples) as f64).sum::<f64>();
        let step = 3.0 * weft_net::forward_flops(self.networks.train.architecture());
        (!recipes.is_empty()).then(|| step * shown / recipes.len() as f64)
    }

    /// First-layer weights of a few samples beside their nearest training network's, units matched.
    fn filters(&self, name: &str, samples: &Population, measured: &Measurements) -> Result<Vec<FilterPair>> {
        let architecture = self.networks.train.architecture();
        let side = architecture.num_inputs().isqrt();
        let reads_input = architecture.nodes().iter().find(|node| node.inputs == [0]);
        let Some(Op::Linear { weight, .. }) = reads_input.map(|node| &node.op) else { return Ok(Vec::new()) };
        if side * side != architecture.num_inputs() {
            return Ok(Vec::new());
        }
        let group = Group::derive(architecture.clone());
        let count = samples.len().min(PAIRS);
        let nearest = self.networks.train.select(&measured.nearest[..count]);
        let dataset = self.session.dataset(Stage::Evaluate)?;
        let accuracies = weft_net::accuracies(&nearest, dataset, Part::Test, &self.session.device)?;
        let range = architecture.tensors()[*weight].range();
        let units = |row: &[f32]| row[range.clone()].chunks_exact(side * side).map(<[f32]>::to_vec).collect();
        (0..count)
            .map(|i| {
                let seed = self.context.seed().fork("filters").index(i as u64);
                let (element, _) = match_to(&group, nearest.row(i), samples.row(i), &Matching::default(), seed)?;
                let mut matched = nearest.row(i).to_vec();
                group.apply(&element, &mut matched)?;
                Ok(FilterPair {
                    name: format!("sample {i} of {name}"),
                    side,
                    sampled: units(samples.row(i)),
                    nearest: units(&matched),
                    distance: measured.distance[i] / self.context.units().d1,
                    accuracy: measured.accuracy[i],
                    nearest_accuracy: accuracies[i],
                })
            })
            .collect()
    }
}

/// Adds a training's seconds and operations.
fn add((secs, flops): (f64, f64), training: &ModelTraining) -> (f64, f64) {
    (secs + training.secs, flops + training.flops)
}

fn ablation_row(settings: &str, row: &Row) -> AblationRow {
    AblationRow {
        settings: settings.to_owned(),
        chosen: settings == "as chosen",
        accuracy: row.accuracy,
        distance: row.distance,
        functional: row.functional,
        pairwise: row.pairwise,
        disagreement: row.disagreement,
        run_equivalents: row.fit_run_equivalents.unwrap_or(0.0),
    }
}
