//! Constants of a graph, and how to find the way back to where they are stored.
//!
//! Exporters fold and rearrange: a linear map's weight may be stored transposed, reshaped, scaled. Each constant
//! therefore carries its [`Origin`]: the stored tensor and the steps from it, every one of which can be undone.

use super::tensor::Values;
use std::sync::Arc;

/// Longest way from a stored tensor to a parameter.
const MAX_STEPS: usize = 16;

/// Where a parameter is stored in a model, and what lies between.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// The initializer's name, or the output of the `Constant` node that holds the values.
    pub tensor: String,
    pub(super) steps: Vec<Step>,
}

/// One step from a stored tensor towards a parameter; reshaping needs none, since it moves no value.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Step {
    /// Axes are permuted: `shape` before, and the old axis of each new one.
    Transpose { shape: Vec<usize>, axes: Vec<usize> },
    /// Every value is multiplied by its factor, or all by one.
    Scale(Arc<[f32]>),
    /// To every value its term is added, or one to all.
    Shift(Arc<[f32]>),
    /// One value is repeated.
    Repeat(usize),
}

impl Origin {
    /// Whether the stored tensor is the parameter's transpose.
    #[must_use]
    pub fn is_transposed(&self) -> bool {
        let swaps = |step: &&Step| matches!(step, Step::Transpose { axes, .. } if axes.as_slice() == [1, 0]);
        self.steps.iter().filter(swaps).count() % 2 == 1
    }

    /// Whether the parameter is the stored tensor's values, in whatever order.
    #[must_use]
    pub fn is_verbatim(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Transpose { .. }))
    }

    /// The values to store so that the parameter becomes `values`; the reason where there are none.
    pub(super) fn stored(&self, values: &[f32]) -> Result<Vec<f32>, &'static str> {
        let mut values = values.to_vec();
        for step in self.steps.iter().rev() {
            match step {
                Step::Transpose { shape, axes } => {
                    let moved: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
                    let mut inverse = vec![0; axes.len()];
                    for (new, &old) in axes.iter().enumerate() {
                        inverse[old] = new;
                    }
                    values = transpose(&values, &moved, &inverse);
                }
                Step::Scale(factors) => {
                    for (value, factor) in values.iter_mut().zip(factors.iter().cycle()) {
                        *value /= factor;
                        if !value.is_finite() {
                            return Err("the graph multiplies it by a constant that is too small");
                        }
                    }
                }
                Step::Shift(terms) => {
                    for (value, term) in values.iter_mut().zip(terms.iter().cycle()) {
                        *value -= term;
                    }
                }
                Step::Repeat(_) => {
                    if values.iter().any(|value| value.to_bits() != values[0].to_bits()) {
                        return Err("the graph stores it as one number");
                    }
                    values.truncate(1);
                }
            }
        }
        Ok(values)
    }
}

/// A constant's shape and values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Constant {
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
    /// `None` if its values are computed in a way that cannot be undone.
    pub(super) origin: Option<Origin>,
}

impl Constant {
    pub(super) fn stored(name: &str, shape: Vec<usize>, values: Values) -> Self {
        Self { shape, values, origin: Some(Origin { tensor: name.to_owned(), steps: Vec::new() }) }
    }

    /// A constant without an origin.
    pub(super) fn ints(shape: Vec<usize>, values: Vec<i64>) -> Self {
        Self { shape, values: Values::Int(values.into()), origin: None }
    }

    pub(super) fn floats(&self) -> Option<&Arc<[f32]>> {
        match &self.values {
            Values::Float(values) => Some(values),
            Values::Int(_) => None,
        }
    }

    pub(super) fn as_ints(&self) -> Option<&[i64]> {
        match &self.values {
            Values::Int(values) => Some(values),
            Values::Float(_) => None,
        }
    }

    /// The one number of a constant that has one value.
    pub(super) fn scalar(&self) -> Option<f32> {
        match &self.values {
            Values::Float(values) if values.len() == 1 => Some(values[0]),
            Values::Int(values) if values.len() == 1 => Some(values[0] as f32),
            _ => None,
        }
    }

    /// The same values under another shape of as many.
    pub(super) fn reshaped(&self, shape: Vec<usize>) -> Self {
        Self { shape, ..self.clone() }
    }

    fn with(&self, shape: Vec<usize>, values: Arc<[f32]>, step: Step) -> Self {
        let origin = self.origin.clone().filter(|origin| origin.steps.len() < MAX_STEPS).map(|mut origin| {
            origin.steps.push(step);
            origin
        });
        Self { shape, values: Values::Float(values), origin }
    }

    /// Permutes the axes of a constant of floats; `axes` is a permutation of them.
    pub(super) fn transposed(&self, axes: &[usize]) -> Option<Self> {
        let moved: Vec<usize> = axes.iter().map(|&axis| self.shape[axis]).collect();
        if is_order_kept(&self.shape, axes) {
            return Some(self.reshaped(moved));
        }
        let values = transpose(self.floats()?, &self.shape, axes);
        Some(self.with(moved, values.into(), Step::Transpose { shape: self.shape.clone(), axes: axes.to_vec() }))
    }

    /// Multiplies by factors, one for all values or one each.
    pub(super) fn scaled(&self, factors: &Arc<[f32]>) -> Option<Self> {
        self.zipped(factors, |value, factor| value * factor, Step::Scale(factors.clone()), 1.0)
    }

    /// Adds terms, one to all values or one each.
    pub(super) fn shifted(&self, terms: &Arc<[f32]>) -> Option<Self> {
        self.zipped(terms, |value, term| value + term, Step::Shift(terms.clone()), 0.0)
    }

    /// The negative of it.
    pub(super) fn negated(&self) -> Option<Self> {
        self.scaled(&Arc::from([-1.0]))
    }

    fn zipped(&self, others: &Arc<[f32]>, f: fn(f32, f32) -> f32, step: Step, neutral: f32) -> Option<Self> {
        let values = self.floats()?;
        if others.len() != 1 && others.len() != values.len() {
            return None;
        }
        if others.iter().all(|&other| other.to_bits() == neutral.to_bits()) {
            return Some(self.clone());
        }
        let values = values.iter().zip(others.iter().cycle()).map(|(&value, &other)| f(value, other)).collect();
        Some(self.with(self.shape.clone(), values, step))
    }

    /// It as a vector of `len` values: all axes but one have length 1, or it is one number for all.
    pub(super) fn vector(&self, len: usize) -> Option<Self> {
        let values = self.floats()?;
        if values.len() == 1 && len != 1 {
            let repeated = std::iter::repeat_n(values[0], len).collect();
            return Some(self.with(vec![len], repeated, Step::Repeat(len)));
        }
        (values.len() == len).then(|| self.reshaped(vec![len]))
    }
}

/// Whether a permutation of axes moves only axes of length 1, so that the values keep their order.
pub(super) fn is_order_kept(shape: &[usize], axes: &[usize]) -> bool {
    axes.iter().filter(|&&axis| shape[axis] != 1).is_sorted()
}

/// Permutes the axes of a row-major array: axis `i` of the result is axis `axes[i]` of the input.
fn transpose(values: &[f32], shape: &[usize], axes: &[usize]) -> Vec<f32> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    let sizes: Vec<usize> = axes.iter().map(|&axis| shape[axis]).collect();
    let steps: Vec<usize> = axes.iter().map(|&axis| strides[axis]).collect();
    let mut out = Vec::with_capacity(values.len());
    let mut place = vec![0; sizes.len()];
    let mut at = 0;
    for _ in 0..values.len() {
        out.push(values[at]);
        for axis in (0..sizes.len()).rev() {
            place[axis] += 1;
            at += steps[axis];
            if place[axis] < sizes[axis] {
                break;
            }
            at -= steps[axis] * sizes[axis];
            place[axis] = 0;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(shape: &[usize]) -> Constant {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| i as f32).collect();
        Constant::stored("w", shape.to_vec(), Values::Float(values.into()))
    }

    #[test]
    fn transposed_values_and_the_way_back() {
        let c = constant(&[2, 3]).transposed(&[1, 0]).unwrap();
        assert_eq!((c.shape.as_slice(), c.floats().unwrap().as_ref()), ([3, 2].as_slice(), [0., 3., 1., 4., 2., 5.].as_slice()));
        let origin = c.origin.unwrap();
        assert!(origin.is_transposed() && origin.is_verbatim());
        assert_eq!(origin.stored(&[0., 3., 1., 4., 2., 5.]).unwrap(), [0., 1., 2., 3., 4., 5.]);
    }

    #[test]
    fn every_chain_of_steps_can_be_undone() {
        let c = constant(&[2, 3, 4]).transposed(&[2, 0, 1]).unwrap();
        let c = c.scaled(&Arc::from([0.5])).unwrap().shifted(&Arc::from([2.0])).unwrap();
        let c = c.transposed(&[1, 2, 0]).unwrap().reshaped(vec![6, 4]).transposed(&[1, 0]).unwrap();
        let stored = c.origin.as_ref().unwrap().stored(c.floats().unwrap()).unwrap();
        assert_eq!(stored, (0..24).map(|i| i as f32).collect::<Vec<_>>());
        assert!(!c.origin.unwrap().is_verbatim());
    }

    #[test]
    fn one_number_for_all_comes_back_only_as_one() {
        let c = constant(&[1]).shifted(&Arc::from([3.0])).unwrap().vector(3).unwrap();
        assert_eq!(c.floats().unwrap().as_ref(), [3.0; 3]);
        let origin = c.origin.unwrap();
        assert_eq!(origin.stored(&[5.0; 3]).unwrap(), [2.0]);
        assert!(origin.stored(&[5.0, 5.0, 4.0]).unwrap_err().contains("one number"));
    }

    #[test]
    fn moving_axes_of_length_one_is_no_step() {
        let c = constant(&[1, 3, 1]).transposed(&[2, 1, 0]).unwrap();
        assert!(c.origin.unwrap().steps.is_empty());
        assert!(constant(&[2, 2]).scaled(&Arc::from([1.0, 2.0, 3.0])).is_none());
    }
}
