//! Each operation of the GPU backend, in `f32` and `bf16`, against the CPU's in `f64` on the same (rounded) inputs.
//!
//! A deviation is the greatest difference over the greatest magnitude. Without a GPU the tests say that they are skipped.
#![cfg(feature = "cuda")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cuda/adapters.rs"]
mod adapters;
#[path = "cuda/batch_norm.rs"]
mod batch_norm;
#[path = "cuda/images.rs"]
mod images;
#[path = "cuda/products.rs"]
mod products;

use candle_core::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use std::cell::RefCell;
use std::io::Write as _;
use std::sync::OnceLock;
use weft_core::{Activation, Optimizer, Seed};
use weft_ops::backend::{
    Attention, Backend, Batch, Columns, Cpu, Cuda, CudaReal, DeviceView, Linear, Norm, NormKind, OptimizerStep, Slot,
};

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn device() -> Option<&'static CudaDevice> {
    static DEVICE: OnceLock<Option<CudaDevice>> = OnceLock::new();
    DEVICE.get_or_init(|| CudaDevice::new_with_stream(0).ok()).as_ref()
}

/// A GPU in one type beside the CPU in `f64`, and what was found to deviate.
struct Pair<T> {
    gpu: Cuda<T>,
    cpu: Cpu<f64>,
    topic: &'static str,
    tolerance: f64,
    failures: RefCell<Vec<String>>,
}

/// The same values on both sides.
struct Values<T> {
    gpu: CudaSlice<T>,
    cpu: Vec<f64>,
}

impl<T: CudaReal> Values<T> {
    fn view(&self) -> DeviceView<'_, T> {
        DeviceView::from(&self.gpu)
    }
}

impl<T: CudaReal> Pair<T> {
    fn new(topic: &'static str, tolerance: f64) -> Option<Self> {
        let Some(device) = device() else {
            say(&format!("skipped: {topic}: no GPU"));
            return None;
        };
        let gpu = Cuda::new(device).unwrap();
        Some(Self { gpu, cpu: Cpu::new(), topic, tolerance, failures: RefCell::default() })
    }

    fn values(&self, seed: u64, len: usize) -> Values<T> {
        let values: Vec<T> = Seed::new(seed).normals(len).into_iter().map(T::from_f32).collect();
        let cpu = values.iter().map(|v| f64::from(v.to_f32())).collect();
        Values { gpu: self.gpu.from_slice(&values).unwrap(), cpu }
    }

    fn compare<E: CudaReal>(&self, what: &str, got: &CudaSlice<E>, expected: &[f64]) {
        let got: Vec<f64> = self.gpu.to_vec(got).unwrap().iter().map(|v| f64::from(v.to_f32())).collect();
        self.judge(what, &got, expected);
    }

    /// Compares values that are only moved.
    fn same<E: CudaReal>(&self, what: &str, got: &CudaSlice<E>, expected: &[f64]) {
        let got: Vec<f64> = self.gpu.to_vec(got).unwrap().iter().map(|v| f64::from(v.to_f32())).collect();
        if got != expected {
            self.failures.borrow_mut().push(format!("{} {} {what}: other values", T::NAME, self.topic));
        }
    }

    fn judge(&self, what: &str, got: &[f64], expected: &[f64]) {
        let greatest = expected.iter().fold(1e-30f64, |m, v| m.max(v.abs()));
        let apart = got.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0f64, |m, v| if v.is_nan() { v } else { m.max(v) });
        let deviation = if got.len() == expected.len() { apart / greatest } else { f64::INFINITY };
        let line = format!("{:5} {:12} {what}: {deviation:.1e}", T::NAME, self.topic);
        say(&line);
        if deviation.is_nan() || deviation > self.tolerance {
            self.failures.borrow_mut().push(line);
        }
    }

    fn finish(self) {
        assert!(self.failures.borrow().is_empty(), "{:#?}", self.failures);
    }
}

/// Gradients, which are `f32` on the GPU whatever it computes in.
fn wide(seed: u64, len: usize) -> (CudaSlice<f32>, Vec<f64>) {
    let gpu = Cuda::<f32>::new(device().unwrap()).unwrap();
    let values = Seed::new(seed).normals(len);
    (gpu.from_slice(&values).unwrap(), values.iter().map(|&v| f64::from(v)).collect())
}

fn run(topic: &'static str, single: fn(&Pair<f32>), half: fn(&Pair<half::bf16>)) {
    let (Some(f), Some(b)) = (Pair::new(topic, 1e-4), Pair::new(topic, 2e-2)) else { return };
    single(&f);
    half(&b);
    f.finish();
    b.finish();
}

fn linear_on<T: CudaReal>(pair: &Pair<T>) {
    // Networks, rows, inputs, outputs, what lies before a weight (so that it starts anywhere).
    let shapes =
        [(1, 37, 33, 17, 3), (1, 64, 64, 128, 0), (1, 700, 96, 40, 5), (3, 5, 7, 9, 1), (3, 130, 32, 24, 8), (1, 3000, 8, 8, 0)];
    for (case, (networks, rows, inputs, outputs, before)) in shapes.into_iter().enumerate() {
        for (shared, input_major, biased) in [(false, false, true), (true, true, true), (false, true, false), (true, false, false)]
        {
            // Biases of a population start at multiples of 16 bytes, or anywhere.
            let stride: usize = before + inputs * outputs + outputs + 2;
            let stride = if before % 8 == 0 { stride.next_multiple_of(8) } else { stride };
            let map = Linear { weight: before, bias: biased.then_some(before + inputs * outputs), inputs, outputs, input_major };
            let batch = Batch { networks, rows, stride, shared };
            let x = pair.values(case as u64, rows * inputs * if shared { 1 } else { networks });
            let theta = pair.values(10 + case as u64, networks * stride);
            let dy = pair.values(20 + case as u64, networks * rows * outputs);
            let name = |what: &str| format!("{what} {networks}×{rows}×{inputs}→{outputs} {shared} {input_major} {biased}");
            let y = pair.gpu.linear(&map, batch, x.view(), theta.view()).unwrap();
            pair.compare(&name("linear"), &y, &pair.cpu.linear(&map, batch, &x.cpu, &theta.cpu).unwrap());
            let (mut gradient, cpu_gradient) = wide(30, networks * stride);
            let mut expected = pair.cpu.from_slice(&cpu_gradient);
            let dx = pair.gpu.linear_backward((&map, true), batch, x.view(), theta.view(), dy.view(), &mut gradient).unwrap();
            let cpu_dx = pair.cpu.linear_backward((&map, true), batch, &x.cpu, &theta.cpu, &dy.cpu, &mut expected).unwrap();
            pair.compare(&name("dx"), &dx.unwrap(), &cpu_dx.unwrap());
            pair.compare(&name("gradient"), &gradient, &expected);
        }
    }
    for activation in Activation::ALL {
        let map = Linear { weight: 0, bias: Some(24 * 15), inputs: 24, outputs: 15, input_major: false };
        let batch = Batch { networks: 2, rows: 31, stride: 25 * 15, shared: true };
        let (x, theta) = (pair.values(1, 31 * 24), pair.values(2, 2 * 25 * 15));
        let (before, after) = pair.gpu.linear_activated((&map, activation), batch, x.view(), theta.view()).unwrap();
        let (cpu_before, cpu_after) = pair.cpu.linear_activated((&map, activation), batch, &x.cpu, &theta.cpu).unwrap();
        pair.compare(&format!("before {activation:?}"), &before, &cpu_before);
        pair.compare(&format!("after {activation:?}"), &after, &cpu_after);
    }
}

#[test]
fn linear() {
    run("linear", linear_on, linear_on);
}

fn branches_on<T: CudaReal>(pair: &Pair<T>) {
    for (rows, inputs, width, rows_per_group) in [(12, 20, 17, 4), (64, 32, 24, 1), (1200, 16, 64, 300), (6, 8, 256, 6)] {
        let map = Linear { weight: 0, bias: Some(inputs * width), inputs, outputs: width, input_major: false };
        let (x, theta) = (pair.values(1, rows * inputs), pair.values(2, (inputs + 1) * width));
        let (residual, dy) = (pair.values(3, rows * width), pair.values(4, rows * width));
        let columns = Columns { columns: 3 * width + 1, first: width + 1, rows_per_group };
        let modulation = pair.values(5, rows / rows_per_group * columns.columns);
        let name = |what: &str| format!("{what} {rows}×{width}/{rows_per_group}");
        let (y, branch) = pair.gpu.linear_residual((&map, rows), x.view(), theta.view(), residual.view(), None).unwrap();
        let (cpu_y, _) = pair.cpu.linear_residual((&map, rows), &x.cpu, &theta.cpu, &residual.cpu, None).unwrap();
        assert!(branch.is_none());
        pair.compare(&name("residual"), &y, &cpu_y);
        let gate = Some((modulation.view(), columns));
        let (y, branch) = pair.gpu.linear_residual((&map, rows), x.view(), theta.view(), residual.view(), gate).unwrap();
        let gate = Some((modulation.cpu.as_slice(), columns));
        let (cpu_y, cpu_branch) = pair.cpu.linear_residual((&map, rows), &x.cpu, &theta.cpu, &residual.cpu, gate).unwrap();
        let (branch, cpu_branch) = (branch.unwrap(), cpu_branch.unwrap());
        pair.compare(&name("gated residual"), &y, &cpu_y);
        pair.compare(&name("branch"), &branch, &cpu_branch);
        let mut d = pair.values(6, modulation.cpu.len());
        let mut cpu_d = pair.cpu.from_slice(&d.cpu);
        let d_branch =
            pair.gpu.gate_backward((columns, width), dy.view(), pair.gpu.view(&branch), modulation.view(), &mut d.gpu).unwrap();
        let cpu_d_branch = pair.cpu.gate_backward((columns, width), &dy.cpu, &cpu_branch, &modulation.cpu, &mut cpu_d).unwrap();
        pair.compare(&name("d branch"), &d_branch, &cpu_d_branch);
        pair.compare(&name("d gate"), &d.gpu, &cpu_d);
    }
}

#[test]
fn branches() {
    run("branches", branches_on, branches_on);
}

fn pointwise_on<T: CudaReal>(pair: &Pair<T>) {
    for activation in Activation::ALL {
        for (rows, width) in [(5, 16), (7, 13), (300, 1024)] {
            let name = |what: &str| format!("{what} {activation:?} {rows}×{width}");
            let (x, mut dy) = (pair.values(1, rows * 2 * width), pair.values(2, rows * 2 * width));
            pair.compare(
                &name("activate"),
                &pair.gpu.activate(activation, x.view()).unwrap(),
                &pair.cpu.activate(activation, &x.cpu).unwrap(),
            );
            let mut expected = pair.cpu.from_slice(&dy.cpu);
            pair.gpu.activate_backward(activation, x.view(), &mut dy.gpu).unwrap();
            pair.cpu.activate_backward(activation, &x.cpu, &mut expected).unwrap();
            pair.compare(&name("backward"), &dy.gpu, &expected);
            let y = pair.gpu.gated(activation, width, x.view()).unwrap();
            pair.compare(&name("gated"), &y, &pair.cpu.gated(activation, width, &x.cpu).unwrap());
            let dy = pair.values(3, rows * width);
            let dx = pair.gpu.gated_backward(activation, width, x.view(), dy.view()).unwrap();
            pair.compare(&name("gated backward"), &dx, &pair.cpu.gated_backward(activation, width, &x.cpu, &dy.cpu).unwrap());
        }
    }
    for (repeats, len) in [(3, 40), (5, 33), (300, 72)] {
        let name = |what: &str| format!("{what} {repeats}×{len}");
        let (mut y, x, theta) = (pair.values(1, repeats * len), pair.values(2, repeats * len), pair.values(3, len + 7));
        let mut expected = pair.cpu.from_slice(&y.cpu);
        pair.gpu.add(&mut y.gpu, x.view()).unwrap();
        pair.cpu.add(&mut expected, &x.cpu).unwrap();
        pair.compare(&name("add"), &y.gpu, &expected);
        pair.gpu.add_repeated(&mut y.gpu, (theta.view(), 5, len)).unwrap();
        pair.cpu.add_repeated(&mut expected, (&theta.cpu, 5, len)).unwrap();
        pair.compare(&name("add repeated"), &y.gpu, &expected);
        let (mut gradient, cpu_gradient) = wide(4, len + 7);
        let mut expected = pair.cpu.from_slice(&cpu_gradient);
        pair.gpu.add_repeated_backward(x.view(), (5, len), &mut gradient).unwrap();
        pair.cpu.add_repeated_backward(&x.cpu, (5, len), &mut expected).unwrap();
        pair.compare(&name("repeated backward"), &gradient, &expected);
    }
    assert!(pair.gpu.to_vec(&pair.gpu.zeros(9).unwrap()).unwrap().iter().all(|v| v.to_f32() == 0.0));
}

#[test]
fn pointwise() {
    run("pointwise", pointwise_on, pointwise_on);
}

fn norms_on<T: CudaReal>(pair: &Pair<T>) {
    for kind in [NormKind::Layer, NormKind::Rms] {
        for (rows, width, rows_per_group) in
            [(6, 24, 2), (30, 33, 10), (1000, 256, 250), (12, 1030, 12), (9, 2048, 1), (2000, 8, 1000), (16, 768, 8), (99, 512, 33)]
        {
            for (summed, affine, modulated) in
                [(false, true, false), (true, false, true), (true, true, true), (false, false, false)]
            {
                // The shift behind the gain, or before it.
                let parameters = affine.then_some(if kind == NormKind::Layer { [3, 3 + width] } else { [3 + width, 3] });
                let norm = Norm { kind, width, epsilon: 1e-5, gain: parameters.map(|p| p[0]), bias: parameters.map(|p| p[1]) };
                let (x, add, theta) = (pair.values(1, rows * width), pair.values(2, rows * width), pair.values(3, 4 + 2 * width));
                let columns = Columns { columns: 2 * width + 5, first: 3, rows_per_group };
                let values = pair.values(4, rows / rows_per_group * columns.columns);
                let (dy, mut dx) = (pair.values(5, rows * width), pair.values(6, rows * width));
                let mut d = pair.values(7, values.cpu.len());
                let (mut gradient, cpu_gradient) = wide(8, 4 + 2 * width);
                let [mut cpu_gradient, mut cpu_dx, mut cpu_d] = [&cpu_gradient, &dx.cpu, &d.cpu].map(|v| pair.cpu.from_slice(v));
                let name = |what: &str| format!("{what} {kind:?} {rows}×{width}/{rows_per_group} {summed} {affine} {modulated}");

                let inputs = (x.view(), summed.then(|| add.view()));
                let modulation = modulated.then(|| (values.view(), columns));
                let (y, statistics) = pair.gpu.norm(&norm, inputs.0, inputs.1, theta.view(), modulation).unwrap();
                let cpu_inputs = (x.cpu.as_slice(), summed.then_some(add.cpu.as_slice()));
                let modulation = modulated.then_some((values.cpu.as_slice(), columns));
                let (cpu_y, cpu_statistics) = pair.cpu.norm(&norm, cpu_inputs.0, cpu_inputs.1, &theta.cpu, modulation).unwrap();
                pair.compare(&name("norm"), &y, &cpu_y);
                pair.compare(&name("statistics"), &statistics, &cpu_statistics);

                let modulation = modulated.then_some((values.view(), columns, &mut d.gpu));
                pair.gpu
                    .norm_backward(&norm, inputs, &statistics, theta.view(), modulation, dy.view(), &mut dx.gpu, &mut gradient)
                    .unwrap();
                let modulation = modulated.then_some((values.cpu.as_slice(), columns, &mut cpu_d));
                pair.cpu
                    .norm_backward(
                        &norm,
                        cpu_inputs,
                        &cpu_statistics,
                        &theta.cpu,
                        modulation,
                        &dy.cpu,
                        &mut cpu_dx,
                        &mut cpu_gradient,
                    )
                    .unwrap();
                pair.compare(&name("dx"), &dx.gpu, &cpu_dx);
                pair.compare(&name("gradient"), &gradient, &cpu_gradient);
                pair.compare(&name("d modulation"), &d.gpu, &cpu_d);
            }
        }
    }
}

#[test]
fn norms() {
    run("norm", norms_on, norms_on);
}

fn attention_on<T: CudaReal>(pair: &Pair<T>) {
    let shapes = [(2, 1, 2, 2), (3, 7, 4, 2), (1, 64, 2, 2), (2, 65, 4, 1), (1, 130, 6, 3), (2, 200, 2, 2), (5, 33, 3, 3)];
    // Those that kernels are compiled for, and some between, which are filled up with zeros.
    for head_dim in [16, 32, 64, 128, 1, 8, 24, 100] {
        for (sequences, tokens, heads, kv_heads) in shapes {
            for causal in [false, true] {
                let attention = Attention { sequences, tokens, heads, kv_heads, head_dim, causal };
                let rows = sequences * tokens;
                let packed = pair.values(1, rows * attention.packed());
                let dy = pair.values(2, rows * attention.width());
                let name = |what: &str| format!("{what} {head_dim} {sequences}×{tokens} {heads}/{kv_heads} {causal}");
                let (y, log_sums) = pair.gpu.attention(&attention, packed.view(), None).unwrap();
                let (cpu_y, cpu_log_sums) = pair.cpu.attention(&attention, &packed.cpu, None).unwrap();
                pair.compare(&name("attention"), &y, &cpu_y);
                pair.compare(&name("log sums"), &log_sums, &cpu_log_sums);
                let outputs = (pair.gpu.view(&y), &log_sums);
                let d = pair.gpu.attention_backward(&attention, (packed.view(), None), outputs, dy.view()).unwrap();
                let cpu_d = pair.cpu.attention_backward(&attention, (&packed.cpu, None), (&cpu_y, &cpu_log_sums), &dy.cpu).unwrap();
                pair.compare(&name("backward"), &d, &cpu_d);
            }
        }
    }
    let attention = Attention { sequences: 1, tokens: 2, heads: 1, kv_heads: 1, head_dim: 136, causal: false };
    let refused = pair.gpu.attention(&attention, pair.values(1, 2 * attention.packed()).view(), None);
    let source = std::error::Error::source(&refused.err().unwrap()).unwrap().to_string();
    assert!(source.contains("head_dim") && source.contains("128") && source.contains("136"), "{source}");
}

#[test]
fn attention() {
    run("attention", attention_on, attention_on);
}

fn losses_on<T: CudaReal>(pair: &Pair<T>) {
    for (networks, rows, classes) in [(1, 5, 10), (3, 33, 7), (2, 500, 300), (1, 9, 1), (2, 3, 8192), (1, 4, 5001), (300, 40, 16)] {
        let logits = pair.values(1, networks * rows * classes);
        let labels =
            Seed::new(2).uniforms(networks * rows).iter().map(|u| (u * classes as f32) as u32 % classes as u32).collect::<Vec<_>>();
        let indices = pair.gpu.upload_indices(&labels).unwrap();
        let (loss, gradient) =
            pair.gpu.cross_entropy([networks, classes], logits.view(), DeviceView::from(&indices), None).unwrap();
        let (cpu_loss, cpu_gradient) = pair.cpu.cross_entropy([networks, classes], &logits.cpu, &labels, None).unwrap();
        pair.compare(&format!("loss {networks}×{rows}×{classes}"), &loss, &cpu_loss);
        pair.compare(&format!("gradient {networks}×{rows}×{classes}"), &gradient, &cpu_gradient);
    }
    let labels = pair.gpu.upload_indices(&[1, 9, 0, 2]).unwrap();
    let (loss, _) = pair.gpu.cross_entropy([2, 3], pair.values(1, 12).view(), DeviceView::from(&labels), None).unwrap();
    let loss = pair.gpu.to_vec(&loss).unwrap();
    assert!(
        loss[0].to_f32().is_nan() && loss[1].to_f32().is_finite(),
        "a label that is no class makes its own network's loss no number"
    );
}

#[test]
fn losses() {
    run("loss", losses_on, losses_on);
}

fn optimizers_on<T: CudaReal>(pair: &Pair<T>) {
    let len = 5003;
    for optimizer in [Optimizer::SGD, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAM, Optimizer::ADAMW] {
        for clip_norm in [None, Some(1.0), Some(1e6)] {
            let start = Seed::new(1).normals(len);
            let mut gpu = pair.gpu.parameters(&start, true).unwrap();
            let mut cpu = pair.cpu.parameters(&start, true).unwrap();
            for step in 1..=4 {
                let gradient = Seed::new(2).index(step).normals(len);
                pair.gpu.write(&mut gpu, Slot::Gradient, &gradient).unwrap();
                pair.cpu.write(&mut cpu, Slot::Gradient, &gradient).unwrap();
                let step = OptimizerStep { optimizer, weight_decay: 0.1, learning_rate: 0.01, clip_norm, average_decay: 0.7, step };
                pair.gpu.optimizer_step(&mut gpu, &step).unwrap();
                pair.cpu.optimizer_step(&mut cpu, &step).unwrap();
            }
            let name = |what: &str| format!("{what} {optimizer:?} {clip_norm:?}");
            let mut slots = vec![Slot::Theta, Slot::Average, Slot::Gradient];
            if optimizer != Optimizer::SGD {
                slots.extend([Slot::First, Slot::Second]);
            }
            for slot in slots {
                let [got, expected] = [pair.gpu.read(&gpu, slot).unwrap(), pair.cpu.read(&cpu, slot).unwrap()]
                    .map(|values| values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>());
                pair.judge(&name(&format!("{slot:?}")), &got, &expected);
            }
            let norms = [pair.gpu.gradient_norm(&gpu).unwrap(), pair.cpu.gradient_norm(&cpu).unwrap()];
            assert_eq!(norms[0].is_nan(), clip_norm.is_none());
            assert!(clip_norm.is_none() || (norms[0] / norms[1] - 1.0).abs() < 1e-6, "{norms:?}");
            let mut buffer = pair.gpu.zeros(len).unwrap();
            pair.gpu.add(&mut buffer, pair.gpu.theta(&gpu)).unwrap();
            let rounded: Vec<f64> =
                pair.gpu.read(&gpu, Slot::Theta).unwrap().iter().map(|&v| f64::from(T::from_f32(v).to_f32())).collect();
            assert_eq!(pair.gpu.to_vec(&buffer).unwrap().iter().map(|v| f64::from(v.to_f32())).collect::<Vec<_>>(), rounded);
        }
    }
    let mut fixed = pair.gpu.parameters(&[1.0, 2.0, 3.0], false).unwrap();
    pair.gpu.write(&mut fixed, Slot::Theta, &[4.0, 5.0, 6.0]).unwrap();
    assert_eq!(pair.gpu.read(&fixed, Slot::Theta).unwrap(), [4.0, 5.0, 6.0]);
    assert!(pair.gpu.read(&fixed, Slot::Gradient).unwrap().is_empty());
}

#[test]
fn optimizers() {
    run("optimizer", optimizers_on, optimizers_on);
}

fn repeats_on<T: CudaReal>(pair: &Pair<T>) {
    let bits = |values: Vec<T>| values.into_iter().map(|v| v.to_f32().to_bits()).collect::<Vec<_>>();
    let attention = Attention { sequences: 2, tokens: 150, heads: 4, kv_heads: 2, head_dim: 32, causal: true };
    let rows = 300;
    let norm = Norm { kind: NormKind::Layer, width: 128, epsilon: 1e-5, gain: Some(0), bias: Some(128) };
    let map = Linear { weight: 0, bias: Some(256 * 128), inputs: 256, outputs: 128, input_major: false };
    let (packed, dy, theta) = (pair.values(1, rows * 256), pair.values(2, rows * 128), pair.values(3, 257 * 128));
    let once = || {
        let (y, log_sums) = pair.gpu.attention(&attention, packed.view(), None).unwrap();
        let d = pair.gpu.attention_backward(&attention, (packed.view(), None), (pair.gpu.view(&y), &log_sums), dy.view()).unwrap();
        let (mut gradient, _) = wide(4, 257 * 128);
        let (_, statistics) = pair.gpu.norm(&norm, dy.view(), None, theta.view(), None).unwrap();
        let mut dx = pair.gpu.zeros(rows * 128).unwrap();
        pair.gpu
            .norm_backward(&norm, (dy.view(), None), &statistics, theta.view(), None, pair.gpu.view(&y), &mut dx, &mut gradient)
            .unwrap();
        pair.gpu.linear_backward((&map, false), Batch::one(rows), packed.view(), theta.view(), dy.view(), &mut gradient).unwrap();
        let gradient: Vec<u32> = pair.gpu.to_vec(&gradient).unwrap().iter().map(|v| v.to_bits()).collect();
        (bits(pair.gpu.to_vec(&d).unwrap()), bits(pair.gpu.to_vec(&dx).unwrap()), gradient)
    };
    let first = once();
    for _ in 0..5 {
        assert!(once() == first, "{} differs from run to run", T::NAME);
    }
}

#[test]
fn repeats() {
    run("repeats", repeats_on, repeats_on);
}

#[test]
fn refuses_the_stream_of_each_thread() {
    use candle_core::backend::BackendDevice as _;
    let Ok(device) = CudaDevice::new(0) else {
        say("skipped: streams: no GPU");
        return;
    };
    assert!(Cuda::<f32>::new(&device).unwrap_err().to_string().contains("new_with_stream"));
}
