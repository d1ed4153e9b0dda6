//! A GPU's stream, products and kernels, shared by all that computes on one of candle's devices.

use super::compile::Source;
use super::multiply::Products;
use super::view::{Arg, CudaReal, PerType, View, address};
use candle_core::backend::BackendDevice;
use candle_core::cuda_backend::cudarc::cublas::{CudaBlas, sys as cublas};
use candle_core::cuda_backend::cudarc::driver::{CudaFunction, CudaModule, CudaSlice, CudaStream, DeviceRepr, result, sys};
use candle_core::cuda_backend::{CudaDevice, DeviceId, WrapErr};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What cuBLAS may use on the side; with less, it does without its best kernels on recent GPUs.
const WORKSPACE_BYTES: usize = 64 << 20;

/// The stream that each thread has one of.
const PER_THREAD_STREAM: usize = 2;

/// All devices that were ever prepared. They are kept, since candle's tensors go on using a device's products and their workspace.
static DEVICES: Mutex<Vec<(DeviceId, Arc<Device>)>> = Mutex::new(Vec::new());

/// A device that is ready for kernels.
pub(super) struct Device {
    pub(super) stream: Arc<CudaStream>,
    pub(super) blas: Arc<CudaBlas>,
    pub(super) products: Products,
    /// Multiprocessors.
    pub(super) processors: usize,
    /// The greatest shared memory of a block.
    pub(super) shared_bytes: usize,
    pub(super) ordinal: usize,
    capability: (i32, i32),
    kernels: PerType,
    workspace: CudaSlice<u8>,
}

/// Blocks and threads of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grid {
    pub(super) blocks: [usize; 2],
    pub(super) threads: [usize; 2],
    pub(super) shared_bytes: usize,
}

impl Grid {
    /// One thread of 256 a value.
    pub(super) fn each(values: usize) -> Self {
        Self { blocks: [values.div_ceil(256), 1], threads: [256, 1], shared_bytes: 0 }
    }

    /// A warp of 4 a row.
    pub(super) fn warps(rows: usize) -> Self {
        Self { blocks: [rows.div_ceil(4), 1], threads: [128, 1], shared_bytes: 0 }
    }
}

impl Device {
    /// The prepared device of one of candle's.
    pub(super) fn of(device: &CudaDevice) -> crate::Result<Arc<Self>> {
        let mut devices = DEVICES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = devices.iter().find(|(id, _)| *id == device.id()) {
            return Ok(known.clone());
        }
        let prepared = Arc::new(Self::prepare(device)?);
        devices.push((device.id(), prepared.clone()));
        Ok(prepared)
    }

    fn prepare(device: &CudaDevice) -> crate::Result<Self> {
        let stream = device.cuda_stream();
        let context = stream.context().clone();
        let ordinal = context.ordinal();
        if stream.cu_stream() as usize == PER_THREAD_STREAM {
            let reason = "its stream is another one in each thread; `CudaDevice::new_with_stream` makes one of its own".into();
            return Err(crate::Error::Device { device: format!("cuda:{ordinal}"), reason });
        }
        device.synchronize()?;
        // SAFETY: candle and this backend put all work of a device, allocations and releases included, on its one stream, whose
        // order is the synchronization; what was queued before is done.
        unsafe { device.disable_event_tracking() };
        context.bind_to_thread().w()?;
        if context.has_async_alloc() {
            keep_freed_memory(context.cu_device())?;
        }
        let blas = device.cublas_handle();
        // SAFETY: cuBLAS writes it before it reads it.
        let workspace = unsafe { stream.alloc::<u8>(WORKSPACE_BYTES) }.w()?;
        // SAFETY: the handle is candle's and alive; the workspace has this length and is kept as long as the process lives.
        unsafe { cublas::cublasSetWorkspace_v2(*blas.handle(), address(&workspace) as *mut _, WORKSPACE_BYTES) }.result().w()?;
        let attribute = |attribute| context.attribute(attribute).w();
        Ok(Self {
            processors: attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            shared_bytes: attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
            ordinal,
            capability: context.compute_capability().w()?,
            kernels: PerType::default(),
            products: Products::new()?,
            workspace,
            stream,
            blas,
        })
    }

    /// The kernels of a type, loaded at the first call.
    pub(super) fn kernels<T: CudaReal>(&self) -> crate::Result<Arc<Kernels>> {
        let slot = self.kernels.of::<T>();
        if let Some(kernels) = slot.get() {
            return Ok(kernels.clone());
        }
        if T::BF16 && self.capability < (8, 0) {
            let reason = format!("bf16 needs compute capability 8.0, it has {}.{}", self.capability.0, self.capability.1);
            return Err(crate::Error::Device { device: format!("cuda:{}", self.ordinal), reason });
        }
        let kernels = Arc::new(Kernels::load::<T>(self)?);
        Ok(slot.get_or_init(|| kernels).clone())
    }

    /// What products may use on the side: its address and bytes.
    pub(super) fn workspace(&self) -> (u64, usize) {
        (address(&self.workspace), WORKSPACE_BYTES)
    }

    /// Memory whose values are all to be written.
    pub(super) fn uninit<E: DeviceRepr>(&self, len: usize) -> crate::Result<CudaSlice<E>> {
        // SAFETY: all bits are valid numbers, and the caller's kernels write each value before it is read.
        Ok(unsafe { self.stream.alloc(len) }.w()?)
    }

    /// A copy of values.
    pub(super) fn copy<T: CudaReal>(&self, values: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let copy = self.uninit(values.len())?;
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: a view borrows that many values on this device, the copy has room for as many, and both are used on this stream alone.
        unsafe {
            result::memcpy_dtod_async(address(&copy), values.address(), values.len() * size_of::<T>(), self.stream.cu_stream())
        }
        .w()?;
        Ok(copy)
    }

    /// Waits for values and copies them to the host.
    pub(super) fn copy_to_host<T: CudaReal>(&self, values: View<'_, T>) -> crate::Result<Vec<T>> {
        let mut host = vec![T::default(); values.len()];
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: a view borrows that many values on this device, and the host's are as many; the copy is waited for below, while both
        // are borrowed.
        unsafe { result::memcpy_dtoh_async(&mut host, values.address(), self.stream.cu_stream()) }.w()?;
        self.stream.synchronize().w()?;
        Ok(host)
    }

    /// Queues a kernel; nothing where there are no blocks.
    ///
    /// The arguments are those of the kernel in its source, in order, and all that it reads and writes lies inside what they address:
    /// callers check lengths.
    pub(super) fn launch<const N: usize>(&self, function: &CudaFunction, grid: Grid, arguments: [Arg; N]) -> crate::Result<()> {
        if grid.blocks.contains(&0) {
            return Ok(());
        }
        if grid.blocks[0] > i32::MAX as usize || grid.blocks[1] > usize::from(u16::MAX) {
            return Err(candle_core::Error::Msg(format!("{:?} blocks are more than one launch has", grid.blocks)).into());
        }
        let mut words = arguments.map(Arg::word);
        let mut pointers = words.each_mut().map(|word| std::ptr::from_mut(word).cast());
        self.stream.context().bind_to_thread().w()?;
        // SAFETY: the function's module is loaded; each pointer is to 8 bytes of this frame, read before the call returns, that begin
        // with the argument's; this type is private to the backend, whose calls pass what the kernels ask for (see above).
        let queued = unsafe {
            result::launch_kernel(
                function.cu_function(),
                (grid.blocks[0] as u32, grid.blocks[1] as u32, 1),
                (grid.threads[0] as u32, grid.threads[1] as u32, 1),
                grid.shared_bytes as u32,
                self.stream.cu_stream(),
                &mut pointers,
            )
        };
        Ok(queued.w()?)
    }
}

/// Lets the device's memory pool keep what is freed, so that the next pass allocates without the driver.
fn keep_freed_memory(device: sys::CUdevice) -> crate::Result<()> {
    let mut pool = std::ptr::null_mut();
    // SAFETY: the pool's handle is written to this frame.
    unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, device) }.result().w()?;
    let mut threshold = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the device's, and this attribute's value is a `u64`.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut threshold).cast()) }.result().w()?;
    Ok(())
}

/// Head dimensions that attention is compiled for.
pub(super) const HEAD_DIMS: [usize; 4] = [16, 32, 64, 128];

const COMMON: &str = include_str!("kernels/common.cu");

/// The kernels of one type.
#[derive(Debug)]
pub(super) struct Kernels {
    pub(super) epilogue: CudaFunction,
    pub(super) residual: CudaFunction,
    pub(super) activate_backward: CudaFunction,
    pub(super) gated: CudaFunction,
    pub(super) add: CudaFunction,
    pub(super) gather: CudaFunction,
    pub(super) mix: CudaFunction,
    pub(super) mark_active: CudaFunction,
    pub(super) scale: CudaFunction,
    pub(super) rotate: CudaFunction,
    pub(super) resize_rows: CudaFunction,
    pub(super) mean_tokens: CudaFunction,
    pub(super) mean_tokens_backward: CudaFunction,
    pub(super) column_sum: CudaFunction,
    pub(super) column_sum_wide: CudaFunction,
    pub(super) gate_backward: CudaFunction,
    pub(super) gate_reduce: CudaFunction,
    pub(super) norm: CudaFunction,
    pub(super) norm_backward: CudaFunction,
    pub(super) norm_backward_short: CudaFunction,
    pub(super) norm_backward_long: CudaFunction,
    pub(super) norm_modulation: CudaFunction,
    pub(super) cross_entropy: CudaFunction,
    pub(super) cross_entropy_sum: CudaFunction,
    pub(super) squared_error: CudaFunction,
    pub(super) add_mean: CudaFunction,
    pub(super) square_sum: CudaFunction,
    pub(super) square_root: CudaFunction,
    pub(super) optimizer_step: CudaFunction,
    pub(super) round_all: CudaFunction,
    pub(super) patches: CudaFunction,
    pub(super) patches_backward: CudaFunction,
    pub(super) pool: CudaFunction,
    pub(super) pool_backward: CudaFunction,
    pub(super) transpose_tiles: CudaFunction,
    pub(super) cells_backward: CudaFunction,
    pub(super) transpose_small: CudaFunction,
    pub(super) transpose_strips: CudaFunction,
    pub(super) batch_norm_moments: CudaFunction,
    pub(super) batch_norm_statistics: CudaFunction,
    pub(super) batch_norm: CudaFunction,
    pub(super) batch_norm_sums: CudaFunction,
    pub(super) batch_norm_gradient: CudaFunction,
    pub(super) batch_norm_backward: CudaFunction,
    pub(super) set_statistics: CudaFunction,
    attention: [OnceLock<AttentionKernels>; HEAD_DIMS.len()],
}

/// Attention of one head dimension.
#[derive(Debug)]
pub(super) struct AttentionKernels {
    pub(super) forward: CudaFunction,
    pub(super) delta: CudaFunction,
    pub(super) backward_keys: CudaFunction,
    pub(super) backward_queries: CudaFunction,
}

impl Kernels {
    fn load<T: CudaReal>(device: &Device) -> crate::Result<Self> {
        let files = [
            COMMON,
            include_str!("kernels/pointwise.cu"),
            include_str!("kernels/reduce.cu"),
            include_str!("kernels/norm.cu"),
            include_str!("kernels/loss.cu"),
            include_str!("kernels/optimizer.cu"),
            include_str!("kernels/images.cu"),
            include_str!("kernels/batch_norm.cu"),
            include_str!("kernels/tokens.cu"),
        ];
        let source = Source { files: &files, constants: &[("WEFT_BF16", usize::from(T::BF16))] };
        let module = source.load(device.stream.context())?;
        let function = |name: &str| module.load_function(name).w();
        Ok(Self {
            epilogue: function("epilogue")?,
            residual: function("residual")?,
            activate_backward: function("activate_backward")?,
            gated: function("gated")?,
            add: function("add")?,
            gather: function("gather")?,
            mix: function("mix")?,
            mark_active: function("mark_active")?,
            scale: function("scale")?,
            rotate: function("rotate")?,
            resize_rows: function("resize_rows")?,
            mean_tokens: function("mean_tokens")?,
            mean_tokens_backward: function("mean_tokens_backward")?,
            column_sum: function("column_sum")?,
            column_sum_wide: function("column_sum_wide")?,
            gate_backward: function("gate_backward")?,
            gate_reduce: function("gate_reduce")?,
            norm: function("norm_forward")?,
            norm_backward: with_shared(&module, "norm_backward", device.shared_bytes)?,
            norm_backward_short: function("norm_backward_short")?,
            norm_backward_long: function("norm_backward_long")?,
            norm_modulation: function("norm_modulation")?,
            cross_entropy: function("cross_entropy")?,
            cross_entropy_sum: function("cross_entropy_sum")?,
            squared_error: function("squared_error")?,
            add_mean: function("add_mean")?,
            square_sum: function("square_sum")?,
            square_root: function("square_root")?,
            optimizer_step: function("optimizer_step")?,
            round_all: function("round_all")?,
            patches: function("patches")?,
            patches_backward: function("patches_backward")?,
            pool: function("pool")?,
            pool_backward: function("pool_backward")?,
            transpose_tiles: function("transpose_tiles")?,
            cells_backward: function("cells_backward")?,
            transpose_small: function("transpose_small")?,
            transpose_strips: function("transpose_strips")?,
            batch_norm_moments: function("batch_norm_moments")?,
            batch_norm_statistics: function("batch_norm_statistics")?,
            batch_norm: function("batch_norm")?,
            batch_norm_sums: function("batch_norm_sums")?,
            batch_norm_gradient: function("batch_norm_gradient")?,
            batch_norm_backward: function("batch_norm_backward")?,
            set_statistics: function("set_statistics")?,
            attention: Default::default(),
        })
    }

    /// Attention of a head dimension, compiled at the first call.
    pub(super) fn attention<T: CudaReal>(&self, device: &Device, head_dim: usize) -> crate::Result<&AttentionKernels> {
        let slot = HEAD_DIMS.iter().position(|&dim| dim == head_dim).map(|index| &self.attention[index]).ok_or_else(|| {
            candle_core::Error::Msg(format!("attention on a GPU has a `head_dim` of at most 128, got {head_dim}"))
        })?;
        if let Some(kernels) = slot.get() {
            return Ok(kernels);
        }
        let own = if T::BF16 { include_str!("kernels/attention_bf16.cu") } else { include_str!("kernels/attention_f32.cu") };
        let files = [COMMON, include_str!("kernels/attention.cu"), own];
        let constants = [("WEFT_BF16", usize::from(T::BF16)), ("WEFT_HEAD_DIM", head_dim)];
        let module = Source { files: &files, constants: &constants }.load(device.stream.context())?;
        let function = |name: &str| with_shared(&module, name, if T::BF16 { device.shared_bytes } else { 0 });
        let kernels = AttentionKernels {
            forward: function("attention_forward")?,
            delta: module.load_function("attention_delta").w()?,
            backward_keys: function("attention_backward_keys")?,
            backward_queries: function("attention_backward_queries")?,
        };
        Ok(slot.get_or_init(|| kernels))
    }
}

/// A function that may be launched with up to so much shared memory, less what it declares itself.
fn with_shared(module: &Arc<CudaModule>, name: &str, bytes: usize) -> crate::Result<CudaFunction> {
    let function = module.load_function(name).w()?;
    let declared = function.shared_size_bytes().w()?;
    let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    function.set_attribute(most, (bytes as i32 - declared).max(0)).w()?;
    Ok(function)
}
