//! The façade's error: everything that a run can end in, with its kind and what to do about it.

use crate::config::ConfigError;
use std::path::{Path, PathBuf};

/// The result of the façade's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something that was given is wrong.
    Input,
    /// Something that was named is not there.
    Missing,
    /// What is asked for contradicts what is there.
    Conflict,
    /// A defect of this program, or of the machine.
    Internal,
    /// The user stopped it.
    Interrupted,
}

/// Why a stage or a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A run file or override is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A domain value is invalid.
    #[error(transparent)]
    Core(#[from] weft_core::Error),
    /// A zoo, a checkpoint or a data set is refused.
    #[error(transparent)]
    Zoo(#[from] weft_zoo::Error),
    /// Symmetries cannot be derived or removed.
    #[error(transparent)]
    Canon(#[from] weft_canon::Error),
    /// Networks cannot be run or trained.
    #[error(transparent)]
    Net(#[from] weft_net::Error),
    /// A codec cannot be fitted or read.
    #[error(transparent)]
    Codec(#[from] weft_codec::Error),
    /// A generator cannot be trained or sampled.
    #[error(transparent)]
    Gen(#[from] weft_gen::Error),
    /// The evaluation is impossible.
    #[error(transparent)]
    Eval(#[from] weft_eval::Error),
    /// A file or folder of a run's output cannot be used.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried, such as `write`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A stage's folder holds something that no stage wrote.
    #[error("`{}` holds files that no stage of weft wrote", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// A stage's file is not what the stage writes.
    #[error("`{}` is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or folder that was given cannot be used.
    #[error("`{}` cannot be used: {reason}", path.display())]
    Given {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A stage that must be complete is not.
    #[error("the run in `{}` has no complete stage `{stage}`", output.display())]
    NotRun {
        /// The run's output folder.
        output: PathBuf,
        /// The stage's name.
        stage: &'static str,
    },
    /// A zoo, a data set or an architecture does not fit another.
    #[error("{what} does not fit {other}: {reason}")]
    Misfit {
        /// One of the two.
        what: String,
        /// The other.
        other: String,
        /// How they differ.
        reason: String,
    },
    /// A number that cannot be meant.
    #[error("{what} must be {expected}, got {got}")]
    Range {
        /// What the number is.
        what: &'static str,
        /// What is allowed.
        expected: String,
        /// What was given.
        got: String,
    },
    /// The system that is measured beside ours does not run.
    #[error("the peer does not run: {reason}")]
    Peer {
        /// Why.
        reason: String,
    },
    /// A zoo has no such checkpoint.
    #[error("`{}` has no checkpoint whose digest begins with `{digest}`", zoo.display())]
    NoCheckpoint {
        /// The zoo.
        zoo: PathBuf,
        /// The beginning of a digest.
        digest: String,
    },
    /// A condition on checkpoints, a column or a key to sort by cannot be understood.
    #[error("`{text}`, column {column}: {reason}")]
    Condition {
        /// The text.
        text: String,
        /// Where it goes wrong, counted in characters from 1.
        column: usize,
        /// What is wrong there.
        reason: String,
    },
    /// Something needs data where there are none.
    #[error("data are needed: {why}")]
    DataNeeded {
        /// What for.
        why: &'static str,
    },
    /// A stage needs data, and the run file names none.
    #[error("`{stage}` needs data, and the run file names none")]
    RunWithoutData {
        /// The stage.
        stage: &'static str,
    },
    /// Tasks are to be described in words, and no one says how classes are called.
    #[error("tasks are told by `description`, and the run file does not name the classes")]
    WithoutNames,
    /// A network names no task in a zoo whose networks do.
    #[error("run `{run}` names no task, and others of its zoo do")]
    WithoutTask {
        /// The network's run.
        run: String,
    },
    /// A stage judges networks of one task, and the zoo's have several.
    #[error("`{stage}` judges networks of one task, and those of this zoo have many")]
    ManyTasks {
        /// The stage.
        stage: &'static str,
    },
    /// A run lacks the generator that was asked for.
    #[error("this run has no `{generator}`; it has {known}")]
    NoGenerator {
        /// What was asked for.
        generator: &'static str,
        /// What there is.
        known: String,
    },
    /// A stage needs more memory than it may take.
    #[error("`{stage}` needs {} of memory for networks of this size and number, and may take {}", bytes(*needed), bytes(*allowed))]
    Memory {
        /// The stage.
        stage: &'static str,
        /// What it needs, in bytes.
        needed: u64,
        /// What it may take, in bytes.
        allowed: u64,
    },
    /// An adapter cannot be one of a zoo.
    #[error("the adapter `{}` is refused: {reason}", path.display())]
    Adapter {
        /// Its folder.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A codec of adapters has no adapter of a name.
    #[error("the codec was not fitted on an adapter `{name}`")]
    NoAdapter {
        /// The name.
        name: String,
    },
    /// A generator of adapters learnt from no adapter of a name.
    #[error("`{}` learnt from no adapter `{name}`; the nearest names are `{}`", generator.display(), nearest.join("`, `"))]
    NotLearnt {
        /// The name.
        name: String,
        /// The generator's folder.
        generator: PathBuf,
        /// Names that it knows.
        nearest: Vec<String>,
    },
    /// No checkpoint was found to import.
    #[error("no file of weights in {}", paths.iter().map(|p| format!("`{}`", p.display())).collect::<Vec<_>>().join(", "))]
    NothingToImport {
        /// Where they were looked for.
        paths: Vec<PathBuf>,
    },
    /// A zoo refused a network that a stage made.
    #[error("run `{run}`{}: the network cannot be stored: {reason}", step.map(|s| format!(", step {s}")).unwrap_or_default())]
    NotStored {
        /// The network's run.
        run: String,
        /// Its step.
        step: Option<u64>,
        /// Why.
        reason: String,
    },
    /// A transformed network does not compute what the original one does.
    #[error("the function of checkpoint `{digest}` changed: its outputs moved by {moved:.3e} of their size, more than {bound:e}")]
    FunctionChanged {
        /// Digest of the raw checkpoint.
        digest: String,
        /// Relative change of the outputs.
        moved: f64,
        /// The largest that is accepted.
        bound: f64,
    },
    /// A server did not take an adapter.
    #[error("`{target}` does not serve the adapter `{name}`: {reason}; left behind: {left}")]
    Deploy {
        /// The server's address, or the folder.
        target: String,
        /// The adapter's name there.
        name: String,
        /// What it said, or that it said nothing.
        reason: String,
        /// What is left behind.
        left: String,
    },
    /// An adapter that an engine would not load.
    #[error("adapter `{}` is not deployed: {reason}", path.display())]
    NotDeployed {
        /// The adapter.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// An address that is not called.
    #[error("`{url}` is not called: {reason}")]
    Address {
        /// The address.
        url: String,
        /// Why.
        reason: String,
    },
    /// Nothing of what was found in an adapter can be mended.
    #[error("nothing of what is wrong with the adapter `{}` can be mended exactly", path.display())]
    NoFix {
        /// The adapter.
        path: PathBuf,
    },
    /// The user asked for a stop.
    #[error("interrupted during `{stage}`")]
    Interrupted {
        /// The stage that was running.
        stage: &'static str,
    },
}

/// What to do about an adapter that is refused.
fn adapter_hint(fault: &weft_zoo::adapter::AdapterFault) -> Option<String> {
    use weft_zoo::adapter::AdapterFault;
    match fault {
        AdapterFault::OtherBase { got, .. } => {
            Some(format!("if it is the same model under another name, say so: `--base-name {got}`"))
        }
        AdapterFault::Rotary { expected: "interleaved", .. } => Some(
            "`weft adapter base FILE -o DIR` writes the base in the order of Transformers; an adapter in that of llama2.c is brought into it by `weft adapter convert --rotary interleaved --base DIR`".to_owned(),
        ),
        AdapterFault::Rotary { .. } => {
            Some("`weft adapter convert --rotary interleaved --base DIR` brings an adapter into the order of Transformers".to_owned())
        }
        AdapterFault::NotHeld { what, .. } if what.contains("(DoRA)") => {
            Some("with `--base DIR`, magnitudes become plain updates where that is exact; `--profile peft` keeps them".to_owned())
        }
        _ => None,
    }
}

/// An amount of memory, rounded up so that it can be set.
fn bytes(bytes: u64) -> String {
    if bytes < 1_000_000_000 {
        format!("{}MB", bytes.div_ceil(1_000_000))
    } else {
        format!("{:.1}GB", (bytes as f64 / 1e8).ceil() / 10.0)
    }
}

impl Error {
    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config(ConfigError::Read { .. })
            | Self::NotRun { .. }
            | Self::NoCheckpoint { .. }
            | Self::NoAdapter { .. }
            | Self::NotLearnt { .. }
            | Self::NothingToImport { .. }
            | Self::Zoo(
                weft_zoo::Error::NotAZoo { .. } | weft_zoo::Error::DataMissing { .. } | weft_zoo::Error::NoOriginal { .. },
            ) => Kind::Missing,
            Self::Foreign { .. }
            | Self::Deploy { .. }
            | Self::Misfit { .. }
            | Self::Zoo(
                weft_zoo::Error::Occupied { .. }
                | weft_zoo::Error::Differs { .. }
                | weft_zoo::Error::Exists { .. }
                | weft_zoo::Error::OtherFile { .. },
            ) => Kind::Conflict,
            Self::Interrupted { .. }
            | Self::Zoo(weft_zoo::Error::Interrupted)
            | Self::Net(weft_net::Error::Interrupted)
            | Self::Gen(weft_gen::Error::Interrupted)
            | Self::Eval(weft_eval::Error::Stopped) => Kind::Interrupted,
            Self::FunctionChanged { .. } => Kind::Internal,
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Kind::Missing,
            _ => Kind::Input,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            _ if self.is_disk_full() => Some("free some space; the same command goes on where it stopped".to_owned()),
            Self::Config(error) => error.hint(),
            Self::Foreign { path } => Some(format!("choose another output folder, or move `{}` away", path.display())),
            Self::Damaged { path, .. } => Some(format!("remove `{}` and run again: the stage is made anew", path.display())),
            Self::Peer { .. } => {
                Some("`python3 -m venv .venv && .venv/bin/pip install -r bench/requirements.txt`; run from the root".to_owned())
            }
            Self::Condition { .. } => Some("`weft zoo show ZOO DIGEST` shows all fields of a checkpoint".to_owned()),
            Self::NoCheckpoint { zoo, .. } => Some(format!("`weft zoo ls {}` lists them", zoo.display())),
            Self::Zoo(weft_zoo::Error::NotAZoo { .. }) => {
                Some("`weft zoo import PATHS… -o ZOO` makes a zoo of checkpoint files".to_owned())
            }
            Self::Zoo(weft_zoo::Error::OtherFile { .. }) => {
                Some("name the folder as it was imported, or one model for all with `--graph FILE`".to_owned())
            }
            Self::Zoo(weft_zoo::Error::Corrupt { shard: path, .. } | weft_zoo::Error::Header { path, .. }) => {
                let zoo = path.parent().filter(|folder| folder.ends_with("shards")).and_then(Path::parent)?;
                Some(format!("`weft zoo verify {}` lists all that is damaged", zoo.display()))
            }
            Self::Memory { needed, .. } => Some(format!("set `run.memory` to {} or more", bytes(*needed))),
            Self::RunWithoutData { .. } => Some("name some in `[data.…]`, or end the run with `--until sample`".to_owned()),
            Self::ManyTasks { stage: "evaluate.ablation" } => Some("set it to `false`".to_owned()),
            Self::ManyTasks { stage: "sample.best-of" } => Some("leave it out; `evaluate.best-of` measures it for tasks".to_owned()),
            Self::WithoutNames => Some("tasks of a zoo that is there already are told by `{ classes = \"task\" }`; a zoo that is trained names classes in `zoo.train.tasks.subsets.names`".to_owned()),
            Self::NoGenerator { generator: "refined", .. } => Some("`[refiner]` in the run file trains it".to_owned()),
            Self::NoGenerator { generator: "hyper", .. } => Some("`[hyper]` in the run file trains it".to_owned()),
            Self::ManyTasks { stage: "zoo stats --data" } => Some("leave `--data` out: weights alone are measured then".to_owned()),
            Self::DataNeeded { .. } => Some("name some with `--data`: `digits`, a folder of idx files or an npz file".to_owned()),
            Self::NotRun { stage, .. } => Some(format!("`weft run RUN.toml --until {stage}` completes it")),
            Self::Interrupted { .. } | Self::Zoo(weft_zoo::Error::Interrupted) => {
                Some("the same command goes on where it stopped".to_owned())
            }
            Self::NotDeployed { path, .. } => {
                Some(format!("`weft adapter lint {} --for vllm --fix -o DIR` says more and writes a folder that is loaded", path.display()))
            }
            Self::NoFix { path } => Some(format!(
                "with `--base DIR`, magnitudes (DoRA) may be mended; `weft adapter lint {}` says what is wrong",
                path.display()
            )),
            Self::Zoo(weft_zoo::Error::Adapter { fault, .. }) => adapter_hint(fault),
            Self::FunctionChanged { .. } => Some("this is a defect: please report it with the checkpoint".to_owned()),
            _ => None,
        }
    }

    fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            Self::Zoo(error) => error.is_disk_full(),
            _ => false,
        }
    }

    /// Names the stage that a stop fell into, where the crates below could not.
    pub(crate) fn during(self, stage: &'static str) -> Self {
        if self.kind() == Kind::Interrupted { Self::Interrupted { stage } } else { self }
    }

    /// Wraps what the file system said.
    pub(crate) fn io<'a>(action: &'static str, path: &'a Path) -> impl Fn(std::io::Error) -> Self + 'a {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_hints_follow_the_cause() {
        let io = |kind: std::io::ErrorKind| Error::io("read", Path::new("x"))(kind.into());
        assert_eq!(io(std::io::ErrorKind::NotFound).kind(), Kind::Missing);
        assert!(io(std::io::ErrorKind::StorageFull).hint().is_some_and(|h| h.contains("space")));
        let zoo = |source: std::io::Error| weft_zoo::Error::Io { doing: "write", path: "x".into(), source };
        let full = Error::Zoo(zoo(std::io::ErrorKind::StorageFull.into()));
        assert!(full.hint().is_some_and(|h| h.contains("space")));
        assert_eq!(io(std::io::ErrorKind::NotFound).to_string(), "cannot read `x`");
        let digest = weft_core::Digest::of_bytes(b"x");
        let corrupt = weft_zoo::Error::Corrupt { shard: "my/shards/a".into(), row: 0, expected: digest, got: digest };
        assert_eq!(Error::Zoo(corrupt).hint().unwrap(), "`weft zoo verify my` lists all that is damaged");
        assert_eq!(Error::Interrupted { stage: "zoo" }.kind(), Kind::Interrupted);
        assert_eq!(Error::Foreign { path: "x".into() }.kind(), Kind::Conflict);
    }
}
