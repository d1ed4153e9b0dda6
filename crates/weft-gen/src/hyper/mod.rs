//! The hyper-decoder: from a condition to a network in one pass.
//!
//! `z = s ⊙ h(c) + m`, `w = decode(z)`: a residual network `h` reads the encoded condition and gives a code in units of the training runs'
//! standard deviations. It is trained on conditions of training runs by
//!
//! ```text
//! code-weight · |h(c) − ẑ|²/k  +  task-weight · CE(run(decode(z), batch of the task))
//! ```
//!
//! `ẑ` is the normalized code of the run whose condition `c` is; either weight may be 0. With the first alone it regresses codes, which is
//! what generators of parameters from prompts do (Drag-and-Drop LLMs, Liang et al. 2025, and the reconstruction training of
//! Text-to-LoRA, Charakorn et al. 2025); with the second alone it is a hypernetwork trained through its networks' tasks (hypernetworks,
//! Ha, Dai & Le 2017; the supervised training of Text-to-LoRA).
//!
//! It is deterministic, like those: every sample of one condition is the same network. What is not determined by the condition is for the
//! [`flow`](crate::flow) and its [`refine`](crate::refine)r.
//!
//! A run may have several conditions, such as several draws of [`examples`](crate::examples); each is of the run's one task and code.
//!
//! The networks may be adapters: then `run` goes through their frozen base ([`TaskLoss`]).
//!
//! With few training runs it may learn these by heart. [`HyperConfig::mix`] shows it conditions between those of two runs.
//!
//! Held-out tasks reach it in sampling alone: it learns from [`RunTasks`] of training runs and from the training part of the data.

mod batch;

use crate::decoder::{decode_shift, decode_tensor};
use crate::error::require;
use crate::flow::Spread;
use crate::{Artifact, Course, Error, Generator, Result, RunTasks, TaskLoss, Trainer, TrainingSet, course, schema};
use batch::Batch;
use candle_core::Tensor;
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Condition, Monitor, Population, Schema, Seed};
use weft_net::Device;
use weft_ops::tensor::{FlatOptimizerConfig, Parameters, Precision, ResidualMlp, ResidualMlpConfig};

/// The generator's name in reports.
const NAME: &str = "hyper-decoder";

/// Settings of the hyper-decoder and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct HyperConfig {
    /// How much the squared distance to a run's code counts, a code and in units of its variance; 0 is not at all.
    pub code_weight: f64,
    /// How much the cross-entropy of the decoded network at its task counts, in nats; 0 is not at all.
    pub task_weight: f64,
    /// Training steps.
    pub steps: u64,
    /// Networks a step.
    pub batch_networks: usize,
    /// Training examples a network and step.
    pub batch_examples: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay of the moving average that is sampled from.
    pub ema_decay: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// The chance of each network of a step to be of two runs, `λ` of the one and `1 − λ` of the other with `λ ~ U(0, 1)`: the condition that is shown, the code
    /// that it is to have, and the losses at both tasks. 0 is never.
    pub mix: f64,
}

impl HyperConfig {
    /// Checks ranges, and that there are tasks to follow.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is out of range, or `tasks`.
    pub fn check(&self, many_tasks: bool) -> Result<()> {
        if !many_tasks {
            return Err(without_tasks());
        }
        let is_weight = |weight: f64| weight >= 0.0 && weight.is_finite();
        require("code-weight", "0 or more", is_weight(self.code_weight), self.code_weight)?;
        let task = self.task_weight;
        let some = task > 0.0 || self.code_weight > 0.0;
        require("task-weight", "0 or more, and above 0 if `code-weight` is 0", is_weight(task) && some, task)?;
        require("steps", "1 or more", self.steps > 0, self.steps)?;
        require("batch-networks", "1 or more", self.batch_networks > 0, self.batch_networks)?;
        require("batch-examples", "1 or more", self.batch_examples > 0, self.batch_examples)?;
        let rate = self.learning_rate;
        require("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("weight-decay", "0 or more", is_weight(self.weight_decay), self.weight_decay)?;
        require("ema-decay", "in [0, 1)", (0.0..1.0).contains(&self.ema_decay), self.ema_decay)?;
        require("width", "between 1 and 16384", (1..=16_384).contains(&self.width), self.width)?;
        require("blocks", "at most 256", self.blocks <= 256, self.blocks)?;
        require("mix", "between 0 and 1", (0.0..=1.0).contains(&self.mix), self.mix)
    }
}

fn without_tasks() -> Error {
    let expected = "those of training runs that have their own, for a hyper-decoder";
    Error::Setting { setting: "tasks", expected, got: "none".to_owned() }
}

/// Settings as a saved state of training has them: as they were before there was `mix`, if they are what was done then.
fn as_saved(config: &HyperConfig) -> String {
    format!("{config:?}").replacen(", mix: 0.0", "", 1)
}

/// The network from encoded conditions to codes of length `k`; the condition enters at the bottom and at every block.
fn network(schema: &Schema, k: usize, width: usize, blocks: usize) -> ResidualMlp {
    let encoded = schema.encoded_len();
    ResidualMlp::new(ResidualMlpConfig { inputs: encoded, conditioning: encoded, width, blocks, outputs: k })
}

/// A hyper-decoder in training.
#[derive(Debug)]
pub struct HyperTrainer {
    config: HyperConfig,
    network: ResidualMlp,
    course: Course,
    loss: TaskLoss,
    data: TrainingSet,
    of_runs: Arc<RunTasks>,
    spread: Spread,
    /// Normalized codes of the training runs' last networks, `[n, k]`.
    targets: Vec<f32>,
    /// Weights as a map of codes: the matrix, and what a code of zeros is decoded to, `[D]`.
    decode: Tensor,
    base: Tensor,
    /// Mean and deviation of codes, `[k]`, which turn normalized ones into them.
    moments: [Tensor; 2],
    seed: Seed,
    device: Device,
}

impl HyperTrainer {
    /// Prepares training from the start.
    ///
    /// # Errors
    /// A setting out of range, training runs without tasks of their own, a loss of other networks, or a failed transfer to the device.
    pub fn new(config: HyperConfig, data: TrainingSet, loss: impl Into<TaskLoss>, seed: Seed, device: &Device) -> Result<Self> {
        config.check(data.tasks.is_some())?;
        let loss = loss.into();
        let Some(of_runs) = data.tasks.clone() else { return Err(without_tasks()) };
        loss.check((data.architecture(), data.finals.len()), &of_runs)?;
        let k = data.code_len();
        let network = network(&of_runs.schema, k, config.width, config.blocks);
        let settings = FlatOptimizerConfig { weight_decay: config.weight_decay, clip_norm: 1.0, ema_decay: config.ema_decay };
        let spread = Spread::of(&data.final_codes, k);
        let targets = spread.normalize(&data.final_codes);
        let settings_of_state = format!("{} {seed:?} {} {}", as_saved(&config), of_runs.fingerprint(), loss.fingerprint());
        let fingerprint = course::fingerprint(settings_of_state.trim_end(), &[&targets]);
        let plan = (config.steps, config.learning_rate, fingerprint);
        let course = Course::new(&network.initial(seed.fork("network")), settings, plan, std::slice::from_ref(device.candle()))?;
        let decode = decode_tensor(&data.codec, &[], device)?;
        let base = Tensor::from_vec(data.codec.decode(&vec![0.0; k])?, data.finals.dim(), device.candle())?;
        let moments = [Tensor::from_slice(&spread.mean, k, device.candle())?, Tensor::from_slice(&spread.std, k, device.candle())?];
        let device = device.clone();
        Ok(Self { config, network, course, loss, data, of_runs, spread, targets, decode, base, moments, seed, device })
    }

    /// Floating-point operations of the whole training: the hyper-decoder's own, and with a task loss those of its networks.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let own = 3.0 * self.network.flops_per_row();
        let run = (1.0 + self.config.mix) * self.loss.flops(self.data.architecture()) * self.config.batch_examples as f64;
        let through = if self.config.task_weight > 0.0 { run + 4.0 * self.decode.elem_count() as f64 } else { 0.0 };
        self.config.steps as f64 * self.config.batch_networks as f64 * (own + through)
    }

    /// Ends training; the hyper-decoder uses the moving average of the parameters.
    ///
    /// # Errors
    /// If the parameters cannot be read from the device.
    pub fn finish(self) -> Result<HyperDecoder> {
        Ok(HyperDecoder {
            network: self.network,
            theta: self.course.optimizer.average()?,
            schema: self.of_runs.schema.clone(),
            spread: self.spread,
            codec: self.data.codec.clone(),
            architecture: self.data.architecture().clone(),
            device: self.device,
        })
    }

    fn train_step(&mut self) -> Result<f64> {
        let config = &self.config;
        let seed = self.seed.fork("step").index(self.step());
        let (n, k) = (config.batch_networks, self.data.code_len());
        let batch = Batch::draw(&self.of_runs, n, config.mix, seed);
        let encoded = Tensor::from_slice(&batch.encoded, (n, self.of_runs.schema.encoded_len()), self.device.candle())?;
        let codes = self.network.forward(&encoded, &encoded, self.course.optimizer.parameters())?;
        let mut loss = Tensor::zeros((), codes.dtype(), codes.device())?;
        if config.code_weight > 0.0 {
            let targets = Tensor::from_vec(batch.targets(&self.targets, k), (n, k), codes.device())?;
            loss = (loss + ((&codes - targets)?.sqr()?.mean_all()? * config.code_weight)?)?;
        }
        if config.task_weight > 0.0 {
            let [mean, std] = &self.moments;
            let z = codes.broadcast_mul(std)?.broadcast_add(mean)?;
            let (rows, runs) = batch.to_run(decode_shift(&z, &self.decode)?.broadcast_add(&self.base)?)?;
            let (of_runs, seed) = ((&*self.of_runs, &runs[..]), seed.fork("examples"));
            let losses = self.loss.of_runs(&rows, of_runs, config.batch_examples, seed)?;
            loss = (loss + (batch.mean(&losses)? * config.task_weight)?)?;
        }
        self.course.descend(&loss)
    }
}

impl Trainer for HyperTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    /// The loss is the weighted sum of the module's first lines: nats from networks at their tasks, squared deviations from codes.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance(self, until, monitor, Self::train_step)
    }
}

/// A trained hyper-decoder.
#[derive(Debug, Clone)]
pub struct HyperDecoder {
    network: ResidualMlp,
    theta: Vec<f32>,
    schema: Schema,
    spread: Spread,
    codec: Arc<Codec>,
    architecture: Arc<Architecture>,
    device: Device,
}

impl HyperDecoder {
    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The codes of conditions, `[n, k]`.
    ///
    /// # Errors
    /// A condition that is not of the schema, or a failed tensor operation; [`Error::Setting`] names `conditions` if there is none.
    pub fn codes(&self, conditions: &[Condition]) -> Result<Vec<f32>> {
        let (n, device) = (conditions.len(), self.device.candle());
        let encoded = schema::encode_each(&self.schema, conditions)?;
        let encoded = Tensor::from_vec(encoded.concat(), (n, self.schema.encoded_len()), device)?;
        let theta = Parameters::frozen(&self.theta, device, Precision::Single)?;
        let codes = self.network.forward(&encoded, &encoded, &theta)?;
        Ok(self.spread.restore(&codes.flatten_all()?.to_vec1::<f32>()?))
    }

    /// The network of a condition, mixed with a code: `decode((1 − strength)·code + strength·h(c))`, `[1, D]`.
    ///
    /// # Units
    /// A strength of 0 is the code's own network, one of 1 what [`Generator::sample`] gives.
    ///
    /// # Errors
    /// [`Error::Setting`] for a strength outside `[0, 1]` or a code of another length, else as [`HyperDecoder::codes`].
    pub fn sample_near(&self, (code, strength): (&[f32], f64), condition: &Condition) -> Result<Population> {
        require("strength", "between 0 and 1", (0.0..=1.0).contains(&strength), strength)?;
        require("code", "as long as the hyper-decoder's codes", code.len() == self.codec.code_len(), code.len())?;
        let made = self.codes(std::slice::from_ref(condition))?;
        let mix = |(&near, &made): (&f32, &f32)| ((1.0 - strength) * f64::from(near) + strength * f64::from(made)) as f32;
        let mixed: Vec<f32> = code.iter().zip(&made).map(mix).collect();
        Ok(Population::new(self.architecture.clone(), self.codec.decode(&mixed)?)?)
    }

    /// What sampling needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        let config = self.network.config();
        let artifact = Artifact::default()
            .with_vector("theta", &self.theta)
            .with_vector("code-mean", &self.spread.mean)
            .with_vector("code-std", &self.spread.std)
            .with_text("kind", "hyper")
            .with_text("width", config.width)
            .with_text("blocks", config.blocks);
        schema::save(&self.schema, artifact)
    }

    /// Restores a saved hyper-decoder.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or does not fit the codec.
    pub fn load(saved: &Artifact, codec: Arc<Codec>, architecture: Arc<Architecture>, device: &Device) -> Result<Self> {
        let [width, blocks] = saved.network_size()?;
        let (k, schema) = (codec.code_len(), schema::load(saved)?);
        let network = network(&schema, k, width, blocks);
        let theta = saved.vector("theta", network.num_parameters())?;
        let spread = Spread { mean: saved.vector("code-mean", k)?, std: saved.vector("code-std", k)? };
        Ok(Self { network, theta, schema, spread, codec, architecture, device: device.clone() })
    }
}

impl Generator for HyperDecoder {
    fn name(&self) -> &str {
        NAME
    }

    /// Decodes the condition once: all `n` networks are the same, whatever the seed.
    fn sample(&self, n: usize, condition: &Condition, _: Seed) -> Result<Population> {
        let row = self.codec.decode(&self.codes(std::slice::from_ref(condition))?)?;
        Ok(Population::new(self.architecture.clone(), row.repeat(n))?)
    }

    /// Decodes all conditions in one pass.
    fn sample_each(&self, conditions: &[Condition], _: Seed) -> Result<Population> {
        Ok(Population::new(self.architecture.clone(), self.codec.decode(&self.codes(conditions)?)?)?)
    }

    fn flops_per_sample(&self) -> f64 {
        self.network.flops_per_row() + self.codec.decode_flops()
    }
}
