//! What a zoo knows of one checkpoint, beside its weights.

use crate::{Condition, Digest, Duration, Error, FieldSpec, FieldType, Recipe, Task, Value};
use std::collections::BTreeMap;

/// Which part of a zoo a run belongs to. All snapshots of a run share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Split {
    /// Generators, codecs, anchors and statistics are fitted on it.
    Train,
    /// Held out until validation: the yardstick of novelty and accuracy.
    Test,
}

impl Split {
    /// The split's name in catalogues and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "test",
        }
    }
}

impl std::str::FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "train" => Ok(Self::Train),
            "test" => Ok(Self::Test),
            _ => Err(Error::Word { what: "split", got: text.to_owned(), known: "train, test" }),
        }
    }
}

/// Where a checkpoint came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Provenance {
    /// The file, the run or the generator that it came from, in words.
    pub source: String,
    /// SPDX licence expression, or `unknown`.
    pub licence: String,
    /// Digests of the checkpoints that it was derived from.
    pub parents: Vec<Digest>,
    /// Whether a generator made it.
    pub synthetic: bool,
    /// SHA-256 of the file that it came in, if it came in one: what publishers state beside their files.
    pub file_sha256: Option<Sha256>,
    /// The format of that file, such as `safetensors`.
    pub format: Option<String>,
    /// What the file said beside that which has a field of its own, as it stood there.
    pub metadata: BTreeMap<String, String>,
}

/// The SHA-256 of a file, written as 64 hexadecimal digits.
///
/// It tells files apart; a network is named by its [`Digest`], which no file format changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256(pub [u8; 32]);

impl std::fmt::Display for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One checkpoint's row in a zoo's catalogue.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Digest of the weights.
    pub digest: Digest,
    /// Identity of the training run; snapshots of one run share it.
    pub run: String,
    /// The optimizer step of the snapshot, if it is known.
    pub step: Option<u64>,
    /// Whether it is the last snapshot of its run.
    pub is_final: bool,
    /// The split of its run; none while it is quarantined.
    pub split: Option<Split>,
    /// The recipe, if it is known.
    pub recipe: Option<Recipe>,
    /// Figures such as `validation-accuracy`, `validation-loss`, `train-loss`: fractions in `[0, 1]` and nats.
    pub metrics: BTreeMap<String, f64>,
    /// Free words about it, such as `lineage`, `phrase`, `task`, `language`: what runs are grouped and conditioned by.
    pub labels: BTreeMap<String, String>,
    /// Why nothing may be fitted on it nor measured with it, such as weights that are not finite.
    pub quarantine: Option<String>,
    /// The largest relative change of an output that its canonicalization made, where that was measured.
    pub max_deviation: Option<f64>,
    /// Where it came from.
    pub provenance: Provenance,
}

impl Record {
    /// A record of a network of which nothing else is known: the last of its run, in the training split.
    #[must_use]
    pub fn new(digest: Digest, run: impl Into<String>) -> Self {
        Self {
            digest,
            run: run.into(),
            step: None,
            is_final: true,
            split: Some(Split::Train),
            recipe: None,
            metrics: BTreeMap::new(),
            labels: BTreeMap::new(),
            quarantine: None,
            max_deviation: None,
            provenance: Provenance::default(),
        }
    }

    /// What is known of these fields.
    ///
    /// A number is the `step`, a metric, or of the recipe `learning-rate`, `weight-decay`, `batch-size`, `steps` or `epochs` (the one
    /// that its duration is in). A word is the recipe's `optimizer` or a label; other types are labels, written as
    /// [`FieldSpec::read`] wants them.
    ///
    /// # Errors
    /// [`Error::FieldValue`] if a label does not have the form of the field's type.
    pub fn condition(&self, fields: &[FieldSpec]) -> Result<Condition, Error> {
        fields.iter().try_fold(Condition::unknown(), |condition, field| {
            let value = match field.kind {
                FieldType::Scalar(_) => self.number(&field.name).map(Value::Scalar),
                _ => self.words(field)?,
            };
            Ok(value.into_iter().fold(condition, |condition, value| condition.with(&field.name, value)))
        })
    }

    /// The binary task that its label `task` names, such as `0+3+7`, over so many classes; none without the label.
    ///
    /// # Errors
    /// Those of [`Task::is_one_of`], or [`Error::Classes`] if the label is no set of classes.
    pub fn task(&self, num_classes: usize) -> Result<Option<Task>, Error> {
        let task = |label: &String| Task::is_one_of(&label.parse()?, num_classes);
        self.labels.get(Task::LABEL).map(task).transpose()
    }

    fn number(&self, name: &str) -> Option<f64> {
        let of_recipe = |recipe: &Recipe| match (name, recipe.duration) {
            ("learning-rate", _) => Some(recipe.learning_rate),
            ("weight-decay", _) => Some(recipe.weight_decay),
            ("batch-size", _) => Some(recipe.batch_size as f64),
            ("steps", Duration::Steps(count)) | ("epochs", Duration::Epochs(count)) => Some(count as f64),
            _ => None,
        };
        let step = self.step.filter(|_| name == "step").map(|step| step as f64);
        step.or_else(|| self.metrics.get(name).copied()).or_else(|| self.recipe.as_ref().and_then(of_recipe))
    }

    fn words(&self, field: &FieldSpec) -> Result<Option<Value>, Error> {
        let label = self.labels.get(&field.name).map(String::as_str);
        let optimizer = self.recipe.as_ref().filter(|_| field.name == "optimizer").map(|recipe| recipe.optimizer.name());
        label.or(optimizer).map(|text| field.read(text)).transpose()
    }
}
