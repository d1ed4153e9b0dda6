//! Inputs to run networks on, and shorter token sequences.

use crate::Result;
use weft_core::{Architecture, Node, Op, Seed};

/// Draws `n` random inputs: independent standard normal values for `input`, uniform token ids for `input-ids`.
///
/// The scale 1 is that of standardized data, whatever the architecture: no statistic of real inputs is known here.
///
/// # Shapes
/// `[n, i]`.
#[must_use]
pub fn random_inputs(architecture: &Architecture, n: usize, seed: Seed) -> Vec<f32> {
    let count = n * architecture.num_inputs();
    match architecture.nodes()[0].op {
        Op::InputIds { vocabulary, .. } => seed.indices(count, vocabulary).into_iter().map(|id| id as f32).collect(),
        _ => seed.normals(count),
    }
}

/// The same network for token sequences of another length than the declared one.
///
/// Weights stay as they are, for none depends on the number of tokens that are given, only on how many there may be.
///
/// # Errors
/// The input is no sequence of tokens, or some op does not work on so few or so many: a position that has no
/// vector, a token that is picked but not there, a map of the flattened sequence.
///
/// # Examples
/// ```
/// use weft_core::families::{Family, Gpt};
/// let gpt = Gpt { vocabulary: 50, length: 8, d_model: 4, depth: 1, num_heads: 2, d_hidden: 8, tied: true };
/// let gpt = Family::Gpt(gpt).build("gpt").unwrap();
/// assert_eq!(weft_net::with_tokens(&gpt, 3).unwrap().shapes()[0], [3]);
/// assert!(weft_net::with_tokens(&gpt, 9).is_err());
/// ```
pub fn with_tokens(architecture: &Architecture, tokens: usize) -> Result<Architecture> {
    let op = match &architecture.nodes()[0].op {
        Op::InputIds { vocabulary, .. } => Op::InputIds { length: tokens, vocabulary: *vocabulary },
        Op::Input { shape } if shape.len() == 2 => Op::Input { shape: vec![tokens, shape[1]] },
        _ => {
            let reason = "its input is no sequence of tokens".to_owned();
            return Err(crate::Error::Interpret { architecture: architecture.name().to_owned(), reason });
        }
    };
    let mut nodes = architecture.nodes().to_vec();
    nodes[0] = Node { op, inputs: Vec::new() };
    let tensors = architecture.tensors().iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    Ok(Architecture::new(architecture.name(), tensors, nodes)?)
}
