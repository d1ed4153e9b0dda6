//! Checkpoints of `PyTorch`, through crate `pytorch-reader`.
//!
//! That crate executes nothing and bounds most of what it allocates. Here, before it sees a file, the archive's
//! directory and every pickle are checked ([`super::archive`], [`super::pickle`]); afterwards, that its tensors are
//! not larger than the file that they come from (a view may repeat one value without end).

use super::archive::{Entry, Method, read_directory};
use super::pickle::{MAX_PICKLE_BYTES, check_pickle};
use super::{Place, Source, SourceDtype, SourceFault, SourceFormat, SourceTensor};
use crate::mapped::MappedFile;
use crate::tensors::Metadata;
use crate::{Error, Result};
use pytorch_reader::{DType, PickleValue, PytorchReader, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The end of the name of an archive's pickle.
pub(super) const PICKLE: &str = "data.pkl";

/// Names under which training programs keep the weights, the likeliest first.
const CONTAINERS: [&str; 8] = ["state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params"];

/// How deep containers are looked for in one another.
const MAX_CONTAINERS: usize = 4;

/// All tensors together may have this many times the bytes of their file: storages may be shared, not without end.
const MAX_SHARING: u64 = 16;

/// The longest text of a checkpoint that is kept as metadata.
const MAX_TEXT_BYTES: usize = 1024;

pub(super) fn open(path: &Path) -> Result<Source> {
    let fail = |fault| Error::Source { path: path.to_owned(), format: SourceFormat::PyTorch, fault };
    let file = MappedFile::open(path)?;
    let data_bytes = check(file.bytes()).map_err(fail)?;
    let refused = |error: pytorch_reader::PytorchError| fail(SourceFault::malformed("it", error.to_string()));
    let tree = PytorchReader::read_pickle_data(path, None).map_err(refused)?;
    let PickleValue::Dict(root) = tree else {
        let what = "a checkpoint that is no dictionary is".to_owned();
        return Err(fail(SourceFault::NotRead { what, hint: "save `model.state_dict()`" }));
    };
    let tensors = PytorchReader::new(path).map_err(refused)?.into_tensors();
    if count_tensors(&root) != tensors.len() {
        return Err(fail(duplicate(&root)));
    }
    if tensors.is_empty() {
        return Err(fail(SourceFault::Empty));
    }
    check_sizes(&tensors, data_bytes).map_err(fail)?;
    let stripped: Vec<String> = container(&root).iter().map(|key| format!("{key}.")).collect();
    let prefix = stripped.concat();
    let inside = tensors.into_iter().filter(|(name, _)| name.starts_with(&prefix));
    let tensors: BTreeMap<_, _> = inside.map(|(name, tensor)| (name[prefix.len()..].to_owned(), place(name, tensor))).collect();
    let source = Source { metadata: metadata(&root), stripped, ..Source::new(path, SourceFormat::PyTorch, tensors) };
    Ok(source.normalized())
}

fn place(stored_name: String, tensor: Tensor) -> SourceTensor {
    let dtype = match tensor.dtype() {
        DType::F64 => SourceDtype::F64,
        DType::F32 => SourceDtype::F32,
        DType::F16 => SourceDtype::F16,
        DType::BF16 => SourceDtype::Bf16,
        DType::I64 => SourceDtype::I64,
        DType::I32 => SourceDtype::I32,
        DType::I16 => SourceDtype::I16,
        DType::I8 => SourceDtype::I8,
        DType::U64 => SourceDtype::U64,
        DType::U32 => SourceDtype::U32,
        DType::U16 => SourceDtype::U16,
        DType::U8 => SourceDtype::U8,
        DType::Bool => SourceDtype::Bool,
    };
    SourceTensor::new(stored_name, tensor.shape().to_vec(), dtype, Place::Torch(tensor))
}

/// Checks a file before it is interpreted; returns the number of bytes that tensors may lie in.
fn check(bytes: &[u8]) -> Result<u64, SourceFault> {
    if bytes.starts_with(b"PK") {
        return check_archive(bytes);
    }
    if bytes.get(257..262) == Some(b"ustar") {
        let what = "the tar archives of PyTorch before 0.1.10 are".to_owned();
        return Err(SourceFault::NotRead { what, hint: "load it in PyTorch and save it again" });
    }
    // The older format is a row of pickles: magic number, version, system, the object, the keys of its storages.
    // What is a pickle alone ends after the first.
    let mut at = check_pickle(bytes, 0)?;
    let is_legacy = bytes[..at.min(64)].windows(LEGACY_MAGIC.len()).any(|window| window == LEGACY_MAGIC);
    for _ in 1..if is_legacy { 5 } else { 1 } {
        at = check_pickle(bytes, at)?;
    }
    if !is_legacy {
        return Err(SourceFault::Empty);
    }
    Ok((bytes.len() - at) as u64)
}

/// The number 0x1950a86a20f9469cfc6c, with which the older format begins.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

fn check_archive(bytes: &[u8]) -> Result<u64, SourceFault> {
    let entries = read_directory(bytes)?;
    let mut pickles = entries.iter().filter(|entry| is_pickle(entry));
    let (Some(pickle), None) = (pickles.next(), pickles.next()) else {
        return Err(SourceFault::malformed("its zip directory", "there is not exactly one `data.pkl`"));
    };
    if pickle.expanded > MAX_PICKLE_BYTES as u64 {
        let what = "its pickle".to_owned();
        return Err(SourceFault::TooLarge { what, got: pickle.expanded, limit: MAX_PICKLE_BYTES as u64 });
    }
    let root = &pickle.name[..pickle.name.len() - PICKLE.len()];
    if let Some(other) = entries.iter().find(|entry| !entry.name.starts_with(root)) {
        return Err(SourceFault::malformed("its zip directory", format!("`{}` is not in the folder `{root}`", other.name)));
    }
    let compressed = entries.iter().find(|e| e.method == Method::Deflated && e.name[root.len()..].starts_with("data/"));
    if let Some(entry) = compressed {
        // Reading a window of it would expand all that is before.
        let what = format!("the compressed storage `{}` is", entry.name);
        return Err(SourceFault::NotRead { what, hint: "PyTorch itself compresses none; load it there and save it again" });
    }
    let end = check_pickle(&pickle.read(bytes)?, 0)?;
    if end as u64 != pickle.expanded {
        return Err(SourceFault::malformed("its pickle", "bytes follow its end"));
    }
    Ok(bytes.len() as u64)
}

/// Whether an entry is the pickle of an archive.
pub(super) fn is_pickle(entry: &Entry) -> bool {
    entry.name.strip_suffix(PICKLE).is_some_and(|root| root.is_empty() || root.ends_with('/'))
}

fn check_sizes(tensors: &HashMap<String, Tensor>, data_bytes: u64) -> Result<(), SourceFault> {
    let mut total = 0u64;
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(name, _)| *name);
    for (name, tensor) in sorted {
        let bytes = tensor.byte_len() as u64;
        total = total.saturating_add(bytes);
        let (what, got, limit) = if bytes > data_bytes {
            (format!("tensor `{name}`"), bytes, data_bytes)
        } else {
            ("what its tensors share".to_owned(), total, data_bytes.saturating_mul(MAX_SHARING))
        };
        if got > limit {
            return Err(SourceFault::TooLarge { what, got, limit });
        }
    }
    Ok(())
}

/// Whether a value is a tensor; this is the type by which crate `pytorch-reader` names one.
fn is_tensor(value: &PickleValue) -> bool {
    matches!(value, PickleValue::Unsupported(python_type) if python_type == "torch.Tensor")
}

fn count_tensors(dict: &HashMap<String, PickleValue>) -> usize {
    // A sum: the order of the entries does not matter.
    dict.values().map(count_in).sum()
}

fn count_in(value: &PickleValue) -> usize {
    match value {
        PickleValue::Dict(dict) => count_tensors(dict),
        PickleValue::List(items) => items.iter().map(count_in).sum(),
        other => usize::from(is_tensor(other)),
    }
}

/// The keys of the dictionaries that hold the weights, from the outermost.
fn container(mut dict: &HashMap<String, PickleValue>) -> Vec<String> {
    let mut keys = Vec::new();
    while keys.len() < MAX_CONTAINERS && !dict.values().any(is_tensor) {
        let inner = |key: &str| match dict.get(key) {
            Some(PickleValue::Dict(inner)) if count_tensors(inner) > 0 => Some(inner),
            _ => None,
        };
        let Some((key, inner)) = CONTAINERS.iter().find_map(|key| Some((*key, inner(key)?))) else { break };
        keys.push(key.to_owned());
        dict = inner;
    }
    keys
}

/// The first name that two tensors would share once dictionaries are flattened.
fn duplicate(root: &HashMap<String, PickleValue>) -> SourceFault {
    let mut seen = std::collections::BTreeSet::new();
    let mut open: Vec<(String, &PickleValue)> = root.iter().map(|(key, value)| (key.clone(), value)).collect();
    let mut twice: Vec<String> = Vec::new();
    while let Some((name, value)) = open.pop() {
        match value {
            PickleValue::Dict(dict) => open.extend(dict.iter().map(|(key, value)| (format!("{name}.{key}"), value))),
            PickleValue::List(items) => open.extend(items.iter().enumerate().map(|(i, value)| (format!("{name}.{i}"), value))),
            value if is_tensor(value) && seen.contains(&name) => twice.push(name),
            value if is_tensor(value) => _ = seen.insert(name),
            _ => {}
        }
    }
    SourceFault::Duplicate { name: twice.into_iter().min().unwrap_or_default() }
}

/// Plain values beside the weights, such as `epoch`.
fn metadata(root: &HashMap<String, PickleValue>) -> Metadata {
    let text = |value: &PickleValue| match value {
        PickleValue::Bool(value) => Some(value.to_string()),
        PickleValue::Int(value) => Some(value.to_string()),
        PickleValue::Float(value) => Some(value.to_string()),
        PickleValue::String(text) if text.len() <= MAX_TEXT_BYTES => Some(text.clone()),
        _ => None,
    };
    root.iter().filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect()
}
