//! Linear maps of rows, with the first layer's sparse path.

use super::plan::Step;
use super::{Pass, add};
use crate::Batch;
use weft_ops::kernels::{add_bias, matmul, sparse_backward, sparse_forward, transpose};

/// `y = x·W + b`, for the values of node `from`.
pub(super) fn forward(pass: Pass<'_>, from: usize, done: &[Vec<f32>], (w, bias): (&[f32], Option<&[f32]>), y: &mut [f32]) {
    let width = y.len() / pass.examples;
    let x = match (from, pass.batch, bias) {
        (0, Batch::Sparse(rows, examples), Some(b)) => return sparse_forward(rows, examples, w, b, y),
        (0, Batch::Sparse(rows, examples), None) => return sparse_forward(rows, examples, w, &vec![0.0; width], y),
        (0, Batch::Dense(x), _) => x,
        _ => &done[from],
    };
    add_bias(bias, y);
    matmul([pass.examples, width, w.len() / width], x, false, w, y);
}

/// Adds to the gradients of weight, bias and the values of node `from`.
pub(super) fn linear_backward(
    pass: Pass<'_>,
    (from, step): (usize, &Step),
    (values, dy, before): (&[Vec<f32>], &[f32], &mut [Vec<f32>]),
    (gradient, transposed): (&mut [f32], &mut Vec<f32>),
) {
    let Step::Linear { weight, bias, width_in } = step else { return };
    let width = weight.len() / width_in;
    if let (0, Batch::Sparse(rows, chosen)) = (from, pass.batch) {
        let mut d_bias = vec![0.0; width];
        sparse_backward(rows, chosen, dy, &mut gradient[weight.clone()], &mut d_bias);
        if let Some(bias) = bias {
            add(&mut gradient[bias.clone()], &d_bias);
        }
        return;
    }
    let x = match (from, pass.batch) {
        (0, Batch::Dense(x)) => x,
        _ => &values[from],
    };
    matmul([*width_in, width, pass.examples], x, true, dy, &mut gradient[weight.clone()]);
    if let Some(bias) = bias {
        dy.chunks_exact(width).for_each(|row| add(&mut gradient[bias.clone()], row));
    }
    if from > 0 {
        transposed.resize(weight.len(), 0.0);
        transpose([*width_in, width], &pass.weights[weight.clone()], transposed);
        matmul([pass.examples, *width_in, width], dy, false, transposed, &mut before[from]);
    }
}
