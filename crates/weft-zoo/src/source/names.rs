//! Prefixes that wrappers of training programs leave in the names of tensors.

use std::collections::BTreeMap;

/// What `DataParallel` and `torch.compile` put before every name.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];

/// Names without the prefixes of wrappers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NormalizedNames {
    /// What was taken away, from the front.
    pub stripped: Vec<String>,
    /// The name as it was, by the name as it is.
    pub names: BTreeMap<String, String>,
}

/// Takes `module.` and `_orig_mod.` away from the front of names, in any order and as often as they are there.
///
/// A prefix goes only if all names have it: then no two names become the same one, and a network with a part that
/// is called `module` keeps it.
///
/// # Examples
/// ```
/// let names = weft_zoo::normalized_names(["module._orig_mod.a.weight", "module._orig_mod.b"]);
/// assert_eq!(names.stripped, ["module.", "_orig_mod."]);
/// assert_eq!(names.names["a.weight"], "module._orig_mod.a.weight");
/// ```
#[must_use]
pub fn normalized_names<'a>(names: impl IntoIterator<Item = &'a str>) -> NormalizedNames {
    let names: Vec<&str> = names.into_iter().collect();
    let mut stripped = Vec::new();
    let mut skip = 0;
    // A prefix is only taken from a name that has something after it, so this ends.
    while let Some(prefix) = WRAPPERS.iter().find(|prefix| {
        let has = |name: &&str| name[skip..].strip_prefix(**prefix).is_some_and(|rest| !rest.is_empty());
        !names.is_empty() && names.iter().all(has)
    }) {
        stripped.push((*prefix).to_owned());
        skip += prefix.len();
    }
    let names = names.iter().map(|name| (name[skip..].to_owned(), (*name).to_owned())).collect();
    NormalizedNames { stripped, names }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_all_names_have_goes() {
        let check = |names: &[&str], stripped: &[&str], first: &str| {
            let normalized = normalized_names(names.iter().copied());
            assert_eq!(normalized.stripped, stripped);
            assert_eq!(normalized.names[first], names[0]);
            assert_eq!(normalized.names.len(), names.len());
        };
        check(&["module.a", "module.b"], &["module."], "a");
        check(&["_orig_mod.module.module.a"], &["_orig_mod.", "module.", "module."], "a");
        check(&["module.a", "b"], &[], "module.a");
        check(&["module.", "module.b"], &[], "module.");
        check(&["modules.a", "modules.b"], &[], "modules.a");
        assert_eq!(normalized_names([]), NormalizedNames::default());
    }
}
