//! Architectures as TOML, in one of two forms.
//!
//! An op graph: tensors in the order of the flat row, and ops in topological order.
//! ```toml
//! name = "mlp-64-16-10"
//! tensors = [
//!   { name = "layers.0.weight", shape = [16, 64] },
//!   { name = "layers.0.bias", shape = [16] },
//! ]
//! ops = [
//!   { name = "input", input = { features = 64 } },
//!   { name = "linear-1", linear = { of = "input", weight = "layers.0.weight", bias = "layers.0.bias" } },
//! ]
//! ```
//! An op is a table with its own name and one key that says what it computes, so that a misspelt kind is
//! reported at its own line and column. It names earlier ops as its inputs.
//!
//! Or a family and its sizes:
//! ```toml
//! name = "mlp-64-16-10"
//! [family.mlp]
//! widths = [64, 16, 10]
//! activation = "relu"
//! ```

mod entry;
mod family;
mod write;

pub use family::family_to_toml;
pub use write::architecture_to_toml;

use crate::{Error, Result};
use entry::{Names, OpEntry};
use family::FamilyEntry;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use weft_core::Architecture;
use weft_core::families::Family;

/// More weights than any architecture may declare; it keeps sums of sizes from overflowing.
const MAX_PARAMETERS: u64 = 1 << 40;
/// The most tensors, and the most ops, that one file may declare.
const MAX_ENTRIES: usize = 1 << 18;

/// Reads an architecture from TOML, either form; `origin` is named in errors.
///
/// # Errors
/// [`Error::Toml`] with line and column for a syntax error or an unknown key, or with the name of the op or tensor
/// that is wrong; [`Error::Domain`] for a graph or sizes that do not fit together.
///
/// # Examples
/// ```
/// use std::path::Path;
/// use weft_core::{Activation, Architecture};
/// let mlp = Architecture::mlp("mlp", &[64, 16, 10], Activation::Relu).unwrap();
/// let text = weft_zoo::architecture_to_toml(&mlp);
/// assert_eq!(weft_zoo::architecture_from_toml(&text, Path::new("mlp.toml")).unwrap(), mlp);
/// ```
pub fn architecture_from_toml(text: &str, origin: &Path) -> Result<Architecture> {
    parse(text, origin)?.check(origin)
}

/// The family that a file declares, if it has that form.
///
/// # Errors
/// As [`architecture_from_toml`], less the checks of an op graph.
pub fn family_from_toml(text: &str, origin: &Path) -> Result<Option<Family>> {
    let family = parse(text, origin)?.family.map(FamilyEntry::family).transpose();
    family.map_err(|reason| Error::Toml { path: origin.to_owned(), reason })
}

fn parse(text: &str, origin: &Path) -> Result<ArchitectureFile> {
    let fail = |e: toml::de::Error| Error::Toml { path: origin.to_owned(), reason: e.to_string().trim_end().to_owned() };
    toml::from_str(text).map_err(fail)
}

/// Reads an architecture file.
///
/// # Errors
/// [`Error::Io`], and those of [`architecture_from_toml`].
pub fn read_architecture(path: &Path) -> Result<Architecture> {
    architecture_from_toml(&super::read_text(path)?, path)
}

/// An architecture as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ArchitectureFile {
    name: String,
    tensors: Option<Vec<TensorEntry>>,
    ops: Option<Vec<OpEntry>>,
    family: Option<FamilyEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorEntry {
    name: String,
    shape: Vec<u64>,
}

impl ArchitectureFile {
    /// Resolves names and builds the checked graph.
    pub(crate) fn check(self, origin: &Path) -> Result<Architecture> {
        let fail = |reason| Error::Toml { path: origin.to_owned(), reason };
        let domain = |source| Error::Domain { origin: format!("`{}`", origin.display()), source };
        match (self.tensors, self.ops, self.family) {
            (None, None, Some(family)) => family.family().map_err(fail)?.build(&self.name).map_err(domain),
            (Some(tensors), Some(ops), None) => {
                check_sizes(&tensors, ops.len()).map_err(fail)?;
                let nodes = nodes(&tensors, &ops).map_err(fail)?;
                let shape = |t: TensorEntry| (t.name, t.shape.iter().map(|&axis| axis as usize).collect());
                Architecture::new(&self.name, tensors.into_iter().map(shape).collect(), nodes).map_err(domain)
            }
            _ => Err(fail("it must have either `tensors` and `ops`, or one `[family.…]`".to_owned())),
        }
    }
}

fn check_sizes(tensors: &[TensorEntry], num_ops: usize) -> Result<(), String> {
    if tensors.len() > MAX_ENTRIES || num_ops > MAX_ENTRIES {
        return Err(format!("it declares {} tensors and {num_ops} ops, at most {MAX_ENTRIES} of each are read", tensors.len()));
    }
    let mut total: u64 = 0;
    for TensorEntry { name, shape } in tensors {
        let size = shape.iter().try_fold(1u64, |size, &axis| size.checked_mul(axis));
        // A size of 0 would let an axis be absurd without the product showing it.
        let sum = size.filter(|&s| s > 0).and_then(|s| total.checked_add(s)).filter(|&t| t <= MAX_PARAMETERS);
        total = sum.ok_or_else(|| {
            format!("tensor `{name}` of shape {shape:?} is empty, or brings the architecture above {MAX_PARAMETERS} weights")
        })?;
    }
    Ok(())
}

fn nodes(tensors: &[TensorEntry], ops: &[OpEntry]) -> Result<Vec<weft_core::Node>, String> {
    let tensors = tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
    let mut names = Names { ops: BTreeMap::new(), tensors };
    let mut nodes = Vec::with_capacity(ops.len());
    for entry in ops {
        nodes.push(entry.node(&names)?);
        if names.ops.insert(&entry.name, nodes.len() - 1).is_some() {
            return Err(format!("two ops are called `{}`", entry.name));
        }
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Activation;

    fn read(text: &str) -> Result<Architecture> {
        architecture_from_toml(text, Path::new("a.toml"))
    }

    fn message(text: &str) -> String {
        let error = read(text).unwrap_err();
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error} {source}")
    }

    const RESIDUAL: &str = r#"
name = "residual"
tensors = [{ name = "w", shape = [3, 3] }]
ops = [
  { name = "x", input = { features = 3 } },
  { name = "h", linear = { of = "x", weight = "w" } },
  { name = "a", tanh = { of = "h" } },
  { name = "y", add = { of = ["x", "a"] } },
]
"#;

    #[test]
    fn graphs_round_trip() {
        for widths in [&[4, 3][..], &[784, 32, 32, 10], &[64, 16, 10]] {
            let mlp = Architecture::mlp("an \"odd\" name\n", widths, Activation::Gelu).unwrap();
            assert_eq!(read(&architecture_to_toml(&mlp)).unwrap(), mlp);
        }
        let residual = read(RESIDUAL).unwrap();
        assert_eq!(residual.widths(), [3, 3, 3, 3]);
        assert_eq!(read(&architecture_to_toml(&residual)).unwrap(), residual);
    }

    #[test]
    fn every_family_round_trips_as_ops_and_as_sizes() {
        let families = weft_testkit::tiny_family_sizes();
        for (architecture, (name, family)) in weft_testkit::tiny_families().iter().zip(&families) {
            let text = architecture_to_toml(architecture);
            assert_eq!(read(&text).unwrap(), **architecture, "{text}");
            assert_eq!(family_from_toml(&text, Path::new("a.toml")).unwrap(), None);
            let text = family_to_toml(name, family);
            assert_eq!(family_from_toml(&text, Path::new("a.toml")).unwrap().as_ref(), Some(family), "{text}");
            assert_eq!(read(&text).unwrap(), **architecture, "{text}");
        }
    }

    /// Every op that no family has; with the test above, none is left out.
    #[test]
    fn the_other_ops_round_trip() {
        let text = r#"
name = "rest"
tensors = [{ name = "c", shape = [4, 1, 1, 3] }, { name = "w", shape = [2, 6] }]
ops = [
  { name = "x", input = { shape = [2, 4, 6] } },
  { name = "c", conv2d = { of = "x", weight = "c", stride = [1, 2], padding = [0, 1], groups = 2 } },
  { name = "p", avg-pool = { of = "c", size = [2, 1] } },
  { name = "m", max-pool = { of = "p", size = [2, 3], stride = [1, 1], padding = [1, 1] } },
  { name = "t", patches = { of = "m" } },
  { name = "s", slice = { of = "t", start = 1, len = 3 } },
  { name = "r", rms-norm = { of = "s", epsilon = 1e-6 } },
  { name = "n", layer-norm = { of = "s", epsilon = 0.25 } },
  { name = "a", attention = { of = ["r", "n", "s"], heads = 3, causal = true } },
  { name = "b", concat = { of = ["a", "s"] } },
  { name = "g", sigmoid = { of = "b" } },
  { name = "k", clip = { of = "g", min = -inf, max = 3 } },
  { name = "l", linear = { of = "k", weight = "w" } },
  { name = "y", global-avg-pool = { of = "l" } },
]
"#;
        let architecture = read(text).unwrap();
        assert_eq!(architecture.shapes()[3..6], [vec![4, 3, 3], vec![9, 4], vec![9, 3]]);
        assert_eq!(read(&architecture_to_toml(&architecture)).unwrap(), architecture);
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        const VIT: &str = "name = \"v\"\n[family.vit]\nimage = [1, 8, 8]\npatch = 4\nd-model = 8\ndepth = 2\nnum-heads = 2\n\
                           d-hidden = 16\nnum-classes = 3\n";
        read(VIT).unwrap();
        let check = |from: &str, to: &str, expected: &str| {
            let text = VIT.replacen(from, to, 1);
            assert_ne!(text, VIT, "`{from}` is not in the text");
            assert!(message(&text).contains(expected), "{}", message(&text));
        };
        check("num-heads", "num_heads", "line 7");
        check("patch = 4", "patch = -4", "line 4");
        check("patch = 4", "patch = 4\npatch = 4", "line 5");
        check("[family.vit]", "[family.vti]", "line 2");
        check("[family.vit]", "tensors = []\n[family.vit]", "either `tensors` and `ops`, or one");
        check("patch = 4", "patch = 3", "`patch`");
        check("depth = 2", "depth = 9223372036854775807", "`depth`");
        check("d-model = 8", "d-model = 9223372036854775806", "`d-model`");
        check("num-heads = 2", "num-heads = 3", "`d-model`");
        check("[1, 8, 8]", "[9223372036854775807, 8, 8]", "above");
        let resnet = "name = \"r\"\n[family.resnet]\nimage = [1, 8, 8]\nstem = { size = [3, 3] }\nstem-pool = false\n\
                      blocks = 4096\nnum-classes = 2\nwidths = [1, 1, 1, 1]\n";
        assert!(message(resnet).contains("`blocks`"), "{}", message(resnet));
        assert!(message("name = \"x\"\n").contains("either"));
        assert!(message("name = \"x\"\n[family.mlp]\nwidths = [2, 1]\nactivation = \"rleu\"\n").contains("line 4"));
    }

    #[test]
    fn bad_files_are_refused_with_a_place_or_a_name() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = RESIDUAL.replacen(from, to, 1);
            assert_ne!(text, RESIDUAL, "`{from}` is not in the text");
            assert!(message(&text).contains(expected), "{}", message(&text));
        };
        check("tanh", "tahn", "line 7");
        check("tanh = { of = \"h\" }", "tanh = { of = \"h\" }, relu = { of = \"h\" }", "has 2");
        check("tanh = { of = \"h\" } }", "tanh = { of = \"h\" }", "line");
        check(", tanh = { of = \"h\" }", "", "has 0");
        check("of = \"x\"", "of = \"y\"", "no earlier op is called");
        check("weight = \"w\"", "weight = \"v\"", "not declared");
        check("name = \"a\"", "name = \"h\"", "two ops are called");
        check("[3, 3]", "[3, 18446744073709551615]", "above");
        check("[3, 3]", "[3, -3]", "line 3");
        check("[3, 3]", "[3, 9223372036854775807]", "above");
        check("[3, 3]", "[0, 9223372036854775807]", "is empty");
        check("[3, 3]", "[3, 4]", "as long as its input");
        check("name = \"residual\"", "naem = \"residual\"", "line 2");
    }
}
