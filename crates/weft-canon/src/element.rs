//! What is done to units: permutations and scales a hidden space, and their action on weights.

use crate::error::{Result, check_len};
use crate::group::Sign;
use crate::{Error, Group, HiddenSpace};
use rayon::prelude::*;
use weft_core::Seed;

/// Tensors of more values than this are shared between threads.
const PARALLEL_WORK: usize = 1 << 16;

/// What is done to one hidden space: new unit `i` is `scale[i]` times old unit `permutation[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceElement {
    /// For each new unit, the old unit that it was.
    pub permutation: Vec<u32>,
    /// The scales of every class of the space, one class after the other ([`HiddenSpace::first_scale`]); they multiply what writes to
    /// the class and divide what reads it. Negative only where the class allows a change of sign.
    pub scale: Vec<f64>,
}

impl SpaceElement {
    /// The element that changes nothing.
    #[must_use]
    pub fn identity(space: &HiddenSpace) -> Self {
        Self { permutation: (0..space.size as u32).collect(), scale: vec![1.0; space.num_scales()] }
    }

    fn is_identity(&self) -> bool {
        self.permutation.iter().enumerate().all(|(i, &p)| i == p as usize) && self.scale.iter().all(|&s| is_unit(s))
    }
}

/// What is done to the units of every hidden space, in the group's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// The parts.
    pub spaces: Vec<SpaceElement>,
}

impl Element {
    /// Whether the element changes nothing.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.spaces.iter().all(SpaceElement::is_identity)
    }

    /// The same permutations and signs, with all factors of size 1.
    #[must_use]
    pub fn without_scale(&self) -> Self {
        let strip = |s: &SpaceElement| SpaceElement {
            permutation: s.permutation.clone(),
            scale: s.scale.iter().map(|x| x.signum()).collect(),
        };
        Self { spaces: self.spaces.iter().map(strip).collect() }
    }
}

/// For each new scale of a space, the old one that takes its place.
pub(crate) fn moved_scales(space: &HiddenSpace, permutation: &[u32]) -> Vec<usize> {
    let mut moved = Vec::with_capacity(space.num_scales());
    for (c, class) in space.classes.iter().enumerate() {
        let (first, slots) = (space.first_scale(c), class.slots.len());
        let step = if class.grouped { space.members } else { 1 };
        for unit in permutation.iter().step_by(step) {
            moved.extend((0..slots).map(|s| first + *unit as usize / step * slots + s));
        }
    }
    moved
}

impl Group {
    /// The element that changes nothing.
    #[must_use]
    pub fn identity(&self) -> Element {
        Element { spaces: self.spaces().iter().map(SpaceElement::identity).collect() }
    }

    /// The element that acts as `first` and then as `after`.
    ///
    /// # Panics
    /// If one of the two does not belong to the group.
    #[must_use]
    pub fn compose(&self, after: &Element, first: &Element) -> Element {
        let compose = |((space, after), first): ((&HiddenSpace, &SpaceElement), &SpaceElement)| SpaceElement {
            permutation: after.permutation.iter().map(|&j| first.permutation[j as usize]).collect(),
            scale: moved_scales(space, &after.permutation).iter().zip(&after.scale).map(|(&j, s)| s * first.scale[j]).collect(),
        };
        Element { spaces: self.spaces().iter().zip(&after.spaces).zip(&first.spaces).map(compose).collect() }
    }

    /// The element that undoes another.
    ///
    /// # Panics
    /// If it does not belong to the group.
    #[must_use]
    pub fn inverse(&self, element: &Element) -> Element {
        let invert = |(space, part): (&HiddenSpace, &SpaceElement)| {
            let mut inverse = SpaceElement::identity(space);
            for (new, &old) in part.permutation.iter().enumerate() {
                inverse.permutation[old as usize] = new as u32;
            }
            for (&old, &scale) in moved_scales(space, &part.permutation).iter().zip(&part.scale) {
                inverse.scale[old] = 1.0 / scale;
            }
            inverse
        };
        Element { spaces: self.spaces().iter().zip(&element.spaces).map(invert).collect() }
    }

    /// Draws an element: uniform permutations, log-normal scales (σ = ½) and fair signs where the spaces allow them.
    #[must_use]
    pub fn random(&self, seed: Seed) -> Element {
        let draw = |(k, space): (usize, &HiddenSpace)| {
            let seed = seed.fork("element").index(k as u64);
            let mut element = SpaceElement::identity(space);
            element.permutation = random_permutation(space.size, space.members, seed.fork("permutation"));
            let mut first = 0;
            for (c, class) in space.classes.iter().enumerate() {
                let (seed, n) = (seed.index(c as u64), class.entries(space));
                let scale = &mut element.scale[first..first + n];
                first += n;
                if class.positive {
                    let sizes = seed.fork("scale").normals(n);
                    scale.iter_mut().zip(sizes).for_each(|(s, z)| *s = (0.5 * f64::from(z)).exp());
                }
                if class.sign != Sign::Fixed {
                    let mut signs = seed.fork("sign").indices(n, 2);
                    if class.sign == Sign::Common {
                        signs = vec![signs.first().copied().unwrap_or(0); n];
                    }
                    scale.iter_mut().zip(signs).for_each(|(s, b)| *s *= 1.0 - 2.0 * f64::from(b));
                }
            }
            element
        };
        Element { spaces: self.spaces().iter().enumerate().map(draw).collect() }
    }

    /// Checks that an element belongs to the group.
    ///
    /// # Errors
    /// [`Error::Element`] names the first space that does not fit and why.
    pub fn check(&self, element: &Element) -> Result<()> {
        let fail = |space, reason| Err(Error::Element { space, reason });
        if element.spaces.len() != self.spaces().len() {
            return fail(element.spaces.len(), "the number of spaces differs from the group's");
        }
        for (k, (part, space)) in element.spaces.iter().zip(self.spaces()).enumerate() {
            if part.permutation.len() != space.size || part.scale.len() != space.num_scales() {
                return fail(k, "its size differs from the space's");
            }
            let mut seen = vec![false; space.size];
            for &old in &part.permutation {
                match seen.get_mut(old as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return fail(k, "it is not a permutation"),
                }
            }
            let m = space.members as u32;
            if part.permutation.chunks_exact(space.members).any(|group| group.iter().any(|p| p / m != group[0] / m)) {
                return fail(k, "it tears a group of units apart");
            }
            let mut first = 0;
            for class in &space.classes {
                let scales = &part.scale[first..first + class.entries(space)];
                first += scales.len();
                let allowed = |&s: &f64| {
                    s.is_finite()
                        && s.abs() > 0.0
                        && (s > 0.0 || class.sign != Sign::Fixed)
                        && (is_unit(s.abs()) || class.positive)
                        && (class.sign != Sign::Common || s.signum().to_bits() == scales[0].signum().to_bits())
                };
                if !scales.iter().all(allowed) {
                    return fail(k, "a scale is not allowed in this space");
                }
            }
        }
        Ok(())
    }

    /// Applies an element to a row of weights in place. The function of the network stays.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Element`] if the row or the element does not fit.
    pub fn apply(&self, element: &Element, row: &mut [f32]) -> Result<()> {
        self.act_in_place(element, row, scaled_f32)
    }

    /// The same for weights in `f64`.
    ///
    /// # Errors
    /// As [`Group::apply`].
    pub fn apply_f64(&self, element: &Element, row: &mut [f64]) -> Result<()> {
        self.act_in_place(element, row, |w, scale| w * scale)
    }

    /// Applies an element to `source`, writing to `target`.
    ///
    /// `W'[i, j] = s_i · W[p(i), q(j)] / t_j` for a weight from a space with `(q, t)` to one with `(p, s)`.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::Element`] if a row or the element does not fit.
    pub fn apply_to(&self, element: &Element, source: &[f32], target: &mut [f32]) -> Result<()> {
        self.check(element)?;
        let dim = self.architecture().num_parameters();
        check_len("source row", source.len(), dim)?;
        check_len("target row", target.len(), dim)?;
        for (tensor, spec) in self.architecture().tensors().iter().enumerate() {
            self.act(element, tensor, (&source[spec.range()], &mut target[spec.range()]), scaled_f32);
        }
        Ok(())
    }

    /// Needs memory for a copy of the largest tensor only.
    fn act_in_place<T: Copy + Send + Sync>(
        &self,
        element: &Element,
        row: &mut [T],
        scaled: impl Fn(T, f64) -> T + Sync,
    ) -> Result<()> {
        self.check(element)?;
        check_len("row", row.len(), self.architecture().num_parameters())?;
        let mut source = Vec::new();
        for (tensor, spec) in self.architecture().tensors().iter().enumerate() {
            let target = &mut row[spec.range()];
            source.clear();
            source.extend_from_slice(target);
            self.act(element, tensor, (&source, target), &scaled);
        }
        Ok(())
    }

    fn act<T: Copy + Send + Sync>(
        &self,
        element: &Element,
        tensor: usize,
        (source, target): (&[T], &mut [T]),
        scaled: impl Fn(T, f64) -> T + Sync,
    ) {
        let shape = &self.architecture().tensors()[tensor].shape;
        let [rows, columns] = [0, 1].map(|axis| self.axis_action(element, tensor, axis));
        let cols = shape.get(1).copied().unwrap_or(1);
        let rest: usize = shape.iter().skip(2).product();
        let width = (cols * rest).max(1);
        let act = |(i, target): (usize, &mut [T])| {
            let (old, scale) = rows.as_ref().map_or((i, 1.0), |(from, scale)| (from[i] as usize, scale[i]));
            let source = &source[old * width..(old + 1) * width];
            match &columns {
                None if is_unit(scale) => target.copy_from_slice(source),
                None => target.iter_mut().zip(source).for_each(|(t, &x)| *t = scaled(x, scale)),
                Some((from, factor)) => {
                    for ((t, &j), f) in target.chunks_exact_mut(rest).zip(from).zip(factor) {
                        let source = &source[j as usize * rest..(j as usize + 1) * rest];
                        t.iter_mut().zip(source).for_each(|(t, &x)| *t = scaled(x, scale * f));
                    }
                }
            }
        };
        if target.len() > PARALLEL_WORK {
            target.par_chunks_exact_mut(width).enumerate().with_min_len(1 + PARALLEL_WORK / (4 * width)).for_each(act);
        } else {
            target.chunks_exact_mut(width).enumerate().for_each(act);
        }
    }

    /// For each new entry of an axis, the old entry and the factor; `None` where nothing happens.
    pub(crate) fn axis_action(&self, element: &Element, tensor: usize, axis: usize) -> Option<(Vec<u32>, Vec<f64>)> {
        let (k, of) = self.hidden(tensor, axis)?;
        let (space, part) = (&self.spaces()[k], &element.spaces[k]);
        let len = self.architecture().tensors()[tensor].shape[axis];
        let step = if of.grouped { space.members } else { 1 };
        let from = (0..len).map(|i| {
            let unit = part.permutation[i / of.inner * step] as usize / step;
            (unit * of.inner + i % of.inner) as u32
        });
        let first: Vec<usize> = of.factors.iter().map(|f| space.first_scale(f.class)).collect();
        let factor = (0..len).map(|i| {
            let each = of.factors.iter().zip(&first).map(|(f, first)| {
                let scale = part.scale[first + space.entry(f.class, of, i)];
                if f.inverse { 1.0 / scale } else { scale }
            });
            each.product()
        });
        Some((from.collect(), factor.collect()))
    }
}

/// A uniform permutation of units that keeps groups together.
pub(crate) fn random_permutation(size: usize, members: usize, seed: Seed) -> Vec<u32> {
    let groups = size / members;
    if members == 1 {
        return seed.permutation(groups);
    }
    let order = seed.permutation(groups);
    let inside = |(g, &from): (usize, &u32)| {
        let inner = seed.index(g as u64).permutation(members);
        inner.into_iter().map(move |m| from * members as u32 + m)
    };
    order.iter().enumerate().flat_map(inside).collect()
}

fn scaled_f32(w: f32, scale: f64) -> f32 {
    if is_unit(scale) { w } else { (f64::from(w) * scale) as f32 }
}

/// Whether a factor is exactly 1, so that applying it changes no bit.
pub(crate) fn is_unit(scale: f64) -> bool {
    scale.to_bits() == 1.0_f64.to_bits()
}
