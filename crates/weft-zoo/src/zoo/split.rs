//! Dividing a zoo anew into training and test split, so that what belongs together stays together.

use super::derive::Derived;
use super::groups::Groups;
use super::{Filter, Zoo};
use crate::query::Expr;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use weft_core::{Monitor, Record, Seed, Split};

/// How a zoo is divided.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitOptions {
    /// What no split may part: `run`, `lineage`, or the key of a label such as `phrase`.
    pub by: String,
    /// The share of checkpoints in the test split, in `(0, 1)`; groups are not parted to reach it exactly.
    pub test_fraction: f64,
    /// Which groups those are.
    pub seed: u64,
    /// The checkpoints that the new zoo has; all, if there is no condition.
    pub condition: Option<Expr>,
}

/// What a division did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SplitReport {
    /// Groups of checkpoints that belong together.
    pub groups: usize,
    /// Those in the test split.
    pub test_groups: usize,
    /// Checkpoints in the training split.
    pub train: usize,
    /// Checkpoints in the test split.
    pub test: usize,
    /// Checkpoints without the label: their run and their parents alone say what they belong to.
    pub without_label: usize,
}

impl Zoo {
    /// Writes a new zoo with the same checkpoints and other splits.
    ///
    /// Checkpoints of one run, of one value of the label, and parents with their children belong together, and so does
    /// whatever these join: a group lies in one split as a whole. Children of one parent belong together even if the
    /// parent is in no zoo.
    ///
    /// # Errors
    /// [`Error::Setting`] for a fraction out of range, a label that the zoo has not, or a zoo that is one group;
    /// [`Error::Occupied`] if there is something in `path`; [`Error::Interrupted`] and errors of both zoos.
    pub fn split(&self, path: &Path, options: &SplitOptions, monitor: &Monitor<'_>) -> Result<(Self, SplitReport)> {
        let fraction = options.test_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(Error::Setting { setting: "test-fraction", expected: "in (0, 1)", got: fraction.to_string() });
        }
        self.check_key(&options.by)?;
        let filter =
            Filter { condition: options.condition.clone(), with_quarantined: options.condition.is_none(), ..Filter::default() };
        let entries = self.records(&filter)?;
        let usable = |record: &&Record| record.quarantine.is_none();
        let records: Vec<&Record> = entries.iter().map(super::Entry::record).filter(usable).collect();
        let (in_test, report) = divide(&records, options)?;
        monitor.start("split zoo", entries.len() as u64, "checkpoints");
        let split =
            |record: &Record| record.split.map(|_| if in_test.contains(&record.digest) { Split::Test } else { Split::Train });
        let changed: Vec<_> = entries
            .into_iter()
            .map(|entry| {
                let record = Record { split: split(entry.record()), ..entry.record().clone() };
                (entry, record)
            })
            .collect();
        let name = format!("{}, split by {}", self.name(), options.by);
        let mut derived = Derived::begin(path, &name, self.architecture.clone(), &[self.digest()?])?;
        derived.take(self, changed, monitor)?;
        if options.condition.is_none() {
            derived.take_files(self)?;
        }
        let zoo = derived.finish()?;
        monitor.finish();
        Ok((zoo, report))
    }

    /// Refuses a label that no checkpoint has; runs and lineages need none.
    fn check_key(&self, by: &str) -> Result<()> {
        let labels = self.catalogue.names()?.labels;
        if matches!(by, RUN | LINEAGE) || labels.contains(by) {
            return Ok(());
        }
        let known: Vec<&str> = [RUN, LINEAGE].into_iter().chain(labels.iter().take(40).map(String::as_str)).collect();
        let got = format!("`{by}`; known: `{}`", known.join("`, `"));
        Err(Error::Setting { setting: "by", expected: "a label of the zoo", got })
    }
}

const RUN: &str = "run";
const LINEAGE: &str = "lineage";

/// The checkpoints of the test split.
fn divide(records: &[&Record], options: &SplitOptions) -> Result<(BTreeSet<weft_core::Digest>, SplitReport)> {
    let mut groups = Groups::new(records.len());
    groups.join_by(records.iter().enumerate().map(|(i, record)| (i, &record.run)));
    let label = |record: &Record| record.labels.get(&options.by).filter(|_| options.by != RUN).cloned();
    groups.join_by(records.iter().enumerate().filter_map(|(i, record)| Some((i, label(record)?))));
    // A checkpoint and each child name the same digest: one as its own, the others as a parent's.
    let own = records.iter().enumerate().map(|(i, record)| (i, record.digest));
    let of_parents = records.iter().enumerate().flat_map(|(i, r)| r.provenance.parents.iter().map(move |parent| (i, *parent)));
    groups.join_by(own.chain(of_parents));
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for i in 0..records.len() {
        members.entry(groups.find(i)).or_default().push(i);
    }
    // By digest and not by place: the same networks in another order are divided in the same way.
    let mut ordered: Vec<Vec<usize>> = members.into_values().collect();
    ordered.sort_by_key(|group| group.iter().map(|&i| records[i].digest).min());
    if ordered.len() < 2 {
        let got = format!("{} in one group: joined by `{}`, by runs and by parents", records.len(), options.by);
        return Err(Error::Setting { setting: "by", expected: "such that checkpoints fall into two groups or more", got });
    }
    let order = Seed::new(options.seed).fork("split").permutation(ordered.len());
    let sizes: Vec<usize> = order.iter().map(|&group| ordered[group as usize].len()).collect();
    let test = choose(&sizes, options.test_fraction);
    let in_test: BTreeSet<_> = test.iter().flat_map(|&i| &ordered[order[i] as usize]).map(|&i| records[i].digest).collect();
    let report = SplitReport {
        groups: ordered.len(),
        test_groups: test.len(),
        train: records.len() - in_test.len(),
        test: in_test.len(),
        without_label: if options.by == RUN { 0 } else { records.iter().filter(|record| label(record).is_none()).count() },
    };
    Ok((in_test, report))
}

/// Goes through groups and takes each that brings the share nearer to what is wanted; at least one is on either side.
fn choose(sizes: &[usize], fraction: f64) -> Vec<usize> {
    let wanted = sizes.iter().sum::<usize>() as f64 * fraction;
    let (mut chosen, mut count) = (Vec::new(), 0);
    for (i, &size) in sizes.iter().enumerate() {
        if wanted - count as f64 >= size as f64 / 2.0 && chosen.len() + 1 < sizes.len() {
            chosen.push(i);
            count += size;
        }
    }
    if chosen.is_empty() {
        chosen.extend((0..sizes.len()).min_by_key(|&i| sizes[i]));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_get_a_group() {
        let check = |sizes: &[usize], fraction: f64, expected: &[usize]| assert_eq!(choose(sizes, fraction), expected, "{sizes:?}");
        check(&[1, 1, 1, 1], 0.5, &[0, 1]);
        check(&[10, 1], 0.01, &[1]);
        check(&[1, 9], 0.6, &[0]);
        check(&[3, 8, 1, 1], 0.3, &[0, 2]);
        check(&[1, 1], 0.99, &[0]);
    }
}
