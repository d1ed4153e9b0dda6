// Norms: a warp a row, whose values come from the first-level cache after the first pass.
//
// y = (n·γ + β)·(1 + scale) + shift, with n = (x − mean)/σ. A group of rows shares `shift` and `scale`, which lie `width` apart.

template <int V> __device__ __forceinline__ Pack<V> load_sum(const real* x, const real* add, u64 at) {
    Pack<V> a = load<V>(x + at);
    if (add) {
        const Pack<V> b = load<V>(add + at);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] += b.v[i];
    }
    return a;
}

template <int V> __device__ __forceinline__ Pack<V> load_or(const real* p, u32 column, float otherwise) {
    if (p) return load_any<V>(p + column);
    Pack<V> pack;
#pragma unroll
    for (int i = 0; i < V; i++) pack.v[i] = otherwise;
    return pack;
}

template <int V>
__device__ void norm_of(const real* x, const real* add, const real* gain, const real* bias, const real* modulation, u32 stride, u32 group,
                        real* y, float* statistics, u32 rows, u32 width, float epsilon, int rms) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const u32 lane = threadIdx.x % 32;
    const u64 start = (u64)row * width;
    float mean = 0.0f;
    if (!rms) {
        for (u32 c = lane * V; c < width; c += 32 * V) {
            const Pack<V> a = load_sum<V>(x, add, start + c);
#pragma unroll
            for (int i = 0; i < V; i++) mean += a.v[i];
        }
        mean = warp_sum(mean) / width;
    }
    float square = 0.0f;
    for (u32 c = lane * V; c < width; c += 32 * V) {
        const Pack<V> a = load_sum<V>(x, add, start + c);
#pragma unroll
        for (int i = 0; i < V; i++) square += (a.v[i] - mean) * (a.v[i] - mean);
    }
    const float inverse = 1.0f / sqrtf(warp_sum(square) / width + epsilon);
    if (lane == 0) {
        statistics[2 * (u64)row] = mean;
        statistics[2 * (u64)row + 1] = inverse;
    }
    const real* columns = modulation ? modulation + (u64)(row / group) * stride : nullptr;
    for (u32 c = lane * V; c < width; c += 32 * V) {
        Pack<V> a = load_sum<V>(x, add, start + c);
        const Pack<V> g = load_or<V>(gain, c, 1.0f);
        const Pack<V> b = load_or<V>(bias, c, 0.0f);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] = (a.v[i] - mean) * inverse * g.v[i] + b.v[i];
        if (columns) {
            const Pack<V> shift = load_any<V>(columns + c);
            const Pack<V> scale = load_any<V>(columns + width + c);
#pragma unroll
            for (int i = 0; i < V; i++) a.v[i] = a.v[i] * (1.0f + scale.v[i]) + shift.v[i];
        }
        store<V>(y + start + c, a);
    }
}

extern "C" __global__ void norm_forward(const real* x, const real* add, const real* gain, const real* bias, const real* modulation,
                                        u32 stride, u32 group, real* y, float* statistics, u32 rows, u32 width, float epsilon, int rms,
                                        int wide) {
    if (wide) {
        norm_of<WIDE>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    } else {
        norm_of<1>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    }
}

// dx += the gradient; partial[group][chunk] = [Σ dy | Σ dy·n], from which those of γ, β, shift and scale follow.
//
// A block is a chunk of one group's rows; each of its warps sums in shared memory of its own, each lane the columns that it owns.
template <int V>
__device__ void norm_backward_of(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation,
                                 u32 stride, u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width, int rms) {
    extern __shared__ float sums[];
    const u32 warps = blockDim.x / 32;
    const u32 warp = threadIdx.x / 32;
    const u32 lane = threadIdx.x % 32;
    const u32 group = blockIdx.x / chunks;
    const u32 chunk = blockIdx.x - group * chunks;
    const u32 of_chunk = (group_rows + chunks - 1) / chunks;
    const u32 end = min(group_rows, (chunk + 1) * of_chunk);
    float* mine = sums + warp * 2 * width;
    if (partial) {
        for (u32 c = lane * V; c < width; c += 32 * V) {
#pragma unroll
            for (int i = 0; i < V; i++) mine[c + i] = mine[width + c + i] = 0.0f;
        }
    }
    const real* scales = modulation ? modulation + (u64)group * stride + width : nullptr;
    for (u32 r = chunk * of_chunk + warp; r < end; r += warps) {
        const u64 row = (u64)group * group_rows + r;
        const u64 start = row * width;
        const float mean = statistics[2 * row], inverse = statistics[2 * row + 1];
        float sum = 0.0f, product = 0.0f;
        for (u32 c = lane * V; c < width; c += 32 * V) {
            const Pack<V> a = load_sum<V>(x, add, start + c);
            const Pack<V> d = load<V>(dy + start + c);
            const Pack<V> g = load_or<V>(gain, c, 1.0f);
            const Pack<V> s = load_or<V>(scales, c, 0.0f);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float n = (a.v[i] - mean) * inverse;
                const float dn = d.v[i] * (1.0f + s.v[i]) * g.v[i];
                sum += dn;
                product += dn * n;
                if (partial) {
                    mine[c + i] += d.v[i];
                    mine[width + c + i] += d.v[i] * n;
                }
            }
        }
        sum = rms ? 0.0f : warp_sum(sum) / width;
        product = warp_sum(product) / width;
        for (u32 c = lane * V; c < width; c += 32 * V) {
            const Pack<V> a = load_sum<V>(x, add, start + c);
            const Pack<V> d = load<V>(dy + start + c);
            const Pack<V> g = load_or<V>(gain, c, 1.0f);
            const Pack<V> s = load_or<V>(scales, c, 0.0f);
            Pack<V> out = load<V>(dx + start + c);
#pragma unroll
            for (int i = 0; i < V; i++) {
                const float n = (a.v[i] - mean) * inverse;
                const float dn = d.v[i] * (1.0f + s.v[i]) * g.v[i];
                out.v[i] += inverse * (dn - sum - n * product);
            }
            store<V>(dx + start + c, out);
        }
    }
    if (!partial) return;
    __syncthreads();
    for (u32 c = threadIdx.x; c < 2 * width; c += blockDim.x) {
        float total = 0.0f;
        for (u32 w = 0; w < warps; w++) total += sums[w * 2 * width + c];
        partial[(u64)blockIdx.x * 2 * width + c] = total;
    }
}

extern "C" __global__ void norm_backward(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation,
                                         u32 stride, u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width,
                                         int rms, int wide) {
    if (wide) {
        norm_backward_of<WIDE>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    } else {
        norm_backward_of<1>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    }
}

// Sums a group's chunks, writes the gradients of its shift and scale, and leaves those of β and γ in its first chunk.
extern "C" __global__ void norm_modulation(float* partial, u32 chunks, u32 width, const real* gain, const real* bias,
                                           const real* modulation, real* d_modulation, u32 stride, u32 total) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const u32 group = index / width;
    const u32 column = index - group * width;
    float* mine = partial + (u64)group * chunks * 2 * width + column;
    float sum = 0.0f, product = 0.0f;
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        sum += mine[(u64)chunk * 2 * width];
        product += mine[(u64)chunk * 2 * width + width];
    }
    const u64 at = (u64)group * stride + column;
    const float g = gain ? widen(gain[column]) : 1.0f;
    const float b = bias ? widen(bias[column]) : 0.0f;
    narrow(d_modulation + at, sum);
    narrow(d_modulation + at + width, g * product + b * sum);
    const float scale = 1.0f + widen(modulation[at + width]);
    mine[0] = scale * sum;
    mine[width] = scale * product;
}
