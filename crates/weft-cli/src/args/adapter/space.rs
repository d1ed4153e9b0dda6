//! Commands in the space of updates: comparing, encoding, decoding and merging.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Space {
    /// Compare the adapters of a folder by their updates: norms and cosines, whatever their factors.
    Gram {
        /// A folder of adapters, one a folder of PEFT.
        folder: PathBuf,
    },
    /// Fit principal components of the updates of a folder's adapters.
    Encode(Encode),
    /// Make adapters of codes.
    Decode(Decode),
    /// Merge adapters into one.
    Merge(Merge),
}

#[derive(Debug, Args)]
pub(crate) struct Encode {
    /// A folder of adapters, one a folder of PEFT.
    pub(crate) folder: PathBuf,
    /// The number of components, of whole adapters or of each module; 8, or as many as there are of fewer, where it is not said.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) rank: Option<usize>,
    /// Keep so many components that they hold this part of the variance.
    #[arg(long, value_name = "FRACTION")]
    pub(crate) keep: Option<f64>,
    /// What has components of its own.
    #[arg(long, value_enum, default_value_t = Per::Adapter)]
    pub(crate) per: Per,
    /// The codec's folder.
    #[arg(short, long, value_name = "CODEC")]
    pub(crate) output: PathBuf,
}

/// What has components of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Per {
    /// Whole adapters.
    Adapter,
    /// Each module.
    Module,
}

#[derive(Debug, Args)]
pub(crate) struct Decode {
    /// The codec's folder.
    pub(crate) codec: PathBuf,
    #[command(flatten)]
    pub(crate) codes: Codes,
    /// The rank of what is decoded; the largest of the codec's adapters if it is left out.
    #[arg(long)]
    pub(crate) rank: Option<usize>,
    /// The folder that the codec's adapters have moved to.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapters: Option<PathBuf>,
    /// The folder to write: an adapter, or of several one a folder in it.
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Codes {
    /// An adapter that the codec was fitted on; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub(crate) adapter: Vec<String>,
    /// A safetensors file with a tensor `codes`, a row a code.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The mean update.
    #[arg(long)]
    pub(crate) mean: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// Adapters, each a folder of PEFT; or one folder of such folders.
    #[arg(required = true)]
    pub(crate) adapters: Vec<PathBuf>,
    /// The method; all but `linear` give the same for any factors of the same updates.
    #[arg(long, value_enum)]
    pub(crate) method: Method,
    /// A weight for each adapter.
    #[arg(long, value_delimiter = ',', allow_negative_numbers = true)]
    pub(crate) weights: Option<Vec<f64>>,
    /// The part of the entries that is kept, for ties (0.2 where it is not said), dare (0.5) and knots (which takes the mean without it).
    #[arg(long)]
    pub(crate) density: Option<f64>,
    /// By what the result is multiplied: for task-arithmetic, ties, dare-linear, dare-ties and knots.
    #[arg(long, allow_negative_numbers = true)]
    pub(crate) scale: Option<f64>,
    /// The place between two adapters, for slerp; 0.5 where it is not said.
    #[arg(long)]
    pub(crate) t: Option<f64>,
    /// The result's rank; the largest of the inputs' if it is left out.
    #[arg(long)]
    pub(crate) rank: Option<usize>,
    /// The seed of what dare drops; 0 where it is not said.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// The folder to write.
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: PathBuf,
}

/// How adapters become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// The mean of updates.
    Mean,
    /// The product of the factors' means; another gauge of an input is another result.
    Linear,
    /// The sum of updates, times the scale.
    TaskArithmetic,
    /// Trim small entries, elect signs, take the mean of those that agree.
    Ties,
    /// Drop random entries, enlarge the others, take the mean.
    DareLinear,
    /// Drop random entries, enlarge the others, elect signs.
    DareTies,
    /// A point on the arc between two adapters.
    Slerp,
    /// Right factors in a basis that all share, their mean or with elected signs.
    Knots,
}
