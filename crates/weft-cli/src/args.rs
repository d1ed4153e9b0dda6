//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Learns from trained networks and samples new ones.
#[derive(Debug, Parser)]
#[command(name = "weft", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Arguments {
    /// How data are printed on stdout.
    #[arg(long, value_enum, global = true, default_value_t = Format::Human)]
    pub(crate) format: Format,
    /// Print nothing on stderr but errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Print each task as it begins.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A form of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Human,
    /// One JSON value.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take small classifiers of handwritten digits through all stages and sample new ones.
    Quickstart(Quickstart),
    /// Run the stages of a run file that are out of date.
    Run(Run),
    /// Show architectures, and tell which one a file has.
    #[command(subcommand)]
    Arch(Arch),
    /// Make and look after zoos of checkpoints.
    #[command(subcommand)]
    Zoo(Zoo),
    /// Stage 2: remove the symmetries of the zoo's networks.
    Canonicalize(StageRun),
    /// Stage 3: fit the codec between canonical weights and codes.
    Encode(StageRun),
    /// Stage 4: train the generator, and the refiner if there is one.
    Train(StageRun),
    /// Stage 4: sample networks, those of the run file or more.
    Sample(Sample),
    /// Stage 5: measure samples against held-out runs and every baseline.
    Evaluate(StageRun),
    /// Stage 5: write sampled networks as files.
    Export(StageRun),
    /// Measure stage throughputs on this machine.
    Bench(Bench),
}

#[derive(Debug, Args)]
pub(crate) struct Quickstart {
    /// Use the networks of this zoo instead of training some.
    #[arg(long, value_name = "ZOO")]
    pub(crate) zoo: Option<PathBuf>,
    /// Folder of all outputs.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Seed of everything random.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// What every command that reads a run file takes.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Where networks are trained and run: auto, cpu or cuda:N.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Replace a key of the run file, such as generator.flow.steps=500; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The run file.
    pub(crate) file: PathBuf,
    /// Stop after this stage.
    #[arg(long, value_name = "STAGE", value_parser = weft::Stage::ALL.map(weft::Stage::name))]
    pub(crate) until: Option<String>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct StageRun {
    /// The run file; stages before this one run if they are out of date.
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Sample {
    /// The run file whose generator samples.
    pub(crate) file: PathBuf,
    /// Write samples of their own into this folder, beside those of the run file.
    #[arg(short, long, value_name = "DIR")]
    pub(crate) output: Option<PathBuf>,
    /// How many networks (with --output).
    #[arg(long, default_value_t = 16, requires = "output")]
    pub(crate) count: usize,
    /// Their seed (with --output).
    #[arg(long, default_value_t = 0, requires = "output")]
    pub(crate) seed: u64,
    /// A field of the condition, such as validation-accuracy=0.95; may be repeated (with --output).
    #[arg(long, value_name = "FIELD=NUMBER", requires = "output", value_parser = field)]
    pub(crate) condition: Vec<(String, f64)>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

fn field(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("expected field=number")?;
    let value = value.trim().parse().map_err(|_| format!("`{value}` is not a number"))?;
    Ok((name.trim().to_owned(), value))
}

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

#[derive(Debug, Subcommand)]
pub(crate) enum Zoo {
    /// Train the zoo of a run file.
    Train(StageRun),
    /// Bring safetensors files into a zoo; what does not fit is refused by name.
    Import(Import),
    /// List checkpoints.
    Ls {
        /// The zoo's folder.
        zoo: PathBuf,
        #[command(flatten)]
        selection: Selection,
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
    /// Write checkpoints as one safetensors file each.
    Export {
        /// The zoo's folder.
        zoo: PathBuf,
        /// Folder of the files.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        selection: Selection,
    },
    /// Compute every digest anew and list all damage.
    Verify {
        /// The zoo's folder.
        zoo: PathBuf,
    },
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

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Files, or folders of .safetensors files.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// The zoo; it is made if it is not there.
    #[arg(short, long, value_name = "ZOO")]
    pub(crate) output: PathBuf,
    /// An architecture file; without it a perceptron is inferred from the shapes.
    #[arg(long, value_name = "FILE")]
    pub(crate) architecture: Option<PathBuf>,
    /// The activation of an inferred perceptron.
    #[arg(long, default_value = "relu", conflicts_with = "architecture")]
    pub(crate) activation: String,
    /// Fraction of the runs that is held out.
    #[arg(long, default_value_t = 0.125)]
    pub(crate) test_fraction: f64,
    /// SPDX licence expression of files that name none.
    #[arg(long, default_value = "unknown")]
    pub(crate) licence: String,
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
    /// At most so many.
    #[arg(long)]
    pub(crate) limit: Option<usize>,
    /// Leave out so many first.
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: usize,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// A short version of every measurement.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also run another system's loop on the same task.
    #[arg(long, value_enum)]
    pub(crate) peer: Option<Peer>,
}

/// A system to measure beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The loops in bench/, which need its requirements installed.
    Pytorch,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn fields_of_conditions() {
        assert_eq!(field("step = 15"), Ok(("step".to_owned(), 15.0)));
        assert!(field("step").is_err() && field("step=many").is_err());
    }
}
