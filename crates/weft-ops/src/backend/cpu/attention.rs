//! Attention, a sequence and key head a task: scores of a block of queries × a block of keys at a time.

use super::super::Attention;
use super::{Real, vectorized};
use crate::kernels::{MatrixView, Target, product};
use rayon::prelude::*;

/// Queries and keys of a block: its scores stay in the second cache.
const QUERIES: usize = 64;
const KEYS: usize = 128;

/// One sequence's packed rows.
#[derive(Clone, Copy)]
struct Sequence<'a, T> {
    attention: &'a Attention,
    rows: &'a [T],
    /// Tokens that may be seen.
    length: usize,
}

impl<'a, T: Real> Sequence<'a, T> {
    /// Sequence number `at`.
    fn new(attention: &'a Attention, (packed, lengths): (&'a [T], Option<&[u32]>), at: usize) -> Self {
        let len = attention.tokens * attention.packed();
        let length = lengths.map_or(attention.tokens, |lengths| lengths[at] as usize);
        assert!((1..=attention.tokens).contains(&length), "a sequence's length");
        Self { attention, rows: &packed[at * len..][..len], length }
    }

    /// The blocks of keys that queries `..to` see.
    fn key_blocks(&self, to: usize) -> impl Iterator<Item = (usize, usize)> + use<T> {
        blocks(if self.attention.causal { to.min(self.length) } else { self.length }, KEYS)
    }

    /// How many of `width` keys from `first` on a query sees.
    fn seen(&self, query: usize, first: usize, width: usize) -> usize {
        if self.attention.causal { (query + 1).saturating_sub(first).min(width) } else { width }
    }

    /// Rows `from..to` of the queries of a head.
    fn queries(&self, head: usize, from: usize, to: usize) -> MatrixView<'a, T> {
        self.view(head, from, to)
    }

    fn keys(&self, head: usize, from: usize, to: usize) -> MatrixView<'a, T> {
        self.view(self.attention.heads + head, from, to)
    }

    fn values(&self, head: usize, from: usize, to: usize) -> MatrixView<'a, T> {
        self.view(self.attention.heads + self.attention.kv_heads + head, from, to)
    }

    fn view(&self, head: usize, from: usize, to: usize) -> MatrixView<'a, T> {
        let (dim, packed) = (self.attention.head_dim, self.attention.packed());
        MatrixView::strided(&self.rows[from * packed + head * dim..], to - from, dim, packed)
    }
}

/// Blocks of `0..tokens`.
fn blocks(tokens: usize, size: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..tokens).step_by(size).map(move |from| (from, (from + size).min(tokens)))
}

fn multiply<T: Real>(out: &mut [T], columns: usize, a: MatrixView<'_, T>, b: MatrixView<'_, T>, add: bool) {
    product(Target::new(out, columns), a, b, (T::ZERO, T::ONE), add, gemm::Parallelism::None);
}

/// Copies `[b, h, t, k]` to columns `first..` of rows `[b·t, columns]`.
fn rows_from_heads<T: Real>(attention: &Attention, heads: usize, from: &[T], (rows, columns, first): (&mut [T], usize, usize)) {
    let (tokens, dim) = (attention.tokens, attention.head_dim);
    rows.par_chunks_mut(columns).enumerate().with_min_len(super::ROWS).for_each(|(row, out)| {
        let (sequence, token) = (row / tokens, row % tokens);
        for (head, out) in out[first..][..heads * dim].chunks_exact_mut(dim).enumerate() {
            out.copy_from_slice(&from[((sequence * heads + head) * tokens + token) * dim..][..dim]);
        }
    });
}

pub(super) fn forward<T: Real>(attention: &Attention, packed: (&[T], Option<&[u32]>), y: &mut [T], log_sums: &mut [T]) {
    let (tokens, dim, heads) = (attention.tokens, attention.head_dim, attention.heads);
    let mut out = vec![T::ZERO; y.len()];
    let tasks = out.par_chunks_mut(tokens * dim).zip(log_sums.par_chunks_mut(tokens)).enumerate();
    tasks.for_each(|(task, (out, log_sums))| {
        let (sequence, head) = (task / heads, task % heads);
        let sequence = Sequence::new(attention, packed, sequence);
        let mut scores = vec![T::ZERO; QUERIES * KEYS.min(tokens)];
        for (from, to) in blocks(tokens, QUERIES) {
            let (out, log_sums) = (&mut out[from * dim..to * dim], &mut log_sums[from..to]);
            forward_block(sequence, head, (from, to), &mut scores, out, log_sums);
        }
    });
    rows_from_heads(attention, heads, &out, (y, heads * dim, 0));
}

/// Queries `from..to` over all keys that they see, with a running maximum and sum; `log_sums` holds the maximum till the end.
fn forward_block<T: Real>(
    sequence: Sequence<'_, T>,
    head: usize,
    (from, to): (usize, usize),
    scores: &mut [T],
    out: &mut [T],
    log_sums: &mut [T],
) {
    let attention = sequence.attention;
    let (dim, kv) = (attention.head_dim, head / (attention.heads / attention.kv_heads));
    let scale = T::from_f64(attention.scale());
    let mut sums = [T::ZERO; QUERIES];
    for (block, (first, last)) in sequence.key_blocks(to).enumerate() {
        let width = last - first;
        let scores = &mut scores[..(to - from) * width];
        multiply(scores, width, sequence.queries(head, from, to), sequence.keys(kv, first, last).t(), false);
        vectorized(
            #[inline(always)]
            || {
                for (r, row) in scores.chunks_exact_mut(width).enumerate() {
                    let seen = sequence.seen(from + r, first, width);
                    let (row, unseen) = row.split_at_mut(seen);
                    unseen.fill(T::ZERO);
                    if seen == 0 {
                        continue;
                    }
                    let mut max = scale * maximum(row);
                    if block > 0 {
                        max = max.max(log_sums[r]);
                        let shrink = (log_sums[r] - max).exp();
                        sums[r] *= shrink;
                        out[r * dim..][..dim].iter_mut().for_each(|o| *o *= shrink);
                    }
                    log_sums[r] = max;
                    for s in row.iter_mut() {
                        *s = s.mul_add(scale, -max).exp();
                    }
                    sums[r] += super::real::lanes_sum(row, |_, p| p);
                }
            },
        );
        multiply(out, dim, MatrixView::new(scores, to - from, width), sequence.values(kv, first, last), block > 0);
    }
    for ((out, log_sum), &sum) in out.chunks_exact_mut(dim).zip(log_sums).zip(&sums) {
        let inverse = T::ONE / sum;
        for o in out.iter_mut() {
            *o *= inverse;
        }
        *log_sum += sum.ln();
    }
}

/// The greatest value, over sixteen interleaved candidates.
#[inline(always)]
fn maximum<T: Real>(row: &[T]) -> T {
    let mut best = [row[0]; 16];
    for chunk in row.chunks(16) {
        best.iter_mut().zip(chunk).for_each(|(b, &v)| *b = b.max(v));
    }
    best.iter().fold(best[0], |max, &v| max.max(v))
}

pub(super) fn backward<T: Real>(
    attention: &Attention,
    packed: (&[T], Option<&[u32]>),
    (y, log_sums): (&[T], &[T]),
    dy: &[T],
    d_packed: &mut [T],
) {
    let (tokens, dim, heads, kv_heads) = (attention.tokens, attention.head_dim, attention.heads, attention.kv_heads);
    let group = heads / kv_heads;
    let (len, columns) = (tokens * dim, attention.packed());
    let mut d_queries = vec![T::ZERO; y.len()];
    let mut d_keys = vec![T::ZERO; y.len() / group];
    let mut d_values = vec![T::ZERO; y.len() / group];
    let tasks = d_queries.par_chunks_mut(group * len).zip(d_keys.par_chunks_mut(len).zip(d_values.par_chunks_mut(len))).enumerate();
    tasks.for_each(|(task, (d_queries, (d_keys, d_values)))| {
        let (at, kv) = (task / kv_heads, task % kv_heads);
        let sequence = Sequence::new(attention, packed, at);
        let rows = at * tokens * heads * dim..(at + 1) * tokens * heads * dim;
        let outputs = [&y[rows.clone()], &dy[rows]];
        let mut scratch = [0; 2].map(|_| vec![T::ZERO; QUERIES * KEYS.min(tokens)]);
        for (of_group, d_queries) in d_queries.chunks_exact_mut(len).enumerate() {
            let head = kv * group + of_group;
            let log_sums = &log_sums[(at * heads + head) * tokens..][..tokens];
            for (from, to) in blocks(tokens, QUERIES) {
                let d = [&mut d_queries[from * dim..to * dim], &mut *d_keys, &mut *d_values];
                backward_block(sequence, (head, kv), (from, to), (outputs, &log_sums[from..to]), &mut scratch, d);
            }
        }
    });
    rows_from_heads(attention, heads, &d_queries, (d_packed, columns, 0));
    rows_from_heads(attention, kv_heads, &d_keys, (d_packed, columns, heads * dim));
    rows_from_heads(attention, kv_heads, &d_values, (d_packed, columns, (heads + kv_heads) * dim));
}

/// The part of queries `from..to` in all three gradients.
fn backward_block<T: Real>(
    sequence: Sequence<'_, T>,
    (head, kv): (usize, usize),
    (from, to): (usize, usize),
    ([y, dy], log_sums): ([&[T]; 2], &[T]),
    [p, ds]: &mut [Vec<T>; 2],
    [d_queries, d_keys, d_values]: [&mut [T]; 3],
) {
    let attention = sequence.attention;
    let (dim, width) = (attention.head_dim, attention.width());
    let scale = T::from_f64(attention.scale());
    let rows = to - from;
    let mut deltas = [T::ZERO; QUERIES];
    for (r, delta) in deltas[..rows].iter_mut().enumerate() {
        let at = (from + r) * width + head * dim;
        *delta = super::real::lanes_sum(&y[at..][..dim], |i, v| v * dy[at + i]);
    }
    let dy = MatrixView::strided(&dy[from * width + head * dim..], rows, dim, width);
    for (block, (first, last)) in sequence.key_blocks(to).enumerate() {
        let count = last - first;
        let (p, ds) = (&mut p[..rows * count], &mut ds[..rows * count]);
        multiply(p, count, sequence.queries(head, from, to), sequence.keys(kv, first, last).t(), false);
        multiply(ds, count, dy, sequence.values(kv, first, last).t(), false);
        vectorized(
            #[inline(always)]
            || {
                for (r, (p, ds)) in p.chunks_exact_mut(count).zip(ds.chunks_exact_mut(count)).enumerate() {
                    let seen = sequence.seen(from + r, first, count);
                    let (log_sum, delta) = (log_sums[r], deltas[r]);
                    p[seen..].fill(T::ZERO);
                    ds[seen..].fill(T::ZERO);
                    for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                        *p = p.mul_add(scale, -log_sum).exp();
                        *ds = *p * (*ds - delta) * scale;
                    }
                }
            },
        );
        let [p, ds] = [p, ds].map(|m| MatrixView::new(m, rows, count));
        multiply(d_queries, dim, ds, sequence.keys(kv, first, last), block > 0);
        multiply(&mut d_keys[first * dim..last * dim], dim, ds.t(), sequence.queries(head, from, to), true);
        multiply(&mut d_values[first * dim..last * dim], dim, p.t(), dy, true);
    }
}
