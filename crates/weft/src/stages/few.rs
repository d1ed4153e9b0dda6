//! Stage 5, few examples: what can be had for a held-out task of which a handful of labelled examples is known, against milliseconds.
//!
//! Every way gets the same draws of training examples, those that the run's samples were shown, and makes one network at a time; its time begins with
//! the examples as they are and ends with the network. Rates and scales are chosen on training tasks by validation accuracy; test examples are read for
//! the accuracies alone.

use super::conditional::is_member;
use super::examples::{self, Shown};
use super::models::{Models, refiners};
use super::{Session, data};
use crate::config::{ArchitectureConfig, FewExamplesConfig};
use crate::report::data::{FewComparison, FewExamples, FewPoint, FewWay};
use crate::run::Stage;
use crate::{GeneratorName, Result};
use std::sync::Arc;
use std::time::Instant;
use weft_core::{Architecture, Condition, Dataset, ExampleSet, Optimizer, Part, Population, Recipe, Seed, Task, Value};
use weft_eval::conditional::over_clusters;
use weft_gen::{ExampleEncoder, Flow, Generator, Guide, Guided, Refined, Refiner};
use weft_net::PopulationLoss;
use weft_ops::kernels::{OptimizerKernel, OptimizerState};

/// What is measured with.
pub(super) struct Input<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) models: &'a Models<'a>,
    pub(super) shown: &'a Shown,
    /// The held-out tasks, and the cluster of each.
    pub(super) tasks: (&'a [Task], &'a [String]),
    pub(super) train_tasks: &'a [Task],
    /// What is asked for beside the examples.
    pub(super) base: &'a Condition,
    /// The mean of the training networks.
    pub(super) mean: &'a Population,
    pub(super) recipe: Option<&'a Recipe>,
}

/// A task with examples of it.
struct Case {
    task: Task,
    examples: ExampleSet,
    seed: Seed,
}

/// A network, the budget that it took and the seconds from the examples to it.
struct Made {
    budget: u64,
    secs: f64,
    row: Vec<f32>,
}

/// What training begins with.
#[derive(Clone, Copy)]
enum Start<'a> {
    Random,
    Row(&'a [f32]),
    Hyper(&'a dyn Generator),
}

/// The bench of all ways.
struct Bench<'a> {
    input: &'a Input<'a>,
    encoder: &'a ExampleEncoder,
    config: &'a FewExamplesConfig,
    dataset: &'a Dataset,
    architecture: Arc<Architecture>,
    held_out: Vec<Case>,
    choosing: Vec<Case>,
}

/// Measures every way that the run has; nothing where no labels are shown.
pub(super) fn measure(input: &Input, config: &FewExamplesConfig) -> Result<Option<FewExamples>> {
    let Some(encoder) = input.shown.labelled() else { return Ok(None) };
    let session = input.session;
    let dataset = session.dataset(Stage::Evaluate)?;
    let seeds = session.config.sample.seeds;
    let case = |task: &Task, seed: Seed| -> Result<Case> {
        let examples = examples::example_set(dataset, task, &input.shown.draw(task, seed))?;
        Ok(Case { task: task.clone(), examples, seed })
    };
    let of_set = |set: usize| input.tasks.0.iter().map(move |task| (task, examples::seed_of(session, task, set)));
    let held_out = (0..seeds).flat_map(of_set).map(|(task, seed)| case(task, seed)).collect::<Result<Vec<_>>>()?;
    let seed = session.seed.fork("few examples").fork("choose");
    let mut train_tasks: Vec<&Task> = input.train_tasks.iter().collect();
    train_tasks.sort_by_key(|task| task.name());
    train_tasks.dedup();
    let chosen = seed.fork("tasks").subset(config.choose_on, train_tasks.len());
    let choosing = chosen.iter().map(|&t| case(train_tasks[t as usize], seed.index(u64::from(t))));
    let choosing = choosing.collect::<Result<Vec<_>>>()?;
    let architecture = input.mean.architecture().clone();
    let bench = Bench { input, encoder, config, dataset, architecture, held_out, choosing };
    let ways = bench.ways()?;
    let comparisons = bench.comparisons(&ways);
    let per_output = bench.held_out.first().map_or(0, |case| case.examples.labels().len() / case.task.num_outputs());
    Ok(Some(FewExamples { per_output, num_sets: seeds, ways, comparisons }))
}

impl Bench<'_> {
    fn ways(&self) -> Result<Vec<FewWay>> {
        let (session, models) = (self.input.session, self.input.models);
        let (flow, plan) = (models.flow()?, refiners(session.config).into_iter().next());
        let refiner = plan.map(|plan| models.refiner(&plan)).transpose()?;
        let hyper = session.config.hyper.is_some().then(|| models.generator(GeneratorName::Hyper)).transpose()?;
        let total = 3 + usize::from(refiner.is_some()) * 2 + usize::from(hyper.is_some()) * 2 + 1;
        session.monitor.start("few examples", total as u64, "ways");
        let mut ways: Vec<FewWay> = Vec::with_capacity(total);
        let mut add = |way: Result<Option<FewWay>>| -> Result<()> {
            session.check_stop(Stage::Evaluate)?;
            ways.extend(way?);
            session.monitor.progress(ways.len() as u64);
            Ok(())
        };
        add(self.trained("from scratch", Start::Random).map(Some))?;
        add(self.trained("mean network, fine-tuned", Start::Row(self.input.mean.row(0))).map(Some))?;
        add(self.grouped())?;
        if let Some(hyper) = &hyper {
            add(self.told(hyper.as_ref()).map(Some))?;
            add(self.trained("hyper-decoder, fine-tuned", Start::Hyper(hyper.as_ref())).map(Some))?;
        }
        if let Some(refiner) = &refiner {
            add(self.sampled((&flow, Some(refiner)), None).map(Some))?;
        }
        let (scale, _) = best(&self.config.guide_scales, |scale| {
            let made = self.make(&self.choosing, |case| self.of_flow((&flow, None), Some(scale), case))?;
            Ok(self.choice(&made)?.into_iter().fold(0.0, f64::max))
        })?;
        add(self.sampled((&flow, None), Some(scale)).map(Some))?;
        if let Some(refiner) = &refiner {
            add(self.sampled((&flow, Some(refiner)), Some(scale)).map(Some))?;
        }
        session.monitor.finish();
        Ok(ways)
    }

    /// Networks of each case; all cases have the same budgets.
    fn make(&self, cases: &[Case], way: impl Fn(&Case) -> Result<Vec<Made>>) -> Result<Vec<Vec<Made>>> {
        let of = |case| {
            self.input.session.check_stop(Stage::Evaluate)?;
            way(case)
        };
        cases.iter().map(of).collect()
    }

    /// Accuracies of networks for cases, `[budget][case]`.
    fn accuracies(&self, cases: &[Case], made: &[Vec<Made>], part: Part) -> Result<Vec<Vec<f64>>> {
        let tasks: Vec<Task> = cases.iter().map(|case| case.task.clone()).collect();
        let of_budget = |b: usize| {
            let rows = made.iter().flat_map(|made| made[b].row.iter().copied()).collect();
            let networks = Population::new(self.architecture.clone(), rows)?;
            Ok(weft_net::accuracies(&networks, (self.dataset, &tasks[..]), part, &self.input.session.device)?)
        };
        (0..made.first().map_or(0, Vec::len)).map(of_budget).collect()
    }

    /// Mean validation accuracy over the training tasks of the choice, at each budget.
    fn choice(&self, made: &[Vec<Made>]) -> Result<Vec<f64>> {
        let found = self.accuracies(&self.choosing, made, Part::Validation)?;
        Ok(found.iter().map(|cases| cases.iter().sum::<f64>() / cases.len().max(1) as f64).collect())
    }

    /// A way's curve on the held-out tasks.
    fn curve(&self, (name, ours): (&str, bool), setting: String, made: &[Vec<Made>]) -> Result<FewWay> {
        let found = self.accuracies(&self.held_out, made, Part::Test)?;
        let points = found.iter().enumerate().map(|(b, accuracies)| {
            let secs = made.iter().map(|made| made[b].secs).collect();
            self.point(made[0][b].budget, secs, accuracies)
        });
        Ok(FewWay { name: name.to_owned(), ours, setting, points: points.collect() })
    }

    /// The mean over sets of each task's accuracy, and the median of the times.
    fn point(&self, budget: u64, mut secs: Vec<f64>, accuracies: &[f64]) -> FewPoint {
        let (tasks, clusters) = self.input.tasks;
        secs.sort_by(f64::total_cmp);
        let sets = accuracies.len() / tasks.len();
        let mean = |t: usize| accuracies.iter().skip(t).step_by(tasks.len()).sum::<f64>() / sets as f64;
        let by_task: Vec<f64> = (0..tasks.len()).map(mean).collect();
        FewPoint { budget, secs: secs[secs.len() / 2], accuracy: over_clusters(&by_task, clusters), by_task }
    }

    /// Each of ours at its last budget beside the others at the last that takes no more time.
    fn comparisons(&self, ways: &[FewWay]) -> Vec<FewComparison> {
        let (ours, others): (Vec<&FewWay>, Vec<&FewWay>) = ways.iter().partition(|way| way.ours);
        let mut found = Vec::new();
        for (way, other) in ours.iter().flat_map(|way| others.iter().map(move |other| (way, other))) {
            let Some(own) = way.points.last() else { continue };
            let within = other.points.iter().rev().find(|point| point.secs <= own.secs).or(other.points.first());
            let Some(within) = within else { continue };
            let apart: Vec<f64> = own.by_task.iter().zip(&within.by_task).map(|(a, b)| a - b).collect();
            let difference = over_clusters(&apart, self.input.tasks.1);
            found.push(FewComparison {
                ours: way.name.clone(),
                secs: own.secs,
                with: other.name.clone(),
                with_budget: within.budget,
                with_secs: within.secs,
                better: difference.mean > 2.0 * difference.se,
                difference,
            });
        }
        found
    }

    /// Training on the examples alone, at the learning rate that does best on training tasks.
    fn trained(&self, name: &str, start: Start) -> Result<FewWay> {
        let (rate, _) = best(&self.config.learning_rates, |rate| {
            let made = self.make(&self.choosing, |case| self.descend(start, case, rate))?;
            Ok(self.choice(&made)?.into_iter().fold(0.0, f64::max))
        })?;
        let made = self.make(&self.held_out, |case| self.descend(start, case, rate))?;
        self.curve((name, matches!(start, Start::Hyper(_))), format!("learning rate {rate}"), &made)
    }

    /// Adam on all examples at once, with a network at 0 steps and at each power of two.
    fn descend(&self, start: Start, case: &Case, rate: f64) -> Result<Vec<Made>> {
        let since = Instant::now();
        let mut row = match start {
            Start::Random => weft_net::initial_weights(&self.architecture, case.seed.fork("start")),
            Start::Row(row) => row.to_vec(),
            Start::Hyper(hyper) => self.one(hyper, case)?,
        };
        let loss = PopulationLoss::of_examples(self.architecture.clone(), &case.examples, &self.input.session.device)?;
        let all: Vec<u32> = (0..case.examples.labels().len() as u32).collect();
        let kernel = OptimizerKernel { optimizer: Optimizer::ADAM, weight_decay: 0.0 };
        let mut state = OptimizerState::new(kernel.optimizer, row.len());
        let mut made = vec![Made { budget: 0, secs: since.elapsed().as_secs_f64(), row: row.clone() }];
        for step in 1..=self.config.train_steps {
            let mut gradient = loss.gradients(&row, &all).gradient;
            kernel.step(&mut state, &mut row, &mut gradient, rate, 1.0);
            if step.is_power_of_two() || step == self.config.train_steps {
                made.push(Made { budget: step, secs: since.elapsed().as_secs_f64(), row: row.clone() });
            }
        }
        Ok(made)
    }

    /// One network from a generator that is shown the examples.
    fn one(&self, generator: &dyn Generator, case: &Case) -> Result<Vec<f32>> {
        let vector = self.encoder.encode(&case.examples)?;
        let condition = self.input.base.clone().with(ExampleEncoder::FIELD, Value::Vector(vector));
        Ok(generator.sample(1, &condition, case.seed.fork("sample"))?.row(0).to_vec())
    }

    /// A generator of one pass.
    fn told(&self, generator: &dyn Generator) -> Result<FewWay> {
        let made = self.make(&self.held_out, |case| {
            let since = Instant::now();
            let row = self.one(generator, case)?;
            Ok(vec![Made { budget: 1, secs: since.elapsed().as_secs_f64(), row }])
        })?;
        self.curve((generator.name(), true), "one pass".to_owned(), &made)
    }

    /// The flow, refined or not, guided or not.
    fn sampled(&self, (flow, refiner): (&Flow, Option<&Refiner>), scale: Option<f64>) -> Result<FewWay> {
        let made = self.make(&self.held_out, |case| self.of_flow((flow, refiner), scale, case))?;
        let name =
            format!("flow{}{}", if scale.is_some() { ", guided" } else { "" }, if refiner.is_some() { " + refiner" } else { "" });
        self.curve((&name, true), scale.map_or_else(String::new, |scale| format!("scale {scale}")), &made)
    }

    fn of_flow(&self, (flow, refiner): (&Flow, Option<&Refiner>), scale: Option<f64>, case: &Case) -> Result<Vec<Made>> {
        let session = self.input.session;
        let mut made = Vec::new();
        for steps in (0..).map(|i| 1 << i).take_while(|&steps| steps <= self.config.flow_steps) {
            let sampler = weft_gen::SamplerConfig { steps, ..session.config.sampler.to_sampler() };
            let (flow, refiner) = (flow.clone().with_sampler(sampler), refiner.cloned());
            let since = Instant::now();
            let proposal: Arc<dyn Generator> = match scale {
                None => Arc::new(flow),
                Some(scale) => {
                    let guide = Guide::new(self.architecture.clone(), &case.examples, scale, &session.device)?;
                    Arc::new(Guided::new(flow, guide)?)
                }
            };
            let row = match refiner {
                Some(refiner) => self.one(&Refined::new(proposal, refiner), case)?,
                None => self.one(proposal.as_ref(), case)?,
            };
            made.push(Made { budget: steps as u64, secs: since.elapsed().as_secs_f64(), row });
        }
        Ok(made)
    }

    /// One network of all the data's classes, whose classes the examples group: each belongs to the output on whose examples it has the greater mean
    /// probability. Perceptrons alone, as of others the one with more outputs is not known.
    fn grouped(&self) -> Result<Option<FewWay>> {
        let session = self.input.session;
        let (Some(recipe), Some(config @ ArchitectureConfig::Mlp(_))) = (self.input.recipe, &session.config.architecture) else {
            return Ok(None);
        };
        let architecture = Arc::new(data::architecture(config, Some(self.dataset), None)?);
        let seed = session.seed.fork("few examples").fork("all classes");
        let runs = weft_net::train(&architecture, self.dataset, recipe, &[seed], &session.device, session.monitor)?;
        let row = runs[0].snapshots.last().map(|snapshot| snapshot.row.clone()).unwrap_or_default();
        let network = Population::new(architecture.clone(), row)?;
        let classes = architecture.num_outputs();
        let test = weft_net::logits(&network, &self.dataset.gather(self.dataset.range(Part::Test)), &session.device)?;
        let labels = self.dataset.labels(Part::Test);
        let (mut secs, mut accuracies) = (Vec::new(), Vec::new());
        for case in &self.held_out {
            let since = Instant::now();
            let logits = weft_net::logits(&network, case.examples.inputs(), &session.device)?;
            let group = grouping(&logits, case.examples.labels(), classes)?;
            secs.push(since.elapsed().as_secs_f64());
            let said = test.chunks_exact(classes).map(|z| u32::from(is_member(z, &group)));
            let right = said.zip(labels).filter(|(said, class)| *said == case.task.output(**class)).count();
            accuracies.push(right as f64 / labels.len() as f64);
        }
        let points = vec![self.point(1, secs, &accuracies)];
        let name = "one network of all classes, grouped by the examples".to_owned();
        Ok(Some(FewWay { name, ours: false, setting: "trained with all labels".to_owned(), points }))
    }
}

/// The setting with the greatest figure, and that figure; the first of several.
fn best(settings: &[f64], figure: impl Fn(f64) -> Result<f64>) -> Result<(f64, f64)> {
    let mut found = (f64::NAN, f64::NEG_INFINITY);
    for &setting in settings {
        let value = figure(setting)?;
        if value > found.1 {
            found = (setting, value);
        }
    }
    Ok(found)
}

/// The output of each class by its mean probability on the examples of each output.
fn grouping(logits: &[f32], labels: &[u32], classes: usize) -> Result<Task> {
    let mut sums = vec![[0.0_f64; 2]; classes];
    let counts = [0, 1].map(|output| labels.iter().filter(|&&label| label == output).count().max(1) as f64);
    for (z, &label) in logits.chunks_exact(classes).zip(labels) {
        let max = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f64> = z.iter().map(|z| f64::from(z - max).exp()).collect();
        let all: f64 = weights.iter().sum();
        sums.iter_mut().zip(weights).for_each(|(sum, weight)| sum[label as usize] += weight / all / counts[label as usize]);
    }
    Ok(Task::new("grouped", sums.into_iter().map(|[zero, one]| u32::from(one > zero)).collect(), 2)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_go_where_their_probability_is_greater() {
        let sure = |class: usize| (0..3).map(|c| if c == class { 9.0 } else { 0.0 }).collect::<Vec<f32>>();
        let logits = [sure(0), sure(0), sure(1), sure(2)].concat();
        let task = grouping(&logits, &[0, 0, 1, 1], 3).unwrap();
        assert_eq!((0..3).map(|class| task.output(class)).collect::<Vec<_>>(), [0, 1, 1]);
    }

    #[test]
    fn the_best_setting_is_the_first_of_the_greatest() {
        let found = best(&[1.0, 2.0, 3.0, 4.0], |setting| Ok(if setting < 2.0 { 0.1 } else { 0.5 })).unwrap();
        assert_eq!(found, (2.0, 0.5));
    }
}
