// Sums over rows, in an order that does not depend on the run: a block sums a chunk of rows, a second launch sums the chunks.
//
// Blocks are `blockDim.x` packs of columns (a power of two up to 32) × as many rows as make 256 threads.

// Sums a block's rows: thread `t` returns the sum of column `t`, where there is one.
template <int V> __device__ __forceinline__ float sum_rows(const Pack<V>& sum) {
    __shared__ float shared[256 * V];
    const u32 columns = blockDim.x * V;
#pragma unroll
    for (int i = 0; i < V; i++) shared[threadIdx.y * columns + threadIdx.x * V + i] = sum.v[i];
    __syncthreads();
    const u32 mine = threadIdx.y * blockDim.x + threadIdx.x;
    float total = 0.0f;
    if (mine < columns) {
        for (u32 row = 0; row < blockDim.y; row++) total += shared[row * columns + mine];
    }
    return total;
}

// out[batch][chunk][column] = Σ of a chunk's rows; with `accumulate`, there is one chunk and out[batch·out_stride + column] += Σ.
template <class E, int V>
__device__ void column_sum_of(const E* x, u64 row_stride, u64 stride, u32 rows, u32 columns, u32 chunks, float* out, u64 out_stride,
                              int accumulate) {
    const u32 batch = blockIdx.x / chunks;
    const u32 chunk = blockIdx.x - batch * chunks;
    const u32 of_chunk = (rows + chunks - 1) / chunks;
    const u32 end = min(rows, (chunk + 1) * of_chunk);
    const u32 first = blockIdx.y * blockDim.x * V;
    const u32 column = first + threadIdx.x * V;
    Pack<V> sum = {};
    if (column < columns) {
        const E* source = x + batch * stride + column;
#pragma unroll 4
        for (u32 row = chunk * of_chunk + threadIdx.y; row < end; row += blockDim.y) {
            const Pack<V> a = load<V>(source + row * row_stride);
#pragma unroll
            for (int i = 0; i < V; i++) sum.v[i] += a.v[i];
        }
    }
    const float total = sum_rows<V>(sum);
    const u32 mine = threadIdx.y * blockDim.x + threadIdx.x;
    if (mine >= blockDim.x * V || first + mine >= columns) return;
    if (accumulate) {
        out[batch * out_stride + first + mine] += total;
    } else {
        out[(u64)blockIdx.x * columns + first + mine] = total;
    }
}

extern "C" __global__ void column_sum(const real* x, u64 row_stride, u64 stride, u32 rows, u32 columns, u32 chunks, float* out,
                                      u64 out_stride, int accumulate, int wide) {
    if (wide) {
        column_sum_of<real, WIDE>(x, row_stride, stride, rows, columns, chunks, out, out_stride, accumulate);
    } else {
        column_sum_of<real, 1>(x, row_stride, stride, rows, columns, chunks, out, out_stride, accumulate);
    }
}

extern "C" __global__ void column_sum_wide(const float* x, u64 row_stride, u64 stride, u32 rows, u32 columns, u32 chunks, float* out,
                                           u64 out_stride, int accumulate) {
    column_sum_of<float, 1>(x, row_stride, stride, rows, columns, chunks, out, out_stride, accumulate);
}

// d_branch = dy·gate, and partial[group][chunk][column] = Σ dy·branch.
template <int V>
__device__ void gate_backward_of(const real* dy, const real* branch, const real* gate, u32 stride, u32 rows, u32 columns, u32 chunks,
                                 real* d_branch, float* partial) {
    const u32 group = blockIdx.x / chunks;
    const u32 chunk = blockIdx.x - group * chunks;
    const u32 of_chunk = (rows + chunks - 1) / chunks;
    const u32 end = min(rows, (chunk + 1) * of_chunk);
    const u32 first = blockIdx.y * blockDim.x * V;
    const u32 column = first + threadIdx.x * V;
    Pack<V> sum = {};
    if (column < columns) {
        const Pack<V> scale = load_any<V>(gate + (u64)group * stride + column);
#pragma unroll 4
        for (u32 row = chunk * of_chunk + threadIdx.y; row < end; row += blockDim.y) {
            const u64 at = ((u64)group * rows + row) * columns + column;
            Pack<V> g = load<V>(dy + at);
            const Pack<V> b = load<V>(branch + at);
#pragma unroll
            for (int i = 0; i < V; i++) {
                sum.v[i] += g.v[i] * b.v[i];
                g.v[i] *= scale.v[i];
            }
            store<V>(d_branch + at, g);
        }
    }
    const float total = sum_rows<V>(sum);
    const u32 mine = threadIdx.y * blockDim.x + threadIdx.x;
    if (mine >= blockDim.x * V || first + mine >= columns) return;
    partial[(u64)blockIdx.x * columns + first + mine] = total;
}

extern "C" __global__ void gate_backward(const real* dy, const real* branch, const real* gate, u32 stride, u32 rows, u32 columns,
                                         u32 chunks, real* d_branch, float* partial, int wide) {
    if (wide) {
        gate_backward_of<WIDE>(dy, branch, gate, stride, rows, columns, chunks, d_branch, partial);
    } else {
        gate_backward_of<1>(dy, branch, gate, stride, rows, columns, chunks, d_branch, partial);
    }
}

// out[group·stride + column] = Σ over chunks.
extern "C" __global__ void gate_reduce(const float* partial, u32 columns, u32 chunks, real* out, u32 stride, u32 total) {
    const u32 index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= total) return;
    const u32 group = index / columns;
    const u32 column = index - group * columns;
    float sum = 0.0f;
    for (u32 chunk = 0; chunk < chunks; chunk++) sum += partial[((u64)group * chunks + chunk) * columns + column];
    narrow(out + (u64)group * stride + column, sum);
}
