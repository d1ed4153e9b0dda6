//! The sections of an evaluation of texture automata: what was found, the pictures, and the table.
//!
//! A picture is a sampled automaton's texture above the training texture that is nearest to it. Both are as they were grown: pixels
//! are not smoothed.

use super::data::{Report, RowKind, TexturePair, TextureReport, TextureRow, TextureStrip};
use super::html::{self, cells, each, escape, heads, section};
use super::rows::{KINDS, class, kind_name};

/// How every picture begins; anything else is left out.
const PICTURE: &str = "data:image/png;base64,";

/// What was found, in plain words.
pub(crate) fn verdict(report: &Report) -> String {
    let Some(TextureReport { evaluation, .. }) = &report.textures else { return String::new() };
    let of_kind = |kind| evaluation.rows.iter().filter(move |row| row.kind == kind);
    let best = of_kind(RowKind::Baseline).max_by(|a, b| a.new.mean.total_cmp(&b.new.mean));
    let lines = each(of_kind(RowKind::Generator), |row| {
        let beside = best.map_or_else(String::new, |best| {
            let ahead = row.new.mean - best.new.mean > 2.0 * row.new.se.hypot(best.new.se);
            format!(
                " The best baseline, <strong>{}</strong>, has {} that are alive and cannot be copies: {}.",
                escape(&best.name),
                html::percent_estimate(best.new),
                if ahead { "fewer by more than two standard errors" } else { "not fewer by two standard errors" }
            )
        });
        format!(
            "<p class=\"headline\">{} of {}’s automata grow a living texture</p>\n<p class=\"lede\">{} are flat, {} are alive and cannot be copies of a training \
             automaton.{beside}</p>\n",
            html::percent(row.alive.mean),
            escape(&row.name),
            html::percent_estimate(row.flat),
            html::percent_estimate(row.new),
        )
    });
    let units = &evaluation.units;
    let content = format!(
        "{lines}<p>Each automaton is grown from the state 0 on a torus of {side} × {side} cells in {} steps. Distances of textures compare how colors and \
         their differences to the next pixel are distributed, at three scales (sliced Wasserstein). Two runs of one automaton under different noise \
         are {} apart, the textures of two training automata {} (medians). <em>Flat</em>: less contrast than nineteen in twenty training textures. \
         <em>Alive</em>: not flat, and at most {} from a training texture, as nineteen in twenty training textures are from another automaton’s. \
         <em>Copy?</em>: at most {} from one, as nineteen in twenty second runs are from the first, so that it could be a copy; {} of the held-out \
         automata, which are none, are as near.</p>\n",
        html::count(units.steps),
        html::fixed(units.same, 3),
        html::fixed(units.other, 3),
        html::fixed(units.like, 3),
        html::fixed(units.copy, 3),
        of_kind(RowKind::Runs).next().map_or_else(|| html::MISSING.to_owned(), |row| html::percent(row.alive.mean - row.new.mean)),
        side = units.side,
    );
    section("verdict", "Verdict", &content)
}

/// The pictures.
pub(crate) fn pictures(report: &Report) -> String {
    let Some(TextureReport { strips, .. }) = &report.textures else { return String::new() };
    let shown: Vec<&TextureStrip> = strips.iter().filter(|strip| strip.pairs.iter().any(is_shown)).collect();
    if shown.is_empty() {
        return String::new();
    }
    let content = format!(
        "<p>The first automata of each row, none chosen: above what they grow, below the training texture that is nearest to it. Under each pair its \
         distance in weights to the nearest training automaton, in units of a held-out automaton’s (d₁), and the distance of the two textures, in \
         units of two training automata’s (t).</p>\n<div class=\"pairs\">{}</div>",
        each(shown, strip)
    );
    section("textures", "Textures", &content)
}

fn is_shown(pair: &TexturePair) -> bool {
    [&pair.sampled, &pair.nearest].iter().all(|picture| picture.starts_with(PICTURE))
}

fn strip(strip: &TextureStrip) -> String {
    let pairs = each(strip.pairs.iter().filter(|pair| is_shown(pair)), |pair| {
        let chip = match (pair.is_flat, pair.is_copy, pair.is_alive) {
            (true, ..) => "<span class=\"chip bad\">flat</span>",
            (_, true, _) => "<span class=\"chip\">copy?</span>",
            (.., true) => "<span class=\"chip good\">alive</span>",
            _ => "<span class=\"chip bad\">unlike</span>",
        };
        format!(
            "<div><img src=\"{}\" alt=\"Texture of an automaton of {name}\"><img src=\"{}\" alt=\"Nearest training texture, {nearest}\" title=\"{nearest}\">\
             <p>{}\u{202f}d₁ · {}\u{202f}t<br>{chip}</p></div>",
            escape(&pair.sampled),
            escape(&pair.nearest),
            html::fixed(pair.distance, 2),
            html::fixed(pair.texture, 2),
            name = escape(&strip.name),
            nearest = escape(&pair.nearest_name),
        )
    });
    format!(
        "<figure class=\"pair {}\"><figcaption><strong>{}</strong></figcaption><div class=\"textures\">{pairs}</div></figure>",
        class(strip.kind),
        escape(&strip.name)
    )
}

/// The table of all rows.
pub(crate) fn rows(report: &Report) -> String {
    let Some(TextureReport { evaluation, .. }) = &report.textures else { return String::new() };
    let columns = [
        "Row",
        "Distance in weights / d₁",
        "Distance to the nearest texture / two automata’s",
        "the same / two runs’",
        "Pairwise / two automata’s",
        "Contrast / zoo",
        "Change / zoo",
        "Flat",
        "Alive",
        "Alive, cannot be a copy",
        "Seeds × samples",
    ];
    let line = |row: &TextureRow| {
        let ratios = [row.distance, row.texture, row.texture_runs, row.pairwise, row.contrast, row.change];
        let fractions = [row.flat, row.alive, row.new].map(html::percent_estimate);
        let samples = format!("{} × {}", row.num_seeds, row.num_samples);
        let figures: Vec<String> = ratios.iter().map(|ratio| html::estimate(*ratio, 2)).chain(fractions).chain([samples]).collect();
        format!("<tr class=\"{}\"><th scope=\"row\">{}</th>{}</tr>", class(row.kind), escape(&row.name), cells(&figures))
    };
    let body = each(KINDS, |kind| {
        let rows = each(evaluation.rows.iter().filter(|row| row.kind == kind), line);
        if rows.is_empty() { rows } else { format!("<tbody>{}{rows}</tbody>", html::group_head(columns.len(), kind_name(kind))) }
    });
    let table = html::table("Medians and fractions over samples, mean over seeds ± standard error", &heads(&columns), &body);
    let exact = if evaluation.units.exact { "exact" } else { "upper bounds" };
    let notes = format!(
        "<p>Distances in weights are {exact}; random orbit copies of training automata measured at most {}\u{202f}d₁. {} training automata, {} \
         held out.</p>\n",
        html::fixed(evaluation.units.orbit_check, 3),
        html::count(evaluation.units.num_train),
        html::count(evaluation.units.num_held_out)
    );
    section("rows", "All rows", &format!("{table}{notes}"))
}

#[cfg(test)]
mod tests {
    use super::super::data::{Estimate, TextureEvaluation, TextureUnits};
    use super::super::page;
    use super::*;

    fn report(new: [f64; 2], v: f64) -> Report {
        let row = |name: &str, kind, mean: f64| TextureRow {
            name: name.to_owned(),
            kind,
            distance: Estimate { mean: v, se: v },
            new: Estimate { mean, se: 0.01 },
            alive: Estimate { mean: 0.75, se: 0.01 },
            ..TextureRow::default()
        };
        let rows = vec![row("<flow>", RowKind::Generator, new[0]), row("mean", RowKind::Baseline, new[1])];
        let units = TextureUnits { same: v, other: v, ..TextureUnits::default() };
        let picture = format!("{PICTURE}AAAA");
        let pair = TexturePair {
            sampled: picture.clone(),
            nearest: picture,
            nearest_name: "\"x".to_owned(),
            distance: v,
            texture: v,
            is_alive: true,
            ..TexturePair::default()
        };
        let other = TexturePair { sampled: "javascript:alert(1)".to_owned(), ..pair.clone() };
        let strips = vec![TextureStrip { name: "<flow>".to_owned(), kind: RowKind::Generator, pairs: vec![pair, other] }];
        Report { textures: Some(TextureReport { evaluation: TextureEvaluation { units, rows }, strips }), ..Report::default() }
    }

    #[test]
    fn textures_are_judged_and_shown() {
        let html = page(&report([0.5, 0.1], 0.5));
        for text in [
            "75.0\u{202f}% of &lt;flow&gt;’s automata grow a living texture",
            "fewer by more than two standard errors",
            "<section id=\"textures\"",
            "src=\"data:image/png;base64,AAAA\"",
            "title=\"&quot;x\"",
            ">alive</span>",
        ] {
            assert!(html.contains(text), "{text}");
        }
        assert!(!html.contains("javascript:"), "only pictures are shown");
        assert!(page(&report([0.5, 0.49], 0.5)).contains("not fewer by two"));
    }

    #[test]
    fn figures_that_are_not_finite_do_not_show() {
        for v in [f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, -1.0] {
            let html = page(&report([v, v], v));
            assert!(!html.contains("NaN") && !html.contains("inf\u{202f}"), "{v}");
        }
    }
}
