//! What a run of adapters is about: tasks to train for, to hold out and to judge by, whatever they are made of.

use super::generate::Shown;
use crate::Result;
use serde::{Deserialize, Serialize};
use weft_net::adapters::{AdapterTask, Measured, Sentences, Windows};

/// What adapters are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bits that a byte of text costs: less is better.
    #[default]
    BitsAByte,
    /// The share of sentences whose class is found: more is better.
    Accuracy,
}

impl Unit {
    /// What it is called in a table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BitsAByte => "bits a byte",
            Self::Accuracy => "accuracy",
        }
    }

    /// A figure as a score of which more is better, and back.
    #[must_use]
    pub fn score(self, figure: f64) -> f64 {
        match self {
            Self::BitsAByte => -figure,
            Self::Accuracy => figure,
        }
    }

    /// The figure of what was measured on so many bytes or sentences.
    pub(super) fn figure(self, measured: &Measured, size: usize) -> f64 {
        match self {
            Self::BitsAByte => measured.bits_per_byte(size),
            Self::Accuracy => measured.accuracy.unwrap_or(f64::NAN),
        }
    }
}

/// What things are called in names of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Words {
    /// One task, such as a language.
    pub(super) task: &'static str,
    /// Several of them.
    pub(super) tasks: &'static str,
    /// What shows none of them.
    pub(super) noise: &'static str,
}

/// A task of a run.
pub(super) struct Task {
    /// Its name, which is the name of its adapter's folder.
    pub(super) id: String,
    /// What it is called in words.
    pub(super) title: String,
    /// What tasks share that are not independent of each other.
    pub(super) code: String,
    /// The number of its group: 0 is training, all others are held out, and no generator may see them.
    pub(super) group: usize,
    /// What its adapter is trained on, and what adapters are judged on.
    pub(super) parts: [AdapterTask; 2],
    /// The bytes or sentences of both.
    pub(super) sizes: [usize; 2],
}

/// The tasks of a run.
pub(super) struct Tasks {
    pub(super) each: Vec<Task>,
    /// What the groups are called: that of training, then those that are held out.
    pub(super) groups: Vec<&'static str>,
    pub(super) unit: Unit,
    pub(super) words: Words,
    /// What shows tasks to generators, each way.
    pub(super) shown: Vec<Shown>,
    /// Tasks that were left out, and why.
    pub(super) skipped: Vec<(String, String)>,
}

impl Tasks {
    /// Numbers of the training tasks, or of those that are held out.
    pub(super) fn numbers(&self, held_out: bool) -> Vec<usize> {
        (0..self.each.len()).filter(|&i| (self.each[i].group > 0) == held_out).collect()
    }

    /// All training tasks as one.
    pub(super) fn joined(&self) -> Result<AdapterTask> {
        let parts = || self.each.iter().filter(|task| task.group == 0).map(|task| &task.parts[0]);
        let texts = parts().filter_map(|part| if let AdapterTask::Text(windows) = part { Some(windows) } else { None });
        let sentences = parts().filter_map(|part| if let AdapterTask::Sentences(of) = part { Some(of) } else { None });
        Ok(match self.unit {
            Unit::BitsAByte => AdapterTask::Text(Windows::join(texts)?),
            Unit::Accuracy => AdapterTask::Sentences(Sentences::join(sentences)?),
        })
    }
}
