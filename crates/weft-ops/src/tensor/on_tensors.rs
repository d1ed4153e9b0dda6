//! Backends that read the values of candle's tensors and give theirs back without a copy.

use crate::backend::{Backend, Cpu, Real};
use candle_core::{Device, Layout, Storage, Tensor, WithDType};

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

    /// Makes a buffer of higher precision a tensor's, in `f32` or `f64`.
    fn wide_storage(&self, buffer: Self::Wide) -> Storage;
}

/// What is done on a backend.
pub(super) trait VisitBackend<R> {
    fn visit<B: OnTensors>(self, backend: &B) -> crate::Result<R>;
}

/// Does it in `f32` on a tensor's device.
pub(super) fn on_device_of<R>(tensor: &Tensor, visit: impl VisitBackend<R>) -> crate::Result<R> {
    match tensor.device() {
        Device::Cpu => visit.visit(&Cpu::<f32>::new()),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => visit.visit(&Cuda::<f32>::new(device)?),
        other => {
            let reason = "networks do not run there".to_owned();
            Err(crate::Error::Device { device: format!("{:?}", other.location()), reason })
        }
    }
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

    fn wide_storage(&self, buffer: Self::Wide) -> Storage {
        self.storage(buffer)
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

    fn wide_storage(&self, buffer: Self::Wide) -> Storage {
        Storage::Cuda(CudaStorage::wrap_cuda_slice(buffer, self.candle().clone()))
    }
}
