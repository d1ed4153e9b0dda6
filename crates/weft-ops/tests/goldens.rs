//! Each operation of the CPU backend, forward and backward, against PyTorch's own (`goldens/ops/make.py`), in `f64` and in `f32`.
//!
//! A deviation is the greatest difference over the greatest value, 1 at least.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;
use weft_core::{Activation, Optimizer};
use weft_ops::backend::{
    Attention, Backend, Batch, BatchNorm, Columns, Cpu, ImageSizes, Linear, Norm, NormKind, OptimizerStep, Real, Slot,
};
use weft_ops::kernels::{ConvShape, PoolShape, Pooling};

/// Tensors of an operation, by name.
type Case = BTreeMap<String, Vec<f64>>;

fn cases() -> &'static BTreeMap<String, Case> {
    static CASES: OnceLock<BTreeMap<String, Case>> = OnceLock::new();
    CASES.get_or_init(|| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/ops/ops.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    })
}

/// One operation's tensors in one precision.
struct Golden<T> {
    name: String,
    case: &'static Case,
    cpu: Cpu<T>,
    tolerance: f64,
}

impl<T: Real> Golden<T> {
    fn new(name: &str) -> Self {
        let tolerance = if size_of::<T>() == 8 { 1e-12 } else { 1e-5 };
        Self { name: name.to_owned(), case: &cases()[name], cpu: Cpu::new(), tolerance }
    }

    fn get(&self, tensor: &str) -> Vec<T> {
        self.case[tensor].iter().map(|&v| T::from_f64(v)).collect()
    }

    /// Tensors `[n, …]` laid out as the parameters of `n` networks, one behind the other in each, and where each starts.
    fn parameters(&self, n: usize, prefix: &str, tensors: &[&str]) -> (Vec<T>, Vec<usize>) {
        let tensors: Vec<Vec<T>> = tensors.iter().map(|tensor| self.get(&format!("{prefix}{tensor}"))).collect();
        let mut starts = vec![0];
        for tensor in &tensors {
            starts.push(starts[starts.len() - 1] + tensor.len() / n);
        }
        let of = |i: usize| tensors.iter().flat_map(move |t| t[i * t.len() / n..(i + 1) * t.len() / n].iter().copied());
        ((0..n).flat_map(of).collect(), starts)
    }

    fn check(&self, tensor: &str, got: &[T]) {
        self.compare(tensor, got, &self.case[tensor]);
    }

    fn compare(&self, tensor: &str, got: &[T], expected: &[f64]) {
        assert_eq!(got.len(), expected.len(), "{} {tensor}", self.name);
        let greatest = expected.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            let apart = (got.to_f64() - expected).abs() / greatest;
            assert!(apart <= self.tolerance, "{} {tensor}, value {i}: {got:?}, not {expected}: {apart:e}", self.name);
        }
    }

    /// Parameters' gradients, which are laid out as the parameters are.
    fn check_parameters(&self, n: usize, tensors: &[&str], got: &[T]) {
        let (expected, _) = self.parameters(n, "grad_", tensors);
        self.compare("parameters", got, &expected.iter().map(|v| v.to_f64()).collect::<Vec<_>>());
    }
}

fn linear<T: Real>() {
    for (name, shared) in [("linear", false), ("linear-shared", true)] {
        let g = Golden::<T>::new(name);
        let (theta, starts) = g.parameters(3, "", &["weight", "bias"]);
        let map = Linear { weight: 0, bias: Some(starts[1]), inputs: 5, outputs: 6, input_major: false };
        let batch = Batch { networks: 3, rows: 4, stride: starts[2], shared };
        let x = g.get("x");
        g.check("y", &g.cpu.linear(&map, batch, &x, &theta).unwrap());
        let mut gradient = g.cpu.zeros(theta.len()).unwrap();
        let dx = g.cpu.linear_backward((&map, true), batch, &x, &theta, &g.get("w"), &mut gradient).unwrap().unwrap();
        g.check_parameters(3, &["weight", "bias"], &gradient);
        if shared {
            let sum = |i: usize| dx.iter().skip(i).step_by(x.len()).copied().sum();
            g.check("grad_x", &(0..x.len()).map(sum).collect::<Vec<T>>());
        } else {
            g.check("grad_x", &dx);
        }
    }
}

fn activations<T: Real>() {
    for activation in Activation::ALL {
        let g = Golden::<T>::new(&format!("activation-{}", activation.name()));
        g.check("y", &g.cpu.activate(activation, &g.get("x")).unwrap());
        let mut d = g.cpu.from_slice(&g.get("w"));
        g.cpu.activate_backward(activation, &g.get("x"), &mut d).unwrap();
        g.check("grad_x", &d);
        let identity = Linear { weight: 0, bias: None, inputs: 1, outputs: 1, input_major: false };
        let activated = g.cpu.linear_activated((&identity, activation), Batch::one(60), &g.get("x"), &[T::ONE]).unwrap();
        g.check("x", &activated.0);
        g.check("y", &activated.1);
        let g = Golden::<T>::new(&format!("gated-{}", activation.name()));
        g.check("y", &g.cpu.gated(activation, 6, &g.get("x")).unwrap());
        g.check("grad_x", &g.cpu.gated_backward(activation, 6, &g.get("x"), &g.get("w")).unwrap());
    }
}

fn gates<T: Real>() {
    let g = Golden::<T>::new("gate");
    let (theta, starts) = g.parameters(1, "", &["weight", "bias"]);
    let map = Linear { weight: 0, bias: Some(starts[1]), inputs: 3, outputs: 4, input_major: false };
    let columns = Columns { columns: 4, first: 0, rows_per_group: 3 };
    let (x, gate, w) = (g.get("x"), g.get("gate"), g.get("w"));
    let (y, branch) = g.cpu.linear_residual((&map, 6), &x, &theta, &g.get("residual"), Some((&gate, columns))).unwrap();
    g.check("y", &y);
    g.check("grad_residual", &w);
    let mut d_gate = g.cpu.zeros(8).unwrap();
    let d_branch = g.cpu.gate_backward((columns, 4), &w, &branch.unwrap(), &gate, &mut d_gate).unwrap();
    g.check("grad_gate", &d_gate);
    let mut gradient = g.cpu.zeros(theta.len()).unwrap();
    let dx = g.cpu.linear_backward((&map, true), Batch::one(6), &x, &theta, &d_branch, &mut gradient).unwrap().unwrap();
    g.check("grad_x", &dx);
    g.check_parameters(1, &["weight", "bias"], &gradient);
}

fn norms<T: Real>() {
    for (name, kind) in [("norm-layer", NormKind::Layer), ("norm-rms", NormKind::Rms)] {
        let g = Golden::<T>::new(name);
        let (theta, starts) = g.parameters(1, "", &["gain", "bias"]);
        let norm = Norm { kind, width: 10, epsilon: 1e-3, gain: Some(0), bias: Some(starts[1]) };
        let columns = Columns { columns: 20, first: 0, rows_per_group: 3 };
        let (modulation, _) = g.parameters(2, "", &["shift", "scale"]);
        let (x, add) = (g.get("x"), g.get("add"));
        let (y, statistics) = g.cpu.norm(&norm, &x, Some(&add), &theta, Some((&modulation, columns))).unwrap();
        g.check("y", &y);
        let [mut gradient, mut d_modulation, mut dx] =
            [theta.len(), modulation.len(), x.len()].map(|len| g.cpu.zeros(len).unwrap());
        let given = Some((modulation.as_slice(), columns, &mut d_modulation));
        g.cpu.norm_backward(&norm, (&x, Some(&add)), &statistics, &theta, given, &g.get("w"), &mut dx, &mut gradient).unwrap();
        g.check("grad_x", &dx);
        g.check_parameters(1, &["gain", "bias"], &gradient);
        g.check_parameters(2, &["shift", "scale"], &d_modulation);
    }
}

fn attentions<T: Real>() {
    for (name, heads, causal) in [("attention", 2, false), ("attention-causal-grouped", 4, true)] {
        let g = Golden::<T>::new(name);
        let a = Attention { sequences: 2, tokens: 7, heads, kv_heads: 2, head_dim: 4, causal };
        let (y, sums) = g.cpu.attention(&a, &g.get("packed"), None).unwrap();
        g.check("y", &y);
        g.check("grad_packed", &g.cpu.attention_backward(&a, (&g.get("packed"), None), (&y, &sums), &g.get("w")).unwrap());
    }
}

fn losses<T: Real>() {
    let g = Golden::<T>::new("cross-entropy");
    let labels: Vec<u32> = g.case["labels"].iter().map(|&label| label as u32).collect();
    let (y, d) = g.cpu.cross_entropy([3, 5], &g.get("logits"), &labels, None).unwrap();
    g.check("y", &y);
    g.check("grad_logits", &d.iter().zip(0..).map(|(&d, i)| d * g.get("w")[i / 20]).collect::<Vec<_>>());
    let g = Golden::<T>::new("squared-error");
    let weights: Vec<f32> = g.case["weights"].iter().map(|&w| w as f32).collect();
    let (weights, mut total) = (g.cpu.upload_wide(&weights).unwrap(), g.cpu.zeros_wide(1).unwrap());
    let d = g.cpu.squared_error([4, 5], &g.get("x"), &g.get("targets"), Some(&weights), &mut total).unwrap();
    g.check("y", &total);
    g.check("grad_x", &d.iter().map(|&d| d * g.get("w")[0]).collect::<Vec<_>>());
}

fn batch_norms<T: Real>() {
    for (name, training) in [("batch-norm-training", true), ("batch-norm-running", false)] {
        let g = Golden::<T>::new(name);
        let tensors = ["gain", "bias", "mean", "variance"];
        let (theta, s) = g.parameters(2, "", &tensors);
        let norm = BatchNorm { width: 3, epsilon: 1e-3, gain: s[0], bias: s[1], mean: s[2], variance: s[3] };
        let batch = Batch { networks: 2, rows: 8, stride: s[4], shared: false };
        let x = g.get("x");
        let (y, statistics, moved) = g.cpu.batch_norm(&norm, batch, &x, &theta, training).unwrap();
        g.check("y", &y);
        let mut gradient = g.cpu.zeros(theta.len()).unwrap();
        let dx = g.cpu.batch_norm_backward(&norm, batch, &x, &statistics, &theta, training, &g.get("w"), &mut gradient).unwrap();
        g.check("grad_x", &dx);
        if let Some(moved) = moved {
            // The momentum is a constant in `f32`.
            Golden { tolerance: g.tolerance.max(1e-8), ..Golden::new(name) }.check("moved", &moved);
            let affine: Vec<T> = gradient.chunks_exact(s[4]).flat_map(|network| network[..s[2]].to_vec()).collect();
            g.check_parameters(2, &tensors[..2], &affine);
        } else {
            g.check_parameters(2, &tensors, &gradient);
        }
    }
}

fn images<T: Real>() {
    let g = Golden::<T>::new("patches");
    let shape = ConvShape { channels: [3, 1], size: [5, 4], kernel: [3, 2], stride: [2, 1], padding: [1, 0] };
    g.check("y", &g.cpu.patches(&shape, 2, &g.get("x")).unwrap());
    g.check("grad_x", &g.cpu.patches_backward(&shape, 2, &g.get("w")).unwrap());
    for (name, pooling) in [("pool-max", Pooling::Max), ("pool-average", Pooling::Average)] {
        let g = Golden::<T>::new(name);
        let shape = PoolShape { size: [5, 4], kernel: [2, 3], stride: [2, 1], padding: [1, 1] };
        let sizes = ImageSizes { images: 2, channels: 3 };
        g.check("y", &g.cpu.pool((pooling, &shape), sizes, &g.get("x")).unwrap());
        g.check("grad_x", &g.cpu.pool_backward((pooling, &shape), sizes, &g.get("x"), &g.get("w")).unwrap());
    }
}

fn repeated<T: Real>() {
    let g = Golden::<T>::new("repeated");
    let mut y = g.cpu.from_slice(&g.get("x"));
    g.cpu.add_repeated(&mut y, (&g.get("part"), 0, 12)).unwrap();
    g.check("y", &y);
    let mut d = g.cpu.zeros(12).unwrap();
    g.cpu.add_repeated_backward(&g.get("w"), (0, 12), &mut d).unwrap();
    g.check("grad_part", &d);
}

/// Four steps with clipped gradients, and the moving average.
fn optimizers<T: Real>() {
    for (name, optimizer) in [("sgd", Optimizer::Sgd { momentum: 0.9 }), ("adam", Optimizer::ADAM), ("adamw", Optimizer::ADAMW)] {
        let g = Golden::<T>::new(&format!("optimizer-{name}"));
        let single = |tensor: &str| g.case[tensor].iter().map(|&v| v as f32).collect::<Vec<_>>();
        let mut parameters = g.cpu.parameters(&single("theta"), true).unwrap();
        for (gradient, step) in single("gradients").chunks_exact(9).zip(1..) {
            g.cpu.write(&mut parameters, Slot::Gradient, gradient).unwrap();
            let (learning_rate, clip_norm, average_decay) = (0.05, Some(2.5), 0.75);
            let step = OptimizerStep { optimizer, weight_decay: 0.1, learning_rate, clip_norm, average_decay, step };
            g.cpu.optimizer_step(&mut parameters, &step).unwrap();
        }
        g.check("y", g.cpu.theta(&parameters));
        let average: Vec<f64> = g.cpu.read(&parameters, Slot::Average).unwrap().into_iter().map(f64::from).collect();
        let apart = average.iter().zip(&g.case["average"]).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-5, "{name}: averages {apart} apart");
    }
}

#[test]
fn linear_maps() {
    linear::<f64>();
    linear::<f32>();
}

#[test]
fn activations_and_gated_ones() {
    activations::<f64>();
    activations::<f32>();
}

#[test]
fn gated_branches() {
    gates::<f64>();
    gates::<f32>();
}

#[test]
fn norms_with_modulations() {
    norms::<f64>();
    norms::<f32>();
}

#[test]
fn attention() {
    attentions::<f64>();
    attentions::<f32>();
}

#[test]
fn losses_and_their_gradients() {
    losses::<f64>();
    losses::<f32>();
}

#[test]
fn batch_norms_of_populations() {
    batch_norms::<f64>();
    batch_norms::<f32>();
}

#[test]
fn patches_and_pools() {
    images::<f64>();
    images::<f32>();
}

#[test]
fn repeated_parameters() {
    repeated::<f64>();
    repeated::<f32>();
}

#[test]
fn optimizer_steps() {
    optimizers::<f64>();
    optimizers::<f32>();
}
