//! The canonical form: continuous symmetries fixed in closed form, then the permutation and signs that lie closest to an anchor.

use crate::activations::{Activations, Matched, match_activations};
use crate::error::{Result, check_len};
use crate::fix::{Fixed, Precision, fix};
use crate::matching::squared_distance;
use crate::statistics::kept;
use crate::transform::{Step, Transform};
use crate::{AlignBy, Element, Error, Group, Matching, Observer, match_to};
use rayon::prelude::*;
use std::sync::Arc;
use weft_core::{Population, Seed};

/// A network in canonical form.
#[derive(Debug, Clone, PartialEq)]
pub struct Canonical {
    /// The weights.
    pub row: Vec<f32>,
    /// What was applied to the raw weights.
    pub canonical_from_raw: Transform,
    /// Scales, gains and directions that the weights leave undetermined: dead units, singular values that meet. With an alignment
    /// by activations also units of a space that do nothing on the data.
    pub ill_conditioned: usize,
}

/// A population in canonical form.
#[derive(Debug, Clone, PartialEq)]
pub struct CanonicalPopulation {
    /// The networks.
    pub networks: Population,
    /// What was applied to each.
    pub transforms: Vec<Transform>,
    /// What the weights of each leave undetermined.
    pub ill_conditioned: Vec<usize>,
}

/// Reads the weights of the network of a number.
pub type ReadRow<'a, E> = dyn FnMut(usize) -> Result<Vec<f32>, E> + 'a;

/// Brings networks of one architecture into the form closest to an anchor.
///
/// For networks without ties (two units of equal norms, singular values that meet, or two matchings of equal distance),
/// `canon(g·w) = canon(w)` up to rounding, and canonicalizing a canonical network changes nothing.
#[derive(Debug, Clone)]
pub struct Canonicalizer {
    group: Group,
    anchor: Vec<f32>,
    matching: Matching,
    seed: Seed,
    /// Where units go by activations: who runs networks, and what the anchor's units do.
    observed: Option<(Arc<dyn Observer>, Activations)>,
    /// Whether batch norms end with the statistics of what they read.
    keeps_statistics: bool,
}

impl Canonicalizer {
    /// Makes a canonicalizer from a stored anchor, which is taken as it is.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if the anchor is no row of finite weights.
    pub fn new(group: Group, anchor: Vec<f32>, matching: Matching, seed: Seed) -> Result<Self> {
        check_row(&group, "anchor", &anchor)?;
        Ok(Self { group, anchor, matching, seed, observed: None, keeps_statistics: false })
    }

    /// Aligns by something else than weights from now on.
    ///
    /// # Errors
    /// [`Error::Observe`] if the anchor does not run on the data.
    pub fn aligned_by(mut self, by: AlignBy) -> Result<Self> {
        self.observed = match by {
            AlignBy::Weights => None,
            AlignBy::Activations(observer) => {
                let wanted = Activations::of(&self.group, observer.as_ref(), &self.anchor)?;
                Some((observer, wanted))
            }
        };
        Ok(self)
    }

    /// Leaves batch norms trainable from now on: alignment is as before, by folded statistics, but networks end with a mean and variance
    /// that are those of what each channel reads, and with the gain and bias that belong to them. To be used where networks are
    /// recalibrated on data after they were mixed or decoded; orbit copies that trade statistics for gains then stay apart.
    #[must_use]
    pub fn keeping_statistics(mut self) -> Self {
        self.keeps_statistics = true;
        self
    }

    /// The last steps of a canonical form.
    fn finish(&self, raw: &[f64], transform: &mut Transform, image: &mut [f64]) -> Result<()> {
        for step in kept(&self.group, raw, transform)? {
            self.group.take(&step, image)?;
            transform.steps.push(step);
        }
        Ok(())
    }

    fn move_anchor(&mut self, anchor: Vec<f32>) -> Result<()> {
        self.anchor = anchor;
        if let Some((observer, wanted)) = &mut self.observed {
            *wanted = Activations::of(&self.group, observer.as_ref(), &self.anchor)?;
        }
        Ok(())
    }

    /// The permutations and signs that align a network whose continuous symmetries are fixed, its squared distance then, and the
    /// number of units that nothing tells apart.
    fn align(&self, row: &[f32]) -> Result<(Element, f64, usize)> {
        let Some((observer, wanted)) = &self.observed else {
            let (element, squared) = match_to(&self.group, row, &self.anchor, &self.matching, self.seed)?;
            return Ok((element, squared, 0));
        };
        let seen = Activations::of(&self.group, observer.as_ref(), row)?;
        let Matched { element, silent } = match_activations(&self.group, (row, &seen), (&self.anchor, wanted))?;
        let mut image = vec![0.0; row.len()];
        self.group.apply_to(&element, row, &mut image)?;
        Ok((element, squared_distance(&self.anchor, &image), silent))
    }

    /// Takes one network, its continuous symmetries fixed, as the anchor.
    ///
    /// # Errors
    /// As [`Canonicalizer::new`].
    pub fn fit_anchor(group: Group, row: &[f32], matching: Matching, seed: Seed) -> Result<Self> {
        let anchor = fixed(&group, "anchor", row)?.0;
        Self::new(group, anchor, matching, seed)
    }

    /// Takes as the anchor the mean of matched networks, estimated anew `iterations` times from the first one on.
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
    pub fn fit_mean(group: Group, rows: &[&[f32]], iterations: usize, by: AlignBy, seed: Seed) -> Result<(Self, Vec<f64>)> {
        let first = rows.first().ok_or(Error::Empty { what: "networks to fit the anchor to" })?;
        let mut fitted = Self::fit_anchor(group, first, Matching::default(), seed)?.aligned_by(by)?;
        let rows = fixed_rows(&fitted.group, rows)?;
        let mut history = Vec::with_capacity(iterations);
        let mut previous: Vec<Element> = Vec::new();
        for _ in 0..iterations {
            let matched: Vec<(Element, f64, usize)> = rows.par_iter().map(|row| fitted.align(row)).collect::<Result<_>>()?;
            history.push(matched.iter().map(|(_, d, _)| d.sqrt()).sum::<f64>() / matched.len() as f64);
            let elements: Vec<Element> = matched.into_iter().map(|(e, ..)| e).collect();
            if elements == previous {
                break;
            }
            fitted.move_anchor(mean_of(&fitted.group, &rows, &elements)?)?;
            previous = elements;
        }
        Ok((fitted, history))
    }

    /// What [`Canonicalizer::fit_mean`] gives by weights, bit for bit, with one of the `n` networks in memory at a time.
    ///
    /// `read` is asked for each network once at the start and once an iteration.
    ///
    /// # Errors
    /// As [`Canonicalizer::fit_mean`], or what `read` returns.
    pub fn fit_mean_of<E: From<Error>>(
        group: Group,
        (n, read): (usize, &mut ReadRow<'_, E>),
        iterations: usize,
        seed: Seed,
    ) -> Result<(Self, Vec<f64>), E> {
        if n == 0 {
            return Err(Error::Empty { what: "networks to fit the anchor to" }.into());
        }
        let mut fitted = Self::fit_anchor(group, &read(0)?, Matching::default(), seed)?;
        let (mut history, mut previous) = (Vec::with_capacity(iterations), Vec::new());
        for _ in 0..iterations {
            let (mut elements, mut distances) = (Vec::with_capacity(n), 0.0);
            let mut sum = vec![0.0_f64; fitted.anchor.len()];
            for i in 0..n {
                let row = fixed(&fitted.group, "row", &read(i)?)?.0;
                let (element, squared, _) = fitted.align(&row)?;
                add_image(&fitted.group, (&row, &element), &mut sum)?;
                distances += squared.sqrt();
                elements.push(element);
            }
            history.push(distances / n as f64);
            if elements == previous {
                break;
            }
            fitted.anchor.iter_mut().zip(&sum).for_each(|(w, s)| *w = (s / n as f64) as f32);
            previous = elements;
        }
        Ok((fitted, history))
    }

    /// Aligns networks with each other, with no network for an anchor, and takes the mean of all as the anchor of others.
    ///
    /// `Σ_{a≠b} ⟨g_a·w_a, g_b·w_b⟩` is maximized: each network in turn is matched to the sum of all others, which never lowers it.
    /// The alignment of two networks is `g_a⁻¹·g_b`, so that going round a cycle of networks ends where it began. Several
    /// `restarts` take the networks in other orders, and the best end counts. Returns the mean pairwise distance at the end of each.
    ///
    /// # Errors
    /// As [`Canonicalizer::fit_mean`].
    ///
    /// # References
    /// Crisostomi, Fumero, Baieri, Bernard & Rodolà 2024 for cycle consistency; Gower 1975.
    pub fn fit_consistent(group: Group, rows: &[&[f32]], restarts: usize, seed: Seed) -> Result<(Self, Vec<f64>)> {
        let first = rows.first().ok_or(Error::Empty { what: "networks to fit the anchor to" })?;
        let dim = first.len();
        let rows = fixed_rows(&group, rows)?;
        let (n, matching) = (rows.len(), Matching::default());
        let norms: f64 = rows.iter().flatten().map(|&w| f64::from(w).powi(2)).sum();
        let (mut best, mut history) = (None, Vec::with_capacity(restarts));
        let mut image = vec![0.0; dim];
        for restart in 0..restarts.max(1) {
            let seed = seed.fork("consistent").index(restart as u64);
            let order = seed.fork("order").permutation(n);
            // The first network stays; the others join the sum of those before them.
            let mut images: Vec<Vec<f32>> = vec![Vec::new(); n];
            let mut sum = vec![0.0_f64; dim];
            for round in 0..MAX_ROUNDS {
                let mut changed = false;
                for i in order.iter().map(|&i| i as usize) {
                    let own = images[i].iter().copied().chain(std::iter::repeat(0.0));
                    let others: Vec<f32> = sum.iter().zip(own).map(|(s, w)| (s - f64::from(w)) as f32).collect();
                    let row = &rows[i];
                    if others.iter().all(|w| *w == 0.0) {
                        image.copy_from_slice(row);
                    } else {
                        let (element, _) = match_to(&group, row, &others, &matching, seed)?;
                        group.apply_to(&element, row, &mut image)?;
                    }
                    if images[i] != image {
                        let better = |new: &[f32], old: &[f32]| dot(&others, new) > dot(&others, old) * (1.0 + 1e-9);
                        if round == 0 || better(&image, &images[i]) {
                            changed = true;
                            let old = std::mem::replace(&mut images[i], image.clone());
                            sum.iter_mut().zip(&image).for_each(|(s, &w)| *s += f64::from(w));
                            sum.iter_mut().zip(&old).for_each(|(s, &w)| *s -= f64::from(w));
                        }
                    }
                }
                if !changed {
                    break;
                }
            }
            let total = sum.iter().map(|s| s * s).sum::<f64>();
            // Σ over pairs of ‖a − b‖² is n·Σ‖a‖² − ‖Σ a‖².
            history.push((2.0 * (n as f64 * norms - total).max(0.0) / (n * n.saturating_sub(1)).max(1) as f64).sqrt());
            if best.as_ref().is_none_or(|(value, _)| total > *value) {
                best = Some((total, sum.iter().map(|s| (s / n as f64) as f32).collect::<Vec<f32>>()));
            }
        }
        let anchor = best.map_or_else(Vec::new, |(_, anchor)| anchor);
        Ok((Self::new(group, anchor, matching, seed)?, history))
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

    /// The anchor, without a copy.
    #[must_use]
    pub fn into_anchor(self) -> Vec<f32> {
        self.anchor
    }

    /// How hard the matching looks.
    #[must_use]
    pub fn matching(&self) -> Matching {
        self.matching
    }

    /// Brings one network into canonical form.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if it is no row of finite weights, [`Error::Variance`] for a batch norm that
    /// divides by what is not positive.
    pub fn canonicalize(&self, row: &[f32]) -> Result<Canonical> {
        let canonical = self.canonicalize_run(&[row])?;
        canonical.into_iter().next().ok_or(Error::Empty { what: "networks of a run" })
    }

    /// Brings one network into canonical form in `f64`.
    ///
    /// # Errors
    /// As [`Canonicalizer::canonicalize`].
    pub fn canonicalize_f64(&self, row: &[f64]) -> Result<(Vec<f64>, Transform, usize)> {
        check_len("row", row.len(), self.group.architecture().num_parameters())?;
        if let Some(index) = row.iter().position(|w| !w.is_finite()) {
            return Err(Error::NotFinite { index });
        }
        let mut image = row.to_vec();
        let Fixed { mut transform, ill_conditioned } = fix(&self.group, &mut image, Precision::F64)?;
        let narrow: Vec<f32> = image.iter().map(|&w| w as f32).collect();
        let (matched, _, silent) = self.align(&narrow)?;
        self.group.apply_f64(&matched, &mut image)?;
        transform.steps.push(Step::Units(matched));
        if self.keeps_statistics {
            self.finish(row, &mut transform, &mut image)?;
        }
        Ok((image, transform, ill_conditioned + silent))
    }

    /// Brings all snapshots of one training run, in order, into canonical form.
    ///
    /// The permutation and the signs found for the last snapshot serve them all, so that a run stays a path; continuous symmetries
    /// are each snapshot's own.
    ///
    /// # Errors
    /// [`Error::Empty`] without snapshots, else as [`Canonicalizer::canonicalize`].
    pub fn canonicalize_run(&self, rows: &[&[f32]]) -> Result<Vec<Canonical>> {
        let fixed = rows.iter().map(|row| fixed(&self.group, "row", row)).collect::<Result<Vec<_>>>()?;
        let Some((last, _)) = fixed.last() else {
            return Err(Error::Empty { what: "networks of a run" });
        };
        let (matched, _, silent) = self.align(last)?;
        let finish = |((mut row, Fixed { mut transform, ill_conditioned }), raw): ((Vec<f32>, Fixed), &&[f32])| {
            self.group.apply(&matched, &mut row)?;
            transform.steps.push(Step::Units(matched.clone()));
            if self.keeps_statistics {
                let [raw, mut wide] = [*raw, &row].map(|row| row.iter().map(|&w| f64::from(w)).collect::<Vec<f64>>());
                self.finish(&raw, &mut transform, &mut wide)?;
                row.iter_mut().zip(wide).for_each(|(narrow, wide)| *narrow = wide as f32);
            }
            Ok(Canonical { row, canonical_from_raw: transform, ill_conditioned: ill_conditioned + silent })
        };
        fixed.into_iter().zip(rows).map(finish).collect()
    }

    /// Brings a whole population into canonical form, in parallel, run by run.
    ///
    /// `runs[i]` identifies the run of network `i`; the last network of a run, in the population's order, is its final one.
    ///
    /// # Errors
    /// [`Error::Length`] or [`Error::NotFinite`] if the population or `runs` does not fit.
    pub fn canonicalize_population(&self, population: &Population, runs: &[u32]) -> Result<CanonicalPopulation> {
        check_len("run of each network", runs.len(), population.len())?;
        check_len("row", population.dim(), self.group.architecture().num_parameters())?;
        if population.len() == 1 {
            // One network may be as large as the memory allows: its row is the population's.
            let Canonical { row, canonical_from_raw, ill_conditioned } = self.canonicalize(population.row(0))?;
            let wrong = Error::Length { what: "canonical row", expected: population.dim(), got: row.len() };
            let networks = Population::new(population.architecture().clone(), row).map_err(|_| wrong)?;
            return Ok(CanonicalPopulation {
                networks,
                transforms: vec![canonical_from_raw],
                ill_conditioned: vec![ill_conditioned],
            });
        }
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|&i| runs[i]); // stable: a run's snapshots stay in order
        let members: Vec<&[usize]> = order.chunk_by(|&i, &j| runs[i] == runs[j]).collect();
        let mut canonical = CanonicalPopulation {
            networks: population.clone(),
            transforms: vec![Transform::default(); runs.len()],
            ill_conditioned: vec![0; runs.len()],
        };
        let dim = population.dim();
        for batch in members.chunks(1024) {
            let done: Vec<Vec<Canonical>> = batch
                .par_iter()
                .map(|run| self.canonicalize_run(&run.iter().map(|&i| population.row(i)).collect::<Vec<_>>()))
                .collect::<Result<_>>()?;
            for (&i, one) in batch.iter().copied().flatten().zip(done.into_iter().flatten()) {
                canonical.networks.data_mut()[i * dim..(i + 1) * dim].copy_from_slice(&one.row);
                canonical.transforms[i] = one.canonical_from_raw;
                canonical.ill_conditioned[i] = one.ill_conditioned;
            }
        }
        Ok(canonical)
    }
}

/// Rounds of aligning every network with the others, at most.
const MAX_ROUNDS: usize = 50;

/// A row with its continuous symmetries fixed, rounded once.
fn fixed(group: &Group, what: &'static str, row: &[f32]) -> Result<(Vec<f32>, Fixed)> {
    check_row(group, what, row)?;
    let mut wide: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    let fixed = fix(group, &mut wide, Precision::F32)?;
    Ok((wide.into_iter().map(|w| w as f32).collect(), fixed))
}

fn fixed_rows(group: &Group, rows: &[&[f32]]) -> Result<Vec<Vec<f32>>> {
    rows.par_iter().map(|row| Ok(fixed(group, "row", row)?.0)).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
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
    let mut sum = vec![0.0_f64; group.architecture().num_parameters()];
    for (row, element) in rows.iter().zip(elements) {
        add_image(group, (row, element), &mut sum)?;
    }
    Ok(sum.iter().map(|s| (s / rows.len() as f64) as f32).collect())
}

/// Adds a row's image to a sum.
fn add_image(group: &Group, (row, element): (&[f32], &Element), sum: &mut [f64]) -> Result<()> {
    let mut image = vec![0.0; row.len()];
    group.apply_to(element, row, &mut image)?;
    sum.iter_mut().zip(&image).for_each(|(s, &x)| *s += f64::from(x));
    Ok(())
}
