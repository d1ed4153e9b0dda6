//! What a refiner is told of each sample, beside its own signs: a loss level, or the condition that names its task.

use super::SIGNS;
use crate::{Artifact, Error, Result, schema};
use candle_core::{Device, Tensor};
use weft_core::{Condition, Schema, Seed};

/// What stands behind the signs in a sample's conditioning.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    /// Networks of one task: a standardized loss level, drawn anew for each sample.
    Level(Levels),
    /// Networks of many tasks: the encoded condition.
    Condition(Schema),
}

impl Told {
    /// Features of a sample's conditioning, signs and all.
    pub(super) fn num_features(&self) -> usize {
        match self {
            Self::Level(_) => SIGNS + 1,
            Self::Condition(schema) => SIGNS + schema.encoded_len(),
        }
    }

    /// What samples under these conditions are told; the seed draws levels.
    ///
    /// # Shapes
    /// `n` conditions → `[n, told]`, a sample after the other: one number of a level, an encoded condition.
    pub(super) fn of<'a>(&self, conditions: impl ExactSizeIterator<Item = &'a Condition>, seed: Seed) -> Result<Vec<f32>> {
        match self {
            Self::Level(levels) => Ok(levels.standardized(&levels.draw(seed, conditions.len()))),
            Self::Condition(schema) => {
                Ok(conditions.map(|condition| schema.encode(condition)).collect::<weft_core::Result<Vec<_>>>()?.concat())
            }
        }
    }

    pub(super) fn save(&self, artifact: Artifact) -> Artifact {
        match self {
            Self::Level(levels) => artifact.with_vector("levels", &levels.sorted),
            Self::Condition(schema) => schema::save(schema, artifact.with_text("told", "condition")),
        }
    }

    pub(super) fn load(saved: &Artifact) -> Result<Self> {
        match saved.metadata.get("told").map(String::as_str) {
            Some("condition") => Ok(Self::Condition(schema::load(saved)?)),
            Some(other) => Err(Error::Artifact { entry: "told".to_owned(), reason: format!("is `{other}`, expected `condition`") }),
            None => {
                let count = saved.tensors.get("levels").map_or(0, |(_, v)| v.len());
                if count == 0 {
                    return Err(Error::Artifact { entry: "levels".to_owned(), reason: "is missing or empty".to_owned() });
                }
                Ok(Self::Level(Levels::new(saved.vector("levels", count)?)))
            }
        }
    }
}

/// The losses at which training runs ended, on training data, in nats.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Levels {
    sorted: Vec<f32>,
    mean: f32,
    std: f32,
}

impl Levels {
    pub(super) fn new(mut sorted: Vec<f32>) -> Self {
        sorted.sort_by(f32::total_cmp);
        let n = sorted.len() as f32;
        let mean = sorted.iter().sum::<f32>() / n;
        let std = (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt().max(1e-6);
        Self { sorted, mean, std }
    }

    pub(super) fn draw(&self, seed: Seed, n: usize) -> Vec<f32> {
        seed.indices(n, self.sorted.len()).into_iter().map(|i| self.sorted[i as usize]).collect()
    }

    pub(super) fn standardized(&self, drawn: &[f32]) -> Vec<f32> {
        drawn.iter().map(|level| (level - self.mean) / self.std).collect()
    }
}

/// `[n, SIGNS + told]`: the sample's signs over `√SIGNS` (or zeros), and what it is told.
pub(crate) fn conditioning(signs: &[u64], told: &[f32], own_data: bool, device: &Device) -> Result<Tensor> {
    let scale = if own_data { 1.0 / (SIGNS as f32).sqrt() } else { 0.0 };
    let width = told.len() / signs.len().max(1);
    let mut rows = Vec::with_capacity(signs.len() * (SIGNS + width));
    for (i, &bits) in signs.iter().enumerate() {
        rows.extend((0..SIGNS).map(|sign| if bits >> sign & 1 == 1 { scale } else { -scale }));
        rows.extend_from_slice(&told[i * width..(i + 1) * width]);
    }
    Ok(Tensor::from_vec(rows, (signs.len(), SIGNS + width), device)?)
}
