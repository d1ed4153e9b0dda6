//! The hyper-decoder: it solves tasks that it never saw, each part of its loss does something, and its state survives.

use crate::hostile::{check, tensor, text, without};
use crate::support::{accuracy_at, asks_for, binary_tasks, four_classes, task_set, train, trained_set, vector};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Condition, Seed, Task};
use weft_gen::{Artifact, Error, Generator, HyperConfig, HyperDecoder, HyperTrainer, Trainer as _, TrainingSet};
use weft_net::{Device, PopulationLoss};

pub(crate) fn config() -> HyperConfig {
    HyperConfig {
        code_weight: 0.1,
        task_weight: 1.0,
        steps: 20,
        batch_networks: 24,
        batch_examples: 32,
        learning_rate: 3e-3,
        weight_decay: 0.01,
        ema_decay: 0.9,
        width: 48,
        blocks: 1,
        mix: 0.0,
        condition_noise: 0.0,
        members: 1,
    }
}

pub(crate) fn trainer(config: HyperConfig, data: &TrainingSet) -> weft_gen::Result<HyperTrainer> {
    let loss = PopulationLoss::of_tasks(data.architecture().clone(), &four_classes(), &Device::cpu())?;
    HyperTrainer::new(config, data.clone(), loss, Seed::new(8), &Device::cpu())
}

fn trained(config: HyperConfig, data: &TrainingSet) -> HyperDecoder {
    let steps = config.steps;
    train(trainer(config, data).expect("the settings are in range"), steps).finish().expect("the CPU gives its state")
}

/// The mean accuracy at tasks of the networks for other tasks, or for the same.
fn accuracy(hyper: &HyperDecoder, tasks: &[Task], asked: &[Task]) -> f64 {
    let conditions: Vec<Condition> = asked.iter().map(asks_for).collect();
    accuracy_at(&hyper.sample_each(&conditions, Seed::new(0)).expect("conditions of the schema"), tasks)
}

#[test]
fn tasks_that_were_never_trained_are_solved_from_either_loss() {
    let data = task_set();
    let [tasks, held_out] = binary_tasks();
    let other = [held_out[1].clone(), held_out[0].clone()];
    for (code_weight, task_weight) in [(0.0, 1.0), (1.0, 0.0), (0.1, 1.0)] {
        let config = HyperConfig { code_weight, task_weight, steps: 400, ..config() };
        let hyper = trained(config, &data);
        let (seen, unseen) = (accuracy(&hyper, &tasks, &tasks), accuracy(&hyper, &held_out, &held_out));
        assert!(seen > 0.9 && unseen > 0.85, "weights {code_weight} and {task_weight}: {seen} of seen tasks, {unseen} of unseen");
        let exchanged = accuracy(&hyper, &held_out, &other);
        assert!(exchanged < 0.3, "the complement's condition reaches {exchanged}");
    }
}

#[test]
fn tasks_that_were_never_trained_are_solved_from_mixed_runs() {
    let data = task_set();
    let [tasks, held_out] = binary_tasks();
    let hyper = trained(HyperConfig { mix: 0.5, steps: 400, ..config() }, &data);
    let (seen, unseen) = (accuracy(&hyper, &tasks, &tasks), accuracy(&hyper, &held_out, &held_out));
    assert!(seen > 0.9 && unseen > 0.85, "{seen} of seen tasks, {unseen} of unseen");
}

#[test]
fn one_condition_is_one_network() {
    let data = task_set();
    let hyper = trained(config(), &data);
    let [tasks, _] = binary_tasks();
    let networks = hyper.sample(3, &asks_for(&tasks[0]), Seed::new(1)).unwrap();
    assert_eq!(networks, hyper.sample(3, &asks_for(&tasks[0]), Seed::new(2)).unwrap());
    assert_eq!((networks.len(), networks.row(0)), (3, networks.row(2)));
    let each = hyper.sample_each(&[asks_for(&tasks[1]), asks_for(&tasks[0])], Seed::new(3)).unwrap();
    weft_testkit::assert_close(each.row(1), networks.row(0), 1e-5);
    assert_ne!(each.row(0), each.row(1));
    assert!(matches!(hyper.sample_each(&[], Seed::new(3)), Err(Error::Setting { setting: "conditions", .. })));
    assert_eq!((hyper.name(), hyper.schema().fields.len()), ("hyper-decoder", 1));
    assert!(hyper.flops_per_sample() > 2.0 * (data.code_len() * data.finals.dim()) as f64);
    let error = hyper.sample(1, &Condition::unknown().with("age", 3.0), Seed::new(1)).unwrap_err();
    assert!(error.to_string().contains("age"), "{error}");
}

#[test]
fn an_untrained_hyper_decoder_gives_the_mean_code() {
    let data = task_set();
    let hyper = trainer(config(), &data).unwrap().finish().unwrap();
    let [tasks, _] = binary_tasks();
    let codes = hyper.codes(&[asks_for(&tasks[0])]).unwrap();
    let k = data.code_len();
    let n = (data.final_codes.len() / k) as f32;
    let mean: Vec<f32> = (0..k).map(|c| data.final_codes.iter().skip(c).step_by(k).sum::<f32>() / n).collect();
    weft_testkit::assert_close(&codes, &mean, 1e-5);
}

#[test]
fn every_part_of_the_loss_and_every_setting_counts() {
    let data = task_set();
    let theta = |config: HyperConfig| vector(&train(trainer(config, &data).unwrap(), 5).save().unwrap(), "theta");
    let plain = theta(config());
    assert!(plain == theta(config()), "the same settings give another hyper-decoder");
    for (what, config) in [
        ("code weight", HyperConfig { code_weight: 0.0, ..config() }),
        ("task weight", HyperConfig { task_weight: 0.0, ..config() }),
        ("weight decay", HyperConfig { weight_decay: 0.1, ..config() }),
        ("examples", HyperConfig { batch_examples: 8, ..config() }),
        ("mixing", HyperConfig { mix: 0.5, ..config() }),
        ("noise", HyperConfig { condition_noise: 0.1, ..config() }),
    ] {
        assert!(theta(config) != plain, "{what} changes nothing");
    }
    let flops = |config: HyperConfig| trainer(config, &data).unwrap().flops();
    let networks = 6.0 * data.finals.dim() as f64 * (32 * 24 * 20) as f64;
    let alone = flops(HyperConfig { task_weight: 0.0, ..config() });
    let more = flops(HyperConfig { mix: 0.5, ..config() }) - flops(config());
    assert!((more / networks - 0.5).abs() < 0.01, "half of the networks are run once more, {more}");
    assert!(flops(config()) > networks + alone && alone > 0.0);
}

#[test]
fn a_restored_run_is_the_uninterrupted_run_at_any_number_of_threads() {
    let data = task_set();
    let make = || trainer(config(), &data).unwrap();
    let whole = train(make(), 12);
    let first = train(make(), 5).save().unwrap();
    let mut second = make();
    second.restore(&first).unwrap();
    assert_eq!(second.step(), 5);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let resumed = pool.install(|| train(second, 12));
    assert_eq!(resumed.save().unwrap(), whole.save().unwrap());
    assert_eq!(resumed.finish().unwrap().save(), whole.finish().unwrap().save());
    let damages = vec![
        tensor("theta", |v| v.truncate(v.len() - 1)),
        tensor("average", |v| v[3] = f32::NAN),
        tensor("second-moment", Vec::clear),
        without("step"),
        text("step", "many"),
        text("fingerprint", "0000"),
    ];
    check(&first, damages, |saved| make().restore(saved));
    let mut other = trainer(HyperConfig { learning_rate: 1e-3, ..config() }, &data).unwrap();
    assert!(matches!(other.restore(&first), Err(Error::Artifact { entry, .. }) if entry == "fingerprint"));
}

#[test]
fn a_saved_hyper_decoder_decodes_the_same() {
    let data = task_set();
    let hyper = trained(config(), &data);
    let load = |saved: &Artifact| HyperDecoder::load(saved, data.codec.clone(), data.architecture().clone(), &Device::cpu());
    let saved = hyper.save();
    let loaded = load(&saved).expect("its own state");
    let [tasks, _] = binary_tasks();
    let sample = |hyper: &HyperDecoder| hyper.sample(1, &asks_for(&tasks[0]), Seed::new(1)).unwrap();
    assert_eq!((loaded.save(), sample(&loaded)), (saved.clone(), sample(&hyper)));
    let damages = vec![
        tensor("theta", |v| v.push(0.0)),
        tensor("theta", |v| v[7] = f32::INFINITY),
        tensor("code-mean", Vec::clear),
        tensor("code-std", |v| v[0] = f32::NAN),
        tensor("field.task.seen", |v| v.truncate(3)),
        without("code-std"),
        without("fields"),
        without("blocks"),
        text("width", "0"),
        text("width", "16385"),
        text("blocks", "-3"),
        text("field.task", "classes many"),
    ];
    check(&saved, damages, |saved| load(saved).map(drop));
    let other = HyperDecoder::load(&saved, Arc::new(Codec::raw(4)), data.architecture().clone(), &Device::cpu());
    assert!(matches!(other, Err(Error::Artifact { .. })));
}

#[test]
fn members_learn_apart_and_their_codes_are_averaged() {
    let data = task_set();
    let three = HyperConfig { members: 3, ..config() };
    let alone = trained(HyperConfig { members: 1, ..three.clone() }, &data).save();
    let hyper = trained(three.clone(), &data);
    assert_eq!(hyper.num_members(), 3);
    let saved = hyper.save();
    // The first is what it is without the others, but for rounding; none is another.
    weft_testkit::assert_close(&vector(&saved, "theta"), &vector(&alone, "theta"), 1e-4);
    let thetas = ["theta", "theta-1", "theta-2"].map(|name| vector(&saved, name));
    let apart = |a: usize, b: usize| crate::support::distance(&thetas[a], &thetas[b]);
    assert!(apart(0, 1) > 1.0 && apart(0, 2) > 1.0 && apart(1, 2) > 1.0);
    let load = |saved: &Artifact| HyperDecoder::load(saved, data.codec.clone(), data.architecture().clone(), &Device::cpu());
    let [_, held_out] = binary_tasks();
    let asked: Vec<Condition> = held_out.iter().map(asks_for).collect();
    let codes = hyper.codes(&asked).unwrap();
    assert_eq!(load(&saved).unwrap().codes(&asked).unwrap(), codes);
    // Without the number of members it is the file of a single one.
    let single = |theta: &Vec<f32>| {
        let mut single = saved.clone().with_vector("theta", theta);
        single.metadata.remove("members");
        let single = load(&single).unwrap();
        assert_eq!(single.num_members(), 1);
        single.codes(&asked).unwrap()
    };
    let each = thetas.each_ref().map(single);
    let mean: Vec<f32> = (0..codes.len()).map(|i| each.iter().map(|codes| codes[i]).sum::<f32>() / 3.0).collect();
    weft_testkit::assert_close(&codes, &mean, 1e-5);
    let flops = |config: &HyperConfig| trainer(config.clone(), &data).unwrap().flops();
    assert!((flops(&three) / flops(&HyperConfig { members: 1, ..three.clone() }) - 3.0).abs() < 1e-9);
    assert!(hyper.flops_per_sample() > load(&alone).unwrap().flops_per_sample());
    let damages = vec![
        without("theta-2"),
        tensor("theta-1", |v| v.truncate(3)),
        tensor("theta-2", |v| v[5] = f32::NAN),
        text("members", "0"),
        text("members", "65"),
        text("members", "some"),
    ];
    check(&saved, damages, |saved| load(saved).map(drop));
    let fourth = load(&saved.with_text("members", 4)).unwrap_err();
    assert!(matches!(&fourth, Error::Artifact { entry, .. } if entry == "theta-3"), "{fourth}");
}

#[test]
fn restored_members_go_on_as_if_they_had_not_stopped() {
    let data = task_set();
    let make = || trainer(HyperConfig { members: 2, mix: 0.5, condition_noise: 0.2, ..config() }, &data).unwrap();
    let whole = train(make(), 9);
    let first = train(make(), 4).save().unwrap();
    let mut second = make();
    second.restore(&first).unwrap();
    assert_eq!(second.step(), 4);
    assert_eq!(train(second, 9).save().unwrap(), whole.save().unwrap());
    let damages = vec![tensor("theta-1", |v| v.truncate(2)), without("first-moment-1"), tensor("average-1", |v| v[0] = f32::NAN)];
    check(&first, damages, |saved| make().restore(saved));
    // What one member lacks leaves the others as they were.
    let mut untouched = make();
    let before = untouched.save().unwrap();
    let mut lacking = first.clone();
    lacking.tensors.remove("second-moment-1");
    untouched.restore(&lacking).unwrap_err();
    assert_eq!(untouched.save().unwrap(), before);
    let single = trainer(HyperConfig { mix: 0.5, condition_noise: 0.2, ..config() }, &data).unwrap().restore(&first);
    assert!(matches!(single, Err(Error::Artifact { entry, .. }) if entry == "fingerprint"));
}

#[test]
fn settings_out_of_range_are_named() {
    let data = task_set();
    for (setting, config) in [
        ("code-weight", HyperConfig { code_weight: -1.0, ..config() }),
        ("task-weight", HyperConfig { task_weight: f64::NAN, ..config() }),
        ("task-weight", HyperConfig { code_weight: 0.0, task_weight: 0.0, ..config() }),
        ("steps", HyperConfig { steps: 0, ..config() }),
        ("batch-networks", HyperConfig { batch_networks: 0, ..config() }),
        ("batch-examples", HyperConfig { batch_examples: 0, ..config() }),
        ("learning-rate", HyperConfig { learning_rate: 0.0, ..config() }),
        ("weight-decay", HyperConfig { weight_decay: f64::INFINITY, ..config() }),
        ("ema-decay", HyperConfig { ema_decay: 1.0, ..config() }),
        ("width", HyperConfig { width: 0, ..config() }),
        ("blocks", HyperConfig { blocks: 257, ..config() }),
        ("condition-noise", HyperConfig { condition_noise: -0.1, ..config() }),
        ("condition-noise", HyperConfig { condition_noise: f64::INFINITY, ..config() }),
        ("members", HyperConfig { members: 0, ..config() }),
        ("members", HyperConfig { members: 65, ..config() }),
        ("mix", HyperConfig { mix: 1.5, ..config() }),
        ("mix", HyperConfig { mix: f64::NAN, ..config() }),
    ] {
        let error = trainer(config, &data).expect_err(setting);
        assert!(matches!(error, Error::Setting { setting: named, .. } if named == setting), "{error}");
    }
    let one = trained_set(Some(22));
    let error = trainer(config(), &one).expect_err("networks of one task");
    assert!(matches!(error, Error::Setting { setting: "tasks", .. }), "{error}");
}
