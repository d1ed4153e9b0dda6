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
    if first["tasks"].is_object() {
        return Ok(of_tasks(&reports, first));
    }
    if first["generated"].is_object() {
        return Ok(crate::adapters::of_adapters(&reports, first));
    }
    if first["textures"].is_object() {
        return Ok(of_textures(&reports, first));
    }
    if first["recipes"].is_object() {
        return Ok(of_recipes(&reports, first));
    }
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
    Ok(format!("{page}\nEvery run trains its own networks and its own generators; {seeds}. {}\n", costs(first)))
}

/// Real heads that hear their own phrase less well than this are weak on synthesized speech.
const WEAK: f64 = 0.9;

/// Columns of a row of texture automata: the figure, its title, what it is multiplied by, and digits.
const TEXTURES: [(&str, &str, f64, usize); 9] = [
    ("distance", "weights / d₁", 1.0, 2),
    ("texture", "texture / two automata", 1.0, 2),
    ("texture_runs", "texture / two runs", 1.0, 2),
    ("pairwise", "pairwise / two automata", 1.0, 2),
    ("contrast", "contrast / zoo", 1.0, 2),
    ("change", "change / zoo", 1.0, 2),
    ("flat", "flat, %", 100.0, 1),
    ("alive", "alive, %", 100.0, 1),
    ("new", "alive, cannot be a copy, %", 100.0, 1),
];

/// The table of evaluations of texture automata.
fn of_textures(reports: &[Value], first: &Value) -> String {
    let rows = |report: &'_ Value| list(&report["textures"]["evaluation"]["rows"]).cloned().collect::<Vec<_>>();
    let mut page = String::new();
    head(&mut page, &TEXTURES.map(|(_, title, ..)| title));
    for name in rows(first).iter().filter_map(|row| row["name"].as_str()) {
        let found: Vec<Value> = reports.iter().filter_map(|r| rows(r).into_iter().find(|row| row["name"] == name)).collect();
        let cell = |&(figure, _, factor, digits): &(&str, &str, f64, usize)| {
            let values: Vec<f64> = found.iter().filter_map(|row| Some(factor * row[figure]["mean"].as_f64()?)).collect();
            estimate(&values, digits)
        };
        line(&mut page, name, TEXTURES.iter().map(cell));
    }
    let unit = |name: &str, digits| {
        let values = reports.iter().filter_map(|report| report["textures"]["evaluation"]["units"][name].as_f64());
        estimate(&values.collect::<Vec<_>>(), digits)
    };
    let units = &first["textures"]["evaluation"]["units"];
    let of_flow = rows(first).into_iter().find(|row| row["kind"] == "generator").unwrap_or_default();
    format!(
        "{page}\nd₁ = {}; two runs of one automaton {} apart, two automata {}; alive up to {}, a copy up to {}; flat below a contrast of {} (median {}). \
         {} training and {} held-out automata, {} × {} cells, {} steps. {} runs of {} seeds × {} samples a row, mean ± standard error over runs. {}\n",
        unit("d1", 3),
        unit("same", 3),
        unit("other", 3),
        unit("like", 3),
        unit("copy", 3),
        unit("flat", 3),
        unit("contrast", 3),
        units["num_train"],
        units["num_held_out"],
        units["side"],
        units["side"],
        units["steps"],
        reports.len(),
        of_flow["num_seeds"],
        of_flow["num_samples"],
        costs(first)
    )
}

/// The tables of evaluations over held-out recipes.
fn of_recipes(reports: &[Value], first: &Value) -> String {
    let figures: Vec<&str> = list(&first["recipes"]["figures"]).filter_map(Value::as_str).collect();
    let titles: Vec<String> = figures
        .iter()
        .flat_map(|figure| {
            [format!("{figure}: rank correlation"), "its standard error over recipes".to_owned(), format!("{figure}: difference")]
        })
        .collect();
    let mut page = String::new();
    head(&mut page, &titles.iter().map(String::as_str).collect::<Vec<_>>());
    let rows = |report: &'_ Value| list(&report["recipes"]["rows"]).cloned().collect::<Vec<_>>();
    for name in rows(first).iter().filter_map(|row| row["name"].as_str()) {
        let found: Vec<Value> = reports.iter().filter_map(|r| rows(r).into_iter().find(|row| row["name"] == name)).collect();
        let of = |f: usize, what: &str, part: &str| {
            let values: Vec<f64> = found.iter().filter_map(|row| row["agreement"][f][what][part].as_f64()).collect();
            estimate(&values, 2)
        };
        let cells = (0..figures.len()).flat_map(|f| [of(f, "rank", "mean"), of(f, "rank", "se"), of(f, "error", "mean")]);
        line(&mut page, name, cells);
    }
    let _ = writeln!(
        page,
        "\n| generator | figure | control | rank correlation above the control's | its standard error | follows (both controls) |\n\
         |---|---|---|---|---|---|"
    );
    for (v, verdict) in list(&first["recipes"]["verdicts"]).enumerate() {
        for (f, figure) in figures.iter().enumerate() {
            for (g, gain) in list(&verdict["gains"]).enumerate() {
                let of = |part: &str| {
                    let gains = reports.iter().filter_map(|r| r["recipes"]["verdicts"][v]["gains"][g]["rank"][f][part].as_f64());
                    estimate(&gains.collect::<Vec<_>>(), 2)
                };
                let follows = reports.iter().filter(|r| r["recipes"]["verdicts"][v]["follows"][f] == true).count();
                let [generator, over] = [&verdict["generator"], &gain["over"]].map(|name| name.as_str().unwrap_or_default());
                let (mean, se) = (of("mean"), of("se"));
                let _ = writeln!(page, "| {generator} | {figure} | {over} | {mean} | {se} | {follows} of {} |", reports.len());
            }
        }
    }
    let held_out = list(&first["recipes"]["recipes"]).count();
    format!(
        "{page}\n{held_out} held-out recipes of {}; {} runs with a zoo and a generator each. {}\n",
        held_out as u64 + first["recipes"]["num_trained"].as_u64().unwrap_or(0),
        reports.len(),
        costs(first)
    )
}

/// The tables of evaluations over held-out tasks.
fn of_tasks(reports: &[Value], first: &Value) -> String {
    let rows = |report: &'_ Value| report["tasks"]["evaluation"]["rows"].as_array().cloned().unwrap_or_default();
    let mut page = String::new();
    let measure = first["tasks"]["measure"].as_str().unwrap_or("test accuracy, %");
    head(&mut page, &[measure, "standard error over tasks", "worst task", "disagreement / trained"]);
    for row in rows(first) {
        let Some(name) = row["name"].as_str() else { continue };
        let figures = |figure: &dyn Fn(&Value) -> Option<f64>| -> Vec<f64> {
            reports.iter().filter_map(|report| rows(report).iter().find(|row| row["name"] == name).and_then(figure)).collect()
        };
        let worst = |row: &Value| list(&row["by_task"]).filter_map(Value::as_f64).reduce(f64::min);
        let cells = [
            estimate(&figures(&|row| Some(100.0 * row["accuracy"]["mean"].as_f64()?)), 2),
            estimate(&figures(&|row| Some(100.0 * row["accuracy"]["se"].as_f64()?)), 2),
            estimate(&figures(&|row| Some(100.0 * worst(row)?)), 2),
            estimate(&figures(&|row| row["disagreement"]["mean"].as_f64()), 2),
        ];
        line(&mut page, name, cells.into_iter());
    }
    let _ = writeln!(
        page,
        "\n| generator | beside | difference, points | its standard error over tasks | better by two of them |\n|---|---|---|---|---|"
    );
    let comparisons = |report: &'_ Value| report["tasks"]["evaluation"]["comparisons"].as_array().cloned().unwrap_or_default();
    for comparison in comparisons(first) {
        let same = |other: &Value| other["ours"] == comparison["ours"] && other["with"] == comparison["with"];
        let found: Vec<Value> = reports.iter().filter_map(|report| comparisons(report).into_iter().find(|c| same(c))).collect();
        let figures = |key: &str| found.iter().filter_map(|c| Some(100.0 * c["difference"][key].as_f64()?)).collect::<Vec<f64>>();
        let better = found.iter().filter(|c| c["better"] == true).count();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {better} of {} |",
            comparison["ours"].as_str().unwrap_or_default(),
            comparison["with"].as_str().unwrap_or_default(),
            estimate(&figures("mean"), 2),
            estimate(&figures("se"), 2),
            found.len()
        );
    }
    if first["calibration"].is_array() {
        return page + &of_heads(reports, first);
    }
    let costs_of = &first["tasks"]["costs"];
    let sampling: Vec<String> = costs_of["sample_secs"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(name, secs)| Some(format!("{name} {:.2} ms", 1e3 * secs.as_f64()?)))
        .collect();
    let train = costs_of["train_secs"].as_f64().unwrap_or(f64::NAN);
    page += &of_few_examples(reports);
    format!(
        "{page}\n{} held-out tasks, {} of them independent; {} runs with a zoo and generators each. In the first, a network trained within a population took \
         {:.1} ms, a sample: {}. {}\n",
        list(&first["tasks"]["evaluation"]["tasks"]).count(),
        first["tasks"]["evaluation"]["num_clusters"],
        reports.len(),
        1e3 * train,
        sampling.join(", "),
        costs(first)
    )
}

/// What stands below the tables of wake words: how well real heads hear their own phrases, which is the same in every report.
fn of_heads(reports: &[Value], first: &Value) -> String {
    let mut heads: Vec<(f64, String)> = list(&first["calibration"])
        .filter_map(|head| Some((head["auc"].as_f64()?, format!("{} ({})", head["phrase"].as_str()?, head["split"].as_str()?))))
        .collect();
    heads.sort_by(|a, b| a.0.total_cmp(&b.0));
    let weak: Vec<String> =
        heads.iter().filter(|(auc, _)| *auc < WEAK).map(|(auc, name)| format!("{name} {:.1}", 100.0 * auc)).collect();
    let evaluation = &first["tasks"]["evaluation"];
    let mut page = "\n| phrase | real head | flow | nearest phrase | mean head |\n|---|---|---|---|---|\n".to_owned();
    for (t, phrase) in list(&evaluation["tasks"]).enumerate() {
        let cell = |name: &str| {
            let of_report = |report: &Value| {
                let rows = report["tasks"]["evaluation"]["rows"].clone();
                list(&rows).find(|row| row["name"] == name).and_then(|row| Some(100.0 * row["by_task"][t].as_f64()?))
            };
            estimate(&reports.iter().filter_map(of_report).collect::<Vec<_>>(), 1)
        };
        line(
            &mut page,
            phrase.as_str().unwrap_or_default(),
            ["real head", "flow", "nearest phrase", "mean head"].map(cell).into_iter(),
        );
    }
    format!(
        "{page}\n{} held-out phrases, {} clips in all, {} runs with a generator each. Of {} real heads on their own phrases, half have {:.1} % or more; below {:.0} % are {}: {}.\n",
        list(&evaluation["tasks"]).count(),
        first["tasks"]["num_clips"],
        reports.len(),
        heads.len(),
        100.0 * heads.get(heads.len() / 2).map_or(f64::NAN, |(auc, _)| *auc),
        100.0 * WEAK,
        weak.len(),
        weak.join(", ")
    )
}

/// The tables of ways from a few examples to a network, where they were measured; times are means over reports.
fn of_few_examples(reports: &[Value]) -> String {
    let few = |report: &'_ Value| report["tasks"]["few_examples"].clone();
    let first = few(&reports[0]);
    let mut page = String::new();
    if !first.is_object() {
        return page;
    }
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len().max(1) as f64;
    let found = |path: &[&str], at: &[usize], key: &dyn Fn(&Value) -> Option<f64>| -> Vec<f64> {
        let step = |report: &Value| {
            let mut value = few(report);
            for (name, &i) in path.iter().zip(at) {
                value = value[name][i].clone();
            }
            key(&value)
        };
        reports.iter().filter_map(step).collect()
    };
    let _ =
        writeln!(page, "\n| way | steps | milliseconds | test accuracy, % | standard error over tasks |\n|---|---|---|---|---|");
    for (w, way) in list(&first["ways"]).enumerate() {
        for (p, point) in list(&way["points"]).enumerate() {
            let figures = |key: &dyn Fn(&Value) -> Option<f64>| found(&["ways", "points"], &[w, p], key);
            let _ = writeln!(
                page,
                "| {} | {} | {:.2} | {} | {} |",
                way["name"].as_str().unwrap_or_default(),
                point["budget"],
                mean(figures(&|point| Some(1e3 * point["secs"].as_f64()?))),
                estimate(&figures(&|point| Some(100.0 * point["accuracy"]["mean"].as_f64()?)), 2),
                estimate(&figures(&|point| Some(100.0 * point["accuracy"]["se"].as_f64()?)), 2),
            );
        }
    }
    let _ = writeln!(
        page,
        "\n| ours, most steps | milliseconds | beside | milliseconds | difference, points | its standard error over tasks | better by two of them |\n\
         |---|---|---|---|---|---|---|"
    );
    for (c, comparison) in list(&first["comparisons"]).enumerate() {
        let figures = |key: &dyn Fn(&Value) -> Option<f64>| found(&["comparisons"], &[c], key);
        let _ = writeln!(
            page,
            "| {} | {:.2} | {} | {:.2} | {} | {} | {} of {} |",
            comparison["ours"].as_str().unwrap_or_default(),
            mean(figures(&|c| Some(1e3 * c["secs"].as_f64()?))),
            comparison["with"].as_str().unwrap_or_default(),
            mean(figures(&|c| Some(1e3 * c["with_secs"].as_f64()?))),
            estimate(&figures(&|c| Some(100.0 * c["difference"]["mean"].as_f64()?)), 2),
            estimate(&figures(&|c| Some(100.0 * c["difference"]["se"].as_f64()?)), 2),
            mean(figures(&|c| c["better"].as_bool().map(|better| f64::from(u8::from(better))))) * reports.len() as f64,
            reports.len()
        );
    }
    let settings: Vec<String> = list(&first["ways"])
        .filter_map(|way| Some(format!("{}: {}", way["name"].as_str()?, way["setting"].as_str().filter(|s| !s.is_empty())?)))
        .collect();
    let _ = writeln!(
        page,
        "\n{} examples of each output, {} draws a task. Times are medians, means over runs. In the first run: {}.",
        first["per_output"],
        first["num_sets"],
        settings.join("; ")
    );
    page
}

fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    list(&report["evaluation"]["rows"])
}

pub(crate) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn head(page: &mut String, titles: &[impl AsRef<str>]) {
    let titles: Vec<&str> = titles.iter().map(AsRef::as_ref).collect();
    let _ = writeln!(page, "| networks | {} |\n|---|{}", titles.join(" | "), "---|".repeat(titles.len()));
}

pub(crate) fn line(page: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = writeln!(page, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

/// Mean and standard error; `–` where there is no figure.
pub(crate) fn estimate(values: &[f64], digits: usize) -> String {
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
    fn tasks_have_tables_of_their_own() {
        let report = |accuracy: f64| {
            let mean = |mean: f64| serde_json::json!({ "mean": mean, "se": 0.01 });
            let row = serde_json::json!({ "name": "flow", "accuracy": mean(accuracy), "by_task": [0.5, 0.25], "disagreement": mean(2.0) });
            let comparison = serde_json::json!({ "ours": "flow", "with": "ridge", "difference": mean(-0.02), "better": false });
            let evaluation =
                serde_json::json!({ "tasks": ["0", "1"], "num_clusters": 2, "rows": [row], "comparisons": [comparison] });
            serde_json::json!({ "tasks": { "evaluation": evaluation, "costs": { "train_secs": 0.1, "sample_secs": { "flow": 0.001 } } } }).to_string()
        };
        let page = tables(&[report(0.8), report(0.9)]).unwrap();
        assert!(page.contains("| flow | 85.00 ± 5.00 | 1.00 ± 0.00 | 25.00 ± 0.00 | 2.00 ± 0.00 |"), "{page}");
        assert!(page.contains("| flow | ridge | -2.00 ± 0.00 | 1.00 ± 0.00 | 0 of 2 |"), "{page}");
        assert!(page.contains("2 held-out tasks, 2 of them independent; 2 runs") && page.contains("flow 1.00 ms"), "{page}");
    }

    #[test]
    fn a_few_examples_have_tables_of_their_own() {
        let report = |accuracy: f64, better: bool| {
            let mean = |mean: f64| serde_json::json!({ "mean": mean, "se": 0.01 });
            let point = serde_json::json!({ "budget": 4, "secs": 0.002, "accuracy": mean(accuracy) });
            let way = serde_json::json!({ "name": "flow", "ours": true, "setting": "scale 1", "points": [point] });
            let comparison = serde_json::json!({ "ours": "flow", "secs": 0.002, "with": "mean", "with_secs": 0.001, "difference": mean(0.1), "better": better });
            let few = serde_json::json!({ "per_output": 16, "num_sets": 3, "ways": [way], "comparisons": [comparison] });
            serde_json::json!({ "tasks": { "few_examples": few } }).to_string()
        };
        let page = tables(&[report(0.7, true), report(0.8, false)]).unwrap();
        assert!(page.contains("| flow | 4 | 2.00 | 75.00 ± 5.00 | 1.00 ± 0.00 |"), "{page}");
        assert!(page.contains("| flow | 2.00 | mean | 1.00 | 10.00 ± 0.00 | 1.00 ± 0.00 | 1 of 2 |"), "{page}");
        assert!(page.contains("16 examples of each output, 3 draws a task") && page.contains("flow: scale 1."), "{page}");
        assert!(!tables(&[r#"{"tasks": {}}"#.to_owned()]).unwrap().contains("milliseconds"));
    }

    #[test]
    fn heads_are_told_apart_by_auc() {
        let report = |auc: f64| {
            let mean = |mean: f64| serde_json::json!({ "mean": mean, "se": 0.01 });
            let row = serde_json::json!({ "name": "flow", "accuracy": mean(auc), "by_task": [auc] });
            let head = |phrase: &str, auc: f64| serde_json::json!({ "phrase": phrase, "split": "train", "auc": auc });
            serde_json::json!({ "tasks": { "measure": "AUC, %", "evaluation": { "tasks": ["hal"], "rows": [row] }, "num_clips": 36 },
                "calibration": [head("edna", 0.97), head("tars", 0.625)] })
            .to_string()
        };
        let page = tables(&[report(0.5), report(0.75)]).unwrap();
        assert!(page.contains("| networks | AUC, % |") && page.contains("| hal | – | 62.5 ± 12.5 | – | – |"), "{page}");
        assert!(page.contains("below 90 % are 1: tars (train) 62.5.") && page.contains("half have 97.0 % or more"), "{page}");
    }

    #[test]
    fn textures_have_a_table_of_their_own() {
        let report = |alive: f64| {
            let mean = |mean: f64| serde_json::json!({ "mean": mean, "se": 0.01 });
            let row = serde_json::json!({ "name": "flow", "kind": "generator", "num_seeds": 3, "num_samples": 24, "texture": mean(0.5), "alive": mean(alive) });
            let units = serde_json::json!({ "d1": 2.0, "side": 64, "steps": 400, "num_train": 9, "num_held_out": 3 });
            serde_json::json!({ "textures": { "evaluation": { "units": units, "rows": [row] } } }).to_string()
        };
        let page = tables(&[report(0.8), report(0.9)]).unwrap();
        assert!(page.contains("| flow | – | 0.50 ± 0.00 | – | – | – | – | – | 85.0 ± 5.0 | – |"), "{page}");
        assert!(page.contains("9 training and 3 held-out automata, 64 × 64 cells, 400 steps. 2 runs of 3 seeds × 24"), "{page}");
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
