//! Samples on demand, beside those of a run.

use crate::config::{Asked, BestOfConfig, RunConfig, condition_of};
use crate::stages::{Done, Session, check_generator, on_demand};
use crate::{Error, Result, Stage};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_core::{ExampleSet, InputSet, Monitor};

/// Samples that may be asked for at a time, at most.
const MOST_NETWORKS: usize = 1_000_000;
/// Weights of all samples, those included of which a best is kept, at most: 8 GiB.
const MOST_WEIGHTS: usize = 1 << 31;

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
    /// `x`, `[m, …]`, and labels `y`, `[m]`; `inputs` one of inputs alone, `x` or `inputs`.
    pub condition: BTreeMap<String, Asked>,
    /// Which generator; the flow with its refiner, or without if there is none, where it is not said.
    pub generator: Option<GeneratorName>,
    /// Folder of the files.
    pub folder: PathBuf,
}

/// How samples are made, beyond what a run file says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SampleOptions {
    /// Examples that steer the flow.
    pub guide: Option<GuideRequest>,
    /// How many samples stand for one, and what chooses it; as the run file has it where it is not said.
    pub best_of: Option<BestOfConfig>,
}

/// Examples that steer the flow while it samples, by the gradient of their loss.
#[derive(Debug, Clone, PartialEq)]
pub struct GuideRequest {
    /// An npz file of inputs `x`, `[m, …]`, and labels `y`, `[m]`.
    pub examples: PathBuf,
    /// How much they steer: 1 is Bayes' rule.
    pub scale: f64,
    /// Steps from noise to data; those of the run file where it is not said.
    pub steps: Option<usize>,
}

/// What a request's condition shows a generator.
#[derive(Debug, Clone)]
pub(crate) enum ShownFile {
    /// Labelled examples.
    Examples(ExampleSet),
    /// Inputs alone, and whether their file has labels, which are not read.
    Inputs { inputs: InputSet, has_labels: bool },
}

impl ShownFile {
    /// The examples, if they are labelled.
    pub(crate) fn examples(&self) -> Option<&ExampleSet> {
        if let Self::Examples(examples) = self { Some(examples) } else { None }
    }
}

/// What a request's files hold.
pub(crate) struct Files {
    /// The examples of the condition, if it has some.
    pub(crate) shown: Option<ShownFile>,
    /// Those that steer, with how much and in how many steps.
    pub(crate) guide: Option<(ExampleSet, GuideRequest)>,
    /// How many samples stand for one.
    pub(crate) best_of: Option<BestOfConfig>,
}

/// Samples networks, one `.safetensors` file each, and returns their paths.
///
/// Stages up to the generator's training run first, if they are out of date.
///
/// # Errors
/// A condition that the generator was not trained on or of another form, a generator that the run does not have, or a run whose generator cannot be trained.
pub fn sample(config: &RunConfig, request: &SampleRequest, monitor: &Monitor) -> Result<Vec<PathBuf>> {
    sample_with(config, request, &SampleOptions::default(), monitor)
}

/// The same with options.
///
/// # Errors
/// As [`sample`]; examples that cannot be read or do not fit the networks, and a guide of a generator without a flow.
pub fn sample_with(
    config: &RunConfig,
    request: &SampleRequest,
    options: &SampleOptions,
    monitor: &Monitor,
) -> Result<Vec<PathBuf>> {
    // Fields that no generator of this run file can know are refused before a stage runs for them.
    let fields: Vec<_> = config.generator.conditions().iter().map(|field| field.to_field(None)).collect();
    let (request, shown) = &with_examples(config, request)?;
    condition_of(&request.condition, &fields)?;
    request.generator.map_or(Ok(()), |name| check_generator(config, name))?;
    let guide = options.guide.as_ref().map(|guide| read_guide(config, request, guide)).transpose()?;
    let best_of = options.best_of.or(config.sample.best_of);
    if let Some(n) = best_of.filter(|best_of| best_of.check().is_err()).map(|best_of| best_of.n) {
        let (expected, got) = ("between 1 and 4096".to_owned(), n.to_string());
        return Err(Error::Range { what: "the n of a best of n", expected, got });
    }
    if !(1..=MOST_NETWORKS).contains(&request.count) {
        let (expected, got) = (format!("between 1 and {MOST_NETWORKS}"), request.count.to_string());
        return Err(Error::Range { what: "the number of samples", expected, got });
    }
    if best_of.is_some() && config.data.is_none() {
        return Err(Error::RunWithoutData { stage: "best-of" });
    }
    let files = Files { shown: shown.clone(), guide, best_of };
    let session = Session::open(config, monitor)?;
    let mut done = Done::default();
    for stage in Stage::ALL.into_iter().filter(|&stage| stage <= Stage::Train) {
        session.stage(stage, &mut done).map_err(|error| error.during(stage.name()))?;
    }
    on_demand(&session, &done, request, &files)
}

/// Refuses more samples at a time than should be held.
pub(crate) fn check_weights(networks: usize, each: usize) -> Result<()> {
    let got = networks.saturating_mul(each);
    if got <= MOST_WEIGHTS {
        return Ok(());
    }
    let expected = format!("{MOST_WEIGHTS} at most; ask for fewer samples at a time, under several seeds");
    Err(Error::Range { what: "the weights of all samples", expected, got: got.to_string() })
}

/// Examples that steer, refused before a stage runs for them where there is nothing to steer.
fn read_guide(config: &RunConfig, request: &SampleRequest, guide: &GuideRequest) -> Result<(ExampleSet, GuideRequest)> {
    let refuse = |what, expected: &str, got: &str| Err(Error::Range { what, expected: expected.to_owned(), got: got.to_owned() });
    if config.data.is_none() {
        return Err(Error::RunWithoutData { stage: "guide" });
    }
    if request.generator == Some(GeneratorName::Hyper) {
        return refuse("what examples guide", "the flow, refined or not", GeneratorName::Hyper.name());
    }
    if guide.steps == Some(0) {
        return refuse("the number of guided steps", "1 or more", "0");
    }
    Ok((weft_zoo::data::examples(&guide.examples)?, guide.clone()))
}

/// The request without the file of examples or inputs that its condition names, and these.
fn with_examples(config: &RunConfig, request: &SampleRequest) -> Result<(SampleRequest, Option<ShownFile>)> {
    let mut request = request.clone();
    let Some(field) = config.generator.conditions().iter().find(|field| field.kind.shows()) else { return Ok((request, None)) };
    let Some(asked) = request.condition.remove(&field.name) else { return Ok((request, None)) };
    let reason = format!("the condition `{}` names the npz file of them", field.name);
    let shown = match (field.kind.inputs(), asked.as_text().map(Path::new)) {
        (Some(_), Some(path)) => {
            let (inputs, has_labels) = weft_zoo::data::inputs(path)?;
            ShownFile::Inputs { inputs, has_labels }
        }
        (Some(_), None) => return Err(weft_core::Error::Inputs { reason }.into()),
        (None, Some(path)) => ShownFile::Examples(weft_zoo::data::examples(path)?),
        (None, None) => return Err(weft_core::Error::Examples { reason }.into()),
    };
    Ok((request, Some(shown)))
}
