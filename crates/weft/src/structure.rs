//! The structure of a zoo: what `weft zoo stats` measures, and the report's section of the same name.
//!
//! The mathematics is that of [`weft_eval::structure`]; here a sample of a zoo's training runs is taken, brought to its
//! canonical form, and measured both ways.

use crate::config::{DataConfig, IdxConfig, Nothing, NpzConfig};
use crate::{Error, Result, stages};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use weft_canon::{AlignBy, Canonicalizer, Group, Matching};
use weft_core::{Architecture, Monitor, Population, Seed, Split};
pub use weft_eval::structure::{Dimension, InterpolationPath, SharpnessPoint, Structure, TensorSpectrum};
use weft_eval::structure::{StructureOptions, Trial, sharpness, structure};
use weft_net::Device;
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Networks of a sample, if a zoo has so many runs.
pub const SAMPLE: usize = 128;
/// Weights of a sample, so that memory stays bounded whatever the architecture.
const MAX_WEIGHTS: usize = 1 << 28;
/// Networks whose sharpness is measured.
const SHARP: usize = 16;
/// Pairs of networks between which paths are taken.
const PAIRS: usize = 16;
/// Floating-point operations that sharpness, or paths, may take, by the passes over so many validation examples that a network's sharpness
/// and a pair's path take.
const FLOPS: f64 = 5e14;
const VALIDATION: f64 = 5_000.0;
const DRAWS: f64 = 8.0;
pub(crate) const PATH: f64 = 16.0;
/// Training examples that give the batch norms of averaged networks their running statistics.
const RECALIBRATE: usize = 2_048;
/// Re-estimates of the mean that a sample is aligned to, and starts of one network's matching.
const ITERATIONS: usize = 10;
const STARTS: usize = 8;

/// What is measured.
#[derive(Debug, Clone, PartialEq)]
pub struct StructureRequest {
    /// The zoo.
    pub zoo: PathBuf,
    /// `digits`, a folder of idx files or an npz file; without it accuracies, barriers and sharpness are left out.
    pub data: Option<String>,
    /// At most so many networks.
    pub sample: usize,
    /// The seed of the sample and the controls.
    pub seed: u64,
}

/// A zoo's structure.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ZooStructure {
    /// Networks of the sample: the last of training runs.
    pub num_sampled: usize,
    /// Training runs that it was taken from.
    pub num_runs: usize,
    /// The seed, as far as it is a number.
    pub seed: Option<u64>,
    /// The data set of accuracies and losses, validation part.
    pub dataset: Option<String>,
    /// The networks as the zoo has them.
    pub raw: Structure,
    /// The same in canonical form.
    pub canonical: Option<Structure>,
    /// Why there is no canonical form.
    pub not_canonical: Option<String>,
    /// The cost of noise of several sizes.
    pub sharpness: Vec<SharpnessPoint>,
    /// Networks whose sharpness was measured.
    pub num_sharp: usize,
}

/// Measures the structure of a sample of a zoo's training runs.
///
/// # Errors
/// The folder is no zoo, it has fewer than three training runs, the data set does not fit, its runs have
/// tasks of their own to judge on data, or the user stopped it.
pub fn measure(request: &StructureRequest, monitor: &Monitor) -> Result<ZooStructure> {
    let zoo = Zoo::open(&request.zoo)?;
    let dataset = request.data.as_deref().map(|name| stages::load_dataset(&data_config(name))).transpose()?;
    let entries = zoo.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?;
    let seed = Seed::new(request.seed).fork("structure");
    let room = MAX_WEIGHTS / zoo.architecture().num_parameters().max(1);
    let chosen = sample(entries.len(), request.sample.min(room), seed);
    if chosen.len() < 3 {
        let expected = format!("3 or more, of networks that fit in {} MiB", MAX_WEIGHTS >> 18);
        return Err(Error::Range { what: "the number of networks to measure", expected, got: chosen.len().to_string() });
    }
    if let Some(dataset) = &dataset
        && stages::tasks_of(entries.iter().map(Entry::record), zoo.architecture(), dataset.num_classes())?.is_some()
    {
        return Err(Error::ManyTasks { stage: "zoo stats --data" });
    }
    monitor.start("measure structure", 3, "steps");
    let chosen_entries: Vec<_> = chosen.iter().map(|&i| entries[i].clone()).collect();
    let raw = zoo.load(&chosen_entries, Purpose::Fit)?;
    step(monitor, 1)?;
    let canonical = canonical_of(&raw, seed);
    step(monitor, 2)?;
    let device = Device::cpu();
    let trial = dataset.as_ref().map(|dataset| Trial { dataset, device: &device, recalibrate: RECALIBRATE });
    let pairs = affordable(raw.architecture(), PATH, PAIRS);
    let mut found = of_networks(&raw, canonical, (trial, pairs), seed)?;
    monitor.finish();
    (found.num_runs, found.seed) = (entries.len(), Some(request.seed));
    Ok(found)
}

fn step(monitor: &Monitor, done: u64) -> Result<()> {
    monitor.progress(done);
    if monitor.should_stop() { Err(Error::Interrupted { stage: "measure structure" }) } else { Ok(()) }
}

/// Which of so many networks are measured, in their order.
pub(crate) fn sample(of: usize, count: usize, seed: Seed) -> Vec<usize> {
    let mut chosen: Vec<usize> = seed.fork("sample").subset(count, of).into_iter().map(|i| i as usize).collect();
    chosen.sort_unstable();
    chosen
}

/// Measures networks as they are and in canonical form, which may be missing for a reason.
pub(crate) fn of_networks(
    raw: &Population,
    canonical: std::result::Result<Population, String>,
    (trial, num_pairs): (Option<Trial<'_>>, usize),
    seed: Seed,
) -> Result<ZooStructure> {
    let options = StructureOptions { trial, num_pairs, seed };
    let sharp: Vec<usize> = (0..raw.len().min(affordable(raw.architecture(), DRAWS, SHARP))).collect();
    let sharpness = trial.map(|trial| sharpness(&raw.select(&sharp), trial, seed.fork("sharpness"))).transpose()?;
    let num_sharp = if sharpness.is_some() { sharp.len() } else { 0 };
    let (canonical, not_canonical) = match canonical {
        Ok(networks) => (Some(structure(&networks, options)?), None),
        Err(reason) => (None, Some(reason)),
    };
    Ok(ZooStructure {
        num_sampled: raw.len(),
        num_runs: raw.len(),
        seed: None,
        dataset: trial.map(|trial| trial.dataset.name().to_owned()),
        raw: structure(raw, options)?,
        canonical,
        not_canonical,
        sharpness: sharpness.unwrap_or_default(),
        num_sharp,
    })
}

/// How many networks or pairs are measured, `runs` passes over validation data each: `most`, or as many as [`FLOPS`] allow, but two.
pub(crate) fn affordable(architecture: &Architecture, runs: f64, most: usize) -> usize {
    let each = runs * weft_net::forward_flops(architecture) * VALIDATION;
    most.min(((FLOPS / each) as usize).max(2))
}

/// The sample aligned to its own mean, or why it cannot be.
fn canonical_of(raw: &Population, seed: Seed) -> std::result::Result<Population, String> {
    let group = Group::derive(raw.architecture().clone());
    let rows: Vec<&[f32]> = raw.rows().collect();
    let runs: Vec<u32> = (0..raw.len() as u32).collect();
    let aligned = || {
        let (fitted, _) = Canonicalizer::fit_mean(group.clone(), &rows, ITERATIONS, AlignBy::Weights, seed.fork("mean"))?;
        let matching = Matching { starts: STARTS, ..Matching::default() };
        let canonicalizer = Canonicalizer::new(group.clone(), fitted.anchor().to_vec(), matching, seed.fork("match"))?;
        canonicalizer.canonicalize_population(raw, &runs)
    };
    aligned().map(|canonical| canonical.networks).map_err(|error| error.to_string())
}

/// What a data set's name on the command line means.
pub(crate) fn data_config(name: &str) -> DataConfig {
    if name == "digits" {
        return DataConfig::Digits(Nothing::default());
    }
    // A path that is there is meant from here; else it starts where those of run files do.
    let path = Path::new(name);
    let path = if path.exists() { std::path::absolute(path).unwrap_or_else(|_| path.to_owned()) } else { path.to_owned() };
    if path.extension().is_some_and(|extension| extension == "npz") {
        return DataConfig::Npz(NpzConfig { path });
    }
    let name = path.file_name().map_or_else(|| name.to_owned(), |name| name.to_string_lossy().into_owned());
    DataConfig::Idx(IdxConfig { path, name, validation: 5_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_sets_are_named_as_on_the_command_line() {
        assert!(matches!(data_config("digits"), DataConfig::Digits(_)));
        assert!(matches!(data_config("some/where.npz"), DataConfig::Npz(npz) if npz.path == Path::new("some/where.npz")));
        assert!(matches!(data_config("mnist"), DataConfig::Idx(idx) if idx.name == "mnist"));
    }

    #[test]
    fn samples_are_ordered_and_bounded() {
        let seed = Seed::new(1);
        assert_eq!(sample(5, 9, seed), [0, 1, 2, 3, 4]);
        let some = sample(100, 10, seed);
        assert!(some.len() == 10 && some.windows(2).all(|w| w[0] < w[1]) && some[9] < 100);
        assert_eq!(sample(100, 10, seed), some);
    }
}
