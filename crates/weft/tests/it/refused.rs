//! Runs that cannot be.

use crate::tiny;
use weft::{Kind, Monitor, SampleRequest, Stage};

#[test]
fn a_condition_that_was_not_trained_on_names_the_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    let config = tiny(&dir.path().join("run"), &[]);
    let request = |field: &str, value: f64| SampleRequest {
        count: 1,
        seed: 0,
        condition: [(field.to_owned(), value.into())].into(),
        generator: None,
        folder: dir.path().join("samples"),
    };
    let refusal = |request| weft::sample(&config, &request, &Monitor::silent()).unwrap_err().to_string();
    assert_eq!(refusal(request("acuracy", 0.9)), "unknown condition field `acuracy`; known fields: `validation-accuracy`, `step`");
    assert!(refusal(request("validation-accuracy", 90.0)).contains("outside the trained range"));
    assert!(!dir.path().join("samples").exists());
}

#[test]
fn a_zoo_of_another_architecture_or_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    weft::run(&tiny(&dir.path().join("run"), &[]), Stage::Zoo, &Monitor::silent()).unwrap();
    let zoo = format!("zoo.existing.path={:?}", dir.path().join("run/zoo"));
    let other = tiny(&dir.path().join("other"), &[&zoo, "architecture.mlp.hidden=[7]"]);
    let error = weft::run(&other, Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    let nowhere = tiny(&dir.path().join("nowhere"), &["zoo.existing.path=nowhere"]);
    let error = weft::run(&nowhere, Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert_eq!((error.kind(), error.hint().is_some()), (Kind::Missing, true));
}

#[test]
fn files_that_are_not_ours_stay() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("zoo")).unwrap();
    std::fs::write(dir.path().join("zoo/notes.txt"), "mine").unwrap();
    let error = weft::run(&tiny(dir.path(), &[]), Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(std::fs::read_to_string(dir.path().join("zoo/notes.txt")).unwrap(), "mine");
}
