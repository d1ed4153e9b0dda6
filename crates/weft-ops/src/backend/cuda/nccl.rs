//! Sums over several GPUs of one process, by NCCL.
//!
//! NCCL is looked for when devices are first joined, so that the program also starts where it is not installed. One thread queues the sum of
//! all devices as one of NCCL's groups: each device has it to do or none, and nothing on the host waits for another thread.
//!
//! # References
//! NVIDIA, *NCCL user guide*, "Managing multiple GPUs from one thread" and "Error handling and communicator abort".

use super::device::Device;
use super::view::address;
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, sys};
use libloading::Library;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// `ncclFloat32` and `ncclSum` of `nccl.h`; both are the same in all versions 2.
const FLOAT32: c_int = 7;
const SUM: c_int = 0;

/// What the library is called.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// A communicator, `ncclComm_t`.
type Comm = *mut c_void;

/// `ncclResult_t`; 0 is success.
type Status = c_int;

/// The library's functions.
struct Nccl {
    comm_init_all: unsafe extern "C" fn(*mut Comm, c_int, *const c_int) -> Status,
    comm_destroy: unsafe extern "C" fn(Comm) -> Status,
    comm_abort: unsafe extern "C" fn(Comm) -> Status,
    all_reduce: unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, c_int, Comm, sys::CUstream) -> Status,
    group_start: unsafe extern "C" fn() -> Status,
    group_end: unsafe extern "C" fn() -> Status,
    error_string: unsafe extern "C" fn(Status) -> *const c_char,
    /// Keeps the functions above in memory.
    _library: Library,
}

impl Nccl {
    /// The library, loaded at the first call.
    fn get() -> Result<&'static Self, String> {
        static NCCL: OnceLock<Result<Nccl, String>> = OnceLock::new();
        NCCL.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, String> {
        let mut missing = String::new();
        for name in NAMES {
            // SAFETY: what NCCL does when it is loaded asks nothing of its caller.
            match unsafe { Library::new(name) } {
                // SAFETY: it is NCCL 2.
                Ok(library) => return unsafe { Self::of(library) }.map_err(|e| format!("`{name}` is not NCCL 2: {e}")),
                Err(error) if missing.is_empty() => missing = error.to_string(),
                Err(_) => {}
            }
        }
        Err(format!(
            "several GPUs need NCCL 2, which was not found ({missing}); install it for this version of CUDA (`libnccl2`, or `pip \
             install nvidia-nccl-cu13`) and name the folder of `{}` in `LD_LIBRARY_PATH`, or name one GPU",
            NAMES[0]
        ))
    }

    /// Finds the functions.
    ///
    /// # Safety
    /// The library is NCCL 2, whose functions have the types above.
    unsafe fn of(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the types are those of `nccl.h`; the library is kept beside the functions.
        unsafe {
            Ok(Self {
                comm_init_all: *library.get(c"ncclCommInitAll")?,
                comm_destroy: *library.get(c"ncclCommDestroy")?,
                comm_abort: *library.get(c"ncclCommAbort")?,
                all_reduce: *library.get(c"ncclAllReduce")?,
                group_start: *library.get(c"ncclGroupStart")?,
                group_end: *library.get(c"ncclGroupEnd")?,
                error_string: *library.get(c"ncclGetErrorString")?,
                _library: library,
            })
        }
    }

    fn check(&self, what: &str, status: Status) -> Result<(), String> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: any status may be asked for.
        let text = unsafe { (self.error_string)(status) };
        let text = if text.is_null() {
            status.to_string()
        } else {
            // SAFETY: NCCL's texts are constants that end in a 0.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(format!(
            "NCCL cannot {what}: {text}; `NCCL_DEBUG=INFO` says more, and `NCCL_NVLS_ENABLE=0` does without NVLink's multicast, \
             which not every machine lets programs use"
        ))
    }
}

/// Communicators, one a device.
struct Comms(Vec<Comm>);

// SAFETY: a communicator belongs to no thread; NCCL asks that not two use it at the same time, which the mutex around it sees to.
unsafe impl Send for Comms {}

/// GPUs that add up vectors between them.
pub struct CudaGroup {
    nccl: &'static Nccl,
    devices: Vec<Arc<Device>>,
    /// None once the group is given up.
    comms: Mutex<Option<Comms>>,
}

impl std::fmt::Debug for CudaGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CudaGroup({})", names(&self.devices))
    }
}

impl CudaGroup {
    /// Joins devices, all different; waits for them to find each other.
    pub(super) fn new(devices: Vec<Arc<Device>>) -> crate::Result<Self> {
        let fail = |reason| crate::Error::Device { device: names(&devices), reason };
        let nccl = Nccl::get().map_err(fail)?;
        share_memory(&devices)?;
        let ordinals: Vec<c_int> = devices.iter().map(|device| device.ordinal as c_int).collect();
        let mut comms = vec![std::ptr::null_mut(); ordinals.len()];
        // SAFETY: both vectors have as many entries as the call is told.
        let status = unsafe { (nccl.comm_init_all)(comms.as_mut_ptr(), ordinals.len() as c_int, ordinals.as_ptr()) };
        nccl.check("join them", status).map_err(fail)?;
        Ok(Self { nccl, devices, comms: Mutex::new(Some(Comms(comms))) })
    }

    /// Queues the sum of vectors of one length, one a device, in place of each.
    pub(super) fn all_reduce(&self, vectors: &mut [&mut CudaSlice<f32>]) -> crate::Result<()> {
        assert_eq!(vectors.len(), self.devices.len(), "vectors of other devices");
        assert!(vectors.iter().all(|vector| vector.len() == vectors[0].len()), "summands of different lengths");
        let queued = match &*self.comms.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(comms) => self.queue(comms, vectors),
            None => Err("one of them has failed before".to_owned()),
        };
        queued.map_err(|reason| {
            self.abort();
            crate::Error::Device { device: names(&self.devices), reason }
        })
    }

    fn queue(&self, comms: &Comms, vectors: &mut [&mut CudaSlice<f32>]) -> Result<(), String> {
        // SAFETY: it takes nothing, and is ended below.
        self.nccl.check("begin a sum", unsafe { (self.nccl.group_start)() })?;
        let queued = self.devices.iter().zip(&comms.0).zip(vectors).try_for_each(|((device, &comm), vector)| {
            device.stream.context().bind_to_thread().map_err(|e| e.to_string())?;
            let (values, stream) = (address(*vector), device.stream.cu_stream());
            let (from, to) = (values as *const c_void, values as *mut c_void);
            // SAFETY: the communicator is this device's and alive, since the caller holds the lock; the vector lies on this device, has this
            // length, is borrowed alone, and whatever comes after is queued behind this on the same stream.
            let status = unsafe { (self.nccl.all_reduce)(from, to, vector.len(), FLOAT32, SUM, comm, stream) };
            self.nccl.check("add up", status)
        });
        // SAFETY: it ends what was begun above, on the same thread.
        let ended = self.nccl.check("add up", unsafe { (self.nccl.group_end)() });
        queued.and(ended)
    }

    /// Ends all sums that are under way, and the group.
    pub(super) fn abort(&self) {
        self.end(self.nccl.comm_abort);
    }

    fn end(&self, how: unsafe extern "C" fn(Comm) -> Status) {
        let comms = self.comms.lock().unwrap_or_else(PoisonError::into_inner).take();
        for comm in comms.into_iter().flat_map(|comms| comms.0) {
            // SAFETY: it was made by `new`, and was taken, so that nobody else has it. An error would leave nothing to be done.
            let _ = unsafe { how(comm) };
        }
    }
}

impl Drop for CudaGroup {
    fn drop(&mut self) {
        self.end(self.nccl.comm_destroy);
    }
}

fn names(devices: &[Arc<Device>]) -> String {
    devices.iter().map(|device| format!("cuda:{}", device.ordinal)).collect::<Vec<_>>().join(",")
}

/// `CUmemAccessDesc`: later versions of CUDA name its parts otherwise, in the same places.
#[repr(C)]
struct Access {
    kind: u32,
    device: c_int,
    flags: u32,
}

/// Lets each device reach the others' memory pools: NCCL reads and writes vectors of one process where they are, and memory of a pool,
/// unlike other memory, is not open to devices that are peers.
fn share_memory(devices: &[Arc<Device>]) -> crate::Result<()> {
    for owner in devices.iter().filter(|owner| owner.stream.context().has_async_alloc()) {
        let mut pool = std::ptr::null_mut();
        // SAFETY: the pool's handle is written to this frame.
        unsafe { sys::cuDeviceGetDefaultMemPool(&raw mut pool, owner.stream.context().cu_device()) }.result().w()?;
        for other in devices.iter().filter(|other| other.ordinal != owner.ordinal) {
            let (from, to) = (other.stream.context().cu_device(), owner.stream.context().cu_device());
            let mut can = 0;
            // SAFETY: the answer is written to this frame.
            unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, from, to) }.result().w()?;
            if can == 0 {
                continue;
            }
            let access = Access {
                kind: sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE as u32,
                device: other.ordinal as c_int,
                flags: sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE as u32,
            };
            // SAFETY: the pool is the owner's; one description of the layout that the driver reads lies in this frame.
            unsafe { sys::cuMemPoolSetAccess(pool, (&raw const access).cast(), 1) }.result().w()?;
        }
    }
    Ok(())
}
