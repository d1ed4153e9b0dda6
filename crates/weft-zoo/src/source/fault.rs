//! What can be wrong with a file of weights, beyond the header of safetensors.

/// A breach of a format's rules, or something in a file that is not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SourceFault {
    /// The file has not the length that its beginning speaks of.
    #[error("it has {got} bytes, its header speaks of {expected}")]
    Length {
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that there are.
        got: u64,
    },
    /// A part is larger than any honest one.
    #[error("{what} would be {got} bytes long, at most {limit} are read")]
    TooLarge {
        /// The part.
        what: String,
        /// Its size.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// There is more of something than any honest file has.
    #[error("{what} is {got}, at most {limit} are read")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// Its number.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A part breaks the rules of its own format.
    #[error("{what} is not valid: {reason}")]
    Malformed {
        /// The part.
        what: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A name stands twice: which one counts would depend on the reader.
    #[error("`{name}` stands twice in it")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Two parts claim the same bytes.
    #[error("`{name}` overlaps another entry")]
    Overlap {
        /// The later part.
        name: String,
    },
    /// Compressed entries that would grow beyond all proportion.
    #[error("its entries would expand to {expanded} bytes, at most {limit} are read from a file of this length")]
    Expands {
        /// The size that they claim.
        expanded: u64,
        /// The limit.
        limit: u64,
    },
    /// A pickle that names a class or a function which plain tensors do not need.
    #[error("its pickle names `{global}`, which is not called here; save `model.state_dict()` with tensors and plain values alone")]
    Global {
        /// The module and the name.
        global: String,
    },
    /// A file that is named outside of the folder.
    #[error("it names the file `{name}`, which is not a plain name of a file in its own folder")]
    Outside {
        /// The name.
        name: String,
    },
    /// A file that is named and not there.
    #[error("the file `{name}` that it names is not beside it")]
    MissingFile {
        /// The file.
        name: String,
    },
    /// A tensor that is not where it should be.
    #[error("tensor `{tensor}` is not in `{file}`")]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The file that should hold it.
        file: String,
    },
    /// A tensor that an index does not place there.
    #[error("tensor `{tensor}` of `{file}` is not placed there by the index")]
    UnlistedTensor {
        /// The tensor.
        tensor: String,
        /// The file that holds it.
        file: String,
    },
    /// A setting that is not one of those that are understood.
    #[error("`{field}` is `{got}`, expected {expected}")]
    Setting {
        /// The field.
        field: String,
        /// Its value.
        got: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Something that the format allows and that is not read here.
    #[error("{what} not read; {hint}")]
    NotRead {
        /// What it is, with its verb.
        what: String,
        /// What to do.
        hint: &'static str,
    },
    /// No tensor at all.
    #[error("there is no tensor in it")]
    Empty,
}

impl SourceFault {
    /// A part that breaks the rules of its own format.
    pub(crate) fn malformed(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Malformed { what: what.into(), reason: reason.into() }
    }
}
