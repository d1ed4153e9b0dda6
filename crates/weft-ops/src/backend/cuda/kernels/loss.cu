// Cross-entropy: a warp a row.

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

// A block a network; 256 threads.
extern "C" __global__ void cross_entropy_mean(const float* losses, real* means, u32 rows) {
    __shared__ float shared[8];
    float sum = 0.0f;
    for (u32 row = threadIdx.x; row < rows; row += 256) sum += losses[(u64)blockIdx.x * rows + row];
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    float total = 0.0f;
    for (int i = 0; i < 8; i++) total += shared[i];
    narrow(means + blockIdx.x, total / rows);
}
