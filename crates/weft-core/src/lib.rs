//! The domain types of Weft: what a network is, what is known about it, and where it came from.
//!
//! This crate is the leaf that everything else stands on. It does no IO, reads no clock and starts no
//! thread; it names no serialization format and no machine-learning framework. Formats live in
//! `weft-zoo`, numerics in `weft-ops` and above.
//!
//! The central types:
//!
//! - [`Architecture`]: an op graph declared as data. From it follow the check of a checkpoint, the
//!   symmetry group (`weft-canon`), and the execution (`weft-net`).
//! - [`families`]: the architectures that people have, by their sizes.
//! - [`Population`]: the weights of `n` networks of one architecture, one flat row a network.
//! - [`Recipe`], [`Condition`]: how a network was trained, and what it is for.
//! - [`Dataset`]: labelled inputs with a fixed train/validation/test division. [`Task`]: what a network makes of its classes.
//!   [`ExampleSet`], [`InputSet`]: a handful of them, labelled or not, which shows a task.
//! - [`Seed`]: randomness as a parameter; it forks by name.
//! - [`Digest`], [`Record`]: content address and provenance of a checkpoint.
//! - [`products`]: matrix products that may be computed elsewhere.
//! - [`Monitor`]: how long work reports progress and learns that it should stop.

mod architecture;
mod classes;
mod condition;
mod dataset;
mod digest;
mod error;
mod examples;
pub mod families;
mod monitor;
mod population;
pub mod products;
mod recipe;
mod record;
mod seed;
mod task;

pub use architecture::{
    Activation, Architecture, GraphBuilder, MAX_PARAMETERS, Node, Op, Rope, RopePairs, TensorId, TensorSpec, Window,
};
pub use classes::ClassSet;
pub use condition::{
    BYTES_LEN, Condition, Extrapolation, Field, FieldKind, FieldSpec, FieldType, Scale, Schema, Seen, TEXT_LEN, Value, embed_bytes,
    embed_text,
};
pub use dataset::{Dataset, Inputs, Part};
pub use digest::{Digest, WeightsHasher};
pub use error::Error;
pub use examples::{ExampleSet, InputSet};
pub use monitor::{Event, Monitor};
pub use population::Population;
pub use recipe::{Duration, Optimizer, Precision, Recipe, Schedule};
pub use record::{Provenance, Record, Sha256, Split};
pub use seed::{Rng, Seed};
pub use task::{HeldOutTasks, Task};

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
