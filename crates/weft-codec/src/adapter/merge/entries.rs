//! Entries of updates, merged one by one: trimming, dropping, electing signs.
//!
//! # References
//! Yadav et al. 2023, "TIES-Merging: resolving interference when merging models", algorithm 1; Yu et al. 2023, "Language models are
//! super Mario: absorbing abilities from homologous models as a free lunch", equations 2 to 4.

use super::{Factors, Module};
use crate::linalg::{product, rows_of, rows_of_mut};
use crate::{Error, Result};
use faer::{Accum, Mat};
use rayon::prelude::*;
use weft_core::Seed;

/// Values of all adapters that a thread forms at a time, unless a row has more.
const BLOCK_VALUES: usize = 1 << 21;

/// Which entries of an update are kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Keep {
    All,
    /// So large a part, those of largest size.
    Largest(f64),
    /// Each with so large a probability, over which it is divided then.
    Random(f64),
}

impl Keep {
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Largest(density) | Self::Random(density) if !(density > 0.0 && density <= 1.0) => {
                Err(Error::Setting { setting: "density", expected: "above 0 and at most 1", got: density.to_string() })
            }
            _ => Ok(()),
        }
    }
}

/// How entries become one.
pub(super) struct Rule {
    pub(super) keep: Keep,
    /// Whether only those count that agree with the sign of the weighted sum.
    pub(super) elect: bool,
    pub(super) scale: f64,
    pub(super) seed: Seed,
}

/// The part of all updates of a module that a thread works on.
struct Block {
    first_row: usize,
    rows: usize,
    /// `[n, rows, i]`.
    values: Vec<f32>,
}

impl Rule {
    /// Merges the updates of a module, `[o, i]`.
    pub(super) fn merge(&self, module: &Module, factors: &[Factors], weights: &[f64]) -> Mat<f64> {
        let (fan_out, fan_in, n) = (module.fan_out, module.fan_in, factors.len());
        let height = (BLOCK_VALUES / (n * fan_in).max(1)).clamp(1, fan_out.max(1));
        let floors: Vec<f32> = factors.iter().map(|factors| self.floor(factors, (fan_out, fan_in, height))).collect();
        let mut merged = vec![0.0_f32; fan_out * fan_in];
        if !merged.is_empty() {
            merged.par_chunks_mut(height * fan_in).enumerate().for_each(|(at, out)| {
                let (first_row, rows) = (at * height, out.len() / fan_in);
                let mut block = Block { first_row, rows, values: vec![0.0; n * out.len()] };
                for (i, factors) in factors.iter().enumerate() {
                    let own = &mut block.values[i * out.len()..(i + 1) * out.len()];
                    form(factors, first_row..first_row + rows, own, fan_in);
                    self.thin(module, (i, floors[i]), (first_row, fan_in), own);
                }
                self.reduce(&block, weights, out);
            });
        }
        Mat::from_fn(fan_out, fan_in, |o, i| f64::from(merged[o * fan_in + i]))
    }

    /// The size below which an update's entries are trimmed; 0 if none are.
    fn floor(&self, factors: &Factors, (fan_out, fan_in, height): (usize, usize, usize)) -> f32 {
        let Keep::Largest(density) = self.keep else { return 0.0 };
        let len = fan_out * fan_in;
        let kept = ((density * len as f64).ceil() as usize).min(len);
        if kept == len {
            return 0.0;
        }
        let mut values = vec![0.0_f32; len];
        // In the blocks in which they are merged, so that each entry is the same both times.
        values.par_chunks_mut(height * fan_in).enumerate().for_each(|(at, out)| {
            let first = at * height;
            form(factors, first..first + out.len() / fan_in, out, fan_in);
            for x in out {
                *x = x.abs();
            }
        });
        let (_, floor, _) = values.select_nth_unstable_by(len - kept, f32::total_cmp);
        *floor
    }

    /// Sets entries to zero that are not kept.
    fn thin(&self, module: &Module, (adapter, floor): (usize, f32), (first_row, fan_in): (usize, usize), values: &mut [f32]) {
        match self.keep {
            Keep::All => {}
            Keep::Largest(_) => values.iter_mut().filter(|x| x.abs() < floor).for_each(|x| *x = 0.0),
            Keep::Random(density) => {
                let seed = self.seed.fork("dare").fork(&module.name).index(adapter as u64);
                for (row, values) in values.chunks_exact_mut(fan_in).enumerate() {
                    let draws = seed.index((first_row + row) as u64).uniforms(fan_in);
                    for (x, draw) in values.iter_mut().zip(draws) {
                        *x = if f64::from(draw) < density { (f64::from(*x) / density) as f32 } else { 0.0 };
                    }
                }
            }
        }
    }

    /// Reduces the entries of all adapters to one.
    fn reduce(&self, block: &Block, weights: &[f64], out: &mut [f32]) {
        let len = out.len();
        debug_assert_eq!(len * weights.len(), block.values.len(), "rows {} to {}", block.first_row, block.first_row + block.rows);
        let all: f64 = weights.iter().sum();
        for (at, out) in out.iter_mut().enumerate() {
            let terms = weights.iter().enumerate().map(|(i, w)| (*w, w * f64::from(block.values[i * len + at])));
            let sum: f64 = terms.clone().map(|(_, x)| x).sum();
            let mean = if self.elect {
                let agree = terms.filter(|(_, x)| x * sum > 0.0);
                let (weight, sum) = agree.fold((0.0, 0.0), |(weight, sum), (w, x)| (weight + w.abs(), sum + x));
                if weight > 0.0 { sum / weight } else { 0.0 }
            } else {
                sum / all
            };
            *out = (self.scale * mean) as f32;
        }
    }
}

/// Forms rows of an update, row-major.
fn form(factors: &Factors, rows: std::ops::Range<usize>, out: &mut [f32], fan_in: usize) {
    let r = factors.rank;
    if r == 0 || out.is_empty() {
        out.fill(0.0);
        return;
    }
    let scale = factors.scaling;
    let b: Vec<f32> = factors.b[rows.start * r..rows.end * r].iter().map(|&x| (scale * f64::from(x)) as f32).collect();
    product(rows_of_mut(out, fan_in), Accum::Replace, rows_of(&b, r), rows_of(&factors.a, fan_in));
}
