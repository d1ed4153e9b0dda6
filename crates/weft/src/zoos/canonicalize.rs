//! A zoo's networks in canonical form, without a run file.

use crate::canonical::Canonicalization;
use crate::config::{Align, By, CanonicalizeConfig};
use crate::{Error, Result, stages, structure};
use serde::Serialize;
use std::path::PathBuf;
use weft_canon::Group;
use weft_core::{Monitor, Population, Seed};
use weft_eval::Estimate;
use weft_zoo::Zoo;

/// Pairs of networks whose distances are compared.
const PAIRS: usize = 64;

/// What is brought into canonical form, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonicalize {
    /// The zoo, which stays as it is.
    pub zoo: PathBuf,
    /// Where the new one goes.
    pub output: PathBuf,
    /// What units are matched to.
    pub align: Align,
    /// By what units count as the same.
    pub by: By,
    /// `digits`, a folder of idx files or an npz file: needed for alignment by activations, and part of the proof.
    pub data: Option<String>,
    /// Starts of the matching of one network, at least one.
    pub starts: usize,
    /// The seed of starts and random inputs.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CanonicalizeView {
    /// The new zoo.
    pub zoo: PathBuf,
    /// What was divided out, for people.
    pub group: String,
    /// Its networks.
    pub networks: usize,
    /// Networks that were members of another's orbit.
    pub duplicates: usize,
    /// The largest relative deviation of outputs.
    pub max_deviation: f64,
    /// Networks whose proof was run in `f64`.
    pub proven_in_f64: usize,
    /// Scales, gains and directions that weights left undetermined.
    pub ill_conditioned: usize,
    /// Mean distance of pairs of training runs over the root mean square of their norms, before and after; none of fewer than two.
    pub distance: Option<[Estimate; 2]>,
}

/// Writes a new zoo with the canonical forms of another's networks, each proved to be the same function.
///
/// All is fitted to the last networks of training runs; a failure leaves no zoo behind.
///
/// # Errors
/// The folder is no zoo or the output is taken, too few training runs, data that do not fit, a function that moved, or the user
/// stopped it.
pub fn canonicalize(request: &Canonicalize, monitor: &Monitor) -> Result<CanonicalizeView> {
    let raw = Zoo::open(&request.zoo)?;
    let dataset = request.data.as_deref().map(|name| stages::load_dataset(&structure::data_config(name))).transpose()?;
    let config =
        CanonicalizeConfig { align: request.align, by: request.by, starts: request.starts, ..CanonicalizeConfig::default() };
    if request.align == Align::Consistent && request.by == By::Activations {
        let expected = "`weights` where networks are aligned with each other".to_owned();
        return Err(Error::Range { what: "`by`", expected, got: "`activations`".to_owned() });
    }
    let seed = Seed::new(request.seed);
    let job = Canonicalization { raw: &raw, config: &config, dataset: dataset.as_ref(), seed, monitor };
    let group = Group::derive(raw.architecture().clone());
    let (finals, _) = job.finals()?;
    let fitted = job.fit(group.clone(), &finals)?;
    job.check_stop()?;
    let canonicalizer = fitted.as_ref().map(|(canonicalizer, _)| canonicalizer);

    let name = format!("{}, canonical", raw.name());
    let mut zoo = Zoo::create(&request.output, &name, raw.architecture().clone(), Some(raw.digest()?))?;
    let done = job.transform(canonicalizer, &mut zoo);
    drop(zoo);
    if done.is_err() {
        std::fs::remove_dir_all(&request.output).map_err(Error::io("remove", &request.output))?;
    }
    let done = done?;
    let pairs = weft_eval::structure::pairs(finals.len(), PAIRS, seed);
    let distance = match canonicalizer {
        Some(canonicalizer) if !pairs.is_empty() => {
            let runs: Vec<u32> = (0..finals.len() as u32).collect();
            let canonical = canonicalizer.canonicalize_population(&finals, &runs)?.networks;
            Some([distances(&finals, &pairs), distances(&canonical, &pairs)])
        }
        _ => None,
    };
    Ok(CanonicalizeView {
        zoo: request.output.clone(),
        group: group.to_string(),
        networks: done.transforms.len(),
        duplicates: done.num_duplicates,
        max_deviation: done.max_deviation,
        proven_in_f64: done.num_in_f64,
        ill_conditioned: done.num_ill_conditioned,
        distance,
    })
}

fn distances(networks: &Population, pairs: &[[usize; 2]]) -> Estimate {
    let square = |row: &mut dyn Iterator<Item = f32>| row.map(|w| f64::from(w).powi(2)).sum::<f64>();
    let between = |&[a, b]: &[usize; 2]| {
        let (a, b) = (networks.row(a), networks.row(b));
        let norms = square(&mut a.iter().copied()) + square(&mut b.iter().copied());
        let apart = square(&mut a.iter().zip(b).map(|(a, b)| a - b));
        (2.0 * apart / norms.max(f64::MIN_POSITIVE)).sqrt()
    };
    stages::estimate(&pairs.iter().map(between).collect::<Vec<_>>())
}
