//! What can be wrong with an adapter.

/// Why an adapter cannot be read, converted or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterFault {
    /// There is no update in it.
    #[error("it has no low-rank update and no tensor of the base")]
    Empty,
    /// Values that are not as many as the shape says.
    #[error("module `{module}`: `{part}` has {got} values, its shape speaks of {expected}")]
    Size {
        /// The module.
        module: String,
        /// The factor.
        part: &'static str,
        /// The shape's number.
        expected: usize,
        /// What there is.
        got: usize,
    },
    /// A value is NaN or infinite.
    #[error("module `{module}`: value {index} of `{part}` is not finite")]
    NonFinite {
        /// The module, or the tensor.
        module: String,
        /// The factor.
        part: &'static str,
        /// Where.
        index: usize,
    },
    /// A module stands twice.
    #[error("module `{module}` stands twice in it")]
    Duplicate {
        /// The module.
        module: String,
    },
    /// Something that the target cannot hold.
    #[error("{what}, which {target} cannot hold")]
    NotHeld {
        /// What there is, with the module's name.
        what: String,
        /// What it was to become.
        target: &'static str,
    },
    /// A row of weights that is not as long as the modules say.
    #[error("a row of {got} weights, the modules have {expected}")]
    Row {
        /// The modules' number.
        expected: usize,
        /// The row's.
        got: usize,
    },
}
