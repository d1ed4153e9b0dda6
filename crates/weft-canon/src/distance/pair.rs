//! The distance of one pair of orbits.

use super::{Prepared, Quotient};
use crate::SpaceElement;
use crate::layout::SpaceLayout;
use crate::matching::{Matcher, Problem, Start, starts};
use rayon::prelude::*;

/// Rounding of an `f32` inner product, relative to the squared norms: bounds and estimates are trusted up to this.
pub(super) const ROUNDING: f64 = 1e-5;

/// Workspace for many pairs.
pub(super) struct PairSolver<'a> {
    quotient: &'a Quotient,
    starts: &'a [Start],
    matcher: Matcher,
    moves: [Vec<(u32, f32)>; 2],
    /// Inner products of the units of the current pair.
    pub(super) gains: Vec<Vec<f32>>,
}

impl<'a> PairSolver<'a> {
    pub(super) fn new(quotient: &'a Quotient, starts: &'a [Start]) -> Self {
        let gains = quotient.layout.spaces.iter().map(|s| vec![0.0; s.gain_len()]).collect();
        Self { quotient, starts, matcher: Matcher::default(), moves: [Vec::new(), Vec::new()], gains }
    }

    /// Computes the inner products of the units of `a[i]` and `b[j]`.
    pub(super) fn fill_gains(&mut self, (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) {
        for (k, (space, gain)) in self.quotient.layout.spaces.iter().zip(&mut self.gains).enumerate() {
            space.fill_gains(&*self.quotient.layout.place, (a.units_of(k, i), b.units_of(k, j)), gain);
        }
    }

    /// Matches the pair whose inner products are filled in, and estimates its squared distance from them.
    pub(super) fn estimate(&mut self, a: (&Prepared, usize), b: (&Prepared, usize)) -> f64 {
        self.estimate_from(self.starts, a, b)
    }

    /// The same from the first start alone.
    pub(super) fn estimate_first(&mut self, a: (&Prepared, usize), b: (&Prepared, usize)) -> f64 {
        self.estimate_from(&self.starts[..1], a, b)
    }

    fn estimate_from(&mut self, starts: &[Start], (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) -> f64 {
        let layout = &self.quotient.layout;
        let mut start = 0;
        let (of_a, of_b) = (a.couplings_of(i), b.couplings_of(j));
        let cut = |c: &crate::layout::CouplingLayout| {
            let range = start..start + c.range.len();
            start = range.end;
            (&of_a[range.clone()], &of_b[range])
        };
        let couplings: Vec<(&[f32], &[f32])> = layout.couplings.iter().map(cut).collect();
        let problem = Problem { layout, gains: &self.gains, couplings: &couplings };
        let value = self.matcher.solve(&problem, starts, self.quotient.options.max_sweeps);
        let rest: f64 = a.rest_of(i).iter().zip(b.rest_of(j)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        a.norms[i] + b.norms[j] - 2.0 * (value + rest)
    }

    /// The squared distance of a pair, matched from every start.
    pub(super) fn squared(&mut self, a: (&Prepared, usize), b: (&Prepared, usize)) -> f64 {
        self.fill_gains(a, b);
        self.estimate(a, b);
        self.exact(a, b)
    }

    /// The squared distance under the match that [`PairSolver::estimate`] found, from differences, so exact down to 0.
    pub(super) fn exact(&mut self, (a, i): (&Prepared, usize), (b, j): (&Prepared, usize)) -> f64 {
        let layout = &self.quotient.layout;
        let mut sum = squared(a.rest_of(i), b.rest_of(j), 1.0);
        for (k, (space, state)) in layout.spaces.iter().zip(&self.matcher.best).enumerate() {
            sum += squared_units(space, state, a.units_of(k, i), b.units_of(k, j));
        }
        let (mut of_a, mut of_b) = (a.couplings_of(i), b.couplings_of(j));
        for c in &layout.couplings {
            let [rows, columns] = &mut self.moves;
            c.out.moves(&layout.spaces[c.out.space], &self.matcher.best[c.out.space], rows);
            c.into.moves(&layout.spaces[c.into.space], &self.matcher.best[c.into.space], columns);
            let width = c.cols * c.rest;
            for (x, &(v, s)) in of_a[..c.range.len()].chunks_exact(width).zip(&*rows) {
                let y = &of_b[v as usize * width..(v as usize + 1) * width];
                for (x, &(w, t)) in x.chunks_exact(c.rest).zip(&*columns) {
                    sum += squared(x, &y[w as usize * c.rest..(w as usize + 1) * c.rest], s * t);
                }
            }
            (of_a, of_b) = (&of_a[c.range.len()..], &of_b[c.range.len()..]);
        }
        sum
    }
}

/// The squared distance of the features of matched units, and of their groups.
fn squared_units(space: &SpaceLayout, state: &SpaceElement, a: &[f32], b: &[f32]) -> f64 {
    let (f, g, m) = (space.features, space.group_features, space.members);
    let (a, groups_a) = a.split_at(space.size * f);
    let (b, groups_b) = b.split_at(space.size * f);
    let mut sum = 0.0;
    for segment in &space.segments {
        let sign = |unit: usize| segment.sign.map_or(1.0, |(first, step)| state.scale[first + unit * step] as f32);
        for (u, &v) in state.permutation.iter().enumerate() {
            let part = |u: usize| u * f + segment.features.start..u * f + segment.features.end;
            sum += squared(&a[part(u)], &b[part(v as usize)], sign(if m > 1 { u / m } else { u }));
        }
        if m > 1 {
            for (u, from) in state.permutation.iter().step_by(m).enumerate() {
                let part = |u: usize| u * g + segment.group_features.start..u * g + segment.group_features.end;
                sum += squared(&groups_a[part(u)], &groups_b[part(*from as usize / m)], sign(u));
            }
        }
    }
    sum
}

fn squared(a: &[f32], b: &[f32], sign: f32) -> f64 {
    a.iter().zip(b).map(|(x, y)| f64::from(x - sign * y).powi(2)).sum()
}

impl Prepared {
    /// The unit features of network `i` in space `k`.
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
        let solve = |solver: &mut PairSolver<'_>, &(i, j): &(usize, usize)| solver.squared((rows, i), (rows, j)).sqrt();
        pairs.par_iter().map_init(|| PairSolver::new(self, &starts), solve).collect()
    }

    /// The starts of one pair's matching.
    pub(super) fn starts(&self) -> Vec<Start> {
        starts(&self.group, &self.layout, self.options.starts, self.options.seed)
    }
}
