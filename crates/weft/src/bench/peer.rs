//! The PyTorch loops of `bench/h1_peer.py` beside ours, in turns, so that both see the same machine.

use super::Figure;
use super::stages::{Bench, H1_STEPS, NETWORKS};
use crate::config::data_folder;
use crate::{Error, Result};
use serde::Deserialize;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = "bench/h1_peer.py";
/// Turns of each side; the median counts.
const TURNS: usize = 3;

/// A running peer.
struct Peer {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What the peer answers to a request; the line that says it is ready has no figure.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    secs_per_step: f64,
    #[serde(default)]
    error: Option<String>,
}

impl Peer {
    fn start(kind: &str, networks: usize) -> Result<Self> {
        let own = Path::new(".venv/bin/python");
        let python = if own.exists() { own } else { Path::new("python3") };
        let mut child = Command::new(python)
            .args([SCRIPT, "--serve", "--loop", kind, "--networks", &networks.to_string(), "--data"])
            .arg(data_folder().join("mnist"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("run", python))?;
        let gone = || Error::Peer { reason: "it has no input or output".to_owned() };
        let requests = child.stdin.take().ok_or_else(gone)?;
        let answers = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut peer = Self { child, requests, answers };
        peer.answer()?;
        Ok(peer)
    }

    /// Seconds in which all its networks advance by one step.
    fn measure(&mut self, steps: usize) -> Result<f64> {
        writeln!(self.requests, "run {steps}").map_err(Error::io("write to", Path::new(SCRIPT)))?;
        Ok(self.answer()?.secs_per_step)
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(Error::io("read from", Path::new(SCRIPT)))?;
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
pub(super) fn pytorch(bench: &Bench) -> Result<Vec<Figure>> {
    if !Path::new(SCRIPT).is_file() {
        return Err(Error::Peer { reason: format!("there is no `{SCRIPT}` in the current folder") });
    }
    let mut figures = Vec::new();
    for (kind, networks, steps) in [("batched", NETWORKS, 50), ("sequential", 1, 400)] {
        let steps = bench.options.size(steps).max(5);
        let mut peer = Peer::start(kind, networks)?;
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            theirs.push(peer.measure(steps)? / networks as f64);
            ours.push(bench.train_secs(NETWORKS, 100)? / 100.0 / NETWORKS as f64);
        }
        let (theirs, ours) = (median(theirs), median(ours));
        let zoo = |secs: f64| secs * (NETWORKS * H1_STEPS) as f64;
        let note = format!("PyTorch {:.1} s for the zoo of H1, weft {:.1} s", zoo(theirs), zoo(ours));
        figures.push(Figure::new(&format!("faster than the {kind} PyTorch loop"), theirs / ours, "×", note));
    }
    Ok(figures)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
