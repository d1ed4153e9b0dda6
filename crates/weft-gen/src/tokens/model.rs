//! What a flow over tokens and a refiner of tokens are alike in: a trained transformer, and how it sees an architecture.

use super::space::Space;
use super::{TokenNetwork, check_shape, misfit};
use crate::{Artifact, Error, Result, schema};
use std::sync::Arc;
use weft_codec::{TokenNormalizer, TokenShape};
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
    pub(super) shape: TokenShape,
    pub(super) window: usize,
    pub(super) device: Device,
}

impl TokenModel {
    /// An architecture as the transformer sees it.
    pub(super) fn space(&self, architecture: Arc<Architecture>) -> Result<Space> {
        Space::new(architecture, &self.normalizer, self.shape)
    }

    /// All of it, to be saved.
    pub(super) fn save(&self, kind: &str) -> Artifact {
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_text("kind", kind)
            .with_text("token-len", self.shape.token_len)
            .with_text("outgoing", self.shape.outgoing)
            .with_text("rank", self.shape.rank)
            .with_text("window", self.window);
        schema::save(&self.schema, save_normalizer(&self.normalizer, self.sizes.save(artifact)))
    }

    /// Restores it; the transformer is told so many numbers beside the encoded condition.
    pub(super) fn load(saved: &Artifact, told: usize, device: &Device) -> Result<Self> {
        let (schema, sizes) = (schema::load(saved)?, TokenNetwork::load(saved)?);
        let (token_len, outgoing, rank) = (saved.text("token-len")?, saved.text("outgoing")?, saved.text("rank")?);
        let (shape, window) = (TokenShape { token_len, outgoing, rank }, saved.text("window")?);
        check_shape(shape, window).map_err(misfit)?;
        let network = sizes.build(shape.num_slots(), told + schema.encoded_len());
        let theta = Arc::new(saved.vector("theta", network.num_parameters())?);
        let normalizer = load_normalizer(saved)?;
        Ok(Self { sizes, network, theta, schema, normalizer, shape, window, device: device.clone() })
    }
}

/// Keeps the moments of each kind of place as `mean.KIND` and `std.KIND`, and bases as `basis.KIND`.
fn save_normalizer(normalizer: &TokenNormalizer, artifact: Artifact) -> Artifact {
    let artifact =
        normalizer.bases().fold(artifact, |artifact, (kind, basis)| artifact.with_vector(&format!("basis.{kind}"), basis));
    normalizer.entries().fold(artifact, |artifact, (kind, means, stds)| {
        artifact.with_vector(&format!("mean.{kind}"), means).with_vector(&format!("std.{kind}"), stds)
    })
}

fn load_normalizer(saved: &Artifact) -> Result<TokenNormalizer> {
    let (mut entries, mut bases) = (Vec::new(), Vec::new());
    for (name, (_, means)) in &saved.tensors {
        if let Some(kind) = name.strip_prefix("basis.") {
            bases.push((kind.to_owned(), means.clone()));
        }
        if let Some(kind) = name.strip_prefix("mean.") {
            let len = means.len();
            entries.push((kind.to_owned(), saved.vector(name, len)?, saved.vector(&format!("std.{kind}"), len)?));
        }
    }
    let misnamed = |prefix: &'static str| {
        move |error| match error {
            weft_codec::Error::Kind { kind, reason } => {
                Error::Artifact { entry: format!("{prefix}.{kind}"), reason: reason.to_owned() }
            }
            error => error.into(),
        }
    };
    TokenNormalizer::from_entries(entries).map_err(misnamed("mean"))?.with_bases(bases).map_err(misnamed("basis"))
}
