//! What stands behind the samples: canonicalization, codec, training, and the refiner's settings compared.

use super::data::{
    AblationRow, BeforeAfter, Canonicalization, CodecFigures, Estimate, InterpolationPath, RankFigures, Report, TrainingCurve,
};
use super::html::{self, cells, each, escape, estimate, heads, section};
use super::plot::{Axis, Chart, Format, Frame, Label, Scale, Shape, figure, legend_entry};

/// Points of a long curve that a chart shows; more are averaged in groups.
const MOST_POINTS: usize = 300;

/// The section on canonicalization.
pub(crate) fn canonicalization(report: &Report) -> String {
    let Some(canon) = &report.canonicalization else { return String::new() };
    let history = match canon.mean_history.len() {
        0 | 1 => String::new(),
        n => format!(
            " Re-estimating the mean network {n} times brought the training runs’ mean distance to it from {} to {}.",
            html::compact(canon.mean_history[0]),
            html::compact(canon.mean_history[n - 1])
        ),
    };
    let text = format!(
        "<p>Many weights are one function: {}. Each of {} was brought to one representative of its orbit. That changed no output by \
         more than {} of the largest{}; {} a unit whose place or scale is not well determined.{history}</p>\n",
        escape(&canon.group),
        html::plural(canon.num_networks, "network"),
        html::scientific(canon.max_function_deviation, 1),
        match canon.num_proven_in_f64 {
            0 => String::new(),
            n => format!(" ({} measured in double precision)", html::plural(n, "network")),
        },
        match canon.num_ill_conditioned {
            0 => "no network has".to_owned(),
            1 => "1 network has".to_owned(),
            n => format!("{} networks have", html::count(n)),
        },
    );
    let row = |name: &str, b: BeforeAfter, decimals| {
        format!("<tr><th scope=\"row\">{name}</th>{}</tr>", cells(&[estimate(b.before, decimals), estimate(b.after, decimals)]))
    };
    let body = format!(
        "<tbody>{}{}</tbody>",
        row("Mean distance to the anchor", canon.distance, 2),
        canon.barrier.map(|barrier| row("Loss barrier, nats, validation", barrier, 3)).unwrap_or_default()
    );
    let table = html::table("Before and after canonicalization", &heads(&["Measure", "raw", "canonical"]), &body);
    section("canonicalization", "Canonicalization", &(text + &table + &paths(canon)))
}

/// Interpolation before and after: accuracy and loss.
fn paths(canon: &Canonicalization) -> String {
    let (before, after) = (&canon.path_before, &canon.path_after);
    if before.lambda.is_empty() && after.lambda.is_empty() {
        return String::new();
    }
    let accuracy = path_chart(before, after, "path-accuracy", |path| &path.accuracy);
    let loss = path_chart(before, after, "path-loss", |path| &path.loss);
    let legend = legend_entry("k-before", Some(Shape::Ring), "raw") + &legend_entry("k-after", Some(Shape::Disc), "canonical");
    let caption = format!(
        "Networks on the straight line between two training runs’ final networks, on validation examples, mean over {}; bands are \
         one standard error. Where raw weights cross a barrier, aligned ones should not.",
        html::plural(after.num_pairs.max(before.num_pairs), "pair")
    );
    figure("plot", &(accuracy + &loss), &legend, &caption)
}

fn path_chart(
    before: &InterpolationPath,
    after: &InterpolationPath,
    id: &str,
    pick: fn(&InterpolationPath) -> &Vec<Estimate>,
) -> String {
    let of =
        |path: &InterpolationPath| path.lambda.iter().copied().zip(pick(path).iter().copied()).collect::<Vec<(f64, Estimate)>>();
    let is_accuracy = id == "path-accuracy";
    let (label, format) =
        if is_accuracy { ("validation accuracy", Format::Percent) } else { ("validation loss, nats", Format::Number) };
    let values = [of(before), of(after)].concat().into_iter().flat_map(|(_, e)| [e.mean - e.se, e.mean, e.mean + e.se]);
    let mut chart = Chart::new(
        Frame::HALF,
        Axis { scale: Scale::linear([0.0, 1.0], Format::Number), label: "λ, from one network to the other" },
        Axis { scale: Scale::linear(values, format), label },
    );
    for (class, shape, points) in [("k-before", Shape::Ring, of(before)), ("k-after", Shape::Disc, of(after))] {
        chart.band(class, &points.iter().map(|(x, e)| (*x, e.mean - e.se, e.mean + e.se)).collect::<Vec<_>>());
        chart.line(class, &points.iter().map(|(x, e)| (*x, e.mean)).collect::<Vec<_>>());
        for (x, e) in &points {
            chart.marker(class, shape, (*x, e.mean), &format!("λ {}: {}", html::fixed(*x, 2), html::compact(e.mean)));
        }
    }
    chart.finish(id, &format!("Interpolation between two networks: {label}"), "Raw and canonical weights.")
}

/// The section on the codec.
pub(crate) fn codec(report: &Report) -> String {
    let Some(codec) = &report.codec else { return String::new() };
    let text = format!(
        "<p>The generator works on codes of {} for {} weights (codec <code>{}</code>), which keep {} of the training networks’ variance. \
         What matters is whether the decoded networks still work, and for networks that the codec has not seen.</p>\n",
        html::plural(codec.rank, "number"),
        html::count(codec.num_parameters),
        escape(&codec.kind),
        html::percent(codec.kept_variance)
    );
    section("codec", "Codec", &(text + &spectrum(codec) + &ranks(codec)))
}

/// The PCA spectrum: variance of each component, and how much is kept by the first so many.
fn spectrum(codec: &CodecFigures) -> String {
    if codec.spectrum.is_empty() {
        return String::new();
    }
    let total = if codec.total_variance > 0.0 { codec.total_variance } else { codec.spectrum.iter().sum() };
    let each_one: Vec<(f64, f64)> = codec.spectrum.iter().enumerate().map(|(i, v)| ((i + 1) as f64, v / total)).collect();
    let mut sum = 0.0;
    let cumulative: Vec<(f64, f64)> = each_one
        .iter()
        .map(|(i, v)| {
            sum += v;
            (*i, sum)
        })
        .collect();
    let last = each_one.len() as f64;
    let x = || Axis { scale: Scale::linear([0.0, last], Format::Number), label: "principal component" };
    let mut variance =
        Chart::new(Frame::HALF, x(), Axis { scale: Scale::log(each_one.iter().map(|p| p.1)), label: "fraction of the variance" });
    variance.rule_x(codec.rank as f64, "rank in use");
    variance.line("k-refined", &thinned(&each_one));
    let mut kept = Chart::new(Frame::HALF, x(), Axis { scale: Scale::linear([0.0, 1.0], Format::Percent), label: "variance kept" });
    kept.rule_x(codec.rank as f64, "rank in use");
    kept.line("k-refined", &thinned(&cumulative));
    let charts =
        variance.finish("spectrum", "PCA spectrum", "Fraction of the variance of each principal component, on a logarithmic axis.")
            + &kept.finish("cumulative", "Variance kept against rank", "Cumulative fraction of the variance.");
    figure(
        "plot",
        &charts,
        "",
        "Spectrum of the training networks’ canonical weights. A knee would mean that good weights fill few dimensions.",
    )
}

/// Error and accuracy against rank, as charts and as a table.
fn ranks(codec: &CodecFigures) -> String {
    if codec.ranks.is_empty() {
        return String::new();
    }
    let rank_axis = || Axis { scale: Scale::log(codec.ranks.iter().map(|r| r.rank as f64)), label: "rank" };
    let series = |pick: fn(&RankFigures) -> Estimate| codec.ranks.iter().map(|r| (r.rank as f64, pick(r))).collect::<Vec<_>>();
    let exact = |v: f64| Estimate { mean: v, se: 0.0 };
    let fitted = series(|r| r.accuracy_fitted);
    let unseen = series(|r| r.accuracy_unseen);
    let error_fitted: Vec<_> = codec.ranks.iter().map(|r| (r.rank as f64, exact(r.error_fitted))).collect();
    let error_unseen: Vec<_> = codec.ranks.iter().map(|r| (r.rank as f64, exact(r.error_unseen))).collect();
    let accuracies = fitted.iter().chain(&unseen).map(|p| p.1.mean).chain([codec.accuracy_before]);
    let mut accuracy = Chart::new(
        Frame::HALF,
        rank_axis(),
        Axis { scale: Scale::linear(accuracies, Format::Percent), label: "accuracy of decoded networks" },
    );
    accuracy.rule_y(codec.accuracy_before, "before encoding");
    let errors = error_fitted.iter().chain(&error_unseen).map(|p| p.1.mean).chain([0.0]);
    let mut error = Chart::new(
        Frame::HALF,
        rank_axis(),
        Axis { scale: Scale::linear(errors, Format::Percent), label: "relative squared error" },
    );
    for (chart, fitted, unseen) in [(&mut accuracy, &fitted, &unseen), (&mut error, &error_fitted, &error_unseen)] {
        chart.rule_x(codec.rank as f64, "rank in use");
        for (class, shape, points) in [("k-before", Shape::Ring, fitted), ("k-after", Shape::Disc, unseen)] {
            chart.line(class, &points.iter().map(|(x, e)| (*x, e.mean)).collect::<Vec<_>>());
            chart.error_bars(class, points);
            for (x, e) in points {
                chart.marker(class, shape, (*x, e.mean), &format!("rank {x}: {}", html::percent(e.mean)));
            }
        }
    }
    let charts =
        accuracy.finish(
            "rank-accuracy",
            "Accuracy of decoded networks against rank",
            "Validation accuracy; fitted and unseen networks.",
        ) + &error.finish("rank-error", "Reconstruction error against rank", "Relative squared error; fitted and unseen networks.");
    let legend = legend_entry("k-before", Some(Shape::Ring), "networks the codec was fitted on")
        + &legend_entry("k-after", Some(Shape::Disc), "networks it has not seen");
    let caption = "Networks encoded and decoded at each rank; validation accuracy. The gap between the lines is what a linear code of few \
         training networks cannot say about a new one.";
    figure("plot", &charts, &legend, caption) + &rank_table(codec)
}

fn rank_table(codec: &CodecFigures) -> String {
    let body = each(&codec.ranks, |r| {
        let cells = cells(&[
            html::percent(r.error_fitted),
            html::percent(r.error_unseen),
            html::percent_estimate(r.accuracy_fitted),
            html::percent_estimate(r.accuracy_unseen),
        ]);
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", html::count(r.rank))
    });
    let columns = ["Rank", "Error, fitted", "Error, unseen", "Accuracy, fitted", "Accuracy, unseen"];
    let table = html::table("Codec against rank", &heads(&columns), &format!("<tbody>{body}</tbody>"));
    format!("<details><summary>The same as a table</summary>{table}</details>\n")
}

/// The section of loss curves.
pub(crate) fn training(report: &Report) -> String {
    let curves = report.training.iter().filter(|c| !c.points.is_empty()).enumerate();
    let charts = each(curves, |(i, curve)| loss_chart(i, curve));
    if charts.is_empty() {
        return String::new();
    }
    section(
        "training",
        "Training the generators",
        &figure("plot", &charts, "", "Loss against training step; long curves are averaged in groups of steps."),
    )
}

fn loss_chart(index: usize, curve: &TrainingCurve) -> String {
    let points = thinned(&curve.points);
    let finite = || points.iter().map(|p| p.1).filter(|v| v.is_finite());
    let (low, high) = (finite().fold(f64::INFINITY, f64::min), finite().fold(0.0, f64::max));
    let y = if low > 0.0 && high / low > 10.0 { Scale::log(finite()) } else { Scale::linear(finite(), Format::Number) };
    let label = format!("{}: {}", curve.name, curve.loss);
    let x = Scale::linear(points.iter().map(|p| p.0).chain([0.0]), Format::Number);
    let mut chart = Chart::new(Frame::HALF, Axis { scale: x, label: "step" }, Axis { scale: y, label: &label });
    chart.line("k-refined", &points);
    if let [(x, y)] = points[..] {
        chart.marker("k-refined", Shape::Disc, (x, y), &html::compact(y));
    }
    let last = finite().next_back().map_or_else(String::new, |v| format!("It ends at {}.", html::compact(v)));
    chart.finish(&format!("loss-{index}"), &format!("Loss of {} against step", curve.name), &last)
}

/// A long curve averaged in groups.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |values: &[(f64, f64)], pick: fn(&(f64, f64)) -> f64| values.iter().map(pick).sum::<f64>() / values.len() as f64;
    points.chunks(group).map(|chunk| (mean(chunk, |p| p.0), mean(chunk, |p| p.1))).collect()
}

/// The section that compares the refiner's settings.
pub(crate) fn ablation(report: &Report) -> String {
    let rows = &report.ablation;
    if rows.is_empty() {
        return String::new();
    }
    let columns = [
        "Settings",
        "Accuracy",
        "Distance /\u{a0}d₁",
        "Functional /\u{a0}f₁",
        "Pairwise distance",
        "Disagreement",
        "Cost, in runs",
    ];
    let body = each(rows.iter().enumerate(), |(i, row)| {
        let chosen = if row.chosen { " <span class=\"chip even\">in use</span>" } else { "" };
        let cells = cells(&[
            html::percent_estimate(row.accuracy),
            estimate(row.distance, 2),
            estimate(row.functional, 2),
            estimate(row.pairwise, 2),
            estimate(row.disagreement, 2),
            html::compact(row.run_equivalents),
        ]);
        format!("<tr><th scope=\"row\"><span class=\"no\">{}</span>{}{chosen}</th>{cells}</tr>", i + 1, escape(&row.settings))
    });
    let table = html::table("The refiner’s settings compared", &heads(&columns), &format!("<tbody>{body}</tbody>"));
    let charts = ablation_chart(rows, "ablation-distance", "distance to the nearest training network, in d₁", |r| r.distance)
        + &ablation_chart(rows, "ablation-pairwise", "pairwise distance over the zoo’s", |r| r.pairwise);
    let text = "<p>The refiner moves a proposal’s codes so that the decoded network solves the task. Left alone it pulls every sample towards \
         one optimum; the settings differ in how they keep samples apart. Each buys accuracy, novelty or diversity at the price of the others.</p>\n";
    let caption = "What each setting buys: accuracy against novelty (left) and against diversity (right). Numbers are the table’s rows; up \
         and right is better.";
    section("ablation", "The refiner, setting by setting", &format!("{text}{}{table}", figure("plot", &charts, "", caption)))
}

fn ablation_chart(rows: &[AblationRow], id: &str, x_label: &str, pick: fn(&AblationRow) -> Estimate) -> String {
    let at = |row: &AblationRow| (pick(row).mean, row.accuracy.mean);
    let mut chart = Chart::new(
        Frame::HALF,
        Axis { scale: Scale::linear(rows.iter().map(|r| pick(r).mean).chain([1.0]), Format::Number), label: x_label },
        Axis { scale: Scale::linear(rows.iter().map(|r| r.accuracy.mean), Format::Percent), label: "test accuracy" },
    );
    chart.rule_x(1.0, "a fresh run");
    for row in rows {
        chart.marker("k-refined", if row.chosen { Shape::Disc } else { Shape::Ring }, at(row), &row.settings);
    }
    let labels: Vec<Label> = rows
        .iter()
        .enumerate()
        .map(|(i, row)| Label { at: at(row), texts: vec![(i + 1).to_string()], class: "k-refined" })
        .collect();
    chart.labels(&labels);
    chart.finish(id, &format!("Refiner settings: accuracy against {x_label}"), "The table below holds the same figures.")
}
