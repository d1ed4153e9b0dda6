//! Stage 4, first half: the flow, the refiners and the hyper-decoder are trained.
//!
//! ```text
//! generator/
//!   flow.safetensors        what samples
//!   refiner*.safetensors    one file a refiner
//!   hyper.safetensors       the hyper-decoder, if there is one
//!   examples.safetensors    what encodes examples, where they are a condition; `inputs.safetensors` where inputs are
//!   *.state.safetensors     training in progress: killed at any moment, it resumes from here bit for bit
//!   training.json           losses and times
//! ```

use super::models::{self, Learnt, Models, RefinerPlan, Role};
use super::{Done, Session, examples, read_json, streamed, tokens, write_json};
use crate::cache::{Completed, Running};
use crate::config::{FlowConfig, GeneratorConfig, ZooConfig};
use crate::report::data::TrainingCurve;
use crate::run::Stage;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use weft_core::{Architecture, Condition, Dataset, FieldSpec, FieldType, Schema, Task};
use weft_gen::{Artifact, CodeFlow, CodeSet, FlowTrainer, HyperTrainer, RefinerTrainer, Trainer};
use weft_net::{Device, PopulationLoss};

/// Raised when the stage's code changes what it writes.
const VERSION: u32 = 3;
/// Points of a loss curve.
const POINTS: u64 = 100;

/// One model's training.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct ModelTraining {
    /// The model's file, without ending.
    pub(super) file: String,
    /// Its losses.
    pub(super) curve: TrainingCurve,
    /// Wall time, interruptions aside.
    pub(super) secs: f64,
    /// Floating-point operations.
    pub(super) flops: f64,
}

/// The training figures of a complete stage, of models in the order of training.
pub(super) fn trainings(stage: &Completed) -> Result<Vec<ModelTraining>> {
    read_json(&stage.folder.join("training.json"))
}

pub(super) fn run(session: &Session, done: &Done) -> Result<(Completed, bool)> {
    let (canonical, codec) = (done.of(Stage::Canonicalize), done.of(Stage::Encode));
    let config = session.config;
    let plans = models::refiners(config);
    let key = session
        .key(("train", "generator"), VERSION, &[("canonical", canonical), ("codec", codec)])
        .setting("generator", &config.generator)
        .setting("sampler", &config.sampler)
        .setting("condition", &config.sample.condition)
        .setting("refiners", &plans.iter().map(|plan| (&plan.file, &plan.config)).collect::<std::collections::BTreeMap<_, _>>());
    let key = config.hyper.iter().fold(key, |key, hyper| key.setting("hyper", hyper));
    let key = if examples::shows(config) { key.setting("example draws", &examples::DRAWS) } else { key };
    let key = session.text.iter().fold(key, |key, encoder| key.input("text encoder", encoder.digest()));
    let others = tokens::others(session)?;
    let key = others.iter().enumerate().fold(key, |key, (i, other)| key.input(&format!("zoo-{i}"), other.output));
    session.unless_fresh(key, |running| train(session, done, &plans, running))
}

fn train(session: &Session, done: &Done, plans: &[RefinerPlan], running: Running) -> Result<Completed> {
    if running.resumes() {
        session.monitor.note("train: goes on where it stopped");
    }
    let folder = running.folder().to_owned();
    let mut files = Vec::new();
    let trainings = if session.data.is_none() {
        let (codes, condition) = streamed::learn_from(session, done)?;
        match &session.config.generator {
            GeneratorConfig::Flow(config) => {
                vec![train_flow(session, &folder, (codes, &condition), (config, &|flow| Ok(flow.save())))?]
            }
            GeneratorConfig::Tokens(_) => return Err(Error::RunWithoutData { stage: Stage::Train.name() }),
        }
    } else {
        let learnt = models::learn_from(session, done)?;
        check_tasks(session, &learnt, plans)?;
        // Samples for tasks are judged beside those of the run's own generators alone.
        let plans: Vec<RefinerPlan> =
            plans.iter().filter(|plan| learnt.set.tasks.is_none() || plan.role == Role::Chosen).cloned().collect();
        if let Some(shown) = &learnt.shown {
            let (file, artifact) = shown.saved();
            models::write_artifact(&folder.join(&file), &artifact)?;
            files.push(file);
        }
        let mut trainings = match &session.config.generator {
            GeneratorConfig::Tokens(config) => tokens::train(session, done, &folder, (&learnt, &plans), config)?,
            GeneratorConfig::Flow(config) => {
                let (set, condition) = (&learnt.set, &learnt.condition);
                let save = |flow: CodeFlow| Ok(flow.decoded_by(set)?.save());
                let flow = train_flow(session, &folder, (set.code_set(), condition), (config, &save))?;
                let mut trainings = vec![flow];
                trainings.extend(train_refiners(session, &folder, &learnt, &plans)?);
                trainings
            }
        };
        trainings.extend(train_hyper(session, &folder, &learnt)?);
        trainings
    };
    write_json(&folder.join("training.json"), &trainings)?;
    files.extend(trainings.iter().map(|t| format!("{}.safetensors", t.file)));
    running.complete(&files.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Trains the flow on codes, and checks that what samples are to be asked for can be asked of it.
fn train_flow(
    session: &Session,
    folder: &Path,
    (codes, condition): (CodeSet, &Condition),
    (config, save): (&FlowConfig, &dyn Fn(CodeFlow) -> weft_gen::Result<Artifact>),
) -> Result<ModelTraining> {
    let (device, seed) = (&session.device, session.seed.fork("generator").fork("flow"));
    let settings = config.to_flow(conditions(session, &codes.conditions));
    // What samples are to be asked for is checked before anything is trained for it.
    Schema::fit(&settings.conditions, &codes.conditions)?.encode(condition)?;
    let job = Job::new(session, folder, "flow", ("velocity MSE", config.steps));
    job.run(
        || FlowTrainer::new(settings, codes, seed, device),
        |trainer: FlowTrainer| {
            let flops = trainer.flops();
            Ok((save(trainer.finish(session.config.sampler.to_sampler())?)?, flops))
        },
    )
}

fn train_refiners(session: &Session, folder: &Path, learnt: &Learnt, plans: &[RefinerPlan]) -> Result<Vec<ModelTraining>> {
    let Learnt { set, condition, .. } = learnt;
    let (device, seed) = (&session.device, session.seed.fork("generator"));
    let models = Models::new(session, folder, set.clone());
    let dataset = session.dataset(Stage::Train)?;
    let mut trainings = Vec::with_capacity(plans.len());
    for plan in plans {
        let proposal = models.proposal(plan.proposal)?;
        let refiner = Job::new(session, folder, &plan.file, ("cross-entropy with anchor, nats", plan.config.steps));
        trainings.push(refiner.run(
            || {
                let (config, proposal, seed) = (plan.config.to_refiner(), (proposal.as_ref(), condition), seed.fork(&plan.file));
                RefinerTrainer::new(
                    config,
                    proposal,
                    set.clone(),
                    loss_of(dataset, set.architecture(), set.tasks.is_some(), device)?,
                    seed,
                    device,
                )
            },
            |trainer: RefinerTrainer| {
                let flops = trainer.flops();
                Ok((trainer.finish()?.save(), flops))
            },
        )?);
    }
    Ok(trainings)
}

fn train_hyper(session: &Session, folder: &Path, learnt: &Learnt) -> Result<Option<ModelTraining>> {
    let Some(config) = &session.config.hyper else { return Ok(None) };
    let (device, seed, set) = (&session.device, session.seed.fork("generator").fork("hyper"), &learnt.set);
    let dataset = session.dataset(Stage::Train)?;
    let job = Job::new(session, folder, "hyper", ("cross-entropy and code MSE, weighted", config.steps));
    let trained = job.run(
        || {
            HyperTrainer::new(
                config.to_hyper(),
                set.clone(),
                loss_of(dataset, set.architecture(), set.tasks.is_some(), device)?,
                seed,
                device,
            )
        },
        |trainer: HyperTrainer| {
            let flops = trainer.flops();
            Ok((trainer.finish()?.save(), flops))
        },
    );
    trained.map(Some)
}

/// The loss of networks on training data: at the data's classes, or at tasks of their own.
pub(super) fn loss_of(
    dataset: &Dataset,
    architecture: &Arc<Architecture>,
    has_tasks: bool,
    device: &Device,
) -> weft_gen::Result<PopulationLoss> {
    let of = if has_tasks { PopulationLoss::of_tasks } else { PopulationLoss::new };
    Ok(of(architecture.clone(), dataset, device)?)
}

/// Refuses, before anything is trained, what is not defined for the tasks that networks turn out to have.
fn check_tasks(session: &Session, learnt: &Learnt, plans: &[RefinerPlan]) -> Result<()> {
    let many_tasks = learnt.set.tasks.is_some();
    if many_tasks && session.config.evaluate.ablation && !plans.is_empty() {
        return Err(Error::ManyTasks { stage: "evaluate.ablation" });
    }
    if learnt.has_tasks && session.config.sample.best_of.is_some() {
        return Err(Error::ManyTasks { stage: "sample.best-of" });
    }
    let described = session.fields().iter().any(|field| field.name == Task::TEXT && field.kind == FieldType::Text);
    let task = learnt.set.tasks.as_ref().and_then(|of_runs| of_runs.tasks.first());
    if described && task.is_some_and(|task| session.config.zoo.describe(task).is_none()) {
        return Err(Error::WithoutNames);
    }
    plans.iter().try_for_each(|plan| plan.config.to_refiner().check(many_tasks))?;
    Ok(session.config.hyper.iter().try_for_each(|hyper| hyper.to_hyper().check(many_tasks))?)
}

/// The fields that the flow is conditioned on. Checkpoints from elsewhere may lack those that are the default, such as
/// `step`: the flow does without. That none has a field which a run file asks for is an error of its own.
pub(super) fn conditions(session: &Session, told: &[Condition]) -> Vec<FieldSpec> {
    let default = FlowConfig::default().conditions;
    let is_imported = matches!(session.config.zoo, ZooConfig::Existing(_));
    let mut fields = session.learnt_fields();
    fields.retain(|FieldSpec { name: field, .. }| {
        let is_known = told.iter().any(|condition| condition.get(field).is_some());
        let is_kept = is_known || !is_imported || !default.iter().any(|default| &default.name == field);
        if !is_kept {
            session.monitor.note(format!("train: no training checkpoint says its `{field}`; the flow does without"));
        }
        is_kept
    });
    fields
}

/// One model to train, or to go on training.
pub(super) struct Job<'a> {
    session: &'a Session<'a>,
    folder: PathBuf,
    file: String,
    loss: &'static str,
    steps: u64,
}

impl<'a> Job<'a> {
    pub(super) fn new(session: &'a Session<'a>, folder: &Path, file: &str, (loss, steps): (&'static str, u64)) -> Self {
        Self { session, folder: folder.to_owned(), file: file.to_owned(), loss, steps }
    }

    /// Trains and writes the model, unless it is there; returns what its training took.
    pub(super) fn run<T: Trainer>(
        &self,
        prepare: impl FnOnce() -> weft_gen::Result<T>,
        finish: impl FnOnce(T) -> weft_gen::Result<(Artifact, f64)>,
    ) -> Result<ModelTraining> {
        let path = |ending: &str| self.folder.join(format!("{}{ending}", self.file));
        let (model, state, figures) = (path(".safetensors"), path(".state.safetensors"), path(".training.json"));
        if model.exists() && figures.exists() {
            return read_json(&figures);
        }
        let saved = state.exists().then(|| models::read_artifact(&state)).transpose()?;
        let mut training = if let Some(text) = saved.as_ref().and_then(|saved| saved.metadata.get("training")) {
            serde_json::from_str(text).map_err(|e| Error::Damaged { path: state.clone(), reason: e.to_string() })?
        } else {
            let curve = TrainingCurve { name: self.file.clone(), loss: self.loss.to_owned(), points: Vec::new() };
            ModelTraining { file: self.file.clone(), curve, ..ModelTraining::default() }
        };
        let monitor = self.session.monitor;
        monitor.start(&format!("train {}", self.file), self.steps, "steps");
        let since = Instant::now();
        let before = training.secs;
        let mut trainer = prepare()?;
        if let Some(saved) = saved {
            trainer.restore(&saved)?;
        }
        self.advance(&mut trainer, &mut training, &state, (before, since))?;
        let (artifact, flops) = finish(trainer)?;
        training.flops = flops;
        training.secs = before + since.elapsed().as_secs_f64();
        models::write_artifact(&model, &artifact)?;
        write_json(&figures, &training)?;
        if state.exists() {
            std::fs::remove_file(&state).map_err(Error::io("remove", &state))?;
        }
        monitor.finish();
        Ok(training)
    }

    fn advance<T: Trainer>(
        &self,
        trainer: &mut T,
        training: &mut ModelTraining,
        state: &Path,
        (before, since): (f64, Instant),
    ) -> Result<()> {
        let (chunk, every) = ((self.steps / POINTS).max(1), self.session.config.generator.steps()[1]);
        let save = |trainer: &T, training: &mut ModelTraining| -> Result<()> {
            training.secs = before + since.elapsed().as_secs_f64();
            let text =
                serde_json::to_string(training).map_err(|e| Error::Damaged { path: state.to_owned(), reason: e.to_string() })?;
            models::write_artifact(state, &trainer.save()?.with_text("training", text))
        };
        while trainer.step() < self.steps {
            let step = trainer.step();
            let until = (step - step % chunk + chunk).min(self.steps);
            match trainer.advance(until, self.session.monitor) {
                Ok(loss) => training.curve.points.push((until as f64, loss)),
                Err(weft_gen::Error::Interrupted) => {
                    save(trainer, training)?;
                    return Err(Error::Interrupted { stage: Stage::Train.name() });
                }
                Err(error) => return Err(error.into()),
            }
            if until / every > step / every && until < self.steps {
                save(trainer, training)?;
            }
        }
        Ok(())
    }
}
