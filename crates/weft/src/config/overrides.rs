//! `--set a.b=c`: keys of a run file replaced by their dotted path.

use super::{ConfigError, diagnose};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Tables that hold exactly one alternative: naming another one replaces it.
const ALTERNATIVES: [&str; 18] = [
    "task",
    "recipe.duration",
    "recipe.optimizer",
    "recipe.schedule",
    "multi-task.duration",
    "multi-task.optimizer",
    "multi-task.schedule",
    "data",
    "architecture",
    "zoo",
    "zoo.train.recipe.duration",
    "zoo.train.recipe.snapshots",
    "zoo.train.recipe.optimizer",
    "zoo.train.recipe.schedule",
    "codec",
    "codec.pca.rank",
    "generator",
    "sampler",
];

/// What is wrong with a run file that its types alone do not refuse: the first key out of range, with the reason.
type Check<T> = fn(&T) -> Result<(), (&'static str, String)>;

/// Applies overrides in order to a run file of any kind that was read from `text`.
///
/// They need to make sense together, not each on its own: another data set may take two keys. If they do not, the
/// first one is named after which it was so.
pub(super) fn apply<T: DeserializeOwned>(config: T, text: &str, overrides: &[String], check: Check<T>) -> Result<T, ConfigError> {
    if overrides.is_empty() {
        return Ok(config);
    }
    let mut table: Table = toml::from_str(text).map_err(|e| ConfigError::at("run file", text, &e))?;
    let mut valid = Ok(config);
    for text in overrides {
        let refuse = |what: String, hint| ConfigError::Override { text: text.clone(), what, hint };
        set(&mut table, text).map_err(|what| refuse(what, None))?;
        let written = toml::to_string(&table).map_err(|e| refuse(e.to_string(), None))?;
        let now = toml::from_str::<T>(&written)
            .map_err(|e| {
                let (what, hint) = diagnose::explain(&written, &e);
                refuse(what, hint)
            })
            .and_then(|config| match check(&config) {
                Ok(()) => Ok(config),
                Err((key, reason)) => Err(refuse(format!("`{key}` {reason}"), None)),
            });
        valid = match (valid, now) {
            (Err(first), Err(_)) => Err(first),
            (_, now) => now,
        };
    }
    valid
}

fn set(table: &mut Table, text: &str) -> Result<(), String> {
    let (path, value) = text.split_once('=').ok_or("expected `dotted.key=value`")?;
    let parts: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if parts.iter().any(|part| part.is_empty()) {
        return Err("expected `dotted.key=value`".to_owned());
    }
    let (last, tables) = parts.split_last().ok_or("expected `dotted.key=value`")?;
    let mut at = table;
    for (depth, part) in tables.iter().enumerate() {
        keep_one(at, &parts[..depth], part);
        let next = at.entry(*part).or_insert_with(|| Value::Table(Table::new()));
        at = next.as_table_mut().ok_or_else(|| format!("`{}` is a value, not a table", parts[..=depth].join(".")))?;
    }
    keep_one(at, tables, last);
    at.insert((*last).to_owned(), parse_value(value.trim()));
    Ok(())
}

/// Removes the other alternatives of a table that holds exactly one.
fn keep_one(table: &mut Table, path: &[&str], chosen: &str) {
    if ALTERNATIVES.contains(&path.join(".").as_str()) {
        table.retain(|key, _| key == chosen);
    }
}

/// A TOML value, or the text itself as a string, so that names need no quotes on a command line.
fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}
