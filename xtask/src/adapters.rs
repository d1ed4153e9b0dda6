//! Tables of reports of `weft adapter train`: each figure's mean and standard error over runs.

use crate::results::{estimate, head, line, list};
use serde_json::Value;
use std::fmt::Write as _;

/// A row's name without what training tasks choose anew in each run: the multiple of a merger, the number of steps.
fn chosen_anew(name: &str) -> String {
    let (name, control) = name.split_once(", shown").map_or((name, String::new()), |(name, rest)| (name, format!(", shown{rest}")));
    let name = name.split_once(", ×").map_or(name, |(name, _)| name);
    let name = match name.split_once(", then ") {
        Some((start, _)) if start.starts_with("hyper-decoder") => format!("{start}, then the steps that are best in training"),
        _ => name.to_owned(),
    };
    name + &control
}

/// Tables of all held-out tasks, and of each group of them where there are several.
pub(crate) fn of_adapters(reports: &[Value], first: &Value) -> String {
    let groups: Vec<&str> = list(&first["generated"]["groups"]).filter_map(|group| group["group"].as_str()).collect();
    let mut page = of_group(reports, first, None);
    for group in groups {
        let _ = writeln!(page, "\n**{group}**\n");
        page += &of_group(reports, first, Some(group));
    }
    let view = &first["generated"];
    let mean =
        |figure: &dyn Fn(&Value) -> Option<f64>, digits| estimate(&reports.iter().filter_map(figure).collect::<Vec<_>>(), digits);
    let learnt = list(&view["learnt"]).enumerate().map(|(i, learnt)| {
        let of = |report: &Value| list(&report["generated"]["learnt"]).nth(i).cloned().unwrap_or_default();
        let millis = mean(&|report| Some(1e3 * of(report)["sample_secs"].as_f64()?), 2);
        let share = mean(&|report| Some(of(report)["sample_secs"].as_f64()? / report["generated"]["own_secs"].as_f64()?), 4);
        format!("an adapter from {} takes {millis} ms, {share} of training one", learnt["shown"].as_str().unwrap_or_default())
    });
    format!(
        "{page}\n{} training tasks, {} held out, {} of them independent; {} runs, each with adapters and generators of its own, mean ± standard error over \
         runs. On the runs' devices {}.\n",
        view["training"],
        list(&view["evaluation"]["tasks"]).count(),
        view["evaluation"]["num_clusters"],
        reports.len(),
        learnt.collect::<Vec<_>>().join("; ")
    )
}

/// One group's view in a report.
fn view(report: &Value, group: Option<&str>) -> Value {
    match group {
        None => report["generated"].clone(),
        Some(group) => list(&report["generated"]["groups"]).find(|view| view["group"] == group).cloned().unwrap_or_default(),
    }
}

fn of_group(reports: &[Value], first: &Value, group: Option<&str>) -> String {
    let bits = first["unit"] == "bits-a-byte";
    let (title, factor, digits) = if bits { ("bits a byte", -1.0, 3) } else { ("accuracy, %", 100.0, 2) };
    let views: Vec<Value> = reports.iter().map(|report| view(report, group)).collect();
    let mut page = String::new();
    head(&mut page, &[title, "standard error over tasks", "of the way from one adapter of all to own, %", "from the base, %"]);
    for row in list(&views[0]["evaluation"]["rows"]) {
        let name = chosen_anew(row["name"].as_str().unwrap_or_default());
        let found: Vec<(usize, &Value)> = views
            .iter()
            .filter_map(|view| {
                list(&view["evaluation"]["rows"])
                    .position(|row| chosen_anew(row["name"].as_str().unwrap_or_default()) == name)
                    .map(|at| (at, view))
            })
            .collect();
        let figures = |figure: &dyn Fn(&(usize, &Value)) -> Option<f64>| found.iter().filter_map(figure).collect::<Vec<f64>>();
        let of_row = |key: &'static str, factor: f64| {
            move |&(at, view): &(usize, &Value)| Some(factor * view["evaluation"]["rows"][at]["accuracy"][key].as_f64()?)
        };
        let of_list = |key: &'static str| move |&(at, view): &(usize, &Value)| Some(100.0 * view[key][at].as_f64()?);
        let cells = [
            estimate(&figures(&of_row("mean", factor)), digits),
            estimate(&figures(&of_row("se", factor.abs())), digits),
            estimate(&figures(&of_list("gap")), 1),
            estimate(&figures(&of_list("gain")), 1),
        ];
        line(&mut page, &name, cells.into_iter());
    }
    let _ = writeln!(
        page,
        "\n| generator | beside | better by | its standard error over tasks | by two of them |\n|---|---|---|---|---|"
    );
    let pair = |c: &Value| [&c["ours"], &c["with"]].map(|name| chosen_anew(name.as_str().unwrap_or_default()));
    for comparison in list(&views[0]["evaluation"]["comparisons"]) {
        let [ours, with] = pair(comparison);
        let found: Vec<&Value> = views
            .iter()
            .filter_map(|view| list(&view["evaluation"]["comparisons"]).find(|c| pair(c) == [ours.clone(), with.clone()]))
            .collect();
        let figures =
            |key: &str| found.iter().filter_map(|c| Some(factor.abs() * c["difference"][key].as_f64()?)).collect::<Vec<f64>>();
        let better = found.iter().filter(|c| c["better"] == true).count();
        let (mean, se) = (estimate(&figures("mean"), digits), estimate(&figures("se"), digits));
        let _ = writeln!(page, "| {ours} | {with} | {mean} | {se} | {better} of {} |", found.len());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report(bits: f64, scale: &str) -> Value {
        let row = |name: &str, bits: f64| json!({"name": name, "accuracy": {"mean": -bits, "se": 0.1}});
        let difference = json!({"mean": 0.25, "se": 0.1});
        json!({
            "unit": "bits-a-byte",
            "generated": {
                "evaluation": {
                    "tasks": ["a", "b"], "num_clusters": 2,
                    "rows": [row("own adapter", 4.0), row(&format!("TIES, × {scale}"), bits), row("hyper-decoder", 4.5)],
                    "comparisons": [{"ours": "hyper-decoder", "with": format!("TIES, × {scale}"), "difference": difference, "better": true}],
                },
                "gap": [1.0, -0.5, 0.5], "gain": [1.0, 0.8, 0.9], "groups": [], "training": 9, "own_secs": 1.0,
                "learnt": [{"shown": "text", "sample_secs": 0.001}],
            },
        })
    }

    #[test]
    fn rows_are_found_whatever_multiple_a_run_chose() {
        let reports = [report(5.0, "0.5"), report(6.0, "8")];
        let page = of_adapters(&reports, &reports[0]);
        assert!(page.contains("| TIES | 5.500 ± 0.500 | 0.100 ± 0.000 | -50.0 ± 0.0 | 80.0 ± 0.0 |"), "{page}");
        assert!(page.contains("| hyper-decoder | TIES | 0.250 ± 0.000 | 0.100 ± 0.000 | 2 of 2 |"), "{page}");
        assert!(page.contains("from text takes 1.00 ± 0.00 ms, 0.0010 ± 0.0000 of training one"), "{page}");
    }

    #[test]
    fn numbers_of_steps_are_named_alike() {
        let name = chosen_anew("hyper-decoder, then 2 steps, shown another language");
        assert_eq!(name, chosen_anew("hyper-decoder, then 1 step, shown another language"));
        assert_eq!(chosen_anew("one adapter of all, then 4 steps"), "one adapter of all, then 4 steps");
        assert_eq!(chosen_anew("flow, by names, shown another task"), "flow, by names, shown another task");
    }
}
