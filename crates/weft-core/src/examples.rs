//! A handful of examples, labelled or not: what says of a new task what it is, beside its name.

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

/// Inputs that nobody has labelled: what shows a task that is a set of classes by its members.
#[derive(Debug, Clone, PartialEq)]
pub struct InputSet {
    inputs: Vec<f32>,
    num_features: usize,
}

impl InputSet {
    /// So many inputs.
    ///
    /// # Shapes
    /// `inputs` `[m, features]` for `m = count`.
    ///
    /// # Errors
    /// [`Error::Inputs`] if there is none, they are not `m` rows of one length, or a value is not finite.
    pub fn new(inputs: Vec<f32>, count: usize) -> Result<Self> {
        let refuse = |reason: String| Err(Error::Inputs { reason });
        if count == 0 {
            return refuse("there is none".to_owned());
        }
        if inputs.is_empty() || !inputs.len().is_multiple_of(count) {
            return refuse(format!("{} values are not {count} whole inputs", inputs.len()));
        }
        let num_features = inputs.len() / count;
        match inputs.iter().position(|value| !value.is_finite()) {
            Some(at) => refuse(format!("input {} has a value that is not finite", at / num_features)),
            None => Ok(Self { inputs, num_features }),
        }
    }

    /// Checks that they are inputs of this size.
    ///
    /// # Errors
    /// [`Error::Inputs`] says what they are instead.
    pub fn check(&self, num_features: usize) -> Result<()> {
        if self.num_features == num_features {
            return Ok(());
        }
        let reason = format!("they have {} values each, and networks read {num_features}", self.num_features);
        Err(Error::Inputs { reason })
    }

    /// The inputs, `[m, features]`.
    #[must_use]
    pub fn inputs(&self) -> &[f32] {
        &self.inputs
    }

    /// The number of inputs, `m`; never 0.
    #[must_use]
    pub fn count(&self) -> usize {
        self.inputs.len() / self.num_features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_set_of_inputs_is_refused_with_the_reason() {
        let check = |inputs: &[f32], count: usize, reason: &str| {
            let found = InputSet::new(inputs.to_vec(), count).and_then(|set| set.check(2));
            assert!(found.unwrap_err().to_string().contains(reason), "{reason}");
        };
        check(&[], 0, "example inputs: there is none");
        check(&[], 2, "0 values are not 2 whole inputs");
        check(&[0.0; 5], 2, "5 values are not 2 whole inputs");
        check(&[0.0, 0.0, f32::INFINITY, 0.0], 2, "input 1 has a value that is not finite");
        check(&[0.0; 6], 2, "they have 3 values each, and networks read 2");
        let set = InputSet::new(vec![0.5; 6], 3).unwrap();
        assert!(set.check(2).is_ok());
        assert_eq!((set.count(), set.inputs().len()), (3, 6));
    }

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
