//! Which checkpoints of a zoo are meant.

use crate::Result;
use crate::query::{Expr, Names, OF_QUARANTINE, SortKey, Sql};
use rusqlite::types::Value;
use weft_core::{Digest, Split};

/// Which checkpoints are meant; the default means all that are not quarantined, in the order in which they came in.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Those of one split.
    pub split: Option<Split>,
    /// The last snapshot of each run alone.
    pub final_only: bool,
    /// Those whose `validation-accuracy` is known and at least this, in `[0, 1]`.
    pub min_accuracy: Option<f64>,
    /// Those of one run.
    pub run: Option<String>,
    /// Those whose digest begins with these hexadecimal digits.
    pub digest_prefix: Option<String>,
    /// Those for which this holds.
    pub condition: Option<Expr>,
    /// Quarantined ones too. A condition that asks about quarantine means them as well.
    pub with_quarantined: bool,
    /// The order, before that in which they came in.
    pub sort: Vec<SortKey>,
    /// No more than this many.
    pub limit: Option<usize>,
    /// Without this many of the first.
    pub offset: usize,
}

impl Filter {
    /// Whether names must be looked up in the catalogue.
    pub(super) fn needs_names(&self) -> bool {
        self.condition.is_some() || !self.sort.is_empty()
    }

    /// The filter as the end of a query over `checkpoints c` and `runs r`, with its parameters.
    pub(super) fn sql(&self, names: &Names) -> Result<(String, Vec<Value>)> {
        let mut sql = Sql::default();
        let mut before = "WHERE ";
        let mut add = |sql: &mut Sql, text: &str, parameters: &mut dyn Iterator<Item = Value>| {
            sql.text += std::mem::replace(&mut before, " AND ");
            sql.text += text;
            sql.parameters.extend(parameters);
        };
        let asked = self.condition.as_ref().is_some_and(|condition| condition.mentions(&OF_QUARANTINE));
        if !self.with_quarantined && !asked {
            add(&mut sql, "c.quarantine IS NULL", &mut std::iter::empty());
        }
        if let Some(split) = self.split {
            let values = [Value::from(split.name().to_owned())];
            add(&mut sql, "r.split = ? AND c.quarantine IS NULL", &mut values.into_iter());
        }
        if self.final_only {
            add(&mut sql, "c.is_final", &mut std::iter::empty());
        }
        if let Some(accuracy) = self.min_accuracy {
            add(&mut sql, "c.accuracy >= ?", &mut [Value::from(accuracy)].into_iter());
        }
        if let Some(run) = &self.run {
            add(&mut sql, "r.name = ?", &mut [Value::from(run.clone())].into_iter());
        }
        if let Some(prefix) = &self.digest_prefix {
            let (low, high) = digest_range(prefix);
            add(&mut sql, "c.digest BETWEEN ? AND ?", &mut [Value::from(low), Value::from(high)].into_iter());
        }
        if let Some(condition) = &self.condition {
            add(&mut sql, "", &mut std::iter::empty());
            sql.push_expr(condition, names)?;
        }
        sql.text += " ORDER BY ";
        sql.push_order(&self.sort, names)?;
        sql.text += "c.id LIMIT ? OFFSET ?";
        let bounded = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        sql.parameters.extend([Value::from(self.limit.map_or(-1, bounded)), Value::from(bounded(self.offset))]);
        Ok((sql.text, sql.parameters))
    }
}

/// The smallest and the largest digest that begin with the digits; an empty range if they are no such digits.
fn digest_range(prefix: &str) -> (Vec<u8>, Vec<u8>) {
    let fill = |digit: &str| {
        let digits = format!("{}{}", prefix.to_lowercase(), digit.repeat(64usize.saturating_sub(prefix.len())));
        digits.parse::<Digest>().map(|digest| digest.as_bytes().to_vec())
    };
    match (fill("0"), fill("f")) {
        (Ok(low), Ok(high)) => (low, high),
        _ => (vec![1], vec![0]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_ranges() {
        let (low, high) = digest_range("aB1");
        assert_eq!((low[..3].to_vec(), high[..3].to_vec()), (vec![0xab, 0x10, 0], vec![0xab, 0x1f, 0xff]));
        for bad in ["g", "é", &"0".repeat(65)] {
            let (low, high) = digest_range(bad);
            assert!(low > high, "{bad}");
        }
    }
}
