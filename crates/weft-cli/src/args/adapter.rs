//! The arguments of `weft adapter …`.

pub(crate) mod base;
pub(crate) mod generate;
pub(crate) mod learn;
pub(crate) mod space;

use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum Adapter {
    /// Show what is in an adapter: base, modules, ranks, scalings and norms.
    Show {
        /// A folder of PEFT or diffusers, or a file of diffusers or of kohya's scripts.
        adapter: PathBuf,
        #[command(flatten)]
        base: Base,
    },
    /// Write an adapter in another format, exactly or not at all.
    Convert(Convert),
    /// Take in adapters that were trained elsewhere: folders of PEFT over one base, of the same modules, each once.
    Import {
        /// Adapters (folders of PEFT or diffusers, files of safetensors), or folders of them.
        #[arg(required = true)]
        adapters: Vec<PathBuf>,
        /// The folder to write; it must not be there.
        #[arg(short, long, value_name = "DIR")]
        output: PathBuf,
        #[command(flatten)]
        base: Base,
        /// Leave out adapters that are unsound or do not fit the first sound one, and say which, instead of taking none in.
        #[arg(long)]
        skip_bad: bool,
    },
    /// Write a Llama-like base, such as a binary of llama2.c, as a folder that Transformers and PEFT load.
    Base(base::Export),
    /// Write what a base computes with an adapter: logits of the next token or an encoder's vector, to hold another runtime against.
    Logits(base::Logits),
    /// Say what runtimes refuse in an adapter or silently leave out.
    Lint(Lint),
    /// Bring an adapter onto a running server and see that it answers.
    Deploy(Deploy),
    #[command(flatten)]
    Space(space::Space),
    /// Train adapters over a frozen base, many at once, and measure them beside the base and one adapter of all tasks.
    Train {
        /// A run file, such as `configs/languages.toml`.
        run: PathBuf,
        #[command(flatten)]
        settings: super::Settings,
    },
    /// Learn a generator from adapters that are there and a description of each, and say what descriptions tell of adapters that are left out.
    Learn(learn::Learn),
    /// Make an adapter from some text of what it is to be for.
    Generate(generate::Generate),
}

/// The model that an adapter belongs to.
#[derive(Debug, Args)]
pub(crate) struct Base {
    /// The base model's folder, with weights and config.json; modules and shapes are checked against it.
    #[arg(long, value_name = "DIR")]
    pub(crate) base: Option<PathBuf>,
    /// The name that adapters know the base by, where the folder has another.
    #[arg(long, value_name = "NAME", requires = "base")]
    pub(crate) base_name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Convert {
    /// The adapter.
    pub(crate) adapter: PathBuf,
    /// The file or folder to write; it must not be there.
    #[arg(short, long, value_name = "PATH")]
    pub(crate) output: PathBuf,
    /// What to write: portable (PEFT, one rank, no scaling), peft (as it is), diffusers, kohya or gguf (llama.cpp, with --base).
    #[arg(long, default_value = "portable", value_parser = weft::adapters::AdapterProfile::ALL.map(weft::adapters::AdapterProfile::name))]
    pub(crate) profile: String,
    #[command(flatten)]
    pub(crate) base: Base,
    /// The order of the adapter's rows of queries and keys, where it does not say it: halves (Transformers), or interleaved (llama2.c), which becomes halves (with --base).
    #[arg(long, value_name = "ORDER", value_parser = ["halves", "interleaved"])]
    pub(crate) rotary: Option<String>,
    /// The part of an image pipeline that modules belong to, such as unet (for diffusers and kohya).
    #[arg(long, value_name = "PART")]
    pub(crate) component: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// The adapter.
    pub(crate) adapter: PathBuf,
    /// The runtimes that should load it.
    #[arg(
        long = "for",
        value_name = "RUNTIME",
        value_delimiter = ',',
        default_value = "peft,vllm,llama.cpp",
        value_parser = weft::adapters::Runtime::ALL.map(weft::adapters::Runtime::name)
    )]
    pub(crate) runtimes: Vec<String>,
    #[command(flatten)]
    pub(crate) base: Base,
    /// What vLLM is started with; 16 is its own default.
    #[arg(long, value_name = "RANK")]
    pub(crate) max_lora_rank: Option<usize>,
    /// Write an adapter without the faults that can be mended exactly (with --output).
    #[arg(long, requires = "output")]
    pub(crate) fix: bool,
    /// Where it goes (with --fix).
    #[arg(short, long, value_name = "PATH", requires = "fix")]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The adapter: a folder of PEFT, on files that the server sees under the same path.
    pub(crate) adapter: PathBuf,
    /// vllm=URL, sglang=URL, or the folder of vLLM's resolver; the key of a server is read from `WEFT_API_KEY`.
    #[arg(long, value_name = "TARGET")]
    pub(crate) to: String,
    /// Its name there; the folder's where none is given.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Take the place of an adapter of the same name.
    #[arg(long)]
    pub(crate) replace: bool,
    /// A prompt that the adapter must answer, with one token.
    #[arg(long, value_name = "PROMPT")]
    pub(crate) ask: Option<String>,
    /// Call a server on another machine, unencrypted.
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// How long an answer may take, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: u64,
}
