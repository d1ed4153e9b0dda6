//! Files of named tensors: reading any, and writing them whole.

use crate::Result;
use crate::atomic::{AtomicFile, parent_of};
use crate::mapped::Mapped;
use std::collections::BTreeMap;
use std::path::Path;

/// The free text entries of a safetensors file.
pub type Metadata = BTreeMap<String, String>;

/// The contents of a safetensors file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TensorFile {
    /// Shape and values, row-major, by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// Its text entries.
    pub metadata: Metadata,
}

/// Reads all tensors of a safetensors file; F64, F16 and BF16 are converted to `f32`.
///
/// # Errors
/// [`crate::Error::Io`], [`crate::Error::Header`] with the first breach of the format, or [`crate::Error::Tensor`] for
/// a tensor that is not of floats. Values are not checked: an artifact
/// may hold NaN on purpose.
pub fn read_tensors(path: &Path) -> Result<TensorFile> {
    let file = Mapped::open(path)?;
    let header = file.header();
    let mut tensors = BTreeMap::new();
    for (name, info) in &header.tensors {
        info.check_float().map_err(|fault| file.fault(name, fault))?;
        tensors.insert(name.clone(), (info.shape.clone(), file.read(name, info)?));
    }
    Ok(TensorFile { tensors, metadata: header.metadata.clone() })
}

/// Writes tensors as a safetensors file of F32, atomically: the file is whole or as it was before.
///
/// The same tensors and metadata give the same bytes.
///
/// # Errors
/// [`crate::Error::Io`].
///
/// # Panics
/// If a shape does not have as many values as are given, or a name stands twice.
pub fn write_tensors(path: &Path, tensors: &[(String, Vec<usize>, &[f32])], metadata: &Metadata) -> Result<()> {
    stage_tensors(parent_of(path), tensors, metadata)?.commit(path)
}

/// Writes what [`write_tensors`] does into a temporary file of a folder.
pub(crate) fn stage_tensors(folder: &Path, tensors: &[(String, Vec<usize>, &[f32])], metadata: &Metadata) -> Result<AtomicFile> {
    let declared: Vec<_> = tensors.iter().map(|(name, shape, _)| (name.as_str(), shape.clone())).collect();
    for (name, shape, values) in tensors {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "tensor `{name}`: shape and values disagree");
    }
    let mut file = AtomicFile::create_in(folder)?;
    file.write(&encode_header(&declared, metadata))?;
    let mut buffer = Vec::new();
    for (_, _, values) in tensors {
        for chunk in values.chunks(1 << 16) {
            file.write(little_endian(chunk, &mut buffer))?;
        }
    }
    Ok(file)
}

/// The bytes of `values`, in a buffer that is used again.
pub(crate) fn little_endian<'a>(values: &[f32], buffer: &'a mut Vec<u8>) -> &'a [u8] {
    buffer.resize(4 * values.len(), 0);
    for (bytes, value) in buffer.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *bytes = value.to_le_bytes();
    }
    buffer
}

/// Length prefix and header of a file that holds the declared tensors as F32, in that order.
///
/// The header is padded so that the data start at a multiple of 8 bytes.
pub(crate) fn encode_header(tensors: &[(&str, Vec<usize>)], metadata: &Metadata) -> Vec<u8> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut entries = Vec::with_capacity(tensors.len() + 1);
    if !metadata.is_empty() {
        let pairs: Vec<String> = metadata.iter().map(|(k, v)| format!("{}:{}", quote(k), quote(v))).collect();
        entries.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
    }
    let mut offset = 0;
    for (name, shape) in tensors {
        let end = offset + 4 * shape.iter().product::<usize>();
        let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let shape = axes.join(",");
        entries.push(format!("{}:{{\"dtype\":\"F32\",\"shape\":[{shape}],\"data_offsets\":[{offset},{end}]}}", quote(name)));
        offset = end;
    }
    let mut json = format!("{{{}}}", entries.join(",")).into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    header
}

/// The index of the first value that is not finite.
pub(crate) fn first_non_finite(values: &[f32]) -> Option<usize> {
    const BLOCK: usize = 1 << 10;
    // A whole block at a time, without a way out in between: that is many values an instruction.
    let is_finite = |block: &[f32]| block.iter().fold(true, |finite, value| finite & value.is_finite());
    let block = values.chunks(BLOCK).position(|block| !is_finite(block))?;
    values[block * BLOCK..].iter().position(|value| !value.is_finite()).map(|i| block * BLOCK + i)
}
