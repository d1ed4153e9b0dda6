//! Elements of a symmetry group: a permutation and scales a hidden space, and their action on weights.

use crate::error::{Result, check_len};
use crate::{Error, Group};
use weft_core::Seed;

/// What is done to one hidden space: new unit `i` is `scale[i]` times old unit `permutation[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct SpaceElement {
    /// For each new unit, the old unit that it was.
    pub permutation: Vec<u32>,
    /// For each new unit, the factor on its incoming weights (and the divisor of its outgoing ones); negative only where the
    /// space allows a change of sign.
    pub scale: Vec<f64>,
}

impl SpaceElement {
    /// The element that changes nothing.
    #[must_use]
    pub fn identity(size: usize) -> Self {
        Self { permutation: (0..size as u32).collect(), scale: vec![1.0; size] }
    }
}

/// An element of a [`Group`]: one [`SpaceElement`] a hidden space, in the group's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Element {
    /// The parts.
    pub spaces: Vec<SpaceElement>,
}

impl Element {
    /// The element `self ∘ first`: acts as `first` and then as `self`.
    ///
    /// # Panics
    /// If the two belong to groups of different shapes.
    #[must_use]
    pub fn compose(&self, first: &Self) -> Self {
        assert_eq!(self.spaces.len(), first.spaces.len(), "elements of one group have as many spaces");
        let compose = |(after, before): (&SpaceElement, &SpaceElement)| SpaceElement {
            permutation: after.permutation.iter().map(|&j| before.permutation[j as usize]).collect(),
            scale: after.permutation.iter().zip(&after.scale).map(|(&j, s)| s * before.scale[j as usize]).collect(),
        };
        Self { spaces: self.spaces.iter().zip(&first.spaces).map(compose).collect() }
    }

    /// The element that undoes this one.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let invert = |space: &SpaceElement| {
            let mut inverse = SpaceElement::identity(space.permutation.len());
            for (new, (&old, &scale)) in space.permutation.iter().zip(&space.scale).enumerate() {
                inverse.permutation[old as usize] = new as u32;
                inverse.scale[old as usize] = 1.0 / scale;
            }
            inverse
        };
        Self { spaces: self.spaces.iter().map(invert).collect() }
    }

    /// Whether the element changes nothing.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.spaces.iter().all(|s| *s == SpaceElement::identity(s.permutation.len()))
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

impl Group {
    /// The element that changes nothing.
    #[must_use]
    pub fn identity(&self) -> Element {
        Element { spaces: self.spaces().iter().map(|s| SpaceElement::identity(s.size)).collect() }
    }

    /// Draws an element: uniform permutations, log-normal scales (σ = ½) and fair signs where the spaces allow them.
    #[must_use]
    pub fn random(&self, seed: Seed) -> Element {
        let draw = |(k, space): (usize, &crate::HiddenSpace)| {
            let seed = seed.fork("element").index(k as u64);
            let mut element = SpaceElement::identity(space.size);
            if space.permutes {
                element.permutation = seed.fork("permutation").permutation(space.size);
            }
            if space.positive_scale {
                element.scale = seed.fork("scale").normals(space.size).iter().map(|&z| (0.5 * f64::from(z)).exp()).collect();
            }
            if space.sign {
                element.scale = seed.fork("sign").indices(space.size, 2).iter().map(|&b| 1.0 - 2.0 * f64::from(b)).collect();
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
            if part.permutation.len() != space.size || part.scale.len() != space.size {
                return fail(k, "its size differs from the space's");
            }
            let mut seen = vec![false; space.size];
            for &old in &part.permutation {
                match seen.get_mut(old as usize) {
                    Some(seen) if !*seen => *seen = true,
                    _ => return fail(k, "it is not a permutation"),
                }
            }
            for &s in &part.scale {
                if !s.is_finite() || s == 0.0 || (s < 0.0 && !space.sign) || (!is_unit(s.abs()) && !space.positive_scale) {
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
        let source = row.to_vec();
        self.apply_to(element, &source, row)
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
            let part = |axis| self.role(tensor, axis).hidden.map(|k: usize| &element.spaces[k]);
            let cols = spec.shape.get(1).copied().unwrap_or(1);
            let (rows, columns) = (part(0), part(1));
            let source = &source[spec.range()];
            for (i, target) in target[spec.range()].chunks_exact_mut(cols).enumerate() {
                let (old, scale) = rows.map_or((i, 1.0), |p| (p.permutation[i] as usize, p.scale[i]));
                let source = &source[old * cols..(old + 1) * cols];
                match columns {
                    None if is_unit(scale) => target.copy_from_slice(source),
                    None => target.iter_mut().zip(source).for_each(|(t, &x)| *t = (f64::from(x) * scale) as f32),
                    Some(c) => {
                        for ((t, &j), s) in target.iter_mut().zip(&c.permutation).zip(&c.scale) {
                            *t = (f64::from(source[j as usize]) * scale / s) as f32;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether a factor is exactly 1, so that applying it changes no bit.
fn is_unit(scale: f64) -> bool {
    scale.to_bits() == 1.0_f64.to_bits()
}
