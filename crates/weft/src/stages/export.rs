//! Stage 5, second half: sampled networks as files.
//!
//! Which networks are written is decided by their number alone, never by a test figure: the first ones of each
//! seed of the run's last generator, in turn.

use super::evaluate::SampleFacts;
use super::{Done, Session, canonicalize, read_json, sample, sound, tokens};
use crate::cache::{Completed, Running};
use crate::run::Stage;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use weft_core::{Architecture, Digest, Population, Provenance, Record, Split};
use weft_zoo::{Filter, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 2;

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let stages = [Stage::Train, Stage::Sample, Stage::Evaluate];
    let upstream = stages.map(|stage| (stage.name(), done.of(stage)));
    let key = session
        .key(("export", "networks"), VERSION, &upstream)
        .setting("export", &session.config.export)
        .setting("sample", &session.config.sample);
    session.unless_fresh(key, |running| export(session, done, running))
}

fn export(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let architecture = zoo.architecture().clone();
    let config = &session.config.sample;
    let samples = sample::samples_of(done.of(Stage::Sample), &architecture, config.seeds)?;
    let facts: Vec<SampleFacts> = read_json(&done.of(Stage::Evaluate).folder.join("samples.json"))?;
    let licence = licence_of(session, done)?;
    let Some(last) = samples.last() else {
        return Err(Error::NotRun { output: session.output.clone(), stage: Stage::Sample.name() });
    };
    // Facts stand set after set; files take one of each set in turn.
    let order = (0..config.count).flat_map(|index| (0..config.seeds).map(move |set| set * config.count + index));
    let chosen: Vec<&SampleFacts> = order.filter_map(|i| facts.get(i)).take(session.config.export.count).collect();
    session.monitor.start("export", chosen.len() as u64, "networks");
    let generator = done.of(Stage::Train).output;
    let rows = chosen.iter().flat_map(|fact| last.sets[fact.set].row(fact.index).iter().copied()).collect();
    let sound = sound::sound(session, Stage::Export, &Population::new(architecture.clone(), rows)?)?;
    let mut files = Vec::with_capacity(sound.len());
    for number in sound {
        let fact = chosen[number];
        session.check_stop(Stage::Export)?;
        let row = last.sets[fact.set].row(fact.index);
        let record = record(session, fact, (&architecture, row), &licence)?;
        let mut metadata = weft_zoo::checkpoint_metadata(&architecture, &record);
        metadata.extend(own_metadata(session, fact, generator));
        let name = format!("{number:05}.safetensors");
        weft_zoo::write_checkpoint(&running.folder().join(&name), &architecture, row, &metadata)?;
        files.push(name);
        session.monitor.progress(files.len() as u64);
    }
    session.monitor.finish();
    running.complete(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The licences of all training networks: a sample owes something to each.
pub(super) fn licence_of(session: &Session, done: &Done) -> Result<String> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let train = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
    let own = train.iter().map(|entry| entry.record().provenance.licence.clone());
    let licences: BTreeSet<String> = own.chain(tokens::licences(session)?).collect();
    Ok(licences.into_iter().collect::<Vec<_>>().join(" AND "))
}

/// A sample as a record; its nearest training network is named as its parent.
fn record(session: &Session, fact: &SampleFacts, (architecture, row): (&Architecture, &[f32]), licence: &str) -> Result<Record> {
    let nearest: Digest = fact.nearest.parse()?;
    Ok(Record {
        provenance: Provenance {
            source: format!("sampled by weft {} from {}", env!("CARGO_PKG_VERSION"), fact.generator),
            licence: licence.to_owned(),
            parents: vec![nearest],
            synthetic: true,
            ..Provenance::default()
        },
        ..Record::new(Digest::of_weights(architecture, row), format!("{} {}/{}", session.config.run.name, fact.set, fact.index))
    })
}

/// What a sampled checkpoint says beside what every checkpoint says.
fn own_metadata(session: &Session, fact: &SampleFacts, generator: Digest) -> BTreeMap<String, String> {
    let entries = [
        ("seed", session.config.run.seed.to_string()),
        ("sample", format!("{}/{}", fact.set, fact.index)),
        ("generator", fact.generator.clone()),
        ("generator-digest", generator.to_string()),
        ("test-accuracy", fact.accuracy.to_string()),
        ("test-data", session.data.as_ref().map_or_else(String::new, |(dataset, _)| dataset.name().to_owned())),
        ("distance-to-nearest", fact.distance.to_string()),
        ("weft", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
