//! Many adapters trained over one frozen base, and judged on what none of them has seen.
//!
//! The output holds a folder of PEFT for each adapter in `adapters/`, the one adapter of all training tasks in `multi-task/`, the resolved
//! run file and `report.json`. It appears under its name when all of it is written; until then, what is trained is kept beside it in
//! `OUTPUT.kept`, from where a run that was stopped goes on.

use super::generate::{self, Experiment, GeneratedView, Stored};
use super::kept::Kept;
use super::tasks::Tasks;
pub use super::tasks::Unit;
use super::zoo::TASK_TYPE;
use super::{intents, languages};
use crate::config::{AdapterRunConfig, AdapterTaskConfig, StartConfig};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_core::families::{Family, Lora, LoraModule};
use weft_core::{Op, Population, RopePairs, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, Base, LoraConfig, initial_adapter};
use weft_zoo::adapter::{AdapterExport, AdapterParent, AdapterProfile, AdapterProvenance, AdapterWeights};

/// The file of figures.
const REPORT: &str = "report.json";

/// A task of a run, measured on what none was trained on: in bits a byte of text, or by the share of sentences whose class is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskFigures {
    /// Its name: a language's in the archive, or a number among its group's.
    pub id: String,
    /// What it is called in words.
    pub title: String,
    /// Whether the adapter of all training tasks has not seen it.
    pub held_out: bool,
    /// Its group: of training, or one of those that are held out.
    pub group: String,
    /// Bytes, or sentences, that adapters are trained and judged on.
    pub sizes: [usize; 2],
    /// The base alone.
    pub base: f64,
    /// With the adapter of all training tasks.
    pub multi_task: f64,
    /// With its own adapter.
    pub oracle: f64,
}

/// Means over the tasks of a group, in the unit of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupMeans {
    /// The group.
    pub group: String,
    /// Tasks.
    pub tasks: usize,
    /// The base alone.
    pub base: f64,
    /// With the adapter of all training tasks.
    pub multi_task: f64,
    /// With each one's own adapter.
    pub oracle: f64,
    /// Tasks whose own adapter is better than that of all.
    pub oracle_wins: usize,
}

/// What a run of `weft adapter train` found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainedView {
    /// The folder that was written.
    pub output: PathBuf,
    /// Weights of an adapter.
    pub parameters: usize,
    /// Where it was trained.
    pub device: String,
    /// Seconds that training all adapters of one task took.
    pub train_secs: f64,
    /// What tasks are called, of which there are several: `languages`, or `tasks`.
    pub tasks: String,
    /// What figures are in.
    pub unit: Unit,
    /// Means over the training tasks, then over each group of those that are held out.
    pub means: Vec<GroupMeans>,
    /// What generators are worth on held-out tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedView>,
    /// A row a task.
    pub rows: Vec<TaskFigures>,
    /// Tasks that were left out, and why.
    pub skipped: Vec<(String, String)>,
}

/// Trains and measures all adapters of a run file.
///
/// # Errors
/// An output that is there already, files that are missing or damaged, a base that adapters are not trained on, settings that do not fit the
/// data, a failed device, or a stop.
pub fn train(config: &AdapterRunConfig, monitor: &Monitor) -> Result<TrainedView> {
    weft_zoo::refuse_existing(&config.run.output)?;
    let Prepared { tasks, adapters } = match &config.task {
        AdapterTaskConfig::Languages(task) => languages::prepare(config, task, monitor)?,
        AdapterTaskConfig::Intents(task) => intents::prepare(config, task, monitor)?,
    };
    let run = Run { config, adapters: &adapters, tasks: &tasks, monitor };
    let kept = Kept::new(config, (&adapters.device().to_string(), adapters.fingerprint()), monitor)?;
    let architecture = adapters.layout().architecture();
    let key = kept.stage("multi-task").setting("recipe", &config.multi_task);
    let (multi_task, all) = kept.adapters(key, architecture, || run.multi_task())?;
    let key = kept.stage("adapters").setting("recipe", &config.recipe).input("multi-task", all.output);
    let (trained, own) = kept.adapters(key, architecture, || run.each(&multi_task))?;
    let train_secs = own.wall_secs;
    let key = kept.stage("rows").input("multi-task", all.output).input("adapters", own.output);
    let rows = kept.figures(key, || run.rows(&trained, &multi_task))?;
    let generated = run.generated((&trained, &multi_task), train_secs)?;
    let (generated, stored) = generated.map_or((None, Vec::new()), |(view, stored)| (Some(view), stored));
    let view = TrainedView {
        output: config.run.output.clone(),
        parameters: adapters.layout().num_parameters(),
        device: adapters.device().to_string(),
        train_secs,
        tasks: tasks.words.tasks.to_owned(),
        unit: tasks.unit,
        means: tasks.groups.iter().map(|group| means(&rows, group, tasks.unit)).filter(|means| means.tasks > 0).collect(),
        generated,
        rows,
        skipped: tasks.skipped.clone(),
    };
    let rotary = adapters.base().rope_pairs();
    write(config, &Made { tasks: &tasks, each: &trained, multi_task: &multi_task, stored: &stored, rotary }, &view)?;
    kept.remove()?;
    Ok(view)
}

/// What a run starts from: its tasks, and the base on its device.
pub(super) struct Prepared {
    pub(super) tasks: Tasks,
    pub(super) adapters: Adapters,
}

/// Puts a base with a run's adapters on the run's device.
pub(super) fn on_base(config: &AdapterRunConfig, base: Arc<Base>) -> Result<Adapters> {
    let device = Device::open(&config.run.device.to_string())?;
    let lora = LoraConfig { modules: config.lora.modules.clone(), rank: config.lora.rank, alpha: config.lora.alpha };
    let layout = AdapterLayout::new(&base, &lora)?;
    Ok(Adapters::new(base, layout, &device)?)
}

/// What all steps of a run share.
struct Run<'a> {
    config: &'a AdapterRunConfig,
    adapters: &'a Adapters,
    tasks: &'a Tasks,
    monitor: &'a Monitor<'a>,
}

impl Run<'_> {
    fn seed(&self, name: &str) -> Seed {
        Seed::new(self.config.run.seed).fork(name)
    }

    /// The one adapter of all training tasks.
    fn multi_task(&self) -> Result<Population> {
        let task = [self.tasks.joined()?];
        let recipe = self.config.multi_task.to_recipe(task[0].len())?;
        let examples = if matches!(task[0], AdapterTask::Text(_)) { "windows" } else { "sentences" };
        self.monitor.note(format!("one adapter of all training {}: {} {examples}", self.tasks.words.tasks, task[0].len()));
        Ok(self.adapters.train(&task, &recipe, self.seed("multi-task"), self.monitor)?)
    }

    /// An adapter a task.
    fn each(&self, multi_task: &Population) -> Result<Population> {
        let tasks: Vec<AdapterTask> = self.tasks.each.iter().map(|task| task.parts[0].clone()).collect();
        let most = tasks.iter().map(AdapterTask::len).max().unwrap_or(1);
        let recipe = self.config.recipe.to_recipe(most)?;
        let seed = self.seed("adapters");
        let adapters = self.adapters.clone();
        let adapters = match self.config.lora.start {
            StartConfig::Own => adapters,
            StartConfig::Shared => adapters.with_start(&initial_adapter(self.adapters.layout(), seed.fork("init")))?,
            StartConfig::MultiTask => adapters.with_start(multi_task.row(0))?,
        };
        Ok(adapters.train(&tasks, &recipe, seed, self.monitor)?)
    }

    /// Generators that learn from the training tasks, on the held-out ones.
    fn generated(
        &self,
        (own, multi_task): (&Population, &Population),
        train_secs: f64,
    ) -> Result<Option<(GeneratedView, Vec<Stored>)>> {
        let Some(config) = &self.config.generate else { return Ok(None) };
        let experiment = Experiment {
            config,
            on: self.adapters,
            lora: &family_of(own.architecture())?,
            tasks: self.tasks,
            own,
            multi_task,
            grew_from_all: self.config.lora.start == StartConfig::MultiTask,
            own_secs: train_secs / self.tasks.each.len() as f64,
            seed: self.seed("generate"),
            monitor: self.monitor,
        };
        Ok(Some(generate::experiment(&experiment)?))
    }

    /// All tasks by the base, the adapter of all and their own.
    fn rows(&self, trained: &Population, multi_task: &Population) -> Result<Vec<TaskFigures>> {
        let (dim, tasks) = (trained.dim(), self.tasks);
        self.monitor.start("measure adapters", 3 * tasks.each.len() as u64, "measurements");
        let mut rows = Vec::with_capacity(tasks.each.len());
        for (i, task) in tasks.each.iter().enumerate() {
            if self.monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter train" });
            }
            let measure = |adapter: &[f32]| -> Result<f64> {
                Ok(tasks.unit.figure(&self.adapters.measure(adapter, &[&task.parts[1]])?[0], task.sizes[1]))
            };
            rows.push(TaskFigures {
                id: task.id.clone(),
                title: task.title.clone(),
                held_out: task.group > 0,
                group: tasks.groups[task.group].to_owned(),
                sizes: task.sizes,
                base: measure(&vec![0.0; dim])?,
                multi_task: measure(multi_task.row(0))?,
                oracle: measure(trained.row(i))?,
            });
            self.monitor.progress(3 * (i as u64 + 1));
        }
        self.monitor.finish();
        Ok(rows)
    }
}

fn means(rows: &[TaskFigures], group: &str, unit: Unit) -> GroupMeans {
    let rows: Vec<&TaskFigures> = rows.iter().filter(|row| row.group == group).collect();
    let tasks = rows.len();
    let mean = |of: fn(&TaskFigures) -> f64| rows.iter().map(|row| of(row)).sum::<f64>() / tasks.max(1) as f64;
    let [base, multi_task, oracle] = [mean(|row| row.base), mean(|row| row.multi_task), mean(|row| row.oracle)];
    let oracle_wins = rows.iter().filter(|row| unit.score(row.oracle) > unit.score(row.multi_task)).count();
    GroupMeans { group: group.to_owned(), tasks, base, multi_task, oracle, oracle_wins }
}

/// What a run made.
struct Made<'a> {
    tasks: &'a Tasks,
    each: &'a Population,
    multi_task: &'a Population,
    stored: &'a [Stored],
    /// In which order rows of queries and keys stand.
    rotary: Option<RopePairs>,
}

/// Writes everything, or nothing.
fn write(config: &AdapterRunConfig, made: &Made, view: &TrainedView) -> Result<()> {
    weft_zoo::write_folder(&config.run.output, |folder| write_all(config, made, view, folder))
}

fn write_all(config: &AdapterRunConfig, made: &Made, view: &TrainedView, folder: &Path) -> Result<()> {
    let Made { tasks, each, multi_task, stored, rotary } = *made;
    let adapters = folder.join("adapters");
    std::fs::create_dir_all(&adapters).map_err(Error::io("create", &adapters))?;
    let lora = family_of(each.architecture())?;
    let [weights, _] = config.base.paths();
    let sha256 = weft_zoo::sha256_of_file(&weights)?.to_string();
    let base = AdapterParent { name: config.base.name.clone(), sha256, licence: config.base.licence.clone() };
    let provenance = AdapterProvenance {
        parents: vec![base],
        configuration: config.to_toml(),
        synthetic: false,
        tags: vec![config.run.name.clone()],
    };
    let export = AdapterExport::new(AdapterProfile::Peft, &provenance);
    let write_one = |row: &[f32], to: &Path| -> Result<()> {
        let weights = AdapterWeights::from_lora(&lora, row, Some(config.base.name.clone())).map_err(|fault| fault.at(to))?;
        AdapterWeights { rotary, metadata: task_type(rotary.is_some()), ..weights }.write(&export, to)?;
        Ok(())
    };
    for (task, row) in tasks.each.iter().zip(each.rows()) {
        write_one(row, &adapters.join(&task.id))?;
    }
    write_one(multi_task.row(0), &folder.join("multi-task"))?;
    for stored in stored {
        stored.write(&folder.join(&stored.folder), config, each.architecture())?;
    }
    weft_zoo::write_atomic(&folder.join("run.toml"), config.to_toml().as_bytes())?;
    let report = serde_json::to_vec_pretty(view).map_err(|error| {
        let reason = error.to_string();
        Error::Damaged { path: folder.join(REPORT), reason }
    })?;
    weft_zoo::write_atomic(&folder.join(REPORT), &report)?;
    Ok(())
}

/// What PEFT's classes call the task of adapters of a decoder, or of an encoder.
pub(super) fn task_type(decoder: bool) -> weft_zoo::Metadata {
    let name = if decoder { "CAUSAL_LM" } else { "FEATURE_EXTRACTION" };
    weft_zoo::Metadata::from([(TASK_TYPE.to_owned(), name.to_owned())])
}

/// The family of adapters of an architecture.
///
/// # Errors
/// [`Error::Misfit`] if it is none of low-rank updates.
pub(super) fn family_of(architecture: &weft_core::Architecture) -> Result<Lora> {
    let scales =
        architecture.nodes().iter().filter_map(|node| if let Op::Scale { factor } = node.op { Some(factor) } else { None });
    let pairs = architecture.tensors().chunks_exact(2).zip(scales);
    let module = |(pair, scaling): (&[weft_core::TensorSpec], f64)| {
        let name = pair[0].name.strip_suffix(".lora_A.weight")?.to_owned();
        let ([rank, fan_in], [fan_out, _]) = (pair[0].shape[..].try_into().ok()?, pair[1].shape[..].try_into().ok()?);
        Some(LoraModule { name, fan_in, fan_out, rank, scaling })
    };
    let lora = pairs.map(module).collect::<Option<Vec<_>>>().map(|modules| Lora { modules });
    // What the family builds of it must be the same network.
    let same =
        |lora: &Lora| Family::Lora(lora.clone()).build(architecture.name()).is_ok_and(|built| built.same_graph(architecture));
    lora.filter(same).ok_or_else(|| Error::Misfit {
        what: format!("the architecture `{}`", architecture.name()),
        other: "an adapter".to_owned(),
        reason: "it is no set of low-rank updates".to_owned(),
    })
}
