//! A results page from the reports of independent runs: each figure's mean and standard error over runs.

use serde_json::Value;
use std::fmt::Write as _;

/// The columns that every row of a report has.
const COLUMNS: [(&str, &str, usize); 8] = [
    ("accuracy", "test accuracy", 4),
    ("distance", "distance / d₁", 2),
    ("functional", "functional / f₁", 2),
    ("fellow_distance", "nearest fellow / d₁", 2),
    ("pairwise", "pairwise / zoo", 2),
    ("pairwise_functional", "functional pairwise / zoo", 2),
    ("disagreement", "disagreement / zoo", 2),
    ("sample_run_equivalents", "cost / run", 4),
];

/// Writes the tables of all reports, which must be of one run file under different seeds.
pub(crate) fn tables(reports: &[String]) -> Result<String, String> {
    let reports: Vec<Value> =
        reports.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>().map_err(|e| e.to_string())?;
    let first = reports.first().ok_or("no report is named")?;
    let names: Vec<&str> = rows(first).filter_map(|row| row["name"].as_str()).collect();
    let cell = |name: &str, digits: usize, figure: &dyn Fn(&Value) -> Option<f64>| {
        let values: Vec<f64> = reports.iter().filter_map(|r| rows(r).find(|row| row["name"] == name).and_then(figure)).collect();
        estimate(&values, digits)
    };
    let mut page = String::new();
    let titles: Vec<&str> = COLUMNS.iter().map(|(_, title, _)| *title).collect();
    head(&mut page, &titles);
    for name in &names {
        let cells =
            COLUMNS.iter().map(|&(key, _, digits)| cell(name, digits, &|row| row[key]["mean"].as_f64().or(row[key].as_f64())));
        line(&mut page, name, cells);
    }
    let curves = [
        ("curves", "npd", &first["evaluation"]["thresholds"], "NPD (novel in weights and function, performant, distinct)"),
        (
            "snapshot_curves",
            "np",
            &first["evaluation"]["snapshot_thresholds"],
            "N&P (novel in weights, performant) in the leave-one-out unit over all snapshots",
        ),
    ];
    for (set, kind, thresholds, title) in curves {
        let thresholds: Vec<f64> = thresholds.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let bars: Vec<&str> =
            rows(first).next().into_iter().flat_map(|row| list(&row[set])).filter_map(|c| c["bar"].as_str()).collect();
        for bar in bars {
            let _ = writeln!(page, "\n{title}, accuracy bar: {bar}\n");
            head(&mut page, &thresholds.iter().map(|t| format!("at {t}")).collect::<Vec<_>>());
            for name in &names {
                let at = |i: usize| move |row: &Value| list(&row[set]).find(|c| c["bar"] == bar)?[kind][i]["mean"].as_f64();
                line(&mut page, name, (0..thresholds.len()).map(|i| cell(name, 3, &at(i))));
            }
        }
    }
    let runs = reports.len();
    let seeds = if runs == 1 {
        "one run: no standard error over runs".to_owned()
    } else {
        format!("mean ± standard error over {runs} runs")
    };
    Ok(format!("{page}\nEvery run trains its own zoo and its own generators; {seeds}. {}\n", costs(first)))
}

fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    list(&report["evaluation"]["rows"])
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn head(page: &mut String, titles: &[impl AsRef<str>]) {
    let titles: Vec<&str> = titles.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(page, "| networks | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
}

fn line(page: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = writeln!(page, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// Mean and standard error; `–` where there is no figure.
fn estimate(values: &[f64], digits: usize) -> String {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    match values.len() {
        0 => "–".to_owned(),
        1 => format!("{mean:.digits$}"),
        _ => {
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
            format!("{mean:.digits$} ± {:.digits$}", (variance / n).sqrt())
        }
    }
}

/// The first run's times.
fn costs(report: &Value) -> String {
    let stages: Vec<String> = list(&report["stages"])
        .filter_map(|stage| Some(format!("{} {:.1} s", stage["name"].as_str()?, stage["secs"].as_f64()?)))
        .collect();
    let memory =
        report["costs"]["peak_memory_bytes"].as_f64().map_or(String::new(), |b| format!(", {:.2} GB at the peak", b / 1e9));
    format!(
        "The first run took: {}{memory} ({}).",
        stages.join(", "),
        report["costs"]["machine"].as_str().unwrap_or("machine unknown")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(accuracy: f64) -> String {
        format!(
            r#"{{"evaluation": {{"thresholds": [0.5], "snapshot_thresholds": [], "rows": [{{"name": "flow", "accuracy": {{"mean": {accuracy}}},
            "curves": [{{"bar": "median", "npd": [{{"mean": 0.25}}]}}]}}]}}, "stages": [{{"name": "zoo", "secs": 2.0}}]}}"#
        )
    }

    #[test]
    fn means_and_errors_over_runs() {
        let page = tables(&[report(0.8), report(0.9)]).unwrap();
        assert!(page.contains("| flow | 0.8500 ± 0.0500 | – |"), "{page}");
        assert!(page.contains("| flow | 0.250 ± 0.000 |"), "{page}");
        assert!(page.contains("over 2 runs") && page.contains("zoo 2.0 s"), "{page}");
        assert!(tables(&[]).is_err() && tables(&["{".to_owned()]).is_err());
    }
}
