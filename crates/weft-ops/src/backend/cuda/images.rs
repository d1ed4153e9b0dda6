//! Images: windows as rows, pools, and channels first or last.
//!
//! Places inside an image are 32-bit numbers in the kernels. One of 2³¹ values or more is refused; more images than one launch takes
//! are shared out over several.

use super::super::ImageSizes;
use super::Cuda;
use super::device::Grid;
use super::view::{Arg, CudaReal, View, address};
use crate::kernels::{ConvShape, PoolShape, Pooling};
use candle_core::cuda_backend::cudarc::driver::CudaSlice;

/// What places in a launch stay below.
const LIMIT: usize = 1 << 31;

/// Threads of a block.
const THREADS: usize = 256;

/// Channels (or packs of them) side by side in a block.
const LANES: usize = 16;

/// The side of a tile that is transposed; matrices with a shorter one are transposed in strips.
const SIDE: usize = 32;

/// Values of a strip.
const STRIP: usize = 4096;

/// A matrix of fewer values is found in a processor's cache.
const SMALL: usize = 2048;

fn refused(what: &str) -> crate::Error {
    candle_core::Error::Msg(format!("{what} of more than {LIMIT} values on a GPU")).into()
}

/// Where windows lie; a pair is vertical, then horizontal.
struct Windows {
    size: [usize; 2],
    out: [usize; 2],
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
}

impl From<&ConvShape> for Windows {
    fn from(shape: &ConvShape) -> Self {
        let &ConvShape { size, kernel, stride, padding, .. } = shape;
        Self { size, out: shape.size_out(), kernel, stride, padding }
    }
}

impl From<&PoolShape> for Windows {
    fn from(shape: &PoolShape) -> Self {
        let &PoolShape { size, kernel, stride, padding } = shape;
        assert!((0..2).all(|axis| padding[axis] < kernel[axis]), "a window lies in the padding");
        Self { size, out: shape.size_out(), kernel, stride, padding }
    }
}

impl Windows {
    /// Values of an image and of its windows.
    fn values(&self, channels: usize, of_window: usize) -> crate::Result<[usize; 2]> {
        assert!(self.out.iter().all(|&n| n > 0), "the window does not fit the image");
        let places = (0..2).flat_map(|axis| [self.size[axis] + 2 * self.padding[axis] + self.kernel[axis], self.stride[axis]]);
        let product = |sides: [usize; 2], inner: usize| sides.iter().try_fold(inner, |n, &side| n.checked_mul(side));
        let values = [product(self.size, channels), product(self.out, of_window)];
        match values {
            [Some(image), Some(windows)] if image.max(windows) < LIMIT && places.max() < Some(LIMIT) => Ok([image, windows]),
            _ => Err(refused("an image")),
        }
    }

    fn arguments(&self) -> [Arg; 5] {
        [self.size, self.out, self.kernel, self.stride, self.padding].map(pair)
    }

    fn by_stride(&self) -> [Arg; 2] {
        self.stride.map(|d| pair(divisor(d)))
    }

    fn overlap(&self) -> bool {
        (0..2).any(|axis| self.stride[axis] < self.kernel[axis])
    }

    /// How many cells of a window's stride cover the image.
    fn cells(&self) -> [usize; 2] {
        [0, 1].map(|axis| (self.size[axis] + self.padding[axis]).div_ceil(self.stride[axis]))
    }
}

/// Two numbers in one argument; both are below 2³².
fn pair([row, column]: [usize; 2]) -> Arg {
    Arg::from((column as u64) << 32 | row as u64)
}

/// What the kernels divide by: `n / d = n·factor >> shift` for `n` and `d` below 2³¹.
fn divisor(d: usize) -> [usize; 2] {
    let log = d.next_power_of_two().trailing_zeros() as usize;
    [(1usize << (31 + log)).div_ceil(d), 31 + log]
}

/// How a block's threads lie over an image: lanes of channels, a tile of pixels, and as many images as fill the block.
struct Tile {
    lanes: usize,
    sides: [usize; 2],
    images: usize,
}

impl Tile {
    fn new(channels: usize, size: [usize; 2]) -> Self {
        let lanes = channels.next_power_of_two().min(LANES);
        let pixels = THREADS / lanes;
        // A square, or half of one.
        let side = 1 << pixels.trailing_zeros().div_ceil(2);
        let columns = size[1].next_power_of_two().min(side);
        let rows = size[0].next_power_of_two().min(pixels / columns);
        Self { lanes, sides: [rows, columns], images: pixels / (rows * columns) }
    }

    fn count(&self, size: [usize; 2]) -> [usize; 2] {
        [0, 1].map(|axis| size[axis].div_ceil(self.sides[axis]))
    }

    /// The logarithms of the sides, how many tiles an image has, and what divides by that.
    fn arguments(&self, size: [usize; 2]) -> [Arg; 4] {
        let [down, across] = self.count(size);
        let logs = self.sides.map(|side| side.trailing_zeros() as usize);
        [logs, [down, across], divisor(down), divisor(across)].map(pair)
    }

    fn grid(&self, images: usize, channels: usize, size: [usize; 2]) -> Grid {
        let tiles: usize = self.count(size).iter().product();
        let pixels = self.sides[0] * self.sides[1] * self.images;
        let blocks = [images.div_ceil(self.images) * tiles, channels.div_ceil(self.lanes)];
        Grid { blocks, threads: [self.lanes, pixels], shared_bytes: 0 }
    }
}

/// Whether rows of channels can be read 16 bytes at a time.
fn wide<T: CudaReal>(channels: usize, addresses: &[u64]) -> bool {
    channels.is_multiple_of(T::WIDE) && addresses.iter().all(|address| address.is_multiple_of(16))
}

impl<T: CudaReal> Cuda<T> {
    pub(super) fn window_rows(&self, shape: &ConvShape, images: usize, x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let windows = Windows::from(shape);
        let [image, out] = windows.values(shape.channels[0], shape.taps())?;
        assert_eq!(x.len(), images * image, "images");
        let y = self.buffer(images * out)?;
        let area = shape.kernel[0] * shape.kernel[1];
        let divisors = [shape.taps(), area, shape.kernel[1], windows.out[1], windows.out[0]].map(|d| pair(divisor(d)));
        let [size, windows_out, kernel, stride, padding] = windows.arguments();
        let [by_taps, by_area, by_kernel, by_columns, by_rows] = divisors;
        for (first, count) in parts(images, image.max(out)) {
            let to = address(&y) + (first * out * size_of::<T>()) as u64;
            let wide = to.is_multiple_of(16);
            let arguments = [
                x.part(first * image, count * image).into(),
                to.into(),
                (count * out).into(),
                shape.channels[0].into(),
                size,
                windows_out,
                kernel,
                stride,
                padding,
                by_taps,
                by_area,
                by_kernel,
                by_columns,
                by_rows,
                wide.into(),
            ];
            let packs = if wide { (count * out).div_ceil(T::WIDE) } else { count * out };
            self.device.launch(&self.kernels.patches, Grid::each(packs), arguments)?;
        }
        Ok(y)
    }

    pub(super) fn window_rows_backward(&self, shape: &ConvShape, images: usize, dy: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let windows = Windows::from(shape);
        let [image, out] = windows.values(shape.channels[0], shape.taps())?;
        assert_eq!(dy.len(), images * out, "windows");
        let dx = self.buffer(images * image)?;
        let tile = Tile::new(shape.channels[0], shape.size);
        let [size, windows_out, kernel, stride, padding] = windows.arguments();
        let channels = shape.channels[0].into();
        let [log, tiles, of_down, of_across] = tile.arguments(shape.size);
        let [by_row, by_column] = windows.by_stride();
        let arguments = [
            dy.into(),
            (&dx).into(),
            images.into(),
            channels,
            size,
            windows_out,
            kernel,
            stride,
            padding,
            log,
            tiles,
            of_down,
            of_across,
            by_row,
            by_column,
        ];
        let grid = tile.grid(images, shape.channels[0], shape.size);
        self.device.launch(&self.kernels.patches_backward, grid, arguments)?;
        Ok(dx)
    }

    pub(super) fn pool_windows(
        &self,
        (pooling, shape): (Pooling, &PoolShape),
        ImageSizes { images, channels }: ImageSizes,
        x: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        let windows = Windows::from(shape);
        let [image, out] = windows.values(channels, channels)?;
        assert_eq!(x.len(), images * image, "images");
        let y = self.buffer(images * out)?;
        let wide = wide::<T>(channels, &[x.address()]);
        let lanes = if wide { channels / T::WIDE } else { channels };
        let tile = Tile::new(lanes, windows.out);
        let [log, tiles, of_down, of_across] = tile.arguments(windows.out);
        let [size, windows_out, kernel, stride, padding] = windows.arguments();
        let arguments = [
            x.into(),
            (&y).into(),
            images.into(),
            channels.into(),
            size,
            windows_out,
            kernel,
            stride,
            padding,
            log,
            tiles,
            of_down,
            of_across,
            (pooling == Pooling::Average).into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.pool, tile.grid(images, lanes, windows.out), arguments)?;
        Ok(y)
    }

    pub(super) fn pool_windows_backward(
        &self,
        (pooling, shape): (Pooling, &PoolShape),
        ImageSizes { images, channels }: ImageSizes,
        x: View<'_, T>,
        dy: View<'_, T>,
    ) -> crate::Result<CudaSlice<T>> {
        let windows = Windows::from(shape);
        let [image, out] = windows.values(channels, channels)?;
        assert!(x.len() == images * image && dy.len() == images * out, "images and their windows");
        let dx = self.buffer(x.len())?;
        let wide = wide::<T>(channels, &[x.address(), dy.address()]);
        let lanes = if wide { channels / T::WIDE } else { channels };
        let [size, windows_out, kernel, stride, padding] = windows.arguments();
        let (from, channel_count) = ([x.into(), dy.into(), (&dx).into(), images.into()], channels.into());
        let [x, dy, to, images_count] = from;
        // Of windows that do not overlap, each is looked at once.
        let by_cell = pooling == Pooling::Max && !windows.overlap();
        let places = if by_cell { windows.cells() } else { shape.size };
        let tile = Tile::new(lanes, places);
        let ([log, tiles, of_down, of_across], grid) = (tile.arguments(places), tile.grid(images, lanes, places));
        if by_cell {
            let arguments = [
                x,
                dy,
                to,
                images_count,
                channel_count,
                size,
                windows_out,
                kernel,
                stride,
                padding,
                pair(places),
                log,
                tiles,
                of_down,
                of_across,
                wide.into(),
            ];
            self.device.launch(&self.kernels.cells_backward, grid, arguments)?;
            return Ok(dx);
        }
        let [by_row, by_column] = windows.by_stride();
        let arguments = [
            x,
            dy,
            to,
            images_count,
            channel_count,
            size,
            windows_out,
            kernel,
            stride,
            padding,
            log,
            tiles,
            of_down,
            of_across,
            by_row,
            by_column,
            (pooling == Pooling::Average).into(),
            wide.into(),
        ];
        self.device.launch(&self.kernels.pool_backward, grid, arguments)?;
        Ok(dx)
    }

    pub(super) fn transpose_each(&self, [matrices, rows, columns]: [usize; 3], x: View<'_, T>) -> crate::Result<CudaSlice<T>> {
        let matrix = rows * columns;
        assert_eq!(x.len(), matrices * matrix, "matrices");
        let y = self.buffer(x.len())?;
        let (length, width) = (rows.max(columns), rows.min(columns));
        if matrix < SMALL {
            for (first, count) in parts(matrices, matrix) {
                let arguments = [
                    x.part(first * matrix, count * matrix).into(),
                    (address(&y) + (first * matrix * size_of::<T>()) as u64).into(),
                    (count * matrix).into(),
                    rows.into(),
                    columns.into(),
                    pair(divisor(rows)),
                    pair(divisor(columns)),
                ];
                self.device.launch(&self.kernels.transpose_small, Grid::each(count * matrix), arguments)?;
            }
        } else if width < SIDE && length < LIMIT {
            let log = (STRIP / (width | 1)).ilog2() as usize;
            let strips = length.div_ceil(1 << log);
            let arguments = [
                x.into(),
                (&y).into(),
                length.into(),
                width.into(),
                log.into(),
                strips.into(),
                pair(divisor(strips)),
                pair(divisor(width)),
                (rows < columns).into(),
            ];
            let grid = Grid { blocks: [matrices * strips, 1], threads: [THREADS, 1], shared_bytes: 0 };
            self.device.launch(&self.kernels.transpose_strips, grid, arguments)?;
        } else {
            let blocks = matrices * rows.div_ceil(SIDE) * columns.div_ceil(SIDE);
            let grid = Grid { blocks: [blocks, 1], threads: [SIDE, 8], shared_bytes: 0 };
            self.device.launch(&self.kernels.transpose_tiles, grid, [x.into(), (&y).into(), rows.into(), columns.into()])?;
        }
        Ok(y)
    }
}

/// Cuts images into parts of less than [`LIMIT`] values: the first of each, and how many. A part starts at a multiple of 16 bytes
/// where images are small.
fn parts(images: usize, values: usize) -> impl Iterator<Item = (usize, usize)> {
    let most = ((LIMIT - 1) / values.max(1)).max(1);
    let most = if most > 8 { most / 8 * 8 } else { most };
    (0..images).step_by(most).map(move |first| (first, most.min(images - first)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_divide() {
        for d in (1..2000).chain([4095, 4096, 4097, 65_535, 1 << 20, (1 << 30) + 1, LIMIT - 1]) {
            let [factor, shift] = divisor(d);
            assert!(u32::try_from(factor).is_ok(), "{d}");
            let around = [1, 2, 3, 1000, LIMIT / d].map(|k| k * d).into_iter().flat_map(|n| [n.saturating_sub(1), n, n + 1]);
            for n in around.chain([0, LIMIT - 1]).filter(|&n| n < LIMIT) {
                assert_eq!((n * factor) >> shift, n / d, "{n} / {d}");
            }
        }
    }

    #[test]
    fn parts_cover_all_images() {
        for (images, values) in [(0, 5), (1, LIMIT - 1), (3, LIMIT - 1), (100, 1 << 28), (1 << 20, 5000), (7, 1 << 29)] {
            let mut next = 0;
            for (first, count) in parts(images, values) {
                assert!(first == next && count > 0 && count * values < LIMIT);
                next += count;
            }
            assert_eq!(next, images);
        }
    }

    #[test]
    fn blocks_are_full_and_cover_an_image() {
        for (channels, size) in [(1, [28, 28]), (3, [32, 32]), (16, [1, 1]), (100, [7, 5]), (2, [1, 300])] {
            let tile = Tile::new(channels, size);
            let Grid { blocks, threads, .. } = tile.grid(1000, channels, size);
            assert_eq!(threads[0] * threads[1], THREADS);
            let tiles = size[0].div_ceil(tile.sides[0]) * size[1].div_ceil(tile.sides[1]);
            assert!(blocks[0] / tiles * tile.images >= 1000 && blocks[1] * tile.lanes >= channels);
        }
    }
}
