//! What this machine reaches, stage by stage: what `weft bench` prints.

use crate::Result;
use serde::Serialize;
use weft_core::Monitor;

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Smaller problems.
    pub quick: bool,
    /// Also the other system's loops.
    pub peer: bool,
}

/// One measured figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// The figure.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// On what, and against what.
    pub note: String,
}

/// Measures.
///
/// # Errors
/// A stage that fails, or a stop.
pub fn run(_options: &Options, _monitor: &Monitor) -> Result<Vec<Figure>> {
    Ok(Vec::new())
}
