//! The PyTorch loops of `bench/` beside ours, in turns, so that both see the same machine.

use super::Figure;
use super::stages::{Bench, H1_STEPS, NETWORKS};
use crate::config::data_folder;
use crate::{Error, Result};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const POPULATIONS: &str = "bench/h1_peer.py";
const STEPS: &str = "bench/steps_peer.py";
const SAMPLES: &str = "bench/sample_peer.py";
/// Turns of each side; the median counts.
pub(super) const TURNS: usize = 5;

/// A running peer.
pub(super) struct Peer {
    script: &'static str,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the peer answers to a request; the line that says it is ready has no figure.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    secs_per_step: f64,
    #[serde(default)]
    train: Option<f64>,
    #[serde(default)]
    infer: Option<f64>,
    #[serde(default)]
    sample: Option<f64>,
    #[serde(default)]
    error: Option<String>,
}

impl Answer {
    /// The milliseconds of what was asked for.
    pub(super) fn millis(&self, verb: &str) -> Result<f64> {
        let figure = match verb {
            "train" => self.train,
            "infer" => self.infer,
            _ => self.sample,
        };
        figure.ok_or_else(|| Error::Peer { reason: format!("it has no figure for `{verb}`") })
    }
}

impl Peer {
    /// A process that takes training steps.
    pub(super) fn steps<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Self::start(STEPS, arguments.into_iter().map(std::ffi::OsString::from).collect())
    }

    /// A process that samples networks.
    pub(super) fn samples(arguments: [&str; 4]) -> Result<Self> {
        Self::start(SAMPLES, arguments.map(std::ffi::OsString::from).to_vec())
    }

    /// A process that trains populations.
    fn populations(kind: &str, networks: usize) -> Result<Self> {
        let mut arguments: Vec<std::ffi::OsString> =
            ["--serve", "--loop", kind, "--networks", &networks.to_string(), "--data"].map(Into::into).to_vec();
        arguments.push(data_folder().join("mnist").into());
        Self::start(POPULATIONS, arguments)
    }

    fn start(script: &'static str, arguments: Vec<std::ffi::OsString>) -> Result<Self> {
        if !Path::new(script).is_file() {
            return Err(Error::Peer { reason: format!("there is no `{script}` in the current folder") });
        }
        let own = Path::new(".venv/bin/python");
        let python = if own.exists() { own } else { Path::new("python3") };
        let mut child = Command::new(python)
            .arg(script)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", python))?;
        let gone = || Error::Peer { reason: "it has no input or output".to_owned() };
        let requests = child.stdin.take().ok_or_else(gone)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut peer = Self { script, child, requests, answers };
        peer.answer()?;
        Ok(peer)
    }

    /// Seconds in which all its networks advance by one step.
    fn measure(&mut self, steps: usize) -> Result<f64> {
        Ok(self.ask(&format!("run {steps}"))?.secs_per_step)
    }

    /// Asks for one measurement.
    pub(super) fn ask(&mut self, request: &str) -> Result<Answer> {
        writeln!(self.requests, "{request}").map_err(Error::io("write to", Path::new(self.script)))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(Error::io("read from", Path::new(self.script)))?;
        let answer: Answer =
            serde_json::from_str(&line).map_err(|_| Error::Peer { reason: format!("it answered `{}`", line.trim()) })?;
        match answer.error {
            Some(reason) => Err(Error::Peer { reason }),
            None => Ok(answer),
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends at `quit`; if it is gone already there is nothing to end.
        let _ = writeln!(self.requests, "quit");
        let _ = self.child.wait();
    }
}

/// Both loops against ours.
pub(super) fn populations(bench: &Bench) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for (kind, networks, steps) in [("batched", NETWORKS, 50), ("sequential", 1, 400)] {
        let steps = bench.options.size(steps).max(5);
        let mut peer = Peer::populations(kind, networks)?;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            theirs.push(peer.measure(steps)? / networks as f64);
            ours.push(bench.train_secs(NETWORKS, 100)? / 100.0 / NETWORKS as f64);
        }
        let (theirs, ours) = (median(&mut theirs), median(&mut ours));
        let zoo = |secs: f64| secs * (NETWORKS * H1_STEPS) as f64;
        let note = format!("PyTorch {:.1} s for the zoo of H1, weft {:.1} s", zoo(theirs), zoo(ours));
        figures.push(Figure::new(&format!("faster than the {kind} PyTorch loop"), theirs / ours, "×", note));
    }
    Ok(figures)
}

/// The median.
pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
