//! Stage 4, second half: the run's own generators sample.
//!
//! ```text
//! samples/
//!   flow.safetensors        one tensor `[n, D]` a seed, rows as the architecture lays them out
//!   refined.safetensors     the same after the refiner
//!   hyper.safetensors       the same of the hyper-decoder
//!   sampling.json           names, times and cost, and the tasks
//! ```
//!
//! Networks of many tasks are sampled for the tasks that are held out: a seed's tensor is `[tasks · n, D]`, `n` networks of each task
//! after those of the task before, in the order of the tasks' names, which `sampling.json` lists. Those of a task are what
//! [`Generator::sample`] gives for its condition and the set's seed forked by the task's name.

use super::best::{Judge, Known};
use super::models::{self, Learnt, Models};
use super::{Done, Session, canonicalize, examples, export, read_json, sound, streamed, write_json};
use crate::cache::{Completed, Running, StageKey};
use crate::config::condition_of;
use crate::run::Stage;
use crate::samples::{Files, GeneratorName, ShownFile, check_weights};
use crate::{Error, Result, SampleRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use weft_canon::Group;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_core::{Architecture, Condition, Digest, Population, Seed, Split, Task, Value};
use weft_gen::Generator;
use weft_zoo::{Filter, Purpose, Zoo};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;

/// What one generator's sampling took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Sampling {
    /// The generator's name.
    pub(super) name: String,
    /// Seconds a network, amortized over a seed's networks.
    pub(super) sample_secs: f64,
    /// Floating-point operations a network.
    pub(super) flops: f64,
    /// The file of its samples.
    pub(super) file: String,
    /// The held-out tasks that it was asked for, in the order of its samples; none where networks have one task, or the generator is not told it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) tasks: Vec<String>,
}

/// The run's own generators' samples, one population a seed.
pub(super) struct Samples {
    pub(super) sampling: Sampling,
    pub(super) sets: Vec<Population>,
}

/// The seed of the `i`-th set of samples.
pub(super) fn seed_of(session: &Session, set: usize) -> Seed {
    session.seed.fork("sample").index(set as u64)
}

/// Reads the samples of a complete stage.
pub(super) fn samples_of(stage: &Completed, architecture: &Arc<Architecture>, num_sets: usize) -> Result<Vec<Samples>> {
    let samplings: Vec<Sampling> = read_json(&stage.folder.join("sampling.json"))?;
    let read = |sampling: Sampling| {
        let path = stage.folder.join(&sampling.file);
        let mut tensors = weft_zoo::read_tensors(&path)?.tensors;
        let set = |i: usize| {
            let name = format!("seed-{i}");
            let missing = || Error::Damaged { path: path.clone(), reason: format!("`{name}` is missing") };
            let (_, rows) = tensors.remove(&name).ok_or_else(missing)?;
            Ok(Population::new(architecture.clone(), rows)?)
        };
        Ok(Samples { sampling, sets: (0..num_sets).map(set).collect::<Result<_>>()? })
    };
    samplings.into_iter().map(read).collect()
}

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    session.unless_fresh(key(session, done, VERSION), |running| sample(session, done, running))
}

/// What samples depend on, with data or without.
pub(super) fn key(session: &Session, done: &Done, version: u32) -> StageKey {
    // Of the canonical zoo, the held-out tasks that are asked for.
    let stages = [("canonical", Stage::Canonicalize), ("codec", Stage::Encode), ("generator", Stage::Train)];
    let upstream = stages.map(|(name, stage)| (name, done.of(stage)));
    let key = session.key(("sample", "samples"), version, &upstream);
    key.setting("sample", &session.config.sample).setting("sampler", &session.config.sampler)
}

fn sample(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let config = &session.config.sample;
    let learnt = models::learn_from(session, done)?;
    let asked = |set| models::asked_conditions(session, done, &learnt, set);
    let first = asked(0)?;
    let models = Models::new(session, &done.of(Stage::Train).folder, learnt.set.clone());
    let schema = models.schema()?;
    first.iter().try_for_each(|(_, condition)| models::check_condition(session.monitor, &schema, condition))?;
    let judge = config.best_of.map(|best_of| Judge::new(session, done, &learnt.set, best_of)).transpose()?;
    judge.iter().filter_map(Judge::note).for_each(|note| session.monitor.note(note));
    let n = config.best_of.map_or(1, |best_of| best_of.n);
    let (own, names) = (models.own()?, models::own_names(session.config));
    let files: Vec<String> = names.iter().map(|name| format!("{}.safetensors", name.name())).collect();
    let each = config.seeds * first.len() * config.count;
    session.monitor.start("sample", (own.len() * each) as u64, "networks");
    let (mut samplings, mut sampled) = (Vec::new(), 0);
    for (generator, file) in own.iter().zip(&files) {
        let mut sets = Vec::with_capacity(config.seeds);
        let since = Instant::now();
        for i in 0..config.seeds {
            let mut set = Population::zeros(learnt.set.architecture().clone(), 0);
            for (task, condition) in &asked(i)? {
                session.check_stop(Stage::Sample)?;
                let seed = task.as_ref().map_or(seed_of(session, i), |task| seed_of(session, i).fork(task));
                let mut drawn = draw(session, generator.as_ref(), n * config.count, condition, seed)?;
                if let Some(judge) = &judge {
                    drawn = judge.choose(&drawn, Known::Classes)?;
                }
                set.extend(&drawn)?;
                sampled += config.count as u64;
                session.monitor.progress(sampled);
            }
            sets.push(set);
        }
        samplings.push(Sampling {
            name: generator.name().to_owned(),
            sample_secs: since.elapsed().as_secs_f64() / each as f64,
            flops: n as f64 * generator.flops_per_sample(),
            file: file.clone(),
            tasks: first.iter().filter_map(|(task, _)| task.clone()).collect(),
        });
        let shape = |set: &Population| vec![set.len(), set.dim()];
        let tensors: Vec<_> = sets.iter().enumerate().map(|(i, set)| (format!("seed-{i}"), shape(set), set.data())).collect();
        let described = match &first[..] {
            [(None, condition)] => describe(condition),
            _ => BTreeMap::new(),
        };
        weft_zoo::write_tensors(&running.folder().join(file), &tensors, &described)?;
    }
    write_json(&running.folder().join("sampling.json"), &samplings)?;
    session.monitor.finish();
    running.complete(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What samples are to do: a task, or the data's own classes where networks have no tasks.
fn known<'a>(learnt: &Learnt, task: Option<&'a Task>) -> Known<'a> {
    match task {
        Some(task) => Known::Task(task),
        None if learnt.has_tasks => Known::Nothing,
        None => Known::Classes,
    }
}

/// A condition as metadata.
pub(super) fn describe(condition: &Condition) -> BTreeMap<String, String> {
    condition.iter().map(|(field, value)| (format!("condition.{field}"), value.to_string())).collect()
}

/// The run's condition with what a request says otherwise.
pub(super) fn asked_of(session: &Session, condition: &Condition, request: &SampleRequest) -> Result<Condition> {
    let asked = condition_of(&request.condition, &session.fields())?;
    let asked = session.encode_texts(asked)?;
    Ok(asked.iter().fold(condition.clone(), |condition, (field, value)| condition.with(field, value.clone())))
}

/// Samples networks, and gives their batch norms the statistics of data.
pub(super) fn draw(
    session: &Session,
    generator: &dyn Generator,
    count: usize,
    condition: &Condition,
    seed: Seed,
) -> Result<Population> {
    let mut networks = generator.sample(count, condition, seed)?;
    let dataset = session.dataset(Stage::Sample)?;
    weft_net::recalibrate(&mut networks, dataset, session.config.sample.recalibrate, &session.device)?;
    Ok(networks)
}

/// Samples sets for a generator beside the run's own: what baselines are measured on. A judge chooses for them as for these.
pub(super) fn sets(
    session: &Session,
    generator: &dyn Generator,
    condition: &Condition,
    judge: Option<&Judge>,
) -> Result<(Vec<Population>, f64)> {
    let config = &session.config.sample;
    let (since, n) = (Instant::now(), config.best_of.map_or(1, |best_of| best_of.n));
    let set = |i| {
        let drawn = draw(session, generator, n * config.count, condition, seed_of(session, i))?;
        judge.map_or(Ok(drawn.clone()), |judge| judge.choose(&drawn, Known::Classes))
    };
    let sets = (0..config.seeds).map(set).collect::<Result<Vec<_>>>()?;
    Ok((sets, since.elapsed().as_secs_f64() / (config.seeds * config.count) as f64))
}

/// Samples networks beside those of the run and writes a file each.
pub(crate) fn on_demand(session: &Session, done: &Done, request: &SampleRequest, files: &Files) -> Result<Vec<PathBuf>> {
    if session.data.is_none() {
        return streamed::on_demand(session, done, request);
    }
    let learnt = models::learn_from(session, done)?;
    let architecture = learnt.set.architecture().clone();
    let best_of = files.best_of;
    let count = best_of.map_or(1, |best_of| best_of.n) * request.count;
    check_weights(count, architecture.num_parameters())?;
    let models = Models::new(session, &done.of(Stage::Train).folder, learnt.set.clone());
    let mut condition = asked_of(session, &learnt.condition, request)?;
    if let Some(shown) = &files.shown {
        condition = examples::told(session, done.of(Stage::Train), &condition, shown)?;
    }
    models::check_condition(session.monitor, &models.schema()?, &condition)?;
    let best = if session.config.refiner.is_some() { GeneratorName::Refined } else { GeneratorName::Flow };
    let name = request.generator.unwrap_or(best);
    let generator = match &files.guide {
        Some((examples, guide)) => models.guided(name, examples, (guide.scale, guide.steps))?,
        None => models.generator(name)?,
    };
    let task = match condition.get(Task::LABEL) {
        Some(Value::Classes(classes)) => Some(Task::is_one_of(classes, session.dataset(Stage::Sample)?.num_classes())?),
        _ => None,
    };
    let labelled = files.shown.as_ref().and_then(ShownFile::examples).or(files.guide.as_ref().map(|(examples, _)| examples));
    let known = labelled.filter(|_| task.is_none()).map_or_else(|| known(&learnt, task.as_ref()), Known::Examples);
    // What cannot be judged is refused before anything is sampled for it.
    let judge = best_of.map(|best_of| Judge::new(session, done, &learnt.set, best_of)?.able(known)).transpose()?;
    session.monitor.start("sample", request.count as u64, "networks");
    let seed = session.seed.fork("on demand").index(request.seed);
    let mut networks = draw(session, generator.as_ref(), count, &condition, seed)?;
    let licence = export::licence_of(session, done)?;
    let mut metadata = describe(&condition);
    metadata.extend([
        ("synthetic".to_owned(), "true".to_owned()),
        ("generator".to_owned(), generator.name().to_owned()),
        ("generator-digest".to_owned(), done.of(Stage::Train).output.to_string()),
        ("seed".to_owned(), format!("{}/{}", session.config.run.seed, request.seed)),
        ("licence".to_owned(), licence),
        ("architecture".to_owned(), architecture.name().to_owned()),
        ("weft".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some((best_of, judge)) = best_of.zip(judge) {
        networks = judge.choose(&networks, known)?;
        metadata.insert("best-of".to_owned(), format!("{} by {}", best_of.n, best_of.by.name()));
        metadata.extend(judge.note().map(|note| ("predictor".to_owned(), note)));
    }
    if let Some((examples, guide)) = &files.guide {
        let said = format!(
            "scale {}, {} examples, {:.3e} operations a network",
            guide.scale,
            examples.labels().len(),
            generator.flops_per_sample()
        );
        metadata.insert("guide".to_owned(), said);
    }
    let sound = sound::sound(session, Stage::Sample, &networks)?;
    if sound.is_empty() {
        return Err(sound::too_few([0, networks.len()]));
    }
    std::fs::create_dir_all(&request.folder).map_err(Error::io("create", &request.folder))?;
    let mut written = Vec::with_capacity(sound.len());
    for (&i, parent) in sound.iter().zip(parents(&networks.select(&sound), done)?) {
        let row = networks.row(i);
        session.check_stop(Stage::Sample)?;
        metadata.insert("parents".to_owned(), parent.to_string());
        let path = request.folder.join(format!("{i:05}.safetensors"));
        weft_zoo::write_checkpoint(&path, &architecture, row, &metadata)?;
        written.push(path);
        session.monitor.progress(written.len() as u64);
    }
    session.monitor.finish();
    Ok(written)
}

/// The nearest training network of each sample, as its digest in the canonical zoo.
fn parents(networks: &Population, done: &Done) -> Result<Vec<Digest>> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let entries = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
    let train = zoo.load(&entries, Purpose::Transform)?;
    let group = Group::derive(train.architecture().clone());
    // Without a gauge at the output there is no common shift of the logits to center.
    let quotient = Quotient::new(&group, QuotientOptions::default())
        .or_else(|_| Quotient::new(&group, QuotientOptions { center_outputs: false, ..QuotientOptions::default() }))?;
    let (queries, references) = (quotient.prepare(networks.data(), None)?, quotient.prepare(train.data(), None)?);
    let nearest = quotient.nearest(&queries, &references, None);
    Ok(nearest.into_iter().map(|(index, _)| entries[index].record().digest).collect())
}
