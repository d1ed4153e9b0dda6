//! What is printed where.

use crate::args::Format;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

/// What a command has to say on stdout.
#[derive(Debug)]
pub(crate) struct Answer {
    /// For people.
    pub(crate) human: String,
    /// For programs.
    pub(crate) json: serde_json::Value,
    /// Whether the command did all that was asked.
    pub(crate) done: bool,
}

/// Writes answers, notes and errors in the form that the user wants.
#[derive(Debug)]
pub(crate) struct Printer {
    format: Format,
    quiet: bool,
    verbose: bool,
    color: bool,
}

impl Printer {
    pub(crate) fn new(format: Format, quiet: bool, verbose: bool) -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, quiet, verbose, color: std::io::stderr().is_terminal() && !no_color }
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.verbose
    }

    /// Writes a command's answer to stdout. A reader that has gone away is no failure.
    pub(crate) fn answer(&self, answer: &Answer) -> ExitCode {
        let mut out = std::io::stdout().lock();
        let written = match self.format {
            Format::Human => out.write_all(answer.human.as_bytes()),
            Format::Json => serde_json::to_writer_pretty(&mut out, &answer.json).map_err(Into::into).and_then(|()| writeln!(out)),
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                self.error(&anyhow::Error::new(error).context("cannot write to stdout"));
                ExitCode::FAILURE
            }
            _ if answer.done => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// Writes `error: what`, `Caused by: why` and `hint: what to do` to stderr.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let mut text = format!("{}: {error}\n", self.paint("error", "1;31"));
        for cause in error.chain().skip(1) {
            // A wrapper that only repeats its cause adds nothing.
            if !text.contains(&cause.to_string()) {
                let _ = writeln!(text, "Caused by: {cause}");
            }
        }
        if let Some(hint) = error.downcast_ref::<weft::Error>().and_then(weft::Error::hint) {
            let _ = writeln!(text, "{}: {hint}", self.paint("hint", "1;36"));
        }
        // With stderr gone there is no one left to tell.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    fn paint(&self, word: &str, code: &str) -> String {
        if self.color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}
