//! Canonical weights to normalized latents and back.
//!
//! A codec is fitted on the canonical weights of training runs. It turns a row of `D` weights into a code of
//! `k` values with unit variance, which is what generators learn, and back. Two codecs exist:
//!
//! - [`Codec::Identity`] only shifts and scales each weight; nothing is lost.
//! - [`Codec::Pca`] keeps the `k` directions of largest variance: `w = mean + z·M`, one matrix product, so that
//!   a generator can decode inside its loss. See [`Codec::decoder`].
//!
//! [`Span`] is the same PCA for networks too large to be held: its basis is the networks that it was fitted on, read in
//! [`Blocks`] of columns.
//!
//! [`TokenLayout`] cuts the weights of any architecture into tokens, unit by unit, with coordinates and a [`TokenNormalizer`] that carry
//! over to widths and depths that no training network has.
//!
//! [`Ridge`] is the linear map from conditions to codes that generators are compared with.
//!
//! [`adapter`] has all that for low-rank adapters, whose updates are compared, decomposed and merged without being formed.
//!
//! What PCA drops is never silent: [`Codec::reconstruction_error`] gives the loss against rank from one
//! encoding, [`Pca::decode_at_rank`] the networks whose accuracy to measure, [`Codec::residual_variance`] the
//! noise that probabilistic PCA would put back.
//!
//! Everything is computed in fixed blocks with sequential products inside each, so results are the same, bit
//! for bit, at any number of threads.
//!
//! Shapes: `n` networks, `D` weights of one network, `k` the code's length (PCA: the rank).

pub mod adapter;
mod blocks;
mod centered;
mod codec;
mod config;
mod error;
mod linalg;
mod normalize;
mod pca;
mod persist;
mod ridge;
mod span;
mod tokens;

pub use blocks::{Blocks, Geometry, ReadColumns, geometry};
pub use codec::{Codec, Decoder};
pub use config::{CodecConfig, CodecKind, Normalization, Rank, Solver};
pub use error::Error;
pub use normalize::Normalizer;
pub use pca::Pca;
pub use ridge::Ridge;
pub use span::{Give, Span};
pub use tokens::{Directions, Moments, NUM_COORDINATES, TokenLayout, TokenNormalizer, TokenShape};

/// The result of this crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
