//! Matrix products that may be computed elsewhere than on this machine's cores, such as on a GPU.
//!
//! Who needs a great product asks a [`Products`] for it and computes it on the cores if that declines. A device declines what is too
//! small to pay for its way there and back, and everything once it has failed, so that results are right in any case;
//! [`Products::failure`] tells. Nothing is computed here.
//!
//! Shape letters: `n` networks, `d` columns of their weights, `k` combinations.

use std::ops::Deref;
use std::sync::Arc;

/// A strided view of a row-major matrix or of its transpose.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> View<'a> {
    /// A row-major matrix.
    ///
    /// # Panics
    /// If the data hold fewer than `rows · columns` values.
    #[must_use]
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A row-major matrix whose rows start `row_stride` values apart.
    ///
    /// # Panics
    /// If the last row reaches past the data.
    #[must_use]
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows == 0 || columns == 0 || (rows - 1) * row_stride + columns <= data.len(), "a view lies inside its data");
        Self { data, rows, columns, row_stride, column_stride: 1 }
    }

    /// The transpose.
    #[must_use]
    pub fn t(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// Rows `first..first + rows`.
    ///
    /// # Panics
    /// If it has no such rows.
    #[must_use]
    pub fn rows_from(self, first: usize, rows: usize) -> Self {
        assert!(first + rows <= self.rows, "rows of the view");
        let first = (first * self.row_stride).min(self.data.len());
        Self { data: &self.data[first..], rows, ..self }
    }

    /// The values, of which entry `(r, c)` is number `r · row_stride + c · column_stride`; every entry lies inside.
    #[must_use]
    pub fn data(self) -> &'a [f32] {
        self.data
    }

    /// `[rows, columns]`.
    #[must_use]
    pub fn shape(self) -> [usize; 2] {
        [self.rows, self.columns]
    }

    /// `[row_stride, column_stride]`, in values.
    #[must_use]
    pub fn strides(self) -> [usize; 2] {
        [self.row_stride, self.column_stride]
    }
}

/// Rows `[n, d]` that are centered and scaled when they are read: `x̃ = (x − mean) / scale`.
#[derive(Debug, Clone, Copy)]
pub struct Normalized<'a> {
    values: &'a [f32],
    mean: &'a [f32],
    scale: &'a [f32],
}

impl<'a> Normalized<'a> {
    /// Rows with the mean and the scale of each column.
    ///
    /// # Panics
    /// If the values are not whole rows of the length of both.
    #[must_use]
    pub fn new(values: &'a [f32], mean: &'a [f32], scale: &'a [f32]) -> Self {
        assert!(!mean.is_empty() && mean.len() == scale.len(), "a mean and a scale for each column");
        assert!(values.len().is_multiple_of(mean.len()), "whole rows");
        Self { values, mean, scale }
    }

    /// `[n, d]`.
    #[must_use]
    pub fn shape(self) -> [usize; 2] {
        [self.values.len() / self.mean.len(), self.mean.len()]
    }

    /// The rows as they are, `[n, d]`.
    #[must_use]
    pub fn values(self) -> &'a [f32] {
        self.values
    }

    /// What is subtracted, `[d]`.
    #[must_use]
    pub fn mean(self) -> &'a [f32] {
        self.mean
    }

    /// What is divided by, `[d]`.
    #[must_use]
    pub fn scale(self) -> &'a [f32] {
        self.scale
    }
}

/// A device for products.
///
/// Every operation returns whether it was done. If not, a target that was to be added to is as before; one that was to be written
/// may hold anything, since a device can fail on the way back. One that is done has the rounding of its precision, whose order is the device's own.
pub trait Products: std::fmt::Debug + Send + Sync {
    /// Writes `a·b` to the row-major `target`, or adds it, in `f32`.
    ///
    /// # Shapes
    /// `[m, k] · [k, n] → [m, n]`
    fn multiply(&self, target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) -> bool;

    /// Writes `X̃·b`, or with `transposed` `X̃ᵀ·b`, in `f32`.
    ///
    /// # Shapes
    /// `[n, d] · [d, l] → [n, l]`, or `[d, n] · [n, l] → [d, l]`
    fn project(&self, target: &mut [f32], rows: Normalized<'_>, transposed: bool, b: View<'_>) -> bool;

    /// Adds `X̃X̃ᵀ` to a sum, all in `f64`; what is above the diagonal may be left out.
    ///
    /// # Shapes
    /// `[n, d] · [d, n] → [n, n]`
    fn add_gram(&self, sum: &mut [f64], rows: Normalized<'_>) -> bool;

    /// Writes combinations of the rows, `u·X̃` in `f64`, rounded once.
    ///
    /// # Shapes
    /// `u` `[k, n]`; `[k, n] · [n, d] → [k, d]`
    fn combine(&self, target: &mut [f32], u: &[f64], rows: Normalized<'_>) -> bool;

    /// Why the device failed, if it did; it has declined everything since.
    fn failure(&self) -> Option<String>;
}

/// No device: everything is computed on the cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Here;

impl Products for Here {
    fn multiply(&self, _: &mut [f32], _: View<'_>, _: View<'_>, _: bool) -> bool {
        false
    }

    fn project(&self, _: &mut [f32], _: Normalized<'_>, _: bool, _: View<'_>) -> bool {
        false
    }

    fn add_gram(&self, _: &mut [f64], _: Normalized<'_>) -> bool {
        false
    }

    fn combine(&self, _: &mut [f32], _: &[f64], _: Normalized<'_>) -> bool {
        false
    }

    fn failure(&self) -> Option<String> {
        None
    }
}

/// Where great products are computed. It is no part of what a thing is that remembers it: any two places are equal.
#[derive(Debug, Clone)]
pub struct Place(Arc<dyn Products>);

impl Place {
    /// A device.
    #[must_use]
    pub fn new(products: Arc<dyn Products>) -> Self {
        Self(products)
    }
}

impl Default for Place {
    fn default() -> Self {
        Self(Arc::new(Here))
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Deref for Place {
    type Target = dyn Products;

    fn deref(&self) -> &Self::Target {
        self.0.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_name_the_entries_of_a_matrix() {
        let data: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let at = |view: View<'_>, r: usize, c: usize| view.data()[r * view.strides()[0] + c * view.strides()[1]];
        let view = View::strided(&data, 3, 2, 4);
        assert_eq!((view.shape(), at(view, 2, 1).to_bits()), ([3, 2], 9.0_f32.to_bits()));
        assert_eq!((view.t().shape(), at(view.t(), 1, 2).to_bits()), ([2, 3], 9.0_f32.to_bits()));
        let lower = view.rows_from(1, 2);
        assert_eq!((lower.shape(), at(lower, 1, 1).to_bits()), ([2, 2], 9.0_f32.to_bits()));
        let right = view.t().rows_from(1, 1);
        assert_eq!((right.shape(), at(right, 0, 2).to_bits()), ([1, 3], 9.0_f32.to_bits()));
        assert_eq!(view.rows_from(3, 0).shape(), [0, 2]);
        assert_eq!(Normalized::new(&data, &[0.0; 4], &[1.0; 4]).shape(), [3, 4]);
    }

    #[test]
    fn without_a_device_everything_is_declined() {
        let (mut target, view) = ([7.0; 1], View::new(&[1.0], 1, 1));
        let place = Place::default();
        assert!(!place.multiply(&mut target, view, view, false) && place.failure().is_none());
        assert_eq!(target.map(f32::to_bits), [7.0_f32.to_bits()]);
    }
}
