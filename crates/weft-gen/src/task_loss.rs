//! What decoded networks lose at their tasks, differentiable in their weights: what function-aware training goes through.
//!
//! Networks of their own are run on labelled examples; adapters are run through their frozen base.

use crate::error::require;
use crate::{Result, RunTasks};
use candle_core::Tensor;
use std::sync::Arc;
use weft_core::{Architecture, Seed, Task};
use weft_net::PopulationLoss;
use weft_net::adapters::{AdapterTask, Adapters, DrawnTask};

/// The loss of networks at the tasks of training runs.
#[derive(Debug, Clone)]
pub enum TaskLoss {
    /// Networks that map labelled examples to outputs.
    Examples(PopulationLoss),
    /// Low-rank updates of one base.
    Adapters(AdapterLoss),
}

/// Adapters, and what each training run's adapter is for.
#[derive(Debug, Clone)]
pub struct AdapterLoss {
    adapters: Adapters,
    tasks: Arc<[AdapterTask]>,
}

impl AdapterLoss {
    /// Takes the task of each training run, in their order; it draws from all its examples.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) if there is none.
    pub fn new(adapters: Adapters, tasks: Vec<AdapterTask>) -> Result<Self> {
        require("tasks", "one for each training run", !tasks.is_empty(), "none")?;
        Ok(Self { adapters, tasks: tasks.into() })
    }
}

impl From<PopulationLoss> for TaskLoss {
    fn from(loss: PopulationLoss) -> Self {
        Self::Examples(loss)
    }
}

impl From<AdapterLoss> for TaskLoss {
    fn from(loss: AdapterLoss) -> Self {
        Self::Adapters(loss)
    }
}

impl TaskLoss {
    /// Refuses training runs that it has no tasks for, or of another architecture.
    pub(crate) fn check(&self, (architecture, num_runs): (&Architecture, usize), of_runs: &RunTasks) -> Result<()> {
        let Self::Adapters(loss) = self else {
            let (tasks, conditions) = (of_runs.tasks.len(), of_runs.conditions.len());
            return require("tasks", "one for each condition of training runs", tasks == conditions, tasks);
        };
        let fits = loss.adapters.layout().architecture().same_graph(architecture);
        require("networks", "adapters of the layout that the loss runs", fits, architecture.name())?;
        require("tasks", "one for each training run", loss.tasks.len() == num_runs, loss.tasks.len())
    }

    /// What a saved state of training must agree with: of adapters, their base and every text.
    pub(crate) fn fingerprint(&self) -> String {
        match self {
            // Labelled examples are the run's own data, which its stages look after.
            Self::Examples(_) => String::new(),
            Self::Adapters(AdapterLoss { adapters, tasks }) => {
                let tasks = tasks.iter().map(|task| task.fingerprint().to_string());
                std::iter::once(adapters.fingerprint().to_string()).chain(tasks).collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// The mean loss of each network on `batch` examples of its own task, in nats; `runs` are numbers of conditions, of which several may be
    /// of one run.
    ///
    /// # Shapes
    /// `rows` `[n, D]`, `n` runs → `[n]`.
    pub(crate) fn of_runs(
        &self,
        rows: &Tensor,
        (of_runs, runs): (&RunTasks, &[usize]),
        batch: usize,
        seed: Seed,
    ) -> Result<Tensor> {
        match self {
            Self::Examples(loss) => {
                let tasks: Vec<Task> = runs.iter().map(|&run| of_runs.tasks[run].clone()).collect();
                let examples = seed.indices(runs.len() * batch, loss.num_examples());
                Ok(loss.cross_entropy(rows, (&examples[..], &tasks[..]))?)
            }
            Self::Adapters(AdapterLoss { adapters, tasks }) => {
                let of_run = |&run: &usize| &tasks[run % tasks.len()];
                let examples: Vec<Vec<u32>> =
                    runs.iter().enumerate().map(|(i, run)| seed.index(i as u64).indices(batch, of_run(run).len())).collect();
                let drawn: Vec<DrawnTask<'_>> = runs.iter().zip(&examples).map(|(run, e)| (of_run(run), e.as_slice())).collect();
                Ok(adapters.loss(rows, &drawn)?)
            }
        }
    }

    /// Floating-point operations of one network's forward and backward pass over an example.
    pub(crate) fn flops(&self, architecture: &Architecture) -> f64 {
        match self {
            Self::Examples(_) => 3.0 * weft_net::forward_flops(architecture),
            Self::Adapters(AdapterLoss { adapters, tasks }) => {
                let mean = tasks.iter().map(|task| adapters.flops(task)).sum::<f64>() / tasks.len() as f64;
                mean + 6.0 * architecture.num_parameters() as f64
            }
        }
    }
}
