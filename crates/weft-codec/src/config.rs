//! What a codec should be.

/// A codec's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CodecConfig {
    /// Which codec, with its own settings.
    pub kind: CodecKind,
    /// What is divided by a standard deviation first.
    pub normalize: Normalization,
}

/// The kinds of codec.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CodecKind {
    /// Normalized weights, one code value a weight.
    Identity,
    /// Principal components.
    Pca {
        /// How many.
        rank: Rank,
        /// How they are computed.
        solver: Solver,
    },
}

/// How many principal components are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rank {
    /// This many.
    Fixed(usize),
    /// The fewest that keep this fraction of the total variance, in `(0, 1]`.
    KeptVariance(f64),
}

/// What is divided by its standard deviation before anything else.
///
/// Principal components see the running statistics of batch norms 10,000 times smaller than that, whatever the normalization.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalization {
    /// Nothing: weights count as they are.
    Off,
    /// All weights of a tensor by one number, the root of their mean variance, so that a bias counts like a weight.
    PerTensor,
    /// Each weight by its own standard deviation.
    PerWeight,
}

/// How principal components are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Solver {
    /// The cheapest exact one for the data's shape; randomized where both sides exceed 4,096 and the rank is much smaller.
    Auto,
    /// Through the Gram matrix `[n, n]`.
    Gram,
    /// Through the covariance `[D, D]`.
    Covariance,
    /// By randomized block subspace iteration.
    Randomized,
}
