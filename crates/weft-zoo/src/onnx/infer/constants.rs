//! What depends on constants alone is computed while reading.
//!
//! Floats keep their origin through every step that can be undone. Integers are shapes and axes; they have none.

use super::{Attributes, Inference, Operand, shapes};
use crate::onnx::OnnxFault;
use crate::onnx::constant::Constant;
use crate::onnx::proto::NodeProto;
use crate::onnx::tensor::{Values, decode, dtype};
use std::sync::Arc;

/// Longest vector of integers that is computed; they hold shapes, axes and slices.
const MAX_INTS: usize = 64;

impl<'a> Inference<'a> {
    /// The node's output if all that it reads is constant.
    pub(super) fn fold(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Option<Constant>, OnnxFault> {
        match node.op_type.as_str() {
            "Constant" => return self.constant_node(node, attributes).map(Some),
            "Shape" => return self.shape_of(node, attributes).map(Some),
            _ => {}
        }
        let mut inputs = Vec::new();
        for i in 0..node.input.len() {
            match self.optional(node, i)? {
                Some(Operand::Constant(constant)) => inputs.push(constant),
                Some(Operand::Value(_)) => return Ok(None),
                None => {}
            }
        }
        if inputs.is_empty() {
            return Err(self.fault("it has no inputs"));
        }
        self.charge(inputs.iter().map(|constant| constant.values.len()).sum())?;
        let folded = match node.op_type.as_str() {
            "Identity" | "Dropout" => Ok(inputs[0].clone()),
            "Cast" => Ok(cast(&inputs[0], attributes.int("to", 0))),
            "Add" => self.arithmetic(&inputs, Constant::shifted, i64::checked_add),
            "Mul" => self.arithmetic(&inputs, Constant::scaled, i64::checked_mul),
            "Sub" => self.arithmetic(&inputs, |a, b| a.shifted(&negatives(b)), i64::checked_sub),
            "Div" => self.arithmetic(&inputs, |a, b| a.scaled(&inverses(b)), i64::checked_div),
            "Neg" => inputs[0].negated().ok_or_else(|| self.fault("it negates integers")),
            "Sqrt" => self.map_floats(&inputs[0], f32::sqrt),
            "Reciprocal" => self.map_floats(&inputs[0], f32::recip),
            "Transpose" => self.transpose_constant(&inputs[0], attributes),
            "Reshape" => self.reshape_constant(&inputs, attributes),
            "Flatten" => self.flatten_constant(&inputs[0], attributes),
            "Squeeze" | "Unsqueeze" => self.squeeze_constant(node, &inputs, attributes),
            "Gather" => self.gather(&inputs, attributes),
            "Concat" => self.concat(&inputs),
            "Slice" => self.slice(&inputs),
            _ => Err(self.fault("it reads constants alone, which is not done with this op")),
        };
        folded.map(Some)
    }

    fn constant_node(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let name = node.output.first().map_or("", String::as_str);
        if let Some(tensor) = attributes.get("value").and_then(|value| value.t.as_ref()) {
            let (shape, values) = decode(tensor, name, &mut self.folder)?;
            return self.constant(name, shape, values);
        }
        // These forms have no place for another value of another length, and hold no weights in practice.
        let without_origin = |shape, values| Constant { shape, values, origin: None };
        if let Some(value) = attributes.get("value_float") {
            return Ok(without_origin(Vec::new(), Values::Float(Arc::from([value.f]))));
        }
        if let Some(value) = attributes.get("value_int") {
            return Ok(Constant::ints(Vec::new(), vec![value.i]));
        }
        if let Some(value) = attributes.get("value_floats") {
            return Ok(without_origin(vec![value.floats.len()], Values::Float(value.floats.as_slice().into())));
        }
        if let Some(value) = attributes.get("value_ints") {
            return Ok(Constant::ints(vec![value.ints.len()], value.ints.clone()));
        }
        Err(self.fault("it holds no tensor and no numbers"))
    }

    /// The shape of a value; the batch axis has its declared length, or 1.
    fn shape_of(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        if attributes.get("start").is_some() || attributes.get("end").is_some() {
            return Err(self.fault("it takes a part of the shape"));
        }
        let shape: Vec<i64> = match self.operand(node, 0)? {
            Operand::Constant(constant) => constant.shape.iter().map(|&axis| axis as i64).collect(),
            Operand::Value(id) => {
                std::iter::once(self.batch).chain(self.shape(id).iter().copied()).map(|axis| axis as i64).collect()
            }
        };
        Ok(Constant::ints(vec![shape.len()], shape))
    }

    /// Two constants value by value; one may be a single number.
    fn arithmetic(
        &self,
        inputs: &[Constant],
        floats: impl Fn(&Constant, &Arc<[f32]>) -> Option<Constant>,
        ints: impl Fn(i64, i64) -> Option<i64>,
    ) -> Result<Constant, OnnxFault> {
        let [a, b] = inputs else { return Err(self.fault("it has not two inputs")) };
        let fail = || self.fault("it combines constants of shapes or types that are not read together");
        if let (Some(a), Some(b)) = (a.as_ints(), b.as_ints()) {
            if a.len().max(b.len()) > MAX_INTS || (a.len() != b.len() && a.len() != 1 && b.len() != 1) {
                return Err(fail());
            }
            let len = if a.is_empty() || b.is_empty() { 0 } else { a.len().max(b.len()) };
            let pairs = a.iter().cycle().zip(b.iter().cycle()).take(len);
            let values = pairs.map(|(&a, &b)| ints(a, b)).collect::<Option<Vec<_>>>().ok_or_else(fail)?;
            let shape = if inputs[0].shape.len() >= inputs[1].shape.len() { &inputs[0].shape } else { &inputs[1].shape };
            let shape = if shape.iter().product::<usize>() == len { shape.clone() } else { vec![len] };
            return Ok(Constant::ints(shape, values));
        }
        let commutes = matches!(self.node.map(|node| node.op_type.as_str()), Some("Add" | "Mul"));
        let (a, b) = if commutes && b.values.len() > a.values.len() { (b, a) } else { (a, b) };
        let other = b.floats().ok_or_else(fail)?;
        // Axes of length 1 in front do not change which value meets which.
        let trimmed = |shape: &[usize]| shape.iter().skip_while(|&&axis| axis == 1).copied().collect::<Vec<_>>();
        if other.len() != 1 && trimmed(&a.shape) != trimmed(&b.shape) {
            return Err(fail());
        }
        let combined = floats(a, other).ok_or_else(fail)?;
        let shape = if b.shape.len() > a.shape.len() { b.shape.clone() } else { a.shape.clone() };
        let fits = shape.iter().product::<usize>() == combined.values.len();
        Ok(if fits { combined.reshaped(shape) } else { combined })
    }

    fn map_floats(&self, constant: &Constant, f: fn(f32) -> f32) -> Result<Constant, OnnxFault> {
        let values = constant.floats().ok_or_else(|| self.fault("it reads integers"))?;
        Ok(Constant { shape: constant.shape.clone(), values: Values::Float(values.iter().map(|&v| f(v)).collect()), origin: None })
    }

    fn transpose_constant(&self, constant: &Constant, attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let axes = self.permutation(attributes, constant.shape.len())?;
        constant.transposed(&axes).ok_or_else(|| self.fault("it transposes integers"))
    }

    fn reshape_constant(&self, inputs: &[Constant], attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let [constant, shape] = inputs else { return Err(self.fault("it has not two inputs")) };
        let target = shape.as_ints().ok_or_else(|| self.fault("its shape is not a vector of integers"))?;
        let zero_is_zero = attributes.int("allowzero", 0) != 0;
        let shape = shapes::resolve(target, &constant.shape, zero_is_zero).map_err(|reason| self.fault(reason))?;
        Ok(constant.reshaped(shape))
    }

    fn flatten_constant(&self, constant: &Constant, attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let rank = constant.shape.len();
        let axis = attributes.int("axis", 1);
        let axis = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        let axis = usize::try_from(axis).ok().filter(|&axis| axis <= rank).ok_or_else(|| self.fault("its axis is out of range"))?;
        let (rows, columns) = constant.shape.split_at(axis);
        Ok(constant.reshaped(vec![rows.iter().product(), columns.iter().product()]))
    }

    fn squeeze_constant(&self, node: &NodeProto, inputs: &[Constant], attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let axes = match inputs.get(1) {
            Some(axes) => axes.as_ints(),
            None => attributes.ints("axes"),
        };
        let shape = if node.op_type == "Squeeze" {
            shapes::squeezed(&inputs[0].shape, axes)
        } else {
            shapes::unsqueezed(&inputs[0].shape, axes.unwrap_or_default())
        };
        shape.map(|shape| inputs[0].reshaped(shape)).map_err(|reason| self.fault(reason))
    }

    /// A short vector of integers.
    fn short_ints<'c>(&self, constant: &'c Constant) -> Result<&'c [i64], OnnxFault> {
        let ints = constant.as_ints().filter(|ints| ints.len() <= MAX_INTS && constant.shape.len() <= 1);
        ints.ok_or_else(|| self.fault("it is read for short vectors of integers, such as shapes, only"))
    }

    fn gather(&self, inputs: &[Constant], attributes: Attributes<'a>) -> Result<Constant, OnnxFault> {
        let [data, indices] = inputs else { return Err(self.fault("it has not two inputs")) };
        let (data, picks) = (self.short_ints(data)?, self.short_ints(indices)?);
        if attributes.int("axis", 0) != 0 {
            return Err(self.fault("its axis is out of range"));
        }
        let pick = |&i: &i64| data.get(usize::try_from(if i < 0 { i.saturating_add(data.len() as i64) } else { i }).ok()?).copied();
        let values = picks.iter().map(pick).collect::<Option<Vec<_>>>().ok_or_else(|| self.fault("its index is out of range"))?;
        Ok(Constant::ints(indices.shape.clone(), values))
    }

    fn concat(&self, inputs: &[Constant]) -> Result<Constant, OnnxFault> {
        let mut values = Vec::new();
        for input in inputs {
            values.extend_from_slice(self.short_ints(input)?);
        }
        if values.len() > MAX_INTS {
            return Err(self.fault("it makes a long vector of integers"));
        }
        Ok(Constant::ints(vec![values.len()], values))
    }

    fn slice(&self, inputs: &[Constant]) -> Result<Constant, OnnxFault> {
        let [data, starts, ends, rest @ ..] = inputs else { return Err(self.fault("its start and end are not given")) };
        let data = self.short_ints(data)?;
        let one = |constant: &Constant| self.short_ints(constant).map(|ints| if let [one] = ints { Some(*one) } else { None });
        let plain = one(rest.first().unwrap_or(&Constant::ints(vec![1], vec![0])))? == Some(0)
            && one(rest.get(1).unwrap_or(&Constant::ints(vec![1], vec![1])))? == Some(1);
        let (Some(start), Some(end), true) = (one(starts)?, one(ends)?, plain) else {
            return Err(self.fault("it is read along one axis, value by value, only"));
        };
        let place = |i: i64| (if i < 0 { i.saturating_add(data.len() as i64) } else { i }).clamp(0, data.len() as i64) as usize;
        let values = data.get(place(start)..place(end)).unwrap_or_default().to_vec();
        Ok(Constant::ints(vec![values.len()], values))
    }
}

fn negatives(values: &[f32]) -> Arc<[f32]> {
    values.iter().map(|v| -v).collect()
}

fn inverses(values: &[f32]) -> Arc<[f32]> {
    values.iter().map(|v| v.recip()).collect()
}

/// Floats stay `f32` and integers `i64`; between the two it is a conversion.
fn cast(constant: &Constant, to: i64) -> Constant {
    let to_float = i32::try_from(to).is_ok_and(dtype::is_float);
    let values = match (&constant.values, to_float) {
        (Values::Int(values), true) => Values::Float(values.iter().map(|&v| v as f32).collect()),
        (Values::Float(values), false) => Values::Int(values.iter().map(|&v| v as i64).collect()),
        _ => return constant.clone(),
    };
    Constant { shape: constant.shape.clone(), values, origin: None }
}
