//! Means and deviations of weights by the kind of place that they stand at, so that they carry over to other widths and depths.
//!
//! | place | mean and deviation |
//! |---|---|
//! | row of a first linear map or convolution: its inputs are the data's | of each input position, over units |
//! | row of a later one, of fan-in $m$ | one each for $w\sqrt m$, over all such rows |
//! | row of a first map in coefficients (the `basis` module) | of each coefficient; deviations are at least a third of the largest |
//! | outgoing column to outputs of fan-in $m$ | one each for $w\sqrt m$ |
//! | row of a table; a bias, a gain, a shift | one each |
//!
//! Coefficients are not all divided by their own deviations: the later a direction, the more of it is what initialization left, and a generator
//! would spend its loss on that.
//!
//! Places are of different kinds if the kinds of their rows (linear, convolution, …), the roles of their maps (first, hidden, last) or the
//! slots (row, bias, gain, shift, outgoing) differ.

use super::TokenLayout;
use super::basis::{self, Basis, BasisKey, Reduction};
use super::maps::{Kind, Map, Role};
use crate::{Error, Result};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

/// What varies less than this fraction of its kind is divided by this fraction: rounding is not blown up to signal.
const QUIET: f64 = 1e-6;
/// Coefficients are divided by this fraction of the largest deviation among them, at least.
const LEAST: f64 = 0.3;
/// The least and the largest that a weight is divided by.
const SCALES: std::ops::RangeInclusive<f32> = 1e-12..=1e12;

/// Parts of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Row,
    Bias,
    Gain,
    Shift,
    Outgoing,
}

impl Slot {
    const ALL: [(Self, &'static str); TokenLayout::EXTRAS + 2] =
        [(Self::Row, "row"), (Self::Bias, "bias"), (Self::Gain, "gain"), (Self::Shift, "shift"), (Self::Outgoing, "outgoing")];
}

/// A kind of place; with the length of the row where each position has its own mean and deviation, else 0, and the rank of its basis if these
/// are those of coefficients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    role: Role,
    slot: Slot,
    positions: usize,
    rank: usize,
}

impl Key {
    fn of(map: &Map, slot: Slot) -> Self {
        let by_position = slot == Slot::Row && map.reads_data();
        let (positions, rank) = match map.row_len {
            _ if !by_position => (0, 0),
            rank if rank < map.inputs => (map.inputs, rank),
            _ => (map.inputs, 0),
        };
        Self { kind: map.kind, role: map.role, slot, positions, rank }
    }

    /// Such as `linear.hidden.row`, `linear.first.row.784`, or `linear.first.row.784.24` in coefficients.
    fn name(self) -> String {
        let slot = Slot::ALL[self.slot as usize].1;
        let name = format!("{}.{}.{slot}", self.kind.name(), self.role.name());
        match (self.positions, self.rank) {
            (0, _) => name,
            (positions, 0) => format!("{name}.{positions}"),
            (positions, rank) => format!("{name}.{positions}.{rank}"),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let [kind, role, slot] = [parts.next()?, parts.next()?, parts.next()?];
        let key = Self {
            kind: Kind::ALL.into_iter().find(|k| k.name() == kind)?,
            role: Role::ALL.into_iter().find(|r| r.name() == role)?,
            slot: Slot::ALL.into_iter().find(|(_, name)| *name == slot)?.0,
            positions: parts.next().map_or(Some(0), |positions| positions.parse().ok())?,
            rank: parts.next().map_or(Some(0), |rank| rank.parse().ok())?,
        };
        (key.name() == text).then_some(key)
    }

    /// How many means and deviations there are.
    fn count(self) -> usize {
        if self.rank > 0 { self.rank } else { self.positions.max(1) }
    }

    /// What weights of such places are multiplied by before they are pooled.
    fn factor(self, fan_in: usize) -> f64 {
        let sums = self.slot == Slot::Outgoing || self.slot == Slot::Row && self.kind.sums();
        if sums && self.positions == 0 { (fan_in as f64).sqrt() } else { 1.0 }
    }

    /// The least that its values are divided by, of the variances of its positions.
    fn floor(self, variances: &[f64]) -> f64 {
        let whole = (variances.iter().sum::<f64>() / variances.len() as f64).sqrt();
        let largest = variances.iter().fold(0.0_f64, |a, &b| a.max(b)).sqrt();
        let floor = if self.rank > 0 { LEAST * largest } else { QUIET * whole };
        floor.max(f64::from(*SCALES.start()))
    }
}

/// A mean and a deviation for every kind of place that training networks have, and the directions of rows in coefficients.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenNormalizer {
    /// Of each position, or one of all: means and deviations.
    kinds: BTreeMap<Key, [Vec<f32>; 2]>,
    bases: BTreeMap<BasisKey, Basis>,
}

/// How the weights of one architecture become the values of its tokens, and what these are shifted and divided by, `[V]`; 0 and 0 for what
/// is in no token.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The mean of each value's kind of place.
    pub shift: Vec<f32>,
    /// Its deviation.
    pub scale: Vec<f32>,
    reductions: Vec<(Reduction, Basis)>,
}

/// What rows in coefficients are made of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Directions<'a> {
    /// Where the coefficients start among the values of a network.
    pub start: usize,
    /// Rows, coefficients of each, and weights of each.
    pub shape: [usize; 3],
    /// `[rank, inputs]`, orthonormal.
    pub directions: &'a [f32],
}

impl Moments {
    /// The values that tokens hold of a flat row, not normalized.
    ///
    /// # Shapes
    /// `[D]` → `[V]`.
    #[must_use]
    pub fn values<'a>(&self, row: &'a [f32]) -> Cow<'a, [f32]> {
        if self.reductions.is_empty() { Cow::Borrowed(row) } else { Cow::Owned(basis::values_of(row, &self.reductions)) }
    }

    /// Normalizes a flat row, `[D]` → `[V]`; what is in no token becomes 0.
    #[must_use]
    pub fn normalize(&self, row: &[f32]) -> Vec<f32> {
        let moments = self.shift.iter().zip(&self.scale);
        self.values(row).iter().zip(moments).map(|(w, (m, s))| if *s > 0.0 { (w - m) / s } else { 0.0 }).collect()
    }

    /// Undoes [`Moments::normalize`], but for what coefficients leave out: `[V]` → `[D]`.
    #[must_use]
    pub fn restore(&self, normal: &[f32]) -> Vec<f32> {
        let values = normal.iter().zip(self.shift.iter().zip(&self.scale)).map(|(x, (m, s))| x * s + m).collect();
        if self.reductions.is_empty() { values } else { basis::weights_of(&values, &self.reductions) }
    }

    /// The rows that are in coefficients, in the order of their values.
    pub fn directions(&self) -> impl Iterator<Item = Directions<'_>> {
        self.reductions.iter().map(|(reduction, basis)| {
            let BasisKey { inputs, rank, .. } = reduction.key;
            let rows = reduction.values.len() / rank;
            Directions { start: reduction.values.start, shape: [rows, rank, inputs], directions: basis.directions() }
        })
    }
}

/// The stretches of a map's values: its rows, each of its other slots, and the rows of outputs that its units' tokens hold; with the fan-in.
fn stretches(map: &Map) -> impl Iterator<Item = (Slot, Range<usize>, usize)> {
    let rows = (Slot::Row, map.weights..map.weights + map.units * map.row_len, map.inputs);
    let extras = [Slot::Bias, Slot::Gain, Slot::Shift].into_iter().zip(map.extras());
    let outgoing = map.outgoing.map(|last| (Slot::Outgoing, last.weights..last.weights + last.outputs * map.units, map.units));
    let extras = extras.filter_map(|(slot, start)| Some((slot, start?..start? + map.units, map.inputs)));
    std::iter::once(rows).chain(extras).chain(outgoing)
}

/// Sums of so many values each.
struct Sums {
    total: Vec<f64>,
    count: f64,
}

impl TokenNormalizer {
    /// Measures networks of one or several architectures, each with its rows `[n, D]`; all weights count alike.
    ///
    /// # Errors
    /// [`Error::TooFewRows`] without a network; [`Error::Length`] if rows are not whole; [`Error::NonFinite`]; [`Error::Spread`].
    pub fn fit(networks: &[(&TokenLayout, &[f32])]) -> Result<Self> {
        for (layout, rows) in networks {
            if !rows.len().is_multiple_of(layout.dim) {
                return Err(Error::Length { what: "weights", row: layout.dim, got: rows.len() });
            }
            if let Some(at) = rows.iter().position(|w| !w.is_finite()) {
                return Err(Error::NonFinite { row: at / layout.dim, weight: at % layout.dim });
            }
        }
        if networks.iter().all(|(_, rows)| rows.is_empty()) {
            return Err(Error::TooFewRows { needed: 1, got: 0 });
        }
        let bases = basis::fit(networks.iter().map(|(layout, rows)| (&layout.reductions[..], layout.dim, *rows)))?;
        let values = networks.iter().map(|(layout, rows)| Ok((*layout, values_of(layout, rows, &bases)?)));
        let values = values.collect::<Result<Vec<_>>>()?;
        let sums = sum(&values, |_, _, w| w);
        let means: BTreeMap<Key, Vec<f64>> = sums.into_iter().map(|(key, sums)| (key, sums.mean())).collect();
        let squares = sum(&values, |key, position, w| (w - means[&key][position]).powi(2));
        let mut kinds = BTreeMap::new();
        for (key, squares) in squares {
            let variances = squares.mean();
            let floor = key.floor(&variances);
            let stds: Vec<f32> = variances.iter().map(|v| v.sqrt().max(floor) as f32).collect();
            if !stds.iter().all(|std| SCALES.contains(std)) {
                return Err(Error::Spread { weight: 0, spread: variances.iter().fold(0.0, |a: f64, &b| a.max(b)).sqrt() });
            }
            kinds.insert(key, [means[&key].iter().map(|&m| m as f32).collect(), stds]);
        }
        Ok(Self { kinds, bases })
    }

    /// How an architecture's weights become values, and their means and deviations.
    ///
    /// # Errors
    /// [`Error::Foreign`] names a tensor whose kind of place no training network has: a role, or a number of inputs.
    pub fn moments(&self, layout: &TokenLayout) -> Result<Moments> {
        let (mut shift, mut scale) = (vec![0.0; layout.num_values], vec![0.0; layout.num_values]);
        for map in &layout.maps {
            for (slot, range, fan_in) in stretches(map) {
                let key = Key::of(map, slot);
                let Some([means, stds]) = self.kinds.get(&key) else {
                    return Err(Error::Foreign { tensor: map.tensor.clone(), kind: key.name() });
                };
                let factor = key.factor(fan_in) as f32;
                for (at, value) in range.enumerate() {
                    let position = at % means.len();
                    (shift[value], scale[value]) = (means[position] / factor, stds[position] / factor);
                }
            }
        }
        Ok(Moments { shift, scale, reductions: with_bases(layout, &self.bases)? })
    }

    /// What is kept, by name: means and deviations of each kind of place.
    pub fn entries(&self) -> impl Iterator<Item = (String, &[f32], &[f32])> {
        self.kinds.iter().map(|(key, [means, stds])| (key.name(), &means[..], &stds[..]))
    }

    /// The bases that are kept, by name: of each the mean row, and after it the directions.
    pub fn bases(&self) -> impl Iterator<Item = (String, &[f32])> {
        self.bases.iter().map(|(key, basis)| (key.name(), &basis.numbers[..]))
    }

    /// The same with what [`TokenNormalizer::bases`] gave.
    ///
    /// # Errors
    /// [`Error::Kind`] names a basis that is unknown, of another length than its name says, or not finite.
    pub fn with_bases(mut self, bases: impl IntoIterator<Item = (String, Vec<f32>)>) -> Result<Self> {
        for (kind, numbers) in bases {
            let fail = |reason| Err(Error::Kind { kind: kind.clone(), reason });
            let Some(key) = BasisKey::parse(&kind) else { return fail("no basis has that name") };
            if numbers.len() != key.len() || !numbers.iter().all(|v| v.is_finite()) {
                return fail("a basis is as many finite numbers as its name says");
            }
            self.bases.insert(key, Basis { key, numbers });
        }
        Ok(self)
    }

    /// Makes a normalizer, without bases, of what [`TokenNormalizer::entries`] gave.
    ///
    /// # Errors
    /// [`Error::Kind`] names an entry that is unknown, twice there, of lengths that do not agree, or of values that no fit gives.
    pub fn from_entries(entries: impl IntoIterator<Item = (String, Vec<f32>, Vec<f32>)>) -> Result<Self> {
        let mut kinds = BTreeMap::new();
        for (kind, means, stds) in entries {
            let fail = |reason| Err(Error::Kind { kind: kind.clone(), reason });
            let Some(key) = Key::parse(&kind) else { return fail("no such kind of place is known") };
            if means.len() != key.count() || stds.len() != key.count() {
                return fail("it has not as many means and deviations as places");
            }
            if !means.iter().all(|m| m.is_finite()) || !stds.iter().all(|s| SCALES.contains(s)) {
                return fail("means must be finite, and deviations positive");
            }
            if kinds.insert(key, [means, stds]).is_some() {
                return fail("it is there twice");
            }
        }
        Ok(Self { kinds, bases: BTreeMap::new() })
    }
}

impl Sums {
    fn mean(&self) -> Vec<f64> {
        self.total.iter().map(|total| total / self.count.max(1.0)).collect()
    }
}

/// A layout's reductions with their bases.
fn with_bases(layout: &TokenLayout, bases: &BTreeMap<BasisKey, Basis>) -> Result<Vec<(Reduction, Basis)>> {
    let with_basis = |reduction: &Reduction| match bases.get(&reduction.key) {
        Some(basis) => Ok((reduction.clone(), basis.clone())),
        None => Err(Error::Foreign { tensor: reduction.tensor.clone(), kind: reduction.key.name() }),
    };
    layout.reductions.iter().map(with_basis).collect()
}

/// Flat rows as values, `[n, D]` → `[n, V]`.
fn values_of<'a>(layout: &TokenLayout, rows: &'a [f32], bases: &BTreeMap<BasisKey, Basis>) -> Result<Cow<'a, [f32]>> {
    if layout.reductions.is_empty() {
        return Ok(Cow::Borrowed(rows));
    }
    let reductions = with_bases(layout, bases)?;
    Ok(rows.chunks_exact(layout.dim).flat_map(|row| basis::values_of(row, &reductions)).collect())
}

/// Sums a function of all values by their places.
fn sum(networks: &[(&TokenLayout, Cow<'_, [f32]>)], of: impl Fn(Key, usize, f64) -> f64) -> BTreeMap<Key, Sums> {
    let mut sums: BTreeMap<Key, Sums> = BTreeMap::new();
    for (layout, rows) in networks {
        for map in &layout.maps {
            for (slot, range, fan_in) in stretches(map) {
                let key = Key::of(map, slot);
                let (positions, factor) = (key.count(), key.factor(fan_in));
                let entry = sums.entry(key).or_insert_with(|| Sums { total: vec![0.0; positions], count: 0.0 });
                for row in rows.chunks_exact(layout.num_values) {
                    for (at, &value) in row[range.clone()].iter().enumerate() {
                        let position = at % positions;
                        entry.total[position] += of(key, position, f64::from(value) * factor);
                    }
                    entry.count += (range.len() / positions) as f64;
                }
            }
        }
    }
    sums
}
