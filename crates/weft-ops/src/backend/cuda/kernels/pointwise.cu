// Activations, the ends of linear maps (bias, activation, residual, gate), and sums: one pass over memory each.
//
// Legend: a tensor is rows of `columns` values; `packs` of them in all, of 16 bytes each if `wide`.

constexpr float ROOT_2_OVER_PI = 0.7978845608f;
constexpr float CUBIC = 0.044715f;

__device__ __forceinline__ float sigmoid(float x) { return inverse(1.0f + exponential(-x)); }

// The normal distribution function and, in `bell`, e^(−x²/2), which both it and its density are made of: Abramowitz & Stegun 7.1.26
// (absolute error below 1e-7 after halving).
__device__ __forceinline__ float normal_cdf(float x, float& bell) {
    bell = exponential(-0.5f * x * x);
    const float t = inverse(fmaf(0.3275911f * 0.7071067812f, fabsf(x), 1.0f));
    const float series = t * fmaf(t, fmaf(t, fmaf(t, fmaf(t, 1.061405429f, -1.453152027f), 1.421413741f), -0.284496736f), 0.254829592f);
    const float tail = 0.5f * series * bell;
    return x < 0.0f ? tail : 1.0f - tail;
}

// The order of `kind` is that of `code` in pointwise.rs.
__device__ __forceinline__ float activate(int kind, float x) {
    switch (kind) {
    case 0: return x > 0.0f ? x : 0.0f;
    case 1: return tanhf(x);
    case 2: {
        float bell;
        return x * normal_cdf(x, bell);
    }
    case 3: return x * sigmoid(2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x));
    case 4: return x * sigmoid(x);
    case 5: return sigmoid(x);
    default: return x;
    }
}

__device__ __forceinline__ float derivative(int kind, float x) {
    switch (kind) {
    case 0: return x > 0.0f ? 1.0f : 0.0f;
    case 1: {
        const float y = tanhf(x);
        return 1.0f - y * y;
    }
    case 2: {
        float bell;
        const float below = normal_cdf(x, bell);
        return fmaf(x * 0.3989422804f, bell, below);
    }
    case 3: {
        const float gate = sigmoid(2.0f * ROOT_2_OVER_PI * (x + CUBIC * x * x * x));
        return gate + x * 2.0f * gate * (1.0f - gate) * ROOT_2_OVER_PI * (1.0f + 3.0f * CUBIC * x * x);
    }
    case 4: {
        const float gate = sigmoid(x);
        return gate * (1.0f + x * (1.0f - gate));
    }
    case 5: {
        const float y = sigmoid(x);
        return y * (1.0f - y);
    }
    default: return 1.0f;
    }
}

// x += bias, and out = activation(x) if it is wanted.
template <int V>
__device__ void epilogue_of(real* x, real* out, const real* bias, u64 stride, u32 rows, u32 columns, u32 packs, int kind) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    const u32 of_row = columns / V;
    const u32 row = index / of_row;
    const u32 column = (index - row * of_row) * V;
    Pack<V> a = load<V>(x + (u64)index * V);
    if (bias) {
        const Pack<V> b = load_any<V>(bias + (u64)(row / rows) * stride + column);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] += b.v[i];
        store<V>(x + (u64)index * V, a);
    }
    if (out) {
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] = activate(kind, a.v[i]);
        store<V>(out + (u64)index * V, a);
    }
}

extern "C" __global__ void epilogue(real* x, real* out, const real* bias, u64 stride, u32 rows, u32 columns, u32 packs, int kind,
                                    int wide) {
    if (wide) {
        epilogue_of<WIDE>(x, out, bias, stride, rows, columns, packs, kind);
    } else {
        epilogue_of<1>(x, out, bias, stride, rows, columns, packs, kind);
    }
}

// branch += bias; out = residual + gate·branch. Without a gate, `out` may be `branch`.
template <int V>
__device__ void residual_of(real* branch, real* out, const real* residual, const real* bias, const real* gate, u32 stride, u32 group,
                            u32 columns, u32 packs) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    const u32 of_row = columns / V;
    const u32 row = index / of_row;
    const u32 column = (index - row * of_row) * V;
    Pack<V> a = load<V>(branch + (u64)index * V);
    if (bias) {
        const Pack<V> b = load_any<V>(bias + column);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] += b.v[i];
    }
    const Pack<V> r = load<V>(residual + (u64)index * V);
    if (gate) {
        if (bias) store<V>(branch + (u64)index * V, a);
        const Pack<V> g = load_any<V>(gate + (u64)(row / group) * stride + column);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] *= g.v[i];
    }
#pragma unroll
    for (int i = 0; i < V; i++) a.v[i] += r.v[i];
    store<V>(out + (u64)index * V, a);
}

extern "C" __global__ void residual(real* branch, real* out, const real* residual, const real* bias, const real* gate, u32 stride,
                                    u32 group, u32 columns, u32 packs, int wide) {
    if (wide) {
        residual_of<WIDE>(branch, out, residual, bias, gate, stride, group, columns, packs);
    } else {
        residual_of<1>(branch, out, residual, bias, gate, stride, group, columns, packs);
    }
}

template <int V> __device__ void activate_backward_of(const real* x, real* dy, u32 packs, int kind) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    const Pack<V> a = load<V>(x + (u64)index * V);
    Pack<V> g = load<V>(dy + (u64)index * V);
#pragma unroll
    for (int i = 0; i < V; i++) g.v[i] *= derivative(kind, a.v[i]);
    store<V>(dy + (u64)index * V, g);
}

extern "C" __global__ void activate_backward(const real* x, real* dy, u32 packs, int kind, int wide) {
    if (wide) {
        activate_backward_of<WIDE>(x, dy, packs, kind);
    } else {
        activate_backward_of<1>(x, dy, packs, kind);
    }
}

// y = a(x[..w])·x[w..] of each row; with `dy`, dx instead.
template <int V> __device__ void gated_of(const real* x, const real* dy, real* out, u32 width, u32 packs, int kind) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    const u32 of_row = width / V;
    const u32 row = index / of_row;
    const u64 first = (u64)row * 2 * width + (index - row * of_row) * V;
    const Pack<V> a = load<V>(x + first);
    const Pack<V> b = load<V>(x + first + width);
    Pack<V> p, q;
    if (!dy) {
#pragma unroll
        for (int i = 0; i < V; i++) p.v[i] = activate(kind, a.v[i]) * b.v[i];
        store<V>(out + (u64)index * V, p);
        return;
    }
    const Pack<V> g = load<V>(dy + (u64)index * V);
#pragma unroll
    for (int i = 0; i < V; i++) {
        p.v[i] = g.v[i] * b.v[i] * derivative(kind, a.v[i]);
        q.v[i] = g.v[i] * activate(kind, a.v[i]);
    }
    store<V>(out + first, p);
    store<V>(out + first + width, q);
}

extern "C" __global__ void gated(const real* x, const real* dy, real* out, u32 width, u32 packs, int kind, int wide) {
    if (wide) {
        gated_of<WIDE>(x, dy, out, width, packs, kind);
    } else {
        gated_of<1>(x, dy, out, width, packs, kind);
    }
}

template <int V> __device__ void add_of(real* y, const real* x, u32 packs) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    Pack<V> a = load<V>(y + (u64)index * V);
    const Pack<V> b = load<V>(x + (u64)index * V);
#pragma unroll
    for (int i = 0; i < V; i++) a.v[i] += b.v[i];
    store<V>(y + (u64)index * V, a);
}

extern "C" __global__ void add(real* y, const real* x, u32 packs, int wide) {
    if (wide) {
        add_of<WIDE>(y, x, packs);
    } else {
        add_of<1>(y, x, packs);
    }
}

// Rows of `of_row` packs; one that is asked for must be there.
template <int V> __device__ void gather_of(const real* x, const u32* rows, real* y, u32 of_row, u32 packs) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= packs) return;
    const u32 row = index / of_row;
    const u64 from = ((u64)rows[row] * of_row + (index - row * of_row)) * V;
    store<V>(y + (u64)index * V, load<V>(x + from));
}

extern "C" __global__ void gather(const real* x, const u32* rows, real* y, u32 of_row, u32 packs, int wide) {
    if (wide) {
        gather_of<WIDE>(x, rows, y, of_row, packs);
    } else {
        gather_of<1>(x, rows, y, of_row, packs);
    }
}

// y = keep·y + (1 − keep)·x
extern "C" __global__ void mix(real* y, const real* x, float keep, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < values) narrow(y + index, keep * widen(y[index]) + (1.0f - keep) * widen(x[index]));
}

// Flags [n, c] of what is not 0 somewhere in [n, r, c]; a network has `of_network` values. All that write a flag write the same.
extern "C" __global__ void mark_active(const real* x, float* flags, u32 of_network, u32 channels, u32 values) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= values || widen(x[index]) == 0.0f) return;
    flags[index / of_network * channels + index % channels] = 1.0f;
}
