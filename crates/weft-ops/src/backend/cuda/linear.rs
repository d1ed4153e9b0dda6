//! The ends of linear maps: bias and activation, or bias, gate and residual, in one kernel behind the product.

use super::super::{Batch, Columns, Linear};
use super::Cuda;
use super::device::Grid;
use super::pointwise::{code, packs};
use super::product::{Outputs, check_parameters};
use super::reduce::Tiling;
use super::view::{Arg, CudaReal, View};

use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use weft_core::Activation;

/// A gate's columns of a buffer of modulations.
pub(super) fn check_columns<T>(columns: Columns, width: usize, rows: usize, modulation: View<'_, T>) {
    assert!(columns.first + width <= columns.columns, "columns {} + {width} of {}", columns.first, columns.columns);
    assert!(columns.rows_per_group > 0 && rows.is_multiple_of(columns.rows_per_group), "{rows} rows in groups");
    assert_eq!(modulation.len(), rows / columns.rows_per_group * columns.columns, "modulations");
}

impl<T: CudaReal> Cuda<T> {
    /// Adds the bias to a product, and writes its activation.
    pub(super) fn finish(
        &self,
        map: &Linear,
        batch: Batch,
        theta: View<'_, T>,
        y: &mut Outputs<T>,
        activated: Option<(Activation, &mut CudaSlice<T>)>,
    ) -> crate::Result<()> {
        if y.biased && activated.is_none() {
            return Ok(());
        }
        let len = y.values.len();
        let bias = map.bias.filter(|_| !y.biased).map(|bias| {
            check_parameters(batch, bias, map.outputs, theta.len());
            theta.part(bias, map.outputs)
        });
        let (kind, out) = match activated {
            Some((activation, out)) => (code(activation), Arg::from(out)),
            None => (0, Arg::from(0u64)),
        };
        // Buffers of our own start at a multiple of 16 bytes.
        let (packs, wide) = packs::<T>(len, map.outputs, &[])?;
        let arguments = [
            (&mut y.values).into(),
            out,
            bias.into(),
            batch.stride.into(),
            batch.rows.into(),
            map.outputs.into(),
            packs.into(),
            kind.into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.epilogue, Grid::each(packs), arguments)
    }

    /// `residual + gate·(branch + bias)`.
    pub(super) fn finish_residual(
        &self,
        map: &Linear,
        branch: Outputs<T>,
        theta: View<'_, T>,
        residual: View<'_, T>,
        gate: Option<(View<'_, T>, Columns)>,
    ) -> crate::Result<(CudaSlice<T>, Option<CudaSlice<T>>)> {
        let width = map.outputs;
        let Outputs { values: mut branch, biased } = branch;
        let len = branch.len();
        assert_eq!(residual.len(), len, "residual of another length");
        let bias = map.bias.filter(|_| !biased).map(|bias| theta.part(bias, width));
        let mut gated = None;
        let (mut columns, mut group) = (0, 1);
        if let Some((modulation, of)) = gate {
            check_columns(of, width, len / width, modulation);
            gated = Some((modulation.part(of.first, width), self.buffer(len)?));
            (columns, group) = (of.columns, of.rows_per_group);
        }
        let (packs, wide) = packs::<T>(len, width, &[residual.address()])?;
        let arguments = [
            (&mut branch).into(),
            gated.as_mut().map_or(Arg::from(&branch), |(_, out)| out.into()),
            residual.into(),
            bias.into(),
            gated.as_ref().map(|(gate, _)| *gate).into(),
            columns.into(),
            group.into(),
            width.into(),
            packs.into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.residual, Grid::each(packs), arguments)?;
        Ok(match gated {
            Some((_, out)) => (out, Some(branch)),
            None => (branch, None),
        })
    }

    /// The gradient of a branch behind a gate, and that of the gate's columns.
    pub(super) fn backward_gate(
        &self,
        (columns, width): (Columns, usize),
        [dy, branch, modulation]: [View<'_, T>; 3],
        d_modulation: &mut CudaSlice<T>,
    ) -> crate::Result<CudaSlice<T>> {
        assert_eq!(dy.len(), branch.len(), "gradient of another length");
        let rows = dy.len() / width;
        check_columns(columns, width, rows, modulation);
        assert_eq!(d_modulation.len(), modulation.len(), "gradient of the modulations");
        let groups = rows / columns.rows_per_group;
        let d_branch = self.buffer(dy.len())?;
        let (_, wide) = packs::<T>(dy.len(), width, &[dy.address(), branch.address()])?;
        let tiling = Tiling::of_rows::<T>(width, wide);
        let chunks = self.chunks(columns.rows_per_group, groups, tiling);
        let partial = self.device.uninit::<f32>(groups * chunks * width)?;
        let gate = modulation.part(columns.first, width);
        let arguments = [
            dy.into(),
            branch.into(),
            gate.into(),
            columns.columns.into(),
            columns.rows_per_group.into(),
            width.into(),
            chunks.into(),
            (&d_branch).into(),
            (&partial).into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.gate_backward, tiling.grid(groups * chunks), arguments)?;
        let first = super::view::address(d_modulation) + (columns.first * size_of::<T>()) as u64;
        let total = groups * width;
        let arguments = [(&partial).into(), width.into(), chunks.into(), first.into(), columns.columns.into(), total.into()];
        self.device.launch(&self.kernels.gate_reduce, Grid::each(total), arguments)?;
        Ok(d_branch)
    }
}
