//! Sums of columns, in two stages where there are many rows.

use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::view::{CudaReal, View, address};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Rows that each thread of a chunk has at least.
const THREAD_ROWS: usize = 8;

/// How columns are shared out: blocks of so many packs of them, times as many rows as make 256 threads.
#[derive(Clone, Copy)]
pub(super) struct Tiling {
    lanes: usize,
    /// Blocks that cover the columns.
    pub(super) tiles: usize,
}

impl Tiling {
    pub(super) fn new(columns: usize, of_pack: usize) -> Self {
        let packs = columns / of_pack;
        let lanes = packs.next_power_of_two().min(32);
        Self { lanes, tiles: packs.div_ceil(lanes) }
    }

    /// The same for rows of a buffer, whose packs are of 16 bytes or of one value.
    pub(super) fn of_rows<T: CudaReal>(columns: usize, wide: bool) -> Self {
        Self::new(columns, if wide { T::WIDE } else { 1 })
    }

    pub(super) fn grid(self, blocks: usize) -> Grid {
        Grid { blocks: [blocks, self.tiles], threads: [self.lanes, 256 / self.lanes], shared_bytes: 0 }
    }
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
    /// Into how many chunks the rows of each of `matrices` are cut, so that the GPU is busy.
    pub(super) fn chunks(&self, rows: usize, matrices: usize, tiling: Tiling) -> usize {
        let most = rows.div_ceil(THREAD_ROWS * 256 / tiling.lanes).max(1);
        (4 * self.device.processors / (matrices * tiling.tiles).max(1)).clamp(1, most)
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
        let tiling = Tiling::of_rows::<T>(columns, wide);
        let chunks = self.chunks(rows, networks, tiling);
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
        self.device.launch(&self.kernels.column_sum, tiling.grid(networks * chunks), arguments)?;
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
        self.device.launch(&self.kernels.column_sum_wide, Tiling::new(columns, 1).grid(networks), arguments)
    }

    /// Adds the sums over a matrix's rows to `gradient[first..]`.
    pub(super) fn add_partial_sums(&self, partial: &Partial<'_>, gradient: &mut CudaSlice<f32>, first: usize) -> crate::Result<()> {
        let &Partial { values, first: column, row_stride, rows, columns } = partial;
        assert!(rows > 0 && (rows - 1) * row_stride + column + columns <= values.len(), "columns lie outside");
        assert!(first + columns <= gradient.len(), "gradient {first} + {columns} lies outside");
        let bytes = size_of::<f32>();
        let (from, to) = (address(values) + (column * bytes) as u64, address(gradient) + (first * bytes) as u64);
        let tiling = Tiling::new(columns, 1);
        let chunks = self.chunks(rows, 1, tiling);
        let sums = if chunks > 1 { Some(self.device.uninit::<f32>(chunks * columns)?) } else { None };
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
        self.device.launch(&self.kernels.column_sum_wide, tiling.grid(chunks), arguments)?;
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
        self.device.launch(&self.kernels.column_sum_wide, tiling.grid(1), arguments)
    }
}
