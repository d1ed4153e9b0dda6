//! Means and deviations of weights by the kind of place that they stand at, so that they carry over to other widths and depths.
//!
//! | place | mean and deviation |
//! |---|---|
//! | row of a first linear map or convolution: its inputs are the data's | of each input position, over units |
//! | row of a later one, of fan-in $m$ | one each for $w\sqrt m$, over all such rows |
//! | row of a table; a bias, a gain, a shift | one each |
//!
//! Places are of different kinds if the kinds of their rows (linear, convolution, …), the roles of their maps (first, hidden, last) or the
//! slots (row, bias, gain, shift) differ.

use super::TokenLayout;
use super::maps::{Kind, Map, Role};
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::ops::Range;

/// What varies less than this fraction of its kind is divided by this fraction: rounding is not blown up to signal.
const QUIET: f64 = 1e-6;
/// The least and the largest that a weight is divided by.
const SCALES: std::ops::RangeInclusive<f32> = 1e-12..=1e12;

/// Parts of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Slot {
    Row,
    Bias,
    Gain,
    Shift,
}

impl Slot {
    const ALL: [(Self, &'static str); TokenLayout::EXTRAS + 1] =
        [(Self::Row, "row"), (Self::Bias, "bias"), (Self::Gain, "gain"), (Self::Shift, "shift")];
}

/// A kind of place; with the length of the row where each position has its own mean and deviation, else 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    kind: Kind,
    role: Role,
    slot: Slot,
    positions: usize,
}

impl Key {
    fn of(map: &Map, slot: Slot) -> Self {
        let by_position = slot == Slot::Row && map.role == Role::First && map.kind.sums();
        Self { kind: map.kind, role: map.role, slot, positions: if by_position { map.row_len } else { 0 } }
    }

    /// Such as `linear.hidden.row`, or `linear.first.row.784`.
    fn name(self) -> String {
        let slot = Slot::ALL[self.slot as usize].1;
        let name = format!("{}.{}.{slot}", self.kind.name(), self.role.name());
        if self.positions > 0 { format!("{name}.{}", self.positions) } else { name }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let [kind, role, slot] = [parts.next()?, parts.next()?, parts.next()?];
        let key = Self {
            kind: Kind::ALL.into_iter().find(|k| k.name() == kind)?,
            role: Role::ALL.into_iter().find(|r| r.name() == role)?,
            slot: Slot::ALL.into_iter().find(|(_, name)| *name == slot)?.0,
            positions: parts.next().map_or(Some(0), |positions| positions.parse().ok())?,
        };
        (key.name() == text).then_some(key)
    }

    /// How many means and deviations there are.
    fn count(self) -> usize {
        self.positions.max(1)
    }

    /// What weights of such places are multiplied by before they are pooled.
    fn factor(self, row_len: usize) -> f64 {
        if self.slot == Slot::Row && self.kind.sums() && self.positions == 0 { (row_len as f64).sqrt() } else { 1.0 }
    }
}

/// A mean and a deviation for every kind of place that training networks have.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenNormalizer {
    /// Of each position, or one of all: means and deviations.
    kinds: BTreeMap<Key, [Vec<f32>; 2]>,
}

/// What the weights of one architecture are shifted and divided by, `[D]`; 0 and 0 for what is in no token.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The mean of each weight's kind of place.
    pub shift: Vec<f32>,
    /// Its deviation.
    pub scale: Vec<f32>,
}

impl Moments {
    /// Normalizes a flat row, `[D]`; what is in no token becomes 0.
    #[must_use]
    pub fn normalize(&self, row: &[f32]) -> Vec<f32> {
        let moments = self.shift.iter().zip(&self.scale);
        row.iter().zip(moments).map(|(w, (m, s))| if *s > 0.0 { (w - m) / s } else { 0.0 }).collect()
    }

    /// Undoes [`Moments::normalize`].
    #[must_use]
    pub fn restore(&self, normal: &[f32]) -> Vec<f32> {
        normal.iter().zip(self.shift.iter().zip(&self.scale)).map(|(x, (m, s))| x * s + m).collect()
    }
}

/// The stretches of a map's weights: its rows, and each of its other slots.
fn stretches(map: &Map) -> impl Iterator<Item = (Slot, Range<usize>)> {
    let rows = (Slot::Row, map.weights..map.weights + map.units * map.row_len);
    let extras = [Slot::Bias, Slot::Gain, Slot::Shift].into_iter().zip(map.extras());
    std::iter::once(rows).chain(extras.filter_map(|(slot, start)| Some((slot, start?..start? + map.units))))
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
        let sums = sum(networks, |_, _, w| w);
        let means: BTreeMap<Key, Vec<f64>> = sums.into_iter().map(|(key, sums)| (key, sums.mean())).collect();
        let squares = sum(networks, |key, position, w| (w - means[&key][position]).powi(2));
        let mut kinds = BTreeMap::new();
        for (key, squares) in squares {
            let variances = squares.mean();
            let whole = (variances.iter().sum::<f64>() / variances.len() as f64).sqrt();
            let floor = (QUIET * whole).max(f64::from(*SCALES.start()));
            let stds: Vec<f32> = variances.iter().map(|v| v.sqrt().max(floor) as f32).collect();
            if !stds.iter().all(|std| SCALES.contains(std)) {
                return Err(Error::Spread { weight: 0, spread: whole });
            }
            kinds.insert(key, [means[&key].iter().map(|&m| m as f32).collect(), stds]);
        }
        Ok(Self { kinds })
    }

    /// The means and deviations of an architecture's weights.
    ///
    /// # Errors
    /// [`Error::Foreign`] names a tensor whose kind of place no training network has: a role, or a number of inputs.
    pub fn moments(&self, layout: &TokenLayout) -> Result<Moments> {
        let (mut shift, mut scale) = (vec![0.0; layout.dim], vec![0.0; layout.dim]);
        for map in &layout.maps {
            for (slot, range) in stretches(map) {
                let key = Key::of(map, slot);
                let Some([means, stds]) = self.kinds.get(&key) else {
                    return Err(Error::Foreign { tensor: map.tensor.clone(), kind: key.name() });
                };
                let factor = key.factor(map.row_len) as f32;
                for (at, weight) in range.enumerate() {
                    let position = at % means.len();
                    (shift[weight], scale[weight]) = (means[position] / factor, stds[position] / factor);
                }
            }
        }
        Ok(Moments { shift, scale })
    }

    /// What is kept, by name: means and deviations of each kind of place.
    pub fn entries(&self) -> impl Iterator<Item = (String, &[f32], &[f32])> {
        self.kinds.iter().map(|(key, [means, stds])| (key.name(), &means[..], &stds[..]))
    }

    /// Makes a normalizer of what [`TokenNormalizer::entries`] gave.
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
        Ok(Self { kinds })
    }
}

impl Sums {
    fn mean(&self) -> Vec<f64> {
        self.total.iter().map(|total| total / self.count.max(1.0)).collect()
    }
}

/// Sums a function of all weights by their places.
fn sum(networks: &[(&TokenLayout, &[f32])], of: impl Fn(Key, usize, f64) -> f64) -> BTreeMap<Key, Sums> {
    let mut sums: BTreeMap<Key, Sums> = BTreeMap::new();
    for (layout, rows) in networks {
        for map in &layout.maps {
            for (slot, range) in stretches(map) {
                let key = Key::of(map, slot);
                let (positions, factor) = (key.count(), key.factor(map.row_len));
                let entry = sums.entry(key).or_insert_with(|| Sums { total: vec![0.0; positions], count: 0.0 });
                for row in rows.chunks_exact(layout.dim) {
                    for (at, &weight) in row[range.clone()].iter().enumerate() {
                        let position = at % positions;
                        entry.total[position] += of(key, position, f64::from(weight) * factor);
                    }
                    entry.count += (range.len() / positions) as f64;
                }
            }
        }
    }
    sums
}
