//! What the figures would be if there were no structure.

use crate::figures::Estimate;
use crate::stats::mean_estimate;
use rand_distr::{ChiSquared, Distribution, StandardNormal};
use rayon::prelude::*;
use weft_core::Seed;

/// Random bases that are drawn.
const BASES: u64 = 4;
/// Coordinates that are shuffled from one seed.
const COLUMNS: usize = 256;

/// Rows `[n, d]` with each coordinate permuted over networks on its own: variances stay, correlations go.
pub(super) fn shuffled(rows: &[f32], n: usize, seed: Seed) -> Vec<f32> {
    let d = rows.len() / n;
    // Column by column, then laid out as rows again.
    let columns: Vec<Vec<f32>> = (0..d)
        .step_by(COLUMNS)
        .collect::<Vec<_>>()
        .into_par_iter()
        .map(|first| {
            let width = COLUMNS.min(d - first);
            let mut block = Vec::with_capacity(n * width);
            let seed = seed.index(first as u64);
            for (c, column) in (first..first + width).enumerate() {
                let order = seed.index(c as u64).permutation(n);
                block.extend(order.into_iter().map(|i| rows[i as usize * d + column]));
            }
            block
        })
        .collect();
    let mut out = vec![0.0; rows.len()];
    out.par_chunks_mut(d).enumerate().for_each(|(i, row)| {
        for (row, block) in row.chunks_mut(COLUMNS).zip(&columns) {
            row.iter_mut().enumerate().for_each(|(c, value)| *value = block[c * n + i]);
        }
    });
    out
}

/// The part of the variance that a random orthonormal basis of `k` directions of `R^d` keeps; `k/d` on average.
///
/// A random basis is `Q = Z·(ZᵀZ)^(−½)` with normal `Z` `[d, k]`. In the principal axes only the first `r` rows `A` of `Z` meet
/// variances, so the part is `tr(Λ·A·M⁻¹·Aᵀ)/tr Λ` with `M = AᵀA + BᵀB`, and of the other rows `B` only the Wishart matrix `BᵀB` is
/// needed, which has `d − r` degrees of freedom and a triangular root of independent entries (Bartlett 1933): nothing of size `d` is
/// ever drawn.
pub(super) fn random_basis(variances: &[f64], d: usize, k: usize, seed: Seed) -> Estimate {
    let total: f64 = variances.iter().sum();
    if total <= 0.0 || k == 0 {
        return Estimate::default();
    }
    let draw = |i: u64| kept_by_random_basis(variances, d, k, seed.index(i)) / total;
    let parts: Vec<f64> = (0..BASES).map(draw).collect();
    mean_estimate(&[&parts])
}

fn kept_by_random_basis(variances: &[f64], d: usize, k: usize, seed: Seed) -> f64 {
    let (r, mut rng) = (variances.len(), seed.rng());
    let mut normals = |count: usize| -> Vec<f64> { (0..count).map(|_| StandardNormal.sample(&mut rng)).collect() };
    let a = normals(r * k); // [r, k]
    let rest = d.saturating_sub(r);
    let mut b = normals(rest.min(k) * k); // [min(rest, k), k]
    if rest >= k {
        // The Wishart matrix's root: independent normals above the diagonal, and lengths of normal vectors on it.
        let mut rng = seed.fork("lengths").rng();
        for i in 0..k {
            b[i * k..i * k + i].fill(0.0);
            b[i * k + i] = ChiSquared::new((rest - i) as f64).map_or(0.0, |chi| chi.sample(&mut rng).sqrt());
        }
    }
    let mut m = vec![0.0; k * k];
    for row in a.chunks_exact(k).chain(b.chunks_exact(k)) {
        for (i, &x) in row.iter().enumerate() {
            m[i * k..].iter_mut().zip(row).take(k).for_each(|(m, &y)| *m += x * y);
        }
    }
    cholesky(&mut m, k);
    a.chunks_exact(k).zip(variances).map(|(row, variance)| variance * solved_square(&m, row)).sum()
}

/// Replaces the lower triangle of a positive definite matrix by its root `L`, `L·Lᵀ = M`.
fn cholesky(m: &mut [f64], k: usize) {
    for j in 0..k {
        for i in j..k {
            let sum: f64 = (0..j).map(|t| m[i * k + t] * m[j * k + t]).sum();
            let value = m[i * k + j] - sum;
            m[i * k + j] = if i == j { value.max(f64::MIN_POSITIVE).sqrt() } else { value / m[j * k + j] };
        }
    }
}

/// `‖L⁻¹x‖²`.
fn solved_square(l: &[f64], x: &[f64]) -> f64 {
    let k = x.len();
    let mut y = Vec::with_capacity(k);
    for i in 0..k {
        let sum: f64 = l[i * k..].iter().zip(&y).map(|(l, y)| l * y).sum();
        y.push((x[i] - sum) / l[i * k + i]);
    }
    y.iter().map(|v| v * v).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_basis_keeps_its_share() {
        // A basis of all directions keeps everything; one of half of them half, on average over very many directions.
        let full = random_basis(&[3.0, 1.0, 0.5], 3, 3, Seed::new(1));
        assert!((full.mean - 1.0).abs() < 1e-9, "{full:?}");
        let flat = vec![1.0; 200];
        let half = random_basis(&flat, 200, 100, Seed::new(2));
        assert!((half.mean - 0.5).abs() < 1e-9, "{half:?}"); // of equal variances exactly
        let some = random_basis(&flat, 2000, 100, Seed::new(3));
        assert!((some.mean - 0.05).abs() < 0.004, "{some:?}");
        let few = random_basis(&flat, 250, 100, Seed::new(3));
        assert!((few.mean - 0.4).abs() < 0.02, "{few:?}");
        // One direction of many: the mean over many bases is 1/d.
        let one: Vec<f64> = (0..4000).map(|i| kept_by_random_basis(&[1.0], 20, 2, Seed::new(9).index(i))).collect();
        let mean = one.iter().sum::<f64>() / 4000.0;
        assert!((mean - 0.1).abs() < 0.005, "{mean}");
    }

    #[test]
    fn shuffling_keeps_columns_and_breaks_rows() {
        let (n, d) = (40, 700);
        let rows: Vec<f32> = (0..n).flat_map(|i| (0..d).map(move |c| (i * 1000 + c) as f32)).collect();
        let shuffled = shuffled(&rows, n, Seed::new(5));
        for c in 0..d {
            let mut column: Vec<f32> = (0..n).map(|i| shuffled[i * d + c]).collect();
            column.sort_by(f32::total_cmp);
            assert!(column.iter().enumerate().all(|(i, v)| (v - (i * 1000 + c) as f32).abs() < 0.5));
        }
        let kept = (0..n).filter(|&i| {
            shuffled[i * d..].iter().zip(&rows[i * d..]).take(d).filter(|(a, b)| a.to_bits() == b.to_bits()).count() > d / 4
        });
        assert_eq!(kept.count(), 0);
    }
}
