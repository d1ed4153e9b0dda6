//! The weights of many networks of one architecture.

use crate::{Architecture, Digest, Error, Result};
use std::sync::Arc;

/// `n` networks of one architecture, one flat row of `D` weights a network.
///
/// # Shapes
/// The data are `[n, D]`, row-major; a row is laid out as [`Architecture::tensors`] says.
#[derive(Debug, Clone, PartialEq)]
pub struct Population {
    architecture: Arc<Architecture>,
    data: Vec<f32>,
}

impl Population {
    /// Wraps rows of weights.
    ///
    /// # Errors
    /// [`Error::Length`] if `data` is not a whole number of rows.
    pub fn new(architecture: Arc<Architecture>, data: Vec<f32>) -> Result<Self> {
        let d = architecture.num_parameters();
        if !data.len().is_multiple_of(d) {
            let expected = data.len().div_ceil(d) * d;
            return Err(Error::Length { what: format!("population of `{}`", architecture.name()), expected, got: data.len() });
        }
        Ok(Self { architecture, data })
    }

    /// `n` networks whose weights are all zero.
    #[must_use]
    pub fn zeros(architecture: Arc<Architecture>, n: usize) -> Self {
        let data = vec![0.0; n * architecture.num_parameters()];
        Self { architecture, data }
    }

    /// The architecture that all rows share.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The number of networks, `n`.
    #[must_use]
    pub fn len(&self) -> usize {
        self.data.len() / self.dim()
    }

    /// Whether there is no network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The number of weights of one network, `D`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.architecture.num_parameters()
    }

    /// All weights, `[n, D]`.
    #[must_use]
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// All weights, `[n, D]`, to be changed in place.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data
    }

    /// All weights, `[n, D]`, without a copy.
    #[must_use]
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// The weights of network `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Population::len`].
    #[must_use]
    pub fn row(&self, i: usize) -> &[f32] {
        let d = self.dim();
        &self.data[i * d..(i + 1) * d]
    }

    /// The weights of each network, in order.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f32> {
        self.data.chunks_exact(self.dim())
    }

    /// The networks at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`Population::len`].
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut data = Vec::with_capacity(indices.len() * self.dim());
        for &i in indices {
            data.extend_from_slice(self.row(i));
        }
        Self { architecture: self.architecture.clone(), data }
    }

    /// Appends the networks of `other`.
    ///
    /// # Errors
    /// [`Error::Length`] if the architectures have different numbers of weights.
    pub fn extend(&mut self, other: &Self) -> Result<()> {
        if !self.architecture.same_graph(&other.architecture) {
            let what = format!("population of `{}` joined to one of `{}`", other.architecture.name(), self.architecture.name());
            return Err(Error::Length { what, expected: self.dim(), got: other.dim() });
        }
        self.data.extend_from_slice(&other.data);
        Ok(())
    }

    /// The digest of network `i`.
    #[must_use]
    pub fn digest(&self, i: usize) -> Digest {
        Digest::of_weights(&self.architecture, self.row(i))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Activation;

    #[test]
    fn rows_select_and_extend() {
        let arch = Arc::new(Architecture::mlp("m", &[1, 1], Activation::Relu).unwrap());
        let mut p = Population::new(arch.clone(), vec![1., 2., 3., 4., 5., 6.]).unwrap();
        assert_eq!((p.len(), p.dim()), (3, 2));
        assert_eq!(p.select(&[2, 0]).data(), [5., 6., 1., 2.]);
        p.extend(&p.select(&[1])).unwrap();
        assert_eq!(p.row(3), [3., 4.]);
        assert!(Population::new(arch, vec![0.0; 3]).is_err());
    }
}
