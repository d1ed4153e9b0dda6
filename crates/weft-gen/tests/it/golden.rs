//! Losses of the first 20 training steps at a fixed seed, a line a step, against `goldens/loss/`.
//!
//! After a change that is meant to change them, the new lines are those that the failing test prints.

use crate::hyper::{config, trainer};
use crate::support::{flow_trainer, refiner_config, refiner_trainer, task_set, trained_set};
use std::path::Path;
use weft_core::Monitor;
use weft_gen::{RefinerConfig, Trainer as _};

/// Vector widths differ between machines, and with them the order of sums.
const TOLERANCE: f64 = 1e-4;

fn check(file: &str, losses: &[f64]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../goldens/loss").join(file);
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let expected: Vec<f64> = golden.lines().filter_map(|line| line.parse().ok()).collect();
    let lines: Vec<String> = losses.iter().map(|loss| format!("{loss:.7}")).collect();
    let agree = expected.len() == losses.len() && losses.iter().zip(&expected).all(|(l, e)| (l / e - 1.0).abs() < TOLERANCE);
    assert!(agree, "losses differ from goldens/loss/{file}; they are\n{}", lines.join("\n"));
}

#[test]
fn flow() {
    let mut trainer = flow_trainer();
    let losses: Vec<f64> = (1..=20).map(|step| trainer.advance(step, &Monitor::silent()).expect("a plain run")).collect();
    check("flow.txt", &losses);
}

#[test]
fn refiner() {
    let config = RefinerConfig { hinge: true, shell: 0.5, repulsion: 0.2, own_data: true, ..refiner_config() };
    let mut trainer = refiner_trainer(config, &trained_set(Some(22)));
    let losses: Vec<f64> = (1..=20).map(|step| trainer.advance(step, &Monitor::silent()).expect("a plain run")).collect();
    check("refiner.txt", &losses);
}

#[test]
fn hyper_decoder() {
    let mut trainer = trainer(config(), &task_set()).expect("settings in range");
    let losses: Vec<f64> = (1..=20).map(|step| trainer.advance(step, &Monitor::silent()).expect("a plain run")).collect();
    check("hyper.txt", &losses);
}
