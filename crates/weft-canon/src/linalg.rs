//! Small dense linear algebra in `f64`, on `faer`.

use faer::linalg::matmul::matmul;
use faer::linalg::solvers::DenseSolveCore;
use faer::{Accum, Mat, MatMut, MatRef, Par};

/// Empties the upper halves of the vector registers, which `faer`'s products leave filled: with those, narrow vector code of ours takes
/// four times its time on the processors at hand.
///
/// Code that is compiled for wide vectors ends with the instruction for it.
pub(crate) fn settle() {
    let mut values = [0.0_f32; 32];
    pulp::Arch::new().dispatch(|| std::hint::black_box(&mut values).iter_mut().for_each(|v| *v += 1.0));
    std::hint::black_box(values);
}

/// A row-major matrix that is only looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    view: MatRef<'a, f64>,
}

impl<'a> Matrix<'a> {
    pub(crate) fn new(data: &'a [f64], rows: usize, cols: usize) -> Self {
        Self { view: MatRef::from_row_major_slice(data, rows, cols) }
    }

    /// The transpose, row-major.
    pub(crate) fn transposed(self) -> Vec<f64> {
        row_major(self.view.transpose())
    }
}

impl Matrix<'_> {
    /// Writes the product with a row-major matrix, both `[cols of this, any]`.
    pub(crate) fn multiply(self, source: &[f64], target: &mut [f64]) {
        let (size, width) = (self.view.ncols(), source.len() / self.view.ncols());
        let source = MatRef::from_row_major_slice(source, size, width);
        let target = MatMut::from_row_major_slice_mut(target, size, width);
        matmul(target, Accum::Replace, self.view, source, 1.0, Par::Seq);
        settle();
    }

    /// Writes the products with some columns of rows of a length, those from `first` on, in their places.
    pub(crate) fn multiply_rows(self, source: &[f64], (first, width): (usize, usize), target: &mut [f64]) {
        let (size, rows) = (self.view.ncols(), source.len() / width);
        let source = MatRef::from_row_major_slice(source, rows, width).subcols(first, size);
        let target = MatMut::from_row_major_slice_mut(target, rows, width).subcols_mut(first, size);
        matmul(target, Accum::Replace, source, self.view.transpose(), 1.0, Par::Seq);
        settle();
    }
}

pub(crate) fn row_major(m: MatRef<'_, f64>) -> Vec<f64> {
    (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)])).collect()
}

/// The inverse of the transpose; `None` for a matrix without an inverse in `f64`.
pub(crate) fn inverse_transpose(m: &[f64], size: usize) -> Option<Vec<f64>> {
    let m = Matrix::new(m, size, size).view;
    let inverse = m.partial_piv_lu().inverse();
    let found = row_major(inverse.transpose());
    found.iter().all(|v| v.is_finite()).then_some(found)
}

/// A rotation from a square of normal numbers; with `keeps_ones` it leaves `(1, …, 1)` where it is.
pub(crate) fn random_rotation(size: usize, keeps_ones: bool, noise: &[f64]) -> Vec<f64> {
    if !keeps_ones {
        return row_major(orthogonal(MatRef::from_row_major_slice(noise, size, size)).as_ref());
    }
    // A basis whose first vector is (1, …, 1)/√d; the others are mixed among themselves.
    let ones = Mat::from_fn(size, size, |i, j| if j == 0 { 1.0 } else { noise[i * size + j] });
    let basis = orthogonal(ones.as_ref());
    let inner = orthogonal(MatRef::from_row_major_slice(noise, size, size).submatrix(0, 0, size - 1, size - 1));
    let mut block = Mat::<f64>::identity(size, size);
    block.as_mut().submatrix_mut(1, 1, size - 1, size - 1).copy_from(&inner);
    row_major((&basis * &block * basis.transpose()).as_ref())
}

fn orthogonal(m: MatRef<'_, f64>) -> Mat<f64> {
    m.qr().compute_thin_Q()
}

/// `R` of a QR decomposition, `[min(rows, cols), cols]`.
pub(crate) fn upper_triangle(m: MatRef<'_, f64>) -> Mat<f64> {
    m.qr().thin_R().to_owned()
}
