//! What is learnt of updates from what is told of them: a ridge on updates and a flow on their codes.

use super::super::codec::fit_at_most;
use super::super::generate::shown;
use crate::config::CodeFlowConfig;
use crate::{Error, Monitor, Result};
use std::sync::Arc;
use weft_codec::adapter::{AdapterPca, Grams, Per, UpdateRidge};
use weft_core::{Condition, Seed};
use weft_gen::{CodeFlow, CodeSet, FlowTrainer, Sampler, SamplerConfig, Trainer as _};
use weft_net::Device;

/// What is told of adapters, as vectors.
#[derive(Debug, Clone)]
pub(in super::super) struct Told {
    /// Of each adapter one or more, all of one length.
    pub(in super::super) vectors: Vec<Vec<Vec<f32>>>,
    /// Numbers that adapters share of which the same is told.
    pub(in super::super) groups: Vec<u32>,
}

impl Told {
    /// Of some of the adapters.
    pub(super) fn select(&self, adapters: &[usize]) -> Self {
        Self {
            vectors: adapters.iter().map(|&i| self.vectors[i].clone()).collect(),
            groups: adapters.iter().map(|&i| self.groups[i]).collect(),
        }
    }

    /// The length of a vector.
    pub(super) fn len(&self) -> usize {
        self.vectors.first().and_then(|own| own.first()).map_or(0, Vec::len)
    }

    /// The mean of each adapter's vectors.
    pub(super) fn means(&self) -> Vec<Vec<f32>> {
        let mean = |own: &Vec<Vec<f32>>| {
            let mut sum = vec![0.0_f64; self.len()];
            for vector in own {
                sum.iter_mut().zip(vector).for_each(|(sum, &v)| *sum += f64::from(v));
            }
            sum.into_iter().map(|sum| (sum / own.len() as f64) as f32).collect()
        };
        self.vectors.iter().map(mean).collect()
    }
}

/// How codes are made and learnt.
#[derive(Debug, Clone)]
pub(in super::super) struct CodeConfig {
    /// What has components of its own.
    pub(in super::super) per: Per,
    /// Components, at most.
    pub(in super::super) components: usize,
    /// The flow on codes, if there is to be one.
    pub(in super::super) flow: Option<CodeFlowConfig>,
}

/// What makes updates of what is told.
#[derive(Debug)]
pub(in super::super) struct CodeModels {
    pub(in super::super) ridge: UpdateRidge,
    pub(in super::super) pca: AdapterPca,
    pub(in super::super) flow: Option<CodeFlow>,
}

impl CodeModels {
    /// Learns from the inner products of adapters alone: no factor is read.
    pub(in super::super) fn fit(
        grams: &Grams,
        told: &Told,
        config: &CodeConfig,
        (seed, device): (Seed, &Device),
        monitor: &Monitor,
    ) -> Result<Self> {
        let ridge = UpdateRidge::fit((&told.means().concat(), told.len()), grams, &told.groups)?;
        let pca = fit_at_most(grams, config.per, config.components)?;
        let flow = config.flow.as_ref().map(|flow| train_flow((&pca, told), flow, (seed, device), monitor)).transpose()?;
        Ok(Self { ridge, pca, flow })
    }
}

/// Trains a flow on the adapters' codes.
fn train_flow(
    (pca, told): (&AdapterPca, &Told),
    config: &CodeFlowConfig,
    (seed, device): (Seed, &Device),
    monitor: &Monitor,
) -> Result<CodeFlow> {
    // Each draw has one of each adapter's vectors, so that all adapters count alike.
    let draws = told.vectors.iter().map(Vec::len).max().unwrap_or(0);
    let of_draw = |draw: usize| told.vectors.iter().map(move |own| shown::shown(own[draw % own.len()].clone()));
    let conditions: Vec<Condition> = (0..draws).flat_map(of_draw).collect();
    let (codes, final_codes) = (Arc::new(pca.codes().repeat(draws)), Arc::new(pca.codes().to_vec()));
    let set = CodeSet { code_len: pca.code_len(), codes, final_codes, conditions: Arc::new(conditions) };
    let mut trainer = FlowTrainer::new(config.to_flow(vec![shown::field()]), set, seed.fork("flow"), device)?;
    monitor.start("train flow", config.steps, "steps");
    match trainer.advance(config.steps, monitor) {
        Err(weft_gen::Error::Interrupted) => return Err(Error::Interrupted { stage: "adapter learn" }),
        advanced => advanced?,
    };
    monitor.finish();
    Ok(trainer.finish(sampler(config.sampler_steps))?)
}

/// How codes are sampled.
pub(super) fn sampler(steps: usize) -> SamplerConfig {
    SamplerConfig { sampler: Sampler::Heun, steps, guidance_scale: 1.0 }
}
