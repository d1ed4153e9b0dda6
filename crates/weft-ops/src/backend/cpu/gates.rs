//! Gated activations, and gates of residual branches.

use super::super::Columns;
use super::{ROWS, Real, real, vectorized};
use rayon::prelude::*;
use weft_core::Activation;

/// `a(x[..w])·x[w..]` of rows.
pub(super) fn forward<T: Real>(activation: Activation, width: usize, x: &[T], y: &mut [T]) {
    let rows = y.par_chunks_mut(width).zip(x.par_chunks(2 * width)).with_min_len(ROWS);
    rows.for_each(|(y, x)| {
        vectorized(
            #[inline(always)]
            || {
                let (gate, up) = x.split_at(width);
                real::activate(activation, gate, y);
                y.iter_mut().zip(up).for_each(|(y, &u)| *y *= u);
            },
        );
    });
}

/// Its gradient.
pub(super) fn backward<T: Real>(activation: Activation, width: usize, (x, dy): (&[T], &[T]), dx: &mut [T]) {
    let rows = dx.par_chunks_mut(2 * width).zip(x.par_chunks(2 * width).zip(dy.par_chunks(width))).with_min_len(ROWS);
    rows.for_each(|(dx, (x, dy))| {
        vectorized(
            #[inline(always)]
            || {
                let (gate, up) = x.split_at(width);
                let (d_gate, d_up) = dx.split_at_mut(width);
                real::activate(activation, gate, d_up);
                for ((((dg, du), &u), &d), _) in d_gate.iter_mut().zip(d_up).zip(up).zip(dy).zip(0..) {
                    *du *= d;
                    *dg = d * u;
                }
                real::activate_backward(activation, gate, d_gate);
            },
        );
    });
}

/// The gradients behind a gate, of the branch and of the gate's columns.
pub(super) fn branch_backward<T: Real>(
    (columns, width): (Columns, usize),
    [dy, branch, modulation]: [&[T]; 3],
    (d_branch, d_modulation): (&mut [T], &mut [T]),
) {
    let group = columns.rows_per_group * width;
    let modulations = modulation.par_chunks(columns.columns).zip(d_modulation.par_chunks_mut(columns.columns));
    let rows = d_branch.par_chunks_mut(group).zip(dy.par_chunks(group).zip(branch.par_chunks(group)));
    rows.zip(modulations).for_each(|((d_branch, (dy, branch)), (gate, d_gate))| {
        let (gate, d_gate) = (&gate[columns.first..][..width], &mut d_gate[columns.first..][..width]);
        vectorized(
            #[inline(always)]
            || {
                d_gate.fill(T::ZERO);
                let rows = d_branch.chunks_exact_mut(width).zip(dy.chunks_exact(width).zip(branch.chunks_exact(width)));
                for (d_branch, (dy, branch)) in rows {
                    for (((((db, &d), &b), &g), dg), _) in
                        d_branch.iter_mut().zip(dy).zip(branch).zip(gate).zip(&mut *d_gate).zip(0..)
                    {
                        *db = d * g;
                        *dg = d.mul_add(b, *dg);
                    }
                }
            },
        );
    });
}
