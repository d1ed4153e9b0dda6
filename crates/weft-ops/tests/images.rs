//! The kernels on images against a plain `f64` reference, and their gradients against its differences.
//!
//! The reference works on rows `[b, c, h, w]`, one number at a time, and shares no code with the kernels. A gradient is checked
//! along a random direction `h`: `(f(x + εh) − f(x − εh)) / 2ε = ⟨h, ∂f⟩` for `f(x) = ⟨dy, y(x)⟩`.

use proptest::prelude::*;
use weft_core::Seed;
use weft_ops::kernels::{
    BatchNorm, BatchNormGradient, ConvScratch, ConvShape, Moments, PoolShape, Pooling, batch_norm_infer, batch_norm_infer_backward,
    batch_norm_train, batch_norm_train_backward, blocked_len, blocks_from_rows, conv_backward_input, conv_backward_weight,
    conv_forward, layer_norm_backward, layer_norm_forward, pool_backward, pool_forward, rows_from_blocks,
};

fn blocks(features: usize, rows: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; blocked_len(rows.len() / features, features)];
    blocks_from_rows(features, rows, &mut out);
    out
}

fn rows(examples: usize, features: usize, blocks: &[f32]) -> Vec<f32> {
    let mut out = vec![0.0; examples * features];
    rows_from_blocks(features, blocks, &mut out);
    out
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn close(got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "lengths differ");
    for (at, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(g) - e).abs() < 2e-4 * (1.0 + e.abs()), "entry {at}: {g}, expected {e}");
    }
}

/// Compares a gradient with a central difference of `f` along a random direction.
fn check_direction(seed: Seed, x: &[f32], gradient: &[f32], f: impl Fn(&[f64]) -> f64) {
    let h = wide(&seed.normals(x.len()));
    let at = |e: f64| f(&wide(x).iter().zip(&h).map(|(x, h)| x + e * h).collect::<Vec<_>>());
    let numeric = (at(1e-5) - at(-1e-5)) / 2e-5;
    let exact = dot(&h, &wide(gradient));
    let size = dot(&h, &h).sqrt() * dot(&wide(gradient), &wide(gradient)).sqrt();
    assert!((numeric - exact).abs() < 1e-4 * (1.0 + size), "along a direction: {exact}, by differences {numeric}");
}

/// `x` `[b, c, h, w]`, `weight` `[o, c, u, v]` → `[b, o, h', w']`.
fn conv_reference(s: &ConvShape, examples: usize, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
    let ([c, o], [h, w], [u, v]) = (s.channels, s.size, s.kernel);
    let [h_out, w_out] = s.size_out();
    let mut y = Vec::new();
    for e in 0..examples {
        for (out, bias) in bias.iter().enumerate().take(o) {
            for at in 0..h_out * w_out {
                let mut sum = *bias;
                for tap in 0..c * u * v {
                    let (channel, du, dv) = (tap / (u * v), tap / v % u, tap % v);
                    let row = (at / w_out * s.stride[0] + du).checked_sub(s.padding[0]).filter(|r| *r < h);
                    let column = (at % w_out * s.stride[1] + dv).checked_sub(s.padding[1]).filter(|q| *q < w);
                    if let (Some(row), Some(column)) = (row, column) {
                        sum += weight[out * c * u * v + tap] * x[((e * c + channel) * h + row) * w + column];
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

fn transposed([r, c]: [usize; 2], a: &[f32]) -> Vec<f32> {
    (0..r * c).map(|i| a[i % r * c + i / r]).collect()
}

/// Runs all three kernels on one case and compares them with the reference.
fn check_conv(s: &ConvShape, examples: usize, seed: Seed) {
    let [h_out, w_out] = s.size_out();
    let (features, features_out) = (s.channels[0] * s.size[0] * s.size[1], s.channels[1] * h_out * w_out);
    let (x, weight) = (seed.fork("x").normals(examples * features), seed.fork("w").normals(s.channels[1] * s.taps()));
    let (bias, dy) = (seed.fork("b").normals(s.channels[1]), seed.fork("dy").normals(examples * features_out));
    let engine = transposed([s.channels[1], s.taps()], &weight);
    let mut scratch = ConvScratch::default();
    let (x_blocks, dy_blocks) = (blocks(features, &x), blocks(features_out, &dy));

    let mut y = vec![9.0; blocked_len(examples, features_out)];
    conv_forward(s, &x_blocks, &engine, Some(&bias), &mut y, &mut scratch);
    let reference = |x: &[f64], w: &[f64], b: &[f64]| conv_reference(s, examples, x, w, b);
    close(&rows(examples, features_out, &y), &reference(&wide(&x), &wide(&weight), &wide(&bias)));
    conv_forward(s, &x_blocks, &engine, None, &mut y, &mut scratch);
    close(&rows(examples, features_out, &y), &reference(&wide(&x), &wide(&weight), &vec![0.0; bias.len()]));

    let mut dx = vec![1.0; x_blocks.len()];
    let (mut d_weight, mut d_bias) = (vec![1.0; weight.len()], vec![1.0; bias.len()]);
    conv_backward_input(s, &engine, &dy_blocks, &mut dx, &mut scratch);
    conv_backward_weight(s, &x_blocks, &dy_blocks, &mut d_weight, Some(&mut d_bias), &mut scratch);
    let less_one = |v: &[f32]| v.iter().map(|v| v - 1.0).collect::<Vec<f32>>();
    let dx = less_one(&rows(examples, features, &dx));
    let d_weight = transposed([s.taps(), s.channels[1]], &less_one(&d_weight));
    let loss = |y: Vec<f64>| dot(&y, &wide(&dy));
    check_direction(seed.fork("hx"), &x, &dx, |x| loss(reference(x, &wide(&weight), &wide(&bias))));
    check_direction(seed.fork("hw"), &weight, &d_weight, |w| loss(reference(&wide(&x), w, &wide(&bias))));
    check_direction(seed.fork("hb"), &bias, &less_one(&d_bias), |b| loss(reference(&wide(&x), &wide(&weight), b)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn convolution_equals_reference(
        channels in (1usize..7, 1usize..10), size in (1usize..10, 1usize..10), kernel in (1usize..8, 1usize..8),
        stride in (1usize..4, 1usize..4), padding in (0usize..5, 0usize..5), examples in 1usize..20, seed in 0u64..1000,
    ) {
        let s = ConvShape {
            channels: channels.into(), size: size.into(), kernel: kernel.into(), stride: stride.into(), padding: padding.into(),
        };
        prop_assume!(s.size_out().iter().all(|n| *n > 0));
        check_conv(&s, examples, Seed::new(seed));
    }

    #[test]
    fn pooling_equals_reference(
        size in (1usize..9, 1usize..9), kernel in (1usize..5, 1usize..5), stride in (1usize..4, 1usize..4),
        padding in (0usize..3, 0usize..3), max: bool, examples in 1usize..20, seed in 0u64..1000,
    ) {
        let s = PoolShape { size: size.into(), kernel: kernel.into(), stride: stride.into(), padding: padding.into() };
        prop_assume!((0..2).all(|a| s.padding[a] < s.kernel[a] && s.size_out()[a] > 0));
        check_pool(if max { Pooling::Max } else { Pooling::Average }, &s, examples, Seed::new(seed));
    }

    #[test]
    fn batch_norm_equals_reference(channels in 1usize..5, pixels in 1usize..7, examples in 2usize..40, seed in 0u64..1000) {
        check_batch_norm(channels, pixels, examples, Seed::new(seed));
    }

    #[test]
    fn layer_norm_equals_reference(width in 2usize..40, examples in 1usize..6, seed in 0u64..1000) {
        check_layer_norm(width, examples, Seed::new(seed));
    }
}

#[test]
fn convolutions_of_known_networks() {
    for (channels, size, kernel, stride, padding) in [
        ([1, 8], [28, 28], 5, 1, 0),
        ([8, 6], [12, 12], 5, 1, 0),
        ([6, 4], [4, 4], 2, 1, 0),
        ([8, 16], [14, 14], 3, 1, 1),
        ([16, 32], [8, 8], 3, 2, 1),
        ([16, 64], [7, 7], 1, 2, 0),
        ([3, 8], [15, 15], 7, 2, 3),
    ] {
        let s = ConvShape { channels, size, kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2] };
        check_conv(&s, 17, Seed::new(3));
    }
}

fn pool_reference(pooling: Pooling, s: &PoolShape, x: &[f64]) -> Vec<f64> {
    let ([h, w], [h_out, w_out]) = (s.size, s.size_out());
    let mut y = Vec::new();
    for plane in x.chunks_exact(h * w) {
        for at in 0..h_out * w_out {
            let (mut max, mut sum, mut count) = (f64::NEG_INFINITY, 0.0, 0.0);
            for tap in 0..s.kernel[0] * s.kernel[1] {
                let row = (at / w_out * s.stride[0] + tap / s.kernel[1]).checked_sub(s.padding[0]).filter(|r| *r < h);
                let column = (at % w_out * s.stride[1] + tap % s.kernel[1]).checked_sub(s.padding[1]).filter(|q| *q < w);
                if let (Some(row), Some(column)) = (row, column) {
                    max = max.max(plane[row * w + column]);
                    sum += plane[row * w + column];
                    count += 1.0;
                }
            }
            y.push(if pooling == Pooling::Max { max } else { sum / count });
        }
    }
    y
}

fn check_pool(pooling: Pooling, s: &PoolShape, examples: usize, seed: Seed) {
    let channels = 2;
    let (features, features_out) = (channels * s.size[0] * s.size[1], channels * s.size_out().iter().product::<usize>());
    let (x, dy) = (seed.fork("x").normals(examples * features), seed.fork("dy").normals(examples * features_out));
    let x_blocks = blocks(features, &x);
    let mut y = vec![9.0; blocked_len(examples, features_out)];
    pool_forward(pooling, s, &x_blocks, &mut y);
    close(&rows(examples, features_out, &y), &pool_reference(pooling, s, &wide(&x)));
    let mut dx = vec![1.0; x_blocks.len()];
    pool_backward(pooling, s, (&x_blocks, &y), &blocks(features_out, &dy), &mut dx);
    let dx: Vec<f32> = rows(examples, features, &dx).iter().map(|v| v - 1.0).collect();
    check_direction(seed.fork("h"), &x, &dx, |x| dot(&pool_reference(pooling, s, x), &wide(&dy)));
}

#[test]
fn the_first_of_equal_maxima_gets_the_gradient() {
    let s = PoolShape { size: [2, 2], kernel: [2, 2], stride: [2, 2], padding: [0, 0] };
    let (x, mut y) = (blocks(4, &[0.0, 3.0, 3.0, 3.0]), vec![0.0; blocked_len(1, 1)]);
    pool_forward(Pooling::Max, &s, &x, &mut y);
    let mut dx = vec![0.0; x.len()];
    pool_backward(Pooling::Max, &s, (&x, &y), &blocks(1, &[5.0]), &mut dx);
    assert_eq!(rows(1, 4, &dx), [0.0, 5.0, 0.0, 0.0]);
    let global = PoolShape::global([2, 2]);
    pool_forward(Pooling::Average, &global, &x, &mut y);
    assert_eq!(rows(1, 1, &y), [2.25]);
}

/// `weights` are gain, bias, and running mean and variance, which stand for the batch's own where given.
fn batch_norm_reference(
    examples: usize,
    x: &[f64],
    [gain, bias]: [&[f64]; 2],
    running: Option<[&[f64]; 2]>,
) -> (Vec<f64>, [Vec<f64>; 2]) {
    let (channels, features) = (gain.len(), x.len() / examples);
    let pixels = features / channels;
    let mut y = vec![0.0; x.len()];
    let mut moments = [Vec::new(), Vec::new()];
    for c in 0..channels {
        let places: Vec<usize> = (0..examples * pixels).map(|i| i / pixels * features + c * pixels + i % pixels).collect();
        let n = places.len() as f64;
        let own = places.iter().map(|&p| x[p]).sum::<f64>() / n;
        let squares = places.iter().map(|&p| (x[p] - own).powi(2)).sum::<f64>();
        let [mean, variance] = running.map_or([own, squares / n], |r| [r[0][c], r[1][c]]);
        moments[0].push(own);
        moments[1].push(squares / (n - 1.0));
        for p in places {
            y[p] = (x[p] - mean) / (variance + 1e-5).sqrt() * gain[c] + bias[c];
        }
    }
    (y, moments)
}

fn check_batch_norm(channels: usize, pixels: usize, examples: usize, seed: Seed) {
    let features = channels * pixels;
    let x: Vec<f32> = seed.fork("x").normals(examples * features).iter().map(|v| 2.0 * v + 3.0).collect();
    let dy = seed.fork("dy").normals(x.len());
    let [gain, bias, mean] = ["gain", "bias", "mean"].map(|name| seed.fork(name).normals(channels));
    let variance: Vec<f32> = seed.fork("variance").uniforms(channels).iter().map(|v| v + 0.5).collect();
    let norm = BatchNorm { gain: &gain, bias: &bias, mean: &mean, variance: &variance, epsilon: 1e-5 };
    let [wx, wdy, wg, wb, wm, wv] = [&x, &dy, &gain, &bias, &mean, &variance].map(|v| wide(v));
    let (x_blocks, dy_blocks) = (blocks(features, &x), blocks(features, &dy));
    let (mut y, mut moments) = (vec![0.0; x_blocks.len()], Moments::default());
    let loss = |x: &[f64], g: &[f64], b: &[f64], r: Option<[&[f64]; 2]>| dot(&batch_norm_reference(examples, x, [g, b], r).0, &wdy);
    for train in [true, false] {
        let (mut d_gain, mut d_bias, mut dx) = (vec![0.0; channels], vec![0.0; channels], vec![0.0; x_blocks.len()]);
        let mut gradient = BatchNormGradient { gain: &mut d_gain, bias: &mut d_bias };
        let running = (!train).then_some([wm.as_slice(), &wv]);
        if train {
            let moved = batch_norm_train(&norm, examples, &x_blocks, &mut y, &mut moments);
            let (_, own) = batch_norm_reference(examples, &wx, [&wg, &wb], None);
            for ((moved, old), own) in moved.iter().zip([&wm, &wv]).zip(&own) {
                close(moved, &old.iter().zip(own).map(|(old, own)| 0.9 * old + 0.1 * own).collect::<Vec<_>>());
            }
            batch_norm_train_backward((&gain, &moments), examples, &x_blocks, &dy_blocks, Some(&mut dx), &mut gradient);
        } else {
            batch_norm_infer(&norm, examples, &x_blocks, &mut y, &mut moments);
            let [d_mean, d_variance] =
                batch_norm_infer_backward((&gain, &moments), examples, &x_blocks, &dy_blocks, Some(&mut dx), &mut gradient);
            check_direction(seed.fork("hm"), &mean, &d_mean, |m| loss(&wx, &wg, &wb, Some([m, &wv])));
            check_direction(seed.fork("hv"), &variance, &d_variance, |v| loss(&wx, &wg, &wb, Some([&wm, v])));
        }
        close(&rows(examples, features, &y), &batch_norm_reference(examples, &wx, [&wg, &wb], running).0);
        check_direction(seed.fork("hx"), &x, &rows(examples, features, &dx), |x| loss(x, &wg, &wb, running));
        check_direction(seed.fork("hg"), &gain, &d_gain, |g| loss(&wx, g, &wb, running));
        check_direction(seed.fork("hb"), &bias, &d_bias, |b| loss(&wx, &wg, b, running));
        let total: f32 = dx.iter().map(|v| v.abs()).sum();
        let kept: f32 = rows(examples, features, &dx).iter().map(|v| v.abs()).sum();
        assert!((total - kept).abs() <= 1e-5 * total, "padding has a gradient");
    }
}

fn layer_norm_reference(x: &[f64], gain: &[f64], bias: &[f64]) -> Vec<f64> {
    let width = gain.len();
    let mut y = Vec::new();
    for row in x.chunks_exact(width) {
        let mean = row.iter().sum::<f64>() / width as f64;
        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / width as f64;
        y.extend(row.iter().zip(gain).zip(bias).map(|((v, g), b)| (v - mean) / (variance + 1e-2).sqrt() * g + b));
    }
    y
}

fn check_layer_norm(width: usize, examples: usize, seed: Seed) {
    let (x, dy) = (seed.fork("x").normals(examples * width), seed.fork("dy").normals(examples * width));
    let [gain, bias] = ["gain", "bias"].map(|name| seed.fork(name).normals(width));
    let [wx, wdy, wg, wb] = [&x, &dy, &gain, &bias].map(|v| wide(v));
    let mut y = vec![0.0; x.len()];
    layer_norm_forward([&gain, &bias], 1e-2, &x, &mut y);
    close(&y, &layer_norm_reference(&wx, &wg, &wb));
    let (mut dx, mut d_gain, mut d_bias) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
    layer_norm_backward(&gain, 1e-2, &x, &dy, Some(&mut dx), [&mut d_gain, &mut d_bias]);
    check_direction(seed.fork("hx"), &x, &dx, |x| dot(&layer_norm_reference(x, &wg, &wb), &wdy));
    check_direction(seed.fork("hg"), &gain, &d_gain, |g| dot(&layer_norm_reference(&wx, g, &wb), &wdy));
    check_direction(seed.fork("hb"), &bias, &d_bias, |b| dot(&layer_norm_reference(&wx, &wg, b), &wdy));
}
