//! Outputs and scores of populations in lock step, in pieces that fit in memory.

use super::LockStep;
use crate::{Device, Examples, Result};
use std::sync::Arc;
use weft_core::{Architecture, Population};
use weft_ops::backend::{Backend, Job, on_device};
use weft_ops::tensor::{Network as _, Pass};

/// Values of the largest buffer at a time.
const VALUES_AT_ONCE: usize = 1 << 28;

/// Examples at a time.
const EXAMPLES_AT_ONCE: usize = 2_000;

/// Runs each network over all examples; `each` gets the first network and the first example of a piece, and its logits, `[n, r, c]`.
pub(crate) fn logits(
    population: &Population,
    examples: &Examples,
    device: &Device,
    each: impl FnMut([usize; 2], &[f32], usize),
) -> Result<()> {
    let architecture = population.architecture();
    LockStep::new(architecture, 1, true)?;
    on_device(device.candle(), Run { architecture, population, examples, each })?
}

/// Whether the networks can be run in lock step.
pub(crate) fn runs(architecture: &Arc<Architecture>) -> bool {
    LockStep::new(architecture, 1, true).is_ok()
}

struct Run<'a, F> {
    architecture: &'a Arc<Architecture>,
    population: &'a Population,
    examples: &'a Examples,
    each: F,
}

impl<F: FnMut([usize; 2], &[f32], usize)> Job for Run<'_, F> {
    type Output = Result<()>;

    fn run<B: Backend + 'static>(mut self, backend: &B) -> Result<()> {
        let (features, dim) = (self.architecture.num_inputs(), self.population.dim());
        let rows = EXAMPLES_AT_ONCE.min(self.examples.len());
        let widest = LockStep::new(self.architecture, 1, true)?.widest();
        let networks = (VALUES_AT_ONCE / (rows * widest).max(1)).clamp(1, self.population.len().max(1));
        let x = self.examples.to_dense();
        for (piece, weights) in self.population.data().chunks(networks * dim).enumerate() {
            let count = weights.len() / dim;
            let network = LockStep::new(self.architecture, count, true)?;
            let theta = backend.upload(weights)?;
            for (part, x) in x.chunks(rows * features).enumerate() {
                let of_each = x.len() / features;
                let x = backend.upload(x)?;
                let pass = Pass { backend, theta: backend.view(&theta), rows: count * of_each, keep: false };
                let (z, _) = network.forward(pass, backend.view(&x), None)?;
                (self.each)([piece * networks, part * rows], &backend.download(backend.view(&z))?, of_each);
            }
        }
        Ok(())
    }
}
