//! Distances between orbits of networks, and an exact nearest-neighbor search.
//!
//! [`Quotient::prepare`] fixes the continuous gauges of every network once: dead units and dead inputs are zeroed,
//! the output layer is centered over classes, and gauges are brought to their canonical form, in this order, so that a change
//! that no data can see never moves it. What is left are permutations (and signs), which are matched a pair:
//! exactly if no weight joins two hidden spaces, else as the minimum over several starts, an upper bound.
//!
//! The data-weighted variant multiplies the rows of every weight that reads the inputs by a square root `Σ^½` of the
//! inputs' second moment, so that `‖ΔW·Σ^½‖` is the root mean square change of the pre-activations; deeper tensors
//! take a factor each.

mod bound;
mod large;
mod pair;
mod prepare;
mod search;
mod tight;

pub use prepare::Prepared;

use crate::error::{Result, check_len};
use crate::layout::Layout;
use crate::{Error, Group};
use weft_core::Seed;

/// What the distance sees.
#[derive(Debug, Clone, PartialEq)]
pub struct QuotientOptions {
    /// Subtract the mean over outputs from the last layer's rows and bias: softmax does not see it.
    pub center_outputs: bool,
    /// Inputs that are 0 in all training data: their weights are left out.
    pub dead_inputs: Vec<usize>,
    /// Symmetric square root of the inputs' second moment, `[inputs, inputs]`, for the data-weighted distance. Its rows and columns
    /// of dead inputs must be 0.
    pub input_root: Option<Vec<f32>>,
    /// A factor a tensor, in the architecture's order; empty means 1 for all.
    pub tensor_factors: Vec<f32>,
    /// Starts of the matching of networks with coupled hidden spaces, the identity among them.
    pub starts: usize,
    /// Sweeps over the spaces a start, at most.
    pub max_sweeps: usize,
    /// Seed of the random starts and of the bound's directions.
    pub seed: Seed,
}

impl Default for QuotientOptions {
    fn default() -> Self {
        Self {
            center_outputs: true,
            dead_inputs: Vec::new(),
            input_root: None,
            tensor_factors: Vec::new(),
            starts: 8,
            max_sweeps: 50,
            seed: Seed::new(0),
        }
    }
}

/// The metric on orbits of one group.
#[derive(Debug, Clone)]
pub struct Quotient {
    group: Group,
    options: QuotientOptions,
    layout: Layout,
    /// One flag an input.
    dead: Vec<bool>,
}

/// Tells which (query, reference) pairs a search leaves out.
pub type Exclude<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

impl Quotient {
    /// Sets up the metric.
    ///
    /// # Errors
    /// [`Error::OutputGauge`] if centering is asked for and is no symmetry of the graph; [`Error::Index`] or
    /// [`Error::Length`] if an option does not fit the architecture; [`Error::Empty`] for no starts.
    pub fn new(group: &Group, options: QuotientOptions) -> Result<Self> {
        if options.center_outputs {
            group.check_output_gauge()?;
        }
        let inputs = group.architecture().num_inputs();
        let mut dead = vec![false; inputs];
        for &index in &options.dead_inputs {
            *dead.get_mut(index).ok_or(Error::Index { what: "dead input", index, limit: inputs })? = true;
        }
        if let Some(root) = &options.input_root {
            check_len("root of the inputs' second moment", root.len(), inputs * inputs)?;
        }
        if !options.tensor_factors.is_empty() {
            check_len("tensor factors", options.tensor_factors.len(), group.architecture().tensors().len())?;
        }
        if options.starts == 0 || options.max_sweeps == 0 {
            return Err(Error::Empty { what: "matching starts and sweeps" });
        }
        Ok(Self { layout: Layout::new(group, &dead), group: group.clone(), options, dead })
    }

    /// The group whose orbits are measured.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// Whether distances are exact; otherwise they are upper bounds, the best of several starts.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.group.is_coupled()
    }
}
