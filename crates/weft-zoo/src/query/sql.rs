//! Expressions as parameterized SQL over `checkpoints c` and `runs r`.

use super::field::{Field, Kind, Names, Sort};
use super::{Comparison, Expr, Literal, Name, SortKey};
use crate::{Error, Result};
use rusqlite::types::Value;
use std::fmt::Write as _;

/// A piece of SQL with the parameters for its question marks.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    pub(crate) text: String,
    pub(crate) parameters: Vec<Value>,
}

impl Sql {
    /// Adds an expression as a condition that is true or false or, for false, null.
    pub(crate) fn push_expr(&mut self, expr: &Expr, names: &Names) -> Result<()> {
        match expr {
            Expr::All(terms) => self.push_joined(terms, " AND ", names),
            Expr::Any(terms) => self.push_joined(terms, " OR ", names),
            Expr::Not(term) => {
                // Null counts as false, so its negation is true.
                self.text += "(NOT coalesce(";
                self.push_expr(term, names)?;
                self.text += ", 0))";
                Ok(())
            }
            Expr::Flag(name) => {
                let field = names.field(name)?;
                if field.sort() != Sort::Flag {
                    let reason = format!("`{}` is not yes or no; compare it, as in `{name} = …`", name.text);
                    return Err(Error::Query { column: name.column, reason });
                }
                self.push_field(&field);
                Ok(())
            }
            Expr::Known(name) => {
                self.text += "(";
                self.push_field(&names.field(name)?);
                self.text += " IS NOT NULL)";
                Ok(())
            }
            Expr::Compare(name, comparison, value) => {
                let field = names.field(name)?;
                check(&field, name, value)?;
                if field.sort() == Sort::Flag && !matches!(comparison, Comparison::Equal | Comparison::Unequal) {
                    let reason = format!("`{}` is yes or no: it has no order", name.text);
                    return Err(Error::Query { column: name.column, reason });
                }
                self.push_test(&field, &format!(" {} ?", comparison.symbol()), [value]);
                Ok(())
            }
            Expr::In(name, values) => {
                let field = names.field(name)?;
                values.iter().try_for_each(|value| check(&field, name, value))?;
                self.push_test(&field, &format!(" IN ({})", vec!["?"; values.len()].join(", ")), values);
                Ok(())
            }
            Expr::Like(name, pattern) => {
                let (field, pattern) = (names.field(name)?, Literal::Text(pattern.clone()));
                check(&field, name, &pattern)?;
                self.push_test(&field, " LIKE ?", [&pattern]);
                Ok(())
            }
        }
    }

    fn push_joined(&mut self, terms: &[Expr], between: &str, names: &Names) -> Result<()> {
        self.text += "(";
        for (i, term) in terms.iter().enumerate() {
            if i > 0 {
                self.text += between;
            }
            self.push_expr(term, names)?;
        }
        self.text += ")";
        Ok(())
    }

    /// Adds a test of a field; a label's goes through the index of labels.
    fn push_test<'a>(&mut self, field: &Field, test: &str, values: impl IntoIterator<Item = &'a Literal>) {
        if let Some(key) = field.label() {
            let _ = write!(self.text, "(c.id IN (SELECT l.checkpoint FROM labels l WHERE l.key = ? AND l.value{test}))");
            self.parameters.push(Value::from(key.to_owned()));
        } else {
            self.text += "(";
            self.push_field(field);
            let _ = write!(self.text, "{test})");
        }
        self.parameters.extend(values.into_iter().map(value));
    }

    fn push_field(&mut self, field: &Field) {
        let (text, key) = match &field.0 {
            Kind::Column(column) => return self.text += column.sql(),
            Kind::Label(key) => ("(SELECT l.value FROM labels l WHERE l.checkpoint = c.id AND l.key = ?)", key),
            Kind::Metric(name) => ("(SELECT m.value FROM json_each(c.metrics) m WHERE m.key = ?)", name),
            Kind::Metadata(key) => ("(SELECT m.value FROM json_each(c.metadata) m WHERE m.key = ?)", key),
        };
        self.text += text;
        self.parameters.push(Value::from(key.clone()));
    }

    /// Adds the terms of an `ORDER BY`, each with a comma after it.
    pub(crate) fn push_order(&mut self, keys: &[SortKey], names: &Names) -> Result<()> {
        for key in keys {
            self.push_field(&names.field(&key.name)?);
            self.text += if key.descending { " DESC NULLS LAST, " } else { " NULLS LAST, " };
        }
        Ok(())
    }
}

fn value(literal: &Literal) -> Value {
    match literal {
        Literal::Text(text) => Value::from(text.clone()),
        Literal::Number(number) => Value::from(*number),
        Literal::Flag(flag) => Value::from(*flag),
    }
}

/// Refuses to compare a text with a number.
fn check(field: &Field, name: &Name, value: &Literal) -> Result<()> {
    let (sort, what) = match (field.sort(), value) {
        (Sort::Text, Literal::Text(_)) | (Sort::Number, Literal::Number(_)) | (Sort::Flag, Literal::Flag(_)) => return Ok(()),
        (Sort::Text, _) => ("a text", format!("\"{}\"", value.to_string().trim_matches('"'))),
        (Sort::Number, _) => ("a number", "a number".to_owned()),
        (Sort::Flag, _) => ("yes or no", "`true` or `false`".to_owned()),
    };
    Err(Error::Query { column: name.column, reason: format!("`{}` is {sort}; {value} is none, write {what}", name.text) })
}
