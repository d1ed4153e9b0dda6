//! Runs the nodes of a plan on one piece of a batch.

use super::attention::attention;
use super::dense::{add_cyclic, concat, embed, linear, mean_of_tokens, prepend, slice};
use super::elementwise::{Norm, activate, batch_norm, map, norm, zip};
use super::plan::Plan;
use super::real::Real;
use super::{WeightRow, attention, image};
use std::borrow::Cow;
use weft_core::{Architecture, Node, Op, TensorId, Window};

/// Runs the plan; `each` gets every captured node's values, in the order of nodes.
pub(super) fn run<T: Real>(
    architecture: &Architecture,
    plan: &Plan,
    (row, inputs): (WeightRow<'_>, &[T]),
    mut each: impl FnMut(usize, &[T]),
) {
    let nodes = architecture.nodes();
    let mut state = State { architecture, plan, row, at: 0, values: vec![Vec::new(); nodes.len()] };
    for (at, node) in nodes.iter().enumerate().filter(|(at, _)| plan.runs[*at]) {
        state.at = at;
        let y = if at == 0 { inputs.to_vec() } else { state.node(node) };
        if plan.captured[at] {
            each(at, &y);
        }
        for &input in node.inputs.iter().filter(|&&input| plan.is_dead_after(input, at)) {
            state.values[input] = Vec::new();
        }
        if plan.last_reader[at].is_some() {
            state.values[at] = y;
        }
    }
}

struct State<'a, T> {
    architecture: &'a Architecture,
    plan: &'a Plan,
    row: WeightRow<'a>,
    /// The node that is run.
    at: usize,
    values: Vec<Vec<T>>,
}

impl<'a, T: Real> State<'a, T> {
    fn tensor(&self, tensor: TensorId) -> Cow<'a, [T]> {
        T::weights(self.row, self.architecture.tensors()[tensor].range())
    }

    fn optional(&self, tensor: Option<TensorId>) -> Option<Cow<'a, [T]>> {
        tensor.map(|tensor| self.tensor(tensor))
    }

    /// One row of a table.
    fn table_row(&self, tensor: TensorId, row: usize) -> Cow<'a, [T]> {
        let spec = &self.architecture.tensors()[tensor];
        let (start, width) = (spec.range().start, spec.shape[1]);
        T::weights(self.row, start + row * width..start + (row + 1) * width)
    }

    /// The first input's values, taken if nothing else reads them.
    fn owned(&mut self, node: &Node) -> Vec<T> {
        let input = node.inputs[0];
        let alone = node.inputs.iter().filter(|&&i| i == input).count() == 1;
        if alone && self.plan.is_dead_after(input, self.at) {
            std::mem::take(&mut self.values[input])
        } else {
            self.values[input].clone()
        }
    }

    /// What a node computes of the values before it. Shapes are those that the architecture checked.
    fn node(&mut self, node: &Node) -> Vec<T> {
        let shape = self.architecture.shapes()[node.inputs[0]].clone();
        match &node.op {
            Op::Activation(_) | Op::Clip { .. } | Op::Scale { .. } | Op::Add | Op::Mul | Op::Flatten => self.elementwise(node),
            Op::BatchNorm { .. } | Op::LayerNorm { .. } | Op::RmsNorm { .. } => self.norm(node, &shape),
            Op::Linear { .. } | Op::Embedding { .. } | Op::Position { .. } | Op::Segment { .. } | Op::ClassToken { .. } => {
                self.dense(node, &shape)
            }
            _ => match shape[..] {
                [channels, height, width] => self.image(node, [channels, height, width]),
                _ => self.tokens(node, &shape),
            },
        }
    }

    fn elementwise(&mut self, node: &Node) -> Vec<T> {
        let mut x = self.owned(node);
        let other = || &self.values[node.inputs[1]];
        match &node.op {
            Op::Activation(activation) => activate(*activation, &mut x),
            Op::Clip { min, max } => {
                let (min, max) = (T::from_f64(*min), T::from_f64(*max));
                map(&mut x, |v| {
                    if v < min {
                        min
                    } else if v > max {
                        max
                    } else {
                        v
                    }
                });
            }
            Op::Scale { factor } => {
                let factor = T::from_f64(*factor);
                map(&mut x, |v| v * factor);
            }
            Op::Add => zip(&mut x, other(), |a, b| a + b),
            Op::Mul => zip(&mut x, other(), |a, b| a * b),
            _ => {} // flatten: the values lie as they are
        }
        x
    }

    fn norm(&mut self, node: &Node, shape: &[usize]) -> Vec<T> {
        let mut x = self.owned(node);
        let width = shape[shape.len() - 1];
        let along_width = |x: &mut [T], [gain, bias]: [Option<TensorId>; 2], epsilon: f64, centered: bool| {
            let (gain, bias) = (self.optional(gain), self.optional(bias));
            norm(x, width, &Norm { gain: gain.as_deref(), bias: bias.as_deref(), epsilon, centered });
        };
        match &node.op {
            Op::LayerNorm { gain, bias, epsilon } => along_width(&mut x, [*gain, *bias], *epsilon, true),
            Op::RmsNorm { gain, epsilon } => along_width(&mut x, [*gain, None], *epsilon, false),
            Op::BatchNorm { gain, bias, mean, variance, epsilon } => {
                let tensors = [gain, bias, mean, variance].map(|&t| self.tensor(t));
                batch_norm(&mut x, tensors.each_ref().map(|t| &**t), shape[1..].iter().product(), *epsilon);
            }
            _ => {}
        }
        x
    }

    fn dense(&mut self, node: &Node, shape: &[usize]) -> Vec<T> {
        let width = shape[shape.len() - 1];
        match &node.op {
            Op::Linear { weight, bias } => {
                let bias = self.optional(*bias);
                linear(&self.values[node.inputs[0]], &self.tensor(*weight), bias.as_deref(), width)
            }
            Op::Embedding { weight } => {
                let width = self.architecture.tensors()[*weight].shape[1];
                embed(&self.values[node.inputs[0]], width, |id| self.table_row(*weight, id))
            }
            Op::Position { weight } => {
                let mut x = self.owned(node);
                let start = self.architecture.tensors()[*weight].range().start;
                add_cyclic(&mut x, &T::weights(self.row, start..start + shape[0] * width));
                x
            }
            Op::Segment { weight, row } => {
                let mut x = self.owned(node);
                add_cyclic(&mut x, &self.table_row(*weight, *row));
                x
            }
            Op::ClassToken { weight } => prepend(&self.values[node.inputs[0]], &self.tensor(*weight), shape[0] * width),
            _ => self.owned(node),
        }
    }

    /// Ops of images.
    fn image(&mut self, node: &Node, image: [usize; 3]) -> Vec<T> {
        let [channels, height, width] = image;
        let out = &self.architecture.shapes()[self.at];
        let shape = |window: Window, groups: usize| image::Shape { image, out: [out[1], out[2]], window, groups };
        let x = &self.values[node.inputs[0]];
        match &node.op {
            Op::Conv2d { weight, bias, stride, padding, groups } => {
                let spec = &self.architecture.tensors()[*weight].shape;
                let window = Window { size: [spec[2], spec[3]], stride: *stride, padding: *padding };
                let bias = self.optional(*bias);
                image::conv(x, &self.tensor(*weight), bias.as_deref(), &shape(window, *groups))
            }
            Op::Perception { kernels } => image::perception(x, kernels, image),
            Op::MaxPool(window) => image::pool(x, &shape(*window, 1), false),
            Op::AvgPool(window) => image::pool(x, &shape(*window, 1), true),
            Op::GlobalAvgPool => image::mean_of_planes(x, height * width),
            Op::Patches => image::patches(x, [channels, height * width]),
            _ => self.owned(node),
        }
    }

    /// Ops of tokens and vectors.
    fn tokens(&mut self, node: &Node, shape: &[usize]) -> Vec<T> {
        let width = shape[shape.len() - 1];
        let x = &self.values[node.inputs[0]];
        match &node.op {
            Op::Attention { heads, kv_heads, causal, rope } => {
                let shape = attention::Shape {
                    tokens: shape[0],
                    heads: *heads,
                    kv_heads: *kv_heads,
                    d_head: width / heads,
                    causal: *causal,
                    rope: *rope,
                };
                attention([0, 1, 2].map(|i| self.values[node.inputs[i]].as_slice()), &shape)
            }
            Op::GlobalAvgPool => mean_of_tokens(x, [shape[0], width]),
            Op::Token { index } => slice(x, shape[0] * width, index * width, width),
            Op::Slice { start, len } => slice(x, width, *start, *len),
            Op::Concat => {
                let width = |node: usize| self.architecture.shapes()[node].last().copied().unwrap_or(1);
                let parts: Vec<_> = node.inputs.iter().map(|&i| (self.values[i].as_slice(), width(i))).collect();
                concat(&parts)
            }
            _ => self.owned(node),
        }
    }
}
