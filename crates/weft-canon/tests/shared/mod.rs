//! What the tests of all families share.

use weft_canon::{Step, Transform};
use weft_core::{Architecture, Op, Seed};

/// Normal inputs, or random token ids, of `n` examples.
pub(crate) fn inputs(architecture: &Architecture, n: usize, seed: Seed) -> Vec<f64> {
    let len = n * architecture.num_inputs();
    match architecture.nodes()[0].op {
        Op::InputIds { vocabulary, .. } => seed.indices(len, vocabulary).into_iter().map(f64::from).collect(),
        _ => seed.normals(len).into_iter().map(f64::from).collect(),
    }
}

pub(crate) fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&w| f64::from(w)).collect()
}

/// The largest difference over the largest value.
pub(crate) fn deviation(a: &[f64], b: &[f64]) -> f64 {
    let size = a.iter().fold(1e-30_f64, |m, x| m.max(x.abs()));
    a.iter().zip(b).fold(0.0_f64, |m, (x, y)| m.max((x - y).abs())) / size
}

/// A transformation without what canonical forms leave out.
pub(crate) fn without_rotations(transform: Transform) -> Transform {
    Transform { steps: transform.steps.into_iter().filter(|step| !matches!(step, Step::Rotation(..))).collect() }
}
