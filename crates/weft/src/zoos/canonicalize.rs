//! A zoo's networks in canonical form, without a run file.

use crate::canonical::{Canonicalization, distance};
use crate::config::{Align, By, CanonicalizeConfig};
use crate::{Error, Result, stages, structure};
use serde::Serialize;
use std::path::PathBuf;
use weft_canon::{Canonicalizer, Group};
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
    let job = Canonicalization { raw: &raw, config: &config, dataset: dataset.as_ref(), memory: None, seed, monitor };
    let group = Group::derive(raw.architecture().clone());
    let name = format!("{}, canonical", raw.name());
    let (done, distance) = raw.derive(&request.output, &name, |zoo| {
        let (finals, _) = job.finals()?;
        let fitted = job.fit(group.clone(), &finals)?;
        job.check_stop()?;
        let canonicalizer = fitted.as_ref().map(|(canonicalizer, _)| canonicalizer);
        let done = job.transform(canonicalizer, zoo, &mut |_| Ok(()))?;
        let distance = canonicalizer.map(|canonicalizer| distances(&finals, canonicalizer, seed)).transpose()?.flatten();
        Ok::<_, Error>((done, distance))
    })?;
    Ok(CanonicalizeView {
        zoo: request.output.clone(),
        group: group.to_string(),
        networks: done.num_networks,
        duplicates: done.num_duplicates,
        max_deviation: done.max_deviation,
        proven_in_f64: done.num_in_f64,
        ill_conditioned: done.num_ill_conditioned,
        distance,
    })
}

/// The relative distances of pairs of training runs, before and after.
fn distances(finals: &Population, canonicalizer: &Canonicalizer, seed: Seed) -> Result<Option<[Estimate; 2]>> {
    let pairs = weft_eval::structure::pairs(finals.len(), PAIRS, seed);
    if pairs.is_empty() {
        return Ok(None);
    }
    let runs: Vec<u32> = (0..finals.len() as u32).collect();
    let canonical = canonicalizer.canonicalize_population(finals, &runs)?.networks;
    let estimate = |networks: &Population| {
        let norm = |row: &[f32]| row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
        let relative = |&[a, b]: &[usize; 2]| {
            let (a, b) = (networks.row(a), networks.row(b));
            distance(networks.architecture(), a, b) / (0.5 * (norm(a) + norm(b))).max(f64::MIN_POSITIVE).sqrt()
        };
        stages::estimate(&pairs.iter().map(relative).collect::<Vec<_>>())
    };
    Ok(Some([estimate(finals), estimate(&canonical)]))
}
