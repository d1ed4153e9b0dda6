//! From measurements to a table's row.

use crate::figures::{Estimate, Row, RowKind, ThresholdCurve, Units};
use crate::measure::Measurements;
use crate::options::{Costs, Options};
use crate::stats;
use weft_core::Population;

/// Points of a row's scatter plot.
const MAX_POINTS: usize = 256;

/// What a row is computed from.
#[derive(Debug, Clone, Copy)]
pub struct RowInput<'a> {
    /// The generator's name.
    pub name: &'a str,
    /// What it is.
    pub kind: RowKind,
    /// Samples in raw weights, one population a generator seed, all of one size.
    pub sets: &'a [Population],
    /// What they cost.
    pub costs: Costs,
}

/// The name, kind and cost of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label<'a> {
    pub(crate) name: &'a str,
    pub(crate) kind: RowKind,
    pub(crate) costs: Costs,
}

/// The yardsticks of a row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Yardsticks<'a> {
    pub(crate) units: &'a Units,
    /// Names and values of the accuracy bars.
    pub(crate) bars: &'a [(String, f64)],
    pub(crate) options: &'a Options,
}

/// Builds the row of a generator from the measurements of its sets.
pub(crate) fn build(label: Label<'_>, sets: &[Measurements], yardsticks: Yardsticks<'_>) -> Row {
    let Yardsticks { units, options, .. } = yardsticks;
    let median = |of: fn(&Measurements) -> &Vec<f64>, unit: f64| stats::over(stats::median_estimate(&lists(sets, of)), unit);
    let mean = |of: fn(&Measurements) -> &Vec<f64>, unit: f64| stats::over(stats::mean_estimate(&lists(sets, of)), unit);
    let all = |of: fn(&Measurements) -> &Vec<f64>| sets.iter().flat_map(of).copied().collect::<Vec<f64>>();
    let (accuracies, distances) = (all(|m| &m.accuracy), all(|m| &m.distance));
    let quartile = |p| stats::quantile(&distances, p) / units.d1;
    let stride = distances.len().div_ceil(MAX_POINTS).max(1);
    let points = distances.iter().zip(&accuracies).step_by(stride).map(|(d, &a)| (d / units.d1, a)).collect();
    Row {
        name: label.name.to_owned(),
        kind: label.kind,
        num_seeds: sets.len(),
        num_samples: sets.first().map_or(0, Measurements::len),
        num_invalid: sets.iter().map(|m| m.valid.iter().filter(|&&v| !v).count()).sum(),
        accuracy: mean(|m| &m.accuracy, 1.0),
        accuracy_std: stats::std(&accuracies),
        distance: median(|m| &m.distance, units.d1),
        distance_quartiles: [quartile(0.25), quartile(0.75)],
        functional: median(|m| &m.functional, units.f1),
        distance_weighted: units.d1_weighted.map(|unit| median(|m| &m.distance_weighted, unit)),
        fellow_distance: median(|m| &m.fellow_distance, units.d1),
        pairwise: median(|m| &m.pairwise, units.pairwise * units.d1),
        pairwise_functional: median(|m| &m.pairwise_functional, units.pairwise_functional * units.f1),
        disagreement: mean(|m| &m.disagreement, units.disagreement),
        max_iou: mean(|m| &m.max_iou, 1.0),
        vote_gain: mean(|m| &m.vote_gain, 1.0),
        curves: curves(sets, yardsticks.bars, &options.thresholds, [units.d1, units.f1]),
        snapshot_curves: curves(sets, yardsticks.bars, &options.snapshot_thresholds, [units.d1_snapshots, units.f1_snapshots]),
        sample_secs: label.costs.sample_secs,
        fit_secs: label.costs.fit_secs,
        sample_run_equivalents: label.costs.sample_run_equivalents,
        fit_run_equivalents: label.costs.fit_run_equivalents,
        points,
    }
}

fn lists(sets: &[Measurements], of: fn(&Measurements) -> &Vec<f64>) -> Vec<&[f64]> {
    sets.iter().map(|m| of(m).as_slice()).collect()
}

fn curves(sets: &[Measurements], bars: &[(String, f64)], thresholds: &[f64], [d, f]: [f64; 2]) -> Vec<ThresholdCurve> {
    let fraction = |counts: &dyn Fn(&Measurements, usize) -> bool| -> Estimate {
        let hits: Vec<usize> = sets.iter().map(|m| (0..m.len()).filter(|&i| counts(m, i)).count()).collect();
        stats::fraction_estimate(&hits, sets.first().map_or(0, Measurements::len))
    };
    let curve = |(bar, accuracy): &(String, f64)| {
        let performant = |m: &Measurements, i: usize| m.valid[i] && m.accuracy[i] >= *accuracy;
        let novel = |m: &Measurements, i: usize, t: f64| performant(m, i) && m.distance[i] >= t * d;
        let distinct = |m: &Measurements, i: usize, t: f64| m.fellow_distance[i] >= t * d && m.fellow_functional[i] >= t * f;
        let npd = |m: &Measurements, i: usize, t: f64| novel(m, i, t) && m.functional[i] >= t * f && distinct(m, i, t);
        ThresholdCurve {
            bar: bar.clone(),
            accuracy: *accuracy,
            npd: thresholds.iter().map(|&t| fraction(&|m, i| npd(m, i, t))).collect(),
            np: thresholds.iter().map(|&t| fraction(&|m, i| novel(m, i, t))).collect(),
        }
    };
    bars.iter().map(curve).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurements(samples: &[[f64; 5]]) -> Measurements {
        let column = |c: usize| samples.iter().map(|s| s[c]).collect::<Vec<f64>>();
        Measurements {
            accuracy: column(0),
            distance: column(1),
            functional: column(2),
            fellow_distance: column(3),
            fellow_functional: column(4),
            valid: vec![true; samples.len()],
            ..Measurements::default()
        }
    }

    fn units() -> Units {
        Units {
            d1: 2.0,
            f1: 0.5,
            d1_weighted: Some(1.0),
            d1_snapshots: 1.0,
            f1_snapshots: 0.25,
            pairwise: 1.0,
            pairwise_functional: 1.0,
            disagreement: 0.1,
            ..Units::default()
        }
    }

    fn row(sets: &[Measurements]) -> Row {
        let bars = [("median".to_owned(), 0.9)];
        let options = Options { thresholds: vec![0.5, 1.0], snapshot_thresholds: vec![1.0, 2.0], ..Options::default() };
        let label = Label { name: "x", kind: RowKind::Generator, costs: Costs::default() };
        build(label, sets, Yardsticks { units: &units(), bars: &bars, options: &options })
    }

    #[test]
    fn each_condition_of_npd_counts() {
        let set = measurements(&[
            [0.9, 2.0, 0.5, 2.0, 0.5],  // counts at 1
            [0.8, 2.0, 0.5, 2.0, 0.5],  // not performant
            [0.9, 1.0, 0.5, 2.0, 0.5],  // weights novel at ½ only
            [0.9, 2.0, 0.2, 2.0, 0.5],  // function not novel at ½
            [0.9, 2.0, 0.5, 0.9, 0.5],  // fellow near in weights
            [0.9, 2.0, 0.5, 2.0, 0.24], // fellow near in function
        ]);
        let row = row(&[set]);
        let means = |e: &[Estimate]| e.iter().map(|e| (e.mean * 6.0).round() as usize).collect::<Vec<_>>();
        assert_eq!(means(&row.curves[0].npd), [2, 1]);
        assert_eq!(means(&row.curves[0].np), [5, 4]);
        // The audit's units are half as large here, its thresholds twice.
        assert_eq!(means(&row.snapshot_curves[0].np), [5, 4]);
        assert!((row.distance.mean - 1.0).abs() < 1e-12);
        assert_eq!(row.points.len(), 6);
    }

    #[test]
    fn invalid_samples_never_count() {
        let mut set = measurements(&[[0.9, 2.0, 0.5, 2.0, 0.5]; 4]);
        set.valid[2] = false;
        let row = row(&[set.clone(), set]);
        assert_eq!((row.num_invalid, row.num_seeds, row.num_samples), (2, 2, 4));
        assert!((row.curves[0].npd[1].mean - 0.75).abs() < 1e-12);
        assert!((row.curves[0].np[1].mean - 0.75).abs() < 1e-12);
    }
}
