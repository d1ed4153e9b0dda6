//! Arithmetic, and how it grows into layers.
//!
//! Each rule looks at the layers of a node's inputs. The forms of layer norm that are met: `(u − μ)/σ`, `(u − μ)·(1/σ)`,
//! `u·s + (β − μ·s)` and `u·s − μ·s + β` with `s = γ/σ`; gain before or after the division; the variance as
//! `mean (u − μ)²` or `mean u² − μ²`.

use super::layer::Spread;
use super::{Attributes, Id, Inference, Layer, Operand, Piece};
use crate::onnx::OnnxFault;
use crate::onnx::constant::Constant;
use crate::onnx::proto::NodeProto;
use std::f32::consts::FRAC_1_SQRT_2;
use std::sync::Arc;
use weft_core::Activation;

type Read = Result<Operand, OnnxFault>;

impl<'a> Inference<'a> {
    /// A constant as a vector along axis `axis` of values of this shape, if it broadcasts to one.
    ///
    /// One number stands for as many as the axis is long.
    pub(super) fn along(&mut self, constant: &Constant, shape: &[usize], axis: usize) -> Result<Option<Constant>, OnnxFault> {
        let len = shape[axis];
        let from_right = shape.len() - 1 - axis;
        let fits = constant.shape.len() <= shape.len() + 1
            && constant.shape.iter().rev().enumerate().all(|(i, &size)| size == 1 || (i == from_right && size == len));
        if !fits || constant.values.len() != len {
            let one = fits && constant.values.len() == 1;
            if !one {
                return Ok(None);
            }
            self.charge(len)?;
        }
        Ok(constant.vector(len))
    }

    /// A constant as a vector along the last axis of value `x`, written out value by value.
    fn vector(&mut self, constant: &Constant, x: Id) -> Result<Option<Constant>, OnnxFault> {
        let shape = self.shape(x).to_vec();
        if constant.values.len() == self.width(x) { self.along(constant, &shape, shape.len() - 1) } else { Ok(None) }
    }

    /// A constant as one number, for values of any shape of at most its axes.
    fn scalar(&self, constant: &Constant, x: Id) -> Option<f32> {
        constant.scalar().filter(|_| constant.shape.len() <= self.shape(x).len() + 1)
    }

    fn unknown(&mut self, x: Id, reason: &'static str) -> Operand {
        let shape = self.shape(x).to_vec();
        Operand::Value(self.piece(Piece::Unknown(reason), shape))
    }

    fn as_piece(&self, id: Id) -> Option<&Piece> {
        if let Layer::Piece(piece) = self.layer(id) { Some(piece) } else { None }
    }

    /// A layer with the shape of value `x`.
    fn like(&mut self, x: Id, layer: Layer) -> Operand {
        let shape = self.shape(x).to_vec();
        Operand::Value(self.push(layer, shape))
    }

    /// Whether two values are the same, also where an exporter computes one twice.
    fn same(&self, a: Id, b: Id) -> bool {
        let centered = |id| if let Some(&Piece::Centered(u)) = self.as_piece(id) { Some(u) } else { None };
        a == b || centered(a).is_some_and(|u| centered(b) == Some(u))
    }

    fn norm(&mut self, spread: Spread, gain: Option<Constant>, bias: Option<Constant>) -> Operand {
        let Spread { x, epsilon, .. } = spread;
        self.like(x, Layer::Norm { x, gain, bias, epsilon })
    }

    pub(super) fn add(&mut self, node: &'a NodeProto) -> Read {
        match (self.operand(node, 0)?, self.operand(node, 1)?) {
            (Operand::Value(x), Operand::Constant(c)) | (Operand::Constant(c), Operand::Value(x)) => self.add_constant(x, &c),
            (Operand::Value(x), Operand::Value(y)) => Ok(self.add_values(x, y)),
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.fault("it adds constants that are not read together")),
        }
    }

    pub(super) fn add_constant(&mut self, x: Id, c: &Constant) -> Read {
        let scalar = self.scalar(c, x);
        let layer = self.layer(x).clone();
        let shape = self.shape(x).to_vec();
        let last = shape.len() - 1;
        match (layer, scalar) {
            (Layer::Linear { x: input, weight, bias }, _) => {
                if let Some(bias) = self.sum(bias, c, &shape, last)? {
                    return Ok(self.like(x, Layer::Linear { x: input, weight, bias: Some(bias) }));
                }
            }
            (Layer::Conv { x: input, weight, bias, stride, padding, groups }, _) => {
                if let Some(bias) = self.sum(bias, c, &shape, 0)? {
                    return Ok(self.like(x, Layer::Conv { x: input, weight, bias: Some(bias), stride, padding, groups }));
                }
            }
            (Layer::Norm { x: input, gain, bias, epsilon }, _) => {
                if let Some(bias) = self.sum(bias, c, &shape, last)? {
                    return Ok(self.like(x, Layer::Norm { x: input, gain, bias: Some(bias), epsilon }));
                }
            }
            (Layer::Piece(Piece::Variance { x: u, centered }), Some(epsilon)) => {
                return Ok(self.like(x, Layer::Piece(Piece::Shifted(Spread { x: u, centered, epsilon }))));
            }
            (Layer::Piece(Piece::Erf(u)), Some(1.0)) => return Ok(self.like(x, Layer::Piece(Piece::OnePlusErf(u)))),
            // Last, so that a bias of one 0 is a bias: the architecture does not depend on values of weights.
            (_, Some(0.0)) => return Ok(Operand::Value(x)),
            _ => {}
        }
        Ok(self.unknown(x, "it adds a constant where no layer has one"))
    }

    /// A bias with a constant added.
    fn sum(&mut self, bias: Option<Constant>, c: &Constant, shape: &[usize], axis: usize) -> Result<Option<Constant>, OnnxFault> {
        let Some(term) = self.along(c, shape, axis)? else { return Ok(None) };
        let Some(bias) = bias else { return Ok(Some(term)) };
        self.charge(shape[axis])?;
        Ok(term.floats().and_then(|term| bias.shifted(term)))
    }

    fn add_values(&mut self, x: Id, y: Id) -> Operand {
        for (x, y) in [(x, y), (y, x)] {
            match (self.as_piece(x), self.as_piece(y)) {
                (Some(Piece::Rescaled(s, g)), Some(Piece::Offset { spread, gain, bias })) if s == spread && g == gain => {
                    let (spread, gain, bias) = (*spread, gain.clone(), Some(bias.clone()));
                    return self.norm(spread, gain, bias);
                }
                _ => {}
            }
        }
        if self.shape(x) == self.shape(y) {
            return self.like(x, Layer::Add(x, y));
        }
        self.unknown(x, "it adds values of different shapes")
    }

    pub(super) fn subtract(&mut self, node: &'a NodeProto) -> Read {
        match (self.operand(node, 0)?, self.operand(node, 1)?) {
            (Operand::Value(x), Operand::Constant(c)) => {
                self.charge(c.values.len())?;
                let negative = c.negated().ok_or_else(|| self.fault("it subtracts integers"))?;
                self.add_constant(x, &negative)
            }
            (Operand::Constant(c), Operand::Value(y)) => {
                if let Some(Piece::MeanRescaled(spread, gain)) = self.as_piece(y) {
                    let (spread, gain) = (*spread, gain.clone());
                    let shape = self.shape(spread.x).to_vec();
                    if let Some(bias) = self.along(&c, &shape, shape.len() - 1)? {
                        return Ok(Operand::Value(self.piece(Piece::Offset { spread, gain, bias }, shape)));
                    }
                }
                Ok(self.unknown(y, "it subtracts a layer's values from a constant"))
            }
            (Operand::Value(x), Operand::Value(y)) => Ok(self.subtract_values(x, y)),
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.fault("it subtracts constants that are not read together")),
        }
    }

    fn subtract_values(&mut self, x: Id, y: Id) -> Operand {
        match (self.as_piece(x), self.as_piece(y)) {
            (_, Some(&Piece::Mean(u))) if u == x => return self.like(x, Layer::Piece(Piece::Centered(u))),
            (Some(&Piece::Variance { x: u, centered: false }), Some(&Piece::Square(mean))) => {
                if matches!(self.as_piece(mean), Some(&Piece::Mean(v)) if v == u) {
                    return self.like(x, Layer::Piece(Piece::Variance { x: u, centered: true }));
                }
            }
            (Some(Piece::Rescaled(s, g)), Some(Piece::MeanRescaled(spread, gain))) if s == spread && g == gain => {
                let (spread, gain) = (*spread, gain.clone());
                return self.norm(spread, gain, None);
            }
            _ => {}
        }
        self.unknown(x, "it subtracts values of layers")
    }

    pub(super) fn multiply(&mut self, node: &'a NodeProto) -> Read {
        match (self.operand(node, 0)?, self.operand(node, 1)?) {
            (Operand::Value(x), Operand::Constant(c)) | (Operand::Constant(c), Operand::Value(x)) => self.multiply_constant(x, &c),
            (Operand::Value(x), Operand::Value(y)) => Ok(self.multiply_values(x, y)),
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.fault("it multiplies constants that are not read together")),
        }
    }

    fn multiply_constant(&mut self, x: Id, c: &Constant) -> Read {
        let scalar = self.scalar(c, x);
        let layer = self.layer(x).clone();
        match layer {
            Layer::Piece(Piece::Inverse(spread, None)) => {
                if let Some(gain) = self.vector(c, spread.x)? {
                    // Its shape becomes that of the layer's input, to which it is broadcast.
                    return Ok(self.like(spread.x, Layer::Piece(Piece::Inverse(spread, Some(gain)))));
                }
            }
            Layer::Piece(Piece::Rescaled(spread, None)) => {
                if let Some(gain) = self.vector(c, spread.x)? {
                    return Ok(self.like(x, Layer::Piece(Piece::Rescaled(spread, Some(gain)))));
                }
            }
            Layer::Piece(Piece::MeanRescaled(spread, None)) => {
                if let Some(gain) = self.vector(c, spread.x)? {
                    return Ok(self.like(spread.x, Layer::Piece(Piece::MeanRescaled(spread, Some(gain)))));
                }
            }
            Layer::Piece(Piece::Centered(_)) => {
                if let Some(gain) = self.vector(c, x)? {
                    return Ok(self.like(x, Layer::Piece(Piece::ScaledBy(x, gain))));
                }
            }
            Layer::Norm { x: input, gain: None, bias: None, epsilon } => {
                if let Some(gain) = self.vector(c, x)? {
                    return Ok(self.like(x, Layer::Norm { x: input, gain: Some(gain), bias: None, epsilon }));
                }
            }
            Layer::RmsNorm { x: input, gain: None, epsilon } => {
                if let Some(gain) = self.vector(c, x)? {
                    return Ok(self.like(x, Layer::RmsNorm { x: input, gain: Some(gain), epsilon }));
                }
            }
            Layer::Piece(Piece::OnePlusErf(u)) if scalar == Some(0.5) => return Ok(self.like(x, Layer::Piece(Piece::Phi(u)))),
            _ => {}
        }
        match scalar {
            Some(factor) => Ok(self.scaled(x, factor)),
            None => Ok(self.unknown(x, "it multiplies by a constant where no layer does")),
        }
    }

    /// Multiplies by one number; two such factors in a row are one.
    fn scaled(&mut self, x: Id, factor: f32) -> Operand {
        let (source, factor) =
            if let Layer::Scale(source, before) = *self.layer(x) { (source, before * factor) } else { (x, factor) };
        match factor {
            1.0 => Operand::Value(source),
            f if f.is_finite() && f != 0.0 => self.like(x, Layer::Scale(source, f)),
            _ => self.unknown(x, "it multiplies by a constant that is 0 or not finite"),
        }
    }

    fn multiply_values(&mut self, x: Id, y: Id) -> Operand {
        if self.same(x, y) {
            return self.like(x, Layer::Piece(Piece::Square(x)));
        }
        for (x, y) in [(x, y), (y, x)] {
            match self.as_piece(y) {
                Some(Piece::Inverse(spread, gain)) => {
                    let (spread, gain) = (*spread, gain.clone());
                    if let Some(done) = self.times_inverse(x, spread, gain) {
                        return done;
                    }
                }
                Some(&Piece::OnePlusErf(u)) => {
                    if let Some(factor) = self.factor_over(x, u) {
                        let Operand::Value(gelu) = self.like(u, Layer::Activation(u, Activation::Gelu)) else { continue };
                        return self.scaled(gelu, 2.0 * factor);
                    }
                }
                Some(&Piece::Phi(u)) => {
                    if let Some(factor) = self.factor_over(x, u) {
                        let Operand::Value(gelu) = self.like(u, Layer::Activation(u, Activation::Gelu)) else { continue };
                        return self.scaled(gelu, factor);
                    }
                }
                _ => {}
            }
            if matches!(*self.layer(y), Layer::Activation(u, Activation::Sigmoid) if u == x) {
                return self.like(x, Layer::Activation(x, Activation::Silu));
            }
        }
        if self.shape(x) == self.shape(y) {
            return self.like(x, Layer::Mul(x, y));
        }
        self.unknown(x, "it multiplies values of different shapes")
    }

    /// `f` where value `x` is `f·u`.
    fn factor_over(&self, x: Id, u: Id) -> Option<f32> {
        match *self.layer(x) {
            _ if x == u => Some(1.0),
            Layer::Scale(v, factor) if v == u => Some(factor),
            _ => None,
        }
    }

    /// `x·γ/σ` for the forms of `x` that belong to a norm.
    fn times_inverse(&mut self, x: Id, spread: Spread, gain: Option<Constant>) -> Option<Operand> {
        let u = spread.x;
        if !spread.centered {
            let epsilon = spread.epsilon;
            return (x == u).then(|| self.like(x, Layer::RmsNorm { x: u, gain, epsilon }));
        }
        match (self.as_piece(x), gain) {
            (Some(&Piece::Centered(v)), gain) if v == u => Some(self.norm(spread, gain, None)),
            (Some(Piece::ScaledBy(centered, before)), None) if matches!(self.as_piece(*centered), Some(&Piece::Centered(v)) if v == u) =>
            {
                let before = before.clone();
                Some(self.norm(spread, Some(before), None))
            }
            (Some(&Piece::Mean(v)), gain) if v == u => {
                let of = if gain.is_some() { u } else { x };
                Some(self.like(of, Layer::Piece(Piece::MeanRescaled(spread, gain))))
            }
            (_, gain) if x == u => Some(self.like(x, Layer::Piece(Piece::Rescaled(spread, gain)))),
            _ => None,
        }
    }

    pub(super) fn divide(&mut self, node: &'a NodeProto) -> Read {
        match (self.operand(node, 0)?, self.operand(node, 1)?) {
            (Operand::Value(x), Operand::Constant(c)) => {
                self.charge(c.values.len())?;
                let values = c.floats().ok_or_else(|| self.fault("it divides by integers"))?;
                let inverse: Arc<[f32]> = values.iter().map(|v| v.recip()).collect();
                let inverse =
                    Constant { shape: c.shape.clone(), values: crate::onnx::tensor::Values::Float(inverse), origin: None };
                self.multiply_constant(x, &inverse)
            }
            (Operand::Constant(c), Operand::Value(y)) if self.scalar(&c, y) == Some(1.0) => Ok(self.inverse(y)),
            (Operand::Constant(_), Operand::Value(y)) => Ok(self.unknown(y, "it divides a constant by a layer's values")),
            (Operand::Value(x), Operand::Value(y)) => {
                let spread = if let Some(&Piece::Root(spread)) = self.as_piece(y) { Some(spread) } else { None };
                let done = spread.and_then(|spread| self.times_inverse(x, spread, None));
                Ok(done.unwrap_or_else(|| self.unknown(x, "it divides values of layers")))
            }
            (Operand::Constant(_), Operand::Constant(_)) => Err(self.fault("it divides constants that are not read together")),
        }
    }

    fn inverse(&mut self, x: Id) -> Operand {
        match self.as_piece(x) {
            Some(&Piece::Root(spread)) => self.like(x, Layer::Piece(Piece::Inverse(spread, None))),
            _ => self.unknown(x, "it inverts a layer's values"),
        }
    }

    pub(super) fn reciprocal(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        Ok(self.inverse(x))
    }

    fn square_root(&mut self, x: Id) -> Operand {
        match self.as_piece(x) {
            Some(&Piece::Shifted(spread)) => self.like(x, Layer::Piece(Piece::Root(spread))),
            _ => self.unknown(x, "it takes the root of a layer's values"),
        }
    }

    pub(super) fn root(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        Ok(self.square_root(x))
    }

    pub(super) fn power(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        let exponent = self.given(node, 1)?.and_then(|exponent| self.scalar(&exponent, x));
        match exponent {
            Some(1.0) => Ok(Operand::Value(x)),
            Some(2.0) => Ok(self.like(x, Layer::Piece(Piece::Square(x)))),
            Some(0.5) => Ok(self.square_root(x)),
            Some(-0.5) => match self.square_root(x) {
                Operand::Value(root) => Ok(self.inverse(root)),
                constant @ Operand::Constant(_) => Ok(constant),
            },
            _ => Ok(self.unknown(x, "it raises a layer's values to a power")),
        }
    }

    pub(super) fn negate(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        Ok(self.scaled(x, -1.0))
    }

    pub(super) fn erf(&mut self, node: &'a NodeProto) -> Read {
        let x = self.value(node, 0)?;
        match *self.layer(x) {
            Layer::Scale(u, factor) if (factor - FRAC_1_SQRT_2).abs() < 1e-6 => Ok(self.like(x, Layer::Piece(Piece::Erf(u)))),
            _ => Ok(self.unknown(x, "it takes the error function of something else than `x/√2`")),
        }
    }

    pub(super) fn reduce_mean(&mut self, node: &'a NodeProto, attributes: Attributes<'a>) -> Read {
        let x = self.value(node, 0)?;
        // Since version 18 the axes are an input.
        let input = self.given(node, 1)?;
        let axes = input.as_ref().map_or(attributes.ints("axes"), |axes| axes.as_ints()).unwrap_or_default();
        let shape = self.shape(x).to_vec();
        let from_front = |&axis: &i64| if axis < 0 { axis.saturating_add(shape.len() as i64 + 1) } else { axis };
        let mut axes: Vec<i64> = axes.iter().map(from_front).collect();
        axes.sort_unstable();
        let keep = attributes.int("keepdims", 1) != 0;
        match (axes.as_slice(), shape.as_slice()) {
            ([2, 3], &[channels, _, _]) => {
                Ok(self.global_mean(x, channels, if keep { vec![channels, 1, 1] } else { vec![channels] }))
            }
            ([1], &[_, width]) => Ok(self.global_mean(x, width, if keep { vec![1, width] } else { vec![width] })),
            ([axis], _) if keep && *axis == shape.len() as i64 => Ok(self.mean(x)),
            _ => Err(self.fault("it averages over axes for which there is no layer")),
        }
    }

    /// The mean along the last axis: a piece of a norm.
    fn mean(&mut self, x: Id) -> Operand {
        let piece = match self.as_piece(x) {
            Some(&Piece::Square(y)) => match self.as_piece(y) {
                Some(&Piece::Centered(u)) => Piece::Variance { x: u, centered: true },
                _ => Piece::Variance { x: y, centered: false },
            },
            _ => Piece::Mean(x),
        };
        let mut shape = self.shape(x).to_vec();
        if let Some(last) = shape.last_mut() {
            *last = 1;
        }
        Operand::Value(self.piece(piece, shape))
    }
}
