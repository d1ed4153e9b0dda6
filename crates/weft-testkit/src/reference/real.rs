//! Numbers that the reference computes in: `f64`, and dual numbers that carry a derivative along.

use std::ops::{Add, Div, Mul, Sub};

/// What the reference needs of a number.
pub(super) trait Real: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> {
    fn of(value: f64) -> Self;
    fn value(self) -> f64;
    /// The number with `f(value)` and the derivative times `slope`.
    fn chain(self, value: f64, slope: f64) -> Self;

    fn exp(self) -> Self {
        let y = self.value().exp();
        self.chain(y, y)
    }

    fn sqrt(self) -> Self {
        let y = self.value().sqrt();
        self.chain(y, 0.5 / y)
    }

    fn tanh(self) -> Self {
        let y = self.value().tanh();
        self.chain(y, 1.0 - y * y)
    }

    fn erf(self) -> Self {
        let x = self.value();
        self.chain(super::erf(x), 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp())
    }

    /// The larger of two.
    fn above(self, other: Self) -> Self {
        if self.value() >= other.value() { self } else { other }
    }

    /// The smaller of two.
    fn below(self, other: Self) -> Self {
        if self.value() <= other.value() { self } else { other }
    }
}

impl Real for f64 {
    fn of(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn chain(self, value: f64, _: f64) -> Self {
        value
    }
}

/// A value with its derivative in one direction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dual {
    pub(super) value: f64,
    pub(super) slope: f64,
}

impl Real for Dual {
    fn of(value: f64) -> Self {
        Self { value, slope: 0.0 }
    }

    fn value(self) -> f64 {
        self.value
    }

    fn chain(self, value: f64, slope: f64) -> Self {
        Self { value, slope: slope * self.slope }
    }
}

impl Add for Dual {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { value: self.value + other.value, slope: self.slope + other.slope }
    }
}

impl Sub for Dual {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { value: self.value - other.value, slope: self.slope - other.slope }
    }
}

impl Mul for Dual {
    type Output = Self;

    fn mul(self, other: Self) -> Self {
        Self { value: self.value * other.value, slope: self.slope * other.value + self.value * other.slope }
    }
}

impl Div for Dual {
    type Output = Self;

    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self { value, slope: (self.slope - value * other.slope) / other.value }
    }
}
