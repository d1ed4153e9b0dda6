//! An architecture: a small op graph declared as data.
//!
//! Nodes stand in topological order; node 0 is the input. A node's output is a batch of vectors; later
//! kinds of op will give it more axes. Tensors are stored one after the other in one flat row of
//! `num_parameters` values, each row-major, linear weights as `[out, in]`, as `PyTorch` has them.

use crate::{Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;

/// Index of a tensor in [`Architecture::tensors`].
pub type TensorId = usize;

/// An elementwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`: commutes with positive scaling.
    Relu,
    /// `tanh(x)`: odd, so it commutes with a change of sign.
    Tanh,
    /// `x·Φ(x)` with the exact normal distribution function (Hendrycks & Gimpel 2016).
    Gelu,
    /// `x·σ(x)` (Elfwing et al. 2017).
    Silu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

impl Activation {
    /// The activation's name in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
        }
    }
}

impl std::str::FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Relu, Self::Tanh, Self::Gelu, Self::Silu, Self::Sigmoid]
            .into_iter()
            .find(|a| a.name() == text)
            .ok_or_else(|| Error::Word { what: "activation", got: text.to_owned(), known: "relu, tanh, gelu, silu, sigmoid" })
    }
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// The network's input, `features` values an example.
    Input {
        /// Length of one example.
        features: usize,
    },
    /// `y = x·Wᵀ + b`.
    Linear {
        /// The weight, `[out, in]`.
        weight: TensorId,
        /// The bias, `[out]`.
        bias: Option<TensorId>,
    },
    /// An elementwise nonlinearity.
    Activation(Activation),
    /// The sum of two nodes of one width.
    Add,
}

/// One op and the nodes that it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Indices of earlier nodes.
    pub inputs: Vec<usize>,
}

/// A tensor's declaration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name in checkpoints, such as `layers.0.weight`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Where it starts in the flat row.
    offset: usize,
}

impl TensorSpec {
    /// The number of values.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values' place in the flat row.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.num_values()
    }
}

/// An op graph with its tensors, checked at construction.
///
/// The last node is the output; for a classifier, one logit a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Architecture {
    name: String,
    tensors: Vec<TensorSpec>,
    nodes: Vec<Node>,
    widths: Vec<usize>,
}

impl Architecture {
    /// Builds an architecture from declared tensors `(name, shape)` and nodes.
    ///
    /// # Errors
    /// A repeated tensor name, an op that reads a later node, a shape that does not fit, a tensor used twice or
    /// not at all, or a graph whose first node is not its only input.
    pub fn new(name: &str, tensors: Vec<(String, Vec<usize>)>, nodes: Vec<Node>) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut specs = Vec::with_capacity(tensors.len());
        let mut offset = 0;
        for (tensor, shape) in tensors {
            if !seen.insert(tensor.clone()) {
                return Err(Error::DuplicateTensor { architecture: name.to_owned(), tensor });
            }
            let spec = TensorSpec { name: tensor, shape, offset };
            offset += spec.num_values();
            specs.push(spec);
        }
        let mut architecture = Self { name: name.to_owned(), tensors: specs, nodes, widths: Vec::new() };
        architecture.widths = architecture.infer_widths()?;
        Ok(architecture)
    }

    /// Builds a multi-layer perceptron with tensors `layers.{i}.weight` and `layers.{i}.bias`.
    ///
    /// `widths` runs from the input to the output; the activation stands between the linear maps.
    ///
    /// # Errors
    /// Fewer than two widths, or a width of 0.
    ///
    /// # Examples
    /// ```
    /// use weft_core::{Activation, Architecture};
    /// let mlp = Architecture::mlp("mlp", &[784, 32, 32, 10], Activation::Relu).unwrap();
    /// assert_eq!(mlp.num_parameters(), 26_506);
    /// ```
    pub fn mlp(name: &str, widths: &[usize], activation: Activation) -> Result<Self> {
        let [first, rest @ ..] = widths else {
            return Err(Error::Graph { architecture: name.to_owned(), op: 0, reason: "an MLP needs at least two widths" });
        };
        let mut tensors = Vec::new();
        let mut nodes = vec![Node { op: Op::Input { features: *first }, inputs: vec![] }];
        for (layer, (&fan_in, &fan_out)) in widths.iter().zip(rest).enumerate() {
            if layer > 0 {
                nodes.push(Node { op: Op::Activation(activation), inputs: vec![nodes.len() - 1] });
            }
            let weight = tensors.len();
            tensors.push((format!("layers.{layer}.weight"), vec![fan_out, fan_in]));
            tensors.push((format!("layers.{layer}.bias"), vec![fan_out]));
            nodes.push(Node { op: Op::Linear { weight, bias: Some(weight + 1) }, inputs: vec![nodes.len() - 1] });
        }
        Self::new(name, tensors, nodes)
    }

    /// The architecture's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The tensors, in the order of the flat row.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The nodes, in topological order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The length of each node's output vector.
    #[must_use]
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// The number of weights of one network, `D`.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.tensors.last().map_or(0, |t| t.range().end)
    }

    /// The length of one input example.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.widths[0]
    }

    /// The length of the output vector: the number of classes of a classifier.
    #[must_use]
    pub fn num_outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// Whether two architectures compute the same function of the same tensors, whatever their names.
    #[must_use]
    pub fn same_graph(&self, other: &Self) -> bool {
        self.tensors == other.tensors && self.nodes == other.nodes
    }

    fn infer_widths(&self) -> Result<Vec<usize>> {
        let mut widths: Vec<usize> = Vec::with_capacity(self.nodes.len());
        let mut used = vec![false; self.tensors.len()];
        for (op, node) in self.nodes.iter().enumerate() {
            let fail = |reason| Error::Graph { architecture: self.name.clone(), op, reason };
            if node.inputs.iter().any(|&i| i >= op) {
                return Err(fail("it reads a node that does not come before it"));
            }
            let arity = match node.op {
                Op::Input { .. } => 0,
                Op::Linear { .. } | Op::Activation(_) => 1,
                Op::Add => 2,
            };
            if node.inputs.len() != arity {
                return Err(fail("it has the wrong number of inputs"));
            }
            if matches!(node.op, Op::Input { .. }) != (op == 0) {
                return Err(fail("the first op, and no other, must be the input"));
            }
            let width = match &node.op {
                Op::Input { features } => *features,
                Op::Activation(_) => widths[node.inputs[0]],
                Op::Add if widths[node.inputs[0]] == widths[node.inputs[1]] => widths[node.inputs[0]],
                Op::Add => return Err(fail("it adds vectors of different lengths")),
                Op::Linear { weight, bias } => {
                    let out = self.linear_width(*weight, *bias, widths[node.inputs[0]]).map_err(fail)?;
                    for &t in [Some(*weight), *bias].iter().flatten() {
                        if std::mem::replace(&mut used[t], true) {
                            return Err(fail("it uses a tensor that another op uses"));
                        }
                    }
                    out
                }
            };
            if width == 0 {
                return Err(fail("its output is empty"));
            }
            widths.push(width);
        }
        if widths.len() < 2 || used.contains(&false) {
            let reason = "the graph is empty or leaves a tensor unused";
            return Err(Error::Graph { architecture: self.name.clone(), op: self.nodes.len(), reason });
        }
        Ok(widths)
    }

    fn linear_width(&self, weight: TensorId, bias: Option<TensorId>, width_in: usize) -> std::result::Result<usize, &'static str> {
        let Some([out, fan_in]) = self.tensors.get(weight).map(|t| t.shape.as_slice()) else {
            return Err("its weight is not a declared matrix");
        };
        if *fan_in != width_in {
            return Err("its weight's second axis is not as long as its input");
        }
        match bias.map(|b| self.tensors.get(b).map(|t| t.shape.as_slice())) {
            None => Ok(*out),
            Some(Some([size])) if size == out => Ok(*out),
            Some(_) => Err("its bias is not a declared vector as long as its output"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(weight: usize, bias: usize, input: usize) -> Node {
        Node { op: Op::Linear { weight, bias: Some(bias) }, inputs: vec![input] }
    }

    #[test]
    fn mlp_layout() {
        let a = Architecture::mlp("m", &[4, 3, 2], Activation::Relu).unwrap();
        let names: Vec<_> = a.tensors().iter().map(|t| (t.name.as_str(), t.shape.clone(), t.range())).collect();
        assert_eq!(names[0], ("layers.0.weight", vec![3, 4], 0..12));
        assert_eq!(names[1], ("layers.0.bias", vec![3], 12..15));
        assert_eq!(names[2], ("layers.1.weight", vec![2, 3], 15..21));
        assert_eq!(names[3], ("layers.1.bias", vec![2], 21..23));
        assert_eq!(a.widths(), [4, 3, 3, 2]);
    }

    #[test]
    fn bad_graphs_are_refused_with_a_reason() {
        let input = Node { op: Op::Input { features: 2 }, inputs: vec![] };
        let t = || vec![("w".to_owned(), vec![3, 2]), ("b".to_owned(), vec![3])];
        let check = |tensors, nodes, expected: &str| {
            let message = Architecture::new("x", tensors, nodes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(t(), vec![input.clone(), linear(0, 1, 1)], "does not come before");
        check(t(), vec![input.clone(), linear(1, 0, 0)], "not a declared matrix");
        check(t(), vec![input.clone(), linear(0, 1, 0), linear(0, 1, 0)], "another op uses");
        check(t(), vec![input.clone()], "unused");
        check(t(), vec![linear(0, 1, 0)], "before it");
        check(vec![("w".into(), vec![3, 5]), ("b".into(), vec![3])], vec![input.clone(), linear(0, 1, 0)], "as long as its input");
        check(vec![("w".into(), vec![]), ("w".into(), vec![])], vec![input], "twice");
        assert!(Architecture::mlp("m", &[3], Activation::Relu).is_err());
        assert!(Architecture::mlp("m", &[3, 0, 2], Activation::Relu).is_err());
    }
}
