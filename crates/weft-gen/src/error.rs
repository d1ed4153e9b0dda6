//! What can go wrong in a generator.

/// A generator that could not be fitted, restored or sampled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A condition or population does not fit.
    #[error(transparent)]
    Domain(#[from] weft_core::Error),
    /// Encoding or decoding failed.
    #[error(transparent)]
    Codec(#[from] weft_codec::Error),
    /// Running networks failed.
    #[error(transparent)]
    Net(#[from] weft_net::Error),
    /// A fused operation failed.
    #[error(transparent)]
    Ops(#[from] weft_ops::Error),
    /// A candle operation failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// A setting is out of its range.
    #[error("generator: `{setting}` must be {expected}, got {got}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// A saved state lacks something or holds it in another form.
    #[error("saved state: `{entry}` {reason}")]
    Artifact {
        /// The tensor or metadata entry.
        entry: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The training loss became infinite or NaN.
    #[error("training diverged at step {step}: the loss is not finite; lower `learning-rate`")]
    Diverged {
        /// The step at which it was seen.
        step: u64,
    },
    /// The caller asked for a stop; the state up to here can be saved and resumed.
    #[error("interrupted")]
    Interrupted,
}

/// Refuses a setting that is out of its range.
pub(crate) fn require(setting: &'static str, expected: &'static str, ok: bool, got: impl std::fmt::Display) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Setting { setting, expected, got: got.to_string() }) }
}

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
