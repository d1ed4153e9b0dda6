//! Nodes that move values to other axes. The batch axis must stay the first.

use super::{Attributes, Inference, Layer, MAX_AXES, Operand, num_values};
use crate::onnx::OnnxFault;
use crate::onnx::constant::is_order_kept;
use crate::onnx::proto::NodeProto;

/// Resolves `-1` (the rest) and `0` (as before) of a target shape.
pub(super) fn resolve(target: &[i64], shape: &[usize], zero_is_zero: bool) -> Result<Vec<usize>, &'static str> {
    if target.len() > MAX_AXES + 1 {
        return Err("its target has too many axes");
    }
    let (mut resolved, mut free) = (Vec::with_capacity(target.len()), None);
    for (i, &axis) in target.iter().enumerate() {
        resolved.push(match axis {
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            0 if !zero_is_zero => *shape.get(i).ok_or("its target copies an axis that is not there")?,
            axis => usize::try_from(axis).map_err(|_| "its target has a negative axis, or more than one free axis")?,
        });
    }
    let count = shape.iter().product::<usize>();
    let fixed = num_values(&resolved).ok_or("its target has too many values")?;
    if let Some(free) = free.filter(|_| fixed > 0 && count.is_multiple_of(fixed)) {
        resolved[free] = count / fixed;
    }
    if num_values(&resolved) == Some(count) { Ok(resolved) } else { Err("its target has another number of values") }
}

/// Axes counted from the front; negative ones count from the back.
fn positive(axes: &[i64], rank: usize) -> Result<Vec<usize>, &'static str> {
    let from_front = |&axis: &i64| {
        let axis = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
        usize::try_from(axis).ok().filter(|&axis| axis < rank).ok_or("an axis is out of range")
    };
    axes.iter().map(from_front).collect()
}

/// A shape without the given axes of length 1, or without all such.
pub(super) fn squeezed(shape: &[usize], axes: Option<&[i64]>) -> Result<Vec<usize>, &'static str> {
    let axes = match axes.filter(|axes| !axes.is_empty()) {
        Some(axes) => positive(axes, shape.len())?,
        None => (0..shape.len()).filter(|&axis| shape[axis] == 1).collect(),
    };
    if axes.iter().any(|&axis| shape[axis] != 1) {
        return Err("it squeezes an axis whose length is not 1");
    }
    Ok(shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, &size)| size).collect())
}

/// A shape with axes of length 1 at the given places of the result.
pub(super) fn unsqueezed(shape: &[usize], axes: &[i64]) -> Result<Vec<usize>, &'static str> {
    let rank = shape.len().saturating_add(axes.len());
    if rank > MAX_AXES + 1 {
        return Err("it makes too many axes");
    }
    let mut axes = positive(axes, rank)?;
    axes.sort_unstable();
    let mut out = shape.to_vec();
    for axis in axes {
        if axis > out.len() {
            return Err("an axis is out of range");
        }
        out.insert(axis, 1);
    }
    Ok(out)
}

impl<'a> Inference<'a> {
    /// The axes of `Transpose`; without any, their reverse.
    pub(super) fn permutation(&self, attributes: Attributes<'a>, rank: usize) -> Result<Vec<usize>, OnnxFault> {
        let Some(axes) = attributes.ints("perm") else { return Ok((0..rank).rev().collect()) };
        let axes: Vec<usize> = axes.iter().filter_map(|&axis| usize::try_from(axis).ok()).collect();
        let is_permutation = axes.len() == rank && (0..rank).all(|axis| axes.contains(&axis));
        if is_permutation { Ok(axes) } else { Err(self.fault("its `perm` is no permutation of the axes")) }
    }

    /// Gives a value another shape; two changes of shape in a row are one.
    pub(super) fn reshaped(&mut self, x: usize, shape: Vec<usize>) -> Operand {
        let source = if let Layer::Reshape(source) = *self.layer(x) { source } else { x };
        let same = self.shape(source) == shape;
        Operand::Value(if same { source } else { self.push(Layer::Reshape(source), shape) })
    }

    pub(super) fn flatten(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Operand, OnnxFault> {
        let x = self.value(node, 0)?;
        if attributes.int("axis", 1) != 1 {
            return Err(self.fault("it flattens from another axis than 1, which would mix examples"));
        }
        let width = self.shape(x).iter().product();
        Ok(self.reshaped(x, vec![width]))
    }

    pub(super) fn reshape(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Operand, OnnxFault> {
        let x = self.value(node, 0)?;
        let target = self.given(node, 1)?.ok_or_else(|| self.fault("its target is not given"))?;
        let target = target.as_ints().ok_or_else(|| self.fault("its target is not a vector of integers"))?;
        let full: Vec<usize> = std::iter::once(self.batch).chain(self.shape(x).iter().copied()).collect();
        let resolved = resolve(target, &full, attributes.int("allowzero", 0) != 0).map_err(|reason| self.fault(reason))?;
        match resolved.split_first() {
            Some((&batch, rest)) if batch == self.batch && !rest.is_empty() && rest.len() <= MAX_AXES => {
                Ok(self.reshaped(x, rest.to_vec()))
            }
            _ => Err(self.fault("its result does not keep the batch as the first axis")),
        }
    }

    pub(super) fn squeeze(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Operand, OnnxFault> {
        let x = self.value(node, 0)?;
        // Since version 13 the axes are an input.
        let input = self.given(node, 1)?;
        let axes = input.as_ref().map_or(attributes.ints("axes"), |axes| axes.as_ints());
        if node.op_type == "Squeeze" && axes.is_none_or(<[i64]>::is_empty) {
            return Err(self.fault("it names no axes, so that a batch of one example loses its axis"));
        }
        // The batch stands for itself: a length that no axis of length 1 can be confused with.
        let full: Vec<usize> = std::iter::once(0).chain(self.shape(x).iter().copied()).collect();
        let shape = if node.op_type == "Squeeze" { squeezed(&full, axes) } else { unsqueezed(&full, axes.unwrap_or_default()) };
        match shape.map_err(|reason| self.fault(reason))?.split_first() {
            Some((0, rest)) if !rest.is_empty() && rest.len() <= MAX_AXES => Ok(self.reshaped(x, rest.to_vec())),
            _ => Err(self.fault("its result does not keep the batch as the first axis")),
        }
    }

    pub(super) fn transpose(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Result<Operand, OnnxFault> {
        let x = self.value(node, 0)?;
        let axes = self.permutation(attributes, self.shape(x).len() + 1)?;
        let [0, rest @ ..] = axes.as_slice() else {
            return Err(self.fault("its result does not keep the batch as the first axis"));
        };
        let rest: Vec<usize> = rest.iter().map(|axis| axis - 1).collect();
        if !is_order_kept(self.shape(x), &rest) {
            return Err(self.fault("it changes the order of a layer's values, for which there is no layer"));
        }
        let shape = rest.iter().map(|&axis| self.shape(x)[axis]).collect();
        Ok(self.reshaped(x, shape))
    }
}
