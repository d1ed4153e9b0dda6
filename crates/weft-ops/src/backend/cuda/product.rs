//! The products of a linear map: its outputs, its input's gradient and its weight's, for one network or a population.
//!
//! cuBLAS counts columns first; a row-major `[r, c]` is its `c × r` matrix. The comments below name matrices its way.

use super::super::{Batch, Linear};
use super::Cuda;
use super::multiply::{Product, Side, Target};
use super::view::{CudaReal, View, address};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// Outputs of a linear map, and whether the bias is in them.
pub(super) struct Outputs<T> {
    pub(super) values: CudaSlice<T>,
    pub(super) biased: bool,
}

impl<T: CudaReal> Cuda<T> {
    /// `x·Wᵀ + b`, the bias in the same kernel where its address allows it.
    pub(super) fn product_forward(
        &self,
        map: &Linear,
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
    ) -> crate::Result<Outputs<T>> {
        let values = self.buffer(batch.networks * batch.rows * map.outputs)?;
        let bias = Self::bias(map, batch, theta);
        let mut biased = bias.is_some() && self.product_into(map, batch, (x, theta), &values, (None, bias))?;
        if !biased {
            self.product_into(map, batch, (x, theta), &values, (None, None))?;
            biased = map.bias.is_none();
        }
        Ok(Outputs { values, biased })
    }

    /// `residual + x·Wᵀ + b` of one network in one kernel, where that can be.
    pub(super) fn product_residual(
        &self,
        map: &Linear,
        rows: usize,
        (x, theta): (View<'_, T>, View<'_, T>),
        residual: View<'_, T>,
    ) -> crate::Result<Option<CudaSlice<T>>> {
        assert_eq!(residual.len(), rows * map.outputs, "residual of another length");
        let batch = Batch::one(rows);
        let bias = Self::bias(map, batch, theta);
        if bias.is_none() && map.bias.is_some() {
            return Ok(None);
        }
        let values = self.buffer(rows * map.outputs)?;
        let queued = self.product_into(map, batch, (x, theta), &values, (Some(residual.address()), bias))?;
        Ok(queued.then_some(values))
    }

    fn product_into(
        &self,
        map: &Linear,
        batch: Batch,
        (x, theta): (View<'_, T>, View<'_, T>),
        y: &CudaSlice<T>,
        (addend, bias): (Option<u64>, Option<(u64, usize)>),
    ) -> crate::Result<bool> {
        let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
        let weight = weight(map, batch, theta, !map.input_major);
        let target = Target { address: address(y), leading: outputs, stride: rows * outputs, bf16: T::BF16, addend, bias };
        self.multiply([outputs, rows, inputs], batch, [weight, input(map, batch, x, false)], target)
    }

    /// `dy·W`.
    pub(super) fn backward_input(
        &self,
        map: &Linear,
        batch: Batch,
        theta: View<'_, T>,
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
        let dx = self.buffer(batch.networks * rows * inputs)?;
        let weight = weight(map, batch, theta, map.input_major);
        let target =
            Target { address: address(&dx), leading: inputs, stride: rows * inputs, bf16: T::BF16, addend: None, bias: None };
        self.multiply([inputs, rows, outputs], batch, [weight, output(map, batch, dy, false)], target)?;
        Ok(dx)
    }

    /// Adds `dyᵀ·x` and the sums of `dy`.
    pub(super) fn backward_parameters(
        &self,
        map: &Linear,
        batch: Batch,
        x: View<'_, T>,
        dy: View<'_, T>,
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
        check_parameters(batch, map.weight, inputs * outputs, gradient.len());
        let first = address(gradient) + (map.weight * size_of::<f32>()) as u64;
        let leading = if map.input_major { outputs } else { inputs };
        let target = Target { address: first, leading, stride: batch.stride, bf16: false, addend: Some(first), bias: None };
        if map.input_major {
            let sides = [output(map, batch, dy, false), input(map, batch, x, true)];
            self.multiply([outputs, inputs, rows], batch, sides, target)?;
        } else {
            let sides = [input(map, batch, x, false), output(map, batch, dy, true)];
            self.multiply([inputs, outputs, rows], batch, sides, target)?;
        }
        if let Some(bias) = map.bias {
            self.add_column_sums(dy, (batch.networks, outputs), gradient, (bias, batch.stride))?;
        }
        Ok(())
    }

    pub(super) fn multiply(&self, size: [usize; 3], batch: Batch, sides: [Side; 2], target: Target) -> crate::Result<bool> {
        self.device.multiply(&Product { size, networks: batch.networks, bf16: T::BF16, sides, target })
    }

    /// The bias of each network, if all start at a multiple of 16 bytes.
    fn bias(map: &Linear, batch: Batch, theta: View<'_, T>) -> Option<(u64, usize)> {
        let first = map.bias?;
        check_parameters(batch, first, map.outputs, theta.len());
        let address = theta.part(first, map.outputs).address();
        let aligned = address.is_multiple_of(16) && (batch.networks == 1 || batch.stride.is_multiple_of(T::WIDE));
        aligned.then_some((address, batch.stride))
    }
}

/// The weight as an `i × o` matrix where it is stored `[o, i]`, else as an `o × i` one.
fn weight<T>(map: &Linear, batch: Batch, theta: View<'_, T>, transposed: bool) -> Side {
    check_parameters(batch, map.weight, map.inputs * map.outputs, theta.len());
    let address = theta.part(map.weight, map.inputs * map.outputs).address();
    Side { address, leading: if map.input_major { map.outputs } else { map.inputs }, stride: batch.stride, transposed }
}

/// Inputs as an `i × r` matrix.
fn input<T>(map: &Linear, batch: Batch, x: View<'_, T>, transposed: bool) -> Side {
    let (len, networks) = (batch.rows * map.inputs, if batch.shared { 1 } else { batch.networks });
    assert_eq!(x.len(), networks * len, "inputs of a linear map");
    Side { address: x.address(), leading: map.inputs, stride: if batch.shared { 0 } else { len }, transposed }
}

/// Outputs as an `o × r` matrix.
fn output<T>(map: &Linear, batch: Batch, y: View<'_, T>, transposed: bool) -> Side {
    let len = batch.rows * map.outputs;
    assert_eq!(y.len(), batch.networks * len, "outputs of a linear map");
    Side { address: y.address(), leading: map.outputs, stride: len, transposed }
}

/// Checks that each network's parameters `first..first + len` lie inside.
pub(super) fn check_parameters(batch: Batch, first: usize, len: usize, parameters: usize) {
    let last = batch.networks.saturating_sub(1) * batch.stride;
    assert!(last + first + len <= parameters, "parameters {first} + {len} of {} networks lie outside {parameters}", batch.networks);
}
