//! Linear maps, and rows picked from or added to tokens.

use super::real::Real;
use rayon::prelude::*;
use weft_ops::kernels::{MatrixView, Target};

/// Rows that one thread takes at a time, unless there are very many.
const ROWS: usize = 64;
/// Outputs that one thread takes at a time where there are few rows.
const COLUMNS: usize = 256;

/// `x·Wᵀ + b`.
///
/// # Shapes
/// `x` `[rows, i]`, `w` `[o, i]`, `bias` `[o]` → `[rows, o]`.
pub(super) fn linear<T: Real>(x: &[T], w: &[T], bias: Option<&[T]>, fan_in: usize) -> Vec<T> {
    let (rows, out) = (x.len() / fan_in, w.len() / fan_in);
    let mut y = vec![T::ZERO; rows * out];
    if let Some(bias) = bias {
        y.par_chunks_mut(out).for_each(|row| row.copy_from_slice(bias));
    }
    if rows > ROWS || out <= COLUMNS {
        let block = (rows / 16).clamp(ROWS, 512);
        y.par_chunks_mut(block * out).zip(x.par_chunks(block * fan_in)).for_each(|(y, x)| {
            let (x, w) = (MatrixView::new(x, x.len() / fan_in, fan_in), MatrixView::new(w, out, fan_in));
            T::product(Target::new(y, out), x, w.t(), true);
        });
        return y;
    }
    // Few rows and many outputs: threads take blocks of outputs, `[block, rows]` so that each is a slice of its own.
    let mut turned = vec![T::ZERO; rows * out];
    turned.par_chunks_mut(COLUMNS * rows).zip(w.par_chunks(COLUMNS * fan_in)).for_each(|(y, w)| {
        let (w, x) = (MatrixView::new(w, w.len() / fan_in, fan_in), MatrixView::new(x, rows, fan_in));
        T::product(Target::new(y, rows), w, x.t(), false);
    });
    for (r, y) in y.chunks_exact_mut(out).enumerate() {
        y.iter_mut().zip(turned[r..].iter().step_by(rows)).for_each(|(y, &v)| *y += v);
    }
    y
}

/// Rows of a table, by token id.
///
/// # Shapes
/// `ids` `[b·t]`, the row of an id `[d]` → `[b·t, d]`.
pub(super) fn embed<'a, T: Real>(ids: &[T], width: usize, row: impl Fn(usize) -> std::borrow::Cow<'a, [T]>) -> Vec<T> {
    let mut y = Vec::with_capacity(ids.len() * width);
    for id in ids {
        y.extend_from_slice(&row(id.to_f64() as usize));
    }
    y
}

/// Adds `addend` to every stretch of its length.
pub(super) fn add_cyclic<T: Real>(x: &mut [T], addend: &[T]) {
    x.par_chunks_mut(addend.len()).for_each(|row| row.iter_mut().zip(addend).for_each(|(x, &a)| *x += a));
}

/// Puts a token before each example's tokens.
pub(super) fn prepend<T: Real>(x: &[T], token: &[T], example: usize) -> Vec<T> {
    x.chunks_exact(example).flat_map(|x| token.iter().chain(x).copied()).collect()
}

/// The stretch `start..start + len` of every row.
pub(super) fn slice<T: Real>(x: &[T], width: usize, start: usize, len: usize) -> Vec<T> {
    x.chunks_exact(width).flat_map(|row| row[start..start + len].iter().copied()).collect()
}

/// Rows of several matrices one after the other; each comes with its width.
pub(super) fn concat<T: Real>(parts: &[(&[T], usize)]) -> Vec<T> {
    let rows = parts.first().map_or(0, |(x, width)| x.len() / width);
    (0..rows).flat_map(|r| parts.iter().flat_map(move |(x, width)| x[r * width..(r + 1) * width].iter().copied())).collect()
}

/// The mean over tokens, `[b, t, d] → [b, d]`.
pub(super) fn mean_of_tokens<T: Real>(x: &[T], [tokens, width]: [usize; 2]) -> Vec<T> {
    let mut y = vec![T::ZERO; x.len() / tokens];
    y.par_chunks_mut(width).zip(x.par_chunks(tokens * width)).for_each(|(y, x)| {
        let mut sums = vec![0.0; width];
        x.chunks_exact(width).for_each(|token| sums.iter_mut().zip(token).for_each(|(s, v)| *s += v.to_f64()));
        y.iter_mut().zip(sums).for_each(|(y, sum)| *y = T::from_f64(sum / tokens as f64));
    });
    y
}
