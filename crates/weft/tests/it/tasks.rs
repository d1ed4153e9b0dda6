//! Zoos of many tasks: made, held out, resumed, and taken to samples.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use weft::config::{ExistingZooConfig, GeneratorConfig, HyperConfig, RefinerConfig, RunConfig, ZooConfig};
use weft::report::data::TaskRowKind;
use weft::zoos::{self, Selection};
use weft::{Event, GeneratorName, Kind, Monitor, SampleRequest, Stage};
use weft_core::{Digest, HeldOutTasks, Part, Split, Task};
use weft_zoo::{Entry, Filter, Purpose, Zoo};

/// Two runs of every task that tells some of five classes from the others; the data are files.
pub(crate) fn config(output: &Path, data: &Path, more: &[&str]) -> RunConfig {
    let text = format!(
        r#"
[run]
name = "tasks"
output = '{}'
device = "cpu"

[data.idx]
path = '{}'
name = "points"
validation = 60

[architecture.mlp]
hidden = [8]

[zoo.train]
runs-at-once = 7
tasks.subsets = {{ held-out-pairs = 2, per-task = 2 }}

[zoo.train.recipe]
learning-rate = 0.02
batch-size = 20
duration.steps = 300
optimizer.adam = {{}}

[codec.pca]
rank = {{ fixed = 16 }}

[generator.flow]
width = 48
blocks = 1
steps = 200
conditions = ["validation-accuracy", {{ classes = "task" }}]

[sampler.heun]
steps = 6

[sample]
count = 4
seeds = 1
condition = {{ task = [1, 2] }}
"#,
        output.display(),
        data.display()
    );
    let more: Vec<String> = more.iter().map(|&o| o.to_owned()).collect();
    RunConfig::parse(&text, "tasks.toml", &more).expect("the run file is valid")
}

/// Five classes of images of six pixels, each bright in a pixel of its own, in MNIST's files.
fn points(folder: &Path) -> std::io::Result<()> {
    for (name, count) in [("train", 300u32), ("t10k", 100)] {
        let noise = weft_core::Seed::new(u64::from(count)).uniforms(count as usize * 6);
        let pixel = |at: usize| 90.0 * noise[at] + if at % 6 == at / 6 % 5 { 160.0 } else { 0.0 };
        let images = (0..noise.len()).map(|at| pixel(at) as u8);
        let labels = (0..count).map(|i| (i % 5) as u8);
        let file = |sizes: &[u32], bytes: Vec<u8>| [sizes.iter().flat_map(|s| s.to_be_bytes()).collect(), bytes].concat();
        std::fs::write(folder.join(format!("{name}-images-idx3-ubyte")), file(&[0x803, count, 2, 3], images.collect()))?;
        std::fs::write(folder.join(format!("{name}-labels-idx1-ubyte")), file(&[0x801, count], labels.collect()))?;
    }
    Ok(())
}

/// A folder with these data.
pub(crate) fn with_points() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    points(dir.path()).expect("the data are written");
    dir
}

#[test]
fn every_task_has_its_runs_and_whole_pairs_are_held_out() {
    let dir = with_points();
    let config = config(&dir.path().join("run"), dir.path(), &[]);
    weft::run(&config, Stage::Zoo, &Monitor::silent()).unwrap();
    let folder = dir.path().join("run/zoo");
    let zoo = Zoo::open(&folder).unwrap();
    assert_eq!(zoo.architecture().num_outputs(), 2);
    let entries = zoo.records(&Filter::default()).unwrap();
    let mut runs_of = BTreeMap::<&str, usize>::new();
    let division: BTreeMap<String, bool> = HeldOutTasks { pairs: 2, ..HeldOutTasks::default() }
        .divide(5)
        .unwrap()
        .into_iter()
        .map(|(set, held)| (set.to_string(), held))
        .collect();
    for entry in &entries {
        let record = entry.record();
        let task = record.labels["task"].as_str();
        *runs_of.entry(task).or_default() += 1;
        assert_eq!(record.split == Some(Split::Test), division[task], "{task}");
        assert!(record.run.starts_with(&format!("task-{task}-")), "{}", record.run);
        assert_eq!(record.task(5).unwrap().unwrap().name(), task);
        // Always saying the more frequent output reaches 0.8 at most.
        assert!(record.metrics["validation-accuracy"] > 0.9, "{task}: {:?}", record.metrics);
    }
    assert_eq!((runs_of.len(), entries.len()), (30, 60));
    assert!(runs_of.values().all(|&count| count == 2));
    assert_eq!(division.values().filter(|held_out| **held_out).count(), 4);

    // What the catalogue says is what the networks do.
    let networks = zoo.load(&entries, Purpose::Evaluate).unwrap();
    let data = weft_zoo::data::idx_folder(dir.path(), "points", 60).unwrap();
    let tasks: Vec<Task> = entries.iter().map(|entry| entry.record().task(5).unwrap().unwrap()).collect();
    let cpu = weft_net::Device::cpu();
    let accuracies = weft_net::accuracies(&networks, (&data, &tasks[..]), Part::Validation, &cpu).unwrap();
    let stored = entries.iter().map(|entry| entry.record().metrics["validation-accuracy"]);
    assert!(accuracies.iter().zip(stored).all(|(a, b)| (a - b).abs() < 1e-12));

    let listed = |selection: &str| {
        let selection = Selection { condition: Some(selection.to_owned()), ..Selection::default() };
        zoos::list(&folder, &selection).unwrap().len()
    };
    assert_eq!((listed("task = \"0+3\""), listed("split = \"test\"")), (2, 8));
}

#[test]
fn sets_with_certain_classes_are_held_out() {
    let dir = with_points();
    let more =
        ["zoo.train.tasks.subsets={ held-out-pairs = 0, held-out-containing = [3, 1] }", "zoo.train.recipe.duration.steps=2"];
    weft::run(&config(&dir.path().join("run"), dir.path(), &more), Stage::Zoo, &Monitor::silent()).unwrap();
    let entries = Zoo::open(&dir.path().join("run/zoo")).unwrap().records(&Filter::default()).unwrap();
    let together = |task: &str| task.contains('1') == task.contains('3');
    assert!(entries.iter().all(|e| (e.record().split == Some(Split::Test)) == together(&e.record().labels["task"])));
    let none = config(&dir.path().join("none"), dir.path(), &["zoo.train.tasks.subsets.held-out-pairs=15"]);
    let error = weft::run(&none, Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert_eq!(error.to_string(), "held-out tasks: all 15 pairs of tasks are, and none is left to train on");
    let far = config(&dir.path().join("far"), dir.path(), &["zoo.train.tasks.subsets.held-out-containing=[5]"]);
    let error = weft::run(&far, Stage::Zoo, &Monitor::silent()).unwrap_err();
    assert!(error.to_string().contains("class 5 is not below 5"), "{error}");
}

#[test]
fn a_zoo_of_tasks_that_was_stopped_goes_on_to_the_same_networks() {
    let dir = with_points();
    let digests = |run: &str| {
        let entries = Zoo::open(&dir.path().join(run).join("zoo")).unwrap().records(&Filter::default()).unwrap();
        entries.iter().map(|e| (e.record().run.clone(), e.record().digest)).collect::<BTreeSet<(String, Digest)>>()
    };
    let whole = config(&dir.path().join("whole"), dir.path(), &["zoo.train.runs-at-once=60"]);
    weft::run(&whole, Stage::Zoo, &Monitor::silent()).unwrap();
    let stopped = config(&dir.path().join("stopped"), dir.path(), &[]);
    let stop = AtomicBool::new(false);
    let sink = |event: Event| {
        if let Event::Progress { done } = event {
            stop.store(done >= 25, Ordering::Relaxed);
        }
    };
    let error = weft::run(&stopped, Stage::Zoo, &Monitor::new(&sink, &stop)).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    let some = digests("stopped").len();
    assert!((7..60).contains(&some), "{some} networks were kept");
    weft::run(&stopped, Stage::Zoo, &Monitor::silent()).unwrap();
    assert_eq!(digests("stopped"), digests("whole"));
}

#[test]
fn a_generator_learns_from_tasks_and_never_from_those_held_out() {
    let dir = with_points();
    let config = config(&dir.path().join("run"), dir.path(), &[]);
    let outcome = weft::run(&config, Stage::Sample, &Monitor::silent()).unwrap();
    assert_eq!(outcome.stages.len(), 5);
    let codec = std::fs::read_to_string(dir.path().join("run/codec/codec.json")).unwrap();
    let figures: weft::report::data::CodecFigures = serde_json::from_str(&codec).unwrap();
    assert!(figures.accuracy_before > 0.85, "networks are measured on their own tasks: {}", figures.accuracy_before);
    let flow = weft_zoo::read_tensors(&dir.path().join("run/generator/flow.safetensors")).unwrap();
    assert_eq!(flow.metadata["field.task"], "classes 5");
    let (_, seen) = &flow.tensors["field.task.seen"];
    let held_out = HeldOutTasks { pairs: 2, ..HeldOutTasks::default() }.divide(5).unwrap().into_iter().filter(|(_, held)| *held);
    let held_out: Vec<Vec<f32>> =
        held_out.map(|(set, _)| (0..5).map(|class| f32::from(u8::from(set.contains(class)))).collect()).collect();
    assert_eq!((seen.len(), held_out.len()), (26 * 5, 4));
    assert!(seen.chunks_exact(5).all(|task| !held_out.iter().any(|held| held == task)));
    // A task that is held out can be asked for all the same.
    let asked = held_out[0].iter().enumerate().filter(|(_, on)| **on > 0.0).map(|(class, _)| class.to_string()).collect::<Vec<_>>();
    let condition = BTreeMap::from([("task".to_owned(), asked.join("+").as_str().into())]);
    let request = SampleRequest { count: 2, seed: 1, condition, generator: None, folder: dir.path().join("asked") };
    let files = weft::sample(&config, &request, &Monitor::silent()).unwrap();
    let metadata = weft_zoo::read_metadata(&files[0]).unwrap();
    assert_eq!(metadata["condition.task"], asked.join("+"));
}

/// An error with all that caused it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A refiner and a hyper-decoder that are trained in a second.
pub(crate) fn function_aware(mut config: RunConfig) -> RunConfig {
    config.refiner = Some(RefinerConfig {
        hinge: false,
        steps: 300,
        learning_rate: 3e-3,
        width: 48,
        blocks: 1,
        batch_networks: 26,
        batch_examples: 20,
        pool: 260,
        ..RefinerConfig::default()
    });
    config.hyper = Some(HyperConfig {
        code_weight: 0.01,
        steps: 300,
        learning_rate: 3e-3,
        width: 48,
        blocks: 1,
        batch_networks: 26,
        batch_examples: 20,
        mix: 0.2,
        condition_noise: 0.05,
        members: 2,
        ..HyperConfig::default()
    });
    config.baselines.refined.clear();
    config.sample.seeds = 2;
    config
}

#[test]
fn held_out_tasks_are_sampled_by_every_generator_of_the_run() {
    let dir = with_points();
    let config = function_aware(config(&dir.path().join("run"), dir.path(), &[]));
    weft::run(&config, Stage::Sample, &Monitor::silent()).unwrap();
    let samples = dir.path().join("run/samples");
    let sampling: serde_json::Value = serde_json::from_slice(&std::fs::read(samples.join("sampling.json")).unwrap()).unwrap();
    let division = HeldOutTasks { pairs: 2, ..HeldOutTasks::default() }.divide(5).unwrap();
    let held_out: BTreeSet<String> = division.into_iter().filter(|(_, held)| *held).map(|(set, _)| set.to_string()).collect();
    let named = |i: usize, key: &str| sampling[i][key].as_str().unwrap().to_owned();
    assert_eq!([0, 1, 2].map(|i| named(i, "name")), ["flow", "flow + refiner", "hyper-decoder"]);
    let data = weft_zoo::data::idx_folder(dir.path(), "points", 60).unwrap();
    let architecture = Zoo::open(&dir.path().join("run/zoo")).unwrap().architecture().clone();
    let tasks: Vec<Task> = held_out.iter().flat_map(|name| vec![Task::is_one_of(&name.parse().unwrap(), 5).unwrap(); 4]).collect();
    let mut accuracies = Vec::new();
    for i in 0..3 {
        let listed: Vec<&str> = sampling[i]["tasks"].as_array().unwrap().iter().map(|task| task.as_str().unwrap()).collect();
        assert_eq!(listed, held_out.iter().map(String::as_str).collect::<Vec<_>>());
        let tensors = weft_zoo::read_tensors(&samples.join(named(i, "file"))).unwrap().tensors;
        assert_eq!(tensors.len(), 2, "a tensor a seed");
        let (shape, rows) = tensors["seed-1"].clone();
        assert_eq!(shape, [16, architecture.num_parameters()]);
        let networks = weft_core::Population::new(architecture.clone(), rows).unwrap();
        let deterministic = networks.row(0) == networks.row(1) && tensors["seed-0"] == tensors["seed-1"];
        assert_eq!(deterministic, named(i, "name") == "hyper-decoder");
        let scores = weft_net::accuracies(&networks, (&data, &tasks[..]), Part::Validation, &weft_net::Device::cpu()).unwrap();
        accuracies.push(scores.iter().sum::<f64>() / scores.len() as f64);
    }
    // Always saying the more frequent output reaches 0.7 on average.
    assert!(accuracies[1] > 0.85 && accuracies[1] > accuracies[0], "refined against the flow: {accuracies:?}");
    assert!(accuracies[2] > 0.85, "hyper-decoder: {accuracies:?}");
    for file in ["refiner", "hyper"] {
        let saved = weft_zoo::read_tensors(&dir.path().join(format!("run/generator/{file}.safetensors"))).unwrap();
        assert_eq!(saved.metadata["field.task"], "classes 5", "{file} carries its schema");
        assert_eq!(saved.tensors["field.task.seen"].1.len(), 26 * 5, "{file} saw training tasks alone");
    }

    let request = |generator, folder: &str| {
        let condition = BTreeMap::from([("task".to_owned(), "1+4".into())]);
        SampleRequest { count: 2, seed: 1, condition, generator, folder: dir.path().join(folder) }
    };
    let generator_of = |generator, folder| {
        let files = weft::sample(&config, &request(generator, folder), &Monitor::silent()).unwrap();
        weft_zoo::read_metadata(&files[0]).unwrap()["generator"].clone()
    };
    assert_eq!(generator_of(None, "a"), "flow + refiner");
    assert_eq!(generator_of(Some(GeneratorName::Flow), "b"), "flow");
    assert_eq!(generator_of(Some(GeneratorName::Hyper), "c"), "hyper-decoder");
    let mut without = config.clone();
    without.hyper = None;
    let error = weft::sample(&without, &request(Some(GeneratorName::Hyper), "d"), &Monitor::silent()).unwrap_err();
    assert_eq!(error.to_string(), "this run has no `hyper`; it has `flow`, `refined`");
    assert_eq!(error.hint().unwrap(), "`[hyper]` in the run file trains it");
}

#[test]
fn a_hyper_decoder_that_was_stopped_goes_on_to_the_same_networks() {
    let dir = with_points();
    let settings = ["generator.flow.steps=3", "generator.flow.checkpoint-steps=40"];
    let make = |run: &str| {
        let mut config = function_aware(config(&dir.path().join(run), dir.path(), &settings));
        config.refiner = None;
        config
    };
    let artifact = |run: &str| std::fs::read(dir.path().join(run).join("generator/hyper.safetensors")).unwrap();
    weft::run(&make("whole"), Stage::Train, &Monitor::silent()).unwrap();
    let (stop, training) = (AtomicBool::new(false), AtomicBool::new(false));
    let sink = |event: Event| match event {
        Event::Started { task, .. } => training.store(task.contains("hyper"), Ordering::Relaxed),
        Event::Progress { done } if training.load(Ordering::Relaxed) => stop.store(done >= 125, Ordering::Relaxed),
        _ => {}
    };
    let error = weft::run(&make("stopped"), Stage::Train, &Monitor::new(&sink, &stop)).unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    let state = dir.path().join("stopped/generator/hyper.state.safetensors");
    assert_eq!(weft_zoo::read_tensors(&state).unwrap().metadata["step"], "125");
    weft::run(&make("stopped"), Stage::Train, &Monitor::silent()).unwrap();
    assert!(!state.exists());
    assert_eq!(artifact("stopped"), artifact("whole"));
}

#[test]
fn held_out_tasks_are_judged_beside_networks_trained_for_them() {
    let dir = with_points();
    let config = config(&dir.path().join("run"), dir.path(), &[]);
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(outcome.stages.last().unwrap().stage, Stage::Evaluate);
    let tasks = outcome.report.unwrap().tasks.expect("a task zoo is judged by tasks");
    let evaluation = &tasks.evaluation;
    // Two pairs of five classes: four tasks, each of which shares its cluster with its complement.
    assert_eq!((evaluation.tasks.len(), evaluation.num_clusters), (4, 2));
    let row = |name: &str| evaluation.rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row `{name}`"));
    assert_eq!(evaluation.rows[0].kind, TaskRowKind::Runs);
    assert!(row("trained for the task").accuracy.mean > 0.9, "{:?}", row("trained for the task"));
    // A network and its complement's are right on the same examples together: one network for all tasks is right on half.
    for name in ["mean", "flow, told no task"] {
        assert!((row(name).accuracy.mean - 0.5).abs() < 1e-9, "{:?}", row(name));
    }
    assert!(row("one network of all classes").accuracy.mean > 0.9);
    // All five classes are as frequent.
    for (task, got) in evaluation.tasks.iter().zip(&row("majority").by_task) {
        let inside = task.split('+').count();
        assert!((got - inside.max(5 - inside) as f64 / 5.0).abs() < 1e-9, "{task}: {got}");
    }
    assert!(row("nearest task").accuracy.mean > 0.65 && row("ridge").accuracy.mean > 0.5);
    let verdict = &evaluation.verdicts[0];
    assert_eq!(verdict.generator, "flow");
    let told = row("flow").accuracy.mean - row("flow, told another task").accuracy.mean;
    let compared = evaluation.comparisons.iter().find(|c| c.with == "flow, told another task").unwrap();
    assert!((compared.difference.mean - told).abs() < 1e-9);
    assert!(tasks.costs.sample_secs["flow"] > 0.0 && tasks.costs.fit_secs["flow"] > 0.0 && tasks.costs.train_secs > 0.0);
    let page = std::fs::read_to_string(outcome.page.unwrap()).unwrap();
    assert!(page.contains("tasks that were never trained for") && page.contains("one network of all classes"));

    // A zoo that is there already is judged alike, though nothing is left to export.
    let mut existing = config.clone();
    existing.zoo = ZooConfig::Existing(ExistingZooConfig { path: dir.path().join("run/zoo") });
    existing.architecture = None;
    existing.run.output = dir.path().join("existing");
    // What a run file asks of the task is not asked where none is to be told.
    existing.sample.condition.clear();
    let outcome = weft::run(&existing, Stage::Export, &Monitor::silent()).unwrap();
    assert_eq!(outcome.stages.last().unwrap().stage, Stage::Evaluate);
    let again = outcome.report.unwrap().tasks.unwrap().evaluation;
    let untold = again.rows.iter().find(|row| row.name == "flow, told no task").unwrap();
    assert_eq!(untold.by_task, row("flow, told no task").by_task);
    assert!(again.rows.iter().all(|row| row.name != "one network of all classes"), "its outputs are not known");
    assert_eq!(again.rows[0], evaluation.rows[0]);
    // What the run file of a zoo that is trained is refused for, a zoo that is there shows when it is read.
    existing.run.output = dir.path().join("refused");
    existing.refiner = Some(RefinerConfig { steps: 2, ..RefinerConfig::default() });
    let refusal = |config: &RunConfig| weft::run(config, Stage::Train, &Monitor::silent()).unwrap_err();
    assert!(chain(&refusal(&existing)).contains("`hinge` must be `false` for networks of many tasks"));
    existing.refiner = Some(RefinerConfig { steps: 2, hinge: false, ..RefinerConfig::default() });
    existing.evaluate.ablation = true;
    assert_eq!(refusal(&existing).hint().unwrap(), "set it to `false`");
    existing.evaluate.ablation = false;
    let GeneratorConfig::Flow(flow) = &mut existing.generator else { panic!("the quickstart has a flow") };
    flow.conditions.retain(|field| field.name != "task");
    existing.sample.condition.clear();
    assert!(chain(&refusal(&existing)).contains("`conditions` must be fields of which `task` is one"));
    assert!(!dir.path().join("refused/generator/flow.safetensors").exists(), "nothing is trained for it");
    let request = |data: Option<&str>| weft::structure::StructureRequest {
        zoo: dir.path().join("run/zoo"),
        data: data.map(str::to_owned),
        sample: 8,
        seed: 0,
    };
    let found = weft::structure::measure(&request(None), &Monitor::silent()).unwrap();
    assert_eq!(found.num_sampled, 8);
    let error = weft::structure::measure(&request(Some("digits")), &Monitor::silent()).unwrap_err();
    assert!(error.hint().unwrap().contains("leave `--data` out"), "{error}");
}

/// A task in words is a condition like its set of classes, by hashes and by a trained encoder.
#[test]
fn tasks_are_told_in_words() {
    let dir = with_points();
    let names = "zoo.train.tasks.subsets.names = [\"red\", \"green\", \"blue\", \"black\", \"white\"]";
    let fields = "generator.flow.conditions = [{ text = \"description\" }]";
    let settings = [names, fields, "sample.condition = {}"].map(|setting| setting.replace(" = ", "="));
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let config = function_aware(config(&dir.path().join("run"), dir.path(), &settings));
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    let evaluation = outcome.report.unwrap().tasks.expect("a task zoo").evaluation;
    let zoo = Zoo::open(&dir.path().join("run/zoo")).unwrap();
    let label = |task: &str| {
        let of_task = |entry: &Entry| entry.record().labels.get("task").is_some_and(|label| label == task);
        let record = zoo.records(&Filter::default()).unwrap().into_iter().find(of_task).unwrap();
        record.record().labels["description"].clone()
    };
    assert_eq!(["3", "1+4", "0+2+3"].map(label), ["black", "green or white", "red, blue or black"]);
    let accuracy = |name: &str| evaluation.rows.iter().find(|row| row.name == name).unwrap().accuracy.mean;
    let [told, other, random] =
        ["", ", told another task", ", told a random text"].map(|what| accuracy(&format!("hyper-decoder{what}")));
    assert!(told > 0.75 && other < told - 0.1 && random < told - 0.1, "{told}, {other} and {random}");
    let verdict = evaluation.verdicts.iter().find(|verdict| verdict.generator == "hyper-decoder").unwrap();
    let controls = evaluation.comparisons.iter().filter(|c| c.ours == "hyper-decoder" && c.with.contains(", told ")).count();
    assert!(verdict.uses_condition && controls == 3, "{verdict:?}, {controls} controls");
    let refused = |more: &str| RunConfig::parse(&config.to_toml(), "run.toml", &[more.to_owned()]).unwrap_err().to_string();
    assert!(refused("zoo.train.tasks.subsets.names=[]").contains("the names of all classes, where `description` is a condition"));
}
