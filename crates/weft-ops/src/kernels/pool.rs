//! Pooling of image batches in [blocks](super::lanes), forward and backward.

use pulp::{Arch, Simd, WithSimd};
use std::ops::Range;

/// What a window is reduced to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Its largest value; padding never wins.
    Max,
    /// The mean of its values; padding does not count.
    Average,
}

/// The sizes of a pooling; each pair is `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolShape {
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Pixels from one window to the next.
    pub stride: [usize; 2],
    /// Cells around the input, less than the kernel.
    pub padding: [usize; 2],
}

impl PoolShape {
    /// One window over the whole image: with [`Pooling::Average`], global average pooling.
    #[must_use]
    pub fn global(size: [usize; 2]) -> Self {
        Self { size, kernel: size, stride: size, padding: [0; 2] }
    }

    /// Height and width of the output; 0 where the window does not fit.
    ///
    /// # Panics
    /// If a stride is 0.
    #[must_use]
    pub fn size_out(&self) -> [usize; 2] {
        [0, 1].map(|axis| {
            let room = (self.size[axis] + 2 * self.padding[axis] + 1).saturating_sub(self.kernel[axis]);
            room.div_ceil(self.stride[axis])
        })
    }

    /// The rows or columns of the input under a window.
    fn window(&self, axis: usize, at: usize) -> Range<usize> {
        let start = at * self.stride[axis];
        let clip = |edge: usize| edge.saturating_sub(self.padding[axis]).min(self.size[axis]);
        clip(start)..clip(start + self.kernel[axis])
    }

    fn check(&self, x: &[f32], y: &[f32]) {
        let ([h, w], [h_out, w_out]) = (self.size, self.size_out());
        assert!(h_out * w_out > 0, "the window does not fit the image");
        assert!((0..2).all(|axis| self.padding[axis] < self.kernel[axis]), "a window lies in the padding");
        assert!(x.len().is_multiple_of(h * w * super::lanes()), "x is not [planes, h, w, lanes]");
        assert_eq!(x.len() / (h * w), y.len() / (h_out * w_out), "y is not [planes, h, w, lanes]");
        assert!(y.len().is_multiple_of(h_out * w_out), "y is not [planes, h, w, lanes]");
    }
}

/// Pools each plane of `x` into `y`.
///
/// # Shapes
/// `x` and `y` `[planes, h, w, lanes]`, where a plane is a channel of a block.
///
/// # Panics
/// If the lengths do not fit, or the padding is not smaller than the kernel.
pub fn pool_forward(pooling: Pooling, shape: &PoolShape, x: &[f32], y: &mut [f32]) {
    shape.check(x, y);
    Arch::new().dispatch(Forward { pooling, shape, x, y });
}

/// Adds to `dx` the gradient with respect to the input. Of equal maxima the first in reading order gets it, as in `PyTorch`.
///
/// # Shapes
/// As for [`pool_forward`]; `x` and `y` are what it read and wrote.
///
/// # Panics
/// If the lengths do not fit, or the padding is not smaller than the kernel.
pub fn pool_backward(pooling: Pooling, shape: &PoolShape, (x, y): (&[f32], &[f32]), dy: &[f32], dx: &mut [f32]) {
    shape.check(x, y);
    assert_eq!((dx.len(), dy.len()), (x.len(), y.len()), "a gradient of another length");
    Arch::new().dispatch(Backward { pooling, shape, x, y, dy, dx });
}

struct Forward<'a> {
    pooling: Pooling,
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let ([height, width], [rows, columns]) = (self.shape.size, self.shape.size_out());
        let (x, y) = (S::as_simd_f32s(self.x).0, S::as_mut_simd_f32s(self.y).0);
        for (x, y) in x.chunks_exact(height * width).zip(y.chunks_exact_mut(rows * columns)) {
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                let window_rows = self.shape.window(0, row);
                for (column, y) in y.iter_mut().enumerate() {
                    let window = self.shape.window(1, column);
                    let share = simd.splat_f32s(1.0 / (window_rows.len() * window.len()) as f32);
                    let mut max = simd.splat_f32s(f32::NEG_INFINITY);
                    let mut sum = simd.splat_f32s(0.0);
                    for row in window_rows.clone() {
                        for &v in &x[row * width..][window.clone()] {
                            max = simd.max_f32s(max, v);
                            sum = simd.add_f32s(sum, v);
                        }
                    }
                    *y = match self.pooling {
                        Pooling::Max => max,
                        Pooling::Average => simd.mul_f32s(share, sum),
                    };
                }
            }
        }
    }
}

struct Backward<'a> {
    pooling: Pooling,
    shape: &'a PoolShape,
    x: &'a [f32],
    y: &'a [f32],
    dy: &'a [f32],
    dx: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (plane, plane_out) = (self.shape.size[0] * self.shape.size[1], self.shape.size_out().iter().product::<usize>());
        let inputs = S::as_simd_f32s(self.x).0.chunks_exact(plane).zip(S::as_mut_simd_f32s(self.dx).0.chunks_exact_mut(plane));
        let outputs = S::as_simd_f32s(self.y).0.chunks_exact(plane_out).zip(S::as_simd_f32s(self.dy).0.chunks_exact(plane_out));
        for ((x, dx), (y, dy)) in inputs.zip(outputs) {
            match self.pooling {
                Pooling::Max => max_plane_backward(simd, self.shape, (x, y), dy, dx),
                Pooling::Average => average_plane_backward(simd, self.shape, dy, dx),
            }
        }
    }
}

#[inline(always)]
fn max_plane_backward<S: Simd>(simd: S, shape: &PoolShape, (x, y): (&[S::f32s], &[S::f32s]), dy: &[S::f32s], dx: &mut [S::f32s]) {
    let (width, columns) = (shape.size[1], shape.size_out()[1]);
    let zero = simd.splat_f32s(0.0);
    for (at, (&max, &gradient)) in y.iter().zip(dy).enumerate() {
        let window = shape.window(1, at % columns);
        // Each lane's gradient goes to its first maximum and is gone for the later ones.
        let mut left = gradient;
        for row in shape.window(0, at / columns) {
            let values = &x[row * width..][window.clone()];
            for (slot, &value) in dx[row * width..][window.clone()].iter_mut().zip(values) {
                let is_max = simd.equal_f32s(value, max);
                *slot = simd.add_f32s(*slot, simd.select_f32s(is_max, left, zero));
                left = simd.select_f32s(is_max, zero, left);
            }
        }
    }
}

#[inline(always)]
fn average_plane_backward<S: Simd>(simd: S, shape: &PoolShape, dy: &[S::f32s], dx: &mut [S::f32s]) {
    let (width, columns) = (shape.size[1], shape.size_out()[1]);
    for (at, &gradient) in dy.iter().enumerate() {
        let (rows, window) = (shape.window(0, at / columns), shape.window(1, at % columns));
        let part = simd.mul_f32s(simd.splat_f32s(1.0 / (rows.len() * window.len()) as f32), gradient);
        for row in rows {
            for slot in &mut dx[row * width..][window.clone()] {
                *slot = simd.add_f32s(*slot, part);
            }
        }
    }
}
