//! Norms over the features of rows, with gain, shift and modulation in the same pass.

use super::super::{Columns, Norm, NormKind};
use super::real::lanes_sum;
use super::{ROWS, Real, add_bias, vectorized};
use rayon::prelude::*;

/// A gain and a shift: those of the parameters, or none.
struct Affine<'a, T> {
    gain: Option<&'a [T]>,
    bias: Option<&'a [T]>,
}

impl<'a, T: Real> Affine<'a, T> {
    fn new(norm: &Norm, theta: &'a [T]) -> Self {
        let slice = |offset: Option<usize>| offset.map(|offset| &theta[offset..][..norm.width]);
        Self { gain: slice(norm.gain), bias: slice(norm.bias) }
    }

    #[inline(always)]
    fn apply(&self, row: &mut [T]) {
        if let Some(gain) = self.gain {
            row.iter_mut().zip(gain).for_each(|(y, &g)| *y *= g);
        }
        if let Some(bias) = self.bias {
            add_bias(row, bias);
        }
    }
}

/// The shift and the scale of a row's group.
#[inline(always)]
fn modulation_of<T>((values, columns): (&[T], Columns), row: usize, width: usize) -> (&[T], &[T]) {
    values[row / columns.rows_per_group * columns.columns + columns.first..][..2 * width].split_at(width)
}

/// Writes `x + add` normalized, and returns the mean and `1/σ`.
#[inline(always)]
fn normalize<T: Real>(norm: &Norm, x: &[T], add: Option<&[T]>, y: &mut [T]) -> [T; 2] {
    match add {
        Some(add) => y.iter_mut().zip(x.iter().zip(add)).for_each(|(y, (&x, &a))| *y = x + a),
        None => y.copy_from_slice(x),
    }
    let count = T::from_f64(norm.width as f64);
    let mut mean = T::ZERO;
    if norm.kind == NormKind::Layer {
        mean = lanes_sum(y, |_, v| v) / count;
        for y in y.iter_mut() {
            *y -= mean;
        }
    }
    let inverse = T::ONE / (lanes_sum(y, |_, v| v * v) / count + T::from_f64(norm.epsilon)).sqrt();
    for y in y.iter_mut() {
        *y *= inverse;
    }
    [mean, inverse]
}

pub(super) fn forward<T: Real>(
    norm: &Norm,
    (x, add): (&[T], Option<&[T]>),
    theta: &[T],
    modulation: Option<(&[T], Columns)>,
    (y, statistics): (&mut [T], &mut [T]),
) {
    let width = norm.width;
    let affine = Affine::new(norm, theta);
    let rows = y.par_chunks_mut(width).zip(statistics.par_chunks_mut(2)).zip(x.par_chunks(width)).enumerate().with_min_len(ROWS);
    rows.for_each(|(r, ((y, statistics), x))| {
        let add = add.map(|add| &add[r * width..][..width]);
        vectorized(
            #[inline(always)]
            || {
                statistics.copy_from_slice(&normalize(norm, x, add, y));
                affine.apply(y);
                if let Some(modulation) = modulation {
                    let (shift, scale) = modulation_of(modulation, r, width);
                    y.iter_mut().zip(shift.iter().zip(scale)).for_each(|(y, (&b, &s))| *y = y.mul_add(T::ONE + s, b));
                }
            },
        );
    });
}

/// What the gradient of a norm is computed from.
pub(super) struct Backward<'a, T> {
    pub(super) norm: &'a Norm,
    pub(super) inputs: (&'a [T], Option<&'a [T]>),
    pub(super) statistics: &'a [T],
    pub(super) theta: &'a [T],
    pub(super) dy: &'a [T],
}

impl<T: Real> Backward<'_, T> {
    pub(super) fn run(&self, modulation: Option<(&[T], Columns, &mut [T])>, dx: &mut [T], gradient: &mut [T]) {
        let width = self.norm.width;
        // A task has whole groups, whose gradient of the modulation is its own; else a fixed number of rows.
        let (values, rows, columns, d_modulation) = match modulation {
            Some((values, columns, d)) => (Some((values, columns)), columns.rows_per_group, columns.columns, d),
            None => (None, 4 * ROWS, 1, [].as_mut_slice()),
        };
        let mut nothing: Vec<[T; 0]> = Vec::new();
        let tasks = dx.len().div_ceil(rows * width);
        nothing.resize(tasks, []);
        let mut d_groups: Vec<&mut [T]> = d_modulation.chunks_mut(columns).collect();
        if values.is_none() {
            d_groups = nothing.iter_mut().map(<[T; 0]>::as_mut_slice).collect();
        }
        let tasks = dx.par_chunks_mut(rows * width).zip(d_groups).enumerate();
        let sums: Vec<Vec<T>> = tasks
            .map(|(task, (dx, d_group))| {
                let mut sums = vec![T::ZERO; 2 * width];
                let mut scratch = vec![T::ZERO; 2 * width];
                vectorized(
                    #[inline(always)]
                    || self.rows((task * rows, values), d_group, dx, &mut sums, &mut scratch),
                );
                sums
            })
            .collect();
        for (offset, half) in [(self.norm.gain, 0), (self.norm.bias, 1)] {
            let Some(offset) = offset else { continue };
            let gradient = &mut gradient[offset..][..width];
            for sums in &sums {
                add_bias(gradient, &sums[half * width..][..width]);
            }
        }
    }

    /// Rows from `first` on; `sums` takes those of gain and shift.
    #[inline(always)]
    fn rows(
        &self,
        (first, modulation): (usize, Option<(&[T], Columns)>),
        d_group: &mut [T],
        dx: &mut [T],
        sums: &mut [T],
        scratch: &mut [T],
    ) {
        let width = self.norm.width;
        let affine = Affine::new(self.norm, self.theta);
        let (d_gain, d_bias) = sums.split_at_mut(width);
        let (normal, upstream) = scratch.split_at_mut(width);
        let (d_shift, d_scale) = match modulation {
            Some((_, columns)) => d_group[columns.first..][..2 * width].split_at_mut(width),
            None => d_group.split_at_mut(0),
        };
        d_shift.fill(T::ZERO);
        d_scale.fill(T::ZERO);
        let count = T::from_f64(width as f64);
        for (r, dx) in dx.chunks_exact_mut(width).enumerate() {
            let row = first + r;
            let [mean, inverse] = [self.statistics[2 * row], self.statistics[2 * row + 1]];
            let (x, dy) = (&self.inputs.0[row * width..][..width], &self.dy[row * width..][..width]);
            match self.inputs.1 {
                Some(add) => {
                    let add = &add[row * width..][..width];
                    normal.iter_mut().zip(x.iter().zip(add)).for_each(|(n, (&x, &a))| *n = (x + a - mean) * inverse);
                }
                None => normal.iter_mut().zip(x).for_each(|(n, &x)| *n = (x - mean) * inverse),
            }
            upstream.copy_from_slice(dy);
            if let Some(modulation) = modulation {
                let (_, scale) = modulation_of(modulation, row, width);
                add_bias(d_shift, dy);
                // The modulated value is the normal one after gain and shift; `upstream` holds it for a moment.
                upstream.copy_from_slice(normal);
                affine.apply(upstream);
                d_scale.iter_mut().zip(upstream.iter().zip(dy)).for_each(|(d, (&v, &dy))| *d = v.mul_add(dy, *d));
                upstream.iter_mut().zip(dy.iter().zip(scale)).for_each(|(u, (&dy, &s))| *u = dy * (T::ONE + s));
            }
            if affine.bias.is_some() {
                add_bias(d_bias, upstream);
            }
            if let Some(gain) = affine.gain {
                d_gain.iter_mut().zip(upstream.iter().zip(&*normal)).for_each(|(d, (&u, &n))| *d = u.mul_add(n, *d));
                upstream.iter_mut().zip(gain).for_each(|(u, &g)| *u *= g);
            }
            let centre = match self.norm.kind {
                NormKind::Layer => lanes_sum(upstream, |_, u| u) / count,
                NormKind::Rms => T::ZERO,
            };
            let dot = lanes_sum(upstream, |i, u| u * normal[i]) / count;
            for (dx, (&u, &n)) in dx.iter_mut().zip(upstream.iter().zip(&*normal)) {
                *dx += (u - centre - n * dot) * inverse;
            }
        }
    }
}
