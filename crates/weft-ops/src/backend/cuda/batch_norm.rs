//! Norms over examples and pixels of each network of a population: sums over chunks of rows, then over the chunks, then a pass.

use super::super::{Batch, BatchNorm};
use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::product::check_parameters;
use super::reduce::Tiling;
use super::view::{Arg, CudaReal, View};
use crate::kernels::BATCH_NORM_MOMENTUM;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Values, what they were normalized by, and the running statistics after it.
type Normalized<T> = (CudaSlice<T>, CudaSlice<f32>, Option<CudaSlice<f32>>);

/// How the rows of each network are shared out.
struct Plan {
    tiling: Tiling,
    chunks: usize,
    wide: bool,
}

impl Plan {
    fn grid(&self, batch: Batch) -> Grid {
        self.tiling.grid(batch.networks * self.chunks)
    }
}

/// Checks what a batch norm is given, of which the parameters are `len` values.
fn check<T>(norm: &BatchNorm, batch: Batch, x: View<'_, T>, len: usize) {
    assert!(!batch.shared, "each network has rows of its own");
    assert_eq!(x.len(), batch.networks * batch.rows * norm.width, "rows of a batch norm");
    for offset in [norm.gain, norm.bias, norm.mean, norm.variance] {
        check_parameters(batch, offset, norm.width, len);
    }
}

impl<T: CudaReal> Cuda<T> {
    fn batch_norm_plan(&self, norm: &BatchNorm, batch: Batch, inputs: &[View<'_, T>]) -> crate::Result<Plan> {
        let addresses: Vec<u64> = inputs.iter().map(|x| x.address()).collect();
        let (_, wide) = packs::<T>(batch.networks * batch.rows * norm.width, norm.width, &addresses)?;
        let tiling = Tiling::of_rows::<T>(norm.width, wide);
        Ok(Plan { tiling, chunks: self.chunks(batch.rows, batch.networks, tiling), wide })
    }

    pub(super) fn normalize_batch(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        (x, theta): (View<'_, T>, View<'_, T>),
        training: bool,
    ) -> crate::Result<Normalized<T>> {
        check(norm, batch, x, theta.len());
        let (width, networks) = (norm.width, batch.networks);
        let plan = self.batch_norm_plan(norm, batch, &[x])?;
        let (rows, chunks) = (Arg::from(batch.rows), if training { plan.chunks } else { 0 });
        let wide = || self.device.uninit::<f32>(networks * 2 * width);
        let (y, statistics, moved) = (self.buffer(x.len())?, wide()?, if training { Some(wide()?) } else { None });
        let partial = if training { Some(self.device.uninit::<f32>(networks * chunks * 2 * width)?) } else { None };
        if let Some(partial) = &partial {
            let arguments = [x.into(), rows, width.into(), chunks.into(), partial.into(), plan.wide.into()];
            self.device.launch(&self.kernels.batch_norm_moments, plan.grid(batch), arguments)?;
        }
        let arguments = [
            partial.as_ref().map_or(Arg::from(0usize), Arg::from),
            chunks.into(),
            rows,
            width.into(),
            theta.into(),
            theta.master().into(),
            batch.stride.into(),
            norm.mean.into(),
            norm.variance.into(),
            (&statistics).into(),
            moved.as_ref().map_or(Arg::from(0usize), Arg::from),
            (norm.epsilon as f32).into(),
            BATCH_NORM_MOMENTUM.into(),
        ];
        self.device.launch(&self.kernels.batch_norm_statistics, Tiling::new(width, 1).grid(networks), arguments)?;
        let arguments = [
            x.into(),
            (&statistics).into(),
            theta.part(norm.gain, width).into(),
            theta.part(norm.bias, width).into(),
            batch.stride.into(),
            rows,
            width.into(),
            plan.chunks.into(),
            (&y).into(),
            plan.wide.into(),
        ];
        self.device.launch(&self.kernels.batch_norm, plan.grid(batch), arguments)?;
        Ok((y, statistics, moved))
    }

    pub(super) fn check_statistics(norm: &BatchNorm, batch: Batch, statistics: &CudaSlice<f32>) {
        assert_eq!(statistics.len(), batch.networks * 2 * norm.width, "statistics of a batch norm");
    }
}

/// What the gradient of a batch norm is computed from.
pub(super) struct Backward<'a, T> {
    pub(super) norm: &'a BatchNorm,
    pub(super) batch: Batch,
    pub(super) x: View<'a, T>,
    pub(super) statistics: &'a CudaSlice<f32>,
    pub(super) theta: View<'a, T>,
    pub(super) training: bool,
    pub(super) dy: View<'a, T>,
}

impl<T: CudaReal> Backward<'_, T> {
    /// Returns `dx`, and adds to the gradients of parameters.
    pub(super) fn run(&self, cuda: &Cuda<T>, gradient: &mut CudaSlice<f32>) -> crate::Result<CudaSlice<T>> {
        let &Self { norm, batch, x, statistics, theta, training, dy } = self;
        check(norm, batch, x, theta.len().min(gradient.len()));
        assert_eq!(dy.len(), x.len(), "gradient of another length");
        Cuda::<T>::check_statistics(norm, batch, statistics);
        let (width, networks) = (norm.width, batch.networks);
        let plan = cuda.batch_norm_plan(norm, batch, &[x, dy])?;
        let (rows, chunks, wide) = (Arg::from(batch.rows), Arg::from(plan.chunks), Arg::from(plan.wide));
        let partial = cuda.device.uninit::<f32>(networks * plan.chunks * 2 * width)?;
        let arguments = [x.into(), dy.into(), statistics.into(), rows, width.into(), chunks, (&partial).into(), wide];
        cuda.device.launch(&cuda.kernels.batch_norm_sums, plan.grid(batch), arguments)?;
        let totals = cuda.device.uninit::<f32>(networks * 2 * width)?;
        let arguments = [
            (&partial).into(),
            chunks,
            width.into(),
            statistics.into(),
            theta.into(),
            batch.stride.into(),
            norm.gain.into(),
            norm.bias.into(),
            norm.mean.into(),
            norm.variance.into(),
            (!training).into(),
            gradient.into(),
            (&totals).into(),
        ];
        cuda.device.launch(&cuda.kernels.batch_norm_gradient, Tiling::new(width, 1).grid(networks), arguments)?;
        let dx = cuda.buffer(x.len())?;
        let share = if training { 1.0 / batch.rows as f32 } else { 0.0 };
        let arguments = [
            x.into(),
            dy.into(),
            statistics.into(),
            (&totals).into(),
            theta.part(norm.gain, width).into(),
            batch.stride.into(),
            rows,
            width.into(),
            chunks,
            share.into(),
            (&dx).into(),
            wide,
        ];
        cuda.device.launch(&cuda.kernels.batch_norm_backward, plan.grid(batch), arguments)?;
        Ok(dx)
    }
}
