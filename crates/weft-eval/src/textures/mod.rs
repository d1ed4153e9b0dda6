//! What sampled texture automata are worth: whether what they grow is a texture, whose, and how far from it.
//!
//! An automaton has no accuracy. It is grown instead, and its texture compared with those of training automata by the statistics of
//! [`Statistics`]. Two yardsticks bound that distance from below and above: two runs of one automaton under different noise
//! ([`TextureUnits::same`]), and the textures of two training automata ([`TextureUnits::other`]). A texture is *flat* if nineteen in twenty
//! training textures have more contrast, *alive* if it is not flat and as near to some training texture as nineteen in twenty training
//! textures are to another automaton's, and it *could be a copy* if it is as near to one as nineteen in twenty second runs are to the first. Distances of weights are those
//! of every evaluation, in the quotient by symmetries.
//!
//! Shape legend: `n` networks, `D` weights.

mod statistics;

pub use statistics::Statistics;

use crate::figures::{Estimate, RowKind};
use crate::stats;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use weft_canon::Group;
use weft_canon::distance::{Prepared, Quotient, QuotientOptions};
use weft_core::{Monitor, Population, Seed};
use weft_net::{Growth, Texture};

/// Of textures that are held to be like training textures, the fraction of these that are.
const MOST: f64 = 0.95;
/// Pairs of training automata whose textures are compared, at most.
const MAX_PAIRS: usize = 20_000;
/// Training automata of which orbit copies are checked to measure 0.
const ORBIT_CHECKS: usize = 16;

/// The yardsticks of textures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TextureUnits {
    /// Median quotient distance of a held-out automaton to its nearest training automaton, in weights.
    pub d1: f64,
    /// Largest distance of random orbit copies of training automata to their nearest training automaton, over `d₁`.
    pub orbit_check: f64,
    /// Whether distances of weights are exact.
    pub exact: bool,
    /// Median distance of the textures that a training automaton grows under different noise.
    pub same: f64,
    /// Median distance of the textures of two training automata.
    pub other: f64,
    /// The largest distance to the nearest training texture at which a texture could be a copy: the 95th percentile of those behind `same`.
    pub copy: f64,
    /// The largest at which it is alive: the 95th percentile of training textures' to the nearest of another automaton.
    pub like: f64,
    /// The contrast below which it is flat: the 5th percentile of training textures'.
    pub flat: f64,
    /// Median contrast of training textures: the root mean square over colors of their standard deviation over pixels.
    pub contrast: f64,
    /// Median change of a color of theirs in the last steps.
    pub change: f64,
    /// Training automata.
    pub num_train: usize,
    /// Held-out automata.
    pub num_held_out: usize,
    /// Height and width of a texture, in cells.
    pub side: usize,
    /// Steps that it is grown in.
    pub steps: usize,
}

/// All figures of one generator of automata.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TextureRow {
    /// The generator's name.
    pub name: String,
    /// What it is.
    pub kind: RowKind,
    /// Generator seeds.
    pub num_seeds: usize,
    /// Samples a seed.
    pub num_samples: usize,
    /// Median distance to the nearest training automaton in weights, over `d₁`.
    pub distance: Estimate,
    /// Median distance to the nearest training texture, over that of two training automata's ([`TextureUnits::other`]).
    pub texture: Estimate,
    /// The same over that of two runs of one automaton ([`TextureUnits::same`]).
    pub texture_runs: Estimate,
    /// Median distance of two samples' textures, over that of two training automata's.
    pub pairwise: Estimate,
    /// Median contrast, over training textures'.
    pub contrast: Estimate,
    /// Median change of a color in the last steps, over training textures'.
    pub change: Estimate,
    /// Fraction flat.
    pub flat: Estimate,
    /// Fraction alive.
    pub alive: Estimate,
    /// Fraction alive that cannot be a copy.
    pub new: Estimate,
}

/// An evaluation of automata by their textures.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TextureEvaluation {
    /// The yardsticks.
    pub units: TextureUnits,
    /// Held-out and training automata first, then a row a generator.
    pub rows: Vec<TextureRow>,
}

/// What was measured of each automaton of one set, in raw units.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextureMeasurements {
    /// What each grows.
    pub textures: Vec<Texture>,
    /// Quotient distance to the nearest training automaton, and its index.
    pub distance: Vec<(usize, f64)>,
    /// Distance to the nearest training texture, and its index.
    pub texture: Vec<(usize, f64)>,
    /// Distances of two textures of the set.
    pub pairwise: Vec<f64>,
    /// Contrast of each texture.
    pub contrast: Vec<f64>,
}

/// A zoo of automata, ready to measure generators.
#[derive(Debug)]
pub struct TextureContext {
    growth: Growth,
    seed: Seed,
    quotient: Quotient,
    train: Population,
    prepared: Prepared,
    statistics: Statistics,
    /// Of training textures.
    described: Vec<Vec<f32>>,
    training: TextureMeasurements,
    held_out: TextureMeasurements,
    units: TextureUnits,
}

/// Pairs that are not to be compared.
type Excluded<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

impl TextureContext {
    /// Grows the zoo's textures and measures the yardsticks.
    ///
    /// # Errors
    /// Fewer than two training or held-out automata, other networks than automata, two architectures, automata that differ in nothing, or a
    /// stop.
    pub fn new((train, held_out): (&Population, &Population), growth: Growth, seed: Seed, monitor: &Monitor<'_>) -> Result<Self> {
        for (what, got) in [("training automata", train.len()), ("held-out automata", held_out.len())] {
            if got < 2 {
                return Err(Error::TooFew { what, got, least: 2 });
            }
        }
        let group = Group::derive(train.architecture().clone());
        let options = QuotientOptions { center_outputs: false, seed: seed.fork("matching"), ..QuotientOptions::default() };
        let quotient = Quotient::new(&group, options)?;
        let prepared = quotient.prepare(train.data(), None)?;
        let textures = grow(("training automata", train), growth, seed.fork("training"), monitor)?;
        let statistics = Statistics::fit(&textures);
        let described = statistics.of_all(&textures);
        let again = statistics.of_all(&grow(("training automata, again", train), growth, seed.fork("again"), monitor)?);
        let mut context = Self {
            growth,
            seed,
            quotient,
            train: train.clone(),
            prepared,
            statistics,
            described,
            training: TextureMeasurements::default(),
            held_out: TextureMeasurements::default(),
            units: TextureUnits::default(),
        };
        context.training = context.compare(train, textures, &|a, b| a == b)?;
        let textures = grow(("held-out automata", held_out), growth, seed.fork("held-out"), monitor)?;
        context.held_out = context.compare(held_out, textures, &|_, _| false)?;
        context.set_units(&again)?;
        Ok(context)
    }

    /// The yardsticks.
    #[must_use]
    pub fn units(&self) -> &TextureUnits {
        &self.units
    }

    /// Training automata, each compared with the others.
    #[must_use]
    pub fn training(&self) -> &TextureMeasurements {
        &self.training
    }

    /// Held-out automata.
    #[must_use]
    pub fn held_out(&self) -> &TextureMeasurements {
        &self.held_out
    }

    /// Grows and measures the `set`-th set of a generator's samples.
    ///
    /// # Errors
    /// Another architecture, fewer than two samples, a weight that is not finite, or a stop.
    pub fn measure(&self, name: &str, (set, samples): (usize, &Population), monitor: &Monitor<'_>) -> Result<TextureMeasurements> {
        if !samples.architecture().same_graph(self.train.architecture()) {
            return Err(Error::Architecture { row: name.to_owned() });
        }
        if samples.len() < 2 {
            return Err(Error::TooFew { what: "samples a seed", got: samples.len(), least: 2 });
        }
        let seed = self.seed.fork("samples").fork(name).index(set as u64);
        let textures = grow((name, samples), self.growth, seed, monitor)?;
        self.compare(samples, textures, &|_, _| false)
    }

    /// The row of measured sets, one a generator seed and all of one size.
    #[must_use]
    pub fn row(&self, name: &str, kind: RowKind, sets: &[TextureMeasurements]) -> TextureRow {
        let units = &self.units;
        let median = |unit: f64, of: &dyn Fn(&TextureMeasurements) -> Vec<f64>| {
            let lists: Vec<Vec<f64>> = sets.iter().map(of).collect();
            stats::over(stats::median_estimate(&lists.iter().map(Vec::as_slice).collect::<Vec<_>>()), unit)
        };
        let size = sets.first().map_or(0, |set| set.textures.len());
        let fraction = |holds: &dyn Fn(&TextureMeasurements, usize) -> bool| {
            let hits: Vec<usize> = sets.iter().map(|set| (0..set.textures.len()).filter(|&i| holds(set, i)).count()).collect();
            stats::fraction_estimate(&hits, size)
        };
        let second = |pairs: &[(usize, f64)]| pairs.iter().map(|pair| pair.1).collect::<Vec<f64>>();
        let flat = |set: &TextureMeasurements, i: usize| set.contrast[i] < units.flat;
        let alive = |set: &TextureMeasurements, i: usize| !flat(set, i) && set.texture[i].1 <= units.like;
        TextureRow {
            name: name.to_owned(),
            kind,
            num_seeds: sets.len(),
            num_samples: size,
            distance: median(units.d1, &|set| second(&set.distance)),
            texture: median(units.other, &|set| second(&set.texture)),
            texture_runs: median(units.same, &|set| second(&set.texture)),
            pairwise: median(units.other, &|set| set.pairwise.clone()),
            contrast: median(units.contrast, &|set| set.contrast.clone()),
            change: median(units.change, &|set| set.textures.iter().map(|texture| texture.change).collect()),
            flat: fraction(&flat),
            alive: fraction(&alive),
            new: fraction(&|set, i| alive(set, i) && set.texture[i].1 > units.copy),
        }
    }

    /// The whole evaluation: the zoo's own rows before the generators'.
    #[must_use]
    pub fn evaluate(&self, rows: Vec<TextureRow>) -> TextureEvaluation {
        let own = [("held-out automata", &self.held_out), ("training automata", &self.training)];
        let own = own.map(|(name, measured)| self.row(name, RowKind::Runs, std::slice::from_ref(measured)));
        TextureEvaluation { units: self.units.clone(), rows: own.into_iter().chain(rows).collect() }
    }

    fn compare(&self, networks: &Population, textures: Vec<Texture>, excluded: Excluded<'_>) -> Result<TextureMeasurements> {
        let prepared = self.quotient.prepare(networks.data(), None)?;
        let described = self.statistics.of_all(&textures);
        let nearest = |(i, description): (usize, &Vec<f32>)| {
            let others = self.described.iter().enumerate().filter(|(j, _)| !excluded(i, *j));
            let distances = others.map(|(j, other)| (j, statistics::distance(description, other)));
            distances.min_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((usize::MAX, f64::INFINITY))
        };
        Ok(TextureMeasurements {
            distance: self.quotient.nearest(&prepared, &self.prepared, Some(excluded)),
            texture: described.iter().enumerate().map(nearest).collect(),
            pairwise: pairwise(&described, self.seed.fork("pairs")),
            contrast: textures.iter().map(statistics::contrast).collect(),
            textures,
        })
    }

    fn set_units(&mut self, again: &[Vec<f32>]) -> Result<()> {
        let second = |pairs: &[(usize, f64)]| pairs.iter().map(|pair| pair.1).collect::<Vec<f64>>();
        let positive = |unit, value: f64| if value > 0.0 { Ok(value) } else { Err(Error::Unit { unit, value }) };
        let d1 = positive("d1", stats::median(&second(&self.held_out.distance)))?;
        let same: Vec<f64> = self.described.iter().zip(again).map(|(a, b)| statistics::distance(a, b)).collect();
        let changes: Vec<f64> = self.training.textures.iter().map(|texture| texture.change).collect();
        self.units = TextureUnits {
            d1,
            orbit_check: self.orbit_check()? / d1,
            exact: self.quotient.is_exact(),
            same: positive("distance of two runs", stats::median(&same))?,
            other: positive("distance of two textures", stats::median(&self.training.pairwise))?,
            copy: stats::quantile(&same, MOST),
            like: stats::quantile(&second(&self.training.texture), MOST),
            flat: stats::quantile(&self.training.contrast, 1.0 - MOST),
            contrast: positive("contrast", stats::median(&self.training.contrast))?,
            change: positive("change", stats::median(&changes))?,
            num_train: self.training.textures.len(),
            num_held_out: self.held_out.textures.len(),
            side: self.growth.side,
            steps: self.growth.steps,
        };
        Ok(())
    }

    /// The largest distance of random orbit copies of training automata to their nearest: it must be about 0.
    fn orbit_check(&self) -> Result<f64> {
        let seed = self.seed.fork("orbit");
        let picked = seed.fork("networks").subset(ORBIT_CHECKS, self.train.len());
        let mut copies = self.train.select(&picked.iter().map(|&i| i as usize).collect::<Vec<_>>());
        let (dim, group) = (copies.dim(), self.quotient.group());
        let mut rows = copies.data_mut().chunks_exact_mut(dim).zip(0..);
        rows.try_for_each(|(row, i)| group.apply(&group.random(seed.index(i)), row))?;
        let prepared = self.quotient.prepare(copies.data(), None)?;
        let found = self.quotient.nearest(&prepared, &self.prepared, None);
        Ok(found.into_iter().map(|(_, distance)| distance).fold(0.0, f64::max))
    }
}

fn grow((name, networks): (&str, &Population), growth: Growth, seed: Seed, monitor: &Monitor<'_>) -> Result<Vec<Texture>> {
    let seeds: Vec<Seed> = (0..networks.len() as u64).map(|i| seed.index(i)).collect();
    monitor.start(&format!("grow textures of {name}"), networks.len() as u64, "textures");
    let textures = weft_net::grow(networks, growth, &seeds, monitor).map_err(|error| match error {
        weft_net::Error::Interrupted => Error::Stopped,
        error => Error::Net(error),
    })?;
    monitor.finish();
    Ok(textures)
}

/// Distances of all pairs, or of as many drawn ones as are allowed.
fn pairwise(described: &[Vec<f32>], seed: Seed) -> Vec<f64> {
    let n = described.len();
    let all = n * n.saturating_sub(1) / 2;
    let pairs: Vec<(usize, usize)> = if all <= MAX_PAIRS {
        (0..n).flat_map(|a| (a + 1..n).map(move |b| (a, b))).collect()
    } else {
        let ends = seed.indices(2 * MAX_PAIRS, n);
        ends.chunks_exact(2).map(|pair| (pair[0] as usize, pair[1] as usize)).filter(|(a, b)| a != b).collect()
    };
    pairs.into_iter().map(|(a, b)| statistics::distance(&described[a], &described[b])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weft_core::families::{Automaton, Family};

    const GROWTH: Growth = Growth { side: 12, steps: 24 };

    /// Automata that grow something, and each its own.
    fn automata(n: usize, seed: u64) -> Population {
        let family = Family::Automaton(Automaton { channels: 4, width: 8, image: [8, 8] });
        let architecture = Arc::new(family.build("a").unwrap());
        let weights = Seed::new(seed).normals(n * architecture.num_parameters()).iter().map(|w| w * 0.4).collect();
        Population::new(architecture, weights).unwrap()
    }

    #[test]
    fn copies_are_near_and_dead_automata_are_flat() {
        let (train, held_out) = (automata(12, 1), automata(4, 2));
        let context = TextureContext::new((&train, &held_out), GROWTH, Seed::new(3), &Monitor::silent()).unwrap();
        let units = context.units();
        assert!(units.same < units.other && units.copy >= units.same && units.exact && units.orbit_check < 1e-3, "{units:?}");
        let row = |name: &str, networks: &Population| {
            let measured = context.measure(name, (0, networks), &Monitor::silent()).unwrap();
            context.row(name, RowKind::Baseline, &[measured])
        };
        let copies = row("copies", &train);
        assert!(copies.distance.mean < 1e-3 && copies.texture.mean < 1.0, "{copies:?}");
        assert!(copies.new.mean < 0.5 && copies.alive.mean > 0.5, "{copies:?}");
        let dead = row("dead", &Population::zeros(train.architecture().clone(), 5));
        assert!(
            dead.flat.mean > 0.99 && dead.alive.mean < 1e-9 && dead.contrast.mean < 1e-9 && dead.change.mean < 1e-9,
            "{dead:?}"
        );
        assert!(dead.pairwise.mean < 1e-9 && dead.distance.mean > 0.0);
        let evaluation = context.evaluate(vec![dead]);
        let names: Vec<_> = evaluation.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["held-out automata", "training automata", "dead"]);
        assert!((evaluation.rows[0].distance.mean - 1.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        let (train, few) = (automata(3, 1), automata(1, 2));
        let refused = TextureContext::new((&train, &few), GROWTH, Seed::new(3), &Monitor::silent()).unwrap_err();
        assert!(matches!(refused, Error::TooFew { what: "held-out automata", got: 1, least: 2 }));
        let mlp = Arc::new(weft_core::Architecture::mlp("m", &[2, 2], weft_core::Activation::Relu).unwrap());
        let networks = Population::zeros(mlp, 2);
        let refused = TextureContext::new((&networks, &networks), GROWTH, Seed::new(3), &Monitor::silent()).unwrap_err();
        assert!(matches!(refused, Error::Net(_)), "{refused}");
        let stop = std::sync::atomic::AtomicBool::new(true);
        let monitor = Monitor::new(&|_| {}, &stop);
        let stopped = TextureContext::new((&train, &automata(3, 2)), GROWTH, Seed::new(3), &monitor).unwrap_err();
        assert!(matches!(stopped, Error::Stopped));
    }
}
