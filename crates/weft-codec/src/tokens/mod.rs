//! Weights of any architecture as tokens: a unit's weights together, with coordinates that say which unit it is.
//!
//! A *unit* is one output of a map. Its token holds the incoming row, and in slots behind it the bias, and gain and shift of a norm that
//! stands directly behind the map:
//!
//! ```text
//! slot     0 … token_len − 1   token_len   token_len + 1   token_len + 2
//! weight   incoming row        bias        gain            shift
//! ```
//!
//! A row longer than `token_len` is cut into chunks, a token each; the first of them has the last three slots. Embeddings go by row. What
//! has no unit to go with (the gain of a norm behind a sum, the bias of a tied output) is a row of its own. A slot without a weight holds
//! 0. Running statistics of batch norms follow from the other weights and from data, and are in no token.
//!
//! Nothing here depends on an architecture's width or depth but the *number* of tokens. So one network can read the tokens of all, told
//! apart by [`coordinates`](TokenLayout::coordinates) that are places, not names: relative and absolute.
//!
//! Shape legend: `t` tokens, `f` slots of a token, `D` weights of a network.

mod coordinates;
mod maps;
mod moments;

pub use coordinates::NUM_COORDINATES;
pub use moments::{Moments, TokenNormalizer};

use crate::{Error, Result};
use maps::{Map, maps_of};
use std::ops::Range;
use weft_core::Architecture;

/// Which weights of a flat row are in which slots of which tokens.
///
/// # Examples
/// ```
/// use weft_codec::TokenLayout;
/// use weft_core::{Activation, Architecture};
/// let mlp = Architecture::mlp("mlp", &[784, 32, 10], Activation::Relu).unwrap();
/// // 32 rows of 784 weights in chunks of at most 196, and 10 rows of 32.
/// let layout = TokenLayout::new(&mlp, 196).unwrap();
/// assert_eq!(layout.num_tokens(), 32 * 4 + 10);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLayout {
    token_len: usize,
    dim: usize,
    num_maps: usize,
    maps: Vec<Map>,
    tokens: Vec<Place>,
}

/// One token: a chunk of a unit's row.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Place {
    map: usize,
    unit: usize,
    /// Where in the unit's row the chunk starts, and how long it is.
    start: usize,
    len: usize,
}

impl TokenLayout {
    /// Slots of a token behind its row: bias, gain and shift.
    pub const EXTRAS: usize = 3;

    /// Lays an architecture out in tokens with rows of at most `token_len` weights.
    ///
    /// # Errors
    /// [`Error::TokenLength`] if that is 0.
    pub fn new(architecture: &Architecture, token_len: usize) -> Result<Self> {
        if token_len == 0 {
            return Err(Error::TokenLength { got: token_len });
        }
        let maps = maps_of(architecture);
        let mut tokens = Vec::new();
        for (at, map) in maps.iter().enumerate() {
            for unit in 0..map.units {
                let chunk = |start: usize| Place { map: at, unit, start, len: token_len.min(map.row_len - start) };
                tokens.extend((0..map.row_len).step_by(token_len).map(chunk));
            }
        }
        let num_maps = maps.iter().map(|map| map.index + 1).max().unwrap_or(1);
        Ok(Self { token_len, dim: architecture.num_parameters(), num_maps, maps, tokens })
    }

    /// The number of tokens, `t`.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The slots of a token, `f`: those of its row and three more.
    #[must_use]
    pub fn num_slots(&self) -> usize {
        self.token_len + Self::EXTRAS
    }

    /// The most weights of a row that a token holds.
    #[must_use]
    pub fn token_len(&self) -> usize {
        self.token_len
    }

    /// The weights of a network, `D`.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The sequence cut into as few windows of at most `max_tokens` tokens as there can be, of lengths that differ by 1 at most.
    ///
    /// # Panics
    /// If `max_tokens` is 0.
    #[must_use]
    pub fn windows(&self, max_tokens: usize) -> Vec<Range<usize>> {
        let tokens = self.num_tokens();
        let count = tokens.div_ceil(max_tokens);
        (0..count).map(|i| tokens * i / count..tokens * (i + 1) / count).collect()
    }

    /// A flat row as tokens.
    ///
    /// # Shapes
    /// `[D]` → `[t, f]`.
    ///
    /// # Errors
    /// [`Error::Length`] for a row of another length.
    pub fn to_tokens(&self, row: &[f32]) -> Result<Vec<f32>> {
        check(row.len(), self.dim, "weights")?;
        let mut tokens = vec![0.0; self.num_tokens() * self.num_slots()];
        self.each(0..self.num_tokens(), |weights, slots| tokens[slots].copy_from_slice(&row[weights]));
        Ok(tokens)
    }

    /// Tokens as a flat row; what is in no token is 0.
    ///
    /// # Shapes
    /// `[t, f]` → `[D]`.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of values.
    pub fn to_row(&self, tokens: &[f32]) -> Result<Vec<f32>> {
        check(tokens.len(), self.num_tokens() * self.num_slots(), "tokens")?;
        let mut row = vec![0.0; self.dim];
        self.each(0..self.num_tokens(), |weights, slots| row[weights].copy_from_slice(&tokens[slots]));
        Ok(row)
    }

    /// Calls a function for each stretch of weights in a window of tokens: its place in the flat row, and its place in the window's slots,
    /// `[window, f]`.
    ///
    /// # Panics
    /// If the window is not of the sequence.
    pub fn each(&self, window: Range<usize>, mut visit: impl FnMut(Range<usize>, Range<usize>)) {
        let slots = self.num_slots();
        for (at, place) in self.tokens[window].iter().enumerate() {
            let map = &self.maps[place.map];
            let (from, to) = (map.weights + place.unit * map.row_len + place.start, at * slots);
            visit(from..from + place.len, to..to + place.len);
            if place.start > 0 {
                continue;
            }
            for (extra, tensor) in map.extras().into_iter().enumerate() {
                if let Some(offset) = tensor {
                    let slot = to + self.token_len + extra;
                    visit(offset + place.unit..offset + place.unit + 1, slot..slot + 1);
                }
            }
        }
    }

    /// How many slots of each token hold a weight, `[t]`.
    #[must_use]
    pub fn filled(&self) -> Vec<usize> {
        let extras = |map: &Map| map.extras().iter().flatten().count();
        self.tokens.iter().map(|place| place.len + if place.start == 0 { extras(&self.maps[place.map]) } else { 0 }).collect()
    }

    /// 1 for each slot of a window that holds a weight, and 0 for others, `[window, f]`.
    ///
    /// # Panics
    /// If the window is not of the sequence.
    #[must_use]
    pub fn mask(&self, window: Range<usize>) -> Vec<f32> {
        let mut mask = vec![0.0; window.len() * self.num_slots()];
        self.each(window, |_, slots| mask[slots].fill(1.0));
        mask
    }

    /// Where each weight of the flat row is among all slots, `token·f + slot`; none for what is in no token. `[D]`
    #[must_use]
    pub fn slot_of_weight(&self) -> Vec<Option<usize>> {
        let mut places = vec![None; self.dim];
        self.each(0..self.num_tokens(), |weights, slots| {
            places[weights].iter_mut().zip(slots).for_each(|(place, slot)| *place = Some(slot));
        });
        places
    }
}

fn check(got: usize, expected: usize, what: &'static str) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, row: expected, got }) }
}
