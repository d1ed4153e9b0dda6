//! Runs any architecture forward, one network at a time, in `f32` or `f64`.
//!
//! The [`crate::Engine`] is made for populations of small networks and knows few ops. The interpreter knows all of
//! them and is made for networks of any size: it proves that a transformation kept a function, and it is what
//! scores architectures that the engine does not run. Values are laid out with the batch first, `[b, f]`,
//! `[b, t, d]` and `[b, c, h, w]`. Linear maps, convolutions (as products with unfolded windows) and attention are
//! matrix products; everything is shared out over threads in blocks whose sizes the shapes alone decide, so that
//! results are the same, bit for bit, at any number of threads.
//!
//! Memory is bounded: a value is dropped when its last reader has run, a batch is run in pieces whose live values
//! stay below [`PIECE_BYTES`] where one example does, and a network of which one example needs more than
//! [`MAX_LIVE_BYTES`] is refused.
//!
//! Sums in norms and pools are taken in `f64` in either precision; the error of an `f32` run is that of its products.

mod attention;
mod dense;
mod elementwise;
mod image;
mod inputs;
mod plan;
mod real;
mod run;

pub use inputs::{random_inputs, with_tokens};

use crate::{Error, Result};
use plan::Plan;
use real::Real;
use weft_core::{Architecture, Op};

/// Live values of a piece of a batch, in bytes, if one example does not need more.
const PIECE_BYTES: usize = 128 << 20;
/// Live values of one example, in bytes.
const MAX_LIVE_BYTES: usize = 8 << 30;
/// The most examples that run at a time.
const MAX_PIECE: usize = 256;

/// One network's weights, a flat row.
#[derive(Debug, Clone, Copy)]
pub enum WeightRow<'a> {
    /// As checkpoints store them.
    F32(&'a [f32]),
    /// As tests and searches want them.
    F64(&'a [f64]),
}

impl WeightRow<'_> {
    /// The number of weights.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(row) => row.len(),
            Self::F64(row) => row.len(),
        }
    }

    /// Whether there is no weight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [f32]> for WeightRow<'a> {
    fn from(row: &'a [f32]) -> Self {
        Self::F32(row)
    }
}

impl<'a> From<&'a [f64]> for WeightRow<'a> {
    fn from(row: &'a [f64]) -> Self {
        Self::F64(row)
    }
}

/// The outputs of one network, computed in `f32`; weights in `f64` are rounded.
///
/// # Shapes
/// `inputs` `[b, i]` (token ids are whole numbers) → `[b, o]`.
///
/// # Errors
/// Weights or inputs of another length, token ids that are none, or an architecture whose values do not fit in memory.
///
/// # Examples
/// ```
/// use weft_core::{Activation, Architecture};
/// let mlp = Architecture::mlp("m", &[1, 2, 1], Activation::Relu).unwrap();
/// let row = [1.0, -1.0, 0.0, 0.0, 2.0, 3.0, 0.5]; // 2·relu(x) + 3·relu(−x) + ½
/// let y = weft_net::interpret_f32(&mlp, (&row[..]).into(), &[1.0, -1.0]).unwrap();
/// assert_eq!(y, [2.5, 3.5]);
/// ```
pub fn interpret_f32(architecture: &Architecture, row: WeightRow<'_>, inputs: &[f32]) -> Result<Vec<f32>> {
    output(architecture, row, inputs)
}

/// The outputs of one network, computed in `f64`; weights in `f32` are taken as they are.
///
/// # Shapes
/// `inputs` `[b, i]` (token ids are whole numbers) → `[b, o]`.
///
/// # Errors
/// As [`interpret_f32`].
pub fn interpret_f64(architecture: &Architecture, row: WeightRow<'_>, inputs: &[f64]) -> Result<Vec<f64>> {
    output(architecture, row, inputs)
}

/// The values of chosen nodes, one entry a node in the order asked for, computed in `f32`.
///
/// Nodes that none of them depends on are not run.
///
/// # Shapes
/// `inputs` `[b, i]` → for each node `[b, width]`.
///
/// # Errors
/// As [`interpret_f32`], and a node that does not exist.
pub fn interpret_captured(
    architecture: &Architecture,
    row: WeightRow<'_>,
    inputs: &[f32],
    nodes: &[usize],
) -> Result<Vec<Vec<f32>>> {
    interpret(architecture, row, inputs, nodes)
}

fn output<T: Real>(architecture: &Architecture, row: WeightRow<'_>, inputs: &[T]) -> Result<Vec<T>> {
    let last = architecture.nodes().len() - 1;
    Ok(interpret(architecture, row, inputs, &[last])?.swap_remove(0))
}

fn interpret<T: Real>(architecture: &Architecture, row: WeightRow<'_>, inputs: &[T], nodes: &[usize]) -> Result<Vec<Vec<T>>> {
    let refuse = |reason: String| Error::Interpret { architecture: architecture.name().to_owned(), reason };
    let (features, dim) = (architecture.num_inputs(), architecture.num_parameters());
    if row.len() != dim {
        return Err(refuse(format!("it has {dim} weights, got {}", row.len())));
    }
    if !inputs.len().is_multiple_of(features) {
        return Err(refuse(format!("{} input values are no whole examples of {features}", inputs.len())));
    }
    if let Some(&node) = nodes.iter().find(|&&node| node >= architecture.nodes().len()) {
        return Err(refuse(format!("there is no node {node}")));
    }
    if let Op::InputIds { vocabulary, .. } = architecture.nodes()[0].op {
        let is_id = |v: f64| v >= 0.0 && v < vocabulary as f64 && v.fract() == 0.0;
        if let Some(bad) = inputs.iter().map(|v| v.to_f64()).find(|&v| !is_id(v)) {
            return Err(refuse(format!("{bad} is no token id below {vocabulary}")));
        }
    }
    let plan = Plan::new(architecture, nodes);
    let live_bytes = plan.live_values.saturating_mul(size_of::<T>());
    if live_bytes > MAX_LIVE_BYTES {
        let (needed, limit) = (live_bytes >> 20, MAX_LIVE_BYTES >> 20);
        return Err(refuse(format!("one example needs {needed} MiB of values, more than {limit}")));
    }
    let piece = (PIECE_BYTES / live_bytes.max(1)).clamp(1, MAX_PIECE);
    let mut captured = vec![Vec::new(); nodes.len()];
    for inputs in inputs.chunks(piece * features) {
        run::run(architecture, &plan, (row, inputs), |at, values| {
            for (slot, _) in nodes.iter().enumerate().filter(|&(_, &node)| node == at) {
                captured[slot].extend_from_slice(values);
            }
        });
    }
    Ok(captured)
}
