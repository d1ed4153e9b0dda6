//! Vectorized single-threaded kernels on slices.
//!
//! Each picks the widest vector unit of the machine at run time (AVX-512, AVX2 with FMA, NEON, or scalar code).
//! Every sum is taken in a fixed order, so that a result depends on the machine's vector width alone.

#![expect(clippy::inline_always, reason = "vector code must inline into the function that is compiled for the vector unit")]

mod activation;
mod blocks;
mod conv;
mod dense;
mod loss;
mod norm;
mod optimizer;
mod pool;
mod product;
mod sparse;
mod tanh;

pub use activation::{activate, activate_backward};
pub use blocks::{blocked_len, blocks_from_rows, lanes, rows_from_blocks};
pub use conv::{ConvScratch, ConvShape, conv_backward_input, conv_backward_weight, conv_forward};
pub use dense::{add_bias, matmul, transpose};
pub use loss::{cross_entropy, cross_entropy_gradient};
pub use norm::{
    BATCH_NORM_MOMENTUM, BatchNorm, BatchNormGradient, Moments, batch_norm_infer, batch_norm_infer_backward, batch_norm_train,
    batch_norm_train_backward, layer_norm_backward, layer_norm_forward,
};
pub use optimizer::{OptimizerKernel, OptimizerState};
pub use pool::{PoolShape, Pooling, pool_backward, pool_forward};
pub(crate) use product::product;
pub use product::{MatrixView, Target, product_f32, product_f64};
pub use sparse::{SparseRows, sparse_backward, sparse_forward};

use pulp::Simd;

/// Loads up to one vector; the lanes past the slice are 0.
#[inline(always)]
fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    match S::as_simd_f32s(values) {
        ([vector], []) => *vector,
        _ => simd.partial_load_f32s(values),
    }
}

/// Stores the leading lanes of a vector.
#[inline(always)]
fn store<S: Simd>(simd: S, values: &mut [f32], vector: S::f32s) {
    match S::as_mut_simd_f32s(values) {
        ([slot], []) => *slot = vector,
        (_, _) => simd.partial_store_f32s(values, vector),
    }
}
