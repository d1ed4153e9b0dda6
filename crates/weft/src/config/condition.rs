//! Fields of conditions, and values that are asked for.

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use weft_core::{Condition, FieldSpec, FieldType};
use weft_gen::{ExampleEncoder, InputEncoder};

/// A field that a generator is conditioned on: `"step"`, a number, `{ classes = "task" }`, `{ examples = 16 }`, or `{ inputs = 16 }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldConfig {
    /// The field's name.
    pub name: String,
    /// Its type.
    pub kind: FieldKindName,
}

/// The type of a field, as run files name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKindName {
    /// A number.
    Scalar,
    /// A word out of those seen in training.
    Category,
    /// A set of the data set's classes.
    Classes,
    /// Numbers of a fixed count.
    Vector,
    /// Words of a language.
    Text,
    /// Labelled examples of the network's task, so many of each output; the field's name is `examples`.
    Examples(usize),
    /// So many inputs of the network's task without labels, members of its set of classes; the field's name is `inputs`.
    Inputs(usize),
}

impl FieldKindName {
    /// Examples of each output that show a task, if that is what the field is.
    #[must_use]
    pub fn examples(self) -> Option<usize> {
        if let Self::Examples(per_output) = self { Some(per_output) } else { None }
    }

    /// Inputs without labels that show a task, if that is what the field is.
    #[must_use]
    pub fn inputs(self) -> Option<usize> {
        if let Self::Inputs(count) = self { Some(count) } else { None }
    }

    /// Whether the field shows a task by data, labelled or not.
    #[must_use]
    pub fn shows(self) -> bool {
        self.examples().or(self.inputs()).is_some()
    }
}

/// The key of a field's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Key {
    Scalar,
    Category,
    Classes,
    Vector,
    Text,
    Examples,
    Inputs,
}

impl FieldConfig {
    /// A number.
    #[must_use]
    pub fn scalar(name: &str) -> Self {
        Self { name: name.to_owned(), kind: FieldKindName::Scalar }
    }

    /// The domain's form of it, for data with so many classes.
    #[must_use]
    pub fn to_field(&self, num_classes: Option<usize>) -> FieldSpec {
        let kind = match self.kind {
            FieldKindName::Scalar => return FieldSpec::scalar(&self.name),
            FieldKindName::Category => FieldType::Category,
            FieldKindName::Classes => FieldType::Classes { num_classes },
            FieldKindName::Vector | FieldKindName::Examples(_) | FieldKindName::Inputs(_) => FieldType::Vector,
            FieldKindName::Text => FieldType::Text,
        };
        FieldSpec::new(&self.name, kind)
    }
}

impl Serialize for FieldConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = match self.kind {
            FieldKindName::Scalar => return serializer.serialize_str(&self.name),
            FieldKindName::Examples(per_output) => return serializer.collect_map([(Key::Examples, per_output)]),
            FieldKindName::Inputs(count) => return serializer.collect_map([(Key::Inputs, count)]),
            FieldKindName::Category => Key::Category,
            FieldKindName::Classes => Key::Classes,
            FieldKindName::Vector => Key::Vector,
            FieldKindName::Text => Key::Text,
        };
        serializer.collect_map([(key, &self.name)])
    }
}

impl<'de> Deserialize<'de> for FieldConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfNameOrTable;
        impl<'de> Visitor<'de> for OfNameOrTable {
            type Value = FieldConfig;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("the name of a number, or a table such as `{ classes = \"task\" }`")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<FieldConfig, E> {
                Ok(FieldConfig::scalar(name))
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<FieldConfig, M::Error> {
                let key = map.next_key::<Key>()?.ok_or_else(|| M::Error::custom("a condition needs a type and a name"))?;
                let kind = match key {
                    Key::Scalar => FieldKindName::Scalar,
                    Key::Category => FieldKindName::Category,
                    Key::Classes => FieldKindName::Classes,
                    Key::Vector => FieldKindName::Vector,
                    Key::Text => FieldKindName::Text,
                    Key::Examples => FieldKindName::Examples(map.next_value()?),
                    Key::Inputs => FieldKindName::Inputs(map.next_value()?),
                };
                let name = match key {
                    Key::Examples => ExampleEncoder::FIELD.to_owned(),
                    Key::Inputs => InputEncoder::FIELD.to_owned(),
                    _ => map.next_value()?,
                };
                match map.next_key::<Key>()? {
                    None => Ok(FieldConfig { name, kind }),
                    Some(_) => Err(M::Error::custom("a condition has one type and one name; write another table for another one")),
                }
            }
        }
        deserializer.deserialize_any(OfNameOrTable)
    }
}

/// A value that is asked for, before its field's type is known: a number, a text, or a list of classes or numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked(Form);

#[derive(Debug, Clone, PartialEq)]
enum Form {
    Number(f64),
    Text(String),
    List(Vec<f64>),
}

impl From<f64> for Asked {
    fn from(number: f64) -> Self {
        Self(Form::Number(number))
    }
}

impl From<&str> for Asked {
    fn from(text: &str) -> Self {
        Self(Form::Text(text.to_owned()))
    }
}

impl Asked {
    /// The text, if it is one.
    pub(crate) fn as_text(&self) -> Option<&str> {
        if let Form::Text(text) = &self.0 { Some(text) } else { None }
    }

    /// The value as [`FieldSpec::read`] wants it.
    fn text(&self, field: &FieldSpec) -> String {
        let between = if matches!(field.kind, FieldType::Classes { .. }) { "+" } else { "," };
        match &self.0 {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text.clone(),
            Form::List(numbers) => numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(between),
        }
    }
}

impl Serialize for Asked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Form::Number(number) => serializer.serialize_f64(*number),
            Form::Text(text) => serializer.serialize_str(text),
            Form::List(numbers) => numbers.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Asked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfValue;
        impl<'de> Visitor<'de> for OfValue {
            type Value = Form;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a number, a text, or a list of classes or numbers")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Form, E> {
                Ok(Form::Number(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Form, E> {
                Ok(Form::Number(number as f64))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Form, E> {
                Ok(Form::Number(number as f64))
            }

            fn visit_str<E>(self, text: &str) -> Result<Form, E> {
                Ok(Form::Text(text.to_owned()))
            }

            fn visit_seq<S: serde::de::SeqAccess<'de>>(self, seq: S) -> Result<Form, S::Error> {
                Vec::deserialize(serde::de::value::SeqAccessDeserializer::new(seq)).map(Form::List)
            }
        }
        deserializer.deserialize_any(OfValue).map(Self)
    }
}

/// The values that are asked for, each by its field's type.
///
/// # Errors
/// [`weft_core::Error::UnknownField`] names the known ones; [`weft_core::Error::FieldValue`] says what a field wants.
pub(crate) fn condition_of(asked: &BTreeMap<String, Asked>, fields: &[FieldSpec]) -> weft_core::Result<Condition> {
    asked.iter().try_fold(Condition::unknown(), |condition, (name, asked)| {
        let field = fields.iter().find(|field| &field.name == name).ok_or_else(|| {
            let known: Vec<_> = fields.iter().map(|field| format!("`{}`", field.name)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            weft_core::Error::UnknownField { field: name.clone(), known }
        })?;
        Ok(condition.with(name, field.read(&asked.text(field))?))
    })
}
