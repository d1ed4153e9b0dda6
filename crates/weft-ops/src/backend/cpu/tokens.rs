//! Sequences of tokens: rotary positions, and means over the tokens that there are.

use super::super::{Attention, Tokens};
use super::{ROWS, Real, add_bias, vectorized};
use rayon::prelude::*;
use weft_core::RopePairs;

/// Turns queries and keys of packed rows in place.
pub(super) fn rotate<T: Real>(attention: &Attention, pairs: RopePairs, packed: &mut [T], turns: &[T], back: bool) {
    let (dim, tokens) = (attention.head_dim, attention.tokens);
    let turned = (attention.heads + attention.kv_heads) * dim;
    assert!(dim.is_multiple_of(2) && turns.len() >= tokens * dim, "turns of each position");
    let sign = if back { -T::ONE } else { T::ONE };
    packed.par_chunks_mut(attention.packed()).enumerate().with_min_len(ROWS).for_each(|(row, packed)| {
        let turns = turns[row % tokens * dim..][..dim].as_chunks::<2>().0;
        vectorized(
            #[inline(always)]
            || {
                for head in packed[..turned].chunks_exact_mut(dim) {
                    match pairs {
                        RopePairs::Interleaved => {
                            for ([a, b], &[sin, cos]) in head.as_chunks_mut::<2>().0.iter_mut().zip(turns) {
                                turn(a, b, sign * sin, cos);
                            }
                        }
                        RopePairs::Halves => {
                            let (first, second) = head.split_at_mut(dim / 2);
                            for ((a, b), &[sin, cos]) in first.iter_mut().zip(second).zip(turns) {
                                turn(a, b, sign * sin, cos);
                            }
                        }
                    }
                }
            },
        );
    });
}

#[inline(always)]
fn turn<T: Real>(a: &mut T, b: &mut T, sin: T, cos: T) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}

/// The tokens of a sequence that count.
fn length(sizes: Tokens, lengths: &[u32], sequence: usize) -> usize {
    let length = lengths[sequence] as usize;
    assert!((1..=sizes.tokens).contains(&length), "a sequence's length");
    length
}

pub(super) fn mean<T: Real>(sizes: Tokens, x: &[T], lengths: &[u32], y: &mut [T]) {
    let of_sequence = sizes.tokens * sizes.width;
    y.par_chunks_mut(sizes.width).zip(x.par_chunks(of_sequence)).enumerate().for_each(|(sequence, (y, x))| {
        let length = length(sizes, lengths, sequence);
        y.fill(T::ZERO);
        x.chunks_exact(sizes.width).take(length).for_each(|x| add_bias(y, x));
        let share = T::ONE / T::from_f64(length as f64);
        for y in y.iter_mut() {
            *y *= share;
        }
    });
}

pub(super) fn mean_backward<T: Real>(sizes: Tokens, dy: &[T], lengths: &[u32], dx: &mut [T]) {
    let of_sequence = sizes.tokens * sizes.width;
    dx.par_chunks_mut(of_sequence).zip(dy.par_chunks(sizes.width)).enumerate().for_each(|(sequence, (dx, dy))| {
        let length = length(sizes, lengths, sequence);
        let share = T::ONE / T::from_f64(length as f64);
        let (seen, padding) = dx.split_at_mut(length * sizes.width);
        for dx in seen.chunks_exact_mut(sizes.width) {
            dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * share);
        }
        padding.fill(T::ZERO);
    });
}
