//! One text in many languages: the Universal Declaration of Human Rights, as a zip archive of text files.
//!
//! A file is a language or a variant of one: `CODE.txt` or `CODE_VARIANT.txt`, UTF-8, its paragraphs in blocks between blank lines: title and
//! preamble, then the articles or their parts. The archive's directory is checked as strictly as that of weights, and sizes are bounded
//! before anything is expanded.

use crate::mapped::MappedFile;
use crate::source::archive::read_directory;
use crate::{Error, Result};
use std::path::Path;

const WHAT: &str = "a zip archive of `CODE.txt` files";

/// The largest text, and the most files.
const MAX_TEXT_BYTES: u64 = 4 << 20;
const MAX_FILES: usize = 10_000;

/// Passages that a language needs, so that some are left to be tested on.
pub const MIN_PASSAGES: usize = 8;

/// One language, or one variant of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Language {
    /// Its name in the archive, such as `srp_cyrl`.
    pub id: String,
    /// The code that its variants share, ISO 639-3 as a rule, such as `srp`.
    pub code: String,
    /// The code's English name, if it is a code of ISO 639-3.
    pub name: Option<&'static str>,
    /// The text in its order, a passage a block of paragraphs.
    pub passages: Vec<String>,
}

impl Language {
    /// The passages to train on and those that are held out: the last share of them, so that in all languages much the same articles are
    /// held out, however their first blocks are cut.
    ///
    /// None if the share leaves a side without a passage.
    #[must_use]
    pub fn split(&self, held_out: f64) -> Option<(&[String], &[String])> {
        let count = self.passages.len();
        let test = (held_out * count as f64).round();
        (test >= 1.0 && test < count as f64).then(|| self.passages.split_at(count - test as usize))
    }

    /// What it is called in a sentence: its name, and its variant if it has one.
    #[must_use]
    pub fn title(&self) -> String {
        let name = self.name.unwrap_or(&self.code);
        match self.id.strip_prefix(&self.code).and_then(|rest| rest.strip_prefix('_')) {
            Some(variant) => format!("{name} ({variant})"),
            None => name.to_owned(),
        }
    }
}

/// The languages of an archive, in the order of their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Languages {
    /// Those that were read.
    pub read: Vec<Language>,
    /// Those that are too short, and why.
    pub skipped: Vec<(String, String)>,
}

/// Reads an archive of one text in many languages.
///
/// # Errors
/// [`Error::DataMissing`] if there is no such file; [`Error::Data`] for a damaged or oversized archive, an entry that is not `CODE.txt`, text that
/// is not UTF-8, or an archive without a language.
pub fn languages(path: &Path) -> Result<Languages> {
    if !path.is_file() {
        let hint = "give the path of `udhr2.zip`".to_owned();
        return Err(Error::DataMissing { dataset: "languages".to_owned(), wanted: WHAT.to_owned(), path: path.to_owned(), hint });
    }
    let fail = |reason: String| Error::Data { path: path.to_owned(), expected: WHAT, reason };
    let file = MappedFile::open(path)?;
    let entries = read_directory(file.bytes()).map_err(|fault| fail(fault.to_string()))?;
    if entries.len() > MAX_FILES {
        return Err(fail(format!("it has {} files, at most {MAX_FILES} are read", entries.len())));
    }
    let mut found = Languages { read: Vec::new(), skipped: Vec::new() };
    for entry in entries.iter().filter(|entry| !entry.name.ends_with('/')) {
        let Some(id) = id_of(&entry.name) else {
            return Err(fail(format!("its entry `{}` is not called CODE.txt", entry.name.escape_debug())));
        };
        if entry.expanded > MAX_TEXT_BYTES {
            return Err(fail(format!("`{id}` has {} bytes, at most {MAX_TEXT_BYTES} are read", entry.expanded)));
        }
        let bytes = entry.read(file.bytes()).map_err(|fault| fail(fault.to_string()))?;
        let text = String::from_utf8(bytes).map_err(|error| fail(format!("`{id}` is not UTF-8: {error}")))?;
        let passages = passages(&text);
        if passages.len() < MIN_PASSAGES {
            found.skipped.push((id.to_owned(), format!("{} of {MIN_PASSAGES} passages or more", passages.len())));
            continue;
        }
        let code = id.split('_').next().unwrap_or(id).to_owned();
        let name = isolang::Language::from_639_3(&code).map(|language| language.to_name());
        found.read.push(Language { id: id.to_owned(), code, name, passages });
    }
    found.read.sort_by(|a, b| a.id.cmp(&b.id));
    found.skipped.sort();
    if let Some(pair) = found.read.windows(2).find(|pair| pair[0].id == pair[1].id) {
        return Err(fail(format!("it has `{}` in two folders", pair[0].id)));
    }
    if found.read.is_empty() {
        return Err(fail("it has no text of enough passages".to_owned()));
    }
    Ok(found)
}

/// The language that an entry is called after: letters, digits and `_` alone.
fn id_of(entry: &str) -> Option<&str> {
    let id = entry.rsplit('/').next().unwrap_or(entry).strip_suffix(".txt")?;
    let is_plain = id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_plain && !id.is_empty() && !id.starts_with('_') && id.len() <= 64).then_some(id)
}

/// Blocks of lines between blank ones; lines without the spaces around them.
fn passages(text: &str) -> Vec<String> {
    let mut passages = vec![String::new()];
    for line in text.lines().map(str::trim) {
        let last = passages.len() - 1;
        match (line.is_empty(), passages[last].is_empty()) {
            (true, false) => passages.push(String::new()),
            (true, true) => {}
            (false, true) => passages[last].push_str(line),
            (false, false) => {
                passages[last].push('\n');
                passages[last].push_str(line);
            }
        }
    }
    passages.retain(|passage| !passage.is_empty());
    passages
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(id: &str, passages: usize) -> Language {
        let code = id.split('_').next().unwrap().to_owned();
        let name = isolang::Language::from_639_3(&code).map(|language| language.to_name());
        Language { id: id.to_owned(), code, name, passages: (0..passages).map(|i| i.to_string()).collect() }
    }

    #[test]
    fn passages_are_blocks_of_trimmed_lines() {
        let text = "Title\n      Preamble\n   \n\n      Article 1\n      All are equal.\n   \n";
        assert_eq!(passages(text), ["Title\nPreamble", "Article 1\nAll are equal."]);
        assert!(passages(" \n\n").is_empty());
    }

    #[test]
    fn names_and_titles() {
        let check = |entry: &str, expected: Option<&str>| assert_eq!(id_of(entry), expected, "{entry}");
        check("udhr2/srp_cyrl.txt", Some("srp_cyrl"));
        check("007.txt", Some("007"));
        check("../a b.txt", None);
        check("x.md", None);
        check(".txt", None);
        assert_eq!(language("srp_cyrl", 9).title(), "Serbian (cyrl)");
        assert_eq!(language("deu", 9).title(), "German");
        assert_eq!(language("007", 9).title(), "007");
    }

    #[test]
    fn the_last_passages_are_held_out() {
        let german = language("deu", 10);
        let (train, test) = german.split(0.3).unwrap();
        assert_eq!((train.len(), test), (7, &["7", "8", "9"].map(str::to_owned)[..]));
        for share in [0.0, 1.0, f64::NAN, -0.2] {
            assert!(german.split(share).is_none(), "{share}");
        }
    }
}
