//! Architectures: what is known, what a file declares, and what a file of weights is.

use crate::Result;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft_canon::Group;
use weft_core::{Architecture, Node};
pub use weft_zoo::Hints;
use weft_zoo::onnx::read_onnx;
use weft_zoo::{Inferred, Source};

/// A family, of which instances are declared by their sizes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FamilyView {
    /// Its name: the table `[family.NAME]` of an architecture file.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// The sizes that a file must or may give.
    pub sizes: &'static [&'static str],
}

/// A built-in architecture.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InstanceView {
    /// Its name.
    pub name: String,
    /// Its family, or `ops` if its file spells out every op.
    pub family: &'static str,
    /// The number of weights, running statistics included.
    pub num_parameters: usize,
    /// The first line of its file.
    pub summary: String,
}

/// All that needs no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Families.
    pub families: Vec<FamilyView>,
    /// Built-in architectures.
    pub architectures: Vec<InstanceView>,
}

/// The families' sizes, as their tables in a file name them.
const FAMILIES: [(&str, &str, &[&str]); 9] = [
    ("mlp", "linear maps and an activation", &["widths", "activation"]),
    (
        "cnn",
        "convolutions, pools and linear maps",
        &["image", "layers (out, size, stride, padding, batch-norm, max-pool, avg-pool)", "hidden", "num-classes", "activation"],
    ),
    ("resnet", "basic blocks with batch norm", &["image", "stem", "stem-pool", "widths", "blocks", "num-classes"]),
    ("vit", "a vision transformer", &["image", "patch", "d-model", "depth", "num-heads", "d-hidden", "num-classes"]),
    (
        "bert",
        "a post-norm text encoder",
        &["vocabulary", "length", "segments", "d-model", "depth", "num-heads", "d-hidden", "pooler"],
    ),
    (
        "gpt",
        "a pre-norm decoder with learned positions",
        &["vocabulary", "length", "d-model", "depth", "num-heads", "d-hidden", "tied"],
    ),
    (
        "llama",
        "a decoder with RMS norm, rotary positions, grouped queries and SwiGLU",
        &["vocabulary", "length", "d-model", "depth", "num-heads", "num-kv-heads", "d-hidden", "tied", "theta", "pairs", "epsilon"],
    ),
    ("automaton", "one step of a texture automaton", &["channels", "width", "image"]),
    ("lora", "low-rank updates of another network", &["modules (name, fan-in, fan-out, rank, scaling)"]),
];

/// Lists families and built-in architectures.
///
/// # Errors
/// None that a user can cause: the files are part of the program.
pub fn list() -> Result<Known> {
    let families = FAMILIES.map(|(name, summary, sizes)| FamilyView { name, summary, sizes }).to_vec();
    let mut architectures = Vec::new();
    for name in weft_zoo::instance_names() {
        let text = weft_zoo::instance_text(name).unwrap_or_default();
        let family = weft_zoo::family_from_toml(text, Path::new(name))?.map_or("ops", |family| family.name());
        let summary = text.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default().to_owned();
        let num_parameters = weft_zoo::find_architecture(Path::new(name))?.num_parameters();
        architectures.push(InstanceView { name: name.to_owned(), family, num_parameters, summary });
    }
    Ok(Known { families, architectures })
}

/// An architecture in full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ArchitectureView {
    /// Its name.
    pub name: String,
    /// The number of weights, running statistics included.
    pub num_parameters: usize,
    /// The tensors, in the order of the flat row.
    pub tensors: Vec<TensorView>,
    /// The ops, in topological order; the first is the input.
    pub ops: Vec<OpView>,
    /// Sets of hidden units that may be renamed together.
    pub spaces: Vec<SpaceView>,
    /// The symmetry group, for people.
    pub group: String,
}

/// A declared tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TensorView {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// An op.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OpView {
    /// What it computes.
    pub kind: &'static str,
    /// The ops that it reads, by index.
    pub of: Vec<usize>,
    /// The tensors that it uses.
    pub tensors: Vec<String>,
    /// The shape of its output, without the batch axis.
    pub shape: Vec<usize>,
}

/// A set of hidden units.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SpaceView {
    /// Named after the first tensor that writes to it.
    pub name: String,
    /// The number of units.
    pub size: usize,
}

/// Shows an architecture, built-in or from a file.
///
/// # Errors
/// It is neither, or the file is refused.
///
/// # Examples
/// ```
/// let view = weft::arch::show("mlp-64-16-10".as_ref()).unwrap();
/// assert_eq!((view.num_parameters, view.tensors.len(), view.spaces[0].size), (1_210, 4, 16));
/// ```
pub fn show(name_or_file: &Path) -> Result<ArchitectureView> {
    Ok(view(weft_zoo::find_architecture(name_or_file)?))
}

fn view(architecture: Architecture) -> ArchitectureView {
    let architecture = Arc::new(architecture);
    let group = Group::derive(architecture.clone());
    let tensors = architecture.tensors();
    let op = |(node, shape): (&Node, &Vec<usize>)| OpView {
        kind: node.op.name(),
        of: node.inputs.clone(),
        tensors: node.op.tensors().iter().map(|&(id, _)| tensors[id].name.clone()).collect(),
        shape: shape.clone(),
    };
    ArchitectureView {
        name: architecture.name().to_owned(),
        num_parameters: architecture.num_parameters(),
        tensors: tensors.iter().map(|t| TensorView { name: t.name.clone(), shape: t.shape.clone() }).collect(),
        ops: architecture.nodes().iter().zip(architecture.shapes()).map(op).collect(),
        spaces: group.spaces().iter().map(|s| SpaceView { name: s.name.clone(), size: s.size }).collect(),
        group: group.to_string(),
    }
}

/// How a file's tensors are an architecture's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckView {
    /// The file.
    pub file: PathBuf,
    /// Its format.
    pub format: &'static str,
    /// The number of networks in it.
    pub networks: usize,
    /// The architecture's name.
    pub architecture: String,
    /// Whose names its tensors have.
    pub naming: String,
    /// The tensors that hold weights.
    pub tensors: usize,
    /// Tensors that repeat others.
    pub repeated: Vec<String>,
    /// Tensors that are no weights.
    pub ignored: Vec<String>,
}

/// Checks that a file has the tensors of an architecture, under whatever names, and reads them all.
///
/// # Errors
/// The file cannot be read, or its tensors do not fit: up to ten are named, each with its shape and the declared one.
pub fn check(file: &Path, architecture: &Path) -> Result<CheckView> {
    let architecture = weft_zoo::find_architecture(architecture)?;
    if weft_zoo::is_onnx(file) {
        let network = read_onnx(file)?;
        if !network.architecture.same_graph(&architecture) {
            return Err(crate::Error::Misfit {
                what: format!("`{}`", file.display()),
                other: format!("the architecture `{}`", architecture.name()),
                reason: format!("its graph is another, `{}`: `weft arch infer` shows it", network.architecture.name()),
            });
        }
        return Ok(of_onnx(file, &architecture));
    }
    let sources = weft_zoo::open_sources(file)?;
    let mut binding = None;
    for source in &sources {
        let found = weft_zoo::Binding::find(source, &architecture)?;
        found.bind(source, &architecture)?;
        binding = Some(found);
    }
    let Some(binding) = binding else { return Err(empty(file)) };
    Ok(checked(file, &sources, &architecture, &binding))
}

fn checked(file: &Path, sources: &[Source], architecture: &Architecture, binding: &weft_zoo::Binding) -> CheckView {
    CheckView {
        file: file.to_owned(),
        format: sources.first().map_or("", |source| source.format().name()),
        networks: sources.len(),
        architecture: architecture.name().to_owned(),
        naming: binding.naming().to_owned(),
        tensors: binding.stored().len(),
        repeated: binding.repeats().iter().map(|repeat| repeat.stored.name.clone()).collect(),
        ignored: binding.ignored().to_vec(),
    }
}

/// An ONNX model, whose graph says which tensor is which.
fn of_onnx(file: &Path, architecture: &Architecture) -> CheckView {
    CheckView {
        file: file.to_owned(),
        format: "onnx",
        networks: 1,
        architecture: architecture.name().to_owned(),
        naming: "its graph".to_owned(),
        tensors: architecture.tensors().len(),
        repeated: Vec::new(),
        ignored: Vec::new(),
    }
}

fn empty(file: &Path) -> crate::Error {
    crate::Error::NothingToImport { paths: vec![file.to_owned()] }
}

/// What a file was recognized as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InferView {
    /// How its tensors are the architecture's.
    pub check: CheckView,
    /// The family, or `ops` if none has just these ops.
    pub family: &'static str,
    /// What was assumed.
    pub notes: Vec<String>,
    /// The number of weights, running statistics included.
    pub num_parameters: usize,
    /// The architecture file.
    pub toml: String,
}

/// Tells the architecture of a file of weights.
///
/// # Errors
/// The file cannot be read, shows too little, or holds networks of several architectures.
pub fn infer(file: &Path, hints: &Hints) -> Result<InferView> {
    if weft_zoo::is_onnx(file) {
        return infer_onnx(file, hints);
    }
    let sources = weft_zoo::open_sources(file)?;
    let mut first: Option<Inferred> = None;
    for source in &sources {
        let inferred = weft_zoo::infer(source, hints)?;
        match &first {
            None => first = Some(inferred),
            Some(first) if first.architecture.same_graph(&inferred.architecture) => {}
            Some(first) => {
                return Err(crate::Error::Misfit {
                    what: format!("`{}` in `{}`", source.member().unwrap_or("a network"), file.display()),
                    other: "the first network there".to_owned(),
                    reason: format!("it is `{}`, the first is `{}`", inferred.architecture.name(), first.architecture.name()),
                });
            }
        }
    }
    let Some(Inferred { architecture, family, binding, notes }) = first else { return Err(empty(file)) };
    let toml = match &family {
        Some(family) => weft_zoo::family_to_toml(architecture.name(), family),
        None => weft_zoo::architecture_to_toml(&architecture),
    };
    Ok(InferView {
        check: checked(file, &sources, &architecture, &binding),
        family: family.as_ref().map_or("ops", |family| family.name()),
        notes,
        num_parameters: architecture.num_parameters(),
        toml,
    })
}

/// The graph of an ONNX model, under the name of a built-in architecture if it is that.
fn infer_onnx(file: &Path, hints: &Hints) -> Result<InferView> {
    let network = read_onnx(file)?;
    let mut notes = Vec::new();
    if let Some(head) = network.head {
        notes.push(format!("the architecture ends in logits; the {head:?} behind them is left out").to_lowercase());
    }
    let mut architecture = network.architecture;
    let mut built_in = weft_zoo::instance_names().into_iter().filter_map(|name| weft_zoo::find_architecture(Path::new(name)).ok());
    if let Some(same) = built_in.find(|built_in| built_in.same_graph(&architecture)) {
        notes.push(format!("it is the built-in `{}`", same.name()));
        architecture = same;
    }
    if let Some(name) = &hints.name {
        let tensors = architecture.tensors().iter().map(|spec| (spec.name.clone(), spec.shape.clone())).collect();
        architecture = Architecture::new(name, tensors, architecture.nodes().to_vec())?;
    }
    Ok(InferView {
        check: of_onnx(file, &architecture),
        family: "ops",
        notes,
        num_parameters: architecture.num_parameters(),
        toml: weft_zoo::architecture_to_toml(&architecture),
    })
}

/// Writes an architecture file.
///
/// # Errors
/// The file is there already, or cannot be written.
pub fn write(path: &Path, toml: &str) -> Result<()> {
    if path.exists() {
        let taken = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(crate::Error::io("write", path)(taken));
    }
    Ok(weft_zoo::write_atomic(path, toml.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_families_are_those_of_the_domain() {
        assert_eq!(FAMILIES.map(|(name, ..)| name), weft_core::families::Family::NAMES);
        let known = list().unwrap();
        assert!(known.architectures.iter().any(|a| a.name == "hexells" && a.family == "automaton" && a.num_parameters == 5_868));
        assert!(known.architectures.iter().all(|a| a.num_parameters > 0));
    }
}
