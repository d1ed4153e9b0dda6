//! Adapters of a small decoder, trained one at a time, all at once, and on a GPU. Without a GPU its tests say that they are skipped.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shared {
    pub(crate) mod devices;
}

use shared::devices::{gpu, gradients_agree, recipe, trainings_agree};
use std::sync::Arc;
use weft_core::families::{Family, Llama};
use weft_core::{RopePairs, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, Base, LoraConfig, Windows};

const VOCABULARY: usize = 61;
const TOKENS: usize = 32;

/// Heads of eight features, as those of stories260K.
fn adapters(device: &Device) -> Adapters {
    let family = Llama {
        vocabulary: VOCABULARY,
        length: TOKENS,
        d_model: 32,
        depth: 2,
        num_heads: 4,
        num_kv_heads: 2,
        d_hidden: 44,
        tied: true,
        theta: 10_000.0,
        pairs: RopePairs::Halves,
        epsilon: 1e-5,
    };
    let architecture = Arc::new(Family::Llama(family).build("small").unwrap());
    let base = Arc::new(Base::new(&architecture, &weft_testkit::random_row(&architecture, Seed::new(1))).unwrap());
    let modules = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
    let layout = AdapterLayout::new(&base, &LoraConfig { modules, rank: 4, alpha: 16.0 }).unwrap();
    Adapters::new(base, layout, device).unwrap()
}

/// A language of some words, in so many windows.
fn language(number: u64, windows: usize) -> AdapterTask {
    let seed = Seed::new(2).index(number);
    let words: Vec<u32> = seed.fork("words").subset(9, VOCABULARY - 1).into_iter().map(|word| word + 1).collect();
    let text = seed.fork("text").indices(windows * TOKENS, words.len()).into_iter().map(|at| words[at as usize]).collect();
    AdapterTask::Text(Windows::new(&[text], 0, TOKENS).unwrap())
}

fn languages(count: u64) -> Vec<AdapterTask> {
    (0..count).map(|number| language(number, 6 + number as usize % 5)).collect()
}

/// An adapter that is not small.
fn start(adapters: &Adapters) -> Vec<f32> {
    Seed::new(3).normals(adapters.layout().num_parameters()).into_iter().map(|v| 0.1 * v).collect()
}

#[test]
fn one_at_a_time_and_all_at_once() {
    let at_once = adapters(&Device::cpu());
    let one = at_once.clone().with_group_bytes(1);
    let (tasks, start) = (languages(9), start(&at_once));
    trainings_agree("one at a time", [&one, &at_once], (&tasks[..3], &tasks[3..]), &recipe(0.01, 4), &start);
    gradients_agree("one at a time", [&one, &at_once], &tasks, 4, &start);
}

#[test]
fn on_a_gpu() {
    let Some(device) = gpu("adapters of a small decoder") else { return };
    let (cpu, gpu) = (adapters(&Device::cpu()), adapters(&device));
    let (tasks, start) = (languages(120), start(&cpu));
    gradients_agree("few", [&cpu, &gpu], &tasks[..12], 4, &start);
    gradients_agree("many", [&cpu, &gpu], &tasks, 16, &start);
    // One adapter's gradient is a sum over as many rows as those of an adapter of many tasks.
    gradients_agree("one", [&cpu, &gpu], &[language(200, 128)], 128, &start);
    trainings_agree("few", [&cpu, &gpu], (&tasks[..12], &[]), &recipe(0.01, 4), &start);
    trainings_agree("among many", [&cpu, &gpu], (&tasks[..12], &tasks[12..]), &recipe(0.01, 4), &start);
    trainings_agree("one of a large batch", [&cpu, &gpu], (&[language(200, 256)], &[]), &recipe(0.03, 128), &start);
}
