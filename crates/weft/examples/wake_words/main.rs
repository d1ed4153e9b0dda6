//! Measures how well heads that are sampled for a phrase hear it: wake words that no head was trained for.
//!
//! ```sh
//! cargo run --release -p weft --example wake_words -- phrases ZOO > phrases.tsv
//! python bench/speech/features.py MODELS phrases.tsv speech.safetensors
//! cargo run --release -p weft --example wake_words -- judge RUN.toml speech.safetensors REPORT.json [PATH=VALUE]...
//! ```
//!
//! The zoo is one of openWakeWord's heads with labels `phrase` and `language`, divided by phrase; the run file takes it to a flow that is told these.
//! A head's score for a clip is its largest logit over the clip's windows of 16 frames. What is measured is the area under the ROC curve (AUC): how
//! often a clip of the phrase scores above a clip of another one. Phrases that hold the phrase, or that it holds (`hey jarvis`, `jarvis`),
//! are not among the others. A held-out phrase that is said like a training phrase is left out. The report has the form of an evaluation over held-out tasks, with AUC in the place of accuracy.

mod judge;
mod speech;

use std::error::Error;
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use weft_core::Record;
use weft_zoo::{Filter, Zoo};

const USAGE: &str = "usage: wake_words phrases ZOO | judge RUN.toml SPEECH.safetensors REPORT.json [PATH=VALUE]...";

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A phrase as records name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Phrase {
    pub(crate) language: String,
    pub(crate) phrase: String,
}

impl Phrase {
    /// The labels of a record.
    pub(crate) fn of(record: &Record) -> Result<Self> {
        let label = |key: &str| record.labels.get(key).cloned().ok_or_else(|| format!("run `{}` has no label `{key}`", record.run));
        Ok(Self { language: label("language")?, phrase: label("phrase")? })
    }

    /// What is said: numbers that a file's name has after a hyphen are none of its words.
    pub(crate) fn said(&self) -> String {
        let is_number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let words = self
            .phrase
            .split_whitespace()
            .map(|word| word.split('-').filter(|part| !is_number(part)).collect::<Vec<_>>().join("-"));
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether one of the two is said when the other is.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        let words = |phrase: &Self| format!(" {} ", phrase.said().replace(['-', '.', '!'], " "));
        let (own, other) = (words(self), words(other));
        own.contains(&other) || other.contains(&own)
    }
}

/// All phrases of a zoo, in order.
pub(crate) fn phrases_of(zoo: &Zoo) -> Result<Vec<Phrase>> {
    let entries = zoo.records(&Filter::default())?;
    let mut phrases = entries.iter().map(|entry| Phrase::of(entry.record())).collect::<Result<Vec<_>>>()?;
    phrases.sort();
    phrases.dedup();
    Ok(phrases)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["phrases", zoo] => list(Path::new(zoo)),
        ["judge", run, speech, report, ..] => judge::judge([run, speech, report].map(Path::new), &arguments[4..]),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |&cause| cause.source()).map(|cause| format!(": {cause}"));
            // With stderr gone there is no one left to tell.
            let _ = writeln!(std::io::stderr(), "error: {error}{}", causes.collect::<String>());
            ExitCode::FAILURE
        }
    }
}

fn list(zoo: &Path) -> Result<()> {
    let lines = phrases_of(&Zoo::open(zoo)?)?.into_iter().map(|phrase| format!("{}\t{}\n", phrase.language, phrase.said()));
    Ok(std::io::stdout().write_all(lines.collect::<String>().as_bytes())?)
}
