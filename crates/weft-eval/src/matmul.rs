//! Inner products of rows, on one thread: callers parallelize over blocks of rows, so that no sum's order depends
//! on the number of threads.

use weft_canon::product::{View, multiply};

/// Writes the inner products of the rows of `a` and `b` into `out`.
///
/// # Shapes
/// `a` is `[m, k]`, `b` is `[n, k]`, `out` is `[m, n]`, all row-major.
pub(crate) fn inner_products(a: &[f32], b: &[f32], k: usize, out: &mut [f32]) {
    let (m, n) = (a.len() / k, b.len() / k);
    assert_eq!((m * k, n * k, m * n), (a.len(), b.len(), out.len()), "matrices of other shapes");
    multiply(out, View::new(a, m, k), View::new(b, n, k).t(), false);
}

/// Writes the second moments `aᵀ·a` of the columns of `a` into `out`.
///
/// # Shapes
/// `a` is `[m, k]`, `out` is `[k, k]`, row-major.
pub(crate) fn gram_of_columns(a: &[f32], k: usize, out: &mut [f32]) {
    let m = a.len() / k;
    assert_eq!((m * k, k * k), (a.len(), out.len()), "matrices of other shapes");
    multiply(out, View::new(a, m, k).t(), View::new(a, m, k), false);
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "products of small whole numbers are exact")]
mod tests {
    use super::*;

    #[test]
    fn products_by_hand() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1.0, 0.0, -1.0, 2.0, 1.0, 0.0]);
        let mut out = [0.0; 4];
        inner_products(&a, &b, 3, &mut out);
        assert_eq!(out, [-2.0, 4.0, -2.0, 13.0]);
        let mut gram = [0.0; 4];
        gram_of_columns(&[1.0, 2.0, 3.0, 4.0], 2, &mut gram);
        assert_eq!(gram, [10.0, 14.0, 14.0, 20.0]);
    }
}
