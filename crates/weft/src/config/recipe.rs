//! `[zoo.train.recipe]`: how the zoo's networks are trained.

use super::Nothing;
use serde::{Deserialize, Serialize};
use weft_core::{Duration, Optimizer, Precision, Recipe, Schedule};

/// A training recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecipeConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Examples a step.
    pub batch_size: usize,
    /// Weight decay: added to the gradient, decoupled for `adamw`.
    #[serde(default)]
    pub weight_decay: f64,
    /// Length of a run: `{ epochs = 5 }` or `{ steps = 1500 }`.
    pub duration: DurationConfig,
    /// Snapshots beside the last network: `{ steps = [10, 100] }` or `{ log-spaced = { first = 15, count = 11 } }`.
    #[serde(default)]
    pub snapshots: SnapshotsConfig,
    /// `[….optimizer.sgd]`, `[….optimizer.adam]` or `[….optimizer.adamw]`.
    pub optimizer: OptimizerConfig,
    /// `[….schedule.constant]` or `[….schedule.cosine]`.
    #[serde(default)]
    pub schedule: ScheduleConfig,
    /// What passes are computed in: `"f32"`, or `"bf16"` on a GPU.
    #[serde(default, skip_serializing_if = "PrecisionConfig::is_single")]
    pub precision: PrecisionConfig,
}

/// What the passes of a training run are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionConfig {
    /// `f32`.
    #[default]
    F32,
    /// `bf16`, with weights, moments and sums in `f32`; on a GPU alone.
    Bf16,
}

impl PrecisionConfig {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
    fn is_single(&self) -> bool {
        *self == Self::F32
    }
}

/// Length of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DurationConfig {
    /// Passes over the training examples.
    Epochs(u64),
    /// Optimizer steps.
    Steps(u64),
}

/// Which snapshots of a run are kept beside the last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotsConfig {
    /// After these steps.
    Steps(Vec<u64>),
    /// At log-spaced steps up to the last.
    LogSpaced(LogSpacedConfig),
}

impl Default for SnapshotsConfig {
    fn default() -> Self {
        Self::Steps(Vec::new())
    }
}

/// Log-spaced snapshots, the last step among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogSpacedConfig {
    /// The first step.
    pub first: u64,
    /// How many, the last step included.
    pub count: usize,
}

/// The rule that turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent.
    Sgd(SgdConfig),
    /// Adam.
    Adam(AdamConfig),
    /// Adam with decoupled weight decay.
    #[serde(rename = "adamw")]
    AdamW(AdamConfig),
}

/// `[….optimizer.sgd]`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SgdConfig {
    /// Heavy-ball momentum, in `[0, 1)`.
    pub momentum: f64,
}

/// `[….optimizer.adam]` and `[….optimizer.adamw]`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// The course of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScheduleConfig {
    /// It stays.
    Constant(Nothing),
    /// Linear warm-up, then half a cosine to 0.
    Cosine(CosineConfig),
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        Self::Constant(Nothing {})
    }
}

/// `[….schedule.cosine]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CosineConfig {
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
}

impl RecipeConfig {
    /// The recipe for a number of training examples, which decides how many steps an epoch has.
    ///
    /// # Errors
    /// [`weft_core::Error::Recipe`] names the first setting that is out of range.
    pub fn to_recipe(&self, num_examples: usize) -> weft_core::Result<Recipe> {
        let mut recipe = Recipe {
            optimizer: self.optimizer.to_optimizer(),
            learning_rate: self.learning_rate,
            schedule: match self.schedule {
                ScheduleConfig::Constant(_) => Schedule::Constant,
                ScheduleConfig::Cosine(c) => Schedule::Cosine { warmup_steps: c.warmup_steps },
            },
            weight_decay: self.weight_decay,
            batch_size: self.batch_size,
            duration: match self.duration {
                DurationConfig::Epochs(n) => Duration::Epochs(n),
                DurationConfig::Steps(n) => Duration::Steps(n),
            },
            snapshot_steps: Vec::new(),
            precision: match self.precision {
                PrecisionConfig::F32 => Precision::Single,
                PrecisionConfig::Bf16 => Precision::Bfloat16,
            },
        };
        recipe.snapshot_steps = match &self.snapshots {
            SnapshotsConfig::Steps(steps) => steps.clone(),
            SnapshotsConfig::LogSpaced(s) => Recipe::log_spaced(s.first, recipe.num_steps(num_examples), s.count),
        };
        recipe.check(num_examples)?;
        Ok(recipe)
    }
}

impl OptimizerConfig {
    fn to_optimizer(self) -> Optimizer {
        match self {
            Self::Sgd(s) => Optimizer::Sgd { momentum: s.momentum },
            Self::Adam(a) => Optimizer::Adam { beta1: a.beta1, beta2: a.beta2, epsilon: a.epsilon },
            Self::AdamW(a) => Optimizer::AdamW { beta1: a.beta1, beta2: a.beta2, epsilon: a.epsilon },
        }
    }
}
