//! Fused operations on buffers of one device: what a network's forward and backward pass are written in.
//!
//! A network ([`Network`](crate::tensor::Network)) is written once against [`Backend`] and runs on each of them: on the CPU in `f32`, in
//! `f64` where its gradients are checked, and on a GPU in `f32` or `bf16` (sums, statistics and gradients of parameters are `f32` then).
//!
//! All parameters of a network are one flat vector, and those of a population one vector a network behind the other, so that a
//! parameter is an offset and the optimizer's step one pass. Gradients of parameters are *added* to one vector of the same
//! layout, straight from the products that compute them.
//!
//! Shape legend: `n` networks, `r` rows (examples, or their tokens), `i` and `o` features, `g` groups of rows that share a modulation,
//! `b` sequences of `t` tokens, `h` heads of `k` features.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod shapes;

pub use cpu::{Cpu, CpuParameters, Pooled, Real};
#[cfg(feature = "cuda")]
pub use cuda::{Cuda, CudaGroup, CudaParameters, CudaReal, HostProducts, View as DeviceView};
pub use shapes::{
    Attention, Batch, BatchNorm, Columns, ImageSizes, Linear, LowRank, Norm, NormKind, OptimizerStep, Slot, Tokens, rotary_turns,
};

use crate::kernels::{ConvShape, PoolShape, Pooling};
use crate::tensor::Precision;
use weft_core::products::Place;
use weft_core::{Activation, RopePairs};

/// Where products of the host's matrices are computed that one of candle's devices is better at: on a GPU, or on the cores.
///
/// # Errors
/// If a GPU cannot be prepared.
pub fn products_of(device: &candle_core::Device) -> crate::Result<Place> {
    match device {
        #[cfg(feature = "cuda")]
        candle_core::Device::Cuda(device) => Ok(Place::new(std::sync::Arc::new(HostProducts::new(device)?))),
        _ => Ok(Place::default()),
    }
}

/// A device's buffers and the operations on them.
///
/// Lengths are checked; a mismatch is a panic, since shapes are checked where data enter a network. Operations on a GPU
/// are queued; an error may belong to an earlier one.
pub trait Backend: std::fmt::Debug + Clone + Send + Sync + Sized {
    /// Values that a network passes on, in the precision of its computation.
    type Buffer: Send + Sync;
    /// Values of higher precision: statistics, and gradients of parameters. On the CPU, the same.
    type Wide: Send + Sync;
    /// A borrowed part of a buffer.
    type View<'a>: Copy;
    /// Whole numbers.
    type IndexBuffer: Send + Sync;
    /// Borrowed whole numbers.
    type Indices<'a>: Copy;
    /// Parameters with their gradient, moments and moving average.
    type Parameters: Send + Sync;
    /// What devices need to add up vectors between them.
    type Group: Send + Sync;

    /// Joins devices that are to train one network together, for [`Backend::all_reduce`].
    ///
    /// # Errors
    /// If they cannot reach each other.
    fn join(devices: &[Self]) -> crate::Result<Self::Group>;

    /// Replaces vectors, one a device in the order of the group, by their sum: the same bits on all devices.
    ///
    /// One thread calls it for all devices, so that each has it to do or none.
    ///
    /// # Errors
    /// If a device fails, now or before; the group is given up then.
    fn all_reduce(group: &Self::Group, vectors: &mut [&mut Self::Wide]) -> crate::Result<()>;

    /// Gives a group up after one of its devices has failed, so that no other waits for it.
    fn abort(group: &Self::Group);

    /// Borrows a buffer.
    fn view<'a>(&self, buffer: &'a Self::Buffer) -> Self::View<'a>;

    /// The same part, borrowed for less long.
    fn shorten<'long: 'short, 'short>(view: Self::View<'long>) -> Self::View<'short>;

    /// A buffer of zeros.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn zeros(&self, len: usize) -> crate::Result<Self::Buffer>;

    /// A linear map; see [`Linear`].
    ///
    /// # Shapes
    /// `x` `[n, r, i]`, or `[r, i]` if shared → `[n, r, o]`.
    ///
    /// # Errors
    /// If the device fails.
    fn linear(&self, map: &Linear, batch: Batch, x: Self::View<'_>, theta: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// A linear map and an activation: the values before and after it.
    ///
    /// # Errors
    /// If the device fails.
    fn linear_activated(
        &self,
        map_activation: (&Linear, Activation),
        batch: Batch,
        x: Self::View<'_>,
        theta: Self::View<'_>,
    ) -> crate::Result<(Self::Buffer, Self::Buffer)>;

    /// A linear map at the end of a residual branch of one network: `residual + gate·(x·Wᵀ + b)`. With a gate, the branch is returned
    /// too, for [`Backend::gate_backward`].
    ///
    /// # Shapes
    /// `residual` `[r, o]`; the gate's columns of a buffer of modulations `[g, columns]`.
    ///
    /// # Errors
    /// If the device fails.
    fn linear_residual(
        &self,
        map_rows: (&Linear, usize),
        x: Self::View<'_>,
        theta: Self::View<'_>,
        residual: Self::View<'_>,
        gate: Option<(Self::View<'_>, Columns)>,
    ) -> crate::Result<(Self::Buffer, Option<Self::Buffer>)>;

    /// The gradient behind a gate: returns that of the branch, and writes that of the gate's columns.
    ///
    /// # Shapes
    /// `dy` and `branch` `[r, o]`, `modulation` and `d_modulation` `[g, columns]` → `[r, o]`.
    ///
    /// # Errors
    /// If the device fails.
    fn gate_backward(
        &self,
        columns_width: (Columns, usize),
        dy: Self::View<'_>,
        branch: Self::View<'_>,
        modulation: Self::View<'_>,
        d_modulation: &mut Self::Buffer,
    ) -> crate::Result<Self::Buffer>;

    /// Adds the gradients of weight and bias, and returns that of `x` if it is wanted (of each network, also where rows are shared).
    ///
    /// # Errors
    /// If the device fails.
    fn linear_backward(
        &self,
        map_wants_dx: (&Linear, bool),
        batch: Batch,
        x: Self::View<'_>,
        theta: Self::View<'_>,
        dy: Self::View<'_>,
        gradient: &mut Self::Wide,
    ) -> crate::Result<Option<Self::Buffer>>;

    /// The gradient of a linear map with respect to its input alone, `dy·W`: of a map that is not trained.
    ///
    /// # Shapes
    /// `dy` `[n, r, o]` → `[n, r, i]`.
    ///
    /// # Errors
    /// If the device fails.
    fn linear_input_backward(
        &self,
        map: &Linear,
        batch: Batch,
        theta: Self::View<'_>,
        dy: Self::View<'_>,
    ) -> crate::Result<Self::Buffer>;

    /// Adds the low-rank updates of a population to some columns of the outputs of a map that all share, `y[:, first..] += s·(x·Aᵀ)·Bᵀ`,
    /// and returns `x·Aᵀ`.
    ///
    /// # Shapes
    /// `x` `[n, r, i]`, `y` `[n, r, columns]` → `[n, r, rank]`; rows are not shared.
    ///
    /// # References
    /// Hu et al., *`LoRA`* (2022), equation 3.
    ///
    /// # Errors
    /// If the device fails.
    fn low_rank(
        &self,
        update: &LowRank,
        batch: Batch,
        x: Self::View<'_>,
        theta: Self::View<'_>,
        y: &mut Self::Buffer,
    ) -> crate::Result<Self::Buffer>;

    /// Its gradient: adds those of `A` and `B`, and to `dx`, if given, that of `x`. `inputs` are `x` and what the forward pass returned.
    ///
    /// # Errors
    /// If the device fails.
    fn low_rank_backward(
        &self,
        update: &LowRank,
        batch: Batch,
        inputs: (Self::View<'_>, Self::View<'_>),
        theta: Self::View<'_>,
        d: (Self::View<'_>, Option<&mut Self::Buffer>),
        gradient: &mut Self::Wide,
    ) -> crate::Result<()>;

    /// An activation on its own.
    ///
    /// # Errors
    /// If the device fails.
    fn activate(&self, activation: Activation, x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// Multiplies `dy` by the activation's derivative at `x`, the values before it.
    ///
    /// # Errors
    /// If the device fails.
    fn activate_backward(&self, activation: Activation, x: Self::View<'_>, dy: &mut Self::Buffer) -> crate::Result<()>;

    /// A gated activation: `a(x[..w])·x[w..]` of rows of `2w`.
    ///
    /// # Errors
    /// If the device fails.
    fn gated(&self, activation: Activation, width: usize, x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// Its gradient.
    ///
    /// # Shapes
    /// `x` `[r, 2w]`, `dy` `[r, w]` → `[r, 2w]`.
    ///
    /// # Errors
    /// If the device fails.
    fn gated_backward(
        &self,
        activation: Activation,
        width: usize,
        x: Self::View<'_>,
        dy: Self::View<'_>,
    ) -> crate::Result<Self::Buffer>;

    /// A norm, and for each row its mean (0 for [`NormKind::Rms`]) and `1/σ`.
    ///
    /// # Shapes
    /// `x` `[r, w]`; `add`, if given, is added to it first → `[r, w]` and `[r, 2]`.
    ///
    /// # Errors
    /// If the device fails.
    fn norm(
        &self,
        norm: &Norm,
        x: Self::View<'_>,
        add: Option<Self::View<'_>>,
        theta: Self::View<'_>,
        modulation: Option<(Self::View<'_>, Columns)>,
    ) -> crate::Result<(Self::Buffer, Self::Wide)>;

    /// The gradient of a norm: added to `dx`, those of gain and shift to `gradient`; those of a modulation are written to its columns.
    ///
    /// # Shapes
    /// As for [`Backend::norm`]; `modulation` also carries the buffer of its gradient.
    ///
    /// # Errors
    /// If the device fails.
    #[expect(clippy::too_many_arguments, reason = "a norm has as many inputs")]
    fn norm_backward(
        &self,
        norm: &Norm,
        inputs: (Self::View<'_>, Option<Self::View<'_>>),
        statistics: &Self::Wide,
        theta: Self::View<'_>,
        modulation: Option<(Self::View<'_>, Columns, &mut Self::Buffer)>,
        dy: Self::View<'_>,
        dx: &mut Self::Buffer,
        gradient: &mut Self::Wide,
    ) -> crate::Result<()>;

    /// Turns the pairs of each query and key by the angles of their position, in place; with `back` by their negatives, which is the
    /// gradient.
    ///
    /// # Shapes
    /// `packed` `[b·t, (h + 2·kv)·k]`; `turns` of [`rotary_turns`] for `t` positions or more.
    ///
    /// # References
    /// Su et al., *`RoFormer`* (2021), equation 34.
    ///
    /// # Errors
    /// If the device fails.
    fn rotate(
        &self,
        attention_pairs: (&Attention, RopePairs),
        packed: &mut Self::Buffer,
        turns: Self::View<'_>,
        back: bool,
    ) -> crate::Result<()>;

    /// The mean of each sequence over its first tokens: as many as `lengths` says.
    ///
    /// # Shapes
    /// `x` `[b, t, w]`, `lengths` `[b]`, each between 1 and `t` → `[b, w]`.
    ///
    /// # Errors
    /// If the device fails.
    fn mean_tokens(&self, tokens: Tokens, x: Self::View<'_>, lengths: Self::Indices<'_>) -> crate::Result<Self::Buffer>;

    /// Its gradient, 0 behind the last token.
    ///
    /// # Shapes
    /// `dy` `[b, w]` → `[b, t, w]`.
    ///
    /// # Errors
    /// If the device fails.
    fn mean_tokens_backward(&self, tokens: Tokens, dy: Self::View<'_>, lengths: Self::Indices<'_>) -> crate::Result<Self::Buffer>;

    /// Softmax attention without a matrix of tokens × tokens in memory, and for each sequence, head and token the logarithm of its sum
    /// of exponentials. With `lengths`, the tokens of a sequence behind its length are padding, which no token sees; what padding itself
    /// gets is of no account.
    ///
    /// # Shapes
    /// `packed` `[b·t, (h + 2·kv)·k]`, `lengths` `[b]`, each between 1 and `t` → `[b·t, h·k]` and `[b, h, t]`.
    ///
    /// # References
    /// Dao et al., *`FlashAttention`* (2022), algorithms 1 and 4.
    ///
    /// # Errors
    /// If the device fails.
    fn attention(
        &self,
        attention: &Attention,
        packed: Self::View<'_>,
        lengths: Option<Self::Indices<'_>>,
    ) -> crate::Result<(Self::Buffer, Self::Wide)>;

    /// The gradient of attention with respect to the packed rows.
    ///
    /// # Errors
    /// If the device fails.
    fn attention_backward(
        &self,
        attention: &Attention,
        packed_lengths: (Self::View<'_>, Option<Self::Indices<'_>>),
        outputs: (Self::View<'_>, &Self::Wide),
        dy: Self::View<'_>,
    ) -> crate::Result<Self::Buffer>;

    /// A copy of a buffer.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn copy(&self, x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// `y + x`, in `y`.
    ///
    /// # Errors
    /// If the device fails.
    fn add(&self, y: &mut Self::Buffer, x: Self::View<'_>) -> crate::Result<()>;

    /// Adds to `y` a part of the parameters that repeats along it, `[r, w] + [p, w]`: learned positions. The part is the parameters, its
    /// first place and its length.
    ///
    /// # Errors
    /// If the device fails.
    fn add_repeated(&self, y: &mut Self::Buffer, part: (Self::View<'_>, usize, usize)) -> crate::Result<()>;

    /// Adds to `gradient[offset..]` the sum of `dy` over its repetitions of `len` values.
    ///
    /// # Errors
    /// If the device fails.
    fn add_repeated_backward(&self, dy: Self::View<'_>, part: (usize, usize), gradient: &mut Self::Wide) -> crate::Result<()>;

    /// The mean cross-entropy of each network, in nats, and its gradient with respect to the logits; the sizes are `n` and `c`. With
    /// weights it is the sum of the rows' cross-entropies times their weights instead.
    ///
    /// # Shapes
    /// `logits` `[n, r, c]`, `labels` `[n, r]` below `c`, `weights` `[n, r]` → `[n]` and `[n, r, c]`.
    ///
    /// # Errors
    /// If the device fails.
    fn cross_entropy(
        &self,
        sizes: [usize; 2],
        logits: Self::View<'_>,
        labels: Self::Indices<'_>,
        weights: Option<&Self::Wide>,
    ) -> crate::Result<(Self::Buffer, Self::Buffer)>;

    /// The window of each output of a convolution as a row, so that the convolution is a linear map of rows. Pixels are rows of channels
    /// here, but a window's values are in a checkpoint's order: channel, then place.
    ///
    /// # Shapes
    /// `x` `[images, h, w, c]` → `[images, h', w', c·k·k]`.
    ///
    /// # Errors
    /// If the device fails.
    fn patches(&self, shape: &ConvShape, images: usize, x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// Its gradient: each pixel sums what its windows got.
    ///
    /// # Errors
    /// If the device fails.
    fn patches_backward(&self, shape: &ConvShape, images: usize, dy: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// A pool over windows.
    ///
    /// # Shapes
    /// `x` `[images, h, w, c]` → `[images, h', w', c]`.
    ///
    /// # Errors
    /// If the device fails.
    fn pool(&self, pool: (Pooling, &PoolShape), sizes: ImageSizes, x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// Its gradient; of equal greatest values, the first gets it.
    ///
    /// # Errors
    /// If the device fails.
    fn pool_backward(
        &self,
        pool: (Pooling, &PoolShape),
        sizes: ImageSizes,
        x: Self::View<'_>,
        dy: Self::View<'_>,
    ) -> crate::Result<Self::Buffer>;

    /// Transposes each of a number of matrices: from channels first to channels last, and back.
    ///
    /// # Shapes
    /// `x` `[matrices, rows, columns]` → `[matrices, columns, rows]`.
    ///
    /// # Errors
    /// If the device fails.
    fn transpose(&self, sizes: [usize; 3], x: Self::View<'_>) -> crate::Result<Self::Buffer>;

    /// A batch norm of a population, `(x − μ)·s·gain + shift` with `s = 1/√(σ² + ε)`: by the batch's statistics in training (rows are
    /// examples and pixels), else by the running ones.
    ///
    /// Returns `y`, the `μ` and `s` of each network, and in training its running mean and variance after this batch, for
    /// [`Backend::set_statistics`]: they have moved by [`BATCH_NORM_MOMENTUM`](crate::kernels::BATCH_NORM_MOMENTUM) towards the batch's
    /// mean and unbiased variance.
    ///
    /// # Shapes
    /// `x` `[n, r, c]` → `[n, r, c]`, `[n, 2, c]` and `[n, 2, c]`; rows are not shared.
    ///
    /// # References
    /// Ioffe and Szegedy, *Batch normalization* (2015), algorithm 1.
    ///
    /// # Errors
    /// If the device fails.
    #[expect(clippy::type_complexity, reason = "three buffers have no better name")]
    fn batch_norm(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: Self::View<'_>,
        theta: Self::View<'_>,
        training: bool,
    ) -> crate::Result<(Self::Buffer, Self::Wide, Option<Self::Wide>)>;

    /// The gradient of a batch norm with respect to `x`; those of gain and shift are added to `gradient`. In training it goes through
    /// the batch's statistics; else the running ones are parameters, and get theirs.
    ///
    /// # Shapes
    /// As for [`Backend::batch_norm`], whose `statistics` these are.
    ///
    /// # Errors
    /// If the device fails.
    #[expect(clippy::too_many_arguments, reason = "a norm has as many inputs")]
    fn batch_norm_backward(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: Self::View<'_>,
        statistics: &Self::Wide,
        theta: Self::View<'_>,
        training: bool,
        dy: Self::View<'_>,
        gradient: &mut Self::Wide,
    ) -> crate::Result<Self::Buffer>;

    /// Writes running statistics into the parameters: after the optimizer's step, whose decay of weights they are no part of.
    ///
    /// # Shapes
    /// `moved` `[n, 2, c]`, of [`Backend::batch_norm`].
    ///
    /// # Errors
    /// If the device fails.
    fn set_statistics(
        &self,
        parameters: &mut Self::Parameters,
        norm: &BatchNorm,
        batch: Batch,
        moved: &Self::Wide,
    ) -> crate::Result<()>;

    /// Copies values from the host.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn upload(&self, values: &[f32]) -> crate::Result<Self::Buffer>;

    /// Waits for values and copies them to the host.
    ///
    /// # Errors
    /// If the device fails.
    fn download(&self, values: Self::View<'_>) -> crate::Result<Vec<f32>>;

    /// Copies whole numbers from the host.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn upload_indices(&self, values: &[u32]) -> crate::Result<Self::IndexBuffer>;

    /// Borrows whole numbers.
    fn indices<'a>(&self, buffer: &'a Self::IndexBuffer) -> Self::Indices<'a>;

    /// Some rows of a matrix, in the order asked for; each must be there.
    ///
    /// # Shapes
    /// `x` `[r, width]`, `rows` `[m]` → `[m, width]`.
    ///
    /// # Errors
    /// If the device fails.
    fn gather(&self, width: usize, x: Self::View<'_>, rows: Self::Indices<'_>) -> crate::Result<Self::Buffer>;

    /// `keep·y + (1 − keep)·x`, in `y`: one step of an exponential mean.
    ///
    /// # Errors
    /// If the device fails.
    fn mix(&self, y: &mut Self::Buffer, keep: f64, x: Self::View<'_>) -> crate::Result<()>;

    /// Sets to 1 the flag of each network's channel that is not 0 in some row; the sizes are `n`, `r` and `c`.
    ///
    /// # Shapes
    /// `x` `[n, r, c]`, `flags` `[n, c]`.
    ///
    /// # Errors
    /// If the device fails.
    fn mark_active(&self, sizes: [usize; 3], x: Self::View<'_>, flags: &mut Self::Wide) -> crate::Result<()>;

    /// Copies values from the host, in higher precision.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn upload_wide(&self, values: &[f32]) -> crate::Result<Self::Wide>;

    /// Waits for values and copies them to the host.
    ///
    /// # Errors
    /// If the device fails.
    fn download_wide(&self, values: &Self::Wide) -> crate::Result<Vec<f32>>;

    /// The gradient of the mean squared error `Σᵣ wᵣ·|yᵣ − targetᵣ|² / (r·c)` with respect to `y`; the error is added to `total[0]`. The
    /// sizes are `r` and `c`, and weights are 1 where none are given.
    ///
    /// # Shapes
    /// `y` and `targets` `[r, c]`, `weights` `[r]` → `[r, c]`.
    ///
    /// # Errors
    /// If the device fails.
    fn squared_error(
        &self,
        sizes: [usize; 2],
        y: Self::View<'_>,
        targets: Self::View<'_>,
        weights: Option<&Self::Wide>,
        total: &mut Self::Wide,
    ) -> crate::Result<Self::Buffer>;

    /// A buffer of zeros of higher precision.
    ///
    /// # Errors
    /// If memory is not to be had.
    fn zeros_wide(&self, len: usize) -> crate::Result<Self::Wide>;

    /// Puts parameters on the device; if they are to be trained, with a gradient and moments of 0 (otherwise these have no values).
    ///
    /// # Errors
    /// If memory is not to be had.
    fn parameters(&self, theta: &[f32], trained: bool) -> crate::Result<Self::Parameters>;

    /// The parameters in the precision of the computation.
    fn theta<'a>(&self, parameters: &'a Self::Parameters) -> Self::View<'a>;

    /// The same, and the gradient to be added to.
    fn theta_and_gradient<'a>(&self, parameters: &'a mut Self::Parameters) -> (Self::View<'a>, &'a mut Self::Wide);

    /// Copies a vector out.
    ///
    /// # Errors
    /// If the device fails.
    fn read(&self, parameters: &Self::Parameters, slot: Slot) -> crate::Result<Vec<f32>>;

    /// Copies a vector in.
    ///
    /// # Errors
    /// If the device fails.
    fn write(&self, parameters: &mut Self::Parameters, slot: Slot, values: &[f32]) -> crate::Result<()>;

    /// Takes one step in one pass over all vectors (one more if the gradient is clipped), and sets the gradient to 0.
    ///
    /// # Errors
    /// If the device fails.
    fn optimizer_step(&self, parameters: &mut Self::Parameters, step: &OptimizerStep) -> crate::Result<()>;

    /// The norm that the gradient had at the last step, before clipping; not a number if it was not to be clipped.
    ///
    /// # Errors
    /// If the device fails.
    fn gradient_norm(&self, parameters: &Self::Parameters) -> crate::Result<f64>;
}

/// Work for whatever backend a device has.
pub trait Job {
    /// What it gives.
    type Output;

    /// Does the work.
    fn run<B: Backend + 'static>(self, backend: &B) -> Self::Output;
}

/// Does a job in `f32` on a device.
///
/// # Errors
/// If the device cannot be prepared.
pub fn on_device<J: Job>(device: &candle_core::Device, job: J) -> crate::Result<J::Output> {
    on_device_in(Precision::Single, device, job)
}

/// Does a job on a device in a precision.
///
/// # Errors
/// If the device cannot be prepared, or does not compute in that precision.
pub fn on_device_in<J: Job>(precision: Precision, device: &candle_core::Device, job: J) -> crate::Result<J::Output> {
    match (device, precision) {
        (candle_core::Device::Cpu, Precision::Single) => Ok(job.run(&Cpu::<f32>::new())),
        (candle_core::Device::Cpu, Precision::Double) => Ok(job.run(&Cpu::<f64>::new())),
        (candle_core::Device::Cpu, Precision::Bfloat16) => {
            let reason = "it computes in f32; take a GPU for bf16 (`--device cuda:0`), or `precision = \"f32\"`".to_owned();
            Err(crate::Error::Device { device: "cpu".to_owned(), reason })
        }
        #[cfg(feature = "cuda")]
        (candle_core::Device::Cuda(device), Precision::Single) => Ok(job.run(&Cuda::<f32>::new(device)?)),
        #[cfg(feature = "cuda")]
        (candle_core::Device::Cuda(device), Precision::Bfloat16) => Ok(job.run(&Cuda::<half::bf16>::new(device)?)),
        (other, _) => {
            let reason = "networks do not run there".to_owned();
            Err(crate::Error::Device { device: format!("{:?}", other.location()), reason })
        }
    }
}
