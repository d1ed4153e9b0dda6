// Attention in bf16 on the tensor cores: a warp holds 16 rows and meets the other side's rows in tiles that are copied while it works.
//
// Scores never leave registers; an accumulator of one product has the layout that the next product wants of its left side.
// Legend: `row` and `column` are of a warp's accumulator, 16 × 8 a fragment, of which a lane holds rows lane/4 and lane/4 + 8, columns
// 2(lane%4) and the next.

constexpr int BLOCK = 64;                 // rows of a block: 4 warps of 16
constexpr int THREADS = 128;
constexpr int LINE = D + 8;               // values from one row of a tile to the next, so that 8 of them meet all banks
constexpr int TILE = D == 128 ? 32 : 64;  // rows of the other side in a backward pass, where more registers are needed
constexpr int STEPS = D / 16;
constexpr float LOG2_E = 1.4426950409f;

__device__ __forceinline__ float exp2_fast(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ void load_matrices(u32 (&r)[4], const real* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}

__device__ __forceinline__ void load_transposed(u32 (&r)[4], const real* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p))
                 : "memory");
}

__device__ __forceinline__ void multiply(float (&c)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Starts copying rows to a tile; rows behind the last become zeros.
template <int ROWS> __device__ __forceinline__ void copy_rows(real* tile, const real* rows, u64 stride, u32 valid) {
    for (int i = threadIdx.x; i < ROWS * (D / 8); i += THREADS) {
        const int row = i / (D / 8), column = i % (D / 8) * 8;
        const bool inside = row < valid;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(tile + row * LINE + column)),
                     "l"(inside ? rows + row * stride + column : rows), "r"(inside ? 16 : 0)
                     : "memory");
    }
}

__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most one group of copies is under way, or none.
__device__ __forceinline__ void wait(bool all) {
    if (all) {
        asm volatile("cp.async.wait_group 0;" ::: "memory");
    } else {
        asm volatile("cp.async.wait_group 1;" ::: "memory");
    }
    __syncthreads();
}

__device__ __forceinline__ int lane() { return threadIdx.x % 32; }
__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 * 16; }
__device__ __forceinline__ int row_of(int e) { return warp_row() + lane() / 4 + (e >> 1) * 8; }
__device__ __forceinline__ int column_of(int fragment, int e) { return fragment * 8 + 2 * (lane() % 4) + (e & 1); }

// The left side of a product: 16 rows of a tile, 16 features from `step·16` on.
__device__ __forceinline__ void left_of(u32 (&a)[4], const real* tile, int step) {
    load_matrices(a, tile + (warp_row() + lane() % 16) * LINE + step * 16 + lane() / 16 * 8);
}

// The left side of a product from two fragments of an accumulator.
__device__ __forceinline__ void left_from(u32 (&a)[4], const float (&p)[4], const float (&q)[4]) {
    a[0] = pack2(p[0], p[1]);
    a[1] = pack2(p[2], p[3]);
    a[2] = pack2(q[0], q[1]);
    a[3] = pack2(q[2], q[3]);
}

// c += a·tileᵀ over all features: a column is a row of the tile.
template <int ROWS> __device__ __forceinline__ void multiply_rows(float (&c)[ROWS / 8][4], const real* left, const real* tile) {
    const real* p = tile + (lane() % 8 + lane() / 16 * 8) * LINE + lane() / 8 % 2 * 8;
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        u32 a[4];
        left_of(a, left, step);
#pragma unroll
        for (int pair = 0; pair < ROWS / 16; pair++) {
            u32 b[4];
            load_matrices(b, p + pair * 16 * LINE + step * 16);
            multiply(c[2 * pair], a, b[0], b[1]);
            multiply(c[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

// sum += p·tile over all of its rows: a column is a feature.
template <int ROWS>
__device__ __forceinline__ void multiply_columns(float (&sum)[D / 8][4], const float (&p)[ROWS / 8][4], const real* tile) {
    const real* t = tile + lane() % 16 * LINE + lane() / 16 * 8;
#pragma unroll
    for (int step = 0; step < ROWS / 16; step++) {
        u32 a[4];
        left_from(a, p[2 * step], p[2 * step + 1]);
#pragma unroll
        for (int pair = 0; pair < D / 16; pair++) {
            u32 b[4];
            load_transposed(b, t + step * 16 * LINE + pair * 16);
            multiply(sum[2 * pair], a, b[0], b[1]);
            multiply(sum[2 * pair + 1], a, b[2], b[3]);
        }
    }
}

// Writes the rows of an accumulator that lie before `valid`.
__device__ __forceinline__ void store_rows(real* rows, u64 stride, u32 valid, const float (&sum)[D / 8][4], const float (&factor)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int row = row_of(2 * half);
        if (row >= valid) continue;
#pragma unroll
        for (int i = 0; i < D / 8; i++) {
            *reinterpret_cast<u32*>(rows + row * stride + column_of(i, 0)) =
                pack2(sum[i][2 * half] * factor[half], sum[i][2 * half + 1] * factor[half]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_forward(const real* packed, real* y, float* log_sums,
                      u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    extern __shared__ __align__(16) real shared[];
    real* const keys = shared;
    real* const values = shared + 2 * BLOCK * LINE;
    real* const queries = shared + 4 * BLOCK * LINE;
    const u32 sequence = blockIdx.x % s.sequences, head = blockIdx.y;
    const u32 turn = blockIdx.x / s.sequences;
    const u32 blocks = (s.tokens + BLOCK - 1) / BLOCK;
    const u32 block = s.causal ? blocks - 1 - turn : turn; // the longest first
    const u32 group = head / (s.heads / s.kv_heads);
    const u64 stride = packed_width(s);
    const real* const key_rows = packed + packed_at(s, sequence, 0, s.heads + group);
    const real* const value_rows = packed + packed_at(s, sequence, 0, s.heads + s.kv_heads + group);
    const u32 first = block * BLOCK;
    copy_rows<BLOCK>(queries, packed + packed_at(s, sequence, first, head), stride, s.tokens - first);
    copy_rows<BLOCK>(keys, key_rows, stride, s.tokens);
    copy_rows<BLOCK>(values, value_rows, stride, s.tokens);
    commit();
    const u32 length = length_of(s, sequence);
    const u32 seen_blocks = (length + BLOCK - 1) / BLOCK;
    const u32 tiles = s.causal ? min(block + 1, seen_blocks) : seen_blocks;
    const float scale2 = s.scale * LOG2_E;
    float sum[D / 8][4] = {};
    float largest[2] = {-infinity(), -infinity()}, total[2] = {};
    for (u32 tile = 0; tile < tiles; tile++) {
        const u32 start = tile * BLOCK, next = start + BLOCK;
        const bool last = tile + 1 == tiles;
        if (!last) {
            const int to = (tile + 1) % 2 * BLOCK * LINE;
            copy_rows<BLOCK>(keys + to, key_rows + next * stride, stride, s.tokens - next);
            copy_rows<BLOCK>(values + to, value_rows + next * stride, stride, s.tokens - next);
            commit();
        }
        wait(last);
        float scores[BLOCK / 8][4] = {};
        multiply_rows<BLOCK>(scores, queries, keys + tile % 2 * BLOCK * LINE);
        if (last) {
#pragma unroll
            for (int i = 0; i < BLOCK / 8; i++) {
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const u32 key = start + column_of(i, e);
                    if (key >= length || (s.causal && key > first + row_of(e))) scores[i][e] = -infinity();
                }
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int i = 0; i < BLOCK / 8; i++) most = fmaxf(most, fmaxf(scores[i][2 * half], scores[i][2 * half + 1]));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
            most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
            const float correction = exp2_fast((largest[half] - most) * scale2);
            largest[half] = most;
            total[half] *= correction;
#pragma unroll
            for (int i = 0; i < D / 8; i++) {
                sum[i][2 * half] *= correction;
                sum[i][2 * half + 1] *= correction;
            }
#pragma unroll
            for (int i = 0; i < BLOCK / 8; i++) {
#pragma unroll
                for (int e = 2 * half; e < 2 * half + 2; e++) {
                    scores[i][e] = exp2_fast(fmaf(scores[i][e], scale2, -most * scale2));
                    total[half] += scores[i][e];
                }
            }
        }
        multiply_columns<BLOCK>(sum, scores, values + tile % 2 * BLOCK * LINE);
        __syncthreads();
    }
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 1);
        total[half] += __shfl_xor_sync(0xffffffffu, total[half], 2);
        inverse[half] = 1.0f / total[half];
        const u32 query = first + row_of(2 * half);
        if (lane() % 4 == 0 && query < s.tokens) {
            log_sums[statistic_at(s, sequence, head) + query] = largest[half] * s.scale + logf(total[half]);
        }
    }
    store_rows(y + output_at(s, sequence, first, head), (u64)s.heads * D, s.tokens - first, sum, inverse);
}

// dK and dV: a block of keys walks over all queries that see them, of all heads that share it. Rows are keys, columns queries.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_keys(const real* packed, const real* dy, const float* log_sums, const float* delta, real* d_packed,
                            u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    extern __shared__ __align__(16) real shared[];
    __shared__ float statistics[2][2][TILE];
    real* const keys = shared;
    real* const values = keys + BLOCK * LINE;
    real* const queries = values + BLOCK * LINE;
    real* const gradients = queries + 2 * TILE * LINE;
    const u32 sequence = blockIdx.x % s.sequences, group = blockIdx.y;
    const u32 first = blockIdx.x / s.sequences * BLOCK;
    const u64 stride = packed_width(s), output_stride = (u64)s.heads * D;
    const u32 shared_by = s.heads / s.kv_heads;
    copy_rows<BLOCK>(keys, packed + packed_at(s, sequence, first, s.heads + group), stride, s.tokens - first);
    copy_rows<BLOCK>(values, packed + packed_at(s, sequence, first, s.heads + s.kv_heads + group), stride, s.tokens - first);
    const u32 length = length_of(s, sequence);
    const u32 skipped = s.causal ? first / TILE : 0;
    const u32 of_head = (s.tokens + TILE - 1) / TILE - skipped;
    const auto fetch = [&](u32 turn) {
        const u32 head = group * shared_by + turn / of_head;
        const u32 start = (skipped + turn % of_head) * TILE;
        const int to = turn % 2 * TILE * LINE;
        copy_rows<TILE>(queries + to, packed + packed_at(s, sequence, start, head), stride, s.tokens - start);
        copy_rows<TILE>(gradients + to, dy + output_at(s, sequence, start, head), output_stride, s.tokens - start);
        commit();
        if (threadIdx.x < TILE) {
            const u32 query = start + threadIdx.x;
            const u64 at = statistic_at(s, sequence, head) + query;
            const bool inside = query < s.tokens;
            statistics[turn % 2][0][threadIdx.x] = inside ? log_sums[at] * LOG2_E : infinity();
            statistics[turn % 2][1][threadIdx.x] = inside ? delta[at] : 0.0f;
        }
    };
    const float scale2 = s.scale * LOG2_E;
    float dk[D / 8][4] = {}, dv[D / 8][4] = {};
    const u32 turns = shared_by * of_head;
    fetch(0);
    for (u32 turn = 0; turn < turns; turn++) {
        const bool last = turn + 1 == turns;
        if (!last) fetch(turn + 1);
        wait(last);
        const u32 start = (skipped + turn % of_head) * TILE;
        const real* const q = queries + turn % 2 * TILE * LINE;
        const real* const g = gradients + turn % 2 * TILE * LINE;
        float p[TILE / 8][4] = {}, ds[TILE / 8][4] = {};
        multiply_rows<TILE>(p, keys, q);
        multiply_rows<TILE>(ds, values, g);
        const bool masked = first + BLOCK > length || (s.causal && start < first + BLOCK);
#pragma unroll
        for (int i = 0; i < TILE / 8; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const int column = column_of(i, e);
                p[i][e] = exp2_fast(fmaf(p[i][e], scale2, -statistics[turn % 2][0][column]));
                if (masked && (first + row_of(e) >= length || (s.causal && first + row_of(e) > start + column))) p[i][e] = 0.0f;
                ds[i][e] = p[i][e] * (ds[i][e] - statistics[turn % 2][1][column]);
            }
        }
        multiply_columns<TILE>(dv, p, g);
        multiply_columns<TILE>(dk, ds, q);
        __syncthreads();
    }
    const float scales[2] = {s.scale, s.scale}, ones[2] = {1.0f, 1.0f};
    store_rows(d_packed + packed_at(s, sequence, first, s.heads + group), stride, s.tokens - first, dk, scales);
    store_rows(d_packed + packed_at(s, sequence, first, s.heads + s.kv_heads + group), stride, s.tokens - first, dv, ones);
}

// dQ: a block of queries walks over all keys that it sees. Rows are queries, columns keys.
extern "C" __global__ void __launch_bounds__(THREADS)
    attention_backward_queries(const real* packed, const real* dy, const float* log_sums, const float* delta, real* d_packed,
                            u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    extern __shared__ __align__(16) real shared[];
    real* const queries = shared;
    real* const gradients = queries + BLOCK * LINE;
    real* const keys = gradients + BLOCK * LINE;
    real* const values = keys + 2 * TILE * LINE;
    const u32 sequence = blockIdx.x % s.sequences, head = blockIdx.y;
    const u32 turn = blockIdx.x / s.sequences;
    const u32 blocks = (s.tokens + BLOCK - 1) / BLOCK;
    const u32 first = (s.causal ? blocks - 1 - turn : turn) * BLOCK;
    const u32 group = head / (s.heads / s.kv_heads);
    const u64 stride = packed_width(s);
    const real* const key_rows = packed + packed_at(s, sequence, 0, s.heads + group);
    const real* const value_rows = packed + packed_at(s, sequence, 0, s.heads + s.kv_heads + group);
    copy_rows<BLOCK>(queries, packed + packed_at(s, sequence, first, head), stride, s.tokens - first);
    copy_rows<BLOCK>(gradients, dy + output_at(s, sequence, first, head), (u64)s.heads * D, s.tokens - first);
    const auto fetch = [&](u32 tile) {
        const u32 start = tile * TILE;
        const int to = tile % 2 * TILE * LINE;
        copy_rows<TILE>(keys + to, key_rows + start * stride, stride, s.tokens - start);
        copy_rows<TILE>(values + to, value_rows + start * stride, stride, s.tokens - start);
        commit();
    };
    float log_sum[2], row[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const u32 query = first + row_of(2 * half);
        const u64 at = statistic_at(s, sequence, head) + query;
        log_sum[half] = query < s.tokens ? log_sums[at] * LOG2_E : infinity();
        row[half] = query < s.tokens ? delta[at] : 0.0f;
    }
    const float scale2 = s.scale * LOG2_E;
    const u32 length = length_of(s, sequence);
    const u32 seen = s.causal ? min(length, first + BLOCK) : length;
    const u32 tiles = (seen + TILE - 1) / TILE;
    float dq[D / 8][4] = {};
    fetch(0);
    for (u32 tile = 0; tile < tiles; tile++) {
        const bool last = tile + 1 == tiles;
        if (!last) fetch(tile + 1);
        wait(last);
        const u32 start = tile * TILE;
        const real* const k = keys + tile % 2 * TILE * LINE;
        float p[TILE / 8][4] = {}, ds[TILE / 8][4] = {};
        multiply_rows<TILE>(p, queries, k);
        multiply_rows<TILE>(ds, gradients, values + tile % 2 * TILE * LINE);
        const bool masked = start + TILE > length || (s.causal && start + TILE > first);
#pragma unroll
        for (int i = 0; i < TILE / 8; i++) {
#pragma unroll
            for (int e = 0; e < 4; e++) {
                const u32 key = start + column_of(i, e);
                float value = exp2_fast(fmaf(p[i][e], scale2, -log_sum[e >> 1]));
                if (masked && (key >= length || (s.causal && key > first + row_of(e)))) value = 0.0f;
                ds[i][e] = value * (ds[i][e] - row[e >> 1]);
            }
        }
        multiply_columns<TILE>(dq, ds, k);
        __syncthreads();
    }
    const float scales[2] = {s.scale, s.scale};
    store_rows(d_packed + packed_at(s, sequence, first, head), stride, s.tokens - first, dq, scales);
}
