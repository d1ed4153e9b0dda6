// Cross-entropy, a warp a row; and squared errors.

// losses[row], in nats, and the gradient of the mean over a network's rows. A label that is no class gives no number.
extern "C" __global__ void cross_entropy(const real* logits, const u32* labels, real* gradient, float* losses, u32 rows, u32 classes,
                                         float weight) {
    const u32 row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (row >= rows) return;
    const u32 lane = threadIdx.x % 32;
    const real* x = logits + (u64)row * classes;
    real* g = gradient + (u64)row * classes;
    const u32 label = labels[row];
    float largest = -infinity();
    for (u32 c = lane; c < classes; c += 32) largest = fmaxf(largest, widen(x[c]));
    largest = warp_max(largest);
    float sum = 0.0f;
    for (u32 c = lane; c < classes; c += 32) sum += expf(widen(x[c]) - largest);
    sum = warp_sum(sum);
    const float inverse = 1.0f / sum;
    for (u32 c = lane; c < classes; c += 32) {
        const float p = expf(widen(x[c]) - largest) * inverse;
        narrow(g + c, weight * (c == label ? p - 1.0f : p));
    }
    if (lane == 0) losses[row] = label < classes ? logf(sum) + largest - widen(x[label]) : not_a_number();
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
extern "C" __global__ void cross_entropy_mean(const float* losses, real* means, u32 rows) {
    float sum = 0.0f;
    for (u32 row = threadIdx.x; row < rows; row += 256) sum += losses[(u64)blockIdx.x * rows + row];
    const float total = block_sum(sum);
    if (threadIdx.x == 0) narrow(means + blockIdx.x, total / rows);
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
