//! Generators: things that sample the weights of new networks.
//!
//! - [`trivial`]: noise copies, Gaussians, KDE, interpolations, soups, the mean, the nearest. They are the
//!   baselines that a claim of novelty has to beat, and proposals for the refiner like any other.
//! - [`flow`]: conditional flow matching on codes, with the samplers of [`sampler`].
//! - [`RidgeGenerator`]: a linear map from conditions to codes, the baseline of conditional ones.
//! - [`examples`]: conditions made of labelled examples. [`inputs`]: of inputs alone. [`guide`]: a flow that is steered by some.
//! - [`refine`]: the function-aware refiner, usable behind every generator.
//! - [`AccuracyPredictor`]: accuracy from weights, to rank samples by.
//! - [`hyper`]: the hyper-decoder, from a condition to a network in one pass.
//! - [`tokens`]: flow matching over the tokens of networks of several architectures, and a refiner of tokens.
//! - [`workload`]: pieces of training to measure a machine by.
//!
//! A generator knows no zoo: it is fitted on a [`TrainingSet`] of codes, weights and conditions.
//!
//! Shape legend: `n` networks, `k` code length, `D` weights of a network, `b` rows of a batch.

mod artifact;
mod course;
mod decoder;
mod error;
pub mod examples;
mod features;
pub mod flow;
pub mod guide;
pub mod hyper;
pub mod inputs;
mod predictor;
pub mod refine;
mod ridge;
pub mod sampler;
mod schema;
mod task_loss;
pub mod tokens;
mod training_set;
pub mod trivial;
pub mod workload;

pub use artifact::Artifact;
pub use course::{Course, Trainer};
pub use error::{Error, Result};
pub use examples::ExampleEncoder;
pub use flow::{CodeFlow, Flow, FlowConfig, FlowTrainer};
pub use guide::{Guide, Guided};
pub use hyper::{HyperConfig, HyperDecoder, HyperTrainer};
pub use inputs::InputEncoder;
pub use predictor::{AccuracyPredictor, PredictorQuality};
pub use refine::{Refined, Refiner, RefinerConfig, RefinerTrainer};
pub use ridge::RidgeGenerator;
pub use sampler::{Sampler, SamplerConfig};
pub use task_loss::{AdapterLoss, TaskLoss};
pub use tokens::{
    TokenConfig, TokenFlow, TokenGenerator, TokenNetwork, TokenPart, TokenRefined, TokenRefiner, TokenRefinerConfig,
    TokenRefinerTrainer, TokenSet, TokenTrainer,
};
pub use training_set::{CodeSet, RunTasks, TrainingSet};

use weft_core::{Architecture, Condition, Population, Seed};

/// A source of new networks.
pub trait Generator: Send + Sync {
    /// The generator's name in reports.
    fn name(&self) -> &str;

    /// Samples `n` networks. The same seed gives the same networks.
    ///
    /// # Errors
    /// A condition that the generator was not trained on, or a failed tensor operation.
    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population>;

    /// Samples a network under each of one or more conditions, in their order. The same seed gives the same networks.
    ///
    /// # Errors
    /// As [`Generator::sample`]; [`Error::Setting`] names `conditions` if there is none.
    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        let (first, others) = first_and_others(conditions)?;
        let mut networks = self.sample(1, first, seed.index(0))?;
        for (i, condition) in others.iter().enumerate() {
            networks.extend(&self.sample(1, condition, seed.index(i as u64 + 1))?)?;
        }
        Ok(networks)
    }

    /// Floating-point operations of one sample, for cost accounting.
    fn flops_per_sample(&self) -> f64;
}

/// Refuses networks of another architecture than expected.
fn same_architecture(got: &Architecture, expected: &Architecture) -> Result<()> {
    let fits = got.same_graph(expected);
    error::require("networks", "of the architecture that they are taken for", fits, got.name())
}

/// The first condition and the others; sampling under none is refused.
fn first_and_others(conditions: &[Condition]) -> Result<(&Condition, &[Condition])> {
    let none = || Error::Setting { setting: "conditions", expected: "1 or more", got: "none".to_owned() };
    conditions.split_first().ok_or_else(none)
}
