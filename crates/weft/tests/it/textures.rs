//! Texture automata: a zoo of tiny ones, judged by what they grow.

use crate::tiny;
use std::path::Path;
use std::sync::Arc;
use weft::config::{ExistingZooConfig, RunConfig, ZooConfig};
use weft::report::data::RowKind;
use weft::{Monitor, Stage};
use weft_core::families::{Automaton, Family};
use weft_core::{Digest, Population, Provenance, Record, Seed, Split};
use weft_zoo::Zoo;

const TRAIN: usize = 10;

/// A zoo of random automata, ten for training and three held out.
fn automata(folder: &Path) {
    let family = Family::Automaton(Automaton { channels: 4, width: 6, image: [8, 8] });
    let architecture = Arc::new(family.build("tiny-automaton").expect("the sizes are in range"));
    let n = TRAIN + 3;
    let weights = Seed::new(5).normals(n * architecture.num_parameters()).iter().map(|w| w * 0.4).collect();
    let networks = Population::new(architecture.clone(), weights).expect("one row a network");
    let record = |(i, row): (usize, &[f32])| Record {
        is_final: true,
        split: Some(if i < TRAIN { Split::Train } else { Split::Test }),
        provenance: Provenance { licence: "Apache-2.0".to_owned(), ..Provenance::default() },
        ..Record::new(Digest::of_weights(&architecture, row), format!("automaton {i}"))
    };
    let records: Vec<Record> = networks.rows().enumerate().map(record).collect();
    let mut zoo = Zoo::create(folder, "automata", architecture, None).expect("the folder is new");
    assert!(zoo.append(&networks, &records).expect("the zoo is open").refused.is_empty());
}

/// A run over the zoo, small enough for a test.
fn config(folder: &Path) -> RunConfig {
    let overrides =
        ["generator.flow.steps=20", "generator.flow.width=16", "generator.flow.blocks=1", "sample.count=3", "sample.seeds=2"];
    let overrides = overrides.iter().chain(&["evaluate.textures={ side = 9, steps = 24, shown = 2 }"]).map(|&o| o.to_owned());
    let text = include_str!("../../../../configs/textures.toml");
    let mut config = RunConfig::parse(text, "textures.toml", &overrides.collect::<Vec<_>>()).expect("the overrides are valid");
    config.run.output = folder.join("run");
    config.zoo = ZooConfig::Existing(ExistingZooConfig { path: folder.join("zoo") });
    config
}

#[test]
fn automata_are_grown_compared_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    automata(&dir.path().join("zoo"));
    let outcome = weft::run(&config(dir.path()), Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(outcome.stages.last().unwrap().stage, Stage::Evaluate);
    let report = outcome.report.unwrap();
    assert_eq!((report.zoo.num_train_runs, report.zoo.num_test_runs, report.zoo.dataset.as_str()), (TRAIN, 3, ""));
    let textures = report.textures.unwrap();
    let row = |name: &str| textures.evaluation.rows.iter().find(|row| row.name == name).unwrap();
    assert_eq!((row("flow").kind, row("flow").num_seeds, row("flow").num_samples), (RowKind::Generator, 2, 3));
    // A copy of a training automaton is at its place, and the mean of all at none of theirs.
    assert!(row("nearest").distance.mean < 1e-3 && row("mean").distance.mean > 0.01, "{:?}", textures.evaluation.rows);
    assert!(row("mean").pairwise.mean < row("training automata").pairwise.mean);
    assert!(textures.strips.iter().all(|strip| strip.pairs.len() == 2));
    let page = std::fs::read_to_string(outcome.page.unwrap()).unwrap();
    for part in ["<section id=\"textures\"", "src=\"data:image/png;base64,iVBORw0KGgo", "<strong>interpolation-raw</strong>"] {
        assert!(page.contains(part), "{part}");
    }
    let again = weft::run(&config(dir.path()), Stage::Evaluate, &Monitor::silent()).unwrap();
    assert!(again.stages.iter().all(|stage| stage.reused));
    assert_eq!(again.report.unwrap().textures.unwrap().evaluation, textures.evaluation);
}

#[test]
fn other_networks_and_data_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let trained = tiny(&dir.path().join("trained"), &[]);
    weft::run(&trained, Stage::Zoo, &Monitor::silent()).unwrap();
    let mut config = config(dir.path());
    config.zoo = ZooConfig::Existing(ExistingZooConfig { path: dir.path().join("trained/zoo") });
    let refused = weft::run(&config, Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert!(refused.to_string().contains("no texture automata"), "{refused}");
    let with_data = RunConfig::quickstart(&["evaluate.textures={}".to_owned()]).unwrap_err();
    assert!(with_data.to_string().contains("without `[data.…]`"), "{with_data}");
}
