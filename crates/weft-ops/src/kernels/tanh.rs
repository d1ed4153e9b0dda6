//! The hyperbolic tangent without a branch, so that it runs on whole vectors: networks with `tanh` spend much of their time in it.

use pulp::{Arch, Simd, WithSimd};

/// Beyond this the result is ±1 in `f32`.
const SATURATION: f32 = 10.0;

/// Up to here the continued fraction is used, which keeps the relative precision near 0; then the exponential.
const SWITCH: f32 = 0.55;

/// Replaces each value by its hyperbolic tangent; NaN stays NaN.
pub(super) fn tanh_in_place(x: &mut [f32]) {
    Arch::new().dispatch(Tanh(x));
}

struct Tanh<'a>(&'a mut [f32]);

impl WithSimd for Tanh<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // A plain loop: compiled for the vector unit, it is vectorized as it stands.
        for value in self.0 {
            *value = tanh(*value);
        }
    }
}

#[inline(always)]
fn tanh(x: f32) -> f32 {
    // Lambert's continued fraction x/(1 + x²/(3 + x²/(5 + …))), cut after 13 and written as a quotient.
    let t = x * x;
    let small = x * (135_135.0 + t * (17_325.0 + t * (378.0 + t))) / (135_135.0 + t * (62_370.0 + t * (3_150.0 + t * 28.0)));
    let size = if x.abs() > SATURATION { SATURATION } else { x.abs() };
    let e = exp_of_negative(-2.0 * size);
    let large = ((1.0 - e) / (1.0 + e)).copysign(x);
    if size < SWITCH { small } else { large }
}

/// `eˣ` for `-20 ≤ x ≤ 0`: a power of two times Taylor's series of what is left, at most half of `ln 2`.
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    /// `1.5·2²³`: adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.0;
    /// `ln 2` in two parts, the first with trailing zeros so that its multiples are exact.
    const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let whole = rounded - ROUND;
    let r = (x - whole * LN_2[0]) - whole * LN_2[1];
    let series =
        1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0 + r / 5040.0))))));
    series * f32::from_bits((rounded.to_bits() << 23).wrapping_add(0x3f80_0000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_error_is_a_few_units_of_the_last_place() {
        let mut x: Vec<f32> = (-120_000..=120_000).map(|i| i as f32 * 1e-4).collect();
        x.extend([1e-30, -1e-10, 3e-6, 0.549_999_9, 0.55, 50.0, -1e30, f32::INFINITY, f32::NEG_INFINITY]);
        let mut y = x.clone();
        tanh_in_place(&mut y);
        for (x, y) in x.iter().zip(&y) {
            let expected = f64::from(*x).tanh();
            assert!((f64::from(*y) - expected).abs() <= 3e-7 * expected.abs(), "tanh({x}) = {y}, expected {expected}");
        }
        let mut special = [f32::NAN, 0.0, -0.0];
        tanh_in_place(&mut special);
        assert!(special[0].is_nan() && special[1].to_bits() == 0 && special[2].to_bits() == (-0.0f32).to_bits());
    }
}
