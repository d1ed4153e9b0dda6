//! A data set's inputs in the form that the kernels read fastest.

use crate::labelled::check_inputs;
use crate::{Labelled, Result};
use std::ops::Range;
use weft_core::{Architecture, Dataset, ExampleSet, Task};
use weft_ops::kernels::SparseRows;

/// Above this fraction of non-zero values dense products are faster.
const MAX_SPARSE_DENSITY: f64 = 0.6;

/// The inputs and labels of a range of examples, sparse or dense, whichever is faster.
#[derive(Debug, Clone)]
pub struct Examples {
    values: Values,
    labels: Vec<u32>,
    num_features: usize,
}

#[derive(Debug, Clone)]
enum Values {
    Sparse(SparseRows),
    Dense(Vec<f32>),
}

/// A batch of inputs.
#[derive(Debug, Clone, Copy)]
pub enum Batch<'a> {
    /// Rows of a sparse set.
    Sparse(&'a SparseRows, &'a [u32]),
    /// `[b, i]`.
    Dense(&'a [f32]),
}

impl Examples {
    /// Prepares a range of a data set's examples.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the architecture does not read such examples or has another number of classes.
    pub fn new(architecture: &Architecture, dataset: &Dataset, range: Range<usize>) -> Result<Self> {
        Self::of_networks((architecture, 0), dataset.into(), range)
    }

    /// Prepares a range of examples for so many networks of an architecture, which may have a task each.
    pub(crate) fn of_networks(
        (architecture, num_networks): (&Architecture, usize),
        labelled: Labelled<'_>,
        range: Range<usize>,
    ) -> Result<Self> {
        labelled.check(architecture, num_networks)?;
        Self::of_inputs(architecture, labelled.dataset(), range)
    }

    /// Prepares a range of examples for networks whose outputs do not matter.
    pub(crate) fn of_inputs(architecture: &Architecture, dataset: &Dataset, range: Range<usize>) -> Result<Self> {
        check_inputs(architecture, dataset)?;
        let labels = range.clone().map(|i| dataset.label(i)).collect();
        let mut row = vec![0.0; dataset.num_features()];
        let rows = range.clone().map(|i| {
            dataset.read(i, &mut row);
            row.clone()
        });
        let mut examples = Self::from_rows(rows, dataset.num_features());
        examples.labels = labels;
        Ok(examples)
    }

    /// Prepares inputs `[b, i]` without labels.
    #[must_use]
    pub fn unlabelled(inputs: &[f32], num_features: usize) -> Self {
        Self::from_rows(inputs.chunks_exact(num_features).map(<[f32]>::to_vec), num_features)
    }

    /// Prepares a handful of examples.
    pub(crate) fn of_set(set: &ExampleSet) -> Self {
        Self { labels: set.labels().to_vec(), ..Self::unlabelled(set.inputs(), set.num_features()) }
    }

    fn from_rows(rows: impl ExactSizeIterator<Item = Vec<f32>>, num_features: usize) -> Self {
        let dense: Vec<Vec<f32>> = rows.collect();
        let filled = dense.iter().flatten().filter(|v| **v != 0.0).count();
        let sparse = (filled as f64) < MAX_SPARSE_DENSITY * (dense.len() * num_features) as f64;
        let values = match SparseRows::new(num_features) {
            Ok(mut rows) if sparse => {
                for row in &dense {
                    rows.push(row);
                }
                Values::Sparse(rows)
            }
            _ => Values::Dense(dense.concat()),
        };
        Self { values, labels: Vec::new(), num_features }
    }

    /// The chosen examples with their labels, in that order.
    pub(crate) fn select(&self, chosen: &[u32]) -> Self {
        let mut row = vec![0.0; self.num_features];
        let mut rows = Vec::with_capacity(chosen.len() * self.num_features);
        for &example in chosen {
            self.read(example as usize, &mut row);
            rows.extend_from_slice(&row);
        }
        let mut selected = Self::unlabelled(&rows, self.num_features);
        selected.labels = chosen.iter().filter_map(|&i| self.labels.get(i as usize).copied()).collect();
        selected
    }

    /// The number of examples.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.values {
            Values::Sparse(rows) => rows.len(),
            Values::Dense(values) => values.len() / self.num_features,
        }
    }

    /// Whether there is no example.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The labels, as the data set has them; empty if there are none.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// What a network with this task is to say of an example.
    pub(crate) fn label(&self, example: u32, task: Option<&Task>) -> u32 {
        let class = self.labels[example as usize];
        task.map_or(class, |task| task.output(class))
    }

    /// What networks are to say of their own examples: `chosen` has `b` of each, network by network.
    pub(crate) fn labels_of(&self, chosen: &[u32], b: usize, tasks: Option<&[Task]>) -> Vec<u32> {
        let of_each = chosen.chunks_exact(b.max(1)).enumerate();
        let labels = of_each.flat_map(|(network, chosen)| {
            let task = tasks.map(|tasks| &tasks[network]);
            chosen.iter().map(move |&i| self.label(i, task))
        });
        labels.collect()
    }

    /// The batch of the chosen examples; `scratch` holds dense rows.
    #[must_use]
    pub fn batch<'a>(&'a self, examples: &'a [u32], scratch: &'a mut Vec<f32>) -> Batch<'a> {
        match &self.values {
            Values::Sparse(rows) => Batch::Sparse(rows, examples),
            Values::Dense(values) => {
                scratch.clear();
                for &example in examples {
                    let start = example as usize * self.num_features;
                    scratch.extend_from_slice(&values[start..start + self.num_features]);
                }
                Batch::Dense(scratch)
            }
        }
    }

    /// Writes an example's values into `out`, `[i]`.
    ///
    /// # Panics
    /// If the example does not exist or `out` has another length.
    pub fn read(&self, example: usize, out: &mut [f32]) {
        match &self.values {
            Values::Dense(values) => out.copy_from_slice(&values[example * self.num_features..(example + 1) * self.num_features]),
            Values::Sparse(rows) => {
                out.fill(0.0);
                let (columns, values) = rows.row(example);
                columns.iter().zip(values).for_each(|(&c, &v)| out[usize::from(c)] = v);
            }
        }
    }

    /// All values, `[b, i]`.
    #[must_use]
    pub fn to_dense(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len() * self.num_features];
        out.chunks_exact_mut(self.num_features).enumerate().for_each(|(example, row)| self.read(example, row));
        out
    }
}
