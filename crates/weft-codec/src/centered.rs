//! Centered and scaled weights in f64, and the products of a fit that are made of them: `x̃ = (x − mean) / scale`.
//!
//! A weight becomes an f64 where it is multiplied, a piece of columns at a time, so that no copy of the networks is made: on the cores,
//! if no device takes the product.

use crate::linalg::{SUM_BLOCK, SYMMETRIC_BLOCK, SymmetricSum, product, rows_of, rows_of_mut, vectorized};
use crate::normalize::Normalizer;
use faer::Accum;
use rayon::prelude::*;
use std::ops::Range;
use weft_core::products::{Normalized, Products};

/// Rows `[n, d]` that are centered and scaled when they are read.
pub(crate) struct Centered<'a> {
    on: &'a dyn Products,
    rows: Normalized<'a>,
}

/// Of some columns, the mean and one over the scale: a product takes a fraction of a division's time.
struct Moments {
    mean: Vec<f64>,
    factor: Vec<f64>,
}

impl<'a> Centered<'a> {
    pub(crate) fn new(on: &'a dyn Products, normalizer: &'a Normalizer, rows: &'a [f32]) -> Self {
        Self { on, rows: Normalized::new(rows, &normalizer.mean, &normalizer.scale) }
    }

    fn dim(&self) -> usize {
        self.rows.mean().len()
    }

    fn moments(&self, columns: Range<usize>) -> Moments {
        let mean = self.rows.mean()[columns.clone()].iter().map(|&m| f64::from(m)).collect();
        Moments { mean, factor: self.rows.scale()[columns].iter().map(|&s| 1.0 / f64::from(s)).collect() }
    }

    /// The columns in pieces of a length.
    fn pieces(&self, len: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let d = self.dim();
        (0..d).step_by(len).map(move |start| start..(start + len).min(d))
    }

    /// Adds `X̃X̃ᵀ` to a sum `[n, n]`.
    pub(crate) fn add_gram(&self, sum: &mut SymmetricSum) {
        if self.on.add_gram(sum.lower_mut(), self.rows) {
            return;
        }
        let mut piece = Vec::new();
        for columns in self.pieces(SYMMETRIC_BLOCK) {
            self.read(columns.clone(), &mut piece);
            sum.add(rows_of(&piece, columns.len()));
        }
    }

    /// Adds `X̃ᵀX̃` to a sum `[d, d]`.
    pub(crate) fn add_covariance(&self, sum: &mut SymmetricSum) {
        let mut piece = Vec::new();
        self.read(0..self.dim(), &mut piece);
        sum.add(rows_of(&piece, self.dim()).transpose());
    }

    /// Reads columns of all rows, `[n, columns]`.
    fn read(&self, columns: Range<usize>, out: &mut Vec<f64>) {
        let d = self.dim();
        let (rows, moments) = (self.rows.values(), self.moments(columns.clone()));
        out.resize(rows.len() / d * columns.len(), 0.0);
        let rows = out.par_chunks_mut(columns.len()).zip(rows.par_chunks(d)).with_min_len(32);
        rows.for_each(|(out, row)| moments.center(&row[columns.clone()], out));
    }

    /// Writes combinations of the rows, `u·X̃` of `u` `[k, n]`, rounded once, to `target` `[k, d]`.
    pub(crate) fn combine(&self, u: &[f64], target: &mut [f32]) {
        if self.on.combine(target, u, self.rows) {
            return;
        }
        let [n, d] = self.rows.shape();
        let u = rows_of(u, n);
        let pieces: Vec<Range<usize>> = self.pieces(SUM_BLOCK).collect();
        let targets = rows_of_mut(target, d).par_col_chunks_mut(SUM_BLOCK);
        targets.zip(pieces).for_each_init(<(Vec<f64>, Vec<f64>)>::default, |(piece, sums), (target, columns)| {
            let width = columns.len();
            piece.resize(n * width, 0.0);
            sums.resize(u.nrows() * width, 0.0);
            let moments = self.moments(columns.clone());
            for (out, row) in piece.chunks_exact_mut(width).zip(self.rows.values().chunks_exact(d)) {
                moments.center(&row[columns.clone()], out);
            }
            product(rows_of_mut(sums, width), Accum::Replace, u, rows_of(piece, width));
            for (target, sums) in target.row_iter_mut().zip(sums.chunks_exact(width)) {
                let target = target.try_as_row_major_mut().expect("rows of a row-major matrix").as_slice_mut();
                vectorized(|| target.iter_mut().zip(sums).for_each(|(x, &sum)| *x = sum as f32));
            }
        });
    }
}

impl Moments {
    /// Writes a row's columns, centered and scaled.
    fn center(&self, row: &[f32], out: &mut [f64]) {
        vectorized(
            #[inline(always)]
            || {
                for ((out, &x), (mean, factor)) in out.iter_mut().zip(row).zip(self.mean.iter().zip(&self.factor)) {
                    *out = (f64::from(x) - mean) * factor;
                }
            },
        );
    }
}
