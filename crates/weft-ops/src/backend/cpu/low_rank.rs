//! Low-rank updates of a population, a network a task, or of one network on all cores.

use super::super::{Batch, LowRank};
use super::{Real, linear};
use crate::kernels::{MatrixView, Target, product};
use rayon::prelude::*;

/// `A` and `B` of a network.
fn factors<'a, T>(update: &LowRank, batch: Batch, theta: &'a [T], network: usize) -> [MatrixView<'a, T>; 2] {
    let of_network = &theta[network * batch.stride..];
    let a = MatrixView::new(&of_network[update.a..][..update.rank * update.inputs], update.rank, update.inputs);
    let b = MatrixView::new(&of_network[update.b..][..update.outputs * update.rank], update.outputs, update.rank);
    [a, b]
}

/// Multiplies values by the update's scale.
fn scale<T: Real>(update: &LowRank, values: &mut [T]) {
    let factor = T::from_f64(update.scale);
    for v in values {
        *v *= factor;
    }
}

/// Adds the updates to `y`, and writes `x·Aᵀ`.
pub(super) fn forward<T: Real>(update: &LowRank, batch: Batch, (x, theta): (&[T], &[T]), low: &mut [T], y: &mut [T]) {
    let (rows, rank, columns) = (batch.rows, update.rank, update.columns);
    assert!(update.first + update.outputs <= columns && !batch.shared, "columns of the map that is updated");
    let run = |n: usize, low: &mut [T], y: &mut [T], parallelism| {
        let [a, b] = factors(update, batch, theta, n);
        let x = MatrixView::new(&x[n * rows * update.inputs..][..rows * update.inputs], rows, update.inputs);
        product(Target::new(low, rank), x, a.t(), (T::ZERO, T::ONE), false, parallelism);
        let mut scaled = low.to_vec();
        scale(update, &mut scaled);
        let target = Target::columns_from(y, columns, update.first);
        product(target, MatrixView::new(&scaled, rows, rank), b.t(), (T::ZERO, T::ONE), true, parallelism);
    };
    if batch.networks == 1 {
        return run(0, low, y, linear::parallelism(rows * rank * update.inputs));
    }
    let networks = low.par_chunks_mut(rows * rank).zip(y.par_chunks_mut(rows * columns)).enumerate();
    networks.for_each(|(n, (low, y))| run(n, low, y, gemm::Parallelism::None));
}

/// What the gradient of an update is computed from.
pub(super) struct Backward<'a, T> {
    pub(super) update: &'a LowRank,
    pub(super) batch: Batch,
    pub(super) inputs: (&'a [T], &'a [T]),
    pub(super) theta: &'a [T],
    pub(super) dy: &'a [T],
}

impl<T: Real> Backward<'_, T> {
    pub(super) fn run(&self, d_low: &mut [T], dx: Option<&mut [T]>, gradient: &mut [T]) {
        let (batch, update) = (self.batch, self.update);
        let (of_low, of_x) = (batch.rows * update.rank, batch.rows * update.inputs);
        if batch.networks == 1 {
            let parallelism = linear::parallelism(of_x * update.rank);
            return self.network(0, d_low, dx, gradient, parallelism);
        }
        let alone = gemm::Parallelism::None;
        let networks = d_low.par_chunks_mut(of_low).zip(gradient.par_chunks_mut(batch.stride)).enumerate();
        match dx {
            None => networks.for_each(|(n, (d_low, gradient))| self.network(n, d_low, None, gradient, alone)),
            Some(dx) => networks.zip(dx.par_chunks_mut(of_x)).for_each(|((n, (d_low, gradient)), dx)| {
                self.network(n, d_low, Some(dx), gradient, alone);
            }),
        }
    }

    fn network(&self, n: usize, d_low: &mut [T], dx: Option<&mut [T]>, gradient: &mut [T], parallelism: gemm::Parallelism) {
        let &LowRank { a: at_a, b: at_b, inputs, outputs, rank, columns, first, .. } = self.update;
        let rows = self.batch.rows;
        let numbers = (T::ZERO, T::ONE);
        let [a, b] = factors(self.update, self.batch, self.theta, n);
        let x = MatrixView::new(&self.inputs.0[n * rows * inputs..][..rows * inputs], rows, inputs);
        let dy = &self.dy[n * rows * columns..][..rows * columns];
        let dy = MatrixView::strided(&dy[first..], rows, outputs, columns);
        product(Target::new(d_low, rank), dy, b, numbers, false, parallelism);
        scale(self.update, d_low);
        let mut low = self.inputs.1[n * rows * rank..][..rows * rank].to_vec();
        scale(self.update, &mut low);
        let low = MatrixView::new(&low, rows, rank);
        product(Target::new(&mut gradient[at_b..][..outputs * rank], rank), dy.t(), low, numbers, true, parallelism);
        let d_low = MatrixView::new(d_low, rows, rank);
        product(Target::new(&mut gradient[at_a..][..rank * inputs], inputs), d_low.t(), x, numbers, true, parallelism);
        if let Some(dx) = dx {
            product(Target::new(dx, inputs), d_low, a, numbers, true, parallelism);
        }
    }
}
