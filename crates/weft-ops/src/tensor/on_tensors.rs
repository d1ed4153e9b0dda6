//! Backends that read the values of candle's tensors and give theirs back without a copy.

use crate::backend::{Backend, Cpu, Real};
use candle_core::{Layout, Storage, WithDType};

#[cfg(feature = "cuda")]
use {
    crate::backend::{Cuda, CudaReal, DeviceView},
    candle_core::CudaStorage,
    candle_core::cuda_backend::CudaDType,
};

/// A backend whose buffers are those of tensors.
pub(super) trait OnTensors: Backend + 'static {
    /// Borrows the values of a contiguous tensor.
    fn lend<'a>(&self, storage: &'a Storage, layout: &Layout) -> candle_core::Result<Self::View<'a>>;

    /// Makes a buffer a tensor's.
    fn storage(&self, buffer: Self::Buffer) -> Storage;
}

impl<T: Real + WithDType> OnTensors for Cpu<T> {
    fn lend<'a>(&self, storage: &'a Storage, layout: &Layout) -> candle_core::Result<&'a [T]> {
        let Storage::Cpu(storage) = storage else { candle_core::bail!("the parameters are on another device than the inputs") };
        match layout.contiguous_offsets() {
            Some((start, end)) => Ok(&storage.as_slice::<T>()?[start..end]),
            None => candle_core::bail!("a network reads contiguous tensors"),
        }
    }

    fn storage(&self, buffer: Self::Buffer) -> Storage {
        Storage::Cpu(T::to_cpu_storage_owned(buffer.into_vec()))
    }
}

#[cfg(feature = "cuda")]
impl<T: CudaReal + CudaDType> OnTensors for Cuda<T> {
    fn lend<'a>(&self, storage: &'a Storage, layout: &Layout) -> candle_core::Result<DeviceView<'a, T>> {
        let Storage::Cuda(storage) = storage else { candle_core::bail!("the parameters are on another device than the inputs") };
        match layout.contiguous_offsets() {
            Some((start, end)) => Ok(DeviceView::from(storage.as_cuda_slice::<T>()?).part(start, end - start)),
            None => candle_core::bail!("a network reads contiguous tensors"),
        }
    }

    fn storage(&self, buffer: Self::Buffer) -> Storage {
        Storage::Cuda(CudaStorage::wrap_cuda_slice(buffer, self.candle().clone()))
    }
}
