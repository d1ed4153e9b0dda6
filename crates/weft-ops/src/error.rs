//! What can go wrong in an operation.

/// An operation that could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// More features than a sparse row's 16-bit columns can name.
    #[error("sparse rows have at most 65536 features, got {features}")]
    TooManyFeatures {
        /// The number of features asked for.
        features: usize,
    },
    /// The device is not one that this build or machine has.
    #[error("device `{device}`: {reason}")]
    Device {
        /// The device asked for.
        device: String,
        /// Why it is not there.
        reason: String,
    },
    /// The tensor library refused.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
