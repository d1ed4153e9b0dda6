//! The structure that a method of this kind bets on, measured: are good weights few-dimensional, are straight paths between
//! them good, are they flat?
//!
//! Each figure comes with a control that says what it would be if there were no structure: a random basis, networks whose
//! coordinates were shuffled independently, the mean network. `docs/concepts/structure.md` defines all of them.
//!
//! Shape legend: `n` networks, `D` weights, `d` weights of one tensor.

mod control;
mod jackknife;
mod paths;
mod sharpness;
mod spectrum;

pub use paths::{InterpolationPath, paths};
pub use sharpness::{SharpnessPoint, loss_increases, sharpness};
pub use spectrum::{Dimension, TensorSpectrum};

use crate::figures::Estimate;
use crate::stats::median;
use crate::{Error, Result};
pub(crate) use jackknife::jackknife;
use serde::{Deserialize, Serialize};
use spectrum::Gram;
use weft_core::{Dataset, Part, Population, Seed};
use weft_net::{Device, Scores};

/// On what networks are run, and where.
#[derive(Debug, Clone, Copy)]
pub struct Trial<'a> {
    /// Accuracies and losses are those on its validation part.
    pub dataset: &'a Dataset,
    /// Where networks are run.
    pub device: &'a Device,
    /// Training examples that give the batch norms of averaged networks their running statistics; 0 leaves these averaged.
    pub recalibrate: usize,
}

impl Trial<'_> {
    fn scores(&self, networks: &Population) -> Result<Vec<Scores>> {
        Ok(weft_net::scores(networks, self.dataset, Part::Validation, self.device)?)
    }

    /// The scores of networks that were mixed from others.
    fn scores_of_mixed(&self, mut networks: Population) -> Result<Vec<Scores>> {
        weft_net::recalibrate(&mut networks, self.dataset, self.recalibrate, self.device)?;
        self.scores(&networks)
    }
}

/// What is measured, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct StructureOptions<'a> {
    /// Where accuracies and losses are measured; without it they are left out.
    pub trial: Option<Trial<'a>>,
    /// Pairs of networks between which paths are taken.
    pub num_pairs: usize,
    /// The seed of pairs and controls.
    pub seed: Seed,
}

/// One set of networks: raw, or canonical.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Structure {
    /// Networks that were measured.
    pub num_networks: usize,
    /// All weights together, then an entry a tensor.
    pub spectra: Vec<TensorSpectrum>,
    /// Median distance of two networks, in weights.
    pub pairwise: Estimate,
    /// Control: their median distance to the mean network.
    pub to_mean: Estimate,
    /// Validation accuracy of the networks.
    pub accuracy: Option<Estimate>,
    /// Control: validation accuracy of the mean network.
    pub mean_accuracy: Option<f64>,
    /// Loss barrier on straight paths between pairs, in nats.
    pub barrier: Option<Estimate>,
    /// Accuracy and loss along those paths.
    pub path: Option<InterpolationPath>,
}

/// Measures a set of networks. Memory beside theirs is three copies of the largest tensor of all of them, and the products of
/// their rows, `[n, n]`.
///
/// Networks are to be independent runs: standard errors come from leaving out groups of them.
///
/// # Errors
/// Fewer than three networks, a weight that is not finite, or a data set that does not fit.
pub fn structure(networks: &Population, options: StructureOptions<'_>) -> Result<Structure> {
    let n = networks.len();
    if n < 3 {
        return Err(Error::TooFew { what: "networks whose structure is measured", got: n, least: 3 });
    }
    crate::project::check_finite("measured", networks)?;
    let (mut whole, mut spectra) = (Whole::new(n), Vec::new());
    for (i, tensor) in networks.architecture().tensors().iter().enumerate() {
        let (centered, rounding) = spectrum::centered(networks, tensor.range());
        let shuffled = control::shuffled(&centered, n, options.seed.fork("shuffle").index(i as u64));
        let [gram, shuffled] = [&centered, &shuffled].map(|rows| Gram::new(rows, n, rounding));
        whole.add(&gram, &shuffled);
        let seed = options.seed.fork("basis").index(i as u64);
        spectra.push(TensorSpectrum::new((&tensor.name, &tensor.shape), (gram, shuffled), seed)?);
    }
    let Whole { gram, shuffled } = whole;
    let pairwise = jackknife(n, |kept| median(&gram.distances(kept)));
    let to_mean = jackknife(n, |kept| median(&gram.distances_to_mean(kept)));
    let all = ("all weights", &[networks.dim()][..]);
    spectra.insert(0, TensorSpectrum::new(all, (gram, shuffled), options.seed.fork("basis"))?);
    let mut found = Structure { num_networks: n, spectra, pairwise, to_mean, ..Structure::default() };
    if let Some(trial) = options.trial {
        measure_function(networks, trial, options, &mut found)?;
    }
    Ok(found)
}

/// The products of all weights, summed tensor by tensor.
struct Whole {
    gram: Gram,
    shuffled: Gram,
}

impl Whole {
    fn new(n: usize) -> Self {
        Self { gram: Gram::zeros(n), shuffled: Gram::zeros(n) }
    }

    fn add(&mut self, gram: &Gram, shuffled: &Gram) {
        self.gram.add(gram);
        self.shuffled.add(shuffled);
    }
}

fn measure_function(networks: &Population, trial: Trial<'_>, options: StructureOptions<'_>, found: &mut Structure) -> Result<()> {
    let accuracies: Vec<f64> = trial.scores(networks)?.iter().map(|scores| scores.accuracy).collect();
    found.accuracy = Some(crate::stats::mean_estimate(&[&accuracies]));
    let mut mean = vec![0.0_f64; networks.dim()];
    networks.rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &w)| *m += f64::from(w)));
    let mean = mean.iter().map(|m| (m / networks.len() as f64) as f32).collect();
    let mean = Population::new(networks.architecture().clone(), mean)?;
    found.mean_accuracy = trial.scores_of_mixed(mean)?.first().map(|scores| scores.accuracy);
    let pairs = pairs(networks.len(), options.num_pairs, options.seed);
    if !pairs.is_empty() {
        let (path, barrier) = paths(networks, &pairs, trial)?;
        (found.path, found.barrier) = (Some(path), Some(barrier));
    }
    Ok(())
}

/// Disjoint random pairs of networks, so that what is measured on them is independent.
#[must_use]
pub fn pairs(num_networks: usize, num_pairs: usize, seed: Seed) -> Vec<[usize; 2]> {
    let order = seed.fork("pairs").permutation(num_networks);
    order.chunks_exact(2).take(num_pairs).map(|p| [p[0] as usize, p[1] as usize]).collect()
}

#[cfg(test)]
mod tests;
