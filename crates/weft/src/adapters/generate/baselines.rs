//! What can be had for a task without a generator: merged adapters, and the adapters of the nearest tasks.

use super::differences::Differences;
use super::factors::{row_of, set_of};
use super::learn::Seen;
use crate::{Error, Monitor, Result};
use weft_codec::adapter::merge::{MergeConfig, Method, merge};
use weft_codec::adapter::{AdapterSet, Adapters as _};
use weft_core::families::Lora;
use weft_core::{Population, Seed};
use weft_net::adapters::{AdapterTask, Adapters};

/// Multiples of the mean that sums of updates are tried at; which is best is seen on training tasks.
const SCALES: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// The same for what is added to the adapter that all grew from; it is at hand itself, at 0.
const DIFFERENCE_SCALES: [f64; 6] = [0.125, 0.25, 0.5, 1.0, 2.0, 4.0];
/// Training tasks that it is seen on, at most, and windows or sentences of each.
const TRIED: usize = 48;
const TRIED_WINDOWS: usize = 8;
/// Entries that are kept, as the papers have it.
const TIES_DENSITY: f64 = 0.2;
const DARE_DENSITY: f64 = 0.5;

/// One adapter for all tasks, merged from those of the training tasks.
pub(super) struct Merged {
    /// How, with the multiple that was best.
    pub(super) name: String,
    pub(super) row: Vec<f32>,
    /// The part of its energy that truncation to the rank lost.
    pub(super) lost: f64,
}

/// Merges the adapters of the training tasks each way, and where all grew from one adapter, also their differences to it. A merger that would
/// hold too much is left out, and told.
pub(super) fn merged(
    on: &Adapters,
    lora: &Lora,
    seen: &Seen,
    start: Option<&Population>,
    (seed, monitor): (Seed, &Monitor),
) -> Result<Vec<Merged>> {
    let set = set_of(lora, seen.adapters)?;
    let n = set.num_adapters() as f64;
    let of = |method: Method| merge_to_row(lora, &set, method, seed);
    let (row, lost) = of(Method::Mean)?;
    let mut rows = vec![Merged { name: "mean of updates".to_owned(), row, lost }];
    let mut push = |made: Result<Merged>| match made {
        Err(Error::Codec(error @ weft_codec::Error::TooLarge { .. })) => {
            monitor.note(format!("a merger is left out: {error}"));
            Ok(())
        }
        made => made.map(|made| rows.push(made)),
    };
    let best = |name: &str, make: &dyn Fn(f64) -> Method| {
        best_of(name, &SCALES, &|scale| of(make(scale)), &|row| loss_in_training(on, seen, row, seed))
    };
    push(best("task arithmetic", &|scale| Method::TaskArithmetic { scale: scale / n }))?;
    push(best("TIES", &|scale| Method::Ties { density: TIES_DENSITY, scale }))?;
    push(best("DARE", &|scale| Method::DareLinear { density: DARE_DENSITY, scale }))?;
    push(best("KnOTS-TIES", &|scale| Method::Knots { density: Some(TIES_DENSITY), scale }))?;
    let Some(start) = start else { return Ok(rows) };
    let differences = Differences::new(lora, seen.adapters, start)?;
    let scale = 1.0;
    for (name, method) in [
        ("task arithmetic of differences", Method::TaskArithmetic { scale: 1.0 / n }),
        ("TIES of differences", Method::Ties { density: TIES_DENSITY, scale }),
        ("DARE of differences", Method::DareLinear { density: DARE_DENSITY, scale }),
        ("KnOTS-TIES of differences", Method::Knots { density: Some(TIES_DENSITY), scale }),
    ] {
        push(differences.merged(method, seed.fork("merge")).and_then(|merged| {
            let from_start = |scale: f64| -> Result<(Vec<f32>, f64)> {
                let made = differences.added(&merged, scale)?;
                Ok((row_of(lora, made.adapters.adapter(0))?, made.lost[0].fraction()))
            };
            best_of(name, &DIFFERENCE_SCALES, &from_start, &|row| loss_in_training(on, seen, row, seed))
        }))?;
    }
    Ok(rows)
}

/// What a multiple makes that has the least loss.
fn best_of(
    name: &str,
    scales: &[f64],
    make: &dyn Fn(f64) -> Result<(Vec<f32>, f64)>,
    loss: &dyn Fn(&[f32]) -> Result<f64>,
) -> Result<Merged> {
    let mut best: Option<(f64, Merged)> = None;
    for scale in scales {
        let (row, lost) = make(*scale)?;
        let loss = loss(&row)?;
        if best.as_ref().is_none_or(|(least, _)| loss < *least) {
            best = Some((loss, Merged { name: format!("{name}, × {scale}"), row, lost }));
        }
    }
    best.map(|(_, merged)| merged).ok_or_else(|| Error::Range {
        what: "the multiples of a merger",
        expected: "one or more".to_owned(),
        got: "none".to_owned(),
    })
}

fn merge_to_row(lora: &Lora, set: &AdapterSet, method: Method, seed: Seed) -> Result<(Vec<f32>, f64)> {
    let rank = lora.modules.iter().map(|module| module.rank).min().unwrap_or(1);
    let config = MergeConfig { method, weights: None, rank, scaling: 1.0, seed: seed.fork("merge") };
    let merged = merge(set, &config)?;
    Ok((row_of(lora, merged.adapters.adapter(0))?, merged.lost[0].fraction()))
}

/// The mean loss of one adapter on windows or sentences of training tasks that their adapters were trained on.
fn loss_in_training(on: &Adapters, seen: &Seen, row: &[f32], seed: Seed) -> Result<f64> {
    let chosen = seed.fork("tried").subset(TRIED.min(seen.parts.len()), seen.parts.len());
    let examples: Vec<(&AdapterTask, Vec<u32>)> = chosen
        .iter()
        .map(|&i| (&seen.parts[i as usize], seed.fork("windows").index(u64::from(i))))
        .map(|(task, seed)| (task, seed.subset(TRIED_WINDOWS.min(task.len()), task.len())))
        .collect();
    let drawn: Vec<_> = examples.iter().map(|(task, examples)| (*task, examples.as_slice())).collect();
    let losses = on.gradients(&row.repeat(drawn.len()), &drawn)?.losses;
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// Cosines of a sample's vector and those of training tasks.
pub(super) fn cosines(vectors: &[Vec<f32>], vector: &[f32]) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let length = |v: &[f32]| dot(v, v).sqrt().max(f64::MIN_POSITIVE);
    vectors.iter().map(|other| dot(other, vector) / (length(other) * length(vector))).collect()
}

/// The training tasks nearest to a sample, by these cosines, the nearest first.
pub(in super::super) fn nearest(vectors: &[Vec<f32>], vector: &[f32]) -> Vec<usize> {
    let cosines = cosines(vectors, vector);
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
    order
}

/// Half way on the arc between two adapters.
pub(super) fn between(lora: &Lora, adapters: &Population, [one, other]: [usize; 2], seed: Seed) -> Result<Vec<f32>> {
    Ok(merge_to_row(lora, &set_of(lora, &adapters.select(&[one, other]))?, Method::Slerp { t: 0.5 }, seed)?.0)
}
