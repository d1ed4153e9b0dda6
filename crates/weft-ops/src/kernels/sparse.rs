//! The first linear layer on inputs that are mostly zero, as images and counts are.
//!
//! Handwritten digits have about a fifth of their pixels inked. A dense product spends its time multiplying
//! zeros; these kernels visit the non-zero values alone, forward and backward.

use super::{load, store};
use crate::{Error, Result};
use pulp::{Arch, Simd, WithSimd};

/// Examples as compressed rows of their non-zero values.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseRows {
    starts: Vec<usize>,
    columns: Vec<u16>,
    values: Vec<f32>,
    num_features: usize,
}

impl SparseRows {
    /// An empty set of rows.
    ///
    /// # Errors
    /// [`Error::TooManyFeatures`] beyond 65,536 features.
    pub fn new(num_features: usize) -> Result<Self> {
        if num_features > usize::from(u16::MAX) + 1 {
            return Err(Error::TooManyFeatures { features: num_features });
        }
        Ok(Self { starts: vec![0], columns: Vec::new(), values: Vec::new(), num_features })
    }

    /// Appends an example of [`SparseRows::num_features`] values.
    ///
    /// # Panics
    /// If the row has another length.
    pub fn push(&mut self, row: &[f32]) {
        assert_eq!(row.len(), self.num_features, "a row of another length");
        for (column, &value) in row.iter().enumerate() {
            if value != 0.0 {
                self.columns.push(column as u16);
                self.values.push(value);
            }
        }
        self.starts.push(self.columns.len());
    }

    /// The number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of values of an example, zeros included.
    #[must_use]
    pub fn num_features(&self) -> usize {
        self.num_features
    }

    /// The fraction of values that are not zero.
    #[must_use]
    pub fn density(&self) -> f64 {
        self.values.len() as f64 / (self.len() * self.num_features).max(1) as f64
    }

    /// The columns and values of an example.
    #[must_use]
    pub fn row(&self, example: usize) -> (&[u16], &[f32]) {
        let range = self.starts[example]..self.starts[example + 1];
        (&self.columns[range.clone()], &self.values[range])
    }
}

/// Computes `y = x·W + b` for chosen examples.
///
/// # Shapes
/// `examples` `[b]`, `weight` `[i, o]`, `bias` `[o]`, `y` `[b, o]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn sparse_forward(rows: &SparseRows, examples: &[u32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let width = bias.len();
    assert_eq!(weight.len(), rows.num_features * width, "weight is not [i, o]");
    assert_eq!(y.len(), examples.len() * width, "y is not [b, o]");
    Arch::new().dispatch(Forward { rows, examples, weight, bias, y });
}

/// Adds `xᵀ·dy` to `d_weight` and the column sums of `dy` to `d_bias`.
///
/// # Shapes
/// `examples` `[b]`, `dy` `[b, o]`, `d_weight` `[i, o]`, `d_bias` `[o]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn sparse_backward(rows: &SparseRows, examples: &[u32], dy: &[f32], d_weight: &mut [f32], d_bias: &mut [f32]) {
    let width = d_bias.len();
    assert_eq!(d_weight.len(), rows.num_features * width, "d_weight is not [i, o]");
    assert_eq!(dy.len(), examples.len() * width, "dy is not [b, o]");
    Arch::new().dispatch(Backward { rows, examples, dy, d_weight, d_bias });
}

struct Forward<'a> {
    rows: &'a SparseRows,
    examples: &'a [u32],
    weight: &'a [f32],
    bias: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let width = self.bias.len();
        for (&example, y) in self.examples.iter().zip(self.y.chunks_exact_mut(width)) {
            let (columns, values) = self.rows.row(example as usize);
            let mut at = 0;
            while at + 2 * lanes <= width {
                let sums = gather_two(simd, columns, values, &self.weight[at..], width, &self.bias[at..at + 2 * lanes]);
                store(simd, &mut y[at..at + lanes], sums[0]);
                store(simd, &mut y[at + lanes..at + 2 * lanes], sums[1]);
                at += 2 * lanes;
            }
            while at < width {
                let end = width.min(at + lanes);
                let sum = gather_one(simd, columns, values, &self.weight[at..], width, &self.bias[at..end]);
                store(simd, &mut y[at..end], sum);
                at = end;
            }
        }
    }
}

/// Sums `value · weight[column]` over two vectors of outputs, on two interleaved chains each.
#[inline(always)]
fn gather_two<S: Simd>(simd: S, columns: &[u16], values: &[f32], weight: &[f32], stride: usize, bias: &[f32]) -> [S::f32s; 2] {
    let lanes = S::F32_LANES;
    let zero = simd.splat_f32s(0.0);
    let mut even = [load(simd, &bias[..lanes]), load(simd, &bias[lanes..])];
    let mut odd = [zero; 2];
    let (pairs, last) = columns.as_chunks::<2>();
    let (value_pairs, last_value) = values.as_chunks::<2>();
    for (c, v) in pairs.iter().zip(value_pairs) {
        for (chain, k) in [(&mut even, 0), (&mut odd, 1)] {
            let row = &weight[usize::from(c[k]) * stride..][..2 * lanes];
            let value = simd.splat_f32s(v[k]);
            chain[0] = simd.mul_add_f32s(value, load(simd, &row[..lanes]), chain[0]);
            chain[1] = simd.mul_add_f32s(value, load(simd, &row[lanes..]), chain[1]);
        }
    }
    for (&c, &v) in last.iter().zip(last_value) {
        let row = &weight[usize::from(c) * stride..][..2 * lanes];
        even[0] = simd.mul_add_f32s(simd.splat_f32s(v), load(simd, &row[..lanes]), even[0]);
        even[1] = simd.mul_add_f32s(simd.splat_f32s(v), load(simd, &row[lanes..]), even[1]);
    }
    [simd.add_f32s(even[0], odd[0]), simd.add_f32s(even[1], odd[1])]
}

/// Sums `value · weight[column]` over one vector of outputs (or its leading lanes), on four interleaved chains.
#[inline(always)]
fn gather_one<S: Simd>(simd: S, columns: &[u16], values: &[f32], weight: &[f32], stride: usize, bias: &[f32]) -> S::f32s {
    let len = bias.len();
    let zero = simd.splat_f32s(0.0);
    let mut chains = [load(simd, bias), zero, zero, zero];
    let (quads, last) = columns.as_chunks::<4>();
    let (value_quads, last_values) = values.as_chunks::<4>();
    for (c, v) in quads.iter().zip(value_quads) {
        for k in 0..4 {
            let row = &weight[usize::from(c[k]) * stride..][..len];
            chains[k] = simd.mul_add_f32s(simd.splat_f32s(v[k]), load(simd, row), chains[k]);
        }
    }
    for (&c, &v) in last.iter().zip(last_values) {
        let row = &weight[usize::from(c) * stride..][..len];
        chains[0] = simd.mul_add_f32s(simd.splat_f32s(v), load(simd, row), chains[0]);
    }
    simd.add_f32s(simd.add_f32s(chains[0], chains[1]), simd.add_f32s(chains[2], chains[3]))
}

struct Backward<'a> {
    rows: &'a SparseRows,
    examples: &'a [u32],
    dy: &'a [f32],
    d_weight: &'a mut [f32],
    d_bias: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let lanes = S::F32_LANES;
        let width = self.d_bias.len();
        for (&example, dy) in self.examples.iter().zip(self.dy.chunks_exact(width)) {
            let (columns, values) = self.rows.row(example as usize);
            let mut at = 0;
            while at + 2 * lanes <= width {
                let dy = [load(simd, &dy[at..at + lanes]), load(simd, &dy[at + lanes..at + 2 * lanes])];
                let (low, high) = self.d_bias[at..at + 2 * lanes].split_at_mut(lanes);
                add_to(simd, [low, high], dy, None);
                for (&column, &value) in columns.iter().zip(values) {
                    let row = &mut self.d_weight[usize::from(column) * width + at..][..2 * lanes];
                    let (low, high) = row.split_at_mut(lanes);
                    add_to(simd, [low, high], dy, Some(value));
                }
                at += 2 * lanes;
            }
            while at < width {
                let end = width.min(at + lanes);
                let dy = [load(simd, &dy[at..end])];
                add_to(simd, [&mut self.d_bias[at..end]], dy, None);
                for (&column, &value) in columns.iter().zip(values) {
                    add_to(simd, [&mut self.d_weight[usize::from(column) * width + at..][..end - at]], dy, Some(value));
                }
                at = end;
            }
        }
    }
}

/// Adds `value · dy`, or `dy` itself, to up to one vector each.
#[inline(always)]
fn add_to<S: Simd, const N: usize>(simd: S, to: [&mut [f32]; N], dy: [S::f32s; N], value: Option<f32>) {
    for (to, dy) in to.into_iter().zip(dy) {
        let old = load(simd, to);
        let sum = match value {
            Some(value) => simd.mul_add_f32s(simd.splat_f32s(value), dy, old),
            None => simd.add_f32s(old, dy),
        };
        store(simd, to, sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use weft_core::Seed;

    fn case(features: usize, width: usize, batch: usize, seed: u64) -> (SparseRows, Vec<f32>) {
        let seed = Seed::new(seed);
        let mut rows = SparseRows::new(features).unwrap();
        let x: Vec<f32> = seed.fork("x").normals(features * batch).into_iter().map(|v| v.max(0.3) - 0.3).collect();
        x.chunks_exact(features).for_each(|row| rows.push(row));
        let _ = width;
        (rows, x)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_dense_reference(features in 1usize..40, width in 1usize..70, batch in 1usize..6, seed in 0u64..1000) {
            let (rows, x) = case(features, width, batch, seed);
            let (w, b) = (Seed::new(seed).fork("w").normals(features * width), Seed::new(seed).fork("b").normals(width));
            let dy = Seed::new(seed).fork("dy").normals(batch * width);
            let examples: Vec<u32> = (0..batch as u32).rev().collect();
            let mut y = vec![0.0; batch * width];
            sparse_forward(&rows, &examples, &w, &b, &mut y);
            let (mut dw, mut db) = (vec![1.0; features * width], vec![1.0; width]);
            sparse_backward(&rows, &examples, &dy, &mut dw, &mut db);
            for (k, &e) in examples.iter().enumerate() {
                for o in 0..width {
                    let sum: f64 = (0..features).map(|i| f64::from(x[e as usize * features + i]) * f64::from(w[i * width + o])).sum();
                    prop_assert!((f64::from(y[k * width + o]) - sum - f64::from(b[o])).abs() < 1e-4);
                }
            }
            for i in 0..features {
                for o in 0..width {
                    let sum: f64 = (0..batch).map(|k| f64::from(x[examples[k] as usize * features + i]) * f64::from(dy[k * width + o])).sum();
                    prop_assert!((f64::from(dw[i * width + o]) - 1.0 - sum).abs() < 1e-4);
                }
            }
            for o in 0..width {
                let sum: f64 = (0..batch).map(|k| f64::from(dy[k * width + o])).sum();
                prop_assert!((f64::from(db[o]) - 1.0 - sum).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn density_and_limits() {
        let mut rows = SparseRows::new(4).unwrap();
        rows.push(&[0.0, 1.0, 0.0, 2.0]);
        assert!((rows.density() - 0.5).abs() < 1e-12);
        assert_eq!(rows.row(0), ([1u16, 3].as_slice(), [1.0f32, 2.0].as_slice()));
        assert!(SparseRows::new(70_000).is_err());
    }
}
