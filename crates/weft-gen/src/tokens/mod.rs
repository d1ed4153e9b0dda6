//! The token generator: flow matching over the tokens of networks of one or several architectures.
//!
//! Weights become tokens, a unit each ([`TokenLayout`](weft_codec::TokenLayout)), and a transformer (adaLN-zero: Peebles & Xie 2023) learns
//! the velocity that carries noise to them, as the [`flow`](crate::flow) does for codes: straight path, squared error, the same
//! preconditioning, dropped conditions, guidance. What a token is enters as coordinates beside its weights, and none of the parameters
//! depends on the number of tokens. So one generator is trained on a zoo of several widths and depths and sampled for others:
//! [`TokenFlow::generator`] takes any architecture whose kinds of places training has shown, and refuses others by the tensor's name.
//!
//! Whole sequences of one length are a lesson; nothing is padded (decision 16). An untrained flow samples each weight from the Gaussian of
//! its kind of place.
//!
//! # Windows
//!
//! Passes see at most `window` tokens (one network at least, if it is that short), so what a pass keeps is bounded by that setting, in training
//! and in sampling; a network's own tokens are held whole. A network of more tokens is cut: training draws windows at random places, sampling takes one window after the other inside
//! each step of the differential equation. Windows know nothing of each other but what they share: the condition, the time, and
//! coordinates that are of the whole network. What one window draws, another cannot answer to; networks that must agree across it
//! need a window as long as they are.
//!
//! # The refiner of tokens
//!
//! [`TokenRefiner`] makes one pass of such a transformer over a sample's tokens, `x' = x + r(x, c)`, and is trained through the decoded
//! networks, over several architectures at once:
//!
//! ```text
//! CE(run(decode(x')), batch of the sample's task)  +  μ · |r|² / number of weights
//! ```
//!
//! It is told the encoded condition and, with *own data*, the signs that choose its half of the data, as the [`refine`](crate::refine)r of
//! codes is. It has no hinge, no shell and no repulsion. A network longer than its window is refused: a part of a network has no loss.
//!
//! Shape legend: `n` networks, `t` tokens, `f` slots of a token, `c` coordinates of a token, `D` weights of a network.

mod flow;
mod generator;
mod model;
mod refine;
mod refiner;
mod set;
mod space;
mod trainer;

pub use flow::TokenFlow;
pub use generator::TokenGenerator;
pub use refine::{RefinerPart, TokenRefinerConfig, TokenRefinerTrainer};
pub use refiner::{TokenRefined, TokenRefiner};
pub use set::{TokenPart, TokenSet};
pub use trainer::TokenTrainer;

use crate::error::require;
use crate::{Artifact, Error, Result};
use weft_codec::{NUM_COORDINATES, TokenShape};
use weft_core::{Activation, FieldSpec};
use weft_ops::tensor::{FlatOptimizerConfig, Transformer, TransformerConfig};

/// The sizes of a transformer over tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenNetwork {
    /// Width of the residual stream.
    pub d_model: usize,
    /// Layers.
    pub num_layers: usize,
    /// Attention heads; they divide the width.
    pub num_heads: usize,
    /// Width of each MLP's hidden layer.
    pub hidden: usize,
}

impl TokenNetwork {
    fn check(self) -> Result<()> {
        require("d-model", "between 1 and 16384", (1..=16_384).contains(&self.d_model), self.d_model)?;
        require("num-layers", "at most 256", self.num_layers <= 256, self.num_layers)?;
        let divides = self.num_heads > 0 && self.d_model.is_multiple_of(self.num_heads);
        require("num-heads", "a divisor of `d-model`", divides, self.num_heads)?;
        require("hidden", "between 1 and 65536", (1..=65_536).contains(&self.hidden), self.hidden)
    }

    /// The transformer for tokens with so many slots and conditioning rows of that length.
    fn build(self, slots: usize, conditioning: usize) -> Transformer {
        Transformer::new(TransformerConfig {
            inputs: slots + NUM_COORDINATES,
            outputs: slots,
            tokens: 1,
            positions: false,
            d_model: self.d_model,
            num_heads: self.num_heads,
            num_layers: self.num_layers,
            hidden: self.hidden,
            activation: Activation::Gelu,
            gated: false,
            causal: false,
            conditioning,
        })
    }

    fn save(self, artifact: Artifact) -> Artifact {
        let artifact = artifact.with_text("d-model", self.d_model).with_text("num-layers", self.num_layers);
        artifact.with_text("num-heads", self.num_heads).with_text("hidden", self.hidden)
    }

    fn load(saved: &Artifact) -> Result<Self> {
        let network = Self {
            d_model: saved.text("d-model")?,
            num_layers: saved.text("num-layers")?,
            num_heads: saved.text("num-heads")?,
            hidden: saved.text("hidden")?,
        };
        network.check().map(|()| network).map_err(misfit)
    }
}

/// A setting that is out of range in a saved state.
fn misfit(error: Error) -> Error {
    match error {
        Error::Setting { setting, expected, got } => {
            Error::Artifact { entry: setting.to_owned(), reason: format!("is {got}, expected {expected}") }
        }
        error => error,
    }
}

/// Longest row of a token and longest window.
const MAX_LENGTH: usize = 1 << 20;

/// Checks what tokens hold and how long windows are.
fn check_shape(shape: TokenShape, window: usize) -> Result<()> {
    let TokenShape { token_len, outgoing, rank } = shape;
    require("token-len", "between 1 and 1048576", (1..=MAX_LENGTH).contains(&token_len), token_len)?;
    require("outgoing", "at most 1048576", outgoing <= MAX_LENGTH, outgoing)?;
    require("rank", "at most 4096", rank <= 4096, rank)?;
    require("window", "between 1 and 1048576", (1..=MAX_LENGTH).contains(&window), window)
}

/// Settings of the token generator and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenConfig {
    /// What tokens hold.
    pub shape: TokenShape,
    /// The most tokens of a pass.
    pub window: usize,
    /// The velocity network.
    pub network: TokenNetwork,
    /// Training steps.
    pub steps: u64,
    /// Networks a step, of all architectures together.
    pub batch_networks: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up before the cosine.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Longest gradient.
    pub clip_norm: f64,
    /// Decay of the moving average that is sampled from.
    pub ema_decay: f64,
    /// Condition fields to train on.
    pub conditions: Vec<FieldSpec>,
    /// Probability that a field is dropped, and again that all are.
    pub condition_dropout: f64,
}

impl TokenConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is out of range.
    pub fn check(&self) -> Result<()> {
        self.network.check()?;
        check_shape(self.shape, self.window)?;
        require("steps", "1 or more", self.steps > 0, self.steps)?;
        require("batch-networks", "1 or more", self.batch_networks > 0, self.batch_networks)?;
        let rate = self.learning_rate;
        require("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        let decay = self.weight_decay;
        require("weight-decay", "0 or more", decay >= 0.0 && decay.is_finite(), decay)?;
        require("clip-norm", "a positive number", self.clip_norm > 0.0, self.clip_norm)?;
        require("ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("condition-dropout", "in [0, 1]", (0.0..=1.0).contains(&self.condition_dropout), self.condition_dropout)
    }

    fn optimizer(&self) -> FlatOptimizerConfig {
        FlatOptimizerConfig { weight_decay: self.weight_decay, clip_norm: self.clip_norm, ema_decay: self.ema_decay }
    }
}
