//! Attention: per example and head, two products and a softmax.

use super::real::Real;
use rayon::prelude::*;
use weft_core::{Rope, RopePairs};
use weft_ops::kernels::{MatrixView, Target};

/// Scores that one thread holds at a time.
const MAX_SCORES: usize = 1 << 21;

/// The sizes of an attention op.
pub(super) struct Shape {
    pub(super) tokens: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Width of one head.
    pub(super) d_head: usize,
    pub(super) causal: bool,
    pub(super) rope: Option<Rope>,
}

/// `softmax(Q·Kᵀ/√d)·V` of every head.
///
/// # Shapes
/// `q` `[b, t, heads·d]`, `k` and `v` `[b, t, kv_heads·d]` → `[b, t, heads·d]`.
pub(super) fn attention<T: Real>([q, k, v]: [&[T]; 3], shape: &Shape) -> Vec<T> {
    let Shape { tokens, heads, kv_heads, d_head: d, .. } = *shape;
    let turns = shape.rope.map(|rope| Turns::new(rope, tokens, d));
    let head = |x: &[T], example: usize, h: usize, heads: usize| -> Vec<T> {
        let first = example * tokens * heads * d;
        (0..tokens).flat_map(|t| x[first + (t * heads + h) * d..][..d].iter().copied()).collect()
    };
    let mut by_head = vec![T::ZERO; q.len()]; // [b, heads, t, d]
    by_head.par_chunks_mut(tokens * d).enumerate().for_each(|(at, out)| {
        let (example, h) = (at / heads, at % heads);
        let from = h / (heads / kv_heads);
        let mut query = head(q, example, h, heads);
        let (mut key, value) = (head(k, example, from, kv_heads), head(v, example, from, kv_heads));
        if let Some(turns) = &turns {
            turns.apply(&mut query);
            turns.apply(&mut key);
        }
        one_head([&query, &key, &value], shape, out);
    });
    let mut y = vec![T::ZERO; q.len()];
    y.par_chunks_mut(tokens * heads * d).zip(by_head.par_chunks(tokens * heads * d)).for_each(|(y, x)| {
        for (at, row) in x.chunks_exact(d).enumerate() {
            let (h, t) = (at / tokens, at % tokens);
            y[(t * heads + h) * d..][..d].copy_from_slice(row);
        }
    });
    y
}

/// One head, a block of queries at a time so that the scores of long sequences fit in memory.
fn one_head<T: Real>([query, key, value]: [&[T]; 3], shape: &Shape, out: &mut [T]) {
    let (tokens, d) = (shape.tokens, shape.d_head);
    let scale = 1.0 / (d as f64).sqrt();
    let block = (MAX_SCORES / tokens).clamp(1, tokens);
    let mut scores = vec![T::ZERO; block * tokens];
    for (first, (query, out)) in query.chunks(block * d).zip(out.chunks_mut(block * d)).enumerate() {
        let rows = query.len() / d;
        // A causal block sees nothing behind its own last token.
        let seen = if shape.causal { (first * block + rows).min(tokens) } else { tokens };
        let scores = &mut scores[..rows * seen];
        let keys = MatrixView::new(&key[..seen * d], seen, d);
        T::product(Target::new(scores, seen), MatrixView::new(query, rows, d), keys.t(), false);
        for (r, row) in scores.chunks_exact_mut(seen).enumerate() {
            let own = if shape.causal { first * block + r + 1 } else { seen };
            softmax(&mut row[..own], scale);
            row[own..].fill(T::ZERO);
        }
        let values = MatrixView::new(&value[..seen * d], seen, d);
        T::product(Target::new(out, d), MatrixView::new(scores, rows, seen), values, false);
    }
}

/// The softmax of scores times a scale, in place.
fn softmax<T: Real>(row: &mut [T], scale: f64) {
    let scale = T::from_f64(scale);
    let top = row.iter().copied().reduce(T::max).unwrap_or(T::ZERO);
    let mut total = 0.0;
    for v in row.iter_mut() {
        *v = ((*v - top) * scale).exp();
        total += v.to_f64();
    }
    let factor = T::from_f64(1.0 / total);
    for v in row.iter_mut() {
        *v *= factor;
    }
}

/// Sines and cosines of a rotary embedding, `[t, d/2]`.
struct Turns<T> {
    angles: Vec<[T; 2]>,
    pairs: RopePairs,
    d: usize,
}

impl<T: Real> Turns<T> {
    fn new(rope: Rope, tokens: usize, d: usize) -> Self {
        let turn = |at: usize| {
            let (position, i) = (at / (d / 2), at % (d / 2));
            let (sin, cos) = (position as f64 * rope.theta.powf(-2.0 * i as f64 / d as f64)).sin_cos();
            [T::from_f64(sin), T::from_f64(cos)]
        };
        Self { angles: (0..tokens * (d / 2)).map(turn).collect(), pairs: rope.pairs, d }
    }

    /// Rotates the pairs of every token of a head, `[t, d]`.
    fn apply(&self, x: &mut [T]) {
        let half = self.d / 2;
        for (token, turns) in x.chunks_exact_mut(self.d).zip(self.angles.chunks_exact(half)) {
            for (i, &[sin, cos]) in turns.iter().enumerate() {
                let (a, b) = match self.pairs {
                    RopePairs::Interleaved => (2 * i, 2 * i + 1),
                    RopePairs::Halves => (i, i + half),
                };
                (token[a], token[b]) = (token[a] * cos - token[b] * sin, token[a] * sin + token[b] * cos);
            }
        }
    }
}
