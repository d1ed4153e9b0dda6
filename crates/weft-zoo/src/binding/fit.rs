//! Whether the tensors that a naming finds are those that an architecture declares.

use super::translation::{Piece, Translation};
use super::{Binding, Part, Repeat, StoredTensor};
use crate::TensorFault;
use std::collections::{BTreeMap, BTreeSet};
use weft_core::Architecture;

/// Binds a translation to an architecture, or lists all that is wrong.
pub(crate) fn fit(translation: &Translation, architecture: &Architecture) -> Result<Binding, Vec<(String, TensorFault)>> {
    let mut faults = translation.faults.clone();
    let mut stored: Vec<StoredTensor> = Vec::new();
    let mut known: BTreeMap<&str, usize> = BTreeMap::new();
    let mut parts = Vec::with_capacity(architecture.tensors().len());
    for spec in architecture.tensors() {
        let Some(piece) = translation.pieces.get(&spec.name) else {
            faults.push((spec.name.clone(), TensorFault::Missing));
            continue;
        };
        if !same_but_for_ones(&piece.shape, &spec.shape) {
            let fault = TensorFault::Shape { expected: spec.shape.clone(), got: piece.shape.clone() };
            faults.push((name(piece, &spec.name), fault));
            continue;
        }
        let at = *known.entry(&piece.stored).or_insert_with(|| {
            stored.push(StoredTensor { name: piece.stored.clone(), shape: piece.stored_shape.clone() });
            stored.len() - 1
        });
        let start = piece.share * spec.num_values();
        parts.push(Part { stored: at, transposed: piece.transposed, values: start..start + spec.num_values() });
    }
    let repeats = rest(translation, architecture, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok(Binding { naming: translation.naming.clone(), stored, parts, repeats, ignored: translation.ignored.clone() })
}

/// What the architecture does not declare: repeats of what it does, or faults.
fn rest(translation: &Translation, architecture: &Architecture, faults: &mut Vec<(String, TensorFault)>) -> Vec<Repeat> {
    let declared: BTreeMap<&str, usize> =
        architecture.tensors().iter().enumerate().map(|(i, spec)| (spec.name.as_str(), i)).collect();
    let extra = || TensorFault::Extra { architecture: architecture.name().to_owned() };
    let mut repeats = Vec::new();
    let mut extras = BTreeSet::new();
    for (_, piece) in translation.pieces.iter().filter(|(name, _)| !declared.contains_key(name.as_str())) {
        let of = piece.repeats.as_ref().and_then(|of| declared.get(of.as_str()));
        match of {
            Some(&of) if piece.shape == architecture.tensors()[of].shape && !piece.transposed => {
                repeats.push(Repeat { stored: StoredTensor { name: piece.stored.clone(), shape: piece.shape.clone() }, of });
            }
            _ => {
                extras.insert(&piece.stored);
            }
        }
    }
    extras.extend(&translation.unknown);
    faults.extend(extras.into_iter().map(|name| (name.clone(), extra())));
    repeats
}

/// A stored tensor's name, and what it is there, if that is called differently.
fn name(piece: &Piece, declared: &str) -> String {
    if piece.stored == declared { declared.to_owned() } else { format!("{}` for `{declared}", piece.stored) }
}

/// Whether two shapes are the same but for axes of length 1.
fn same_but_for_ones(a: &[usize], b: &[usize]) -> bool {
    let long = |shape: &[usize]| shape.iter().copied().filter(|&axis| axis != 1).collect::<Vec<_>>();
    a == b || long(a) == long(b)
}
