//! The closed set of operations of a graph.
//!
//! Shape legend, without the batch axis: `[f]` a vector, `[t, d]` a sequence of tokens, `[c, h, w]` an image.

use super::TensorId;
use crate::{Error, Result};

/// An elementwise nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `max(x, 0)`: commutes with positive scaling.
    Relu,
    /// `tanh(x)`: odd, so it commutes with a change of sign.
    Tanh,
    /// `x·Φ(x)` with the exact normal distribution function (Hendrycks & Gimpel 2016).
    Gelu,
    /// The same with `Φ(x) ≈ ½(1 + tanh(√(2/π)(x + 0.044715x³)))` (Hendrycks & Gimpel 2016, Section 2), as GPT-2 has it.
    GeluTanh,
    /// `x·σ(x)` (Elfwing et al. 2017).
    Silu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Relu, Self::Tanh, Self::Gelu, Self::GeluTanh, Self::Silu, Self::Sigmoid];

    /// The activation's name in files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Relu => "relu",
            Self::Tanh => "tanh",
            Self::Gelu => "gelu",
            Self::GeluTanh => "gelu-tanh",
            Self::Silu => "silu",
            Self::Sigmoid => "sigmoid",
        }
    }
}

impl std::str::FromStr for Activation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = "relu, tanh, gelu, gelu-tanh, silu, sigmoid";
        let found = Self::ALL.into_iter().find(|a| a.name() == text);
        found.ok_or_else(|| Error::Word { what: "activation", got: text.to_owned(), known })
    }
}

/// Which coordinates of a head are rotated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RopePairs {
    /// Coordinates `2i` and `2i + 1` (Su et al. 2021).
    Interleaved,
    /// Coordinates `i` and `i + d/2`, as the Hugging Face libraries have it.
    Halves,
}

/// A rotary position embedding: pair `i` of a head at position `p` is turned by `p·theta^(−2i/d)` (Su et al. 2021).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rope {
    /// The base of the angles; 10,000 as a rule.
    pub theta: f64,
    /// Which coordinates form a pair.
    pub pairs: RopePairs,
}

/// Height and width of a window, its step and the padding on each side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Height and width.
    pub size: [usize; 2],
    /// Step down and across.
    pub stride: [usize; 2],
    /// Rows above and below, columns left and right. Padding of a convolution is 0; pools do not see it.
    pub padding: [usize; 2],
}

impl Window {
    /// A square window.
    #[must_use]
    pub fn square(size: usize, stride: usize, padding: usize) -> Self {
        Self { size: [size; 2], stride: [stride; 2], padding: [padding; 2] }
    }
}

/// What a node computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// The network's input: numbers of the given shape, `[f]`, `[t, d]` or `[c, h, w]`.
    Input {
        /// Shape of one example.
        shape: Vec<usize>,
    },
    /// The network's input: up to `length` token ids below `vocabulary`, `[t]`.
    InputIds {
        /// The most tokens an example may have.
        length: usize,
        /// The number of different ids.
        vocabulary: usize,
    },
    /// `y = x·Wᵀ + b` along the last axis.
    Linear {
        /// The weight, `[out, in]`.
        weight: TensorId,
        /// The bias, `[out]`.
        bias: Option<TensorId>,
    },
    /// A two-dimensional cross-correlation with zero padding, `[c, h, w] → [o, h', w']`.
    Conv2d {
        /// The weight, `[o, c / groups, kh, kw]`.
        weight: TensorId,
        /// The bias, `[o]`.
        bias: Option<TensorId>,
        /// Step down and across.
        stride: [usize; 2],
        /// Rows and columns of zeros on each side.
        padding: [usize; 2],
        /// Groups of channels that do not see each other.
        groups: usize,
    },
    /// Fixed 3×3 kernels applied to every channel on a torus, `[c, h, w] → [k·c, h, w]`, kernel by kernel.
    Perception {
        /// The kernels, each row-major.
        kernels: Vec<[f32; 9]>,
    },
    /// Rows of a table by token id, `[t] → [t, d]`.
    Embedding {
        /// The table, `[vocabulary, d]`.
        weight: TensorId,
    },
    /// Adds a learned vector a position, `[t, d] → [t, d]`.
    Position {
        /// The vectors, `[positions, d]`, at least as many as there are tokens.
        weight: TensorId,
    },
    /// Adds one row of a table to every token, `[t, d] → [t, d]`: a segment embedding with a fixed segment.
    Segment {
        /// The table, `[segments, d]`.
        weight: TensorId,
        /// The row that is added.
        row: usize,
    },
    /// Puts a learned token before the others, `[t, d] → [t + 1, d]`.
    ClassToken {
        /// The token, `[d]`.
        weight: TensorId,
    },
    /// `γ·(x − μ)/√(σ² + ε) + β` a channel, with stored statistics (Ioffe & Szegedy 2015), of `[c, h, w]` or `[c]`.
    BatchNorm {
        /// `γ`, `[c]`.
        gain: TensorId,
        /// `β`, `[c]`.
        bias: TensorId,
        /// `μ`, `[c]`: a statistic of the training data, not trained.
        mean: TensorId,
        /// `σ²`, `[c]`: likewise.
        variance: TensorId,
        /// `ε`.
        epsilon: f64,
    },
    /// `γ·(x − mean x)/√(var x + ε) + β` along the last axis (Ba et al. 2016).
    LayerNorm {
        /// `γ`, `[d]`.
        gain: Option<TensorId>,
        /// `β`, `[d]`.
        bias: Option<TensorId>,
        /// `ε`.
        epsilon: f64,
    },
    /// `γ·x/√(mean x² + ε)` along the last axis (Zhang & Sennrich 2019).
    RmsNorm {
        /// `γ`, `[d]`.
        gain: Option<TensorId>,
        /// `ε`.
        epsilon: f64,
    },
    /// Scaled dot-product attention of queries `[t, heads·d]`, keys and values `[t, kv_heads·d]` (Vaswani et al. 2017; grouped:
    /// Ainslie et al. 2023). Query head `i` reads key head `i / (heads / kv_heads)`.
    Attention {
        /// Query heads.
        heads: usize,
        /// Key and value heads; a divisor of `heads`.
        kv_heads: usize,
        /// Whether a token sees itself and earlier ones alone.
        causal: bool,
        /// Rotation of queries and keys by position.
        rope: Option<Rope>,
    },
    /// An elementwise nonlinearity.
    Activation(Activation),
    /// `min(max(x, min), max)`.
    Clip {
        /// The smallest value.
        min: f64,
        /// The largest value.
        max: f64,
    },
    /// Multiplication by a fixed number.
    Scale {
        /// The number.
        factor: f64,
    },
    /// The sum of two nodes of one shape.
    Add,
    /// The elementwise product of two nodes of one shape.
    Mul,
    /// The largest value of each window, `[c, h, w] → [c, h', w']`.
    MaxPool(Window),
    /// The mean of each window over the positions that exist, `[c, h, w] → [c, h', w']`.
    AvgPool(Window),
    /// The mean over all positions, `[c, h, w] → [c]`, or all tokens, `[t, d] → [d]`.
    GlobalAvgPool,
    /// All axes as one, the last running fastest, `[c, h, w] → [c·h·w]`.
    Flatten,
    /// Positions as tokens, `[c, h, w] → [h·w, c]`.
    Patches,
    /// One token, `[t, d] → [d]`.
    Token {
        /// Its position.
        index: usize,
    },
    /// A stretch of the last axis.
    Slice {
        /// Where it starts.
        start: usize,
        /// How long it is.
        len: usize,
    },
    /// Two or more nodes one after the other along the last axis.
    Concat,
}

impl Op {
    /// The op's name in files and messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::InputIds { .. } => "input-ids",
            Self::Linear { .. } => "linear",
            Self::Conv2d { .. } => "conv2d",
            Self::Perception { .. } => "perception",
            Self::Embedding { .. } => "embedding",
            Self::Position { .. } => "position",
            Self::Segment { .. } => "segment",
            Self::ClassToken { .. } => "class-token",
            Self::BatchNorm { .. } => "batch-norm",
            Self::LayerNorm { .. } => "layer-norm",
            Self::RmsNorm { .. } => "rms-norm",
            Self::Attention { .. } => "attention",
            Self::Activation(activation) => activation.name(),
            Self::Clip { .. } => "clip",
            Self::Scale { .. } => "scale",
            Self::Add => "add",
            Self::Mul => "mul",
            Self::MaxPool(_) => "max-pool",
            Self::AvgPool(_) => "avg-pool",
            Self::GlobalAvgPool => "global-avg-pool",
            Self::Flatten => "flatten",
            Self::Patches => "patches",
            Self::Token { .. } => "token",
            Self::Slice { .. } => "slice",
            Self::Concat => "concat",
        }
    }

    /// The tensors that the op uses, with the number of axes that each must have.
    #[must_use]
    pub fn tensors(&self) -> Vec<(TensorId, usize)> {
        let list = |tensors: &[(Option<TensorId>, usize)]| tensors.iter().filter_map(|&(t, axes)| Some((t?, axes))).collect();
        match *self {
            Self::Linear { weight, bias } => list(&[(Some(weight), 2), (bias, 1)]),
            Self::Conv2d { weight, bias, .. } => list(&[(Some(weight), 4), (bias, 1)]),
            Self::Embedding { weight } | Self::Position { weight } | Self::Segment { weight, .. } => list(&[(Some(weight), 2)]),
            Self::ClassToken { weight } => list(&[(Some(weight), 1)]),
            Self::BatchNorm { gain, bias, mean, variance, .. } => {
                list(&[(Some(gain), 1), (Some(bias), 1), (Some(mean), 1), (Some(variance), 1)])
            }
            Self::LayerNorm { gain, bias, .. } => list(&[(gain, 1), (bias, 1)]),
            Self::RmsNorm { gain, .. } => list(&[(gain, 1)]),
            _ => Vec::new(),
        }
    }

    /// The number of nodes that the op reads: exactly, or at least for `Concat`.
    #[must_use]
    pub fn arity(&self) -> usize {
        match self {
            Self::Input { .. } | Self::InputIds { .. } => 0,
            Self::Add | Self::Mul | Self::Concat => 2,
            Self::Attention { .. } => 3,
            _ => 1,
        }
    }
}
