//! A zoo's networks in canonical form: fitted on its training runs, proved network by network, written to a new zoo.

use crate::activations::OnData;
use crate::config::{Align, By, CanonicalizeConfig};
use crate::proof::{self, Deviation};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_canon::{AlignBy, CanonicalPopulation, Canonicalizer, Group, Matching, Transform};
use weft_core::{Architecture, Dataset, Digest, Monitor, Part, Population, Record, Seed, Split};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Orders of networks that an alignment without an anchor tries.
const RESTARTS: usize = 3;
/// Networks in memory at a time, and weights of theirs, if one network has no more.
const CHUNK: usize = 2_048;
const CHUNK_WEIGHTS: usize = 1 << 27;
/// Validation examples on which functions are compared.
const PROOF_EXAMPLES: usize = 64;
/// Random inputs on which they are compared too: data may be silent where weights are not.
const PROOF_RANDOM: usize = 16;
/// The same for networks so large that running one takes more floating-point operations than this.
const PROOF_RANDOM_LEAST: usize = 2;
const PROOF_FLOPS: f64 = 1e11;
/// The most bytes that a weight takes while its network is aligned to an anchor, the anchor not counted.
pub(crate) const BYTES_A_WEIGHT: u64 = 32;

/// Gets what was applied to one network after the other.
pub(crate) type Keep<'a> = dyn FnMut(Transform) -> Result<()> + 'a;

/// A zoo on its way to canonical form.
pub(crate) struct Canonicalization<'a> {
    pub(crate) raw: &'a Zoo,
    pub(crate) config: &'a CanonicalizeConfig,
    /// For alignment by activations, the proof and scores; without it the proof is by random inputs alone.
    pub(crate) dataset: Option<&'a Dataset>,
    /// The most bytes that networks in memory may take; without it, as many are as are quick.
    pub(crate) memory: Option<u64>,
    pub(crate) seed: Seed,
    pub(crate) monitor: &'a Monitor<'a>,
}

/// What is gathered while the networks pass by.
#[derive(Default)]
pub(crate) struct Gathered {
    /// Networks of the new zoo.
    pub(crate) num_networks: usize,
    /// Networks that were members of another's orbit.
    pub(crate) num_duplicates: usize,
    seen: BTreeSet<Digest>,
    pub(crate) num_ill_conditioned: usize,
    pub(crate) max_deviation: f64,
    pub(crate) num_in_f64: usize,
}

impl Canonicalization<'_> {
    /// The last networks of training runs, which all is fitted to.
    pub(crate) fn finals(&self) -> Result<(Population, Vec<Entry>)> {
        let finals = self.raw.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?;
        let needed = if self.config.align == Align::Anchor { 1 } else { 2 };
        if finals.len() < needed {
            return Err(Error::Range {
                what: "the number of training runs with a last network",
                expected: format!("{needed} or more"),
                got: finals.len().to_string(),
            });
        }
        Ok((self.raw.load(&finals, Purpose::Fit)?, finals))
    }

    pub(crate) fn check_stop(&self) -> Result<()> {
        if self.monitor.should_stop() { Err(Error::Interrupted { stage: "canonicalize" }) } else { Ok(()) }
    }

    /// The canonicalizer with the mean distances of its iterations; none if nothing is to be aligned.
    pub(crate) fn fit(&self, group: Group, finals: &Population) -> Result<Option<(Canonicalizer, Vec<f64>)>> {
        let seed = self.seed.fork("canonicalize");
        let matching = Matching { starts: self.config.starts, ..Matching::default() };
        match self.config.align {
            Align::None => Ok(None),
            Align::Anchor => {
                let fitted = Canonicalizer::fit_anchor(group, finals.row(0), matching, seed)?.aligned_by(self.by()?)?;
                Ok(Some((fitted, Vec::new())))
            }
            Align::Consistent => {
                let rows: Vec<&[f32]> = finals.rows().collect();
                let (fitted, _) = Canonicalizer::fit_consistent(group.clone(), &rows, RESTARTS, seed)?;
                Ok(Some((Canonicalizer::new(group, fitted.anchor().to_vec(), matching, seed)?, Vec::new())))
            }
            Align::Mean => {
                let rows: Vec<&[f32]> = finals.rows().collect();
                let (iterations, by) = (self.config.iterations, self.by()?);
                let (fitted, history) = Canonicalizer::fit_mean(group.clone(), &rows, iterations, by.clone(), seed)?;
                let fitted = Canonicalizer::new(group, fitted.anchor().to_vec(), matching, seed)?.aligned_by(by)?;
                Ok(Some((fitted, history)))
            }
        }
    }

    /// By what units count as the same; activations are those on the first training examples, whose order is random.
    fn by(&self) -> Result<AlignBy> {
        match (self.config.by, self.dataset) {
            (By::Weights, _) => Ok(AlignBy::Weights),
            (By::Activations, None) => Err(Error::DataNeeded { why: "units are aligned by their activations" }),
            (By::Activations, Some(dataset)) => {
                let train = dataset.range(Part::Train);
                let inputs = dataset.gather(train.start..train.end.min(train.start + self.config.examples));
                Ok(AlignBy::Activations(Arc::new(OnData::new(self.raw.architecture().clone(), inputs))))
            }
        }
    }

    /// Canonicalizes run by run, proves that functions are kept, and appends to the new zoo.
    ///
    /// What was applied to each network of the new zoo goes to `keep`, in the zoo's order.
    pub(crate) fn transform(&self, canonicalizer: Option<&Canonicalizer>, zoo: &mut Zoo, keep: &mut Keep<'_>) -> Result<Gathered> {
        let mut gathered = Gathered::default();
        let entries = self.raw.records(&Filter::default())?;
        let total = entries.len() as u64;
        let monitor = self.monitor;
        monitor.start("canonicalize", total, "networks");
        let mut done = 0;
        let dim = self.raw.architecture().num_parameters();
        let room = match self.memory {
            None => CHUNK.min(CHUNK_WEIGHTS / dim),
            Some(memory) => CHUNK.min((memory / (BYTES_A_WEIGHT * dim as u64)) as usize),
        };
        let room = room.max(1);
        for chunk in chunks_of_runs(entries, room) {
            self.check_stop()?;
            let (entries, runs): (Vec<Entry>, Vec<u32>) = chunk.into_iter().unzip();
            let raw = self.raw.load(&entries, Purpose::Transform)?;
            let CanonicalPopulation { networks: canonical, transforms, ill_conditioned } = match canonicalizer {
                Some(canonicalizer) => canonicalizer.canonicalize_population(&raw, &runs)?,
                None => CanonicalPopulation {
                    networks: raw.clone(),
                    transforms: vec![Transform::default(); raw.len()],
                    ill_conditioned: vec![0; raw.len()],
                },
            };
            gathered.num_ill_conditioned += ill_conditioned.iter().sum::<usize>();
            let proofs = self.prove(&raw, &canonical)?;
            gathered.max_deviation = proofs.iter().fold(gathered.max_deviation, |most, proof| most.max(proof.relative()));
            gathered.num_in_f64 += proofs.iter().filter(|proof| proof.max_relative_f64.is_some()).count();
            done += entries.len() as u64;
            for transform in self.append(zoo, (canonical, transforms, &proofs), entries, &mut gathered)? {
                keep(transform)?;
            }
            monitor.progress(done);
        }
        monitor.finish();
        Ok(gathered)
    }

    /// Runs every network before and after, on random inputs and, where there are some, on data.
    fn prove(&self, raw: &Population, canonical: &Population) -> Result<Vec<Deviation>> {
        let affordable = (PROOF_FLOPS / weft_net::forward_flops(raw.architecture())) as usize;
        let num_random = affordable.clamp(PROOF_RANDOM_LEAST, PROOF_RANDOM);
        let random = weft_net::random_inputs(raw.architecture(), num_random, self.seed.fork("proof"));
        let Some(dataset) = self.dataset else { return proof::deviations(raw, canonical, &[&random]) };
        let validation = dataset.range(Part::Validation);
        let data = dataset.gather(validation.start..validation.end.min(validation.start + PROOF_EXAMPLES));
        proof::deviations(raw, canonical, &[&data, &random])
    }

    /// Appends canonical networks with their raw ones as parents; two raw networks of one orbit become one. Returns what was applied.
    fn append(
        &self,
        zoo: &mut Zoo,
        (canonical, transforms, proofs): (Population, Vec<Transform>, &[Deviation]),
        entries: Vec<Entry>,
        gathered: &mut Gathered,
    ) -> Result<Vec<Transform>> {
        let scores = self.scores(&canonical, &entries)?;
        let (mut kept, mut records, mut applied) = (Vec::new(), Vec::new(), Vec::new());
        for (i, (entry, transform)) in entries.into_iter().zip(transforms).enumerate() {
            let digest = canonical.digest(i);
            if !gathered.seen.insert(digest) {
                gathered.num_duplicates += 1;
                continue;
            }
            let mut record: Record = entry.into_record();
            record.provenance.parents = vec![record.digest];
            record.provenance.source = format!("canonical form of {}", record.provenance.source);
            record.digest = digest;
            record.max_deviation = Some(proofs[i].relative());
            if let Some(scores) = scores.get(&i) {
                record.metrics.insert("validation-accuracy".to_owned(), scores.accuracy);
                record.metrics.insert("validation-loss".to_owned(), scores.loss);
            }
            kept.push(i);
            records.push(record);
            applied.push(transform);
        }
        let canonical = if kept.len() == canonical.len() { canonical } else { canonical.select(&kept) };
        gathered.num_networks += records.len();
        crate::stages::append(zoo, &canonical, &records)?;
        Ok(applied)
    }

    /// The scores of networks that have none yet.
    fn scores(&self, networks: &Population, entries: &[Entry]) -> Result<BTreeMap<usize, weft_net::Scores>> {
        let Some(dataset) = self.dataset else { return Ok(BTreeMap::new()) };
        let has_none = |i: &usize| !entries[*i].record().metrics.contains_key("validation-accuracy");
        let unscored: Vec<usize> = (0..entries.len()).filter(has_none).collect();
        if unscored.is_empty() {
            return Ok(BTreeMap::new());
        }
        let records = unscored.iter().map(|&i| entries[i].record());
        let tasks = crate::stages::tasks_of(records, networks.architecture(), dataset.num_classes())?;
        let labelled = (dataset, tasks.as_deref());
        let scores = weft_net::scores(&networks.select(&unscored), labelled, Part::Validation, &weft_net::Device::cpu())?;
        Ok(unscored.into_iter().zip(scores).collect())
    }
}

/// Whole runs, each with its snapshots in order and its last network last, in pieces of about `room` networks.
fn chunks_of_runs(entries: Vec<Entry>, room: usize) -> Vec<Vec<(Entry, u32)>> {
    let mut number: BTreeMap<String, usize> = BTreeMap::new();
    let mut runs: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        let next = runs.len();
        let run = *number.entry(entry.record().run.clone()).or_insert(next);
        if run == next {
            runs.push(Vec::new());
        }
        runs[run].push(entry);
    }
    let mut chunks: Vec<Vec<(Entry, u32)>> = Vec::new();
    for (number, mut run) in runs.into_iter().enumerate() {
        run.sort_by_key(|entry| (entry.record().is_final, entry.record().step));
        if chunks.last().is_none_or(|chunk| chunk.len() + run.len() > room) {
            chunks.push(Vec::new());
        }
        let chunk = chunks.last_mut().expect("a chunk was just pushed");
        chunk.extend(run.into_iter().map(|entry| (entry, number as u32)));
    }
    chunks
}

/// The distance of two networks as they are, running statistics left out.
pub(crate) fn distance(architecture: &Architecture, a: &[f32], b: &[f32]) -> f64 {
    let squared = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>();
    let statistics = architecture.statistics().into_iter();
    (squared(a, b) - statistics.map(|range| squared(&a[range.clone()], &b[range])).sum::<f64>()).max(0.0).sqrt()
}
