//! What the report page shows: plain data, serialized as it is into `report.json`.
//!
//! Accuracies are fractions in `[0, 1]`, times are seconds, sizes are bytes; distances say their unit. A part that
//! a run did not produce is `None` or empty, and the page leaves its section out.

pub use super::best::{BestOf, BestOfRow, PredictorFacts};
pub use super::few::{FewComparison, FewExamples, FewPoint, FewWay};
pub use crate::structure::{InterpolationPath, ZooStructure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
pub use weft_eval::conditional::{Comparison, ConditionVerdict, TaskEvaluation, TaskRow, TaskRowKind};
pub use weft_eval::recipes::{RecipeEvaluation, RecipeRow};
pub use weft_eval::textures::{TextureEvaluation, TextureRow, TextureUnits};
pub use weft_eval::{Estimate, Evaluation, Finding, Parity, Row, RowKind, ThresholdCurve, Units, Verdict};

/// Everything that the page shows.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The page's title, such as the run's name.
    pub title: String,
    /// The zoo that was learned from.
    pub zoo: ZooFacts,
    /// What was found: rows, verdicts, parity.
    pub evaluation: Evaluation,
    /// What was found of tasks that were held out, where networks have tasks of their own; `evaluation` is empty then.
    pub tasks: Option<TaskReport>,
    /// How samples follow recipes that were held out, where networks were trained by many.
    pub recipes: Option<RecipeEvaluation>,
    /// What sampled texture automata grow, where networks are that; `evaluation` is empty then.
    pub textures: Option<TextureReport>,
    /// Sampled networks' first-layer weights beside their nearest training networks'.
    pub filters: Vec<FilterPair>,
    /// What alignment changed.
    pub canonicalization: Option<Canonicalization>,
    /// The structure that the method bets on.
    pub structure: Option<ZooStructure>,
    /// What the codec keeps.
    pub codec: Option<CodecFigures>,
    /// Loss curves of the generators and refiners.
    pub training: Vec<TrainingCurve>,
    /// The refiner's settings compared.
    pub ablation: Vec<AblationRow>,
    /// Time and memory.
    pub costs: Costs,
    /// Time of each stage.
    pub stages: Vec<StageTime>,
    /// How to make the same figures again.
    pub provenance: Provenance,
}

/// The zoo, in the words and numbers that a reader needs.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ZooFacts {
    /// The zoo's name.
    pub name: String,
    /// The architecture in short, such as `784-32-32-10, relu`.
    pub architecture: String,
    /// Parameters of one network.
    pub num_parameters: usize,
    /// Training runs that stages 2 to 4 may read.
    pub num_train_runs: usize,
    /// Runs held out as the yardstick.
    pub num_test_runs: usize,
    /// Checkpoints of all runs.
    pub num_checkpoints: usize,
    /// The data set's name.
    pub dataset: String,
    /// Test examples, read by the evaluation alone.
    pub num_test_examples: usize,
    /// Validation examples, on which metrics, barriers and functional distances are measured.
    pub num_validation_examples: usize,
    /// How the runs were trained, in one line.
    pub recipe: String,
    /// Licences of the zoo and its data, SPDX.
    pub licence: String,
}

/// A quantity before and after canonicalization.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct BeforeAfter {
    /// On raw weights.
    pub before: Estimate,
    /// On canonical weights.
    pub after: Estimate,
}

/// What canonicalization did.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Canonicalization {
    /// The symmetry group in words, as derived from the graph.
    pub group: String,
    /// Networks that were canonicalized.
    pub num_networks: usize,
    /// Mean distance to the anchor, in weights.
    pub distance: BeforeAfter,
    /// Loss barrier on the path between two networks, validation, in nats; not measured between networks of different tasks.
    pub barrier: Option<BeforeAfter>,
    /// Interpolation between pairs of raw networks; empty if it was not measured.
    pub path_before: InterpolationPath,
    /// Interpolation between the same pairs, canonical.
    pub path_after: InterpolationPath,
    /// Networks with a unit whose scale or order is not well determined (dead or tied units).
    pub num_ill_conditioned: usize,
    /// Largest change of an output, relative to the network's largest output, over all networks, validation examples and random
    /// inputs.
    pub max_function_deviation: f64,
    /// Networks whose change was measured in `f64`, because `f32` rounds by more than is allowed.
    pub num_proven_in_f64: usize,
    /// Mean distance to the estimated mean, an entry an iteration of its re-estimation.
    pub mean_history: Vec<f64>,
}

/// What the codec keeps of canonical weights.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CodecFigures {
    /// `pca` or `identity`.
    pub kind: String,
    /// The rank in use: numbers in one code.
    pub rank: usize,
    /// Weights that a code stands for.
    pub num_parameters: usize,
    /// Fraction of the training rows' variance that the rank keeps.
    pub kept_variance: f64,
    /// Variance of each principal component, decreasing; it may stop before the last.
    pub spectrum: Vec<f64>,
    /// Variance of all components, also those that `spectrum` leaves out.
    pub total_variance: f64,
    /// Error and accuracy against rank, in increasing rank.
    pub ranks: Vec<RankFigures>,
    /// Validation accuracy of the fitted networks before encoding: what the decoded ones should reach.
    pub accuracy_before: f64,
}

/// The codec cut to one rank.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RankFigures {
    /// The rank.
    pub rank: usize,
    /// `‖decode(encode(W)) − W‖² / ‖W − mean‖²` over networks that the codec was fitted on.
    pub error_fitted: f64,
    /// The same over networks that it was not fitted on.
    pub error_unseen: f64,
    /// Validation accuracy of decoded networks that the codec was fitted on.
    pub accuracy_fitted: Estimate,
    /// The same of networks that it was not fitted on.
    pub accuracy_unseen: Estimate,
}

/// One model's loss against its training step.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainingCurve {
    /// The model, such as `flow`.
    pub name: String,
    /// What the loss is, such as `velocity MSE`.
    pub loss: String,
    /// `(step, loss)`, in increasing step.
    pub points: Vec<(f64, f64)>,
}

/// The refiner under one choice of settings.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AblationRow {
    /// The settings in short, such as `μ = 0.003, own data`.
    pub settings: String,
    /// Whether the run used these settings.
    pub chosen: bool,
    /// Test accuracy.
    pub accuracy: Estimate,
    /// Median distance to the nearest training network, over `d₁`.
    pub distance: Estimate,
    /// Median functional distance, over `f₁`.
    pub functional: Estimate,
    /// Median pairwise distance over that of the training runs' final networks.
    pub pairwise: Estimate,
    /// Mean pairwise disagreement over that of the zoo.
    pub disagreement: Estimate,
    /// Cost of fitting, in training runs.
    pub run_equivalents: f64,
}

/// Time and memory on one machine; what was not measured is `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Costs {
    /// The machine and engine, in words.
    pub machine: String,
    /// Training of the whole zoo.
    pub zoo_secs: Option<f64>,
    /// Training of one run within the population.
    pub run_secs: Option<f64>,
    /// Fitting of codec, generator and refiner.
    pub fit_secs: Option<f64>,
    /// Sampling of one network, amortized over a batch.
    pub sample_secs: Option<f64>,
    /// Networks in that batch.
    pub sample_batch: usize,
    /// Time that SGD takes to the samples' accuracy, one run within a population of equal size.
    pub sgd_secs: Option<f64>,
    /// Peak memory of the whole run.
    pub peak_memory_bytes: Option<u64>,
}

/// A conditional evaluation with what it cost.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskReport {
    /// Rows, comparisons and verdicts.
    pub evaluation: TaskEvaluation,
    /// Times.
    pub costs: TaskCosts,
    /// What can be had from a few examples of each task, where that was measured.
    pub few_examples: Option<FewExamples>,
    /// What the best of n is worth, where that was measured.
    pub best_of: Option<BestOf>,
}

/// Times of a conditional evaluation, on one machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskCosts {
    /// Training of the whole zoo, if the run trained it.
    pub zoo_secs: Option<f64>,
    /// Canonical forms, the codec and what was trained, for each generator.
    pub fit_secs: BTreeMap<String, f64>,
    /// Training of one network for a task, within a population.
    pub train_secs: f64,
    /// Sampling of one network, for each generator.
    pub sample_secs: BTreeMap<String, f64>,
    /// How far networks trained for the held-out tasks are on their way: fractions of their steps, increasing, with the mean test accuracy there.
    pub progress: Vec<(f64, f64)>,
}

impl TaskCosts {
    /// The seconds of training that a network takes to an accuracy, on the mean over tasks; none if it is never seen to have it.
    #[must_use]
    pub fn secs_to(&self, accuracy: f64) -> Option<f64> {
        self.progress.iter().find(|(_, reached)| *reached >= accuracy).map(|(fraction, _)| fraction * self.train_secs)
    }

    /// After how many networks sampling has taken less time than so many seconds of training for each, fitting counted, and with `zoo` the
    /// zoo too; none if never.
    #[must_use]
    pub fn break_even(&self, generator: &str, train_secs: f64, zoo: bool) -> Option<f64> {
        let saved = train_secs - self.sample_secs.get(generator)?;
        let spent = self.fit_secs.get(generator)? + if zoo { self.zoo_secs? } else { 0.0 };
        (saved > 0.0).then(|| spent / saved)
    }
}

/// An evaluation of texture automata with its pictures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TextureReport {
    /// Yardsticks and rows.
    pub evaluation: TextureEvaluation,
    /// The first textures of each row.
    pub strips: Vec<TextureStrip>,
}

/// The first textures of one row.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TextureStrip {
    /// The row.
    pub name: String,
    /// What it is.
    pub kind: RowKind,
    /// Its textures.
    pub pairs: Vec<TexturePair>,
}

/// A sampled automaton's texture beside the training texture that is nearest to it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TexturePair {
    /// What was grown, as a `data:` address of a PNG.
    pub sampled: String,
    /// The nearest training texture, as the same.
    pub nearest: String,
    /// The run of that training automaton.
    pub nearest_name: String,
    /// Distance in weights to the nearest training automaton, over `d₁`.
    pub distance: f64,
    /// Distance of the two textures, over that of two training automata's.
    pub texture: f64,
    /// Whether it is flat.
    pub is_flat: bool,
    /// Whether it is alive.
    pub is_alive: bool,
    /// Whether it could be a copy.
    pub is_copy: bool,
}

/// First-layer weights of one sampled network and its nearest training network, unit by unit.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FilterPair {
    /// What is shown, such as `sample 3 of flow + refiner`.
    pub name: String,
    /// Width and height of an image; inputs that are no square image have no pairs.
    pub side: usize,
    /// Incoming weights of the sampled network's first units, each `side × side`, row by row.
    pub sampled: Vec<Vec<f32>>,
    /// The same of the nearest training network, its units matched to the sampled network's.
    pub nearest: Vec<Vec<f32>>,
    /// Distance between the two, over `d₁`.
    pub distance: f64,
    /// Test accuracy of the sampled network.
    pub accuracy: f64,
    /// Test accuracy of the training network.
    pub nearest_accuracy: f64,
}

/// One stage's time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StageTime {
    /// The stage's name.
    pub name: String,
    /// Its wall time.
    pub secs: f64,
    /// Whether an earlier run's output was used as it is; then `secs` is what that run took.
    pub reused: bool,
}

/// A named value, in words.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Fact {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What is needed to make the same figures again.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Provenance {
    /// Version of Weft.
    pub weft_version: String,
    /// Seeds by name.
    pub seeds: Vec<Fact>,
    /// Digests of the inputs and artifacts by name.
    pub digests: Vec<Fact>,
    /// The resolved config.
    pub config_toml: String,
}
