//! The program as a user meets it: one binary, a module a concern.

mod adapter;
mod adapter_space;
mod arch;
mod catalogue;
mod command_line;
mod hostile;
mod interrupted;

use std::path::Path;
use std::process::{Command, Output};

/// Settings that make the quickstart small enough for a test.
pub(crate) const SMALL: [&str; 23] = [
    "run.device=cpu",
    "zoo.train.runs=24",
    "zoo.train.held-out-runs=8",
    "zoo.train.runs-at-once=4",
    "zoo.train.recipe.duration.steps=60",
    "zoo.train.recipe.snapshots.steps=[10]",
    "architecture.mlp.hidden=[6]",
    "codec.pca.rank.fixed=16",
    "generator.flow.width=32",
    "generator.flow.blocks=1",
    "generator.flow.steps=120",
    "generator.flow.checkpoint-steps=20",
    "sampler.heun.steps=4",
    "refiner.steps=30",
    "refiner.width=32",
    "refiner.blocks=1",
    "refiner.batch-networks=4",
    "refiner.batch-examples=8",
    "refiner.pool=8",
    "baselines.refined=[]",
    "sample.count=18",
    "sample.seeds=2",
    "export.count=5",
];

/// The program, without colors and with no data folder but the current one's.
pub(crate) fn weft(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(arguments).env("NO_COLOR", "1").env_remove("WEFT_DATA");
    command
}

/// The small quickstart into a folder.
pub(crate) fn quickstart(output: &Path) -> Command {
    let mut command = weft(&["quickstart", "--output"]);
    command.arg(output);
    for set in SMALL {
        command.args(["--set", set]);
    }
    command
}

/// Exit status, stdout and stderr.
pub(crate) fn outcome(arguments: &[&str]) -> (Option<i32>, String, String) {
    read(&weft(arguments).output().expect("the program runs"))
}

/// Exit status, stdout and stderr of a program that ended.
pub(crate) fn read(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}
