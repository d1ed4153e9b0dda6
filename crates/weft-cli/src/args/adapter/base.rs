//! Bases of adapters: for Transformers, and what they compute.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// A binary of llama2.c, or another file or folder of a Llama-like decoder's weights.
    pub(crate) weights: PathBuf,
    /// The folder to write; it must not be there.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// Its tokenizer, a file of llama2.c, which is written as tokenizer.json.
    #[arg(long, value_name = "FILE")]
    pub(crate) vocabulary: Option<PathBuf>,
    /// What adapters call it; the file's name, or its folder's, where it is not said.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Its licence as an SPDX expression; what lies beside it says where it is not given.
    #[arg(long, value_name = "SPDX")]
    pub(crate) licence: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logits {
    /// The base: a folder of Transformers, or a file of weights such as a binary of llama2.c.
    pub(crate) base: PathBuf,
    /// An adapter of it.
    #[arg(long, value_name = "DIR")]
    pub(crate) adapter: Option<PathBuf>,
    /// The name that the adapter knows the base by, where the folder has another.
    #[arg(long, value_name = "NAME", requires = "adapter")]
    pub(crate) base_name: Option<String>,
    #[command(flatten)]
    pub(crate) prompt: Prompt,
    /// The tokenizer of --prompt, a file of llama2.c.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub(crate) vocabulary: Option<PathBuf>,
    /// The safetensors file to write: `logits`, a row a token, or an encoder's `vector`.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Prompt {
    /// Tokens by number, as in 1,403,407.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub(crate) tokens: Option<Vec<u32>>,
    /// A text, in front of which the token that starts one is put.
    #[arg(long, value_name = "TEXT", requires = "vocabulary")]
    pub(crate) prompt: Option<String>,
}
