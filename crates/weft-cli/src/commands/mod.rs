//! One function a command: arguments to the library's types, its answer to text and JSON.

mod adapter;
mod arch;
mod bench;
mod run;
mod structure;
mod zoo;

use crate::args::Command;
use crate::output::{Answer, Printer};
use crate::progress::Progress;
use std::sync::atomic::AtomicBool;
use weft::{Monitor, Stage};

/// Runs a command.
pub(crate) fn dispatch(command: Command, printer: &Printer, stop: &AtomicBool) -> anyhow::Result<Answer> {
    let progress = Progress::new(printer);
    let sink = |event| progress.hear(event);
    let monitor = Monitor::new(&sink, stop);
    match command {
        Command::Quickstart(arguments) => run::quickstart(arguments, &monitor),
        Command::Run(arguments) => run::run(&arguments, &monitor),
        Command::Arch(command) => arch::dispatch(command),
        Command::Adapter(command) => adapter::dispatch(command, &monitor),
        Command::Zoo(command) => zoo::dispatch(command, &monitor),
        Command::Canonicalize(arguments) => run::until(&arguments, Stage::Canonicalize, &monitor),
        Command::Encode(arguments) => run::until(&arguments, Stage::Encode, &monitor),
        Command::Train(arguments) => run::until(&arguments, Stage::Train, &monitor),
        Command::Sample(arguments) => run::sample(arguments, &monitor),
        Command::Evaluate(arguments) => run::until(&arguments, Stage::Evaluate, &monitor),
        Command::Export(arguments) => run::until(&arguments, Stage::Export, &monitor),
        Command::Bench(arguments) => bench::bench(&arguments, &monitor),
    }
}
