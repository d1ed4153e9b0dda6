//! Conditions: what is known about a network, as typed, named, individually droppable fields.
//!
//! A [`FieldSpec`] says what is asked for: a name and a type. [`Schema::fit`] adds what training conditions say about it, and
//! [`Schema::encode`] turns a condition into numbers, `[value…, known]` a field.

mod bytes;
mod distance;
mod encode;
mod schema;
mod text;

pub use bytes::{BYTES_LEN, embed_bytes};
pub use distance::{Extrapolation, Seen};
pub use schema::{Field, FieldKind, Schema};
pub use text::{TEXT_LEN, embed_text};

use crate::{ClassSet, Error, Result};
use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};
use std::sync::Arc;

/// The value of a condition's field.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number, such as an accuracy or a training step.
    Scalar(f64),
    /// A word out of a closed set, such as the optimizer's name.
    Category(String),
    /// Classes of a data set.
    Classes(ClassSet),
    /// Numbers of a fixed count.
    Vector(Vec<f32>),
    /// Words of a language.
    Text(String),
}

impl Value {
    /// The name of its type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        let kind = match self {
            Self::Scalar(_) => FieldType::Scalar(Scale::Linear),
            Self::Category(_) => FieldType::Category,
            Self::Classes(_) => FieldType::Classes { num_classes: None },
            Self::Vector(_) => FieldType::Vector,
            Self::Text(_) => FieldType::Text,
        };
        kind.name()
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Scalar(value)
    }
}

impl From<ClassSet> for Value {
    fn from(classes: ClassSet) -> Self {
        Self::Classes(classes)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scalar(value) => write!(f, "{value}"),
            Self::Category(text) | Self::Text(text) => f.write_str(text),
            Self::Classes(classes) => write!(f, "{classes}"),
            Self::Vector(values) => {
                let values: Vec<_> = values.iter().map(ToString::to_string).collect();
                f.write_str(&values.join(","))
            }
        }
    }
}

/// A partly known description of a network: a field that is absent is unknown, not zero.
///
/// Copies share their values.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Condition(Arc<BTreeMap<String, Value>>);

impl Condition {
    /// A condition that says nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Sets a field; a number is a scalar.
    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        Arc::make_mut(&mut self.0).insert(field.to_owned(), value.into());
        self
    }

    /// The value of a field, if it is known.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&Value> {
        self.0.get(field)
    }

    /// The same condition with no other fields than those of a schema.
    #[must_use]
    pub fn restricted_to(&self, schema: &Schema) -> Self {
        let known = |name: &String| schema.fields.iter().any(|f| &f.name == name);
        if self.0.keys().all(known) {
            return self.clone();
        }
        let fields = self.0.iter().filter(|(name, _)| known(name)).map(|(name, value)| (name.clone(), value.clone()));
        Self(Arc::new(fields.collect()))
    }

    /// The known fields, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v))
    }
}

/// How a scalar is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    Linear,
    /// By its natural logarithm; what is below 1e-8 (a weight decay of 0, say) counts as 1e-8.
    Log,
}

/// Smallest value on a logarithmic scale.
const LOG_FLOOR: f64 = 1e-8;

impl Scale {
    /// The value on the scale, not finite if it has no place there.
    #[must_use]
    pub fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log if value < 0.0 => f64::NAN,
            // `max` would make a number of NaN.
            Self::Log if value.is_nan() => value,
            Self::Log => value.max(LOG_FLOOR).ln(),
        }
    }

    /// The value at a place of the scale; where that takes an exponential, to 12 digits, so that a value is found again.
    #[must_use]
    pub fn value_at(self, place: f64) -> f64 {
        match self {
            Self::Linear => place,
            Self::Log => format!("{:.11e}", place.exp()).parse().unwrap_or(f64::INFINITY),
        }
    }
}

/// The type of a field, before anything is known of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// A number.
    Scalar(Scale),
    /// A word out of those seen in training.
    Category,
    /// A set of classes: of a data set with so many, or with as many as training conditions name.
    Classes {
        /// The number of classes, if it is known.
        num_classes: Option<usize>,
    },
    /// Numbers of a fixed count.
    Vector,
    /// Words of a language.
    Text,
}

impl FieldType {
    /// Its name, as errors say it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar(_) => "a number",
            Self::Category => "a word",
            Self::Classes { .. } => "a set of classes",
            Self::Vector => "a vector",
            Self::Text => "a text",
        }
    }
}

/// A field that a generator is to be conditioned on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: FieldType,
}

/// Scalars that matter by their ratio.
const LOG_SCALED: [&str; 2] = ["learning-rate", "weight-decay"];

impl FieldSpec {
    /// A field of this type.
    #[must_use]
    pub fn new(name: &str, kind: FieldType) -> Self {
        Self { name: name.to_owned(), kind }
    }

    /// A number: `learning-rate` and `weight-decay` on a logarithmic scale, others as they are.
    #[must_use]
    pub fn scalar(name: &str) -> Self {
        let scale = if LOG_SCALED.contains(&name) { Scale::Log } else { Scale::Linear };
        Self::new(name, FieldType::Scalar(scale))
    }

    /// A value of the field from how people and labels write it: `0.95`, a word, `0+3+7`, `0.1,0.2,0.3` or a text.
    ///
    /// # Errors
    /// [`Error::FieldValue`] names the field and what it wants.
    pub fn read(&self, text: &str) -> Result<Value> {
        let refuse = |expected: &str| Error::FieldValue {
            field: self.name.clone(),
            expected: expected.to_owned(),
            got: format!("`{text}`"),
        };
        match self.kind {
            FieldType::Scalar(_) => match text.trim().parse::<f64>() {
                Ok(value) if value.is_finite() => Ok(Value::Scalar(value)),
                _ => Err(refuse("a finite number")),
            },
            FieldType::Category => match text.trim() {
                "" => Err(refuse("a word")),
                word => Ok(Value::Category(word.to_owned())),
            },
            FieldType::Classes { num_classes } => {
                let set = text.parse::<ClassSet>().and_then(|set| num_classes.map_or(Ok(()), |n| set.check(n)).map(|()| set));
                set.map(Value::Classes).map_err(|error| match error {
                    Error::Classes { reason, .. } => refuse(&format!("a set of classes such as 0+3+7 ({reason})")),
                    other => other,
                })
            }
            FieldType::Vector => {
                let values = text.split(',').map(|v| v.trim().parse::<f32>().ok().filter(|v| v.is_finite()));
                let values: Option<Vec<f32>> = values.collect();
                values.map(Value::Vector).ok_or_else(|| refuse("finite numbers with commas between them"))
            }
            FieldType::Text => match text.trim() {
                "" => Err(refuse("a text with at least one character")),
                _ => Ok(Value::Text(text.to_owned())),
            },
        }
    }
}

#[cfg(test)]
mod tests;
