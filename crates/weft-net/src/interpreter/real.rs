//! The two precisions.

use super::WeightRow;
use std::borrow::Cow;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Range, Sub};
use weft_ops::kernels::{MatrixView, Target, product_f32, product_f64};

/// `f32` or `f64`. Inside this crate alone: public functions name their precision.
pub(super) trait Real:
    Copy
    + Send
    + Sync
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + AddAssign
    + MulAssign
    + 'static
{
    const ZERO: Self;
    const ONE: Self;

    fn from_f64(value: f64) -> Self;
    fn to_f64(self) -> f64;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    /// The complementary error function.
    fn erfc(self) -> Self;
    fn max(self, other: Self) -> Self;
    /// A stretch of the weights, converted if they are of the other precision.
    fn weights(row: WeightRow<'_>, range: Range<usize>) -> Cow<'_, [Self]>;
    /// Writes `a·b` to the target, or adds it.
    fn product(target: Target<'_, Self>, a: MatrixView<'_, Self>, b: MatrixView<'_, Self>, add: bool);
}

impl Real for f32 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn from_f64(value: f64) -> Self {
        value as Self
    }
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
    fn erfc(self) -> Self {
        libm::erfcf(self)
    }
    fn max(self, other: Self) -> Self {
        self.max(other)
    }
    fn weights(row: WeightRow<'_>, range: Range<usize>) -> Cow<'_, [Self]> {
        match row {
            WeightRow::F32(row) => Cow::Borrowed(&row[range]),
            WeightRow::F64(row) => row[range].iter().map(|&w| w as Self).collect(),
        }
    }
    fn product(target: Target<'_, Self>, a: MatrixView<'_, Self>, b: MatrixView<'_, Self>, add: bool) {
        product_f32(target, a, b, add);
    }
}

impl Real for f64 {
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn from_f64(value: f64) -> Self {
        value
    }
    fn to_f64(self) -> f64 {
        self
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
    fn erfc(self) -> Self {
        libm::erfc(self)
    }
    fn max(self, other: Self) -> Self {
        self.max(other)
    }
    fn weights(row: WeightRow<'_>, range: Range<usize>) -> Cow<'_, [Self]> {
        match row {
            WeightRow::F32(row) => row[range].iter().map(|&w| Self::from(w)).collect(),
            WeightRow::F64(row) => Cow::Borrowed(&row[range]),
        }
    }
    fn product(target: Target<'_, Self>, a: MatrixView<'_, Self>, b: MatrixView<'_, Self>, add: bool) {
        product_f64(target, a, b, add);
    }
}
