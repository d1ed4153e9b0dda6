// Batch norms of populations: sums over a network's rows, as those of reduce.cu: chunks of rows, then the chunks.

// A mean and a sum of squared deviations from it, of `count` values.
struct Moments {
    float count, mean, squares;
};

// Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979), (2.1).
__device__ __forceinline__ void merge(Moments& a, const Moments& b) {
    if (b.count == 0.0f) return;
    const float count = a.count + b.count, share = b.count / count, apart = b.mean - a.mean;
    a.mean += apart * share;
    a.squares += b.squares + apart * apart * (a.count * share);
    a.count = count;
}

// Merges a block's rows: thread (x, 0) has those of its `V` columns then.
template <int V> __device__ __forceinline__ void merge_rows(Moments (&mine)[V]) {
    __shared__ float shared[3][256];
    const u32 at = threadIdx.y * blockDim.x + threadIdx.x;
#pragma unroll
    for (int i = 0; i < V; i++) {
        __syncthreads();
        shared[0][at] = mine[i].count;
        shared[1][at] = mine[i].mean;
        shared[2][at] = mine[i].squares;
        for (u32 rows = blockDim.y / 2; rows > 0; rows /= 2) {
            __syncthreads();
            if (threadIdx.y < rows) {
                const u32 other = at + rows * blockDim.x;
                merge(mine[i], {shared[0][other], shared[1][other], shared[2][other]});
                shared[0][at] = mine[i].count;
                shared[1][at] = mine[i].mean;
                shared[2][at] = mine[i].squares;
            }
        }
    }
}

// A chunk of a network's rows, and a thread's columns.
struct Chunk {
    u32 network, chunk, first, end, column;
};

__device__ __forceinline__ Chunk chunk_of(u32 block, u32 rows, u32 chunks) {
    Chunk c;
    c.network = block / chunks;
    c.chunk = block - c.network * chunks;
    const u64 of_chunk = (rows + chunks - 1) / chunks;
    c.first = (u32)min((u64)rows, c.chunk * of_chunk);
    c.end = (u32)min((u64)rows, (c.chunk + 1) * of_chunk);
    return c;
}

template <int V> __device__ __forceinline__ Chunk chunk_at(u32 rows, u32 chunks) {
    Chunk c = chunk_of(blockIdx.x, rows, chunks);
    c.column = (blockIdx.y * blockDim.x + threadIdx.x) * V;
    return c;
}

// partial[network][chunk] = [means | sums of squared deviations].
//
// Four rows at a time, whose moments are taken about their own mean.
template <int V> __device__ void batch_norm_moments_of(const real* x, u32 rows, u32 columns, u32 chunks, float* partial) {
    const Chunk c = chunk_at<V>(rows, chunks);
    Moments mine[V] = {};
    if (c.column < columns) {
        const real* source = x + (u64)c.network * rows * columns + c.column;
        u32 row = c.first + threadIdx.y;
        const u32 step = blockDim.y;
        for (; (u64)row + 3 * step < c.end; row += 4 * step) {
            Pack<V> a[4];
#pragma unroll
            for (int k = 0; k < 4; k++) a[k] = load<V>(source + (u64)(row + k * step) * columns);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float mean = 0.25f * ((a[0].v[i] + a[1].v[i]) + (a[2].v[i] + a[3].v[i]));
                float squares = 0.0f;
#pragma unroll
                for (int k = 0; k < 4; k++) squares += (a[k].v[i] - mean) * (a[k].v[i] - mean);
                merge(mine[i], {4.0f, mean, squares});
            }
        }
        for (; row < c.end; row += step) {
            const Pack<V> a = load<V>(source + (u64)row * columns);
#pragma unroll
            for (int i = 0; i < V; i++) merge(mine[i], {1.0f, a.v[i], 0.0f});
        }
    }
    merge_rows<V>(mine);
    if (threadIdx.y > 0 || c.column >= columns) return;
    float* out = partial + (u64)blockIdx.x * 2 * columns + c.column;
#pragma unroll
    for (int i = 0; i < V; i++) {
        out[i] = mine[i].mean;
        out[columns + i] = mine[i].squares;
    }
}

extern "C" __global__ void batch_norm_moments(const real* x, u32 rows, u32 columns, u32 chunks, float* partial, int wide) {
    if (wide) {
        batch_norm_moments_of<WIDE>(x, rows, columns, chunks, partial);
    } else {
        batch_norm_moments_of<1>(x, rows, columns, chunks, partial);
    }
}

// A parameter: of the master in `f32`, where there is one.
__device__ __forceinline__ float exact(const real* theta, const float* master, u64 at) { return master ? master[at] : widen(theta[at]); }

// What a network normalizes by, [mean | 1/σ], and its running statistics after the batch, of which there are none where there are no
// chunks: then it normalizes by the running ones. A block a network.
extern "C" __global__ void batch_norm_statistics(const float* partial, u32 chunks, u32 rows, u32 columns, const real* theta,
                                                 const float* master, u64 stride, u64 running_mean, u64 running_variance,
                                                 float* statistics, float* moved, float epsilon, float momentum) {
    const u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    const u64 network = blockIdx.x;
    Moments mine[1] = {};
    if (column < columns) {
        for (u32 k = threadIdx.y; k < chunks; k += blockDim.y) {
            const Chunk c = chunk_of((u32)network * chunks + k, rows, chunks);
            const float* of = partial + (network * chunks + k) * 2 * columns + column;
            merge(mine[0], {(float)(c.end - c.first), of[0], of[columns]});
        }
    }
    merge_rows<1>(mine);
    if (threadIdx.y > 0 || column >= columns) return;
    const float old_mean = exact(theta, master, network * stride + running_mean + column);
    const float old_variance = exact(theta, master, network * stride + running_variance + column);
    const u64 at = network * 2 * columns + column;
    const float mean = chunks ? mine[0].mean : old_mean, variance = chunks ? mine[0].squares / rows : old_variance;
    statistics[at] = mean;
    statistics[at + columns] = 1.0f / sqrtf(variance + epsilon);
    if (!moved) return;
    moved[at] = old_mean + momentum * (mean - old_mean);
    moved[at + columns] = old_variance + momentum * (mine[0].squares / fmaxf(rows - 1.0f, 1.0f) - old_variance);
}

// y = (x − mean)·(1/σ)·gain + shift.
template <int V>
__device__ void batch_norm_of(const real* x, const float* statistics, const real* gain, const real* bias, u64 stride, u32 rows,
                              u32 columns, u32 chunks, real* y) {
    const Chunk c = chunk_at<V>(rows, chunks);
    if (c.column >= columns) return;
    const u64 start = (u64)c.network * rows * columns + c.column;
    const float* of = statistics + (u64)c.network * 2 * columns + c.column;
    const Pack<V> mean = load<V>(of);
    Pack<V> scale = load<V>(of + columns);
    const Pack<V> g = load_any<V>(gain + c.network * stride + c.column);
    const Pack<V> b = load_any<V>(bias + c.network * stride + c.column);
#pragma unroll
    for (int i = 0; i < V; i++) scale.v[i] *= g.v[i];
#pragma unroll 4
    for (u32 row = c.first + threadIdx.y; row < c.end; row += blockDim.y) {
        Pack<V> a = load<V>(x + start + (u64)row * columns);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] = (a.v[i] - mean.v[i]) * scale.v[i] + b.v[i];
        store<V>(y + start + (u64)row * columns, a);
    }
}

extern "C" __global__ void batch_norm(const real* x, const float* statistics, const real* gain, const real* bias, u64 stride, u32 rows,
                                      u32 columns, u32 chunks, real* y, int wide) {
    if (wide) {
        batch_norm_of<WIDE>(x, statistics, gain, bias, stride, rows, columns, chunks, y);
    } else {
        batch_norm_of<1>(x, statistics, gain, bias, stride, rows, columns, chunks, y);
    }
}

// partial[network][chunk] = [Σ dy | Σ dy·n], with n the normalized value.
template <int V>
__device__ void batch_norm_sums_of(const real* x, const real* dy, const float* statistics, u32 rows, u32 columns, u32 chunks,
                                   float* partial) {
    const Chunk c = chunk_at<V>(rows, chunks);
    Pack<V> sum = {}, product = {};
    if (c.column < columns) {
        const u64 start = (u64)c.network * rows * columns + c.column;
        const float* of = statistics + (u64)c.network * 2 * columns + c.column;
        const Pack<V> mean = load<V>(of);
        const Pack<V> scale = load<V>(of + columns);
#pragma unroll 4
        for (u32 row = c.first + threadIdx.y; row < c.end; row += blockDim.y) {
            const Pack<V> a = load<V>(x + start + (u64)row * columns);
            const Pack<V> d = load<V>(dy + start + (u64)row * columns);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum.v[i] += d.v[i];
                product.v[i] += d.v[i] * ((a.v[i] - mean.v[i]) * scale.v[i]);
            }
        }
    }
    const float total = sum_rows<V>(sum);
    __syncthreads();
    const float product_total = sum_rows<V>(product);
    const u32 mine = threadIdx.y * blockDim.x + threadIdx.x;
    const u32 column = blockIdx.y * blockDim.x * V + mine;
    if (mine >= blockDim.x * V || column >= columns) return;
    float* out = partial + (u64)blockIdx.x * 2 * columns + column;
    out[0] = total;
    out[columns] = product_total;
}

extern "C" __global__ void batch_norm_sums(const real* x, const real* dy, const float* statistics, u32 rows, u32 columns, u32 chunks,
                                           float* partial, int wide) {
    if (wide) {
        batch_norm_sums_of<WIDE>(x, dy, statistics, rows, columns, chunks, partial);
    } else {
        batch_norm_sums_of<1>(x, dy, statistics, rows, columns, chunks, partial);
    }
}

// totals[network] = the sums of its chunks, of which the gradients of its parameters are made; without `running` offsets, those of
// gain and shift alone. A block a network.
extern "C" __global__ void batch_norm_gradient(const float* partial, u32 chunks, u32 columns, const float* statistics, const real* theta,
                                               u64 stride, u64 gain, u64 bias, u64 mean, u64 variance, int running, float* gradient,
                                               float* totals) {
    const u32 column = blockIdx.y * blockDim.x + threadIdx.x;
    const u64 network = blockIdx.x;
    Pack<1> sum = {}, product = {};
    if (column < columns) {
        for (u32 k = threadIdx.y; k < chunks; k += blockDim.y) {
            const float* of = partial + (network * chunks + k) * 2 * columns + column;
            sum.v[0] += of[0];
            product.v[0] += of[columns];
        }
    }
    const float total = sum_rows<1>(sum);
    __syncthreads();
    const float product_total = sum_rows<1>(product);
    if (threadIdx.y > 0 || column >= columns) return;
    const u64 at = network * 2 * columns + column;
    totals[at] = total;
    totals[at + columns] = product_total;
    float* mine = gradient + network * stride + column;
    mine[gain] += product_total;
    mine[bias] += total;
    if (!running) return;
    const float scale = statistics[at + columns];
    const float slope = widen(theta[network * stride + gain + column]) * scale;
    mine[mean] -= slope * total;
    mine[variance] -= 0.5f * slope * scale * product_total;
}

// dx = gain/σ·(dy − (Σ dy + n·Σ dy·n)·share); `share` is one over the rows, or 0 where statistics are constants.
template <int V>
__device__ void batch_norm_backward_of(const real* x, const real* dy, const float* statistics, const float* totals, const real* gain,
                                       u64 stride, u32 rows, u32 columns, u32 chunks, float share, real* dx) {
    const Chunk c = chunk_at<V>(rows, chunks);
    if (c.column >= columns) return;
    const u64 start = (u64)c.network * rows * columns + c.column;
    const u64 at = (u64)c.network * 2 * columns + c.column;
    const Pack<V> mean = load<V>(statistics + at);
    const Pack<V> scale = load<V>(statistics + at + columns);
    const Pack<V> sum = load<V>(totals + at);
    const Pack<V> product = load<V>(totals + at + columns);
    const Pack<V> g = load_any<V>(gain + c.network * stride + c.column);
#pragma unroll 4
    for (u32 row = c.first + threadIdx.y; row < c.end; row += blockDim.y) {
        const Pack<V> a = load<V>(x + start + (u64)row * columns);
        Pack<V> d = load<V>(dy + start + (u64)row * columns);
#pragma unroll
        for (int i = 0; i < V; i++) {
            const float normal = (a.v[i] - mean.v[i]) * scale.v[i];
            d.v[i] = scale.v[i] * g.v[i] * (d.v[i] - share * (sum.v[i] + normal * product.v[i]));
        }
        store<V>(dx + start + (u64)row * columns, d);
    }
}

extern "C" __global__ void batch_norm_backward(const real* x, const real* dy, const float* statistics, const float* totals,
                                               const real* gain, u64 stride, u32 rows, u32 columns, u32 chunks, float share, real* dx,
                                               int wide) {
    if (wide) {
        batch_norm_backward_of<WIDE>(x, dy, statistics, totals, gain, stride, rows, columns, chunks, share, dx);
    } else {
        batch_norm_backward_of<1>(x, dy, statistics, totals, gain, stride, rows, columns, chunks, share, dx);
    }
}

// theta[network·stride + mean or variance + column] = moved[network][0 or 1][column], and the copy that is computed with.
extern "C" __global__ void set_statistics(const float* moved, float* theta, real* copy, u32 columns, u64 stride, u64 mean, u64 variance,
                                          u32 total) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const u32 line = index / columns, column = index - line * columns;
    const u64 at = (line / 2) * stride + (line % 2 ? variance : mean) + column;
    theta[at] = moved[index];
    if (copy) narrow(copy + at, moved[index]);
}
