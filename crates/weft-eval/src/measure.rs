//! Measures one set of networks against the training networks and against each other.

use crate::functional::{FunctionSpace, Functions};
use crate::mistakes::Mistakes;
use crate::options::Options;
use crate::project::Projection;
use crate::weights::{Nearest, WeightSpace};
use crate::{Error, Result};
use rayon::prelude::*;
use std::borrow::Cow;
use weft_canon::distance::Prepared;
use weft_core::{Dataset, Monitor, Part, Population, Seed};
use weft_net::Device;

/// Networks of one vote.
const VOTERS: usize = 16;
/// Votes that are taken at most.
const MAX_VOTES: usize = 64;
/// Predictions held at a time while networks whose predictions are not kept are run.
const MAX_PREDICTIONS: usize = 1 << 23;

/// Weights beyond this would overflow the inner products that distances are made of.
const MAX_WEIGHT: f32 = 1e9;

/// Pairs of queries and references that are not to be compared.
pub(crate) type Excluded<'a> = &'a (dyn Fn(usize, usize) -> bool + Sync);

/// What was measured of each network of one set, in raw units: divide by those of [`crate::Units`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Measurements {
    /// Test accuracy.
    pub accuracy: Vec<f64>,
    /// Quotient distance to the nearest training network.
    pub distance: Vec<f64>,
    /// The index of that network.
    pub nearest: Vec<usize>,
    /// Functional distance to the functionally nearest training network.
    pub functional: Vec<f64>,
    /// The index of that network.
    pub functional_nearest: Vec<usize>,
    /// Data-weighted distance to the same training network as `distance`, matched anew. Empty for networks whose inputs are not
    /// read by linear maps alone: it is not defined for them.
    pub distance_weighted: Vec<f64>,
    /// Quotient distance to the nearest fellow.
    pub fellow_distance: Vec<f64>,
    /// Functional distance to the functionally nearest fellow.
    pub fellow_functional: Vec<f64>,
    /// Largest intersection over union of misclassified test images with a training network.
    pub max_iou: Vec<f64>,
    /// Whether the network can be measured: its weights are finite and at most 10⁹ in size, and so are its logits finite.
    /// Where not, accuracy and distances are given as 0.
    pub valid: Vec<bool>,
    /// Quotient distances of a subsample of pairs.
    pub pairwise: Vec<f64>,
    /// Functional distances of the same pairs.
    pub pairwise_functional: Vec<f64>,
    /// Fractions of test images on which the same pairs disagree.
    pub disagreement: Vec<f64>,
    /// Accuracy of each vote of 16 less the mean accuracy of its voters; empty for fewer than 16 networks.
    pub vote_gain: Vec<f64>,
}

impl Measurements {
    /// The number of networks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accuracy.len()
    }

    /// Whether there is no network.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accuracy.is_empty()
    }

    fn invalidate(&mut self, valid: Vec<bool>) {
        let columns = [
            &mut self.accuracy,
            &mut self.distance,
            &mut self.functional,
            &mut self.distance_weighted,
            &mut self.fellow_distance,
            &mut self.fellow_functional,
        ];
        for column in columns {
            column.iter_mut().zip(&valid).filter(|&(_, &v)| !v).for_each(|(value, _)| *value = 0.0);
        }
        self.valid = valid;
    }
}

/// The instruments that every set is measured with.
#[derive(Debug)]
pub(crate) struct Instruments<'a> {
    pub(crate) dataset: &'a Dataset,
    pub(crate) device: &'a Device,
    pub(crate) projection: Projection<'a>,
    pub(crate) weights: WeightSpace,
    pub(crate) functions: FunctionSpace,
}

/// What is known of the training networks, as references.
#[derive(Debug)]
pub(crate) struct References {
    pub(crate) weights: Prepared,
    pub(crate) functions: Functions,
    pub(crate) mistakes: Mistakes,
    pub(crate) accuracy: Vec<f64>,
}

impl Instruments<'_> {
    /// Takes the mistakes of networks on test images, in chunks, and their accuracies.
    pub(crate) fn mistakes(&self, networks: &Population, monitor: &Monitor<'_>) -> Result<(Mistakes, Vec<f64>)> {
        let labels = self.dataset.labels(Part::Test);
        let chunk = (MAX_PREDICTIONS / labels.len()).max(1);
        let mut mistakes = Mistakes::new(&[], labels);
        for start in (0..networks.len()).step_by(chunk) {
            stop_if_asked(monitor)?;
            let indices: Vec<usize> = (start..networks.len().min(start + chunk)).collect();
            mistakes.extend(&weft_net::predictions(&networks.select(&indices), self.dataset, Part::Test, self.device)?, labels);
        }
        let accuracy = accuracies(&mistakes, networks.len(), labels.len());
        Ok((mistakes, accuracy))
    }

    /// Measures a set of at least two networks.
    pub(crate) fn measure(
        &self,
        train: &References,
        set: &Set<'_>,
        options: &Options,
        monitor: &Monitor<'_>,
    ) -> Result<Measurements> {
        let n = set.networks.len();
        let (networks, functions, valid) = self.repair(set.networks)?;
        let networks = networks.as_ref();
        let weights = self.weights.prepare(&self.projection, networks, None)?;
        let labels = self.dataset.labels(Part::Test);
        let predictions = weft_net::predictions(networks, self.dataset, Part::Test, self.device)?;
        let mistakes = Mistakes::new(&predictions, labels);
        stop_if_asked(monitor)?;
        let nearest = self.weights.nearest(&weights, &train.weights, set.excluded);
        stop_if_asked(monitor)?;
        let partners: Vec<usize> = nearest.iter().map(|f| f.index).collect();
        let distance_weighted = self.weights.weighted_distances(&self.projection, networks, (set.train, &partners))?;
        stop_if_asked(monitor)?;
        let functional = functions.nearest(&train.functions, set.excluded);
        let (fellow_distance, fellow_functional) = self.fellows(&weights, &functions, set.num_fellows, set.seed);
        stop_if_asked(monitor)?;
        let pairs = pairs(n, options.max_pairs, set.seed.fork("pairs"));
        let live = |&(i, j): &(usize, usize)| valid[i] && valid[j];
        let pairwise = self.weights.distances(&weights, &pairs);
        let b = labels.len();
        let differ = |(i, j): (usize, usize)| {
            let (a, c) = (&predictions[i * b..(i + 1) * b], &predictions[j * b..(j + 1) * b]);
            a.iter().zip(c).filter(|(p, q)| p != q).count() as f64 / b as f64
        };
        let or_zero = |pair: &(usize, usize), value: f64| if live(pair) { value } else { 0.0 };
        let accuracy = accuracies(&mistakes, n, b);
        let mut measurements = Measurements {
            vote_gain: vote_gains(&predictions, labels, &accuracy, set.seed.fork("votes")),
            accuracy,
            distance: distances(&nearest),
            nearest: partners,
            functional: distances(&functional),
            functional_nearest: functional.iter().map(|f| f.index).collect(),
            distance_weighted,
            fellow_distance,
            fellow_functional,
            max_iou: mistakes.max_iou(&train.mistakes, set.excluded),
            valid: vec![],
            pairwise: pairs.iter().zip(pairwise).map(|(p, d)| or_zero(p, d)).collect(),
            pairwise_functional: pairs.par_iter().map(|p| or_zero(p, functions.distance(p.0, &functions, p.1))).collect(),
            disagreement: pairs.par_iter().map(|p| or_zero(p, differ(*p))).collect(),
        };
        measurements.invalidate(valid);
        Ok(measurements)
    }

    /// Finds the networks that can be measured, and puts zeros in place of the others.
    ///
    /// A network with finite weights may still overflow when it is run: that shows in its function.
    fn repair<'n>(&self, networks: &'n Population) -> Result<(Cow<'n, Population>, Functions, Vec<bool>)> {
        let sane = |w: &f32| w.abs() <= MAX_WEIGHT; // false for NaN
        let mut valid: Vec<bool> = networks.rows().map(|row| row.iter().all(sane)).collect();
        let mut repaired = without_invalid(networks, &valid);
        let mut functions = self.functions.prepare(&repaired)?;
        if (0..valid.len()).any(|i| !functions.is_finite(i)) {
            (0..valid.len()).for_each(|i| valid[i] &= functions.is_finite(i));
            repaired = without_invalid(networks, &valid);
            functions = self.functions.prepare(&repaired)?;
        }
        Ok((repaired, functions, valid))
    }

    /// Distances to the nearest fellow in weights and in function.
    fn fellows(&self, weights: &Prepared, functions: &Functions, num_fellows: usize, seed: Seed) -> (Vec<f64>, Vec<f64>) {
        let groups = fellow_groups(functions.len(), num_fellows, seed.fork("fellows"));
        let stranger = |i: usize, j: usize| i == j || !groups.are_fellows(i, j);
        let in_weights = self.weights.nearest(weights, weights, &stranger);
        (distances(&in_weights), distances(&functions.nearest(functions, &stranger)))
    }
}

/// A set of networks to be measured.
pub(crate) struct Set<'a> {
    pub(crate) networks: &'a Population,
    /// The training networks.
    pub(crate) train: &'a Population,
    /// Training networks that a network is not compared with.
    pub(crate) excluded: Excluded<'a>,
    /// Networks, itself included, among which a network's nearest fellow is sought.
    pub(crate) num_fellows: usize,
    pub(crate) seed: Seed,
}

/// Random groups of networks: each network belongs to one, and the last group also looks at members of the first.
#[derive(Debug)]
struct FellowGroups {
    size: usize,
    /// Each network's place in a random order that is cut into groups.
    place: Vec<usize>,
}

impl FellowGroups {
    /// Whether network `j` is among those that network `i` is compared with.
    fn are_fellows(&self, i: usize, j: usize) -> bool {
        let (n, start) = (self.place.len(), self.place[i] / self.size * self.size);
        // Places after the last one are those at the start again.
        (self.place[j] + n - start) % n < self.size
    }
}

/// Divides `n` networks at random into groups of `size`.
fn fellow_groups(n: usize, size: usize, seed: Seed) -> FellowGroups {
    let mut place = vec![0; n];
    seed.permutation(n).into_iter().enumerate().for_each(|(p, i)| place[i as usize] = p);
    FellowGroups { size: size.clamp(2, n.max(2)), place }
}

/// All pairs of `n` networks, or `most` random ones.
fn pairs(n: usize, most: usize, seed: Seed) -> Vec<(usize, usize)> {
    if n * n.saturating_sub(1) / 2 <= most {
        return (0..n).flat_map(|i| (i + 1..n).map(move |j| (i, j))).collect();
    }
    let first = seed.fork("first").indices(most, n);
    let step = seed.fork("step").indices(most, n - 1);
    first.iter().zip(&step).map(|(&i, &s)| (i as usize, (i as usize + 1 + s as usize) % n)).collect()
}

/// Accuracy of each vote of 16 less the mean of its voters; a tied vote counts by the share of the true class.
fn vote_gains(predictions: &[u32], labels: &[u32], accuracy: &[f64], seed: Seed) -> Vec<f64> {
    let b = labels.len();
    let order: Vec<usize> = seed.permutation(accuracy.len()).into_iter().map(|i| i as usize).collect();
    let gain = |voters: &[usize]| {
        let credit = |example: usize| {
            let votes: Vec<u32> = voters.iter().map(|&i| predictions[i * b + example]).collect();
            let count = |class: u32| votes.iter().filter(|&&v| v == class).count();
            let most = votes.iter().map(|&v| count(v)).max().unwrap_or(0);
            // Each tied class appears `most` times among the votes.
            let tied = votes.iter().filter(|&&v| count(v) == most).count() / most.max(1);
            if count(labels[example]) == most { 1.0 / tied.max(1) as f64 } else { 0.0 }
        };
        let vote = (0..b).map(credit).sum::<f64>() / b as f64;
        vote - voters.iter().map(|&i| accuracy[i]).sum::<f64>() / voters.len() as f64
    };
    let groups: Vec<&[usize]> = order.chunks_exact(VOTERS).take(MAX_VOTES).collect();
    groups.par_iter().map(|voters| gain(voters)).collect()
}

fn accuracies(mistakes: &Mistakes, n: usize, num_examples: usize) -> Vec<f64> {
    (0..n).map(|i| 1.0 - mistakes.count(i) as f64 / num_examples as f64).collect()
}

fn without_invalid<'n>(networks: &'n Population, valid: &[bool]) -> Cow<'n, Population> {
    let mut repaired = Cow::Borrowed(networks);
    let d = networks.dim();
    for (i, _) in valid.iter().enumerate().filter(|&(_, &v)| !v) {
        repaired.to_mut().data_mut()[i * d..(i + 1) * d].fill(0.0);
    }
    repaired
}

/// Turns the user's wish to stop into an error.
pub(crate) fn stop_if_asked(monitor: &Monitor<'_>) -> Result<()> {
    if monitor.should_stop() { Err(Error::Stopped) } else { Ok(()) }
}

/// The distances of found networks.
pub(crate) fn distances(found: &[Nearest]) -> Vec<f64> {
    found.iter().map(|f| f.distance).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_has_as_many_fellows() {
        for (n, size) in [(10, 4), (8, 4), (5, 9), (3, 2), (2, 2), (1000, 896)] {
            let groups = fellow_groups(n, size, Seed::new(1));
            for i in 0..n {
                let fellows: Vec<usize> = (0..n).filter(|&j| groups.are_fellows(i, j)).collect();
                assert_eq!(fellows.len(), size.min(n), "{n} by {size}");
                assert!(fellows.contains(&i));
            }
        }
    }

    #[test]
    fn pairs_are_distinct_networks() {
        assert_eq!(pairs(3, 10, Seed::new(1)), [(0, 1), (0, 2), (1, 2)]);
        let drawn = pairs(50, 400, Seed::new(1));
        assert_eq!(drawn.len(), 400);
        assert!(drawn.iter().all(|&(i, j)| i != j && i < 50 && j < 50));
        assert!(pairs(1, 10, Seed::new(1)).is_empty());
    }

    #[test]
    fn votes_by_hand() {
        // 16 voters on 3 images of class 0: 9 right, 8 right against 8 (a tie), 2 right against 7 and 7.
        let labels = [0, 0, 0];
        let vote = |i: usize| [u32::from(i >= 9), u32::from(i >= 8), if i < 2 { 0 } else { 1 + u32::from(i >= 9) }];
        let predictions: Vec<u32> = (0..16).flat_map(vote).collect();
        let accuracy = accuracies(&Mistakes::new(&predictions, &labels), 16, 3);
        let [gain] = vote_gains(&predictions, &labels, &accuracy, Seed::new(1))[..] else { panic!("one vote") };
        let expected = (1.0 + 0.5) / 3.0 - (9.0 + 8.0 + 2.0) / 48.0;
        assert!((gain - expected).abs() < 1e-12, "{gain}");
        assert!(vote_gains(&predictions[..45], &labels, &accuracy[..15], Seed::new(1)).is_empty());
    }
}
