//! The function-aware refiner: a residual network on codes that makes proposals work.
//!
//! `z = encode(w)`, `w' = w + decode_linear(r(z, c))`, trained on samples of a frozen proposal through the
//! networks themselves: the loss of a sample is what its decoded network loses on training data. Weights that the
//! codec drops stay as the proposal had them. An anchor keeps `w'` near `w`; diversity and
//! generalization are kept by four means, each of which can be left out:
//!
//! - a **hinge**: a sample's loss stops counting below a level drawn from the training runs' own losses, so that
//!   samples stop where training runs stop instead of being pulled to one optimum;
//! - a **shell**: a sample's logits may stray from the training runs' mean logits as far as those runs do, no
//!   further: `max(0, ‖f − f̄‖²/s² − 1)`, on inputs between training examples. Loss alone lets a network that is unlike any training
//!   run fit the training data with inflated logits;
//! - **own data**: each sample is trained on its own half of the data. Every example has 63 random signs and so
//!   has every sample, which sees the examples that agree with it in most signs; the refiner is told the signs;
//! - **repulsion**: samples nearer to each other, or to a training network, than training runs are to each other
//!   push apart: `Σ max(0, 1 − d/d̄)²` over pairs, in weights.
//!
//! Training data are reached through [`PopulationLoss`] alone, which holds the training part and nothing else.

use crate::{Artifact, Error, Generator, Result, TrainingSet};
use candle_core::{Shape, Tensor};
use std::ops::Range;
use std::sync::Arc;
use weft_codec::{Codec, Decoder};
use weft_core::{Architecture, Condition, Monitor, Population, Schedule, Seed};
use weft_net::{Device, Ensemble, PopulationLoss};
use weft_ops::tensor::{FlatOptimizer, FlatOptimizerConfig, Parameters, Precision, ResidualMlp, ResidualMlpConfig};

/// Random signs of an example and of a sample; odd, so that a majority always exists.
const SIGNS: usize = 63;
/// Conditioning features: the signs and the loss level.
const CONDITIONING: usize = SIGNS + 1;
/// Inputs between training examples on which functions are compared.
const SHELL_INPUTS: usize = 8_192;
/// Training networks drawn as fixed points of the repulsion, each step.
const FIXED_POINTS: usize = 64;

/// Settings of the refiner and its training.
#[derive(Debug, Clone, PartialEq)]
pub struct RefinerConfig {
    /// Strength of the anchor: `μ·|r(z)|²/10` in unit-variance codes is added to a sample's loss, in nats.
    pub mu: f64,
    /// Whether a sample's loss stops counting below a training run's.
    pub hinge: bool,
    /// Strength of the shell around the training runs' mean function, in nats; 0 is none.
    pub shell: f64,
    /// Strength of the repulsion, in nats; 0 is none.
    pub repulsion: f64,
    /// Whether each sample is trained on its own half of the data.
    pub own_data: bool,
    /// Training steps.
    pub steps: u64,
    /// Samples a step.
    pub batch_networks: usize,
    /// Training examples a sample and step.
    pub batch_examples: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Width of the residual network.
    pub width: usize,
    /// Its residual blocks.
    pub blocks: usize,
    /// Samples of the frozen proposal that training draws from.
    pub pool: usize,
}

impl RefinerConfig {
    fn check(&self) -> Result<()> {
        let range =
            |setting, expected, ok: bool, got: String| if ok { Ok(()) } else { Err(Error::Setting { setting, expected, got }) };
        range("mu", "0 or more", self.mu >= 0.0 && self.mu.is_finite(), self.mu.to_string())?;
        range("shell", "0 or more", self.shell >= 0.0 && self.shell.is_finite(), self.shell.to_string())?;
        range("repulsion", "0 or more", self.repulsion >= 0.0 && self.repulsion.is_finite(), self.repulsion.to_string())?;
        range("steps", "1 or more", self.steps > 0, self.steps.to_string())?;
        range("batch-networks", "2 or more", self.batch_networks >= 2, self.batch_networks.to_string())?;
        range("batch-examples", "1 or more", self.batch_examples > 0, self.batch_examples.to_string())?;
        range("pool", "at least batch-networks", self.pool >= self.batch_networks, self.pool.to_string())?;
        range("width", "between 1 and 16384", (1..=16_384).contains(&self.width), self.width.to_string())?;
        range("blocks", "at most 256", self.blocks <= 256, self.blocks.to_string())?;
        let rate = self.learning_rate;
        range("learning-rate", "a positive number", rate > 0.0 && rate.is_finite(), rate.to_string())
    }
}

/// A trained refiner.
#[derive(Debug, Clone)]
pub struct Refiner {
    network: ResidualMlp,
    theta: Vec<f32>,
    levels: Levels,
    own_data: bool,
    codec: Arc<Codec>,
    device: Device,
}

/// The losses at which training runs ended, on training data, in nats.
#[derive(Debug, Clone, PartialEq)]
struct Levels {
    sorted: Vec<f32>,
    mean: f32,
    std: f32,
}

impl Levels {
    fn new(mut sorted: Vec<f32>) -> Self {
        sorted.sort_by(f32::total_cmp);
        let n = sorted.len() as f32;
        let mean = sorted.iter().sum::<f32>() / n;
        let std = (sorted.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / n).sqrt().max(1e-6);
        Self { sorted, mean, std }
    }
}

/// A refiner in training.
#[derive(Debug)]
pub struct RefinerTrainer {
    config: RefinerConfig,
    network: ResidualMlp,
    optimizer: FlatOptimizer,
    loss: PopulationLoss,
    between: Option<(PopulationLoss, Ensemble)>,
    data: TrainingSet,
    /// The training runs' last networks, `[N, D]`.
    fixed: Tensor,
    /// The proposal's pool, `[pool, D]`, and its codes `[pool, k]`.
    rows: Tensor,
    codes: Vec<f32>,
    decode: Tensor,
    spacing: f64,
    levels: Levels,
    example_signs: Vec<u64>,
    seed: Seed,
    device: Device,
}

impl RefinerTrainer {
    /// Prepares training: samples the proposal and measures the training runs.
    ///
    /// # Errors
    /// A setting out of range, or a failed sample.
    pub fn new(
        config: RefinerConfig,
        (proposal, condition): (&dyn Generator, &Condition),
        data: TrainingSet,
        loss: PopulationLoss,
        seed: Seed,
        device: &Device,
    ) -> Result<Self> {
        config.check()?;
        let k = data.code_len();
        let network = ResidualMlp::new(ResidualMlpConfig {
            inputs: k,
            conditioning: CONDITIONING,
            width: config.width,
            blocks: config.blocks,
            outputs: k,
        });
        let optimizer = FlatOptimizer::new(
            FlatOptimizerConfig { weight_decay: 0.0, clip_norm: 1.0, ema_decay: 0.99 },
            &network.initial(seed.fork("network")),
            // The first device alone: the repulsion is between all samples of a step.
            std::slice::from_ref(device.candle()),
            Precision::Single,
        )?;
        let pool = proposal.sample(config.pool, condition, seed.fork("pool"))?;
        let pool_codes = data.codec.encode(pool.data())?;
        let levels = Levels::new(final_losses(&data.finals, &loss, seed.fork("levels"))?);
        let between = (config.shell > 0.0).then(|| shell_inputs(&loss, &data.finals, seed.fork("shell"))).transpose()?;
        let example_signs = signs(seed.fork("examples"), loss.num_examples());
        // Running statistics follow from the rest, and no network here reads them: no distance is to count them.
        let statistics = statistics_of(data.architecture());
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
            optimizer,
            loss,
            between,
            data,
            fixed,
            rows,
            codes: pool_codes,
            decode,
            spacing,
            levels,
            example_signs,
            seed,
            device: device.clone(),
        })
    }

    /// Steps taken.
    #[must_use]
    pub fn step(&self) -> u64 {
        self.optimizer.step
    }

    /// The state of training, to be saved; the proposal's pool follows from the seed.
    ///
    /// # Errors
    /// If it cannot be read from the device.
    pub fn save(&self) -> Result<Artifact> {
        Ok(Artifact::default().with_optimizer(&self.optimizer)?.with_text("fingerprint", self.fingerprint()))
    }

    /// Continues from a saved state.
    ///
    /// # Errors
    /// A state that is not of this configuration, proposal and seed.
    pub fn restore(&mut self, saved: &Artifact) -> Result<()> {
        saved.check_fingerprint(&self.fingerprint())?;
        saved.restore_optimizer(&mut self.optimizer)?;
        Ok(())
    }

    /// Trains up to step `until` and returns the mean loss of these steps, in nats.
    ///
    /// # Errors
    /// [`Error::Interrupted`] when the monitor asks for a stop, after a whole step; [`Error::Diverged`].
    pub fn advance(&mut self, until: u64, monitor: &Monitor<'_>) -> Result<f64> {
        let (mut total, mut count) = (0.0, 0u32);
        while self.optimizer.step < until.min(self.config.steps) {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            total += self.train_step()?;
            count += 1;
            monitor.progress(self.optimizer.step);
        }
        Ok(total / f64::from(count.max(1)))
    }

    /// Ends training; the refiner uses the moving average of the parameters.
    ///
    /// # Errors
    /// If the parameters cannot be read from the device.
    pub fn finish(self) -> Result<Refiner> {
        Ok(Refiner {
            network: self.network,
            theta: self.optimizer.average()?,
            levels: self.levels,
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
        let step = 3.0 * weft_net::forward_flops(self.data.finals.architecture());
        let run = passes * step * self.config.batch_examples as f64;
        let refine = 3.0 * self.network.flops_per_row() + 4.0 * self.decode.elem_count() as f64;
        self.config.steps as f64 * self.config.batch_networks as f64 * (run + refine)
    }

    fn train_step(&mut self) -> Result<f64> {
        let config = self.config.clone();
        let step = self.optimizer.step;
        let seed = self.seed.fork("step").index(step);
        let (n, k) = (config.batch_networks, self.data.code_len());
        let device = self.device.candle();
        let chosen = seed.fork("pool").indices(n, config.pool);
        let codes: Vec<f32> = chosen.iter().flat_map(|&i| &self.codes[i as usize * k..(i as usize + 1) * k]).copied().collect();
        let sample_signs = signs(seed.fork("signs"), n);
        let levels = draw_levels(&self.levels, seed.fork("levels"), n);
        let codes = Tensor::from_vec(codes, (n, k), device)?;
        let rows = self.rows.index_select(&Tensor::new(chosen, device)?, 0)?;
        let conditioning = conditioning(&self.levels, &sample_signs, &levels, config.own_data, device)?;
        let shift = self.network.forward(&codes, &conditioning, self.optimizer.parameters())?;
        let refined = (rows + decode_shift(&shift, &self.decode)?)?;
        let examples = self.draw_examples(seed.fork("examples"), &sample_signs);
        let task = self.task(&refined, &examples, &levels, seed.fork("shell"))?;
        let mut loss = (task.mean_all()? + (shift.sqr()?.sum_all()? * (config.mu / (10.0 * n as f64)))?)?;
        if config.repulsion > 0.0 {
            loss = (loss + (self.repulsion(&refined, seed.fork("fixed"))? * config.repulsion)?)?;
        }
        loss.backward()?;
        let rate = config.learning_rate * Schedule::Cosine { warmup_steps: 100.min(config.steps / 10) }.factor(step, config.steps);
        self.optimizer.update(rate)?;
        // Read last: a GPU then works on the whole step while this waits.
        let value = f64::from(loss.to_scalar::<f32>()?);
        if value.is_finite() { Ok(value) } else { Err(Error::Diverged { step }) }
    }

    /// The task loss of each sample, `[n]`: cross-entropy, hinged or not, and the shell.
    fn task(&self, refined: &Tensor, examples: &[u32], levels: &[f32], seed: Seed) -> Result<Tensor> {
        let n = refined.dim(0)?;
        let losses = self.loss.cross_entropy(refined, examples)?;
        let levels = Tensor::from_slice(levels, n, losses.device())?;
        let task = if self.config.hinge { (losses - levels)?.relu()? } else { losses };
        let Some((between, ensemble)) = &self.between else { return Ok(task) };
        let chosen = seed.indices(n * self.config.batch_examples, between.num_examples());
        let logits = between.logits(refined, &chosen)?;
        let classes = logits.dim(2)?;
        let mean: Vec<f32> =
            chosen.iter().flat_map(|&e| &ensemble.mean[e as usize * classes..(e as usize + 1) * classes]).copied().collect();
        let mean = Tensor::from_vec(mean, logits.shape(), logits.device())?;
        let centred = logits.broadcast_sub(&logits.mean_keepdim(2)?)?;
        let strayed = ((centred - mean)?.sqr()?.sum(2)?.mean(1)? / ensemble.spread.max(1e-9))?;
        Ok((task + (strayed.affine(1.0, -1.0)?.relu()? * self.config.shell)?)?)
    }

    /// Each sample's batch of training examples, sample by sample.
    fn draw_examples(&self, seed: Seed, sample_signs: &[u64]) -> Vec<u32> {
        let (b, count) = (self.config.batch_examples, self.loss.num_examples());
        let mut out = Vec::with_capacity(b * sample_signs.len());
        for (i, &own) in sample_signs.iter().enumerate() {
            let draws = seed.index(i as u64);
            if self.config.own_data {
                let candidates = draws.indices(8 * b, count);
                let before = out.len();
                out.extend(candidates.iter().copied().filter(|&e| agrees(own, self.example_signs[e as usize])).take(b));
                let missing = before + b - out.len();
                out.extend_from_slice(&candidates[..missing]);
            } else {
                out.extend(draws.indices(b, count));
            }
        }
        out
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

    fn fingerprint(&self) -> String {
        let bytes: Vec<u8> = self.codes.iter().flat_map(|v| v.to_le_bytes()).collect();
        let text = format!("{:?} {:?}", self.config, self.seed);
        weft_core::Digest::of_parts([text.as_bytes(), &bytes]).to_string()
    }
}

impl Refiner {
    /// Refines networks; the seed draws each sample's own signs and loss level.
    ///
    /// # Errors
    /// If the population is not of the codec's dimension, or a tensor operation fails.
    pub fn apply(&self, proposals: &Population, seed: Seed) -> Result<Population> {
        let device = self.device.candle();
        let (n, k) = (proposals.len(), self.codec.code_len());
        let codes = Tensor::from_vec(self.codec.encode(proposals.data())?, (n, k), device)?;
        let sample_signs = signs(seed.fork("signs"), n);
        let levels = draw_levels(&self.levels, seed.fork("levels"), n);
        let conditioning = conditioning(&self.levels, &sample_signs, &levels, self.own_data, device)?;
        let theta = Parameters::frozen(&self.theta, device, Precision::Single)?;
        let shift = self.network.forward(&codes, &conditioning, &theta)?;
        let shift = decode_shift(&shift, &decode_tensor(&self.codec, &[], &self.device)?)?.flatten_all()?.to_vec1::<f32>()?;
        let mut refined = proposals.clone();
        refined.data_mut().iter_mut().zip(shift).for_each(|(w, s)| *w += s);
        Ok(refined)
    }

    /// Floating-point operations to refine one network.
    #[must_use]
    pub fn flops_per_sample(&self) -> f64 {
        self.network.flops_per_row() + 4.0 * (self.codec.code_len() * self.codec.dim()) as f64
    }

    /// What refining needs, to be saved.
    #[must_use]
    pub fn save(&self) -> Artifact {
        Artifact::default()
            .with_vector("theta", &self.theta)
            .with_vector("levels", &self.levels.sorted)
            .with_text("kind", "refiner")
            .with_text("own-data", self.own_data)
            .with_text("width", self.network.config().width)
            .with_text("blocks", self.network.config().blocks)
    }

    /// Restores a saved refiner.
    ///
    /// # Errors
    /// [`Error::Artifact`] if the state lacks something or does not fit the codec.
    pub fn load(saved: &Artifact, codec: Arc<Codec>, device: &Device) -> Result<Self> {
        let (width, blocks): (usize, usize) = (saved.text("width")?, saved.text("blocks")?);
        if !(1..=16_384).contains(&width) || blocks > 256 {
            return Err(Error::Artifact {
                entry: "width".to_owned(),
                reason: format!("{width} with {blocks} blocks is out of range"),
            });
        }
        let k = codec.code_len();
        let network = ResidualMlp::new(ResidualMlpConfig { inputs: k, conditioning: CONDITIONING, width, blocks, outputs: k });
        let theta = saved.vector("theta", network.num_parameters())?;
        let count = saved.tensors.get("levels").map_or(0, |(_, v)| v.len());
        if count == 0 {
            return Err(Error::Artifact { entry: "levels".to_owned(), reason: "is missing or empty".to_owned() });
        }
        let levels = Levels::new(saved.vector("levels", count)?);
        Ok(Self { network, theta, levels, own_data: saved.text("own-data")?, codec, device: device.clone() })
    }
}

/// A generator whose samples are refined.
pub struct Refined {
    proposal: Arc<dyn Generator>,
    refiner: Refiner,
    name: String,
}

impl std::fmt::Debug for Refined {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Refined({})", self.name)
    }
}

impl Refined {
    /// Puts a refiner behind a proposal.
    #[must_use]
    pub fn new(proposal: Arc<dyn Generator>, refiner: Refiner) -> Self {
        let name = format!("{} + refiner", proposal.name());
        Self { proposal, refiner, name }
    }
}

impl Generator for Refined {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, condition: &Condition, seed: Seed) -> Result<Population> {
        self.refiner.apply(&self.proposal.sample(n, condition, seed.fork("proposal"))?, seed.fork("refine"))
    }

    fn flops_per_sample(&self) -> f64 {
        self.proposal.flops_per_sample() + self.refiner.flops_per_sample()
    }
}

/// Where running statistics lie in a row.
fn statistics_of(architecture: &Architecture) -> Vec<Range<usize>> {
    architecture.statistics().into_iter().map(|tensor| architecture.tensors()[tensor].range()).collect()
}

/// The same networks with zeros in some places.
fn without(mut networks: Arc<Population>, places: &[Range<usize>]) -> Arc<Population> {
    if !places.is_empty() {
        let len = networks.dim();
        clear(len, Arc::make_mut(&mut networks).data_mut(), places);
    }
    networks
}

/// Writes zeros to the same places of rows of a length.
fn clear(len: usize, rows: &mut [f32], places: &[Range<usize>]) {
    rows.chunks_exact_mut(len).for_each(|row| places.iter().for_each(|place| row[place.clone()].fill(0.0)));
}

/// The linear map from codes to weights, `[k, D]`, or `[D]` for a codec that only scales, with zeros in some places of the weights.
fn decode_tensor(codec: &Codec, zeros: &[Range<usize>], device: &Device) -> Result<Tensor> {
    let (matrix, shape): (&[f32], Shape) = match codec.decoder() {
        Decoder::Linear { matrix, .. } => (matrix, (codec.code_len(), codec.dim()).into()),
        Decoder::Scale { scale, .. } => (scale, scale.len().into()),
    };
    if zeros.is_empty() {
        return Ok(Tensor::from_slice(matrix, shape, device.candle())?);
    }
    let mut matrix = matrix.to_vec();
    clear(codec.dim(), &mut matrix, zeros);
    Ok(Tensor::from_vec(matrix, shape, device.candle())?)
}

fn decode_shift(shift: &Tensor, decode: &Tensor) -> candle_core::Result<Tensor> {
    if decode.rank() == 2 { shift.matmul(decode) } else { shift.broadcast_mul(decode) }
}

/// `max(0, 1 − d/d̄)²` of all pairs, `[n, D]` and `[m, D]` → `[n, m]`.
fn closeness(a: &Tensor, b: &Tensor, spacing: f64) -> candle_core::Result<Tensor> {
    let (aa, bb) = (a.sqr()?.sum_keepdim(1)?, b.sqr()?.sum_keepdim(1)?);
    let squared = (a.matmul(&b.t()?)? * -2.0)?.broadcast_add(&aa)?.broadcast_add(&bb.t()?)?;
    let distance = (squared / (spacing * spacing))?.clamp(1e-6, 1e6)?.sqrt()?;
    distance.affine(-1.0, 1.0)?.relu()?.sqr()
}

/// The last snapshots' losses on 2,048 training examples (or as many as there are).
fn final_losses(finals: &Population, loss: &PopulationLoss, seed: Seed) -> Result<Vec<f32>> {
    let chosen = seed.subset(2_048, loss.num_examples());
    Ok(loss.losses(finals, &chosen)?.into_iter().map(|l| l as f32).collect())
}

/// Inputs between training examples, and what up to 256 training runs say of them.
fn shell_inputs(loss: &PopulationLoss, finals: &Population, seed: Seed) -> Result<(PopulationLoss, Ensemble)> {
    let between = loss.between_examples(SHELL_INPUTS, seed.fork("inputs"))?;
    let chosen: Vec<usize> = seed.fork("runs").subset(256, finals.len()).into_iter().map(|i| i as usize).collect();
    let ensemble = between.ensemble(&finals.select(&chosen));
    Ok((between, ensemble))
}

/// The mean distance of up to 1,000 random pairs of canonical training networks.
fn mean_distance(finals: &Population, seed: Seed) -> f64 {
    let pairs = seed.indices(2_000, finals.len());
    let distances: Vec<f64> = pairs
        .chunks_exact(2)
        .filter(|p| p[0] != p[1])
        .map(|p| {
            let (a, b) = (finals.row(p[0] as usize), finals.row(p[1] as usize));
            a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        })
        .collect();
    (distances.iter().sum::<f64>() / distances.len().max(1) as f64).max(1e-9)
}

/// `count` random sign vectors, as bits.
fn signs(seed: Seed, count: usize) -> Vec<u64> {
    let (low, high) = (seed.fork("low").indices(count, 1 << 32), seed.fork("high").indices(count, 1 << 31));
    low.into_iter().zip(high).map(|(l, h)| u64::from(l) | u64::from(h) << 32).collect()
}

/// Whether two sign vectors agree in most places.
fn agrees(a: u64, b: u64) -> bool {
    (a ^ b).count_ones() as usize <= SIGNS / 2
}

fn draw_levels(levels: &Levels, seed: Seed, n: usize) -> Vec<f32> {
    seed.indices(n, levels.sorted.len()).into_iter().map(|i| levels.sorted[i as usize]).collect()
}

/// `[n, SIGNS + 1]`: the sample's signs over `√SIGNS` (or zeros), and its standardized loss level.
fn conditioning(levels: &Levels, signs: &[u64], drawn: &[f32], own_data: bool, device: &candle_core::Device) -> Result<Tensor> {
    let scale = if own_data { 1.0 / (SIGNS as f32).sqrt() } else { 0.0 };
    let rows: Vec<f32> = signs
        .iter()
        .zip(drawn)
        .flat_map(|(&bits, &level)| {
            let signs = (0..SIGNS).map(move |i| if bits >> i & 1 == 1 { scale } else { -scale });
            signs.chain([(level - levels.mean) / levels.std])
        })
        .collect();
    Ok(Tensor::from_vec(rows, (signs.len(), CONDITIONING), device)?)
}
