//! Copies of training networks, changed only where the training data cannot see it: the sampler that must score
//! about 0 in every measure of novelty that deserves the name.

use crate::project::Linear;
use crate::{Error, Projection, Result};
use weft_core::{Architecture, Population, Seed};

/// Draws networks and changes them along every invisible direction, by as much as their weights are large.
///
/// Each copy gets a random softmax shift, random weights on dead inputs, and for each dead unit random outgoing
/// weights and a random positive scale of its incoming ones. Every class probability on the training images stays.
///
/// # Errors
/// [`Error::TooFew`] if `networks` is empty.
pub fn null_copies(projection: &Projection<'_>, networks: &Population, count: usize, seed: Seed) -> Result<Population> {
    if networks.is_empty() {
        return Err(Error::TooFew { what: "networks to copy", got: 0, least: 1 });
    }
    let picked: Vec<usize> = seed.fork("networks").indices(count, networks.len()).into_iter().map(|i| i as usize).collect();
    let mut copies = networks.select(&picked);
    let dead = projection.dead_units(&copies)?;
    let architecture = copies.architecture().clone();
    let d = architecture.num_parameters();
    for (i, (row, dead)) in copies.data_mut().chunks_exact_mut(d).zip(&dead).enumerate() {
        let seed = seed.fork("changes").index(i as u64);
        change_dead_units(projection, &architecture, row, dead, seed.fork("units"));
        change_dead_inputs(projection, &architecture, row, seed.fork("inputs"));
        // Two writers that are added may shift each on its own; the sum of shifts is a shift.
        for (j, linear) in projection.writers.iter().enumerate() {
            shift_outputs(&architecture, row, *linear, seed.fork("shift").index(j as u64));
        }
    }
    Ok(copies)
}

/// The root mean square of some weights.
fn rms(weights: &[f32]) -> f32 {
    (weights.iter().map(|w| w * w).sum::<f32>() / weights.len().max(1) as f32).sqrt()
}

fn shift_outputs(architecture: &Architecture, row: &mut [f32], linear: Linear, seed: Seed) {
    for (name, tensor) in [("weight", Some(linear.weight)), ("bias", linear.bias)] {
        let Some(tensor) = tensor.map(|t| &architecture.tensors()[t]) else { continue };
        let width = tensor.shape.get(1).copied().unwrap_or(1);
        let values = &mut row[tensor.range()];
        let scale = rms(values);
        let shift = seed.fork(name).normals(width);
        for output in values.chunks_exact_mut(width) {
            output.iter_mut().zip(&shift).for_each(|(w, s)| *w += scale * s);
        }
    }
}

fn change_dead_inputs(projection: &Projection<'_>, architecture: &Architecture, row: &mut [f32], seed: Seed) {
    let (tensors, width) = (architecture.tensors(), architecture.num_inputs());
    for (j, linear) in projection.readers.iter().enumerate() {
        let range = tensors[linear.weight].range();
        let units = range.len() / width;
        let scale = rms(&row[range.clone()]);
        let noise = seed.index(j as u64).normals(units * projection.dead_input_values().len());
        for (unit, noise) in noise.chunks_exact(projection.dead_input_values().len().max(1)).enumerate() {
            let mut constant = 0.0;
            for (&(input, value), z) in projection.dead_input_values().iter().zip(noise) {
                let weight = &mut row[range.start + unit * width + input];
                let new = scale * z;
                constant += (*weight - new) * value;
                *weight = new;
            }
            if let Some(bias) = linear.bias {
                row[tensors[bias].range().start + unit] += constant;
            }
        }
    }
}

fn change_dead_units(
    projection: &Projection<'_>,
    architecture: &Architecture,
    row: &mut [f32],
    dead: &[(usize, usize)],
    seed: Seed,
) {
    let tensors = architecture.tensors();
    for (j, &(activation, unit)) in dead.iter().enumerate() {
        let (hidden, seed) = (&projection.hidden[activation], seed.index(j as u64));
        let factor = seed.fork("scale").normals(1)[0].exp();
        for &tensor in &hidden.scales {
            hidden.part(tensors[tensor].range(), row, unit).iter_mut().for_each(|w| *w *= factor);
        }
        for (k, &weight) in hidden.outgoing.iter().enumerate() {
            let (range, outputs) = (tensors[weight].range(), tensors[weight].shape[0]);
            let scale = rms(&row[range.clone()]);
            let noise = seed.fork("outgoing").index(k as u64).normals(range.len() / hidden.units);
            let parts = hidden.outgoing_parts(&mut row[range], outputs, unit);
            parts.flatten().zip(noise).for_each(|(w, z)| *w = scale * z);
        }
    }
}
