//! Stage 2 without data.
//!
//! ```text
//! canonical/
//!   zoo/                    the canonical networks; each names its raw checkpoint as its parent
//!   elements/               what was applied to each, in the zoo's order, a file a network
//!   anchor.safetensors      what units were matched to; empty if to nothing
//!   canonicalize.json       spectra and distances before and after, and the proof that functions are kept
//! ```

use super::super::{Done, Session, write_json};
use super::{in_blocks, num_columns, room};
use crate::cache::{Completed, Running};
use crate::canonical::{BYTES_A_WEIGHT, Canonicalization, Gathered};
use crate::config::Align;
use crate::run::Stage;
use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use weft_canon::{Canonicalizer, Group, Matching, Transform};
use weft_codec::geometry;
use weft_core::{Population, Split};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 2;
/// Bytes of an anchor's weight, and what the mean that becomes the next one takes beyond the copies of a network in the other steps.
const ANCHOR_BYTES: u64 = 4;
const MEAN_BYTES: u64 = 4;

/// `canonicalize.json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Figures {
    group: String,
    num_networks: usize,
    num_ill_conditioned: usize,
    max_function_deviation: f64,
    num_proven_in_f64: usize,
    /// Mean distances to the anchor at each of its estimates.
    mean_history: Vec<f64>,
    raw: Option<Spread>,
    canonical: Option<Spread>,
}

/// How the last networks of training runs lie to each other.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Spread {
    mean_distance: f64,
    norm: f64,
    spectrum: Vec<f64>,
}

pub(in crate::stages) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let upstream = done.of(Stage::Zoo);
    let config = &session.config.canonicalize;
    let key = session.key(("canonicalize", "canonical"), VERSION, &[("zoo", upstream)]).setting("canonicalize", config);
    session.unless_fresh(key, |running| canonicalize(session, upstream, running))
}

fn canonicalize(session: &Session, upstream: &Completed, running: Running) -> Result<Completed> {
    let raw = Zoo::open(&upstream.folder)?;
    let (config, architecture) = (&session.config.canonicalize, raw.architecture().clone());
    let dim = architecture.num_parameters() as u64;
    let held = match config.align {
        Align::Mean => ANCHOR_BYTES + MEAN_BYTES,
        _ => ANCHOR_BYTES,
    };
    let room = room(session, Stage::Canonicalize, dim * (BYTES_A_WEIGHT + held) * longest_run(&raw)?)?;
    let (seed, monitor, memory) = (session.seed, session.monitor, Some(room - dim * held));
    let work = Canonicalization { raw: &raw, config, dataset: None, memory, seed, monitor };
    let group = Group::derive(architecture.clone()).on(&session.place);
    monitor.note(format!("canonicalize: {group}"));
    let fitted = fit(&work, group.clone())?;
    let canonicalizer = fitted.as_ref().map(|(canonicalizer, _)| canonicalizer);

    let (folder, elements) = (running.folder().join("zoo"), running.folder().join("elements"));
    for folder in [&folder, &elements] {
        if folder.exists() {
            std::fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
        }
    }
    std::fs::create_dir(&elements).map_err(Error::io("create", &elements))?;
    let mut zoo = Zoo::create(&folder, &format!("{}, canonical", raw.name()), architecture, Some(upstream.output))?;
    let (none, mut number) = (BTreeMap::new(), 0);
    let gathered = work.transform(canonicalizer, &mut zoo, &mut |transform: Transform| {
        let code = transform.encode();
        let path = elements.join(format!("{number:05}.safetensors"));
        number += 1;
        Ok(weft_zoo::write_tensors(&path, &[("code".to_owned(), vec![code.len()], code.as_slice())], &none)?)
    })?;
    let anchor = canonicalizer.map(Canonicalizer::anchor).unwrap_or_default();
    let tensors = [("anchor".to_owned(), vec![anchor.len()], anchor)];
    weft_zoo::write_tensors(&running.folder().join("anchor.safetensors"), &tensors, &none)?;
    let history = fitted.map(|(_, history)| history).unwrap_or_default();
    let figures = figures((session, group.to_string()), [&raw, &zoo], &gathered, history)?;
    write_json(&running.folder().join("canonicalize.json"), &figures)?;
    let output = zoo.digest()?;
    drop(zoo);
    running.complete_as(&["zoo/zoo.toml", "anchor.safetensors", "canonicalize.json"], output)
}

/// The most networks of one run: they are aligned together.
fn longest_run(raw: &Zoo) -> Result<u64> {
    let mut lengths: BTreeMap<String, u64> = BTreeMap::new();
    for entry in raw.records(&Filter::default())? {
        *lengths.entry(entry.record().run.clone()).or_default() += 1;
    }
    Ok(lengths.into_values().max().unwrap_or(1))
}

/// The canonicalizer with its mean distances; one training network is in memory at a time.
fn fit(work: &Canonicalization, group: Group) -> Result<Option<(Canonicalizer, Vec<f64>)>> {
    let finals = finals(work.raw)?;
    if finals.len() < 2 {
        let expected = "2 or more".to_owned();
        return Err(Error::Range { what: "the number of training runs", expected, got: finals.len().to_string() });
    }
    let seed = work.seed.fork("canonicalize");
    let matching = Matching { starts: work.config.starts, ..Matching::default() };
    let load = |i: usize| -> Result<Vec<f32>> {
        work.check_stop()?;
        Ok(Population::into_data(work.raw.load(&finals[i..=i], Purpose::Fit)?))
    };
    match work.config.align {
        Align::Anchor => Ok(Some((Canonicalizer::fit_anchor(group, &load(0)?, matching, seed)?, Vec::new()))),
        Align::Mean => {
            let (n, iterations) = (finals.len(), work.config.iterations);
            work.monitor.start("fit the anchor", (n * iterations) as u64, "networks");
            let mut num_read = 0;
            let mut read = |i: usize| {
                work.monitor.progress(num_read);
                num_read += 1;
                load(i)
            };
            let (fitted, history) = Canonicalizer::fit_mean_of(group.clone(), (n, &mut read), iterations, seed)?;
            work.monitor.finish();
            let anchor = fitted.into_anchor();
            Ok(Some((Canonicalizer::new(group, anchor, matching, seed)?, history)))
        }
        Align::None | Align::Consistent => Ok(None),
    }
}

/// The last networks of training runs.
fn finals(zoo: &Zoo) -> Result<Vec<Entry>> {
    Ok(zoo.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?)
}

fn figures((session, group): (&Session, String), zoos: [&Zoo; 2], gathered: &Gathered, history: Vec<f64>) -> Result<Figures> {
    let spread = |zoo: &Zoo| -> Result<Option<Spread>> {
        let finals = finals(zoo)?;
        if finals.len() < 2 {
            return Ok(None);
        }
        let width = num_columns(session, Stage::Canonicalize, finals.len())?;
        let columns = zoo.columns(&finals, Purpose::Fit)?;
        let found = in_blocks((session, Stage::Canonicalize), columns, width, geometry)?;
        Ok(Some(Spread { mean_distance: found.mean_distance, norm: found.norm, spectrum: found.spectrum }))
    };
    Ok(Figures {
        group,
        num_networks: gathered.num_networks,
        num_ill_conditioned: gathered.num_ill_conditioned,
        max_function_deviation: gathered.max_deviation,
        num_proven_in_f64: gathered.num_in_f64,
        mean_history: history,
        raw: spread(zoos[0])?,
        canonical: spread(zoos[1])?,
    })
}
