//! Matrix products of strided views in `f32` and `f64`, on the calling thread unless the backend asks for all.
//!
//! The `gemm` crate sums along the inner axis in an order that the shapes alone decide, so a caller that shares out
//! fixed blocks of a product gets the same result at any number of threads.

/// A strided view of a matrix: `value(r, c) = data[r·row_stride + c·column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct MatrixView<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T> MatrixView<'a, T> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the data are not `[rows, columns]`.
    #[must_use]
    pub fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "the data are not [rows, columns]");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// A row-major matrix whose rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If the last row does not lie inside the data.
    #[must_use]
    pub fn strided(data: &'a [T], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(
            columns <= row_stride && (rows == 0 || (rows - 1) * row_stride + columns <= data.len()),
            "rows lie outside the data"
        );
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }
}

/// The place of a product: rows that start `row_stride` values apart.
#[derive(Debug)]
pub struct Target<'a, T> {
    data: &'a mut [T],
    row_stride: usize,
    first: usize,
}

impl<'a, T> Target<'a, T> {
    /// A whole row-major matrix with rows of a length.
    #[must_use]
    pub fn new(data: &'a mut [T], columns: usize) -> Self {
        Self { data, row_stride: columns, first: 0 }
    }

    /// The columns from `first` on of a row-major matrix with rows of a length.
    #[must_use]
    pub fn columns_from(data: &'a mut [T], columns: usize, first: usize) -> Self {
        Self { data, row_stride: columns, first }
    }
}

/// Writes `a·b` to the target, or adds it.
///
/// # Shapes
/// `[m, k] · [k, n] → [m, n]`
///
/// # Panics
/// If the shapes do not fit.
pub fn product_f32(target: Target<'_, f32>, a: MatrixView<'_, f32>, b: MatrixView<'_, f32>, add: bool) {
    product(target, a, b, (0.0, 1.0), add, gemm::Parallelism::None);
}

/// Writes `a·b` to the target, or adds it.
///
/// # Shapes
/// `[m, k] · [k, n] → [m, n]`
///
/// # Panics
/// If the shapes do not fit.
pub fn product_f64(target: Target<'_, f64>, a: MatrixView<'_, f64>, b: MatrixView<'_, f64>, add: bool) {
    product(target, a, b, (0.0, 1.0), add, gemm::Parallelism::None);
}

/// Products on one thread or on all; `T` is `f32` or `f64`.
pub(crate) fn product<T: Copy + 'static>(
    target: Target<'_, T>,
    a: MatrixView<'_, T>,
    b: MatrixView<'_, T>,
    (zero, one): (T, T),
    add: bool,
    parallelism: gemm::Parallelism,
) {
    assert_eq!(a.columns, b.rows, "inner lengths agree");
    let (m, n, k) = (a.rows, b.columns, a.columns);
    if m == 0 || n == 0 {
        return;
    }
    let Target { data, row_stride, first } = target;
    assert!(first + n <= row_stride && (m - 1) * row_stride + first + n <= data.len(), "the product lies inside its target");
    if k == 0 {
        if !add {
            (0..m).for_each(|r| data[r * row_stride + first..][..n].fill(zero));
        }
        return;
    }
    // SAFETY: a view's constructors check that its rows lie inside its data, and it is that matrix or its transpose, so that every
    // index (r, c) lies inside; the assertion above bounds the target, which is exclusively borrowed; no side is empty.
    // `T` is `f32` or `f64`, which `gemm` knows.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            data.as_mut_ptr().add(first),
            1,
            row_stride as isize,
            add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            one,
            one,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "products of small whole numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, -1.0, 2.0, 1.0, 0.0]);
        let mut out = [9.0; 4];
        product_f64(Target::new(&mut out, 2), MatrixView::new(&a, 2, 3), MatrixView::new(&b, 2, 3).t(), false);
        assert_eq!(out, [-2.0, 4.0, -2.0, 13.0]);
        let (a, b) = (a.map(|v| v as f32), b.map(|v| v as f32));
        let mut out = [1.0_f32; 6];
        product_f32(Target::columns_from(&mut out, 3, 1), MatrixView::new(&a, 2, 3), MatrixView::new(&b, 3, 2), true);
        // a·b with b as [3, 2]: [[1·1 + 2·(−1) + 3·1, 1·0 + 2·2 + 3·0], [4·1 + 5·(−1) + 6·1, 5·2]]
        assert_eq!(out, [1.0, 3.0, 5.0, 1.0, 6.0, 11.0]);
    }

    #[test]
    fn nothing_is_read_of_empty_products() {
        let mut out = [3.0_f32; 4];
        product_f32(Target::new(&mut out, 2), MatrixView::new(&[], 2, 0), MatrixView::new(&[], 0, 2), true);
        assert_eq!(out, [3.0; 4]);
        product_f32(Target::new(&mut out, 2), MatrixView::new(&[], 2, 0), MatrixView::new(&[], 0, 2), false);
        assert_eq!(out, [0.0; 4]);
    }
}
