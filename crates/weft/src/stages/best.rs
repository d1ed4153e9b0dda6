//! Best of n: of each n samples the one that a judge without test labels puts first.
//!
//! Test examples have no part in it. What n costs is counted: times and operations of a network are those of all n.

use super::sample::Samples;
use super::{Done, Session, canonicalize, tasks_of};
use crate::config::{BestBy, BestOfConfig};
use crate::report::data::{BestOf, BestOfRow, PredictorFacts};
use crate::run::Stage;
use crate::{Error, Result};
use std::time::Instant;
use weft_core::{ExampleSet, Part, Population, Split, Task};
use weft_eval::conditional::over_clusters;
use weft_gen::{AccuracyPredictor, TrainingSet};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// What is known of what samples are to do.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    /// The data's own classes.
    Classes,
    /// A task.
    Task(&'a Task),
    /// Examples of a task.
    Examples(&'a ExampleSet),
    /// Nothing.
    Nothing,
}

/// A judge of samples.
pub(super) struct Judge<'a> {
    session: &'a Session<'a>,
    config: BestOfConfig,
    predictor: Option<AccuracyPredictor>,
}

impl<'a> Judge<'a> {
    /// Prepares to judge; a predictor is fitted to the snapshots of training runs and to their validation accuracies.
    ///
    /// # Errors
    /// Training networks whose accuracy is not known, for a predictor.
    pub(super) fn new(session: &'a Session<'a>, done: &Done, set: &TrainingSet, config: BestOfConfig) -> Result<Self> {
        let predictor = (config.by == BestBy::Predictor).then(|| predictor(session, done, set)).transpose()?;
        Ok(Self { session, config, predictor })
    }

    /// The judge, if it can rank networks of which so much is known.
    ///
    /// # Errors
    /// A ranking by validation where nothing is known of the task; one by prediction of networks that are in no canonical form.
    pub(super) fn able(self, known: Known) -> Result<Self> {
        if self.config.by == BestBy::Validation && matches!(known, Known::Nothing) {
            return Err(unknown_task());
        }
        if self.config.by == BestBy::Predictor && self.session.config.generator.tokens().is_some() {
            let (expected, got) = ("of networks in canonical form".to_owned(), "samples of `[generator.tokens]`".to_owned());
            return Err(Error::Range { what: "a ranking by predicted accuracy", expected, got });
        }
        Ok(self)
    }

    /// What its predictor is worth, in words.
    pub(super) fn note(&self) -> Option<String> {
        self.predictor.as_ref().map(|predictor| {
            let quality = predictor.quality();
            format!(
                "accuracy predicted from weights: R² {:.3}, Kendall τ {:.3} on {} networks of {} held-out parts of the training runs",
                quality.r_squared, quality.kendall_tau, quality.num_networks, quality.num_runs
            )
        })
    }

    /// The best of each n consecutive networks.
    ///
    /// # Errors
    /// A ranking by validation where nothing is known of the task.
    pub(super) fn choose(&self, networks: &Population, known: Known) -> Result<Population> {
        Ok(networks.select(&firsts(&self.scores(networks, known)?, self.config.n)))
    }

    /// What networks are ranked by, greatest first.
    fn scores(&self, networks: &Population, known: Known) -> Result<Vec<f64>> {
        match (self.config.by, &self.predictor) {
            (BestBy::Predictor, Some(predictor)) => Ok(predictor.predict(networks)?),
            (BestBy::Agreement, _) => self.agreement(networks),
            _ => self.validation(networks, known),
        }
    }

    fn validation(&self, networks: &Population, known: Known) -> Result<Vec<f64>> {
        let (dataset, device) = (self.session.dataset(Stage::Sample)?, &self.session.device);
        match known {
            Known::Classes => Ok(weft_net::accuracies(networks, dataset, Part::Validation, device)?),
            Known::Task(task) => {
                let tasks = vec![task.clone(); networks.len()];
                Ok(weft_net::accuracies(networks, (dataset, &tasks[..]), Part::Validation, device)?)
            }
            Known::Examples(examples) => {
                let said = self.said(networks, examples.inputs())?;
                let right = |said: &Vec<u32>| said.iter().zip(examples.labels()).filter(|(a, b)| a == b).count();
                Ok(said.iter().map(|said| right(said) as f64 / examples.labels().len() as f64).collect())
            }
            Known::Nothing => Err(unknown_task()),
        }
    }

    /// On how many validation inputs a network says what most of its n say.
    fn agreement(&self, networks: &Population) -> Result<Vec<f64>> {
        let dataset = self.session.dataset(Stage::Sample)?;
        let said = self.said(networks, &dataset.gather(dataset.range(Part::Validation)))?;
        Ok(said.chunks(self.config.n).flat_map(|group| agreement(group, networks.architecture().num_outputs())).collect())
    }

    /// What networks say of inputs, `[n][m]`.
    fn said(&self, networks: &Population, inputs: &[f32]) -> Result<Vec<Vec<u32>>> {
        let classes = networks.architecture().num_outputs();
        let logits = weft_net::logits(networks, inputs, &self.session.device)?;
        let of_network = |logits: &[f32]| logits.chunks_exact(classes).map(greatest).collect();
        Ok(logits.chunks_exact(logits.len() / networks.len().max(1)).map(of_network).collect())
    }
}

fn unknown_task() -> Error {
    let expected = "of networks whose task is named, or shown by labelled examples".to_owned();
    Error::Range { what: "a ranking by validation", expected, got: "neither".to_owned() }
}

/// What is measured of each judge on samples that are there.
pub(super) struct Measured<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) done: &'a Done,
    pub(super) set: &'a TrainingSet,
    /// The held-out tasks, and the cluster of each.
    pub(super) tasks: (&'a [Task], &'a [String]),
}

/// What each judge picks of the run's samples for held-out tasks, beside all of them.
///
/// # Errors
/// A prediction that cannot be fitted.
pub(super) fn measure(input: &Measured, samples: &[Samples], n: usize) -> Result<BestOf> {
    let judge = |by| Judge::new(input.session, input.done, input.set, BestOfConfig { n, by });
    let judges = BestBy::ALL.into_iter().map(judge).collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for samples in samples.iter().filter(|samples| !samples.sampling.tasks.is_empty()) {
        let all = input.accuracies(samples, None)?;
        rows.push(input.row(samples, ("none", 1), (&all, &all), 0.0));
        for judge in &judges {
            let since = Instant::now();
            let chosen = input.chosen(samples, judge)?;
            let kept = chosen.iter().flatten().map(Vec::len).sum::<usize>().max(1);
            let secs = since.elapsed().as_secs_f64() / kept as f64;
            let found = input.accuracies(samples, Some(&chosen))?;
            rows.push(input.row(samples, (judge.config.by.name(), n), (&found, &all), secs));
        }
    }
    let predictor = judges.iter().find_map(|judge| judge.predictor.as_ref()).map(|predictor| {
        let quality = predictor.quality();
        let (num_networks, num_runs) = (quality.num_networks, quality.num_runs);
        PredictorFacts { r_squared: quality.r_squared, kendall_tau: quality.kendall_tau, num_networks, num_runs }
    });
    Ok(BestOf { n, rows, predictor })
}

impl Measured<'_> {
    /// The samples of a set for a task.
    fn block(&self, samples: &Samples, set: usize, task: &Task) -> Population {
        let count = self.session.config.sample.count;
        let at = samples.sampling.tasks.iter().position(|name| name == task.name()).unwrap_or(0) * count;
        samples.sets[set].select(&(at..at + count).collect::<Vec<_>>())
    }

    /// What a judge keeps, `[set][task][kept]`: places among the samples for the task.
    fn chosen(&self, samples: &Samples, judge: &Judge) -> Result<Vec<Vec<Vec<usize>>>> {
        let of = |set: usize, task: &Task| {
            let scores = judge.scores(&self.block(samples, set, task), Known::Task(task))?;
            Ok(firsts(&scores, judge.config.n))
        };
        (0..samples.sets.len()).map(|set| self.tasks.0.iter().map(|task| of(set, task)).collect()).collect()
    }

    /// Mean test accuracy of each task, of all samples or of those that are kept.
    fn accuracies(&self, samples: &Samples, chosen: Option<&[Vec<Vec<usize>>]>) -> Result<Vec<f64>> {
        let (dataset, device) = (self.session.dataset(Stage::Evaluate)?, &self.session.device);
        let of_task = |(t, task): (usize, &Task)| {
            let mut found = Vec::new();
            for set in 0..samples.sets.len() {
                let block = self.block(samples, set, task);
                let kept = chosen.map_or_else(|| block.clone(), |chosen| block.select(&chosen[set][t]));
                let tasks = vec![task.clone(); kept.len()];
                found.extend(weft_net::accuracies(&kept, (dataset, &tasks[..]), Part::Test, device)?);
            }
            Ok(found.iter().sum::<f64>() / found.len().max(1) as f64)
        };
        self.tasks.0.iter().enumerate().map(of_task).collect()
    }

    fn row(&self, samples: &Samples, (by, n): (&str, usize), (found, all): (&[f64], &[f64]), ranking_secs: f64) -> BestOfRow {
        let gain: Vec<f64> = found.iter().zip(all).map(|(a, b)| a - b).collect();
        BestOfRow {
            generator: samples.sampling.name.clone(),
            by: by.to_owned(),
            accuracy: over_clusters(found, self.tasks.1),
            gain: over_clusters(&gain, self.tasks.1),
            secs: n as f64 * samples.sampling.sample_secs + ranking_secs,
        }
    }
}

/// The place of the greatest, the first of several; what is no number is never the greatest beside one.
fn greatest<T: PartialOrd>(values: &[T]) -> u32 {
    let is_number = |i: usize| values[i].partial_cmp(&values[i]).is_some();
    let better = |i: usize, best: usize| values[i] > values[best] || (is_number(i) && !is_number(best));
    (0..values.len()).fold(0, |best, i| if better(i, best) { i } else { best }) as u32
}

/// The first of the greatest of each n.
fn firsts(scores: &[f64], n: usize) -> Vec<usize> {
    scores.chunks(n).enumerate().map(|(group, scores)| group * n + greatest(scores) as usize).collect()
}

/// The fraction of inputs on which each of some networks says what most of them say, the first class of several.
fn agreement(group: &[Vec<u32>], classes: usize) -> Vec<f64> {
    let inputs = group.first().map_or(0, Vec::len);
    let majority = |i: usize| {
        let mut votes = vec![0_u32; classes];
        for said in group {
            votes[said[i] as usize] += 1;
        }
        greatest(&votes)
    };
    let most: Vec<u32> = (0..inputs).map(majority).collect();
    group.iter().map(|said| said.iter().zip(&most).filter(|(a, b)| a == b).count() as f64 / inputs.max(1) as f64).collect()
}

/// Fits the prediction of accuracy to training networks alone; of many tasks, those of one are never parted.
fn predictor(session: &Session, done: &Done, set: &TrainingSet) -> Result<AccuracyPredictor> {
    let zoo = Zoo::open(&canonicalize::zoo_of(done.of(Stage::Canonicalize)))?;
    let entries = zoo.records(&Filter { split: Some(Split::Train), ..Filter::default() })?;
    let known = |entry: &&Entry| entry.record().metrics.contains_key("validation-accuracy");
    let entries: Vec<Entry> = entries.iter().filter(known).cloned().collect();
    let accuracies: Vec<f64> = entries.iter().map(|entry| entry.record().metrics["validation-accuracy"]).collect();
    // Networks of one task are never parted, whether or not the generator follows tasks.
    let num_classes = session.dataset(Stage::Sample)?.num_classes();
    let has_tasks = tasks_of(entries.iter().map(Entry::record), zoo.architecture(), num_classes)?.is_some();
    let run = |entry: &Entry| {
        let task = entry.record().labels.get(Task::LABEL).filter(|_| has_tasks);
        task.unwrap_or(&entry.record().run).clone()
    };
    let runs: Vec<String> = entries.iter().map(run).collect();
    let networks = zoo.load(&entries, Purpose::Fit)?;
    Ok(AccuracyPredictor::fit(set.codec.clone(), &networks, &accuracies, &runs, session.seed.fork("predictor"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_the_best_is_taken() {
        assert_eq!(firsts(&[0.1, 0.3, 0.3, 0.9, 0.2, 0.8], 3), [1, 3]);
        assert_eq!(firsts(&[0.1, 0.3], 1), [0, 1]);
    }

    #[test]
    fn agreement_is_with_the_majority() {
        let said = [vec![0, 1, 1, 0], vec![0, 1, 0, 0], vec![1, 1, 1, 0]];
        assert_eq!(agreement(&said, 2), [1.0, 0.75, 0.75]);
    }
}
