//! The section on recipes that were held out.

use super::data::{RecipeEvaluation, RecipeRow, Report, TaskRowKind};
use super::html::{self, MISSING, cells, each, escape, heads, section};
use super::plot::{Axis, Chart, Format, Frame, Scale, Shape, figure, legend_entry};

/// Kinds in the order of their tables.
const KINDS: [(TaskRowKind, &str); 4] = [
    (TaskRowKind::Runs, "Trained by the recipes: what is possible"),
    (TaskRowKind::Ours, "Ours, told the recipe"),
    (TaskRowKind::Control, "Controls: the same, told something else"),
    (TaskRowKind::Baseline, "Without a generator"),
];

/// Whether samples are like networks trained by recipes that nothing was learned from; empty if that was not measured.
pub(crate) fn recipes(report: &Report) -> String {
    let Some(found) = &report.recipes else { return String::new() };
    let lines = each(&found.verdicts, |verdict| {
        let chips = each(found.figures.iter().zip(&verdict.follows).enumerate(), |(f, (figure, &follows))| {
            let (class, word) = if follows { ("good", "follows the recipe") } else { ("bad", "is not shown to follow it") };
            let gains = verdict.gains.iter().filter_map(|gain| gain.rank.get(f).map(|rank| html::estimate(*rank, 2)));
            let gains = gains.collect::<Vec<_>>().join(" and ");
            format!("<span class=\"chip {class}\">{} {word}</span> ({gains} above its controls) ", escape(figure))
        });
        format!("<p class=\"lede\"><strong>{}</strong> {chips}</p>\n", escape(&verdict.generator))
    });
    let content = format!(
        "<p>{} recipes were held out whole, of {}. For each, the mean figure of samples that are told the recipe is set beside that of \
         networks trained by it. A generator follows a recipe by a figure if its rank correlation is higher than that of the same samples \
         taken for those of another recipe, and than that of samples told none, each by two standard errors of the difference.</p>\n{lines}{}{}",
        found.recipes.len(),
        found.recipes.len() + found.num_trained,
        table(found),
        charts(found),
    );
    section("recipes", "Recipes that were never trained", &content)
}

fn table(found: &RecipeEvaluation) -> String {
    let columns: Vec<String> = std::iter::once("Row".to_owned())
        .chain(found.figures.iter().flat_map(|figure| [format!("{figure}, rank correlation"), format!("{figure}, difference")]))
        .collect();
    let line = |row: &RecipeRow| {
        let figures: Vec<String> = row
            .agreement
            .iter()
            .flat_map(|a| [html::estimate(a.rank, 2), a.error.map_or_else(|| MISSING.to_owned(), |error| html::estimate(error, 2))])
            .collect();
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(&row.name), cells(&figures))
    };
    let body = each(KINDS, |(kind, heading)| {
        let rows = each(found.rows.iter().filter(|row| row.kind == kind), line);
        if rows.is_empty() { rows } else { format!("<tbody>{}{rows}</tbody>", html::group_head(columns.len(), heading)) }
    });
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    let caption = "Samples beside trained networks, over held-out recipes; differences in standard deviations of the trained networks' \
                   means over recipes";
    html::table(caption, &heads(&columns), &body)
}

/// Samples against trained networks, a chart a figure.
fn charts(found: &RecipeEvaluation) -> String {
    let Some(trained) = found.rows.iter().find(|row| row.kind == TaskRowKind::Runs) else { return String::new() };
    let ours: Vec<&RecipeRow> = found.rows.iter().filter(|row| row.kind == TaskRowKind::Ours).collect();
    let looks = [("k-refined", Shape::Disc), ("k-generator", Shape::Ring), ("k-baseline", Shape::Square)];
    let charts = each(found.figures.iter().enumerate(), |(f, name)| {
        let of =
            |row: &RecipeRow| row.by_recipe.iter().map(|figures| figures.get(f).copied().unwrap_or(f64::NAN)).collect::<Vec<_>>();
        let x = of(trained);
        let values = || x.iter().copied().chain(ours.iter().flat_map(|row| of(row)));
        let (x_label, y_label) = (format!("{name}, trained networks"), format!("{name}, samples"));
        let mut chart = Chart::new(
            Frame::HALF,
            Axis { scale: Scale::linear(values(), Format::Number), label: &x_label },
            Axis { scale: Scale::linear(values(), Format::Number), label: &y_label },
        );
        let ends = values().filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        chart.line("k-runs faint", &[(ends.0, ends.0), (ends.1, ends.1)]);
        for (row, (class, shape)) in ours.iter().zip(looks) {
            for (i, (&x, y)) in x.iter().zip(of(row)).enumerate() {
                let recipe = found.recipes.get(i).map_or(MISSING, String::as_str);
                chart.marker(class, shape, (x, y), &format!("{}, {recipe}", row.name));
            }
        }
        let title = format!("{name} of samples against {name} of trained networks");
        chart.finish(&format!("recipes-{f}"), &title, "One marker a held-out recipe; on the line both are equal.")
    });
    let legend = each(ours.iter().zip(looks), |(row, (class, shape))| legend_entry(class, Some(shape), &row.name));
    figure("plot", &charts, &legend, "Means over the networks of one recipe. On the line samples are as trained networks are.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_eval::Estimate;
    use weft_eval::recipes::{Agreement, RecipeGain, RecipeVerdict};

    #[test]
    fn each_figure_has_its_verdict_and_chart() {
        let estimate = |mean| Estimate { mean, se: 0.1 };
        let row = |name: &str, kind| RecipeRow {
            name: name.to_owned(),
            kind,
            agreement: vec![Agreement { rank: estimate(0.5), error: Some(estimate(0.25)) }; 2],
            by_recipe: vec![vec![1.0, 0.5], vec![2.0, 0.75]],
        };
        let verdict = RecipeVerdict {
            generator: "flow <&>".to_owned(),
            gains: vec![RecipeGain { over: "flow, told none".to_owned(), rank: vec![estimate(0.75), estimate(0.125)] }],
            follows: vec![true, false],
        };
        let found = RecipeEvaluation {
            figures: vec!["norm".to_owned(), "accuracy".to_owned()],
            recipes: vec!["a <1>".to_owned(), "b".to_owned()],
            num_trained: 5,
            rows: vec![row("trained", TaskRowKind::Runs), row("flow <&>", TaskRowKind::Ours)],
            verdicts: vec![verdict],
        };
        let html = recipes(&Report { recipes: Some(found), ..Report::default() });
        assert!(html.contains("norm follows the recipe") && html.contains("accuracy is not shown to follow it"), "{html}");
        assert!(html.contains("2 recipes were held out whole, of 7"), "{html}");
        assert!(!html.contains("<1>") && !html.contains("<&>") && html.matches("<svg viewBox=\"0 0 400").count() == 2, "{html}");
        assert!(recipes(&Report::default()).is_empty());
    }
}
