//! A trained token generator, for whatever architecture.

use super::space::Space;
use super::trainer::conditioning_len;
use super::{TokenGenerator, TokenNetwork, check_lengths, misfit};
use crate::{Artifact, Error, Result, SamplerConfig, schema};
use std::sync::Arc;
use weft_codec::{TokenLayout, TokenNormalizer};
use weft_core::{Architecture, Schema};
use weft_net::Device;
use weft_ops::tensor::{Network as _, Transformer};

/// A trained token generator.
#[derive(Debug, Clone)]
pub struct TokenFlow {
    pub(super) sizes: TokenNetwork,
    pub(super) network: Transformer,
    pub(super) theta: Arc<Vec<f32>>,
    pub(super) schema: Schema,
    pub(super) normalizer: TokenNormalizer,
    pub(super) token_len: usize,
    pub(super) window: usize,
    pub(super) sampler: SamplerConfig,
    pub(super) device: Device,
}

impl TokenFlow {
    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// What weights are shifted and divided by.
    #[must_use]
    pub fn normalizer(&self) -> &TokenNormalizer {
        &self.normalizer
    }

    /// The most weights of a unit's row in one token.
    #[must_use]
    pub fn token_len(&self) -> usize {
        self.token_len
    }

    /// The same flow under another sampler.
    #[must_use]
    pub fn with_sampler(mut self, sampler: SamplerConfig) -> Self {
        self.sampler = sampler;
        self
    }

    /// The same flow with passes of at most so many tokens.
    ///
    /// # Errors
    /// [`Error::Setting`] names `window` if it is out of range.
    pub fn with_window(mut self, window: usize) -> Result<Self> {
        check_lengths(self.token_len, window)?;
        self.window = window;
        Ok(self)
    }

    /// Samples networks of an architecture from now on.
    ///
    /// # Errors
    /// [`Error::Codec`] names a tensor of a kind of place that no training network has.
    pub fn generator(&self, architecture: Arc<Architecture>) -> Result<TokenGenerator> {
        Ok(TokenGenerator { flow: self.clone(), space: Space::new(architecture, &self.normalizer, self.token_len)? })
    }

    /// What sampling needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_text("kind", "tokens")
            .with_text("token-len", self.token_len)
            .with_text("window", self.window);
        schema::save(&self.schema, save_normalizer(&self.normalizer, self.sizes.save(artifact)))
    }

    /// Restores a saved token generator.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or does not fit.
    pub fn load(saved: &Artifact, sampler: SamplerConfig, device: &Device) -> Result<Self> {
        let (schema, sizes) = (schema::load(saved)?, TokenNetwork::load(saved)?);
        let (token_len, window) = (saved.text("token-len")?, saved.text("window")?);
        check_lengths(token_len, window).map_err(misfit)?;
        let network = sizes.build(token_len + TokenLayout::EXTRAS, conditioning_len(&schema));
        let theta = Arc::new(saved.vector("theta", network.num_parameters())?);
        let normalizer = load_normalizer(saved)?;
        Ok(Self { sizes, network, theta, schema, normalizer, token_len, window, sampler, device: device.clone() })
    }
}

/// Keeps the moments of each kind of place as `mean.KIND` and `std.KIND`.
pub(super) fn save_normalizer(normalizer: &TokenNormalizer, artifact: Artifact) -> Artifact {
    normalizer.entries().fold(artifact, |artifact, (kind, means, stds)| {
        artifact.with_vector(&format!("mean.{kind}"), means).with_vector(&format!("std.{kind}"), stds)
    })
}

pub(super) fn load_normalizer(saved: &Artifact) -> Result<TokenNormalizer> {
    let mut entries = Vec::new();
    for (name, (_, means)) in &saved.tensors {
        if let Some(kind) = name.strip_prefix("mean.") {
            let len = means.len();
            entries.push((kind.to_owned(), saved.vector(name, len)?, saved.vector(&format!("std.{kind}"), len)?));
        }
    }
    TokenNormalizer::from_entries(entries).map_err(|error| match error {
        weft_codec::Error::Kind { kind, reason } => Error::Artifact { entry: format!("mean.{kind}"), reason: reason.to_owned() },
        error => error.into(),
    })
}
