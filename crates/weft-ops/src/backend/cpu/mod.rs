//! The CPU: products on all cores, and one pass over memory for everything between them.
//!
//! Rows are shared out in blocks of a fixed size and sums over rows are taken block by block, so that no result depends on the number
//! of threads.

#![expect(clippy::inline_always, reason = "vector code must inline into the function that is compiled for the vector unit")]

mod attention;
mod batch_norm;
mod gates;
mod images;
mod linear;
mod loss;
mod low_rank;
mod norm;
mod parameters;
mod pool;
mod real;
mod tokens;

pub use parameters::CpuParameters;
pub use pool::Pooled;
pub use real::Real;

use super::{Attention, Backend, Batch, BatchNorm, Columns, ImageSizes, Linear, LowRank, Norm, OptimizerStep, Slot, Tokens};
use crate::kernels::{ConvShape, PoolShape, Pooling};
use pool::Pool;
use pulp::Arch;
use rayon::prelude::*;
use weft_core::{Activation, RopePairs};

/// Rows of a task.
const ROWS: usize = 32;

/// Values of a task where rows do not matter.
const VALUES: usize = 1 << 13;

/// The CPU, computing in `f32` or `f64`.
#[derive(Debug, Clone, Default)]
pub struct Cpu<T> {
    pool: Pool<T>,
}

impl<T: Real> Cpu<T> {
    /// The CPU.
    #[must_use]
    pub fn new() -> Self {
        Self { pool: Pool::default() }
    }

    /// A buffer whose values are to be written.
    fn buffer(&self, len: usize) -> Pooled<T> {
        self.pool.take(len)
    }

    /// A buffer of values from elsewhere.
    #[must_use]
    pub fn from_slice(&self, values: &[T]) -> Pooled<T> {
        let mut buffer = self.buffer(values.len());
        buffer.copy_from_slice(values);
        buffer
    }
}

/// Runs a closure compiled for the widest vector unit of the machine.
#[inline(always)]
fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

impl<T: Real> Backend for Cpu<T> {
    type Buffer = Pooled<T>;
    type Wide = Pooled<T>;
    type View<'a> = &'a [T];
    type IndexBuffer = Vec<u32>;
    type Indices<'a> = &'a [u32];
    type Parameters = CpuParameters<T>;
    type Group = ();

    fn join(_: &[Self]) -> crate::Result<()> {
        Ok(())
    }

    fn all_reduce((): &(), vectors: &mut [&mut Pooled<T>]) -> crate::Result<()> {
        let Some((sum, others)) = vectors.split_first_mut() else { return Ok(()) };
        for other in others.iter() {
            assert_eq!(sum.len(), other.len(), "summands of two lengths");
            sum.par_chunks_mut(VALUES).zip(other.par_chunks(VALUES)).for_each(|(sum, other)| add_bias(sum, other));
        }
        for other in others {
            other.copy_from_slice(sum);
        }
        Ok(())
    }

    fn abort((): &()) {}

    fn view<'a>(&self, buffer: &'a Self::Buffer) -> &'a [T] {
        buffer
    }

    fn shorten<'long: 'short, 'short>(view: &'long [T]) -> &'short [T] {
        view
    }

    fn zeros(&self, len: usize) -> crate::Result<Pooled<T>> {
        let mut buffer = self.buffer(len);
        buffer.fill(T::ZERO);
        Ok(buffer)
    }

    fn linear(&self, map: &Linear, batch: Batch, x: &[T], theta: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(batch.networks * batch.rows * map.outputs);
        linear::forward(map, batch, x, theta, &mut y);
        linear::finish_rows(
            map,
            batch,
            theta,
            &mut y,
            #[inline(always)]
            |_, row, bias| add_bias(row, bias),
        );
        Ok(y)
    }

    fn linear_activated(
        &self,
        (map, activation): (&Linear, Activation),
        batch: Batch,
        x: &[T],
        theta: &[T],
    ) -> crate::Result<(Pooled<T>, Pooled<T>)> {
        let mut before = self.buffer(batch.networks * batch.rows * map.outputs);
        let mut after = self.buffer(before.len());
        linear::forward(map, batch, x, theta, &mut before);
        linear::finish_rows_into(
            map,
            batch,
            theta,
            (&mut before, &mut after),
            #[inline(always)]
            |row, after, bias| {
                add_bias(row, bias);
                real::activate(activation, row, after);
            },
        );
        Ok((before, after))
    }

    fn linear_residual(
        &self,
        (map, rows): (&Linear, usize),
        x: &[T],
        theta: &[T],
        residual: &[T],
        gate: Option<(&[T], Columns)>,
    ) -> crate::Result<(Pooled<T>, Option<Pooled<T>>)> {
        let width = map.outputs;
        let batch = Batch::one(rows);
        let mut y = self.buffer(rows * width);
        let Some((gate, columns)) = gate else {
            linear::forward(map, batch, x, theta, &mut y);
            linear::finish_rows(
                map,
                batch,
                theta,
                &mut y,
                #[inline(always)]
                |r, row, bias| {
                    add_bias(row, bias);
                    row.iter_mut().zip(&residual[r * width..]).for_each(|(y, &r)| *y += r);
                },
            );
            return Ok((y, None));
        };
        let branch = self.linear(map, batch, x, theta)?;
        let rows = y.par_chunks_mut(width).zip(branch.par_chunks(width)).enumerate().with_min_len(ROWS);
        rows.for_each(|(r, (y, branch))| {
            let gate = &gate[r / columns.rows_per_group * columns.columns + columns.first..][..width];
            let residual = &residual[r * width..][..width];
            vectorized(
                #[inline(always)]
                || {
                    for (((y, &b), &g), &r) in y.iter_mut().zip(branch).zip(gate).zip(residual) {
                        *y = g.mul_add(b, r);
                    }
                },
            );
        });
        Ok((y, Some(branch)))
    }

    fn gate_backward(
        &self,
        columns: (Columns, usize),
        dy: &[T],
        branch: &[T],
        modulation: &[T],
        d_modulation: &mut Pooled<T>,
    ) -> crate::Result<Pooled<T>> {
        let mut d_branch = self.buffer(dy.len());
        gates::branch_backward(columns, [dy, branch, modulation], (&mut d_branch, d_modulation));
        Ok(d_branch)
    }

    fn linear_backward(
        &self,
        (map, wants_dx): (&Linear, bool),
        batch: Batch,
        x: &[T],
        theta: &[T],
        dy: &[T],
        gradient: &mut Pooled<T>,
    ) -> crate::Result<Option<Pooled<T>>> {
        linear::backward_parameters(map, batch, x, dy, gradient);
        if !wants_dx {
            return Ok(None);
        }
        let mut dx = self.buffer(batch.networks * batch.rows * map.inputs);
        linear::backward_input(map, batch, theta, dy, &mut dx);
        Ok(Some(dx))
    }

    fn linear_input_backward(&self, map: &Linear, batch: Batch, theta: &[T], dy: &[T]) -> crate::Result<Pooled<T>> {
        let mut dx = self.buffer(batch.networks * batch.rows * map.inputs);
        linear::backward_input(map, batch, theta, dy, &mut dx);
        Ok(dx)
    }

    fn low_rank(&self, update: &LowRank, batch: Batch, x: &[T], theta: &[T], y: &mut Pooled<T>) -> crate::Result<Pooled<T>> {
        let mut low = self.buffer(batch.networks * batch.rows * update.rank);
        low_rank::forward(update, batch, (x, theta), &mut low, y);
        Ok(low)
    }

    fn low_rank_backward(
        &self,
        update: &LowRank,
        batch: Batch,
        inputs: (&[T], &[T]),
        theta: &[T],
        (dy, dx): (&[T], Option<&mut Pooled<T>>),
        gradient: &mut Pooled<T>,
    ) -> crate::Result<()> {
        let mut d_low = self.buffer(inputs.1.len());
        low_rank::Backward { update, batch, inputs, theta, dy }.run(&mut d_low, dx.map(|dx| &mut **dx), gradient);
        Ok(())
    }

    fn rotate(
        &self,
        (attention, pairs): (&Attention, RopePairs),
        packed: &mut Pooled<T>,
        turns: &[T],
        back: bool,
    ) -> crate::Result<()> {
        tokens::rotate(attention, pairs, packed, turns, back);
        Ok(())
    }

    fn mean_tokens(&self, sizes: Tokens, x: &[T], lengths: &[u32]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(sizes.sequences * sizes.width);
        tokens::mean(sizes, x, lengths, &mut y);
        Ok(y)
    }

    fn mean_tokens_backward(&self, sizes: Tokens, dy: &[T], lengths: &[u32]) -> crate::Result<Pooled<T>> {
        let mut dx = self.buffer(sizes.sequences * sizes.tokens * sizes.width);
        tokens::mean_backward(sizes, dy, lengths, &mut dx);
        Ok(dx)
    }

    fn activate(&self, activation: Activation, x: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(x.len());
        let tasks = y.par_chunks_mut(VALUES).zip(x.par_chunks(VALUES));
        tasks.for_each(|(y, x)| {
            vectorized(
                #[inline(always)]
                || real::activate(activation, x, y),
            );
        });
        Ok(y)
    }

    fn activate_backward(&self, activation: Activation, x: &[T], dy: &mut Pooled<T>) -> crate::Result<()> {
        assert_eq!(x.len(), dy.len(), "gradient of another length");
        let tasks = dy.par_chunks_mut(VALUES).zip(x.par_chunks(VALUES));
        tasks.for_each(|(dy, x)| {
            vectorized(
                #[inline(always)]
                || real::activate_backward(activation, x, dy),
            );
        });
        Ok(())
    }

    fn gated(&self, activation: Activation, width: usize, x: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(x.len() / 2);
        gates::forward(activation, width, x, &mut y);
        Ok(y)
    }

    fn gated_backward(&self, activation: Activation, width: usize, x: &[T], dy: &[T]) -> crate::Result<Pooled<T>> {
        let mut dx = self.buffer(x.len());
        gates::backward(activation, width, (x, dy), &mut dx);
        Ok(dx)
    }

    fn norm(
        &self,
        norm: &Norm,
        x: &[T],
        add: Option<&[T]>,
        theta: &[T],
        modulation: Option<(&[T], Columns)>,
    ) -> crate::Result<(Pooled<T>, Pooled<T>)> {
        let mut y = self.buffer(x.len());
        let mut statistics = self.buffer(x.len() / norm.width * 2);
        norm::forward(norm, (x, add), theta, modulation, (&mut y, &mut statistics));
        Ok((y, statistics))
    }

    fn norm_backward(
        &self,
        norm: &Norm,
        inputs: (&[T], Option<&[T]>),
        statistics: &Pooled<T>,
        theta: &[T],
        modulation: Option<(&[T], Columns, &mut Pooled<T>)>,
        dy: &[T],
        dx: &mut Pooled<T>,
        gradient: &mut Pooled<T>,
    ) -> crate::Result<()> {
        let modulation = modulation.map(|(values, columns, d)| (values, columns, &mut **d));
        norm::Backward { norm, inputs, statistics, theta, dy }.run(modulation, dx, gradient);
        Ok(())
    }

    fn attention(&self, attention: &Attention, packed: &[T], lengths: Option<&[u32]>) -> crate::Result<(Pooled<T>, Pooled<T>)> {
        let rows = attention.sequences * attention.tokens;
        let mut y = self.buffer(rows * attention.width());
        let mut log_sums = self.buffer(rows * attention.heads);
        attention::forward(attention, (packed, lengths), &mut y, &mut log_sums);
        Ok((y, log_sums))
    }

    fn attention_backward(
        &self,
        attention: &Attention,
        (packed, lengths): (&[T], Option<&[u32]>),
        (y, log_sums): (&[T], &Pooled<T>),
        dy: &[T],
    ) -> crate::Result<Pooled<T>> {
        let mut d_packed = self.buffer(packed.len());
        attention::backward(attention, (packed, lengths), (y, log_sums), dy, &mut d_packed);
        Ok(d_packed)
    }

    fn copy(&self, x: &[T]) -> crate::Result<Pooled<T>> {
        let mut copy = self.buffer(x.len());
        copy.copy_from_slice(x);
        Ok(copy)
    }

    fn add(&self, y: &mut Pooled<T>, x: &[T]) -> crate::Result<()> {
        assert_eq!(y.len(), x.len(), "summands of two lengths");
        y.par_chunks_mut(VALUES).zip(x.par_chunks(VALUES)).for_each(|(y, x)| add_bias(y, x));
        Ok(())
    }

    fn add_repeated(&self, y: &mut Pooled<T>, (theta, offset, len): (&[T], usize, usize)) -> crate::Result<()> {
        let row = &theta[offset..][..len];
        y.par_chunks_mut(len).for_each(|y| add_bias(y, row));
        Ok(())
    }

    fn add_repeated_backward(&self, dy: &[T], (offset, len): (usize, usize), gradient: &mut Pooled<T>) -> crate::Result<()> {
        let tasks = gradient[offset..][..len].par_chunks_mut(VALUES).enumerate();
        tasks.for_each(|(task, gradient)| {
            dy.chunks_exact(len).for_each(|dy| add_bias(gradient, &dy[task * VALUES..][..gradient.len()]));
        });
        Ok(())
    }

    fn cross_entropy(
        &self,
        [networks, classes]: [usize; 2],
        logits: &[T],
        labels: &[u32],
        weights: Option<&Pooled<T>>,
    ) -> crate::Result<(Pooled<T>, Pooled<T>)> {
        let mut losses = self.buffer(networks);
        let mut gradient = self.buffer(logits.len());
        loss::cross_entropy(classes, logits, (labels, weights.map(|w| &**w)), &mut losses, &mut gradient)?;
        Ok((losses, gradient))
    }

    fn patches(&self, shape: &ConvShape, images: usize, x: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(images * shape.size_out().iter().product::<usize>() * shape.taps());
        images::patches(shape, x, &mut y);
        Ok(y)
    }

    fn patches_backward(&self, shape: &ConvShape, images: usize, dy: &[T]) -> crate::Result<Pooled<T>> {
        let mut dx = self.zeros(images * shape.channels[0] * shape.size[0] * shape.size[1])?;
        images::patches_backward(shape, dy, &mut dx);
        Ok(dx)
    }

    fn pool(&self, pool: (Pooling, &PoolShape), sizes: ImageSizes, x: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(sizes.images * sizes.channels * pool.1.size_out().iter().product::<usize>());
        images::pool(pool, sizes.channels, x, &mut y);
        Ok(y)
    }

    fn pool_backward(&self, pool: (Pooling, &PoolShape), sizes: ImageSizes, x: &[T], dy: &[T]) -> crate::Result<Pooled<T>> {
        let mut dx = self.zeros(x.len())?;
        images::pool_backward(pool, sizes.channels, (x, dy), &mut dx);
        Ok(dx)
    }

    fn transpose(&self, [matrices, rows, columns]: [usize; 3], x: &[T]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(matrices * rows * columns);
        y.par_chunks_mut(rows * columns).zip(x.par_chunks(rows * columns)).for_each(|(y, x)| {
            for (r, x) in x.chunks_exact(columns).enumerate() {
                y[r..].iter_mut().step_by(rows).zip(x).for_each(|(y, &x)| *y = x);
            }
        });
        Ok(y)
    }

    fn batch_norm(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: &[T],
        theta: &[T],
        training: bool,
    ) -> crate::Result<(Pooled<T>, Pooled<T>, Option<Pooled<T>>)> {
        let mut y = self.buffer(x.len());
        let mut statistics = self.buffer(batch.networks * 2 * norm.width);
        let mut moved = training.then(|| self.buffer(statistics.len()));
        batch_norm::forward(norm, batch, (x, theta), &mut y, (&mut statistics, moved.as_deref_mut()));
        Ok((y, statistics, moved))
    }

    fn batch_norm_backward(
        &self,
        norm: &BatchNorm,
        batch: Batch,
        x: &[T],
        statistics: &Pooled<T>,
        theta: &[T],
        training: bool,
        dy: &[T],
        gradient: &mut Pooled<T>,
    ) -> crate::Result<Pooled<T>> {
        let mut dx = self.buffer(x.len());
        batch_norm::Backward { norm, batch, x, statistics, theta, training, dy }.run(&mut dx, gradient);
        Ok(dx)
    }

    fn set_statistics(
        &self,
        parameters: &mut CpuParameters<T>,
        norm: &BatchNorm,
        batch: Batch,
        moved: &Pooled<T>,
    ) -> crate::Result<()> {
        batch_norm::set(norm, batch, moved, parameters.slot_mut(Slot::Theta));
        Ok(())
    }

    fn upload(&self, values: &[f32]) -> crate::Result<Pooled<T>> {
        let mut buffer = self.buffer(values.len());
        buffer.iter_mut().zip(values).for_each(|(b, &v)| *b = T::from_f32(v));
        Ok(buffer)
    }

    fn download(&self, values: &[T]) -> crate::Result<Vec<f32>> {
        Ok(values.iter().map(|v| v.to_f32()).collect())
    }

    fn upload_indices(&self, values: &[u32]) -> crate::Result<Vec<u32>> {
        Ok(values.to_vec())
    }

    fn indices<'a>(&self, buffer: &'a Vec<u32>) -> &'a [u32] {
        buffer
    }

    fn gather(&self, width: usize, x: &[T], rows: &[u32]) -> crate::Result<Pooled<T>> {
        let mut y = self.buffer(rows.len() * width);
        y.par_chunks_mut(width).zip(rows).for_each(|(y, &row)| y.copy_from_slice(&x[row as usize * width..][..width]));
        Ok(y)
    }

    fn mix(&self, y: &mut Pooled<T>, keep: f64, x: &[T]) -> crate::Result<()> {
        assert_eq!(y.len(), x.len(), "summands of two lengths");
        let [keep, take] = [keep, 1.0 - keep].map(T::from_f64);
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = keep * *y + take * x);
        Ok(())
    }

    fn mark_active(&self, [_, rows, channels]: [usize; 3], x: &[T], flags: &mut Pooled<T>) -> crate::Result<()> {
        flags.par_chunks_mut(channels).zip(x.par_chunks(rows * channels)).for_each(|(flags, x)| {
            for row in x.chunks_exact(channels) {
                flags.iter_mut().zip(row).filter(|&(_, &x)| x != T::ZERO).for_each(|(flag, _)| *flag = T::ONE);
            }
        });
        Ok(())
    }

    fn upload_wide(&self, values: &[f32]) -> crate::Result<Pooled<T>> {
        self.upload(values)
    }

    fn download_wide(&self, values: &Pooled<T>) -> crate::Result<Vec<f32>> {
        Ok(values.iter().map(|v| v.to_f32()).collect())
    }

    fn squared_error(
        &self,
        sizes: [usize; 2],
        y: &[T],
        targets: &[T],
        weights: Option<&Pooled<T>>,
        total: &mut Pooled<T>,
    ) -> crate::Result<Pooled<T>> {
        let mut gradient = self.buffer(y.len());
        total[0] += loss::squared_error(sizes, (y, targets), weights.map(|w| &**w), &mut gradient);
        Ok(gradient)
    }

    fn zeros_wide(&self, len: usize) -> crate::Result<Pooled<T>> {
        self.zeros(len)
    }

    fn parameters(&self, theta: &[f32], trained: bool) -> crate::Result<CpuParameters<T>> {
        Ok(CpuParameters::new(self, theta, trained))
    }

    fn theta<'a>(&self, parameters: &'a CpuParameters<T>) -> &'a [T] {
        parameters.theta()
    }

    fn theta_and_gradient<'a>(&self, parameters: &'a mut CpuParameters<T>) -> (&'a [T], &'a mut Pooled<T>) {
        parameters.theta_and_gradient()
    }

    fn read(&self, parameters: &CpuParameters<T>, slot: Slot) -> crate::Result<Vec<f32>> {
        Ok(parameters.slot(slot).iter().map(|v| v.to_f32()).collect())
    }

    fn write(&self, parameters: &mut CpuParameters<T>, slot: Slot, values: &[f32]) -> crate::Result<()> {
        parameters.slot_mut(slot).iter_mut().zip(values).for_each(|(slot, &v)| *slot = T::from_f32(v));
        Ok(())
    }

    fn optimizer_step(&self, parameters: &mut CpuParameters<T>, step: &OptimizerStep) -> crate::Result<()> {
        parameters.step(step);
        Ok(())
    }

    fn gradient_norm(&self, parameters: &CpuParameters<T>) -> crate::Result<f64> {
        Ok(parameters.norm())
    }
}

/// `y + x`, in `y`.
#[inline(always)]
fn add_bias<T: Real>(y: &mut [T], x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += x);
}
