//! Whole networks as one differentiable operation each: candle sees inputs and outputs, and nothing in between costs a tensor.

use super::on_tensors::{OnTensors, VisitBackend, on_device_of};
use super::parameters::{Parameters, Visit, VisitMut};
use super::replicas::{Held, Replicas};
use crate::backend::{Backend, Batch, Linear, Norm, NormKind};
use candle_core::{CpuStorage, CudaStorage, CustomOp1, CustomOp3, Layout, Shape, Storage, Tensor};
use std::any::Any;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use weft_core::Seed;

/// A network whose passes are written against [`Backend`].
pub trait Network: std::fmt::Debug + Clone + Send + Sync + 'static {
    /// What the backward pass needs of the forward pass.
    type Saved<B: Backend + 'static>: Send + Sync + 'static;

    /// The length of the flat parameter vector.
    fn num_parameters(&self) -> usize;

    /// Features of an input row and of an output row.
    fn features(&self) -> [usize; 2];

    /// Features of a conditioning row and how many input rows share it; none if the network takes no condition.
    fn conditioning(&self) -> Option<[usize; 2]>;

    /// The number of rows must be a multiple of this (the tokens of a sequence).
    fn rows_at_once(&self) -> usize;

    /// Runs the network over rows; `saved` is left empty where nothing is trained.
    ///
    /// # Errors
    /// If the device fails.
    fn forward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        x: B::View<'_>,
        condition: Option<B::View<'_>>,
    ) -> crate::Result<Ran<B, Self>>;

    /// Adds the gradient of the parameters, and returns that of the inputs and of the condition.
    ///
    /// # Errors
    /// If the device fails.
    fn backward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        inputs: (B::View<'_>, Option<B::View<'_>>),
        saved: Self::Saved<B>,
        dy: B::View<'_>,
        gradient: &mut B::Wide,
    ) -> crate::Result<(B::Buffer, Option<B::Buffer>)>;
}

/// Outputs of a forward pass, and what it kept.
pub type Ran<B, N> = (<B as Backend>::Buffer, Option<<N as Network>::Saved<B>>);

/// Where and over how many rows a network runs.
#[derive(Debug)]
pub struct Pass<'a, B: Backend> {
    /// The device.
    pub backend: &'a B,
    /// All parameters.
    pub theta: B::View<'a>,
    /// Rows.
    pub rows: usize,
    /// Whether a backward pass may follow.
    pub keep: bool,
}

#[expect(clippy::expl_impl_clone_on_copy, reason = "a derived one would ask for backends that are `Copy`")]
impl<B: Backend> Clone for Pass<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B: Backend> Copy for Pass<'_, B> {}

/// Runs a network on tensors.
///
/// # Shapes
/// `x` `[…, i]`, `condition` `[…/rows that share it, c]` → `[…, o]`, in the type of `x`; differentiable in all of them and in the
/// parameters, whose gradient is added to that of `parameters`.
///
/// # Errors
/// If the shapes do not fit or a tensor operation fails.
pub fn run<N: Network>(network: &N, x: &Tensor, condition: Option<&Tensor>, parameters: &Parameters) -> crate::Result<Tensor> {
    let fail = |what: String| Err(candle_core::Error::Msg(what).into());
    let [inputs, _] = network.features();
    let rows = x.elem_count() / inputs.max(1);
    if x.dims().last() != Some(&inputs) || rows == 0 || !rows.is_multiple_of(network.rows_at_once()) {
        return fail(format!("inputs {:?} for rows of {inputs} values, {} at once", x.shape(), network.rows_at_once()));
    }
    if parameters.len() != network.num_parameters() {
        return fail(format!("{} parameters, expected {}", parameters.len(), network.num_parameters()));
    }
    let expected = network.conditioning().map(|[features, rows_per_group]| [rows / rows_per_group, features]);
    let got = condition.map(Tensor::dims);
    if got != expected.as_ref().map(<[usize; 2]>::as_slice) {
        return fail(format!("a condition of shape {got:?}, expected {expected:?}"));
    }
    let dtype = parameters.precision().dtype();
    let inputs = x.to_dtype(dtype)?.contiguous()?;
    let condition = match condition {
        Some(condition) => condition.to_dtype(dtype)?.contiguous()?,
        None => parameters.handle().clone(),
    };
    let (x_in, given) = (inputs.storage_and_layout(), condition.storage_and_layout());
    let forward =
        Forward { network, rows, x: (&x_in.0, x_in.1), condition: expected.is_some().then_some((&*given.0, given.1)), parameters };
    let (y, saved) = parameters.visit(forward)?;
    drop((x_in, given));
    let op = Op { network: network.clone(), parameters: parameters.clone(), ready: Mutex::new(Some(y)), saved: Mutex::new(saved) };
    Ok(inputs.apply_op3(&condition, parameters.handle(), op)?.to_dtype(x.dtype())?)
}

/// Rows on the host that a network is to learn.
#[derive(Debug, Clone, Copy)]
pub struct Lesson<'a> {
    /// Inputs, `[r, i]`.
    pub inputs: &'a [f32],
    /// Conditioning rows, if the network takes a condition.
    pub condition: &'a [f32],
    /// What the outputs are to be, `[r, o]`.
    pub targets: &'a [f32],
    /// How much each row counts, `[r]`; empty if all count alike.
    pub weights: &'a [f32],
}

/// Adds the gradient of the mean squared error `Σᵣ wᵣ·|f(xᵣ) − targetᵣ|² / (r·o)` to that of the parameters.
///
/// The error is summed on the device, where [`Parameters::take_loss`] reads it: nothing waits here. Of parameters on several devices,
/// each has the gradient and the error of its part of the rows, until they are summed by a step or read.
///
/// # Errors
/// If lengths do not fit, the parameters are not trained, or the device fails.
pub fn regress<N: Network>(network: &N, lesson: &Lesson<'_>, parameters: &Parameters) -> crate::Result<()> {
    let [inputs, outputs] = network.features();
    let rows = lesson.inputs.len() / inputs.max(1);
    let conditions = network.conditioning().map_or(0, |[features, group]| rows / group * features);
    let fits = lesson.inputs.len() == rows * inputs
        && rows > 0
        && rows.is_multiple_of(network.rows_at_once())
        && lesson.targets.len() == rows * outputs
        && lesson.condition.len() == conditions
        && (lesson.weights.is_empty() || lesson.weights.len() == rows);
    if !fits || !parameters.is_trained() || parameters.len() != network.num_parameters() {
        let lengths = [lesson.inputs, lesson.condition, lesson.targets, lesson.weights].map(<[f32]>::len);
        return Err(candle_core::Error::Msg(format!("a lesson of {lengths:?} values for {network:?}")).into());
    }
    parameters.visit_mut(Regress { network, lesson, rows })
}

struct Regress<'a, N: Network> {
    network: &'a N,
    lesson: &'a Lesson<'a>,
    rows: usize,
}

impl<N: Network> VisitMut<()> for Regress<'_, N> {
    fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<()> {
        let Self { network, lesson, rows } = self;
        let parts = parts(rows, network.rows_at_once(), replicas.len());
        replicas.each(|place, held| match parts[place].clone() {
            part if part.len() == rows => learn(network, lesson, held),
            part if part.is_empty() => Ok(()),
            part => {
                // The mean over the part, weighed by its share, is a summand of the mean over all rows.
                let share = part.len() as f32 / rows as f32;
                let weights: Vec<f32> = match lesson.weights {
                    [] => vec![share; part.len()],
                    weights => weights[part.clone()].iter().map(|weight| weight * share).collect(),
                };
                let of_part = |values: &'_ [f32]| {
                    let width = values.len() / rows;
                    width * part.start..width * part.end
                };
                let group = network.conditioning().map_or(1, |[_, group]| group);
                let width = lesson.condition.len() / (rows / group);
                let part = Lesson {
                    inputs: &lesson.inputs[of_part(lesson.inputs)],
                    condition: &lesson.condition[width * (part.start / group)..width * (part.end / group)],
                    targets: &lesson.targets[of_part(lesson.targets)],
                    weights: &weights,
                };
                learn(network, &part, held)
            }
        })?;
        Ok(())
    }
}

/// Divides rows among devices, in order and as evenly as whole sequences go; some parts are empty where there are too few.
fn parts(rows: usize, rows_at_once: usize, devices: usize) -> Vec<Range<usize>> {
    let bound = |device| rows / rows_at_once * device / devices * rows_at_once;
    (0..devices).map(|device| bound(device)..bound(device + 1)).collect()
}

/// Adds the gradient and the error of a lesson to those of one device.
fn learn<B: OnTensors, N: Network>(network: &N, lesson: &Lesson<'_>, held: &mut Held<B>) -> crate::Result<()> {
    let Held { backend, parameters, loss } = held;
    let backend = &*backend;
    let [features, outputs] = network.features();
    let rows = lesson.inputs.len() / features;
    let x = backend.upload(lesson.inputs)?;
    let condition = network.conditioning().map(|_| backend.upload(lesson.condition)).transpose()?;
    let targets = backend.upload(lesson.targets)?;
    let weights = (!lesson.weights.is_empty()).then(|| backend.upload_wide(lesson.weights)).transpose()?;
    let (theta, gradient) = backend.theta_and_gradient(parameters);
    let pass = Pass { backend, theta, rows, keep: true };
    let inputs = (backend.view(&x), condition.as_ref().map(|c| backend.view(c)));
    let (y, saved) = network.forward(pass, inputs.0, inputs.1)?;
    let Some(saved) = saved else { return Err(candle_core::Error::Msg("a pass kept nothing".to_owned()).into()) };
    let dy = backend.squared_error([rows, outputs], backend.view(&y), backend.view(&targets), weights.as_ref(), loss)?;
    network.backward(pass, inputs, saved, backend.view(&dy), gradient)?;
    Ok(())
}

/// What a forward pass kept, of whatever backend.
type Kept = Option<Box<dyn Any + Send + Sync>>;

struct Forward<'a, N: Network> {
    network: &'a N,
    rows: usize,
    x: (&'a Storage, &'a Layout),
    condition: Option<(&'a Storage, &'a Layout)>,
    parameters: &'a Parameters,
}

impl<N: Network> Visit<(Storage, Kept)> for Forward<'_, N> {
    fn visit<B: OnTensors>(self, replicas: &Replicas<B>) -> crate::Result<(Storage, Kept)> {
        let held = replicas.first();
        let backend = &held.backend;
        let pass = Pass { backend, theta: backend.theta(&held.parameters), rows: self.rows, keep: self.parameters.is_trained() };
        let x = backend.lend(self.x.0, self.x.1)?;
        let condition = self.condition.map(|(storage, layout)| backend.lend(storage, layout)).transpose()?;
        let (y, saved) = self.network.forward(pass, x, condition)?;
        Ok((backend.storage(y), saved.map(|saved| Box::new(saved) as Box<dyn Any + Send + Sync>)))
    }
}

/// The gradients of inputs and condition.
struct Backward<'a, N: Network> {
    network: &'a N,
    saved: Box<dyn Any + Send + Sync>,
    rows: usize,
    x: (&'a Storage, &'a Layout),
    condition: Option<(&'a Storage, &'a Layout)>,
    dy: (&'a Storage, &'a Layout),
}

impl<N: Network> VisitMut<[Option<Storage>; 2]> for Backward<'_, N> {
    fn visit<B: OnTensors>(self, replicas: &mut Replicas<B>) -> crate::Result<[Option<Storage>; 2]> {
        let held = replicas.first_mut();
        let backend = &held.backend;
        let (theta, gradient) = backend.theta_and_gradient(&mut held.parameters);
        let pass = Pass { backend, theta, rows: self.rows, keep: true };
        let saved = self.saved.downcast::<N::Saved<B>>();
        let saved = saved.map_err(|_| candle_core::Error::Msg("a pass of another device".to_owned()))?;
        let x = backend.lend(self.x.0, self.x.1)?;
        let condition = self.condition.map(|(storage, layout)| backend.lend(storage, layout)).transpose()?;
        let dy = backend.lend(self.dy.0, self.dy.1)?;
        let (dx, d_condition) = self.network.backward(pass, (x, condition), *saved, dy, gradient)?;
        Ok([Some(backend.storage(dx)), d_condition.map(|d| backend.storage(d))])
    }
}

/// A pass that has been made, as an operation.
struct Op<N: Network> {
    network: N,
    parameters: Parameters,
    ready: Mutex<Option<Storage>>,
    saved: Mutex<Kept>,
}

impl<N: Network> Op<N> {
    /// The outputs, and their shape.
    fn take(&self, x: &Layout) -> candle_core::Result<(Storage, Shape)> {
        let mut dims = x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.network.features()[1];
        }
        match self.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(ready) => Ok((ready, Shape::from(dims))),
            None => candle_core::bail!("a pass is taken once"),
        }
    }
}

impl<N: Network> CustomOp3 for Op<N> {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        x: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        match self.take(x)? {
            (Storage::Cpu(y), shape) => Ok((y, shape)),
            _ => candle_core::bail!("the parameters are on another device than the inputs"),
        }
    }

    fn cuda_fwd(
        &self,
        _: &CudaStorage,
        x: &Layout,
        _: &CudaStorage,
        _: &Layout,
        _: &CudaStorage,
        _: &Layout,
    ) -> candle_core::Result<(CudaStorage, Shape)> {
        match self.take(x)? {
            (Storage::Cuda(y), shape) => Ok((y, shape)),
            _ => candle_core::bail!("the parameters are on another device than the inputs"),
        }
    }

    fn bwd(
        &self,
        x: &Tensor,
        condition: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(saved) = saved else { candle_core::bail!("a backward pass of a network that is not trained, or a second one") };
        let dy = dy.contiguous()?;
        let (x_in, given, dy_in) = (x.storage_and_layout(), condition.storage_and_layout(), dy.storage_and_layout());
        let backward = Backward {
            network: &self.network,
            saved,
            rows: x.elem_count() / self.network.features()[0],
            x: (&x_in.0, x_in.1),
            condition: self.network.conditioning().map(|_| (&*given.0, given.1)),
            dy: (&dy_in.0, dy_in.1),
        };
        let [dx, d_condition] = self.parameters.visit_mut(backward).map_err(candle_core::Error::wrap)?;
        let tensor = |storage: Option<Storage>, of: &Tensor| storage.map(|storage| tensor_of(storage, of.shape()));
        Ok((tensor(dx, x), tensor(d_condition, condition), None))
    }
}

/// A tensor of its own of a storage.
fn tensor_of(storage: Storage, shape: &Shape) -> Tensor {
    Tensor::from_storage(storage, shape.clone(), candle_core::op::BackpropOp::none(), false)
}

/// Added to the variance in layer norm.
const EPSILON: f64 = 1e-5;

/// Lays out a network's parameters, one part behind the other.
#[derive(Default)]
pub(super) struct Places {
    /// Parameters so far.
    pub(super) len: usize,
}

impl Places {
    /// The place of so many parameters.
    pub(super) fn take(&mut self, len: usize) -> usize {
        self.len += len;
        self.len - len
    }

    /// A weight and a bias.
    pub(super) fn linear(&mut self, inputs: usize, outputs: usize, input_major: bool) -> Linear {
        Linear { weight: self.take(inputs * outputs), bias: Some(self.take(outputs)), inputs, outputs, input_major }
    }

    /// A layer norm, with a gain and a shift or without.
    pub(super) fn norm(&mut self, width: usize, affine: bool) -> Norm {
        let mut part = || affine.then(|| self.take(width));
        Norm { kind: NormKind::Layer, width, epsilon: EPSILON, gain: part(), bias: part() }
    }
}

/// Draws a map's weight and bias uniformly in `±1/√fan_in`.
pub(super) fn draw_map(map: &Linear, seed: Seed, theta: &mut [f32]) {
    let bound = 1.0 / (map.inputs.max(1) as f32).sqrt();
    let range = map.weight..map.weight + (map.inputs + 1) * map.outputs;
    let draws = seed.uniforms(range.len());
    theta[range].iter_mut().zip(draws).for_each(|(t, u)| *t = (2.0 * u - 1.0) * bound);
}

/// A linear map backwards, with the gradient of its input.
pub(super) fn linear_backward<B: Backend>(
    map: &Linear,
    pass: Pass<'_, B>,
    x: B::View<'_>,
    dy: B::View<'_>,
    gradient: &mut B::Wide,
) -> crate::Result<B::Buffer> {
    let dx = pass.backend.linear_backward((map, true), Batch::one(pass.rows), x, pass.theta, dy, gradient)?;
    dx.ok_or_else(|| candle_core::Error::Msg("a gradient that was asked for is missing".to_owned()).into())
}

/// Runs a network on weights that are a tensor: for what generates them.
///
/// # Shapes
/// `x` `[r, i]`, `weights` of as many values as the network has parameters → `[r, o]`; differentiable in the weights alone.
///
/// # Errors
/// If the shapes do not fit or a tensor operation fails.
pub fn run_on_weights<N: Network>(network: &N, x: &Tensor, weights: &Tensor) -> crate::Result<Tensor> {
    let [inputs, _] = network.features();
    let (x, weights) = (x.contiguous()?, weights.contiguous()?);
    if weights.elem_count() != network.num_parameters() || x.dims().last() != Some(&inputs) {
        let text = format!("inputs {:?} and weights {:?} for {network:?}", x.shape(), weights.shape());
        return Err(candle_core::Error::Msg(text).into());
    }
    let forward = ForwardOnWeights { network, x: &x, weights: &weights };
    let (y, saved) = on_device_of(&weights, forward)?;
    let op = OnWeights { network: network.clone(), x, ready: Mutex::new(Some(y)), saved: Mutex::new(saved) };
    Ok(weights.apply_op1(op)?)
}

struct ForwardOnWeights<'a, N: Network> {
    network: &'a N,
    x: &'a Tensor,
    weights: &'a Tensor,
}

impl<N: Network> VisitBackend<(Storage, Kept)> for ForwardOnWeights<'_, N> {
    fn visit<B: OnTensors>(self, backend: &B) -> crate::Result<(Storage, Kept)> {
        let (x, weights) = (self.x.storage_and_layout(), self.weights.storage_and_layout());
        let rows = self.x.elem_count() / self.network.features()[0];
        let pass = Pass { backend, theta: backend.lend(&weights.0, weights.1)?, rows, keep: true };
        let (y, saved) = self.network.forward(pass, backend.lend(&x.0, x.1)?, None)?;
        Ok((backend.storage(y), saved.map(|saved| Box::new(saved) as Box<dyn Any + Send + Sync>)))
    }
}

struct BackwardOnWeights<'a, N: Network> {
    network: &'a N,
    saved: Box<dyn Any + Send + Sync>,
    x: &'a Tensor,
    weights: &'a Tensor,
    dy: &'a Tensor,
}

impl<N: Network> VisitBackend<Storage> for BackwardOnWeights<'_, N> {
    fn visit<B: OnTensors>(self, backend: &B) -> crate::Result<Storage> {
        let guards = [self.x, self.weights, self.dy].map(Tensor::storage_and_layout);
        let [x, weights, dy] = &guards;
        let saved = self.saved.downcast::<N::Saved<B>>();
        let saved = saved.map_err(|_| candle_core::Error::Msg("a pass of another device".to_owned()))?;
        let mut gradient = backend.zeros_wide(self.network.num_parameters())?;
        let rows = self.x.elem_count() / self.network.features()[0];
        let pass = Pass { backend, theta: backend.lend(&weights.0, weights.1)?, rows, keep: true };
        let inputs = (backend.lend(&x.0, x.1)?, None);
        self.network.backward(pass, inputs, *saved, backend.lend(&dy.0, dy.1)?, &mut gradient)?;
        Ok(backend.wide_storage(gradient))
    }
}

/// A pass over weights that has been made, as an operation.
struct OnWeights<N: Network> {
    network: N,
    x: Tensor,
    ready: Mutex<Option<Storage>>,
    saved: Mutex<Kept>,
}

impl<N: Network> OnWeights<N> {
    fn take(&self) -> candle_core::Result<(Storage, Shape)> {
        let mut dims = self.x.dims().to_vec();
        if let Some(last) = dims.last_mut() {
            *last = self.network.features()[1];
        }
        match self.ready.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(ready) => Ok((ready, Shape::from(dims))),
            None => candle_core::bail!("a pass is taken once"),
        }
    }
}

impl<N: Network> CustomOp1 for OnWeights<N> {
    fn name(&self) -> &'static str {
        "network-on-weights"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        match self.take()? {
            (Storage::Cpu(y), shape) => Ok((y, shape)),
            _ => candle_core::bail!("the weights are on another device than the inputs"),
        }
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout) -> candle_core::Result<(CudaStorage, Shape)> {
        match self.take()? {
            (Storage::Cuda(y), shape) => Ok((y, shape)),
            _ => candle_core::bail!("the weights are on another device than the inputs"),
        }
    }

    fn bwd(&self, weights: &Tensor, _: &Tensor, dy: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(saved) = saved else { candle_core::bail!("a second backward pass") };
        let dy = dy.contiguous()?;
        let backward = BackwardOnWeights { network: &self.network, saved, x: &self.x, weights, dy: &dy };
        let gradient = on_device_of(weights, backward).map_err(candle_core::Error::wrap)?;
        Ok(Some(tensor_of(gradient, weights.shape())))
    }
}
