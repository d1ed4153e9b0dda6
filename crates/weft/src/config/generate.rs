//! `[generator.…]`, `[sampler.…]` and `[sample]`.

use super::best::BestOfConfig;
use super::condition::{Asked, FieldConfig, condition_of};
use super::{TokensConfig, require};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use weft_core::FieldSpec;

/// What learns the distribution of codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorConfig {
    /// Conditional flow matching with a velocity network of residual blocks.
    Flow(FlowConfig),
    /// Flow matching over the tokens of networks of this architecture, of others, or of both.
    Tokens(TokensConfig),
}

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self::Flow(FlowConfig::default())
    }
}

/// `[generator.flow]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FlowConfig {
    /// Width of the velocity network.
    pub width: usize,
    /// Residual blocks.
    pub blocks: usize,
    /// Training steps.
    pub steps: u64,
    /// Codes a step.
    pub batch_size: usize,
    /// Peak learning rate of `AdamW`.
    pub learning_rate: f64,
    /// Steps of linear warm-up; then half a cosine.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the weights' moving average, which samples.
    pub ema_decay: f64,
    /// Largest norm of the gradient.
    pub clip_norm: f64,
    /// Fields of the condition: numbers by name, such as `validation-accuracy`, `step` or `learning-rate`, and others by type and
    /// name, as `{ classes = "task" }`, `{ category = "optimizer" }`, `{ text = "phrase" }` or `{ vector = "place" }`; or
    /// `{ examples = 16 }`, so many labelled examples of each output of the network's task, or `{ inputs = 16 }`, so many inputs of it without labels.
    pub conditions: Vec<FieldConfig>,
    /// How often each field is dropped in training, so that it may be unknown in sampling.
    pub condition_dropout: f64,
    /// Whether sampled networks get back, as noise, the variance that the codec cut off.
    pub residual_noise: bool,
    /// Steps between two checkpoints of the training state.
    pub checkpoint_steps: u64,
}

impl Default for FlowConfig {
    fn default() -> Self {
        Self {
            width: 512,
            blocks: 4,
            steps: 3_000,
            batch_size: 256,
            learning_rate: 3e-4,
            warmup_steps: 200,
            weight_decay: 0.01,
            ema_decay: 0.998,
            clip_norm: 1.0,
            conditions: ["validation-accuracy", "step"].map(FieldConfig::scalar).to_vec(),
            condition_dropout: 0.1,
            residual_noise: false,
            checkpoint_steps: 1_000,
        }
    }
}

impl FlowConfig {
    /// The generator crate's form of it, conditioned on these fields.
    pub(crate) fn to_flow(&self, conditions: Vec<FieldSpec>) -> weft_gen::FlowConfig {
        weft_gen::FlowConfig {
            width: self.width,
            blocks: self.blocks,
            steps: self.steps,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            ema_decay: self.ema_decay,
            conditions,
            condition_dropout: self.condition_dropout,
            residual_noise: self.residual_noise,
        }
    }
}

impl FlowConfig {
    fn check(&self) -> Result<(), (&'static str, String)> {
        require("generator.flow.width", "1 or more", self.width >= 1, self.width)?;
        require("generator.flow.steps", "1 or more", self.steps >= 1, self.steps)?;
        require("generator.flow.batch-size", "1 or more", self.batch_size >= 1, self.batch_size)?;
        let rate = self.learning_rate;
        require("generator.flow.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("generator.flow.ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("generator.flow.clip-norm", "a positive number", self.clip_norm > 0.0, self.clip_norm)?;
        let dropout = self.condition_dropout;
        require("generator.flow.condition-dropout", "a fraction in [0, 1]", (0.0..=1.0).contains(&dropout), dropout)?;
        require("generator.flow.checkpoint-steps", "1 or more", self.checkpoint_steps >= 1, self.checkpoint_steps)
    }
}

impl GeneratorConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            Self::Flow(flow) => flow.check()?,
            Self::Tokens(tokens) => tokens.check()?,
        }
        let names = || self.conditions().iter().map(|field| field.name.as_str());
        let twice = names().enumerate().find(|(i, name)| name.is_empty() || names().take(*i).any(|other| other == *name));
        let twice = twice.map_or("", |(_, name)| name);
        let distinct = names().collect::<BTreeSet<_>>();
        let ok = distinct.len() == self.conditions().len() && !distinct.contains("");
        require(self.conditions_key(), "fields of different names", ok, format!("`{twice}` again or empty"))?;
        let shows = |field: &&FieldConfig| !field.kind.shows() && ["examples", "inputs"].contains(&field.name.as_str());
        let taken = self.conditions().iter().find(shows);
        let expected = "fields of other names than `examples` and `inputs`, which show a task by data";
        require(self.conditions_key(), expected, taken.is_none(), taken.map_or("", |field| &field.name))?;
        let shown = self.conditions().iter().find_map(|field| field.kind.examples()).unwrap_or(1);
        require(self.conditions_key(), "1 to 4096 examples of each output", (1..=4_096).contains(&shown), shown)?;
        let inputs = self.conditions().iter().find_map(|field| field.kind.inputs()).unwrap_or(1);
        require(self.conditions_key(), "1 to 4096 inputs", (1..=4_096).contains(&inputs), inputs)?;
        let kinds = self.conditions().iter().filter(|field| field.kind.shows()).count();
        require(self.conditions_key(), "`examples` or `inputs`, which are examples without their labels", kinds <= 1, "both")
    }

    /// The flow over tokens, if it is that.
    pub(crate) fn tokens(&self) -> Option<&TokensConfig> {
        if let Self::Tokens(tokens) = self { Some(tokens) } else { None }
    }

    /// Whether sampled networks get back what the codec cut off.
    pub(super) fn residual_noise(&self) -> bool {
        matches!(self, Self::Flow(flow) if flow.residual_noise)
    }

    /// Training steps, and those between two checkpoints of their state.
    pub(crate) fn steps(&self) -> [u64; 2] {
        match self {
            Self::Flow(flow) => [flow.steps, flow.checkpoint_steps],
            Self::Tokens(tokens) => [tokens.steps, tokens.checkpoint_steps],
        }
    }

    /// The fields that the generator is conditioned on.
    #[must_use]
    pub fn conditions(&self) -> &[FieldConfig] {
        match self {
            Self::Flow(flow) => &flow.conditions,
            Self::Tokens(tokens) => &tokens.conditions,
        }
    }

    /// The key of these fields.
    pub(super) fn conditions_key(&self) -> &'static str {
        match self {
            Self::Flow(_) => "generator.flow.conditions",
            Self::Tokens(_) => "generator.tokens.conditions",
        }
    }
}

/// How the flow's differential equation is solved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerConfig {
    /// Euler's method: one velocity a step.
    Euler(StepsConfig),
    /// Heun's method: two velocities a step.
    Heun(StepsConfig),
    /// The classical Runge–Kutta method: four velocities a step.
    Rk4(StepsConfig),
}

/// `[sampler.euler]`, `[sampler.heun]` or `[sampler.rk4]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StepsConfig {
    /// Steps from noise to data.
    pub steps: usize,
    /// 1 follows the condition; more exaggerates it; 0 ignores it.
    pub guidance_scale: f64,
    /// The same for single fields of the condition, beside the whole.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub guidance: BTreeMap<String, f64>,
}

impl Default for StepsConfig {
    fn default() -> Self {
        Self { steps: 25, guidance_scale: 1.0, guidance: BTreeMap::new() }
    }
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::Heun(StepsConfig::default())
    }
}

impl SamplerConfig {
    /// Steps and guidance, whatever the method.
    #[must_use]
    pub fn steps(&self) -> &StepsConfig {
        match self {
            Self::Euler(s) | Self::Heun(s) | Self::Rk4(s) => s,
        }
    }

    /// The generator crate's form of it.
    pub(crate) fn to_sampler(&self) -> weft_gen::SamplerConfig {
        let &StepsConfig { steps, guidance_scale, .. } = self.steps();
        let sampler = match self {
            Self::Euler(_) => weft_gen::Sampler::Euler,
            Self::Heun(_) => weft_gen::Sampler::Heun,
            Self::Rk4(_) => weft_gen::Sampler::Rk4,
        };
        weft_gen::SamplerConfig { sampler, steps, guidance_scale }
    }

    pub(super) fn check(&self, generator: &GeneratorConfig) -> Result<(), (&'static str, String)> {
        let StepsConfig { steps, guidance_scale, guidance } = self.steps();
        require("sampler.steps", "1 or more", *steps >= 1, steps)?;
        require("sampler.guidance-scale", "a number", guidance_scale.is_finite(), guidance_scale)?;
        let known = generator.conditions();
        guidance.iter().try_for_each(|(field, scale)| {
            require("sampler.guidance", "a number for each field", scale.is_finite(), scale)?;
            let is_known = known.iter().any(|known| &known.name == field);
            require("sampler.guidance", "scales of fields that the generator is trained on", is_known, field)
        })
    }
}

/// `[sample]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SampleConfig {
    /// Networks a seed.
    pub count: usize,
    /// Independent seeds.
    pub seeds: usize,
    /// What is asked for, such as `validation-accuracy = 0.95`, `task = [0, 3, 7]` or `phrase = "hey jarvis"`; numbers that are not
    /// named are taken from the best quarter of the training runs' final networks, other fields are unknown.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub condition: BTreeMap<String, Asked>,
    /// Training examples that give the batch norms of sampled networks, baselines' too, their running statistics; 0 leaves these as
    /// they were decoded.
    #[serde(skip_serializing_if = "is_default_recalibration")]
    pub recalibrate: usize,
    /// Of each `n` samples of the run's own generators the one that is kept, `{ n = 8, by = "validation" }`: by accuracy on the validation part, by a
    /// `"predictor"` of accuracy from weights, or by `"agreement"` with the others. Without it, every sample is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of: Option<BestOfConfig>,
}

/// Examples that running statistics are taken from where a run file does not say.
const RECALIBRATE: usize = 2048;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_default_recalibration(examples: &usize) -> bool {
    *examples == RECALIBRATE
}

impl Default for SampleConfig {
    fn default() -> Self {
        Self { count: 256, seeds: 3, condition: BTreeMap::new(), recalibrate: RECALIBRATE, best_of: None }
    }
}

impl SampleConfig {
    pub(super) fn check(&self, generator: &GeneratorConfig) -> Result<(), (&'static str, String)> {
        require("sample.count", "1 or more", self.count >= 1, self.count)?;
        require("sample.seeds", "1 or more", self.seeds >= 1, self.seeds)?;
        self.best_of.map_or(Ok(()), BestOfConfig::check)?;
        let fields: Vec<FieldSpec> = generator.conditions().iter().map(|field| field.to_field(None)).collect();
        condition_of(&self.condition, &fields).map(drop).map_err(|error| match error {
            weft_core::Error::UnknownField { field, known } => {
                ("sample.condition", format!("names `{field}`, which the generator is not trained on; it knows {known}"))
            }
            error => ("sample.condition", format!("cannot be: {error}")),
        })
    }
}
