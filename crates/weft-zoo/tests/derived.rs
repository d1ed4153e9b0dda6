//! Zoos made of other zoos: divided anew without a leak, and merged without a loss.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use support::{architecture, runs};
use weft_core::Activation::{Relu, Tanh};
use weft_core::{Digest, Monitor, Population, Provenance, Record, Seed, Sha256, Split};
use weft_zoo::{Entry, Error, Expr, Filter, Purpose, SplitOptions, Unreferenced, Zoo};

fn all(zoo: &Zoo) -> Vec<Record> {
    let filter = Filter { with_quarantined: true, ..Filter::default() };
    zoo.records(&filter).unwrap().into_iter().map(Entry::into_record).collect()
}

fn weights(zoo: &Zoo) -> BTreeMap<Digest, Vec<f32>> {
    let entries = zoo.records(&Filter::default()).unwrap();
    let population = zoo.load(&entries, Purpose::Evaluate).unwrap();
    entries.iter().zip(population.rows()).map(|(entry, row)| (entry.record().digest, row.to_vec())).collect()
}

fn assert_sound(zoo: &Zoo) {
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean() && report.unreferenced.is_empty() && report.removed.is_empty(), "{report:?}");
}

fn zoo(path: &Path, name: &str, blocks: &[(Population, Vec<Record>)]) -> Zoo {
    let mut zoo = Zoo::create(&path.join(name), name, architecture(), None).unwrap();
    for (population, records) in blocks {
        assert_eq!(zoo.append(population, records).unwrap().refused.len(), 0);
    }
    zoo
}

/// One checkpoint a run, with any phrase or none, and parents among those before or elsewhere.
fn tangle() -> impl Strategy<Value = Vec<(Option<u8>, Option<u8>, u8)>> {
    prop::collection::vec((prop::option::of(0..12u8), prop::option::of(0..40u8), 0..20u8), 2..40)
}

/// Networks with phrases, parents and runs: `(phrase, parent, run)`.
fn tangled(tangle: &[(Option<u8>, Option<u8>, u8)]) -> (Population, Vec<Record>) {
    let architecture = architecture();
    let data = Seed::new(5).normals(tangle.len() * architecture.num_parameters());
    let population = Population::new(architecture, data).unwrap();
    let record = |(i, (phrase, parent, run)): (usize, &(Option<u8>, Option<u8>, u8))| {
        let parent = parent.map(|parent| match usize::from(parent) {
            known if known < i => population.digest(known),
            elsewhere => Digest::of_bytes(&[elsewhere as u8]),
        });
        Record {
            is_final: false,
            labels: phrase.map(|phrase| ("phrase".to_owned(), format!("hey {phrase}"))).into_iter().collect(),
            provenance: Provenance { parents: parent.into_iter().collect(), ..Provenance::default() },
            ..Record::new(population.digest(i), format!("run-{run}"))
        }
    };
    let records = tangle.iter().enumerate().map(record).collect();
    (population, records)
}

/// The keys of which no two splits may have one in common.
fn keys(record: &Record, by: &str) -> Vec<String> {
    let label = record.labels.get(by).map(|value| format!("{by} {value}"));
    let lineage = record.provenance.parents.iter().chain([&record.digest]).map(|digest| format!("network {digest}"));
    label.into_iter().chain(lineage).chain([format!("run {}", record.run)]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_split_leaks(tangle in tangle(), by in prop::sample::select(vec!["phrase", "run", "lineage"]), fraction in 0.05..0.95) {
        let dir = tempfile::tempdir().unwrap();
        let source = zoo(dir.path(), "source", &[tangled(&tangle)]);
        let options = SplitOptions { by: by.to_owned(), test_fraction: fraction, seed: 3, condition: None };
        match source.split(&dir.path().join("new"), &options, &Monitor::silent()) {
            Ok((new, report)) => {
                let records = all(&new);
                let of = |split| {
                    let of_split = records.iter().filter(move |record| record.split == Some(split));
                    of_split.flat_map(|record| keys(record, by)).collect::<BTreeSet<_>>()
                };
                let (train, test) = (of(Split::Train), of(Split::Test));
                prop_assert!(!train.is_empty() && !test.is_empty() && train.is_disjoint(&test), "{train:?} {test:?}");
                prop_assert_eq!((report.train + report.test, records.len()), (tangle.len(), tangle.len()));
                prop_assert!(report.test_groups > 0 && report.test_groups < report.groups);
                prop_assert_eq!(weights(&new), weights(&source));
                prop_assert_eq!(new.parents(), &[source.digest().unwrap()]);
            }
            // A phrase that no one says is no phrase to split by; else everything hung together.
            Err(Error::Setting { setting: "by", got, .. }) if got.contains("one group") => {}
            Err(Error::Setting { setting: "by", .. }) => prop_assert!(by == "phrase" && tangle.iter().all(|t| t.0.is_none())),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn a_split_is_a_new_zoo_and_keeps_all_else() {
    let dir = tempfile::tempdir().unwrap();
    let without_parents = |first| {
        let (population, mut records) = runs(first, 6, 2);
        for record in &mut records {
            record.provenance.parents.clear();
        }
        (population, records)
    };
    let mut source = zoo(dir.path(), "source", &[without_parents(0), without_parents(6)]);
    let bad = Record { quarantine: Some("a reason".to_owned()), ..Record::new(Digest::of_bytes(b"nan"), "run-bad") };
    assert_eq!(source.quarantine(&[bad]).unwrap(), 1);
    let before = source.digest().unwrap();
    let split = |name: &str, by: &str, seed, condition: Option<&str>| {
        let condition = condition.map(|text| Expr::parse(text).unwrap());
        let options = SplitOptions { by: by.to_owned(), test_fraction: 0.25, seed, condition };
        source.split(&dir.path().join(name), &options, &Monitor::silent())
    };
    let (new, report) = split("by phrase", "phrase", 1, None).unwrap();
    assert_eq!((report.groups, report.train + report.test, report.without_label), (5, 24, 0));
    assert_eq!((new.name(), new.parent()), ("source, split by phrase", Some(before)));
    let plain = |record: &Record| Record { split: None, ..record.clone() };
    assert!(all(&new).iter().map(plain).eq(all(&source).iter().map(plain)));
    assert!(all(&new).iter().any(|record| record.quarantine.is_some() && record.split.is_none()));
    assert_eq!(weights(&new), weights(&source));
    assert_sound(&new);
    let same = split("again", "phrase", 1, None).unwrap().0;
    assert_eq!(same.digest().unwrap(), new.digest().unwrap());
    let others: BTreeSet<Digest> =
        (2..8).map(|i| split(&format!("s{i}"), "phrase", i, None).unwrap().0.digest().unwrap()).collect();
    assert!(others.len() > 2, "seeds make a difference");

    // A part of the checkpoints: shards are written anew, and unchanged ones shared.
    let (part, report) = split("part", "run", 1, Some("final and run != \"run-3\"")).unwrap();
    assert_eq!((report.groups, report.train + report.test, all(&part).len()), (11, 11, 11));
    assert_sound(&part);
    let kept: BTreeMap<_, _> = all(&part).iter().map(|r| (r.digest, weights(&source)[&r.digest].clone())).collect();
    assert_eq!(weights(&part), kept);

    assert!(matches!(split("by phrase", "phrase", 1, None), Err(Error::Occupied { .. })));
    assert!(split("x", "colour", 1, None).unwrap_err().to_string().contains("known: `run`, `lineage`, `phrase`"));
    assert!(split("x", "run", 1, Some("run = 'run-1'")).unwrap_err().to_string().contains("one group"));
    assert!(!dir.path().join("x").exists());
    let hidden: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert!(!hidden.iter().any(|name| name.to_string_lossy().ends_with("weft-tmp")), "{hidden:?}");
    assert_eq!(source.digest().unwrap(), before);
    assert_sound(&source);
}

/// What a process leaves that was killed while it made a zoo: nothing under the zoo's name, and no obstacle.
#[test]
fn a_killed_derivation_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let source = zoo(dir.path(), "source", &[runs(0, 8, 1)]);
    let left = dir.path().join(".new.weft-tmp/shards");
    std::fs::create_dir_all(&left).unwrap();
    std::fs::write(left.join("half"), "a shard").unwrap();
    let (new, _) = Zoo::merge(std::slice::from_ref(&source), &dir.path().join("new"), None, &Monitor::silent()).unwrap();
    assert_sound(&new);
    assert!(!dir.path().join(".new.weft-tmp").exists());
    assert_eq!(new.digest().unwrap(), source.digest().unwrap());
}

#[test]
fn a_merger_keeps_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    let (population, records) = runs(0, 6, 2);
    let part = |rows: std::ops::Range<usize>| (population.select(&rows.clone().collect::<Vec<_>>()), records[rows].to_vec());
    let first = zoo(dir.path(), "a", &[part(0..4), part(4..8)]);
    // Runs 2 and 3 stand in both; the second zoo knows more of them, and run 2 is a test run there.
    let mut shared = part(4..12);
    for record in &mut shared.1[0..2] {
        record.split = Some(Split::Test);
        record.labels.insert("language".to_owned(), "en".to_owned());
        record.labels.insert("phrase".to_owned(), "overruled".to_owned());
        record.metrics.insert("test-loss".to_owned(), 1.5);
    }
    let second = zoo(dir.path(), "b", &[shared]);
    let (merged, report) = Zoo::merge(&[first, second], &dir.path().join("ab"), None, &Monitor::silent()).unwrap();
    assert_eq!((report.taken, report.duplicates, report.renamed.len(), report.moved_to_test), (vec![8, 4], 4, 0, 2));
    assert_sound(&merged);
    assert_eq!(merged.parents().len(), 2);
    for (i, record) in all(&merged).iter().enumerate() {
        let mut expected = records[i].clone();
        if (4..6).contains(&i) {
            expected.split = Some(Split::Test);
            expected.labels.insert("language".to_owned(), "en".to_owned());
            expected.metrics.insert("test-loss".to_owned(), 1.5);
        }
        assert_eq!(*record, expected, "{i}");
    }
    let reopened = Zoo::open(merged.path()).unwrap();
    assert_eq!((reopened.parents(), reopened.name()), (merged.parents(), "a + b"));
}

#[test]
fn runs_of_one_name_are_one_run_unless_each_has_its_own_end() {
    let dir = tempfile::tempdir().unwrap();
    let first = zoo(dir.path(), "a", &[runs(0, 4, 2)]);
    // The same names, other networks: another training.
    let architecture = architecture();
    let others = Population::new(architecture.clone(), Seed::new(99).normals(8 * architecture.num_parameters())).unwrap();
    let (_, mut records) = runs(0, 4, 2);
    for (i, record) in records.iter_mut().enumerate() {
        record.digest = others.digest(i);
        record.split = Some(if record.run == "run-0" { Split::Test } else { Split::Train });
    }
    let second = zoo(dir.path(), "b", &[(others, records)]);
    let (merged, report) = Zoo::merge(&[first, second], &dir.path().join("ab"), None, &Monitor::silent()).unwrap();
    assert_eq!((report.renamed.len(), report.duplicates, report.moved_to_test), (4, 0, 0));
    assert_eq!(merged.runs().unwrap().len(), 8);
    let test: BTreeSet<String> = all(&merged).into_iter().filter(|r| r.split == Some(Split::Test)).map(|r| r.run).collect();
    assert_eq!(test, ["b/run-0", "run-3"].map(str::to_owned).into());
    assert_sound(&merged);
}

/// Canonical forms carry their raw networks' digests as parents: both must lie on one side.
#[test]
fn what_is_test_in_one_zoo_is_test_with_its_children_in_another() {
    let dir = tempfile::tempdir().unwrap();
    let raw = zoo(dir.path(), "raw", &[runs(0, 8, 1)]);
    let (mut population, mut records) = runs(0, 8, 1);
    population.data_mut().iter_mut().for_each(|w| *w *= 2.0);
    for (i, record) in records.iter_mut().enumerate() {
        record.provenance.parents = vec![record.digest];
        (record.digest, record.split) = (population.digest(i), Some(Split::Train));
    }
    let canonical = zoo(dir.path(), "canonical", &[(population, records)]);
    let (merged, report) = Zoo::merge(&[raw, canonical], &dir.path().join("both"), None, &Monitor::silent()).unwrap();
    assert_eq!((report.moved_to_test, report.renamed.len()), (2, 8));
    let test: Vec<String> = all(&merged).into_iter().filter(|r| r.split == Some(Split::Test)).map(|r| r.run).collect();
    assert_eq!(test, ["run-3", "run-7", "canonical/run-3", "canonical/run-7"]);
}

#[test]
fn only_zoos_of_one_architecture_merge() {
    let dir = tempfile::tempdir().unwrap();
    let first = zoo(dir.path(), "a", &[runs(0, 2, 1)]);
    let check = |widths: &[usize], activation, expected: &str| {
        let path = dir.path().join(format!("{widths:?} {activation:?}"));
        let other = weft_core::Architecture::mlp("other", widths, activation).unwrap();
        let other = Zoo::create(&path, "other", other.into(), None).unwrap();
        let first = Zoo::open(first.path()).unwrap();
        let error = Zoo::merge(&[first, other], &dir.path().join("new"), None, &Monitor::silent()).unwrap_err();
        assert!(error.to_string().ends_with(expected), "{error}");
    };
    check(&[4, 5, 2], Relu, "tensor `layers.0.weight` has shape [5, 4], expected [3, 4]");
    check(&[4, 3, 2, 2], Relu, "tensor `layers.2.weight` is one more than expected");
    check(&[4, 3], Relu, "it has no tensor `layers.1.weight`");
    check(&[4, 3, 2], Tanh, "the tensors are the same, but op 2 computes something else");
    assert!(!dir.path().join("new").exists());
}

/// Files that were imported into a zoo are known to those that are made of it.
#[test]
fn derived_zoos_know_their_files() {
    let dir = tempfile::tempdir().unwrap();
    let (population, records) = runs(0, 4, 1);
    let file = dir.path().join("a.safetensors");
    weft_zoo::write_checkpoint(&file, &architecture(), population.row(0), &BTreeMap::new()).unwrap();
    let mut source = zoo(dir.path(), "a", &[(population.select(&[1, 2, 3]), records[1..].to_vec())]);
    let import = |zoo: &mut Zoo| weft_zoo::import(zoo, std::slice::from_ref(&file), &<_>::default(), &Monitor::silent()).unwrap();
    assert_eq!(import(&mut source).read, 1);
    let sha256: Sha256 = all(&source).iter().find_map(|record| record.provenance.file_sha256).unwrap();
    let (mut merged, _) = Zoo::merge(&[source], &dir.path().join("b"), None, &Monitor::silent()).unwrap();
    assert_eq!(merged.source_of_file(&sha256).unwrap().as_deref(), Some("a.safetensors"));
    assert!(import(&mut merged).skipped[0].reason.starts_with("imported before"));
}
