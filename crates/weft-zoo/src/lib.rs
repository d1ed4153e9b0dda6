//! Weights and data on disk: the only door by which they enter Weft.
//!
//! - [`Zoo`]: a folder with `zoo.toml`, `catalogue.sqlite` and `shards/*.safetensors`. Nothing that was
//!   acknowledged is lost, nothing that was half written is seen, and every checkpoint is addressed by the
//!   digest of its weights.
//! - [`open_sources`]: weights in the formats that people have, one reader for all of them.
//! - [`ExportForm`]: checkpoints out of a zoo, as safetensors, npz, or in the ONNX models that they came from.
//! - [`read_checkpoint`], [`write_checkpoint`]: single networks as safetensors, in the names and layout that
//!   `PyTorch` users expect; [`import`] brings many into a zoo.
//! - [`infer`], [`Binding`]: which architecture a file has, and which of its tensors is which of the architecture's.
//! - [`read_tensors`], [`write_tensors`]: any other artifact that consists of tensors.
//! - [`find_architecture`]: architectures by file or built-in name.
//! - [`architecture_from_toml`], [`recipe_to_json`]: the formats of domain types, which know none themselves.
//! - [`onnx`]: ONNX models, whose graph becomes an architecture; and weights back into the model they came from.
//! - [`adapter`]: low-rank adapters in every naming, and as rows of weights.
//! - [`data`]: labelled data sets, and one text in many languages.
//! - [`Vocabulary`]: the tokenizer of llama2.c.
//!
//! Every reader here treats its file as hostile: it checks a header in full before it believes any of it,
//! bounds each allocation before making it, executes nothing, and names what it refuses.

pub mod adapter;
mod atomic;
mod binding;
mod bounded;
mod checkpoint;
pub mod data;
mod error;
mod export;
mod format;
mod header;
mod import;
mod infer;
mod instances;
mod mapped;
pub mod onnx;
mod pairs;
mod query;
mod rotary;
mod source;
mod staging;
mod tensors;
mod vocabulary;
mod zoo;

pub use atomic::write_atomic;
pub use binding::{Binding, Part, Repeat, StoredTensor};
pub use bounded::read_bounded;
pub use checkpoint::{CheckpointWriter, checkpoint_metadata, read_checkpoint, read_metadata, write_checkpoint};
pub use error::{Error, HeaderFault, Result, TensorFault};
pub use export::{ExportForm, Exported, Graphs, LlamaExport, TensorNames};
pub use format::{
    architecture_from_toml, architecture_to_toml, binding_from_json, binding_from_text, binding_to_json, binding_to_text,
    family_from_toml, family_to_toml, read_architecture, recipe_from_json, recipe_to_json,
};
pub use import::{
    BINDING, Examined, ImportOptions, ImportReport, LabelRule, LabelSource, Refusal, examine, find_checkpoints, import, is_onnx,
};
pub use infer::{Hints, Inferred, infer};
pub use instances::{find_architecture, instance_names, instance_text};
pub use query::{Comparison, Expr, Field, Literal, Name, SortKey};
pub use rotary::{in_transformers_layout, rotary_from_name, rotary_name};
pub use source::{
    Adapter, AdapterKind, AdapterModule, NormalizedNames, Scale, Source, SourceDtype, SourceFault, SourceFormat, SourceTensor,
    normalized_names, open_sources, sha256_of_file,
};
pub use staging::{StagedFolder, refuse_existing, write_folder};
pub use tensors::{Metadata, TensorFile, read_tensors, write_tensors};
pub use vocabulary::Vocabulary;
pub use zoo::{
    Appended, Columns, Entry, Fault, Filter, MergeReport, Purpose, Quantiles, RefusedRecord, SplitOptions, SplitReport, SplitStats,
    Stats, Unreferenced, VerifyReport, Zoo,
};
