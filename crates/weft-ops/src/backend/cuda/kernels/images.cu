// Images: windows as rows, pools, and channels first or last. Pixels are rows of channels.
//
// Gradients are gathered: each pixel sums, in a fixed order, what the windows over it got.

// A height and a width, in one argument.
struct Pair {
    u32 row, column;
};

// A number to divide by, less than 2³¹: n / d = n·factor >> shift for n < 2³¹.
struct Divisor {
    u32 factor, shift;
};
__device__ __forceinline__ u32 over(u32 n, Divisor d) { return (u32)(((u64)n * d.factor) >> d.shift); }

// y[image][window][channel][place in the kernel] of `len` values; 0 beyond the image's edge. `area` and `taps` are what a kernel
// covers in one channel and in all.
template <int V>
__device__ void patches_of(const real* x, real* y, u32 len, u32 channels, Pair size, Pair out, Pair kernel, Pair stride, Pair padding,
                           Divisor of_taps, Divisor of_area, Divisor of_kernel, Divisor of_columns, Divisor of_rows) {
    const u32 index = (blockIdx.x * blockDim.x + threadIdx.x) * V;
    if (index >= len) return;
    const u32 area = kernel.row * kernel.column;
    const u32 window = over(index, of_taps);
    const u32 tap = index - window * channels * area;
    u32 channel = over(tap, of_area);
    const u32 place = tap - channel * area;
    u32 down = over(place, of_kernel);
    u32 across = place - down * kernel.column;
    const u32 line = over(window, of_columns);
    u32 column = window - line * out.column;
    u32 image = over(line, of_rows);
    u32 row = line - image * out.row;
    Pack<V> pack;
#pragma unroll
    for (int i = 0; i < V; i++) {
        // A pixel above or left of the image is one far below or right of it.
        const u32 r = row * stride.row + down - padding.row, c = column * stride.column + across - padding.column;
        const bool inside = r < size.row && c < size.column && index + i < len;
        pack.v[i] = inside ? widen(x[((image * size.row + r) * size.column + c) * channels + channel]) : 0.0f;
        // The next value, without branches: then all loads are under way at once.
        bool carry = ++across == kernel.column;
        across = carry ? 0 : across;
        down += carry;
        carry = down == kernel.row;
        down = carry ? 0 : down;
        channel += carry;
        carry = channel == channels;
        channel = carry ? 0 : channel;
        column += carry;
        carry = column == out.column;
        column = carry ? 0 : column;
        row += carry;
        carry = row == out.row;
        row = carry ? 0 : row;
        image += carry;
    }
    if (V == 1 || index + V <= len) {
        store<V>(y + index, pack);
    } else {
#pragma unroll
        for (int i = 0; i < V; i++) {
            if (index + i < len) narrow(y + index + i, pack.v[i]);
        }
    }
}

extern "C" __global__ void patches(const real* x, real* y, u32 len, u32 channels, Pair size, Pair out, Pair kernel, Pair stride,
                                   Pair padding, Divisor of_taps, Divisor of_area, Divisor of_kernel, Divisor of_columns,
                                   Divisor of_rows, int wide) {
    if (wide) {
        patches_of<WIDE>(x, y, len, channels, size, out, kernel, stride, padding, of_taps, of_area, of_kernel, of_columns, of_rows);
    } else {
        patches_of<1>(x, y, len, channels, size, out, kernel, stride, padding, of_taps, of_area, of_kernel, of_columns, of_rows);
    }
}

// What a thread computes: `V` channels of a pixel. A block is `blockDim.x` lanes of channels × tiles of pixels, a tile of as many
// images as make the block full.
struct Place {
    u64 image;
    u32 row, column, channel;
};

// Tiles of an image, down and across, and the logarithms of their sides.
struct Tiles {
    Pair log, count;
    Divisor of_down, of_across;
};

template <int V> __device__ __forceinline__ bool place_of(u32 images, u32 channels, Pair size, const Tiles& tiles, Place& place) {
    const u32 log = tiles.log.row + tiles.log.column;
    const u32 line = over(blockIdx.x, tiles.of_across), group = over(line, tiles.of_down);
    const u32 pixel = threadIdx.y & ((1u << log) - 1);
    place.image = group * (blockDim.y >> log) + (threadIdx.y >> log);
    place.row = ((line - group * tiles.count.row) << tiles.log.row) + (pixel >> tiles.log.column);
    place.column = ((blockIdx.x - line * tiles.count.column) << tiles.log.column) + (pixel & ((1u << tiles.log.column) - 1));
    place.channel = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    return place.image < images && place.row < size.row && place.column < size.column && place.channel < channels;
}

// Numbers `first..end`.
struct Range {
    u32 first, end;
};

// The pixels under a window, along one axis.
__device__ __forceinline__ Range pixels_of(u32 window, u32 size, u32 kernel, u32 stride, u32 padding) {
    const u32 start = window * stride, end = start + kernel;
    return {start > padding ? start - padding : 0, end > padding ? min(end - padding, size) : 0};
}

// The windows over a pixel, along one axis.
__device__ __forceinline__ Range windows_of(u32 pixel, u32 windows, u32 kernel, Divisor of_stride, u32 padding) {
    const u32 at = pixel + padding;
    return {at < kernel ? 0 : over(at - kernel, of_stride) + 1, min(over(at, of_stride) + 1, windows)};
}

extern "C" __global__ void patches_backward(const real* dy, real* dx, u32 images, u32 channels, Pair size, Pair out, Pair kernel,
                                            Pair stride, Pair padding, Pair log, Pair tiles, Divisor of_down, Divisor of_across,
                                            Divisor by_row, Divisor by_column) {
    Place place;
    if (!place_of<1>(images, channels, size, {log, tiles, of_down, of_across}, place)) return;
    const u32 area = kernel.row * kernel.column, taps = channels * area;
    const Range rows = windows_of(place.row, out.row, kernel.row, by_row, padding.row);
    const Range columns = windows_of(place.column, out.column, kernel.column, by_column, padding.column);
    const real* mine = dy + place.image * (out.row * out.column * taps) + place.channel * area;
    float sum = 0.0f;
    for (u32 row = rows.first; row < rows.end; row++) {
        const u32 down = place.row + padding.row - row * stride.row;
        for (u32 column = columns.first; column < columns.end; column++) {
            const u32 across = place.column + padding.column - column * stride.column;
            sum += widen(mine[(row * out.column + column) * taps + down * kernel.column + across]);
        }
    }
    narrow(dx + place.image * (size.row * size.column * channels) + (place.row * size.column + place.column) * channels + place.channel,
           sum);
}

template <int V>
__device__ void pool_of(const real* x, real* y, u32 images, u32 channels, Pair size, Pair out, Pair kernel, Pair stride, Pair padding,
                        const Tiles& tiles, int average) {
    Place place;
    if (!place_of<V>(images, channels, out, tiles, place)) return;
    const Range rows = pixels_of(place.row, size.row, kernel.row, stride.row, padding.row);
    const Range columns = pixels_of(place.column, size.column, kernel.column, stride.column, padding.column);
    const real* mine = x + place.image * (size.row * size.column * channels) + place.channel;
    Pack<V> result = {};
    if (!average) result = load<V>(mine + (rows.first * size.column + columns.first) * channels);
    for (u32 row = rows.first; row < rows.end; row++) {
        for (u32 column = columns.first; column < columns.end; column++) {
            const Pack<V> a = load<V>(mine + (row * size.column + column) * channels);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (average) {
                    result.v[i] += a.v[i];
                } else if (a.v[i] > result.v[i]) {
                    result.v[i] = a.v[i];
                }
            }
        }
    }
    if (average) {
        const float count = (float)((rows.end - rows.first) * (columns.end - columns.first));
#pragma unroll
        for (int i = 0; i < V; i++) result.v[i] /= count;
    }
    store<V>(y + place.image * (out.row * out.column * channels) + (place.row * out.column + place.column) * channels + place.channel,
             result);
}

extern "C" __global__ void pool(const real* x, real* y, u32 images, u32 channels, Pair size, Pair out, Pair kernel, Pair stride,
                                Pair padding, Pair log, Pair tiles, Divisor of_down, Divisor of_across, int average, int wide) {
    if (wide) {
        pool_of<WIDE>(x, y, images, channels, size, out, kernel, stride, padding, {log, tiles, of_down, of_across}, average);
    } else {
        pool_of<1>(x, y, images, channels, size, out, kernel, stride, padding, {log, tiles, of_down, of_across}, average);
    }
}

// Where the first of the greatest values of a window lies, of each channel.
template <int V>
__device__ __forceinline__ void winners(const real* x, u32 channels, u32 width, Range rows, Range columns, u32 (&winner)[V]) {
    const u32 first = (rows.first * width + columns.first) * channels;
    Pack<V> best = load<V>(x + first);
#pragma unroll
    for (int i = 0; i < V; i++) winner[i] = first;
    for (u32 row = rows.first; row < rows.end; row++) {
        for (u32 column = columns.first; column < columns.end; column++) {
            const u32 at = (row * width + column) * channels;
            const Pack<V> a = load<V>(x + at);
#pragma unroll
            for (int i = 0; i < V; i++) {
                if (a.v[i] > best.v[i]) {
                    best.v[i] = a.v[i];
                    winner[i] = at;
                }
            }
        }
    }
}

template <int V>
__device__ void pool_backward_of(const real* x, const real* dy, real* dx, u32 images, u32 channels, Pair size, Pair out, Pair kernel,
                                 Pair stride, Pair padding, const Tiles& tiles, Divisor by_row, Divisor by_column, int average) {
    Place place;
    if (!place_of<V>(images, channels, size, tiles, place)) return;
    const Range over_rows = windows_of(place.row, out.row, kernel.row, by_row, padding.row);
    const Range over_columns = windows_of(place.column, out.column, kernel.column, by_column, padding.column);
    const u64 start = place.image * (size.row * size.column * channels) + place.channel;
    const real* upstream = dy + place.image * (out.row * out.column * channels) + place.channel;
    const u32 pixel = (place.row * size.column + place.column) * channels;
    Pack<V> sum = {};
    for (u32 row = over_rows.first; row < over_rows.end; row++) {
        for (u32 column = over_columns.first; column < over_columns.end; column++) {
            const Range rows = pixels_of(row, size.row, kernel.row, stride.row, padding.row);
            const Range columns = pixels_of(column, size.column, kernel.column, stride.column, padding.column);
            const Pack<V> d = load<V>(upstream + (row * out.column + column) * channels);
            if (average) {
                const float count = (float)((rows.end - rows.first) * (columns.end - columns.first));
#pragma unroll
                for (int i = 0; i < V; i++) sum.v[i] += d.v[i] / count;
            } else {
                u32 winner[V];
                winners<V>(x + start, channels, size.column, rows, columns, winner);
#pragma unroll
                for (int i = 0; i < V; i++) sum.v[i] += winner[i] == pixel ? d.v[i] : 0.0f;
            }
        }
    }
    store<V>(dx + start + pixel, sum);
}

extern "C" __global__ void pool_backward(const real* x, const real* dy, real* dx, u32 images, u32 channels, Pair size, Pair out,
                                         Pair kernel, Pair stride, Pair padding, Pair log, Pair tiles, Divisor of_down,
                                         Divisor of_across, Divisor by_row, Divisor by_column, int average, int wide) {
    const Tiles t = {log, tiles, of_down, of_across};
    if (wide) {
        pool_backward_of<WIDE>(x, dy, dx, images, channels, size, out, kernel, stride, padding, t, by_row, by_column, average);
    } else {
        pool_backward_of<1>(x, dy, dx, images, channels, size, out, kernel, stride, padding, t, by_row, by_column, average);
    }
}

// The same for the greatest values of windows that do not overlap: a thread has a cell, the pixels from one window to the next.
template <int V>
__device__ void cells_backward_of(const real* x, const real* dy, real* dx, u32 images, u32 channels, Pair size, Pair out, Pair kernel,
                                  Pair stride, Pair padding, Pair cells, const Tiles& tiles) {
    Place place;
    if (!place_of<V>(images, channels, cells, tiles, place)) return;
    const u64 start = place.image * (size.row * size.column * channels) + place.channel;
    u32 winner[V];
    Pack<V> d = {};
#pragma unroll
    for (int i = 0; i < V; i++) winner[i] = ~0u;
    if (place.row < out.row && place.column < out.column) {
        const Range rows = pixels_of(place.row, size.row, kernel.row, stride.row, padding.row);
        const Range columns = pixels_of(place.column, size.column, kernel.column, stride.column, padding.column);
        winners<V>(x + start, channels, size.column, rows, columns, winner);
        d = load<V>(dy + place.image * (out.row * out.column * channels) + (place.row * out.column + place.column) * channels +
                    place.channel);
    }
    const Range rows = pixels_of(place.row, size.row, stride.row, stride.row, padding.row);
    const Range columns = pixels_of(place.column, size.column, stride.column, stride.column, padding.column);
    for (u32 row = rows.first; row < rows.end; row++) {
        for (u32 column = columns.first; column < columns.end; column++) {
            const u32 at = (row * size.column + column) * channels;
            Pack<V> won;
#pragma unroll
            for (int i = 0; i < V; i++) won.v[i] = winner[i] == at ? d.v[i] : 0.0f;
            store<V>(dx + start + at, won);
        }
    }
}

extern "C" __global__ void cells_backward(const real* x, const real* dy, real* dx, u32 images, u32 channels, Pair size, Pair out,
                                          Pair kernel, Pair stride, Pair padding, Pair cells, Pair log, Pair tiles, Divisor of_down,
                                          Divisor of_across, int wide) {
    const Tiles t = {log, tiles, of_down, of_across};
    if (wide) {
        cells_backward_of<WIDE>(x, dy, dx, images, channels, size, out, kernel, stride, padding, cells, t);
    } else {
        cells_backward_of<1>(x, dy, dx, images, channels, size, out, kernel, stride, padding, cells, t);
    }
}

// Transposes tiles of 32 × 32 values; blocks of 32 × 8 threads.
extern "C" __global__ void transpose_tiles(const real* x, real* y, u64 rows, u64 columns) {
    __shared__ real tile[32][33];
    const u64 across = (columns + 31) / 32, down = (rows + 31) / 32;
    const u64 line = blockIdx.x / across, matrix = line / down;
    const u64 row = (line - matrix * down) * 32, column = (blockIdx.x - line * across) * 32;
    const u64 start = matrix * rows * columns;
#pragma unroll
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        if (row + i < rows && column + threadIdx.x < columns) {
            tile[i][threadIdx.x] = x[start + (row + i) * columns + column + threadIdx.x];
        }
    }
    __syncthreads();
#pragma unroll
    for (u32 i = threadIdx.y; i < 32; i += 8) {
        if (column + i < columns && row + threadIdx.x < rows) {
            y[start + (column + i) * rows + row + threadIdx.x] = tile[threadIdx.x][i];
        }
    }
}

// The same for small matrices: threads write what they find all over one.
extern "C" __global__ void transpose_small(const real* x, real* y, u32 len, u32 rows, u32 columns, Divisor of_rows,
                                           Divisor of_columns) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= len) return;
    const u32 line = over(index, of_rows), row = index - line * rows;
    const u32 matrix = over(line, of_columns), column = line - matrix * columns;
    y[index] = x[(matrix * rows + row) * columns + column];
}

// The same for long matrices of short rows, or back to these if `back`: a block has a strip of 2^`log` rows, which lie behind each
// other; of the transposed matrix it is a stretch of each row. A strip's rows have an odd pitch in shared memory.
extern "C" __global__ void transpose_strips(const real* x, real* y, u32 length, u32 width, u32 log, u32 strips, Divisor of_strips,
                                            Divisor of_width, int back) {
    __shared__ real strip[4096];
    const u32 matrix = over(blockIdx.x, of_strips);
    const u32 first = (blockIdx.x - matrix * strips) << log, count = min(1u << log, length - first);
    const u32 pitch = width | 1;
    const u64 start = (u64)matrix * length * width;
    const u64 rows = start + (u64)first * width, stretch = start + first;
    if (back) {
        for (u32 i = threadIdx.x; i < width << log; i += blockDim.x) {
            const u32 column = i >> log, row = i & ((1u << log) - 1);
            if (row < count) strip[row * pitch + column] = x[stretch + (u64)column * length + row];
        }
    } else {
        for (u32 i = threadIdx.x; i < count * width; i += blockDim.x) {
            const u32 row = over(i, of_width);
            strip[row * pitch + i - row * width] = x[rows + i];
        }
    }
    __syncthreads();
    if (back) {
        for (u32 i = threadIdx.x; i < count * width; i += blockDim.x) {
            const u32 row = over(i, of_width);
            y[rows + i] = strip[row * pitch + i - row * width];
        }
    } else {
        for (u32 i = threadIdx.x; i < width << log; i += blockDim.x) {
            const u32 column = i >> log, row = i & ((1u << log) - 1);
            if (row < count) y[stretch + (u64)column * length + row] = strip[row * pitch + column];
        }
    }
}
