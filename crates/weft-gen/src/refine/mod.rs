//! The function-aware refiner: a residual network on codes that makes proposals work.
//!
//! `z = encode(w)`, `w' = w + decode_linear(r(z, c))`, trained on samples of a frozen proposal through the
//! networks themselves: the loss of a sample is what its decoded network loses on training data. Weights that the
//! codec drops stay as the proposal had them. An anchor keeps `w'` near `w`; diversity and
//! generalization are kept by four means, each of which can be left out:
//!
//! - a **hinge**: a sample's loss stops counting below a level drawn from the training runs' own losses, so that
//!   samples stop where training runs stop instead of being pulled to one optimum;
//! - a **shell**: a sample's logits may stray from the training runs' mean logits as far as those runs do, no
//!   further: `max(0, ‖f − f̄‖²/s² − 1)`, on inputs between training examples. Loss alone lets a network that is unlike any training
//!   run fit the training data with inflated logits;
//! - **own data**: each sample is trained on its own half of the data. Every example has 63 random signs and so
//!   has every sample, which sees the examples that agree with it in most signs; the refiner is told the signs;
//! - **repulsion**: samples nearer to each other, or to a training network, than training runs are to each other
//!   push apart: `Σ max(0, 1 − d/d̄)²` over pairs, in weights.
//!
//! # Networks of many tasks
//!
//! Where training runs have tasks of their own ([`TrainingSet::with_tasks`](crate::TrainingSet::with_tasks)), so has every sample:
//! proposals are made under the conditions of training runs, the loss of a sample is that at its own task, and the refiner is told the
//! encoded condition in place of a loss level. No field is dropped: without its task a proposal cannot be mended. Hinge and shell are
//! refused there, since both compare a sample with many runs of one task. Tasks that are held out reach neither the pool nor a loss; the
//! refiner meets them by their conditions when it samples.
//!
//! The networks may be adapters of one base: their loss is then that of the base with them ([`TaskLoss`](crate::TaskLoss)).
//!
//! Training data are reached through [`PopulationLoss`](weft_net::PopulationLoss) alone, which holds the training part and nothing else.

mod refined;
pub(crate) mod terms;
pub(crate) mod told;
mod trainer;

pub use refined::{Refined, Refiner};
pub use trainer::RefinerTrainer;

use crate::Result;
use crate::error::require;
use weft_ops::tensor::FlatOptimizerConfig;

/// Random signs of an example and of a sample; odd, so that a majority always exists.
pub(crate) const SIGNS: usize = 63;
/// Inputs between training examples on which functions are compared.
const SHELL_INPUTS: usize = 8_192;
/// Training networks drawn as fixed points of the repulsion, each step.
const FIXED_POINTS: usize = 64;

/// How refiners are optimized, beside the learning rate.
pub(crate) const OPTIMIZER: FlatOptimizerConfig = FlatOptimizerConfig { weight_decay: 0.0, clip_norm: 1.0, ema_decay: 0.99 };

/// Settings of the refiner and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct RefinerConfig {
    /// Strength of the anchor: `μ·|r(z)|²/10` in unit-variance codes is added to a sample's loss, in nats.
    pub mu: f64,
    /// Whether a sample's loss stops counting below a training run's: that of the network as it is run, batch norms and all.
    pub hinge: bool,
    /// Strength of the shell around the training runs' mean function, in nats; 0 is none.
    pub shell: f64,
    /// Strength of the repulsion, in nats; 0 is none.
    pub repulsion: f64,
    /// Whether each sample is trained on its own half of the data.
    pub own_data: bool,
    /// Training steps.
    pub steps: u64,
    /// Samples a step.
    pub batch_networks: usize,
    /// Training examples a sample and step.
    pub batch_examples: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// Samples of the frozen proposal that training draws from.
    pub pool: usize,
}

impl RefinerConfig {
    /// Checks ranges, and what networks of many tasks leave undefined.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] names the first that is out of range.
    pub fn check(&self, many_tasks: bool) -> Result<()> {
        require("mu", "0 or more", self.mu >= 0.0 && self.mu.is_finite(), self.mu)?;
        require("shell", "0 or more", self.shell >= 0.0 && self.shell.is_finite(), self.shell)?;
        require("repulsion", "0 or more", self.repulsion >= 0.0 && self.repulsion.is_finite(), self.repulsion)?;
        require("steps", "1 or more", self.steps > 0, self.steps)?;
        require("batch-networks", "2 or more", self.batch_networks >= 2, self.batch_networks)?;
        require("batch-examples", "1 or more", self.batch_examples > 0, self.batch_examples)?;
        require("pool", "at least batch-networks", self.pool >= self.batch_networks, self.pool)?;
        require("width", "between 1 and 16384", (1..=16_384).contains(&self.width), self.width)?;
        require("blocks", "at most 256", self.blocks <= 256, self.blocks)?;
        let alone = !many_tasks || !self.hinge;
        require("hinge", "`false` for networks of many tasks", alone, self.hinge)?;
        require("shell", "0 for networks of many tasks", !many_tasks || self.shell <= 0.0, self.shell)?;
        let rate = self.learning_rate;
        require("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)
    }
}
