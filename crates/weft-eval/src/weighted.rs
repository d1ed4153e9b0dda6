//! The root of the inputs' second moment, for the data-weighted distance.
//!
//! With `M = E[x·xᵀ]` over the training images, a change `Δw` of the weights that one unit has on the input changes
//! its pre-activation by `E[(Δw·x)²] = Δw·M·Δwᵀ = |Δw·L|²`, where `M = L·Lᵀ`: the Cholesky factor serves as well as
//! the symmetric root, for they differ by a rotation.

use crate::matmul::gram_of_columns;
use rayon::prelude::*;
use weft_core::{Dataset, Part};

/// Training examples that are summed in `f32` before they are added in `f64`.
const EXAMPLES: usize = 1024;

/// A root `L` of the second moment of the first `max_examples` training inputs, `[inputs, inputs]`, lower triangular.
pub(crate) fn input_root(dataset: &Dataset, max_examples: usize) -> Vec<f32> {
    let size = dataset.num_features();
    let count = dataset.range(Part::Train).len().min(max_examples);
    let starts: Vec<usize> = (0..count).step_by(EXAMPLES).collect();
    let gram = |&start: &usize| {
        let mut gram = vec![0f32; size * size];
        gram_of_columns(&dataset.gather(start..count.min(start + EXAMPLES)), size, &mut gram);
        gram
    };
    let mut moment = vec![0f64; size * size];
    // A few blocks at a time bound the memory; they are added in their order.
    for starts in starts.chunks(8) {
        let grams: Vec<Vec<f32>> = starts.par_iter().map(gram).collect();
        for gram in &grams {
            moment.iter_mut().zip(gram).for_each(|(m, &g)| *m += f64::from(g) / count as f64);
        }
    }
    cholesky(moment, size).into_iter().map(|v| v as f32).collect()
}

/// The lower Cholesky factor of a positive semidefinite matrix `[n, n]`; a pivot of 0 leaves its column 0.
fn cholesky(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    let trace: f64 = (0..n).map(|i| a[i * n + i]).sum();
    let tiny = 1e-6 * trace / n.max(1) as f64;
    for j in 0..n {
        let (above, below) = a.split_at_mut((j + 1) * n);
        let row_j = &mut above[j * n..];
        let pivot = row_j[j] - row_j[..j].iter().map(|v| v * v).sum::<f64>();
        let root = if pivot > tiny { pivot.sqrt() } else { 0.0 };
        row_j[j] = root;
        row_j[j + 1..].fill(0.0);
        let row_j = &above[j * n..j * n + j];
        below.par_chunks_exact_mut(n).with_min_len(64).for_each(|row| {
            let dot: f64 = row[..j].iter().zip(row_j).map(|(a, b)| a * b).sum();
            row[j] = if root > 0.0 { (row[j] - dot) / root } else { 0.0 };
        });
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_of_a_singular_matrix() {
        // Rank 2 in 3 dimensions, the middle one dead.
        let m = [4.0, 0.0, 2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 5.0];
        let l = cholesky(m.to_vec(), 3);
        assert_eq!(l, [2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
    }

    #[test]
    fn factor_times_its_transpose_is_the_matrix() {
        let n = 12;
        let x: Vec<f64> = weft_core::Seed::new(1).normals(n * 2 * n).into_iter().map(f64::from).collect();
        let moment = |i: usize, j: usize| x.chunks_exact(n).map(|r| r[i] * r[j]).sum::<f64>();
        let m: Vec<f64> = (0..n * n).map(|ij| moment(ij / n, ij % n)).collect();
        let l = cholesky(m.clone(), n);
        for (ij, expected) in m.iter().enumerate() {
            let product: f64 = (0..n).map(|k| l[ij / n * n + k] * l[ij % n * n + k]).sum();
            assert!((product - expected).abs() < 1e-9, "{product} is not {expected}");
        }
    }
}
