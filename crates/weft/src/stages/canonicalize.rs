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
use crate::canonical::{Canonicalization, Gathered, distance};
use crate::report::data::{self, BeforeAfter};
use crate::run::Stage;
use crate::structure::{self, ZooStructure};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use weft_canon::{Canonicalizer, Group, Transform};
use weft_core::{Dataset, Digest, Population};
use weft_zoo::{Entry, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 4;
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
        let (seed, monitor) = (session.seed, session.monitor);
        let dataset = session.dataset(Stage::Canonicalize)?;
        let work = Canonicalization { raw: &raw, config, dataset: Some(dataset), memory: None, seed, monitor };
        Job { session, dataset, work, parent: upstream.output }.run(running)
    })
}

struct Job<'a> {
    session: &'a Session<'a>,
    dataset: &'a Dataset,
    work: Canonicalization<'a>,
    parent: Digest,
}

impl Job<'_> {
    fn run(&self, running: Running) -> Result<Completed> {
        let architecture = self.work.raw.architecture().clone();
        let group = Group::derive(architecture.clone()).on(&self.session.place);
        let (raw_finals, finals) = self.work.finals()?;
        self.session.monitor.note(format!("canonicalize: {group}"));
        let fitted = self.work.fit(group.clone(), &raw_finals)?;
        self.work.check_stop()?;

        let folder = running.folder().join("zoo");
        // A canonical zoo that was half written is quicker made anew than compared.
        if folder.exists() {
            std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
        }
        let mut zoo = Zoo::create(&folder, &format!("{}, canonical", self.work.raw.name()), architecture, Some(self.parent))?;
        let canonicalizer = fitted.as_ref().map(|(canonicalizer, _)| canonicalizer);
        let mut transforms = Vec::new();
        let gathered = self.work.transform(canonicalizer, &mut zoo, &mut |transform| {
            transforms.push(transform);
            Ok(())
        })?;
        let (report, structure) = self.report(&group, (&raw_finals, &finals), fitted.as_ref(), &gathered)?;
        write_json(&running.folder().join("canonicalize.json"), &report)?;
        write_json(&running.folder().join("structure.json"), &structure)?;
        write_elements(running.folder(), canonicalizer.map(Canonicalizer::anchor), &transforms)?;
        let output = zoo.digest()?;
        drop(zoo);
        running.complete_as(
            &["zoo/zoo.toml", "anchor.safetensors", "elements.safetensors", "canonicalize.json", "structure.json"],
            output,
        )
    }

    fn report(
        &self,
        group: &Group,
        (raw, entries): (&Population, &[Entry]),
        fitted: Option<&(Canonicalizer, Vec<f64>)>,
        gathered: &Gathered,
    ) -> Result<(data::Canonicalization, ZooStructure)> {
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
        let dataset = self.dataset;
        let (path_before, barrier_before) = weft_eval::structure::paths(raw, &pairs, dataset)?;
        let (path_after, barrier_after) = weft_eval::structure::paths(&canonical, &pairs, dataset)?;
        let seed = self.session.seed.fork("structure");
        let chosen = structure::sample(raw.len(), structure::SAMPLE, seed);
        let aligned = if fitted.is_some() { Ok(canonical.select(&chosen)) } else { Err("the run does not align them".to_owned()) };
        let mut measured = structure::of_networks(&raw.select(&chosen), aligned, (Some(dataset), 0), seed)?;
        (measured.num_runs, measured.raw.barrier) = (raw.len(), Some(barrier_before));
        measured.canonical.iter_mut().for_each(|canonical| canonical.barrier = Some(barrier_after));
        let report = data::Canonicalization {
            group: group.to_string(),
            num_networks: gathered.num_networks,
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
