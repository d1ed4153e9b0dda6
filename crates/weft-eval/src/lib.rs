//! Measures what sampled networks are worth: how well they work, how new they are, and how much they differ.
//!
//! The rule is strict because accuracy, spread and diversity can all be perfect while every sample is a copy of a
//! training network. A sample counts (*NPD*) when it is
//!
//! - **novel**: far from every training network, in the quotient of weights by their symmetries *and* as a function;
//! - **performant**: above an accuracy bar that training runs fixed before anything was sampled;
//! - **distinct**: as far from its fellow samples as it must be from the training networks.
//!
//! Distances are in units that held-out training runs set ([`Units`]), and held-out runs have a row in every
//! table. The [`Verdict`] compares the best generator with every trivial baseline at the same distance.
//! `docs/concepts/evaluation.md` defines every figure.
//!
//! [`Context::new`] measures the zoo once; [`Context::row`] measures a generator by its samples alone;
//! [`Context::evaluate`] draws the verdicts. Everything is bit for bit the same at any thread count.
//!
//! Shape legend: `n` networks, `D` weights, `b` examples, `c` classes, `k` features.

pub mod conditional;
mod context;
mod error;
mod figures;
mod functional;
mod matmul;
mod measure;
mod mistakes;
mod null;
mod options;
mod project;
pub mod recipes;
mod row;
mod stats;
pub mod structure;
pub mod textures;
mod verdict;
mod weighted;
mod weights;

pub use context::{Context, ContextInput};
pub use error::Error;
pub use figures::{Estimate, Evaluation, Finding, Parity, Row, RowKind, ThresholdCurve, Units, Verdict};
pub use measure::Measurements;
pub use null::null_copies;
pub use options::{Costs, Options};
pub use project::Projection;
pub use row::RowInput;

/// The result of this crate's fallible functions.
pub type Result<T> = std::result::Result<T, Error>;
