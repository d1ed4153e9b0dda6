//! What the units of networks do on data, for alignment by activations.

use std::error::Error;
use std::sync::Arc;
use weft_canon::Observer;
use weft_core::Architecture;

/// Runs networks of one architecture on examples.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use weft::activations::OnData;
/// use weft_canon::{AlignBy, Canonicalizer, Group, Matching};
/// use weft_core::{Activation, Architecture, Seed};
///
/// let mlp = Arc::new(Architecture::mlp("m", &[2, 2, 1], Activation::Relu).unwrap());
/// let anchor = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, -1.0, 0.0];
/// let renamed = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, -1.0, 1.0, 0.0];
/// let data = OnData::new(mlp.clone(), vec![1.0, 0.5, -1.0, 2.0, 0.3, -0.7]);
/// let canonicalizer = Canonicalizer::fit_anchor(Group::derive(mlp), &anchor, Matching::default(), Seed::new(0)).unwrap();
/// let canonicalizer = canonicalizer.aligned_by(AlignBy::Activations(Arc::new(data))).unwrap();
/// assert_eq!(canonicalizer.canonicalize(&renamed).unwrap().row, canonicalizer.anchor());
/// ```
#[derive(Debug, Clone)]
pub struct OnData {
    architecture: Arc<Architecture>,
    inputs: Vec<f32>,
}

impl OnData {
    /// Takes inputs `[b, i]`.
    #[must_use]
    pub fn new(architecture: Arc<Architecture>, inputs: Vec<f32>) -> Self {
        Self { architecture, inputs }
    }
}

impl Observer for OnData {
    fn observe(&self, row: &[f32], nodes: &[usize]) -> Result<Vec<Vec<f32>>, Box<dyn Error + Send + Sync>> {
        Ok(weft_net::interpret_captured(&self.architecture, row.into(), &self.inputs, nodes)?)
    }
}
