//! Hidden spaces: sets of units that are renamed together, and what else may be done to them.

use super::classes::{Attention, Classes, Mixing, Sign};
use super::gauge::{self, Gauge};
use std::collections::BTreeMap;
use weft_core::{Activation, Architecture, Op, RopePairs, TensorId};

/// How many scales a unit has in a class, and which of them a coordinate within the unit feels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slots {
    /// One for the whole unit.
    One,
    /// One a coordinate, of so many.
    Each(usize),
    /// One a rotary pair, of so many coordinates.
    Pairs(usize, RopePairs),
}

impl Slots {
    /// The number of scales of a unit.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::One => 1,
            Self::Each(d) => d,
            Self::Pairs(d, _) => d / 2,
        }
    }

    /// Whether there is none: never so.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The scale that a coordinate feels.
    #[must_use]
    pub fn of(self, coordinate: usize) -> usize {
        match self {
            Self::One => 0,
            Self::Each(_) => coordinate,
            Self::Pairs(_, RopePairs::Interleaved) => coordinate / 2,
            Self::Pairs(d, RopePairs::Halves) => coordinate % (d / 2),
        }
    }
}

/// A family of scales of a space's units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScaleClass {
    /// Whether positive factors are allowed.
    pub positive: bool,
    /// Which signs are.
    pub sign: Sign,
    /// The scales of one unit.
    pub slots: Slots,
    /// Whether a group of units shares them.
    pub grouped: bool,
    /// Classes of the space that take part in every change of this one, so that the gain of a norm between them stays: what a batch
    /// norm behind this class's units reads, what a layer norm writes.
    pub followers: Vec<usize>,
    /// Whether canonical forms choose the scale that makes a norm's gain 1, instead of balancing.
    pub gain: Option<TensorId>,
}

impl ScaleClass {
    /// The number of scales of the whole space.
    #[must_use]
    pub fn entries(&self, space: &HiddenSpace) -> usize {
        self.slots.len() * if self.grouped { space.size / space.members } else { space.size }
    }
}

/// The part of a class in the scaling of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Factor {
    /// Index of the class in its space.
    pub class: usize,
    /// Whether the scale divides.
    pub inverse: bool,
}

/// A tensor axis that runs over a space: entry `(u·inner + w)` belongs to unit `u`, coordinate `w / fine`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpaceAxis {
    /// The tensor.
    pub tensor: TensorId,
    /// The axis.
    pub axis: usize,
    /// Entries of one unit.
    pub inner: usize,
    /// Entries of one coordinate: more than 1 behind `flatten`.
    pub fine: usize,
    /// Whether it runs over groups of units instead of units: keys and values of grouped attention.
    pub grouped: bool,
    /// The classes that scale it.
    pub factors: Vec<Factor>,
}

/// A set of hidden units, with the tensor axes that run over it and what may be done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenSpace {
    /// Named after the first tensor that writes to it, such as `layers.0`.
    pub name: String,
    /// The number of units: hidden units, channels, or heads. A linear space is one unit, since its coordinates are mixed.
    pub size: usize,
    /// Units of a group that stay together: query heads that share a key head. 1 as a rule.
    pub members: usize,
    /// The axes that run over it.
    pub axes: Vec<SpaceAxis>,
    /// The scales that its units may have.
    pub classes: Vec<ScaleClass>,
    /// The distinct activations that act on it, in the order of the graph.
    pub activations: Vec<Activation>,
    /// The nodes whose values run over it and are read by what does not: where its units show what they do.
    pub nodes: Vec<usize>,
}

impl HiddenSpace {
    /// Whether units may be scaled by positive factors.
    #[must_use]
    pub fn positive_scale(&self) -> bool {
        self.classes.iter().any(|c| c.positive)
    }

    /// Whether units, or coordinates within them, may change sign.
    #[must_use]
    pub fn sign(&self) -> bool {
        self.classes.iter().any(|c| c.sign != Sign::Fixed)
    }

    /// The number of scales over all classes.
    #[must_use]
    pub fn num_scales(&self) -> usize {
        self.classes.iter().map(|c| c.entries(self)).sum()
    }

    /// Where the scales of a class begin.
    #[must_use]
    pub fn first_scale(&self, class: usize) -> usize {
        self.classes[..class].iter().map(|c| c.entries(self)).sum()
    }

    /// The scale of a class that an entry of an axis feels, counted from the class's first.
    pub(crate) fn entry(&self, class: usize, axis: &SpaceAxis, index: usize) -> usize {
        let (class, unit, within) = (&self.classes[class], index / axis.inner, index % axis.inner);
        let unit = if class.grouped && !axis.grouped { unit / self.members } else { unit };
        unit * class.slots.len() + class.slots.of(within / axis.fine)
    }

    /// The class whose signs an axis feels once gains are 1: a class that a norm's gain fixes takes those of the class it follows.
    /// Signs that all units share are fixed before.
    pub(crate) fn sign_of(&self, axis: &SpaceAxis) -> Option<usize> {
        let leader = |class: usize| match self.classes[class].gain {
            Some(_) => (0..self.classes.len()).find(|&c| self.classes[c].followers.contains(&class)),
            None => Some(class),
        };
        let free = |&c: &usize| self.classes[c].gain.is_none() && self.classes[c].sign == Sign::Free;
        let felt: Vec<usize> = axis.factors.iter().filter_map(|f| leader(f.class)).filter(free).collect();
        // A gain between a class and its follower feels both, so neither.
        let odd = |c: &usize| felt.iter().filter(|d| *d == c).count() % 2 == 1;
        felt.iter().copied().find(odd)
    }

    /// Whether units are single things, all of whose weights change sign together or not at all.
    pub(crate) fn is_plain(&self) -> bool {
        let signs: Vec<Option<usize>> = self.axes.iter().map(|a| self.sign_of(a)).collect();
        let single = |c: usize| self.classes[c].slots == Slots::One;
        self.members == 1 && signs.iter().all(|s| *s == signs[0] && s.is_none_or(single))
    }
}

/// Builds the spaces and the gauges that live in them.
pub(super) fn build(architecture: &Architecture, classes: &Classes<'_>) -> (Vec<HiddenSpace>, Vec<Gauge>) {
    let mut builder =
        Builder { architecture, classes, spaces: Vec::new(), of_class: BTreeMap::new(), scale_index: BTreeMap::new() };
    for node in 0..architecture.nodes().len() {
        builder.open(node);
    }
    builder.axes();
    builder.name();
    let mut gauges = Vec::new();
    for heads in &classes.heads {
        builder.attention(heads, &mut gauges);
    }
    builder.linear_spaces(&mut gauges);
    builder.followers();
    let spaces = builder.spaces.into_iter().filter(|s| !s.axes.is_empty()).collect();
    (spaces, gauges)
}

struct Builder<'a> {
    architecture: &'a Architecture,
    classes: &'a Classes<'a>,
    spaces: Vec<HiddenSpace>,
    /// The space of a class of permutations.
    of_class: BTreeMap<usize, usize>,
    /// The space and the index in it of a class of scales.
    scale_index: BTreeMap<usize, (usize, usize)>,
}

impl Builder<'_> {
    fn open(&mut self, node: usize) {
        let class = self.classes.permuted(node);
        if self.classes.is_fixed(class) {
            return;
        }
        // Key heads belong to the space of their query heads.
        let of_keys = self.classes.heads.iter().find(|h| self.classes.key_heads(h) == Some(class));
        let home = of_keys.map_or(class, |h| self.classes.permuted(h.node));
        let members = self.classes.heads.iter().find(|h| self.classes.permuted(h.node) == home).map_or(1, |h| h.heads / h.kv_heads);
        let size = self.classes.units(home);
        let next = self.spaces.len();
        let k = *self.of_class.entry(home).or_insert(next);
        self.of_class.insert(class, k);
        if k == next {
            let (axes, classes, activations, nodes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            self.spaces.push(HiddenSpace { name: String::new(), size, members, axes, classes, activations, nodes });
        }
        let nodes = self.architecture.nodes().iter().enumerate();
        let mut readers = nodes.filter(|(_, reader)| reader.inputs.contains(&node)).map(|(reader, _)| reader);
        if class == home && readers.any(|reader| self.classes.permuted(reader) != class) {
            self.spaces[k].nodes.push(node);
        }
        let scaled = self.classes.scaled(node);
        let scales = self.classes.scales(scaled);
        let space = &mut self.spaces[k];
        for &activation in &scales.activations {
            if !space.activations.contains(&activation) {
                space.activations.push(activation);
            }
        }
        if !scales.is_pinned() && !self.scale_index.contains_key(&scaled) {
            self.scale_index.insert(scaled, (k, space.classes.len()));
            let (positive, sign) = (scales.positive, scales.sign);
            space.classes.push(ScaleClass { positive, sign, slots: Slots::One, grouped: false, followers: Vec::new(), gain: None });
        }
    }

    fn axes(&mut self) {
        let mut used_by: BTreeMap<(TensorId, usize), usize> = BTreeMap::new();
        for of in &self.classes.uses {
            let class = self.classes.axis(of.tensor, of.axis);
            let Some(&k) = self.of_class.get(&class) else { continue };
            let space = &mut self.spaces[k];
            let grouped = self.classes.heads.iter().any(|h| self.classes.key_heads(h) == Some(class));
            let units = if grouped { space.size / space.members } else { space.size };
            let inner = self.architecture.tensors()[of.tensor].shape[of.axis] / units;
            let at = space.axes.iter().position(|a| (a.tensor, a.axis) == (of.tensor, of.axis)).unwrap_or_else(|| {
                let (tensor, axis) = (of.tensor, of.axis);
                space.axes.push(SpaceAxis { tensor, axis, inner, fine: 1, grouped, factors: Vec::new() });
                space.axes.len() - 1
            });
            let index = of.node.and_then(|node| self.scale_index.get(&self.classes.scaled(node)));
            // A second op that uses a tied table moves it as the first does; a norm's gain feels both of its sides.
            if let Some(&(_, class)) = index
                && *used_by.entry((of.tensor, of.axis)).or_insert(of.by) == of.by
            {
                space.axes[at].factors.push(Factor { class, inverse: of.inverse });
            }
        }
        for space in &mut self.spaces {
            for axis in space.axes.iter_mut().filter(|_| space.size > 0) {
                axis.fine = axis.inner; // of one coordinate, until a gauge finds more
            }
        }
    }

    /// The gauges of one attention, with signs for what they leave open.
    fn attention(&mut self, heads: &Attention, gauges: &mut Vec<Gauge>) {
        let Some(&k) = self.of_class.get(&self.classes.permuted(heads.node)) else { return };
        for gauge in gauge::of_attention(self.architecture, heads) {
            let slots = match gauge.commutant {
                gauge::Commutant::All => Slots::Each(gauge.size),
                gauge::Commutant::Pairs(pairs) => Slots::Pairs(gauge.size, pairs),
            };
            self.add_directions(k, &gauge, slots);
            gauges.push(gauge);
        }
    }

    /// Classes in which no nonlinearity acts: their units are mixed, so that they count as one.
    fn linear_spaces(&mut self, gauges: &mut Vec<Gauge>) {
        let found: Vec<(usize, usize)> = self.scale_index.values().copied().collect();
        let roots: Vec<usize> = self.scale_index.keys().copied().collect();
        for (root, (k, _)) in roots.into_iter().zip(found) {
            let scales = self.classes.scales(root);
            let alone = self.spaces[k].classes.len() == 1 && self.spaces[k].axes.iter().all(|a| a.factors.len() == 1);
            if scales.mixing != Mixing::Full || scales.diagonal || !alone {
                continue;
            }
            let space = &mut self.spaces[k];
            let mut gauge = gauge::of_linear_space(space);
            gauge.name.clone_from(&space.name);
            space.classes.clear();
            space.axes.iter_mut().for_each(|axis| {
                axis.factors.clear();
                axis.inner *= space.size;
            });
            space.size = 1;
            self.add_directions(k, &gauge, Slots::Each(gauge.size));
            gauges.push(gauge);
        }
    }

    fn add_directions(&mut self, k: usize, gauge: &Gauge, slots: Slots) {
        let space = &mut self.spaces[k];
        let class = space.classes.len();
        let grouped = space.members > 1;
        space.classes.push(ScaleClass { positive: false, sign: Sign::Free, slots, grouped, followers: Vec::new(), gain: None });
        for (axes, inverse) in [(&gauge.writers, false), (&gauge.readers, true)] {
            for of in axes {
                let axis = space.axes.iter_mut().find(|a| (a.tensor, a.axis) == (of.tensor, of.axis));
                if let Some(axis) = axis {
                    axis.fine = axis.inner / gauge.size;
                    axis.factors.push(Factor { class, inverse });
                }
            }
        }
    }

    fn name(&mut self) {
        for space in &mut self.spaces {
            let writer = space.axes.iter().find(|a| a.axis == 0).or_else(|| space.axes.first());
            if let Some(axis) = writer {
                let name = &self.architecture.tensors()[axis.tensor].name;
                name.strip_suffix(".weight").unwrap_or(name).clone_into(&mut space.name);
            }
        }
    }

    /// Norms' gains: which scales make them 1, and whom they follow so that they stay so.
    fn followers(&mut self) {
        for (at, node) in self.architecture.nodes().iter().enumerate() {
            let (gain, is_batch) = match node.op {
                Op::BatchNorm { gain, .. } => (gain, true),
                Op::LayerNorm { gain: Some(gain), .. } | Op::RmsNorm { gain: Some(gain), .. } => (gain, false),
                _ => continue,
            };
            let index = |node: usize| self.scale_index.get(&self.classes.scaled(node)).copied();
            let (into, out) = (index(node.inputs[0]), index(at));
            let (taken, leader) = if is_batch { (into, out) } else { (out, into) };
            let Some((k, class)) = taken else { continue };
            let free = |c: &ScaleClass| c.positive && c.sign == Sign::Free && c.gain.is_none();
            // Behind `flatten` or heads a gain has several entries a unit: a unit's scale cannot take them all.
            let single = self.spaces[k].axes.iter().any(|a| a.tensor == gain && a.inner == 1);
            if !single || !free(&self.spaces[k].classes[class]) {
                continue;
            }
            self.spaces[k].classes[class].gain = Some(gain);
            if let Some((_, leader)) = leader {
                self.spaces[k].classes[leader].followers.push(class); // the two sides of a norm are one space
            }
        }
    }
}
