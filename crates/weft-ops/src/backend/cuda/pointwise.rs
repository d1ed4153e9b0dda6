//! Operations value by value.

use super::Cuda;
use super::device::Grid;
use super::view::{Arg, CudaReal, View};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use weft_core::Activation;

/// An activation's number in pointwise.cu.
pub(super) fn code(activation: Activation) -> usize {
    match activation {
        Activation::Relu => 0,
        Activation::Tanh => 1,
        Activation::Gelu => 2,
        Activation::GeluTanh => 3,
        Activation::Silu => 4,
        Activation::Sigmoid => 5,
    }
}

/// How many accesses `len` values take, and whether these are of 16 bytes: rows and addresses must allow it.
pub(super) fn packs<T: CudaReal>(len: usize, columns: usize, addresses: &[u64]) -> crate::Result<(usize, bool)> {
    let wide = columns.is_multiple_of(T::WIDE) && addresses.iter().all(|address| address.is_multiple_of(16));
    let packs = if wide { len / T::WIDE } else { len };
    if u32::try_from(packs).is_err() {
        return Err(candle_core::Error::Msg(format!("{len} values are more than one operation on a GPU takes")).into());
    }
    Ok((packs, wide))
}

impl<T: CudaReal> Cuda<T> {
    pub(super) fn activate_all(&self, activation: Activation, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let y = self.buffer(x.len())?;
        let (packs, wide) = packs::<T>(x.len(), x.len(), &[x.address()])?;
        let nothing = Arg::from(0usize);
        // Without a bias, the kernel only reads its first argument, and rows of any length will do.
        let arguments = [
            x.into(),
            (&y).into(),
            nothing,
            nothing,
            1usize.into(),
            T::WIDE.into(),
            packs.into(),
            code(activation).into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.epilogue, Grid::each(packs), arguments)?;
        Ok(y)
    }

    pub(super) fn backward_activation(&self, activation: Activation, x: View<'_, T>, dy: &mut CudaSlice<T>) -> crate::Result<()> {
        assert_eq!(x.len(), dy.len(), "gradient of another length");
        let (packs, wide) = packs::<T>(x.len(), x.len(), &[x.address()])?;
        let arguments = [x.into(), dy.into(), packs.into(), code(activation).into(), wide.into()];
        self.device.launch(&self.kernels.activate_backward, Grid::each(packs), arguments)
    }

    /// A gated activation, or its gradient where that of its output is given.
    pub(super) fn gate(
        &self,
        activation: Activation,
        width: usize,
        x: View<'_, T>,
        dy: Option<View<'_, T>>,
    ) -> crate::Result<CudaSlice<T>> {
        let rows = x.len() / (2 * width);
        assert_eq!(x.len(), rows * 2 * width, "rows of a gate and its values");
        assert!(dy.is_none_or(|dy| dy.len() == rows * width), "gradient of another length");
        let out = self.buffer(if dy.is_some() { x.len() } else { rows * width })?;
        let (packs, wide) = packs::<T>(rows * width, width, &[x.address(), dy.map_or(0, View::address)])?;
        let arguments = [x.into(), dy.into(), (&out).into(), width.into(), packs.into(), code(activation).into(), wide.into()];
        self.device.launch(&self.kernels.gated, Grid::each(packs), arguments)?;
        Ok(out)
    }

    pub(super) fn add_all(&self, y: &mut CudaSlice<T>, x: View<'_, T>) -> crate::Result<()> {
        assert_eq!(x.len(), y.len(), "summands of two lengths");
        let (packs, wide) = packs::<T>(x.len(), x.len(), &[x.address()])?;
        self.device.launch(&self.kernels.add, Grid::each(packs), [y.into(), x.into(), packs.into(), wide.into()])
    }

    /// Adds a row of parameters to each row.
    pub(super) fn add_row(&self, y: &mut CudaSlice<T>, (theta, offset, len): (View<'_, T>, usize, usize)) -> crate::Result<()> {
        assert!(y.len().is_multiple_of(len), "{} values in rows of {len}", y.len());
        let rows = y.len() / len;
        let (packs, wide) = packs::<T>(y.len(), len, &[])?;
        let row = theta.part(offset, len);
        let nothing = Arg::from(0usize);
        let arguments = [y.into(), nothing, row.into(), nothing, rows.into(), len.into(), packs.into(), nothing, wide.into()];
        self.device.launch(&self.kernels.epilogue, Grid::each(packs), arguments)
    }

    pub(super) fn gather_rows(&self, width: usize, x: View<'_, T>, rows: View<'_, u32>) -> crate::Result<CudaSlice<T>> {
        let y = self.buffer(rows.len() * width)?;
        let (packs, wide) = packs::<T>(y.len(), width, &[x.address()])?;
        let of_row = if wide { width / T::WIDE } else { width };
        let arguments = [x.into(), rows.into(), (&y).into(), of_row.into(), packs.into(), wide.into()];
        self.device.launch(&self.kernels.gather, Grid::each(packs), arguments)?;
        Ok(y)
    }

    pub(super) fn mix_all(&self, y: &mut CudaSlice<T>, keep: f32, x: View<'_, T>) -> crate::Result<()> {
        assert_eq!(x.len(), y.len(), "summands of two lengths");
        let (values, _) = packs::<T>(x.len(), 1, &[])?;
        self.device.launch(&self.kernels.mix, Grid::each(values), [y.into(), x.into(), keep.into(), values.into()])
    }

    /// Waits for values and converts them on the host.
    pub(super) fn to_host(&self, values: View<'_, T>) -> crate::Result<Vec<f32>> {
        let copied = self.device.copy_to_host(values)?;
        Ok(copied.into_iter().map(T::to_f32).collect())
    }

    pub(super) fn mark_channels(
        &self,
        [networks, rows, channels]: [usize; 3],
        x: View<'_, T>,
        flags: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        assert_eq!(x.len(), networks * rows * channels, "values of other sizes");
        assert_eq!(flags.len(), networks * channels, "flags of other sizes");
        let (values, _) = packs::<T>(x.len(), 1, &[])?;
        let arguments = [x.into(), flags.into(), (rows * channels).into(), channels.into(), values.into()];
        self.device.launch(&self.kernels.mark_active, Grid::each(values), arguments)
    }
}
