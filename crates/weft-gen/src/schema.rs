//! The schema of conditions as part of a generator's saved state.
//!
//! `fields` holds the names, one a line. Of each field, `field.NAME` holds the type with its numbers, and vectors beside it what
//! is long: `field.NAME.mean` and `.std` of a vector, `.seen` of the training values that are kept, whose spacing is `spacing.NAME`. Words stand one a line after the
//! type. Line breaks and backslashes inside of names and words are written as `\n` and `\\`.

use crate::{Artifact, Error, Result, first_and_others};
use weft_core::{Condition, Field, FieldKind, FieldSpec, Scale, Schema, Seen};

/// Fits fields to training conditions, all of which some checkpoint has to know, and encodes these, `[n · encoded_len]`.
pub(crate) fn fit(fields: &[FieldSpec], conditions: &[Condition]) -> Result<(Schema, Vec<f32>)> {
    let schema = Schema::fit(fields, conditions)?;
    if let Some(absent) = fields.iter().find(|spec| schema.field(&spec.name).is_err()) {
        let expected = "fields that training checkpoints have";
        return Err(Error::Setting { setting: "conditions", expected, got: absent.name.clone() });
    }
    let encoded = encode_all(&schema, conditions)?;
    Ok((schema, encoded))
}

/// Encodes what the schema's fields say of conditions, `[n · encoded_len]`.
pub(crate) fn encode_all(schema: &Schema, conditions: &[Condition]) -> Result<Vec<f32>> {
    let mut encoded = Vec::with_capacity(conditions.len() * schema.encoded_len());
    for condition in conditions {
        encoded.extend(schema.encode(&condition.restricted_to(schema))?);
    }
    Ok(encoded)
}

/// Encodes what samples are asked for, one condition or more.
pub(crate) fn encode_each(schema: &Schema, conditions: &[Condition]) -> Result<Vec<Vec<f32>>> {
    first_and_others(conditions)?;
    Ok(conditions.iter().map(|condition| schema.encode(condition)).collect::<weft_core::Result<_>>()?)
}

pub(crate) fn save(schema: &Schema, mut artifact: Artifact) -> Artifact {
    let names: Vec<String> = schema.fields.iter().map(|field| escape(&field.name)).collect();
    artifact = artifact.with_text("fields", names.join("\n"));
    for field in &schema.fields {
        let entry = format!("field.{}", field.name);
        let text = match &field.kind {
            FieldKind::Scalar { scale, mean, std, min, max } => {
                let scale = if *scale == Scale::Log { "log" } else { "linear" };
                format!("scalar {scale} {mean:?} {std:?} {min:?} {max:?}")
            }
            FieldKind::Category { words } => words.iter().fold("category".to_owned(), |text, word| text + "\n" + &escape(word)),
            FieldKind::Classes { num_classes } => format!("classes {num_classes}"),
            FieldKind::Vector { mean, std } => {
                artifact = artifact.with_vector(&format!("{entry}.mean"), mean).with_vector(&format!("{entry}.std"), std);
                format!("vector {}", mean.len())
            }
            FieldKind::Text => "text".to_owned(),
        };
        if let Some(seen) = &field.seen {
            let (values, spacing) = (format!("{entry}.seen"), format!("spacing.{}", field.name));
            artifact = artifact.with_vector(&values, &seen.values).with_text(&spacing, format!("{:?}", seen.spacing));
        }
        artifact = artifact.with_text(&entry, text);
    }
    artifact
}

pub(crate) fn load(saved: &Artifact) -> Result<Schema> {
    let names: String = saved.text("fields")?;
    let mut schema = Schema::default();
    for name in names.split('\n').filter(|n| !n.is_empty()).map(unescape) {
        if schema.field(&name).is_ok() {
            return Err(fail("fields", format!("names `{name}` twice")));
        }
        schema.fields.push(load_field(saved, &name)?);
    }
    Ok(schema)
}

fn load_field(saved: &Artifact, name: &str) -> Result<Field> {
    let entry = format!("field.{name}");
    let text: String = saved.text(&entry)?;
    let kind = load_kind(saved, &entry, &text)?;
    if kind.num_values() >= Schema::MAX_WIDTH {
        return Err(fail(&entry, format!("takes {} numbers, which is too many", kind.num_values())));
    }
    let is_seen = matches!(kind, FieldKind::Classes { .. } | FieldKind::Vector { .. } | FieldKind::Text);
    let seen = is_seen.then(|| load_seen(saved, name, kind.num_values())).transpose()?;
    Ok(Field { name: name.to_owned(), kind, seen })
}

fn load_kind(saved: &Artifact, entry: &str, text: &str) -> Result<FieldKind> {
    let unreadable = || fail(entry, format!("cannot be read from `{}`", text.chars().take(100).collect::<String>()));
    let (first, lines) = text.split_once('\n').map_or((text, None), |(first, lines)| (first, Some(lines)));
    let parts: Vec<&str> = first.split(' ').collect();
    match (&parts[..], lines) {
        (["scalar", scale, numbers @ ..], None) => {
            let scale = match *scale {
                "linear" => Scale::Linear,
                "log" => Scale::Log,
                _ => return Err(unreadable()),
            };
            let numbers: Vec<f64> = numbers.iter().filter_map(|v| v.parse().ok()).filter(|v: &f64| v.is_finite()).collect();
            match numbers[..] {
                [mean, std, min, max] if std > 0.0 && min <= max => Ok(FieldKind::Scalar { scale, mean, std, min, max }),
                _ => Err(unreadable()),
            }
        }
        (["category"], Some(lines)) => {
            let words: Vec<String> = lines.split('\n').map(unescape).collect();
            // Words are found by bisection.
            if words.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(fail(entry, "has words that are not in order".to_owned()));
            }
            Ok(FieldKind::Category { words })
        }
        (["classes", count], None) => match count.parse() {
            Ok(num_classes) if num_classes > 0 => Ok(FieldKind::Classes { num_classes }),
            _ => Err(unreadable()),
        },
        (["vector", len], None) => {
            let len = len.parse().map_err(|_| unreadable())?;
            let [mean, std] = ["mean", "std"].map(|what| saved.vector(&format!("{entry}.{what}"), len));
            let (mean, std) = (mean?, std?);
            if std.iter().any(|&s| s <= 0.0) {
                return Err(fail(&format!("{entry}.std"), "has a deviation that is not positive".to_owned()));
            }
            Ok(FieldKind::Vector { mean, std })
        }
        (["text"], None) => Ok(FieldKind::Text),
        _ => Err(unreadable()),
    }
}

fn load_seen(saved: &Artifact, name: &str, width: usize) -> Result<Seen> {
    let (values, spacing) = (format!("field.{name}.seen"), format!("spacing.{name}"));
    let count = saved.tensors.get(&values).map_or(0, |(_, v)| v.len());
    if count == 0 || !count.is_multiple_of(width.max(1)) {
        return Err(fail(&values, format!("has {count} values, expected some rows of {width}")));
    }
    let (values, distance) = (saved.vector(&values, count)?, saved.text::<f64>(&spacing)?);
    if !(0.0..f64::INFINITY).contains(&distance) {
        return Err(fail(&spacing, format!("is {distance}, which is no distance")));
    }
    Ok(Seen { values, spacing: distance })
}

fn fail(entry: &str, reason: String) -> Error {
    Error::Artifact { entry: entry.to_owned(), reason }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => out.extend(chars.next().map(|c| if c == 'n' { '\n' } else { c })),
            (c, false) => out.push(c),
        }
    }
    out
}
