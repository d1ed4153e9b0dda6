//! Tasks: what a network is to make of a data set's classes, and which tasks are held out.

use crate::{ClassSet, Digest, Error, Result};
use std::collections::BTreeSet;

/// A map from a data set's classes to a network's outputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    name: String,
    outputs: Vec<u32>,
    num_outputs: usize,
}

impl Task {
    /// The label of a record that names its task.
    pub const LABEL: &'static str = "task";
    /// The label of a record that describes its task in words.
    pub const TEXT: &'static str = "description";

    /// A task by the output of each class.
    ///
    /// # Errors
    /// [`Error::Task`] if there is no class, or an output is not below `num_outputs`.
    pub fn new(name: &str, outputs: Vec<u32>, num_outputs: usize) -> Result<Self> {
        let refuse = |reason| Err(Error::Task { task: name.to_owned(), reason });
        match outputs.iter().enumerate().find(|(_, output)| **output as usize >= num_outputs) {
            Some((class, output)) => refuse(format!("output {output} of class {class} is not below {num_outputs}")),
            None if outputs.is_empty() => refuse("it has no class".to_owned()),
            None => Ok(Self { name: name.to_owned(), outputs, num_outputs }),
        }
    }

    /// The binary task to tell these classes (output 1) from all others (output 0), by the set's name.
    ///
    /// # Errors
    /// [`Error::Classes`] if a class is not below `num_classes`; [`Error::Task`] if there is no other.
    ///
    /// # Examples
    /// ```
    /// use weft_core::Task;
    /// let task = Task::is_one_of(&"1+2".parse().unwrap(), 4).unwrap();
    /// assert_eq!((0..4).map(|class| task.output(class)).collect::<Vec<_>>(), [0, 1, 1, 0]);
    /// assert_eq!((task.name(), task.num_outputs()), ("1+2", 2));
    /// ```
    pub fn is_one_of(classes: &ClassSet, num_classes: usize) -> Result<Self> {
        classes.check(num_classes)?;
        if classes.classes().len() == num_classes {
            return Err(Error::Task { task: classes.to_string(), reason: "it leaves no class to tell from".to_owned() });
        }
        let outputs = (0..num_classes as u32).map(|class| u32::from(classes.contains(class))).collect();
        Self::new(&classes.to_string(), outputs, 2)
    }

    /// The task's name, as it stands in records and conditions.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The set of classes that it tells from all others by output 1, if it is a task of that kind and has the set's name.
    ///
    /// # Examples
    /// ```
    /// use weft_core::Task;
    /// let task = Task::is_one_of(&"1+2".parse().unwrap(), 4).unwrap();
    /// assert_eq!(task.members().unwrap().to_string(), "1+2");
    /// assert_eq!(Task::new("halves", vec![0, 0, 1, 1], 2).unwrap().members(), None);
    /// ```
    #[must_use]
    pub fn members(&self) -> Option<ClassSet> {
        let set: ClassSet = self.name.parse().ok()?;
        let is_of = |(class, &output): (usize, &u32)| output == u32::from(set.contains(class as u32));
        let within = set.check(self.num_classes()).is_ok();
        (within && self.num_outputs == 2 && self.outputs.iter().enumerate().all(is_of)).then_some(set)
    }

    /// The number of classes that it maps.
    #[must_use]
    pub fn num_classes(&self) -> usize {
        self.outputs.len()
    }

    /// The number of outputs that its networks have.
    #[must_use]
    pub fn num_outputs(&self) -> usize {
        self.num_outputs
    }

    /// The output of a class.
    ///
    /// # Panics
    /// If the class is not below [`Task::num_classes`].
    #[must_use]
    pub fn output(&self, class: u32) -> u32 {
        self.outputs[class as usize]
    }
}

/// Which binary tasks over a data set's classes are never trained on.
///
/// A set of classes and its complement are a pair: one function with the outputs exchanged. Pairs are not parted, but for
/// [`HeldOutTasks::singles`], which whoever exchanges the outputs of the complement's network has solved.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeldOutTasks {
    /// Pairs that are chosen by the digest of their names.
    pub pairs: usize,
    /// Single sets that are held out while their complements are not, of the pairs that come next by these digests.
    pub singles: usize,
    /// All sets that contain each of these classes, and their complements, are held out as well.
    pub containing: Option<ClassSet>,
}

impl HeldOutTasks {
    /// The most classes that all sets are made of: 65,534 of them.
    pub const MAX_CLASSES: usize = 16;

    /// All sets of the classes but the empty one and the whole, with whether each is held out.
    ///
    /// A pair is named by its set with class 0, a bar and the complement, as in `0+3|1+2`. Of all pairs, those are held out whose
    /// names have the lowest BLAKE3 digests. So what is held out depends on the number of classes and of pairs alone: not on a seed or an
    /// order, and a larger number of pairs holds out the same and more. Of a pair that is parted, the set is held out whose own name has the
    /// lower digest.
    ///
    /// # Errors
    /// [`Error::HeldOut`] if there are too few or too many classes, or no task or none to train on would be left;
    /// [`Error::Classes`] if a class is out of range.
    pub fn divide(&self, num_classes: usize) -> Result<Vec<(ClassSet, bool)>> {
        let refuse = |reason: String| Err(Error::HeldOut { reason });
        if !(2..=Self::MAX_CLASSES).contains(&num_classes) {
            return refuse(format!("sets of 2 to {} classes are tasks, and the data have {num_classes}", Self::MAX_CLASSES));
        }
        let whole = (1u32 << num_classes) - 1;
        let set = |mask: u32| ClassSet::new((0..num_classes as u32).filter(|class| mask >> class & 1 == 1));
        let pairs = (1..whole).step_by(2).map(|mask| Ok((set(mask)?, set(whole ^ mask)?))).collect::<Result<Vec<_>>>()?;
        let digest = |name: &str| *Digest::of_bytes(name.as_bytes()).as_bytes();
        let mut by_digest: Vec<_> = pairs.iter().map(|pair| (digest(&format!("{}|{}", pair.0, pair.1)), pair)).collect();
        by_digest.sort();
        let mut by_digest = by_digest.into_iter().map(|(_, pair)| pair);
        let mut held_out: BTreeSet<&ClassSet> = by_digest.by_ref().take(self.pairs).map(|(a, _)| a).collect();
        if let Some(containing) = &self.containing {
            containing.check(num_classes)?;
            let contains = |set: &ClassSet| containing.classes().iter().all(|&class| set.contains(class));
            held_out.extend(pairs.iter().filter(|(a, b)| contains(a) || contains(b)).map(|(a, _)| a));
        }
        let lower = |(a, b): &'_ (ClassSet, ClassSet)| digest(&a.to_string()) < digest(&b.to_string());
        let parted = by_digest.filter(|(a, _)| !held_out.contains(a)).take(self.singles);
        let singles: BTreeSet<&ClassSet> = parted.map(|pair| if lower(pair) { &pair.0 } else { &pair.1 }).collect();
        if held_out.is_empty() && singles.is_empty() {
            return refuse("no task is held out".to_owned());
        }
        if held_out.len() >= pairs.len() {
            return refuse(format!("all {} pairs of tasks are, and none is left to train on", pairs.len()));
        }
        let of = |(a, b): &(ClassSet, ClassSet)| [a, b].map(|set| (set.clone(), held_out.contains(a) || singles.contains(set)));
        let mut sets: Vec<_> = pairs.iter().flat_map(of).collect();
        sets.sort();
        Ok(sets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> ClassSet {
        text.parse().unwrap()
    }

    #[test]
    fn tasks_that_cannot_be_are_named() {
        let message = |result: Result<Task>| result.unwrap_err().to_string();
        assert_eq!(message(Task::new("x", vec![0, 3], 3)), "task `x`: output 3 of class 1 is not below 3");
        assert_eq!(message(Task::new("x", vec![], 3)), "task `x`: it has no class");
        assert_eq!(message(Task::is_one_of(&set("0+1"), 2)), "task `0+1`: it leaves no class to tell from");
        assert!(message(Task::is_one_of(&set("4"), 4)).contains("class 4 is not below 4"));
    }

    /// What is held out is part of the contract: figures of one version are those of another.
    #[test]
    fn ten_classes_have_1022_tasks_of_which_the_same_20_are_held_out() {
        let held_out = |pairs: usize| {
            let sets = HeldOutTasks { pairs, ..HeldOutTasks::default() }.divide(10).unwrap();
            assert_eq!(sets.len(), 1_022);
            sets.into_iter().filter(|(_, held_out)| *held_out).map(|(set, _)| set.to_string()).collect::<Vec<_>>()
        };
        let ten = held_out(10);
        assert_eq!(ten.len(), 20);
        assert_eq!(ten.iter().filter(|name| name.starts_with('0')).collect::<Vec<_>>(), GOLDEN);
        assert!(held_out(9).iter().all(|name| ten.contains(name)));
        for name in &ten {
            let complement = ClassSet::new((0..10).filter(|&class| !set(name).contains(class))).unwrap().to_string();
            assert!(ten.contains(&complement), "{name} is held out, and {complement} is not");
        }
    }
    const GOLDEN: [&str; 10] = [
        "0+1+2+3+4",
        "0+1+2+3+4+8",
        "0+1+2+3+6+8",
        "0+1+3+4+8+9",
        "0+1+4+6+7+8+9",
        "0+2+3+4+5+7+9",
        "0+2+3+4+6+7",
        "0+3+4+5+6+9",
        "0+3+4+6+9",
        "0+4+5+6",
    ];

    #[test]
    fn singles_have_their_complements_in_training() {
        let held_out = |pairs: usize, singles: usize| {
            let division = HeldOutTasks { pairs, singles, containing: None }.divide(10).unwrap();
            division.into_iter().filter(|(_, held_out)| *held_out).map(|(set, _)| set).collect::<BTreeSet<_>>()
        };
        let twenty = held_out(0, 20);
        assert_eq!(twenty.len(), 20);
        let complement = |set: &ClassSet| ClassSet::new((0..10).filter(|&class| !set.contains(class))).unwrap();
        assert!(twenty.iter().all(|set| !twenty.contains(&complement(set))));
        assert!(twenty.iter().any(|set| set.contains(0)) && twenty.iter().any(|set| !set.contains(0)));
        assert!(held_out(0, 19).is_subset(&twenty));
        let (pairs, both) = (held_out(10, 0), held_out(10, 20));
        assert_eq!((both.len(), both.intersection(&pairs).count()), (40, 20));
        let beside = HeldOutTasks { pairs: 0, singles: 20, containing: Some(set("3+7")) }.divide(10).unwrap();
        let beside: BTreeSet<ClassSet> = beside.into_iter().filter(|(_, held_out)| *held_out).map(|(set, _)| set).collect();
        assert_eq!(beside.len(), 530, "singles are of pairs that are not held out");
        assert_eq!(beside.iter().filter(|set| !beside.contains(&complement(set))).count(), 20);
        assert_eq!(held_out(0, 511).len(), 511, "half of the tasks are left to train on");
    }

    #[test]
    fn sets_with_certain_classes_are_held_out_with_their_complements() {
        let division = HeldOutTasks { containing: Some(set("3+7")), ..HeldOutTasks::default() }.divide(10).unwrap();
        let (held_out, trained): (Vec<_>, Vec<_>) = division.into_iter().partition(|(_, held_out)| *held_out);
        assert_eq!((held_out.len(), trained.len()), (510, 512));
        assert!(trained.iter().all(|(set, _)| set.contains(3) != set.contains(7)));
        let both = HeldOutTasks { pairs: 10, containing: Some(set("3+7")), singles: 0 }.divide(10).unwrap();
        assert!(both.iter().filter(|(_, held_out)| *held_out).count() > 510);
    }

    #[test]
    fn divisions_that_leave_nothing_are_refused() {
        let check = |pairs, containing: &str, num_classes, expected: &str| {
            let containing = (!containing.is_empty()).then(|| set(containing));
            let error = HeldOutTasks { pairs, containing, singles: 0 }.divide(num_classes).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(0, "", 10, "no task is held out");
        check(511, "", 10, "all 511 pairs of tasks are, and none is left");
        check(0, "5", 10, "all 511 pairs");
        check(1, "10", 10, "class 10 is not below 10");
        check(1, "", 1, "the data have 1");
        check(1, "", 17, "the data have 17");
        assert_eq!(HeldOutTasks { pairs: 1, ..HeldOutTasks::default() }.divide(16).unwrap().len(), 65_534);
    }
}
