//! Batch norms whose running statistics are measured anew.

use crate::engine::plan::Step;
use crate::{Device, Engine, Examples, Result, Workspace, lockstep};
use rayon::prelude::*;
use std::ops::Range;
use weft_core::{Dataset, Op, Part, Population};

/// Examples whose statistics are taken at a time.
pub(crate) const EXAMPLES_AT_ONCE: usize = 128;

/// Gives the batch norms of each network `[n, D]` the running statistics of training examples: the first `examples` of the training part, in
/// batches of 128 whose means and unbiased variances are averaged.
///
/// A network that was decoded or averaged has other activations than those whose statistics it carries; each layer's are measured
/// behind layers that are normalized by their own. Networks without batch norm, and an `examples` of 0, are left alone.
///
/// # Errors
/// If the architecture does not fit the data set or cannot be trained, or the device fails.
///
/// # References
/// Izmailov et al., *Averaging weights leads to wider optima* (2018); Jordan et al., *REPAIR* (2023).
pub fn recalibrate(population: &mut Population, dataset: &Dataset, examples: usize, device: &Device) -> Result<()> {
    let architecture = population.architecture().clone();
    let range = dataset.range(Part::Train);
    let examples = examples.min(range.len());
    if examples == 0 || !architecture.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. })) {
        return Ok(());
    }
    let examples = Examples::of_inputs(&architecture, dataset, range.start..range.start + examples)?;
    if !device.is_cpu() && lockstep::runs(&architecture) {
        return lockstep::recalibrate(population, &examples, device);
    }
    let engine = Engine::new(architecture)?;
    let dim = population.dim();
    population.data_mut().par_chunks_exact_mut(dim).for_each_init(Workspace::default, |workspace, row| {
        let mut weights = vec![0.0; dim];
        engine.engine_from_row(row, &mut weights);
        measure(&engine, &examples, &mut weights, workspace);
        engine.row_from_engine(&weights, row);
    });
    Ok(())
}

/// The same for one network, in the engine's layout.
fn measure(engine: &Engine, examples: &Examples, weights: &mut [f32], workspace: &mut Workspace) {
    let places: Vec<Range<usize>> = engine.steps().iter().filter_map(statistics_of).flatten().collect();
    let mut sums: Vec<Vec<f64>> = places.iter().map(|place| vec![0.0; place.len()]).collect();
    let (all, mut scratch): (Vec<u32>, _) = ((0..examples.len() as u32).collect(), Vec::new());
    for chosen in all.chunks(EXAMPLES_AT_ONCE) {
        // What is moved from 0 is the batch's own, times the momentum.
        for place in &places {
            weights[place.clone()].fill(0.0);
        }
        engine.forward_training(weights, examples.batch(chosen, &mut scratch), chosen.len(), workspace);
        engine.update_statistics(workspace, weights);
        add(&mut sums, &places, weights, chosen.len());
    }
    write(&sums, &places, weights, examples.len());
}

/// Where a step keeps its running mean and variance.
fn statistics_of(step: &Step) -> Option<[Range<usize>; 2]> {
    match step {
        Step::BatchNorm(norm) => Some([norm.mean.clone(), norm.variance.clone()]),
        _ => None,
    }
}

/// Adds the statistics of a batch, which count by its examples.
fn add(sums: &mut [Vec<f64>], places: &[Range<usize>], weights: &[f32], examples: usize) {
    for (sum, place) in sums.iter_mut().zip(places) {
        sum.iter_mut().zip(&weights[place.clone()]).for_each(|(sum, &moved)| *sum += f64::from(moved) * examples as f64);
    }
}

/// Writes the mean of the sums of all batches, which have moved from 0.
fn write(sums: &[Vec<f64>], places: &[Range<usize>], weights: &mut [f32], examples: usize) {
    let whole = examples as f64 * f64::from(weft_ops::kernels::BATCH_NORM_MOMENTUM);
    for (sum, place) in sums.iter().zip(places) {
        weights[place.clone()].iter_mut().zip(sum).for_each(|(w, &sum)| *w = (sum / whole) as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::initial_weights;
    use std::sync::Arc;
    use weft_core::families::{Family, ResNet};
    use weft_core::{Architecture, Inputs, Seed, Window};

    fn network() -> Arc<Architecture> {
        let stem = Window { size: [1, 3], stride: [1, 1], padding: [0, 1] };
        let family = ResNet { image: [2, 1, 5], stem, stem_pool: false, widths: vec![3, 4], blocks: 1, num_classes: 3 };
        Arc::new(Family::ResNet(family).build("blocks").unwrap())
    }

    fn dataset(examples: usize) -> Dataset {
        let values = Seed::new(1).normals(examples * 10);
        Dataset::new("noise", Inputs::Floats(values), vec![0; examples], 3, [examples - 20, 10]).unwrap()
    }

    fn population(n: u64) -> Population {
        let architecture = network();
        let rows = (0..n).flat_map(|i| initial_weights(&architecture, Seed::new(2).index(i))).collect();
        Population::new(architecture, rows).unwrap()
    }

    /// The first norm reads a convolution of the inputs, whose moments are computed here one by one.
    #[test]
    fn the_first_norm_has_the_moments_of_its_inputs() {
        let (data, mut networks) = (dataset(120), population(2));
        let conv = networks.architecture().tensors()[0].range();
        recalibrate(&mut networks, &data, 100, &Device::cpu()).unwrap();
        let architecture = networks.architecture().clone();
        let named = |name: &str| architecture.tensors().iter().find(|t| t.name == name).unwrap().range();
        let inputs = Examples::new(&architecture, &data, data.range(Part::Train)).unwrap().to_dense();
        for row in networks.rows() {
            for (channel, kernel) in row[conv.clone()].chunks_exact(6).enumerate() {
                let mut values = Vec::new();
                for image in inputs.chunks_exact(10) {
                    for at in 0..5_usize {
                        let tap = |c: usize, k: usize| match (at + k).checked_sub(1) {
                            Some(p) if p < 5 => f64::from(kernel[c * 3 + k] * image[c * 5 + p]),
                            _ => 0.0,
                        };
                        values.push((0..2).flat_map(|c| (0..3).map(move |k| (c, k))).map(|(c, k)| tap(c, k)).sum::<f64>());
                    }
                }
                let mean = values.iter().sum::<f64>() / values.len() as f64;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (values.len() - 1) as f64;
                let [got_mean, got_variance] = ["bn1.running_mean", "bn1.running_var"].map(|n| f64::from(row[named(n)][channel]));
                assert!((got_mean - mean).abs() < 1e-5, "mean {got_mean}, expected {mean}");
                assert!((got_variance - variance).abs() < 1e-5, "variance {got_variance}, expected {variance}");
            }
        }
    }

    #[test]
    fn lock_step_measures_what_the_engine_does() {
        let data = dataset(320);
        let (mut engine, mut lock_step) = (population(3), population(3));
        recalibrate(&mut engine, &data, 300, &Device::cpu()).unwrap();
        let examples = Examples::new(lock_step.architecture(), &data, 0..300).unwrap();
        lockstep::recalibrate(&mut lock_step, &examples, &Device::cpu()).unwrap();
        let apart = engine.data().iter().zip(lock_step.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-5, "{apart}");
        let moved = engine.data().iter().zip(population(3).data()).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
        assert_eq!(moved, 3 * 2 * (3 + 3 + 3 + 4 + 4 + 4));
    }

    #[test]
    fn without_batch_norm_nothing_changes() {
        let architecture = Arc::new(Architecture::mlp("mlp", &[10, 4, 3], weft_core::Activation::Relu).unwrap());
        let row = initial_weights(&architecture, Seed::new(3));
        let mut networks = Population::new(architecture, row.clone()).unwrap();
        recalibrate(&mut networks, &dataset(40), 20, &Device::cpu()).unwrap();
        assert_eq!(networks.data(), row);
    }
}
