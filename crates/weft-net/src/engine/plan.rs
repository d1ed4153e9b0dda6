//! What each node of a graph asks of the kernels, and which graphs the engine refuses.

use crate::{Error, Result};
use std::ops::Range;
use weft_core::{Activation, Architecture, Node, Op, TensorId, Window};
use weft_ops::kernels::{ConvShape, PoolShape, Pooling};

/// A node's work, with the sizes and places of its tensors.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Input,
    Linear {
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        width_in: usize,
    },
    Conv {
        weight: Range<usize>,
        bias: Option<Range<usize>>,
        shape: ConvShape,
    },
    BatchNorm(Norm),
    LayerNorm {
        gain: Option<Range<usize>>,
        bias: Option<Range<usize>>,
        width: usize,
        epsilon: f32,
    },
    Activation(Activation),
    Clip {
        min: f32,
        max: f32,
    },
    Scale(f32),
    Add,
    Mul,
    Pool(Pooling, PoolShape),
    /// A pool that leaves one pixel, and turns blocks into rows.
    GlobalPool(PoolShape),
    /// From blocks to rows, or no change.
    Flatten,
}

/// The tensors of a batch norm.
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub(crate) gain: Range<usize>,
    pub(crate) bias: Range<usize>,
    pub(crate) mean: Range<usize>,
    pub(crate) variance: Range<usize>,
    pub(crate) epsilon: f32,
}

/// Plans all nodes, in order.
pub(crate) fn plan(architecture: &Architecture) -> Result<Vec<Step>> {
    architecture.nodes().iter().enumerate().map(|(at, node)| step(architecture, at, node)).collect()
}

fn step(architecture: &Architecture, at: usize, node: &Node) -> Result<Step> {
    let refuse = || {
        let by = "the training engine (vectors and images, ungrouped convolutions)";
        Error::Unsupported { architecture: architecture.name().to_owned(), node: at, op: node.op.name(), by }
    };
    let shapes = architecture.shapes();
    if shapes[at].len() == 2 {
        return Err(refuse());
    }
    let range = |tensor: TensorId| architecture.tensors()[tensor].range();
    let from = node.inputs.first().map_or(&[][..], |&i| shapes[i].as_slice());
    let image = || if let [_, height, width] = *from { Ok([height, width]) } else { Err(refuse()) };
    let pool = |pooling, window: &Window| -> Result<Step> {
        let shape = PoolShape { size: image()?, kernel: window.size, stride: window.stride, padding: window.padding };
        Ok(Step::Pool(pooling, shape))
    };
    Ok(match &node.op {
        Op::Input { .. } => Step::Input,
        Op::Linear { weight, bias } => {
            Step::Linear { weight: range(*weight), bias: bias.map(range), width_in: architecture.widths()[node.inputs[0]] }
        }
        Op::Conv2d { weight, bias, stride, padding, groups: 1 } => {
            let kernel = &architecture.tensors()[*weight].shape;
            let channels = [kernel[1], kernel[0]];
            let shape = ConvShape { channels, size: image()?, kernel: [kernel[2], kernel[3]], stride: *stride, padding: *padding };
            Step::Conv { weight: range(*weight), bias: bias.map(range), shape }
        }
        Op::BatchNorm { gain, bias, mean, variance, epsilon } => Step::BatchNorm(Norm {
            gain: range(*gain),
            bias: range(*bias),
            mean: range(*mean),
            variance: range(*variance),
            epsilon: *epsilon as f32,
        }),
        Op::LayerNorm { gain, bias, epsilon } if from.len() == 1 => {
            Step::LayerNorm { gain: gain.map(range), bias: bias.map(range), width: from[0], epsilon: *epsilon as f32 }
        }
        Op::Activation(activation) => Step::Activation(*activation),
        Op::Clip { min, max } => Step::Clip { min: *min as f32, max: *max as f32 },
        Op::Scale { factor } => Step::Scale(*factor as f32),
        Op::Add => Step::Add,
        Op::Mul => Step::Mul,
        Op::MaxPool(window) => pool(Pooling::Max, window)?,
        Op::AvgPool(window) => pool(Pooling::Average, window)?,
        Op::GlobalAvgPool => Step::GlobalPool(PoolShape::global(image()?)),
        Op::Flatten => Step::Flatten,
        _ => return Err(refuse()),
    })
}

/// Floating-point operations of one forward pass over one example: two for each weight at each position that it is used at.
///
/// A backward pass takes twice as many. Ops without weights are not counted.
#[must_use]
pub fn forward_flops(architecture: &Architecture) -> f64 {
    let flops = |(at, node): (usize, &Node)| {
        let weights: usize = node.op.tensors().iter().map(|&(tensor, _)| architecture.tensors()[tensor].num_values()).sum();
        let positions: usize = match (&node.op, architecture.shapes()[at].as_slice()) {
            (Op::Linear { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. }, [tokens, _]) => *tokens,
            (_, [_, height, width]) => height * width,
            _ => 1,
        };
        2.0 * weights as f64 * positions as f64
    };
    architecture.nodes().iter().enumerate().map(flops).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::GraphBuilder;

    #[test]
    fn operations_by_hand() {
        let mlp = Architecture::mlp("mlp", &[5, 4, 3], Activation::Relu).unwrap();
        assert!((forward_flops(&mlp) - 2.0 * 39.0).abs() < 1e-9);
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![2, 6, 5] });
        let x = graph.conv2d(0, "conv", [3, 2], Window { size: [3, 2], stride: [1, 1], padding: [0, 0] }, true);
        let x = graph.push(Op::Flatten, &[x]);
        graph.linear(x, "head", [2, 48], true);
        let cnn = graph.build("cnn").unwrap();
        assert!((forward_flops(&cnn) - 2.0 * (39.0 * 16.0 + 98.0)).abs() < 1e-9);
    }
}
