//! Low-rank adapters, compared, decomposed and merged by what they do: in the space of their updates `ΔW = s·B·A`.
//!
//! The factors of an update are not unique: `B·G⁻¹` and `G·A` are the same update for every invertible `G`. So nothing here looks at
//! factors, save [`canonical`], which makes them unique, and [`merge::Method::Linear`], which is there for comparison. Inner products
//! come from products of the ranks' size,
//!
//! ```text
//! ⟨ΔWᵢ, ΔWⱼ⟩ = sᵢ·sⱼ·tr((BᵢᵀBⱼ)(AⱼAᵢᵀ)),
//! ```
//!
//! and no update is ever formed but by the mergers that need its entries, in blocks of rows.
//!
//! - [`Grams`] are these products, a matrix a module.
//! - [`AdapterPca`] has the principal components of whole adapters, or of each module apart; codes are `[n, k]`.
//! - [`UpdateRidge`] predicts updates from what is told of adapters.
//! - [`combine`] makes adapters of linear combinations of adapters, truncated to a rank: decoding is one, a mean is another.
//! - [`canonical`] has the factors that depend on the update alone, for generators of tokens.
//! - [`merge`] has the mergers of the literature.
//!
//! Adapters are read a module at a time ([`Adapters`]), and may differ in their ranks. All sums are in f64 and the same at any number
//! of threads.
//!
//! Shape letters: `n` adapters, `m` modules, `o` and `i` outputs and inputs of a module, `r` a rank, `R` the sum of the ranks of a
//! module's updates, `k` the length of a code.

mod angles;
pub mod canonical;
mod combine;
mod dense;
mod gram;
pub mod merge;
mod pca;
mod regress;
mod set;
mod stack;

pub use angles::principal_cosines;
pub use combine::{Combined, Lost, combine};
pub use gram::{CrossGrams, Grams};
pub use pca::{AdapterPca, Per};
pub use regress::{Combinations, UpdateRidge};
pub use set::AdapterSet;

use crate::Error;

/// A linear map that adapters update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name in the base model.
    pub name: String,
    /// Outputs of the map, `o`.
    pub fan_out: usize,
    /// Inputs of the map, `i`.
    pub fan_in: usize,
}

/// An adapter's update of one module, `ΔW = s·B·A`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// The rank, `r`; 0 says that the module is not updated.
    pub rank: usize,
    /// What the product is multiplied by, `s`.
    pub scaling: f64,
    /// `B`, row-major `[o, r]`.
    pub b: Vec<f32>,
    /// `A`, row-major `[r, i]`.
    pub a: Vec<f32>,
}

/// Adapters of one base model that update the same modules, of which some factors are in memory at a time.
pub trait Adapters {
    /// What reading can fail with.
    type Error: From<Error>;

    /// The number of adapters, `n`.
    fn num_adapters(&self) -> usize;

    /// The modules that they all update, `m`.
    fn modules(&self) -> &[Module];

    /// Reads an adapter's factors of a module; what it gives is checked by who asks.
    ///
    /// # Errors
    /// Whatever keeps it from reading.
    fn read(&self, adapter: usize, module: usize) -> Result<Factors, Self::Error>;
}

/// Reads factors and refuses what cannot be theirs.
fn read<A: Adapters + ?Sized>(from: &A, adapter: usize, at: usize) -> Result<Factors, A::Error> {
    let factors = from.read(adapter, at)?;
    let module = &from.modules()[at];
    match fault(&factors, module) {
        None => Ok(factors),
        Some(reason) => Err(Error::Factors { adapter, module: module.name.clone(), reason }.into()),
    }
}

/// The largest rank of an update: its products have the square of it.
const MAX_RANK: usize = 4096;

fn fault(factors: &Factors, module: &Module) -> Option<&'static str> {
    if factors.rank > MAX_RANK {
        return Some("its rank is above 4096");
    }
    let is = |len: usize, side: usize| side.checked_mul(factors.rank) == Some(len);
    if !is(factors.b.len(), module.fan_out) {
        Some("`B` is not outputs × rank")
    } else if !is(factors.a.len(), module.fan_in) {
        Some("`A` is not rank × inputs")
    } else if !factors.scaling.is_finite() {
        Some("its scaling is not finite")
    } else if !all_finite(&factors.b) || !all_finite(&factors.a) {
        Some("a factor holds a value that is not finite")
    } else {
        None
    }
}

fn all_finite(values: &[f32]) -> bool {
    // A sum of zeros times the values is NaN if one of them is not finite, and is taken many at a time.
    values.chunks(4096).all(|piece| piece.iter().map(|v| v * 0.0).sum::<f32>().is_finite())
}

/// Refuses adapters of other modules.
fn same_modules(expected: &[Module], got: &[Module]) -> Result<(), Error> {
    if expected.len() != got.len() {
        return Err(Error::Modules { expected: format!("{} modules", expected.len()), got: format!("{}", got.len()) });
    }
    match expected.iter().zip(got).find(|(a, b)| a != b) {
        None => Ok(()),
        Some((expected, got)) => {
            let say = |m: &Module| format!("`{}` ({} × {})", m.name, m.fan_out, m.fan_in);
            Err(Error::Modules { expected: say(expected), got: say(got) })
        }
    }
}
