//! What is written reads back, here and in the format's own library; imports sort files into runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use proptest::prelude::*;
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use support::{architecture, runs};
use weft_core::{Activation, Architecture, Digest, Monitor, Part, Record, Split};
use weft_zoo::{Filter, ImportOptions, ImportReport, Metadata, Purpose, Unreferenced, Zoo};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tensor_files_round_trip_and_the_formats_own_library_agrees(
        shapes in proptest::collection::btree_map("\\PC{0,12}", proptest::collection::vec(0usize..5, 0..4), 0..6),
        metadata in proptest::collection::btree_map("\\PC{0,8}", "\\PC{0,20}", 0..4),
        bits in any::<u64>(),
    ) {
        prop_assume!(!shapes.contains_key("__metadata__"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let values: Vec<Vec<f32>> = shapes
            .values()
            .enumerate()
            .map(|(i, shape)| weft_core::Seed::new(bits).index(i as u64).normals(shape.iter().product()))
            .collect();
        let tensors: Vec<_> = shapes.iter().zip(&values).map(|((n, s), v)| (n.clone(), s.clone(), v.as_slice())).collect();
        weft_zoo::write_tensors(&path, &tensors, &metadata).unwrap();
        let read = weft_zoo::read_tensors(&path).unwrap();
        let expected: BTreeMap<_, _> = tensors.iter().map(|(n, s, v)| (n.clone(), (s.clone(), v.to_vec()))).collect();
        prop_assert_eq!(&read.tensors, &expected);
        prop_assert_eq!(&read.metadata, &metadata);
        let bytes = std::fs::read(&path).unwrap();
        let theirs = SafeTensors::deserialize(&bytes).unwrap();
        prop_assert_eq!(theirs.len(), tensors.len());
        for (name, shape, values) in &tensors {
            let view = theirs.tensor(name).unwrap();
            let little: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            prop_assert_eq!((view.shape(), view.data()), (shape.as_slice(), little.as_slice()));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(header in ".{0,200}", data in proptest::collection::vec(any::<u8>(), 0..64), claimed in 0u64..300) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.safetensors");
        let bytes = [&claimed.to_le_bytes(), header.as_bytes(), &data].concat();
        std::fs::write(&path, bytes).unwrap();
        prop_assert!(weft_zoo::read_checkpoint(&path, &architecture()).is_err());
        prop_assert!(weft_zoo::open_sources(&path).is_err());
    }

    #[test]
    fn architectures_round_trip(widths in proptest::collection::vec(1usize..40, 2..6), name in "\\PC{0,12}") {
        let mlp = Architecture::mlp(&name, &widths, Activation::Tanh).unwrap();
        let text = weft_zoo::architecture_to_toml(&mlp);
        prop_assert_eq!(weft_zoo::architecture_from_toml(&text, Path::new("a.toml")).unwrap(), mlp);
    }

    /// The digest is that of the network, whatever file it came from.
    #[test]
    fn digests_do_not_depend_on_the_file(seed in any::<u64>()) {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (dir.path().join("a"), dir.path().join("b"));
        let row = weft_core::Seed::new(seed).normals(architecture().num_parameters());
        weft_zoo::write_checkpoint(&ours, &architecture(), &row, &Metadata::from([("a".to_owned(), "b".to_owned())])).unwrap();
        let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = architecture()
            .tensors()
            .iter()
            .map(|t| (t.name.clone(), t.shape.clone(), row[t.range()].iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect()))
            .collect();
        let views = bytes.iter().map(|(n, s, b)| {
            (n.clone(), safetensors::tensor::TensorView::new(safetensors::Dtype::F64, s.clone(), b).unwrap())
        });
        std::fs::write(&theirs, safetensors::serialize(views, None).unwrap()).unwrap();
        let digest = |path| Digest::of_weights(&architecture(), &weft_zoo::read_checkpoint(path, &architecture()).unwrap());
        prop_assert_eq!(digest(&ours), digest(&theirs));
    }
}

#[test]
fn the_architectures_of_the_repository() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../architectures");
    for widths in [&[64, 16, 10][..], &[784, 16, 10], &[784, 32, 32, 10]] {
        let text: Vec<String> = widths.iter().map(ToString::to_string).collect();
        let name = format!("mlp-{}", text.join("-"));
        let read = weft_zoo::read_architecture(&folder.join(format!("{name}.toml"))).unwrap();
        assert_eq!(read, Architecture::mlp(&name, widths, Activation::Relu).unwrap());
    }
}

#[test]
fn an_mlp_is_inferred_from_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let (population, _) = runs(0, 1, 1);
    weft_zoo::write_checkpoint(&path, &architecture(), population.row(0), &Metadata::new()).unwrap();
    let hints = weft_zoo::Hints { activation: Some(Activation::Relu), ..weft_zoo::Hints::default() };
    let infer = || weft_zoo::infer(&weft_zoo::open_sources(&path).unwrap()[0], &hints);
    let inferred = infer().unwrap().architecture;
    assert_eq!(inferred.name(), "mlp-4-3-2");
    assert!(inferred.same_graph(&architecture()));
    let tensors =
        [("layers.0.weight".to_owned(), vec![2, 2], &[0.0; 4][..]), ("layers.1.weight".to_owned(), vec![2, 3], &[0.0; 6])];
    weft_zoo::write_tensors(&path, &tensors, &Metadata::new()).unwrap();
    let error = infer().unwrap_err().to_string();
    assert!(error.contains("layers.1.weight"), "{error}");
}

/// Exports a zoo of `count` runs into single files.
fn exported(folder: &Path, count: u64) -> Vec<Record> {
    let mut zoo = Zoo::create(&folder.join("zoo"), "source", architecture(), None).unwrap();
    let (population, records) = runs(0, count, 2);
    let _ = zoo.append(&population, &records).unwrap();
    std::fs::create_dir_all(folder.join("files/deeper")).unwrap();
    for (i, entry) in zoo.records(&Filter::default()).unwrap().iter().enumerate() {
        let below = if i % 3 == 0 { "files/deeper" } else { "files" };
        zoo.export(entry, &folder.join(below).join(format!("{i:03}.safetensors"))).unwrap();
    }
    records
}

fn import(zoo: &mut Zoo, paths: &[PathBuf], test_fraction: f64) -> ImportReport {
    let options = ImportOptions { test_fraction, ..ImportOptions::default() };
    weft_zoo::import(zoo, paths, &options, &Monitor::silent()).unwrap()
}

#[test]
fn what_is_exported_can_be_imported_with_all_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let originals = exported(dir.path(), 8);
    let mut zoo = Zoo::create(&dir.path().join("copy"), "copy", architecture(), None).unwrap();
    let report = import(&mut zoo, &[dir.path().join("files")], 0.25);
    assert_eq!((report.read, report.skipped.len(), report.refused.len()), (16, 0, 0));
    let entries = zoo.records(&Filter::default()).unwrap();
    for original in &originals {
        let copy = entries.iter().map(weft_zoo::Entry::record).find(|r| r.digest == original.digest).unwrap();
        let mut expected = Record { split: copy.split, ..original.clone() };
        let provenance = &copy.provenance;
        assert!(provenance.file_sha256.is_some() && provenance.source.ends_with(".safetensors"));
        assert!(!provenance.source.starts_with('/') && provenance.metadata.is_empty(), "{provenance:?}");
        expected.provenance.source.clone_from(&provenance.source);
        expected.provenance.format = Some("safetensors".to_owned());
        expected.provenance.file_sha256 = provenance.file_sha256;
        assert_eq!(*copy, expected);
    }
    let tests = zoo.count(&Filter { split: Some(Split::Test), final_only: true, ..Filter::default() }).unwrap();
    assert_eq!(tests, 2, "a quarter of eight runs");
    let again = import(&mut zoo, &[dir.path().join("files")], 0.25);
    assert_eq!((again.read, again.skipped.len(), again.refused.len()), (0, 16, 0));
    assert!(zoo.verify(Unreferenced::Keep, &Monitor::silent()).unwrap().is_clean());

    // The division is that of the runs, not of their order or their number of imports.
    let mut backwards = Zoo::create(&dir.path().join("backwards"), "copy", architecture(), None).unwrap();
    let mut files = weft_zoo::find_checkpoints(&[dir.path().join("files")]).unwrap();
    files.reverse();
    assert_eq!(import(&mut backwards, &files, 0.25).read, 16);
    for entry in backwards.records(&Filter::default()).unwrap() {
        let same = entries.iter().find(|e| e.record().digest == entry.record().digest).unwrap();
        assert_eq!(same.record().split, entry.record().split);
    }
}

#[test]
fn bad_files_are_refused_by_name_and_the_rest_go_in() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let (population, _) = runs(0, 3, 1);
    let write = |name: &str, row: &[f32], metadata: &[(&str, &str)]| {
        let metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        weft_zoo::write_checkpoint(&path(name), &architecture(), row, &metadata).unwrap();
    };
    write("good.safetensors", population.row(0), &[]);
    write("copy.safetensors", population.row(0), &[]);
    write("licensed.safetensors", population.row(1), &[("license", "MIT"), ("step", "7"), ("run", "mine")]);
    write("odd.safetensors", population.row(2), &[("step", "seven")]);
    let mut broken = population.row(2).to_vec();
    broken[4] = f32::NAN;
    write("nan.safetensors", &broken, &[]);
    std::fs::write(path("torn.safetensors"), [1, 2, 3]).unwrap();
    std::fs::write(path("readme.md"), "not a checkpoint").unwrap();
    let mut zoo = Zoo::create(&path("zoo"), "zoo", architecture(), None).unwrap();
    let files = ["copy", "good", "licensed", "nan", "odd", "torn", "absent"].map(|name| path(&format!("{name}.safetensors")));
    let report = import(&mut zoo, &files, 0.0);
    assert_eq!(report.read, 2);
    assert_eq!(report.skipped.iter().map(|r| &r.path).collect::<Vec<_>>(), [&files[1]]);
    let refused: Vec<_> = report.refused.iter().map(|r| (&r.path, r.reason.as_str())).collect();
    for ((got, reason), (path, expected)) in
        refused.iter().zip([(&files[4], "`seven`"), (&files[5], "not a valid safetensors file"), (&files[6], "No such file")])
    {
        assert!(*got == path && reason.contains(expected), "{reason}");
    }
    assert_eq!(refused.len(), 3);
    assert_eq!(report.quarantined.len(), 1);
    assert!(report.quarantined[0].path == files[3] && report.quarantined[0].reason.contains("`layers.0.weight`: value 4 is not"));
    let entries = zoo.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() }).unwrap();
    let known: Vec<_> = entries.iter().map(|e| (e.record().step, e.record().provenance.licence.as_str())).collect();
    assert_eq!(known, [(None, "unknown"), (Some(7), "MIT")]);
    assert_eq!(entries[1].record().run, "mine");
    assert_eq!(zoo.load(&entries, Purpose::Fit).unwrap(), population.select(&[0, 1]));
    let options = ImportOptions { test_fraction: 1.0, ..ImportOptions::default() };
    assert!(weft_zoo::import(&mut zoo, &files, &options, &Monitor::silent()).unwrap_err().to_string().contains("test-fraction"));
}

/// An independent run has the right to a place in the test split, however few there are.
#[test]
fn a_small_fraction_of_few_runs_is_still_one() {
    let dir = tempfile::tempdir().unwrap();
    exported(dir.path(), 2);
    let mut zoo = Zoo::create(&dir.path().join("copy"), "copy", architecture(), None).unwrap();
    assert_eq!(import(&mut zoo, &[dir.path().join("files")], 0.01).read, 4);
    for split in [Split::Train, Split::Test] {
        assert_eq!(zoo.count(&Filter { split: Some(split), final_only: true, ..Filter::default() }).unwrap(), 1);
    }
}

/// Ten images a class, sorted by class, each pixel the image's number.
fn sorted_idx(folder: &Path) {
    let write = |name: &str, numbers: &[u32], data: Vec<u8>| {
        let bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_be_bytes()).chain(data).collect();
        std::fs::write(folder.join(name), bytes).unwrap();
    };
    for (part, classes) in [("train", 5), ("t10k", 3)] {
        let (images, labels) = ((0..10 * classes).flat_map(|i| [i; 4]).collect(), (0..classes).flat_map(|c| [c; 10]).collect());
        write(&format!("{part}-images-idx3-ubyte"), &[0x803, 10 * u32::from(classes), 2, 2], images);
        write(&format!("{part}-labels-idx1-ubyte"), &[0x801, 10 * u32::from(classes)], labels);
    }
}

#[test]
fn images_keep_their_labels_and_parts_have_every_class() {
    let dir = tempfile::tempdir().unwrap();
    sorted_idx(dir.path());
    let data = weft_zoo::data::idx_folder(dir.path(), "sorted", 10).unwrap();
    assert_eq!(data, weft_zoo::data::idx_folder(dir.path(), "sorted", 10).unwrap());
    let mut seen = Vec::new();
    for (part, classes, each) in [(Part::Train, 5, 8), (Part::Validation, 5, 2), (Part::Test, 3, 10)] {
        let range = data.range(part);
        assert_eq!(range.len(), classes * each);
        for class in 0..classes {
            assert_eq!(data.labels(part).iter().filter(|&&l| l as usize == class).count(), each);
        }
        for example in range {
            let image = data.gather(example..example + 1);
            let number = (image[0] * 255.0).round() as u32;
            assert_eq!(number / 10, data.label(example));
            seen.push((part == Part::Test, number));
        }
    }
    seen.sort_unstable();
    let all: Vec<_> = (0..50).map(|i| (false, i)).chain((0..30).map(|i| (true, i))).collect();
    assert_eq!(seen, all, "every image once, and in its own half");
    assert!(weft_zoo::data::idx_folder(dir.path(), "sorted", 50).is_err(), "nothing would be left to train on");
}
