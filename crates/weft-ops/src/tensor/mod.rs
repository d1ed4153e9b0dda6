//! Differentiable operations on candle tensors, for generators.
//!
//! Parameters of a network are one flat vector, so that its optimizer, its moving average and its file are each
//! one pass over one slice.

mod network;
mod on_tensors;
mod optimizer;
mod parameters;
mod replicas;
mod residual;
mod transformer;

pub use network::{Lesson, Network, Pass, Ran, regress, run, run_on_weights};
pub use optimizer::{FlatOptimizer, FlatOptimizerConfig};
pub use parameters::{Parameters, Precision};
pub use residual::{ResidualMlp, ResidualMlpConfig};
pub use transformer::{Transformer, TransformerConfig};
