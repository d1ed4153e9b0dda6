// Cross-entropy and squared errors.

// losses[row], in nats times its weight, and the gradient of their sum over a network's rows; `weight` is that of all rows without `weights`. A label that is no class gives no number. A row is that of
// `lanes` neighboring threads, of 256 or a power of two up to 32; the sum of exponentials is taken with its greatest in one pass.
template <int V>
__device__ __forceinline__ void cross_entropy_of(const real* logits, const u32* labels, real* gradient, float* losses, u32 rows,
                                                 u32 classes, float weight, const float* weights, u32 lanes) {
    const u32 row = blockIdx.x * (256 / lanes) + threadIdx.x / lanes;
    const u32 lane = threadIdx.x % lanes;
    const bool valid = row < rows;
    const real* x = logits + (u64)row * classes;
    float largest = -infinity(), sum = 0.0f;
    if (valid) {
        for (u32 c = lane * V; c < classes; c += lanes * V) {
            const Pack<V> a = load<V>(x + c);
            float greatest = largest;
#pragma unroll
            for (int i = 0; i < V; i++) greatest = fmaxf(greatest, a.v[i]);
            // Of −∞ alone, the sum stays 0.
            if (greatest > largest) sum *= exponential(largest - greatest);
            largest = greatest;
#pragma unroll
            for (int i = 0; i < V; i++) sum += exponential(a.v[i] - largest);
        }
    }
    // Sums with their greatest values, of lanes and of warps.
    const auto join = [&](float other_largest, float other_sum) {
        const float greatest = fmaxf(largest, other_largest);
        if (largest < greatest) sum *= exponential(largest - greatest);
        sum += other_largest < greatest ? other_sum * exponential(other_largest - greatest) : other_sum;
        largest = greatest;
    };
    for (u32 i = min(lanes, 32u) / 2; i > 0; i /= 2) {
        const float other_largest = __shfl_xor_sync(0xffffffffu, largest, i), other_sum = __shfl_xor_sync(0xffffffffu, sum, i);
        join(other_largest, other_sum);
    }
    if (lanes > 32) {
        __shared__ float shared[8][2];
        if (threadIdx.x % 32 == 0) {
            shared[threadIdx.x / 32][0] = largest;
            shared[threadIdx.x / 32][1] = sum;
        }
        __syncthreads();
        largest = shared[0][0];
        sum = shared[0][1];
        for (int w = 1; w < 8; w++) join(shared[w][0], shared[w][1]);
    }
    if (!valid) return;
    const u32 label = labels[row];
    if (weights) weight = weights[row];
    const float share = weight / sum;
    for (u32 c = lane * V; c < classes; c += lanes * V) {
        Pack<V> a = load<V>(x + c);
#pragma unroll
        for (int i = 0; i < V; i++) a.v[i] = share * exponential(a.v[i] - largest) - (c + i == label ? weight : 0.0f);
        store<V>(gradient + (u64)row * classes + c, a);
    }
    if (lane == 0) losses[row] = label < classes ? weight * (logf(sum) + largest - widen(x[label])) : not_a_number();
}

extern "C" __global__ void cross_entropy(const real* logits, const u32* labels, real* gradient, float* losses, u32 rows, u32 classes,
                                         float weight, const float* weights, u32 lanes, int wide) {
    if (wide) {
        cross_entropy_of<WIDE>(logits, labels, gradient, losses, rows, classes, weight, weights, lanes);
    } else {
        cross_entropy_of<1>(logits, labels, gradient, losses, rows, classes, weight, weights, lanes);
    }
}

// The sum over a block of 256 threads, in its first thread.
__device__ __forceinline__ float block_sum(float sum) {
    __shared__ float shared[8];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    float total = 0.0f;
    for (int i = 0; i < 8; i++) total += shared[i];
    return total;
}

// A block a network; 256 threads.
extern "C" __global__ void cross_entropy_sum(const float* losses, real* sums, u32 rows) {
    float sum = 0.0f;
    for (u32 row = threadIdx.x; row < rows; row += 256) sum += losses[(u64)blockIdx.x * rows + row];
    const float total = block_sum(sum);
    if (threadIdx.x == 0) narrow(sums + blockIdx.x, total);
}

// The gradient of share * sum of weight * (y - target)^2, and the sums of each block.
extern "C" __global__ void squared_error(const real* y, const real* targets, const float* weights, real* gradient, float* sums, u32 values,
                                         u32 columns, float share) {
    float sum = 0.0f;
    for (u32 i = blockIdx.x * 256 + threadIdx.x; i < values; i += gridDim.x * 256) {
        const float error = widen(y[i]) - widen(targets[i]);
        const float weight = weights ? weights[i / columns] : 1.0f;
        narrow(gradient + i, 2.0f * share * weight * error);
        sum += weight * error * error;
    }
    const float total = block_sum(sum);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Adds share * the sum of all sums; one block of 256 threads.
extern "C" __global__ void add_mean(const float* sums, float* total, u32 count, float share) {
    float sum = 0.0f;
    for (u32 i = threadIdx.x; i < count; i += 256) sum += sums[i];
    const float all = block_sum(sum);
    if (threadIdx.x == 0) total[0] += share * all;
}
