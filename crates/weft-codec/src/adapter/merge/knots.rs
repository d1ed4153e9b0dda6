//! Merging in a basis that the updates of all adapters share.
//!
//! With `[B₁ … Bₙ] = Q·[R₁ … Rₙ]` and `Aᵢᵀ = Qᵢ·Tᵢ`, the singular value decomposition of all updates side by side is that of a small
//! matrix, `[ΔW₁ … ΔWₙ] = Q·[sᵢ·Rᵢ·Tᵢᵀ]·diag(Qᵢᵀ)`. Its right factors `Vᵢᵀ = V'ᵢᵀ·Qᵢᵀ` are low-rank products as updates are, and are merged
//! like these.
//!
//! # References
//! Stoica et al. 2024, "Model merging with SVD to tie the `KnOTS`", section 4.

use super::entries::Rule;
use super::{Factors, MAX_VALUES, Module, Update};
use crate::adapter::dense::{Qr, multiply, svd};
use crate::{Error, Result};
use faer::Mat;

/// The most ranks of all adapters in a module.
const MAX_RANKS: usize = 4096;
/// Directions of a smaller part of the largest singular value are rounding.
const FLOOR: f64 = 1e-7;

/// The merged update of a module.
pub(super) fn update(module: &Module, factors: &[Factors], (rule, weights): (&Rule, &[f64])) -> Result<Update> {
    let sides = [module.fan_out, module.fan_in];
    let all: usize = factors.iter().map(|f| f.rank).sum();
    let (values, limit) = if all > MAX_RANKS { (all * all, MAX_RANKS * MAX_RANKS) } else { (all * module.fan_in, MAX_VALUES) };
    if values > limit {
        return Err(Error::TooLarge { module: module.name.clone(), method: "knots", values, limit });
    }
    let Update::Stacked { b, .. } = Update::stacked(sides, factors.iter().map(|f| (1.0, f))) else {
        return Ok(Update::Formed(Mat::zeros(module.fan_out, module.fan_in)));
    };
    if b.ncols() == 0 {
        return Ok(Update::Formed(Mat::zeros(module.fan_out, module.fan_in)));
    }
    let left = Qr::new(b);
    let (mut core, mut rights) = (Mat::zeros(left.upper.nrows(), left.upper.ncols()), Vec::with_capacity(factors.len()));
    let mut start = 0;
    for own in factors {
        let rank = if own.scaling == 0.0 { 0 } else { own.rank };
        let a = Qr::new(Mat::from_fn(module.fan_in, rank, |i, p| f64::from(own.a[p * module.fan_in + i])));
        let block = multiply(left.upper.as_ref().subcols(start, rank), a.upper.transpose());
        // Fewer inputs than ranks leave fewer columns.
        core.as_mut().subcols_mut(start, block.ncols()).copy_from(&block);
        rights.push((start, a.orthonormal()));
        start += rank;
    }
    let shared = svd(core.as_ref())?;
    let kept = shared.values.iter().take_while(|&&s| s > FLOOR * shared.values[0] && s > 0.0).count();
    let right = |(start, basis): &(usize, Mat<f64>)| {
        let rank = basis.ncols();
        let b = (0..kept).flat_map(|q| (0..rank).map(move |p| (q, p))).map(|(q, p)| shared.v[(start + p, q)] as f32).collect();
        let a = (0..rank).flat_map(|p| (0..module.fan_in).map(move |i| basis[(i, p)] as f32)).collect();
        Factors { rank, scaling: 1.0, b, a }
    };
    let rights: Vec<Factors> = rights.iter().map(right).collect();
    let space = Module { name: module.name.clone(), fan_out: kept, fan_in: module.fan_in };
    let merged = rule.merge(&space, &rights, weights);
    let scaled = Mat::from_fn(left.upper.nrows(), kept, |p, q| shared.u[(p, q)] * shared.values[q]);
    Ok(Update::Stacked { b: left.apply(scaled.as_ref()), a: merged.transpose().to_owned() })
}
