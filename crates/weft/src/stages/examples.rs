//! Conditions made of examples, labelled or not: what encodes them, and the draws that stand for the tasks of runs.
//!
//! All examples are of the training part. A training checkpoint has [`DRAWS`] conditions, each of its own draw with its own task's labels; a
//! held-out task is shown a draw with that task's labels for each seed of samples. Where labels are not shown, draws are of members of the task's set.
//! The task's name does nothing but seed the draw.

use super::{Done, Session, models};
use crate::cache::Completed;
use crate::config::{FieldConfig, FieldKindName, RunConfig};
use crate::run::Stage;
use crate::samples::ShownFile;
use crate::{Error, Result};
use std::path::PathBuf;
use weft_core::{Architecture, Condition, Dataset, ExampleSet, Part, Seed, Task, Value};
use weft_gen::examples::draw_examples;
use weft_gen::inputs::draw_inputs;
use weft_gen::{Artifact, ExampleEncoder, InputEncoder};

/// Draws of each training checkpoint.
pub(super) const DRAWS: usize = 16;

/// What encodes examples: with their labels, or their inputs alone.
enum Encoder {
    Labelled(ExampleEncoder),
    Unlabelled(InputEncoder),
}

/// What shows tasks to generators: the encoder, and the training examples with their features.
pub(super) struct Shown {
    encoder: Encoder,
    /// Examples of each output, or inputs, that are drawn.
    count: usize,
    /// Features of the training examples, `[N, q]`.
    features: Vec<f32>,
    /// Their classes, `[N]`.
    classes: Vec<u32>,
}

/// The field by which a run's generators are shown tasks; none where they are not.
fn field_of(config: &RunConfig) -> Option<&FieldConfig> {
    config.generator.conditions().iter().find(|field| field.kind.shows())
}

/// Whether a run's generators are shown tasks.
pub(super) fn shows(config: &RunConfig) -> bool {
    field_of(config).is_some()
}

impl Shown {
    /// What a run needs for conditions of examples; none where it has no such conditions.
    ///
    /// # Errors
    /// A saved encoder that cannot be read, or data of too many classes.
    pub(super) fn of(session: &Session, done: &Done, architecture: &Architecture) -> Result<Option<Self>> {
        let Some(field) = field_of(session.config) else { return Ok(None) };
        let dataset = session.dataset(Stage::Train)?;
        let saved = done.find(Stage::Train).map(|stage| saved_of(stage, &field.name)).transpose()?;
        let (encoder, count) = match (field.kind, saved) {
            (FieldKindName::Inputs(count), Some(saved)) => (Encoder::Unlabelled(InputEncoder::load(&saved)?), count),
            (FieldKindName::Inputs(count), None) => (Encoder::Unlabelled(InputEncoder::fit(dataset)?), count),
            (FieldKindName::Examples(count), Some(saved)) => (Encoder::Labelled(ExampleEncoder::load(&saved)?), count),
            (FieldKindName::Examples(count), None) => {
                (Encoder::Labelled(ExampleEncoder::fit(dataset, architecture.num_outputs())?), count)
            }
            _ => return Ok(None),
        };
        let inputs = dataset.gather(dataset.range(Part::Train));
        let features = match &encoder {
            Encoder::Labelled(encoder) => encoder.features(&inputs),
            Encoder::Unlabelled(encoder) => encoder.features(&inputs),
        };
        Ok(Some(Self { encoder, count, features, classes: dataset.labels(Part::Train).to_vec() }))
    }

    /// The field that holds what is shown.
    fn field(&self) -> &'static str {
        match self.encoder {
            Encoder::Labelled(_) => ExampleEncoder::FIELD,
            Encoder::Unlabelled(_) => InputEncoder::FIELD,
        }
    }

    /// The encoder's file in the folder of stage `train`, and what is in it.
    pub(super) fn saved(&self) -> (String, Artifact) {
        let artifact = match &self.encoder {
            Encoder::Labelled(encoder) => encoder.save(),
            Encoder::Unlabelled(encoder) => encoder.save(),
        };
        (file_of(self.field()), artifact)
    }

    /// The encoder of labelled examples, if labels are shown.
    pub(super) fn labelled(&self) -> Option<&ExampleEncoder> {
        if let Encoder::Labelled(encoder) = &self.encoder { Some(encoder) } else { None }
    }

    /// Which training examples stand for a task, by their numbers.
    pub(super) fn draw(&self, task: &Task, seed: Seed) -> Vec<u32> {
        match self.encoder {
            Encoder::Labelled(_) => draw_examples(task, &self.classes, self.count, seed),
            Encoder::Unlabelled(_) => draw_inputs(task, &self.classes, self.count, seed),
        }
    }

    /// A condition that shows a draw of a task's examples.
    pub(super) fn show(&self, condition: &Condition, task: &Task, seed: Seed) -> Condition {
        let chosen = self.draw(task, seed);
        let features = self.features_of(&chosen);
        let vector = match &self.encoder {
            Encoder::Labelled(encoder) => {
                let labels: Vec<u32> = chosen.iter().map(|&i| task.output(self.classes[i as usize])).collect();
                encoder.pool(&features, &labels)
            }
            Encoder::Unlabelled(encoder) => encoder.pool(&features),
        };
        condition.clone().with(self.field(), Value::Vector(vector))
    }

    /// A condition that shows as many inputs of any class, and so no task; none where labels are shown.
    pub(super) fn show_any(&self, condition: &Condition, seed: Seed) -> Option<Condition> {
        let Encoder::Unlabelled(encoder) = &self.encoder else { return None };
        let features = self.features_of(&seed.indices(self.count, self.classes.len()));
        Some(condition.clone().with(self.field(), Value::Vector(encoder.pool(&features))))
    }

    /// The features of training examples, `[m, q]`.
    fn features_of(&self, chosen: &[u32]) -> Vec<f32> {
        let q = self.features.len() / self.classes.len();
        chosen.iter().flat_map(|&i| &self.features[i as usize * q..(i as usize + 1) * q]).copied().collect()
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
    let labels = chosen.iter().map(|&i| task.output(dataset.label(start + i as usize))).collect();
    Ok(ExampleSet::new(inputs_of(dataset, chosen), labels)?)
}

/// The inputs of training examples, `[m, d]`.
pub(super) fn inputs_of(dataset: &Dataset, chosen: &[u32]) -> Vec<f32> {
    let start = dataset.range(Part::Train).start;
    chosen.iter().flat_map(|&i| dataset.gather(start + i as usize..start + i as usize + 1)).collect()
}

/// A condition that shows what a user's file holds, and what is to be said of it.
///
/// # Errors
/// An encoder that cannot be read; examples or inputs that are not for the networks.
pub(super) fn told(session: &Session, stage: &Completed, condition: &Condition, file: &ShownFile) -> Result<Condition> {
    let (field, vector) = match file {
        ShownFile::Examples(examples) => {
            let encoder = ExampleEncoder::load(&saved_of(stage, ExampleEncoder::FIELD)?)?;
            (ExampleEncoder::FIELD, encoder.encode(examples)?)
        }
        ShownFile::Inputs { inputs, has_labels } => {
            let encoder = InputEncoder::load(&saved_of(stage, InputEncoder::FIELD)?)?;
            let vector = encoder.embed(inputs)?;
            if *has_labels {
                session.monitor.note("inputs: the file has labels, which are not read");
            }
            let trained = field_of(session.config).and_then(|field| field.kind.inputs()).unwrap_or_default();
            if inputs.count() < trained {
                let count = inputs.count();
                session.monitor.note(format!("inputs: {count} are shown, fewer than the {trained} of training: they tell less"));
            }
            (InputEncoder::FIELD, vector)
        }
    };
    Ok(condition.clone().with(field, Value::Vector(vector)))
}

/// The file of what encodes a field.
fn file_of(field: &str) -> String {
    format!("{field}.safetensors")
}

fn saved_of(stage: &Completed, field: &str) -> Result<Artifact> {
    let path: PathBuf = stage.folder.join(file_of(field));
    models::read_artifact(&path)
}

/// The error of a run that shows tasks and whose networks have none.
pub(super) fn without_tasks() -> Error {
    Error::Range {
        what: "the networks of a zoo whose generator is shown `examples` or `inputs`",
        expected: "of many tasks".to_owned(),
        got: "none that names its task".to_owned(),
    }
}
