//! Networks with a task each: trained and scored as they would be on data whose labels are that task's.

use std::sync::Arc;
use weft_core::{
    Activation, Architecture, Dataset, Duration, Inputs, Monitor, Optimizer, Part, Population, Precision, Recipe, Schedule, Seed,
    Task,
};
use weft_net::{Device, Drawn, Error, PopulationLoss, RunResult};

const CLASSES: u32 = 4;

/// Noisy points of four classes, and the same points under another map of the labels.
fn dataset(map: impl Fn(u32) -> u32, num_classes: usize) -> Dataset {
    let labels: Vec<u32> = (0..240).map(|i| i % CLASSES).collect();
    let noise = Seed::new(3).normals(240 * 6);
    let signal = |at: usize| if at % 6 == labels[at / 6] as usize { 1.5 } else { 0.0 };
    let values = noise.iter().enumerate().map(|(at, g)| 0.5 * g + signal(at)).collect();
    let labels = labels.iter().map(|&class| map(class)).collect();
    Dataset::new("points", Inputs::Floats(values), labels, num_classes, [160, 40]).expect("240 examples make up three parts")
}

fn architecture(outputs: usize) -> Arc<Architecture> {
    Arc::new(Architecture::mlp("mlp", &[6, 8, outputs], Activation::Relu).expect("the widths are positive"))
}

fn recipe() -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAM,
        learning_rate: 0.01,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        batch_size: 16,
        duration: Duration::Epochs(10),
        snapshot_steps: vec![7],
        precision: Precision::Single,
    }
}

fn seeds(n: u64) -> Vec<Seed> {
    (0..n).map(|i| Seed::new(1).index(i)).collect()
}

fn tasks() -> Vec<Task> {
    ["0", "1+3", "0+1+2"].map(|set| Task::is_one_of(&set.parse().expect("a set"), CLASSES as usize).expect("a task")).to_vec()
}

fn train<'a>(data: impl Into<weft_net::Labelled<'a>>, outputs: usize, seeds: &[Seed]) -> Result<Vec<RunResult>, Error> {
    weft_net::train(&architecture(outputs), data, &recipe(), seeds, &Device::cpu(), &Monitor::silent())
}

#[test]
fn a_task_is_the_same_as_other_labels() {
    let (data, tasks, seeds) = (dataset(|c| c, 4), tasks(), seeds(3));
    let together = train((&data, &tasks[..]), 2, &seeds).unwrap();
    for ((task, seed), run) in tasks.iter().zip(&seeds).zip(&together) {
        let relabelled = dataset(|class| task.output(class), 2);
        assert_eq!(run, &train(&relabelled, 2, &[*seed]).unwrap()[0], "{}", task.name());
        assert!(run.snapshots[1].validation.accuracy > 0.9, "{}: {:?}", task.name(), run.snapshots[1].validation);
    }
    let rows = together.iter().flat_map(|run| run.snapshots[1].row.clone()).collect();
    let networks = Population::new(architecture(2), rows).unwrap();
    let cpu = Device::cpu();
    for part in [Part::Validation, Part::Test] {
        let scores = weft_net::scores(&networks, (&data, &tasks[..]), part, &cpu).unwrap();
        let predictions = weft_net::predictions(&networks, (&data, &tasks[..]), part, &cpu).unwrap();
        for (i, task) in tasks.iter().enumerate() {
            let (alone, relabelled) = (networks.select(&[i]), dataset(|class| task.output(class), 2));
            assert_eq!(scores[i], weft_net::scores(&alone, &relabelled, part, &cpu).unwrap()[0]);
            let own = &predictions[i * relabelled.labels(part).len()..][..relabelled.labels(part).len()];
            let hits = own.iter().zip(relabelled.labels(part)).filter(|(a, b)| a == b).count();
            assert!((hits as f64 / own.len() as f64 - scores[i].accuracy).abs() < 1e-12);
        }
        let others = [tasks[1].clone(), tasks[2].clone(), tasks[0].clone()];
        let wrong = weft_net::accuracies(&networks, (&data, &others[..]), part, &cpu).unwrap();
        assert!(wrong.iter().all(|&accuracy| accuracy < 0.8), "networks are good at their own tasks alone: {wrong:?}");
    }
}

#[test]
fn the_task_that_keeps_every_class_changes_nothing() {
    let data = dataset(|c| c, 4);
    let same = vec![Task::new("same", vec![0, 1, 2, 3], 4).unwrap(); 2];
    assert_eq!(train((&data, &same[..]), 4, &seeds(2)).unwrap(), train(&data, 4, &seeds(2)).unwrap());
    assert_eq!(train((&data, None), 4, &seeds(2)).unwrap(), train(&data, 4, &seeds(2)).unwrap());
}

#[test]
fn tasks_that_do_not_fit_are_named() {
    let data = dataset(|c| c, 4);
    let message = |tasks: &[Task], outputs| train((&data, tasks), outputs, &seeds(3)).unwrap_err().to_string();
    assert_eq!(message(&tasks()[..2], 2), "2 tasks for 3 networks");
    assert_eq!(
        message(&tasks(), 4),
        "task `0` maps 4 classes to 2 outputs, but the data have 4 classes and architecture `mlp` 4 outputs"
    );
    let mut wider = tasks();
    wider[1] = Task::is_one_of(&"1+3".parse().unwrap(), 5).unwrap();
    assert!(message(&wider, 2).starts_with("task `1+3` maps 5 classes to 2 outputs"));
    assert!(matches!(train(&data, 2, &seeds(1)), Err(Error::Mismatch { outputs: 2, classes: 4, .. })));
    let networks = Population::new(architecture(2), vec![0.0; architecture(2).num_parameters()]).unwrap();
    let scores = weft_net::scores(&networks, (&data, &tasks()[..]), Part::Validation, &Device::cpu());
    assert!(matches!(scores, Err(Error::Tasks { tasks: 3, networks: 1 })));
}

#[test]
fn gradients_with_tasks_are_those_of_other_labels() {
    let (data, tasks, cpu) = (dataset(|c| c, 4), tasks(), Device::cpu());
    let architecture = architecture(2);
    let loss = PopulationLoss::of_tasks(architecture.clone(), &data, &cpu).unwrap();
    let (n, dim) = (tasks.len(), architecture.num_parameters());
    let rows = Seed::new(8).normals(n * dim);
    let chosen = Seed::new(9).indices(n * 12, loss.num_examples());
    let together = loss.gradients(&rows, (&chosen[..], &tasks[..]));
    let networks = Population::new(architecture.clone(), rows.clone()).unwrap();
    let losses = loss.losses(&networks, (&chosen[..12], &tasks[..])).unwrap();
    for (i, task) in tasks.iter().enumerate() {
        let alone = PopulationLoss::new(architecture.clone(), &dataset(|class| task.output(class), 2), &cpu).unwrap();
        let gradients = alone.gradients(networks.row(i), &chosen[i * 12..(i + 1) * 12]);
        assert_eq!(gradients.losses, &together.losses[i..=i], "{}", task.name());
        assert_eq!(gradients.gradient, together.gradient[i * dim..(i + 1) * dim], "{}", task.name());
        assert_eq!(&losses[i..=i], alone.losses(&networks.select(&[i]), &chosen[..12]).unwrap());
    }
    let others = [tasks[1].clone(), tasks[2].clone(), tasks[0].clone()];
    assert_ne!(loss.gradients(&rows, (&chosen[..], &others[..])), together);
}

#[test]
fn losses_say_which_tasks_do_not_fit() {
    let (data, tasks, cpu) = (dataset(|c| c, 4), tasks(), Device::cpu());
    let architecture = architecture(2);
    assert!(matches!(PopulationLoss::new(architecture.clone(), &data, &cpu), Err(Error::Mismatch { outputs: 2, classes: 4, .. })));
    let loss = PopulationLoss::of_tasks(architecture.clone(), &data, &cpu).unwrap();
    let networks = Population::zeros(architecture, 3);
    let message = |drawn: Drawn<'_>| loss.losses(&networks, drawn).unwrap_err().to_string();
    let chosen = [0, 1];
    assert_eq!(message((&chosen[..]).into()), "0 tasks for 3 networks");
    assert_eq!(message((&chosen[..], &tasks[..2]).into()), "2 tasks for 3 networks");
    let wider = vec![Task::is_one_of(&"1+3".parse().unwrap(), 5).unwrap(); 3];
    assert!(message((&chosen[..], &wider[..]).into()).starts_with("task `1+3` maps 5 classes"));
}
