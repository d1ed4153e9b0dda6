//! Alignment by activations: units that answer alike on data count as the same.
//!
//! A space's units show what they do where something outside the space reads them ([`HiddenSpace::nodes`]). Two units are compared
//! by the correlation of their values over examples and positions, so that scales, and what a bias adds, count for nothing; where
//! signs are free, by its size. A head has several coordinates, which weights may mix: two heads are compared by the linear
//! CKA of theirs, which rotations leave alone, and the signs of their directions are then chosen by weights.
//!
//! # References
//! Li, Yosinski, Clune, Lipson & Hopcroft 2016 (matching by correlation); Ainsworth, Hayase & Srinivasa 2023, Section 3.1;
//! Kornblith, Norouzi, Lee & Hinton 2019 for CKA.

use crate::error::{Result, check_len};
use crate::matching::match_signs;
use crate::product::{View, multiply};
use crate::{Assigner, Element, Error, Group, HiddenSpace, Slots, SpaceElement};
use std::fmt;
use std::sync::Arc;

/// Values of a unit that are compared at a node, at most; the others are left out evenly.
const MAX_SAMPLES: usize = 1 << 14;

/// Runs networks of one architecture on data that it holds, always the same.
pub trait Observer: fmt::Debug + Send + Sync {
    /// The values of some nodes of one network, for each node `[b, width]`.
    ///
    /// # Errors
    /// Whatever keeps the network from running.
    fn observe(&self, row: &[f32], nodes: &[usize])
    -> std::result::Result<Vec<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>>;
}

/// By what units of two networks count as the same.
#[derive(Debug, Clone, Default)]
pub enum AlignBy {
    /// The inner products of their weights.
    #[default]
    Weights,
    /// The correlations of their values on data.
    Activations(Arc<dyn Observer>),
}

/// What the units of one network do on data.
#[derive(Debug, Clone)]
pub(crate) struct Activations {
    spaces: Vec<Vec<Values>>,
}

/// A space's units at one node: centered values, those of single units at unit norm.
#[derive(Debug, Clone)]
struct Values {
    /// `[units · coordinates, samples]`
    data: Vec<f32>,
    samples: usize,
    coordinates: usize,
}

/// An alignment by activations.
pub(crate) struct Matched {
    pub(crate) element: Element,
    /// Units that do nothing on the data, in spaces of either network that have several: nothing tells them apart.
    pub(crate) silent: usize,
}

impl Activations {
    pub(crate) fn of(group: &Group, observer: &dyn Observer, row: &[f32]) -> Result<Self> {
        let nodes: Vec<usize> = group.spaces().iter().flat_map(|space| space.nodes.iter().copied()).collect();
        let refuse = |reason: String| Error::Observe { architecture: group.architecture().name().to_owned(), reason };
        let captured = observer.observe(row, &nodes).map_err(|error| refuse(error.to_string()))?;
        check_len("observed nodes", captured.len(), nodes.len())?;
        if let Some(at) = captured.iter().position(|values| values.iter().any(|v| !v.is_finite())) {
            return Err(refuse(format!("node {} has values that are not finite", nodes[at])));
        }
        let mut captured = captured.into_iter();
        let of = |space: &HiddenSpace| {
            let values = space.nodes.iter().zip(captured.by_ref());
            values.map(|(&node, values)| Values::new(space, &group.architecture().shapes()[node], &values)).collect()
        };
        Ok(Self { spaces: group.spaces().iter().map(of).collect() })
    }

    /// Units of a space that do nothing on the data.
    fn silent(&self, k: usize, units: usize) -> usize {
        let values = &self.spaces[k];
        let is_silent = |unit: &usize| values.iter().all(|v| v.of_unit(*unit, units).iter().all(|&x| x == 0.0));
        (0..units).filter(is_silent).count()
    }
}

impl Values {
    /// Takes `[b, …]` values of a node of a shape apart: tokens `[t, units·coordinates]` are samples of units with coordinates, all
    /// else is `[units, positions]`, whose positions are samples.
    fn new(space: &HiddenSpace, shape: &[usize], values: &[f32]) -> Self {
        let tokens = shape.len() == 2;
        let features = if tokens { shape[1] } else { shape.iter().product() };
        let per_unit = features / space.size;
        let (coordinates, positions) = if tokens { (per_unit, 1) } else { (1, per_unit) };
        let all = values.len() / features * positions;
        let samples = all.min(MAX_SAMPLES);
        let mut data = Vec::with_capacity(space.size * coordinates * samples);
        for row in 0..space.size * coordinates {
            data.extend((0..samples).map(|s| {
                let sample = s * all / samples;
                values[sample / positions * features + row * positions + sample % positions]
            }));
        }
        let mut values = Self { data, samples, coordinates };
        values.standardize();
        values
    }

    fn standardize(&mut self) {
        for row in self.data.chunks_exact_mut(self.samples.max(1)) {
            let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / row.len() as f64;
            let size = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>().sqrt();
            let by = if self.coordinates > 1 || size <= 1e-12 * mean.abs() { 1.0 } else { 1.0 / size.max(f64::MIN_POSITIVE) };
            for v in row {
                *v = ((f64::from(*v) - mean) * by) as f32;
            }
        }
    }

    fn of_unit(&self, unit: usize, units: usize) -> &[f32] {
        let len = self.data.len() / units;
        &self.data[unit * len..(unit + 1) * len]
    }

    fn view(&self) -> View<'_> {
        View::new(&self.data, self.data.len() / self.samples.max(1), self.samples)
    }

    /// Adds to `gains[i, j]` how alike unit `i` of `self` and unit `j` of `other` are: a correlation, or the CKA of heads.
    fn add_similarity(&self, other: &Self, units: usize, gains: &mut [f64]) {
        let (d, width) = (self.coordinates, units * self.coordinates);
        let products = |a: &Self, b: &Self| {
            let mut products = vec![0.0; width * width];
            multiply(&mut products, a.view(), b.view().t(), false);
            products
        };
        let cross = products(self, other);
        if d == 1 {
            gains.iter_mut().zip(&cross).for_each(|(gain, &c)| *gain += f64::from(c));
            return;
        }
        let block = |of: &[f32], i: usize, j: usize| -> f64 {
            let rows = (i * d..(i + 1) * d).map(|row| &of[row * width + j * d..row * width + (j + 1) * d]);
            rows.flatten().map(|&c| f64::from(c).powi(2)).sum()
        };
        let norms = |of: &Self| {
            let own = products(of, of);
            (0..units).map(|i| block(&own, i, i).sqrt()).collect::<Vec<_>>()
        };
        let (a, b) = (norms(self), norms(other));
        for (at, gain) in gains.iter_mut().enumerate() {
            let (i, j) = (at / units, at % units);
            let size = a[i] * b[j];
            *gain += if size > 0.0 { block(&cross, i, j) / size } else { 0.0 };
        }
    }
}

/// Finds the permutations and signs that make the units of `row` do what those of `anchor` do.
pub(crate) fn match_activations(
    group: &Group,
    (row, seen): (&[f32], &Activations),
    (anchor, wanted): (&[f32], &Activations),
) -> Result<Matched> {
    let (mut element, mut silent) = (group.identity(), 0);
    let mut open = Vec::with_capacity(group.spaces().len());
    for (k, (space, part)) in group.spaces().iter().zip(&mut element.spaces).enumerate() {
        let mut gains = vec![0.0; space.size * space.size];
        for (a, b) in wanted.spaces[k].iter().zip(&seen.spaces[k]) {
            check_len("values of a unit on data", b.samples, a.samples)?;
            a.add_similarity(b, space.size, &mut gains);
        }
        assign(space, &gains, part);
        silent += [wanted, seen].map(|of| of.silent(k, space.size)).into_iter().filter(|&n| n > 1).sum::<usize>();
        open.push(sign_classes(space).next().is_some() && unit_sign(space).is_none());
    }
    if open.contains(&true) {
        element = match_signs(group, (row, anchor), &element, &open);
    }
    Ok(Matched { element, silent })
}

/// The classes of free signs that a space's axes feel.
fn sign_classes(space: &HiddenSpace) -> impl Iterator<Item = usize> {
    space.axes.iter().filter_map(|axis| space.sign_of(axis))
}

/// The class of a space's signs if each unit has one.
fn unit_sign(space: &HiddenSpace) -> Option<usize> {
    let class = sign_classes(space).next()?;
    let single = space.classes[class].slots == Slots::One && !space.classes[class].grouped;
    (single && sign_classes(space).all(|c| c == class)).then_some(class)
}

/// Assigns the units of a space by their likeness; those of one sign each also get their signs.
fn assign(space: &HiddenSpace, gains: &[f64], part: &mut SpaceElement) {
    let (n, m) = (space.size, space.members);
    let signed = sign_classes(space).next().is_some();
    let cost: Vec<f64> = gains.iter().map(|g| if signed { -g.abs() } else { -g }).collect();
    let mut assigner = Assigner::new();
    if m == 1 {
        part.permutation.copy_from_slice(assigner.solve(&cost, n));
    } else {
        assign_groups(&mut assigner, &cost, (n, m), &mut part.permutation);
    }
    let Some(leader) = unit_sign(space) else { return };
    let signs: Vec<f64> =
        part.permutation.iter().enumerate().map(|(i, &j)| if gains[i * n + j as usize] < 0.0 { -1.0 } else { 1.0 }).collect();
    for class in std::iter::once(leader).chain(space.classes[leader].followers.iter().copied()) {
        part.scale[space.first_scale(class)..][..n].copy_from_slice(&signs);
    }
}

/// Assigns groups of `m` to groups, and units to units within each pair of groups.
fn assign_groups(assigner: &mut Assigner, cost: &[f64], (n, m): (usize, usize), permutation: &mut [u32]) {
    let groups = n / m;
    let mut inner = Vec::with_capacity(groups * groups);
    let mut outer = Vec::with_capacity(groups * groups);
    for (a, b) in (0..groups * groups).map(|at| (at / groups, at % groups)) {
        let block: Vec<f64> = (0..m * m).map(|at| cost[(a * m + at / m) * n + b * m + at % m]).collect();
        let pairs = assigner.solve(&block, m).to_vec();
        outer.push(pairs.iter().enumerate().map(|(i, &j)| block[i * m + j as usize]).sum());
        inner.push(pairs);
    }
    for (a, &b) in assigner.solve(&outer, groups).iter().enumerate() {
        for (i, &j) in inner[a * groups + b as usize].iter().enumerate() {
            permutation[a * m + i] = b * m as u32 + j;
        }
    }
}
