//! Networks with their continuous gauges fixed, rearranged for matching.

use super::Quotient;
use super::bound::Index;
use crate::Error;
use crate::error::{Result, check_len};
use crate::fix::{Precision, fix};
use crate::product::{View, multiply};
use rayon::prelude::*;
use std::sync::OnceLock;

/// Networks that are rearranged at once: enough rows for a fast product with the inputs' root.
const CHUNK: usize = 16;

/// Networks prepared for distances: gauges fixed, features gathered.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub(super) len: usize,
    /// Unit features a space, `[n, …]`, as the layout gathers them.
    pub(super) units: Vec<Vec<f32>>,
    /// Coupling matrices, `[n, c]`.
    pub(super) couplings: Vec<f32>,
    /// What no permutation touches, `[n, r]`.
    pub(super) rest: Vec<f32>,
    /// Squared norm of all of a network.
    pub(super) norms: Vec<f64>,
    /// Which references lie close to each other.
    pub(super) groups: Option<Vec<u32>>,
    /// Bounds for searches among these networks, made on first use.
    pub(super) index: OnceLock<Index>,
}

impl Prepared {
    /// The number of networks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The norm of network `i` in the metric: its distance from the zero network.
    ///
    /// # Panics
    /// If `i` is not below [`Prepared::len`].
    #[must_use]
    pub fn norm(&self, i: usize) -> f64 {
        self.norms[i].sqrt()
    }

    /// Says which networks resemble each other, such as snapshots of one run in canonical form: `groups[i]` names the group of `i`.
    ///
    /// A search among them is much faster then; its result does not change.
    ///
    /// # Errors
    /// [`Error::Length`] unless there is one entry a network.
    pub fn with_groups(mut self, groups: &[u32]) -> Result<Self> {
        check_len("group of each network", groups.len(), self.len)?;
        self.groups = Some(groups.to_vec());
        self.index = OnceLock::new();
        Ok(self)
    }
}

/// Where one chunk of networks goes.
struct Target<'a> {
    units: Vec<&'a mut [f32]>,
    couplings: &'a mut [f32],
    rest: &'a mut [f32],
    norms: &'a mut [f64],
}

impl Quotient {
    /// Prepares rows of weights.
    ///
    /// `dead_units` marks, a network and then a hidden unit in the order of [`crate::Group::spaces`], the units that no data
    /// activate: they are left out of the distance.
    ///
    /// # Shapes
    /// `rows` is `[n, D]`, `dead_units` `[n, units]`.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if they do not fit or a weight is not finite.
    pub fn prepare(&self, rows: &[f32], dead_units: Option<&[bool]>) -> Result<Prepared> {
        let dim = self.group.architecture().num_parameters();
        let len = rows.len() / dim.max(1);
        check_len("rows of weights", rows.len(), len * dim)?;
        if let Some(dead) = dead_units {
            check_len("mask of dead units", dead.len(), len * self.group.num_units())?;
        }
        let (c, r) = (self.layout.coupling_len(), self.layout.rest_len());
        let mut prepared = Prepared {
            len,
            units: (0..self.layout.spaces.len()).map(|k| vec![0.0; len * self.layout.unit_len(k)]).collect(),
            couplings: vec![0.0; len * c],
            rest: vec![0.0; len * r],
            norms: vec![0.0; len],
            groups: None,
            index: OnceLock::new(),
        };
        let mut targets = Vec::with_capacity(len.div_ceil(CHUNK));
        {
            let mut units: Vec<&mut [f32]> = prepared.units.iter_mut().map(Vec::as_mut_slice).collect();
            let (mut couplings, mut rest, mut norms) =
                (&mut prepared.couplings[..], &mut prepared.rest[..], &mut prepared.norms[..]);
            let mut left = len;
            while left > 0 {
                let n = left.min(CHUNK);
                left -= n;
                targets.push(Target {
                    units: units.iter_mut().enumerate().map(|(k, u)| take(u, n * self.layout.unit_len(k))).collect(),
                    couplings: take(&mut couplings, n * c),
                    rest: take(&mut rest, n * r),
                    norms: take(&mut norms, n),
                });
            }
        }
        let masks = |chunk: usize, n: usize| {
            let width = self.group.num_units();
            dead_units.map(|d| &d[chunk * CHUNK * width..(chunk * CHUNK + n) * width])
        };
        targets.into_par_iter().zip(rows.par_chunks(CHUNK * dim.max(1))).enumerate().try_for_each(|(chunk, (target, rows))| {
            if let Some(index) = rows.iter().position(|w| !w.is_finite()) {
                return Err(Error::NotFinite { index: index % dim });
            }
            self.prepare_chunk(rows, masks(chunk, rows.len() / dim), target)
        })?;
        Ok(prepared)
    }

    fn prepare_chunk(&self, rows: &[f32], dead_units: Option<&[bool]>, target: Target<'_>) -> Result<()> {
        let dim = self.group.architecture().num_parameters();
        let mut rows = rows.to_vec();
        let mut wide = vec![0.0; dim];
        for (i, row) in rows.chunks_exact_mut(dim).enumerate() {
            if let Some(dead) = dead_units {
                let width = self.group.num_units();
                self.zero_units(row, &dead[i * width..(i + 1) * width]);
            }
            self.zero_inputs(row);
            if self.options.center_outputs {
                self.center(row);
            }
            wide.iter_mut().zip(&*row).for_each(|(wide, &w)| *wide = f64::from(w));
            fix(&self.group, &mut wide, Precision::F32)?;
            row.iter_mut().zip(&wide).for_each(|(w, &wide)| *w = wide as f32);
            for (spec, &factor) in self.group.architecture().tensors().iter().zip(&self.options.tensor_factors) {
                row[spec.range()].iter_mut().for_each(|w| *w *= factor);
            }
        }
        if let Some(root) = &self.options.input_root {
            self.multiply_inputs(&mut rows, root);
        }
        let Target { mut units, mut couplings, mut rest, norms } = target;
        for (row, norm) in rows.chunks_exact(dim).zip(norms) {
            let mut count = |part: &[f32]| *norm += part.iter().map(|&w| f64::from(w) * f64::from(w)).sum::<f64>();
            for (k, units) in units.iter_mut().enumerate() {
                let target = take(units, self.layout.unit_len(k));
                self.layout.gather_units(k, row, target);
                count(target);
            }
            let target = take(&mut couplings, self.layout.coupling_len());
            self.layout.gather_couplings(row, target);
            count(target);
            let target = take(&mut rest, self.layout.rest_len());
            self.layout.gather_rest(row, target);
            count(target);
        }
        Ok(())
    }

    /// Zeroes everything that enters or leaves the marked units.
    fn zero_units(&self, row: &mut [f32], dead: &[bool]) {
        let mut first = 0;
        for space in self.group.spaces() {
            let dead = &dead[first..first + space.size];
            first += space.size;
            if !dead.contains(&true) {
                continue;
            }
            for axis in space.axes.iter().filter(|axis| !axis.grouped) {
                let spec = &self.group.architecture().tensors()[axis.tensor];
                let rest: usize = spec.shape[axis.axis + 1..].iter().product();
                for (index, w) in row[spec.range()].iter_mut().enumerate() {
                    if dead[index / rest % spec.shape[axis.axis] / axis.inner] {
                        *w = 0.0;
                    }
                }
            }
        }
    }

    /// Zeroes the weights of dead inputs.
    fn zero_inputs(&self, row: &mut [f32]) {
        for (tensor, spec) in self.group.architecture().tensors().iter().enumerate() {
            if self.reads_inputs(tensor) && self.dead.contains(&true) {
                for row in row[spec.range()].chunks_exact_mut(self.dead.len()) {
                    row.iter_mut().zip(&self.dead).filter(|&(_, &dead)| dead).for_each(|(w, _)| *w = 0.0);
                }
            }
        }
    }

    /// Whether a tensor is a matrix whose columns are the network's inputs.
    fn reads_inputs(&self, tensor: usize) -> bool {
        let spec = &self.group.architecture().tensors()[tensor];
        spec.shape.len() == 2 && spec.shape[1] == self.dead.len() && self.group.role(tensor, 1).input
    }

    /// Subtracts the mean over outputs from everything that writes to them.
    fn center(&self, row: &mut [f32]) {
        for (tensor, spec) in self.group.architecture().tensors().iter().enumerate() {
            if self.group.role(tensor, 0).output {
                let (outputs, cols) = (spec.shape[0], spec.shape[1..].iter().product::<usize>());
                let values = &mut row[spec.range()];
                for j in 0..cols {
                    let mean = values.iter().skip(j).step_by(cols).map(|&w| f64::from(w)).sum::<f64>() / outputs as f64;
                    values.iter_mut().skip(j).step_by(cols).for_each(|w| *w = (f64::from(*w) - mean) as f32);
                }
            }
        }
    }

    /// Multiplies the rows of every weight that reads the inputs by `root`.
    fn multiply_inputs(&self, rows: &mut [f32], root: &[f32]) {
        let (dim, inputs) = (self.group.architecture().num_parameters(), self.group.architecture().num_inputs());
        for (tensor, spec) in self.group.architecture().tensors().iter().enumerate() {
            if self.reads_inputs(tensor) {
                let source: Vec<f32> = rows.chunks_exact(dim).flat_map(|row| &row[spec.range()]).copied().collect();
                let mut product = vec![0.0; source.len()];
                let height = source.len() / inputs;
                multiply(&mut product, View::new(&source, height, inputs), View::new(root, inputs, inputs), false);
                for (row, product) in rows.chunks_exact_mut(dim).zip(product.chunks_exact(spec.num_values())) {
                    row[spec.range()].copy_from_slice(product);
                }
            }
        }
    }
}

/// Splits `n` values off the front.
#[expect(clippy::mut_mut, reason = "the slice itself is advanced")]
fn take<'a, T>(slice: &mut &'a mut [T], n: usize) -> &'a mut [T] {
    let (head, tail) = std::mem::take(slice).split_at_mut(n);
    *slice = tail;
    head
}
