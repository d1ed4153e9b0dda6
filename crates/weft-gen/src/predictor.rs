//! Accuracy from weights, without running them: what ranks samples where nothing labelled is at hand.
//!
//! A ridge regression from a canonical network's code, and from mean, deviation and five quantiles of each of its tensors, to its validation
//! accuracy (predicting accuracies from statistics of weights: Unterthiner et al. 2020; from all weights: Eilertsen et al. 2020). An eighth of the
//! training runs, whole, chooses the penalty; another eighth measures what the prediction is worth, and is never fitted on.

use crate::error::require;
use crate::flow::Spread;
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_codec::{Codec, Ridge};
use weft_core::{Architecture, Population, Seed};

/// Penalties that are tried.
const PENALTIES: [f64; 8] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0];
/// One in so many runs chooses the penalty, and one in so many is held out.
const PART: usize = 8;
/// Numbers of each tensor.
const PER_TENSOR: usize = 7;
/// The most numbers of a network: the regression solves for a square of so many.
const MAX_FEATURES: usize = 16_384;

/// What a prediction is worth on networks of runs that it was not fitted on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PredictorQuality {
    /// One less the squared error over the variance of the accuracies; below 0 it is worse than their mean.
    pub r_squared: f64,
    /// Kendall's τ-b between predictions and accuracies: 1 is the same order, 0 none.
    pub kendall_tau: f64,
    /// The networks that this was measured on.
    pub num_networks: usize,
    /// Their runs.
    pub num_runs: usize,
}

/// A prediction of accuracy from weights.
#[derive(Debug, Clone)]
pub struct AccuracyPredictor {
    codec: Arc<Codec>,
    architecture: Arc<Architecture>,
    spread: Spread,
    ridge: Ridge,
    quality: PredictorQuality,
}

impl AccuracyPredictor {
    /// Fits the prediction to canonical training networks and their validation accuracies; equal `runs` are never parted.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are fewer than three runs, not an accuracy and a run for each network, or codes and tensors of too many
    /// numbers; a regression that fails.
    pub fn fit(codec: Arc<Codec>, networks: &Population, accuracies: &[f64], runs: &[String], seed: Seed) -> Result<Self> {
        let mut by_run: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        runs.iter().enumerate().for_each(|(i, run)| by_run.entry(run).or_default().push(i));
        let groups: Vec<Vec<usize>> = by_run.into_values().collect();
        require("runs", "3 or more, to fit, to choose and to measure", groups.len() >= 3, groups.len())?;
        if accuracies.len() != networks.len() || runs.len() != networks.len() {
            let got = format!("{} and {} for {} networks", accuracies.len(), runs.len(), networks.len());
            return Err(Error::Setting { setting: "accuracies", expected: "one, and a run, for each network", got });
        }
        let k = codec.code_len();
        let architecture = networks.architecture().clone();
        let f = k + PER_TENSOR * architecture.tensors().len();
        require("predictor", "made of 16384 features of a network or fewer", f <= MAX_FEATURES, f)?;
        let order = seed.permutation(groups.len());
        let part = (groups.len() / PART).max(1);
        let of = |groups_of: &[u32]| groups_of.iter().flat_map(|&g| groups[g as usize].iter().copied()).collect::<Vec<usize>>();
        let (held_out, choose, fitted) = (of(&order[..part]), of(&order[part..2 * part]), of(&order[2 * part..]));
        // Held-out runs have no say in the scale either; the codec has seen their weights, as it has those of all training runs.
        let seen = networks.select(&[fitted.as_slice(), &choose].concat());
        let spread = Spread::of(&codec.encode(seen.data())?, k);
        let features = features(&codec, &spread, networks)?;
        let x = |rows: &[usize]| rows.iter().flat_map(|&i| features[i * f..(i + 1) * f].iter().copied()).collect::<Vec<f32>>();
        let y = |rows: &[usize]| rows.iter().map(|&i| accuracies[i] as f32).collect::<Vec<f32>>();
        let mut best = (f64::INFINITY, PENALTIES[0]);
        for penalty in PENALTIES {
            let predicted = Ridge::fit((&x(&fitted), f), (&y(&fitted), 1), penalty)?.predict(&x(&choose));
            let error: f64 = predicted.iter().zip(y(&choose)).map(|(a, b)| f64::from(a - b).powi(2)).sum();
            if error < best.0 {
                best = (error, penalty);
            }
        }
        let both = [fitted, choose].concat();
        let ridge = Ridge::fit((&x(&both), f), (&y(&both), 1), best.1)?;
        let quality = quality(&ridge.predict(&x(&held_out)), &y(&held_out), part);
        Ok(Self { codec, architecture, spread, ridge, quality })
    }

    /// What it is worth.
    #[must_use]
    pub fn quality(&self) -> PredictorQuality {
        self.quality
    }

    /// Predicted accuracies of networks in canonical form, `[n]`; they need not lie in `[0, 1]`.
    ///
    /// # Errors
    /// [`Error::Setting`] for networks of another architecture.
    pub fn predict(&self, networks: &Population) -> Result<Vec<f64>> {
        if !networks.architecture().same_graph(&self.architecture) {
            let got = networks.architecture().name().to_owned();
            return Err(Error::Setting { setting: "networks", expected: "of the architecture that was fitted", got });
        }
        let features = features(&self.codec, &self.spread, networks)?;
        Ok(self.ridge.predict(&features).into_iter().map(f64::from).collect())
    }
}

/// `[n, k + 7 · tensors]`: normalized codes and the tensors' statistics.
fn features(codec: &Codec, spread: &Spread, networks: &Population) -> Result<Vec<f32>> {
    let k = codec.code_len();
    let codes = spread.normalize(&codec.encode(networks.data())?);
    let tensors = networks.architecture().tensors();
    let of_row = |(row, code): (&[f32], &[f32])| {
        let mut out = Vec::with_capacity(k + PER_TENSOR * tensors.len());
        out.extend_from_slice(code);
        for tensor in tensors {
            let mut values = row[tensor.range()].to_vec();
            values.sort_by(f32::total_cmp);
            let n = values.len() as f64;
            let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
            let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
            out.extend([mean as f32, variance.sqrt() as f32]);
            out.extend([0.0, 0.25, 0.5, 0.75, 1.0].map(|q: f64| values[(q * (n - 1.0)).round() as usize]));
        }
        out
    };
    Ok(networks.data().par_chunks_exact(networks.dim()).zip(codes.par_chunks_exact(k)).flat_map_iter(of_row).collect())
}

fn quality(predicted: &[f32], accuracies: &[f32], num_runs: usize) -> PredictorQuality {
    let n = accuracies.len();
    let mean = accuracies.iter().map(|&a| f64::from(a)).sum::<f64>() / n.max(1) as f64;
    let total: f64 = accuracies.iter().map(|&a| (f64::from(a) - mean).powi(2)).sum();
    let error: f64 = predicted.iter().zip(accuracies).map(|(p, a)| f64::from(p - a).powi(2)).sum();
    let r_squared = if total > 0.0 { 1.0 - error / total } else { 0.0 };
    PredictorQuality { r_squared, kendall_tau: kendall_tau(predicted, accuracies), num_networks: n, num_runs }
}

/// Kendall's τ-b: `(concordant − discordant)/√((pairs − ties in a)(pairs − ties in b))`, 0 where either is all ties (Kendall 1945).
fn kendall_tau(a: &[f32], b: &[f32]) -> f64 {
    let (mut sum, mut of_a, mut of_b) = (0_i64, 0_i64, 0_i64);
    for i in 0..a.len() {
        for j in 0..i {
            let sign = |values: &[f32]| i64::from(values[i] > values[j]) - i64::from(values[i] < values[j]);
            let (x, y) = (sign(a), sign(b));
            sum += x * y;
            of_a += x.abs();
            of_b += y.abs();
        }
    }
    if of_a == 0 || of_b == 0 { 0.0 } else { sum as f64 / (of_a as f64 * of_b as f64).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_agree_as_far_as_pairs_do() {
        assert!((kendall_tau(&[1.0, 2.0, 3.0], &[5.0, 6.0, 9.0]) - 1.0).abs() < 1e-12);
        assert!((kendall_tau(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]) + 1.0).abs() < 1e-12);
        // Two of three pairs count in b, both as in a: 2/√(3·2).
        assert!((kendall_tau(&[1.0, 2.0, 3.0], &[1.0, 1.0, 2.0]) - 2.0 / 6f64.sqrt()).abs() < 1e-12);
        assert!(kendall_tau(&[1.0, 1.0], &[1.0, 2.0]).abs() < 1e-12);
    }

    #[test]
    fn the_mean_explains_nothing_and_the_truth_all() {
        let accuracies = [0.5, 0.7, 0.9];
        assert!(quality(&[0.7; 3], &accuracies, 3).r_squared.abs() < 1e-6);
        assert!((quality(&accuracies, &accuracies, 3).r_squared - 1.0).abs() < 1e-9);
        assert!(quality(&[0.9, 0.7, 0.5], &accuracies, 3).r_squared < 0.0);
    }
}
