//! Principal components of networks that are too large to be held.
//!
//! A basis of `k` components is `k` times as large as a network. But each is a combination of the `n` networks that it was
//! fitted on: with the eigenvectors `u` of `X̃X̃ᵀ/(n−1)`, `√λₖ·vₖ = X̃ᵀuₖ/√(n−1)`, and their codes are `zᵢₖ = √(n−1)·uᵢₖ`. So
//!
//! ```text
//! w = mean + Σₖ zₖ·√λₖ·vₖ ⊙ scale = mean + Σᵢ cᵢ·(wᵢ − mean)        cᵢ = Σₖ zₖ·zᵢₖ / (n − 1)
//! ```
//!
//! in which no scale is left. Stored are the codes of the networks, `[n, k]`; decoding reads the networks again, a block of
//! columns at a time. Spectrum, codes and signs are those of [`crate::Pca`] through the Gram matrix.

use crate::blocks::Blocks;
use crate::centered::Centered;
use crate::linalg::{SymmetricSum, largest};
use crate::normalize::{Normalizer, STATISTICS, moments, scale_of};
use crate::pca::{check_rank, choose_rank, combinations_of, kept_variance};
use crate::persist::{SPECTRUM, TOTAL, spectrum_of, take, take_vector};
use crate::{Error, Normalization, Rank, Result};
use faer::MatRef;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::ops::Range;
use weft_core::{Architecture, TensorSpec};

const CODES: &str = "training-codes";

/// Takes decoded columns of all codes, `[m, columns]`.
pub type Give<'a, E> = &'a mut dyn FnMut(Range<usize>, &[f32]) -> Result<(), E>;

/// A PCA codec whose basis is the networks that it was fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Of the networks that it was fitted on, `[n, k]`.
    codes: Vec<f32>,
    /// At least `k` eigenvalues, largest first.
    spectrum: Vec<f32>,
    total_variance: f32,
    num_rows: usize,
}

impl Span {
    /// Fits the codec in three passes over the networks.
    ///
    /// # Errors
    /// As [`crate::Codec::fit`], or what reading returns.
    pub fn fit<E: From<Error>>(rows: &mut Blocks<'_, E>, rank: Rank, normalization: Normalization) -> Result<Self, E> {
        let spreads = tensor_spreads(rows)?;
        let n = rows.num_rows();
        let (architecture, on) = (rows.architecture(), rows.products());
        let (mut sum, mut total) = (SymmetricSum::zeros(n), 0.0);
        rows.each(|columns, values| {
            let (normalizer, variances) = normalizer(architecture, (columns, values), (normalization, &spreads))?;
            for (variance, &scale) in variances.iter().zip(&normalizer.scale) {
                total += variance / f64::from(scale).powi(2);
            }
            Centered::new(on, &normalizer, values).add_gram(&mut sum);
            Ok(())
        })?;
        let limit = (n - 1).min(architecture.num_parameters());
        check_rank(rank, total, limit)?;
        let (mut spectrum, vectors) = sum.eigen()?;
        spectrum.truncate(limit);
        for variance in &mut spectrum {
            *variance /= (n - 1) as f64;
        }
        let rank = choose_rank(rank, (&spectrum, total), limit)?.unwrap_or(spectrum.len());
        let signs = signs(rows, (normalization, &spreads), vectors.as_ref().subcols(0, rank))?;
        let root = ((n - 1) as f64).sqrt();
        let codes = (0..n).flat_map(|i| (0..rank).map(move |k| (i, k)));
        let codes = codes.map(|(i, k)| (root * signs[k] * vectors[(i, k)]) as f32).collect();
        let spectrum = spectrum.into_iter().map(|v| v as f32).collect();
        Ok(Self { codes, spectrum, total_variance: total as f32, num_rows: n })
    }

    /// The number of components kept, `k`.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.codes.len() / self.num_rows
    }

    /// The number of networks that it was fitted on, `n`.
    #[must_use]
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// The codes of the networks that it was fitted on, `[n, k]`.
    #[must_use]
    pub fn codes(&self) -> &[f32] {
        &self.codes
    }

    /// The covariance's eigenvalues in normalized weights, largest first.
    #[must_use]
    pub fn spectrum(&self) -> &[f32] {
        &self.spectrum
    }

    /// The sum of all eigenvalues.
    #[must_use]
    pub fn total_variance(&self) -> f32 {
        self.total_variance
    }

    /// The fraction of the total variance that the components kept hold.
    #[must_use]
    pub fn kept_variance(&self) -> f64 {
        kept_variance(&self.spectrum[..self.rank()], self.total_variance)
    }

    /// The network that a code is nearest to, and the distance of the two codes in normalized weights.
    ///
    /// # Panics
    /// If the code has another length than [`Span::rank`].
    #[must_use]
    pub fn nearest(&self, code: &[f32]) -> (usize, f64) {
        assert_eq!(code.len(), self.rank(), "a code of this codec");
        let squared = |own: &[f32]| -> f64 {
            let values = code.iter().zip(own).zip(&self.spectrum);
            values.map(|((a, b), &variance)| f64::from(variance) * (f64::from(*a) - f64::from(*b)).powi(2)).sum()
        };
        let found = self.codes.chunks_exact(self.rank()).map(squared).enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        found.map_or((0, 0.0), |(i, squared)| (i, squared.sqrt()))
    }

    /// Turns codes `[m, k]` into weights, a block of columns at a time: `give` gets the columns and `[m, columns]`.
    ///
    /// `rows` must be the networks that the codec was fitted on, in the same order.
    ///
    /// # Errors
    /// [`Error::Length`] if `codes` is not a whole number of codes, [`Error::Networks`] for another number of networks, or
    /// what reading or `give` returns.
    pub fn decode<E: From<Error>>(&self, codes: &[f32], rows: &mut Blocks<'_, E>, give: Give<'_, E>) -> Result<(), E> {
        let (n, k) = (self.num_rows, self.rank());
        if !codes.len().is_multiple_of(k) {
            return Err(Error::Length { what: "codes", row: k, got: codes.len() }.into());
        }
        if rows.num_rows() != n {
            return Err(Error::Networks { expected: n, got: rows.num_rows() }.into());
        }
        let coefficients: Vec<Vec<f64>> = codes.chunks_exact(k).map(|code| self.coefficients(code)).collect();
        let mut decoded = Vec::new();
        rows.each(|columns, values| {
            let width = columns.len();
            let (means, _) = moments(values, width, columns.start)?;
            decoded.resize(coefficients.len() * width, 0.0);
            decoded.par_chunks_mut(width).zip(&coefficients).for_each(|(out, coefficients)| {
                let mut sums = means.clone();
                for (row, c) in values.chunks_exact(width).zip(coefficients) {
                    let terms = sums.iter_mut().zip(row).zip(&means);
                    terms.for_each(|((sum, &w), mean)| *sum += c * (f64::from(w) - mean));
                }
                out.iter_mut().zip(sums).for_each(|(w, sum)| *w = sum as f32);
            });
            give(columns, &decoded)
        })
    }

    /// `cᵢ` of a code.
    fn coefficients(&self, code: &[f32]) -> Vec<f64> {
        let inner = |own: &[f32]| code.iter().zip(own).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        self.codes.chunks_exact(self.rank()).map(|own| inner(own) / (self.num_rows - 1) as f64).collect()
    }

    /// The codec as tensors `(name, shape, values)`, from which [`Span::from_tensors`] makes the same codec bit for bit.
    #[must_use]
    pub fn to_tensors(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        vec![
            (CODES.to_owned(), vec![self.num_rows, self.rank()], &self.codes),
            (SPECTRUM.to_owned(), vec![self.spectrum.len()], &self.spectrum),
            (TOTAL.to_owned(), vec![1], std::slice::from_ref(&self.total_variance)),
        ]
    }

    /// Makes a codec of its tensors.
    ///
    /// # Errors
    /// A missing or unknown tensor, a shape that does not fit the others, or values that no fit gives.
    pub fn from_tensors(mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let (shape, codes) = take(&mut tensors, CODES)?;
        let (num_rows, rank) = match shape[..] {
            [n, k] if n >= 2 => (n, k),
            _ => return Err(Error::Tensor { tensor: CODES, shape, reason: "it must have a row for each of two networks or more" }),
        };
        let spectrum = spectrum_of(&mut tensors, rank)?;
        let total_variance = take_vector(&mut tensors, TOTAL, 1)?[0];
        if total_variance <= 0.0 {
            return Err(Error::Tensor { tensor: TOTAL, shape: vec![1], reason: "its value must be positive" });
        }
        match tensors.into_keys().next() {
            Some(tensor) => Err(Error::UnknownTensor { tensor }),
            None => Ok(Self { codes, spectrum, total_variance, num_rows }),
        }
    }
}

/// The root of the mean variance of each tensor's weights.
fn tensor_spreads<E: From<Error>>(rows: &mut Blocks<'_, E>) -> Result<Vec<f64>, E> {
    let tensors = rows.architecture().tensors();
    let mut sums = vec![0.0; tensors.len()];
    rows.each(|columns, values| {
        let (_, variances) = moments(values, columns.len(), columns.start)?;
        for (i, part) in parts(tensors, &columns) {
            sums[i] = variances[part].iter().fold(sums[i], |sum, v| sum + v);
        }
        Ok(())
    })?;
    Ok(sums.iter().zip(tensors).map(|(sum, tensor)| (sum / tensor.num_values() as f64).sqrt()).collect())
}

/// The tensors that a block touches, each with its part of the block.
fn parts<'a>(tensors: &'a [TensorSpec], block: &Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + use<'a> {
    let (start, end) = (block.start, block.end);
    let first = tensors.partition_point(|tensor| tensor.range().end <= start);
    let touched = tensors.iter().enumerate().skip(first).take_while(move |(_, tensor)| tensor.range().start < end);
    touched.map(move |(i, tensor)| (i, tensor.range().start.max(start) - start..tensor.range().end.min(end) - start))
}

/// The means and scales of a block's weights, and their variances.
fn normalizer(
    architecture: &Architecture,
    (columns, values): (Range<usize>, &[f32]),
    (normalization, spreads): (Normalization, &[f64]),
) -> Result<(Normalizer, Vec<f64>)> {
    let (means, variances) = moments(values, columns.len(), columns.start)?;
    let mut scale = vec![1.0; columns.len()];
    let statistics = architecture.statistics();
    for (i, part) in parts(architecture.tensors(), &columns) {
        let factor = if statistics.contains(&architecture.tensors()[i].range()) { STATISTICS } else { 1.0 };
        for at in part {
            scale[at] = factor * scale_of(normalization, columns.start + at, (variances[at].sqrt(), spreads[i]))?;
        }
    }
    Ok((Normalizer { mean: means.into_iter().map(|m| m as f32).collect(), scale }, variances))
}

/// The sign of each component that makes its entry of largest size positive, the first one of a tie.
fn signs<E: From<Error>>(
    rows: &mut Blocks<'_, E>,
    (normalization, spreads): (Normalization, &[f64]),
    vectors: MatRef<'_, f64>,
) -> Result<Vec<f64>, E> {
    let (architecture, on) = (rows.architecture(), rows.products());
    let combinations = combinations_of(vectors);
    let (mut found, mut entries) = (vec![0.0_f32; vectors.ncols()], Vec::new());
    rows.each(|columns, values| {
        let (normalizer, _) = normalizer(architecture, (columns.clone(), values), (normalization, spreads))?;
        entries.resize(found.len() * columns.len(), 0.0);
        Centered::new(on, &normalizer, values).combine(&combinations, &mut entries);
        found.par_iter_mut().zip(entries.par_chunks(columns.len())).for_each(|(best, entries)| {
            *best = largest(&[*best, largest(entries)]);
        });
        Ok(())
    })?;
    Ok(found.into_iter().map(|x| if x < 0.0 { -1.0 } else { 1.0 }).collect())
}
