//! The two precisions, and elementwise functions without branches, so that plain loops over them become vector code.

use weft_core::Activation;

/// `f32`, or `f64` for checks of gradients.
pub trait Real:
    Copy
    + Default
    + Send
    + Sync
    + PartialOrd
    + std::fmt::Debug
    + std::iter::Sum
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds to this precision.
    fn from_f64(value: f64) -> Self;
    /// Converts.
    fn from_f32(value: f32) -> Self;
    /// Rounds.
    fn to_f32(self) -> f32;
    /// Converts.
    fn to_f64(self) -> f64;
    /// `self·a + b`, rounded once where the machine can.
    #[must_use]
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// The square root.
    #[must_use]
    fn sqrt(self) -> Self;
    /// `eˣ`; vectorizes in `f32`.
    #[must_use]
    fn exp(self) -> Self;
    /// The natural logarithm.
    #[must_use]
    fn ln(self) -> Self;
    /// The absolute value.
    #[must_use]
    fn abs(self) -> Self;
    /// The greater of the two.
    #[must_use]
    fn max(self, other: Self) -> Self;
    /// The error function; vectorizes in `f32`.
    #[must_use]
    fn erf(self) -> Self;
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn mul_add(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exponential(self)
    }
    #[inline(always)]
    fn ln(self) -> Self {
        self.ln()
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.abs()
    }
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn erf(self) -> Self {
        // Abramowitz & Stegun 7.1.26, absolute error below 1.5e-7.
        const A: [f32; 5] = [0.254_829_6, -0.284_496_74, 1.421_413_7, -1.453_152, 1.061_405_4];
        let z = self.abs();
        let t = 1.0 / 0.327_591_1f32.mul_add(z, 1.0);
        let series = t * (A[0] + t * (A[1] + t * (A[2] + t * (A[3] + t * A[4]))));
        (1.0 - series * exponential(-z * z)).copysign(self)
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn from_f64(value: f64) -> Self {
        value
    }
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn to_f32(self) -> f32 {
        self as f32
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn mul_add(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn ln(self) -> Self {
        self.ln()
    }
    fn abs(self) -> Self {
        self.abs()
    }
    fn max(self, other: Self) -> Self {
        self.max(other)
    }
    fn erf(self) -> Self {
        libm::erf(self)
    }
}

/// `eˣ` by range reduction and a polynomial of degree 6, without branches so that it vectorizes (relative error below 3e-7).
#[inline(always)]
fn exponential(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-1.428_606_8e-6, n.mul_add(-0.693_145_75, x));
    let mut p = 0.001_388_889f32;
    for c in [0.008_333_334, 0.041_666_668, 0.166_666_67, 0.5, 1.0, 1.0] {
        p = p.mul_add(r, c);
    }
    let power = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    p * power
}

/// A sum over sixteen interleaved accumulators: vector code, and in one fixed order.
#[inline(always)]
pub(super) fn lanes_sum<T: Real>(values: &[T], map: impl Fn(usize, T) -> T) -> T {
    let mut sums = [T::ZERO; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for (c, chunk) in chunks.iter().enumerate() {
        for (lane, (sum, &v)) in sums.iter_mut().zip(chunk).enumerate() {
            *sum += map(c * 16 + lane, v);
        }
    }
    let from = chunks.len() * 16;
    for (lane, (sum, &v)) in sums.iter_mut().zip(rest).enumerate() {
        *sum += map(from + lane, v);
    }
    let mut width = 8;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

/// Applies an activation.
#[inline(always)]
pub(super) fn activate<T: Real>(activation: Activation, x: &[T], y: &mut [T]) {
    match activation {
        Activation::Relu => each(x, y, |x, _| x.max(T::ZERO)),
        Activation::Tanh => each(x, y, |x, _| tanh(x)),
        Activation::Gelu => each(x, y, |x, _| x * normal_cdf(x)),
        Activation::GeluTanh => each(x, y, |x, _| x * sigmoid(two(cubic(x)))),
        Activation::Silu => each(x, y, |x, _| x * sigmoid(x)),
        Activation::Sigmoid => each(x, y, |x, _| sigmoid(x)),
    }
}

/// Multiplies a gradient by the activation's derivative at `x`.
#[inline(always)]
pub(super) fn activate_backward<T: Real>(activation: Activation, x: &[T], d: &mut [T]) {
    match activation {
        Activation::Relu => each(x, d, |x, d| if x > T::ZERO { d } else { T::ZERO }),
        Activation::Tanh => each(x, d, |x, d| {
            let y = tanh(x);
            d * (T::ONE - y * y)
        }),
        Activation::Gelu => each(x, d, |x, d| d * x.mul_add(normal_pdf(x), normal_cdf(x))),
        Activation::GeluTanh => each(x, d, |x, d| {
            let gate = sigmoid(two(cubic(x)));
            let slope = T::from_f64(ROOT_2_OVER_PI) * (T::ONE + T::from_f64(3.0 * CUBIC) * x * x);
            d * (gate + x * two(gate * (T::ONE - gate)) * slope)
        }),
        Activation::Silu => each(x, d, |x, d| {
            let s = sigmoid(x);
            d * s * (T::ONE + x * (T::ONE - s))
        }),
        Activation::Sigmoid => each(x, d, |x, d| {
            let s = sigmoid(x);
            d * s * (T::ONE - s)
        }),
    }
}

#[inline(always)]
fn each<T: Real>(x: &[T], y: &mut [T], map: impl Fn(T, T) -> T) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y = map(x, *y));
}

const ROOT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
const CUBIC: f64 = 0.044_715;

#[inline(always)]
fn two<T: Real>(x: T) -> T {
    x + x
}

#[inline(always)]
fn cubic<T: Real>(x: T) -> T {
    T::from_f64(ROOT_2_OVER_PI) * (x + T::from_f64(CUBIC) * x * x * x)
}

#[inline(always)]
fn sigmoid<T: Real>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

#[inline(always)]
fn tanh<T: Real>(x: T) -> T {
    two(sigmoid(two(x))) - T::ONE
}

#[inline(always)]
fn normal_cdf<T: Real>(x: T) -> T {
    T::from_f64(0.5) * (T::ONE + (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf())
}

#[inline(always)]
fn normal_pdf<T: Real>(x: T) -> T {
    (T::from_f64(-0.5) * x * x).exp() * T::from_f64(0.398_942_280_401_432_7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponential_is_accurate() {
        for k in -8700..=8700 {
            let x = k as f32 * 0.01;
            let (got, expected) = (f64::from(exponential(x)), f64::from(x).exp());
            assert!((got / expected - 1.0).abs() < 1e-6, "exp({x}): {got} {expected}");
        }
        assert!(exponential(-1e9) < 1e-37 && exponential(1e9).is_finite());
    }

    #[test]
    fn single_precision_follows_double() {
        for activation in Activation::ALL {
            for k in -800..=800 {
                let x = f64::from(k) * 0.0125;
                let (mut wide, mut narrow) = ([0.0f64], [0.0f32]);
                activate(activation, &[x], &mut wide);
                activate(activation, &[x as f32], &mut narrow);
                assert!((wide[0] - f64::from(narrow[0])).abs() < 2e-6, "{activation:?}({x}): {narrow:?} and {wide:?}");
                let (mut wide, mut narrow) = ([1.0f64], [1.0f32]);
                activate_backward(activation, &[x], &mut wide);
                activate_backward(activation, &[x as f32], &mut narrow);
                assert!((wide[0] - f64::from(narrow[0])).abs() < 2e-6, "{activation:?}'({x}): {narrow:?} and {wide:?}");
            }
        }
    }

    #[test]
    fn derivatives_match_differences_in_double() {
        for activation in Activation::ALL {
            for x in [-2.1f64, -0.4, 0.3, 1.7] {
                let h = 1e-5;
                let f = |v: f64| {
                    let mut out = [0.0];
                    activate(activation, &[v], &mut out);
                    out[0]
                };
                let mut d = [1.0];
                activate_backward(activation, &[x], &mut d);
                assert!((d[0] - (f(x + h) - f(x - h)) / (2.0 * h)).abs() < 1e-9, "{activation:?} at {x}");
            }
        }
    }

    #[test]
    fn sums_of_any_length() {
        for len in [0, 1, 15, 16, 17, 100] {
            let values: Vec<f64> = (0..len).map(f64::from).collect();
            assert_eq!(lanes_sum(&values, |_, v| v).to_bits(), (f64::from(len) * (f64::from(len) - 1.0).max(0.0) / 2.0).to_bits());
        }
    }
}
