//! What sampling for tasks saves, beside training a network for each: a table and a curve.

use super::data::{Report, TaskCosts, TaskReport};
use super::html::{self, MISSING, cells, each, escape, heads, section};
use super::plot::{Axis, Chart, Frame, Scale, figure, legend_entry, responsive};

/// The section on costs of a run over tasks.
pub(crate) fn costs(report: &Report) -> String {
    let Some(report) = &report.tasks else { return String::new() };
    let costs = &report.costs;
    let zoo = costs.zoo_secs.map_or_else(String::new, |secs| format!("; the zoo took {}", html::duration(secs)));
    let content = format!(
        "<p>Training one network for a task takes {} within a population{zoo}. Break-even is the number of networks after which sampling has \
         taken less time than training each: by the whole recipe, and only until the networks in training are, on the mean over held-out \
         tasks, as accurate as the samples.</p>\n{}{}",
        html::duration(costs.train_secs),
        table(report),
        curve(report)
    );
    section("costs", "Costs", &content)
}

fn table(report: &TaskReport) -> String {
    let costs = &report.costs;
    let body = each(costs.sample_secs.iter(), |(generator, &secs)| {
        let equal = equal_secs(report, generator);
        let after = |each: Option<f64>, zoo| {
            let networks = each.and_then(|each| costs.break_even(generator, each, zoo));
            networks.map_or_else(|| MISSING.to_owned(), |n| html::count(n.ceil() as usize))
        };
        let figures = [
            html::duration(secs),
            html::optional(costs.fit_secs.get(generator).copied(), html::duration),
            html::optional(equal, html::duration),
            after(Some(costs.train_secs), false),
            after(Some(costs.train_secs), true),
            after(equal, false),
            after(equal, true),
        ];
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(generator), cells(&figures))
    });
    let columns = [
        "Generator",
        "Sampling, a network",
        "Fitting",
        "Training to its accuracy",
        "Break-even",
        "with the zoo",
        "to its accuracy",
        "with the zoo",
    ];
    html::table("Sampling, and when it pays", &heads(&columns), &format!("<tbody>{body}</tbody>"))
}

/// The seconds that one network takes in training until it is as good as a generator's samples.
fn equal_secs(report: &TaskReport, generator: &str) -> Option<f64> {
    let row = report.evaluation.rows.iter().find(|row| row.name == generator)?;
    report.costs.secs_to(row.accuracy.mean)
}

/// Seconds against the number of networks.
fn curve(report: &TaskReport) -> String {
    let costs = &report.costs;
    let lines: Vec<Line> = costs.sample_secs.keys().enumerate().flat_map(|(i, name)| lines_of(report, (i, name))).collect();
    if lines.is_empty() || costs.train_secs <= 0.0 {
        return String::new();
    }
    let training = Line { class: "k-runs".to_owned(), name: "training each".to_owned(), fixed: 0.0, each: costs.train_secs };
    let all: Vec<&Line> = std::iter::once(&training).chain(&lines).collect();
    let crossings = all.iter().flat_map(|a| all.iter().filter_map(|b| a.meets(b))).fold(100.0, f64::max);
    let most = 10f64.powf((3.0 * crossings).min(1e9).log10().ceil());
    let counts: Vec<f64> = (0..=64).map(|i| most.powf(f64::from(i) / 64.0)).collect();
    let draw = |frame: Frame| {
        let secs = all.iter().flat_map(|line| [line.at(1.0), line.at(most)]);
        let mut chart = Chart::new(
            frame,
            Axis { scale: Scale::log([1.0, most]), label: "networks for new tasks" },
            Axis { scale: Scale::log(secs), label: "seconds in all" },
        );
        for line in &all {
            chart.line(&line.class, &counts.iter().map(|&n| (n, line.at(n))).collect::<Vec<_>>());
        }
        chart.finish("break-even", "Time against the number of networks", "One line a way; where two cross, both cost the same.")
    };
    let legend = each(&all, |line| legend_entry(&line.class, None, &line.name));
    let caption =
        "Time to have so many networks, each for another task that was not trained for. Faint: with the time that the zoo took.";
    figure("plot", &responsive(draw), &legend, caption)
}

/// A way to have networks: what it takes before the first, and for each.
struct Line {
    class: String,
    name: String,
    fixed: f64,
    each: f64,
}

impl Line {
    fn at(&self, networks: f64) -> f64 {
        self.fixed + self.each * networks
    }

    /// After how many networks another way that begins later is as cheap.
    fn meets(&self, other: &Self) -> Option<f64> {
        (self.each > other.each).then(|| (other.fixed - self.fixed) / (self.each - other.each))
    }
}

/// A generator without and with its zoo, and training to its accuracy.
fn lines_of(report: &TaskReport, (i, name): (usize, &String)) -> Vec<Line> {
    let TaskCosts { fit_secs, sample_secs, zoo_secs, .. } = &report.costs;
    let (Some(&fit), Some(&each)) = (fit_secs.get(name), sample_secs.get(name)) else { return Vec::new() };
    let dash = format!("dash-{}", i % 4);
    let line = |class: &str, name: String, fixed, each| Line { class: format!("{class} {dash}"), name, fixed, each };
    let zoo = zoo_secs.map(|secs| line("k-refined faint", format!("{name}, with the zoo"), fit + secs, each));
    let equal = equal_secs(report, name).map(|secs| line("k-baseline", format!("training to the accuracy of {name}"), 0.0, secs));
    [line("k-refined", name.clone(), fit, each)].into_iter().chain(zoo).chain(equal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::{Estimate, TaskRow};

    fn report() -> Report {
        let row = TaskRow { name: "ours".to_owned(), accuracy: Estimate { mean: 0.9, se: 0.0 }, ..TaskRow::default() };
        let mut report = TaskReport::default();
        report.evaluation.rows.push(row);
        report.costs = TaskCosts {
            zoo_secs: Some(900.0),
            fit_secs: [("ours".to_owned(), 100.0)].into(),
            train_secs: 2.0,
            sample_secs: [("ours".to_owned(), 0.5)].into(),
            progress: vec![(0.1, 0.8), (0.5, 0.92), (1.0, 0.95)],
        };
        Report { tasks: Some(report), ..Report::default() }
    }

    #[test]
    fn networks_pay_from_where_both_ways_cost_the_same() {
        let report = report();
        let costs = &report.tasks.as_ref().unwrap().costs;
        assert_eq!((costs.secs_to(0.9), costs.secs_to(0.96)), (Some(1.0), None));
        let [alone, with_zoo, to_accuracy] = [(2.0, false), (2.0, true), (1.0, false)];
        let after = |(train, zoo)| costs.break_even("ours", train, zoo).unwrap();
        assert!((after(alone) - 100.0 / 1.5).abs() < 1e-9 && (after(with_zoo) - 1000.0 / 1.5).abs() < 1e-9);
        assert!((after(to_accuracy) - 200.0).abs() < 1e-9);
        assert_eq!(costs.break_even("ours", 0.4, false), None);
    }

    #[test]
    fn the_curve_reaches_beyond_every_crossing() {
        let html = super::costs(&report());
        let lines = ["training each", "ours", "ours, with the zoo", "training to the accuracy of ours"];
        assert!(lines.iter().all(|line| html.contains(&format!("</svg>{line}</li>"))), "{html}");
        assert!(html.contains(">67<") && html.contains(">667<") && html.contains(">200<") && html.contains(">2,000<"), "{html}");
        assert!(html.contains(">10000</text>"), "the last crossing is at 2,000: {html}");
    }

    #[test]
    fn without_times_there_is_no_curve() {
        let mut report = report();
        report.tasks.as_mut().unwrap().costs = TaskCosts::default();
        assert!(!super::costs(&report).contains("<figure"));
    }
}
