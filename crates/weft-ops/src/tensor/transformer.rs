//! A transformer over tokens, with a conditioning vector through every block or without one: velocity field of whole networks.
//!
//! `h₀ = W·x + position`; each layer adds `gate·Attention(norm(h))`, then `gate·MLP(norm(h))`; `y = W'·norm(h)`. With a condition, shift and
//! scale of each norm and the gates are linear in an embedding of it and start at 0, so that each layer starts as the identity
//! (*adaLN-zero*: Peebles & Xie, *Scalable Diffusion Models with Transformers*, 2023). Without one, norms have a gain and a bias and
//! there are no gates (pre-norm: Xiong et al., *On Layer Normalization in the Transformer Architecture*, 2020).
//!
//! Positions are optional. Without them nothing in the parameters depends on the number of tokens, so that one set of them serves
//! sequences of any length ([`Transformer::of_tokens`]); what tells tokens apart then is among their features.
//!
//! Shape legend: `b` sequences, `t` tokens, `i` and `o` features of a token, `d` width, `c` conditioning features.

use super::network::{Network, Pass, Places, Ran, draw_map, linear_backward, run};
use super::parameters::Parameters;
use crate::backend::{Attention, Backend, Batch, Columns, Linear, Norm};
use candle_core::Tensor;
use weft_core::{Activation, Seed};

/// The sizes of a [`Transformer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransformerConfig {
    /// Features of an input token.
    pub inputs: usize,
    /// Features of an output token.
    pub outputs: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    /// Whether each place of a sequence has a learned vector that is added to its token.
    pub positions: bool,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Attention heads; divides the width.
    pub num_heads: usize,
    /// Layers.
    pub num_layers: usize,
    /// Width of the hidden layer of each MLP.
    pub hidden: usize,
    /// The MLP's activation.
    pub activation: Activation,
    /// Whether the MLP is gated: `W₂·(a(W₁·x)·(V·x))`, with `SiLU` the *`SwiGLU`*.
    pub gated: bool,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// Length of a conditioning row, one a sequence; 0 for none.
    pub conditioning: usize,
}

/// A layer's place in the flat parameters.
#[derive(Debug, Clone, PartialEq)]
struct Layer {
    norms: [Norm; 2],
    qkv: Linear,
    project: Linear,
    up: Linear,
    down: Linear,
}

/// The places of what a condition goes through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Conditioner {
    embed: [Linear; 2],
    /// All modulations of all layers at once.
    modulate: Linear,
}

/// The network's layout; its parameters are a flat vector that the caller owns.
#[derive(Debug, Clone, PartialEq)]
pub struct Transformer {
    config: TransformerConfig,
    conditioner: Option<Conditioner>,
    embed: Linear,
    positions: Option<usize>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    num_parameters: usize,
}

/// Modulations of a layer: shift, scale and gate of attention, and of the MLP.
const MODULATIONS: usize = 6;

impl Transformer {
    /// Lays out the parameters.
    ///
    /// # Panics
    /// If the heads do not divide the width.
    #[must_use]
    pub fn new(config: TransformerConfig) -> Self {
        assert!(config.d_model.is_multiple_of(config.num_heads), "{} heads of {} features", config.num_heads, config.d_model);
        let d = config.d_model;
        let mut places = Places::default();
        let conditioned = config.conditioning > 0;
        let modulations = (MODULATIONS * config.num_layers + 2) * d;
        let conditioner = conditioned.then(|| Conditioner {
            embed: [places.linear(config.conditioning, d, false), places.linear(d, d, false)],
            modulate: places.linear(d, modulations, false),
        });
        let embed = places.linear(config.inputs, d, false);
        let up = if config.gated { 2 * config.hidden } else { config.hidden };
        let maps: Vec<[Linear; 4]> = (0..config.num_layers)
            .map(|_| {
                [
                    places.linear(d, 3 * d, false),
                    places.linear(d, d, false),
                    places.linear(d, up, false),
                    places.linear(config.hidden, d, false),
                ]
            })
            .collect();
        let head = places.linear(d, config.outputs, false);
        let positions = config.positions.then(|| places.take(config.tokens * d));
        let layers = maps
            .into_iter()
            .map(|[qkv, project, up, down]| Layer {
                norms: [places.norm(d, !conditioned), places.norm(d, !conditioned)],
                qkv,
                project,
                up,
                down,
            })
            .collect();
        let norm = places.norm(d, !conditioned);
        Self { config, conditioner, embed, positions, layers, norm, head, num_parameters: places.len }
    }

    /// The same network over sequences of another number of tokens: its parameters are the same.
    ///
    /// # Panics
    /// If it has learned positions, which are of one number of tokens.
    #[must_use]
    pub fn of_tokens(&self, tokens: usize) -> Self {
        assert!(self.positions.is_none() || tokens == self.config.tokens, "learned positions are of {} tokens", self.config.tokens);
        Self { config: TransformerConfig { tokens, ..self.config }, ..self.clone() }
    }

    /// The sizes.
    #[must_use]
    pub fn config(&self) -> TransformerConfig {
        self.config
    }

    /// Floating-point operations of one sequence's forward pass; forward and backward take about three times as many.
    #[must_use]
    pub fn flops_per_sequence(&self) -> f64 {
        let TransformerConfig { tokens, d_model, num_layers, .. } = self.config;
        let maps = self.layers.iter().flat_map(|l| [l.qkv, l.project, l.up, l.down]).chain([self.embed, self.head]);
        let weights: usize = maps.map(|map| map.inputs * map.outputs).sum();
        let once = self.conditioner.iter().flat_map(|c| [c.embed[0], c.embed[1], c.modulate]);
        let once: usize = once.map(|map| map.inputs * map.outputs).sum();
        2.0 * (tokens * weights + once) as f64 + 4.0 * (num_layers * tokens * tokens * d_model) as f64
    }

    /// Draws initial parameters: uniform `±1/√fan_in`, positions of deviation 0.02, gains 1; the head and all modulations are 0, so that
    /// `y = 0` at first.
    #[must_use]
    pub fn initial(&self, seed: Seed) -> Vec<f32> {
        let mut theta = vec![0.0; self.num_parameters];
        let maps = self.layers.iter().flat_map(|l| [&l.qkv, &l.project, &l.up, &l.down]).chain([&self.embed]);
        let maps = maps.chain(self.conditioner.iter().flat_map(|c| &c.embed));
        for (i, map) in maps.enumerate() {
            draw_map(map, seed.index(i as u64), &mut theta);
        }
        if let Some(start) = self.positions {
            let len = self.config.tokens * self.config.d_model;
            let positions = &mut theta[start..start + len];
            positions.iter_mut().zip(seed.fork("positions").normals(len)).for_each(|(t, n)| *t = 0.02 * n);
        }
        let norms = self.layers.iter().flat_map(|l| &l.norms).chain([&self.norm]);
        for gain in norms.filter_map(|norm| norm.gain) {
            theta[gain..gain + self.config.d_model].fill(1.0);
        }
        theta
    }

    /// Runs the network.
    ///
    /// # Shapes
    /// `x` `[b, t, i]`, `condition` `[b, c]` if the network takes one → `[b, t, o]`; differentiable in all of them and in the parameters.
    ///
    /// # Errors
    /// If the shapes do not fit or a tensor operation fails.
    pub fn forward(&self, x: &Tensor, condition: Option<&Tensor>, parameters: &Parameters) -> crate::Result<Tensor> {
        run(self, x, condition, parameters)
    }

    fn attention(&self, rows: usize) -> Attention {
        let TransformerConfig { tokens, num_heads, d_model, causal, .. } = self.config;
        let sequences = rows / tokens;
        Attention { sequences, tokens, heads: num_heads, kv_heads: num_heads, head_dim: d_model / num_heads, causal }
    }

    /// The columns of a layer's modulation; the last layer is the final norm's.
    fn columns(&self, layer: usize, modulation: usize) -> Columns {
        let d = self.config.d_model;
        let columns = (MODULATIONS * self.config.num_layers + 2) * d;
        Columns { columns, first: (layer * MODULATIONS + modulation) * d, rows_per_group: self.config.tokens }
    }
}

/// What the backward pass needs of the forward pass.
pub struct Saved<B: Backend> {
    condition: Option<SavedCondition<B>>,
    layers: Vec<SavedLayer<B>>,
    last: B::Buffer,
    statistics: B::Wide,
    normal: B::Buffer,
}

struct SavedCondition<B: Backend> {
    /// Before and after the activation of both maps.
    first: [B::Buffer; 2],
    second: [B::Buffer; 2],
    modulation: B::Buffer,
}

struct SavedLayer<B: Backend> {
    attention: Branch<B>,
    packed: B::Buffer,
    mixed: B::Buffer,
    log_sums: B::Wide,
    mlp: Branch<B>,
    hidden: B::Buffer,
    active: B::Buffer,
}

/// A residual branch: what came in, its norm, and what went through the gate.
struct Branch<B: Backend> {
    residual: B::Buffer,
    statistics: B::Wide,
    normal: B::Buffer,
    gated: Option<B::Buffer>,
}

/// The gradient of the modulations, beside them.
struct Modulations<'a, B: Backend> {
    values: B::View<'a>,
    gradient: B::Buffer,
}

impl Network for Transformer {
    type Saved<B: Backend + 'static> = Saved<B>;

    fn num_parameters(&self) -> usize {
        self.num_parameters
    }

    fn features(&self) -> [usize; 2] {
        [self.config.inputs, self.config.outputs]
    }

    fn conditioning(&self) -> Option<[usize; 2]> {
        (self.config.conditioning > 0).then_some([self.config.conditioning, self.config.tokens])
    }

    fn rows_at_once(&self) -> usize {
        self.config.tokens
    }

    fn forward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        x: B::View<'_>,
        condition: Option<B::View<'_>>,
    ) -> crate::Result<Ran<B, Self>> {
        let Pass { backend, theta, rows, keep } = pass;
        let batch = Batch::one(rows);
        let condition = match (&self.conditioner, condition) {
            (Some(conditioner), Some(condition)) => {
                Some(embed_condition(conditioner, (pass, rows / self.config.tokens), condition)?)
            }
            _ => None,
        };
        let modulation = |layer, place| condition.as_ref().map(|c| (backend.view(&c.modulation), self.columns(layer, place)));
        let mut h = backend.linear(&self.embed, batch, x, theta)?;
        if let Some(positions) = self.positions {
            backend.add_repeated(&mut h, (theta, positions, self.config.tokens * self.config.d_model))?;
        }
        let mut layers = Vec::new();
        for (at, layer) in self.layers.iter().enumerate() {
            let (normal, statistics) = backend.norm(&layer.norms[0], backend.view(&h), None, theta, modulation(at, 0))?;
            let packed = backend.linear(&layer.qkv, batch, backend.view(&normal), theta)?;
            let (mixed, log_sums) = backend.attention(&self.attention(rows), backend.view(&packed), None)?;
            let (next, gated) = backend.linear_residual(
                (&layer.project, rows),
                backend.view(&mixed),
                theta,
                backend.view(&h),
                modulation(at, 2),
            )?;
            let attention = Branch { residual: std::mem::replace(&mut h, next), statistics, normal, gated };
            let (normal, statistics) = backend.norm(&layer.norms[1], backend.view(&h), None, theta, modulation(at, 3))?;
            let (hidden, active) = self.expand(layer, pass, backend.view(&normal))?;
            let (next, gated) =
                backend.linear_residual((&layer.down, rows), backend.view(&active), theta, backend.view(&h), modulation(at, 5))?;
            let mlp = Branch { residual: std::mem::replace(&mut h, next), statistics, normal, gated };
            if keep {
                layers.push(SavedLayer { attention, packed, mixed, log_sums, mlp, hidden, active });
            }
        }
        let (normal, statistics) = backend.norm(&self.norm, backend.view(&h), None, theta, modulation(self.layers.len(), 0))?;
        let y = backend.linear(&self.head, batch, backend.view(&normal), theta)?;
        Ok((y, keep.then_some(Saved { condition, layers, last: h, statistics, normal })))
    }

    fn backward<B: Backend + 'static>(
        &self,
        pass: Pass<'_, B>,
        (x, condition): (B::View<'_>, Option<B::View<'_>>),
        saved: Saved<B>,
        dy: B::View<'_>,
        gradient: &mut B::Wide,
    ) -> crate::Result<(B::Buffer, Option<B::Buffer>)> {
        let Pass { backend, theta, rows, .. } = pass;
        let mut modulations = match &saved.condition {
            Some(condition) => {
                let len = rows / self.config.tokens * self.columns(0, 0).columns;
                Some(Modulations { values: backend.view(&condition.modulation), gradient: backend.zeros(len)? })
            }
            None => None,
        };
        let d_normal = linear_backward(&self.head, pass, backend.view(&saved.normal), dy, gradient)?;
        let mut dh = backend.zeros(rows * self.config.d_model)?;
        let modulation = modulations.as_mut().map(|m| (m.values, self.columns(self.layers.len(), 0), &mut m.gradient));
        let input = (backend.view(&saved.last), None);
        backend.norm_backward(
            &self.norm,
            input,
            &saved.statistics,
            theta,
            modulation,
            backend.view(&d_normal),
            &mut dh,
            gradient,
        )?;
        for (at, (layer, saved)) in self.layers.iter().zip(saved.layers).enumerate().rev() {
            let places = [self.columns(at, 3), self.columns(at, 5)];
            branch_backward((&layer.norms[1], places), pass, &saved.mlp, (&mut dh, gradient), &mut modulations, |d, gradient| {
                let d_active = linear_backward(&layer.down, pass, backend.view(&saved.active), d, gradient)?;
                let d_hidden = self.expand_backward(backend, backend.view(&saved.hidden), d_active)?;
                linear_backward(&layer.up, pass, backend.view(&saved.mlp.normal), backend.view(&d_hidden), gradient)
            })?;
            let places = [self.columns(at, 0), self.columns(at, 2)];
            branch_backward(
                (&layer.norms[0], places),
                pass,
                &saved.attention,
                (&mut dh, gradient),
                &mut modulations,
                |d, gradient| {
                    let d_mixed = linear_backward(&layer.project, pass, backend.view(&saved.mixed), d, gradient)?;
                    let outputs = (backend.view(&saved.mixed), &saved.log_sums);
                    let attention = self.attention(rows);
                    let d_packed = backend.attention_backward(
                        &attention,
                        (backend.view(&saved.packed), None),
                        outputs,
                        backend.view(&d_mixed),
                    )?;
                    linear_backward(&layer.qkv, pass, backend.view(&saved.attention.normal), backend.view(&d_packed), gradient)
                },
            )?;
        }
        if let Some(positions) = self.positions {
            backend.add_repeated_backward(backend.view(&dh), (positions, self.config.tokens * self.config.d_model), gradient)?;
        }
        let dx = linear_backward(&self.embed, pass, x, backend.view(&dh), gradient)?;
        let d_condition = match (&self.conditioner, condition, &saved.condition, modulations) {
            (Some(conditioner), Some(condition), Some(saved), Some(modulations)) => {
                let pass = Pass { rows: rows / self.config.tokens, ..pass };
                Some(condition_backward(conditioner, pass, (condition, saved), backend.view(&modulations.gradient), gradient)?)
            }
            _ => None,
        };
        Ok((dx, d_condition))
    }
}

impl Transformer {
    /// The hidden layer of an MLP, before and after its activation.
    fn expand<B: Backend>(&self, layer: &Layer, pass: Pass<'_, B>, x: B::View<'_>) -> crate::Result<(B::Buffer, B::Buffer)> {
        let (backend, batch) = (pass.backend, Batch::one(pass.rows));
        if !self.config.gated {
            return backend.linear_activated((&layer.up, self.config.activation), batch, x, pass.theta);
        }
        let hidden = backend.linear(&layer.up, batch, x, pass.theta)?;
        let active = backend.gated(self.config.activation, self.config.hidden, backend.view(&hidden))?;
        Ok((hidden, active))
    }

    fn expand_backward<B: Backend>(&self, backend: &B, hidden: B::View<'_>, mut d_active: B::Buffer) -> crate::Result<B::Buffer> {
        if self.config.gated {
            return backend.gated_backward(self.config.activation, self.config.hidden, hidden, backend.view(&d_active));
        }
        backend.activate_backward(self.config.activation, hidden, &mut d_active)?;
        Ok(d_active)
    }
}

/// Embeds the condition and draws all modulations from it.
fn embed_condition<B: Backend>(
    conditioner: &Conditioner,
    (pass, sequences): (Pass<'_, B>, usize),
    condition: B::View<'_>,
) -> crate::Result<SavedCondition<B>> {
    let (backend, theta, batch) = (pass.backend, pass.theta, Batch::one(sequences));
    let [first, second] = &conditioner.embed;
    let (before, after) = backend.linear_activated((first, Activation::Silu), batch, condition, theta)?;
    let first = [before, after];
    let (before, after) = backend.linear_activated((second, Activation::Silu), batch, backend.view(&first[1]), theta)?;
    let modulation = backend.linear(&conditioner.modulate, batch, backend.view(&after), theta)?;
    Ok(SavedCondition { first, second: [before, after], modulation })
}

/// The gradient of the condition; `pass` has a row a sequence.
fn condition_backward<B: Backend>(
    conditioner: &Conditioner,
    pass: Pass<'_, B>,
    (condition, saved): (B::View<'_>, &SavedCondition<B>),
    d_modulation: B::View<'_>,
    gradient: &mut B::Wide,
) -> crate::Result<B::Buffer> {
    let backend = pass.backend;
    let mut d = linear_backward(&conditioner.modulate, pass, backend.view(&saved.second[1]), d_modulation, gradient)?;
    backend.activate_backward(Activation::Silu, backend.view(&saved.second[0]), &mut d)?;
    let mut d = linear_backward(&conditioner.embed[1], pass, backend.view(&saved.first[1]), backend.view(&d), gradient)?;
    backend.activate_backward(Activation::Silu, backend.view(&saved.first[0]), &mut d)?;
    linear_backward(&conditioner.embed[0], pass, condition, backend.view(&d), gradient)
}

/// A residual branch backwards: adds to the gradient of the stream what comes through the branch. `inner` takes the gradient of the
/// branch's output and returns that of its norm.
fn branch_backward<B: Backend>(
    (norm, [shift, gate]): (&Norm, [Columns; 2]),
    pass: Pass<'_, B>,
    branch: &Branch<B>,
    (dh, gradient): (&mut B::Buffer, &mut B::Wide),
    modulations: &mut Option<Modulations<'_, B>>,
    inner: impl FnOnce(B::View<'_>, &mut B::Wide) -> crate::Result<B::Buffer>,
) -> crate::Result<()> {
    let backend = pass.backend;
    let d_normal = match (modulations.as_mut(), &branch.gated) {
        (Some(m), Some(gated)) => {
            let d = backend.gate_backward((gate, norm.width), backend.view(dh), backend.view(gated), m.values, &mut m.gradient)?;
            inner(backend.view(&d), gradient)?
        }
        _ => inner(backend.view(dh), gradient)?,
    };
    let modulation = modulations.as_mut().map(|m| (m.values, shift, &mut m.gradient));
    let input = (backend.view(&branch.residual), None);
    backend.norm_backward(norm, input, &branch.statistics, pass.theta, modulation, backend.view(&d_normal), dh, gradient)
}
