//! The CPU engine against candle's own differentiable operations, and training as a whole.

use candle_core::{Tensor, Var};
use proptest::prelude::*;
use std::sync::Arc;
use weft_core::{
    Activation, Architecture, Dataset, Duration, Inputs, Monitor, Node, Op, Optimizer, Part, Population, Precision, Recipe,
    Schedule, Seed,
};
use weft_net::{Device, PopulationLoss};

/// Two noisy classes of points, mostly zero so that the sparse path is taken, or dense.
fn dataset(features: usize, classes: usize, sparse: bool) -> Dataset {
    let n = 240;
    let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
    let noise = Seed::new(11).normals(n * features);
    let values: Vec<f32> = noise
        .iter()
        .enumerate()
        .map(|(k, &v)| {
            let (i, f) = (k / features, k % features);
            let signal = if f % classes == i % classes { 1.5 } else { 0.0 };
            if sparse && v < 0.5 && signal == 0.0 { 0.0 } else { v * 0.5 + signal }
        })
        .collect();
    Dataset::new("points", Inputs::Floats(values), labels, classes, [160, 40]).expect("240 examples make up three parts")
}

/// A residual network: input → 5 → (tanh → 5) + skip → 3, with a bias missing.
fn residual(features: usize, classes: usize, activation: Activation) -> Arc<Architecture> {
    let tensors = [
        ("a.weight", vec![5, features]),
        ("a.bias", vec![5]),
        ("b.weight", vec![5, 5]),
        ("c.weight", vec![classes, 5]),
        ("c.bias", vec![classes]),
    ];
    let tensors = tensors.map(|(n, s)| (n.to_owned(), s)).to_vec();
    let node = |op, inputs| Node { op, inputs };
    let nodes = vec![
        node(Op::Input { shape: vec![features] }, vec![]),
        node(Op::Linear { weight: 0, bias: Some(1) }, vec![0]),
        node(Op::Activation(activation), vec![1]),
        node(Op::Linear { weight: 2, bias: None }, vec![2]),
        node(Op::Add, vec![1, 3]),
        node(Op::Linear { weight: 3, bias: Some(4) }, vec![4]),
    ];
    Arc::new(Architecture::new("residual", tensors, nodes).expect("the shapes fit"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn gradients_match_differences(seed in 0u64..1000, sparse: bool, which in 0usize..4) {
        let (features, classes) = (7, 3);
        let arch = match which {
            0 => Arc::new(Architecture::mlp("m", &[features, 6, 4, classes], Activation::Tanh).unwrap()),
            1 => Arc::new(Architecture::mlp("m", &[features, 17, classes], Activation::Silu).unwrap()),
            2 => residual(features, classes, Activation::Gelu),
            _ => residual(features, classes, Activation::Sigmoid),
        };
        let data = dataset(features, classes, sparse);
        let loss = PopulationLoss::new(arch.clone(), &data, &Device::cpu()).unwrap();
        let n = 2;
        let rows: Vec<f32> = Seed::new(seed).normals(n * arch.num_parameters()).iter().map(|w| w * 0.4).collect();
        let chosen = Seed::new(seed).fork("chosen").indices(n * 10, loss.num_examples());
        let g = loss.gradients(&rows, &chosen);
        for i in Seed::new(seed).fork("probe").indices(30, rows.len()) {
            let i = i as usize;
            let at = |h: f32| {
                let mut r = rows.clone();
                r[i] += h;
                loss.gradients(&r, &chosen).losses[i / arch.num_parameters()]
            };
            let numeric = (at(1e-2) - at(-1e-2)) / 2e-2;
            prop_assert!((f64::from(g.gradient[i]) - numeric).abs() < 2e-3, "weight {}: {} and {}", i, g.gradient[i], numeric);
        }
    }
}

#[test]
fn differentiable_losses_agree_with_the_engine() {
    let data = dataset(7, 3, true);
    let arch = residual(7, 3, Activation::Relu);
    let loss = PopulationLoss::new(arch.clone(), &data, &Device::cpu()).unwrap();
    let n = 3;
    let values = Seed::new(5).normals(n * arch.num_parameters());
    let chosen = Seed::new(6).indices(n * 8, loss.num_examples());
    let rows =
        Var::from_tensor(&Tensor::from_slice(&values, (n, arch.num_parameters()), &candle_core::Device::Cpu).unwrap()).unwrap();
    let expected = loss.gradients(&values, &chosen);
    let fused = loss.cross_entropy(&rows, &chosen).unwrap();
    let gradient =
        fused.sum_all().unwrap().backward().unwrap().get(&rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(gradient, expected.gradient);
    // The same through logits: CE written with candle's operations.
    let z = loss.logits(&rows, &chosen).unwrap();
    let labels = Tensor::new(loss.labels(&chosen), z.device()).unwrap().reshape((n, 8, 1)).unwrap();
    let log_sum = z.exp().unwrap().sum(2).unwrap().log().unwrap();
    let ce = (log_sum - z.gather(&labels, 2).unwrap().squeeze(2).unwrap()).unwrap().mean(1).unwrap();
    let through = ce.sum_all().unwrap().backward().unwrap().get(&rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (a, b) in gradient.iter().zip(&through) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

fn recipe(optimizer: Optimizer) -> Recipe {
    Recipe {
        optimizer,
        learning_rate: 0.02,
        schedule: Schedule::Cosine { warmup_steps: 5 },
        weight_decay: 1e-3,
        batch_size: 16,
        duration: Duration::Epochs(12),
        snapshot_steps: vec![1, 40],
        precision: Precision::Single,
    }
}

#[test]
fn training_learns_and_is_independent_of_threads_and_neighbours() {
    let data = dataset(20, 4, true);
    let arch = Arc::new(Architecture::mlp("m", &[20, 16, 4], Activation::Relu).unwrap());
    let seeds: Vec<Seed> = (0..6).map(|i| Seed::new(3).index(i)).collect();
    let run = |threads: usize, seeds: &[Seed]| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| weft_net::train(&arch, &data, &recipe(Optimizer::ADAM), seeds, &Device::cpu(), &Monitor::silent()).unwrap())
    };
    let all = run(2, &seeds);
    assert_eq!(all, run(1, &seeds));
    assert_eq!(all[4..5], run(1, &seeds[4..5]));
    for result in &all {
        let steps: Vec<u64> = result.snapshots.iter().map(|s| s.step).collect();
        assert_eq!(steps, [1, 40, 120]);
        assert!(result.snapshots[2].validation.accuracy > 0.9, "{:?}", result.snapshots[2].validation);
        assert!(result.snapshots[2].train_loss < result.snapshots[0].train_loss);
    }
    assert_ne!(all[0].snapshots[2].row, all[1].snapshots[2].row);
    let rows: Vec<f32> = all.iter().flat_map(|r| r.snapshots[2].row.clone()).collect();
    let population = Population::new(arch.clone(), rows).unwrap();
    let accuracies = weft_net::accuracies(&population, &data, Part::Validation, &weft_net::Device::cpu()).unwrap();
    assert_eq!(accuracies, all.iter().map(|r| r.snapshots[2].validation.accuracy).collect::<Vec<_>>());
}

#[test]
fn scores_agree_with_logits_and_predictions() {
    let data = dataset(9, 3, false);
    let arch = Arc::new(Architecture::mlp("m", &[9, 5, 3], Activation::Relu).unwrap());
    let population = Population::new(arch.clone(), Seed::new(2).normals(4 * arch.num_parameters())).unwrap();
    let z = weft_net::logits(&population, &data.gather(data.range(Part::Test)), &weft_net::Device::cpu()).unwrap();
    let predictions = weft_net::predictions(&population, &data, Part::Test, &weft_net::Device::cpu()).unwrap();
    let labels = data.labels(Part::Test);
    let scores = weft_net::scores(&population, &data, Part::Test, &weft_net::Device::cpu()).unwrap();
    for (network, scores) in scores.iter().enumerate() {
        let mut correct = 0;
        for (e, &label) in labels.iter().enumerate() {
            let row = &z[(network * labels.len() + e) * 3..][..3];
            let best = (0..3).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as u32;
            assert_eq!(best, predictions[network * labels.len() + e]);
            correct += usize::from(best == label);
        }
        assert!((scores.accuracy - correct as f64 / labels.len() as f64).abs() < 1e-12);
    }
}

#[test]
fn misfits_and_divergence_are_named() {
    let data = dataset(9, 3, false);
    let arch = Arc::new(Architecture::mlp("m", &[8, 5, 3], Activation::Relu).unwrap());
    let error =
        weft_net::train(&arch, &data, &recipe(Optimizer::SGD), &[Seed::new(1)], &Device::cpu(), &Monitor::silent()).unwrap_err();
    assert!(error.to_string().contains("maps 8 inputs"), "{error}");
    let arch = Arc::new(Architecture::mlp("m", &[9, 5, 3], Activation::Relu).unwrap());
    let wild = Recipe { learning_rate: 1e30, ..recipe(Optimizer::SGD) };
    let error = weft_net::train(&arch, &data, &wild, &[Seed::new(1)], &Device::cpu(), &Monitor::silent()).unwrap_err();
    assert!(error.to_string().contains("diverged"), "{error}");
    assert!(Device::open("tpu").unwrap_err().to_string().contains("`tpu` is not a device"));
}

/// A network without hidden units whose outputs are its two inputs.
fn mirror() -> (Arc<Architecture>, Vec<f32>) {
    let arch = Architecture::mlp("mirror", &[2, 2], Activation::Relu).expect("two widths make a network");
    (Arc::new(arch), vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0])
}

#[test]
fn inputs_between_examples_lie_on_segments() {
    let (arch, row) = mirror();
    let data = dataset(2, 2, false);
    let loss = PopulationLoss::new(arch, &data, &Device::cpu()).unwrap();
    let draw = |seed: u64| {
        let between = loss.between_examples(50, Seed::new(seed)).unwrap();
        assert_eq!(between.num_examples(), 50);
        let rows = Tensor::from_slice(&row, (1, 6), &candle_core::Device::Cpu).unwrap();
        let all: Vec<u32> = (0..50).collect();
        between.logits(&rows, &all).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let inputs = draw(1);
    assert_eq!(inputs, draw(1));
    assert_ne!(inputs, draw(2));
    let train = data.gather(data.range(Part::Train));
    let on_a_segment = |x: &[f32]| {
        train.chunks_exact(2).any(|a| {
            train.chunks_exact(2).any(|b| {
                let [to_x, to_b] = [[x[0] - a[0], x[1] - a[1]], [b[0] - a[0], b[1] - a[1]]];
                let inside = to_x[0] * to_b[0] + to_x[1] * to_b[1] >= -1e-6;
                inside
                    && (to_x[0] * to_b[1] - to_x[1] * to_b[0]).abs() < 1e-5
                    && to_x[0].hypot(to_x[1]) <= to_b[0].hypot(to_b[1]) + 1e-5
            })
        })
    };
    assert!(inputs.chunks_exact(2).all(on_a_segment));
    let copies = inputs.chunks_exact(2).filter(|x| train.chunks_exact(2).any(|t| t == *x)).count();
    assert!(copies < 5, "{copies} of 50 inputs are training examples");
}

#[test]
fn an_ensemble_is_the_mean_of_centred_logits() {
    let data = dataset(9, 3, true);
    let arch = Arc::new(Architecture::mlp("m", &[9, 5, 3], Activation::Relu).unwrap());
    let loss = PopulationLoss::new(arch.clone(), &data, &Device::cpu()).unwrap();
    let networks = Population::new(arch.clone(), Seed::new(2).normals(6 * arch.num_parameters())).unwrap();
    let (n, examples) = (networks.len(), loss.num_examples());
    let mut z: Vec<f64> = weft_net::logits(&networks, &data.gather(data.range(Part::Train)), &weft_net::Device::cpu())
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect();
    for row in z.chunks_exact_mut(3) {
        let mean = row.iter().sum::<f64>() / 3.0;
        for v in row {
            *v -= mean;
        }
    }
    let mean: Vec<f64> = (0..examples * 3).map(|k| (0..n).map(|i| z[i * examples * 3 + k]).sum::<f64>() / n as f64).collect();
    let squares: f64 = z.iter().enumerate().map(|(k, v)| (v - mean[k % (examples * 3)]).powi(2)).sum();
    let ensemble = loss.ensemble(&networks);
    for (got, expected) in ensemble.mean.iter().zip(&mean) {
        assert!((f64::from(*got) - expected).abs() < 1e-5, "{got} {expected}");
    }
    let spread = squares / (n * examples) as f64;
    assert!((ensemble.spread / spread - 1.0).abs() < 1e-4, "{} {spread}", ensemble.spread);
    assert!(loss.ensemble(&networks.select(&[0])).spread.abs() < 1e-4, "one network does not stray from itself");
}

#[test]
fn units_that_never_fire_are_found() {
    let arch = Arc::new(Architecture::mlp("m", &[2, 3, 2], Activation::Relu).unwrap());
    // Units: x₀ − 10 (never on inputs below 10), x₁, and −x₁.
    let row = vec![1., 0., 0., 1., 0., -1., -10., 0., 0., 1., 1., 1., 1., 1., 1., 0., 0.];
    let population = Population::new(arch, [row.clone(), row].concat()).unwrap();
    let active = weft_net::hidden_activity(&population, &[1.0, 2.0, 3.0, 0.5], &weft_net::Device::cpu()).unwrap();
    assert_eq!(active, vec![vec![vec![false, true, false]]; 2]);
    let active = weft_net::hidden_activity(&population, &[11.0, 2.0, 3.0, -0.5], &weft_net::Device::cpu()).unwrap();
    assert_eq!(active, vec![vec![vec![true, true, true]]; 2]);
}
