//! An architecture as the transformer sees it: its tokens, their coordinates, and what their weights are shifted and divided by.

use crate::Result;
use crate::error::require;
use candle_core::{Device, Tensor};
use std::ops::Range;
use std::sync::Arc;
use weft_codec::{Moments, NUM_COORDINATES, TokenLayout, TokenNormalizer, TokenShape};
use weft_core::Architecture;

/// One architecture's tokens.
#[derive(Debug, Clone)]
pub(super) struct Space {
    pub(super) architecture: Arc<Architecture>,
    pub(super) layout: TokenLayout,
    pub(super) moments: Moments,
    /// `[t, c]`.
    pub(super) coordinates: Vec<f32>,
    /// Slots of each token that hold a value, `[t]`.
    pub(super) filled: Vec<usize>,
}

impl Space {
    pub(super) fn new(architecture: Arc<Architecture>, normalizer: &TokenNormalizer, shape: TokenShape) -> Result<Self> {
        let layout = TokenLayout::new(&architecture, shape)?;
        require("architecture", "one with weights", layout.num_tokens() > 0, architecture.name())?;
        let moments = normalizer.moments(&layout)?;
        let (coordinates, filled) = (layout.coordinates(0..layout.num_tokens()), layout.filled());
        Ok(Self { architecture, layout, moments, coordinates, filled })
    }

    /// The coordinates of a window's tokens, `[window, c]`.
    pub(super) fn coordinates(&self, window: Range<usize>) -> &[f32] {
        &self.coordinates[window.start * NUM_COORDINATES..window.end * NUM_COORDINATES]
    }

    /// Writes the normalized values of a window of a network's tokens to their slots, `[V]` → `[window, f]`.
    pub(super) fn fill(&self, values: &[f32], window: Range<usize>, out: &mut [f32]) {
        let Moments { shift, scale, .. } = &self.moments;
        self.layout.each(window, |stretch, slots| {
            for (slot, at) in out[slots].iter_mut().zip(stretch) {
                *slot = (values[at] - shift[at]) / scale[at];
            }
        });
    }

    /// The normalized tokens of networks, `[n, D]` → `[n, t, f]`.
    pub(super) fn tokens(&self, rows: &[f32], device: &Device) -> Result<Tensor> {
        let (n, t, f) = (rows.len() / self.layout.dim(), self.layout.num_tokens(), self.layout.num_slots());
        let mut out = vec![0.0; n * t * f];
        for (row, out) in rows.chunks_exact(self.layout.dim()).zip(out.chunks_exact_mut(t * f)) {
            self.fill(&self.moments.values(row), 0..t, out);
        }
        Ok(Tensor::from_vec(out, (n, t, f), device)?)
    }

    /// Puts a window's coordinates behind its tokens, `[n, window, f]` → `[n, window, f + c]`.
    pub(super) fn with_coordinates(&self, x: &Tensor, window: Range<usize>) -> Result<Tensor> {
        let (n, t, _) = x.dims3()?;
        let coordinates = Tensor::from_slice(self.coordinates(window), (1, t, NUM_COORDINATES), x.device())?;
        Ok(Tensor::cat(&[x, &coordinates.expand((n, t, NUM_COORDINATES))?], 2)?)
    }

    /// 1 where a slot of a window holds a value, `[1, window, f]`.
    pub(super) fn mask(&self, window: Range<usize>, device: &Device) -> Result<Tensor> {
        let shape = (1, window.len(), self.layout.num_slots());
        Ok(Tensor::from_vec(self.layout.mask(window), shape, device)?)
    }
}
