//! One network, forward and backward, in a core's cache.
//!
//! Weights are kept in *engine layout*: as in the flat row of a checkpoint, but each linear weight transposed to
//! `[in, out]`, so that all kernels read along the outputs.

use crate::Batch;
use std::sync::Arc;
use weft_core::{Architecture, Node, Op};
use weft_ops::kernels::{activate, activate_backward, add_bias, matmul, sparse_backward, sparse_forward, transpose};

/// Runs networks of one architecture, one at a time.
#[derive(Debug, Clone)]
pub struct Engine {
    architecture: Arc<Architecture>,
    weights: Vec<(usize, usize)>,
}

/// The buffers of one running network; each thread has its own.
#[derive(Debug, Default, Clone)]
pub struct Workspace {
    values: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
    transposed: Vec<f32>,
    /// Room for a dense batch.
    pub batch: Vec<f32>,
}

impl Engine {
    /// Makes an engine.
    #[must_use]
    pub fn new(architecture: Arc<Architecture>) -> Self {
        let weights = architecture
            .nodes()
            .iter()
            .filter_map(|node| match node.op {
                Op::Linear { weight, .. } => Some((weight, architecture.widths()[node.inputs[0]])),
                _ => None,
            })
            .collect();
        Self { architecture, weights }
    }

    /// The architecture.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// Converts a checkpoint's flat row to engine layout.
    pub fn engine_from_row(&self, row: &[f32], out: &mut [f32]) {
        out.copy_from_slice(row);
        for &(tensor, width_in) in &self.weights {
            let range = self.architecture.tensors()[tensor].range();
            transpose([range.len() / width_in, width_in], &row[range.clone()], &mut out[range]);
        }
    }

    /// Converts engine layout to a checkpoint's flat row.
    pub fn row_from_engine(&self, weights: &[f32], out: &mut [f32]) {
        out.copy_from_slice(weights);
        for &(tensor, width_in) in &self.weights {
            let range = self.architecture.tensors()[tensor].range();
            transpose([width_in, range.len() / width_in], &weights[range.clone()], &mut out[range]);
        }
    }

    /// Computes the outputs of a batch and keeps what [`Engine::backward`] needs.
    ///
    /// # Shapes
    /// `weights` `[D]` in engine layout; returns the outputs `[b, c]`, to be changed to their gradient in place.
    ///
    /// # Panics
    /// If `weights` is not of the architecture or the batch does not have `examples` rows.
    pub fn forward<'w>(&self, weights: &[f32], batch: Batch<'_>, examples: usize, workspace: &'w mut Workspace) -> &'w mut [f32] {
        let nodes = self.architecture.nodes();
        workspace.values.resize(nodes.len(), Vec::new());
        for (at, node) in nodes.iter().enumerate().skip(1) {
            let (done, rest) = workspace.values.split_at_mut(at);
            let y = &mut rest[0];
            y.resize(examples * self.architecture.widths()[at], 0.0);
            match node.op {
                Op::Linear { .. } => self.linear_forward(node, weights, batch, done, y),
                Op::Activation(activation) => {
                    y.copy_from_slice(&dense_input(node.inputs[0], batch, done));
                    activate(activation, y);
                }
                Op::Add => {
                    y.copy_from_slice(&dense_input(node.inputs[0], batch, done));
                    let other = dense_input(node.inputs[1], batch, done);
                    y.iter_mut().zip(other.iter()).for_each(|(a, b)| *a += b);
                }
                _ => {}
            }
        }
        workspace.values.last_mut().expect("a graph has nodes")
    }

    /// Adds the gradient of the batch to `gradient`, given the gradient of the outputs.
    ///
    /// The output gradient is what [`Engine::forward`] returned, changed in place by the loss.
    ///
    /// # Shapes
    /// `weights` and `gradient` `[D]` in engine layout.
    pub fn backward(&self, weights: &[f32], batch: Batch<'_>, examples: usize, workspace: &mut Workspace, gradient: &mut [f32]) {
        let nodes = self.architecture.nodes();
        let Workspace { values, gradients, transposed, .. } = workspace;
        gradients.resize(nodes.len(), Vec::new());
        for (at, g) in gradients.iter_mut().enumerate().skip(1) {
            g.clear();
            g.resize(examples * self.architecture.widths()[at], 0.0);
        }
        let last = nodes.len() - 1;
        gradients[last].copy_from_slice(&values[last]);
        for (at, node) in nodes.iter().enumerate().skip(1).rev() {
            let (before, rest) = gradients.split_at_mut(at);
            let dy = &rest[0];
            match node.op {
                Op::Linear { .. } => self.linear_backward(node, weights, batch, (&*values, dy, before), (gradient, transposed)),
                Op::Activation(activation) if node.inputs[0] > 0 => {
                    let from = node.inputs[0];
                    let mut dx = dy.clone();
                    activate_backward(activation, &values[from], &values[at], &mut dx);
                    before[from].iter_mut().zip(&dx).for_each(|(a, b)| *a += b);
                }
                Op::Add => {
                    for &from in node.inputs.iter().filter(|&&i| i > 0) {
                        before[from].iter_mut().zip(dy).for_each(|(a, b)| *a += b);
                    }
                }
                _ => {}
            }
        }
    }

    /// The values of a node after [`Engine::forward`], `[b, width]`.
    ///
    /// # Panics
    /// If nothing was run or the node is the input.
    #[must_use]
    pub fn node_values<'w>(&self, workspace: &'w Workspace, node: usize) -> &'w [f32] {
        &workspace.values[node]
    }

    fn linear_forward(&self, node: &Node, weights: &[f32], batch: Batch<'_>, done: &[Vec<f32>], y: &mut [f32]) {
        let Op::Linear { weight, bias } = node.op else { return };
        let tensors = self.architecture.tensors();
        let w = &weights[tensors[weight].range()];
        let b = bias.map(|b| &weights[tensors[b].range()]);
        let from = node.inputs[0];
        let width_in = self.architecture.widths()[from];
        let width = w.len() / width_in;
        match (from, batch, b) {
            (0, Batch::Sparse(rows, examples), Some(b)) => sparse_forward(rows, examples, w, b, y),
            (0, Batch::Sparse(rows, examples), None) => sparse_forward(rows, examples, w, &vec![0.0; width], y),
            (0, Batch::Dense(x), _) => {
                add_bias(b, y);
                matmul([y.len() / width, width, width_in], x, false, w, y);
            }
            _ => {
                add_bias(b, y);
                matmul([y.len() / width, width, width_in], &done[from], false, w, y);
            }
        }
    }

    fn linear_backward(
        &self,
        node: &Node,
        weights: &[f32],
        batch: Batch<'_>,
        (values, dy, before): (&[Vec<f32>], &[f32], &mut [Vec<f32>]),
        (gradient, transposed): (&mut [f32], &mut Vec<f32>),
    ) {
        let Op::Linear { weight, bias } = node.op else { return };
        let tensors = self.architecture.tensors();
        let range = tensors[weight].range();
        let from = node.inputs[0];
        let width_in = self.architecture.widths()[from];
        let width = range.len() / width_in;
        let examples = dy.len() / width;
        if let (0, Batch::Sparse(rows, chosen)) = (from, batch) {
            let mut d_bias = vec![0.0; width];
            sparse_backward(rows, chosen, dy, &mut gradient[range], &mut d_bias);
            if let Some(bias) = bias {
                gradient[tensors[bias].range()].iter_mut().zip(&d_bias).for_each(|(a, b)| *a += b);
            }
            return;
        }
        let x = match (from, batch) {
            (0, Batch::Dense(x)) => x,
            _ => &values[from],
        };
        matmul([width_in, width, examples], x, true, dy, &mut gradient[range.clone()]);
        if let Some(bias) = bias {
            let d_bias = &mut gradient[tensors[bias].range()];
            dy.chunks_exact(width).for_each(|row| d_bias.iter_mut().zip(row).for_each(|(a, b)| *a += b));
        }
        if from > 0 {
            transposed.resize(range.len(), 0.0);
            transpose([width_in, width], &weights[range], transposed);
            matmul([examples, width_in, width], dy, false, transposed, &mut before[from]);
        }
    }
}

/// A node's values, or the batch itself made dense.
fn dense_input<'a>(node: usize, batch: Batch<'a>, done: &'a [Vec<f32>]) -> std::borrow::Cow<'a, [f32]> {
    match (node, batch) {
        (0, Batch::Dense(x)) => x.into(),
        (0, Batch::Sparse(rows, examples)) => {
            let features = rows.num_features();
            let mut dense = vec![0.0; examples.len() * features];
            for (out, &example) in dense.chunks_exact_mut(features).zip(examples) {
                let (columns, values) = rows.row(example as usize);
                columns.iter().zip(values).for_each(|(&c, &v)| out[usize::from(c)] = v);
            }
            dense.into()
        }
        _ => done[node].as_slice().into(),
    }
}
