//! What generators are fitted on: training runs alone.

use crate::{Error, ExampleEncoder, InputEncoder, Result, course, schema};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Architecture, Condition, FieldSpec, Population, Schema, Task};

/// Canonical training checkpoints with their codes and conditions.
///
/// Whoever builds it has left out every held-out run: nothing here can reach a test split.
#[derive(Debug, Clone)]
pub struct TrainingSet {
    /// The codec, fitted on the same checkpoints.
    pub codec: Arc<Codec>,
    /// Canonical weights of the last snapshot of each run.
    pub finals: Arc<Population>,
    /// The same networks as they came from training, before canonicalization.
    pub raw_finals: Arc<Population>,
    /// Codes of all snapshots, `[N, k]`; `[draws · N, k]` where each has several conditions.
    pub codes: Arc<Vec<f32>>,
    /// Codes of the last snapshots, `[n, k]`.
    pub final_codes: Arc<Vec<f32>>,
    /// Conditions of all snapshots, `[N]`, or `[draws · N]`.
    pub conditions: Arc<Vec<Condition>>,
    /// Which snapshots are of one task, by a number for each, `[N]` or `[draws · N]`, where their conditions alone do not tell.
    pub groups: Option<Arc<Vec<u32>>>,
    /// Tasks of the runs, where they have their own.
    pub tasks: Option<Arc<RunTasks>>,
}

/// The tasks of training runs, with the conditions that name them.
#[derive(Debug, Clone, PartialEq)]
pub struct RunTasks {
    /// The fields that networks are conditioned on, fitted on all training snapshots; `task`, `description`, `examples` or `inputs` is one of them.
    pub schema: Schema,
    /// The condition of each run's last snapshot, of the schema's fields: `[n]`, or `[draws · n]` where each has several, all runs
    /// after each other and then again.
    pub conditions: Vec<Condition>,
    /// The task that each condition is of; none where purposes are told otherwise ([`TrainingSet::with_told_runs`]).
    pub tasks: Vec<Task>,
    encoded: Vec<f32>,
}

impl RunTasks {
    /// Encodes conditions, of which only the schema's fields are kept.
    pub(crate) fn new(schema: Schema, conditions: &[Condition], tasks: Vec<Task>) -> Result<Self> {
        let conditions: Vec<_> = conditions.iter().map(|condition| condition.restricted_to(&schema)).collect();
        let encoded = schema::encode_all(&schema, &conditions)?;
        Ok(Self { schema, conditions, tasks, encoded })
    }

    /// A condition, encoded.
    ///
    /// # Panics
    /// If there is no such condition.
    #[must_use]
    pub fn encoded(&self, condition: usize) -> &[f32] {
        let len = self.schema.encoded_len();
        &self.encoded[condition * len..(condition + 1) * len]
    }

    /// The standard deviation of each encoded value over all conditions, `[e]`; 0 of the flags that say whether a field is known.
    pub(crate) fn deviations(&self) -> Vec<f64> {
        let len = self.schema.encoded_len();
        let count = self.conditions.len().max(1) as f64;
        let (mut sums, mut squares) = (vec![0.0; len], vec![0.0; len]);
        let over = |sums: &mut [f64], of: &dyn Fn(usize, f64) -> f64| {
            for row in self.encoded.chunks_exact(len.max(1)) {
                sums.iter_mut().zip(row).enumerate().for_each(|(i, (sum, &v))| *sum += of(i, f64::from(v)));
            }
        };
        over(&mut sums, &|_, v| v / count);
        over(&mut squares, &|i, v| (v - sums[i]).powi(2) / count);
        let mut deviations: Vec<f64> = squares.into_iter().map(f64::sqrt).collect();
        let mut end = 0;
        for width in self.schema.widths() {
            end += width;
            deviations[end - 1] = 0.0;
        }
        deviations
    }

    /// What a saved state of training must agree with.
    pub(crate) fn fingerprint(&self) -> String {
        course::fingerprint(&format!("{:?} {:?}", self.schema, self.tasks), &[&self.encoded])
    }
}

/// What a generator of codes is fitted on: training checkpoints without their weights.
#[derive(Debug, Clone)]
pub struct CodeSet {
    /// The code length, `k`.
    pub code_len: usize,
    /// Codes of all snapshots, `[N, k]`.
    pub codes: Arc<Vec<f32>>,
    /// Codes of the last snapshots, `[n, k]`.
    pub final_codes: Arc<Vec<f32>>,
    /// Conditions of all snapshots, `[N]`.
    pub conditions: Arc<Vec<Condition>>,
}

impl TrainingSet {
    /// Encodes canonical training checkpoints.
    ///
    /// # Errors
    /// If the weights are not of the codec's dimension.
    pub fn new(
        codec: Arc<Codec>,
        all: &Population,
        finals: Population,
        raw_finals: Population,
        conditions: Vec<Condition>,
    ) -> Result<Self> {
        let codes = codec.encode(all.data())?;
        let final_codes = codec.encode(finals.data())?;
        Ok(Self {
            codec,
            finals: Arc::new(finals),
            raw_finals: Arc::new(raw_finals),
            codes: Arc::new(codes),
            final_codes: Arc::new(final_codes),
            conditions: Arc::new(conditions),
            groups: None,
            tasks: None,
        })
    }

    /// Says several conditions of each snapshot, such as several draws of examples: those of all, `[N]`, and then again, `[draws · N]`.
    /// `groups`, `[N]`, numbers the snapshots that are of one task, of which conditions do not tell.
    ///
    /// # Errors
    /// [`Error::Setting`] if they are not so many.
    pub fn with_draws(mut self, conditions: Vec<Condition>, groups: &[u32]) -> Result<Self> {
        let (count, draws) = (self.conditions.len(), conditions.len() / self.conditions.len().max(1));
        if draws == 0 || draws * count != conditions.len() || groups.len() != count {
            let got = format!("{} conditions and {} groups for {count} snapshots", conditions.len(), groups.len());
            return Err(Error::Setting { setting: "conditions", expected: "as many for each snapshot, and a group", got });
        }
        self.codes = Arc::new(self.codes.repeat(draws));
        self.groups = Some(Arc::new(groups.repeat(draws)));
        self.conditions = Arc::new(conditions);
        Ok(self)
    }

    /// Says that each run has a task of its own: the conditions and tasks of the last snapshots, and the fields of conditions. Of several
    /// conditions a run, those of all runs come first, and then again.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is not one of each a run, or as many, or no field `task`, `description`, `examples` or `inputs` that tells tasks apart;
    /// conditions that do not fit their fields' types.
    pub fn with_tasks(self, fields: &[FieldSpec], conditions: &[Condition], tasks: Vec<Task>) -> Result<Self> {
        let count = self.finals.len();
        if conditions.is_empty() || !conditions.len().is_multiple_of(count.max(1)) || tasks.len() != conditions.len() {
            let got = format!("{} conditions and {} tasks for {count} runs", conditions.len(), tasks.len());
            return Err(Error::Setting { setting: "tasks", expected: "one, and a condition, for each run", got });
        }
        let told = self.told(fields, conditions, tasks)?;
        let telling = [Task::LABEL, Task::TEXT, ExampleEncoder::FIELD, InputEncoder::FIELD];
        let known = |schema: &Schema| telling.iter().any(|name| schema.field(name).is_ok());
        if let Some(of_runs) = told.tasks.as_deref().filter(|of_runs| !known(&of_runs.schema)) {
            let names: Vec<_> = of_runs.schema.fields.iter().map(|field| field.name.as_str()).collect();
            let expected = "fields of which `task` is one, `description`, `examples` or `inputs`, for networks of many tasks";
            return Err(Error::Setting { setting: "conditions", expected, got: names.join(", ") });
        }
        Ok(told)
    }

    /// Says what tells each run's purpose, where that is no task on labelled data, such as a language that an adapter is for: the conditions of
    /// the last snapshots, as for [`TrainingSet::with_tasks`]. What the purpose is, a [`TaskLoss`](crate::TaskLoss) of its own knows.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is not a condition for each run, or as many for each; conditions that do not fit their fields' types.
    pub fn with_told_runs(self, fields: &[FieldSpec], conditions: &[Condition]) -> Result<Self> {
        let count = self.finals.len();
        if conditions.is_empty() || !conditions.len().is_multiple_of(count.max(1)) {
            let got = format!("{} conditions for {count} runs", conditions.len());
            return Err(Error::Setting { setting: "conditions", expected: "one for each run, or as many for each", got });
        }
        let told = self.told(fields, conditions, Vec::new())?;
        if told.tasks.as_deref().is_some_and(|of_runs| of_runs.schema.encoded_len() == 0) {
            let expected = "fields that training runs have, to tell them apart";
            return Err(Error::Setting { setting: "conditions", expected, got: "none".to_owned() });
        }
        Ok(told)
    }

    fn told(mut self, fields: &[FieldSpec], conditions: &[Condition], tasks: Vec<Task>) -> Result<Self> {
        let schema = Schema::fit(fields, &self.conditions)?;
        self.tasks = Some(Arc::new(RunTasks::new(schema, conditions, tasks)?));
        Ok(self)
    }

    /// The architecture of all checkpoints.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        self.finals.architecture()
    }

    /// The codes alone.
    #[must_use]
    pub fn code_set(&self) -> CodeSet {
        let (codes, final_codes) = (self.codes.clone(), self.final_codes.clone());
        CodeSet { code_len: self.code_len(), codes, final_codes, conditions: self.conditions.clone() }
    }

    /// The code length, `k`.
    #[must_use]
    pub fn code_len(&self) -> usize {
        self.codec.code_len()
    }

    /// Decodes codes to networks.
    ///
    /// # Errors
    /// If the codes are not `[n, k]`.
    pub fn decode(&self, codes: &[f32]) -> Result<Population> {
        Ok(Population::new(self.architecture().clone(), self.codec.decode(codes)?)?)
    }
}
