//! Languages that nobody writes: a text in which pairs of letters have changed places.
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
    if config.variants == 0 {
        return Ok(None);
    }
    let n = seen.adapters.len();
    let mut all = Vec::with_capacity(n * config.variants);
    for variant in 0..config.variants as u64 {
        for (&task, i) in seen.numbers.iter().zip(0_u64..) {
            all.push(swapped(&texts.of_tasks[task], config.swaps, seed.fork("letters").index(variant).index(i)));
        }
    }
    let mut parts = seen.parts.clone();
    for text in &all {
        parts.push((texts.read)(text)?);
    }
    let mut every = Vec::with_capacity(samples.len() * (1 + config.variants));
    for (own, at) in samples.chunks(n).zip(0_u64..) {
        every.extend_from_slice(own);
        let seed = seed.fork("samples").index(at);
        let show = |(text, i): (&String, u64)| shown::shown(embed_bytes(draw(text, texts.bytes, seed.index(i)).as_bytes()));
        every.extend(all.iter().zip(0_u64..).map(show));
    }
    let rows = seen.adapters.data().repeat(1 + config.variants);
    let adapters = Population::new(seen.adapters.architecture().clone(), rows)?;
    Ok(Some(Varied { adapters, parts, groups: seen.groups.repeat(1 + config.variants), samples: every }))
}

/// A text in which so many pairs of its most frequent letters have changed places, large ones as their small ones.
fn swapped(text: &str, pairs: usize, seed: Seed) -> String {
    let mut counts: BTreeMap<char, usize> = BTreeMap::new();
    for letter in text.chars().filter(|c| c.is_alphabetic()).filter_map(|c| one(c.to_lowercase())) {
        *counts.entry(letter).or_default() += 1;
    }
    let mut letters: Vec<(char, usize)> = counts.into_iter().collect();
    letters.sort_by_key(|&(letter, count)| (std::cmp::Reverse(count), letter));
    letters.truncate(LETTERS);
    let order = seed.permutation(letters.len());
    let chosen: Vec<char> = order.iter().map(|&at| letters[at as usize].0).collect();
    let mut other = BTreeMap::new();
    for pair in chosen.chunks_exact(2).take(pairs) {
        other.extend([(pair[0], pair[1]), (pair[1], pair[0])]);
    }
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
        let made = varied(&config(1), (&seen, &shown), &samples, Seed::new(5)).unwrap().unwrap();
        let kind = CodecConfig { kind: CodecKind::Identity, normalize: Normalization::Off };
        let codec = Arc::new(Codec::fit(&adapters, &kind, Seed::new(0)).unwrap());
        assert_eq!(made.set(&codec).unwrap().code_set().conditions.len(), 12);
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
