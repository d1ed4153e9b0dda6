//! Generators under typed conditions, from the recipe and from labels of a zoo.

use crate::tiny;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use weft::config::{Asked, ExistingZooConfig, FieldConfig, FieldKindName, GeneratorConfig, RunConfig, ZooConfig};
use weft::{Event, Monitor, SampleRequest, Stage};
use weft_core::{Digest, Population};
use weft_zoo::{Filter, Purpose, Zoo};

/// A zoo whose runs say what they are for, and a run file that is conditioned on it.
fn labelled(folder: &Path) -> weft::Result<RunConfig> {
    let source = tiny(&folder.join("source"), &["zoo.train.recipe.snapshots.steps=[]"]);
    weft::run(&source, Stage::Zoo, &Monitor::silent())?;
    let zoo = Zoo::open(&folder.join("source/zoo"))?;
    let entries = zoo.records(&Filter::default())?;
    let networks: Population = zoo.load(&entries, Purpose::Transform)?;
    let mut labelled = Zoo::create(&folder.join("labelled"), "labelled", zoo.architecture().clone(), None)?;
    let records = entries.iter().enumerate().map(|(i, entry)| {
        let mut record = entry.record().clone();
        assert_eq!(record.digest, Digest::of_weights(zoo.architecture(), networks.row(i)));
        record.labels.insert("seen".to_owned(), format!("{}+4", i % 4));
        record.labels.insert("phrase".to_owned(), format!("phrase number {}", i % 3));
        record.labels.insert("place".to_owned(), format!("{},{}", i % 5, i % 2));
        if let Some(recipe) = &mut record.recipe {
            recipe.learning_rate = if i % 2 == 0 { 1e-3 } else { 1e-1 };
            recipe.optimizer = if i % 3 == 0 { weft_core::Optimizer::SGD } else { weft_core::Optimizer::ADAM };
        }
        record
    });
    assert!(labelled.append(&networks, &records.collect::<Vec<_>>())?.refused.is_empty());
    let fields = r#"["learning-rate", "batch-size", "epochs", { category = "optimizer" }, { classes = "seen" }, { text = "phrase" }, { vector = "place" }]"#;
    let mut config = tiny(&folder.join("run"), &[&format!("generator.flow.conditions={fields}")]);
    config.zoo = ZooConfig::Existing(ExistingZooConfig { path: folder.join("labelled") });
    (config.architecture, config.refiner) = (None, None);
    Ok(config)
}

/// Samples two networks and returns the metadata of the second, with what was noted.
fn sample(config: &RunConfig, folder: &Path, asked: &[(&str, Asked)]) -> weft::Result<(BTreeMap<String, String>, Vec<String>)> {
    let condition = asked.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let request = SampleRequest { count: 2, seed: 1, condition, generator: None, folder: folder.to_owned() };
    let (notes, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let sink = |event: Event| {
        if let Event::Note(text) = event {
            notes.lock().expect("no holder panics").push(text);
        }
    };
    let files = weft::sample(config, &request, &Monitor::new(&sink, &stop))?;
    Ok((weft_zoo::read_metadata(&files[1])?, notes.into_inner().expect("no holder panics")))
}

#[test]
fn labels_and_recipes_condition_a_generator() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = labelled(dir.path()).unwrap();
    let near: [(&str, Asked); 5] = [
        ("optimizer", "sgd".into()),
        ("seen", "4+1".into()),
        ("phrase", "phrase number 2".into()),
        ("place", "1,1".into()),
        ("learning-rate", 0.1.into()),
    ];
    for data in ["with", "without"] {
        if data == "without" {
            config.data = None;
            config.run.output = dir.path().join("streamed");
        }
        let samples = dir.path().join(data);
        let (metadata, notes) = sample(&config, &samples, &near).unwrap();
        assert!(notes.iter().all(|note| !note.contains("extrapolating")), "{notes:?}");
        let asked = ["optimizer", "seen", "phrase", "place", "learning-rate", "batch-size", "epochs"];
        let asked = asked.map(|field| metadata[&format!("condition.{field}")].as_str());
        // What was not asked for is that of the training runs.
        assert_eq!(asked, ["sgd", "1+4", "phrase number 2", "1,1", "0.1", "32", "2"]);

        let far: [(&str, Asked); 2] = [("phrase", "what is the weather".into()), ("learning-rate", 0.2.into())];
        let (_, notes) = sample(&config, &samples.join("far"), &far).unwrap();
        let notes: Vec<_> = notes.into_iter().filter(|note| note.starts_with("extrapolating: ")).collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert_eq!(notes[0], "extrapolating: `learning-rate` = 0.2 lies 0.1000 from the nearest training value, 0.1");
        assert!(notes[1].starts_with("extrapolating: `phrase` lies "), "{notes:?}");

        let refused =
            |field: &str, asked: Asked| sample(&config, &samples.join("none"), &[(field, asked)]).unwrap_err().to_string();
        assert!(refused("optimizer", "adamw".into()).contains("`adamw` was not seen in training; known: `adam`, `sgd`"));
        assert!(refused("seen", "12".into()).contains("`seen` must be"));
        assert!(refused("place", "1".into()).contains("`place` must be 2 numbers, got 1"));
        assert!(refused("learning-rate", "fast".into()).contains("`learning-rate` must be a finite number, got `fast`"));
        assert!(!samples.join("none").exists());
    }
}

#[test]
fn a_label_of_another_form_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = labelled(dir.path()).unwrap();
    let GeneratorConfig::Flow(flow) = &mut config.generator else { panic!("the quickstart has a flow") };
    flow.conditions = vec![FieldConfig { name: "phrase".to_owned(), kind: FieldKindName::Classes }];
    let error = weft::run(&config, Stage::Train, &Monitor::silent()).unwrap_err().to_string();
    assert!(error.contains("`phrase` must be a set of classes such as 0+3+7 (`phrase number"), "{error}");
}
