//! Principal components as a codec.
//!
//! In normalized weights `x̃ = (x − mean)/scale` the covariance `X̃ᵀX̃/(n−1)` has eigenvalues `λ₁ ≥ λ₂ ≥ …` (the
//! *spectrum*) and eigenvectors `v₁, v₂, …`. A code is `zₖ = ⟨x̃, vₖ⟩/√λₖ`, so `x̃ ≈ Σ zₖ√λₖ·vₖ`. Stored is the decode
//! matrix `M`, with rows `√λₖ·vₖ ⊙ scale`; encoding needs no other, since `zₖ = ⟨x̃/scale, Mₖ⟩/λₖ`.

mod fit;
mod randomized;

pub(crate) use fit::{check as check_rank, choose_rank, combinations_of};

use crate::linalg::{ROW_BLOCK, SUM_BLOCK, matrix_of, product, rows_of_mut};
use crate::normalize::Normalizer;
use crate::{Error, Result};
use faer::Accum;
use faer::reborrow::ReborrowMut as _;
use rayon::prelude::*;
use weft_core::products::{Place, View};

/// The part of the total variance that the kept eigenvalues are.
pub(crate) fn kept_variance(kept: &[f32], total: f32) -> f64 {
    kept.iter().map(|&v| f64::from(v)).sum::<f64>() / f64::from(total)
}

/// A fitted PCA codec.
#[derive(Debug, Clone, PartialEq)]
pub struct Pca {
    pub(crate) normalizer: Normalizer,
    /// `[k, D]`, with all scales included.
    pub(crate) matrix: Vec<f32>,
    /// At least `k` eigenvalues, largest first.
    pub(crate) spectrum: Vec<f32>,
    pub(crate) total_variance: f32,
    pub(crate) place: Place,
}

impl Pca {
    /// The number of components kept, `k`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.matrix.len() / self.dim()
    }

    /// The number of weights of one network, `D`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.normalizer.dim()
    }

    /// The shift and scale of each weight.
    #[must_use]
    pub fn normalizer(&self) -> &Normalizer {
        &self.normalizer
    }

    /// The covariance's eigenvalues in normalized weights, largest first.
    ///
    /// All `min(n − 1, D)` of them from an exact solver, the `k` kept from the randomized one.
    #[must_use]
    pub fn spectrum(&self) -> &[f32] {
        &self.spectrum
    }

    /// The covariance's trace in normalized weights: the sum of all eigenvalues.
    #[must_use]
    pub fn total_variance(&self) -> f32 {
        self.total_variance
    }

    /// The fraction of the total variance that the components kept hold.
    #[must_use]
    pub fn kept_variance(&self) -> f64 {
        kept_variance(&self.spectrum[..self.rank()], self.total_variance)
    }

    /// The decode matrix `M`, row-major `[k, D]`: `w = mean + z·M`.
    #[must_use]
    pub fn decode_matrix(&self) -> &[f32] {
        &self.matrix
    }

    /// The codec of the first `rank` components, without a new fit; their codes stay the same.
    ///
    /// # Errors
    /// [`Error::Rank`] if `rank` is 0 or above this codec's.
    pub fn truncated(&self, rank: usize) -> Result<Self> {
        if rank == 0 || rank > self.rank() {
            return Err(Error::Rank { asked: rank, available: self.rank() });
        }
        let matrix = self.matrix[..rank * self.dim()].to_vec();
        Ok(Self {
            matrix,
            normalizer: self.normalizer.clone(),
            spectrum: self.spectrum.clone(),
            total_variance: self.total_variance,
            place: self.place.clone(),
        })
    }

    /// Turns weights `[n, D]` into codes `[n, k]`; see [`crate::Codec::encode`].
    ///
    /// # Errors
    /// [`Error::Length`] if `rows` is not a whole number of rows, [`Error::NonFinite`] if a weight is not finite.
    pub fn encode(&self, rows: &[f32]) -> Result<Vec<f32>> {
        self.normalizer.check_rows(rows)?;
        Ok(self.encode_checked(rows))
    }

    fn encode_checked(&self, rows: &[f32]) -> Vec<f32> {
        let squared: Vec<f32> = self.normalizer.scale.iter().map(|&s| s * s).collect();
        let matrix = View::new(&self.matrix, self.rank(), self.dim());
        let mut codes = self.normalizer.project(&*self.place, (rows, &squared), matrix.t());
        codes.par_chunks_mut(self.rank()).for_each(|code| {
            code.iter_mut().zip(&self.spectrum).for_each(|(z, &variance)| *z /= variance);
        });
        codes
    }

    /// Turns codes `[n, k]` into weights `[n, D]`.
    ///
    /// # Errors
    /// [`Error::Length`] if `codes` is not a whole number of codes.
    pub fn decode(&self, codes: &[f32]) -> Result<Vec<f32>> {
        self.decode_at_rank(codes, self.rank())
    }

    /// Turns codes `[n, k]` into weights, reading only the first `rank` values of each.
    ///
    /// # Errors
    /// [`Error::Length`] if `codes` is not a whole number of codes, [`Error::Rank`] if `rank` is above the codec's; 0 is
    /// allowed and gives the mean.
    pub fn decode_at_rank(&self, codes: &[f32], rank: usize) -> Result<Vec<f32>> {
        let (d, k) = (self.dim(), self.rank());
        if !codes.len().is_multiple_of(k) {
            return Err(Error::Length { what: "codes", row: k, got: codes.len() });
        }
        if rank > k {
            return Err(Error::Rank { asked: rank, available: k });
        }
        let (n, mean) = (codes.len() / k, &self.normalizer.mean);
        let (codes, matrix) = (View::strided(codes, n, rank, k), View::new(&self.matrix, rank, d));
        let mut rows = vec![0.0; n * d];
        if self.place.multiply(&mut rows, codes, matrix, false) {
            rows.par_chunks_mut(d).for_each(|row| row.iter_mut().zip(mean).for_each(|(x, &mean)| *x += mean));
            return Ok(rows);
        }
        let (codes, matrix) = (matrix_of(codes), matrix_of(matrix));
        let pieces = rows_of_mut(&mut rows, d).par_col_chunks_mut(SUM_BLOCK).zip(mean.par_chunks(SUM_BLOCK));
        pieces.enumerate().for_each(|(i, (mut rows, mean))| {
            for row in rows.rb_mut().row_iter_mut() {
                row.iter_mut().zip(mean).for_each(|(x, &mean)| *x = mean);
            }
            product(rows, Accum::Add, codes, matrix.subcols(i * SUM_BLOCK, mean.len()));
        });
        Ok(rows)
    }

    /// See [`crate::Codec::reconstruction_error`].
    ///
    /// Since the `vₖ` are orthonormal, `‖x̃ − x̃(r)‖² = ‖x̃‖² − Σ_{k≤r} λₖzₖ²`.
    pub(crate) fn reconstruction_error(&self, rows: &[f32], ranks: &[usize]) -> Result<Vec<f64>> {
        let k = self.rank();
        if let Some(&asked) = ranks.iter().find(|&&rank| rank > k) {
            return Err(Error::Rank { asked, available: k });
        }
        self.normalizer.check_rows(rows)?;
        let total: f64 = self.normalizer.squared_lengths(rows).iter().sum();
        let mut held = vec![0.0; k + 1];
        for code in self.encode_checked(rows).chunks_exact(k) {
            for ((held, &z), &variance) in held[1..].iter_mut().zip(code).zip(&self.spectrum) {
                *held += f64::from(variance) * f64::from(z).powi(2);
            }
        }
        for rank in 1..=k {
            held[rank] += held[rank - 1];
        }
        let error = |&rank: &usize| if total > 0.0 { (1.0 - held[rank] / total).max(0.0) } else { 0.0 };
        Ok(ranks.iter().map(error).collect())
    }

    /// See [`crate::Codec::residual_variance`].
    pub(crate) fn residual_variance(&self, rows: &[f32]) -> Result<Vec<f32>> {
        let d = self.dim();
        let n = self.normalizer.check_rows(rows)?;
        if n == 0 {
            return Err(Error::TooFewRows { needed: 1, got: 0 });
        }
        let mut sums = vec![0.0_f64; d];
        for rows in rows.chunks(2 * ROW_BLOCK * d) {
            let decoded = self.decode(&self.encode_checked(rows))?;
            sums.par_chunks_mut(SUM_BLOCK).enumerate().for_each(|(block, sums)| {
                let columns = block * SUM_BLOCK..block * SUM_BLOCK + sums.len();
                for (row, decoded) in rows.chunks_exact(d).zip(decoded.chunks_exact(d)) {
                    for ((sum, x), y) in sums.iter_mut().zip(&row[columns.clone()]).zip(&decoded[columns.clone()]) {
                        *sum += f64::from(x - y).powi(2);
                    }
                }
            });
        }
        Ok(sums.into_iter().map(|sum| (sum / n as f64) as f32).collect())
    }
}
