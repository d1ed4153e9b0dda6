//! A GPU, through CUDA: products by cuBLAS, everything between them by kernels of our own that pass over memory once.
//!
//! Kernels are compiled at run time for the GPU that is there (`compile.rs`) and launched on the stream of candle's device, so that
//! tensors and buffers are used in the order in which calls are made. Sums are `f32` and taken in a fixed order: no result depends
//! on the run. In `bf16`, products multiply on the tensor cores and add in `f32`, and gradients of weights are added to an `f32`
//! vector by the product itself.

mod attention;
mod batch_norm;
mod compile;
mod device;
mod host_products;
mod images;
mod linear;
mod loss;
mod low_rank;
mod multiply;
mod nccl;
mod norm;
mod parameters;
mod pointwise;
mod product;
mod reduce;
mod tokens;
mod view;

pub use host_products::HostProducts;
pub use nccl::CudaGroup;
pub use parameters::CudaParameters;
pub use view::{CudaReal, View};

use super::{Attention, Backend, Batch, BatchNorm, Columns, ImageSizes, Linear, LowRank, Norm, OptimizerStep, Slot, Tokens};
use crate::kernels::{ConvShape, PoolShape, Pooling};
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, DeviceRepr};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use device::{Device, Kernels};
use std::marker::PhantomData;
use std::sync::Arc;
use weft_core::{Activation, RopePairs};

/// A GPU, computing in `f32` or `bf16`.
#[derive(Clone)]
pub struct Cuda<T> {
    candle: CudaDevice,
    device: Arc<Device>,
    kernels: Arc<Kernels>,
    marker: PhantomData<fn() -> T>,
}

impl<T: CudaReal> std::fmt::Debug for Cuda<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cuda<{}>", T::NAME)
    }
}

impl<T: CudaReal> Cuda<T> {
    /// Prepares a device of candle's: compiles or loads the kernels, and turns off what a single stream does not need.
    ///
    /// # Errors
    /// If the device was made without a stream of its own (`CudaDevice::new_with_stream` makes one), does not know this type, or
    /// fails.
    pub fn new(device: &CudaDevice) -> crate::Result<Self> {
        let candle = device.clone();
        let device = Device::of(device)?;
        let kernels = device.kernels::<T>()?;
        Ok(Self { candle, device, kernels, marker: PhantomData })
    }

    /// The device as candle knows it.
    #[must_use]
    pub fn candle(&self) -> &CudaDevice {
        &self.candle
    }

    /// A buffer of values from the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn from_slice(&self, values: &[T]) -> crate::Result<CudaSlice<T>> {
        Ok(self.device.stream.clone_htod(values).w()?)
    }

    /// Waits for a buffer's values and copies them to the host.
    ///
    /// # Errors
    /// If the device fails.
    pub fn to_vec<E: DeviceRepr>(&self, buffer: &CudaSlice<E>) -> crate::Result<Vec<E>> {
        Ok(self.device.stream.clone_dtoh(buffer).w()?)
    }

    /// A buffer whose values are all to be written.
    fn buffer(&self, len: usize) -> crate::Result<CudaSlice<T>> {
        self.device.uninit(len)
    }
}

impl<T: CudaReal> Backend for Cuda<T> {
    type Buffer = CudaSlice<T>;
    type Wide = CudaSlice<f32>;
    type View<'a> = View<'a, T>;
    type IndexBuffer = CudaSlice<u32>;
    type Indices<'a> = View<'a, u32>;
    type Parameters = CudaParameters<T>;
    type Group = CudaGroup;

    fn join(devices: &[Self]) -> crate::Result<CudaGroup> {
        CudaGroup::new(devices.iter().map(|cuda| cuda.device.clone()).collect())
    }

    fn all_reduce(group: &CudaGroup, vectors: &mut [&mut CudaSlice<f32>]) -> crate::Result<()> {
        group.all_reduce(vectors)
    }

    fn abort(group: &CudaGroup) {
        group.abort();
    }

    fn view<'a>(&self, buffer: &'a CudaSlice<T>) -> View<'a, T> {
        View::from(buffer)
    }

    fn shorten<'long: 'short, 'short>(view: View<'long, T>) -> View<'short, T> {
        view
    }

    fn zeros(&self, len: usize) -> crate::Result<CudaSlice<T>> {
        Ok(self.device.stream.alloc_zeros(len).w()?)
    }

    fn linear(&self, map: &Linear, batch: Batch, x: View<'_, T>, theta: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let mut y = self.product_forward(map, batch, x, theta)?;
        self.finish(map, batch, theta, &mut y, None)?;
        Ok(y.values)
    }

    fn linear_activated(
        &self,
        (map, activation): (&Linear, Activation),
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<T>)> {
        let mut before = self.product_forward(map, batch, x, theta)?;
        let mut after = self.buffer(before.values.len())?;
        self.finish(map, batch, theta, &mut before, Some((activation, &mut after)))?;
        Ok((before.values, after))
    }

    fn linear_residual(
        &self,
        (map, rows): (&Linear, usize),
        x: View<'_, T>,
        theta: View<'_, T>,
        residual: View<'_, T>,
        gate: Option<(View<'_, T>, Columns)>,
    ) -> crate::Result<(CudaSlice<T>, Option<CudaSlice<T>>)> {
        if gate.is_none()
            && let Some(y) = self.product_residual(map, rows, (x, theta), residual)?
        {
            return Ok((y, None));
        }
        let branch = self.product_forward(map, Batch::one(rows), x, theta)?;
        self.finish_residual(map, branch, theta, residual, gate)
    }

    fn gate_backward(
        &self,
        columns: (Columns, usize),
        dy: View<'_, T>,
        branch: View<'_, T>,
        modulation: View<'_, T>,
        d_modulation: &mut CudaSlice<T>,
    ) -> crate::Result<CudaSlice<T>> {
        self.backward_gate(columns, [dy, branch, modulation], d_modulation)
    }

    fn linear_backward(
        &self,
        (map, wants_dx): (&Linear, bool),
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
        dy: View<'_, T>,
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<Option<CudaSlice<T>>> {
        self.backward_parameters(map, batch, x, dy, gradient)?;
        wants_dx.then(|| self.backward_input(map, batch, theta, dy)).transpose()
    }

    fn linear_input_backward(
        &self,
        map: &Linear,
        batch: Batch,
        theta: View<'_, T>,
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        self.backward_input(map, batch, theta, dy)
    }

    fn low_rank(
        &self,
        update: &LowRank,
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
        y: &mut CudaSlice<T>,
    ) -> crate::Result<CudaSlice<T>> {
        self.add_low_rank(update, batch, (x, theta), y)
    }

    fn low_rank_backward(
        &self,
        update: &LowRank,
        batch: Batch,
        inputs: (View<'_, T>, View<'_, T>),
        theta: View<'_, T>,
        d: (View<'_, T>, Option<&mut CudaSlice<T>>),
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        self.backward_low_rank(update, batch, inputs, theta, d, gradient)
    }

    fn rotate(
        &self,
        attention_pairs: (&Attention, RopePairs),
        packed: &mut CudaSlice<T>,
        turns: View<'_, T>,
        back: bool,
    ) -> crate::Result<()> {
        self.turn(attention_pairs, packed, turns, back)
    }

    fn mean_tokens(&self, tokens: Tokens, x: View<'_, T>, lengths: View<'_, u32>) -> crate::Result<CudaSlice<T>> {
        self.mean_of_tokens(tokens, x, lengths)
    }

    fn mean_tokens_backward(&self, tokens: Tokens, dy: View<'_, T>, lengths: View<'_, u32>) -> crate::Result<CudaSlice<T>> {
        self.backward_mean_of_tokens(tokens, dy, lengths)
    }

    fn activate(&self, activation: Activation, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.activate_all(activation, x)
    }

    fn activate_backward(&self, activation: Activation, x: View<'_, T>, dy: &mut CudaSlice<T>) -> crate::Result<()> {
        self.backward_activation(activation, x, dy)
    }

    fn gated(&self, activation: Activation, width: usize, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.gate(activation, width, x, None)
    }

    fn gated_backward(&self, activation: Activation, width: usize, x: View<'_, T>, dy: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.gate(activation, width, x, Some(dy))
    }

    fn norm(
        &self,
        norm: &Norm,
        x: View<'_, T>,
        add: Option<View<'_, T>>,
        theta: View<'_, T>,
        modulation: Option<(View<'_, T>, Columns)>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>)> {
        self.normalize(norm, (x, add), theta, modulation)
    }

    fn norm_backward(
        &self,
        norm: &Norm,
        inputs: (View<'_, T>, Option<View<'_, T>>),
        statistics: &CudaSlice<f32>,
        theta: View<'_, T>,
        modulation: Option<(View<'_, T>, Columns, &mut CudaSlice<T>)>,
        dy: View<'_, T>,
        dx: &mut CudaSlice<T>,
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        norm::Backward { norm, inputs, statistics, theta, dy }.run(self, modulation, dx, gradient)
    }

    fn attention(
        &self,
        attention: &Attention,
        packed: View<'_, T>,
        lengths: Option<View<'_, u32>>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>)> {
        self.attend(attention, (packed, lengths))
    }

    fn attention_backward(
        &self,
        attention: &Attention,
        packed_lengths: (View<'_, T>, Option<View<'_, u32>>),
        outputs: (View<'_, T>, &CudaSlice<f32>),
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        self.backward_attention(attention, packed_lengths, outputs, dy)
    }

    fn copy(&self, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.device.copy(x)
    }

    fn add(&self, y: &mut CudaSlice<T>, x: View<'_, T>) -> crate::Result<()> {
        self.add_all(y, x)
    }

    fn add_repeated(&self, y: &mut CudaSlice<T>, row: (View<'_, T>, usize, usize)) -> crate::Result<()> {
        self.add_row(y, row)
    }

    fn add_repeated_backward(
        &self,
        dy: View<'_, T>,
        (offset, len): (usize, usize),
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        self.add_column_sums(dy, (1, len), gradient, (offset, 0))
    }

    fn cross_entropy(
        &self,
        sizes: [usize; 2],
        logits: View<'_, T>,
        labels: View<'_, u32>,
        weights: Option<&CudaSlice<f32>>,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<T>)> {
        self.losses(sizes, logits, labels, weights)
    }

    fn patches(&self, shape: &ConvShape, images: usize, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.window_rows(shape, images, x)
    }

    fn patches_backward(&self, shape: &ConvShape, images: usize, dy: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.window_rows_backward(shape, images, dy)
    }

    fn pool(&self, pool: (Pooling, &PoolShape), sizes: ImageSizes, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.pool_windows(pool, sizes, x)
    }

    fn pool_backward(
        &self,
        pool: (Pooling, &PoolShape),
        sizes: ImageSizes,
        x: View<'_, T>,
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        self.pool_windows_backward(pool, sizes, x, dy)
    }

    fn transpose(&self, sizes: [usize; 3], x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        self.transpose_each(sizes, x)
    }

    fn batch_norm(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
        training: bool,
    ) -> crate::Result<(CudaSlice<T>, CudaSlice<f32>, Option<CudaSlice<f32>>)> {
        self.normalize_batch(norm, batch, (x, theta), training)
    }

    fn batch_norm_backward(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: View<'_, T>,
        statistics: &CudaSlice<f32>,
        theta: View<'_, T>,
        training: bool,
        dy: View<'_, T>,
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<CudaSlice<T>> {
        batch_norm::Backward { norm, batch, x, statistics, theta, training, dy }.run(self, gradient)
    }

    fn set_statistics(
        &self,
        parameters: &mut CudaParameters<T>,
        norm: &BatchNorm,
        batch: Batch,
        moved: &CudaSlice<f32>,
    ) -> crate::Result<()> {
        parameters.set(self, norm, batch, moved)
    }

    fn zeros_wide(&self, len: usize) -> crate::Result<CudaSlice<f32>> {
        Ok(self.device.stream.alloc_zeros(len).w()?)
    }

    fn parameters(&self, theta: &[f32], trained: bool) -> crate::Result<CudaParameters<T>> {
        CudaParameters::new(self, theta, trained)
    }

    fn theta<'a>(&self, parameters: &'a CudaParameters<T>) -> View<'a, T> {
        parameters.theta()
    }

    fn theta_and_gradient<'a>(&self, parameters: &'a mut CudaParameters<T>) -> (View<'a, T>, &'a mut CudaSlice<f32>) {
        parameters.theta_and_gradient()
    }

    fn read(&self, parameters: &CudaParameters<T>, slot: Slot) -> crate::Result<Vec<f32>> {
        parameters.read(self, slot)
    }

    fn write(&self, parameters: &mut CudaParameters<T>, slot: Slot, values: &[f32]) -> crate::Result<()> {
        parameters.write(self, slot, values)
    }

    fn optimizer_step(&self, parameters: &mut CudaParameters<T>, step: &OptimizerStep) -> crate::Result<()> {
        parameters.step(self, step)
    }

    fn gradient_norm(&self, parameters: &CudaParameters<T>) -> crate::Result<f64> {
        parameters.norm(self)
    }

    fn upload(&self, values: &[f32]) -> crate::Result<CudaSlice<T>> {
        let values: Vec<T> = values.iter().map(|&v| T::from_f32(v)).collect();
        self.from_slice(&values)
    }

    fn download(&self, values: View<'_, T>) -> crate::Result<Vec<f32>> {
        self.to_host(values)
    }

    fn upload_indices(&self, values: &[u32]) -> crate::Result<CudaSlice<u32>> {
        Ok(self.device.stream.clone_htod(values).w()?)
    }

    fn indices<'a>(&self, buffer: &'a CudaSlice<u32>) -> View<'a, u32> {
        View::from(buffer)
    }

    fn gather(&self, width: usize, x: View<'_, T>, rows: View<'_, u32>) -> crate::Result<CudaSlice<T>> {
        self.gather_rows(width, x, rows)
    }

    fn mix(&self, y: &mut CudaSlice<T>, keep: f64, x: View<'_, T>) -> crate::Result<()> {
        self.mix_all(y, keep as f32, x)
    }

    fn mark_active(&self, sizes: [usize; 3], x: View<'_, T>, flags: &mut CudaSlice<f32>) -> crate::Result<()> {
        self.mark_channels(sizes, x, flags)
    }

    fn upload_wide(&self, values: &[f32]) -> crate::Result<CudaSlice<f32>> {
        Ok(self.device.stream.clone_htod(values).w()?)
    }

    fn download_wide(&self, values: &CudaSlice<f32>) -> crate::Result<Vec<f32>> {
        self.to_vec(values)
    }

    fn squared_error(
        &self,
        sizes: [usize; 2],
        y: View<'_, T>,
        targets: View<'_, T>,
        weights: Option<&CudaSlice<f32>>,
        total: &mut CudaSlice<f32>,
    ) -> crate::Result<CudaSlice<T>> {
        self.squares(sizes, (y, targets), weights, total)
    }
}
