//! Sequences of tokens: rotary positions, and means over the tokens that there are.

use super::super::{Attention, Tokens};
use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::view::{CudaReal, View};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use weft_core::RopePairs;

impl<T: CudaReal> Cuda<T> {
    /// A number times values.
    pub(super) fn scaled(&self, factor: f64, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let y = self.buffer(x.len())?;
        let (values, _) = packs::<T>(x.len(), 1, &[])?;
        self.device.launch(
            &self.kernels.scale,
            Grid::each(values),
            [x.into(), (&y).into(), (factor as f32).into(), values.into()],
        )?;
        Ok(y)
    }

    /// Rows of `from` values as rows of `to`, with zeros behind or cut off.
    pub(super) fn resized(&self, x: View<'_, T>, from: usize, to: usize) -> crate::Result<CudaSlice<T>> {
        let y = self.buffer(x.len() / from * to)?;
        let (values, _) = packs::<T>(y.len(), 1, &[])?;
        let arguments = [x.into(), (&y).into(), from.into(), to.into(), values.into()];
        self.device.launch(&self.kernels.resize_rows, Grid::each(values), arguments)?;
        Ok(y)
    }

    /// Turns queries and keys in place.
    pub(super) fn turn(
        &self,
        (attention, pairs): (&Attention, RopePairs),
        packed: &mut CudaSlice<T>,
        turns: View<'_, T>,
        back: bool,
    ) -> crate::Result<()> {
        let (dim, rows) = (attention.head_dim, attention.sequences * attention.tokens);
        assert!(dim.is_multiple_of(2) && turns.len() >= attention.tokens * dim, "turns of each position");
        assert_eq!(packed.len(), rows * attention.packed(), "packed rows");
        let turned = attention.heads + attention.kv_heads;
        let (values, _) = packs::<T>(rows * turned * (dim / 2), 1, &[])?;
        let arguments = [
            packed.into(),
            turns.into(),
            attention.tokens.into(),
            turned.into(),
            (dim / 2).into(),
            attention.packed().into(),
            if back { -1.0f32 } else { 1.0 }.into(),
            (pairs == RopePairs::Interleaved).into(),
            values.into(),
        ];
        self.device.launch(&self.kernels.rotate, Grid::each(values), arguments)
    }

    pub(super) fn mean_of_tokens(&self, sizes: Tokens, x: View<'_, T>, lengths: View<'_, u32>) -> crate::Result<CudaSlice<T>> {
        let Tokens { sequences, tokens, width } = sizes;
        assert!(x.len() == sequences * tokens * width && lengths.len() == sequences, "tokens of each sequence");
        let y = self.buffer(sequences * width)?;
        let (values, _) = packs::<T>(y.len(), 1, &[])?;
        let arguments = [x.into(), lengths.into(), (&y).into(), tokens.into(), width.into(), values.into()];
        self.device.launch(&self.kernels.mean_tokens, Grid::each(values), arguments)?;
        Ok(y)
    }

    pub(super) fn backward_mean_of_tokens(
        &self,
        sizes: Tokens,
        dy: View<'_, T>,
        lengths: View<'_, u32>,
    ) -> crate::Result<CudaSlice<T>> {
        let Tokens { sequences, tokens, width } = sizes;
        assert!(dy.len() == sequences * width && lengths.len() == sequences, "a mean of each sequence");
        let dx = self.buffer(sequences * tokens * width)?;
        let (values, _) = packs::<T>(dx.len(), 1, &[])?;
        let arguments = [dy.into(), lengths.into(), (&dx).into(), tokens.into(), width.into(), values.into()];
        self.device.launch(&self.kernels.mean_tokens_backward, Grid::each(values), arguments)?;
        Ok(dx)
    }
}
