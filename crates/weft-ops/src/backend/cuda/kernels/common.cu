// What all kernels share: the type of computation, 16-byte packs of it, sums over a warp, activations.
//
// No header is included, so that nothing but the compiler's library is needed where this is compiled. `WEFT_BF16` chooses the type.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#if WEFT_BF16
struct real {
    u16 bits;
};
constexpr int WIDE = 8; // values of 16 bytes
__device__ __forceinline__ float widen(real x) { return __uint_as_float((u32)x.bits << 16); }
// Two values rounded to nearest, the first in the low half.
__device__ __forceinline__ u32 pack2(float low, float high) {
    u32 packed;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
    return packed;
}
__device__ __forceinline__ void narrow(real* p, float x) { p->bits = (u16)pack2(x, 0.0f); }
#else
typedef float real;
constexpr int WIDE = 4;
__device__ __forceinline__ void narrow(real* p, float x) { *p = x; }
#endif
__device__ __forceinline__ float widen(float x) { return x; }

__device__ __forceinline__ bool aligned(const void* p) { return ((u64)p & 15) == 0; }

// `V` neighboring values; `V` is 1, or as many as 16 bytes hold.
template <int V> struct Pack {
    float v[V];
};

template <int V, class E> __device__ __forceinline__ Pack<V> load(const E* p) {
    Pack<V> pack;
    if constexpr (V == 1) {
        pack.v[0] = widen(*p);
    } else if constexpr (sizeof(E) == 4) {
#pragma unroll
        for (int i = 0; i < V; i += 4) {
            const float4 q = *reinterpret_cast<const float4*>(p + i);
            pack.v[i] = q.x;
            pack.v[i + 1] = q.y;
            pack.v[i + 2] = q.z;
            pack.v[i + 3] = q.w;
        }
    } else {
        const uint4 q = *reinterpret_cast<const uint4*>(p);
        const u32 words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            pack.v[2 * i] = __uint_as_float(words[i] << 16);
            pack.v[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
    }
    return pack;
}

// The same where the address may not be a multiple of 16 bytes: parameters start anywhere.
template <int V, class E> __device__ __forceinline__ Pack<V> load_any(const E* p) {
    if constexpr (V > 1) {
        if (!aligned(p)) {
            Pack<V> pack;
#pragma unroll
            for (int i = 0; i < V; i++) pack.v[i] = widen(p[i]);
            return pack;
        }
    }
    return load<V>(p);
}

template <int V> __device__ __forceinline__ void store(real* p, const Pack<V>& pack) {
    if constexpr (V == 1) {
        narrow(p, pack.v[0]);
    } else {
#if WEFT_BF16
        *reinterpret_cast<uint4*>(p) = make_uint4(pack2(pack.v[0], pack.v[1]), pack2(pack.v[2], pack.v[3]), pack2(pack.v[4], pack.v[5]),
                                                  pack2(pack.v[6], pack.v[7]));
#else
        *reinterpret_cast<float4*>(p) = make_float4(pack.v[0], pack.v[1], pack.v[2], pack.v[3]);
#endif
    }
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(0xffffffffu, x, i);
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
    return x;
}

// eˣ, 1/x: as exact as the type can tell.
#if WEFT_BF16
__device__ __forceinline__ float exponential(float x) { return __expf(x); }
__device__ __forceinline__ float inverse(float x) { return __fdividef(1.0f, x); }
#else
__device__ __forceinline__ float exponential(float x) { return expf(x); }
__device__ __forceinline__ float inverse(float x) { return 1.0f / x; }
#endif

__device__ __forceinline__ float infinity() { return __uint_as_float(0x7f800000u); }
__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }
