//! The arguments of `weft arch …`.

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Arch {
    /// List families with their sizes, and built-in architectures.
    Ls,
    /// Show tensors, ops, spaces and the symmetry group.
    Show {
        /// An architecture file, or the name of a built-in architecture.
        architecture: PathBuf,
    },
    /// Check that a file of weights has the tensors of an architecture.
    Check {
        /// The file of weights, or a folder of a sharded checkpoint or an adapter.
        file: PathBuf,
        /// An architecture file, or the name of a built-in architecture.
        #[arg(long, value_name = "NAME|FILE")]
        architecture: PathBuf,
    },
    /// Tell the architecture of a file of weights.
    Infer(Infer),
}

#[derive(Debug, Args)]
pub(crate) struct Infer {
    /// The file of weights, or a folder of a sharded checkpoint or an adapter.
    pub(crate) file: PathBuf,
    /// Write the architecture into this file.
    #[arg(short, long, value_name = "FILE.toml")]
    pub(crate) output: Option<PathBuf>,
    /// The architecture's name.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The activation: relu, tanh, gelu, gelu-tanh, silu or sigmoid.
    #[arg(long)]
    pub(crate) activation: Option<String>,
    /// The number of attention heads.
    #[arg(long)]
    pub(crate) heads: Option<usize>,
    /// Height and width of images.
    #[arg(long, value_name = "HEIGHT,WIDTH", value_parser = image)]
    pub(crate) image: Option<Image>,
}

/// Height and width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) height: usize,
    pub(crate) width: usize,
}

fn image(text: &str) -> Result<Image, String> {
    let parse = |side: &str| side.trim().parse::<usize>().ok().filter(|&side| side > 0);
    let sides = text.split_once(',').and_then(|(height, width)| Some(Image { height: parse(height)?, width: parse(width)? }));
    sides.ok_or_else(|| "expected height,width".to_owned())
}
