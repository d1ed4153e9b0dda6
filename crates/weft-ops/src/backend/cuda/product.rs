//! Matrix products by cuBLAS: of a linear map, its input's gradient and its weight's, for one network or a population.
//!
//! cuBLAS counts columns first; a row-major `[r, c]` is its `c × r` matrix. The comments below name matrices its way.

use super::super::{Batch, Linear};
use super::Cuda;
use super::view::{CudaReal, View, address};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result, sys};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// A side of a product: where it starts, the distance of its columns, that of networks, and whether it is transposed.
#[derive(Clone, Copy)]
struct Side {
    address: u64,
    leading: usize,
    stride: usize,
    transposed: bool,
}

/// Where a product goes.
#[derive(Clone, Copy)]
struct Target {
    address: u64,
    leading: usize,
    stride: usize,
    kind: sys::cudaDataType,
    /// Whether it is added to what is there.
    add: bool,
}

impl Side {
    fn operation(self) -> sys::cublasOperation_t {
        if self.transposed { sys::cublasOperation_t::CUBLAS_OP_T } else { sys::cublasOperation_t::CUBLAS_OP_N }
    }
}

impl<T: CudaReal> Cuda<T> {
    /// `x·Wᵀ`, without the bias.
    pub(super) fn product_forward(
        &self,
        map: &Linear,
        batch: Batch,
        x: View<'_, T>,
        theta: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
        let y = self.buffer(batch.networks * rows * outputs)?;
        let weight = self.weight(map, batch, theta, !map.input_major);
        let target = Target { address: address(&y), leading: outputs, stride: rows * outputs, kind: T::KIND, add: false };
        self.multiply([outputs, rows, inputs], batch.networks, weight, input(map, batch, x, false), target)?;
        Ok(y)
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
        let weight = self.weight(map, batch, theta, map.input_major);
        let target = Target { address: address(&dx), leading: inputs, stride: rows * inputs, kind: T::KIND, add: false };
        self.multiply([inputs, rows, outputs], batch.networks, weight, output(map, batch, dy, false), target)?;
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
        let target = Target {
            address: address(gradient) + (map.weight * size_of::<f32>()) as u64,
            leading: if map.input_major { outputs } else { inputs },
            stride: batch.stride,
            kind: f32::KIND,
            add: true,
        };
        if map.input_major {
            let (dy, x) = (output(map, batch, dy, false), input(map, batch, x, true));
            self.multiply([outputs, inputs, rows], batch.networks, dy, x, target)?;
        } else {
            let (x, dy) = (input(map, batch, x, false), output(map, batch, dy, true));
            self.multiply([inputs, outputs, rows], batch.networks, x, dy, target)?;
        }
        if let Some(bias) = map.bias {
            self.add_column_sums(dy, (batch.networks, outputs), gradient, (bias, batch.stride))?;
        }
        Ok(())
    }

    /// The weight as an `i × o` matrix where it is stored `[o, i]`, else as an `o × i` one.
    fn weight(&self, map: &Linear, batch: Batch, theta: View<'_, T>, transposed: bool) -> Side {
        check_parameters(batch, map.weight, map.inputs * map.outputs, theta.len());
        Side {
            address: theta.part(map.weight, map.inputs * map.outputs).address(),
            leading: if map.input_major { map.outputs } else { map.inputs },
            stride: batch.stride,
            transposed,
        }
    }

    /// `target = a·b`, `m × n` with an inner length of `k`.
    fn multiply(&self, [m, n, k]: [usize; 3], networks: usize, a: Side, b: Side, target: Target) -> crate::Result<()> {
        if networks * m * n * k == 0 {
            return Ok(());
        }
        let size = |value: usize| i32::try_from(value).map_err(candle_core::Error::from);
        let ([m, n, k], networks) = ([size(m)?, size(n)?, size(k)?], size(networks)?);
        let [lda, ldb, ldc] = [size(a.leading)?, size(b.leading)?, size(target.leading)?];
        let (one, beta) = (1.0f32, if target.add { 1.0f32 } else { 0.0 });
        let (one, beta) = ((&raw const one).cast(), (&raw const beta).cast());
        let (left, right, to) = (a.address as *const _, b.address as *const _, target.address as *mut _);
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let algorithm = sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT;
        let handle = *self.device.blas.handle();
        self.device.stream.context().bind_to_thread().w()?;
        if networks == 1 {
            // SAFETY: callers check that all three matrices lie inside what they borrow (`input`, `output` and `check_parameters`); the
            // factors are on this frame and read before the call returns, as cuBLAS reads them from the host.
            let queued = unsafe {
                result::gemm_ex(
                    handle,
                    a.operation(),
                    b.operation(),
                    m,
                    n,
                    k,
                    one,
                    left,
                    T::KIND,
                    lda,
                    right,
                    T::KIND,
                    ldb,
                    beta,
                    to,
                    target.kind,
                    ldc,
                    compute,
                    algorithm,
                )
            };
            return Ok(queued.w()?);
        }
        // SAFETY: as above, for each network; strides are those of the checked lengths.
        let queued = unsafe {
            result::gemm_strided_batched_ex(
                handle,
                a.operation(),
                b.operation(),
                m,
                n,
                k,
                one,
                left,
                T::KIND,
                lda,
                a.stride as i64,
                right,
                T::KIND,
                ldb,
                b.stride as i64,
                beta,
                to,
                target.kind,
                ldc,
                target.stride as i64,
                networks,
                compute,
                algorithm,
            )
        };
        Ok(queued.w()?)
    }
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
