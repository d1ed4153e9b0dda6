//! The figures that an evaluation ends in: plain data, serialized as they are into `report.json`.
//!
//! Distances are in units of `d₁` and functional distances in units of `f₁` (see [`Units`]), accuracies are
//! fractions in `[0, 1]`, times are seconds unless the name says otherwise.

use serde::{Deserialize, Serialize};

/// A figure with its standard error: the larger of between-seed and within-seed (for fractions, binomial).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean over seeds.
    pub mean: f64,
    /// Its standard error.
    pub se: f64,
}

/// The yardsticks, from held-out runs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Units {
    /// Median quotient distance from a held-out run's last network to its nearest training network (any snapshot).
    pub d1: f64,
    /// The same for the functional distance: RMS difference of centred logits on validation inputs.
    pub f1: f64,
    /// The same for the data-weighted distance, taken to the network that is nearest by plain distance. None for networks whose
    /// inputs are not read by linear maps alone, such as convolutional ones.
    pub d1_weighted: Option<f64>,
    /// Median leave-one-out distance over all training snapshots, the same run's included (the audit's unit).
    pub d1_snapshots: f64,
    /// The same for the functional distance.
    pub f1_snapshots: f64,
    /// Accuracy bar: the median test accuracy of the training runs' final networks.
    pub bar_median: f64,
    /// Accuracy bar: its 25th percentile.
    pub bar_quartile: f64,
    /// Mean test accuracy of the training runs' final networks.
    pub zoo_mean: f64,
    /// Its standard deviation over networks.
    pub zoo_std: f64,
    /// Largest distance of random orbit copies of training networks to their nearest training network, over `d₁`.
    pub orbit_check: f64,
    /// Whether distances are exact (one hidden space) or upper bounds (several).
    pub exact: bool,
    /// Median pairwise distance of the training runs' final networks, over `d₁`.
    pub pairwise: f64,
    /// Their median pairwise functional distance, over `f₁`.
    pub pairwise_functional: f64,
    /// Their mean pairwise disagreement: the fraction of test images to which two networks give different classes.
    pub disagreement: f64,
    /// Training networks, all snapshots.
    pub num_train: usize,
    /// Training runs; the number of fellows that a sample is compared with.
    pub num_train_runs: usize,
    /// Held-out runs.
    pub num_held_out: usize,
    /// Inputs that do not vary over the training images, projected out of every distance.
    pub num_dead_inputs: usize,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RowKind {
    /// Training or held-out runs: the yardstick.
    Runs,
    /// A copy with a change that the data cannot see: must score about 0.
    NullCopy,
    /// A trivial generator.
    #[default]
    Baseline,
    /// A trained generator of ours.
    Generator,
    /// A generator followed by the refiner.
    Refined,
}

/// The curves of one accuracy bar over a list of thresholds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ThresholdCurve {
    /// Name of the accuracy bar: `median`, `quartile`, or a fixed number such as `0.85`.
    pub bar: String,
    /// The bar itself.
    pub accuracy: f64,
    /// Fraction novel (weights and function), performant and distinct.
    pub npd: Vec<Estimate>,
    /// Fraction novel (weights alone) and performant, as the audit of H2 has it.
    pub np: Vec<Estimate>,
}

/// All figures of one generator.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// The generator's name.
    pub name: String,
    /// What it is.
    pub kind: RowKind,
    /// Generator seeds.
    pub num_seeds: usize,
    /// Samples a seed.
    pub num_samples: usize,
    /// Samples with weights or logits that are not finite (or weights beyond 10⁹), over all seeds: they count as neither performant nor novel.
    pub num_invalid: usize,
    /// Mean test accuracy.
    pub accuracy: Estimate,
    /// Standard deviation of the accuracy over samples.
    pub accuracy_std: f64,
    /// Median distance to the nearest training network, over `d₁`.
    pub distance: Estimate,
    /// Its quartiles over all samples.
    pub distance_quartiles: [f64; 2],
    /// Median functional distance to the nearest training network, over `f₁`.
    pub functional: Estimate,
    /// Median data-weighted distance, over its own unit; none where that is.
    pub distance_weighted: Option<Estimate>,
    /// Median distance to the nearest fellow sample, over `d₁`.
    pub fellow_distance: Estimate,
    /// Median pairwise distance of samples over that of the training runs' final networks.
    pub pairwise: Estimate,
    /// The same ratio for functional distance.
    pub pairwise_functional: Estimate,
    /// Mean pairwise disagreement of predicted classes over that of the zoo.
    pub disagreement: Estimate,
    /// Mean over samples of the largest intersection over union of misclassified test sets with a training network.
    pub max_iou: Estimate,
    /// Accuracy of the vote of 16 samples less their mean accuracy.
    pub vote_gain: Estimate,
    /// NPD and N&P curves over [`Evaluation::thresholds`] in units of `d₁` and `f₁`, one a bar.
    pub curves: Vec<ThresholdCurve>,
    /// The same over [`Evaluation::snapshot_thresholds`] in the audit's units [`Units::d1_snapshots`] and
    /// [`Units::f1_snapshots`], one a bar.
    pub snapshot_curves: Vec<ThresholdCurve>,
    /// Seconds to sample one network (amortized over a batch of `num_samples`); none for runs.
    pub sample_secs: Option<f64>,
    /// Seconds to fit the generator (and refiner); none for runs.
    pub fit_secs: Option<f64>,
    /// Cost of one sample in training-run equivalents (floating-point operations); none for runs.
    pub sample_run_equivalents: Option<f64>,
    /// Cost of fitting in training-run equivalents; none for runs.
    pub fit_run_equivalents: Option<f64>,
    /// Distance and accuracy of up to 256 samples `(distance / d₁, accuracy)`, for the scatter plot.
    pub points: Vec<(f64, f64)>,
}

/// What the best of ours is at one threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// Beats every baseline without refiner by more than two standard errors of the difference.
    Novel,
    /// Within two standard errors of the best baseline, and not near zero.
    Matched,
    /// Below the best baseline, or near zero: it replays or fails.
    Replay,
}

/// The verdict at one threshold and bar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The threshold, in units of `d₁` and `f₁`.
    pub threshold: f64,
    /// Name of the accuracy bar.
    pub bar: String,
    /// The finding.
    pub finding: Finding,
    /// Name of the best of our generators there.
    pub ours: String,
    /// Its NPD.
    pub ours_npd: Estimate,
    /// Name of the best baseline without refiner.
    pub baseline: String,
    /// Its NPD.
    pub baseline_npd: Estimate,
    /// NPD of held-out runs.
    pub held_out_npd: Estimate,
}

/// One count of fresh-run parity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// Name of the generator.
    pub generator: String,
    /// What is compared, such as `accuracy` or `median distance / d1`.
    pub count: String,
    /// The value reached.
    pub value: f64,
    /// The value asked for.
    pub target: f64,
    /// Whether it is reached.
    pub met: bool,
}

/// Everything that one evaluation found.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Evaluation {
    /// Multiples of `d₁` and `f₁` at which the curves are taken.
    pub thresholds: Vec<f64>,
    /// Multiples of the audit's units at which the second set of curves is taken.
    pub snapshot_thresholds: Vec<f64>,
    /// The yardsticks.
    pub units: Units,
    /// One row a generator; held-out runs first, training runs second.
    pub rows: Vec<Row>,
    /// One verdict a threshold and bar.
    pub verdicts: Vec<Verdict>,
    /// Fresh-run parity of our generators.
    pub parity: Vec<Parity>,
}
