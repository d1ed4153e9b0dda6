//! An adapter with its values.

use super::AdapterFault;
use crate::source::AdapterKind;
use crate::tensors::{Metadata, first_non_finite};
use std::collections::BTreeSet;
use weft_core::RopePairs;

/// A low-rank adapter: what it adds to a base model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AdapterWeights {
    /// The base model as the adapter names it: a repository, a folder.
    pub base: Option<String>,
    /// The updates, in the order of their modules' names.
    pub updates: Vec<AdapterUpdate>,
    /// Tensors of the base that the adapter has whole, in the order of their names.
    pub whole: Vec<WholeTensor>,
    /// Whether the base stores its linear maps in × out, as GPT-2 does; factors are the same either way.
    pub fan_in_fan_out: bool,
    /// In which order the rows of queries and keys stand, where the adapter says it; PEFT takes halves.
    pub rotary: Option<RopePairs>,
    /// What the file said beside its tensors.
    pub metadata: Metadata,
}

/// The update of one module: `ΔW = s·B·A`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterUpdate {
    /// The module's name in the base, such as `model.layers.0.self_attn.q_proj`.
    pub module: String,
    /// What it is. A table of embeddings has its entries as inputs: it stores the transpose of `ΔW`.
    pub kind: AdapterKind,
    /// The rank, `r`.
    pub rank: usize,
    /// Inputs; for a convolution, channels times the taps of its kernel.
    pub fan_in: usize,
    /// Outputs.
    pub fan_out: usize,
    /// The extents of a convolution's kernel; empty for others.
    pub kernel: Vec<usize>,
    /// The factor `s`.
    pub scaling: f64,
    /// The first factor: r × in.
    pub a: Vec<f32>,
    /// The second factor: out × r.
    pub b: Vec<f32>,
    /// A bias of the second factor: out.
    pub b_bias: Option<Vec<f32>>,
    /// The magnitudes of DoRA: out.
    pub magnitude: Option<Vec<f32>>,
}

/// A tensor of the base that an adapter replaces.
#[derive(Debug, Clone, PartialEq)]
pub struct WholeTensor {
    /// Its name in the base.
    pub name: String,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its values.
    pub values: Vec<f32>,
}

impl WholeTensor {
    /// Whether it is the base's own weight of an updated module, which PEFT saves beside updates of embeddings.
    #[must_use]
    pub fn is_base_layer(&self) -> bool {
        self.name.ends_with(".base_layer.weight")
    }

    /// The module that it is the weight of, if it is one.
    pub(super) fn module(&self) -> Option<&str> {
        let module = self.name.strip_suffix(".weight")?;
        Some(module.strip_suffix(".base_layer").unwrap_or(module))
    }
}

impl AdapterUpdate {
    /// A linear map's update.
    #[must_use]
    pub fn linear(module: &str, [fan_out, rank, fan_in]: [usize; 3], a: Vec<f32>, b: Vec<f32>) -> Self {
        Self {
            module: module.to_owned(),
            kind: AdapterKind::Linear,
            rank,
            fan_in,
            fan_out,
            kernel: Vec::new(),
            scaling: 1.0,
            a,
            b,
            b_bias: None,
            magnitude: None,
        }
    }

    /// Whether direction and magnitude are apart (DoRA).
    #[must_use]
    pub fn is_dora(&self) -> bool {
        self.magnitude.is_some()
    }

    /// The extents of the first factor in a file.
    #[must_use]
    pub fn a_shape(&self) -> Vec<usize> {
        let taps = self.kernel.iter().product::<usize>().max(1);
        let mut shape = vec![self.rank, self.fan_in / taps];
        shape.extend(&self.kernel);
        shape
    }

    /// The extents of the second factor in a file.
    #[must_use]
    pub fn b_shape(&self) -> Vec<usize> {
        let mut shape = vec![self.fan_out, self.rank];
        shape.resize(2 + self.kernel.len(), 1);
        shape
    }

    /// The number of values in both factors.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.rank * (self.fan_in + self.fan_out)
    }

    /// Whether the update is zero, because a factor is, or the scaling.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        let zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
        self.scaling == 0.0 || zero(&self.a) || zero(&self.b)
    }

    /// The Frobenius norm of `s·B·A`, without the product: `|s|·√tr((BᵀB)(AAᵀ))`.
    #[must_use]
    pub fn norm(&self) -> f64 {
        // Row r of A against rows 0..=r, and the same of Bᵀ.
        let dot = |x: &mut dyn Iterator<Item = (f32, f32)>| x.map(|(x, y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let row = |i: usize| self.a[i * self.fan_in..(i + 1) * self.fan_in].iter().copied();
        let column = |i: usize| self.b[i..].iter().step_by(self.rank).copied();
        let mut trace = 0.0;
        for i in 0..self.rank {
            for j in 0..=i {
                let product = dot(&mut row(i).zip(row(j))) * dot(&mut column(i).zip(column(j)));
                trace += if i == j { product } else { 2.0 * product };
            }
        }
        self.scaling.abs() * trace.max(0.0).sqrt()
    }

    /// Checks sizes and values.
    ///
    /// # Errors
    /// [`AdapterFault::Size`] and [`AdapterFault::NonFinite`].
    pub fn check(&self) -> Result<(), AdapterFault> {
        let parts = [
            ("lora_A", Some(&self.a), self.rank.saturating_mul(self.fan_in)),
            ("lora_B", Some(&self.b), self.rank.saturating_mul(self.fan_out)),
            ("lora_B.bias", self.b_bias.as_ref(), self.fan_out),
            ("lora_magnitude_vector", self.magnitude.as_ref(), self.fan_out),
        ];
        for (part, values, expected) in parts {
            let Some(values) = values else { continue };
            let (module, got) = (self.module.clone(), values.len());
            if got != expected || expected == 0 {
                return Err(AdapterFault::Size { module, part, expected, got });
            }
            if let Some(index) = first_non_finite(values) {
                return Err(AdapterFault::NonFinite { module, part, index });
            }
        }
        if !self.scaling.is_finite() {
            return Err(AdapterFault::NonFinite { module: self.module.clone(), part: "scaling", index: 0 });
        }
        Ok(())
    }
}

impl AdapterWeights {
    /// Sorts modules and tensors by name and checks all of them.
    ///
    /// # Errors
    /// [`AdapterFault`]: nothing in it, a module that stands twice, sizes that disagree, NaN and infinities. An update that is
    /// zero is allowed.
    pub fn checked(mut self) -> Result<Self, AdapterFault> {
        if self.updates.is_empty() && self.whole.is_empty() {
            return Err(AdapterFault::Empty);
        }
        self.updates.sort_by(|x, y| x.module.cmp(&y.module));
        self.whole.sort_by(|x, y| x.name.cmp(&y.name));
        let mut seen = BTreeSet::new();
        for update in &self.updates {
            if !seen.insert(update.module.as_str()) {
                return Err(AdapterFault::Duplicate { module: update.module.clone() });
            }
            update.check()?;
        }
        for tensor in &self.whole {
            if !seen.insert(tensor.name.as_str()) {
                return Err(AdapterFault::Duplicate { module: tensor.name.clone() });
            }
            let (expected, got) = (tensor.shape.iter().product::<usize>(), tensor.values.len());
            let module = tensor.name.clone();
            if expected != got {
                return Err(AdapterFault::Size { module, part: "the tensor", expected, got });
            }
            if let Some(index) = first_non_finite(&tensor.values) {
                return Err(AdapterFault::NonFinite { module, part: "the tensor", index });
            }
        }
        Ok(self)
    }

    /// The number of values in all factors and whole tensors.
    #[must_use]
    pub fn num_values(&self) -> usize {
        let extras = |u: &AdapterUpdate| [&u.b_bias, &u.magnitude].into_iter().flatten().map(Vec::len).sum::<usize>();
        let updates: usize = self.updates.iter().map(|u| u.num_values() + extras(u)).sum();
        updates + self.whole.iter().map(|tensor| tensor.values.len()).sum::<usize>()
    }

    /// The modules whose update is zero.
    pub fn zero_modules(&self) -> impl Iterator<Item = &str> {
        self.updates.iter().filter(|update| update.is_zero()).map(|update| update.module.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update() -> AdapterUpdate {
        AdapterUpdate::linear("m.q", [2, 2, 3], vec![1.0, 0.0, 2.0, 0.5, -1.0, 0.0], vec![1.0, 2.0, 0.0, -3.0])
    }

    #[test]
    fn the_norm_is_that_of_the_product() {
        let update = AdapterUpdate { scaling: -0.5, ..update() };
        // B·A = [[2, -2, 2], [-1.5, 3, 0]].
        let expected = 0.5 * (4.0_f64 + 4.0 + 4.0 + 2.25 + 9.0).sqrt();
        assert!((update.norm() - expected).abs() < 1e-12);
        assert!(!update.is_zero());
        assert!(AdapterUpdate { b: vec![0.0; 4], ..update.clone() }.is_zero());
        assert!(AdapterUpdate { scaling: 0.0, ..update }.is_zero());
    }

    #[test]
    fn what_disagrees_is_refused() {
        let one = |update: AdapterUpdate| AdapterWeights { updates: vec![update], ..AdapterWeights::default() }.checked();
        assert!(one(update()).is_ok());
        assert_eq!(AdapterWeights::default().checked(), Err(AdapterFault::Empty));
        let short = one(AdapterUpdate { fan_out: 3, ..update() }).unwrap_err();
        assert_eq!(short.to_string(), "module `m.q`: `lora_B` has 4 values, its shape speaks of 6");
        let nan = one(AdapterUpdate { b: vec![1.0, f32::NAN, 0.0, 0.0], ..update() }).unwrap_err();
        assert_eq!(nan.to_string(), "module `m.q`: value 1 of `lora_B` is not finite");
        assert!(one(AdapterUpdate { scaling: f64::INFINITY, ..update() }).is_err());
        let twice = AdapterWeights { updates: vec![update(), update()], ..AdapterWeights::default() }.checked();
        assert_eq!(twice, Err(AdapterFault::Duplicate { module: "m.q".to_owned() }));
    }
}
