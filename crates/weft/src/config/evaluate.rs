//! `[baselines]`, `[evaluate]` and `[export]`.

use super::few::FewExamplesConfig;
use super::require;
use super::textures::TexturesConfig;
use serde::{Deserialize, Serialize};
use weft_gen::trivial::Trivial;

/// A trivial generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BaselineName {
    /// Training networks changed along directions that the data cannot see; must score about 0.
    NullCopies,
    /// Training networks with noise, at each of `noise-scales`.
    NoiseCopies,
    /// Independent normal weights with the training networks' means and deviations.
    WeightGaussian,
    /// Normal codes.
    PcaGaussian,
    /// A kernel density estimate on codes.
    Kde,
    /// Interpolation of two raw training networks.
    InterpolationRaw,
    /// Interpolation of two aligned training networks.
    InterpolationAligned,
    /// The mean of `soup-size` raw training networks.
    SoupRaw,
    /// The mean of `soup-size` aligned training networks.
    SoupAligned,
    /// The mean of all aligned training networks.
    Mean,
    /// A training network as it is.
    Nearest,
}

impl BaselineName {
    /// All of them: the rule that decides wants every one in every run.
    pub const ALL: [Self; 11] = [
        Self::NullCopies,
        Self::NoiseCopies,
        Self::WeightGaussian,
        Self::PcaGaussian,
        Self::Kde,
        Self::InterpolationRaw,
        Self::InterpolationAligned,
        Self::SoupRaw,
        Self::SoupAligned,
        Self::Mean,
        Self::Nearest,
    ];
}

impl BaselineName {
    /// The generators that the name stands for: none for null copies, which only an evaluation can make.
    pub(crate) fn to_trivial(self, config: &BaselinesConfig) -> Vec<Trivial> {
        let k = config.soup_size;
        match self {
            Self::NullCopies => Vec::new(),
            Self::NoiseCopies => config.noise_scales.iter().map(|&scale| Trivial::NoiseCopies { scale }).collect(),
            Self::WeightGaussian => vec![Trivial::WeightGaussian],
            Self::PcaGaussian => vec![Trivial::PcaGaussian],
            Self::Kde => vec![Trivial::Kde],
            Self::InterpolationRaw => vec![Trivial::InterpolationRaw],
            Self::InterpolationAligned => vec![Trivial::InterpolationAligned],
            Self::SoupRaw => vec![Trivial::SoupRaw { k }],
            Self::SoupAligned => vec![Trivial::SoupAligned { k }],
            Self::Mean => vec![Trivial::Mean],
            Self::Nearest => vec![Trivial::Nearest],
        }
    }
}

/// `[baselines]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BaselinesConfig {
    /// Which are run.
    pub generators: Vec<BaselineName>,
    /// Standard deviations of noise copies, in units of each tensor's own.
    pub noise_scales: Vec<f64>,
    /// Networks in a soup.
    pub soup_size: usize,
    /// The baselines that are also shown with our refiner behind them, if there is one.
    pub refined: Vec<BaselineName>,
}

impl Default for BaselinesConfig {
    fn default() -> Self {
        Self {
            generators: BaselineName::ALL.to_vec(),
            noise_scales: vec![0.1, 0.3, 1.0],
            soup_size: 16,
            refined: vec![BaselineName::InterpolationAligned, BaselineName::PcaGaussian],
        }
    }
}

/// `[evaluate]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct EvaluateConfig {
    /// Multiples of the distance units `d₁` and `f₁` at which novelty is judged.
    pub thresholds: Vec<f64>,
    /// Multiples of the leave-one-out units over all snapshots, in which the audit of H2 counts.
    pub snapshot_thresholds: Vec<f64>,
    /// Fixed accuracy bars beside the median and the lower quartile of the training runs.
    pub bars: Vec<f64>,
    /// Whether the refiner's parts are removed one by one to show what each buys.
    pub ablation: bool,
    /// Whether networks for tasks of which a few examples are known are held against training on these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub few_examples: Option<FewExamplesConfig>,
    /// Of how many of the run's samples for a held-out task each judge of [`BestBy`](super::BestBy) keeps one; `sample.count` is a multiple of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_of: Option<usize>,
    /// Whether texture automata of a run without `[data.…]` are grown and compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub textures: Option<TexturesConfig>,
}

impl Default for EvaluateConfig {
    fn default() -> Self {
        Self {
            thresholds: vec![0.25, 0.5, 0.75, 1.0, 1.5],
            snapshot_thresholds: vec![1.0, 2.0, 4.0, 6.0],
            bars: Vec::new(),
            ablation: false,
            few_examples: None,
            best_of: None,
            textures: None,
        }
    }
}

impl BaselinesConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let positive = self.noise_scales.iter().all(|s| *s > 0.0 && s.is_finite());
        require("baselines.noise-scales", "positive numbers", positive, format!("{:?}", self.noise_scales))?;
        require("baselines.soup-size", "1 or more", self.soup_size >= 1, self.soup_size)?;
        let refinable = !self.refined.contains(&BaselineName::NullCopies);
        require("baselines.refined", "without `null-copies`", refinable, "it")
    }
}

impl EvaluateConfig {
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let increasing = |t: &[f64]| t.windows(2).all(|w| w[0] < w[1]) && t.first().is_some_and(|&t| t > 0.0);
        for (key, multiples) in
            [("evaluate.thresholds", &self.thresholds), ("evaluate.snapshot-thresholds", &self.snapshot_thresholds)]
        {
            require(key, "positive and increasing, at least one", increasing(multiples), format!("{multiples:?}"))?;
        }
        self.few_examples.as_ref().map_or(Ok(()), FewExamplesConfig::check)?;
        self.textures.as_ref().map_or(Ok(()), TexturesConfig::check)?;
        let fractions = self.bars.iter().all(|b| (0.0..=1.0).contains(b));
        require("evaluate.bars", "accuracies in [0, 1]", fractions, format!("{:?}", self.bars))
    }
}

/// `[export]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ExportConfig {
    /// How many sampled networks are written as files.
    pub count: usize,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { count: 256 }
    }
}
