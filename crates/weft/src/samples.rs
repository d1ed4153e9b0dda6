//! Samples on demand, beside those of a run.

use crate::config::RunConfig;
use crate::{Error, Result, Stage};
use std::collections::BTreeMap;
use std::path::PathBuf;
use weft_core::Monitor;

/// Networks to sample from a run's generator.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// How many.
    pub count: usize,
    /// The seed; the same seed gives the same networks.
    pub seed: u64,
    /// What is asked for, such as `validation-accuracy`; what is not named is as in the run file.
    pub condition: BTreeMap<String, f64>,
    /// Folder of the files.
    pub folder: PathBuf,
}

/// Samples networks, one `.safetensors` file each, and returns their paths.
///
/// # Errors
/// A condition that the generator was not trained on, or a run whose generator cannot be trained.
pub fn sample(config: &RunConfig, _request: &SampleRequest, _monitor: &Monitor) -> Result<Vec<PathBuf>> {
    Err(Error::NotRun { output: config.run.output.clone(), stage: Stage::Train.name() })
}
