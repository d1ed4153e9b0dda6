//! Sets of classes: what a binary task tells from the rest, and a field of conditions.

use crate::{Error, Result};
use std::fmt::{Display, Formatter};
use std::str::FromStr;

/// A set of a data set's classes that is not empty, in increasing order; written as `0+3+7`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassSet(Vec<u32>);

impl ClassSet {
    /// The set of these classes, in any order.
    ///
    /// # Errors
    /// [`Error::Classes`] if there is none.
    pub fn new(classes: impl IntoIterator<Item = u32>) -> Result<Self> {
        let mut classes: Vec<u32> = classes.into_iter().collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.is_empty() {
            return Err(Error::Classes { got: String::new(), reason: "it has no class".to_owned() });
        }
        Ok(Self(classes))
    }

    /// The classes, in increasing order.
    #[must_use]
    pub fn classes(&self) -> &[u32] {
        &self.0
    }

    /// Whether a class is in it.
    #[must_use]
    pub fn contains(&self, class: u32) -> bool {
        self.0.binary_search(&class).is_ok()
    }

    /// Checks that all classes are those of a data set of so many.
    ///
    /// # Errors
    /// [`Error::Classes`] names the largest if it is not below `num_classes`.
    pub fn check(&self, num_classes: usize) -> Result<()> {
        match self.0.last() {
            Some(&class) if class as usize >= num_classes => {
                Err(Error::Classes { got: self.to_string(), reason: format!("class {class} is not below {num_classes}") })
            }
            _ => Ok(()),
        }
    }
}

impl Display for ClassSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (i, class) in self.0.iter().enumerate() {
            write!(f, "{}{class}", if i == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl FromStr for ClassSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let class = |word: &str| {
            let word = word.trim();
            // `+7` and the like would be read, and `0++7` with them.
            let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
            let parsed = digits.then(|| word.parse::<u32>().ok()).flatten();
            parsed.ok_or_else(|| Error::Classes { got: text.to_owned(), reason: format!("`{word}` is not a class") })
        };
        let classes = text.split('+').map(class).collect::<Result<Vec<_>>>()?;
        let distinct = Self::new(classes.iter().copied())?;
        if distinct.0.len() < classes.len() {
            return Err(Error::Classes { got: text.to_owned(), reason: "a class is named twice".to_owned() });
        }
        Ok(distinct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_they_are_written() {
        for (text, classes) in [("7", vec![7]), ("0+3+7", vec![0, 3, 7]), (" 3 + 0 ", vec![0, 3])] {
            let set: ClassSet = text.parse().unwrap();
            assert_eq!(set.classes(), classes, "{text}");
            assert_eq!(set.to_string().parse(), Ok(set));
        }
    }

    #[test]
    fn what_is_not_a_set_is_refused_with_the_reason() {
        let check = |text: &str, reason: &str| {
            let error = text.parse::<ClassSet>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        };
        check("", "`` is not a class");
        check("0++7", "`` is not a class");
        check("3+x", "`x` is not a class");
        check("-1", "`-1` is not a class");
        check("1.5", "`1.5` is not a class");
        check("99999999999", "`99999999999` is not a class");
        check("3+3", "twice");
        assert!(ClassSet::new([]).unwrap_err().to_string().contains("no class"));
        let error = ClassSet::new([3, 10]).unwrap().check(10).unwrap_err();
        assert_eq!(error.to_string(), "`3+10` is not a set of classes such as `0+3+7`: class 10 is not below 10");
    }
}
