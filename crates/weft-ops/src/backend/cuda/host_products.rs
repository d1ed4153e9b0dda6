//! Products of matrices in the host's memory: they go to the GPU and come back.
//!
//! Rows are centered, scaled and widened to `f64` there, a block of columns at a time, so that what is sent is the weights as they are.
//! One product is computed at a time.

use super::compile::Source;
use super::device::{Device, Grid};
use super::multiply::{Product, Side, Target};
use super::view::address;
use candle_core::cuda_backend::cudarc::cublas::{Gemm as _, GemmConfig, sys as cublas};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaSlice};
use candle_core::cuda_backend::{CudaDevice, WrapErr};
use std::error::Error as _;
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use weft_core::products::{Normalized, Products, View};

/// Multiplications below which a product stays on the cores: some milliseconds of two of them, where a copy to a GPU and back takes
/// tenths of one to begin with.
const LEAST_WORK: usize = 1 << 28;
/// Multiplications a value that is sent or fetched, at least, for each core that could do them instead: at 8 GB/s of copies, 24 of them
/// are 96 GFLOP/s.
const LEAST_REUSE: usize = 24;
/// Values of a block of columns, at most: with its copy in `f64`, 1.5 GiB.
const BLOCK_VALUES: usize = 1 << 27;
/// Values of all matrices of a product in `f32`, at most: 4 GiB.
const MOST_VALUES: usize = 1 << 30;

/// Whether a product `[m, k]·[k, n]` is worth the way to the GPU from beside that many cores.
fn pays([m, k, n]: [usize; 3], cores: usize) -> bool {
    let work = m.saturating_mul(k).saturating_mul(n);
    work >= LEAST_WORK && work / (LEAST_REUSE * cores) >= m * k + k * n + m * n
}

/// Products of the host's matrices on a GPU.
pub struct HostProducts {
    device: Arc<Device>,
    kernels: OnceLock<Kernels>,
    /// Cores of the host.
    cores: usize,
    /// Why the device failed; held while it works.
    failure: Mutex<Option<String>>,
}

struct Kernels {
    center: CudaFunction,
    center_wide: CudaFunction,
    round_wide: CudaFunction,
}

/// A matrix on the device, row-major or its transpose.
struct Matrix {
    values: CudaSlice<f32>,
    leading: usize,
    transposed: bool,
}

impl Matrix {
    /// As cuBLAS takes it, which reads rows as columns.
    fn side(&self) -> Side {
        Side { address: address(&self.values), leading: self.leading, stride: 0, transposed: self.transposed }
    }
}

impl std::fmt::Debug for HostProducts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostProducts(cuda:{})", self.device.ordinal)
    }
}

impl HostProducts {
    /// Prepares a device of candle's.
    ///
    /// # Errors
    /// As [`Cuda::new`](super::Cuda::new).
    pub fn new(device: &CudaDevice) -> crate::Result<Self> {
        Self::beside(device, rayon::current_num_threads())
    }

    /// The same beside so many cores, which could do the products instead: the more there are, the more of the small ones are left to them.
    ///
    /// # Errors
    /// As [`HostProducts::new`].
    pub fn beside(device: &CudaDevice, cores: usize) -> crate::Result<Self> {
        let cores = cores.max(1);
        Ok(Self { device: Device::of(device)?, kernels: OnceLock::new(), cores, failure: Mutex::default() })
    }

    /// Does some work unless the device has failed; whether it was done.
    fn attempt(&self, work: impl FnOnce() -> crate::Result<()>) -> bool {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_some() {
            return false;
        }
        let Err(error) = work() else { return true };
        let causes = std::iter::successors(error.source(), |&cause| cause.source());
        *failure = Some(causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}")));
        false
    }

    fn kernels(&self) -> crate::Result<&Kernels> {
        if let Some(kernels) = self.kernels.get() {
            return Ok(kernels);
        }
        let source = Source { files: &[include_str!("kernels/products.cu")], constants: &[] };
        let module = source.load(self.device.stream.context())?;
        let function = |name: &str| module.load_function(name).w();
        let kernels =
            Kernels { center: function("center")?, center_wide: function("center_wide")?, round_wide: function("round_wide")? };
        Ok(self.kernels.get_or_init(|| kernels))
    }

    fn send<T: candle_core::cuda_backend::cudarc::driver::DeviceRepr>(&self, values: &[T]) -> crate::Result<CudaSlice<T>> {
        Ok(self.device.stream.clone_htod(values).w()?)
    }

    /// Waits for values and copies them to the host.
    fn fetch<T: candle_core::cuda_backend::cudarc::driver::DeviceRepr>(
        &self,
        values: &CudaSlice<T>,
        target: &mut [T],
    ) -> crate::Result<()> {
        self.device.stream.synchronize().w()?;
        self.device.stream.memcpy_dtoh(values, target).w()?;
        Ok(self.device.stream.synchronize().w()?)
    }

    /// Sends a matrix as it lies, without gaps between its rows.
    fn send_matrix(&self, view: View<'_>) -> crate::Result<Matrix> {
        let ([rows, columns], [row_stride, column_stride]) = (view.shape(), view.strides());
        let transposed = column_stride != 1;
        let (rows, columns, stride) = if transposed { (columns, rows, column_stride) } else { (rows, columns, row_stride) };
        let values = if stride == columns {
            self.send(&view.data()[..rows * columns])?
        } else {
            let mut dense = vec![0.0; rows * columns];
            // On this thread: one that waited for others here might take up work of theirs that wants the device too.
            for (r, row) in dense.chunks_exact_mut(columns).enumerate() {
                row.copy_from_slice(&view.data()[r * stride..][..columns]);
            }
            self.send(&dense)?
        };
        Ok(Matrix { values, leading: columns, transposed })
    }

    /// Queues `target = a·b`, or `+=`, for a dense row-major target `[m, n]` and an inner length of `k`.
    fn queue(&self, [m, k, n]: [usize; 3], a: &Matrix, b: &Matrix, (target, add): (&CudaSlice<f32>, bool)) -> crate::Result<()> {
        self.device.stream.context().bind_to_thread().w()?;
        let address = address(target);
        let target = Target { address, leading: n, stride: 0, bf16: false, addend: add.then_some(address), bias: None };
        let product = Product { size: [n, m, k], networks: 1, bf16: false, sides: [b.side(), a.side()], target };
        let queued = self.device.multiply_plainly(&product)?;
        debug_assert!(queued, "without a bias, every product is known");
        Ok(())
    }

    /// Columns of rows on the device, as they are `[n, columns]`, with their means and scales.
    fn send_columns(&self, rows: Normalized<'_>, columns: &Range<usize>) -> crate::Result<[CudaSlice<f32>; 3]> {
        let [n, d] = rows.shape();
        let view = View::strided(&rows.values()[columns.start..], n, columns.len(), d);
        let values = self.send_matrix(view)?.values;
        Ok([values, self.send(&rows.mean()[columns.clone()])?, self.send(&rows.scale()[columns.clone()])?])
    }

    /// The same, centered and scaled.
    fn send_centered(&self, rows: Normalized<'_>, columns: &Range<usize>) -> crate::Result<CudaSlice<f32>> {
        let [mut values, mean, scale] = self.send_columns(rows, columns)?;
        let (center, len) = (&self.kernels()?.center, values.len());
        let arguments = [(&mut values).into(), (&mean).into(), (&scale).into(), columns.len().into(), len.into()];
        self.device.launch(center, Grid::each(len), arguments)?;
        Ok(values)
    }

    /// The same in `f64`.
    fn send_wide(&self, rows: Normalized<'_>, columns: &Range<usize>) -> crate::Result<CudaSlice<f64>> {
        let [values, mean, scale] = self.send_columns(rows, columns)?;
        let len = values.len();
        let wide = self.device.uninit(len)?;
        let arguments = [(&wide).into(), (&values).into(), (&mean).into(), (&scale).into(), columns.len().into(), len.into()];
        self.device.launch(&self.kernels()?.center_wide, Grid::each(len), arguments)?;
        Ok(wide)
    }

    /// Queues `c = op(a)·b`, or `+=`, in `f64`, of matrices whose columns lie one behind the other: `m × n` with an inner length of `k`.
    fn queue_wide(
        &self,
        [m, n, k]: [usize; 3],
        (a, transposed): (&CudaSlice<f64>, bool),
        b: &CudaSlice<f64>,
        (c, add): (&mut CudaSlice<f64>, bool),
    ) -> crate::Result<()> {
        assert!(a.len() >= m * k && b.len() >= k * n && c.len() >= m * n, "matrices of other sizes");
        let size = |value: usize| i32::try_from(value).map_err(candle_core::Error::from);
        let config = GemmConfig {
            transa: if transposed { cublas::cublasOperation_t::CUBLAS_OP_T } else { cublas::cublasOperation_t::CUBLAS_OP_N },
            transb: cublas::cublasOperation_t::CUBLAS_OP_N,
            m: size(m)?,
            n: size(n)?,
            k: size(k)?,
            alpha: 1.0,
            lda: size(if transposed { k } else { m })?,
            ldb: size(k)?,
            beta: if add { 1.0 } else { 0.0 },
            ldc: size(m)?,
        };
        self.device.stream.context().bind_to_thread().w()?;
        // SAFETY: the matrices are dense, on this device, and as large as the sizes say (see above).
        Ok(unsafe { self.device.blas.gemm(config, a, b, c) }.w()?)
    }

    /// Adds the Gram matrix of rows, which is summed up over blocks of columns on the device.
    fn gram(&self, sum: &mut [f64], rows: Normalized<'_>) -> crate::Result<()> {
        let [n, d] = rows.shape();
        let mut gram = self.device.stream.alloc_zeros::<f64>(n * n).w()?;
        for columns in blocks(n, d) {
            // Row-major `[n, columns]` is cuBLAS's `columns × n`.
            let wide = self.send_wide(rows, &columns)?;
            self.queue_wide([n, n, columns.len()], (&wide, true), &wide, (&mut gram, true))?;
        }
        let mut fetched = vec![0.0; n * n];
        self.fetch(&gram, &mut fetched)?;
        sum.iter_mut().zip(fetched).for_each(|(sum, value)| *sum += value);
        Ok(())
    }

    fn combinations(&self, target: &mut [f32], u: &[f64], rows: Normalized<'_>) -> crate::Result<()> {
        let [n, d] = rows.shape();
        let k = u.len() / n;
        let u = self.send(u)?;
        for columns in blocks(n.max(k), d) {
            let width = columns.len();
            let wide = self.send_wide(rows, &columns)?;
            // `[k, columns] = u·X̃`, row-major, is cuBLAS's `columns × k = (columns × n)·(n × k)`.
            let mut sums = self.device.uninit::<f64>(k * width)?;
            self.queue_wide([width, k, n], (&wide, false), &u, (&mut sums, false))?;
            drop(wide);
            let rounded = self.device.uninit::<f32>(k * width)?;
            let arguments = [(&rounded).into(), (&sums).into(), (k * width).into()];
            self.device.launch(&self.kernels()?.round_wide, Grid::each(k * width), arguments)?;
            if width == d {
                self.fetch(&rounded, target)?;
            } else {
                let mut part = vec![0.0; k * width];
                self.fetch(&rounded, &mut part)?;
                for (target, part) in target.chunks_exact_mut(d).zip(part.chunks_exact(width)) {
                    target[columns.clone()].copy_from_slice(part);
                }
            }
        }
        Ok(())
    }

    fn projection(&self, target: &mut [f32], rows: Normalized<'_>, transposed: bool, b: View<'_>) -> crate::Result<()> {
        let ([n, d], [_, l]) = (rows.shape(), b.shape());
        let whole = if transposed { Some(self.send_matrix(b)?) } else { None };
        let sum = self.device.uninit::<f32>(if transposed { 0 } else { n * l })?;
        let mut parts = Vec::new();
        for columns in blocks(n, d) {
            let width = columns.len();
            let values = self.send_centered(rows, &columns)?;
            let x = Matrix { values, leading: width, transposed };
            if let Some(b) = &whole {
                let part = self.device.uninit::<f32>(width * l)?;
                self.queue([width, n, l], &x, b, (&part, false))?;
                let start = parts.len();
                parts.resize(start + width * l, 0.0);
                self.fetch(&part, &mut parts[start..])?;
            } else {
                let b = self.send_matrix(b.rows_from(columns.start, width))?;
                self.queue([n, width, l], &x, &b, (&sum, columns.start > 0))?;
            }
        }
        if transposed {
            target.copy_from_slice(&parts);
            Ok(())
        } else {
            self.fetch(&sum, target)
        }
    }

    fn product(&self, target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) -> crate::Result<()> {
        let ([m, k], [_, n]) = (a.shape(), b.shape());
        let (a, b) = (self.send_matrix(a)?, self.send_matrix(b)?);
        if !add {
            let sum = self.device.uninit(m * n)?;
            self.queue([m, k, n], &a, &b, (&sum, false))?;
            return self.fetch(&sum, target);
        }
        let sum = self.send(target)?;
        self.queue([m, k, n], &a, &b, (&sum, true))?;
        // What the product is added to must survive a copy that fails.
        let mut fetched = vec![0.0; m * n];
        self.fetch(&sum, &mut fetched)?;
        target.copy_from_slice(&fetched);
        Ok(())
    }
}

/// Blocks of the columns of `[n, d]`.
fn blocks(n: usize, d: usize) -> impl Iterator<Item = Range<usize>> {
    let width = (BLOCK_VALUES / n.max(1)).clamp(1, d);
    (0..d).step_by(width).map(move |start| start..(start + width).min(d))
}

impl Products for HostProducts {
    fn multiply(&self, target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) -> bool {
        let ([m, k], [inner, n]) = (a.shape(), b.shape());
        assert!(k == inner && target.len() == m * n, "the shapes of a product fit");
        pays([m, k, n], self.cores) && m * k + k * n + m * n <= MOST_VALUES && self.attempt(|| self.product(target, a, b, add))
    }

    fn project(&self, target: &mut [f32], rows: Normalized<'_>, transposed: bool, b: View<'_>) -> bool {
        let ([n, d], [inner, l]) = (rows.shape(), b.shape());
        let (m, k) = if transposed { (d, n) } else { (n, d) };
        assert!(k == inner && target.len() == m * l, "the shapes of a product fit");
        pays([m, k, l], self.cores) && (n + d) * l <= MOST_VALUES && self.attempt(|| self.projection(target, rows, transposed, b))
    }

    fn add_gram(&self, sum: &mut [f64], rows: Normalized<'_>) -> bool {
        let [n, d] = rows.shape();
        assert_eq!(sum.len(), n * n, "a sum of another size");
        pays([n, d, n], self.cores) && n.saturating_mul(n) <= MOST_VALUES / 2 && self.attempt(|| self.gram(sum, rows))
    }

    fn combine(&self, target: &mut [f32], u: &[f64], rows: Normalized<'_>) -> bool {
        let [n, d] = rows.shape();
        let k = u.len() / n.max(1);
        assert!(u.len() == k * n && target.len() == k * d, "the shapes of a product fit");
        pays([k, n, d], self.cores) && k.saturating_mul(n) <= MOST_VALUES / 2 && self.attempt(|| self.combinations(target, u, rows))
    }

    fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_thin_products_stay_on_the_cores() {
        assert!(pays([768, 36_864, 768], 2) && pays([1_000, 26_506, 900], 2) && pays([900, 1_000, 26_506], 16));
        assert!(!pays([512, 784, 512], 2), "half a millisecond of work");
        assert!(!pays([20, 86_000_000, 20], 2), "every value is multiplied twenty times alone");
        assert!(pays([1_000, 99, 26_506], 2) && !pays([1_000, 99, 26_506], 16), "sixteen cores are done before the copy is");
    }

    #[test]
    fn blocks_are_all_columns_in_order() {
        assert_eq!(blocks(1_000, 26_506).collect::<Vec<_>>(), [0..26_506]);
        let wide: Vec<_> = blocks(1 << 20, 300).collect();
        assert_eq!(wide, [0..128, 128..256, 256..300]);
    }
}
