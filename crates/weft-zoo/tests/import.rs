//! An import of many files from elsewhere: one report, whatever they are, and a zoo that can go on.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use support::{architecture, runs};
use weft_core::{Event, Monitor, Split};
use weft_zoo::{Entry, Error, Filter, ImportOptions, ImportReport, LabelRule, Purpose, Refusal, Unreferenced, Zoo};

const MIT: &str = "MIT License\n\nPermission is hereby granted, free of charge, to any person obtaining a copy\nof this software …\n\
                   THE SOFTWARE IS PROVIDED \"AS IS\", WITHOUT WARRANTY";
const GPL: &str = "                    GNU GENERAL PUBLIC LICENSE\n                       Version 3, 29 June 2007\n";

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Writes a network whose weights are those of run `seed`, with a change.
    fn network(&self, name: &str, seed: u64, metadata: &[(&str, &str)], change: impl Fn(&mut [f32])) {
        let (mut population, _) = runs(seed, 1, 1);
        change(population.data_mut());
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        weft_zoo::write_checkpoint(&self.path(name), &architecture(), population.row(0), &metadata).unwrap();
    }

    fn zoo(&self, name: &str) -> Zoo {
        Zoo::create(&self.path(name), name, architecture(), None).unwrap()
    }

    fn told(&self, refusals: &[Refusal]) -> Vec<(String, String)> {
        let told = |r: &Refusal| (r.path.strip_prefix(self.0.path()).unwrap().display().to_string(), r.reason.clone());
        refusals.iter().map(told).collect()
    }
}

fn import(zoo: &mut Zoo, path: &Path, options: &ImportOptions) -> ImportReport {
    weft_zoo::import(zoo, &[path.to_owned()], options, &Monitor::silent()).unwrap()
}

fn all(zoo: &Zoo) -> Vec<Entry> {
    zoo.records(&Filter { with_quarantined: true, ..Filter::default() }).unwrap()
}

fn rules(texts: &[&str]) -> Vec<LabelRule> {
    texts.iter().map(|text| LabelRule::parse(text).unwrap()).collect()
}

/// Asserts that reasons come for these files, in this order, each with its part.
fn assert_told(got: &[(String, String)], expected: &[(&str, &str)]) {
    assert_eq!(
        got.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(),
        expected.iter().map(|(path, _)| *path).collect::<Vec<_>>()
    );
    for ((path, reason), (_, part)) in got.iter().zip(expected) {
        assert!(reason.contains(part), "{path}: {reason}");
    }
}

fn mixed() -> Folder {
    let folder = Folder::new();
    folder.text("in/LICENSE", MIT);
    folder.text("in/gpl/COPYING", GPL);
    folder.text("in/odd/LICENSE.txt", "You may use this if you are nice.");
    folder.text("in/notes.txt", "not a checkpoint");
    folder.network("in/en/hey_hal_v2.safetensors", 1, &[("author", "Clarke"), ("metric.validation-accuracy", "0.75")], |_| {});
    folder.network("in/en/hey_hal.safetensors", 2, &[], |_| {});
    std::fs::copy(folder.path("in/en/hey_hal.safetensors"), folder.path("in/en/same_file.safetensors")).unwrap();
    folder.network("in/en/same_network.safetensors", 2, &[("author", "nobody")], |_| {});
    folder.network("in/en/nan.safetensors", 3, &[("run", "bad")], |row| row[4] = f32::NAN);
    folder.network("in/en/inf.safetensors", 4, &[], |row| row[22] = f32::NEG_INFINITY);
    folder.network("in/gpl/restricted.safetensors", 5, &[], |_| {});
    folder.network("in/gpl/named.safetensors", 6, &[("license", "GPL-3.0-only OR MIT")], |_| {});
    folder.network("in/odd/unknown.safetensors", 7, &[], |_| {});
    folder.network("in/odd/step.safetensors", 8, &[("step", "seven")], |_| {});
    folder.text("in/torn.safetensors", "abc");
    let other = weft_core::Architecture::mlp("other", &[4, 2], weft_core::Activation::Relu).unwrap();
    let row = vec![0.5; other.num_parameters()];
    weft_zoo::write_checkpoint(&folder.path("in/wider.safetensors"), &other, &row, &BTreeMap::new()).unwrap();
    folder
}

#[test]
fn mixed_files_give_one_report() {
    let folder = mixed();
    let mut zoo = folder.zoo("zoo");
    let options = ImportOptions {
        test_fraction: 0.0,
        allowed_licences: vec!["mit".to_owned(), "Apache-2.0".to_owned()],
        labels: rules(&["phrase=file-stem", "language=folder", "task=wake word"]),
        ..ImportOptions::default()
    };
    let report = import(&mut zoo, &folder.path("in"), &options);
    assert_eq!((report.read, report.ignored), (3, 1), "{report:?}");
    assert_told(
        &folder.told(&report.skipped),
        &[("in/en/same_file.safetensors", "hey_hal.safetensors`"), ("in/en/same_network.safetensors", "hey_hal.safetensors`")],
    );
    assert_told(
        &folder.told(&report.quarantined),
        &[
            ("in/en/inf.safetensors", "tensor `layers.1.bias`: value 1 is not finite"),
            ("in/en/nan.safetensors", "tensor `layers.0.weight`: value 4 is not finite"),
        ],
    );
    assert_told(
        &folder.told(&report.refused),
        &[
            ("in/gpl/restricted.safetensors", "its licence `GPL-3.0-only` is not allowed; allowed: mit, Apache-2.0"),
            ("in/odd/step.safetensors", "`seven`"),
            ("in/odd/unknown.safetensors", "its licence `unknown` is not allowed"),
            ("in/torn.safetensors", "not a valid safetensors file"),
            ("in/wider.safetensors", "tensor `layers.0.weight`: shape [2, 4], expected [3, 4]"),
        ],
    );

    let entries = all(&zoo);
    let by_source: BTreeMap<&str, &Entry> = entries.iter().map(|e| (e.record().provenance.source.as_str(), e)).collect();
    let hal = by_source["en/hey_hal_v2.safetensors"].record();
    let labels = [("language", "en"), ("phrase", "hey hal"), ("task", "wake word"), ("variant", "v2")];
    assert_eq!(hal.labels, labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!((hal.split, hal.is_final, hal.metrics["validation-accuracy"]), (Some(Split::Train), true, 0.75));
    assert_eq!(hal.provenance.metadata, BTreeMap::from([("author".to_owned(), "Clarke".to_owned())]));
    assert_eq!((hal.provenance.licence.as_str(), hal.provenance.format.as_deref()), ("MIT", Some("safetensors")));
    assert_eq!(by_source["gpl/named.safetensors"].record().provenance.licence, "GPL-3.0-only OR MIT");

    // Quarantined: in the catalogue, in no split and in no listing that does not ask; never loaded.
    let nan = by_source["en/nan.safetensors"];
    assert_eq!((nan.record().split, nan.record().is_final, nan.record().run.as_str()), (None, false, "bad"));
    assert!(nan.record().quarantine.is_some() && nan.shard().is_none());
    assert_eq!((zoo.count(&Filter::default()).unwrap(), entries.len()), (3, 5));
    assert!(!zoo.runs().unwrap().contains("bad"));
    for purpose in [Purpose::Fit, Purpose::Transform, Purpose::Evaluate] {
        assert!(matches!(zoo.load(std::slice::from_ref(nan), purpose), Err(Error::Quarantined { run, .. }) if run == "bad"));
    }
    let stats = zoo.stats().unwrap();
    assert_eq!((stats.checkpoints, stats.quarantined, stats.runs), (3, 2, 3));
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
}

#[test]
fn the_same_import_again_reads_only_what_it_has_not() {
    let folder = mixed();
    let mut zoo = folder.zoo("zoo");
    let options = ImportOptions { allowed_licences: vec!["MIT".to_owned()], ..ImportOptions::default() };
    let first = import(&mut zoo, &folder.path("in"), &options);
    let (digest, before) = (zoo.digest().unwrap(), all(&zoo));
    let again = import(&mut zoo, &folder.path("in"), &options);
    assert_eq!((again.read, again.quarantined.len(), &again.refused), (0, 0, &first.refused));
    assert_eq!(again.skipped.len(), first.read + first.skipped.len() + first.quarantined.len());
    assert!(
        again.skipped.iter().all(|r| r.reason.starts_with("imported before, as `en/") || r.reason.contains("`gpl/named")),
        "{again:?}"
    );
    assert_eq!((zoo.digest().unwrap(), all(&zoo)), (digest, before));
    // What was refused for its licence is not remembered: it goes in once it is allowed.
    let open = import(&mut zoo, &folder.path("in"), &ImportOptions::default());
    assert_eq!((open.read, open.refused.len()), (2, 3), "{open:?}");
    let unknown = all(&zoo).into_iter().find(|e| e.record().provenance.source == "odd/unknown.safetensors").unwrap();
    assert_eq!(unknown.record().provenance.licence, "unknown");
    // A sound network of a run that had nothing but quarantined ones.
    folder.network("in/en/better.safetensors", 9, &[("run", "bad")], |_| {});
    assert_eq!(import(&mut zoo, &folder.path("in"), &ImportOptions::default()).read, 1);
    assert!(zoo.runs().unwrap().contains("bad"));
}

#[test]
fn licences_are_looked_for_no_further_up_than_the_folder_that_was_named() {
    let folder = mixed();
    let licence_of = |path: &str, options: &ImportOptions| {
        let name = format!("zoo of {} {}", path.replace('/', " "), options.licence.is_some());
        let mut zoo = folder.zoo(&name);
        assert_eq!(import(&mut zoo, &folder.path(path), options).read, 1);
        all(&zoo)[0].record().provenance.licence.clone()
    };
    let given = ImportOptions { licence: Some("ISC".to_owned()), ..ImportOptions::default() };
    assert_eq!(licence_of("in/en/hey_hal.safetensors", &ImportOptions::default()), "unknown");
    assert_eq!(licence_of("in/gpl/restricted.safetensors", &ImportOptions::default()), "GPL-3.0-only");
    assert_eq!(licence_of("in/gpl/restricted.safetensors", &given), "ISC");
    assert_eq!(licence_of("in/gpl/named.safetensors", &given), "GPL-3.0-only OR MIT");
}

/// An import that is stopped at any point and done again gives the zoo of an import that was not.
#[test]
fn a_stopped_import_goes_on_to_the_same_zoo() {
    let folder = Folder::new();
    // Three batches of files; one block of networks each would be 600 GB, so the second half is stopped at its start.
    for i in 0..80 {
        folder.network(&format!("in/{i:03}.safetensors"), i, &[], |_| {});
    }
    let options = ImportOptions { test_fraction: 0.25, ..ImportOptions::default() };
    let mut whole = folder.zoo("whole");
    assert_eq!(import(&mut whole, &folder.path("in"), &options).read, 80);
    let expected = whole.digest().unwrap();
    let mut zoo = folder.zoo("stopped");
    for events in 1..8 {
        let (stop, left) = (AtomicBool::new(false), AtomicI32::new(events));
        let sink = |_: Event| {
            let left = left.fetch_sub(1, Ordering::Relaxed) - 1;
            stop.store(left <= 0, Ordering::Relaxed);
        };
        let result = weft_zoo::import(&mut zoo, &[folder.path("in")], &options, &Monitor::new(&sink, &stop));
        assert!(matches!(result, Err(Error::Interrupted)) || events > 5, "after {events} events: {result:?}");
        assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
    }
    // A part of the files came in before: their runs and the rest are divided as all of them would have been.
    let mut parts = folder.zoo("parts");
    let some: Vec<PathBuf> = (0..80).step_by(3).map(|i| folder.path(&format!("in/{i:03}.safetensors"))).collect();
    weft_zoo::import(&mut parts, &some, &options, &Monitor::silent()).unwrap();
    import(&mut parts, &folder.path("in"), &options);
    let _ = import(&mut zoo, &folder.path("in"), &options);
    assert_eq!(zoo.digest().unwrap(), expected);
    assert_eq!(parts.count(&Filter::default()).unwrap(), 80);
}

#[test]
fn nothing_is_changed_before_all_is_examined() {
    let folder = mixed();
    let options = ImportOptions { allowed_licences: vec!["BSD-3-Clause".to_owned()], ..ImportOptions::default() };
    let examined = weft_zoo::examine(None, &architecture(), &[folder.path("in")], &options, &Monitor::silent()).unwrap();
    assert!(examined.is_empty());
    assert_eq!(examined.into_report().refused.len(), 11);
    // A file that changes between its examination and its turn is refused, and not remembered.
    let mut zoo = folder.zoo("zoo");
    let examine = || weft_zoo::examine(None, &architecture(), &[folder.path("in")], &ImportOptions::default(), &Monitor::silent());
    let examined = examine().unwrap();
    folder.network("in/en/hey_hal.safetensors", 99, &[], |_| {});
    std::fs::remove_file(folder.path("in/en/hey_hal_v2.safetensors")).unwrap();
    let report = examined.store(&mut zoo, &Monitor::silent()).unwrap();
    assert_eq!(report.read, 3);
    let changed: Vec<_> = folder.told(&report.refused).into_iter().filter(|(_, reason)| reason.contains("changed")).collect();
    assert_told(
        &changed,
        &[("in/en/hey_hal.safetensors", "not those that were examined"), ("in/en/hey_hal_v2.safetensors", "No such file")],
    );
    assert_eq!(import(&mut zoo, &folder.path("in"), &ImportOptions::default()).read, 2, "what it is now, and its copy");
}

/// More bytes than are held at once: the network goes from its file into its shard, and is what was examined or not there.
#[test]
fn a_network_larger_than_a_block_goes_in_whole_or_not_at_all() {
    let folder = Folder::new();
    let wide = weft_core::Architecture::mlp("wide", &[4_100, 4_100, 2], weft_core::Activation::Relu).unwrap();
    let mut row = weft_core::Seed::new(1).normals(wide.num_parameters());
    let path = folder.path("in/wide.safetensors");
    std::fs::create_dir(folder.path("in")).unwrap();
    let write = |row: &[f32]| weft_zoo::write_checkpoint(&path, &wide, row, &BTreeMap::new()).unwrap();
    write(&row);
    let mut zoo = Zoo::create(&folder.path("zoo"), "wide", std::sync::Arc::new(wide.clone()), None).unwrap();
    let examine = || weft_zoo::examine(None, &wide, &[folder.path("in")], &ImportOptions::default(), &Monitor::silent()).unwrap();
    let (examined, last) = (examine(), row.len() - 1);
    row[last] += 1.0;
    write(&row);
    let report = examined.store(&mut zoo, &Monitor::silent()).unwrap();
    assert_eq!(report.read, 0);
    assert_told(&folder.told(&report.refused), &[("in/wide.safetensors", "not those that were examined")]);
    assert_eq!(std::fs::read_dir(folder.path("zoo/shards")).unwrap().count(), 0);

    assert_eq!(examine().store(&mut zoo, &Monitor::silent()).unwrap().read, 1);
    let entries = all(&zoo);
    assert_eq!(entries[0].record().digest, weft_core::Digest::of_weights(&wide, &row));
    assert!(zoo.load(&entries, Purpose::Evaluate).unwrap().row(0) == row);
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());
    // The same again is known by its file.
    assert_eq!(import(&mut zoo, &folder.path("in"), &ImportOptions::default()).skipped.len(), 1);
}

/// What no catalogue takes is refused before there is a zoo, not when one has been made for it.
#[test]
fn a_step_beyond_the_catalogue_is_refused_at_the_examination() {
    let folder = Folder::new();
    folder.network("in/far.safetensors", 1, &[("step", "9999999999999999999")], |_| {});
    let options = ImportOptions::default();
    let examined = weft_zoo::examine(None, &architecture(), &[folder.path("in")], &options, &Monitor::silent()).unwrap();
    assert!(examined.is_empty());
    assert_told(&folder.told(&examined.into_report().refused), &[("in/far.safetensors", "its step is above 2⁶³")]);
}

/// The layout of a network of many tensors is longer than other metadata may be, and comes back nevertheless.
#[test]
fn a_large_network_keeps_the_names_of_its_file() {
    let folder = Folder::new();
    let deep = weft_core::Architecture::mlp("deep", &[2; 301], weft_core::Activation::Relu).unwrap();
    let row = weft_core::Seed::new(1).normals(deep.num_parameters());
    let named = |name: &str| name.replace("layers.", "backbone.dense_blocks.");
    let tensors: Vec<_> = deep.tensors().iter().map(|t| (named(&t.name), t.shape.clone(), &row[t.range()])).collect();
    std::fs::create_dir(folder.path("in")).unwrap();
    weft_zoo::write_tensors(&folder.path("in/deep.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    let mut zoo = Zoo::create(&folder.path("zoo"), "deep", std::sync::Arc::new(deep.clone()), None).unwrap();
    assert_eq!(import(&mut zoo, &folder.path("in"), &ImportOptions::default()).read, 1);

    let entries = all(&zoo);
    let text = &entries[0].record().provenance.metadata[weft_zoo::BINDING];
    let binding = weft_zoo::binding_from_text(text, &deep).unwrap();
    assert!(weft_zoo::binding_to_json(&binding).len() > 16 << 10 && text.len() < 8 << 10, "{} bytes", text.len());
    let form = weft_zoo::ExportForm::Safetensors(weft_zoo::TensorNames::Original);
    let files = zoo.export_as(&entries, &form, &folder.path("out"), &Monitor::silent()).unwrap();
    let exported = weft_zoo::read_tensors(&files[0].path).unwrap().tensors;
    assert_eq!(exported, tensors.into_iter().map(|(name, shape, values)| (name, (shape, values.to_vec()))).collect());
}

#[test]
fn metadata_without_end_are_bounded() {
    let folder = Folder::new();
    let long = "x".repeat(20_000);
    let many: Vec<(String, String)> = (0..1_001).map(|i| (format!("label.{i}"), "x".to_owned())).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    folder.network("in/free.safetensors", 1, &[("essay", &long), ("author", "me"), ("label.phrase", "hey")], |_| {});
    folder.network("in/many.safetensors", 2, &many, |_| {});
    folder.network("in/run.safetensors", 3, &[("run", &long)], |_| {});
    let mut zoo = folder.zoo("zoo");
    let report = import(&mut zoo, &folder.path("in"), &ImportOptions::default());
    assert_told(
        &folder.told(&report.refused),
        &[("in/many.safetensors", "1001 entries`, expected at most 1,000"), ("in/run.safetensors", "20000 bytes")],
    );
    let record = all(&zoo).remove(0).into_record();
    let metadata = [("author", "me"), ("weft.left-out", "essay")];
    assert_eq!(record.provenance.metadata, metadata.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!(record.labels["phrase"], "hey");
}
