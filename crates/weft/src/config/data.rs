//! `[data.…]` and `[architecture.…]`.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use weft_core::Activation;

/// A table without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// Where examples come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataConfig {
    /// The handwritten digits, 8×8, that are part of the program.
    Digits(Nothing),
    /// A folder of idx files, as MNIST has them.
    Idx(IdxConfig),
    /// An npz file of arrays.
    Npz(NpzConfig),
}

/// `[data.idx]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct IdxConfig {
    /// The folder; a relative one starts at [`data_folder`].
    pub path: PathBuf,
    /// Name of the data set.
    pub name: String,
    /// How many training examples become the validation part, drawn by class with a fixed seed.
    #[serde(default = "five_thousand")]
    pub validation: usize,
}

fn five_thousand() -> usize {
    5_000
}

/// `[data.npz]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NpzConfig {
    /// The file; a relative one starts at [`data_folder`].
    pub path: PathBuf,
}

/// The folder that relative data paths start at: the one that the environment variable `WEFT_DATA` names,
/// else `data` in the current folder.
#[must_use]
pub fn data_folder() -> PathBuf {
    std::env::var_os("WEFT_DATA").filter(|v| !v.is_empty()).map_or_else(|| PathBuf::from("data"), PathBuf::from)
}

impl DataConfig {
    /// The file or folder that is read, if the data are not part of the program.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        let resolve = |path: &Path| data_folder().join(path);
        match self {
            Self::Digits(_) => None,
            Self::Idx(idx) => Some(resolve(&idx.path)),
            Self::Npz(npz) => Some(resolve(&npz.path)),
        }
    }
}

/// What is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArchitectureConfig {
    /// A multi-layer perceptron from the data's features to its classes.
    Mlp(MlpConfig),
    /// An architecture file.
    File(FileConfig),
}

/// `[architecture.mlp]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct MlpConfig {
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// `relu`, `tanh`, `gelu`, `silu` or `sigmoid`.
    #[serde(default = "relu", with = "activation")]
    pub activation: Activation,
}

fn relu() -> Activation {
    Activation::Relu
}

/// An activation as its name.
mod activation {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use weft_core::Activation;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(super) fn serialize<S: Serializer>(activation: &Activation, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(activation.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Activation, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// `[architecture.file]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FileConfig {
    /// An architecture file in TOML, or the name of a built-in architecture; a relative path starts at the current folder.
    pub path: PathBuf,
}
