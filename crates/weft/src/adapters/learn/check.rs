//! How well updates are foretold of adapters that are left out, beside what needs no generator.
//!
//! Adapters are divided into folds; of those with the same description, all are in one. What is made of the description of an adapter by those of the
//! other folds is compared with the adapter itself: an error of `0` is the adapter, one of `E‖ΔW − M‖²` what the mean of the others is. All of it
//! comes from inner products, so it costs no pass over the factors, and nothing of what an adapter is good for is needed.

use super::super::generate::{baselines, shown};
use super::codes::{CodeConfig, CodeModels, Told};
use crate::{Error, Monitor, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weft_codec::adapter::{Combinations, Grams, Per};
use weft_core::Seed;
use weft_eval::Estimate;
use weft_eval::conditional::{TaskEvaluation, TaskMeasurements, TaskRowKind, evaluate_tasks};
use weft_net::Device;

/// Samples of the flow for each description.
const SETS: usize = 3;
/// Rows of the table.
const OWN: &str = "own adapter";
pub(in super::super) const MEAN: &str = "mean of updates";
pub(in super::super) const RIDGE: &str = "ridge on updates";
pub(in super::super) const FLOW: &str = "flow on codes";

/// What is foretold of adapters that are left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckView {
    /// The number of folds.
    pub folds: usize,
    /// Rows and paired comparisons. What stands under `accuracy` is the part of the variance about the mean that is foretold, `1 − ‖ΔŴ − ΔW‖²/E‖ΔW − M‖²`: at most 1,
    /// below 0 where the mean is nearer. A cluster is a description.
    pub evaluation: TaskEvaluation,
    /// How far what is made is from the nearest adapter that it was made of, in the order of the rows: the median, in units of the median distance of an adapter from the nearest other.
    pub distances: Vec<f64>,
    /// What no combination of the other adapters reaches, as a part of the variance about the mean.
    pub beyond: Estimate,
}

impl CheckView {
    /// A row's part of the variance.
    #[must_use]
    pub fn row(&self, name: &str) -> Option<Estimate> {
        self.evaluation.rows.iter().find(|row| row.name == name).map(|row| row.accuracy)
    }
}

/// The adapters with what is told of them.
pub(super) struct Subjects<'a> {
    pub(super) names: Vec<String>,
    pub(super) grams: &'a Grams,
    pub(super) told: &'a Told,
}

/// Checks on folds; nothing if there are fewer than three descriptions.
pub(super) fn check(
    subjects: &Subjects,
    config: &CodeConfig,
    (folds, seed, device): (usize, Seed, &Device),
    monitor: &Monitor,
) -> Result<Option<CheckView>> {
    let (groups, n) = (&subjects.told.groups, subjects.names.len());
    let mut distinct = groups.clone();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < 3 || folds < 2 {
        return Ok(None);
    }
    let shuffled = seed.fork("folds").permutation(distinct.len());
    // Two descriptions are left out together at least, so that one can be told in place of the other. Of three each is left out by itself, since two must
    // be learnt from, and there is no control.
    let pairs = distinct.len() / 2;
    let folds = if pairs < 2 { distinct.len() } else { folds.min(pairs) };
    let fold_of = |i: usize| distinct.binary_search(&groups[i]).map_or(0, |at| shuffled[at] as usize % folds);
    let mut table = Table::new(subjects, config.per);
    for fold in 0..folds {
        monitor.note(format!("check on left-out adapters: fold {} of {folds}", fold + 1));
        let (out, within): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| fold_of(i) == fold);
        let own = subjects.grams.select(&within);
        let models =
            CodeModels::fit(&own, &subjects.told.select(&within), config, (seed.fork("fold").index(fold as u64), device), monitor)?;
        table.fold(
            monitor,
            &Fold { models: &models, own: &own, within: &within, out: &out, seed: seed.fork("samples").index(fold as u64) },
        )?;
    }
    table.rows.retain(|row| pairs >= 2 || row.kind != TaskRowKind::Control);
    Ok(Some(table.view(folds)?))
}

/// What was learnt without a fold.
struct Fold<'a> {
    models: &'a CodeModels,
    own: &'a Grams,
    /// Adapters that it was learnt from, and those that are left out.
    within: &'a [usize],
    out: &'a [usize],
    seed: Seed,
}

/// Errors by row, set and adapter.
struct Table<'a> {
    subjects: &'a Subjects<'a>,
    /// Products of whole adapters, or of each module, `[n, n]`.
    parts: Vec<Vec<f64>>,
    means: Vec<Vec<f32>>,
    rows: Vec<Row>,
    beyond: Vec<f64>,
}

struct Row {
    name: &'static str,
    kind: TaskRowKind,
    of: Option<&'static str>,
    /// `[set][adapter]`: squared errors, and distances from the nearest adapter that it was made of.
    errors: Vec<Vec<f64>>,
    distances: Vec<Vec<f64>>,
}

/// Weights of adapters in each part.
type Weights = Vec<Vec<f64>>;

impl<'a> Table<'a> {
    fn new(subjects: &'a Subjects<'a>, per: Per) -> Self {
        let n = subjects.names.len();
        let parts = match per {
            Per::Adapter => vec![subjects.grams.total()],
            Per::Module => (0..subjects.grams.modules().len()).map(|at| subjects.grams.module(at).to_vec()).collect(),
        };
        let row =
            |name, kind, of, sets| Row { name, kind, of, errors: vec![vec![0.0; n]; sets], distances: vec![vec![0.0; n]; sets] };
        let (baseline, ours, control) = (TaskRowKind::Baseline, TaskRowKind::Ours, TaskRowKind::Control);
        let rows = vec![
            row(MEAN, baseline, None, 1),
            row("nearest by description", baseline, None, 1),
            row("mean of the two nearest", baseline, None, 1),
            row(RIDGE, ours, None, 1),
            row("ridge on updates, told another's", control, Some(RIDGE), 1),
            row(FLOW, ours, None, SETS),
            row("flow on codes, told another's", control, Some(FLOW), SETS),
        ];
        Self { subjects, parts, means: subjects.told.means(), rows, beyond: vec![0.0; n] }
    }

    /// An adapter of another description that is left out as well, whose description is told instead: as strange as the adapter's own to what was learnt. Itself
    /// where there is none.
    fn other(&self, at: usize, out: &[usize]) -> usize {
        let (groups, n) = (&self.subjects.told.groups, out.len());
        let mut others = (0..n).map(|step| out[(at + n / 2 + step) % n]);
        others.find(|&other| groups[other] != groups[out[at]]).unwrap_or(out[at])
    }

    fn fold(&mut self, monitor: &Monitor, fold: &Fold) -> Result<()> {
        let (models, within) = (fold.models, fold.within);
        let nearby: Vec<Vec<f32>> = within.iter().map(|&i| self.means[i].clone()).collect();
        let total = self.subjects.grams.total();
        let (n, m) = (self.subjects.names.len(), within.len());
        let alike = |weights: Vec<f64>| -> Weights { vec![weights; self.parts.len()] };
        let only = |chosen: &[usize]| {
            let mut weights = vec![0.0; m];
            for &at in chosen {
                weights[at] = 1.0 / chosen.len() as f64;
            }
            alike(weights)
        };
        // What is told is one description, as a prompt is.
        let told = |i: usize| self.subjects.told.vectors[i][0].clone();
        let others: Vec<usize> = (0..fold.out.len()).map(|at| self.other(at, fold.out)).collect();
        // Row (in the order of `Table::new`), set, adapter, weights.
        let mut made: Vec<(usize, usize, usize, Weights)> = Vec::new();
        for (&i, &other) in fold.out.iter().zip(&others) {
            let order = baselines::nearest(&nearby, &told(i));
            made.push((0, 0, i, alike(vec![1.0 / m as f64; m])));
            made.push((1, 0, i, only(&order[..1])));
            made.push((2, 0, i, only(&order[..2])));
            made.push((3, 0, i, alike(models.ridge.weights(&told(i)))));
            made.push((4, 0, i, alike(models.ridge.weights(&told(other)))));
        }
        for set in 0..SETS {
            let Some(flow) = &models.flow else { break };
            let seed = fold.seed.index(set as u64);
            for (row, of) in [(5, fold.out), (6, &others[..])] {
                let conditions: Vec<_> = of.iter().map(|&i| shown::shown(told(i))).collect();
                let codes = flow.sample_codes_each(&conditions, seed)?;
                if codes.iter().any(|z| !z.is_finite()) {
                    let expected = "finite; more adapters, or fewer `--components` or `--steps`, may help".to_owned();
                    return Err(Error::Range { what: "the flow's codes", expected, got: "some that are not".to_owned() });
                }
                let codes = codes.chunks_exact(models.pca.code_len());
                for (&i, code) in fold.out.iter().zip(codes) {
                    made.push((row, set, i, (0..self.parts.len()).map(|part| models.pca.weights(code, part)).collect()));
                }
            }
        }
        for (row, set, i, weights) in made {
            if monitor.should_stop() {
                return Err(Error::Interrupted { stage: "adapter learn" });
            }
            let (error, nearest) = self.error((i, within), &weights);
            self.rows[row].errors[set][i] = error;
            self.rows[row].distances[set][i] = nearest;
        }
        let reached = Combinations::of(fold.own)?;
        for &i in fold.out {
            let products: Vec<f64> = within.iter().map(|&j| total[i * n + j]).collect();
            self.beyond[i] = reached.beyond(&products, total[i * n + i])?;
        }
        Ok(())
    }

    /// `‖Σⱼ cⱼ·ΔWⱼ − ΔWᵢ‖²`, and the distance from the nearest `ΔWⱼ`.
    fn error(&self, (i, within): (usize, &[usize]), weights: &Weights) -> (f64, f64) {
        let n = self.subjects.names.len();
        let (mut error, mut to_each) = (0.0, vec![0.0; within.len()]);
        for (gram, c) in self.parts.iter().zip(weights) {
            let row = |j: usize| within.iter().zip(c).map(|(&k, c)| c * gram[j * n + k]).sum::<f64>();
            let with_each: Vec<f64> = within.iter().map(|&j| row(j)).collect();
            let energy: f64 = with_each.iter().zip(c).map(|(x, c)| x * c).sum();
            error += energy - 2.0 * row(i) + gram[i * n + i];
            let of_each = to_each.iter_mut().zip(within).zip(&with_each);
            of_each.for_each(|((to, &j), x)| *to += energy - 2.0 * x + gram[j * n + j]);
        }
        (error.max(0.0), to_each.into_iter().fold(f64::INFINITY, f64::min).max(0.0).sqrt())
    }

    /// The mean over descriptions of the means over the adapters of each.
    fn by_description(&self, values: &[f64]) -> f64 {
        let mut sums: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
        for (&group, value) in self.subjects.told.groups.iter().zip(values) {
            let (sum, count) = sums.entry(group).or_default();
            (*sum, *count) = (*sum + value, *count + 1.0);
        }
        sums.values().map(|(sum, count)| sum / count).sum::<f64>() / sums.len().max(1) as f64
    }

    fn view(self, folds: usize) -> Result<CheckView> {
        let n = self.subjects.names.len();
        let variance = self.by_description(&self.rows[0].errors[0]);
        let foretold = |errors: &Vec<f64>| errors.iter().map(|error| vec![1.0 - error / variance.max(f64::MIN_POSITIVE)]).collect();
        let own = TaskMeasurements {
            name: OWN.to_owned(),
            kind: TaskRowKind::Runs,
            of: None,
            accuracy: vec![vec![vec![1.0]; n]],
            disagreement: None,
        };
        let measured = self.rows.iter().map(|row| TaskMeasurements {
            name: row.name.to_owned(),
            kind: row.kind,
            of: row.of.map(str::to_owned),
            accuracy: row.errors.iter().map(foretold).collect(),
            disagreement: None,
        });
        let measured: Vec<TaskMeasurements> = std::iter::once(own).chain(measured).collect();
        let clusters: Vec<String> = self.subjects.told.groups.iter().map(ToString::to_string).collect();
        let evaluation = evaluate_tasks(&self.subjects.names, &clusters, &measured)?;
        let between = self.subjects.grams.distances();
        let nearest_other = |i: usize| {
            let others = (0..n).filter(|&j| clusters[j] != clusters[i]);
            others.map(|j| between[i * n + j]).fold(f64::INFINITY, f64::min)
        };
        let unit = median((0..n).map(nearest_other).collect()).max(f64::MIN_POSITIVE);
        let of_rows = self.rows.iter().map(|row| median(row.distances.concat()) / unit);
        let distances = std::iter::once(1.0).chain(of_rows).collect();
        let beyond: Vec<f64> = self.beyond.iter().map(|x| x / variance.max(f64::MIN_POSITIVE)).collect();
        Ok(CheckView { folds, evaluation, distances, beyond: crate::stages::estimate(&beyond) })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
