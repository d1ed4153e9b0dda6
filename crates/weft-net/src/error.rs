//! What can go wrong when networks are run.

/// A population that could not be run or trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The data set's examples are not what the architecture reads, or its classes not what it writes.
    #[error(
        "architecture `{architecture}` maps {inputs} inputs to {outputs} classes, but data set `{dataset}` has {features} features and {classes} classes"
    )]
    Mismatch {
        /// Name of the architecture.
        architecture: String,
        /// Its inputs.
        inputs: usize,
        /// Its outputs.
        outputs: usize,
        /// Name of the data set.
        dataset: String,
        /// Its features.
        features: usize,
        /// Its classes.
        classes: usize,
    },
    /// There is not one task a network.
    #[error("{tasks} tasks for {networks} networks")]
    Tasks {
        /// The tasks.
        tasks: usize,
        /// The networks.
        networks: usize,
    },
    /// A task maps other classes than the data set's, or to other outputs than the architecture's.
    #[error(
        "task `{task}` maps {} classes to {} outputs, but the data have {classes} classes and architecture `{architecture}` {outputs} outputs",
        maps[0], maps[1]
    )]
    Task {
        /// Name of the task.
        task: String,
        /// Its classes and outputs.
        maps: [usize; 2],
        /// Name of the architecture.
        architecture: String,
        /// Its outputs.
        outputs: usize,
        /// The data set's classes.
        classes: usize,
    },
    /// The interpreter was given weights or inputs that the architecture does not have.
    #[error("architecture `{architecture}` cannot be run: {reason}")]
    Interpret {
        /// Name of the architecture.
        architecture: String,
        /// What does not fit.
        reason: String,
    },
    /// An op that the engine, or the lock step of a GPU, does not run.
    #[error("architecture `{architecture}`: node {node} is `{op}`, which {by} does not run")]
    Unsupported {
        /// Name of the architecture.
        architecture: String,
        /// The node's index.
        node: usize,
        /// The op's name.
        op: &'static str,
        /// What does not run it, and what does.
        by: &'static str,
    },
    /// A network that adapters are not trained on, or weights that are not its own.
    #[error("`{architecture}` is no base for adapters: {reason}")]
    Base {
        /// Name of the architecture.
        architecture: String,
        /// What does not fit.
        reason: String,
    },
    /// An adapter that does not fit its base.
    #[error("{what} does not fit the base `{base}`: {reason}")]
    Adapter {
        /// What does not fit.
        what: String,
        /// Name of the base's architecture.
        base: String,
        /// Why not.
        reason: String,
    },
    /// A task that no adapter can be trained or measured on.
    #[error("an adapter's task: {reason}")]
    AdapterTask {
        /// What is wrong with it.
        reason: String,
    },
    /// A recipe or another domain value is out of range.
    #[error(transparent)]
    Domain(#[from] weft_core::Error),
    /// A fused operation or device failed.
    #[error(transparent)]
    Ops(#[from] weft_ops::Error),
    /// A candle operation failed.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    /// A network's loss became infinite or NaN.
    #[error("training diverged: the loss of network {network} is not finite after step {step}; lower `learning-rate`")]
    Diverged {
        /// Index of the network among those being trained.
        network: usize,
        /// The step after which it was seen.
        step: u64,
    },
    /// The caller asked for a stop.
    #[error("interrupted")]
    Interrupted,
}

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
