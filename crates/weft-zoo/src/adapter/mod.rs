//! Low-rank adapters in memory: from every naming that people have, and back into those that their tools load.
//!
//! [`AdapterWeights`] is the one form in between: a list of updates `ΔW = s·B·A` with their values, and tensors that
//! replace others as a whole. [`AdapterWeights::to_lora`] and [`AdapterWeights::from_lora`] lead to the `lora` family
//! and a row of its weights, as codecs and trainers want them.
//!
//! Shapes: `r` the rank, `in` and `out` the axes of the updated map. `A` is r × in, `B` is out × r, both row-major.

mod base;
mod fault;
mod flat;
mod lint;
mod lora;
mod parts;
mod profile;
mod read;
mod turned;
mod weights;
mod write;

pub use base::{BaseModel, Prefix, same_base};
pub use fault::AdapterFault;
pub use lint::{Finding, LintOptions, Runtime, Severity, VLLM_DEFAULT_RANK, lint};
pub use profile::PORTABLE_RANKS;
pub use read::{AdapterFile, AdapterNaming};
pub use turned::rotary_in;
pub use weights::{AdapterUpdate, AdapterWeights, WholeTensor};
pub use write::{AdapterExport, AdapterParent, AdapterProfile, AdapterProvenance, licence_beside, written_files};
