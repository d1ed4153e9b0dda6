//! What stage 4 learns from, and the models that it makes of it.
//!
//! One flow, and a list of refiners: the chosen one behind the flow, the same settings behind some baselines (so
//! that the flow's own part can be told), and, for the ablation, its settings changed one at a time. Networks of many tasks may have a
//! hyper-decoder beside them.

use super::examples::{self, DRAWS, Shown, without_tasks};
use super::{Done, Session, canonicalize, encode, tasks_of};
use crate::config::{BaselinesConfig, RefinerConfig, RunConfig, condition_of};
use crate::run::Stage;
use crate::samples::GeneratorName;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::{ClassSet, Condition, ExampleSet, FieldSpec, FieldType, Monitor, Population, Record, Schema, Split, Task, Value};
use weft_gen::trivial::{Trivial, TrivialGenerator};
use weft_gen::{
    Artifact, ExampleEncoder, Flow, Generator, Guide, Guided, HyperDecoder, InputEncoder, Refined, Refiner, TokenFlow,
    TokenRefiner, TrainingSet,
};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Training networks of all snapshots in canonical form, as the generators see them.
pub(super) struct Learnt {
    /// Codes, weights and conditions.
    pub(super) set: TrainingSet,
    /// What is asked for where the run file does not say.
    pub(super) condition: Condition,
    /// Whether networks have tasks of their own, also where the generator does not follow them.
    pub(super) has_tasks: bool,
    /// What shows tasks by examples, where that is a condition.
    pub(super) shown: Option<Shown>,
}

/// Loads the training runs' networks; held-out runs cannot be reached this way.
pub(super) fn learn_from(session: &Session, done: &Done) -> Result<Learnt> {
    let canonical = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let raw = Zoo::open(&done.of(Stage::Zoo).folder)?;
    let train = |final_only| Filter { split: Some(Split::Train), final_only, ..Filter::default() };
    let (all, finals) = (canonical.records(&train(false))?, canonical.records(&train(true))?);
    let num_classes = session.dataset(Stage::Train)?.num_classes();
    let tasks = tasks_of(finals.iter().map(Entry::record), canonical.architecture(), num_classes)?;
    let raw_finals = raw_of(&raw, &finals)?;
    let fields = session.fields();
    let conditions = all.iter().map(|entry| session.condition_of(entry.record())).collect::<Result<_>>()?;
    let condition = session.encode_texts(default_condition(session.config, &fields, &finals)?)?;
    let codec = Arc::new(encode::codec_of(session, done.of(Stage::Encode))?);
    let mut set = TrainingSet::new(
        codec,
        &canonical.load(&all, Purpose::Fit)?,
        canonical.load(&finals, Purpose::Fit)?,
        raw_finals,
        conditions,
    )?;
    let shown = Shown::of(session, done, canonical.architecture())?;
    let runs = |entries: &'_ [Entry]| entries.iter().map(|entry| entry.record().run.clone()).collect::<Vec<_>>();
    if let Some(shown) = &shown {
        let of_all = tasks_of(all.iter().map(Entry::record), canonical.architecture(), num_classes)?.ok_or_else(without_tasks)?;
        let numbers: BTreeMap<&str, u32> = of_all.iter().map(Task::name).zip(0..).collect();
        let groups: Vec<u32> = of_all.iter().map(|task| numbers[task.name()]).collect();
        let conditions = shown.of_runs(session, &set.conditions, (&of_all, &runs(&all)));
        set = set.with_draws(conditions, &groups)?;
    }
    let has_tasks = tasks.is_some();
    // A flow alone need not know tasks.
    let config = session.config;
    let follows_tasks = names_tasks(&fields) || config.refiner.is_some() || config.hyper.is_some();
    if let Some(mut tasks) = tasks.filter(|_| follows_tasks) {
        let mut conditions = finals.iter().map(|entry| session.condition_of(entry.record())).collect::<Result<Vec<_>>>()?;
        if let Some(shown) = &shown {
            conditions = shown.of_runs(session, &conditions, (&tasks, &runs(&finals)));
            tasks = vec![tasks; DRAWS].concat();
        }
        set = set.with_tasks(&session.learnt_fields(), &conditions, tasks)?;
    }
    Ok(Learnt { set, condition, has_tasks, shown })
}

/// The last raw networks of training runs, in the order of the canonical ones that were made of them.
pub(super) fn raw_of(raw: &Zoo, finals: &[Entry]) -> Result<Population> {
    let entries = raw.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?;
    let place: BTreeMap<_, _> = entries.iter().enumerate().map(|(i, entry)| (entry.record().digest, i)).collect();
    let parents = finals.iter().filter_map(|entry| entry.record().provenance.parents.first());
    let order: Vec<usize> = parents.filter_map(|digest| place.get(digest).copied()).collect();
    Ok(raw.load(&entries, Purpose::Fit)?.select(&order))
}

/// Whether conditions have a field that names, describes or shows tasks.
pub(super) fn names_tasks(fields: &[FieldSpec]) -> bool {
    let names = |field: &FieldSpec| field.name == Task::LABEL && matches!(field.kind, FieldType::Classes { .. });
    let tells = |field: &FieldSpec| [ExampleEncoder::FIELD, InputEncoder::FIELD, Task::TEXT].contains(&field.name.as_str());
    fields.iter().any(|field| names(field) || tells(field))
}

/// The condition that asks for a task on behalf of a set of samples: as the generator is told tasks, by name, by a text, by examples or all.
pub(super) fn ask(session: &Session, shown: Option<&Shown>, base: &Condition, (task, set): (&Task, usize)) -> Result<Condition> {
    let fields = session.fields();
    let mut condition = base.clone();
    if fields.iter().any(|field| field.name == Task::LABEL && matches!(field.kind, FieldType::Classes { .. })) {
        condition = condition.with(Task::LABEL, Value::Classes(task.name().parse()?));
    }
    if fields.iter().any(|field| field.name == Task::TEXT && field.kind == FieldType::Text) {
        let text = session.config.zoo.describe(task).ok_or(Error::WithoutNames)?;
        condition = session.encode_texts(condition.with(Task::TEXT, Value::Text(text)))?;
    }
    Ok(shown.map_or(condition.clone(), |shown| shown.show(&condition, task, examples::seed_of(session, task, set))))
}

/// What a set of samples is asked for: of networks of many tasks the condition of each held-out task, in the order of the tasks' names,
/// else the one condition.
///
/// Of held-out runs, their tasks' names are read and nothing else.
pub(super) fn asked_conditions(
    session: &Session,
    done: &Done,
    learnt: &Learnt,
    set: usize,
) -> Result<Vec<(Option<String>, Condition)>> {
    let alone = || vec![(None, learnt.condition.clone())];
    if learnt.set.tasks.is_none() || !names_tasks(&session.fields()) {
        return Ok(alone());
    }
    let num_classes = session.dataset(Stage::Sample)?.num_classes();
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let held_out = zoo.records(&Filter { split: Some(Split::Test), ..Filter::default() })?;
    let label = |entry: &Entry| entry.record().labels.get(Task::LABEL)?.parse::<ClassSet>().ok();
    let names: BTreeSet<String> = held_out.iter().filter_map(label).map(|classes| classes.to_string()).collect();
    let of_task = |name: String| {
        let task = Task::is_one_of(&name.parse()?, num_classes)?;
        let condition = ask(session, learnt.shown.as_ref(), &learnt.condition, (&task, set))?;
        Ok((Some(name), condition))
    };
    if names.is_empty() { Ok(alone()) } else { names.into_iter().map(of_task).collect() }
}

/// The run file's condition. Numbers that it leaves open are the mean of the best quarter of the final networks; other fields stay unknown.
pub(super) fn default_condition(config: &RunConfig, fields: &[FieldSpec], finals: &[Entry]) -> Result<Condition> {
    let mut best: Vec<&Record> = finals.iter().map(Entry::record).collect();
    let accuracy = |record: &Record| record.metrics.get("validation-accuracy").copied().unwrap_or(0.0);
    best.sort_by(|a, b| accuracy(b).total_cmp(&accuracy(a)));
    best.truncate(finals.len().div_ceil(4));
    let best = best.into_iter().map(|record| record.condition(fields)).collect::<weft_core::Result<Vec<_>>>()?;
    Ok(filled(&condition_of(&config.sample.condition, fields)?, fields, &best))
}

/// A condition whose open numbers are means.
fn filled(asked: &Condition, fields: &[FieldSpec], best: &[Condition]) -> Condition {
    fields.iter().filter(|field| asked.get(&field.name).is_none()).fold(asked.clone(), |condition, field| {
        let number = |value: Option<&Value>| if let Some(Value::Scalar(number)) = value { Some(*number) } else { None };
        let values: Vec<f64> = best.iter().filter_map(|c| number(c.get(&field.name))).collect();
        let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
        mean.into_iter().fold(condition, |condition, mean| condition.with(&field.name, mean))
    })
}

/// What a refiner stands behind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Proposal {
    /// The flow.
    Flow,
    /// A baseline.
    Trivial(Trivial),
}

/// What a refiner is trained for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Role {
    /// It is the run's own.
    Chosen,
    /// It shows what the refiner makes of a baseline.
    Baseline,
    /// It shows what one setting buys.
    Ablation(String),
}

/// A refiner to train.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RefinerPlan {
    /// Its file, without ending.
    pub(super) file: String,
    pub(super) proposal: Proposal,
    pub(super) role: Role,
    pub(super) config: RefinerConfig,
}

/// All refiners of a run, the chosen one first; none without `[refiner]`.
pub(super) fn refiners(config: &RunConfig) -> Vec<RefinerPlan> {
    let Some(chosen) = &config.refiner else { return Vec::new() };
    let flow = |file: String, role, config| RefinerPlan { file, proposal: Proposal::Flow, role, config };
    let mut plans = vec![flow("refiner".to_owned(), Role::Chosen, chosen.clone())];
    if config.generator.tokens().is_some() {
        return plans;
    }
    let baselines = config.baselines.refined.iter().flat_map(|name| name.to_trivial(&config.baselines));
    plans.extend(baselines.map(|kind| RefinerPlan {
        file: format!("refiner-{}", kind.name()),
        proposal: Proposal::Trivial(kind),
        role: Role::Baseline,
        config: chosen.clone(),
    }));
    if config.evaluate.ablation {
        let variants = ablations(chosen).into_iter().enumerate();
        plans.extend(
            variants.map(|(i, (settings, config))| flow(format!("refiner-ablation-{i}"), Role::Ablation(settings), config)),
        );
    }
    plans
}

/// The chosen settings changed one at a time.
fn ablations(chosen: &RefinerConfig) -> Vec<(String, RefinerConfig)> {
    let with = |on: bool, what: &str| if on { format!("without {what}") } else { format!("with {what}") };
    let other = |strength: f64| if strength > 0.0 { 0.0 } else { 1.0 };
    let (shell, repulsion) = (other(chosen.shell), other(chosen.repulsion));
    vec![
        (with(chosen.hinge, "hinge"), RefinerConfig { hinge: !chosen.hinge, ..chosen.clone() }),
        (with(chosen.own_data, "own data"), RefinerConfig { own_data: !chosen.own_data, ..chosen.clone() }),
        (with(chosen.shell > 0.0, "shell"), RefinerConfig { shell, ..chosen.clone() }),
        (with(chosen.repulsion > 0.0, "repulsion"), RefinerConfig { repulsion, ..chosen.clone() }),
        (format!("μ = {:.1e}", 3.0 * chosen.mu), RefinerConfig { mu: 3.0 * chosen.mu, ..chosen.clone() }),
        (format!("μ = {:.1e}", chosen.mu / 3.0), RefinerConfig { mu: chosen.mu / 3.0, ..chosen.clone() }),
    ]
}

/// The trivial generators of a run.
pub(super) fn baselines(config: &BaselinesConfig) -> Vec<Trivial> {
    config.generators.iter().flat_map(|name| name.to_trivial(config)).collect()
}

/// Writes a model.
pub(crate) fn write_artifact(path: &Path, artifact: &Artifact) -> Result<()> {
    let tensors: Vec<_> =
        artifact.tensors.iter().map(|(name, (shape, values))| (name.clone(), shape.clone(), values.as_slice())).collect();
    Ok(weft_zoo::write_tensors(path, &tensors, &artifact.metadata)?)
}

/// Reads a model.
pub(crate) fn read_artifact(path: &Path) -> Result<Artifact> {
    let file = weft_zoo::read_tensors(path)?;
    Ok(Artifact { tensors: file.tensors, metadata: file.metadata })
}

/// The trained models of a run, read from the folder of stage `train`.
pub(super) struct Models<'a> {
    session: &'a Session<'a>,
    folder: PathBuf,
    set: TrainingSet,
}

impl<'a> Models<'a> {
    pub(super) fn new(session: &'a Session<'a>, folder: &Path, set: TrainingSet) -> Self {
        Self { session, folder: folder.to_owned(), set }
    }

    /// The condition fields that the trained flow knows.
    pub(super) fn schema(&self) -> Result<Schema> {
        let tokens = self.session.config.generator.tokens().is_some();
        Ok(if tokens { self.tokens()?.schema().clone() } else { self.flow()?.schema().clone() })
    }

    /// The trained flow over tokens.
    pub(super) fn tokens(&self) -> Result<TokenFlow> {
        let saved = read_artifact(&self.folder.join("flow.safetensors"))?;
        Ok(TokenFlow::load(&saved, self.session.config.sampler.to_sampler(), &self.session.device)?)
    }

    /// The trained flow on codes.
    pub(super) fn flow(&self) -> Result<Flow> {
        let saved = read_artifact(&self.folder.join("flow.safetensors"))?;
        let sampler = self.session.config.sampler.to_sampler();
        let architecture = self.set.architecture().clone();
        let flow = Flow::load(&saved, self.set.codec.clone(), architecture, sampler, &self.session.device)?;
        Ok(flow.guided_by(&self.session.config.sampler.steps().guidance)?)
    }

    /// What a refiner stands behind.
    pub(super) fn proposal(&self, proposal: Proposal) -> Result<Arc<dyn Generator>> {
        Ok(match proposal {
            Proposal::Flow if self.session.config.generator.tokens().is_some() => {
                Arc::new(self.tokens()?.generator(self.set.architecture().clone())?)
            }
            Proposal::Flow => Arc::new(self.flow()?),
            Proposal::Trivial(kind) => Arc::new(TrivialGenerator::new(kind, self.set.clone())),
        })
    }

    /// A refined generator.
    pub(super) fn refined(&self, plan: &RefinerPlan) -> Result<Arc<dyn Generator>> {
        let proposal = self.proposal(plan.proposal)?;
        if self.session.config.generator.tokens().is_some() {
            let refiner = TokenRefiner::load(&self.saved_refiner(plan)?, &self.session.device)?;
            return Ok(Arc::new(refiner.behind(proposal, self.set.architecture().clone())?));
        }
        Ok(Arc::new(Refined::new(proposal, self.refiner(plan)?)))
    }

    /// The flow, or the flow with its refiner, steered by examples with this scale, in so many steps.
    ///
    /// # Errors
    /// As [`Models::generator`]; examples that are not for these networks.
    pub(super) fn guided(
        &self,
        name: GeneratorName,
        examples: &ExampleSet,
        (scale, steps): (f64, Option<usize>),
    ) -> Result<Arc<dyn Generator>> {
        check_generator(self.session.config, name)?;
        if self.session.config.generator.tokens().is_some() {
            let (expected, got) = ("a flow on codes".to_owned(), "`[generator.tokens]`".to_owned());
            return Err(Error::Range { what: "what examples guide", expected, got });
        }
        let sampler = self.session.config.sampler.to_sampler();
        let sampler = weft_gen::SamplerConfig { steps: steps.unwrap_or(sampler.steps), ..sampler };
        let guide = Guide::new(self.set.architecture().clone(), examples, scale, &self.session.device)?;
        let guided: Arc<dyn Generator> = Arc::new(Guided::new(self.flow()?.with_sampler(sampler), guide)?);
        Ok(match (name, refiners(self.session.config).first()) {
            (GeneratorName::Refined, Some(plan)) => Arc::new(Refined::new(guided, self.refiner(plan)?)),
            _ => guided,
        })
    }

    /// A trained refiner of codes.
    pub(super) fn refiner(&self, plan: &RefinerPlan) -> Result<Refiner> {
        Ok(Refiner::load(&self.saved_refiner(plan)?, self.set.codec.clone(), &self.session.device)?)
    }

    fn saved_refiner(&self, plan: &RefinerPlan) -> Result<Artifact> {
        read_artifact(&self.folder.join(format!("{}.safetensors", plan.file)))
    }

    /// The trained hyper-decoder.
    fn hyper(&self) -> Result<HyperDecoder> {
        let saved = read_artifact(&self.folder.join("hyper.safetensors"))?;
        let (codec, architecture) = (self.set.codec.clone(), self.set.architecture().clone());
        Ok(HyperDecoder::load(&saved, codec, architecture, &self.session.device)?)
    }

    /// The run's own generators: the flow, the flow with its refiner, the hyper-decoder, as far as it has them.
    pub(super) fn own(&self) -> Result<Vec<Arc<dyn Generator>>> {
        own_names(self.session.config).into_iter().map(|name| self.generator(name)).collect()
    }

    /// One of the run's own generators.
    ///
    /// # Errors
    /// [`Error::NoGenerator`] if the run file asks for none of this name.
    pub(super) fn generator(&self, name: GeneratorName) -> Result<Arc<dyn Generator>> {
        check_generator(self.session.config, name)?;
        Ok(match (name, refiners(self.session.config).first()) {
            (GeneratorName::Refined, Some(plan)) => self.refined(plan)?,
            (GeneratorName::Hyper, _) => Arc::new(self.hyper()?),
            _ => self.proposal(Proposal::Flow)?,
        })
    }
}

/// Checks that a run has a generator of a name.
pub(crate) fn check_generator(config: &RunConfig, name: GeneratorName) -> Result<()> {
    let known = own_names(config);
    if known.contains(&name) {
        return Ok(());
    }
    let known: Vec<_> = known.into_iter().map(|name| format!("`{}`", name.name())).collect();
    Err(Error::NoGenerator { generator: name.name(), known: known.join(", ") })
}

/// The names of a run's own generators, in the order of [`Models::own`]; without data, networks are never decoded whole, and there is the
/// flow alone.
pub(super) fn own_names(config: &RunConfig) -> Vec<GeneratorName> {
    let mut names = vec![GeneratorName::Flow];
    if config.data.is_none() {
        return names;
    }
    names.extend(config.refiner.is_some().then_some(GeneratorName::Refined));
    names.extend(config.hyper.is_some().then_some(GeneratorName::Hyper));
    names
}

/// Checks that a condition can be asked of the trained flow, and says where it goes beyond what training showed.
pub(super) fn check_condition(monitor: &Monitor, schema: &Schema, condition: &Condition) -> Result<()> {
    schema.extrapolations(condition)?.iter().for_each(|found| monitor.note(found.to_string()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BaselineName;
    use weft_core::FieldType;

    #[test]
    fn every_setting_of_the_refiner_is_ablated_once() {
        let mut config = RunConfig::quickstart(&["evaluate.ablation=true".to_owned()]).unwrap();
        config.baselines.refined = vec![BaselineName::PcaGaussian];
        let plans = refiners(&config);
        assert_eq!((plans[0].role.clone(), plans[1].role.clone()), (Role::Chosen, Role::Baseline));
        let chosen = &plans[0].config;
        assert_eq!(plans[2..].iter().filter(|p| p.config.hinge != chosen.hinge).count(), 1);
        assert_eq!(plans[2..].iter().filter(|p| p.config.own_data != chosen.own_data).count(), 1);
        let files: std::collections::BTreeSet<_> = plans.iter().map(|p| &p.file).collect();
        assert_eq!(files.len(), plans.len());
        config.refiner = None;
        assert!(refiners(&config).is_empty());
    }

    #[test]
    fn open_numbers_are_those_of_the_best_quarter() {
        let fields = [FieldSpec::scalar("validation-accuracy"), FieldSpec::new("task", FieldType::Classes { num_classes: None })];
        let task = Value::Classes(weft_core::ClassSet::new([1]).unwrap());
        let best = [6.0, 7.0].map(|i| Condition::unknown().with("validation-accuracy", i).with("task", task.clone()));
        assert_eq!(filled(&Condition::unknown(), &fields, &best), Condition::unknown().with("validation-accuracy", 6.5));
        let asked = Condition::unknown().with("task", task).with("validation-accuracy", 5.0);
        assert_eq!(filled(&asked, &fields, &best), asked);
    }
}
