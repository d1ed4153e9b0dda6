//! Lock step ends where the engine does.

use super::*;
use crate::train::RunResult;
use crate::{Device, Examples, Labelled, PopulationLoss};
use candle_core::{Tensor, Var};
use std::sync::atomic::AtomicBool;
use weft_core::families::{Family, ResNet};
use weft_core::{
    Dataset, Duration, GraphBuilder, Inputs, Monitor, Node, Op, Optimizer, Part, Population, Precision, Recipe, Schedule, Seed,
    Task, Window,
};

const OPTIMIZERS: [Optimizer; 4] = [Optimizer::SGD, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAM, Optimizer::ADAMW];

/// Noisy points of three classes, half of their values zero.
fn dataset() -> Dataset {
    let (n, features, classes) = (150, 10, 3);
    let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
    let values = Seed::new(1).normals(n * features).into_iter().enumerate().map(|(at, noise)| {
        let signal = if (at % features) % classes == (at / features) % classes { 1.0 } else { 0.0 };
        (noise + signal).max(0.0)
    });
    Dataset::new("points", Inputs::Floats(values.collect()), labels, classes, [90, 30]).unwrap()
}

/// A network of images of two channels: padding, a stride, both pools, a sum of two branches.
fn convolutional() -> Architecture {
    let mut graph = GraphBuilder::new(Op::Input { shape: vec![2, 1, 5] });
    let x = graph.conv2d(0, "first", [3, 2], Window { size: [1, 3], stride: [1, 1], padding: [0, 1] }, true);
    let x = graph.push(Op::Activation(Activation::Relu), &[x]);
    let y = graph.conv2d(x, "second", [3, 3], Window { size: [1, 3], stride: [1, 1], padding: [0, 1] }, false);
    let y = graph.batch_norm(y, "norm", 3);
    let x = graph.push(Op::Add, &[x, y]);
    let x = graph.push(Op::Activation(Activation::Tanh), &[x]);
    let x = graph.push(Op::MaxPool(Window { size: [1, 2], stride: [1, 2], padding: [0, 1] }), &[x]);
    let x = graph.push(Op::AvgPool(Window { size: [1, 2], stride: [1, 1], padding: [0, 0] }), &[x]);
    let x = graph.push(Op::Flatten, &[x]);
    graph.linear(x, "head", [3, 6], true);
    graph.build("convolutional").unwrap()
}

/// Basic blocks with batch norm, and a shortcut that is a convolution.
fn blocks() -> Architecture {
    let family = ResNet {
        image: [2, 1, 5],
        stem: Window { size: [1, 3], stride: [1, 1], padding: [0, 1] },
        stem_pool: false,
        widths: vec![3, 4],
        blocks: 1,
        num_classes: 3,
    };
    Family::ResNet(family).build("blocks").unwrap()
}

/// An MLP, a residual network that lacks a bias, and two of images.
fn architectures() -> [Arc<Architecture>; 4] {
    let tensors = [("a", vec![6, 10]), ("a.bias", vec![6]), ("b", vec![6, 6]), ("c", vec![3, 6]), ("c.bias", vec![3])];
    let nodes = vec![
        Node { op: Op::Input { shape: vec![10] }, inputs: vec![] },
        Node { op: Op::Linear { weight: 0, bias: Some(1) }, inputs: vec![0] },
        Node { op: Op::Activation(Activation::Silu), inputs: vec![1] },
        Node { op: Op::Linear { weight: 2, bias: None }, inputs: vec![2] },
        Node { op: Op::Add, inputs: vec![1, 3] },
        Node { op: Op::Linear { weight: 3, bias: Some(4) }, inputs: vec![4] },
    ];
    let tensors = tensors.map(|(name, shape)| (name.to_owned(), shape)).to_vec();
    [
        Arc::new(Architecture::mlp("mlp", &[10, 8, 8, 3], Activation::Relu).unwrap()),
        Arc::new(Architecture::new("residual", tensors, nodes).unwrap()),
        Arc::new(convolutional()),
        Arc::new(blocks()),
    ]
}

fn recipe(optimizer: Optimizer) -> Recipe {
    let adaptive = matches!(optimizer, Optimizer::Adam { .. } | Optimizer::AdamW { .. });
    Recipe {
        optimizer,
        learning_rate: if adaptive { 0.01 } else { 0.1 },
        schedule: Schedule::Cosine { warmup_steps: 4 },
        weight_decay: 0.02,
        batch_size: 16,
        duration: Duration::Steps(20),
        snapshot_steps: vec![1, 7],
        precision: Precision::Single,
    }
}

fn seeds() -> Vec<Seed> {
    (0..3).map(|i| Seed::new(2).index(i)).collect()
}

fn lock_step(architecture: &Arc<Architecture>, recipe: &Recipe, monitor: &Monitor<'_>) -> Result<Vec<RunResult>> {
    let data = dataset();
    let [examples, validation] =
        [Part::Train, Part::Validation].map(|p| Examples::new(architecture, &data, data.range(p)).unwrap());
    train(architecture, ([&examples, &validation], (&data).into()), recipe, &seeds(), (&Device::cpu(), monitor))
}

#[test]
fn lock_step_ends_where_the_engine_does() {
    for (architecture, optimizer) in architectures().iter().flat_map(|a| OPTIMIZERS.map(|o| (a, o))) {
        let recipe = recipe(optimizer);
        let engine = crate::train(architecture, &dataset(), &recipe, &seeds(), &Device::cpu(), &Monitor::silent()).unwrap();
        let lock_step = lock_step(architecture, &recipe, &Monitor::silent()).unwrap();
        assert_eq!(lock_step.len(), 3);
        for (network, (a, b)) in engine.iter().zip(&lock_step).enumerate() {
            let steps = |run: &RunResult| run.snapshots.iter().map(|s| s.step).collect::<Vec<_>>();
            assert_eq!((steps(a), steps(b)), (vec![1, 7, 20], vec![1, 7, 20]));
            for (a, b) in a.snapshots.iter().zip(&b.snapshots) {
                let place = format!("`{}`, {optimizer:?}, network {network}, step {}", architecture.name(), a.step);
                let apart = a.row.iter().zip(&b.row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(apart < 2e-5, "{place}: a weight differs by {apart}");
                assert!((a.train_loss - b.train_loss).abs() < 1e-5, "{place}: {} and {}", a.train_loss, b.train_loss);
                assert!((a.validation.loss - b.validation.loss).abs() < 1e-5, "{place}: validation loss");
                assert!((a.validation.accuracy - b.validation.accuracy).abs() < 1e-9, "{place}: validation accuracy");
            }
            let moved = a.snapshots[2].row.iter().zip(&a.snapshots[0].row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(moved > 0.01, "training hardly moves: {moved}");
        }
    }
}

#[test]
fn each_network_learns_its_own_task_in_lock_step() {
    let sets = [[1u32, 2, 0], [1, 1, 0], [0, 0, 1]];
    let tasks: Vec<Task> = sets.into_iter().map(|outputs| Task::new("task", outputs.to_vec(), 3).unwrap()).collect();
    for architecture in architectures() {
        let (data, recipe) = (dataset(), recipe(Optimizer::ADAM));
        let labelled = Labelled::from((&data, &tasks[..]));
        let silent = Monitor::silent();
        let engine = crate::train(&architecture, labelled, &recipe, &seeds(), &Device::cpu(), &silent).unwrap();
        let parts = [Part::Train, Part::Validation].map(|p| Examples::new(&architecture, &data, data.range(p)).unwrap());
        let lock_step =
            train(&architecture, ([&parts[0], &parts[1]], labelled), &recipe, &seeds(), (&Device::cpu(), &silent)).unwrap();
        let plain = crate::train(&architecture, &data, &recipe, &seeds(), &Device::cpu(), &silent).unwrap();
        for (network, (a, b)) in engine.iter().zip(&lock_step).enumerate() {
            let (a, b) = (&a.snapshots[2], &b.snapshots[2]);
            let place = format!("`{}`, network {network}", architecture.name());
            let apart = a.row.iter().zip(&b.row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 2e-5, "{place}: a weight differs by {apart}");
            assert!((a.validation.accuracy - b.validation.accuracy).abs() < 1e-9, "{place}: validation accuracy");
            assert!((a.validation.loss - b.validation.loss).abs() < 1e-5, "{place}: validation loss");
            assert_ne!(a.row, plain[network].snapshots[2].row, "{place}: the task is not seen");
        }
    }
}

/// The inputs added to what a map makes of them: shared inputs exist once, the map's values once a network.
#[test]
fn a_sum_with_the_inputs_trains_but_is_not_run_on_shared_ones() {
    let tensors = [("a", vec![10, 10]), ("b", vec![3, 10])].map(|(name, shape)| (name.to_owned(), shape)).to_vec();
    let nodes = vec![
        Node { op: Op::Input { shape: vec![10] }, inputs: vec![] },
        Node { op: Op::Linear { weight: 0, bias: None }, inputs: vec![0] },
        Node { op: Op::Add, inputs: vec![0, 1] },
        Node { op: Op::Linear { weight: 1, bias: None }, inputs: vec![2] },
    ];
    let architecture = Arc::new(Architecture::new("skip", tensors, nodes).unwrap());
    assert!(!runs(&architecture) && architectures().iter().all(runs));
    let recipe = recipe(Optimizer::ADAM);
    let engine = crate::train(&architecture, &dataset(), &recipe, &seeds(), &Device::cpu(), &Monitor::silent()).unwrap();
    let lock_step = lock_step(&architecture, &recipe, &Monitor::silent()).unwrap();
    for (a, b) in engine.iter().zip(&lock_step) {
        let apart = a.snapshots[2].row.iter().zip(&b.snapshots[2].row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 2e-5, "a weight differs by {apart}");
    }
}

fn population(architecture: &Arc<Architecture>, n: u64) -> Population {
    let rows = (0..n).flat_map(|i| crate::initial_weights(architecture, Seed::new(5).index(i))).collect();
    Population::new(architecture.clone(), rows).unwrap()
}

#[test]
fn outputs_in_lock_step_are_the_engine_s() {
    for architecture in architectures() {
        let networks = population(&architecture, 4);
        let inputs = Seed::new(6).normals(7 * 10);
        let expected = crate::logits(&networks, &inputs, &Device::cpu()).unwrap();
        let mut got = vec![f32::NAN; expected.len()];
        logits(&networks, &Examples::unlabelled(&inputs, 10), &Device::cpu(), |[network, example], z, rows| {
            for (n, z) in z.chunks_exact(rows * 3).enumerate() {
                got[(network + n) * 21 + example * 3..][..z.len()].copy_from_slice(z);
            }
        })
        .unwrap();
        let apart = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "`{}`: {apart}", architecture.name());
    }
}

#[test]
fn active_units_in_lock_step_are_the_engine_s() {
    for architecture in architectures() {
        let networks = population(&architecture, 4);
        let inputs = Seed::new(6).normals(2 * 10);
        let expected = crate::hidden_activity(&networks, &inputs, &Device::cpu()).unwrap();
        let got = activity(&networks, &Examples::unlabelled(&inputs, 10), &Device::cpu()).unwrap();
        assert_eq!(got, expected, "`{}`", architecture.name());
        assert!(architecture.name() != "mlp" || expected.iter().flatten().flatten().any(|&on| !on));
    }
}

#[test]
fn gradients_of_weights_are_the_engine_s() {
    for architecture in architectures() {
        let networks = population(&architecture, 3);
        let dim = architecture.num_parameters();
        let loss = PopulationLoss::new(architecture.clone(), &dataset(), &Device::cpu()).unwrap();
        let chosen: Vec<u32> = (0..3 * 8).collect();
        let rows = Var::from_tensor(&Tensor::from_slice(networks.data(), (3, dim), &candle_core::Device::Cpu).unwrap()).unwrap();
        let x: Vec<f32> = {
            let data = dataset();
            let examples = Examples::new(&architecture, &data, data.range(Part::Train)).unwrap();
            examples.to_dense()[..24 * 10].to_vec()
        };
        let x = Tensor::from_vec(x, (24, 10), &candle_core::Device::Cpu).unwrap();
        // The loss of a population is that of its training form.
        let network = LockStep::new(&architecture, 3, false).unwrap().training();
        let weights = Tensor::from_vec(Seed::new(7).normals(72), (24, 3), &candle_core::Device::Cpu).unwrap();
        let gradient = |z: Tensor| {
            let z = z.reshape((24, 3)).unwrap();
            let store = (z * &weights).unwrap().sum_all().unwrap().backward().unwrap();
            store.get(&rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let expected = gradient(loss.logits(&rows, &chosen).unwrap());
        let got = gradient(weft_ops::tensor::run_on_weights(&network, &x, &rows).unwrap());
        let apart = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-4, "`{}`: {apart}", architecture.name());
        assert!(expected.iter().any(|g| g.abs() > 0.1));
    }
}

#[test]
fn lock_step_refuses_other_ops_by_name() {
    let nodes = vec![
        Node { op: Op::Input { shape: vec![10] }, inputs: vec![] },
        Node { op: Op::Clip { min: 0.0, max: 1.0 }, inputs: vec![0] },
        Node { op: Op::Linear { weight: 0, bias: None }, inputs: vec![1] },
    ];
    let architecture = Arc::new(Architecture::new("clipped", vec![("a".to_owned(), vec![3, 10])], nodes).unwrap());
    let error = lock_step(&architecture, &recipe(Optimizer::SGD), &Monitor::silent()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { node: 1, op: "clip", .. }), "{error}");
    assert!(error.to_string().contains("the lock step of a GPU"), "{error}");
}

#[test]
fn lock_step_stops_when_asked_and_names_divergence() {
    let [mlp, ..] = architectures();
    let stop = AtomicBool::new(true);
    let error = lock_step(&mlp, &recipe(Optimizer::SGD), &Monitor::new(&|_| {}, &stop)).unwrap_err();
    assert!(matches!(error, Error::Interrupted), "{error}");
    let wild = Recipe { learning_rate: 1e30, ..recipe(Optimizer::SGD) };
    let error = lock_step(&mlp, &wild, &Monitor::silent()).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
}

#[test]
fn half_precision_needs_a_gpu() {
    let [mlp, ..] = architectures();
    let half = Recipe { precision: Precision::Bfloat16, ..recipe(Optimizer::SGD) };
    let error = crate::train(&mlp, &dataset(), &half, &seeds(), &Device::cpu(), &Monitor::silent()).unwrap_err();
    assert!(matches!(error, Error::Ops(weft_ops::Error::Device { .. })), "{error}");
    assert!(error.to_string().contains("take a GPU for bf16"), "{error}");
}
