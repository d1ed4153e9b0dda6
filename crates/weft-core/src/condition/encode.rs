//! Conditions as numbers.

use super::{Condition, Field, FieldKind, Schema, Value, embed_text};
use crate::{Error, Result};

/// Words that an error lists at most.
const LISTED: usize = 20;

impl Schema {
    /// Encodes a condition as `[value…, known]` a field; an unknown field is all zeros.
    ///
    /// # Shapes
    /// [`Schema::encoded_len`] numbers, field by field as [`Schema::widths`] says.
    ///
    /// # Errors
    /// [`Error::UnknownField`] if the condition has a field that the schema lacks; [`Error::FieldRange`] if a number
    /// is not finite or lies further outside the training range than the range is wide; [`Error::FieldWord`] for a word that training
    /// did not see; [`Error::FieldValue`] for a value of another type or length.
    pub fn encode(&self, condition: &Condition) -> Result<Vec<f32>> {
        for (name, _) in condition.iter() {
            self.field(name)?;
        }
        let mut encoded = Vec::with_capacity(self.encoded_len());
        for field in &self.fields {
            match condition.get(&field.name) {
                None => encoded.resize(encoded.len() + field.width(), 0.0),
                Some(value) => {
                    encoded.extend(field.encode(value)?);
                    encoded.push(1.0);
                }
            }
        }
        Ok(encoded)
    }
}

impl Field {
    /// Encodes a value, without the known-flag.
    ///
    /// # Shapes
    /// [`FieldKind::num_values`] numbers.
    pub(super) fn encode(&self, value: &Value) -> Result<Vec<f32>> {
        let refuse = |expected: String, got: String| Error::FieldValue { field: self.name.clone(), expected, got };
        match (&self.kind, value) {
            (&FieldKind::Scalar { scale, mean, std, min, max }, &Value::Scalar(value)) => {
                let place = scale.of(value);
                let slack = (max - min).max(1e-6);
                let (low, high) = (min - slack, max + slack);
                if !(low..=high).contains(&place) {
                    let (min, max) = (scale.value_at(low), scale.value_at(high));
                    return Err(Error::FieldRange { field: self.name.clone(), value, min, max });
                }
                Ok(vec![((place - mean) / std) as f32])
            }
            (FieldKind::Category { words }, Value::Category(word)) => {
                let Ok(at) = words.binary_search(word) else {
                    return Err(Error::FieldWord { field: self.name.clone(), got: word.clone(), known: list(words) });
                };
                let mut encoded = vec![0.0; words.len()];
                encoded[at] = 1.0;
                Ok(encoded)
            }
            (FieldKind::Classes { num_classes }, Value::Classes(set)) => {
                set.check(*num_classes).map_err(|_| refuse(format!("classes below {num_classes}"), format!("`{set}`")))?;
                let mut encoded = vec![0.0; *num_classes];
                set.classes().iter().for_each(|&class| encoded[class as usize] = 1.0);
                Ok(encoded)
            }
            (FieldKind::Vector { mean, std }, Value::Vector(values)) => {
                if values.len() != mean.len() {
                    return Err(refuse(format!("{} numbers", mean.len()), values.len().to_string()));
                }
                if let Some(value) = values.iter().find(|v| !v.is_finite()) {
                    return Err(refuse("finite numbers".to_owned(), value.to_string()));
                }
                Ok(values.iter().zip(mean.iter().zip(std)).map(|(v, (m, s))| (v - m) / s).collect())
            }
            (FieldKind::Text, Value::Text(text)) if text.trim().is_empty() => {
                Err(refuse("a text with at least one character".to_owned(), format!("`{text}`")))
            }
            (FieldKind::Text, Value::Text(text)) => Ok(embed_text(text)),
            (kind, value) => Err(refuse(kind.field_type().name().to_owned(), value.type_name().to_owned())),
        }
    }
}

fn list(words: &[String]) -> String {
    let listed: Vec<_> = words.iter().take(LISTED).map(|w| format!("`{w}`")).collect();
    let more = words.len().saturating_sub(LISTED);
    if more > 0 { format!("{} and {more} more", listed.join(", ")) } else { listed.join(", ") }
}
