//! A network's parameters on a device, shared between its passes and its optimizer.

use super::on_tensors::OnTensors;
use super::replicas::{Held, Replicas};
use crate::backend::{Cpu, OptimizerStep, Slot};
use candle_core::{DType, Device, Tensor, Var};
use std::sync::{Arc, PoisonError, RwLock};

#[cfg(feature = "cuda")]
use crate::backend::Cuda;

/// The precision that a network computes in; its parameters and their gradients are kept in `f32` at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// `f32`.
    #[default]
    Single,
    /// `f64`: the CPU's, to check gradients.
    Double,
    /// `bf16`: a GPU's.
    Bfloat16,
}

impl From<weft_core::Precision> for Precision {
    fn from(precision: weft_core::Precision) -> Self {
        match precision {
            weft_core::Precision::Single => Self::Single,
            weft_core::Precision::Bfloat16 => Self::Bfloat16,
        }
    }
}

impl Precision {
    /// The element type of a network's inputs and outputs.
    #[must_use]
    pub fn dtype(self) -> DType {
        match self {
            Self::Single => DType::F32,
            Self::Double => DType::F64,
            Self::Bfloat16 => DType::BF16,
        }
    }
}

/// Parameters of any backend.
pub(super) enum Store {
    Single(Replicas<Cpu<f32>>),
    Double(Replicas<Cpu<f64>>),
    #[cfg(feature = "cuda")]
    CudaSingle(Replicas<Cuda<f32>>),
    #[cfg(feature = "cuda")]
    CudaBfloat16(Replicas<Cuda<half::bf16>>),
}

/// What is done with a store, whatever its backend.
pub(super) trait Visit<R> {
    fn visit<B: OnTensors>(self, replicas: &Replicas<B>) -> crate::Result<R>;
}

/// The same, where parameters or gradient change.
pub(super) trait VisitMut<R> {
    fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<R>;
}

/// The flat parameters of a network or of a population; clones share them.
///
/// Passes of a network over tensors read them, and the backward pass adds their gradient to a vector beside them, without a tensor
/// in between; an optimizer's step reads and clears it.
///
/// On several devices each holds all of them: [`regress`](super::regress) gives each a part of the rows, and a step sums their gradients
/// first. Passes over tensors run on the first device.
#[derive(Clone)]
pub struct Parameters {
    store: Arc<RwLock<Store>>,
    /// Makes candle follow the gradient back to where these parameters were used.
    handle: Var,
    precision: Precision,
    trained: bool,
    len: usize,
}

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parameters").field("len", &self.len).field("precision", &self.precision).finish_non_exhaustive()
    }
}

impl Parameters {
    /// Puts parameters on a device, to be trained.
    ///
    /// # Errors
    /// If the device has no such precision or its memory does not hold them.
    pub fn new(theta: &[f32], device: &Device, precision: Precision) -> crate::Result<Self> {
        Self::build(theta, std::slice::from_ref(device), precision, true)
    }

    /// Puts parameters on each of several devices of one kind, to be trained by all of them together.
    ///
    /// # Errors
    /// As [`Parameters::new`], or if the devices cannot be joined.
    pub fn on_devices(theta: &[f32], devices: &[Device], precision: Precision) -> crate::Result<Self> {
        Self::build(theta, devices, precision, true)
    }

    /// Puts parameters on a device, to be used: passes keep nothing for gradients.
    ///
    /// # Errors
    /// As [`Parameters::new`].
    pub fn frozen(theta: &[f32], device: &Device, precision: Precision) -> crate::Result<Self> {
        Self::build(theta, std::slice::from_ref(device), precision, false)
    }

    fn build(theta: &[f32], devices: &[Device], precision: Precision, trained: bool) -> crate::Result<Self> {
        let refuse = |reason| {
            let names: Vec<_> = devices.iter().map(|device| format!("{:?}", device.location())).collect();
            Err(crate::Error::Device { device: names.join(","), reason })
        };
        let Some(first) = devices.first() else { return refuse("networks need a device".to_owned()) };
        let is_like_first = |device: &Device| device.is_cpu() == first.is_cpu() && device.is_cuda() == first.is_cuda();
        if !devices.iter().all(is_like_first) {
            return refuse("devices that share a network are of one kind".to_owned());
        }
        #[cfg(feature = "cuda")]
        let gpus: Vec<_> = devices.iter().filter_map(|device| device.as_cuda_device().ok()).collect();
        let store = match (first, precision) {
            (Device::Cpu, Precision::Single) => {
                Store::Single(Replicas::new(devices.iter().map(|_| Cpu::new()).collect(), theta, trained)?)
            }
            (Device::Cpu, Precision::Double) => {
                Store::Double(Replicas::new(devices.iter().map(|_| Cpu::new()).collect(), theta, trained)?)
            }
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), Precision::Single) => {
                let backends = gpus.into_iter().map(Cuda::new).collect::<crate::Result<_>>()?;
                Store::CudaSingle(Replicas::new(backends, theta, trained)?)
            }
            #[cfg(feature = "cuda")]
            (Device::Cuda(_), Precision::Bfloat16) => {
                let backends = gpus.into_iter().map(Cuda::new).collect::<crate::Result<_>>()?;
                Store::CudaBfloat16(Replicas::new(backends, theta, trained)?)
            }
            _ => return refuse(format!("networks do not compute in {:?} there", precision.dtype())),
        };
        let handle = Var::zeros(1, precision.dtype(), first)?;
        Ok(Self { store: Arc::new(RwLock::new(store)), handle, precision, trained, len: theta.len() })
    }

    /// The number of parameters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The precision of passes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub(super) fn is_trained(&self) -> bool {
        self.trained
    }

    /// What an operation takes as an argument so that candle calls its backward pass.
    pub(super) fn handle(&self) -> &Tensor {
        &self.handle
    }

    pub(super) fn visit<R>(&self, visit: impl Visit<R>) -> crate::Result<R> {
        match &*self.store.read().unwrap_or_else(PoisonError::into_inner) {
            Store::Single(held) => visit.visit(held),
            Store::Double(held) => visit.visit(held),
            #[cfg(feature = "cuda")]
            Store::CudaSingle(held) => visit.visit(held),
            #[cfg(feature = "cuda")]
            Store::CudaBfloat16(held) => visit.visit(held),
        }
    }

    pub(super) fn visit_mut<R>(&self, visit: impl VisitMut<R>) -> crate::Result<R> {
        match &mut *self.store.write().unwrap_or_else(PoisonError::into_inner) {
            Store::Single(held) => visit.visit(held),
            Store::Double(held) => visit.visit(held),
            #[cfg(feature = "cuda")]
            Store::CudaSingle(held) => visit.visit(held),
            #[cfg(feature = "cuda")]
            Store::CudaBfloat16(held) => visit.visit(held),
        }
    }

    /// Copies a vector out; it is empty if nothing is trained, but for the parameters themselves.
    ///
    /// # Errors
    /// If the device fails.
    pub fn read(&self, slot: Slot) -> crate::Result<Vec<f32>> {
        struct Read(Slot);
        impl Visit<Vec<f32>> for Read {
            fn visit<B: OnTensors>(self, replicas: &Replicas<B>) -> crate::Result<Vec<f32>> {
                let first = replicas.first();
                let mut values = first.backend.read(&first.parameters, self.0)?;
                if self.0 == Slot::Gradient {
                    for held in replicas.iter().skip(1) {
                        let others = held.backend.read(&held.parameters, self.0)?;
                        values.iter_mut().zip(others).for_each(|(value, other)| *value += other);
                    }
                }
                Ok(values)
            }
        }
        self.visit(Read(slot))
    }

    /// Copies a vector in.
    ///
    /// # Errors
    /// A vector of another length, or a failing device.
    pub fn write(&self, slot: Slot, values: &[f32]) -> crate::Result<()> {
        struct Write<'a>(Slot, &'a [f32]);
        impl VisitMut<()> for Write<'_> {
            fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<()> {
                // Gradients are summed over devices.
                let others = if self.0 == Slot::Gradient { vec![0.0; self.1.len()] } else { self.1.to_vec() };
                replicas.each(|place, held| {
                    held.backend.write(&mut held.parameters, self.0, if place == 0 { self.1 } else { &others })
                })?;
                Ok(())
            }
        }
        if values.len() != self.len {
            return Err(candle_core::Error::Msg(format!("{} values for {} parameters", values.len(), self.len)).into());
        }
        self.visit_mut(Write(slot, values))
    }

    /// Takes one step of an optimizer with the gradient summed so far, over all devices, and clears it.
    ///
    /// # Errors
    /// If a device fails.
    pub fn step(&self, step: &OptimizerStep) -> crate::Result<()> {
        struct Step<'a>(&'a OptimizerStep);
        impl VisitMut<()> for Step<'_> {
            fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<()> {
                replicas.step(self.0)
            }
        }
        self.visit_mut(Step(step))
    }

    /// The norm that the gradient had at the last step, before clipping.
    ///
    /// # Errors
    /// If the device fails.
    pub fn gradient_norm(&self) -> crate::Result<f64> {
        struct Norm;
        impl Visit<f64> for Norm {
            fn visit<B: OnTensors>(self, replicas: &Replicas<B>) -> crate::Result<f64> {
                let first = replicas.first();
                first.backend.gradient_norm(&first.parameters)
            }
        }
        self.visit(Norm)
    }

    /// The sum of the losses of [`regress`](super::regress) since the last call; waits for all devices.
    ///
    /// # Errors
    /// If a device fails.
    pub fn take_loss(&self) -> crate::Result<f64> {
        struct Take;
        impl VisitMut<f64> for Take {
            fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<f64> {
                let losses = replicas.each(|_, held| {
                    let loss = std::mem::replace(&mut held.loss, held.backend.zeros_wide(1)?);
                    Ok(f64::from(held.backend.download_wide(&loss)?[0]))
                })?;
                Ok(losses.into_iter().sum())
            }
        }
        self.visit_mut(Take)
    }

    /// Whether all devices hold the same bits, as they do between steps.
    ///
    /// # Errors
    /// If a device fails.
    pub fn agree(&self) -> crate::Result<bool> {
        struct Agree;
        impl Visit<bool> for Agree {
            fn visit<B: OnTensors>(self, replicas: &Replicas<B>) -> crate::Result<bool> {
                for slot in [Slot::Theta, Slot::Average, Slot::First, Slot::Second] {
                    let bits = |held: &Held<B>| -> crate::Result<Vec<u32>> {
                        Ok(held.backend.read(&held.parameters, slot)?.into_iter().map(f32::to_bits).collect())
                    };
                    let first = bits(replicas.first())?;
                    for other in replicas.iter().skip(1) {
                        if bits(other)? != first {
                            return Ok(false);
                        }
                    }
                }
                Ok(true)
            }
        }
        self.visit(Agree)
    }
}
