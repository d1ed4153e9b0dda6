//! Low-rank updates of a population: two products of all networks, of which the second is added to columns.
//!
//! As in `product.rs`, comments name matrices columns first.

use super::super::{Batch, LowRank};
use super::Cuda;
use super::multiply::{Side, Target};
use super::product::check_parameters;
use super::view::{CudaReal, View, address};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// `A` as an `i × rank` matrix and `B` as a `rank × o` one.
fn factors<T>(update: &LowRank, batch: Batch, theta: View<'_, T>) -> [Side; 2] {
    let side = |first: usize, len: usize, leading: usize| {
        check_parameters(batch, first, len, theta.len());
        Side { address: theta.part(first, len).address(), leading, stride: batch.stride, transposed: false }
    };
    [side(update.a, update.rank * update.inputs, update.inputs), side(update.b, update.outputs * update.rank, update.rank)]
}

fn transposed(side: Side) -> Side {
    Side { transposed: true, ..side }
}

/// Rows of values as a `width × r` matrix.
fn rows(address: u64, batch: Batch, width: usize) -> Side {
    Side { address, leading: width, stride: batch.rows * width, transposed: false }
}

/// Where the updated columns of outputs start.
fn columns<T>(update: &LowRank, values: u64) -> u64 {
    values + (update.first * size_of::<T>()) as u64
}

fn target<T: CudaReal>(address: u64, leading: usize, stride: usize, add: bool) -> Target {
    Target { address, leading, stride, bf16: T::BF16, addend: add.then_some(address), bias: None }
}

fn check(update: &LowRank, batch: Batch, x: usize, y: usize) {
    let values = batch.networks * batch.rows;
    assert!(update.first + update.outputs <= update.columns && !batch.shared, "columns of the map that is updated");
    assert!(x == values * update.inputs && y == values * update.columns, "inputs and outputs of a low-rank update");
}

impl<T: CudaReal> Cuda<T> {
    /// Adds the updates to `y`, and returns `x·Aᵀ`.
    pub(super) fn add_low_rank(
        &self,
        update: &LowRank,
        batch: Batch,
        (x, theta): (View<'_, T>, View<'_, T>),
        y: &mut CudaSlice<T>,
    ) -> crate::Result<CudaSlice<T>> {
        check(update, batch, x.len(), y.len());
        let &LowRank { inputs, outputs, rank, .. } = update;
        let [a, b] = factors(update, batch, theta);
        let low = self.buffer(batch.networks * batch.rows * rank)?;
        let to_low = target::<T>(address(&low), rank, batch.rows * rank, false);
        self.multiply([rank, batch.rows, inputs], batch, [transposed(a), rows(x.address(), batch, inputs)], to_low)?;
        let scaled = self.scaled(update.scale, View::from(&low))?;
        let to_y = target::<T>(columns::<T>(update, address(y)), update.columns, batch.rows * update.columns, true);
        self.multiply([outputs, batch.rows, rank], batch, [transposed(b), rows(address(&scaled), batch, rank)], to_y)?;
        Ok(low)
    }

    /// Adds the gradients of `A` and `B`, and that of `x` to `dx`.
    pub(super) fn backward_low_rank(
        &self,
        update: &LowRank,
        batch: Batch,
        (x, low): (View<'_, T>, View<'_, T>),
        theta: View<'_, T>,
        (dy, dx): (View<'_, T>, Option<&mut CudaSlice<T>>),
        gradient: &mut CudaSlice<f32>,
    ) -> crate::Result<()> {
        check(update, batch, x.len(), dy.len());
        let &LowRank { inputs, outputs, rank, .. } = update;
        assert_eq!(low.len(), batch.networks * batch.rows * rank, "what the forward pass returned");
        let [a, b] = factors(update, batch, theta);
        let of_dy = Side { address: columns::<T>(update, dy.address()), ..rows(dy.address(), batch, update.columns) };
        let d_low = self.buffer(low.len())?;
        let to_low = target::<T>(address(&d_low), rank, batch.rows * rank, false);
        self.multiply([rank, batch.rows, outputs], batch, [b, of_dy], to_low)?;
        let d_low = self.scaled(update.scale, View::from(&d_low))?;
        let low = self.scaled(update.scale, low)?;
        let of_gradient = |first: usize, len: usize, leading: usize| {
            check_parameters(batch, first, len, gradient.len());
            let address = address(&*gradient) + (first * size_of::<f32>()) as u64;
            Target { address, leading, stride: batch.stride, bf16: false, addend: Some(address), bias: None }
        };
        let to_b = of_gradient(update.b, outputs * rank, rank);
        self.multiply([rank, outputs, batch.rows], batch, [rows(address(&low), batch, rank), transposed(of_dy)], to_b)?;
        let to_a = of_gradient(update.a, rank * inputs, inputs);
        let of_low = rows(address(&d_low), batch, rank);
        self.multiply([inputs, rank, batch.rows], batch, [rows(x.address(), batch, inputs), transposed(of_low)], to_a)?;
        if let Some(dx) = dx {
            assert_eq!(dx.len(), x.len(), "gradient of another length");
            let to_x = target::<T>(address(dx), inputs, batch.rows * inputs, true);
            self.multiply([inputs, batch.rows, rank], batch, [a, of_low], to_x)?;
        }
        Ok(())
    }
}
