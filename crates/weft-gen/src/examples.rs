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
use crate::{Artifact, Error, Result};
use rayon::prelude::*;
use weft_codec::Ridge;
use weft_core::{Dataset, ExampleSet, Part, Seed, Task};

/// Random features behind `φ`.
const HIDDEN: usize = 256;
/// The most values of an input that a saved encoder may want.
const MAX_INPUTS: usize = 1 << 20;
/// Training examples that the encoder is fitted on, at most.
const FITTED: usize = 10_000;
/// Penalty of the regression.
const PENALTY: f64 = 1e-3;

/// What turns labelled examples into a vector.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleEncoder {
    num_outputs: usize,
    /// Mean of the training inputs, `[d]`.
    mean: Vec<f32>,
    /// One over their root mean square deviation.
    scale: f32,
    /// `c`, `[q]`.
    offset: Vec<f32>,
    /// `B`, `[HIDDEN, q]`.
    slopes: Vec<f32>,
    /// `W`, `[HIDDEN, d]`, and `b`: they follow from the number of features.
    weights: Vec<f32>,
    biases: Vec<f32>,
}

impl ExampleEncoder {
    /// The name of the field that holds its vectors.
    pub const FIELD: &'static str = "examples";

    /// Fits the features to training examples, for networks of so many outputs.
    ///
    /// # Errors
    /// [`Error::Setting`] if there are too many classes or outputs for a condition; a regression that fails.
    pub fn fit(dataset: &Dataset, num_outputs: usize) -> Result<Self> {
        let (d, classes, train) = (dataset.num_features(), dataset.num_classes(), dataset.range(Part::Train));
        require("examples", "of 1,024 classes times outputs at most", classes * num_outputs <= 1_024, classes * num_outputs)?;
        let inputs = dataset.gather(train.start..train.end.min(train.start + FITTED));
        let n = inputs.len() / d;
        let mut mean = vec![0.0_f64; d];
        inputs.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n as f64));
        let squares: f64 = inputs.iter().enumerate().map(|(at, &v)| (f64::from(v) - mean[at % d]).powi(2)).sum();
        let deviation = (squares / inputs.len() as f64).sqrt();
        let (weights, biases) = random_map(d);
        let mut encoder = Self {
            num_outputs,
            mean: mean.into_iter().map(|m| m as f32).collect(),
            scale: if deviation > 0.0 { (1.0 / deviation) as f32 } else { 1.0 },
            offset: Vec::new(),
            slopes: Vec::new(),
            weights,
            biases,
        };
        let hidden = encoder.hidden(&inputs);
        let labels = &dataset.labels(Part::Train)[..n];
        let targets: Vec<f32> =
            labels.iter().flat_map(|&l| (0..classes as u32).map(move |c| f32::from(u8::from(c == l)))).collect();
        let ridge = Ridge::fit((&hidden, HIDDEN), (&targets, classes), PENALTY)?;
        // The map is affine: its values at zero and at the unit vectors are all of it.
        encoder.offset = ridge.predict(&[0.0; HIDDEN]);
        let units: Vec<f32> = (0..HIDDEN * HIDDEN).map(|at| f32::from(u8::from(at % HIDDEN == at / HIDDEN))).collect();
        encoder.slopes = ridge.predict(&units);
        encoder.slopes.iter_mut().enumerate().for_each(|(at, slope)| *slope -= encoder.offset[at % classes]);
        Ok(encoder)
    }

    /// The length of a vector: mean and deviation of each feature, for each output.
    #[must_use]
    pub fn len(&self) -> usize {
        2 * self.num_outputs * self.offset.len()
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
        examples.check(self.mean.len(), self.num_outputs)?;
        Ok(self.pool(&self.features(examples.inputs()), examples.labels()))
    }

    /// `φ` of each input, `[m, d]` → `[m, q]`.
    ///
    /// # Panics
    /// If `inputs` are not whole rows.
    #[must_use]
    pub fn features(&self, inputs: &[f32]) -> Vec<f32> {
        let q = self.offset.len();
        let of_row = |hidden: &[f32]| {
            let mut out = self.offset.clone();
            for (h, slopes) in hidden.iter().zip(self.slopes.chunks_exact(q)) {
                out.iter_mut().zip(slopes).for_each(|(o, s)| *o += h * s);
            }
            out
        };
        self.hidden(inputs).par_chunks_exact(HIDDEN).flat_map_iter(of_row).collect()
    }

    /// The vector of examples whose features are known, `[m, q]`, and of which each output has one or more.
    ///
    /// Sums run in `f64`, so that orders differ by less than a rounding of `f32`.
    #[must_use]
    pub fn pool(&self, features: &[f32], labels: &[u32]) -> Vec<f32> {
        let q = self.offset.len();
        let mut vector = Vec::with_capacity(self.len());
        for output in 0..self.num_outputs as u32 {
            let rows = || features.chunks_exact(q).zip(labels).filter(move |(_, label)| **label == output).map(|(row, _)| row);
            let count = rows().count().max(1) as f64;
            let moment = |j: usize, power: i32| rows().map(|row| f64::from(row[j]).powi(power)).sum::<f64>() / count;
            let (means, squares): (Vec<f64>, Vec<f64>) = (0..q).map(|j| (moment(j, 1), moment(j, 2))).unzip();
            vector.extend(means.iter().map(|&m| m as f32));
            vector.extend(means.iter().zip(squares).map(|(m, s)| (s - m * m).max(0.0).sqrt() as f32));
        }
        vector
    }

    /// `relu(W·x̃ + b)` of each input, `[m, d]` → `[m, HIDDEN]`.
    fn hidden(&self, inputs: &[f32]) -> Vec<f32> {
        let d = self.mean.len();
        assert!(inputs.len().is_multiple_of(d), "inputs are not [m, d]");
        let of_row = |row: &[f32]| {
            let x: Vec<f32> = row.iter().zip(&self.mean).map(|(v, m)| (v - m) * self.scale).collect();
            let sums = self.weights.chunks_exact(d).zip(&self.biases);
            sums.map(move |(w, b)| (w.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>() + b).max(0.0)).collect::<Vec<f32>>()
        };
        inputs.par_chunks_exact(d).flat_map_iter(of_row).collect()
    }

    /// All of it, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        Artifact::default()
            .with_vector("mean", &self.mean)
            .with_vector("scale", &[self.scale])
            .with_vector("offset", &self.offset)
            .with_vector("slopes", &self.slopes)
            .with_text("kind", "example-encoder")
            .with_text("outputs", self.num_outputs)
    }

    /// Restores a saved encoder.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or its parts do not fit each other.
    pub fn load(saved: &Artifact) -> Result<Self> {
        let count = |name: &str| saved.tensors.get(name).map_or(0, |(_, values)| values.len());
        let (d, q) = (count("mean"), count("offset"));
        let fail = |entry: &str, reason: String| Err(Error::Artifact { entry: entry.to_owned(), reason });
        let num_outputs: usize = saved.text("outputs")?;
        if d == 0 || q == 0 {
            return fail(if d == 0 { "mean" } else { "offset" }, "is missing or empty".to_owned());
        }
        if num_outputs == 0 || q.saturating_mul(num_outputs) > 1_024 {
            return fail("outputs", format!("is {num_outputs} for {q} features"));
        }
        let scale = saved.vector("scale", 1)?[0];
        if scale <= 0.0 {
            return fail("scale", "is not positive".to_owned());
        }
        if d > MAX_INPUTS {
            return fail("mean", format!("has {d} values, more than {MAX_INPUTS}"));
        }
        let (mean, offset, slopes) = (saved.vector("mean", d)?, saved.vector("offset", q)?, saved.vector("slopes", HIDDEN * q)?);
        // After the checks: the map is so many times as large.
        let (weights, biases) = random_map(d);
        Ok(Self { num_outputs, mean, scale, offset, slopes, weights, biases })
    }
}

/// `W` and `b`, which are part of the format: `W` has the variance `1/d`, `b` that of 1.
fn random_map(d: usize) -> (Vec<f32>, Vec<f32>) {
    let seed = Seed::new(0).fork("example features");
    let scale = 1.0 / (d as f32).sqrt();
    (seed.fork("weights").normals(HIDDEN * d).into_iter().map(|w| w * scale).collect(), seed.fork("biases").normals(HIDDEN))
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
