//! What kernels are given: addresses on the device, with their length and what they borrow.

use super::device::Kernels;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DeviceRepr, ValidAsZeroBits};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// A type that a GPU computes in: `f32` or `bf16`.
pub trait CudaReal:
    sealed::Sealed + DeviceRepr + ValidAsZeroBits + Copy + Default + Send + Sync + std::fmt::Debug + 'static
{
    /// Its name.
    const NAME: &'static str;
    #[doc(hidden)]
    const BF16: bool;
    /// Values of a 16-byte access.
    #[doc(hidden)]
    const WIDE: usize = 16 / size_of::<Self>();
    /// Rounds.
    fn from_f32(value: f32) -> Self;
    /// Converts.
    fn to_f32(self) -> f32;
}

impl CudaReal for f32 {
    const NAME: &'static str = "f32";
    const BF16: bool = false;

    fn from_f32(value: f32) -> Self {
        value
    }
    fn to_f32(self) -> f32 {
        self
    }
}

impl CudaReal for half::bf16 {
    const NAME: &'static str = "bf16";
    const BF16: bool = true;

    fn from_f32(value: f32) -> Self {
        Self::from_f32(value)
    }
    fn to_f32(self) -> f32 {
        Self::to_f32(self)
    }
}

/// The kernels of each type, once they are loaded.
#[derive(Debug, Default)]
pub(super) struct PerType([OnceLock<Arc<Kernels>>; 2]);

impl PerType {
    pub(super) fn of<T: CudaReal>(&self) -> &OnceLock<Arc<Kernels>> {
        &self.0[usize::from(T::BF16)]
    }
}

/// A borrowed part of a buffer on the device.
#[derive(Debug)]
pub struct View<'a, T> {
    address: u64,
    len: usize,
    /// Where the same values lie in `f32`, if they do: 0, or the master of parameters that these are rounded from.
    master: u64,
    marker: PhantomData<&'a [T]>,
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> From<&'a CudaSlice<T>> for View<'a, T> {
    fn from(slice: &'a CudaSlice<T>) -> Self {
        Self { address: address(slice), len: slice.len(), master: 0, marker: PhantomData }
    }
}

impl<'a, T> From<&CudaView<'a, T>> for View<'a, T> {
    fn from(view: &CudaView<'a, T>) -> Self {
        Self { address: address(view), len: view.len(), master: 0, marker: PhantomData }
    }
}

impl<'a, T> View<'a, T> {
    /// Values.
    #[must_use]
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Values `first..first + len`.
    ///
    /// # Panics
    /// If they lie outside.
    #[must_use]
    pub fn part(self, first: usize, len: usize) -> Self {
        assert!(first <= self.len && len <= self.len - first, "{first} + {len} of {} values", self.len);
        let master = if self.master == 0 { 0 } else { self.master + (first * size_of::<f32>()) as u64 };
        Self { address: self.address + (first * size_of::<T>()) as u64, len, master, marker: PhantomData }
    }

    pub(super) fn address(self) -> u64 {
        self.address
    }

    /// The same values as `f32` are `T`s, where these are one type.
    pub(super) fn of_master(master: &'a CudaSlice<f32>) -> Self
    where
        T: CudaReal,
    {
        assert!(!T::BF16, "the master is the computation's copy in f32 alone");
        Self { address: address(master), len: master.len(), master: 0, marker: PhantomData }
    }

    /// Parameters, and what they were rounded from.
    pub(super) fn rounded(copy: &'a CudaSlice<T>, master: &'a CudaSlice<f32>) -> Self {
        assert_eq!(copy.len(), master.len(), "a copy of another length");
        Self { address: address(copy), len: copy.len(), master: address(master), marker: PhantomData }
    }

    /// Where these values lie before they were rounded, or 0.
    pub(super) fn master(self) -> u64 {
        self.master
    }
}

/// Where values lie on the device.
pub(super) fn address<T>(values: &impl DevicePtr<T>) -> u64 {
    values.device_ptr(values.stream()).0
}

/// A kernel's argument: any of at most 8 bytes, in the low ones.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arg(u64);

impl Arg {
    pub(super) fn word(self) -> u64 {
        self.0
    }
}

impl From<u64> for Arg {
    fn from(value: u64) -> Self {
        Self(value.to_le())
    }
}

impl From<usize> for Arg {
    fn from(value: usize) -> Self {
        Self::from(value as u64)
    }
}

impl From<bool> for Arg {
    fn from(value: bool) -> Self {
        Self::from(u64::from(value))
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Self {
        Self::from(u64::from(value.to_bits()))
    }
}

impl<T> From<View<'_, T>> for Arg {
    fn from(view: View<'_, T>) -> Self {
        Self::from(view.address)
    }
}

impl<T> From<Option<View<'_, T>>> for Arg {
    fn from(view: Option<View<'_, T>>) -> Self {
        Self::from(view.map_or(0, |view| view.address))
    }
}

impl<T> From<&CudaSlice<T>> for Arg {
    fn from(slice: &CudaSlice<T>) -> Self {
        Self::from(address(slice))
    }
}

impl<T> From<&mut CudaSlice<T>> for Arg {
    fn from(slice: &mut CudaSlice<T>) -> Self {
        Self::from(address(slice))
    }
}
