//! Which axes move together.
//!
//! Every node's feature axis and every tensor axis is a variable of two union–find structures. In the first, a class is
//! permuted as one; in the second, finer one, a class is also scaled as one. Ops join variables and restrict what a class
//! may do; what is left is the group.

use weft_core::{Activation, Architecture, Node, Op, TensorId};

/// Which changes of sign a class allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sign {
    /// None.
    Fixed,
    /// All units together: layer norm is odd, but sees the mean over units.
    Common,
    /// Each unit on its own.
    Free,
}

/// Which linear mixtures of units a class allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mixing {
    None,
    /// Rotations; with `true`, those that keep the sum over units.
    Rotation {
        keeps_ones: bool,
    },
    Full,
}

/// What the ops around a class of scales allow.
#[derive(Debug, Clone)]
pub(super) struct Scales {
    pub(super) positive: bool,
    pub(super) sign: Sign,
    pub(super) mixing: Mixing,
    /// Whether a norm's gain writes to it, which absorbs diagonal maps alone.
    pub(super) diagonal: bool,
    pub(super) activations: Vec<Activation>,
}

impl Scales {
    fn free() -> Self {
        Self { positive: true, sign: Sign::Free, mixing: Mixing::Full, diagonal: false, activations: Vec::new() }
    }

    pub(super) fn is_pinned(&self) -> bool {
        !self.positive && self.sign == Sign::Fixed
    }
}

/// A tensor axis that a class runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use {
    pub(super) tensor: TensorId,
    pub(super) axis: usize,
    /// The node whose class scales the axis; none for a statistic that only permutes.
    pub(super) node: Option<usize>,
    /// The node that uses the tensor.
    pub(super) by: usize,
    /// Whether the scale divides.
    pub(super) inverse: bool,
}

/// Heads of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) node: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Variable of the query heads.
    variable: usize,
    /// Variable of the key heads, if they are fewer.
    grouped: Option<usize>,
}

/// The classes of an architecture.
pub(super) struct Classes<'a> {
    architecture: &'a Architecture,
    axis_start: Vec<usize>,
    sizes: Vec<usize>,
    permute: Vec<usize>,
    scale: Vec<usize>,
    fixed: Vec<bool>,
    units: Vec<usize>,
    scales: Vec<Scales>,
    pub(super) uses: Vec<Use>,
    pub(super) heads: Vec<Heads>,
}

impl<'a> Classes<'a> {
    pub(super) fn of(architecture: &'a Architecture) -> Self {
        let mut sizes: Vec<usize> = architecture.shapes().iter().map(|shape| features(shape)).collect();
        let mut axis_start = Vec::new();
        for tensor in architecture.tensors() {
            axis_start.push(sizes.len());
            sizes.extend(&tensor.shape);
        }
        let mut heads = Vec::new();
        for (node, op) in architecture.nodes().iter().enumerate() {
            if let Op::Attention { heads: h, kv_heads, .. } = op.op {
                sizes.push(h);
                let variable = sizes.len() - 1;
                let grouped = (kv_heads != h).then(|| {
                    sizes.push(kv_heads);
                    sizes.len() - 1
                });
                heads.push(Heads { node, heads: h, kv_heads, variable, grouped });
            }
        }
        let n = sizes.len();
        let mut classes = Self {
            architecture,
            axis_start,
            permute: (0..n).collect(),
            scale: (0..n).collect(),
            fixed: vec![false; n],
            units: vec![usize::MAX; n],
            scales: vec![Scales::free(); n],
            sizes,
            uses: Vec::new(),
            heads,
        };
        for (at, node) in architecture.nodes().iter().enumerate() {
            classes.node(at, node);
        }
        classes.attentions();
        classes.tie_shared_tensors();
        for end in [0, architecture.nodes().len() - 1] {
            classes.fix(end);
        }
        classes.spread();
        classes
    }

    /// The class that a node's features are permuted with.
    pub(super) fn permuted(&self, node: usize) -> usize {
        root(&self.permute, node)
    }

    /// The class that a node's features are scaled with.
    pub(super) fn scaled(&self, node: usize) -> usize {
        root(&self.scale, node)
    }

    /// The class of a tensor's axis.
    pub(super) fn axis(&self, tensor: TensorId, axis: usize) -> usize {
        root(&self.permute, self.axis_start[tensor] + axis)
    }

    pub(super) fn is_fixed(&self, class: usize) -> bool {
        self.fixed[class]
    }

    pub(super) fn scales(&self, class: usize) -> &Scales {
        &self.scales[class]
    }

    /// The number of units of a class of permutations: the shortest axis in it.
    pub(super) fn units(&self, class: usize) -> usize {
        self.units[class]
    }

    /// The class of the key heads of grouped attention.
    pub(super) fn key_heads(&self, heads: &Heads) -> Option<usize> {
        heads.grouped.map(|v| root(&self.permute, v))
    }

    fn join_permutations(&mut self, a: usize, b: usize) {
        join(&mut self.permute, a, b);
    }

    fn join_scales(&mut self, a: usize, b: usize) {
        join(&mut self.permute, a, b);
        join(&mut self.scale, a, b);
    }

    fn fix(&mut self, variable: usize) {
        self.fixed[variable] = true;
    }

    /// Restricts the class of a variable; the restrictions of a class meet in [`Classes::spread`].
    fn restrict(&mut self, variable: usize, positive: bool, sign: Sign, mixing: Mixing) {
        let scales = &mut self.scales[variable];
        scales.positive &= positive;
        scales.sign = scales.sign.min(sign);
        scales.mixing = meet(scales.mixing, mixing);
    }

    fn pin(&mut self, variable: usize) {
        self.restrict(variable, false, Sign::Fixed, Mixing::None);
    }

    fn writes(&mut self, tensor: TensorId, axis: usize, node: usize) {
        self.use_axis(Use { tensor, axis, node: Some(node), by: node, inverse: false });
    }

    fn reads(&mut self, tensor: TensorId, axis: usize, node: usize, by: usize) {
        self.use_axis(Use { tensor, axis, node: Some(node), by, inverse: true });
    }

    fn use_axis(&mut self, of: Use) {
        if let Some(node) = of.node {
            self.join_permutations(self.axis_start[of.tensor] + of.axis, node);
        }
        self.uses.push(of);
    }

    fn node(&mut self, at: usize, node: &Node) {
        let x = node.inputs.first().copied().unwrap_or(0);
        match &node.op {
            Op::Input { .. } | Op::InputIds { .. } => {}
            Op::Linear { weight, bias } => self.map(at, x, *weight, *bias),
            Op::Conv2d { weight, bias, groups, .. } => {
                self.map(at, x, *weight, *bias);
                if *groups > 1 {
                    [at, x].into_iter().for_each(|v| self.fix(v)); // groups of channels would have to move as one
                }
            }
            Op::Embedding { weight } => self.writes(*weight, 1, at),
            Op::Position { weight } | Op::Segment { weight, .. } => {
                self.join_scales(at, x);
                self.writes(*weight, 1, at);
            }
            Op::ClassToken { weight } => {
                self.join_scales(at, x);
                self.writes(*weight, 0, at);
            }
            Op::BatchNorm { gain, bias, mean, variance, .. } => {
                self.join_permutations(at, x);
                self.writes(*gain, 0, at);
                self.reads(*gain, 0, x, at);
                self.writes(*bias, 0, at);
                self.use_axis(Use { tensor: *mean, axis: 0, node: Some(x), by: at, inverse: false });
                self.join_permutations(self.axis_start[*variance], at);
                self.uses.push(Use { tensor: *variance, axis: 0, node: None, by: at, inverse: false });
                self.restrict(x, true, Sign::Free, Mixing::None);
                self.restrict(at, true, Sign::Free, Mixing::None);
            }
            Op::LayerNorm { gain, bias, .. } => {
                self.norm(at, x, *gain);
                bias.iter().for_each(|&b| self.writes(b, 0, at));
                self.restrict(x, false, Sign::Common, Mixing::Rotation { keeps_ones: true });
            }
            Op::RmsNorm { gain, .. } => {
                self.norm(at, x, *gain);
                self.restrict(x, false, Sign::Free, Mixing::Rotation { keeps_ones: false });
            }
            Op::Attention { .. } => {}
            Op::Activation(activation) => self.activation(at, x, *activation),
            Op::Clip { min, max } => {
                self.join_scales(at, x);
                let odd = (min + max).abs() < f64::EPSILON * max.abs();
                self.restrict(at, false, if odd { Sign::Free } else { Sign::Fixed }, Mixing::None);
            }
            Op::MaxPool(_) => {
                self.join_scales(at, x);
                self.restrict(at, true, Sign::Fixed, Mixing::None);
            }
            Op::Add => node.inputs.iter().for_each(|&i| self.join_scales(at, i)),
            Op::Mul => self.product(at, [x, node.inputs[1]]),
            Op::Scale { .. } | Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Patches | Op::Token { .. } => {
                self.join_scales(at, x);
            }
            Op::Perception { .. } | Op::Slice { .. } | Op::Concat => {
                // Units of one side are several of, or a part of, the other's.
                [at].iter().chain(&node.inputs).for_each(|&v| self.fix(v));
            }
        }
    }

    fn map(&mut self, at: usize, x: usize, weight: TensorId, bias: Option<TensorId>) {
        self.writes(weight, 0, at);
        self.reads(weight, 1, x, at);
        bias.iter().for_each(|&b| self.writes(b, 0, at));
    }

    fn norm(&mut self, at: usize, x: usize, gain: Option<TensorId>) {
        match gain {
            Some(gain) => {
                self.join_permutations(at, x);
                self.writes(gain, 0, at);
                self.reads(gain, 0, x, at);
                self.scales[at].diagonal = true;
            }
            None => self.join_scales(at, x),
        }
    }

    fn activation(&mut self, at: usize, x: usize, activation: Activation) {
        match activation {
            Activation::Relu => {
                self.join_scales(at, x);
                self.restrict(at, true, Sign::Fixed, Mixing::None);
            }
            Activation::Tanh => {
                self.join_scales(at, x);
                self.restrict(at, false, Sign::Free, Mixing::None);
            }
            _ => {
                self.join_permutations(at, x);
                self.pin(at);
                self.pin(x);
            }
        }
        self.scales[at].activations.push(activation);
    }

    /// `s_out = s_a·s_b`: a factor that an activation pins passes the other's scale on.
    fn product(&mut self, at: usize, [a, b]: [usize; 2]) {
        let is_gate = |node: usize| match self.architecture.nodes()[node].op {
            Op::Activation(activation) => !matches!(activation, Activation::Relu | Activation::Tanh),
            _ => false,
        };
        let (pinned, other) = if is_gate(b) { (b, a) } else { (a, b) };
        self.join_permutations(pinned, at);
        self.join_scales(other, at);
        self.pin(pinned);
        self.restrict(at, true, Sign::Free, Mixing::None);
    }

    /// Heads are the units of queries and outputs, and of keys and values unless these are grouped.
    fn attentions(&mut self) {
        for i in 0..self.heads.len() {
            let Heads { node, variable, grouped, .. } = self.heads[i];
            let inputs = self.architecture.nodes()[node].inputs.clone();
            let keys = grouped.unwrap_or(variable);
            for (axis, heads) in [(inputs[0], variable), (node, variable), (inputs[1], keys), (inputs[2], keys)] {
                self.join_permutations(axis, heads);
                self.pin(axis);
            }
        }
    }

    /// A table that embeds and scores tokens must be moved the same way by both: only signs undo themselves.
    fn tie_shared_tensors(&mut self) {
        for i in 0..self.uses.len() {
            for j in 0..i {
                let (a, b) = (self.uses[i], self.uses[j]);
                if (a.tensor, a.axis) == (b.tensor, b.axis)
                    && a.by != b.by
                    && let (Some(x), Some(y)) = (a.node, b.node)
                {
                    self.join_scales(x, y);
                    self.restrict(x, false, Sign::Free, Mixing::None);
                }
            }
        }
    }

    /// Gathers restrictions in the classes' roots.
    fn spread(&mut self) {
        let n = self.sizes.len();
        for v in 0..n {
            let root = root(&self.permute, v);
            self.fixed[root] |= self.fixed[v];
            self.units[root] = self.units[root].min(self.sizes[v]);
        }
        for v in 0..n {
            let class = root(&self.permute, v);
            let units = self.units[class];
            if units == 0 || !self.sizes[v].is_multiple_of(units) {
                self.fixed[class] = true;
            }
        }
        for v in 0..n {
            let to = root(&self.scale, v);
            if self.fixed[root(&self.permute, v)] {
                self.pin(to);
            }
            if to != v {
                let own = self.scales[v].clone();
                let scales = &mut self.scales[to];
                scales.positive &= own.positive;
                scales.sign = scales.sign.min(own.sign);
                scales.mixing = meet(scales.mixing, own.mixing);
                scales.diagonal |= own.diagonal;
                let new = own.activations.into_iter().filter(|a| !scales.activations.contains(a));
                let new: Vec<_> = new.collect();
                scales.activations.extend(new);
            }
        }
    }
}

/// The length of a node's feature axis: channels of an image, the last axis of anything else.
pub(super) fn features(shape: &[usize]) -> usize {
    if shape.len() == 3 { shape[0] } else { shape.last().copied().unwrap_or(0) }
}

fn meet(a: Mixing, b: Mixing) -> Mixing {
    match (a, b) {
        (Mixing::Rotation { keeps_ones: x }, Mixing::Rotation { keeps_ones: y }) => Mixing::Rotation { keeps_ones: x || y },
        _ => a.min(b),
    }
}

fn root(parent: &[usize], mut x: usize) -> usize {
    while parent[x] != x {
        x = parent[x];
    }
    x
}

fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (root(parent, a), root(parent, b));
    parent[a.max(b)] = a.min(b);
}
