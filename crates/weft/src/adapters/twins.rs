//! Languages of an archive whose texts are one: a file under the code of another language, or two codes for one language.
//!
//! A language that is held out says nothing if the same text is trained on under another code.

use crate::Monitor;
use std::collections::BTreeMap;
use weft_zoo::data::Language;

/// The share of a language's passages from which on it counts as the same text.
const SAME: f64 = 0.5;
/// Languages that have a passage in common, at most, for it to count.
const MANY: usize = 16;

/// Gives languages with half of their passages in common, letter by letter, the code of the first of them: they are then variants of one code,
/// which are held out together. What was joined is told.
pub(super) fn with_twins(mut languages: Vec<Language>, monitor: &Monitor) -> Vec<Language> {
    let mut holders: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut distinct = Vec::with_capacity(languages.len());
    for (i, language) in languages.iter().enumerate() {
        let mut passages: Vec<&str> = language.passages.iter().map(String::as_str).collect();
        passages.sort_unstable();
        passages.dedup();
        distinct.push(passages.len());
        for passage in passages {
            holders.entry(passage).or_default().push(i);
        }
    }
    let mut common: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    // A passage that many have is a formula, not a text in common.
    for holders in holders.values().filter(|holders| holders.len() <= MANY) {
        for (at, &first) in holders.iter().enumerate() {
            holders[at + 1..].iter().for_each(|&second| *common.entry((first, second)).or_default() += 1);
        }
    }
    for ((first, second), common) in common {
        let [a, b] = [first, second].map(|i| distinct[i]);
        let (kept, joined) = (languages[first].code.clone(), languages[second].code.clone());
        if (common as f64) < SAME * a.min(b) as f64 || kept == joined {
            continue;
        }
        let (one, other) = (&languages[first].id, &languages[second].id);
        monitor.note(format!(
            "`{one}` and `{other}` are one text under two codes: they are held out together or not at all, as `{kept}`"
        ));
        languages.iter_mut().filter(|language| language.code == joined).for_each(|language| language.code.clone_from(&kept));
    }
    languages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_under_two_codes_is_joined_and_said() {
        let language = |id: &str, passages: &[&str]| {
            let code = id.split('_').next().unwrap_or(id).to_owned();
            Language { id: id.to_owned(), code, name: None, passages: passages.iter().map(|&p| p.to_owned()).collect() }
        };
        let all = vec![
            language("a", &["one", "two", "three", "four"]),
            language("b", &["one", "five", "six", "seven"]),
            language("c_x", &["three", "two", "eight", "nine", "ten"]),
            language("c_y", &["eleven", "twelve"]),
            language("d", &["fourteen", "one", "one", "one", "thirteen"]),
        ];
        let notes = std::sync::Mutex::new(Vec::new());
        let sink = |event: weft_core::Event| {
            if let weft_core::Event::Note(text) = event {
                notes.lock().unwrap().push(text);
            }
        };
        let stop = std::sync::atomic::AtomicBool::new(false);
        let joined = with_twins(all, &Monitor::new(&sink, &stop));
        // `c_x` has two of four passages of `a`, and its variant goes with it; a passage that is repeated counts once.
        assert_eq!(joined.iter().map(|language| language.code.as_str()).collect::<Vec<_>>(), ["a", "b", "a", "a", "d"]);
        let notes = notes.into_inner().unwrap();
        assert!(notes.len() == 1 && notes[0].contains("`a` and `c_x`"), "{notes:?}");
    }
}
