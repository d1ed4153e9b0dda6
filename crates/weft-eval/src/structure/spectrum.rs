//! The spectrum of networks' weights through the products of their rows, and its effective rank.

use super::control::random_basis;
use super::jackknife::jackknife;
use crate::figures::Estimate;
use crate::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd;
use faer::{Mat, Par, Spec};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use weft_core::{Population, Seed};

/// Rows of products that a thread takes at a time.
const BLOCK: usize = 16;
/// Variances kept for a report.
const SHOWN: usize = 64;
/// Variances below this fraction of the largest are rounding.
const FLOOR: f64 = 1e-12;

/// How many dimensions a spectrum has, by four measures.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Dimension {
    /// `(Σλ)² / Σλ²`.
    pub participation_ratio: Estimate,
    /// `exp(−Σ p ln p)` with `p = λ/Σλ`.
    pub entropy_rank: Estimate,
    /// Components that keep 90 % of the variance.
    pub components_90: usize,
    /// Components that keep 99 % of it.
    pub components_99: usize,
}

/// One tensor's principal components over networks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TensorSpectrum {
    /// The tensor's name, or `all weights`.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The largest rank that so many networks can show: `min(n − 1, d)`.
    pub max_rank: usize,
    /// Variance of all components.
    pub total_variance: f64,
    /// Variances of the leading components, decreasing.
    pub variances: Vec<f64>,
    /// How many dimensions the networks have.
    pub dimension: Dimension,
    /// Control: how many they have when each coordinate is shuffled over networks on its own.
    pub shuffled: Dimension,
    /// Control: the part of the variance that a random basis of `components_90` directions keeps, where the principal ones keep 0.9.
    pub random_basis: Estimate,
}

impl TensorSpectrum {
    pub(super) fn new((name, shape): (&str, &[usize]), (gram, shuffled): (Gram, Gram), seed: Seed) -> Result<Self> {
        let d: usize = shape.iter().product();
        let variances = gram.variances(None)?;
        let dimension = dimension(&gram, &variances);
        let shuffled = self::dimension(&shuffled, &shuffled.variances(None)?);
        Ok(Self {
            name: name.to_owned(),
            shape: shape.to_vec(),
            max_rank: (gram.n - 1).min(d),
            total_variance: variances.iter().sum(),
            random_basis: random_basis(&variances, d, dimension.components_90, seed),
            dimension,
            shuffled,
            variances: variances.into_iter().take(SHOWN).collect(),
        })
    }
}

fn dimension(gram: &Gram, variances: &[f64]) -> Dimension {
    // Errors of the eigenvalues of parts would be errors of the whole, which was found.
    let of = |measure: fn(&[f64]) -> f64| jackknife(gram.n, |kept| gram.variances(Some(kept)).map_or(f64::NAN, |v| measure(&v)));
    Dimension {
        participation_ratio: of(participation_ratio),
        entropy_rank: of(entropy_rank),
        components_90: components(variances, 0.9),
        components_99: components(variances, 0.99),
    }
}

/// The participation ratio; 0 of no variance.
pub(super) fn participation_ratio(variances: &[f64]) -> f64 {
    let (sum, squares) = variances.iter().fold((0.0, 0.0), |(sum, squares), v| (sum + v, squares + v * v));
    if squares > 0.0 { sum * sum / squares } else { 0.0 }
}

/// The entropy rank (Roy & Vetterli 2007, of variances); 0 of no variance.
pub(super) fn entropy_rank(variances: &[f64]) -> f64 {
    let total: f64 = variances.iter().sum();
    if total <= 0.0 {
        return 0.0;
    }
    variances.iter().map(|v| v / total).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum::<f64>().exp()
}

/// How many leading components keep a fraction of the variance.
pub(super) fn components(variances: &[f64], fraction: f64) -> usize {
    let target = fraction * variances.iter().sum::<f64>();
    let mut kept = 0.0;
    variances
        .iter()
        .take_while(|&&v| {
            let before = kept;
            kept += v;
            before < target
        })
        .count()
}

/// A stretch of all networks' rows less their mean, `[n, d]`, and the variance that rounding to `f32` can make of it.
pub(super) fn centered(networks: &Population, range: Range<usize>) -> (Vec<f32>, f64) {
    let n = networks.len() as f64;
    let mut mean = vec![0.0_f64; range.len()];
    networks.rows().for_each(|row| mean.iter_mut().zip(&row[range.clone()]).for_each(|(m, &w)| *m += f64::from(w) / n));
    let rows =
        networks.rows().flat_map(|row| row[range.clone()].iter().zip(&mean).map(|(&w, m)| (f64::from(w) - m) as f32)).collect();
    let rounding = mean.iter().map(|m| (m * f64::from(f32::EPSILON)).powi(2)).sum();
    (rows, rounding)
}

/// Products of centered rows, `[n, n]`, in `f64`.
pub(super) struct Gram {
    n: usize,
    products: Vec<f64>,
    /// A component of no more variance is rounding.
    rounding: f64,
}

impl Gram {
    pub(super) fn zeros(n: usize) -> Self {
        Self { n, products: vec![0.0; n * n], rounding: 0.0 }
    }

    /// Of rows `[n, d]`. Every product is one sum in a fixed order.
    pub(super) fn new(rows: &[f32], n: usize, rounding: f64) -> Self {
        let d = rows.len() / n;
        let mut gram = Self { rounding, ..Self::zeros(n) };
        gram.products.par_chunks_mut(BLOCK * n).enumerate().for_each(|(block, out)| {
            for (r, out) in out.chunks_exact_mut(n).enumerate() {
                let i = block * BLOCK + r;
                let a = &rows[i * d..(i + 1) * d];
                for (j, out) in out.iter_mut().enumerate().take(i + 1) {
                    *out = dot(a, &rows[j * d..(j + 1) * d]);
                }
            }
        });
        for i in 0..n {
            for j in i + 1..n {
                gram.products[i * n + j] = gram.products[j * n + i];
            }
        }
        gram
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.products.iter_mut().zip(&other.products).for_each(|(a, b)| *a += b);
        self.rounding += other.rounding;
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.products[i * self.n + j]
    }

    /// Distances of all pairs of chosen networks.
    pub(super) fn distances(&self, chosen: &[usize]) -> Vec<f64> {
        let pair = |i: usize, j: usize| (self.at(i, i) + self.at(j, j) - 2.0 * self.at(i, j)).max(0.0).sqrt();
        chosen.iter().enumerate().flat_map(|(at, &i)| chosen[..at].iter().map(move |&j| pair(i, j))).collect()
    }

    /// Distances of chosen networks to their mean.
    pub(super) fn distances_to_mean(&self, chosen: &[usize]) -> Vec<f64> {
        let centered = self.centered(chosen);
        (0..chosen.len()).map(|i| centered[i * chosen.len() + i].max(0.0).sqrt()).collect()
    }

    /// The products of chosen networks less their own mean.
    fn centered(&self, chosen: &[usize]) -> Vec<f64> {
        let count = chosen.len() as f64;
        let means: Vec<f64> = chosen.iter().map(|&i| chosen.iter().map(|&j| self.at(i, j)).sum::<f64>() / count).collect();
        let total = means.iter().sum::<f64>() / count;
        let entry = |(a, &i): (usize, &usize)| {
            let row: Vec<f64> = chosen.iter().enumerate().map(|(b, &j)| self.at(i, j) - means[a] - means[b] + total).collect();
            row
        };
        chosen.iter().enumerate().flat_map(entry).collect()
    }

    /// The variances of principal components, decreasing: of all networks, or of chosen ones about their own mean.
    pub(super) fn variances(&self, chosen: Option<&[usize]>) -> Result<Vec<f64>> {
        let all: Vec<usize>;
        let chosen = if let Some(chosen) = chosen {
            chosen
        } else {
            all = (0..self.n).collect();
            &all
        };
        let count = chosen.len();
        let mut values = eigenvalues(&self.centered(chosen), count)?;
        for v in &mut values {
            *v /= (count as f64 - 1.0).max(1.0);
        }
        let floor = (FLOOR * values.first().copied().unwrap_or(0.0)).max(self.rounding);
        values.retain(|&v| v > floor);
        Ok(values)
    }
}

/// The eigenvalues of a symmetric matrix, largest first.
fn eigenvalues(matrix: &[f64], size: usize) -> Result<Vec<f64>> {
    let matrix = Mat::<f64>::from_fn(size, size, |i, j| matrix[i * size + j]);
    let mut values = Diag::<f64>::zeros(size);
    let scratch = evd::self_adjoint_evd_scratch::<f64>(size, evd::ComputeEigenvectors::No, Par::Seq, Spec::default());
    evd::self_adjoint_evd(
        matrix.as_ref(),
        values.as_mut(),
        None,
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Spec::default(),
    )
    .map_err(|_| Error::Spectrum { size })?;
    Ok((0..size).rev().map(|i| values.column_vector()[i]).collect())
}

/// The product of two rows, summed in `f64` in eight lanes.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    let (a8, a_rest) = a.as_chunks::<8>();
    let (b8, b_rest) = b.as_chunks::<8>();
    for (a, b) in a8.iter().zip(b8) {
        for (lane, (&a, &b)) in lanes.iter_mut().zip(a.iter().zip(b)) {
            *lane += f64::from(a) * f64::from(b);
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    lanes.iter().sum::<f64>() + rest
}
