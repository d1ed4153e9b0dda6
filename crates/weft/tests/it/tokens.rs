//! A generator of tokens that learns from other runs, of other widths.

use crate::tiny;
use std::path::Path;
use weft::config::{GeneratorConfig, RunConfig, TokensConfig};
use weft::report::data::RowKind;
use weft::{GeneratorName, Kind, Monitor, SampleRequest, Stage};

/// The tiny run with a generator of tokens and a refiner of theirs, on its own networks or on those of other runs.
fn tokens(output: &Path, zoos: &[&Path], more: &[&str]) -> RunConfig {
    let own = ["refiner.hinge=false", "refiner.shell=0.0", "refiner.repulsion=0.0", "architecture.mlp.hidden=[7]"];
    let more = [&own[..], more].concat();
    let mut config = tiny(output, &more);
    config.generator = GeneratorConfig::Tokens(TokensConfig {
        own: zoos.is_empty(),
        zoos: zoos.iter().map(|&zoo| zoo.to_owned()).collect(),
        token_len: 64,
        // Networks of other widths are read as sets of units.
        outgoing: if zoos.is_empty() { 0 } else { 10 },
        rank: if zoos.is_empty() { 0 } else { 8 },
        d_model: 16,
        num_layers: 1,
        num_heads: 2,
        hidden: 32,
        steps: 30,
        batch_networks: 4,
        ..TokensConfig::default()
    });
    // As if it had been read, checks and all.
    RunConfig::parse(&config.to_toml(), "tokens.toml", &[]).expect("the run file is valid")
}

fn zoo(output: &Path, more: &[&str]) {
    weft::run(&tiny(output, more), Stage::Canonicalize, &Monitor::silent()).expect("a tiny zoo");
}

#[test]
fn networks_of_a_width_that_was_not_learned_from_are_sampled_and_judged() {
    let dir = tempfile::tempdir().unwrap();
    let [narrow, wide, unseen] = ["narrow", "wide", "unseen"].map(|name| dir.path().join(name));
    let config = tokens(&unseen, &[&narrow, &wide], &[]);
    let missing = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap_err();
    assert!(matches!(missing.kind(), Kind::Missing | Kind::Input) && missing.to_string().contains("narrow"), "{missing}");
    zoo(&narrow, &["architecture.mlp.hidden=[5]"]);
    zoo(&wide, &["architecture.mlp.hidden=[9]"]);
    let outcome = weft::run(&config, Stage::Export, &Monitor::silent()).unwrap();
    let rows: Vec<_> = outcome.report.unwrap().evaluation.rows.into_iter().map(|row| (row.name, row.kind)).collect();
    assert!(rows.contains(&("tokens".to_owned(), RowKind::Generator)), "{rows:?}");
    assert!(rows.contains(&("tokens + refiner".to_owned(), RowKind::Refined)), "{rows:?}");
    let neighbors = ["sliced", "padded"].map(|name| (name.to_owned(), RowKind::Baseline));
    assert!(neighbors.iter().all(|row| rows.contains(row)), "{rows:?}");
    let shape = |path: &Path| weft_zoo::read_tensors(path).unwrap().tensors["seed-0"].0.clone();
    assert_eq!(shape(&unseen.join("samples/refined.safetensors")), [18, 64 * 7 + 7 + 7 * 10 + 10]);

    // What is learned from is in the key: the stage is reused, and made again when another run's networks change.
    let reused = |outcome: &weft::Outcome| outcome.stages.iter().map(|stage| stage.reused).collect::<Vec<_>>();
    assert_eq!(reused(&weft::run(&config, Stage::Train, &Monitor::silent()).unwrap()), [true; 4]);
    zoo(&wide, &["architecture.mlp.hidden=[9]", "run.seed=5"]);
    assert_eq!(reused(&weft::run(&config, Stage::Train, &Monitor::silent()).unwrap()), [true, true, true, false]);

    let request = SampleRequest {
        count: 2,
        seed: 1,
        condition: std::collections::BTreeMap::new(),
        generator: Some(GeneratorName::Flow),
        folder: dir.path().join("more"),
    };
    assert_eq!(weft::sample(&config, &request, &Monitor::silent()).unwrap().len(), 2);
}

#[test]
fn a_run_may_learn_from_its_own_networks_and_refuses_what_tokens_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let own = tokens(&dir.path().join("own"), &[], &[]);
    weft::run(&own, Stage::Sample, &Monitor::silent()).unwrap();
    let error = |config: &RunConfig| weft::run(config, Stage::Train, &Monitor::silent()).unwrap_err().to_string();
    // A network of 17 tokens does not fit a window of 9, so that no refiner reads it.
    let mut narrow = own.clone();
    let GeneratorConfig::Tokens(tokens) = &mut narrow.generator else { panic!("the generator is one of tokens") };
    tokens.window = 9;
    assert!(error(&narrow).contains("generator.tokens.window"), "{}", error(&narrow));
    narrow.refiner = None;
    weft::run(&narrow, Stage::Sample, &Monitor::silent()).unwrap();
    // A deeper network has a map between first and last, which the other run has not.
    let deeper = self::tokens(&dir.path().join("deep"), &[&dir.path().join("own")], &["architecture.mlp.hidden=[7, 7]"]);
    assert!(error(&deeper).contains("layers.1.weight"), "{}", error(&deeper));

    let refused = |change: &str| RunConfig::parse(&own.to_toml(), "run.toml", &[change.to_owned()]).unwrap_err().to_string();
    for (change, key) in [
        ("refiner.hinge=true", "refiner.hinge"),
        ("refiner.repulsion=1.0", "refiner.repulsion"),
        ("refiner.width=17", "refiner.width"),
        ("evaluate.ablation=true", "evaluate.ablation"),
        ("generator.tokens.own=false", "generator.tokens.own"),
        ("generator.tokens.num-heads=3", "generator.tokens.num-heads"),
        ("generator.tokens.conditions=['step', 'step']", "generator.tokens.conditions"),
        ("generator.tokens.stepps=3", "stepps"),
    ] {
        assert!(refused(change).contains(key), "{change}: {}", refused(change));
    }
}

#[test]
fn what_a_run_holds_out_is_not_learned_from_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let other = dir.path().join("other");
    let config = tokens(&dir.path().join("own"), &[&other], &[]);
    let weft::config::ZooConfig::Train(train) = &config.zoo else { panic!("the tiny zoo is trained") };
    // With one training run more, the first that is held out here is trained on there, bit for bit.
    let more = format!("zoo.train.runs={}", train.runs.unwrap() + 1);
    zoo(&other, &["architecture.mlp.hidden=[7]", &more]);
    let error = weft::run(&config, Stage::Train, &Monitor::silent()).unwrap_err();
    let text = crate::tasks::chain(&error);
    assert!(error.kind() == Kind::Input || error.kind() == Kind::Conflict, "{:?}", error.kind());
    assert!(text.contains("it trains on what this run holds out: network "), "{text}");
    assert!(!dir.path().join("own/generator/flow.safetensors").exists());
    zoo(&other, &["architecture.mlp.hidden=[7]"]);
    weft::run(&config, Stage::Train, &Monitor::silent()).unwrap();
}
