//! A generator's state as named tensors and text, for whoever writes files.

use crate::{Error, Result};
use std::collections::BTreeMap;
use std::str::FromStr;
use weft_ops::backend::Slot;
use weft_ops::tensor::FlatOptimizer;

/// What is kept of an optimizer.
const OPTIMIZER: [(&str, Slot); 4] =
    [("theta", Slot::Theta), ("average", Slot::Average), ("first-moment", Slot::First), ("second-moment", Slot::Second)];

/// The name of a vector of which networks that are trained beside each other have one each; the first's is what it is where there is one alone.
pub(crate) fn of_member(name: &str, place: usize) -> String {
    if place == 0 { name.to_owned() } else { format!("{name}-{place}") }
}

/// Named tensors with metadata; the façade writes it as one safetensors file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Artifact {
    /// Tensors by name: shape and values.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Text by key.
    pub metadata: BTreeMap<String, String>,
}

impl Artifact {
    /// Adds a vector.
    #[must_use]
    pub fn with_vector(mut self, name: &str, values: &[f32]) -> Self {
        self.tensors.insert(name.to_owned(), (vec![values.len()], values.to_vec()));
        self
    }

    /// Adds text.
    #[must_use]
    pub fn with_text(mut self, key: &str, value: impl std::fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    /// Adds the whole state of optimizers that are as far as each other.
    pub(crate) fn with_optimizers<'a>(mut self, optimizers: impl Iterator<Item = &'a FlatOptimizer>) -> Result<Self> {
        for (place, optimizer) in optimizers.enumerate() {
            for (name, slot) in OPTIMIZER {
                self = self.with_vector(&of_member(name, place), &optimizer.parameters().read(slot)?);
            }
            self = self.with_text("step", optimizer.step);
        }
        Ok(self)
    }

    /// Restores optimizers of as many parameters; what the state lacks is found before anything changes.
    pub(crate) fn restore_optimizers<'a>(&self, optimizers: impl Iterator<Item = &'a mut FlatOptimizer>) -> Result<()> {
        let step = self.text("step")?;
        let state = |(place, optimizer): (usize, &'a mut FlatOptimizer)| {
            let len = optimizer.parameters().len();
            let vectors = OPTIMIZER.map(|(name, slot)| Ok((slot, self.vector(&of_member(name, place), len)?)));
            Ok((optimizer, vectors.into_iter().collect::<Result<Vec<_>>>()?))
        };
        for (optimizer, vectors) in optimizers.enumerate().map(state).collect::<Result<Vec<_>>>()? {
            for (slot, values) in vectors {
                optimizer.parameters().write(slot, &values)?;
            }
            optimizer.step = step;
        }
        Ok(())
    }

    /// Refuses a state that was saved under another configuration, seed or training set.
    pub(crate) fn check_fingerprint(&self, expected: &str) -> Result<()> {
        match self.text::<String>("fingerprint")? {
            found if found == expected => Ok(()),
            found => Err(Error::Artifact { entry: "fingerprint".to_owned(), reason: format!("is {found}, expected {expected}") }),
        }
    }

    /// Width and blocks of a saved residual network, no larger than one that can be trained.
    pub(crate) fn network_size(&self) -> Result<[usize; 2]> {
        let [width, blocks] = [self.text("width")?, self.text("blocks")?];
        if (1..=16_384).contains(&width) && blocks <= 256 {
            return Ok([width, blocks]);
        }
        Err(Error::Artifact { entry: "width".to_owned(), reason: format!("{width} with {blocks} blocks is out of range") })
    }

    /// The vector of that name, of that length, with finite values.
    ///
    /// # Errors
    /// [`Error::Artifact`] names the entry and what is wrong.
    pub fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        let fail = |reason: String| Error::Artifact { entry: name.to_owned(), reason };
        let (_, values) = self.tensors.get(name).ok_or_else(|| fail("is missing".to_owned()))?;
        if values.len() != len {
            return Err(fail(format!("has {} values, expected {len}", values.len())));
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(fail("has a value that is not finite".to_owned()));
        }
        Ok(values.clone())
    }

    /// The parsed text of that key.
    ///
    /// # Errors
    /// [`Error::Artifact`] names the entry and what is wrong.
    pub fn text<T: FromStr>(&self, key: &str) -> Result<T> {
        let fail = |reason: String| Error::Artifact { entry: key.to_owned(), reason };
        let text = self.metadata.get(key).ok_or_else(|| fail("is missing".to_owned()))?;
        text.parse().map_err(|_| fail(format!("cannot be read from `{text}`")))
    }
}
