//! What can go wrong with a codec.

/// A codec that cannot be fitted, applied or read.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There are too few networks to fit on.
    #[error("a codec needs at least {needed} networks to fit on, got {got}")]
    TooFewRows {
        /// The smallest number that works.
        needed: usize,
        /// The number given.
        got: usize,
    },
    /// A weight is infinite or not a number.
    #[error("network {row}, weight {weight} is not finite")]
    NonFinite {
        /// Index of the network.
        row: usize,
        /// Index of the weight in the flat row.
        weight: usize,
    },
    /// A weight's spread cannot be represented.
    #[error("weight {weight} varies by {spread:e}, more than a codec can hold")]
    Spread {
        /// Index of the weight in the flat row.
        weight: usize,
        /// Its standard deviation, or that of its tensor.
        spread: f64,
    },
    /// All networks are the same.
    #[error("the networks do not vary, so they have no principal components")]
    NoVariance,
    /// A rank is zero or exceeds what the data or the codec have.
    #[error("rank {asked} is not in 1..={available}")]
    Rank {
        /// The rank asked for.
        asked: usize,
        /// The largest rank there is.
        available: usize,
    },
    /// A fraction of variance is not in `(0, 1]`.
    #[error("the variance to keep must be above 0 and at most 1, got {got}")]
    KeptVariance {
        /// The fraction given.
        got: f64,
    },
    /// An eigenvalue iteration did not converge.
    #[error("the eigenvalues of a {size} × {size} matrix did not converge")]
    Eigen {
        /// The matrix's size.
        size: usize,
    },
    /// A number of values is not a whole number of rows.
    #[error("{what} have {got} values, not a multiple of {row}")]
    Length {
        /// What was counted.
        what: &'static str,
        /// Length of one row.
        row: usize,
        /// The number of values given.
        got: usize,
    },
    /// A codec is to decode with other networks than those that it was fitted on.
    #[error("the codec was fitted on {expected} networks, got {got}")]
    Networks {
        /// The number that it was fitted on.
        expected: usize,
        /// The number given.
        got: usize,
    },
    /// A stored codec lacks a tensor.
    #[error("the codec lacks the tensor `{tensor}`")]
    MissingTensor {
        /// The tensor's name.
        tensor: &'static str,
    },
    /// A stored codec has a tensor that no codec has.
    #[error("a codec has no tensor `{tensor}`")]
    UnknownTensor {
        /// The tensor's name.
        tensor: String,
    },
    /// A stored codec's tensor has the wrong shape or wrong values.
    #[error("the codec's tensor `{tensor}` of shape {shape:?}: {reason}")]
    Tensor {
        /// The tensor's name.
        tensor: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Tokens must hold a weight at least.
    #[error("tokens must have rows of 1 weight or more, got {got}")]
    TokenLength {
        /// The length asked for.
        got: usize,
    },
    /// A row is too long for directions to be found for it.
    #[error("the rows of `{tensor}` have {inputs} weights; a basis is found for at most {longest}, so keep rows whole (rank 0)")]
    LongRow {
        /// The tensor's name.
        tensor: String,
        /// The length of its rows.
        inputs: usize,
        /// The longest that is taken.
        longest: usize,
    },
    /// A tensor is of a kind that no training network has.
    #[error("the tensor `{tensor}` needs the moments of `{kind}`, which no training network has")]
    Foreign {
        /// The tensor's name.
        tensor: String,
        /// The kind of place: rows, role and slot, and the number of inputs where these are the data's.
        kind: String,
    },
    /// A stored kind of place is not one, or has wrong values.
    #[error("the kind of place `{kind}`: {reason}")]
    Kind {
        /// Its name.
        kind: String,
        /// What is wrong with it.
        reason: &'static str,
    },
}
