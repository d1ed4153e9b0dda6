//! What networks are to say of a data set's examples: its classes, or of each network its own task's outputs.

use crate::{Error, Result};
use weft_core::{Architecture, Dataset, Task};

/// A data set with the tasks of the networks that are run on it.
///
/// `&dataset` is the data set's own classes for all networks; `(&dataset, tasks)` has a task a network.
#[derive(Debug, Clone, Copy)]
pub struct Labelled<'a> {
    dataset: &'a Dataset,
    tasks: Option<&'a [Task]>,
}

impl<'a> From<&'a Dataset> for Labelled<'a> {
    fn from(dataset: &'a Dataset) -> Self {
        Self { dataset, tasks: None }
    }
}

impl<'a> From<(&'a Dataset, &'a [Task])> for Labelled<'a> {
    fn from((dataset, tasks): (&'a Dataset, &'a [Task])) -> Self {
        Self { dataset, tasks: Some(tasks) }
    }
}

impl<'a> From<(&'a Dataset, Option<&'a [Task]>)> for Labelled<'a> {
    fn from((dataset, tasks): (&'a Dataset, Option<&'a [Task]>)) -> Self {
        Self { dataset, tasks }
    }
}

impl<'a> Labelled<'a> {
    /// The examples.
    #[must_use]
    pub fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// The task of a network, if it has one of its own.
    ///
    /// # Panics
    /// If there are tasks, and none for this network.
    #[must_use]
    pub fn task(&self, network: usize) -> Option<&'a Task> {
        self.tasks.map(|tasks| &tasks[network])
    }

    /// The task of each network, if they have their own.
    pub(crate) fn tasks(&self) -> Option<&'a [Task]> {
        self.tasks
    }

    /// Checks that so many networks of an architecture have outputs for what they are to say, and a task each.
    pub(crate) fn check(&self, architecture: &Architecture, num_networks: usize) -> Result<()> {
        check_inputs(architecture, self.dataset)?;
        let Some(tasks) = self.tasks else {
            let fits = architecture.num_outputs() == self.dataset.num_classes();
            return if fits { Ok(()) } else { Err(mismatch(architecture, self.dataset)) };
        };
        check_tasks(tasks, (architecture, num_networks), self.dataset.num_classes())
    }
}

/// Checks that there is a task for each of so many networks, from the data's classes to the architecture's outputs.
pub(crate) fn check_tasks(tasks: &[Task], (architecture, num_networks): (&Architecture, usize), classes: usize) -> Result<()> {
    if tasks.len() != num_networks {
        return Err(Error::Tasks { tasks: tasks.len(), networks: num_networks });
    }
    let outputs = architecture.num_outputs();
    match tasks.iter().find(|task| (task.num_classes(), task.num_outputs()) != (classes, outputs)) {
        None => Ok(()),
        Some(task) => Err(Error::Task {
            task: task.name().to_owned(),
            maps: [task.num_classes(), task.num_outputs()],
            architecture: architecture.name().to_owned(),
            outputs,
            classes,
        }),
    }
}

/// Checks that an architecture reads a data set's examples.
pub(crate) fn check_inputs(architecture: &Architecture, dataset: &Dataset) -> Result<()> {
    if architecture.num_inputs() == dataset.num_features() { Ok(()) } else { Err(mismatch(architecture, dataset)) }
}

/// The error of an architecture that does not map a data set's examples to its classes.
pub(crate) fn mismatch(architecture: &Architecture, dataset: &Dataset) -> Error {
    Error::Mismatch {
        architecture: architecture.name().to_owned(),
        inputs: architecture.num_inputs(),
        outputs: architecture.num_outputs(),
        dataset: dataset.name().to_owned(),
        features: dataset.num_features(),
        classes: dataset.num_classes(),
    }
}
