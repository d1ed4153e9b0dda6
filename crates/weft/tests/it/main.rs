//! Whole runs on tiny real networks: one binary, a module a concern.

mod conditions;
mod examples;
mod inputs;
mod intents;
mod interrupted;
mod learn;
mod refused;
mod run;
mod streamed;
mod tasks;
mod text;
mod textures;
mod tokens;

use std::path::Path;
use weft::config::RunConfig;

/// The quickstart, made small enough for a test.
pub(crate) fn tiny(output: &Path, more: &[&str]) -> RunConfig {
    let mut overrides: Vec<String> = [
        "zoo.train.runs=8",
        "zoo.train.held-out-runs=4",
        "zoo.train.runs-at-once=4",
        "zoo.train.recipe.duration.epochs=2",
        "zoo.train.recipe.snapshots.steps=[10]",
        "architecture.mlp.hidden=[6]",
        "generator.flow.width=16",
        "generator.flow.blocks=1",
        "generator.flow.steps=40",
        "generator.flow.checkpoint-steps=10",
        "sampler.heun.steps=4",
        "refiner.steps=4",
        "refiner.width=16",
        "refiner.blocks=1",
        "refiner.batch-networks=4",
        "refiner.batch-examples=8",
        "refiner.pool=8",
        "baselines.refined=[]",
        "sample.count=18",
        "sample.seeds=2",
        "export.count=5",
        "run.device=cpu",
    ]
    .map(str::to_owned)
    .to_vec();
    overrides.push(format!("run.output='{}'", output.display()));
    overrides.extend(more.iter().map(|&o| o.to_owned()));
    RunConfig::quickstart(&overrides).expect("the overrides are valid")
}
