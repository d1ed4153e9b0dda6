//! Outputs and scores of populations: through the engine, or the interpreter where the engine lacks an op; on a GPU in lock step,
//! as far as it has the ops.

use crate::{Device, Engine, Error, Examples, Labelled, Result, Workspace, interpret_captured, interpret_f32, lockstep};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;
use weft_core::{Architecture, Op, Part, Population, Task};
use weft_ops::kernels::{cross_entropy, lanes};

/// Examples that the interpreter is given at a time.
const INTERPRETED: usize = 256;

/// Accuracy and loss of one network.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Fraction of examples whose largest logit is the label's.
    pub accuracy: f64,
    /// Mean cross-entropy, in nats.
    pub loss: f64,
}

/// The logits of each network on shared inputs.
///
/// # Shapes
/// `inputs` `[b, i]` → `[n, b, c]`.
///
/// # Errors
/// If the architecture's values do not fit in memory, or inputs are not the token ids that it wants.
pub fn logits(population: &Population, inputs: &[f32], device: &Device) -> Result<Vec<f32>> {
    let architecture = population.architecture();
    let examples = Examples::unlabelled(inputs, architecture.num_inputs());
    let mut out = vec![0.0; population.len() * examples.len() * architecture.num_outputs()];
    let classes = architecture.num_outputs();
    let stride = (examples.len() * classes).max(1);
    if in_lock_step(population, &examples, device) {
        lockstep::logits(population, &examples, device, |[network, example], z, rows| {
            for (n, z) in z.chunks_exact(rows * classes).enumerate() {
                out[(network + n) * stride + example * classes..][..z.len()].copy_from_slice(z);
            }
        })?;
        return Ok(out);
    }
    for_each_output(population, &examples, out.par_chunks_mut(stride), |at, z, out| out[at..at + z.len()].copy_from_slice(z))?;
    Ok(out)
}

/// The class (of a task, the output) of the largest logit, for each network and example of a part; ties go to the lower class.
///
/// # Shapes
/// `[n, examples]`.
///
/// # Errors
/// If the architecture does not fit the data set, and those of [`logits`].
pub fn predictions<'a>(population: &Population, dataset: impl Into<Labelled<'a>>, part: Part, device: &Device) -> Result<Vec<u32>> {
    let architecture = population.architecture();
    let examples = examples(population, dataset.into(), part)?;
    let classes = architecture.num_outputs();
    let mut out = vec![0; population.len() * examples.len()];
    if in_lock_step(population, &examples, device) {
        lockstep::logits(population, &examples, device, |[network, example], z, rows| {
            for (n, z) in z.chunks_exact(rows * classes).enumerate() {
                let out = &mut out[(network + n) * examples.len() + example..][..rows];
                out.iter_mut().zip(z.chunks_exact(classes)).for_each(|(slot, z)| *slot = argmax(z));
            }
        })?;
        return Ok(out);
    }
    for_each_output(population, &examples, out.par_chunks_mut(examples.len().max(1)), |at, z, out| {
        for (slot, z) in out[at / classes..].iter_mut().zip(z.chunks_exact(classes)) {
            *slot = argmax(z);
        }
    })?;
    Ok(out)
}

/// The accuracy of each network on a part: at the data set's classes, or with `(dataset, tasks)` at its own task.
///
/// # Errors
/// If the architecture does not fit the data set or the tasks.
pub fn accuracies<'a>(population: &Population, dataset: impl Into<Labelled<'a>>, part: Part, device: &Device) -> Result<Vec<f64>> {
    Ok(scores(population, dataset, part, device)?.into_iter().map(|s| s.accuracy).collect())
}

/// The accuracy and loss of each network on a part: at the data set's classes, or with `(dataset, tasks)` at its own task.
///
/// # Errors
/// If the architecture does not fit the data set or the tasks.
pub fn scores<'a>(population: &Population, dataset: impl Into<Labelled<'a>>, part: Part, device: &Device) -> Result<Vec<Scores>> {
    let labelled = dataset.into();
    score_all(population, (&examples(population, labelled, part)?, labelled.tasks()), device)
}

fn examples(population: &Population, labelled: Labelled<'_>, part: Part) -> Result<Examples> {
    Examples::of_networks((population.architecture(), population.len()), labelled, labelled.dataset().range(part))
}

pub(crate) fn score_all(
    population: &Population,
    (examples, tasks): (&Examples, Option<&[Task]>),
    device: &Device,
) -> Result<Vec<Scores>> {
    let tally = |network: usize| Tally { task: tasks.map(|tasks| &tasks[network]), ..Tally::default() };
    let mut out: Vec<Tally> = (0..population.len()).map(tally).collect();
    let classes = population.architecture().num_outputs();
    if in_lock_step(population, examples, device) {
        lockstep::logits(population, examples, device, |[network, example], z, rows| {
            for (n, z) in z.chunks_exact(rows * classes).enumerate() {
                out[network + n].add(examples, (example * classes, z), classes);
            }
        })?;
        return Ok(out.into_iter().map(|tally| tally.scores(examples)).collect());
    }
    for_each_output(population, examples, out.par_chunks_mut(1), |at, z, out| out[0].add(examples, (at, z), classes))?;
    Ok(out.into_iter().map(|tally| tally.scores(examples)).collect())
}

/// Which hidden units are ever active (output other than 0) on the inputs: `[network][activation node][unit]`.
///
/// The units of an image are its channels, each active if any of its pixels is; those of tokens are their
/// features, each active if it is in any token.
///
/// # Shapes
/// `inputs` `[b, i]`.
///
/// # Errors
/// Those of [`logits`].
pub fn hidden_activity(population: &Population, inputs: &[f32], device: &Device) -> Result<Vec<Vec<Vec<bool>>>> {
    let architecture = population.architecture();
    if !device.is_cpu() {
        let examples = Examples::unlabelled(inputs, architecture.num_inputs());
        if in_lock_step(population, &examples, device) {
            return lockstep::activity(population, &examples, device);
        }
    }
    let nodes = architecture.nodes().iter().enumerate();
    let hidden: Vec<usize> = nodes.filter(|(_, n)| matches!(n.op, Op::Activation(_))).map(|(i, _)| i).collect();
    let idle: Vec<Vec<bool>> = hidden.iter().map(|&node| vec![false; num_units(architecture, node)]).collect();
    let mut out = vec![idle; population.len()];
    let rows = population.data().par_chunks_exact(population.dim()).zip(&mut out);
    match engine(population)? {
        Some(engine) => {
            let examples = Examples::unlabelled(inputs, architecture.num_inputs());
            rows.for_each_init(
                || Runner::new(engine.clone()),
                |runner, (row, out)| {
                    runner.engine.engine_from_row(row, &mut runner.weights);
                    runner.forward(&examples, |engine, workspace, run| {
                        for (&node, active) in hidden.iter().zip(&mut *out) {
                            mark_active(engine.node_values(workspace, node), engine.is_image(node).then_some(run.len()), active);
                        }
                    });
                },
            );
        }
        None => rows.try_for_each(|(row, out)| {
            for inputs in inputs.chunks(INTERPRETED * architecture.num_inputs()) {
                let values = interpret_captured(architecture, row.into(), inputs, &hidden)?;
                for ((&node, values), active) in hidden.iter().zip(&values).zip(&mut *out) {
                    // One unit's values lie `area` together: pixels of a channel, or one feature.
                    let area = if let [_, height, width] = architecture.shapes()[node][..] { height * width } else { 1 };
                    for values in values.chunks_exact(area * active.len()) {
                        let units = active.iter_mut().zip(values.chunks_exact(area));
                        units.for_each(|(active, values)| *active |= values.iter().any(|&v| v != 0.0));
                    }
                }
            }
            Ok::<(), Error>(())
        })?,
    }
    Ok(out)
}

/// The channels of an image, or the features of a vector or of tokens.
fn num_units(architecture: &Architecture, node: usize) -> usize {
    match architecture.shapes()[node][..] {
        [_, features] => features,
        [first, ..] => first,
        [] => 0,
    }
}

/// Marks units that are not 0 in some row, or in the blocks of a number of examples.
fn mark_active(values: &[f32], blocked: Option<usize>, active: &mut [bool]) {
    let Some(examples) = blocked else {
        return values.chunks_exact(active.len()).for_each(|row| active.iter_mut().zip(row).for_each(|(a, &v)| *a |= v != 0.0));
    };
    let lanes = lanes();
    let plane = values.len() / (examples.div_ceil(lanes) * active.len());
    for (at, plane) in values.chunks_exact(plane).enumerate() {
        let used = (examples - at / active.len() * lanes).min(lanes);
        let channel = at % active.len();
        active[channel] |= plane.chunks_exact(lanes).any(|pixel| pixel[..used].iter().any(|&v| v != 0.0));
    }
}

fn argmax(z: &[f32]) -> u32 {
    let mut best = 0;
    for (class, &value) in z.iter().enumerate() {
        if value > z[best] {
            best = class;
        }
    }
    best as u32
}

/// One thread's engine and buffers.
pub(crate) struct Runner {
    engine: Engine,
    weights: Vec<f32>,
    workspace: Workspace,
}

impl Runner {
    pub(crate) fn new(engine: Engine) -> Self {
        let weights = vec![0.0; engine.architecture().num_parameters()];
        Self { engine, weights, workspace: Workspace::default() }
    }

    /// Runs a network over all examples; `each` gets the offset of a chunk's logits and the logits.
    fn run(&mut self, row: &[f32], examples: &Examples, mut each: impl FnMut(usize, &[f32])) {
        self.engine.engine_from_row(row, &mut self.weights);
        let classes = self.engine.architecture().num_outputs();
        self.forward(examples, |engine, workspace, run| {
            let last = engine.architecture().nodes().len() - 1;
            each(run.start * classes, engine.node_values(workspace, last));
        });
    }

    fn forward(&mut self, examples: &Examples, mut each: impl FnMut(&Engine, &Workspace, Range<usize>)) {
        let indices: Vec<u32> = (0..examples.len() as u32).collect();
        let mut scratch = Vec::new();
        let size = self.engine.examples_at_once();
        for (chunk, indices) in indices.chunks(size).enumerate() {
            let batch = examples.batch(indices, &mut scratch);
            self.engine.forward(&self.weights, batch, indices.len(), &mut self.workspace);
            each(&self.engine, &self.workspace, chunk * size..chunk * size + indices.len());
        }
    }

    pub(crate) fn score(&mut self, row: &[f32], examples: &Examples, task: Option<&Task>) -> Scores {
        let mut tally = Tally { task, ..Tally::default() };
        let classes = self.engine.architecture().num_outputs();
        self.run(row, examples, |at, z| tally.add(examples, (at, z), classes));
        tally.scores(examples)
    }
}

/// Sums over the examples seen so far.
#[derive(Debug, Clone, Copy, Default)]
struct Tally<'a> {
    task: Option<&'a Task>,
    correct: usize,
    loss: f64,
}

impl Tally<'_> {
    /// Adds logits of examples; `at` is where they lie among all logits.
    fn add(&mut self, examples: &Examples, (at, z): (usize, &[f32]), classes: usize) {
        let first = at / classes;
        let range = first..first + z.len() / classes;
        let labels: Cow<'_, [u32]> = match self.task {
            None => Cow::Borrowed(&examples.labels()[range]),
            task => range.map(|i| examples.label(i as u32, task)).collect(),
        };
        self.correct += z.chunks_exact(classes).zip(&*labels).filter(|(z, label)| argmax(z) == **label).count();
        self.loss += cross_entropy(z, &labels) * labels.len() as f64;
    }

    fn scores(self, examples: &Examples) -> Scores {
        let count = examples.len().max(1) as f64;
        Scores { accuracy: self.correct as f64 / count, loss: self.loss / count }
    }
}

/// Whether a GPU is asked for and can run the networks.
fn in_lock_step(population: &Population, examples: &Examples, device: &Device) -> bool {
    !device.is_cpu() && !examples.is_empty() && !population.is_empty() && lockstep::runs(population.architecture())
}

/// The engine, unless it lacks an op of the networks.
fn engine(population: &Population) -> Result<Option<Engine>> {
    match Engine::new(population.architecture().clone()) {
        Ok(engine) => Ok(Some(engine)),
        Err(Error::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Runs each network over the examples; `each` gets the offset of a piece's outputs, the outputs, and the network's slot.
fn for_each_output<T: Send>(
    population: &Population,
    examples: &Examples,
    slots: rayon::slice::ChunksMut<'_, T>,
    each: impl Fn(usize, &[f32], &mut [T]) + Sync,
) -> Result<()> {
    let architecture = population.architecture();
    let rows = population.data().par_chunks_exact(population.dim()).zip(slots);
    if let Some(engine) = engine(population)? {
        rows.for_each_init(
            || Runner::new(engine.clone()),
            |runner, (row, slot)| runner.run(row, examples, |at, z| each(at, z, slot)),
        );
        return Ok(());
    }
    let features = architecture.num_inputs();
    rows.try_for_each(|(row, slot)| {
        let mut inputs = Vec::new();
        for first in (0..examples.len()).step_by(INTERPRETED) {
            let count = INTERPRETED.min(examples.len() - first);
            inputs.resize(count * features, 0.0);
            inputs.chunks_exact_mut(features).enumerate().for_each(|(i, x)| examples.read(first + i, x));
            each(first * architecture.num_outputs(), &interpret_f32(architecture, row.into(), &inputs)?, slot);
        }
        Ok(())
    })
}
