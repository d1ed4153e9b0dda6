//! Recipes as JSON, in a form that never changes for equal recipes: a zoo interns them by their text.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use weft_core::{Duration, Optimizer, Precision, Recipe, Schedule};

/// Writes a recipe as one line of JSON.
///
/// A figure that is not finite becomes `null`, which no reader takes; [`Recipe::check`] refuses such recipes.
///
/// # Examples
/// ```
/// # use weft_core::{Duration, Optimizer, Precision, Recipe, Schedule};
/// let recipe = Recipe {
///     optimizer: Optimizer::Sgd { momentum: 0.9 },
///     learning_rate: 0.1,
///     schedule: Schedule::Cosine { warmup_steps: 10 },
///     weight_decay: 0.0,
///     batch_size: 64,
///     duration: Duration::Epochs(5),
///     snapshot_steps: vec![1, 2],
///     precision: Precision::Single,
/// };
/// let json = weft_zoo::recipe_to_json(&recipe);
/// assert!(json.starts_with(r#"{"optimizer":{"sgd":{"momentum":0.9}},"learning-rate":0.1"#));
/// assert_eq!(weft_zoo::recipe_from_json(&json).unwrap(), recipe);
/// ```
#[must_use]
#[expect(clippy::missing_panics_doc, reason = "numbers and names always serialize")]
pub fn recipe_to_json(recipe: &Recipe) -> String {
    serde_json::to_string(&RecipeJson::from(recipe)).expect("numbers and names always serialize")
}

/// Reads a recipe from JSON.
///
/// # Errors
/// [`Error::Json`] with line and column.
pub fn recipe_from_json(text: &str) -> Result<Recipe> {
    let json: RecipeJson = serde_json::from_str(text).map_err(|e| Error::Json { what: "recipe", reason: e.to_string() })?;
    Ok(json.into())
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RecipeJson {
    optimizer: OptimizerJson,
    learning_rate: f64,
    schedule: ScheduleJson,
    weight_decay: f64,
    batch_size: usize,
    duration: DurationJson,
    snapshot_steps: Vec<u64>,
    #[serde(default, skip_serializing_if = "PrecisionJson::is_single")]
    precision: PrecisionJson,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(rename_all = "kebab-case")]
enum PrecisionJson {
    #[default]
    F32,
    Bf16,
}

impl PrecisionJson {
    fn is_single(&self) -> bool {
        matches!(self, Self::F32)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum OptimizerJson {
    Sgd { momentum: f64 },
    Adam { beta1: f64, beta2: f64, epsilon: f64 },
    AdamW { beta1: f64, beta2: f64, epsilon: f64 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
enum ScheduleJson {
    Constant,
    Cosine { warmup_steps: u64 },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DurationJson {
    Epochs(u64),
    Steps(u64),
}

impl From<&Recipe> for RecipeJson {
    fn from(recipe: &Recipe) -> Self {
        Self {
            optimizer: match recipe.optimizer {
                Optimizer::Sgd { momentum } => OptimizerJson::Sgd { momentum },
                Optimizer::Adam { beta1, beta2, epsilon } => OptimizerJson::Adam { beta1, beta2, epsilon },
                Optimizer::AdamW { beta1, beta2, epsilon } => OptimizerJson::AdamW { beta1, beta2, epsilon },
            },
            learning_rate: recipe.learning_rate,
            schedule: match recipe.schedule {
                Schedule::Constant => ScheduleJson::Constant,
                Schedule::Cosine { warmup_steps } => ScheduleJson::Cosine { warmup_steps },
            },
            weight_decay: recipe.weight_decay,
            batch_size: recipe.batch_size,
            duration: match recipe.duration {
                Duration::Epochs(epochs) => DurationJson::Epochs(epochs),
                Duration::Steps(steps) => DurationJson::Steps(steps),
            },
            snapshot_steps: recipe.snapshot_steps.clone(),
            precision: match recipe.precision {
                Precision::Single => PrecisionJson::F32,
                Precision::Bfloat16 => PrecisionJson::Bf16,
            },
        }
    }
}

impl From<RecipeJson> for Recipe {
    fn from(json: RecipeJson) -> Self {
        Self {
            optimizer: match json.optimizer {
                OptimizerJson::Sgd { momentum } => Optimizer::Sgd { momentum },
                OptimizerJson::Adam { beta1, beta2, epsilon } => Optimizer::Adam { beta1, beta2, epsilon },
                OptimizerJson::AdamW { beta1, beta2, epsilon } => Optimizer::AdamW { beta1, beta2, epsilon },
            },
            learning_rate: json.learning_rate,
            schedule: match json.schedule {
                ScheduleJson::Constant => Schedule::Constant,
                ScheduleJson::Cosine { warmup_steps } => Schedule::Cosine { warmup_steps },
            },
            weight_decay: json.weight_decay,
            batch_size: json.batch_size,
            duration: match json.duration {
                DurationJson::Epochs(epochs) => Duration::Epochs(epochs),
                DurationJson::Steps(steps) => Duration::Steps(steps),
            },
            snapshot_steps: json.snapshot_steps,
            precision: match json.precision {
                PrecisionJson::F32 => Precision::Single,
                PrecisionJson::Bf16 => Precision::Bfloat16,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_exactly() {
        let base = Recipe {
            optimizer: Optimizer::ADAM,
            learning_rate: 0.1 + 0.2,
            schedule: Schedule::Constant,
            weight_decay: 5e-324,
            batch_size: 64,
            duration: Duration::Steps(u64::MAX),
            snapshot_steps: vec![15, 24],
            precision: Precision::Single,
        };
        let others = [
            Recipe { optimizer: Optimizer::ADAMW, ..base.clone() },
            Recipe { optimizer: Optimizer::Sgd { momentum: 0.0 }, ..base.clone() },
            Recipe { schedule: Schedule::Cosine { warmup_steps: 3 }, ..base.clone() },
            Recipe { duration: Duration::Epochs(5), snapshot_steps: vec![], ..base.clone() },
            Recipe { precision: Precision::Bfloat16, ..base.clone() },
        ];
        for recipe in others.iter().chain([&base]) {
            assert_eq!(recipe_from_json(&recipe_to_json(recipe)).unwrap(), *recipe);
        }
    }

    #[test]
    fn foreign_text_is_refused() {
        for text in ["", "{}", "[1]", r#"{"optimizer":"adam"}"#] {
            assert!(matches!(recipe_from_json(text), Err(Error::Json { what: "recipe", .. })), "{text}");
        }
    }
}
