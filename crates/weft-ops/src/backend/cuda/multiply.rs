//! One product by cuBLAS, with what it is added to and a bias in the same kernel.
//!
//! Which of cuBLAS's kernels suits a product is asked once for each kind of it; to ask again each time costs more than a small
//! network's product itself.

use super::device::Device;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::cublas::{result as blas, sys as blas_sys};
use candle_core::cuda_backend::cudarc::cublaslt::{result, result::CublasError, sys};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// A side of a product: where it starts, the distance of its columns, that of networks, and whether it is transposed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    pub(super) address: u64,
    pub(super) leading: usize,
    pub(super) stride: usize,
    pub(super) transposed: bool,
}

/// Where a product goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target {
    pub(super) address: u64,
    pub(super) leading: usize,
    pub(super) stride: usize,
    /// Whether it is `bf16`; otherwise it is `f32`.
    pub(super) bf16: bool,
    /// What it is added to, of the same layout: nothing, what is there already, or other values.
    pub(super) addend: Option<u64>,
    /// A value for each row of the `m × n` matrix, and the distance from one network's to the next's.
    pub(super) bias: Option<(u64, usize)>,
}

/// A product of networks: `m × n` with an inner length of `k`, of sides in one type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) size: [usize; 3],
    pub(super) networks: usize,
    pub(super) bf16: bool,
    pub(super) sides: [Side; 2],
    pub(super) target: Target,
}

/// All that the choice of a kernel depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    size: [usize; 3],
    networks: usize,
    bf16: [bool; 2],
    leading: [usize; 3],
    strides: [usize; 3],
    transposed: [bool; 2],
    alignments: [u32; 4],
    bias: Option<usize>,
}

/// Bytes that an address is a multiple of, up to those of the widest access.
fn alignment(address: u64) -> u32 {
    1 << address.trailing_zeros().min(4)
}

impl Product {
    fn kind(&self) -> Kind {
        let ([a, b], to) = (self.sides, self.target);
        let addend = to.addend.unwrap_or(to.address);
        let out = to.address | to.bias.map_or(0, |(bias, _)| bias);
        Kind {
            size: self.size,
            networks: self.networks,
            bf16: [self.bf16, to.bf16],
            leading: [a.leading, b.leading, to.leading],
            strides: [a.stride, b.stride, to.stride],
            transposed: [a.transposed, b.transposed],
            alignments: [a.address, b.address, addend, out].map(alignment),
            bias: to.bias.map(|(_, stride)| stride),
        }
    }
}

/// A matrix's layout, given back when dropped.
struct Layout(sys::cublasLtMatrixLayout_t);

impl Layout {
    fn new(
        bf16: bool,
        [rows, columns]: [usize; 2],
        leading: usize,
        (networks, stride): (usize, usize),
    ) -> Result<Self, CublasError> {
        let kind = if bf16 { sys::cudaDataType::CUDA_R_16BF } else { sys::cudaDataType::CUDA_R_32F };
        let layout = Self(result::create_matrix_layout(kind, rows as u64, columns as u64, leading as i64)?);
        let (networks, stride) = (networks as i32, stride as i64);
        let count = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
        let offset = sys::cublasLtMatrixLayoutAttribute_t::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
        // SAFETY: the layout was just made; the attributes' values are an `i32` and an `i64` of this frame.
        unsafe {
            result::set_matrix_layout_attribute(layout.0, count, (&raw const networks).cast(), size_of::<i32>())?;
            result::set_matrix_layout_attribute(layout.0, offset, (&raw const stride).cast(), size_of::<i64>())?;
        }
        Ok(layout)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: it was made by `new` and is given back once. An error would leave nothing to be done.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

/// A product's description, given back when dropped.
struct Description(sys::cublasLtMatmulDesc_t);

impl Description {
    fn set<V>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: &V) -> Result<(), CublasError> {
        // SAFETY: the description is alive; callers pass a value of the attribute's type, which is copied.
        unsafe { result::set_matmul_desc_attribute(self.0, attribute, std::ptr::from_ref(value).cast(), size_of::<V>()) }
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was made by `Plan::new` and is given back once. An error would leave nothing to be done.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

/// What to look for, given back when dropped.
struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn set<V>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: &V) -> Result<(), CublasError> {
        // SAFETY: the preference is alive; callers pass a value of the attribute's type, which is copied.
        unsafe { result::set_matmul_pref_attribute(self.0, attribute, std::ptr::from_ref(value).cast(), size_of::<V>()) }
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: it was made by `Plan::new` and is given back once. An error would leave nothing to be done.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

/// How a kind of product is computed.
struct Plan {
    description: Description,
    layouts: [Layout; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
}

impl Plan {
    fn new(handle: sys::cublasLtHandle_t, kind: &Kind, bias: Option<u64>, workspace: usize) -> Result<Self, CublasError> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
        let [m, n, k] = kind.size;
        let description =
            Description(result::create_matmul_desc(sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, sys::cudaDataType::CUDA_R_32F)?);
        for (attribute, transposed) in
            [Attribute::CUBLASLT_MATMUL_DESC_TRANSA, Attribute::CUBLASLT_MATMUL_DESC_TRANSB].into_iter().zip(kind.transposed)
        {
            // The numbers of the library's operations: 0 takes a side as it is, 1 its transpose.
            description.set(attribute, &i32::from(transposed))?;
        }
        if let Some(stride) = kind.bias {
            description.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS)?;
            description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias.unwrap_or(0))?;
            if kind.networks > 1 {
                description.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_BATCH_STRIDE, &(stride as i64))?;
            }
        }
        let stored = |transposed, [rows, columns]: [usize; 2]| if transposed { [columns, rows] } else { [rows, columns] };
        let shapes = [stored(kind.transposed[0], [m, k]), stored(kind.transposed[1], [k, n]), [m, n]];
        let layout = |i: usize| Layout::new(kind.bf16[i / 2], shapes[i], kind.leading[i], (kind.networks, kind.strides[i]));
        let layouts = [layout(0)?, layout(1)?, layout(2)?];
        let preference = Preference(result::create_matmul_pref()?);
        preference.set(Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace)?;
        // Parts of a sum are added in `f32`, also where the result is `bf16`.
        let reduction = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Wish::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reduction)?;
        for (wish, alignment) in [
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ]
        .into_iter()
        .zip(kind.alignments)
        {
            preference.set(wish, &alignment)?;
        }
        let [a, b, c] = &layouts;
        // SAFETY: the handle and all that was made above are alive.
        let found = unsafe { result::get_matmul_algo_heuristic(handle, description.0, a.0, b.0, c.0, c.0, preference.0) }?;
        Ok(Self { algorithm: found.algo, description, layouts })
    }
}

/// cuBLAS's products on one device, with the plans made so far; kinds that its planner does not know have none.
pub(super) struct Products {
    handle: sys::cublasLtHandle_t,
    plans: Mutex<HashMap<Kind, Option<Plan>>>,
}

// SAFETY: the library's handle may be used from any thread, and plans are used under the lock.
unsafe impl Send for Products {}
// SAFETY: as above.
unsafe impl Sync for Products {}

impl Products {
    /// The library on the current context; kept as long as the process lives.
    pub(super) fn new() -> crate::Result<Self> {
        let handle = result::create_handle().map_err(candle_core::Error::wrap)?;
        Ok(Self { handle, plans: Mutex::default() })
    }
}

impl Device {
    /// Queues a product; `false` if it is one that is not known with this bias or addend.
    ///
    /// All matrices lie inside what their addresses belong to: callers check.
    pub(super) fn multiply(&self, product: &Product) -> crate::Result<bool> {
        let [m, n, k] = product.size;
        if product.networks * m * n * k == 0 {
            return Ok(product.target.bias.is_none() && product.target.addend.is_none_or(|addend| addend == product.target.address));
        }
        self.stream.context().bind_to_thread().w()?;
        let kind = product.kind();
        let mut plans = self.products.plans.lock().unwrap_or_else(PoisonError::into_inner);
        let (address, bytes) = self.workspace();
        let plan = plans.entry(kind).or_insert_with(|| {
            let bias = product.target.bias.map(|(address, _)| address);
            Plan::new(self.products.handle, &kind, bias, bytes).ok()
        });
        let Some(plan) = plan else {
            drop(plans);
            return self.multiply_plainly(product);
        };
        let ([left, right], to) = (product.sides, product.target);
        if let Some((bias, _)) = to.bias {
            let attribute = sys::cublasLtMatmulDescAttributes_t::CUBLASLT_MATMUL_DESC_BIAS_POINTER;
            plan.description.set(attribute, &bias).map_err(candle_core::Error::wrap)?;
        }
        let (one, beta) = (1.0f32, if to.addend.is_some() { 1.0f32 } else { 0.0 });
        let [a, b, c] = &plan.layouts;
        // SAFETY: the plan's objects are alive and used under the lock; callers check that all matrices lie inside what their
        // addresses belong to; the factors are on this frame and read before the call returns; the workspace is the stream's alone.
        let queued = unsafe {
            result::matmul(
                self.products.handle,
                plan.description.0,
                (&raw const one).cast(),
                (&raw const beta).cast(),
                left.address as *const c_void,
                a.0,
                right.address as *const c_void,
                b.0,
                to.addend.unwrap_or(to.address) as *const c_void,
                c.0,
                to.address as *mut c_void,
                c.0,
                &raw const plan.algorithm,
                address as *mut c_void,
                bytes,
                self.stream.cu_stream().cast(),
            )
        };
        queued.map_err(candle_core::Error::wrap)?;
        Ok(true)
    }

    /// The same without a plan, where no bias and no other values are added.
    pub(super) fn multiply_plainly(&self, product: &Product) -> crate::Result<bool> {
        let ([a, b], to) = (product.sides, product.target);
        if to.bias.is_some() || to.addend.is_some_and(|addend| addend != to.address) {
            return Ok(false);
        }
        let size = |value: usize| i32::try_from(value).map_err(candle_core::Error::from);
        let [m, n, k] = product.size;
        let ([m, n, k], networks) = ([size(m)?, size(n)?, size(k)?], size(product.networks)?);
        let [lda, ldb, ldc] = [size(a.leading)?, size(b.leading)?, size(to.leading)?];
        let (one, beta) = (1.0f32, if to.addend.is_some() { 1.0f32 } else { 0.0 });
        let operation = |side: Side| {
            if side.transposed { blas_sys::cublasOperation_t::CUBLAS_OP_T } else { blas_sys::cublasOperation_t::CUBLAS_OP_N }
        };
        let kind = |bf16| if bf16 { blas_sys::cudaDataType::CUDA_R_16BF } else { blas_sys::cudaDataType::CUDA_R_32F };
        // SAFETY: callers check that all matrices lie inside what their addresses belong to; the factors are on this frame and read
        // before the call returns, as cuBLAS reads them from the host.
        let queued = unsafe {
            blas::gemm_strided_batched_ex(
                *self.blas.handle(),
                operation(a),
                operation(b),
                m,
                n,
                k,
                (&raw const one).cast(),
                a.address as *const c_void,
                kind(product.bf16),
                lda,
                a.stride as i64,
                b.address as *const c_void,
                kind(product.bf16),
                ldb,
                b.stride as i64,
                (&raw const beta).cast(),
                to.address as *mut c_void,
                kind(to.bf16),
                ldc,
                to.stride as i64,
                networks,
                blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        queued.w()?;
        Ok(true)
    }
}
