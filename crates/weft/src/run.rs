//! A whole run: the stages in order, each only if it is out of date.

use crate::cache::Completed;
use crate::config::RunConfig;
use crate::report::Report;
use crate::stages::{self, Session};
use crate::{Error, Result};
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use weft_core::Monitor;

/// A stage of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Collect networks.
    Zoo,
    /// Remove symmetries.
    Canonicalize,
    /// Fit the codec.
    Encode,
    /// Train the generator and the refiner.
    Train,
    /// Sample networks.
    Sample,
    /// Measure them.
    Evaluate,
    /// Write them as files.
    Export,
}

impl Stage {
    /// All stages, in order.
    pub const ALL: [Self; 7] =
        [Self::Zoo, Self::Canonicalize, Self::Encode, Self::Train, Self::Sample, Self::Evaluate, Self::Export];

    /// The stage's name on the command line and in stamps.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Zoo => "zoo",
            Self::Canonicalize => "canonicalize",
            Self::Encode => "encode",
            Self::Train => "train",
            Self::Sample => "sample",
            Self::Evaluate => "evaluate",
            Self::Export => "export",
        }
    }
}

impl std::str::FromStr for Stage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|stage| stage.name() == text)
            .ok_or_else(|| format!("`{text}` is not a stage; known: {}", known()))
    }
}

impl Serialize for Stage {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What became of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct StageOutcome {
    /// The stage.
    pub stage: Stage,
    /// Whether an earlier run's output was used as it is.
    pub reused: bool,
    /// How long it took, in seconds, when it ran.
    pub wall_secs: f64,
    /// Where its output is.
    pub folder: PathBuf,
}

impl StageOutcome {
    pub(crate) fn new(stage: Stage, (completed, reused): &(Completed, bool)) -> Self {
        Self { stage, reused: *reused, wall_secs: completed.wall_secs, folder: completed.folder.clone() }
    }
}

/// What a run ended with.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// The stages that were looked at, in order.
    pub stages: Vec<StageOutcome>,
    /// The figures, if the run came to the evaluation.
    pub report: Option<Report>,
    /// The report's page.
    pub page: Option<PathBuf>,
}

/// Runs the stages up to `until`, reusing what is unchanged.
///
/// The resolved run file is written beside the outputs, as `run.toml`. A stop that the monitor asks for leaves
/// everything such that the same call goes on.
///
/// # Errors
/// The first stage's that fails.
pub fn run(config: &RunConfig, until: Stage, monitor: &Monitor) -> Result<Outcome> {
    let until = last_stage(config, until)?;
    let session = Session::open(config, monitor)?;
    let mut outcome = Outcome { stages: Vec::new(), report: None, page: None };
    let mut done = stages::Done::default();
    for stage in Stage::ALL.into_iter().filter(|&stage| stage <= until) {
        // Samples of many tasks are written by task, on demand.
        if stage == Stage::Export && stages::judged_by_tasks(&done) {
            break;
        }
        let completed = session.stage(stage, &mut done).map_err(|error| error.during(stage.name()))?;
        if completed.1 {
            monitor.note(format!("{}: unchanged, reused", stage.name()));
        }
        outcome.stages.push(StageOutcome::new(stage, &completed));
    }
    if until >= Stage::Evaluate {
        let (report, page) = session.report(&done, &outcome.stages)?;
        (outcome.report, outcome.page) = (Some(report), Some(page));
    }
    Ok(outcome)
}

/// Where a run ends: without data nothing but automata can be judged, and samples are files already.
fn last_stage(config: &RunConfig, until: Stage) -> Result<Stage> {
    match until {
        Stage::Evaluate | Stage::Export if config.data.is_none() && config.evaluate.textures.is_some() => Ok(Stage::Evaluate),
        Stage::Evaluate if config.data.is_none() => Err(Error::RunWithoutData { stage: until.name() }),
        Stage::Export if config.data.is_none() => Ok(Stage::Sample),
        _ => Ok(until),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_have_names_and_an_order() {
        for stage in Stage::ALL {
            assert_eq!(stage.name().parse(), Ok(stage));
        }
        assert!(Stage::ALL.is_sorted());
        assert!("trian".parse::<Stage>().unwrap_err().contains("train"));
    }
}
