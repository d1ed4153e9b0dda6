//! The tensors of a file under the names of an architecture.

use super::naming::Meaning;
use crate::{Source, SourceTensor, TensorFault};
use std::collections::BTreeMap;

/// A declared tensor in a file.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    /// The stored tensor's name.
    pub(crate) stored: String,
    /// The stored tensor's shape.
    pub(crate) stored_shape: Vec<usize>,
    /// Whether it is stored transposed.
    pub(crate) transposed: bool,
    /// Which share of the stored tensor it is.
    pub(crate) share: usize,
    /// Its own shape.
    pub(crate) shape: Vec<usize>,
    /// The declared tensor that it may repeat.
    pub(crate) repeats: Option<String>,
}

/// A file's tensors by declared names, as far as a naming knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Translation {
    /// Whose names they are.
    pub(crate) naming: String,
    /// What was found, by declared name.
    pub(crate) pieces: BTreeMap<String, Piece>,
    /// Stored tensors that are no weights.
    pub(crate) ignored: Vec<String>,
    /// Stored tensors that the naming does not know.
    pub(crate) unknown: Vec<String>,
    /// Stored tensors that cannot be what their name says.
    pub(crate) faults: Vec<(String, TensorFault)>,
}

impl Translation {
    /// The shape of a declared tensor.
    pub(crate) fn shape(&self, declared: &str) -> Option<&[usize]> {
        self.pieces.get(declared).map(|piece| piece.shape.as_slice())
    }

    /// One extent of a declared tensor, counted from the back.
    pub(crate) fn extent(&self, declared: &str, from_back: usize) -> Option<usize> {
        self.shape(declared)?.iter().rev().nth(from_back).copied()
    }

    /// How many blocks there are: the first `i` for which the tensor that `{}` makes of it is missing.
    pub(crate) fn depth(&self, before: &str, after: &str) -> usize {
        (0..=self.pieces.len()).find(|i| !self.pieces.contains_key(&format!("{before}{i}{after}"))).unwrap_or(0)
    }
}

/// Gives every stored tensor its meaning.
pub(crate) fn translate(source: &Source, naming: &str, meaning: &dyn Fn(&str) -> Option<Meaning>) -> Translation {
    let mut translation = Translation { naming: naming.to_owned(), ..Translation::default() };
    for (name, tensor) in source.tensors() {
        match meaning(name) {
            Some(meaning) => translation.add(name, tensor, &meaning),
            None if is_buffer(name, &tensor.shape) => translation.ignored.push(name.clone()),
            None => translation.unknown.push(name.clone()),
        }
    }
    translation
}

impl Translation {
    fn add(&mut self, name: &str, tensor: &SourceTensor, meaning: &Meaning) {
        if !tensor.is_weight() {
            self.faults.push((name.to_owned(), TensorFault::Dtype { dtype: tensor.dtype }));
            return;
        }
        let mut shape = tensor.shape.clone();
        let shares = meaning.declared.len();
        if meaning.transposed {
            shape.reverse();
        }
        let divides = shares == 1 || shape.first().is_some_and(|rows| rows.is_multiple_of(shares));
        if (meaning.transposed && shape.len() != 2) || !divides {
            // What it should be is not known before the architecture is: as many rows as are shared out.
            let expected = shape.iter().map(|axis| axis.next_multiple_of(shares.max(1)).max(1)).take(2).collect();
            self.faults.push((name.to_owned(), TensorFault::Shape { expected, got: tensor.shape.clone() }));
            return;
        }
        if let Some(rows) = shape.first_mut().filter(|_| shares > 1) {
            *rows /= shares;
        }
        for (share, declared) in meaning.declared.iter().enumerate() {
            let piece = Piece {
                stored: name.to_owned(),
                stored_shape: tensor.shape.clone(),
                transposed: meaning.transposed,
                share,
                shape: shape.clone(),
                repeats: meaning.repeats.clone(),
            };
            if let Some(first) = self.pieces.insert(declared.clone(), piece) {
                // Two spellings of one tensor: which of them counts is not for us to say.
                self.faults.push((name.to_owned(), TensorFault::Twice { other: first.stored }));
            }
        }
    }
}

/// Whether a tensor is one of those that training programs save beside the weights and compute anew when they load: counters
/// of batch norms, positions `0, 1, 2, …`, rotary frequencies, and causal masks.
fn is_buffer(name: &str, shape: &[usize]) -> bool {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    match last {
        "num_batches_tracked" => shape.iter().product::<usize>() == 1,
        "position_ids" => shape.len() <= 2,
        "masked_bias" => shape.is_empty() || shape == [1],
        "inv_freq" => module.ends_with("rotary_emb") && shape.len() == 1,
        "bias" => module.ends_with("attn") && matches!(*shape, [1, 1, rows, columns] if rows == columns),
        _ => matches!(name, "freqs_cis" | "freqs_cos" | "freqs_sin"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_told_from_weights() {
        let check = |name: &str, shape: &[usize], expected: bool| assert_eq!(is_buffer(name, shape), expected, "{name} {shape:?}");
        check("layer1.0.bn1.num_batches_tracked", &[], true);
        check("bert.embeddings.position_ids", &[1, 512], true);
        check("model.layers.3.self_attn.rotary_emb.inv_freq", &[16], true);
        check("transformer.h.0.attn.bias", &[1, 1, 1024, 1024], true);
        check("transformer.h.0.attn.bias", &[1, 1, 1024, 12], false);
        check("transformer.h.0.attn.bias", &[768], false);
        check("transformer.h.0.attn.masked_bias", &[], true);
        check("freqs_cos", &[512, 4], true);
        check("fc.bias", &[10], false);
    }
}
