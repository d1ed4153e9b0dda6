//! What the data cannot see of convolutional networks: dead channels, and copies that differ by them alone.

#![expect(clippy::unwrap_used, reason = "the input is known to be good")]

use std::sync::Arc;
use weft_core::{Activation, Architecture, Dataset, GraphBuilder, Inputs, Op, Population, Seed, Window};
use weft_eval::{Projection, null_copies};

const SIDE: usize = 6;

/// Convolution, batch norm where asked for, pool, ReLU; another convolution; flattened into a linear map.
fn cnn(batch_norm: bool) -> Arc<Architecture> {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![1, SIDE, SIDE] });
    let mut x = graph.conv2d(0, "a", [4, 1], Window::square(3, 1, 1), !batch_norm);
    if batch_norm {
        x = graph.batch_norm(x, "norm", 4);
    }
    let x = graph.push(Op::MaxPool(Window::square(2, 2, 0)), &[x]);
    let x = graph.activation(x, Activation::Relu);
    let x = graph.conv2d(x, "b", [3, 4], Window::square(2, 1, 0), true);
    let x = graph.activation(x, Activation::Relu);
    let x = graph.push(Op::Flatten, &[x]);
    graph.linear(x, "head", [3, 12], true);
    Arc::new(graph.build("cnn").unwrap())
}

fn tensor(architecture: &Architecture, name: &str) -> std::ops::Range<usize> {
    architecture.tensors().iter().find(|t| t.name == name).unwrap().range()
}

/// Random networks whose channel 1 of the first and channel 2 of the second convolution never are active.
fn networks(architecture: &Arc<Architecture>, n: usize) -> Population {
    let mut data = Seed::new(1).normals(n * architecture.num_parameters());
    let bias = if architecture.tensors().iter().any(|t| t.name == "a.bias") { "a.bias" } else { "norm.bias" };
    for row in data.chunks_exact_mut(architecture.num_parameters()) {
        row[tensor(architecture, bias)][1] = -500.0;
        row[tensor(architecture, "b.bias")][2] = -500.0;
        for name in ["norm.running_var", "norm.weight"] {
            if architecture.tensors().iter().any(|t| t.name == name) {
                row[tensor(architecture, name)].iter_mut().for_each(|v| *v = 0.5 + v.abs());
            }
        }
    }
    Population::new(architecture.clone(), data).unwrap()
}

/// Images with a border that never varies.
fn dataset() -> Dataset {
    let examples = 80;
    let mut inputs = Seed::new(2).uniforms(examples * SIDE * SIDE);
    inputs.chunks_exact_mut(SIDE).step_by(SIDE).for_each(|row| row.fill(0.0));
    Dataset::new("images", Inputs::Floats(inputs), Seed::new(3).indices(examples, 3), 3, [40, 20]).unwrap()
}

/// The logits on the training images, centered over the classes.
fn functions(networks: &Population, data: &Dataset) -> Vec<f32> {
    let mut z = weft_net::logits(networks, &data.gather(0..40), &weft_net::Device::cpu()).unwrap();
    for row in z.chunks_exact_mut(3) {
        let mean = row.iter().sum::<f32>() / 3.0;
        for v in row {
            *v -= mean;
        }
    }
    z
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs() / (1.0 + b.abs())).fold(0.0, f32::max)
}

#[test]
fn dead_channels_are_found_and_removed_without_a_trace() {
    for batch_norm in [false, true] {
        let (architecture, data) = (cnn(batch_norm), dataset());
        let raw = networks(&architecture, 6);
        let projection = Projection::new(&architecture, (&data, &weft_net::Device::cpu()), 40);
        // A convolution sees every pixel with the same weights: no input is dead to it.
        assert!(projection.dead_inputs().is_empty());
        let dead = projection.dead_units(&raw).unwrap();
        assert!(dead.iter().all(|d| d.contains(&(0, 1)) && d.contains(&(1, 2))), "{dead:?}");
        let mut projected = raw.clone();
        projection.project(&mut projected).unwrap();
        let apart = largest_difference(&functions(&projected, &data), &functions(&raw, &data));
        assert!(apart < 1e-4, "the function changed by {apart}");
        let mut kept = [0.0; 2];
        for row in projected.rows() {
            let channel = |name: &str, outputs: usize, inputs: usize, unit: usize, block: usize| -> f32 {
                let values = &row[tensor(&architecture, name)];
                (0..outputs).flat_map(|o| &values[(o * inputs + unit) * block..][..block]).map(|v| v.abs()).sum()
            };
            assert!(row[tensor(&architecture, "a.weight")][9..18].iter().all(|w| *w == 0.0));
            assert!(channel("b.weight", 3, 4, 1, 4) == 0.0 && channel("head.weight", 3, 3, 2, 4) == 0.0);
            kept[0] += channel("b.weight", 3, 4, 0, 4);
            kept[1] += channel("head.weight", 3, 3, 0, 4);
        }
        assert!(kept.iter().all(|k| *k > 0.0), "live channels are gone too: {kept:?}");
    }
}

#[test]
fn null_copies_differ_and_project_to_their_originals() {
    for batch_norm in [false, true] {
        let (architecture, data) = (cnn(batch_norm), dataset());
        let mut original = networks(&architecture, 1);
        let projection = Projection::new(&architecture, (&data, &weft_net::Device::cpu()), 40);
        let mut copies = null_copies(&projection, &original, 5, Seed::new(4)).unwrap();
        let function = functions(&original, &data).repeat(5);
        let apart = largest_difference(&functions(&copies, &data), &function);
        assert!(apart < 1e-4, "the function changed by {apart}");
        assert!(copies.rows().all(|copy| largest_difference(copy, original.row(0)) > 0.1), "a copy is no copy but the original");
        projection.project(&mut copies).unwrap();
        projection.project(&mut original).unwrap();
        let farthest = copies.rows().map(|copy| largest_difference(copy, original.row(0))).fold(0.0, f32::max);
        assert!(farthest < 1e-5, "a copy projects to another network: {farthest}");
    }
}
