//! Matrix products and eigenvectors that are the same at any number of threads.
//!
//! Threads share out fixed blocks of a product's *rows*; inside a block the product is sequential. No sum is
//! ever split between threads, and no block's size depends on their number.

use crate::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd;
use faer::linalg::matmul::matmul;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par, Spec};
use rayon::prelude::*;
use weft_core::products::{Products, View};

/// Rows of a product that one thread computes at a time, at most: the other side is brought in order once for them all.
pub(crate) const ROW_BLOCK: usize = 256;
/// Length of the pieces in which long sums are taken, so that a piece stays in the cache.
pub(crate) const SUM_BLOCK: usize = 512;
/// The same for symmetric sums, whose pieces are f64 and go through the cache in many parts; it divides [`SUM_BLOCK`].
pub(crate) const SYMMETRIC_BLOCK: usize = 256;
/// Rows and columns, at most, of the parts of a symmetric sum that one thread computes at a time, and of those on the diagonal, of
/// which half is for nothing.
const TILE: usize = 288;
const DIAGONAL_TILE: usize = 144;
/// What sides are cut at multiples of: rows of a product that processors take at once.
const TILE_UNIT: usize = 48;

/// Computes `dst = a·b`, or adds to `dst`, on this thread.
pub(crate) fn product<T: faer::traits::ComplexField>(dst: MatMut<'_, T>, accum: Accum, a: MatRef<'_, T>, b: MatRef<'_, T>) {
    matmul(dst, accum, a, b, T::one_impl(), Par::Seq);
    settle();
}

/// Empties the upper halves of the vector registers, which `faer`'s products leave filled: with those, narrow vector code of ours takes
/// four times its time on the processors at hand.
///
/// Code that is compiled for wide vectors ends with the instruction for it.
pub(crate) fn settle() {
    let mut values = [0.0_f32; 32];
    vectorized(|| std::hint::black_box(&mut values).iter_mut().for_each(|v| *v += 1.0));
    std::hint::black_box(values);
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

/// The height of an even number of blocks that `rows` are shared out in.
pub(crate) fn block_of(rows: usize) -> usize {
    rows.div_ceil(2 * rows.div_ceil(2 * ROW_BLOCK).max(1)).max(1)
}

/// The entry of largest size, the first one of a tie; 0 where there is none.
pub(crate) fn largest(values: &[f32]) -> f32 {
    const LANES: usize = 32;
    let (mut high, mut low) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    vectorized(|| {
        for values in values.chunks(LANES) {
            for ((high, low), &x) in high.iter_mut().zip(&mut low).zip(values) {
                *high = if x > *high { x } else { *high };
                *low = if x < *low { x } else { *low };
            }
        }
    });
    let (high, low) = (high.into_iter().fold(0.0, f32::max), low.into_iter().fold(0.0, f32::min));
    match high.total_cmp(&-low) {
        std::cmp::Ordering::Greater => high,
        std::cmp::Ordering::Less => low,
        std::cmp::Ordering::Equal => values.iter().copied().find(|x| x.abs() >= high).unwrap_or(0.0),
    }
}

/// Views a matrix or its transpose.
pub(crate) fn matrix_of(view: View<'_>) -> MatRef<'_, f32> {
    let ([rows, columns], [row_stride, column_stride]) = (view.shape(), view.strides());
    if column_stride == 1 {
        MatRef::from_row_major_slice_with_stride(view.data(), rows, columns, row_stride)
    } else {
        MatRef::from_column_major_slice_with_stride(view.data(), rows, columns, column_stride)
    }
}

/// Computes `a·b` of row-major `a` `[m, k]`.
pub(crate) fn product_rows(on: &dyn Products, a: &[f32], b: View<'_>) -> Vec<f32> {
    let [k, n] = b.shape();
    let mut out = vec![0.0; a.len() / k * n];
    if on.multiply(&mut out, View::new(a, a.len() / k, k), b, false) {
        return out;
    }
    let b = matrix_of(b);
    let height = block_of(a.len() / k);
    out.par_chunks_mut(height * n)
        .zip(a.par_chunks(height * k))
        .for_each(|(out, a)| product(rows_of_mut(out, n), Accum::Replace, rows_of(a, k), b));
    out
}

/// Where a side is cut; it is longer than a unit.
fn half_of(size: usize) -> usize {
    (size / 2).next_multiple_of(TILE_UNIT)
}

/// Runs what is inlined into it with the widest vectors that the processor has.
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Adds the lower triangle of `a·aᵀ`: halves along the diagonal, and the square between them.
fn add_triangle(dst: MatMut<'_, f64>, a: MatRef<'_, f64>) {
    let size = a.nrows();
    if size <= DIAGONAL_TILE {
        let (lower, full) = (BlockStructure::TriangularLower, BlockStructure::Rectangular);
        triangular::matmul(dst, lower, Accum::Add, a, full, a.transpose(), full, 1.0, Par::Seq);
        settle();
        return;
    }
    let half = half_of(size);
    let (first, _, between, second) = dst.split_at_mut(half, half);
    let (above, below) = a.split_at_row(half);
    rayon::join(
        || add_rectangle(between, below, above.transpose()),
        || rayon::join(|| add_triangle(first, above), || add_triangle(second, below)),
    );
}

/// Adds `a·b`, halved along its longer side until it is small.
pub(crate) fn add_rectangle(dst: MatMut<'_, f64>, a: MatRef<'_, f64>, b: MatRef<'_, f64>) {
    let (m, n) = (dst.nrows(), dst.ncols());
    if m.max(n) <= TILE {
        product(dst, Accum::Add, a, b);
    } else if m >= n {
        let ((first, second), (above, below)) = (dst.split_at_row_mut(half_of(m)), a.split_at_row(half_of(m)));
        rayon::join(|| add_rectangle(first, above, b), || add_rectangle(second, below, b));
    } else {
        let ((first, second), (left, right)) = (dst.split_at_col_mut(half_of(n)), b.split_at_col(half_of(n)));
        rayon::join(|| add_rectangle(first, a, left), || add_rectangle(second, a, right));
    }
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
        add_triangle(rows_of_mut(&mut self.data, self.size), a);
    }

    /// The sum, row-major; what is above the diagonal does not count.
    pub(crate) fn lower_mut(&mut self) -> &mut [f64] {
        &mut self.data
    }

    /// Computes `aᵀa` of row-major `a` `[m, size]`.
    pub(crate) fn of_columns(a: &[f32], size: usize) -> Self {
        let mut sum = Self::zeros(size);
        let mut wide = Vec::with_capacity(SYMMETRIC_BLOCK * size);
        for piece in a.chunks(SYMMETRIC_BLOCK * size) {
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
        settle();
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
pub(crate) fn orthonormalize(on: &dyn Products, mut a: Vec<f32>, mut l: usize) -> Result<(Vec<f32>, usize)> {
    for _ in 0..2 {
        let (values, vectors) = SymmetricSum::of_columns(&a, l).eigen()?;
        let kept = values.iter().take_while(|&&v| v > 1e-12 * values[0]).count();
        if kept == 0 {
            return Err(Error::NoVariance);
        }
        let entries = (0..l).flat_map(|i| (0..kept).map(move |j| (i, j)));
        let rotation: Vec<f32> = entries.map(|(i, j)| (vectors[(i, j)] / values[j].sqrt()) as f32).collect();
        a = product_rows(on, &a, View::new(&rotation, l, kept));
        l = kept;
    }
    Ok((a, l))
}
