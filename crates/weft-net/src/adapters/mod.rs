//! Many adapters over one frozen base: training, losses, and the gradient of each with respect to its own weights.
//!
//! The base's maps are one product over the rows of all adapters; the low-rank updates beside them are one product a population. Since
//! the base is frozen, a map's backward pass is one product instead of two. Adapters run in groups whose values fit a bound of memory, and
//! no adapter's losses depend on the others in its group but for rounding. Those that a recipe gives the same number of steps
//! are trained together.
//!
//! - [`Base`]: a decoder of the Llama family (which says the next token) or an encoder of the BERT family (which is read as the mean of its
//!   last tokens), with its weights.
//! - [`AdapterLayout`]: which of its modules have low-rank updates; an adapter is a network of the family `lora`.
//! - [`AdapterTask`]: text, or sentences with classes.
//! - [`Adapters`]: trains adapters, measures them, and gives losses with gradients, also as an operation on tensors.
//!
//! Where sentences are classified, the classes' names go through the adapted encoder as the sentences do, and the gradient through both.
//!
//! # References
//! Hu et al., *`LoRA`: Low-Rank Adaptation of Large Language Models* (2022).

mod base;
mod head;
mod layout;
mod pass;
mod task;
mod train;

pub use base::Base;
pub use head::TEMPERATURE;
pub use layout::{AdapterLayout, LoraConfig};
pub use task::{AdapterTask, Sentences, Windows};
pub use train::initial_adapter;

use crate::loss::KnownGradient;
use crate::{Device, Error, Gradients, Result};
use candle_core::Tensor;
use head::Outcome;
use pass::On;
use std::sync::Arc;
use task::TaskBatch;
use train::Group;
use weft_core::{Digest, Monitor, Population, Recipe, Seed};
use weft_ops::backend::{Backend, Job, on_device_in};
use weft_ops::tensor::Precision;

/// Bytes that the values of one group's pass may take, if one adapter does not need more: on a CPU, about what its caches hold; on a GPU, what
/// is left beside a base.
const CPU_BYTES: usize = 96 << 20;
const GPU_BYTES: usize = 8 << 30;

/// Adapters of one layout over one base, on a device.
#[derive(Debug, Clone)]
pub struct Adapters {
    base: Arc<Base>,
    layout: AdapterLayout,
    device: Device,
    group_bytes: usize,
    start: Option<Arc<[f32]>>,
    passes: Arc<dyn Passes>,
}

/// How good an adapter is at its task.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Mean loss, in nats a predicted token or a sentence.
    pub loss: f64,
    /// What it is the mean over.
    pub count: usize,
    /// The share of sentences whose class was found; none for text.
    pub accuracy: Option<f64>,
}

impl Measured {
    /// What the same text costs in bits a byte, if it has so many bytes.
    ///
    /// # Units
    /// `loss · count / (ln 2 · bytes)`.
    #[must_use]
    pub fn bits_per_byte(&self, bytes: usize) -> f64 {
        self.loss * self.count as f64 / (std::f64::consts::LN_2 * bytes.max(1) as f64)
    }
}

/// A task with the examples of it that are run: windows or sentences, by number.
pub type DrawnTask<'a> = (&'a AdapterTask, &'a [u32]);

/// What is done on whatever backend the device has.
trait Passes: std::fmt::Debug + Send + Sync {
    /// Losses, and with `wanted` their gradient, `[n, P]` (else nothing).
    fn losses(&self, adapters: &[f32], batch: &TaskBatch, wanted: bool) -> Result<(Outcome, Vec<f32>)>;

    /// Logits of the next token behind each, `[n·r, vocabulary]`.
    fn logits(&self, adapters: &[f32], batch: &TaskBatch) -> Result<Vec<f32>>;

    /// The means of sentences' last tokens under one adapter, `[sequences, d]`.
    fn encode(&self, adapter: &[f32], batch: &TaskBatch) -> Result<Vec<f32>>;

    /// The trained weights of a group, `[n, P]`.
    fn train(&self, group: &Group<'_>, recipe: &Recipe, monitor: &Monitor<'_>) -> Result<Vec<f32>>;
}

impl<B: Backend + 'static> Passes for On<B> {
    fn losses(&self, adapters: &[f32], batch: &TaskBatch, wanted: bool) -> Result<(Outcome, Vec<f32>)> {
        let adapters = self.backend.upload(adapters)?;
        if !wanted {
            return Ok((self.losses(self.backend.view(&adapters), batch, None)?, Vec::new()));
        }
        let mut gradient = self.backend.zeros_wide(batch.networks * self.layout.num_parameters())?;
        let outcome = self.losses(self.backend.view(&adapters), batch, Some(&mut gradient))?;
        Ok((outcome, self.backend.download_wide(&gradient)?))
    }

    fn logits(&self, adapters: &[f32], batch: &TaskBatch) -> Result<Vec<f32>> {
        let adapters = self.backend.upload(adapters)?;
        Ok(self.logits(self.backend.view(&adapters), batch)?)
    }

    fn encode(&self, adapter: &[f32], batch: &TaskBatch) -> Result<Vec<f32>> {
        let adapter = self.backend.upload(adapter)?;
        Ok(self.encode(self.backend.view(&adapter), batch)?)
    }

    fn train(&self, group: &Group<'_>, recipe: &Recipe, monitor: &Monitor<'_>) -> Result<Vec<f32>> {
        group.train(self, recipe, monitor)
    }
}

/// Puts a base on a device.
struct Prepare {
    base: Arc<Base>,
    layout: AdapterLayout,
}

impl Job for Prepare {
    type Output = weft_ops::Result<Arc<dyn Passes>>;

    fn run<B: Backend + 'static>(self, backend: &B) -> Self::Output {
        Ok(Arc::new(On::new(backend, self.base, self.layout)?))
    }
}

impl Adapters {
    /// Puts a base on a device; of several, on the first. It computes in `f32`.
    ///
    /// # Errors
    /// A layout whose modules the base does not have, or a device whose memory does not hold the base.
    pub fn new(base: Arc<Base>, layout: AdapterLayout, device: &Device) -> Result<Self> {
        Self::in_precision(base, layout, device, Precision::Single)
    }

    fn in_precision(base: Arc<Base>, layout: AdapterLayout, device: &Device, precision: Precision) -> Result<Self> {
        // A layout is of its base's modules by place; another base may have others there.
        let layout = layout.on(&base)?;
        let job = Prepare { base: base.clone(), layout: layout.clone() };
        let passes = on_device_in(precision, device.candle(), job)??;
        let group_bytes = if device.is_cpu() { CPU_BYTES } else { GPU_BYTES };
        Ok(Self { base, layout, device: device.clone(), group_bytes, start: None, passes })
    }

    /// The same with another bound on the memory of a group, in bytes. Results stay the same but for rounding.
    #[must_use]
    pub fn with_group_bytes(self, group_bytes: usize) -> Self {
        Self { group_bytes, ..self }
    }

    /// The same, but all adapters of a training start as this one. Factors are unique only up to an invertible matrix between them; those that
    /// start alike stay comparable one by one, which codecs of rows ask for.
    ///
    /// # Shapes
    /// `[P]`.
    ///
    /// # Errors
    /// A start of another length.
    pub fn with_start(self, adapter: &[f32]) -> Result<Self> {
        self.shape(adapter, 1)?;
        Ok(Self { start: Some(adapter.into()), ..self })
    }

    /// The base.
    #[must_use]
    pub fn base(&self) -> &Arc<Base> {
        &self.base
    }

    /// The layout of an adapter.
    #[must_use]
    pub fn layout(&self) -> &AdapterLayout {
        &self.layout
    }

    /// The device that the computation is on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Trains an adapter a task, all from the same recipe: `AdamW` or another optimizer, each adapter on its own batches.
    ///
    /// `A` starts uniform in `±1/√in` and `B` at 0, so that an adapter starts as the base, if no start was given. A recipe in epochs takes as many steps as a task
    /// has batches in them, the last filled up with examples of the next pass. The same seed gives the same bits at any number of
    /// threads.
    ///
    /// # Errors
    /// A task that the base does not run, a recipe out of range or with snapshots, a loss that is not finite, a failed device, or a stop that the monitor
    /// asks for.
    pub fn train(&self, tasks: &[AdapterTask], recipe: &Recipe, seed: Seed, monitor: &Monitor<'_>) -> Result<Population> {
        self.check(tasks.iter())?;
        train::check(tasks, recipe)?;
        let dim = self.layout.num_parameters();
        let mut rows = vec![0.0; tasks.len() * dim];
        let mut done = 0;
        monitor.start("train adapters", tasks.len() as u64, "adapters");
        for group in train::groups(self, tasks, (recipe, seed)) {
            let counted = |event: weft_core::Event| {
                if let weft_core::Event::Progress { done: of_group } = event {
                    monitor.progress(done + of_group);
                }
            };
            let trained = self.passes.train(&group, recipe, &Monitor::new(&counted, monitor.stop_flag()))?;
            for (row, &task) in trained.chunks_exact(dim).zip(&group.tasks) {
                rows[task * dim..(task + 1) * dim].copy_from_slice(row);
            }
            done += group.tasks.len() as u64;
        }
        monitor.finish();
        Ok(Population::new(self.layout.architecture().clone(), rows)?)
    }

    /// Measures each adapter on all examples of its own task. An adapter of zeros is the base itself.
    ///
    /// # Shapes
    /// `adapters` `[n, P]`, `n` tasks → `[n]`.
    ///
    /// # Errors
    /// Weights of another shape, a task that the base does not run, or a failed device.
    pub fn measure(&self, adapters: &[f32], tasks: &[&AdapterTask]) -> Result<Vec<Measured>> {
        self.shape(adapters, tasks.len())?;
        self.check(tasks.iter().copied())?;
        let dim = self.layout.num_parameters();
        let mut all = Vec::with_capacity(tasks.len());
        for (adapter, task) in adapters.chunks_exact(dim).zip(tasks) {
            if let AdapterTask::Sentences(sentences) = task {
                all.push(self.measure_sentences(adapter, sentences)?);
                continue;
            }
            let at_once = (self.rows_at_once() / task.rows(1)).clamp(1, task.len());
            let examples: Vec<u32> = (0..task.len() as u32).collect();
            let (mut sum, mut counted) = (0.0, 0);
            for examples in examples.chunks(at_once) {
                let batch = TaskBatch::new(&self.base, &[(*task, examples)])?;
                let (outcome, _) = self.passes.losses(adapter, &batch, false)?;
                let count = batch.num_targets();
                sum += outcome.losses.iter().sum::<f64>() * count as f64;
                counted += count;
            }
            all.push(Measured { loss: sum / counted.max(1) as f64, count: counted, accuracy: None });
        }
        Ok(all)
    }

    /// The same of one adapter and sentences: each is read once, and so is each class's name.
    fn measure_sentences(&self, adapter: &[f32], sentences: &Sentences) -> Result<Measured> {
        let (read, classes) = sentences.all();
        let (sequences, count) = (read.len(), sentences.len());
        let pooled = self.encode(adapter, &read)?.concat();
        let (outcome, _) = head::classify([sequences, self.base.width], &pooled, &[classes]);
        let accuracy = Some(outcome.correct[0] as f64 / count as f64);
        Ok(Measured { loss: outcome.losses[0], count, accuracy })
    }

    /// What tells these adapters from others: the base with its weights, and where updates sit.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        let values = |values: &[f32]| {
            let of_piece =
                |piece: &[f32]| *Digest::of_bytes(&piece.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).as_bytes();
            values.chunks(1 << 16).flat_map(of_piece).collect::<Vec<u8>>()
        };
        let base = &self.base;
        let graphs = [base.architecture(), self.layout.architecture()].map(|a| format!("{:?} {:?}", a.nodes(), a.tensors()));
        Digest::of_parts([graphs[0].as_bytes(), graphs[1].as_bytes(), &values(&base.table), &values(&base.theta)])
    }

    /// What a decoder with an adapter says of the token behind each of a sequence's; zeros are the base itself.
    ///
    /// # Shapes
    /// `adapter` `[P]`, `t` tokens → `[t, vocabulary]`.
    ///
    /// # Units
    /// Logits: logarithms of chances up to a number that is the same for all tokens of a place.
    ///
    /// # Errors
    /// A base that is no decoder, an adapter of another length, no token, more than the base reads, or one that it does not know.
    pub fn logits(&self, adapter: &[f32], tokens: &[u32]) -> Result<Vec<f32>> {
        self.shape(adapter, 1)?;
        let Some((&first, rest)) = tokens.split_first() else {
            return Err(Error::AdapterTask { reason: "there is no token to say something of".to_owned() });
        };
        // What follows the last token has no say in what is said of it.
        let document = rest.iter().copied().chain([first]).collect();
        let task = AdapterTask::Text(Windows::new(&[document], first, tokens.len())?);
        task.check(&self.base)?;
        let batch = TaskBatch::new(&self.base, &[(&task, &[0])])?;
        self.passes.logits(adapter, &batch)
    }

    /// Vectors of sentences by an encoder with an adapter, of length 1: what classes are told by. An adapter of zeros is the base itself.
    ///
    /// # Shapes
    /// `adapter` `[P]`, `n` sentences of tokens → `n` rows of `[d]`.
    ///
    /// # Errors
    /// Weights of another shape, a base that is no encoder, a sentence without a token, of too many, or of one that the base does not know, or a
    /// failed device.
    pub fn encode(&self, adapter: &[f32], sentences: &[Vec<u32>]) -> Result<Vec<Vec<f32>>> {
        self.shape(adapter, 1)?;
        let Some(first) = sentences.first() else { return Ok(Vec::new()) };
        let names = vec![first.clone(), first.clone()];
        self.check(std::iter::once(&AdapterTask::Sentences(Sentences::new(names, sentences.to_vec(), vec![0; sentences.len()])?)))?;
        // Those of much the same length run together, so that little is padded.
        let mut order: Vec<usize> = (0..sentences.len()).collect();
        order.sort_by_key(|&i| sentences[i].len());
        let mut vectors = vec![Vec::new(); sentences.len()];
        let at_once = (self.rows_at_once() / sentences.iter().map(Vec::len).max().unwrap_or(1)).max(1);
        for chosen in order.chunks(at_once) {
            let chunk: Vec<&[u32]> = chosen.iter().map(|&i| sentences[i].as_slice()).collect();
            let pooled = self.passes.encode(adapter, &TaskBatch::to_encode(&self.base, &chunk))?;
            for (row, &i) in pooled.chunks_exact(self.base.width).zip(chosen) {
                vectors[i] = head::unit(row).0.into_iter().map(|v| v as f32).collect();
            }
        }
        Ok(vectors)
    }

    /// Losses of adapters on examples of their own tasks, and the gradient of each with respect to its own weights.
    ///
    /// # Shapes
    /// `adapters` `[n, P]`, `n` drawn tasks → losses `[n]`, gradient `[n, P]`.
    ///
    /// # Errors
    /// As [`Adapters::measure`], and an example that a task does not have.
    pub fn gradients(&self, adapters: &[f32], drawn: &[DrawnTask<'_>]) -> Result<Gradients> {
        self.shape(adapters, drawn.len())?;
        self.check(drawn.iter().map(|(task, _)| *task))?;
        let dim = self.layout.num_parameters();
        let widest = drawn.iter().map(|(task, examples)| task.rows(examples.len())).max().unwrap_or(1);
        let group = (self.rows_at_once() / widest).max(1);
        let mut all = Gradients { losses: Vec::with_capacity(drawn.len()), gradient: Vec::with_capacity(adapters.len()) };
        for (drawn, adapters) in drawn.chunks(group).zip(adapters.chunks(group * dim)) {
            let batch = TaskBatch::new(&self.base, drawn)?;
            let (outcome, gradient) = self.passes.losses(adapters, &batch, true)?;
            all.losses.extend(outcome.losses);
            all.gradient.extend(gradient);
        }
        Ok(all)
    }

    /// The same losses as a tensor, differentiable in the weights: what a generator of adapters learns through.
    ///
    /// # Shapes
    /// `rows` `[n, P]`, `n` drawn tasks → `[n]`.
    ///
    /// # Errors
    /// As [`Adapters::gradients`], or if a tensor operation fails.
    pub fn loss(&self, rows: &Tensor, drawn: &[DrawnTask<'_>]) -> Result<Tensor> {
        // Weights come and losses go through the host, whose operation it is.
        let on_host = rows.contiguous()?.to_device(&candle_core::Device::Cpu)?;
        let values = on_host.flatten_all()?.to_vec1::<f32>()?;
        let Gradients { losses, gradient } = self.gradients(&values, drawn)?;
        let losses = losses.into_iter().map(|loss| loss as f32).collect();
        Ok(on_host.apply_op1(KnownGradient { losses, gradient })?.to_device(rows.device())?)
    }

    /// Floating-point operations of the base's forward and backward pass over an example of a task, the low-rank parts left out.
    #[must_use]
    pub fn flops(&self, task: &AdapterTask) -> f64 {
        // Forward, and the gradient of inputs: none of weights, which are frozen.
        4.0 * self.base.theta.len() as f64 * task.rows(1) as f64
    }

    fn check<'a>(&self, tasks: impl Iterator<Item = &'a AdapterTask>) -> Result<()> {
        tasks.into_iter().try_for_each(|task| task.check(&self.base))
    }

    fn shape(&self, adapters: &[f32], tasks: usize) -> Result<()> {
        let dim = self.layout.num_parameters();
        if adapters.len() == tasks * dim && tasks > 0 {
            return Ok(());
        }
        let what = "adapters of one weight row a task".to_owned();
        Err(weft_core::Error::Length { what, expected: tasks.max(1) * dim, got: adapters.len() }.into())
    }

    /// Rows of tokens whose values fit a group's memory.
    fn rows_at_once(&self) -> usize {
        let base = &self.base;
        let packed = (base.heads + 2 * base.kv_heads) * base.head_dim();
        let of_block = 5 * base.width + packed + 3 * base.hidden;
        let values = base.blocks.len() * of_block + if base.is_decoder() { 2 * base.vocabulary } else { 0 };
        (self.group_bytes / (values * size_of::<f32>())).max(1)
    }
}

#[cfg(test)]
mod tests;
