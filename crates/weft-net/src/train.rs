//! Training of populations: independent runs of one architecture and recipe, each with its own seed.

use crate::evaluate::Runner;
use crate::{Device, Engine, Error, Examples, Labelled, Result, Scores, Workspace, lockstep};
use rayon::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use weft_core::{Architecture, Monitor, Op, Part, Precision, Recipe, Seed, Task};
use weft_ops::kernels::{OptimizerKernel, OptimizerState, cross_entropy_gradient};

/// A network at one step of its run.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// Optimizer steps taken.
    pub step: u64,
    /// The weights, a checkpoint's flat row `[D]`.
    pub row: Vec<f32>,
    /// Exponential mean of the batch losses up to here (decay 0.98), in nats.
    pub train_loss: f64,
    /// Accuracy and loss on the validation part.
    pub validation: Scores,
}

/// A training run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunResult {
    /// The kept snapshots, the last step's at the end.
    pub snapshots: Vec<Snapshot>,
}

/// Trains one network a seed, on the training part alone: on the data set's classes, or with `(dataset, tasks)` on a task a seed.
///
/// A run depends on its own seed, the recipe and the data, not on its neighbours: trained alone or among a
/// thousand, it ends with the same bytes (on one machine's CPU, at any number of threads).
/// Of several devices the first trains all; [`share_out`](crate::share_out) shares blocks of runs out.
///
/// # Errors
/// A recipe out of range, a data set or tasks that do not fit, a diverged run, or [`Error::Interrupted`] when the
/// monitor asks for a stop.
pub fn train<'a>(
    architecture: &Arc<Architecture>,
    dataset: impl Into<Labelled<'a>>,
    recipe: &Recipe,
    seeds: &[Seed],
    device: &Device,
    monitor: &Monitor<'_>,
) -> Result<Vec<RunResult>> {
    let labelled = dataset.into();
    let part = |part| Examples::of_networks((architecture, seeds.len()), labelled, labelled.dataset().range(part));
    let (examples, validation) = (part(Part::Train)?, part(Part::Validation)?);
    recipe.check(examples.len())?;
    // The CPU's backend refuses other precisions by name.
    if !device.is_cpu() || recipe.precision != Precision::Single {
        return lockstep::train(architecture, ([&examples, &validation], labelled), recipe, seeds, (device, monitor));
    }
    let engine = Engine::new(architecture.clone())?;
    let done = AtomicU64::new(0);
    seeds
        .par_iter()
        .enumerate()
        .map(|(network, seed)| {
            let job = Job { engine: &engine, examples: &examples, task: labelled.task(network), recipe, seed: *seed, monitor };
            let result = job.run(network, &validation)?;
            monitor.progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            Ok(result)
        })
        .collect()
}

/// The initial weights of a run, a flat row, as `PyTorch`'s layers have them.
///
/// Linear maps and convolutions are uniform in `±1/√fan_in`, weight and bias alike; norms start as the identity (gain 1, bias 0,
/// running mean 0 and variance 1). Tensors of ops that are not trained here stay 0.
#[must_use]
pub fn initial_weights(architecture: &Architecture, seed: Seed) -> Vec<f32> {
    let mut row = vec![0.0; architecture.num_parameters()];
    let seed = seed.fork("init");
    let tensors = architecture.tensors();
    for node in architecture.nodes() {
        let (weight, bias) = match node.op {
            Op::Linear { weight, bias } | Op::Conv2d { weight, bias, .. } => (weight, bias),
            Op::BatchNorm { gain, variance, .. } => {
                for tensor in [gain, variance] {
                    row[tensors[tensor].range()].fill(1.0);
                }
                continue;
            }
            Op::LayerNorm { gain: Some(gain), .. } => {
                row[tensors[gain].range()].fill(1.0);
                continue;
            }
            _ => continue,
        };
        let fan_in: usize = tensors[weight].shape[1..].iter().product();
        let bound = 1.0 / (fan_in as f32).sqrt();
        for tensor in [Some(weight), bias].into_iter().flatten() {
            let range = tensors[tensor].range();
            let draws = seed.index(tensor as u64).uniforms(range.len());
            row[range].iter_mut().zip(draws).for_each(|(w, u)| *w = (2.0 * u - 1.0) * bound);
        }
    }
    row
}

/// The examples of each step of a run: passes in a new random order each, without incomplete batches.
pub(crate) struct Batches {
    seed: Seed,
    num_examples: usize,
    batch_size: usize,
    pass: u64,
    order: Vec<u32>,
    at: usize,
}

impl Batches {
    pub(crate) fn new(seed: Seed, num_examples: usize, batch_size: usize) -> Self {
        Self { seed: seed.fork("order"), num_examples, batch_size, pass: 0, order: Vec::new(), at: 0 }
    }

    pub(crate) fn next(&mut self) -> &[u32] {
        if self.at + self.batch_size > self.order.len() {
            self.order = self.seed.index(self.pass).permutation(self.num_examples);
            self.pass += 1;
            self.at = 0;
        }
        self.at += self.batch_size;
        &self.order[self.at - self.batch_size..self.at]
    }
}

struct Job<'a> {
    engine: &'a Engine,
    examples: &'a Examples,
    task: Option<&'a Task>,
    recipe: &'a Recipe,
    seed: Seed,
    monitor: &'a Monitor<'a>,
}

impl Job<'_> {
    fn run(&self, network: usize, validation: &Examples) -> Result<RunResult> {
        let architecture = self.engine.architecture();
        let recipe = self.recipe;
        let dim = architecture.num_parameters();
        let mut weights = vec![0.0; dim];
        self.engine.engine_from_row(&initial_weights(architecture, self.seed), &mut weights);
        let mut gradient = vec![0.0; dim];
        let kernel = OptimizerKernel { optimizer: recipe.optimizer, weight_decay: recipe.weight_decay };
        let mut state = OptimizerState::new(recipe.optimizer, dim);
        let mut batches = Batches::new(self.seed, self.examples.len(), recipe.batch_size);
        let mut buffers = Buffers::default();
        let num_steps = recipe.num_steps(self.examples.len());
        let kept = recipe.kept_steps(self.examples.len());
        let mut train_loss = None;
        let mut snapshots = Vec::with_capacity(kept.len());
        for step in 0..num_steps {
            if step % 64 == 0 && self.monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let chosen = batches.next();
            let loss = self.loss_gradient(chosen, &weights, &mut buffers, &mut gradient);
            let rate = recipe.learning_rate * recipe.schedule.factor(step, num_steps);
            kernel.step(&mut state, &mut weights, &mut gradient, rate, 1.0);
            self.engine.update_statistics(&buffers.workspace, &mut weights);
            let mean = train_loss.map_or(loss, |mean: f64| 0.98 * mean + 0.02 * loss);
            train_loss = Some(mean);
            if kept.contains(&(step + 1)) {
                if !mean.is_finite() || weights.iter().any(|w| !w.is_finite()) {
                    return Err(Error::Diverged { network, step: step + 1 });
                }
                let mut row = vec![0.0; dim];
                self.engine.row_from_engine(&weights, &mut row);
                let scores = Runner::new(self.engine.clone()).score(&row, validation, self.task);
                snapshots.push(Snapshot { step: step + 1, row, train_loss: mean, validation: scores });
            }
        }
        Ok(RunResult { snapshots })
    }

    /// Adds the gradient of the batch's mean loss, and returns that loss.
    fn loss_gradient(&self, chosen: &[u32], weights: &[f32], buffers: &mut Buffers, gradient: &mut [f32]) -> f64 {
        let Buffers { workspace, scratch, labels } = buffers;
        let piece = if self.engine.has_statistics() { chosen.len() } else { self.engine.piece_of(chosen.len()) };
        let mut loss = 0.0;
        for part in chosen.chunks(piece) {
            labels.clear();
            labels.extend(part.iter().map(|&i| self.examples.label(i, self.task)));
            let batch = self.examples.batch(part, scratch);
            let logits = self.engine.forward_training(weights, batch, part.len(), workspace);
            let share = part.len() as f32 / chosen.len() as f32;
            loss += f64::from(share) * cross_entropy_gradient(logits, labels);
            if part.len() < chosen.len() {
                for g in logits.iter_mut() {
                    *g *= share;
                }
            }
            self.engine.backward(weights, batch, part.len(), workspace, gradient);
        }
        loss
    }
}

/// One run's buffers.
#[derive(Default)]
struct Buffers {
    workspace: Workspace,
    scratch: Vec<f32>,
    labels: Vec<u32>,
}
