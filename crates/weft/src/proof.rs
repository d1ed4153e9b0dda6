//! Proof that a transformation kept a network's function: the network before and after it, run on the same inputs.
//!
//! The *relative deviation* of outputs `y` (before) and `y'` (after), over all inputs `x` and outputs `j`, is
//!
//! ```text
//! max |y'ⱼ(x) − yⱼ(x)| / max(|yⱼ(x)|, |y'ⱼ(x)|)        (both maxima over all x and j)
//! ```
//!
//! The size in the denominator is that of the whole batch, not of one output: outputs pass through 0, and a network with
//! one logit would then deviate without bound where it means nothing. It is the networks' own size in either order, so
//! that a network that was silenced deviates by 1. An output that is not finite deviates by ∞, unless it is the same
//! before and after.
//!
//! Networks run in `f32` first. A sum of many terms may round there by more than any transformation changed: where the
//! deviation is above [`NOISE`] both are run again in `f64`, from the stored `f32` weights, and that figure decides. What
//! is left in `f64` is the change of function that storing weights in `f32` makes, and anything that the transformation
//! did wrong.

use crate::{Error, Result};
use rayon::prelude::*;
use weft_core::{Architecture, Digest, Population};
use weft_net::{interpret_f32, interpret_f64};

/// The largest relative deviation that is accepted.
pub const BOUND: f64 = 1e-4;
/// The largest relative deviation in `f32` that is accepted without a run in `f64`.
pub const NOISE: f64 = 1e-5;

/// How far a network's outputs moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deviation {
    /// Relative deviation, computed in `f32`.
    pub max_relative_f32: f64,
    /// Relative deviation, computed in `f64` from the same `f32` weights; `None` where `f32` was beyond doubt.
    pub max_relative_f64: Option<f64>,
    /// Relative deviation of the network before, in `f32`, from itself in `f64`: the noise of `f32`. `None` likewise.
    pub rounding_f32: Option<f64>,
    /// The largest output.
    pub scale: f64,
    /// Inputs that were tried.
    pub num_inputs: usize,
}

impl Deviation {
    /// The figure that counts: that in `f64` if there is one.
    #[must_use]
    pub fn relative(&self) -> f64 {
        self.max_relative_f64.unwrap_or(self.max_relative_f32)
    }

    /// The worse of two, figure by figure: for a network that was run on several sets of inputs.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        let worse = if self.relative() >= other.relative() { self } else { other };
        Self { num_inputs: self.num_inputs + other.num_inputs, ..worse }
    }
}

/// Runs a network before and after a transformation that must not change its function.
///
/// # Shapes
/// Rows `[D]`, `inputs` `[b, i]`; [`weft_net::random_inputs`] draws some where there are no data.
///
/// # Errors
/// [`Error::FunctionChanged`] beyond [`BOUND`], with the network's digest; rows or inputs that do not fit.
pub fn deviation(architecture: &Architecture, before: &[f32], after: &[f32], inputs: &[f32]) -> Result<Deviation> {
    let found = measure(architecture, [before, after], inputs)?;
    // Not `>`: a deviation that is no number is no proof.
    if found.relative() <= BOUND {
        return Ok(found);
    }
    let digest = Digest::of_weights(architecture, before).to_string();
    Err(Error::FunctionChanged { digest, moved: found.relative(), bound: BOUND })
}

/// [`deviation`] of each network of two populations, on several sets of inputs; the worst set counts.
///
/// # Errors
/// As [`deviation`], for the first network that moved; populations of different sizes.
pub fn deviations(before: &Population, after: &Population, inputs: &[&[f32]]) -> Result<Vec<Deviation>> {
    if before.len() != after.len() || before.dim() != after.dim() {
        let (what, other) = ("the networks after".to_owned(), "those before".to_owned());
        return Err(Error::Misfit { what, other, reason: format!("{} and {} networks", after.len(), before.len()) });
    }
    let none = Deviation { max_relative_f32: 0.0, max_relative_f64: None, rounding_f32: None, scale: 0.0, num_inputs: 0 };
    (0..before.len())
        .into_par_iter()
        .map(|i| {
            inputs.iter().try_fold(none, |worst, inputs| {
                Ok(worst.worse(deviation(before.architecture(), before.row(i), after.row(i), inputs)?))
            })
        })
        .collect()
}

/// Runs a network before and after a transformation, whatever comes out.
///
/// # Errors
/// Rows or inputs that do not fit.
pub fn measure(architecture: &Architecture, [before, after]: [&[f32]; 2], inputs: &[f32]) -> Result<Deviation> {
    let [y, z] = [before, after].map(|row| interpret_f32(architecture, row.into(), inputs));
    let (y, z) = (widen(&y?), widen(&z?));
    let (max_relative_f32, scale) = relative(&y, &z);
    let num_inputs = inputs.len() / architecture.num_inputs();
    if max_relative_f32 <= NOISE {
        return Ok(Deviation { max_relative_f32, max_relative_f64: None, rounding_f32: None, scale, num_inputs });
    }
    let wide = widen(inputs);
    let [before, after] = [before, after].map(|row| interpret_f64(architecture, row.into(), &wide));
    let before = before?;
    let (in_f64, scale) = relative(&before, &after?);
    let rounding_f32 = Some(relative(&before, &y).0);
    Ok(Deviation { max_relative_f32, max_relative_f64: Some(in_f64), rounding_f32, scale, num_inputs })
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

/// The relative deviation, and the largest output.
fn relative(y: &[f64], z: &[f64]) -> (f64, f64) {
    let (mut moved, mut scale) = (0.0_f64, 0.0_f64);
    for (y, z) in y.iter().zip(z) {
        if y.to_bits() == z.to_bits() || y.is_nan() && z.is_nan() {
            scale = if y.is_finite() { scale.max(y.abs()) } else { scale };
        } else if y.is_finite() && z.is_finite() {
            moved = moved.max((y - z).abs());
            scale = scale.max(y.abs()).max(z.abs());
        } else {
            return (f64::INFINITY, scale);
        }
    }
    (if moved > 0.0 { moved / scale } else { 0.0 }, scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::{Activation, Seed};

    fn mlp() -> Arc<Architecture> {
        Arc::new(Architecture::mlp("m", &[6, 16, 3], Activation::Relu).unwrap())
    }

    #[test]
    fn a_rescaled_unit_passes_and_a_changed_weight_is_refused_by_digest() {
        let architecture = mlp();
        let row = weft_net::initial_weights(&architecture, Seed::new(1));
        let inputs = weft_net::random_inputs(&architecture, 20, Seed::new(2));
        let mut scaled = row.clone();
        scaled[..6].iter_mut().for_each(|w| *w *= 3.0);
        scaled[6 * 16] *= 3.0;
        (0..3).for_each(|j| scaled[6 * 16 + 16 + j * 16] /= 3.0);
        let found = deviation(&architecture, &row, &scaled, &inputs).unwrap();
        assert!(found.max_relative_f32 > 0.0 && found.max_relative_f32 < 1e-6 && found.max_relative_f64.is_none());
        assert_eq!(found.num_inputs, 20);
        scaled[0] += 0.01;
        let error = deviation(&architecture, &row, &scaled, &inputs).unwrap_err();
        let message = error.to_string();
        assert!(message.contains(&Digest::of_weights(&architecture, &row).to_string()) && message.contains("1e-4"), "{message}");
        let Error::FunctionChanged { moved, .. } = error else { panic!("another error") };
        assert!(moved > 1e-4 && moved < 1.0);
        let [before, after] = [&row, &scaled].map(|row| Population::new(architecture.clone(), row.clone()).unwrap());
        assert!(deviations(&before, &after, &[&inputs]).is_err());
        assert_eq!(deviations(&before, &before, &[&inputs, &inputs]).unwrap()[0].num_inputs, 40);
    }

    #[test]
    fn rounding_alone_is_told_from_a_change_by_running_in_f64() {
        // y = b·(u − v) with u = v + x: huge terms cancel, and what f32 leaves of them depends on the order of summation.
        let architecture = Arc::new(Architecture::mlp("m", &[1, 64, 1], Activation::Relu).unwrap());
        let mut row = vec![0.0_f32; architecture.num_parameters()];
        let noise = Seed::new(3).normals(64);
        for unit in 0..64 {
            row[unit] = 0.01 * noise[unit];
            row[64 + unit] = 1000.0 + noise[unit];
            row[128 + unit] = if unit % 2 == 0 { 1.0 } else { -1.0 };
        }
        // The same network with its units in another order.
        let order = Seed::new(4).permutation(64);
        let mut moved = row.clone();
        for (to, &from) in order.iter().enumerate() {
            (0..3).for_each(|part| moved[part * 64 + to] = row[part * 64 + from as usize]);
        }
        let inputs = weft_net::random_inputs(&architecture, 50, Seed::new(5));
        let found = deviation(&architecture, &row, &moved, &inputs).unwrap();
        assert!(found.max_relative_f32 > NOISE, "{found:?}");
        assert!(found.max_relative_f64.unwrap() < 1e-9 && found.rounding_f32.unwrap() > NOISE, "{found:?}");
        assert!(found.relative() < 1e-9);
    }

    #[test]
    fn deviations_by_hand() {
        assert_eq!(relative(&[1.0, -4.0], &[1.0, -4.0]), (0.0, 4.0));
        assert_eq!(relative(&[1.0, -4.0], &[1.5, -4.0]), (0.125, 4.0));
        assert_eq!(relative(&[2.0], &[0.0]), (1.0, 2.0));
        assert_eq!(relative(&[0.0], &[0.0]), (0.0, 0.0));
        assert_eq!(relative(&[0.0, f64::NAN], &[-0.0, f64::NAN]), (0.0, 0.0));
        assert!(relative(&[1.0, f64::INFINITY], &[1.0, f64::NAN]).0.is_infinite());
    }
}
