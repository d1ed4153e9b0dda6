//! Elementwise nonlinearities, in place.

use super::tanh::tanh_in_place;
use pulp::{Arch, Simd, WithSimd};
use weft_core::Activation;

/// Applies the activation to each value.
pub fn activate(activation: Activation, x: &mut [f32]) {
    match activation {
        Activation::Relu => Arch::new().dispatch(Relu(x)),
        Activation::Tanh => tanh_in_place(x),
        Activation::Gelu => x.iter_mut().for_each(|v| *v *= normal_cdf(*v)),
        Activation::GeluTanh => x.iter_mut().for_each(|v| *v *= sigmoid(2.0 * cubic(*v))),
        Activation::Silu => x.iter_mut().for_each(|v| *v *= sigmoid(*v)),
        Activation::Sigmoid => x.iter_mut().for_each(|v| *v = sigmoid(*v)),
    }
}

/// Multiplies `gradient` by the activation's derivative.
///
/// `input` and `output` are the values before and after the activation, all of one length.
pub fn activate_backward(activation: Activation, input: &[f32], output: &[f32], gradient: &mut [f32]) {
    if activation == Activation::Relu {
        return Arch::new().dispatch(ReluBackward { output, gradient });
    }
    let pairs = gradient.iter_mut().zip(input.iter().zip(output));
    match activation {
        Activation::Relu => {}
        Activation::Tanh => pairs.for_each(|(g, (_, &y))| *g *= 1.0 - y * y),
        Activation::Gelu => pairs.for_each(|(g, (&x, _))| *g *= normal_cdf(x) + x * normal_pdf(x)),
        Activation::GeluTanh => pairs.for_each(|(g, (&x, _))| {
            let gate = sigmoid(2.0 * cubic(x)); // ½(1 + tanh u) = σ(2u)
            *g *= gate + x * 2.0 * gate * (1.0 - gate) * ROOT_2_OVER_PI * (1.0 + 3.0 * CUBIC * x * x);
        }),
        Activation::Silu => pairs.for_each(|(g, (&x, &y))| *g *= sigmoid(x) * (1.0 - y) + y),
        Activation::Sigmoid => pairs.for_each(|(g, (_, &y))| *g *= y * (1.0 - y)),
    }
}

struct Relu<'a>(&'a mut [f32]);

impl WithSimd for Relu<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // A plain loop: compiled for the vector unit, it is vectorized as it stands.
        for value in self.0 {
            *value = value.max(0.0);
        }
    }
}

struct ReluBackward<'a> {
    output: &'a [f32],
    gradient: &'a mut [f32],
}

impl WithSimd for ReluBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (gradient, &output) in self.gradient.iter_mut().zip(self.output) {
            *gradient = if output > 0.0 { *gradient } else { 0.0 };
        }
    }
}

const ROOT_2_OVER_PI: f32 = 0.797_884_6;
const CUBIC: f32 = 0.044_715;

/// `√(2/π)(x + 0.044715x³)`.
fn cubic(x: f32) -> f32 {
    ROOT_2_OVER_PI * (x + CUBIC * x * x * x)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn normal_pdf(x: f32) -> f32 {
    (-0.5 * x * x).exp() * 0.398_942_3
}

/// The normal distribution function through Abramowitz & Stegun 7.1.26 (absolute error below `1e-7` after halving).
fn normal_cdf(x: f32) -> f32 {
    const A: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let tail = 0.5 * A.iter().rev().fold(0.0, |sum, a| (sum + a) * t) * (-z * z).exp();
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goldens() {
        for (activation, x, expected) in [
            (Activation::Relu, -1.0, 0.0),
            (Activation::Relu, 2.0, 2.0),
            (Activation::Tanh, 0.5, 0.462_117_2),
            (Activation::Gelu, 1.0, 0.841_344_7),
            (Activation::Gelu, -2.0, -0.045_500_3),
            (Activation::GeluTanh, 1.0, 0.841_192),
            (Activation::GeluTanh, -2.0, -0.045_402_3),
            (Activation::Silu, 1.0, 0.731_058_6),
            (Activation::Sigmoid, -1.0, 0.268_941_4),
        ] {
            let mut v = [x];
            activate(activation, &mut v);
            assert!((v[0] - expected).abs() < 2e-6, "{activation:?}({x}) = {}", v[0]);
        }
    }

    #[test]
    fn derivatives_match_differences() {
        for activation in Activation::ALL {
            for x in [-2.1f32, -0.4, 0.3, 1.7] {
                let h = 1e-2f32;
                let f = |v: f32| {
                    let mut v = [v];
                    activate(activation, &mut v);
                    v[0]
                };
                let numeric = (f(x + h) - f(x - h)) / (2.0 * h);
                let mut g = [1.0];
                activate_backward(activation, &[x], &[f(x)], &mut g);
                assert!((g[0] - numeric).abs() < 2e-4, "{activation:?} at {x}: {} and {numeric}", g[0]);
            }
        }
    }
}
