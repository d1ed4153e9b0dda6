//! Which networks go in, in which order and into which split.

use super::Sound;
use super::store::{Examined, Planned};
use crate::zoo::RunState;
use std::collections::{BTreeMap, BTreeSet};
use weft_core::{Digest, Record, Split};

impl Examined {
    /// Gives every network its split and its place: runs in the order of their first file, each in the order of its steps.
    pub(super) fn plan(&mut self, known: &BTreeMap<String, RunState>, sound: Vec<Sound>, test_fraction: f64) {
        let mut order: Vec<String> = Vec::new();
        let mut members: BTreeMap<String, Vec<Sound>> = BTreeMap::new();
        for network in sound {
            let run = &network.record.run;
            if known.get(run).is_some_and(|run| run.complete) {
                let reason = format!("the zoo has the final checkpoint of its run `{run}` already");
                self.refuse(network.file, reason);
                continue;
            }
            if !members.contains_key(run) {
                order.push(run.clone());
            }
            members.entry(run.clone()).or_default().push(network);
        }
        let splits = divide(known, &order, test_fraction);
        for run in order {
            let mut snapshots = members.remove(&run).unwrap_or_default();
            snapshots.sort_by_key(|network| network.record.step);
            let last = snapshots.len() - 1;
            for (i, Sound { file, index, record }) in snapshots.into_iter().enumerate() {
                let record = Record { split: Some(splits[&run]), is_final: i == last, ..record };
                self.add_planned(Planned { file, index, record });
            }
        }
    }
}

/// Divides the new runs by the places of their names' digests among those of all runs; at least one lies on either side
/// if there are two.
///
/// An import that was cut off and is done again has the same set of runs, so it divides them in the same way.
fn divide(known: &BTreeMap<String, RunState>, new: &[String], test_fraction: f64) -> BTreeMap<String, Split> {
    let all: BTreeSet<&String> = known.keys().chain(new).collect();
    let mut order: Vec<&String> = all.into_iter().collect();
    order.sort_by_key(|run| Digest::of_bytes(run.as_bytes()));
    let wanted = (order.len() as f64 * test_fraction).round() as usize;
    let least = usize::from(test_fraction > 0.0 && order.len() > 1);
    let num_test = wanted.clamp(least, order.len().saturating_sub(1).max(least));
    let split = |i| if i < num_test { Split::Test } else { Split::Train };
    let of = |(i, run): (usize, &String)| (run.clone(), known.get(run).map_or(split(i), |state| state.split));
    order.into_iter().enumerate().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An import that is cut off after any of its blocks has put some runs into the zoo, with their splits.
    #[test]
    fn the_rest_of_an_import_is_divided_as_the_whole() {
        let runs: Vec<String> = (0..40).map(|i| format!("run-{i}")).collect();
        let whole = divide(&BTreeMap::new(), &runs, 0.2);
        assert_eq!(whole.values().filter(|&&split| split == Split::Test).count(), 8);
        for stored in 0..40 {
            let state = |run: &String| (run.clone(), RunState { split: whole[run], complete: true });
            let known = runs[..stored].iter().map(state).collect();
            assert_eq!(divide(&known, &runs[stored..], 0.2), whole, "{stored}");
        }
    }
}
