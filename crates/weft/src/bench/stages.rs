//! The measurements of single stages.

use super::limits::best_product_rate;
use super::sampling::{flow_config, training_set};
use super::{Figure, Options, secs};
use crate::config::data_folder;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_canon::{Canonicalizer, Group, Matching};
use weft_core::{
    Activation, Architecture, Dataset, Digest, Duration, Inputs, Monitor, Optimizer, Population, Precision, Recipe, Record,
    Schedule, Seed, Split,
};
use weft_gen::{FlowTrainer, Trainer as _};
use weft_net::Device;
use weft_zoo::{Filter, Zoo};

/// Networks that are trained at once in H1.
pub(super) const NETWORKS: usize = 100;
/// Steps of a run of H1: 5 epochs of 55,000 images in batches of 64.
pub(super) const H1_STEPS: usize = 5 * 859;
/// Examples whose validation every run ends with; few, for the peer has none.
const VALIDATION: usize = 100;

/// What the measurements share.
pub(super) struct Bench {
    pub(super) options: Options,
    pub(super) device: Device,
    pub(super) h1: Arc<Architecture>,
    pub(super) dataset: Dataset,
}

impl Bench {
    pub(super) fn new(options: Options) -> Result<Self> {
        let device = Device::open(&options.device.to_string())?;
        if device.all().len() > 1 {
            let expected = "one device; weft-gen's example `steps` measures several".to_owned();
            return Err(Error::Range { what: "what `weft bench` measures", expected, got: device.to_string() });
        }
        let h1 = Arc::new(Architecture::mlp("784-32-32-10", &[784, 32, 32, 10], Activation::Relu)?);
        let folder = data_folder().join("mnist");
        let dataset = if folder.is_dir() { weft_zoo::data::idx_folder(&folder, "mnist", VALIDATION)? } else { lookalike()? };
        Ok(Self { options, device, h1, dataset })
    }

    /// Seconds to train networks of H1 for a number of steps, and their number of floating-point operations.
    pub(super) fn train_secs(&self, networks: usize, steps: u64) -> Result<f64> {
        let recipe = Recipe {
            optimizer: Optimizer::ADAM,
            learning_rate: 1e-3,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            batch_size: 64,
            duration: Duration::Steps(steps),
            snapshot_steps: Vec::new(),
            precision: Precision::Single,
        };
        let seeds: Vec<Seed> = (0..networks as u64).map(|i| Seed::new(0).index(i)).collect();
        let train = || Ok(weft_net::train(&self.h1, &self.dataset, &recipe, &seeds, &self.device, &Monitor::silent())?);
        Ok(secs(train)?.0)
    }
}

/// Random images of MNIST's size and sparsity.
fn lookalike() -> Result<Dataset> {
    let (examples, features) = (60_000, 784);
    let draws = Seed::new(0).fork("lookalike").uniforms(examples * features);
    let data = draws.into_iter().map(|u| if u < 0.81 { 0 } else { ((u - 0.81) / 0.19 * 255.0) as u8 }).collect();
    let labels = (0..examples as u32).map(|i| i % 10).collect();
    let inputs = Inputs::Bytes { data, scale: 1.0 / 255.0 };
    Ok(Dataset::new("images as sparse as MNIST", inputs, labels, 10, [55_000, VALIDATION])?)
}

/// Stage 1: the zoo of H1; on a GPU, ten of them at once.
pub(super) fn train(bench: &Bench) -> Result<Vec<Figure>> {
    let networks = if bench.device.is_cpu() { NETWORKS } else { 10 * NETWORKS };
    let steps = bench.options.size(200);
    bench.train_secs(networks, 10)?;
    let per_step = bench.train_secs(networks, steps as u64)? / steps as f64;
    let zoo = per_step * H1_STEPS as f64;
    let note = format!("{networks} networks 784-32-32-10, batch 64, Adam, on {}; the zoo takes {zoo:.1} s", bench.dataset.name());
    let mut figures = vec![Figure::new("train, a step of all networks", per_step * 1e3, "ms", note)];
    if bench.device.is_cpu() {
        let flops = 6.0 * bench.h1.num_parameters() as f64 * 64.0 * networks as f64;
        let share = "of the rate of matrix products, counted as if images were dense";
        figures.push(Figure::new("train, dense floating-point operations", flops / per_step / best_product_rate(), "", share));
    }
    Ok(figures)
}

/// Random networks, one flat row each.
pub(super) fn random(architecture: &Arc<Architecture>, n: usize) -> Result<Population> {
    let seed = Seed::new(1).fork("networks");
    let rows: Vec<f32> = (0..n as u64).flat_map(|i| weft_net::initial_weights(architecture, seed.index(i))).collect();
    Ok(Population::new(architecture.clone(), rows)?)
}

/// Stage 2: networks of H2.
pub(super) fn canonicalize(bench: &Bench) -> Result<Vec<Figure>> {
    let architecture = Arc::new(Architecture::mlp("784-16-10", &[784, 16, 10], Activation::Relu)?);
    let networks = random(&architecture, bench.options.size(2_000))?;
    let group = Group::derive(architecture);
    let canonicalizer = Canonicalizer::fit_anchor(group, networks.row(0), Matching::default(), Seed::new(2))?;
    let runs: Vec<u32> = (0..networks.len() as u32).collect();
    let (time, _) = secs(|| Ok(canonicalizer.canonicalize_population(&networks, &runs)?))?;
    let rate = networks.len() as f64 / time;
    Ok(vec![Figure::new("canonicalize", rate, "networks/s", format!("784-16-10; the 11,264 of H2 take {:.1} s", 11_264.0 / rate))])
}

/// Stage 4: memory of training the flow on networks of 300,520 parameters.
pub(super) fn flow_memory(bench: &Bench) -> Result<Vec<Figure>> {
    let architecture = Arc::new(Architecture::mlp("784-378-10", &[784, 378, 10], Activation::Relu)?);
    let networks = random(&architecture, bench.options.size(NETWORKS).max(100))?;
    let (count, dim) = (networks.len(), networks.dim());
    let mut trainer = FlowTrainer::new(flow_config(), training_set(&networks)?.code_set(), Seed::new(7), &Device::cpu())?;
    trainer.advance(4, &Monitor::silent())?;
    let peak = crate::stages::peak_memory().unwrap_or(0) as f64 / f64::from(1 << 30);
    let note = format!("peak of this whole process after training the flow on {count} networks of {dim} parameters");
    Ok(vec![Figure::new("memory", peak, "GiB", note)])
}

/// A catalogue of 100,000 checkpoints.
pub(super) fn catalogue(bench: &Bench) -> Result<Vec<Figure>> {
    let folder = std::env::temp_dir().join(format!("weft-bench-{}", std::process::id()));
    let measured = measure_catalogue(&folder, bench.options.size(100_000));
    std::fs::remove_dir_all(&folder).map_err(Error::io("remove", &folder))?;
    measured
}

fn measure_catalogue(folder: &std::path::Path, checkpoints: usize) -> Result<Vec<Figure>> {
    let architecture = Arc::new(Architecture::mlp("2-2-2", &[2, 2, 2], Activation::Relu)?);
    let mut zoo = Zoo::create(folder, "bench", architecture.clone(), None)?;
    let block = 5_000.min(checkpoints);
    for first in (0..checkpoints).step_by(block) {
        let seed = Seed::new(8).index(first as u64);
        let rows = (0..block as u64).flat_map(|i| weft_net::initial_weights(&architecture, seed.index(i))).collect();
        let networks = Population::new(architecture.clone(), rows)?;
        let record = |i: usize| Record {
            step: Some(1),
            split: Some(if i.is_multiple_of(8) { Split::Test } else { Split::Train }),
            metrics: BTreeMap::from([("validation-accuracy".to_owned(), i as f64 / block as f64), ("train-secs".to_owned(), 0.5)]),
            labels: BTreeMap::from([("phrase".to_owned(), format!("phrase {}", (first + i) % 100))]),
            ..Record::new(Digest::of_weights(&architecture, networks.row(i)), format!("run-{:06}", first + i))
        };
        crate::stages::append(&mut zoo, &networks, &(0..block).map(record).collect::<Vec<_>>())?;
    }
    drop(zoo);
    let (open, zoo) = secs(|| Ok(Zoo::open(folder)?))?;
    let (list, all) = secs(|| Ok(zoo.records(&Filter::default())?))?;
    let best = Filter { min_accuracy: Some(0.9), split: Some(Split::Train), final_only: true, ..Filter::default() };
    let (filter, few) = secs(|| Ok(zoo.records(&best)?))?;
    let condition = "split = \"train\" and accuracy >= 0.9 and train-secs < 1 and phrase like \"phrase 4%\" and not synthetic";
    let asked = Filter { condition: Some(weft_zoo::Expr::parse(condition)?), ..Filter::default() };
    let (ask, asked) = secs(|| Ok(zoo.records(&asked)?))?;
    Ok(vec![
        Figure::new("zoo, open", open, "s", format!("{checkpoints} checkpoints")),
        Figure::new("zoo, list", list, "s", format!("{} records", all.len())),
        Figure::new("zoo, filter", filter, "s", format!("{} records of accuracy 0.9 and more", few.len())),
        Figure::new("zoo, condition", ask, "s", format!("{} records of five tests on columns, labels and metrics", asked.len())),
    ])
}
