//! Two-dimensional convolution of image batches in [blocks](super::lanes), forward and backward.
//!
//! All three are one direct loop without an unrolled copy of the image (*im2col*): a tile of output channels × pixels stays in
//! registers while the taps of the kernel pass by. Small channel counts and images therefore run at the speed of large ones.
//!
//! Shape legend: `c` and `o` input and output channels, `h × w` pixels, `k` taps (`c · kernel height · kernel width`).

use pulp::{Arch, Simd, WithSimd};

/// Output channels and pixels of a register tile: 12 sums, 3 vectors of inputs and a weight fill the 16 registers of AVX2.
const TILE_CHANNELS: usize = 4;
const TILE_PIXELS: usize = 3;

/// Pixels that the weight gradient works through before it turns to the next taps, so that they stay in the first cache.
const STRIP_PIXELS: usize = 64;

/// The sizes of a convolution; each pair is `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvShape {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the input.
    pub size: [usize; 2],
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Pixels from one output to the next.
    pub stride: [usize; 2],
    /// Zeros around the input.
    pub padding: [usize; 2],
}

/// Buffers that a convolution needs, to be kept between calls.
#[derive(Debug, Default, Clone)]
pub struct ConvScratch {
    image: Vec<f32>,
    weight: Vec<f32>,
    sums: Vec<f32>,
    /// Which rows of the image hold more than padding.
    filled: Vec<bool>,
    taps: Vec<[u32; 2]>,
}

impl ConvShape {
    /// Height and width of the output; 0 where the kernel does not fit.
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

    /// The values that one output sums: `c · kernel height · kernel width`.
    #[must_use]
    pub fn taps(&self) -> usize {
        self.channels[0] * self.kernel[0] * self.kernel[1]
    }

    fn values_in(&self) -> usize {
        self.channels[0] * self.size[0] * self.size[1]
    }

    fn values_out(&self) -> usize {
        let [height, width] = self.size_out();
        self.channels[1] * height * width
    }

    /// The input with its padding, as an image that needs none.
    fn padded(&self) -> Self {
        let size = [0, 1].map(|axis| self.size[axis] + 2 * self.padding[axis]);
        Self { size, padding: [0; 2], ..*self }
    }

    fn check(&self, x: &[f32], weight: &[f32], y: &[f32]) {
        let lanes = super::lanes();
        assert_eq!(weight.len(), self.taps() * self.channels[1], "weight is not [k, o]");
        assert!(self.values_out() > 0, "the kernel does not fit the image");
        assert!(x.len().is_multiple_of(self.values_in() * lanes), "x is not [blocks, c, h, w, lanes]");
        let blocks = x.len() / (self.values_in() * lanes);
        assert_eq!(y.len(), blocks * self.values_out() * lanes, "y is not [blocks, o, h, w, lanes]");
    }
}

/// Computes a convolution (cross-correlation, as every framework does).
///
/// `y[o, i, j] = bias[o] + Σ_{c,u,v} weight[(c, u, v), o] · x[c, i·stride + u − padding, j·stride + v − padding]`
///
/// # Shapes
/// `x` `[blocks, c, h, w, lanes]`, `weight` `[k, o]` (a checkpoint's `[o, c, u, v]` transposed), `bias` `[o]`,
/// `y` `[blocks, o, h, w, lanes]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn conv_forward(shape: &ConvShape, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32], scratch: &mut ConvScratch) {
    shape.check(x, weight, y);
    assert!(bias.is_none_or(|b| b.len() == shape.channels[1]), "bias is not [o]");
    let ConvScratch { image, weight: packed, filled, taps, .. } = scratch;
    pack(weight, shape.channels[1], packed);
    let zeros;
    let bias = if let Some(bias) = bias {
        bias
    } else {
        zeros = vec![0.0; shape.channels[1]];
        &zeros
    };
    Arch::new().dispatch(Correlate {
        source: *shape,
        shape: shape.padded(),
        dilation: [1; 2],
        x,
        image,
        packed,
        filled,
        taps,
        bias: Some(bias),
        y,
    });
}

/// Adds to `dx` the gradient with respect to the input: a convolution of `dy` with the kernel turned by half a turn.
///
/// # Shapes
/// As for [`conv_forward`].
///
/// # Panics
/// If the lengths do not fit.
pub fn conv_backward_input(shape: &ConvShape, weight: &[f32], dy: &[f32], dx: &mut [f32], scratch: &mut ConvScratch) {
    shape.check(dx, weight, dy);
    let ([c, o], [u, v]) = (shape.channels, shape.kernel);
    let ConvScratch { image, weight: packed, sums: turned, filled, taps } = scratch;
    turned.clear();
    turned.resize(weight.len(), 0.0);
    for (tap, row) in weight.chunks_exact(o).enumerate() {
        let (channel, place) = (tap / (u * v), tap % (u * v));
        for (out, &value) in row.iter().enumerate() {
            turned[(out * u * v + u * v - 1 - place) * c + channel] = value;
        }
    }
    pack(turned, c, packed);
    // `source` says where `dy` lies in the image that is correlated: its padding may be negative, which crops.
    let source = ConvShape { channels: [o, c], size: shape.size_out(), padding: shape.padding, ..*shape };
    let size = [0, 1].map(|axis| shape.size[axis] + shape.kernel[axis] - 1);
    let turned = ConvShape { channels: [o, c], size, kernel: shape.kernel, stride: [1; 2], padding: [0; 2] };
    Arch::new().dispatch(Correlate {
        source,
        shape: turned,
        dilation: shape.stride,
        x: dy,
        image,
        packed,
        filled,
        taps,
        bias: None,
        y: dx,
    });
}

/// Adds to `d_weight` and `d_bias` the gradients with respect to the kernel and the bias.
///
/// # Shapes
/// `d_weight` `[k, o]`, `d_bias` `[o]`; `x` and `dy` as `x` and `y` of [`conv_forward`].
///
/// # Panics
/// If the lengths do not fit.
pub fn conv_backward_weight(
    shape: &ConvShape,
    x: &[f32],
    dy: &[f32],
    d_weight: &mut [f32],
    d_bias: Option<&mut [f32]>,
    scratch: &mut ConvScratch,
) {
    shape.check(x, d_weight, dy);
    assert!(d_bias.as_ref().is_none_or(|b| b.len() == shape.channels[1]), "d_bias is not [o]");
    let ConvScratch { image, sums, .. } = scratch;
    Arch::new().dispatch(WeightGradient { source: *shape, x, dy, image, sums, d_weight });
    if let Some(d_bias) = d_bias {
        Arch::new().dispatch(BiasGradient { pixels: shape.values_out() / shape.channels[1], dy, d_bias });
    }
}

/// Cuts `[k, o]` into tiles `[k, ≤ TILE_CHANNELS]`, one after the other.
fn pack(weight: &[f32], channels: usize, packed: &mut Vec<f32>) {
    packed.clear();
    for (first, width) in channel_tiles(channels) {
        for row in weight.chunks_exact(channels) {
            packed.extend_from_slice(&row[first..first + width]);
        }
    }
}

/// The first channel and the width (4, 2 or 1) of each tile.
fn channel_tiles(channels: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let width = match channels - at {
            0 => return None,
            1 => 1,
            2 | 3 => 2,
            _ => TILE_CHANNELS,
        };
        at += width;
        Some((at - width, width))
    })
}

/// Where the pixels of `x` lie in the image that the kernel runs over.
#[derive(Clone, Copy)]
struct Placement {
    channels: usize,
    from: [usize; 2],
    to: [usize; 2],
    dilation: [usize; 2],
    /// Place of the first pixel; may be negative.
    origin: [isize; 2],
}

impl Placement {
    fn is_identity(&self) -> bool {
        self.from == self.to && self.origin == [0; 2] && self.dilation == [1; 2]
    }

    /// The row or column that a row or column of `x` becomes, if it lies in the image.
    fn place(&self, axis: usize, at: usize) -> Option<usize> {
        let place = usize::try_from((at * self.dilation[axis]) as isize + self.origin[axis]).ok()?;
        (place < self.to[axis]).then_some(place)
    }

    #[inline(always)]
    fn copy<V: Copy>(&self, x: &[V], zero: V, image: &mut [V]) {
        image.fill(zero);
        let [height, width] = self.from;
        for channel in 0..self.channels {
            for (row, from) in x[channel * height * width..][..height * width].chunks_exact(width).enumerate() {
                let Some(row) = self.place(0, row) else { continue };
                let to = &mut image[(channel * self.to[0] + row) * self.to[1]..][..self.to[1]];
                match usize::try_from(self.origin[1]) {
                    Ok(origin) if self.dilation[1] == 1 && origin + width <= to.len() => {
                        to[origin..origin + width].copy_from_slice(from);
                    }
                    _ => {
                        for (column, &value) in from.iter().enumerate() {
                            if let Some(column) = self.place(1, column) {
                                to[column] = value;
                            }
                        }
                    }
                }
            }
        }
    }
}

struct Correlate<'a> {
    /// Sizes of `x` and, as its padding, how it is placed.
    source: ConvShape,
    /// The convolution of the placed image, without padding.
    shape: ConvShape,
    dilation: [usize; 2],
    x: &'a [f32],
    image: &'a mut Vec<f32>,
    packed: &'a [f32],
    filled: &'a mut Vec<bool>,
    taps: &'a mut Vec<[u32; 2]>,
    /// Starts the sums; without it they are added to `y`.
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl Correlate<'_> {
    fn placement(&self) -> Placement {
        // Forward, the image is moved down by the padding; backward, up by it from the kernel's last tap.
        let origin = [0, 1].map(|axis| match self.bias {
            Some(_) => self.source.padding[axis] as isize,
            None => self.shape.kernel[axis] as isize - 1 - self.source.padding[axis] as isize,
        });
        Placement {
            channels: self.source.channels[0],
            from: self.source.size,
            to: self.shape.size,
            dilation: self.dilation,
            origin,
        }
    }
}

impl WithSimd for Correlate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let placement = self.placement();
        let x = S::as_simd_f32s(self.x).0;
        let y = S::as_mut_simd_f32s(self.y).0;
        self.filled.clear();
        self.filled.resize(self.shape.size[0], false);
        (0..self.source.size[0]).filter_map(|row| placement.place(0, row)).for_each(|row| self.filled[row] = true);
        let (values, taps) = (self.shape.values_in(), self.shape.taps());
        let [height, width] = self.shape.size_out();
        if !placement.is_identity() {
            self.image.resize(values * S::F32_LANES, 0.0);
        }
        for (x, y) in x.chunks_exact(self.source.values_in()).zip(y.chunks_exact_mut(self.shape.values_out())) {
            let image = if placement.is_identity() {
                x
            } else {
                let image = S::as_mut_simd_f32s(&mut self.image[..values * S::F32_LANES]).0;
                placement.copy(x, simd.splat_f32s(0.0), image);
                &*image
            };
            for row in 0..height {
                taps_of_row(&self.shape, self.filled, row, self.taps);
                let image = &image[row * self.shape.stride[0] * self.shape.size[1]..];
                for (first, channels) in channel_tiles(self.shape.channels[1]) {
                    let weight = &self.packed[first * taps..(first + channels) * taps];
                    let bias = self.bias.map(|b| &b[first..first + channels]);
                    let out = (&mut y[(first * height + row) * width..], width, height * width);
                    let stride = self.shape.stride[1];
                    match channels {
                        4 => correlate_row::<S, 4>(simd, image, self.taps, stride, (weight.as_chunks().0, bias), out),
                        2 => correlate_row::<S, 2>(simd, image, self.taps, stride, (weight.as_chunks().0, bias), out),
                        _ => correlate_row::<S, 1>(simd, image, self.taps, stride, (weight.as_chunks().0, bias), out),
                    }
                }
            }
        }
    }
}

/// The taps that matter for an output row: how far each lies from the first, and its number.
#[inline(always)]
fn taps_of_row(shape: &ConvShape, filled: &[bool], row: usize, taps: &mut Vec<[u32; 2]>) {
    let ([height, width], [kernel_rows, kernel_columns]) = (shape.size, shape.kernel);
    taps.clear();
    for channel in 0..shape.channels[0] {
        for kernel_row in (0..kernel_rows).filter(|kernel_row| filled[row * shape.stride[0] + kernel_row]) {
            let (offset, tap) = ((channel * height + kernel_row) * width, (channel * kernel_rows + kernel_row) * kernel_columns);
            taps.extend((0..kernel_columns).map(|column| [(offset + column) as u32, (tap + column) as u32]));
        }
    }
}

/// One output row of `R` channels.
#[inline(always)]
fn correlate_row<S: Simd, const R: usize>(
    simd: S,
    image: &[S::f32s],
    taps: &[[u32; 2]],
    stride: usize,
    (weight, bias): (&[[f32; R]], Option<&[f32]>),
    (y, width, plane): (&mut [S::f32s], usize, usize),
) {
    let mut column = 0;
    while column < width {
        let image = &image[column * stride..];
        let y = &mut y[column..];
        column += match width - column {
            1 => correlate_tile::<S, R, 1>(simd, image, taps, stride, (weight, bias), (y, plane)),
            2 => correlate_tile::<S, R, 2>(simd, image, taps, stride, (weight, bias), (y, plane)),
            _ => correlate_tile::<S, R, TILE_PIXELS>(simd, image, taps, stride, (weight, bias), (y, plane)),
        };
    }
}

/// `R` output channels × `P` pixels of a row; returns `P`.
#[inline(always)]
fn correlate_tile<S: Simd, const R: usize, const P: usize>(
    simd: S,
    image: &[S::f32s],
    taps: &[[u32; 2]],
    stride: usize,
    (weight, bias): (&[[f32; R]], Option<&[f32]>),
    (y, plane): (&mut [S::f32s], usize),
) -> usize {
    let mut sums = [[simd.splat_f32s(0.0); P]; R];
    if stride == 1 {
        for &[offset, tap] in taps {
            let window = &image[offset as usize..][..P];
            for (sums, &w) in sums.iter_mut().zip(&weight[tap as usize]) {
                let w = simd.splat_f32s(w);
                for (sum, &x) in sums.iter_mut().zip(window) {
                    *sum = simd.mul_add_f32s(w, x, *sum);
                }
            }
        }
    } else {
        for &[offset, tap] in taps {
            let window = &image[offset as usize..][..=(P - 1) * stride];
            for (sums, &w) in sums.iter_mut().zip(&weight[tap as usize]) {
                let w = simd.splat_f32s(w);
                for (sum, &x) in sums.iter_mut().zip(window.iter().step_by(stride)) {
                    *sum = simd.mul_add_f32s(w, x, *sum);
                }
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (slot, sum) in y[r * plane..][..P].iter_mut().zip(sums) {
            let start = bias.map_or(*slot, |bias| simd.splat_f32s(bias[r]));
            *slot = simd.add_f32s(start, sum);
        }
    }
    P
}

struct WeightGradient<'a> {
    source: ConvShape,
    x: &'a [f32],
    dy: &'a [f32],
    image: &'a mut Vec<f32>,
    sums: &'a mut Vec<f32>,
    d_weight: &'a mut [f32],
}

impl WithSimd for WeightGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (source, shape) = (self.source, self.source.padded());
        let placement = Placement {
            channels: source.channels[0],
            from: source.size,
            to: shape.size,
            dilation: [1; 2],
            origin: source.padding.map(|p| p as isize),
        };
        let values = shape.values_in();
        if !placement.is_identity() {
            self.image.resize(values * S::F32_LANES, 0.0);
        }
        let out = shape.channels[1];
        self.sums.clear();
        self.sums.resize(shape.taps() * out * S::F32_LANES, 0.0);
        let sums = S::as_mut_simd_f32s(self.sums).0;
        let (x, dy) = (S::as_simd_f32s(self.x).0, S::as_simd_f32s(self.dy).0);
        for (x, dy) in x.chunks_exact(source.values_in()).zip(dy.chunks_exact(shape.values_out())) {
            let image = if placement.is_identity() {
                x
            } else {
                let image = S::as_mut_simd_f32s(&mut self.image[..values * S::F32_LANES]).0;
                placement.copy(x, simd.splat_f32s(0.0), image);
                &*image
            };
            gradient_block(simd, &shape, image, dy, sums);
        }
        for (first, channels) in channel_tiles(out) {
            let tile = &sums[first * shape.taps()..(first + channels) * shape.taps()];
            for (row, sums) in self.d_weight.chunks_exact_mut(out).zip(tile.chunks_exact(channels)) {
                for (slot, &sum) in row[first..first + channels].iter_mut().zip(sums) {
                    *slot += simd.reduce_sum_f32s(sum);
                }
            }
        }
    }
}

/// Adds a block's products to `sums`, tiles of `[k, ≤ TILE_CHANNELS]` vectors.
#[inline(always)]
fn gradient_block<S: Simd>(simd: S, shape: &ConvShape, image: &[S::f32s], dy: &[S::f32s], sums: &mut [S::f32s]) {
    let taps = shape.taps();
    let [height, width] = shape.size_out();
    let strip = (STRIP_PIXELS / width).max(1);
    for (first, channels) in channel_tiles(shape.channels[1]) {
        let sums = &mut sums[first * taps..(first + channels) * taps];
        let dy = &dy[first * height * width..(first + channels) * height * width];
        for top in (0..height).step_by(strip) {
            let rows = top..height.min(top + strip);
            match channels {
                4 => gradient_rows::<S, 4>(simd, shape, image, dy, rows, sums),
                2 => gradient_rows::<S, 2>(simd, shape, image, dy, rows, sums),
                _ => gradient_rows::<S, 1>(simd, shape, image, dy, rows, sums),
            }
        }
    }
}

/// `R` output channels and all taps, over some rows of the output.
#[inline(always)]
fn gradient_rows<S: Simd, const R: usize>(
    simd: S,
    shape: &ConvShape,
    image: &[S::f32s],
    dy: &[S::f32s],
    rows: std::ops::Range<usize>,
    sums: &mut [S::f32s],
) {
    let [kernel_rows, kernel_columns] = shape.kernel;
    for channel in 0..shape.channels[0] {
        for kernel_row in 0..kernel_rows {
            let mut column = 0;
            while column < kernel_columns {
                let tap = (channel * kernel_rows + kernel_row) * kernel_columns + column;
                let sums = &mut sums[tap * R..];
                let place = [channel, kernel_row, column];
                column += match kernel_columns - column {
                    1 => gradient_tile::<S, R, 1>(simd, shape, image, dy, (rows.clone(), place), sums),
                    2 => gradient_tile::<S, R, 2>(simd, shape, image, dy, (rows.clone(), place), sums),
                    _ => gradient_tile::<S, R, 3>(simd, shape, image, dy, (rows.clone(), place), sums),
                };
            }
        }
    }
}

/// `R` output channels × `T` taps of one row of the kernel; returns `T`.
#[inline(always)]
fn gradient_tile<S: Simd, const R: usize, const T: usize>(
    simd: S,
    shape: &ConvShape,
    image: &[S::f32s],
    dy: &[S::f32s],
    (rows, [channel, kernel_row, kernel_column]): (std::ops::Range<usize>, [usize; 3]),
    out: &mut [S::f32s],
) -> usize {
    let ([image_height, image_width], [vertical, horizontal]) = (shape.size, shape.stride);
    let [height, width] = shape.size_out();
    let mut sums = [[simd.splat_f32s(0.0); R]; T];
    for row in rows {
        let start = (channel * image_height + row * vertical + kernel_row) * image_width + kernel_column;
        let x = &image[start..][..(width - 1) * horizontal + T];
        let mut rows = [&dy[..0]; R];
        for (r, slot) in rows.iter_mut().enumerate() {
            *slot = &dy[(r * height + row) * width..][..width];
        }
        if horizontal == 1 {
            for (column, window) in (0..width).zip(x.array_windows::<T>()) {
                outer_product(simd, window, &rows, column, &mut sums);
            }
        } else {
            for (column, window) in (0..width).zip(x.array_windows::<T>().step_by(horizontal)) {
                outer_product(simd, window, &rows, column, &mut sums);
            }
        }
    }
    for (out, sums) in out.chunks_exact_mut(R).zip(sums) {
        for (slot, sum) in out.iter_mut().zip(sums) {
            *slot = simd.add_f32s(*slot, sum);
        }
    }
    T
}

/// Adds the product of `T` inputs and a column of `R` rows of gradients.
#[inline(always)]
fn outer_product<S: Simd, const R: usize, const T: usize>(
    simd: S,
    window: &[S::f32s; T],
    rows: &[&[S::f32s]; R],
    column: usize,
    sums: &mut [[S::f32s; R]; T],
) {
    let mut dy = [simd.splat_f32s(0.0); R];
    for (slot, row) in dy.iter_mut().zip(rows) {
        *slot = row[column];
    }
    for (sums, &x) in sums.iter_mut().zip(window) {
        for (sum, dy) in sums.iter_mut().zip(dy) {
            *sum = simd.mul_add_f32s(x, dy, *sum);
        }
    }
}

struct BiasGradient<'a> {
    pixels: usize,
    dy: &'a [f32],
    d_bias: &'a mut [f32],
}

impl WithSimd for BiasGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let dy = S::as_simd_f32s(self.dy).0;
        for block in dy.chunks_exact(self.pixels * self.d_bias.len()) {
            for (slot, plane) in self.d_bias.iter_mut().zip(block.chunks_exact(self.pixels)) {
                let mut sum = simd.splat_f32s(0.0);
                for &v in plane {
                    sum = simd.add_f32s(sum, v);
                }
                *slot += simd.reduce_sum_f32s(sum);
            }
        }
    }
}
