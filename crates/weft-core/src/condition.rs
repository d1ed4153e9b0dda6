//! Conditions: what is known about a network, as typed, named, individually droppable fields.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// The value of a condition's field.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// A number, such as an accuracy or a training step.
    Scalar(f64),
}

/// A partly known description of a network: a field that is absent is unknown, not zero.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Condition(BTreeMap<String, Value>);

impl Condition {
    /// A condition that says nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Sets a scalar field.
    #[must_use]
    pub fn with(mut self, field: &str, value: f64) -> Self {
        self.0.insert(field.to_owned(), Value::Scalar(value));
        self
    }

    /// The value of a field, if it is known.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<Value> {
        self.0.get(field).copied()
    }

    /// The same condition with no other fields than those of a schema.
    #[must_use]
    pub fn restricted_to(&self, schema: &Schema) -> Self {
        let known = |name: &String| schema.fields.iter().any(|f| &f.name == name);
        Self(self.0.iter().filter(|(name, _)| known(name)).map(|(name, value)| (name.clone(), *value)).collect())
    }

    /// The known fields, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Value)> {
        self.0.iter().map(|(k, v)| (k.as_str(), *v))
    }
}

/// The type of a field, with what is needed to encode it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// A number, encoded as `(v − mean) / std`; values seen in training lie in `min..=max`.
    Scalar {
        /// Mean over the training checkpoints.
        mean: f64,
        /// Standard deviation over the training checkpoints.
        std: f64,
        /// Smallest training value.
        min: f64,
        /// Largest training value.
        max: f64,
    },
}

/// A named field of a schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// Its type.
    pub kind: FieldKind,
}

/// The fields that a generator was trained on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Schema {
    /// The fields, in the order of their encoding.
    pub fields: Vec<Field>,
}

impl Schema {
    /// Fits the schema of the named scalar fields to training conditions.
    ///
    /// A field that no condition knows is left out.
    #[must_use]
    pub fn fit(names: &[String], conditions: &[Condition]) -> Self {
        let fields = names
            .iter()
            .filter_map(|name| {
                let values: Vec<f64> = conditions.iter().filter_map(|c| c.get(name)).map(|Value::Scalar(v)| v).collect();
                let n = values.len() as f64;
                let min = values.iter().copied().reduce(f64::min)?;
                let max = values.iter().copied().reduce(f64::max)?;
                let mean = values.iter().sum::<f64>() / n;
                let var = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let std = if var > 0.0 { var.sqrt() } else { 1.0 };
                Some(Field { name: name.clone(), kind: FieldKind::Scalar { mean, std, min, max } })
            })
            .collect();
        Self { fields }
    }

    /// The length of an encoded condition: a value and a known-flag a field.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        2 * self.fields.len()
    }

    /// Encodes a condition as `[value, known]` a field; an unknown field is `[0, 0]`.
    ///
    /// # Errors
    /// [`Error::UnknownField`] if the condition has a field that the schema lacks; [`Error::FieldRange`] if a
    /// value is not finite or lies further outside the training range than the range is wide.
    pub fn encode(&self, condition: &Condition) -> Result<Vec<f32>> {
        for (name, _) in condition.iter() {
            if !self.fields.iter().any(|f| f.name == name) {
                let known: Vec<_> = self.fields.iter().map(|f| format!("`{}`", f.name)).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(Error::UnknownField { field: name.to_owned(), known });
            }
        }
        let mut encoded = Vec::with_capacity(self.encoded_len());
        for field in &self.fields {
            let FieldKind::Scalar { mean, std, min, max } = field.kind;
            match condition.get(&field.name) {
                None => encoded.extend([0.0, 0.0]),
                Some(Value::Scalar(value)) => {
                    let slack = (max - min).max(1e-6);
                    let (low, high) = (min - slack, max + slack);
                    if !(low..=high).contains(&value) {
                        return Err(Error::FieldRange { field: field.name.clone(), value, min: low, max: high });
                    }
                    encoded.extend([((value - mean) / std) as f32, 1.0]);
                }
            }
        }
        Ok(encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodes_known_and_unknown_fields() {
        let names = ["accuracy".to_owned(), "step".to_owned(), "absent".to_owned()];
        let conditions =
            [Condition::unknown().with("accuracy", 0.5).with("step", 10.0), Condition::unknown().with("accuracy", 0.9)];
        let schema = Schema::fit(&names, &conditions);
        assert_eq!(schema.fields.len(), 2);
        let code = schema.encode(&Condition::unknown().with("accuracy", 0.9)).unwrap();
        assert!((code[0] - 1.0).abs() < 1e-6);
        assert_eq!(code[1..], [1.0, 0.0, 0.0]);
    }

    #[test]
    fn refuses_what_it_was_not_trained_on() {
        let schema = Schema::fit(&["accuracy".to_owned()], &[Condition::unknown().with("accuracy", 0.5)]);
        let error = schema.encode(&Condition::unknown().with("acuracy", 0.5)).unwrap_err();
        assert_eq!(error.to_string(), "unknown condition field `acuracy`; known fields: `accuracy`");
        assert!(schema.encode(&Condition::unknown().with("accuracy", 7.0)).is_err());
        assert!(schema.encode(&Condition::unknown().with("accuracy", f64::NAN)).is_err());
    }
}
