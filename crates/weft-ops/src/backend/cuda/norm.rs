//! Norms: a warp a row; gradients of parameters and modulations from sums over chunks of rows.

use super::super::{Columns, Norm, NormKind};
use super::Cuda;
use super::device::Grid;
use super::linear::check_columns;
use super::pointwise::packs;
use super::reduce::Partial;
use super::view::{Arg, CudaReal, View, address};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Rows of a group that are not worth another chunk.
const CHUNK_ROWS: usize = 16;

/// Packs of rows that the registers of a block hold, one or two a thread.
const SHORT: usize = 128;
const LONG: usize = 256;

/// Shared memory of a block that leaves room for others beside it.
const SHARED_BYTES: usize = 48 << 10;

/// The modulations from `shift` on, their columns and the rows that share one.
fn modulation_of<'a, T>(
    norm: &Norm,
    rows: usize,
    modulation: Option<(View<'a, T>, Columns)>,
) -> (Option<View<'a, T>>, usize, usize) {
    let Some((values, columns)) = modulation else { return (None, 0, rows.max(1)) };
    check_columns(columns, 2 * norm.width, rows, values);
    (Some(values.part(columns.first, 2 * norm.width)), columns.columns, columns.rows_per_group)
}

fn parameter<'a, T>(norm: &Norm, theta: View<'a, T>, first: Option<usize>) -> Option<View<'a, T>> {
    first.map(|first| theta.part(first, norm.width))
}

fn check_inputs<T>(norm: &Norm, x: View<'_, T>, add: Option<View<'_, T>>) -> usize {
    let rows = x.len() / norm.width;
    assert_eq!(x.len(), rows * norm.width, "rows of a norm");
    assert!(add.is_none_or(|add| add.len() == x.len()), "summands of two lengths");
    rows
}

impl<T: CudaReal> Cuda<T> {
    pub(super) fn normalize(
        &self,
        norm: &Norm,
        (x, add): (View<'_, T>, Option<View<'_, T>>),
        theta: View<'_, T>,
        modulation: Option<(View<'_, T>, Columns)>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>)> {
        let rows = check_inputs(norm, x, add);
        let (modulation, columns, group) = modulation_of(norm, rows, modulation);
        let y = self.buffer(x.len())?;
        let statistics = self.device.uninit::<f32>(2 * rows)?;
        let (_, wide) = packs::<T>(x.len(), norm.width, &[x.address(), add.map_or(0, View::address)])?;
        let arguments = [
            x.into(),
            add.into(),
            parameter(norm, theta, norm.gain).into(),
            parameter(norm, theta, norm.bias).into(),
            modulation.into(),
            columns.into(),
            group.into(),
            (&y).into(),
            (&statistics).into(),
            rows.into(),
            norm.width.into(),
            (norm.epsilon as f32).into(),
            (norm.kind == NormKind::Rms).into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.norm, Grid::warps(rows), arguments)?;
        Ok((y, statistics))
    }
}

/// What the gradient of a norm is computed from.
pub(super) struct Backward<'a, T> {
    pub(super) norm: &'a Norm,
    pub(super) inputs: (View<'a, T>, Option<View<'a, T>>),
    pub(super) statistics: &'a CudaSlice<f32>,
    pub(super) theta: View<'a, T>,
    pub(super) dy: View<'a, T>,
}

/// How rows are shared out: groups of rows, each cut into chunks, whose sums are `partial`.
struct Plan<'a, T> {
    modulation: Option<View<'a, T>>,
    columns: usize,
    groups: usize,
    chunks: usize,
    partial: Option<CudaSlice<f32>>,
}

impl<T: CudaReal> Backward<'_, T> {
    pub(super) fn run(
        &self,
        cuda: &Cuda<T>,
        modulation: Option<(View<'_, T>, Columns, &mut CudaSlice<T>)>,
        dx: &mut CudaSlice<T>,
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        let norm = self.norm;
        let rows = check_inputs(norm, self.inputs.0, self.inputs.1);
        assert!(self.dy.len() == rows * norm.width && dx.len() == self.dy.len(), "gradient of another length");
        assert_eq!(self.statistics.len(), 2 * rows, "statistics");
        if rows == 0 {
            return Ok(());
        }
        let (modulation, d_modulation) = match modulation {
            Some((values, columns, d)) => (Some((values, columns)), Some((columns.first, d))),
            None => (None, None),
        };
        let values = modulation.map(|(values, _)| values.len());
        let (modulation, columns, group_rows) = modulation_of(norm, rows, modulation);
        let groups = rows / group_rows;
        let sums = modulation.is_some() || norm.gain.is_some() || norm.bias.is_some();
        let chunks = (4 * cuda.device.processors / groups).clamp(1, group_rows.div_ceil(CHUNK_ROWS));
        let partial = if sums { Some(cuda.device.uninit(groups * chunks * 2 * norm.width)?) } else { None };
        let plan = Plan { modulation, columns, groups, chunks, partial };
        self.inputs(cuda, &plan, group_rows, dx)?;
        let Some(partial) = &plan.partial else { return Ok(()) };
        if let Some((first, d_modulation)) = d_modulation {
            assert_eq!(Some(d_modulation.len()), values, "gradient of the modulations");
            self.modulation(cuda, &plan, partial, address(d_modulation) + (first * size_of::<T>()) as u64)?;
        }
        // Of a modulated norm, what a group's chunks sum to lies in its first.
        let (rows, row_stride) = match plan.modulation {
            Some(_) => (groups, chunks * 2 * norm.width),
            None => (chunks, 2 * norm.width),
        };
        let sum = |first, columns| Partial { values: partial, first, row_stride, rows, columns };
        match (norm.gain, norm.bias) {
            (Some(gain), Some(bias)) if bias == gain + norm.width => {
                return cuda.add_partial_sums(&sum(0, 2 * norm.width), gradient, gain);
            }
            _ => {}
        }
        if let Some(gain) = norm.gain {
            cuda.add_partial_sums(&sum(0, norm.width), gradient, gain)?;
        }
        if let Some(bias) = norm.bias {
            cuda.add_partial_sums(&sum(norm.width, norm.width), gradient, bias)?;
        }
        Ok(())
    }

    /// Adds to `dx`, and sums `dy·n` and `dy` over chunks.
    fn inputs(&self, cuda: &Cuda<T>, plan: &Plan<'_, T>, group_rows: usize, dx: &mut CudaSlice<T>) -> crate::Result<()> {
        let (x, add) = self.inputs;
        let width = self.norm.width;
        let (_, wide) = packs::<T>(x.len(), width, &[x.address(), add.map_or(0, View::address), self.dy.address()])?;
        let (modulation, statistics) = (plan.modulation, self.statistics);
        let gain = parameter(self.norm, self.theta, self.norm.gain);
        let partial = plan.partial.as_ref().map_or(Arg::from(0usize), Arg::from);
        let rms = Arg::from(self.norm.kind == NormKind::Rms);
        let blocks = [plan.groups * plan.chunks, 1];
        if wide && width <= LONG * T::WIDE {
            let kernels = &cuda.kernels;
            let kernel = if width <= SHORT * T::WIDE { &kernels.norm_backward_short } else { &kernels.norm_backward_long };
            let arguments = [
                x.into(),
                add.into(),
                statistics.into(),
                gain.into(),
                modulation.into(),
                plan.columns.into(),
                group_rows.into(),
                plan.chunks.into(),
                self.dy.into(),
                dx.into(),
                partial,
                width.into(),
                rms,
            ];
            return cuda.device.launch(kernel, Grid { blocks, threads: [128, 1], shared_bytes: 0 }, arguments);
        }
        let of_warp = if plan.partial.is_some() { 2 * width * size_of::<f32>() } else { 0 };
        let warps = (SHARED_BYTES / of_warp.max(1)).clamp(1, 4);
        if warps * of_warp > cuda.device.shared_bytes {
            return Err(candle_core::Error::Msg(format!("a norm of {width} features is too wide for this GPU")).into());
        }
        let arguments = [
            x.into(),
            add.into(),
            statistics.into(),
            gain.into(),
            modulation.into(),
            plan.columns.into(),
            group_rows.into(),
            plan.chunks.into(),
            self.dy.into(),
            dx.into(),
            partial,
            width.into(),
            rms,
            wide.into(),
        ];
        let grid = Grid { blocks, threads: [32 * warps, 1], shared_bytes: warps * of_warp };
        cuda.device.launch(&cuda.kernels.norm_backward, grid, arguments)
    }

    /// Writes the gradient of each group's shift and scale.
    fn modulation(&self, cuda: &Cuda<T>, plan: &Plan<'_, T>, partial: &CudaSlice<f32>, d_modulation: u64) -> crate::Result<()> {
        let width = self.norm.width;
        let total = plan.groups * width;
        let arguments = [
            partial.into(),
            plan.chunks.into(),
            width.into(),
            parameter(self.norm, self.theta, self.norm.gain).into(),
            parameter(self.norm, self.theta, self.norm.bias).into(),
            plan.modulation.into(),
            d_modulation.into(),
            plan.columns.into(),
            total.into(),
        ];
        cuda.device.launch(&cuda.kernels.norm_modulation, Grid::each(total), arguments)
    }
}
