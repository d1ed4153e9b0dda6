//! Networks under the names and in the layouts that people have: recognized, read as a row, and given back as they were.

mod infer;
mod layouts;
mod real;

use std::path::Path;
use weft_core::{Architecture, Seed};
use weft_zoo::{Source, open_sources, write_tensors};

/// Name, shape and values of a file's tensors.
pub(crate) type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// Weights that are all different.
pub(crate) fn row(architecture: &Architecture, seed: u64) -> Vec<f32> {
    Seed::new(seed).normals(architecture.num_parameters())
}

/// Writes a file and opens it.
pub(crate) fn stored(path: &Path, tensors: &Tensors) -> Source {
    let borrowed: Vec<_> = tensors.iter().map(|(name, shape, values)| (name.clone(), shape.clone(), values.as_slice())).collect();
    write_tensors(path, &borrowed, &weft_zoo::Metadata::new()).expect("the file can be written");
    let mut sources = open_sources(path).expect("it is a sound file");
    assert_eq!(sources.len(), 1);
    sources.pop().expect("there is one")
}

/// Sorted by name, as sets are compared.
pub(crate) fn sorted(mut tensors: Tensors) -> Tensors {
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    tensors
}
