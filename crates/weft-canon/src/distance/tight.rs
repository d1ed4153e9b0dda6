//! The bound of one pair of networks, once the sketches have not decided.

use super::bound::{Extra, matching_bound, sorted_couplings};
use super::{Prepared, Quotient};
use crate::Assigner;
use crate::layout::CouplingLayout;
use crate::product::{View, multiply};

/// The bound of one pair whose inner products are known: cheap maxima, then with coupled spaces an assignment a space.
pub(super) struct TightBound<'a> {
    quotient: &'a Quotient,
    own: Vec<Extra>,
    assigner: Assigner,
    worth: Vec<Vec<f32>>,
    cost: Vec<f64>,
    kernels: Kernels,
}

impl<'a> TightBound<'a> {
    pub(super) fn new(quotient: &'a Quotient, queries: &Prepared, q: usize) -> Self {
        let own = sorted_couplings(quotient, queries.couplings_of(q));
        Self { quotient, own, assigner: Assigner::new(), worth: Vec::new(), cost: Vec::new(), kernels: Kernels::default() }
    }

    /// The bound: kernels that couple two spaces count by their products, other couplings by their sorted rows and columns.
    ///
    /// For a row unit `i` that becomes `i'`, the kernels of its row are assigned to those of the other's, whatever other rows want;
    /// an upper bound of the value of that assignment is what `i'` is worth to `i`. What exceeds `limit` is not raised any further.
    ///
    /// # References
    /// Gilmore 1962; Lawler 1963, for the quadratic assignment problem.
    pub(super) fn squared(
        &mut self,
        gains: &[Vec<f32>],
        (queries, q): (&Prepared, usize),
        (references, j): (&Prepared, usize),
        (others, limit): (&[Extra], f64),
    ) -> f64 {
        let layout = &self.quotient.layout;
        self.worth.resize_with(gains.len(), Vec::new);
        for ((worth, gain), space) in self.worth.iter_mut().zip(gains).zip(&layout.spaces) {
            worth.clear();
            worth.extend(gain.iter().map(|&g| if space.sign { g.abs() } else { g }));
        }
        let (mut of_a, mut of_b) = (queries.couplings_of(q), references.couplings_of(j));
        for (c, extras) in layout.couplings.iter().zip(self.own.chunks_exact(2).zip(others.chunks_exact(2))) {
            let [a, b]: [&[f32]; 2] = [&mut of_a, &mut of_b].map(|of| {
                let (head, tail) = of.split_at(c.range.len());
                *of = tail;
                head
            });
            let sizes = [c.out.space, c.into.space].map(|k| layout.spaces[k].size);
            if has_kernels(c) {
                let signed = layout.spaces[c.out.space].sign || layout.spaces[c.into.space].sign;
                self.kernels.add_worth((a, b), sizes, signed, &mut self.worth[c.out.space]);
                continue;
            }
            for ((a, b), n) in extras.0.iter().zip(extras.1).zip(sizes) {
                let [x, y] = [a, b].map(|of| View::new(&of.values, n, of.width));
                multiply(&mut self.worth[a.space], x, y.t(), true);
            }
        }
        let rest: f64 = queries.rest_of(q).iter().zip(references.rest_of(j)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        let all = queries.norms[q] + references.norms[j] - 2.0 * rest;
        let spaces = || self.worth.iter().zip(&layout.spaces).filter(|(worth, _)| !worth.is_empty());
        let quick = all - 2.0 * spaces().map(|(worth, space)| matching_bound(worth, space.size, space.size)).sum::<f64>();
        if quick > limit || self.own.is_empty() {
            return quick;
        }
        let mut value = 0.0;
        for (worth, space) in spaces() {
            self.cost.clear();
            self.cost.extend(worth.iter().map(|&g| -f64::from(g)));
            let found = self.assigner.solve(&self.cost, space.size);
            value -= found.iter().enumerate().map(|(i, &j)| self.cost[i * space.size + j as usize]).sum::<f64>();
        }
        all - 2.0 * value
    }
}

/// Kernels of a coupling that are compared each with each, at most.
const MAX_KERNELS: usize = 1 << 10;

/// Whether a coupling joins each pair of units by several weights that stay together, and by few enough kernels to compare them all.
pub(super) fn has_kernels(c: &CouplingLayout) -> bool {
    let d = c.into.inner * c.rest;
    c.out.inner == 1 && d > 1 && c.range.len() <= MAX_KERNELS * d
}

/// Buffers of [`Kernels::add_worth`].
#[derive(Default)]
struct Kernels {
    turned: Vec<f32>,
    products: Vec<f32>,
    columns: Vec<f32>,
    reduced: Vec<f32>,
    sums: Vec<f32>,
    largest: Vec<f32>,
}

impl Kernels {
    /// Adds to `worth[i, i']` an upper bound on `Σ_j ⟨a_ij, b_i'q(j)⟩` over all `q`, for kernels `[units of rows, units of columns, d]`.
    ///
    /// The bound is that of [`matching_bound`] of the products of `i` and `i'`, for all `i'` side by side.
    fn add_worth(&mut self, (a, b): (&[f32], &[f32]), [n, m]: [usize; 2], signed: bool, worth: &mut [f32]) {
        let d = a.len() / (n * m);
        self.turned.clear();
        for j in 0..m {
            self.turned.extend((0..n).flat_map(|i| &b[(i * m + j) * d..(i * m + j + 1) * d]));
        }
        self.products.resize((n * m).pow(2), 0.0);
        multiply(&mut self.products, View::new(a, n * m, d), View::new(&self.turned, n * m, d).t(), false);
        if signed {
            self.products.iter_mut().for_each(|p| *p = p.abs());
        }
        self.sums.resize(2 * n, 0.0);
        // Of a row unit `i`, `[m, m, n]`: which column it has, which it gets, and from which row.
        for (block, worth) in self.products.chunks_exact(m * m * n).zip(worth.chunks_exact_mut(n)) {
            self.sums.fill(0.0);
            let (by_columns, by_rows) = self.sums.split_at_mut(n);
            self.columns.clear();
            self.columns.resize(m * n, f32::NEG_INFINITY);
            for row in block.chunks_exact(m * n) {
                raise(&mut self.columns, row.iter().copied());
            }
            self.columns.chunks_exact(n).for_each(|column| add(by_columns, column));
            self.reduced.clear();
            self.reduced.resize(m * n, f32::NEG_INFINITY);
            for row in block.chunks_exact(m * n) {
                self.largest.clear();
                self.largest.resize(2 * n, f32::NEG_INFINITY);
                let (of_row, below) = self.largest.split_at_mut(n);
                for (part, column) in row.chunks_exact(n).zip(self.columns.chunks_exact(n)) {
                    raise(of_row, part.iter().copied());
                    raise(below, part.iter().zip(column).map(|(p, c)| p - c));
                }
                add(by_columns, below);
                add(by_rows, of_row);
                for (part, reduced) in row.chunks_exact(n).zip(self.reduced.chunks_exact_mut(n)) {
                    raise(reduced, part.iter().zip(&*of_row).map(|(p, r)| p - r));
                }
            }
            self.reduced.chunks_exact(n).for_each(|column| add(by_rows, column));
            for ((worth, c), r) in worth.iter_mut().zip(&*by_columns).zip(&*by_rows) {
                *worth += c.min(*r);
            }
        }
    }
}

fn raise(target: &mut [f32], values: impl Iterator<Item = f32>) {
    for (t, v) in target.iter_mut().zip(values) {
        *t = if v > *t { v } else { *t };
    }
}

fn add(target: &mut [f32], values: &[f32]) {
    for (t, v) in target.iter_mut().zip(values) {
        *t += v;
    }
}
