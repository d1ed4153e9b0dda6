//! Builds graphs op by op, declaring tensors on the way.

use super::{Activation, Architecture, Node, Op, TensorId, Window};
use crate::Result;

/// A graph under construction. Methods return the index of the node that they add.
#[derive(Debug, Clone)]
pub struct GraphBuilder {
    tensors: Vec<(String, Vec<usize>)>,
    nodes: Vec<Node>,
}

impl GraphBuilder {
    /// A graph that holds its input, node 0.
    #[must_use]
    pub fn new(input: Op) -> Self {
        Self { tensors: Vec::new(), nodes: vec![Node { op: input, inputs: Vec::new() }] }
    }

    /// Checks the graph.
    ///
    /// # Errors
    /// Those of [`Architecture::new`].
    pub fn build(self, name: &str) -> Result<Architecture> {
        Architecture::new(name, self.tensors, self.nodes)
    }

    /// Declares a tensor.
    pub fn tensor(&mut self, name: impl Into<String>, shape: &[usize]) -> TensorId {
        self.tensors.push((name.into(), shape.to_vec()));
        self.tensors.len() - 1
    }

    /// Adds any op.
    pub fn push(&mut self, op: Op, inputs: &[usize]) -> usize {
        self.nodes.push(Node { op, inputs: inputs.to_vec() });
        self.nodes.len() - 1
    }

    /// A linear map with tensors `{name}.weight` and, if `bias`, `{name}.bias`.
    pub fn linear(&mut self, x: usize, name: &str, [out, fan_in]: [usize; 2], bias: bool) -> usize {
        let weight = self.tensor(format!("{name}.weight"), &[out, fan_in]);
        let bias = bias.then(|| self.tensor(format!("{name}.bias"), &[out]));
        self.push(Op::Linear { weight, bias }, &[x])
    }

    /// A convolution with tensors `{name}.weight`, `[out, in, kh, kw]`, and, if `bias`, `{name}.bias`.
    pub fn conv2d(&mut self, x: usize, name: &str, [out, into]: [usize; 2], window: Window, bias: bool) -> usize {
        let weight = self.tensor(format!("{name}.weight"), &[out, into, window.size[0], window.size[1]]);
        let bias = bias.then(|| self.tensor(format!("{name}.bias"), &[out]));
        self.push(Op::Conv2d { weight, bias, stride: window.stride, padding: window.padding, groups: 1 }, &[x])
    }

    /// A batch norm with tensors `{name}.weight`, `.bias`, `.running_mean` and `.running_var`.
    pub fn batch_norm(&mut self, x: usize, name: &str, channels: usize) -> usize {
        let [gain, bias, mean, variance] =
            ["weight", "bias", "running_mean", "running_var"].map(|part| self.tensor(format!("{name}.{part}"), &[channels]));
        self.push(Op::BatchNorm { gain, bias, mean, variance, epsilon: 1e-5 }, &[x])
    }

    /// A layer norm with tensors `{name}.weight` and `{name}.bias`.
    pub fn layer_norm(&mut self, x: usize, name: &str, width: usize, epsilon: f64) -> usize {
        let [gain, bias] = ["weight", "bias"].map(|part| Some(self.tensor(format!("{name}.{part}"), &[width])));
        self.push(Op::LayerNorm { gain, bias, epsilon }, &[x])
    }

    /// An RMS norm with the tensor `{name}.weight`.
    pub fn rms_norm(&mut self, x: usize, name: &str, width: usize, epsilon: f64) -> usize {
        let gain = Some(self.tensor(format!("{name}.weight"), &[width]));
        self.push(Op::RmsNorm { gain, epsilon }, &[x])
    }

    /// An elementwise nonlinearity.
    pub fn activation(&mut self, x: usize, activation: Activation) -> usize {
        self.push(Op::Activation(activation), &[x])
    }

    /// The sum of two nodes.
    pub fn add(&mut self, x: usize, y: usize) -> usize {
        self.push(Op::Add, &[x, y])
    }
}
