//! `[generator.tokens]`: a flow over the tokens of networks, which may be of other architectures than this run's.

use super::condition::FieldConfig;
use super::{RefinerConfig, require};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use weft_codec::TokenShape;
use weft_core::FieldSpec;
use weft_gen::{TokenConfig, TokenNetwork, TokenRefinerConfig};

/// A transformer over the tokens of networks, a unit each, trained by flow matching on this run's canonical training networks, on those of
/// other runs, or on both.
///
/// Behind it `[refiner]` is a transformer of `width` features and `blocks` layers, whose anchor is `μ` times the mean squared shift of a weight
/// in units of its kind's deviation; `hinge`, `shell` and `repulsion` must be off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TokensConfig {
    /// Output folders of other runs on the same data, whose canonical training networks are learned from too.
    pub zoos: Vec<PathBuf>,
    /// Whether this run's own training networks are learned from; if not, they are the yardstick alone.
    pub own: bool,
    /// Copies of each training network with its hidden units in random orders, which are learned from in place of the canonical one; 0 learns
    /// that, in an order that widths share: the mean network of each is matched to that of the next narrower one.
    pub orbits: usize,
    /// The most values of a unit's row in one token; longer rows are cut.
    pub token_len: usize,
    /// Slots for a hidden unit's weights to the outputs. With as many as there are outputs, or more, the units before the last map are a set: each
    /// token has what a unit computes and where that goes, and no number, so that a wider network has more of the same. 0 has the rows of the
    /// last map as tokens.
    pub outgoing: usize,
    /// Principal directions that rows which read the data are held in, over all networks that are learned from; what they leave out is not
    /// sampled. 0 holds all weights of such rows.
    pub rank: usize,
    /// The most tokens of a pass: what bounds memory.
    pub window: usize,
    /// Width of the transformer.
    pub d_model: usize,
    /// Its layers.
    pub num_layers: usize,
    /// Its attention heads.
    pub num_heads: usize,
    /// Width of the hidden layer of its MLPs.
    pub hidden: usize,
    /// Training steps.
    pub steps: u64,
    /// Networks a step, of all architectures together.
    pub batch_networks: usize,
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
    /// Fields of the condition, as those of `[generator.flow]`.
    pub conditions: Vec<FieldConfig>,
    /// How often each field is dropped in training, so that it may be unknown in sampling.
    pub condition_dropout: f64,
    /// Steps between two checkpoints of the training state.
    pub checkpoint_steps: u64,
}

impl Default for TokensConfig {
    fn default() -> Self {
        Self {
            zoos: Vec::new(),
            own: true,
            orbits: 0,
            token_len: 256,
            outgoing: 0,
            rank: 0,
            window: 2_048,
            d_model: 256,
            num_layers: 4,
            num_heads: 4,
            hidden: 1_024,
            steps: 2_000,
            batch_networks: 16,
            learning_rate: 5e-4,
            warmup_steps: 100,
            weight_decay: 0.01,
            ema_decay: 0.998,
            clip_norm: 1.0,
            conditions: vec![FieldConfig::scalar("validation-accuracy")],
            condition_dropout: 0.1,
            checkpoint_steps: 500,
        }
    }
}

impl TokensConfig {
    /// The generator crate's form of it, conditioned on these fields.
    pub(crate) fn to_tokens(&self, conditions: Vec<FieldSpec>) -> TokenConfig {
        let (d_model, num_layers, num_heads, hidden) = (self.d_model, self.num_layers, self.num_heads, self.hidden);
        TokenConfig {
            shape: self.shape(),
            window: self.window,
            network: TokenNetwork { d_model, num_layers, num_heads, hidden },
            steps: self.steps,
            batch_networks: self.batch_networks,
            learning_rate: self.learning_rate,
            warmup_steps: self.warmup_steps,
            weight_decay: self.weight_decay,
            clip_norm: self.clip_norm,
            ema_decay: self.ema_decay,
            conditions,
            condition_dropout: self.condition_dropout,
        }
    }

    /// What tokens hold.
    pub(crate) fn shape(&self) -> TokenShape {
        TokenShape { token_len: self.token_len, outgoing: self.outgoing, rank: self.rank }
    }

    /// What the settings of `[refiner]` are behind tokens.
    pub(crate) fn to_refiner(&self, refiner: &RefinerConfig) -> TokenRefinerConfig {
        let (d_model, num_layers) = (refiner.width, refiner.blocks);
        TokenRefinerConfig {
            mu: refiner.mu,
            own_data: refiner.own_data,
            steps: refiner.steps,
            batch_networks: refiner.batch_networks,
            batch_examples: refiner.batch_examples,
            learning_rate: refiner.learning_rate,
            pool: refiner.pool,
            window: self.window,
            network: TokenNetwork { d_model, num_layers, num_heads: self.num_heads, hidden: 4 * d_model },
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let learns = self.own || !self.zoos.is_empty();
        require("generator.tokens.own", "`true`, or `zoos` must name some to learn from", learns, self.own)?;
        require("generator.tokens.orbits", "at most 1024", self.orbits <= 1_024, self.orbits)?;
        require("generator.tokens.token-len", "1 or more", self.token_len >= 1, self.token_len)?;
        require("generator.tokens.outgoing", "at most 1048576", self.outgoing <= 1 << 20, self.outgoing)?;
        require("generator.tokens.rank", "at most 4096", self.rank <= 4_096, self.rank)?;
        require("generator.tokens.window", "1 or more", self.window >= 1, self.window)?;
        require("generator.tokens.d-model", "1 or more", self.d_model >= 1, self.d_model)?;
        let divides = self.num_heads > 0 && self.d_model.is_multiple_of(self.num_heads);
        require("generator.tokens.num-heads", "a divisor of `d-model`", divides, self.num_heads)?;
        require("generator.tokens.hidden", "1 or more", self.hidden >= 1, self.hidden)?;
        require("generator.tokens.steps", "1 or more", self.steps >= 1, self.steps)?;
        require("generator.tokens.batch-networks", "1 or more", self.batch_networks >= 1, self.batch_networks)?;
        let rate = self.learning_rate;
        require("generator.tokens.learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("generator.tokens.ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("generator.tokens.clip-norm", "a positive number", self.clip_norm > 0.0, self.clip_norm)?;
        let dropout = self.condition_dropout;
        require("generator.tokens.condition-dropout", "a fraction in [0, 1]", (0.0..=1.0).contains(&dropout), dropout)?;
        require("generator.tokens.checkpoint-steps", "1 or more", self.checkpoint_steps >= 1, self.checkpoint_steps)
    }

    /// Checks what a refiner of codes has and one of tokens has not.
    pub(super) fn check_refiner(&self, refiner: &RefinerConfig) -> Result<(), (&'static str, String)> {
        let without = "behind `[generator.tokens]`, whose refiner has none";
        require("refiner.hinge", &format!("`false` {without}"), !refiner.hinge, refiner.hinge)?;
        require("refiner.shell", &format!("0 {without}"), refiner.shell <= 0.0, refiner.shell)?;
        require("refiner.repulsion", &format!("0 {without}"), refiner.repulsion <= 0.0, refiner.repulsion)?;
        let divides = refiner.width.is_multiple_of(self.num_heads.max(1));
        require("refiner.width", "a multiple of `generator.tokens.num-heads`", divides, refiner.width)
    }
}
