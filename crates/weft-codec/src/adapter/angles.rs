//! How far the components found are from a subspace that is known.

use super::dense::{multiply, svd};
use super::{AdapterPca, Grams};
use crate::linalg::SymmetricSum;
use crate::{Error, Result};
use faer::Mat;

/// Cosines of the principal angles between the span of whole adapters' components and another one, the largest first.
///
/// `between` has the products of the adapters with the updates that span the other subspace, `[n, d]`, and `own` those of the latter with
/// each other, `[d, d]`.
///
/// # Errors
/// [`Error::Length`] for products of other sizes, [`Error::Rank`] for a codec of [`super::Per::Module`], [`Error::NoVariance`] if the
/// other subspace is none.
///
/// # References
/// Björck & Golub 1973, "Numerical methods for computing angles between linear subspaces".
pub fn principal_cosines(pca: &AdapterPca, grams: &Grams, (between, own): (&[f64], &[f64])) -> Result<Vec<f64>> {
    let (n, k) = (pca.num_adapters(), pca.code_len());
    if pca.spectra().count() != 1 {
        return Err(Error::Rank { asked: k, available: n - 1 });
    }
    if !between.len().is_multiple_of(n) || grams.num_adapters() != n {
        return Err(Error::Length { what: "inner products", row: n, got: between.len() });
    }
    let d = between.len() / n;
    if d == 0 || own.len() != d * d {
        return Err(Error::Length { what: "inner products", row: d * d, got: own.len() });
    }
    let components = pca.components();
    let combined = |left: &[f64], width: usize| -> Vec<f64> {
        let entry = |at: usize| (0..n).map(|i| components[at / width * n + i] * left[i * width + at % width]).sum();
        (0..k * width).map(entry).collect()
    };
    // Components are combinations whose weights sum to 0, so the adapters' own products serve for centered ones.
    let with_adapters = combined(&grams.total(), n);
    let inner = |at: usize| (0..n).map(|i| with_adapters[at / k * n + i] * components[at % k * n + i]).sum();
    let (left, right) = (inverse_root(&(0..k * k).map(inner).collect::<Vec<f64>>(), k)?, inverse_root(own, d)?);
    let cross = combined(between, d);
    let cross = Mat::from_fn(k, d, |i, j| cross[i * d + j]);
    Ok(svd(multiply(multiply(left.transpose(), cross.as_ref()).as_ref(), right.as_ref()).as_ref())?.values)
}

/// A matrix `x` with `xᵀ·gram·x = 1`, without directions of no length.
fn inverse_root(gram: &[f64], size: usize) -> Result<Mat<f64>> {
    let mut sum = SymmetricSum::zeros(size);
    sum.lower_mut().copy_from_slice(gram);
    let (values, vectors) = sum.eigen()?;
    let kept = values.iter().take_while(|&&v| v > 1e-12 * values[0]).count();
    if kept == 0 {
        return Err(Error::NoVariance);
    }
    Ok(Mat::from_fn(size, kept, |i, j| vectors[(i, j)] / values[j].sqrt()))
}
