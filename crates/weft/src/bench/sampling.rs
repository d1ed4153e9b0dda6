//! Sampling of networks, alone and beside PyTorch's.

use super::peer::{self, Peer};
use super::stages::{Bench, NETWORKS, random};
use super::{Figure, secs};
use crate::Result;
use std::sync::Arc;
use weft_codec::{Codec, CodecConfig, CodecKind, Normalization, Rank, Solver};
use weft_core::{Condition, Monitor, Population, Seed};
use weft_gen::{Flow, FlowConfig, FlowTrainer, Generator as _, Sampler, SamplerConfig, Trainer as _, TrainingSet};

/// What the flow of H1 has: width, blocks, values of a code, steps of Heun's rule.
const WIDTH: usize = 512;
const BLOCKS: usize = 4;
const LATENT: usize = 99;
const STEPS: usize = 25;
/// Training steps of the flow that is sampled from.
const TRAINED: u64 = 4;

pub(super) fn flow_config() -> FlowConfig {
    FlowConfig {
        width: WIDTH,
        blocks: BLOCKS,
        steps: TRAINED,
        batch_size: 256,
        learning_rate: 3e-4,
        warmup_steps: 1,
        weight_decay: 0.0,
        clip_norm: 1.0,
        ema_decay: 0.99,
        conditions: Vec::new(),
        condition_dropout: 0.0,
        residual_noise: true,
    }
}

pub(super) fn training_set(networks: &Population) -> Result<TrainingSet> {
    let kind = CodecKind::Pca { rank: Rank::Fixed(LATENT), solver: Solver::Auto };
    let codec = Codec::fit(networks, &CodecConfig { kind, normalize: Normalization::Off }, Seed::new(4))?;
    let conditions = vec![Condition::unknown(); networks.len()];
    Ok(TrainingSet::new(Arc::new(codec), networks, networks.clone(), networks.clone(), conditions)?)
}

/// A flow of H1, and the seconds of one of its training steps.
fn flow(bench: &Bench) -> Result<(Flow, f64)> {
    let set = training_set(&random(&bench.h1, NETWORKS)?)?;
    let mut trainer = FlowTrainer::new(flow_config(), set.code_set(), Seed::new(5), &bench.device)?;
    trainer.advance(1, &Monitor::silent())?;
    let (time, _) = secs(|| Ok(trainer.advance(TRAINED, &Monitor::silent())?))?;
    let flow = trainer.finish(SamplerConfig { sampler: Sampler::Heun, steps: STEPS, guidance_scale: 1.0 })?.decoded_by(&set)?;
    Ok((flow, time / (TRAINED - 1) as f64))
}

/// Seconds to sample networks.
fn sample_secs(flow: &Flow, count: usize) -> Result<f64> {
    Ok(secs(|| Ok(flow.sample(count, &Condition::unknown(), Seed::new(6))?))?.0)
}

/// Stage 4: 1,000 networks of H1.
pub(super) fn sample(bench: &Bench) -> Result<Vec<Figure>> {
    let (flow, step) = flow(bench)?;
    let count = bench.options.size(1_000);
    sample_secs(&flow, count)?;
    let mut times = (0..3).map(|_| sample_secs(&flow, count)).collect::<Result<Vec<_>>>()?;
    let time = peer::median(&mut times);
    let rate = flow.flops_per_sample() * count as f64 / time / 1e9;
    Ok(vec![
        Figure::new("train the flow, a step", step * 1e3, "ms", "width 512, 4 blocks, batch 256, codes of 99"),
        Figure::new("sample", time, "s", format!("{count} networks 784-32-32-10, Heun × {STEPS}; {rate:.0} GFLOP/s")),
    ])
}

/// The same beside PyTorch, in turns.
pub(super) fn beside_pytorch(bench: &Bench) -> Result<Vec<Figure>> {
    let (flow, _) = flow(bench)?;
    let count = bench.options.size(1_000);
    let shape = format!("{WIDTH}x{BLOCKS}x{LATENT}x{}", bench.h1.num_parameters());
    let mut theirs = Peer::samples([&bench.device.to_string(), &shape, "--steps", &STEPS.to_string()])?;
    let request = format!("sample {count}");
    theirs.ask(&request)?;
    sample_secs(&flow, count)?;
    let (mut weft, mut torch) = (Vec::new(), Vec::new());
    for _ in 0..peer::TURNS {
        torch.push(theirs.ask(&request)?.millis("sample")?);
        weft.push(sample_secs(&flow, count)? * 1e3);
    }
    let (weft, torch) = (peer::median(&mut weft), peer::median(&mut torch));
    let note = format!("{weft:.1} ms against {torch:.1} ms for {count} networks 784-32-32-10, Heun × {STEPS}");
    Ok(vec![Figure::new("sample against PyTorch", weft / torch, "×", note)])
}
