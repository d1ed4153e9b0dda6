//! Convolutions as products with unfolded windows, pools, and fixed kernels on a torus.

use super::real::Real;
use rayon::prelude::*;
use weft_core::Window;
use weft_ops::kernels::{MatrixView, Target};

/// Values of unfolded windows that are held at a time.
const MAX_UNFOLDED: usize = 1 << 21;
/// Output channels that one thread takes at a time.
const CHANNELS: usize = 64;

/// The sizes of a convolution or pool.
pub(super) struct Shape {
    /// Channels, height and width of the input.
    pub(super) image: [usize; 3],
    /// Height and width of the output.
    pub(super) out: [usize; 2],
    pub(super) window: Window,
    pub(super) groups: usize,
}

impl Shape {
    /// The input's rows, or columns, that a window at an output position reads at `offset`, if they exist.
    fn source(&self, axis: usize, position: usize, offset: usize) -> Option<usize> {
        let at = (position * self.window.stride[axis] + offset).checked_sub(self.window.padding[axis])?;
        (at < self.image[axis + 1]).then_some(at)
    }
}

/// A cross-correlation with zero padding.
///
/// # Shapes
/// `x` `[b, c, h, w]`, `w` `[o, c / groups, kh, kw]` → `[b, o, h', w']`.
pub(super) fn conv<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, shape: &Shape) -> Vec<T> {
    let [channels, height, width] = shape.image;
    let [kh, kw] = shape.window.size;
    let per_group = channels / shape.groups;
    let inner = per_group * kh * kw;
    let out = w.len() / inner;
    let area = shape.out[0] * shape.out[1];
    let mut y = vec![T::ZERO; x.len() / (channels * height * width) * out * area];
    let is_pointwise = shape.window == Window::square(1, 1, 0);
    y.par_chunks_mut(out * area).zip(x.par_chunks(channels * height * width)).for_each(|(y, x)| {
        if let Some(bias) = bias {
            y.chunks_exact_mut(area).zip(bias).for_each(|(plane, &b)| plane.fill(b));
        }
        let out = out / shape.groups;
        let groups = y.chunks_exact_mut(out * area).zip(w.chunks_exact(out * inner));
        for ((y, w), x) in groups.zip(x.chunks_exact(per_group * height * width)) {
            if is_pointwise {
                add_products(y, (w, x), inner, [area, 0]);
                continue;
            }
            let strip = (MAX_UNFOLDED / inner).clamp(1, area);
            let mut unfolded = vec![T::ZERO; inner * strip];
            for first in (0..area).step_by(strip) {
                let count = strip.min(area - first);
                let unfolded = &mut unfolded[..inner * count];
                unfold(x, shape, first, unfolded);
                add_products(y, (w, unfolded), inner, [area, first]);
            }
        }
    });
    y
}

/// Adds `w·columns` to the output positions from `first` on, blocks of channels on threads.
fn add_products<T: Real>(y: &mut [T], (w, columns): (&[T], &[T]), inner: usize, [area, first]: [usize; 2]) {
    y.par_chunks_mut(CHANNELS * area).zip(w.par_chunks(CHANNELS * inner)).for_each(|(y, w)| {
        let (w, columns) = (MatrixView::new(w, w.len() / inner, inner), MatrixView::new(columns, inner, columns.len() / inner));
        T::product(Target::columns_from(y, area, first), w, columns, true);
    });
}

/// Lays out what the windows from position `first` on read, `[c·kh·kw, positions]`.
fn unfold<T: Real>(x: &[T], shape: &Shape, first: usize, out: &mut [T]) {
    let [_, height, width] = shape.image;
    let [kh, kw] = shape.window.size;
    let inner = x.len() / (height * width) * kh * kw;
    let count = out.len() / inner;
    out.par_chunks_mut(count).with_min_len(16).enumerate().for_each(|(k, row)| {
        let (channel, u, v) = (k / (kh * kw), k / kw % kh, k % kw);
        let plane = &x[channel * height * width..][..height * width];
        for (i, value) in row.iter_mut().enumerate() {
            let (r, c) = ((first + i) / shape.out[1], (first + i) % shape.out[1]);
            *value = match (shape.source(0, r, u), shape.source(1, c, v)) {
                (Some(row), Some(column)) => plane[row * width + column],
                _ => T::ZERO,
            };
        }
    });
}

/// The largest value, or the mean, of each window over the positions that exist.
///
/// # Shapes
/// `[b, c, h, w] → [b, c, h', w']`.
pub(super) fn pool<T: Real>(x: &[T], shape: &Shape, average: bool) -> Vec<T> {
    let [_, height, width] = shape.image;
    let area = shape.out[0] * shape.out[1];
    let mut y = vec![T::ZERO; x.len() / (height * width) * area];
    y.par_chunks_mut(area).zip(x.par_chunks(height * width)).for_each(|(y, x)| {
        for (i, out) in y.iter_mut().enumerate() {
            let (r, c) = (i / shape.out[1], i % shape.out[1]);
            let rows = || (0..shape.window.size[0]).filter_map(|u| shape.source(0, r, u));
            let columns = || (0..shape.window.size[1]).filter_map(|v| shape.source(1, c, v));
            let values = rows().flat_map(|row| columns().map(move |column| x[row * width + column]));
            *out = if average {
                let (sum, count) = values.fold((0.0, 0.0), |(sum, count), v| (sum + v.to_f64(), count + 1.0));
                T::from_f64(sum / count)
            } else {
                values.reduce(T::max).unwrap_or(T::ZERO)
            };
        }
    });
    y
}

/// The mean of each plane, `[b, c, h, w] → [b, c]`.
pub(super) fn mean_of_planes<T: Real>(x: &[T], area: usize) -> Vec<T> {
    x.par_chunks(area).map(|plane| T::from_f64(plane.iter().map(|v| v.to_f64()).sum::<f64>() / area as f64)).collect()
}

/// Fixed 3×3 kernels on a torus, kernel by kernel.
///
/// # Shapes
/// `[b, c, h, w] → [b, kernels·c, h, w]`.
pub(super) fn perception<T: Real>(x: &[T], kernels: &[[f32; 9]], [channels, height, width]: [usize; 3]) -> Vec<T> {
    let area = height * width;
    let mut y = vec![T::ZERO; x.len() * kernels.len()];
    y.par_chunks_mut(area).enumerate().for_each(|(at, plane)| {
        let (example, k, channel) = (at / (kernels.len() * channels), at / channels % kernels.len(), at % channels);
        let x = &x[(example * channels + channel) * area..][..area];
        for (i, out) in plane.iter_mut().enumerate() {
            let (r, c) = (i / width + height, i % width + width);
            let tap = |(t, &weight): (usize, &f32)| {
                let pixel = x[(r + t / 3 - 1) % height * width + (c + t % 3 - 1) % width];
                f64::from(weight) * pixel.to_f64()
            };
            *out = T::from_f64(kernels[k].iter().enumerate().map(tap).sum());
        }
    });
    y
}

/// Positions as tokens, `[b, c, h·w] → [b, h·w, c]`.
pub(super) fn patches<T: Real>(x: &[T], [channels, area]: [usize; 2]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len()];
    y.par_chunks_mut(channels * area).zip(x.par_chunks(channels * area)).for_each(|(y, x)| {
        for (i, token) in y.chunks_exact_mut(channels).enumerate() {
            token.iter_mut().zip(x[i..].iter().step_by(area)).for_each(|(y, &v)| *y = v);
        }
    });
    y
}
