//! What is learnt from the adapters of training tasks, shown one way.

use super::baselines::cosines;
use super::shown::{self, Shown};
use super::variants;
use crate::config::{CodeFlowConfig, GenerateConfig};
use crate::{Error, Monitor, Result};
use std::sync::Arc;
use std::time::Instant;
use weft_codec::{Codec, CodecConfig, CodecKind, Normalization, Rank, Solver};
use weft_core::{Condition, Population, Seed};
use weft_gen::{
    AdapterLoss, Flow, FlowTrainer, HyperDecoder, HyperTrainer, Refined, Refiner, RefinerTrainer, RidgeGenerator, Sampler,
    SamplerConfig, Trainer, TrainingSet,
};
use weft_net::adapters::{AdapterTask, Adapters};

/// Training tasks, all in one order.
pub(super) struct Seen<'a> {
    pub(super) adapters: &'a Population,
    /// Their numbers among all tasks.
    pub(super) numbers: &'a [usize],
    /// What the adapters were trained on.
    pub(super) parts: Vec<AdapterTask>,
    /// Numbers that variants of a language share.
    pub(super) groups: &'a [u32],
}

/// Generators that are shown a sample.
pub(super) struct Learnt {
    pub(super) codec: Arc<Codec>,
    pub(super) hyper: HyperDecoder,
    pub(super) flow: Option<Flow>,
    /// What mends the flow's samples.
    pub(super) refiner: Option<Refiner>,
    pub(super) ridge: RidgeGenerator,
    /// What shows the training tasks: a draw of all, and then the next.
    pub(super) samples: Vec<Condition>,
    /// The sum of the vectors of each training task's samples, `[n, e]`.
    pub(super) vectors: Vec<Vec<f32>>,
    /// What a sample of a task has in common with the nearest of the others, but for the least hundredth: their cosine.
    pub(super) familiar: f64,
    /// Seconds that the hyper-decoder took, and the flow with its refiner.
    pub(super) train_secs: [f64; 2],
}

impl Learnt {
    /// The flow with what mends its samples.
    pub(super) fn refined(&self) -> Option<Refined> {
        let (flow, refiner) = (self.flow.as_ref()?, self.refiner.as_ref()?);
        Some(Refined::new(Arc::new(flow.clone()), refiner.clone()))
    }
}

/// Learns from training tasks alone.
pub(super) fn learn(
    config: &GenerateConfig,
    on: &Adapters,
    (seen, shown): (&Seen, &Shown),
    seed: Seed,
    monitor: &Monitor,
) -> Result<Learnt> {
    let n = seen.adapters.len();
    if n < 8 {
        monitor.note(format!("{n} adapters: a generator can do little more than interpolate between them"));
    }
    let rank = Rank::Fixed(config.components.min(n.saturating_sub(1)));
    let kind = CodecKind::Pca { rank, solver: Solver::Auto };
    let codec = Codec::fit(seen.adapters, &CodecConfig { kind, normalize: Normalization::Off }, seed.fork("codec"))?;
    let codec = Arc::new(codec);
    let draws = seed.fork("samples");
    let of_draw = |draw: u64| {
        let tasks = seen.numbers.iter().zip(0_u64..);
        tasks.map(move |(&task, i)| shown.vector(task, draws.index(i).index(draw)))
    };
    // Of all draws there is one copy beside the encoded one: conditions share what they hold.
    let conditions: Vec<Condition> = (0..shown.draws(config.draws) as u64).flat_map(of_draw).map(shown::shown).collect();
    let rows = seen.adapters;
    let set = TrainingSet::new(codec.clone(), rows, rows.clone(), rows.clone(), conditions[..n].to_vec())?;
    let fields = [shown::field()];
    let set = set.with_draws(conditions.clone(), seen.groups)?.with_told_runs(&fields, &conditions)?;
    let device = on.device();
    let started = Instant::now();
    let loss = AdapterLoss::new(on.clone(), seen.parts.clone())?;
    let (told, of_told) = match variants::varied(config, (seen, shown), &conditions, seed.fork("variants"))? {
        None => (set.clone(), loss.clone()),
        Some(varied) => (varied.set(&codec)?, AdapterLoss::new(on.clone(), varied.parts)?),
    };
    let hyper = HyperTrainer::new(config.hyper.to_hyper(), told, of_told, seed.fork("hyper"), device)?;
    let hyper = run(hyper, ("train hyper-decoder", config.hyper.steps), monitor)?.finish()?;
    let hyper_secs = started.elapsed().as_secs_f64();
    let started = Instant::now();
    let (flow, refiner) = match &config.flow {
        Some(flow) => learn_flow(flow, (on, &set), loss, seed, monitor)?,
        None => (None, None),
    };
    let flow_secs = started.elapsed().as_secs_f64();
    let ridge = RidgeGenerator::fit(set, hyper.schema().clone(), seed.fork("ridge"))?;
    let vectors: Vec<Vec<f32>> = (0..n).map(|i| sum_of_vectors(conditions[i..].iter().step_by(n).map(shown::vector_of))).collect();
    let familiar = familiar(&vectors, &conditions[..n].iter().map(shown::vector_of).collect::<Vec<_>>(), seen.groups);
    Ok(Learnt { codec, hyper, flow, refiner, ridge, samples: conditions, vectors, familiar, train_secs: [hyper_secs, flow_secs] })
}

/// A flow on codes, and what mends its samples through the base.
fn learn_flow(
    config: &CodeFlowConfig,
    (on, set): (&Adapters, &TrainingSet),
    loss: AdapterLoss,
    seed: Seed,
    monitor: &Monitor,
) -> Result<(Option<Flow>, Option<Refiner>)> {
    let device = on.device();
    let trainer = FlowTrainer::new(config.to_flow(vec![shown::field()]), set.code_set(), seed.fork("flow"), device)?;
    let trainer = run(trainer, ("train flow", config.steps), monitor)?;
    let sampler = SamplerConfig { sampler: Sampler::Heun, steps: config.sampler_steps, guidance_scale: 1.0 };
    let flow = trainer.finish(sampler)?.decoded_by(set)?;
    let Some(refiner) = &config.refiner else { return Ok((Some(flow), None)) };
    let (unknown, seed) = (Condition::unknown(), seed.fork("refiner"));
    let trainer = RefinerTrainer::new(refiner.to_refiner(), (&flow, &unknown), set.clone(), loss, seed, device)?;
    let refiner = run(trainer, ("train refiner", refiner.steps), monitor)?.finish()?;
    Ok((Some(flow), Some(refiner)))
}

/// Trains to the end.
fn run<T: Trainer>(mut trainer: T, (what, steps): (&str, u64), monitor: &Monitor) -> Result<T> {
    monitor.start(what, steps, "steps");
    match trainer.advance(steps, monitor) {
        Ok(_) => monitor.finish(),
        Err(weft_gen::Error::Interrupted) => return Err(Error::Interrupted { stage: "adapter train" }),
        Err(error) => return Err(error.into()),
    }
    Ok(trainer)
}

/// The first percentile of samples' cosines with the nearest task of another group.
pub(in super::super) fn familiar(vectors: &[Vec<f32>], samples: &[&[f32]], groups: &[u32]) -> f64 {
    let to_others = |(i, sample): (usize, &&[f32])| {
        let cosines = cosines(vectors, sample);
        let others = cosines.into_iter().zip(groups).filter(|(_, group)| **group != groups[i]);
        others.map(|(cosine, _)| cosine).fold(-1.0, f64::max)
    };
    let mut nearest: Vec<f64> = samples.iter().enumerate().map(to_others).collect();
    nearest.sort_by(f64::total_cmp);
    nearest.get(nearest.len() / 100).copied().unwrap_or(-1.0)
}

/// The sum of samples' vectors.
fn sum_of_vectors<'a>(samples: impl Iterator<Item = &'a [f32]>) -> Vec<f32> {
    let mut all = Vec::new();
    for sample in samples {
        all.resize(sample.len(), 0.0);
        all.iter_mut().zip(sample).for_each(|(sum, v)| *sum += v);
    }
    all
}
