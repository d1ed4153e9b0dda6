//! Writes checkpoints of a large architecture whose structure is known, to try a run on that holds no zoo in memory.
//!
//! ```sh
//! cargo run --release -p weft --example planted -- vit-b-16 20 checkpoints
//! ```
//!
//! Network `i` is `g_i·(w + Σ_r a_ir·b_r + ε_i)`: initial weights `w`, random directions `b_r` that all networks share, normal
//! coefficients `a_ir`, a little noise of its own, and a random element `g_i` of the architecture's symmetry group: permutations,
//! signs, scales, and the heads' gauges. Without the `g_i` as many principal components as there are directions hold nearly all
//! variance; as files they share no direction. Rotations of the residual stream are left out: 2·768 multiplications a weight.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use weft_canon::{Group, Step};
use weft_core::{Architecture, Seed};

/// Standard deviation of a coefficient, as a part of each tensor's root mean square.
const SPREAD: f32 = 0.1;
/// The same of a network's own noise.
const NOISE: f32 = 0.005;
/// What takes the place of the root mean square where initial weights are 0.
const FLOOR: f32 = 0.01;

const USAGE: &str = "usage: planted ARCHITECTURE COUNT FOLDER [DIRECTIONS]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report_error(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn report_error(error: &dyn Error) {
    eprintln!("error: {error}");
}

fn run(arguments: &[String]) -> Result<()> {
    let (name, count, folder, directions) = match arguments {
        [name, count, folder] => (name, count.parse::<u64>()?, PathBuf::from(folder), 4),
        [name, count, folder, directions] => (name, count.parse()?, PathBuf::from(folder), directions.parse()?),
        _ => return Err(USAGE.into()),
    };
    let architecture = std::sync::Arc::new(weft_zoo::find_architecture(&PathBuf::from(name))?);
    let (group, seed) = (Group::derive(architecture.clone()), Seed::new(0));
    std::fs::create_dir_all(&folder)?;
    let (start, sizes) = start(&architecture, seed);
    let shared: Vec<Vec<f32>> = (0..directions).map(|r| seed.fork("direction").index(r).normals(start.len())).collect();
    for i in 0..count {
        let own = seed.fork("network").index(i);
        let coefficients = own.fork("coefficients").normals(shared.len());
        let mut row = own.fork("noise").normals(start.len());
        for (j, value) in row.iter_mut().enumerate() {
            let moved: f32 = shared.iter().zip(&coefficients).map(|(direction, a)| a * direction[j]).sum();
            *value = start[j] + sizes[j] * (SPREAD * moved + NOISE * *value);
        }
        let mut element = group.random_transform(own.fork("element"));
        element.steps.retain(|step| matches!(step, Step::Units(_) | Step::Gauge(..)));
        group.transform_f32(&element, &mut row)?;
        let metadata = [("licence", "CC0-1.0".to_owned()), ("run", format!("planted-{i:05}"))];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        weft_zoo::write_checkpoint(&folder.join(format!("{i:05}.safetensors")), &architecture, &row, &metadata)?;
    }
    Ok(())
}

/// Initial weights, and the root mean square of each one's tensor.
fn start(architecture: &Architecture, seed: Seed) -> (Vec<f32>, Vec<f32>) {
    let start = weft_net::initial_weights(architecture, seed);
    let mut sizes = vec![0.0; start.len()];
    for tensor in architecture.tensors() {
        let values = &start[tensor.range()];
        let square = values.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / values.len() as f64;
        sizes[tensor.range()].fill((square.sqrt() as f32).max(FLOOR));
    }
    (start, sizes)
}
