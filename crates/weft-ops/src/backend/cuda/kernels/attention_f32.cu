// Attention in f32 on the ordinary cores: four threads a row, each with a quarter of its features in registers.
//
// Blocks are 32 rows × 4 threads; they walk over tiles of the other side's rows in shared memory.

constexpr int BLOCK = 32;
constexpr int TILE = 16;
constexpr int QUADS = D / 16; // float4s of a thread

struct Part {
    float4 v[QUADS];
};

__device__ __forceinline__ int feature(int part, int i) { return 4 * (4 * i + part); }

__device__ __forceinline__ Part zero_part() {
    Part p;
#pragma unroll
    for (int i = 0; i < QUADS; i++) p.v[i] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    return p;
}

__device__ __forceinline__ Part load_part(const float* row, int part) {
    Part p;
#pragma unroll
    for (int i = 0; i < QUADS; i++) p.v[i] = *reinterpret_cast<const float4*>(row + feature(part, i));
    return p;
}

__device__ __forceinline__ void store_part(float* row, int part, const Part& p, float factor) {
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        const float4 q = p.v[i];
        *reinterpret_cast<float4*>(row + feature(part, i)) = make_float4(q.x * factor, q.y * factor, q.z * factor, q.w * factor);
    }
}

__device__ __forceinline__ void add_part(Part& sum, float factor, const Part& p) {
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        sum.v[i].x = fmaf(factor, p.v[i].x, sum.v[i].x);
        sum.v[i].y = fmaf(factor, p.v[i].y, sum.v[i].y);
        sum.v[i].z = fmaf(factor, p.v[i].z, sum.v[i].z);
        sum.v[i].w = fmaf(factor, p.v[i].w, sum.v[i].w);
    }
}

// The product of two whole rows, in all four threads.
__device__ __forceinline__ float product(const Part& a, const Part& b) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < QUADS; i++) {
        sum = fmaf(a.v[i].x, b.v[i].x, sum);
        sum = fmaf(a.v[i].y, b.v[i].y, sum);
        sum = fmaf(a.v[i].z, b.v[i].z, sum);
        sum = fmaf(a.v[i].w, b.v[i].w, sum);
    }
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
}

// Rows of the other side, zeros behind the last.
__device__ __forceinline__ void load_tile(float (*tile)[D], const float* rows, u64 stride, u32 valid) {
    for (int i = threadIdx.x; i < TILE * D / 4; i += 4 * BLOCK) {
        const int row = i / (D / 4), column = i % (D / 4) * 4;
        float4 q = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (row < valid) q = *reinterpret_cast<const float4*>(rows + row * stride + column);
        *reinterpret_cast<float4*>(&tile[row][column]) = q;
    }
}

extern "C" __global__ void __launch_bounds__(4 * BLOCK)
    attention_forward(const float* packed, float* y, float* log_sums,
                      u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    __shared__ __align__(16) float keys[TILE][D];
    __shared__ __align__(16) float values[TILE][D];
    const u32 sequence = blockIdx.x % s.sequences, head = blockIdx.y;
    const u32 block = blockIdx.x / s.sequences * BLOCK;
    const int part = threadIdx.x % 4;
    const u32 query = block + threadIdx.x / 4;
    const u32 group = head / (s.heads / s.kv_heads);
    const Part q = load_part(packed + packed_at(s, sequence, min(query, s.tokens - 1), head), part);
    Part sum = zero_part();
    float largest = -infinity(), total = 0.0f;
    const u32 length = length_of(s, sequence);
    const u32 end = s.causal ? min(length, block + BLOCK) : length;
    for (u32 start = 0; start < end; start += TILE) {
        __syncthreads();
        load_tile(keys, packed + packed_at(s, sequence, start, s.heads + group), packed_width(s), s.tokens - start);
        load_tile(values, packed + packed_at(s, sequence, start, s.heads + s.kv_heads + group), packed_width(s), s.tokens - start);
        __syncthreads();
        float scores[TILE];
        float most = largest;
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            const u32 key = start + i;
            const float score = s.scale * product(q, load_part(keys[i], part));
            scores[i] = key < length && (!s.causal || key <= query) ? score : -infinity();
            most = fmaxf(most, scores[i]);
        }
        const float correction = expf(largest - most);
        largest = most;
        total *= correction;
#pragma unroll
        for (int i = 0; i < QUADS; i++) {
            sum.v[i].x *= correction;
            sum.v[i].y *= correction;
            sum.v[i].z *= correction;
            sum.v[i].w *= correction;
        }
#pragma unroll
        for (int i = 0; i < TILE; i++) {
            const float p = expf(scores[i] - largest);
            total += p;
            add_part(sum, p, load_part(values[i], part));
        }
    }
    if (query >= s.tokens) return;
    store_part(y + output_at(s, sequence, query, head), part, sum, 1.0f / total);
    if (part == 0) log_sums[statistic_at(s, sequence, head) + query] = largest + logf(total);
}

// dK and dV: a block of keys walks over all queries that see them, of all heads that share it.
extern "C" __global__ void __launch_bounds__(4 * BLOCK)
    attention_backward_keys(const float* packed, const float* dy, const float* log_sums, const float* delta, float* d_packed,
                            u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    __shared__ __align__(16) float queries[TILE][D];
    __shared__ __align__(16) float gradients[TILE][D];
    const u32 sequence = blockIdx.x % s.sequences, group = blockIdx.y;
    const u32 block = blockIdx.x / s.sequences * BLOCK;
    const int part = threadIdx.x % 4;
    const u32 key = block + threadIdx.x / 4;
    const u32 inside = min(key, s.tokens - 1);
    const Part k = load_part(packed + packed_at(s, sequence, inside, s.heads + group), part);
    const Part v = load_part(packed + packed_at(s, sequence, inside, s.heads + s.kv_heads + group), part);
    Part dk = zero_part(), dv = zero_part();
    const u32 shared_by = s.heads / s.kv_heads;
    const u32 length = length_of(s, sequence);
    for (u32 head = group * shared_by; head < (group + 1) * shared_by; head++) {
        const u64 statistics = statistic_at(s, sequence, head);
        for (u32 start = s.causal ? block : 0; start < s.tokens; start += TILE) {
            __syncthreads();
            load_tile(queries, packed + packed_at(s, sequence, start, head), packed_width(s), s.tokens - start);
            load_tile(gradients, dy + output_at(s, sequence, start, head), (u64)s.heads * D, s.tokens - start);
            __syncthreads();
            const u32 valid = min((u32)TILE, s.tokens - start);
            for (u32 i = 0; i < valid; i++) {
                const Part q = load_part(queries[i], part), g = load_part(gradients[i], part);
                const float score = s.scale * product(k, q);
                const float seen = key < length && (!s.causal || key <= start + i) ? 1.0f : 0.0f;
                const float p = seen > 0.0f ? expf(score - log_sums[statistics + start + i]) : 0.0f;
                const float ds = p * (product(v, g) - delta[statistics + start + i]);
                add_part(dv, p, g);
                add_part(dk, ds, q);
            }
        }
    }
    if (key >= s.tokens) return;
    store_part(d_packed + packed_at(s, sequence, key, s.heads + group), part, dk, s.scale);
    store_part(d_packed + packed_at(s, sequence, key, s.heads + s.kv_heads + group), part, dv, 1.0f);
}

// dQ: a block of queries walks over all keys that it sees.
extern "C" __global__ void __launch_bounds__(4 * BLOCK)
    attention_backward_queries(const float* packed, const float* dy, const float* log_sums, const float* delta, float* d_packed,
                            u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    __shared__ __align__(16) float keys[TILE][D];
    __shared__ __align__(16) float values[TILE][D];
    const u32 sequence = blockIdx.x % s.sequences, head = blockIdx.y;
    const u32 block = blockIdx.x / s.sequences * BLOCK;
    const int part = threadIdx.x % 4;
    const u32 query = block + threadIdx.x / 4;
    const u32 inside = min(query, s.tokens - 1);
    const u32 group = head / (s.heads / s.kv_heads);
    const Part q = load_part(packed + packed_at(s, sequence, inside, head), part);
    const Part g = load_part(dy + output_at(s, sequence, inside, head), part);
    const float log_sum = log_sums[statistic_at(s, sequence, head) + inside];
    const float row = delta[statistic_at(s, sequence, head) + inside];
    Part dq = zero_part();
    const u32 length = length_of(s, sequence);
    const u32 end = s.causal ? min(length, block + BLOCK) : length;
    for (u32 start = 0; start < end; start += TILE) {
        __syncthreads();
        load_tile(keys, packed + packed_at(s, sequence, start, s.heads + group), packed_width(s), s.tokens - start);
        load_tile(values, packed + packed_at(s, sequence, start, s.heads + s.kv_heads + group), packed_width(s), s.tokens - start);
        __syncthreads();
        const u32 valid = min((u32)TILE, length - start);
        for (u32 i = 0; i < valid; i++) {
            const Part k = load_part(keys[i], part);
            const float score = s.scale * product(q, k);
            const float p = !s.causal || start + i <= query ? expf(score - log_sum) : 0.0f;
            const float ds = p * (product(g, load_part(values[i], part)) - row);
            add_part(dq, ds, k);
        }
    }
    if (query < s.tokens) store_part(d_packed + packed_at(s, sequence, query, head), part, dq, s.scale);
}
