//! Networks for tasks of which a few examples are known: the figures, and the section that shows accuracy against milliseconds.

use super::data::{Estimate, Report};
use super::html::{self, cells, each, escape, heads, section};
use super::plot::{Axis, Chart, Format, Frame, Scale, Shape, figure, legend_entry, responsive};
use serde::{Deserialize, Serialize};

/// What can be had for a held-out task of which a few labelled examples are known.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FewExamples {
    /// Examples of each output.
    pub per_output: usize,
    /// Draws of examples a task.
    pub num_sets: usize,
    /// The ways to a network.
    pub ways: Vec<FewWay>,
    /// Each of ours beside the others, at no more time.
    pub comparisons: Vec<FewComparison>,
}

/// A way to a network for a task, at increasing budgets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FewWay {
    /// Its name.
    pub name: String,
    /// Whether a generator has a part in it.
    pub ours: bool,
    /// What was chosen on training tasks, or how it is.
    pub setting: String,
    /// Its curve.
    pub points: Vec<FewPoint>,
}

/// A budget of a way.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FewPoint {
    /// Steps of training or of the flow.
    pub budget: u64,
    /// Median time from the examples to one network, in seconds.
    pub secs: f64,
    /// Test accuracy, over clusters of tasks.
    pub accuracy: Estimate,
    /// Mean test accuracy of each task.
    pub by_task: Vec<f64>,
}

/// One of ours at its last budget beside another way at the last of its budgets that takes no more time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FewComparison {
    /// Ours.
    pub ours: String,
    /// The time that it takes, in seconds.
    pub secs: f64,
    /// The other.
    pub with: String,
    /// The other's budget; its first where even that takes longer.
    pub with_budget: u64,
    /// The time that this takes, in seconds.
    pub with_secs: f64,
    /// How much more of the test examples ours gets right, task by task.
    pub difference: Estimate,
    /// Whether that is more than two standard errors above zero.
    pub better: bool,
}

/// Markers in the order of ways of a kind.
const SHAPES: [Shape; 5] = [Shape::Disc, Shape::Square, Shape::Diamond, Shape::Ring, Shape::Cross];

/// The section, where it was measured.
pub(crate) fn few(report: &Report) -> String {
    let Some(few) = report.tasks.as_ref().and_then(|tasks| tasks.few_examples.as_ref()) else { return String::new() };
    let content = format!(
        "<p>Of each held-out task {} labelled examples of each output are known, {} times anew. Every way makes one network at a time from the same examples; \
         its time begins with them and ends with the network. Learning rates and scales were chosen on training tasks, by validation accuracy. What a \
         generator or a network of all classes took to be fitted before is not counted.</p>\n{}{}{}",
        few.per_output,
        few.num_sets,
        curve(few),
        table(few),
        comparisons(few)
    );
    section("few-examples", "A few examples of a new task", &content)
}

/// Ways with their class and marker.
fn looks(few: &FewExamples) -> Vec<(&FewWay, String, Shape)> {
    let mut counts = [0, 0];
    let look = |way: &'_ FewWay| {
        let count = &mut counts[usize::from(way.ours)];
        let at = *count % SHAPES.len();
        *count += 1;
        (format!("{} dash-{}", if way.ours { "k-refined" } else { "k-baseline" }, at % 4), SHAPES[at])
    };
    let looks: Vec<(String, Shape)> = few.ways.iter().map(look).collect();
    few.ways.iter().zip(looks).map(|(way, (class, shape))| (way, class, shape)).collect()
}

fn curve(few: &FewExamples) -> String {
    let points = || few.ways.iter().flat_map(|way| &way.points);
    let draw = |frame: Frame| {
        let mut chart = Chart::new(
            frame,
            Axis { scale: Scale::log(points().map(|p| 1e3 * p.secs)), label: "milliseconds for one network" },
            Axis { scale: Scale::linear(points().map(|p| p.accuracy.mean), Format::Percent), label: "test accuracy" },
        );
        for (way, class, shape) in looks(few) {
            let line: Vec<(f64, f64)> = way.points.iter().map(|p| (1e3 * p.secs, p.accuracy.mean)).collect();
            chart.line(&class, &line);
            for (point, at) in way.points.iter().zip(line) {
                let tip = format!("{}, {}: {}", way.name, point.budget, html::percent_estimate(point.accuracy));
                chart.marker(&class, shape, at, &tip);
            }
        }
        chart.finish("few-examples", "Accuracy against milliseconds", "One line a way, one marker a budget.")
    };
    let legend = each(looks(few), |(way, class, shape)| legend_entry(&class, Some(shape), &way.name));
    figure(
        "plot",
        &responsive(draw),
        &legend,
        "Test accuracy on held-out tasks against the time for one network; markers are doublings of the budget.",
    )
}

fn table(few: &FewExamples) -> String {
    let line = |way: &FewWay| {
        each(&way.points, |point| {
            let texts = [
                escape(&way.setting),
                html::count(point.budget as usize),
                html::duration(point.secs),
                html::percent_estimate(point.accuracy),
            ];
            format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(&way.name), cells(&texts))
        })
    };
    let body = each(&few.ways, line);
    let columns = ["Way", "Setting", "Steps", "Time", "Accuracy"];
    let table = html::table("Each budget", &heads(&columns), &format!("<tbody>{body}</tbody>"));
    format!("<details><summary>Each budget</summary>{table}</details>\n")
}

fn comparisons(few: &FewExamples) -> String {
    let body = each(&few.comparisons, |found| {
        let (class, word) = if found.better { ("good", "better") } else { ("even", "not better") };
        let points = format!("{:+.2} ± {:.2}", 100.0 * found.difference.mean, 100.0 * found.difference.se);
        let texts = [
            html::duration(found.secs),
            escape(&found.with),
            html::count(found.with_budget as usize),
            html::duration(found.with_secs),
            points,
            format!("<span class=\"chip {class}\">{word}</span>"),
        ];
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(&found.ours), cells(&texts))
    });
    let columns = ["Ours", "Time", "beside", "Steps", "Time", "Difference, points", "by two standard errors"];
    html::table("At no more time, task by task", &heads(&columns), &format!("<tbody>{body}</tbody>"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::TaskReport;

    #[test]
    fn every_way_is_drawn_and_listed() {
        let point = |budget, mean| FewPoint {
            budget,
            secs: 1e-3 * budget as f64,
            accuracy: Estimate { mean, se: 0.01 },
            by_task: vec![mean],
        };
        let way = |name: &str, ours| FewWay {
            name: name.to_owned(),
            ours,
            setting: "rate <1>".to_owned(),
            points: vec![point(1, 0.5), point(2, 0.75)],
        };
        let comparison = FewComparison { ours: "b".to_owned(), with: "a".to_owned(), better: true, ..FewComparison::default() };
        let few =
            FewExamples { per_output: 16, num_sets: 3, ways: vec![way("a", false), way("b", true)], comparisons: vec![comparison] };
        let tasks = TaskReport { few_examples: Some(few), ..TaskReport::default() };
        let html = super::few(&Report { tasks: Some(tasks), ..Report::default() });
        assert!(html.contains("</svg>a</li>") && html.contains("</svg>b</li>") && html.contains("rate &lt;1&gt;"), "{html}");
        assert!(html.contains("16 labelled examples") && html.contains("chip good"), "{html}");
        assert!(super::few(&Report::default()).is_empty());
    }
}
