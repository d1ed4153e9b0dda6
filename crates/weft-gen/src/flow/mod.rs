//! Conditional flow matching on codes.
//!
//! Straight path `x_t = (1 − t)·noise + t·data`, target velocity `data − noise`, squared error
//! (Lipman et al. 2023; Liu et al. 2023). Conditions are dropped at random in training, whole and field by field,
//! so that any part of one may be unknown at sampling time (Ho & Salimans 2022).
//!
//! Codes are brought to mean 0 and variance 1 over the last snapshots first. The network learns only what is not
//! Gaussian: `v(x, t) = s(t)·x + o(t)·net(x, t, c)` with
//! `s(t) = (2t − 1)/(t² + (1 − t)²)` and `o(t) = (t² + (1 − t)²)^(−½)`. The first term is the exact velocity for data
//! of mean 0 and covariance 1 (preconditioning, Karras et al. 2022, equation 7, for this path); with the
//! output map starting at 0 the flow starts as the PCA-Gaussian baseline.
//!
//! Each step draws from `seed.fork("step").index(step)` alone, so the step's number is the whole position of the
//! random streams and training resumes bit for bit.

mod codes;
mod weights;

pub use codes::CodeFlow;
pub use weights::Flow;

use crate::error::require;
use crate::trivial::column_moments;
use crate::{CodeSet, Course, Result, SamplerConfig, Trainer, course, schema};
use weft_core::{FieldSpec, Monitor, Schema, Seed};
use weft_net::Device;
use weft_ops::tensor::{FlatOptimizerConfig, Lesson, ResidualMlp, ResidualMlpConfig, regress};

/// Frequencies of the time embedding.
pub(crate) const TIME_FREQUENCIES: usize = 32;

/// Settings of the flow and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowConfig {
    /// Width of the velocity network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// Training steps.
    pub steps: u64,
    /// Codes a step.
    pub batch_size: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Steps of linear warm-up before the cosine.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Longest gradient.
    pub clip_norm: f64,
    /// Decay of the moving average that is sampled from.
    pub ema_decay: f64,
    /// Condition fields to train on.
    pub conditions: Vec<FieldSpec>,
    /// Probability that a field is dropped, and again that all are.
    pub condition_dropout: f64,
    /// Whether samples get Gaussian noise of the variance that the codec drops (probabilistic PCA, Tipping & Bishop 1999).
    pub residual_noise: bool,
}

impl FlowConfig {
    fn check(&self) -> Result<()> {
        require("width", "between 1 and 16384", (1..=16_384).contains(&self.width), self.width)?;
        require("blocks", "at most 256", self.blocks <= 256, self.blocks)?;
        require("batch-size", "1 or more", self.batch_size > 0, self.batch_size)?;
        require("steps", "1 or more", self.steps > 0, self.steps)?;
        let rate = self.learning_rate;
        require("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("clip-norm", "a positive number", self.clip_norm > 0.0, self.clip_norm)?;
        require("ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("condition-dropout", "in [0, 1]", (0.0..=1.0).contains(&self.condition_dropout), self.condition_dropout)
    }

    fn optimizer(&self) -> FlatOptimizerConfig {
        FlatOptimizerConfig { weight_decay: self.weight_decay, clip_norm: self.clip_norm, ema_decay: self.ema_decay }
    }

    fn network(&self, code_len: usize, schema: &Schema) -> ResidualMlp {
        let conditioning = 2 * TIME_FREQUENCIES + 1 + schema.encoded_len();
        ResidualMlp::new(ResidualMlpConfig {
            inputs: code_len,
            conditioning,
            width: self.width,
            blocks: self.blocks,
            outputs: code_len,
        })
    }
}

/// A flow in training.
#[derive(Debug)]
pub struct FlowTrainer {
    config: FlowConfig,
    network: ResidualMlp,
    course: Course,
    schema: Schema,
    spread: Spread,
    /// Normalized codes, `[n, k]`.
    codes: Vec<f32>,
    encoded: Vec<f32>,
    data: CodeSet,
    device: Device,
    seed: Seed,
}

impl FlowTrainer {
    /// Prepares training from the start.
    ///
    /// # Errors
    /// A setting out of range, conditions that do not fit their fields' types, or a failed transfer to the device.
    pub fn new(config: FlowConfig, data: CodeSet, seed: Seed, device: &Device) -> Result<Self> {
        config.check()?;
        let (schema, encoded) = schema::fit(&config.conditions, &data.conditions)?;
        let k = data.code_len;
        let network = config.network(k, &schema);
        let settings = format!("{config:?} {schema:?} {seed:?}");
        let fingerprint = course::fingerprint(&settings, &[&data.codes, &data.final_codes, &encoded]);
        let plan = (config.steps, config.learning_rate, fingerprint);
        let course = Course::new(&network.initial(seed.fork("network")), config.optimizer(), plan, device.all())?;
        let spread = Spread::of(&data.final_codes, k);
        let codes = spread.normalize(&data.codes);
        Ok(Self { config, network, course, schema, spread, codes, encoded, data, device: device.clone(), seed })
    }

    /// Floating-point operations of the whole training.
    #[must_use]
    pub fn flops(&self) -> f64 {
        3.0 * self.network.flops_per_row() * self.config.batch_size as f64 * self.config.steps as f64
    }

    /// Ends training; samples come from the moving average.
    ///
    /// # Errors
    /// If that cannot be read from the device.
    pub fn finish(self, sampler: SamplerConfig) -> Result<CodeFlow> {
        Ok(CodeFlow {
            network: self.network,
            theta: self.course.optimizer.average()?,
            schema: self.schema,
            spread: self.spread,
            residual_noise: self.config.residual_noise,
            sampler,
            guidance: Vec::new(),
            device: self.device,
        })
    }

    /// Queues one step; its loss is read later.
    ///
    /// With `v = s·x_t + o·f` the loss `|v − (data − noise)|²` is `o²·|f − (data − noise − s·x_t)/o|²`, which is how the network learns it.
    fn train_step(&mut self) -> Result<()> {
        let seed = self.seed.fork("step").index(self.step());
        let (b, k) = (self.config.batch_size, self.data.code_len);
        let chosen = seed.fork("codes").indices(b, self.codes.len() / k);
        let times = seed.fork("time").uniforms(b);
        let mut targets = seed.fork("noise").normals(b * k);
        let mut inputs = vec![0.0; b * k];
        let mut weights = Vec::with_capacity(b);
        let rows = inputs.chunks_exact_mut(k).zip(targets.chunks_exact_mut(k)).zip(chosen.iter().zip(&times));
        for ((x_t, target), (&example, &t)) in rows {
            let (skip, scale) = precondition(t);
            let data = &self.codes[example as usize * k..][..k];
            // `target` holds the noise so far.
            for ((x, target), &data) in x_t.iter_mut().zip(target).zip(data) {
                *x = (1.0 - t) * *target + t * data;
                *target = (data - *target - skip * *x) / scale;
            }
            weights.push(scale * scale);
        }
        let condition = self.conditioning(&chosen, &times, seed.fork("drop"));
        let lesson = Lesson { inputs: &inputs, condition: &condition, targets: &targets, weights: &weights };
        regress(&self.network, &lesson, self.course.optimizer.parameters())?;
        self.course.update(self.config.warmup_steps)
    }

    /// Time embedding and conditions of a training batch, some dropped.
    fn conditioning(&self, chosen: &[u32], times: &[f32], seed: Seed) -> Vec<f32> {
        let (fields, len) = (self.schema.fields.len(), self.schema.encoded_len());
        let draws = seed.uniforms(chosen.len() * (fields + 1));
        let p = self.config.condition_dropout as f32;
        let mut rows = Vec::new();
        for ((&example, &t), draws) in chosen.iter().zip(times).zip(draws.chunks_exact(fields + 1)) {
            embed_time(t, &mut rows);
            let mut start = example as usize * len;
            for (width, &draw) in self.schema.widths().zip(draws) {
                let dropped = draws[fields] < p || draw < p;
                let field = &self.encoded[start..start + width];
                rows.extend(field.iter().map(|&v| if dropped { 0.0 } else { v }));
                start += width;
            }
        }
        rows
    }
}

impl Trainer for FlowTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    /// The loss is that of the velocity, a mean over codes and in units of their variance.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance_ahead(self, until, monitor, Self::train_step)
    }
}

/// `s(t)` and `o(t)` of the module's first lines.
pub(crate) fn precondition(t: f32) -> (f32, f32) {
    let variance = t * t + (1.0 - t) * (1.0 - t);
    ((2.0 * t - 1.0) / variance, variance.sqrt().recip())
}

/// Appends `t` and sines and cosines of it at log-spaced frequencies in `1..1000`.
pub(crate) fn embed_time(t: f32, out: &mut Vec<f32>) {
    out.push(t);
    for i in 0..TIME_FREQUENCIES {
        let frequency = 1000f32.powf(i as f32 / (TIME_FREQUENCIES - 1) as f32);
        let (sin, cos) = (t * frequency).sin_cos();
        out.extend([sin, cos]);
    }
}

/// Mean and standard deviation of each code over the last snapshots.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spread {
    pub(crate) mean: Vec<f32>,
    pub(crate) std: Vec<f32>,
}

impl Spread {
    pub(crate) fn of(codes: &[f32], k: usize) -> Self {
        let (mean, std) = column_moments(codes, k);
        Self { mean, std: std.into_iter().map(|s| s.max(1e-4)).collect() }
    }

    pub(crate) fn normalize(&self, codes: &[f32]) -> Vec<f32> {
        let moments = self.mean.iter().zip(&self.std).cycle();
        codes.iter().zip(moments).map(|(z, (m, s))| (z - m) / s).collect()
    }

    pub(crate) fn restore(&self, normal: &[f32]) -> Vec<f32> {
        let moments = self.mean.iter().zip(&self.std).cycle();
        normal.iter().zip(moments).map(|(x, (m, s))| x * s + m).collect()
    }
}

#[cfg(test)]
mod tests;
