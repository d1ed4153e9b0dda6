//! `[generate]` of an adapter run: what is learnt from the training tasks' adapters, and what it is held against.

use super::{HyperConfig, ShownConfig, require};
use serde::{Deserialize, Serialize};

/// Generators of adapters that are shown some text of a language, or a task's intents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GenerateConfig {
    /// Bytes of a sample that shows a language; it is drawn from the passages that adapters are trained on.
    pub sample_bytes: usize,
    /// What shows a task of intents; of two, generators are learnt for each.
    pub shown: Vec<ShownConfig>,
    /// Utterances without a label that show a task of intents; they are drawn from those that adapters are trained on.
    pub utterances: usize,
    /// Samples of each training language or task that generators learn from.
    pub draws: usize,
    /// Variants of each training language that the hyper-decoder learns from as well, the same text with pairs of letters changed; none where tasks are of intents.
    #[serde(skip_serializing_if = "is_zero")]
    pub variants: usize,
    /// Pairs of letters that change places in each.
    #[serde(skip_serializing_if = "is_three")]
    pub swaps: usize,
    /// Further variants of each, all letters of which are those of another training language or neighboring characters from anywhere in Unicode.
    #[serde(skip_serializing_if = "is_zero")]
    pub scripts: usize,
    /// Samples of each held-out language or task that they are judged by.
    pub sets: usize,
    /// Principal components of the adapters' factors, at most: the length of a code.
    pub components: usize,
    /// The hyper-decoder: an adapter from a sample in one pass, trained through the base.
    pub hyper: HyperConfig,
    /// A flow on codes beside it.
    pub flow: Option<CodeFlowConfig>,
    /// A few gradient steps on the sample itself, to hold the generators against.
    pub few_steps: Option<FewStepsConfig>,
}

/// `[generate.few-steps]`: steps of Adam, without decay, on the very sample that generators are shown, from the one adapter of all and from the hyper-decoder's.
///
/// Which learning rate goes with each number of steps, and how many steps follow the hyper-decoder, is seen on training languages: on text that
/// is not in their samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FewStepsConfig {
    /// Numbers of steps, rising; each is a row.
    pub steps: Vec<u64>,
    /// Constant learning rates that are tried.
    pub learning_rates: Vec<f64>,
    /// Training languages that they are tried on, at most.
    pub tried: usize,
}

/// `[generate.flow]`: flow matching on the codes of the training languages' adapters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CodeFlowConfig {
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
    /// How often the sample is dropped in training.
    pub condition_dropout: f64,
    /// Steps of Heun's rule from noise to a code.
    pub sampler_steps: usize,
    /// What mends its samples, learnt through the base.
    pub refiner: Option<CodeRefinerConfig>,
}

/// `[generate.flow.refiner]`: a residual network on codes that is told what the flow is told, and is trained on samples of it by what the base with
/// them loses on what training adapters were trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CodeRefinerConfig {
    /// Strength of the anchor that keeps samples near to what the flow made of them.
    pub mu: f64,
    /// Training steps.
    pub steps: u64,
    /// Adapters a step.
    pub batch_networks: usize,
    /// Windows or sentences of each.
    pub batch_examples: usize,
    /// Peak learning rate of `AdamW`.
    pub learning_rate: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// Samples of the flow that training draws from.
    pub pool: usize,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        let (sample_bytes, shown, utterances, draws, sets, components) = (200, Vec::new(), 32, 16, 3, 128);
        let (hyper, flow, few_steps) = (HyperConfig::default(), None, None);
        let (variants, swaps, scripts) = (0, SWAPS, 0);
        Self { sample_bytes, shown, utterances, draws, variants, swaps, scripts, sets, components, hyper, flow, few_steps }
    }
}

/// Pairs of letters that change places where it is not said.
const SWAPS: usize = 3;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_three(value: &usize) -> bool {
    *value == SWAPS
}

impl Default for FewStepsConfig {
    fn default() -> Self {
        Self { steps: vec![1, 2, 4, 8, 16, 32], learning_rates: vec![0.001, 0.003, 0.01, 0.03], tried: 48 }
    }
}

impl FewStepsConfig {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let (steps, rates) = (&self.steps, &self.learning_rates);
        let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
        let fits = !steps.is_empty() && steps.len() <= 32 && rising && steps.iter().all(|n| (1..=10_000).contains(n));
        require("generate.few-steps.steps", "1 to 32 rising numbers between 1 and 10000", fits, format!("{steps:?}"))?;
        let fits = (1..=32).contains(&rates.len()) && rates.iter().all(|rate| *rate > 0.0 && rate.is_finite());
        require("generate.few-steps.learning-rates", "1 to 32 positive numbers", fits, format!("{rates:?}"))?;
        require("generate.few-steps.tried", "1 or more", self.tried >= 1, self.tried)
    }
}

impl Default for CodeFlowConfig {
    fn default() -> Self {
        let (width, blocks, steps, batch_size) = (512, 3, 2_000, 128);
        Self { width, blocks, steps, batch_size, learning_rate: 1e-3, condition_dropout: 0.1, sampler_steps: 20, refiner: None }
    }
}

impl Default for CodeRefinerConfig {
    fn default() -> Self {
        let (steps, batch_networks, batch_examples) = (3_000, 16, 2);
        Self { mu: 1e-3, steps, batch_networks, batch_examples, learning_rate: 1e-3, width: 512, blocks: 2, pool: 4_096 }
    }
}

impl CodeRefinerConfig {
    /// The generator crate's form of it.
    pub(crate) fn to_refiner(&self) -> weft_gen::RefinerConfig {
        weft_gen::RefinerConfig {
            mu: self.mu,
            hinge: false,
            shell: 0.0,
            repulsion: 0.0,
            own_data: false,
            steps: self.steps,
            batch_networks: self.batch_networks,
            batch_examples: self.batch_examples,
            learning_rate: self.learning_rate,
            width: self.width,
            blocks: self.blocks,
            pool: self.pool,
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        let (mu, rate) = (self.mu, self.learning_rate);
        require("generate.flow.refiner.mu", "0 or more", mu >= 0.0 && mu.is_finite(), mu)?;
        require("generate.flow.refiner.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        let sizes = [self.batch_examples, self.width, self.blocks];
        let fits = sizes.iter().all(|&n| n > 0) && self.steps > 0 && self.batch_networks >= 2 && self.pool >= self.batch_networks;
        let expected = "sizes and steps of 1 or more, 2 adapters a step or more, and a pool of as many at least";
        require("generate.flow.refiner", expected, fits, format!("{self:?}"))
    }
}

impl GenerateConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let bytes = self.sample_bytes;
        require("generate.sample-bytes", "between 8 and 65536", (8..=65_536).contains(&bytes), bytes)?;
        let shown = self.utterances;
        require("generate.utterances", "between 1 and 4096", (1..=4_096).contains(&shown), shown)?;
        require("generate.draws", "between 1 and 1024", (1..=1_024).contains(&self.draws), self.draws)?;
        require("generate.variants", "at most 64", self.variants <= 64, self.variants)?;
        require("generate.scripts", "at most 64", self.scripts <= 64, self.scripts)?;
        require("generate.swaps", "between 1 and 12", (1..=12).contains(&self.swaps), self.swaps)?;
        require("generate.sets", "between 1 and 64", (1..=64).contains(&self.sets), self.sets)?;
        require("generate.components", "1 or more", self.components >= 1, self.components)?;
        self.hyper.check()?;
        self.few_steps.as_ref().map_or(Ok(()), FewStepsConfig::check)?;
        let Some(flow) = &self.flow else { return Ok(()) };
        let sizes = [flow.width, flow.blocks, flow.batch_size, flow.sampler_steps];
        let rate = flow.learning_rate;
        require("generate.flow.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        let dropout = flow.condition_dropout;
        require("generate.flow.condition-dropout", "a fraction in [0, 1]", (0.0..=1.0).contains(&dropout), dropout)?;
        require(
            "generate.flow",
            "sizes and steps of 1 or more, and at most 10000 steps of the sampler",
            sizes.iter().all(|&n| n > 0) && flow.steps > 0 && flow.sampler_steps <= 10_000,
            format!("{sizes:?}"),
        )?;
        flow.refiner.as_ref().map_or(Ok(()), CodeRefinerConfig::check)
    }
}

impl CodeFlowConfig {
    /// The generator crate's form of it, conditioned on these fields.
    pub(crate) fn to_flow(&self, conditions: Vec<weft_core::FieldSpec>) -> weft_gen::FlowConfig {
        weft_gen::FlowConfig {
            width: self.width,
            blocks: self.blocks,
            steps: self.steps,
            batch_size: self.batch_size,
            learning_rate: self.learning_rate,
            warmup_steps: self.steps / 20,
            weight_decay: 0.01,
            clip_norm: 1.0,
            ema_decay: 0.99,
            conditions,
            condition_dropout: self.condition_dropout,
            residual_noise: false,
        }
    }
}
