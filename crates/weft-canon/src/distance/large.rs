//! The nearest among large networks, of which a pair is work enough for a thread.

use super::pair::PairSolver;
use super::{Exclude, Prepared, Quotient};
use crate::matching::Start;
use rayon::prelude::*;

/// Networks of more weights than this are large: no lower bound is worth its time, and threads share out pairs, not queries.
pub(super) const WEIGHTS: usize = 1 << 20;
/// References of a query that are matched from every start, after the first ascent ranked all.
const FINALISTS: usize = 4;

impl Quotient {
    /// Each query's nearest reference among large networks: all pairs from the first start, then the best of each query from all.
    pub(super) fn nearest_of_large(
        &self,
        queries: &Prepared,
        references: &Prepared,
        exclude: Option<Exclude<'_>>,
        starts: &[Start],
    ) -> Vec<(usize, f64)> {
        let init = || PairSolver::new(self, starts);
        let open = |q: usize| (0..references.len).filter(move |&j| !exclude.is_some_and(|e| e(q, j)));
        let mut pairs: Vec<(usize, usize)> = (0..queries.len).flat_map(|q| open(q).map(move |j| (q, j))).collect();
        // Where one start finds the distance, nothing is to be ranked.
        if !self.is_exact() {
            let first = |solver: &mut PairSolver<'_>, &(q, j): &(usize, usize)| {
                solver.fill_gains((queries, q), (references, j));
                (q, solver.estimate_first((queries, q), (references, j)), j)
            };
            let mut ranked: Vec<(usize, f64, usize)> = pairs.par_iter().map_init(init, first).collect();
            ranked.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            let best = ranked.chunk_by(|a, b| a.0 == b.0).flat_map(|of_query| of_query.iter().take(FINALISTS));
            pairs = best.map(|&(q, _, j)| (q, j)).collect();
        }
        let last = |solver: &mut PairSolver<'_>, &(q, j): &(usize, usize)| solver.squared((queries, q), (references, j));
        let last: Vec<f64> = pairs.par_iter().map_init(init, last).collect();
        let mut found = vec![(usize::MAX, f64::INFINITY); queries.len];
        for (&(q, j), squared) in pairs.iter().zip(last) {
            if (squared, j) < (found[q].1, found[q].0) {
                found[q] = (j, squared);
            }
        }
        found.into_iter().map(|(j, squared)| (j, squared.sqrt())).collect()
    }
}
