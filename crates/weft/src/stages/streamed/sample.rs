//! Stage 4, second half, without data: samples become checkpoints at once.
//!
//! ```text
//! samples/
//!   SEED-NUMBER.safetensors   a network, with what is known of it
//!   sampling.json             times, and each sample's nearest training network
//! ```

use super::super::{Done, Session, export, models, sample, sound, write_json};
use super::encode::{Basis, learn_from};
use super::{in_blocks, num_columns};
use crate::cache::{Completed, Running};
use crate::run::Stage;
use crate::{Error, Result, SampleRequest};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use weft_core::{Architecture, Condition, Op, Population, Seed};
use weft_gen::CodeFlow;
use weft_zoo::{CheckpointWriter, Metadata, Purpose};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;
/// Networks that are decoded in one pass over the training networks: each has a file open.
const AT_ONCE: usize = 32;

/// `sampling.json`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sampling {
    name: &'static str,
    /// Seconds a network, amortized over all.
    sample_secs: f64,
    samples: Vec<Sampled>,
}

/// A sample that is written.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Sampled {
    file: String,
    /// Digest of the training network whose code is the nearest.
    nearest: String,
    /// The distance of the two codes, in weights as they are normalized.
    distance: f64,
}

/// Reads the samples of a complete stage, one population a seed.
pub(in crate::stages) fn samples_of(
    session: &Session,
    stage: &Completed,
    architecture: &Arc<Architecture>,
) -> Result<Vec<Population>> {
    let config = &session.config.sample;
    let of_set = |set: usize| {
        let read = |i: usize| weft_zoo::read_checkpoint(&stage.folder.join(file_of(set, i)), architecture);
        let rows = (0..config.count).map(read).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Population::new(architecture.clone(), rows.concat())?)
    };
    (0..config.seeds).map(of_set).collect()
}

/// The file of a sample.
fn file_of(set: usize, i: usize) -> String {
    format!("{set}-{i:05}.safetensors")
}

pub(in crate::stages) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    session.unless_fresh(sample::key(session, done, VERSION), |running| sample_all(session, done, running))
}

fn sample_all(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let (config, since) = (&session.config.sample, Instant::now());
    let generator = Sampler::open(session, done)?;
    models::check_condition(session.monitor, generator.flow.schema(), &generator.condition)?;
    if generator.basis.zoo.architecture().nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. })) {
        session.monitor.note("sample: without data, batch norms keep the running statistics that were decoded");
    }
    session.monitor.start("sample", (config.seeds * config.count) as u64, "networks");
    let mut samples = Vec::new();
    for set in 0..config.seeds {
        let name = |i: usize| (file_of(set, i), format!("{}/{set}/{i}", session.config.run.seed));
        let written = generator.write(running.folder(), config.count, sample::seed_of(session, set), &name)?;
        if written.len() < config.count {
            return Err(sound::too_few([written.len(), config.count]));
        }
        samples.extend(written);
    }
    let sample_secs = since.elapsed().as_secs_f64() / samples.len().max(1) as f64;
    let mut files: Vec<String> = samples.iter().map(|sample| sample.file.clone()).collect();
    write_json(&running.folder().join("sampling.json"), &Sampling { name: "flow", sample_secs, samples })?;
    files.push("sampling.json".to_owned());
    session.monitor.finish();
    running.complete(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Samples networks beside those of the run and writes a file each.
pub(in crate::stages) fn on_demand(session: &Session, done: &Done, request: &SampleRequest) -> Result<Vec<PathBuf>> {
    let mut generator = Sampler::open(session, done)?;
    generator.condition = sample::asked_of(session, &generator.condition, request)?;
    models::check_condition(session.monitor, generator.flow.schema(), &generator.condition)?;
    std::fs::create_dir_all(&request.folder).map_err(Error::io("create", &request.folder))?;
    session.monitor.start("sample", request.count as u64, "networks");
    let seed = session.seed.fork("on demand").index(request.seed);
    let name = |i: usize| (format!("{i:05}.safetensors"), format!("{}/{}", session.config.run.seed, request.seed));
    let written = generator.write(&request.folder, request.count, seed, &name)?;
    sound::note(session, Stage::Sample, [request.count - written.len(), request.count]);
    if written.is_empty() {
        return Err(sound::too_few([0, request.count]));
    }
    session.monitor.finish();
    Ok(written.into_iter().map(|sample| request.folder.join(sample.file)).collect())
}

/// The trained flow with all that makes checkpoints of its codes.
struct Sampler<'a> {
    session: &'a Session<'a>,
    basis: Basis,
    flow: CodeFlow,
    condition: Condition,
    metadata: Metadata,
}

impl<'a> Sampler<'a> {
    fn open(session: &'a Session<'a>, done: &Done) -> Result<Self> {
        let (basis, (_, condition)) = (Basis::of(done)?, learn_from(session, done)?);
        let saved = models::read_artifact(&done.of(Stage::Train).folder.join("flow.safetensors"))?;
        let sampler = session.config.sampler.to_sampler();
        let flow = CodeFlow::load(&saved, basis.span.rank(), sampler, &session.device)?;
        let flow = flow.guided_by(&session.config.sampler.steps().guidance)?;
        let metadata = [
            ("synthetic", "true".to_owned()),
            ("generator", "flow".to_owned()),
            ("generator-digest", done.of(Stage::Train).output.to_string()),
            ("licence", export::licence_of(session, done)?),
            ("architecture", basis.zoo.architecture().name().to_owned()),
            ("weft", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Ok(Self { session, basis, flow, condition, metadata })
    }

    /// Samples networks and writes each into the file of the name that its number has, with the seed's, unless a weight is not finite.
    fn write(&self, folder: &Path, count: usize, seed: Seed, name: &dyn Fn(usize) -> (String, String)) -> Result<Vec<Sampled>> {
        let Self { session, basis: Basis { span, zoo, entries }, .. } = self;
        let codes = self.flow.sample_codes(count, &self.condition, seed)?;
        let k = span.rank();
        let mut written = Vec::with_capacity(count);
        for (pass, codes) in codes.chunks(AT_ONCE * k).enumerate() {
            let (mut files, mut samples) = (Vec::new(), Vec::new());
            for (i, code) in codes.chunks_exact(k).enumerate() {
                let ((file, seed), (nearest, distance)) = (name(pass * AT_ONCE + i), span.nearest(code));
                let nearest = entries[nearest].record().digest.to_string();
                let mut metadata = self.metadata.clone();
                metadata.extend(sample::describe(&self.condition));
                metadata.extend([("seed".to_owned(), seed), ("parents".to_owned(), nearest.clone())]);
                files.push(CheckpointWriter::begin(&folder.join(&file), zoo.architecture(), &metadata)?);
                samples.push(Some(Sampled { file, nearest, distance }));
            }
            let width = num_columns(session, Stage::Sample, entries.len() + files.len())?;
            let columns = zoo.columns(entries, Purpose::Transform)?;
            in_blocks((session, Stage::Sample), columns, width, |rows| {
                span.decode(codes, rows, &mut |columns, decoded| {
                    let parts = decoded.chunks_exact(columns.len());
                    for ((file, sample), part) in files.iter_mut().zip(&mut samples).zip(parts) {
                        file.write(part)?;
                        sample.take_if(|_| part.iter().any(|weight| !weight.is_finite()));
                    }
                    Ok(())
                })
            })?;
            for (file, sample) in files.into_iter().zip(samples) {
                // A file that is not committed is none.
                if let Some(sample) = sample {
                    file.commit()?;
                    written.push(sample);
                }
            }
            session.monitor.progress(((pass + 1) * AT_ONCE).min(count) as u64);
        }
        Ok(written)
    }
}
