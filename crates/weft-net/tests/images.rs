//! Networks of images: the engine against a forward pass in `f64`, its gradients against differences of that, and training.

#![expect(clippy::unwrap_used, reason = "the input is known to be good")]

use std::sync::Arc;
use weft_core::families::{Cnn, ConvLayer, Family, Pool};
use weft_core::{
    Activation, Architecture, Dataset, Duration, GraphBuilder, Inputs, Monitor, Op, Optimizer, Part, Population, Precision, Recipe,
    Schedule, Seed, Window,
};
use weft_net::{Batch, Device, Engine, Error, PopulationLoss, Workspace};
use weft_testkit::{forward_f64, tiny_families};

/// Every op on images that the engine runs, some of them twice: two branches, a skip, norms of images and of vectors.
fn every_op() -> Arc<Architecture> {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![2, 7, 6] });
    let x = graph.conv2d(0, "stem", [5, 2], Window { size: [3, 2], stride: [1, 2], padding: [2, 1] }, true);
    let x = graph.batch_norm(x, "norm", 5);
    let left = graph.activation(x, Activation::Tanh);
    let right = graph.push(Op::Clip { min: -0.7, max: 0.9 }, &[x]);
    let product = graph.push(Op::Mul, &[left, right]);
    let sum = graph.add(product, x);
    let scaled = graph.push(Op::Scale { factor: 1.5 }, &[sum]);
    let pooled = graph.push(Op::AvgPool(Window { size: [3, 2], stride: [2, 1], padding: [1, 1] }), &[scaled]);
    let pooled = graph.push(Op::MaxPool(Window::square(2, 1, 1)), &[pooled]);
    let mean = graph.push(Op::GlobalAvgPool, &[pooled]);
    let normed = graph.batch_norm(mean, "vector_norm", 5);
    let flat = graph.push(Op::Flatten, &[pooled]);
    let width = graph.clone().build("part").unwrap().widths()[flat];
    let wide = graph.linear(flat, "wide", [5, width], false);
    let sum = graph.add(wide, normed);
    let normed = graph.layer_norm(sum, "layer_norm", 5, 1e-3);
    let last = graph.activation(normed, Activation::Silu);
    graph.linear(last, "head", [3, 5], true);
    Arc::new(graph.build("every-op").unwrap())
}

fn runnable() -> Vec<Arc<Architecture>> {
    let mut all: Vec<_> = tiny_families().into_iter().filter(|a| Engine::new(a.clone()).is_ok()).collect();
    all.push(every_op());
    all
}

/// Weights of a plausible size; variances are positive.
fn weights(architecture: &Architecture, seed: Seed) -> Vec<f32> {
    let mut row: Vec<f32> = seed.normals(architecture.num_parameters()).iter().map(|w| 0.4 * w).collect();
    for node in architecture.nodes() {
        if let Op::BatchNorm { gain, variance, .. } = node.op {
            for tensor in [gain, variance] {
                row[architecture.tensors()[tensor].range()].iter_mut().for_each(|v| *v = 0.6 + v.abs());
            }
        }
    }
    row
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

#[test]
fn the_engine_runs_vectors_and_images_and_names_what_it_refuses() {
    let names: Vec<String> = runnable().iter().map(|a| a.name().to_owned()).collect();
    for name in ["mlp-relu", "mlp-gelu", "cnn", "cnn-batch-norm", "resnet", "every-op"] {
        assert!(names.iter().any(|n| n == name), "{name} is not among {names:?}");
    }
    let refused: Vec<String> =
        tiny_families().into_iter().filter_map(|a| Engine::new(a).err()).map(|error| error.to_string()).collect();
    let vit = refused.iter().find(|e| e.contains("`vit`")).unwrap();
    assert!(vit.contains("is `patches`, which the training engine"), "{vit}");
    assert_eq!(refused.len() + names.len(), tiny_families().len() + 1);
}

#[test]
fn logits_equal_the_reference_on_sparse_and_dense_inputs() {
    for architecture in runnable() {
        for (sparse, examples) in [(true, 37), (false, 3), (false, 16)] {
            let mut inputs = Seed::new(1).normals(examples * architecture.num_inputs());
            if sparse {
                inputs.iter_mut().filter(|v| **v < 0.5).for_each(|v| *v = 0.0);
            }
            let row = weights(&architecture, Seed::new(2));
            let population = Population::new(architecture.clone(), row.clone()).unwrap();
            let got = weft_net::logits(&population, &inputs, &weft_net::Device::cpu()).unwrap();
            let expected = forward_f64(&architecture, &wide(&row), &wide(&inputs));
            assert_eq!(got.len(), expected.len());
            for (g, e) in got.iter().zip(&expected) {
                assert!((f64::from(*g) - e).abs() < 1e-4 * (1.0 + e.abs()), "`{}`: {g}, expected {e}", architecture.name());
            }
        }
    }
}

/// `Σ dy·y`, so that its gradient with respect to `y` is `dy`.
fn inner(y: &[f64], dy: &[f32]) -> f64 {
    y.iter().zip(dy).map(|(y, &dy)| y * f64::from(dy)).sum()
}

#[test]
fn gradients_equal_differences_of_the_reference() {
    for architecture in runnable() {
        let engine = Engine::new(architecture.clone()).unwrap();
        let (examples, dim) = (5, architecture.num_parameters());
        let inputs = Seed::new(3).normals(examples * architecture.num_inputs());
        let dy = Seed::new(4).normals(examples * architecture.num_outputs());
        let row = weights(&architecture, Seed::new(5));
        let (mut w, mut gradient, mut d_row) = (vec![0.0; dim], vec![0.0; dim], vec![0.0; dim]);
        engine.engine_from_row(&row, &mut w);
        let mut workspace = Workspace::default();
        let batch = Batch::Dense(&inputs);
        engine.forward(&w, batch, examples, &mut workspace).copy_from_slice(&dy);
        engine.backward(&w, batch, examples, &mut workspace, &mut gradient);
        engine.row_from_engine(&gradient, &mut d_row);
        for at in 0..dim {
            let f = |h: f64| {
                let mut moved = wide(&row);
                moved[at] += h;
                inner(&forward_f64(&architecture, &moved, &wide(&inputs)), &dy)
            };
            let numeric = (f(1e-6) - f(-1e-6)) / 2e-6;
            let close = (f64::from(d_row[at]) - numeric).abs() < 2e-3 * (1.0 + numeric.abs());
            assert!(close, "`{}`, weight {at}: {}, by differences {numeric}", architecture.name(), d_row[at]);
        }
    }
}

/// Two classes of 6×6 images: a bright row or a bright column at a random place.
fn stripes(n: usize) -> Dataset {
    let labels: Vec<u32> = (0..n).map(|i| (i % 2) as u32).collect();
    let places = Seed::new(6).indices(n, 6);
    let noise = Seed::new(7).uniforms(n * 36);
    let values = noise.iter().enumerate().map(|(k, &v)| {
        let (i, row, column) = (k / 36, k % 36 / 6, k % 6);
        let line = if i % 2 == 0 { row } else { column };
        if line == places[i] as usize { 0.6 + 0.4 * v } else { (v - 0.7).max(0.0) }
    });
    Dataset::new("stripes", Inputs::Floats(values.collect()), labels, 2, [n / 2, n / 4]).unwrap()
}

fn cnn(batch_norm: bool) -> Arc<Architecture> {
    let pool = Some(Pool { window: Window::square(2, 2, 0), average: false });
    let family = Family::Cnn(Cnn {
        image: [1, 6, 6],
        layers: vec![
            ConvLayer { out: 4, window: Window::square(3, 1, 1), batch_norm, pool },
            ConvLayer { out: 3, window: Window::square(2, 1, 0), batch_norm, pool: None },
        ],
        hidden: vec![],
        num_classes: 2,
        activation: Activation::Relu,
    });
    Arc::new(family.build("stripes-cnn").unwrap())
}

fn recipe(learning_rate: f64, batch_size: usize, steps: u64) -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAM,
        learning_rate,
        schedule: Schedule::Constant,
        weight_decay: 1e-3,
        batch_size,
        duration: Duration::Steps(steps),
        snapshot_steps: vec![],
        precision: Precision::Single,
    }
}

#[test]
fn training_learns_and_is_independent_of_threads_and_neighbours() {
    let data = stripes(400);
    let seeds: Vec<Seed> = (0..4).map(|i| Seed::new(8).index(i)).collect();
    for architecture in [cnn(false), cnn(true)] {
        let run = |threads: usize, seeds: &[Seed]| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let recipe = recipe(0.01, 25, 300);
            pool.install(|| weft_net::train(&architecture, &data, &recipe, seeds, &Device::cpu(), &Monitor::silent()).unwrap())
        };
        let all = run(2, &seeds);
        assert_eq!(all[2..3], run(1, &seeds[2..3]));
        let rows: Vec<f32> = all.iter().flat_map(|run| run.snapshots[0].row.clone()).collect();
        let population = Population::new(architecture.clone(), rows).unwrap();
        let accuracies = weft_net::accuracies(&population, &data, Part::Test, &weft_net::Device::cpu()).unwrap();
        assert!(accuracies.iter().all(|a| *a > 0.95), "{accuracies:?}");
    }
}

#[test]
fn running_statistics_follow_the_data_and_neither_gradient_nor_decay() {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![1, 6, 6] });
    let x = graph.conv2d(0, "conv", [2, 1], Window::square(1, 1, 0), true);
    let x = graph.batch_norm(x, "norm", 2);
    let x = graph.push(Op::GlobalAvgPool, &[x]);
    graph.linear(x, "head", [2, 2], true);
    let architecture = Arc::new(graph.build("statistics").unwrap());
    let (data, steps) = (stripes(120), 30);
    let seed = Seed::new(9);
    // With the whole training part as one batch and hardly any learning every step sees the same batch statistics.
    let recipe = Recipe { weight_decay: 100.0, optimizer: Optimizer::ADAMW, ..recipe(1e-7, 60, steps) };
    let runs = weft_net::train(&architecture, &data, &recipe, &[seed], &Device::cpu(), &Monitor::silent()).unwrap();
    let row = &runs[0].snapshots[0].row;
    let tensor = |name: &str| {
        let spec = architecture.tensors().iter().find(|t| t.name == name).unwrap();
        &row[spec.range()]
    };
    let pixels = wide(&data.gather(data.range(Part::Train)));
    let n = pixels.len() as f64;
    let mean = pixels.iter().sum::<f64>() / n;
    let variance = pixels.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    let old = 0.9f64.powi(steps as i32);
    for channel in 0..2 {
        let (w, b) = (f64::from(tensor("conv.weight")[channel]), f64::from(tensor("conv.bias")[channel]));
        let expected = [(1.0 - old) * (w * mean + b), old + (1.0 - old) * w * w * variance];
        let got = [tensor("norm.running_mean")[channel], tensor("norm.running_var")[channel]];
        for (got, expected) in got.into_iter().zip(expected) {
            assert!((f64::from(got) - expected).abs() < 1e-4, "channel {channel}: {got}, expected {expected}");
        }
    }
}

#[test]
fn channels_count_as_units_and_padding_does_not() {
    let architecture = cnn(false);
    let mut row = vec![0.0; architecture.num_parameters()];
    // Channel 0 sees bright pixels, channel 1 only darkness (the padding of a block is dark), channels 2 and 3 nothing.
    let weight = architecture.tensors()[0].range();
    let bias = architecture.tensors()[1].range();
    row[weight.start + 4] = 1.0;
    row[weight.start + 9 + 4] = -10.0;
    row[bias.start + 1] = 1.0;
    let population = Population::new(architecture, row).unwrap();
    let active = weft_net::hidden_activity(&population, &[0.5; 36 * 3], &weft_net::Device::cpu()).unwrap();
    assert_eq!(active[0][0], [true, false, false, false]);
    let active = weft_net::hidden_activity(&population, &[0.0; 36 * 3], &weft_net::Device::cpu()).unwrap();
    assert_eq!(active[0][0], [false, true, false, false]);
}

#[test]
fn a_loss_of_generated_rows_matches_its_pieces() {
    let data = stripes(400);
    // A batch norm would take each piece's own statistics.
    let architecture = cnn(false);
    let loss = PopulationLoss::new(architecture.clone(), &data, &Device::cpu()).unwrap();
    let row = weights(&architecture, Seed::new(10));
    let chosen = Seed::new(11).indices(48, loss.num_examples());
    let whole = loss.gradients(&row, &chosen);
    let parts: Vec<_> = chosen.chunks(12).map(|part| loss.gradients(&row, part)).collect();
    let mean = parts.iter().map(|p| p.losses[0]).sum::<f64>() / 4.0;
    assert!((whole.losses[0] - mean).abs() < 1e-6, "{} and {mean}", whole.losses[0]);
    for (at, g) in whole.gradient.iter().enumerate() {
        let mean = parts.iter().map(|p| p.gradient[at]).sum::<f32>() / 4.0;
        assert!((g - mean).abs() < 1e-5, "weight {at}: {g} and {mean}");
    }
}

#[test]
fn grouped_convolutions_are_refused_by_name() {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![2, 4, 4] });
    let weight = graph.tensor("w", &[2, 1, 3, 3]);
    graph.push(Op::Conv2d { weight, bias: None, stride: [1; 2], padding: [0; 2], groups: 2 }, &[0]);
    let error = Engine::new(Arc::new(graph.build("grouped").unwrap())).unwrap_err();
    assert!(matches!(error, Error::Unsupported { node: 1, op: "conv2d", .. }), "{error}");
}
