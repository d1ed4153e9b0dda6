//! The strict pass over a safetensors header.
//!
//! A file is `u64` length, JSON header, data. Nothing is believed before all of it is checked: names are
//! unique, each shape fills its bytes exactly, and the tensors tile the data without overlap, hole or rest.

use crate::pairs::Pairs;
use crate::source::SourceDtype;
use crate::tensors::Metadata;
use crate::{HeaderFault, TensorFault};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// The longest header that is read; the largest published models stay far below it.
pub(crate) const MAX_HEADER_BYTES: u64 = 25 << 20;

/// The length field before the header.
pub(crate) const PREFIX_BYTES: u64 = 8;

/// A tensor's place in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorInfo {
    pub(crate) dtype: SourceDtype,
    pub(crate) shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub(crate) range: Range<usize>,
}

impl TensorInfo {
    /// The number of values; it fits, because they fill bytes of a file.
    pub(crate) fn num_values(&self) -> usize {
        self.range.len() / self.dtype.size() as usize
    }

    /// Refuses a type whose values are no weights by themselves.
    pub(crate) fn check_float(&self) -> Result<(), TensorFault> {
        if self.dtype.is_float() {
            return Ok(());
        }
        Err(TensorFault::Dtype { dtype: self.dtype })
    }

    /// Compares the shape with a declared one.
    pub(crate) fn check_shape(&self, expected: &[usize]) -> Result<(), TensorFault> {
        if self.shape == expected {
            return Ok(());
        }
        Err(TensorFault::Shape { expected: expected.to_vec(), got: self.shape.clone() })
    }
}

/// A checked header.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Header {
    pub(crate) tensors: BTreeMap<String, TensorInfo>,
    pub(crate) metadata: Metadata,
}

/// Reads the length of the header from a file's first bytes and checks it against the file's length.
pub(crate) fn header_len(prefix: [u8; 8], file_len: u64) -> Result<u64, HeaderFault> {
    let got = u64::from_le_bytes(prefix);
    if got > MAX_HEADER_BYTES {
        return Err(HeaderFault::TooLong { got, limit: MAX_HEADER_BYTES });
    }
    if PREFIX_BYTES + got > file_len {
        return Err(HeaderFault::Truncated { expected: PREFIX_BYTES + got, got: file_len });
    }
    Ok(got)
}

impl Header {
    /// Parses and checks the JSON of a header that belongs to a file of `file_len` bytes.
    pub(crate) fn parse(json: &[u8], file_len: u64) -> Result<Self, HeaderFault> {
        if json.first() != Some(&b'{') {
            return Err(HeaderFault::Json { reason: "it does not begin with `{`".to_owned() });
        }
        let raw: RawHeader = serde_json::from_slice(json).map_err(|e| HeaderFault::Json { reason: e.to_string() })?;
        if raw.metadata.len() > 1 {
            return Err(HeaderFault::DuplicateKey { key: METADATA.to_owned() });
        }
        let metadata = raw.metadata.into_iter().flat_map(|pairs| pairs.0).collect::<Vec<_>>();
        refuse_repeated(metadata.iter().map(|(key, _)| key))?;
        refuse_repeated(raw.tensors.iter().map(|(name, _)| name))?;
        let data_start = PREFIX_BYTES + json.len() as u64;
        let mut tensors = raw.tensors.into_iter().map(|(name, tensor)| tensor.check(name)).collect::<Result<Vec<_>, _>>()?;
        tile(&mut tensors, data_start, file_len)?;
        let place = |t: Checked| {
            let range = (data_start + t.bytes.start) as usize..(data_start + t.bytes.end) as usize;
            (t.name, TensorInfo { dtype: t.dtype, shape: t.shape, range })
        };
        Ok(Self { tensors: tensors.into_iter().map(place).collect(), metadata: metadata.into_iter().collect() })
    }
}

/// Checks that the tensors cover the data one after the other; sorts them by place.
fn tile(tensors: &mut [Checked], data_start: u64, file_len: u64) -> Result<(), HeaderFault> {
    tensors.sort_by_key(|t| (t.bytes.start, t.bytes.end));
    let mut covered = 0;
    for tensor in tensors.iter() {
        if tensor.bytes.start < covered {
            return Err(HeaderFault::Overlap { tensor: tensor.name.clone() });
        }
        if tensor.bytes.start > covered {
            return Err(HeaderFault::Hole { tensor: tensor.name.clone(), bytes: tensor.bytes.start - covered });
        }
        covered = tensor.bytes.end;
    }
    let expected = covered.saturating_add(data_start);
    match file_len.checked_sub(expected) {
        None => Err(HeaderFault::Truncated { expected, got: file_len }),
        Some(0) => Ok(()),
        Some(bytes) => Err(HeaderFault::Trailing { bytes }),
    }
}

fn refuse_repeated<'a>(keys: impl Iterator<Item = &'a String>) -> Result<(), HeaderFault> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if !seen.insert(key) {
            return Err(HeaderFault::DuplicateKey { key: key.clone() });
        }
    }
    Ok(())
}

const METADATA: &str = "__metadata__";

/// The header as it stands in the file, repeated keys included.
struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: Vec<Pairs<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

/// A tensor whose shape fills its bytes; the bytes are counted from the start of the data.
struct Checked {
    name: String,
    dtype: SourceDtype,
    shape: Vec<usize>,
    bytes: Range<u64>,
}

impl RawTensor {
    fn check(self, name: String) -> Result<Checked, HeaderFault> {
        let Some(dtype) = SourceDtype::parse(&self.dtype) else {
            return Err(HeaderFault::Dtype { tensor: name, dtype: self.dtype });
        };
        let [start, end] = self.data_offsets;
        let Some(bytes) = end.checked_sub(start) else {
            return Err(HeaderFault::Overlap { tensor: name });
        };
        let size = self.shape.iter().try_fold(dtype.size(), |size, &axis| size.checked_mul(axis));
        let shape: Option<Vec<usize>> = self.shape.iter().map(|&axis| usize::try_from(axis).ok()).collect();
        match (size, shape) {
            (Some(size), Some(shape)) if size == bytes => Ok(Checked { name, dtype, shape, bytes: start..end }),
            _ => Err(HeaderFault::Size { tensor: name, shape: self.shape, bytes }),
        }
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader { tensors: Vec::new(), metadata: Vec::new() };
                while let Some(key) = map.next_key::<String>()? {
                    if key == METADATA {
                        header.metadata.push(map.next_value()?);
                    } else {
                        header.tensors.push((key, map.next_value()?));
                    }
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metadata_key_may_be_a_tensor_name() {
        let json = br#"{"__metadata__":{"a":"1"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
        let header = Header::parse(json, 8 + json.len() as u64 + 4).unwrap();
        assert_eq!(header.tensors["a"].num_values(), 1);
        assert_eq!(header.metadata["a"], "1");
    }
}
