//! The portable form of an adapter, which every runtime takes: one rank, no scaling, plain updates.
//!
//! Ranks grow by rows and columns of zeros, which leaves `B·A` as it is. The scaling goes into `B`: it is exact where it is
//! a power of two, and rounds each value once otherwise. Magnitudes of DoRA go where the base is known and the result is a
//! low-rank update: rows whose magnitude is their norm (to 10⁻⁶) are plain, and every other row `o` takes one more rank,
//! as its update `g·s·B[o]·A + (g − 1)·W[o]` with `g = m[o] / ‖W[o] + s·B[o]·A‖` needs the base's own row.
//!
//! # References
//! Liu et al., "DoRA" (2024), equation 5; PEFT's `DoraLinearLayer.get_weight_norm`. Ranks: vLLM, `LoRAConfig.max_lora_rank`.

use super::base::{BaseModel, Prefix};
use super::{AdapterFault, AdapterUpdate, AdapterWeights};
use crate::Result;
use crate::source::AdapterKind;

/// The ranks that every runtime takes.
pub const PORTABLE_RANKS: [usize; 7] = [1, 8, 16, 32, 64, 128, 256];

/// The most values of a portable adapter: 8 GiB. One module of a high rank asks all others for it.
const MAX_PORTABLE_VALUES: usize = 1 << 31;

/// A row's magnitude is its norm up to this part of it; what PEFT computes differs by as much between machines.
const SAME_NORM: f64 = 1e-6;

impl AdapterUpdate {
    /// The same update with scaling 1.
    fn baked(mut self) -> Self {
        // Equal bits: a scaling near 1 still has to go in.
        if self.scaling.to_bits() != 1.0_f64.to_bits() {
            for value in &mut self.b {
                *value = (f64::from(*value) * self.scaling) as f32;
            }
            self.scaling = 1.0;
        }
        self
    }

    /// The same update with a larger rank.
    fn padded(self, rank: usize) -> Self {
        let mut a = self.a;
        a.resize(rank * self.fan_in, 0.0);
        let mut b = vec![0.0; self.fan_out * rank];
        for (wide, row) in b.chunks_exact_mut(rank).zip(self.b.chunks_exact(self.rank)) {
            wide[..self.rank].copy_from_slice(row);
        }
        Self { rank, a, b, ..self }
    }
}

impl AdapterWeights {
    /// The same adapter with scaling 1 everywhere.
    #[must_use]
    pub fn baked(self) -> Self {
        Self { updates: self.updates.into_iter().map(AdapterUpdate::baked).collect(), ..self }
    }

    /// The same adapter with scaling 1 and one rank of [`PORTABLE_RANKS`], the smallest that holds all modules.
    ///
    /// # Errors
    /// [`AdapterFault::Rank`] beyond the largest, [`AdapterFault::NotHeld`] for magnitudes (DoRA) and biases, each by name.
    pub fn portable(self) -> Result<Self, AdapterFault> {
        let rank = self.portable_rank()?;
        let adapter = self.baked();
        let padded = |update: AdapterUpdate| if update.rank == rank { update } else { update.padded(rank) };
        Ok(Self { updates: adapter.updates.into_iter().map(padded).collect(), ..adapter })
    }

    /// The one rank of a portable adapter, if it can be one.
    pub(super) fn portable_rank(&self) -> Result<usize, AdapterFault> {
        let limit = PORTABLE_RANKS[PORTABLE_RANKS.len() - 1];
        for update in &self.updates {
            self::plain(update, "a portable adapter")?;
            if update.rank > limit {
                return Err(AdapterFault::Rank { module: update.module.clone(), rank: update.rank, limit });
            }
        }
        let largest = self.updates.iter().map(|update| update.rank).max().unwrap_or(1);
        let rank = PORTABLE_RANKS.into_iter().find(|&rank| rank >= largest).unwrap_or(limit);
        let widths = self.updates.iter().map(|update| update.fan_in.saturating_add(update.fan_out));
        let values = widths.fold(0_usize, usize::saturating_add).saturating_mul(rank);
        if values > MAX_PORTABLE_VALUES {
            let what = format!("it has {values} values at the one rank {rank}");
            return Err(AdapterFault::NotHeld { what, target: "a portable adapter" });
        }
        Ok(rank)
    }

    /// The same adapter without magnitudes, where it is one: see the page's top.
    ///
    /// # Errors
    /// [`AdapterFault::NotHeld`] for a module whose update has no low rank, is no linear map, or whose weight is not known;
    /// those of [`BaseModel::check`] and of reading the base.
    pub fn without_magnitudes(self, base: &BaseModel) -> Result<Self> {
        if self.updates.iter().all(|update| update.magnitude.is_none()) {
            return Ok(self);
        }
        let path = std::path::Path::new(base.name());
        let prefix = base.check(&self, true).map_err(|fault| fault.at(path))?;
        let transposed = self.fan_in_fan_out;
        let plain = |update| plain_of_dora(update, base, &prefix, transposed);
        Ok(Self { updates: self.updates.into_iter().map(plain).collect::<Result<_>>()?, ..self })
    }
}

/// Refuses what is more than two factors.
pub(super) fn plain(update: &AdapterUpdate, target: &'static str) -> Result<(), AdapterFault> {
    let module = &update.module;
    if update.magnitude.is_some() {
        let what = format!("module `{module}` has magnitudes (DoRA)");
        return Err(AdapterFault::NotHeld { what, target });
    }
    if update.b_bias.is_some() {
        return Err(AdapterFault::NotHeld { what: format!("module `{module}` has a bias (`lora_bias`)"), target });
    }
    Ok(())
}

fn plain_of_dora(mut update: AdapterUpdate, base: &BaseModel, prefix: &Prefix, transposed: bool) -> Result<AdapterUpdate> {
    let Some(magnitude) = update.magnitude.take() else { return Ok(update) };
    let (module, path) = (update.module.clone(), std::path::Path::new(base.name()));
    let refuse = |why: String| {
        let what = format!("module `{module}` has magnitudes (DoRA){why}");
        AdapterFault::NotHeld { what, target: "a plain low-rank update" }.at(path)
    };
    if update.kind != AdapterKind::Linear {
        return Err(refuse(" and is no linear map".to_owned()));
    }
    let name = prefix.apply(&module).unwrap_or_else(|| module.clone());
    let Some(weight) = base.weight(&name)? else { return Err(refuse(" and its base weight is not there".to_owned())) };
    let (rank, fan_in, fan_out) = (update.rank, update.fan_in, update.fan_out);
    let base_row = |o: usize| -> Vec<f32> {
        let at = |i: usize| if transposed { weight[i * fan_out + o] } else { weight[o * fan_in + i] };
        (0..fan_in).map(at).collect()
    };
    let (mut gains, mut others) = (Vec::with_capacity(fan_out), Vec::new());
    for (o, &magnitude) in magnitude.iter().enumerate() {
        let mut row: Vec<f64> = base_row(o).into_iter().map(f64::from).collect();
        for (&b, a) in update.b[o * rank..(o + 1) * rank].iter().zip(update.a.chunks_exact(fan_in)) {
            let factor = update.scaling * f64::from(b);
            row.iter_mut().zip(a).for_each(|(value, &a)| *value += factor * f64::from(a));
        }
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        let gain = f64::from(magnitude) / norm;
        if !gain.is_finite() {
            return Err(refuse(format!("; row {o} of the adapted weight is zero")));
        }
        if (gain - 1.0).abs() > SAME_NORM {
            others.push(o);
        }
        gains.push(gain);
    }
    let limit = PORTABLE_RANKS[PORTABLE_RANKS.len() - 1];
    if rank + others.len() > limit {
        let why = format!(
            "; {} of its {fan_out} rows change their norm, so that the update has rank {}",
            others.len(),
            rank + others.len()
        );
        return Err(refuse(why));
    }
    let mut update = update.baked();
    if others.is_empty() {
        return Ok(update);
    }
    update = update.padded(rank + others.len());
    for (k, &o) in others.iter().enumerate() {
        let row = &mut update.b[o * (rank + others.len())..(o + 1) * (rank + others.len())];
        row[..rank].iter_mut().for_each(|value| *value = (f64::from(*value) * gains[o]) as f32);
        row[rank + k] = (gains[o] - 1.0) as f32;
        update.a[(rank + k) * fan_in..(rank + k + 1) * fan_in].copy_from_slice(&base_row(o));
    }
    Ok(update)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensors::write_tensors;

    /// `s·B·A`, out × in.
    fn product(update: &AdapterUpdate) -> Vec<f64> {
        let mut product = Vec::with_capacity(update.fan_out * update.fan_in);
        for b in update.b.chunks_exact(update.rank) {
            for i in 0..update.fan_in {
                let terms = b.iter().enumerate().map(|(r, &b)| f64::from(b) * f64::from(update.a[r * update.fan_in + i]));
                product.push(update.scaling * terms.sum::<f64>());
            }
        }
        product
    }

    fn close(x: &[f64], y: &[f64]) -> bool {
        x.len() == y.len() && x.iter().zip(y).all(|(x, y)| (x - y).abs() < 1e-5)
    }

    fn update(module: &str, rank: usize, scaling: f64) -> AdapterUpdate {
        let values = |len: usize, step: f32| (0..len).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        AdapterUpdate { scaling, ..AdapterUpdate::linear(module, [4, rank, 3], values(rank * 3, 0.7), values(4 * rank, 1.3)) }
    }

    #[test]
    fn one_rank_and_no_scaling_and_the_same_product() {
        let updates = vec![update("a", 3, 0.3), update("b", 9, 2.0), update("c", 16, 1.0)];
        let adapter = AdapterWeights { updates, ..AdapterWeights::default() };
        let portable = adapter.clone().portable().unwrap().checked().unwrap();
        for (was, is) in adapter.updates.iter().zip(&portable.updates) {
            assert_eq!((is.rank, is.scaling), (16, 1.0));
            assert!(close(&product(was), &product(is)), "{}", was.module);
            assert!((was.norm() - is.norm()).abs() < 1e-5);
        }
        let wide = AdapterWeights { updates: vec![update("a", 257, 1.0)], ..AdapterWeights::default() };
        let error = wide.portable().unwrap_err().to_string();
        assert_eq!(error, "module `a` has rank 257; a portable adapter has at most 256");
    }

    /// The adapted weight of DoRA, by its definition.
    fn dora(update: &AdapterUpdate, weight: &[f32]) -> Vec<f64> {
        let mut adapted: Vec<f64> = weight.iter().zip(product(update)).map(|(&w, d)| f64::from(w) + d).collect();
        for (row, &m) in adapted.chunks_exact_mut(update.fan_in).zip(update.magnitude.as_ref().unwrap()) {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            for v in row {
                *v *= f64::from(m) / norm;
            }
        }
        adapted
    }

    #[test]
    fn magnitudes_go_where_the_update_stays_low_rank() {
        let dir = tempfile::tempdir().unwrap();
        let weight: Vec<f32> = (0..12).map(|i| (i as f32).cos() + 0.2).collect();
        let tensors = [("h.q.weight".to_owned(), vec![4, 3], weight.as_slice())];
        write_tensors(&dir.path().join("model.safetensors"), &tensors, &crate::Metadata::new()).unwrap();
        let base = BaseModel::open(dir.path()).unwrap();
        let plain = update("h.q", 2, 0.5);
        let adapted: Vec<f64> = weight.iter().zip(product(&plain)).map(|(&w, d)| f64::from(w) + d).collect();
        let norms: Vec<f32> = adapted.chunks_exact(3).map(|row| row.iter().map(|v| v * v).sum::<f64>().sqrt() as f32).collect();
        for factors in [[1.0, 1.0, 1.0, 1.0], [1.0, 1.5, 1.0, 0.25]] {
            let magnitude = norms.iter().zip(factors).map(|(norm, factor)| norm * factor).collect();
            let with = AdapterUpdate { magnitude: Some(magnitude), ..plain.clone() };
            let expected: Vec<f64> = dora(&with, &weight).iter().zip(&weight).map(|(v, &w)| v - f64::from(w)).collect();
            let adapter = AdapterWeights { updates: vec![with], ..AdapterWeights::default() };
            assert!(adapter.clone().portable().unwrap_err().to_string().contains("`h.q` has magnitudes (DoRA)"));
            let without = adapter.without_magnitudes(&base).unwrap();
            let rank = 2 + factors.iter().filter(|&&factor: &&f32| (factor - 1.0).abs() > 0.1).count();
            assert_eq!((without.updates[0].rank, without.updates[0].magnitude.is_some()), (rank, false));
            assert!(close(&product(&without.updates[0]), &expected), "{factors:?}");
        }
    }
}
