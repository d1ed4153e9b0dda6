//! Running statistics of batch norms in lock step.

use super::LockStep;
use crate::recalibrate::EXAMPLES_AT_ONCE;
use crate::{Device, Examples, Result};
use weft_core::Population;
use weft_ops::backend::{Backend, Job, on_device};
use weft_ops::kernels::BATCH_NORM_MOMENTUM;
use weft_ops::tensor::{Network as _, Pass};

/// Values of the widest buffer of one batch, of all networks together.
const VALUES_AT_ONCE: usize = 1 << 29;

/// Gives all networks the statistics of the examples; see [`crate::recalibrate`].
pub(crate) fn recalibrate(population: &mut Population, examples: &Examples, device: &Device) -> Result<()> {
    on_device(device.candle(), Recalibration { population, examples })?
}

struct Recalibration<'a> {
    population: &'a mut Population,
    examples: &'a Examples,
}

impl Job for Recalibration<'_> {
    type Output = Result<()>;

    fn run<B: Backend + 'static>(self, backend: &B) -> Result<()> {
        let architecture = self.population.architecture().clone();
        let (features, dim) = (architecture.num_inputs(), architecture.num_parameters());
        let widest = LockStep::new(&architecture, 1, true)?.widest();
        let at_once = (VALUES_AT_ONCE / (EXAMPLES_AT_ONCE * widest).max(1)).max(1);
        let x = self.examples.to_dense();
        for weights in self.population.data_mut().chunks_mut(at_once * dim) {
            let count = weights.len() / dim;
            let network = LockStep::new(&architecture, count, true)?.training();
            // What is moved from 0 is a batch's own, times the momentum.
            let mut statistics: Vec<Vec<f64>> = Vec::new();
            let norms = network.norms();
            for row in weights.chunks_exact_mut(dim) {
                for norm in &norms {
                    row[norm.mean..][..norm.width].fill(0.0);
                    row[norm.variance..][..norm.width].fill(0.0);
                }
            }
            let theta = backend.upload(weights)?;
            for x in x.chunks(EXAMPLES_AT_ONCE * features) {
                let of_each = x.len() / features;
                let x = backend.upload(x)?;
                let pass = Pass { backend, theta: backend.view(&theta), rows: count * of_each, keep: true };
                let (_, saved) = network.forward(pass, backend.view(&x), None)?;
                let moved = saved.map(|mut saved| network.moved(&mut saved)).unwrap_or_default();
                statistics.resize_with(moved.len(), Vec::new);
                for (sum, (_, moved)) in statistics.iter_mut().zip(&moved) {
                    let moved = backend.download_wide(moved)?;
                    sum.resize(moved.len(), 0.0);
                    sum.iter_mut().zip(&moved).for_each(|(sum, &moved)| *sum += f64::from(moved) * of_each as f64);
                }
            }
            let whole = self.examples.len() as f64 * f64::from(BATCH_NORM_MOMENTUM);
            for (norm, sums) in norms.iter().zip(&statistics) {
                for (row, sums) in weights.chunks_exact_mut(dim).zip(sums.chunks_exact(2 * norm.width)) {
                    for (start, sums) in [norm.mean, norm.variance].into_iter().zip(sums.chunks_exact(norm.width)) {
                        row[start..][..norm.width].iter_mut().zip(sums).for_each(|(w, sum)| *w = (sum / whole) as f32);
                    }
                }
            }
        }
        Ok(())
    }
}
