//! What a flow over tokens and a refiner of tokens are alike in: a trained transformer, and how it sees an architecture.

use super::space::Space;
use super::{TokenNetwork, check_lengths, misfit};
use crate::{Artifact, Error, Result, schema};
use std::sync::Arc;
use weft_codec::{TokenLayout, TokenNormalizer};
use weft_core::{Architecture, Schema};
use weft_net::Device;
use weft_ops::tensor::{Network as _, Transformer};

/// A trained transformer over tokens.
#[derive(Debug, Clone)]
pub(super) struct TokenModel {
    pub(super) sizes: TokenNetwork,
    pub(super) network: Transformer,
    pub(super) theta: Arc<Vec<f32>>,
    pub(super) schema: Schema,
    pub(super) normalizer: TokenNormalizer,
    pub(super) token_len: usize,
    pub(super) window: usize,
    pub(super) device: Device,
}

impl TokenModel {
    /// An architecture as the transformer sees it.
    pub(super) fn space(&self, architecture: Arc<Architecture>) -> Result<Space> {
        Space::new(architecture, &self.normalizer, self.token_len)
    }

    /// All of it, to be saved.
    pub(super) fn save(&self, kind: &str) -> Artifact {
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_text("kind", kind)
            .with_text("token-len", self.token_len)
            .with_text("window", self.window);
        schema::save(&self.schema, save_normalizer(&self.normalizer, self.sizes.save(artifact)))
    }

    /// Restores it; the transformer is told so many numbers beside the encoded condition.
    pub(super) fn load(saved: &Artifact, told: usize, device: &Device) -> Result<Self> {
        let (schema, sizes) = (schema::load(saved)?, TokenNetwork::load(saved)?);
        let (token_len, window) = (saved.text("token-len")?, saved.text("window")?);
        check_lengths(token_len, window).map_err(misfit)?;
        let network = sizes.build(token_len + TokenLayout::EXTRAS, told + schema.encoded_len());
        let theta = Arc::new(saved.vector("theta", network.num_parameters())?);
        let normalizer = load_normalizer(saved)?;
        Ok(Self { sizes, network, theta, schema, normalizer, token_len, window, device: device.clone() })
    }
}

/// Keeps the moments of each kind of place as `mean.KIND` and `std.KIND`.
fn save_normalizer(normalizer: &TokenNormalizer, artifact: Artifact) -> Artifact {
    normalizer.entries().fold(artifact, |artifact, (kind, means, stds)| {
        artifact.with_vector(&format!("mean.{kind}"), means).with_vector(&format!("std.{kind}"), stds)
    })
}

fn load_normalizer(saved: &Artifact) -> Result<TokenNormalizer> {
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
