//! Training recipes.

use crate::{Error, Result};

/// The rule that turns gradients into steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Optimizer {
    /// Stochastic gradient descent, with heavy-ball momentum if it is not 0; weight decay is added to the gradient.
    Sgd {
        /// `μ` in `v ← μv + g`, in `[0, 1)`.
        momentum: f64,
    },
    /// Adam (Kingma & Ba 2015, Algorithm 1); weight decay is added to the gradient.
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
    /// Adam with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2).
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        epsilon: f64,
    },
}

impl Optimizer {
    /// Plain SGD.
    pub const SGD: Self = Self::Sgd { momentum: 0.0 };
    /// Adam with the usual constants.
    pub const ADAM: Self = Self::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
    /// `AdamW` with the usual constants.
    pub const ADAMW: Self = Self::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

    /// The rule's name in conditions.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sgd { .. } => "sgd",
            Self::Adam { .. } => "adam",
            Self::AdamW { .. } => "adamw",
        }
    }
}

/// How the learning rate moves over the steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It rises linearly over `warmup_steps`, then falls along half a cosine to 0.
    Cosine {
        /// Steps of linear warm-up.
        warmup_steps: u64,
    },
}

impl Schedule {
    /// The factor on the learning rate at a step, in `[0, 1]`.
    ///
    /// For `Cosine`: `min(1, (s+1)/w) · ½(1 + cos(π·s/S))`, with `s` counted from 0 and `S` steps in all.
    ///
    /// # References
    /// Loshchilov & Hutter 2017, equation 5, without restarts.
    #[must_use]
    pub fn factor(&self, step: u64, num_steps: u64) -> f64 {
        match *self {
            Self::Constant => 1.0,
            Self::Cosine { warmup_steps } => {
                let warm = if warmup_steps == 0 { 1.0 } else { ((step + 1) as f64 / warmup_steps as f64).min(1.0) };
                let progress = (step as f64 / num_steps.max(1) as f64).min(1.0);
                warm * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos())
            }
        }
    }
}

/// What a run's passes are computed in; weights, moments and sums stay in `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// `f32`.
    #[default]
    Single,
    /// `bf16`, on a GPU alone.
    Bfloat16,
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duration {
    /// Passes over the training examples, each in a new order; the last batch of a pass is dropped if it is not full.
    Epochs(u64),
    /// Optimizer steps, over as many passes as that takes.
    Steps(u64),
}

/// How a network was trained, or is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The optimizer and its constants.
    pub optimizer: Optimizer,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// Weight decay.
    pub weight_decay: f64,
    /// Examples a step.
    pub batch_size: usize,
    /// Length of the run.
    pub duration: Duration,
    /// Steps after which a snapshot is kept, beside the last; in increasing order.
    pub snapshot_steps: Vec<u64>,
    /// What it is computed in.
    pub precision: Precision,
}

impl Recipe {
    /// The number of optimizer steps on `num_examples` training examples.
    #[must_use]
    pub fn num_steps(&self, num_examples: usize) -> u64 {
        match self.duration {
            Duration::Steps(steps) => steps,
            Duration::Epochs(epochs) => epochs * (num_examples / self.batch_size.max(1)) as u64,
        }
    }

    /// The steps whose weights are kept: the snapshot steps and the last step.
    #[must_use]
    pub fn kept_steps(&self, num_examples: usize) -> Vec<u64> {
        let last = self.num_steps(num_examples);
        let mut steps: Vec<u64> = self.snapshot_steps.iter().copied().filter(|&s| s < last).collect();
        steps.push(last);
        steps.dedup();
        steps
    }

    /// Checks the recipe against a number of training examples.
    ///
    /// # Errors
    /// [`Error::Recipe`] names the first setting that is out of range.
    pub fn check(&self, num_examples: usize) -> Result<()> {
        let range =
            |setting, expected, ok: bool, got: String| if ok { Ok(()) } else { Err(Error::Recipe { setting, expected, got }) };
        let rate = self.learning_rate;
        range("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate.to_string())?;
        let decay = self.weight_decay;
        range("weight-decay", "0 or more", decay >= 0.0 && decay.is_finite(), decay.to_string())?;
        let batch = self.batch_size;
        range(
            "batch-size",
            "between 1 and the number of training examples",
            (1..=num_examples).contains(&batch),
            batch.to_string(),
        )?;
        let steps = self.num_steps(num_examples);
        range("epochs or steps", "1 or more", steps > 0, steps.to_string())?;
        let increasing = self.snapshot_steps.windows(2).all(|w| w[0] < w[1]) && self.snapshot_steps.first() != Some(&0);
        range("snapshot-steps", "increasing and at least 1", increasing, format!("{:?}", self.snapshot_steps))?;
        let last = self.snapshot_steps.last().copied().unwrap_or(0);
        range("snapshot-steps", "no later than the last step", last <= steps, last.to_string())?;
        match self.optimizer {
            Optimizer::Sgd { momentum } => range("momentum", "in [0, 1)", (0.0..1.0).contains(&momentum), momentum.to_string()),
            Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
                range("beta1", "in [0, 1)", (0.0..1.0).contains(&beta1), beta1.to_string())?;
                range("beta2", "in [0, 1)", (0.0..1.0).contains(&beta2), beta2.to_string())?;
                range("epsilon", "a positive number", epsilon > 0.0 && epsilon.is_finite(), epsilon.to_string())
            }
        }
    }

    /// `count` log-spaced steps from `first` to `last`, rounded, without repeats.
    #[must_use]
    pub fn log_spaced(first: u64, last: u64, count: usize) -> Vec<u64> {
        let (a, b) = ((first.max(1) as f64).ln(), (last.max(1) as f64).ln());
        let at = |i: usize| if count < 2 { b } else { a + (b - a) * i as f64 / (count - 1) as f64 };
        let mut steps: Vec<u64> = (0..count).map(|i| at(i).exp().round() as u64).collect();
        steps.dedup();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            optimizer: Optimizer::ADAM,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            batch_size: 64,
            duration: Duration::Epochs(5),
            snapshot_steps: vec![],
            precision: Precision::Single,
        }
    }

    #[test]
    fn steps_and_kept_steps() {
        let r = recipe();
        assert_eq!(r.num_steps(55_000), 5 * 859);
        let r = Recipe { duration: Duration::Steps(1500), snapshot_steps: Recipe::log_spaced(15, 1500, 11), ..r };
        assert_eq!(r.kept_steps(55_000), [15, 24, 38, 60, 95, 150, 238, 377, 597, 946, 1500]);
    }

    #[test]
    fn schedule_golden() {
        let s = Schedule::Cosine { warmup_steps: 10 };
        for (step, expected) in [(0, 0.1), (9, 0.980_056_5), (50, 0.5), (100, 0.0)] {
            assert!((s.factor(step, 100) - expected).abs() < 1e-3, "step {step}: {}", s.factor(step, 100));
        }
    }

    #[test]
    fn out_of_range_is_named() {
        let check = |r: Recipe, setting: &str| assert!(r.check(100).unwrap_err().to_string().contains(setting));
        assert!(recipe().check(100).is_ok());
        check(Recipe { learning_rate: f64::NAN, ..recipe() }, "learning-rate");
        check(Recipe { batch_size: 101, ..recipe() }, "batch-size");
        check(Recipe { snapshot_steps: vec![3, 3], ..recipe() }, "snapshot-steps");
        check(Recipe { snapshot_steps: vec![1000], ..recipe() }, "snapshot-steps");
        check(Recipe { optimizer: Optimizer::Sgd { momentum: 1.0 }, ..recipe() }, "momentum");
    }
}
