//! Best of n: what each judge without test labels picks of a run's samples, and what that costs.

use super::data::{Estimate, Report};
use super::html::{self, cells, each, escape, heads, section};
use serde::{Deserialize, Serialize};

/// The best of n by each judge.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BestOf {
    /// Samples of which one is kept.
    pub n: usize,
    /// A row a generator and judge.
    pub rows: Vec<BestOfRow>,
    /// What the prediction of accuracy from weights is worth.
    pub predictor: Option<PredictorFacts>,
}

/// What one judge picks.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct BestOfRow {
    /// The generator.
    pub generator: String,
    /// The judge; `none` takes every sample.
    pub by: String,
    /// Test accuracy over clusters of tasks.
    pub accuracy: Estimate,
    /// How much more than without a judge, task by task.
    pub gain: Estimate,
    /// Time for a network that is kept: n samples and their ranking, in seconds.
    pub secs: f64,
}

/// A prediction of accuracy from weights, on training runs that it was not fitted on.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictorFacts {
    /// One less the squared error over the variance of accuracies.
    pub r_squared: f64,
    /// Kendall's τ-b.
    pub kendall_tau: f64,
    /// Networks that were predicted.
    pub num_networks: usize,
    /// Their runs, or tasks where there are many.
    pub num_runs: usize,
}

/// The section, where it was measured.
pub(crate) fn best_of(report: &Report) -> String {
    let Some(best) = report.tasks.as_ref().and_then(|tasks| tasks.best_of.as_ref()) else { return String::new() };
    let body = each(&best.rows, |row| {
        let gain = format!("{:+.2} ± {:.2}", 100.0 * row.gain.mean, 100.0 * row.gain.se);
        let texts = [escape(&row.by), html::percent_estimate(row.accuracy), gain, html::duration(row.secs)];
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(&row.generator), cells(&texts))
    });
    let columns = ["Generator", "Judge", "Accuracy", "Gain, points", "Time, a network"];
    let predictor = best.predictor.map_or_else(String::new, |facts| {
        format!(
            " On {} of {} tasks that it was not fitted on, the predictor has R² {} and Kendall τ {}.",
            html::plural(facts.num_networks, "training network"),
            html::count(facts.num_runs),
            html::fixed(facts.r_squared, 3),
            html::fixed(facts.kendall_tau, 3)
        )
    });
    let content = format!(
        "<p>Of each {} samples one is kept: by accuracy on validation examples with the task’s labels, by a prediction of accuracy from weights, or by agreement \
         with the others on validation inputs. No judge sees a test example.{predictor}</p>\n{}",
        best.n,
        html::table("Test accuracy on held-out tasks of what is kept", &heads(&columns), &format!("<tbody>{body}</tbody>"))
    );
    section("best-of", "Best of n", &content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::data::TaskReport;

    #[test]
    fn judges_are_listed_with_their_cost() {
        let row = BestOfRow { generator: "flow".to_owned(), by: "agreement".to_owned(), secs: 0.025, ..BestOfRow::default() };
        let predictor = Some(PredictorFacts { r_squared: 0.25, kendall_tau: -0.125, num_networks: 1, num_runs: 1 });
        let best = BestOf { n: 8, rows: vec![row], predictor };
        let tasks = TaskReport { best_of: Some(best), ..TaskReport::default() };
        let html = super::best_of(&Report { tasks: Some(tasks), ..Report::default() });
        assert!(html.contains("Of each 8 samples") && html.contains("R² 0.250") && html.contains("agreement"), "{html}");
        assert!(super::best_of(&Report::default()).is_empty());
    }
}
