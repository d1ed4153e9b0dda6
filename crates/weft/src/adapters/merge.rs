//! Several adapters into one.

use super::zoo::AdapterZoo;
use crate::{Monitor, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
pub use weft_codec::adapter::merge::{MergeConfig, Method};
use weft_codec::adapter::{AdapterSet, Adapters, Lost};
use weft_zoo::adapter::{AdapterExport, AdapterProfile, AdapterProvenance};

/// What to merge, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeRequest {
    /// Folders of PEFT; of a folder of such folders, all of them.
    pub adapters: Vec<PathBuf>,
    /// The method.
    pub method: Method,
    /// A weight for each, all alike if there are none.
    pub weights: Option<Vec<f64>>,
    /// The result's rank; the largest of the inputs' if it is not said.
    pub rank: Option<usize>,
    /// The seed of what is random.
    pub seed: u64,
    /// The folder to write.
    pub output: PathBuf,
}

/// What a command wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenView {
    /// The folder of each adapter.
    pub written: Vec<PathBuf>,
    /// Their rank.
    pub rank: usize,
    /// The part of each one's energy `‖ΔW‖²` that truncation to the rank lost.
    pub lost: Vec<f64>,
    /// What a user should know.
    pub notes: Vec<String>,
}

/// Merges adapters and writes the result as a folder of PEFT that every runtime takes.
///
/// # Errors
/// As [`AdapterZoo::open`] and [`weft_codec::adapter::merge::merge`], or a folder that is there already.
pub fn merge(request: &MergeRequest, monitor: &Monitor) -> Result<WrittenView> {
    weft_zoo::refuse_existing(&request.output)?;
    let zoo = match request.adapters.as_slice() {
        [one] if !one.join("adapter_config.json").is_file() => AdapterZoo::open(one, monitor)?,
        paths => AdapterZoo::of(paths, monitor)?,
    };
    let rank = request.rank.unwrap_or_else(|| zoo.max_rank().max(1));
    let config = MergeConfig {
        method: request.method,
        weights: request.weights.clone(),
        rank,
        scaling: 1.0,
        seed: weft_core::Seed::new(request.seed).fork("merge"),
    };
    let passes = if matches!(request.method, Method::Slerp { .. }) { 2 } else { 1 };
    let merged = weft_codec::adapter::merge::merge(&zoo.watched("merge adapters", passes, monitor), &config)?;
    monitor.finish();
    let names: Vec<&str> = zoo.names().collect();
    let mut configuration = format!("weft adapter merge {} --method {} --rank {rank}", names.join(" "), request.method.name());
    configuration.push_str(&settings(request));
    let synthetic = false;
    let mut notes = zoo.notes().to_vec();
    if !request.method.is_gauge_free() {
        notes.push(format!(
            "`{}` adds factors: the result depends on which of many equal ones the inputs have",
            request.method.name()
        ));
    }
    let outputs = [request.output.clone()];
    let view = write((&zoo, &merged.adapters, &merged.lost), (&configuration, synthetic), &outputs)?;
    notes.extend(view.notes);
    Ok(WrittenView { notes, ..view })
}

/// The settings of a request, as its command has them.
fn settings(request: &MergeRequest) -> String {
    let mut text = match request.method {
        Method::Mean | Method::Linear => String::new(),
        Method::TaskArithmetic { scale } | Method::Knots { density: None, scale } => format!(" --scale {scale}"),
        Method::Ties { density, scale } | Method::Knots { density: Some(density), scale } => {
            format!(" --density {density} --scale {scale}")
        }
        Method::DareLinear { density, scale } | Method::DareTies { density, scale } => {
            format!(" --density {density} --scale {scale} --seed {}", request.seed)
        }
        Method::Slerp { t } => format!(" --t {t}"),
    };
    if let Some(weights) = &request.weights {
        let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
        text.push_str(" --weights ");
        text.push_str(&weights.join(","));
    }
    text
}

/// Writes adapters that were made of others: one as the folder, several as folders in it; all of them or none.
pub(super) fn write_each(
    of: (&AdapterZoo, &AdapterSet, &[Lost]),
    (configuration, synthetic): (&str, bool),
    output: &Path,
) -> Result<WrittenView> {
    if of.2.len() == 1 {
        return write(of, (configuration, synthetic), &[output.to_owned()]);
    }
    let names: Vec<String> = (0..of.2.len()).map(|i| format!("{i:04}")).collect();
    let view = weft_zoo::write_folder(output, |folder| {
        let outputs: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
        write(of, (configuration, synthetic), &outputs)
    })?;
    Ok(WrittenView { written: names.iter().map(|name| output.join(name)).collect(), ..view })
}

/// Writes adapters that were made of others, one a folder.
fn write(
    (zoo, made, lost): (&AdapterZoo, &AdapterSet, &[Lost]),
    (configuration, synthetic): (&str, bool),
    outputs: &[PathBuf],
) -> Result<WrittenView> {
    let provenance =
        AdapterProvenance { parents: zoo.parents(), configuration: configuration.to_owned(), synthetic, tags: Vec::new() };
    let export = AdapterExport::new(AdapterProfile::Portable, &provenance);
    let mut notes = Vec::new();
    for (i, output) in outputs.iter().enumerate() {
        for note in zoo.weights_of(made, i).write(&export, output)? {
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
    }
    let rank = made.modules().first().map_or(0, |_| made.adapter(0)[0].rank);
    Ok(WrittenView { written: outputs.to_vec(), rank, lost: lost.iter().map(|lost| lost.fraction()).collect(), notes })
}
