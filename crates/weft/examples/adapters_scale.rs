//! Adapters of the sizes that people train, through the space of their updates and back: time, memory, and whether what was
//! planted is found.
//!
//! ```sh
//! cargo run -p weft --example adapters_scale -- write FOLDER --adapters 100 --layers 32 --width 4096 --rank 16
//! cargo run -p weft --example adapters_scale -- run FOLDER --output NEW --adapters 100 --layers 32 --width 4096 --rank 16
//! ```
//!
//! `write` makes folders of PEFT in bf16 for the attention of a Llama: four square matrices a layer, updates in a subspace of
//! [`DIRECTIONS`] dimensions about a mean, each adapter in a random `GL(r)` gauge, and what is said of each: on which side of the mean it lies in each dimension. `run` is told
//! the same sizes, so that it knows the truth: it learns a generator as `weft adapter learn` does (inner products, components, ridge, flow, and the check on
//! adapters that are left out), samples [`SAMPLED`] new adapters with the flow and one with the ridge and writes them as `weft adapter generate` does, says how far the components found are from those
//! planted, and at the end reads what it wrote and says how much of it lies outside the planted subspace.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use weft::Monitor;
use weft::adapters::codec::{AdapterCodec, Per};
use weft::adapters::generate::{GenerateRequest, Model, generate};
use weft::adapters::learn::{Encoder, Learn, learn};
use weft::adapters::zoo::AdapterZoo;
use weft_codec::adapter::{AdapterSet, Adapters, Combinations, CrossGrams, Factors, Module};
use weft_core::Seed;
use weft_testkit::{PlantedAdapters, PlantedFactors};

/// Dimensions in which the planted updates differ.
const DIRECTIONS: usize = 8;
/// New adapters that the flow makes.
const SAMPLED: usize = 4;
/// Of each dimension, what an adapter is called on either side of the mean.
const WORDS: [[&str; 2]; DIRECTIONS] = [
    ["quick", "slow"],
    ["warm", "cold"],
    ["loud", "quiet"],
    ["bright", "dark"],
    ["round", "square"],
    ["young", "old"],
    ["sweet", "bitter"],
    ["near", "far"],
];
/// What the planted products are multiplied by: alpha is twice the rank.
const SCALING: f64 = 2.0;

const USAGE: &str = "usage: adapters write|run FOLDER [--output NEW] [--adapters 100] [--layers 32] [--width 4096] [--rank 16] [--per adapter|module]";

type Result<T> = std::result::Result<T, Box<dyn Error>>;

struct Options {
    folder: PathBuf,
    output: Option<PathBuf>,
    adapters: usize,
    layers: usize,
    width: usize,
    rank: usize,
    per: Per,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let done = options(arguments).and_then(|options| match command.as_str() {
        "write" => write(&options),
        "run" => run(&options),
        _ => Err(USAGE.into()),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program says what went wrong")]
fn report(error: &dyn Error) {
    eprintln!("error: {error}");
}

#[expect(clippy::print_stdout, reason = "a program says what it measured")]
fn say(text: &str) {
    println!("{text}");
}

fn options(mut arguments: impl Iterator<Item = String>) -> Result<Options> {
    let folder = arguments.next().ok_or(USAGE)?.into();
    let mut options = Options { folder, output: None, adapters: 100, layers: 32, width: 4096, rank: 16, per: Per::Adapter };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(USAGE)?;
        match name.as_str() {
            "--output" => options.output = Some(value.into()),
            "--adapters" => options.adapters = value.parse()?,
            "--layers" => options.layers = value.parse()?,
            "--width" => options.width = value.parse()?,
            "--rank" => options.rank = value.parse()?,
            "--per" => options.per = if value == "module" { Per::Module } else { Per::Adapter },
            _ => return Err(USAGE.into()),
        }
    }
    Ok(options)
}

impl Options {
    /// The modules, in the order of their names.
    fn modules(&self) -> Vec<Module> {
        let name = |layer: usize, letter: &str| format!("model.layers.{layer}.self_attn.{letter}_proj");
        let mut names: Vec<String> =
            (0..self.layers).flat_map(|layer| ["q", "k", "v", "o"].map(|letter| name(layer, letter))).collect();
        names.sort();
        names.into_iter().map(|name| Module { name, fan_out: self.width, fan_in: self.width }).collect()
    }

    fn planted(&self) -> PlantedAdapters {
        let sizes = vec![[self.width; 2]; 4 * self.layers];
        PlantedAdapters::new(&sizes, [self.rank, DIRECTIONS, self.adapters], Seed::new(7))
    }
}

fn bf16(values: &[f32], bytes: &mut Vec<u8>) {
    // To the nearest, ties to even; the values are finite.
    bytes.extend(values.iter().flat_map(|x| {
        let bits = x.to_bits();
        (((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16).to_le_bytes()
    }));
}

fn write(options: &Options) -> Result<()> {
    let (planted, modules, start) = (options.planted(), options.modules(), Instant::now());
    let (r, width) = (options.rank, options.width);
    let (mut bytes_written, mut descriptions) = (0, String::new());
    for adapter in 0..options.adapters {
        let folder = options.folder.join(format!("adapter-{adapter:04}"));
        std::fs::create_dir_all(&folder)?;
        let mut header = String::from("{");
        for (at, module) in modules.iter().enumerate() {
            for (part, shape) in [("A", [r, width]), ("B", [width, r])] {
                let first = (2 * at + usize::from(part == "B")) * 2 * r * width;
                let comma = if header.len() > 1 { "," } else { "" };
                header.push_str(&format_tensor(comma, &module.name, (part, shape), [first, first + 2 * r * width]));
            }
        }
        header.push('}');
        header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        for at in 0..modules.len() {
            let (b, a) = planted.factors(adapter, at);
            bf16(&a, &mut bytes);
            bf16(&b, &mut bytes);
        }
        std::fs::write(folder.join("adapter_model.safetensors"), &bytes)?;
        let _ = writeln!(descriptions, "adapter-{adapter:04}\t{}", description(&planted, adapter));
        let config = format!(
            r#"{{"peft_type":"LORA","base_model_name_or_path":"planted/llama-{width}x{}","r":{r},"lora_alpha":{},"target_modules":["q_proj","k_proj","v_proj","o_proj"]}}"#,
            options.layers,
            SCALING * r as f64
        );
        std::fs::write(folder.join("adapter_config.json"), config)?;
        bytes_written += bytes.len();
    }
    std::fs::write(described(options), descriptions)?;
    say(&format!(
        "wrote {} adapters, {:.2} GB, in {:.1} s",
        options.adapters,
        bytes_written as f64 / 1e9,
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn format_tensor(comma: &str, module: &str, (part, [rows, columns]): (&str, [usize; 2]), [from, to]: [usize; 2]) -> String {
    format!(
        r#"{comma}"base_model.model.{module}.lora_{part}.weight":{{"dtype":"BF16","shape":[{rows},{columns}],"data_offsets":[{from},{to}]}}"#
    )
}

/// Lines of the report: what was done, in how many seconds, how many of a core's that took, and the most memory that the process has held
/// until then.
struct Clock {
    start: Instant,
    last: Instant,
    last_cpu: f64,
}

impl Clock {
    fn lap(&mut self, what: &str) {
        let (now, cpu) = (Instant::now(), cpu_seconds());
        let (wall, core) = ((now - self.last).as_secs_f64(), cpu - self.last_cpu);
        say(&format!("{what:<12} {wall:8.1} s   {core:6.1} s of a core   peak {:6.0} MB", peak_megabytes()));
        (self.last, self.last_cpu) = (now, cpu);
    }
}

/// Seconds that all threads of this process have run, in steps of 10 ms; 0 where the system does not say.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the program's name, which may hold spaces, the 12th and 13th words are ticks of user and system.
    let words = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').skip(11).take(2);
    words.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Peak resident memory of this process, mapped pages included; 0 where the system does not say.
fn peak_megabytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok()).map_or(0.0, |kilobytes| kilobytes / 1e3 * 1.024)
}

/// What is said of an adapter.
fn description(planted: &PlantedAdapters, adapter: usize) -> String {
    let code = &planted.codes()[adapter * DIRECTIONS..(adapter + 1) * DIRECTIONS];
    let words: Vec<&str> = code.iter().zip(WORDS).map(|(z, words)| words[usize::from(*z < 0.0)]).collect();
    words.join(" ")
}

/// The file of descriptions, beside the folder of adapters.
fn described(options: &Options) -> PathBuf {
    options.folder.with_extension("descriptions.tsv")
}

fn run(options: &Options) -> Result<()> {
    let monitor = Monitor::silent();
    let output = options.output.as_deref().ok_or("`--output` names the folder of the generator and of new adapters")?;
    let generator = output.join("generator");
    let mut clock = Clock { start: Instant::now(), last: Instant::now(), last_cpu: cpu_seconds() };
    let components = if options.per == Per::Adapter { DIRECTIONS } else { DIRECTIONS.min(options.rank) };
    let learnt = learn(
        &Learn {
            adapters: options.folder.clone(),
            descriptions: described(options),
            encoder: Encoder::Hashing,
            per: options.per,
            components,
            steps: 1_000,
            width: 256,
            folds: 5,
            seed: 11,
            device: "cpu".to_owned(),
            output: generator.clone(),
        },
        &monitor,
    )?;
    clock.lap("learn");
    let [grams, fits, folds] = learnt.secs;
    say(&format!(
        "  of that     {grams:.1} s inner products, {fits:.1} s components, ridge and flow, {folds:.1} s the check of 5 folds"
    ));
    let text = description(&options.planted(), 0);
    let asked = |to: &str| GenerateRequest::new(&generator, text.as_bytes(), &output.join(to));
    let by_flow =
        GenerateRequest { model: Some(Model::Flow), count: SAMPLED, seed: 5, rank: Some(options.rank), ..asked("by-flow") };
    generate(&by_flow, &monitor)?;
    clock.lap("flow × 4");
    generate(&GenerateRequest { rank: Some(options.rank), ..asked("by-ridge") }, &monitor)?;
    clock.lap("ridge × 1");
    let seconds = clock.start.elapsed().as_secs_f64();
    let zoo = AdapterZoo::open(&options.folder, &monitor)?;
    let values = zoo.num_values();
    let (cpu, billions) = (cpu_seconds(), values as f64 / 1e9);
    say(&format!("{} adapters, {} modules, {:.0} million values", zoo.num_adapters(), zoo.modules().len(), values as f64 / 1e6));
    say(&format!("in all       {seconds:8.1} s   {cpu:6.1} s of a core, {:.1} s a billion values", cpu / billions));
    say(&format!("kept {:.3} % of the variance in {} numbers", learnt.kept_variance * 100.0, learnt.code_len));
    for row in learnt.check.iter().flat_map(|check| &check.evaluation.rows) {
        say(&format!("  foretold   {:6.1} ± {:.1} %   {}", row.accuracy.mean * 100.0, row.accuracy.se * 100.0, row.name));
    }
    drop(zoo);
    check(options, &AdapterCodec::load(&generator.join("codec"), None, &monitor)?, output)
}

/// Compares what was found with what was planted, and says how much of what was written lies outside.
fn check(options: &Options, codec: &AdapterCodec, output: &Path) -> Result<()> {
    let monitor = Monitor::silent();
    let start = Instant::now();
    if options.per == Per::Adapter {
        let planted = options.planted();
        let own = |k: usize| (0..options.modules().len()).map(|at| factors(planted.direction(k, at), options.rank)).collect();
        let truth = AdapterSet::new(options.modules(), (0..DIRECTIONS).map(own).collect())?;
        let cross = CrossGrams::of(&truth, &truth)?.total();
        let between: Vec<f64> = CrossGrams::of(codec.zoo(), &truth)?.total();
        let cosines = weft_codec::adapter::principal_cosines(codec.pca(), codec.grams(), (&between, &cross))?;
        let degrees: Vec<String> = cosines.iter().map(|c| format!("{:.3}", c.clamp(-1.0, 1.0).acos().to_degrees())).collect();
        say(&format!("principal angles to the planted subspace, in degrees: {}", degrees.join(", ")));
    }
    let again = AdapterZoo::open(&output.join("by-flow"), &monitor)?;
    let n = codec.zoo().num_adapters();
    let (products, energies) =
        (CrossGrams::of(&again, codec.zoo())?.total(), again.grams(&weft_core::products::Here, &monitor)?.total());
    let reached = Combinations::of(codec.grams())?;
    let outside = |i: usize| -> Result<String> {
        let energy = energies[i * SAMPLED + i];
        let beyond = reached.beyond(&products[i * n..(i + 1) * n], energy)?;
        Ok(format!("{:.1e}", beyond / energy))
    };
    let outside = (0..SAMPLED).map(outside).collect::<Result<Vec<_>>>()?;
    say(&format!("energy of the flow's adapters that no combination of the others has: {}", outside.join(", ")));
    say(&format!("checked in {:.1} s, peak {:.0} MB", start.elapsed().as_secs_f64(), peak_megabytes()));
    Ok(())
}

fn factors((b, a): PlantedFactors, rank: usize) -> Factors {
    Factors { rank, scaling: SCALING, b, a }
}
