//! Conditions made of examples: a handful of labelled inputs as a vector that does not depend on their order.
//!
//! A task that has no name can be shown. Of a set `S` of examples with labels, the vector holds for each output `o` the mean and the
//! standard deviation of fixed features `φ` over `S_o = {x : label(x) = o}`,
//!
//! ```text
//! e(S) = [ mean_{x ∈ S_o} φ(x), std_{x ∈ S_o} φ(x) ]  over o,      φ(x) = Bᵀ·relu(W·x̃ + b) + c
//! ```
//!
//! which is a sum over examples, and thus invariant to their order (Deep Sets, Zaheer et al. 2017, theorem 2); what reads it, a flow or a
//! hyper-decoder, is the map behind the sum. `x̃` is an input less the training inputs' mean, over their root mean square deviation; `W` and
//! `b` are random and always the same (random features, Rahimi & Recht 2008); `B` and `c` are the ridge regression of those features to the
//! data's classes on training examples. All tasks here are maps of these classes, so its columns span what predicts the training tasks'
//! own labels. No test example, no validation example and no held-out task has a part in it.

use crate::error::require;
use crate::features::{Features, MAX_FEATURES};
use crate::{Artifact, Error, Result};
use weft_core::{Dataset, ExampleSet, Seed, Task};

/// What turns labelled examples into a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleEncoder {
    num_outputs: usize,
    features: Features,
}

impl ExampleEncoder {
    /// The name of the field that holds its vectors.
    pub const FIELD: &'static str = "examples";

    /// Fits the features to training examples, for networks of so many outputs.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are too many classes or outputs for a condition; a regression that fails.
    pub fn fit(dataset: &Dataset, num_outputs: usize) -> Result<Self> {
        let count = dataset.num_classes() * num_outputs;
        require("examples", "of 1,024 classes times outputs at most", count <= MAX_FEATURES, count)?;
        Ok(Self { num_outputs, features: Features::fit(dataset)? })
    }

    /// The length of a vector: mean and deviation of each feature, for each output.
    #[must_use]
    pub fn len(&self) -> usize {
        2 * self.num_outputs * self.features.len()
    }

    /// Whether vectors have no numbers; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vector of labelled examples.
    ///
    /// # Errors
    /// [`weft_core::Error::Examples`] if they are not of the training inputs' size, have a label that is no output, or none of an output.
    pub fn encode(&self, examples: &ExampleSet) -> Result<Vec<f32>> {
        examples.check(self.features.num_inputs(), self.num_outputs)?;
        Ok(self.pool(&self.features(examples.inputs()), examples.labels()))
    }

    /// `φ` of each input, `[m, d]` → `[m, q]`.
    ///
    /// # Panics
    /// If `inputs` are not whole rows.
    #[must_use]
    pub fn features(&self, inputs: &[f32]) -> Vec<f32> {
        self.features.of(inputs)
    }

    /// The vector of examples whose features are known, `[m, q]`, and of which each output has one or more.
    ///
    /// Sums run in `f64`, so that orders differ by less than a rounding of `f32`.
    #[must_use]
    pub fn pool(&self, features: &[f32], labels: &[u32]) -> Vec<f32> {
        let of_output = |output: u32| {
            let rows = features.chunks_exact(self.features.len()).zip(labels);
            self.features.moments(&rows.filter(move |(_, label)| **label == output).map(|(row, _)| row))
        };
        (0..self.num_outputs as u32).flat_map(of_output).collect()
    }

    /// All of it, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        self.features.save().with_text("kind", "example-encoder").with_text("outputs", self.num_outputs)
    }

    /// Restores a saved encoder.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or its parts do not fit each other.
    pub fn load(saved: &Artifact) -> Result<Self> {
        let num_outputs: usize = saved.text("outputs")?;
        let features = Features::load(saved)?;
        if num_outputs == 0 || features.len().saturating_mul(num_outputs) > MAX_FEATURES {
            let reason = format!("is {num_outputs} for {} features", features.len());
            return Err(Error::Artifact { entry: "outputs".to_owned(), reason });
        }
        Ok(Self { num_outputs, features })
    }
}

/// Draws examples of each output of a task, without repetition; of an output that has fewer, all.
///
/// `classes` are those of the examples to draw from, `[N]`; what comes back are their numbers, output by output.
///
/// # Panics
/// If a class is not of the task.
#[must_use]
pub fn draw_examples(task: &Task, classes: &[u32], per_output: usize, seed: Seed) -> Vec<u32> {
    let mut left: Vec<usize> = vec![per_output; task.num_outputs()];
    let mut drawn = vec![Vec::new(); task.num_outputs()];
    for example in seed.permutation(classes.len()) {
        let output = task.output(classes[example as usize]) as usize;
        if left[output] > 0 {
            left[output] -= 1;
            drawn[output].push(example);
        } else if left.iter().all(|&left| left == 0) {
            break;
        }
    }
    drawn.concat()
}
