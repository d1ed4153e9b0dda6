//! Safe matrix products in `f32`; large ones are shared between threads in a way that results never depend on their number.

use rayon::prelude::*;

/// A strided view of a matrix.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the data hold fewer than `rows · cols` values.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self::strided(data, rows, cols, cols)
    }

    /// A row-major matrix whose rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If the last row reaches past the data.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || cols == 0 || (rows - 1) * row_stride + cols <= data.len(), "a view lies inside its data");
        Self { data, rows, cols, row_stride, col_stride: 1 }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Writes `a·b` into the row-major `target`, or adds it.
///
/// # Shapes
/// `[m, k] · [k, n] → [m, n]`
///
/// # Panics
/// If the shapes do not fit.
pub fn multiply(target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) {
    assert_eq!(a.cols, b.rows, "inner lengths agree");
    let (m, n, k) = (a.rows, b.cols, a.cols);
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
            let stripe = View { data: &a.data[i * height * a.row_stride..], rows, ..a };
            multiply_here(target, stripe, b, add);
        });
        return;
    }
    multiply_here(target, a, b, add);
}

/// Products of more multiplications than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 23;
/// Rows of a stripe; tall products have stripes of two.
const STRIPE: usize = 128;

fn multiply_here(target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    // SAFETY: `View` checks at construction that every index it describes lies inside its slice, and neither side is empty here; the
    // target is a distinct, exclusively borrowed slice of m·n values with row stride n; all strides are in values of `f32`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target.as_mut_ptr(),
            1,
            n as isize,
            add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
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
    }
}
