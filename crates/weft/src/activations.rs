//! What the units of networks do on data, for alignment by activations.

use std::error::Error;
use std::sync::Arc;
use weft_canon::Observer;
use weft_core::Architecture;

/// Values that are captured of one network, at most: 256 MiB.
const MAX_VALUES: usize = 1 << 26;

/// Runs networks of one architecture on examples.
///
/// Where the nodes of all examples would be more than 256 MiB of values, the last examples are left out.
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
        let len = examples_within(&self.architecture, nodes, MAX_VALUES).saturating_mul(self.architecture.num_inputs());
        let inputs = &self.inputs[..self.inputs.len().min(len)];
        Ok(weft_net::interpret_captured(&self.architecture, row.into(), inputs, nodes)?)
    }
}

/// How many examples' values of some nodes are no more than `limit` in all; at least one example's.
fn examples_within(architecture: &Architecture, nodes: &[usize], limit: usize) -> usize {
    let width = |node: &usize| architecture.shapes().get(*node).map_or(0, |shape| shape.iter().product::<usize>());
    (limit / nodes.iter().map(width).sum::<usize>().max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Activation;

    #[test]
    fn examples_are_left_out_where_their_values_are_too_many() {
        let mlp = Architecture::mlp("m", &[2, 10, 10, 1], Activation::Relu).unwrap();
        let nodes = [2, 4]; // the two activations
        assert_eq!(examples_within(&mlp, &nodes, 100), 5);
        assert_eq!(examples_within(&mlp, &nodes, 7), 1);
        assert_eq!(examples_within(&mlp, &[], 7), 7);
    }
}
