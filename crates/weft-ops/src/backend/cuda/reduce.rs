//! Sums of columns, in two stages where there are many rows.

use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::view::{CudaReal, View, address};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Rows that are not worth another chunk.
const CHUNK_ROWS: usize = 64;

/// Blocks of 32 packs that cover the columns.
pub(super) fn tiles<T: CudaReal>(columns: usize, wide: bool) -> usize {
    columns.div_ceil(32 * if wide { T::WIDE } else { 1 })
}

/// A matrix of `f32` on the device, whose columns are summed.
pub(super) struct Partial<'a> {
    pub(super) values: &'a CudaSlice<f32>,
    /// Where the first column starts.
    pub(super) first: usize,
    pub(super) row_stride: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl<T: CudaReal> Cuda<T> {
    /// Into how many chunks rows are cut, so that `blocks` blocks a chunk keep the GPU busy.
    pub(super) fn chunks(&self, rows: usize, blocks: usize) -> usize {
        (4 * self.device.processors / blocks.max(1)).clamp(1, rows.div_ceil(CHUNK_ROWS).max(1))
    }

    /// Adds the sums over rows of `x` `[n, r, columns]` to `gradient[n·stride + first..]`.
    pub(super) fn add_column_sums(
        &self,
        x: View<'_, T>,
        (networks, columns): (usize, usize),
        gradient: &mut CudaSlice<f32>,
        (first, stride): (usize, usize),
    ) -> crate::Result<()> {
        let rows = x.len() / (networks * columns);
        assert_eq!(x.len(), networks * rows * columns, "whole rows");
        assert!((networks - 1) * stride + first + columns <= gradient.len(), "gradient {first} + {columns} lies outside");
        let (_, wide) = packs::<T>(x.len(), columns, &[x.address()])?;
        let tiles = tiles::<T>(columns, wide);
        let chunks = self.chunks(rows, networks * tiles);
        let to = address(gradient) + (first * size_of::<f32>()) as u64;
        let partial = if chunks > 1 { Some(self.device.uninit::<f32>(networks * chunks * columns)?) } else { None };
        let arguments = [
            x.into(),
            columns.into(),
            (rows * columns).into(),
            rows.into(),
            columns.into(),
            chunks.into(),
            partial.as_ref().map_or(to, address).into(),
            stride.into(),
            partial.is_none().into(),
            wide.into(),
        ];
        let grid = Grid { blocks: [networks * chunks, tiles], threads: [32, 8], shared_bytes: 0 };
        self.device.launch(&self.kernels.column_sum, grid, arguments)?;
        let Some(partial) = partial else { return Ok(()) };
        let arguments = [
            (&partial).into(),
            columns.into(),
            (chunks * columns).into(),
            chunks.into(),
            columns.into(),
            1usize.into(),
            to.into(),
            stride.into(),
            true.into(),
        ];
        let grid = Grid { blocks: [networks, columns.div_ceil(32)], threads: [32, 8], shared_bytes: 0 };
        self.device.launch(&self.kernels.column_sum_wide, grid, arguments)
    }

    /// Adds the sums over a matrix's rows to `gradient[first..]`.
    pub(super) fn add_partial_sums(&self, partial: &Partial<'_>, gradient: &mut CudaSlice<f32>, first: usize) -> crate::Result<()> {
        let &Partial { values, first: column, row_stride, rows, columns } = partial;
        assert!(rows > 0 && (rows - 1) * row_stride + column + columns <= values.len(), "columns lie outside");
        assert!(first + columns <= gradient.len(), "gradient {first} + {columns} lies outside");
        let bytes = size_of::<f32>();
        let (from, to) = (address(values) + (column * bytes) as u64, address(gradient) + (first * bytes) as u64);
        let tiles = columns.div_ceil(32);
        let chunks = self.chunks(rows, tiles);
        let sums = if chunks > 1 { Some(self.device.uninit::<f32>(chunks * columns)?) } else { None };
        let grid = |chunks| Grid { blocks: [chunks, tiles], threads: [32, 8], shared_bytes: 0 };
        let arguments = [
            from.into(),
            row_stride.into(),
            0usize.into(),
            rows.into(),
            columns.into(),
            chunks.into(),
            sums.as_ref().map_or(to, address).into(),
            0usize.into(),
            sums.is_none().into(),
        ];
        self.device.launch(&self.kernels.column_sum_wide, grid(chunks), arguments)?;
        let Some(sums) = sums else { return Ok(()) };
        let arguments = [
            (&sums).into(),
            columns.into(),
            0usize.into(),
            chunks.into(),
            columns.into(),
            1usize.into(),
            to.into(),
            0usize.into(),
            true.into(),
        ];
        self.device.launch(&self.kernels.column_sum_wide, grid(1), arguments)
    }
}
