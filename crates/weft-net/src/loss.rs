//! Networks inside a larger computation: logits as a differentiable function of the weights.
//!
//! This is what makes a generator *function-aware*: it decodes a code to weights, runs them here on training
//! data, and learns from what the network does rather than from how its weights look.

use crate::evaluate::score_all;
use crate::labelled::{check_tasks, mismatch};
use crate::lockstep::LockStep;
use crate::recalibrate::EXAMPLES_AT_ONCE;
use crate::{Device, Engine, Error, Examples, Result, Workspace};
use candle_core::{CpuStorage, CustomOp1, D, Layout, Shape, Tensor};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;
use weft_core::{Architecture, Dataset, ExampleSet, Part, Population, Seed, Task};
use weft_ops::kernels::cross_entropy_gradient;

/// A population's loss and logits on training data, differentiable in the weights.
///
/// Batch norms take the statistics of each network's own batch, as in training: those of a decoded network are not yet known.
#[derive(Debug, Clone)]
pub struct PopulationLoss {
    engine: Arc<Engine>,
    examples: Arc<Examples>,
    /// Classes that the examples are of.
    num_classes: usize,
    device: Device,
    /// The inputs `[examples, i]`, if the computation is on a device.
    on_device: Option<Tensor>,
}

/// Training examples for networks, and the task of each network if they have their own.
///
/// `&examples` has the data set's classes for all networks; `(&examples, &tasks)` has a task a network.
#[derive(Debug, Clone, Copy)]
pub struct Drawn<'a> {
    examples: &'a [u32],
    tasks: Option<&'a [Task]>,
}

impl<'a> From<&'a [u32]> for Drawn<'a> {
    fn from(examples: &'a [u32]) -> Self {
        Self { examples, tasks: None }
    }
}

impl<'a> From<&'a Vec<u32>> for Drawn<'a> {
    fn from(examples: &'a Vec<u32>) -> Self {
        Self { examples, tasks: None }
    }
}

impl<'a> From<(&'a [u32], &'a [Task])> for Drawn<'a> {
    fn from((examples, tasks): (&'a [u32], &'a [Task])) -> Self {
        Self { examples, tasks: Some(tasks) }
    }
}

/// What networks say on average of each training example, and how far they stray from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ensemble {
    /// Mean class-centred logits, `[examples, c]`.
    pub mean: Vec<f32>,
    /// Mean over networks and examples of the squared distance of class-centred logits to that mean.
    pub spread: f64,
}

/// Losses and their gradients, outside a differentiable graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    /// Mean cross-entropy of each network, `[n]`.
    pub losses: Vec<f64>,
    /// Gradient of each network's own loss, `[n, D]`.
    pub gradient: Vec<f32>,
}

impl PopulationLoss {
    /// Prepares the training part of a data set; no other part can be reached through it.
    ///
    /// # Errors
    /// If the architecture does not fit the data set, or the device's memory does not hold the examples.
    pub fn new(architecture: Arc<Architecture>, dataset: &Dataset, device: &Device) -> Result<Self> {
        let fits = architecture.num_outputs() == dataset.num_classes();
        if fits { Self::of_tasks(architecture, dataset, device) } else { Err(mismatch(&architecture, dataset)) }
    }

    /// The same for networks that have a task each, whose outputs may be others than the data's classes.
    ///
    /// # Errors
    /// If the architecture does not read the examples, or the device's memory does not hold them.
    pub fn of_tasks(architecture: Arc<Architecture>, dataset: &Dataset, device: &Device) -> Result<Self> {
        let examples = Examples::of_inputs(&architecture, dataset, dataset.range(Part::Train))?;
        Self::over(architecture, (examples, dataset.num_classes()), device)
    }

    /// The same for a handful of examples, whose labels are the networks' outputs.
    ///
    /// # Errors
    /// If the architecture does not read them or lacks an output, or the device's memory does not hold them.
    pub fn of_examples(architecture: Arc<Architecture>, examples: &ExampleSet, device: &Device) -> Result<Self> {
        let outputs = architecture.num_outputs();
        examples.check(architecture.num_inputs(), outputs)?;
        Self::over(architecture, (Examples::of_set(examples), outputs), device)
    }

    fn over(architecture: Arc<Architecture>, (examples, num_classes): (Examples, usize), device: &Device) -> Result<Self> {
        let on_device = if device.is_cpu() {
            None
        } else {
            LockStep::new(&architecture, 1, false)?;
            let shape = (examples.len(), architecture.num_inputs());
            Some(Tensor::from_vec(examples.to_dense(), shape, device.candle())?)
        };
        let engine = Arc::new(Engine::new(architecture)?);
        Ok(Self { engine, examples: Arc::new(examples), num_classes, device: device.clone(), on_device })
    }

    /// The same networks on `count` inputs that lie on segments between pairs of training inputs, without labels.
    ///
    /// They extend the inputs on which functions are compared beyond the training examples themselves (mixup,
    /// Zhang et al. 2018).
    ///
    /// # Errors
    /// If the device's memory does not hold them.
    pub fn between_examples(&self, count: usize, seed: Seed) -> Result<Self> {
        let features = self.engine.architecture().num_inputs();
        let ends = seed.fork("ends").indices(2 * count, self.examples.len());
        let places = seed.fork("places").uniforms(count);
        let mut scratch = [vec![0.0; features], vec![0.0; features]];
        let mut mixed = Vec::with_capacity(count * features);
        for (ends, place) in ends.chunks_exact(2).zip(places) {
            for (row, &end) in scratch.iter_mut().zip(ends) {
                self.examples.read(end as usize, row);
            }
            mixed.extend(scratch[0].iter().zip(&scratch[1]).map(|(a, b)| place * a + (1.0 - place) * b));
        }
        let examples = Examples::unlabelled(&mixed, features);
        let on_device = match &self.on_device {
            None => None,
            Some(x) => Some(Tensor::from_vec(mixed, (count, features), x.device())?),
        };
        let (engine, num_classes) = (self.engine.clone(), self.num_classes);
        Ok(Self { engine, examples: Arc::new(examples), num_classes, device: self.device.clone(), on_device })
    }

    /// The number of training examples to draw batches from.
    #[must_use]
    pub fn num_examples(&self) -> usize {
        self.examples.len()
    }

    /// The architecture that is run.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        self.engine.architecture()
    }

    /// The device that the computation is on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The labels of examples.
    ///
    /// # Panics
    /// If an index is not below [`PopulationLoss::num_examples`].
    #[must_use]
    pub fn labels(&self, chosen: &[u32]) -> Vec<u32> {
        chosen.iter().map(|&i| self.examples.labels()[i as usize]).collect()
    }

    /// The logits of each network on its own batch.
    ///
    /// # Shapes
    /// `rows` `[n, D]`; `chosen` holds `n · b` training examples, network by network → `[n, b, c]`.
    ///
    /// # Errors
    /// If the shapes do not fit or a tensor operation fails.
    pub fn logits(&self, rows: &Tensor, chosen: &[u32]) -> Result<Tensor> {
        let n = rows.dim(0)?;
        match &self.on_device {
            None => {
                let op = LogitsOp { engine: self.engine.clone(), examples: self.examples.clone(), chosen: chosen.to_vec() };
                Ok(rows.contiguous()?.apply_op1(op)?)
            }
            Some(x) => {
                let index = Tensor::new(chosen, x.device())?;
                let network = LockStep::new(self.engine.architecture(), n, false)?.training();
                let z = weft_ops::tensor::run_on_weights(&network, &x.index_select(&index, 0)?, rows)?;
                Ok(z.reshape((n, chosen.len() / n, self.engine.architecture().num_outputs()))?)
            }
        }
    }

    /// The mean cross-entropy of each network on its own batch, `[n]`: at the data's classes, or with `(&chosen, &tasks)` at its own task.
    ///
    /// Forward and backward run in one pass over each network.
    ///
    /// # Shapes
    /// As [`PopulationLoss::logits`]; `n` tasks.
    ///
    /// # Errors
    /// If the shapes or tasks do not fit or a tensor operation fails.
    ///
    /// # Panics
    /// If an index is not below [`PopulationLoss::num_examples`], or the examples are without labels.
    pub fn cross_entropy<'a>(&self, rows: &Tensor, chosen: impl Into<Drawn<'a>>) -> Result<Tensor> {
        let n = rows.dim(0)?;
        let drawn @ Drawn { examples: chosen, tasks } = chosen.into();
        self.check(drawn, n)?;
        match &self.on_device {
            None => {
                let values = rows.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
                let Gradients { losses, gradient } = self.gradients(&values, drawn);
                let losses: Vec<f32> = losses.into_iter().map(|l| l as f32).collect();
                Ok(rows.contiguous()?.apply_op1(KnownGradient { losses, gradient })?)
            }
            Some(x) => {
                let b = chosen.len() / n;
                let labels = Tensor::from_vec(self.examples.labels_of(chosen, b, tasks), (n, b), x.device())?;
                Ok(cross_entropy(&self.logits(rows, chosen)?, &labels)?)
            }
        }
    }

    /// The mean cross-entropy of each network on the same training examples, in nats, as it is run: batch norms take their running
    /// statistics. With `(&chosen, &tasks)` it is that at each network's own task.
    ///
    /// # Shapes
    /// `chosen` holds any number of training examples; `n` tasks, if any → `[n]`.
    ///
    /// # Errors
    /// If the tasks do not fit or the device fails.
    pub fn losses<'a>(&self, networks: &Population, chosen: impl Into<Drawn<'a>>) -> Result<Vec<f64>> {
        let drawn = chosen.into();
        self.check(drawn, networks.len())?;
        let scores = score_all(networks, (&self.examples.select(drawn.examples), drawn.tasks), &self.device)?;
        Ok(scores.into_iter().map(|scores| scores.loss).collect())
    }

    /// The mean function of networks on the training examples, on the CPU.
    ///
    /// It is of the networks that [`PopulationLoss::logits`] runs: batch norms take the statistics of the examples themselves, 128 at a time.
    #[must_use]
    pub fn ensemble(&self, networks: &Population) -> Ensemble {
        let classes = self.engine.architecture().num_outputs();
        let indices: Vec<u32> = (0..self.examples.len() as u32).collect();
        let engine_rows: Vec<Vec<f32>> = networks
            .rows()
            .map(|row| {
                let mut weights = vec![0.0; row.len()];
                self.engine.engine_from_row(row, &mut weights);
                weights
            })
            .collect();
        let n = networks.len().max(1) as f32;
        let norms = self.engine.has_statistics();
        let chunks: Vec<(Vec<f32>, f64)> = indices
            .par_chunks(if norms { EXAMPLES_AT_ONCE } else { self.engine.examples_at_once() })
            .map_init(Buffers::default, |buffers, chosen| {
                let mut mean = vec![0.0f32; chosen.len() * classes];
                let mut squares = 0.0f64;
                for weights in &engine_rows {
                    let batch = self.examples.batch(chosen, &mut buffers.scratch);
                    let workspace = &mut buffers.workspace;
                    let z = if norms {
                        self.engine.forward_training(weights, batch, chosen.len(), workspace)
                    } else {
                        self.engine.forward(weights, batch, chosen.len(), workspace)
                    };
                    centre(z, classes);
                    mean.iter_mut().zip(&*z).for_each(|(m, v)| *m += v / n);
                    squares += z.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>() / f64::from(n);
                }
                let spread = squares - mean.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>();
                (mean, spread)
            })
            .collect();
        let spread = chunks.iter().map(|(_, s)| s).sum::<f64>() / self.examples.len().max(1) as f64;
        Ensemble { mean: chunks.into_iter().flat_map(|(mean, _)| mean).collect(), spread }
    }

    /// Losses and gradients of networks on their own batches, on the CPU.
    ///
    /// # Shapes
    /// `rows` `[n, D]`; `chosen` holds `n · b` training examples, network by network; `n` tasks, if any.
    ///
    /// # Panics
    /// If `rows` is not a whole number of networks, there is no example for each of them, an index is not below
    /// [`PopulationLoss::num_examples`], the tasks are fewer than the networks, or what examples are of is not one of the outputs.
    #[must_use]
    pub fn gradients<'a>(&self, rows: &[f32], chosen: impl Into<Drawn<'a>>) -> Gradients {
        let drawn = chosen.into();
        let chosen = drawn.examples;
        let dim = self.engine.architecture().num_parameters();
        assert!(rows.len().is_multiple_of(dim), "rows are not [n, D]");
        let b = chosen.len() / (rows.len() / dim).max(1);
        let mut gradient = vec![0.0; rows.len()];
        let losses = gradient
            .par_chunks_exact_mut(dim)
            .zip(rows.par_chunks_exact(dim).zip(chosen.par_chunks_exact(b)))
            .enumerate()
            .map_init(Buffers::default, |buffers, (network, (gradient, (row, chosen)))| {
                let task = drawn.tasks.map(|tasks| &tasks[network..=network]);
                let labels = self.examples.labels_of(chosen, b, task);
                buffers.vjp(&self.engine, &self.examples, (row, chosen), gradient, |part, z| {
                    let share = part.len() as f32 / labels.len() as f32;
                    let loss = cross_entropy_gradient(z, &labels[part.clone()]);
                    if part.len() < labels.len() {
                        for g in z.iter_mut() {
                            *g *= share;
                        }
                    }
                    f64::from(share) * loss
                })
            })
            .collect();
        Gradients { losses, gradient }
    }

    /// Checks that so many networks have outputs for what they are to say, and a task each if they have tasks.
    fn check(&self, drawn: Drawn<'_>, num_networks: usize) -> Result<()> {
        let architecture = self.engine.architecture();
        match drawn.tasks {
            Some(tasks) => check_tasks(tasks, (architecture, num_networks), self.num_classes),
            None if architecture.num_outputs() == self.num_classes => Ok(()),
            None => Err(Error::Tasks { tasks: 0, networks: num_networks }),
        }
    }
}

/// Into pieces of how many examples a batch is cut; batch norm needs it whole.
fn piece_of(engine: &Engine, batch: usize) -> usize {
    if engine.has_statistics() { batch.max(1) } else { engine.piece_of(batch) }
}

/// Mean cross-entropy of each network: `[n, b, c]`, `[n, b]` → `[n]`.
fn cross_entropy(logits: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let max = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&max)?;
    let log_sum = shifted.exp()?.sum(D::Minus1)?.log()?;
    let chosen = shifted.gather(&labels.unsqueeze(D::Minus1)?, D::Minus1)?.squeeze(D::Minus1)?;
    (log_sum - chosen)?.mean(D::Minus1)
}

/// One thread's buffers.
#[derive(Default)]
struct Buffers {
    weights: Vec<f32>,
    gradient: Vec<f32>,
    workspace: Workspace,
    scratch: Vec<f32>,
}

impl Buffers {
    /// Runs one network forward, lets `head` turn logits into their gradient, and back to a flat row's gradient.
    ///
    /// `head` gets the examples a piece at a time; what it returns is summed.
    fn vjp(
        &mut self,
        engine: &Engine,
        examples: &Examples,
        (row, chosen): (&[f32], &[u32]),
        out: &mut [f32],
        mut head: impl FnMut(Range<usize>, &mut [f32]) -> f64,
    ) -> f64 {
        self.weights.resize(row.len(), 0.0);
        engine.engine_from_row(row, &mut self.weights);
        self.gradient.clear();
        self.gradient.resize(row.len(), 0.0);
        let (mut total, mut start) = (0.0, 0);
        for part in chosen.chunks(piece_of(engine, chosen.len())) {
            let batch = examples.batch(part, &mut self.scratch);
            let logits = engine.forward_training(&self.weights, batch, part.len(), &mut self.workspace);
            total += head(start..start + part.len(), logits);
            engine.backward(&self.weights, batch, part.len(), &mut self.workspace, &mut self.gradient);
            start += part.len();
        }
        engine.row_from_engine(&self.gradient, out);
        total
    }
}

/// Per-network losses whose gradients were computed with them.
pub(crate) struct KnownGradient {
    pub(crate) losses: Vec<f32>,
    pub(crate) gradient: Vec<f32>,
}

impl CustomOp1 for KnownGradient {
    fn name(&self) -> &'static str {
        "population-cross-entropy"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(self.losses.clone()), Shape::from(self.losses.len())))
    }

    fn bwd(&self, rows: &Tensor, _: &Tensor, d_losses: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = Tensor::from_slice(&self.gradient, rows.shape(), rows.device())?;
        Ok(Some(gradient.broadcast_mul(&d_losses.unsqueeze(1)?)?))
    }
}

/// Logits of each network on its own batch.
struct LogitsOp {
    engine: Arc<Engine>,
    examples: Arc<Examples>,
    chosen: Vec<u32>,
}

impl CustomOp1 for LogitsOp {
    fn name(&self) -> &'static str {
        "population-logits"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let rows = crate::loss::rows_of(storage, layout)?;
        let (n, dim) = layout.shape().dims2()?;
        let (b, classes) = (self.chosen.len() / n, self.engine.architecture().num_outputs());
        let mut out = vec![0.0; n * b * classes];
        out.par_chunks_exact_mut(b * classes).zip(rows.par_chunks_exact(dim).zip(self.chosen.par_chunks_exact(b))).for_each_init(
            Buffers::default,
            |buffers, (out, (row, chosen))| {
                buffers.weights.resize(dim, 0.0);
                self.engine.engine_from_row(row, &mut buffers.weights);
                let size = piece_of(&self.engine, b);
                for (chosen, out) in chosen.chunks(size).zip(out.chunks_mut(size * classes)) {
                    let batch = self.examples.batch(chosen, &mut buffers.scratch);
                    let logits = self.engine.forward_training(&buffers.weights, batch, chosen.len(), &mut buffers.workspace);
                    out.copy_from_slice(logits);
                }
            },
        );
        Ok((CpuStorage::F32(out), Shape::from((n, b, classes))))
    }

    fn bwd(&self, rows: &Tensor, _: &Tensor, d_logits: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let (n, dim) = rows.dims2()?;
        let values = rows.flatten_all()?.to_vec1::<f32>()?;
        let d_logits = d_logits.contiguous()?.flatten_all()?.to_vec1::<f32>()?;
        let b = self.chosen.len() / n;
        let stride = d_logits.len() / n;
        let mut gradient = vec![0.0; n * dim];
        gradient
            .par_chunks_exact_mut(dim)
            .zip(values.par_chunks_exact(dim).zip(self.chosen.par_chunks_exact(b)).zip(d_logits.par_chunks_exact(stride)))
            .for_each_init(Buffers::default, |buffers, (gradient, (network, d_logits))| {
                let classes = d_logits.len() / b;
                buffers.vjp(&self.engine, &self.examples, network, gradient, |part, z| {
                    z.copy_from_slice(&d_logits[part.start * classes..part.end * classes]);
                    0.0
                });
            });
        Ok(Some(Tensor::from_vec(gradient, (n, dim), rows.device())?))
    }
}

/// Subtracts from each row of `[b, c]` its mean: softmax does not see it.
fn centre(logits: &mut [f32], classes: usize) {
    for row in logits.chunks_exact_mut(classes) {
        let mean = row.iter().sum::<f32>() / classes as f32;
        for v in row.iter_mut() {
            *v -= mean;
        }
    }
}

fn rows_of<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let values = storage.as_slice::<f32>()?;
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => candle_core::bail!("population rows must be contiguous"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initial_weights;
    use candle_core::Var;
    use weft_core::families::{Family, ResNet};
    use weft_core::{Activation, Inputs, Window};

    /// What a GPU does with tasks, on the CPU: in lock step, with labels that are mapped where they are gathered.
    #[test]
    fn tasks_on_a_device_are_those_of_the_engine() {
        let architecture = Arc::new(Architecture::mlp("mlp", &[6, 5, 2], Activation::Relu).unwrap());
        let labels = (0..90).map(|i| i % 4).collect();
        let data = Dataset::new("points", Inputs::Floats(Seed::new(1).normals(90 * 6)), labels, 4, [60, 15]).unwrap();
        let tasks = ["0", "1+3", "0+1+2"].map(|set| Task::is_one_of(&set.parse().unwrap(), 4).unwrap());
        let engine = PopulationLoss::of_tasks(architecture.clone(), &data, &Device::cpu()).unwrap();
        let x = Tensor::from_vec(engine.examples.to_dense(), (60, 6), &candle_core::Device::Cpu).unwrap();
        let device = PopulationLoss { on_device: Some(x), ..engine.clone() };
        let shape = (3, architecture.num_parameters());
        let values = Tensor::from_vec(Seed::new(2).normals(shape.0 * shape.1), shape, &candle_core::Device::Cpu).unwrap();
        let rows = Var::from_tensor(&values).unwrap();
        let chosen = Seed::new(3).indices(3 * 8, 60);
        let [expected, got] = [&engine, &device].map(|loss| {
            let losses = loss.cross_entropy(&rows, (&chosen[..], &tasks[..])).unwrap();
            let gradient = losses.sum_all().unwrap().backward().unwrap().get(&rows).unwrap().flatten_all().unwrap();
            [losses.to_vec1::<f32>().unwrap(), gradient.to_vec1::<f32>().unwrap()].concat()
        });
        let apart = got.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5 && expected.iter().any(|v| v.abs() > 0.1), "{apart}");
    }
    /// Two norms behind each other: the second reads what the first makes of its batch.
    #[test]
    fn the_ensemble_of_one_network_is_what_its_logits_are() {
        let stem = Window { size: [1, 3], stride: [1, 1], padding: [0, 1] };
        let family = ResNet { image: [2, 1, 5], stem, stem_pool: false, widths: vec![3, 4], blocks: 1, num_classes: 3 };
        let architecture = Arc::new(Family::ResNet(family).build("blocks").unwrap());
        let values = Seed::new(1).normals(260 * 10).into_iter().map(|v| 3.0 * v + 1.0).collect();
        let data = Dataset::new("noise", Inputs::Floats(values), vec![0; 260], 3, [240, 10]).unwrap();
        let loss = PopulationLoss::new(architecture.clone(), &data, &Device::cpu()).unwrap();
        let loss = loss.between_examples(EXAMPLES_AT_ONCE, Seed::new(2)).unwrap();
        let network = Population::new(architecture.clone(), initial_weights(&architecture, Seed::new(3))).unwrap();
        let rows = Tensor::from_slice(network.data(), (1, network.dim()), &candle_core::Device::Cpu).unwrap();
        let chosen: Vec<u32> = (0..EXAMPLES_AT_ONCE as u32).collect();
        let mut logits = loss.logits(&rows, &chosen).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        centre(&mut logits, 3);
        let ensemble = loss.ensemble(&network);
        assert_eq!(ensemble.mean, logits);
        assert!(ensemble.spread.abs() < 1e-4 && logits.iter().any(|v| v.abs() > 0.1), "{}", ensemble.spread);
    }
}
