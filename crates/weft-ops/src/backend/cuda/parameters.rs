//! Parameters with everything that an optimizer keeps for them, in `f32`, and the copy that is computed with.

use super::super::{Batch, BatchNorm, OptimizerStep, Slot};
use super::Cuda;
use super::device::Grid;
use super::pointwise::packs;
use super::product::check_parameters;
use super::view::{Arg, CudaReal, View};
use candle_core::cuda_backend::WrapErr;
use candle_core::cuda_backend::cudarc::driver::CudaSlice;
use weft_core::Optimizer;

/// Blocks that sum squares; their sums are kept.
const NORM_BLOCKS: usize = 1024;

/// Parameters, gradient, moments and moving average, of one length; all but the first have a single value where nothing is trained.
#[derive(Debug)]
pub struct CudaParameters<T> {
    theta: CudaSlice<f32>,
    /// The parameters rounded; none where the computation is in `f32`.
    copy: Option<CudaSlice<T>>,
    average: CudaSlice<f32>,
    first: CudaSlice<f32>,
    second: CudaSlice<f32>,
    gradient: CudaSlice<f32>,
    squares: CudaSlice<f64>,
    norm: CudaSlice<f32>,
    clipped: bool,
    trained: bool,
}

impl<T: CudaReal> CudaParameters<T> {
    pub(super) fn new(cuda: &Cuda<T>, theta: &[f32], trained: bool) -> crate::Result<Self> {
        let stream = &cuda.device.stream;
        let kept = if trained { theta.len() } else { 1 };
        let zeros = || stream.alloc_zeros::<f32>(kept).w();
        let (first, second, gradient) = (zeros()?, zeros()?, zeros()?);
        let average = if trained { stream.clone_htod(theta).w()? } else { zeros()? };
        let mut parameters = Self {
            theta: stream.clone_htod(theta).w()?,
            copy: if T::BF16 { Some(cuda.buffer(theta.len())?) } else { None },
            average,
            first,
            second,
            gradient,
            squares: stream.alloc_zeros(if trained { NORM_BLOCKS } else { 1 }).w()?,
            norm: stream.alloc_zeros(1).w()?,
            clipped: false,
            trained,
        };
        parameters.round(cuda)?;
        Ok(parameters)
    }

    /// Brings the copy up to date.
    fn round(&mut self, cuda: &Cuda<T>) -> crate::Result<()> {
        let Some(copy) = &mut self.copy else { return Ok(()) };
        let len = self.theta.len();
        cuda.device.launch(&cuda.kernels.round_all, Grid::each(len), [(&self.theta).into(), copy.into(), len.into()])
    }

    pub(super) fn theta(&self) -> View<'_, T> {
        self.copy.as_ref().map_or_else(|| View::of_master(&self.theta), |copy| View::rounded(copy, &self.theta))
    }

    pub(super) fn theta_and_gradient(&mut self) -> (View<'_, T>, &mut CudaSlice<f32>) {
        let theta = self.copy.as_ref().map_or_else(|| View::of_master(&self.theta), |copy| View::rounded(copy, &self.theta));
        (theta, &mut self.gradient)
    }

    fn slot(&mut self, slot: Slot) -> &mut CudaSlice<f32> {
        match slot {
            Slot::Theta => &mut self.theta,
            Slot::Average => &mut self.average,
            Slot::First => &mut self.first,
            Slot::Second => &mut self.second,
            Slot::Gradient => &mut self.gradient,
        }
    }

    pub(super) fn read(&self, cuda: &Cuda<T>, slot: Slot) -> crate::Result<Vec<f32>> {
        let values = match slot {
            Slot::Theta => &self.theta,
            _ if !self.trained => return Ok(Vec::new()),
            Slot::Average => &self.average,
            Slot::First => &self.first,
            Slot::Second => &self.second,
            Slot::Gradient => &self.gradient,
        };
        cuda.to_vec(values)
    }

    pub(super) fn write(&mut self, cuda: &Cuda<T>, slot: Slot, values: &[f32]) -> crate::Result<()> {
        if !self.trained && slot != Slot::Theta {
            assert!(values.is_empty(), "parameters that are not trained have no {slot:?}");
            return Ok(());
        }
        let to = self.slot(slot);
        assert_eq!(to.len(), values.len(), "{slot:?} of another length");
        cuda.device.stream.memcpy_htod(values, to).w()?;
        if slot == Slot::Theta { self.round(cuda) } else { Ok(()) }
    }

    pub(super) fn step(&mut self, cuda: &Cuda<T>, step: &OptimizerStep) -> crate::Result<()> {
        assert!(self.trained, "parameters that are not trained take no step");
        let len = self.theta.len();
        self.clipped = step.clip_norm.is_some();
        if self.clipped {
            let blocks = len.div_ceil(1024).min(NORM_BLOCKS);
            let grid = |blocks| Grid { blocks: [blocks, 1], threads: [256, 1], shared_bytes: 0 };
            let arguments = [(&self.gradient).into(), len.into(), (&mut self.squares).into()];
            cuda.device.launch(&cuda.kernels.square_sum, grid(blocks), arguments)?;
            let arguments = [(&self.squares).into(), blocks.into(), (&mut self.norm).into()];
            cuda.device.launch(&cuda.kernels.square_root, grid(1), arguments)?;
        }
        let norm = if self.clipped { Arg::from(&self.norm) } else { Arg::from(0usize) };
        let copy = self.copy.as_mut().map_or(Arg::from(0usize), Arg::from);
        let [rate, decay, shrink, beta1, beta2, root, epsilon] = constants(step).map(|value| Arg::from(value as f32));
        let arguments = [
            (&mut self.theta).into(),
            (&mut self.average).into(),
            (&mut self.first).into(),
            (&mut self.second).into(),
            (&mut self.gradient).into(),
            copy,
            len.into(),
            norm,
            (step.clip_norm.unwrap_or(f64::INFINITY) as f32).into(),
            rule(step.optimizer).into(),
            rate,
            decay,
            shrink,
            beta1,
            beta2,
            root,
            epsilon,
            (step.average_decay as f32).into(),
        ];
        cuda.device.launch(&cuda.kernels.optimizer_step, Grid::each(len.div_ceil(4)), arguments)
    }

    /// Writes the running statistics of a batch norm, `[n, 2, c]`.
    pub(super) fn set(&mut self, cuda: &Cuda<T>, norm: &BatchNorm, batch: Batch, moved: &CudaSlice<f32>) -> crate::Result<()> {
        Cuda::<T>::check_statistics(norm, batch, moved);
        for offset in [norm.mean, norm.variance] {
            check_parameters(batch, offset, norm.width, self.theta.len());
        }
        let (total, _) = packs::<f32>(moved.len(), 1, &[])?;
        let arguments = [
            moved.into(),
            (&mut self.theta).into(),
            self.copy.as_mut().map_or(Arg::from(0usize), Arg::from),
            norm.width.into(),
            batch.stride.into(),
            norm.mean.into(),
            norm.variance.into(),
            total.into(),
        ];
        cuda.device.launch(&cuda.kernels.set_statistics, Grid::each(total), arguments)
    }

    pub(super) fn norm(&self, cuda: &Cuda<T>) -> crate::Result<f64> {
        if !self.clipped {
            return Ok(f64::NAN);
        }
        Ok(cuda.to_vec(&self.norm)?.first().map_or(f64::NAN, |&norm| f64::from(norm)))
    }
}

/// A rule's number in optimizer.cu.
fn rule(optimizer: Optimizer) -> usize {
    match optimizer {
        Optimizer::Sgd { momentum: 0.0 } => 0,
        Optimizer::Sgd { .. } => 1,
        Optimizer::Adam { .. } | Optimizer::AdamW { .. } => 2,
    }
}

/// The rate, the decay that is added to the gradient, what weights are shrunk by, both decays, `1/√(1 − β₂ᵗ)` and ε.
fn constants(step: &OptimizerStep) -> [f64; 7] {
    let t = i32::try_from(step.step).unwrap_or(i32::MAX);
    let (rate, decay) = (step.learning_rate, step.weight_decay);
    match step.optimizer {
        Optimizer::Sgd { momentum } => [rate, decay, 1.0, momentum, 0.0, 1.0, 0.0],
        Optimizer::Adam { beta1, beta2, epsilon } => {
            [rate / (1.0 - beta1.powi(t)), decay, 1.0, beta1, beta2, 1.0 / (1.0 - beta2.powi(t)).sqrt(), epsilon]
        }
        Optimizer::AdamW { beta1, beta2, epsilon } => {
            let shrink = 1.0 - rate * decay;
            [rate / (1.0 - beta1.powi(t)), 0.0, shrink, beta1, beta2, 1.0 / (1.0 - beta2.powi(t)).sqrt(), epsilon]
        }
    }
}
