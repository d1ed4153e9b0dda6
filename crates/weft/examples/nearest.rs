//! Times the search for nearest networks in the quotient: a zoo's held-out runs among its training snapshots.
//!
//! ```sh
//! cargo run --release -p weft --example nearest -- RUN/canonical/zoo [QUERIES]
//! ```

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;
use weft_canon::Group;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_core::Split;
use weft_zoo::{Filter, Purpose, Zoo};

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (zoo, count) = (arguments.next().unwrap_or_default(), arguments.next().and_then(|n| n.parse().ok()).unwrap_or(32));
    match measure(&zoo, count) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}\nusage: nearest ZOO [QUERIES]");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program prints its figures")]
fn measure(zoo: &str, count: usize) -> Result<(), Box<dyn Error>> {
    let zoo = Zoo::open(zoo.as_ref())?;
    let load = |split, final_only| {
        let entries = zoo.records(&Filter { split: Some(split), final_only, ..Filter::default() })?;
        zoo.load(&entries, Purpose::Evaluate)
    };
    let (train, held_out) = (load(Split::Train, false)?, load(Split::Test, true)?);
    let queries = held_out.select(&(0..held_out.len().min(count)).collect::<Vec<_>>());
    let quotient = Quotient::new(&Group::derive(zoo.architecture().clone()), QuotientOptions::default())?;
    let [queries, train] = [&queries, &train].map(|networks| quotient.prepare(networks.data(), None));
    let (queries, train) = (queries?, train?);
    let since = Instant::now();
    let found = quotient.nearest(&queries, &train, None);
    let secs = since.elapsed().as_secs_f64();
    let mean = found.iter().map(|(_, distance)| distance).sum::<f64>() / found.len().max(1) as f64;
    println!(
        "{} queries among {} networks of {} weights in {secs:.2} s ({:.1} ms each); mean distance {mean:.6}",
        queries.len(),
        train.len(),
        zoo.architecture().num_parameters(),
        1e3 * secs / queries.len().max(1) as f64,
    );
    Ok(())
}
