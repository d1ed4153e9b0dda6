//! Batch norms of populations.

use super::{Pair, Values, run, wide};
use weft_core::Seed;
use weft_ops::backend::{Backend, Batch, BatchNorm, CudaReal, Slot};

/// Values around `centre`, and parameters above 0.
fn shifted<T: CudaReal>(pair: &Pair<T>, seed: u64, len: usize, map: impl Fn(f64) -> f64) -> Values<T> {
    let values: Vec<T> = pair.values(seed, len).cpu.iter().map(|&v| T::from_f32(map(v) as f32)).collect();
    let cpu = values.iter().map(|v| f64::from(v.to_f32())).collect();
    Values { gpu: pair.gpu.from_slice(&values).unwrap(), cpu }
}

fn batch_norms_on<T: CudaReal>(pair: &Pair<T>) {
    // Networks, rows, channels, what lies before the parameters, the mean of all values.
    let cases = [
        (1, 40, 16, 0, 0.0),
        (3, 49, 8, 8, 1.0),
        (3, 50, 3, 1, -2.0),
        (1, 100_000, 4, 3, 30.0),
        (1, 70_000, 16, 0, 1000.0),
        (2, 3, 300, 5, 0.5),
        (1, 1, 5, 0, 0.0),
        (600, 36, 32, 16, 1.0),
        (4, 5000, 72, 2, 3.0),
    ];
    for (networks, rows, width, before, centre) in cases {
        let offset = |k: usize| before + k * width;
        let norm = BatchNorm { width, epsilon: 1e-5, gain: offset(0), bias: offset(1), mean: offset(2), variance: offset(3) };
        let batch = Batch { networks, rows, stride: offset(4) + before, shared: false };
        let theta = shifted(pair, 1, networks * batch.stride, |v| v.abs() + 0.1);
        let x = shifted(pair, 2, networks * rows * width, |v| v + centre);
        let dy = pair.values(3, x.cpu.len());
        for training in [true, false] {
            let name = |what: &str| format!("{what} {networks}×{rows}×{width} around {centre} {training}");
            let (y, statistics, moved) = pair.gpu.batch_norm(&norm, batch, x.view(), theta.view(), training).unwrap();
            let (cpu_y, cpu_statistics, cpu_moved) = pair.cpu.batch_norm(&norm, batch, &x.cpu, &theta.cpu, training).unwrap();
            pair.compare(&name("batch norm"), &y, &cpu_y);
            // Means and scales are of different magnitudes.
            let got = pair.gpu.to_vec(&statistics).unwrap();
            for (half, what) in ["means", "scales"].into_iter().enumerate() {
                let of = |n: usize| (2 * n + half) * width..(2 * n + half + 1) * width;
                let got: Vec<f64> = (0..networks).flat_map(|n| &got[of(n)]).map(|&v| f64::from(v)).collect();
                let expected: Vec<f64> = (0..networks).flat_map(|n| &cpu_statistics[of(n)]).copied().collect();
                pair.judge(&name(what), &got, &expected);
            }
            assert_eq!(moved.is_some(), training);
            if let (Some(moved), Some(cpu_moved)) = (&moved, &cpu_moved) {
                pair.compare(&name("moved"), moved, cpu_moved);
            }
            let (mut gradient, cpu_gradient) = wide(4, theta.cpu.len());
            let mut expected = pair.cpu.from_slice(&cpu_gradient);
            let dx = pair
                .gpu
                .batch_norm_backward(&norm, batch, x.view(), &statistics, theta.view(), training, dy.view(), &mut gradient)
                .unwrap();
            let cpu_dx = pair
                .cpu
                .batch_norm_backward(&norm, batch, &x.cpu, &cpu_statistics, &theta.cpu, training, &dy.cpu, &mut expected)
                .unwrap();
            // One row is its own mean: both gradients are 0 but for rounding.
            if rows > 1 || !training {
                pair.compare(&name("dx"), &dx, &cpu_dx);
            }
            pair.compare(&name("gradient"), &gradient, &expected);
        }
    }
}

#[test]
fn batch_norms() {
    run("batch norm", batch_norms_on, batch_norms_on);
}

/// Running statistics move in `f32` whatever is computed in: each move is smaller than what `bf16` can tell.
fn running_statistics_on<T: CudaReal>(pair: &Pair<T>) {
    let (width, rows) = (8, 64);
    let norm = BatchNorm { width, epsilon: 1e-5, gain: 3, bias: 11, mean: 20, variance: 28 };
    let batch = Batch { networks: 2, rows, stride: 40, shared: false };
    let start: Vec<f32> = Seed::new(1).uniforms(80).iter().map(|v| v + 1.0).collect();
    let x = shifted(pair, 2, 2 * rows * width, |v| v * 0.1 + 1.45);
    let mut gpu = pair.gpu.parameters(&start, true).unwrap();
    let mut cpu = pair.cpu.parameters(&start, true).unwrap();
    for _ in 0..60 {
        let (_, _, moved) = pair.gpu.batch_norm(&norm, batch, x.view(), pair.gpu.theta(&gpu), true).unwrap();
        pair.gpu.set_statistics(&mut gpu, &norm, batch, &moved.unwrap()).unwrap();
        let (_, _, moved) = pair.cpu.batch_norm(&norm, batch, &x.cpu, pair.cpu.theta(&cpu), true).unwrap();
        pair.cpu.set_statistics(&mut cpu, &norm, batch, &moved.unwrap()).unwrap();
    }
    let [got, expected] = [pair.gpu.read(&gpu, Slot::Theta).unwrap(), pair.cpu.read(&cpu, Slot::Theta).unwrap()];
    assert!(got.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} and {expected:?}");
    // The copy that is computed with has them, too.
    let mut copy = pair.gpu.zeros(80).unwrap();
    pair.gpu.add(&mut copy, pair.gpu.theta(&gpu)).unwrap();
    let rounded: Vec<f64> = got.iter().map(|&v| f64::from(T::from_f32(v).to_f32())).collect();
    pair.same("copy", &copy, &rounded);
}

#[test]
fn running_statistics() {
    run("running", running_statistics_on, running_statistics_on);
}
