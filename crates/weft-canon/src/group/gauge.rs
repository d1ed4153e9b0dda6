//! Matrix symmetries: linear maps that meet without a nonlinearity between them, and rotations of residual streams.

use super::classes::{Classes, Heads, Mixing};
use super::space::HiddenSpace;
use weft_core::{Architecture, Op, RopePairs, TensorId};

/// Which matrices a gauge allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Commutant {
    /// All invertible ones.
    All,
    /// Those that commute with every rotation of the rotary pairs: a complex number a pair.
    Pairs(RopePairs),
}

/// A tensor axis that a gauge acts on: entry `((block·members + m)·size + coordinate)·fine + p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GaugeAxis {
    /// The tensor.
    pub tensor: TensorId,
    /// The axis.
    pub axis: usize,
    /// Stretches of one block that the same matrix acts on: query heads that share a key head.
    pub members: usize,
    /// Entries of one coordinate.
    pub fine: usize,
}

/// Matrices `g`, one a block, that multiply what writes to some coordinates, and whose inverse transposes multiply what reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauge {
    /// What meets, such as `layers.0.attn.q · layers.0.attn.k`.
    pub name: String,
    /// Blocks with a matrix of their own.
    pub blocks: usize,
    /// Rows of a matrix.
    pub size: usize,
    /// Which matrices are allowed.
    pub commutant: Commutant,
    /// Axes that `g` acts on.
    pub writers: Vec<GaugeAxis>,
    /// Axes that `g⁻ᵀ` acts on.
    pub readers: Vec<GaugeAxis>,
}

impl Gauge {
    /// The dimension of the gauge.
    #[must_use]
    pub fn dimension(&self) -> usize {
        match self.commutant {
            Commutant::All => self.blocks * self.size * self.size,
            Commutant::Pairs(_) => self.blocks * self.size,
        }
    }
}

/// Rotations of a stream that norms alone read: `x → R·x` in what writes to it, and `W·diag(γ)·Rᵀ·diag(γ)⁻¹` behind each norm.
#[derive(Debug, Clone, PartialEq)]
pub struct Rotation {
    /// Named after the first tensor that writes to the stream.
    pub name: String,
    /// The width of the stream, `d`.
    pub size: usize,
    /// Whether the sum over units stays, as layer norm needs it.
    pub keeps_ones: bool,
    /// Axes that write to the stream.
    pub writers: Vec<GaugeAxis>,
    /// Axes that read it without a norm.
    pub readers: Vec<GaugeAxis>,
    /// Gain, bias and readers of each norm.
    pub norms: Vec<(Option<TensorId>, Option<TensorId>, Vec<GaugeAxis>)>,
}

impl Rotation {
    /// The dimension of the group of rotations.
    #[must_use]
    pub fn dimension(&self) -> usize {
        let d = self.size - usize::from(self.keeps_ones);
        d * d.saturating_sub(1) / 2
    }
}

/// The two gauges of an attention, where linear maps alone write its inputs and read its output.
pub(super) fn of_attention(architecture: &Architecture, heads: &Heads) -> Vec<Gauge> {
    let nodes = architecture.nodes();
    let Op::Attention { rope, .. } = nodes[heads.node].op else { return Vec::new() };
    let readers_of = |node: usize| nodes.iter().enumerate().filter(move |(_, n)| n.inputs.contains(&node));
    let (per_group, size) = (heads.heads / heads.kv_heads, architecture.shapes()[heads.node][1] / heads.heads);
    // Weight rows and bias of the linear map that alone writes one input, if attention alone reads it.
    let written = |input: usize, members: usize| {
        let node = nodes[heads.node].inputs[input];
        let exclusive = readers_of(node).count() == 1 && nodes[heads.node].inputs.iter().filter(|&&i| i == node).count() == 1;
        let Op::Linear { weight, bias } = nodes[node].op else { return None };
        let axis = |tensor| GaugeAxis { tensor, axis: 0, members, fine: 1 };
        (exclusive && node != nodes.len() - 1).then(|| [Some(weight), bias].into_iter().flatten().map(axis).collect::<Vec<_>>())
    };
    let outputs = || {
        let column = |(_, n): (usize, &weft_core::Node)| match n.op {
            Op::Linear { weight, .. } => Some(GaugeAxis { tensor: weight, axis: 1, members: per_group, fine: 1 }),
            _ => None,
        };
        let columns: Option<Vec<GaugeAxis>> = readers_of(heads.node).map(column).collect();
        columns.filter(|_| heads.node != nodes.len() - 1)
    };
    let name = |axes: &[GaugeAxis]| {
        let name = axes.first().map_or("", |a| architecture.tensors()[a.tensor].name.as_str());
        name.strip_suffix(".weight").unwrap_or(name).to_owned()
    };
    let commutant = rope.map_or(Commutant::All, |rope| Commutant::Pairs(rope.pairs));
    let pairs = [(commutant, written(0, per_group), written(1, 1)), (Commutant::All, written(2, 1), outputs())];
    let gauge = |(commutant, writers, readers): (Commutant, Option<Vec<GaugeAxis>>, Option<Vec<GaugeAxis>>)| {
        let (writers, readers) = (writers?, readers?);
        let name = format!("{} · {}", name(&writers), name(&readers));
        Some(Gauge { name, blocks: heads.kv_heads, size, commutant, writers, readers })
    };
    pairs.into_iter().filter_map(gauge).collect()
}

/// The gauge of a space that no nonlinearity touches.
pub(super) fn of_linear_space(space: &HiddenSpace) -> Gauge {
    let axes = |inverse: bool| {
        let of = space.axes.iter().filter(|a| a.factors.iter().any(|f| f.inverse == inverse));
        of.map(|a| GaugeAxis { tensor: a.tensor, axis: a.axis, members: 1, fine: a.inner }).collect::<Vec<_>>()
    };
    let (writers, readers) = (axes(false), axes(true));
    Gauge { name: String::new(), blocks: 1, size: space.size, commutant: Commutant::All, writers, readers }
}

/// Streams that are read by norms and linear maps alone, with nothing but linear maps behind the norms.
pub(super) fn rotations(architecture: &Architecture, classes: &Classes<'_>) -> Vec<Rotation> {
    let nodes = architecture.nodes();
    let mut roots: Vec<usize> = (0..nodes.len()).map(|n| classes.scaled(n)).collect();
    roots.sort_unstable();
    roots.dedup();
    let mut found = Vec::new();
    for root in roots {
        let scales = classes.scales(root);
        let Mixing::Rotation { keeps_ones } = scales.mixing else { continue };
        if scales.diagonal || classes.is_fixed(classes.permuted(root)) {
            continue;
        }
        let axis = |u: &super::classes::Use| {
            let width = classes.units(classes.permuted(root));
            GaugeAxis { tensor: u.tensor, axis: u.axis, members: 1, fine: architecture.tensors()[u.tensor].shape[u.axis] / width }
        };
        let of_class = |class: usize, inverse: bool| {
            let is_norm = |u: &super::classes::Use| matches!(nodes[u.by].op, Op::LayerNorm { .. } | Op::RmsNorm { .. });
            let of = move |u: &&super::classes::Use| {
                u.node.is_some_and(|n| classes.scaled(n) == class) && u.inverse == inverse && !is_norm(u)
            };
            classes.uses.iter().filter(of).map(axis).collect::<Vec<_>>()
        };
        let mut norms = Vec::new();
        let mut absorbed = true;
        for (at, node) in nodes.iter().enumerate() {
            let (gain, bias) = match node.op {
                Op::LayerNorm { gain, bias, .. } => (gain, bias),
                Op::RmsNorm { gain, .. } => (gain, None),
                _ => continue,
            };
            if classes.scaled(node.inputs[0]) != root {
                continue;
            }
            let out = classes.scaled(at);
            absorbed &= match gain {
                Some(_) => classes.scales(out).mixing == Mixing::Full && classes.scales(out).diagonal,
                None => out == root && bias.is_none(),
            };
            if gain.is_some() {
                norms.push((gain, bias, of_class(out, true)));
            }
        }
        let (writers, readers) = (of_class(root, false), of_class(root, true));
        let Some(first) = writers.first().filter(|_| absorbed) else { continue };
        let name = architecture.tensors()[first.tensor].name.clone();
        let size = classes.units(classes.permuted(root));
        found.push(Rotation { name, size, keeps_ones, writers, readers, norms });
    }
    found
}
