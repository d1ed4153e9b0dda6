//! How much faster many adapters train at once than one at a time: on stories260K's sizes or `MiniLM`'s, with random weights and text.
//!
//! `cargo run --release -p weft-net --example adapters -- [llama|bert] [ADAPTERS] [STEPS] [DEVICE]`

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;
use weft_core::families::{Bert, Family, Llama};
use weft_core::{Duration, Monitor, Optimizer, Recipe, RopePairs, Schedule, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, Base, LoraConfig, Sentences, Windows};

type Error = Box<dyn std::error::Error>;

/// Tokens of a window of text, and windows or sentences of a batch.
const TOKENS: usize = 128;
const BATCH: usize = 4;

fn family(name: &str) -> Result<Family, Error> {
    match name {
        "llama" => Ok(Family::Llama(Llama {
            vocabulary: 512,
            length: 512,
            d_model: 64,
            depth: 5,
            num_heads: 8,
            num_kv_heads: 4,
            d_hidden: 172,
            tied: true,
            theta: 10_000.0,
            pairs: RopePairs::Interleaved,
            epsilon: 1e-5,
        })),
        "bert" => {
            let (vocabulary, length, segments, pooler) = (30_522, 512, 2, true);
            Ok(Family::Bert(Bert { vocabulary, length, segments, d_model: 384, depth: 6, num_heads: 12, d_hidden: 1536, pooler }))
        }
        other => Err(format!("`{other}` is neither `llama` nor `bert`").into()),
    }
}

/// Random text of about 10 KB, or 96 random sentences of 10 classes.
fn task(base: &Base, seed: Seed) -> Result<AdapterTask, Error> {
    let sentence = |seed: Seed, len| seed.indices(len, base.vocabulary());
    if base.is_decoder() {
        return Ok(AdapterTask::Text(Windows::new(&[sentence(seed, 6_000)], 1, TOKENS)?));
    }
    let names = (0..10).map(|i| sentence(seed.fork("names").index(i), 4)).collect();
    let sentences = (0..96).map(|i| sentence(seed.index(i), 10 + i as usize % 6)).collect();
    Ok(AdapterTask::Sentences(Sentences::new(names, sentences, (0..96).map(|i| i % 10).collect())?))
}

fn main() -> Result<(), Error> {
    let mut words = std::env::args().skip(1);
    let mut next = |default: &str| words.next().unwrap_or_else(|| default.to_owned());
    let family = family(&next("llama"))?;
    let (count, steps, device) = (next("32").parse()?, next("10").parse()?, Device::open(&next("cpu"))?);
    let architecture = Arc::new(family.build("base")?);
    let row: Vec<f32> = Seed::new(1).normals(architecture.num_parameters()).into_iter().map(|v| 0.05 * v).collect();
    let base = Arc::new(Base::new(&architecture, &row)?);
    let layout = AdapterLayout::new(&base, &LoraConfig::query_and_value(&base, 4))?;
    let parameters = layout.num_parameters();
    let together = Adapters::new(base.clone(), layout, &device)?;
    let tasks = (0..count).map(|i| task(&base, Seed::new(2).index(i))).collect::<Result<Vec<_>, _>>()?;
    let recipe = Recipe {
        optimizer: Optimizer::ADAMW,
        learning_rate: 1e-3,
        schedule: Schedule::Cosine { warmup_steps: 2 },
        weight_decay: 0.01,
        batch_size: BATCH,
        duration: Duration::Steps(steps),
        snapshot_steps: Vec::new(),
        precision: weft_core::Precision::Single,
    };
    let mut out = std::io::stdout();
    writeln!(out, "{count} adapters of {parameters} weights, {steps} steps of {BATCH} examples, {device}")?;
    let mut rates = [0.0; 2];
    for (rate, (name, adapters)) in
        rates.iter_mut().zip([("at once", together.clone()), ("one at a time", together.with_group_bytes(1))])
    {
        let warm = Recipe { duration: Duration::Steps(1), ..recipe.clone() };
        adapters.train(&tasks[..1], &warm, Seed::new(3), &Monitor::silent())?;
        let start = Instant::now();
        adapters.train(&tasks, &recipe, Seed::new(3), &Monitor::silent())?;
        let secs = start.elapsed().as_secs_f64();
        *rate = count as f64 * steps as f64 / secs;
        writeln!(out, "{name}: {secs:.2} s, {rate:.1} adapter-steps a second")?;
    }
    writeln!(out, "ratio {:.2}", rates[0] / rates[1])?;
    Ok(())
}
