//! Linear combinations of adapters, as adapters of a rank.

use super::stack::Update;
use super::{AdapterSet, Adapters, Factors, Grams, read};
use crate::{Error, Result};

/// Weights below this part of the largest are rounding, and left out.
const NEGLIGIBLE: f64 = 1e-12;

/// Adapters that were made of others.
#[derive(Debug, Clone, PartialEq)]
pub struct Combined {
    /// The adapters, one a combination.
    pub adapters: AdapterSet,
    /// What the truncation to their rank lost, one a combination.
    pub lost: Vec<Lost>,
}

/// What a truncation lost, in squares of Frobenius norms.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lost {
    /// The energy before, `‖ΔW‖²` summed over modules.
    pub energy: f64,
    /// The part of it that was cut off.
    pub lost: f64,
}

impl Lost {
    /// The energy lost, as a part of the whole; 0 where there was none.
    #[must_use]
    pub fn fraction(self) -> f64 {
        if self.energy > 0.0 { self.lost / self.energy } else { 0.0 }
    }

    pub(super) fn add(&mut self, energy: f64, lost: f64) {
        self.energy += energy;
        self.lost += lost;
    }
}

/// Makes adapters `Σⱼ cⱼ·ΔWⱼ`, truncated to a rank: for each module the nearest update of that rank.
///
/// `weights` gives the `n` weights `c` of a combination (first argument) in a module (second). The factors are balanced, `scaling` is
/// taken out of them. `grams`, where they are there, spare a product of the sum of all ranks.
///
/// Time is `O(m·R·(r + 10)·(i + o))` a combination, memory that of one module's factors in f64 and the result.
///
/// # Errors
/// [`Error::Setting`] for a rank of 0 or a scaling that is 0 or not finite, [`Error::NumAdapters`] for another number of weights, or
/// what reading returns.
///
/// # References
/// Eckart & Young 1936.
pub fn combine<A: Adapters + ?Sized>(
    adapters: &A,
    grams: Option<&Grams>,
    (num_combinations, weights): (usize, &dyn Fn(usize, usize) -> Vec<f64>),
    (rank, scaling): (usize, f64),
) -> Result<Combined, A::Error> {
    check(rank, scaling)?;
    let n = adapters.num_adapters();
    let mut made: Vec<Vec<Factors>> = vec![Vec::new(); num_combinations];
    let mut lost = vec![Lost::default(); num_combinations];
    for (at, module) in adapters.modules().iter().enumerate() {
        let sides = [module.fan_out, module.fan_in];
        let factors = (0..n).map(|i| read(adapters, i, at)).collect::<Result<Vec<_>, _>>()?;
        for (c, (made, lost)) in made.iter_mut().zip(&mut lost).enumerate() {
            let weights = weights(c, at);
            if weights.len() != n {
                return Err(
                    Error::NumAdapters { what: "a combination", needed: "a weight for each of its", got: weights.len() }.into()
                );
            }
            if let Some(bad) = weights.iter().find(|w| !w.is_finite()) {
                return Err(Error::Setting { setting: "weight", expected: "finite", got: bad.to_string() }.into());
            }
            let floor = NEGLIGIBLE * weights.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
            let terms = weights.iter().copied().zip(&factors).filter(|(w, _)| w.abs() > floor);
            let update = Update::stacked(sides, terms);
            let energy = grams.map(|grams| quadratic(&weights, grams.module(at)));
            let leading = update.leading(rank, energy)?;
            lost.add(leading.energy, leading.lost());
            made.push(leading.factors(rank, scaling));
        }
    }
    let adapters = AdapterSet::new(adapters.modules().to_vec(), made)?;
    Ok(Combined { adapters, lost })
}

pub(super) fn check(rank: usize, scaling: f64) -> Result<()> {
    if rank == 0 {
        return Err(Error::Setting { setting: "rank", expected: "1 or more", got: "0".to_owned() });
    }
    if !scaling.is_finite() || scaling == 0.0 {
        return Err(Error::Setting { setting: "scaling", expected: "finite and not 0", got: scaling.to_string() });
    }
    Ok(())
}

/// `cᵀ·G·c`, not below 0.
pub(super) fn quadratic(c: &[f64], gram: &[f64]) -> f64 {
    let rows = c.iter().zip(gram.chunks_exact(c.len()));
    rows.map(|(ci, row)| ci * row.iter().zip(c).map(|(g, cj)| g * cj).sum::<f64>()).sum::<f64>().max(0.0)
}
