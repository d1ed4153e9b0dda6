//! What this machine reaches, stage by stage: what `weft bench` prints.
//!
//! Sizes are those of the head-to-heads. Weights are drawn at random where their values do not matter; training is
//! measured on MNIST where [`data_folder`](crate::config::data_folder) has it, else on images as sparse. Measure
//! on an idle machine.

mod limits;
mod networks;
mod peer;
mod products;
mod sampling;
mod stages;

use crate::Result;
use crate::config::DeviceConfig;
use serde::Serialize;
use std::time::Instant;
use weft_core::Monitor;

/// What to measure.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// Where, on one device; on a GPU, what it is for is measured alone.
    pub device: DeviceConfig,
    /// Problems of about a tenth of the size.
    pub quick: bool,
    /// Also the PyTorch loops in `bench/`.
    pub peer: bool,
}

impl Options {
    /// A size, or its tenth.
    fn size(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }
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
    /// On what, and what it means for a whole job.
    pub note: String,
}

impl Figure {
    fn new(name: &str, value: f64, unit: &'static str, note: impl Into<String>) -> Self {
        Self { name: name.to_owned(), value, unit, note: note.into() }
    }
}

/// One group of figures.
type Measurement = fn(&stages::Bench) -> Result<Vec<Figure>>;

/// Measures everything, one thing after the other.
///
/// # Errors
/// Several devices, a stage that fails, a peer that cannot be run, or a stop.
pub fn run(options: &Options, monitor: &Monitor) -> Result<Vec<Figure>> {
    let bench = stages::Bench::new(options.clone())?;
    let mut measurements: Vec<Measurement> = vec![networks::steps, stages::train, sampling::sample];
    if bench.device.is_cpu() {
        measurements.insert(0, limits::machine);
        measurements.extend([stages::canonicalize as Measurement, stages::flow_memory]);
    }
    // A GPU's share in these is what comes and goes through the host's memory.
    measurements.extend([products::pca as Measurement, products::matching]);
    if bench.device.is_cpu() {
        measurements.extend([products::distances as Measurement, stages::catalogue]);
    }
    if options.peer {
        measurements.extend([networks::beside_pytorch as Measurement, sampling::beside_pytorch]);
        if bench.device.is_cpu() {
            measurements.push(peer::populations);
        }
    }
    monitor.start("bench", measurements.len() as u64, "measurements");
    let mut figures = Vec::new();
    for (i, measure) in measurements.iter().enumerate() {
        if monitor.should_stop() {
            return Err(crate::Error::Interrupted { stage: "bench" });
        }
        figures.extend(measure(&bench)?);
        monitor.progress(i as u64 + 1);
    }
    monitor.finish();
    Ok(figures)
}

/// The seconds that some work takes.
fn secs<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let since = Instant::now();
    let done = work()?;
    Ok((since.elapsed().as_secs_f64(), done))
}
