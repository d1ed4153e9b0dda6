//! Linear maps of one network, on all cores, or of a population, a network a task.

use super::super::{Batch, Linear};
use super::{ROWS, Real, vectorized};
use crate::kernels::{MatrixView, Target, product};
use rayon::prelude::*;

/// Multiplications below which threads cost more than they save.
const ALONE: usize = 1 << 16;

/// `x·Wᵀ`, without the bias.
pub(super) fn forward<T: Real>(map: &Linear, batch: Batch, x: &[T], theta: &[T], y: &mut [T]) {
    let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
    let run = |n: usize, y: &mut [T], parallelism| {
        let x = MatrixView::new(rows_of(batch, x, n, inputs), rows, inputs);
        product(Target::new(y, outputs), x, weight(map, batch, theta, n).t(), (T::ZERO, T::ONE), false, parallelism);
    };
    if batch.networks == 1 {
        return run(0, y, parallelism(rows * inputs * outputs));
    }
    y.par_chunks_mut(rows * outputs).enumerate().for_each(|(n, y)| run(n, y, gemm::Parallelism::None));
}

/// `dy·W`.
pub(super) fn backward_input<T: Real>(map: &Linear, batch: Batch, theta: &[T], dy: &[T], dx: &mut [T]) {
    let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
    let run = |n: usize, dx: &mut [T], parallelism| {
        let dy = MatrixView::new(&dy[n * rows * outputs..][..rows * outputs], rows, outputs);
        product(Target::new(dx, inputs), dy, weight(map, batch, theta, n), (T::ZERO, T::ONE), false, parallelism);
    };
    if batch.networks == 1 {
        return run(0, dx, parallelism(rows * inputs * outputs));
    }
    dx.par_chunks_mut(rows * inputs).enumerate().for_each(|(n, dx)| run(n, dx, gemm::Parallelism::None));
}

/// Adds `dyᵀ·x` and the sums of `dy`.
pub(super) fn backward_parameters<T: Real>(map: &Linear, batch: Batch, x: &[T], dy: &[T], gradient: &mut [T]) {
    let (rows, inputs, outputs) = (batch.rows, map.inputs, map.outputs);
    let run = |n: usize, gradient: &mut [T], parallelism| {
        let x = MatrixView::new(rows_of(batch, x, n, inputs), rows, inputs);
        let values = &dy[n * rows * outputs..][..rows * outputs];
        let dy = MatrixView::new(values, rows, outputs);
        let weight = &mut gradient[map.weight..][..inputs * outputs];
        if map.input_major {
            product(Target::new(weight, outputs), x.t(), dy, (T::ZERO, T::ONE), true, parallelism);
        } else {
            product(Target::new(weight, inputs), dy.t(), x, (T::ZERO, T::ONE), true, parallelism);
        }
        if let Some(bias) = map.bias {
            add_column_sums(values, &mut gradient[bias..][..outputs]);
        }
    };
    if batch.networks == 1 {
        return run(0, gradient, parallelism(rows * inputs * outputs));
    }
    gradient.par_chunks_mut(batch.stride).enumerate().for_each(|(n, gradient)| run(n, gradient, gemm::Parallelism::None));
}

/// Visits each row of `y` with its number and bias, in vector code.
pub(super) fn finish_rows<T: Real>(
    map: &Linear,
    batch: Batch,
    theta: &[T],
    y: &mut [T],
    visit: impl Fn(usize, &mut [T], &[T]) + Sync,
) {
    let outputs = map.outputs;
    y.par_chunks_mut(outputs).enumerate().with_min_len(ROWS).for_each(|(r, y)| {
        let bias = bias(map, batch, theta, r / batch.rows);
        vectorized(
            #[inline(always)]
            || visit(r, y, bias),
        );
    });
}

/// The same for two outputs.
pub(super) fn finish_rows_into<T: Real>(
    map: &Linear,
    batch: Batch,
    theta: &[T],
    (before, after): (&mut [T], &mut [T]),
    visit: impl Fn(&mut [T], &mut [T], &[T]) + Sync,
) {
    let outputs = map.outputs;
    let rows = before.par_chunks_mut(outputs).zip(after.par_chunks_mut(outputs)).enumerate().with_min_len(ROWS);
    rows.for_each(|(r, (before, after))| {
        let bias = bias(map, batch, theta, r / batch.rows);
        vectorized(
            #[inline(always)]
            || visit(before, after, bias),
        );
    });
}

/// Adds the sums of columns, each over blocks of rows in order.
fn add_column_sums<T: Real>(rows: &[T], sums: &mut [T]) {
    let columns = sums.len();
    let partial: Vec<Vec<T>> = rows
        .par_chunks(columns * 4 * ROWS)
        .map(|rows| {
            let mut sums = vec![T::ZERO; columns];
            vectorized(
                #[inline(always)]
                || rows.chunks_exact(columns).for_each(|row| super::add_bias(&mut sums, row)),
            );
            sums
        })
        .collect();
    for partial in &partial {
        super::add_bias(sums, partial);
    }
}

fn bias<'a, T>(map: &Linear, batch: Batch, theta: &'a [T], network: usize) -> &'a [T] {
    map.bias.map_or(&[], |bias| &theta[network * batch.stride + bias..][..map.outputs])
}

/// A network's weight as `[o, i]`.
fn weight<'a, T>(map: &Linear, batch: Batch, theta: &'a [T], network: usize) -> MatrixView<'a, T> {
    let values = &theta[network * batch.stride + map.weight..][..map.inputs * map.outputs];
    if map.input_major {
        MatrixView::new(values, map.inputs, map.outputs).t()
    } else {
        MatrixView::new(values, map.outputs, map.inputs)
    }
}

fn rows_of<T>(batch: Batch, x: &[T], network: usize, inputs: usize) -> &[T] {
    let len = batch.rows * inputs;
    let first = if batch.shared { 0 } else { network * len };
    &x[first..][..len]
}

pub(super) fn parallelism(multiplications: usize) -> gemm::Parallelism {
    if multiplications > ALONE { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None }
}
