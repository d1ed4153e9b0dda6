//! Generators that are told a task: how well samples do tasks that were never trained for, and whether what a generator is told matters.
//!
//! Accuracies are those on a task's own labels, `[seed][task][sample]`. A task and its complement are one function with the outputs
//! exchanged, so that tasks come in *clusters*: a figure is the mean over clusters of the mean over a cluster's tasks, and its standard error
//! that over clusters (or seeds, where these differ more). What is compared is compared task by task: the error is that of the difference.

use crate::figures::Estimate;
use crate::stats::{mean, std};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TaskRowKind {
    /// Networks that were trained for the tasks: the yardstick.
    Runs,
    /// A generator that is told the task.
    Ours,
    /// The same generator told something else, or nothing.
    Control,
    /// What can be had without a generator.
    #[default]
    Baseline,
}

/// The networks of one row, measured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TaskMeasurements {
    /// The row's name.
    pub name: String,
    /// What it stands for.
    pub kind: TaskRowKind,
    /// For a control, the generator that it is of.
    pub of: Option<String>,
    /// Test accuracy, `[seed][task][sample]`; a seed may have any number of samples, but at least one a task.
    pub accuracy: Vec<Vec<Vec<f64>>>,
    /// The mean fraction of test examples to which two samples of a task give different classes, `[task]`, where there are two.
    pub disagreement: Option<Vec<f64>>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskRow {
    /// Its name.
    pub name: String,
    /// What it stands for.
    pub kind: TaskRowKind,
    /// For a control, the generator that it is of.
    pub of: Option<String>,
    /// Mean test accuracy over clusters of tasks.
    pub accuracy: Estimate,
    /// Mean test accuracy of each task.
    pub by_task: Vec<f64>,
    /// How much two samples of a task disagree, over how much two networks trained for it do; none if these do not.
    pub disagreement: Option<Estimate>,
    /// Generator seeds.
    pub num_seeds: usize,
    /// Samples a task and seed.
    pub num_samples: usize,
}

/// A generator beside a row, task by task.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Comparison {
    /// The generator.
    pub ours: String,
    /// The other row.
    pub with: String,
    /// How much more of the test examples the generator's samples get right.
    pub difference: Estimate,
    /// Whether that is more than two standard errors above zero.
    pub better: bool,
}

/// What is said of one generator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConditionVerdict {
    /// The generator.
    pub generator: String,
    /// Whether it beats itself told something else, and told nothing, each by two standard errors; else, and without such controls, it
    /// *ignores its condition*.
    pub uses_condition: bool,
    /// The rows without a generator that it does not beat by two standard errors.
    pub not_beaten: Vec<String>,
    /// Accuracy less that of networks trained for the tasks.
    pub gap: Estimate,
    /// Whether two samples of a task differ less than half as much as two networks trained for it: then it is a *regression*, that is one
    /// answer a task. None where it was not measured.
    pub is_regression: Option<bool>,
}

/// A whole conditional evaluation.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskEvaluation {
    /// The tasks that were held out, by name.
    pub tasks: Vec<String>,
    /// The number of independent ones among them.
    pub num_clusters: usize,
    /// The rows, the yardstick first.
    pub rows: Vec<TaskRow>,
    /// Each generator beside each other row.
    pub comparisons: Vec<Comparison>,
    /// What is said of each generator.
    pub verdicts: Vec<ConditionVerdict>,
}

/// Standard errors that a difference has to exceed.
const ERRORS: f64 = 2.0;
/// The share of the yardstick's disagreement below which samples count as one answer.
const ONE_ANSWER: f64 = 0.5;

/// Draws the table and the verdicts.
///
/// `clusters` names the cluster of each task.
///
/// # Errors
/// [`Error::Length`] or [`Error::TooFew`] if a row does not have a sample of every task, there are fewer than two clusters, or the first row is
/// not of the yardstick's kind.
pub fn evaluate_tasks(tasks: &[String], clusters: &[String], measured: &[TaskMeasurements]) -> Result<TaskEvaluation> {
    if clusters.len() != tasks.len() {
        return Err(Error::Length { what: "clusters", expected: tasks.len(), got: clusters.len() });
    }
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    clusters.iter().enumerate().for_each(|(task, cluster)| members.entry(cluster).or_default().push(task));
    let clusters: Vec<Vec<usize>> = members.into_values().collect();
    if clusters.len() < 2 {
        return Err(Error::TooFew { what: "held-out tasks that are not each other's complements", got: clusters.len(), least: 2 });
    }
    let tables = measured.iter().map(|row| Table::new(row, tasks.len())).collect::<Result<Vec<_>>>()?;
    let Some(yardstick) = measured.first().filter(|row| row.kind == TaskRowKind::Runs) else {
        return Err(Error::TooFew { what: "rows of networks trained for the tasks", got: 0, least: 1 });
    };
    let disagreement_of_runs = yardstick.disagreement.as_deref().map(|values| mean(&by_cluster(values, &clusters)));
    let row = |(measured, table): (&TaskMeasurements, &Table)| TaskRow {
        name: measured.name.clone(),
        kind: measured.kind,
        of: measured.of.clone(),
        accuracy: table.estimate(&clusters),
        by_task: table.by_task(),
        disagreement: measured.disagreement.as_ref().zip(disagreement_of_runs.filter(|unit| *unit > 0.0)).map(|(values, unit)| {
            let values = by_cluster(values, &clusters);
            Estimate { mean: mean(&values) / unit, se: error(&values) / unit }
        }),
        num_seeds: measured.accuracy.len(),
        num_samples: measured.accuracy.iter().flatten().map(Vec::len).min().unwrap_or(0),
    };
    let rows: Vec<TaskRow> = measured.iter().zip(&tables).map(row).collect();
    let (mut comparisons, mut verdicts) = (Vec::new(), Vec::new());
    let of_ours = measured.iter().zip(&tables).zip(&rows).filter(|((row, _), _)| row.kind == TaskRowKind::Ours);
    for ((ours, table), row) in of_ours {
        let mut verdict = ConditionVerdict { generator: ours.name.clone(), uses_condition: true, ..ConditionVerdict::default() };
        let mut controls = 0;
        for (other, of_other) in measured.iter().zip(&tables).filter(|(row, _)| row.name != ours.name) {
            let is_own_control = other.kind == TaskRowKind::Control && other.of.as_ref() == Some(&ours.name);
            if matches!(other.kind, TaskRowKind::Ours) || (other.kind == TaskRowKind::Control && !is_own_control) {
                continue;
            }
            let difference = table.less(of_other).estimate(&clusters);
            let better = difference.mean > ERRORS * difference.se;
            match other.kind {
                TaskRowKind::Runs => verdict.gap = difference,
                TaskRowKind::Control => {
                    controls += 1;
                    verdict.uses_condition &= better;
                }
                _ if !better => verdict.not_beaten.push(other.name.clone()),
                _ => {}
            }
            comparisons.push(Comparison { ours: ours.name.clone(), with: other.name.clone(), difference, better });
        }
        verdict.uses_condition &= controls > 0;
        verdict.is_regression = row.disagreement.map(|d| d.mean < ONE_ANSWER);
        verdicts.push(verdict);
    }
    let tasks = tasks.to_vec();
    Ok(TaskEvaluation { tasks, num_clusters: clusters.len(), rows, comparisons, verdicts })
}

/// Mean accuracies, `[seed][task]`.
struct Table(Vec<Vec<f64>>);

impl Table {
    fn new(row: &TaskMeasurements, num_tasks: usize) -> Result<Self> {
        let wrong = row.accuracy.iter().find(|tasks| tasks.len() != num_tasks);
        if let Some(tasks) = wrong {
            return Err(Error::Length { what: "accuracy of each task", expected: num_tasks, got: tasks.len() });
        }
        if let Some(values) = row.disagreement.as_ref().filter(|values| values.len() != num_tasks) {
            return Err(Error::Length { what: "disagreement of each task", expected: num_tasks, got: values.len() });
        }
        let fewest = row.accuracy.iter().flatten().map(Vec::len).min().unwrap_or(0);
        if fewest == 0 {
            return Err(Error::TooFew { what: "samples of a task", got: fewest, least: 1 });
        }
        Ok(Self(row.accuracy.iter().map(|tasks| tasks.iter().map(|samples| mean(samples)).collect()).collect()))
    }

    fn by_task(&self) -> Vec<f64> {
        let of = |task: usize| mean(&self.0.iter().map(|seed| seed[task]).collect::<Vec<_>>());
        (0..self.0[0].len()).map(of).collect()
    }

    /// The differences seed by seed, or to the mean of a row with another number of seeds.
    fn less(&self, other: &Self) -> Self {
        let all = other.by_task();
        let seeds = self.0.iter().enumerate().map(|(i, seed)| {
            let other = if other.0.len() == self.0.len() { &other.0[i] } else { &all };
            seed.iter().zip(other).map(|(a, b)| a - b).collect()
        });
        Self(seeds.collect())
    }

    fn estimate(&self, clusters: &[Vec<usize>]) -> Estimate {
        let of_cluster = by_cluster(&self.by_task(), clusters);
        let of_seed: Vec<f64> = self.0.iter().map(|seed| mean(&by_cluster(seed, clusters))).collect();
        Estimate { mean: mean(&of_cluster), se: error(&of_cluster).max(error(&of_seed)) }
    }
}

/// The mean over clusters of the mean over a cluster's tasks, with its standard error over clusters.
///
/// # Panics
/// If there are not as many clusters as values; equal names are one cluster.
#[must_use]
pub fn over_clusters(values: &[f64], clusters: &[String]) -> Estimate {
    assert_eq!(values.len(), clusters.len(), "a cluster for each task");
    let mut members: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    clusters.iter().enumerate().for_each(|(task, cluster)| members.entry(cluster).or_default().push(task));
    let means = by_cluster(values, &members.into_values().collect::<Vec<_>>());
    Estimate { mean: mean(&means), se: error(&means) }
}

/// The mean of each cluster's tasks.
fn by_cluster(values: &[f64], clusters: &[Vec<usize>]) -> Vec<f64> {
    clusters.iter().map(|tasks| mean(&tasks.iter().map(|&task| values[task]).collect::<Vec<_>>())).collect()
}

/// The standard error of a mean.
fn error(values: &[f64]) -> f64 {
    std(values) / (values.len() as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, kind: TaskRowKind, of: Option<&str>, accuracy: [f64; 4], disagreement: Option<f64>) -> TaskMeasurements {
        TaskMeasurements {
            name: name.to_owned(),
            kind,
            of: of.map(str::to_owned),
            accuracy: vec![accuracy.map(|a| vec![a - 0.01, a + 0.01]).to_vec(); 3],
            disagreement: disagreement.map(|d| vec![d; 4]),
        }
    }

    fn evaluate(shuffled: [f64; 4]) -> TaskEvaluation {
        let names = ["0", "1+2", "1", "0+2"].map(str::to_owned);
        let clusters = ["0", "0", "1", "1"].map(str::to_owned);
        let rows = [
            row("trained", TaskRowKind::Runs, None, [0.97, 0.97, 0.99, 0.99], Some(0.02)),
            row("flow", TaskRowKind::Ours, None, [0.96, 0.96, 0.98, 0.98], Some(0.03)),
            row("flow, shuffled", TaskRowKind::Control, Some("flow"), shuffled, None),
            row("other, shuffled", TaskRowKind::Control, Some("other"), [1.0; 4], None),
            row("hyper", TaskRowKind::Ours, None, [0.5; 4], Some(0.0)),
            row("majority", TaskRowKind::Baseline, None, [0.6, 0.6, 0.7, 0.7], None),
        ];
        evaluate_tasks(&names, &clusters, &rows).unwrap()
    }

    #[test]
    fn a_generator_has_to_beat_itself_told_something_else() {
        let found = evaluate([0.5, 0.5, 0.6, 0.6]);
        let [flow, hyper] = &found.verdicts[..] else { panic!("two generators") };
        assert!(flow.uses_condition && flow.not_beaten.is_empty() && flow.is_regression == Some(false));
        // Every task is a point worse: that is certain.
        assert!((flow.gap.mean + 0.01).abs() < 1e-12 && flow.gap.se < 1e-12);
        assert_eq!((hyper.uses_condition, hyper.not_beaten.as_slice()), (false, &["majority".to_owned()][..]));
        assert_eq!(hyper.is_regression, Some(true));
        // Over two clusters of means .96 and .98.
        assert!((found.rows[1].accuracy.mean - 0.97).abs() < 1e-12 && (found.rows[1].accuracy.se - 0.01).abs() < 1e-12);
        assert!((found.rows[1].disagreement.unwrap().mean - 1.5).abs() < 1e-12);
        assert_eq!(found.comparisons.iter().filter(|c| c.ours == "flow").count(), 3);
        assert!(!evaluate([0.97, 0.97, 0.96, 0.96]).verdicts[0].uses_condition, "better by luck alone");
    }

    #[test]
    fn a_cluster_counts_once_whatever_its_size() {
        let names = ["0", "1+2", "1"].map(str::to_owned);
        let clusters = ["0", "0", "1"].map(str::to_owned);
        let accuracy = vec![[0.4, 0.6, 0.9].map(|a| vec![a]).to_vec()];
        let row = TaskMeasurements { kind: TaskRowKind::Runs, accuracy, ..TaskMeasurements::default() };
        let found = evaluate_tasks(&names, &clusters, &[row]).unwrap().rows[0].accuracy;
        // Of .5 and .9, whose standard deviation is .4/√2.
        assert!((found.mean - 0.7).abs() < 1e-12 && (found.se - 0.2).abs() < 1e-12, "{found:?}");
        assert_eq!(over_clusters(&[0.4, 0.6, 0.9], &clusters), found);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let names = ["0", "1"].map(str::to_owned);
        let of_runs = || TaskMeasurements { kind: TaskRowKind::Runs, ..TaskMeasurements::default() };
        let rows = [TaskMeasurements { accuracy: vec![vec![vec![0.5]; 2]], ..of_runs() }];
        assert!(evaluate_tasks(&names, &names, &rows).is_ok());
        let no_runs = [TaskMeasurements { kind: TaskRowKind::Ours, ..rows[0].clone() }];
        assert!(matches!(evaluate_tasks(&names, &names, &no_runs), Err(Error::TooFew { got: 0, .. })));
        let other = [TaskMeasurements { disagreement: Some(vec![0.1; 3]), ..rows[0].clone() }];
        assert!(matches!(evaluate_tasks(&names, &names, &other), Err(Error::Length { got: 3, .. })));
        let one = [names[0].clone(), names[0].clone()];
        assert!(matches!(evaluate_tasks(&names, &one, &rows), Err(Error::TooFew { got: 1, .. })));
        let short = [TaskMeasurements { accuracy: vec![vec![vec![0.5]]], ..of_runs() }];
        assert!(matches!(evaluate_tasks(&names, &names, &short), Err(Error::Length { got: 1, .. })));
        let empty = [TaskMeasurements { accuracy: vec![vec![vec![0.5], vec![]]], ..of_runs() }];
        assert!(matches!(evaluate_tasks(&names, &names, &empty), Err(Error::TooFew { got: 0, .. })));
    }
}
