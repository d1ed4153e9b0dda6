//! Settings by patterns of module names.
//!
//! The library matches `(.*\.)?(PATTERN)$` from the start of a name: a pattern fits the end of a name, behind its start
//! or a dot, and the first that fits counts. Most patterns are plain names, in which a dot stands for any character;
//! those are compared directly. The others go to crate `regex`, which takes time linear in the name whatever the
//! pattern; it has no look-around, so that is refused. Work is bounded as a whole before it begins.

use crate::pairs::Pairs;
use crate::source::SourceFault;
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};

/// The most patterns of one kind.
const MAX_PATTERNS: usize = 4096;

/// The longest pattern.
const MAX_PATTERN_BYTES: usize = 1024;

/// The most patterns that are no plain names.
const MAX_EXPRESSIONS: usize = 256;

/// Memory that a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 1 << 17;

/// The most comparisons of a plain name with a module.
const MAX_COMPARISONS: usize = 1 << 25;

/// The most bytes of names that other patterns are tried on.
const MAX_TRIED_BYTES: usize = 1 << 23;

/// Values by patterns, in the order of the file.
pub(super) struct Patterns<V> {
    field: &'static str,
    pairs: Vec<(String, V)>,
}

impl<V: Copy> Patterns<V> {
    pub(super) fn new(field: &'static str, pairs: Option<Pairs<V>>) -> Result<Self, SourceFault> {
        let pairs = pairs.unwrap_or_default().0;
        let mut seen = BTreeSet::new();
        if let Some((text, _)) = pairs.iter().find(|(text, _)| !seen.insert(text)) {
            return Err(SourceFault::Duplicate { name: text.clone() });
        }
        let patterns = Self { field, pairs };
        let expressions = patterns.pairs.iter().filter(|(text, _)| !is_plain(text)).count();
        patterns.bound("the number of patterns", patterns.pairs.len(), MAX_PATTERNS)?;
        patterns.bound("the number of patterns that are no plain names", expressions, MAX_EXPRESSIONS)?;
        Ok(patterns)
    }

    fn bound(&self, what: &str, got: usize, limit: usize) -> Result<(), SourceFault> {
        if got <= limit {
            return Ok(());
        }
        let what = format!("`{}`: {what}", self.field);
        Err(SourceFault::TooMany { what, got: got as u64, limit: limit as u64 })
    }

    /// The values, without their patterns.
    pub(super) fn values(&self) -> impl Iterator<Item = V> {
        self.pairs.iter().map(|(_, value)| *value)
    }

    /// The value of each module that a pattern fits.
    pub(super) fn resolve<'a>(&self, modules: impl Iterator<Item = &'a str> + Clone) -> Result<BTreeMap<&'a str, V>, SourceFault> {
        let expressions = self.pairs.iter().filter(|(text, _)| !is_plain(text)).count();
        let bytes = modules.clone().map(str::len).sum::<usize>();
        self.bound("patterns times modules", self.pairs.len().saturating_mul(modules.clone().count()), MAX_COMPARISONS)?;
        self.bound("patterns times names", expressions.saturating_mul(bytes), MAX_TRIED_BYTES)?;
        let mut resolved = BTreeMap::new();
        for (text, value) in &self.pairs {
            // Each is compiled when its turn comes: never are two in memory.
            let expression = if is_plain(text) { None } else { Some(self.compile(text)?) };
            for module in modules.clone() {
                let fits = expression.as_ref().map_or_else(|| plain_fits(text, module), |regex| regex.is_match(module));
                if fits {
                    resolved.entry(module).or_insert(*value);
                }
            }
        }
        // A name that is no pattern of itself, such as one with brackets, still counts as it is.
        let exact: BTreeMap<&str, V> = self.pairs.iter().map(|(text, value)| (text.as_str(), *value)).collect();
        for module in modules {
            if let Some(value) = exact.get(module) {
                resolved.entry(module).or_insert(*value);
            }
        }
        Ok(resolved)
    }

    fn compile(&self, text: &str) -> Result<Regex, SourceFault> {
        let fail = |reason: String| SourceFault::malformed(format!("the pattern `{text:.80}` of `{}`", self.field), reason);
        if text.len() > MAX_PATTERN_BYTES {
            return Err(fail(format!("it has {} bytes", text.len())));
        }
        let mut builder = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{text})$"));
        let regex = builder.size_limit(MAX_COMPILED_BYTES).dfa_size_limit(MAX_COMPILED_BYTES).build();
        regex.map_err(|error| fail(error.to_string().lines().last().unwrap_or_default().to_owned()))
    }
}

/// Whether a pattern is a name, in which only dots mean anything else than themselves.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.' || byte == b'-')
}

/// Whether a plain pattern fits the end of a name; its dots stand for any character.
fn plain_fits(text: &str, module: &str) -> bool {
    let mut rest = module.chars();
    for wanted in text.chars().rev() {
        match rest.next_back() {
            Some(got) if got == wanted || (wanted == '.' && got != '\n') => {}
            _ => return false,
        }
    }
    rest.as_str().is_empty() || rest.as_str().ends_with('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(pairs: &[(&str, u64)]) -> Patterns<u64> {
        let pairs = pairs.iter().map(|(text, value)| ((*text).to_owned(), *value)).collect();
        Patterns::new("rank_pattern", Some(Pairs(pairs))).unwrap()
    }

    /// What the library's `get_pattern_key` gives for the same patterns and names; 0 where none fits.
    #[test]
    fn patterns_fit_the_ends_of_names() {
        let check = |pairs: &[(&str, u64)], module: &str, expected: u64| {
            let resolved = patterns(pairs).resolve([module].into_iter()).unwrap();
            assert_eq!(resolved.get(module).copied().unwrap_or(0), expected, "{pairs:?} {module}");
        };
        check(&[("q_proj", 4)], "model.layers.0.self_attn.q_proj", 4);
        check(&[("q_proj", 4)], "q_proj", 4);
        check(&[("q_proj", 4)], "model.xq_proj", 0);
        check(&[("q_proj", 4)], "model.q_proj.inner", 0);
        check(&[("layers.1.q", 4)], "model.layers.1.q", 4);
        check(&[("layers.1.q", 4)], "model.layers.11.q", 0);
        // A dot of a pattern fits any character.
        check(&[("layers.1.q", 4)], "model.layersx1xq", 4);
        check(&[("a.b", 4)], "x.aéb", 4);
        check(&[("", 4)], "x.", 4);
        check(&[(r"layers\.[01]\.q", 4), ("q", 2)], "model.layers.1.q", 4);
        check(&[(r"layers\.[01]\.q", 4), ("q", 2)], "model.layers.7.q", 2);
        check(&[("q", 2), (r"layers\.1\.q", 4)], "model.layers.1.q", 2);
        check(&[("^model.q", 16)], "model.q", 16);
        check(&[("^q", 16)], "model.q", 0);
        check(&[("a|b", 4)], "model.b", 4);
        check(&[("a|b", 4)], "model.bb", 0);
        check(&[("a[0]", 4)], "a[0]", 4);
    }

    #[test]
    fn work_is_bounded() {
        let fails = |text: &str, expected: &str| {
            let error = patterns(&[(text, 1)]).resolve(["a"].into_iter()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text:.80}: {error}");
        };
        fails("(?<!x)a", "look");
        fails("(a", "unclosed");
        fails("a{1000}{1000}{1000}", "size limit");
        fails(&format!("({})", "a".repeat(2000)), "bytes");
        let many: Vec<(String, u64)> = (0..5000).map(|i| (format!("m{i}"), 1)).collect();
        assert!(matches!(Patterns::new("rank_pattern", Some(Pairs(many))), Err(SourceFault::TooMany { .. })));
        let expressions: Vec<(String, u64)> = (0..300).map(|i| (format!("m{i}+"), 1)).collect();
        assert!(matches!(Patterns::new("rank_pattern", Some(Pairs(expressions))), Err(SourceFault::TooMany { .. })));
        let names = vec!["a".repeat(1 << 16); 1 << 8];
        let long = patterns(&[("a+", 1)]).resolve(names.iter().map(String::as_str)).unwrap_err();
        assert!(matches!(long, SourceFault::TooMany { .. }), "{long}");
        let twice = Patterns::new("rank_pattern", Some(Pairs(vec![("a".to_owned(), 1), ("a".to_owned(), 2)]))).err();
        assert_eq!(twice, Some(SourceFault::Duplicate { name: "a".to_owned() }));
    }
}
