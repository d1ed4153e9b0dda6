//! What may be set in an evaluation. The defaults are those of every published table.

use crate::{Error, Result};
use weft_core::Seed;

/// Settings of an evaluation; everything here is fixed before anything is sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Multiples of `d₁` and `f₁` for the curves.
    pub thresholds: Vec<f64>,
    /// Multiples of the leave-one-out units over all snapshots, for the second set of curves.
    pub snapshot_thresholds: Vec<f64>,
    /// Fixed accuracy bars beside the training runs' median and 25th percentile.
    pub fixed_bars: Vec<f64>,
    /// Most training snapshots whose nearest neighbor is sought for the leave-one-out units.
    pub max_snapshot_queries: usize,
    /// Most validation examples on which functional distance is taken: the first ones.
    pub max_functional_examples: usize,
    /// Most pairs of networks for pairwise distances and disagreement.
    pub max_pairs: usize,
    /// Training networks whose random orbit copies are checked to measure 0.
    pub num_orbit_checks: usize,
    /// Most training examples on which dead inputs, dead units and the data's second moment are taken: the first ones.
    pub max_train_examples: usize,
    /// Seeds the subsamples.
    pub seed: Seed,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            thresholds: vec![0.25, 0.5, 0.75, 1.0, 1.5],
            snapshot_thresholds: vec![1.0, 2.0, 4.0, 6.0],
            fixed_bars: vec![],
            max_snapshot_queries: 1000,
            max_functional_examples: 500,
            max_pairs: 2000,
            num_orbit_checks: 16,
            max_train_examples: usize::MAX,
            seed: Seed::new(0).fork("evaluate"),
        }
    }
}

impl Options {
    /// Checks every option's range.
    pub(crate) fn check(&self) -> Result<()> {
        let positive = |values: &[f64]| values.iter().all(|v| v.is_finite() && *v > 0.0);
        let range =
            |option, expected, ok: bool, got: String| if ok { Ok(()) } else { Err(Error::Option { option, expected, got }) };
        range("thresholds", "positive numbers", positive(&self.thresholds), format!("{:?}", self.thresholds))?;
        range(
            "snapshot-thresholds",
            "positive numbers",
            positive(&self.snapshot_thresholds),
            format!("{:?}", self.snapshot_thresholds),
        )?;
        let fractions = self.fixed_bars.iter().all(|b| (0.0..=1.0).contains(b));
        range("fixed-bars", "in [0, 1]", fractions, format!("{:?}", self.fixed_bars))?;
        for (option, value) in [
            ("max-snapshot-queries", self.max_snapshot_queries),
            ("max-functional-examples", self.max_functional_examples),
            ("max-pairs", self.max_pairs),
            ("max-train-examples", self.max_train_examples),
        ] {
            range(option, "at least 1", value > 0, value.to_string())?;
        }
        Ok(())
    }
}

/// What a generator cost, as its caller measured it; absent where it makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Costs {
    /// Seconds to sample one network, amortized over a batch.
    pub sample_secs: Option<f64>,
    /// Seconds to fit the generator (and refiner).
    pub fit_secs: Option<f64>,
    /// Floating-point operations of one sample over those of one training run.
    pub sample_run_equivalents: Option<f64>,
    /// Floating-point operations of fitting over those of one training run.
    pub fit_run_equivalents: Option<f64>,
}
