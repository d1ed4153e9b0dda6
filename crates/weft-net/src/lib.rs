//! Runs architectures: forward, gradient and training of many networks of one architecture.
//!
//! On a CPU each thread takes one network at a time and works on it while its weights, gradient and optimizer
//! state are in that core's cache ([`Engine`]); on a GPU all networks move in lock step, each operation over all of them.
//! Both start from the same initial weights and see the same batches.
//!
//! Shape legend: `n` networks, `b` examples, `c` classes, `D` weights of a network.

pub mod adapters;
mod automaton;
pub mod device;
mod engine;
mod error;
mod evaluate;
mod examples;
mod interpreter;
mod labelled;
mod lockstep;
mod loss;
mod recalibrate;
mod share;
mod train;

pub use automaton::{Growth, Texture, grow};
pub use device::{Device, DeviceName};
pub use engine::{Engine, Workspace, forward_flops};
pub use error::{Error, Result};
pub use evaluate::{Scores, accuracies, hidden_activity, logits, predictions, scores};
pub use examples::{Batch, Examples};
pub use interpreter::{WeightRow, interpret_captured, interpret_f32, interpret_f64, random_inputs, with_tokens};
pub use labelled::Labelled;
pub use loss::{Drawn, Ensemble, Gradients, PopulationLoss};
pub use recalibrate::recalibrate;
pub use share::share_out;
pub use train::{RunResult, Snapshot, initial_weights, train};
