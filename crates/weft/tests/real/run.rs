//! Run files on real data, made small: the same code paths as the head-to-heads.

use std::path::{Path, PathBuf};
use weft::config::RunConfig;
use weft::report::data::RowKind;
use weft::{Monitor, Stage};

const SMALL: [&str; 17] = [
    "run.device=cpu",
    "zoo.train.runs=10",
    "zoo.train.held-out-runs=5",
    "zoo.train.runs-at-once=15",
    "generator.flow.width=32",
    "generator.flow.blocks=1",
    "generator.flow.steps=60",
    "refiner.steps=10",
    "refiner.width=32",
    "refiner.blocks=1",
    "refiner.batch-networks=4",
    "refiner.batch-examples=32",
    "refiner.pool=16",
    "sample.count=10",
    "sample.seeds=2",
    "evaluate.ablation=false",
    "baselines.generators=['nearest', 'pca-gaussian']",
];

fn config(text: &str, output: &Path, more: &[&str]) -> RunConfig {
    let output = format!("run.output='{}'", output.display());
    let overrides = SMALL.iter().chain(more).copied().chain([output.as_str()]).map(str::to_owned).collect::<Vec<_>>();
    RunConfig::parse(text, "run.toml", &overrides).expect("the overrides are valid")
}

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

/// Runs all stages; the mean test accuracy of held-out runs and of the samples.
fn accuracies(config: &RunConfig) -> (f64, f64) {
    let outcome = weft::run(config, Stage::Export, &Monitor::silent()).expect("the run goes through");
    let rows = outcome.report.expect("the last stage writes a report").evaluation.rows;
    let last = |kind| rows.iter().rfind(|row| row.kind == kind).map(|row| row.accuracy.mean).expect("the row");
    (last(RowKind::Runs), last(RowKind::Generator))
}

#[test]
fn a_small_h1() {
    let Some(_) = crate::data("mnist") else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(configs().join("h1-mnist-mlp.toml")).unwrap();
    let short = ["zoo.train.recipe.duration.steps=200", "export.count=4", "baselines.refined=[]"];
    let (runs, samples) = accuracies(&config(&text, dir.path(), &short));
    assert!(runs > 0.85, "the runs reach {runs}");
    assert!((0.05..=1.0).contains(&samples), "the samples reach {samples}");
    assert_eq!(std::fs::read_dir(dir.path().join("networks")).unwrap().count(), 4);
}

#[test]
fn the_quickstart_on_mnist_1d() {
    let Some(_) = crate::data("mnist1d.npz") else { return };
    let dir = tempfile::tempdir().unwrap();
    let more = ["data.npz.path=mnist1d.npz", "zoo.train.recipe.duration.steps=300", "baselines.refined=[]"];
    let (runs, samples) = accuracies(&config(weft::config::QUICKSTART, dir.path(), &more));
    assert!(runs > 0.3, "the runs reach {runs}");
    assert!((0.0..=1.0).contains(&samples), "the samples reach {samples}");
}
