//! What a run makes, and what it makes again.

use crate::tiny;
use std::collections::BTreeMap;
use std::path::Path;
use weft::config::{Align, By};
use weft::report::data::{Canonicalization, RowKind};
use weft::{Kind, Monitor, SampleRequest, Stage, zoos};

fn reused(outcome: &weft::Outcome) -> Vec<bool> {
    outcome.stages.iter().map(|stage| stage.reused).collect()
}

#[test]
fn a_run_ends_in_networks_and_a_report_and_is_not_run_twice() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(dir.path(), &[]);
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(reused(&outcome), [false; 7]);

    let report = outcome.report.unwrap();
    let kinds: Vec<RowKind> = report.evaluation.rows.iter().map(|row| row.kind).collect();
    for kind in [RowKind::Runs, RowKind::NullCopy, RowKind::Baseline, RowKind::Generator, RowKind::Refined] {
        assert!(kinds.contains(&kind), "{kind:?} is missing from {kinds:?}");
    }
    assert!(report.evaluation.units.orbit_check < 0.01, "{}", report.evaluation.units.orbit_check);
    let canonical = report.canonicalization.unwrap();
    assert!(canonical.max_function_deviation < 1e-4 && canonical.distance.after.mean < canonical.distance.before.mean);
    // Every network of the canonical zoo has its own proof.
    let proven = weft::zoos::list(&dir.path().join("canonical/zoo"), &weft::zoos::Selection::default()).unwrap();
    let deviations: Vec<f64> = proven.iter().map(|view| view.max_deviation.unwrap()).collect();
    let most = deviations.iter().copied().fold(0.0, f64::max);
    assert!((most - canonical.max_function_deviation).abs() < 1e-12 && deviations.iter().any(|&d| d > 0.0));
    let structure = report.structure.unwrap();
    let aligned = structure.canonical.unwrap();
    assert_eq!(structure.raw.spectra.len(), 1 + 4);
    assert!(aligned.pairwise.mean < structure.raw.pairwise.mean && aligned.barrier.is_some() && structure.sharpness.len() == 4);
    let page = std::fs::read_to_string(outcome.page.unwrap()).unwrap();
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("<script src"));

    let exported: Vec<_> = std::fs::read_dir(dir.path().join("networks")).unwrap().collect();
    assert_eq!(exported.len(), 5);
    let metadata = weft_zoo::read_metadata(&dir.path().join("networks/00000.safetensors")).unwrap();
    for key in ["synthetic", "seed", "generator-digest", "parents", "licence", "architecture", "test-accuracy"] {
        assert!(metadata.contains_key(key), "{key} is missing from {metadata:?}");
    }
    assert_eq!((metadata["synthetic"].as_str(), metadata["licence"].as_str()), ("true", "CC-BY-4.0"));

    let again = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(reused(&again), [true; 7]);
    let fewer = tiny(dir.path(), &["export.count=3"]);
    let outcome = weft::run(&fewer, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(reused(&outcome), [true, true, true, true, true, true, false]);
    assert_eq!(std::fs::read_dir(dir.path().join("networks")).unwrap().count(), 3);
}

#[test]
fn the_same_run_file_gives_the_same_networks() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let samples = |dir: &std::path::Path| {
        weft::run(&tiny(dir, &[]), Stage::Sample, &Monitor::silent()).unwrap();
        ["zoo/zoo.toml", "canonical/elements.safetensors", "codec/codec.safetensors", "samples/refined.safetensors"]
            .map(|file| std::fs::read(dir.join(file)).unwrap())
    };
    assert!(samples(a.path()) == samples(b.path()));
    assert_eq!(zoos::stats(&a.path().join("zoo")).unwrap().digest, zoos::stats(&b.path().join("zoo")).unwrap().digest);
}

#[test]
fn networks_are_aligned_by_what_their_units_do() {
    let canonical = |by: &str, align: &str| {
        let dir = tempfile::tempdir().unwrap();
        let config = tiny(dir.path(), &[by, align]);
        weft::run(&config, Stage::Canonicalize, &Monitor::silent()).unwrap();
        let text = std::fs::read_to_string(dir.path().join("canonical/canonicalize.json")).unwrap();
        let report: Canonicalization = serde_json::from_str(&text).unwrap();
        assert!(report.max_function_deviation < 1e-4, "{by}, {align}: {}", report.max_function_deviation);
        assert!(report.distance.after.mean < report.distance.before.mean, "{by}, {align}: {:?}", report.distance);
        std::fs::read(dir.path().join("canonical/elements.safetensors")).unwrap()
    };
    for align in ["canonicalize.align=mean", "canonicalize.align=anchor"] {
        let by_activations = canonical("canonicalize.by=activations", align);
        assert!(by_activations == canonical("canonicalize.by=activations", align), "{align}");
        assert!(by_activations != canonical("canonicalize.by=weights", align), "{align}");
    }
}

#[test]
fn samples_on_demand_follow_their_seed_and_condition() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(&dir.path().join("run"), &[]);
    let sample = |name: &str, seed| {
        let condition = BTreeMap::from([("step".to_owned(), 10.0.into())]);
        let request = SampleRequest { count: 2, seed, condition, generator: None, folder: dir.path().join(name) };
        let files = weft::sample(&config, &request, &Monitor::silent()).unwrap();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect::<Vec<_>>()
    };
    let first = sample("a", 1);
    assert_eq!(first.len(), 2);
    assert!(first == sample("b", 1) && first != sample("c", 2));
}

#[test]
fn a_zoo_goes_into_canonical_form_without_a_run_file() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    weft::run(&tiny(&folder.join("run"), &["zoo.train.recipe.snapshots.steps=[]"]), Stage::Zoo, &Monitor::silent()).unwrap();
    let zoo = &folder.join("run/zoo");
    let request = |zoo: &Path, name: &str, align: Align, by: By, data: Option<&str>| {
        let (zoo, output, data) = (zoo.to_owned(), folder.join(name), data.map(str::to_owned));
        zoos::canonicalize(&zoos::Canonicalize { zoo, output, align, by, data, starts: 2, seed: 0 }, &Monitor::silent())
    };
    let once = request(zoo, "once", Align::Anchor, By::Weights, None).unwrap();
    assert_eq!((once.networks, once.duplicates), (12, 0));
    let [raw, canonical] = once.distance.unwrap();
    assert!(once.max_deviation < 1e-4 && canonical.mean < raw.mean, "{raw:?} {canonical:?}");
    let twice = request(&once.zoo, "twice", Align::Anchor, By::Weights, None).unwrap();
    let digests = |zoo: &Path| {
        let list = zoos::list(zoo, &zoos::Selection::default()).unwrap();
        list.into_iter().map(|view| view.digest).collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(digests(&once.zoo), digests(&twice.zoo));
    let observed = request(zoo, "observed", Align::Mean, By::Activations, Some("digits")).unwrap();
    assert!(observed.max_deviation < 1e-4 && digests(&observed.zoo) != digests(&once.zoo));
    let blind = request(zoo, "blind", Align::Mean, By::Activations, None).unwrap_err();
    assert_eq!(blind.to_string(), "data are needed: units are aligned by their activations");
    let both = request(zoo, "both", Align::Consistent, By::Activations, Some("digits")).unwrap_err();
    assert!(both.to_string().starts_with("`by` must be `weights`"), "{both}");
    assert!(!folder.join("blind").exists() && !folder.join("both").exists());
    let taken = request(zoo, "once", Align::Anchor, By::Weights, None).unwrap_err();
    assert_eq!(taken.kind(), Kind::Conflict, "{taken}");
    assert_eq!(digests(&once.zoo).len(), 12, "a refused command leaves the zoo that is there");
    let own = folder.join("own/notes.txt");
    std::fs::create_dir(folder.join("own")).unwrap();
    std::fs::write(&own, "mine").unwrap();
    let foreign = request(zoo, "own", Align::Anchor, By::Weights, None).unwrap_err();
    assert_eq!((foreign.kind(), std::fs::read_to_string(own).unwrap().as_str()), (Kind::Conflict, "mine"), "{foreign}");
}

#[test]
fn an_own_zoo_goes_through_the_whole_job() {
    let dir = tempfile::tempdir().unwrap();
    let trained = tiny(&dir.path().join("trained"), &["zoo.train.recipe.snapshots.steps=[]"]);
    weft::run(&trained, Stage::Zoo, &Monitor::silent()).unwrap();
    let files = dir.path().join("files");
    let export = zoos::Export {
        zoo: dir.path().join("trained/zoo"),
        selection: zoos::Selection::default(),
        form: zoos::ExportForm::Safetensors(zoos::TensorNames::Own),
        folder: files.clone(),
    };
    for file in zoos::export(&export, &Monitor::silent()).unwrap().files {
        // As other programs write them: weights, and not a word about them.
        let tensors = weft_zoo::read_tensors(&file).unwrap().tensors;
        let tensors: Vec<_> = tensors.iter().map(|(name, (shape, data))| (name.clone(), shape.clone(), data.as_slice())).collect();
        weft_zoo::write_tensors(&file, &tensors, &BTreeMap::new()).unwrap();
    }
    let import = zoos::Import {
        paths: vec![files],
        zoo: dir.path().join("imported"),
        architecture: None,
        activation: Some(weft_core::Activation::Relu),
        test_fraction: 0.34,
        licence: Some("MIT".to_owned()),
        allowed_licences: Vec::new(),
        labels: Vec::new(),
    };
    let view = zoos::import(&import, &Monitor::silent()).unwrap();
    assert_eq!((view.read, view.refused.len()), (12, 0));
    let file = weft_zoo::find_checkpoints(&import.paths).unwrap().remove(3);
    let near = zoos::nearest(&import.zoo, &file, 3, &Monitor::silent()).unwrap();
    let name = file.file_stem().unwrap().to_string_lossy().into_owned();
    assert!(near.len() == 3 && near[0].digest.starts_with(&name), "{name}: {near:?}");
    assert!(near[0].relative < 1e-5 && near[1].relative > 0.01, "{near:?}");
    let mut config = tiny(&dir.path().join("own"), &["evaluate.thresholds=[0.5]"]);
    let path = dir.path().join("imported");
    config.zoo = weft::config::ZooConfig::Existing(weft::config::ExistingZooConfig { path });
    config.architecture = None;
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    assert!(outcome.stages[0].reused && outcome.report.is_some());
}
