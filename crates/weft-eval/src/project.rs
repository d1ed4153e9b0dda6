//! What the training data cannot see of a network's weights, and its removal.
//!
//! Three kinds of change leave every class probability on every training image as it was:
//!
//! - a **softmax shift**: one vector added to all rows of the last weight, one number to all of its biases;
//! - **dead inputs**: inputs that do not vary over the training images (their weights act as a bias, if at all);
//! - **dead units**: hidden units that no training image activates; of an image, whole channels.
//!
//! A distance that counts them would call a copy new. [`Projection::project`] sends a network to the one
//! representative that has none of them.

use crate::{Error, Result};
use std::ops::Range;
use weft_core::{Activation, Architecture, Dataset, Op, Part, Population, TensorId};
use weft_net::Device;

/// Training examples on which every network's units are tried first; few need more.
const FIRST_EXAMPLES: usize = 256;
/// Training examples held at a time.
const EXAMPLES: usize = 4096;

/// A linear op's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Linear {
    pub(crate) weight: TensorId,
    pub(crate) bias: Option<TensorId>,
}

/// The tensors around an activation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hidden {
    /// The number of units; of an image, its channels; of tokens, their features.
    pub(crate) units: usize,
    /// Weight and bias, or gain and bias, of the map that makes the units, if nothing else reads it: a positive factor of a
    /// unit's part is one of its pre-activation. A unit's part of a tensor is the `units`-th part of its values.
    pub(crate) scales: Vec<TensorId>,
    /// What else matters to the units alone: statistics of a batch norm, and the map before it.
    pub(crate) own: Vec<TensorId>,
    /// The weights of the maps that read the units, `[out, units · k]`: a convolution has `k` taps a unit, a linear map that
    /// reads flattened images `k` pixels.
    pub(crate) outgoing: Vec<TensorId>,
    /// Whether the units can be dead: a ReLU's output alone is exactly 0 over a range of inputs.
    pub(crate) can_die: bool,
}

/// The directions of weight space that the training data cannot see.
#[derive(Debug)]
pub struct Projection<'a> {
    dataset: &'a Dataset,
    device: Device,
    num_examples: usize,
    /// `(input, value)` of the inputs that do not vary.
    dead_inputs: Vec<(usize, f32)>,
    /// Linear ops that read the input.
    pub(crate) readers: Vec<Linear>,
    /// Whether nothing else reads it.
    pub(crate) linear_first: bool,
    /// Linear ops whose sum is the output.
    pub(crate) writers: Vec<Linear>,
    /// One entry an activation node, in their order.
    pub(crate) hidden: Vec<Hidden>,
}

impl<'a> Projection<'a> {
    /// Finds the dead inputs of a data set's first `max_examples` training examples, and where an architecture
    /// meets its input, its output and its hidden units.
    #[must_use]
    pub fn new(architecture: &Architecture, (dataset, device): (&'a Dataset, &Device), max_examples: usize) -> Self {
        let num_examples = dataset.range(Part::Train).len().min(max_examples);
        let readers = readers(architecture, 0);
        let linear_first = readers.iter().all(Option::is_some);
        let constants = if linear_first { constants(dataset, num_examples) } else { vec![] };
        let readers: Vec<Linear> = readers.into_iter().flatten().collect();
        // A constant other than 0 acts as a bias, and can be moved only where there is one.
        let movable = readers.iter().all(|l| l.bias.is_some());
        let dead_inputs = constants.into_iter().filter(|&(_, value)| value == 0.0 || movable).collect();
        let (writers, hidden) = (writers(architecture), hidden(architecture));
        Self { dataset, device: device.clone(), num_examples, dead_inputs, readers, linear_first, writers, hidden }
    }

    /// The inputs that do not vary over the training examples.
    #[must_use]
    pub fn dead_inputs(&self) -> Vec<usize> {
        self.dead_inputs.iter().map(|&(input, _)| input).collect()
    }

    /// The dead units of each network, as `(activation, unit)` with activations counted in the graph's order.
    ///
    /// Exact, yet cheap: only networks that still have a suspect unit are run on further examples.
    ///
    /// # Errors
    /// If the networks cannot be run.
    pub fn dead_units(&self, networks: &Population) -> Result<Vec<Vec<(usize, usize)>>> {
        let first = self.num_examples.min(FIRST_EXAMPLES);
        let activity = weft_net::hidden_activity(networks, &self.dataset.gather(0..first), &self.device)?;
        let silent = |activity: &[Vec<bool>]| -> Vec<(usize, usize)> {
            let units = activity.iter().enumerate().filter(|&(a, _)| self.hidden[a].can_die);
            units.flat_map(|(a, units)| units.iter().enumerate().filter(|&(_, &on)| !on).map(move |(u, _)| (a, u))).collect()
        };
        let mut dead: Vec<Vec<(usize, usize)>> = activity.iter().map(|a| silent(a)).collect();
        for start in (first..self.num_examples).step_by(EXAMPLES) {
            let suspects: Vec<usize> = (0..dead.len()).filter(|&i| !dead[i].is_empty()).collect();
            if suspects.is_empty() {
                break;
            }
            let inputs = self.dataset.gather(start..self.num_examples.min(start + EXAMPLES));
            let activity = weft_net::hidden_activity(&networks.select(&suspects), &inputs, &self.device)?;
            for (&i, activity) in suspects.iter().zip(&activity) {
                dead[i].retain(|&(a, u)| !activity[a][u]);
            }
        }
        Ok(dead)
    }

    /// Replaces each network by the representative without invisible directions.
    ///
    /// On training images every class probability stays; elsewhere it may not.
    ///
    /// # Errors
    /// If the networks cannot be run.
    pub fn project(&self, networks: &mut Population) -> Result<()> {
        let dead = self.dead_units(networks)?;
        let architecture = networks.architecture().clone();
        let d = architecture.num_parameters();
        for (row, dead) in networks.data_mut().chunks_exact_mut(d).zip(&dead) {
            self.remove_dead_inputs(&architecture, row);
            for &(activation, unit) in dead {
                self.remove_unit(&architecture, row, activation, unit);
            }
            for linear in &self.writers {
                center_rows(&architecture, row, *linear);
            }
        }
        Ok(())
    }

    fn remove_dead_inputs(&self, architecture: &Architecture, row: &mut [f32]) {
        let tensors = architecture.tensors();
        for linear in &self.readers {
            let width = architecture.num_inputs();
            for unit in 0..tensors[linear.weight].num_values() / width {
                let start = tensors[linear.weight].range().start + unit * width;
                let mut constant = 0.0;
                for &(input, value) in &self.dead_inputs {
                    constant += std::mem::take(&mut row[start + input]) * value;
                }
                if let Some(bias) = linear.bias {
                    row[tensors[bias].range().start + unit] += constant;
                }
            }
        }
    }

    fn remove_unit(&self, architecture: &Architecture, row: &mut [f32], activation: usize, unit: usize) {
        let tensors = architecture.tensors();
        let hidden = &self.hidden[activation];
        for &tensor in hidden.scales.iter().chain(&hidden.own) {
            hidden.part(tensors[tensor].range(), row, unit).fill(0.0);
        }
        for &weight in &hidden.outgoing {
            hidden.outgoing_parts(&mut row[tensors[weight].range()], tensors[weight].shape[0], unit).for_each(|w| w.fill(0.0));
        }
    }

    pub(crate) fn dead_input_values(&self) -> &[(usize, f32)] {
        &self.dead_inputs
    }
}

impl Hidden {
    /// A unit's part of one of the tensors that are its own.
    pub(crate) fn part<'r>(&self, range: Range<usize>, row: &'r mut [f32], unit: usize) -> &'r mut [f32] {
        let size = range.len() / self.units;
        &mut row[range.start + unit * size..][..size]
    }

    /// A unit's parts of an outgoing weight with some outputs, one an output.
    pub(crate) fn outgoing_parts<'r>(
        &self,
        weight: &'r mut [f32],
        outputs: usize,
        unit: usize,
    ) -> impl Iterator<Item = &'r mut [f32]> + use<'r> {
        let width = weight.len() / outputs;
        let size = width / self.units;
        weight.chunks_exact_mut(width).map(move |row| &mut row[unit * size..][..size])
    }
}

/// Subtracts from each column of a weight, and from its bias, the mean over the outputs.
fn center_rows(architecture: &Architecture, row: &mut [f32], linear: Linear) {
    let tensors = architecture.tensors();
    let [outputs, width] = [tensors[linear.weight].shape[0], tensors[linear.weight].shape[1]];
    let center = |values: &mut [f32], width: usize| {
        for column in 0..width {
            let sum: f64 = values.iter().skip(column).step_by(width).map(|&v| f64::from(v)).sum();
            let mean = sum / outputs as f64;
            values.iter_mut().skip(column).step_by(width).for_each(|v| *v = (f64::from(*v) - mean) as f32);
        }
    };
    center(&mut row[tensors[linear.weight].range()], width);
    if let Some(bias) = linear.bias {
        center(&mut row[tensors[bias].range()], 1);
    }
}

/// The inputs that are constant over the first training examples, with their value.
fn constants(dataset: &Dataset, num_examples: usize) -> Vec<(usize, f32)> {
    let first = dataset.gather(0..1);
    let mut varies = vec![false; first.len()];
    let mut example = vec![0.0; first.len()];
    for i in 1..num_examples {
        dataset.read(i, &mut example);
        for (varies, (a, b)) in varies.iter_mut().zip(example.iter().zip(&first)) {
            *varies |= a.to_bits() != b.to_bits();
        }
    }
    first.into_iter().enumerate().filter(|&(i, _)| !varies[i]).collect()
}

/// The nodes that read a node.
fn consumers(architecture: &Architecture, node: usize) -> Vec<usize> {
    (0..architecture.nodes().len()).filter(|&n| architecture.nodes()[n].inputs.contains(&node)).collect()
}

fn as_linear(architecture: &Architecture, node: usize) -> Option<Linear> {
    match architecture.nodes()[node].op {
        Op::Linear { weight, bias } => Some(Linear { weight, bias }),
        _ => None,
    }
}

/// The linear ops that read a node; `None` for a reader of another kind.
fn readers(architecture: &Architecture, node: usize) -> Vec<Option<Linear>> {
    consumers(architecture, node).into_iter().map(|n| as_linear(architecture, n)).collect()
}

/// The linear ops whose outputs are added up to the output and read by nothing else.
fn writers(architecture: &Architecture) -> Vec<Linear> {
    let last = architecture.nodes().len() - 1;
    let mut found = Vec::new();
    let mut open = vec![last];
    while let Some(node) = open.pop() {
        let mut readers = consumers(architecture, node).len();
        // A sum of a node with itself reads it twice.
        readers += architecture.nodes().iter().filter(|n| n.inputs == [node, node]).count();
        if readers != usize::from(node != last) {
            continue;
        }
        match architecture.nodes()[node].op {
            Op::Linear { weight, bias } => found.push(Linear { weight, bias }),
            Op::Add => open.extend(&architecture.nodes()[node].inputs),
            _ => {}
        }
    }
    found
}

fn hidden(architecture: &Architecture) -> Vec<Hidden> {
    let is_activation = |&n: &usize| matches!(architecture.nodes()[n].op, Op::Activation(_));
    let around = |node: usize| {
        let (scales, own) = incoming(architecture, node);
        Hidden {
            units: match architecture.shapes()[node][..] {
                [_, features] => features, // of tokens
                [first, ..] => first,
                [] => 0,
            },
            scales,
            own,
            outgoing: outgoing(architecture, node),
            can_die: architecture.nodes()[node].op == Op::Activation(Activation::Relu),
        }
    };
    (0..architecture.nodes().len()).filter(is_activation).map(around).collect()
}

/// The tensors that scale the units of an activation, and those that otherwise are theirs alone.
///
/// The way up leads through pools, which commute with positive factors, as long as nothing else reads what is on it.
fn incoming(architecture: &Architecture, activation: usize) -> (Vec<TensorId>, Vec<TensorId>) {
    let (mut scales, mut own) = (Vec::new(), Vec::new());
    let mut node = architecture.nodes()[activation].inputs[0];
    while consumers(architecture, node).len() == 1 {
        match architecture.nodes()[node].op {
            Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool => {}
            Op::BatchNorm { gain, bias, mean, variance, .. } if scales.is_empty() => {
                scales = vec![gain, bias];
                own = vec![mean, variance];
            }
            Op::Linear { weight, bias } | Op::Conv2d { weight, bias, .. } => {
                let found = if scales.is_empty() { &mut scales } else { &mut own };
                found.push(weight);
                found.extend(bias);
                break;
            }
            _ => break,
        }
        node = architecture.nodes()[node].inputs[0];
    }
    (scales, own)
}

/// The weights that read the units of an activation, directly or through ops that make 0 of a channel of zeros.
fn outgoing(architecture: &Architecture, activation: usize) -> Vec<TensorId> {
    let mut found = Vec::new();
    let mut open = vec![activation];
    while let Some(node) = open.pop() {
        for reader in consumers(architecture, node) {
            match architecture.nodes()[reader].op {
                Op::Linear { weight, .. } | Op::Conv2d { weight, groups: 1, .. } => found.push(weight),
                Op::MaxPool(_) | Op::AvgPool(_) | Op::GlobalAvgPool | Op::Flatten | Op::Scale { .. } => open.push(reader),
                _ => {}
            }
        }
    }
    found
}

/// Refuses networks with a weight that is not finite.
pub(crate) fn check_finite(what: &'static str, networks: &Population) -> Result<()> {
    match networks.rows().position(|row| row.iter().any(|w| !w.is_finite())) {
        Some(index) => Err(Error::NonFinite { what, index }),
        None => Ok(()),
    }
}
