//! Networks as points of the quotient: what `weft_canon::distance` gives, with this crate's projection before it.

use crate::project::Projection;
use crate::{Error, Result};
use std::sync::Arc;
use weft_canon::Group;
use weft_canon::distance::{Exclude, Prepared, Quotient, QuotientOptions};
use weft_core::{Architecture, Population, Seed};

/// The nearest network that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Nearest {
    pub(crate) index: usize,
    pub(crate) distance: f64,
}

impl Nearest {
    /// What is found among no networks.
    pub(crate) const NONE: Self = Self { index: usize::MAX, distance: f64::INFINITY };
}

/// The metrics on orbits: the plain one and the data-weighted one.
#[derive(Debug)]
pub(crate) struct WeightSpace {
    group: Group,
    plain: Quotient,
    /// None where something else than linear maps reads the inputs.
    weighted: Option<Quotient>,
}

/// Pairs whose data-weighted distance is taken at a time.
const PAIRS: usize = 256;

impl WeightSpace {
    /// Sets up the metrics; `root` is that of the inputs' second moment, if the data-weighted one is defined.
    pub(crate) fn new(
        architecture: Arc<Architecture>,
        projection: &Projection<'_>,
        root: Option<Vec<f32>>,
        seed: Seed,
    ) -> Result<Self> {
        let group = Group::derive(architecture);
        // The projection centers outputs, and only where that is a symmetry.
        let options =
            QuotientOptions { center_outputs: false, dead_inputs: projection.dead_inputs(), seed, ..QuotientOptions::default() };
        let plain = Quotient::new(&group, options.clone())?;
        let weighted = root.map(|root| Quotient::new(&group, QuotientOptions { input_root: Some(root), ..options })).transpose()?;
        Ok(Self { group, plain, weighted })
    }

    /// Whether distances are exact, not upper bounds.
    pub(crate) fn is_exact(&self) -> bool {
        self.plain.is_exact()
    }

    /// Prepares networks; those with the same entry of `groups` are expected to lie close to each other.
    pub(crate) fn prepare(&self, projection: &Projection<'_>, networks: &Population, groups: Option<&[u32]>) -> Result<Prepared> {
        let mut projected = networks.clone();
        projection.project(&mut projected)?;
        let prepared = self.plain.prepare(projected.data(), None)?;
        Ok(match groups {
            Some(groups) => prepared.with_groups(groups)?,
            None => prepared,
        })
    }

    /// For each query the nearest reference that is not excluded.
    pub(crate) fn nearest(&self, queries: &Prepared, references: &Prepared, excluded: Exclude<'_>) -> Vec<Nearest> {
        let found = self.plain.nearest(queries, references, Some(excluded));
        found.into_iter().map(|(index, distance)| Nearest { index, distance }).collect()
    }

    /// The data-weighted distance of each network to its partner, the entry of `partners` in `others`; nothing where it is not
    /// defined.
    pub(crate) fn weighted_distances(
        &self,
        projection: &Projection<'_>,
        networks: &Population,
        (others, partners): (&Population, &[usize]),
    ) -> Result<Vec<f64>> {
        let Some(weighted) = &self.weighted else { return Ok(Vec::new()) };
        let mut found = Vec::with_capacity(partners.len());
        let all: Vec<usize> = (0..networks.len()).collect();
        for (indices, partners) in all.chunks(PAIRS).zip(partners.chunks(PAIRS)) {
            let mut both = networks.select(indices);
            both.extend(&others.select(partners))?;
            projection.project(&mut both)?;
            let pairs: Vec<(usize, usize)> = (0..indices.len()).map(|i| (i, i + indices.len())).collect();
            found.extend(weighted.pairwise(&weighted.prepare(both.data(), None)?, &pairs));
        }
        Ok(found)
    }

    /// The distances of pairs of networks.
    pub(crate) fn distances(&self, networks: &Prepared, pairs: &[(usize, usize)]) -> Vec<f64> {
        self.plain.pairwise(networks, pairs)
    }

    /// Moves each network to a random place on its orbit.
    pub(crate) fn scramble(&self, networks: &mut Population, seed: Seed) -> Result<()> {
        let d = networks.dim();
        let mut rows = networks.data_mut().chunks_exact_mut(d).enumerate();
        rows.try_for_each(|(i, row)| self.group.apply(&self.group.random(seed.index(i as u64)), row)).map_err(Error::from)
    }
}
