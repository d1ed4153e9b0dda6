//! Fitting the leading principal components of a large matrix by randomized block subspace iteration.
//!
//! # References
//! Halko, Martinsson & Tropp 2011, "Finding structure with randomness", algorithm 4.4 (the iteration, orthonormalized
//! at every half step) and algorithm 5.1 (from the subspace to the factors), here through `BBᵀ`, which is small.

use super::fit::{Components, Problem};
use crate::Result;
use crate::config::Rank;
use crate::linalg::{SymmetricSum, orthonormalize, product_rows};
use faer::Mat;
use weft_core::Seed;
use weft_core::products::{Products, View};

/// Directions beyond the rank: at least this many, and a quarter of the rank.
const OVERSAMPLING: usize = 32;
/// The iteration stops when the variance held by the wanted directions grows by less than this fraction.
const TOLERANCE: f64 = 1e-5;
/// Where a spectrum decays slowly the last directions never settle; the variance that they hold has by then.
const MAX_ITERATIONS: usize = 16;
/// The first guess where the rank follows from a kept variance.
const FIRST_GUESS: usize = 256;

/// Finds the leading components, or `None` if they need a block of more than `widest` directions.
pub(super) fn solve(problem: &Problem<'_>, widest: usize, seed: Seed) -> Result<Option<Components>> {
    let mut guess = match problem.rank {
        Rank::Fixed(rank) => rank,
        Rank::KeptVariance(_) => FIRST_GUESS.min(problem.limit()),
    };
    loop {
        let block = (guess + OVERSAMPLING.max(guess / 4)).min(problem.limit());
        if block > widest {
            return Ok(None);
        }
        let subspace = iterate(problem, guess, block, seed)?;
        let exhausted = guess == problem.limit();
        let known = guess.min(subspace.spectrum.len());
        match problem.choose_rank(&subspace.spectrum[..known])? {
            Some(rank) => return Ok(Some(subspace.components(problem.on, rank))),
            None if exhausted => return Ok(Some(subspace.components(problem.on, known))),
            None => guess = (2 * guess).min(problem.limit()),
        }
    }
}

/// A subspace and the spectrum within it.
struct Subspace {
    /// `W = X̃ᵀQ`, row-major `[D, l]`.
    projected: Vec<f32>,
    /// The eigenvectors of `WᵀW` as columns.
    rotation: Mat<f64>,
    spectrum: Vec<f64>,
    /// `n − 1`.
    degrees: f64,
}

impl Subspace {
    /// `√λₖ·vₖ = W·rₖ/√(n−1)`: again no division by small values.
    fn components(self, on: &dyn Products, rank: usize) -> Components {
        let l = self.rotation.nrows();
        let d = self.projected.len() / l;
        let entries = (0..l).flat_map(|i| (0..rank).map(move |k| (i, k)));
        let rotation: Vec<f32> = entries.map(|entry| (self.rotation[entry] / self.degrees.sqrt()) as f32).collect();
        let columns = product_rows(on, &self.projected, View::new(&rotation, l, rank));
        let mut rows = vec![0.0; rank * d];
        for (k, row) in rows.chunks_exact_mut(d).enumerate() {
            row.iter_mut().zip(columns.iter().skip(k).step_by(rank)).for_each(|(x, &v)| *x = v);
        }
        let spectrum = self.spectrum[..rank].to_vec();
        Components { spectrum, rows }
    }
}

/// Iterates a random block of directions until the first `wanted` of them have settled.
fn iterate(problem: &Problem<'_>, wanted: usize, block: usize, seed: Seed) -> Result<Subspace> {
    let (rows, normalizer, on) = (problem.rows.data(), problem.normalizer, problem.on);
    let degrees = (problem.rows.len() - 1) as f64;
    let mut directions = seed.fork("pca-directions").normals(problem.rows.dim() * block);
    let mut l = block;
    let mut held = 0.0;
    let mut iteration = 0;
    loop {
        let image = normalizer.project(on, (rows, &normalizer.scale), View::new(&directions, normalizer.dim(), l));
        let (basis, rank) = orthonormalize(on, image, l)?;
        let projected = normalizer.project_transposed(on, rows, &basis, rank);
        let (mut spectrum, rotation) = SymmetricSum::of_columns(&projected, rank).eigen()?;
        for variance in &mut spectrum {
            *variance /= degrees;
        }
        iteration += 1;
        let now: f64 = spectrum.iter().take(wanted).sum();
        if now - held <= TOLERANCE * now || iteration == MAX_ITERATIONS {
            return Ok(Subspace { projected, rotation, spectrum, degrees });
        }
        held = now;
        (directions, l) = orthonormalize(on, projected, rank)?;
    }
}
