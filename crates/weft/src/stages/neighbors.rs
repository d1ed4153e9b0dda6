//! Baselines of a run whose generator learns from networks of other widths: what anyone has who trained at a neighboring width.
//!
//! *Sliced* networks are trained ones of the nearest wider architecture, with as many units left as are wanted: those with the largest product
//! of the norms of all that they read and write. *Padded* ones are of the nearest narrower architecture, with units that read and write
//! nothing; they compute what the narrower ones do. A generator of a new width must be better than both.

use super::nested::{padded, places};
use super::{Session, canonicalize, tokens};
use crate::Result;
use std::sync::Arc;
use weft_canon::{Element, Group};
use weft_core::{Architecture, Condition, Population, Seed, Split};
use weft_gen::Generator;
use weft_zoo::{Filter, Purpose, Zoo};

/// Trained networks of another width, made fit.
#[derive(Debug)]
pub(super) struct Resized {
    name: String,
    networks: Population,
}

/// The baselines that there are: none where no other runs are learned from.
pub(super) fn baselines(session: &Session, architecture: &Arc<Architecture>) -> Result<Vec<Resized>> {
    let others = tokens::others(session)?;
    let finals = others.iter().map(|stage| {
        let zoo = Zoo::open(&canonicalize::zoo_of(stage))?;
        let records = zoo.records(&Filter { split: Some(Split::Train), final_only: true, ..Filter::default() })?;
        Ok(zoo.load(&records, Purpose::Evaluate)?)
    });
    let finals = finals.collect::<Result<Vec<_>>>()?;
    let others = || finals.iter().filter(|networks| !networks.is_empty() && networks.dim() != architecture.num_parameters());
    let wider = others().filter(|wide| places(architecture, wide.architecture()).is_some()).min_by_key(|wide| wide.dim());
    let narrower =
        others().filter(|narrow| places(narrow.architecture(), architecture).is_some()).max_by_key(|narrow| narrow.dim());
    let mut baselines = Vec::new();
    if let Some(wide) = wider {
        baselines.push(Resized { name: "sliced".to_owned(), networks: sliced(wide, architecture)? });
    }
    if let Some(narrow) = narrower {
        let rows = narrow.rows().filter_map(|row| padded(narrow.architecture(), row, architecture)).flatten().collect();
        baselines.push(Resized { name: "padded".to_owned(), networks: Population::new(architecture.clone(), rows)? });
    }
    Ok(baselines)
}

/// The strongest units of wider networks.
fn sliced(wide: &Population, architecture: &Arc<Architecture>) -> Result<Population> {
    let group = Group::derive(wide.architecture().clone());
    let kept = places(architecture, wide.architecture()).unwrap_or_default();
    let mut rows = Vec::with_capacity(wide.len() * kept.len());
    for row in wide.rows() {
        let mut row = row.to_vec();
        group.apply(&strongest_first(&group, &row), &mut row)?;
        rows.extend(kept.iter().map(|&at| row[at]));
    }
    Ok(Population::new(architecture.clone(), rows)?)
}

/// The order of units from the largest product of norms down; units that are tied in groups stay where they are.
fn strongest_first(group: &Group, row: &[f32]) -> Element {
    let mut element = group.identity();
    for (space, element) in group.spaces().iter().zip(&mut element.spaces) {
        if space.members > 1 {
            continue;
        }
        let mut scores = vec![0.0_f64; space.size];
        for axis in &space.axes {
            let tensor = &group.architecture().tensors()[axis.tensor];
            let stride: usize = tensor.shape[axis.axis + 1..].iter().product();
            let mut squares = vec![0.0_f64; space.size];
            for (at, &weight) in row[tensor.range()].iter().enumerate() {
                squares[at / stride % tensor.shape[axis.axis] / axis.inner] += f64::from(weight).powi(2);
            }
            // Biases and statistics are no measure of a unit.
            if tensor.shape.len() > 1 {
                scores.iter_mut().zip(&squares).for_each(|(score, square)| *score += (square + f64::MIN_POSITIVE).ln());
            }
        }
        let mut order: Vec<u32> = (0..space.size as u32).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        element.permutation = order;
    }
    element
}

impl Generator for Resized {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(&self, n: usize, _: &Condition, seed: Seed) -> weft_gen::Result<Population> {
        let chosen: Vec<usize> = seed.fork("copy").indices(n, self.networks.len()).into_iter().map(|i| i as usize).collect();
        Ok(self.networks.select(&chosen))
    }

    fn flops_per_sample(&self) -> f64 {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Activation;

    fn mlp(width: usize) -> Arc<Architecture> {
        Arc::new(Architecture::mlp("mlp", &[3, width, 2], Activation::Relu).unwrap())
    }

    #[test]
    fn a_slice_keeps_the_units_that_do_most() {
        let narrow = mlp(2);
        let weak = Seed::new(2).normals(mlp(4).num_parameters());
        let mut row: Vec<f32> = weak.iter().map(|w| 1e-3 * w).collect();
        // Units 1 and 3 read 3 and 4 times the first input and write to the first output.
        (row[3], row[9], row[16 + 1], row[16 + 3]) = (3.0, 4.0, 5.0, 6.0);
        let wide = Population::new(mlp(4), row).unwrap();
        let slice = sliced(&wide, &narrow).unwrap();
        let row = slice.row(0);
        assert_eq!([row[0], row[3], row[6 + 2], row[6 + 3]].map(|w| w as i32), [4, 3, 6, 5]);
        let inputs = Seed::new(3).normals(4 * 3);
        let logits = |networks: &Population| weft_net::logits(networks, &inputs, &weft_net::Device::cpu()).unwrap();
        assert!(logits(&wide).iter().zip(logits(&slice)).all(|(a, b)| (a - b).abs() < 0.02));
        let drawn = Resized { name: "sliced".to_owned(), networks: slice.clone() }.sample(3, &Condition::unknown(), Seed::new(1));
        assert_eq!(drawn.unwrap().data(), slice.data().repeat(3));
    }
}
