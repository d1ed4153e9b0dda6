//! What an expression may name: columns of the catalogue, labels, metrics and metadata.

use super::{Literal, Name};
use crate::{Error, Result};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use weft_core::Record;

/// The metric that has a column and an index of its own.
pub(crate) const ACCURACY: &str = "validation-accuracy";

/// The names of what is known of the checkpoints of one zoo.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Names {
    pub(crate) labels: BTreeSet<String>,
    pub(crate) metrics: BTreeSet<String>,
    pub(crate) metadata: BTreeSet<String>,
}

/// A thing that can be asked about a checkpoint, found by its name in one zoo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field(pub(super) Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Column(Column),
    Label(String),
    Metric(String),
    Metadata(String),
}

/// What sort of values a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Text,
    Number,
    Flag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Column {
    Digest,
    Run,
    Split,
    Step,
    Final,
    Accuracy,
    Licence,
    Source,
    Format,
    Sha256,
    Parents,
    Synthetic,
    Quarantined,
    Reason,
    Status,
    MaxDeviation,
}

/// The columns by name; of two names of one column the first is the one that is shown.
const COLUMNS: [(&str, Column); 17] = [
    ("digest", Column::Digest),
    ("run", Column::Run),
    ("split", Column::Split),
    ("step", Column::Step),
    ("final", Column::Final),
    ("accuracy", Column::Accuracy),
    ("licence", Column::Licence),
    ("license", Column::Licence),
    ("source", Column::Source),
    ("format", Column::Format),
    ("sha256", Column::Sha256),
    ("parents", Column::Parents),
    ("synthetic", Column::Synthetic),
    ("quarantined", Column::Quarantined),
    ("reason", Column::Reason),
    ("status", Column::Status),
    ("max-deviation", Column::MaxDeviation),
];

/// The names that ask about quarantined checkpoints, which are left out unless one is asked for.
pub(crate) const OF_QUARANTINE: [&str; 3] = ["quarantined", "reason", "status"];

impl Column {
    fn sort(self) -> Sort {
        match self {
            Self::Step | Self::Accuracy | Self::MaxDeviation => Sort::Number,
            Self::Final | Self::Synthetic | Self::Quarantined => Sort::Flag,
            _ => Sort::Text,
        }
    }

    /// The column as SQL over `checkpoints c` and `runs r`.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Digest => "lower(hex(c.digest))",
            Self::Run => "r.name",
            Self::Split => "CASE WHEN c.quarantine IS NULL THEN r.split END",
            Self::Step => "c.step",
            Self::Final => "c.is_final",
            Self::Accuracy => "c.accuracy",
            Self::Licence => "c.licence",
            Self::Source => "c.source",
            Self::Format => "c.format",
            Self::Sha256 => "lower(hex(c.file_sha256))",
            Self::Parents => "c.parents",
            Self::Synthetic => "c.synthetic",
            Self::Quarantined => "(c.quarantine IS NOT NULL)",
            Self::Reason => "c.quarantine",
            Self::Status => "CASE WHEN c.quarantine IS NULL THEN 'ok' ELSE 'quarantined' END",
            Self::MaxDeviation => "c.max_deviation",
        }
    }

    fn value(self, record: &Record) -> Option<Literal> {
        let provenance = &record.provenance;
        let text = |text: &str| Some(Literal::Text(text.to_owned()));
        match self {
            Self::Digest => text(&record.digest.to_string()),
            Self::Run => text(&record.run),
            Self::Split => text(record.split?.name()),
            Self::Step => record.step.map(|step| Literal::Number(step as f64)),
            Self::Final => Some(Literal::Flag(record.is_final)),
            Self::Accuracy => record.metrics.get(ACCURACY).copied().map(Literal::Number),
            Self::Licence => text(&provenance.licence),
            Self::Source => text(&provenance.source),
            Self::Format => text(provenance.format.as_ref()?),
            Self::Sha256 => text(&provenance.file_sha256?.to_string()),
            Self::Parents => text(&provenance.parents.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")),
            Self::Synthetic => Some(Literal::Flag(provenance.synthetic)),
            Self::Quarantined => Some(Literal::Flag(record.quarantine.is_some())),
            Self::Reason => text(record.quarantine.as_ref()?),
            Self::Status => text(if record.quarantine.is_none() { "ok" } else { "quarantined" }),
            Self::MaxDeviation => record.max_deviation.map(Literal::Number),
        }
    }
}

impl Field {
    /// The field's value of a checkpoint, if it is known.
    #[must_use]
    pub fn value(&self, record: &Record) -> Option<Literal> {
        match &self.0 {
            Kind::Column(column) => column.value(record),
            Kind::Label(key) => record.labels.get(key).cloned().map(Literal::Text),
            Kind::Metric(name) => record.metrics.get(name).copied().map(Literal::Number),
            Kind::Metadata(key) => record.provenance.metadata.get(key).cloned().map(Literal::Text),
        }
    }

    pub(super) fn sort(&self) -> Sort {
        match &self.0 {
            Kind::Column(column) => column.sort(),
            Kind::Metric(_) => Sort::Number,
            Kind::Label(_) | Kind::Metadata(_) => Sort::Text,
        }
    }

    /// The label's key, if it is a label.
    pub(super) fn label(&self) -> Option<&str> {
        match &self.0 {
            Kind::Label(key) => Some(key),
            _ => None,
        }
    }
}

impl Names {
    /// Finds a field: a column, else a label, a metric or a metadata entry of this name.
    pub(crate) fn field(&self, name: &Name) -> Result<Field> {
        let text = name.text.as_str();
        let metric = |name: &str| match name {
            ACCURACY => Kind::Column(Column::Accuracy),
            other => Kind::Metric(other.to_owned()),
        };
        let column = COLUMNS.iter().find(|(known, _)| *known == text).map(|(_, column)| Kind::Column(*column));
        let label = |key: &str| self.labels.contains(key).then(|| Kind::Label(key.to_owned()));
        let metadata = |key: &str| self.metadata.contains(key).then(|| Kind::Metadata(key.to_owned()));
        let measured = |name: &str| (name == ACCURACY || self.metrics.contains(name)).then(|| metric(name));
        let found = column
            .or_else(|| text.strip_prefix("label.").and_then(label))
            .or_else(|| text.strip_prefix("metric.").and_then(measured))
            .or_else(|| text.strip_prefix("metadata.").and_then(metadata))
            .or_else(|| label(text))
            .or_else(|| measured(text))
            .or_else(|| metadata(text));
        found.map(Field).ok_or_else(|| Error::Query { column: name.column, reason: self.unknown(text) })
    }

    fn unknown(&self, name: &str) -> String {
        let list = |names: &mut dyn Iterator<Item = &str>| names.map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
        let mut reason = format!("unknown name `{name}`; columns: {}", list(&mut COLUMNS.iter().map(|(name, _)| *name)));
        for (what, names) in [("labels", &self.labels), ("metrics", &self.metrics), ("metadata", &self.metadata)] {
            if !names.is_empty() {
                // A zoo of files from everywhere may have thousands.
                let more = if names.len() > 40 { ", …" } else { "" };
                let _ = write!(reason, "; {what}: {}{more}", list(&mut names.iter().take(40).map(String::as_str)));
            }
        }
        reason
    }
}
