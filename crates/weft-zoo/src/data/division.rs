//! Dividing examples into parts that each look like the whole.
//!
//! Some copies of the classic data sets are sorted by class: their last 5,000 images are all nines. So a part is
//! never a range of a file. Every part has each class in its share, and stands in a random but fixed order, so that
//! any prefix of it is a fair sample.

use weft_core::Seed;

/// Divides examples into the rest and `count` held-out ones.
pub(super) fn hold_out(examples: &[usize], labels: &[u32], count: usize, seed: Seed) -> [Vec<usize>; 2] {
    let classes = examples.iter().map(|&e| labels[e] as usize + 1).max().unwrap_or(0);
    let mut members: Vec<Vec<usize>> = vec![Vec::new(); classes];
    for &example in &shuffled(examples, seed.fork("choice")) {
        members[labels[example] as usize].push(example);
    }
    let sizes: Vec<usize> = members.iter().map(Vec::len).collect();
    let mut parts = [Vec::new(), Vec::new()];
    for (class, share) in members.iter().zip(shares(&sizes, count.min(examples.len()))) {
        let (held, rest) = class.split_at(share);
        parts[0].extend_from_slice(rest);
        parts[1].extend_from_slice(held);
    }
    [shuffled(&parts[0], seed.fork("rest")), shuffled(&parts[1], seed.fork("held out"))]
}

/// The examples in a random order that the seed fixes.
pub(super) fn shuffled(examples: &[usize], seed: Seed) -> Vec<usize> {
    seed.permutation(examples.len()).iter().map(|&i| examples[i as usize]).collect()
}

/// Divides `total`, which is no more than their sum, in proportion to `sizes`, by largest remainders.
fn shares(sizes: &[usize], total: usize) -> Vec<usize> {
    let all = sizes.iter().sum::<usize>().max(1);
    let mut shares: Vec<usize> = sizes.iter().map(|&s| s * total / all).collect();
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sizes[i] * total % all));
    let missing = total - shares.iter().sum::<usize>();
    for &i in order.iter().take(missing) {
        shares[i] += 1;
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        assert_eq!(shares(&[5, 5, 5], 10), [4, 3, 3]);
        assert_eq!(shares(&[178, 182], 60), [30, 30]);
        assert_eq!(shares(&[1, 0, 2], 3), [1, 0, 2]);
        assert_eq!(shares(&[0, 0], 0), [0, 0]);
        assert_eq!(shares(&[], 0), [0; 0]);
    }

    #[test]
    fn sorted_examples_give_fair_parts() {
        let labels: Vec<u32> = (0..1000).map(|i| i / 100).collect();
        let all: Vec<usize> = (0..1000).collect();
        let [rest, held] = hold_out(&all, &labels, 200, Seed::new(0));
        let count = |part: &[usize], class| part.iter().filter(|&&e| labels[e] == class).count();
        for class in 0..10 {
            assert_eq!((count(&rest, class), count(&held, class)), (80, 20));
            assert!((5..=40).contains(&count(&rest[..200], class)), "a prefix is a fair sample");
        }
        let mut together = [rest, held].concat();
        together.sort_unstable();
        assert_eq!(together, all);
    }

    #[test]
    fn more_than_all_cannot_be_held_out() {
        let [rest, held] = hold_out(&[0, 1], &[0, 1], 5, Seed::new(0));
        assert_eq!((rest.len(), held.len()), (0, 2));
    }
}
