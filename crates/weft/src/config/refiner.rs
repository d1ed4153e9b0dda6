//! `[refiner]`: the function-aware refiner behind a generator.

use super::require;
use serde::{Deserialize, Serialize};

/// A residual network on codes, trained through the decoder and the networks that it makes.
///
/// Its loss a sample is `CE(run(decode(z + r(z)), batch))`, with a hinge at the zoo's own loss, an anchor
/// `μ·|r(z)|²/10` to the proposal, a shell around the training runs' mean function, and a repulsion between
/// fellow samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RefinerConfig {
    /// Strength `μ` of the anchor to the proposal.
    pub mu: f64,
    /// Training steps.
    pub steps: u64,
    /// Samples a step.
    pub batch_networks: usize,
    /// Training examples a sample and step.
    pub batch_examples: usize,
    /// Peak learning rate of `AdamW`.
    pub learning_rate: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// Whether a sample's loss stops counting below the zoo's own.
    pub hinge: bool,
    /// Strength, in nats, of the shell around the training runs' mean function; 0 is none.
    pub shell: f64,
    /// Strength of the repulsion between fellow samples; 0 is none.
    pub repulsion: f64,
    /// Whether every sample is trained on its own resampled data, as independent runs are.
    pub own_data: bool,
    /// Samples of the frozen proposal that training draws from.
    pub pool: usize,
}

impl Default for RefinerConfig {
    fn default() -> Self {
        Self {
            mu: 0.003,
            steps: 1_000,
            batch_networks: 64,
            batch_examples: 128,
            learning_rate: 1e-3,
            width: 512,
            blocks: 4,
            hinge: true,
            shell: 0.0,
            repulsion: 0.0,
            own_data: false,
            pool: 4_096,
        }
    }
}

impl RefinerConfig {
    /// The generator crate's form of it.
    pub(crate) fn to_refiner(&self) -> weft_gen::RefinerConfig {
        weft_gen::RefinerConfig {
            mu: self.mu,
            hinge: self.hinge,
            shell: self.shell,
            repulsion: self.repulsion,
            own_data: self.own_data,
            steps: self.steps,
            batch_networks: self.batch_networks,
            batch_examples: self.batch_examples,
            learning_rate: self.learning_rate,
            width: self.width,
            blocks: self.blocks,
            pool: self.pool,
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        require("refiner.mu", "0 or more", self.mu >= 0.0 && self.mu.is_finite(), self.mu)?;
        require("refiner.shell", "0 or more", self.shell >= 0.0 && self.shell.is_finite(), self.shell)?;
        require("refiner.repulsion", "0 or more", self.repulsion >= 0.0 && self.repulsion.is_finite(), self.repulsion)?;
        require("refiner.steps", "1 or more", self.steps >= 1, self.steps)?;
        require("refiner.batch-networks", "2 or more", self.batch_networks >= 2, self.batch_networks)?;
        require("refiner.batch-examples", "1 or more", self.batch_examples >= 1, self.batch_examples)?;
        require("refiner.width", "1 or more", self.width >= 1, self.width)?;
        require("refiner.pool", "at least batch-networks", self.pool >= self.batch_networks, self.pool)?;
        let rate = self.learning_rate;
        require("refiner.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)
    }
}
