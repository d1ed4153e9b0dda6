//! Adapters for telling intents apart: a tiny encoder of random weights, two tiny data sets, and the whole run on them.

use std::fmt::Write as _;
use std::path::Path;
use weft::Monitor;
use weft::adapters::generate::{GenerateRequest, generate};
use weft::adapters::train::{TrainedView, Unit, train};
use weft::config::AdapterRunConfig;
use weft_core::Seed;
use weft_core::families::{Bert, Family};

/// Words: an unknown one, one a name, and fillers.
const NAMES: usize = 24;
const FILLERS: usize = 12;

/// An encoder with a tokenizer of words.
fn encoder(folder: &Path) {
    let vocabulary = 1 + NAMES + FILLERS;
    let bert = Bert { vocabulary, length: 16, segments: 1, d_model: 16, depth: 1, num_heads: 2, d_hidden: 16, pooler: false };
    let bert = Family::Bert(bert).build("bert").expect("the sizes fit");
    let row = weft_testkit::random_row(&bert, Seed::new(1));
    let weights = folder.join("model.safetensors");
    weft_zoo::write_checkpoint(&weights, &bert, &row, &weft_zoo::Metadata::new()).expect("a new file");
    std::fs::write(folder.join("config.json"), "{\"num_attention_heads\": 2}").expect("a new file");
    tokenizer(folder, "w");
}

fn tokenizer(folder: &Path, unknown: &str) {
    let words = (0..NAMES).map(|i| format!("n{i}")).chain((0..FILLERS).map(|i| format!("f{i}")));
    let words = words.enumerate().map(|(i, word)| format!("\"{word}\": {}", i + 1)).collect::<Vec<_>>().join(", ");
    let text = format!(
        "{{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [], \"normalizer\": null, \
         \"pre_tokenizer\": {{\"type\": \"WhitespaceSplit\"}}, \"post_processor\": null, \"decoder\": null, \
         \"model\": {{\"type\": \"WordLevel\", \"vocab\": {{\"{unknown}\": 0, {words}}}, \"unk_token\": \"{unknown}\"}}}}"
    );
    std::fs::write(folder.join("tokenizer.json"), text).expect("a new file");
}

/// What people say who want `n`: its word among fillers, which an adapter learns to overhear.
fn utterances(n: usize, part: &str, count: usize) -> Vec<String> {
    let seed = Seed::new(2).fork(part).index(n as u64);
    let filler = |i: usize, at: usize| format!("f{}", seed.index((8 * i + at) as u64).indices(1, FILLERS)[0]);
    (0..count).map(|i| format!("{} {} n{n} {} {}", filler(i, 0), filler(i, 1), filler(i, 2), filler(i, 3))).collect()
}

/// Three domains of six intents as `CLINC150`, and six as `BANKING77`.
fn data(folder: &Path) {
    let pairs = |part: &str, count| {
        let of = |n: usize| utterances(n, part, count).into_iter().map(move |text| format!("[\"{text}\", \"n{n}\"]"));
        (0..18).flat_map(of).collect::<Vec<_>>().join(", ")
    };
    let full = format!("{{\"train\": [{}], \"val\": [], \"test\": [{}]}}", pairs("train", 12), pairs("test", 6));
    std::fs::write(folder.join("data_full.json"), full).expect("a new file");
    let domain =
        |d: usize| format!("\"d{d}\": [{}]", (6 * d..6 * d + 6).map(|n| format!("\"n{n}\"")).collect::<Vec<_>>().join(", "));
    std::fs::write(folder.join("domains.json"), format!("{{{}, {}, {}}}", domain(0), domain(1), domain(2))).expect("a new file");
    for (part, count) in [("train", 12), ("test", 8)] {
        let mut text = "text,category\n".to_owned();
        for n in 18..24 {
            for utterance in utterances(n, part, count) {
                writeln!(text, "{utterance},n{n}").expect("memory");
            }
        }
        std::fs::write(folder.join(format!("{part}.csv")), text).expect("a new file");
    }
    let names: Vec<String> = (18..24).map(|n| format!("\"n{n}\"")).collect();
    std::fs::write(folder.join("categories.json"), format!("[{}]", names.join(", "))).expect("a new file");
}

fn config(folder: &Path) -> AdapterRunConfig {
    let path = |name: &str| format!("\"{}\"", folder.join(name).display());
    let [weights, vocabulary, here, output] = ["model.safetensors", "tokenizer.json", "", "out"].map(path);
    let overrides = [
        format!("run.output={output}"),
        "run.device=cpu".to_owned(),
        format!("base.weights={weights}"),
        format!("base.vocabulary={vocabulary}"),
        format!("task.intents.clinc150={here}"),
        format!("task.intents.banking77={here}"),
        "lora.rank=2".to_owned(),
        "task.intents.tokens=8".to_owned(),
        "task.intents.ways=3".to_owned(),
        "task.intents.training-tasks=14".to_owned(),
        "task.intents.test-tasks=4".to_owned(),
        "task.intents.held-out-intents=0.34".to_owned(),
        "task.intents.held-out-domains=[\"d2\"]".to_owned(),
        "recipe.learning-rate=0.02".to_owned(),
        "recipe.duration.steps=40".to_owned(),
        "multi-task.learning-rate=0.02".to_owned(),
        "multi-task.duration.steps=60".to_owned(),
        "multi-task.batch-size=16".to_owned(),
        "generate.utterances=6".to_owned(),
        "generate.draws=2".to_owned(),
        "generate.sets=2".to_owned(),
        "generate.hyper.steps=20".to_owned(),
        "generate.hyper.batch-networks=4".to_owned(),
        "generate.hyper.width=16".to_owned(),
        "generate.flow.steps=10".to_owned(),
        "generate.flow.width=16".to_owned(),
        "generate.flow.sampler-steps=2".to_owned(),
    ];
    AdapterRunConfig::parse(include_str!("../../../../configs/intents.toml"), "intents.toml", &overrides).expect("a run file")
}

#[test]
fn sets_of_intents_get_adapters_and_generators() {
    let dir = tempfile::tempdir().unwrap();
    encoder(dir.path());
    data(dir.path());
    let config = config(dir.path());
    let view = train(&config, &Monitor::silent()).expect("a run");
    judged(&view);
    let out = dir.path().join("out");
    let read = |file: &str| std::fs::read(out.join(file)).expect(file);
    assert_eq!(serde_json::from_slice::<TrainedView>(&read("report.json")).unwrap().rows.len(), 14 + 4 + 4);
    assert!(out.join("adapters/domains-0003/adapter_model.safetensors").is_file());
    made(dir.path());
}

fn judged(view: &TrainedView) {
    assert_eq!((view.unit, view.tasks.as_str(), view.rows.len()), (Unit::Accuracy, "tasks", 22));
    let groups: Vec<&str> = view.means.iter().map(|means| means.group.as_str()).collect();
    assert_eq!(groups, ["of training", "of held-out intents", "of held-out domains"]);
    // The names' words are in what is said: the base is above chance, and who learnt to overhear the rest is above the base.
    for means in &view.means {
        assert!(means.base > 0.36 && means.oracle > means.base + 0.05, "{means:?}");
    }
    let names = |held_out: bool| {
        let of = view.rows.iter().filter(move |row| row.held_out == held_out);
        of.flat_map(|row| row.title.split("; ")).collect::<std::collections::BTreeSet<_>>()
    };
    assert!(names(false).is_disjoint(&names(true)), "an intent is on both sides");
    let of_domain: Vec<String> = (12..18).map(|n| format!("n{n}")).collect();
    let domains = view.rows.iter().filter(|row| row.group == "of held-out domains");
    assert!(domains.flat_map(|row| row.title.split("; ")).all(|name| of_domain.iter().any(|of| of == name)));
    let generated = view.generated.as_ref().expect("generators");
    let row = |name: &str| generated.evaluation.rows.iter().find(|row| row.name == name).expect(name);
    for name in ["nearest task's, by names", "ridge, by utterances", "hyper-decoder, by names, shown random words"] {
        assert!((0.0..=1.0).contains(&row(name).accuracy.mean), "{name}");
    }
    // All names are shown each time, and make the same; draws of utterances do not.
    assert_eq!(row("hyper-decoder, by names").num_seeds, 1);
    assert_eq!(row("hyper-decoder, by utterances").num_seeds, 2);
    let at = |name: &str| generated.evaluation.rows.iter().position(|row| row.name == name).expect(name);
    assert!(generated.gain[at("base")].abs() < 1e-12 && (generated.gain[at("own adapter")] - 1.0).abs() < 1e-12);
    assert!(generated.gap[at("one adapter of all")].abs() < 1e-12);
    assert_eq!(generated.groups.iter().map(|group| group.evaluation.tasks.len()).collect::<Vec<_>>(), [4, 4]);
    assert_eq!(generated.learnt.iter().map(|learnt| learnt.shown.as_str()).collect::<Vec<_>>(), ["names", "utterances"]);
}

/// Adapters of names and of utterances, and what is refused.
fn made(folder: &Path) {
    let asked = |generator: &str, sample: &str, output: &str| {
        GenerateRequest::new(&folder.join("out").join(generator), sample.as_bytes(), &folder.join(output))
    };
    let one = generate(&asked("generator", "n1; n2; n20", "one"), &Monitor::silent()).expect("an adapter");
    assert!(folder.join("one/adapter_model.safetensors").is_file() && one.nearest.len() == 3);
    assert!(one.nearest.iter().all(|task| task.split("; ").count() == 3), "{:?}", one.nearest);
    assert!(one.notes.iter().all(|note| !note.contains("learnt from")), "{:?}", one.notes);
    let two = generate(&asked("generator", "n1\nn2", "two"), &Monitor::silent()).expect("an adapter");
    assert!(two.notes.iter().any(|note| note.contains("2 names") && note.contains("3 at a time")), "{:?}", two.notes);
    let far = generate(&asked("generator", "w w; w w w; w", "far"), &Monitor::silent()).expect("an adapter");
    assert!(far.notes.iter().any(|note| note.contains("extrapolating")), "{:?}", far.notes);
    let said = generate(&asked("generator-utterances", "f1 n3 f2\nn4 f5 f6\nf0 n5\nn3 f1", "said"), &Monitor::silent())
        .expect("an adapter");
    assert!(said.notes.iter().all(|note| !note.contains("at a time")), "{:?}", said.notes);
    let refused = |request: &GenerateRequest, expected: &str| {
        let message = generate(request, &Monitor::silent()).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!request.output.exists());
    };
    refused(&asked("generator", "n1", "none"), "2 to 4096 names");
    tokenizer(folder, "x");
    refused(&asked("generator", "n1; n2; n3", "none"), "it learnt with another");
    std::fs::remove_file(folder.join("model.safetensors")).expect("it is there");
    let gone = generate(&asked("generator", "n1; n2; n3", "none"), &Monitor::silent());
    assert!(gone.is_err() && !folder.join("none").exists());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_trained() {
    let dir = tempfile::tempdir().unwrap();
    encoder(dir.path());
    data(dir.path());
    let refused = |overrides: &[&str], expected: &str| {
        let all: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        let config = AdapterRunConfig::parse(&config(dir.path()).to_toml(), "i.toml", &all).expect("a run file");
        let message = train(&config, &Monitor::silent()).expect_err(expected).to_string();
        assert!(message.contains(expected), "{message}");
        assert!(!dir.path().join("out").exists());
    };
    refused(&["task.intents.held-out-domains=[\"d9\"]"], "`d9`");
    refused(&["task.intents.training-tasks=5000"], "the number of tasks");
    refused(&["lora.modules=[\"q_proj\"]"], "q_proj");
    std::fs::remove_file(dir.path().join("domains.json")).unwrap();
    refused(&[], "intents");
}
