//! Outputs and scores of populations.

use crate::{Engine, Examples, Result, Workspace};
use rayon::prelude::*;
use std::ops::Range;
use weft_core::{Dataset, Op, Part, Population};
use weft_ops::kernels::{cross_entropy, lanes};

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
/// If the engine does not run the architecture.
pub fn logits(population: &Population, inputs: &[f32]) -> Result<Vec<f32>> {
    let architecture = population.architecture();
    let examples = Examples::unlabelled(inputs, architecture.num_inputs());
    let mut out = vec![0.0; population.len() * examples.len() * architecture.num_outputs()];
    let stride = (examples.len() * architecture.num_outputs()).max(1);
    for_each_network(population, out.par_chunks_mut(stride), |runner, row, out| {
        runner.run(row, &examples, |at, z| out[at..at + z.len()].copy_from_slice(z));
    })?;
    Ok(out)
}

/// The class of the largest logit, for each network and example of a part; ties go to the lower class.
///
/// # Shapes
/// `[n, examples]`.
///
/// # Errors
/// If the architecture does not fit the data set.
pub fn predictions(population: &Population, dataset: &Dataset, part: Part) -> Result<Vec<u32>> {
    let architecture = population.architecture();
    let examples = Examples::new(architecture, dataset, dataset.range(part))?;
    let classes = architecture.num_outputs();
    let mut out = vec![0; population.len() * examples.len()];
    for_each_network(population, out.par_chunks_mut(examples.len()), |runner, row, out| {
        runner.run(row, &examples, |at, z| {
            for (slot, z) in out[at / classes..].iter_mut().zip(z.chunks_exact(classes)) {
                *slot = argmax(z);
            }
        });
    })?;
    Ok(out)
}

/// The accuracy of each network on a part.
///
/// # Errors
/// If the architecture does not fit the data set.
pub fn accuracies(population: &Population, dataset: &Dataset, part: Part) -> Result<Vec<f64>> {
    Ok(scores(population, dataset, part)?.into_iter().map(|s| s.accuracy).collect())
}

/// The accuracy and loss of each network on a part.
///
/// # Errors
/// If the architecture does not fit the data set.
pub fn scores(population: &Population, dataset: &Dataset, part: Part) -> Result<Vec<Scores>> {
    let examples = Examples::new(population.architecture(), dataset, dataset.range(part))?;
    score_all(population, &examples)
}

pub(crate) fn score_all(population: &Population, examples: &Examples) -> Result<Vec<Scores>> {
    let mut out = vec![Scores { accuracy: 0.0, loss: 0.0 }; population.len()];
    for_each_network(population, out.par_chunks_mut(1), |runner, row, out| out[0] = runner.score(row, examples))?;
    Ok(out)
}

/// Which hidden units are ever active (output other than 0) on the inputs: `[network][activation node][unit]`.
///
/// The units of an image are its channels, each active if any of its pixels is.
///
/// # Shapes
/// `inputs` `[b, i]`.
///
/// # Errors
/// If the engine does not run the architecture.
pub fn hidden_activity(population: &Population, inputs: &[f32]) -> Result<Vec<Vec<Vec<bool>>>> {
    let architecture = population.architecture();
    let examples = Examples::unlabelled(inputs, architecture.num_inputs());
    let nodes = architecture.nodes().iter().enumerate();
    let hidden: Vec<usize> = nodes.filter(|(_, n)| matches!(n.op, Op::Activation(_))).map(|(i, _)| i).collect();
    let units = |node: usize| architecture.shapes()[node][0];
    let mut out: Vec<Vec<Vec<bool>>> = vec![hidden.iter().map(|&h| vec![false; units(h)]).collect(); population.len()];
    for_each_network(population, out.par_chunks_mut(1), |runner, row, out| {
        runner.engine.engine_from_row(row, &mut runner.weights);
        runner.forward(&examples, |engine, workspace, run| {
            for (&node, active) in hidden.iter().zip(&mut out[0]) {
                mark_active(engine.node_values(workspace, node), engine.is_image(node).then_some(run.len()), active);
            }
        });
    })?;
    Ok(out)
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

    pub(crate) fn score(&mut self, row: &[f32], examples: &Examples) -> Scores {
        let (mut correct, mut loss) = (0usize, 0.0);
        let classes = self.engine.architecture().num_outputs();
        self.run(row, examples, |at, z| {
            let labels = &examples.labels()[at / classes..][..z.len() / classes];
            correct += z.chunks_exact(classes).zip(labels).filter(|(z, label)| argmax(z) == **label).count();
            loss += cross_entropy(z, labels) * labels.len() as f64;
        });
        let count = examples.len().max(1) as f64;
        Scores { accuracy: correct as f64 / count, loss: loss / count }
    }
}

/// Runs `work` on each network with its slot of the output, a runner a thread.
fn for_each_network<T: Send>(
    population: &Population,
    slots: rayon::slice::ChunksMut<'_, T>,
    work: impl Fn(&mut Runner, &[f32], &mut [T]) + Sync,
) -> Result<()> {
    let engine = Engine::new(population.architecture().clone())?;
    let rows = population.data().par_chunks_exact(population.dim());
    rows.zip(slots).for_each_init(|| Runner::new(engine.clone()), |runner, (row, slot)| work(runner, row, slot));
    Ok(())
}
