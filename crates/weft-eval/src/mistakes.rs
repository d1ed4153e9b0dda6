//! Sets of misclassified test images, and p-diff's measure of novelty: the largest intersection over union of a
//! sample's mistakes with those of a training network.
//!
//! # References
//! Wang et al. 2024, "Neural Network Diffusion" (arXiv 2402.13144), section 4.

use rayon::prelude::*;

/// One set of misclassified examples a network, as bits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Mistakes {
    words: usize,
    bits: Vec<u64>,
    counts: Vec<u32>,
}

impl Mistakes {
    /// Compares predictions `[n, b]` with `labels` `[b]`.
    pub(crate) fn new(predictions: &[u32], labels: &[u32]) -> Self {
        let mut sets = Self { words: labels.len().div_ceil(64), ..Self::default() };
        sets.extend(predictions, labels);
        sets
    }

    /// Appends the sets of further networks.
    pub(crate) fn extend(&mut self, predictions: &[u32], labels: &[u32]) {
        for network in predictions.chunks_exact(labels.len()) {
            let start = self.bits.len();
            for (p, l) in network.chunks(64).zip(labels.chunks(64)) {
                self.bits.push(p.iter().zip(l).enumerate().fold(0, |word, (i, (p, l))| word | (u64::from(p != l) << i)));
            }
            self.counts.push(self.bits[start..].iter().map(|w| w.count_ones()).sum());
        }
    }

    /// The number of mistakes of network `i`.
    pub(crate) fn count(&self, i: usize) -> usize {
        self.counts[i] as usize
    }

    fn set(&self, i: usize) -> &[u64] {
        &self.bits[i * self.words..(i + 1) * self.words]
    }

    /// Intersection over union of a set of `self` and one of `other`; 1 if both are empty.
    fn iou(&self, i: usize, other: &Self, j: usize) -> f64 {
        let shared: u32 = self.set(i).iter().zip(other.set(j)).map(|(a, b)| (a & b).count_ones()).sum();
        let union = self.counts[i] + other.counts[j] - shared;
        if union == 0 { 1.0 } else { f64::from(shared) / f64::from(union) }
    }

    /// For each set of `self` the largest intersection over union with a set of `others` that is not excluded.
    ///
    /// Sets are visited from the nearest size outwards until the ratio of sizes, which bounds the measure from
    /// above, falls below the best.
    pub(crate) fn max_iou(&self, others: &Self, excluded: &(dyn Fn(usize, usize) -> bool + Sync)) -> Vec<f64> {
        let mut order: Vec<usize> = (0..others.counts.len()).collect();
        order.sort_by_key(|&j| (others.counts[j], j));
        let best = |i: usize| {
            let size = self.counts[i];
            let middle = order.partition_point(|&j| others.counts[j] < size);
            let scan = |indices: &mut dyn Iterator<Item = &usize>, mut best: f64| {
                for &j in indices {
                    let (small, large) = (size.min(others.counts[j]), size.max(others.counts[j]));
                    if f64::from(small) < best * f64::from(large) {
                        break;
                    }
                    if !excluded(i, j) {
                        best = best.max(self.iou(i, others, j));
                    }
                }
                best
            };
            let best = scan(&mut order[middle..].iter(), 0.0);
            scan(&mut order[..middle].iter().rev(), best)
        };
        (0..self.counts.len()).into_par_iter().map(best).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: &(dyn Fn(usize, usize) -> bool + Sync) = &|_, _| false;

    #[test]
    fn by_hand() {
        let labels = [0u32; 4];
        let a = Mistakes::new(&[1, 1, 0, 0, 0, 0, 0, 0], &labels);
        let b = Mistakes::new(&[0, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0], &labels);
        assert_eq!((a.count(0), a.count(1), b.count(1)), (2, 0, 4));
        assert_eq!(a.max_iou(&b, KEEP), [0.5, 1.0]);
        assert_eq!(a.max_iou(&b, &|_, j| j == 1), [1.0 / 3.0, 1.0]);
        assert_eq!(a.max_iou(&b, &|_, _| true), [0.0, 0.0]);
    }

    #[test]
    fn pruning_changes_nothing() {
        let draw = |seed, n: usize| weft_core::Seed::new(seed).indices(n * 150, 3);
        let labels = draw(1, 1);
        let (a, b) = (Mistakes::new(&draw(2, 20), &labels), Mistakes::new(&draw(3, 40), &labels));
        let brute: Vec<f64> = (0..20).map(|i| (0..40).map(|j| a.iou(i, &b, j)).fold(0.0, f64::max)).collect();
        assert_eq!(a.max_iou(&b, KEEP), brute);
    }
}
