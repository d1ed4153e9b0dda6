//! `[zoo.train]` or `[zoo.existing]`: where the networks come from.

use super::{GridConfig, RecipeConfig, require};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use weft_core::{ClassSet, HeldOutTasks};

/// Where the networks come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "a run has one")]
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
    /// Training runs whose networks everything is fitted on; not with `tasks` or `grid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<usize>,
    /// Runs that are held out: the yardstick of accuracy and novelty; not with `tasks` or `grid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_out_runs: Option<usize>,
    /// Many tasks instead of the data's own: each run has one, and whole tasks are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tasks: Option<TasksConfig>,
    /// Many recipes instead of one: each run has one, and whole combinations are held out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grid: Option<GridConfig>,
    /// Runs that are trained in one batch; the zoo grows by whole batches.
    #[serde(default = "fifty")]
    pub runs_at_once: usize,
    /// SPDX licence expression of the networks, as the data's licence has it.
    #[serde(default = "unknown")]
    pub licence: String,
    /// How they are trained.
    pub recipe: RecipeConfig,
}

/// `[zoo.train.tasks]`: tasks that are made of the data's classes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TasksConfig {
    /// To tell the classes of a set from all others, for every set but the empty one and the whole.
    Subsets(SubsetsConfig),
}

/// `[zoo.train.tasks.subsets]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SubsetsConfig {
    /// Pairs of a set and its complement that are held out, chosen by their names.
    pub held_out_pairs: usize,
    /// Runs of each task.
    pub per_task: usize,
    /// Single sets that are held out while their complements are trained: an easier question, which others ask.
    #[serde(skip_serializing_if = "is_zero")]
    pub held_out_singles: usize,
    /// All sets with each of these classes, and their complements, are held out as well.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub held_out_containing: Vec<u32>,
}

impl Default for SubsetsConfig {
    fn default() -> Self {
        Self { held_out_pairs: 10, per_task: 1, held_out_containing: Vec::new(), held_out_singles: 0 }
    }
}

impl SubsetsConfig {
    /// The domain's form of what is held out.
    pub(crate) fn held_out(&self) -> weft_core::Result<HeldOutTasks> {
        let classes = &self.held_out_containing;
        let containing = (!classes.is_empty()).then(|| ClassSet::new(classes.iter().copied())).transpose()?;
        Ok(HeldOutTasks { pairs: self.held_out_pairs, singles: self.held_out_singles, containing })
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        require("zoo.train.tasks.subsets.per-task", "1 or more", self.per_task >= 1, self.per_task)?;
        let is_held_out = self.held_out_pairs + self.held_out_singles >= 2 || !self.held_out_containing.is_empty();
        let expected = "2 or more, or `held-out-singles` or `held-out-containing` given: they are the yardstick, and one has no standard error";
        require("zoo.train.tasks.subsets.held-out-pairs", expected, is_held_out, self.held_out_pairs)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &usize) -> bool {
    *count == 0
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
    /// The tasks that runs are trained on, if these are not the data's own.
    #[must_use]
    pub fn tasks(&self) -> Option<&TasksConfig> {
        match self {
            Self::Train(train) => train.tasks.as_ref(),
            Self::Existing(_) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let Self::Train(train) = self else { return Ok(()) };
        for (key, given) in [("zoo.train.runs", train.runs), ("zoo.train.held-out-runs", train.held_out_runs)] {
            let reason = match (&train.tasks, &train.grid, given) {
                (Some(_), _, Some(_)) => "follows from `zoo.train.tasks`; leave it out",
                (_, Some(_), Some(_)) => "follows from `zoo.train.grid`; leave it out",
                (None, None, None) => {
                    "is missing: say how many, or name tasks in `[zoo.train.tasks]` or recipes in `[zoo.train.grid]`"
                }
                _ => continue,
            };
            return Err((key, reason.to_owned()));
        }
        if let Some(grid) = &train.grid {
            grid.check(&train.recipe)?;
            require("zoo.train.grid", "of networks with one task: leave `zoo.train.tasks` out", train.tasks.is_none(), "both")?;
        }
        if let Some(TasksConfig::Subsets(subsets)) = &train.tasks {
            subsets.check()?;
        }
        let (runs, held_out) = (train.runs.unwrap_or(2), train.held_out_runs.unwrap_or(1));
        require("zoo.train.runs", "2 or more", runs >= 2, runs)?;
        require("zoo.train.held-out-runs", "1 or more: they are the yardstick", held_out >= 1, held_out)?;
        require("zoo.train.runs-at-once", "1 or more", train.runs_at_once >= 1, train.runs_at_once)
    }
}
