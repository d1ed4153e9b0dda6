//! From layers to an architecture: order, names and the flat row of weights.
//!
//! Names go by position, whatever the file calls its tensors. Linear maps and convolutions are `layers.0`, `layers.1`, …
//! in the order in which a walk from the output meets them, inputs first; norms are `norms.0`, `norms.1`, … likewise.
//! Their tensors are `weight`, `bias` and, for batch norms, `running_mean` and `running_var`. The row holds them in
//! that order, linear weights as `[out, in]`.

use super::OnnxFault;
use super::constant::Constant;
use super::graph::label;
use super::infer::{Head, Id, Inferred, Layer, Piece, Value};
use weft_core::{Activation, Architecture, GraphBuilder, Op, TensorId};

/// An architecture and the constants that are its tensors, in order.
pub(super) struct Lowered {
    pub(super) architecture: Architecture,
    pub(super) parameters: Vec<Constant>,
    pub(super) head: Option<Head>,
}

/// Builds the architecture of inferred layers; what follows the logits becomes the head.
pub(super) fn lower(inferred: &Inferred<'_>) -> Result<Lowered, OnnxFault> {
    let values = &inferred.values;
    let (root, head) = match values[inferred.output].layer {
        Layer::Head(x, head) => (x, Some(head)),
        Layer::Activation(x, Activation::Sigmoid) => (x, Some(Head::Sigmoid)),
        _ => (inferred.output, None),
    };
    let order = post_order(values, root)?;
    let (input, shape) = input(values, &order);
    let mut lowering = Lowering {
        values,
        builder: GraphBuilder::new(Op::Input { shape: shape.to_vec() }),
        nodes: vec![None; values.len()],
        parameters: Vec::new(),
        norms: 0,
        widths: Vec::new(),
    };
    lowering.nodes[0] = Some(0);
    lowering.nodes[input] = Some(0);
    for id in order {
        if lowering.nodes[id].is_none() {
            let node = lowering.add(id)?;
            lowering.nodes[id] = Some(node);
        }
    }
    let Lowering { builder, parameters, widths, .. } = lowering;
    let name = name(shape, &widths);
    let architecture = builder.build(&name).map_err(|error| OnnxFault::Architecture { reason: error.to_string() })?;
    Ok(Lowered { architecture, parameters, head })
}

/// A name that tells people what it is: the length of the input and of every linear map's or convolution's output.
fn name(shape: &[usize], widths: &[usize]) -> String {
    let words: Vec<String> = std::iter::once(shape.iter().product()).chain(widths.iter().copied()).map(|w| w.to_string()).collect();
    match words.as_slice() {
        [first, .., last] if words.len() > 12 => format!("onnx-{first}-to-{last}-{}-layers", widths.len()),
        _ => format!("onnx-{}", words.join("-")),
    }
}

/// The values that the root needs, each after its inputs.
fn post_order(values: &[Value<'_>], root: Id) -> Result<Vec<Id>, OnnxFault> {
    let mut seen = vec![false; values.len()];
    let mut order = Vec::new();
    let mut stack = vec![(root, false)];
    while let Some((id, inputs_done)) = stack.pop() {
        if inputs_done {
            order.push(id);
            continue;
        }
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        if let Layer::Piece(piece) = &values[id].layer {
            return Err(incomplete(&values[id], piece));
        }
        stack.push((id, true));
        stack.extend(values[id].layer.inputs().into_iter().rev().map(|input| (input, false)));
    }
    Ok(order)
}

fn incomplete(value: &Value<'_>, piece: &Piece) -> OnnxFault {
    let reason = match piece {
        Piece::Unknown(reason) => reason,
        Piece::Erf(_) | Piece::OnePlusErf(_) | Piece::Phi(_) => "it is a part of a GELU that is not completed in a known form",
        Piece::Square(_) => "it squares a layer's values, for which there is no layer outside of norms",
        _ => "it is a part of a norm that is not completed in a known form",
    };
    let (node, op) = value.node.map_or_else(Default::default, |node| (label(node), node.op_type.clone()));
    OnnxFault::Unsupported { node, op, reason }
}

/// The value that is the architecture's input: the graph's, or what it is reshaped to before anything else reads it.
fn input<'v>(values: &'v [Value<'_>], order: &[Id]) -> (Id, &'v [usize]) {
    let readers: Vec<Id> = order.iter().copied().filter(|&id| values[id].layer.inputs().contains(&0)).collect();
    match readers[..] {
        [only] if matches!(values[only].layer, Layer::Reshape(0)) && values[only].shape.len() <= 3 => (only, &values[only].shape),
        _ => (0, &values[0].shape),
    }
}

struct Lowering<'v, 'a> {
    values: &'v [Value<'a>],
    builder: GraphBuilder,
    /// The architecture's node of each value, once it has one.
    nodes: Vec<Option<usize>>,
    parameters: Vec<Constant>,
    norms: usize,
    /// Outputs of each linear map and convolution.
    widths: Vec<usize>,
}

impl Lowering<'_, '_> {
    fn node(&self, id: Id) -> usize {
        self.nodes[id].expect("a value comes after its inputs")
    }

    fn tensor(&mut self, name: String, constant: &Constant) -> TensorId {
        self.parameters.push(constant.clone());
        self.builder.tensor(name, &constant.shape)
    }

    /// Declares the weight and bias of the next linear map or convolution.
    fn layer(&mut self, weight: &Constant, bias: Option<&Constant>) -> (TensorId, Option<TensorId>) {
        let layer = self.widths.len();
        self.widths.push(weight.shape[0]);
        let weight = self.tensor(format!("layers.{layer}.weight"), weight);
        (weight, bias.map(|bias| self.tensor(format!("layers.{layer}.bias"), bias)))
    }

    fn norm(&mut self, parts: &[(&str, Option<&Constant>)]) -> Vec<Option<TensorId>> {
        let norm = self.norms;
        self.norms += 1;
        parts.iter().map(|(part, constant)| constant.map(|c| self.tensor(format!("norms.{norm}.{part}"), c))).collect()
    }

    fn add(&mut self, id: Id) -> Result<usize, OnnxFault> {
        let value = &self.values[id];
        let inputs: Vec<usize> = value.layer.inputs().into_iter().map(|input| self.node(input)).collect();
        let op = match &value.layer {
            Layer::Linear { weight, bias, .. } => {
                let (weight, bias) = self.layer(weight, bias.as_ref());
                Op::Linear { weight, bias }
            }
            Layer::Conv { weight, bias, stride, padding, groups, .. } => {
                let (weight, bias) = self.layer(weight, bias.as_ref());
                Op::Conv2d { weight, bias, stride: *stride, padding: *padding, groups: *groups }
            }
            Layer::BatchNorm { parts, epsilon, .. } => {
                let [gain, bias, mean, variance] = parts.as_ref();
                let parts = [("weight", gain), ("bias", bias), ("running_mean", mean), ("running_var", variance)];
                let ids = self.norm(&parts.map(|(part, constant)| (part, Some(constant))));
                let &[Some(gain), Some(bias), Some(mean), Some(variance)] = ids.as_slice() else {
                    return Err(refuse(value, "it has not its four vectors"));
                };
                Op::BatchNorm { gain, bias, mean, variance, epsilon: decimal(*epsilon) }
            }
            Layer::Norm { gain, bias, epsilon, .. } => {
                let ids = self.norm(&[("weight", gain.as_ref()), ("bias", bias.as_ref())]);
                Op::LayerNorm { gain: ids[0], bias: ids[1], epsilon: decimal(*epsilon) }
            }
            Layer::RmsNorm { gain, epsilon, .. } => {
                let ids = self.norm(&[("weight", gain.as_ref())]);
                Op::RmsNorm { gain: ids[0], epsilon: decimal(*epsilon) }
            }
            Layer::Activation(_, activation) => Op::Activation(*activation),
            Layer::Clip(_, [min, max]) => Op::Clip { min: decimal(*min), max: decimal(*max) },
            Layer::Scale(_, factor) => Op::Scale { factor: decimal(*factor) },
            Layer::Reshape(_) if value.shape.len() == 1 => Op::Flatten,
            Layer::MaxPool(_, window) => Op::MaxPool(*window),
            Layer::AvgPool(_, window) => Op::AvgPool(*window),
            Layer::GlobalAvgPool(_) => Op::GlobalAvgPool,
            Layer::Add(..) => Op::Add,
            Layer::Mul(..) => Op::Mul,
            Layer::Reshape(_) => return Err(refuse(value, "it gives a layer's values a shape for which there is no layer")),
            Layer::Head(..) => return Err(refuse(value, "it is read at the end of a network only")),
            Layer::Input | Layer::Piece(_) => return Err(refuse(value, "it is no layer")),
        };
        Ok(self.builder.push(op, &inputs))
    }
}

fn refuse(value: &Value<'_>, reason: &'static str) -> OnnxFault {
    let (node, op) = value.node.map_or_else(Default::default, |node| (label(node), node.op_type.clone()));
    OnnxFault::Unsupported { node, op, reason }
}

/// A number as it was meant: files hold `1e-5` as the nearest `f32`, architectures as the nearest `f64`.
fn decimal(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}
