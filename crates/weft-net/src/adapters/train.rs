//! Training of adapters, a group in lock step.

use super::pass::On;
use super::task::TaskBatch;
use super::{AdapterLayout, AdapterTask, Adapters};
use crate::{Error, Result};
use weft_core::{Monitor, Precision, Recipe, Seed};
use weft_ops::backend::{Backend, OptimizerStep, Slot};

/// Adapters that are trained together.
#[derive(Debug)]
pub(super) struct Group<'a> {
    /// Numbers of their tasks.
    pub(super) tasks: Vec<usize>,
    all: &'a [AdapterTask],
    seed: Seed,
    start: Option<std::sync::Arc<[f32]>>,
    steps: u64,
}

/// An adapter before training: `A` uniform in `±1/√in`, `B` 0, so that its update is 0.
///
/// # Shapes
/// `[P]`.
///
/// # References
/// Kaiming-uniform with `a = √5`, as the PEFT library starts; Hu et al. (2022), section 4.1.
#[must_use]
pub fn initial_adapter(layout: &AdapterLayout, seed: Seed) -> Vec<f32> {
    let mut row = vec![0.0; layout.num_parameters()];
    for (number, update) in layout.updates().iter().enumerate() {
        let update = &update.factors;
        let bound = 1.0 / (update.inputs as f32).sqrt();
        let draws = seed.index(number as u64).uniforms(update.rank * update.inputs);
        row[update.a..][..draws.len()].iter_mut().zip(draws).for_each(|(a, u)| *a = (2.0 * u - 1.0) * bound);
    }
    row
}

/// Refuses what cannot be trained.
pub(super) fn check(tasks: &[AdapterTask], recipe: &Recipe) -> Result<()> {
    let most = tasks.iter().map(AdapterTask::len).max();
    let Some(most) = most else { return Err(Error::AdapterTask { reason: "there is no task to train an adapter on".to_owned() }) };
    // A batch may be larger than a task, which is then gone round.
    recipe.check(most.max(recipe.batch_size))?;
    if recipe.precision != Precision::Single {
        let (setting, expected) = ("precision", "`f32`, for adapters");
        return Err(weft_core::Error::Recipe { setting, expected, got: format!("{:?}", recipe.precision) }.into());
    }
    if recipe.snapshot_steps.is_empty() {
        return Ok(());
    }
    let (setting, expected) = ("snapshot-steps", "none, for adapters");
    Err(weft_core::Error::Recipe { setting, expected, got: format!("{:?}", recipe.snapshot_steps) }.into())
}

/// Shares tasks out to groups, the largest first: those of a group take as many steps as each of them would alone.
pub(super) fn groups<'a>(adapters: &Adapters, all: &'a [AdapterTask], (recipe, seed): (&Recipe, Seed)) -> Vec<Group<'a>> {
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by_key(|&task| (std::cmp::Reverse(all[task].len()), task));
    let widest = all.iter().map(|task| task.rows(recipe.batch_size)).max().unwrap_or(1);
    let size = (adapters.rows_at_once() / widest).max(1);
    let steps = |task: usize| recipe.num_steps(all[task].len().next_multiple_of(recipe.batch_size));
    let group = |tasks: &[usize]| Group { tasks: tasks.to_vec(), all, seed, start: adapters.start.clone(), steps: steps(tasks[0]) };
    order.chunk_by(|&one, &other| steps(one) == steps(other)).flat_map(|alike| alike.chunks(size)).map(group).collect()
}

/// The examples of a step: passes over all of a task's, each in a new order, one behind the other.
fn draw(seed: Seed, count: usize, batch: usize, step: u64) -> Vec<u32> {
    let first = step as usize * batch;
    let mut drawn = Vec::with_capacity(batch);
    while drawn.len() < batch {
        let at = first + drawn.len();
        let order = seed.index((at / count) as u64).permutation(count);
        drawn.extend(order[at % count..].iter().take(batch - drawn.len()));
    }
    drawn
}

impl Group<'_> {
    pub(super) fn train<B: Backend + 'static>(&self, on: &On<B>, recipe: &Recipe, monitor: &Monitor<'_>) -> Result<Vec<f32>> {
        let backend = &on.backend;
        let seeds: Vec<Seed> = self.tasks.iter().map(|&task| self.seed.index(task as u64)).collect();
        let start = |seed: &Seed| match &self.start {
            Some(start) => start.to_vec(),
            None => initial_adapter(&on.layout, seed.fork("init")),
        };
        let rows: Vec<f32> = seeds.iter().flat_map(start).collect();
        let mut parameters = backend.parameters(&rows, true)?;
        for step in 0..self.steps {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            let of_task = |(&task, seed): (&usize, &Seed)| draw(seed.fork("order"), self.all[task].len(), recipe.batch_size, step);
            let examples: Vec<Vec<u32>> = self.tasks.iter().zip(&seeds).map(of_task).collect();
            let drawn: Vec<_> = self.tasks.iter().zip(&examples).map(|(&task, e)| (&self.all[task], e.as_slice())).collect();
            let batch = TaskBatch::new(&on.base, &drawn)?;
            let (adapters, gradient) = backend.theta_and_gradient(&mut parameters);
            let outcome = on.losses(adapters, &batch, Some(gradient))?;
            if let Some(network) = outcome.losses.iter().position(|loss| !loss.is_finite()) {
                return Err(Error::Diverged { network: self.tasks[network], step });
            }
            let learning_rate = recipe.learning_rate * recipe.schedule.factor(step, self.steps);
            let (optimizer, weight_decay) = (recipe.optimizer, recipe.weight_decay);
            let rule =
                OptimizerStep { optimizer, weight_decay, learning_rate, clip_norm: None, average_decay: 0.0, step: step + 1 };
            backend.optimizer_step(&mut parameters, &rule)?;
            monitor.progress((step + 1) * self.tasks.len() as u64 / self.steps);
        }
        let rows = backend.read(&parameters, Slot::Theta)?;
        let dim = on.layout.num_parameters();
        match rows.iter().position(|w| !w.is_finite()) {
            Some(at) => Err(Error::Diverged { network: self.tasks[at / dim], step: self.steps }),
            None => Ok(rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_go_round_in_new_orders() {
        let seed = Seed::new(1);
        let all: Vec<u32> = (0..6).flat_map(|step| draw(seed, 5, 3, step)).collect();
        for pass in all.chunks_exact(5) {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4]);
        }
        assert_ne!(all[..5], all[5..10]);
        assert_eq!(draw(seed, 2, 5, 0).len(), 5);
    }
}
