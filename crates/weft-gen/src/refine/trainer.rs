//! Training of the refiner.

use super::refined::Refiner;
use super::terms::{closeness, draw_examples, final_losses, mean_distance, shell_inputs, signs};
use super::told::{Levels, Told, conditioning};
use super::{FIXED_POINTS, RefinerConfig};
use crate::decoder::{decode_shift, decode_tensor, without};
use crate::error::require;
use crate::{Course, Error, Generator, Result, RunTasks, TaskLoss, Trainer, TrainingSet, course};
use candle_core::Tensor;
use std::sync::Arc;
use weft_core::{Architecture, Condition, Monitor, Population, Seed, Task};
use weft_net::{Device, Ensemble, PopulationLoss};
use weft_ops::tensor::{ResidualMlp, ResidualMlpConfig};

/// What samples are to reach.
#[derive(Debug)]
enum Aim {
    /// Networks of one task: the losses of training runs.
    Levels { levels: Levels, loss: PopulationLoss },
    /// Networks of many: each its own task, that of the training run under whose condition it was proposed.
    Tasks {
        of_runs: Arc<RunTasks>,
        loss: TaskLoss,
        /// The condition of each of the pool.
        runs: Vec<u32>,
    },
}

/// The same for the samples of a step.
enum Aims<'a> {
    /// A loss a sample.
    Levels(&'a PopulationLoss, Vec<f32>),
    /// A training run's condition a sample.
    Tasks(&'a TaskLoss, &'a RunTasks, Vec<usize>),
}

impl Aim {
    fn new(config: &RefinerConfig, data: &TrainingSet, loss: TaskLoss, seed: Seed) -> Result<Self> {
        let Some(of_runs) = &data.tasks else {
            let TaskLoss::Examples(loss) = loss else {
                let expected = "conditions of training runs, for what they are to do";
                return Err(Error::Setting { setting: "tasks", expected, got: "none".to_owned() });
            };
            let levels = Levels::new(final_losses(&data.finals, &loss, seed.fork("levels"))?);
            return Ok(Self::Levels { levels, loss });
        };
        loss.check((data.architecture(), data.finals.len()), of_runs)?;
        let runs = seed.fork("runs").indices(config.pool, of_runs.conditions.len());
        Ok(Self::Tasks { of_runs: of_runs.clone(), loss, runs })
    }

    /// Labelled examples that samples are run on; adapters have none.
    fn examples(&self) -> Option<&PopulationLoss> {
        match self {
            Self::Levels { loss, .. } | Self::Tasks { loss: TaskLoss::Examples(loss), .. } => Some(loss),
            Self::Tasks { .. } => None,
        }
    }

    /// Floating-point operations of one network's forward and backward pass over an example.
    fn flops(&self, architecture: &Architecture) -> f64 {
        match self {
            Self::Levels { .. } => 3.0 * weft_net::forward_flops(architecture),
            Self::Tasks { loss, .. } => loss.flops(architecture),
        }
    }

    /// The proposals that training draws from.
    fn pool(&self, size: usize, (proposal, condition): (&dyn Generator, &Condition), seed: Seed) -> Result<Population> {
        match self {
            Self::Tasks { of_runs, runs, .. } => {
                let conditions: Vec<Condition> = runs.iter().map(|&run| of_runs.conditions[run as usize].clone()).collect();
                proposal.sample_each(&conditions, seed)
            }
            Self::Levels { .. } => proposal.sample(size, condition, seed),
        }
    }

    /// What the refiner is told of it.
    fn told(&self) -> Told {
        match self {
            Self::Levels { levels, .. } => Told::Level(levels.clone()),
            Self::Tasks { of_runs, .. } => Told::Condition(of_runs.schema.clone()),
        }
    }

    /// What chosen samples of the pool are told, and what they are to reach.
    fn of(&self, chosen: &[u32], seed: Seed) -> (Vec<f32>, Aims<'_>) {
        match self {
            Self::Levels { levels, loss } => {
                let drawn = levels.draw(seed, chosen.len());
                (levels.standardized(&drawn), Aims::Levels(loss, drawn))
            }
            Self::Tasks { of_runs, loss, runs } => {
                let chosen: Vec<usize> = chosen.iter().map(|&i| runs[i as usize] as usize).collect();
                let told = chosen.iter().flat_map(|&run| of_runs.encoded(run)).copied().collect();
                (told, Aims::Tasks(loss, of_runs, chosen))
            }
        }
    }
}

/// A refiner in training.
#[derive(Debug)]
pub struct RefinerTrainer {
    config: RefinerConfig,
    network: ResidualMlp,
    course: Course,
    between: Option<(PopulationLoss, Ensemble)>,
    data: TrainingSet,
    /// The training runs' last networks, `[N, D]`.
    fixed: Tensor,
    /// The proposal's pool, `[pool, D]`, and its codes `[pool, k]`.
    rows: Tensor,
    codes: Vec<f32>,
    decode: Tensor,
    spacing: f64,
    aim: Aim,
    example_signs: Vec<u64>,
    seed: Seed,
    device: Device,
}

/// Signs of samples' own data, and of the examples.
type Own<'a> = (&'a [u64], &'a [u64]);

impl RefinerTrainer {
    /// Prepares training: samples the proposal and measures the training runs.
    ///
    /// Where training runs have tasks, the proposal is sampled under the conditions of runs that are drawn from them, not under `condition`.
    /// Adapters are run through their frozen base, as [`TaskLoss`] has it.
    ///
    /// # Errors
    /// A setting out of range, a failed sample, or a loss whose networks do not have these tasks; [`Error::Setting`] names `shell`, `hinge` or
    /// `own-data` where adapters are refined, which share no labelled examples.
    pub fn new(
        config: RefinerConfig,
        (proposal, condition): (&dyn Generator, &Condition),
        data: TrainingSet,
        loss: impl Into<TaskLoss>,
        seed: Seed,
        device: &Device,
    ) -> Result<Self> {
        config.check(data.tasks.is_some())?;
        let k = data.code_len();
        let loss = loss.into();
        let of_loss = loss.fingerprint();
        let aim = Aim::new(&config, &data, loss, seed)?;
        let shared = aim.examples().is_some() || !config.own_data;
        require("own-data", "`false` for adapters", shared, config.own_data)?;
        let network = ResidualMlp::new(ResidualMlpConfig {
            inputs: k,
            conditioning: aim.told().num_features(),
            width: config.width,
            blocks: config.blocks,
            outputs: k,
        });
        let pool = aim.pool(config.pool, (proposal, condition), seed.fork("pool"))?;
        let pool_codes = data.codec.encode(pool.data())?;
        let settings = super::OPTIMIZER;
        let tasks = data.tasks.as_ref().map_or_else(String::new, |of_runs| of_runs.fingerprint());
        let fingerprint = course::fingerprint(&format!("{config:?} {seed:?}{tasks}{of_loss}"), &[&pool_codes]);
        let plan = (config.steps, config.learning_rate, fingerprint);
        // The first device alone: the repulsion is between all samples of a step.
        let course = Course::new(&network.initial(seed.fork("network")), settings, plan, std::slice::from_ref(device.candle()))?;
        let examples = aim.examples();
        let shell = examples.filter(|_| config.shell > 0.0);
        let between = shell.map(|loss| shell_inputs(loss, &data.finals, seed.fork("shell"))).transpose()?;
        let example_signs = signs(seed.fork("examples"), examples.map_or(0, PopulationLoss::num_examples));
        // Running statistics follow from the rest, and no network here reads them: no distance is to count them.
        let statistics = data.architecture().statistics();
        let decode = decode_tensor(&data.codec, &statistics, device)?;
        let (finals, pool) = (without(data.finals.clone(), &statistics), without(Arc::new(pool), &statistics));
        let spacing = mean_distance(&finals, seed.fork("spacing"));
        // Rows stay on the device: a step takes some of them, and its network is large beside what it computes.
        let on_device =
            |networks: &Population| Tensor::from_slice(networks.data(), (networks.len(), networks.dim()), device.candle());
        let (fixed, rows) = (on_device(&finals)?, on_device(&pool)?);
        Ok(Self {
            config,
            network,
            course,
            between,
            data,
            fixed,
            rows,
            codes: pool_codes,
            decode,
            spacing,
            aim,
            example_signs,
            seed,
            device: device.clone(),
        })
    }

    /// Ends training; the refiner uses the moving average of the parameters.
    ///
    /// # Errors
    /// If the parameters cannot be read from the device.
    pub fn finish(self) -> Result<Refiner> {
        Ok(Refiner {
            network: self.network,
            theta: self.course.optimizer.average()?,
            told: self.aim.told(),
            own_data: self.config.own_data,
            codec: self.data.codec.clone(),
            device: self.device,
        })
    }

    /// Floating-point operations of the whole training: networks forward and backward, and the refiner's own.
    #[must_use]
    pub fn flops(&self) -> f64 {
        // The shell runs the networks once more, on as many inputs between examples.
        let passes = if self.between.is_some() { 2.0 } else { 1.0 };
        let run = passes * self.aim.flops(self.data.finals.architecture()) * self.config.batch_examples as f64;
        let refine = 3.0 * self.network.flops_per_row() + 4.0 * self.decode.elem_count() as f64;
        self.config.steps as f64 * self.config.batch_networks as f64 * (run + refine)
    }

    fn train_step(&mut self) -> Result<f64> {
        let config = self.config.clone();
        let seed = self.seed.fork("step").index(self.step());
        let (n, k) = (config.batch_networks, self.data.code_len());
        let device = self.device.candle();
        let chosen = seed.fork("pool").indices(n, config.pool);
        let codes: Vec<f32> = chosen.iter().flat_map(|&i| &self.codes[i as usize * k..(i as usize + 1) * k]).copied().collect();
        let sample_signs = signs(seed.fork("signs"), n);
        let (told, aims) = self.aim.of(&chosen, seed.fork("levels"));
        let codes = Tensor::from_vec(codes, (n, k), device)?;
        let rows = self.rows.index_select(&Tensor::new(chosen, device)?, 0)?;
        let conditioning = conditioning(&sample_signs, &told, config.own_data, device)?;
        let shift = self.network.forward(&codes, &conditioning, self.course.optimizer.parameters())?;
        let refined = (rows + decode_shift(&shift, &self.decode)?)?;
        let own = config.own_data.then_some((&sample_signs[..], &self.example_signs[..]));
        let task = self.task(&refined, (&aims, own), seed)?;
        let mut loss = (task.mean_all()? + (shift.sqr()?.sum_all()? * (config.mu / (10.0 * n as f64)))?)?;
        if config.repulsion > 0.0 {
            loss = (loss + (self.repulsion(&refined, seed.fork("fixed"))? * config.repulsion)?)?;
        }
        self.course.descend(&loss)
    }

    /// The task loss of each sample, `[n]`: cross-entropy, hinged or not, and the shell.
    fn task(&self, refined: &Tensor, (aims, own): (&Aims<'_>, Option<Own<'_>>), seed: Seed) -> Result<Tensor> {
        let (n, batch) = (refined.dim(0)?, self.config.batch_examples);
        let draws = seed.fork("examples");
        let draw = |loss: &PopulationLoss| draw_examples(draws, [n, batch, loss.num_examples()], own);
        let task = match aims {
            Aims::Tasks(TaskLoss::Examples(loss), of_runs, runs) => {
                let tasks: Vec<Task> = runs.iter().map(|&run| of_runs.tasks[run].clone()).collect();
                loss.cross_entropy(refined, (&draw(loss)[..], &tasks[..]))?
            }
            Aims::Tasks(through, of_runs, runs) => through.of_runs(refined, (of_runs, runs), batch, draws)?,
            Aims::Levels(loss, levels) if self.config.hinge => {
                let losses = loss.cross_entropy(refined, &draw(loss)[..])?;
                let levels = Tensor::from_slice(levels, n, losses.device())?;
                (losses - levels)?.relu()?
            }
            Aims::Levels(loss, _) => loss.cross_entropy(refined, &draw(loss)[..])?,
        };
        let Some((between, ensemble)) = &self.between else { return Ok(task) };
        let chosen = seed.fork("shell").indices(n * batch, between.num_examples());
        let logits = between.logits(refined, &chosen)?;
        let classes = logits.dim(2)?;
        let mean: Vec<f32> =
            chosen.iter().flat_map(|&e| &ensemble.mean[e as usize * classes..(e as usize + 1) * classes]).copied().collect();
        let mean = Tensor::from_vec(mean, logits.shape(), logits.device())?;
        let centred = logits.broadcast_sub(&logits.mean_keepdim(2)?)?;
        let strayed = ((centred - mean)?.sqr()?.sum(2)?.mean(1)? / ensemble.spread.max(1e-9))?;
        Ok((task + (strayed.affine(1.0, -1.0)?.relu()? * self.config.shell)?)?)
    }

    /// `Σ max(0, 1 − d/d̄)²` over pairs of samples and pairs of a sample and a training network, a sample.
    fn repulsion(&self, refined: &Tensor, seed: Seed) -> Result<Tensor> {
        let n = refined.dim(0)?;
        let count = self.fixed.dim(0)?;
        let fixed = Tensor::new(seed.indices(FIXED_POINTS.min(count), count), refined.device())?;
        let fixed = self.fixed.index_select(&fixed, 0)?;
        let among = closeness(refined, refined, self.spacing)?;
        let own = Tensor::eye(n, refined.dtype(), refined.device())?;
        let among = (among * own.affine(-1.0, 1.0)?)?;
        let to_fixed = closeness(refined, &fixed, self.spacing)?;
        Ok(((among.sum_all()? * (0.5 / n as f64))? + (to_fixed.sum_all()? / n as f64)?)?)
    }
}

impl Trainer for RefinerTrainer {
    fn course(&self) -> &Course {
        &self.course
    }

    fn course_mut(&mut self) -> &mut Course {
        &mut self.course
    }

    /// The loss is in nats.
    fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        course::advance(self, until, monitor, Self::train_step)
    }
}
