//! The runs of a zoo that is trained, and the tasks of those that are there.

use crate::config::{GridConfig, RecipeConfig, SubsetsConfig, TasksConfig, TrainZooConfig};
use crate::{Error, Result};
use std::collections::BTreeSet;
use weft_core::{Architecture, ClassSet, Digest, Record, Seed, Split, Task};

/// A run to train.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlannedRun {
    /// Its name in the catalogue.
    pub(super) name: String,
    pub(super) seed: Seed,
    pub(super) split: Split,
    /// Its task, in a zoo of many.
    pub(super) task: Option<Task>,
    /// The name of its recipe, in a zoo of many, and the recipe.
    pub(super) recipe: Option<(String, RecipeConfig)>,
}

/// The label of a record that names its recipe in a zoo of many.
pub(super) const RECIPE: &str = "recipe";

/// The runs of a zoo, in the order of training.
///
/// A run's name and seed depend on its number, or on its task and number: what else is trained or held out does not matter.
pub(super) fn plan(config: &TrainZooConfig, num_classes: usize, seed: Seed) -> Result<Vec<PlannedRun>> {
    let seed = seed.fork("zoo");
    if let Some(TasksConfig::Subsets(subsets)) = &config.tasks {
        return of_subsets(subsets, num_classes, seed.fork("tasks"));
    }
    if let Some(grid) = &config.grid {
        return of_grid(grid, &config.recipe, &seed.fork("grid"));
    }
    let (train, held_out) = (config.runs.unwrap_or(0), config.held_out_runs.unwrap_or(0));
    let run = |number: usize| PlannedRun {
        name: format!("run-{number:05}"),
        seed: seed.index(number as u64),
        split: if number < train { Split::Train } else { Split::Test },
        task: None,
        recipe: None,
    };
    Ok((0..train + held_out).map(run).collect())
}

fn of_subsets(config: &SubsetsConfig, num_classes: usize, seed: Seed) -> Result<Vec<PlannedRun>> {
    let mut runs = Vec::new();
    for (classes, held_out) in config.held_out()?.divide(num_classes)? {
        let task = Task::is_one_of(&classes, num_classes)?;
        runs.extend((0..config.per_task).map(|number| PlannedRun {
            name: format!("task-{classes}-{number:03}"),
            seed: seed.fork(task.name()).index(number as u64),
            split: if held_out { Split::Test } else { Split::Train },
            task: Some(task.clone()),
            recipe: None,
        }));
    }
    Ok(runs)
}

/// Runs of every combination. Those are held out whose names have the lowest digests, so that which they are depends on neither seed nor
/// order, and more of them hold out the same and more.
///
/// # Errors
/// A listed value that no combination to train on has: nothing could be asked for there.
fn of_grid(config: &GridConfig, base: &RecipeConfig, seed: &Seed) -> Result<Vec<PlannedRun>> {
    let recipes = config.recipes(base);
    let mut by_digest: Vec<_> = recipes.iter().map(|(name, _)| (*Digest::of_bytes(name.as_bytes()).as_bytes(), name)).collect();
    by_digest.sort();
    let held_out: BTreeSet<&String> = by_digest.into_iter().take(config.held_out).map(|(_, name)| name).collect();
    let values = |(_, r): &(String, RecipeConfig)| {
        [
            format!("{:?}", r.optimizer),
            format!("{:?}", r.learning_rate),
            format!("{:?}", r.weight_decay),
            format!("{:?}", r.duration),
        ]
    };
    let trained: BTreeSet<String> = recipes.iter().filter(|(name, _)| !held_out.contains(name)).flat_map(values).collect();
    if let Some(lost) = recipes.iter().flat_map(values).find(|value| !trained.contains(value)) {
        let expected = "so few that every listed value is trained on somewhere".to_owned();
        return Err(Error::Range {
            what: "`zoo.train.grid.held-out`",
            expected,
            got: format!("{}, which hold out all with {lost}", config.held_out),
        });
    }
    let runs = recipes.iter().flat_map(|(name, recipe)| {
        let (seed, split) = (seed.fork(name), if held_out.contains(name) { Split::Test } else { Split::Train });
        (0..config.per_combination).map(move |number| PlannedRun {
            name: format!("{name}, {number:03}"),
            seed: seed.index(number as u64),
            split,
            task: None,
            recipe: Some((name.clone(), recipe.clone())),
        })
    });
    Ok(runs.collect())
}

/// The tasks of networks, where their records name one each; none where they do not.
///
/// A task is the label `task` of a network with two outputs, if it is a set of classes. Other words in it are words.
///
/// # Errors
/// Some records name a task and others do not, or one of classes that the data lack.
pub(crate) fn tasks_of<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    architecture: &Architecture,
    num_classes: usize,
) -> Result<Option<Vec<Task>>> {
    let has_task = |record: &&Record| record.labels.get(Task::LABEL).is_some_and(|label| label.parse::<ClassSet>().is_ok());
    if architecture.num_outputs() != 2 || !records.clone().any(|record| has_task(&record)) {
        return Ok(None);
    }
    let task = |record: &Record| {
        let without = || Error::WithoutTask { run: record.run.clone() };
        record.task(num_classes)?.ok_or_else(without)
    };
    records.map(task).collect::<Result<Vec<_>>>().map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_core::{Activation, Digest};

    fn subsets(per_task: usize) -> SubsetsConfig {
        SubsetsConfig { held_out_pairs: 1, per_task, ..SubsetsConfig::default() }
    }

    #[test]
    fn a_run_of_a_task_does_not_depend_on_its_neighbors() {
        let few = of_subsets(&subsets(1), 4, Seed::new(1)).unwrap();
        let many = of_subsets(&subsets(3), 4, Seed::new(1)).unwrap();
        assert_eq!((few.len(), many.len()), (14, 42));
        assert!(few.iter().all(|run| many.contains(run)));
        let seeds: std::collections::BTreeSet<String> = many.iter().map(|run| format!("{:?}", run.seed)).collect();
        let names: std::collections::BTreeSet<&str> = many.iter().map(|run| run.name.as_str()).collect();
        assert_eq!((seeds.len(), names.len()), (42, 42));
        assert_eq!(many.iter().filter(|run| run.split == Split::Test).count(), 6);
        assert!(names.contains("task-0+3-002"));
    }

    #[test]
    fn combinations_are_held_out_whole() {
        let text = "learning-rate = 0.1\nbatch-size = 8\nduration.steps = 9\noptimizer.sgd = {}";
        let base: RecipeConfig = toml::from_str(text).unwrap();
        let grid = |held_out, per_combination| GridConfig {
            held_out,
            per_combination,
            learning_rate: vec![0.1, 0.2, 0.3],
            weight_decay: vec![0.0, 0.1],
            steps: vec![9, 18],
            ..GridConfig::default()
        };
        let held_out = |runs: &[PlannedRun]| -> BTreeSet<String> {
            let names = runs.iter().filter(|run| run.split == Split::Test).filter_map(|run| run.recipe.clone());
            names.map(|(name, _)| name).collect()
        };
        let [few, many] = [(3, 2), (4, 3)].map(|(held, each)| of_grid(&grid(held, each), &base, &Seed::new(1)).unwrap());
        assert_eq!((few.len(), many.len()), (24, 36));
        let lost = of_grid(&grid(11, 2), &base, &Seed::new(1)).unwrap_err().to_string();
        assert!(lost.contains("11, which hold out all with"), "{lost}");
        assert_eq!((held_out(&few).len(), held_out(&many).len()), (3, 4));
        assert!(held_out(&few).is_subset(&held_out(&many)));
        assert_eq!(few.iter().filter(|run| run.split == Split::Test).count(), 6);
        let same = |run: &PlannedRun| many.iter().any(|other| other.name == run.name && other.seed == run.seed);
        assert!(few.iter().all(same));
    }

    #[test]
    fn tasks_are_labels_of_networks_with_two_outputs() {
        let architecture = |outputs| Architecture::mlp("mlp", &[3, outputs], Activation::Relu).unwrap();
        let record = |label: &str| {
            let mut record = Record::new(Digest::of_bytes(label.as_bytes()), format!("run of {label}"));
            if !label.is_empty() {
                record.labels.insert("task".to_owned(), label.to_owned());
            }
            record
        };
        let of = |labels: [&str; 2], outputs| {
            let records = labels.map(record);
            tasks_of(records.iter(), &architecture(outputs), 4)
        };
        let names = |found: Option<Vec<Task>>| found.map(|tasks| tasks.iter().map(|t| t.name().to_owned()).collect::<Vec<_>>());
        assert_eq!(names(of(["0+1", "3"], 2).unwrap()).unwrap(), ["0+1", "3"]);
        assert_eq!(of(["0+1", "3"], 4).unwrap(), None);
        assert_eq!(of(["spam", "ham"], 2).unwrap(), None);
        assert_eq!(of(["", ""], 2).unwrap(), None);
        let message = |labels| of(labels, 2).unwrap_err().to_string();
        assert_eq!(message(["0", ""]), "run `run of ` names no task, and others of its zoo do");
        assert!(message(["0", "spam"]).contains("`spam` is not a set of classes"));
        assert!(message(["0", "4"]).contains("class 4 is not below 4"));
    }
}
