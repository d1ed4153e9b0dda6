//! Making adapters from some text.

#[derive(Debug, clap::Args)]
pub(crate) struct Generate {
    /// The folder `generator` of a run of `weft adapter train`, or one that `weft adapter learn` wrote.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) generator: std::path::PathBuf,
    #[command(flatten)]
    pub(crate) sample: Sample,
    /// Which model; hyper for a run's generator and ridge for a learnt one where it is not said.
    #[arg(long, value_enum)]
    pub(crate) model: Option<Model>,
    /// How many adapters; all models but the flow make one.
    #[arg(short = 'n', long, default_value_t = 1)]
    pub(crate) count: usize,
    /// The seed.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Make it near the adapter of this training task (a language, a task's title as the run's report has it, or an adapter's name); it is mixed with what the text gives, or (flow) its code is brought to noise and back.
    #[arg(long, value_name = "NAME")]
    pub(crate) like: Option<String>,
    /// How far from it: 0 is its adapter as the codec keeps it, 1 a fresh sample (with --like).
    #[arg(long, value_name = "S", default_value_t = 0.5, requires = "like", allow_negative_numbers = true)]
    pub(crate) strength: f64,
    /// The rank (learnt generators); the largest of the adapters' where it is not said.
    #[arg(long, value_name = "RANK")]
    pub(crate) rank: Option<usize>,
    /// The folder that the adapters have moved to (learnt generators).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) adapters: Option<std::path::PathBuf>,
    /// The folder that the text encoder has moved to (learnt generators with one).
    #[arg(long, value_name = "FOLDER")]
    pub(crate) encoder: Option<std::path::PathBuf>,
    /// The folder to write: an adapter, or of several one a folder in it.
    #[arg(short, long, value_name = "FOLDER")]
    pub(crate) output: std::path::PathBuf,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
pub(crate) struct Sample {
    /// The text itself.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["examples", "like"])]
    pub(crate) prompt: Option<String>,
    /// A file that holds the text.
    #[arg(long, value_name = "FILE")]
    pub(crate) examples: Option<std::path::PathBuf>,
}

/// Which generator makes adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Model {
    /// The hyper-decoder: in one pass, the same for the same text.
    Hyper,
    /// The ridge on updates of a learnt generator: the same for the same text.
    Ridge,
    /// The flow: as many different ones as are asked for.
    Flow,
}
