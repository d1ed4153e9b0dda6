//! `[hyper]`: the hyper-decoder beside a generator.

use super::require;
use serde::{Deserialize, Serialize};

/// A network from a condition to the weights of one network, trained on the tasks of a zoo of many.
///
/// Its loss is `code-weight·|z − ẑ|²/k + task-weight·CE(run(decode(z), batch of the task))`, with `ẑ` the code of the training run
/// whose condition it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct HyperConfig {
    /// How much the squared distance to a run's code counts, a code and in units of its variance; 0 is not at all.
    pub code_weight: f64,
    /// How much the cross-entropy of the decoded network at its task counts, in nats; 0 is not at all.
    pub task_weight: f64,
    /// Training steps.
    pub steps: u64,
    /// Networks a step.
    pub batch_networks: usize,
    /// Training examples a network and step.
    pub batch_examples: usize,
    /// Peak learning rate of `AdamW`.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the moving average that samples.
    pub ema_decay: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// The chance of each network of a step to be of two training runs, mixed by a random share: their conditions, their codes, their losses.
    #[serde(skip_serializing_if = "is_zero")]
    pub mix: f64,
    /// The standard deviation of the noise on a condition in training, in units of each of its numbers' own over training conditions.
    #[serde(skip_serializing_if = "is_zero")]
    pub condition_noise: f64,
    /// Networks that are trained from different seeds, and whose codes are averaged.
    #[serde(skip_serializing_if = "is_one")]
    pub members: usize,
}

impl Default for HyperConfig {
    fn default() -> Self {
        Self {
            code_weight: 0.0,
            task_weight: 1.0,
            steps: 1_000,
            batch_networks: 64,
            batch_examples: 128,
            learning_rate: 1e-3,
            weight_decay: 0.01,
            ema_decay: 0.99,
            width: 512,
            blocks: 4,
            mix: 0.0,
            condition_noise: 0.0,
            members: 1,
        }
    }
}

impl HyperConfig {
    /// The generator crate's form of it.
    pub(crate) fn to_hyper(&self) -> weft_gen::HyperConfig {
        weft_gen::HyperConfig {
            code_weight: self.code_weight,
            task_weight: self.task_weight,
            steps: self.steps,
            batch_networks: self.batch_networks,
            batch_examples: self.batch_examples,
            learning_rate: self.learning_rate,
            weight_decay: self.weight_decay,
            ema_decay: self.ema_decay,
            width: self.width,
            blocks: self.blocks,
            mix: self.mix,
            condition_noise: self.condition_noise,
            members: self.members,
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let is_weight = |weight: f64| weight >= 0.0 && weight.is_finite();
        require("hyper.code-weight", "0 or more", is_weight(self.code_weight), self.code_weight)?;
        let some = self.task_weight > 0.0 || self.code_weight > 0.0;
        let expected = "0 or more, and above 0 if `code-weight` is 0";
        require("hyper.task-weight", expected, is_weight(self.task_weight) && some, self.task_weight)?;
        require("hyper.steps", "1 or more", self.steps >= 1, self.steps)?;
        require("hyper.batch-networks", "1 or more", self.batch_networks >= 1, self.batch_networks)?;
        require("hyper.batch-examples", "1 or more", self.batch_examples >= 1, self.batch_examples)?;
        require("hyper.width", "1 or more", self.width >= 1, self.width)?;
        let rate = self.learning_rate;
        require("hyper.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("hyper.weight-decay", "0 or more", is_weight(self.weight_decay), self.weight_decay)?;
        require("hyper.ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("hyper.mix", "between 0 and 1", (0.0..=1.0).contains(&self.mix), self.mix)?;
        require("hyper.condition-noise", "0 or more", is_weight(self.condition_noise), self.condition_noise)?;
        require("hyper.members", "between 1 and 64", (1..=64).contains(&self.members), self.members)
    }
}

/// Keys that do nothing are left out, so that stages stay those of runs from before there were these keys.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(value: &usize) -> bool {
    *value == 1
}
