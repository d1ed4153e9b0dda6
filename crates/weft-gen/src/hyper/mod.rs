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
//! With few training runs it may learn these by heart. [`HyperConfig::mix`] shows it conditions between those of two runs,
//! [`HyperConfig::condition_noise`] conditions beside those of one. With [`HyperConfig::members`] it is several networks, each from its own seed and on its own batches, whose codes are averaged: one network comes out, and what single ones make of
//! noise is averaged away (deep ensembles, Lakshminarayanan, Pritzel & Blundell 2017; of codes here, not of predictions).
//!
//! Held-out tasks reach it in sampling alone: it learns from [`RunTasks`] of training runs and from the training part of the data.

mod batch;

use crate::artifact::of_member;
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

/// The key of how many members a saved one has, if it has more than one.
const MEMBERS: &str = "members";

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
    /// The chance of each network of a step to be of two runs, `λ` of the one and `1 − λ` of the other with `λ ~ U(0, 1)`: the condition that is
    /// shown, the code that it is to have, and the losses at both tasks. 0 is never.
    pub mix: f64,
    /// The standard deviation of the noise that is added to each encoded value of a condition in training, in units of that value's own over training
    /// conditions; 0 is none.
    pub condition_noise: f64,
    /// Networks whose codes are averaged.
    pub members: usize,
}

/// The most members.
const MAX_MEMBERS: usize = 64;

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
        require("mix", "between 0 and 1", (0.0..=1.0).contains(&self.mix), self.mix)?;
        require("condition-noise", "0 or more", is_weight(self.condition_noise), self.condition_noise)?;
        require("members", "between 1 and 64", (1..=MAX_MEMBERS).contains(&self.members), self.members)
    }
}

fn without_tasks() -> Error {
    let expected = "those of training runs that have their own, for a hyper-decoder";
    Error::Setting { setting: "tasks", expected, got: "none".to_owned() }
}

/// Settings as a saved state of training has them; without those that were not there at first, where they do nothing.
fn as_saved(config: &HyperConfig) -> String {
    let idle = [
        (config.mix == 0.0, ", mix: 0.0"),
        (config.condition_noise == 0.0, ", condition_noise: 0.0"),
        (config.members == 1, ", members: 1"),
    ];
    let idle = idle.into_iter().filter(|(is_idle, _)| *is_idle);
    idle.fold(format!("{config:?}"), |told, (_, setting)| told.replacen(setting, "", 1))
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
    /// The members but for the first.
    others: Vec<Course>,
    loss: TaskLoss,
    data: TrainingSet,
    of_runs: Arc<RunTasks>,
    spread: Spread,
    /// Normalized codes of the training runs' last networks, `[n, k]`.
    targets: Vec<f32>,
    /// The deviation of the noise on each encoded value, `[e]`; none without noise.
    noise: Option<Vec<f32>>,
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
        let noisy = |deviations: Vec<f64>| deviations.into_iter().map(|v| (config.condition_noise * v) as f32).collect();
        let noise = (config.condition_noise > 0.0).then(|| noisy(of_runs.deviations()));
        let settings_of_state = format!("{} {seed:?} {} {}", as_saved(&config), of_runs.fingerprint(), loss.fingerprint());
        let fingerprint = course::fingerprint(settings_of_state.trim_end(), &[&targets]);
        let course = |member: usize| {
            let (initial, plan) =
                (seed_of(seed, member).fork("network"), (config.steps, config.learning_rate, fingerprint.clone()));
            Course::new(&network.initial(initial), settings, plan, std::slice::from_ref(device.candle()))
        };
        let (course, others) = (course(0)?, (1..config.members).map(course).collect::<Result<_>>()?);
        let decode = decode_tensor(&data.codec, &[], device)?;
        let base = Tensor::from_vec(data.codec.decode(&vec![0.0; k])?, data.finals.dim(), device.candle())?;
        let moments = [Tensor::from_slice(&spread.mean, k, device.candle())?, Tensor::from_slice(&spread.std, k, device.candle())?];
        let device = device.clone();
        Ok(Self {
            config,
            network,
            course,
            others,
            loss,
            data,
            of_runs,
            spread,
            targets,
            noise,
            decode,
            base,
            moments,
            seed,
            device,
        })
    }

    /// Floating-point operations of the whole training: the hyper-decoder's own, and with a task loss those of its networks.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let own = 3.0 * self.network.flops_per_row();
        let run = (1.0 + self.config.mix) * self.loss.flops(self.data.architecture()) * self.config.batch_examples as f64;
        let through = if self.config.task_weight > 0.0 { run + 4.0 * self.decode.elem_count() as f64 } else { 0.0 };
        let networks = (self.config.batch_networks * self.config.members) as f64;
        self.config.steps as f64 * networks * (own + through)
    }

    /// Ends training; the hyper-decoder uses the moving average of the parameters.
    ///
    /// # Errors
    /// If the parameters cannot be read from the device.
    pub fn finish(self) -> Result<HyperDecoder> {
        let member = |course: &Course| Member::new(course.optimizer.average()?, &self.device);
        let members = self.members().map(member).collect::<Result<_>>()?;
        Ok(HyperDecoder {
            network: self.network,
            members,
            schema: self.of_runs.schema.clone(),
            spread: self.spread,
            codec: self.data.codec.clone(),
            architecture: self.data.architecture().clone(),
            device: self.device,
        })
    }

    fn members(&self) -> impl Iterator<Item = &Course> {
        std::iter::once(&self.course).chain(&self.others)
    }

    /// All members' steps, in one pass over all that they make: the loss is the sum of each one's own, which depends on no other.
    fn train_step(&mut self) -> Result<f64> {
        let (config, device) = (&self.config, self.device.candle());
        let (n, k, len) = (config.batch_networks, self.data.code_len(), self.of_runs.schema.encoded_len());
        let step = |member: usize| seed_of(self.seed, member).fork("step").index(self.step());
        let (mut batch, mut codes) = (Batch::default(), Vec::with_capacity(config.members));
        for (member, course) in self.members().enumerate() {
            let mut drawn = Batch::draw(&self.of_runs, n, config.mix, step(member));
            if let Some(noise) = &self.noise {
                drawn.blur(&self.of_runs.schema, noise, step(member).fork("noise"));
            }
            let encoded = Tensor::from_slice(&drawn.encoded, (n, len), device)?;
            codes.push(self.network.forward(&encoded, &encoded, course.optimizer.parameters())?);
            batch.extend(drawn);
        }
        let codes = if let [codes] = &codes[..] { codes.clone() } else { Tensor::cat(&codes, 0)? };
        let mut loss = Tensor::zeros((), codes.dtype(), codes.device())?;
        if config.code_weight > 0.0 {
            let targets = Tensor::from_vec(batch.targets(&self.targets, k), codes.shape(), codes.device())?;
            loss = (loss + ((&codes - targets)?.sqr()?.mean_all()? * config.code_weight)?)?;
        }
        if config.task_weight > 0.0 {
            let [mean, std] = &self.moments;
            let z = codes.broadcast_mul(std)?.broadcast_add(mean)?;
            let (rows, runs) = batch.to_run(decode_shift(&z, &self.decode)?.broadcast_add(&self.base)?)?;
            let (of_runs, seed) = ((&*self.of_runs, &runs[..]), step(0).fork("examples"));
            let losses = self.loss.of_runs(&rows, of_runs, config.batch_examples, seed)?;
            loss = (loss + (batch.mean(&losses)? * config.task_weight)?)?;
        }
        if self.others.is_empty() {
            return self.course.descend(&loss);
        }
        // Means over all members' networks become the sum of each one's mean.
        let members = config.members as f64;
        Ok(self.course.descend_beside(&mut self.others, &(loss * members)?)? / members)
    }
}

/// The seed of a member: of the first, that of the training.
fn seed_of(seed: Seed, member: usize) -> Seed {
    if member == 0 { seed } else { seed.fork("members").index(member as u64) }
}

impl Trainer for HyperTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    fn save(&self) -> Result<Artifact> {
        self.course.save_beside(&self.others)
    }

    fn restore(&mut self, saved: &Artifact) -> Result<()> {
        self.course.restore_beside(&mut self.others, saved)
    }

    /// The loss is the mean over members of the weighted sum of the module's first lines: nats from networks at their tasks, squared deviations from codes.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance(self, until, monitor, Self::train_step)
    }
}

/// A trained hyper-decoder.
#[derive(Debug, Clone)]
pub struct HyperDecoder {
    network: ResidualMlp,
    members: Vec<Member>,
    schema: Schema,
    spread: Spread,
    codec: Arc<Codec>,
    architecture: Arc<Architecture>,
    device: Device,
}

/// One of the networks whose codes are averaged.
#[derive(Debug, Clone)]
struct Member {
    theta: Vec<f32>,
    /// The same where they are used; bringing them there takes as long as a pass for one condition.
    parameters: Parameters,
}

impl Member {
    fn new(theta: Vec<f32>, device: &Device) -> Result<Self> {
        let parameters = Parameters::frozen(&theta, device.candle(), Precision::Single)?;
        Ok(Self { theta, parameters })
    }
}

impl HyperDecoder {
    /// The condition fields that it was trained on.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// How many networks' codes are averaged.
    #[must_use]
    pub fn num_members(&self) -> usize {
        self.members.len()
    }

    /// The codes of conditions, `[n, k]`: the mean of what its members make.
    ///
    /// # Errors
    /// A condition that is not of the schema, or a failed tensor operation; [`Error::Setting`] names `conditions` if there is none.
    pub fn codes(&self, conditions: &[Condition]) -> Result<Vec<f32>> {
        let (n, device) = (conditions.len(), self.device.candle());
        let encoded = schema::encode_each(&self.schema, conditions)?;
        let encoded = Tensor::from_vec(encoded.concat(), (n, self.schema.encoded_len()), device)?;
        let of_member = |member: &Member| -> Result<Tensor> { Ok(self.network.forward(&encoded, &encoded, &member.parameters)?) };
        let codes = match &self.members[..] {
            [member] => of_member(member)?,
            members => Tensor::stack(&members.iter().map(of_member).collect::<Result<Vec<_>>>()?, 0)?.mean(0)?,
        };
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
        let mut artifact = Artifact::default();
        for (place, Member { theta, .. }) in self.members.iter().enumerate() {
            artifact = artifact.with_vector(&of_member("theta", place), theta);
        }
        if self.members.len() > 1 {
            artifact = artifact.with_text(MEMBERS, self.members.len());
        }
        let artifact = artifact
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
        // Those that were saved before there were members have one.
        let count = if saved.metadata.contains_key(MEMBERS) { saved.text(MEMBERS)? } else { 1 };
        if !(1..=MAX_MEMBERS).contains(&count) {
            let reason = format!("{count} is not between 1 and {MAX_MEMBERS}");
            return Err(Error::Artifact { entry: MEMBERS.to_owned(), reason });
        }
        let member = |place: usize| Member::new(saved.vector(&of_member("theta", place), network.num_parameters())?, device);
        let members = (0..count).map(member).collect::<Result<_>>()?;
        let spread = Spread { mean: saved.vector("code-mean", k)?, std: saved.vector("code-std", k)? };
        Ok(Self { network, members, schema, spread, codec, architecture, device: device.clone() })
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
        self.members.len() as f64 * self.network.flops_per_row() + self.codec.decode_flops()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// States of training that were saved before there were mixing and members go on where these do nothing.
    #[test]
    fn settings_that_do_nothing_are_not_told() {
        let config = HyperConfig {
            code_weight: 0.1,
            task_weight: 1.0,
            steps: 20,
            batch_networks: 24,
            batch_examples: 32,
            learning_rate: 3e-3,
            weight_decay: 0.01,
            ema_decay: 0.9,
            width: 48,
            blocks: 1,
            mix: 0.0,
            condition_noise: 0.0,
            members: 1,
        };
        let before = "HyperConfig { code_weight: 0.1, task_weight: 1.0, steps: 20, batch_networks: 24, batch_examples: 32, \
            learning_rate: 0.003, weight_decay: 0.01, ema_decay: 0.9, width: 48, blocks: 1 }";
        assert_eq!(as_saved(&config), before);
        for (config, told) in [
            (HyperConfig { mix: 0.01, ..config.clone() }, "mix: 0.01"),
            (HyperConfig { condition_noise: 0.05, ..config.clone() }, "condition_noise: 0.05"),
            (HyperConfig { members: 12, ..config.clone() }, "members: 12"),
        ] {
            assert!(as_saved(&config).contains(told), "{}", as_saved(&config));
        }
    }
}
