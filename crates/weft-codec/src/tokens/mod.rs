//! Weights of any architecture as tokens: a unit's weights together, with coordinates that say which unit it is.
//!
//! A *unit* is one output of a map. Its token holds the incoming row, and in slots behind it the bias, and gain and shift of a norm that
//! stands directly behind the map:
//!
//! ```text
//! slot     0 … token_len − 1   token_len   token_len + 1   token_len + 2   token_len + 3 …
//! weight   incoming row        bias        gain            shift           outgoing column
//! ```
//!
//! *Outgoing.* A unit means what it computes *and* where that goes. Where nothing but the last map reads a map's units, one by one, and has at
//! most `outgoing` outputs, its columns are in the tokens of the units that they read, and its bias is a token. The units of such a map are
//! a set: in no order, with no numbers, and a wider network has more of the same kind. Other last maps keep their rows.
//!
//! *Rank.* Rows that read the data may be held as coefficients in their first `rank` principal directions (the `basis` module). A token then
//! holds *values*, of which a network has fewer than weights; elsewhere values are weights.
//!
//! A row longer than `token_len` is cut into chunks, a token each; the first of them has the last three slots. Embeddings go by row. What
//! has no unit to go with (the gain of a norm behind a sum, the bias of a tied output) is a row of its own. A slot without a weight holds
//! 0. Running statistics of batch norms follow from the other weights and from data, and are in no token.
//!
//! Nothing here depends on an architecture's width or depth but the *number* of tokens. So one network can read the tokens of all, told
//! apart by [`coordinates`](TokenLayout::coordinates) that are places, not names: relative and absolute.
//!
//! Shape legend: `t` tokens, `f` slots of a token, `D` weights of a network, `V` values that its tokens hold.

mod basis;
mod coordinates;
mod maps;
mod moments;

pub use coordinates::NUM_COORDINATES;
pub use moments::{Directions, Moments, TokenNormalizer};

use crate::{Error, Result};
use basis::Reduction;
use maps::{Map, maps_of};
use std::ops::Range;
use weft_core::Architecture;

/// What tokens hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenShape {
    /// The most values of a unit's row in one token; longer rows are cut.
    pub token_len: usize,
    /// Slots for a unit's weights to outputs; 0 keeps the rows of last maps as tokens.
    pub outgoing: usize,
    /// Principal directions that rows which read the data are held in; 0 holds their weights.
    pub rank: usize,
}

impl TokenShape {
    /// Slots of a token, `f`.
    #[must_use]
    pub fn num_slots(self) -> usize {
        self.token_len + TokenLayout::EXTRAS + self.outgoing
    }
}

/// Rows of weights of at most that length, and nothing else.
impl From<usize> for TokenShape {
    fn from(token_len: usize) -> Self {
        Self { token_len, outgoing: 0, rank: 0 }
    }
}

/// Which values of a network are in which slots of which tokens.
///
/// # Examples
/// ```
/// use weft_codec::{TokenLayout, TokenShape};
/// use weft_core::{Activation, Architecture};
/// let mlp = Architecture::mlp("mlp", &[784, 32, 10], Activation::Relu).unwrap();
/// // 32 rows of 784 weights in chunks of at most 196, and 10 rows of 32.
/// let layout = TokenLayout::new(&mlp, 196).unwrap();
/// assert_eq!(layout.num_tokens(), 32 * 4 + 10);
/// // A token for each hidden unit, with 24 coefficients, a bias and 10 outgoing weights; and one for the bias of the outputs.
/// let layout = TokenLayout::new(&mlp, TokenShape { token_len: 24, outgoing: 10, rank: 24 }).unwrap();
/// assert_eq!([layout.num_tokens(), layout.num_values()], [32 + 1, 32 * (24 + 1 + 10) + 10]);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLayout {
    shape: TokenShape,
    dim: usize,
    num_values: usize,
    num_maps: usize,
    maps: Vec<Map>,
    reductions: Vec<Reduction>,
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

    /// Lays an architecture out in tokens; a number alone is the length of rows.
    ///
    /// # Errors
    /// [`Error::TokenLength`] if rows are to have no values.
    pub fn new(architecture: &Architecture, shape: impl Into<TokenShape>) -> Result<Self> {
        let shape: TokenShape = shape.into();
        let token_len = shape.token_len;
        if token_len == 0 {
            return Err(Error::TokenLength { got: token_len });
        }
        let dim = architecture.num_parameters();
        let mut maps = maps_of(architecture, shape.outgoing);
        let reductions = basis::reduce(&mut maps, shape.rank);
        let num_values = dim - reductions.iter().map(|r| r.weights.len() - r.values.len()).sum::<usize>();
        let mut tokens = Vec::new();
        for (at, map) in maps.iter().enumerate() {
            for unit in 0..map.units {
                let chunk = |start: usize| Place { map: at, unit, start, len: token_len.min(map.row_len - start) };
                tokens.extend((0..map.row_len).step_by(token_len).map(chunk));
            }
        }
        let num_maps = maps.iter().map(|map| map.index + 1).max().unwrap_or(1);
        Ok(Self { shape, dim, num_values, num_maps, maps, reductions, tokens })
    }

    /// The number of tokens, `t`.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The slots of a token, `f`.
    #[must_use]
    pub fn num_slots(&self) -> usize {
        self.shape.num_slots()
    }

    /// The most values of a row that a token holds.
    #[must_use]
    pub fn token_len(&self) -> usize {
        self.shape.token_len
    }

    /// The values that a network's tokens hold and those that are in no token, `V`: the weights, fewer where rows are coefficients.
    #[must_use]
    pub fn num_values(&self) -> usize {
        self.num_values
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

    /// Values as tokens.
    ///
    /// # Shapes
    /// `[V]` → `[t, f]`.
    ///
    /// # Errors
    /// [`Error::Length`] for a row of another length.
    pub fn to_tokens(&self, row: &[f32]) -> Result<Vec<f32>> {
        check(row.len(), self.num_values, "values")?;
        let mut tokens = vec![0.0; self.num_tokens() * self.num_slots()];
        self.each(0..self.num_tokens(), |weights, slots| tokens[slots].copy_from_slice(&row[weights]));
        Ok(tokens)
    }

    /// Tokens as values; what is in no token is 0.
    ///
    /// # Shapes
    /// `[t, f]` → `[V]`.
    ///
    /// # Errors
    /// [`Error::Length`] for another number of values.
    pub fn to_row(&self, tokens: &[f32]) -> Result<Vec<f32>> {
        check(tokens.len(), self.num_tokens() * self.num_slots(), "tokens")?;
        let mut row = vec![0.0; self.num_values];
        self.each(0..self.num_tokens(), |weights, slots| row[weights].copy_from_slice(&tokens[slots]));
        Ok(row)
    }

    /// Calls a function for each stretch of values in a window of tokens: its place among the values, and its place in the window's slots,
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
                    let slot = to + self.shape.token_len + extra;
                    visit(offset + place.unit..offset + place.unit + 1, slot..slot + 1);
                }
            }
            for (output, weight) in map.column(place.unit).enumerate() {
                let slot = to + self.shape.token_len + Self::EXTRAS + output;
                visit(weight..weight + 1, slot..slot + 1);
            }
        }
    }

    /// How many slots of each token hold a value, `[t]`.
    #[must_use]
    pub fn filled(&self) -> Vec<usize> {
        let extras = |map: &Map| map.extras().iter().flatten().count() + map.column(0).count();
        self.tokens.iter().map(|place| place.len + if place.start == 0 { extras(&self.maps[place.map]) } else { 0 }).collect()
    }

    /// 1 for each slot of a window that holds a value, and 0 for others, `[window, f]`.
    ///
    /// # Panics
    /// If the window is not of the sequence.
    #[must_use]
    pub fn mask(&self, window: Range<usize>) -> Vec<f32> {
        let mut mask = vec![0.0; window.len() * self.num_slots()];
        self.each(window, |_, slots| mask[slots].fill(1.0));
        mask
    }

    /// Where each value is among all slots, `token·f + slot`; none for what is in no token. `[V]`
    #[must_use]
    pub fn slot_of_value(&self) -> Vec<Option<usize>> {
        let mut places = vec![None; self.num_values];
        self.each(0..self.num_tokens(), |weights, slots| {
            places[weights].iter_mut().zip(slots).for_each(|(place, slot)| *place = Some(slot));
        });
        places
    }
}

fn check(got: usize, expected: usize, what: &'static str) -> Result<()> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, row: expected, got }) }
}
