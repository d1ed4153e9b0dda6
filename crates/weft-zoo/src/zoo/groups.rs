//! Which checkpoints hang together, so that no split may part them.

use std::collections::BTreeMap;

/// Disjoint sets of the numbers below `n`, joined two by two (Tarjan 1975, with halved paths).
#[derive(Debug)]
pub(super) struct Groups(Vec<usize>);

impl Groups {
    pub(super) fn new(n: usize) -> Self {
        Self((0..n).collect())
    }

    /// The number that stands for the set of `i`: its smallest.
    pub(super) fn find(&mut self, mut i: usize) -> usize {
        while self.0[i] != i {
            self.0[i] = self.0[self.0[i]];
            i = self.0[i];
        }
        i
    }

    pub(super) fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        self.0[a.max(b)] = a.min(b);
    }

    /// Joins all that share a key.
    pub(super) fn join_by<K: Ord>(&mut self, keys: impl IntoIterator<Item = (usize, K)>) {
        let mut first = BTreeMap::new();
        for (i, key) in keys {
            let other = *first.entry(key).or_insert(i);
            self.join(i, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_join_transitively() {
        let mut groups = Groups::new(6);
        groups.join_by([(1, "a"), (3, "a"), (5, "b"), (4, "c")]);
        groups.join_by([(3, 7), (5, 7)]);
        let found: Vec<usize> = (0..6).map(|i| groups.find(i)).collect();
        assert_eq!(found, [0, 1, 2, 1, 4, 1]);
    }
}
