//! The layers that a graph is made of, and the pieces that may become one.

use crate::onnx::constant::Constant;
use crate::onnx::proto::NodeProto;
use weft_core::{Activation, Window};

/// Index of a value; a value's inputs have smaller ones.
pub(in crate::onnx) type Id = usize;

/// What a value is the result of, and its shape without the batch axis.
#[derive(Debug, Clone)]
pub(in crate::onnx) struct Value<'a> {
    pub(in crate::onnx) layer: Layer,
    pub(in crate::onnx) shape: Vec<usize>,
    /// The node that made it; none made the input.
    pub(in crate::onnx) node: Option<&'a NodeProto>,
}

/// What follows the logits at the end of a classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Head {
    /// `1 / (1 + e⁻ˣ)` of every logit.
    Sigmoid,
    /// `eˣ / Σeˣ` along the last axis.
    Softmax,
    /// `x − log Σeˣ` along the last axis.
    LogSoftmax,
}

/// A layer of the canonical form; constants are in the architecture's orientation.
#[derive(Debug, Clone)]
pub(in crate::onnx) enum Layer {
    Input,
    /// `weight` is `[out, in]`.
    Linear {
        x: Id,
        weight: Constant,
        bias: Option<Constant>,
    },
    Conv {
        x: Id,
        weight: Constant,
        bias: Option<Constant>,
        stride: [usize; 2],
        padding: [usize; 2],
        groups: usize,
    },
    /// Gain, bias, mean, variance.
    BatchNorm {
        x: Id,
        parts: Box<[Constant; 4]>,
        epsilon: f32,
    },
    /// A layer norm, along the last axis.
    Norm {
        x: Id,
        gain: Option<Constant>,
        bias: Option<Constant>,
        epsilon: f32,
    },
    /// Likewise, without centering.
    RmsNorm {
        x: Id,
        gain: Option<Constant>,
        epsilon: f32,
    },
    Activation(Id, Activation),
    /// Softmax or its logarithm; `Sigmoid` is an activation until it turns out to stand at the end.
    Head(Id, Head),
    Clip(Id, [f32; 2]),
    Scale(Id, f32),
    /// The same values in the same order under another shape.
    Reshape(Id),
    MaxPool(Id, Window),
    AvgPool(Id, Window),
    GlobalAvgPool(Id),
    Add(Id, Id),
    Mul(Id, Id),
    Piece(Piece),
}

/// What a normalization divides by: `√(mean(x − mean x)² + ε)`, or without centering for an RMS norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::onnx) struct Spread {
    pub(in crate::onnx) x: Id,
    pub(in crate::onnx) centered: bool,
    pub(in crate::onnx) epsilon: f32,
}

/// A part of a layer that is spelled out as several nodes. `u` is the layer's input.
#[derive(Debug, Clone)]
pub(in crate::onnx) enum Piece {
    /// `mean u` along the last axis.
    Mean(Id),
    /// `u − mean u`.
    Centered(Id),
    /// `x²`.
    Square(Id),
    /// The mean of squares of `u`, or of `u − mean u`.
    Variance { x: Id, centered: bool },
    /// `variance + ε`.
    Shifted(Spread),
    /// `√(variance + ε)`.
    Root(Spread),
    /// `γ/√(variance + ε)`.
    Inverse(Spread, Option<Constant>),
    /// `u·γ/√(variance + ε)`, not centered although the variance is.
    Rescaled(Spread, Option<Constant>),
    /// `mean u · γ/√(variance + ε)`.
    MeanRescaled(Spread, Option<Constant>),
    /// `β − mean u · γ/√(variance + ε)`.
    Offset { spread: Spread, gain: Option<Constant>, bias: Constant },
    /// `x·c`, value by value along the last axis.
    ScaledBy(Id, Constant),
    /// `erf(u/√2)`.
    Erf(Id),
    /// `1 + erf(u/√2)`.
    OnePlusErf(Id),
    /// `Φ(u) = ½(1 + erf(u/√2))`.
    Phi(Id),
    /// Nothing that completes a layer, and why.
    Unknown(&'static str),
}

impl Layer {
    /// The values that it reads; for a piece, those of the layer that it should have become part of.
    pub(in crate::onnx) fn inputs(&self) -> Vec<Id> {
        match self {
            Self::Input | Self::Piece(_) => Vec::new(),
            Self::Linear { x, .. }
            | Self::Conv { x, .. }
            | Self::BatchNorm { x, .. }
            | Self::Norm { x, .. }
            | Self::RmsNorm { x, .. }
            | Self::Activation(x, _)
            | Self::Head(x, _)
            | Self::Clip(x, _)
            | Self::Scale(x, _)
            | Self::Reshape(x)
            | Self::MaxPool(x, _)
            | Self::AvgPool(x, _)
            | Self::GlobalAvgPool(x) => vec![*x],
            Self::Add(a, b) | Self::Mul(a, b) => vec![*a, *b],
        }
    }
}
