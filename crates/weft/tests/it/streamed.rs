//! Runs without data: networks of a zoo to samples, in bounded memory.

use crate::tiny;
use std::path::Path;
use weft::config::{ExistingZooConfig, RunConfig, ZooConfig};
use weft::{Error, Monitor, SampleRequest, Stage};

/// A zoo of a few tiny networks, and a run file that takes it to samples.
fn without_data(folder: &Path, output: &str, more: &[&str]) -> RunConfig {
    let trained = folder.join("trained");
    let mut config = tiny(&trained, &[&["run.output='unused'"], more].concat());
    config.run.output.clone_from(&trained);
    if !trained.exists() {
        weft::run(&config, Stage::Zoo, &Monitor::silent()).expect("a tiny zoo is trained");
    }
    config.run.output = folder.join(output);
    config.zoo = ZooConfig::Existing(ExistingZooConfig { path: trained.join("zoo") });
    (config.data, config.architecture, config.refiner) = (None, None, None);
    (config.sample.count, config.sample.seeds) = (3, 2);
    config
}

#[test]
fn a_run_without_data_ends_in_checkpoints_whatever_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let config = without_data(dir.path(), "a", &[]);
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(outcome.stages.last().unwrap().stage, Stage::Sample);
    let architecture = weft_zoo::Zoo::open(&dir.path().join("trained/zoo")).unwrap().architecture().clone();
    let read =
        |run: &str| weft_zoo::read_checkpoint(&dir.path().join(run).join("samples/1-00002.safetensors"), &architecture).unwrap();
    let metadata = weft_zoo::read_metadata(&dir.path().join("a/samples/1-00002.safetensors")).unwrap();
    assert_eq!((metadata["synthetic"].as_str(), metadata["licence"].as_str()), ("true", "CC-BY-4.0"));
    assert!(metadata.contains_key("parents") && metadata.contains_key("generator-digest"));
    assert_eq!(std::fs::read_dir(dir.path().join("a/samples")).unwrap().count(), 3 * 2 + 1);

    let mut small = without_data(dir.path(), "b", &[]);
    small.run.memory = Some("310MB".parse().unwrap());
    weft::run(&small, Stage::Sample, &Monitor::silent()).unwrap();
    assert_eq!(read("a"), read("b"));
    let again = weft::run(&small, Stage::Sample, &Monitor::silent()).unwrap();
    assert!(again.stages.iter().all(|stage| stage.reused));
    let request = SampleRequest {
        count: 2,
        seed: 1,
        condition: std::collections::BTreeMap::new(),
        generator: None,
        folder: dir.path().join("more"),
    };
    assert_eq!(weft::sample(&small, &request, &Monitor::silent()).unwrap().len(), 2);
}

#[test]
fn what_a_run_without_data_cannot_do_is_said_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = without_data(dir.path(), "a", &[]);
    let refused = weft::run(&config, Stage::Evaluate, &Monitor::silent()).unwrap_err();
    assert!(matches!(refused, Error::RunWithoutData { stage: "evaluate" }) && refused.hint().is_some());
    config.run.memory = Some("200MB".parse().unwrap());
    let refused = weft::run(&config, Stage::Canonicalize, &Monitor::silent()).unwrap_err();
    assert!(matches!(refused, Error::Memory { stage: "canonicalize", needed, .. } if needed > 300_000_000), "{refused}");
}
