//! Low-rank adapters: folders of them compared, encoded, decoded and merged.
//!
//! The mathematics is that of [`weft_codec::adapter`]; here adapters come from folders of PEFT and go back into them.

pub mod codec;
pub mod merge;
pub mod zoo;
