//! `sample.best-of`: of each n samples the one that a judge without test labels puts first.

use super::require;
use serde::{Deserialize, Serialize};

/// How many samples stand for one, and who chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct BestOfConfig {
    /// Samples of which one is kept.
    pub n: usize,
    /// What ranks them.
    pub by: BestBy,
}

/// What ranks samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BestBy {
    /// Their accuracy on the validation part, or on the examples that show their task.
    Validation,
    /// A prediction of accuracy from weights, fitted to training runs.
    Predictor,
    /// How often they say what most of the n say, on validation inputs without labels.
    Agreement,
}

impl BestBy {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Validation, Self::Predictor, Self::Agreement];

    /// Its name in run files and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Predictor => "predictor",
            Self::Agreement => "agreement",
        }
    }
}

impl BestOfConfig {
    pub(crate) fn check(self) -> Result<(), (&'static str, String)> {
        require("sample.best-of", "`n` between 1 and 4096", (1..=4_096).contains(&self.n), self.n)
    }
}
