//! Differentiable operations on candle tensors, for generators.
//!
//! Parameters of a network are one flat vector, so that its optimizer, its moving average and its file are each
//! one pass over one slice.

#![expect(clippy::inline_always, reason = "vector code must inline into the function that is compiled for the vector unit")]

mod optimizer;
mod residual;
mod residual_cpu;

pub use optimizer::{FlatOptimizer, FlatOptimizerConfig};
pub use residual::{ResidualMlp, ResidualMlpConfig};
