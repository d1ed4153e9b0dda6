//! Conditions made of examples: a run over many tasks, and networks for a task that is shown.

use crate::tasks::{chain, config, function_aware, with_points};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft::config::{BestBy, BestOfConfig, FewExamplesConfig, RefinerConfig, RunConfig};
use weft::report::data::TaskReport;
use weft::{GeneratorName, GuideRequest, Monitor, SampleOptions, SampleRequest, Stage};
use weft_core::{Dataset, Part, Population, Seed, Task};
use weft_gen::examples::draw_examples;

/// Generators that are shown eight examples of each output.
fn shown(output: &Path, data: &Path) -> RunConfig {
    let more = ["generator.flow.conditions=[{ examples = 8 }]", "sample.condition={}"];
    let mut config = function_aware(config(output, data, &more));
    config.refiner = config.refiner.map(|refiner| RefinerConfig { pool: 520, ..refiner });
    config.sample.seeds = 1;
    config.evaluate.best_of = Some(4);
    config.evaluate.few_examples = Some(FewExamplesConfig {
        train_steps: 48,
        flow_steps: 4,
        learning_rates: vec![0.01, 0.03],
        guide_scales: vec![0.3, 1.0],
        choose_on: 3,
    });
    config
}

/// Writes arrays as they are, without a check.
pub(crate) fn write_npz(path: &Path, (inputs, features): (&[f32], u64), labels: &[u8]) {
    let mut writer = npyz::npz::NpzWriter::create(path).expect("a new file");
    let mut add = |name: &str, descr: &str, shape: &[u64], bytes: &[u8]| {
        let axes: Vec<String> = shape.iter().map(|axis| format!("{axis},")).collect();
        let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}), }}\n", axes.concat());
        let length = (header.len() as u16).to_le_bytes();
        let array = [b"\x93NUMPY\x01\x00", length.as_slice(), header.as_bytes(), bytes].concat();
        writer.zip_writer().start_file(format!("{name}.npy"), <_>::default()).expect("a new entry");
        std::io::Write::write_all(writer.zip_writer(), &array).expect("room on the disk");
    };
    let bytes: Vec<u8> = inputs.iter().flat_map(|v| v.to_le_bytes()).collect();
    add("x", "<f4", &[inputs.len() as u64 / features, features], &bytes);
    add("y", "|u1", &[labels.len() as u64], labels);
}

/// Training examples of a task, in a file.
pub(crate) fn examples_of(data: &Dataset, task: &Task, path: &Path) -> PathBuf {
    let chosen = draw_examples(task, data.labels(Part::Train), 8, Seed::new(77));
    let inputs: Vec<f32> = chosen.iter().flat_map(|&i| data.gather(i as usize..i as usize + 1)).collect();
    let labels: Vec<u8> = chosen.iter().map(|&i| task.output(data.label(i as usize)) as u8).collect();
    write_npz(path, (&inputs, data.num_features() as u64), &labels);
    path.to_owned()
}

/// The mean accuracy of networks in files at a task, on validation examples.
pub(crate) fn accuracy(files: &[PathBuf], data: &Dataset, task: &Task, zoo: &Path) -> f64 {
    let architecture = weft_zoo::Zoo::open(zoo).expect("the run's zoo").architecture().clone();
    let rows = files.iter().flat_map(|file| weft_zoo::read_checkpoint(file, &architecture).expect("a checkpoint"));
    let networks = Population::new(architecture.clone(), rows.collect()).expect("rows of the architecture");
    let tasks = vec![task.clone(); files.len()];
    let cpu = weft_net::Device::cpu();
    let found = weft_net::accuracies(&networks, (data, &tasks[..]), Part::Validation, &cpu).expect("a task each");
    found.iter().sum::<f64>() / found.len() as f64
}

#[test]
fn held_out_tasks_are_shown_by_examples_and_judged() {
    let dir = with_points();
    let config = shown(&dir.path().join("run"), dir.path());
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    let report = outcome.report.unwrap().tasks.expect("a task zoo is judged by tasks");
    few_examples(&report);
    best_of(&report);
    let page = std::fs::read_to_string(outcome.page.unwrap()).unwrap();
    assert!(page.contains("A few examples of a new task"));
    let evaluation = report.evaluation;
    let row = |name: &str| evaluation.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row `{name}`"));
    for name in ["flow + refiner", "hyper-decoder"] {
        let (own, other) = (row(name).accuracy.mean, row(&format!("{name}, told another task")).accuracy.mean);
        assert!(own > 0.85 && other < 0.75, "{name}: {own} told its task, {other} told another");
        assert!((row(&format!("{name}, told no task")).accuracy.mean - 0.5).abs() < 0.05);
    }
    assert!(row("ridge").accuracy.mean > 0.5 && row("nearest task").accuracy.mean > 0.65);
    // Each seed shows other examples, and what is told what is shown says something else of it.
    let samples = weft_zoo::read_tensors(&dir.path().join("run/samples/hyper.safetensors"));
    assert_eq!(samples.unwrap().tensors.len(), 1);
    let flow = weft_zoo::read_tensors(&dir.path().join("run/generator/flow.safetensors")).unwrap();
    assert_eq!(flow.metadata["fields"], "examples");
    assert_eq!(flow.metadata["field.examples"], "vector 20", "two outputs, five classes, mean and deviation");

    let data = weft_zoo::data::idx_folder(dir.path(), "points", 60).unwrap();
    let task = Task::is_one_of(&"0+3".parse().unwrap(), 5).unwrap();
    let file = examples_of(&data, &task, &dir.path().join("few.npz"));
    let request = |examples: &Path, folder: &str| SampleRequest {
        count: 3,
        seed: 1,
        condition: BTreeMap::from([("examples".to_owned(), examples.to_str().unwrap().into())]),
        generator: Some(GeneratorName::Hyper),
        folder: dir.path().join(folder),
    };
    let files = weft::sample(&config, &request(&file, "asked"), &Monitor::silent()).unwrap();
    let reached = accuracy(&files, &data, &task, &dir.path().join("run/zoo"));
    assert!(reached > 0.85, "shown 0+3: {reached}");

    let guide = |examples: PathBuf, steps| SampleOptions {
        guide: Some(GuideRequest { examples, scale: 1.0, steps }),
        ..SampleOptions::default()
    };
    let of_flow =
        |folder: &str| SampleRequest { generator: Some(GeneratorName::Flow), condition: BTreeMap::new(), ..request(&file, folder) };
    let files = weft::sample_with(&config, &of_flow("guided"), &guide(file.clone(), Some(12)), &Monitor::silent()).unwrap();
    let metadata = weft_zoo::read_metadata(&files[0]).unwrap();
    assert_eq!(metadata["generator"], "flow, guided");
    assert!(metadata["guide"].starts_with("scale 1, 16 examples, "), "{}", metadata["guide"]);
    let free = weft::sample(&config, &of_flow("free"), &Monitor::silent()).unwrap();
    let [steered, free] = [files, free].map(|files| accuracy(&files, &data, &task, &dir.path().join("run/zoo")));
    assert!(steered > 0.8 && steered > free + 0.2, "{steered} of guided samples, {free} of others");
    let error = weft::sample_with(&config, &request(&file, "refused"), &guide(file.clone(), None), &Monitor::silent()).unwrap_err();
    assert_eq!(error.to_string(), "what examples guide must be the flow, refined or not, got hyper");
    let error = weft::sample_with(&config, &of_flow("refused"), &guide(file.clone(), Some(0)), &Monitor::silent()).unwrap_err();
    assert_eq!(error.to_string(), "the number of guided steps must be 1 or more, got 0");

    // Of bad samples the best by the examples is better; of good ones no judge takes a bad one.
    let mean = |generator: GeneratorName, by: Option<BestBy>, folder: &str| {
        let best_of = by.map(|by| BestOfConfig { n: 12, by });
        let request = SampleRequest { count: 6, generator: Some(generator), ..request(&file, folder) };
        let options = SampleOptions { best_of, ..SampleOptions::default() };
        let files = weft::sample_with(&config, &request, &options, &Monitor::silent()).unwrap();
        assert_eq!(files.len(), 6);
        let metadata = weft_zoo::read_metadata(&files[0]).unwrap();
        assert_eq!(metadata.get("best-of"), by.map(|by| format!("12 by {}", by.name())).as_ref());
        assert_eq!(metadata.contains_key("predictor"), by == Some(BestBy::Predictor));
        accuracy(&files, &data, &task, &dir.path().join("run/zoo"))
    };
    let plain = mean(GeneratorName::Flow, None, "plain");
    let validated = mean(GeneratorName::Flow, Some(BestBy::Validation), "validated");
    assert!(validated > plain + 0.1, "{plain}, by validation {validated}");
    for by in BestBy::ALL {
        let kept = mean(GeneratorName::Refined, Some(by), by.name());
        assert!(kept > 0.85, "by {}: {kept}", by.name());
    }

    let refused = |inputs: &[f32], features: u64, labels: &[u8], reason: &str| {
        let path = dir.path().join("refused.npz");
        write_npz(&path, (inputs, features), labels);
        let error = weft::sample(&config, &request(&path, "refused"), &Monitor::silent()).unwrap_err();
        assert!(chain(&error).contains(reason), "{}", chain(&error));
        assert!(!dir.path().join("refused").exists());
    };
    refused(&[0.0; 10], 5, &[0, 1], "they have 5 values each, and networks read 6");
    refused(&[0.0; 12], 6, &[0, 2], "label 2 of example 1 is not below 2");
    refused(&[0.0; 12], 6, &[1, 1], "none has the label 0");
    refused(&[f32::NAN; 12], 6, &[0, 1], "not finite");
    refused(&[0.0; 12], 6, &[0, 1, 1], "`x` has shape [2, 6], `y` [3]");
    let absent = weft::sample(&config, &request(Path::new("absent.npz"), "refused"), &Monitor::silent()).unwrap_err();
    assert_eq!(absent.kind(), weft::Kind::Missing);
}

/// Every way has its curve, and figures agree with each other.
fn few_examples(report: &TaskReport) {
    let few = report.few_examples.as_ref().expect("the run file asks for it");
    assert_eq!((few.per_output, few.num_sets), (8, 1));
    let way = |name: &str| few.ways.iter().find(|way| way.name == name).unwrap_or_else(|| panic!("no way `{name}`"));
    let budgets = |name: &str| way(name).points.iter().map(|point| point.budget).collect::<Vec<_>>();
    for name in ["from scratch", "mean network, fine-tuned", "hyper-decoder, fine-tuned"] {
        assert_eq!(budgets(name), [0, 1, 2, 4, 8, 16, 32, 48], "{name}");
    }
    for name in ["flow + refiner", "flow, guided", "flow, guided + refiner"] {
        assert_eq!(budgets(name), [1, 2, 4], "{name}");
    }
    let accuracy = |name: &str| way(name).points.last().expect("a point").accuracy.mean;
    // Classes are bright in a pixel of their own, so that a few examples are enough for all but the mean network as it is.
    assert!((way("mean network, fine-tuned").points[0].accuracy.mean - 0.5).abs() < 1e-9);
    assert!(accuracy("from scratch") > 0.7 && accuracy("hyper-decoder") > 0.8 && accuracy("flow, guided + refiner") > 0.8);
    assert!(accuracy("one network of all classes, grouped by the examples") > 0.8);
    // What the hyper-decoder makes of the draw is what the run's samples are.
    let row = report.evaluation.rows.iter().find(|row| row.name == "hyper-decoder").expect("a row");
    assert!(
        (row.accuracy.mean - accuracy("hyper-decoder")).abs() < 0.02,
        "{} and {}",
        row.accuracy.mean,
        accuracy("hyper-decoder")
    );
    for found in &few.comparisons {
        let other = way(&found.with).points.iter().find(|point| point.budget == found.with_budget).expect("a budget of it");
        assert!(found.with_secs <= found.secs || other.budget == way(&found.with).points[0].budget);
        let apart = accuracy(&found.ours) - other.accuracy.mean;
        assert!((found.difference.mean - apart).abs() < 1e-9, "{found:?}");
    }
    assert_eq!(few.comparisons.len(), 5 * 3);
}

/// Every judge has a row, what is ranked by labels gains, and the time of n is counted.
fn best_of(report: &TaskReport) {
    let best = report.best_of.as_ref().expect("the run file asks for it");
    let row = |by: &str| {
        let found = best.rows.iter().find(|row| row.generator == "flow + refiner" && row.by == by);
        found.unwrap_or_else(|| panic!("no row `{by}`"))
    };
    assert_eq!((best.n, best.rows.len()), (4, 3 * 4));
    let none = row("none");
    let own = report.evaluation.rows.iter().find(|row| row.name == "flow + refiner").expect("a row");
    assert!((none.accuracy.mean - own.accuracy.mean).abs() < 1e-9 && none.gain.mean.abs() < 1e-12);
    for by in ["validation", "predictor", "agreement"] {
        assert!((row(by).accuracy.mean - none.accuracy.mean - row(by).gain.mean).abs() < 1e-9);
        assert!(row(by).secs >= 4.0 * none.secs, "{by} takes four samples");
    }
    assert!(row("validation").gain.mean >= 0.0, "{:?}", row("validation"));
    let predictor = best.predictor.expect("a judge that predicts");
    // Two runs of each of 26 tasks, of which three are held out.
    assert_eq!((predictor.num_networks, predictor.num_runs), (6, 3));
    assert!(predictor.r_squared <= 1.0 && (-1.0..=1.0).contains(&predictor.kendall_tau));
}
