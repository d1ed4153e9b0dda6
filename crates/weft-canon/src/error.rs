//! What can be wrong with rows, group elements and distance options.

/// An input that does not fit the architecture or the group.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A slice has the wrong number of values.
    #[error("{what} has {got} values, expected {expected}")]
    Length {
        /// What was counted.
        what: &'static str,
        /// The number that the architecture asks for.
        expected: usize,
        /// The number that was given.
        got: usize,
    },
    /// Nothing was given where at least one is needed.
    #[error("at least one of {what} is needed")]
    Empty {
        /// What is missing.
        what: &'static str,
    },
    /// A weight is not a finite number.
    #[error("the weight at {index} of the flat row is not finite")]
    NotFinite {
        /// Its place in the row.
        index: usize,
    },
    /// A group element does not belong to the group.
    #[error("group element, space {space}: {reason}")]
    Element {
        /// Index of the hidden space.
        space: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A step of a transformation does not belong to the group.
    #[error("group transformation: {reason}")]
    Step {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A weight that must be positive is not.
    #[error("tensor `{tensor}`, entry {index}: a variance of {value} is not positive")]
    Variance {
        /// The tensor.
        tensor: String,
        /// The entry.
        index: usize,
        /// Its value.
        value: f64,
    },
    /// An index is out of range.
    #[error("{what} {index} is not below {limit}")]
    Index {
        /// What is counted.
        what: &'static str,
        /// The index that was given.
        index: usize,
        /// The first index that does not exist.
        limit: usize,
    },
    /// A network could not be run for an alignment by activations.
    #[error("the units of `{architecture}` cannot be observed: {reason}")]
    Observe {
        /// Name of the architecture.
        architecture: String,
        /// What went wrong.
        reason: String,
    },
    /// Outputs cannot be centered, because a common shift of the outputs is not a symmetry of this graph.
    #[error("the outputs of `{architecture}` cannot be centered: {reason}")]
    OutputGauge {
        /// Name of the architecture.
        architecture: String,
        /// What stands between the last linear map and the output.
        reason: &'static str,
    },
}

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Checks a number of values.
pub(crate) fn check_len(what: &'static str, got: usize, expected: usize) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, expected, got }) }
}
