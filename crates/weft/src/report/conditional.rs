//! The sections of an evaluation over tasks that were held out.

use super::data::{Report, TaskReport, TaskRow, TaskRowKind};
use super::html::{self, cells, each, escape, heads, section};

/// Kinds in the order of their tables.
const KINDS: [(TaskRowKind, &str); 4] = [
    (TaskRowKind::Runs, "Trained for the tasks: the yardstick"),
    (TaskRowKind::Ours, "Ours, told the task"),
    (TaskRowKind::Control, "Controls: the same, told something else"),
    (TaskRowKind::Baseline, "Without a generator"),
];

/// What was found, in plain words.
pub(crate) fn verdict(report: &Report) -> String {
    let Some(TaskReport { evaluation, .. }) = &report.tasks else { return String::new() };
    let lines = each(&evaluation.verdicts, |verdict| {
        let name = escape(&verdict.generator);
        let condition = if verdict.uses_condition { ("good", "uses its condition") } else { ("bad", "ignores its condition") };
        let regression = match verdict.is_regression {
            Some(true) => " Its samples of one task differ less than half as much as networks trained for it: it is a regression.",
            _ => "",
        };
        let not_beaten = if verdict.not_beaten.is_empty() {
            "It beats every row without a generator by two standard errors.".to_owned()
        } else {
            let names: Vec<String> = verdict.not_beaten.iter().map(|n| escape(n)).collect();
            format!("It does not beat {} by two standard errors.", html::list(&names))
        };
        format!(
            "<p class=\"lede\"><strong>{name}</strong> <span class=\"chip {}\">{}</span> {} points beside networks trained for the tasks. \
             {not_beaten}{regression}</p>\n",
            condition.0,
            condition.1,
            points(verdict.gap),
        )
    });
    let content = format!(
        "<p class=\"headline\">{} tasks that were never trained for</p>\n{lines}<p>A generator uses its condition if its samples are better \
         than its own samples told another task, and told none, by two standard errors of the difference, task by task; a task and its complement count \
         once ({} independent tasks).</p>\n",
        evaluation.tasks.len(),
        evaluation.num_clusters
    );
    section("verdict", "Verdict", &content)
}

/// A difference of accuracies in points, with its error.
fn points(difference: super::data::Estimate) -> String {
    let sign = if difference.mean < 0.0 { "−" } else { "+" };
    format!("{sign}{} ± {}", html::fixed(100.0 * difference.mean.abs(), 2), html::fixed(100.0 * difference.se, 2))
}

/// The table of all rows, what each generator is compared with, and each task.
pub(crate) fn rows(report: &Report) -> String {
    let Some(TaskReport { evaluation, .. }) = &report.tasks else { return String::new() };
    let columns = ["Row", "Accuracy", "worst task", "Disagreement / trained", "Seeds × samples"];
    let line = |row: &TaskRow| {
        let worst = row.by_task.iter().copied().reduce(f64::min).map_or_else(|| html::MISSING.to_owned(), html::percent);
        let disagreement = row.disagreement.map_or_else(|| html::MISSING.to_owned(), |d| html::estimate(d, 2));
        let samples = format!("{} × {}", row.num_seeds, row.num_samples);
        let cells = cells(&[html::percent_estimate(row.accuracy), worst, disagreement, samples]);
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&row.name))
    };
    let body = each(KINDS, |(kind, heading)| {
        let rows = each(evaluation.rows.iter().filter(|row| row.kind == kind), line);
        if rows.is_empty() { rows } else { format!("<tbody>{}{rows}</tbody>", html::group_head(columns.len(), heading)) }
    });
    let table = html::table("Test accuracy on held-out tasks, mean over tasks ± standard error", &heads(&columns), &body);
    let compared = each(&evaluation.comparisons, |comparison| {
        let (class, word) = if comparison.better { ("good", "better") } else { ("even", "not better") };
        let cells = cells(&[
            escape(&comparison.with),
            points(comparison.difference),
            format!("<span class=\"chip {class}\">{word}</span>"),
        ]);
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&comparison.ours))
    });
    let compared = html::table(
        "Differences in points, task by task",
        &heads(&["Generator", "beside", "Difference", "by two standard errors"]),
        &format!("<tbody>{compared}</tbody>"),
    );
    section(
        "rows",
        "Held-out tasks",
        &format!("{table}{compared}<details><summary>Each task</summary>{}</details>\n", tasks(report)),
    )
}

fn tasks(report: &Report) -> String {
    let Some(TaskReport { evaluation, .. }) = &report.tasks else { return String::new() };
    let names = evaluation.rows.iter().map(|row| escape(&row.name));
    let columns: Vec<String> = std::iter::once("Task".to_owned()).chain(names).collect();
    let body = each(evaluation.tasks.iter().enumerate(), |(t, task)| {
        let figures: Vec<String> =
            evaluation.rows.iter().map(|row| html::optional(row.by_task.get(t).copied(), html::percent)).collect();
        format!("<tr><th scope=\"row\">{}</th>{}</tr>", escape(task), cells(&figures))
    });
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    html::table("Test accuracy of each held-out task", &heads(&columns), &format!("<tbody>{body}</tbody>"))
}
