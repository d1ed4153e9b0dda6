//! Learning a generator from adapters that are there.

use super::space::Per;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(crate) struct Learn {
    /// A folder of adapters, one a folder of PEFT, as `weft adapter import` writes it.
    pub(crate) adapters: PathBuf,
    /// What each is for: lines of a name, a tab and a text, or a file of JSON with an object of names and texts; a name may have several.
    #[arg(long, value_name = "FILE")]
    pub(crate) descriptions: PathBuf,
    /// What reads texts: hashing (words and letters), bytes (for languages and scripts), or the folder of a trained encoder such as `MiniLM`.
    #[arg(long, value_name = "ENCODER", default_value = "hashing")]
    pub(crate) encoder: String,
    /// What has components of its own.
    #[arg(long, value_enum, default_value_t = Per::Adapter)]
    pub(crate) per: Per,
    /// The number of components that the flow learns, of whole adapters or of each module, at most.
    #[arg(long, default_value_t = 64)]
    pub(crate) components: usize,
    /// Training steps of the flow.
    #[arg(long, default_value_t = 1000)]
    pub(crate) steps: u64,
    /// Width of its network.
    #[arg(long, default_value_t = 256)]
    pub(crate) width: usize,
    /// Folds of the check on adapters that are left out; 0 leaves it out.
    #[arg(long, default_value_t = 5)]
    pub(crate) folds: usize,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where the flow is trained: cpu, or cuda:0.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// The generator's folder.
    #[arg(short, long, value_name = "GENERATOR")]
    pub(crate) output: PathBuf,
}
