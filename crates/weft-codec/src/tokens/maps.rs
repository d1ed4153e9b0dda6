//! The maps of a graph, with what goes with their units.

use weft_core::{Architecture, Op, TensorId};

/// What the rows of a map are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Linear,
    Conv,
    Embedding,
    Position,
    Segment,
    ClassToken,
    /// The gain of a norm that stands behind no map.
    Gain,
    /// The shift of such a norm.
    Shift,
    /// The bias of a map whose weight is another's.
    Bias,
}

impl Kind {
    pub(super) const ALL: [Self; 9] = [
        Self::Linear,
        Self::Conv,
        Self::Embedding,
        Self::Position,
        Self::Segment,
        Self::ClassToken,
        Self::Gain,
        Self::Shift,
        Self::Bias,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Conv => "conv",
            Self::Embedding => "embedding",
            Self::Position => "position",
            Self::Segment => "segment",
            Self::ClassToken => "class-token",
            Self::Gain => "gain",
            Self::Shift => "shift",
            Self::Bias => "bias",
        }
    }

    /// Whether a unit sums over its row, so that weights are the smaller the longer it is.
    pub(super) fn sums(self) -> bool {
        matches!(self, Self::Linear | Self::Conv)
    }
}

/// Where a map stands: what it reads of the data, and whether the output reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// No map comes before it: its inputs are the data's.
    First,
    /// Maps come before and after it.
    Hidden,
    /// Maps come before it alone: its units are the outputs.
    Last,
}

impl Role {
    pub(super) const ALL: [Self; 3] = [Self::First, Self::Hidden, Self::Last];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Hidden => "hidden",
            Self::Last => "last",
        }
    }
}

/// Rows of weights, one a unit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    pub(super) kind: Kind,
    pub(super) role: Role,
    /// Whether no map comes after it; a first map may be the last, too.
    pub(super) ends: bool,
    /// Its number in the order of the graph; what stands behind no map has that of the map before it.
    pub(super) index: usize,
    pub(super) units: usize,
    /// What a unit's row has: weights, and values in tokens, which are fewer where these are coefficients.
    pub(super) inputs: usize,
    pub(super) row_len: usize,
    /// Weights a pair of channels: the size of a convolution's kernel, else 1.
    pub(super) kernel: usize,
    /// The name of the tensor that holds the rows.
    pub(super) tensor: String,
    /// Where the rows start in the flat row.
    pub(super) weights: usize,
    /// Where a bias, and a norm's gain and shift, start there.
    pub(super) bias: Option<usize>,
    pub(super) gain: Option<usize>,
    pub(super) shift: Option<usize>,
    /// The outputs that read its units one by one, if a unit's token holds its weights to them.
    pub(super) outgoing: Option<Outgoing>,
}

/// A last map whose columns are in the tokens of the units that they read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outgoing {
    /// Where its rows, `[outputs, units]`, start.
    pub(super) weights: usize,
    pub(super) outputs: usize,
}

impl Map {
    /// Whether a row has a weight for each of the data's inputs.
    pub(super) fn reads_data(&self) -> bool {
        self.role == Role::First && self.kind.sums()
    }

    /// Where a unit's weight to each output is.
    pub(super) fn column(&self, unit: usize) -> impl Iterator<Item = usize> {
        let units = self.units;
        self.outgoing.into_iter().flat_map(move |last| (0..last.outputs).map(move |output| last.weights + output * units + unit))
    }

    /// Changes all offsets.
    pub(super) fn move_to(&mut self, moved: impl Fn(usize) -> usize) {
        self.weights = moved(self.weights);
        for offset in [&mut self.bias, &mut self.gain, &mut self.shift] {
            *offset = offset.map(&moved);
        }
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.weights = moved(outgoing.weights);
        }
    }

    pub(super) fn extras(&self) -> [Option<usize>; super::TokenLayout::EXTRAS] {
        [self.bias, self.gain, self.shift]
    }
}

/// All maps in the order of the graph; every tensor but running statistics is in one of them. Last maps of no more outputs than that go with
/// the units that they read, where they can.
pub(super) fn maps_of(architecture: &Architecture, outgoing: usize) -> Vec<Map> {
    let mut finder = Finder::new(architecture);
    for node in 0..architecture.nodes().len() {
        finder.visit(node);
    }
    if outgoing > 0 {
        (0..architecture.nodes().len()).for_each(|node| finder.pair(node, outgoing));
        finder.maps.retain(|map| map.units > 0);
    }
    finder.maps
}

struct Finder<'a> {
    architecture: &'a Architecture,
    /// Whether a map comes before, and after, each node.
    before: Vec<bool>,
    after: Vec<bool>,
    /// The map that each node is, among `maps`.
    map_of: Vec<Option<usize>>,
    taken: Vec<bool>,
    maps: Vec<Map>,
    num_maps: usize,
}

fn is_map(op: &Op) -> bool {
    matches!(op, Op::Linear { .. } | Op::Conv2d { .. } | Op::Embedding { .. })
}

impl<'a> Finder<'a> {
    fn new(architecture: &'a Architecture) -> Self {
        let nodes = architecture.nodes();
        let (mut before, mut after) = (vec![false; nodes.len()], vec![false; nodes.len()]);
        for (at, node) in nodes.iter().enumerate() {
            before[at] = node.inputs.iter().any(|&input| before[input] || is_map(&nodes[input].op));
        }
        for (at, node) in nodes.iter().enumerate().rev() {
            for &input in &node.inputs {
                after[input] |= after[at] || is_map(&node.op);
            }
        }
        let taken = vec![false; architecture.tensors().len()];
        Self { architecture, before, after, map_of: vec![None; nodes.len()], taken, maps: Vec::new(), num_maps: 0 }
    }

    fn visit(&mut self, node: usize) {
        match self.architecture.nodes()[node].op {
            Op::Linear { weight, bias } => self.map(node, (Kind::Linear, weight), bias),
            Op::Conv2d { weight, bias, .. } => self.map(node, (Kind::Conv, weight), bias),
            Op::Embedding { weight } => self.map(node, (Kind::Embedding, weight), None),
            Op::Position { weight } => self.lone(node, (Kind::Position, Some(weight))),
            Op::Segment { weight, .. } => self.lone(node, (Kind::Segment, Some(weight))),
            Op::ClassToken { weight } => self.lone(node, (Kind::ClassToken, Some(weight))),
            Op::BatchNorm { gain, bias, .. } => self.norm(node, [Some(gain), Some(bias)]),
            Op::LayerNorm { gain, bias, .. } => self.norm(node, [gain, bias]),
            Op::RmsNorm { gain, .. } => self.norm(node, [gain, None]),
            _ => (),
        }
    }

    /// A map with its bias; if its weight is that of an earlier one, the bias alone.
    fn map(&mut self, node: usize, (kind, weight): (Kind, TensorId), bias: Option<TensorId>) {
        self.num_maps += 1;
        if self.taken[weight] {
            return self.lone(node, (Kind::Bias, bias));
        }
        let at = self.push(node, kind, weight);
        self.maps[at].bias = bias.map(|bias| self.take(bias));
        self.map_of[node] = Some(at);
    }

    /// A norm goes with the map that it stands directly behind.
    fn norm(&mut self, node: usize, parts: [Option<TensorId>; 2]) {
        let input = self.architecture.nodes()[node].inputs[0];
        let with = self.map_of[input].filter(|&map| {
            let map = &self.maps[map];
            let fits = |tensor: TensorId| self.architecture.tensors()[tensor].num_values() == map.units;
            map.gain.is_none() && map.shift.is_none() && parts.into_iter().flatten().all(fits)
        });
        if let Some(map) = with {
            let [gain, shift] = parts.map(|tensor| tensor.map(|tensor| self.take(tensor)));
            (self.maps[map].gain, self.maps[map].shift) = (gain, shift);
        } else {
            let [gain, shift] = parts;
            self.lone(node, (Kind::Gain, gain));
            self.lone(node, (Kind::Shift, shift));
        }
    }

    /// A tensor that goes with no map, unless it is in one already.
    fn lone(&mut self, node: usize, (kind, tensor): (Kind, Option<TensorId>)) {
        if let Some(tensor) = tensor.filter(|&tensor| !self.taken[tensor]) {
            self.push(node, kind, tensor);
        }
    }

    /// Puts the columns of a last map into the tokens of the units that it reads; its bias becomes a row of its own.
    fn pair(&mut self, node: usize, most: usize) {
        let Some(last) = self.map_of[node] else { return };
        let Some(hidden) = self.read_by(node) else { return };
        let Map { kind, role, units: outputs, row_len, weights, bias, gain, shift, .. } = self.maps[last];
        let plain = kind == Kind::Linear && role == Role::Last && gain.is_none() && shift.is_none();
        let hidden = &mut self.maps[hidden];
        if !plain || outputs > most || row_len != hidden.units || !hidden.kind.sums() || hidden.outgoing.is_some() {
            return;
        }
        hidden.outgoing = Some(Outgoing { weights, outputs });
        let last = &mut self.maps[last];
        (last.kind, last.bias) = (Kind::Bias, None);
        (last.units, last.inputs, last.row_len) = (usize::from(bias.is_some()), outputs, outputs);
        last.weights = bias.unwrap_or(weights);
    }

    /// The map whose units a node reads: nothing is between but ops that keep channels apart, and nothing else reads any of it.
    fn read_by(&self, node: usize) -> Option<usize> {
        let nodes = self.architecture.nodes();
        let mut at = node;
        loop {
            let &[input] = &nodes[at].inputs[..] else { return None };
            if nodes.iter().filter(|node| node.inputs.contains(&input)).count() != 1 {
                return None;
            }
            if self.map_of[input].is_some() {
                return self.map_of[input];
            }
            let keeps = matches!(
                nodes[input].op,
                Op::Activation(_)
                    | Op::Clip { .. }
                    | Op::Scale { .. }
                    | Op::BatchNorm { .. }
                    | Op::LayerNorm { .. }
                    | Op::RmsNorm { .. }
                    | Op::MaxPool(_)
                    | Op::AvgPool(_)
                    | Op::GlobalAvgPool
            );
            if !keeps {
                return None;
            }
            at = input;
        }
    }

    fn push(&mut self, node: usize, kind: Kind, tensor: TensorId) -> usize {
        let weights = self.take(tensor);
        let spec = &self.architecture.tensors()[tensor];
        // A vector is one row; the first axis of all else counts units.
        let units = if spec.shape.len() > 1 { spec.shape[0] } else { 1 };
        let role = match (self.before[node], self.after[node]) {
            (false, _) => Role::First,
            (true, true) => Role::Hidden,
            (true, false) => Role::Last,
        };
        self.maps.push(Map {
            kind,
            role,
            ends: !self.after[node],
            index: self.num_maps.saturating_sub(1),
            units,
            inputs: spec.num_values() / units.max(1),
            row_len: spec.num_values() / units.max(1),
            kernel: if kind == Kind::Conv { spec.shape[2..].iter().product() } else { 1 },
            tensor: spec.name.clone(),
            weights,
            bias: None,
            gain: None,
            shift: None,
            outgoing: None,
        });
        self.maps.len() - 1
    }

    fn take(&mut self, tensor: TensorId) -> usize {
        self.taken[tensor] = true;
        self.architecture.tensors()[tensor].range().start
    }
}
