//! Networks of many tasks: proposals under each run's own condition, refined for each its own task.

use crate::hostile::{check, tensor, text, without};
use crate::support::{
    accuracy_at, asks_for, binary_tasks, flow_config, four_classes, heun, noisy, refiner_config, task_fields, task_set, train,
    trained_set, vector,
};
use std::sync::Arc;
use weft_core::{Condition, FieldSpec, Seed, Task};
use weft_gen::{
    Error, Flow, FlowConfig, FlowTrainer, Generator, Refined, Refiner, RefinerConfig, RefinerTrainer, Trainer as _, TrainingSet,
};
use weft_net::{Device, PopulationLoss};

fn trainer(config: RefinerConfig, data: &TrainingSet) -> weft_gen::Result<RefinerTrainer> {
    let loss = PopulationLoss::of_tasks(data.architecture().clone(), &four_classes(), &Device::cpu())?;
    let proposal = noisy(data, 0.4);
    RefinerTrainer::new(config, (&proposal, &Condition::unknown()), data.clone(), loss, Seed::new(8), &Device::cpu())
}

fn trained(steps: u64, data: &TrainingSet) -> Refiner {
    let config = RefinerConfig { steps, batch_networks: 32, ..refiner_config() };
    train(trainer(config, data).expect("the settings are in range"), steps).finish().expect("the CPU gives its state")
}

fn flow(data: &TrainingSet, residual_noise: bool) -> Flow {
    let config = FlowConfig { conditions: task_fields().to_vec(), residual_noise, ..flow_config(&[]) };
    let trainer = FlowTrainer::new(config, data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range");
    train(trainer, 20).finish(heun(4, 1.5)).and_then(|codes| codes.decoded_by(data)).expect("the codec of its own codes")
}

#[test]
fn proposals_of_any_task_are_mended_for_the_one_that_is_asked_for() {
    let data = task_set();
    let [tasks, held_out] = binary_tasks();
    let refined = Refined::new(Arc::new(noisy(&data, 0.4)), trained(600, &data));
    let accuracy = |generator: &dyn Generator, tasks: &[Task], asked: &[Task]| {
        let all: Vec<Task> = tasks.iter().flat_map(|task| vec![task.clone(); 6]).collect();
        let conditions: Vec<Condition> = asked.iter().flat_map(|task| vec![asks_for(task); 6]).collect();
        accuracy_at(&generator.sample_each(&conditions, Seed::new(3)).expect("conditions of the schema"), &all)
    };
    let before = accuracy(&noisy(&data, 0.4), &tasks, &tasks);
    let (after, unseen) = (accuracy(&refined, &tasks, &tasks), accuracy(&refined, &held_out, &held_out));
    let other = [held_out[1].clone(), held_out[0].clone()];
    let exchanged = accuracy(&refined, &held_out, &other);
    assert!(before < 0.7 && after > 0.9, "accuracy {before} became {after}");
    assert!(unseen > 0.85, "tasks that no training step saw reach {unseen}");
    assert!(exchanged < 0.3, "the condition decides: the complement's reaches {exchanged}");
}

#[test]
fn samples_of_one_condition_are_those_of_a_batch() {
    let data = task_set();
    let [tasks, held_out] = binary_tasks();
    let flow = flow(&data, true);
    let refined = Refined::new(Arc::new(flow.clone()), trained(20, &data));
    let seed = Seed::new(4);
    for generator in [&flow as &dyn Generator, &refined] {
        let same = vec![asks_for(&held_out[0]); 5];
        let alone = generator.sample(5, &same[0], seed).expect("a task of the schema");
        assert_eq!(generator.sample_each(&same, seed).expect("as many"), alone, "{}", generator.name());
        let mixed = [asks_for(&held_out[0]), asks_for(&tasks[0]), asks_for(&held_out[0])];
        let mixed = generator.sample_each(&mixed, seed).expect("tasks of the schema");
        let close = |i: usize| weft_testkit::assert_close(mixed.row(i), alone.row(i), 1e-5);
        close(0);
        close(2);
        assert_ne!(mixed.row(1), alone.row(1), "{}: a row has its own condition", generator.name());
    }
    let trivial = noisy(&data, 0.1);
    for generator in [&flow as &dyn Generator, &refined, &trivial] {
        let none = generator.sample_each(&[], seed);
        assert!(matches!(none, Err(Error::Setting { setting: "conditions", .. })), "{}", generator.name());
    }
    let networks = trivial.sample_each(&[Condition::unknown(), Condition::unknown()], seed).expect("any condition");
    assert_eq!(networks.len(), 2);
    assert_ne!(networks.row(0), networks.row(1));
}

#[test]
fn a_restored_run_of_tasks_is_the_uninterrupted_run() {
    let data = task_set();
    let config = RefinerConfig { repulsion: 0.2, own_data: true, ..refiner_config() };
    let make = || trainer(config.clone(), &data).expect("the settings are in range");
    let whole = train(make(), 12);
    let mut second = make();
    second.restore(&train(make(), 5).save().unwrap()).expect("a state of this configuration");
    let resumed = train(second, 12);
    assert_eq!(resumed.save().unwrap(), whole.save().unwrap());
    let plain = train(trainer(refiner_config(), &data).unwrap(), 12).save().unwrap();
    assert_ne!(vector(&plain, "theta"), vector(&whole.save().unwrap(), "theta"));
    // Other tasks behind the same conditions are another training set.
    let (conditions, mut tasks) = (data.conditions.to_vec(), data.tasks.as_ref().unwrap().tasks.clone());
    tasks.rotate_left(1);
    let other = data.clone().with_tasks(&task_fields(), &conditions, tasks).unwrap();
    let error = trainer(config.clone(), &other).unwrap().restore(&whole.save().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Artifact { ref entry, .. } if entry == "fingerprint"), "{error}");
}

#[test]
fn a_saved_refiner_of_tasks_keeps_its_schema() {
    let data = task_set();
    let refiner = trained(20, &data);
    let saved = refiner.save();
    let load = |saved: &weft_gen::Artifact| Refiner::load(saved, data.codec.clone(), &Device::cpu());
    let loaded = load(&saved).expect("its own state");
    assert_eq!(loaded.save(), saved);
    let [tasks, _] = binary_tasks();
    let refine =
        |refiner: &Refiner, task: &Task| refiner.apply(&data.finals, &asks_for(task), Seed::new(1)).expect("a known field");
    assert_eq!(refine(&loaded, &tasks[0]), refine(&refiner, &tasks[0]));
    assert_ne!(refine(&refiner, &tasks[1]), refine(&refiner, &tasks[0]));
    let damages = vec![
        tensor("theta", |v| v.truncate(v.len() - 1)),
        tensor("theta", |v| v[7] = f32::NAN),
        tensor("field.task.seen", Vec::clear),
        text("field.task", "classes 0"),
        text("told", "levels"),
        without("fields"),
        without("field.task"),
        without("spacing.task"),
    ];
    check(&saved, damages, |saved| load(saved).map(drop));
    let mut wider = saved.clone();
    wider.metadata.insert("field.task".to_owned(), "classes 5".to_owned());
    assert!(matches!(load(&wider), Err(Error::Artifact { .. })), "the parameters are of another schema");
    let error = refiner.apply(&data.finals, &Condition::unknown().with("age", 3.0), Seed::new(1)).unwrap_err();
    assert!(error.to_string().contains("age"), "{error}");
    let error = refiner.apply_each(&data.finals, &[asks_for(&tasks[0])], Seed::new(1)).unwrap_err();
    assert!(matches!(error, Error::Setting { setting: "conditions", .. }));
}

#[test]
fn what_tasks_leave_undefined_is_refused() {
    let data = task_set();
    for (setting, config) in
        [("hinge", RefinerConfig { hinge: true, ..refiner_config() }), ("shell", RefinerConfig { shell: 0.1, ..refiner_config() })]
    {
        let error = trainer(config, &data).expect_err(setting);
        assert!(matches!(error, Error::Setting { setting: named, .. } if named == setting), "{error}");
    }
    let of_runs = data.tasks.as_ref().unwrap();
    let with = |fields: &[FieldSpec], conditions: &[Condition]| {
        data.clone().with_tasks(fields, conditions, of_runs.tasks.clone()).map(drop).unwrap_err().to_string()
    };
    assert!(with(&[], &data.conditions).contains("`conditions` must be fields of which `task` is one"));
    assert!(with(&task_fields(), &data.conditions[1..]).contains("35 conditions and 36 tasks for 36 runs"));
    // One task for all: networks of many outputs know none of theirs.
    let one = trained_set(Some(22));
    assert!(one.tasks.is_none() && trainer(RefinerConfig { steps: 1, ..refiner_config() }, &one).is_err());
}
