//! Samples on demand, beside those of a run.

use crate::config::{Asked, RunConfig, condition_of};
use crate::stages::{Done, Session, check_generator, on_demand};
use crate::{Result, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_core::{ExampleSet, Monitor};
use weft_gen::ExampleEncoder;

/// One of a run's own generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GeneratorName {
    /// The flow.
    Flow,
    /// The flow with its refiner.
    Refined,
    /// The hyper-decoder.
    Hyper,
}

impl GeneratorName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Flow, Self::Refined, Self::Hyper];

    /// Its name in commands, messages and files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Refined => "refined",
            Self::Hyper => "hyper",
        }
    }
}

/// Networks to sample from a run's generator.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleRequest {
    /// How many.
    pub count: usize,
    /// The seed; the same seed gives the same networks.
    pub seed: u64,
    /// What is asked for, such as `validation-accuracy`; what is not named is as in the run file. `examples` names an npz file of inputs
    /// `x`, `[m, …]`, and labels `y`, `[m]`.
    pub condition: BTreeMap<String, Asked>,
    /// Which generator; the flow with its refiner, or without if there is none, where it is not said.
    pub generator: Option<GeneratorName>,
    /// Folder of the files.
    pub folder: PathBuf,
}

/// Samples networks, one `.safetensors` file each, and returns their paths.
///
/// Stages up to the generator's training run first, if they are out of date.
///
/// # Errors
/// A condition that the generator was not trained on or of another form, a generator that the run does not have, or a run whose generator cannot be trained.
pub fn sample(config: &RunConfig, request: &SampleRequest, monitor: &Monitor) -> Result<Vec<PathBuf>> {
    // Fields that no generator of this run file can know are refused before a stage runs for them.
    let fields: Vec<_> = config.generator.conditions().iter().map(|field| field.to_field(None)).collect();
    let (request, shown) = &with_examples(config, request)?;
    condition_of(&request.condition, &fields)?;
    request.generator.map_or(Ok(()), |name| check_generator(config, name))?;
    let session = Session::open(config, monitor)?;
    let mut done = Done::default();
    for stage in Stage::ALL.into_iter().filter(|&stage| stage <= Stage::Train) {
        session.stage(stage, &mut done).map_err(|error| error.during(stage.name()))?;
    }
    on_demand(&session, &done, request, shown.as_ref())
}

/// The request without the file of examples that its condition names, and these.
fn with_examples(config: &RunConfig, request: &SampleRequest) -> Result<(SampleRequest, Option<ExampleSet>)> {
    let mut request = request.clone();
    if !config.generator.conditions().iter().any(|field| field.kind.examples().is_some()) {
        return Ok((request, None));
    }
    let Some(asked) = request.condition.remove(ExampleEncoder::FIELD) else { return Ok((request, None)) };
    let refuse = || weft_core::Error::Examples { reason: "the condition `examples` names the npz file of them".to_owned() };
    let path = asked.as_text().ok_or_else(refuse)?;
    Ok((request, Some(weft_zoo::data::examples(Path::new(path))?)))
}
