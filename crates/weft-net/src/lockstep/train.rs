//! Training of populations in lock step.

use super::LockStep;
use crate::evaluate::score_all;
use crate::train::{Batches, RunResult, Snapshot, initial_weights};
use crate::{Device, Error, Examples, Labelled, Result};
use rayon::prelude::*;
use std::sync::Arc;
use weft_core::{Architecture, Monitor, Population, Recipe, Seed};
use weft_ops::backend::{Backend, Job, OptimizerStep, Slot, on_device_in};
use weft_ops::tensor::{Network as _, Pass};

/// Trains all runs in lock step. Called for devices other than the CPU; it runs on the CPU too, for tests.
pub(crate) fn train(
    architecture: &Arc<Architecture>,
    ([examples, validation], labelled): ([&Examples; 2], Labelled<'_>),
    recipe: &Recipe,
    seeds: &[Seed],
    (device, monitor): (&Device, &Monitor<'_>),
) -> Result<Vec<RunResult>> {
    let network = LockStep::new(architecture, seeds.len(), false)?.training();
    let job = Training { network, examples, validation, labelled, recipe, seeds, device, monitor };
    on_device_in(recipe.precision.into(), device.candle(), job)?
}

struct Training<'a> {
    network: LockStep,
    examples: &'a Examples,
    validation: &'a Examples,
    labelled: Labelled<'a>,
    recipe: &'a Recipe,
    seeds: &'a [Seed],
    device: &'a Device,
    monitor: &'a Monitor<'a>,
}

impl Job for Training<'_> {
    type Output = Result<Vec<RunResult>>;

    fn run<B: Backend + 'static>(self, backend: &B) -> Self::Output {
        let (recipe, n) = (self.recipe, self.seeds.len());
        let architecture = &self.network.architecture;
        let (features, classes) = (architecture.num_inputs(), architecture.num_outputs());
        let x = backend.upload(&self.examples.to_dense())?;
        let rows: Vec<f32> = self.seeds.iter().flat_map(|&seed| initial_weights(architecture, seed)).collect();
        let mut parameters = backend.parameters(&rows, true)?;
        let mut batches: Vec<Batches> =
            self.seeds.iter().map(|&s| Batches::new(s, self.examples.len(), recipe.batch_size)).collect();
        let num_steps = recipe.num_steps(self.examples.len());
        let kept = recipe.kept_steps(self.examples.len());
        let mut results = vec![RunResult { snapshots: Vec::new() }; n];
        let mut mean_loss: Option<B::Buffer> = None;
        for step in 0..num_steps {
            if self.monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let chosen: Vec<u32> = batches.par_iter_mut().flat_map_iter(|b| b.next().to_vec()).collect();
            let labels = self.examples.labels_of(&chosen, recipe.batch_size, self.labelled.tasks());
            let (chosen, labels) = (backend.upload_indices(&chosen)?, backend.upload_indices(&labels)?);
            let batch = backend.gather(features, backend.view(&x), backend.indices(&chosen))?;
            let (theta, gradient) = backend.theta_and_gradient(&mut parameters);
            let pass = Pass { backend, theta, rows: n * recipe.batch_size, keep: true };
            let (z, saved) = self.network.forward(pass, backend.view(&batch), None)?;
            let (losses, dz) = backend.cross_entropy([n, classes], backend.view(&z), backend.indices(&labels), None)?;
            let mut moved = Vec::new();
            if let Some(mut saved) = saved {
                moved = self.network.moved(&mut saved);
                self.network.backward(pass, (backend.view(&batch), None), saved, backend.view(&dz), gradient)?;
            }
            let learning_rate = recipe.learning_rate * recipe.schedule.factor(step, num_steps);
            let (optimizer, weight_decay) = (recipe.optimizer, recipe.weight_decay);
            let rule =
                OptimizerStep { optimizer, weight_decay, learning_rate, clip_norm: None, average_decay: 0.0, step: step + 1 };
            backend.optimizer_step(&mut parameters, &rule)?;
            let batch = self.network.batch(recipe.batch_size, false);
            for (norm, moved) in moved {
                backend.set_statistics(&mut parameters, &norm, batch, &moved)?;
            }
            match &mut mean_loss {
                Some(mean) => backend.mix(mean, 0.98, backend.view(&losses))?,
                None => mean_loss = Some(losses),
            }
            if let (true, Some(mean)) = (kept.contains(&(step + 1)), &mean_loss) {
                let rows = backend.read(&parameters, Slot::Theta)?;
                self.keep(rows, &backend.download(backend.view(mean))?, step + 1, &mut results)?;
            }
            self.monitor.progress((step + 1) * n as u64 / num_steps);
        }
        Ok(results)
    }
}

impl Training<'_> {
    /// Keeps the weights as snapshots, with their scores on the validation part.
    fn keep(&self, rows: Vec<f32>, losses: &[f32], step: u64, results: &mut [RunResult]) -> Result<()> {
        let architecture = &self.network.architecture;
        if let Some(network) = rows.iter().position(|w| !w.is_finite()) {
            return Err(Error::Diverged { network: network / architecture.num_parameters(), step });
        }
        let population = Population::new(architecture.clone(), rows)?;
        let scores = score_all(&population, (self.validation, self.labelled.tasks()), self.device)?;
        for (i, (result, validation)) in results.iter_mut().zip(scores).enumerate() {
            let train_loss = f64::from(losses[i]);
            result.snapshots.push(Snapshot { step, row: population.row(i).to_vec(), train_loss, validation });
        }
        Ok(())
    }
}
