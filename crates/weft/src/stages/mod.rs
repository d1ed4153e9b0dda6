//! The stages of a run. Each function looks up whether its stage is out of date, drives the crates below if it
//! is, and seals the stage's folder.

mod best;
mod canonicalize;
mod conditional;
mod data;
mod encode;
mod evaluate;
mod examples;
mod export;
mod few;
mod models;
mod neighbors;
mod nested;
mod recipes;
mod report;
mod runs;
mod sample;
mod sound;
mod streamed;
mod textures;
mod tokens;
mod train;
mod unlabelled;
mod zoo;

pub(crate) use conditional::is_of_tasks as judged_by_tasks;
pub(crate) use data::load as load_dataset;
pub(crate) use models::{check_generator, read_artifact, write_artifact};
pub(crate) use report::peak_memory;
pub(crate) use runs::tasks_of;
pub(crate) use sample::on_demand;

use crate::cache::{self, Completed, Running, StageKey, State};
use crate::config::{FieldKindName, RunConfig};
use crate::report::Report;
use crate::run::{Stage, StageOutcome};
use crate::text::TextEncoder;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use weft_core::products::Place;
use weft_core::{Condition, Dataset, Digest, FieldSpec, FieldType, Monitor, Population, Record, Seed, Value};
use weft_eval::Estimate;
use weft_net::Device;
use weft_zoo::Zoo;

/// What all stages of one run share.
pub(crate) struct Session<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) monitor: &'a Monitor<'a>,
    pub(crate) output: PathBuf,
    pub(crate) device: Device,
    /// Where great products of matrices in memory are computed: on the first GPU, if there is one.
    pub(crate) place: Place,
    /// The examples with their digest; without them, networks are not held but read in pieces.
    pub(crate) data: Option<(Dataset, Digest)>,
    pub(crate) seed: Seed,
    /// What encodes texts, where it is a trained encoder.
    text: Option<TextEncoder>,
}

/// The stages that are complete, for those that come after them.
#[derive(Debug, Default)]
pub(crate) struct Done(Vec<(Stage, Completed)>);

impl Done {
    /// A stage that ran before this one.
    pub(crate) fn of(&self, stage: Stage) -> &Completed {
        self.find(stage).expect("stages run in order")
    }

    /// A stage, if it ran already.
    pub(crate) fn find(&self, stage: Stage) -> Option<&Completed> {
        self.0.iter().find(|(done, _)| *done == stage).map(|(_, completed)| completed)
    }
}

impl<'a> Session<'a> {
    /// Opens the device, reads the data set, and writes the resolved run file.
    pub(crate) fn open(config: &'a RunConfig, monitor: &'a Monitor<'a>) -> Result<Self> {
        let device = Device::open(&config.run.device.to_string())?;
        let place = device.products()?;
        let data = config.data.as_ref().map(data::load).transpose()?;
        let data = data.map(|dataset| {
            let digest = dataset.digest();
            (dataset, digest)
        });
        let has_text = config.generator.conditions().iter().any(|field| field.kind == FieldKindName::Text);
        let text = config.text.folder().filter(|_| has_text).map(|folder| TextEncoder::open(&folder)).transpose()?;
        let output = config.run.output.clone();
        std::fs::create_dir_all(&output).map_err(Error::io("create", &output))?;
        weft_zoo::write_atomic(&output.join("run.toml"), config.to_toml().as_bytes())?;
        Ok(Self { config, monitor, output, device, place, data, seed: Seed::new(config.run.seed), text })
    }

    /// The examples, for a stage that does nothing without.
    pub(crate) fn dataset(&self, stage: Stage) -> Result<&Dataset> {
        self.data.as_ref().map(|(dataset, _)| dataset).ok_or(Error::RunWithoutData { stage: stage.name() })
    }

    /// The fields that the generator is to be conditioned on, as people and records say them.
    pub(crate) fn fields(&self) -> Vec<FieldSpec> {
        let num_classes = self.data.as_ref().map(|(dataset, _)| dataset.num_classes());
        self.config.generator.conditions().iter().map(|field| field.to_field(num_classes)).collect()
    }

    /// The same fields as the generator learns them: texts of a trained encoder are vectors.
    pub(crate) fn learnt_fields(&self) -> Vec<FieldSpec> {
        let mut fields = self.fields();
        let texts = fields.iter_mut().filter(|field| self.text.is_some() && field.kind == FieldType::Text);
        texts.for_each(|field| field.kind = FieldType::Vector);
        fields
    }

    /// A condition as the generator learns it: its texts encoded, if that takes a trained encoder.
    pub(crate) fn encode_texts(&self, condition: Condition) -> Result<Condition> {
        let Some(encoder) = &self.text else { return Ok(condition) };
        condition.clone().iter().try_fold(condition, |condition, (field, value)| match value {
            Value::Text(text) => Ok(condition.with(field, Value::Vector(encoder.encode(text)?))),
            _ => Ok(condition),
        })
    }

    /// What a checkpoint's record says of the fields, as the generator learns it.
    pub(crate) fn condition_of(&self, record: &Record) -> Result<Condition> {
        self.encode_texts(record.condition(&self.fields())?)
    }

    /// Completes a stage; whether it was already is said with it.
    pub(crate) fn stage(&self, stage: Stage, done: &mut Done) -> Result<(Completed, bool)> {
        let failed = self.place.failure().is_some();
        let completed = match stage {
            Stage::Zoo => zoo::run(self),
            Stage::Canonicalize if self.data.is_none() => streamed::canonicalize(self, done),
            Stage::Canonicalize => canonicalize::run(self, done),
            Stage::Encode if self.data.is_none() => streamed::encode(self, done),
            Stage::Encode => encode::run(self, done),
            Stage::Train => train::run(self, done),
            Stage::Sample if self.data.is_none() => streamed::sample(self, done),
            Stage::Sample => sample::run(self, done),
            Stage::Evaluate if self.data.is_none() => textures::run(self, done),
            Stage::Evaluate => evaluate::run(self, done),
            Stage::Export => export::run(self, done),
        }?;
        if let Some(reason) = self.place.failure().filter(|_| !failed) {
            self.monitor.note(format!("{}: {} failed, and products went on without it: {reason}", stage.name(), self.device));
        }
        done.0.push((stage, completed.0.clone()));
        Ok(completed)
    }

    /// Writes the report of a run that came to its evaluation.
    pub(crate) fn report(&self, done: &Done, stages: &[StageOutcome]) -> Result<(Report, PathBuf)> {
        report::write(self, done, stages)
    }

    /// A key that holds what every stage depends on: its upstream, the data, the seed and the kind of processor.
    pub(crate) fn key(
        &self,
        (name, folder): (&'static str, &'static str),
        version: u32,
        upstream: &[(&str, &Completed)],
    ) -> StageKey {
        let processor = if self.device.is_cpu() { "cpu" } else { "gpu" };
        let key = StageKey::new(name, folder, version).setting("seed", &self.config.run.seed).setting("processor", &processor);
        let key = match &self.data {
            Some((_, digest)) => key.input("data", *digest),
            None => key,
        };
        upstream.iter().fold(key, |key, (name, completed)| key.input(name, completed.output))
    }

    /// Runs a stage's work if its folder is out of date.
    pub(crate) fn unless_fresh(&self, key: StageKey, work: impl FnOnce(Running) -> Result<Completed>) -> Result<(Completed, bool)> {
        match cache::open(&self.output, key)? {
            State::Fresh(completed) => Ok((completed, true)),
            State::Stale(running) => Ok((work(running)?, false)),
        }
    }

    /// An error if the user asked for a stop.
    pub(crate) fn check_stop(&self, stage: Stage) -> Result<()> {
        if self.monitor.should_stop() { Err(Error::Interrupted { stage: stage.name() }) } else { Ok(()) }
    }
}

/// Appends networks of which every one must go in.
pub(crate) fn append(zoo: &mut Zoo, networks: &Population, records: &[Record]) -> Result<()> {
    match zoo.append(networks, records)?.refused.into_iter().next() {
        Some(refused) => Err(Error::NotStored { run: refused.run, step: refused.step, reason: refused.reason }),
        None => Ok(()),
    }
}

/// The longest JSON file that is read.
const MAX_JSON_BYTES: u64 = 1 << 30;

/// Writes plain data as JSON.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Error::Damaged { path: path.to_owned(), reason: e.to_string() })?;
    Ok(weft_zoo::write_atomic(path, text.as_bytes())?)
}

/// Reads a JSON file of at most so many bytes.
pub(crate) fn read_small_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Result<T> {
    let bytes = weft_zoo::read_bounded(path, limit)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Damaged { path: path.to_owned(), reason: e.to_string() })
}

/// Reads back what [`write_json`] wrote.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    read_small_json(path, MAX_JSON_BYTES)
}

/// The mean of values with its standard error.
pub(crate) fn estimate(values: &[f64]) -> Estimate {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0).max(1.0);
    Estimate { mean, se: (variance / n).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_means_with_standard_errors() {
        let e = estimate(&[1.0, 2.0, 3.0]);
        assert!((e.mean - 2.0).abs() < 1e-12 && (e.se - (1.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(estimate(&[]), Estimate { mean: 0.0, se: 0.0 });
    }
}
