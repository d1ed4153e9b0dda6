//! Wake-word networks through a zoo: in from their models, out into them.

use crate::model::{Model, some};
use crate::real::{files, folder};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use weft_core::{Digest, Monitor, Population, Provenance, Record, Seed, Split};
use weft_zoo::onnx::read_onnx;
use weft_zoo::{Entry, Error, ExportForm, Filter, Graphs, ImportOptions, Zoo, sha256_of_file};

fn sha256(path: &Path) -> weft_core::Sha256 {
    sha256_of_file(path).unwrap()
}

/// One zoo of all networks of a folder, as an import records them.
fn imported(models: &Path, path: &Path) -> Zoo {
    let paths = files(models);
    let mut seen = BTreeSet::new();
    let (mut data, mut records, mut architecture) = (Vec::new(), Vec::new(), None);
    for file in &paths {
        let network = read_onnx(file).unwrap();
        let shared = architecture.get_or_insert_with(|| Arc::new(network.architecture.clone()));
        let digest = Digest::of_weights(shared, &network.weights());
        if !seen.insert(digest) {
            continue;
        }
        data.extend(network.weights());
        let source = file.strip_prefix(models).unwrap().to_str().unwrap().to_owned();
        let provenance = Provenance {
            licence: "Apache-2.0".to_owned(),
            file_sha256: Some(sha256(file)),
            format: Some("onnx".to_owned()),
            source: source.clone(),
            ..Provenance::default()
        };
        records.push(Record { split: Some(Split::Train), is_final: true, provenance, ..Record::new(digest, source) });
    }
    let architecture = architecture.unwrap();
    let mut zoo = Zoo::create(path, "wake words", architecture.clone(), None).unwrap();
    assert!(zoo.append(&Population::new(architecture, data).unwrap(), &records).unwrap().refused.is_empty());
    zoo
}

fn originals(folder: &Path, ancestors: &[&Path]) -> ExportForm {
    ExportForm::Onnx(Graphs::Originals {
        folder: folder.to_owned(),
        ancestors: ancestors.iter().map(|&path| path.into()).collect(),
    })
}

#[test]
fn every_wake_word_comes_out_as_the_file_that_it_was() {
    let Some(models) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let zoo = imported(&models, &dir.path().join("zoo"));
    let entries = zoo.records(&Filter::default()).unwrap();
    assert_eq!(entries.len(), 121);
    let exported = zoo.export_as(&entries, &originals(&models, &[]), &dir.path().join("out"), &Monitor::silent()).unwrap();
    for (file, entry) in exported.iter().zip(&entries) {
        let network = read_onnx(&file.path).unwrap();
        assert_eq!(Digest::of_weights(&network.architecture, &network.weights()), entry.record().digest);
        // With its own weights a model is the same file.
        assert_eq!(sha256(&file.path), entry.record().provenance.file_sha256.unwrap(), "{}", file.path.display());
    }
    let text = std::fs::read_to_string(dir.path().join("out/README.md")).unwrap();
    assert!(text.contains("numpy.zeros((1, 16, 96,), numpy.float32)"), "{text}");
}

/// Networks that differ from those of the models: moved ones, as a generator or a canonicalization makes them.
fn moved(raw: &Zoo, entries: &[Entry], path: &Path) -> Zoo {
    let population = raw.load(entries, weft_zoo::Purpose::Evaluate).unwrap();
    let architecture = raw.architecture();
    let mut data = Vec::new();
    for i in 0..population.len() {
        let noise = Seed::new(i as u64).normals(architecture.num_parameters());
        data.extend(population.row(i).iter().zip(noise).map(|(w, z)| w + 0.01 * z));
    }
    let population = Population::new(architecture.clone(), data).unwrap();
    let record = |i: usize| {
        let provenance = Provenance {
            licence: "Apache-2.0".to_owned(),
            source: "a generator".to_owned(),
            synthetic: true,
            parents: vec![entries[i].record().digest],
            ..Provenance::default()
        };
        Record { split: Some(Split::Train), is_final: true, provenance, ..Record::new(population.digest(i), format!("sample {i}")) }
    };
    let records: Vec<Record> = (0..population.len()).map(record).collect();
    let mut zoo = Zoo::create(path, "samples", architecture.clone(), None).unwrap();
    assert!(zoo.append(&population, &records).unwrap().refused.is_empty());
    zoo
}

#[test]
fn samples_go_into_the_models_of_their_ancestors() {
    let Some(models) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let raw = imported(&models, &dir.path().join("raw"));
    let entries: Vec<Entry> = raw.records(&Filter::default()).unwrap().into_iter().step_by(24).collect();
    let samples = moved(&raw, &entries, &dir.path().join("samples"));
    let chosen = samples.records(&Filter::default()).unwrap();
    let export = |form: &ExportForm, name: &str| samples.export_as(&chosen, form, &dir.path().join(name), &Monitor::silent());
    let error = export(&originals(&models, &[]), "none").unwrap_err();
    assert!(matches!(error, Error::NoOriginal { .. }) && error.to_string().contains("--graph FILE"), "{error}");
    assert!(!dir.path().join("none").exists());
    let one = ExportForm::Onnx(Graphs::File(models.join(&entries[0].record().provenance.source)));
    for (form, name) in [(originals(&models, &[raw.path()]), "own"), (one, "one")] {
        for (file, entry) in export(&form, name).unwrap().iter().zip(&chosen) {
            let network = read_onnx(&file.path).unwrap();
            assert_eq!(Digest::of_weights(&network.architecture, &network.weights()), entry.record().digest, "{name}");
        }
    }
}

#[test]
fn a_model_that_is_another_one_is_refused_with_both_checksums() {
    let Some(models) = folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mine = dir.path().join("mine/en");
    std::fs::create_dir_all(&mine).unwrap();
    let (a, b) = (mine.join("a.onnx"), mine.join("b.onnx"));
    std::fs::copy(&files(&models)[0], &a).unwrap();
    std::fs::copy(&files(&models)[1], &b).unwrap();
    let zoo = imported(&dir.path().join("mine"), &dir.path().join("zoo"));
    let (expected, got) = (sha256(&b).to_string(), sha256(&a).to_string());
    std::fs::copy(&a, &b).unwrap();
    let entries = zoo.records(&Filter::default()).unwrap();
    let form = originals(&dir.path().join("mine"), &[]);
    let error = zoo.export_as(&entries, &form, &dir.path().join("out"), &Monitor::silent()).unwrap_err();
    assert!(matches!(error, Error::OtherFile { .. }));
    for part in [expected, got, b.display().to_string()] {
        assert!(error.to_string().contains(&part), "{part} is missing from {error}");
    }
    std::fs::remove_file(&b).unwrap();
    let error = zoo.export_as(&entries, &form, &dir.path().join("out"), &Monitor::silent()).unwrap_err().to_string();
    assert!(error.contains("there is no file") && error.contains("b.onnx"), "{error}");
    assert!(!dir.path().join("out").exists(), "something was written");
}

/// As networks of other formats: in the catalogue with the reason, in no split, without weights.
#[test]
fn models_with_weights_that_are_not_finite_are_quarantined() {
    let dir = tempfile::tempdir().unwrap();
    let models = dir.path().join("in");
    std::fs::create_dir(&models).unwrap();
    let write = |name: &str, change: Option<(usize, f32)>| {
        let mut weights = some(6, 1);
        if let Some((at, value)) = change {
            weights[at] = value;
        }
        let mut model = Model::new(&[1, 3]);
        model.floats("w", &[3, 2], &weights).floats("b", &[2], &some(2, 2)).node("Gemm", &["x", "w", "b"], "y", &[]);
        std::fs::write(models.join(name), model.bytes()).unwrap();
    };
    write("inf.onnx", Some((0, f32::NEG_INFINITY)));
    write("nan.onnx", Some((2, f32::NAN)));
    write("sound.onnx", None);
    let architecture = Arc::new(read_onnx(&models.join("sound.onnx")).unwrap().architecture);
    let mut zoo = Zoo::create(&dir.path().join("zoo"), "zoo", architecture, None).unwrap();
    let report = weft_zoo::import(&mut zoo, &[models], &ImportOptions::default(), &Monitor::silent()).unwrap();
    assert_eq!((report.read, report.refused), (1, Vec::new()));
    let told: Vec<_> = report.quarantined.iter().map(|r| (r.path.file_name().unwrap().to_str().unwrap(), &*r.reason)).collect();
    // Transposed: the stored value 2 is the parameter's value 1.
    let expected =
        [("inf.onnx", 0), ("nan.onnx", 1)].map(|(n, i)| (n, format!("tensor `layers.0.weight`: value {i} is not finite")));
    assert_eq!(told, expected.iter().map(|(name, reason)| (*name, reason.as_str())).collect::<Vec<_>>());
    let entries = zoo.records(&Filter { with_quarantined: true, ..Filter::default() }).unwrap();
    let quarantined: Vec<_> = entries.iter().filter(|entry| entry.record().quarantine.is_some()).collect();
    assert_eq!((entries.len(), quarantined.len(), zoo.count(&Filter::default()).unwrap()), (3, 2, 1));
    assert!(quarantined.iter().all(|entry| entry.record().split.is_none() && entry.shard().is_none()));
    assert!(quarantined.iter().all(|entry| entry.record().provenance.format.as_deref() == Some("onnx")));
}
