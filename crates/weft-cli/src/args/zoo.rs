//! The arguments of `weft zoo …`.

use super::StageRun;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Zoo {
    /// Train the zoo of a run file.
    Train(StageRun),
    /// Bring files into a zoo; what does not fit is refused by name and the rest goes in.
    Import(Import),
    /// List checkpoints.
    Ls {
        /// The zoo's folder.
        zoo: PathBuf,
        #[command(flatten)]
        selection: Selection,
        /// The fields to show, such as digest,phrase,accuracy,metadata.author; may be repeated.
        #[arg(long, value_name = "FIELD", value_delimiter = ',')]
        columns: Vec<String>,
    },
    /// Show all that is known of one checkpoint.
    Show {
        /// The zoo's folder.
        zoo: PathBuf,
        /// The digest, or its beginning.
        digest: String,
    },
    /// Count checkpoints, sum up their accuracies, and measure the structure that generators bet on.
    Stats(ZooStats),
    /// Write a new zoo with the canonical forms of another's networks, each proved to be the same function.
    Canonicalize(Canonicalize),
    /// List the networks nearest to that of a file, in the quotient by symmetries.
    Nearest {
        /// The zoo's folder.
        zoo: PathBuf,
        /// A file of weights.
        file: PathBuf,
        /// How many.
        #[arg(long, default_value_t = 10)]
        count: usize,
    },
    /// Write checkpoints as one file each: safetensors, npz, or the ONNX models that they came from.
    Export(Export),
    /// Write a new zoo with other splits, such that nothing that belongs together is parted.
    Split(Split),
    /// Write a new zoo with the checkpoints of several.
    Merge(Merge),
    /// Compute every digest anew and list all damage.
    Verify {
        /// The zoo's folder.
        zoo: PathBuf,
        /// Remove shards that no checkpoint names. With an old copy of the catalogue that destroys what newer ones knew.
        #[arg(long)]
        prune: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files, or folders of files.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The zoo; it is made if it is not there.
    #[arg(short, long, value_name = "ZOO")]
    pub(crate) output: PathBuf,
    /// An architecture file, or the name of a built-in one; without it the architecture is told from the first file.
    #[arg(long, value_name = "FILE")]
    pub(crate) architecture: Option<PathBuf>,
    /// The activation, where neither shapes nor settings beside the file tell it.
    #[arg(long, conflicts_with = "architecture")]
    pub(crate) activation: Option<String>,
    /// Fraction of the runs that is held out.
    #[arg(long, default_value_t = 0.125)]
    pub(crate) test_fraction: f64,
    /// SPDX licence expression of files that name none; else the nearest LICENSE file is read.
    #[arg(long, value_name = "SPDX")]
    pub(crate) licence: Option<String>,
    /// Let in these licences alone, such as MIT,Apache-2.0; may be repeated.
    #[arg(long, visible_alias = "licences-allowed", value_name = "SPDX,…", value_delimiter = ',')]
    pub(crate) license: Vec<String>,
    /// A label for every file: KEY=file-stem, KEY=folder, KEY=folder:N (N folders up) or KEY=text; may be repeated.
    #[arg(long, value_name = "KEY=SOURCE")]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Export {
    /// The zoo's folder.
    pub(crate) zoo: PathBuf,
    /// Folder of the files.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What they are written as.
    #[arg(long = "as", value_enum, default_value_t, value_name = "FORM")]
    pub(crate) form: Form,
    /// The names and layout of tensors: the architecture's own, or those of the file that each came from.
    #[arg(long, value_enum, default_value_t, value_name = "WHOSE")]
    pub(crate) names: Names,
    /// With `--as onnx`: the model that takes the weights, for all.
    #[arg(long, value_name = "FILE", conflicts_with = "originals")]
    pub(crate) graph: Option<PathBuf>,
    /// With `--as onnx`: the folder that was imported, which has the model of each.
    #[arg(long, value_name = "DIR")]
    pub(crate) originals: Option<PathBuf>,
    /// One more zoo in which ancestors are looked up, such as that of the training networks; may be repeated.
    #[arg(long, value_name = "ZOO", requires = "originals")]
    pub(crate) ancestors: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) selection: Selection,
}

/// What checkpoints are written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Form {
    /// Safetensors, with all that is known as metadata.
    #[default]
    Safetensors,
    /// Archives of NumPy arrays.
    Npz,
    /// ONNX models.
    Onnx,
}

/// Whose names and layout tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Names {
    /// The architecture's.
    #[default]
    Own,
    /// Those of the file that each came from.
    Original,
}

#[derive(Debug, Args)]
pub(crate) struct Selection {
    /// Runs of one split alone.
    #[arg(long, value_parser = ["train", "test"])]
    pub(crate) split: Option<String>,
    /// The last snapshot of each run alone.
    #[arg(long = "final")]
    pub(crate) final_only: bool,
    /// At least this validation accuracy.
    #[arg(long, value_name = "FRACTION")]
    pub(crate) min_accuracy: Option<f64>,
    /// One run alone.
    #[arg(long)]
    pub(crate) run: Option<String>,
    /// Those for which this holds, such as 'accuracy >= 0.9 and phrase like "hey%" and not synthetic'.
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// Sort by these fields, such as phrase,-accuracy for the best first; may be repeated.
    #[arg(long, value_name = "FIELD", value_delimiter = ',', allow_hyphen_values = true)]
    pub(crate) sort: Vec<String>,
    /// At most so many.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// Leave out so many first.
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Split {
    /// The zoo's folder; it stays as it is.
    pub(crate) zoo: PathBuf,
    /// What no split may part: run, lineage, or a label such as phrase or task.
    #[arg(long, value_name = "KEY")]
    pub(crate) by: String,
    /// Fraction of the checkpoints that is held out.
    #[arg(long, default_value_t = 0.125)]
    pub(crate) test_fraction: f64,
    /// Which ones those are.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// The checkpoints that the new zoo has; see `weft zoo ls --where`.
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// Folder of the new zoo.
    #[arg(short, long, value_name = "ZOO")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Merge {
    /// The zoos' folders; they stay as they are. Of what several know of a checkpoint, the first counts.
    #[arg(required = true)]
    pub(crate) zoos: Vec<PathBuf>,
    /// The checkpoints that the new zoo has; see `weft zoo ls --where`.
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// Folder of the new zoo.
    #[arg(short, long, value_name = "ZOO")]
    pub(crate) output: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Canonicalize {
    /// The zoo's folder; it stays as it is.
    pub(crate) zoo: PathBuf,
    /// What units are matched to.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) align: Align,
    /// By what units count as the same.
    #[arg(long, value_enum, default_value_t)]
    pub(crate) by: By,
    /// Run networks on `digits`, a folder of idx files or an npz file too, beside random inputs.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// Starts of the matching of one network.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) starts: u64,
    /// The seed of starts and random inputs.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Folder of the new zoo.
    #[arg(short, long, value_name = "ZOO")]
    pub(crate) output: PathBuf,
}

/// What units are matched to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Align {
    /// The mean of the training runs, estimated anew until it stays.
    #[default]
    Mean,
    /// Each other, without an anchor.
    Consistent,
    /// The first training run.
    Anchor,
}

/// By what units count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum By {
    /// Their weights.
    #[default]
    Weights,
    /// What they do on training data; needs `--data`.
    Activations,
}

#[derive(Debug, Args)]
pub(crate) struct ZooStats {
    /// The zoo's folder.
    pub(crate) zoo: PathBuf,
    /// Measure accuracies, barriers and sharpness on `digits`, a folder of idx files or an npz file.
    #[arg(long, value_name = "DATA")]
    pub(crate) data: Option<String>,
    /// At most so many networks are measured, the last of training runs; 0 leaves structure out.
    #[arg(long, default_value_t = weft::structure::SAMPLE)]
    pub(crate) sample: usize,
    /// The seed of the sample and of the controls.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
}
