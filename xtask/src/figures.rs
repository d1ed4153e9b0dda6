//! The README's table of figures, from a quickstart's `report.json`.

use serde_json::Value;
use std::fmt::Write as _;

/// Begins the line after which figures stand; the rest of the line says what writes them.
const START: &str = "<!-- figures";
const END: &str = "<!-- /figures -->";

/// Baselines that stand for their kind: copies, averages and noise.
const BASELINES: [&str; 4] = ["nearest", "interpolation-aligned", "soup-16-aligned", "pca-gaussian"];

/// Replaces what stands between the marks; `None` without marks.
pub(crate) fn between_marks(readme: &str, table: &str) -> Option<String> {
    let mark = readme.find(START)?;
    let start = mark + readme[mark..].find('\n')? + 1;
    let end = start + readme[start..].find(END)?;
    Some(format!("{}{table}{}", &readme[..start], &readme[end..]))
}

/// The yardstick, ours and some baselines as a table, with what it took.
pub(crate) fn of_report(json: &str) -> Result<String, String> {
    let report: Value = serde_json::from_str(json).map_err(|e| format!("the report is not JSON: {e}"))?;
    let rows = report["evaluation"]["rows"].as_array().ok_or("the report has no rows")?;
    let mut table =
        "| networks | test accuracy | distance | functional distance | pairwise distance |\n|---|---|---|---|---|\n".to_owned();
    let is_shown = |row: &&Value| {
        let (name, kind) = (row["name"].as_str().unwrap_or_default(), row["kind"].as_str().unwrap_or_default());
        name == "held-out runs" || kind == "generator" || kind == "refined" || BASELINES.contains(&name)
    };
    for row in rows.iter().filter(is_shown) {
        let mean = |figure: &str| row[figure]["mean"].as_f64().unwrap_or(f64::NAN);
        let name = row["name"].as_str().unwrap_or_default();
        let name = if row["kind"] == "refined" { format!("**{name}**") } else { name.to_owned() };
        let [distance, functional, pairwise] = ["distance", "functional", "pairwise"].map(mean);
        let _ = writeln!(table, "| {name} | {:.2} % | {distance:.2} | {functional:.2} | {pairwise:.2} |", 100.0 * mean("accuracy"));
    }
    let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let costs = &report["costs"];
    let secs: f64 = report["stages"].as_array().into_iter().flatten().map(|stage| number(&stage["secs"])).sum();
    let _ = writeln!(
        table,
        "\nDistances are to the nearest training network, in units of an independent training run's; pairwise distance is relative to \
         the training runs' own. All of it took {secs:.0} s and {:.0} MB ({}).",
        number(&costs["peak_memory_bytes"]) / 1e6,
        costs["machine"].as_str().unwrap_or("a machine unknown")
    );
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_stand_between_the_marks() {
        let row = |name: &str, kind: &str| {
            let mean = |value: f64| serde_json::json!({ "mean": value, "se": 0.0 });
            serde_json::json!({ "name": name, "kind": kind, "accuracy": mean(0.5), "distance": mean(1.0),
                "functional": mean(0.25), "pairwise": mean(2.0) })
        };
        let rows = [row("held-out runs", "runs"), row("kde", "baseline"), row("flow + refiner", "refined")];
        let report = serde_json::json!({ "evaluation": { "rows": rows }, "stages": [{ "secs": 3.0 }, { "secs": 4.0 }],
            "costs": { "machine": "2 threads", "peak_memory_bytes": 5_000_000 } });
        let table = of_report(&report.to_string()).expect("a table");
        assert!(table.contains("| **flow + refiner** | 50.00 % | 1.00 | 0.25 | 2.00 |"), "{table}");
        assert!(table.contains("held-out runs") && !table.contains("kde"), "{table}");
        assert!(table.ends_with("took 7 s and 5 MB (2 threads).\n"), "{table}");
        let readme = format!("a\n{START}: by hand -->\nold\n{END}\nb\n");
        assert_eq!(between_marks(&readme, "new\n"), Some(format!("a\n{START}: by hand -->\nnew\n{END}\nb\n")));
        assert_eq!(between_marks("a", "new"), None);
        assert!(of_report("{}").is_err());
    }
}
