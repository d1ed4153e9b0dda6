//! Languages as tasks: an adapter each, on one text in many languages.

use super::base::read as read_base;
use super::generate::{ReadText, Shown, Texts};
use super::tasks::{Task, Tasks, Unit, Words};
use super::train::{Prepared, on_base};
use super::twins::with_twins;
use crate::config::{AdapterRunConfig, LanguagesConfig};
use crate::{Error, Monitor, Result};
use weft_core::Digest;
use weft_net::adapters::{AdapterTask, Windows};
use weft_zoo::Vocabulary;
use weft_zoo::data::{Language, Languages, languages};

/// Reads the base and the languages, and divides these.
pub(super) fn prepare(config: &AdapterRunConfig, task: &LanguagesConfig, monitor: &Monitor) -> Result<Prepared> {
    let [weights, vocabulary] = config.base.paths();
    let ((base, _), vocabulary) = (read_base(&weights)?, Vocabulary::open(&vocabulary)?);
    if vocabulary.len() > base.vocabulary() {
        let reason = format!("it has {} tokens and the base knows {}", vocabulary.len(), base.vocabulary());
        return Err(Error::Misfit { what: "the vocabulary".to_owned(), other: "the base".to_owned(), reason });
    }
    let Languages { read, skipped } = languages(&task.archive())?;
    let read = with_twins(left_in(read, &skipped, &task.left_out_codes)?, monitor);
    let held_out = match task.held_out_languages {
        Some(at_least) => held_out(&read, at_least, &task.chosen_on)?,
        None => held_out_codes((&read, &skipped), &task.held_out_codes, &task.chosen_on)?,
    };
    if config.generate.is_some() {
        enough_for_generators(&read, &held_out)?;
    }
    let (mut each, mut texts) = (Vec::with_capacity(read.len()), Vec::with_capacity(read.len()));
    for (language, held_out) in read.iter().zip(held_out) {
        let Text { tasks: parts, bytes: sizes, train } = Text::new(language, task, &vocabulary)?;
        let (id, title, code) = (language.id.clone(), language.title(), language.code.clone());
        each.push(Task { id, title, code, group: usize::from(held_out), parts, sizes });
        texts.push(train);
    }
    let tokens = task.tokens;
    let read: ReadText = Box::new(move |text: &str| {
        let document = vocabulary.encode(text);
        let tokens = tokens.min(document.len().max(1));
        Ok(AdapterTask::Text(Windows::new(&[document], Vocabulary::START, tokens)?))
    });
    let of_texts =
        |generate: &crate::config::GenerateConfig| Shown::Text(Texts { of_tasks: texts, bytes: generate.sample_bytes, read });
    let tasks = Tasks {
        each,
        groups: vec!["of training", "held out"],
        unit: Unit::BitsAByte,
        words: Words { task: "language", tasks: "languages", noise: "random bytes" },
        shown: config.generate.as_ref().map(of_texts).into_iter().collect(),
        skipped,
    };
    Ok(Prepared { tasks, adapters: on_base(config, base)? })
}

/// A language's text as windows, and how many bytes they are of: for training, and held out.
struct Text {
    tasks: [AdapterTask; 2],
    bytes: [usize; 2],
    /// The text to train on.
    train: String,
}

impl Text {
    fn new(language: &Language, task: &LanguagesConfig, vocabulary: &Vocabulary) -> Result<Self> {
        let share = task.held_out_passages;
        let (train, test) = language.split(share).ok_or_else(|| Error::Range {
            what: "the share of held-out passages",
            expected: format!("one that leaves `{}` a passage on both sides", language.id),
            got: share.to_string(),
        })?;
        let windows = |passages: &[String]| -> Result<AdapterTask> {
            let documents: Vec<Vec<u32>> = passages.iter().map(|passage| vocabulary.encode(passage)).collect();
            Ok(AdapterTask::Text(Windows::new(&documents, Vocabulary::START, task.tokens)?))
        };
        let bytes = [train, test].map(|passages| passages.iter().map(String::len).sum());
        Ok(Self { tasks: [windows(train)?, windows(test)?], bytes, train: train.join("\n") })
    }
}

/// Which languages are held out: codes in the order of their digests, until so many languages are; variants of a code go together.
fn held_out(languages: &[Language], at_least: usize, chosen_on: &[String]) -> Result<Vec<bool>> {
    known("`task.languages.chosen-on`", chosen_on, languages, &[])?;
    let mut codes: Vec<&str> = languages.iter().map(|language| language.code.as_str()).collect();
    codes.retain(|code| !chosen_on.iter().any(|chosen| chosen == code));
    codes.sort_unstable();
    codes.dedup();
    codes.sort_by_key(|code| *Digest::of_parts([b"held-out language".as_slice(), code.as_bytes()]).as_bytes());
    let mut chosen = vec![false; languages.len()];
    for code in codes {
        if chosen.iter().filter(|&&chosen| chosen).count() >= at_least {
            break;
        }
        chosen.iter_mut().zip(languages).filter(|(_, language)| language.code == code).for_each(|(chosen, _)| *chosen = true);
    }
    if chosen.iter().all(|&chosen| chosen) {
        let expected = format!("less than all languages, of which there are {}", languages.len());
        return Err(Error::Range { what: "the number of held-out languages", expected, got: at_least.to_string() });
    }
    Ok(chosen)
}

/// Which languages are held out where their codes are named; those that were left out for want of text may be named too.
fn held_out_codes(
    (languages, skipped): (&[Language], &[(String, String)]),
    codes: &[String],
    chosen_on: &[String],
) -> Result<Vec<bool>> {
    known("`task.languages.chosen-on`", chosen_on, languages, &[])?;
    known("`task.languages.held-out-codes`", codes, languages, skipped)?;
    let chosen: Vec<bool> = languages.iter().map(|language| codes.contains(&language.code)).collect();
    for (side, expected) in [(true, "codes of languages with enough text"), (false, "less than all languages")] {
        if chosen.iter().all(|&chosen| chosen != side) {
            let (expected, got) = (expected.to_owned(), if side { "none of them" } else { "all of them" }.to_owned());
            return Err(Error::Range { what: "`task.languages.held-out-codes`", expected, got });
        }
    }
    Ok(chosen)
}

/// The languages that take part.
fn left_in(mut languages: Vec<Language>, skipped: &[(String, String)], codes: &[String]) -> Result<Vec<Language>> {
    known("`task.languages.left-out-codes`", codes, &languages, skipped)?;
    languages.retain(|language| !codes.contains(&language.code));
    if languages.is_empty() {
        let expected = "less than all languages".to_owned();
        return Err(Error::Range { what: "`task.languages.left-out-codes`", expected, got: "all of them".to_owned() });
    }
    Ok(languages)
}

/// Refuses codes that no language of the archive has.
fn known(what: &'static str, codes: &[String], languages: &[Language], skipped: &[(String, String)]) -> Result<()> {
    let has = |code: &&String| {
        languages.iter().any(|language| language.code == **code)
            || skipped.iter().any(|(id, _)| id.split('_').next() == Some(code.as_str()))
    };
    match codes.iter().find(|code| !has(code)) {
        Some(code) => {
            let expected = "codes of the archive's languages".to_owned();
            Err(Error::Range { what, expected, got: format!("`{code}`") })
        }
        None => Ok(()),
    }
}

/// Refuses languages that generators cannot be learnt from or judged by, before anything is trained.
fn enough_for_generators(languages: &[Language], held_out: &[bool]) -> Result<()> {
    for (what, side) in
        [("the number of training languages for generators", false), ("the number of held-out languages for generators", true)]
    {
        let of_side = languages.iter().zip(held_out).filter(|(_, held_out)| **held_out == side);
        let codes: std::collections::BTreeSet<&str> = of_side.map(|(language, _)| language.code.as_str()).collect();
        if codes.len() < 2 {
            let expected =
                "2 or more that are no variants of each other; see `held-out-languages` and `held-out-codes` in `[task.languages]`";
            let expected = expected.to_owned();
            return Err(Error::Range { what, expected, got: codes.len().to_string() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(id: &str) -> Language {
        let code = id.split('_').next().unwrap_or(id).to_owned();
        Language { id: id.to_owned(), code, name: None, passages: Vec::new() }
    }

    #[test]
    fn generators_need_two_languages_on_each_side() {
        let all: Vec<Language> = ["a_x", "a_y", "b", "c"].map(language).to_vec();
        let check = |held_out: [bool; 4], expected: &str| {
            let message = enough_for_generators(&all, &held_out).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check([true, true, false, false], "held-out");
        check([false, false, true, true], "training");
        let more: Vec<Language> = ["a", "b", "c", "d"].map(language).to_vec();
        assert!(enough_for_generators(&more, &[true, true, false, false]).is_ok());
    }

    #[test]
    fn variants_are_held_out_together_and_by_name_alone() {
        let ids: Vec<String> =
            (0..40).flat_map(|i| [format!("c{i}_x"), format!("c{i}_y")]).chain((0..40).map(|i| format!("d{i}"))).collect();
        let all: Vec<Language> = ids.iter().map(|id| language(id)).collect();
        let chosen = held_out(&all, 31, &[]).unwrap();
        let count = chosen.iter().filter(|&&c| c).count();
        assert!((31..=32).contains(&count), "{count}");
        assert!(chosen[..80].chunks_exact(2).all(|pair| pair[0] == pair[1]));
        // Which others there are does not change whether a code comes before another.
        let fewer = held_out(&all[..100], 25, &[]).unwrap();
        assert!(fewer.iter().zip(&chosen).filter(|(fewer, _)| **fewer).all(|(_, chosen)| *chosen));
        let first = all.iter().zip(&chosen).find(|(_, chosen)| **chosen).map(|(language, _)| language.code.clone()).unwrap();
        let spared = held_out(&all, 31, std::slice::from_ref(&first)).unwrap();
        assert!(all.iter().zip(&spared).all(|(language, held_out)| !held_out || language.code != first));
        assert!(held_out(&all, 31, &["nowhere".to_owned()]).unwrap_err().to_string().contains("nowhere"));
        assert!(held_out(&all, 120, &[]).unwrap_err().to_string().contains("120"));
        assert!(held_out(&all, 0, &[]).unwrap().iter().all(|chosen| !chosen));
    }

    #[test]
    fn languages_that_are_left_out_take_no_part() {
        let all = || ["a_x", "a_y", "b", "c"].map(language).to_vec();
        let of = |codes: &[&str]| left_in(all(), &[], &codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>());
        let ids = |codes: &[&str]| of(codes).unwrap().into_iter().map(|language| language.id).collect::<Vec<_>>();
        assert_eq!((ids(&["a", "c"]), ids(&[]).len()), (vec!["b".to_owned()], 4));
        for (codes, part) in [(&["zz"][..], "`zz`"), (&["a", "b", "c"], "all of them")] {
            let message = of(codes).unwrap_err().to_string();
            assert!(message.contains("left-out-codes") && message.contains(part), "{message}");
        }
    }

    #[test]
    fn named_codes_are_held_out_with_their_variants_and_unknown_ones_refused() {
        let all: Vec<Language> = ["a_x", "a_y", "b", "c"].map(language).to_vec();
        let short = [("d_z".to_owned(), "3 of 8 passages or more".to_owned())];
        let of = |codes: &[&str], chosen_on: &[&str]| {
            let owned = |codes: &[&str]| codes.iter().map(|&code| code.to_owned()).collect::<Vec<_>>();
            held_out_codes((&all, &short), &owned(codes), &owned(chosen_on))
        };
        assert_eq!(of(&["a", "d"], &["b"]).unwrap(), [true, true, false, false]);
        assert_eq!(of(&["c"], &[]).unwrap(), [false, false, false, true]);
        let check = |codes: &[&str], chosen_on: &[&str], expected: [&str; 2]| {
            let message = of(codes, chosen_on).unwrap_err().to_string();
            assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
        };
        check(&["a", "a_x"], &[], ["held-out-codes", "`a_x`"]);
        check(&["zz"], &[], ["held-out-codes", "`zz`"]);
        check(&["a"], &["d"], ["chosen-on", "`d`"]);
        check(&["d"], &[], ["held-out-codes", "none of them"]);
        check(&["a", "b", "c"], &[], ["held-out-codes", "all of them"]);
    }
}
