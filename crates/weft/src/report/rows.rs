//! The evaluation's rows as the page speaks of them: their order and numbers, their looks, and which is the main one.

use super::data::{Estimate, Evaluation, Row, RowKind, ThresholdCurve};
use super::plot::Shape;

/// The kinds in the order in which the page shows them: the yardstick first.
pub(crate) const KINDS: [RowKind; 5] = [RowKind::Runs, RowKind::Refined, RowKind::Generator, RowKind::Baseline, RowKind::NullCopy];

/// The rows in the page's order, each with the number that plots and tables give it.
pub(crate) fn numbered(evaluation: &Evaluation) -> Vec<(usize, &Row)> {
    let of_kind = |kind| evaluation.rows.iter().filter(move |row| row.kind == kind);
    let is_held_out = |row: &&Row| row.name.to_lowercase().contains("held");
    let runs = of_kind(RowKind::Runs).filter(is_held_out).chain(of_kind(RowKind::Runs).filter(move |row| !is_held_out(row)));
    runs.chain(KINDS.into_iter().skip(1).flat_map(of_kind)).enumerate().map(|(i, row)| (i + 1, row)).collect()
}

/// The class that colors a kind.
pub(crate) fn class(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Runs => "k-runs",
        RowKind::NullCopy => "k-null",
        RowKind::Baseline => "k-baseline",
        RowKind::Generator => "k-generator",
        RowKind::Refined => "k-refined",
    }
}

/// The marker of a kind.
pub(crate) fn shape(kind: RowKind) -> Shape {
    match kind {
        RowKind::Runs => Shape::Diamond,
        RowKind::NullCopy => Shape::Cross,
        RowKind::Baseline => Shape::Square,
        RowKind::Generator => Shape::Ring,
        RowKind::Refined => Shape::Disc,
    }
}

/// A kind in words.
pub(crate) fn kind_name(kind: RowKind) -> &'static str {
    match kind {
        RowKind::Runs => "Runs: the yardstick",
        RowKind::NullCopy => "Null copies: changes that the data cannot see",
        RowKind::Baseline => "Baselines",
        RowKind::Generator => "Trained generators",
        RowKind::Refined => "With refiner",
    }
}

/// Whether a row is one of ours.
pub(crate) fn is_ours(row: &Row) -> bool {
    matches!(row.kind, RowKind::Generator | RowKind::Refined)
}

/// The held-out runs' row: the yardstick.
pub(crate) fn held_out(evaluation: &Evaluation) -> Option<&Row> {
    numbered(evaluation).first().map(|(_, row)| *row).filter(|row| row.kind == RowKind::Runs)
}

/// The row of ours that the page speaks of first: the one that most verdicts name, else the first of ours.
pub(crate) fn champion(evaluation: &Evaluation) -> Option<&Row> {
    let mentions = |row: &Row| evaluation.verdicts.iter().filter(|v| v.ours == row.name).count();
    let ours = numbered(evaluation).into_iter().map(|(_, row)| row).filter(|row| is_ours(row));
    ours.fold(None, |best: Option<&Row>, row| match best {
        Some(best) if mentions(best) >= mentions(row) => Some(best),
        _ => Some(row),
    })
}

/// The bar that the page's first words use: the median if it is there, else the first.
pub(crate) fn main_bar(evaluation: &Evaluation) -> Option<&str> {
    let names =
        || evaluation.verdicts.iter().map(|v| &v.bar).chain(evaluation.rows.iter().flat_map(|r| r.curves.iter().map(|c| &c.bar)));
    names().find(|name| *name == "median").or_else(|| names().next()).map(String::as_str)
}

/// The accuracy bars of a set of curves, with their accuracies, in the order of their first appearance.
pub(crate) fn bars(evaluation: &Evaluation, pick: fn(&Row) -> &[ThresholdCurve]) -> Vec<(&str, f64)> {
    let mut bars: Vec<(&str, f64)> = Vec::new();
    for curve in evaluation.rows.iter().flat_map(pick) {
        if !bars.iter().any(|(name, _)| *name == curve.bar) {
            bars.push((&curve.bar, curve.accuracy));
        }
    }
    bars
}

/// A row's curve for a bar.
pub(crate) fn curve<'a>(row: &'a Row, bar: &str) -> Option<&'a ThresholdCurve> {
    row.curves.iter().find(|curve| curve.bar == bar)
}

/// A row's NPD for a bar at the threshold nearest to the given one.
pub(crate) fn npd_at(evaluation: &Evaluation, row: &Row, bar: &str, threshold: f64) -> Option<Estimate> {
    let index = evaluation.thresholds.iter().position(|t| (t - threshold).abs() < 1e-9)?;
    curve(row, bar)?.npd.get(index).copied()
}
