//! Fused operations over populations of networks, on slices and as differentiable tensor operations.
//!
//! Three layers:
//!
//! - [`kernels`]: plain functions on slices, vectorized for the machine at run time, single-threaded. On a CPU a
//!   population is run by giving each thread a network of its own, whose weights, gradient and optimizer state
//!   then stay in that core's cache for as long as the network is worked on; this is faster than moving
//!   all networks through memory in lock step. It also makes results independent of the number of threads.
//! - [`backend`]: fused operations on a device's buffers, forward and backward, on all cores of a CPU or on a GPU.
//! - [`tensor`]: networks written against a backend, each one differentiable operation on candle tensors, with their
//!   parameters and optimizer.
//!
//! Shape legend: `n` networks, `b` examples of a batch, `i` inputs and `o` outputs of a linear map. [`kernels`]
//! store a linear weight as `[i, o]`, so that the outputs of one input lie side by side; checkpoints have
//! `[o, i]`, and the conversion is the caller's (`weft-net`).

pub mod backend;
mod error;
pub mod kernels;
pub mod tensor;

pub use error::{Error, Result};
