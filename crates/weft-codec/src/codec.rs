//! The codecs behind one type.

use crate::config::{CodecConfig, CodecKind};
use crate::normalize::Normalizer;
use crate::pca::Pca;
use crate::{Error, Result};
use weft_core::products::Place;
use weft_core::{Population, Seed};

/// A fitted codec.
#[derive(Debug, Clone, PartialEq)]
pub enum Codec {
    /// Normalized weights: the code is as long as the row, and nothing is lost.
    Identity(Normalizer),
    /// Principal components.
    Pca(Pca),
}

/// The linear map from codes to weights, for decoding inside a differentiable loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Decoder<'a> {
    /// `w = mean + z ⊙ scale`, both `[D]`.
    Scale {
        /// Mean of each weight.
        mean: &'a [f32],
        /// Scale of each weight.
        scale: &'a [f32],
    },
    /// `w = mean + z·matrix`, `mean` `[D]`, `matrix` row-major `[k, D]` with all scales included.
    Linear {
        /// Mean of each weight.
        mean: &'a [f32],
        /// The decode matrix.
        matrix: &'a [f32],
    },
}

impl Codec {
    /// Floating-point operations of the products that decode one code: `2·k·D`, or `2·D` where a code is only scaled.
    #[must_use]
    pub fn decode_flops(&self) -> f64 {
        let of_each = match self {
            Self::Identity(_) => 1,
            Self::Pca(_) => self.code_len(),
        };
        2.0 * of_each as f64 * self.dim() as f64
    }

    /// Fits a codec on rows of canonical weights; the seed matters to the randomized solver only.
    ///
    /// # Errors
    /// Fewer than two networks, a weight that is not finite, networks that do not vary, or a rank or kept variance
    /// that they cannot give.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// use weft_codec::{Codec, CodecConfig, CodecKind, Normalization, Rank, Solver};
    /// use weft_core::{Activation, Architecture, Population, Seed};
    /// let mlp = Arc::new(Architecture::mlp("mlp", &[1, 1], Activation::Relu)?);
    /// let rows = Population::new(mlp, vec![0., 1., 2., 5., 4., 9.])?; // on one line
    /// let kind = CodecKind::Pca { rank: Rank::Fixed(1), solver: Solver::Auto };
    /// let codec = Codec::fit(&rows, &CodecConfig { kind, normalize: Normalization::PerTensor }, Seed::new(0))?;
    /// let codes = codec.encode(rows.data())?;
    /// assert_eq!(codes.len(), 3);
    /// for (decoded, weight) in codec.decode(&codes)?.iter().zip(rows.data()) {
    ///     assert!((decoded - weight).abs() < 1e-5);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn fit(rows: &Population, config: &CodecConfig, seed: Seed) -> Result<Self> {
        Self::fit_on(&Place::default(), rows, config, seed)
    }

    /// The same with the great products computed at a place, which the codec keeps for its own.
    ///
    /// # Errors
    /// As [`Codec::fit`].
    pub fn fit_on(place: &Place, rows: &Population, config: &CodecConfig, seed: Seed) -> Result<Self> {
        let (normalizer, total_variance) = Normalizer::fit(rows, config.normalize, matches!(config.kind, CodecKind::Pca { .. }))?;
        match config.kind {
            CodecKind::Identity => Ok(Self::Identity(normalizer)),
            CodecKind::Pca { rank, solver } => {
                Pca::fit(rows, (normalizer, total_variance), (rank, solver), (seed, place)).map(Self::Pca)
            }
        }
    }

    /// The same codec, whose great products are computed at a place.
    #[must_use]
    pub fn on(mut self, place: &Place) -> Self {
        if let Self::Pca(pca) = &mut self {
            pca.place = place.clone();
        }
        self
    }

    /// The codec that changes nothing, not even by rounding: mean 0, scale 1.
    #[must_use]
    pub fn raw(dim: usize) -> Self {
        Self::Identity(Normalizer { mean: vec![0.0; dim], scale: vec![1.0; dim] })
    }

    /// The codec's name in reports: `identity` or `pca`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Identity(_) => "identity",
            Self::Pca(_) => "pca",
        }
    }

    /// The number of weights of one network, `D`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.normalizer().dim()
    }

    /// The length of a code, `k`.
    #[must_use]
    pub fn code_len(&self) -> usize {
        match self {
            Self::Identity(normalizer) => normalizer.dim(),
            Self::Pca(pca) => pca.rank(),
        }
    }

    /// The shift and scale of each weight.
    #[must_use]
    pub fn normalizer(&self) -> &Normalizer {
        match self {
            Self::Identity(normalizer) => normalizer,
            Self::Pca(pca) => pca.normalizer(),
        }
    }

    /// Turns weights `[n, D]` into codes `[n, k]`, which have mean 0 and unit variance over the rows fitted on.
    ///
    /// For the identity codec that variance is of a weight or, on average, of a tensor, as it was normalized.
    ///
    /// # Errors
    /// [`Error::Length`] if `rows` is not a whole number of rows, [`Error::NonFinite`] if a weight is not finite.
    pub fn encode(&self, rows: &[f32]) -> Result<Vec<f32>> {
        match self {
            Self::Identity(normalizer) => {
                normalizer.check_rows(rows)?;
                Ok(normalizer.apply(rows))
            }
            Self::Pca(pca) => pca.encode(rows),
        }
    }

    /// Turns codes `[n, k]` into weights `[n, D]`.
    ///
    /// # Errors
    /// [`Error::Length`] if `codes` is not a whole number of codes.
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        match self {
            Self::Identity(normalizer) => {
                let row = normalizer.dim();
                if !codes.len().is_multiple_of(row) {
                    return Err(Error::Length { what: "codes", row, got: codes.len() });
                }
                Ok(normalizer.invert(codes))
            }
            Self::Pca(pca) => pca.decode(codes),
        }
    }

    /// The linear map from codes to weights.
    #[must_use]
    pub fn decoder(&self) -> Decoder<'_> {
        match self {
            Self::Identity(normalizer) => Decoder::Scale { mean: &normalizer.mean, scale: &normalizer.scale },
            Self::Pca(pca) => Decoder::Linear { mean: &pca.normalizer().mean, matrix: pca.decode_matrix() },
        }
    }

    /// The relative squared error of reconstruction at each of `ranks`, from one encoding.
    ///
    /// `Σᵢ‖x̃ᵢ − x̃ᵢ(rank)‖² / Σᵢ‖x̃ᵢ‖²` over the rows, in normalized weights, whose origin is the mean that the codec
    /// was fitted with: 1 is what decoding every code to the mean scores. The identity codec loses nothing at any rank.
    ///
    /// # Errors
    /// Rows that [`Codec::encode`] refuses, or [`Error::Rank`] for a rank above the codec's own.
    pub fn reconstruction_error(&self, rows: &[f32], ranks: &[usize]) -> Result<Vec<f64>> {
        match self {
            Self::Identity(normalizer) => normalizer.check_rows(rows).map(|_| vec![0.0; ranks.len()]),
            Self::Pca(pca) => pca.reconstruction_error(rows, ranks),
        }
    }

    /// The mean square, per weight, of what the codec drops of these rows, `[D]`, in the weights' own units.
    ///
    /// Adding Gaussian noise of this variance to decoded weights gives a sampler with the rows' own variance per
    /// weight, as probabilistic PCA has it in total (there one `σ²` stands for all directions dropped). Rows that the
    /// codec was not fitted on give the honest figure: at high rank it drops almost nothing of its own.
    ///
    /// # Errors
    /// Rows that [`Codec::encode`] refuses, or [`Error::TooFewRows`] if there is none.
    ///
    /// # References
    /// Tipping & Bishop 1999, "Probabilistic principal component analysis", eq. 8.
    pub fn residual_variance(&self, rows: &[f32]) -> Result<Vec<f32>> {
        match self {
            Self::Identity(normalizer) => normalizer.check_rows(rows).map(|_| vec![0.0; normalizer.dim()]),
            Self::Pca(pca) => pca.residual_variance(rows),
        }
    }
}
