//! Figures about a zoo.

use super::Filter;
use super::Zoo;
use crate::Result;
use crate::query::ACCURACY;
use weft_core::{Record, Split};

/// Counts and accuracies of a zoo.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Checkpoints, the quarantined ones aside.
    pub checkpoints: usize,
    /// Quarantined checkpoints.
    pub quarantined: usize,
    /// Runs.
    pub runs: usize,
    /// Final checkpoints: complete runs.
    pub finals: usize,
    /// Checkpoints that a generator made.
    pub synthetic: usize,
    /// Different recipes.
    pub recipes: usize,
    /// Shards.
    pub shards: usize,
    /// Bytes of weights.
    pub num_bytes: u64,
    /// The training split and the test split.
    pub splits: [SplitStats; 2],
}

/// The part of a zoo in one split.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitStats {
    /// The split.
    pub split: Split,
    /// Its checkpoints.
    pub checkpoints: usize,
    /// Its runs.
    pub runs: usize,
    /// Its final checkpoints.
    pub finals: usize,
    /// `validation-accuracy` of its final checkpoints, where it is known.
    pub accuracy: Option<Quantiles>,
}

/// The distribution of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantiles {
    /// The number of values.
    pub count: usize,
    /// The smallest.
    pub min: f64,
    /// The first quartile.
    pub lower: f64,
    /// The median.
    pub median: f64,
    /// The third quartile.
    pub upper: f64,
    /// The largest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
    /// The standard deviation, with `n − 1`; 0 for one value.
    pub std: f64,
}

impl Quantiles {
    /// Computes quantiles by linear interpolation between order statistics; `None` for no values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let count = sorted.len();
        let at = |q: f64| {
            let place = q * (count - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|v| (v - mean).powi(2)).sum();
        let std = (squares / (count - 1).max(1) as f64).sqrt();
        Some(Self { count, min, lower: at(0.25), median: at(0.5), upper: at(0.75), max, mean, std })
    }
}

impl Zoo {
    /// Counts the zoo's checkpoints and describes the accuracies of its final ones.
    ///
    /// # Errors
    /// [`crate::Error::Catalogue`] or [`crate::Error::Row`].
    pub fn stats(&self) -> Result<Stats> {
        let number = |sql: &str| -> Result<usize> {
            let count: i64 = self.catalogue.db().query_row(sql, [], |row| row.get(0)).map_err(self.catalogue.fail())?;
            Ok(count.max(0) as usize)
        };
        let runs = self.run_states()?;
        let split = |split| -> Result<SplitStats> {
            let filter = Filter { split: Some(split), ..Filter::default() };
            let finals = self.records(&Filter { final_only: true, ..filter.clone() })?;
            let accuracy = |record: &Record| record.metrics.get(ACCURACY).copied();
            let accuracies: Vec<f64> = finals.iter().filter_map(|entry| accuracy(entry.record())).collect();
            Ok(SplitStats {
                split,
                checkpoints: self.count(&filter)?,
                runs: runs.values().filter(|run| run.split == split).count(),
                finals: finals.len(),
                accuracy: Quantiles::of(&accuracies),
            })
        };
        let splits = [split(Split::Train)?, split(Split::Test)?];
        let checkpoints = self.count(&Filter::default())?;
        Ok(Stats {
            checkpoints,
            quarantined: number("SELECT count(*) FROM checkpoints WHERE quarantine IS NOT NULL")?,
            runs: runs.len(),
            finals: splits.iter().map(|s| s.finals).sum(),
            synthetic: number("SELECT count(*) FROM checkpoints WHERE synthetic AND quarantine IS NULL")?,
            recipes: number("SELECT count(*) FROM recipes")?,
            shards: number("SELECT count(*) FROM shards")?,
            num_bytes: 4 * checkpoints as u64 * self.architecture.num_parameters() as u64,
            splits,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_golden() {
        let q = Quantiles::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!((q.count, q.min, q.lower, q.median, q.upper, q.max, q.mean), (4, 1.0, 1.75, 2.5, 3.25, 4.0, 2.5));
        assert!((q.std - 1.290_994_448_735_805_6).abs() < 1e-12);
        assert!(Quantiles::of(&[0.5]).is_some_and(|one| one.std.abs() < 1e-12));
        assert_eq!(Quantiles::of(&[]), None);
    }
}
