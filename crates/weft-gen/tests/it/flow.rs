//! Flow training and sampling: bit-for-bit resumption, what it learns, conditions, guidance, files.

use crate::support::{RANK, flow_config, flow_trainer, heun, moments, random_set, restored, train, two_clusters, vector};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use weft_core::{Condition, Event, Monitor, Population, Seed};
use weft_gen::{Error, Flow, FlowConfig, FlowTrainer, Generator, Sampler, SamplerConfig, Trainer as _};
use weft_net::Device;

fn resume(saved: &weft_gen::Artifact) -> FlowTrainer {
    restored(flow_trainer(), saved).expect("a state of this configuration")
}

#[test]
fn a_resumed_run_is_the_uninterrupted_run() {
    let whole = train(flow_trainer(), 20);
    let first = train(flow_trainer(), 7);
    assert_eq!(first.step(), 7);
    let resumed = train(resume(&first.save().unwrap()), 20);
    assert_eq!(resumed.save().unwrap(), whole.save().unwrap());
    let flow = |t: FlowTrainer| t.finish(heun(8, 1.0)).and_then(|codes| codes.decoded_by(&random_set()));
    let (a, b) = [whole, resumed].map(|t| flow(t).expect("the codec knows its rows")).into();
    let samples = |flow: &Flow| flow.sample(6, &Condition::unknown(), Seed::new(1)).expect("an unknown condition is fine");
    assert_eq!(samples(&a), samples(&b));
    // A run does not go past its end.
    assert_eq!(train(flow_trainer(), 1_000).step(), 20);
}

#[test]
fn two_devices_train_the_flow_of_one_and_go_on_from_its_state() {
    let config = || flow_config(&["accuracy", "step"]);
    let on_two =
        || FlowTrainer::new(config(), random_set().code_set(), Seed::new(7), &Device::cpus(2)).expect("the settings are in range");
    let [mut one, mut two] = [flow_trainer(), on_two()];
    for until in 1..=20 {
        let [a, b] = [&mut one, &mut two].map(|trainer| trainer.advance(until, &Monitor::silent()).unwrap());
        assert!((a - b).abs() < 1e-4 * a, "step {until}: losses {a} and {b}");
    }
    let theta = |trainer: &FlowTrainer| trainer.save().unwrap().tensors["theta"].1.clone();
    let apart = theta(&one).iter().zip(theta(&two)).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
    assert!(apart < 1e-3, "parameters are {apart} apart");
    // A state is not of a number of devices.
    let saved = train(on_two(), 7).save().unwrap();
    let resume_on = |devices| {
        let trainer = FlowTrainer::new(config(), random_set().code_set(), Seed::new(7), &Device::cpus(devices));
        let resumed = trainer.and_then(|trainer| restored(trainer, &saved));
        train(resumed.expect("a state of this configuration"), 20)
    };
    assert_eq!(resume_on(2).save().unwrap(), two.save().unwrap());
    assert_eq!(resume_on(1).step(), 20);
}

#[test]
fn a_state_is_of_its_training_set() {
    let saved = train(flow_trainer(), 2).save().expect("the CPU gives its state");
    let refused = |change: &dyn Fn(&mut weft_gen::CodeSet)| {
        let mut data = random_set().code_set();
        change(&mut data);
        let trainer = FlowTrainer::new(flow_config(&["accuracy", "step"]), data, Seed::new(7), &Device::cpu());
        let error = trainer.and_then(|trainer| restored(trainer, &saved)).expect_err("another training set");
        assert!(matches!(&error, Error::Artifact { entry, .. } if entry == "fingerprint"), "{error}");
    };
    // The same values in another order: the schema is the same.
    refused(&|data| Arc::make_mut(&mut data.conditions).rotate_left(1));
    refused(&|data| Arc::make_mut(&mut data.codes)[3] += 0.5);
    refused(&|data| Arc::make_mut(&mut data.final_codes)[3] += 0.5);
}

#[test]
fn an_interrupt_comes_after_a_whole_step() {
    let stop = AtomicBool::new(false);
    let sink = |event| {
        if event == (Event::Progress { done: 5 }) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    let mut trainer = flow_trainer();
    let error = trainer.advance(20, &Monitor::new(&sink, &stop)).expect_err("the monitor asked for a stop");
    assert!(matches!(error, Error::Interrupted), "{error}");
    assert_eq!(trainer.step(), 5);
    assert_eq!(train(resume(&trainer.save().unwrap()), 20).save().unwrap(), train(flow_trainer(), 20).save().unwrap());
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of a few threads");
        pool.install(|| train(flow_trainer(), 4).save().unwrap())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn an_untrained_flow_is_the_gaussian_with_the_moments_of_the_codes() {
    let data = random_set();
    let trainer =
        FlowTrainer::new(flow_config(&[]), data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range");
    let flow = trainer.finish(SamplerConfig { sampler: Sampler::Rk4, steps: 24, guidance_scale: 1.0 }).expect("a codec");
    let codes = flow.sample_codes(4_000, &Condition::unknown(), Seed::new(2)).expect("an unknown condition is fine");
    let (mean, std) = moments(&data.final_codes, RANK);
    let (got_mean, got_std) = moments(&codes, RANK);
    for i in 0..RANK {
        assert!((got_mean[i] - mean[i]).abs() < 0.08 * std[i], "code {i}: mean {} for {}", got_mean[i], mean[i]);
        assert!((got_std[i] / std[i] - 1.0).abs() < 0.06, "code {i}: deviation {} for {}", got_std[i], std[i]);
    }
}

/// A flow that has learned the two clusters, once for all tests.
fn clusters() -> Flow {
    static FLOW: OnceLock<Flow> = OnceLock::new();
    FLOW.get_or_init(|| {
        let config = FlowConfig { steps: 1_200, batch_size: 256, warmup_steps: 50, weight_decay: 0.0, ..flow_config(&["side"]) };
        let mut trainer =
            FlowTrainer::new(config, two_clusters().code_set(), Seed::new(9), &Device::cpu()).expect("settings in range");
        let first = trainer.advance(50, &Monitor::silent()).expect("training goes through");
        trainer.advance(1_150, &Monitor::silent()).expect("training goes through");
        let last = trainer.advance(1_200, &Monitor::silent()).expect("training goes through");
        assert!(last < 0.8 * first, "the loss fell from {first} to {last} only");
        trainer.finish(heun(32, 1.0)).and_then(|codes| codes.decoded_by(&two_clusters())).expect("codes are weights")
    })
    .clone()
}

fn draw(flow: &Flow, condition: &Condition) -> Population {
    flow.sample(1_000, condition, Seed::new(4)).expect("a known condition")
}

fn side(value: f64) -> Condition {
    Condition::unknown().with("side", value)
}

/// The fractions of samples within 1 of the left and of the right cluster's center.
fn shares(samples: &Population) -> [f64; 2] {
    [-2.0f32, 2.0].map(|center| {
        let near = samples.rows().filter(|row| (row[0] - center).hypot(row[1]) < 1.0).count();
        near as f64 / samples.len() as f64
    })
}

#[test]
fn learns_two_clusters() {
    let [left, right] = shares(&draw(&clusters(), &Condition::unknown()));
    assert!(left + right > 0.95, "{left} and {right} of the samples are in the clusters");
    assert!((left - right).abs() < 0.15, "{left} and {right} of the samples are in the clusters");
}

#[test]
fn follows_its_condition() {
    let flow = clusters();
    assert!(shares(&draw(&flow, &side(1.0)))[1] > 0.95);
    assert!(shares(&draw(&flow, &side(-1.0)))[0] > 0.95);
}

#[test]
fn guidance_extrapolates_from_unknown_to_known() {
    let flow = clusters();
    let at = |scale| draw(&flow.clone().with_sampler(heun(32, scale)), &side(1.0));
    // Scale 0 leaves the unconditional velocity, 1 the conditional one; nothing known is the same at any scale.
    assert_eq!(at(0.0), draw(&flow, &Condition::unknown()));
    assert_eq!(at(1.0), draw(&flow, &side(1.0)));
    let free = flow.clone().with_sampler(heun(32, 3.0));
    assert_eq!(draw(&free, &Condition::unknown()), draw(&flow, &Condition::unknown()));
    let share = |samples: &Population| samples.rows().filter(|row| row[0] > 0.0).count();
    let [none, half, whole] = [0.0, 0.5, 1.0].map(|scale| share(&at(scale)));
    assert!(none < half && half <= whole, "{none}, {half} and {whole} of 1,000 on the right");
    assert_ne!(at(3.0), at(1.0));
}

#[test]
fn fields_guide_by_themselves() {
    let flow = clusters();
    let by = |field: &str, scale: f64| flow.clone().guided_by(&[(field.to_owned(), scale)].into());
    let at = |flow: &Flow| draw(flow, &side(1.0));
    // Of one field, its own scale and that of the whole condition are the same, rounding aside.
    for scale in [0.0, 0.5, 3.0] {
        let (own, whole) = (at(&by("side", scale).expect("its field")), at(&flow.clone().with_sampler(heun(32, scale))));
        let apart = own.data().iter().zip(whole.data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(apart < 1e-3, "{apart} at {scale}");
    }
    let guided = by("side", 3.0).expect("its field");
    assert_eq!(at(&by("side", 1.0).expect("its field")), at(&flow));
    assert_eq!(draw(&guided, &Condition::unknown()), draw(&flow, &Condition::unknown()));
    assert!(guided.flops_per_sample() > 1.9 * flow.flops_per_sample() - 1e4, "one more evaluation a step");
    let error = by("sides", 2.0).expect_err("a misspelled field").to_string();
    assert!(error.contains("`sides`") && error.contains("`side`"), "{error}");
    assert!(by("side", f64::NAN).is_err());
}

#[test]
fn conditions_that_it_was_not_trained_on_are_errors() {
    let flow = train(flow_trainer(), 1).finish(heun(4, 1.0)).expect("a codec");
    let names: Vec<&str> = flow.schema().fields.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["accuracy", "step"]);
    let sample = |condition: Condition| flow.sample_codes(2, &condition, Seed::new(1));
    let error = sample(Condition::unknown().with("acuracy", 0.9)).expect_err("a misspelled field");
    assert_eq!(error.to_string(), "unknown condition field `acuracy`; known fields: `accuracy`, `step`");
    assert!(sample(Condition::unknown().with("accuracy", 40.0)).is_err(), "far outside of the training range");
    assert!(sample(Condition::unknown().with("accuracy", f64::NAN)).is_err());
    let part = sample(Condition::unknown().with("accuracy", 0.9)).expect("one field of two may be unknown");
    assert_eq!(part.len(), 2 * RANK);
    let trainer = FlowTrainer::new(flow_config(&["loss"]), random_set().code_set(), Seed::new(7), &Device::cpu());
    let error = trainer.expect_err("no training checkpoint knows its loss");
    assert!(error.to_string().contains("`conditions`") && error.to_string().contains("loss"), "{error}");
}

#[test]
fn a_saved_flow_samples_the_same() {
    let data = random_set();
    for residual_noise in [false, true] {
        let config = FlowConfig { residual_noise, ..flow_config(&["accuracy"]) };
        let trainer = FlowTrainer::new(config, data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range");
        let flow = train(trainer, 5).finish(heun(6, 2.0)).and_then(|codes| codes.decoded_by(&data)).expect("its own rows");
        let saved = flow.save();
        let loaded = Flow::load(&saved, data.codec.clone(), data.architecture().clone(), heun(6, 2.0), &Device::cpu());
        let loaded = loaded.expect("its own state");
        assert_eq!(loaded.schema(), flow.schema());
        assert_eq!(loaded.save(), saved);
        let condition = Condition::unknown().with("accuracy", 0.8);
        let samples = |flow: &Flow| flow.sample(5, &condition, Seed::new(3)).expect("a known condition");
        assert_eq!(samples(&loaded), samples(&flow));
        assert_eq!(vector(&saved, "residual-std").len(), if residual_noise { data.finals.dim() } else { 0 });
        assert!((loaded.flops_per_sample() - flow.flops_per_sample()).abs() < 0.5);
    }
}

#[test]
fn costs_count_evaluations_and_guidance() {
    let data = random_set();
    let trainer = |steps| {
        let config = FlowConfig { steps, ..flow_config(&["accuracy"]) };
        FlowTrainer::new(config, data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range")
    };
    assert!((trainer(40).flops() / trainer(20).flops() - 2.0).abs() < 1e-9);
    let trained = trainer(20).flops() / (20.0 * 64.0);
    let flow = trainer(20).finish(heun(5, 1.0)).and_then(|codes| codes.decoded_by(&data)).expect("its own rows");
    // Forward and backward of a row cost three forward passes; Heun's rule runs two a step.
    let decode = 2.0 * (RANK * data.finals.dim()) as f64;
    let cost = |sampler| flow.clone().with_sampler(sampler).flops_per_sample() - decode;
    assert!((cost(heun(5, 1.0)) / (10.0 * trained / 3.0) - 1.0).abs() < 1e-9);
    assert!((cost(heun(5, 2.0)) / cost(heun(5, 1.0)) - 2.0).abs() < 1e-9, "guidance runs the network twice");
    assert!((cost(SamplerConfig { sampler: Sampler::Rk4, ..heun(5, 1.0) }) / cost(heun(5, 1.0)) - 2.0).abs() < 1e-9);
}

#[test]
fn residual_noise_gives_weights_back_the_variance_that_the_codec_drops() {
    let data = random_set();
    let spread = |residual_noise| {
        let config = FlowConfig { residual_noise, ..flow_config(&[]) };
        let trainer = FlowTrainer::new(config, data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range");
        let flow = trainer.finish(heun(24, 1.0)).and_then(|codes| codes.decoded_by(&data)).expect("its own rows");
        let samples = flow.sample(2_000, &Condition::unknown(), Seed::new(3)).expect("an unknown condition is fine");
        moments(samples.data(), samples.dim()).1.iter().map(|s| s * s).sum::<f64>()
    };
    let dropped: f32 = data.codec.residual_variance(data.finals.data()).expect("its own rows").iter().sum();
    let added = spread(true) - spread(false);
    assert!((added / f64::from(dropped) - 1.0).abs() < 0.1, "variance {added} added, {dropped} dropped");
}
