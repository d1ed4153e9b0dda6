//! Exact nearest neighbors in the quotient, with pruning by proven bounds.

use super::bound::{Cluster, Index, QueryBlock, squared_norm};
use super::pair::{PairSolver, ROUNDING};
use super::tight::TightBound;
use super::{Exclude, Prepared, Quotient, large};
use crate::matching::Start;
use crate::product::{View, multiply};
use rayon::prelude::*;
use std::ops::Range;

/// Queries that are bounded together.
const BLOCK: usize = 16;
/// References of a query that are matched from every start; the others only from the first, which decides who these are.
const FINALISTS: usize = 32;

/// The best reference of a query so far.
#[derive(Clone, Copy)]
struct Best {
    index: usize,
    squared: f64,
}

/// Chooses the references of a query that are worth all starts, as they come: the lowest squared distances after the first ascent.
#[derive(Default)]
struct Finalists(Vec<f64>);

impl Finalists {
    /// Whether a reference is among the best so far.
    fn admit(&mut self, first: f64) -> bool {
        let at = self.0.partition_point(|other| other.total_cmp(&first).is_le());
        if at == FINALISTS {
            return false;
        }
        self.0.insert(at, first);
        self.0.truncate(FINALISTS);
        true
    }
}

impl Quotient {
    /// Finds each query's nearest reference: its index and quotient distance.
    ///
    /// `exclude(query, reference)` leaves pairs out. A query without any reference left gets `(usize::MAX, ∞)`. Equal distances go to the
    /// lower index. References are ranked by a lower bound and visited until it exceeds the best distance found, so without coupled hidden
    /// spaces the result is that of visiting all. With them a pair's distance is the best of several ascents, and only a reference that is
    /// among the 32 best of those visited so far after its first ascent gets the others. Of networks of more than a million weights all
    /// pairs are visited, and the 4 best of a query get all starts.
    ///
    /// # Panics
    /// If the networks were prepared for different architectures.
    #[must_use]
    pub fn nearest(&self, queries: &Prepared, references: &Prepared, exclude: Option<Exclude<'_>>) -> Vec<(usize, f64)> {
        let starts = self.starts();
        if self.group.architecture().num_parameters() > large::WEIGHTS {
            return self.nearest_of_large(queries, references, exclude, &starts);
        }
        if !self.group.is_plain() {
            return self.nearest_of_all(queries, references, exclude, &starts);
        }
        let index = references.index.get_or_init(|| Index::build(self, references));
        let init = || PairSolver::new(self, &starts);
        let blocks: Vec<Range<usize>> = (0..queries.len).step_by(BLOCK).map(|s| s..queries.len.min(s + BLOCK)).collect();
        let search = |solver: &mut PairSolver<'_>, block: Range<usize>| {
            let bounds = self.block_bounds((queries, block.clone()), references, index, exclude, solver);
            let one = |solver: &mut PairSolver<'_>, (q, bounds): (usize, &[f32])| {
                let best = self.visit(solver, (queries, q), (references, index), bounds);
                (best.index, best.squared.sqrt())
            };
            let each = block.into_par_iter().zip(bounds.par_chunks_exact(references.len.max(1)));
            each.map_init(init, one).collect::<Vec<_>>()
        };
        if references.is_empty() {
            return vec![(usize::MAX, f64::INFINITY); queries.len];
        }
        blocks.into_par_iter().map_init(init, search).flatten_iter().collect()
    }

    /// The same where no bound is proven: every pair is visited.
    fn nearest_of_all(
        &self,
        queries: &Prepared,
        references: &Prepared,
        exclude: Option<Exclude<'_>>,
        starts: &[Start],
    ) -> Vec<(usize, f64)> {
        let one = |solver: &mut PairSolver<'_>, q: usize| {
            let mut best = Best { index: usize::MAX, squared: f64::INFINITY };
            let mut finalists = Finalists::default();
            for j in (0..references.len).filter(|&j| !exclude.is_some_and(|e| e(q, j))) {
                solver.fill_gains((queries, q), (references, j));
                if !self.is_exact() && !finalists.admit(solver.estimate_first((queries, q), (references, j))) {
                    continue;
                }
                solver.estimate((queries, q), (references, j));
                let squared = solver.exact((queries, q), (references, j));
                if squared < best.squared {
                    best = Best { index: j, squared };
                }
            }
            (best.index, best.squared.sqrt())
        };
        (0..queries.len).into_par_iter().map_init(|| PairSolver::new(self, starts), one).collect()
    }

    /// Lower bounds on the squared distances of a block of queries to all references, `[block, references]`; infinite where excluded.
    fn block_bounds(
        &self,
        (queries, block): (&Prepared, Range<usize>),
        references: &Prepared,
        index: &Index,
        exclude: Option<Exclude<'_>>,
        solver: &mut PairSolver<'_>,
    ) -> Vec<f32> {
        let n = references.len;
        let sketches = index.sketch(self, queries, block.clone());
        let width = sketches.len() / block.len();
        let mut bounds = vec![0.0; block.len() * n];
        multiply(&mut bounds, View::new(&sketches, block.len(), width), View::new(&index.sketches, n, width).t(), false);
        for (at, q) in block.clone().enumerate() {
            let own = squared_norm(&sketches[at * width..(at + 1) * width]);
            for ((j, bound), of_reference) in bounds[at * n..(at + 1) * n].iter_mut().enumerate().zip(&index.sketch_norms) {
                let slack = ROUNDING * (queries.norms[q] + references.norms[j]);
                *bound = if exclude.is_some_and(|e| e(q, j)) {
                    f32::INFINITY
                } else {
                    (own + of_reference - 2.0 * f64::from(*bound) - slack) as f32
                };
            }
        }
        if !index.panels.is_empty() {
            self.refine((queries, &block), references, index, solver, &mut bounds);
        }
        bounds
    }

    /// Raises the bounds by the clusters' bases, where the sketch has not decided already.
    fn refine(
        &self,
        (queries, block): (&Prepared, &Range<usize>),
        references: &Prepared,
        index: &Index,
        solver: &mut PairSolver<'_>,
        bounds: &mut [f32],
    ) {
        let n = references.len;
        let mut best = Vec::with_capacity(block.len());
        for (q, bounds) in block.clone().zip(bounds.chunks_exact(n)) {
            let nearest = (0..n).min_by(|&i, &j| bounds[i].total_cmp(&bounds[j]));
            let squared = nearest.filter(|&j| bounds[j].is_finite()).map(|j| solver.squared((queries, q), (references, j)));
            best.push(squared.unwrap_or(f64::INFINITY));
        }
        let block = QueryBlock::new(self, index, queries, block.clone());
        for panel in &index.panels {
            let open =
                |cluster: &Cluster, q: usize| cluster.members.iter().any(|&j| f64::from(bounds[q * n + j as usize]) <= best[q]);
            let is_open: Vec<bool> = panel.clusters.iter().map(|c| (0..best.len()).any(|q| open(c, q))).collect();
            if !is_open.contains(&true) {
                continue;
            }
            let inside = panel.inside(self, &block);
            for (cluster, _) in panel.clusters.iter().zip(&is_open).filter(|&(_, &open)| open) {
                let raised = cluster.bounds(self, &block, references, &inside);
                for (q, raised) in raised.chunks_exact(cluster.members.len()).enumerate() {
                    for (&j, &raised) in cluster.members.iter().zip(raised) {
                        let bound = &mut bounds[q * n + j as usize];
                        *bound = bound.max(raised);
                    }
                }
            }
        }
    }

    /// Visits references in the order of their bounds until none can be nearer.
    fn visit(
        &self,
        solver: &mut PairSolver<'_>,
        (queries, q): (&Prepared, usize),
        (references, index): (&Prepared, &Index),
        bounds: &[f32],
    ) -> Best {
        let mut order: Vec<u32> = (0..references.len as u32).filter(|&j| bounds[j as usize] < f32::INFINITY).collect();
        order.sort_unstable_by(|&i, &j| bounds[i as usize].total_cmp(&bounds[j as usize]).then(i.cmp(&j)));
        let mut best = Best { index: usize::MAX, squared: f64::INFINITY };
        let mut finalists = Finalists::default();
        let mut tight = TightBound::new(self, queries, q);
        for j in order.into_iter().map(|j| j as usize) {
            if f64::from(bounds[j]) > best.squared {
                break;
            }
            solver.fill_gains((queries, q), (references, j));
            let slack = ROUNDING * (queries.norms[q] + references.norms[j]);
            let limit = best.squared + slack;
            if tight.squared(&solver.gains, (queries, q), (references, j), (&index.extras[j], limit)) > limit {
                continue;
            }
            if !self.is_exact() && !finalists.admit(solver.estimate_first((queries, q), (references, j))) {
                continue;
            }
            if solver.estimate((queries, q), (references, j)) - slack > best.squared {
                continue;
            }
            let squared = solver.exact((queries, q), (references, j));
            if (squared, j) < (best.squared, best.index) {
                best = Best { index: j, squared };
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Group;
    use crate::distance::QuotientOptions;
    use crate::distance::tight::has_kernels;
    use crate::layout::Layout;
    use weft_core::{Activation, Seed};
    use weft_testkit::{branches, mlp, random_population, residual, tiny_families};

    /// Visits every pair.
    fn unpruned(quotient: &Quotient, queries: &Prepared, references: &Prepared) -> Vec<(usize, f64)> {
        let starts = quotient.starts();
        let mut solver = PairSolver::new(quotient, &starts);
        let mut distance = |q, j| (j, solver.squared((queries, q), (references, j)).sqrt());
        let mut nearest = |q| (0..references.len).map(|j| distance(q, j)).min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        (0..queries.len).map(&mut nearest).collect()
    }

    /// Twelve runs of five snapshots that move away from each run's first.
    fn runs(group: &Group, seed: Seed) -> (Vec<f32>, Vec<u32>) {
        let starts = random_population(group.architecture(), 12, seed);
        let mut rows = Vec::new();
        for i in 0..60_u64 {
            let noise = seed.fork("move").index(i).normals(starts.dim());
            let step = 0.02 * (i % 5) as f32;
            rows.extend(starts.row(i as usize / 5).iter().zip(noise).map(|(w, z)| w + step * z));
        }
        (rows, (0..60).map(|i| i / 5).collect())
    }

    fn check(group: &Group, grouped: bool) {
        let quotient = Quotient::new(group, QuotientOptions::default()).unwrap();
        let (rows, run) = runs(group, Seed::new(1));
        let mut references = quotient.prepare(&rows, None).unwrap();
        if grouped {
            references = references.with_groups(&run).unwrap();
        }
        // Some queries are near copies, the others are unrelated.
        let (near, _) = runs(group, Seed::new(1));
        let mut queries: Vec<f32> = near[..10 * group.architecture().num_parameters()].iter().map(|w| w * 1.02).collect();
        queries.extend(random_population(group.architecture(), 23, Seed::new(2)).into_data());
        let queries = quotient.prepare(&queries, None).unwrap();
        assert_eq!(quotient.nearest(&queries, &references, None), unpruned(&quotient, &queries, &references));
    }

    #[test]
    fn pruning_changes_nothing() {
        for activation in [Activation::Relu, Activation::Tanh] {
            for architecture in [
                mlp(&[90, 8, 5], activation),
                mlp(&[12, 6, 5, 3], activation),
                residual(6, 5, 3, activation),
                branches(7, 6, 3, activation),
            ] {
                let group = Group::derive(architecture);
                check(&group, false);
                check(&group, true);
            }
        }
        let is_searched = |group: &Group| group.is_plain() && Quotient::new(group, QuotientOptions::default()).is_ok();
        let plain: Vec<Group> = tiny_families().into_iter().map(Group::derive).filter(is_searched).collect();
        assert!(plain.iter().filter(|group| Layout::new(group, &[]).couplings.iter().any(has_kernels)).count() >= 2);
        for group in plain {
            check(&group, false);
        }
    }

    #[test]
    fn the_search_among_large_networks_finds_the_nearest() {
        for architecture in [mlp(&[90, 8, 5], Activation::Relu), mlp(&[12, 6, 5, 3], Activation::Tanh)] {
            let group = Group::derive(architecture);
            let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
            let (rows, _) = runs(&group, Seed::new(5));
            let references = quotient.prepare(&rows, None).unwrap();
            let queries: Vec<f32> = rows[..7 * group.architecture().num_parameters()].iter().map(|w| w * 1.02).collect();
            let queries = quotient.prepare(&queries, None).unwrap();
            let starts = quotient.starts();
            let all = quotient.nearest_of_large(&queries, &references, None, &starts);
            assert_eq!(all, quotient.nearest(&queries, &references, None));
            let others = |q: usize, j: usize| q / 5 == j / 5;
            let without = quotient.nearest_of_large(&queries, &references, Some(&others), &starts);
            assert!(without.iter().zip(&all).enumerate().all(|(q, (w, a))| w.0 / 5 != q / 5 && w.1 > a.1), "{without:?}");
            let none = quotient.nearest_of_large(&queries, &references, Some(&|_, _| true), &starts);
            assert_eq!(none, vec![(usize::MAX, f64::INFINITY); 7]);
        }
    }

    #[test]
    fn every_bound_is_below_its_distance() {
        let group = Group::derive(mlp(&[90, 8, 5], Activation::Relu));
        let quotient = Quotient::new(&group, QuotientOptions::default()).unwrap();
        let (rows, run) = runs(&group, Seed::new(3));
        let references = quotient.prepare(&rows, None).unwrap().with_groups(&run).unwrap();
        let queries = quotient.prepare(random_population(&group.architecture().clone(), 7, Seed::new(4)).data(), None).unwrap();
        let index = Index::build(&quotient, &references);
        assert_eq!(index.panels.iter().map(|p| p.clusters.len()).sum::<usize>(), 12);
        let starts = quotient.starts();
        let mut solver = PairSolver::new(&quotient, &starts);
        let bounds = quotient.block_bounds((&queries, 0..7), &references, &index, None, &mut solver);
        let mut tightest = 0.0_f64;
        for (at, &bound) in bounds.iter().enumerate() {
            let squared = solver.squared((&queries, at / 60), (&references, at % 60));
            assert!(f64::from(bound) <= squared, "pair {at}: bound {bound} above {squared}");
            tightest = tightest.max(f64::from(bound) / squared);
        }
        assert!(tightest > 0.8, "the bounds should say something: at best {tightest} of the distance");
    }
}
