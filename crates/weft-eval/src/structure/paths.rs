//! Loss and accuracy on straight paths between networks: what a barrier is measured on.

use super::Trial;
use crate::Result;
use crate::figures::Estimate;
use crate::stats::mean_estimate;
use serde::{Deserialize, Serialize};
use weft_core::Population;
use weft_net::Scores;

/// Positions on a path.
const POINTS: usize = 11;
/// Weights of networks on paths that are held at a time, unless one pair needs more.
const MAX_WEIGHTS: usize = 1 << 26;

/// Accuracy and loss along `(1 − λ)·a + λ·b`, averaged over pairs of networks, on validation examples.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct InterpolationPath {
    /// Positions `λ ∈ [0, 1]`, increasing.
    pub lambda: Vec<f64>,
    /// Accuracy at each position, with its standard error over pairs.
    pub accuracy: Vec<Estimate>,
    /// Cross-entropy at each position, in nats.
    pub loss: Vec<Estimate>,
    /// Pairs averaged.
    pub num_pairs: usize,
}

/// Scores `(1 − λ)·a + λ·b` on the validation part for each pair of rows, and measures the loss barrier
/// `max_λ [L(λ) − (1 − λ)·L(0) − λ·L(1)]`, in nats. Batch norms are recalibrated at every position, the ends too.
///
/// # Errors
/// A data set that does not fit the networks.
///
/// # Panics
/// If a pair names a network that is not there.
///
/// # References
/// Frankle et al. 2020, Linear mode connectivity; Entezari et al. 2022, equation 1.
pub fn paths(networks: &Population, pairs: &[[usize; 2]], trial: Trial<'_>) -> Result<(InterpolationPath, Estimate)> {
    let lambdas: Vec<f64> = (0..POINTS).map(|i| i as f64 / (POINTS - 1) as f64).collect();
    let at_once = (MAX_WEIGHTS / (POINTS * networks.dim())).max(1);
    let mut scores: Vec<Scores> = Vec::with_capacity(pairs.len() * POINTS);
    for pairs in pairs.chunks(at_once) {
        let mut mixed = Vec::with_capacity(pairs.len() * POINTS * networks.dim());
        for &[a, b] in pairs {
            for &lambda in &lambdas {
                let (a, b) = (networks.row(a), networks.row(b));
                mixed.extend(a.iter().zip(b).map(|(a, b)| (f64::from(*a) * (1.0 - lambda) + f64::from(*b) * lambda) as f32));
            }
        }
        scores.extend(trial.scores_of_mixed(Population::new(networks.architecture().clone(), mixed)?)?);
    }
    let at = |i: usize, of: fn(&Scores) -> f64| {
        let values: Vec<f64> = scores.iter().skip(i).step_by(POINTS).map(of).collect();
        mean_estimate(&[&values])
    };
    let barriers: Vec<f64> = scores
        .chunks_exact(POINTS)
        .map(|path| {
            let (first, last) = (path[0].loss, path[POINTS - 1].loss);
            let above = path.iter().zip(&lambdas).map(|(s, l)| s.loss - (1.0 - l) * first - l * last);
            above.fold(0.0, f64::max)
        })
        .collect();
    let path = InterpolationPath {
        accuracy: (0..POINTS).map(|i| at(i, |s| s.accuracy)).collect(),
        loss: (0..POINTS).map(|i| at(i, |s| s.loss)).collect(),
        lambda: lambdas,
        num_pairs: pairs.len(),
    };
    Ok((path, mean_estimate(&[&barriers])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::{Activation, Architecture, Dataset, Inputs};
    use weft_net::Device;

    #[test]
    fn a_network_and_itself_have_no_barrier_and_opposite_ones_do() {
        let architecture = Arc::new(Architecture::mlp("m", &[1, 2, 2], Activation::Relu).unwrap());
        // Hidden units [x, −x] or [−x, x]: the same function with the units exchanged.
        let straight = [5.0, -5.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let swapped = [-5.0, 5.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0];
        let networks = Population::new(architecture, [straight, swapped].concat()).unwrap();
        let inputs = Inputs::Floats(vec![1.0, -1.0, 1.0, -1.0, 1.0, -1.0]);
        let dataset = Dataset::new("sign", inputs, vec![0, 1, 0, 1, 0, 1], 2, [2, 2]).unwrap();
        let trial = Trial { dataset: &dataset, device: &Device::cpu(), recalibrate: 0 };
        let (path, barrier) = paths(&networks, &[[0, 0]], trial).unwrap();
        assert_eq!((path.lambda.len(), path.num_pairs), (POINTS, 1));
        assert!(barrier.mean < 1e-9 && path.accuracy.iter().all(|a| (a.mean - 1.0).abs() < 1e-9));
        let (path, barrier) = paths(&networks, &[[0, 1]], trial).unwrap();
        assert!(barrier.mean > 0.5, "{barrier:?}");
        assert!((path.loss[0].mean - path.loss[POINTS - 1].mean).abs() < 1e-6);
    }
}
