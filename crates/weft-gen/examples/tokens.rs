//! Measures the token generator: a sample's time beside a training run's, the share of the machine's rate of products, and the memory of
//! training on large networks.
//!
//! ```sh
//! cargo run --release -p weft-gen --example tokens -- sample
//! cargo run --release -p weft-gen --example tokens -- memory 2048
//! ```
//!
//! `sample`: networks 784-32-32-10, 26,506 weights, 32 at once, Heun's method with 10 steps, tokens of whole units as in `configs/widths`
//! but with rows of 32 values, and a transformer of width 192 with 3 layers. The run that a sample is held against has 5 epochs
//! of 55,000 examples in batches of 64, of which a fifth of the inputs are not 0, as many as of MNIST; eight runs are trained together.
//! `memory WINDOW`: ten training steps on two ResNet-18 of random weights, and the most memory that the process has held.

#![expect(clippy::print_stdout, reason = "an example's answers")]

use std::sync::Arc;
use std::time::Instant;
use weft_codec::TokenShape;
use weft_core::families::{Family, ResNet};
use weft_core::{
    Activation, Architecture, Condition, Dataset, Duration, Inputs, Monitor, Optimizer, Population, Precision, Recipe, Schedule,
    Seed,
};
use weft_gen::{
    Generator as _, Sampler, SamplerConfig, TokenConfig, TokenNetwork, TokenPart, TokenSet, TokenTrainer, Trainer as _,
};
use weft_net::{Device, initial_weights};

/// Networks that are sampled at once, and turns against the clock.
const SAMPLES: usize = 32;
const TURNS: usize = 3;

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sample"] => sample(),
        ["memory", window] => memory(window.parse()?),
        _ => Err("usage: tokens sample | tokens memory WINDOW".into()),
    }
}

fn config(shape: TokenShape, window: usize, network: TokenNetwork) -> TokenConfig {
    TokenConfig {
        shape,
        window,
        network,
        steps: 10,
        batch_networks: 8,
        learning_rate: 1e-4,
        warmup_steps: 1,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay: 0.9,
        conditions: Vec::new(),
        condition_dropout: 0.1,
    }
}

/// A generator in training on untrained networks.
fn trainer(architecture: &Arc<Architecture>, n: u64, config: TokenConfig) -> weft_gen::Result<TokenTrainer> {
    let rows = (0..n).flat_map(|i| initial_weights(architecture, Seed::new(i))).collect();
    let networks = Arc::new(Population::new(architecture.clone(), rows)?);
    let part = TokenPart { networks, conditions: vec![Condition::unknown(); n as usize] };
    TokenTrainer::new(config, TokenSet::new(vec![part])?, Seed::new(1), &Device::cpu())
}

fn sample() -> Outcome {
    let architecture = Arc::new(Architecture::mlp("mlp", &[784, 32, 32, 10], Activation::Relu)?);
    let shape = TokenShape { token_len: 32, outgoing: 10, rank: 24 };
    let network = TokenNetwork { d_model: 192, num_layers: 3, num_heads: 4, hidden: 768 };
    let mut trainer = trainer(&architecture, 16, config(shape, 2048, network))?;
    trainer.advance(2, &Monitor::silent())?;
    let since = Instant::now();
    trainer.advance(10, &Monitor::silent())?;
    let step = since.elapsed().as_secs_f64() / 8.0;
    let flops = trainer.flops() / 10.0;
    let rate = product_rate();
    println!("products: {:.0} GFLOP/s", rate / 1e9);
    println!("training step: {:.0} ms, {:.2} of the rate of products", step * 1e3, flops / step / rate);
    let flow = trainer.finish(SamplerConfig { sampler: Sampler::Heun, steps: 10, guidance_scale: 1.0 })?;
    let generator = flow.generator(architecture.clone())?;
    let mut secs = f64::INFINITY;
    for turn in 0..=TURNS {
        let since = Instant::now();
        generator.sample(SAMPLES, &Condition::unknown(), Seed::new(turn as u64))?;
        // The first turn only warms up.
        secs = if turn > 0 { secs.min(since.elapsed().as_secs_f64() / SAMPLES as f64) } else { secs };
    }
    let share = generator.flops_per_sample() / secs / rate;
    println!("sample of {} tokens: {secs:.4} s, {share:.2} of the rate of products", generator.num_tokens());
    let run = run_secs(&architecture)?;
    println!("training run: {run:.3} s; a sample takes {:.3} of it", secs / run);
    Ok(())
}

/// Seconds of a training run, of eight that are trained together.
fn run_secs(architecture: &Arc<Architecture>) -> Result<f64, Box<dyn std::error::Error>> {
    const EXAMPLES: usize = 57_000;
    let draws = Seed::new(3).uniforms(EXAMPLES * 784);
    let inputs = draws.into_iter().map(|u| if u < 0.19 { u / 0.19 } else { 0.0 }).collect();
    let labels = Seed::new(4).indices(EXAMPLES, 10);
    let dataset = Dataset::new("sparse", Inputs::Floats(inputs), labels, 10, [55_000, 1_000])?;
    let recipe = Recipe {
        optimizer: Optimizer::SGD,
        learning_rate: 0.05,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        batch_size: 64,
        duration: Duration::Epochs(5),
        snapshot_steps: Vec::new(),
        precision: Precision::Single,
    };
    let seeds: Vec<Seed> = (0..8).map(Seed::new).collect();
    let since = Instant::now();
    weft_net::train(architecture, &dataset, &recipe, &seeds, &Device::cpu(), &Monitor::silent())?;
    Ok(since.elapsed().as_secs_f64() / seeds.len() as f64)
}

/// The best of three rates of matrix products that all threads reach together, 512 × 512 × 512.
fn product_rate() -> f64 {
    const SIZE: usize = 512;
    const REPEATS: usize = 20;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let measure = || {
        let since = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let [a, b, mut c] = [0.5f32, 0.25, 0.0].map(|v| vec![v; SIZE * SIZE]);
                    for _ in 0..REPEATS {
                        weft_ops::kernels::matmul([SIZE; 3], std::hint::black_box(&a), false, std::hint::black_box(&b), &mut c);
                    }
                    std::hint::black_box(c);
                });
            }
        });
        2.0 * (SIZE as f64).powi(3) * (REPEATS * threads) as f64 / since.elapsed().as_secs_f64()
    };
    (0..3).map(|_| measure()).fold(0.0, f64::max)
}

fn memory(window: usize) -> Outcome {
    let architecture = Arc::new(Family::ResNet(ResNet::resnet18([3, 32, 32], 10)).build("resnet-18")?);
    let network = TokenNetwork { d_model: 256, num_layers: 4, num_heads: 4, hidden: 1024 };
    let mut trainer = trainer(&architecture, 2, TokenConfig { batch_networks: 2, ..config(576.into(), window, network) })?;
    let before = peak_memory();
    let since = Instant::now();
    trainer.advance(10, &Monitor::silent())?;
    let step = since.elapsed().as_secs_f64() / 10.0;
    println!("{} weights; {step:.2} s a training step of two windows of {window} tokens", architecture.num_parameters());
    println!("peak memory: {before} before training, {} after", peak_memory());
    Ok(())
}

/// The most memory that this process has held, as Linux counts it.
fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or_else(|| "unknown".to_owned(), |kib| format!("{:.2} GB", kib * 1024.0 / 1e9))
}
