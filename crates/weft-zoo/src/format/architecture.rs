//! Architectures as TOML: tensors in the order of the flat row, and ops in topological order.
//!
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
//!
//! An op is a table with its own name and one key that says what it computes, so that a misspelt kind is
//! reported at its own line and column. It names earlier ops as its inputs.

use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use weft_core::{Activation, Architecture, Node, Op};

/// More weights than any architecture may declare; it keeps sums of sizes from overflowing.
const MAX_PARAMETERS: u64 = 1 << 40;

/// Reads an architecture from TOML; `origin` is named in errors.
///
/// # Errors
/// [`Error::Toml`] with line and column for a syntax error or an unknown key, or with the name of the op or tensor
/// that is wrong; [`Error::Domain`] for a graph that does not fit together.
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
    let fail = |e: toml::de::Error| Error::Toml { path: origin.to_owned(), reason: e.to_string().trim_end().to_owned() };
    toml::from_str::<ArchitectureFile>(text).map_err(fail)?.check(origin)
}

/// Reads an architecture file.
///
/// # Errors
/// [`Error::Io`], and those of [`architecture_from_toml`].
pub fn read_architecture(path: &Path) -> Result<Architecture> {
    architecture_from_toml(&super::read_text(path)?, path)
}

/// Writes an architecture as TOML that reads back to an equal one.
///
/// The text has no table headers, so it can also stand below one.
#[must_use]
pub fn architecture_to_toml(architecture: &Architecture) -> String {
    let quote = |text: &str| toml::Value::from(text).to_string();
    let mut text = format!("name = {}\ntensors = [\n", quote(architecture.name()));
    for tensor in architecture.tensors() {
        let _ = writeln!(text, "  {{ name = {}, shape = {:?} }},", quote(&tensor.name), tensor.shape);
    }
    text.push_str("]\nops = [\n");
    let names: Vec<String> = architecture.nodes().iter().enumerate().map(|(i, node)| node_name(i, &node.op)).collect();
    for (node, name) in architecture.nodes().iter().zip(&names) {
        let input = |i: usize| quote(&names[node.inputs[i]]);
        let tensor = |id: usize| quote(&architecture.tensors()[id].name);
        let body = match &node.op {
            Op::Input { shape } => format!("input = {{ features = {} }}", shape[0]),
            Op::Linear { weight, bias } => {
                let bias = bias.map(|b| format!(", bias = {}", tensor(b))).unwrap_or_default();
                format!("linear = {{ of = {}, weight = {}{bias} }}", input(0), tensor(*weight))
            }
            Op::Activation(activation) => format!("{} = {{ of = {} }}", activation.name(), input(0)),
            Op::Add => format!("add = {{ of = [{}, {}] }}", input(0), input(1)),
            other => format!("{} = {{ }}", other.name()),
        };
        let _ = writeln!(text, "  {{ name = {}, {body} }},", quote(name));
    }
    text.push_str("]\n");
    text
}

/// A node's name in a file; the domain knows nodes by their index alone.
fn node_name(index: usize, op: &Op) -> String {
    match op {
        Op::Input { .. } => "input".to_owned(),
        Op::Linear { .. } => format!("linear-{index}"),
        Op::Activation(activation) => format!("{}-{index}", activation.name()),
        other => format!("{}-{index}", other.name()),
    }
}

/// An architecture as it stands in a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct ArchitectureFile {
    name: String,
    tensors: Vec<TensorEntry>,
    ops: Vec<OpEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorEntry {
    name: String,
    shape: Vec<u64>,
}

/// A name and exactly one of the kinds.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OpEntry {
    name: String,
    input: Option<InputEntry>,
    linear: Option<LinearEntry>,
    relu: Option<UnaryEntry>,
    tanh: Option<UnaryEntry>,
    gelu: Option<UnaryEntry>,
    silu: Option<UnaryEntry>,
    sigmoid: Option<UnaryEntry>,
    add: Option<AddEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputEntry {
    features: usize,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinearEntry {
    of: String,
    weight: String,
    bias: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UnaryEntry {
    of: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AddEntry {
    of: [String; 2],
}

impl ArchitectureFile {
    /// Resolves names and builds the checked graph.
    pub(crate) fn check(self, origin: &Path) -> Result<Architecture> {
        let fail = |reason| Error::Toml { path: origin.to_owned(), reason };
        let tensors = self.tensors.iter().map(|t| (t.name.as_str(), &t.shape));
        let mut total: u64 = 0;
        for (name, shape) in tensors {
            let size = shape.iter().try_fold(1u64, |size, &axis| size.checked_mul(axis));
            // A size of 0 would let an axis be absurd without the product showing it.
            total =
                size.filter(|&s| s > 0).and_then(|s| total.checked_add(s)).filter(|&t| t <= MAX_PARAMETERS).ok_or_else(|| {
                    fail(format!(
                        "tensor `{name}` of shape {shape:?} is empty, or brings the architecture above {MAX_PARAMETERS} weights"
                    ))
                })?;
        }
        let ids: BTreeMap<&str, usize> = self.tensors.iter().enumerate().map(|(i, t)| (t.name.as_str(), i)).collect();
        let mut indices: BTreeMap<&str, usize> = BTreeMap::new();
        let mut nodes = Vec::with_capacity(self.ops.len());
        for entry in &self.ops {
            let op = |name: &String| {
                let known = indices.get(name.as_str()).copied();
                known.ok_or_else(|| format!("op `{}` reads `{name}`, which no earlier op is called", entry.name))
            };
            let tensor = |name: &String| {
                let known = ids.get(name.as_str()).copied();
                known.ok_or_else(|| format!("op `{}` uses the tensor `{name}`, which is not declared", entry.name))
            };
            nodes.push(entry.node(op, tensor).map_err(fail)?);
            if indices.insert(&entry.name, nodes.len() - 1).is_some() {
                return Err(fail(format!("two ops are called `{}`", entry.name)));
            }
        }
        let tensors = self.tensors.iter().map(|t| (t.name.clone(), t.shape.iter().map(|&axis| axis as usize).collect())).collect();
        Architecture::new(&self.name, tensors, nodes)
            .map_err(|source| Error::Domain { origin: format!("`{}`", origin.display()), source })
    }
}

impl OpEntry {
    fn node(
        &self,
        op: impl Fn(&String) -> Result<usize, String>,
        tensor: impl Fn(&String) -> Result<usize, String>,
    ) -> Result<Node, String> {
        let mut nodes = Vec::new();
        if let Some(input) = &self.input {
            nodes.push(Node { op: Op::Input { shape: vec![input.features] }, inputs: vec![] });
        }
        if let Some(linear) = &self.linear {
            let bias = linear.bias.as_ref().map(&tensor).transpose()?;
            nodes.push(Node { op: Op::Linear { weight: tensor(&linear.weight)?, bias }, inputs: vec![op(&linear.of)?] });
        }
        let unary = [
            (&self.relu, Activation::Relu),
            (&self.tanh, Activation::Tanh),
            (&self.gelu, Activation::Gelu),
            (&self.silu, Activation::Silu),
            (&self.sigmoid, Activation::Sigmoid),
        ];
        for (entry, activation) in unary {
            if let Some(entry) = entry {
                nodes.push(Node { op: Op::Activation(activation), inputs: vec![op(&entry.of)?] });
            }
        }
        if let Some(AddEntry { of: [a, b] }) = &self.add {
            nodes.push(Node { op: Op::Add, inputs: vec![op(a)?, op(b)?] });
        }
        let count = nodes.len();
        let only = nodes.pop().filter(|_| count == 1);
        only.ok_or_else(|| format!("op `{}` must have one kind, it has {count}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
