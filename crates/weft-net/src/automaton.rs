//! Texture automata, grown: many steps of a small network in every cell of a torus.
//!
//! A step updates each cell with probability ½, independently, from a seeded stream: that is what breaks the symmetry of the
//! state 0 that a texture is grown from. Only cells that are updated are computed, as one product of matrices a layer.
//!
//! Shape legend: `m` cells that a step updates, `p` values that a cell sees, `u` hidden units, `c` channels.
//!
//! # References
//! Mordvintsev and Niklasson, "`μNCA`: texture generation with ultra-compact neural cellular automata" (2021).

use crate::{Error, Result};
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use weft_core::families::Automaton;
use weft_core::{Monitor, Population, Seed};
use weft_ops::kernels::{add_bias, matmul, transpose};

/// The probability that a cell is updated in a step.
const UPDATED: f32 = 0.5;
/// Steps over which a texture's change is measured, at its end.
const LAST_STEPS: usize = 16;
/// The smallest and the largest grid, and the most steps.
const SIDES: [usize; 2] = [3, 1024];
const MOST_STEPS: usize = 100_000;
/// Channels that are shown, as red, green and blue.
const COLORS: usize = 3;

/// How a texture is grown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Height and width of the torus, in cells: 3 to 1024.
    pub side: usize,
    /// Steps from the state 0: 16 to 100,000.
    pub steps: usize,
}

/// What an automaton has grown.
#[derive(Debug, Clone, PartialEq)]
pub struct Texture {
    /// Height and width, in pixels.
    pub side: usize,
    /// Colors `[side, side, 3]` in `[0, 1]`: the first three channels of the state, `s/2 + ½`.
    pub colors: Vec<f32>,
    /// Mean absolute change of a color over the last 16 steps: 0 of a picture that stands still.
    pub change: f64,
}

/// Grows one texture of each automaton, from a seed each.
///
/// The monitor hears of each texture, of a task that the caller started.
///
/// # Errors
/// [`Error::Interpret`] if the architecture is no texture automaton of at least three channels, the growth is out of its range, a
/// weight is not finite, or there is not one seed a network; [`Error::Interrupted`] after a stop.
pub fn grow(networks: &Population, growth: Growth, seeds: &[Seed], monitor: &Monitor<'_>) -> Result<Vec<Texture>> {
    let architecture = networks.architecture();
    let refuse = |reason: String| Error::Interpret { architecture: architecture.name().to_owned(), reason };
    let automaton = Automaton::of(architecture).ok_or_else(|| refuse("it is no texture automaton".to_owned()))?;
    if automaton.channels < COLORS {
        return Err(refuse(format!("a texture has {COLORS} colors, and a cell {} channels", automaton.channels)));
    }
    if !(SIDES[0]..=SIDES[1]).contains(&growth.side) || !(LAST_STEPS..=MOST_STEPS).contains(&growth.steps) {
        let Growth { side, steps } = growth;
        let [least, most] = SIDES;
        return Err(refuse(format!(
            "textures are grown on {least} to {most} cells a side in {LAST_STEPS} to {MOST_STEPS} steps, not {side} in {steps}"
        )));
    }
    if seeds.len() != networks.len() {
        return Err(refuse(format!("{} seeds are given for {} networks", seeds.len(), networks.len())));
    }
    if let Some(at) = networks.rows().position(|row| row.iter().any(|weight| !weight.is_finite())) {
        return Err(refuse(format!("network {at} has a weight that is not finite")));
    }
    let grown = AtomicU64::new(0);
    let of_one = |(row, &seed): (&[f32], &Seed)| {
        let mut torus = Torus::new(&automaton, networks, row, growth.side);
        let mut before = Vec::new();
        for step in 0..growth.steps {
            if monitor.should_stop() {
                return Err(Error::Interrupted);
            }
            if step == growth.steps - LAST_STEPS {
                before = torus.colors();
            }
            torus.step(seed.index(step as u64));
        }
        monitor.progress(grown.fetch_add(1, Ordering::Relaxed) + 1);
        let colors = torus.colors();
        let change = colors.iter().zip(&before).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / colors.len() as f64;
        Ok(Texture { side: growth.side, colors, change })
    };
    networks.data().par_chunks_exact(networks.dim()).zip(seeds).map(of_one).collect()
}

/// One automaton's cells, with what a step needs.
struct Torus {
    side: usize,
    channels: usize,
    /// `[cells, c]`.
    state: Vec<f32>,
    /// `[p, u]` and `[u]`, then `[u, c]` and `[c]`.
    weights: [Vec<f32>; 2],
    biases: [Vec<f32>; 2],
    /// Cells that the step updates, `[m]`, and what they see, `[m, p]`.
    updated: Vec<usize>,
    seen: Vec<f32>,
    hidden: Vec<f32>,
    delta: Vec<f32>,
}

impl Torus {
    fn new(automaton: &Automaton, networks: &Population, row: &[f32], side: usize) -> Self {
        let tensors = networks.architecture().tensors();
        let sizes = [[automaton.width, Automaton::PERCEPTION.len() * automaton.channels], [automaton.channels, automaton.width]];
        let weight = |layer: usize| {
            let mut transposed = vec![0.0; sizes[layer][0] * sizes[layer][1]];
            transpose(sizes[layer], &row[tensors[2 * layer].range()], &mut transposed);
            transposed
        };
        let bias = |layer: usize| row[tensors[2 * layer + 1].range()].to_vec();
        Self {
            side,
            channels: automaton.channels,
            state: vec![0.0; side * side * automaton.channels],
            weights: [weight(0), weight(1)],
            biases: [bias(0), bias(1)],
            updated: Vec::new(),
            seen: Vec::new(),
            hidden: Vec::new(),
            delta: Vec::new(),
        }
    }

    fn step(&mut self, seed: Seed) {
        let drawn = seed.uniforms(self.side * self.side);
        self.updated.clear();
        self.updated.extend(drawn.iter().enumerate().filter(|(_, u)| **u < UPDATED).map(|(cell, _)| cell));
        self.look();
        let (m, c, u) = (self.updated.len(), self.channels, self.biases[0].len());
        let p = Automaton::PERCEPTION.len() * c;
        self.hidden.resize(m * u, 0.0);
        add_bias(Some(&self.biases[0]), &mut self.hidden);
        matmul([m, u, p], &self.seen, false, &self.weights[0], &mut self.hidden);
        let [least, most] = Automaton::HIDDEN.map(|bound| bound as f32);
        self.hidden.iter_mut().for_each(|h| *h = h.clamp(least, most));
        self.delta.resize(m * c, 0.0);
        add_bias(Some(&self.biases[1]), &mut self.delta);
        matmul([m, c, u], &self.hidden, false, &self.weights[1], &mut self.delta);
        let [least, most] = Automaton::STATE.map(|bound| bound as f32);
        for (&cell, delta) in self.updated.iter().zip(self.delta.chunks_exact(c)) {
            let state = &mut self.state[cell * c..][..c];
            state.iter_mut().zip(delta).for_each(|(s, d)| *s = (*s + d).clamp(least, most));
        }
    }

    /// Gathers what the updated cells see, kernel by kernel.
    fn look(&mut self) {
        let (side, c) = (self.side, self.channels);
        self.seen.clear();
        self.seen.resize(self.updated.len() * Automaton::PERCEPTION.len() * c, 0.0);
        let cells = self.updated.iter().zip(self.seen.chunks_exact_mut(Automaton::PERCEPTION.len() * c));
        for (&cell, seen) in cells {
            let (row, column) = (cell / side + side, cell % side + side);
            let tap = |t: usize| ((row + t / 3 - 1) % side * side + (column + t % 3 - 1) % side) * c;
            let taps: [usize; 9] = std::array::from_fn(tap);
            for (kernel, out) in Automaton::PERCEPTION.iter().zip(seen.chunks_exact_mut(c)) {
                for (&weight, &at) in kernel.iter().zip(&taps).filter(|(weight, _)| **weight != 0.0) {
                    out.iter_mut().zip(&self.state[at..at + c]).for_each(|(o, s)| *o += weight * s);
                }
            }
        }
    }

    /// `[cells, 3]`, in `[0, 1]`.
    fn colors(&self) -> Vec<f32> {
        let shown = self.state.chunks_exact(self.channels).flat_map(|state| &state[..COLORS]);
        shown.map(|s| (s / 2.0 + 0.5).clamp(0.0, 1.0)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interpret_f32;
    use std::sync::Arc;
    use weft_core::families::Family;

    fn population(channels: usize, side: usize, networks: usize) -> Population {
        let family = Family::Automaton(Automaton { channels, width: 8, image: [side, side] });
        let architecture = Arc::new(family.build("a").unwrap());
        let weights = Seed::new(1).normals(networks * architecture.num_parameters()).iter().map(|w| w * 0.3).collect();
        Population::new(architecture, weights).unwrap()
    }

    /// Cells that a step updates are those of the architecture's own graph; the others stay.
    #[test]
    fn a_step_is_that_of_the_architecture_where_cells_are_updated() {
        let (channels, side) = (4, 5);
        let networks = population(channels, side, 1);
        let automaton = Automaton::of(networks.architecture()).unwrap();
        let mut torus = Torus::new(&automaton, &networks, networks.row(0), side);
        torus.state = Seed::new(2).normals(side * side * channels).iter().map(|s| s.clamp(-2.0, 2.0)).collect();
        let before = torus.state.clone();
        let area = side * side;
        let planes: Vec<f32> = (0..channels * area).map(|i| before[i % area * channels + i / area]).collect();
        let expected = interpret_f32(networks.architecture(), networks.row(0).into(), &planes).unwrap();
        torus.step(Seed::new(3));
        let num_updated = torus.updated.len();
        assert!(num_updated > 0 && num_updated < area);
        for cell in 0..area {
            for channel in 0..channels {
                let got = torus.state[cell * channels + channel];
                let is_updated = torus.updated.contains(&cell);
                let want = if is_updated { expected[channel * area + cell] } else { before[cell * channels + channel] };
                assert!((got - want).abs() < 1e-5, "cell {cell}, channel {channel}: {got} for {want}");
            }
        }
    }

    #[test]
    fn textures_depend_on_their_seed_alone() {
        let networks = population(4, 3, 2);
        let growth = Growth { side: 7, steps: 20 };
        let grow = |seeds: [u64; 2]| grow(&networks, growth, &seeds.map(Seed::new), &Monitor::silent()).unwrap();
        let textures = grow([1, 2]);
        assert_eq!(textures, grow([1, 2]));
        assert_eq!(textures[0].colors.len(), 7 * 7 * 3);
        assert!(textures[0] != grow([3, 2])[0] && textures[1] == grow([3, 2])[1]);
        assert!(textures.iter().all(|t| t.change > 0.0 && t.colors.iter().all(|c| (0.0..=1.0).contains(c))));
    }

    #[test]
    fn what_cannot_be_grown_is_refused() {
        let refused = |networks: &Population, side, steps, seeds: usize| {
            let seeds = vec![Seed::new(0); seeds];
            grow(networks, Growth { side, steps }, &seeds, &Monitor::silent()).unwrap_err().to_string()
        };
        let networks = population(4, 3, 1);
        assert!(refused(&networks, 2, 20, 1).contains("not 2 in 20"));
        assert!(refused(&networks, 8, 15, 1).contains("not 8 in 15"));
        assert!(refused(&networks, 8, 20, 2).contains("2 seeds are given for 1"));
        assert!(refused(&population(2, 3, 1), 8, 20, 1).contains("a cell 2 channels"));
        let mut broken = networks.clone();
        broken.data_mut()[3] = f32::NAN;
        assert!(refused(&broken, 8, 20, 1).contains("network 0 has a weight that is not finite"));
        let mlp = weft_core::Architecture::mlp("m", &[2, 2], weft_core::Activation::Relu).unwrap();
        assert!(refused(&Population::zeros(Arc::new(mlp), 1), 8, 20, 1).contains("no texture automaton"));
    }
}
