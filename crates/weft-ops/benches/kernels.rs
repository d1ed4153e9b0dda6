//! Criterion benches of the kernels, at the shapes of a 784-32-32-10 network and of two convolutional ones that read handwritten
//! digits in batches of 64.
//!
//! `cargo bench -p weft-ops`. All kernels are single-threaded but the residual MLP, which uses all cores.

use candle_core::{Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use std::time::Duration;
use weft_core::{Activation, Optimizer, Seed};
use weft_ops::kernels::{
    BatchNorm, BatchNormGradient, ConvScratch, ConvShape, Moments, OptimizerKernel, OptimizerState, PoolShape, Pooling, SparseRows,
    activate, add_bias, batch_norm_train, batch_norm_train_backward, blocked_len, conv_backward_input, conv_backward_weight,
    conv_forward, cross_entropy_gradient, matmul, pool_backward, pool_forward, sparse_backward, sparse_forward, transpose,
};
use weft_ops::tensor::{FlatOptimizer, FlatOptimizerConfig, Precision, ResidualMlp, ResidualMlpConfig};

/// Examples of a batch, inputs, outputs of the first layer, classes.
const BATCH: usize = 64;
const INPUTS: usize = 784;
const WIDTH: usize = 32;
const CLASSES: usize = 10;
/// Weights of the whole network.
const WEIGHTS: usize = INPUTS * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH + WIDTH * CLASSES + CLASSES;

/// A batch with one value in five filled, as digits have.
fn batch() -> Vec<f32> {
    let filled = Seed::new(1).uniforms(BATCH * INPUTS);
    let values = Seed::new(2).uniforms(BATCH * INPUTS);
    filled.into_iter().zip(values).map(|(f, v)| if f < 0.2 { v } else { 0.0 }).collect()
}

fn sparse_linear(criterion: &mut Criterion) {
    let mut rows = SparseRows::new(INPUTS).expect("784 inputs are few");
    batch().chunks_exact(INPUTS).for_each(|row| rows.push(row));
    let examples: Vec<u32> = (0..BATCH as u32).collect();
    let (weight, bias) = (Seed::new(3).normals(INPUTS * WIDTH), Seed::new(4).normals(WIDTH));
    let dy = Seed::new(5).normals(BATCH * WIDTH);
    let (mut y, mut d_weight, mut d_bias) = (vec![0.0; BATCH * WIDTH], vec![0.0; INPUTS * WIDTH], vec![0.0; WIDTH]);
    let mut group = criterion.benchmark_group("sparse linear 784→32");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("forward", |b| b.iter(|| sparse_forward(&rows, &examples, black_box(&weight), &bias, black_box(&mut y))));
    group.bench_function("backward", |b| {
        b.iter(|| sparse_backward(&rows, &examples, black_box(&dy), black_box(&mut d_weight), &mut d_bias));
    });
    group.finish();
}

fn dense_linear(criterion: &mut Criterion) {
    for (name, [fan_in, fan_out]) in [("dense linear 784→32", [INPUTS, WIDTH]), ("dense linear 32→32", [WIDTH, WIDTH])] {
        let x = if fan_in == INPUTS { batch() } else { Seed::new(6).normals(BATCH * fan_in) };
        let (weight, bias) = (Seed::new(3).normals(fan_in * fan_out), Seed::new(4).normals(fan_out));
        let dy = Seed::new(5).normals(BATCH * fan_out);
        let (mut y, mut dx) = (vec![0.0; BATCH * fan_out], vec![0.0; BATCH * fan_in]);
        let (mut d_weight, mut transposed) = (vec![0.0; fan_in * fan_out], vec![0.0; fan_in * fan_out]);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("forward", |b| {
            b.iter(|| {
                add_bias(Some(&bias), &mut y);
                matmul([BATCH, fan_out, fan_in], black_box(&x), false, black_box(&weight), black_box(&mut y));
            });
        });
        group.bench_function("backward", |b| {
            b.iter(|| {
                matmul([fan_in, fan_out, BATCH], black_box(&x), true, black_box(&dy), black_box(&mut d_weight));
                transpose([fan_in, fan_out], &weight, &mut transposed);
                matmul([BATCH, fan_in, fan_out], &dy, false, &transposed, black_box(&mut dx));
            });
        });
        group.finish();
    }
}

/// The convolutions, and what follows them, of the two networks of digits in the head-to-heads.
fn images(criterion: &mut Criterion) {
    for (channels, side, kernel) in [([1, 8], 28, 3), ([8, 16], 13, 3), ([1, 8], 28, 5), ([8, 6], 12, 5)] {
        let shape = ConvShape { channels, size: [side; 2], kernel: [kernel; 2], stride: [1; 2], padding: [0; 2] };
        let [height, width] = shape.size_out();
        let (features, features_out) = (channels[0] * side * side, channels[1] * height * width);
        let x = Seed::new(14).normals(blocked_len(BATCH, features));
        let dy = Seed::new(15).normals(blocked_len(BATCH, features_out));
        let (weight, bias) = (Seed::new(16).normals(shape.taps() * channels[1]), Seed::new(17).normals(channels[1]));
        let (mut y, mut dx, mut d_weight) = (dy.clone(), x.clone(), weight.clone());
        let mut scratch = ConvScratch::default();
        let name = format!("convolution {}→{}, {kernel}×{kernel} on {side}×{side}", channels[0], channels[1]);
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function("forward", |b| {
            b.iter(|| conv_forward(&shape, black_box(&x), &weight, Some(&bias), black_box(&mut y), &mut scratch));
        });
        group.bench_function("backward to the weights", |b| {
            b.iter(|| conv_backward_weight(&shape, black_box(&x), &dy, black_box(&mut d_weight), None, &mut scratch));
        });
        group.bench_function("backward to the input", |b| {
            b.iter(|| conv_backward_input(&shape, black_box(&weight), &dy, black_box(&mut dx), &mut scratch));
        });
        group.finish();
    }
}

fn pool_and_norm(criterion: &mut Criterion) {
    let (channels, side) = (8, 26);
    let shape = PoolShape { size: [side; 2], kernel: [2; 2], stride: [2; 2], padding: [0; 2] };
    let features_out = channels * shape.size_out().iter().product::<usize>();
    let x = Seed::new(18).normals(blocked_len(BATCH, channels * side * side));
    let dy = Seed::new(19).normals(blocked_len(BATCH, features_out));
    let (mut y, mut dx, mut normed) = (dy.clone(), x.clone(), x.clone());
    let mut group = criterion.benchmark_group("8 channels of 26×26");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("max pool forward", |b| b.iter(|| pool_forward(Pooling::Max, &shape, black_box(&x), black_box(&mut y))));
    group.bench_function("max pool backward", |b| {
        b.iter(|| pool_backward(Pooling::Max, &shape, (&x, &y), black_box(&dy), black_box(&mut dx)));
    });
    let [gain, bias, mean, variance] = [20, 21, 22, 23].map(|seed| Seed::new(seed).uniforms(channels));
    let norm = BatchNorm { gain: &gain, bias: &bias, mean: &mean, variance: &variance, epsilon: 1e-5 };
    let mut moments = Moments::default();
    group.bench_function("batch norm forward", |b| {
        b.iter(|| batch_norm_train(&norm, BATCH, black_box(&x), black_box(&mut normed), &mut moments));
    });
    let (mut d_gain, mut d_bias) = (vec![0.0; channels], vec![0.0; channels]);
    group.bench_function("batch norm backward", |b| {
        b.iter(|| {
            let mut gradient = BatchNormGradient { gain: &mut d_gain, bias: &mut d_bias };
            batch_norm_train_backward((&gain, &moments), BATCH, black_box(&x), &normed, Some(&mut dx), &mut gradient);
        });
    });
    group.bench_function("tanh", |b| b.iter(|| activate(Activation::Tanh, black_box(&mut normed))));
    group.finish();
}

fn loss(criterion: &mut Criterion) {
    let logits = Seed::new(7).normals(BATCH * CLASSES);
    let labels = Seed::new(8).indices(BATCH, CLASSES);
    let mut scratch = logits.clone();
    criterion.bench_function("cross-entropy and gradient", |b| {
        b.iter(|| {
            scratch.copy_from_slice(&logits);
            cross_entropy_gradient(black_box(&mut scratch), &labels)
        });
    });
}

fn optimizer(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("optimizer step of 26,506 weights");
    group.throughput(Throughput::Elements(WEIGHTS as u64));
    let gradient = Seed::new(9).normals(WEIGHTS);
    for (name, optimizer) in
        [("momentum", Optimizer::Sgd { momentum: 0.9 }), ("adam", Optimizer::ADAM), ("adamw", Optimizer::ADAMW)]
    {
        let kernel = OptimizerKernel { optimizer, weight_decay: 1e-4 };
        let mut state = OptimizerState::new(optimizer, WEIGHTS);
        let (mut weights, mut scratch) = (Seed::new(10).normals(WEIGHTS), gradient.clone());
        group.bench_function(name, |b| {
            b.iter(|| {
                // A step leaves the gradient at zero; the copy keeps it a gradient.
                scratch.copy_from_slice(&gradient);
                kernel.step(&mut state, black_box(&mut weights), &mut scratch, 1e-3, 1.0);
            });
        });
    }
    group.finish();
}

fn residual_mlp(criterion: &mut Criterion) {
    let config = ResidualMlpConfig { inputs: 99, conditioning: 65, width: 256, blocks: 3, outputs: 99 };
    let network = ResidualMlp::new(config);
    let rows = 256;
    let tensor = |seed: u64, columns: usize| {
        let values = Seed::new(seed).normals(rows * columns);
        Tensor::from_vec(values, (rows, columns), &Device::Cpu).expect("the values fill the shape")
    };
    let (x, condition) = (tensor(11, config.inputs), tensor(12, config.conditioning));
    let settings = FlatOptimizerConfig { weight_decay: 0.0, clip_norm: 1.0, ema_decay: 0.99 };
    let mut optimizer = FlatOptimizer::new(settings, &network.initial(Seed::new(13)), &[Device::Cpu], Precision::Single)
        .expect("parameters fit in memory");
    let mut group = criterion.benchmark_group("residual MLP 99-256×3-99, 256 rows");
    group.throughput(Throughput::Elements(rows as u64));
    let theta = optimizer.parameters().clone();
    let loss = || network.forward(&x, &condition, &theta).and_then(|y| Ok((y - &x)?.sqr()?.mean_all()?)).expect("the shapes fit");
    group.bench_function("forward", |b| b.iter(|| network.forward(&x, &condition, &theta).expect("the shapes fit")));
    group.bench_function("forward and backward", |b| b.iter(|| loss().backward().expect("the network is differentiable")));
    group.bench_function("training step", |b| {
        b.iter(|| {
            loss().backward().expect("the network is differentiable");
            optimizer.update(1e-3).expect("the CPU does not fail");
        });
    });
    group.finish();
}

fn quick() -> Criterion {
    Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(400)).measurement_time(Duration::from_millis(1_200))
}

criterion_group! { name = kernels; config = quick(); targets = sparse_linear, dense_linear, images, pool_and_norm, loss, optimizer, residual_mlp }
criterion_main!(kernels);
