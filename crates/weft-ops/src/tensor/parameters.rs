//! A network's parameters on a device, shared between its passes and its optimizer.

use super::on_tensors::OnTensors;
use crate::backend::{Backend, Cpu, OptimizerStep, Slot};
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

/// A backend with the parameters that it holds.
pub(super) struct Held<B: Backend> {
    pub(super) backend: B,
    pub(super) parameters: B::Parameters,
    /// The sum of losses since it was last read.
    pub(super) loss: B::Wide,
}

/// Parameters of any backend.
pub(super) enum Store {
    Single(Held<Cpu<f32>>),
    Double(Held<Cpu<f64>>),
    #[cfg(feature = "cuda")]
    CudaSingle(Held<Cuda<f32>>),
    #[cfg(feature = "cuda")]
    CudaBfloat16(Held<Cuda<half::bf16>>),
}

/// What is done with a store, whatever its backend.
pub(super) trait Visit<R> {
    fn visit<B: OnTensors>(self, held: &Held<B>) -> crate::Result<R>;
}

/// The same, where parameters or gradient change.
pub(super) trait VisitMut<R> {
    fn visit<B: OnTensors>(self, held: &mut Held<B>) -> crate::Result<R>;
}

/// The flat parameters of a network or of a population; clones share them.
///
/// Passes of a network over tensors read them, and the backward pass adds their gradient to a vector beside them, without a tensor
/// in between; an optimizer's step reads and clears it.
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
        Self::build(theta, device, precision, true)
    }

    /// Puts parameters on a device, to be used: passes keep nothing for gradients.
    ///
    /// # Errors
    /// As [`Parameters::new`].
    pub fn frozen(theta: &[f32], device: &Device, precision: Precision) -> crate::Result<Self> {
        Self::build(theta, device, precision, false)
    }

    fn build(theta: &[f32], device: &Device, precision: Precision, trained: bool) -> crate::Result<Self> {
        fn held<B: Backend>(backend: B, theta: &[f32], trained: bool) -> crate::Result<Held<B>> {
            Ok(Held { parameters: backend.parameters(theta, trained)?, loss: backend.zeros_wide(1)?, backend })
        }
        let store = match (device, precision) {
            (Device::Cpu, Precision::Single) => Store::Single(held(Cpu::new(), theta, trained)?),
            (Device::Cpu, Precision::Double) => Store::Double(held(Cpu::new(), theta, trained)?),
            #[cfg(feature = "cuda")]
            (Device::Cuda(cuda), Precision::Single) => Store::CudaSingle(held(Cuda::new(cuda)?, theta, trained)?),
            #[cfg(feature = "cuda")]
            (Device::Cuda(cuda), Precision::Bfloat16) => Store::CudaBfloat16(held(Cuda::new(cuda)?, theta, trained)?),
            _ => {
                let reason = format!("networks do not compute in {:?} there", precision.dtype());
                return Err(crate::Error::Device { device: format!("{:?}", device.location()), reason });
            }
        };
        let handle = Var::zeros(1, precision.dtype(), device)?;
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
            fn visit<B: OnTensors>(self, held: &Held<B>) -> crate::Result<Vec<f32>> {
                held.backend.read(&held.parameters, self.0)
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
            fn visit<B: OnTensors>(self, held: &mut Held<B>) -> crate::Result<()> {
                held.backend.write(&mut held.parameters, self.0, self.1)
            }
        }
        if values.len() != self.len {
            return Err(candle_core::Error::Msg(format!("{} values for {} parameters", values.len(), self.len)).into());
        }
        self.visit_mut(Write(slot, values))
    }

    /// Takes one step of an optimizer with the gradient summed so far, and clears it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn step(&self, step: &OptimizerStep) -> crate::Result<()> {
        struct Step<'a>(&'a OptimizerStep);
        impl VisitMut<()> for Step<'_> {
            fn visit<B: OnTensors>(self, held: &mut Held<B>) -> crate::Result<()> {
                held.backend.optimizer_step(&mut held.parameters, self.0)
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
            fn visit<B: OnTensors>(self, held: &Held<B>) -> crate::Result<f64> {
                held.backend.gradient_norm(&held.parameters)
            }
        }
        self.visit(Norm)
    }

    /// The sum of the losses of [`regress`](super::regress) since the last call; waits for the device.
    ///
    /// # Errors
    /// If the device fails.
    pub fn take_loss(&self) -> crate::Result<f64> {
        struct Take;
        impl VisitMut<f64> for Take {
            fn visit<B: OnTensors>(self, held: &mut Held<B>) -> crate::Result<f64> {
                let loss = std::mem::replace(&mut held.loss, held.backend.zeros_wide(1)?);
                Ok(f64::from(held.backend.download_wide(&loss)?[0]))
            }
        }
        self.visit_mut(Take)
    }
}
