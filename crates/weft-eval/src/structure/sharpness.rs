//! How much loss random noise of the weights costs.

use super::Trial;
use crate::Result;
use crate::figures::Estimate;
use crate::stats::mean_estimate;
use serde::{Deserialize, Serialize};
use weft_core::{Population, Seed};
use weft_net::Scores;

/// Relative sizes of the noise.
const SCALES: [f64; 4] = [0.01, 0.03, 0.1, 0.3];
/// Draws a network and scale, averaged before the error over networks is taken.
const DRAWS: usize = 2;

/// The cost of noise of one size.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SharpnessPoint {
    /// The noise's size `σ`, relative to each weight.
    pub scale: f64,
    /// Mean increase of the validation loss, in nats.
    pub loss_increase: Estimate,
    /// Mean decrease of the validation accuracy.
    pub accuracy_decrease: Estimate,
}

/// Multiplies every weight by `1 + σ·ξ` with independent normal `ξ` and measures what that costs on the validation part.
///
/// Noise that is relative to each weight commutes with permutations, scales and signs of hidden units, so the figure is
/// one of the function and not of the representative of its orbit; that of noise of a fixed size is not (Dinh et al. 2017).
///
/// # Errors
/// A data set that does not fit the networks.
pub fn sharpness(networks: &Population, trial: Trial<'_>, seed: Seed) -> Result<Vec<SharpnessPoint>> {
    let before = trial.scores(networks)?;
    let mut points = Vec::with_capacity(SCALES.len());
    for (s, scale) in SCALES.into_iter().enumerate() {
        let [loss, accuracy] = cost_of_noise(networks, &before, trial, scale, seed.index(s as u64))?;
        let (loss_increase, accuracy_decrease) = (mean_estimate(&[&loss]), mean_estimate(&[&accuracy]));
        points.push(SharpnessPoint { scale, loss_increase, accuracy_decrease });
    }
    Ok(points)
}

/// By how much noise of one size, relative to each weight, increases each network's validation loss, in nats: see [`sharpness`].
///
/// # Errors
/// As [`sharpness`].
pub fn loss_increases(networks: &Population, trial: Trial<'_>, scale: f64, seed: Seed) -> Result<Vec<f64>> {
    let [loss, _] = cost_of_noise(networks, &trial.scores(networks)?, trial, scale, seed)?;
    Ok(loss)
}

/// The increase of loss and the decrease of accuracy of each network, means over draws.
fn cost_of_noise(networks: &Population, before: &[Scores], trial: Trial<'_>, scale: f64, seed: Seed) -> Result<[Vec<f64>; 2]> {
    let (mut loss, mut accuracy) = (Vec::with_capacity(before.len()), Vec::with_capacity(before.len()));
    for (i, (row, before)) in networks.rows().zip(before).enumerate() {
        let seed = seed.index(i as u64);
        let noisy = (0..DRAWS).flat_map(|draw| {
            let noise = seed.index(draw as u64).normals(row.len());
            row.iter().zip(noise).map(|(&w, noise)| w * (1.0 + scale as f32 * noise)).collect::<Vec<_>>()
        });
        let noisy = Population::new(networks.architecture().clone(), noisy.collect())?;
        let after = trial.scores(&noisy)?;
        loss.push(after.iter().map(|a| a.loss - before.loss).sum::<f64>() / DRAWS as f64);
        accuracy.push(after.iter().map(|a| before.accuracy - a.accuracy).sum::<f64>() / DRAWS as f64);
    }
    Ok([loss, accuracy])
}
