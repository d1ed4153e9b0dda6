//! Linear combinations of adapters, as adapters of a rank.

use super::stack::{Leading, Update};
use super::{AdapterSet, Adapters, Factors, Grams, read};
use crate::{Error, Result};
use rayon::prelude::*;

/// Weights below this part of the largest are rounding, and left out.
const NEGLIGIBLE: f64 = 1e-12;

/// Bytes of factors, in f32 and in f64, after which no more modules are read before what was read is combined.
const AT_ONCE_BYTES: usize = 512 << 20;

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
/// Time is `O(m·R·(r + 10)·(i + o))` a combination. Modules are combined beside each other, as many as there are threads and as fit 512 MiB with one more; memory is theirs, in f32 and
/// f64, and the result's.
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
    let (n, modules) = (adapters.num_adapters(), adapters.modules());
    let mut made: Vec<Vec<Factors>> = vec![Vec::new(); num_combinations];
    let mut lost = vec![Lost::default(); num_combinations];
    let mut next = 0;
    while next < modules.len() {
        // Reading is one after the other, what is made of it is not.
        let mut read_in = Vec::new();
        let mut bytes = 0;
        while next < modules.len() && (read_in.is_empty() || read_in.len() < rayon::current_num_threads() && bytes < AT_ONCE_BYTES)
        {
            let factors = (0..n).map(|i| read(adapters, i, next)).collect::<Result<Vec<_>, _>>()?;
            let weights: Vec<Vec<f64>> = (0..num_combinations).map(|c| weights(c, next)).collect();
            weights.iter().try_for_each(|weights| check_weights(weights, n))?;
            bytes += factors.iter().map(|own| 12 * (own.a.len() + own.b.len())).sum::<usize>();
            let sides = [modules[next].fan_out, modules[next].fan_in];
            read_in.push(OneModule { sides, factors, weights, gram: grams.map(|grams| grams.module(next)) });
            next += 1;
        }
        let of_modules = read_in.into_par_iter().map(|module| module.combined(rank)).collect::<Result<Vec<_>>>()?;
        for leading in of_modules {
            for ((made, lost), leading) in made.iter_mut().zip(&mut lost).zip(leading) {
                lost.add(leading.energy, leading.lost());
                made.push(leading.factors(rank, scaling));
            }
        }
    }
    let adapters = AdapterSet::new(adapters.modules().to_vec(), made)?;
    Ok(Combined { adapters, lost })
}

/// A module's factors, and the weights of each combination.
struct OneModule<'a> {
    sides: [usize; 2],
    factors: Vec<Factors>,
    weights: Vec<Vec<f64>>,
    gram: Option<&'a [f64]>,
}

impl OneModule<'_> {
    /// What leads in each combination.
    fn combined(self, rank: usize) -> Result<Vec<Leading>> {
        let mut update = Update::stacked(self.sides, self.factors.iter().map(|own| (1.0, own)));
        let scalings: Vec<(usize, f64)> = self.factors.iter().map(|own| (own.rank, own.scaling)).collect();
        drop(self.factors);
        let of_combination = |weights: &Vec<f64>| {
            let floor = NEGLIGIBLE * weights.iter().fold(0.0, |most: f64, w| most.max(w.abs()));
            let kept = |weight: f64| if weight.abs() > floor { weight } else { 0.0 };
            let of_ranks = weights.iter().zip(&scalings);
            update.reweighted(of_ranks.flat_map(|(&w, &(rank, scaling))| std::iter::repeat_n(kept(w) * scaling, rank)));
            update.leading(rank, self.gram.map(|gram| quadratic(weights, gram)))
        };
        self.weights.iter().map(of_combination).collect()
    }
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

fn check_weights(weights: &[f64], n: usize) -> Result<()> {
    if weights.len() != n {
        return Err(Error::NumAdapters { what: "a combination", needed: "a weight for each of its", got: weights.len() });
    }
    match weights.iter().find(|w| !w.is_finite()) {
        None => Ok(()),
        Some(bad) => Err(Error::Setting { setting: "weight", expected: "finite", got: bad.to_string() }),
    }
}

/// `cᵀ·G·c`, not below 0.
pub(super) fn quadratic(c: &[f64], gram: &[f64]) -> f64 {
    let rows = c.iter().zip(gram.chunks_exact(c.len()));
    rows.map(|(ci, row)| ci * row.iter().zip(c).map(|(g, cj)| g * cj).sum::<f64>()).sum::<f64>().max(0.0)
}
