//! Ridge regression from features to codes: what a condition tells linearly.

use crate::{Error, Result};
use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};

/// A linear map with an intercept.
#[derive(Debug, Clone)]
pub struct Ridge {
    feature_mean: Vec<f64>,
    target_mean: Vec<f64>,
    /// `[f, k]`.
    slopes: Mat<f64>,
}

impl Ridge {
    /// Minimizes `Σ ‖y − ȳ − (x − x̄)·B‖² + λ·n·‖B‖²` in `f64`.
    ///
    /// # Shapes
    /// `features` `[n, f]`, `targets` `[n, k]`.
    ///
    /// # Errors
    /// [`Error::Length`] if they are not whole rows or the two do not have as many, [`Error::Eigen`] if the system is singular, as without a `λ` above 0 it may be.
    ///
    /// # References
    /// Hoerl & Kennard 1970.
    pub fn fit((features, f): (&[f32], usize), (targets, k): (&[f32], usize), lambda: f64) -> Result<Self> {
        if k == 0 || !targets.len().is_multiple_of(k) {
            return Err(Error::Length { what: "targets", row: k, got: targets.len() });
        }
        let n = targets.len() / k;
        if f == 0 || n == 0 || features.len() != n * f {
            return Err(Error::Length { what: "features", row: f, got: features.len() });
        }
        let (x, feature_mean) = centered(features, n, f);
        let (y, target_mean) = centered(targets, n, k);
        let mut gram = x.transpose() * &x;
        for i in 0..f {
            gram[(i, i)] += lambda * n as f64;
        }
        let factor = gram.llt(Side::Lower).map_err(|_| Error::Eigen { size: f })?;
        let slopes = factor.solve(x.transpose() * &y);
        Ok(Self { feature_mean, target_mean, slopes })
    }

    /// The targets of features.
    ///
    /// # Shapes
    /// `[n, f]` → `[n, k]`.
    ///
    /// # Panics
    /// If `features` are not whole rows.
    #[must_use]
    pub fn predict(&self, features: &[f32]) -> Vec<f32> {
        let (f, k) = (self.feature_mean.len(), self.target_mean.len());
        assert!(features.len().is_multiple_of(f), "features are not [n, f]");
        let rows = features.len() / f;
        let x = Mat::from_fn(rows, f, |i, j| f64::from(features[i * f + j]) - self.feature_mean[j]);
        let y = &x * &self.slopes;
        (0..rows).flat_map(|i| (0..k).map(move |j| (i, j))).map(|(i, j)| (y[(i, j)] + self.target_mean[j]) as f32).collect()
    }
}

/// Rows less their mean.
fn centered(rows: &[f32], n: usize, width: usize) -> (Mat<f64>, Vec<f64>) {
    let view = MatRef::from_row_major_slice(rows, n, width);
    let mean: Vec<f64> = (0..width).map(|j| (0..n).map(|i| f64::from(view[(i, j)])).sum::<f64>() / n as f64).collect();
    (Mat::from_fn(n, width, |i, j| f64::from(view[(i, j)]) - mean[j]), mean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Seed;

    #[test]
    fn a_linear_map_is_found_and_a_penalty_shrinks_it() {
        let x = Seed::new(1).normals(60 * 3);
        let of = |x: &[f32]| [1.0 + 2.0 * x[0] - x[2], 0.5 * x[1] - 3.0];
        let y: Vec<f32> = x.chunks_exact(3).flat_map(of).collect();
        let exact = Ridge::fit((&x, 3), (&y, 2), 0.0).unwrap();
        let fresh = Seed::new(2).normals(9);
        let expected: Vec<f32> = fresh.chunks_exact(3).flat_map(of).collect();
        assert!(exact.predict(&fresh).iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
        // With a great penalty only the mean is left.
        let flat = Ridge::fit((&x, 3), (&y, 2), 1e9).unwrap().predict(&fresh);
        let mean = y.iter().step_by(2).sum::<f32>() / 60.0;
        assert!(flat.iter().step_by(2).all(|v| (v - mean).abs() < 1e-3));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(Ridge::fit((&[1.0; 4], 2), (&[1.0; 3], 1), 1.0).is_err());
        assert!(Ridge::fit((&[1.0; 4], 2), (&[1.0; 5], 2), 1.0).is_err(), "two and a half rows");
        assert!(Ridge::fit((&[1.0; 4], 2), (&[], 0), 1.0).is_err());
        assert!(Ridge::fit((&[1.0; 4], 2), (&[1.0; 2], 1), 0.0).is_err(), "equal features are singular");
    }
}
