//! Fixed features `φ` of inputs, which conditions made of examples pool.
//!
//! ```text
//! φ(x) = Bᵀ·relu(W·x̃ + b) + c
//! ```
//!
//! `x̃` is an input less the training inputs' mean, over their root mean square deviation; `W` and `b` are random and always the same (random
//! features, Rahimi & Recht 2008); `B` and `c` are the ridge regression of those features to the data's classes on training examples.
//!
//! Shape legend: `d` values of an input, `m` inputs, `q` features, as many as the data have classes.

use crate::{Artifact, Error, Result};
use rayon::prelude::*;
use weft_codec::Ridge;
use weft_core::{Dataset, Part, Seed};

/// Random features behind `φ`.
const HIDDEN: usize = 256;
/// The most values of an input that saved features may want.
const MAX_INPUTS: usize = 1 << 20;
/// Training examples that features are fitted on, at most.
const FITTED: usize = 10_000;
/// Penalty of the regression.
const PENALTY: f64 = 1e-3;
/// The most features, and the most of all outputs together.
pub(crate) const MAX_FEATURES: usize = 1_024;

/// What turns inputs into features.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Features {
    /// Mean of the training inputs, `[d]`.
    mean: Vec<f32>,
    /// One over their root mean square deviation.
    scale: f32,
    /// `c`, `[q]`.
    offset: Vec<f32>,
    /// `B`, `[HIDDEN, q]`.
    slopes: Vec<f32>,
    /// `Wᵀ`, `[d, HIDDEN]`, and `b`: they follow from the number of values.
    weights: Vec<f32>,
    biases: Vec<f32>,
}

impl Features {
    /// Fits them to training examples.
    pub(crate) fn fit(dataset: &Dataset) -> Result<Self> {
        let (d, classes, train) = (dataset.num_features(), dataset.num_classes(), dataset.range(Part::Train));
        let inputs = dataset.gather(train.start..train.end.min(train.start + FITTED));
        let n = inputs.len() / d;
        let mut mean = vec![0.0_f64; d];
        inputs.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n as f64));
        let squares: f64 = inputs.iter().enumerate().map(|(at, &v)| (f64::from(v) - mean[at % d]).powi(2)).sum();
        let deviation = (squares / inputs.len() as f64).sqrt();
        let (weights, biases) = random_map(d);
        let mut features = Self {
            mean: mean.into_iter().map(|m| m as f32).collect(),
            scale: if deviation > 0.0 { (1.0 / deviation) as f32 } else { 1.0 },
            offset: Vec::new(),
            slopes: Vec::new(),
            weights,
            biases,
        };
        let hidden = features.hidden(&inputs);
        let labels = &dataset.labels(Part::Train)[..n];
        let targets: Vec<f32> =
            labels.iter().flat_map(|&l| (0..classes as u32).map(move |c| f32::from(u8::from(c == l)))).collect();
        let ridge = Ridge::fit((&hidden, HIDDEN), (&targets, classes), PENALTY)?;
        // The map is affine: its values at zero and at the unit vectors are all of it.
        features.offset = ridge.predict(&[0.0; HIDDEN]);
        let units: Vec<f32> = (0..HIDDEN * HIDDEN).map(|at| f32::from(u8::from(at % HIDDEN == at / HIDDEN))).collect();
        features.slopes = ridge.predict(&units);
        features.slopes.iter_mut().enumerate().for_each(|(at, slope)| *slope -= features.offset[at % classes]);
        Ok(features)
    }

    /// Values of an input, `d`.
    pub(crate) fn num_inputs(&self) -> usize {
        self.mean.len()
    }

    /// Features of an input, `q`.
    pub(crate) fn len(&self) -> usize {
        self.offset.len()
    }

    /// `φ` of each input, `[m, d]` → `[m, q]`.
    pub(crate) fn of(&self, inputs: &[f32]) -> Vec<f32> {
        let (d, q) = (self.num_inputs(), self.len());
        assert!(inputs.len().is_multiple_of(d), "inputs are not [m, d]");
        let of_row = |row: &[f32]| {
            let mut out = self.offset.clone();
            for (h, slopes) in self.hidden_of(row).iter().zip(self.slopes.chunks_exact(q)) {
                out.iter_mut().zip(slopes).for_each(|(o, s)| *o += h * s);
            }
            out
        };
        inputs.par_chunks_exact(d).flat_map_iter(of_row).collect()
    }

    /// Mean and standard deviation of each feature over some rows, `[2, q]`; zeros of none.
    ///
    /// Sums run in `f64`, so that orders differ by less than a rounding of `f32`.
    pub(crate) fn moments<'a>(&self, rows: &(impl Iterator<Item = &'a [f32]> + Clone)) -> Vec<f32> {
        let count = rows.clone().count().max(1) as f64;
        let moment = |j: usize, power: i32| rows.clone().map(|row| f64::from(row[j]).powi(power)).sum::<f64>() / count;
        let (means, squares): (Vec<f64>, Vec<f64>) = (0..self.len()).map(|j| (moment(j, 1), moment(j, 2))).unzip();
        let deviations = means.iter().zip(squares).map(|(m, s)| (s - m * m).max(0.0).sqrt() as f32);
        means.iter().map(|&m| m as f32).chain(deviations).collect()
    }

    /// `relu(W·x̃ + b)` of each input, `[m, d]` → `[m, HIDDEN]`.
    fn hidden(&self, inputs: &[f32]) -> Vec<f32> {
        inputs.par_chunks_exact(self.num_inputs()).flat_map_iter(|row| self.hidden_of(row)).collect()
    }

    /// The same of one input; all sums grow together, each over the values in their order.
    fn hidden_of(&self, row: &[f32]) -> Vec<f32> {
        let mut sums = vec![0.0_f32; HIDDEN];
        for ((v, m), weights) in row.iter().zip(&self.mean).zip(self.weights.chunks_exact(HIDDEN)) {
            let x = (v - m) * self.scale;
            sums.iter_mut().zip(weights).for_each(|(sum, w)| *sum += w * x);
        }
        sums.iter_mut().zip(&self.biases).for_each(|(sum, b)| *sum = (*sum + b).max(0.0));
        sums
    }

    /// All of it, to be saved.
    pub(crate) fn save(&self) -> Artifact {
        Artifact::default()
            .with_vector("mean", &self.mean)
            .with_vector("scale", &[self.scale])
            .with_vector("offset", &self.offset)
            .with_vector("slopes", &self.slopes)
    }

    /// Restores saved features.
    pub(crate) fn load(saved: &Artifact) -> Result<Self> {
        let count = |name: &str| saved.tensors.get(name).map_or(0, |(_, values)| values.len());
        let (d, q) = (count("mean"), count("offset"));
        let fail = |entry: &str, reason: String| Err(Error::Artifact { entry: entry.to_owned(), reason });
        if d == 0 || q == 0 {
            return fail(if d == 0 { "mean" } else { "offset" }, "is missing or empty".to_owned());
        }
        if q > MAX_FEATURES {
            return fail("offset", format!("has {q} values, more than {MAX_FEATURES}"));
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
        Ok(Self { mean, scale, offset, slopes, weights, biases })
    }
}

/// `Wᵀ` and `b`, which are part of the format: `W`, `[HIDDEN, d]` as it is drawn, has the variance `1/d`, `b` that of 1.
fn random_map(d: usize) -> (Vec<f32>, Vec<f32>) {
    let seed = Seed::new(0).fork("example features");
    let scale = 1.0 / (d as f32).sqrt();
    let drawn = seed.fork("weights").normals(HIDDEN * d);
    let weights = (0..HIDDEN * d).map(|at| drawn[at % HIDDEN * d + at / HIDDEN] * scale).collect();
    (weights, seed.fork("biases").normals(HIDDEN))
}
