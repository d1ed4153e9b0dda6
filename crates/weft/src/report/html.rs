//! Text for the page: escaping, and figures in words.

use super::data::Estimate;

/// What stands where a figure is missing or not finite.
pub(crate) const MISSING: &str = "–";

/// Escapes text for HTML content and quoted attributes; control characters, which HTML forbids, become spaces.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// The concatenation of one piece of HTML an item.
pub(crate) fn each<T>(items: impl IntoIterator<Item = T>, piece: impl FnMut(T) -> String) -> String {
    items.into_iter().map(piece).collect::<Vec<_>>().concat()
}

/// `a, b and c`.
pub(crate) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [init @ .., last] => format!("{} and {last}", init.join(", ")),
    }
}

/// `1 run`, `2 runs`: for nouns that take an `s`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { "s" })
}

/// A whole number with thousands separators.
pub(crate) fn count(n: usize) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

/// A number with so many decimals, or in powers of ten where those would not show it.
pub(crate) fn fixed(v: f64, decimals: usize) -> String {
    if !v.is_finite() {
        return MISSING.to_owned();
    }
    if v != 0.0 && (v.abs() >= 1e6 || v.abs() < 0.5 * 0.1f64.powi(decimals as i32) * 0.1) {
        return scientific(v, 1);
    }
    let text = format!("{v:.decimals$}");
    let is_zero = text.trim_start_matches('-').chars().all(|c| c == '0' || c == '.');
    if is_zero { text.trim_start_matches('-').to_owned() } else { text.replace('-', "−") }
}

/// `1.2 × 10⁻³`.
pub(crate) fn scientific(v: f64, decimals: usize) -> String {
    if !v.is_finite() {
        return MISSING.to_owned();
    }
    let text = format!("{v:.decimals$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{} × 10{}", mantissa.replace('-', "−"), superscript(exponent)),
        None => text,
    }
}

/// Digits and a sign as superscripts.
pub(crate) fn superscript(text: &str) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    text.chars().map(|c| c.to_digit(10).map_or('⁻', |d| DIGITS[d as usize])).collect()
}

/// A number to about three figures.
pub(crate) fn compact(v: f64) -> String {
    match v.abs() {
        a if a == 0.0 || a >= 100.0 => fixed(v, 0),
        a if a >= 10.0 => fixed(v, 1),
        a if a >= 1.0 => fixed(v, 2),
        a if a >= 1e-3 => fixed(v, 3),
        _ => scientific(v, 1),
    }
}

/// A fraction as a percentage with one decimal.
pub(crate) fn percent(v: f64) -> String {
    if !v.is_finite() {
        return MISSING.to_owned();
    }
    // A tiny percentage is as good as none, and powers of ten before a percent sign read badly.
    let shown = if v.abs() < 1e-3 { (v * 1000.0).round() / 1000.0 } else { v };
    format!("{}\u{202f}%", fixed(shown * 100.0, 1))
}

/// `0.95 ± 0.01`; the error is left out where it is missing or too small to show.
pub(crate) fn estimate(e: Estimate, decimals: usize) -> String {
    with_error(fixed(e.mean, decimals), e.se, decimals)
}

/// `95.1 % ± 0.2`.
pub(crate) fn percent_estimate(e: Estimate) -> String {
    with_error(percent(e.mean), e.se * 100.0, 1)
}

/// Adds an error, with one more decimal where it would round to nothing.
fn with_error(mean: String, se: f64, decimals: usize) -> String {
    let shown = [decimals, decimals + 1].into_iter().find(|d| se >= 0.5 * 0.1f64.powi(*d as i32));
    match shown {
        Some(d) if mean != MISSING && se.is_finite() => format!("{mean} <span class=\"se\">±\u{202f}{}</span>", fixed(se, d)),
        _ => mean,
    }
}

/// A duration in the unit that suits it.
pub(crate) fn duration(secs: f64) -> String {
    if !secs.is_finite() {
        return MISSING.to_owned();
    }
    let (value, unit) = match secs.abs() {
        s if s < 1e-3 => (secs * 1e6, "µs"),
        s if s < 1.0 => (secs * 1e3, "ms"),
        s if s < 120.0 => (secs, "s"),
        s if s < 7200.0 => (secs / 60.0, "min"),
        _ => (secs / 3600.0, "h"),
    };
    let decimals = usize::from(value.abs() < 100.0) + usize::from(value.abs() < 10.0);
    format!("{}\u{202f}{unit}", fixed(value, decimals))
}

/// An optional figure, or a dash.
pub(crate) fn optional(v: Option<f64>, format: impl Fn(f64) -> String) -> String {
    v.map_or_else(|| MISSING.to_owned(), format)
}

/// A size in binary units.
pub(crate) fn size(bytes: u64) -> String {
    let mib = bytes as f64 / 1_048_576.0;
    if mib < 1024.0 { format!("{}\u{202f}MiB", fixed(mib, 0)) } else { format!("{}\u{202f}GiB", fixed(mib / 1024.0, 2)) }
}

/// A threshold as readers say it: `¼`, `1½`.
pub(crate) fn threshold(v: f64) -> String {
    let whole = v.trunc();
    let fraction = match v - whole {
        f if (f - 0.25).abs() < 1e-9 => "¼",
        f if (f - 0.5).abs() < 1e-9 => "½",
        f if (f - 0.75).abs() < 1e-9 => "¾",
        0.0 => return fixed(v, 0),
        _ => return compact(v),
    };
    if whole == 0.0 { fraction.to_owned() } else { format!("{}{fraction}", fixed(whole, 0)) }
}

/// An accuracy bar in words.
pub(crate) fn bar(name: &str, accuracy: f64) -> String {
    match name {
        "median" => format!("the training runs’ median, {}", percent(accuracy)),
        "quartile" => format!("the training runs’ 25th percentile, {}", percent(accuracy)),
        _ => percent(accuracy),
    }
}

/// A table in a container of its own that scrolls sideways, reachable by keyboard.
pub(crate) fn table(caption: &str, head: &str, body: &str) -> String {
    format!(
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{caption}\">\
         <table><caption><span class=\"stay\">{caption}</span></caption><thead><tr>{head}</tr></thead>{body}</table></div>\n"
    )
}

/// The head of a group of rows, across all columns.
pub(crate) fn group_head(num_columns: usize, content: &str) -> String {
    format!("<tr><th class=\"group\" scope=\"rowgroup\" colspan=\"{num_columns}\"><span class=\"stay\">{content}</span></th></tr>")
}

/// Column heads, the first left-aligned as the row heads below it are; they may hold markup.
pub(crate) fn heads(columns: &[&str]) -> String {
    each(columns, |text| format!("<th scope=\"col\">{text}</th>"))
}

/// Cells of one row.
pub(crate) fn cells(texts: &[String]) -> String {
    each(texts, |text| format!("<td>{text}</td>"))
}

/// A section with a heading that can be linked to.
pub(crate) fn section(id: &str, heading: &str, content: &str) -> String {
    format!("<section id=\"{id}\" aria-labelledby=\"{id}-h\"><h2 id=\"{id}-h\">{heading}</h2>\n{content}</section>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_cannot_enter_through_text() {
        assert_eq!(escape("<b a=\"1\" b='2'>&\u{0}\n"), "&lt;b a=&quot;1&quot; b=&#39;2&#39;&gt;&amp; \n");
    }

    #[test]
    fn figures_read_as_people_write_them() {
        let cases = [
            (fixed(-0.0001, 2), "−1.0 × 10⁻⁴"),
            (fixed(-0.004, 2), "0.00"),
            (fixed(-1.5, 1), "−1.5"),
            (fixed(f64::NAN, 2), MISSING),
            (fixed(f64::NEG_INFINITY, 2), MISSING),
            (scientific(1.23e-5, 1), "1.2 × 10⁻⁵"),
            (count(1_234_567), "1,234,567"),
            (count(999), "999"),
            (percent(0.9567), "95.7\u{202f}%"),
            (percent(f64::INFINITY), MISSING),
            (percent(-1e-9), "0.0\u{202f}%"),
            (percent(0.0007), "0.1\u{202f}%"),
            (duration(0.0031), "3.10\u{202f}ms"),
            (duration(75.4), "75.4\u{202f}s"),
            (duration(600.0), "10.0\u{202f}min"),
            (size(1_610_612_736), "1.50\u{202f}GiB"),
            (threshold(0.25), "¼"),
            (threshold(1.5), "1½"),
            (threshold(1.0), "1"),
            (threshold(0.3), "0.300"),
            (threshold(f64::NAN), MISSING),
            (list(&["a".into(), "b".into(), "c".into()]), "a, b and c"),
            (plural(1, "run"), "1 run"),
            (estimate(Estimate { mean: 0.5, se: f64::NAN }, 2), "0.50"),
            (estimate(Estimate { mean: f64::NAN, se: 1.0 }, 2), MISSING),
            (estimate(Estimate { mean: 0.5, se: 0.004 }, 2), "0.50 <span class=\"se\">±\u{202f}0.004</span>"),
            (estimate(Estimate { mean: 0.5, se: 0.000_4 }, 2), "0.50"),
            (percent_estimate(Estimate { mean: 0.5, se: 0.02 }), "50.0\u{202f}% <span class=\"se\">±\u{202f}2.0</span>"),
        ];
        for (got, expected) in cases {
            assert_eq!(got, expected);
        }
    }
}
