//! What the operations are given: sizes, and where their parameters lie.

use weft_core::Optimizer;

/// A linear map of a population: `y[n] = x[n]·W[n]ᵀ + b[n]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Linear {
    /// Where a network's weight starts among its parameters.
    pub weight: usize,
    /// Where its bias starts, if it has one.
    pub bias: Option<usize>,
    /// `i`.
    pub inputs: usize,
    /// `o`.
    pub outputs: usize,
    /// Whether the weight is stored `[i, o]`; otherwise it is `[o, i]`, as in a checkpoint.
    pub input_major: bool,
}

/// How many networks run over how many rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// `n`.
    pub networks: usize,
    /// `r`, of each network.
    pub rows: usize,
    /// Parameters of a network, the distance from one to the next.
    pub stride: usize,
    /// Whether all networks read the same rows.
    pub shared: bool,
}

impl Batch {
    /// One network.
    #[must_use]
    pub fn one(rows: usize) -> Self {
        Self { networks: 1, rows, stride: 0, shared: false }
    }
}

/// Which statistics a norm takes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Mean and standard deviation.
    Layer,
    /// The root of the mean square.
    Rms,
}

/// A norm over the features of each row, with a gain and a shift that are parameters, and those of a modulation.
///
/// `y = (n·γ + β)·(1 + scale) + shift` with `n` the normalized row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Norm {
    /// What is taken out.
    pub kind: NormKind,
    /// Features.
    pub width: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// Where the gain starts among the parameters.
    pub gain: Option<usize>,
    /// Where the shift starts.
    pub bias: Option<usize>,
}

/// Columns of a buffer of modulations, `[g, columns]`, that belong to one norm or one residual branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Columns of the buffer.
    pub columns: usize,
    /// The first column of the shift; the scale lies behind it. Of a gate: its first column.
    pub first: usize,
    /// Rows that share a modulation.
    pub rows_per_group: usize,
}

/// Attention over packed rows `[b·t, (h + 2·kv)·k]`: queries, then keys, then values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Attention {
    /// `b`.
    pub sequences: usize,
    /// `t`.
    pub tokens: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides the query heads.
    pub kv_heads: usize,
    /// `k`.
    pub head_dim: usize,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
}

impl Attention {
    /// Features of a packed row.
    #[must_use]
    pub fn packed(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Features of an output row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// `1/√k`, which scores are multiplied by.
    #[must_use]
    pub fn scale(&self) -> f64 {
        1.0 / (self.head_dim as f64).sqrt()
    }
}

/// Sequences of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tokens {
    /// `b`.
    pub sequences: usize,
    /// `t`.
    pub tokens: usize,
    /// Features of a token.
    pub width: usize,
}

/// The sine and cosine of each pair's angle at each position, `p·theta^(−2i/k)`.
///
/// # Shapes
/// `[t, k/2, 2]`.
///
/// # References
/// Su et al., *`RoFormer`* (2021), section 3.2.2.
#[must_use]
pub fn rotary_turns(theta: f64, tokens: usize, head_dim: usize) -> Vec<f32> {
    let pairs = head_dim / 2;
    let turn = |at: usize| {
        let (position, pair) = ((at / pairs) as f64, (at % pairs) as f64);
        let (sin, cos) = (position * theta.powf(-2.0 * pair / head_dim as f64)).sin_cos();
        [sin as f32, cos as f32]
    };
    (0..tokens * pairs).flat_map(turn).collect()
}

/// A low-rank update `s·B·A` of a linear map, one a network, whose outputs are some columns of the map's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRank {
    /// Where a network's `A`, `[rank, i]`, starts among its parameters.
    pub a: usize,
    /// Where its `B`, `[o, rank]`, starts.
    pub b: usize,
    /// `i`.
    pub inputs: usize,
    /// `o`.
    pub outputs: usize,
    /// The rank.
    pub rank: usize,
    /// `s`.
    pub scale: f64,
    /// Columns of the map's outputs.
    pub columns: usize,
    /// The first of them that is updated.
    pub first: usize,
}

/// How many images there are, and their channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSizes {
    /// Images.
    pub images: usize,
    /// `c`.
    pub channels: usize,
}

/// A norm over the examples and pixels of each channel, with parameters at offsets among a network's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNorm {
    /// `c`.
    pub width: usize,
    /// Added to the variance.
    pub epsilon: f64,
    /// Where the gain starts.
    pub gain: usize,
    /// Where the shift starts.
    pub bias: usize,
    /// Where the running mean starts.
    pub mean: usize,
    /// Where the running variance starts.
    pub variance: usize,
}

/// One step of an optimizer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OptimizerStep {
    /// The rule.
    pub optimizer: Optimizer,
    /// Weight decay: added to the gradient (SGD, Adam) or decoupled (`AdamW`).
    pub weight_decay: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// The gradient is scaled down to this norm if it is longer.
    pub clip_norm: Option<f64>,
    /// How much of the moving average is kept.
    pub average_decay: f64,
    /// The number of this step, from 1.
    pub step: u64,
}

/// A vector that an optimizer keeps for the parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// The parameters themselves.
    Theta,
    /// Their exponential moving average.
    Average,
    /// First moments (of SGD, the velocity).
    First,
    /// Second moments.
    Second,
    /// The gradient summed so far.
    Gradient,
}
