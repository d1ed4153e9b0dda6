// Norms: a warp a row, which it holds in registers if it is short enough.
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

// A lane's columns of a row: packs that it holds in registers, if `K` of them are enough for a row, or else reads again at each pass.
template <int V, int K, class Visit> __device__ __forceinline__ void each_pack(u32 width, const Visit& visit) {
    const u32 lane = threadIdx.x % 32;
    if constexpr (K > 0) {
#pragma unroll
        for (int k = 0; k < K; k++) {
            const u32 column = (lane + k * 32) * V;
            if (column < width) visit(k, column);
        }
    } else {
        for (u32 column = lane * V; column < width; column += 32 * V) visit(0, column);
    }
}

template <int V, int K>
__device__ void norm_of(const real* x, const real* add, const real* gain, const real* bias, const real* modulation, u32 stride, u32 group,
                        real* y, float* statistics, u32 rows, u32 width, float epsilon, int rms) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const u64 start = (u64)row * width;
    Pack<V> held[K > 0 ? K : 1] = {};
    const auto value = [&](int k, u32 column) -> Pack<V> { return K > 0 ? held[k] : load_sum<V>(x, add, start + column); };
    if constexpr (K > 0) each_pack<V, K>(width, [&](int k, u32 column) { held[k] = load_sum<V>(x, add, start + column); });
    float mean = 0.0f;
    if (!rms) {
        each_pack<V, K>(width, [&](int k, u32 column) {
            const Pack<V> a = value(k, column);
#pragma unroll
            for (int i = 0; i < V; i++) mean += a.v[i];
        });
        mean = warp_sum(mean) / width;
    }
    float square = 0.0f;
    each_pack<V, K>(width, [&](int k, u32 column) {
        const Pack<V> a = value(k, column);
#pragma unroll
        for (int i = 0; i < V; i++) square += (a.v[i] - mean) * (a.v[i] - mean);
    });
    const float factor = 1.0f / sqrtf(warp_sum(square) / width + epsilon);
    if (threadIdx.x % 32 == 0) {
        statistics[2 * (u64)row] = mean;
        statistics[2 * (u64)row + 1] = factor;
    }
    const real* columns = modulation ? modulation + (u64)(row / group) * stride : nullptr;
    each_pack<V, K>(width, [&](int k, u32 column) {
        Pack<V> a = value(k, column);
        const Pack<V> g = load_or<V>(gain, column, 1.0f);
        const Pack<V> b = load_or<V>(bias, column, 0.0f);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] = (a.v[i] - mean) * factor * g.v[i] + b.v[i];
        if (columns) {
            const Pack<V> shift = load_any<V>(columns + column);
            const Pack<V> scale = load_any<V>(columns + width + column);
#pragma unroll
            for (int i = 0; i < V; i++) a.v[i] = a.v[i] * (1.0f + scale.v[i]) + shift.v[i];
        }
        store<V>(y + start + column, a);
    });
}

extern "C" __global__ void norm_forward(const real* x, const real* add, const real* gain, const real* bias, const real* modulation,
                                        u32 stride, u32 group, real* y, float* statistics, u32 rows, u32 width, float epsilon, int rms,
                                        int wide) {
    if (wide && width <= 32 * WIDE) {
        norm_of<WIDE, 1>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    } else if (wide && width <= 4 * 32 * WIDE) {
        norm_of<WIDE, 4>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    } else if (wide) {
        norm_of<WIDE, 0>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    } else {
        norm_of<1, 0>(x, add, gain, bias, modulation, stride, group, y, statistics, rows, width, epsilon, rms);
    }
}

// dx += the gradient; partial[group][chunk] = [Σ dy·n | Σ dy], from which those of γ, β, shift and scale follow.
//
// A block is a chunk of one group's rows. Each of its warps sums in shared memory of its own, where value `i` of pack `p` lies at
// `i·(width/V) + p`, so that lanes meet different banks.
template <int V>
__device__ void norm_backward_of(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation,
                                 u32 stride, u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width, int rms) {
    extern __shared__ float sums[];
    const u32 warps = blockDim.x / 32;
    const u32 warp = threadIdx.x / 32;
    const u32 packs = width / V;
    const u32 group = blockIdx.x / chunks;
    const u32 chunk = blockIdx.x - group * chunks;
    const u32 of_chunk = (group_rows + chunks - 1) / chunks;
    const u32 end = min(group_rows, (chunk + 1) * of_chunk);
    float* const mine = sums + warp * 2 * width;
    if (partial) {
        for (u32 c = threadIdx.x % 32; c < 2 * width; c += 32) mine[c] = 0.0f;
        __syncwarp();
    }
    const real* scales = modulation ? modulation + (u64)group * stride + width : nullptr;
    for (u32 r = chunk * of_chunk + warp; r < end; r += warps) {
        const u64 row = (u64)group * group_rows + r;
        const u64 start = row * width;
        const float mean = statistics[2 * row], factor = statistics[2 * row + 1];
        // The normalized value, and the gradient with respect to it.
        Pack<V> normal, upstream;
        const auto fetch = [&](u32 column, Pack<V>& n, Pack<V>& d, bool sum) {
            n = load_sum<V>(x, add, start + column);
            d = load<V>(dy + start + column);
            const Pack<V> g = load_or<V>(gain, column, 1.0f);
            const Pack<V> s = load_or<V>(scales, column, 0.0f);
#pragma unroll
            for (int i = 0; i < V; i++) {
                n.v[i] = (n.v[i] - mean) * factor;
                if (sum) {
                    float* const at = mine + i * packs + column / V;
                    at[0] += d.v[i] * n.v[i];
                    at[width] += d.v[i];
                }
                d.v[i] *= (1.0f + s.v[i]) * g.v[i];
            }
        };
        float sum = 0.0f, product = 0.0f;
        each_pack<V, 0>(width, [&](int, u32 column) {
            fetch(column, normal, upstream, partial != nullptr);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum += upstream.v[i];
                product += upstream.v[i] * normal.v[i];
            }
        });
        sum = rms ? 0.0f : warp_sum(sum) / width;
        product = warp_sum(product) / width;
        each_pack<V, 0>(width, [&](int, u32 column) {
            fetch(column, normal, upstream, false);
            Pack<V> out = load<V>(dx + start + column);
#pragma unroll
            for (int i = 0; i < V; i++) out.v[i] += factor * (upstream.v[i] - sum - normal.v[i] * product);
            store<V>(dx + start + column, out);
        });
    }
    if (!partial) return;
    __syncthreads();
    for (u32 c = threadIdx.x; c < 2 * width; c += blockDim.x) {
        const u32 column = c < width ? c : c - width;
        const u32 at = c - column + column % V * packs + column / V;
        float total = 0.0f;
        for (u32 w = 0; w < warps; w++) total += sums[w * 2 * width + at];
        partial[(u64)blockIdx.x * 2 * width + c] = total;
    }
}

// Rows of any width.
extern "C" __global__ void __launch_bounds__(128, 4)
    norm_backward(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation, u32 stride,
                  u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width, int rms, int wide) {
    if (wide) {
        norm_backward_of<WIDE>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    } else {
        norm_backward_of<1>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    }
}

// The same for rows that `TEAM` warps of a block's four hold in registers, `K` packs a thread: so do they hold the sums over rows, and
// what a group's gradients are multiplied by. All is loaded before the sums over a row are waited for.
template <int V, int K, int TEAM>
__device__ __forceinline__ void norm_backward_team(const real* x, const real* add, const float* statistics, const real* gain,
                                                   const real* modulation, u32 stride, u32 group_rows, u32 chunks, const real* dy,
                                                   real* dx, float* partial, u32 width, int rms) {
    constexpr u32 THREADS = 32 * TEAM, TEAMS = 4 / TEAM;
    __shared__ float shared[2][4][2];
    const u32 team = threadIdx.x / THREADS, member = threadIdx.x % THREADS, warp = threadIdx.x / 32;
    const u32 group = blockIdx.x / chunks, chunk = blockIdx.x - group * chunks;
    const u32 of_chunk = (group_rows + chunks - 1) / chunks;
    const u32 end = min(group_rows, (chunk + 1) * of_chunk);
    const real* scales = modulation ? modulation + (u64)group * stride + width : nullptr;
    Pack<V> slope[K], total[K] = {}, weighted[K] = {};
#pragma unroll
    for (int k = 0; k < K; k++) {
        const u32 column = (member + k * THREADS) * V;
        if (column >= width) continue;
        slope[k] = load_or<V>(gain, column, 1.0f);
        const Pack<V> s = load_or<V>(scales, column, 0.0f);
#pragma unroll
        for (int i = 0; i < V; i++) slope[k].v[i] *= 1.0f + s.v[i];
    }
    int turn = 0;
    for (u32 first = chunk * of_chunk; first < end; first += TEAMS) {
        const bool valid = first + team < end;
        const u64 row = (u64)group * group_rows + first + team;
        const u64 start = row * width;
        Pack<V> normal[K], upstream[K], out[K];
        float sum = 0.0f, product = 0.0f, factor = 0.0f;
        if (valid) {
            const float mean = statistics[2 * row];
            factor = statistics[2 * row + 1];
#pragma unroll
            for (int k = 0; k < K; k++) {
                const u32 column = (member + k * THREADS) * V;
                if (column >= width) continue;
                normal[k] = load_sum<V>(x, add, start + column);
                upstream[k] = load<V>(dy + start + column);
                out[k] = load<V>(dx + start + column);
            }
#pragma unroll
            for (int k = 0; k < K; k++) {
                if ((member + k * THREADS) * V >= width) continue;
#pragma unroll
                for (int i = 0; i < V; i++) {
                    const float n = (normal[k].v[i] - mean) * factor;
                    float d = upstream[k].v[i];
                    total[k].v[i] += d;
                    weighted[k].v[i] += d * n;
                    d *= slope[k].v[i];
                    sum += d;
                    product += d * n;
                    normal[k].v[i] = n;
                    upstream[k].v[i] = d;
                }
            }
        }
        sum = warp_sum(sum);
        product = warp_sum(product);
        if constexpr (TEAM > 1) {
            if (threadIdx.x % 32 == 0) {
                shared[turn][warp][0] = sum;
                shared[turn][warp][1] = product;
            }
            __syncthreads();
            sum = product = 0.0f;
#pragma unroll
            for (u32 w = 0; w < TEAM; w++) {
                sum += shared[turn][team * TEAM + w][0];
                product += shared[turn][team * TEAM + w][1];
            }
            turn ^= 1;
        }
        sum = rms ? 0.0f : sum / width;
        product /= width;
        if (!valid) continue;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const u32 column = (member + k * THREADS) * V;
            if (column >= width) continue;
#pragma unroll
            for (int i = 0; i < V; i++) out[k].v[i] += factor * (upstream[k].v[i] - sum - normal[k].v[i] * product);
            store<V>(dx + start + column, out[k]);
        }
    }
    if (!partial) return;
    if constexpr (TEAMS > 1) {
        __shared__ float held[2 * K * V][128];
#pragma unroll
        for (int k = 0; k < K; k++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                held[2 * (k * V + i)][threadIdx.x] = weighted[k].v[i];
                held[2 * (k * V + i) + 1][threadIdx.x] = total[k].v[i];
            }
        }
        __syncthreads();
        if (team > 0) return;
#pragma unroll
        for (int k = 0; k < K; k++) {
#pragma unroll
            for (int i = 0; i < V; i++) {
                for (u32 t = 1; t < TEAMS; t++) {
                    weighted[k].v[i] += held[2 * (k * V + i)][threadIdx.x + t * THREADS];
                    total[k].v[i] += held[2 * (k * V + i) + 1][threadIdx.x + t * THREADS];
                }
            }
        }
    }
    float* sums = partial + (u64)blockIdx.x * 2 * width;
#pragma unroll
    for (int k = 0; k < K; k++) {
        const u32 column = (member + k * THREADS) * V;
        if (column >= width) continue;
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            *reinterpret_cast<float4*>(sums + column + i) =
                make_float4(weighted[k].v[i], weighted[k].v[i + 1], weighted[k].v[i + 2], weighted[k].v[i + 3]);
            *reinterpret_cast<float4*>(sums + width + column + i) =
                make_float4(total[k].v[i], total[k].v[i + 1], total[k].v[i + 2], total[k].v[i + 3]);
        }
    }
}

// Rows of up to 128 packs, of 16 bytes.
extern "C" __global__ void __launch_bounds__(128, 5)
    norm_backward_short(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation, u32 stride,
                        u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width, int rms) {
    if (width <= 32 * WIDE) {
        norm_backward_team<WIDE, 1, 1>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    } else if (width <= 64 * WIDE) {
        norm_backward_team<WIDE, 1, 2>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    } else {
        norm_backward_team<WIDE, 1, 4>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
    }
}

// Of up to 256.
extern "C" __global__ void __launch_bounds__(128, 4)
    norm_backward_long(const real* x, const real* add, const float* statistics, const real* gain, const real* modulation, u32 stride,
                       u32 group_rows, u32 chunks, const real* dy, real* dx, float* partial, u32 width, int rms) {
    norm_backward_team<WIDE, 2, 4>(x, add, statistics, gain, modulation, stride, group_rows, chunks, dy, dx, partial, width, rms);
}

// Sums a group's chunks, writes the gradients of its shift and scale, and leaves those of γ and β in its first chunk.
extern "C" __global__ void norm_modulation(float* partial, u32 chunks, u32 width, const real* gain, const real* bias,
                                           const real* modulation, real* d_modulation, u32 stride, u32 total) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const u32 group = index / width;
    const u32 column = index - group * width;
    float* mine = partial + (u64)group * chunks * 2 * width + column;
    float sum = 0.0f, product = 0.0f;
    for (u32 chunk = 0; chunk < chunks; chunk++) {
        product += mine[(u64)chunk * 2 * width];
        sum += mine[(u64)chunk * 2 * width + width];
    }
    const u64 at = (u64)group * stride + column;
    const float g = gain ? widen(gain[column]) : 1.0f;
    const float b = bias ? widen(bias[column]) : 0.0f;
    narrow(d_modulation + at, sum);
    narrow(d_modulation + at + width, g * product + b * sum);
    const float scale = 1.0f + widen(modulation[at + width]);
    mine[0] = scale * product;
    mine[width] = scale * sum;
}
