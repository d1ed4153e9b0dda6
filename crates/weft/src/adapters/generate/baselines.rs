//! What can be had for a language without a generator: merged adapters, and the adapters of the nearest languages.

use super::factors::{row_of, set_of};
use super::learn::Seen;
use crate::Result;
use weft_codec::adapter::merge::{MergeConfig, Method, merge};
use weft_codec::adapter::{AdapterSet, Adapters as _};
use weft_core::families::Lora;
use weft_core::{Population, Seed};
use weft_net::adapters::{AdapterTask, Adapters};

/// Multiples of the mean that sums of updates are tried at; which is best is seen on training languages.
const SCALES: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// Training languages that it is seen on, at most, and windows of each.
const TRIED: usize = 48;
const TRIED_WINDOWS: usize = 8;
/// Entries that are kept, as the papers have it.
const TIES_DENSITY: f64 = 0.2;
const DARE_DENSITY: f64 = 0.5;

/// One adapter for all languages, by each way of merging those of the training languages: name and row.
pub(super) fn merged(on: &Adapters, lora: &Lora, seen: &Seen, seed: Seed) -> Result<Vec<(String, Vec<f32>)>> {
    let set = set_of(lora, seen.adapters)?;
    let n = set.num_adapters() as f64;
    let of = |method: Method| merge_to_row(lora, &set, method, seed);
    let mut rows = vec![("mean of updates".to_owned(), of(Method::Mean)?)];
    let best = |name: &str, make: &dyn Fn(f64) -> Method| -> Result<(String, Vec<f32>)> {
        let mut best: Option<(f64, f64, Vec<f32>)> = None;
        for scale in SCALES {
            let row = of(make(scale))?;
            let loss = loss_in_training(on, seen, &row, seed)?;
            if best.as_ref().is_none_or(|(least, ..)| loss < *least) {
                best = Some((loss, scale, row));
            }
        }
        let (_, scale, row) = best.unwrap_or_default();
        Ok((format!("{name}, × {scale}"), row))
    };
    rows.push(best("task arithmetic", &|scale| Method::TaskArithmetic { scale: scale / n })?);
    rows.push(best("TIES", &|scale| Method::Ties { density: TIES_DENSITY, scale })?);
    rows.push(best("DARE", &|scale| Method::DareLinear { density: DARE_DENSITY, scale })?);
    rows.push(best("KnOTS-TIES", &|scale| Method::Knots { density: Some(TIES_DENSITY), scale })?);
    Ok(rows)
}

fn merge_to_row(lora: &Lora, set: &AdapterSet, method: Method, seed: Seed) -> Result<Vec<f32>> {
    let rank = lora.modules.iter().map(|module| module.rank).min().unwrap_or(1);
    let config = MergeConfig { method, weights: None, rank, scaling: 1.0, seed: seed.fork("merge") };
    let merged = merge(set, &config)?;
    row_of(lora, merged.adapters.adapter(0))
}

/// The mean loss of one adapter on windows of training languages that their adapters were trained on.
fn loss_in_training(on: &Adapters, seen: &Seen, row: &[f32], seed: Seed) -> Result<f64> {
    let chosen = seed.fork("tried").subset(TRIED.min(seen.windows.len()), seen.windows.len());
    let examples: Vec<(&AdapterTask, Vec<u32>)> = chosen
        .iter()
        .map(|&i| (&seen.windows[i as usize], seed.fork("windows").index(u64::from(i))))
        .map(|(task, seed)| (task, seed.subset(TRIED_WINDOWS.min(task.len()), task.len())))
        .collect();
    let drawn: Vec<_> = examples.iter().map(|(task, examples)| (*task, examples.as_slice())).collect();
    let losses = on.gradients(&row.repeat(drawn.len()), &drawn)?.losses;
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

/// Cosines of a sample's vector and those of training languages.
pub(super) fn cosines(vectors: &[Vec<f32>], sample: &[u8]) -> Vec<f64> {
    let vector = weft_core::embed_bytes(sample);
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    let length = |v: &[f32]| dot(v, v).sqrt().max(f64::MIN_POSITIVE);
    vectors.iter().map(|other| dot(other, &vector) / (length(other) * length(&vector))).collect()
}

/// The training languages nearest to a sample, by these cosines, the nearest first.
pub(super) fn nearest(vectors: &[Vec<f32>], sample: &[u8]) -> Vec<usize> {
    let cosines = cosines(vectors, sample);
    let mut order: Vec<usize> = (0..vectors.len()).collect();
    order.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]).then(a.cmp(&b)));
    order
}

/// Half way on the arc between two adapters.
pub(super) fn between(lora: &Lora, adapters: &Population, [one, other]: [usize; 2], seed: Seed) -> Result<Vec<f32>> {
    merge_to_row(lora, &set_of(lora, &adapters.select(&[one, other]))?, Method::Slerp { t: 0.5 }, seed)
}
