//! A trained flow in the space of codes.

use super::{Spread, TIME_FREQUENCIES, embed_time, precondition};
use crate::error::require;
use crate::{Artifact, Result, SamplerConfig, schema};
use candle_core::Tensor;
use std::collections::BTreeMap;
use std::ops::Range;
use weft_core::{Condition, Schema, Seed};
use weft_net::Device;
use weft_ops::tensor::{Parameters, Precision, ResidualMlp, ResidualMlpConfig};

/// A trained flow that knows codes alone: what turns them into weights is the codec's affair.
#[derive(Debug, Clone)]
pub struct CodeFlow {
    pub(super) network: ResidualMlp,
    pub(super) theta: Vec<f32>,
    pub(super) schema: Schema,
    pub(crate) spread: Spread,
    /// Whether what decodes its codes is to add what the codec drops.
    pub(super) residual_noise: bool,
    pub(crate) sampler: SamplerConfig,
    /// Guidance by single fields: their places in an encoded condition, and scales that are not 1.
    pub(super) guidance: Vec<(Range<usize>, f64)>,
    pub(crate) device: Device,
}

impl CodeFlow {
    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The length of a code, `k`.
    #[must_use]
    pub fn code_len(&self) -> usize {
        self.network.config().outputs
    }

    /// What sampling needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        let config = self.network.config();
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_vector("residual-std", &[])
            .with_vector("code-mean", &self.spread.mean)
            .with_vector("code-std", &self.spread.std)
            .with_text("kind", "flow")
            .with_text("width", config.width)
            .with_text("blocks", config.blocks);
        schema::save(&self.schema, artifact)
    }

    /// Restores a saved flow on codes of length `k`.
    ///
    /// # Errors
    /// [`crate::Error::Artifact`] if the state lacks something or does not fit.
    pub fn load(saved: &Artifact, k: usize, sampler: SamplerConfig, device: &Device) -> Result<Self> {
        let schema = schema::load(saved)?;
        let [width, blocks] = saved.network_size()?;
        let conditioning = 2 * TIME_FREQUENCIES + 1 + schema.encoded_len();
        let network = ResidualMlp::new(ResidualMlpConfig { inputs: k, conditioning, width, blocks, outputs: k });
        let theta = saved.vector("theta", network.num_parameters())?;
        let spread = Spread { mean: saved.vector("code-mean", k)?, std: saved.vector("code-std", k)? };
        let residual_noise = saved.tensors.get("residual-std").is_some_and(|(_, v)| !v.is_empty());
        let device = device.clone();
        Ok(Self { network, theta, schema, spread, residual_noise, sampler, guidance: Vec::new(), device })
    }

    /// Guides by single fields beside the whole condition, each by its own scale: 1 follows a field, more exaggerates it, 0 ignores it.
    ///
    /// `v = v(∅) + s·(v(c) − v(∅)) + Σ (s_f − 1)·(v(c) − v(c without f))`, so that with one field, its scale and that of the whole do the
    /// same (after Liu et al. 2022, *Compositional Visual Generation with Composable Diffusion Models*, equation 11). Each scale that is
    /// not 1 costs one more evaluation.
    ///
    /// # Errors
    /// [`weft_core::Error::UnknownField`] for a field that the flow was not trained on; [`crate::Error::Setting`] for a scale that is not finite.
    pub fn guided_by(mut self, scales: &BTreeMap<String, f64>) -> Result<Self> {
        self.guidance.clear();
        for (name, &scale) in scales {
            require("guidance", "a number for each field", scale.is_finite(), scale)?;
            self.schema.field(name)?;
            let before = self.schema.fields.iter().take_while(|field| &field.name != name).count();
            let widths: Vec<usize> = self.schema.widths().collect();
            let start = widths[..before].iter().sum();
            if (scale - 1.0).abs() > 1e-12 {
                self.guidance.push((start..start + widths[before], scale));
            }
        }
        Ok(self)
    }

    /// Floating-point operations of one code.
    #[must_use]
    pub fn flops_per_code(&self) -> f64 {
        // Guidance runs the network twice, wherever there is a condition to be guided by.
        let guided = self.sampler.is_guided() && !self.schema.fields.is_empty();
        let passes = 1 + usize::from(guided) + self.guidance.len();
        passes as f64 * self.sampler.evaluations() as f64 * self.network.flops_per_row()
    }

    /// Samples codes, `[n, k]`.
    ///
    /// # Errors
    /// A condition with a field that the flow was not trained on, or a failed tensor operation.
    pub fn sample_codes(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Vec<f32>> {
        self.integrate(&self.schema.encode(condition)?.repeat(n), n, seed)
    }

    /// Samples a code under each of several conditions, `[n, k]`; those of one condition are those of [`CodeFlow::sample_codes`].
    ///
    /// # Errors
    /// As [`CodeFlow::sample_codes`]; [`crate::Error::Setting`] names `conditions` if there is none.
    pub fn sample_codes_each(&self, conditions: &[Condition], seed: Seed) -> Result<Vec<f32>> {
        self.integrate(&schema::encode_each(&self.schema, conditions)?.concat(), conditions.len(), seed)
    }

    /// Samples codes near one, `[n, k]`: it is brought to the time `1 − strength` with noise, `x_t = t·code + (1 − t)·noise`, and from there back.
    ///
    /// # Units
    /// A strength of 0 is the code itself, one of 1 what [`CodeFlow::sample_codes`] gives.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] for a strength outside `[0, 1]` or a code of another length, else as [`CodeFlow::sample_codes`].
    ///
    /// # References
    /// Meng et al., *`SDEdit`* (2022), Algorithm 1, for this path.
    pub fn sample_codes_near(&self, near: (&[f32], f64), n: usize, condition: &Condition, seed: Seed) -> Result<Vec<f32>> {
        let (code, strength) = near;
        require("strength", "between 0 and 1", (0.0..=1.0).contains(&strength), strength)?;
        require("code", "as long as the flow's codes", code.len() == self.code_len(), code.len())?;
        if strength <= 0.0 {
            return Ok(code.repeat(n));
        }
        let time = 1.0 - strength;
        let data = Tensor::from_vec(self.spread.normalize(code), (1, code.len()), self.device.candle())?;
        let x_t = (self.noise(n, seed)? * strength)?.broadcast_add(&(data * time)?)?;
        let encoded = self.schema.encode(condition)?.repeat(n);
        let codes = self.with_velocity((&encoded, n), false, |velocity| self.sampler.integrate_from(x_t, time, velocity))?;
        Ok(self.spread.restore(&codes.flatten_all()?.to_vec1::<f32>()?))
    }

    /// Carries noise to codes under `n` encoded conditions.
    fn integrate(&self, encoded: &[f32], n: usize, seed: Seed) -> Result<Vec<f32>> {
        let noise = self.noise(n, seed)?;
        let codes = self.with_velocity((encoded, n), false, |velocity| self.sampler.integrate(noise, velocity))?;
        Ok(self.spread.restore(&codes.flatten_all()?.to_vec1::<f32>()?))
    }

    /// Where samples start, `[n, k]`: each at its own noise.
    pub(crate) fn noise(&self, n: usize, seed: Seed) -> Result<Tensor> {
        let k = self.code_len();
        let noise: Vec<f32> = (0..n as u64).flat_map(|i| seed.index(i).fork("noise").normals(k)).collect();
        Ok(Tensor::from_vec(noise, (n, k), self.device.candle())?)
    }

    /// Does something with the velocity under `n` encoded conditions, guided by them as the sampler has it; `differentiable` says whether it is to carry
    /// gradients to `x_t`.
    pub(crate) fn with_velocity<R>(
        &self,
        (encoded, n): (&[f32], usize),
        differentiable: bool,
        work: impl FnOnce(&dyn Fn(&Tensor, f64) -> Result<Tensor>) -> Result<R>,
    ) -> Result<R> {
        let device = self.device.candle();
        let parameters = if differentiable { Parameters::new } else { Parameters::frozen };
        let theta = parameters(&self.theta, device, Precision::Single)?;
        let guided = self.sampler.is_guided() && encoded.iter().any(|&v| v != 0.0);
        let len = self.schema.encoded_len();
        let upload = |encoded: &[f32]| Tensor::from_slice(encoded, (n, len), device);
        let run = |x_t: &Tensor, t: f64, encoded: &Tensor| -> Result<Tensor> {
            let mut time = Vec::new();
            embed_time(t as f32, &mut time);
            let time = Tensor::from_slice(&time, (1, time.len()), device)?.broadcast_as((n, time.len()))?; // [n, 2f + 1]
            let conditioning = if len == 0 { time.contiguous()? } else { Tensor::cat(&[&time, encoded], 1)? }; // [n, 2f + 1 + len]
            let (skip, scale) = precondition(t as f32);
            let learned = self.network.forward(x_t, &conditioning, &theta)?;
            Ok(((x_t * f64::from(skip))? + (learned * f64::from(scale))?)?)
        };
        let unknown = upload(&vec![0.0; encoded.len()])?;
        let without = self.without_fields(encoded, len).into_iter();
        let without = without.map(|(rows, scale)| Ok((upload(&rows)?, scale))).collect::<Result<Vec<_>>>()?;
        let encoded = upload(encoded)?;
        work(&|x_t, t| {
            let conditional = run(x_t, t, &encoded)?;
            let mut velocity = conditional.clone();
            if guided {
                let free = run(x_t, t, &unknown)?;
                velocity = (&free + ((&conditional - &free)? * self.sampler.guidance_scale)?)?;
            }
            for (without, scale) in &without {
                let beside = (&conditional - run(x_t, t, without)?)?;
                velocity = (velocity + (beside * (scale - 1.0))?)?;
            }
            Ok(velocity)
        })
    }

    /// Encoded conditions, `len` numbers each, without each field that guides by itself and that some of them know, with its scale.
    fn without_fields(&self, encoded: &[f32], len: usize) -> Vec<(Vec<f32>, f64)> {
        let without = |(place, scale): &(Range<usize>, f64)| {
            let mut rows = encoded.to_vec();
            rows.chunks_exact_mut(len).for_each(|row| row[place.clone()].fill(0.0));
            (rows != encoded).then_some((rows, *scale))
        };
        self.guidance.iter().filter_map(without).collect()
    }
}
