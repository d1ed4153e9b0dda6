//! The generator of tokens: what it learns from, of this run and of others, and its training.

use super::models::{self, Learnt, Models, RefinerPlan};
use super::runs::RECIPE;
use super::train::{Job, ModelTraining, conditions, loss_of};
use super::{Done, Session, canonicalize, nested, tasks_of};
use crate::cache::{self, Completed};
use crate::config::TokensConfig;
use crate::run::Stage;
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use weft_canon::Group;
use weft_codec::TokenLayout;
use weft_core::{Condition, Population, Schema, Seed, Split, Task};
use weft_gen::tokens::RefinerPart;
use weft_gen::{TokenPart, TokenRefinerTrainer, TokenSet, TokenTrainer};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Canonical training networks of one run.
struct Source {
    networks: Population,
    conditions: Vec<Condition>,
    /// What samples like its last networks are asked for, with tasks where they have their own.
    asked: Vec<(Condition, Option<Task>)>,
}

/// The canonical networks of the other runs that a run file names.
///
/// # Errors
/// [`Error::NotRun`] if a folder holds no complete ones, [`Error::Misfit`] if they were made from other data.
pub(super) fn others(session: &Session) -> Result<Vec<Completed>> {
    let Some(config) = session.config.generator.tokens() else { return Ok(Vec::new()) };
    let other = |output: &std::path::PathBuf| {
        let (completed, data) = cache::complete_stage(output, (Stage::Canonicalize.name(), "canonical"))?;
        if data.is_some() && data == session.data.as_ref().map(|(_, digest)| *digest) {
            return Ok(completed);
        }
        let what = format!("the run in `{}`", output.display());
        Err(Error::Misfit { what, other: "this run".to_owned(), reason: "its networks were made from other data".to_owned() })
    };
    config.zoos.iter().map(other).collect()
}

/// What this run holds out, by what names it.
struct HeldOut(BTreeSet<String>);

impl HeldOut {
    fn of(canonical: &Completed) -> Result<Self> {
        let zoo = Zoo::open(&canonicalize::zoo_of(canonical))?;
        let records = zoo.records(&Filter { split: Some(Split::Test), ..Filter::default() })?;
        Ok(Self(records.iter().flat_map(names).collect()))
    }

    /// Refuses another run that trains on a task, a recipe or a network that this one holds out.
    fn check(&self, other: &Completed, output: &Path) -> Result<()> {
        let zoo = Zoo::open(&canonicalize::zoo_of(other))?;
        let records = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
        let Some(shared) = records.iter().flat_map(names).find(|name| self.0.contains(name)) else { return Ok(()) };
        let what = format!("the run in `{}`", output.display());
        let reason = format!("it trains on what this run holds out: {shared}");
        Err(Error::Misfit { what, other: "this run".to_owned(), reason })
    }
}

/// What a checkpoint is known by across runs: its task, its recipe, itself and what it came from.
fn names(entry: &Entry) -> Vec<String> {
    let record = entry.record();
    let labels = [Task::LABEL, RECIPE].into_iter().filter_map(|label| Some(format!("{label} `{}`", record.labels.get(label)?)));
    let digests = std::iter::once(&record.digest).chain(&record.provenance.parents).map(|digest| format!("network {digest}"));
    labels.chain(digests).collect()
}

/// The licences of the networks of other runs that are learned from.
pub(super) fn licences(session: &Session) -> Result<BTreeSet<String>> {
    let mut licences = BTreeSet::new();
    for stage in others(session)? {
        let zoo = Zoo::open(&canonicalize::zoo_of(&stage))?;
        let train = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
        licences.extend(train.iter().map(|entry| entry.record().provenance.licence.clone()));
    }
    Ok(licences)
}

/// Reads the training networks of a canonical zoo; held-out runs cannot be reached this way.
fn source(session: &Session, stage: &Completed) -> Result<Source> {
    let zoo = Zoo::open(&canonicalize::zoo_of(stage))?;
    let train = |final_only| Filter { split: Some(Split::Train), final_only, ..Filter::default() };
    let (all, finals) = (zoo.records(&train(false))?, zoo.records(&train(true))?);
    let fields = session.fields();
    let condition = |entry: &Entry| session.condition_of(entry.record());
    let mut conditions = all.iter().map(condition).collect::<Result<Vec<_>>>()?;
    let mut networks = zoo.load(&all, Purpose::Fit)?;
    let orbits = session.config.generator.tokens().map_or(0, |config| config.orbits);
    if orbits > 0 {
        networks = copies(&networks, orbits, session.seed.fork("generator").fork("orbits"))?;
        conditions = conditions.into_iter().flat_map(|condition| vec![condition; orbits]).collect();
    }
    let num_classes = session.dataset(Stage::Train)?.num_classes();
    let asked = match tasks_of(finals.iter().map(Entry::record), zoo.architecture(), num_classes)? {
        None => vec![(session.encode_texts(models::default_condition(session.config, &fields, &finals)?)?, None)],
        Some(tasks) => {
            let conditions = finals.iter().map(condition).collect::<Result<Vec<_>>>()?;
            conditions.into_iter().zip(tasks.into_iter().map(Some)).collect()
        }
    };
    Ok(Source { networks, conditions, asked })
}

/// So many copies of each network, network by network, with units in random orders and signs where these are free.
fn copies(networks: &Population, orbits: usize, seed: Seed) -> Result<Population> {
    let group = Group::derive(networks.architecture().clone());
    let mut data = Vec::with_capacity(networks.data().len() * orbits);
    for (i, row) in networks.rows().enumerate() {
        for copy in 0..orbits {
            let mut row = row.to_vec();
            group.apply(&group.random(seed.index(i as u64).index(copy as u64)).without_scale(), &mut row)?;
            data.extend(row);
        }
    }
    Ok(Population::new(networks.architecture().clone(), data)?)
}

/// Trains the generator, and its refiner if there is one.
pub(super) fn train(
    session: &Session,
    done: &Done,
    folder: &Path,
    (learnt, plans): (&Learnt, &[RefinerPlan]),
    config: &TokensConfig,
) -> Result<Vec<ModelTraining>> {
    let mut stages = others(session)?;
    let held_out = HeldOut::of(done.of(Stage::Canonicalize))?;
    stages.iter().zip(&config.zoos).try_for_each(|(stage, zoo)| held_out.check(stage, zoo))?;
    if config.own {
        stages.insert(0, done.of(Stage::Canonicalize).clone());
    }
    let mut sources = stages.iter().map(|stage| source(session, stage)).collect::<Result<Vec<_>>>()?;
    let mut populations: Vec<Population> = sources.iter_mut().map(|source| take(&mut source.networks)).collect();
    if config.orbits == 0 {
        nested::nest(&mut populations, session.seed.fork("generator").fork("nested"))?;
    }
    let parts = populations.into_iter().zip(&mut sources);
    let parts = parts
        .map(|(networks, source)| TokenPart { networks: Arc::new(networks), conditions: std::mem::take(&mut source.conditions) });
    let set = TokenSet::new(parts.collect())?;
    let settings = config.to_tokens(conditions(session, &set.conditions()));
    check(config, learnt, plans)?;
    // What samples are to be asked for is checked before anything is trained for it.
    Schema::fit(&settings.conditions, &set.conditions())?.encode(&learnt.condition)?;
    let (device, seed) = (&session.device, session.seed.fork("generator"));
    let architecture = learnt.set.architecture();
    let job = Job::new(session, folder, "flow", ("velocity MSE", config.steps));
    let prepare = || {
        let trainer = TokenTrainer::new(settings, set, seed.fork("tokens"), device)?;
        trainer.check(architecture)?;
        Ok(trainer)
    };
    let mut trainings = vec![job.run(prepare, |trainer: TokenTrainer| {
        let flops = trainer.flops();
        Ok((trainer.finish(session.config.sampler.to_sampler())?.save(), flops))
    })?];
    for plan in plans {
        let refiner = config.to_refiner(&plan.config);
        let job = Job::new(session, folder, &plan.file, ("cross-entropy with anchor, nats", refiner.steps));
        let flow = Models::new(session, folder, learnt.set.clone()).tokens()?;
        let generators = sources.iter().map(|source| flow.generator(source.networks.architecture().clone()));
        let generators = generators.collect::<weft_gen::Result<Vec<_>>>()?;
        let prepare = || {
            let dataset = session.data.as_ref().map(|(dataset, _)| dataset);
            let parts = generators.iter().zip(&sources).filter_map(|(generator, source)| {
                let has_tasks = source.asked.iter().any(|(_, task)| task.is_some());
                let loss = loss_of(dataset?, generator.architecture(), has_tasks, device);
                Some(loss.map(|loss| RefinerPart { proposal: generator, asked: source.asked.clone(), loss }))
            });
            let parts = parts.collect::<weft_gen::Result<Vec<_>>>()?;
            TokenRefinerTrainer::new(refiner, &flow, parts, seed.fork("token refiner"), device)
        };
        trainings.push(job.run(prepare, |trainer: TokenRefinerTrainer| {
            let flops = trainer.flops();
            Ok((trainer.finish()?.save(), flops))
        })?);
    }
    Ok(trainings)
}

/// The networks, leaving none of their architecture behind.
fn take(networks: &mut Population) -> Population {
    let none = Population::zeros(networks.architecture().clone(), 0);
    std::mem::replace(networks, none)
}

/// Refuses a refiner that could not read this run's networks.
fn check(config: &TokensConfig, learnt: &Learnt, plans: &[RefinerPlan]) -> Result<()> {
    let tokens = TokenLayout::new(learnt.set.architecture(), config.shape())?.num_tokens();
    if plans.is_empty() || tokens <= config.window {
        return Ok(());
    }
    let expected = format!("{tokens} or more, the tokens of a network that is to be refined");
    Err(Error::Range { what: "`generator.tokens.window`", expected, got: config.window.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::{Activation, Architecture};

    #[test]
    fn copies_are_other_orders_of_the_same_units() {
        let architecture = Arc::new(Architecture::mlp("mlp", &[3, 6, 2], Activation::Relu).unwrap());
        let networks = Population::new(architecture.clone(), Seed::new(1).normals(2 * architecture.num_parameters())).unwrap();
        let copies = copies(&networks, 3, Seed::new(2)).unwrap();
        let inputs = Seed::new(3).normals(5 * 3);
        let logits = |networks: &Population| weft_net::logits(networks, &inputs, &weft_net::Device::cpu()).unwrap();
        let (expected, got) = (logits(&networks), logits(&copies));
        let of_network = expected.len() / 2;
        let expected = expected.chunks_exact(of_network).flat_map(|network| network.repeat(3));
        assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5) && copies.len() == 6);
        assert!(copies.rows().all(|copy| networks.rows().all(|network| copy != network)), "an order is the canonical one");
    }
}
