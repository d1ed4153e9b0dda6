//! The symmetry group of an architecture, derived from its op graph.
//!
//! Five kinds of symmetry follow from the graph; `docs/concepts/ops/` has the mathematics of each op.
//!
//! - **Units** of a hidden space are renamed, and scaled or flipped where every op around them allows it
//!   ([`HiddenSpace`]). Spaces are joined by residual sums, blocked by `flatten`, and hierarchical in grouped attention.
//! - **Gauges** mix coordinates by invertible matrices where two linear maps meet without a nonlinearity between: `q·k`
//!   and `v·o` of a head, the rank of a low-rank update, a linear chain ([`Gauge`]).
//! - **Rotations** of a residual stream that norms alone read ([`Rotation`]).
//! - **Shifts** move a constant from one bias to others that absorb it, or along a direction that layer norm does not see
//!   ([`Fold`]).
//! - **Statistics** of batch norm trade with its gain and bias ([`Fold`]).

mod classes;
mod display;
mod fold;
mod gauge;
mod shift;
mod space;

pub use classes::Sign;
pub use fold::{Absorber, Fold, Hop, Sink};
pub use gauge::{Commutant, Gauge, GaugeAxis, Rotation};
pub use space::{Factor, HiddenSpace, ScaleClass, Slots, SpaceAxis};

use crate::Error;
use crate::error::Result;
use classes::Classes;
use std::sync::Arc;
use weft_core::products::Place;
use weft_core::{Architecture, Op, TensorId};

/// What one axis of a tensor runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Role {
    /// Index of its hidden space and of the axis within it.
    pub(crate) hidden: Option<(usize, usize)>,
    /// Whether it runs over the network's inputs.
    pub(crate) input: bool,
    /// Whether it runs over the network's outputs.
    pub(crate) output: bool,
}

/// The symmetry group of an architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    architecture: Arc<Architecture>,
    spaces: Vec<HiddenSpace>,
    gauges: Vec<Gauge>,
    rotations: Vec<Rotation>,
    folds: Vec<Fold>,
    roles: Vec<Vec<Role>>,
    place: Place,
}

impl Group {
    /// Derives the group from the graph.
    ///
    /// # Examples
    /// ```
    /// use weft_canon::Group;
    /// use weft_core::{Activation, Architecture};
    /// let mlp = Architecture::mlp("mlp", &[784, 32, 32, 10], Activation::Relu).unwrap();
    /// let group = Group::derive(mlp.into());
    /// assert_eq!(group.spaces().len(), 2);
    /// assert!(group.spaces().iter().all(|s| s.size == 32 && s.positive_scale() && !s.sign()));
    /// assert_eq!(group.dimension(), 64);
    /// ```
    #[must_use]
    pub fn derive(architecture: Arc<Architecture>) -> Self {
        let classes = Classes::of(&architecture);
        let (spaces, gauges) = space::build(&architecture, &classes);
        let rotations = gauge::rotations(&architecture, &classes);
        let folds = fold::build(&architecture);
        let last = architecture.nodes().len() - 1;
        let (input, output) = (classes.permuted(0), classes.permuted(last));
        let mut roles: Vec<Vec<Role>> = Vec::with_capacity(architecture.tensors().len());
        for (tensor, spec) in architecture.tensors().iter().enumerate() {
            let role = |axis| {
                let class = classes.axis(tensor, axis);
                Role { hidden: None, input: class == input, output: class == output }
            };
            roles.push((0..spec.shape.len()).map(role).collect());
        }
        for (k, space) in spaces.iter().enumerate() {
            for (i, axis) in space.axes.iter().enumerate() {
                roles[axis.tensor][axis.axis].hidden = Some((k, i));
            }
        }
        Self { architecture, spaces, gauges, rotations, folds, roles, place: Place::default() }
    }

    /// The same group, whose networks are matched with the great products computed at a place.
    #[must_use]
    pub fn on(mut self, place: &Place) -> Self {
        self.place = place.clone();
        self
    }

    /// Where great products are computed.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The architecture that the group was derived from.
    #[must_use]
    pub fn architecture(&self) -> &Arc<Architecture> {
        &self.architecture
    }

    /// The hidden spaces, in the order in which the graph computes them.
    #[must_use]
    pub fn spaces(&self) -> &[HiddenSpace] {
        &self.spaces
    }

    /// The matrix gauges.
    #[must_use]
    pub fn gauges(&self) -> &[Gauge] {
        &self.gauges
    }

    /// The rotations of residual streams. They are part of the group, and canonical forms leave them out.
    #[must_use]
    pub fn rotations(&self) -> &[Rotation] {
        &self.rotations
    }

    /// Shifts and statistics, in the order in which they are fixed.
    #[must_use]
    pub fn folds(&self) -> &[Fold] {
        &self.folds
    }

    /// The number of hidden units over all spaces.
    #[must_use]
    pub fn num_units(&self) -> usize {
        self.spaces.iter().map(|s| s.size).sum()
    }

    /// The dimension of the continuous part: of the orbit of almost every network, unless a linear space is wider than what is on both
    /// of its sides.
    #[must_use]
    pub fn dimension(&self) -> usize {
        let scales = self.spaces.iter().flat_map(|s| s.classes.iter().filter(|c| c.positive).map(|c| c.entries(s)));
        let gauges = self.gauges.iter().map(Gauge::dimension);
        let rotations = self.rotations.iter().map(Rotation::dimension);
        let folds = self.folds.iter().map(|f| f.dimension(&self.architecture));
        scales.chain(gauges).chain(rotations).chain(folds).sum()
    }

    /// The role of an axis.
    pub(crate) fn role(&self, tensor: TensorId, axis: usize) -> Role {
        self.roles[tensor].get(axis).copied().unwrap_or_default()
    }

    /// A hidden space's axis, if a tensor's axis is one.
    pub(crate) fn hidden(&self, tensor: TensorId, axis: usize) -> Option<(usize, &SpaceAxis)> {
        self.role(tensor, axis).hidden.map(|(k, i)| (k, &self.spaces[k].axes[i]))
    }

    /// Whether some tensor has hidden spaces on two axes, so that spaces cannot be matched one by one.
    pub(crate) fn is_coupled(&self) -> bool {
        let permuted = |role: &&Role| role.hidden.is_some_and(|(k, _)| self.spaces[k].size > 1 || self.spaces[k].sign());
        self.roles.iter().any(|axes| axes.iter().filter(permuted).count() >= 2)
    }

    /// Whether every unit of every space is a single thing: no heads, no directions with signs of their own. Bounds on distances
    /// are proven for such groups.
    pub(crate) fn is_plain(&self) -> bool {
        self.spaces.iter().all(HiddenSpace::is_plain)
    }

    /// Checks that a common shift of all outputs is a symmetry up to softmax, which centering relies on.
    pub(crate) fn check_output_gauge(&self) -> Result<()> {
        let fail = |reason| Err(Error::OutputGauge { architecture: self.architecture.name().to_owned(), reason });
        let nodes = self.architecture.nodes();
        let last = nodes.len() - 1;
        // The nodes whose features are the outputs': those that sums and pools lead to.
        let mut open = vec![last];
        while let Some(node) = open.pop() {
            match nodes[node].op {
                Op::Linear { weight, .. } if nodes.iter().filter(|n| n.op.tensors().iter().any(|t| t.0 == weight)).count() > 1 => {
                    return fail("their weights are tied");
                }
                Op::Linear { .. } => {}
                Op::Add => open.extend(&nodes[node].inputs),
                Op::Input { .. } | Op::InputIds { .. } => return fail("they share a space with the inputs"),
                Op::Activation(_) => return fail("an activation acts on them"),
                _ => return fail("no linear map writes them"),
            }
            if node != last
                && nodes.iter().enumerate().any(|(n, reader)| reader.inputs.contains(&node) && !matches!(nodes[n].op, Op::Add))
            {
                return fail("an op reads them");
            }
        }
        if nodes.iter().any(|n| n.inputs.contains(&last)) {
            return fail("a linear map reads them");
        }
        Ok(())
    }
}
