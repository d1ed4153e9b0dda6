//! Ops on images: convolution, pooling and batch norm, and the ways in and out of blocks.

use super::plan::Norm;
use super::{Pass, add};
use crate::Batch;
use std::collections::BTreeMap;
use std::ops::Range;
use weft_ops::kernels::{
    BatchNorm, BatchNormGradient, ConvScratch, ConvShape, Moments, PoolShape, Pooling, batch_norm_infer, batch_norm_infer_backward,
    batch_norm_train, batch_norm_train_backward, blocked_len, blocks_from_rows, conv_backward_input, conv_backward_weight,
    conv_forward, lanes, pool_backward, pool_forward, rows_from_blocks,
};

/// Buffers of the ops on images.
#[derive(Debug, Default, Clone)]
pub(super) struct ImageScratch {
    conv: ConvScratch,
    blocks: [Vec<f32>; 3],
    norms: BTreeMap<usize, NormState>,
    /// Whether batch norm takes the batch's own statistics.
    pub(super) training: bool,
}

/// What a batch norm left in the forward pass.
#[derive(Debug, Default, Clone)]
struct NormState {
    moments: Moments,
    moved: Option<[Vec<f32>; 2]>,
}

impl ImageScratch {
    /// Mean and variance that the batch norm at a node moves to, if it ran in training.
    pub(super) fn moved(&self, node: usize) -> Option<&[Vec<f32>; 2]> {
        self.norms.get(&node)?.moved.as_ref()
    }

    pub(super) fn conv_forward(&mut self, shape: &ConvShape, x: &[f32], (w, bias): (&[f32], Option<&[f32]>), y: &mut [f32]) {
        conv_forward(shape, x, w, bias, y, &mut self.conv);
    }

    pub(super) fn conv_backward(
        &mut self,
        shape: &ConvShape,
        (x, w): (&[f32], &[f32]),
        dy: &[f32],
        dx: Option<&mut [f32]>,
        (weight, bias, gradient): (Range<usize>, Option<Range<usize>>, &mut [f32]),
    ) {
        let mut d_bias = bias.as_ref().map(|bias| vec![0.0; bias.len()]);
        conv_backward_weight(shape, x, dy, &mut gradient[weight], d_bias.as_deref_mut(), &mut self.conv);
        if let (Some(bias), Some(d_bias)) = (bias, d_bias) {
            add(&mut gradient[bias], &d_bias);
        }
        if let Some(dx) = dx {
            conv_backward_input(shape, w, dy, dx, &mut self.conv);
        }
    }

    pub(super) fn batch_norm_forward(
        &mut self,
        (at, norm): (usize, &Norm),
        pass: Pass<'_>,
        (x, image): (&[f32], bool),
        y: &mut [f32],
    ) {
        let [x_blocks, y_blocks, _] = &mut self.blocks;
        let state = self.norms.entry(at).or_default();
        let tensor = |range: &Range<usize>| &pass.weights[range.clone()];
        let weights = BatchNorm {
            gain: tensor(&norm.gain),
            bias: tensor(&norm.bias),
            mean: tensor(&norm.mean),
            variance: tensor(&norm.variance),
            epsilon: norm.epsilon,
        };
        let features = weights.gain.len();
        let (x, out) =
            if image { (x, &mut *y) } else { (as_blocks(features, x, x_blocks), room(features, pass.examples, y_blocks)) };
        state.moved = if self.training {
            Some(batch_norm_train(&weights, pass.examples, x, out, &mut state.moments))
        } else {
            batch_norm_infer(&weights, pass.examples, x, out, &mut state.moments);
            None
        };
        if !image {
            rows_from_blocks(features, y_blocks, y);
        }
    }

    pub(super) fn batch_norm_backward(
        &mut self,
        (at, norm): (usize, &Norm),
        pass: Pass<'_>,
        (x, dy, image): (&[f32], &[f32], bool),
        dx: Option<&mut [f32]>,
        gradient: &mut [f32],
    ) {
        let [x_blocks, dy_blocks, dx_blocks] = &mut self.blocks;
        let state = self.norms.entry(at).or_default();
        let gain = &pass.weights[norm.gain.clone()];
        let features = gain.len();
        let [mut d_gain, mut d_bias] = [vec![0.0; features], vec![0.0; features]];
        let mut d_affine = BatchNormGradient { gain: &mut d_gain, bias: &mut d_bias };
        let mut rows = None;
        let (x, dy, into) = if image {
            (x, dy, dx)
        } else {
            rows = dx;
            dx_blocks.fill(0.0);
            let into = rows.is_some().then(|| room(features, pass.examples, dx_blocks));
            (as_blocks(features, x, x_blocks), as_blocks(features, dy, dy_blocks), into)
        };
        let weights = (gain, &state.moments);
        if state.moved.is_some() {
            batch_norm_train_backward(weights, pass.examples, x, dy, into, &mut d_affine);
        } else {
            let [d_mean, d_variance] = batch_norm_infer_backward(weights, pass.examples, x, dy, into, &mut d_affine);
            add(&mut gradient[norm.mean.clone()], &d_mean);
            add(&mut gradient[norm.variance.clone()], &d_variance);
        }
        add(&mut gradient[norm.gain.clone()], &d_gain);
        add(&mut gradient[norm.bias.clone()], &d_bias);
        if let Some(rows) = rows {
            let mut more = vec![0.0; rows.len()];
            rows_from_blocks(features, dx_blocks, &mut more);
            add(rows, &more);
        }
    }

    pub(super) fn global_pool_forward(&mut self, shape: &PoolShape, x: &[f32], channels: usize, y: &mut [f32]) {
        let blocks = room(channels, y.len() / channels, &mut self.blocks[0]);
        pool_forward(Pooling::Average, shape, x, blocks);
        rows_from_blocks(channels, blocks, y);
    }

    pub(super) fn global_pool_backward(&mut self, shape: &PoolShape, channels: usize, (x, dy): (&[f32], &[f32]), dx: &mut [f32]) {
        let planes = x.len() / (shape.size[0] * shape.size[1]);
        let [dy_blocks, y, _] = &mut self.blocks;
        // An average does not look at its input or output; they only have to have the right lengths.
        y.resize(planes, 0.0);
        dy_blocks.resize(planes, 0.0);
        blocks_from_rows(channels, dy, dy_blocks);
        pool_backward(Pooling::Average, shape, (x, y), dy_blocks, dx);
    }
}

/// Rows rearranged into blocks.
fn as_blocks<'a>(features: usize, rows: &[f32], blocks: &'a mut Vec<f32>) -> &'a [f32] {
    let blocks = room(features, rows.len() / features, blocks);
    blocks_from_rows(features, rows, blocks);
    blocks
}

/// A buffer cut to the length that some examples have in blocks.
fn room(features: usize, examples: usize, blocks: &mut Vec<f32>) -> &mut [f32] {
    blocks.resize(blocked_len(examples, features), 0.0);
    blocks
}

/// Puts a batch of image inputs into blocks.
pub(super) fn blocks_of_batch(pass: Pass<'_>, features: usize, out: &mut Vec<f32>) {
    match pass.batch {
        Batch::Dense(x) => {
            as_blocks(features, x, out);
        }
        Batch::Sparse(rows, examples) => {
            let lanes = lanes();
            out.clear();
            out.resize(blocked_len(examples.len(), features), 0.0);
            for (place, &example) in examples.iter().enumerate() {
                let block = &mut out[place / lanes * features * lanes..][..features * lanes];
                let (columns, values) = rows.row(example as usize);
                columns.iter().zip(values).for_each(|(&c, &v)| block[usize::from(c) * lanes + place % lanes] = v);
            }
        }
    }
}

/// Flattens: blocks, or rows as they are, to rows.
pub(super) fn rows_from_values(image: bool, features: usize, x: &[f32], y: &mut [f32]) {
    if image {
        rows_from_blocks(features, x, y);
    } else {
        y.copy_from_slice(x);
    }
}

/// Adds the gradient of a flattened value to that of the value.
pub(super) fn values_from_rows(image: bool, features: usize, dy: &[f32], dx: &mut [f32]) {
    if image {
        let mut blocks = Vec::new();
        add(dx, as_blocks(features, dy, &mut blocks));
    } else {
        add(dx, dy);
    }
}
