//! The networks of a zoo that lie nearest to a file's, in the quotient.

use crate::{Error, Result};
use serde::Serialize;
use std::path::Path;
use weft_canon::Group;
use weft_canon::distance::{Quotient, QuotientOptions};
use weft_core::{Architecture, Monitor};
use weft_zoo::{Binding, Filter, Purpose, Zoo};

/// Networks that are compared at a time.
const CHUNK: usize = 64;

/// A network of the zoo and its distance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Near {
    /// Its digest.
    pub digest: String,
    /// Its run.
    pub run: String,
    /// Distance in the quotient, in units of weights; an upper bound where spaces are coupled.
    pub distance: f64,
    /// The same over the norm of the file's network.
    pub relative: f64,
}

/// Lists the `count` networks that are nearest to the first one of a file, nearest first.
///
/// Continuous symmetries are fixed in both, units matched; outputs are not centered.
///
/// # Errors
/// The folder is no zoo, or the file holds no network of its architecture.
pub fn nearest(zoo: &Path, file: &Path, count: usize, monitor: &Monitor) -> Result<Vec<Near>> {
    let zoo = Zoo::open(zoo)?;
    let architecture = zoo.architecture().clone();
    let query = read(file, &architecture)?;
    let group = Group::derive(architecture);
    let quotient = Quotient::new(&group, QuotientOptions { center_outputs: false, ..QuotientOptions::default() })?;
    let entries = zoo.records(&Filter::default())?;
    let mut found = Vec::with_capacity(entries.len());
    monitor.start("nearest", entries.len() as u64, "networks");
    for chunk in entries.chunks(CHUNK) {
        if monitor.should_stop() {
            return Err(Error::Interrupted { stage: "nearest" });
        }
        let networks = zoo.load(chunk, Purpose::Evaluate)?;
        let prepared = quotient.prepare(&[&query, networks.data()].concat(), None)?;
        let pairs: Vec<(usize, usize)> = (1..=chunk.len()).map(|i| (0, i)).collect();
        for (entry, distance) in chunk.iter().zip(quotient.pairwise(&prepared, &pairs)) {
            let record = entry.record();
            let relative = distance / prepared.norm(0).max(f64::MIN_POSITIVE);
            found.push(Near { digest: record.digest.to_string(), run: record.run.clone(), distance, relative });
        }
        monitor.progress(found.len() as u64);
    }
    monitor.finish();
    found.sort_by(|a, b| a.distance.total_cmp(&b.distance));
    found.truncate(count);
    Ok(found)
}

fn read(file: &Path, architecture: &Architecture) -> Result<Vec<f32>> {
    if weft_zoo::is_onnx(file) {
        let network = weft_zoo::onnx::read_onnx(file)?;
        if !network.architecture.same_graph(architecture) {
            let (what, other) = (format!("the network of `{}`", file.display()), "those of the zoo".to_owned());
            return Err(Error::Misfit { what, other, reason: format!("its graph is `{}`", network.architecture.name()) });
        }
        return Ok(network.weights());
    }
    let sources = weft_zoo::open_sources(file)?;
    let source = sources.first().ok_or_else(|| Error::NothingToImport { paths: vec![file.to_owned()] })?;
    Ok(Binding::find(source, architecture)?.bind(source, architecture)?)
}
