//! The symmetry group of an architecture, derived from its op graph.
//!
//! Every node output and every tensor axis is an element of a union–find structure; ops join them. `Linear`
//! joins its weight's rows (and bias) with its output, its weight's columns with its input; an activation and
//! `Add` join their outputs with their inputs. Each resulting class is a *space*. The classes of the graph's
//! input and output are fixed; every other class is a hidden space whose units may be renamed freely, and, if
//! every activation that acts on it allows it, rescaled or flipped.

use crate::Error;
use crate::error::Result;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use weft_core::{Activation, Architecture, Op, TensorId};

/// One axis of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Axis {
    /// The tensor.
    pub tensor: TensorId,
    /// 0 for rows (or a vector's only axis), 1 for columns.
    pub axis: usize,
}

/// A set of hidden units, with the tensor axes that run over it and what may be done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HiddenSpace {
    /// Named after the first tensor that writes to it, such as `layers.0`.
    pub name: String,
    /// The number of units.
    pub size: usize,
    /// Axes that write to it: rows of weights, and biases. A unit's scale multiplies them.
    pub incoming: Vec<Axis>,
    /// Axes that read from it: columns of weights. A unit's scale divides them.
    pub outgoing: Vec<Axis>,
    /// The distinct activations that act on it, in the order of the graph.
    pub activations: Vec<Activation>,
    /// Whether units may be renamed: always so for elementwise activations.
    pub permutes: bool,
    /// Whether units may be scaled by positive factors: every activation is `ReLU`.
    pub positive_scale: bool,
    /// Whether units may change sign: every activation is `tanh`.
    pub sign: bool,
}

impl HiddenSpace {
    /// Whether no activation acts on it, so that its full symmetry is `GL(size)`; only permutations are used.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        self.activations.is_empty()
    }
}

/// What an axis runs over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Role {
    /// Index of its hidden space.
    pub(crate) hidden: Option<usize>,
    /// Whether it runs over the network's inputs.
    pub(crate) input: bool,
    /// Whether it runs over the network's outputs.
    pub(crate) output: bool,
}

/// The symmetry group of an architecture: one factor a hidden space.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    architecture: Arc<Architecture>,
    spaces: Vec<HiddenSpace>,
    roles: Vec<Vec<Role>>,
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
    /// assert!(group.spaces().iter().all(|s| s.size == 32 && s.positive_scale && !s.sign));
    /// ```
    #[must_use]
    pub fn derive(architecture: Arc<Architecture>) -> Self {
        let classes = Classes::of(&architecture);
        let last = architecture.nodes().len() - 1;
        let (input, output) = (classes.of_node(0), classes.of_node(last));
        let mut index = BTreeMap::new();
        let mut spaces: Vec<HiddenSpace> = Vec::new();
        for (node, &size) in architecture.widths().iter().enumerate() {
            let class = classes.of_node(node);
            if class != input && class != output && !index.contains_key(&class) {
                index.insert(class, spaces.len());
                spaces.push(HiddenSpace {
                    name: String::new(),
                    size,
                    incoming: Vec::new(),
                    outgoing: Vec::new(),
                    activations: Vec::new(),
                    permutes: true,
                    positive_scale: false,
                    sign: false,
                });
            }
        }
        let mut roles = Vec::with_capacity(architecture.tensors().len());
        for (tensor, spec) in architecture.tensors().iter().enumerate() {
            let of_axis = |axis| {
                let class = classes.of_axis(tensor, axis);
                Role { hidden: index.get(&class).copied(), input: class == input, output: class == output }
            };
            let axes: Vec<Role> = (0..spec.shape.len()).map(of_axis).collect();
            for (axis, role) in axes.iter().enumerate() {
                let Some(space) = role.hidden.map(|k| &mut spaces[k]) else { continue };
                let list = if axis == 0 { &mut space.incoming } else { &mut space.outgoing };
                list.push(Axis { tensor, axis });
                if axis == 0 && space.name.is_empty() {
                    spec.name.strip_suffix(".weight").unwrap_or(&spec.name).clone_into(&mut space.name);
                }
            }
            roles.push(axes);
        }
        for (node, op) in architecture.nodes().iter().enumerate() {
            let Op::Activation(activation) = op.op else { continue };
            let Some(&k) = index.get(&classes.of_node(node)) else { continue };
            if !spaces[k].activations.contains(&activation) {
                spaces[k].activations.push(activation);
            }
        }
        for space in &mut spaces {
            space.positive_scale = space.activations == [Activation::Relu];
            space.sign = space.activations == [Activation::Tanh];
        }
        Self { architecture, spaces, roles }
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

    /// The number of hidden units over all spaces.
    #[must_use]
    pub fn num_units(&self) -> usize {
        self.spaces.iter().map(|s| s.size).sum()
    }

    /// The role of an axis.
    pub(crate) fn role(&self, tensor: TensorId, axis: usize) -> Role {
        self.roles[tensor].get(axis).copied().unwrap_or_default()
    }

    /// Whether some tensor has hidden spaces on both axes, so that spaces cannot be matched one by one.
    pub(crate) fn is_coupled(&self) -> bool {
        self.roles.iter().any(|axes| axes.len() == 2 && axes.iter().all(|r| r.hidden.is_some()))
    }

    /// Checks that a common shift of all outputs is a symmetry up to softmax, which centering relies on.
    pub(crate) fn check_output_gauge(&self) -> Result<()> {
        let fail = |reason| Err(Error::OutputGauge { architecture: self.architecture.name().to_owned(), reason });
        let classes = Classes::of(&self.architecture);
        let nodes = self.architecture.nodes();
        let output = classes.of_node(nodes.len() - 1);
        if classes.of_node(0) == output {
            return fail("they share a space with the inputs");
        }
        let acts = |(node, op): (usize, &weft_core::Node)| matches!(op.op, Op::Activation(_)) && classes.of_node(node) == output;
        if nodes.iter().enumerate().any(acts) {
            return fail("an activation acts on them");
        }
        if self.roles.iter().any(|axes| axes.get(1).is_some_and(|r| r.output)) {
            return fail("a linear map reads them");
        }
        Ok(())
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.spaces.is_empty() {
            return write!(f, "`{}` has no hidden space: its group is trivial", self.architecture.name());
        }
        write!(f, "symmetries of `{}`:", self.architecture.name())?;
        for space in &self.spaces {
            write!(f, "\n  space `{}`, {} units: permutation", space.name, space.size)?;
            if space.positive_scale {
                write!(f, ", positive scale a unit (relu)")?;
            }
            if space.sign {
                write!(f, ", sign a unit (tanh)")?;
            }
            if space.is_linear() {
                write!(f, " (no activation: the full group is GL({}), of which only permutations are used)", space.size)?;
            }
            let names = |axes: &[Axis]| {
                let of = |a: &Axis| self.architecture.tensors()[a.tensor].name.as_str();
                axes.iter().map(of).collect::<Vec<_>>().join(", ")
            };
            write!(f, "; written by {}; read by {}", names(&space.incoming), names(&space.outgoing))?;
        }
        Ok(())
    }
}

/// Classes of node outputs and tensor axes.
struct Classes {
    root: Vec<usize>,
    axis_start: Vec<usize>,
}

impl Classes {
    fn of(architecture: &Architecture) -> Self {
        let mut next = architecture.nodes().len();
        let axis_start: Vec<usize> = architecture
            .tensors()
            .iter()
            .map(|t| {
                next += t.shape.len();
                next - t.shape.len()
            })
            .collect();
        let mut parent: Vec<usize> = (0..next).collect();
        for (node, op) in architecture.nodes().iter().enumerate() {
            match op.op {
                Op::Linear { weight, bias } => {
                    join(&mut parent, axis_start[weight], node);
                    join(&mut parent, axis_start[weight] + 1, op.inputs[0]);
                    if let Some(bias) = bias {
                        join(&mut parent, axis_start[bias], node);
                    }
                }
                Op::Activation(_) | Op::Add => op.inputs.iter().for_each(|&i| join(&mut parent, i, node)),
                _ => {}
            }
        }
        let root = (0..next).map(|x| find(&mut parent, x)).collect();
        Self { root, axis_start }
    }

    fn of_node(&self, node: usize) -> usize {
        self.root[node]
    }

    fn of_axis(&self, tensor: TensorId, axis: usize) -> usize {
        self.root[self.axis_start[tensor] + axis]
    }
}

fn find(parent: &mut [usize], mut x: usize) -> usize {
    while parent[x] != x {
        parent[x] = parent[parent[x]]; // path halving
        x = parent[x];
    }
    x
}

fn join(parent: &mut [usize], a: usize, b: usize) {
    let (a, b) = (find(parent, a), find(parent, b));
    parent[a.max(b)] = a.min(b);
}
