//! Measures how much of the barrier between independently trained networks is left after alignment.
//!
//! ```sh
//! WEFT_DATA=FOLDER cargo run --release -p weft --example barrier
//! WEFT_DATA=FOLDER cargo run --release -p weft --example barrier -- --epochs 20 --weight-decay 1e-4
//! ```
//!
//! Pairs of MLPs 784-512-512-512-10 are trained on MNIST (`mnist/` in the folder that `WEFT_DATA` names), each from its own seed.
//! The barrier is `max_λ [L(λ) − (1 − λ)·L(0) − λ·L(1)]` of the loss on the test part along the straight path (Entezari et al. 2022,
//! equation 1), at 11 positions. Aligned are weights as they are, weights with scales fixed, and, with scales fixed, activations on
//! training examples. Nothing is chosen by the test part.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;
use weft::activations::OnData;
use weft::config::data_folder;
use weft_canon::{AlignBy, Canonicalizer, Group, Matching, match_to};
use weft_core::{
    Activation, Architecture, Dataset, Duration, Monitor, Optimizer, Part, Population, Precision, Recipe, Schedule, Seed,
};
use weft_net::{Device, Scores};

/// Positions on a path.
const POINTS: usize = 11;
/// Training examples on which activations are compared.
const EXAMPLES: usize = 2_000;

const USAGE: &str = "usage: barrier [--pairs N] [--epochs N] [--batch-size N] [--learning-rate X] [--weight-decay X]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Barrier, loss at the middle, accuracy at the middle and at the ends: one value a pair each.
#[derive(Default)]
struct Paths {
    name: &'static str,
    barrier: Vec<f64>,
    middle: Vec<f64>,
    ends: Vec<f64>,
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn main() -> ExitCode {
    let mut pairs = 3;
    let mut recipe = Recipe {
        optimizer: Optimizer::ADAM,
        learning_rate: 1e-3,
        schedule: Schedule::Cosine { warmup_steps: 0 },
        weight_decay: 0.0,
        batch_size: 500,
        duration: Duration::Epochs(10),
        snapshot_steps: Vec::new(),
        precision: Precision::Single,
    };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for option in arguments.chunks(2) {
        if set(&mut pairs, &mut recipe, option).is_none() {
            eprintln!("error: `{}` is not understood\n{USAGE}", option.join(" "));
            return ExitCode::from(2);
        }
    }
    match measure(pairs, &recipe) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn set(pairs: &mut u64, recipe: &mut Recipe, option: &[String]) -> Option<()> {
    let [name, value] = option else { return None };
    match name.as_str() {
        "--pairs" => *pairs = value.parse().ok().filter(|n| (1..=1000).contains(n))?,
        "--epochs" => recipe.duration = Duration::Epochs(value.parse().ok()?),
        "--batch-size" => recipe.batch_size = value.parse().ok()?,
        "--learning-rate" => recipe.learning_rate = value.parse().ok()?,
        "--weight-decay" => recipe.weight_decay = value.parse().ok()?,
        _ => return None,
    }
    Some(())
}

#[expect(clippy::print_stdout, reason = "a program prints its figures")]
fn measure(pairs: u64, recipe: &Recipe) -> Result<()> {
    let data = weft_zoo::data::idx_folder(&data_folder().join("mnist"), "mnist", 5_000)?;
    let architecture = Arc::new(Architecture::mlp("mlp-784-512-512-512-10", &[784, 512, 512, 512, 10], Activation::Relu)?);
    let group = Group::derive(architecture.clone());
    let seeds: Vec<Seed> = (0..2 * pairs).map(|i| Seed::new(2024).fork("barrier").index(i)).collect();
    let since = Instant::now();
    let runs = weft_net::train(&architecture, &data, recipe, &seeds, &Device::cpu(), &Monitor::silent())?;
    let rows: Vec<&[f32]> = runs.iter().filter_map(|run| Some(run.snapshots.last()?.row.as_slice())).collect();
    println!("{} networks trained in {:.0} s: {recipe:?}", rows.len(), since.elapsed().as_secs_f64());
    let mut raw = Paths { name: "as trained", ..Paths::default() };
    let mut permuted = Paths { name: "permuted", ..Paths::default() };
    let mut aligned = Paths { name: "scales fixed, permuted", ..Paths::default() };
    let mut by_activations = Paths { name: "by activations", ..Paths::default() };
    let (matching, seed) = (Matching::default(), Seed::new(0));
    let train = data.range(Part::Train);
    let examples = data.gather(train.start..train.start + EXAMPLES);
    let observer = Arc::new(OnData::new(architecture.clone(), examples));
    for pair in rows.chunks_exact(2) {
        let (a, b) = (pair[0], pair[1]);
        raw.add(&architecture, (a, b), &data)?;
        let mut image = b.to_vec();
        group.apply(&match_to(&group, b, a, &matching, seed)?.0, &mut image)?;
        permuted.add(&architecture, (a, &image), &data)?;
        let canonicalizer = Canonicalizer::fit_anchor(group.clone(), a, matching, seed)?;
        let image = canonicalizer.canonicalize(b)?.row;
        aligned.add(&architecture, (canonicalizer.anchor(), &image), &data)?;
        let canonicalizer = canonicalizer.aligned_by(AlignBy::Activations(observer.clone()))?;
        let image = canonicalizer.canonicalize(b)?.row;
        by_activations.add(&architecture, (canonicalizer.anchor(), &image), &data)?;
    }
    println!("test accuracy of the ends: {} %", mean_and_error(&raw.ends));
    for paths in [&raw, &permuted, &aligned, &by_activations] {
        let share: Vec<f64> = paths.barrier.iter().zip(&raw.barrier).map(|(b, raw)| 100.0 * b / raw).collect();
        let below: Vec<f64> = paths.middle.iter().zip(&paths.ends).map(|(middle, ends)| ends - middle).collect();
        println!(
            "{:>24}: barrier {} nats = {} % of the raw one; accuracy at the middle {} %, {} points below the ends",
            paths.name,
            mean_and_error(&paths.barrier),
            mean_and_error(&share),
            mean_and_error(&paths.middle),
            mean_and_error(&below),
        );
    }
    Ok(())
}

impl Paths {
    /// Scores the straight path between two networks on the test part.
    fn add(&mut self, architecture: &Arc<Architecture>, (a, b): (&[f32], &[f32]), data: &Dataset) -> Result<()> {
        let lambda = |i: usize| i as f64 / (POINTS - 1) as f64;
        let mix =
            |i: usize| a.iter().zip(b).map(move |(a, b)| (f64::from(*a) * (1.0 - lambda(i)) + f64::from(*b) * lambda(i)) as f32);
        let networks = Population::new(architecture.clone(), (0..POINTS).flat_map(mix).collect())?;
        let scores: Vec<Scores> = weft_net::scores(&networks, data, Part::Test, &weft_net::Device::cpu())?;
        let (first, last) = (scores[0], scores[POINTS - 1]);
        let above = |(i, s): (usize, &Scores)| s.loss - (1.0 - lambda(i)) * first.loss - lambda(i) * last.loss;
        self.barrier.push(scores.iter().enumerate().map(above).fold(0.0, f64::max));
        self.middle.push(100.0 * scores[POINTS / 2].accuracy);
        self.ends.push(50.0 * (first.accuracy + last.accuracy));
        Ok(())
    }
}

/// The mean of values and its standard error.
fn mean_and_error(values: &[f64]) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    format!("{mean:.4} ± {:.4}", (variance / n).sqrt())
}
