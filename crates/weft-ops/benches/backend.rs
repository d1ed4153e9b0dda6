//! Criterion benches of the backends' fused operations, forward and backward, on the CPU in `f32`.
//!
//! `cargo bench -p weft-ops --bench backend`. Sizes are those of a transformer of 16 sequences of 64 tokens and width 256, of
//! populations of 16 networks 784-32-10 on batches of 64, and of the first layers of convolutional ones. All cores are used.

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use std::hint::black_box;
use std::time::Duration;
use weft_core::{Activation, Optimizer, Seed};
use weft_ops::backend::{
    Attention, Backend, Batch, BatchNorm, Columns, Cpu, ImageSizes, Linear, Norm, NormKind, OptimizerStep, Slot,
};
use weft_ops::kernels::{ConvShape, PoolShape, Pooling};

/// Sequences, tokens of each, and width.
const SEQUENCES: usize = 16;
const TOKENS: usize = 64;
const WIDTH: usize = 256;
/// All tokens.
const ROWS: usize = SEQUENCES * TOKENS;

fn draw(seed: u64, len: usize) -> Vec<f32> {
    Seed::new(seed).normals(len)
}

/// A group whose rates are values a second.
fn group<'a>(criterion: &'a mut Criterion, name: &str, values: usize) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(values as u64));
    group
}

fn linear(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let population = Batch { networks: 16, rows: 64, stride: 785 * 32, shared: true };
    let own = Batch { stride: 33 * 32, shared: false, ..population };
    for (name, batch, [inputs, outputs]) in [
        ("linear 784→32 of 16 networks, shared rows", population, [784, 32]),
        ("linear 32→32 of 16 networks", own, [32, 32]),
        ("linear 256→1024 of one network", Batch::one(ROWS), [WIDTH, 4 * WIDTH]),
    ] {
        let map = Linear { weight: 0, bias: Some(inputs * outputs), inputs, outputs, input_major: false };
        let x = draw(1, batch.rows * inputs * if batch.shared { 1 } else { batch.networks });
        let (theta, dy) = (draw(2, batch.networks * (inputs + 1) * outputs), draw(3, batch.networks * batch.rows * outputs));
        let mut gradient = cpu.from_slice(&theta);
        let mut group = group(criterion, name, batch.networks * batch.rows * inputs * outputs);
        group.bench_function("forward", |b| b.iter(|| cpu.linear(&map, batch, black_box(&x), &theta)));
        group.bench_function("forward and GELU", |b| {
            b.iter(|| cpu.linear_activated((&map, Activation::Gelu), batch, black_box(&x), &theta));
        });
        group.bench_function("backward", |b| {
            b.iter(|| cpu.linear_backward((&map, true), batch, black_box(&x), &theta, &dy, &mut gradient));
        });
        group.finish();
    }
}

fn branches(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let map = Linear { weight: 0, bias: Some(WIDTH * WIDTH), inputs: WIDTH, outputs: WIDTH, input_major: false };
    let columns = Columns { columns: WIDTH, first: 0, rows_per_group: TOKENS };
    let (theta, gate) = (draw(1, (WIDTH + 1) * WIDTH), draw(2, SEQUENCES * WIDTH));
    let (x, residual) = (draw(3, ROWS * WIDTH), draw(4, ROWS * WIDTH));
    let mut d_gate = cpu.from_slice(&gate);
    let mut group = group(criterion, "gated residual branch 256→256", ROWS * WIDTH);
    group.bench_function("forward", |b| {
        b.iter(|| cpu.linear_residual((&map, ROWS), black_box(&x), &theta, &residual, Some((&gate, columns))));
    });
    group.bench_function("backward of the gate", |b| {
        b.iter(|| cpu.gate_backward((columns, WIDTH), black_box(&residual), &x, &gate, &mut d_gate));
    });
    group.finish();
}

fn norms(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let (theta, modulation) = (draw(1, 2 * WIDTH), draw(2, SEQUENCES * 2 * WIDTH));
    let (x, dy) = (draw(3, ROWS * WIDTH), draw(4, ROWS * WIDTH));
    let columns = Columns { columns: 2 * WIDTH, first: 0, rows_per_group: TOKENS };
    for (name, kind) in [("layer norm with modulation", NormKind::Layer), ("RMS norm with modulation", NormKind::Rms)] {
        let norm = Norm { kind, width: WIDTH, epsilon: 1e-5, gain: Some(0), bias: Some(WIDTH) };
        let modulated = Some((modulation.as_slice(), columns));
        let (_, statistics) = cpu.norm(&norm, &x, None, &theta, modulated).expect("sizes fit");
        let (mut dx, mut gradient, mut d_modulation) = (cpu.from_slice(&x), cpu.from_slice(&theta), cpu.from_slice(&modulation));
        let mut group = group(criterion, name, ROWS * WIDTH);
        group.bench_function("forward", |b| b.iter(|| cpu.norm(&norm, black_box(&x), None, &theta, modulated)));
        group.bench_function("backward", |b| {
            b.iter(|| {
                let given = Some((modulation.as_slice(), columns, &mut d_modulation));
                cpu.norm_backward(&norm, (black_box(&x), None), &statistics, &theta, given, &dy, &mut dx, &mut gradient)
            });
        });
        group.finish();
    }
}

fn activations(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let hidden = 4 * WIDTH;
    let (x, dy) = (draw(1, ROWS * 2 * hidden), draw(2, ROWS * hidden));
    let single = &x[..ROWS * hidden];
    let mut group = group(criterion, "activations of 1024 rows of 1024", ROWS * hidden);
    group.bench_function("GELU forward", |b| b.iter(|| cpu.activate(Activation::Gelu, black_box(single))));
    group.bench_function("GELU backward", |b| {
        let mut d = cpu.from_slice(&dy);
        b.iter(|| cpu.activate_backward(Activation::Gelu, black_box(single), &mut d));
    });
    group.bench_function("SwiGLU forward", |b| b.iter(|| cpu.gated(Activation::Silu, hidden, black_box(&x))));
    group.bench_function("SwiGLU backward", |b| b.iter(|| cpu.gated_backward(Activation::Silu, hidden, black_box(&x), &dy)));
    group.finish();
}

fn attention(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    for (name, tokens, causal) in [("attention, 64 tokens", 64, false), ("causal attention, 512 tokens", 512, true)] {
        let a = Attention { sequences: ROWS / tokens, tokens, heads: 4, kv_heads: 4, head_dim: WIDTH / 4, causal };
        let (packed, dy) = (draw(1, ROWS * a.packed()), draw(2, ROWS * a.width()));
        let (y, sums) = cpu.attention(&a, &packed, None).expect("sizes fit");
        let mut group = group(criterion, name, ROWS * WIDTH);
        group.bench_function("forward", |b| b.iter(|| cpu.attention(&a, black_box(&packed), None)));
        group.bench_function("backward", |b| b.iter(|| cpu.attention_backward(&a, (black_box(&packed), None), (&y, &sums), &dy)));
        group.finish();
    }
}

fn losses(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let (networks, rows, classes) = (100, 64, 10);
    let (logits, labels) = (draw(1, networks * rows * classes), Seed::new(2).indices(networks * rows, classes));
    let (targets, mut total) = (draw(3, logits.len()), cpu.from_slice(&[0.0]));
    let mut group = group(criterion, "losses of 100 networks, 64 rows of 10", logits.len());
    group.bench_function("cross-entropy and gradient", |b| {
        b.iter(|| cpu.cross_entropy([networks, classes], black_box(&logits), &labels, None));
    });
    group.bench_function("squared error and gradient", |b| {
        b.iter(|| cpu.squared_error([networks * rows, classes], black_box(&logits), &targets, None, &mut total));
    });
    group.finish();
}

fn optimizers(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let (theta, gradient) = (draw(1, 1 << 20), draw(2, 1 << 20));
    let mut group = group(criterion, "optimizer step of 2²⁰ parameters, clipped", theta.len());
    for (name, optimizer) in
        [("momentum", Optimizer::Sgd { momentum: 0.9 }), ("Adam", Optimizer::ADAM), ("AdamW", Optimizer::ADAMW)]
    {
        let mut parameters = cpu.parameters(&theta, true).expect("parameters fit in memory");
        cpu.write(&mut parameters, Slot::Gradient, &gradient).expect("sizes fit");
        let rule = OptimizerStep {
            optimizer,
            weight_decay: 0.01,
            learning_rate: 1e-3,
            clip_norm: Some(1.0),
            average_decay: 0.99,
            step: 1,
        };
        group.bench_function(name, |b| b.iter(|| cpu.optimizer_step(&mut parameters, black_box(&rule))));
    }
    group.finish();
}

fn batch_norms(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let (networks, rows, width) = (16, 64 * 26 * 26 / 4, 8);
    let norm = BatchNorm { width, epsilon: 1e-5, gain: 0, bias: width, mean: 2 * width, variance: 3 * width };
    let batch = Batch { networks, rows, stride: 4 * width, shared: false };
    let theta: Vec<f32> = Seed::new(1).uniforms(networks * 4 * width).into_iter().map(|v| v + 0.5).collect();
    let (x, dy) = (draw(2, networks * rows * width), draw(3, networks * rows * width));
    let (_, statistics, _) = cpu.batch_norm(&norm, batch, &x, &theta, true).expect("sizes fit");
    let mut gradient = cpu.from_slice(&theta);
    let mut group = group(criterion, "batch norm of 16 networks, 8 channels", x.len());
    group.bench_function("forward", |b| b.iter(|| cpu.batch_norm(&norm, batch, black_box(&x), &theta, true)));
    group.bench_function("backward", |b| {
        b.iter(|| cpu.batch_norm_backward(&norm, batch, black_box(&x), &statistics, &theta, true, &dy, &mut gradient));
    });
    group.finish();
}

fn images(criterion: &mut Criterion) {
    let cpu = Cpu::<f32>::new();
    let count = 256;
    let shape = ConvShape { channels: [8, 16], size: [13; 2], kernel: [3; 2], stride: [1; 2], padding: [0; 2] };
    let x = draw(1, count * 8 * 13 * 13);
    let windows = draw(2, count * shape.size_out().iter().product::<usize>() * shape.taps());
    let mut patches = group(criterion, "patches, 8 channels of 13×13, 3×3", x.len());
    patches.bench_function("forward", |b| b.iter(|| cpu.patches(&shape, count, black_box(&x))));
    patches.bench_function("backward", |b| b.iter(|| cpu.patches_backward(&shape, count, black_box(&windows))));
    patches.finish();
    let pool = PoolShape { size: [13; 2], kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
    let (sizes, dy) = (ImageSizes { images: count, channels: 8 }, draw(3, count * 8 * 6 * 6));
    let mut pools = group(criterion, "max pool, 8 channels of 13×13", x.len());
    pools.bench_function("forward", |b| b.iter(|| cpu.pool((Pooling::Max, &pool), sizes, black_box(&x))));
    pools.bench_function("backward", |b| b.iter(|| cpu.pool_backward((Pooling::Max, &pool), sizes, black_box(&x), &dy)));
    pools.finish();
}

fn quick() -> Criterion {
    Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_millis(800))
}

criterion_group! {
    name = backend;
    config = quick();
    targets = linear, branches, norms, activations, attention, losses, optimizers, batch_norms, images
}
criterion_main!(backend);
