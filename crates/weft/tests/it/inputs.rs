//! Conditions made of inputs without labels: a run over many tasks, and networks for a task whose members are shown.

use crate::examples::{accuracy, write_npz};
use crate::tasks::{chain, config, function_aware, with_points};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use weft::config::{Asked, BestBy, BestOfConfig, RefinerConfig, RunConfig};
use weft::report::data::{TaskReport, TaskRowKind};
use weft::{Event, GeneratorName, Monitor, SampleOptions, SampleRequest, Stage};
use weft_core::{Dataset, Part, Seed, Task};
use weft_gen::inputs::draw_inputs;

/// Generators that are shown twelve inputs of a task's set.
fn shown(output: &Path, data: &Path) -> RunConfig {
    let more = ["generator.flow.conditions=[{ inputs = 12 }]", "sample.condition={}"];
    let mut config = function_aware(config(output, data, &more));
    config.refiner = config.refiner.map(|refiner| RefinerConfig { pool: 520, ..refiner });
    config
}

/// Members of a task's set out of the training part, `[m, 6]`.
fn members(data: &Dataset, task: &Task, count: usize) -> Vec<f32> {
    let chosen = draw_inputs(task, data.labels(Part::Train), count, Seed::new(77));
    chosen.iter().flat_map(|&i| data.gather(i as usize..i as usize + 1)).collect()
}

/// Samples by the hyper-decoder from what a file shows; their files, and what is noted.
fn asked(config: &RunConfig, shown: impl Into<Asked>, folder: PathBuf) -> Result<(Vec<PathBuf>, Vec<String>), weft::Error> {
    let condition = BTreeMap::from([("inputs".to_owned(), shown.into())]);
    let request = SampleRequest { count: 2, seed: 1, condition, generator: Some(GeneratorName::Hyper), folder };
    let (notes, stop) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let sink = |event: Event| {
        if let Event::Note(text) = event {
            notes.lock().expect("no holder panics").push(text);
        }
    };
    let files = weft::sample(config, &request, &Monitor::new(&sink, &stop))?;
    Ok((files, notes.into_inner().expect("no holder panics")))
}

#[test]
fn held_out_sets_are_shown_by_members_and_judged() {
    let dir = with_points();
    let config = shown(&dir.path().join("run"), dir.path());
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    judged(&outcome.report.unwrap().tasks.expect("a task zoo is judged by tasks"));
    let flow = weft_zoo::read_tensors(&dir.path().join("run/generator/flow.safetensors")).unwrap();
    assert_eq!((flow.metadata["fields"].as_str(), flow.metadata["field.inputs"].as_str()), ("inputs", "vector 10"));
    let encoder = weft_zoo::read_tensors(&dir.path().join("run/generator/inputs.safetensors")).unwrap();
    assert_eq!(encoder.metadata["kind"], "input-encoder");

    let data = weft_zoo::data::idx_folder(dir.path(), "points", 60).unwrap();
    let (task, path) = (Task::is_one_of(&"0+3".parse().unwrap(), 5).unwrap(), dir.path().join("inputs.npz"));
    let sampled = |inputs: &[f32], labels: &[u8], folder: &str| {
        write_npz(&path, (inputs, 6), labels);
        asked(&config, path.to_str().unwrap(), dir.path().join(folder)).unwrap()
    };
    let inputs = members(&data, &task, 12);
    let (files, notes) = sampled(&inputs, &[1; 12], "asked");
    let reached = accuracy(&files, &data, &task, &dir.path().join("run/zoo"));
    assert!(reached > 0.85, "shown members of 0+3: {reached}");
    assert!(notes.iter().any(|note| note == "inputs: the file has labels, which are not read"), "{notes:?}");
    assert!(!notes.iter().any(|note| note.contains("fewer") || note.contains("extrapolating")), "{notes:?}");
    // Other labels, and another order, are the same request.
    let backwards: Vec<f32> = inputs.chunks_exact(6).rev().flatten().copied().collect();
    let (others, _) = sampled(&backwards, &[0, 7], "backwards");
    for (one, other) in files.iter().zip(&others) {
        let [one, other] = [one, other].map(|path| weft_zoo::read_tensors(path).unwrap().tensors);
        let pairs = one.values().zip(other.values()).flat_map(|((_, a), (_, b))| a.iter().zip(b));
        assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
    }
    let (_, notes) = sampled(&inputs[..18], &[], "few");
    let fewer = "inputs: 3 are shown, fewer than the 12 of training: they tell less";
    assert!(notes.iter().any(|note| note == fewer), "{notes:?}");
    let noise: Vec<f32> = Seed::new(4).normals(12 * 6).into_iter().map(|v| 9.0 * v).collect();
    let (_, notes) = sampled(&noise, &[], "noise");
    assert!(notes.iter().any(|note| note.starts_with("extrapolating: `inputs` lies ")), "{notes:?}");

    refused(&config, dir.path());
    write_npz(&path, (&inputs, 6), &[]);
    let best_of = |by: BestBy| {
        let condition = BTreeMap::from([("inputs".to_owned(), path.to_str().unwrap().into())]);
        let folder = dir.path().join(by.name());
        let request = SampleRequest { count: 2, seed: 1, condition, generator: None, folder };
        let options = SampleOptions { best_of: Some(BestOfConfig { n: 4, by }), ..SampleOptions::default() };
        weft::sample_with(&config, &request, &options, &Monitor::silent())
    };
    assert_eq!(best_of(BestBy::Agreement).unwrap().len(), 2);
    let unlabelled = best_of(BestBy::Validation).unwrap_err();
    assert!(chain(&unlabelled).contains("whose task is named, or shown by labelled examples"), "{}", chain(&unlabelled));
}

/// Files that show nothing are refused by name, before anything is written.
fn refused(config: &RunConfig, dir: &Path) {
    let ask = |shown: Asked| asked(config, shown, dir.join("refused")).expect_err("what shows nothing is refused");
    let refused = |inputs: &[f32], features: u64, reason: &str| {
        let path = dir.join("refused.npz");
        write_npz(&path, (inputs, features), &[]);
        let error = ask(path.to_str().expect("a path of ASCII").into());
        assert!(chain(&error).contains(reason), "{}", chain(&error));
        assert!(!dir.join("refused").exists());
    };
    refused(&[0.0; 10], 5, "example inputs: they have 5 values each, and networks read 6");
    refused(&[f32::NAN; 12], 6, "example inputs: input 0 has a value that is not finite");
    refused(&[], 6, "`x` has shape [0, 6]");
    let absent = ask("absent.npz".into());
    assert_eq!(absent.kind(), weft::Kind::Missing);
    assert!(chain(&absent).contains("an npz archive of `x` (or `inputs`), one or more inputs"), "{}", chain(&absent));
    // Such inputs are finite, and what is made of them is not.
    let path = dir.join("refused.npz");
    write_npz(&path, (&[1e30; 72], 6), &[]);
    let error = ask(path.to_str().expect("a path of ASCII").into());
    let expected = "weights and outputs of samples must be finite numbers; nothing was written, got 0 such networks of 2";
    assert_eq!(error.to_string(), expected);
    assert!(!dir.join("refused").exists());
    for (count, expected) in [
        (0, "the number of samples must be between 1 and 1000000, got 0"),
        (usize::MAX, "the number of samples must be between 1 and 1000000"),
        (1_000_000, "the weights of all samples must be"),
    ] {
        let best_of = Some(BestOfConfig { n: 4_096, by: BestBy::Agreement });
        let folder = dir.join("refused");
        let request = SampleRequest { count, seed: 1, condition: BTreeMap::new(), generator: None, folder };
        let options = SampleOptions { best_of, ..SampleOptions::default() };
        let error = weft::sample_with(config, &request, &options, &Monitor::silent()).expect_err("too many or none");
        assert!(error.to_string().starts_with(expected), "{error}");
    }
    let number = ask(16.0.into());
    assert!(chain(&number).contains("the condition `inputs` names the npz file of them"), "{}", chain(&number));
}

/// Rows, controls and verdicts of the evaluation.
fn judged(report: &TaskReport) {
    let evaluation = &report.evaluation;
    let row = |name: &str| evaluation.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row `{name}`"));
    for name in ["flow + refiner", "hyper-decoder"] {
        let own = row(name).accuracy.mean;
        let [other, any, none] = ["told another task", "told inputs of all classes", "told no task"].map(|what| {
            let control = row(&format!("{name}, {what}"));
            assert_eq!((control.kind, control.of.as_deref()), (TaskRowKind::Control, Some(name)));
            control.accuracy.mean
        });
        assert!(own > 0.85 && other < 0.75 && any < 0.75, "{name}: {own}, {other} told another, {any} told all");
        assert!((none - 0.5).abs() < 0.05, "{name}: {none} told none");
        let verdict = evaluation.verdicts.iter().find(|verdict| verdict.generator == name).expect("a verdict each");
        assert!(verdict.uses_condition, "{name}");
    }
    assert!(row("nearest by what is shown").accuracy.mean > 0.6 && row("ridge").accuracy.mean > 0.5);
    let told = row("one network of all classes, told by the inputs");
    assert!(told.accuracy.mean > 0.85 && told.num_seeds == 2, "{:?}", told.accuracy);
    assert!(report.few_examples.is_none());
}
