//! Softmax cross-entropy of a population, and squared errors.

use super::real::lanes_sum;
use super::{ROWS, Real, vectorized};
use rayon::prelude::*;

/// Mean losses and their gradients; see [`Backend::cross_entropy`](super::Backend::cross_entropy).
pub(super) fn cross_entropy<T: Real>(
    classes: usize,
    logits: &[T],
    (labels, weights): (&[u32], Option<&[T]>),
    losses: &mut [T],
    gradient: &mut [T],
) -> crate::Result<()> {
    if let Some(&label) = labels.iter().find(|&&label| label as usize >= classes) {
        return Err(candle_core::Error::Msg(format!("label {label} of {classes} classes")).into());
    }
    let rows = labels.len() / losses.len().max(1);
    let share = T::ONE / T::from_f64(rows as f64);
    let networks = losses.par_iter_mut().zip(gradient.par_chunks_mut(rows * classes)).enumerate();
    networks.for_each(|(n, (loss, gradient))| {
        let (logits, labels) = (&logits[n * rows * classes..][..rows * classes], &labels[n * rows..][..rows]);
        let weights = weights.map(|weights| &weights[n * rows..][..rows]);
        *loss = vectorized(
            #[inline(always)]
            || {
                let mut total = T::ZERO;
                let of_rows = logits.chunks_exact(classes).zip(gradient.chunks_exact_mut(classes)).zip(labels).enumerate();
                for (r, ((z, d), &label)) in of_rows {
                    let share = weights.map_or(share, |weights| weights[r]);
                    if share == T::ZERO {
                        d.fill(T::ZERO);
                        continue;
                    }
                    let max = z.iter().fold(z[0], |max, &z| max.max(z));
                    let mut sum = T::ZERO;
                    d.iter_mut().zip(z).for_each(|(d, &z)| *d = (z - max).exp());
                    for &d in d.iter() {
                        sum += d;
                    }
                    let label = label as usize;
                    total += share * (sum.ln() - (z[label] - max));
                    let factor = share / sum;
                    for d in d.iter_mut() {
                        *d *= factor;
                    }
                    d[label] -= share;
                }
                total
            },
        );
    });
    Ok(())
}

/// The weighted mean squared error and its gradient, a block of rows a task.
pub(super) fn squared_error<T: Real>(
    [rows, columns]: [usize; 2],
    (y, targets): (&[T], &[T]),
    weights: Option<&[T]>,
    gradient: &mut [T],
) -> T {
    assert!(y.len() == rows * columns && targets.len() == y.len(), "outputs and targets of other sizes");
    let share = T::ONE / T::from_f64((rows * columns) as f64);
    let block = ROWS * columns;
    let tasks = gradient.par_chunks_mut(block).zip(y.par_chunks(block).zip(targets.par_chunks(block))).enumerate();
    let sums: Vec<T> = tasks
        .map(|(task, (gradient, (y, targets)))| {
            vectorized(
                #[inline(always)]
                || {
                    let mut total = T::ZERO;
                    let of_rows =
                        gradient.chunks_exact_mut(columns).zip(y.chunks_exact(columns).zip(targets.chunks_exact(columns)));
                    for (r, (gradient, (y, targets))) in of_rows.enumerate() {
                        let weight = share * weights.map_or(T::ONE, |weights| weights[task * ROWS + r]);
                        gradient.iter_mut().zip(y.iter().zip(targets)).for_each(|(g, (&y, &t))| *g = y - t);
                        total += weight * lanes_sum(gradient, |_, e| e * e);
                        for g in gradient.iter_mut() {
                            *g *= weight + weight;
                        }
                    }
                    total
                },
            )
        })
        .collect();
    sums.into_iter().sum()
}
