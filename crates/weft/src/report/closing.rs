//! What the samples cost, what the figures do not show, and how to make them again.

use super::data::{Fact, Report, Row};
use super::html::{self, each, escape, section};
use super::rows;

/// The section on time and memory.
pub(crate) fn costs(report: &Report) -> String {
    let costs = &report.costs;
    let batch = if costs.sample_batch > 0 { format!(", in a batch of {}", html::count(costs.sample_batch)) } else { String::new() };
    let facts = [
        ("Training the zoo".to_owned(), costs.zoo_secs.map(html::duration)),
        ("One training run, within the population".to_owned(), costs.run_secs.map(html::duration)),
        ("Fitting codec, generator and refiner".to_owned(), costs.fit_secs.map(html::duration)),
        (format!("Sampling one network{batch}"), costs.sample_secs.map(html::duration)),
        ("Training one network to the same accuracy".to_owned(), costs.sgd_secs.map(html::duration)),
        ("Peak memory".to_owned(), costs.peak_memory_bytes.map(html::size)),
    ];
    let known: Vec<(String, String)> = facts.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    if known.is_empty() && report.stages.is_empty() {
        return String::new();
    }
    let machine =
        if costs.machine.is_empty() { String::new() } else { format!("<p>Measured on {}.</p>\n", escape(&costs.machine)) };
    let table = if known.is_empty() {
        String::new()
    } else {
        let body = each(&known, |(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>"));
        html::table("Time and memory", &html::heads(&["What", "Cost"]), &format!("<tbody>{body}</tbody>"))
    };
    section("costs", "What it costs", &format!("{machine}{}{table}{}", break_even(report), stages(report)))
}

/// From how many networks on sampling is cheaper than training.
fn break_even(report: &Report) -> String {
    let costs = &report.costs;
    let (Some(fit), Some(sample), Some(sgd)) = (costs.fit_secs, costs.sample_secs, costs.sgd_secs) else { return String::new() };
    if !(fit.is_finite() && sample.is_finite() && sgd.is_finite() && fit >= 0.0 && sample > 0.0) {
        return String::new();
    }
    if sgd <= sample {
        return "<p>Here a sample takes no less time than training a network to the same accuracy.</p>\n".to_owned();
    }
    format!(
        "<p>A sample takes {} of the time that training to the same accuracy takes. The fit is paid back after {}, not counting the \
         zoo itself.</p>\n",
        ratio(sample / sgd),
        html::plural((fit / (sgd - sample)).ceil() as usize, "sampled network")
    )
}

fn ratio(v: f64) -> String {
    if v < 0.1 { format!("1/{}", html::count((1.0 / v).round() as usize)) } else { html::percent(v) }
}

fn stages(report: &Report) -> String {
    if report.stages.is_empty() {
        return String::new();
    }
    let body = each(&report.stages, |stage| {
        let reused = if stage.reused { " <span class=\"chip even\">reused</span>" } else { "" };
        format!("<tr><th scope=\"row\">{}{reused}</th><td>{}</td></tr>", escape(&stage.name), html::duration(stage.secs))
    });
    html::table("Wall time of each stage", &html::heads(&["Stage", "Time"]), &format!("<tbody>{body}</tbody>"))
}

/// The section on what the figures do not show.
pub(crate) fn limits(report: &Report) -> String {
    let ours = rows::champion(&report.evaluation);
    let items = [
        Some(one_zoo(report)),
        Some(distances(report)),
        orbit_check(report),
        test_images(report),
        Some(directions(ours)),
        ours.and_then(sample_size),
        ours.and_then(collapse),
        Some(costs_limit(report)),
    ];
    let items = each(items.into_iter().flatten(), |(lead, text)| format!("<li><strong>{lead}</strong> {text}</li>"));
    section("limits", "What these figures do not show", &format!("<ul class=\"prose\">{items}</ul>\n"))
}

type Limit = (&'static str, String);

fn one_zoo(report: &Report) -> Limit {
    let zoo = &report.zoo;
    let text = format!(
        "All of it is about {} of one architecture on one data set{}, trained by one recipe. Standard errors cover generator seeds and \
         samples; they do not cover another zoo, task or architecture.",
        html::plural(zoo.num_train_runs + zoo.num_test_runs, "training run"),
        if zoo.dataset.is_empty() { String::new() } else { format!(" ({})", escape(&zoo.dataset)) }
    );
    ("One zoo is one zoo.", text)
}

fn distances(report: &Report) -> Limit {
    let text = if report.evaluation.units.exact {
        "With one hidden layer the best matching of units is found exactly, so that no relabeling hides a copy. Other symmetries than \
         the ones derived from the graph would still go unseen."
    } else {
        "With several hidden layers the best matching of units is searched from several starts, not proven. A better one could put a \
         sample nearer to a training network than is shown here; held-out runs are measured in the same way."
    };
    (
        if report.evaluation.units.exact {
            "Distances are exact in the group that is known."
        } else {
            "Distances are upper bounds."
        },
        text.to_owned(),
    )
}

fn orbit_check(report: &Report) -> Option<Limit> {
    let check = report.evaluation.units.orbit_check;
    if report.evaluation.rows.is_empty() {
        return None;
    }
    Some(if check < 0.01 {
        (
            "Copies in disguise are found.",
            format!(
                "Random symmetric copies of training networks measured at most {}\u{202f}d₁ (asked: below 0.01).",
                html::compact(check)
            ),
        )
    } else {
        (
            "The distance failed its own check.",
            format!(
                "A random symmetric copy of a training network measured {}\u{202f}d₁, where less than 0.01 is asked: distances here can mistake a copy for something new.",
                html::compact(check)
            ),
        )
    })
}

fn test_images(report: &Report) -> Option<Limit> {
    let n = report.zoo.num_test_examples;
    let p = report.evaluation.units.zoo_mean;
    if n == 0 || !(0.0..=1.0).contains(&p) {
        return None;
    }
    let se = (p * (1.0 - p) / n as f64).sqrt();
    let size = if n < 2000 { "That is a small test set. " } else { "" };
    let text = format!(
        "One network’s accuracy on {} test images is known to about ± {} points (one standard error), and all networks share these images. {size}\
         They were read by this evaluation alone; but the best of several rows is named by the same images that score it, which flatters the best \
         of ours and the best baseline alike.",
        html::count(n),
        html::fixed(se * 100.0, 1)
    );
    Some(("Test images are read once.", text))
}

fn directions(ours: Option<&Row>) -> Limit {
    let text = "Weights may differ in directions that hardly change the function, so that distance alone proves little; hence functional \
         distance, disagreement and the null copies stand beside it. Functional distance in turn is measured on inputs like the training \
         ones and says nothing about others.";
    let own = ours
        .filter(|row| row.functional.mean < 0.5 * row.distance.mean)
        .map_or_else(String::new, |row| format!(" Here {} is much newer in weights than in function.", escape(&row.name)));
    ("Novelty in weights is not novelty in function.", text.to_owned() + &own)
}

fn sample_size(ours: &Row) -> Option<Limit> {
    let total = ours.num_seeds * ours.num_samples;
    (ours.num_seeds < 3 || total < 1000).then(|| {
        let text = format!(
            "{} of {} for {}; the rule asks for at least three seeds and 1,000 samples, so the errors given here are themselves uncertain.",
            html::plural(ours.num_seeds, "generator seed"),
            html::plural(ours.num_samples, "sample"),
            escape(&ours.name)
        );
        ("There are few samples.", text)
    })
}

fn collapse(ours: &Row) -> Option<Limit> {
    (ours.pairwise.mean < 0.75).then(|| {
        let text = format!(
            "Pairwise distance is {} of the zoo’s. Samples may be good and new, one by one, and still be variations of each other.",
            html::fixed(ours.pairwise.mean, 2)
        );
        ("Samples are more alike than runs.", text)
    })
}

fn costs_limit(report: &Report) -> Limit {
    let machine = if report.costs.machine.is_empty() { String::new() } else { format!(" ({})", escape(&report.costs.machine)) };
    (
        "Costs are one machine’s.",
        format!(
            "Times are wall times of one machine{machine} and one engine. The zoo has to be trained first, and its cost is not part of a sample’s."
        ),
    )
}

/// The section on provenance.
pub(crate) fn provenance(report: &Report) -> String {
    let (zoo, provenance) = (&report.zoo, &report.provenance);
    let fact = |name: &str, value: String| Fact { name: name.to_owned(), value };
    let facts = [
        fact("Zoo", zoo.name.clone()),
        fact("Architecture", zoo.architecture.clone()),
        fact("Parameters", html::count(zoo.num_parameters)),
        fact("Runs", format!("{} for training, {} held out", html::count(zoo.num_train_runs), html::count(zoo.num_test_runs))),
        fact("Checkpoints", html::count(zoo.num_checkpoints)),
        fact("Recipe", zoo.recipe.clone()),
        fact("Data set", zoo.dataset.clone()),
        fact(
            "Examples",
            format!("{} for validation, {} for test", html::count(zoo.num_validation_examples), html::count(zoo.num_test_examples)),
        ),
        fact("Licence", zoo.licence.clone()),
        fact("Weft", provenance.weft_version.clone()),
    ];
    let seeds = provenance.seeds.iter().map(|s| fact(&format!("Seed, {}", s.name), s.value.clone()));
    let entry = |f: &Fact, class: &str| format!("<dt>{}</dt><dd{class}>{}</dd>", escape(&f.name), escape(&f.value));
    let list = each(facts.into_iter().chain(seeds).filter(|f| !f.value.is_empty()), |f| entry(&f, ""))
        + &each(&provenance.digests, |d| entry(&fact(&format!("Digest, {}", d.name), d.value.clone()), " class=\"digest\""));
    let config = if provenance.config_toml.is_empty() {
        String::new()
    } else {
        format!(
            "<details><summary>Resolved config</summary><pre tabindex=\"0\"><code>{}</code></pre></details>\n",
            escape(&provenance.config_toml)
        )
    };
    let content = format!(
        "<p>The sampled networks are synthetic. The same config and seeds give the same tensors, bit for bit, on one machine’s CPU.</p>\n\
         <dl class=\"facts\">{list}</dl>\n{config}"
    );
    section("provenance", "Provenance", &content)
}
