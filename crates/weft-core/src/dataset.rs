//! Labelled examples with a fixed division into training, validation and test parts.

use crate::{Digest, Error, Result};
use std::ops::Range;

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Networks are trained on it.
    Train,
    /// Metrics in the catalogue, conditions and functional distances are computed on it.
    Validation,
    /// Read by the validation stage alone.
    Test,
}

impl Part {
    /// The part's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }
}

/// The examples' values, as stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Inputs {
    /// Bytes that stand for `byte · scale`.
    Bytes {
        /// `[examples, features]`.
        data: Vec<u8>,
        /// Factor to the value that a network sees.
        scale: f32,
    },
    /// Values as a network sees them, `[examples, features]`.
    Floats(Vec<f32>),
}

impl Inputs {
    fn len(&self) -> usize {
        match self {
            Self::Bytes { data, .. } => data.len(),
            Self::Floats(data) => data.len(),
        }
    }
}

/// A labelled data set, its examples ordered as training, validation, test.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    name: String,
    inputs: Inputs,
    labels: Vec<u32>,
    num_features: usize,
    num_classes: usize,
    num_train: usize,
    num_validation: usize,
}

impl Dataset {
    /// Assembles a data set whose examples stand in the order training, validation, test.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Label`] or [`Error::Division`] if the pieces do not fit.
    pub fn new(
        name: &str,
        inputs: Inputs,
        labels: Vec<u32>,
        num_classes: usize,
        [num_train, num_validation]: [usize; 2],
    ) -> Result<Self> {
        let examples = labels.len();
        let num_features = inputs.len() / examples.max(1);
        if num_features * examples != inputs.len() || num_features == 0 {
            let what = format!("inputs of data set `{name}`");
            return Err(Error::Length { what, expected: num_features.max(1) * examples, got: inputs.len() });
        }
        if let Some((example, &label)) = labels.iter().enumerate().find(|&(_, &l)| l as usize >= num_classes) {
            return Err(Error::Label { dataset: name.to_owned(), example, label, num_classes });
        }
        let dataset = Self { name: name.to_owned(), inputs, labels, num_features, num_classes, num_train, num_validation };
        if num_train.saturating_add(num_validation) > examples {
            return Err(Error::Division { dataset: dataset.name, part: Part::Validation.name(), examples });
        }
        for part in [Part::Train, Part::Validation, Part::Test] {
            if dataset.range(part).is_empty() {
                return Err(Error::Division { dataset: dataset.name, part: part.name(), examples });
            }
        }
        Ok(dataset)
    }

    /// The data set's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Values an example.
    #[must_use]
    pub fn num_features(&self) -> usize {
        self.num_features
    }

    /// The number of classes.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.num_classes
    }

    /// The examples of a part, as indices.
    #[must_use]
    pub fn range(&self, part: Part) -> Range<usize> {
        let validation = self.num_train + self.num_validation;
        match part {
            Part::Train => 0..self.num_train,
            Part::Validation => self.num_train..validation,
            Part::Test => validation..self.labels.len(),
        }
    }

    /// The labels of a part.
    #[must_use]
    pub fn labels(&self, part: Part) -> &[u32] {
        &self.labels[self.range(part)]
    }

    /// The label of an example, by its index over all parts.
    #[must_use]
    pub fn label(&self, example: usize) -> u32 {
        self.labels[example]
    }

    /// Writes an example's values into `out`, `[features]`.
    ///
    /// # Panics
    /// If the example does not exist or `out` has another length.
    pub fn read(&self, example: usize, out: &mut [f32]) {
        let range = example * self.num_features..(example + 1) * self.num_features;
        match &self.inputs {
            Inputs::Bytes { data, scale } => {
                for (value, &byte) in out.iter_mut().zip(&data[range]) {
                    *value = f32::from(byte) * scale;
                }
            }
            Inputs::Floats(data) => out.copy_from_slice(&data[range]),
        }
    }

    /// The values of a range of examples, `[examples, features]`.
    #[must_use]
    pub fn gather(&self, examples: Range<usize>) -> Vec<f32> {
        let mut out = vec![0.0; examples.len() * self.num_features];
        for (row, example) in out.chunks_exact_mut(self.num_features).zip(examples) {
            self.read(example, row);
        }
        out
    }

    /// A digest of values, labels and division.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let (values, scale): (Vec<u8>, f32) = match &self.inputs {
            Inputs::Bytes { data, scale } => (data.clone(), *scale),
            Inputs::Floats(data) => (data.iter().flat_map(|v| v.to_le_bytes()).collect(), 1.0),
        };
        let labels: Vec<u8> = self.labels.iter().flat_map(|l| l.to_le_bytes()).collect();
        let sizes: Vec<u8> = [self.num_features, self.num_classes, self.num_train, self.num_validation]
            .iter()
            .flat_map(|&s| (s as u64).to_le_bytes())
            .collect();
        Digest::of_parts([values.as_slice(), &scale.to_le_bytes(), &labels, &sizes])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_values() {
        let inputs = Inputs::Bytes { data: (0..8).collect(), scale: 0.5 };
        let d = Dataset::new("tiny", inputs, vec![0, 1, 0, 1], 2, [2, 1]).unwrap();
        assert_eq!(d.range(Part::Test), 3..4);
        assert_eq!(d.gather(1..3), [1.0, 1.5, 2.0, 2.5]);
        assert_eq!(d.labels(Part::Train), [0, 1]);
    }

    #[test]
    fn misfits_are_refused() {
        let floats = |n| Inputs::Floats(vec![0.0; n]);
        assert!(matches!(Dataset::new("x", floats(7), vec![0; 4], 2, [2, 1]), Err(Error::Length { .. })));
        assert!(matches!(Dataset::new("x", floats(8), vec![0, 0, 0, 2], 2, [2, 1]), Err(Error::Label { label: 2, .. })));
        assert!(matches!(Dataset::new("x", floats(8), vec![0; 4], 2, [4, 1]), Err(Error::Division { .. })));
        assert!(matches!(Dataset::new("x", floats(8), vec![0; 4], 2, [2, 2]), Err(Error::Division { part: "test", .. })));
        assert!(matches!(Dataset::new("x", floats(8), vec![0; 4], 2, [usize::MAX, 2]), Err(Error::Division { .. })));
    }
}
