//! Norms over examples and pixels, channels innermost. A network's sums are taken by one task, in `f64`.

use super::super::{Batch, BatchNorm};
use super::{ROWS, Real};
use crate::kernels::BATCH_NORM_MOMENTUM;
use rayon::prelude::*;

/// A network's values of one parameter.
fn parameter<'a, T>(norm: &BatchNorm, batch: Batch, network: usize, theta: &'a [T], offset: usize) -> &'a [T] {
    &theta[network * batch.stride + offset..][..norm.width]
}

fn check<T>(norm: &BatchNorm, batch: Batch, x: &[T]) {
    assert!(!batch.shared, "each network has rows of its own");
    assert_eq!(x.len(), batch.networks * batch.rows * norm.width, "rows of a batch norm");
}

/// The sums over rows of what is made of a column's number and value.
fn sums<T: Real>(width: usize, x: &[T], map: impl Fn(usize, usize, f64) -> f64) -> Vec<f64> {
    let mut sums = vec![0.0; width];
    for (r, row) in x.chunks_exact(width).enumerate() {
        for (c, (sum, v)) in sums.iter_mut().zip(row).enumerate() {
            *sum += map(r, c, v.to_f64());
        }
    }
    sums
}

/// Each network's mean and sum of squared deviations.
fn moments<T: Real>(norm: &BatchNorm, batch: Batch, x: &[T]) -> Vec<[Vec<f64>; 2]> {
    let networks = x.par_chunks(batch.rows * norm.width);
    networks
        .map(|x| {
            let mut mean = sums(norm.width, x, |_, _, v| v);
            for mean in &mut mean {
                *mean /= batch.rows as f64;
            }
            let squares = sums(norm.width, x, |_, c, v| (v - mean[c]).powi(2));
            [mean, squares]
        })
        .collect()
}

/// Writes `y`, the statistics that it is normalized by and, if they are wanted, the running ones after it; without these, it is
/// normalized by the running ones.
pub(super) fn forward<T: Real>(
    norm: &BatchNorm,
    batch: Batch,
    (x, theta): (&[T], &[T]),
    y: &mut [T],
    (statistics, moved): (&mut [T], Option<&mut [T]>),
) {
    check(norm, batch, x);
    let width = norm.width;
    let of = |network, offset| parameter(norm, batch, network, theta, offset);
    let scale = |variance: f64| T::from_f64(1.0 / (variance + norm.epsilon).sqrt());
    if let Some(moved) = moved {
        let (count, momentum) = (batch.rows as f64, f64::from(BATCH_NORM_MOMENTUM));
        let networks = statistics.chunks_exact_mut(2 * width).zip(moved.chunks_exact_mut(2 * width));
        for (n, ([mean, squares], (used, moved))) in moments(norm, batch, x).into_iter().zip(networks).enumerate() {
            let [old_mean, old_variance] = [norm.mean, norm.variance].map(|offset| of(n, offset));
            let toward = |old: T, new: f64| T::from_f64(old.to_f64() + momentum * (new - old.to_f64()));
            for c in 0..width {
                used[c] = T::from_f64(mean[c]);
                used[width + c] = scale(squares[c] / count);
                moved[c] = toward(old_mean[c], mean[c]);
                moved[width + c] = toward(old_variance[c], squares[c] / (count - 1.0).max(1.0));
            }
        }
    } else {
        for (n, used) in statistics.chunks_exact_mut(2 * width).enumerate() {
            let (mean, factor) = used.split_at_mut(width);
            mean.copy_from_slice(of(n, norm.mean));
            factor.iter_mut().zip(of(n, norm.variance)).for_each(|(f, v)| *f = scale(v.to_f64()));
        }
    }
    y.par_chunks_mut(width).zip(x.par_chunks(width)).enumerate().with_min_len(ROWS).for_each(|(r, (y, x))| {
        let n = r / batch.rows;
        let (mean, factor) = statistics[n * 2 * width..][..2 * width].split_at(width);
        let (gain, bias) = (of(n, norm.gain), of(n, norm.bias));
        for (c, (y, &x)) in y.iter_mut().zip(x).enumerate() {
            *y = ((x - mean[c]) * factor[c]).mul_add(gain[c], bias[c]);
        }
    });
}

/// What the gradient of a batch norm is computed from.
pub(super) struct Backward<'a, T> {
    pub(super) norm: &'a BatchNorm,
    pub(super) batch: Batch,
    pub(super) x: &'a [T],
    pub(super) statistics: &'a [T],
    pub(super) theta: &'a [T],
    pub(super) training: bool,
    pub(super) dy: &'a [T],
}

impl<T: Real> Backward<'_, T> {
    /// Writes `dx`, and adds to the gradients of parameters.
    pub(super) fn run(&self, dx: &mut [T], gradient: &mut [T]) {
        let (norm, batch, width) = (self.norm, self.batch, self.norm.width);
        check(norm, batch, self.x);
        let values = batch.rows * width;
        let networks = dx.par_chunks_mut(values).zip(self.x.par_chunks(values).zip(self.dy.par_chunks(values))).enumerate();
        let sums: Vec<[Vec<f64>; 2]> = networks.map(|(n, (dx, (x, dy)))| self.network(n, x, dy, dx)).collect();
        for (n, [sums, products]) in sums.iter().enumerate() {
            let mut add = |offset: usize, value: &dyn Fn(usize) -> f64| {
                let gradient = &mut gradient[n * batch.stride + offset..][..width];
                gradient.iter_mut().enumerate().for_each(|(c, g)| *g += T::from_f64(value(c)));
            };
            add(norm.gain, &|c| products[c]);
            add(norm.bias, &|c| sums[c]);
            if self.training {
                continue;
            }
            let gain = parameter(norm, batch, n, self.theta, norm.gain);
            let [gain, factor] = [gain, &self.statistics[(2 * n + 1) * width..][..width]];
            add(norm.mean, &|c| -gain[c].to_f64() * factor[c].to_f64() * sums[c]);
            add(norm.variance, &|c| -0.5 * gain[c].to_f64() * factor[c].to_f64().powi(2) * products[c]);
        }
    }

    /// Writes `dx` of one network, and returns `Σ dy` and `Σ dy·(x − μ)·s`.
    fn network(&self, n: usize, x: &[T], dy: &[T], dx: &mut [T]) -> [Vec<f64>; 2] {
        let width = self.norm.width;
        let (mean, factor) = self.statistics[n * 2 * width..][..2 * width].split_at(width);
        let gain = parameter(self.norm, self.batch, n, self.theta, self.norm.gain);
        let normal = |r: usize, c: usize| (x[r * width + c].to_f64() - mean[c].to_f64()) * factor[c].to_f64();
        let total = sums(width, dy, |_, _, d| d);
        let products = sums(width, dy, |r, c, d| d * normal(r, c));
        // In inference, nothing goes through the statistics.
        let share = if self.training { 1.0 / self.batch.rows as f64 } else { 0.0 };
        for (r, (dx, dy)) in dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).enumerate() {
            for (c, (dx, dy)) in dx.iter_mut().zip(dy).enumerate() {
                let through = share * (total[c] + normal(r, c) * products[c]);
                *dx = T::from_f64(gain[c].to_f64() * factor[c].to_f64() * (dy.to_f64() - through));
            }
        }
        [total, products]
    }
}

/// Writes running statistics into the parameters.
pub(super) fn set<T: Real>(norm: &BatchNorm, batch: Batch, moved: &[T], theta: &mut [T]) {
    assert_eq!(moved.len(), batch.networks * 2 * norm.width, "running statistics");
    for (n, moved) in moved.chunks_exact(2 * norm.width).enumerate() {
        for (offset, moved) in [norm.mean, norm.variance].into_iter().zip(moved.chunks_exact(norm.width)) {
            theta[n * batch.stride + offset..][..norm.width].copy_from_slice(moved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Backend;
    use super::super::Cpu;
    use super::*;
    use crate::kernels::{self, Moments, blocked_len, blocks_from_rows, rows_from_blocks};
    use weft_core::Seed;

    const CHANNELS: usize = 3;
    const PIXELS: usize = 5;
    const EXAMPLES: usize = 11;

    /// Examples of pixels of channels, as blocks of the engine's, and back.
    fn to_blocks(x: &[f32]) -> Vec<f32> {
        let cpu = Cpu::<f32>::new();
        let first = cpu.transpose([EXAMPLES, PIXELS, CHANNELS], x).unwrap();
        let mut blocks = vec![0.0; blocked_len(EXAMPLES, PIXELS * CHANNELS)];
        blocks_from_rows(PIXELS * CHANNELS, &first, &mut blocks);
        blocks
    }

    fn from_blocks(blocks: &[f32]) -> Vec<f32> {
        let mut first = vec![0.0; EXAMPLES * PIXELS * CHANNELS];
        rows_from_blocks(PIXELS * CHANNELS, blocks, &mut first);
        Cpu::<f32>::new().transpose([EXAMPLES, CHANNELS, PIXELS], &first).unwrap().to_vec()
    }

    fn close(got: &[f32], expected: &[f32]) {
        assert_eq!(got.len(), expected.len());
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs())), "{got:?} and {expected:?}");
    }

    /// Both engines, which share no code, of the second of two networks.
    #[test]
    fn normalizes_as_the_engine_does() {
        let cpu = Cpu::<f32>::new();
        let norm = BatchNorm { width: CHANNELS, epsilon: 1e-3, gain: 1, bias: 10, mean: 4, variance: 7 };
        let batch = Batch { networks: 2, rows: EXAMPLES * PIXELS, stride: 14, shared: false };
        let len = batch.rows * CHANNELS;
        let theta: Vec<f32> = Seed::new(1).uniforms(28).iter().map(|v| v + 0.5).collect();
        let x: Vec<f32> = Seed::new(2).normals(2 * len).iter().map(|v| 2.0 * v + 3.0).collect();
        let dy = Seed::new(3).normals(2 * len);
        let own = &theta[14..];
        let [gain, bias, mean, variance] = [1, 10, 4, 7].map(|offset| &own[offset..][..CHANNELS]);
        let engine = kernels::BatchNorm { gain, bias, mean, variance, epsilon: 1e-3 };
        let (x_blocks, dy_blocks) = (to_blocks(&x[len..]), to_blocks(&dy[len..]));
        for training in [true, false] {
            let (mut y, mut dx, mut moments) = (vec![0.0; x_blocks.len()], vec![0.0; x_blocks.len()], Moments::default());
            let [mut d_gain, mut d_bias] = [vec![0.0; CHANNELS], vec![0.0; CHANNELS]];
            let mut engine_gradient = kernels::BatchNormGradient { gain: &mut d_gain, bias: &mut d_bias };
            let (got, statistics, moved) = cpu.batch_norm(&norm, batch, &x, &theta, training).unwrap();
            let mut gradient = cpu.zeros(28).unwrap();
            let got_dx = cpu.batch_norm_backward(&norm, batch, &x, &statistics, &theta, training, &dy, &mut gradient).unwrap();
            let to = Some(dx.as_mut_slice());
            if training {
                let expected = kernels::batch_norm_train(&engine, EXAMPLES, &x_blocks, &mut y, &mut moments);
                kernels::batch_norm_train_backward((gain, &moments), EXAMPLES, &x_blocks, &dy_blocks, to, &mut engine_gradient);
                close(&moved.as_ref().unwrap()[2 * CHANNELS..], &expected.concat());
                assert!(gradient[18..24].iter().all(|&g| g.to_bits() == 0), "running statistics have no gradient in training");
            } else {
                kernels::batch_norm_infer(&engine, EXAMPLES, &x_blocks, &mut y, &mut moments);
                let [d_mean, d_variance] =
                    kernels::batch_norm_infer_backward((gain, &moments), EXAMPLES, &x_blocks, &dy_blocks, to, &mut engine_gradient);
                close(&gradient[18..21], &d_mean);
                close(&gradient[21..24], &d_variance);
                assert!(moved.is_none());
            }
            close(&got[len..], &from_blocks(&y));
            close(&statistics[2 * CHANNELS..], &[moments.mean, moments.scale].concat());
            close(&got_dx[len..], &from_blocks(&dx));
            close(&gradient[15..18], &d_gain);
            close(&gradient[24..27], &d_bias);
            if let Some(moved) = moved {
                let mut parameters = cpu.parameters(&theta, true).unwrap();
                cpu.set_statistics(&mut parameters, &norm, batch, &moved).unwrap();
                let set = parameters.theta();
                assert_eq!(set[4..10], moved[..6]);
                assert_eq!(set[18..24], moved[6..]);
                assert_eq!([&set[..4], &set[10..18], &set[24..]].concat(), [&theta[..4], &theta[10..18], &theta[24..]].concat());
            }
        }
    }
}
