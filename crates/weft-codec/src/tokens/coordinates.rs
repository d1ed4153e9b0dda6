//! Coordinates of tokens: numbers that mean the same in a network of any width and depth.

use super::{Place, TokenLayout};
use crate::tokens::maps::{Kind, Map, Role};
use std::f32::consts::PI;
use std::ops::Range;
use weft_core::Digest;

/// Frequencies of relative places, and of absolute ones (of layer and chunk, of unit). Relative ones are few: they take values that no training
/// network has wherever a width or depth is new, and are to be smooth between those that one has.
const RELATIVE: usize = 2;
const ABSOLUTE: usize = 6;
const ABSOLUTE_UNIT: usize = 12;
/// Signs that a tensor's name is hashed to.
const NAME: usize = 8;
/// Plain numbers.
const NUMBERS: usize = 11;

/// The length of a token's coordinates.
pub const NUM_COORDINATES: usize =
    2 * (3 * RELATIVE + 2 * ABSOLUTE + ABSOLUTE_UNIT) + NUMBERS + Kind::ALL.len() + Role::ALL.len() + NAME;

impl TokenLayout {
    /// The coordinates of a window's tokens.
    ///
    /// Sines and cosines of the map's depth, the unit's place and the chunk's, each relative to how many there are and absolute; logarithms
    /// of fan-in, units and kernel; how full the token is; what kind of rows these are and where they stand; and signs of the tensor's
    /// name without its digits, so that parts of a block are told apart at any depth. Units whose tokens hold their outgoing weights have no
    /// place: nothing but the token itself refers to them.
    ///
    /// # Shapes
    /// → `[window, NUM_COORDINATES]`, all of them between −1 and 2 or so.
    ///
    /// # Panics
    /// If the window is not of the sequence.
    #[must_use]
    pub fn coordinates(&self, window: Range<usize>) -> Vec<f32> {
        let names: Vec<[f32; NAME]> = self.maps.iter().map(|map| signs_of(&map.tensor)).collect();
        let mut out = Vec::with_capacity(window.len() * NUM_COORDINATES);
        for place in &self.tokens[window] {
            self.append(place, &names[place.map], &mut out);
        }
        out
    }

    fn append(&self, place: &Place, name: &[f32; NAME], out: &mut Vec<f32>) {
        let map = &self.maps[place.map];
        let (depth, chunk) = (map.index as f32 / (self.num_maps.max(2) - 1) as f32, place.start / self.shape.token_len);
        let (unit, start) = ((place.unit as f32 + 0.5) / map.units as f32, place.start as f32 / map.row_len as f32);
        // Units whose tokens hold all that refers to them are a set.
        let (unit, is_numbered) = if map.outgoing.is_some() { (0.0, 0.0) } else { (unit, 1.0) };
        for (place, is_numbered) in [(depth, 1.0), (unit, is_numbered), (start, 1.0)] {
            relative(place, is_numbered, out);
        }
        absolute(map.index, (ABSOLUTE, 1.0), out);
        absolute(chunk, (ABSOLUTE, 1.0), out);
        absolute(place.unit, (ABSOLUTE_UNIT, is_numbered), out);
        out.extend([depth, unit, start]);
        out.extend(self.sizes(map, place));
        out.extend(Kind::ALL.map(|kind| f32::from(kind == map.kind)));
        out.extend(Role::ALL.map(|role| f32::from(role == map.role)));
        out.extend(name);
    }

    /// What numbers say of a token beside its place.
    fn sizes(&self, map: &Map, place: &Place) -> [f32; NUMBERS - 3] {
        let log = |size: usize| (size as f32).ln() / 5.0;
        let [bias, gain, shift] = map.extras().map(|extra| f32::from(extra.is_some() && place.start == 0));
        let filled = place.len as f32 / self.shape.token_len as f32;
        // The first map may be the last one, too.
        let ends = f32::from(map.ends);
        [log(map.inputs), log(map.units), log(map.kernel), filled, ends, bias, gain, shift]
    }
}

/// Sines and cosines of a place in `[0, 1]`, from half a turn over the whole up, times a factor.
fn relative(place: f32, factor: f32, out: &mut Vec<f32>) {
    for k in 0..RELATIVE {
        let (sin, cos) = (place * PI * (1_u32 << k) as f32).sin_cos();
        out.extend([factor * sin, factor * cos]);
    }
}

/// Sines and cosines of a count, of wavelengths from 2π to 10,000·2π (Vaswani et al. 2017, Section 3.5), times a factor.
fn absolute(count: usize, (frequencies, factor): (usize, f32), out: &mut Vec<f32>) {
    for k in 0..frequencies {
        let (sin, cos) = (count as f32 * 10_000f32.powf(-(k as f32) / (frequencies - 1) as f32)).sin_cos();
        out.extend([factor * sin, factor * cos]);
    }
}

/// Signs of a tensor's name, its digits left out.
fn signs_of(tensor: &str) -> [f32; NAME] {
    let name: String = tensor.chars().filter(|c| !c.is_ascii_digit()).collect();
    let bits = Digest::of_parts(std::iter::once(name.as_bytes())).as_bytes()[0];
    std::array::from_fn(|bit| if bits >> bit & 1 == 1 { 1.0 } else { -1.0 })
}
