//! A handful of labelled examples: what says of a new task what it is, beside its name.

use crate::{Error, Result};

/// Inputs with what a network is to say of each.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleSet {
    inputs: Vec<f32>,
    labels: Vec<u32>,
    num_features: usize,
}

impl ExampleSet {
    /// Examples of so many features.
    ///
    /// # Shapes
    /// `inputs` `[m, features]`, `labels` `[m]`.
    ///
    /// # Errors
    /// [`Error::Examples`] if there is none, the inputs are not `m` rows of one length, or a value is not finite.
    pub fn new(inputs: Vec<f32>, labels: Vec<u32>) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Examples { reason });
        let count = labels.len();
        if count == 0 || inputs.is_empty() || !inputs.len().is_multiple_of(count) {
            return refuse(format!("{} values and {count} labels are not whole examples", inputs.len()));
        }
        if let Some(at) = inputs.iter().position(|value| !value.is_finite()) {
            return refuse(format!("example {} has a value that is not finite", at / (inputs.len() / count)));
        }
        Ok(Self { num_features: inputs.len() / count, inputs, labels })
    }

    /// Checks that they are examples for networks of these sizes, and that each output has at least one.
    ///
    /// # Errors
    /// [`Error::Examples`] says what does not fit.
    pub fn check(&self, num_features: usize, num_outputs: usize) -> Result<()> {
        let refuse = |reason: String| Err(Error::Examples { reason });
        if self.num_features != num_features {
            return refuse(format!("they have {} values each, and networks read {num_features}", self.num_features));
        }
        if let Some((example, label)) = self.labels.iter().enumerate().find(|(_, label)| **label as usize >= num_outputs) {
            return refuse(format!("label {label} of example {example} is not below {num_outputs}, the number of outputs"));
        }
        match (0..num_outputs as u32).find(|output| !self.labels.contains(output)) {
            Some(output) => refuse(format!("none has the label {output}")),
            None => Ok(()),
        }
    }

    /// The inputs, `[m, features]`.
    #[must_use]
    pub fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// What a network is to say of each, `[m]`.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Values of an example.
    #[must_use]
    pub fn num_features(&self) -> usize {
        self.num_features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_examples_is_refused_with_the_reason() {
        let check = |inputs: &[f32], labels: &[u32], reason: &str| {
            let found = ExampleSet::new(inputs.to_vec(), labels.to_vec()).and_then(|set| set.check(2, 2));
            assert!(found.unwrap_err().to_string().contains(reason), "{reason}");
        };
        check(&[], &[], "0 values and 0 labels");
        check(&[0.0; 5], &[0, 1], "5 values and 2 labels");
        check(&[0.0, 0.0, 1.0, f32::NAN], &[0, 1], "example 1 has a value that is not finite");
        check(&[0.0; 6], &[0, 1], "they have 3 values each, and networks read 2");
        check(&[0.0; 4], &[0, 2], "label 2 of example 1 is not below 2");
        check(&[0.0; 4], &[1, 1], "none has the label 0");
        assert!(ExampleSet::new(vec![0.0; 4], vec![1, 0]).unwrap().check(2, 2).is_ok());
    }
}
