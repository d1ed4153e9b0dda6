//! What `weft adapter learn` makes of the same adapters and samples: it knows updates alone, neither the base nor any task's data.

use super::super::learn::{CodeConfig, CodeModels, Told};
use super::factors::{row_of, set_of};
use super::learn::Seen;
use super::shown;
use super::{Judge, Way};
use crate::Result;
use weft_codec::adapter::{AdapterSet, Grams, Per, combine};
use weft_core::Condition;
use weft_core::products::Here;
use weft_eval::conditional::{TaskMeasurements, TaskRowKind};

/// Rows of adapters that a ridge on updates makes of samples, and a flow on codes of updates where the run has a flow.
pub(super) fn rows(judge: &Judge, way: &Way, seen: &Seen) -> Result<Vec<TaskMeasurements>> {
    let (config, lora) = (judge.experiment.config, judge.experiment.lora);
    let monitor = judge.experiment.monitor;
    let set = set_of(lora, seen.adapters)?;
    let grams = Grams::of(&set, &Here)?;
    let vectors = (0..way.shown.draws(config.draws)).map(|draw| draw * seen.adapters.len());
    let of_task = |i: usize| vectors.clone().map(|first| shown::vector_of(&way.learnt.samples[first + i]).to_vec()).collect();
    let told = Told { vectors: (0..seen.adapters.len()).map(of_task).collect(), groups: seen.groups.to_vec() };
    let codes = CodeConfig { per: Per::Adapter, components: config.components, flow: config.flow.clone() };
    let seed = judge.experiment.seed.fork("updates");
    let models = CodeModels::fit(&grams, &told, &codes, (seed, judge.experiment.on.device()), monitor)?;
    let rank = lora.modules.iter().map(|module| module.rank).min().unwrap_or(1);
    let flat = |made: &AdapterSet, count: usize| -> Result<Vec<f32>> {
        let rows = (0..count).map(|i| row_of(lora, made.adapter(i))).collect::<Result<Vec<_>>>()?;
        Ok(rows.concat())
    };
    let count = judge.held_out.len();
    let (mut by_ridge, mut by_flow) = (Vec::new(), Vec::new());
    for at in 0..way.shown.draws(config.sets) {
        let samples: Vec<Vec<f32>> = (0..count).map(|task| judge.sample(way, task, at)).collect();
        let weights: Vec<Vec<f64>> = samples.iter().map(|sample| models.ridge.weights(sample)).collect();
        let made = combine(&set, Some(&grams), (count, &|c, _| weights[c].clone()), (rank, 1.0))?;
        by_ridge.push(flat(&made.adapters, count)?);
        if let Some(flow) = &models.flow {
            let conditions: Vec<Condition> = samples.into_iter().map(shown::shown).collect();
            let codes = flow.sample_codes_each(&conditions, seed.fork("sets").index(at as u64))?;
            let made = models.pca.decode(&codes, (&set, Some(&grams)), (rank, 1.0))?;
            by_flow.push(flat(&made.adapters, count)?);
        }
    }
    let mut rows = vec![judge.row(&way.called("ridge on updates"), TaskRowKind::Baseline, None, &by_ridge)?];
    if models.flow.is_some() {
        rows.push(judge.row(&way.called("flow on updates"), TaskRowKind::Baseline, None, &by_flow)?);
    }
    Ok(rows)
}
