//! Merged *differences*: where all adapters grew from one, what each has learnt beyond it.
//!
//! With `ΔW` an adapter's update and `ΔW₀` that of the adapter which all started at, the differences `ΔWᵢ − ΔW₀` are merged to `D`, and the
//! result is `ΔW₀ + λ·D`, truncated to the adapters' rank. A difference is a low-rank update itself, of stacked factors: with
//! `ΔW = s·B·A`, it is `s·[Bᵢ, −B₀]·[Aᵢ; A₀]`, of twice the rank. Mergers that trim, elect and drop entries then see what was learnt, not
//! what all have in common.

use super::factors::set_of;
use crate::Result;
use weft_codec::adapter::merge::{MergeConfig, Method, merge};
use weft_codec::adapter::{AdapterSet, Adapters as _, Combined, Factors, combine};
use weft_core::families::Lora;
use weft_core::{Population, Seed};

/// Adapters less the one that they grew from.
pub(super) struct Differences<'a> {
    lora: &'a Lora,
    /// The one that they grew from.
    start: AdapterSet,
    /// The rest of each, of twice the rank.
    beyond: AdapterSet,
}

impl<'a> Differences<'a> {
    /// Of all adapters, from the first row of `start`.
    pub(super) fn new(lora: &'a Lora, adapters: &Population, start: &Population) -> Result<Self> {
        let (set, start) = (set_of(lora, adapters)?, set_of(lora, &start.select(&[0]))?);
        let of_adapter = |i: usize| {
            let sides = set.adapter(i).iter().zip(start.adapter(0)).zip(&lora.modules);
            sides.map(|((own, start), module)| less(own, start, module.fan_out)).collect::<Vec<_>>()
        };
        let beyond = AdapterSet::new(set.modules().to_vec(), (0..set.num_adapters()).map(of_adapter).collect())?;
        Ok(Self { lora, start, beyond })
    }

    /// The differences merged to one update, which has any rank.
    pub(super) fn merged(&self, method: Method, seed: Seed) -> Result<AdapterSet> {
        let rank = self.lora.modules.iter().map(|module| module.fan_out.min(module.fan_in)).max().unwrap_or(1);
        Ok(merge(&self.beyond, &MergeConfig { method, weights: None, rank, scaling: 1.0, seed })?.adapters)
    }

    /// The start and a multiple of a merged difference, truncated to the adapters' rank.
    pub(super) fn added(&self, merged: &AdapterSet, scale: f64) -> Result<Combined> {
        let mut both = self.start.clone();
        both.extend(merged.clone())?;
        let rank = self.lora.modules.iter().map(|module| module.rank).min().unwrap_or(1);
        Ok(combine(&both, None, (1, &|_, _| vec![1.0, scale]), (rank, 1.0))?)
    }
}

/// `s·[B, −B₀]·[A; A₀]`: an update less another, of factors with one scaling.
fn less(own: &Factors, start: &Factors, fan_out: usize) -> Factors {
    let rank = own.rank + start.rank;
    let ratio = (start.scaling / own.scaling) as f32;
    let mut b = Vec::with_capacity(fan_out * rank);
    for output in 0..fan_out {
        b.extend_from_slice(&own.b[output * own.rank..][..own.rank]);
        b.extend(start.b[output * start.rank..][..start.rank].iter().map(|b| -ratio * b));
    }
    Factors { rank, scaling: own.scaling, a: [own.a.as_slice(), &start.a].concat(), b }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::families::{Family, LoraModule};

    /// The update of factors, `[o, i]`.
    fn dense(factors: &Factors, [fan_out, fan_in]: [usize; 2]) -> Vec<f64> {
        let entry = |at: usize| {
            let (o, i) = (at / fan_in, at % fan_in);
            let terms =
                (0..factors.rank).map(|p| f64::from(factors.b[o * factors.rank + p]) * f64::from(factors.a[p * fan_in + i]));
            factors.scaling * terms.sum::<f64>()
        };
        (0..fan_out * fan_in).map(entry).collect()
    }

    fn near(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3)
    }

    #[test]
    fn differences_are_updates_less_the_start_and_come_back_to_it() {
        let (fan_out, fan_in) = (5, 4);
        let module = LoraModule { name: "q".to_owned(), fan_in, fan_out, rank: 2, scaling: 4.0 };
        let lora = Lora { modules: vec![module] };
        let architecture = Arc::new(Family::Lora(lora.clone()).build("tiny").unwrap());
        let rows = |n: usize, seed: u64| {
            Population::new(architecture.clone(), Seed::new(seed).normals(n * architecture.num_parameters())).unwrap()
        };
        let (own, start) = (rows(3, 1), rows(1, 2));
        let differences = Differences::new(&lora, &own, &start).unwrap();
        let of = |set: &AdapterSet, i: usize| dense(&set.adapter(i)[0], [fan_out, fan_in]);
        let (own, start) = (set_of(&lora, &own).unwrap(), of(&set_of(&lora, &start).unwrap(), 0));
        let beyond = |i: usize| of(&own, i).iter().zip(&start).map(|(own, start)| own - start).collect::<Vec<f64>>();
        for i in 0..3 {
            assert!(near(&of(&differences.beyond, i), &beyond(i)));
        }
        // The mean of differences is of full rank here, and nothing of it is lost before it is added.
        let mean: Vec<f64> = (0..20).map(|at| (0..3).map(|i| beyond(i)[at]).sum::<f64>() / 3.0).collect();
        let merged = differences.merged(Method::Mean, Seed::new(0)).unwrap();
        assert!(near(&of(&merged, 0), &mean));
        // None of it is the start itself, without loss; some of it is truncated to two ranks.
        let none = differences.added(&merged, 0.0).unwrap();
        assert!(near(&of(&none.adapters, 0), &start) && none.lost[0].fraction() < 1e-9);
        let half = differences.added(&merged, 0.5).unwrap();
        let whole: Vec<f64> = start.iter().zip(&mean).map(|(start, mean)| start + 0.5 * mean).collect();
        let missing: f64 = of(&half.adapters, 0).iter().zip(&whole).map(|(made, whole)| (made - whole).powi(2)).sum();
        let energy: f64 = whole.iter().map(|w| w * w).sum();
        assert_eq!(half.adapters.adapter(0)[0].rank, 2);
        assert!(missing > 0.0 && (half.lost[0].fraction() - missing / energy).abs() < 1e-4, "{missing} of {energy}");
    }
}
