//! A device for products that computes them in `f64` as they are written, takes all of them, and counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use weft_core::products::{Normalized, Products, View};

/// Takes every product. Shares no code with those that it stands for.
#[derive(Debug, Default)]
pub struct PlainProducts {
    counts: [AtomicUsize; 4],
}

impl PlainProducts {
    /// How often `multiply`, `project`, `add_gram` and `combine` were asked for.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn count(&self, operation: usize) {
        self.counts[operation].fetch_add(1, Ordering::Relaxed);
    }
}

/// A matrix in `f64`, row-major.
struct Matrix {
    values: Vec<f64>,
    shape: [usize; 2],
}

impl Matrix {
    fn new(view: View<'_>) -> Self {
        let (shape, [down, across]) = (view.shape(), view.strides());
        let entries = (0..shape[0]).flat_map(|r| (0..shape[1]).map(move |c| (r, c)));
        Self { values: entries.map(|(r, c)| f64::from(view.data()[r * down + c * across])).collect(), shape }
    }

    fn normalized(rows: Normalized<'_>) -> Self {
        let shape = rows.shape();
        let column = |i: usize| (f64::from(rows.mean()[i % shape[1]]), f64::from(rows.scale()[i % shape[1]]));
        let values = rows.values().iter().enumerate().map(|(i, &x)| (f64::from(x) - column(i).0) / column(i).1);
        Self { values: values.collect(), shape }
    }

    fn t(&self) -> Self {
        let [rows, columns] = self.shape;
        let entries = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
        Self { values: entries.map(|i| self.values[i]).collect(), shape: [columns, rows] }
    }

    fn times(&self, other: &Self) -> Vec<f64> {
        let ([m, k], [inner, n]) = (self.shape, other.shape);
        assert_eq!(k, inner, "inner lengths agree");
        let mut product = vec![0.0; m * n];
        if k * n > 0 {
            for (row, out) in self.values.chunks_exact(k).zip(product.chunks_exact_mut(n)) {
                for (&x, other) in row.iter().zip(other.values.chunks_exact(n)) {
                    out.iter_mut().zip(other).for_each(|(out, &y)| *out += x * y);
                }
            }
        }
        product
    }
}

fn write(target: &mut [f32], values: &[f64], add: bool) {
    assert_eq!(target.len(), values.len(), "the target has the product's shape");
    for (target, &value) in target.iter_mut().zip(values) {
        *target = (value + if add { f64::from(*target) } else { 0.0 }) as f32;
    }
}

impl Products for PlainProducts {
    fn multiply(&self, target: &mut [f32], a: View<'_>, b: View<'_>, add: bool) -> bool {
        self.count(0);
        write(target, &Matrix::new(a).times(&Matrix::new(b)), add);
        true
    }

    fn project(&self, target: &mut [f32], rows: Normalized<'_>, transposed: bool, b: View<'_>) -> bool {
        self.count(1);
        let rows = Matrix::normalized(rows);
        let rows = if transposed { rows.t() } else { rows };
        write(target, &rows.times(&Matrix::new(b)), false);
        true
    }

    fn add_gram(&self, sum: &mut [f64], rows: Normalized<'_>) -> bool {
        self.count(2);
        let rows = Matrix::normalized(rows);
        sum.iter_mut().zip(rows.times(&rows.t())).for_each(|(sum, value)| *sum += value);
        true
    }

    fn combine(&self, target: &mut [f32], u: &[f64], rows: Normalized<'_>) -> bool {
        self.count(3);
        let n = rows.shape()[0];
        let u = Matrix { values: u.to_vec(), shape: [u.len() / n, n] };
        write(target, &u.times(&Matrix::normalized(rows)), false);
        true
    }

    fn failure(&self) -> Option<String> {
        None
    }
}
