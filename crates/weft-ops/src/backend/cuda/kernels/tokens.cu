// Sequences of tokens: rotary positions, means over the tokens that there are; and values times a number.

extern "C" __global__ void scale(const real* x, real* y, float factor, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < values) narrow(y + index, factor * widen(x[index]));
}

// Rows of `from` values as rows of `to`: further ones are 0, or left out.
extern "C" __global__ void resize_rows(const real* x, real* y, u32 from, u32 to, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= values) return;
    const u32 row = index / to, at = index % to;
    narrow(y + index, at < from ? widen(x[(u64)row * from + at]) : 0.0f);
}

// A thread turns one pair of a query or a key: `turned` heads of `pairs` pairs, the first of `columns` values of a row. `sign` is −1 backwards.
extern "C" __global__ void rotate(real* packed, const real* turns, u32 tokens, u32 turned, u32 pairs, u32 columns, float sign,
                                  int interleaved, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= values) return;
    const u32 of_row = turned * pairs;
    const u32 row = index / of_row, head = index % of_row / pairs, pair = index % pairs;
    real* const x = packed + (u64)row * columns + 2 * head * pairs;
    const real* const turn = turns + 2 * ((u64)(row % tokens) * pairs + pair);
    const float sin = sign * widen(turn[0]), cos = widen(turn[1]);
    real* const a = x + (interleaved ? 2 * pair : pair);
    real* const b = x + (interleaved ? 2 * pair + 1 : pair + pairs);
    const float u = widen(*a), v = widen(*b);
    narrow(a, u * cos - v * sin);
    narrow(b, u * sin + v * cos);
}

__device__ __forceinline__ u32 seen_of(const u32* lengths, u32 sequence, u32 tokens) { return min(max(lengths[sequence], 1u), tokens); }

// A thread a sequence and feature.
extern "C" __global__ void mean_tokens(const real* x, const u32* lengths, real* y, u32 tokens, u32 width, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= values) return;
    const u32 sequence = index / width;
    const u32 length = seen_of(lengths, sequence, tokens);
    const real* const first = x + (u64)sequence * tokens * width + index % width;
    float sum = 0.0f;
    for (u32 token = 0; token < length; token++) sum += widen(first[(u64)token * width]);
    narrow(y + index, sum / length);
}

// A thread a value.
extern "C" __global__ void mean_tokens_backward(const real* dy, const u32* lengths, real* dx, u32 tokens, u32 width, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= values) return;
    const u32 row = index / width, sequence = row / tokens;
    const u32 length = seen_of(lengths, sequence, tokens);
    narrow(dx + index, row % tokens < length ? widen(dy[sequence * width + index % width]) / length : 0.0f);
}
