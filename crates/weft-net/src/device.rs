//! Where networks run, and how they run on a GPU: all in lock step, through batched products of candle.

use crate::train::{Batches, RunResult, Snapshot, initial_weights};
use crate::{Error, Examples, Result, Scores};
use candle_core::{D, DType, Tensor, Var};
use std::sync::Arc;
use weft_core::{Activation, Architecture, Monitor, Op, Optimizer, Population, Recipe, Seed};

/// A processor that can run networks.
#[derive(Debug, Clone)]
pub struct Device(candle_core::Device);

impl Device {
    /// The CPU.
    #[must_use]
    pub fn cpu() -> Self {
        Self(candle_core::Device::Cpu)
    }

    /// Opens a device by name: `cpu`, `cuda:N`, or `auto` for the first GPU where there is one, else the CPU.
    ///
    /// # Errors
    /// An unknown name; a GPU in a build without the feature `cuda`; a GPU that the machine does not have.
    pub fn open(name: &str) -> Result<Self> {
        let fail = |reason: String| Error::from(weft_ops::Error::Device { device: name.to_owned(), reason });
        match name {
            "auto" if candle_core::utils::cuda_is_available() => {
                Ok(candle_core::Device::new_cuda_with_stream(0).map_or_else(|_| Self::cpu(), Self))
            }
            "cpu" | "auto" => Ok(Self::cpu()),
            _ => {
                let index = name.strip_prefix("cuda:").and_then(|n| n.parse::<usize>().ok());
                let index = index.ok_or_else(|| fail("known devices are `auto`, `cpu` and `cuda:N`".to_owned()))?;
                if !candle_core::utils::cuda_is_available() {
                    return Err(fail("this build has no CUDA; build with `--features cuda`, or use `cpu`".to_owned()));
                }
                candle_core::Device::new_cuda_with_stream(index)
                    .map(Self)
                    .map_err(|e| fail(format!("the CUDA driver refused: {e}")))
            }
        }
    }

    /// Whether it is the CPU.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        self.0.is_cpu()
    }

    /// The device as candle knows it.
    #[must_use]
    pub fn candle(&self) -> &candle_core::Device {
        &self.0
    }
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.location() {
            candle_core::DeviceLocation::Cpu => write!(f, "cpu"),
            candle_core::DeviceLocation::Cuda { gpu_id } => write!(f, "cuda:{gpu_id}"),
            candle_core::DeviceLocation::Metal { gpu_id } => write!(f, "metal:{gpu_id}"),
        }
    }
}

/// The logits of a population through candle's own differentiable operations.
///
/// # Shapes
/// `weights` one tensor `[n, …]` a declared tensor; `inputs` `[b, i]` shared or `[n, b, i]` own → `[n, b, c]`.
pub(crate) fn tensor_logits(architecture: &Architecture, weights: &[Tensor], inputs: &Tensor) -> candle_core::Result<Tensor> {
    let mut values: Vec<Tensor> = vec![inputs.clone()];
    for node in &architecture.nodes()[1..] {
        let x = &values[node.inputs[0]];
        let y = match &node.op {
            Op::Linear { weight, bias } => {
                let w_noi = &weights[*weight];
                let (n, o, i) = w_noi.dims3()?;
                let y_nbo = if x.rank() == 2 {
                    let y = x.matmul(&w_noi.reshape((n * o, i))?.t()?)?; // (b, n·o)
                    y.reshape((x.dim(0)?, n, o))?.transpose(0, 1)?.contiguous()?
                } else {
                    x.matmul(&w_noi.transpose(1, 2)?)?
                };
                match bias {
                    Some(bias) => y_nbo.broadcast_add(&weights[*bias].unsqueeze(1)?)?,
                    None => y_nbo,
                }
            }
            Op::Activation(activation) => match activation {
                Activation::Relu => x.relu()?,
                Activation::Tanh => x.tanh()?,
                Activation::Gelu => x.gelu_erf()?,
                Activation::GeluTanh => x.gelu()?,
                Activation::Silu => x.silu()?,
                Activation::Sigmoid => (x.neg()?.exp()? + 1.0)?.recip()?,
            },
            Op::Add => x.broadcast_add(&values[node.inputs[1]])?,
            other => candle_core::bail!("`{}` does not run in lock step", other.name()),
        };
        values.push(y);
    }
    Ok(values.pop().expect("a graph has nodes"))
}

/// Refuses what [`tensor_logits`] does not run, before anything is moved to the device.
pub(crate) fn check_lock_step(architecture: &Architecture) -> Result<()> {
    let runs = |op: &Op| matches!(op, Op::Input { .. } | Op::Linear { .. } | Op::Activation(_) | Op::Add);
    match architecture.nodes().iter().position(|node| !runs(&node.op)) {
        None => Ok(()),
        Some(node) => {
            let (op, by) = (architecture.nodes()[node].op.name(), "the lock step of a GPU (use `device = \"cpu\"`)");
            Err(Error::Unsupported { architecture: architecture.name().to_owned(), node, op, by })
        }
    }
}

/// Splits flat rows `[n, D]` into one tensor `[n, …]` a declared tensor.
pub(crate) fn split_rows(architecture: &Architecture, rows: &Tensor) -> candle_core::Result<Vec<Tensor>> {
    let n = rows.dim(0)?;
    architecture
        .tensors()
        .iter()
        .map(|t| {
            let mut shape = vec![n];
            shape.extend(&t.shape);
            rows.narrow(1, t.range().start, t.num_values())?.contiguous()?.reshape(shape)
        })
        .collect()
}

/// Trains all runs in lock step. Called for devices other than the CPU; it runs on the CPU too, for tests.
pub(crate) fn train(
    architecture: &Arc<Architecture>,
    [examples, validation]: [&Examples; 2],
    recipe: &Recipe,
    seeds: &[Seed],
    (device, monitor): (&Device, &Monitor<'_>),
) -> Result<Vec<RunResult>> {
    check_lock_step(architecture)?;
    let device = device.candle();
    let n = seeds.len();
    let features = architecture.num_inputs();
    let x = Tensor::from_vec(examples.to_dense(), (examples.len(), features), device)?;
    let labels = Tensor::new(examples.labels(), device)?;
    let rows: Vec<f32> = seeds.iter().flat_map(|&seed| initial_weights(architecture, seed)).collect();
    let rows = Tensor::from_vec(rows, (n, architecture.num_parameters()), device)?;
    let weights = split_rows(architecture, &rows)?.iter().map(Var::from_tensor).collect::<candle_core::Result<Vec<_>>>()?;
    let mut moments = weights.iter().map(|w| Ok([w.zeros_like()?, w.zeros_like()?])).collect::<candle_core::Result<Vec<_>>>()?;
    let mut batches: Vec<Batches> = seeds.iter().map(|&s| Batches::new(s, examples.len(), recipe.batch_size)).collect();
    let num_steps = recipe.num_steps(examples.len());
    let kept = recipe.kept_steps(examples.len());
    let mut results = vec![RunResult { snapshots: Vec::new() }; n];
    let mut mean_loss: Option<Tensor> = None;
    for step in 0..num_steps {
        if monitor.should_stop() {
            return Err(Error::Interrupted);
        }
        let chosen: Vec<u32> = batches.iter_mut().flat_map(|b| b.next().to_vec()).collect();
        let chosen = Tensor::new(chosen, device)?;
        let x_nbi = x.index_select(&chosen, 0)?.reshape((n, recipe.batch_size, features))?;
        let y_nb = labels.index_select(&chosen, 0)?.reshape((n, recipe.batch_size))?;
        let tensors: Vec<Tensor> = weights.iter().map(|w| w.as_tensor().clone()).collect();
        let loss_n = cross_entropy(&tensor_logits(architecture, &tensors, &x_nbi)?, &y_nb)?;
        let gradients = loss_n.sum_all()?.backward()?;
        let rate = recipe.learning_rate * recipe.schedule.factor(step, num_steps);
        for (weight, moments) in weights.iter().zip(&mut moments) {
            let Some(gradient) = gradients.get(weight) else { continue };
            weight.set(&optimizer_step(recipe, (step, rate), &weight.detach(), gradient, moments)?)?;
        }
        let loss_n = loss_n.detach();
        mean_loss = Some(match mean_loss {
            Some(mean) => ((mean * 0.98)? + (loss_n * 0.02)?)?,
            None => loss_n,
        });
        if let (true, Some(mean)) = (kept.contains(&(step + 1)), &mean_loss) {
            keep(architecture, &weights, (mean, validation), step + 1, &mut results)?;
        }
        monitor.progress((step + 1) * n as u64 / num_steps);
    }
    Ok(results)
}

/// Mean cross-entropy of each network: `[n, b, c]`, `[n, b]` → `[n]`.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> candle_core::Result<Tensor> {
    let max = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&max)?;
    let log_sum = shifted.exp()?.sum(D::Minus1)?.log()?;
    let chosen = shifted.gather(&labels.unsqueeze(D::Minus1)?, D::Minus1)?.squeeze(D::Minus1)?;
    (log_sum - chosen)?.mean(D::Minus1)
}

fn optimizer_step(
    recipe: &Recipe,
    (step, rate): (u64, f64),
    weight: &Tensor,
    gradient: &Tensor,
    moments: &mut [Tensor; 2],
) -> candle_core::Result<Tensor> {
    let decayed = |g: &Tensor| if recipe.weight_decay == 0.0 { Ok(g.clone()) } else { g + (weight * recipe.weight_decay)? };
    match recipe.optimizer {
        Optimizer::Sgd { momentum: 0.0 } => weight - (decayed(gradient)? * rate)?,
        Optimizer::Sgd { momentum } => {
            moments[0] = ((&moments[0] * momentum)? + decayed(gradient)?)?;
            weight - (&moments[0] * rate)?
        }
        Optimizer::Adam { beta1, beta2, epsilon } | Optimizer::AdamW { beta1, beta2, epsilon } => {
            let decoupled = matches!(recipe.optimizer, Optimizer::AdamW { .. });
            let g = if decoupled { gradient.clone() } else { decayed(gradient)? };
            moments[0] = ((&moments[0] * beta1)? + (&g * (1.0 - beta1))?)?;
            moments[1] = ((&moments[1] * beta2)? + (g.sqr()? * (1.0 - beta2))?)?;
            let t = step as i32 + 1;
            let divisor = ((moments[1].sqrt()? / (1.0 - beta2.powi(t)).sqrt())? + epsilon)?;
            let update = ((&moments[0] / divisor)? * (rate / (1.0 - beta1.powi(t))))?;
            let shrink = if decoupled { 1.0 - rate * recipe.weight_decay } else { 1.0 };
            (weight * shrink)? - update
        }
    }
}

/// Copies the weights out as snapshots and scores them on the validation part.
fn keep(
    architecture: &Arc<Architecture>,
    weights: &[Var],
    (mean_loss, validation): (&Tensor, &Examples),
    step: u64,
    results: &mut [RunResult],
) -> Result<()> {
    let n = results.len();
    let flat = weights.iter().map(|w| w.as_tensor().flatten_from(1)).collect::<candle_core::Result<Vec<_>>>()?;
    let rows = Tensor::cat(&flat, 1)?.flatten_all()?.to_vec1::<f32>()?;
    let losses = mean_loss.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if let Some(network) = rows.iter().position(|w| !w.is_finite()) {
        return Err(Error::Diverged { network: network / architecture.num_parameters(), step });
    }
    let population = Population::new(architecture.clone(), rows)?;
    let scores: Vec<Scores> = crate::evaluate::score_all(&population, validation)?;
    for (i, result) in results.iter_mut().enumerate().take(n) {
        result.snapshots.push(Snapshot { step, row: population.row(i).to_vec(), train_loss: losses[i], validation: scores[i] });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use weft_core::{Dataset, Duration, GraphBuilder, Inputs, Node, Part, Schedule, Window};

    const OPTIMIZERS: [Optimizer; 4] = [Optimizer::SGD, Optimizer::Sgd { momentum: 0.9 }, Optimizer::ADAM, Optimizer::ADAMW];

    /// Noisy points of three classes, half of their values zero.
    fn dataset() -> Dataset {
        let (n, features, classes) = (150, 10, 3);
        let labels: Vec<u32> = (0..n).map(|i| (i % classes) as u32).collect();
        let values = Seed::new(1).normals(n * features).into_iter().enumerate().map(|(at, noise)| {
            let signal = if (at % features) % classes == (at / features) % classes { 1.0 } else { 0.0 };
            (noise + signal).max(0.0)
        });
        Dataset::new("points", Inputs::Floats(values.collect()), labels, classes, [90, 30]).unwrap()
    }

    /// An MLP, and a residual network that lacks a bias.
    fn architectures() -> [Arc<Architecture>; 2] {
        let tensors = [("a", vec![6, 10]), ("a.bias", vec![6]), ("b", vec![6, 6]), ("c", vec![3, 6]), ("c.bias", vec![3])];
        let nodes = vec![
            Node { op: Op::Input { shape: vec![10] }, inputs: vec![] },
            Node { op: Op::Linear { weight: 0, bias: Some(1) }, inputs: vec![0] },
            Node { op: Op::Activation(Activation::Silu), inputs: vec![1] },
            Node { op: Op::Linear { weight: 2, bias: None }, inputs: vec![2] },
            Node { op: Op::Add, inputs: vec![1, 3] },
            Node { op: Op::Linear { weight: 3, bias: Some(4) }, inputs: vec![4] },
        ];
        let tensors = tensors.map(|(name, shape)| (name.to_owned(), shape)).to_vec();
        [
            Arc::new(Architecture::mlp("mlp", &[10, 8, 8, 3], Activation::Relu).unwrap()),
            Arc::new(Architecture::new("residual", tensors, nodes).unwrap()),
        ]
    }

    fn recipe(optimizer: Optimizer) -> Recipe {
        let adaptive = matches!(optimizer, Optimizer::Adam { .. } | Optimizer::AdamW { .. });
        Recipe {
            optimizer,
            learning_rate: if adaptive { 0.01 } else { 0.1 },
            schedule: Schedule::Cosine { warmup_steps: 4 },
            weight_decay: 0.02,
            batch_size: 16,
            duration: Duration::Steps(20),
            snapshot_steps: vec![1, 7],
        }
    }

    fn seeds() -> Vec<Seed> {
        (0..3).map(|i| Seed::new(2).index(i)).collect()
    }

    fn lock_step(architecture: &Arc<Architecture>, recipe: &Recipe, monitor: &Monitor<'_>) -> Result<Vec<RunResult>> {
        let data = dataset();
        let [examples, validation] =
            [Part::Train, Part::Validation].map(|p| Examples::new(architecture, &data, data.range(p)).unwrap());
        train(architecture, [&examples, &validation], recipe, &seeds(), (&Device::cpu(), monitor))
    }

    #[test]
    fn lock_step_ends_where_the_engine_does() {
        for (architecture, optimizer) in architectures().iter().flat_map(|a| OPTIMIZERS.map(|o| (a, o))) {
            let recipe = recipe(optimizer);
            let engine = crate::train(architecture, &dataset(), &recipe, &seeds(), &Device::cpu(), &Monitor::silent()).unwrap();
            let lock_step = lock_step(architecture, &recipe, &Monitor::silent()).unwrap();
            assert_eq!(lock_step.len(), 3);
            for (network, (a, b)) in engine.iter().zip(&lock_step).enumerate() {
                let steps = |run: &RunResult| run.snapshots.iter().map(|s| s.step).collect::<Vec<_>>();
                assert_eq!((steps(a), steps(b)), (vec![1, 7, 20], vec![1, 7, 20]));
                for (a, b) in a.snapshots.iter().zip(&b.snapshots) {
                    let place = format!("`{}`, {optimizer:?}, network {network}, step {}", architecture.name(), a.step);
                    let apart = a.row.iter().zip(&b.row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(apart < 2e-5, "{place}: a weight differs by {apart}");
                    assert!((a.train_loss - b.train_loss).abs() < 1e-5, "{place}: {} and {}", a.train_loss, b.train_loss);
                    assert!((a.validation.loss - b.validation.loss).abs() < 1e-5, "{place}: validation loss");
                    assert!((a.validation.accuracy - b.validation.accuracy).abs() < 1e-9, "{place}: validation accuracy");
                }
                let moved = a.snapshots[2].row.iter().zip(&a.snapshots[0].row).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(moved > 0.01, "training hardly moves: {moved}");
            }
        }
    }

    #[test]
    fn lock_step_refuses_images_by_name() {
        let mut graph = GraphBuilder::new(Op::Input { shape: vec![1, 2, 5] });
        let x = graph.conv2d(0, "conv", [3, 1], Window::square(2, 1, 0), true);
        let x = graph.push(Op::GlobalAvgPool, &[x]);
        graph.linear(x, "head", [3, 3], true);
        let architecture = Arc::new(graph.build("images").unwrap());
        let error = lock_step(&architecture, &recipe(Optimizer::SGD), &Monitor::silent()).unwrap_err();
        assert!(matches!(error, Error::Unsupported { node: 1, op: "conv2d", .. }), "{error}");
        assert!(error.to_string().contains("the lock step of a GPU"), "{error}");
    }

    #[test]
    fn lock_step_stops_when_asked_and_names_divergence() {
        let [mlp, _] = architectures();
        let stop = AtomicBool::new(true);
        let error = lock_step(&mlp, &recipe(Optimizer::SGD), &Monitor::new(&|_| {}, &stop)).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        let wild = Recipe { learning_rate: 1e30, ..recipe(Optimizer::SGD) };
        let error = lock_step(&mlp, &wild, &Monitor::silent()).unwrap_err();
        assert!(matches!(error, Error::Diverged { .. }), "{error}");
    }
}
