//! Labels from where a file lies: `phrase=file-stem`, `language=folder`.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// A rule that gives every file of an import a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    /// The label's key.
    pub key: String,
    /// Where its value comes from.
    pub source: LabelSource,
}

/// Where a label's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    /// The file's name without its ending, in lower case, with spaces for underscores. A version at its end (`_v2`,
    /// `_v0.1`, ` (1)`) becomes the label `variant` instead.
    FileStem,
    /// The name of the folder that is this many above the file, from 1, as long as it lies below the import's root.
    Folder(usize),
    /// The same for all files.
    Constant(String),
}

/// The label that takes what [`LabelSource::FileStem`] cuts off.
const VARIANT: &str = "variant";

/// The longest key or value of a label, in bytes.
pub(super) const MAX_LEN: usize = 1_000;

impl LabelRule {
    /// Parses `KEY=file-stem`, `KEY=folder`, `KEY=folder:2` or `KEY=text`.
    ///
    /// # Errors
    /// [`Error::Setting`] for a key that is empty or too long, or a number of folders that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |expected| Error::Setting { setting: "label", expected, got: format!("`{text}`") };
        let (key, source) = text.split_once('=').ok_or_else(|| fail("KEY=file-stem, KEY=folder, KEY=folder:N or KEY=text"))?;
        let key = key.trim();
        if key.is_empty() || key.len() > MAX_LEN || source.is_empty() || source.len() > MAX_LEN {
            return Err(fail("a key and a value of 1 to 1,000 bytes"));
        }
        let source = match source {
            "file-stem" => LabelSource::FileStem,
            "folder" => LabelSource::Folder(1),
            other => match other.strip_prefix("folder:") {
                Some(number) => {
                    let number = number.parse().ok().filter(|&number| number > 0);
                    LabelSource::Folder(number.ok_or_else(|| fail("folder:N with N from 1 on"))?)
                }
                None => LabelSource::Constant(other.to_owned()),
            },
        };
        Ok(Self { key: key.to_owned(), source })
    }
}

/// The labels that rules give to a file, from its path below the root of the import.
pub(super) fn labels_of(rules: &[LabelRule], source: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let parts: Vec<&str> = source.split('/').collect();
    for rule in rules {
        let value = match &rule.source {
            LabelSource::Constant(text) => Some(text.clone()),
            LabelSource::Folder(above) => (parts.len() - 1).checked_sub(*above).map(|i| parts[i].to_owned()),
            LabelSource::FileStem => {
                let name = parts[parts.len() - 1];
                let (stem, variant) = split_stem(name.rsplit_once('.').map_or(name, |(stem, _)| stem));
                if let Some(variant) = variant {
                    labels.insert(VARIANT.to_owned(), variant);
                }
                Some(stem)
            }
        };
        if let Some(value) = value.filter(|value| !value.is_empty() && value.len() <= MAX_LEN) {
            labels.insert(rule.key.clone(), value);
        }
    }
    labels
}

/// A file's stem as words, and the version at its end.
fn split_stem(stem: &str) -> (String, Option<String>) {
    let words = |text: &str| text.replace('_', " ").to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut rest, mut variants) = (stem.trim_end(), Vec::new());
    while let Some((before, variant)) = cut_copy(rest).or_else(|| cut_version(rest)) {
        // A name that is nothing but a version keeps it.
        if words(before).is_empty() {
            break;
        }
        variants.insert(0, variant);
        rest = before.trim_end();
    }
    (words(rest), (!variants.is_empty()).then(|| variants.join(" ")))
}

/// Cuts off `(2)`, which downloads put after the name of a second copy.
fn cut_copy(stem: &str) -> Option<(&str, String)> {
    let (before, number) = stem.strip_suffix(')')?.rsplit_once('(')?;
    is_number(number).then(|| (before, number.to_owned()))
}

/// Cuts off `_v2`, `-v2`, ` v2` or `_v0.1`.
fn cut_version(stem: &str) -> Option<(&str, String)> {
    let at = stem.rfind(['_', '-', ' '])?;
    let version = stem[at + 1..].strip_prefix(['v', 'V'])?;
    is_number(version).then(|| (&stem[..at], format!("v{version}")))
}

/// Whether this is a number with dots between its parts.
fn is_number(text: &str) -> bool {
    text.len() <= 32 && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_become_phrases_and_variants() {
        let check = |stem: &str, words: &str, variant: Option<&str>| {
            assert_eq!(split_stem(stem), (words.to_owned(), variant.map(str::to_owned)), "{stem}");
        };
        check("hey_jarvis_v0.1", "hey jarvis", Some("v0.1"));
        check("Queen_of_lights", "queen of lights", None);
        check("hey__hal", "hey hal", None);
        check("hal_v2(1)", "hal", Some("v2 1"));
        check("net (3)", "net", Some("3"));
        check("jupiter-40-30-1300", "jupiter-40-30-1300", None);
        check("Mr._Wick", "mr. wick", None);
        check("_v2", "v2", None);
        check("(1)", "(1)", None);
        check("a_v", "a v", None);
        check("é_v1", "é", Some("v1"));
    }

    #[test]
    fn rules_read_paths_below_the_root() {
        let rules = ["phrase=file-stem", "language=folder:2", "name=folder", "task=wake word", "far=folder:9"];
        let rules: Vec<_> = rules.iter().map(|rule| LabelRule::parse(rule).unwrap()).collect();
        let labels = labels_of(&rules, "en/hal/Hal_v1.safetensors");
        let expected = [("language", "en"), ("name", "hal"), ("phrase", "hal"), ("task", "wake word"), ("variant", "v1")];
        assert_eq!(labels, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(labels_of(&rules[1..3], "a.safetensors"), BTreeMap::new());
        for bad in ["phrase", "=folder", "a=", "a=folder:0", "a=folder:x"] {
            assert!(LabelRule::parse(bad).is_err(), "{bad}");
        }
    }
}
