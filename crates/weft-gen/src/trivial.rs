//! Generators that learn nothing, or next to nothing: the baselines.
//!
//! A generated network is new only if it beats these at equal distance from the training set. They draw from
//! the last snapshots of training runs; their conditions are ignored.

use crate::{Generator, Result, TrainingSet};
use weft_core::{Condition, Population, Seed};

/// Which trivial generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trivial {
    /// A training network plus Gaussian noise of `scale` times each tensor's standard deviation.
    NoiseCopies {
        /// Noise in units of the tensor's standard deviation.
        scale: f64,
    },
    /// Each weight from its own Gaussian.
    WeightGaussian,
    /// A Gaussian with the empirical mean and covariance of the codes.
    PcaGaussian,
    /// Kernel density estimate on codes: a training code plus Gaussian noise of Scott's bandwidth `n^(−1/(k+4))`.
    Kde,
    /// A random point on the segment between two training networks, before canonicalization.
    InterpolationRaw,
    /// The same after canonicalization.
    InterpolationAligned,
    /// The mean of `k` random training networks, before canonicalization (Wortsman et al. 2022).
    SoupRaw {
        /// Networks averaged.
        k: usize,
    },
    /// The same after canonicalization.
    SoupAligned {
        /// Networks averaged.
        k: usize,
    },
    /// The mean of all training networks.
    Mean,
    /// A copy of a training network.
    Nearest,
}

impl Trivial {
    /// The name in reports and run files.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::NoiseCopies { scale } => format!("noise-copies-{scale}"),
            Self::WeightGaussian => "weight-gaussian".to_owned(),
            Self::PcaGaussian => "pca-gaussian".to_owned(),
            Self::Kde => "kde".to_owned(),
            Self::InterpolationRaw => "interpolation-raw".to_owned(),
            Self::InterpolationAligned => "interpolation-aligned".to_owned(),
            Self::SoupRaw { k } => format!("soup-{k}-raw"),
            Self::SoupAligned { k } => format!("soup-{k}-aligned"),
            Self::Mean => "mean".to_owned(),
            Self::Nearest => "nearest".to_owned(),
        }
    }
}

/// A trivial generator over a training set.
#[derive(Debug, Clone)]
pub struct TrivialGenerator {
    kind: Trivial,
    name: String,
    data: TrainingSet,
    /// Mean and standard deviation that the kind needs, each weight's or each code's.
    moments: (Vec<f32>, Vec<f32>),
}

impl TrivialGenerator {
    /// Fits the generator: at most means and deviations.
    #[must_use]
    pub fn new(kind: Trivial, data: TrainingSet) -> Self {
        let moments = match kind {
            Trivial::WeightGaussian | Trivial::Mean => column_moments(data.finals.data(), data.finals.dim()),
            Trivial::PcaGaussian | Trivial::Kde => column_moments(&data.final_codes, data.code_len()),
            Trivial::NoiseCopies { .. } => (Vec::new(), tensor_deviations(&data.finals)),
            _ => (Vec::new(), Vec::new()),
        };
        Self { kind, name: kind.name(), data, moments }
    }

    fn sample_one(&self, seed: Seed) -> Vec<f32> {
        let count = self.data.finals.len();
        let pick = |salt: &str, k: usize| seed.fork(salt).indices(k, count);
        let finals = &self.data.finals;
        match self.kind {
            Trivial::Nearest => finals.row(pick("copy", 1)[0] as usize).to_vec(),
            Trivial::Mean => self.moments.0.clone(),
            Trivial::NoiseCopies { scale } => {
                let row = finals.row(pick("copy", 1)[0] as usize);
                add_noise(row, &self.moments.1, scale as f32, seed.fork("noise"))
            }
            Trivial::WeightGaussian => add_noise(&self.moments.0, &self.moments.1, 1.0, seed.fork("noise")),
            Trivial::InterpolationRaw => interpolate(&self.data.raw_finals, &pick("ends", 2), seed),
            Trivial::InterpolationAligned => interpolate(finals, &pick("ends", 2), seed),
            Trivial::SoupRaw { k } => mean_of(&self.data.raw_finals, &seed.fork("soup").subset(k, count)),
            Trivial::SoupAligned { k } => mean_of(finals, &seed.fork("soup").subset(k, count)),
            Trivial::PcaGaussian => {
                // mean + Σᵢ gᵢ (zᵢ − mean) / √(n−1) has exactly the empirical covariance.
                let (mean, k) = (&self.moments.0, self.data.code_len());
                let scale = 1.0 / ((count.max(2) - 1) as f32).sqrt();
                let mut code = mean.clone();
                for (z, g) in self.data.final_codes.chunks_exact(k).zip(seed.fork("mix").normals(count)) {
                    code.iter_mut().zip(z.iter().zip(mean)).for_each(|(c, (z, m))| *c += g * scale * (z - m));
                }
                code
            }
            Trivial::Kde => {
                let k = self.data.code_len();
                let at = pick("copy", 1)[0] as usize * k;
                let bandwidth = (count as f64).powf(-1.0 / (k as f64 + 4.0));
                add_noise(&self.data.final_codes[at..at + k], &self.moments.1, bandwidth as f32, seed.fork("noise"))
            }
        }
    }
}

impl Generator for TrivialGenerator {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, _: &Condition, seed: Seed) -> Result<Population> {
        use rayon::prelude::*;
        let rows: Vec<Vec<f32>> = (0..n as u64).into_par_iter().map(|i| self.sample_one(seed.index(i))).collect();
        let values = rows.concat();
        match self.kind {
            Trivial::PcaGaussian | Trivial::Kde => self.data.decode(&values),
            _ => Ok(Population::new(self.data.architecture().clone(), values)?),
        }
    }

    fn flops_per_sample(&self) -> f64 {
        let (d, k, n) = (self.data.finals.dim() as f64, self.data.code_len() as f64, self.data.finals.len() as f64);
        match self.kind {
            Trivial::Nearest | Trivial::Mean => 0.0,
            Trivial::NoiseCopies { .. } | Trivial::WeightGaussian | Trivial::InterpolationRaw | Trivial::InterpolationAligned => {
                3.0 * d
            }
            Trivial::SoupRaw { k } | Trivial::SoupAligned { k } => k as f64 * d,
            Trivial::PcaGaussian => 3.0 * n * k + self.data.codec.decode_flops(),
            Trivial::Kde => self.data.codec.decode_flops(),
        }
    }
}

/// Mean and standard deviation of each column of `[n, columns]`.
pub(crate) fn column_moments(values: &[f32], columns: usize) -> (Vec<f32>, Vec<f32>) {
    let n = (values.len() / columns).max(1) as f64;
    let mut mean = vec![0.0f64; columns];
    for row in values.chunks_exact(columns) {
        mean.iter_mut().zip(row).for_each(|(m, &v)| *m += f64::from(v) / n);
    }
    let mut variance = vec![0.0f64; columns];
    for row in values.chunks_exact(columns) {
        variance.iter_mut().zip(row.iter().zip(&mean)).for_each(|(s, (&v, m))| *s += (f64::from(v) - m).powi(2) / n);
    }
    (mean.into_iter().map(|v| v as f32).collect(), variance.into_iter().map(|v| v.sqrt() as f32).collect())
}

/// Each weight's scale of noise: the standard deviation of its tensor's values over all networks.
fn tensor_deviations(population: &Population) -> Vec<f32> {
    let mut out = vec![0.0; population.dim()];
    for tensor in population.architecture().tensors() {
        let values: Vec<f32> = population.rows().flat_map(|row| &row[tensor.range()]).copied().collect();
        let (_, std) = column_moments(&values, 1);
        out[tensor.range()].fill(std[0]);
    }
    out
}

fn add_noise(row: &[f32], std: &[f32], scale: f32, seed: Seed) -> Vec<f32> {
    row.iter().zip(std).zip(seed.normals(row.len())).map(|((w, s), g)| w + scale * s * g).collect()
}

fn interpolate(population: &Population, ends: &[u32], seed: Seed) -> Vec<f32> {
    let lambda = seed.fork("lambda").uniforms(1)[0];
    let (a, b) = (population.row(ends[0] as usize), population.row(ends[1] as usize));
    a.iter().zip(b).map(|(a, b)| lambda * a + (1.0 - lambda) * b).collect()
}

fn mean_of(population: &Population, members: &[u32]) -> Vec<f32> {
    let scale = 1.0 / members.len() as f32;
    let mut out = vec![0.0; population.dim()];
    for &member in members {
        out.iter_mut().zip(population.row(member as usize)).for_each(|(o, w)| *o += scale * w);
    }
    out
}
