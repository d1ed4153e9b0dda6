//! npz archives of named arrays, as `numpy.savez` and `numpy.savez_compressed` write them.

use super::archive::{Entry, read_directory};
use super::{Place, Source, SourceDtype, SourceFault, SourceFormat, SourceTensor};
use crate::data::npy::{Element, NpyHeader, read_header};
use crate::mapped::MappedFile;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// The end of the name of an array's entry.
pub(super) const ARRAY: &str = ".npy";

pub(super) fn open(path: &Path) -> Result<Source> {
    let fail = |fault| Error::Source { path: path.to_owned(), format: SourceFormat::Npz, fault };
    let file = Arc::new(MappedFile::open(path)?);
    let mut tensors = BTreeMap::new();
    for entry in read_directory(file.bytes()).map_err(fail)? {
        let (name, tensor) = array(&file, entry).map_err(fail)?;
        tensors.insert(name, tensor);
    }
    if tensors.is_empty() {
        return Err(fail(SourceFault::Empty));
    }
    Source::new(path, SourceFormat::Npz, tensors).normalized().with_scales()
}

/// Reads the header of an array, which must fill its entry exactly.
fn array(file: &Arc<MappedFile>, entry: Entry) -> Result<(String, SourceTensor), SourceFault> {
    let fail = |reason: String| SourceFault::malformed(format!("its entry `{}`", entry.name), reason);
    let name = entry.name.strip_suffix(ARRAY).ok_or_else(|| fail("it is not an array (`.npy`)".to_owned()))?.to_owned();
    let mut stream = Counting { inner: entry.stream(file.bytes()), read: 0 };
    let NpyHeader { element, shape, by_columns } = read_header(&mut stream).map_err(fail)?;
    let skip = stream.read;
    let bytes = shape.iter().try_fold(element.size(), |size, &axis| size.checked_mul(axis));
    if bytes.and_then(|bytes| bytes.checked_add(skip)) != Some(entry.expanded) {
        return Err(fail(format!("shape {shape:?} does not fill its {} bytes", entry.expanded)));
    }
    let dtype = match element {
        Element::U8 => SourceDtype::U8,
        Element::U16 => SourceDtype::U16,
        Element::U32 => SourceDtype::U32,
        Element::U64 => SourceDtype::U64,
        Element::I8 => SourceDtype::I8,
        Element::I16 => SourceDtype::I16,
        Element::I32 => SourceDtype::I32,
        Element::I64 => SourceDtype::I64,
        Element::F16 => SourceDtype::F16,
        Element::F32 => SourceDtype::F32,
        Element::F64 => SourceDtype::F64,
    };
    let axes: Option<Vec<usize>> = shape.iter().map(|&axis| usize::try_from(axis).ok()).collect();
    let axes = axes.ok_or_else(|| fail(format!("its shape is {shape:?}")))?;
    drop(stream);
    let place = Place::Npy { file: Arc::clone(file), entry, skip: skip as usize, by_columns };
    Ok((name.clone(), SourceTensor::new(name, axes, dtype, place)))
}

/// A stream that knows how much of it was read.
struct Counting<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.read += len as u64;
        Ok(len)
    }
}

/// Brings values whose first axis runs fastest into the order in which the last one does.
pub(super) fn rows_from_columns(values: &[f32], shape: &[usize]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(values.len());
    let mut index = vec![0; shape.len()];
    for _ in 0..values.len() {
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, size)| at * size + i);
        rows.push(values[at]);
        for (i, &size) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < size {
                break;
            }
            *i = 0;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_become_rows() {
        // `numpy.arange(6).reshape(2, 3)` column by column.
        assert_eq!(rows_from_columns(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0], &[2, 3]), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        // `numpy.arange(8).reshape(2, 2, 2)`.
        assert_eq!(
            rows_from_columns(&[0.0, 4.0, 2.0, 6.0, 1.0, 5.0, 3.0, 7.0], &[2, 2, 2]),
            [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
        );
        assert_eq!(rows_from_columns(&[9.0], &[]), [9.0]);
    }
}
