//! Orthogonal factors, singular values and products in f64, the same at any number of threads: factorizations run on one thread, and
//! products are shared out in fixed parts.

use crate::linalg::{add_rectangle, settle};
use crate::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder;
use faer::linalg::qr::no_pivoting::factor as qr;
use faer::linalg::svd;
use faer::{Conj, Mat, MatRef, Par};

/// Computes `a·b`.
pub(super) fn multiply(a: MatRef<'_, f64>, b: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    if a.nrows() > 0 && b.ncols() > 0 && a.ncols() > 0 {
        add_rectangle(out.as_mut(), a, b);
    }
    out
}

/// The sum of the squares of all entries.
pub(super) fn energy(a: MatRef<'_, f64>) -> f64 {
    a.col_iter().map(|column| column.iter().map(|x| x * x).sum::<f64>()).sum()
}

/// A matrix `[m, n]` as an orthogonal factor, kept as reflections, and a triangle `[min(m, n), n]`.
pub(super) struct Qr {
    basis: Mat<f64>,
    coefficients: Mat<f64>,
    pub(super) upper: Mat<f64>,
}

impl Qr {
    pub(super) fn new(mut a: Mat<f64>) -> Self {
        let (m, n) = a.shape();
        let size = m.min(n);
        if size == 0 {
            return Self { basis: Mat::zeros(m, 0), coefficients: Mat::zeros(1, 0), upper: Mat::zeros(0, n) };
        }
        let block = qr::recommended_block_size::<f64>(m, n);
        let mut coefficients = Mat::zeros(block, size);
        let scratch = qr::qr_in_place_scratch::<f64>(m, n, block, Par::Seq, faer::Spec::default());
        let memory = &mut MemBuffer::new(scratch);
        qr::qr_in_place(a.as_mut(), coefficients.as_mut(), Par::Seq, MemStack::new(memory), faer::Spec::default());
        settle();
        let upper = Mat::from_fn(size, n, |i, j| if i <= j { a[(i, j)] } else { 0.0 });
        let basis = Mat::from_fn(m, size, |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Greater => a[(i, j)],
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Less => 0.0,
        });
        Self { basis, coefficients, upper }
    }

    /// The orthogonal factor times `top`, `[min(m, n), any] → [m, any]`.
    pub(super) fn apply(&self, top: MatRef<'_, f64>) -> Mat<f64> {
        let mut out = Mat::zeros(self.basis.nrows(), top.ncols());
        out.as_mut().subrows_mut(0, top.nrows()).copy_from(top);
        if top.nrows() == 0 || top.ncols() == 0 {
            return out;
        }
        let (m, block) = (self.basis.nrows(), self.coefficients.nrows());
        let scratch = householder::apply_block_householder_sequence_on_the_left_in_place_scratch::<f64>(m, block, top.ncols());
        householder::apply_block_householder_sequence_on_the_left_in_place_with_conj(
            self.basis.as_ref(),
            self.coefficients.as_ref(),
            Conj::No,
            out.as_mut(),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
        );
        settle();
        out
    }

    /// The orthogonal factor's first columns, `[m, min(m, n)]`.
    pub(super) fn orthonormal(&self) -> Mat<f64> {
        let size = self.coefficients.ncols();
        self.apply(Mat::<f64>::identity(size, size).as_ref())
    }
}

/// `a = u·diag(values)·vᵀ`, the values in falling order.
pub(super) struct Svd {
    pub(super) u: Mat<f64>,
    pub(super) values: Vec<f64>,
    pub(super) v: Mat<f64>,
}

/// Computes singular values and vectors of `[m, n]`, `min(m, n)` of them.
pub(super) fn svd(a: MatRef<'_, f64>) -> Result<Svd> {
    let (m, n) = a.shape();
    let size = m.min(n);
    let (mut u, mut v, mut values) = (Mat::zeros(m, size), Mat::zeros(n, size), Diag::<f64>::zeros(size));
    if size == 0 {
        return Ok(Svd { u, values: Vec::new(), v });
    }
    let thin = svd::ComputeSvdVectors::Thin;
    let scratch = svd::svd_scratch::<f64>(m, n, thin, thin, Par::Seq, faer::Spec::default());
    let memory = &mut MemBuffer::new(scratch);
    let (out_u, out_v) = (Some(u.as_mut()), Some(v.as_mut()));
    svd::svd(a, values.as_mut(), out_u, out_v, Par::Seq, MemStack::new(memory), faer::Spec::default())
        .map_err(|_| Error::Eigen { size })?;
    settle();
    let values = values.column_vector().iter().copied().collect();
    Ok(Svd { u, values, v })
}
