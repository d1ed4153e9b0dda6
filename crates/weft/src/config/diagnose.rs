//! What is wrong with a run file, where, and what was probably meant.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// A run file or an override that is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the run file `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{origin}{place}: {what}")]
    Text {
        /// Name of the file.
        origin: String,
        /// Line and column, if they are known.
        place: Place,
        /// What is wrong.
        what: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// An override is wrong.
    #[error("`--set {text}`: {what}")]
    Override {
        /// The override as it was given.
        text: String,
        /// What is wrong.
        what: String,
        /// What was probably meant.
        hint: Option<String>,
    },
}

/// A place in a text, if it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(Option<(usize, usize)>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((line, column)) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl ConfigError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("`configs/` holds run files to start from; `weft quickstart` needs none".to_owned()),
            Self::Text { hint, .. } | Self::Override { hint, .. } => hint.clone(),
        }
    }

    /// An error of the TOML reader, with its place.
    pub(super) fn at(origin: &str, text: &str, error: &toml::de::Error) -> Self {
        let (what, hint) = explain(text, error);
        let place = Place(error.span().map(|span| line_and_column(text, span.start)));
        Self::Text { origin: origin.to_owned(), place, what, hint }
    }

    /// A value that its type allows and its meaning does not.
    pub(super) fn out_of_range(origin: &str, text: &str, key: &str, reason: &str) -> Self {
        let place = Place(locate(text, key).map(|offset| line_and_column(text, offset)));
        Self::Text { origin: origin.to_owned(), place, what: format!("`{key}` {reason}"), hint: None }
    }
}

/// Puts an error of the TOML reader into the words of a user, with a hint where one is to be had.
pub(super) fn explain(text: &str, error: &toml::de::Error) -> (String, Option<String>) {
    let message = error.message();
    let words = quoted(message);
    if let (true, [found, known @ ..]) =
        (message.starts_with("unknown field") || message.starts_with("unknown variant"), &words[..])
    {
        let is_value = error.span().is_some_and(|span| text[in_bounds(text, span)].starts_with(['"', '\'']));
        let noun = if is_value { "value" } else { "key" };
        return (format!("unknown {noun} `{found}`"), Some(suggest(found, known, noun)));
    }
    if let (true, [key, ..]) = (message.starts_with("missing field"), &words[..]) {
        return (format!("missing key `{key}`"), None);
    }
    if message.starts_with("wanted exactly 1 element") {
        let count = if message.ends_with("found 0 elements") { "none" } else { "several" };
        let hint = "the alternatives are table names, such as `[data.digits]` or `[data.idx]`; keep one";
        return (format!("exactly one alternative must stand here, found {count}"), Some(hint.to_owned()));
    }
    (message.to_owned(), None)
}

/// The nearest of the known words, and all of them.
fn suggest(found: &str, known: &[&str], noun: &str) -> String {
    let listed: Vec<_> = known.iter().map(|k| format!("`{k}`")).collect();
    let here = if listed.is_empty() { format!("there is no {noun} here") } else { format!("{noun}s here: {}", listed.join(", ")) };
    let nearest = known.iter().map(|k| (strsim::damerau_levenshtein(found, k), k)).min();
    match nearest {
        Some((distance, key)) if distance <= 1 + found.len() / 3 => format!("did you mean `{key}`? {here}"),
        _ => here,
    }
}

/// The words between backticks.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

fn in_bounds(text: &str, span: Range<usize>) -> Range<usize> {
    let end = span.end.min(text.len());
    span.start.min(end)..end
}

/// Line and column of a byte offset, both from 1, the column in characters.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    (before.matches('\n').count() + 1, before[start..].chars().count() + 1)
}

/// Where the value of a dotted key, or else of the nearest table above it, stands in a text.
fn locate(text: &str, key: &str) -> Option<usize> {
    let root = toml::de::DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut found = None;
    for part in key.split('.') {
        let Some((name, value)) = table.iter().find(|(name, _)| name.get_ref() == part) else { break };
        found = Some(name.span().start);
        match value.get_ref() {
            toml::de::DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    found
}
