//! A small language for choosing checkpoints: `split = "train" and accuracy >= 0.9 and phrase like "hey%"`.
//!
//! ```text
//! expression = all { "or" all }            all = term { "and" term }
//! term       = "not" term | "(" expression ")" | name [ test ]
//! test       = ("=" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "(" value { "," value } ")"
//!            | ["not"] "like" text | "is" ("known" | "unknown")
//! value      = "text" | 'text' | number | "true" | "false"
//! ```
//!
//! A name is a column of the catalogue, a label, a metric or a metadata entry; `label.NAME`, `metric.NAME` and
//! `metadata.NAME` say which, and backticks enclose a name with other characters. A test of something that is not
//! known of a checkpoint is false, and its negation true: there is no third truth value.
//!
//! Expressions become parameterized SQL: no text of theirs is ever part of a statement. Their length, depth and
//! number of tests are bounded, so that neither this parser nor SQLite's can be exhausted.

mod field;
mod parse;
mod sql;

pub use field::Field;
pub(crate) use field::{ACCURACY, Names, OF_QUARANTINE};
pub(crate) use sql::Sql;

use crate::{Error, Result};
use std::fmt::{Display, Formatter};

/// A condition on checkpoints.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// All of these hold.
    All(Vec<Expr>),
    /// One of these holds.
    Any(Vec<Expr>),
    /// This does not hold.
    Not(Box<Expr>),
    /// A yes-or-no field says yes.
    Flag(Name),
    /// A field is known.
    Known(Name),
    /// A field compares with a value.
    Compare(Name, Comparison, Literal),
    /// A field is one of these values.
    In(Name, Vec<Literal>),
    /// A text matches a pattern in which `%` stands for any text and `_` for any character; case does not matter for
    /// ASCII letters.
    Like(Name, String),
}

/// A field's name with its place in the expression.
///
/// Two names are equal if their texts are.
#[derive(Debug, Clone)]
pub struct Name {
    /// The name, such as `run`, `phrase` or `metric.train-loss`.
    pub text: String,
    /// The column at which it stands, from 1; 0 if it stands in no text.
    pub column: usize,
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), column: 0 }
    }
}

/// How a field compares with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Comparison {
    const ALL: [Self; 6] = [Self::Equal, Self::Unequal, Self::Less, Self::AtMost, Self::Greater, Self::AtLeast];

    /// The operator, in this language and in SQL.
    fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Unequal => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }
}

/// A value in an expression, or a field's.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// A text.
    Text(String),
    /// A finite number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
}

impl Expr {
    /// Parses an expression.
    ///
    /// # Errors
    /// [`Error::Query`] names the column and what was expected there.
    ///
    /// # Examples
    /// ```
    /// let parsed = weft_zoo::Expr::parse("accuracy >= 0.9 and not synthetic").unwrap();
    /// assert_eq!(parsed.to_string(), "accuracy >= 0.9 and not synthetic");
    /// assert!(weft_zoo::Expr::parse("accuracy >= ").unwrap_err().to_string().contains("column 13"));
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        parse::parse(text)
    }

    /// Whether one of the names is one of these.
    pub(crate) fn mentions(&self, names: &[&str]) -> bool {
        match self {
            Self::All(terms) | Self::Any(terms) => terms.iter().any(|term| term.mentions(names)),
            Self::Not(term) => term.mentions(names),
            Self::Flag(name) | Self::Known(name) | Self::Compare(name, ..) | Self::In(name, _) | Self::Like(name, _) => {
                names.contains(&name.text.as_str())
            }
        }
    }
}

/// A field to sort by.
#[derive(Debug, Clone, PartialEq)]
pub struct SortKey {
    /// The field.
    pub name: Name,
    /// From the largest to the smallest; what is not known comes last either way.
    pub descending: bool,
}

impl SortKey {
    /// Parses `name`, or `-name` for a descending order.
    ///
    /// # Errors
    /// [`Error::Query`] for an empty name.
    pub fn parse(text: &str) -> Result<Self> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |rest| (rest, true));
        if name.trim().is_empty() {
            return Err(Error::Query { column: 1, reason: "expected the name of a field to sort by".to_owned() });
        }
        Ok(Self { name: Name { text: name.trim().to_owned(), column: 1 + usize::from(descending) }, descending })
    }
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let group = |f: &mut Formatter<'_>, terms: &[Expr], word: &str, parenthesize: fn(&Expr) -> bool| {
            for (i, term) in terms.iter().enumerate() {
                let between = if i == 0 { "" } else { word };
                if parenthesize(term) { write!(f, "{between}({term})")? } else { write!(f, "{between}{term}")? }
            }
            Ok(())
        };
        match self {
            Self::Any(terms) => group(f, terms, " or ", |term| matches!(term, Self::Any(_))),
            Self::All(terms) => group(f, terms, " and ", |term| matches!(term, Self::Any(_) | Self::All(_))),
            Self::Not(term) if matches!(**term, Self::Any(_) | Self::All(_)) => write!(f, "not ({term})"),
            Self::Not(term) => write!(f, "not {term}"),
            Self::Flag(name) => write!(f, "{name}"),
            Self::Known(name) => write!(f, "{name} is known"),
            Self::Compare(name, comparison, value) => write!(f, "{name} {} {value}", comparison.symbol()),
            Self::In(name, values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "{name} in ({})", values.join(", "))
            }
            Self::Like(name, pattern) => write!(f, "{name} like {}", quoted(pattern)),
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        if parse::is_bare(&self.text) {
            return f.write_str(&self.text);
        }
        write!(f, "`{}`", self.text.replace('`', "``"))
    }
}

impl Display for Literal {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(text)),
            Self::Number(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
        }
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
