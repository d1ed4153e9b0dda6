//! The command line.

pub(crate) mod adapter;
pub(crate) mod arch;
pub(crate) mod zoo;

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
    Arch(arch::Arch),
    /// Look into low-rank adapters, convert, compare, encode and merge them, and bring them onto a server.
    #[command(subcommand)]
    Adapter(adapter::Adapter),
    /// Make and look after zoos of checkpoints.
    #[command(subcommand)]
    Zoo(zoo::Zoo),
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
    /// Where networks are trained and run: auto, cpu, cuda:N, or several GPUs that train together, as in cuda:0,cuda:1.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Replace a key of the run file, such as generator.flow.steps=500; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

impl Settings {
    /// All of them as overrides of a run file.
    pub(crate) fn overrides(&self) -> Vec<String> {
        let device = self.device.iter().map(|device| format!("run.device=\"{device}\""));
        self.set.iter().cloned().chain(device).collect()
    }
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
    /// A field of the condition, such as validation-accuracy=0.95, task=0+3+7, phrase="hey jarvis", examples=FILE.npz or inputs=FILE.npz; may be repeated (with --output).
    #[arg(long, value_name = "FIELD=VALUE", requires = "output", value_parser = field)]
    pub(crate) condition: Vec<(String, String)>,
    /// Which of the run's generators; the refined flow, or the flow if there is no refiner, where it is not said (with --output).
    #[arg(long, requires = "output", value_parser = weft::GeneratorName::ALL.map(weft::GeneratorName::name))]
    pub(crate) generator: Option<String>,
    /// Steer the flow by the labelled examples of this npz file (x, y), through the gradient of their loss (with --output).
    #[arg(long, value_name = "FILE", requires = "output")]
    pub(crate) guide: Option<PathBuf>,
    /// How much they steer; 1 is Bayes' rule (with --guide).
    #[arg(long, value_name = "SCALE", default_value_t = 1.0, requires = "guide")]
    pub(crate) guide_scale: f64,
    /// Keep the best of so many samples (with --by).
    #[arg(long, value_name = "N", requires = "by", requires = "output")]
    pub(crate) best_of: Option<usize>,
    /// What chooses it: accuracy on the validation part or on the examples that show the task, a predictor of accuracy from weights, or agreement (with --best-of).
    #[arg(long, requires = "best_of", value_parser = weft::config::BestBy::ALL.map(weft::config::BestBy::name))]
    pub(crate) by: Option<String>,
    /// Steps from noise to data while they steer; those of the run file where it is not said (with --guide).
    #[arg(long, value_name = "STEPS", requires = "guide")]
    pub(crate) guide_steps: Option<usize>,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected field=value")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure: cpu, cuda:N or auto.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// A short version of every measurement.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Also run another system's loop on the same task.
    #[arg(long, value_enum)]
    pub(crate) peer: Option<Peer>,
    /// Measure these groups alone, separated by commas.
    #[arg(long, value_name = "GROUPS", value_delimiter = ',', value_parser = weft::bench::GROUPS)]
    pub(crate) only: Vec<String>,
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
        let read = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(field("step = 15"), read("step", "15"));
        assert_eq!(field("phrase=a = b"), read("phrase", "a = b"));
        assert!(field("step").is_err());
    }
}
