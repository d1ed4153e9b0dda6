//! A trained token generator for one architecture: noise to networks, window by window.

use super::TokenFlow;
use super::space::Space;
use crate::flow::{embed_time, precondition};
use crate::{Generator, Result, schema};
use candle_core::Tensor;
use std::ops::Range;
use std::sync::Arc;
use weft_core::{Architecture, Condition, Population, Seed};
use weft_ops::tensor::{Parameters, Precision};

/// The generator's name in reports.
const NAME: &str = "tokens";

/// Samples networks of one architecture.
///
/// Running statistics of batch norms are 0: they follow from the other weights and data (`weft_net::recalibrate`).
#[derive(Debug, Clone)]
pub struct TokenGenerator {
    pub(super) flow: TokenFlow,
    pub(super) space: Space,
}

impl TokenGenerator {
    /// The architecture that is sampled.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.space.architecture
    }

    /// The number of tokens of a network.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.space.layout.num_tokens()
    }

    /// Carries noise to networks under encoded conditions, as many at once as fit a window.
    fn integrate(&self, encoded: &[Vec<f32>], seed: Seed) -> Result<Population> {
        let (t, f) = (self.num_tokens(), self.space.layout.num_slots());
        let device = self.flow.model.device.candle();
        let theta = Parameters::frozen(&self.flow.model.theta, device, Precision::Single)?;
        let windows = self.space.layout.windows(self.flow.model.window);
        let masks = windows.iter().map(|window| self.space.mask(window.clone(), device)).collect::<Result<Vec<_>>>()?;
        let windows: Vec<_> = windows.into_iter().zip(masks).collect();
        // As few passes as fit the window, of sizes that differ by little: a last one of a single network is slow.
        let passes = encoded.len().div_ceil((self.flow.model.window / t).max(1)).max(1);
        let at_once = encoded.len().div_ceil(passes).max(1);
        let mut rows = Vec::with_capacity(encoded.len() * self.space.layout.dim());
        for (at, encoded) in encoded.chunks(at_once).enumerate() {
            let n = encoded.len();
            let noise = (0..n).flat_map(|i| seed.index((at * at_once + i) as u64).fork("noise").normals(t * f)).collect();
            let noise = Tensor::from_vec(noise, (n, t, f), device)?;
            let guided = self.flow.sampler.is_guided() && encoded.iter().flatten().any(|&v| v != 0.0);
            let unknown = vec![vec![0.0; self.flow.model.schema.encoded_len()]; n];
            let tokens = self.flow.sampler.integrate(noise, |x_t, time| {
                let conditional = self.velocity((x_t, time), encoded, &windows, &theta)?;
                if !guided {
                    return Ok(conditional);
                }
                let free = self.velocity((x_t, time), &unknown, &windows, &theta)?;
                Ok::<_, crate::Error>((&free + ((conditional - &free)? * self.flow.sampler.guidance_scale)?)?)
            })?;
            for tokens in tokens.flatten_all()?.to_vec1::<f32>()?.chunks_exact(t * f) {
                rows.extend(self.space.moments.restore(&self.space.layout.to_row(tokens)?));
            }
        }
        Ok(Population::new(self.space.architecture.clone(), rows)?)
    }

    /// The velocity of all tokens, `[n, t, f]`, one window after the other.
    fn velocity(
        &self,
        (x_t, time): (&Tensor, f64),
        encoded: &[Vec<f32>],
        windows: &[(Range<usize>, Tensor)],
        theta: &Parameters,
    ) -> Result<Tensor> {
        let mut conditioning = Vec::new();
        for encoded in encoded {
            embed_time(time as f32, &mut conditioning);
            conditioning.extend_from_slice(encoded);
        }
        let n = encoded.len();
        let shape = (n, conditioning.len() / n.max(1));
        let conditioning = Tensor::from_vec(conditioning, shape, x_t.device())?;
        let (skip, scale) = precondition(time as f32);
        let mut parts = Vec::with_capacity(windows.len());
        for (window, mask) in windows {
            let x = x_t.narrow(1, window.start, window.len())?.broadcast_mul(mask)?;
            let inputs = self.space.with_coordinates(&x, window.clone())?;
            let learned = self.flow.model.network.of_tokens(window.len()).forward(&inputs, Some(&conditioning), theta)?;
            parts.push(((x * f64::from(skip))? + (learned.broadcast_mul(mask)? * f64::from(scale))?)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Tensor::cat(&parts, 1)? })
    }
}

impl Generator for TokenGenerator {
    fn name(&self) -> &str {
        NAME
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.integrate(&vec![self.flow.model.schema.encode(condition)?; n], seed)
    }

    fn sample_each(&self, conditions: &[Condition], seed: Seed) -> Result<Population> {
        self.integrate(&schema::encode_each(&self.flow.model.schema, conditions)?, seed)
    }

    fn flops_per_sample(&self) -> f64 {
        let windows = self.space.layout.windows(self.flow.model.window);
        let pass: f64 = windows.iter().map(|w| self.flow.model.network.of_tokens(w.len()).flops_per_sequence()).sum();
        // Guidance runs the network twice, wherever there is a condition to be guided by.
        let passes = if self.flow.sampler.is_guided() && !self.flow.model.schema.fields.is_empty() { 2.0 } else { 1.0 };
        passes * pass * self.flow.sampler.evaluations() as f64
    }
}
