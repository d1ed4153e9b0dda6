//! Ridge regression from conditions to codes: what is linear it solves, and it draws nothing but which conditions it leaves out.

use crate::support::{accuracy_at, asks_for, binary_tasks, task_fields, task_set};
use weft_core::{Condition, Schema, Seed, Task};
use weft_gen::{Error, Generator, RidgeGenerator};

#[test]
fn a_task_is_reached_from_its_classes() {
    let set = task_set();
    let schema = Schema::fit(&task_fields(), &set.conditions).expect("tasks are sets of classes");
    let [tasks, held_out] = binary_tasks();
    for seed in 0..4 {
        let ridge = RidgeGenerator::fit(set.clone(), schema.clone(), Seed::new(seed)).expect("conditions of the schema");
        let sample = |tasks: &[Task], seed: u64| {
            let conditions: Vec<Condition> = tasks.iter().map(asks_for).collect();
            ridge.sample_each(&conditions, Seed::new(seed)).expect("tasks of the schema")
        };
        assert_eq!(sample(&tasks, 2), sample(&tasks, 3), "the seed of sampling matters");
        let (seen, unseen) = (accuracy_at(&sample(&tasks, 2), &tasks), accuracy_at(&sample(&held_out, 2), &held_out));
        assert!(seen > 0.85 && unseen > 0.85, "seed {seed}: {seen} of seen tasks, {unseen} of unseen");
    }
}

#[test]
fn there_must_be_a_field() {
    let refused = RidgeGenerator::fit(task_set(), Schema::default(), Seed::new(1)).expect_err("no field");
    assert!(matches!(refused, Error::Setting { setting: "conditions", .. }), "{refused}");
}
