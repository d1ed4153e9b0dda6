//! Languages that nobody writes: a text in which pairs of letters have changed places, or all are those of another script.
//!
//! The hyper-decoder is trained through the base, for which a text is enough: no adapter of it has to be trained. So each training language may stand
//! for several, each with the same words in other letters, and what is learnt is how letters, pairs and triples of them ask for an adapter rather than
//! which of some hundred languages a text is in (data augmentation in the space of tasks; for meta-learning, Rajendran, Irpan & Jang 2020).

use super::learn::Seen;
use super::shown::{self, Shown, draw};
use crate::Result;
use crate::config::GenerateConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Condition, Population, Seed, embed_bytes};
use weft_gen::TrainingSet;
use weft_net::adapters::AdapterTask;

/// The most frequent letters, of which pairs are drawn.
const LETTERS: usize = 24;

/// The letters of another language that a text is written in, at most: of one that writes syllables or words there are many.
const ALPHABET: usize = 64;

/// Where characters of scripts that no language has to have are taken from: the first, and the one behind the last, in whole blocks. In UTF-8 they
/// take two bytes, three that begin with `E0` or `E1`, and three that begin with `E2` to `ED`.
const PLACES: [[u32; 2]; 3] = [[0x00C0, 0x0800], [0x0800, 0x2000], [0x2C00, 0xD780]];

/// Neighboring characters that a script is made of: as many share all bytes but the last.
const BLOCK: u32 = 64;

/// What the hyper-decoder learns from: the training tasks, and then so many variants of each.
pub(super) struct Varied {
    /// The adapters, those of variants being their languages'.
    adapters: Population,
    pub(super) parts: Vec<AdapterTask>,
    groups: Vec<u32>,
    /// What shows them: a draw of all, and then the next.
    samples: Vec<Condition>,
}

impl Varied {
    /// What a trainer learns from.
    pub(super) fn set(&self, codec: &Arc<Codec>) -> Result<TrainingSet> {
        let (rows, samples) = (&self.adapters, &self.samples);
        let set = TrainingSet::new(codec.clone(), rows, rows.clone(), rows.clone(), samples[..rows.len()].to_vec())?;
        Ok(set.with_draws(samples.clone(), &self.groups)?.with_told_runs(&[shown::field()], samples)?)
    }
}

/// The training tasks with their variants; `samples` are the tasks' own draws. Nothing if there are to be none.
pub(super) fn varied(
    config: &GenerateConfig,
    (seen, shown): (&Seen, &Shown),
    samples: &[Condition],
    seed: Seed,
) -> Result<Option<Varied>> {
    let Shown::Text(texts) = shown else { return Ok(None) };
    let variants = config.variants + config.scripts;
    if variants == 0 {
        return Ok(None);
    }
    let n = seen.adapters.len();
    let mut all = Vec::with_capacity(n * variants);
    for variant in 0..config.variants as u64 {
        for (&task, i) in seen.numbers.iter().zip(0_u64..) {
            all.push(swapped(&texts.of_tasks[task], config.swaps, seed.fork("letters").index(variant).index(i)));
        }
    }
    let letters: Vec<Vec<char>> = seen.numbers.iter().map(|&task| frequent(&texts.of_tasks[task])).collect();
    for variant in 0..config.scripts as u64 {
        for (&task, i) in seen.numbers.iter().zip(0_u64..) {
            let seed = seed.fork("scripts").index(variant).index(i);
            all.push(rewritten(&texts.of_tasks[task], &script(&letters, seed), seed.fork("letters")));
        }
    }
    let mut parts = seen.parts.clone();
    for text in &all {
        parts.push((texts.read)(text)?);
    }
    let mut every = Vec::with_capacity(samples.len() * (1 + variants));
    for (own, at) in samples.chunks(n).zip(0_u64..) {
        every.extend_from_slice(own);
        let seed = seed.fork("samples").index(at);
        let show = |(text, i): (&String, u64)| shown::shown(embed_bytes(draw(text, texts.bytes, seed.index(i)).as_bytes()));
        every.extend(all.iter().zip(0_u64..).map(show));
    }
    let rows = seen.adapters.data().repeat(1 + variants);
    let adapters = Population::new(seen.adapters.architecture().clone(), rows)?;
    Ok(Some(Varied { adapters, parts, groups: seen.groups.repeat(1 + variants), samples: every }))
}

/// The small letters of a text, the most frequent first.
fn frequent(text: &str) -> Vec<char> {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in text.chars().filter(|c| c.is_alphabetic()).filter_map(|c| one(c.to_lowercase())) {
        *counts.entry(letter).or_default() += 1;
    }
    let mut letters: Vec<(char, usize)> = counts.into_iter().collect();
    letters.sort_by_key(|&(letter, count)| (std::cmp::Reverse(count), letter));
    letters.into_iter().map(|(letter, _)| letter).collect()
}

/// The letters of one of some languages, or neighboring characters from anywhere: each as often as the other.
fn script(languages: &[Vec<char>], seed: Seed) -> Vec<char> {
    let draw = |what: &str, below: usize| seed.fork(what).indices(1, below)[0] as usize;
    if draw("borrowed", 2) == 0 && !languages.is_empty() {
        let letters = &languages[draw("language", languages.len())];
        return letters[..letters.len().min(ALPHABET)].to_vec();
    }
    let [first, end] = PLACES[draw("bytes", PLACES.len())];
    let start = first + BLOCK * draw("block", ((end - first) / BLOCK) as usize) as u32;
    (start..start + BLOCK).filter_map(char::from_u32).collect()
}

/// A text in other letters, one for each of its own while there are enough, large ones as their small ones.
fn rewritten(text: &str, script: &[char], seed: Seed) -> String {
    if script.is_empty() {
        return text.to_owned();
    }
    let order = seed.permutation(script.len());
    let letters = frequent(text).into_iter().zip(order.iter().cycle());
    changed(text, &letters.map(|(letter, &at)| (letter, script[at as usize])).collect())
}

/// A text in which so many pairs of its most frequent letters have changed places, large ones as their small ones.
fn swapped(text: &str, pairs: usize, seed: Seed) -> String {
    let mut letters = frequent(text);
    letters.truncate(LETTERS);
    let order = seed.permutation(letters.len());
    let chosen: Vec<char> = order.iter().map(|&at| letters[at as usize]).collect();
    let mut other = BTreeMap::new();
    for pair in chosen.chunks_exact(2).take(pairs) {
        other.extend([(pair[0], pair[1]), (pair[1], pair[0])]);
    }
    changed(text, &other)
}

/// A text with other small letters for its own, and the large ones of those for large ones.
fn changed(text: &str, other: &BTreeMap<char, char>) -> String {
    let change = |c: char| -> char {
        let Some(small) = one(c.to_lowercase()) else { return c };
        match other.get(&small) {
            None => c,
            Some(&small_other) if small == c => small_other,
            Some(&small_other) => one(small_other.to_uppercase()).unwrap_or(small_other),
        }
    };
    text.chars().map(change).collect()
}

/// The only character of some.
fn one(mut of: impl Iterator<Item = char>) -> Option<char> {
    let first = of.next()?;
    of.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use super::super::shown::Texts;
    use super::*;
    use weft_codec::{CodecConfig, CodecKind, Normalization};
    use weft_core::families::{Family, Lora, LoraModule};
    use weft_net::adapters::Windows;

    #[test]
    fn variants_stand_behind_all_languages_each_with_its_own_text() {
        let of_tasks = ["abcabcabca", "xyzzyxxyzz", "unused", "kkllkkllmm"].map(str::to_owned).to_vec();
        let read = Box::new(|text: &str| {
            let tokens = text.bytes().map(u32::from).collect();
            Ok(AdapterTask::Text(Windows::new(&[tokens], 0, 4)?))
        });
        let shown = Shown::Text(Texts { of_tasks, bytes: 6, read });
        let module = LoraModule { name: "q".to_owned(), fan_in: 2, fan_out: 2, rank: 1, scaling: 1.0 };
        let architecture = Arc::new(Family::Lora(Lora { modules: vec![module] }).build("tiny").unwrap());
        let adapters = Population::new(architecture, (0..12).map(|i| i as f32).collect()).unwrap();
        let numbers = [0, 1, 3];
        let task = |&i: &usize| shown.vector(i, Seed::new(i as u64));
        let parts = numbers.iter().map(|_| AdapterTask::Text(Windows::new(&[vec![1, 2, 3]], 0, 4).unwrap())).collect();
        let seen = Seen { adapters: &adapters, numbers: &numbers, parts, groups: &[0, 1, 2] };
        let samples: Vec<Condition> = numbers.iter().chain(&numbers).map(|i| shown::shown(task(i))).collect();
        let config = |variants| GenerateConfig { variants, swaps: 1, ..GenerateConfig::default() };
        let made = |variants| varied(&config(variants), (&seen, &shown), &samples, Seed::new(5)).unwrap();
        assert!(made(0).is_none());
        let made = made(2).unwrap();
        assert_eq!((made.parts.len(), made.groups, made.samples.len()), (9, vec![0, 1, 2, 0, 1, 2, 0, 1, 2], 18));
        assert_eq!((made.adapters.len(), made.adapters.row(5)), (9, adapters.row(2)));
        // The draws of the languages themselves stay, and those of variants are of the same letters' numbers in other places.
        assert!((0..2).all(|draw| made.samples[9 * draw..9 * draw + 3] == samples[3 * draw..3 * draw + 3]));
        assert!(made.samples[3..9].iter().all(|sample| !samples.contains(sample)));
        let config = GenerateConfig { scripts: 2, ..config(1) };
        let all = varied(&config, (&seen, &shown), &samples, Seed::new(5)).unwrap().unwrap();
        assert_eq!((all.parts.len(), all.samples.len(), all.adapters.len()), (12, 24, 12));
        let made = varied(&GenerateConfig { scripts: 0, ..config }, (&seen, &shown), &samples, Seed::new(5)).unwrap().unwrap();
        let kind = CodecConfig { kind: CodecKind::Identity, normalize: Normalization::Off };
        let codec = Arc::new(Codec::fit(&adapters, &kind, Seed::new(0)).unwrap());
        assert_eq!(made.set(&codec).unwrap().code_set().conditions.len(), 12);
    }

    #[test]
    fn a_text_in_another_script_keeps_its_words_and_is_of_that_script_alone() {
        let text = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. 12";
        let alphabets = [frequent("все люди рождаются свободными"), frequent(text)];
        assert_eq!((alphabets[1][0], alphabets[1].len()), ('e', 19));
        let (mut borrowed, mut bytes) = (0, std::collections::BTreeSet::new());
        for i in 0..200 {
            let script = script(&alphabets[..1], Seed::new(i));
            let other = rewritten(text, &script, Seed::new(i));
            assert_eq!(text.chars().count(), other.chars().count());
            let pairs: Vec<(char, char)> = text.chars().zip(other.chars()).collect();
            let small = pairs.iter().filter(|(a, _)| a.is_lowercase());
            assert!(small.clone().all(|(_, b)| script.contains(b)), "{other}");
            assert!(pairs.iter().all(|(a, b)| a.is_alphabetic() || a == b), "{other}");
            let partners =
                |of: char| small.clone().filter(move |(a, _)| *a == of).map(|(_, b)| b).collect::<std::collections::BTreeSet<_>>();
            assert!("elnd".chars().all(|letter| partners(letter).len() == 1), "{other}");
            if script == alphabets[0] {
                borrowed += 1;
                assert!(pairs[0].1.is_uppercase() && "ВСЛЮДИРОЖАЯТБНЫМЕЮ".contains(pairs[0].1), "{other}");
            } else {
                assert_eq!(script.len(), BLOCK as usize);
                bytes.insert(script[0].to_string().into_bytes()[0]);
            }
        }
        assert!((60..140).contains(&borrowed) && bytes.len() > 20, "{borrowed} are borrowed, and first bytes are {bytes:?}");
        // More letters than the script has share some.
        assert_eq!(rewritten("abc cba", &['x', 'y'], Seed::new(1)).chars().filter(|c| "xy".contains(*c)).count(), 6);
        assert_eq!(rewritten("abc", &[], Seed::new(1)), "abc");
    }

    #[test]
    fn pairs_of_letters_change_places_and_nothing_else() {
        let text = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. ЧЕЛОВЕК 12";
        let other = swapped(text, 3, Seed::new(1));
        assert_eq!(text.chars().count(), other.chars().count());
        let changed: std::collections::BTreeSet<(String, String)> = text
            .chars()
            .zip(other.chars())
            .filter(|(a, b)| a != b)
            .map(|(a, b)| (a.to_lowercase().collect(), b.to_lowercase().collect()))
            .collect();
        let letters: std::collections::BTreeSet<&String> = changed.iter().map(|(a, _)| a).collect();
        assert!(letters.len() == changed.len() && (1..=6).contains(&letters.len()), "a letter has one other: {changed:?}");
        assert!(
            text.chars()
                .zip(other.chars())
                .all(|(a, b)| a.is_uppercase() == b.is_uppercase() && a.is_alphabetic() == b.is_alphabetic())
        );
        assert_eq!(swapped(&other, 0, Seed::new(1)), other);
        assert_ne!(swapped(text, 3, Seed::new(2)), other);
        assert_eq!(swapped("12 34", 3, Seed::new(1)), "12 34");
    }
}
