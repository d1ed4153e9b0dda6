//! The structure of the zoo: what the method bets on, measured, beside its controls.

use super::data::{Estimate, Report};
use super::html::{self, MISSING, cells, each, escape, estimate, heads, section};
use super::plot::{Axis, Chart, Format, Frame, Scale, Shape, figure, legend_entry};
use crate::structure::{SharpnessPoint, Structure, TensorSpectrum, ZooStructure};
use std::fmt::Write as _;

/// The section on structure.
pub(crate) fn structure(report: &Report) -> String {
    let Some(found) = &report.structure else { return String::new() };
    let mut text = format!(
        "<p>The method bets that good weights are few-dimensional, joined by good paths, and flat. Measured on {} of {}{}; errors are over \
         networks or pairs. Each figure has a control: coordinates that are shuffled over networks, each on its own, have the effective rank of so many networks without \
         correlations; a random basis keeps what any basis of its size would; the mean network knows nothing but the zoo’s center.</p>\n",
        html::plural(found.num_sampled, "final network"),
        html::plural(found.num_runs, "training run"),
        found.dataset.as_ref().map_or_else(String::new, |name| format!(" and the validation part of {}", escape(name))),
    );
    if let Some(reason) = &found.not_canonical {
        let _ = writeln!(text, "<p>They have no canonical form here: {}.</p>", escape(reason));
    }
    section("structure", "Structure of the zoo", &(text + &summary(found) + &charts(found) + &tensors(found)))
}

/// A figure of both forms, for people.
type Pick<'a> = &'a dyn Fn(&Structure) -> String;

fn summary(found: &ZooStructure) -> String {
    let row = |name: &str, pick: Pick<'_>| {
        let canonical = found.canonical.as_ref().map_or_else(|| MISSING.to_owned(), pick);
        format!("<tr><th scope=\"row\">{name}</th>{}</tr>", cells(&[pick(&found.raw), canonical]))
    };
    let whole =
        |pick: fn(&TensorSpectrum) -> String| move |s: &Structure| s.spectra.first().map_or_else(|| MISSING.to_owned(), pick);
    let maybe = |e: Option<Estimate>, format: &dyn Fn(Estimate) -> String| e.map_or_else(|| MISSING.to_owned(), format);
    let mut body = [
        row("Effective rank, participation ratio", &whole(|s| estimate(s.dimension.participation_ratio, 1))),
        row("— control: shuffled coordinates", &whole(|s| estimate(s.shuffled.participation_ratio, 1))),
        row("Effective rank, entropy", &whole(|s| estimate(s.dimension.entropy_rank, 1))),
        row("— control: shuffled coordinates", &whole(|s| estimate(s.shuffled.entropy_rank, 1))),
        row("Components that keep 90 % / 99 %", &whole(kept)),
        row("— control: what a random basis of the former keeps", &whole(|s| html::percent_estimate(s.random_basis))),
        row("Median distance of two networks", &|s| estimate(s.pairwise, 2)),
        row("— control: to the mean network", &|s| estimate(s.to_mean, 2)),
    ]
    .concat();
    if found.dataset.is_some() {
        body.push_str(&row("Validation accuracy of the networks", &|s| maybe(s.accuracy, &html::percent_estimate)));
        body.push_str(&row("— control: of the mean network", &|s| html::optional(s.mean_accuracy, html::percent)));
        body.push_str(&row("Loss barrier, nats", &|s| maybe(s.barrier, &|e| estimate(e, 3))));
    }
    html::table("All weights together", &heads(&["Measure", "raw", "canonical"]), &format!("<tbody>{body}</tbody>"))
}

fn kept(spectrum: &TensorSpectrum) -> String {
    let dimension = spectrum.dimension;
    format!("{} / {} of {}", dimension.components_90, dimension.components_99, spectrum.max_rank)
}

fn charts(found: &ZooStructure) -> String {
    let spectra = spectrum_chart(found);
    let noise = if found.sharpness.is_empty() { String::new() } else { sharpness_chart(&found.sharpness) };
    let legend = legend_entry("k-before", Some(Shape::Ring), "raw") + &legend_entry("k-after", Some(Shape::Disc), "canonical");
    let more = if noise.is_empty() {
        String::new()
    } else {
        format!(
            " The second chart: loss that noise of each weight costs, relative to its size, mean over {}.",
            html::plural(found.num_sharp, "network")
        )
    };
    let caption = format!("Part of the variance of all weights that each principal component has.{more}");
    figure("plot", &(spectra + &noise), &legend, &caption)
}

fn spectrum_chart(found: &ZooStructure) -> String {
    let points = |s: &Structure| -> Vec<(f64, f64)> {
        let Some(whole) = s.spectra.first() else { return Vec::new() };
        whole.variances.iter().enumerate().map(|(i, v)| ((i + 1) as f64, v / whole.total_variance)).collect()
    };
    let (raw, canonical) = (points(&found.raw), found.canonical.as_ref().map(points).unwrap_or_default());
    let all = || raw.iter().chain(&canonical);
    let mut chart = Chart::new(
        Frame::HALF,
        Axis { scale: Scale::linear(all().map(|p| p.0).chain([0.0]), Format::Number), label: "principal component" },
        Axis { scale: Scale::log(all().map(|p| p.1)), label: "part of the variance" },
    );
    for (class, shape, points) in [("k-before", Shape::Ring, &raw), ("k-after", Shape::Disc, &canonical)] {
        chart.line(class, points);
        for &(x, y) in points {
            chart.marker(class, shape, (x, y), &format!("component {x}: {}", html::percent(y)));
        }
    }
    chart.finish("structure-spectrum", "Spectrum of all weights", "Raw and canonical networks.")
}

fn sharpness_chart(points: &[SharpnessPoint]) -> String {
    let values = points.iter().flat_map(|p| [p.loss_increase.mean - p.loss_increase.se, p.loss_increase.mean + p.loss_increase.se]);
    let mut chart = Chart::new(
        Frame::HALF,
        Axis { scale: Scale::log(points.iter().map(|p| p.scale)), label: "noise, relative to each weight" },
        Axis { scale: Scale::linear(values.chain([0.0]), Format::Number), label: "increase of the loss, nats" },
    );
    chart.line("k-runs", &points.iter().map(|p| (p.scale, p.loss_increase.mean)).collect::<Vec<_>>());
    chart.error_bars("k-runs", &points.iter().map(|p| (p.scale, p.loss_increase)).collect::<Vec<_>>());
    for point in points {
        let tooltip = format!(
            "noise {}: {} nats, {} of accuracy",
            html::percent(point.scale),
            html::compact(point.loss_increase.mean),
            html::percent(point.accuracy_decrease.mean)
        );
        chart.marker("k-runs", Shape::Disc, (point.scale, point.loss_increase.mean), &tooltip);
    }
    chart.finish("structure-sharpness", "Sharpness", "Increase of the validation loss against the size of the noise.")
}

/// The spectra tensor by tensor.
fn tensors(found: &ZooStructure) -> String {
    let columns = [
        "Tensor",
        "Shape",
        "Participation ratio, raw",
        "shuffled",
        "90 % / 99 %",
        "Participation ratio, canonical",
        "shuffled",
        "90 % / 99 %",
    ];
    let of = |spectrum: Option<&TensorSpectrum>| match spectrum {
        None => vec![MISSING.to_owned(); 3],
        Some(s) => {
            vec![estimate(s.dimension.participation_ratio, 1), estimate(s.shuffled.participation_ratio, 1), kept(s)]
        }
    };
    let body = each(found.raw.spectra.iter().enumerate().skip(1), |(i, raw)| {
        let shape = raw.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ");
        let canonical = found.canonical.as_ref().and_then(|c| c.spectra.get(i));
        let values = [vec![shape], of(Some(raw)), of(canonical)].concat();
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(&raw.name), cells(&values))
    });
    let table = html::table("Effective rank, tensor by tensor", &heads(&columns), &format!("<tbody>{body}</tbody>"));
    format!("<details><summary>Tensor by tensor</summary>{table}</details>\n")
}
