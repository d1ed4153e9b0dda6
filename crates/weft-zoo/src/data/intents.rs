//! Intents: short requests in words, each with what is wanted. `CLINC150` and `BANKING77`, as they are published.
//!
//! `CLINC150` is a folder of `data_full.json` (lists `train` and `test` of pairs of utterance and intent; its lists of utterances that are out of
//! scope and of those for validation are not read) and `domains.json` (the intents of each domain). `BANKING77` is a folder of `train.csv` and `test.csv` with
//! columns `text` and `category`, and `categories.json`; it is one domain. Sizes are bounded before anything is read.
//!
//! # References
//! Larson et al. (2019), *An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction*; Casanueva et al. (2020), *Efficient
//! Intent Detection with Dual Sentence Encoders*.

use crate::{Error, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const CLINC: &str = "a folder of CLINC150";
const BANKING: &str = "a folder of BANKING77";
/// The one domain of `BANKING77`.
pub const BANKING77_DOMAIN: &str = "banking77";

/// The largest file, the most intents, and the longest name and utterance.
const MAX_FILE_BYTES: u64 = 64 << 20;
const MAX_INTENTS: usize = 4_096;
const MAX_NAME_BYTES: usize = 128;
const MAX_UTTERANCE_BYTES: usize = 4_096;

/// Something that may be wanted, and how people ask for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// What it is called in its data set, such as `freeze_account`.
    pub id: String,
    /// The same in words, such as `freeze account`.
    pub name: String,
    /// What it is about; intents of one domain are alike.
    pub domain: String,
    /// Utterances to train on; none of them stands in `test` of any intent of its data set.
    pub train: Vec<String>,
    /// Utterances to be judged on: the data set's own test part.
    pub test: Vec<String>,
}

/// What `data_full.json` must have.
#[derive(Deserialize)]
struct Clinc {
    train: Vec<(String, String)>,
    test: Vec<(String, String)>,
}

/// Reads `CLINC150`: 150 intents of 10 domains, in the order of their names.
///
/// # Errors
/// [`Error::DataMissing`] if a file is not there; [`Error::Data`] for what is too large, does not parse, or does not fit together.
pub fn clinc150(folder: &Path) -> Result<Vec<Intent>> {
    let (full, domains) = (folder.join("data_full.json"), folder.join("domains.json"));
    let data: Clinc = json(&full, CLINC)?;
    let of_domains: BTreeMap<String, Vec<String>> = json(&domains, CLINC)?;
    let fail = |reason: String| Error::Data { path: domains.clone(), expected: CLINC, reason };
    let mut domain_of = BTreeMap::new();
    for (domain, intents) in of_domains {
        let domain = plain(&domain).ok_or_else(|| fail(format!("`{}` is no name of a domain", shown(&domain))))?.to_owned();
        for intent in intents {
            if let Some(other) = domain_of.insert(intent.clone(), domain.clone()) {
                return Err(fail(format!("intent `{}` is in `{other}` and in `{domain}`", shown(&intent))));
            }
        }
    }
    assemble(&domain_of, [data.train, data.test], [&full, &full], CLINC)
}

/// Reads `BANKING77`: 77 intents of one domain, in the order of their names.
///
/// # Errors
/// As [`clinc150`].
pub fn banking77(folder: &Path) -> Result<Vec<Intent>> {
    let categories = folder.join("categories.json");
    let names: Vec<String> = json(&categories, BANKING)?;
    let mut domain_of = BTreeMap::new();
    for name in names {
        if domain_of.insert(name.clone(), BANKING77_DOMAIN.to_owned()).is_some() {
            let reason = format!("it has `{}` twice", shown(&name));
            return Err(Error::Data { path: categories, expected: BANKING, reason });
        }
    }
    let [train, test] = ["train.csv", "test.csv"].map(|name| folder.join(name));
    let parts = [labelled(&train)?, labelled(&test)?];
    assemble(&domain_of, parts, [&train, &test], BANKING)
}

/// A file's bytes, if they are not too many.
fn read(path: &Path, expected: &'static str) -> Result<Vec<u8>> {
    if !path.is_file() {
        let hint = format!("give the path of {expected}");
        return Err(Error::DataMissing { dataset: "intents".to_owned(), wanted: expected.to_owned(), path: path.to_owned(), hint });
    }
    crate::read_bounded(path, MAX_FILE_BYTES)
}

fn json<T: serde::de::DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T> {
    let fail = |error: serde_json::Error| Error::Data { path: path.to_owned(), expected, reason: error.to_string() };
    serde_json::from_slice(&read(path, expected)?).map_err(fail)
}

/// Pairs of utterance and intent of a file of `text,category`.
fn labelled(path: &Path) -> Result<Vec<(String, String)>> {
    let fail = |reason: String| Error::Data { path: path.to_owned(), expected: BANKING, reason };
    let text = String::from_utf8(read(path, BANKING)?).map_err(|error| fail(format!("it is not UTF-8: {error}")))?;
    let mut rows = rows(&text).map_err(fail)?.into_iter();
    if rows.next().is_none_or(|(_, header)| header != ["text", "category"]) {
        return Err(fail("its first line is not `text,category`".to_owned()));
    }
    let pair = |(line, row): (usize, Vec<String>)| match <[String; 2]>::try_from(row) {
        Ok([utterance, intent]) => Ok((utterance, intent)),
        Err(row) => Err(fail(format!("line {line} has {} columns, expected 2", row.len()))),
    };
    rows.map(pair).collect()
}

/// Rows of comma-separated values with the line that each begins at; blank lines are none.
///
/// A field in quotes may hold commas, line breaks and doubled quotes (RFC 4180).
fn rows(text: &str) -> std::result::Result<Vec<(usize, Vec<String>)>, String> {
    let (mut all, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut start, mut was_quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if field.is_empty() && !was_quoted => {
                was_quoted = true;
                loop {
                    match chars.next() {
                        Some('"') if chars.next_if_eq(&'"').is_some() => field.push('"'),
                        Some('"') => break,
                        Some(c) => {
                            line += usize::from(c == '\n');
                            field.push(c);
                        }
                        None => return Err(format!("a quote on line {start} is not closed")),
                    }
                }
            }
            ',' => {
                row.push(std::mem::take(&mut field));
                was_quoted = false;
            }
            '\r' if chars.peek().is_none_or(|&c| c == '\n') => {}
            '\n' => {
                if !(row.is_empty() && field.is_empty() && !was_quoted) {
                    row.push(std::mem::take(&mut field));
                    all.push((start, std::mem::take(&mut row)));
                }
                line += 1;
                (start, was_quoted) = (line, false);
            }
            _ if was_quoted => return Err(format!("line {line} goes on after a closing quote")),
            c => field.push(c),
        }
    }
    if !(row.is_empty() && field.is_empty() && !was_quoted) {
        row.push(field);
        all.push((start, row));
    }
    Ok(all)
}

/// Intents from labelled utterances; each needs some in both parts.
fn assemble(
    domain_of: &BTreeMap<String, String>,
    parts: [Vec<(String, String)>; 2],
    paths: [&PathBuf; 2],
    expected: &'static str,
) -> Result<Vec<Intent>> {
    if domain_of.is_empty() || domain_of.len() > MAX_INTENTS {
        let reason = format!("it has {} intents, expected between 1 and {MAX_INTENTS}", domain_of.len());
        return Err(Error::Data { path: paths[0].clone(), expected, reason });
    }
    let mut intents = BTreeMap::new();
    for (id, domain) in domain_of {
        let fail = |reason: String| Error::Data { path: paths[0].clone(), expected, reason };
        let name = plain(id).map(in_words).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| fail(format!("`{}` is no name of an intent", shown(id))))?;
        let (id, domain) = (id.clone(), domain.clone());
        intents.insert(id.clone(), Intent { id, name, domain, train: Vec::new(), test: Vec::new() });
    }
    let known = |utterance: &str| utterance.trim().to_lowercase();
    let in_test: BTreeSet<String> = parts[1].iter().map(|(utterance, _)| known(utterance)).collect();
    for (part, (pairs, path)) in parts.into_iter().zip(paths).enumerate() {
        for (number, (utterance, id)) in pairs.into_iter().enumerate() {
            let fail = |reason: String| Error::Data { path: path.clone(), expected, reason };
            if utterance.trim().is_empty() || utterance.len() > MAX_UTTERANCE_BYTES {
                let got = format!("utterance {} has {} bytes", number + 1, utterance.len());
                return Err(fail(format!("{got}, expected some text of at most {MAX_UTTERANCE_BYTES}")));
            }
            let Some(intent) = intents.get_mut(&id) else {
                return Err(fail(format!("utterance {} is of `{}`, which is in no domain", number + 1, shown(&id))));
            };
            match part {
                0 if in_test.contains(&known(&utterance)) => {}
                0 => intent.train.push(utterance),
                _ => intent.test.push(utterance),
            }
        }
    }
    let lacking = intents.values().find(|intent| intent.train.is_empty() || intent.test.is_empty());
    if let Some(Intent { id, train, test, .. }) = lacking {
        let reason = format!("`{id}` has {} utterances to train on and {} to be judged on", train.len(), test.len());
        return Err(Error::Data { path: paths[0].clone(), expected, reason });
    }
    Ok(intents.into_values().collect())
}

/// A name, if it is one of ordinary length in ordinary letters.
fn plain(name: &str) -> Option<&str> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "_-?' ".contains(c);
    (!name.is_empty() && name.len() <= MAX_NAME_BYTES && name.chars().all(ordinary)).then_some(name)
}

/// A name as words: `reverted_card_payment?` is `reverted card payment`.
fn in_words(name: &str) -> String {
    name.split(|c: char| !c.is_ascii_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

/// The beginning of a name that may be anything.
fn shown(name: &str) -> String {
    name.chars().take(MAX_NAME_BYTES).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_rfc_4180() {
        let check = |text: &str, expected: &[&[&str]]| {
            let got = rows(text).unwrap();
            let got: Vec<Vec<&str>> = got.iter().map(|(_, row)| row.iter().map(String::as_str).collect()).collect();
            assert_eq!(got, expected, "{text:?}");
        };
        check("a,b\r\nc,d\r\n", &[&["a", "b"], &["c", "d"]]);
        check("\n\"x, \"\"y\"\"\nz\",w", &[&["x, \"y\"\nz", "w"]]);
        check("\"\",\na\rb,\"c\"", &[&["", ""], &["a\rb", "c"]]);
        check("", &[]);
        assert_eq!(rows("a\n\"b\nc\",d\ne").unwrap().iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 4]);
        assert!(rows("a,\"b").unwrap_err().contains("not closed"));
        assert!(rows("\"a\"b").unwrap_err().contains("closing quote"));
    }

    #[test]
    fn names_become_words() {
        let check = |name: &str, expected: &str| assert_eq!(in_words(name), expected);
        check("freeze_account", "freeze account");
        check("reverted_card_payment?", "reverted card payment");
        check("Refund_not_showing_up", "refund not showing up");
        assert!(plain("a\nb").is_none() && plain("").is_none() && plain(&"x".repeat(129)).is_none());
    }
}
