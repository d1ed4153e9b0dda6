//! Constants of a model: decoding them, from the model or from files beside it.

use super::OnnxFault;
use super::proto::TensorProto;
use crate::atomic::parent_of;
use crate::source::f16_to_f32;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// ONNX's numbers of element types.
pub(super) mod dtype {
    pub(in super::super) const F32: i32 = 1;
    pub(in super::super) const U8: i32 = 2;
    pub(in super::super) const I8: i32 = 3;
    pub(in super::super) const I32: i32 = 6;
    pub(in super::super) const I64: i32 = 7;
    pub(in super::super) const BOOL: i32 = 9;
    pub(in super::super) const F16: i32 = 10;
    pub(in super::super) const F64: i32 = 11;
    pub(in super::super) const BF16: i32 = 16;

    /// Whether weights may have the type.
    pub(in super::super) fn is_float(dtype: i32) -> bool {
        matches!(dtype, F32 | F16 | F64 | BF16)
    }

    /// Bytes a value, of the types that are read.
    pub(in super::super) fn size(dtype: i32) -> Option<usize> {
        match dtype {
            U8 | I8 | BOOL => Some(1),
            F16 | BF16 => Some(2),
            F32 | I32 => Some(4),
            F64 | I64 => Some(8),
            _ => None,
        }
    }
}

/// Values of a constant; all floats become `f32`, all integers `i64`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Values {
    Float(Arc<[f32]>),
    Int(Arc<[i64]>),
}

impl Values {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Float(values) => values.len(),
            Self::Int(values) => values.len(),
        }
    }
}

/// Where external data may lie, and how much of each file has been read.
pub(super) struct Folder {
    path: Option<PathBuf>,
    taken: BTreeMap<PathBuf, u64>,
}

impl Folder {
    /// The folder of a model's file.
    pub(super) fn beside(model: &Path) -> Self {
        Self { path: Some(parent_of(model).to_owned()), taken: BTreeMap::new() }
    }

    /// None: external data are refused.
    pub(super) fn nowhere() -> Self {
        Self { path: None, taken: BTreeMap::new() }
    }

    /// A tensor's values as little-endian bytes of its own type, however it stores them.
    pub(super) fn raw_bytes(&mut self, tensor: &TensorProto, name: &str) -> Result<Vec<u8>, OnnxFault> {
        let (_, bytes) = size_of(tensor, name)?;
        let raw = if is_external(tensor) {
            self.read(tensor, name, bytes)?
        } else if !tensor.raw_data.is_empty() {
            tensor.raw_data.to_vec()
        } else {
            match tensor.data_type {
                dtype::F32 => tensor.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
                dtype::F64 => tensor.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
                _ => tensor.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect(),
            }
        };
        if raw.len() == bytes { Ok(raw) } else { Err(size_fault(tensor, name, "it has another number of values")) }
    }
}

fn size_fault(tensor: &TensorProto, name: &str, reason: &'static str) -> OnnxFault {
    OnnxFault::Size { tensor: name.to_owned(), shape: tensor.dims.clone(), reason }
}

/// Whether a tensor's data lie in a file of their own.
pub(super) fn is_external(tensor: &TensorProto) -> bool {
    tensor.data_location == 1 || !tensor.external_data.is_empty()
}

/// A tensor's shape and its length in bytes, if its type is read.
fn size_of(tensor: &TensorProto, name: &str) -> Result<(Vec<usize>, usize), OnnxFault> {
    let dtype = tensor.data_type;
    let size = dtype::size(dtype).ok_or_else(|| OnnxFault::Dtype { tensor: name.to_owned(), dtype })?;
    let fail = || size_fault(tensor, name, "its axes are negative or their product is too large");
    let shape: Option<Vec<usize>> = tensor.dims.iter().map(|&axis| usize::try_from(axis).ok()).collect();
    let shape = shape.ok_or_else(fail)?;
    // As if no axis were empty: then the product of any of them, in any order, fits.
    let most = shape.iter().try_fold(size, |bytes, &axis| bytes.checked_mul(axis.max(1))).ok_or_else(fail)?;
    let bytes = if shape.contains(&0) { 0 } else { most };
    Ok((shape, bytes))
}

/// Decodes a tensor that the graph calls `name`; no more is allocated than its data have bytes.
pub(super) fn decode(tensor: &TensorProto, name: &str, folder: &mut Folder) -> Result<(Vec<usize>, Values), OnnxFault> {
    let dtype = tensor.data_type;
    let (shape, bytes) = size_of(tensor, name)?;
    let count = shape.iter().product::<usize>();
    let values = if is_external(tensor) {
        from_bytes(dtype, &folder.read(tensor, name, bytes)?)
    } else if tensor.raw_data.is_empty() {
        from_fields(tensor)
    } else if tensor.raw_data.len() == bytes {
        from_bytes(dtype, &tensor.raw_data)
    } else {
        return Err(size_fault(tensor, name, "its raw data have another length"));
    };
    if values.len() == count { Ok((shape, values)) } else { Err(size_fault(tensor, name, "it has another number of values")) }
}

/// Values that stand one by one in the field of their type.
fn from_fields(tensor: &TensorProto) -> Values {
    let half = |convert: fn(u16) -> f32| Values::Float(tensor.int32_data.iter().map(|&bits| convert(bits as u16)).collect());
    match tensor.data_type {
        dtype::F32 => Values::Float(tensor.float_data.as_slice().into()),
        dtype::F64 => Values::Float(tensor.double_data.iter().map(|&v| v as f32).collect()),
        dtype::F16 => half(f16_to_f32),
        dtype::BF16 => half(bf16_to_f32),
        dtype::I64 => Values::Int(tensor.int64_data.as_slice().into()),
        _ => Values::Int(tensor.int32_data.iter().map(|&v| i64::from(v)).collect()),
    }
}

/// Values as little-endian bytes.
pub(super) fn from_bytes(dtype: i32, bytes: &[u8]) -> Values {
    match dtype {
        dtype::F32 => Values::Float(each(bytes, f32::from_le_bytes)),
        dtype::F64 => Values::Float(each(bytes, |b| f64::from_le_bytes(b) as f32)),
        dtype::F16 => Values::Float(each(bytes, |b| f16_to_f32(u16::from_le_bytes(b)))),
        dtype::BF16 => Values::Float(each(bytes, |b| bf16_to_f32(u16::from_le_bytes(b)))),
        dtype::I64 => Values::Int(each(bytes, i64::from_le_bytes)),
        dtype::I32 => Values::Int(each(bytes, |b| i64::from(i32::from_le_bytes(b)))),
        dtype::I8 => Values::Int(each(bytes, |b| i64::from(i8::from_le_bytes(b)))),
        _ => Values::Int(each(bytes, |b: [u8; 1]| i64::from(b[0]))),
    }
}

fn each<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Arc<[T]> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| convert(*chunk)).collect()
}

fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

impl Folder {
    /// Reads the `expected` bytes of a tensor with external data.
    pub(super) fn read(&mut self, tensor: &TensorProto, name: &str, expected: usize) -> Result<Vec<u8>, OnnxFault> {
        let entry = |key: &str| tensor.external_data.iter().rfind(|entry| entry.key == key).map(|entry| entry.value.as_str());
        let location = entry("location").unwrap_or_default();
        let fail = |reason: String| OnnxFault::External { tensor: name.to_owned(), location: location.to_owned(), reason };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.parse::<u64>().map(Some).map_err(|_| fail(format!("its {key} is not a number"))),
        };
        let (offset, length) = (number("offset")?.unwrap_or(0), number("length")?);
        if length.is_some_and(|length| length != expected as u64) {
            return Err(fail(format!("its length is not the {expected} bytes of its shape")));
        }
        let path = self.resolve(location).map_err(|reason| fail(reason.to_owned()))?;
        let system = |error: std::io::Error| fail(error.to_string());
        let mut file = File::open(&path).map_err(system)?;
        let metadata = file.metadata().map_err(system)?;
        let end = offset.checked_add(expected as u64);
        if !metadata.is_file() || end.is_none_or(|end| end > metadata.len()) {
            return Err(fail(format!("the file does not have {expected} bytes from byte {offset}")));
        }
        // Many tensors that name the same bytes would fill the memory from a small file.
        let taken = self.taken.entry(path).or_default();
        *taken = taken.saturating_add(expected as u64);
        if *taken > metadata.len() {
            return Err(fail("the model's tensors claim more bytes than the file has".to_owned()));
        }
        let mut bytes = vec![0; expected];
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(system)?;
        Ok(bytes)
    }

    /// The path of a location, which must lie in the model's folder, links resolved.
    fn resolve(&self, location: &str) -> Result<PathBuf, &'static str> {
        let folder = self.path.as_ref().ok_or("there is no folder to look in, only bytes")?;
        let relative = Path::new(location);
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || !relative.components().all(inside) {
            return Err("it must be a relative path without `..`");
        }
        let folder = folder.canonicalize().map_err(|_| "the model's folder cannot be resolved")?;
        let path = folder.join(relative).canonicalize().map_err(|_| "there is no such file beside the model")?;
        if path.starts_with(&folder) { Ok(path) } else { Err("a link leads out of the model's folder") }
    }
}
