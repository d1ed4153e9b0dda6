//! Where constants can go: a walk along the graph from a bias to what absorbs it.

use super::fold::{Absorber, Fold, Hop, Sink};
use std::ops::Range;
use weft_core::{Architecture, Node, Op, TensorId};

/// The shifts that begin at the bias or table of a node.
pub(super) fn of_node(architecture: &Architecture, at: usize) -> Vec<Fold> {
    let walk = Walk { architecture };
    let Some((emitter, tokens)) = walk.emitter(at) else { return Vec::new() };
    match walk.absorb(at, &tokens, &[]) {
        Some(absorbers) => {
            let overlaps = is_mean_blind(architecture, at) && !absorbers.is_empty();
            vec![Fold::Shift { emitter, absorbers, overlaps }]
        }
        None => Vec::new(),
    }
}

/// Whether nothing sees a number that is added to all units of a node.
pub(super) fn is_mean_blind(architecture: &Architecture, at: usize) -> bool {
    let mut readers = architecture.nodes().iter().enumerate().filter(|(_, n)| n.inputs.contains(&at)).peekable();
    if at == architecture.nodes().len() - 1 || readers.peek().is_none() {
        return false;
    }
    readers.all(|(reader, node)| match node.op {
        Op::LayerNorm { .. } => architecture.shapes()[at].len() < 3,
        Op::Add
        | Op::Scale { .. }
        | Op::Position { .. }
        | Op::Segment { .. }
        | Op::ClassToken { .. }
        | Op::Patches
        | Op::Token { .. } => is_mean_blind(architecture, reader),
        _ => false,
    })
}

/// The tensors with which a node writes to its units, with their axes of units.
pub(super) fn centered(node: &Node) -> Vec<(TensorId, usize)> {
    match node.op {
        Op::Linear { weight, bias } | Op::Conv2d { weight, bias, .. } => {
            std::iter::once((weight, 0)).chain(bias.map(|b| (b, 0))).collect()
        }
        Op::Embedding { weight } | Op::Position { weight } | Op::Segment { weight, .. } => vec![(weight, 1)],
        Op::ClassToken { weight } => vec![(weight, 0)],
        Op::LayerNorm { bias, .. } => bias.map(|b| (b, 0)).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// The changes that maps behind a layer norm allow along what it never writes.
pub(super) fn behind_norm(architecture: &Architecture, at: usize) -> Vec<Fold> {
    let Op::LayerNorm { gain, bias: norm_bias, .. } = architecture.nodes()[at].op else { return Vec::new() };
    let (mut folds, mut without_bias) = (Vec::new(), Vec::new());
    let mut all_without = at != architecture.nodes().len() - 1;
    // One token, or the mean of all, lies in the same directions.
    let mut open = vec![at];
    while let Some(node) = open.pop() {
        for (reader, of) in architecture.nodes().iter().enumerate().filter(|(_, n)| n.inputs.contains(&node)) {
            match of.op {
                Op::Linear { weight, .. } if is_shared(architecture, weight) => all_without = false,
                Op::Linear { weight, bias } if bias.is_some() || norm_bias.is_none() => {
                    all_without = false;
                    folds.push(Fold::Unread { weight, bias, gain, norm_bias });
                }
                Op::Linear { weight, .. } => without_bias.push(weight),
                Op::Token { .. } | Op::GlobalAvgPool if reader != architecture.nodes().len() - 1 => open.push(reader),
                _ => all_without = false,
            }
        }
    }
    if let Some(bias) = norm_bias.filter(|_| all_without && !without_bias.is_empty()) {
        folds.push(Fold::Constant { readers: without_bias, gain, bias });
    }
    folds
}

/// Whether several ops use a tensor.
pub(super) fn is_shared(architecture: &Architecture, tensor: TensorId) -> bool {
    architecture.nodes().iter().filter(|n| n.op.tensors().iter().any(|&(t, _)| t == tensor)).count() > 1
}

struct Walk<'a> {
    architecture: &'a Architecture,
}

impl Walk<'_> {
    fn nodes(&self) -> &[Node] {
        self.architecture.nodes()
    }

    fn tokens(&self, node: usize) -> Range<usize> {
        let shape = &self.architecture.shapes()[node];
        0..if shape.len() == 2 { shape[0] } else { 1 }
    }

    /// The bias or table of a node that adds a constant to its output, and the tokens that get it.
    fn emitter(&self, at: usize) -> Option<(TensorId, Range<usize>)> {
        let all = self.tokens(at);
        let (tensor, tokens) = match self.nodes()[at].op {
            Op::Linear { bias, .. } | Op::Conv2d { bias, .. } | Op::LayerNorm { bias, .. } => (bias?, all),
            Op::BatchNorm { bias, .. } => (bias, all),
            Op::Embedding { weight } | Op::Position { weight } | Op::Segment { weight, .. } => (weight, all),
            Op::ClassToken { weight } => (weight, 0..1),
            _ => return None,
        };
        (!is_shared(self.architecture, tensor)).then_some((tensor, tokens))
    }

    /// All that must change if a constant is added to some tokens of a node; `None` if something sees it.
    fn absorb(&self, at: usize, tokens: &Range<usize>, hops: &[Hop]) -> Option<Vec<Absorber>> {
        if at == self.nodes().len() - 1 {
            return None;
        }
        let mut absorbers = Vec::new();
        let mut is_read = false;
        for (reader, node) in self.nodes().iter().enumerate() {
            for (place, _) in node.inputs.iter().enumerate().filter(|&(_, &input)| input == at) {
                is_read = true;
                absorbers.extend(self.through((at, reader, place), tokens, hops)?);
            }
        }
        is_read.then_some(absorbers)
    }

    /// The same for one reader.
    fn through(&self, (at, reader, place): (usize, usize, usize), tokens: &Range<usize>, hops: &[Hop]) -> Option<Vec<Absorber>> {
        let node = &self.nodes()[reader];
        let all = *tokens == self.tokens(at);
        let more = |hop: Hop| [hops, &[hop]].concat();
        let end = |hops: Vec<Hop>, sink: Sink| Some(vec![Absorber { hops, sink }]);
        let go_on = |hops: &[Hop]| self.absorb(reader, &if all { self.tokens(reader) } else { tokens.clone() }, hops);
        match node.op {
            Op::Linear { weight, bias: Some(bias) } if all => end(more(Hop::Linear(weight)), Sink::Bias(bias)),
            Op::Linear { weight, .. } => go_on(&more(Hop::Linear(weight))),
            Op::Conv2d { weight, bias, padding: [0, 0], groups: 1, .. } => match bias {
                Some(bias) => end(more(Hop::Conv(weight)), Sink::Bias(bias)),
                None => go_on(&more(Hop::Conv(weight))),
            },
            Op::BatchNorm { mean, .. } => end(hops.to_vec(), Sink::Mean(mean)),
            Op::Add => match self.sibling(at, reader).filter(|_| all) {
                Some(sink) => end(hops.to_vec(), sink),
                None => go_on(hops),
            },
            Op::Position { weight } => {
                let rows = if all { 0..self.architecture.tensors()[weight].shape[0] } else { tokens.clone() };
                end(hops.to_vec(), Sink::Rows(weight, rows))
            }
            Op::Segment { weight, .. } if all => {
                end(hops.to_vec(), Sink::Rows(weight, 0..self.architecture.tensors()[weight].shape[0]))
            }
            Op::ClassToken { .. } => self.absorb(reader, &(tokens.start + 1..tokens.end + 1), hops),
            Op::Patches => self.absorb(reader, &self.tokens(reader), hops),
            Op::Scale { factor } => go_on(&more(Hop::Factor(factor))),
            Op::AvgPool(_) | Op::MaxPool(_) => go_on(hops),
            Op::GlobalAvgPool if all => go_on(hops),
            Op::Flatten if self.architecture.shapes()[at].len() == 3 => {
                let shape = &self.architecture.shapes()[at];
                go_on(&more(Hop::Repeat(shape[1] * shape[2])))
            }
            Op::Token { index } if tokens.contains(&index) => self.absorb(reader, &(0..1), hops),
            Op::Token { .. } => Some(Vec::new()),
            // Softmax does not see what all scores of a query share; its weights add up to 1.
            Op::Attention { rope: None, .. } if place == 1 && all => Some(Vec::new()),
            Op::Attention { heads, kv_heads, .. } if place == 2 && all => {
                let size = self.architecture.shapes()[reader][1] / heads;
                go_on(&if heads == kv_heads { hops.to_vec() } else { more(Hop::Heads(heads / kv_heads, size)) })
            }
            _ => None,
        }
    }

    /// The bias of the other summand, if that stands later in the graph and is read by this sum alone.
    fn sibling(&self, at: usize, sum: usize) -> Option<Sink> {
        let other = self.nodes()[sum].inputs.iter().copied().find(|&i| i != at)?;
        let readers = self.nodes().iter().flat_map(|n| &n.inputs).filter(|&&i| i == other).count();
        if other < at || readers != 1 {
            return None;
        }
        let (tensor, tokens) = self.emitter(other)?;
        let is_table = self.architecture.tensors()[tensor].shape.len() == 2;
        (tokens == self.tokens(other)).then(|| {
            if is_table { Sink::Rows(tensor, 0..self.architecture.tensors()[tensor].shape[0]) } else { Sink::Bias(tensor) }
        })
    }
}
