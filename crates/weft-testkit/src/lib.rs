//! Tiny networks, random populations, a reference forward pass in `f64`, and assertions for tests.
//!
//! A dev-dependency only. The reference is written for clarity and shares no code with `weft-net`, so that agreement means
//! something.

mod adapters;
mod families;
mod products;
mod reference;

pub use adapters::{PlantedAdapters, PlantedFactors};
pub use families::{tiny_families, tiny_family_sizes};
pub use products::PlainProducts;
pub use reference::{activate, derivative, erf, forward_f64, node_values};

use std::sync::Arc;
use weft_core::{Activation, Architecture, Node, Op, Population, Seed};

/// Asserts that two slices agree within `tolerance·(1 + |expected|)`, entry by entry.
///
/// # Panics
/// At the first entry that does not, or if the lengths differ.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f64) {
    let widen = |values: &[f32]| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    assert_close_f64(&widen(got), &widen(expected), tolerance);
}

/// Asserts that two slices agree within `tolerance·(1 + |expected|)`, entry by entry.
///
/// # Panics
/// At the first entry that does not, or if the lengths differ.
#[track_caller]
pub fn assert_close_f64(got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "lengths differ");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let close = (g - e).abs() <= tolerance * (1.0 + e.abs());
        assert!(close, "entry {i}: got {g}, expected {e}, tolerance {tolerance}");
    }
}

/// A multi-layer perceptron that is sure to exist.
///
/// # Panics
/// If the widths describe no network.
#[must_use]
pub fn mlp(widths: &[usize], activation: Activation) -> Arc<Architecture> {
    Arc::new(Architecture::mlp("tiny-mlp", widths, activation).expect("tests give at least two positive widths"))
}

/// A residual network: `h = act(W₀x); z = h + act(W₁h); y = W₂z`. Both ends of `W₁` lie in one hidden space.
///
/// # Panics
/// If a width is 0.
#[must_use]
pub fn residual(inputs: usize, width: usize, outputs: usize, activation: Activation) -> Arc<Architecture> {
    let tensors = declare(&[("stem", width, inputs), ("block", width, width), ("head", outputs, width)]);
    let nodes = vec![
        Node { op: Op::Input { shape: vec![inputs] }, inputs: vec![] },
        linear(0, 0),
        Node { op: Op::Activation(activation), inputs: vec![1] },
        linear(2, 2),
        Node { op: Op::Activation(activation), inputs: vec![3] },
        Node { op: Op::Add, inputs: vec![2, 4] },
        linear(4, 5),
    ];
    Arc::new(Architecture::new("tiny-residual", tensors, nodes).expect("tests give positive widths"))
}

/// Two branches that meet in a sum, and a direct path: `y = W₂(act(W₀x) + act(W₁x)) + W₃x`.
///
/// # Panics
/// If a width is 0.
#[must_use]
pub fn branches(inputs: usize, width: usize, outputs: usize, activation: Activation) -> Arc<Architecture> {
    let tensors =
        declare(&[("left", width, inputs), ("right", width, inputs), ("head", outputs, width), ("skip", outputs, inputs)]);
    let nodes = vec![
        Node { op: Op::Input { shape: vec![inputs] }, inputs: vec![] },
        linear(0, 0),
        linear(2, 0),
        Node { op: Op::Activation(activation), inputs: vec![1] },
        Node { op: Op::Activation(activation), inputs: vec![2] },
        Node { op: Op::Add, inputs: vec![3, 4] },
        linear(4, 5),
        linear(6, 0),
        Node { op: Op::Add, inputs: vec![6, 7] },
    ];
    Arc::new(Architecture::new("tiny-branches", tensors, nodes).expect("tests give positive widths"))
}

fn declare(layers: &[(&str, usize, usize)]) -> Vec<(String, Vec<usize>)> {
    let layer = |&(name, out, into): &(&str, usize, usize)| {
        [(format!("{name}.weight"), vec![out, into]), (format!("{name}.bias"), vec![out])]
    };
    layers.iter().flat_map(layer).collect()
}

fn linear(weight: usize, input: usize) -> Node {
    Node { op: Op::Linear { weight, bias: Some(weight + 1) }, inputs: vec![input] }
}

/// A row of random weights: normal with variance `1 / fan-in`; biases normal with standard deviation 0.3, gains and variances
/// their exponentials.
#[must_use]
pub fn random_row(architecture: &Architecture, seed: Seed) -> Vec<f32> {
    let mut row = seed.normals(architecture.num_parameters());
    for tensor in architecture.tensors() {
        let fan_in: usize = tensor.shape[1..].iter().product();
        let std = if tensor.shape.len() > 1 { (1.0 / fan_in as f32).sqrt() } else { 0.3 };
        row[tensor.range()].iter_mut().for_each(|w| *w *= std);
    }
    // Gains and variances are positive as a rule, and away from 0.
    for node in architecture.nodes() {
        let positive = match node.op {
            Op::BatchNorm { gain, variance, .. } => vec![gain, variance],
            Op::LayerNorm { gain, .. } | Op::RmsNorm { gain, .. } => gain.into_iter().collect(),
            _ => Vec::new(),
        };
        for tensor in positive {
            row[architecture.tensors()[tensor].range()].iter_mut().for_each(|w| *w = w.exp());
        }
    }
    row
}

/// `n` networks with random weights, each from its own fork of the seed.
///
/// # Panics
/// Never: rows fit the architecture that they were drawn for.
#[must_use]
pub fn random_population(architecture: &Arc<Architecture>, n: usize, seed: Seed) -> Population {
    let data = (0..n as u64).flat_map(|i| random_row(architecture, seed.index(i))).collect();
    Population::new(architecture.clone(), data).expect("rows fit the architecture that they were drawn for")
}

/// The network's outputs for a batch of inputs, computed in `f64`.
///
/// # Shapes
/// `inputs` is `[b, features]`, the result `[b, outputs]`.
///
/// # Panics
/// If `row` or `inputs` does not fit.
#[must_use]
pub fn forward(architecture: &Architecture, row: &[f32], inputs: &[f64]) -> Vec<f64> {
    let row: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    forward_f64(architecture, &row, inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_of_a_hand_made_network() {
        let a = mlp(&[2, 2, 1], Activation::Relu);
        let row = [1., 2., -1., 1., 0.5, -0.5, 3., -2., 0.25];
        // h = relu([1·1 + 2·2 + .5, −1·1 + 1·2 − .5]) = [5.5, .5]; y = 3·5.5 − 2·.5 + .25
        assert_close_f64(&forward(&a, &row, &[1.0, 2.0]), &[15.75], 1e-12);
        let r = residual(1, 1, 1, Activation::Tanh);
        let h = 0.5_f64.tanh();
        assert_close_f64(&forward(&r, &[0.5, 0.0, 2.0, 0.1, 1.0, 0.0], &[1.0]), &[h + (2.0 * h + 0.1_f32 as f64).tanh()], 1e-7);
    }

    #[test]
    fn error_function() {
        for (x, expected) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (-1.0, -0.842_700_792_949_714_9),
            (3.0, 0.999_977_909_503_001_4),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - expected).abs() < 1e-13, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    #[should_panic(expected = "entry 1")]
    fn assert_close_fails() {
        assert_close(&[1.0, 2.0], &[1.0, 2.1], 1e-3);
    }
}
