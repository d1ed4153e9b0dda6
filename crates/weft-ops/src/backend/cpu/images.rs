//! Images with their channels innermost: windows as rows, and pools. An image a task.
//!
//! Populations on a CPU run elsewhere (one network at a time, in a core's cache); this is what a GPU's kernels are held against.

use super::Real;
use crate::kernels::{ConvShape, PoolShape, Pooling};
use rayon::prelude::*;

/// Visits every value of every window inside the image: the place in the patches of one image, and in that image.
fn each_tap(shape: &ConvShape, mut visit: impl FnMut(usize, usize)) {
    let ([height, width], [kernel_rows, kernel_columns], channels) = (shape.size, shape.kernel, shape.channels[0]);
    let [rows_out, columns_out] = shape.size_out();
    for window in 0..rows_out * columns_out {
        let (top, left) = (window / columns_out * shape.stride[0], window % columns_out * shape.stride[1]);
        for tap in 0..kernel_rows * kernel_columns {
            let (row, column) = (top + tap / kernel_columns, left + tap % kernel_columns);
            let (Some(row), Some(column)) = (row.checked_sub(shape.padding[0]), column.checked_sub(shape.padding[1])) else {
                continue;
            };
            if row >= height || column >= width {
                continue;
            }
            for channel in 0..channels {
                let place = (window * channels + channel) * kernel_rows * kernel_columns + tap;
                visit(place, (row * width + column) * channels + channel);
            }
        }
    }
}

pub(super) fn patches<T: Real>(shape: &ConvShape, x: &[T], y: &mut [T]) {
    let (image, out) =
        (shape.channels[0] * shape.size[0] * shape.size[1], shape.size_out().iter().product::<usize>() * shape.taps());
    y.par_chunks_mut(out).zip(x.par_chunks(image)).for_each(|(y, x)| {
        y.fill(T::ZERO);
        each_tap(shape, |place, pixel| y[place] = x[pixel]);
    });
}

pub(super) fn patches_backward<T: Real>(shape: &ConvShape, dy: &[T], dx: &mut [T]) {
    let (image, out) =
        (shape.channels[0] * shape.size[0] * shape.size[1], shape.size_out().iter().product::<usize>() * shape.taps());
    dx.par_chunks_mut(image).zip(dy.par_chunks(out)).for_each(|(dx, dy)| {
        each_tap(shape, |place, pixel| dx[pixel] += dy[place]);
    });
}

/// The pixels under a window of a pool, as indices of channel 0's value.
fn window(shape: &PoolShape, channels: usize, window: usize) -> impl Iterator<Item = usize> + use<> {
    let columns_out = shape.size_out()[1];
    let from = [window / columns_out * shape.stride[0], window % columns_out * shape.stride[1]];
    let range = |axis: usize| {
        let clip = |at: usize| at.saturating_sub(shape.padding[axis]).min(shape.size[axis]);
        clip(from[axis])..clip(from[axis] + shape.kernel[axis])
    };
    let (rows, columns, width) = (range(0), range(1), shape.size[1]);
    rows.flat_map(move |row| columns.clone().map(move |column| (row * width + column) * channels))
}

/// The pixel that wins a window.
fn winner<T: Real>(shape: &PoolShape, channels: usize, at: usize, x: &[T]) -> usize {
    let mut pixels = window(shape, channels, at);
    let mut best = pixels.next().unwrap_or(0);
    for pixel in pixels {
        if x[pixel] > x[best] {
            best = pixel;
        }
    }
    best
}

pub(super) fn pool<T: Real>((pooling, shape): (Pooling, &PoolShape), channels: usize, x: &[T], y: &mut [T]) {
    let windows: usize = shape.size_out().iter().product();
    let image = channels * shape.size[0] * shape.size[1];
    y.par_chunks_mut(windows * channels).zip(x.par_chunks(image)).for_each(|(y, x)| {
        for (at, y) in y.chunks_exact_mut(channels).enumerate() {
            for (channel, y) in y.iter_mut().enumerate() {
                let x = &x[channel..];
                *y = match pooling {
                    Pooling::Max => x[winner(shape, channels, at, x)],
                    Pooling::Average => {
                        let mut sum = T::ZERO;
                        window(shape, channels, at).for_each(|pixel| sum += x[pixel]);
                        sum / T::from_f64(window(shape, channels, at).count() as f64)
                    }
                };
            }
        }
    });
}

pub(super) fn pool_backward<T: Real>(
    (pooling, shape): (Pooling, &PoolShape),
    channels: usize,
    (x, dy): (&[T], &[T]),
    dx: &mut [T],
) {
    let windows: usize = shape.size_out().iter().product();
    let image = channels * shape.size[0] * shape.size[1];
    dx.par_chunks_mut(image).zip(x.par_chunks(image).zip(dy.par_chunks(windows * channels))).for_each(|(dx, (x, dy))| {
        for (at, dy) in dy.chunks_exact(channels).enumerate() {
            for (channel, &dy) in dy.iter().enumerate() {
                let (x, dx) = (&x[channel..], &mut dx[channel..]);
                match pooling {
                    Pooling::Max => dx[winner(shape, channels, at, x)] += dy,
                    Pooling::Average => {
                        let share = dy / T::from_f64(window(shape, channels, at).count() as f64);
                        window(shape, channels, at).for_each(|pixel| dx[pixel] += share);
                    }
                }
            }
        }
    });
}
