//! What a generator was trained on: fields with their types and what is needed to encode them.

use super::{Condition, FieldSpec, FieldType, Scale, Seen, TEXT_LEN, Value};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// The type of a field, with what is needed to encode it.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldKind {
    /// A number, encoded as `(v − mean) / std`; values seen in training lie in `min..=max`. All four are places on the scale.
    Scalar {
        /// What the number is measured by.
        scale: Scale,
        /// Mean over the training checkpoints.
        mean: f64,
        /// Standard deviation over the training checkpoints.
        std: f64,
        /// Smallest training value.
        min: f64,
        /// Largest training value.
        max: f64,
    },
    /// A word, encoded as the one of `words` that is 1.
    Category {
        /// The training values, in order.
        words: Vec<String>,
    },
    /// Classes, each encoded as a 1 among `num_classes`.
    Classes {
        /// The number of classes.
        num_classes: usize,
    },
    /// Numbers, each encoded as `(v − mean) / std`.
    Vector {
        /// Mean of each over the training checkpoints.
        mean: Vec<f32>,
        /// Standard deviation of each over the training checkpoints; 1 where it does not vary.
        std: Vec<f32>,
    },
    /// A text, encoded by [`embed_text`](super::embed_text).
    Text,
}

impl FieldKind {
    /// The type alone.
    #[must_use]
    pub fn field_type(&self) -> FieldType {
        match *self {
            Self::Scalar { scale, .. } => FieldType::Scalar(scale),
            Self::Category { .. } => FieldType::Category,
            Self::Classes { num_classes } => FieldType::Classes { num_classes: Some(num_classes) },
            Self::Vector { .. } => FieldType::Vector,
            Self::Text => FieldType::Text,
        }
    }

    /// Numbers that an encoded value takes, without its known-flag.
    #[must_use]
    pub fn num_values(&self) -> usize {
        match self {
            Self::Scalar { .. } => 1,
            Self::Category { words } => words.len(),
            Self::Classes { num_classes } => *num_classes,
            Self::Vector { mean, .. } => mean.len(),
            Self::Text => TEXT_LEN,
        }
    }
}

/// A named field of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
    /// Training values, to tell by distance what is unlike them; of classes, vectors and texts alone.
    pub seen: Option<Seen>,
}

impl Field {
    /// Numbers that the field takes in an encoded condition: its values and the known-flag.
    #[must_use]
    pub fn width(&self) -> usize {
        self.kind.num_values() + 1
    }
}

/// The fields that a generator was trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// The fields, in the order of their encoding.
    pub fields: Vec<Field>,
}

impl Schema {
    /// The most numbers that a field may take.
    pub const MAX_WIDTH: usize = 1 << 16;

    /// Fits fields to training conditions.
    ///
    /// A field that no condition knows is left out.
    ///
    /// # Errors
    /// [`Error::FieldValue`] if a condition has another type than the field, a number that is not finite or has no place on the
    /// field's scale, a class out of range, or vectors of several lengths; [`Error::FieldWidth`] if a field takes too many numbers.
    pub fn fit(specs: &[FieldSpec], conditions: &[Condition]) -> Result<Self> {
        let mut fields = Vec::with_capacity(specs.len());
        for spec in specs {
            let values: Vec<&Value> = conditions.iter().filter_map(|c| c.get(&spec.name)).collect();
            if values.is_empty() {
                continue;
            }
            let kind = fit_kind(spec, &values)?;
            if kind.num_values() >= Self::MAX_WIDTH {
                return Err(Error::FieldWidth { field: spec.name.clone(), width: kind.num_values(), max: Self::MAX_WIDTH - 1 });
            }
            let mut field = Field { name: spec.name.clone(), kind, seen: None };
            if matches!(field.kind, FieldKind::Classes { .. } | FieldKind::Vector { .. } | FieldKind::Text) {
                let mut encoded = Vec::with_capacity(values.len() * field.kind.num_values());
                for value in &values {
                    encoded.extend(field.encode(value)?);
                }
                field.seen = Some(Seen::of(&encoded, values.len()));
            }
            fields.push(field);
        }
        Ok(Self { fields })
    }

    /// The length of an encoded condition.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.widths().sum()
    }

    /// Numbers that each field takes in an encoded condition, its known-flag last.
    pub fn widths(&self) -> impl Iterator<Item = usize> {
        self.fields.iter().map(Field::width)
    }

    /// The field of that name.
    ///
    /// # Errors
    /// [`Error::UnknownField`] lists those that there are.
    pub fn field(&self, name: &str) -> Result<&Field> {
        self.fields.iter().find(|f| f.name == name).ok_or_else(|| {
            let known: Vec<_> = self.fields.iter().map(|f| format!("`{}`", f.name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Error::UnknownField { field: name.to_owned(), known }
        })
    }
}

fn fit_kind(spec: &FieldSpec, values: &[&Value]) -> Result<FieldKind> {
    let refuse = |expected: &str, got: String| Error::FieldValue { field: spec.name.clone(), expected: expected.to_owned(), got };
    let another = |value: &Value| refuse(spec.kind.name(), value.type_name().to_owned());
    match spec.kind {
        FieldType::Scalar(scale) => {
            let place = |value: &&Value| match value {
                Value::Scalar(v) if scale.of(*v).is_finite() => Ok(scale.of(*v)),
                Value::Scalar(v) if v.is_finite() => Err(refuse("a number that is not negative", v.to_string())),
                Value::Scalar(v) => Err(refuse("a finite number", v.to_string())),
                other => Err(another(other)),
            };
            let values = values.iter().map(place).collect::<Result<Vec<f64>>>()?;
            let (min, max) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &v| (a.min(v), b.max(v)));
            let (mean, std) = moments(values.iter().copied(), values.len());
            Ok(FieldKind::Scalar { scale, mean, std, min, max })
        }
        FieldType::Category => {
            let word = |value: &&Value| match value {
                Value::Category(word) => Ok(word.clone()),
                other => Err(another(other)),
            };
            Ok(FieldKind::Category { words: values.iter().map(word).collect::<Result<BTreeSet<_>>>()?.into_iter().collect() })
        }
        FieldType::Classes { num_classes } => {
            let largest = |value: &&Value| match value {
                Value::Classes(set) => Ok(set.classes().last().copied().unwrap_or(0) as usize),
                other => Err(another(other)),
            };
            let largest = values.iter().map(largest).collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or(0);
            Ok(FieldKind::Classes { num_classes: num_classes.unwrap_or(largest + 1) })
        }
        FieldType::Vector => {
            let vector = |value: &&Value| match value {
                Value::Vector(v) if v.iter().all(|x| x.is_finite()) => Ok(v.clone()),
                Value::Vector(_) => Err(refuse("finite numbers", "one that is not".to_owned())),
                other => Err(another(other)),
            };
            let vectors = values.iter().map(vector).collect::<Result<Vec<_>>>()?;
            let len = vectors[0].len();
            if let Some(other) = vectors.iter().find(|v| v.len() != len) {
                return Err(refuse(&format!("{len} numbers, as others have"), other.len().to_string()));
            }
            let moment = |i: usize| moments(vectors.iter().map(|v| f64::from(v[i])), vectors.len());
            let (mean, std) = (0..len).map(moment).map(|(mean, std)| (mean as f32, std as f32)).unzip();
            Ok(FieldKind::Vector { mean, std })
        }
        FieldType::Text => match values.iter().find(|value| !matches!(value, Value::Text(_))) {
            Some(other) => Err(another(other)),
            None => Ok(FieldKind::Text),
        },
    }
}

/// Mean and standard deviation; 1 in place of a deviation of 0.
fn moments(values: impl Iterator<Item = f64> + Clone, n: usize) -> (f64, f64) {
    let mean = values.clone().sum::<f64>() / n as f64;
    let var = values.map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
    (mean, if var > 0.0 { var.sqrt() } else { 1.0 })
}
