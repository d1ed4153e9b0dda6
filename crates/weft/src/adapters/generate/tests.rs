//! A tiny base, its languages, and generators of adapters for them.

use super::*;
use crate::adapters::tasks::Words;
use crate::adapters::train::family_of;
use crate::config::{CodeFlowConfig, CodeRefinerConfig, FewStepsConfig, HyperConfig};
use std::path::Path;
use std::sync::Arc;
use weft_core::families::{Family, Llama};
use weft_core::{Duration, Optimizer, Precision, Recipe, RopePairs, Schedule};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Base, LoraConfig, Windows};

/// Letters of the tiny languages.
const LETTERS: usize = 6;

fn adapters() -> Adapters {
    let (vocabulary, length, d_model, depth, d_hidden) = (LETTERS + 1, 16, 16, 1, 12);
    let (num_heads, num_kv_heads, theta, pairs, epsilon) = (2, 1, 100.0, RopePairs::Halves, 1e-5);
    let family =
        Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied: false, theta, pairs, epsilon };
    let architecture = Arc::new(Family::Llama(family).build("tiny").expect("the sizes fit"));
    let row = weft_testkit::random_row(&architecture, Seed::new(1));
    let base = Arc::new(Base::new(&architecture, &row).expect("a decoder"));
    let config = LoraConfig { modules: vec!["v_proj".to_owned(), "down_proj".to_owned()], rank: 2, alpha: 4.0 };
    let layout = AdapterLayout::new(&base, &config).expect("modules of the base");
    Adapters::new(base, layout, &Device::cpu()).expect("the CPU is there")
}

/// A language of some letters: its name, its text, and windows of that and of text to be judged by.
struct Tiny {
    id: String,
    text: String,
    windows: [AdapterTask; 2],
    test_bytes: usize,
}

impl Tiny {
    fn new(letters: usize, seed: Seed) -> Self {
        let has: Vec<usize> = (0..LETTERS).filter(|letter| letters >> letter & 1 == 1).collect();
        let draw = |seed: Seed| seed.indices(96, has.len()).into_iter().map(|i| has[i as usize]).collect::<Vec<_>>();
        let [train, test] = [draw(seed.fork("train")), draw(seed.fork("test"))];
        let tokens = |text: &[usize]| text.iter().map(|&letter| letter as u32 + 1).collect::<Vec<u32>>();
        let windows = [&train, &test].map(|text| AdapterTask::Text(Windows::new(&[tokens(text)], 0, 16).expect("there is text")));
        let text = train.iter().map(|&letter| char::from(b'a' + letter as u8)).collect();
        Self { id: format!("l{letters:02}"), text, windows, test_bytes: test.len() }
    }
}

fn config() -> GenerateConfig {
    let hyper = HyperConfig {
        steps: 250,
        batch_networks: 8,
        batch_examples: 2,
        learning_rate: 5e-3,
        width: 32,
        blocks: 1,
        ema_decay: 0.9,
        mix: 0.25,
        condition_noise: 0.05,
        members: 2,
        ..HyperConfig::default()
    };
    let refiner = CodeRefinerConfig {
        steps: 200,
        batch_networks: 8,
        learning_rate: 5e-3,
        width: 32,
        blocks: 1,
        pool: 64,
        mu: 1e-3,
        batch_examples: 2,
    };
    let refiner = Some(refiner);
    let flow =
        CodeFlowConfig { width: 16, blocks: 1, steps: 20, batch_size: 8, sampler_steps: 3, refiner, ..CodeFlowConfig::default() };
    let few_steps = FewStepsConfig { steps: vec![1, 4, 12], learning_rates: vec![1e-4, 0.02], tried: 20 };
    let (flow, few_steps) = (Some(flow), Some(few_steps));
    GenerateConfig { sample_bytes: 40, draws: 4, sets: 2, components: 12, hyper, flow, few_steps, ..GenerateConfig::default() }
}

fn recipe() -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAMW,
        learning_rate: 0.02,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        batch_size: 3,
        duration: Duration::Steps(40),
        snapshot_steps: Vec::new(),
        precision: Precision::Single,
    }
}

fn asked(folder: &Path, sample: &str, output: &str) -> GenerateRequest {
    let (generator, output) = (folder.join("generator"), folder.join(output));
    GenerateRequest { seed: 1, ..GenerateRequest::new(&generator, sample.as_bytes(), &output) }
}

/// On languages that it never saw, what the hyper-decoder makes of a sample beats the base, and itself shown another language; and what the run
/// left makes adapters of text.
#[test]
fn a_sample_of_a_language_makes_its_adapter() {
    let on = adapters();
    // Every set of two or three letters is a language; each sixth is held out.
    let sets: Vec<usize> = (1..1_usize << LETTERS).filter(|letters| (2..=3).contains(&letters.count_ones())).collect();
    let tiny: Vec<Tiny> = sets.iter().map(|&letters| Tiny::new(letters, Seed::new(letters as u64))).collect();
    let tasks: Vec<AdapterTask> = tiny.iter().map(|tiny| tiny.windows[0].clone()).collect();
    let config = config();
    let experiment_of = tiny_tasks(&tiny, config.sample_bytes);
    let all = [experiment_of.joined().unwrap()];
    let multi_task = on.train(&all, &recipe(), Seed::new(4), &Monitor::silent()).unwrap();
    let from_all = on.clone().with_start(multi_task.row(0)).unwrap();
    let own = from_all.train(&tasks, &recipe(), Seed::new(3), &Monitor::silent()).unwrap();
    let lora = family_of(own.architecture()).unwrap();
    let (view, stored) = experiment(&Experiment {
        config: &config,
        on: &on,
        lora: &lora,
        tasks: &experiment_of,
        own: &own,
        multi_task: &multi_task,
        grew_from_all: true,
        own_secs: 1.0,
        seed: Seed::new(5),
        monitor: &Monitor::silent(),
    })
    .unwrap();
    let bits = |name: &str| -view.evaluation.rows.iter().find(|row| row.name == name).unwrap().accuracy.mean;
    assert!(bits("hyper-decoder") < bits("base") - 0.3, "{} of {}", bits("hyper-decoder"), bits("base"));
    assert!(bits("hyper-decoder") < bits("hyper-decoder, shown another language") - 0.2);
    // What mends the flow's samples through the base, does, and by what is shown.
    assert!(bits("flow + refiner") < bits("flow") - 0.1, "{} of {}", bits("flow + refiner"), bits("flow"));
    assert!(bits("flow + refiner") < bits("flow + refiner, shown another language") - 0.1);
    // So does what knows updates alone.
    assert!(bits("ridge on updates") < bits("base") - 0.1, "{} of {}", bits("ridge on updates"), bits("base"));
    assert!(bits("flow on updates").is_finite());
    assert_eq!(view.gap.len(), view.evaluation.rows.len());
    let at = |name: &str| view.gap[view.evaluation.rows.iter().position(|row| row.name == name).unwrap()];
    assert!(at(ALL).abs() < 1e-12 && (at(OWN) - 1.0).abs() < 1e-12);
    assert!(["nearest language's", "ridge", "mean of updates"].iter().all(|name| bits(name) < bits("base")));
    assert!(view.evaluation.rows.iter().any(|row| row.name == "flow, shown nothing"));
    merged_differences(&view);
    stepped(&view);
    let folder = tempfile::tempdir().unwrap();
    let run = crate::config::AdapterRunConfig::parse(include_str!("../../../../../configs/languages.toml"), "l", &[]).unwrap();
    assert_eq!((stored.len(), stored[0].folder.as_str(), view.groups.len()), (1, "generator", 0));
    stored[0].write(&folder.path().join("generator"), &run, own.architecture()).unwrap();
    made_from_text(folder.path());
}

/// Mergers of differences are rows, no worse than the adapter that they are added to by much, and say what they lost.
fn merged_differences(view: &GeneratedView) {
    let row = |name: &str| view.evaluation.rows.iter().find(|row| row.name.starts_with(name)).expect(name);
    for name in ["task arithmetic", "TIES", "DARE", "KnOTS-TIES"].map(|name| format!("{name} of differences, × ")) {
        let row = row(&name);
        assert_eq!(row.kind, TaskRowKind::Baseline);
        let (_, lost) = view.merges_lost.iter().find(|(merge, _)| *merge == row.name).expect("what it lost");
        assert!((0.0..1.0).contains(lost), "{name}: {lost}");
        assert!(row.accuracy.mean > self::row(view, ALL) - 0.1, "{name}: {}", row.accuracy.mean);
    }
    // The mean, four mergers of updates, and four of differences.
    assert_eq!(view.merges_lost.len(), 9);
}

/// Steps on a sample are rows for each set, better the more there are at first, and the chosen rate is not the one that moves nothing.
fn stepped(view: &GeneratedView) {
    let few = view.few_steps.as_ref().expect("a few steps were asked for");
    let names: Vec<&str> = few.from_all.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["one adapter of all, then 1 step", "one adapter of all, then 4 steps", "one adapter of all, then 12 steps"]);
    assert!(row(view, names[1]) > row(view, ALL) + 0.02, "{} and {}", row(view, names[1]), row(view, ALL));
    assert!(names.contains(&few.chosen.as_str()) && few.tried > 0 && few.tried <= 20);
    assert!(few.from_all.iter().all(|row| row.learning_rate > 0.01 && row.sample_secs > 0.0));
    let of = |name: &str| view.evaluation.rows.iter().find(|row| row.name == name).expect("a row");
    assert!(names.iter().all(|name| of(name).num_seeds == 2));
    assert_eq!(of(&few.from_hyper.name).kind, TaskRowKind::Ours);
    let verdict = view.evaluation.verdicts.iter().find(|verdict| verdict.generator == few.from_hyper.name).expect("a verdict");
    assert!(verdict.uses_condition, "{verdict:?}");
}

/// A row's figure: bits a byte, times −1.
fn row(view: &GeneratedView, name: &str) -> f64 {
    view.evaluation.rows.iter().find(|row| row.name == name).expect(name).accuracy.mean
}

/// Each sixth is held out.
fn tiny_tasks(tiny: &[Tiny], bytes: usize) -> Tasks {
    let task = |(i, tiny): (usize, &Tiny)| Task {
        id: tiny.id.clone(),
        title: tiny.id.clone(),
        code: tiny.id.clone(),
        group: usize::from(i.is_multiple_of(6)),
        parts: tiny.windows.clone(),
        sizes: [tiny.text.len(), tiny.test_bytes],
    };
    let read: ReadText = Box::new(|text: &str| {
        let tokens: Vec<u32> = text.bytes().map(|letter| u32::from(letter - b'a') + 1).collect();
        Ok(AdapterTask::Text(Windows::new(&[tokens], 0, 16)?))
    });
    let texts = tiny.iter().map(|tiny| tiny.text.clone()).collect();
    Tasks {
        each: tiny.iter().enumerate().map(task).collect(),
        groups: vec!["of training", "held out"],
        unit: Unit::BitsAByte,
        words: Words { task: "language", tasks: "languages", noise: "random bytes" },
        shown: vec![Shown::Text(Texts { of_tasks: texts, bytes, read })],
        skipped: Vec::new(),
    }
}

/// Strength 0 is the training adapter as the codec keeps it, for each generator and whatever the text; 1 is a fresh sample; and half is neither.
fn near_a_training_adapter(folder: &Path) {
    let text = "abababbabaabbabaababbabababbaababab";
    let factors = |model: Model, like: Option<(&str, f64)>, seed: u64, output: &str| -> Vec<f32> {
        let like = like.map(|(name, strength)| Like { name: name.to_owned(), strength });
        generate(&GenerateRequest { model: Some(model), seed, like, ..asked(folder, text, output) }, &Monitor::silent())
            .expect("an adapter");
        let file = weft_zoo::adapter::AdapterWeights::read(&folder.join(output), None).expect("an adapter");
        assert_eq!(file.weights.rotary, Some(weft_core::RopePairs::Halves));
        file.weights.to_lora().expect("factors").1
    };
    let own = Some(("l05", 0.0));
    let training = factors(Model::Hyper, own, 1, "own-hyper");
    let languages = std::fs::read_to_string(folder.join("generator/generator.json")).expect("a description");
    assert!(languages.contains("\"l05\""), "{languages}");
    assert_eq!(factors(Model::Flow, own, 1, "own-flow"), training);
    assert_eq!(factors(Model::Flow, own, 2, "own-flow-again"), training);
    for model in [Model::Hyper, Model::Flow] {
        let name = format!("{model:?}");
        let fresh = factors(model, None, 3, &format!("fresh-{name}"));
        assert_eq!(factors(model, Some(("l05", 1.0)), 3, &format!("far-{name}")), fresh);
        let half = factors(model, Some(("l05", 0.5)), 3, &format!("half-{name}"));
        let apart = |other: &[f32]| half.iter().zip(other).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        assert!(apart(&training) > 1e-3 && apart(&fresh) > 1e-3, "{name}: {} {}", apart(&training), apart(&fresh));
    }
    let card = std::fs::read_to_string(folder.join("half-Flow/weft.json")).expect("provenance");
    assert!(card.contains("like l05 at strength 0.5") && card.contains("l05: its code in seen.safetensors"), "{card}");
    let refused = |name: &str, strength: f64, expected: &str| {
        let like = Some(Like { name: name.to_owned(), strength });
        let error = generate(&GenerateRequest { like, ..asked(folder, text, "refused") }, &Monitor::silent()).expect_err(expected);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!folder.join("refused").exists());
    };
    refused("l05x", 0.5, "the nearest names are `l05`");
    refused("l05", -0.1, "`--strength` must be between 0");
    refused("l05", f64::NAN, "`--strength`");
}

fn made_from_text(folder: &Path) {
    let made = generate(&asked(folder, "abababbabaabbabaababbabababbaababab", "one"), &Monitor::silent()).expect("an adapter");
    assert_eq!((made.written.len(), made.nearest.len()), (1, 3));
    for file in ["adapter_config.json", "adapter_model.safetensors", "README.md"] {
        assert!(folder.join("one").join(file).is_file(), "{file}");
    }
    let flow = GenerateRequest { model: Some(Model::Flow), count: 3, ..asked(folder, "abcabcabcaabcbacbabcbaccbabc", "three") };
    assert_eq!(generate(&flow, &Monitor::silent()).expect("three adapters").written.len(), 3);
    assert!(folder.join("three/0002/adapter_model.safetensors").is_file());
    let short = generate(&asked(folder, "ZZ", "short"), &Monitor::silent()).expect("an adapter");
    assert!(short.notes.iter().any(|note| note.contains("2 bytes")), "{:?}", short.notes);
    assert!(short.notes.iter().any(|note| note.contains("looks like no training language")), "{:?}", short.notes);
    assert!(made.notes.iter().all(|note| !note.contains("looks like no")), "{:?}", made.notes);
    near_a_training_adapter(folder);
    let refused = |request: &GenerateRequest, expected: &str| {
        let message = generate(request, &Monitor::silent()).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused(&asked(folder, " \n", "none"), "white space");
    refused(&asked(folder, "abc", "one"), "is there already");
    refused(&GenerateRequest { count: 2, ..asked(folder, "abc", "two") }, "any model but the flow");
    refused(&GenerateRequest { generator: folder.join("nowhere"), ..asked(folder, "abc", "x") }, "nowhere");
    assert!(["none", "two", "x"].iter().all(|name| !folder.join(name).exists()), "nothing is left of what was refused");
}
