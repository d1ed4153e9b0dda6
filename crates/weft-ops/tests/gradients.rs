//! Gradients of every operation and network against central differences in `f64`, and single against double precision.

#[path = "gradients/adapters.rs"]
mod adapters;

use candle_core::{DType, Device, Tensor, Var};
use weft_core::{Activation, Seed};
use weft_ops::backend::{Attention, Backend, Batch, BatchNorm, Columns, Cpu, Linear, Norm, NormKind, Slot};
use weft_ops::tensor::{
    Lesson, Network, Parameters, Precision, ResidualMlp, ResidualMlpConfig, Transformer, TransformerConfig, regress, run,
};

fn draws(seed: u64, len: usize) -> Vec<f64> {
    Seed::new(seed).normals(len).into_iter().map(f64::from).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Compares a gradient with central differences of `f` around `x`, value by value.
fn check(name: &str, x: &[f64], gradient: &[f64], f: impl Fn(&[f64]) -> f64) {
    assert_eq!(x.len(), gradient.len(), "{name}");
    let scale = gradient.iter().fold(1e-3f64, |m, g| m.max(g.abs()));
    let step = 1e-5;
    // Of a long vector, some values all over it.
    for i in (0..x.len()).step_by(x.len().div_ceil(150)) {
        let at = |d: f64| {
            let mut x = x.to_vec();
            x[i] += d;
            f(&x)
        };
        let numeric = (at(step) - at(-step)) / (2.0 * step);
        assert!(
            (numeric - gradient[i]).abs() < 1e-7 * scale.max(1.0),
            "{name}, value {i}: {} by hand, {numeric} by differences",
            gradient[i]
        );
    }
    assert!(gradient.iter().any(|g| g.abs() > 1e-6), "{name}: the gradient is 0");
}

#[test]
fn linear_maps_of_populations() {
    let cpu = Cpu::<f64>::new();
    for (networks, shared, bias, input_major) in
        [(1, false, true, false), (1, false, false, true), (3, false, true, false), (3, true, true, false), (2, true, true, true)]
    {
        let map = Linear { weight: 2, bias: bias.then_some(25), inputs: 5, outputs: 4, input_major };
        let batch = Batch { networks, rows: 7, stride: 30, shared };
        let name = format!("{map:?}, {batch:?}");
        let theta = draws(1, networks * 30);
        let x = draws(2, if shared { 35 } else { networks * 35 });
        let w = draws(3, networks * 28);
        let f = |x: &[f64], theta: &[f64]| dot(&cpu.linear(&map, batch, x, theta).unwrap(), &w);
        let mut d_theta = cpu.zeros(theta.len()).unwrap();
        let dx = cpu.linear_backward((&map, true), batch, &x, &theta, &w, &mut d_theta).unwrap().unwrap();
        check(&name, &theta, &d_theta, |theta| f(&x, theta));
        let mut of_rows = dx.to_vec();
        if shared {
            of_rows = (0..35).map(|i| dx.iter().skip(i).step_by(35).sum()).collect();
        }
        check(&name, &x, &of_rows, |x| f(x, &theta));
        // A second call adds.
        let before = d_theta.to_vec();
        assert!(cpu.linear_backward((&map, false), batch, &x, &theta, &w, &mut d_theta).unwrap().is_none());
        assert!(before.iter().zip(d_theta.iter()).all(|(a, b)| (2.0 * a - b).abs() < 1e-12));
    }
}

#[test]
fn activations_and_gates() {
    let cpu = Cpu::<f64>::new();
    let (width, rows) = (6, 5);
    for activation in Activation::ALL {
        let (x, w) = (draws(1, rows * 2 * width), draws(2, rows * width));
        let half = &x[..rows * width];
        let mut d = cpu.from_slice(&w);
        cpu.activate_backward(activation, half, &mut d).unwrap();
        check(&format!("{activation:?}"), half, &d, |x| dot(&cpu.activate(activation, x).unwrap(), &w));
        let d = cpu.gated_backward(activation, width, &x, &w).unwrap();
        check(&format!("gated {activation:?}"), &x, &d, |x| dot(&cpu.gated(activation, width, x).unwrap(), &w));
    }
    let map = Linear { weight: 0, bias: Some(18), inputs: 3, outputs: width, input_major: false };
    let columns = Columns { columns: 9, first: 2, rows_per_group: 4 };
    let (theta, x, residual) = (draws(3, 24), draws(4, 8 * 3), draws(5, 8 * width));
    let (gate, w) = (draws(6, 18), draws(7, 8 * width));
    let run = |x: &[f64], gate: &[f64]| cpu.linear_residual((&map, 8), x, &theta, &residual, Some((gate, columns))).unwrap();
    let branch = run(&x, &gate).1.unwrap();
    let mut d_gate = cpu.zeros(18).unwrap();
    let d_branch = cpu.gate_backward((columns, width), &w, &branch, &gate, &mut d_gate).unwrap();
    check("gate", &gate, &d_gate, |gate| dot(&run(&x, gate).0, &w));
    let mut ignored = cpu.zeros(24).unwrap();
    let dx = cpu.linear_backward((&map, true), Batch::one(8), &x, &theta, &d_branch, &mut ignored).unwrap().unwrap();
    check("gated branch", &x, &dx, |x| dot(&run(x, &gate).0, &w));
    let plain = cpu.linear_residual((&map, 8), &x, &theta, &residual, None).unwrap();
    assert!(plain.1.is_none());
    let linear = cpu.linear(&map, Batch::one(8), &x, &theta).unwrap();
    assert!(plain.0.iter().zip(linear.iter().zip(&residual)).all(|(y, (l, r))| (y - l - r).abs() < 1e-12));
}

#[test]
fn norms_with_everything_that_they_take() {
    let cpu = Cpu::<f64>::new();
    let (width, rows) = (21, 6);
    for kind in [NormKind::Layer, NormKind::Rms] {
        for (affine, added, modulated) in [(true, false, false), (true, true, false), (false, false, true), (true, true, true)] {
            let name = format!("{kind:?}, affine {affine}, added {added}, modulated {modulated}");
            let (gain, bias) = (affine.then_some(3), affine.then_some(3 + width));
            let norm = Norm { kind, width, epsilon: 1e-3, gain, bias };
            let columns = Columns { columns: 50, first: 5, rows_per_group: 3 };
            let (theta, modulation) = (draws(1, 50), draws(2, 100));
            let (x, add, w) = (draws(3, rows * width), draws(4, rows * width), draws(5, rows * width));
            let run = |x: &[f64], theta: &[f64], modulation: &[f64]| {
                cpu.norm(&norm, x, added.then_some(&add), theta, modulated.then_some((modulation, columns))).unwrap()
            };
            let f = |x: &[f64], theta: &[f64], modulation: &[f64]| dot(&run(x, theta, modulation).0, &w);
            let statistics = run(&x, &theta, &modulation).1;
            let (mut d_theta, mut d_modulation) = (cpu.zeros(50).unwrap(), cpu.zeros(100).unwrap());
            let mut dx = cpu.from_slice(&vec![1.0; rows * width]);
            let given = modulated.then_some((modulation.as_slice(), columns, &mut d_modulation));
            cpu.norm_backward(&norm, (&x, added.then_some(&add)), &statistics, &theta, given, &w, &mut dx, &mut d_theta).unwrap();
            dx.iter_mut().for_each(|d| *d -= 1.0);
            check(&name, &x, &dx, |x| f(x, &theta, &modulation));
            if affine {
                check(&name, &theta, &d_theta, |theta| f(&x, theta, &modulation));
            }
            if modulated {
                check(&name, &modulation, &d_modulation, |modulation| f(&x, &theta, modulation));
            }
        }
    }
}

#[test]
fn batch_norms_of_populations() {
    let cpu = Cpu::<f64>::new();
    let norm = BatchNorm { width: 4, epsilon: 1e-3, gain: 2, bias: 6, mean: 11, variance: 15 };
    for (networks, training) in [(1, true), (3, true), (1, false), (3, false)] {
        let batch = Batch { networks, rows: 9, stride: 20, shared: false };
        let name = format!("{networks} networks, training {training}");
        let theta: Vec<f64> = draws(1, networks * 20).iter().map(|v| v.abs() + 0.2).collect();
        let x: Vec<f64> = draws(2, networks * 36).iter().map(|v| v * 2.0 + 5.0).collect();
        let w = draws(3, x.len());
        let f = |x: &[f64], theta: &[f64]| dot(&cpu.batch_norm(&norm, batch, x, theta, training).unwrap().0, &w);
        let (_, statistics, moved) = cpu.batch_norm(&norm, batch, &x, &theta, training).unwrap();
        assert_eq!(moved.is_some(), training);
        let mut d_theta = cpu.zeros(theta.len()).unwrap();
        let dx = cpu.batch_norm_backward(&norm, batch, &x, &statistics, &theta, training, &w, &mut d_theta).unwrap();
        check(&name, &x, &dx, |x| f(x, &theta));
        check(&name, &theta, &d_theta, |theta| f(&x, theta));
    }
}

/// Attention by its definition, one number at a time.
fn attention_by_definition(a: &Attention, packed: &[f64]) -> Vec<f64> {
    let group = a.heads / a.kv_heads;
    let mut out = Vec::new();
    for row in 0..a.sequences * a.tokens {
        let (first, token) = (row / a.tokens * a.tokens, row % a.tokens);
        let at = |row: usize, head: usize| &packed[row * a.packed() + head * a.head_dim..][..a.head_dim];
        for head in 0..a.heads {
            let seen = if a.causal { token + 1 } else { a.tokens };
            let keys = (0..seen).map(|t| at(first + t, a.heads + head / group));
            let scores: Vec<f64> = keys.map(|k| dot(at(row, head), k) * a.scale()).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let scores: Vec<f64> = scores.iter().map(|s| (s - max).exp()).collect();
            let total: f64 = scores.iter().sum();
            for d in 0..a.head_dim {
                let values = scores.iter().enumerate().map(|(t, s)| s * at(first + t, a.heads + a.kv_heads + head / group)[d]);
                out.push(values.sum::<f64>() / total);
            }
        }
    }
    out
}

#[test]
fn attention_is_its_definition_and_its_gradient_that_of_it() {
    let cpu = Cpu::<f64>::new();
    for (tokens, heads, kv_heads, causal) in
        [(5, 2, 2, false), (70, 2, 1, false), (150, 2, 2, true), (300, 1, 1, false), (9, 4, 2, true)]
    {
        let a = Attention { sequences: 2, tokens, heads, kv_heads, head_dim: 3, causal };
        let packed = draws(1, 2 * tokens * a.packed());
        let w = draws(2, 2 * tokens * a.width());
        let (y, log_sums) = cpu.attention(&a, &packed, None).unwrap();
        let expected = attention_by_definition(&a, &packed);
        let apart = y.iter().zip(&expected).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 1e-12, "{a:?}: {apart}");
        let d = cpu.attention_backward(&a, (&packed, None), (&y, &log_sums), &w).unwrap();
        check(&format!("{a:?}"), &packed, &d, |packed| dot(&cpu.attention(&a, packed, None).unwrap().0, &w));
    }
}

#[test]
fn attention_takes_large_scores() {
    let cpu = Cpu::<f32>::new();
    let a = Attention { sequences: 1, tokens: 200, heads: 1, kv_heads: 1, head_dim: 4, causal: false };
    let packed: Vec<f32> = Seed::new(3).normals(200 * a.packed()).into_iter().map(|v| 40.0 * v).collect();
    let (y, _) = cpu.attention(&a, &packed, None).unwrap();
    let expected = attention_by_definition(&a, &packed.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
    assert!(y.iter().zip(&expected).all(|(a, b)| (f64::from(*a) - b).abs() < 0.02), "scores of thousands do not overflow");
}

#[test]
fn cross_entropy_of_a_population() {
    let cpu = Cpu::<f64>::new();
    let (networks, rows, classes) = (3, 4, 5);
    let labels: Vec<u32> = (0..12).map(|i| i * 7 % 5).collect();
    let z = draws(1, networks * rows * classes);
    let w = draws(2, networks);
    let (_, d) = cpu.cross_entropy([networks, classes], &z, &labels, None).unwrap();
    let weighted: Vec<f64> = d.iter().enumerate().map(|(i, d)| d * w[i / (rows * classes)]).collect();
    check("cross-entropy", &z, &weighted, |z| dot(&cpu.cross_entropy([networks, classes], z, &labels, None).unwrap().0, &w));
    assert!(cpu.cross_entropy([networks, classes], &z, &[5; 12], None).is_err(), "a label beyond the classes");
}

#[test]
fn squared_errors() {
    let cpu = Cpu::<f64>::new();
    let (rows, columns) = (70, 3);
    let (y, targets) = (draws(1, rows * columns), draws(2, rows * columns));
    let weights: Vec<f32> = Seed::new(3).uniforms(rows);
    let wide = cpu.upload_wide(&weights).unwrap();
    for weights in [None, Some(&wide)] {
        let f = |y: &[f64]| {
            let mut total = cpu.zeros_wide(1).unwrap();
            cpu.squared_error([rows, columns], y, &targets, weights, &mut total).unwrap();
            total[0]
        };
        let by_hand: f64 = (0..rows * columns).map(|i| (y[i] - targets[i]).powi(2) * weights.map_or(1.0, |w| w[i / columns])).sum();
        assert!((f(&y) - by_hand / (rows * columns) as f64).abs() < 1e-12);
        let mut total = cpu.zeros_wide(1).unwrap();
        let d = cpu.squared_error([rows, columns], &y, &targets, weights, &mut total).unwrap();
        check("squared error", &y, &d, f);
    }
}

#[test]
fn lessons_are_the_loss_on_tensors() {
    let config = ResidualMlpConfig { inputs: 5, conditioning: 3, width: 24, blocks: 2, outputs: 4 };
    let network = ResidualMlp::new(config);
    let theta = shaken(network.initial(Seed::new(1)));
    let single = |seed: u64, len: usize| Seed::new(seed).normals(len);
    let (inputs, condition, targets, weights) = (single(2, 350), single(3, 210), single(4, 280), Seed::new(5).uniforms(70));
    let [on_host, on_tensors] = [0; 2].map(|_| Parameters::new(&theta, &Device::Cpu, Precision::Single).unwrap());
    let lesson = Lesson { inputs: &inputs, condition: &condition, targets: &targets, weights: &weights };
    for _ in 0..2 {
        regress(&network, &lesson, &on_host).unwrap();
    }
    let tensor = |values: &[f32], columns: usize| Tensor::from_slice(values, (70, columns), &Device::Cpu).unwrap();
    let y = run(&network, &tensor(&inputs, 5), Some(&tensor(&condition, 3)), &on_tensors).unwrap();
    let errors = (y - tensor(&targets, 4)).unwrap().sqr().unwrap().broadcast_mul(&tensor(&weights, 1)).unwrap();
    let loss = errors.mean_all().unwrap();
    loss.backward().unwrap();
    assert!((on_host.take_loss().unwrap() / 2.0 - f64::from(loss.to_scalar::<f32>().unwrap())).abs() < 1e-6);
    assert!(on_host.take_loss().unwrap().abs() < 1e-12, "a loss is taken once");
    let [a, b] = [on_host, on_tensors].map(|p| p.read(Slot::Gradient).unwrap());
    assert!(a.iter().zip(&b).all(|(a, b)| (a / 2.0 - b).abs() < 1e-5));
    let frozen = Parameters::frozen(&theta, &Device::Cpu, Precision::Single).unwrap();
    assert!(regress(&network, &lesson, &frozen).is_err());
    assert!(
        regress(
            &network,
            &Lesson { weights: &weights[1..], ..lesson },
            &Parameters::new(&theta, &Device::Cpu, Precision::Single).unwrap()
        )
        .is_err()
    );
}

#[test]
fn repeated_rows() {
    let cpu = Cpu::<f64>::new();
    let (theta, w) = (draws(1, 10), draws(2, 12));
    let f = |theta: &[f64]| {
        let mut y = cpu.zeros(12).unwrap();
        cpu.add_repeated(&mut y, (theta, 3, 4)).unwrap();
        dot(&y, &w)
    };
    let mut d = cpu.zeros(10).unwrap();
    cpu.add_repeated_backward(&w, (3, 4), &mut d).unwrap();
    check("repeated", &theta, &d, f);
}

/// The outputs of a network on tensors, weighted, and all its gradients: of inputs, condition and parameters.
#[expect(clippy::unwrap_used, reason = "a part of two tests")]
fn check_network<N: Network>(network: &N, [rows, per_row]: [usize; 2], theta: &[f32]) {
    let device = Device::Cpu;
    let name = format!("{network:?}");
    let [inputs, outputs] = network.features();
    let x = draws(1, rows * per_row * inputs);
    let w = draws(2, rows * per_row * outputs);
    let condition = network.conditioning().map(|[c, group]| (draws(3, rows * per_row / group * c), [rows * per_row / group, c]));
    let weights = Tensor::from_vec(w, (rows, per_row, outputs), &device).unwrap();
    let pass = |x: &[f64], c: Option<&[f64]>, theta: &[f32], precision: Precision| {
        let parameters = Parameters::new(theta, &device, precision).unwrap();
        let dtype = precision.dtype();
        let x =
            Var::from_tensor(&Tensor::from_slice(x, (rows, per_row, inputs), &device).unwrap().to_dtype(dtype).unwrap()).unwrap();
        let c = c.zip(condition.as_ref()).map(|(c, (_, [n, k]))| {
            Var::from_tensor(&Tensor::from_slice(c, (*n, *k), &device).unwrap().to_dtype(dtype).unwrap()).unwrap()
        });
        let y = run(network, &x, c.as_ref().map(Var::as_tensor), &parameters).unwrap();
        let value = (y.to_dtype(DType::F64).unwrap() * &weights).unwrap().sum_all().unwrap();
        (value, x, c, parameters)
    };
    let c = condition.as_ref().map(|(c, _)| c.as_slice());
    let value = |x: &[f64], c: Option<&[f64]>, theta: &[f32]| pass(x, c, theta, Precision::Double).0.to_scalar::<f64>().unwrap();
    let gradients = |precision| {
        let (value, x_var, c_var, parameters) = pass(&x, c, theta, precision);
        let store = value.backward().unwrap();
        let flat = |v: &Var| store.get(v).unwrap().flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1::<f64>().unwrap();
        (flat(&x_var), c_var.as_ref().map(flat), parameters.read(Slot::Gradient).unwrap())
    };
    let (dx, dc, d_theta) = gradients(Precision::Double);
    check(&name, &x, &dx, |x| value(x, c, theta));
    if let (Some(c), Some(dc)) = (c, &dc) {
        check(&name, c, dc, |c| value(&x, Some(c), theta));
    }
    // Parameters enter in `f32`: the differences are of steps that `f32` holds exactly.
    let scale = d_theta.iter().fold(1.0f32, |m, g| m.max(g.abs()));
    for i in (0..theta.len()).step_by(theta.len().div_ceil(200)) {
        let at = |d: f32| {
            let mut theta = theta.to_vec();
            theta[i] += d;
            (value(&x, c, &theta), f64::from(theta[i]))
        };
        let ((up, above), (down, below)) = (at(1e-3), at(-1e-3));
        let numeric = (up - down) / (above - below);
        assert!(
            (numeric - f64::from(d_theta[i])).abs() < 2e-4 * f64::from(scale),
            "{name}, parameter {i}: {} and {numeric}",
            d_theta[i]
        );
    }
    assert!(d_theta.iter().filter(|g| **g != 0.0).count() > theta.len() / 2, "{name}");
    // Single precision goes the same way.
    let (sx, _, s_theta) = gradients(Precision::Single);
    let apart = d_theta.iter().zip(&s_theta).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-4 * scale, "{name}: single precision is {apart} away of {scale}");
    assert!(sx.iter().zip(&dx).all(|(a, b)| (a - b).abs() < 1e-3), "{name}");
}

fn shaken(mut theta: Vec<f32>) -> Vec<f32> {
    let noise = Seed::new(9).normals(theta.len());
    theta.iter_mut().zip(noise).for_each(|(t, n)| *t += 0.1 * n);
    theta
}

#[test]
fn residual_mlp() {
    let network = ResidualMlp::new(ResidualMlpConfig { inputs: 5, conditioning: 3, width: 24, blocks: 2, outputs: 4 });
    check_network(&network, [7, 1], &shaken(network.initial(Seed::new(1))));
}

/// A pre-norm transformer whose gradients can be checked number by number.
const SMALL: TransformerConfig = TransformerConfig {
    inputs: 3,
    outputs: 2,
    tokens: 5,
    positions: true,
    d_model: 8,
    num_heads: 2,
    num_layers: 2,
    hidden: 12,
    activation: Activation::Gelu,
    gated: false,
    causal: false,
    conditioning: 0,
};

#[test]
fn transformers() {
    let base = SMALL;
    let swiglu = TransformerConfig { activation: Activation::Silu, gated: true, causal: true, ..base };
    let free = TransformerConfig { positions: false, conditioning: 4, ..base };
    for config in
        [base, swiglu, TransformerConfig { conditioning: 4, ..base }, TransformerConfig { conditioning: 3, ..swiglu }, free]
    {
        let network = Transformer::new(config);
        assert_eq!(network.initial(Seed::new(1)).len(), network.num_parameters());
        check_network(&network, [3, 5], &shaken(network.initial(Seed::new(1))));
    }
}

#[test]
fn transformers_start_at_zero_and_refuse_misfits() {
    let config = TransformerConfig {
        inputs: 3,
        outputs: 2,
        tokens: 5,
        positions: true,
        d_model: 8,
        num_heads: 2,
        num_layers: 1,
        hidden: 12,
        activation: Activation::Gelu,
        gated: false,
        causal: false,
        conditioning: 4,
    };
    let network = Transformer::new(config);
    let parameters = Parameters::frozen(&network.initial(Seed::new(1)), &Device::Cpu, Precision::Single).unwrap();
    let tensor = |shape: &[usize]| Tensor::ones(shape, DType::F32, &Device::Cpu).unwrap();
    let y = network.forward(&tensor(&[2, 5, 3]), Some(&tensor(&[2, 4])), &parameters).unwrap();
    assert_eq!((y.dims(), y.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()), (&[2, 5, 2][..], 0.0));
    for (x, condition) in [
        (vec![2, 4, 3], Some(vec![2, 4])),
        (vec![2, 5, 4], Some(vec![2, 4])),
        (vec![2, 5, 3], Some(vec![1, 4])),
        (vec![2, 5, 3], None),
    ] {
        let condition = condition.map(|shape| tensor(&shape));
        assert!(network.forward(&tensor(&x), condition.as_ref(), &parameters).is_err(), "{x:?}");
    }
}

/// Without positions one set of parameters serves any number of tokens, and a sequence has no order but that of its features.
#[test]
fn a_transformer_without_positions_takes_any_number_of_tokens() {
    let config = TransformerConfig { positions: false, conditioning: 4, ..SMALL };
    let network = Transformer::new(config);
    let theta = shaken(network.initial(Seed::new(1)));
    let parameters = Parameters::frozen(&theta, &Device::Cpu, Precision::Single).unwrap();
    let run = |rows: &[f32]| {
        let tokens = rows.len() / 3;
        let x = Tensor::from_slice(rows, (1, tokens, 3), &Device::Cpu).unwrap();
        let condition = Tensor::ones((1, 4), DType::F32, &Device::Cpu).unwrap();
        let y = network.of_tokens(tokens).forward(&x, Some(&condition), &parameters).unwrap();
        y.flatten_all().unwrap().to_vec1::<f32>().unwrap()
    };
    let rows = Seed::new(2).normals(7 * 3);
    let [forwards, backwards] = [run(&rows), run(&rows.rchunks_exact(3).flatten().copied().collect::<Vec<_>>())];
    let apart = forwards.chunks_exact(2).zip(backwards.rchunks_exact(2)).flat_map(|(a, b)| [a[0] - b[0], a[1] - b[1]]);
    let apart = apart.fold(0.0, |most: f32, d| most.max(d.abs()));
    assert!(apart < 1e-5 && forwards.iter().any(|v| v.abs() > 0.05), "{apart}");
    // More tokens are not the same tokens and others beside them: all see all.
    let fewer = run(&rows[..15]);
    assert!(fewer.iter().zip(&forwards).any(|(a, b)| (a - b).abs() > 1e-4));
}
