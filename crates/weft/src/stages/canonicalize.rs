//! Stage 2: every network becomes the representative of its orbit that lies closest to an anchor.
//!
//! ```text
//! canonical/
//!   zoo/                    the canonical networks; each names its raw checkpoint as its parent
//!   anchor.safetensors      what units are matched to, fitted on training runs alone
//!   elements.safetensors    what was applied to each network, in the zoo's order
//!   canonicalize.json       distances, barriers and the proof that functions are kept
//!   structure.json          spectra, distances, barriers and sharpness of the training runs' last networks, with controls
//! ```

use super::{Done, Session, estimate, write_json};
use crate::cache::{Completed, Running};
use crate::config::{Align, CanonicalizeConfig};
use crate::proof::{self, Deviation};
use crate::report::data::{BeforeAfter, Canonicalization};
use crate::run::Stage;
use crate::structure::{self, ZooStructure};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use weft_canon::{CanonicalPopulation, Canonicalizer, Group, Matching, Transform};
use weft_core::{Digest, Part, Population, Record, Split};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;
/// Orders of networks that an alignment without an anchor tries.
const RESTARTS: usize = 3;
/// Networks in memory at a time.
const CHUNK: usize = 2_048;
/// Validation examples on which functions are compared.
const PROOF_EXAMPLES: usize = 64;
/// Random inputs on which they are compared too: data may be silent where weights are not.
const PROOF_RANDOM: usize = 16;
/// Pairs of networks on whose paths barriers are measured.
const PAIRS: usize = 16;

/// Where the canonical zoo lies in the stage's folder.
pub(super) fn zoo_of(stage: &Completed) -> std::path::PathBuf {
    stage.folder.join("zoo")
}

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let upstream = done.of(Stage::Zoo);
    let config = &session.config.canonicalize;
    let key = session.key(("canonicalize", "canonical"), VERSION, &[("zoo", upstream)]).setting("canonicalize", config);
    session.unless_fresh(key, |running| {
        let raw = Zoo::open(&upstream.folder)?;
        Job { session, config, raw: &raw, parent: upstream.output }.run(running)
    })
}

struct Job<'a> {
    session: &'a Session<'a>,
    config: &'a CanonicalizeConfig,
    raw: &'a Zoo,
    parent: Digest,
}

/// What is gathered while the networks pass by.
#[derive(Default)]
struct Gathered {
    transforms: Vec<Transform>,
    seen: BTreeSet<Digest>,
    num_ill_conditioned: usize,
    max_deviation: f64,
    num_in_f64: usize,
}

impl Job<'_> {
    fn run(&self, running: Running) -> Result<Completed> {
        let architecture = self.raw.architecture().clone();
        let group = Group::derive(architecture.clone());
        let finals = self.raw.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?;
        if finals.len() < 2 {
            let got = finals.len().to_string();
            return Err(Error::Range {
                what: "the number of training runs with a last network",
                expected: "2 or more".to_owned(),
                got,
            });
        }
        let raw_finals = self.raw.load(&finals, Purpose::Fit)?;
        self.session.monitor.note(format!("canonicalize: {group}"));
        let fitted = self.fit(group.clone(), &raw_finals)?;
        self.session.check_stop(Stage::Canonicalize)?;

        let folder = running.folder().join("zoo");
        // A canonical zoo that was half written is quicker made anew than compared.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        let mut zoo = Zoo::create(&folder, &format!("{}, canonical", self.raw.name()), architecture, Some(self.parent))?;
        let mut gathered = Gathered::default();
        self.transform(fitted.as_ref().map(|(canonicalizer, _)| canonicalizer), &mut zoo, &mut gathered)?;
        let (report, structure) = self.report(&group, (&raw_finals, &finals), fitted.as_ref(), &gathered)?;
        write_json(&running.folder().join("canonicalize.json"), &report)?;
        write_json(&running.folder().join("structure.json"), &structure)?;
        write_elements(running.folder(), fitted.as_ref().map(|(c, _)| c.anchor()), &gathered.transforms)?;
        let output = zoo.digest()?;
        drop(zoo);
        running.complete_as(
            &["zoo/zoo.toml", "anchor.safetensors", "elements.safetensors", "canonicalize.json", "structure.json"],
            output,
        )
    }

    /// The canonicalizer with the mean distances of its iterations; none if nothing is to be aligned.
    fn fit(&self, group: Group, finals: &Population) -> Result<Option<(Canonicalizer, Vec<f64>)>> {
        let seed = self.session.seed.fork("canonicalize");
        let matching = Matching { starts: self.config.starts, ..Matching::default() };
        match self.config.align {
            Align::None => Ok(None),
            Align::Anchor => Ok(Some((Canonicalizer::fit_anchor(group, finals.row(0), matching, seed)?, Vec::new()))),
            Align::Consistent => {
                let rows: Vec<&[f32]> = finals.rows().collect();
                let (fitted, _) = Canonicalizer::fit_consistent(group.clone(), &rows, RESTARTS, seed)?;
                Ok(Some((Canonicalizer::new(group, fitted.anchor().to_vec(), matching, seed)?, Vec::new())))
            }
            Align::Mean => {
                let rows: Vec<&[f32]> = finals.rows().collect();
                let (fitted, history) = Canonicalizer::fit_mean(group.clone(), &rows, self.config.iterations, seed)?;
                Ok(Some((Canonicalizer::new(group, fitted.anchor().to_vec(), matching, seed)?, history)))
            }
        }
    }

    /// Canonicalizes run by run, proves that functions are kept, and appends to the new zoo.
    fn transform(&self, canonicalizer: Option<&Canonicalizer>, zoo: &mut Zoo, gathered: &mut Gathered) -> Result<()> {
        let entries = self.raw.records(&Filter::default())?;
        let total = entries.len() as u64;
        let monitor = self.session.monitor;
        monitor.start("canonicalize", total, "networks");
        let mut done = 0;
        for chunk in chunks_of_runs(entries) {
            self.session.check_stop(Stage::Canonicalize)?;
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
            self.append(zoo, (canonical, transforms, &proofs), entries, gathered)?;
            monitor.progress(done);
        }
        monitor.finish();
        Ok(())
    }

    /// Runs every network before and after, on data and on random inputs.
    fn prove(&self, raw: &Population, canonical: &Population) -> Result<Vec<Deviation>> {
        let dataset = &self.session.dataset;
        let validation = dataset.range(Part::Validation);
        let data = dataset.gather(validation.start..validation.end.min(validation.start + PROOF_EXAMPLES));
        let random = weft_net::random_inputs(raw.architecture(), PROOF_RANDOM, self.session.seed.fork("proof"));
        proof::deviations(raw, canonical, &[&data, &random])
    }

    /// Appends canonical networks with their raw ones as parents; two raw networks of one orbit become one.
    fn append(
        &self,
        zoo: &mut Zoo,
        (canonical, transforms, proofs): (Population, Vec<Transform>, &[Deviation]),
        entries: Vec<Entry>,
        gathered: &mut Gathered,
    ) -> Result<()> {
        let unscored: Vec<usize> =
            (0..entries.len()).filter(|&i| !entries[i].record().metrics.contains_key("validation-accuracy")).collect();
        let scores = weft_net::scores(&canonical.select(&unscored), &self.session.dataset, Part::Validation)?;
        let scores: BTreeMap<usize, weft_net::Scores> = unscored.into_iter().zip(scores).collect();
        let (mut kept, mut records) = (Vec::new(), Vec::new());
        for (i, (entry, transform)) in entries.into_iter().zip(transforms).enumerate() {
            let digest = canonical.digest(i);
            if !gathered.seen.insert(digest) {
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
            gathered.transforms.push(transform);
        }
        let canonical = if kept.len() == canonical.len() { canonical } else { canonical.select(&kept) };
        super::append(zoo, &canonical, &records)
    }

    fn report(
        &self,
        group: &Group,
        (raw, entries): (&Population, &[Entry]),
        fitted: Option<&(Canonicalizer, Vec<f64>)>,
        gathered: &Gathered,
    ) -> Result<(Canonicalization, ZooStructure)> {
        let runs: Vec<u32> = (0..entries.len() as u32).collect();
        let canonical = match fitted {
            Some((canonicalizer, _)) => canonicalizer.canonicalize_population(raw, &runs)?.networks,
            None => raw.clone(),
        };
        let pairs = weft_eval::structure::pairs(raw.len(), PAIRS, self.session.seed);
        let distances = |networks: &Population| {
            let distance = |&[a, b]: &[usize; 2]| distance(networks.row(a), networks.row(b));
            estimate(&pairs.iter().map(distance).collect::<Vec<_>>())
        };
        let dataset = &self.session.dataset;
        let (path_before, barrier_before) = weft_eval::structure::paths(raw, &pairs, dataset)?;
        let (path_after, barrier_after) = weft_eval::structure::paths(&canonical, &pairs, dataset)?;
        let seed = self.session.seed.fork("structure");
        let chosen = structure::sample(raw.len(), structure::SAMPLE, seed);
        let aligned = if fitted.is_some() { Ok(canonical.select(&chosen)) } else { Err("the run does not align them".to_owned()) };
        let mut measured = structure::of_networks(&raw.select(&chosen), aligned, (Some(dataset), 0), seed)?;
        (measured.num_runs, measured.raw.barrier) = (raw.len(), Some(barrier_before));
        measured.canonical.iter_mut().for_each(|canonical| canonical.barrier = Some(barrier_after));
        let report = Canonicalization {
            group: group.to_string(),
            num_networks: gathered.transforms.len(),
            distance: BeforeAfter { before: distances(raw), after: distances(&canonical) },
            barrier: BeforeAfter { before: barrier_before, after: barrier_after },
            path_before,
            path_after,
            num_ill_conditioned: gathered.num_ill_conditioned,
            max_function_deviation: gathered.max_deviation,
            num_proven_in_f64: gathered.num_in_f64,
            mean_history: fitted.map(|(_, history)| history.clone()).unwrap_or_default(),
        };
        Ok((report, measured))
    }
}

/// Writes the anchor, and what was applied to each network as [`Transform::encode`] has it, one after the other.
fn write_elements(folder: &Path, anchor: Option<&[f32]>, transforms: &[Transform]) -> Result<()> {
    let none = BTreeMap::new();
    let anchor = anchor.unwrap_or_default();
    weft_zoo::write_tensors(&folder.join("anchor.safetensors"), &[("anchor".to_owned(), vec![anchor.len()], anchor)], &none)?;
    let codes: Vec<Vec<f32>> = transforms.iter().map(Transform::encode).collect();
    let lengths: Vec<f32> = codes.iter().map(|code| code.len() as f32).collect();
    let code = codes.concat();
    let tensors = [("lengths".to_owned(), vec![lengths.len()], lengths.as_slice()), ("code".to_owned(), vec![code.len()], &code)];
    Ok(weft_zoo::write_tensors(&folder.join("elements.safetensors"), &tensors, &none)?)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
}

/// Whole runs, each with its snapshots in order and its last network last, in pieces of about [`CHUNK`].
fn chunks_of_runs(entries: Vec<Entry>) -> Vec<Vec<(Entry, u32)>> {
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
        if chunks.last().is_none_or(|chunk| chunk.len() + run.len() > CHUNK) {
            chunks.push(Vec::new());
        }
        let chunk = chunks.last_mut().expect("a chunk was just pushed");
        chunk.extend(run.into_iter().map(|entry| (entry, number as u32)));
    }
    chunks
}
