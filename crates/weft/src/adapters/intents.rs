//! Intents as tasks: sets of a few, to be told apart by the cosines of utterances and the intents' names.
//!
//! Held out are whole domains, and of each other domain a share of its intents, by the digests of their names alone. A training intent that is
//! called like a held-out one of another data set is left out. Tasks of one side are drawn so that its intents occur about equally often.

use super::base::read as read_base;
use super::generate::{SentenceSets, Shown};
use super::sentences::SentenceReader;
use super::tasks::{Task, Tasks, Unit, Words};
use super::train::{Prepared, on_base};
use crate::config::{AdapterRunConfig, IntentsConfig, ShownConfig};
use crate::{Error, Monitor, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_core::{Digest, Seed};
use weft_net::adapters::{AdapterTask, Sentences};
use weft_zoo::data::{Intent, banking77, clinc150};

/// What the groups of tasks are called, and the tasks of each.
const GROUPS: [&str; 3] = ["of training", "of held-out intents", "of held-out domains"];
const IDS: [&str; 3] = ["training", "intents", "domains"];
/// Draws of a set of intents before there are taken to be no more sets.
const ATTEMPTS: u64 = 100;
/// Sentences of random words that show no task.
const NOISE: usize = 256;

/// Reads the base and the intents, divides these, and draws tasks.
pub(super) fn prepare(config: &AdapterRunConfig, task: &IntentsConfig, monitor: &Monitor) -> Result<Prepared> {
    let [clinc, banking] = task.folders();
    let mut all = clinc.map(|folder| clinc150(&folder)).transpose()?.unwrap_or_default();
    all.extend(banking.map(|folder| banking77(&folder)).transpose()?.unwrap_or_default());
    let sides = divide(&all, task)?;
    let seed = Seed::new(config.run.seed).fork("tasks");
    let sets = draw(&all, &sides, task, seed, monitor)?;
    let [weights, tokenizer] = config.base.paths();
    let (base, digest) = read_base(&weights)?;
    let adapters = on_base(config, base)?;
    let reader = Arc::new(SentenceReader::new(adapters.clone(), digest, &tokenizer, task.tokens)?);
    let read = all.iter().map(|intent| Read::new(intent, task, &reader)).collect::<Result<Vec<_>>>()?;
    let (mut each, mut counts) = (Vec::with_capacity(sets.len()), [0; 3]);
    for (group, set) in &sets {
        let parts = [0, 1].map(|part| sentences(&read, set, part));
        let [train, test] = parts;
        let parts = [AdapterTask::Sentences(train?), AdapterTask::Sentences(test?)];
        let id = format!("{}-{:04}", IDS[*group], counts[*group]);
        counts[*group] += 1;
        let title = set.iter().map(|&i| all[i].name.as_str()).collect::<Vec<_>>().join("; ");
        let sizes = [parts[0].len(), parts[1].len()];
        each.push(Task { code: id.clone(), id, title, group: *group, parts, sizes });
    }
    let shown = match &config.generate {
        Some(generate) => {
            let shown = generate.shown.iter().map(|&kind| {
                let drawn = (kind == ShownConfig::Utterances).then_some(generate.utterances);
                Ok(Shown::Sentences(show((kind, drawn), &read, &sets, &reader, seed.fork("noise"))?))
            });
            shown.collect::<Result<Vec<_>>>()?
        }
        None => Vec::new(),
    };
    let words = Words { task: "task", tasks: "tasks", noise: "random words" };
    let tasks = Tasks { each, groups: GROUPS.to_vec(), unit: Unit::Accuracy, words, shown, skipped: Vec::new() };
    Ok(Prepared { tasks, adapters })
}

/// The group of tasks that each intent is of; none for those that no task may have.
fn divide(all: &[Intent], task: &IntentsConfig) -> Result<Vec<Option<usize>>> {
    let unknown =
        |what, expected: &str, got: &String| Error::Range { what, expected: expected.to_owned(), got: format!("`{got}`") };
    if let Some(domain) = task.held_out_domains.iter().find(|&domain| all.iter().all(|intent| intent.domain != *domain)) {
        let domains: BTreeSet<&str> = all.iter().map(|intent| intent.domain.as_str()).collect();
        let expected = domains.into_iter().collect::<Vec<_>>().join(", ");
        return Err(unknown("`task.intents.held-out-domains`", &expected, domain));
    }
    let is_kept = |intent: &Intent| !task.held_out_domains.contains(&intent.domain);
    let chosen_on = |name: &String| all.iter().any(|intent| intent.name == *name && is_kept(intent));
    if let Some(name) = task.chosen_on.iter().find(|name| !chosen_on(name)) {
        return Err(unknown("`task.intents.chosen-on`", "names of intents in domains that are not held out", name));
    }
    let mut sides: Vec<Option<usize>> = all.iter().map(|intent| Some(if is_kept(intent) { 0 } else { 2 })).collect();
    let domains: BTreeSet<&str> = all.iter().filter(|intent| is_kept(intent)).map(|intent| intent.domain.as_str()).collect();
    for domain in domains {
        let mut members: Vec<usize> = (0..all.len()).filter(|&i| all[i].domain == domain).collect();
        let count = (task.held_out_intents * members.len() as f64).round() as usize;
        members.retain(|&i| !task.chosen_on.contains(&all[i].name));
        members.sort_by_key(|&i| *Digest::of_parts([b"held-out intent".as_slice(), all[i].name.as_bytes()]).as_bytes());
        members.into_iter().take(count).for_each(|i| sides[i] = Some(1));
    }
    let held_out: BTreeSet<&str> =
        all.iter().zip(&sides).filter(|(_, side)| **side != Some(0)).map(|(intent, _)| intent.name.as_str()).collect();
    for (side, intent) in sides.iter_mut().zip(all) {
        if *side == Some(0) && held_out.contains(intent.name.as_str()) {
            *side = None;
        }
    }
    Ok(sides)
}

/// The sets of intents of all tasks, each with its group.
fn draw(
    all: &[Intent],
    sides: &[Option<usize>],
    task: &IntentsConfig,
    seed: Seed,
    monitor: &Monitor,
) -> Result<Vec<(usize, Vec<usize>)>> {
    let mut sets = Vec::new();
    for (group, count) in [task.training_tasks, task.test_tasks, task.test_tasks].into_iter().enumerate() {
        if group == 2 && task.held_out_domains.is_empty() {
            continue;
        }
        let pool: Vec<usize> = (0..all.len()).filter(|&i| sides[i] == Some(group)).collect();
        let (drawn, within) = draw_group(all, &pool, (count, GROUPS[group]), task, seed.fork(IDS[group]))?;
        monitor.note(format!("{count} tasks {} of {} intents, {within} of them within a domain", GROUPS[group], pool.len()));
        sets.extend(drawn.into_iter().map(|set| (group, set)));
    }
    Ok(sets)
}

/// So many different sets of intents of a pool, and how many of them are within one domain.
fn draw_group(
    all: &[Intent],
    pool: &[usize],
    (count, group): (usize, &str),
    task: &IntentsConfig,
    seed: Seed,
) -> Result<(Vec<Vec<usize>>, usize)> {
    let mut domains: BTreeMap<&str, usize> = BTreeMap::new();
    for &i in pool {
        *domains.entry(all[i].domain.as_str()).or_default() += 1;
    }
    domains.retain(|_, members| *members >= task.ways);
    let (mut sets, mut known, mut uses) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    let mut num_within = 0;
    for i in 0..count {
        // Spread evenly, so that any number of tasks has the share.
        let share = |tasks: usize| (task.within_domain * tasks as f64 + 1e-9).floor();
        let within = !domains.is_empty() && share(i + 1) > share(i);
        let draws = (0..ATTEMPTS).map(|attempt| seed.index(i as u64).index(attempt).permutation(pool.len()));
        let mut chosen = draws.enumerate().map(|(attempt, order)| {
            let mut order: Vec<usize> = order.into_iter().map(|place| pool[place as usize]).collect();
            if attempt < ATTEMPTS as usize / 2 {
                // The least used come first, equals in random order.
                order.sort_by_key(|intent| uses.get(intent).copied().unwrap_or(0));
            }
            let anchor = order.iter().map(|&i| all[i].domain.as_str()).find(|domain| domains.contains_key(domain));
            // Where all sets within a domain are drawn, domains are mixed.
            let domain = anchor.filter(|_| within && attempt < ATTEMPTS as usize * 3 / 4);
            let mut set: Vec<usize> = Vec::with_capacity(task.ways);
            for i in order.into_iter().filter(|&i| domain.is_none_or(|domain| all[i].domain == domain)) {
                if set.len() < task.ways && set.iter().all(|&other: &usize| all[other].name != all[i].name) {
                    set.push(i);
                }
            }
            set.sort_unstable();
            set
        });
        let Some(set) = chosen.find(|set| set.len() == task.ways && !known.contains(set)) else {
            let expected = format!("no more than the {} intents {group} give different tasks of {}", pool.len(), task.ways);
            return Err(Error::Range { what: "the number of tasks", expected, got: format!("{count}, with {i} drawn") });
        };
        num_within += usize::from(set.iter().all(|&i| all[i].domain == all[set[0]].domain));
        for &intent in &set {
            *uses.entry(intent).or_insert(0) += 1;
        }
        known.insert(set.clone());
        sets.push(set);
    }
    Ok((sets, num_within))
}

/// An intent as tokens: its name, and its utterances to train on and to be judged on.
struct Read {
    name: Vec<u32>,
    utterances: [Vec<Vec<u32>>; 2],
}

impl Read {
    fn new(intent: &Intent, task: &IntentsConfig, reader: &SentenceReader) -> Result<Self> {
        let seed = Seed::new(0).fork("utterances").fork(&intent.domain).fork(&intent.id);
        let some = |part: &str, of: &[String], most: usize| -> Result<Vec<Vec<u32>>> {
            let chosen = seed.fork(part).subset(most.min(of.len()), of.len());
            chosen.into_iter().map(|i| reader.tokens(&of[i as usize])).collect()
        };
        let train = some("train", &intent.train, task.utterances)?;
        let test = some("test", &intent.test, task.test_utterances.unwrap_or(usize::MAX))?;
        Ok(Self { name: reader.tokens(&intent.name)?, utterances: [train, test] })
    }
}

/// A task's utterances of one part; of that to be judged on, as many of each intent.
fn sentences(read: &[Read], set: &[usize], part: usize) -> Result<Sentences> {
    let least = set.iter().map(|&i| read[i].utterances[part].len()).min().unwrap_or(0);
    let most = if part == 1 { least } else { usize::MAX };
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    for (label, &i) in set.iter().enumerate() {
        texts.extend(read[i].utterances[part].iter().take(most).cloned());
        labels.resize(texts.len(), label as u32);
    }
    Ok(Sentences::new(set.iter().map(|&i| read[i].name.clone()).collect(), texts, labels)?)
}

/// What shows all tasks: names, or utterances to train on, which are read by the base.
fn show(
    (kind, drawn): (ShownConfig, Option<usize>),
    read: &[Read],
    sets: &[(usize, Vec<usize>)],
    reader: &Arc<SentenceReader>,
    seed: Seed,
) -> Result<SentenceSets> {
    let mut tokens = Vec::new();
    let of_intents: Vec<std::ops::Range<usize>> = read
        .iter()
        .map(|intent| {
            let first = tokens.len();
            match kind {
                ShownConfig::Names => tokens.push(intent.name.clone()),
                ShownConfig::Utterances => tokens.extend_from_slice(&intent.utterances[0]),
            }
            first..tokens.len()
        })
        .collect();
    let of_tasks = sets.iter().map(|(_, set)| set.iter().flat_map(|&i| of_intents[i].clone()).collect()).collect();
    let first = tokens.len();
    tokens.extend(reader.random(NOISE, seed)?);
    let vectors = reader.vectors(&tokens)?;
    let noise = (first..tokens.len()).collect();
    Ok(SentenceSets { kind, reader: reader.clone(), tokens, vectors, of_tasks, noise, drawn })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn intent(name: &str, domain: &str) -> Intent {
        let (train, test) = (vec!["a".to_owned()], vec!["b".to_owned()]);
        Intent { id: name.replace(' ', "_"), name: name.to_owned(), domain: domain.to_owned(), train, test }
    }

    /// Three domains of ten intents, and one of twenty, two of which are called like others.
    fn all() -> Vec<Intent> {
        let of = |domain: &str, count| (0..count).map(|i| intent(&format!("{domain} {i}"), domain)).collect::<Vec<_>>();
        let mut all = [of("home", 10), of("work", 10), of("travel", 10), of("bank", 18)].concat();
        all.extend([intent("home 3", "bank"), intent("work 5", "bank")]);
        all
    }

    fn config() -> IntentsConfig {
        IntentsConfig {
            clinc150: None,
            banking77: None,
            tokens: 8,
            ways: 4,
            within_domain: 0.5,
            training_tasks: 40,
            test_tasks: 6,
            held_out_intents: 0.4,
            held_out_domains: vec!["travel".to_owned()],
            utterances: 5,
            test_utterances: None,
            chosen_on: vec!["work 1".to_owned()],
        }
    }

    #[test]
    fn names_are_on_one_side_and_domains_held_out_whole() {
        let (all, config) = (all(), config());
        let sides = divide(&all, &config).unwrap();
        let of = |side| all.iter().zip(&sides).filter(move |(_, s)| **s == Some(side)).map(|(intent, _)| intent);
        assert!(of(2).count() == 10 && of(2).all(|intent| intent.domain == "travel"));
        // Four of ten, four of ten, eight of twenty.
        assert_eq!(of(1).count(), 16);
        let names: BTreeSet<&str> = of(1).map(|intent| intent.name.as_str()).collect();
        assert!(of(0).all(|intent| !names.contains(intent.name.as_str())) && !names.contains("work 1"));
        // What others there are does not change the order of names.
        let fewer = divide(&all[..20], &IntentsConfig { held_out_domains: Vec::new(), ..config.clone() }).unwrap();
        assert_eq!(fewer.iter().filter(|side| **side == Some(1)).count(), 8);
        assert!(fewer.iter().zip(&sides).all(|(a, b)| (*a == Some(1)) == (*b == Some(1))));
        let refused = |config: &IntentsConfig, expected: [&str; 2]| {
            let message = divide(&all, config).unwrap_err().to_string();
            assert!(expected.iter().all(|expected| message.contains(expected)), "{message}");
        };
        refused(&IntentsConfig { held_out_domains: vec!["hme".to_owned()], ..config.clone() }, ["held-out-domains", "`hme`"]);
        refused(&IntentsConfig { chosen_on: vec!["travel 1".to_owned()], ..config }, ["chosen-on", "`travel 1`"]);
    }

    #[test]
    fn tasks_are_different_sets_of_one_side_and_half_of_them_within_a_domain() {
        let (all, config) = (all(), config());
        let sides = divide(&all, &config).unwrap();
        let sets = draw(&all, &sides, &config, Seed::new(1), &Monitor::silent()).unwrap();
        assert_eq!(sets.len(), 40 + 6 + 6);
        assert!(sets.iter().all(|(group, set)| set.len() == 4 && set.iter().all(|&i| sides[i] == Some(*group))));
        assert_eq!(sets.iter().map(|(_, set)| set).collect::<BTreeSet<_>>().len(), 52);
        let names = |set: &[usize]| set.iter().map(|&i| all[i].name.as_str()).collect::<BTreeSet<_>>().len();
        assert!(sets.iter().all(|(_, set)| names(set) == 4));
        let within = |set: &[usize]| set.iter().all(|&i| all[i].domain == all[set[0]].domain);
        let of_training = sets[..40].iter().filter(|(_, set)| within(set)).count();
        assert!((20..25).contains(&of_training), "{of_training}");
        let used = |intent: usize| sets[..40].iter().filter(|(_, set)| set.contains(&intent)).count();
        let uses: Vec<usize> = (0..all.len()).filter(|&i| sides[i] == Some(0)).map(used).collect();
        assert!(uses.iter().max().unwrap() - uses.iter().min().unwrap() <= 4, "{uses:?}");
        assert_ne!(sets, draw(&all, &sides, &config, Seed::new(2), &Monitor::silent()).unwrap());
        let many = IntentsConfig { test_tasks: 300, ..config };
        let message = draw(&all, &sides, &many, Seed::new(1), &Monitor::silent()).unwrap_err().to_string();
        assert!(message.contains("held-out domains") && message.contains("300"), "{message}");
    }
}
