//! The update of least distance and a given rank.
//!
//! A sum of updates is one product of stacked factors, `Σ cⱼ·sⱼ·BⱼAⱼ = [c₁s₁B₁ …]·[A₁; …]`. Its singular values come from the small
//! core between the orthogonal factors of both sides: `B = Q_b·R_b`, `Aᵀ = Q_a·R_a`, `R_b·R_aᵀ = U·S·Vᵀ`. With more than [`EXACT_RANKS`]
//! ranks in the stack, or for a matrix that was formed, the leading ones alone are found, by subspace iteration until the energy that
//! they hold stands still; what is lost is exact in either case.
//!
//! # References
//! Eckart & Young 1936; Halko, Martinsson & Tropp 2011, algorithm 4.4.

use super::Factors;
use super::dense::{Qr, energy, multiply, svd};
use crate::Result;
use faer::{Mat, MatRef};
use weft_core::Seed;

/// Ranks in a stack up to which all singular values are found.
const EXACT_RANKS: usize = 256;
/// Directions that are iterated beyond those asked for.
const OVERSAMPLING: usize = 10;
/// Iterations end when the energy held grows by less than this part of it.
const STANDSTILL: f64 = 1e-9;
/// Iterations after which they end in any case.
const MAX_ITERATIONS: usize = 30;

/// A matrix `[o, i]` of which products are taken.
pub(super) enum Update {
    /// `b·aᵀ` with `b` `[o, R]` and `a` `[i, R]`.
    Stacked { b: Mat<f64>, a: Mat<f64> },
    /// A matrix that was formed.
    Formed(Mat<f64>),
}

/// Singular triples of an update, the largest first.
pub(super) struct Leading {
    /// `[o, r]`.
    pub(super) u: Mat<f64>,
    pub(super) values: Vec<f64>,
    /// `[i, r]`.
    pub(super) v: Mat<f64>,
    /// The sum of the squares of all entries of the update.
    pub(super) energy: f64,
}

impl Update {
    /// Stacks weighted factors; those of weight 0 are left out.
    pub(super) fn stacked<'a>([fan_out, fan_in]: [usize; 2], terms: impl Iterator<Item = (f64, &'a Factors)> + Clone) -> Self {
        let terms = terms.filter(|(weight, factors)| weight * factors.scaling != 0.0);
        let ranks = terms.clone().map(|(_, factors)| factors.rank).sum();
        let (mut b, mut a) = (Mat::zeros(fan_out, ranks), Mat::zeros(fan_in, ranks));
        let mut start = 0;
        for (weight, factors) in terms {
            let (r, scale) = (factors.rank, weight * factors.scaling);
            for p in 0..r {
                let column = b.col_as_slice_mut(start + p).iter_mut();
                column.zip(factors.b.iter().skip(p).step_by(r)).for_each(|(x, &w)| *x = scale * f64::from(w));
                let row = &factors.a[p * fan_in..(p + 1) * fan_in];
                a.col_as_slice_mut(start + p).iter_mut().zip(row).for_each(|(x, &w)| *x = f64::from(w));
            }
            start += r;
        }
        Self::Stacked { b, a }
    }

    /// The singular triples of largest value, `rank` of them or all that there are.
    ///
    /// `energy` is that of the update, where it is known; it is computed where a truncation needs it.
    pub(super) fn leading(&self, rank: usize, energy_known: Option<f64>) -> Result<Leading> {
        match self {
            Self::Stacked { b, a } if b.ncols() <= EXACT_RANKS.max(rank + OVERSAMPLING) => exact(b, a, rank),
            Self::Formed(matrix) if matrix.nrows().min(matrix.ncols()) <= EXACT_RANKS.max(rank + OVERSAMPLING) => {
                let all = svd(matrix.as_ref())?;
                Ok(first(all.u.as_ref(), &all.values, all.v.as_ref(), rank))
            }
            _ => self.iterated(rank, energy_known),
        }
    }

    fn energy(&self) -> f64 {
        match self {
            Self::Stacked { b, a } => {
                let (b, a) = (multiply(b.transpose(), b.as_ref()), multiply(a.transpose(), a.as_ref()));
                b.col_iter().zip(a.col_iter()).map(|(b, a)| b.iter().zip(a.iter()).map(|(b, a)| b * a).sum::<f64>()).sum()
            }
            Self::Formed(matrix) => energy(matrix.as_ref()),
        }
    }

    /// The matrix times `x`, `[i, l] → [o, l]`.
    fn times(&self, x: MatRef<'_, f64>) -> Mat<f64> {
        match self {
            Self::Stacked { b, a } => multiply(b.as_ref(), multiply(a.transpose(), x).as_ref()),
            Self::Formed(matrix) => multiply(matrix.as_ref(), x),
        }
    }

    /// Its transpose times `y`, `[o, l] → [i, l]`.
    fn transposed_times(&self, y: MatRef<'_, f64>) -> Mat<f64> {
        match self {
            Self::Stacked { b, a } => multiply(a.as_ref(), multiply(b.transpose(), y).as_ref()),
            Self::Formed(matrix) => multiply(matrix.transpose(), y),
        }
    }

    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Stacked { b, a } => (b.nrows(), a.nrows()),
            Self::Formed(matrix) => matrix.shape(),
        }
    }

    fn iterated(&self, rank: usize, energy_known: Option<f64>) -> Result<Leading> {
        let (fan_out, fan_in) = self.shape();
        let width = (rank + OVERSAMPLING).min(fan_in).min(fan_out);
        let start = Seed::new(0).fork("subspace").normals(fan_in * width);
        let start = Mat::from_fn(fan_in, width, |i, j| f64::from(start[j * fan_in + i]));
        let mut x = Qr::new(start).orthonormal();
        let mut held = 0.0;
        for _ in 0..MAX_ITERATIONS {
            let y = self.times(x.as_ref());
            let now = energy(y.as_ref());
            if now - held <= STANDSTILL * now {
                break;
            }
            held = now;
            x = Qr::new(self.transposed_times(Qr::new(y).orthonormal().as_ref())).orthonormal();
        }
        let y = Qr::new(self.times(x.as_ref()));
        let core = svd(y.upper.as_ref())?;
        let (u, v) = (y.apply(core.u.as_ref()), multiply(x.as_ref(), core.v.as_ref()));
        let energy = energy_known.unwrap_or_else(|| self.energy());
        Ok(Leading { energy, ..first(u.as_ref(), &core.values, v.as_ref(), rank) })
    }
}

/// All singular triples through the core, of which the first ones are kept.
fn exact(b: &Mat<f64>, a: &Mat<f64>, rank: usize) -> Result<Leading> {
    let (b, a) = rayon::join(|| Qr::new(b.clone()), || Qr::new(a.clone()));
    let core = svd(multiply(b.upper.as_ref(), a.upper.transpose()).as_ref())?;
    let kept = core.values.len().min(rank);
    let (u, v) = (b.apply(core.u.as_ref().subcols(0, kept)), a.apply(core.v.as_ref().subcols(0, kept)));
    let energy = core.values.iter().map(|s| s * s).sum();
    Ok(Leading { u, values: core.values[..kept].to_vec(), v, energy })
}

fn first(u: MatRef<'_, f64>, values: &[f64], v: MatRef<'_, f64>, rank: usize) -> Leading {
    let kept = values.len().min(rank);
    let energy = values.iter().map(|s| s * s).sum();
    Leading { u: u.subcols(0, kept).to_owned(), values: values[..kept].to_vec(), v: v.subcols(0, kept).to_owned(), energy }
}

impl Leading {
    /// What the kept triples leave out of the update's energy; not below 0.
    pub(super) fn lost(&self) -> f64 {
        (self.energy - self.values.iter().map(|s| s * s).sum::<f64>()).max(0.0)
    }

    /// Balanced factors of a rank, `√(S/s)` on each side, with signs fixed and zeros where the update has no more ranks.
    ///
    /// The entry of largest size of each row of `A` is positive, the first one of a tie.
    pub(super) fn factors(&self, rank: usize, scaling: f64) -> Factors {
        let (fan_out, fan_in) = (self.u.nrows(), self.v.nrows());
        let (mut b, mut a) = (vec![0.0; fan_out * rank], vec![0.0; rank * fan_in]);
        for (p, &value) in self.values.iter().enumerate().take(rank) {
            let side = (value / scaling.abs()).sqrt();
            let (u, v) = (self.u.col(p), self.v.col(p));
            let mut peak = 0.0_f64;
            v.iter().for_each(|&x| peak = if x.abs() > peak.abs() { x } else { peak });
            let sign = if peak < 0.0 { -1.0 } else { 1.0 };
            for (at, x) in u.iter().enumerate() {
                b[at * rank + p] = (sign * scaling.signum() * side * x) as f32;
            }
            for (at, x) in v.iter().enumerate() {
                a[p * fan_in + at] = (sign * side * x) as f32;
            }
        }
        Factors { rank, scaling, b, a }
    }
}
