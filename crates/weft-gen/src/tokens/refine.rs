//! Training of the refiner of tokens.

use super::flow::TokenFlow;
use super::model::TokenModel;
use super::refiner::{Fit, TokenRefiner};
use super::{TokenNetwork, check_shape};
use crate::error::require;
use crate::refine::SIGNS;
use crate::refine::terms::{draw_examples, signs};
use crate::{Course, Generator, Result, Trainer, course, same_architecture, schema};
use candle_core::Tensor;
use std::sync::Arc;
use weft_core::{Condition, Monitor, Population, Seed, Task};
use weft_net::{Device, PopulationLoss};
use weft_ops::tensor::Transformer;

/// Settings of the refiner of tokens and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenRefinerConfig {
    /// Strength of the anchor, in nats: `μ` times the mean of the squared shifts of a sample's normalized weights.
    pub mu: f64,
    /// Whether each sample is trained on its own half of the data.
    pub own_data: bool,
    /// Training steps.
    pub steps: u64,
    /// Samples a step of each architecture.
    pub batch_networks: usize,
    /// Training examples a sample and step.
    pub batch_examples: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Samples of each frozen proposal that training draws from.
    pub pool: usize,
    /// The most tokens that a network may have.
    pub window: usize,
    /// The transformer.
    pub network: TokenNetwork,
}

impl TokenRefinerConfig {
    /// Checks ranges.
    ///
    /// # Errors
    /// [`crate::Error::Setting`] names the first that is out of range.
    pub fn check(&self) -> Result<()> {
        require("mu", "0 or more", self.mu >= 0.0 && self.mu.is_finite(), self.mu)?;
        require("steps", "1 or more", self.steps > 0, self.steps)?;
        require("batch-networks", "1 or more", self.batch_networks > 0, self.batch_networks)?;
        require("batch-examples", "1 or more", self.batch_examples > 0, self.batch_examples)?;
        let rate = self.learning_rate;
        require("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate)?;
        require("pool", "at least batch-networks", self.pool >= self.batch_networks, self.pool)?;
        check_shape(1.into(), self.window)?;
        self.network.check()
    }
}

/// One architecture that the refiner is trained on.
pub struct RefinerPart<'a> {
    /// What samples it.
    pub proposal: &'a dyn Generator,
    /// Conditions that proposals are made under, at random, each with the task that its networks are for; none are for the data's classes.
    pub asked: Vec<(Condition, Option<Task>)>,
    /// The loss of its networks.
    pub loss: PopulationLoss,
}

impl std::fmt::Debug for RefinerPart<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RefinerPart").field("proposal", &self.proposal.name()).field("asked", &self.asked).finish_non_exhaustive()
    }
}

/// A part with its pool.
#[derive(Debug)]
struct Part {
    fit: Fit,
    loss: PopulationLoss,
    pool: Population,
    /// What each of the pool was asked for: encoded, and its task.
    told: Vec<Vec<f32>>,
    tasks: Option<Vec<Task>>,
}

/// A refiner of tokens in training.
#[derive(Debug)]
pub struct TokenRefinerTrainer {
    config: TokenRefinerConfig,
    flow: TokenFlow,
    network: Transformer,
    course: Course,
    parts: Vec<Part>,
    example_signs: Vec<u64>,
    seed: Seed,
    device: Device,
}

impl TokenRefinerTrainer {
    /// Prepares training: samples the proposals. Tokens, their moments and the conditions' fields are those of a trained flow.
    ///
    /// # Errors
    /// A setting out of range, an architecture longer than the window, a failed sample, or networks of which some have tasks and some
    /// have none.
    pub fn new(
        config: TokenRefinerConfig,
        flow: &TokenFlow,
        parts: Vec<RefinerPart<'_>>,
        seed: Seed,
        device: &Device,
    ) -> Result<Self> {
        config.check()?;
        let count = parts.first().map_or(0, |part| part.loss.num_examples());
        require("parts", "1 or more, of one data set", parts.iter().all(|p| p.loss.num_examples() == count) && count > 0, count)?;
        let parts = parts.into_iter().enumerate().map(|(at, part)| {
            let seed = seed.fork("part").index(at as u64);
            Part::new(&config, flow, part, (seed, device))
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        let network = config.network.build(parts[0].fit.space.layout.num_slots(), SIGNS + flow.model.schema.encoded_len());
        let told: Vec<Vec<f32>> = parts.iter().map(|part| part.told.concat()).collect();
        let numbers: Vec<&[f32]> = parts.iter().map(|part| part.pool.data()).chain(told.iter().map(Vec::as_slice)).collect();
        let tasks: Vec<_> = parts.iter().map(|part| (&part.tasks, part.pool.architecture().tensors())).collect();
        let TokenModel { schema, normalizer, shape, .. } = &flow.model;
        let settings = format!("{config:?} {seed:?} {tasks:?} {schema:?} {normalizer:?} {shape:?}");
        let fingerprint = course::fingerprint(&settings, &numbers);
        let plan = (config.steps, config.learning_rate, fingerprint);
        let settings = crate::refine::OPTIMIZER;
        // The first device alone: decoding is an operation on tensors.
        let initial = network.initial(seed.fork("network"));
        let course = Course::new(&initial, settings, plan, std::slice::from_ref(device.candle()))?;
        let example_signs = signs(seed.fork("examples"), count);
        Ok(Self { config, flow: flow.clone(), network, course, parts, example_signs, seed, device: device.clone() })
    }

    /// Floating-point operations of the whole training: networks forward and backward, and the refiner's own.
    #[must_use]
    pub fn flops(&self) -> f64 {
        let step = self.parts.iter().map(|part| {
            let tokens = part.fit.space.layout.num_tokens();
            let run = weft_net::forward_flops(&part.fit.space.architecture) * self.config.batch_examples as f64;
            3.0 * (run + self.network.of_tokens(tokens).flops_per_sequence())
        });
        step.sum::<f64>() * self.config.steps as f64 * self.config.batch_networks as f64
    }

    /// Ends training; the refiner uses the moving average of the parameters.
    ///
    /// # Errors
    /// If the parameters cannot be read from the device.
    pub fn finish(self) -> Result<TokenRefiner> {
        let (sizes, network, window, device) = (self.config.network, self.network, self.config.window, self.device);
        let theta = Arc::new(self.course.optimizer.average()?);
        let model = TokenModel { sizes, network, theta, window, device, ..self.flow.model };
        Ok(TokenRefiner { model, own_data: self.config.own_data })
    }

    fn train_step(&mut self) -> Result<f64> {
        let seed = self.seed.fork("step").index(self.step());
        let mut total = Tensor::zeros((), candle_core::DType::F32, self.device.candle())?;
        for (at, part) in self.parts.iter().enumerate() {
            total = (total + self.loss_of(part, seed.index(at as u64))?)?;
        }
        self.course.descend(&(total / self.parts.len() as f64)?)
    }

    /// The mean loss of some of a part's pool.
    fn loss_of(&self, part: &Part, seed: Seed) -> Result<Tensor> {
        let (config, device) = (&self.config, self.device.candle());
        let (n, b) = (config.batch_networks, config.batch_examples);
        let chosen = seed.fork("pool").indices(n, config.pool);
        let chosen: Vec<usize> = chosen.into_iter().map(|i| i as usize).collect();
        let rows = part.pool.select(&chosen);
        let told: Vec<f32> = chosen.iter().flat_map(|&i| &part.told[i]).copied().collect();
        let sample_signs = signs(seed.fork("signs"), n);
        let conditioning = crate::refine::told::conditioning(&sample_signs, &told, config.own_data, device)?;
        let shift = part.fit.shift(rows.data(), &conditioning, (&self.network, self.course.optimizer.parameters()))?;
        let rows = Tensor::from_slice(rows.data(), (n, rows.dim()), device)?;
        let refined = (rows + part.fit.decode(&shift)?)?;
        let own = config.own_data.then_some((&sample_signs[..], &self.example_signs[..]));
        let examples = draw_examples(seed.fork("examples"), [n, b, part.loss.num_examples()], own);
        let task = match &part.tasks {
            None => part.loss.cross_entropy(&refined, &examples)?,
            Some(tasks) => {
                let tasks: Vec<Task> = chosen.iter().map(|&i| tasks[i].clone()).collect();
                part.loss.cross_entropy(&refined, (&examples[..], &tasks[..]))?
            }
        };
        let weights: usize = part.fit.space.filled.iter().sum();
        let anchor = (shift.sqr()?.sum_all()? * (config.mu / (n * weights) as f64))?;
        Ok((task.mean_all()? + anchor)?)
    }
}

impl Part {
    fn new(config: &TokenRefinerConfig, flow: &TokenFlow, part: RefinerPart<'_>, (seed, device): (Seed, &Device)) -> Result<Self> {
        let RefinerPart { proposal, asked, loss } = part;
        let fit = Fit::new(flow.model.space(loss.architecture().clone())?, config.window, device)?;
        require("asked", "1 condition or more", !asked.is_empty(), asked.len())?;
        let of_tasks = asked.iter().filter(|(_, task)| task.is_some()).count();
        require("tasks", "those of all networks or of none", of_tasks == 0 || of_tasks == asked.len(), of_tasks)?;
        let drawn = seed.fork("asked").indices(config.pool, asked.len());
        let drawn: Vec<&(Condition, Option<Task>)> = drawn.into_iter().map(|i| &asked[i as usize]).collect();
        let conditions: Vec<Condition> = drawn.iter().map(|(condition, _)| condition.clone()).collect();
        let tasks: Option<Vec<Task>> = drawn.iter().map(|(_, task)| task.clone()).collect();
        let pool = proposal.sample_each(&conditions, seed.fork("pool"))?;
        same_architecture(pool.architecture(), loss.architecture())?;
        let told = schema::encode_each(&flow.model.schema, &conditions)?;
        Ok(Self { fit, loss, pool, told, tasks })
    }
}

impl Trainer for TokenRefinerTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    /// The loss is in nats, a mean over architectures.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance(self, until, monitor, Self::train_step)
    }
}
