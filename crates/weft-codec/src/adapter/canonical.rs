//! The factors that depend on an update alone.
//!
//! `ΔW = U·S·Vᵀ` with singular values in falling order gives `B = U·√S` and `A = √S·Vᵀ`: both sides have the same norms, and
//! the entry of largest size of each row of `A` is positive. Whatever `G` was between the factors, the result is the same up to rounding, if
//! the singular values differ; where two are equal, any rotation of their pair is as good, and none is chosen.
//!
//! This is what a generator of tokens learns: [`tokens`] are the ranks of an update, a row each.

use super::combine::check;
use super::stack::Update;
use super::{Factors, Lost, Module, fault};
use crate::{Error, Result};

/// Brings factors to their canonical form at a rank, with scaling 1.
///
/// A rank above the update's own fills up with zeros; one below truncates, and what that loses is told.
///
/// # Errors
/// [`Error::Factors`] for factors that are not the module's or not finite, [`Error::Setting`] for rank 0.
///
/// # Examples
/// ```
/// use weft_codec::adapter::{Factors, Module, canonical::canonical};
/// let module = Module { name: "q".to_owned(), fan_out: 2, fan_in: 3 };
/// // The same update by other factors: half of B, twice A.
/// let one = Factors { rank: 1, scaling: 2.0, b: vec![2.0, 0.0], a: vec![0.0, -1.0, 0.0] };
/// let two = Factors { rank: 1, scaling: 2.0, b: vec![1.0, 0.0], a: vec![0.0, -2.0, 0.0] };
/// let (made, lost) = canonical(&one, &module, 1)?;
/// assert_eq!((&made, lost.lost), (&canonical(&two, &module, 1)?.0, 0.0));
/// assert!((made.b[0] + 2.0).abs() < 1e-6 && (made.a[1] - 2.0).abs() < 1e-6); // ΔW = -4 at (0, 1)
/// # Ok::<(), weft_codec::Error>(())
/// ```
///
/// # References
/// Eckart & Young 1936 for the truncation.
pub fn canonical(factors: &Factors, module: &Module, rank: usize) -> Result<(Factors, Lost)> {
    check(rank, 1.0)?;
    if let Some(reason) = fault(factors, module) {
        return Err(Error::Factors { adapter: 0, module: module.name.clone(), reason });
    }
    let update = Update::stacked([module.fan_out, module.fan_in], std::iter::once((1.0, factors)));
    let leading = update.leading(rank, None)?;
    Ok((leading.factors(rank, 1.0), Lost { energy: leading.energy, lost: leading.lost() }))
}

/// The ranks of an update as rows: of each, its row of `A` and its column of `B`, `[r, i + o]`.
///
/// # Panics
/// If the factors' lengths are not multiples of their rank.
#[must_use]
pub fn tokens(factors: &Factors) -> Vec<f32> {
    let r = factors.rank;
    if r == 0 {
        return Vec::new();
    }
    assert!(factors.a.len().is_multiple_of(r) && factors.b.len().is_multiple_of(r), "factors of their rank");
    let token = |(p, a): (usize, &[f32])| a.iter().chain(factors.b.iter().skip(p).step_by(r)).copied().collect::<Vec<_>>();
    factors.a.chunks_exact(factors.a.len() / r).enumerate().flat_map(token).collect()
}

/// Makes factors of scaling 1 of tokens `[r, i + o]`, the inverse of [`tokens`].
///
/// # Errors
/// [`Error::Length`] if the values are not whole tokens of the module.
pub fn from_tokens(tokens: &[f32], module: &Module) -> Result<Factors> {
    let row = module.fan_in.saturating_add(module.fan_out);
    if row == 0 || !tokens.len().is_multiple_of(row) {
        return Err(Error::Length { what: "tokens", row, got: tokens.len() });
    }
    let rank = tokens.len() / row;
    let a = tokens.chunks_exact(row).flat_map(|token| &token[..module.fan_in]).copied().collect();
    let at = |o: usize, p: usize| tokens[p * row + module.fan_in + o];
    let b = (0..module.fan_out).flat_map(|o| (0..rank).map(move |p| at(o, p))).collect();
    Ok(Factors { rank, scaling: 1.0, b, a })
}
