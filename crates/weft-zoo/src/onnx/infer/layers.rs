//! Nodes that are layers already: linear maps, norms, activations.

use super::{Attributes, Head, Id, Inference, Layer, Operand};
use crate::onnx::OnnxFault;
use crate::onnx::constant::Constant;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::dtype;
use std::sync::Arc;
use weft_core::Activation;

type Read = Result<Operand, OnnxFault>;

impl<'a> Inference<'a> {
    /// What does nothing to the values; a conversion between float types changes their precision alone.
    pub(super) fn pass(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let to_float = i32::try_from(attributes.int("to", 0)).is_ok_and(dtype::is_float);
        if node.op_type == "Cast" && !to_float {
            return Err(self.fault("it converts a layer's values to another type than float"));
        }
        self.operand(node, 0)
    }

    /// Nothing, unless it is told to act as in training.
    pub(super) fn dropout(&mut self, node: &'a NodeProto) -> Read {
        let training = self.given(node, 2)?.and_then(|mode| mode.scalar()).is_some_and(|mode| mode != 0.0);
        if training {
            return Err(self.fault("it drops values at random; export the network for inference"));
        }
        self.operand(node, 0)
    }

    fn linear(&mut self, x: Id, weight: Constant) -> Result<Id, OnnxFault> {
        let [out, width] = weight.shape[..] else { return Err(self.fault("its weight is no matrix")) };
        if weight.floats().is_none() {
            return Err(self.fault("its weight is a matrix of integers"));
        }
        if width != self.width(x) {
            return Err(self.fault("its weight does not fit its input"));
        }
        let mut shape = self.shape(x).to_vec();
        shape.pop();
        shape.push(out);
        super::num_values(&shape).ok_or_else(|| self.fault("its output has too many values"))?;
        Ok(self.push(Layer::Linear { x, weight, bias: None }, shape))
    }

    /// A matrix of floats with its axes exchanged.
    fn exchanged(&mut self, weight: &Constant) -> Result<Constant, OnnxFault> {
        if weight.shape.len() != 2 {
            return Err(self.fault("its weight is no matrix"));
        }
        self.charge(weight.values.len())?;
        weight.transposed(&[1, 0]).ok_or_else(|| self.fault("its weight is a matrix of integers"))
    }

    pub(super) fn matmul(&mut self, node: &'a NodeProto) -> Read {
        let (Operand::Value(x), Operand::Constant(weight)) = (self.operand(node, 0)?, self.operand(node, 1)?) else {
            return Err(self.fault("it is read for a layer's values times a constant matrix only"));
        };
        let weight = self.exchanged(&weight)?;
        Ok(Operand::Value(self.linear(x, weight)?))
    }

    /// `alpha·x·W + beta·c`, with `W` transposed if `transB`.
    pub(super) fn gemm(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        let weight = self.given(node, 1)?.ok_or_else(|| self.fault("it has no weight"))?;
        if attributes.int("transA", 0) != 0 || self.shape(x).len() != 1 {
            return Err(self.fault("its input is transposed or no vector an example"));
        }
        let weight = if attributes.int("transB", 0) == 0 { self.exchanged(&weight)? } else { weight };
        let weight = self.times(&weight, attributes.float("alpha", 1.0))?;
        let y = self.linear(x, weight)?;
        let Some(bias) = self.given(node, 2)? else { return Ok(Operand::Value(y)) };
        let bias = self.times(&bias, attributes.float("beta", 1.0))?;
        let shape = self.shape(y).to_vec();
        if self.along(&bias, &shape, 0)?.is_none() {
            return Err(self.fault("its bias does not fit its output"));
        }
        self.add_constant(y, &bias)
    }

    fn times(&mut self, constant: &Constant, factor: f32) -> Result<Constant, OnnxFault> {
        self.charge(constant.values.len())?;
        constant.scaled(&Arc::from([factor])).ok_or_else(|| self.fault("it multiplies integers"))
    }

    pub(super) fn layer_normalization(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        let shape = self.shape(x).to_vec();
        let axis = attributes.int("axis", -1);
        if axis != -1 && axis != shape.len() as i64 {
            return Err(self.fault("it normalizes over more than the last axis"));
        }
        let mut vectors = [None, None];
        for (i, vector) in vectors.iter_mut().enumerate() {
            if let Some(constant) = self.given(node, i + 1)? {
                let along = self.along(&constant, &shape, shape.len() - 1)?;
                *vector = Some(along.ok_or_else(|| self.fault("its gain or bias does not fit its input"))?);
            }
        }
        let [gain, bias] = vectors;
        let epsilon = attributes.float("epsilon", 1e-5);
        Ok(Operand::Value(self.push(Layer::Norm { x, gain, bias, epsilon }, shape)))
    }

    pub(super) fn batch_normalization(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        let shape = self.shape(x).to_vec();
        if attributes.int("training_mode", 0) != 0 || attributes.int("spatial", 1) == 0 {
            return Err(self.fault("it is in training mode, or has statistics a position; export the network for inference"));
        }
        let mut parts = Vec::with_capacity(4);
        for i in 1..5 {
            let part = self.given(node, i)?.ok_or_else(|| self.fault("it has not its four vectors"))?;
            if part.shape != [shape[0]] || part.floats().is_none() {
                return Err(self.fault("its vectors are not as long as there are channels"));
            }
            parts.push(part);
        }
        let parts = <[Constant; 4]>::try_from(parts).map_err(|_| self.fault("it has not its four vectors"))?;
        let epsilon = attributes.float("epsilon", 1e-5);
        Ok(Operand::Value(self.push(Layer::BatchNorm { x, parts: Box::new(parts), epsilon }, shape)))
    }

    fn like_input(&mut self, node: &'a NodeProto, layer: impl Fn(Id) -> Layer) -> Read {
        let x = self.value(node, 0)?;
        let shape = self.shape(x).to_vec();
        Ok(Operand::Value(self.push(layer(x), shape)))
    }

    pub(super) fn activation(&mut self, node: &'a NodeProto, activation: Activation) -> Read {
        self.like_input(node, |x| Layer::Activation(x, activation))
    }

    pub(super) fn gelu(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        match attributes.text("approximate").unwrap_or(b"none") {
            b"none" => self.activation(node, Activation::Gelu),
            b"tanh" => self.activation(node, Activation::GeluTanh),
            _ => Err(self.fault("its `approximate` is neither `none` nor `tanh`")),
        }
    }

    pub(super) fn swish(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        if attributes.float("alpha", 1.0).to_bits() != 1f32.to_bits() {
            return Err(self.fault("its `alpha` is not 1"));
        }
        self.activation(node, Activation::Silu)
    }

    pub(super) fn clip(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        // Since version 11 the ends are inputs.
        let mut ends = [attributes.float("min", f32::NEG_INFINITY), attributes.float("max", f32::INFINITY)];
        for (i, end) in ends.iter_mut().enumerate() {
            if let Some(constant) = self.given(node, i + 1)? {
                *end = constant.scalar().ok_or_else(|| self.fault("its ends are not numbers"))?;
            }
        }
        let [min, max] = ends;
        if min.is_nan() || max.is_nan() || min >= max {
            return Err(self.fault("its smallest value is not below its largest"));
        }
        // The largest numbers of the type are its way to say that there is no end.
        match (min > f32::MIN, max < f32::MAX) {
            (false, false) => self.operand(node, 0),
            (true, false) if min == 0.0 => self.activation(node, Activation::Relu),
            _ => self.like_input(node, |x| Layer::Clip(x, [min, max])),
        }
    }

    pub(super) fn softmax(&mut self, node: &'a NodeProto, attributes: Attributes<'a>, head: Head) -> Read {
        let x = self.value(node, 0)?;
        let last = self.shape(x).len() as i64;
        // Before version 13, it was over all axes from 1 on, unless told otherwise.
        let axis = attributes.int("axis", if self.graph.opset < 13 { 1 } else { -1 });
        if axis != -1 && axis != last {
            return Err(self.fault("it is not along the last axis"));
        }
        self.like_input(node, |x| Layer::Head(x, head))
    }
}
