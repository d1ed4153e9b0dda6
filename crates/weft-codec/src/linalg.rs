//! Matrix products and eigenvectors that are the same at any number of threads.
//!
//! Threads share out fixed blocks of a product's *rows*; inside a block the product is sequential. No sum is
//! ever split between threads, and no block's size depends on their number.

use crate::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;

/// Rows of a product that one thread computes at a time.
pub(crate) const ROW_BLOCK: usize = 128;
/// Length of the pieces in which long sums are taken, so that a piece stays in the cache.
pub(crate) const SUM_BLOCK: usize = 1024;

/// Computes `dst = a·b`, or adds to `dst`, on this thread.
pub(crate) fn product<T: faer::traits::ComplexField>(dst: MatMut<'_, T>, accum: Accum, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    matmul(dst, accum, a, b, T::one_impl(), Par::Seq);
}

/// Views a slice as a row-major matrix.
pub(crate) fn rows_of<T>(data: &[T], num_columns: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(data, data.len() / num_columns, num_columns)
}

/// Views a slice as a row-major matrix to be written.
pub(crate) fn rows_of_mut<T>(data: &mut [T], num_columns: usize) -> MatMut<'_, T> {
    let num_rows = data.len() / num_columns;
    MatMut::from_row_major_slice_mut(data, num_rows, num_columns)
}

/// Computes `a·b` of row-major `a` `[m, k]`.
pub(crate) fn product_rows(a: &[f32], b: MatRef<'_, f32>) -> Vec<f32> {
    let (k, n) = (b.nrows(), b.ncols());
    let mut out = vec![0.0; a.len() / k * n];
    out.par_chunks_mut(ROW_BLOCK * n)
        .zip(a.par_chunks(ROW_BLOCK * k))
        .for_each(|(out, a)| product(rows_of_mut(out, n), Accum::Replace, rows_of(a, k), b));
    out
}

/// A symmetric matrix `Σ AAᵀ`, summed piece by piece in f64; only its lower triangle is computed.
pub(crate) struct SymmetricSum {
    size: usize,
    data: Vec<f64>,
}

impl SymmetricSum {
    pub(crate) fn zeros(size: usize) -> Self {
        Self { size, data: vec![0.0; size * size] }
    }

    /// Adds `a·aᵀ`, where `a` is `[size, any]`.
    pub(crate) fn add(&mut self, a: MatRef<'_, f64>) {
        let size = self.size;
        let add = |(block, out): (usize, &mut [f64])| {
            let start = block * ROW_BLOCK;
            let count = out.len() / size;
            let below = start + count;
            let dst = rows_of_mut(out, size).subcols_mut(0, below);
            product(dst, Accum::Add, a.subrows(start, count), a.subrows(0, below).transpose());
        };
        // A block's work grows with its number: a short and a long one together are as much as any other two.
        let mut short: Vec<_> = self.data.chunks_mut(ROW_BLOCK * size).enumerate().collect();
        let long = short.split_off(short.len().div_ceil(2));
        let pairs: Vec<_> = short.into_iter().zip(long.into_iter().rev().map(Some).chain([None])).collect();
        pairs.into_par_iter().for_each(|(short, long)| {
            add(short);
            long.into_iter().for_each(add);
        });
    }

    /// Computes `aᵀa` of row-major `a` `[m, size]`.
    pub(crate) fn of_columns(a: &[f32], size: usize) -> Self {
        let mut sum = Self::zeros(size);
        let mut wide = Vec::with_capacity(SUM_BLOCK * size);
        for piece in a.chunks(SUM_BLOCK * size) {
            wide.clear();
            wide.extend(piece.iter().map(|&x| f64::from(x)));
            sum.add(rows_of(&wide, size).transpose());
        }
        sum
    }

    /// An entry; `i` is not below `j`.
    pub(crate) fn at(&self, i: usize, j: usize) -> f64 {
        self.data[i * self.size + j]
    }

    /// Computes all eigenvalues, largest first, and the eigenvectors as columns in that order.
    pub(crate) fn eigen(self) -> Result<(Vec<f64>, Mat<f64>)> {
        let size = self.size;
        let mut values = Diag::<f64>::zeros(size);
        let mut vectors = Mat::<f64>::zeros(size, size);
        let scratch = evd::self_adjoint_evd_scratch::<f64>(size, evd::ComputeEigenvectors::Yes, Par::Seq, Spec::default());
        evd::self_adjoint_evd(
            rows_of(&self.data, size),
            values.as_mut(),
            Some(vectors.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Spec::default(),
        )
        .map_err(|_| Error::Eigen { size })?;
        let descending = (0..size).rev().map(|i| values.column_vector()[i].max(0.0)).collect();
        Ok((descending, vectors.as_ref().reverse_cols().to_owned()))
    }
}

/// Makes the columns of row-major `a` `[m, l]` orthonormal, dropping those that depend on others.
///
/// Returns the new matrix and its number of columns. The columns are rotated by the eigenvectors of their Gram
/// matrix and scaled; a second pass removes the first one's rounding.
///
/// # References
/// Stathopoulos & Wu 2002, "A block orthogonalization procedure with constant synchronization requirements",
/// algorithm SVQB.
pub(crate) fn orthonormalize(mut a: Vec<f32>, mut l: usize) -> Result<(Vec<f32>, usize)> {
    for _ in 0..2 {
        let (values, vectors) = SymmetricSum::of_columns(&a, l).eigen()?;
        let kept = values.iter().take_while(|&&v| v > 1e-12 * values[0]).count();
        if kept == 0 {
            return Err(Error::NoVariance);
        }
        let rotation = Mat::<f32>::from_fn(l, kept, |i, j| (vectors[(i, j)] / values[j].sqrt()) as f32);
        a = product_rows(&a, rotation.as_ref());
        l = kept;
    }
    Ok((a, l))
}
