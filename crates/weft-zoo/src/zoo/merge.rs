//! One zoo out of several.

use super::catalogue::Entry;
use super::derive::Derived;
use super::groups::Groups;
use super::{Filter, Zoo};
use crate::query::Expr;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use weft_core::{Architecture, Digest, Monitor, Record, Split};

/// What a merger did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MergeReport {
    /// Checkpoints that came from each zoo, in their order.
    pub taken: Vec<usize>,
    /// Checkpoints that an earlier zoo had already.
    pub duplicates: usize,
    /// Runs of a later zoo that had the name of another run and were renamed: `(zoo, old name, new name)`.
    pub renamed: Vec<(String, String, String)>,
    /// Checkpoints that were training ones in their zoo, and are test ones now because something of their run, or of
    /// their parents in another zoo, is.
    pub moved_to_test: usize,
}

impl Zoo {
    /// Writes a new zoo with the checkpoints of several, which must be of one architecture.
    ///
    /// A network that several have is one checkpoint: the first zoo's record, with labels and figures that only later
    /// ones know. Runs of one name are one run, unless each has an end of its own. A run that is test anywhere is test
    /// everywhere, and so is one that has a network, or a network's parent, in common with it across zoos.
    ///
    /// # Errors
    /// [`Error::Differs`] names the first tensor in which a zoo differs; [`Error::Occupied`] if there is something in
    /// `path`; [`Error::Interrupted`] and errors of the zoos.
    pub fn merge(zoos: &[Self], path: &Path, condition: Option<&Expr>, monitor: &Monitor<'_>) -> Result<(Self, MergeReport)> {
        let Some((first, others)) = zoos.split_first() else {
            return Err(Error::Setting { setting: "zoos", expected: "at least one", got: "none".to_owned() });
        };
        for other in others {
            if let Some(reason) = difference(&first.architecture, &other.architecture) {
                return Err(Error::Differs { zoo: other.path.clone(), expected: first.path.clone(), reason });
            }
        }
        let mut merger = Merger::default();
        for (number, zoo) in zoos.iter().enumerate() {
            let with_quarantined = condition.is_none();
            let entries = zoo.records(&Filter { condition: condition.cloned(), with_quarantined, ..Filter::default() })?;
            merger.add(number, zoo.name(), entries);
        }
        merger.settle();
        let parents = zoos.iter().map(Self::digest).collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = zoos.iter().map(Self::name).collect();
        let mut derived = Derived::begin(path, &names.join(" + "), first.architecture.clone(), &parents)?;
        monitor.start("merge zoos", merger.networks.len() as u64, "checkpoints");
        let mut of_zoo: Vec<Vec<(Entry, Record)>> = zoos.iter().map(|_| Vec::new()).collect();
        for network in merger.networks {
            of_zoo[network.zoo].push((network.entry, network.record));
        }
        for (zoo, checkpoints) in zoos.iter().zip(of_zoo) {
            merger.report.taken.push(checkpoints.len());
            derived.take(zoo, checkpoints, monitor)?;
            if condition.is_none() {
                derived.take_files(zoo)?;
            }
        }
        let zoo = derived.finish()?;
        monitor.finish();
        Ok((zoo, merger.report))
    }
}

/// A checkpoint of the new zoo.
struct Network {
    zoo: usize,
    entry: Entry,
    record: Record,
}

/// A run of the new zoo, as far as it was seen.
#[derive(Default)]
struct Run {
    digests: BTreeSet<Digest>,
    last: Option<Digest>,
}

#[derive(Default)]
struct Merger {
    networks: Vec<Network>,
    place: BTreeMap<Digest, usize>,
    runs: BTreeMap<String, Run>,
    /// Runs that have a network in common, though it stands under one of them.
    same: Vec<(usize, String)>,
    /// Checkpoints that are test ones in a zoo whose record was not taken.
    test: Vec<usize>,
    report: MergeReport,
}

impl Merger {
    /// Adds the checkpoints of a zoo.
    fn add(&mut self, number: usize, name: &str, entries: Vec<Entry>) {
        let mut of_run: BTreeMap<&str, Run> = BTreeMap::new();
        for record in entries.iter().map(Entry::record) {
            let run = of_run.entry(&record.run).or_default();
            run.digests.insert(record.digest);
            if record.is_final {
                run.last = Some(record.digest);
            }
        }
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut added = BTreeMap::new();
        for (run, members) in of_run {
            let new = self.name_of(run, &members, name);
            if new != run {
                self.report.renamed.push((name.to_owned(), run.to_owned(), new.clone()));
            }
            added.insert(new.clone(), members);
            names.insert(run.to_owned(), new);
        }
        for (run, members) in added {
            let known = self.runs.entry(run).or_default();
            known.digests.extend(members.digests);
            known.last = known.last.or(members.last);
        }
        for entry in entries {
            let record = Record { run: names[&entry.record().run].clone(), ..entry.record().clone() };
            self.add_network(number, entry, record);
        }
    }

    /// The name of a zoo's run in the new zoo.
    fn name_of(&self, run: &str, members: &Run, zoo: &str) -> String {
        let is_other = |known: &Run| {
            let ends_differ = matches!((known.last, members.last), (Some(a), Some(b)) if a != b);
            ends_differ && known.digests.is_disjoint(&members.digests)
        };
        let mut name = run.to_owned();
        let mut attempt = 1;
        while self.runs.get(&name).is_some_and(is_other) {
            name = if attempt == 1 { format!("{zoo}/{run}") } else { format!("{zoo}/{run} ({attempt})") };
            attempt += 1;
        }
        name
    }

    fn add_network(&mut self, zoo: usize, entry: Entry, record: Record) {
        let Some(&place) = self.place.get(&record.digest) else {
            self.place.insert(record.digest, self.networks.len());
            self.networks.push(Network { zoo, entry, record });
            return;
        };
        self.report.duplicates += 1;
        if record.split == Some(Split::Test) {
            self.test.push(place);
        }
        self.same.push((place, record.run));
        let kept = &mut self.networks[place].record;
        for (key, value) in record.labels {
            kept.labels.entry(key).or_insert(value);
        }
        for (name, value) in record.metrics {
            kept.metrics.entry(name).or_insert(value);
        }
        // What one zoo has reason to keep out, no other brings back.
        if kept.quarantine.is_none() && record.quarantine.is_some() {
            kept.quarantine = record.quarantine;
        }
    }

    /// Decides the splits, and which checkpoint is the last of its run.
    fn settle(&mut self) {
        let mut groups = Groups::new(self.networks.len());
        let of_runs = self.networks.iter().enumerate().map(|(i, network)| (i, network.record.run.clone()));
        groups.join_by(of_runs.chain(self.same.iter().cloned()));
        for (i, network) in self.networks.iter().enumerate() {
            for parent in network.record.provenance.parents.iter().filter_map(|parent| self.place.get(parent)) {
                // How a zoo divides its own parents and children is its own affair.
                if self.networks[*parent].zoo != network.zoo {
                    groups.join(i, *parent);
                }
            }
        }
        let is_test = |i: &usize| self.networks[*i].record.split == Some(Split::Test);
        let test: Vec<usize> = (0..self.networks.len()).filter(is_test).chain(self.test.iter().copied()).collect();
        let test: BTreeSet<usize> = test.into_iter().map(|i| groups.find(i)).collect();
        let mut last: BTreeMap<String, usize> = BTreeMap::new();
        for i in 0..self.networks.len() {
            let in_test = test.contains(&groups.find(i));
            let record = &mut self.networks[i].record;
            if record.quarantine.is_some() {
                (record.split, record.is_final) = (None, false);
                continue;
            }
            if in_test && record.split == Some(Split::Train) {
                self.report.moved_to_test += 1;
            }
            record.split = Some(if in_test { Split::Test } else { Split::Train });
            // A run that one zoo follows further than another ends where it was followed furthest.
            if record.is_final {
                let (run, step) = (record.run.clone(), record.step);
                let known = last.get(&run).copied();
                let further = known.is_none_or(|known| step > self.networks[known].record.step);
                let loser = if further { last.insert(run, i) } else { Some(i) };
                if let Some(loser) = loser {
                    self.networks[loser].record.is_final = false;
                }
            }
        }
    }
}

/// How two architectures differ, by the name of the first tensor or op that does.
fn difference(expected: &Architecture, got: &Architecture) -> Option<String> {
    for (i, spec) in expected.tensors().iter().enumerate() {
        match got.tensors().get(i) {
            Some(other) if other.name != spec.name => {
                return Some(format!("tensor {i} is `{}`, expected `{}`", other.name, spec.name));
            }
            Some(other) if other.shape != spec.shape => {
                return Some(format!("tensor `{}` has shape {:?}, expected {:?}", spec.name, other.shape, spec.shape));
            }
            Some(_) => {}
            None => return Some(format!("it has no tensor `{}`", spec.name)),
        }
    }
    if let Some(extra) = got.tensors().get(expected.tensors().len()) {
        return Some(format!("tensor `{}` is one more than expected", extra.name));
    }
    if expected.same_graph(got) {
        return None;
    }
    let op = expected.nodes().iter().zip(got.nodes()).take_while(|(a, b)| a == b).count();
    Some(format!("the tensors are the same, but op {op} computes something else"))
}
