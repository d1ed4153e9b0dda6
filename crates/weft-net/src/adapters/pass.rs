//! The passes of a base with adapters: its maps one product over all adapters' rows, its low-rank updates one population's.
//!
//! Shape legend: `n` adapters, `r` rows of tokens of each, `d` width, `P` weights of an adapter.

use super::AdapterLayout;
use super::base::{Base, Block, Kind, Site};
use super::head::{self, Outcome};
use super::task::{Goal, TaskBatch};
use std::sync::Arc;
use weft_core::Activation;
use weft_ops::Result;
use weft_ops::backend::{Attention, Backend, Batch, Norm, Tokens, rotary_turns};

/// A base on a device.
#[derive(Debug)]
pub(super) struct On<B: Backend> {
    pub(super) backend: B,
    pub(super) base: Arc<Base>,
    pub(super) layout: AdapterLayout,
    frozen: Frozen<B>,
}

/// The base's weights there.
struct Frozen<B: Backend> {
    parameters: B::Parameters,
    table: B::Buffer,
    turns: B::Buffer,
}

impl<B: Backend> std::fmt::Debug for Frozen<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Frozen")
    }
}

/// One batch of rows, and the adapters that run over it.
struct Step<'a, B: Backend + 'static> {
    batch: &'a TaskBatch,
    attention: Attention,
    lengths: Option<&'a B::IndexBuffer>,
    adapters: B::View<'a>,
}

impl<B: Backend + 'static> Step<'_, B> {
    fn all_rows(&self) -> usize {
        self.batch.networks * self.batch.rows()
    }
}

/// What a block keeps for the way back. Of a decoder, `others` are what its norms wrote; of an encoder, what they read.
struct Kept<B: Backend> {
    inputs: [B::Buffer; 2],
    others: [B::Buffer; 2],
    statistics: [B::Wide; 2],
    attended: Attended<B>,
    fed: Fed<B>,
}

struct Attended<B: Backend> {
    packed: B::Buffer,
    log_sums: B::Wide,
    mixed: B::Buffer,
    lows: [Vec<B::Buffer>; 2],
}

struct Fed<B: Backend> {
    up: B::Buffer,
    hidden: B::Buffer,
    lows: [Vec<B::Buffer>; 2],
}

impl<B: Backend + 'static> On<B> {
    pub(super) fn new(backend: &B, base: Arc<Base>, layout: AdapterLayout) -> Result<Self> {
        let turns = match &base.kind {
            Kind::Decoder { rope, .. } => rotary_turns(rope.theta, base.length, base.head_dim()),
            Kind::Encoder { .. } => vec![0.0],
        };
        let frozen = Frozen {
            parameters: backend.parameters(&base.theta, false)?,
            table: backend.upload(&base.table)?,
            turns: backend.upload(&turns)?,
        };
        Ok(Self { backend: backend.clone(), base, layout, frozen })
    }

    fn theta(&self) -> B::View<'_> {
        self.backend.theta(&self.frozen.parameters)
    }

    /// Losses of adapters on their own batches; with a gradient, that of each one's own loss is added to it.
    ///
    /// # Shapes
    /// `adapters` and `gradient` `[n, P]` → losses `[n]`.
    pub(super) fn losses(&self, adapters: B::View<'_>, batch: &TaskBatch, gradient: Option<&mut B::Wide>) -> Result<Outcome> {
        let lengths = self.lengths(batch)?;
        let step = Step { batch, attention: self.attention(batch), lengths: lengths.as_ref(), adapters: B::shorten(adapters) };
        let (x, kept) = self.forward(&step, gradient.is_some())?;
        let (outcome, dx) = self.head(&step, &x, gradient.is_some())?;
        if let (Some(gradient), Some(dx)) = (gradient, dx) {
            self.backward(&step, kept, dx, gradient)?;
        }
        Ok(outcome)
    }

    /// What a decoder says of the next token behind each.
    ///
    /// # Shapes
    /// `adapters` `[n, P]` → `[n·r, vocabulary]`.
    pub(super) fn logits(&self, adapters: B::View<'_>, batch: &TaskBatch) -> Result<Vec<f32>> {
        let Kind::Decoder { norm, head, .. } = &self.base.kind else { return Err(mixed_up()) };
        let step = Step { batch, attention: self.attention(batch), lengths: None, adapters: B::shorten(adapters) };
        let (x, _) = self.forward(&step, false)?;
        let (y, _) = self.norm(norm, &x)?;
        let logits = self.backend.linear(head, Batch::one(step.all_rows()), self.backend.view(&y), self.theta())?;
        self.backend.download(self.backend.view(&logits))
    }

    /// The means of sentences' last tokens under one adapter.
    ///
    /// # Shapes
    /// `adapter` `[P]` → `[sequences, d]`.
    pub(super) fn encode(&self, adapter: B::View<'_>, batch: &TaskBatch) -> Result<Vec<f32>> {
        let lengths = self.lengths(batch)?;
        let step = Step { batch, attention: self.attention(batch), lengths: lengths.as_ref(), adapters: B::shorten(adapter) };
        let (x, _) = self.forward(&step, false)?;
        self.pooled(&step, &x)
    }

    fn lengths(&self, batch: &TaskBatch) -> Result<Option<B::IndexBuffer>> {
        match &batch.goal {
            Goal::Classes { lengths, .. } => Ok(Some(self.backend.upload_indices(lengths)?)),
            Goal::Next { .. } => Ok(None),
        }
    }

    fn attention(&self, batch: &TaskBatch) -> Attention {
        let base = &*self.base;
        Attention {
            sequences: batch.networks * batch.sequences,
            tokens: batch.tokens,
            heads: base.heads,
            kv_heads: base.kv_heads,
            head_dim: base.head_dim(),
            causal: base.is_decoder(),
        }
    }

    /// The means of the last tokens of each sequence.
    fn pooled(&self, step: &Step<'_, B>, x: &B::Buffer) -> Result<Vec<f32>> {
        let Some(lengths) = step.lengths else { return Err(mixed_up()) };
        let sizes = Tokens { sequences: step.attention.sequences, tokens: step.batch.tokens, width: self.base.width };
        let pooled = self.backend.mean_tokens(sizes, self.backend.view(x), self.backend.indices(lengths))?;
        self.backend.download(self.backend.view(&pooled))
    }

    /// The last tokens, `[n·r, d]`, and what each block keeps.
    fn forward(&self, step: &Step<'_, B>, keep: bool) -> Result<(B::Buffer, Vec<Kept<B>>)> {
        let backend = &self.backend;
        let ids = backend.upload_indices(&step.batch.ids)?;
        let mut x = backend.gather(self.base.width, backend.view(&self.frozen.table), backend.indices(&ids))?;
        if let Kind::Encoder { positions, norm } = &self.base.kind {
            let len = step.batch.tokens * self.base.width;
            backend.add_repeated(&mut x, (self.theta(), *positions, len))?;
            (x, _) = self.norm(norm, &x)?;
        }
        let mut kept = Vec::with_capacity(self.base.blocks.len());
        for (number, block) in self.base.blocks.iter().enumerate() {
            let (out, of_block) = self.block(step, (number, block), x)?;
            x = out;
            if keep {
                kept.push(of_block);
            }
        }
        Ok((x, kept))
    }

    fn norm(&self, norm: &Norm, x: &B::Buffer) -> Result<(B::Buffer, B::Wide)> {
        self.backend.norm(norm, self.backend.view(x), None, self.theta(), None)
    }

    fn block(&self, step: &Step<'_, B>, block: (usize, &Block), x: B::Buffer) -> Result<(B::Buffer, Kept<B>)> {
        let [first, second] = &block.1.norms;
        if self.base.is_decoder() {
            let (y, of_first) = self.norm(first, &x)?;
            let (attended, middle) = self.attend(step, block, &y, &x)?;
            let (z, of_second) = self.norm(second, &middle)?;
            let (fed, out) = self.feed(step, block, &z, &middle)?;
            return Ok((out, Kept { inputs: [x, middle], others: [y, z], statistics: [of_first, of_second], attended, fed }));
        }
        let (attended, sum) = self.attend(step, block, &x, &x)?;
        let (middle, of_first) = self.norm(first, &sum)?;
        let (fed, last) = self.feed(step, block, &middle, &middle)?;
        let (out, of_second) = self.norm(second, &last)?;
        Ok((out, Kept { inputs: [x, middle], others: [sum, last], statistics: [of_first, of_second], attended, fed }))
    }

    /// `residual + attention(y)`.
    fn attend(
        &self,
        step: &Step<'_, B>,
        (number, block): (usize, &Block),
        y: &B::Buffer,
        residual: &B::Buffer,
    ) -> Result<(Attended<B>, B::Buffer)> {
        let backend = &self.backend;
        let one = Batch::one(step.all_rows());
        let mut packed = backend.linear(&block.maps[0], one, backend.view(y), self.theta())?;
        let of_packed = self.adapt(step, (number, Site::Packed), backend.view(y), &mut packed)?;
        if let Kind::Decoder { rope, .. } = &self.base.kind {
            backend.rotate((&step.attention, rope.pairs), &mut packed, backend.view(&self.frozen.turns), false)?;
        }
        let lengths = step.lengths.map(|lengths| backend.indices(lengths));
        let (mixed, log_sums) = backend.attention(&step.attention, backend.view(&packed), lengths)?;
        let map = (&block.maps[1], step.all_rows());
        let (mut out, _) = backend.linear_residual(map, backend.view(&mixed), self.theta(), backend.view(residual), None)?;
        let of_mixed = self.adapt(step, (number, Site::Mixed), backend.view(&mixed), &mut out)?;
        Ok((Attended { packed, log_sums, mixed, lows: [of_packed, of_mixed] }, out))
    }

    /// `residual + hidden layer(y)`.
    fn feed(
        &self,
        step: &Step<'_, B>,
        (number, block): (usize, &Block),
        y: &B::Buffer,
        residual: &B::Buffer,
    ) -> Result<(Fed<B>, B::Buffer)> {
        let backend = &self.backend;
        let mut up = backend.linear(&block.maps[2], Batch::one(step.all_rows()), backend.view(y), self.theta())?;
        let of_up = self.adapt(step, (number, Site::Up), backend.view(y), &mut up)?;
        let hidden = if self.base.is_decoder() {
            backend.gated(Activation::Silu, self.base.hidden, backend.view(&up))?
        } else {
            backend.activate(Activation::Gelu, backend.view(&up))?
        };
        let map = (&block.maps[3], step.all_rows());
        let (mut out, _) = backend.linear_residual(map, backend.view(&hidden), self.theta(), backend.view(residual), None)?;
        let of_down = self.adapt(step, (number, Site::Down), backend.view(&hidden), &mut out)?;
        Ok((Fed { up, hidden, lows: [of_up, of_down] }, out))
    }

    fn population(&self, step: &Step<'_, B>) -> Batch {
        let TaskBatch { networks, .. } = *step.batch;
        Batch { networks, rows: step.batch.rows(), stride: self.layout.num_parameters(), shared: false }
    }

    /// Adds the low-rank updates of a map to its outputs.
    fn adapt(&self, step: &Step<'_, B>, (block, site): (usize, Site), x: B::View<'_>, y: &mut B::Buffer) -> Result<Vec<B::Buffer>> {
        let updates = self.layout.at(block, site);
        updates.map(|update| self.backend.low_rank(update, self.population(step), B::shorten(x), step.adapters, y)).collect()
    }

    /// The gradient of a map's inputs, if it is wanted; those of its updates are added.
    fn map_backward(
        &self,
        step: &Step<'_, B>,
        (number, block, site): (usize, &Block, Site),
        (x, lows): (B::View<'_>, &[B::Buffer]),
        (dy, wanted): (B::View<'_>, bool),
        gradient: &mut B::Wide,
    ) -> Result<Option<B::Buffer>> {
        let (backend, map) = (&self.backend, &block.maps[site as usize]);
        let one = Batch::one(step.all_rows());
        let mut dx = if wanted { Some(backend.linear_input_backward(map, one, self.theta(), B::shorten(dy))?) } else { None };
        for (update, low) in self.layout.at(number, site).zip(lows) {
            let inputs = (B::shorten(x), backend.view(low));
            let d = (B::shorten(dy), dx.as_mut());
            backend.low_rank_backward(update, self.population(step), inputs, step.adapters, d, gradient)?;
        }
        Ok(dx)
    }

    fn wanted_map_backward(
        &self,
        step: &Step<'_, B>,
        map: (usize, &Block, Site),
        inputs: (B::View<'_>, &[B::Buffer]),
        dy: B::View<'_>,
        gradient: &mut B::Wide,
    ) -> Result<B::Buffer> {
        let dx = self.map_backward(step, map, inputs, (dy, true), gradient)?;
        dx.ok_or_else(|| candle_core::Error::Msg("a gradient that was asked for is missing".to_owned()).into())
    }

    /// The gradient of what attention reads, unless nothing before it is trained.
    fn attend_backward(
        &self,
        step: &Step<'_, B>,
        (number, block): (usize, &Block),
        (y, kept): (&B::Buffer, &Attended<B>),
        dy: &B::Buffer,
        gradient: &mut B::Wide,
    ) -> Result<Option<B::Buffer>> {
        let backend = &self.backend;
        let inputs = (backend.view(&kept.mixed), &kept.lows[1][..]);
        let d_mixed = self.wanted_map_backward(step, (number, block, Site::Mixed), inputs, backend.view(dy), gradient)?;
        let lengths = step.lengths.map(|lengths| backend.indices(lengths));
        let outputs = (backend.view(&kept.mixed), &kept.log_sums);
        let packed = (backend.view(&kept.packed), lengths);
        let mut d_packed = backend.attention_backward(&step.attention, packed, outputs, backend.view(&d_mixed))?;
        if let Kind::Decoder { rope, .. } = &self.base.kind {
            backend.rotate((&step.attention, rope.pairs), &mut d_packed, backend.view(&self.frozen.turns), true)?;
        }
        let wanted = number > self.layout.first_block();
        let inputs = (backend.view(y), &kept.lows[0][..]);
        self.map_backward(step, (number, block, Site::Packed), inputs, (backend.view(&d_packed), wanted), gradient)
    }

    fn feed_backward(
        &self,
        step: &Step<'_, B>,
        (number, block): (usize, &Block),
        (y, kept): (&B::Buffer, &Fed<B>),
        dy: &B::Buffer,
        gradient: &mut B::Wide,
    ) -> Result<B::Buffer> {
        let backend = &self.backend;
        let inputs = (backend.view(&kept.hidden), &kept.lows[1][..]);
        let mut d_up = self.wanted_map_backward(step, (number, block, Site::Down), inputs, backend.view(dy), gradient)?;
        if self.base.is_decoder() {
            let (up, d_hidden) = (backend.view(&kept.up), backend.view(&d_up));
            d_up = backend.gated_backward(Activation::Silu, self.base.hidden, up, d_hidden)?;
        } else {
            backend.activate_backward(Activation::Gelu, backend.view(&kept.up), &mut d_up)?;
        }
        let inputs = (backend.view(y), &kept.lows[0][..]);
        self.wanted_map_backward(step, (number, block, Site::Up), inputs, backend.view(&d_up), gradient)
    }

    /// Takes the gradient of the last tokens back to the first block that has an update.
    fn backward(&self, step: &Step<'_, B>, kept: Vec<Kept<B>>, mut d: B::Buffer, gradient: &mut B::Wide) -> Result<()> {
        let backend = &self.backend;
        let mut of_norms = backend.zeros_wide(self.base.of_norms)?;
        let blocks = self.base.blocks.iter().zip(kept).enumerate().skip(self.layout.first_block());
        for (number, (block, kept)) in blocks.collect::<Vec<_>>().into_iter().rev() {
            let Kept { inputs: [x, middle], others, statistics, attended, fed } = &kept;
            let mut norm_backward = |which: usize, input: &B::Buffer, dy: &B::Buffer, dx: &mut B::Buffer| {
                let (norm, statistics) = (&block.norms[which], &statistics[which]);
                let inputs = (backend.view(input), None);
                backend.norm_backward(norm, inputs, statistics, self.theta(), None, backend.view(dy), dx, &mut of_norms)
            };
            if self.base.is_decoder() {
                let [y, z] = others;
                let dz = self.feed_backward(step, (number, block), (z, fed), &d, gradient)?;
                norm_backward(1, middle, &dz, &mut d)?;
                if let Some(dy) = self.attend_backward(step, (number, block), (y, attended), &d, gradient)? {
                    norm_backward(0, x, &dy, &mut d)?;
                }
                continue;
            }
            let [sum, last] = others;
            let len = step.all_rows() * self.base.width;
            let mut d_last = backend.zeros(len)?;
            norm_backward(1, last, &d, &mut d_last)?;
            let mut d_middle = self.feed_backward(step, (number, block), (middle, fed), &d_last, gradient)?;
            backend.add(&mut d_middle, backend.view(&d_last))?;
            let mut d_sum = backend.zeros(len)?;
            norm_backward(0, sum, &d_middle, &mut d_sum)?;
            if let Some(dx) = self.attend_backward(step, (number, block), (x, attended), &d_sum, gradient)? {
                backend.add(&mut d_sum, backend.view(&dx))?;
            }
            d = d_sum;
        }
        Ok(())
    }

    /// Losses from the last tokens, and the gradient with respect to these if it is wanted.
    fn head(&self, step: &Step<'_, B>, x: &B::Buffer, wanted: bool) -> Result<(Outcome, Option<B::Buffer>)> {
        let backend = &self.backend;
        match (&step.batch.goal, &self.base.kind) {
            (Goal::Next { targets, weights }, Kind::Decoder { norm, head, .. }) => {
                let (y, statistics) = self.norm(norm, x)?;
                let one = Batch::one(step.all_rows());
                let logits = backend.linear(head, one, backend.view(&y), self.theta())?;
                let (targets, weights) = (backend.upload_indices(targets)?, backend.upload_wide(weights)?);
                let sizes = [step.batch.networks, head.outputs];
                let (losses, d_logits) =
                    backend.cross_entropy(sizes, backend.view(&logits), backend.indices(&targets), Some(&weights))?;
                let losses = backend.download(backend.view(&losses))?.into_iter().map(f64::from).collect();
                let outcome = Outcome { losses, correct: Vec::new() };
                if !wanted {
                    return Ok((outcome, None));
                }
                let dy = backend.linear_input_backward(head, one, self.theta(), backend.view(&d_logits))?;
                let mut dx = backend.zeros(step.all_rows() * self.base.width)?;
                let mut of_norms = backend.zeros_wide(self.base.of_norms)?;
                let inputs = (backend.view(x), None);
                let theta = self.theta();
                backend.norm_backward(norm, inputs, &statistics, theta, None, backend.view(&dy), &mut dx, &mut of_norms)?;
                Ok((outcome, Some(dx)))
            }
            (Goal::Classes { of_networks, .. }, _) => {
                let Some(lengths) = step.lengths else { return Err(mixed_up()) };
                let (sequences, tokens) = (step.attention.sequences, step.batch.tokens);
                let sizes = Tokens { sequences, tokens, width: self.base.width };
                let pooled = self.pooled(step, x)?;
                let (outcome, d_pooled) = head::classify([step.batch.sequences, self.base.width], &pooled, of_networks);
                if !wanted {
                    return Ok((outcome, None));
                }
                let d_pooled = backend.upload(&d_pooled)?;
                let dx = backend.mean_tokens_backward(sizes, backend.view(&d_pooled), backend.indices(lengths))?;
                Ok((outcome, Some(dx)))
            }
            _ => Err(mixed_up()),
        }
    }
}

/// Batches are made for the base's kind, so this is a mistake of ours.
fn mixed_up() -> weft_ops::Error {
    candle_core::Error::Msg("a batch of another kind than the base".to_owned()).into()
}
