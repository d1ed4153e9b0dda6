//! The tables of all rows, and fresh-run parity.

use super::data::{Estimate, Evaluation, Parity, Report, Row, ThresholdCurve};
use super::html::{self, cells, each, escape, estimate, heads, section};
use super::plot;
use super::rows::{self, KINDS, class, kind_name, numbered, shape};

/// The section of all rows.
pub(crate) fn all_rows(report: &Report) -> String {
    let evaluation = &report.evaluation;
    if evaluation.rows.is_empty() {
        return section("rows", "All rows", "<p>Nothing was evaluated.</p>");
    }
    let content = format!(
        "<p>Distances are medians over samples; ± is one standard error over generator seeds or, \
         where larger, of sampling. Ratios compare with the training runs’ final networks.</p>\n{}{}{}<details><summary>NPD and N&amp;P at \
         every threshold and bar</summary>{}</details>\n",
        quality(evaluation),
        diversity(evaluation),
        effort(evaluation),
        fractions(evaluation)
    );
    section("rows", "All rows", &content)
}

/// A body of rows, grouped by kind; `cells` makes what follows the name.
fn grouped(evaluation: &Evaluation, num_columns: usize, cells: impl Fn(&Row) -> String) -> String {
    let numbered = numbered(evaluation);
    each(KINDS, |kind| {
        let rows = numbered.iter().filter(|(_, row)| row.kind == kind);
        let rows = each(rows, |(number, row)| {
            format!(
                "<tr class=\"{}\"><th scope=\"row\"><span class=\"no\">{number}</span>{}</th>{}</tr>",
                class(kind),
                escape(&row.name),
                cells(row)
            )
        });
        if rows.is_empty() {
            return rows;
        }
        let head = format!("{}{}", plot::swatch(class(kind), Some(shape(kind))), kind_name(kind));
        format!("<tbody>{}{rows}</tbody>", html::group_head(num_columns, &head))
    })
}

fn quality(evaluation: &Evaluation) -> String {
    let bar = rows::main_bar(evaluation).unwrap_or_default();
    let columns = [
        "Row",
        "Accuracy",
        "spread",
        "Distance /\u{a0}d₁",
        "quartiles",
        "Functional /\u{a0}f₁",
        "Data-weighted",
        "NPD at ½",
        "NPD at ¾",
    ];
    let npd = |row: &Row, threshold| {
        rows::npd_at(evaluation, row, bar, threshold).map_or_else(|| html::MISSING.to_owned(), html::percent_estimate)
    };
    let body = grouped(evaluation, columns.len(), |row| {
        cells(&[
            html::percent_estimate(row.accuracy),
            html::percent(row.accuracy_std),
            estimate(row.distance, 2),
            row.distance_quartiles.map(|q| html::fixed(q, 2)).join("–"),
            estimate(row.functional, 2),
            row.distance_weighted.map_or_else(|| html::MISSING.to_owned(), |e| estimate(e, 2)),
            npd(row, 0.5),
            npd(row, 0.75),
        ])
    });
    html::table("Accuracy and novelty", &heads(&columns), &body)
}

fn diversity(evaluation: &Evaluation) -> String {
    let columns = [
        "Row",
        "Nearest fellow /\u{a0}d₁",
        "Pairwise distance",
        "Pairwise functional",
        "Disagreement",
        "Largest IoU of mistakes",
        "Vote gain of 16",
    ];
    let body = grouped(evaluation, columns.len(), |row| {
        cells(&[
            estimate(row.fellow_distance, 2),
            estimate(row.pairwise, 2),
            estimate(row.pairwise_functional, 2),
            estimate(row.disagreement, 2),
            estimate(row.max_iou, 2),
            html::percent_estimate(row.vote_gain),
        ])
    });
    html::table("Diversity", &heads(&columns), &body)
}

fn effort(evaluation: &Evaluation) -> String {
    let columns = ["Row", "Seeds × samples", "Sampling, a network", "the same, in runs", "Fitting", "the same, in runs"];
    let body = grouped(evaluation, columns.len(), |row| {
        cells(&[
            samples(row),
            html::optional(row.sample_secs, html::duration),
            html::optional(row.sample_run_equivalents, html::compact),
            html::optional(row.fit_secs, html::duration),
            html::optional(row.fit_run_equivalents, html::compact),
        ])
    });
    html::table("Samples and their cost; a run is one training run of the zoo", &heads(&columns), &body)
}

/// Seeds times samples, and how many of them hold a weight that is not finite.
fn samples(row: &Row) -> String {
    let all = format!("{} × {}", html::count(row.num_seeds), html::count(row.num_samples));
    if row.num_invalid == 0 { all } else { format!("{all} <span class=\"se\">({} invalid)</span>", html::count(row.num_invalid)) }
}

/// A set of curves: over which thresholds, in which units, and where a row has them.
struct Set<'a> {
    thresholds: &'a [f64],
    units: &'static str,
    pick: fn(&Row) -> &[ThresholdCurve],
}

/// NPD and N&P at each threshold, in the page's units and in the audit's.
fn fractions(evaluation: &Evaluation) -> String {
    let ours = Set { thresholds: &evaluation.thresholds, units: "in d₁ and f₁", pick: |row| &row.curves };
    let audit = Set {
        thresholds: &evaluation.snapshot_thresholds,
        units: "in the audit’s units, leave-one-out over all snapshots",
        pick: |row| &row.snapshot_curves,
    };
    fraction_tables(evaluation, &ours) + &fraction_tables(evaluation, &audit)
}

/// One table a bar.
fn fraction_tables(evaluation: &Evaluation, set: &Set) -> String {
    let names = |measure: &str| set.thresholds.iter().map(|t| format!("{measure} at {}", html::threshold(*t))).collect::<Vec<_>>();
    let columns = [vec!["Row".to_owned()], names("NPD"), names("N&amp;P")].concat();
    each(rows::bars(evaluation, set.pick), |(bar, accuracy)| {
        let body = grouped(evaluation, columns.len(), |row| {
            let curve = (set.pick)(row).iter().find(|curve| curve.bar == bar);
            let of = |estimates: Option<&Vec<Estimate>>| {
                let at =
                    |i| estimates.and_then(|e| e.get(i)).map_or_else(|| html::MISSING.to_owned(), |e| html::percent_estimate(*e));
                (0..set.thresholds.len()).map(at).collect::<Vec<_>>()
            };
            cells(&[of(curve.map(|c| &c.npd)), of(curve.map(|c| &c.np))].concat())
        });
        let caption = format!("Accuracy at least {}; thresholds {}", escape(&html::bar(bar, accuracy)), set.units);
        html::table(&caption, &heads(&columns.iter().map(String::as_str).collect::<Vec<_>>()), &body)
    })
}

/// The section of fresh-run parity: a row a generator, a column a count.
pub(crate) fn parity(report: &Report) -> String {
    let parity = &report.evaluation.parity;
    if parity.is_empty() {
        return String::new();
    }
    let (mut generators, mut counts): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for p in parity {
        if !generators.contains(&p.generator.as_str()) {
            generators.push(&p.generator);
        }
        if !counts.contains(&p.count.as_str()) {
            counts.push(&p.count);
        }
    }
    let columns: Vec<String> =
        std::iter::once("Generator".to_owned()).chain(counts.iter().map(|c| escape(c))).chain(["Met".to_owned()]).collect();
    let body = each(generators, |generator| {
        let mine: Vec<&Parity> = parity.iter().filter(|p| p.generator == generator).collect();
        let met = mine.iter().filter(|p| p.met).count();
        let mut row: Vec<String> = counts
            .iter()
            .map(|c| mine.iter().find(|p| p.count == *c).map_or_else(|| html::MISSING.to_owned(), |p| parity_cell(p)))
            .collect();
        row.push(format!("{met} of {}", mine.len()));
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(generator), cells(&row))
    });
    let content = format!(
        "<p>The goal is that sampling may replace another training run: as accurate, as new and as diverse as a run that was held \
         out, at a fraction of its cost. Each cell holds the figure reached and the one asked for.</p>\n{}",
        html::table(
            "Fresh-run parity, met or missed",
            &heads(&columns.iter().map(String::as_str).collect::<Vec<_>>()),
            &format!("<tbody>{body}</tbody>")
        )
    );
    section("parity", "Fresh-run parity", &content)
}

fn parity_cell(parity: &Parity) -> String {
    let (class, word) = if parity.met { ("good", "met") } else { ("bad", "missed") };
    let sign = if parity.met == (parity.value >= parity.target) { "≥" } else { "≤" };
    format!(
        "{} <span class=\"se\">{sign}\u{202f}{}</span><br><span class=\"chip {class}\">{word}</span>",
        html::compact(parity.value),
        html::compact(parity.target)
    )
}
