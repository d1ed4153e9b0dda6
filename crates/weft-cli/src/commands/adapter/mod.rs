//! `weft adapter …`.

mod generate;
mod space;
mod train;

use crate::args::adapter::Adapter;
use crate::output::Answer;
use weft::Monitor;

/// Runs a command on adapters.
pub(super) fn dispatch(command: Adapter, monitor: &Monitor) -> anyhow::Result<Answer> {
    match command {
        Adapter::Space(command) => space::dispatch(command, monitor),
        Adapter::Train { run } => train::train(&run, monitor),
        Adapter::Generate(arguments) => generate::generate(arguments),
    }
}
