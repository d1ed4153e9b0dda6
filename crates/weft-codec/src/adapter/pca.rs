//! Principal components of adapters in the space of their updates.
//!
//! With the centered products `⟨ΔWᵢ − M, ΔWⱼ − M⟩`, where `M` is the mean update, eigenvectors `u` and eigenvalues `λ` of these over
//! `n − 1`, component `k` is `√λₖ·vₖ = Σᵢ uᵢₖ·(ΔWᵢ − M)/√(n−1)` and the code of adapter `i` is `zᵢₖ = √(n−1)·uᵢₖ`, of unit variance. A
//! component is a combination of the adapters, so nothing but codes is stored, and decoding combines the adapters again:
//!
//! ```text
//! ΔW = M + Σₖ zₖ·√λₖ·vₖ = Σᵢ cᵢ·ΔWᵢ        cᵢ = 1/n + Σₖ zₖ·zᵢₖ/(n − 1)
//! ```
//!
//! The sum has the rank of all adapters together; it is truncated to the rank asked for, and what that loses is told.

use super::combine::Combined;
use super::{Adapters, CrossGrams, Grams, Module, combine, same_modules};
use crate::linalg::SymmetricSum;
use crate::pca::{check_rank, choose_rank};
use crate::persist::{SPECTRUM, TOTAL, take};
use crate::{Error, Rank, Result};
use std::collections::BTreeMap;

const CODES: &str = "codes";

/// What has components of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// Whole adapters: a code of `k` values moves all modules together.
    Adapter,
    /// Each module: a shared subspace and coefficients in it for each, `k` values a module.
    Module,
}

impl Per {
    /// The word for it: `adapter` or `module`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Module => "module",
        }
    }
}

/// A PCA codec of adapters whose basis is the adapters that it was fitted on.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterPca {
    per: Per,
    modules: Vec<Module>,
    num_adapters: usize,
    /// One, or one a module.
    parts: Vec<Part>,
    /// All parts' codes side by side, `[n, k]`.
    codes: Vec<f32>,
}

/// The components of whole adapters or of a module; a module in which adapters do not differ has none.
#[derive(Debug, Clone, PartialEq)]
struct Part {
    rank: usize,
    /// Of the adapters, `[n, rank]`.
    codes: Vec<f32>,
    /// Eigenvalues, largest first.
    spectrum: Vec<f32>,
    total_variance: f32,
}

impl AdapterPca {
    /// Fits the codec.
    ///
    /// A fixed rank is that of each module with [`Per::Module`], where it may exceed what a module has: that then keeps all its
    /// components.
    ///
    /// # Errors
    /// [`Error::NumAdapters`] for fewer than two adapters, [`Error::NoVariance`] if all are the same, [`Error::Rank`] or
    /// [`Error::KeptVariance`] for a rank that there is not.
    pub fn fit(grams: &Grams, per: Per, rank: Rank) -> Result<Self> {
        let n = grams.num_adapters();
        if n < 2 {
            return Err(Error::NumAdapters { what: "principal components", needed: "2 or more", got: n });
        }
        let parts = match per {
            Per::Adapter => vec![Part::fit(&grams.total(), n, rank)?],
            Per::Module => {
                let fit = |at: usize| Part::fit_some(grams.module(at), n, rank);
                (0..grams.modules().len()).map(fit).collect::<Result<Vec<_>>>()?
            }
        };
        if parts.iter().all(|part| part.rank == 0) {
            return Err(Error::NoVariance);
        }
        Ok(Self::new(per, grams.modules().to_vec(), n, parts))
    }

    fn new(per: Per, modules: Vec<Module>, num_adapters: usize, parts: Vec<Part>) -> Self {
        let row = |i: usize| parts.iter().flat_map(move |part| &part.codes[i * part.rank..(i + 1) * part.rank]).copied();
        let codes = (0..num_adapters).flat_map(row).collect();
        Self { per, modules, num_adapters, parts, codes }
    }

    /// What has components of its own.
    #[must_use]
    pub fn per(&self) -> Per {
        self.per
    }

    /// The modules that the adapters update.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The number of adapters that it was fitted on, `n`.
    #[must_use]
    pub fn num_adapters(&self) -> usize {
        self.num_adapters
    }

    /// The length of a code, `k`: the sum over modules with [`Per::Module`].
    #[must_use]
    pub fn code_len(&self) -> usize {
        self.parts.iter().map(|part| part.rank).sum()
    }

    /// The codes of the adapters that it was fitted on, `[n, k]`, of unit variance; modules stand side by side.
    ///
    /// A component's sign makes the code of largest size positive, the first one of a tie.
    #[must_use]
    pub fn codes(&self) -> &[f32] {
        &self.codes
    }

    /// The eigenvalues of each part, largest first: one part, or one a module.
    pub fn spectra(&self) -> impl Iterator<Item = &[f32]> {
        self.parts.iter().map(|part| &part.spectrum[..])
    }

    /// The variance of the updates, summed over all parts.
    #[must_use]
    pub fn total_variance(&self) -> f64 {
        self.parts.iter().map(|part| f64::from(part.total_variance)).sum()
    }

    /// The fraction of the total variance that the components kept hold.
    #[must_use]
    pub fn kept_variance(&self) -> f64 {
        let kept: f64 = self.parts.iter().flat_map(|part| &part.spectrum[..part.rank]).map(|&v| f64::from(v)).sum();
        kept / self.total_variance()
    }

    /// The part of each component that each adapter is, `[k, n]`: `√λₖ·vₖ = Σᵢ aₖᵢ·ΔWᵢ` in the modules of component `k`.
    #[must_use]
    pub fn components(&self) -> Vec<f64> {
        let n = self.num_adapters;
        let of = |part: &Part, k: usize| -> Vec<f64> {
            (0..n).map(|i| f64::from(part.codes[i * part.rank + k]) / (n - 1) as f64).collect()
        };
        self.parts.iter().flat_map(|part| (0..part.rank).flat_map(move |k| of(part, k))).collect()
    }

    /// The weights `cᵢ` by which a code combines the adapters in a module, `[n]`.
    ///
    /// # Panics
    /// If the code has another length than [`AdapterPca::code_len`], or there is no such module.
    #[must_use]
    pub fn weights(&self, code: &[f32], module: usize) -> Vec<f64> {
        assert_eq!(code.len(), self.code_len(), "a code of this codec");
        assert!(module < self.modules.len(), "a module of this codec");
        let at = if self.per == Per::Adapter { 0 } else { module };
        let first: usize = self.parts[..at].iter().map(|part| part.rank).sum();
        self.parts[at].weights(&code[first..first + self.parts[at].rank], self.num_adapters)
    }

    /// Turns codes `[p, k]` into adapters of a rank, with `scaling` taken out of their factors.
    ///
    /// `adapters` must be those that the codec was fitted on, in the same order; with their `grams` it is faster.
    ///
    /// # Errors
    /// [`Error::Length`] if `codes` is not a whole number of codes, [`Error::Networks`] or [`Error::Modules`] for other adapters, or
    /// as [`combine`].
    pub fn decode<A: Adapters + ?Sized>(
        &self,
        codes: &[f32],
        (adapters, grams): (&A, Option<&Grams>),
        (rank, scaling): (usize, f64),
    ) -> Result<Combined, A::Error> {
        let k = self.code_len();
        if !codes.len().is_multiple_of(k) {
            return Err(Error::Length { what: "codes", row: k, got: codes.len() }.into());
        }
        if adapters.num_adapters() != self.num_adapters {
            return Err(Error::Networks { expected: self.num_adapters, got: adapters.num_adapters() }.into());
        }
        same_modules(&self.modules, adapters.modules())?;
        let weights = |c: usize, module: usize| self.weights(&codes[c * k..(c + 1) * k], module);
        combine(adapters, grams, (codes.len() / k, &weights), (rank, scaling))
    }

    /// Codes `[p, k]` of other adapters, from their products with those that the codec was fitted on.
    ///
    /// # Errors
    /// [`Error::Networks`] or [`Error::Modules`] for products with other adapters.
    pub fn encode(&self, cross: &CrossGrams, grams: &Grams) -> Result<Vec<f32>> {
        let [p, n] = cross.shape();
        for got in [n, grams.num_adapters()] {
            if got != self.num_adapters {
                return Err(Error::Networks { expected: self.num_adapters, got });
            }
        }
        same_modules(&self.modules, grams.modules())?;
        let mut codes = vec![0.0; p * self.code_len()];
        let mut first = 0;
        for (at, part) in self.parts.iter().enumerate() {
            let (cross, gram) = match self.per {
                Per::Adapter => (cross.total(), grams.total()),
                Per::Module => (cross.module(at).to_vec(), grams.module(at).to_vec()),
            };
            let means: Vec<f64> = gram.chunks_exact(n).map(|row| row.iter().sum::<f64>() / n as f64).collect();
            for (code, own) in codes.chunks_exact_mut(self.code_len()).zip(cross.chunks_exact(n)) {
                part.encode(own, &means, &mut code[first..first + part.rank]);
            }
            first += part.rank;
        }
        Ok(codes)
    }

    /// The codec as tensors `(name, shape, values)`, those of part `p` named `p.codes` and so on, none of a part without components, from which [`AdapterPca::from_tensors`] makes the same codec bit for bit.
    #[must_use]
    pub fn to_tensors(&self) -> Vec<(String, Vec<usize>, &[f32])> {
        let parts = self.parts.iter().enumerate().filter(|(_, part)| part.rank > 0);
        parts
            .flat_map(|(at, part)| {
                [
                    (format!("{at}.codes"), vec![self.num_adapters, part.rank], &part.codes[..]),
                    (format!("{at}.spectrum"), vec![part.spectrum.len()], &part.spectrum[..]),
                    (format!("{at}.total-variance"), vec![1], std::slice::from_ref(&part.total_variance)),
                ]
            })
            .collect()
    }

    /// Makes a codec of its tensors.
    ///
    /// # Errors
    /// A missing or unknown tensor, a shape that does not fit the others, or values that no fit gives.
    pub fn from_tensors(
        (per, modules, num_adapters): (Per, Vec<Module>, usize),
        mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    ) -> Result<Self> {
        if num_adapters < 2 || modules.is_empty() {
            return Err(Error::NumAdapters { what: "principal components", needed: "2 or more", got: num_adapters });
        }
        let count = if per == Per::Adapter { 1 } else { modules.len() };
        let parts = (0..count).map(|at| Part::from_tensors(at, num_adapters, &mut tensors)).collect::<Result<Vec<_>>>()?;
        if let Some(tensor) = tensors.into_keys().next() {
            return Err(Error::UnknownTensor { tensor });
        }
        if parts.iter().all(|part| part.rank == 0) {
            return Err(Error::NoVariance);
        }
        Ok(Self::new(per, modules, num_adapters, parts))
    }
}

impl Part {
    fn empty() -> Self {
        Self { rank: 0, codes: Vec::new(), spectrum: Vec::new(), total_variance: 0.0 }
    }

    /// As [`Part::fit`], with as many components as there are; none if nothing varies.
    fn fit_some(gram: &[f64], n: usize, rank: Rank) -> Result<Self> {
        match Self::fit(gram, n, rank) {
            Err(Error::NoVariance) => Ok(Self::empty()),
            Err(Error::Rank { asked, available }) if asked > available => Self::fit(gram, n, Rank::Fixed(available)),
            fitted => fitted,
        }
    }

    fn fit(gram: &[f64], n: usize, rank: Rank) -> Result<Self> {
        let means: Vec<f64> = gram.chunks_exact(n).map(|row| row.iter().sum::<f64>() / n as f64).collect();
        let mean = means.iter().sum::<f64>() / n as f64;
        let mut sum = SymmetricSum::zeros(n);
        for (at, (centered, x)) in sum.lower_mut().iter_mut().zip(gram).enumerate() {
            *centered = (x - means[at / n] - means[at % n] + mean) / (n - 1) as f64;
        }
        let total = (0..n).map(|i| sum.at(i, i).max(0.0)).sum::<f64>();
        // Differences below the rounding of f32 factors are none.
        let size = (0..n).map(|i| gram[i * n + i]).sum::<f64>();
        check_rank(rank, if total > 1e-14 * size { total } else { 0.0 }, n - 1)?;
        let (mut spectrum, vectors) = sum.eigen()?;
        spectrum.truncate(n - 1);
        let kept = choose_rank(rank, (&spectrum, total), n - 1)?.unwrap_or(spectrum.len());
        let root = ((n - 1) as f64).sqrt();
        let mut codes = vec![0.0; n * kept];
        for k in 0..kept {
            let mut peak = 0.0_f64;
            (0..n).for_each(|i| peak = if vectors[(i, k)].abs() > peak.abs() { vectors[(i, k)] } else { peak });
            let factor = if peak < 0.0 { -root } else { root };
            (0..n).for_each(|i| codes[i * kept + k] = (factor * vectors[(i, k)]) as f32);
        }
        let spectrum = spectrum.into_iter().map(|v| v as f32).collect();
        Ok(Self { rank: kept, codes, spectrum, total_variance: total as f32 })
    }

    fn weights(&self, code: &[f32], n: usize) -> Vec<f64> {
        if self.rank == 0 {
            return vec![1.0 / n as f64; n];
        }
        let inner = |own: &[f32]| code.iter().zip(own).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        self.codes.chunks_exact(self.rank).map(|own| 1.0 / n as f64 + inner(own) / (n - 1) as f64).collect()
    }

    /// `zₖ = Σᵢ zᵢₖ·g̃ᵢ/((n − 1)·λₖ)`, where `g̃ᵢ = ⟨ΔW − M, ΔWᵢ − M⟩` up to a term that is the same for all `i`: codes sum to 0.
    fn encode(&self, products: &[f64], means: &[f64], code: &mut [f32]) {
        let n = products.len();
        for (k, z) in code.iter_mut().enumerate() {
            let terms = products.iter().zip(means).enumerate();
            let sum: f64 = terms.map(|(i, (g, mean))| f64::from(self.codes[i * self.rank + k]) * (g - mean)).sum();
            *z = (sum / ((n - 1) as f64 * f64::from(self.spectrum[k]))) as f32;
        }
    }

    fn from_tensors(at: usize, n: usize, tensors: &mut BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> Result<Self> {
        let mut own: BTreeMap<String, _> = BTreeMap::new();
        for name in [CODES, SPECTRUM, TOTAL] {
            if let Some(tensor) = tensors.remove(&format!("{at}.{name}")) {
                own.insert(name.to_owned(), tensor);
            }
        }
        if own.is_empty() {
            return Ok(Self::empty());
        }
        let (shape, codes) = take(&mut own, CODES)?;
        let refuse = |tensor, shape: &[usize], reason| Err(Error::Tensor { tensor, shape: shape.to_vec(), reason });
        let [rows, rank] = shape[..] else { return refuse(CODES, &shape, "it must have two axes") };
        if rows != n || rank >= n {
            return refuse(CODES, &shape, "it must have a row an adapter and fewer columns than rows");
        }
        let (shape, spectrum) = take(&mut own, SPECTRUM)?;
        let falling = spectrum.windows(2).all(|w| w[0] >= w[1]) && spectrum.iter().all(|&v| v >= 0.0);
        if shape.len() != 1 || spectrum.len() < rank || !falling || spectrum[..rank].contains(&0.0) {
            return refuse(SPECTRUM, &shape, "it must hold falling values, positive ones for all components");
        }
        let (shape, total) = take(&mut own, TOTAL)?;
        if total.len() != 1 || total[0] < 0.0 {
            return refuse(TOTAL, &shape, "it must be one value, not below 0");
        }
        Ok(Self { rank, codes, spectrum, total_variance: total[0] })
    }
}
