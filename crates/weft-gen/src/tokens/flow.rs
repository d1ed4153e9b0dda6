//! A trained token generator, for whatever architecture.

use super::model::TokenModel;
use super::trainer::TIME;
use super::{TokenGenerator, check_shape};
use crate::{Artifact, Result, SamplerConfig};
use std::sync::Arc;
use weft_codec::{TokenNormalizer, TokenShape};
use weft_core::{Architecture, Schema};
use weft_net::Device;

/// A trained token generator.
#[derive(Debug, Clone)]
pub struct TokenFlow {
    pub(super) model: TokenModel,
    pub(super) sampler: SamplerConfig,
}

impl TokenFlow {
    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.model.schema
    }

    /// What weights are shifted and divided by.
    #[must_use]
    pub fn normalizer(&self) -> &TokenNormalizer {
        &self.model.normalizer
    }

    /// What tokens hold.
    #[must_use]
    pub fn shape(&self) -> TokenShape {
        self.model.shape
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
    /// [`crate::Error::Setting`] names `window` if it is out of range.
    pub fn with_window(mut self, window: usize) -> Result<Self> {
        check_shape(self.model.shape, window)?;
        self.model.window = window;
        Ok(self)
    }

    /// Samples networks of an architecture from now on.
    ///
    /// # Errors
    /// [`crate::Error::Codec`] names a tensor of a kind of place that no training network has.
    pub fn generator(&self, architecture: Arc<Architecture>) -> Result<TokenGenerator> {
        Ok(TokenGenerator { flow: self.clone(), space: self.model.space(architecture)? })
    }

    /// What sampling needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        self.model.save("tokens")
    }

    /// Restores a saved token generator.
    ///
    /// # Errors
    /// [`crate::Error::Artifact`] if the state lacks something or does not fit.
    pub fn load(saved: &Artifact, sampler: SamplerConfig, device: &Device) -> Result<Self> {
        Ok(Self { model: TokenModel::load(saved, TIME, device)?, sampler })
    }
}
