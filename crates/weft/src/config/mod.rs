//! The run file: what a whole run does, as TOML.
//!
//! A run file has one table a stage. A choice between alternatives is the *name* of a table
//! (`[data.digits]`, `[generator.flow]`), never a `kind = "…"`, so that a typo is reported at its own line
//! and column with the nearest key that exists. Most keys have a default; [`RunConfig::to_toml`] writes them
//! all out, and what it writes parses to the same value. `--set a.b=c` replaces a key by its dotted path and
//! is checked by the same types.
//!
//! The types here are the façade's own: the domain types below know no format.

mod adapter;
mod adapter_generate;
mod adapter_intents;
mod best;
mod condition;
mod data;
mod device;
mod diagnose;
mod encode;
mod evaluate;
mod few;
mod generate;
mod grid;
mod hyper;
mod memory;
mod overrides;
mod recipe;
mod refiner;
mod text;
mod textures;
mod tokens;
mod zoo;

pub use adapter::{AdapterRunConfig, AdapterRunSection, AdapterTaskConfig, BaseConfig, LanguagesConfig, LoraTable, StartConfig};
pub use adapter_generate::{CodeFlowConfig, CodeRefinerConfig, FewStepsConfig, GenerateConfig};
pub use adapter_intents::{IntentsConfig, ShownConfig};
pub use best::{BestBy, BestOfConfig};
pub(crate) use condition::condition_of;
pub use condition::{Asked, FieldConfig, FieldKindName};
pub use data::{ArchitectureConfig, DataConfig, FileConfig, IdxConfig, MlpConfig, Nothing, NpzConfig, data_folder};
pub use device::DeviceConfig;
pub use diagnose::ConfigError;
pub use encode::{Align, By, CanonicalizeConfig, CodecConfig, IdentityConfig, NormalizeConfig, PcaConfig, RankConfig};
pub use evaluate::{BaselineName, BaselinesConfig, EvaluateConfig, ExportConfig};
pub use few::FewExamplesConfig;
pub use generate::{FlowConfig, GeneratorConfig, SampleConfig, SamplerConfig, StepsConfig};
pub use grid::GridConfig;
pub use hyper::HyperConfig;
pub use memory::MemoryConfig;
pub use recipe::{
    AdamConfig, CosineConfig, DurationConfig, LogSpacedConfig, OptimizerConfig, RecipeConfig, ScheduleConfig, SgdConfig,
    SnapshotsConfig,
};
pub use refiner::RefinerConfig;
pub use text::{BertConfig, TextConfig};
pub use textures::TexturesConfig;
pub use tokens::TokensConfig;
pub use zoo::{ExistingZooConfig, SubsetsConfig, TasksConfig, TrainZooConfig, ZooConfig};

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use weft_core::Task;

/// The run file of `weft quickstart`, as it stands in `configs/`.
pub const QUICKSTART: &str = include_str!("../../../../configs/quickstart.toml");

/// A whole run file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunConfig {
    /// Name, seed, device and output of the run.
    pub run: RunSection,
    /// The examples that networks are trained and judged on; without them a run takes networks that lie in a zoo to samples,
    /// in as much memory as `run.memory` says, and judges texture automata if `[evaluate.textures]` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataConfig>,
    /// What is trained; not needed with `[zoo.existing]`, which knows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<ArchitectureConfig>,
    /// Where the networks come from.
    pub zoo: ZooConfig,
    /// How symmetries are removed.
    #[serde(default)]
    pub canonicalize: CanonicalizeConfig,
    /// How canonical weights become codes.
    #[serde(default)]
    pub codec: CodecConfig,
    /// What learns the distribution of codes.
    #[serde(default)]
    pub generator: GeneratorConfig,
    /// How texts of conditions become numbers.
    #[serde(default, skip_serializing_if = "TextConfig::is_default")]
    pub text: TextConfig,
    /// How the flow's differential equation is solved.
    #[serde(default)]
    pub sampler: SamplerConfig,
    /// How many networks are sampled, under which condition.
    #[serde(default)]
    pub sample: SampleConfig,
    /// The function-aware refiner behind the generator; without this table there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refiner: Option<RefinerConfig>,
    /// The hyper-decoder beside the generator, for networks of many tasks; without this table there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hyper: Option<HyperConfig>,
    /// The trivial generators that ours is held against.
    #[serde(default)]
    pub baselines: BaselinesConfig,
    /// What the validation measures.
    #[serde(default)]
    pub evaluate: EvaluateConfig,
    /// Which networks are written as files.
    #[serde(default)]
    pub export: ExportConfig,
}

/// `[run]`: what concerns all stages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RunSection {
    /// Name of the run, for the report's title.
    pub name: String,
    /// Seed of everything random.
    #[serde(default)]
    pub seed: u64,
    /// Folder of all outputs; relative paths start at the current folder.
    pub output: PathBuf,
    /// Where networks and generators are trained: `auto`, `cpu`, `cuda:N`, or several GPUs as `cuda:0,cuda:1`.
    #[serde(default)]
    pub device: DeviceConfig,
    /// The memory that a run without `[data.…]` keeps within, such as `4GB`, which is also the default; its results do not
    /// depend on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryConfig>,
}

impl RunConfig {
    /// Reads a run file and applies overrides.
    ///
    /// # Errors
    /// [`ConfigError`] with the line and column of what is wrong, or with the override that is.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, &path.display().to_string(), overrides)
    }

    /// The configuration of `weft quickstart`, with overrides.
    ///
    /// # Errors
    /// [`ConfigError`] with the override that is wrong.
    pub fn quickstart(overrides: &[String]) -> Result<Self, ConfigError> {
        Self::parse(QUICKSTART, "quickstart.toml", overrides)
    }

    /// Parses a run file's text and applies overrides; `origin` names the text in messages.
    ///
    /// # Errors
    /// As [`RunConfig::read`].
    ///
    /// # Examples
    /// ```
    /// use weft::config::{QUICKSTART, RunConfig};
    /// let config = RunConfig::parse(QUICKSTART, "quickstart.toml", &["run.seed=7".to_owned()]).unwrap();
    /// assert_eq!(config.run.seed, 7);
    /// let error = RunConfig::parse("[run]\nnmae = \"x\"", "run.toml", &[]).unwrap_err();
    /// assert_eq!(error.to_string(), "run.toml:2:1: unknown key `nmae`");
    /// assert_eq!(error.hint().unwrap(), "did you mean `name`? keys here: `name`, `seed`, `output`, `device`, `memory`");
    /// ```
    pub fn parse(text: &str, origin: &str, overrides: &[String]) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::at(origin, text, &e))?;
        config.check().map_err(|(key, reason)| ConfigError::out_of_range(origin, text, key, &reason))?;
        overrides::apply(config, text, overrides, Self::check)
    }

    /// The configuration with every default written out.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field of a run file has a TOML form")
    }

    /// Checks what the types alone do not: the first key out of range, with the reason.
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.run.name.is_empty() {
            return Err(("run.name", "must not be empty".to_owned()));
        }
        if self.architecture.is_none() && matches!(self.zoo, ZooConfig::Train(_)) {
            return Err(("zoo.train", "needs an `[architecture.mlp]` or `[architecture.file]` to train".to_owned()));
        }
        let reads_texts = self.generator.conditions().iter().any(|field| field.kind == FieldKindName::Text);
        require("text", "left out: no condition is a text", reads_texts || self.text.is_default(), "an encoder")?;
        self.check_data()?;
        self.zoo.check()?;
        self.canonicalize.check()?;
        self.codec.check()?;
        self.generator.check()?;
        self.sampler.check(&self.generator)?;
        self.sample.check(&self.generator)?;
        self.refiner.as_ref().map_or(Ok(()), RefinerConfig::check)?;
        self.hyper.as_ref().map_or(Ok(()), HyperConfig::check)?;
        if let Some(n) = self.evaluate.best_of {
            let fits = n >= 1 && self.sample.count.is_multiple_of(n) && self.sample.best_of.is_none();
            require("evaluate.best-of", "a divisor of `sample.count`, without `sample.best-of`", fits, n)?;
        }
        self.check_tasks()?;
        self.check_tokens()?;
        self.baselines.check()?;
        self.evaluate.check()
    }

    /// Checks what networks of many tasks leave undefined, and what needs them.
    fn check_tasks(&self) -> Result<(), (&'static str, String)> {
        let describes = |field: &FieldConfig| field.name == Task::TEXT && field.kind == FieldKindName::Text;
        let names_task = |field: &FieldConfig| {
            field.kind.shows() || describes(field) || (field.name == Task::LABEL && field.kind == FieldKindName::Classes)
        };
        if let Some(TasksConfig::Subsets(subsets)) = self.zoo.tasks() {
            let expected = "the names of all classes, where `description` is a condition";
            let is_named = !subsets.names.is_empty() || !self.generator.conditions().iter().any(describes);
            require("zoo.train.tasks.subsets.names", expected, is_named, "none")?;
        }
        let is_labelled = self.generator.conditions().iter().any(|field| field.kind.examples().is_some());
        if self.evaluate.few_examples.is_some() && !is_labelled {
            return Err(("evaluate.few-examples", "needs `{ examples = 16 }` in `generator.flow.conditions`".to_owned()));
        }
        if self.zoo.tasks().is_none() {
            let is_trained = matches!(self.zoo, ZooConfig::Train(_));
            if is_trained && self.evaluate.best_of.is_some() {
                let reason = "is measured on held-out tasks, and the networks of this zoo have one; use `sample.best-of`";
                return Err(("evaluate.best-of", reason.to_owned()));
            }
            if let Some(field) = self.generator.conditions().iter().find(|field| is_trained && field.kind.shows()) {
                let reason = "which show tasks, and the networks of this zoo have one; name many in `zoo.train.tasks`";
                return Err(("generator.flow.conditions", format!("has `{}`, {reason}", field.name)));
            }
            let trained = is_trained && self.hyper.is_some();
            let reason = "makes networks for tasks, and those of this zoo have one; name many in `zoo.train.tasks`";
            return if trained { Err(("hyper", reason.to_owned())) } else { Ok(()) };
        }
        if (self.refiner.is_some() || self.hyper.is_some()) && !self.generator.conditions().iter().any(names_task) {
            let reason = "must have `{ classes = \"task\" }`, `{ text = \"description\" }`, `{ examples = 16 }` or `{ inputs = 16 }`: with `zoo.train.tasks`, refiner and hyper-decoder follow each \
                          network's task";
            return Err((self.generator.conditions_key(), reason.to_owned()));
        }
        if self.sample.best_of.is_some() {
            let reason = "is for networks of one task: of many, `evaluate.best-of` shows what each judge is worth, beside controls of as many samples";
            return Err(("sample.best-of", reason.to_owned()));
        }
        let Some(refiner) = &self.refiner else { return Ok(()) };
        let undefined = [
            ("refiner.hinge", "`false`", refiner.hinge),
            ("refiner.shell", "0", refiner.shell > 0.0),
            ("evaluate.ablation", "`false`", self.evaluate.ablation),
        ];
        match undefined.into_iter().find(|(.., is_set)| *is_set) {
            Some((key, expected, _)) => {
                Err((key, format!("must be {expected} with `zoo.train.tasks`: it compares a network with many of its own task")))
            }
            None => Ok(()),
        }
    }

    /// Checks what does not stand behind tokens.
    fn check_tokens(&self) -> Result<(), (&'static str, String)> {
        let Some(tokens) = self.generator.tokens() else { return Ok(()) };
        let flow_alone = "`[generator.flow]` alone can do that";
        let shows = tokens.conditions.iter().find(|field| field.kind.shows()).map(|field| format!("`{}`", field.name));
        let (expected, is_none) = ("other fields than `examples` and `inputs`", shows.is_none());
        require("generator.tokens.conditions", &format!("{expected}: {flow_alone}"), is_none, shows.unwrap_or_default())?;
        let by_predictor = self.sample.best_of.is_some_and(|best_of| best_of.by == BestBy::Predictor);
        require(
            "sample.best-of.by",
            "another judge: accuracy is predicted from networks in canonical form",
            !by_predictor,
            "predictor",
        )?;
        require("evaluate.best-of", &format!("left out: {flow_alone}"), self.evaluate.best_of.is_none(), "a number")?;
        let whole = self.sampler.steps().guidance.is_empty();
        require("sampler.guidance", &format!("left out: {flow_alone}"), whole, "scales of fields")?;
        let Some(refiner) = &self.refiner else { return Ok(()) };
        let reason = "must be `false` behind `[generator.tokens]`: it changes settings that its refiner has not";
        if self.evaluate.ablation {
            return Err(("evaluate.ablation", reason.to_owned()));
        }
        tokens.check_refiner(refiner)
    }

    /// Checks what a run without data cannot do, and what a run with data cannot keep within.
    fn check_data(&self) -> Result<(), (&'static str, String)> {
        let CodecConfig::Pca(_) = self.codec else {
            let reason = "needs `[data.…]`: without data, codes are principal components";
            return if self.data.is_some() { Ok(()) } else { Err(("codec.identity", reason.to_owned())) };
        };
        let needs_data = [
            ("zoo.train", matches!(self.zoo, ZooConfig::Train(_))),
            ("refiner", self.refiner.is_some()),
            ("hyper", self.hyper.is_some()),
            ("generator.flow.conditions", self.generator.conditions().iter().any(|field| field.kind.shows())),
            ("sample.best-of", self.sample.best_of.is_some()),
            ("canonicalize.by", self.canonicalize.by == By::Activations),
            ("canonicalize.align", self.canonicalize.align == Align::Consistent),
            ("generator.flow.residual-noise", self.generator.residual_noise()),
            ("generator.tokens", self.generator.tokens().is_some()),
        ];
        if self.data.is_some() && self.evaluate.textures.is_some() {
            return Err(("evaluate.textures", "is for automata, which are judged without `[data.…]`".to_owned()));
        }
        match needs_data.into_iter().find(|(_, needs)| *needs) {
            _ if self.data.is_some() && self.run.memory.is_some() => {
                Err(("run.memory", "bounds runs without `[data.…]`: an evaluation holds all networks".to_owned()))
            }
            Some((key, _)) if self.data.is_none() => Err((key, "as it is set needs `[data.…]`".to_owned())),
            _ => Ok(()),
        }
    }
}

/// `Ok` if `ok`, else the key with the reason.
fn require(key: &'static str, expected: &str, ok: bool, got: impl std::fmt::Display) -> Result<(), (&'static str, String)> {
    if ok { Ok(()) } else { Err((key, format!("must be {expected}, got {got}"))) }
}

#[cfg(test)]
mod tests;
