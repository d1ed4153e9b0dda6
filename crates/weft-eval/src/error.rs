//! What can be wrong with an evaluation's input.

/// Networks, flags or options that do not fit together, or a stop that the user asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A domain value is invalid.
    #[error(transparent)]
    Core(#[from] weft_core::Error),
    /// The symmetry group could not be derived or applied.
    #[error("the symmetries of the networks")]
    Canon(#[from] weft_canon::Error),
    /// The networks could not be run.
    #[error("running the networks")]
    Net(#[from] weft_net::Error),
    /// Too few networks or runs to measure against.
    #[error("{what}: {got} given, at least {least} needed")]
    TooFew {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        got: usize,
        /// How many there must be.
        least: usize,
    },
    /// A list does not have one entry a network.
    #[error("`{what}` has {got} entries for {expected} networks")]
    Length {
        /// The list.
        what: &'static str,
        /// The number of networks.
        expected: usize,
        /// The number of entries.
        got: usize,
    },
    /// A population has another architecture than the training networks.
    #[error("the networks of `{row}` have another architecture than the training networks")]
    Architecture {
        /// Name of the row.
        row: String,
    },
    /// The networks do not fit the data set.
    #[error(
        "networks with {inputs} inputs and {outputs} outputs cannot be evaluated on `{dataset}` with {features} features and {classes} classes"
    )]
    Dataset {
        /// Name of the data set.
        dataset: String,
        /// The networks' inputs.
        inputs: usize,
        /// The networks' outputs.
        outputs: usize,
        /// The data set's features.
        features: usize,
        /// The data set's classes.
        classes: usize,
    },
    /// A training or held-out network has a weight that is not finite.
    #[error("{what} network {index} has a weight that is not finite")]
    NonFinite {
        /// Which population.
        what: &'static str,
        /// Index of the network in it.
        index: usize,
    },
    /// Held-out runs coincide with training networks, so that there is no unit of distance.
    #[error("the held-out networks are copies of training networks: the unit `{unit}` is {value}")]
    Unit {
        /// Name of the unit.
        unit: &'static str,
        /// Its value.
        value: f64,
    },
    /// The spectrum of the networks could not be computed.
    #[error("the eigenvalues of a {size} × {size} matrix did not converge")]
    Spectrum {
        /// Its size.
        size: usize,
    },
    /// An option is out of its range.
    #[error("option `{option}` must be {expected}, got {got}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// What is allowed.
        expected: &'static str,
        /// What was given.
        got: String,
    },
    /// The user asked for a stop.
    #[error("stopped")]
    Stopped,
}
