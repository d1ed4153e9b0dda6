//! The verdict per threshold and bar, and fresh-run parity.

use crate::figures::{Estimate, Evaluation, Finding, Parity, Row, RowKind, Units, Verdict};
use crate::options::Options;
use crate::stats::difference_se;

/// Standard errors of a difference that make it a finding.
const ERRORS: f64 = 2.0;
/// A fraction of samples below this is near zero, whatever its error.
const NEAR_ZERO: f64 = 0.01;
/// Of the held-out runs' novelty and the zoo's diversity.
const PARITY: f64 = 0.9;
/// Of a training run's cost.
const PARITY_COST: f64 = 0.2;

/// Assembles an evaluation of rows whose first is that of held-out runs.
pub(crate) fn evaluate(rows: Vec<Row>, units: &Units, options: &Options) -> Evaluation {
    let parity = rows.iter().filter(|r| is_ours(r)).flat_map(|r| parity(r, units)).collect();
    let verdicts = verdicts(&rows, &options.thresholds);
    Evaluation {
        thresholds: options.thresholds.clone(),
        snapshot_thresholds: options.snapshot_thresholds.clone(),
        units: units.clone(),
        rows,
        verdicts,
        parity,
    }
}

fn is_ours(row: &Row) -> bool {
    matches!(row.kind, RowKind::Generator | RowKind::Refined)
}

fn is_baseline(row: &Row) -> bool {
    matches!(row.kind, RowKind::Baseline | RowKind::NullCopy)
}

/// One verdict a bar and threshold; none without a generator of ours or without a baseline to beat.
fn verdicts(rows: &[Row], thresholds: &[f64]) -> Vec<Verdict> {
    let Some(held_out) = rows.first() else {
        return vec![];
    };
    let cells = (0..held_out.curves.len()).flat_map(|bar| (0..thresholds.len()).map(move |t| (bar, t)));
    cells.filter_map(|(bar, t)| verdict(rows, held_out, bar, (t, thresholds[t]))).collect()
}

fn verdict(rows: &[Row], held_out: &Row, bar: usize, (t, threshold): (usize, f64)) -> Option<Verdict> {
    let npd = |row: &Row| row.curves[bar].npd[t];
    // On a tie the first row is named.
    let best =
        |chosen: fn(&Row) -> bool| rows.iter().filter(|r| chosen(r)).reduce(|a, b| if npd(b).mean > npd(a).mean { b } else { a });
    let (ours, baseline) = (best(is_ours)?, best(is_baseline)?);
    let all: Vec<Estimate> = rows.iter().filter(|r| is_baseline(r)).map(npd).collect();
    Some(Verdict {
        threshold,
        bar: held_out.curves[bar].bar.clone(),
        finding: finding(npd(ours), &all),
        ours: ours.name.clone(),
        ours_npd: npd(ours),
        baseline: baseline.name.clone(),
        baseline_npd: npd(baseline),
        held_out_npd: npd(held_out),
    })
}

fn finding(ours: Estimate, baselines: &[Estimate]) -> Finding {
    let near_zero = ours.mean < NEAR_ZERO || ours.mean <= ERRORS * ours.se;
    let by = |b: &Estimate| (ours.mean - b.mean, ERRORS * difference_se(ours, *b));
    if near_zero {
        Finding::Replay
    } else if baselines.iter().map(by).all(|(ahead, error)| ahead > error) {
        Finding::Novel
    } else if baselines.iter().map(by).all(|(ahead, error)| ahead >= -error) {
        Finding::Matched
    } else {
        Finding::Replay
    }
}

/// The counts of fresh-run parity: no worse than a run in accuracy, novelty and diversity, at a fifth of its cost.
fn parity(row: &Row, units: &Units) -> Vec<Parity> {
    let count = |count: &str, value: f64, target: f64, met: bool| Parity {
        generator: row.name.clone(),
        count: count.to_owned(),
        value,
        target,
        met,
    };
    let least = |name, value: f64, target: f64| count(name, value, target, value >= target);
    let mut counts = vec![
        least("mean accuracy", row.accuracy.mean, units.bar_median),
        least("median distance / d1", row.distance.mean, PARITY),
        least("median functional distance / f1", row.functional.mean, PARITY),
        least("pairwise distance / zoo", row.pairwise.mean, PARITY),
        least("pairwise functional distance / zoo", row.pairwise_functional.mean, PARITY),
        least("disagreement / zoo", row.disagreement.mean, PARITY),
    ];
    if let Some(cost) = row.sample_run_equivalents {
        counts.push(count("cost of a sample / run", cost, PARITY_COST, cost <= PARITY_COST));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::ThresholdCurve;

    fn row(name: &str, kind: RowKind, mean: f64, se: f64) -> Row {
        let npd = vec![Estimate { mean, se }];
        let curve = ThresholdCurve { bar: "median".into(), accuracy: 0.9, npd: npd.clone(), np: npd };
        Row { name: name.into(), kind, curves: vec![curve], ..Row::default() }
    }

    fn options() -> Options {
        Options { thresholds: vec![0.5], ..Options::default() }
    }

    #[test]
    fn findings() {
        let check = |ours: (f64, f64), baselines: &[(f64, f64)], expected: Finding| {
            let estimate = |&(mean, se): &(f64, f64)| Estimate { mean, se };
            let all: Vec<Estimate> = baselines.iter().map(estimate).collect();
            assert_eq!(finding(estimate(&ours), &all), expected, "{ours:?} against {baselines:?}");
        };
        check((0.50, 0.03), &[(0.39, 0.04), (0.0, 0.0)], Finding::Novel); // ahead by 0.11, two errors are 0.10
        check((0.50, 0.03), &[(0.41, 0.04)], Finding::Matched);
        check((0.50, 0.03), &[(0.60, 0.04)], Finding::Matched); // behind by exactly two errors
        check((0.50, 0.03), &[(0.61, 0.04)], Finding::Replay);
        check((0.50, 0.03), &[(0.30, 0.04), (0.29, 0.2)], Finding::Matched); // the second is not surely beaten
        check((0.009, 0.001), &[(0.0, 0.0)], Finding::Replay); // near zero
        check((0.02, 0.01), &[(0.0, 0.0)], Finding::Replay); // not surely above zero
    }

    #[test]
    fn verdict_names_the_best() {
        let rows = vec![
            row("held-out runs", RowKind::Runs, 0.5, 0.05),
            row("training runs", RowKind::Runs, 0.9, 0.05),
            row("null", RowKind::NullCopy, 0.0, 0.001),
            row("soup", RowKind::Baseline, 0.1, 0.01),
            row("flow", RowKind::Generator, 0.2, 0.01),
            row("soup + refiner", RowKind::Refined, 0.4, 0.01),
        ];
        let found = evaluate(rows, &Units::default(), &options());
        let [verdict] = found.verdicts.as_slice() else { panic!("one verdict") };
        assert_eq!((verdict.ours.as_str(), verdict.baseline.as_str()), ("soup + refiner", "soup"));
        assert_eq!((verdict.finding, verdict.bar.as_str()), (Finding::Novel, "median"));
        assert_eq!(verdict.held_out_npd.mean.to_bits(), 0.5f64.to_bits());
        assert_eq!(found.parity.len(), 12);
    }

    #[test]
    fn no_verdict_without_both_sides() {
        let held_out = || row("held-out runs", RowKind::Runs, 0.5, 0.05);
        for other in [row("flow", RowKind::Generator, 0.2, 0.01), row("soup", RowKind::Baseline, 0.2, 0.01)] {
            assert!(evaluate(vec![held_out(), other], &Units::default(), &options()).verdicts.is_empty());
        }
        assert!(evaluate(vec![], &Units::default(), &options()).verdicts.is_empty());
    }

    #[test]
    fn parity_counts() {
        let units = Units { bar_median: 0.9, ..Units::default() };
        let at = |mean| Estimate { mean, se: 0.0 };
        let row = Row {
            accuracy: at(0.91),
            distance: at(0.95),
            functional: at(0.85),
            pairwise: at(0.9),
            pairwise_functional: at(1.0),
            disagreement: at(0.5),
            sample_run_equivalents: Some(0.1),
            ..row("flow", RowKind::Generator, 0.2, 0.01)
        };
        let met: Vec<bool> = parity(&row, &units).iter().map(|p| p.met).collect();
        assert_eq!(met, [true, true, false, true, true, false, true]);
    }
}
