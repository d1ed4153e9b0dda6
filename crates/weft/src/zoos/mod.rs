//! Zoos on their own: what `weft zoo …` does.
//!
//! The views here are made to be shown or serialized; the catalogue's own types know no format.

mod canonicalize;
mod derive;
mod export;
mod figures;
mod import;
mod nearest;

pub use canonicalize::{Canonicalize, CanonicalizeView, canonicalize};
pub use derive::{Merge, MergeView, Renamed, SplitOutcome, SplitRequest, merge, split};
pub use export::{Export, ExportForm, ExportNote, ExportView, Graphs, TensorNames, export};
pub use figures::{FileFault, SplitView, StatsView, VerifyView, prune, stats, verify};
pub use import::{Import, ImportView, import};
pub use nearest::{Near, nearest};

use crate::{Error, Result};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use weft_core::Split;
use weft_zoo::{Entry, Expr, Filter, Literal, SortKey, Zoo};

/// One checkpoint as a catalogue row.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointView {
    /// Digest of the weights, in full.
    pub digest: String,
    /// The run that it is a snapshot of.
    pub run: String,
    /// Its optimizer step, if known.
    pub step: Option<u64>,
    /// Whether it is the last of its run.
    pub is_final: bool,
    /// `train` or `test`; none while it is quarantined.
    pub split: Option<&'static str>,
    /// Why it is quarantined, if it is.
    pub quarantine: Option<String>,
    /// Figures such as `validation-accuracy`.
    pub metrics: BTreeMap<String, f64>,
    /// Labels such as `phrase` or `language`.
    pub labels: BTreeMap<String, String>,
    /// The largest relative change of an output that its canonicalization made, if that was measured.
    pub max_deviation: Option<f64>,
    /// SPDX licence expression.
    pub licence: String,
    /// Whether a generator made it.
    pub synthetic: bool,
    /// Where it came from.
    pub source: String,
    /// SHA-256 of the file that it came in.
    pub file_sha256: Option<String>,
    /// The format of that file.
    pub format: Option<String>,
    /// What the file said beside all this.
    pub metadata: BTreeMap<String, String>,
    /// Digests of what it was derived from.
    pub parents: Vec<String>,
    /// The training recipe, if known.
    pub recipe: Option<serde_json::Value>,
    /// The shard that holds its weights, and its row there.
    pub place: Option<(String, usize)>,
}

impl From<&Entry> for CheckpointView {
    fn from(entry: &Entry) -> Self {
        let record = entry.record();
        Self {
            digest: record.digest.to_string(),
            run: record.run.clone(),
            step: record.step,
            is_final: record.is_final,
            split: record.split.map(Split::name),
            quarantine: record.quarantine.clone(),
            metrics: record.metrics.clone(),
            labels: record.labels.clone(),
            max_deviation: record.max_deviation,
            licence: record.provenance.licence.clone(),
            synthetic: record.provenance.synthetic,
            source: record.provenance.source.clone(),
            file_sha256: record.provenance.file_sha256.map(|sha256| sha256.to_string()),
            format: record.provenance.format.clone(),
            metadata: record.provenance.metadata.clone(),
            parents: record.provenance.parents.iter().map(ToString::to_string).collect(),
            recipe: record.recipe.as_ref().and_then(|r| serde_json::from_str(&weft_zoo::recipe_to_json(r)).ok()),
            place: entry.shard().map(|shard| shard.to_string()).zip(entry.row()),
        }
    }
}

/// Which checkpoints of a zoo are meant.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selection {
    /// `train` or `test` runs alone.
    pub split: Option<Split>,
    /// The last snapshots alone.
    pub final_only: bool,
    /// At least this validation accuracy.
    pub min_accuracy: Option<f64>,
    /// One run alone.
    pub run: Option<String>,
    /// Digests that begin so.
    pub digest_prefix: Option<String>,
    /// A condition such as `accuracy >= 0.9 and phrase like "hey%"`.
    pub condition: Option<String>,
    /// Quarantined checkpoints too.
    pub with_quarantined: bool,
    /// Fields to sort by, each with a `-` before it for a descending order.
    pub sort: Vec<String>,
    /// At most so many.
    pub limit: Option<usize>,
    /// Leaving out so many first.
    pub offset: usize,
}

impl Selection {
    fn filter(&self) -> Result<Filter> {
        let sort = |key: &String| SortKey::parse(key).map_err(in_text(key));
        Ok(Filter {
            split: self.split,
            final_only: self.final_only,
            min_accuracy: self.min_accuracy,
            run: self.run.clone(),
            digest_prefix: self.digest_prefix.clone(),
            condition: self.condition.as_deref().map(condition).transpose()?,
            with_quarantined: self.with_quarantined,
            sort: self.sort.iter().map(sort).collect::<Result<_>>()?,
            limit: self.limit,
            offset: self.offset,
        })
    }

    /// The selected checkpoints of a zoo.
    fn entries(&self, zoo: &Zoo) -> Result<Vec<Entry>> {
        // Names to sort by are looked up first, so that what is wrong with a condition is told beside the condition.
        let filter = self.filter()?;
        for (text, key) in self.sort.iter().zip(&filter.sort) {
            zoo.fields([key.name.text.as_str()]).map_err(in_text(text))?;
        }
        zoo.records(&filter).map_err(in_text(self.condition.as_deref().unwrap_or_default()))
    }
}

/// Parses a condition.
fn condition(text: &str) -> Result<Expr> {
    Expr::parse(text).map_err(in_text(text))
}

/// Says in which text an error has its column.
fn in_text(text: &str) -> impl Fn(weft_zoo::Error) -> Error + '_ {
    move |error| match error {
        weft_zoo::Error::Query { column, reason } => Error::Condition { text: text.to_owned(), column, reason },
        other => Error::Zoo(other),
    }
}

/// Lists checkpoints, in the order in which they came in unless another is asked for.
///
/// # Errors
/// The folder is no zoo, its catalogue cannot be read, or the condition names what is not there.
pub fn list(zoo: &Path, selection: &Selection) -> Result<Vec<CheckpointView>> {
    Ok(selection.entries(&Zoo::open(zoo)?)?.iter().map(CheckpointView::from).collect())
}

/// Lists some fields of checkpoints: a row each, a value or null for each column.
///
/// # Errors
/// As [`list`], and for a column that is no field of the zoo's checkpoints.
pub fn list_columns(zoo: &Path, selection: &Selection, columns: &[String]) -> Result<Vec<Vec<serde_json::Value>>> {
    let zoo = Zoo::open(zoo)?;
    let field = |column: &String| zoo.fields([column.as_str()]).map_err(in_text(column));
    let fields = columns.iter().map(field).collect::<Result<Vec<_>>>()?.concat();
    let value = |literal: Option<Literal>| match literal {
        Some(Literal::Text(text)) => text.into(),
        // Whole numbers, such as steps, are shown as such.
        Some(Literal::Number(number)) if number.fract() == 0.0 && number.abs() < 1e15 => (number as i64).into(),
        Some(Literal::Number(number)) => number.into(),
        Some(Literal::Flag(flag)) => flag.into(),
        None => serde_json::Value::Null,
    };
    let row = |entry: &Entry| fields.iter().map(|field| value(field.value(entry.record()))).collect();
    Ok(selection.entries(&zoo)?.iter().map(row).collect())
}

/// The one checkpoint whose digest begins so, quarantined or not.
///
/// # Errors
/// None or several do.
pub fn show(zoo: &Path, digest_prefix: &str) -> Result<CheckpointView> {
    let digest_prefix = digest_prefix.to_owned();
    let selection =
        Selection { digest_prefix: Some(digest_prefix.clone()), limit: Some(2), with_quarantined: true, ..Selection::default() };
    let mut found = list(zoo, &selection)?;
    match (found.len(), found.pop()) {
        (1, Some(view)) => Ok(view),
        (0, _) => Err(Error::NoCheckpoint { zoo: zoo.to_owned(), digest: digest_prefix }),
        _ => {
            let expected = "the beginning of one digest alone".to_owned();
            Err(Error::Range { what: "the digest", expected, got: format!("`{digest_prefix}`, which several share") })
        }
    }
}
