//! `[zoo.train.grid]`: a zoo of many recipes.

use super::recipe::{DurationConfig, OptimizerConfig, RecipeConfig};
use super::require;
use serde::{Deserialize, Serialize};

/// Recipes that differ from `zoo.train.recipe` in some settings: every combination of the values that are listed; a setting without a list
/// stays as it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GridConfig {
    /// Combinations that are held out whole, chosen by their names.
    pub held_out: usize,
    /// Runs of each combination.
    pub per_combination: usize,
    /// Peak learning rates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learning_rate: Vec<f64>,
    /// Weight decays.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weight_decay: Vec<f64>,
    /// Optimizers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optimizer: Vec<OptimizerConfig>,
    /// Optimizer steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<u64>,
}

/// The most combinations.
const MAX_COMBINATIONS: usize = 4_096;

impl Default for GridConfig {
    fn default() -> Self {
        let (learning_rate, weight_decay, optimizer, steps) = Default::default();
        Self { held_out: 8, per_combination: 8, learning_rate, weight_decay, optimizer, steps }
    }
}

/// The values of a list, or the one that stands in for an empty one.
fn or_own<T: Clone>(listed: &[T], own: T) -> Vec<T> {
    if listed.is_empty() { vec![own] } else { listed.to_vec() }
}

impl GridConfig {
    /// All combinations, each with a name that tells it from the others.
    pub(crate) fn recipes(&self, base: &RecipeConfig) -> Vec<(String, RecipeConfig)> {
        let durations: Vec<DurationConfig> = self.steps.iter().map(|&steps| DurationConfig::Steps(steps)).collect();
        let mut recipes = Vec::new();
        for optimizer in or_own(&self.optimizer, base.optimizer) {
            for learning_rate in or_own(&self.learning_rate, base.learning_rate) {
                for weight_decay in or_own(&self.weight_decay, base.weight_decay) {
                    for duration in or_own(&durations, base.duration) {
                        let recipe = RecipeConfig { learning_rate, weight_decay, duration, optimizer, ..base.clone() };
                        recipes.push((self.name(&recipe), recipe));
                    }
                }
            }
        }
        recipes
    }

    /// The settings that differ, in words.
    fn name(&self, recipe: &RecipeConfig) -> String {
        let optimizer = match recipe.optimizer {
            OptimizerConfig::Sgd(sgd) => format!("sgd momentum {}", sgd.momentum),
            OptimizerConfig::Adam(_) => "adam".to_owned(),
            OptimizerConfig::AdamW(_) => "adamw".to_owned(),
        };
        let duration = match recipe.duration {
            DurationConfig::Epochs(epochs) => format!("epochs {epochs}"),
            DurationConfig::Steps(steps) => format!("steps {steps}"),
        };
        let named = [
            (!self.optimizer.is_empty()).then_some(optimizer),
            (!self.learning_rate.is_empty()).then(|| format!("lr {}", recipe.learning_rate)),
            (!self.weight_decay.is_empty()).then(|| format!("wd {}", recipe.weight_decay)),
            (!self.steps.is_empty()).then_some(duration),
        ];
        named.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }

    pub(super) fn check(&self, base: &RecipeConfig) -> Result<(), (&'static str, String)> {
        let count = [self.learning_rate.len(), self.weight_decay.len(), self.optimizer.len(), self.steps.len()]
            .into_iter()
            .fold(1, |count: usize, len| count.saturating_mul(len.max(1)));
        let expected = "a list of values or more, of 7 to 4096 combinations";
        require("zoo.train.grid", expected, (7..=MAX_COMBINATIONS).contains(&count), format!("{count} combinations"))?;
        let expected = "5 or more, so that an order of them means something, and fewer than all but one";
        require("zoo.train.grid.held-out", expected, self.held_out >= 5 && self.held_out + 2 <= count, self.held_out)?;
        let expected = "2 or more: one half of them says how well the other can be known";
        require("zoo.train.grid.per-combination", expected, self.per_combination >= 2, self.per_combination)?;
        let mut names: Vec<String> = self.recipes(base).into_iter().map(|(name, _)| name).collect();
        names.sort();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map_or("none", |pair| pair[0].as_str());
        require("zoo.train.grid", "combinations of different names", twice == "none", format!("`{twice}` twice"))
    }
}
