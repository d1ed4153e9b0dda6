//! The codec's linear map on tensors: what carries gradients from weights to codes.

use crate::Result;
use candle_core::{Shape, Tensor};
use std::ops::Range;
use std::sync::Arc;
use weft_codec::{Codec, Decoder};
use weft_core::Population;
use weft_net::Device;

/// The same networks with zeros in some places.
pub(crate) fn without(mut networks: Arc<Population>, places: &[Range<usize>]) -> Arc<Population> {
    if !places.is_empty() {
        let len = networks.dim();
        clear(len, Arc::make_mut(&mut networks).data_mut(), places);
    }
    networks
}

/// Writes zeros to the same places of rows of a length.
fn clear(len: usize, rows: &mut [f32], places: &[Range<usize>]) {
    rows.chunks_exact_mut(len).for_each(|row| places.iter().for_each(|place| row[place.clone()].fill(0.0)));
}

/// The linear map from codes to weights, `[k, D]`, or `[D]` for a codec that only scales, with zeros in some places of the weights.
pub(crate) fn decode_tensor(codec: &Codec, zeros: &[Range<usize>], device: &Device) -> Result<Tensor> {
    let (matrix, shape): (&[f32], Shape) = match codec.decoder() {
        Decoder::Linear { matrix, .. } => (matrix, (codec.code_len(), codec.dim()).into()),
        Decoder::Scale { scale, .. } => (scale, scale.len().into()),
    };
    if zeros.is_empty() {
        return Ok(Tensor::from_slice(matrix, shape, device.candle())?);
    }
    let mut matrix = matrix.to_vec();
    clear(codec.dim(), &mut matrix, zeros);
    Ok(Tensor::from_vec(matrix, shape, device.candle())?)
}

/// What a shift of codes, `[n, k]`, makes of weights, `[n, D]`.
pub(crate) fn decode_shift(shift: &Tensor, decode: &Tensor) -> candle_core::Result<Tensor> {
    if decode.rank() == 2 { shift.matmul(decode) } else { shift.broadcast_mul(decode) }
}
