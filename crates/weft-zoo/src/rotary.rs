//! The two orders in which rows of queries and keys stand, by which coordinates of a head rotary positions turn together.
//!
//! Transformers (and with it PEFT) turns coordinate `j` of a head with `j + e`, where `e` is half its width; llama2.c and llama.cpp turn `2j` with
//! `2j + 1`. The two are one network with the rows of queries and keys in another order, head by head, and the rows of a low-rank update's
//! second factor follow those of its map. Weft keeps adapters in the order of Transformers, which is what a folder of PEFT means.
//!
//! Shapes: `h` heads of width `2e`, `w` values a row.
//!
//! # References
//! Su et al., *`RoFormer`* (2021), section 3.4; llama.cpp, `convert_hf_to_gguf.py`, `LlamaModel.permute`.

use crate::Inferred;
use weft_core::families::{Family, Llama};
use weft_core::{Architecture, RopePairs};

/// Modules whose rows are in one of the two orders, by the last part of their names.
const QUERY: &str = "q_proj";
const KEY: &str = "k_proj";

/// The word for an order in metadata.
#[must_use]
pub fn rotary_name(pairs: RopePairs) -> &'static str {
    match pairs {
        RopePairs::Halves => "halves",
        RopePairs::Interleaved => "interleaved",
    }
}

/// The order that a word stands for.
#[must_use]
pub fn rotary_from_name(name: &str) -> Option<RopePairs> {
    [RopePairs::Halves, RopePairs::Interleaved].into_iter().find(|&pairs| rotary_name(pairs) == name)
}

/// The heads of a module that rotary positions turn, of `[query heads, key heads]`; none of other modules.
pub(crate) fn turned_heads(module: &str, [heads, kv_heads]: [usize; 2]) -> Option<usize> {
    match module.rsplit('.').next() {
        Some(QUERY) => Some(heads),
        Some(KEY) => Some(kv_heads),
        _ => None,
    }
}

/// Whether rotary positions turn what a module of these names puts out.
pub(crate) fn is_turned(module: &str) -> bool {
    turned_heads(module, [1, 1]).is_some()
}

/// Rows in the order of Transformers from those of llama2.c: row `(k, j, i)` of `h × e × 2` goes to `(k, i, j)`.
///
/// # Shapes
/// `[h·2e, w]` → the same.
pub(crate) fn halves_from_interleaved(rows: &[f32], width: usize, heads: usize) -> Vec<f32> {
    by_head(rows, width, heads, |half| (0..2 * half).map(|row| row % half * 2 + row / half).collect())
}

/// Rows in the order of llama2.c from those of Transformers: row `(k, i, j)` of `h × 2 × e` goes to `(k, j, i)`.
///
/// # Shapes
/// `[h·2e, w]` → the same.
pub(crate) fn interleaved_from_halves(rows: &[f32], width: usize, heads: usize) -> Vec<f32> {
    by_head(rows, width, heads, |half| (0..2 * half).map(|row| row % 2 * half + row / 2).collect())
}

/// Rows in another order, the same in each head: `from` says where each comes from.
fn by_head(rows: &[f32], width: usize, heads: usize, from: impl Fn(usize) -> Vec<usize>) -> Vec<f32> {
    let half = rows.len() / width.max(1) / heads.max(1) / 2;
    let from = from(half);
    let mut out = Vec::with_capacity(rows.len());
    for head in rows.chunks_exact((2 * half * width).max(1)) {
        for &row in &from {
            out.extend_from_slice(&head[row * width..][..width]);
        }
    }
    out
}

/// A network in the layout of Transformers: a decoder whose rotary positions turn neighbors gets the rows of queries and keys in the order
/// of halves, and computes the same but for rounding; any other stays as it is.
///
/// # Shapes
/// `[p]`, a row of the architecture that was inferred → the architecture and its row.
///
/// # Errors
/// Sizes that the family does not have.
pub fn in_transformers_layout(inferred: Inferred, row: Vec<f32>) -> weft_core::Result<(Architecture, Vec<f32>)> {
    let Some(Family::Llama(family)) =
        inferred.family.filter(|family| matches!(family, Family::Llama(llama) if llama.pairs == RopePairs::Interleaved))
    else {
        return Ok((inferred.architecture, row));
    };
    let heads = [family.num_heads, family.num_kv_heads];
    let turned = Family::Llama(Llama { pairs: RopePairs::Halves, ..family }).build(inferred.architecture.name())?;
    let mut out = row;
    for tensor in turned.tensors() {
        let Some(heads) = tensor.name.strip_suffix(".weight").and_then(|module| turned_heads(module, heads)) else { continue };
        let width = tensor.shape.get(1).copied().unwrap_or(1);
        let rows = halves_from_interleaved(&out[tensor.range()], width, heads);
        out[tensor.range()].copy_from_slice(&rows);
    }
    Ok((turned, out))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `weights.reshape(n_head, 2, half, width).swapaxes(1, 2)` of one head of 4 and of two heads of 2.
    #[test]
    fn halves_of_heads_are_interleaved_and_back() {
        let check = |rows: &[f32], width: usize, heads: usize, expected: &[f32]| {
            let turned = interleaved_from_halves(rows, width, heads);
            assert_eq!(turned, expected);
            assert_eq!(halves_from_interleaved(&turned, width, heads), rows);
        };
        check(&[0., 1., 2., 3.], 1, 1, &[0., 2., 1., 3.]);
        check(&[0., 1., 2., 3.], 1, 2, &[0., 1., 2., 3.]);
        check(&[0., 0., 1., 1., 2., 2., 3., 3.], 2, 1, &[0., 0., 2., 2., 1., 1., 3., 3.]);
        let rows: Vec<f32> = (0..72).map(|i| i as f32).collect();
        let turned = interleaved_from_halves(&rows, 3, 4);
        assert_ne!(turned, rows);
        assert_eq!(halves_from_interleaved(&turned, 3, 4), rows);
    }

    #[test]
    fn words_of_orders() {
        for pairs in [RopePairs::Halves, RopePairs::Interleaved] {
            assert_eq!(rotary_from_name(rotary_name(pairs)), Some(pairs));
        }
        assert_eq!(rotary_from_name("half"), None);
        assert_eq!(["a.q_proj", "k_proj", "a.v_proj", "a.xq_proj"].map(is_turned), [true, true, false, false]);
    }
}
