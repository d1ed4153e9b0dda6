//! `[evaluate.few-examples]`: networks for held-out tasks of which a few examples are known, beside training on these alone.

use super::require;
use serde::{Deserialize, Serialize};

/// What is compared, at which budgets.
///
/// Rates and scales are chosen on training tasks, by validation accuracy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FewExamplesConfig {
    /// Most steps of training on the examples; the curve has the powers of two up to it.
    pub train_steps: u64,
    /// Learning rates of Adam that are tried.
    pub learning_rates: Vec<f64>,
    /// Most steps of the flow; the curve has the powers of two up to it.
    pub flow_steps: usize,
    /// Scales of guidance that are tried.
    pub guide_scales: Vec<f64>,
    /// Training tasks that rates and scales are chosen on.
    pub choose_on: usize,
}

impl Default for FewExamplesConfig {
    fn default() -> Self {
        Self {
            train_steps: 1_024,
            learning_rates: vec![0.001, 0.003, 0.01, 0.03],
            flow_steps: 32,
            guide_scales: vec![0.1, 0.3, 1.0, 3.0],
            choose_on: 16,
        }
    }
}

impl FewExamplesConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = |values: &[f64]| !values.is_empty() && values.iter().all(|v| *v > 0.0 && v.is_finite());
        require("evaluate.few-examples.train-steps", "1 or more", self.train_steps >= 1, self.train_steps)?;
        require("evaluate.few-examples.flow-steps", "1 or more", self.flow_steps >= 1, self.flow_steps)?;
        require("evaluate.few-examples.choose-on", "1 or more", self.choose_on >= 1, self.choose_on)?;
        for (key, values) in [
            ("evaluate.few-examples.learning-rates", &self.learning_rates),
            ("evaluate.few-examples.guide-scales", &self.guide_scales),
        ] {
            require(key, "positive numbers, at least one", positive(values), format!("{values:?}"))?;
        }
        Ok(())
    }
}
