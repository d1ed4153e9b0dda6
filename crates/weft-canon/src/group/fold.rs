//! Additive symmetries: constants that one bias hands to another, directions that layer norm does not see, and the
//! statistics of batch norm.

use super::shift;
use std::ops::Range;
use weft_core::{Architecture, Op, TensorId};

/// What happens to a constant on its way through the graph.
#[derive(Debug, Clone, PartialEq)]
pub enum Hop {
    /// It is multiplied by a linear map, `u → W·u`.
    Linear(TensorId),
    /// It is multiplied by a convolution without padding: `W` summed over the kernel.
    Conv(TensorId),
    /// It is multiplied by a fixed number.
    Factor(f64),
    /// Each entry stands for several: channels that are flattened.
    Repeat(usize),
    /// Each key head's part stands for so many query heads of so many coordinates.
    Heads(usize, usize),
}

/// Where a constant ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Sink {
    /// It is subtracted from a bias.
    Bias(TensorId),
    /// It is subtracted from the given rows of a table.
    Rows(TensorId, Range<usize>),
    /// It is added to the mean of a batch norm.
    Mean(TensorId),
}

/// One way that a constant takes.
#[derive(Debug, Clone, PartialEq)]
pub struct Absorber {
    /// What happens to it.
    pub hops: Vec<Hop>,
    /// Where it ends.
    pub sink: Sink,
}

/// One additive symmetry, and the form that fixes it.
#[derive(Debug, Clone, PartialEq)]
pub enum Fold {
    /// A constant `u` is added to a bias or to all rows of a table, and taken away where it arrives. Fixed by a bias (or mean row) of 0.
    Shift {
        /// The bias, or the table.
        emitter: TensorId,
        /// Where the constant goes; nowhere, if nothing sees it (a key's bias).
        absorbers: Vec<Absorber>,
        /// Whether a multiple of `(1, …, 1)` is a [`Fold::Center`] already.
        overlaps: bool,
    },
    /// The same number is added to all units, which layer norm does not see. Fixed by a mean of 0 over units.
    Center {
        /// The tensor.
        tensor: TensorId,
        /// Its axis of units.
        axis: usize,
    },
    /// A linear map that reads a layer norm is changed along `1/γ`: the norm's output less its bias has no part there. Fixed by no
    /// part of the weights there.
    Unread {
        /// The linear map.
        weight: TensorId,
        /// Its bias, which absorbs what the norm's bias makes of the change.
        bias: Option<TensorId>,
        /// The norm's `γ`.
        gain: Option<TensorId>,
        /// The norm's `β`.
        norm_bias: Option<TensorId>,
    },
    /// The same for maps without a bias behind a norm with one: they and `β` are changed by `1 + (γ·e)(1/γ)ᵀ` and its inverse. Fixed by
    /// `β = γ`: the bias becomes a constant input.
    Constant {
        /// The linear maps.
        readers: Vec<TensorId>,
        /// The norm's `γ`.
        gain: Option<TensorId>,
        /// The norm's `β`.
        bias: TensorId,
    },
    /// `σ² + ε` and `γ`, `μ` and `β` of a batch norm trade. Fixed by `σ² + ε = 1` and `μ = 0`.
    Statistics {
        /// `γ`.
        gain: TensorId,
        /// `β`.
        bias: TensorId,
        /// `μ`.
        mean: TensorId,
        /// `σ²`.
        variance: TensorId,
        /// `ε`.
        epsilon: f64,
    },
}

impl Fold {
    /// The number of values that describe one element.
    #[must_use]
    pub fn num_values(&self, architecture: &Architecture) -> usize {
        let size = |t: TensorId| architecture.tensors()[t].num_values();
        match *self {
            Self::Shift { emitter, .. } => architecture.tensors()[emitter].shape.last().copied().unwrap_or(0),
            Self::Center { tensor, axis } => size(tensor) / architecture.tensors()[tensor].shape[axis],
            Self::Unread { weight, .. } => architecture.tensors()[weight].shape[0],
            Self::Constant { bias, .. } => size(bias),
            Self::Statistics { gain, .. } => 2 * size(gain),
        }
    }

    /// The dimension that it adds to the group.
    #[must_use]
    pub fn dimension(&self, architecture: &Architecture) -> usize {
        let overlaps = matches!(self, Self::Shift { overlaps: true, .. });
        self.num_values(architecture) - usize::from(overlaps)
    }
}

/// Lists the additive symmetries in the order in which canonical forms fix them: each only moves constants to later ones.
pub(super) fn build(architecture: &Architecture) -> Vec<Fold> {
    let mut folds = Vec::new();
    for (at, node) in architecture.nodes().iter().enumerate() {
        if let Op::BatchNorm { gain, bias, mean, variance, epsilon } = node.op {
            folds.push(Fold::Statistics { gain, bias, mean, variance, epsilon });
        }
        folds.extend(shift::of_node(architecture, at));
    }
    for (at, node) in architecture.nodes().iter().enumerate() {
        if shift::is_mean_blind(architecture, at) {
            let own = shift::centered(node).into_iter().filter(|&(tensor, _)| !shift::is_shared(architecture, tensor));
            folds.extend(own.map(|(tensor, axis)| Fold::Center { tensor, axis }));
        }
    }
    for at in 0..architecture.nodes().len() {
        folds.extend(shift::behind_norm(architecture, at));
    }
    folds
}
