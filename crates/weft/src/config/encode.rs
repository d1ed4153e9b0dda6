//! `[canonicalize]` and `[codec.…]`.

use super::require;
use serde::{Deserialize, Serialize};

/// `[canonicalize]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CanonicalizeConfig {
    /// What units are matched to: `mean`, `consistent`, `anchor` or `none`.
    pub align: Align,
    /// By what units count as the same: `weights` or `activations`.
    pub by: By,
    /// Training examples on which activations are compared.
    pub examples: usize,
    /// Re-estimates of the mean, at most.
    pub iterations: usize,
    /// Starts of the matching of one network.
    pub starts: usize,
}

/// What units are matched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Align {
    /// The mean of the training runs, re-estimated until it stays.
    Mean,
    /// Each other: no network is an anchor, and going round a cycle of networks ends where it began.
    Consistent,
    /// One training network.
    Anchor,
    /// Nothing: the raw weights are kept as they are.
    None,
}

/// By what units count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    /// Inner products of their weights.
    Weights,
    /// Correlations of their values on training examples.
    Activations,
}

impl Default for CanonicalizeConfig {
    fn default() -> Self {
        Self { align: Align::Mean, by: By::Weights, examples: 512, iterations: 10, starts: 8 }
    }
}

impl CanonicalizeConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        require("canonicalize.iterations", "1 or more", self.iterations >= 1, self.iterations)?;
        require("canonicalize.starts", "1 or more", self.starts >= 1, self.starts)?;
        require("canonicalize.examples", "2 or more", self.examples >= 2, self.examples)?;
        // Without an anchor there is nothing whose units could be observed.
        let observed = !(self.by == By::Activations && self.align == Align::Consistent);
        require("canonicalize.by", "`weights` where networks are aligned with each other", observed, "activations")
    }
}

/// How canonical weights become codes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CodecConfig {
    /// Principal components of the training networks, at unit variance.
    Pca(PcaConfig),
    /// The weights themselves, normalized.
    Identity(IdentityConfig),
}

impl Default for CodecConfig {
    fn default() -> Self {
        Self::Pca(PcaConfig::default())
    }
}

/// `[codec.pca]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PcaConfig {
    /// How many components: `{ fixed = 128 }` or `{ kept-variance = 0.99 }`.
    pub rank: RankConfig,
    /// What is divided out before. In a balanced network every layer has its share of the variance as it is.
    pub normalize: NormalizeConfig,
}

/// `[codec.identity]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct IdentityConfig {
    /// What is divided out.
    pub normalize: NormalizeConfig,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { normalize: NormalizeConfig::PerTensor }
    }
}

/// Which scale is divided out of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NormalizeConfig {
    /// None; the mean is subtracted.
    Off,
    /// Each tensor's own deviation.
    PerTensor,
    /// Each weight's own deviation.
    PerWeight,
}

/// How many components a codec keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankConfig {
    /// This many, at most.
    Fixed(usize),
    /// As many as keep this fraction of the variance.
    KeptVariance(f64),
}

impl Default for PcaConfig {
    fn default() -> Self {
        Self { rank: RankConfig::KeptVariance(0.99), normalize: NormalizeConfig::Off }
    }
}

impl CodecConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        match self {
            Self::Pca(PcaConfig { rank: RankConfig::Fixed(k), .. }) => require("codec.pca.rank", "1 or more", *k >= 1, k),
            Self::Pca(PcaConfig { rank: RankConfig::KeptVariance(v), .. }) => {
                require("codec.pca.rank", "a fraction in (0, 1]", *v > 0.0 && *v <= 1.0, v)
            }
            Self::Identity(_) => Ok(()),
        }
    }

    /// The codec crate's form of it, for this many networks of this many weights.
    ///
    /// A fixed rank is an upper limit: `n` networks around their mean span at most `n − 1` directions.
    #[must_use]
    pub fn to_codec(&self, num_networks: usize, dim: usize) -> weft_codec::CodecConfig {
        let limit = num_networks.saturating_sub(1).min(dim);
        let normalization = |normalize| match normalize {
            NormalizeConfig::Off => weft_codec::Normalization::Off,
            NormalizeConfig::PerTensor => weft_codec::Normalization::PerTensor,
            NormalizeConfig::PerWeight => weft_codec::Normalization::PerWeight,
        };
        match self {
            Self::Identity(identity) => {
                weft_codec::CodecConfig { kind: weft_codec::CodecKind::Identity, normalize: normalization(identity.normalize) }
            }
            Self::Pca(pca) => {
                let rank = match pca.rank {
                    RankConfig::Fixed(rank) => weft_codec::Rank::Fixed(rank.min(limit).max(1)),
                    RankConfig::KeptVariance(fraction) => weft_codec::Rank::KeptVariance(fraction),
                };
                let kind = weft_codec::CodecKind::Pca { rank, solver: weft_codec::Solver::Auto };
                weft_codec::CodecConfig { kind, normalize: normalization(pca.normalize) }
            }
        }
    }
}
