// What both attentions share: where a head's rows lie, and the row sums that a backward pass starts from.
//
// Packed rows are queries of all heads, then keys, then values. Statistics are [b, h, t]. `WEFT_HEAD_DIM` is a head's features.

constexpr int D = WEFT_HEAD_DIM;

struct Shape {
    u32 sequences, tokens, heads, kv_heads;
    int causal;
    float scale;
    const u32* lengths;
};

// The tokens of a sequence that may be seen.
__device__ __forceinline__ u32 length_of(const Shape& s, u32 sequence) {
    return s.lengths ? min(max(s.lengths[sequence], 1u), s.tokens) : s.tokens;
}
__device__ __forceinline__ u64 packed_width(const Shape& s) { return (u64)(s.heads + 2 * s.kv_heads) * D; }
// Where `slot` (a query head, or one of the key or value heads behind them) of a token starts.
__device__ __forceinline__ u64 packed_at(const Shape& s, u32 sequence, u32 token, u32 slot) {
    return ((u64)sequence * s.tokens + token) * packed_width(s) + (u64)slot * D;
}
__device__ __forceinline__ u64 output_at(const Shape& s, u32 sequence, u32 token, u32 head) {
    return (((u64)sequence * s.tokens + token) * s.heads + head) * D;
}
__device__ __forceinline__ u64 statistic_at(const Shape& s, u32 sequence, u32 head) { return ((u64)sequence * s.heads + head) * s.tokens; }

// delta[b, h, t] = Σ y·dy of a head's features.
extern "C" __global__ void attention_delta(const real* y, const real* dy, float* delta,
                                           u32 sequences, u32 tokens, u32 heads, u32 kv_heads, int causal, float scale, const u32* lengths) {
    const Shape s = {sequences, tokens, heads, kv_heads, causal, scale, lengths};
    constexpr int LANES = D / WIDE;
    const u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    const u64 item = index / LANES;
    const bool inside = item < (u64)s.sequences * s.tokens * s.heads;
    float sum = 0.0f;
    if (inside) {
        const Pack<WIDE> a = load<WIDE>(y + index * WIDE), b = load<WIDE>(dy + index * WIDE);
#pragma unroll
        for (int i = 0; i < WIDE; i++) sum += a.v[i] * b.v[i];
    }
#pragma unroll
    for (int i = LANES / 2; i > 0; i >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (inside && index % LANES == 0) {
        const u64 row = item / s.heads;
        delta[statistic_at(s, row / s.tokens, item % s.heads) + row % s.tokens] = sum;
    }
}
