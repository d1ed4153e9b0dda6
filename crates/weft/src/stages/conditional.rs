//! Stage 5 where networks have tasks of their own: samples for tasks that were held out, beside networks trained for these, the same
//! generators told something else, and what can be had without a generator.
//!
//! ```text
//! evaluation/
//!   tasks.json              rows, comparisons, verdicts and costs
//! ```

use super::examples::Shown;
use super::models::{self, Learnt, Models};
use super::sample::Samples;
use super::{Done, Session, best, canonicalize, data, few, read_json, sample, tasks_of, train, unlabelled, write_json};
use crate::cache::{Completed, Running};
use crate::config::{ArchitectureConfig, ZooConfig};
use crate::report::data::{TaskCosts, TaskReport};
use crate::run::Stage;
use crate::{Error, GeneratorName, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use weft_core::{
    Architecture, ClassSet, Condition, Dataset, Digest, FieldType, Part, Population, Recipe, Seed, Split, Task, Value,
};
use weft_eval::conditional::{TaskMeasurements, TaskRowKind, evaluate_tasks};
use weft_gen::{Generator, RidgeGenerator};
use weft_net::RunResult;
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Networks trained anew for each held-out task: the yardstick of accuracy and of how much networks of one task differ.
const TRAINED: usize = 4;
/// Places on their way where these are measured.
const STOPS: usize = 16;
/// Networks of many classes that are trained for the row of one network for all tasks.
const MULTI_TASK: usize = 3;
/// Training networks of the nearest tasks that count, at most.
const NEAREST: usize = 32;

/// What rows are measured with.
pub(super) struct Bench<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) dataset: &'a Dataset,
    pub(super) tasks: Vec<Task>,
    /// What each task says of each test example, `[task][example]`.
    labels: Vec<Vec<u32>>,
    architecture: Arc<Architecture>,
    pub(super) shown: Option<Shown>,
}

/// Judges a run whose zoo has tasks.
pub(super) fn evaluate(session: &Session, done: &Done, running: Running) -> Result<Completed> {
    let dataset = session.dataset(Stage::Evaluate)?;
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let finals = |split| zoo.records(&Filter { split: Some(split), final_only: true, ..Filter::default() });
    let (train, held_out) = (finals(Split::Train)?, finals(Split::Test)?);
    let tasks_of = |entries: &[Entry]| -> Result<Vec<Task>> {
        let tasks = tasks_of(entries.iter().map(Entry::record), zoo.architecture(), dataset.num_classes())?;
        tasks.ok_or(Error::Eval(weft_eval::Error::TooFew { what: "held-out runs with a task", got: 0, least: 1 }))
    };
    let (train_tasks, mut tasks) = (tasks_of(&train)?, tasks_of(&held_out)?);
    tasks.sort_by(|a, b| a.name().cmp(b.name()));
    tasks.dedup();
    let names: Vec<String> = tasks.iter().map(|task| task.name().to_owned()).collect();
    let clusters = tasks.iter().map(|task| cluster(task, dataset.num_classes())).collect::<Result<Vec<_>>>()?;
    let bench = Bench::new(session, dataset, tasks, zoo.architecture().clone());
    let recipe = held_out.iter().find_map(|entry| entry.record().recipe.clone());

    let mut rows = Vec::new();
    let (trained, train_secs) = match &recipe {
        Some(recipe) => bench.trained(recipe)?,
        None => (bench.held_out(&zoo.load(&held_out, Purpose::Evaluate)?, &tasks_of(&held_out)?)?, 0.0),
    };
    rows.push(trained);
    let Learnt { set, condition, shown, .. } = models::learn_from(session, done)?;
    let bench = Bench { shown, ..bench };
    // What the run file asks for in general, without the task.
    let others = condition.iter().filter(|(field, _)| *field != Task::LABEL && *field != Task::TEXT);
    let condition = others.fold(Condition::unknown(), |condition, (field, value)| condition.with(field, value.clone()));
    let models = Models::new(session, &done.of(Stage::Train).folder, set.clone());
    let samples = sample::samples_of(done.of(Stage::Sample), zoo.architecture(), session.config.sample.seeds)?;
    let best_of = |n| {
        let input = best::Measured { session, done, set: &set, tasks: (&bench.tasks, &clusters) };
        best::measure(&input, &samples, n)
    };
    let best_of = session.config.evaluate.best_of.map(best_of).transpose()?;
    let mut sample_secs = BTreeMap::new();
    for (generator, samples) in models.own()?.iter().zip(&samples) {
        sample_secs.insert(samples.sampling.name.clone(), samples.sampling.sample_secs);
        rows.extend(bench.generator(generator.as_ref(), samples, &condition)?);
    }
    let networks = zoo.load(&train, Purpose::Evaluate)?;
    rows.push(bench.nearest(&networks, &train_tasks)?);
    rows.extend(unlabelled::nearest(&bench, &set, &condition)?);
    let ridge = RidgeGenerator::fit(set, models.schema()?, session.seed.fork("ridge"))?;
    rows.push(bench.single(&ridge, &condition)?);
    let mean = mean_of(&networks)?;
    rows.push(bench.everywhere("mean", std::slice::from_ref(&mean))?);
    if let Some(networks) = bench.of_all_classes(recipe.as_ref())? {
        rows.push(bench.multi_task(&networks)?);
        rows.extend(unlabelled::grouped(&bench, &networks)?);
    }
    rows.push(bench.majority());

    let evaluation = evaluate_tasks(&names, &clusters, &rows)?;
    let path = running.folder().join("tasks.json");
    // Figures hold times; the output's digest does not.
    let output = Digest::of_bytes(
        &serde_json::to_vec(&evaluation).map_err(|e| Error::Damaged { path: path.clone(), reason: e.to_string() })?,
    );
    let progress = recipe.as_ref().map_or_else(|| Ok(Vec::new()), |recipe| bench.progress(recipe))?;
    let costs = TaskCosts {
        progress,
        zoo_secs: learns_own_zoo(session).then(|| done.of(Stage::Zoo).wall_secs),
        fit_secs: fit_secs(session, done)?,
        train_secs,
        sample_secs,
    };
    let few_examples = match (&bench.shown, &session.config.evaluate.few_examples) {
        (Some(shown), Some(config)) => {
            let (tasks, train_tasks) = ((&bench.tasks[..], &clusters[..]), &train_tasks[..]);
            let (models, base, mean, recipe) = (&models, &condition, &mean, recipe.as_ref());
            few::measure(&few::Input { session, models, shown, tasks, train_tasks, base, mean, recipe }, config)?
        }
        _ => None,
    };
    write_json(&path, &TaskReport { evaluation, costs, few_examples, best_of })?;
    running.complete_as(&["tasks.json"], output)
}

/// Whether what generators learn from was trained by this run, and all of it.
fn learns_own_zoo(session: &Session) -> bool {
    let alone = session.config.generator.tokens().is_none_or(|tokens| tokens.own && tokens.zoos.is_empty());
    alone && matches!(session.config.zoo, ZooConfig::Train(_))
}

/// Whether a complete evaluation is one of many tasks.
pub(crate) fn is_of_tasks(done: &Done) -> bool {
    done.of(Stage::Evaluate).folder.join("tasks.json").exists()
}

/// What each of the run's own generators took to be fitted, by name: canonical forms, the codec, and what was trained for it.
fn fit_secs(session: &Session, done: &Done) -> Result<BTreeMap<String, f64>> {
    let shared: f64 = [Stage::Canonicalize, Stage::Encode].map(|stage| done.of(stage).wall_secs).iter().sum();
    let trainings = train::trainings(done.of(Stage::Train))?;
    let of = |file: &str| trainings.iter().filter(|training| training.file == file).map(|training| training.secs).sum::<f64>();
    let samples: Vec<sample::Sampling> = read_json(&done.of(Stage::Sample).folder.join("sampling.json"))?;
    let fitted = models::own_names(session.config).into_iter().zip(samples).map(|(name, sampling)| {
        let trained = match name {
            GeneratorName::Flow => of("flow"),
            GeneratorName::Refined => of("flow") + of("refiner"),
            GeneratorName::Hyper => of("hyper"),
        };
        (sampling.name, shared + trained)
    });
    Ok(fitted.collect())
}

/// The networks that runs ended with.
fn last_networks(architecture: &Arc<Architecture>, runs: &[RunResult]) -> Result<Population> {
    let last = |run: &RunResult| run.snapshots.last().map(|snapshot| snapshot.row.clone()).unwrap_or_default();
    Ok(Population::new(architecture.clone(), runs.iter().flat_map(last).collect())?)
}

/// A task and its complement share a name: that of the first of the two.
fn cluster(task: &Task, num_classes: usize) -> Result<String> {
    let classes: ClassSet = task.name().parse()?;
    let complement = ClassSet::new((0..num_classes as u32).filter(|class| !classes.contains(*class)))?;
    Ok(classes.to_string().min(complement.to_string()))
}

fn mean_of(networks: &Population) -> Result<Population> {
    let mut mean = vec![0.0_f64; networks.dim()];
    networks.rows().for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &w)| *m += f64::from(w)));
    let row = mean.into_iter().map(|m| (m / networks.len() as f64) as f32).collect();
    Ok(Population::new(networks.architecture().clone(), row)?)
}

impl<'a> Bench<'a> {
    fn new(session: &'a Session<'a>, dataset: &'a Dataset, tasks: Vec<Task>, architecture: Arc<Architecture>) -> Self {
        let classes = dataset.labels(Part::Test);
        let labels = tasks.iter().map(|task| classes.iter().map(|&class| task.output(class)).collect()).collect();
        Self { session, dataset, tasks, labels, architecture, shown: None }
    }

    /// The condition that asks for a task.
    fn ask(&self, base: &Condition, task: &Task) -> Result<Condition> {
        models::ask(self.session, self.shown.as_ref(), base, (task, 0))
    }

    /// What networks say of each test example, `[n][example]`.
    pub(super) fn predictions(&self, networks: &Population) -> Result<Vec<Vec<u32>>> {
        let tasks = vec![self.tasks[0].clone(); networks.len()];
        let found = weft_net::predictions(networks, (self.dataset, &tasks[..]), Part::Test, &self.session.device)?;
        Ok(found.chunks_exact(self.labels[0].len().max(1)).map(<[u32]>::to_vec).collect())
    }

    /// Test examples.
    pub(super) fn num_tests(&self) -> usize {
        self.labels[0].len()
    }

    pub(super) fn accuracy(&self, task: usize, predictions: &[u32]) -> f64 {
        let right = predictions.iter().zip(&self.labels[task]).filter(|(a, b)| a == b).count();
        right as f64 / predictions.len().max(1) as f64
    }

    /// Networks that are trained for the held-out tasks, and the seconds that one takes.
    fn trained(&self, recipe: &Recipe) -> Result<(TaskMeasurements, f64)> {
        let session = self.session;
        let tasks: Vec<Task> = self.tasks.iter().flat_map(|task| vec![task.clone(); TRAINED]).collect();
        let seed = session.seed.fork("evaluate").fork("trained");
        let seeds: Vec<Seed> = (0..tasks.len()).map(|i| seed.fork(tasks[i].name()).index((i % TRAINED) as u64)).collect();
        session.monitor.start("train for the held-out tasks", tasks.len() as u64, "networks");
        let since = Instant::now();
        let labelled = (self.dataset, &tasks[..]);
        let runs = weft_net::train(&self.architecture, labelled, recipe, &seeds, &session.device, session.monitor)?;
        let secs = since.elapsed().as_secs_f64() / tasks.len() as f64;
        session.monitor.finish();
        let said = self.predictions(&last_networks(&self.architecture, &runs)?)?;
        let of_task: Vec<&[Vec<u32>]> = said.chunks_exact(TRAINED).collect();
        let accuracy = of_task.iter().enumerate().map(|(t, said)| said.iter().map(|s| self.accuracy(t, s)).collect()).collect();
        let mut trained = row("trained for the task", TaskRowKind::Runs, vec![accuracy]);
        trained.disagreement = Some(of_task.iter().map(|said| disagreement(said)).collect());
        Ok((trained, secs))
    }

    /// How good the first network of each task is on its way: fractions of the steps with the mean test accuracy over tasks.
    ///
    /// These runs are those of [`Bench::trained`] once more, with snapshots, whose scoring would count as training there.
    fn progress(&self, recipe: &Recipe) -> Result<Vec<(f64, f64)>> {
        let session = self.session;
        let steps = recipe.num_steps(self.dataset.range(Part::Train).len());
        let recipe = Recipe { snapshot_steps: Recipe::log_spaced((steps / 200).max(1), steps, STOPS), ..recipe.clone() };
        let seed = session.seed.fork("evaluate").fork("trained");
        let seeds: Vec<Seed> = self.tasks.iter().map(|task| seed.fork(task.name()).index(0)).collect();
        let labelled = (self.dataset, &self.tasks[..]);
        let runs = weft_net::train(&self.architecture, labelled, &recipe, &seeds, &session.device, session.monitor)?;
        let mut progress = Vec::new();
        for stop in 0..runs.first().map_or(0, |run| run.snapshots.len()) {
            let rows = runs.iter().flat_map(|run| run.snapshots[stop].row.iter().copied()).collect();
            let said = self.predictions(&Population::new(self.architecture.clone(), rows)?)?;
            let accuracy = said.iter().enumerate().map(|(t, said)| self.accuracy(t, said)).sum::<f64>() / said.len() as f64;
            progress.push((runs[0].snapshots[stop].step as f64 / steps as f64, accuracy));
        }
        Ok(progress)
    }

    /// The zoo's own networks for the held-out tasks, where nothing is known of how they were trained.
    fn held_out(&self, networks: &Population, tasks: &[Task]) -> Result<TaskMeasurements> {
        let said = self.predictions(networks)?;
        let of_task = |(t, task): (usize, &Task)| {
            let of: Vec<&Vec<u32>> = said.iter().zip(tasks).filter(|(_, own)| own.name() == task.name()).map(|(s, _)| s).collect();
            of.into_iter().map(|said| self.accuracy(t, said)).collect()
        };
        let accuracy = self.tasks.iter().enumerate().map(of_task).collect();
        Ok(row("held-out runs", TaskRowKind::Runs, vec![accuracy]))
    }

    /// A generator that was told each task, told another, and is told nothing.
    fn generator(&self, generator: &dyn Generator, samples: &Samples, base: &Condition) -> Result<Vec<TaskMeasurements>> {
        let (session, count, name) = (self.session, self.session.config.sample.count, generator.name());
        session.monitor.start(&format!("measure {name}"), samples.sets.len() as u64, "sets");
        let (mut told, mut other, mut nothing, mut random, mut any) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let reads_texts = session.fields().iter().any(|field| field.name == Task::TEXT && field.kind == FieldType::Text);
        let mut differ = vec![0.0; self.tasks.len()];
        // Samples lie task by task; those of a generator that knows no tasks serve them all.
        let block = |task: &Task| samples.sampling.tasks.iter().position(|name| name == task.name()).unwrap_or(0) * count;
        for (set, networks) in samples.sets.iter().enumerate() {
            session.check_stop(Stage::Evaluate)?;
            let all = self.predictions(networks)?;
            let said: Vec<&[Vec<u32>]> = self.tasks.iter().map(|task| &all[block(task)..][..count]).collect();
            let of = |t: usize, said: &[Vec<u32>]| said.iter().map(|s| self.accuracy(t, s)).collect::<Vec<f64>>();
            told.push((0..said.len()).map(|t| of(t, said[t])).collect());
            other.push((0..said.len()).map(|t| of(t, said[self.another(t)])).collect());
            differ.iter_mut().zip(&said).for_each(|(sum, said)| *sum += disagreement(said) / samples.sets.len() as f64);
            let seed = sample::seed_of(session, set).fork("no task");
            let of_none = self.predictions(&sample::draw(session, generator, count, base, seed)?)?;
            nothing.push((0..said.len()).map(|t| of(t, &of_none)).collect());
            if reads_texts {
                random.push((0..said.len()).map(|t| self.of_random_text(generator, base, (t, set))).collect::<Result<_>>()?);
            }
            any.extend(unlabelled::of_any(self, (generator, base), set)?);
            session.monitor.progress(set as u64 + 1);
        }
        session.monitor.finish();
        let mut own = row(name, TaskRowKind::Ours, told);
        own.disagreement = (count > 1).then_some(differ);
        let control = |what: &str, accuracy| TaskMeasurements {
            of: Some(name.to_owned()),
            ..row(&format!("{name}, {what}"), TaskRowKind::Control, accuracy)
        };
        let random = reads_texts.then(|| control("told a random text", random));
        let any = (!any.is_empty()).then(|| control("told inputs of all classes", any));
        Ok([own, control("told another task", other), control("told no task", nothing)]
            .into_iter()
            .chain(random)
            .chain(any)
            .collect())
    }

    /// Accuracies at a task of samples that are told random letters, in words as long as those of its text.
    fn of_random_text(&self, generator: &dyn Generator, base: &Condition, (task, set): (usize, usize)) -> Result<Vec<f64>> {
        let (session, name) = (self.session, self.tasks[task].name());
        let seed = sample::seed_of(session, set).fork("random text").fork(name);
        let text = session.config.zoo.describe(&self.tasks[task]).ok_or(Error::WithoutNames)?;
        let told = base.clone().with(Task::TEXT, Value::Text(random_text(&text, seed.fork("letters"))));
        let networks = sample::draw(session, generator, session.config.sample.count, &session.encode_texts(told)?, seed)?;
        Ok(self.predictions(&networks)?.iter().map(|said| self.accuracy(task, said)).collect())
    }

    /// A held-out task that is neither this one nor its complement: the one half way round.
    fn another(&self, task: usize) -> usize {
        let n = self.tasks.len();
        let own = cluster(&self.tasks[task], self.dataset.num_classes()).unwrap_or_default();
        let differs = |&other: &usize| cluster(&self.tasks[other], self.dataset.num_classes()).is_ok_and(|other| other != own);
        (0..n).map(|step| (task + n / 2 + step) % n).find(differs).unwrap_or(task)
    }

    /// Training networks of the tasks that differ in the fewest classes, the two outputs exchanged where that is nearer.
    fn nearest(&self, networks: &Population, tasks: &[Task]) -> Result<TaskMeasurements> {
        let classes = self.dataset.num_classes() as u32;
        let differ = |a: &Task, b: &Task| (0..classes).filter(|&class| a.output(class) != b.output(class)).count();
        let mut accuracy = Vec::with_capacity(self.tasks.len());
        for (t, task) in self.tasks.iter().enumerate() {
            let places: Vec<(usize, bool)> = nearest_of(tasks.iter().map(|other| differ(task, other)), classes as usize);
            let chosen: Vec<usize> = places.iter().map(|&(i, _)| i).collect();
            let said = self.predictions(&networks.select(&chosen))?;
            let own = |(said, (_, exchanged)): (&Vec<u32>, (usize, bool))| {
                let accuracy = self.accuracy(t, said);
                if exchanged { 1.0 - accuracy } else { accuracy }
            };
            accuracy.push(said.iter().zip(places).map(own).collect());
        }
        Ok(row("nearest task", TaskRowKind::Baseline, vec![accuracy]))
    }

    /// A generator of which one sample a task says all.
    fn single(&self, generator: &dyn Generator, base: &Condition) -> Result<TaskMeasurements> {
        let mut accuracy = Vec::with_capacity(self.tasks.len());
        for (t, task) in self.tasks.iter().enumerate() {
            let network = sample::draw(self.session, generator, 1, &self.ask(base, task)?, self.session.seed)?;
            accuracy.push(self.predictions(&network)?.iter().map(|s| self.accuracy(t, s)).collect());
        }
        Ok(row(generator.name(), TaskRowKind::Baseline, vec![accuracy]))
    }

    /// The same networks for every task.
    fn everywhere(&self, name: &str, seeds: &[Population]) -> Result<TaskMeasurements> {
        let of_seed = |networks: &Population| {
            let said = self.predictions(networks)?;
            Ok((0..self.tasks.len()).map(|t| said.iter().map(|s| self.accuracy(t, s)).collect()).collect())
        };
        let accuracy = seeds.iter().map(of_seed).collect::<Result<Vec<_>>>()?;
        Ok(row(name, TaskRowKind::Baseline, accuracy))
    }

    /// Networks of the data's own classes. Perceptrons alone: of other architectures the one with more outputs is not known.
    fn of_all_classes(&self, recipe: Option<&Recipe>) -> Result<Option<Population>> {
        let session = self.session;
        let (Some(recipe), Some(config @ ArchitectureConfig::Mlp(_))) = (recipe, &session.config.architecture) else {
            return Ok(None);
        };
        let architecture = Arc::new(data::architecture(config, Some(self.dataset), None)?);
        let seed = session.seed.fork("evaluate").fork("multi-task");
        let seeds: Vec<Seed> = (0..MULTI_TASK as u64).map(|i| seed.index(i)).collect();
        let runs = weft_net::train(&architecture, self.dataset, recipe, &seeds, &session.device, session.monitor)?;
        last_networks(&architecture, &runs).map(Some)
    }

    /// What networks of the data's own classes say of the test examples, `[n · examples, classes]`.
    pub(super) fn test_logits(&self, networks: &Population) -> Result<Vec<f32>> {
        let inputs = self.dataset.gather(self.dataset.range(Part::Test));
        Ok(weft_net::logits(networks, &inputs, &self.session.device)?)
    }

    /// One network of the data's own classes for all tasks: a task is the sum of its classes' probabilities, above one half.
    fn multi_task(&self, networks: &Population) -> Result<TaskMeasurements> {
        let (logits, classes) = (self.test_logits(networks)?, networks.architecture().num_outputs());
        let of_network = |logits: &[f32]| {
            let of_task = |t: usize| {
                let said: Vec<u32> = logits.chunks_exact(classes).map(|z| u32::from(is_member(z, &self.tasks[t]))).collect();
                vec![self.accuracy(t, &said)]
            };
            (0..self.tasks.len()).map(of_task).collect()
        };
        let accuracy = logits.chunks_exact(self.labels[0].len() * classes).map(of_network).collect();
        Ok(row("one network of all classes", TaskRowKind::Baseline, accuracy))
    }

    /// The more frequent output, as training examples have it.
    fn majority(&self) -> TaskMeasurements {
        let training = self.dataset.labels(Part::Train);
        let of_task = |(t, task): (usize, &Task)| {
            let ones = training.iter().filter(|&&class| task.output(class) == 1).count();
            let said = vec![u32::from(2 * ones > training.len()); self.labels[t].len()];
            vec![self.accuracy(t, &said)]
        };
        row("majority", TaskRowKind::Baseline, vec![self.tasks.iter().enumerate().map(of_task).collect()])
    }
}

/// A row of a name and kind, `accuracy` being `[seed][task][sample]`.
pub(super) fn row(name: &str, kind: TaskRowKind, accuracy: Vec<Vec<Vec<f64>>>) -> TaskMeasurements {
    TaskMeasurements { name: name.to_owned(), kind, accuracy, ..TaskMeasurements::default() }
}

/// A text with other letters.
fn random_text(text: &str, seed: Seed) -> String {
    let letters = seed.indices(text.len(), 26);
    let replace = |(c, letter): (char, &u32)| if c.is_alphanumeric() { char::from(b'a' + *letter as u8) } else { c };
    text.chars().zip(&letters).map(replace).collect()
}

/// The networks that differ least in so many classes of two outputs each, at most [`NEAREST`], and whether they do once their outputs are exchanged.
fn nearest_of(differ: impl Iterator<Item = usize>, classes: usize) -> Vec<(usize, bool)> {
    let nearer: Vec<(usize, bool)> = differ.map(|count| (count.min(classes - count), classes - count < count)).collect();
    let least = nearer.iter().map(|(count, _)| *count).min();
    let of_least = nearer.iter().enumerate().filter(|(_, (count, _))| Some(*count) == least);
    of_least.map(|(i, &(_, exchanged))| (i, exchanged)).take(NEAREST).collect()
}

/// Whether the classes of a task have more than half of the probability.
pub(super) fn is_member(logits: &[f32], task: &Task) -> bool {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut inside, mut all) = (0.0, 0.0);
    for (class, z) in logits.iter().enumerate() {
        let weight = f64::from(z - max).exp();
        all += weight;
        inside += if task.output(class as u32) == 1 { weight } else { 0.0 };
    }
    2.0 * inside > all
}

/// The mean fraction of examples on which two of some networks differ; 0 of fewer than two.
fn disagreement(said: &[Vec<u32>]) -> f64 {
    let mut fractions = Vec::new();
    for (i, a) in said.iter().enumerate() {
        for b in &said[..i] {
            fractions.push(a.iter().zip(b).filter(|(a, b)| a != b).count() as f64 / a.len().max(1) as f64);
        }
    }
    fractions.iter().sum::<f64>() / fractions.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn task(name: &str) -> Task {
        Task::is_one_of(&name.parse().unwrap(), 4).unwrap()
    }

    #[test]
    fn a_task_and_its_complement_are_one_cluster() {
        let clusters: BTreeSet<String> = ["0+3", "1+2", "0", "1+2+3"].iter().map(|t| cluster(&task(t), 4).unwrap()).collect();
        assert_eq!(clusters.len(), 2);
    }

    #[test]
    fn random_texts_keep_the_words_lengths() {
        let text = random_text("zero, three or 7", Seed::new(1));
        assert_eq!(text.split(' ').map(str::len).collect::<Vec<_>>(), [5, 5, 2, 1]);
        assert!(text != random_text("zero, three or 7", Seed::new(2)) && text.as_bytes()[4] == b',');
    }

    #[test]
    fn outputs_are_exchanged_where_that_is_nearer() {
        assert_eq!(nearest_of([3, 1, 4, 2].into_iter(), 4), [(2, true)]);
        assert_eq!(nearest_of([3, 1, 2].into_iter(), 4), [(0, true), (1, false)]);
        assert_eq!(nearest_of([3; 40].into_iter(), 10).len(), NEAREST);
    }

    #[test]
    fn probabilities_of_classes_add_up() {
        // The greatest logit is outside, the sum of the two inside is more.
        assert!(is_member(&[1.0, 0.9, 0.9, -9.0], &task("1+2")));
        assert!(!is_member(&[3.0, 0.9, 0.9, -9.0], &task("1+2")));
        assert!((disagreement(&[vec![0, 1, 1], vec![0, 1, 0], vec![0, 1, 0]]) - 2.0 / 9.0).abs() < 1e-12);
        assert!(disagreement(&[vec![1]]).abs() < 1e-12);
    }
}
