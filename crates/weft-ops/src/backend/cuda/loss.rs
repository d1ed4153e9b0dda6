//! Cross-entropy of a population, and squared errors.

use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::view::{Arg, CudaReal, View};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Accesses to a row of logits that are too many for a warp.
const LONG_ROW: usize = 512;

/// Values that a block sums at least, and the most blocks that share them.
const SQUARES_A_BLOCK: usize = 1024;
const SQUARE_BLOCKS: usize = 1024;

impl<T: CudaReal> Cuda<T> {
    /// Mean losses and their gradients. Labels are not read back: one that is no class makes its network's loss no number.
    pub(super) fn losses(
        &self,
        [networks, classes]: [usize; 2],
        logits: View<'_, T>,
        labels: View<'_, u32>,
        weights: Option<&CudaSlice<f32>>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<T>)> {
        let rows = labels.len();
        assert_eq!(logits.len(), rows * classes, "logits of other rows");
        assert!(networks > 0 && rows.is_multiple_of(networks), "{rows} labels of {networks} networks");
        assert!(weights.is_none_or(|weights| weights.len() == rows), "weights of other rows");
        let of_network = rows / networks;
        let (means, gradient) = (self.buffer(networks)?, self.buffer(logits.len())?);
        let losses = self.device.uninit::<f32>(rows)?;
        let (_, wide) = packs::<T>(logits.len(), classes, &[logits.address()])?;
        let accesses = if wide { classes / T::WIDE } else { classes };
        // A thread has some accesses of a row; long rows have a block each.
        let lanes = if accesses > LONG_ROW { 256 } else { accesses.div_ceil(4).next_power_of_two().min(32) };
        let arguments = [
            logits.into(),
            labels.into(),
            (&gradient).into(),
            (&losses).into(),
            rows.into(),
            classes.into(),
            (1.0 / of_network as f32).into(),
            weights.map_or(Arg::from(0usize), Arg::from),
            lanes.into(),
            wide.into(),
        ];
        let grid = Grid { blocks: [rows.div_ceil(256 / lanes), 1], threads: [256, 1], shared_bytes: 0 };
        self.device.launch(&self.kernels.cross_entropy, grid, arguments)?;
        let grid = Grid { blocks: [networks, 1], threads: [256, 1], shared_bytes: 0 };
        self.device.launch(&self.kernels.cross_entropy_sum, grid, [(&losses).into(), (&means).into(), of_network.into()])?;
        Ok((means, gradient))
    }

    /// The gradient of a weighted mean squared error, which is added to `total`.
    pub(super) fn squares(
        &self,
        [rows, columns]: [usize; 2],
        (y, targets): (View<'_, T>, View<'_, T>),
        weights: Option<&CudaSlice<f32>>,
        total: &mut CudaSlice<f32>,
    ) -> crate::Result<CudaSlice<T>> {
        assert!(y.len() == rows * columns && targets.len() == y.len(), "outputs and targets of other sizes");
        assert!(weights.is_none_or(|weights| weights.len() == rows), "weights of other rows");
        let gradient = self.buffer(y.len())?;
        let (values, _) = packs::<T>(y.len(), 1, &[])?;
        let blocks = values.div_ceil(SQUARES_A_BLOCK).min(SQUARE_BLOCKS);
        let sums = self.device.uninit::<f32>(blocks)?;
        let share = Arg::from(1.0 / y.len() as f32);
        let weights = weights.map_or(Arg::from(0usize), Arg::from);
        let arguments =
            [y.into(), targets.into(), weights, (&gradient).into(), (&sums).into(), values.into(), columns.into(), share];
        let grid = Grid { blocks: [blocks, 1], threads: [256, 1], shared_bytes: 0 };
        self.device.launch(&self.kernels.squared_error, grid, arguments)?;
        let grid = Grid { blocks: [1, 1], threads: [256, 1], shared_bytes: 0 };
        self.device.launch(&self.kernels.add_mean, grid, [(&sums).into(), total.into(), blocks.into(), share])?;
        Ok(gradient)
    }
}
