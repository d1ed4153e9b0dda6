//! A trained flow as a generator: its codes, decoded.

use super::CodeFlow;
use crate::{Artifact, Generator, Result, SamplerConfig, TrainingSet};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Condition, Population, Schema, Seed};
use weft_net::Device;

/// A trained flow with the codec that decodes its codes.
#[derive(Debug, Clone)]
pub struct Flow {
    codes: CodeFlow,
    codec: Arc<Codec>,
    architecture: Arc<Architecture>,
    residual_std: Vec<f32>,
    name: String,
}

impl CodeFlow {
    /// Decodes the flow's codes from now on.
    ///
    /// # Errors
    /// If the codec refuses the training weights.
    pub fn decoded_by(self, data: &TrainingSet) -> Result<Flow> {
        let residual_std = if self.residual_noise { residual_std(data)? } else { Vec::new() };
        let (codec, architecture) = (data.codec.clone(), data.architecture().clone());
        Ok(Flow { codes: self, codec, architecture, residual_std, name: "flow".to_owned() })
    }
}

impl Flow {
    /// The flow in the space of codes.
    #[must_use]
    pub fn codes(&self) -> &CodeFlow {
        &self.codes
    }

    /// What decodes its codes.
    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    pub(crate) fn codec(&self) -> &Codec {
        &self.codec
    }

    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        self.codes.schema()
    }

    /// The same flow under another sampler.
    #[must_use]
    pub fn with_sampler(mut self, sampler: SamplerConfig) -> Self {
        self.codes.sampler = sampler;
        self
    }

    /// The same flow guided by single fields, as [`CodeFlow::guided_by`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn guided_by(mut self, scales: &BTreeMap<String, f64>) -> Result<Self> {
        self.codes = self.codes.guided_by(scales)?;
        Ok(self)
    }

    /// What sampling needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        self.codes.save().with_vector("residual-std", &self.residual_std)
    }

    /// Restores a saved flow.
    ///
    /// # Errors
    /// [`crate::Error::Artifact`] if the state lacks something or does not fit the codec.
    pub fn load(
        saved: &Artifact,
        codec: Arc<Codec>,
        architecture: Arc<Architecture>,
        sampler: SamplerConfig,
        device: &Device,
    ) -> Result<Self> {
        let codes = CodeFlow::load(saved, codec.code_len(), sampler, device)?;
        let residual_std =
            if codes.residual_noise { saved.vector("residual-std", architecture.num_parameters())? } else { Vec::new() };
        Ok(Self { codes, codec, architecture, residual_std, name: "flow".to_owned() })
    }

    /// Samples networks near a code, as [`CodeFlow::sample_codes_near`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn sample_near(&self, near: (&[f32], f64), n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.decode(&self.codes.sample_codes_near(near, n, condition, seed)?, seed)
    }

    /// Decodes codes, and adds what the codec drops where that is asked for.
    pub(crate) fn decode(&self, codes: &[f32], seed: Seed) -> Result<Population> {
        let mut rows = self.codec.decode(codes)?;
        if !self.residual_std.is_empty() {
            let d = self.residual_std.len();
            rows.par_chunks_exact_mut(d).enumerate().for_each(|(i, row)| {
                let noise = seed.index(i as u64).fork("residual").normals(d);
                row.iter_mut().zip(&self.residual_std).zip(noise).for_each(|((w, s), g)| *w += s * g);
            });
        }
        Ok(Population::new(self.architecture.clone(), rows)?)
    }
}

/// The standard deviation of what the codec drops of the last snapshots, each weight's.
fn residual_std(data: &TrainingSet) -> Result<Vec<f32>> {
    Ok(data.codec.residual_variance(data.finals.data())?.into_iter().map(f32::sqrt).collect())
}

impl Generator for Flow {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.decode(&self.codes.sample_codes(n, condition, seed)?, seed)
    }

    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        self.decode(&self.codes.sample_codes_each(conditions, seed)?, seed)
    }

    fn flops_per_sample(&self) -> f64 {
        self.codes.flops_per_code() + self.codec.decode_flops()
    }
}
