//! Rows that read the data, as coefficients in the few directions that training moves them in.
//!
//! Such a row has a weight an input, and most of what distinguishes two of them is what initialization left: noise of no consequence. So
//! rows of one length, of all units of all networks, are a mean, a sum of their first principal directions (orthonormal, of the weights as
//! they are, not divided by deviations), and a rest. Tokens hold the coefficients of the sum; the rest is left out.

use super::maps::{Kind, Map};
use crate::linalg::{SymmetricSum, product_rows};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use weft_core::products::{Here, View};

/// Longest row that directions are found for: their products are a matrix of so many rows and columns.
const LONGEST: usize = 4096;

/// Rows of a map that tokens hold coefficients of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reduction {
    pub(super) key: BasisKey,
    /// The rows in a flat row of weights, and their coefficients among the values of tokens.
    pub(super) weights: Range<usize>,
    pub(super) values: Range<usize>,
    pub(super) tensor: String,
}

/// Whose directions: the kind of rows and their length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BasisKey {
    pub(super) kind: Kind,
    pub(super) inputs: usize,
    pub(super) rank: usize,
}

impl BasisKey {
    /// Such as `linear.784.24`.
    pub(super) fn name(self) -> String {
        format!("{}.{}.{}", self.kind.name(), self.inputs, self.rank)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let kind = parts.next()?;
        let kind = Kind::ALL.into_iter().find(|k| k.name() == kind)?;
        let key = Self { kind, inputs: parts.next()?.parse().ok()?, rank: parts.next()?.parse().ok()? };
        let holds = key.rank > 0 && key.rank < key.inputs && key.inputs <= LONGEST;
        (holds && key.name() == text).then_some(key)
    }

    /// How many numbers a basis is: the mean, then the directions.
    pub(super) fn len(self) -> usize {
        self.inputs * (1 + self.rank)
    }
}

/// The mean `[inputs]` and directions `[rank, inputs]` of rows, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Basis {
    pub(super) key: BasisKey,
    pub(super) numbers: Vec<f32>,
}

impl Basis {
    /// Finds the directions of rows, `[m, inputs]`.
    fn fit(key: BasisKey, mut rows: Vec<f32>) -> Result<Self> {
        let BasisKey { inputs, rank, .. } = key;
        let mut mean = vec![0.0_f64; inputs];
        for row in rows.chunks_exact(inputs) {
            mean.iter_mut().zip(row).for_each(|(mean, &w)| *mean += f64::from(w));
        }
        let count = (rows.len() / inputs).max(1) as f64;
        let mut numbers: Vec<f32> = mean.into_iter().map(|total| (total / count) as f32).collect();
        for row in rows.chunks_exact_mut(inputs) {
            row.iter_mut().zip(&numbers).for_each(|(w, mean)| *w -= mean);
        }
        let (_, vectors) = SymmetricSum::of_columns(&rows, inputs).eigen()?;
        for j in 0..rank {
            let largest = (0..inputs).map(|i| vectors[(i, j)]).fold(0.0_f64, |a, b| if b.abs() > a.abs() { b } else { a });
            numbers.extend((0..inputs).map(|i| (largest.signum() * vectors[(i, j)]) as f32));
        }
        Ok(Self { key, numbers })
    }

    pub(super) fn mean(&self) -> &[f32] {
        &self.numbers[..self.key.inputs]
    }

    pub(super) fn directions(&self) -> &[f32] {
        &self.numbers[self.key.inputs..]
    }

    /// Rows as coefficients, `[m, inputs]` → `[m, rank]`.
    fn coefficients(&self, rows: &[f32]) -> Vec<f32> {
        let BasisKey { inputs, rank, .. } = self.key;
        let centered: Vec<f32> = rows.iter().zip(self.mean().iter().cycle()).map(|(w, mean)| w - mean).collect();
        product_rows(&Here, &centered, View::new(self.directions(), rank, inputs).t())
    }

    /// Coefficients as rows, `[m, rank]` → `[m, inputs]`.
    fn rows(&self, coefficients: &[f32]) -> Vec<f32> {
        let BasisKey { inputs, rank, .. } = self.key;
        let mut rows = product_rows(&Here, coefficients, View::new(self.directions(), rank, inputs));
        rows.iter_mut().zip(self.mean().iter().cycle()).for_each(|(w, mean)| *w += mean);
        rows
    }
}

/// Finds the bases of all reductions of networks, each with its rows `[n, D]`.
pub(super) fn fit<'a>(networks: impl Iterator<Item = (&'a [Reduction], usize, &'a [f32])>) -> Result<BTreeMap<BasisKey, Basis>> {
    let mut rows: BTreeMap<BasisKey, Vec<f32>> = BTreeMap::new();
    for (reductions, dim, data) in networks {
        for reduction in reductions {
            if reduction.key.inputs > LONGEST {
                let (tensor, inputs) = (reduction.tensor.clone(), reduction.key.inputs);
                return Err(Error::LongRow { tensor, inputs, longest: LONGEST });
            }
            let rows = rows.entry(reduction.key).or_default();
            data.chunks_exact(dim).for_each(|row| rows.extend_from_slice(&row[reduction.weights.clone()]));
        }
    }
    rows.into_iter().map(|(key, rows)| Ok((key, Basis::fit(key, rows)?))).collect()
}

/// A flat row of weights as the values that tokens hold.
pub(super) fn values_of(row: &[f32], reductions: &[(Reduction, Basis)]) -> Vec<f32> {
    let (mut values, mut at) = (Vec::new(), 0);
    for (reduction, basis) in reductions {
        values.extend_from_slice(&row[at..reduction.weights.start]);
        values.extend(basis.coefficients(&row[reduction.weights.clone()]));
        at = reduction.weights.end;
    }
    values.extend_from_slice(&row[at..]);
    values
}

/// The values that tokens hold as a flat row of weights.
pub(super) fn weights_of(values: &[f32], reductions: &[(Reduction, Basis)]) -> Vec<f32> {
    let (mut row, mut at) = (Vec::new(), 0);
    for (reduction, basis) in reductions {
        row.extend_from_slice(&values[at..reduction.values.start]);
        row.extend(basis.rows(&values[reduction.values.clone()]));
        at = reduction.values.end;
    }
    row.extend_from_slice(&values[at..]);
    row
}

/// Replaces rows of first maps by coefficients: sets lengths of their rows, and moves all offsets to the values of tokens.
pub(super) fn reduce(maps: &mut [Map], rank: usize) -> Vec<Reduction> {
    let reduced = |map: &Map| rank > 0 && map.reads_data() && map.inputs > rank;
    let mut reductions: Vec<Reduction> = Vec::new();
    for map in maps.iter_mut().filter(|map| reduced(map)) {
        let weights = map.weights..map.weights + map.units * map.inputs;
        let key = BasisKey { kind: map.kind, inputs: map.inputs, rank };
        map.row_len = rank;
        reductions.push(Reduction { key, weights, values: 0..map.units * rank, tensor: map.tensor.clone() });
    }
    reductions.sort_by_key(|reduction| reduction.weights.start);
    let mut saved = 0;
    for reduction in &mut reductions {
        let (start, len) = (reduction.weights.start - saved, reduction.values.len());
        saved += reduction.weights.len() - len;
        reduction.values = start..start + len;
    }
    let moved = |offset: usize| {
        let before = reductions.iter().filter(|reduction| reduction.weights.end <= offset);
        offset - before.map(|reduction| reduction.weights.len() - reduction.values.len()).sum::<usize>()
    };
    for map in maps.iter_mut() {
        map.move_to(moved);
    }
    reductions
}
