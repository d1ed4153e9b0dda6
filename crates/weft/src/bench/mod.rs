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

use crate::config::DeviceConfig;
use crate::{Error, Result};
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
    /// Groups of measurements, by name ([`GROUPS`]); none are all that the device is for.
    pub only: Vec<String>,
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

/// One measurement of a group.
type Measurement = fn(&stages::Bench) -> Result<Vec<Figure>>;

/// What a measurement is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// Any device: on a GPU, products are what comes and goes through the host's memory.
    Any,
    /// The processor alone.
    Cpu,
    /// Any device, beside PyTorch.
    Peer,
    /// The processor, beside PyTorch.
    CpuPeer,
}

/// All of them, in their order, each with its group.
const MEASUREMENTS: [(&str, Of, Measurement); 13] = [
    ("machine", Of::Cpu, limits::machine),
    ("networks", Of::Any, networks::steps),
    ("train", Of::Any, stages::train),
    ("sample", Of::Any, sampling::sample),
    ("canonicalize", Of::Cpu, stages::canonicalize),
    ("memory", Of::Cpu, stages::flow_memory),
    ("pca", Of::Any, products::pca),
    ("matching", Of::Any, products::matching),
    ("distances", Of::Cpu, products::distances),
    ("catalogue", Of::Cpu, stages::catalogue),
    ("networks", Of::Peer, networks::beside_pytorch),
    ("sample", Of::Peer, sampling::beside_pytorch),
    ("train", Of::CpuPeer, peer::populations),
];

/// Names of the groups of measurements, in the order in which they are measured.
pub const GROUPS: [&str; 10] =
    ["machine", "networks", "train", "sample", "canonicalize", "memory", "pca", "matching", "distances", "catalogue"];

impl Options {
    /// What is measured.
    fn chosen(&self, on_cpu: bool) -> Result<Vec<Measurement>> {
        if let Some(name) = self.only.iter().find(|name| !GROUPS.contains(&name.as_str())) {
            return Err(Error::Range { what: "what is measured", expected: GROUPS.join(", "), got: format!("`{name}`") });
        }
        let asked = |name: &str| self.only.is_empty() || self.only.iter().any(|only| only == name);
        let of_device = |of: Of| match of {
            Of::Any => true,
            Of::Cpu => on_cpu,
            Of::Peer => self.peer,
            Of::CpuPeer => self.peer && on_cpu,
        };
        let chosen: Vec<Measurement> =
            MEASUREMENTS.iter().filter(|(name, of, _)| asked(name) && of_device(*of)).map(|(.., measure)| *measure).collect();
        if chosen.is_empty() {
            let expected = "something that a GPU is for: networks, train, sample, pca, matching".to_owned();
            return Err(Error::Range { what: "what is measured", expected, got: self.only.join(", ") });
        }
        Ok(chosen)
    }
}

/// Measures everything that is asked for, one thing after the other.
///
/// # Errors
/// Several devices, a group that is none of [`GROUPS`], a stage that fails, a peer that cannot be run, or a stop.
pub fn run(options: &Options, monitor: &Monitor) -> Result<Vec<Figure>> {
    let bench = stages::Bench::new(options.clone())?;
    let measurements = options.chosen(bench.device.is_cpu())?;
    monitor.start("bench", measurements.len() as u64, "measurements");
    let mut figures = Vec::new();
    for (i, measure) in measurements.iter().enumerate() {
        if monitor.should_stop() {
            return Err(Error::Interrupted { stage: "bench" });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_chosen_by_name() {
        let count = |only: &[&str], peer: bool, on_cpu: bool| {
            let only = only.iter().map(|name| (*name).to_owned()).collect();
            Options { peer, only, ..Options::default() }.chosen(on_cpu).map(|chosen| chosen.len())
        };
        assert_eq!((count(&[], false, true).unwrap(), count(&[], true, true).unwrap()), (10, 13));
        assert_eq!((count(&[], false, false).unwrap(), count(&[], true, false).unwrap()), (5, 7));
        assert_eq!((count(&["sample"], true, true).unwrap(), count(&["sample", "train"], true, true).unwrap()), (2, 4));
        let message = count(&["sampling"], false, true).unwrap_err().to_string();
        assert!(message.contains("`sampling`") && message.contains("catalogue"), "{message}");
        assert!(count(&["catalogue"], false, false).unwrap_err().to_string().contains("GPU"));
        // Each group has a measurement, and each measurement a group.
        assert!(GROUPS.iter().all(|group| MEASUREMENTS.iter().any(|(name, ..)| name == group)));
        assert!(MEASUREMENTS.iter().all(|(name, ..)| GROUPS.contains(name)));
    }
}
