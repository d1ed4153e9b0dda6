//! What can be wrong with an adapter.

use crate::Error;
use std::path::Path;

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
    /// A tensor whose name is none of the naming's.
    #[error("the tensor `{name}` is none of {naming}: {reason}")]
    Name {
        /// The tensor.
        name: String,
        /// Whose names are read.
        naming: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A module without one of its factors.
    #[error("module `{module}` has no `{part}`")]
    MissingPart {
        /// The module.
        module: String,
        /// The factor.
        part: &'static str,
    },
    /// Factors that do not belong together.
    #[error("module `{module}`: its factors have shapes {a:?} and {b:?}, which are not rank × in and out × rank")]
    Shapes {
        /// The module.
        module: String,
        /// The first factor's.
        a: Vec<usize>,
        /// The second's.
        b: Vec<usize>,
    },
    /// Something that is recognized and not read.
    #[error("{what}, which is not read; {hint}")]
    NotRead {
        /// What it is, with the module's name.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// An adapter of another base.
    #[error("it is an adapter of `{got}`, not of `{expected}`")]
    OtherBase {
        /// The base that the adapter names.
        got: String,
        /// The base that it was to have.
        expected: String,
    },
    /// Rows of queries or keys in another order than the base's.
    #[error(
        "module `{module}`: the adapter's rows of queries and keys are in the order `{got}`, those of the base in `{expected}`"
    )]
    Rotary {
        /// The module.
        module: String,
        /// The adapter's: `halves` (Transformers) or `interleaved` (llama2.c).
        got: &'static str,
        /// The base's.
        expected: &'static str,
    },
    /// A module that the base has not.
    #[error("the base `{base}` has no module `{module}`, which the adapter{adapter_of} updates")]
    NoModule {
        /// The module.
        module: String,
        /// The base.
        base: String,
        /// Which base the adapter names, as a part of the sentence.
        adapter_of: String,
    },
    /// A module that has another shape in the base.
    #[error("module `{module}` has shape {got:?} in the adapter{adapter_of} and {expected:?} in the base `{base}`")]
    BaseShape {
        /// The module.
        module: String,
        /// The shape of its update.
        got: Vec<usize>,
        /// The base's.
        expected: Vec<usize>,
        /// The base.
        base: String,
        /// Which base the adapter names, as a part of the sentence.
        adapter_of: String,
    },
    /// A rank beyond the largest that runtimes take.
    #[error("module `{module}` has rank {rank}; a portable adapter has at most {limit}")]
    Rank {
        /// The module.
        module: String,
        /// Its rank.
        rank: usize,
        /// The limit.
        limit: usize,
    },
    /// A file of the base that is needed and not there, or does not say what is needed.
    #[error("{target} needs {what}")]
    Needs {
        /// What was to be written.
        target: &'static str,
        /// What is missing, and how to give it.
        what: String,
    },
}

impl AdapterFault {
    /// The fault of the adapter in a file or folder.
    #[must_use]
    pub fn at(self, path: &Path) -> Error {
        Error::Adapter { path: path.to_owned(), fault: Box::new(self) }
    }
}
