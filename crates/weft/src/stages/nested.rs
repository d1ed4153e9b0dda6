//! One order of hidden units for networks of several widths.
//!
//! Each zoo's canonical order is that of its own anchor: unit 5 of one width has nothing to do with unit 5 of another, and what a generator
//! learned of it says nothing at a third width. So zoos are put in a nested order. From the narrowest up, the mean network of each is matched
//! to that of the one before, padded with zeros; all its networks take that permutation. A unit's place then means the same in every width
//! that has it.

use crate::Result;
use std::sync::Arc;
use weft_canon::{Group, Matching, match_to};
use weft_core::{Architecture, Population, Seed};

/// Brings populations into a nested order; one whose tensors are no larger versions of those before it begins an order of its own.
pub(super) fn nest(populations: &mut [Population], seed: Seed) -> Result<()> {
    let mut order: Vec<usize> = (0..populations.len()).filter(|&at| !populations[at].is_empty()).collect();
    order.sort_by_key(|&at| populations[at].dim());
    let mut before: Option<(Arc<Architecture>, Vec<f32>)> = None;
    for at in order {
        let networks = &mut populations[at];
        let architecture = networks.architecture().clone();
        if let Some(padded) = before.as_ref().and_then(|(narrow, row)| padded(narrow, row, &architecture)) {
            let group = Group::derive(architecture.clone());
            let (element, _) = match_to(&group, &mean(networks), &padded, &Matching::default(), seed.index(at as u64))?;
            let (element, dim) = (element.without_scale(), networks.dim());
            for row in networks.data_mut().chunks_exact_mut(dim) {
                group.apply(&element, row)?;
            }
        }
        before = Some((architecture, mean(networks)));
    }
    Ok(())
}

/// The mean network.
fn mean(networks: &Population) -> Vec<f32> {
    let mut mean = vec![0.0_f64; networks.dim()];
    for row in networks.rows() {
        mean.iter_mut().zip(row).for_each(|(mean, &w)| *mean += f64::from(w));
    }
    mean.into_iter().map(|total| (total / networks.len() as f64) as f32).collect()
}

/// A network with zeros for what a wider architecture has more; none if the other is no wider version.
pub(super) fn padded(narrow: &Architecture, row: &[f32], wide: &Architecture) -> Option<Vec<f32>> {
    let mut out = vec![0.0; wide.num_parameters()];
    places(narrow, wide)?.into_iter().zip(row).for_each(|(place, &weight)| out[place] = weight);
    Some(out)
}

/// Where each weight of a network is in one of a wider version of its architecture, whose first units are the narrow one's; none if the
/// other is no wider version.
pub(super) fn places(narrow: &Architecture, wide: &Architecture) -> Option<Vec<usize>> {
    if narrow.tensors().len() != wide.tensors().len() {
        return None;
    }
    let mut places = vec![0; narrow.num_parameters()];
    for (from, to) in narrow.tensors().iter().zip(wide.tensors()) {
        if from.shape.len() != to.shape.len() || from.shape.iter().zip(&to.shape).any(|(from, to)| from > to) {
            return None;
        }
        for (at, out) in places[from.range()].iter_mut().enumerate() {
            // From the last axis to the first.
            let (mut rest, mut place, mut stride) = (at, 0, 1);
            for (&narrow, &wide) in from.shape.iter().zip(&to.shape).rev() {
                place += rest % narrow * stride;
                (rest, stride) = (rest / narrow, stride * wide);
            }
            *out = to.range().start + place;
        }
    }
    Some(places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Activation;

    fn mlp(width: usize) -> Arc<Architecture> {
        Arc::new(Architecture::mlp("mlp", &[6, width, 4], Activation::Relu).unwrap())
    }

    #[test]
    fn units_that_widths_share_come_first_and_in_one_order() {
        let narrow = Population::new(mlp(3), Seed::new(1).normals(mlp(3).num_parameters())).unwrap();
        // The wide network has the units of the narrow one among weak others, in another order.
        let (group, dim) = (Group::derive(mlp(5)), mlp(5).num_parameters());
        let mut row = padded(&mlp(3), narrow.row(0), &mlp(5)).unwrap();
        row.iter_mut().zip(Seed::new(2).normals(dim)).for_each(|(w, g)| *w += 0.05 * g);
        let expected = row.clone();
        group.apply(&group.random(Seed::new(3)).without_scale(), &mut row).unwrap();
        assert_ne!(row, expected);
        let mut populations = [Population::new(mlp(5), row).unwrap(), narrow.clone()];
        nest(&mut populations, Seed::new(4)).unwrap();
        assert_eq!(populations[1], narrow);
        let nested = populations[0].row(0);
        assert_eq!(nested[..3 * 6], expected[..3 * 6]);
        assert_eq!(nested[5 * 6..5 * 6 + 3], expected[5 * 6..5 * 6 + 3]);
    }

    #[test]
    fn what_is_no_wider_version_keeps_its_order() {
        let deep = Arc::new(Architecture::mlp("deep", &[6, 5, 5, 4], Activation::Relu).unwrap());
        assert!(padded(&mlp(5), &vec![1.0; mlp(5).num_parameters()], &deep).is_none());
        assert!(padded(&mlp(5), &vec![1.0; mlp(5).num_parameters()], &mlp(4)).is_none());
        let mut populations = [mlp(3), deep].map(|a| Population::new(a.clone(), Seed::new(5).normals(a.num_parameters())).unwrap());
        let before = populations.clone();
        nest(&mut populations, Seed::new(6)).unwrap();
        assert_eq!(populations, before);
    }
}
