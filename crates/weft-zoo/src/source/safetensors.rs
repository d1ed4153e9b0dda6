//! One safetensors file.

use super::{Place, Source, SourceFormat, SourceTensor};
use crate::Result;
use crate::mapped::MappedFile;
use crate::tensors::Metadata;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

pub(super) fn open(path: &Path) -> Result<Source> {
    let (tensors, metadata) = open_tensors(path)?;
    let source = Source { metadata, ..Source::new(path, SourceFormat::Safetensors, tensors) };
    source.normalized().with_scales()
}

/// The tensors of a file by the names that they have there.
pub(super) fn open_tensors(path: &Path) -> Result<(BTreeMap<String, SourceTensor>, Metadata)> {
    let file = Arc::new(MappedFile::open(path)?);
    let header = file.safetensors_header()?;
    let place = |(name, info): (String, crate::header::TensorInfo)| {
        let place = Place::Mapped { file: Arc::clone(&file), range: info.range };
        (name.clone(), SourceTensor::new(name, info.shape, info.dtype, place))
    };
    Ok((header.tensors.into_iter().map(place).collect(), header.metadata))
}
