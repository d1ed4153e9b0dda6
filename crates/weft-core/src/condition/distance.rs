//! How far a condition lies from those that a generator was trained on.

use super::{Condition, Field, FieldKind, Schema, Value};
use crate::Result;
use std::fmt::{Display, Formatter};

/// Distinct training values that are kept of a field.
const KEPT: usize = 1024;

/// Distinct training values of a field, and how far they lie from each other.
///
/// Above 1,024 of them, as many are kept that lie evenly in their order, and distances are to and between these.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// At most 1,024 distinct values as they are encoded, `[m, values]`.
    pub values: Vec<f32>,
    /// 99th percentile of the distance of each of them to the nearest other; 0 if there is one alone.
    pub spacing: f64,
}

impl Seen {
    /// The distinct ones of so many encoded values, one behind the other, evenly thinned if they are many.
    pub(super) fn of(encoded: &[f32], count: usize) -> Self {
        let len = encoded.len() / count.max(1);
        let value = |i: usize| &encoded[i * len..(i + 1) * len];
        let order = |a: usize, b: usize| value(a).iter().zip(value(b)).map(|(a, b)| a.total_cmp(b)).find(|o| o.is_ne());
        let mut distinct: Vec<usize> = (0..count).collect();
        distinct.sort_by(|&a, &b| order(a, b).unwrap_or(std::cmp::Ordering::Equal));
        distinct.dedup_by(|a, b| value(*a) == value(*b));
        let count = distinct.len().min(KEPT);
        let kept: Vec<&[f32]> = (0..count).map(|i| value(distinct[i * distinct.len() / count])).collect();
        let nearest = |i: usize| {
            let others = kept.iter().enumerate().filter(|(j, _)| *j != i);
            others.map(|(_, other)| squared(kept[i], other)).reduce(f64::min).map(f64::sqrt)
        };
        let mut nearest: Vec<f64> = (0..count).filter_map(nearest).collect();
        nearest.sort_by(f64::total_cmp);
        let spacing = nearest.get((nearest.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(0.0);
        Self { values: kept.concat(), spacing }
    }

    /// Distance of an encoded value to the nearest.
    fn distance(&self, encoded: &[f32]) -> f64 {
        let values = self.values.chunks_exact(encoded.len().max(1));
        values.map(|seen| squared(seen, encoded)).fold(f64::INFINITY, f64::min).sqrt()
    }
}

fn squared(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// A field of a condition that is unlike what a generator was trained on, and not so far that it is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Extrapolation {
    /// A number outside the training range.
    Range {
        /// The field.
        field: String,
        /// The number.
        value: f64,
        /// How far it lies from the nearest training value.
        distance: f64,
        /// That value.
        nearest: f64,
    },
    /// A value farther from the nearest training value than 99 of 100 of these are from the nearest other.
    Distance {
        /// The field.
        field: String,
        /// Its distance to the nearest training value, as both are encoded.
        distance: f64,
        /// The 99th percentile of the training values' distance to the nearest other.
        spacing: f64,
    },
}

impl Display for Extrapolation {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range { field, value, distance, nearest } => {
                write!(f, "extrapolating: `{field}` = {value} lies {distance:.4} from the nearest training value, {nearest}")
            }
            Self::Distance { field, distance, spacing } => write!(
                f,
                "extrapolating: `{field}` lies {distance:.3} from the nearest training value; 99 of 100 of these lie within {spacing:.3} of another"
            ),
        }
    }
}

impl Schema {
    /// The fields of a condition that ask for more than training showed, in the order of the schema.
    ///
    /// # Errors
    /// Those of [`Schema::encode`].
    pub fn extrapolations(&self, condition: &Condition) -> Result<Vec<Extrapolation>> {
        self.encode(condition)?;
        let known = self.fields.iter().filter_map(|field| Some((field, condition.get(&field.name)?)));
        known.filter_map(|(field, value)| field.extrapolation(value).transpose()).collect()
    }
}

impl Field {
    fn extrapolation(&self, value: &Value) -> Result<Option<Extrapolation>> {
        let field = self.name.clone();
        if let (&FieldKind::Scalar { scale, min, max, .. }, &Value::Scalar(value)) = (&self.kind, value) {
            let place = scale.of(value);
            let nearest = scale.value_at(place.clamp(min, max));
            let is_outside = place < min || place > max;
            return Ok(is_outside.then(|| Extrapolation::Range { field, value, distance: (value - nearest).abs(), nearest }));
        }
        let Some(seen) = &self.seen else { return Ok(None) };
        let (distance, spacing) = (seen.distance(&self.encode(value)?), seen.spacing);
        // Equal values may be rounded apart.
        Ok((distance > spacing + 1e-6).then_some(Extrapolation::Distance { field, distance, spacing }))
    }
}
