//! Low-rank adapters: folders of them compared, encoded, decoded and merged, and trained over a frozen base, and generated
//! for what none was trained on.
//!
//! The mathematics is that of [`weft_codec::adapter`]; here adapters come from folders of PEFT and go back into them.

pub mod codec;
pub mod generate;
pub mod merge;
pub mod train;
pub mod zoo;
