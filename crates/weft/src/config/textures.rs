//! `[evaluate.textures]`: automata that lie in a zoo are judged by what they grow.

use super::require;
use serde::{Deserialize, Serialize};

/// How textures are grown, and how many the report shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TexturesConfig {
    /// Height and width of the torus, in cells.
    pub side: usize,
    /// Steps from the state 0.
    pub steps: usize,
    /// Automata of each row that the report shows.
    pub shown: usize,
}

impl Default for TexturesConfig {
    fn default() -> Self {
        Self { side: 64, steps: 400, shown: 6 }
    }
}

impl TexturesConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        require("evaluate.textures.side", "3 to 1024 cells", (3..=1024).contains(&self.side), self.side)?;
        require("evaluate.textures.steps", "16 to 100000", (16..=100_000).contains(&self.steps), self.steps)?;
        require("evaluate.textures.shown", "0 to 16", self.shown <= 16, self.shown)
    }
}
