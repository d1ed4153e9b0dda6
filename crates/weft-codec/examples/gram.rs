//! Measures inner products of adapters beside this machine's rate of matrix products in f64, in one run.
//!
//! ```sh
//! cargo run -p weft-codec --example gram -- 100 4096 16 2
//! ```
//!
//! The arguments are the number of adapters, the width of their square modules, their rank, and the number of modules. Operations are
//! those of a symmetric product, `R²·(i + o)` a module for `R` ranks in all; the machine's rate is that of `faer` for a square product
//! of 2048 rows by as many threads.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use std::process::ExitCode;
use std::time::Instant;
use weft_codec::adapter::{AdapterSet, Adapters as _, Factors, Grams, Module};
use weft_core::Seed;
use weft_core::products::Here;

const SQUARE: usize = 2048;
const REPEATS: usize = 5;

#[expect(clippy::print_stdout, reason = "a program says what it measured")]
fn say(text: &str) {
    println!("{text}");
}

fn main() -> ExitCode {
    let numbers: Option<Vec<usize>> = std::env::args().skip(1).map(|word| word.parse().ok()).collect();
    let Some([adapters, width, rank, modules]) = numbers.as_deref().and_then(|n| <[usize; 4]>::try_from(n).ok()) else {
        say("usage: gram ADAPTERS WIDTH RANK MODULES");
        return ExitCode::from(2);
    };
    match measure([adapters, width, rank, modules]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn measure([adapters, width, rank, modules]: [usize; 4]) -> weft_codec::Result<()> {
    let seed = Seed::new(1);
    let list = (0..modules).map(|at| Module { name: format!("m{at}"), fan_out: width, fan_in: width }).collect();
    let factors = |i: usize, at: usize| {
        let seed = seed.index(i as u64).index(at as u64);
        Factors { rank, scaling: 2.0, b: seed.fork("b").normals(width * rank), a: seed.fork("a").normals(rank * width) }
    };
    let set = AdapterSet::new(list, (0..adapters).map(|i| (0..modules).map(|at| factors(i, at)).collect()).collect())?;
    let machine = machine();
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        let grams = Grams::of(&set, &Here)?;
        best = best.min(start.elapsed().as_secs_f64());
        std::hint::black_box(grams);
    }
    let all = (adapters * rank) as f64;
    let rate = set.modules().len() as f64 * all * all * (2 * width) as f64 / best / 1e9;
    say(&format!("inner products: {best:.2} s, {rate:.1} GFLOP/s in f64"));
    say(&format!("the machine's products: {machine:.1} GFLOP/s in f64; {:.0} % of that", 100.0 * rate / machine));
    Ok(())
}

/// The best of some products, in 10⁹ operations a second.
fn machine() -> f64 {
    let values = Seed::new(2).normals(SQUARE * SQUARE);
    let a = Mat::from_fn(SQUARE, SQUARE, |i, j| f64::from(values[j * SQUARE + i]));
    let mut out = Mat::zeros(SQUARE, SQUARE);
    let mut best = f64::INFINITY;
    for _ in 0..REPEATS {
        let start = Instant::now();
        matmul(out.as_mut(), Accum::Replace, a.as_ref(), a.as_ref(), 1.0, Par::rayon(0));
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (SQUARE as f64).powi(3) / best / 1e9
}
