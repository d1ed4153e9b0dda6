//! Outputs and scores of populations in lock step, in pieces that fit in memory.

use super::LockStep;
use crate::{Device, Examples, Result};
use std::sync::Arc;
use weft_core::{Architecture, Op, Population};
use weft_ops::backend::{Backend, Job, on_device};
use weft_ops::tensor::{Network as _, Pass};

/// Values of the largest buffer at a time.
const VALUES_AT_ONCE: usize = 1 << 28;

/// Examples at a time.
const EXAMPLES_AT_ONCE: usize = 2_000;

/// The same where one example's largest buffer has `widest` values.
fn rows_at_once(widest: usize) -> usize {
    (VALUES_AT_ONCE / widest.max(1)).clamp(1, EXAMPLES_AT_ONCE)
}

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
        let widest = LockStep::new(self.architecture, 1, true)?.widest();
        let rows = rows_at_once(widest).min(self.examples.len());
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

/// Which units of each activation are ever other than 0: `[network][activation][unit]`, activations in the graph's order.
pub(crate) fn activity(population: &Population, examples: &Examples, device: &Device) -> Result<Vec<Vec<Vec<bool>>>> {
    on_device(device.candle(), Activity { population, examples })?
}

struct Activity<'a> {
    population: &'a Population,
    examples: &'a Examples,
}

impl Job for Activity<'_> {
    type Output = Result<Vec<Vec<Vec<bool>>>>;

    fn run<B: Backend + 'static>(self, backend: &B) -> Self::Output {
        let architecture = self.population.architecture();
        let nodes = architecture.nodes().iter().enumerate();
        let hidden: Vec<usize> = nodes.filter(|(_, n)| matches!(n.op, Op::Activation(_))).map(|(i, _)| i).collect();
        let (features, dim) = (architecture.num_inputs(), self.population.dim());
        let single = LockStep::new(architecture, 1, true)?;
        let rows = rows_at_once(single.widest()).min(self.examples.len());
        let networks = (VALUES_AT_ONCE / (rows * single.widest()).max(1)).clamp(1, self.population.len().max(1));
        let x = self.examples.to_dense();
        let mut found = Vec::with_capacity(self.population.len());
        for weights in self.population.data().chunks(networks * dim) {
            let count = weights.len() / dim;
            let network = LockStep::new(architecture, count, true)?;
            let theta = backend.upload(weights)?;
            let flags = hidden.iter().map(|&node| backend.zeros_wide(count * network.units(node)));
            let mut flags = flags.collect::<weft_ops::Result<Vec<_>>>()?;
            for x in x.chunks(rows * features) {
                let of_each = x.len() / features;
                let x = backend.upload(x)?;
                let pass = Pass { backend, theta: backend.view(&theta), rows: count * of_each, keep: false };
                network.forward_seen(pass, backend.view(&x), |node, values| {
                    let Some(at) = hidden.iter().position(|&h| h == node) else { return Ok(()) };
                    let (units, pixels) = (network.units(node), network.nodes[node].pixels);
                    backend.mark_active([count, of_each * pixels, units], values, &mut flags[at])
                })?;
            }
            let flags = flags.iter().map(|flags| backend.download_wide(flags)).collect::<weft_ops::Result<Vec<_>>>()?;
            for n in 0..count {
                let of_node = flags.iter().map(|flags| {
                    let units = flags.len() / count;
                    flags[n * units..][..units].iter().map(|&flag| flag != 0.0).collect()
                });
                found.push(of_node.collect());
            }
        }
        Ok(found)
    }
}
