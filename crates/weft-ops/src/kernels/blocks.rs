//! Images with the examples innermost.
//!
//! Channels of small networks are few and images small, so neither fills a vector. Examples always do: an image batch is kept in
//! *blocks* of as many examples as the machine's vector has lanes, `[blocks, channels, height, width, lanes]`, and every kernel on
//! images is the scalar algorithm of one example with a vector in the place of a number. The lanes past the last example are
//! padding: their values are of no account, and their gradients are 0.

use super::transpose;
use pulp::{Arch, Simd, WithSimd};

/// The number of examples of a block: the lanes of this machine's vectors.
#[must_use]
pub fn lanes() -> usize {
    Arch::new().dispatch(CountLanes)
}

struct CountLanes;

impl WithSimd for CountLanes {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

/// The number of values, padding included, of `examples` examples in blocks.
#[must_use]
pub fn blocked_len(examples: usize, features: usize) -> usize {
    examples.next_multiple_of(lanes()) * features
}

/// Rearranges rows into blocks; the padding becomes 0.
///
/// # Shapes
/// `rows` `[b, features]` → `out` `[blocks, features, lanes]`.
///
/// # Panics
/// If `out` is not [`blocked_len`] long.
pub fn blocks_from_rows(features: usize, rows: &[f32], out: &mut [f32]) {
    let lanes = lanes();
    assert_eq!(out.len(), blocked_len(rows.len() / features, features), "out is not [blocks, features, lanes]");
    for (rows, block) in rows.chunks(features * lanes).zip(out.chunks_exact_mut(features * lanes)) {
        if rows.len() == block.len() {
            transpose([lanes, features], rows, block);
            continue;
        }
        block.fill(0.0);
        for (lane, row) in rows.chunks_exact(features).enumerate() {
            block.iter_mut().skip(lane).step_by(lanes).zip(row).for_each(|(slot, &v)| *slot = v);
        }
    }
}

/// Rearranges blocks into rows, and leaves the padding out.
///
/// # Shapes
/// `blocks` `[blocks, features, lanes]` → `out` `[b, features]`.
///
/// # Panics
/// If `blocks` is not [`blocked_len`] long.
pub fn rows_from_blocks(features: usize, blocks: &[f32], out: &mut [f32]) {
    let lanes = lanes();
    assert_eq!(blocks.len(), blocked_len(out.len() / features, features), "blocks is not [blocks, features, lanes]");
    for (rows, block) in out.chunks_mut(features * lanes).zip(blocks.chunks_exact(features * lanes)) {
        if rows.len() == block.len() {
            transpose([features, lanes], block, rows);
            continue;
        }
        for (lane, row) in rows.chunks_exact_mut(features).enumerate() {
            row.iter_mut().zip(block.iter().skip(lane).step_by(lanes)).for_each(|(slot, &v)| *slot = v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::Seed;

    #[test]
    fn blocks_and_back_is_the_identity() {
        for examples in [1, lanes(), lanes() + 3] {
            let rows = Seed::new(1).normals(examples * 5);
            let mut blocks = vec![7.0; blocked_len(examples, 5)];
            blocks_from_rows(5, &rows, &mut blocks);
            // Value 2 of the last example.
            let last = examples - 1;
            let (block, lane) = (last / lanes(), last % lanes());
            assert_eq!(blocks[(block * 5 + 2) * lanes() + lane].to_bits(), rows[last * 5 + 2].to_bits());
            assert_eq!(blocks.iter().filter(|v| **v != 0.0).count(), rows.len());
            let mut back = vec![0.0; rows.len()];
            rows_from_blocks(5, &blocks, &mut back);
            assert_eq!(rows, back);
        }
    }
}
