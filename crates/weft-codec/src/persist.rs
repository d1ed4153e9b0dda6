//! Codecs as named tensors, to be written and read by whoever knows files.

use crate::{Codec, Error, Normalizer, Pca, Result};
use std::collections::BTreeMap;
use weft_core::products::Place;

const MEAN: &str = "mean";
const SCALE: &str = "scale";
const MATRIX: &str = "matrix";
pub(crate) const SPECTRUM: &str = "spectrum";
pub(crate) const TOTAL: &str = "total-variance";

impl Codec {
    /// The codec as tensors `(name, shape, values)`, from which [`Codec::from_tensors`] makes the same codec bit for bit.
    #[must_use]
    pub fn to_tensors(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        let d = self.dim();
        let normalizer = self.normalizer();
        let mut tensors = vec![(MEAN.to_owned(), vec![d], normalizer.mean()), (SCALE.to_owned(), vec![d], normalizer.scale())];
        if let Self::Pca(pca) = self {
            tensors.push((MATRIX.to_owned(), vec![pca.rank(), d], &pca.matrix));
            tensors.push((SPECTRUM.to_owned(), vec![pca.spectrum.len()], &pca.spectrum));
            tensors.push((TOTAL.to_owned(), vec![1], std::slice::from_ref(&pca.total_variance)));
        }
        tensors
    }

    /// Makes a codec of its tensors: an identity codec if there is no `matrix`, else a PCA codec.
    ///
    /// # Errors
    /// A missing or unknown tensor, a shape that does not fit the others, or values that no fit gives.
    pub fn from_tensors(mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let is_pca = tensors.contains_key(MATRIX);
        let (shape, mean) = take(&mut tensors, MEAN)?;
        let [d] = shape[..] else {
            return Err(Error::Tensor { tensor: MEAN, shape, reason: "it must be a vector" });
        };
        let scale = take_vector(&mut tensors, SCALE, d)?;
        require(scale.iter().all(|&s| s > 0.0), SCALE, &[d], "its values must be positive")?;
        let normalizer = Normalizer { mean, scale };
        let codec = if is_pca { Self::Pca(pca_from_tensors(&mut tensors, normalizer)?) } else { Self::Identity(normalizer) };
        match tensors.into_keys().next() {
            Some(tensor) => Err(Error::UnknownTensor { tensor }),
            None => Ok(codec),
        }
    }
}

fn pca_from_tensors(tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>, normalizer: Normalizer) -> Result<Pca> {
    let (shape, matrix) = take(tensors, MATRIX)?;
    let rank = match shape[..] {
        [rank, d] if rank > 0 && d == normalizer.dim() => rank,
        _ => {
            return Err(Error::Tensor {
                tensor: MATRIX,
                shape,
                reason: "it must have a row a component, each as long as the mean",
            });
        }
    };
    let spectrum = spectrum_of(tensors, rank)?;
    let total_variance = take_vector(tensors, TOTAL, 1)?[0];
    require(total_variance > 0.0, TOTAL, &[1], "its value must be positive")?;
    Ok(Pca { normalizer, matrix, spectrum, total_variance, place: Place::default() })
}

/// Takes out the eigenvalues of a codec of this rank.
pub(crate) fn spectrum_of(tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>, rank: usize) -> Result<Vec<f32>> {
    let (shape, spectrum) = take(tensors, SPECTRUM)?;
    require(shape.len() == 1 && spectrum.len() >= rank, SPECTRUM, &shape, "it must be a vector with a value a component")?;
    let ordered = spectrum.is_sorted_by(|a, b| a >= b) && spectrum.iter().all(|&v| v >= 0.0) && spectrum[rank - 1] > 0.0;
    require(ordered, SPECTRUM, &shape, "its values must descend and be positive where a component is kept")?;
    Ok(spectrum)
}

/// Takes out a tensor with a shape that fits its finite values.
pub(crate) fn take(tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>, tensor: &'static str) -> Result<(Vec<usize>, Vec<f32>)> {
    let (shape, values) = tensors.remove(tensor).ok_or(Error::MissingTensor { tensor })?;
    let product = shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size));
    require(
        product == Some(values.len()) && !values.is_empty(),
        tensor,
        &shape,
        "it must have as many values as its shape says, not 0",
    )?;
    require(values.iter().all(|x| x.is_finite()), tensor, &shape, "its values must be finite")?;
    Ok((shape, values))
}

pub(crate) fn take_vector(
    tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    tensor: &'static str,
    len: usize,
) -> Result<Vec<f32>> {
    let (shape, values) = take(tensors, tensor)?;
    require(shape == [len], tensor, &shape, "it does not have the shape that the other tensors ask for")?;
    Ok(values)
}

fn require(holds: bool, tensor: &'static str, shape: &[usize], reason: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Tensor { tensor, shape: shape.to_vec(), reason }) }
}
