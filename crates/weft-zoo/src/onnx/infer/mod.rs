//! From an ONNX graph to layers.
//!
//! Nodes are visited in order. What depends on constants alone is computed at once (`constants`); everything else
//! becomes a [`Layer`] through rules that see the layers before it (`rules`). A layer norm that an exporter spelled
//! out as nine nodes thus grows piece by piece (mean, centered values, variance, …) until its last node completes it,
//! in whichever of the usual forms. Pieces that complete nothing are refused in the end, by the node that made them.
//!
//! The function is that of one example: the first axis is the batch, and it keeps its meaning through every node or
//! the node is refused.

mod attributes;
mod constants;
mod images;
mod layer;
mod layers;
mod rules;
mod shapes;

pub use layer::Head;
pub(super) use layer::{Id, Layer, Piece, Value};

use super::OnnxFault;
use super::constant::Constant;
use super::graph::{Graph, label};
use super::proto::{NodeProto, ValueInfoProto};
use super::tensor::{Folder, Values, decode};
use attributes::Attributes;
use std::collections::BTreeMap;
use weft_core::Activation;

/// The ops that are known, sorted, each with the most inputs that it may have; `Gelu` and `LayerNormalization` are also read in the domain `com.microsoft`.
const KNOWN: [(&str, usize); 39] = [
    ("Add", 2),
    ("AveragePool", 1),
    ("BatchNormalization", 5),
    ("Cast", 1),
    ("Clip", 3),
    ("Concat", usize::MAX),
    ("Constant", 0),
    ("Conv", 3),
    ("Div", 2),
    ("Dropout", 3),
    ("Erf", 1),
    ("Flatten", 1),
    ("Gather", 2),
    ("Gelu", 1),
    ("Gemm", 3),
    ("GlobalAveragePool", 1),
    ("Identity", 1),
    ("LayerNormalization", 3),
    ("LogSoftmax", 1),
    ("MatMul", 2),
    ("MaxPool", 1),
    ("Mul", 2),
    ("Neg", 1),
    ("Pow", 2),
    ("Reciprocal", 1),
    ("ReduceMean", 2),
    ("Relu", 1),
    ("Reshape", 2),
    ("Shape", 1),
    ("Sigmoid", 1),
    ("Slice", 5),
    ("Softmax", 1),
    ("Sqrt", 1),
    ("Squeeze", 2),
    ("Sub", 2),
    ("Swish", 1),
    ("Tanh", 1),
    ("Transpose", 1),
    ("Unsqueeze", 2),
];

/// Largest number of values of one example.
const MAX_VALUES: usize = 1 << 32;
/// Longest batch that a model may be made for; so many times [`MAX_VALUES`] still fits into an index.
const MAX_BATCH: usize = 1 << 16;
/// Largest number of axes.
const MAX_AXES: usize = 8;

/// What a name of the graph stands for.
#[derive(Debug, Clone)]
enum Operand {
    Constant(Constant),
    Value(Id),
}

/// Layers in an order in which each comes after its inputs.
pub(super) struct Inferred<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) output: Id,
}

/// The state of a walk over the nodes.
struct Inference<'a> {
    graph: &'a Graph<'a>,
    folder: Folder,
    names: BTreeMap<&'a str, Operand>,
    /// Layers and pieces, each after its inputs.
    values: Vec<Value<'a>>,
    /// The length of the batch axis, as far as constants that hold shapes see it.
    batch: usize,
    /// How many more values may be computed from constants.
    folding: usize,
    /// The node that is being read; none before the first.
    node: Option<&'a NodeProto>,
}

/// Infers the layers of a graph.
pub(super) fn infer<'a>(graph: &'a Graph<'a>, folder: Folder) -> Result<Inferred<'a>, OnnxFault> {
    refuse_unknown_ops(graph)?;
    let (batch, shape) = input_shape(graph.input)?;
    let input = Value { layer: Layer::Input, shape, node: None };
    let names = BTreeMap::from([(graph.input.name.as_str(), Operand::Value(0))]);
    let mut inference = Inference { graph, folder, names, values: vec![input], batch, folding: 1 << 16, node: None };
    for &node in &graph.nodes {
        inference.node = Some(node);
        let operand = inference.visit(node)?;
        if let Some(name) = node.output.first() {
            inference.names.insert(name, operand);
        }
    }
    match inference.names.get(graph.output) {
        Some(&Operand::Value(output)) => Ok(Inferred { values: inference.values, output }),
        _ => Err(OnnxFault::Architecture { reason: "its output does not depend on its input".to_owned() }),
    }
}

fn refuse_unknown_ops(graph: &Graph<'_>) -> Result<(), OnnxFault> {
    for node in &graph.nodes {
        let (domain, op) = (node.domain.as_str(), node.op_type.as_str());
        let place = KNOWN.binary_search_by_key(&op, |known| known.0).ok().filter(|_| match domain {
            "" | "ai.onnx" => true,
            "com.microsoft" => matches!(op, "Gelu" | "LayerNormalization"),
            _ => false,
        });
        let Some(place) = place else {
            let op = if matches!(domain, "" | "ai.onnx") { op.to_owned() } else { format!("{domain}.{op}") };
            return Err(OnnxFault::UnknownOp { node: label(node), op, known: KNOWN.map(|known| known.0).join(", ") });
        };
        if node.input.len() > KNOWN[place].1 {
            return Err(OnnxFault::Unsupported { node: label(node), op: op.to_owned(), reason: "it has too many inputs" });
        }
    }
    Ok(())
}

/// Batch length (1 where it is free) and the shape of one example.
fn input_shape(input: &ValueInfoProto) -> Result<(usize, Vec<usize>), OnnxFault> {
    let fail = |reason| OnnxFault::Input { input: input.name.clone(), reason };
    let tensor = input.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref()).ok_or_else(|| fail("it is no tensor"))?;
    if !super::tensor::dtype::is_float(tensor.elem_type) {
        return Err(fail("it is not a tensor of floats"));
    }
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).ok_or_else(|| fail("its shape is not given"))?;
    let [batch, rest @ ..] = dims else { return Err(fail("it has no axes; the first must be the batch")) };
    let size = |value: Option<i64>| value.and_then(|value| usize::try_from(value).ok()).filter(|&size| size > 0);
    let shape: Option<Vec<usize>> = rest.iter().map(|dim| size(dim.dim_value)).collect();
    let shape =
        shape.ok_or_else(|| fail("an axis other than the first, the batch, has no fixed length; export it with fixed shapes"))?;
    if shape.is_empty() || shape.len() > MAX_AXES {
        return Err(fail("it must have 1 to 8 axes besides the first, the batch"));
    }
    let batch = size(batch.dim_value).unwrap_or(1);
    if num_values(&shape).is_none() || batch > MAX_BATCH {
        return Err(fail("it has too many values"));
    }
    Ok((batch, shape))
}

/// The number of values of a shape, unless it is absurd; an empty axis does not excuse the others.
fn num_values(shape: &[usize]) -> Option<usize> {
    let most = shape.iter().try_fold(1usize, |count, &axis| count.checked_mul(axis.max(1))).filter(|&count| count <= MAX_VALUES)?;
    Some(if shape.contains(&0) { 0 } else { most })
}

impl<'a> Inference<'a> {
    fn visit(&mut self, node: &'a NodeProto) -> Result<Operand, OnnxFault> {
        let attributes = Attributes::of(node);
        if let Some(constant) = self.fold(node, attributes)? {
            return Ok(Operand::Constant(constant));
        }
        match node.op_type.as_str() {
            "Identity" | "Cast" => self.pass(node, attributes),
            "Dropout" => self.dropout(node),
            "Add" => self.add(node),
            "Sub" => self.subtract(node),
            "Mul" => self.multiply(node),
            "Div" => self.divide(node),
            "Pow" => self.power(node),
            "Sqrt" => self.root(node),
            "Reciprocal" => self.reciprocal(node),
            "Neg" => self.negate(node),
            "Erf" => self.erf(node),
            "ReduceMean" => self.reduce_mean(node, attributes),
            "MatMul" => self.matmul(node),
            "Gemm" => self.gemm(node, attributes),
            "LayerNormalization" => self.layer_normalization(node, attributes),
            "BatchNormalization" => self.batch_normalization(node, attributes),
            "Conv" => self.convolution(node, attributes),
            "MaxPool" | "AveragePool" => self.pool(node, attributes),
            "GlobalAveragePool" => self.global_pool(node),
            "Relu" => self.activation(node, Activation::Relu),
            "Sigmoid" => self.activation(node, Activation::Sigmoid),
            "Tanh" => self.activation(node, Activation::Tanh),
            "Gelu" => self.gelu(node, attributes),
            "Swish" => self.swish(node, attributes),
            "Clip" => self.clip(node, attributes),
            "Softmax" => self.softmax(node, attributes, Head::Softmax),
            "LogSoftmax" => self.softmax(node, attributes, Head::LogSoftmax),
            "Flatten" => self.flatten(node, attributes),
            "Reshape" => self.reshape(node, attributes),
            "Squeeze" | "Unsqueeze" => self.squeeze(node, attributes),
            "Transpose" => self.transpose(node, attributes),
            _ => Err(self.fault("it is read for constants only, and this one depends on the input")),
        }
    }

    /// An error about the node that is being read.
    fn fault(&self, reason: &'static str) -> OnnxFault {
        let (node, op) = self.node.map_or_else(Default::default, |node| (label(node), node.op_type.clone()));
        OnnxFault::Unsupported { node, op, reason }
    }

    /// What the name of input `i` stands for; `None` where the node has no such input.
    fn optional(&mut self, node: &'a NodeProto, i: usize) -> Result<Option<Operand>, OnnxFault> {
        let Some(name) = node.input.get(i).filter(|name| !name.is_empty()) else { return Ok(None) };
        if let Some(operand) = self.names.get(name.as_str()) {
            return Ok(Some(operand.clone()));
        }
        let Some(tensor) = self.graph.initializers.get(name.as_str()) else {
            // Only a node's second output can be known to the graph and not here.
            return Err(self.fault("it reads an output of another node that is not read here"));
        };
        let (shape, values) = decode(tensor, name, &mut self.folder)?;
        let constant = self.constant(name, shape, values)?;
        self.names.insert(name, Operand::Constant(constant.clone()));
        Ok(Some(Operand::Constant(constant)))
    }

    /// Registers a stored constant: what may be computed from constants is in proportion to what is stored.
    fn constant(&mut self, name: &str, shape: Vec<usize>, values: Values) -> Result<Constant, OnnxFault> {
        if shape.len() > MAX_AXES {
            return Err(self.fault("it reads a constant of more than 8 axes"));
        }
        self.folding = self.folding.saturating_add(8 * values.len());
        Ok(Constant::stored(name, shape, values))
    }

    fn operand(&mut self, node: &'a NodeProto, i: usize) -> Result<Operand, OnnxFault> {
        self.optional(node, i)?.ok_or_else(|| self.fault("it has too few inputs"))
    }

    /// Input `i`, which must depend on the network's input.
    fn value(&mut self, node: &'a NodeProto, i: usize) -> Result<Id, OnnxFault> {
        match self.operand(node, i)? {
            Operand::Value(id) => Ok(id),
            Operand::Constant(_) => Err(self.fault("a constant stands where the network's values should")),
        }
    }

    /// Input `i`, which must be a constant; `None` where the node has no such input.
    fn given(&mut self, node: &'a NodeProto, i: usize) -> Result<Option<Constant>, OnnxFault> {
        match self.optional(node, i)? {
            None => Ok(None),
            Some(Operand::Constant(constant)) => Ok(Some(constant)),
            Some(Operand::Value(_)) => Err(self.fault("a value of the network stands where a constant should")),
        }
    }

    /// Allows a constant of so many values to be computed.
    fn charge(&mut self, values: usize) -> Result<(), OnnxFault> {
        let left = self.folding.checked_sub(values);
        self.folding = left.ok_or_else(|| self.fault("the graph computes too much from its constants"))?;
        Ok(())
    }

    fn push(&mut self, layer: Layer, shape: Vec<usize>) -> Id {
        self.values.push(Value { layer, shape, node: self.node });
        self.values.len() - 1
    }

    fn piece(&mut self, piece: Piece, shape: Vec<usize>) -> Id {
        self.push(Layer::Piece(piece), shape)
    }

    fn layer(&self, id: Id) -> &Layer {
        &self.values[id].layer
    }

    fn shape(&self, id: Id) -> &[usize] {
        &self.values[id].shape
    }

    /// The length of a value's last axis.
    fn width(&self, id: Id) -> usize {
        self.shape(id).last().copied().unwrap_or(1)
    }
}
