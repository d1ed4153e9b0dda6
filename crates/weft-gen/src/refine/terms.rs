//! Parts of the refiner's loss: closeness, the shell's inputs, and the signs that share data out.

use super::{SHELL_INPUTS, SIGNS};
use crate::Result;
use candle_core::Tensor;
use weft_core::{Population, Seed};
use weft_net::{Ensemble, PopulationLoss};

/// `max(0, 1 − d/d̄)²` of all pairs, `[n, D]` and `[m, D]` → `[n, m]`.
pub(super) fn closeness(a: &Tensor, b: &Tensor, spacing: f64) -> candle_core::Result<Tensor> {
    let (aa, bb) = (a.sqr()?.sum_keepdim(1)?, b.sqr()?.sum_keepdim(1)?);
    let squared = (a.matmul(&b.t()?)? * -2.0)?.broadcast_add(&aa)?.broadcast_add(&bb.t()?)?;
    let distance = (squared / (spacing * spacing))?.clamp(1e-6, 1e6)?.sqrt()?;
    distance.affine(-1.0, 1.0)?.relu()?.sqr()
}

/// The last snapshots' losses on 2,048 training examples (or as many as there are).
pub(super) fn final_losses(finals: &Population, loss: &PopulationLoss, seed: Seed) -> Result<Vec<f32>> {
    let chosen = seed.subset(2_048, loss.num_examples());
    Ok(loss.losses(finals, &chosen)?.into_iter().map(|l| l as f32).collect())
}

/// Inputs between training examples, and what up to 256 training runs say of them.
pub(super) fn shell_inputs(loss: &PopulationLoss, finals: &Population, seed: Seed) -> Result<(PopulationLoss, Ensemble)> {
    let between = loss.between_examples(SHELL_INPUTS, seed.fork("inputs"))?;
    let chosen: Vec<usize> = seed.fork("runs").subset(256, finals.len()).into_iter().map(|i| i as usize).collect();
    let ensemble = between.ensemble(&finals.select(&chosen));
    Ok((between, ensemble))
}

/// The mean distance of up to 1,000 random pairs of canonical training networks.
pub(super) fn mean_distance(finals: &Population, seed: Seed) -> f64 {
    let pairs = seed.indices(2_000, finals.len());
    let distances: Vec<f64> = pairs
        .chunks_exact(2)
        .filter(|p| p[0] != p[1])
        .map(|p| {
            let (a, b) = (finals.row(p[0] as usize), finals.row(p[1] as usize));
            a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        })
        .collect();
    (distances.iter().sum::<f64>() / distances.len().max(1) as f64).max(1e-9)
}

/// `b` examples of `count` for each of `n` samples, sample by sample: any, or those that agree with the sample in most signs.
pub(crate) fn draw_examples(seed: Seed, [n, b, count]: [usize; 3], own: Option<(&[u64], &[u64])>) -> Vec<u32> {
    let mut out = Vec::with_capacity(b * n);
    for i in 0..n {
        let draws = seed.index(i as u64);
        let Some((samples, examples)) = own else {
            out.extend(draws.indices(b, count));
            continue;
        };
        let candidates = draws.indices(8 * b, count);
        let before = out.len();
        out.extend(candidates.iter().copied().filter(|&e| agrees(samples[i], examples[e as usize])).take(b));
        let missing = before + b - out.len();
        out.extend_from_slice(&candidates[..missing]);
    }
    out
}

/// `count` random sign vectors, as bits.
pub(crate) fn signs(seed: Seed, count: usize) -> Vec<u64> {
    let (low, high) = (seed.fork("low").indices(count, 1 << 32), seed.fork("high").indices(count, 1 << 31));
    low.into_iter().zip(high).map(|(l, h)| u64::from(l) | u64::from(h) << 32).collect()
}

/// Whether two sign vectors agree in most places.
fn agrees(a: u64, b: u64) -> bool {
    (a ^ b).count_ones() as usize <= SIGNS / 2
}
