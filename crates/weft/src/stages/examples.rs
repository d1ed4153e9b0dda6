//! Conditions made of examples: what encodes them, and the draws that stand for the tasks of runs.
//!
//! All examples are of the training part. A training checkpoint has [`DRAWS`] conditions, each of its own draw with its own task's labels; a
//! held-out task is shown a draw with that task's labels for each seed of samples. The task's name does nothing but seed the draw.

use super::{Done, Session, models};
use crate::cache::Completed;
use crate::run::Stage;
use crate::{Error, Result};
use std::path::PathBuf;
use weft_core::{Architecture, Condition, Dataset, ExampleSet, Part, Seed, Task, Value};
use weft_gen::ExampleEncoder;
use weft_gen::examples::draw_examples;

/// Draws of each training checkpoint.
pub(super) const DRAWS: usize = 16;
/// The encoder's file in the folder of stage `train`.
pub(super) const FILE: &str = "examples.safetensors";

/// What shows tasks to generators: the encoder, and the training examples with their features.
pub(super) struct Shown {
    pub(super) encoder: ExampleEncoder,
    per_output: usize,
    /// Features of the training examples, `[N, q]`.
    features: Vec<f32>,
    /// Their classes, `[N]`.
    classes: Vec<u32>,
}

impl Shown {
    /// What a run needs for conditions of examples; none where it has no such conditions.
    ///
    /// # Errors
    /// A saved encoder that cannot be read, or data of too many classes.
    pub(super) fn of(session: &Session, done: &Done, architecture: &Architecture) -> Result<Option<Self>> {
        let Some(per_output) = session.config.generator.conditions().iter().find_map(|field| field.kind.examples()) else {
            return Ok(None);
        };
        let dataset = session.dataset(Stage::Train)?;
        let encoder = match done.find(Stage::Train) {
            Some(stage) => encoder_of(stage)?,
            None => ExampleEncoder::fit(dataset, architecture.num_outputs())?,
        };
        let features = encoder.features(&dataset.gather(dataset.range(Part::Train)));
        Ok(Some(Self { encoder, per_output, features, classes: dataset.labels(Part::Train).to_vec() }))
    }

    /// Which training examples stand for a task, by their numbers.
    pub(super) fn draw(&self, task: &Task, seed: Seed) -> Vec<u32> {
        draw_examples(task, &self.classes, self.per_output, seed)
    }

    /// A condition that shows a draw of a task's examples.
    pub(super) fn show(&self, condition: &Condition, task: &Task, seed: Seed) -> Condition {
        let chosen = self.draw(task, seed);
        let q = self.features.len() / self.classes.len();
        let features: Vec<f32> =
            chosen.iter().flat_map(|&i| &self.features[i as usize * q..(i as usize + 1) * q]).copied().collect();
        let labels: Vec<u32> = chosen.iter().map(|&i| task.output(self.classes[i as usize])).collect();
        condition.clone().with(ExampleEncoder::FIELD, Value::Vector(self.encoder.pool(&features, &labels)))
    }

    /// The conditions of training checkpoints of these tasks and runs, a draw of all after the other.
    pub(super) fn of_runs(
        &self,
        session: &Session,
        conditions: &[Condition],
        (tasks, runs): (&[Task], &[String]),
    ) -> Vec<Condition> {
        let seed = session.seed.fork("examples");
        let drawn = (0..DRAWS as u64).flat_map(|draw| {
            let each = conditions.iter().zip(tasks).zip(runs);
            each.map(move |((condition, task), run)| self.show(condition, task, seed.fork(run).index(draw)))
        });
        drawn.collect()
    }
}

/// The seed of the examples that show a held-out task to a set of samples.
pub(super) fn seed_of(session: &Session, task: &Task, set: usize) -> Seed {
    session.seed.fork("examples of held-out tasks").fork(task.name()).index(set as u64)
}

/// The drawn examples themselves, with a task's labels.
pub(super) fn example_set(dataset: &Dataset, task: &Task, chosen: &[u32]) -> Result<ExampleSet> {
    let start = dataset.range(Part::Train).start;
    let inputs = chosen.iter().flat_map(|&i| dataset.gather(start + i as usize..start + i as usize + 1)).collect();
    Ok(ExampleSet::new(inputs, chosen.iter().map(|&i| task.output(dataset.label(start + i as usize))).collect())?)
}

/// The encoder of a complete stage `train`.
pub(super) fn encoder_of(stage: &Completed) -> Result<ExampleEncoder> {
    let path: PathBuf = stage.folder.join(FILE);
    Ok(ExampleEncoder::load(&models::read_artifact(&path)?)?)
}

/// The error of a run that shows tasks and whose networks have none.
pub(super) fn without_tasks() -> Error {
    Error::Range {
        what: "the networks of a zoo whose generator is told `examples`",
        expected: "of many tasks".to_owned(),
        got: "none that names its task".to_owned(),
    }
}
