//! Small networks and their records, for the tests of this crate.

use std::collections::BTreeMap;
use std::sync::Arc;
use weft_core::{
    Activation, Architecture, Duration, Optimizer, Population, Precision, Provenance, Recipe, Record, Schedule, Seed, Split,
};

/// A network of 23 weights.
pub(crate) fn architecture() -> Arc<Architecture> {
    Arc::new(Architecture::mlp("tiny", &[4, 3, 2], Activation::Relu).unwrap())
}

/// Runs of `snapshots` checkpoints each, every fourth in the test split; `first` is the number of the first run.
pub(crate) fn runs(first: u64, count: u64, snapshots: u64) -> (Population, Vec<Record>) {
    let architecture = architecture();
    let n = (count * snapshots) as usize;
    let mut data = Vec::new();
    for run in first..first + count {
        data.extend(Seed::new(run).normals(snapshots as usize * architecture.num_parameters()));
    }
    let population = Population::new(architecture, data).unwrap();
    let record = |i: usize| {
        let (run, step) = (first + i as u64 / snapshots, i as u64 % snapshots + 1);
        Record {
            step: Some(10 * step),
            is_final: step == snapshots,
            split: Some(if run % 4 == 3 { Split::Test } else { Split::Train }),
            recipe: Some(recipe(10 * snapshots)),
            metrics: BTreeMap::from([("validation-accuracy".to_owned(), 1.0 / (2 + i) as f64), ("train-secs".to_owned(), 0.25)]),
            provenance: Provenance {
                source: format!("test {i}"),
                licence: "MIT".to_owned(),
                parents: vec![weft_core::Digest::of_bytes(b"parent")],
                synthetic: i % 2 == 1,
                ..Provenance::default()
            },
            labels: BTreeMap::from([("phrase".to_owned(), format!("hey {}", run % 5))]),
            ..Record::new(population.digest(i), format!("run-{run}"))
        }
    };
    let records = (0..n).map(record).collect();
    (population, records)
}

fn recipe(steps: u64) -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAMW,
        learning_rate: 1e-3,
        schedule: Schedule::Cosine { warmup_steps: 3 },
        weight_decay: 0.1,
        batch_size: 8,
        duration: Duration::Steps(steps),
        snapshot_steps: vec![10],
        precision: Precision::Single,
    }
}
