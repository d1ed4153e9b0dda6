//! The page: its head, its order and its frame.

use super::data::Report;
use super::html::{count, each, escape, plural};
use super::{
    best, break_even, closing, conditional, few, filters, method, novelty, recipes, rows, structure, tables, textures, verdict,
};

const STYLE: &str = include_str!("style.css");

/// Renders a report as one self-contained HTML page.
///
/// The page needs no network and no script. Whatever the figures are, finite or not, it is well formed.
#[must_use]
pub fn page(report: &Report) -> String {
    let judged = if report.textures.is_some() {
        vec![textures::verdict(report), textures::pictures(report), textures::rows(report)]
    } else if report.tasks.is_some() {
        vec![conditional::verdict(report), conditional::rows(report), few::few(report), best::best_of(report)]
    } else {
        vec![
            verdict::verdict(report),
            recipes::recipes(report),
            novelty::scatter(report),
            novelty::curves(report),
            filters::filters(report),
            tables::all_rows(report),
            tables::parity(report),
            method::ablation(report),
        ]
    };
    let method = [
        method::training(report),
        method::canonicalization(report),
        structure::structure(report),
        method::codec(report),
        if report.tasks.is_some() { break_even::costs(report) } else { closing::costs(report) },
        if report.tasks.is_some() || report.textures.is_some() { String::new() } else { closing::limits(report) },
        closing::provenance(report),
    ];
    let sections: Vec<String> = judged.into_iter().chain(method).collect();
    let title = if report.title.trim().is_empty() { "Weft report" } else { report.title.trim() };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"generator\" content=\"weft {}\">\n\
         <title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<a class=\"skip\" href=\"#verdict\">Skip to the verdict</a>\n\
         <header><p class=\"eyebrow\">Weft · sampled, not trained</p><h1>{}</h1><p class=\"dek\">{}</p>{}</header>\n<main>\n{}</main>\n\
         <footer><p>Made by Weft {} from <code>report.json</code>.</p></footer>\n</body>\n</html>\n",
        escape(&report.provenance.weft_version),
        escape(title),
        escape(title),
        dek(report),
        contents(&sections),
        sections.concat(),
        escape(&report.provenance.weft_version),
    )
}

/// What was run, in a sentence or two.
fn dek(report: &Report) -> String {
    let zoo = &report.zoo;
    let samples = rows::champion(&report.evaluation).map_or_else(String::new, |row| {
        format!("{} were drawn from <strong>{}</strong>", plural(row.num_seeds * row.num_samples, "network"), escape(&row.name))
    });
    let learned = format!(
        "{} of {} ({} each{}){}",
        plural(zoo.num_train_runs, "training run"),
        if zoo.architecture.is_empty() {
            "one architecture".to_owned()
        } else {
            format!("<strong>{}</strong>", escape(&zoo.architecture))
        },
        plural(zoo.num_parameters, "weight"),
        if zoo.num_checkpoints > 0 { format!("; {} checkpoints in all", count(zoo.num_checkpoints)) } else { String::new() },
        if zoo.dataset.is_empty() { String::new() } else { format!(" on {}", escape(&zoo.dataset)) },
    );
    let start = if samples.is_empty() { "Learned from ".to_owned() } else { format!("{samples}, a generator that learned from ") };
    format!(
        "{start}{learned}. {} held out: the yardstick in every table.",
        match zoo.num_test_runs {
            1 => "1 more run was".to_owned(),
            n => format!("{} more runs were", count(n)),
        }
    )
}

/// Links to the sections that are there.
fn contents(sections: &[String]) -> String {
    let between = |text: &'static str, section: &str, end: char| {
        section.split_once(text).and_then(|(_, rest)| rest.split_once(end)).map(|(inside, _)| inside.to_owned())
    };
    let links = each(sections, |section| {
        let id = between("<section id=\"", section, '"');
        let heading = section.split_once("<h2").and_then(|(_, rest)| between(">", rest, '<'));
        id.zip(heading).map_or_else(String::new, |(id, heading)| format!("<li><a href=\"#{id}\">{heading}</a></li>"))
    });
    format!("<nav aria-label=\"Contents\"><ul>{links}</ul></nav>")
}
