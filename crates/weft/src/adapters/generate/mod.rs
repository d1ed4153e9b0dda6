//! Adapters for what no adapter was trained on: generators, and everything that they have to beat.
//!
//! A task is shown by a sample of what adapters are trained on, without its answers: some bytes of a language's text, the names of intents, or
//! utterances. What is made is judged on what is held out of the task. Generators learn from training tasks alone: from their adapters, and
//! through the base from what these were trained on.

pub(super) mod baselines;
mod differences;
mod factors;
mod few;
mod learn;
pub(super) mod shown;
mod store;
mod updates;
mod variants;

use super::tasks::{Task, Tasks, Unit};
use crate::config::GenerateConfig;
use crate::{Error, Monitor, Result};
pub use few::{FewStepsRow, FewStepsView};
pub(super) use learn::familiar;
use learn::{Learnt, Seen};
use serde::{Deserialize, Serialize};
pub(super) use shown::{ReadText, SentenceSets, Shown, Texts};
use std::time::Instant;
pub(super) use store::Stored;
pub use store::{GenerateRequest, Like, MadeView, Model, generate, read_sample};
pub(super) use store::{names_like, nearest};
use weft_core::families::Lora;
use weft_core::{Condition, Population, Seed};
use weft_eval::conditional::{TaskEvaluation, TaskMeasurements, TaskRowKind, evaluate_tasks};
use weft_gen::Generator;
use weft_net::adapters::Adapters;

/// Name of the row of tasks' own adapters.
const OWN: &str = "own adapter";
/// Name of the row that half of the gap is counted from.
const ALL: &str = "one adapter of all";
/// Name of the row of the base alone.
const BASE: &str = "base";

/// What an experiment has.
pub(super) struct Experiment<'a> {
    pub(super) config: &'a GenerateConfig,
    pub(super) on: &'a Adapters,
    pub(super) lora: &'a Lora,
    pub(super) tasks: &'a Tasks,
    /// The own adapters of all, and the one of all training tasks.
    pub(super) own: &'a Population,
    pub(super) multi_task: &'a Population,
    /// Whether the own ones grew from that one.
    pub(super) grew_from_all: bool,
    /// Seconds that training a task's own adapter took, all together and divided by their number.
    pub(super) own_secs: f64,
    pub(super) seed: Seed,
    pub(super) monitor: &'a Monitor<'a>,
}

/// What generators are worth on tasks that none has seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GeneratedView {
    /// What figures are in; an `accuracy` in an evaluation is a [`Unit::score`] of it: of languages *bits a byte, times −1*.
    pub unit: Unit,
    /// Rows, comparisons and verdicts on all held-out tasks. A cluster is a language with its variants, or a task.
    pub evaluation: TaskEvaluation,
    /// The part of the way from the one adapter of all training tasks to a task's own that each row goes, in the order of the rows:
    /// `(row − all) / (own − all)` of mean scores.
    pub gap: Vec<f64>,
    /// The same from the base: `(row − base) / (own − base)`.
    #[serde(default)]
    pub gain: Vec<f64>,
    /// The same on each group of them, where there are several.
    #[serde(default)]
    pub groups: Vec<GroupView>,
    /// Training tasks.
    pub training: usize,
    /// What was learnt, for each way in which tasks are shown.
    pub learnt: Vec<LearntView>,
    /// Seconds that training a task's own adapter took among the others.
    pub own_secs: f64,
    /// What merged adapters lost of their energy `‖ΔW‖²` by truncation to the rank, by their rows.
    #[serde(default)]
    pub merges_lost: Vec<(String, f64)>,
    /// A few gradient steps on the samples, if the run had them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub few_steps: Option<FewStepsView>,
}

/// Rows on one group of held-out tasks, as those on all of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// The group.
    pub group: String,
    /// Rows, comparisons and verdicts.
    pub evaluation: TaskEvaluation,
    /// How far each row goes from the one adapter of all training tasks to a task's own.
    pub gap: Vec<f64>,
    /// How far from the base.
    pub gain: Vec<f64>,
}

/// What was learnt for one way in which tasks are shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LearntView {
    /// What shows them: `text`, `names` or `utterances`.
    pub shown: String,
    /// Numbers of a code.
    pub components: usize,
    /// The share of the factors' variance that codes keep.
    pub kept_variance: f64,
    /// Seconds that training the hyper-decoder took, and the flow with its refiner.
    pub train_secs: [f64; 2],
    /// Seconds from a sample to the hyper-decoder's adapter, made one at a time.
    pub sample_secs: f64,
}

/// Learns generators, and measures them beside everything else.
pub(super) fn experiment(experiment: &Experiment) -> Result<(GeneratedView, Vec<Stored>)> {
    let Experiment { config, on, lora, tasks, own, seed, monitor, .. } = *experiment;
    let (training, held_out) = (tasks.numbers(false), tasks.numbers(true));
    let mut codes: Vec<&str> = tasks.each.iter().map(|task| task.code.as_str()).collect();
    codes.sort_unstable();
    codes.dedup();
    let code_of = |&i: &usize| codes.binary_search(&tasks.each[i].code.as_str()).ok();
    let groups: Vec<u32> = training.iter().filter_map(code_of).map(|g| g as u32).collect();
    let parts = training.iter().map(|&i| tasks.each[i].parts[0].clone()).collect();
    let adapters = own.select(&training);
    let seen = Seen { adapters: &adapters, numbers: &training, parts, groups: &groups };
    let judge = Judge { experiment, held_out };
    let mut rows = judge.fixed(&own.select(&judge.held_out), experiment.multi_task)?;
    monitor.note(format!("merge the training {}' adapters", tasks.words.tasks));
    let start = experiment.grew_from_all.then_some(experiment.multi_task);
    let mut merges_lost = Vec::new();
    for merged in baselines::merged(on, lora, &seen, start, (seed, monitor))? {
        rows.push(judge.all_alike(&merged.name, &merged.row)?);
        merges_lost.push((merged.name, merged.lost));
    }
    let (mut stored, mut learnt_views, mut few_steps) = (Vec::new(), Vec::new(), None);
    for (i, shown) in tasks.shown.iter().enumerate() {
        let seed = if i == 0 { seed } else { seed.fork(shown.name()) };
        let learnt = learn::learn(config, on, (&seen, shown), seed, monitor)?;
        let way = Way { shown, learnt: &learnt, name: (tasks.shown.len() > 1).then(|| shown.name()) };
        rows.extend(judge.neighbors(&way, &seen)?);
        rows.extend(judge.told(&way)?);
        rows.extend(updates::rows(&judge, &way, &seen)?);
        if let (Some(few), Shown::Text(texts)) = (&config.few_steps, shown) {
            let (more, view) = few::few_steps(&judge, (few, texts), (&learnt, &seen))?;
            rows.extend(more);
            few_steps = Some(view);
        }
        learnt_views.push(LearntView {
            shown: shown.name().to_owned(),
            components: learnt.codec.code_len(),
            kept_variance: kept_variance(&learnt),
            train_secs: learnt.train_secs,
            sample_secs: judge.sample_secs(&way)?,
        });
        let name = |&i: &usize| if tasks.unit == Unit::Accuracy { &tasks.each[i].title } else { &tasks.each[i].id };
        let names = training.iter().map(|i| name(i).clone()).collect();
        let codes = learnt.codec.encode(adapters.data())?;
        stored.push(Stored::new(i, shown, learnt, (names, codes)).over(on.base().rope_pairs()));
    }
    monitor.finish();
    let GroupView { evaluation, gap, gain, .. } = judge.judged(&rows, None)?;
    let several = tasks.groups.len() > 2;
    let of_groups = (1..tasks.groups.len()).filter(|&g| several && tasks.each.iter().any(|task| task.group == g));
    let groups = of_groups.map(|group| judge.judged(&rows, Some(group))).collect::<Result<Vec<_>>>()?;
    let view = GeneratedView {
        unit: tasks.unit,
        evaluation,
        gap,
        gain,
        groups,
        training: training.len(),
        learnt: learnt_views,
        own_secs: experiment.own_secs,
        merges_lost,
        few_steps,
    };
    Ok((view, stored))
}

/// One way in which tasks are shown, and what was learnt so.
struct Way<'a> {
    shown: &'a Shown,
    learnt: &'a Learnt,
    /// What rows are told apart by, where there are several ways.
    name: Option<&'static str>,
}

impl Way<'_> {
    /// A row's name.
    fn called(&self, name: &str) -> String {
        self.name.map_or_else(|| name.to_owned(), |way| format!("{name}, by {way}"))
    }
}

fn kept_variance(learnt: &Learnt) -> f64 {
    match &*learnt.codec {
        weft_codec::Codec::Pca(pca) => pca.kept_variance(),
        weft_codec::Codec::Identity(_) => 1.0,
    }
}

/// Measures adapters on what is held out of held-out tasks.
struct Judge<'a> {
    experiment: &'a Experiment<'a>,
    /// Numbers of the held-out tasks.
    held_out: Vec<usize>,
}

impl Judge<'_> {
    fn task(&self, of_held_out: usize) -> &Task {
        &self.experiment.tasks.each[self.held_out[of_held_out]]
    }

    /// Scores of an adapter for each task, `[T, P]` → `[T]`.
    fn measure(&self, rows: &[f32]) -> Result<Vec<f64>> {
        let (dim, unit) = (self.experiment.own.dim(), self.experiment.tasks.unit);
        let measure = |(i, row): (usize, &[f32])| -> Result<f64> {
            if self.experiment.monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter train" });
            }
            let measured = self.experiment.on.measure(row, &[&self.task(i).parts[1]])?;
            Ok(unit.score(unit.figure(&measured[0], self.task(i).sizes[1])))
        };
        rows.chunks_exact(dim).enumerate().map(measure).collect()
    }

    /// The table of all held-out tasks, or of a group.
    fn judged(&self, rows: &[TaskMeasurements], group: Option<usize>) -> Result<GroupView> {
        let chosen: Vec<usize> =
            (0..self.held_out.len()).filter(|&i| group.is_none_or(|group| self.task(i).group == group)).collect();
        let of = |name: fn(&Task) -> &String| chosen.iter().map(|&i| name(self.task(i)).clone()).collect::<Vec<String>>();
        let of_chosen = |row: &TaskMeasurements| TaskMeasurements {
            accuracy: row.accuracy.iter().map(|set| chosen.iter().map(|&i| set[i].clone()).collect()).collect(),
            ..row.clone()
        };
        let rows: Vec<TaskMeasurements> = rows.iter().map(of_chosen).collect();
        let evaluation = evaluate_tasks(&of(|task| &task.id), &of(|task| &task.code), &rows)?;
        let mean = |name: &str| evaluation.rows.iter().find(|row| row.name == name).map_or(f64::NAN, |row| row.accuracy.mean);
        let own = mean(OWN);
        let from = |start: f64| evaluation.rows.iter().map(|row| (row.accuracy.mean - start) / (own - start)).collect();
        let (gap, gain) = (from(mean(ALL)), from(mean(BASE)));
        let group = group.map_or("all", |group| self.experiment.tasks.groups[group]).to_owned();
        Ok(GroupView { group, evaluation, gap, gain })
    }

    fn row(&self, name: &str, kind: TaskRowKind, of: Option<&str>, sets: &[Vec<f32>]) -> Result<TaskMeasurements> {
        let measured = sets.iter().map(|rows| Ok(self.measure(rows)?.into_iter().map(|bits| vec![bits]).collect()));
        let accuracy = measured.collect::<Result<Vec<_>>>()?;
        Ok(TaskMeasurements { name: name.to_owned(), kind, of: of.map(str::to_owned), accuracy, disagreement: None })
    }

    fn all_alike(&self, name: &str, row: &[f32]) -> Result<TaskMeasurements> {
        self.row(name, TaskRowKind::Baseline, None, &[row.repeat(self.held_out.len())])
    }

    /// The yardstick, the base, and the adapter of all training tasks.
    fn fixed(&self, own: &Population, multi_task: &Population) -> Result<Vec<TaskMeasurements>> {
        Ok(vec![
            self.row(OWN, TaskRowKind::Runs, None, &[own.data().to_vec()])?,
            self.all_alike(BASE, &vec![0.0; own.dim()])?,
            self.all_alike(ALL, multi_task.row(0))?,
        ])
    }

    /// What a task's sample of a set is drawn by.
    fn seed_of(&self, task: usize, set: usize) -> Seed {
        self.experiment.seed.fork("held-out samples").fork(&self.task(task).id).index(set as u64)
    }

    /// The vector of a task's sample of a set.
    fn sample(&self, way: &Way, task: usize, set: usize) -> Vec<f32> {
        way.shown.vector(self.held_out[task], self.seed_of(task, set))
    }

    /// A task of another code, whose sample is shown instead.
    fn other(&self, task: usize) -> usize {
        let n = self.held_out.len();
        let mut others = (0..n).map(|step| (task + n / 2 + step) % n);
        others.find(|&other| self.task(other).code != self.task(task).code).expect("two tasks or more are held out")
    }

    fn sets(&self) -> std::ops::Range<usize> {
        0..self.experiment.config.sets
    }

    /// Adapters of the training tasks that look most like a sample.
    fn neighbors(&self, way: &Way, seen: &Seen) -> Result<Vec<TaskMeasurements>> {
        let Experiment { lora, tasks, seed, .. } = *self.experiment;
        let (mut nearest, mut between) = (Vec::new(), Vec::new());
        for set in 0..way.shown.draws(self.experiment.config.sets) {
            let (mut rows, mut arcs) = (Vec::new(), Vec::new());
            for task in 0..self.held_out.len() {
                let order = baselines::nearest(&way.learnt.vectors, &self.sample(way, task, set));
                rows.extend_from_slice(seen.adapters.row(order[0]));
                let second = order.get(1).copied().unwrap_or(order[0]);
                arcs.extend(baselines::between(lora, seen.adapters, [order[0], second], seed)?);
            }
            nearest.push(rows);
            between.push(arcs);
        }
        let (kind, words) = (TaskRowKind::Baseline, tasks.words);
        Ok(vec![
            self.row(&way.called(&format!("nearest {}'s", words.task)), kind, None, &nearest)?,
            self.row(&way.called(&format!("two nearest {}', SLERP", words.tasks)), kind, None, &between)?,
        ])
    }

    /// Generators that are shown a sample, another task's, no task's, and none.
    fn told(&self, way: &Way) -> Result<Vec<TaskMeasurements>> {
        let (seed, n, words) = (self.experiment.seed.fork("sets"), self.held_out.len(), self.experiment.tasks.words);
        let own = |i: usize, set: usize| shown::shown(self.sample(way, i, set));
        let mut rows = vec![self.of(way, &way.learnt.ridge, &own)?];
        let refined = way.learnt.refined();
        let generators = std::iter::once(&way.learnt.hyper as &dyn Generator)
            .chain(way.learnt.flow.as_ref().map(|flow| flow as &dyn Generator))
            .chain(refined.as_ref().map(|refined| refined as &dyn Generator));
        for generator in generators {
            let mut ours = self.of(way, generator, &own)?;
            ours.kind = TaskRowKind::Ours;
            let another = self.of(way, generator, &|i, set| shown::shown(self.sample(way, self.other(i), set)))?;
            let noise = |i: usize, set: usize| shown::shown(way.shown.noise(self.held_out[i], seed.index((set * n + i) as u64)));
            let noise = self.of(way, generator, &noise)?;
            let nothing = self.of(way, generator, &|_, _| Condition::unknown())?;
            let control = |row: TaskMeasurements, what: &str| TaskMeasurements {
                name: format!("{}, {what}", ours.name),
                kind: TaskRowKind::Control,
                of: Some(ours.name.clone()),
                ..row
            };
            let controls = [
                control(another, &format!("shown another {}", words.task)),
                control(noise, &format!("shown {}", words.noise)),
                control(nothing, "shown nothing"),
            ];
            rows.push(ours);
            rows.extend(controls);
        }
        Ok(rows)
    }

    fn of(&self, way: &Way, generator: &dyn Generator, ask: &dyn Fn(usize, usize) -> Condition) -> Result<TaskMeasurements> {
        let seed = self.experiment.seed.fork("sets");
        let make = |set: usize| -> Result<Vec<f32>> {
            let asked: Vec<Condition> = (0..self.held_out.len()).map(|i| ask(i, set)).collect();
            Ok(generator.sample_each(&asked, seed.index(set as u64))?.into_data())
        };
        let mut sets = self.sets().map(make).collect::<Result<Vec<_>>>()?;
        // The same each time, such as of names that are all shown, it is measured once.
        if sets.iter().all(|set| *set == sets[0]) {
            sets.truncate(1);
        }
        self.row(&way.called(generator.name()), TaskRowKind::Baseline, None, &sets)
    }

    /// Seconds from a sample to an adapter, the median over the held-out tasks.
    fn sample_secs(&self, way: &Way) -> Result<f64> {
        let of = |task: usize| -> Result<f64> {
            let started = Instant::now();
            let vector = way.shown.read_anew(self.held_out[task], self.seed_of(task, 0))?;
            let made = way.learnt.hyper.sample(1, &shown::shown(vector), self.experiment.seed)?;
            let secs = started.elapsed().as_secs_f64();
            Ok(if made.is_empty() { f64::NAN } else { secs })
        };
        let mut secs = (0..self.held_out.len()).map(of).collect::<Result<Vec<_>>>()?;
        secs.sort_by(f64::total_cmp);
        Ok(secs[secs.len() / 2])
    }
}

#[cfg(test)]
mod tests;
