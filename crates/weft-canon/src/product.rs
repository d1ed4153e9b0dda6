//! Safe matrix products in `f32`, on this machine's cores or where a device takes them; large ones are shared between threads in a way that results never depend on their number.

use crate::linalg::settle;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use weft_core::products::Products;
pub use weft_core::products::View;

/// Writes `a·b` into the row-major `target`, or adds it.
///
/// # Shapes
/// `[m, k] · [k, n] → [m, n]`
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) {
    let ([m, k], [inner, n]) = (a.shape(), b.shape());
    assert_eq!(k, inner, "inner lengths agree");
    assert_eq!(target.len(), m * n, "the target has the product's shape");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            target.fill(0.0);
        }
        return;
    }
    if m > STRIPE && m * n * k > PARALLEL_WORK {
        // Stripes whose height depends on the shape alone: who computes them changes nothing. Each brings `b` in order for itself.
        let height = if m >= 4 * STRIPE { 2 * STRIPE } else { STRIPE };
        target.par_chunks_mut(height * n).enumerate().for_each(|(i, target)| {
            let rows = target.len() / n;
            multiply_here(target, a.rows_from(i * height, rows), b, add);
        });
        return;
    }
    multiply_here(target, a, b, add);
}

/// The same on a device, if that takes it.
///
/// # Panics
/// As [`multiply`].
pub fn multiply_on(products: &dyn Products, target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) {
    if !products.multiply(target, a, b, add) {
        multiply(target, a, b, add);
    }
}

/// Products of more multiplications than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 23;
/// Rows of a stripe; tall products have stripes of two.
const STRIPE: usize = 128;

fn multiply_here(target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) {
    let target = MatMut::from_row_major_slice_mut(target, a.shape()[0], b.shape()[1]);
    let accum = if add { Accum::Add } else { Accum::Replace };
    matmul(target, accum, matrix_of(a), matrix_of(b), 1.0, Par::Seq);
    settle();
}

/// Views a matrix or its transpose.
fn matrix_of(view: View<'_>) -> MatRef<'_, f32> {
    let ([rows, columns], [row_stride, column_stride]) = (view.shape(), view.strides());
    if column_stride == 1 {
        MatRef::from_row_major_slice_with_stride(view.data(), rows, columns, row_stride)
    } else {
        MatRef::from_column_major_slice_with_stride(view.data(), rows, columns, column_stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_views() {
        let a = [1., 2., 3., 4., 5., 6.];
        let mut c = vec![0.0; 4];
        multiply(&mut c, View::new(&a, 2, 3), View::new(&a, 2, 3).t(), false);
        assert_eq!(c, [14., 32., 32., 77.]);
        multiply(&mut c, View::strided(&a, 2, 1, 3), View::new(&[1., 1.], 1, 2), true);
        assert_eq!(c, [15., 33., 36., 81.]);
        multiply(&mut c, View::new(&[], 2, 0), View::new(&[], 0, 2), false);
        assert_eq!(c, [0.0; 4]);
        // A row that is the transpose of a column, and a last row that ends with its data.
        let mut dot = vec![0.0];
        multiply(&mut dot, View::new(&a, 6, 1).t(), View::new(&a, 6, 1), false);
        assert_eq!(dot, [91.]);
        let mut outer = vec![0.0; 4];
        multiply(&mut outer, View::strided(&a[1..], 2, 1, 4).t().t(), View::strided(&a[1..], 2, 1, 4).t(), false);
        assert_eq!(outer, [4., 12., 12., 36.]);
    }
}
