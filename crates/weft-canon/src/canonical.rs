//! The canonical form: balanced scales, then the permutation that lies closest to an anchor.

use crate::error::{Result, check_len};
use crate::{Element, Error, Group, Matching, balance, match_to};
use rayon::prelude::*;
use weft_core::{Population, Seed};

/// A network in canonical form.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonical {
    /// The weights.
    pub row: Vec<f32>,
    /// What was applied to the raw weights.
    pub canonical_from_raw: Element,
    /// Units whose scale is undetermined (dead within the weights); they keep theirs.
    pub ill_conditioned: usize,
}

/// Brings networks of one architecture into the form closest to an anchor.
///
/// For networks without ties (two units of equal norms, or two matchings of equal distance), `canon(g·w) = canon(w)` up to
/// rounding, and canonicalizing a canonical network changes nothing.
#[derive(Debug, Clone)]
pub struct Canonicalizer {
    group: Group,
    anchor: Vec<f32>,
    matching: Matching,
    seed: Seed,
}

impl Canonicalizer {
    /// Makes a canonicalizer from a stored anchor, which is taken as it is.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if the anchor is no row of finite weights.
    pub fn new(group: Group, anchor: Vec<f32>, matching: Matching, seed: Seed) -> Result<Self> {
        check_row(&group, "anchor", &anchor)?;
        Ok(Self { group, anchor, matching, seed })
    }

    /// Takes one network, balanced, as the anchor.
    ///
    /// # Errors
    /// As [`Canonicalizer::new`].
    pub fn fit_anchor(group: Group, row: &[f32], matching: Matching, seed: Seed) -> Result<Self> {
        check_row(&group, "anchor", row)?;
        let mut anchor = row.to_vec();
        group.apply(&balance(&group, row)?.element, &mut anchor)?;
        Ok(Self { group, anchor, matching, seed })
    }

    /// Takes as the anchor the mean of balanced, matched networks, estimated anew `iterations` times from the first one on.
    ///
    /// Returns with it the mean distance `‖anchor − g·w‖` at each iteration, before the anchor moved. It ends early when the
    /// matching no longer changes.
    ///
    /// `rows` are to be the final networks of training runs: an anchor is a statistic and must not see held-out runs.
    ///
    /// # Errors
    /// [`Error::Empty`] without rows, else as [`Canonicalizer::new`].
    ///
    /// # References
    /// Ainsworth, Hayase & Srinivasa 2023, Appendix A.10 (matching many models); Gower 1975 for the iteration.
    pub fn fit_mean(group: Group, rows: &[&[f32]], iterations: usize, seed: Seed) -> Result<(Self, Vec<f64>)> {
        let first = rows.first().ok_or(Error::Empty { what: "networks to fit the anchor to" })?;
        let mut fitted = Self::fit_anchor(group, first, Matching::default(), seed)?;
        let balanced: Vec<Vec<f32>> = rows
            .par_iter()
            .map(|row| {
                check_row(&fitted.group, "row", row)?;
                let mut balanced = row.to_vec();
                fitted.group.apply(&balance(&fitted.group, row)?.element, &mut balanced)?;
                Ok(balanced)
            })
            .collect::<Result<_>>()?;
        let mut history = Vec::with_capacity(iterations);
        let mut previous: Vec<Element> = Vec::new();
        for _ in 0..iterations {
            let matched: Vec<(Element, f64)> = balanced
                .par_iter()
                .map(|row| match_to(&fitted.group, row, &fitted.anchor, &fitted.matching, seed))
                .collect::<Result<_>>()?;
            history.push(matched.iter().map(|(_, d)| d.sqrt()).sum::<f64>() / matched.len() as f64);
            let elements: Vec<Element> = matched.into_iter().map(|(e, _)| e).collect();
            if elements == previous {
                break;
            }
            fitted.anchor = mean_of(&fitted.group, &balanced, &elements)?;
            previous = elements;
        }
        Ok((fitted, history))
    }

    /// The group.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The anchor, to be stored with the canonical networks.
    #[must_use]
    pub fn anchor(&self) -> &[f32] {
        &self.anchor
    }

    /// How hard the matching looks.
    #[must_use]
    pub fn matching(&self) -> Matching {
        self.matching
    }

    /// Brings one network into canonical form.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if it is no row of finite weights.
    pub fn canonicalize(&self, row: &[f32]) -> Result<Canonical> {
        let canonical = self.canonicalize_run(&[row])?;
        canonical.into_iter().next().ok_or(Error::Empty { what: "networks of a run" })
    }

    /// Brings all snapshots of one training run, in order, into canonical form.
    ///
    /// The permutation and the signs found for the last snapshot serve them all, so that a run stays a path; scales are each
    /// snapshot's own.
    ///
    /// # Errors
    /// [`Error::Empty`] without snapshots, else as [`Canonicalizer::canonicalize`].
    pub fn canonicalize_run(&self, rows: &[&[f32]]) -> Result<Vec<Canonical>> {
        let balanced = rows
            .iter()
            .map(|row| {
                check_row(&self.group, "row", row)?;
                balance(&self.group, row)
            })
            .collect::<Result<Vec<_>>>()?;
        let (Some(last), Some(scale)) = (rows.last(), balanced.last()) else {
            return Err(Error::Empty { what: "networks of a run" });
        };
        let mut image = last.to_vec();
        self.group.apply(&scale.element, &mut image)?;
        let (matched, _) = match_to(&self.group, &image, &self.anchor, &self.matching, self.seed)?;
        rows.iter()
            .zip(balanced)
            .map(|(row, balanced)| {
                let canonical_from_raw = matched.compose(&balanced.element);
                let mut image = vec![0.0; row.len()];
                self.group.apply_to(&canonical_from_raw, row, &mut image)?;
                Ok(Canonical { row: image, canonical_from_raw, ill_conditioned: balanced.ill_conditioned })
            })
            .collect()
    }

    /// Brings a whole population into canonical form, in parallel, run by run.
    ///
    /// `runs[i]` identifies the run of network `i`; the last network of a run, in the population's order, is its final one.
    /// Returns the canonical population, the element applied to each network, and the number of ill-conditioned units in all.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if the population or `runs` does not fit.
    pub fn canonicalize_population(&self, population: &Population, runs: &[u32]) -> Result<(Population, Vec<Element>, usize)> {
        check_len("run of each network", runs.len(), population.len())?;
        check_len("row", population.dim(), self.group.architecture().num_parameters())?;
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|&i| runs[i]); // stable: a run's snapshots stay in order
        let members: Vec<&[usize]> = order.chunk_by(|&i, &j| runs[i] == runs[j]).collect();
        let mut canonical = population.clone();
        let mut elements = vec![Element { spaces: Vec::new() }; runs.len()];
        let mut ill_conditioned = 0;
        let dim = population.dim();
        for batch in members.chunks(1024) {
            let done: Vec<Vec<Canonical>> = batch
                .par_iter()
                .map(|run| self.canonicalize_run(&run.iter().map(|&i| population.row(i)).collect::<Vec<_>>()))
                .collect::<Result<_>>()?;
            for (&i, one) in batch.iter().copied().flatten().zip(done.into_iter().flatten()) {
                canonical.data_mut()[i * dim..(i + 1) * dim].copy_from_slice(&one.row);
                elements[i] = one.canonical_from_raw;
                ill_conditioned += one.ill_conditioned;
            }
        }
        Ok((canonical, elements, ill_conditioned))
    }
}

fn check_row(group: &Group, what: &'static str, row: &[f32]) -> Result<()> {
    check_len(what, row.len(), group.architecture().num_parameters())?;
    match row.iter().position(|w| !w.is_finite()) {
        Some(index) => Err(Error::NotFinite { index }),
        None => Ok(()),
    }
}

/// The mean of the rows' images, summed in the rows' order.
fn mean_of(group: &Group, rows: &[Vec<f32>], elements: &[Element]) -> Result<Vec<f32>> {
    let dim = group.architecture().num_parameters();
    let (mut sum, mut image) = (vec![0.0_f64; dim], vec![0.0; dim]);
    for (row, element) in rows.iter().zip(elements) {
        group.apply_to(element, row, &mut image)?;
        sum.iter_mut().zip(&image).for_each(|(s, &x)| *s += f64::from(x));
    }
    Ok(sum.iter().map(|s| (s / rows.len() as f64) as f32).collect())
}
