//! The verdict: what was found in plain words, the key figures as cards, and the finding at every threshold.

use super::data::{Evaluation, Finding, Report, Row, Verdict};
use super::html::{self, cells, each, escape, heads, list, section};
use super::rows;

/// The verdict's section.
pub(crate) fn verdict(report: &Report) -> String {
    let evaluation = &report.evaluation;
    let (headline, lede) = headline(evaluation);
    let content = format!(
        "<p class=\"headline\">{headline}</p>\n<p class=\"lede\">{lede}</p>\n{}{}{}",
        standing(evaluation),
        cards(report),
        findings(evaluation)
    );
    section("verdict", "Verdict", &content)
}

/// The finding in a line, and in a sentence a finding.
fn headline(evaluation: &Evaluation) -> (String, String) {
    let main: Vec<&Verdict> = evaluation.verdicts.iter().filter(|v| Some(v.bar.as_str()) == rows::main_bar(evaluation)).collect();
    let of = |finding| main.iter().copied().filter(|v| v.finding == finding).collect::<Vec<_>>();
    let (novel, matched, replay) = (of(Finding::Novel), of(Finding::Matched), of(Finding::Replay));
    let headline = match (novel.is_empty(), matched.is_empty(), replay.is_empty()) {
        (false, _, _) => format!("Novel at {}\u{202f}d₁", thresholds(&novel)),
        (true, false, _) => format!("Matched by a baseline at {}\u{202f}d₁", thresholds(&matched)),
        (true, true, false) => "Replay: nothing that trivial baselines do not reach".to_owned(),
        (true, true, true) => "No verdict: nothing of ours was evaluated".to_owned(),
    };
    let by_one = main.iter().all(|v| Some(&v.ours) == main.first().map(|first| &first.ours));
    let clauses: Vec<String> = [
        (&novel, "makes more networks that are new, working and distinct than any baseline without refiner, by more than two standard errors"),
        (&matched, "is within two standard errors of the best baseline without refiner"),
        (&replay, "falls behind the best baseline without refiner or finds almost nothing new"),
    ]
    .into_iter()
    .filter(|(verdicts, _)| !verdicts.is_empty())
    .enumerate()
    .map(|(i, (verdicts, what))| {
        let who = match (by_one, i) {
            (true, 0) => format!("<strong>{}</strong>", escape(&verdicts[0].ours)),
            (true, _) => "it".to_owned(),
            (false, _) => "the best of ours".to_owned(),
        };
        let unit = if i == 0 { " times a fresh run’s distance" } else { "" };
        format!("At {}{unit}, {who} {what}. ", thresholds(verdicts))
    })
    .collect();
    (headline, clauses.concat())
}

fn thresholds(verdicts: &[&Verdict]) -> String {
    list(&verdicts.iter().map(|v| html::threshold(v.threshold)).collect::<Vec<_>>())
}

/// Where the samples stand beside trained networks.
fn standing(evaluation: &Evaluation) -> String {
    let Some(ours) = rows::champion(evaluation) else { return String::new() };
    let held_out = rows::held_out(evaluation).map_or_else(String::new, |row| {
        format!(", held-out runs {} and {}\u{202f}d₁", html::percent(row.accuracy.mean), html::fixed(row.distance.mean, 2))
    });
    format!(
        "<p class=\"lede\">Samples of {} classify {} of the test images correctly and lie {}\u{202f}d₁ from the nearest training network \
         (median); the training runs’ own networks reach {}{held_out}.</p>\n",
        escape(&ours.name),
        html::percent(ours.accuracy.mean),
        html::fixed(ours.distance.mean, 2),
        html::percent(evaluation.units.zoo_mean),
    )
}

/// The key figures of our main row.
fn cards(report: &Report) -> String {
    let evaluation = &report.evaluation;
    let Some(ours) = rows::champion(evaluation) else { return String::new() };
    let held_out = |figure: fn(&Row) -> f64| rows::held_out(evaluation).map_or(f64::NAN, figure);
    let ratio = |v: f64| html::fixed(v, 2);
    let mut cards = vec![
        card(
            "Test accuracy",
            &html::percent(ours.accuracy.mean),
            &format!(
                "training runs {}, held-out runs {}",
                html::percent(evaluation.units.zoo_mean),
                html::percent(held_out(|r| r.accuracy.mean))
            ),
        ),
        card(
            "New weights",
            &format!("{}\u{202f}d₁", ratio(ours.distance.mean)),
            &format!("to the nearest training network, median; held-out runs {}", ratio(held_out(|r| r.distance.mean))),
        ),
        card(
            "New function",
            &format!("{}\u{202f}f₁", ratio(ours.functional.mean)),
            &format!("the same between outputs; held-out runs {}", ratio(held_out(|r| r.functional.mean))),
        ),
        card(
            "Diversity",
            &format!("{}\u{202f}×", ratio(ours.pairwise.mean)),
            &format!("the training runs’ pairwise distance; held-out runs {}", ratio(held_out(|r| r.pairwise.mean))),
        ),
    ];
    cards.extend(npd_card(evaluation));
    cards.extend(parity_card(evaluation, &ours.name));
    cards.extend(cost_card(report, ours));
    format!("<p class=\"eyebrow\">Key figures of {}</p><ul class=\"cards\">{}</ul>\n", escape(&ours.name), cards.concat())
}

fn card(name: &str, value: &str, note: &str) -> String {
    format!(
        "<li><span class=\"card-name\">{name}</span><span class=\"card-value\">{value}</span><span class=\"card-note\">{note}</span></li>"
    )
}

fn npd_card(evaluation: &Evaluation) -> Option<String> {
    let bar = rows::main_bar(evaluation)?;
    let verdict = evaluation.verdicts.iter().filter(|v| v.bar == bar).min_by(|a, b| {
        let from_half = |v: &Verdict| (v.threshold - 0.5).abs();
        from_half(a).total_cmp(&from_half(b))
    })?;
    let note = format!(
        "new, working and distinct; best baseline {}, held-out runs {}",
        html::percent(verdict.baseline_npd.mean),
        html::percent(verdict.held_out_npd.mean)
    );
    Some(card(&format!("NPD at {}", html::threshold(verdict.threshold)), &html::percent(verdict.ours_npd.mean), &note))
}

fn parity_card(evaluation: &Evaluation, name: &str) -> Option<String> {
    let counts: Vec<_> = evaluation.parity.iter().filter(|p| p.generator == name).collect();
    let met = counts.iter().filter(|p| p.met).count();
    (!counts.is_empty()).then(|| {
        card(
            "Fresh-run parity",
            &format!("{met} of {}", counts.len()),
            "counts on which samples are no worse than fresh training runs",
        )
    })
}

fn cost_card(report: &Report, ours: &Row) -> Option<String> {
    let secs = ours.sample_secs.or(report.costs.sample_secs)?;
    let note = match report.costs.sgd_secs {
        Some(sgd) => format!("a network; training to the same accuracy takes {}", html::duration(sgd)),
        None => "a network, amortized over a batch".to_owned(),
    };
    Some(card("Sampling", &html::duration(secs), &note))
}

/// The table of verdicts, grouped by accuracy bar.
fn findings(evaluation: &Evaluation) -> String {
    if evaluation.verdicts.is_empty() {
        return String::new();
    }
    let mut bars: Vec<&str> = Vec::new();
    for verdict in &evaluation.verdicts {
        if !bars.contains(&verdict.bar.as_str()) {
            bars.push(&verdict.bar);
        }
    }
    let body = each(bars, |bar| {
        let verdicts = evaluation.verdicts.iter().filter(|v| v.bar == bar);
        let accuracy = evaluation.rows.iter().find_map(|row| rows::curve(row, bar)).map_or(f64::NAN, |curve| curve.accuracy);
        format!(
            "<tbody>{}{}</tbody>",
            html::group_head(7, &format!("Accuracy at least {}", escape(&html::bar(bar, accuracy)))),
            each(verdicts, finding)
        )
    });
    let columns = ["Threshold", "Finding", "NPD", "Best of ours", "Best baseline", "its NPD", "Held-out NPD"];
    format!(
        "<p>NPD is the fraction of samples that are <em>novel</em> (at least the threshold away from every training network, in \
         weights and in function), <em>performant</em> (accuracy at or above the bar) and <em>distinct</em> (as far from their \
         fellow samples). The unit d₁, and f₁ for function, is the median distance of a held-out training run to its nearest \
         training network: 1 is what training afresh gives.</p>\n{}",
        html::table("The finding at every threshold and accuracy bar", &heads(&columns), &body)
    )
}

fn finding(verdict: &Verdict) -> String {
    let (class, word) = match verdict.finding {
        Finding::Novel => ("good", "novel"),
        Finding::Matched => ("even", "matched"),
        Finding::Replay => ("bad", "replay"),
    };
    let cells = cells(&[
        format!("<span class=\"chip {class}\">{word}</span>"),
        html::percent_estimate(verdict.ours_npd),
        format!("<span class=\"words\">{}</span>", escape(&verdict.ours)),
        format!("<span class=\"words\">{}</span>", escape(&verdict.baseline)),
        html::percent_estimate(verdict.baseline_npd),
        html::percent_estimate(verdict.held_out_npd),
    ]);
    format!("<tr><th scope=\"row\">{}\u{202f}d₁</th>{cells}</tr>", html::threshold(verdict.threshold))
}
