//! Weights and data on disk: the only door by which they enter Weft.
//!
//! - [`Zoo`]: a folder with `zoo.toml`, `catalogue.sqlite` and `shards/*.safetensors`. Nothing that was
//!   acknowledged is lost, nothing that was half written is seen, and every checkpoint is addressed by the
//!   digest of its weights.
//! - [`read_checkpoint`], [`write_checkpoint`]: single networks as safetensors, in the names and layout that
//!   `PyTorch` users expect; [`import`] brings many into a zoo.
//! - [`read_tensors`], [`write_tensors`]: any other artifact that consists of tensors.
//! - [`architecture_from_toml`], [`recipe_to_json`]: the formats of domain types, which know none themselves.
//! - [`data`]: labelled data sets.
//!
//! Every reader here treats its file as hostile: it checks a header in full before it believes any of it,
//! bounds each allocation before making it, executes nothing, and names what it refuses.

mod atomic;
mod checkpoint;
pub mod data;
mod error;
mod format;
mod header;
mod import;
mod mapped;
mod query;
mod tensors;
mod zoo;

pub use atomic::write_atomic;
pub use checkpoint::{checkpoint_metadata, infer_mlp, read_checkpoint, read_metadata, write_checkpoint};
pub use error::{Error, HeaderFault, Result, TensorFault};
pub use format::{architecture_from_toml, architecture_to_toml, read_architecture, recipe_from_json, recipe_to_json};
pub use import::{Examined, ImportOptions, ImportReport, LabelRule, LabelSource, Refusal, examine, find_checkpoints, import};
pub use query::{Comparison, Expr, Field, Literal, Name, SortKey};
pub use tensors::{Metadata, TensorFile, read_tensors, write_tensors};
pub use zoo::{
    Appended, Entry, Fault, Filter, MergeReport, Purpose, Quantiles, RefusedRecord, SplitOptions, SplitReport, SplitStats, Stats,
    Unreferenced, VerifyReport, Zoo,
};
