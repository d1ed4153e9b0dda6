//! Cross-entropy of a population.

use super::Cuda;
use super::device::Grid;
use super::view::{CudaReal, View};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

impl<T: CudaReal> Cuda<T> {
    /// Mean losses and their gradients. Labels are not read back: one that is no class makes its network's loss no number.
    pub(super) fn losses(
        &self,
        [networks, classes]: [usize; 2],
        logits: View<'_, T>,
        labels: View<'_, u32>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<T>)> {
        let rows = labels.len();
        assert_eq!(logits.len(), rows * classes, "logits of other rows");
        assert!(networks > 0 && rows.is_multiple_of(networks), "{rows} labels of {networks} networks");
        let of_network = rows / networks;
        let (means, gradient) = (self.buffer(networks)?, self.buffer(logits.len())?);
        let losses = self.device.uninit::<f32>(rows)?;
        let arguments = [
            logits.into(),
            labels.into(),
            (&gradient).into(),
            (&losses).into(),
            rows.into(),
            classes.into(),
            (1.0 / of_network as f32).into(),
        ];
        self.device.launch(&self.kernels.cross_entropy, Grid::warps(rows), arguments)?;
        let grid = Grid { blocks: [networks, 1], threads: [256, 1], shared_bytes: 0 };
        self.device.launch(&self.kernels.cross_entropy_mean, grid, [(&losses).into(), (&means).into(), of_network.into()])?;
        Ok((means, gradient))
    }
}
