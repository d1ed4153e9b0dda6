//! `[zoo.train]` or `[zoo.existing]`: where the networks come from.

use super::{RecipeConfig, require};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the networks come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZooConfig {
    /// They are trained here.
    Train(TrainZooConfig),
    /// They lie in a zoo already.
    Existing(ExistingZooConfig),
}

/// `[zoo.train]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainZooConfig {
    /// Training runs whose networks everything is fitted on.
    pub runs: usize,
    /// Runs that are held out: the yardstick of accuracy and novelty.
    pub held_out_runs: usize,
    /// Runs that are trained in one batch; the zoo grows by whole batches.
    #[serde(default = "fifty")]
    pub runs_at_once: usize,
    /// SPDX licence expression of the networks, as the data's licence has it.
    #[serde(default = "unknown")]
    pub licence: String,
    /// How they are trained.
    pub recipe: RecipeConfig,
}

fn fifty() -> usize {
    50
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// `[zoo.existing]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExistingZooConfig {
    /// Folder of the zoo; a relative path starts at the current folder.
    pub path: PathBuf,
}

impl ZooConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self::Train(train) = self else { return Ok(()) };
        require("zoo.train.runs", "2 or more", train.runs >= 2, train.runs)?;
        require("zoo.train.held-out-runs", "1 or more: they are the yardstick", train.held_out_runs >= 1, train.held_out_runs)?;
        require("zoo.train.runs-at-once", "1 or more", train.runs_at_once >= 1, train.runs_at_once)
    }
}
