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
    /// An adapter's factors of a module cannot be.
    #[error("adapter {adapter}, module `{module}`: {reason}")]
    Factors {
        /// Index of the adapter.
        adapter: usize,
        /// The module's name.
        module: String,
        /// What is wrong with them.
        reason: &'static str,
    },
    /// Adapters update other modules than they must.
    #[error("the adapters update other modules: expected {expected}, got {got}")]
    Modules {
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
    },
    /// A codec of adapters or a merger has too few or too many of them.
    #[error("{what} needs {needed} adapters, got {got}")]
    NumAdapters {
        /// What needs them.
        what: &'static str,
        /// How many it needs.
        needed: &'static str,
        /// How many there are.
        got: usize,
    },
    /// A setting of a merger is out of its range.
    #[error("`{setting}` must be {expected}, got {got}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// Two adapters point to opposite ways, so that there is no arc between them.
    #[error("the updates of the two adapters are opposite or zero, and no arc leads from one to the other")]
    NoArc,
    /// A merger would need more memory than it may take.
    #[error("module `{module}`: merging by `{method}` holds {values} values at once, more than {limit}")]
    TooLarge {
        /// The module's name.
        module: String,
        /// The merger.
        method: &'static str,
        /// Values that it would hold.
        values: usize,
        /// The most allowed.
        limit: usize,
    },
}
