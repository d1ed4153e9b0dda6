//! Guidance by a few examples: the loss of what a flow is about to make steers how it is made.
//!
//! At each evaluation of the velocity the flow's guess of the data, `x̂₁ = x_t + (1 − t)·v(x_t, t, c)`, is decoded and run on `m` labelled
//! examples of the task. With `ℓ` the sum of their cross-entropies, Bayes' rule for the score and the straight path's
//! `v = x/t + (1 − t)/t·∇ log p_t` give
//!
//! ```text
//! v' = v − s · (1 − t)/t · ∇_{x_t} ℓ(run(decode(x̂₁(x_t))))
//! ```
//!
//! for `s = 1`, where the likelihood of the examples is taken at the guess alone. That is diffusion posterior sampling (Chung et al. 2023,
//! algorithm 1) for the velocity of a flow (as Pokle et al. 2024 have it for linear measurements), the measurement being what a decoded
//! network says of examples. The gradient goes through the velocity network. For normal data the guess moves with `x_t` by
//! `t/(t² + (1 − t)²)`, so that the factor `1/t` does no harm; a learned velocity is not so exact near the noise, where `t` counts as one
//! step at least, and the correction is never longer than the velocity. No test example has a part in it: examples are the caller's.

use crate::decoder::{decode_shift, decode_tensor};
use crate::error::require;
use crate::flow::Flow;
use crate::{Error, Generator, Result, same_architecture, schema};
use candle_core::{Tensor, Var};
use std::sync::Arc;
use weft_core::{Architecture, Condition, ExampleSet, Population, Seed};
use weft_net::{Device, PopulationLoss};

/// The longest correction, in lengths of the velocity.
const LONGEST: f64 = 1.0;

/// Examples that steer, and how much.
#[derive(Debug, Clone)]
pub struct Guide {
    loss: PopulationLoss,
    num_examples: usize,
    scale: f64,
}

impl Guide {
    /// Prepares to be guided by examples; 1 is the scale of Bayes' rule, 0 is none.
    ///
    /// # Errors
    /// [`Error::Setting`] if the scale is negative or not finite; examples that are not for networks of this architecture.
    pub fn new(architecture: Arc<Architecture>, examples: &ExampleSet, scale: f64, device: &Device) -> Result<Self> {
        require("guide-scale", "0 or more", scale >= 0.0 && scale.is_finite(), scale)?;
        examples.check(architecture.num_inputs(), architecture.num_outputs())?;
        let loss = PopulationLoss::of_examples(architecture, examples, device)?;
        Ok(Self { loss, num_examples: examples.labels().len(), scale })
    }
}

/// A flow whose samples are steered by examples.
#[derive(Debug, Clone)]
pub struct Guided {
    flow: Flow,
    guide: Guide,
    /// Weights as a map of normalized codes: the matrix, and what codes of zeros are decoded to, `[D]`.
    decode: Tensor,
    base: Tensor,
    /// Mean and deviation of codes, `[k]`.
    moments: [Tensor; 2],
    name: String,
}

/// A velocity at `x_t` and `t`.
type Velocity<'a> = dyn Fn(&Tensor, f64) -> Result<Tensor> + 'a;

impl Guided {
    /// Steers a flow.
    ///
    /// # Errors
    /// Examples for networks of another architecture, or a codec whose map cannot be brought to the device.
    pub fn new(flow: Flow, guide: Guide) -> Result<Self> {
        same_architecture(flow.architecture(), guide.loss.architecture())?;
        let (device, codec, spread) = (&flow.codes().device, flow.codec(), &flow.codes().spread);
        let k = codec.code_len();
        let decode = decode_tensor(codec, &[], device)?;
        let base = codec.decode(&vec![0.0; k])?;
        let base = Tensor::from_vec(base, codec.dim(), device.candle())?;
        let moments = [Tensor::from_slice(&spread.mean, k, device.candle())?, Tensor::from_slice(&spread.std, k, device.candle())?];
        let name = format!("{}, guided", flow.name());
        Ok(Self { flow, guide, decode, base, moments, name })
    }

    /// The sum of the examples' cross-entropies at the flow's guess of each sample's data, in nats, and its gradient by `x_t`.
    ///
    /// # Shapes
    /// `x_t` `[n, k]`, normalized codes on their way, all under one condition → `[n]`, `[n, k]`.
    ///
    /// # Errors
    /// A condition that is not of the flow's schema, or a failed tensor operation.
    pub fn loss_and_gradient(&self, x_t: &[f32], time: f64, condition: &Condition) -> Result<(Vec<f32>, Vec<f32>)> {
        let k = self.flow.codes().code_len();
        let n = x_t.len() / k;
        let x_t = Tensor::from_slice(x_t, (n, k), self.flow.codes().device.candle())?;
        let encoded = self.flow.schema().encode(condition)?.repeat(n);
        self.flow.codes().with_velocity((&encoded, n), true, |velocity| {
            let (_, losses, gradient) = self.look(&x_t, time, velocity)?;
            Ok((losses.to_vec1::<f32>()?, gradient.flatten_all()?.to_vec1::<f32>()?))
        })
    }

    /// The velocity, the losses `[n]` of what it leads to, and their gradient.
    fn look(&self, x_t: &Tensor, time: f64, velocity: &Velocity) -> Result<(Tensor, Tensor, Tensor)> {
        let x = Var::from_tensor(x_t)?;
        let v = velocity(x.as_tensor(), time)?;
        let guess = (x.as_tensor() + (&v * (1.0 - time))?)?;
        let [mean, std] = &self.moments;
        let codes = guess.broadcast_mul(std)?.broadcast_add(mean)?;
        let rows = decode_shift(&codes, &self.decode)?.broadcast_add(&self.base)?;
        let count = self.guide.num_examples;
        let examples: Vec<u32> = (0..x_t.dim(0)?).flat_map(|_| 0..count as u32).collect();
        let losses = (self.guide.loss.cross_entropy(&rows, &examples)? * count as f64)?;
        let gradients = losses.sum_all()?.backward()?;
        let gradient = gradients.get(x.as_tensor()).ok_or_else(no_gradient)?.clone();
        Ok((v.detach(), losses.detach(), gradient))
    }

    /// The velocity, steered.
    fn steered(&self, x_t: &Tensor, time: f64, velocity: &Velocity) -> Result<Tensor> {
        // A velocity at the end leads nowhere.
        if time >= 1.0 || self.guide.scale <= 0.0 {
            return Ok(velocity(x_t, time)?.detach());
        }
        let (v, _, gradient) = self.look(x_t, time, velocity)?;
        let step = 1.0 / self.flow.codes().sampler.steps as f64;
        let correction = (gradient * (self.guide.scale * (1.0 - time) / time.max(step)))?;
        let length = |rows: &Tensor| rows.sqr()?.sum_keepdim(1)?.sqrt();
        let allowed = ((length(&v)? * LONGEST)? / (length(&correction)? + 1e-12)?)?.minimum(1.0)?;
        Ok((v - correction.broadcast_mul(&allowed)?)?)
    }

    fn sample_encoded(&self, encoded: &[f32], n: usize, seed: Seed) -> Result<Population> {
        let codes = self.flow.codes();
        let sampled = codes.with_velocity((encoded, n), true, |velocity| {
            codes.sampler.integrate(codes.noise(n, seed)?, |x_t, time| self.steered(x_t, time, velocity))
        })?;
        self.flow.decode(&codes.spread.restore(&sampled.flatten_all()?.to_vec1::<f32>()?), seed)
    }
}

fn no_gradient() -> Error {
    candle_core::Error::Msg("a loss does not depend on the codes".to_owned()).into()
}

impl Generator for Guided {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.sample_encoded(&self.flow.schema().encode(condition)?.repeat(n), n, seed)
    }

    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        self.sample_encoded(&schema::encode_each(self.flow.schema(), conditions)?.concat(), conditions.len(), seed)
    }

    /// Forward and backward passes take three times a forward pass: of the velocity, of the decoded network on all examples, of the codec.
    fn flops_per_sample(&self) -> f64 {
        let evaluations = self.flow.codes().sampler.evaluations() as f64;
        let network = weft_net::forward_flops(self.guide.loss.architecture()) * self.guide.num_examples as f64;
        3.0 * (self.flow.flops_per_sample() + evaluations * (network + self.flow.codec().decode_flops()))
    }
}
