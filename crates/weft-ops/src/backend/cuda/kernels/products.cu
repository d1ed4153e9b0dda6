// Centering and conversion around products of the host's matrices.

typedef unsigned long long u64;

// Rows of so many columns, less the mean and over the scale of each column, in f64.
extern "C" __global__ void center_wide(double* out, const float* x, const float* mean, const float* scale, u64 columns, u64 len) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    const u64 c = i % columns;
    out[i] = ((double)x[i] - (double)mean[c]) * (1.0 / (double)scale[c]);
}

// The same in f32, in place.
extern "C" __global__ void center(float* x, const float* mean, const float* scale, u64 columns, u64 len) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    const u64 c = i % columns;
    x[i] = (x[i] - mean[c]) / scale[c];
}

extern "C" __global__ void round_wide(float* out, const double* x, u64 len) {
    const u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < len) out[i] = (float)x[i];
}
