//! The program `weft`: arguments in, the library's answer out.
//!
//! Data go to stdout, as text or JSON; progress, notes and errors go to stderr. Exit status 0 means done,
//! 1 refused or failed, 2 a usage error. All behavior lies in the library `weft`.

mod args;
mod commands;
mod output;
mod progress;
mod table;

use args::Arguments;
use clap::Parser as _;
use output::Printer;
use std::process::ExitCode;

/// Training allocates and frees megabytes each step; the system's allocator returns them to the kernel every time,
/// and the page faults then take a third of the run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let printer = Printer::new(arguments.format, arguments.quiet, arguments.verbose);
    let stop = match progress::stop_on_interrupt() {
        Ok(stop) => stop,
        Err(error) => {
            printer.error(&error);
            return ExitCode::FAILURE;
        }
    };
    match commands::dispatch(arguments.command, &printer, stop) {
        Ok(answer) => printer.answer(&answer),
        Err(error) => {
            printer.error(&error);
            ExitCode::FAILURE
        }
    }
}
