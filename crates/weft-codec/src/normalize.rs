//! The shift and scale of each weight.

use crate::config::Normalization;
use crate::linalg::{ROW_BLOCK, SUM_BLOCK, block_of, matrix_of, product, rows_of, rows_of_mut, vectorized};
use crate::{Error, Result};
use faer::Accum;
use rayon::prelude::*;
use std::ops::Range;
use weft_core::Population;
use weft_core::products::{Normalized, Products, View};

/// Standard deviations outside this range are not divided by: below, a weight counts as constant; above, it is an
/// error.
const SCALES: std::ops::RangeInclusive<f64> = 1e-15..=1e15;
/// A weight that varies less than this fraction of its tensor is scaled like its tensor, lest noise be amplified.
const QUIET: f64 = 1e-6;

/// Weights whose moments are taken at a time: those of a thousand networks stay in a core's cache for the second pass.
const MOMENT_BLOCK: usize = 128;

/// Normalizes weights: `x̃ = (x − mean) / scale`.
///
/// # Shapes
/// Mean and scale are `[D]`. The mean is always each weight's own; the scale follows [`Normalization`].
#[derive(Debug, Clone, PartialEq)]
pub struct Normalizer {
    pub(crate) mean: Vec<f32>,
    pub(crate) scale: Vec<f32>,
}

/// Principal components see the running statistics of batch norms this many times smaller than they are: they follow from the other
/// weights, and are to have no say in what the directions are.
pub(crate) const STATISTICS: f32 = 1e4;

impl Normalizer {
    /// Measures the rows' mean and scale, the latter times [`STATISTICS`] for running statistics if these are to be small; also returns the
    /// total variance of the normalized rows.
    pub(crate) fn fit(rows: &Population, normalization: Normalization, small_statistics: bool) -> Result<(Self, f64)> {
        let (means, variances) = moments(rows.data(), rows.dim(), 0)?;
        let mut scale = vec![1.0_f32; rows.dim()];
        for tensor in rows.architecture().tensors() {
            let range = tensor.range();
            let variance = &variances[range.clone()];
            let whole = (variance.iter().sum::<f64>() / variance.len() as f64).sqrt();
            for (weight, &own) in range.zip(variance) {
                scale[weight] = scale_of(normalization, weight, (own.sqrt(), whole))?;
            }
        }
        for range in rows.architecture().statistics().into_iter().filter(|_| small_statistics) {
            scale[range].iter_mut().for_each(|scale| *scale *= STATISTICS);
        }
        let total = variances.iter().zip(&scale).map(|(v, &s)| v / f64::from(s).powi(2)).sum();
        Ok((Self { mean: means.into_iter().map(|m| m as f32).collect(), scale }, total))
    }

    /// The mean of each weight, `[D]`.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// What each weight is divided by, `[D]`; positive.
    #[must_use]
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    pub(crate) fn dim(&self) -> usize {
        self.mean.len()
    }

    /// The number of rows in `rows`, which must be whole and finite.
    pub(crate) fn check_rows(&self, rows: &[f32]) -> Result<usize> {
        let d = self.dim();
        if !rows.len().is_multiple_of(d) {
            return Err(Error::Length { what: "weights", row: d, got: rows.len() });
        }
        match rows.par_chunks(d).position_first(|row| !all_finite(row)) {
            None => Ok(rows.len() / d),
            Some(row) => {
                let weight = rows[row * d..].iter().take_while(|x| x.is_finite()).count();
                Err(Error::NonFinite { row, weight })
            }
        }
    }

    /// Normalizes whole rows `[n, D]`.
    pub(crate) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = rows.to_vec();
        out.par_chunks_mut(self.dim()).for_each(|row| {
            for ((x, &mean), &scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = (*x - mean) / scale;
            }
        });
        out
    }

    /// Undoes [`Normalizer::apply`].
    pub(crate) fn invert(&self, codes: &[f32]) -> Vec<f32> {
        let mut out = codes.to_vec();
        out.par_chunks_mut(self.dim()).for_each(|row| {
            for ((x, &mean), &scale) in row.iter_mut().zip(&self.mean).zip(&self.scale) {
                *x = *x * scale + mean;
            }
        });
        out
    }

    /// The squared length of each normalized row.
    pub(crate) fn squared_lengths(&self, rows: &[f32]) -> Vec<f64> {
        let squared = |row: &[f32]| {
            let terms = row.iter().zip(&self.mean).zip(&self.scale);
            terms.map(|((&x, &mean), &scale)| (f64::from(x - mean) / f64::from(scale)).powi(2)).sum()
        };
        rows.par_chunks(self.dim()).map(squared).collect()
    }

    /// Computes `((rows − mean) / scale)·b`, where `b` is `[D, l]`, without a copy of the rows.
    pub(crate) fn project(&self, on: &dyn Products, (rows, scale): (&[f32], &[f32]), b: View<'_>) -> Vec<f32> {
        let [d, l] = b.shape();
        let mut out = vec![0.0; rows.len() / d * l];
        if on.project(&mut out, Normalized::new(rows, &self.mean, scale), false, b) {
            return out;
        }
        let (factor, b) = (inverse(scale), matrix_of(b));
        // What a device that failed left behind is written over.
        let accum = |start: usize| if start == 0 { Accum::Replace } else { Accum::Add };
        let height = block_of(rows.len() / d);
        let blocks = out.par_chunks_mut(height * l).zip(rows.par_chunks(height * d));
        blocks.for_each_init(Vec::new, |piece, (out, rows)| {
            for start in (0..d).step_by(SUM_BLOCK) {
                let end = (start + SUM_BLOCK).min(d);
                scaled_columns(rows, (start..end, d), (&self.mean, &factor), piece);
                let b = b.subrows(start, end - start);
                product(rows_of_mut(out, l), accum(start), rows_of(piece, end - start), b);
            }
        });
        out
    }

    /// Computes `x̃ᵀ·b`, where `b` is row-major `[n, l]`; the result is row-major `[D, l]`.
    pub(crate) fn project_transposed(&self, on: &dyn Products, rows: &[f32], b: &[f32], l: usize) -> Vec<f32> {
        let d = self.dim();
        let mut out = vec![0.0; d * l];
        let normalized = Normalized::new(rows, &self.mean, &self.scale);
        if on.project(&mut out, normalized, true, View::new(b, rows.len() / d, l)) {
            return out;
        }
        let factor = inverse(&self.scale);
        out.par_chunks_mut(ROW_BLOCK * l).enumerate().for_each_init(Vec::new, |piece, (block, out)| {
            let start = block * ROW_BLOCK;
            let end = start + out.len() / l;
            for (i, (rows, b)) in rows.chunks(SUM_BLOCK * d).zip(b.chunks(SUM_BLOCK * l)).enumerate() {
                scaled_columns(rows, (start..end, d), (&self.mean, &factor), piece);
                let accum = if i == 0 { Accum::Replace } else { Accum::Add };
                product(rows_of_mut(out, l), accum, rows_of(piece, end - start).transpose(), rows_of(b, l));
            }
        });
        out
    }
}

fn inverse(scale: &[f32]) -> Vec<f32> {
    scale.iter().map(|&s| 1.0 / s).collect()
}

/// What a weight is divided by, given its own deviation and that of its whole tensor.
pub(crate) fn scale_of(normalization: Normalization, weight: usize, (own, whole): (f64, f64)) -> Result<f32> {
    let spread = match normalization {
        Normalization::Off => 1.0,
        Normalization::PerWeight if own > QUIET * whole => own,
        Normalization::PerWeight | Normalization::PerTensor => whole,
    };
    if own.max(spread) > *SCALES.end() {
        return Err(Error::Spread { weight, spread: own.max(spread) });
    }
    Ok(if spread < *SCALES.start() { 1.0 } else { spread as f32 })
}

/// Writes `(row − shift) ⊙ factor` of some columns of rows of length `d`, row-major.
fn scaled_columns(rows: &[f32], (columns, d): (Range<usize>, usize), (shift, factor): (&[f32], &[f32]), out: &mut Vec<f32>) {
    out.resize(rows.len() / d * columns.len(), 0.0);
    let (shift, factor) = (&shift[columns.clone()], &factor[columns.clone()]);
    for (out, row) in out.chunks_exact_mut(columns.len()).zip(rows.chunks_exact(d)) {
        let row = &row[columns.clone()];
        vectorized(
            #[inline(always)]
            || {
                for ((out, &x), (s, f)) in out.iter_mut().zip(row).zip(shift.iter().zip(factor)) {
                    *out = (x - s) * f;
                }
            },
        );
    }
}

/// Whether no value is infinite or not a number, told by a stretch of them at a time.
fn all_finite(values: &[f32]) -> bool {
    let finite = |values: &[f32]| vectorized(|| values.iter().fold(true, |all, x| all & x.is_finite()));
    values.chunks(4096).all(finite)
}

/// The mean and the variance (over `n − 1`) of each weight of rows of length `d`, which begin at weight `first` of a network.
pub(crate) fn moments(rows: &[f32], d: usize, first: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let n = rows.len() / d;
    if n < 2 {
        return Err(Error::TooFewRows { needed: 2, got: n });
    }
    let mut means = vec![0.0; d];
    let mut variances = vec![0.0; d];
    let blocks = means.par_chunks_mut(MOMENT_BLOCK).zip(variances.par_chunks_mut(MOMENT_BLOCK)).enumerate();
    blocks.for_each(|(block, (means, variances))| {
        let columns = block * MOMENT_BLOCK..block * MOMENT_BLOCK + means.len();
        vectorized(
            #[inline(always)]
            || {
                for row in rows.chunks_exact(d) {
                    for (mean, &x) in means.iter_mut().zip(&row[columns.clone()]) {
                        *mean += f64::from(x);
                    }
                }
                for mean in &mut *means {
                    *mean /= n as f64;
                }
                for row in rows.chunks_exact(d) {
                    for ((variance, &mean), &x) in variances.iter_mut().zip(&*means).zip(&row[columns.clone()]) {
                        *variance += (f64::from(x) - mean).powi(2);
                    }
                }
                for variance in variances {
                    *variance /= (n - 1) as f64;
                }
            },
        );
    });
    if let Some(weight) = means.iter().position(|m| !m.is_finite()) {
        let row = rows.chunks_exact(d).position(|row| !row[weight].is_finite()).unwrap_or_default();
        return Err(Error::NonFinite { row, weight: first + weight });
    }
    Ok((means, variances))
}
