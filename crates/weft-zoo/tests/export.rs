//! Checkpoints out of a zoo: the same networks in every form, nothing replaced, nothing written of what is refused.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::path::{Path, PathBuf};
use support::{architecture, runs};
use weft_core::{Digest, Monitor, Provenance, Record, Split};
use weft_zoo::{
    Binding, Entry, Error, ExportForm, Exported, Filter, Graphs, Metadata, TensorNames, Zoo, binding_to_json, open_sources,
};

const OWN_NPZ: ExportForm = ExportForm::Npz(TensorNames::Own);
const ORIGINAL: ExportForm = ExportForm::Safetensors(TensorNames::Original);

fn zoo(folder: &Path, change: impl Fn(usize, &mut Record)) -> (Zoo, Vec<Entry>) {
    let mut zoo = Zoo::create(&folder.join("zoo"), "a_zoo", architecture(), None).unwrap();
    let (population, mut records) = runs(0, 4, 1);
    records.iter_mut().enumerate().for_each(|(i, record)| change(i, record));
    assert!(zoo.append(&population, &records).unwrap().refused.is_empty());
    let entries = zoo.records(&Filter::default()).unwrap();
    (zoo, entries)
}

fn export(zoo: &Zoo, entries: &[Entry], form: &ExportForm, folder: &Path) -> Result<Vec<Exported>, Error> {
    zoo.export_as(entries, form, folder, &Monitor::silent())
}

/// The digest of a file's network, by whatever names.
fn digest_of(path: &Path) -> Digest {
    let source = open_sources(path).unwrap().remove(0);
    let binding = Binding::find(&source, &architecture()).unwrap();
    Digest::of_weights(&architecture(), &binding.bind(&source, &architecture()).unwrap())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn arrays_are_the_same_networks_and_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let (zoo, entries) = zoo(dir.path(), |_, _| {});
    let out = dir.path().join("out");
    let files = export(&zoo, &entries, &OWN_NPZ, &out).unwrap();
    assert_eq!(files.len(), 4);
    for (i, (file, entry)) in files.iter().zip(&entries).enumerate() {
        let digest = entry.record().digest;
        assert_eq!((file.digest, file.unchanged, &file.note), (digest, false, &None));
        assert_eq!(file.path, out.join(format!("{}-hey_{i}.npz", digest.short())));
        assert_eq!(digest_of(&file.path), digest);
        // Another reader of the same format.
        let mut archive = npyz::npz::NpzArchive::open(&file.path).unwrap();
        for spec in architecture().tensors() {
            let array = archive.by_name(&spec.name).unwrap().unwrap();
            assert_eq!(array.shape(), spec.shape.iter().map(|&axis| axis as u64).collect::<Vec<_>>());
            assert_eq!(array.into_vec::<f32>().unwrap().len(), spec.num_values());
        }
    }
    let bytes = |file: &Exported| std::fs::read(&file.path).unwrap();
    let again = export(&zoo, &entries, &OWN_NPZ, &dir.path().join("again")).unwrap();
    assert!(files.iter().zip(&again).all(|(a, b)| bytes(a) == bytes(b)));
    // Into the same folder: nothing is written twice, and nothing else is left there.
    assert!(export(&zoo, &entries, &OWN_NPZ, &out).unwrap().iter().all(|file| file.unchanged));
    assert_eq!(names(&out).len(), 5);
}

/// The layout of a file in which every tensor has another name, and two runs of a record that came from it.
fn renamed(folder: &Path) -> String {
    let (population, _) = runs(0, 1, 1);
    let row = population.row(0);
    let tensors: Vec<_> = architecture()
        .tensors()
        .iter()
        .map(|t| (t.name.replace("layers.0", "0").replace("layers.1", "2"), t.shape.clone(), &row[t.range()]))
        .collect();
    let path = folder.join("renamed.safetensors");
    weft_zoo::write_tensors(&path, &tensors, &Metadata::new()).unwrap();
    let source = open_sources(&path).unwrap().remove(0);
    binding_to_json(&Binding::find(&source, &architecture()).unwrap())
}

#[test]
fn original_names_are_those_of_the_file_or_of_the_ancestors() {
    let dir = tempfile::tempdir().unwrap();
    let json = renamed(dir.path());
    let (population, _) = runs(0, 4, 1);
    let (zoo, entries) = zoo(dir.path(), |i, record| {
        record.provenance.parents = Vec::new();
        match i {
            0 => {
                record.provenance.format = Some("pytorch".to_owned());
                record.provenance.metadata.insert("binding".to_owned(), json.clone());
            }
            1 => record.provenance.parents = vec![population.digest(0)],
            2 => record.provenance.format = Some("safetensors".to_owned()),
            _ => {}
        }
    });
    let files = export(&zoo, &entries, &ORIGINAL, &dir.path().join("out")).unwrap();
    let own: Vec<String> = architecture().tensors().iter().map(|t| t.name.clone()).collect();
    for (i, file) in files.iter().enumerate() {
        let read = weft_zoo::read_tensors(&file.path).unwrap();
        let names: Vec<&String> = read.tensors.keys().collect();
        if i < 2 {
            assert_eq!(names, ["0.bias", "0.weight", "2.bias", "2.weight"], "{i}");
        } else {
            assert!(own.iter().all(|name| read.tensors.contains_key(name)), "{i}");
        }
        assert!(!(i == 0 && read.metadata.contains_key("binding")));
        assert_eq!(file.note.is_some(), i == 3, "{:?}", file.note);
        assert_eq!(digest_of(&file.path), entries[i].record().digest);
    }
    let npz = export(&zoo, &entries[..1], &ExportForm::Npz(TensorNames::Original), &dir.path().join("npz")).unwrap();
    assert_eq!(digest_of(&npz[0].path), entries[0].record().digest);
    assert!(open_sources(&npz[0].path).unwrap()[0].tensors().contains_key("2.weight"));
}

#[test]
fn layouts_that_no_file_can_have_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let json = renamed(dir.path());
    for (from, to, expected) in [
        ("\"0.bias\"", "\"2.bias\"", "two tensors are called `2.bias`"),
        ("\"0.bias\"", "\"__metadata__\"", "no tensor can be called `__metadata__`"),
        ("\"0.bias\"", "\"\"", "no tensor can be called ``"),
        ("[3]", "[4]", "overlap"),
        ("{", "[", "binding"),
    ] {
        let (folder, changed) = (tempfile::tempdir().unwrap(), json.replacen(from, to, 1));
        assert_ne!(changed, json, "{from}");
        let (zoo, entries) = zoo(folder.path(), |_, record| {
            record.provenance.format = Some("npz".to_owned());
            record.provenance.metadata.insert("binding".to_owned(), changed.clone());
        });
        let out = folder.path().join("out");
        let error = export(&zoo, &entries, &ORIGINAL, &out).unwrap_err();
        assert!(matches!(error, Error::Layout { .. }) && error.to_string().contains(expected), "{error}");
        assert!(!out.exists(), "something was written");
    }
}

#[test]
fn what_is_in_the_way_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (zoo, entries) = zoo(dir.path(), |_, _| {});
    let out = dir.path().join("out");
    let form = ExportForm::Safetensors(TensorNames::Own);
    let files = export(&zoo, &entries, &form, &out).unwrap();
    std::fs::write(&files[2].path, "mine").unwrap();
    let error = export(&zoo, &entries, &form, &out).unwrap_err();
    assert!(matches!(&error, Error::Exists { path } if *path == files[2].path), "{error}");
    assert_eq!(std::fs::read(&files[2].path).unwrap(), b"mine");
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("README.md"), "# mine").unwrap();
    assert!(matches!(export(&zoo, &entries, &form, &other), Err(Error::Exists { .. })));
    assert_eq!(names(&other), ["README.md"]);
}

#[test]
fn the_readme_says_what_is_there_and_takes_no_orders_from_a_catalogue() {
    let dir = tempfile::tempdir().unwrap();
    let (zoo, entries) = zoo(dir.path(), |i, record| {
        if i == 1 {
            record.provenance.licence = "Apache-2.0".to_owned();
            record.provenance.source = "a\n# <b> | `rm`".to_owned();
        }
    });
    let out = dir.path().join("out");
    export(&zoo, &entries, &ExportForm::Safetensors(TensorNames::Own), &out).unwrap();
    let text = std::fs::read_to_string(out.join("README.md")).unwrap();
    for part in [
        "# 4 networks of a\\_zoo\n",
        "- Apache-2.0: 1 network\n- MIT: 3 networks\n",
        "from safetensors.torch import load_file\n",
        "| layers.0.weight | [3, 4] |\n",
        "| a \\# &lt;b\\> \\| \\`rm\\`, made by a generator |",
    ] {
        assert!(text.contains(part), "`{part}` is missing from\n{text}");
    }
    assert!(entries.iter().all(|entry| text.contains(&format!("| {}-hey_", entry.record().digest.short()))), "{text}");
    // It is ours, so another export replaces it.
    export(&zoo, &entries[..1], &OWN_NPZ, &out).unwrap();
    let text = std::fs::read_to_string(out.join("README.md")).unwrap();
    assert!(text.contains("# 1 network of") && text.contains("numpy.load(") && !text.contains("load_file"), "{text}");
}

#[test]
fn quarantined_networks_and_lost_models_stop_an_export_before_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = Zoo::create(&dir.path().join("zoo"), "z", architecture(), None).unwrap();
    let (population, mut records) = runs(0, 2, 1);
    records[1] = Record { quarantine: Some("odd".to_owned()), split: None, is_final: false, ..records[1].clone() };
    records[0].provenance =
        Provenance { source: "../a.onnx".to_owned(), format: Some("onnx".to_owned()), ..records[0].provenance.clone() };
    records[0].provenance.file_sha256 = Some(weft_core::Sha256([7; 32]));
    records[0].split = Some(Split::Train);
    let _ = zoo.append(&population.select(&[0]), &records[..1]).unwrap();
    let _ = zoo.quarantine(&records[1..]).unwrap();
    let entries = zoo.records(&Filter { with_quarantined: true, ..Filter::default() }).unwrap();
    let out = dir.path().join("out");
    assert!(matches!(export(&zoo, &entries, &OWN_NPZ, &out), Err(Error::Quarantined { .. })));
    let originals = ExportForm::Onnx(Graphs::Originals { folder: dir.path().to_owned(), ancestors: Vec::new() });
    let entries = zoo.records(&Filter::default()).unwrap();
    assert_eq!(entries.len(), 1);
    let error = export(&zoo, &entries, &originals, &out).unwrap_err();
    assert!(matches!(error, Error::NoOriginal { .. }) && error.to_string().contains("leads out of the folder"), "{error}");
    let missing = ExportForm::Onnx(Graphs::File(PathBuf::from("absent.onnx")));
    assert!(matches!(export(&zoo, &entries, &missing, &out), Err(Error::Io { .. })));
    assert!(!out.exists() || names(&out).is_empty());
}
