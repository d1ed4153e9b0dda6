//! Sentence classification without a head: the classes' names are encoded like the sentences.
//!
//! The rows are few and short here, so this is done on the host in `f64`, in one order.

use super::task::Classes;
use rayon::prelude::*;

/// What the cosine of a sentence and a class's name is multiplied by.
pub const TEMPERATURE: f64 = 20.0;

/// Losses of adapters, and of classifiers how many sentences they got right.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) losses: Vec<f64>,
    pub(super) correct: Vec<usize>,
}

/// A vector of length 1, and the length that it had.
pub(super) fn unit(x: &[f32]) -> (Vec<f64>, f64) {
    let length = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt().max(1e-12);
    (x.iter().map(|&v| f64::from(v) / length).collect(), length)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean cross-entropies of the cosines' softmax, and their gradient with respect to the pooled rows: of sentences and of names alike.
///
/// # Shapes
/// `pooled` `[n, sequences, d]` → `[n]`, `[n, sequences, d]`.
pub(super) fn classify([sequences, d]: [usize; 2], pooled: &[f32], of_networks: &[Classes]) -> (Outcome, Vec<f32>) {
    let mut gradient = vec![0.0; pooled.len()];
    let of_network = sequences * d;
    let results: Vec<(f64, usize)> = gradient
        .par_chunks_mut(of_network)
        .zip(pooled.par_chunks(of_network).zip(of_networks))
        .map(|(gradient, (pooled, classes))| network(d, pooled, classes, gradient))
        .collect();
    let (losses, correct) = results.into_iter().unzip();
    (Outcome { losses, correct }, gradient)
}

fn network(d: usize, pooled: &[f32], classes: &Classes, gradient: &mut [f32]) -> (f64, usize) {
    let count = classes.names + classes.labels.len();
    let units: Vec<(Vec<f64>, f64)> = pooled.chunks_exact(d).take(count).map(unit).collect();
    let (names, sentences) = units.split_at(classes.names);
    let mut d_units = vec![vec![0.0; d]; count];
    let share = 1.0 / classes.labels.len() as f64;
    let all: Vec<u32> = (0..classes.names as u32).collect();
    let (mut loss, mut correct) = (0.0, 0);
    for (s, ((sentence, _), &label)) in sentences.iter().zip(&classes.labels).enumerate() {
        let among = classes.among.as_ref().map_or(&all[..], |among| &among[s]);
        let logits: Vec<f64> = among.iter().map(|&c| TEMPERATURE * dot(sentence, &names[c as usize].0)).collect();
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = logits.iter().map(|z| (z - max).exp()).sum();
        let of_label = TEMPERATURE * dot(sentence, &names[label as usize].0);
        loss += share * (total.ln() - (of_label - max));
        correct += usize::from(among.iter().zip(&logits).all(|(&c, &z)| c == label || z < of_label));
        for (&class, z) in among.iter().zip(&logits) {
            let target = if class == label { 1.0 } else { 0.0 };
            let dz = share * TEMPERATURE * ((z - max).exp() / total - target);
            let (c, name) = (class as usize, &names[class as usize].0);
            d_units[c].iter_mut().zip(sentence).for_each(|(d, v)| *d += dz * v);
            d_units[classes.names + s].iter_mut().zip(name).for_each(|(d, v)| *d += dz * v);
        }
    }
    for ((gradient, (unit, length)), d_unit) in gradient.chunks_exact_mut(d).zip(&units).zip(&d_units) {
        let along = dot(unit, d_unit);
        gradient.iter_mut().zip(unit.iter().zip(d_unit)).for_each(|(g, (u, d))| *g = ((d - along * u) / length) as f32);
    }
    (loss, correct)
}
