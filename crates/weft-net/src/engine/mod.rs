//! One network, forward and backward, in a core's cache.
//!
//! Weights are kept in *engine layout*: as in the flat row of a checkpoint, but each linear weight transposed to
//! `[in, out]`, and each convolution's to `[taps, out]`, so that all kernels read along the outputs. Vectors are kept as rows
//! `[b, width]`, images in [blocks](weft_ops::kernels::lanes) with the examples innermost.

mod image;
mod linear;
pub(crate) mod plan;

use crate::{Batch, Result};
use image::ImageScratch;
use linear::linear_backward;
pub use plan::forward_flops;
use plan::{Step, plan};
use std::sync::Arc;
use weft_core::Architecture;
use weft_ops::kernels::{activate, activate_backward, blocked_len, layer_norm_backward, layer_norm_forward, transpose};

/// Examples of a vector network that are run at a time, so that its activations stay in cache.
const ROWS_AT_ONCE: usize = 256;

/// The same for an image network; the widest vectors hold as many.
const IMAGES_AT_ONCE: usize = 16;

/// Runs networks of one architecture, one at a time.
#[derive(Debug, Clone)]
pub struct Engine {
    architecture: Arc<Architecture>,
    steps: Arc<Vec<Step>>,
    /// The number of nodes that read each node.
    readers: Arc<Vec<usize>>,
}

/// The buffers of one running network; each thread has its own.
#[derive(Debug, Default, Clone)]
pub struct Workspace {
    values: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    transposed: Vec<f32>,
    images: ImageScratch,
    /// Room for a dense batch.
    pub batch: Vec<f32>,
}

/// One run of a network over a batch.
#[derive(Clone, Copy)]
struct Pass<'a> {
    weights: &'a [f32],
    batch: Batch<'a>,
    examples: usize,
}

impl Engine {
    /// Makes an engine.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) names an op that this engine does not run: attention, grouped
    /// convolutions, anything on sequences.
    pub fn new(architecture: Arc<Architecture>) -> Result<Self> {
        let steps = plan(&architecture)?;
        let mut readers = vec![0; steps.len()];
        architecture.nodes().iter().flat_map(|node| &node.inputs).for_each(|&i| readers[i] += 1);
        Ok(Self { architecture, steps: Arc::new(steps), readers: Arc::new(readers) })
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// Whether networks carry statistics of their training data: batch norm's running mean and variance.
    #[must_use]
    pub fn has_statistics(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::BatchNorm(_)))
    }

    /// The steps of a pass.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Into pieces of how many examples to cut a batch for a gradient, so that all activations stay in a core's cache.
    ///
    /// The gradient of the batch is the sum of those of its pieces, except that batch norm in training needs the whole batch.
    #[must_use]
    pub fn piece_of(&self, batch: usize) -> usize {
        if self.is_image(0) { IMAGES_AT_ONCE } else { batch.max(1) }
    }

    /// How many examples to run forward at a time so that all activations stay in a core's cache.
    #[must_use]
    pub fn examples_at_once(&self) -> usize {
        if self.is_image(0) { IMAGES_AT_ONCE } else { ROWS_AT_ONCE }
    }

    /// Converts a checkpoint's flat row to engine layout.
    pub fn engine_from_row(&self, row: &[f32], out: &mut [f32]) {
        out.copy_from_slice(row);
        for (range, width_in) in self.transposed_weights() {
            transpose([range.len() / width_in, width_in], &row[range.clone()], &mut out[range]);
        }
    }

    /// Converts engine layout to a checkpoint's flat row.
    pub fn row_from_engine(&self, weights: &[f32], out: &mut [f32]) {
        out.copy_from_slice(weights);
        for (range, width_in) in self.transposed_weights() {
            transpose([width_in, range.len() / width_in], &weights[range.clone()], &mut out[range]);
        }
    }

    fn transposed_weights(&self) -> impl Iterator<Item = (std::ops::Range<usize>, usize)> {
        self.steps.iter().filter_map(|step| match step {
            Step::Linear { weight, width_in, .. } => Some((weight.clone(), *width_in)),
            Step::Conv { weight, shape, .. } => Some((weight.clone(), shape.taps())),
            _ => None,
        })
    }

    /// Computes the outputs of a batch and keeps what [`Engine::backward`] needs.
    ///
    /// # Shapes
    /// `weights` `[D]` in engine layout; returns the outputs `[b, c]`, to be changed to their gradient in place.
    ///
    /// # Panics
    /// If `weights` is not of the architecture or the batch does not have `examples` rows.
    pub fn forward<'w>(&self, weights: &[f32], batch: Batch<'_>, examples: usize, workspace: &'w mut Workspace) -> &'w mut [f32] {
        workspace.images.training = false;
        self.run(Pass { weights, batch, examples }, workspace)
    }

    /// The same in training: batch norm takes the batch's own statistics, and [`Engine::update_statistics`] stores them.
    ///
    /// # Shapes
    /// As for [`Engine::forward`].
    ///
    /// # Panics
    /// As [`Engine::forward`].
    pub fn forward_training<'w>(
        &self,
        weights: &[f32],
        batch: Batch<'_>,
        examples: usize,
        workspace: &'w mut Workspace,
    ) -> &'w mut [f32] {
        workspace.images.training = true;
        self.run(Pass { weights, batch, examples }, workspace)
    }

    /// Stores the running statistics of the last [`Engine::forward_training`], whatever an optimizer made of them.
    ///
    /// # Panics
    /// If `weights` is not of the architecture.
    pub fn update_statistics(&self, workspace: &Workspace, weights: &mut [f32]) {
        for (at, step) in self.steps.iter().enumerate() {
            if let (Step::BatchNorm(norm), Some([mean, variance])) = (step, workspace.images.moved(at)) {
                weights[norm.mean.clone()].copy_from_slice(mean);
                weights[norm.variance.clone()].copy_from_slice(variance);
            }
        }
    }

    /// Adds the gradient of the batch to `gradient`, given the gradient of the outputs.
    ///
    /// The output gradient is what [`Engine::forward`] returned, changed in place by the loss. After
    /// [`Engine::forward_training`] the gradient of running statistics is 0.
    ///
    /// # Shapes
    /// `weights` and `gradient` `[D]` in engine layout.
    pub fn backward(&self, weights: &[f32], batch: Batch<'_>, examples: usize, workspace: &mut Workspace, gradient: &mut [f32]) {
        let pass = Pass { weights, batch, examples };
        let nodes = self.architecture.nodes();
        let mut gradients = std::mem::take(&mut workspace.gradients);
        gradients.resize(nodes.len(), Vec::new());
        for (at, g) in gradients.iter_mut().enumerate().skip(1) {
            g.clear();
            g.resize(self.values_of(at, examples), 0.0);
        }
        let last = nodes.len() - 1;
        gradients[last].copy_from_slice(&workspace.values[last]);
        for at in (1..nodes.len()).rev() {
            let (before, rest) = gradients.split_at_mut(at);
            self.step_backward(pass, at, workspace, (before, &mut rest[0]), gradient);
        }
        workspace.gradients = gradients;
    }

    /// The values of a node after [`Engine::forward`]: `[b, width]` for a vector, else blocks.
    ///
    /// # Panics
    /// If nothing was run or the node is the input.
    #[must_use]
    pub fn node_values<'w>(&self, workspace: &'w Workspace, node: usize) -> &'w [f32] {
        &workspace.values[node]
    }

    /// Whether a node's values are images in blocks.
    #[must_use]
    pub fn is_image(&self, node: usize) -> bool {
        self.architecture.shapes()[node].len() == 3
    }

    fn values_of(&self, node: usize, examples: usize) -> usize {
        let width = self.architecture.widths()[node];
        if self.is_image(node) { blocked_len(examples, width) } else { examples * width }
    }

    fn run<'w>(&self, pass: Pass<'_>, workspace: &'w mut Workspace) -> &'w mut [f32] {
        let mut values = std::mem::take(&mut workspace.values);
        values.resize(self.steps.len(), Vec::new());
        if self.is_image(0) {
            image::blocks_of_batch(pass, self.architecture.num_inputs(), &mut values[0]);
        }
        for at in 1..self.steps.len() {
            let (done, rest) = values.split_at_mut(at);
            let y = &mut rest[0];
            y.resize(self.values_of(at, pass.examples), 0.0);
            self.step_forward(pass, at, done, workspace, y);
        }
        workspace.values = values;
        workspace.values.last_mut().expect("a graph has nodes")
    }

    fn step_forward(&self, pass: Pass<'_>, at: usize, done: &[Vec<f32>], workspace: &mut Workspace, y: &mut [f32]) {
        let inputs = &self.architecture.nodes()[at].inputs;
        let input = |i: usize| self.node_input(inputs[i], pass.batch, done);
        let tensor = |range: &std::ops::Range<usize>| &pass.weights[range.clone()];
        let images = &mut workspace.images;
        match &self.steps[at] {
            Step::Input => {}
            Step::Linear { weight, bias, .. } => {
                linear::forward(pass, inputs[0], done, (tensor(weight), bias.as_ref().map(tensor)), y);
            }
            Step::Conv { weight, bias, shape } => {
                images.conv_forward(shape, &input(0), (tensor(weight), bias.as_ref().map(tensor)), y);
            }
            Step::BatchNorm(norm) => {
                images.batch_norm_forward((at, norm), pass, (&input(0), self.is_image(at)), y);
            }
            Step::LayerNorm { gain, bias, width, epsilon } => {
                let gain = gain.as_ref().map_or_else(|| vec![1.0; *width], |r| tensor(r).to_vec());
                let bias = bias.as_ref().map_or_else(|| vec![0.0; *width], |r| tensor(r).to_vec());
                layer_norm_forward([&gain, &bias], *epsilon, &input(0), y);
            }
            Step::Activation(activation) => {
                y.copy_from_slice(&input(0));
                activate(*activation, y);
            }
            Step::Clip { min, max } => y.iter_mut().zip(input(0).iter()).for_each(|(y, x)| *y = x.max(*min).min(*max)),
            Step::Scale(factor) => y.iter_mut().zip(input(0).iter()).for_each(|(y, x)| *y = x * factor),
            Step::Add => {
                y.copy_from_slice(&input(0));
                y.iter_mut().zip(input(1).iter()).for_each(|(a, b)| *a += b);
            }
            Step::Mul => {
                y.copy_from_slice(&input(0));
                y.iter_mut().zip(input(1).iter()).for_each(|(a, b)| *a *= b);
            }
            Step::Pool(pooling, shape) => weft_ops::kernels::pool_forward(*pooling, shape, &input(0), y),
            Step::GlobalPool(shape) => images.global_pool_forward(shape, &input(0), self.architecture.widths()[at], y),
            Step::Flatten => image::rows_from_values(self.is_image(inputs[0]), self.architecture.widths()[at], &input(0), y),
        }
    }

    /// Spreads `dy`, the gradient of a node, over the gradients of its inputs and of its weights.
    fn step_backward(
        &self,
        pass: Pass<'_>,
        at: usize,
        workspace: &mut Workspace,
        (before, dy): (&mut [Vec<f32>], &mut Vec<f32>),
        gradient: &mut [f32],
    ) {
        let Workspace { values, transposed, images, .. } = workspace;
        let inputs = &self.architecture.nodes()[at].inputs;
        let from = inputs.first().copied().unwrap_or(0);
        let tensor = |range: &std::ops::Range<usize>| &pass.weights[range.clone()];
        match &self.steps[at] {
            // None of these has weights, and the input needs no gradient.
            Step::Activation(_) | Step::Clip { .. } | Step::Scale(_) | Step::Pool(..) | Step::GlobalPool(_) | Step::Flatten
                if from == 0 => {}
            Step::Input => {}
            step @ Step::Linear { .. } => linear_backward(pass, (from, step), (values, dy, before), (gradient, transposed)),
            Step::Conv { weight, bias, shape } => {
                let dx = (from > 0).then(|| before[from].as_mut_slice());
                let ranges = (weight.clone(), bias.clone(), gradient);
                images.conv_backward(shape, (&values[from], tensor(weight)), dy, dx, ranges);
            }
            Step::BatchNorm(norm) => {
                let x = self.node_input(from, pass.batch, values);
                let dx = (from > 0).then(|| before[from].as_mut_slice());
                images.batch_norm_backward((at, norm), pass, (&x, dy, self.is_image(at)), dx, gradient);
            }
            Step::LayerNorm { gain, bias, width, epsilon } => {
                let x = self.node_input(from, pass.batch, values);
                let weight = gain.as_ref().map_or_else(|| vec![1.0; *width], |r| tensor(r).to_vec());
                let [mut d_gain, mut d_bias] = [vec![0.0; *width], vec![0.0; *width]];
                let dx = (from > 0).then(|| before[from].as_mut_slice());
                layer_norm_backward(&weight, *epsilon, &x, dy, dx, [&mut d_gain, &mut d_bias]);
                for (range, d) in [(gain, d_gain), (bias, d_bias)] {
                    if let Some(range) = range {
                        add(&mut gradient[range.clone()], &d);
                    }
                }
            }
            Step::Activation(activation) => {
                activate_backward(*activation, &values[from], &values[at], dy);
                self.hand_on(from, before, dy);
            }
            Step::Clip { min, max } => {
                let inside = |v: f32| v >= *min && v <= *max;
                dy.iter_mut().zip(&values[from]).filter(|(_, x)| !inside(**x)).for_each(|(g, _)| *g = 0.0);
                self.hand_on(from, before, dy);
            }
            Step::Scale(factor) => {
                for g in dy.iter_mut() {
                    *g *= factor;
                }
                self.hand_on(from, before, dy);
            }
            Step::Add => inputs.iter().filter(|&&i| i > 0).for_each(|&i| add(&mut before[i], dy)),
            Step::Mul => {
                for (&to, &other) in inputs.iter().zip(inputs.iter().rev()).filter(|(to, _)| **to > 0) {
                    let other = self.node_input(other, pass.batch, values);
                    before[to].iter_mut().zip(dy.iter().zip(other.iter())).for_each(|(a, (g, o))| *a += g * o);
                }
            }
            Step::Pool(pooling, shape) => {
                weft_ops::kernels::pool_backward(*pooling, shape, (&values[from], &values[at]), dy, &mut before[from]);
            }
            Step::GlobalPool(shape) => {
                images.global_pool_backward(shape, self.architecture.widths()[at], (&values[from], dy), &mut before[from]);
            }
            Step::Flatten => {
                image::values_from_rows(self.is_image(from), self.architecture.widths()[at], dy, &mut before[from]);
            }
        }
    }

    /// Adds a gradient that is not needed any more to a node's; where no other node reads that one, by a swap.
    fn hand_on(&self, to: usize, before: &mut [Vec<f32>], gradient: &mut Vec<f32>) {
        if self.readers[to] == 1 {
            std::mem::swap(&mut before[to], gradient);
        } else {
            add(&mut before[to], gradient);
        }
    }

    /// A node's values, or the batch itself made dense.
    fn node_input<'a>(&self, node: usize, batch: Batch<'a>, done: &'a [Vec<f32>]) -> std::borrow::Cow<'a, [f32]> {
        match batch {
            _ if node > 0 || self.is_image(0) => done[node].as_slice().into(),
            Batch::Dense(x) => x.into(),
            Batch::Sparse(rows, examples) => {
                let mut dense = vec![0.0; examples.len() * rows.num_features()];
                for (out, &example) in dense.chunks_exact_mut(rows.num_features()).zip(examples) {
                    let (columns, values) = rows.row(example as usize);
                    columns.iter().zip(values).for_each(|(&c, &v)| out[usize::from(c)] = v);
                }
                dense.into()
            }
        }
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(a, b)| *a += b);
}
