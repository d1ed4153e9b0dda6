//! The distance of one pair of orbits.

use super::{Prepared, Quotient};
use crate::matching::{Coupling, Matcher, Problem, Start, starts};
use crate::product::{View, multiply};
use rayon::prelude::*;

/// Rounding of an `f32` inner product, relative to the squared norms: bounds and estimates are trusted up to this.
pub(super) const ROUNDING: f64 = 1e-5;

/// Workspace for many pairs.
pub(super) struct PairSolver<'a> {
    quotient: &'a Quotient,
    starts: &'a [Start],
    matcher: Matcher,
    /// Inner products of the units of the current pair.
    pub(super) gains: Vec<Vec<f32>>,
}

impl<'a> PairSolver<'a> {
    pub(super) fn new(quotient: &'a Quotient, starts: &'a [Start]) -> Self {
        let gains = quotient.layout.spaces.iter().map(|s| vec![0.0; s.size * s.size]).collect();
        Self { quotient, starts, matcher: Matcher::default(), gains }
    }

    /// Computes the inner products of the units of `a[i]` and `b[j]`.
    pub(super) fn fill_gains(&mut self, (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) {
        for (k, (space, gain)) in self.quotient.layout.spaces.iter().zip(&mut self.gains).enumerate() {
            let a = View::new(a.units_of(k, i), space.size, space.features);
            multiply(gain, a, View::new(b.units_of(k, j), space.size, space.features).t(), false);
        }
    }

    /// Matches the pair whose inner products are filled in, and estimates its squared distance from them.
    pub(super) fn estimate(&mut self, (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) -> f64 {
        let layout = &self.quotient.layout;
        let mut start = 0;
        let (of_a, of_b) = (a.couplings_of(i), b.couplings_of(j));
        let cut = |c: &crate::layout::CouplingLayout| {
            let range = start..start + c.range.len();
            start = range.end;
            Coupling { out: c.out, into: c.into, a: &of_a[range.clone()], b: &of_b[range] }
        };
        let couplings: Vec<Coupling<'_>> = layout.couplings.iter().map(cut).collect();
        let problem = Problem { spaces: &layout.spaces, gains: &self.gains, couplings: &couplings };
        let value = self.matcher.solve(&problem, self.starts, self.quotient.options.max_sweeps);
        let rest: f64 = a.rest_of(i).iter().zip(b.rest_of(j)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        a.norms[i] + b.norms[j] - 2.0 * (value + rest)
    }

    /// The squared distance under the match that [`PairSolver::estimate`] found, from differences, so exact down to 0.
    pub(super) fn exact(&self, (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) -> f64 {
        let layout = &self.quotient.layout;
        let mut sum = squared(a.rest_of(i), b.rest_of(j), 1.0);
        for (k, (space, part)) in layout.spaces.iter().zip(&self.matcher.best).enumerate() {
            let (of_a, of_b, f) = (a.units_of(k, i), b.units_of(k, j), space.features);
            for (u, (&v, &s)) in part.permutation.iter().zip(&part.scale).enumerate() {
                let v = v as usize;
                sum += squared(&of_a[u * f..(u + 1) * f], &of_b[v * f..(v + 1) * f], s as f32);
            }
        }
        let (mut of_a, mut of_b) = (a.couplings_of(i), b.couplings_of(j));
        for c in &layout.couplings {
            let (rows, columns) = (&self.matcher.best[c.out], &self.matcher.best[c.into]);
            let cols = columns.permutation.len();
            for ((x, &v), s) in of_a[..c.range.len()].chunks_exact(cols).zip(&rows.permutation).zip(&rows.scale) {
                let y = &of_b[v as usize * cols..(v as usize + 1) * cols];
                let terms = x.iter().zip(&columns.permutation).zip(&columns.scale);
                sum += terms.map(|((x, &w), t)| (f64::from(*x) - s * t * f64::from(y[w as usize])).powi(2)).sum::<f64>();
            }
            (of_a, of_b) = (&of_a[c.range.len()..], &of_b[c.range.len()..]);
        }
        sum
    }
}

fn squared(a: &[f32], b: &[f32], sign: f32) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x - sign * y).powi(2)).sum()
}

impl Prepared {
    /// The unit features of network `i` in space `k`, `[h, f]`.
    pub(super) fn units_of(&self, k: usize, i: usize) -> &[f32] {
        part(&self.units[k], self.len, i)
    }

    pub(super) fn couplings_of(&self, i: usize) -> &[f32] {
        part(&self.couplings, self.len, i)
    }

    pub(super) fn rest_of(&self, i: usize) -> &[f32] {
        part(&self.rest, self.len, i)
    }
}

fn part(data: &[f32], len: usize, i: usize) -> &[f32] {
    let width = data.len() / len.max(1);
    &data[i * width..(i + 1) * width]
}

impl Quotient {
    /// The quotient distance of each given pair of networks.
    ///
    /// # Panics
    /// If an index is not below the number of networks, or `rows` were prepared for another architecture.
    #[must_use]
    pub fn pairwise(&self, rows: &Prepared, pairs: &[(usize, usize)]) -> Vec<f64> {
        let starts = self.starts();
        let solve = |solver: &mut PairSolver<'_>, &(i, j): &(usize, usize)| {
            solver.fill_gains((rows, i), (rows, j));
            solver.estimate((rows, i), (rows, j));
            solver.exact((rows, i), (rows, j)).sqrt()
        };
        pairs.par_iter().map_init(|| PairSolver::new(self, &starts), solve).collect()
    }

    /// The starts of one pair's matching.
    pub(super) fn starts(&self) -> Vec<Start> {
        starts(&self.group, self.options.starts, None, self.options.seed)
    }
}
