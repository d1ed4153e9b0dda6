//! A zoo keeps what it was given, and nothing else.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::path::Path;
use std::sync::Arc;
use support::{architecture, runs};
use weft_core::{Activation, Architecture, Digest, Monitor, Population, Split};
use weft_zoo::{Error, Filter, Purpose, Unreferenced, Zoo};

fn zoo(path: &Path) -> Zoo {
    Zoo::create(path, "test", architecture(), None).unwrap()
}

fn all(zoo: &Zoo) -> Vec<weft_zoo::Entry> {
    zoo.records(&Filter::default()).unwrap()
}

#[test]
fn what_was_appended_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let parent = Digest::of_bytes(b"parent");
    let mut zoo = Zoo::create(&dir.path().join("a/zoo"), "a \"quoted\" name", architecture(), Some(parent)).unwrap();
    let (first, second) = (runs(0, 4, 3), runs(4, 2, 3));
    for (population, records) in [&first, &second] {
        let appended = zoo.append(population, records).unwrap();
        assert_eq!((appended.added, appended.duplicates.len(), appended.refused.len()), (records.len(), 0, 0));
    }
    drop(zoo);
    let zoo = Zoo::open(&dir.path().join("a/zoo")).unwrap();
    assert_eq!((zoo.name(), zoo.parent(), zoo.architecture()), ("a \"quoted\" name", Some(parent), &architecture()));
    let entries = all(&zoo);
    assert!(entries.iter().map(weft_zoo::Entry::record).eq(first.1.iter().chain(&second.1)));
    let mut expected = first.0.clone();
    expected.extend(&second.0).unwrap();
    assert_eq!(zoo.load(&entries, Purpose::Transform).unwrap(), expected);
    let backwards: Vec<_> = entries.iter().rev().step_by(5).cloned().collect();
    assert_eq!(zoo.load(&backwards, Purpose::Evaluate).unwrap(), expected.select(&[17, 12, 7, 2]));
    assert!(zoo.load(&[], Purpose::Fit).unwrap().is_empty());
    assert_eq!(zoo.runs().unwrap(), (0..6).map(|i| format!("run-{i}")).collect());
    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
    assert!(report.is_clean() && report.removed.is_empty(), "{report:?}");
    assert_eq!((report.shards, report.checkpoints), (2, 18));
}

#[test]
fn a_large_load_on_several_threads_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let wide = Arc::new(Architecture::mlp("wide", &[1000, 1000, 10], Activation::Relu).unwrap());
    let mut zoo = Zoo::create(dir.path(), "wide", wide.clone(), None).unwrap();
    let weights = weft_core::Seed::new(1).normals(wide.num_parameters());
    let data: Vec<f32> = (0..5).flat_map(|i| weights.iter().map(move |w| w * (1.0 + i as f32))).collect();
    let population = Population::new(wide, data).unwrap();
    let (_, mut records) = runs(0, 5, 1);
    records.iter_mut().enumerate().for_each(|(i, record)| record.digest = population.digest(i));
    assert_eq!(zoo.append(&population, &records).unwrap().added, 5);
    assert_eq!(zoo.load(&all(&zoo), Purpose::Evaluate).unwrap(), population);
}

#[test]
fn filters_select() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (population, records) = runs(0, 8, 2);
    assert_eq!(zoo.append(&population, &records).unwrap().added, 16);
    let check = |filter: Filter, expected: &dyn Fn(usize) -> bool| {
        let expected: Vec<_> = records.iter().enumerate().filter(|(i, _)| expected(*i)).map(|(_, r)| r).collect();
        let got = zoo.records(&filter).unwrap();
        assert!(!expected.is_empty() && got.iter().map(weft_zoo::Entry::record).eq(expected.iter().copied()), "{filter:?}");
        assert_eq!(zoo.count(&filter).unwrap(), expected.len());
    };
    let f = Filter::default;
    check(Filter { split: Some(Split::Test), ..f() }, &|i| records[i].split == Some(Split::Test));
    check(Filter { split: Some(Split::Train), final_only: true, ..f() }, &|i| records[i].split == Some(Split::Train) && i % 2 == 1);
    check(Filter { min_accuracy: Some(0.25), ..f() }, &|i| i <= 2);
    check(Filter { run: Some("run-3".to_owned()), ..f() }, &|i| i / 2 == 3);
    check(Filter { digest_prefix: Some(records[5].digest.to_string()[..10].to_uppercase()), ..f() }, &|i| i == 5);
    check(Filter { limit: Some(3), offset: 4, ..f() }, &|i| (4..7).contains(&i));
    check(Filter { offset: 10, ..f() }, &|i| i >= 10);
}

#[test]
fn fitting_on_the_test_split_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (population, records) = runs(0, 4, 1);
    assert_eq!(zoo.append(&population, &records).unwrap().added, 4);
    let entries = all(&zoo);
    let error = zoo.load(&entries, Purpose::Fit).unwrap_err();
    assert!(matches!(&error, Error::TestSplit { run, .. } if run == "run-3"), "{error}");
    assert_eq!(zoo.load(&entries[..3], Purpose::Fit).unwrap().len(), 3);
    assert_eq!(zoo.load(&entries, Purpose::Transform).unwrap().len(), 4);
}

#[test]
fn the_same_network_is_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (population, records) = runs(0, 3, 2);
    let _ = zoo.append(&population.select(&[0, 1]), &records[..2]).unwrap();
    let before = std::fs::read_dir(dir.path().join("shards")).unwrap().count();
    let again = zoo.append(&population.select(&[0, 1]), &records[..2]).unwrap();
    assert_eq!((again.added, again.duplicates), (0, vec![records[0].digest, records[1].digest]));
    assert_eq!(std::fs::read_dir(dir.path().join("shards")).unwrap().count(), before, "no shard for nothing");
    let twice = zoo.append(&population.select(&[1, 2, 3, 2]), &[&records[1..4], &records[2..3]].concat()).unwrap();
    assert_eq!((twice.added, twice.duplicates), (2, vec![records[1].digest, records[2].digest]));
    assert!(all(&zoo).iter().map(weft_zoo::Entry::record).eq(&records[..4]));
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
}

#[test]
fn what_is_not_finite_is_refused_by_name_and_the_rest_goes_in() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (mut population, mut records) = runs(0, 5, 1);
    population.data_mut()[23 + 13] = f32::NAN;
    records[2].metrics.insert("train-loss".to_owned(), f64::INFINITY);
    records[4].recipe.as_mut().unwrap().learning_rate = f64::NAN;
    let appended = zoo.append(&population, &records).unwrap();
    assert_eq!(appended.added, 2);
    let reasons: Vec<_> = appended.refused.iter().map(|r| (r.run.as_str(), r.reason.as_str())).collect();
    let expected = [
        ("run-1", "tensor `layers.0.bias`: value 1 is not finite"),
        ("run-2", "metric `train-loss` is not finite"),
        ("run-4", "its recipe has a figure that is not finite"),
    ];
    assert_eq!(reasons, expected);
}

#[test]
fn records_that_do_not_fit_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (population, records) = runs(0, 2, 2);
    let _ = zoo.append(&population, &records).unwrap();
    let before = zoo.digest().unwrap();
    let (fresh, fresh_records) = runs(9, 1, 2);
    let mut check = |change: &dyn Fn(&mut [weft_core::Record]), expected: &str| {
        let mut records = fresh_records.clone();
        change(&mut records);
        let error = zoo.append(&fresh, &records).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(&|r| r[0].digest = Digest::of_bytes(b""), "its weights");
    check(&|r| r[1].split = Some(Split::Test), "cannot also be in");
    check(&|r| r[0].is_final = true, "final checkpoint already");
    check(&|r| r[1].run = "run-1".to_owned(), "final checkpoint already");
    let short = zoo.append(&fresh, &records[..1]).unwrap_err();
    assert!(matches!(short, Error::Count { networks: 2, records: 1 }));
    let other = Arc::new(Architecture::mlp("other", &[4, 4, 2], Activation::Relu).unwrap());
    assert!(matches!(zoo.append(&Population::zeros(other, 2), &records[..2]), Err(Error::Architecture { .. })));
    assert_eq!(zoo.digest().unwrap(), before);
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().removed.is_empty());
}

#[test]
fn the_digest_sees_records_and_not_places_or_timings() {
    let dir = tempfile::tempdir().unwrap();
    let (population, records) = runs(0, 3, 2);
    let digest = |name: &str, sizes: &[usize], change: &dyn Fn(&mut weft_core::Record)| {
        let mut zoo = zoo(&dir.path().join(name));
        let mut start = 0;
        for size in sizes {
            let rows: Vec<usize> = (start..start + size).collect();
            let mut part = records[start..start + size].to_vec();
            change(&mut part[0]);
            let _ = zoo.append(&population.select(&rows), &part).unwrap();
            start += size;
        }
        zoo.digest().unwrap()
    };
    let whole = digest("whole", &[6], &|_| {});
    assert_eq!(digest("parts", &[2, 4], &|_| {}), whole);
    assert_eq!(digest("timing", &[6], &|r| _ = r.metrics.insert("train-secs".to_owned(), 9.0)), whole);
    assert_ne!(digest("metric", &[6], &|r| _ = r.metrics.insert("train-loss".to_owned(), 9.0)), whole);
    assert_ne!(digest("licence", &[6], &|r| r.provenance.licence = "unknown".to_owned()), whole);
    assert_ne!(digest("less", &[4], &|_| {}), whole);
}

#[test]
fn stats_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = zoo(dir.path());
    let (population, records) = runs(0, 8, 2);
    let _ = zoo.append(&population.select(&(0..15).collect::<Vec<_>>()), &records[..15]).unwrap();
    let stats = zoo.stats().unwrap();
    assert_eq!((stats.checkpoints, stats.runs, stats.finals, stats.synthetic, stats.recipes, stats.shards), (15, 8, 7, 7, 1, 1));
    assert_eq!(stats.num_bytes, 15 * 23 * 4);
    let [train, test] = stats.splits;
    assert_eq!((train.runs, train.finals, train.checkpoints), (6, 6, 12));
    assert_eq!((test.runs, test.finals, test.checkpoints), (2, 1, 3));
    assert!((test.accuracy.unwrap().median - 1.0 / 9.0).abs() < 1e-12);
    assert!(!zoo.runs().unwrap().contains("run-7"), "a run without its final checkpoint is not complete");
}

#[test]
fn folders_that_are_no_zoos() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Zoo::open(dir.path()), Err(Error::NotAZoo { missing: "zoo.toml", .. })));
    drop(zoo(dir.path()));
    assert!(Zoo::exists(dir.path()));
    let create = |path: &Path| Zoo::create(path, "again", architecture(), None);
    assert!(matches!(create(dir.path()), Err(Error::Occupied { .. })));
    let manifest = dir.path().join("zoo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("format-version = 2", "format-version = 3\nfuture = 3")).unwrap();
    assert!(matches!(Zoo::open(dir.path()), Err(Error::Version { got: 3, .. })));
    std::fs::write(&manifest, text.replace("parent", "p").replace("name", "naem")).unwrap();
    assert!(Zoo::open(dir.path()).unwrap_err().to_string().contains("line"));
    // A creation that was killed before its manifest is taken up; a folder of something else is not.
    std::fs::remove_file(&manifest).unwrap();
    drop(create(dir.path()).unwrap());
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("thesis.tex"), "").unwrap();
    assert!(create(other.path()).unwrap_err().to_string().contains("thesis.tex"));
}

#[test]
fn two_writers_take_turns() {
    let dir = tempfile::tempdir().unwrap();
    drop(zoo(dir.path()));
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let path = dir.path().to_owned();
            scope.spawn(move || {
                let mut zoo = Zoo::open(&path).unwrap();
                for i in 0..5 {
                    let (population, records) = runs(100 * writer + i, 1, 2);
                    assert_eq!(zoo.append(&population, &records).unwrap().added, 2);
                    let report = zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap();
                    assert!(report.is_clean() && report.removed.is_empty(), "{report:?}");
                }
            });
        }
    });
    let zoo = Zoo::open(dir.path()).unwrap();
    assert_eq!(zoo.runs().unwrap().len(), 10);
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
}
