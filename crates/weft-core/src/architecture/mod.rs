//! An architecture: a small op graph declared as data.
//!
//! Nodes stand in topological order; node 0 is the input. A node's output, without the batch axis, is a vector `[f]`, a
//! sequence of tokens `[t, d]` or an image `[c, h, w]`. Tensors are stored one after the other in one flat row of
//! `num_parameters` values, each row-major, linear weights as `[out, in]`, as `PyTorch` has them. Layouts that other
//! formats have (transposed, fused, stacked by layer) are theirs: a reader splits them before they get here.

mod builder;
mod op;
mod shapes;

pub use builder::GraphBuilder;
pub use op::{Activation, Op, Rope, RopePairs, Window};

use crate::{Error, Result};
use std::collections::BTreeSet;
use std::ops::Range;

/// Index of a tensor in [`Architecture::tensors`].
pub type TensorId = usize;

/// The most weights that an architecture may have.
pub const MAX_PARAMETERS: usize = 1 << 40;

/// One op and the nodes that it reads.
#[derive(Debug, Clone, PartialEq)]
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
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    name: String,
    tensors: Vec<TensorSpec>,
    nodes: Vec<Node>,
    shapes: Vec<Vec<usize>>,
    widths: Vec<usize>,
}

impl Architecture {
    /// Builds an architecture from declared tensors `(name, shape)` and nodes.
    ///
    /// # Errors
    /// A repeated tensor name, more than [`MAX_PARAMETERS`] weights, an op that reads a later node, a shape that does not fit, a
    /// tensor used twice (but for a tied output layer) or not at all, or a graph whose first node is not its only input.
    pub fn new(name: &str, tensors: Vec<(String, Vec<usize>)>, nodes: Vec<Node>) -> Result<Self> {
        let mut seen = BTreeSet::new();
        let mut specs = Vec::with_capacity(tensors.len());
        let mut offset = 0_usize;
        for (tensor, shape) in tensors {
            if !seen.insert(tensor.clone()) {
                return Err(Error::DuplicateTensor { architecture: name.to_owned(), tensor });
            }
            let size = shape.iter().try_fold(1_usize, |size, &axis| size.checked_mul(axis));
            let Some(end) = size.and_then(|size| offset.checked_add(size)).filter(|&end| end <= MAX_PARAMETERS) else {
                return Err(Error::TooLarge { architecture: name.to_owned(), tensor, shape, limit: MAX_PARAMETERS });
            };
            specs.push(TensorSpec { name: tensor, shape, offset });
            offset = end;
        }
        let mut architecture = Self { name: name.to_owned(), tensors: specs, nodes, shapes: Vec::new(), widths: Vec::new() };
        architecture.shapes = shapes::infer(&architecture)?;
        architecture.widths = architecture.shapes.iter().map(|shape| shape.iter().product()).collect();
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
            let reason = "an MLP needs at least two widths".to_owned();
            return Err(Error::Graph { architecture: name.to_owned(), op: 0, kind: "input", reason });
        };
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![*first] });
        let mut x = 0;
        for (layer, (&fan_in, &fan_out)) in widths.iter().zip(rest).enumerate() {
            if layer > 0 {
                x = graph.activation(x, activation);
            }
            x = graph.linear(x, &format!("layers.{layer}"), [fan_out, fan_in], true);
        }
        graph.build(name)
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

    /// The shape of each node's output, without the batch axis.
    #[must_use]
    pub fn shapes(&self) -> &[Vec<usize>] {
        &self.shapes
    }

    /// The number of values of each node's output.
    #[must_use]
    pub fn widths(&self) -> &[usize] {
        &self.widths
    }

    /// The number of weights of one network, `D`.
    #[must_use]
    pub fn num_parameters(&self) -> usize {
        self.tensors.last().map_or(0, |t| t.range().end)
    }

    /// Where running statistics of batch norms lie in the flat row, a range a tensor: they follow from the other weights and data.
    #[must_use]
    pub fn statistics(&self) -> Vec<Range<usize>> {
        let of = |node: &Node| match node.op {
            Op::BatchNorm { mean, variance, .. } => Some([mean, variance]),
            _ => None,
        };
        self.nodes.iter().filter_map(of).flatten().map(|tensor| self.tensors[tensor].range()).collect()
    }

    /// The number of values of one input example.
    #[must_use]
    pub fn num_inputs(&self) -> usize {
        self.widths[0]
    }

    /// The number of values of the output: the number of classes of a classifier.
    #[must_use]
    pub fn num_outputs(&self) -> usize {
        self.widths[self.widths.len() - 1]
    }

    /// Whether two architectures compute the same function of the same tensors, whatever their names.
    #[must_use]
    pub fn same_graph(&self, other: &Self) -> bool {
        self.tensors == other.tensors && self.nodes == other.nodes
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
        let input = Node { op: Op::Input { shape: vec![2] }, inputs: vec![] };
        let t = || vec![("w".to_owned(), vec![3, 2]), ("b".to_owned(), vec![3])];
        let check = |tensors, nodes, expected: &str| {
            let message = Architecture::new("x", tensors, nodes).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(t(), vec![input.clone(), linear(0, 1, 1)], "does not come before");
        check(t(), vec![input.clone(), linear(1, 0, 0)], "expected 2 axes");
        check(t(), vec![input.clone(), linear(7, 0, 0)], "not a declared one");
        check(t(), vec![input.clone(), linear(0, 1, 0), linear(0, 1, 0)], "another op uses");
        check(t(), vec![input.clone()], "unused");
        check(t(), vec![linear(0, 1, 0)], "before it");
        check(vec![("w".into(), vec![3, 5]), ("b".into(), vec![3])], vec![input.clone(), linear(0, 1, 0)], "as long as its input");
        check(vec![("w".into(), vec![]), ("w".into(), vec![])], vec![input], "twice");
        assert!(Architecture::mlp("m", &[3], Activation::Relu).is_err());
        assert!(Architecture::mlp("m", &[3, 0, 2], Activation::Relu).is_err());
    }
}
