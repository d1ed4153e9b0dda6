//! Elements of the whole group, as words: steps that are taken one after the other.

use crate::error::{Result, check_len};
use crate::group::{Absorber, Fold, GaugeAxis, Hop, Sink};
use crate::linalg::{Matrix, inverse_transpose};
use crate::{Element, Error, Group, SpaceElement};
use rayon::prelude::*;
use weft_core::{Architecture, Seed};

/// One step of a transformation.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Units are renamed, scaled and flipped.
    Units(Element),
    /// The fold of that index moves the given values: the constant of a shift, the number a position of a centering, or for
    /// statistics the factors of `√(σ² + ε)` and then the amounts added to `μ`.
    Fold(usize, Vec<f64>),
    /// The gauge of that index multiplies by matrices, one a block, row-major.
    Gauge(usize, Vec<f64>),
    /// The stream of that index is rotated by a matrix, row-major.
    Rotation(usize, Vec<f64>),
}

/// An element of the group: its steps, in the order in which they act.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transform {
    /// The steps.
    pub steps: Vec<Step>,
}

impl From<Element> for Transform {
    fn from(element: Element) -> Self {
        Self { steps: vec![Step::Units(element)] }
    }
}

impl Transform {
    /// The transformation that acts as `self` and then as `next`.
    #[must_use]
    pub fn then(mut self, next: Self) -> Self {
        self.steps.extend(next.steps);
        self
    }

    /// Whether it changes nothing.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Units(element) if element.is_identity()))
    }

    /// The transformation as numbers, to be stored: of each step its kind (0 units, 1 fold, 2 gauge, 3 rotation), its index (for units
    /// the number of spaces), the number of values that follow, and these; of units, for each space the two lengths, the
    /// permutation and the scales. Values are rounded to `f32`.
    #[must_use]
    pub fn encode(&self) -> Vec<f32> {
        let mut code = Vec::new();
        for step in &self.steps {
            let (kind, index, values): (f32, usize, Vec<f32>) = match step {
                Step::Units(element) => (0.0, element.spaces.len(), encode_units(element)),
                Step::Fold(index, values) => (1.0, *index, narrow(values)),
                Step::Gauge(index, values) => (2.0, *index, narrow(values)),
                Step::Rotation(index, values) => (3.0, *index, narrow(values)),
            };
            code.extend([kind, index as f32, values.len() as f32]);
            code.extend(values);
        }
        code
    }

    /// Reads what [`Transform::encode`] wrote. Whether it belongs to a group is checked when it is applied.
    ///
    /// # Errors
    /// [`Error::Step`] if the numbers end early or name an unknown kind.
    pub fn decode(mut code: &[f32]) -> Result<Self> {
        let fail = |reason| Error::Step { reason };
        let mut steps = Vec::new();
        while let [kind, index, len, rest @ ..] = code {
            let (index, len) = (*index as usize, *len as usize);
            let (values, rest) = rest.split_at_checked(len).ok_or(fail("the code ends early"))?;
            let wide = || values.iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
            steps.push(match *kind as usize {
                0 => Step::Units(decode_units(index, values).ok_or(fail("the code ends early"))?),
                1 => Step::Fold(index, wide()),
                2 => Step::Gauge(index, wide()),
                3 => Step::Rotation(index, wide()),
                _ => return Err(fail("the code names an unknown kind of step")),
            });
            code = rest;
        }
        if code.is_empty() { Ok(Self { steps }) } else { Err(fail("the code ends early")) }
    }
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn encode_units(element: &Element) -> Vec<f32> {
    let space = |s: &SpaceElement| {
        let lengths = [s.permutation.len() as f32, s.scale.len() as f32];
        lengths.into_iter().chain(s.permutation.iter().map(|&p| p as f32)).chain(narrow(&s.scale)).collect::<Vec<_>>()
    };
    element.spaces.iter().flat_map(space).collect()
}

fn decode_units(num_spaces: usize, mut values: &[f32]) -> Option<Element> {
    let mut spaces = Vec::new();
    for _ in 0..num_spaces {
        let [size, scales, rest @ ..] = values else { return None };
        let (permutation, rest) = rest.split_at_checked(*size as usize)?;
        let (scale, rest) = rest.split_at_checked(*scales as usize)?;
        let permutation = permutation.iter().map(|&p| p as u32).collect();
        spaces.push(SpaceElement { permutation, scale: scale.iter().map(|&s| f64::from(s)).collect() });
        values = rest;
    }
    values.is_empty().then_some(Element { spaces })
}

impl Group {
    /// The transformation that undoes another.
    ///
    /// # Errors
    /// [`Error::Step`] if a matrix has no inverse.
    pub fn undo(&self, transform: &Transform) -> Result<Transform> {
        let undo = |step: &Step| -> Result<Step> {
            Ok(match step {
                Step::Units(element) => Step::Units(self.inverse(element)),
                Step::Fold(index, values) if matches!(self.folds().get(*index), Some(Fold::Constant { .. })) => {
                    let total = 1.0 + values.iter().sum::<f64>();
                    Step::Fold(*index, values.iter().map(|e| -e / total).collect())
                }
                Step::Fold(index, values) => {
                    let is_statistics = matches!(self.folds().get(*index), Some(Fold::Statistics { .. }));
                    let factors = if is_statistics { values.len() / 2 } else { 0 };
                    let undo = |(i, v): (usize, &f64)| if i < factors { 1.0 / v } else { -v };
                    Step::Fold(*index, values.iter().enumerate().map(undo).collect())
                }
                Step::Gauge(index, matrices) => {
                    let size = self.gauges().get(*index).map_or(1, |g| g.size);
                    let undo = |m: &[f64]| inverse_transpose(m, size).map(|t| Matrix::new(&t, size, size).transposed());
                    let undone: Option<Vec<Vec<f64>>> = matrices.chunks_exact(size * size).map(undo).collect();
                    Step::Gauge(*index, undone.ok_or(Error::Step { reason: "a matrix has no inverse" })?.concat())
                }
                Step::Rotation(index, matrix) => {
                    let size = self.rotations().get(*index).map_or(1, |r| r.size);
                    Step::Rotation(*index, Matrix::new(matrix, size, size).transposed())
                }
            })
        };
        Ok(Transform { steps: transform.steps.iter().rev().map(undo).collect::<Result<_>>()? })
    }

    /// Draws an element of the whole group, rotations included.
    #[must_use]
    pub fn random_transform(&self, seed: Seed) -> Transform {
        let normals = |name: &str, i: usize, n: usize| -> Vec<f64> {
            seed.fork(name).index(i as u64).normals(n).into_iter().map(f64::from).collect()
        };
        let mut steps = Vec::new();
        for (i, rotation) in self.rotations().iter().enumerate() {
            steps.push(Step::Rotation(
                i,
                crate::linalg::random_rotation(
                    rotation.size,
                    rotation.keeps_ones,
                    &normals("rotation", i, rotation.size * rotation.size),
                ),
            ));
        }
        for (i, fold) in self.folds().iter().enumerate() {
            let mut values = normals("fold", i, fold.num_values(self.architecture()));
            if matches!(fold, Fold::Statistics { .. }) {
                let factors = values.len() / 2;
                values[..factors].iter_mut().for_each(|v| *v = (0.3 * *v).exp());
            }
            if matches!(fold, Fold::Constant { .. }) {
                let n = values.len() as f64;
                for e in &mut values {
                    *e *= 0.3 / n; // 1 + Σe stays away from 0
                }
            }
            steps.push(Step::Fold(i, values));
        }
        for (i, gauge) in self.gauges().iter().enumerate() {
            let noise = normals("gauge", i, gauge.blocks * gauge.size * gauge.size);
            let matrices = noise.chunks_exact(gauge.size * gauge.size).flat_map(|noise| crate::fix::random_block(gauge, noise));
            steps.push(Step::Gauge(i, matrices.collect()));
        }
        steps.push(Step::Units(self.random(seed)));
        Transform { steps }
    }

    /// Applies a transformation to a row of weights in place. The function of the network stays.
    ///
    /// # Errors
    /// [`Error::Length`], [`Error::Element`] or [`Error::Step`] if something does not fit.
    pub fn transform(&self, transform: &Transform, row: &mut [f64]) -> Result<()> {
        check_len("row", row.len(), self.architecture().num_parameters())?;
        transform.steps.iter().try_for_each(|step| self.take(step, row))
    }

    /// The same for weights in `f32`, rounded once.
    ///
    /// # Errors
    /// As [`Group::transform`].
    pub fn transform_f32(&self, transform: &Transform, row: &mut [f32]) -> Result<()> {
        if let [Step::Units(element)] = &transform.steps[..] {
            return self.apply(element, row);
        }
        let mut wide: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
        self.transform(transform, &mut wide)?;
        row.iter_mut().zip(wide).for_each(|(narrow, wide)| *narrow = wide as f32);
        Ok(())
    }

    /// Takes one step.
    pub(crate) fn take(&self, step: &Step, row: &mut [f64]) -> Result<()> {
        let unknown = Error::Step { reason: "it names what the group does not have" };
        match step {
            Step::Units(element) => self.apply_f64(element, row),
            Step::Fold(index, values) => {
                let fold = self.folds().get(*index).ok_or(unknown)?;
                check_len("values of a fold", values.len(), fold.num_values(self.architecture()))?;
                apply_fold(self.architecture(), fold, values, row);
                Ok(())
            }
            Step::Gauge(index, matrices) => {
                let gauge = self.gauges().get(*index).ok_or(unknown)?;
                let size = gauge.size;
                check_len("matrices of a gauge", matrices.len(), gauge.blocks * size * size)?;
                let inverses: Option<Vec<Vec<f64>>> =
                    matrices.chunks_exact(size * size).map(|m| inverse_transpose(m, size)).collect();
                let inverses = inverses.ok_or(Error::Step { reason: "a matrix has no inverse" })?.concat();
                gauge.writers.iter().for_each(|axis| multiply_axis(self.architecture(), axis, size, matrices, row));
                gauge.readers.iter().for_each(|axis| multiply_axis(self.architecture(), axis, size, &inverses, row));
                Ok(())
            }
            Step::Rotation(index, matrix) => {
                let rotation = self.rotations().get(*index).ok_or(unknown)?;
                check_len("matrix of a rotation", matrix.len(), rotation.size * rotation.size)?;
                self.rotate(rotation, matrix, row);
                Ok(())
            }
        }
    }

    fn rotate(&self, rotation: &crate::Rotation, matrix: &[f64], row: &mut [f64]) {
        let d = rotation.size;
        for axis in rotation.writers.iter().chain(&rotation.readers) {
            multiply_axis(self.architecture(), axis, d, matrix, row);
        }
        for (gain, bias, readers) in &rotation.norms {
            let gain: Vec<f64> = gain.map_or(vec![1.0; d], |t| row[self.architecture().tensors()[t].range()].to_vec());
            // Out of the norm comes γ·R·n instead of γ·n: the readers undo M = diag(γ)·R·diag(γ)⁻¹, whose inverse transpose is
            // diag(γ)⁻¹·R·diag(γ).
            let around = |power: i32| -> Vec<f64> {
                (0..d * d).map(|i| matrix[i] * gain[i / d].powi(power) * gain[i % d].powi(-power)).collect()
            };
            for axis in readers {
                multiply_axis(self.architecture(), axis, d, &around(-1), row);
            }
            if let Some(bias) = bias {
                let axis = GaugeAxis { tensor: *bias, axis: 0, members: 1, fine: 1 };
                multiply_axis(self.architecture(), &axis, d, &around(1), row);
            }
        }
    }
}

/// Multiplies the coordinate vectors of an axis by a matrix a block.
pub(crate) fn multiply_axis(architecture: &Architecture, of: &GaugeAxis, size: usize, matrices: &[f64], row: &mut [f64]) {
    let spec = &architecture.tensors()[of.tensor];
    let values = &mut row[spec.range()];
    let rest: usize = spec.shape[of.axis + 1..].iter().product();
    let stride = rest * of.fine;
    let (block, per_row) = (size * stride, spec.shape[of.axis] / (of.fine * size));
    let matrix = |i: usize| Matrix::new(&matrices[i % per_row / of.members * size * size..][..size * size], size, size);
    // Where the coordinates lie side by side, they are rows of one product over many entries of the other axes.
    let len = if stride == 1 { per_row * block * ROWS.min(values.len() / (per_row * block)).max(1) } else { block };
    let multiply = |source: &mut Vec<f64>, (i, part): (usize, &mut [f64])| {
        source.clear();
        source.extend_from_slice(part);
        if stride == 1 {
            let width = per_row * block;
            (0..per_row).for_each(|j| matrix(j).multiply_rows(source, (j * size, width), part));
        } else {
            matrix(i).multiply(source, part);
        }
    };
    if values.len() * size > PARALLEL_WORK {
        let parts = values.par_chunks_mut(len).enumerate();
        parts.with_min_len(1 + PARALLEL_WORK / (8 * len * size)).for_each_init(Vec::new, multiply);
    } else {
        let mut source = Vec::new();
        values.chunks_mut(len).enumerate().for_each(|part| multiply(&mut source, part));
    }
}

/// Entries of the other axes whose coordinates one thread multiplies at a time.
const ROWS: usize = 64;
/// Products of more multiplications than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 20;

fn apply_fold(architecture: &Architecture, fold: &Fold, values: &[f64], row: &mut [f64]) {
    let range = |t: usize| architecture.tensors()[t].range();
    match fold {
        Fold::Shift { emitter, absorbers, .. } => {
            let emitted = row[range(*emitter)].iter_mut().zip(values.iter().cycle());
            emitted.for_each(|(w, u)| *w += u);
            for absorber in absorbers {
                absorb(architecture, absorber, values, row);
            }
        }
        Fold::Center { tensor, axis } => {
            let shape = &architecture.tensors()[*tensor].shape;
            let width = shape[*axis];
            let rest: usize = shape[axis + 1..].iter().product();
            for (i, w) in row[range(*tensor)].iter_mut().enumerate() {
                *w += values[i / (rest * width) * rest + i % rest];
            }
        }
        Fold::Unread { weight, bias, gain, norm_bias } => {
            let width = architecture.tensors()[*weight].shape[1];
            let inverse = inverse_gain(architecture, *gain, width, row);
            let seen: f64 = norm_bias.map_or(0.0, |b| row[range(b)].iter().zip(&inverse).map(|(b, g)| b * g).sum());
            for (w, v) in row[range(*weight)].chunks_exact_mut(width).zip(values) {
                w.iter_mut().zip(&inverse).for_each(|(w, g)| *w += v * g);
            }
            if let Some(bias) = bias {
                row[range(*bias)].iter_mut().zip(values).for_each(|(b, v)| *b -= v * seen);
            }
        }
        Fold::Constant { readers, gain, bias } => {
            let width = values.len();
            let inverse = inverse_gain(architecture, *gain, width, row);
            let along: Vec<f64> = values.iter().zip(&inverse).map(|(e, g)| e / g).collect();
            for reader in readers {
                for w in row[range(*reader)].chunks_exact_mut(width) {
                    let seen: f64 = w.iter().zip(&along).map(|(w, c)| w * c).sum();
                    w.iter_mut().zip(&inverse).for_each(|(w, g)| *w += seen * g);
                }
            }
            let seen: f64 = row[range(*bias)].iter().zip(&inverse).map(|(b, g)| b * g).sum();
            let part = seen / (1.0 + values.iter().sum::<f64>());
            row[range(*bias)].iter_mut().zip(&along).for_each(|(b, c)| *b -= c * part);
        }
        Fold::Statistics { gain, bias, mean, variance, epsilon } => {
            let (factors, moves) = values.split_at(values.len() / 2);
            for (c, (factor, by)) in factors.iter().zip(moves).enumerate() {
                let at = |t: &usize| range(*t).start + c;
                // First μ moves, and β by as much as the output does; then √(σ² + ε) and γ grow together.
                let slope = row[at(gain)] / (row[at(variance)] + epsilon).sqrt();
                row[at(mean)] += by;
                row[at(bias)] += slope * by;
                row[at(variance)] = (row[at(variance)] + epsilon) * factor * factor - epsilon;
                row[at(gain)] *= factor;
            }
        }
    }
}

/// `1/γ`, or ones.
pub(crate) fn inverse_gain(architecture: &Architecture, gain: Option<usize>, width: usize, row: &[f64]) -> Vec<f64> {
    gain.map_or(vec![1.0; width], |g| row[architecture.tensors()[g].range()].iter().map(|g| 1.0 / g).collect())
}

fn absorb(architecture: &Architecture, absorber: &Absorber, values: &[f64], row: &mut [f64]) {
    let arrived = absorber.hops.iter().fold(values.to_vec(), |u, hop| take_hop(architecture, hop, &u, row));
    let range = |t: usize| architecture.tensors()[t].range();
    match &absorber.sink {
        Sink::Bias(bias) => row[range(*bias)].iter_mut().zip(&arrived).for_each(|(w, u)| *w -= u),
        Sink::Mean(mean) => row[range(*mean)].iter_mut().zip(&arrived).for_each(|(w, u)| *w += u),
        Sink::Rows(table, rows) => {
            let width = arrived.len();
            let first = range(*table).start;
            let part = &mut row[first + rows.start * width..first + rows.end * width];
            part.iter_mut().zip(arrived.iter().cycle()).for_each(|(w, u)| *w -= u);
        }
    }
}

fn take_hop(architecture: &Architecture, hop: &Hop, u: &[f64], row: &[f64]) -> Vec<f64> {
    match *hop {
        Hop::Linear(weight) | Hop::Conv(weight) => {
            let spec = &architecture.tensors()[weight];
            let (width, kernel) = (spec.num_values() / spec.shape[0], spec.shape[2..].iter().product::<usize>());
            let dot = |w: &[f64]| w.chunks_exact(kernel).zip(u).map(|(w, u)| w.iter().sum::<f64>() * u).sum();
            row[spec.range()].chunks_exact(width).map(dot).collect()
        }
        Hop::Factor(factor) => u.iter().map(|u| u * factor).collect(),
        Hop::Repeat(times) => u.iter().flat_map(|&u| std::iter::repeat_n(u, times)).collect(),
        Hop::Heads(members, size) => {
            u.chunks_exact(size).flat_map(|head| std::iter::repeat_n(head, members).flatten()).copied().collect()
        }
    }
}
