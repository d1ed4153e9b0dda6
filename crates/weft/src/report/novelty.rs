//! Accuracy against distance, and the fractions of novel networks against the threshold.

use super::data::{Estimate, Evaluation, Report, Row, RowKind, ThresholdCurve};
use super::html::{self, each, escape, section};
use super::plot::{Axis, Chart, Format, Frame, Label, Scale, figure, legend_entry, responsive};
use super::rows::{self, KINDS, class, is_ours, kind_name, numbered, shape};

/// Distances beyond this multiple of `d₁` are not shown: those networks are far from everything.
const FARTHEST: f64 = 2.5;
/// Names longer than this are given by number alone.
const LONGEST_NAME: usize = 30;

/// The scatter plot's section.
pub(crate) fn scatter(report: &Report) -> String {
    let evaluation = &report.evaluation;
    if evaluation.rows.is_empty() {
        return String::new();
    }
    let plot = Scatter::new(evaluation);
    let whole = plot.window(None);
    let legend = each(KINDS.into_iter().filter(|kind| evaluation.rows.iter().any(|row| row.kind == *kind)), |kind| {
        legend_entry(class(kind), Some(shape(kind)), kind_name(kind))
    });
    let mut caption = "Dots are single networks, large markers a row’s mean accuracy at its median distance; numbers are those of \
         the tables. Up is better, right is newer, and a generator that replaces training belongs where the held-out runs are."
        .to_owned();
    if plot.num_beyond > 0 {
        let beyond = format!(" {} beyond {FARTHEST}\u{202f}d₁ or not finite, and not shown.", html::plural(plot.num_beyond, "row"));
        caption += &beyond;
    }
    let mut content = "<p>Copies of training networks work and are near; noise is far and does not work. What counts is to be as \
         far as a held-out run <em>and</em> as accurate.</p>\n"
        .to_owned();
    content += &figure("plot", &responsive(|frame| plot.draw(frame, &whole, "scatter")), &legend, &caption);
    if let Some(close) = plot.close_up() {
        let window = plot.window(Some(close));
        content += &figure(
            "plot",
            &responsive(|frame| plot.draw(frame, &window, "closeup")),
            "",
            "The same, close to the accuracy of trained networks.",
        );
    }
    section("accuracy-distance", "Accuracy against distance", &content)
}

/// What the scatter plots share.
struct Scatter<'a> {
    evaluation: &'a Evaluation,
    rows: Vec<(usize, &'a Row)>,
    num_beyond: usize,
}

/// The scales of one scatter plot.
struct Window {
    x: Scale,
    y: Scale,
}

impl<'a> Scatter<'a> {
    fn new(evaluation: &'a Evaluation) -> Self {
        let rows = numbered(evaluation);
        let is_beyond = |row: &Row| !row.accuracy.mean.is_finite() || !(0.0..=FARTHEST).contains(&row.distance.mean);
        let num_beyond = rows.iter().filter(|(_, row)| is_beyond(row)).count();
        Self { evaluation, rows, num_beyond }
    }

    /// Everything that can be shown: the rows' means and their points.
    fn figures(&self) -> impl Iterator<Item = (f64, f64)> {
        let means = self.rows.iter().map(|(_, row)| (row.distance.mean, row.accuracy.mean));
        let points = self.rows.iter().flat_map(|(_, row)| row.points.iter().copied());
        means.chain(points).filter(|(x, y)| (0.0..=FARTHEST).contains(x) && (0.0..=1.0).contains(y))
    }

    fn window(&self, accuracy: Option<(f64, f64)>) -> Window {
        let inside = |y: f64| accuracy.is_none_or(|(lo, hi)| (lo..=hi).contains(&y));
        let x = self.figures().filter(|f| inside(f.1)).map(|f| f.0).chain([0.0, 1.1]);
        let y = match accuracy {
            Some((lo, hi)) => Scale::window(lo, hi, Format::Percent),
            None => Scale::linear(self.figures().map(|f| f.1), Format::Percent),
        };
        Window { x: Scale::linear(x, Format::Number), y }
    }

    /// The accuracies of trained networks and of ours, if they fill a small part of the whole plot.
    fn close_up(&self) -> Option<(f64, f64)> {
        let units = &self.evaluation.units;
        let margin = (4.0 * units.zoo_std).max(0.02);
        let top = self.figures().map(|f| f.1).fold(f64::NAN, f64::max);
        let bottom = self.figures().map(|f| f.1).fold(f64::NAN, f64::min);
        let low = units.bar_quartile.min(units.zoo_mean) - margin;
        let is_useful = top - low > 1e-6 && low - bottom > 2.0 * (top - low);
        is_useful.then(|| (low.max(0.0), (top + 0.1 * (top - low)).min(1.0)))
    }

    fn draw(&self, frame: Frame, window: &Window, id: &str) -> String {
        let mut chart = Chart::new(
            frame,
            Axis { scale: window.x.clone(), label: "distance to the nearest training network, in d₁" },
            Axis { scale: window.y.clone(), label: "test accuracy" },
        );
        chart.rule_x(1.0, "a fresh run");
        chart.rule_y(self.evaluation.units.bar_median, "training runs’ median");
        // The yardstick is drawn last, over everything else.
        for (_, row) in self.rows.iter().rev() {
            chart.cloud(class(row.kind), &row.points);
        }
        for (number, row) in self.rows.iter().rev() {
            let tooltip = format!(
                "{number} {}: accuracy {}, distance {} d₁",
                row.name,
                html::percent(row.accuracy.mean),
                html::fixed(row.distance.mean, 2)
            );
            chart.marker(class(row.kind), shape(row.kind), (row.distance.mean, row.accuracy.mean), &tooltip);
        }
        chart.labels(&self.rows.iter().map(|(number, row)| label(*number, row, frame)).collect::<Vec<_>>());
        let description = format!(
            "{} rows; the table of all rows holds the same figures. {}",
            self.rows.len(),
            rows::held_out(self.evaluation).map_or_else(String::new, |row| format!(
                "Held-out runs: accuracy {}, distance {}.",
                html::percent(row.accuracy.mean),
                html::fixed(row.distance.mean, 2)
            ))
        );
        chart.finish(id, "Test accuracy against distance to the nearest training network", &description)
    }
}

fn label(number: usize, row: &Row, frame: Frame) -> Label<'static> {
    let is_named = (frame.is_wide() || row.kind == RowKind::Runs) && row.name.chars().count() <= LONGEST_NAME;
    let name = is_named.then(|| format!("{number} {}", row.name));
    Label {
        at: (row.distance.mean, row.accuracy.mean),
        texts: name.into_iter().chain([number.to_string()]).collect(),
        class: class(row.kind),
    }
}

/// The section of NPD and N&P curves.
pub(crate) fn curves(report: &Report) -> String {
    let evaluation = &report.evaluation;
    let bars = rows::bars(evaluation, |row| &row.curves);
    if bars.is_empty() || evaluation.thresholds.is_empty() {
        return String::new();
    }
    let main = main_rows(evaluation);
    let legend =
        each(&main, |(number, row)| legend_entry(class(row.kind), Some(shape(row.kind)), &format!("{number} {}", row.name)))
            + &legend_entry("k-baseline faint", None, "other rows");
    let figures = each(bars.iter().enumerate(), |(i, (bar, accuracy))| {
        let charts = curve_chart(evaluation, &main, &Curves { bar, measure: "NPD", id: format!("npd-{i}"), pick: |c| &c.npd })
            + &curve_chart(evaluation, &main, &Curves { bar, measure: "N&P", id: format!("np-{i}"), pick: |c| &c.np });
        let caption = format!(
            "Accuracy at least {}. Left NPD: novel in weights and function, performant, distinct. Right N&amp;P: novel in weights and \
             performant alone. Bars are one standard error.",
            escape(&html::bar(bar, *accuracy))
        );
        figure("plot", &charts, if i == 0 { &legend } else { "" }, &caption)
    });
    section("npd", "How many are new, at which distance", &figures)
}

/// The rows that curves name: the yardstick, the three best of ours and the two best baselines.
fn main_rows(evaluation: &Evaluation) -> Vec<(usize, &Row)> {
    let bar = rows::main_bar(evaluation).unwrap_or_default();
    let score = |row: &Row| {
        let npd = rows::curve(row, bar).map_or(0.0, |c| c.npd.iter().map(|e| e.mean).filter(|m| m.is_finite()).sum());
        npd + if rows::champion(evaluation).is_some_and(|c| c.name == row.name) { 1e6 } else { 0.0 }
    };
    let best = |most: usize, counts: fn(&Row) -> bool| {
        let mut chosen: Vec<(usize, &Row)> = numbered(evaluation).into_iter().filter(|(_, row)| counts(row)).collect();
        chosen.sort_by(|a, b| score(b.1).total_cmp(&score(a.1)));
        chosen.truncate(most);
        chosen
    };
    let held_out = numbered(evaluation).into_iter().take(1).filter(|(_, row)| row.kind == RowKind::Runs);
    held_out.chain(best(3, is_ours)).chain(best(2, |row| row.kind == RowKind::Baseline)).collect()
}

/// What one chart of curves shows.
struct Curves<'a> {
    bar: &'a str,
    measure: &'static str,
    id: String,
    pick: fn(&ThresholdCurve) -> &Vec<Estimate>,
}

fn curve_chart(evaluation: &Evaluation, main: &[(usize, &Row)], what: &Curves) -> String {
    let of = |row: &Row| -> Vec<(f64, Estimate)> {
        let estimates = rows::curve(row, what.bar).map(|c| (what.pick)(c).clone()).unwrap_or_default();
        evaluation.thresholds.iter().copied().zip(estimates).collect()
    };
    let means = |points: &[(f64, Estimate)]| points.iter().map(|(t, e)| (*t, e.mean)).collect::<Vec<_>>();
    let y_label = format!("{}, fraction of samples", what.measure);
    let mut chart = Chart::new(
        Frame::HALF,
        Axis { scale: Scale::at(&evaluation.thresholds, html::threshold), label: "threshold, in d₁ and f₁" },
        Axis { scale: Scale::linear([0.0, 1.0], Format::Percent), label: &y_label },
    );
    for (_, row) in numbered(evaluation).iter().filter(|(number, _)| !main.iter().any(|(n, _)| n == number)) {
        chart.line(&format!("{} faint", class(row.kind)), &means(&of(row)));
    }
    for (rank, (number, row)) in main.iter().enumerate().rev() {
        let points = of(row);
        let k = class(row.kind);
        chart.line(&format!("{k} dash-{}", rank % 4), &means(&points));
        chart.error_bars(k, &points);
        for (threshold, e) in &points {
            let tooltip = format!("{number} {}: {} at {}", row.name, html::percent(e.mean), html::threshold(*threshold));
            chart.marker(k, shape(row.kind), (*threshold, e.mean), &tooltip);
        }
        if let Some((threshold, e)) = points.first() {
            chart.start_label(k, (*threshold, e.mean), &number.to_string());
        }
    }
    let title = format!("{} against the threshold, bar {}", what.measure, what.bar);
    chart.finish(&what.id, &title, "One line a row; the table of fractions holds the same figures.")
}
