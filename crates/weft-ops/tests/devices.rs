//! Several GPUs: their sums, and a training that they share.
//!
//! One test at a time, and in a program of their own: kernels of NCCL wait for each other on the devices, and what another thread loads or
//! allocates meanwhile may wait for them. Without two GPUs the tests say that they are skipped.
#![cfg(feature = "cuda")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use candle_core::{CudaDevice, Device};
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use weft_core::{Activation, Seed};
use weft_ops::backend::{Backend, Cuda, Slot};
use weft_ops::tensor::{
    FlatOptimizer, FlatOptimizerConfig, Lesson, Network, Precision, ResidualMlp, ResidualMlpConfig, Transformer, TransformerConfig,
    regress,
};

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Up to four GPUs, for one test at a time; none where there is not a second one.
fn devices(topic: &str) -> Option<(Vec<CudaDevice>, MutexGuard<'static, ()>)> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let devices: Vec<_> = (0..4).map_while(|ordinal| CudaDevice::new_with_stream(ordinal).ok()).collect();
    if devices.len() < 2 {
        say(&format!("skipped: {topic}: no two GPUs"));
        return None;
    }
    Some((devices, guard))
}

#[test]
fn vectors_are_summed_in_place_and_alike() {
    let Some((devices, _guard)) = devices("sums over devices") else { return };
    let backends: Vec<_> = devices.iter().map(|device| Cuda::<f32>::new(device).unwrap()).collect();
    let group = Cuda::join(&backends).unwrap();
    for len in [1, 5003, 1 << 20, 30_000_001] {
        let parts: Vec<_> = (0..backends.len() as u64).map(|i| Seed::new(1).index(i).normals(len)).collect();
        let expected: Vec<f64> = (0..len).map(|i| parts.iter().map(|part| f64::from(part[i])).sum()).collect();
        let mut vectors: Vec<_> = backends.iter().zip(&parts).map(|(backend, part)| backend.from_slice(part).unwrap()).collect();
        Cuda::<f32>::all_reduce(&group, &mut vectors.iter_mut().collect::<Vec<_>>()).unwrap();
        let sums: Vec<_> = backends.iter().zip(&vectors).map(|(backend, vector)| backend.to_vec(vector).unwrap()).collect();
        assert!(sums.iter().all(|sum| *sum == sums[0]), "{len} values: devices have other sums");
        let apart = sums[0].iter().zip(&expected).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        assert!(apart < 1e-5, "{len} values are {apart} off");
    }
    Cuda::<f32>::abort(&group);
    let mut vectors: Vec<_> = backends.iter().map(|backend| backend.from_slice(&[1.0]).unwrap()).collect();
    let refused = Cuda::<f32>::all_reduce(&group, &mut vectors.iter_mut().collect::<Vec<_>>());
    assert!(refused.unwrap_err().to_string().contains("failed before"));
}

/// The losses of 50 steps on new batches each, and the parameters after them.
fn train<N: Network>(
    network: &N,
    theta: &[f32],
    rows: usize,
    (devices, precision): (&[Device], Precision),
) -> (Vec<f64>, Vec<f32>) {
    let config = FlatOptimizerConfig { weight_decay: 0.01, clip_norm: 1.0, ema_decay: 0.99 };
    let mut optimizer = FlatOptimizer::new(config, theta, devices, precision).unwrap();
    let [inputs, outputs] = network.features();
    let condition = network.conditioning().map_or(0, |[features, group]| rows / group * features);
    let losses = (0..50).map(|step| {
        let normals = |name, len| Seed::new(7).index(step).fork(name).normals(len);
        let (inputs, targets) = (normals("inputs", rows * inputs), normals("targets", rows * outputs));
        let condition = normals("condition", condition);
        let lesson = Lesson { inputs: &inputs, condition: &condition, targets: &targets, weights: &[] };
        regress(network, &lesson, optimizer.parameters()).unwrap();
        optimizer.update(1e-3).unwrap();
        optimizer.parameters().take_loss().unwrap()
    });
    let losses = losses.collect();
    assert!(optimizer.parameters().agree().unwrap(), "devices differ");
    (losses, optimizer.parameters().read(Slot::Theta).unwrap())
}

fn check<N: Network>(network: &N, theta: &[f32], rows: usize, devices: &[Device]) {
    for (precision, tolerance) in [(Precision::Single, 1e-3), (Precision::Bfloat16, 1e-2)] {
        let (one, _) = train(network, theta, rows, (&devices[..1], precision));
        let (all, first) = train(network, theta, rows, (devices, precision));
        let apart = one.iter().zip(&all).map(|(a, b)| (a / b - 1.0).abs()).fold(0.0, f64::max);
        say(&format!("{precision:?}: losses of {} devices are {apart:.1e} from those of one", devices.len()));
        assert!(apart < tolerance, "{precision:?}: {one:?} and {all:?}");
        let (_, second) = train(network, theta, rows, (devices, precision));
        assert!(first == second, "{precision:?}: two trainings differ");
    }
}

#[test]
fn devices_train_together_what_one_does() {
    let Some((devices, _guard)) = devices("training on several devices") else { return };
    let devices: Vec<_> = devices.into_iter().map(Device::Cuda).collect();
    let residual = ResidualMlp::new(ResidualMlpConfig { inputs: 64, conditioning: 32, width: 256, blocks: 2, outputs: 64 });
    // Neither number of rows divides by two.
    check(&residual, &residual.initial(Seed::new(1)), 257, &devices);
    let transformer = Transformer::new(TransformerConfig {
        inputs: 64,
        outputs: 64,
        tokens: 32,
        positions: true,
        d_model: 128,
        num_heads: 4,
        num_layers: 2,
        hidden: 512,
        activation: Activation::Gelu,
        gated: false,
        causal: false,
        conditioning: 16,
    });
    check(&transformer, &transformer.initial(Seed::new(2)), 9 * 32, &devices);
    // There are more devices than sequences.
    check(&transformer, &transformer.initial(Seed::new(2)), 32, &devices);
}
