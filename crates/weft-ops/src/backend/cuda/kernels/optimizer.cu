// The optimizer's step: parameters, average, moments, gradient and the copy that is computed with, in one pass.

__device__ __forceinline__ double block_sum(double sum) {
    __shared__ double shared[8];
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    double total = 0.0;
    for (int i = 0; i < 8; i++) total += shared[i];
    return total;
}

// partial[block] = Σ g²; blocks of 256 threads.
extern "C" __global__ void square_sum(const float* gradient, u64 len, double* partial) {
    double sum = 0.0;
    const u64 packs = (len + 3) / 4;
    for (u64 i = (u64)blockIdx.x * 256 + threadIdx.x; i < packs; i += (u64)gridDim.x * 256) {
        if (4 * i + 3 < len) {
            const Pack<4> g = load<4>(gradient + 4 * i);
#pragma unroll
            for (int k = 0; k < 4; k++) sum += (double)g.v[k] * g.v[k];
        } else {
            for (u64 k = 4 * i; k < len; k++) sum += (double)gradient[k] * gradient[k];
        }
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void square_root(const double* partial, u32 count, float* norm) {
    double sum = 0.0;
    for (u32 i = threadIdx.x; i < count; i += 256) sum += partial[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *norm = (float)sqrt(sum);
}

struct Constants {
    int rule; // 0: SGD, 1: SGD with momentum (beta1), 2: Adam
    float scale, rate, decay, shrink, beta1, beta2, root, epsilon, keep;
};

__device__ __forceinline__ void step_one(const Constants& k, float& theta, float& average, float& first, float& second, float gradient) {
    const float g = fmaf(k.decay, theta, k.scale * gradient);
    if (k.rule == 2) {
        first = fmaf(k.beta1, first, (1.0f - k.beta1) * g);
        second = fmaf(k.beta2, second, (1.0f - k.beta2) * g * g);
        theta = fmaf(-k.rate, first / fmaf(sqrtf(second), k.root, k.epsilon), k.shrink * theta);
    } else {
        if (k.rule == 1) first = fmaf(k.beta1, first, g);
        theta = fmaf(-k.rate, k.rule == 1 ? first : g, theta);
    }
    average = fmaf(k.keep, average, (1.0f - k.keep) * theta);
}

__device__ __forceinline__ float4 four(const Pack<4>& p) { return make_float4(p.v[0], p.v[1], p.v[2], p.v[3]); }

// `copy` may be null; `norm` is null where the gradient is not clipped.
extern "C" __global__ void optimizer_step(float* theta, float* average, float* first, float* second, float* gradient, real* copy, u64 len,
                                          const float* norm, float clip, int rule, float rate, float decay, float shrink, float beta1,
                                          float beta2, float root, float epsilon, float keep) {
    float scale = 1.0f;
    if (norm && *norm > clip) scale = clip / *norm;
    const Constants k = {rule, scale, rate, decay, shrink, beta1, beta2, root, epsilon, keep};
    const u64 at = 4 * ((u64)blockIdx.x * blockDim.x + threadIdx.x);
    if (at + 3 < len) {
        Pack<4> t = load<4>(theta + at), a = load<4>(average + at), g = load<4>(gradient + at), m = {}, v = {};
        if (rule > 0) m = load<4>(first + at);
        if (rule == 2) v = load<4>(second + at);
#pragma unroll
        for (int i = 0; i < 4; i++) step_one(k, t.v[i], a.v[i], m.v[i], v.v[i], g.v[i]);
        *reinterpret_cast<float4*>(theta + at) = four(t);
        *reinterpret_cast<float4*>(average + at) = four(a);
        *reinterpret_cast<float4*>(gradient + at) = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (rule > 0) *reinterpret_cast<float4*>(first + at) = four(m);
        if (rule == 2) *reinterpret_cast<float4*>(second + at) = four(v);
#if WEFT_BF16
        *reinterpret_cast<uint2*>(copy + at) = make_uint2(pack2(t.v[0], t.v[1]), pack2(t.v[2], t.v[3]));
#endif
    } else {
        for (u64 i = at; i < len; i++) {
            step_one(k, theta[i], average[i], first[i], second[i], gradient[i]);
            gradient[i] = 0.0f;
#if WEFT_BF16
            narrow(copy + i, theta[i]);
#endif
        }
    }
}

// The copy that is computed with.
extern "C" __global__ void round_all(const float* x, real* y, u64 len) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) narrow(y + i, x[i]);
}
