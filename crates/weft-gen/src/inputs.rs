//! Conditions made of inputs that nobody has labelled: a handful of them as a vector that does not depend on their order.
//!
//! A task that is a set of classes can be shown by members of the set, as a search is shown what it is to find. Of a set `S` of inputs the
//! vector holds the mean and the standard deviation of fixed features `φ`, those of [`examples`](crate::examples),
//!
//! ```text
//! e(S) = [ mean_{x ∈ S} φ(x), std_{x ∈ S} φ(x) ]
//! ```
//!
//! which is a sum over inputs, and thus invariant to their order (Deep Sets, Zaheer et al. 2017, theorem 2). No label enters when inputs are
//! encoded: whatever they are taken from, they are embedded by themselves. The features were fitted beforehand, to the classes of the
//! *training* examples of a data set, of which all its tasks are maps.
//!
//! What inputs show is what they have in common. Of a task that is no set of classes, such as a grouping of all of them, the inputs
//! are those of the data, and say nothing.

use crate::error::require;
use crate::features::{Features, MAX_FEATURES};
use crate::{Artifact, Error, Result};
use weft_core::{Dataset, InputSet, Seed, Task};

/// What a saved encoder says that it is.
const KIND: &str = "input-encoder";

/// What turns inputs without labels into a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct InputEncoder {
    features: Features,
}

impl InputEncoder {
    /// The name of the field that holds its vectors.
    pub const FIELD: &'static str = "inputs";

    /// Fits the features to training examples of a data set.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are too many classes for a condition; a regression that fails.
    pub fn fit(dataset: &Dataset) -> Result<Self> {
        let count = dataset.num_classes();
        require("inputs", "of data of 1,024 classes at most", count <= MAX_FEATURES, count)?;
        Ok(Self { features: Features::fit(dataset)? })
    }

    /// The length of a vector, `2q`: mean and deviation of each feature.
    #[must_use]
    pub fn len(&self) -> usize {
        2 * self.features.len()
    }

    /// Whether vectors have no numbers; never so.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The vector of a handful of inputs, of one or more.
    ///
    /// # Shapes
    /// `inputs` `[m, d]`, `d` as the data that the encoder was fitted on; `[2, q]`: means of the `q` features, then their deviations (0 of one input).
    ///
    /// # Errors
    /// [`weft_core::Error::Inputs`] if they are not of the training inputs' size.
    pub fn embed(&self, inputs: &InputSet) -> Result<Vec<f32>> {
        inputs.check(self.features.num_inputs())?;
        Ok(self.pool(&self.features(inputs.inputs())))
    }

    /// `φ` of each input, `[m, d]` → `[m, q]`.
    ///
    /// # Panics
    /// If `inputs` are not whole rows.
    #[must_use]
    pub fn features(&self, inputs: &[f32]) -> Vec<f32> {
        self.features.of(inputs)
    }

    /// The vector of inputs whose features are known, `[m, q]` → `[2, q]`.
    ///
    /// Sums run in `f64`, so that orders differ by less than a rounding of `f32`.
    #[must_use]
    pub fn pool(&self, features: &[f32]) -> Vec<f32> {
        self.features.moments(&features.chunks_exact(self.features.len()))
    }

    /// All of it, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        self.features.save().with_text("kind", KIND)
    }

    /// Restores a saved encoder.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state is of something else, lacks something, or its parts do not fit each other.
    pub fn load(saved: &Artifact) -> Result<Self> {
        let kind: String = saved.text("kind")?;
        if kind != KIND {
            return Err(Error::Artifact { entry: "kind".to_owned(), reason: format!("is `{kind}`, expected `{KIND}`") });
        }
        Ok(Self { features: Features::load(saved)? })
    }
}

/// Draws inputs that show a task, without repetition: members of its set of classes, or inputs of any class where it is no such set. Where there are
/// fewer, all of them.
///
/// `classes` are those of the examples to draw from, `[N]`; what comes back are their numbers.
///
/// # Panics
/// If a class is not of the task.
#[must_use]
pub fn draw_inputs(task: &Task, classes: &[u32], count: usize, seed: Seed) -> Vec<u32> {
    let is_set = task.members().is_some();
    let shows = |class: u32| !is_set || task.output(class) == 1;
    let mut left: Vec<u32> = (0..).zip(classes).filter(|(_, class)| shows(**class)).map(|(example, _)| example).collect();
    let count = count.min(left.len());
    // The first steps of a Fisher–Yates shuffle are all that is wanted.
    for i in 0..count {
        let step = seed.index(i as u64).indices(1, left.len() - i)[0] as usize;
        left.swap(i, i + step);
    }
    left.truncate(count);
    left
}
