//! Fitting principal components exactly: through the Gram matrix or the covariance, whichever is smaller.

use super::{Pca, randomized};
use crate::centered::Centered;
use crate::config::{Rank, Solver};
use crate::linalg::{SUM_BLOCK, SymmetricSum, largest};
use crate::normalize::Normalizer;
use crate::{Error, Result};
use faer::{Mat, MatRef};
use rayon::prelude::*;
use weft_core::products::{Place, Products};
use weft_core::{Population, Seed};

/// Eigenvalues below this fraction of the largest are rounding errors of f32 weights.
const FLOOR: f64 = 1e-10;
/// Above this many rows and columns eigenvectors are found by subspace iteration.
const EXACT_LIMIT: usize = 4096;

/// What a solver finds: eigenvalues, largest first, and rows `√λₖ·vₖ`, `[k, D]`, in normalized weights.
pub(super) struct Components {
    pub(super) spectrum: Vec<f64>,
    pub(super) rows: Vec<f32>,
}

/// What every solver needs to know.
pub(super) struct Problem<'a> {
    pub(super) rows: &'a Population,
    pub(super) normalizer: &'a Normalizer,
    pub(super) total_variance: f64,
    pub(super) rank: Rank,
    pub(super) on: &'a dyn Products,
}

impl Problem<'_> {
    /// The largest rank that the data's shape allows.
    pub(super) fn limit(&self) -> usize {
        (self.rows.len() - 1).min(self.rows.dim())
    }

    /// See [`choose_rank`].
    pub(super) fn choose_rank(&self, spectrum: &[f64]) -> Result<Option<usize>> {
        choose_rank(self.rank, (spectrum, self.total_variance), self.limit())
    }
}

/// Refuses a rank or a total variance that no fit can give.
pub(crate) fn check(rank: Rank, total_variance: f64, limit: usize) -> Result<()> {
    match rank {
        Rank::Fixed(asked) if asked == 0 || asked > limit => Err(Error::Rank { asked, available: limit }),
        Rank::KeptVariance(got) if !(got > 0.0 && got <= 1.0) => Err(Error::KeptVariance { got }),
        _ if total_variance <= 0.0 => Err(Error::NoVariance),
        _ => Ok(()),
    }
}

/// The number of components to keep, given the leading eigenvalues; `None` if more of them are needed to tell.
pub(crate) fn choose_rank(rank: Rank, (spectrum, total): (&[f64], f64), limit: usize) -> Result<Option<usize>> {
    let floor = (FLOOR * spectrum[0]).max(f64::from(f32::MIN_POSITIVE));
    let available = spectrum.iter().take(limit).take_while(|&&v| v > floor).count();
    if available == 0 {
        return Err(Error::NoVariance);
    }
    match rank {
        Rank::Fixed(asked) if asked == 0 || asked > available => Err(Error::Rank { asked, available }),
        Rank::Fixed(rank) => Ok(Some(rank)),
        Rank::KeptVariance(fraction) => {
            let target = fraction * total;
            let mut kept = 0.0;
            let reached = spectrum[..available].iter().position(|&variance| {
                kept += variance;
                kept >= target
            });
            let all = spectrum.len() >= limit || available < spectrum.len();
            Ok(reached.map(|i| i + 1).or(all.then_some(available)))
        }
    }
}

impl Pca {
    pub(crate) fn fit(
        rows: &Population,
        (normalizer, total_variance): (Normalizer, f64),
        (rank, solver): (Rank, Solver),
        (seed, place): (Seed, &Place),
    ) -> Result<Self> {
        let problem = Problem { rows, normalizer: &normalizer, total_variance, rank, on: &**place };
        let smaller = rows.len().min(rows.dim());
        check(rank, total_variance, problem.limit())?;
        let found = match solver {
            Solver::Auto if smaller > EXACT_LIMIT => randomized::solve(&problem, smaller / 2, seed)?,
            Solver::Randomized => randomized::solve(&problem, smaller, seed)?,
            _ => None,
        };
        let Components { spectrum, rows: mut matrix } = match (found, solver) {
            (Some(components), _) => components,
            (None, Solver::Covariance) => covariance(&problem)?,
            (None, Solver::Gram) => gram(&problem)?,
            (None, _) if rows.dim() < rows.len() => covariance(&problem)?,
            (None, _) => gram(&problem)?,
        };
        matrix.par_chunks_mut(rows.dim()).for_each(|row| fix_sign_and_scale(row, &normalizer.scale));
        let spectrum = spectrum.into_iter().map(|v| v as f32).collect();
        Ok(Self { normalizer, matrix, spectrum, total_variance: total_variance as f32, place: place.clone() })
    }
}

/// Multiplies by the scales and makes the entry of largest size positive, the first one of a tie.
fn fix_sign_and_scale(row: &mut [f32], scale: &[f32]) {
    let sign = if largest(row) < 0.0 { -1.0 } else { 1.0 };
    row.iter_mut().zip(scale).for_each(|(x, &s)| *x *= sign * s);
}

/// Solves through `X̃X̃ᵀ` `[n, n]` with eigenvectors `u`: `√λ·v = X̃ᵀu/√(n−1)`, no division by small values.
fn gram(problem: &Problem<'_>) -> Result<Components> {
    let (n, d) = (problem.rows.len(), problem.rows.dim());
    let centered = Centered::new(problem.on, problem.normalizer, problem.rows.data());
    let mut sum = SymmetricSum::zeros(n);
    centered.add_gram(&mut sum);
    let (spectrum, vectors, rank) = eigen(problem, sum)?;
    let mut rows = vec![0.0_f32; rank * d];
    centered.combine(&combinations_of(vectors.subcols(0, rank)), &mut rows);
    Ok(Components { spectrum, rows })
}

/// What combines rows to components: the eigenvectors `[n, k]` over `√(n−1)`, transposed.
pub(crate) fn combinations_of(vectors: MatRef<'_, f64>) -> Vec<f64> {
    let (n, k) = (vectors.nrows(), vectors.ncols());
    let factor = 1.0 / ((n - 1) as f64).sqrt();
    (0..k).flat_map(|j| (0..n).map(move |i| factor * vectors[(i, j)])).collect()
}

/// Solves through `X̃ᵀX̃` `[D, D]`, whose eigenvectors are the `v`.
fn covariance(problem: &Problem<'_>) -> Result<Components> {
    let d = problem.rows.dim();
    let mut sum = SymmetricSum::zeros(d);
    for rows in problem.rows.data().chunks(SUM_BLOCK * d) {
        Centered::new(problem.on, problem.normalizer, rows).add_covariance(&mut sum);
    }
    let (spectrum, vectors, rank) = eigen(problem, sum)?;
    let rows = (0..rank).flat_map(|k| (0..d).map(move |j| (k, j)));
    let rows = rows.map(|(k, j)| (spectrum[k].sqrt() * vectors[(j, k)]) as f32).collect();
    Ok(Components { spectrum, rows })
}

/// The spectrum, the eigenvectors and the rank to keep.
fn eigen(problem: &Problem<'_>, sum: SymmetricSum) -> Result<(Vec<f64>, Mat<f64>, usize)> {
    let (mut spectrum, vectors) = sum.eigen()?;
    spectrum.truncate(problem.limit());
    let degrees = (problem.rows.len() - 1) as f64;
    for variance in &mut spectrum {
        *variance /= degrees;
    }
    let rank = problem.choose_rank(&spectrum)?.unwrap_or(spectrum.len());
    Ok((spectrum, vectors, rank))
}
