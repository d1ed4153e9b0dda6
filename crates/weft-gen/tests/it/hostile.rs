//! States that were damaged, or belong to something else, are refused with the entry's name.

use crate::support::{
    flow_config, flow_trainer, heun, noisy, points, random_set, refiner_config, refiner_trainer, restored, train, trained_set,
};
use std::sync::Arc;
use weft_codec::Codec;
use weft_core::{Condition, Seed};
use weft_gen::{Artifact, Error, Flow, FlowConfig, FlowTrainer, Refiner, RefinerConfig, RefinerTrainer, Trainer as _};
use weft_net::{Device, PopulationLoss};

/// A damage and the entry that the error must name.
pub(crate) type Damage = (&'static str, Box<dyn Fn(&mut Artifact)>);

pub(crate) fn tensor(name: &'static str, change: impl Fn(&mut Vec<f32>) + 'static) -> Damage {
    (name, Box::new(move |saved| change(&mut saved.tensors.get_mut(name).expect("the entry is saved").1)))
}

pub(crate) fn text(key: &'static str, value: &'static str) -> Damage {
    (key, Box::new(move |saved| saved.metadata.extend([(key.to_owned(), value.to_owned())])))
}

pub(crate) fn without(name: &'static str) -> Damage {
    let remove = move |saved: &mut Artifact| {
        let found = saved.tensors.remove(name).is_some() | saved.metadata.remove(name).is_some();
        assert!(found, "`{name}` is not saved");
    };
    (name, Box::new(remove))
}

/// Each damage alone is refused with its entry's name; the undamaged state is not.
pub(crate) fn check(saved: &Artifact, damages: Vec<Damage>, load: impl Fn(&Artifact) -> Result<(), Error>) {
    load(saved).expect("the undamaged state");
    for (at, (entry, damage)) in damages.into_iter().enumerate() {
        let mut damaged = saved.clone();
        damage(&mut damaged);
        let error = load(&damaged).expect_err("a damaged state");
        let named = matches!(&error, Error::Artifact { entry: named, .. } if named == entry);
        assert!(named, "damage {at} of `{entry}`: {error:?}");
    }
}

/// Damages of a state in training.
fn training_damages() -> Vec<Damage> {
    vec![
        tensor("theta", |v| v.truncate(v.len() - 1)),
        tensor("theta", |v| v[3] = f32::NAN),
        tensor("average", |v| v.push(0.0)),
        tensor("first-moment", Vec::clear),
        tensor("second-moment", |v| v[0] = f32::INFINITY),
        without("average"),
        without("step"),
        text("step", "-1"),
        text("step", "many"),
        without("fingerprint"),
        text("fingerprint", "0000"),
    ]
}

#[test]
fn flow_in_training() {
    let resume = |saved: &Artifact| {
        let config = flow_config(&["accuracy", "step"]);
        let trainer = FlowTrainer::new(config, random_set().code_set(), Seed::new(7), &Device::cpu())?;
        restored(trainer, saved).map(drop)
    };
    let saved = train(flow_trainer(), 2).save().expect("the CPU gives its state");
    check(&saved, training_damages(), resume);
    let of_another = |config: FlowConfig, seed: u64| {
        let trainer = FlowTrainer::new(config, random_set().code_set(), Seed::new(seed), &Device::cpu())?;
        restored(trainer, &saved)
    };
    let config = flow_config(&["accuracy", "step"]);
    let fingerprint = |error: Error| matches!(error, Error::Artifact { entry, .. } if entry == "fingerprint");
    assert!(fingerprint(of_another(config.clone(), 8).expect_err("another seed")));
    assert!(fingerprint(of_another(FlowConfig { learning_rate: 1e-3, ..config }, 7).expect_err("another configuration")));
}

#[test]
fn trained_flow() {
    let data = random_set();
    let load = |saved: &Artifact| {
        Flow::load(saved, data.codec.clone(), data.architecture().clone(), heun(4, 1.0), &Device::cpu()).map(drop)
    };
    let saved = train(flow_trainer(), 2).finish(heun(4, 1.0)).expect("the codec knows its rows").save();
    let damages = vec![
        tensor("theta", |v| v.truncate(10)),
        tensor("theta", |v| v[0] = f32::NAN),
        tensor("code-mean", Vec::clear),
        tensor("code-std", |v| v[1] = f32::NEG_INFINITY),
        tensor("residual-std", |v| v.push(1.0)),
        without("theta"),
        without("fields"),
        text("width", "0"),
        text("width", "99999999999999999999"),
        text("width", "1000000000"),
        text("blocks", "x"),
        text("field.accuracy", "scalar linear 0.5 0.0 0.1 0.9"),
        text("field.accuracy", "scalar linear NaN NaN NaN NaN"),
        text("field.accuracy", "half"),
        text("field.accuracy", "scalar cubic 0.5 0.1 0.1 0.9"),
        text("field.accuracy", "scalar linear 0.5 0.1 0.9 0.1"),
        text("field.accuracy", "scalar linear 0.5 0.1 0.1 0.9 0.9"),
        text("fields", "step\nstep"),
        without("field.step"),
    ];
    check(&saved, damages, load);
    // A codec of another length.
    let other = Flow::load(&saved, Arc::new(Codec::raw(5)), data.architecture().clone(), heun(4, 1.0), &Device::cpu());
    assert!(matches!(other, Err(Error::Artifact { .. })));
    // Fields that the network was not laid out for.
    let mut fewer = saved;
    fewer.metadata.insert("fields".to_owned(), "step".to_owned());
    assert!(matches!(load(&fewer), Err(Error::Artifact { .. })));
}

#[test]
fn refiner_in_training() {
    let data = trained_set(Some(22));
    let saved = train(refiner_trainer(refiner_config(), &data), 2).save().expect("the CPU gives its state");
    let restore = |saved: &Artifact| refiner_trainer(refiner_config(), &data).restore(saved);
    check(&saved, training_damages(), restore);
    let mut other = refiner_trainer(RefinerConfig { hinge: true, ..refiner_config() }, &data);
    let error = other.restore(&saved).expect_err("another configuration");
    assert!(matches!(error, Error::Artifact { entry, .. } if entry == "fingerprint"));
    assert_eq!(other.step(), 0);
}

#[test]
fn trained_refiner() {
    let data = trained_set(Some(22));
    let saved = train(refiner_trainer(refiner_config(), &data), 2).finish().expect("the CPU gives its state").save();
    let load = |saved: &Artifact| Refiner::load(saved, data.codec.clone(), &Device::cpu()).map(drop);
    let damages = vec![
        tensor("theta", |v| v.truncate(v.len() - 1)),
        tensor("theta", |v| v[7] = f32::NAN),
        tensor("levels", Vec::clear),
        tensor("levels", |v| v[0] = f32::NAN),
        without("theta"),
        without("levels"),
        without("own-data"),
        text("own-data", "maybe"),
        text("width", "0"),
        text("width", "16385"),
        text("blocks", "-3"),
    ];
    check(&saved, damages, load);
    assert!(matches!(Refiner::load(&saved, Arc::new(Codec::raw(4)), &Device::cpu()), Err(Error::Artifact { .. })));
}

#[test]
fn settings_out_of_range_are_named() {
    let flow = |config: FlowConfig| FlowTrainer::new(config, random_set().code_set(), Seed::new(7), &Device::cpu()).map(drop);
    let base = || flow_config(&[]);
    for (setting, config) in [
        ("width", FlowConfig { width: 0, ..base() }),
        ("blocks", FlowConfig { blocks: 257, ..base() }),
        ("batch-size", FlowConfig { batch_size: 0, ..base() }),
        ("steps", FlowConfig { steps: 0, ..base() }),
        ("learning-rate", FlowConfig { learning_rate: f64::NAN, ..base() }),
        ("clip-norm", FlowConfig { clip_norm: 0.0, ..base() }),
        ("ema-decay", FlowConfig { ema_decay: 1.0, ..base() }),
        ("condition-dropout", FlowConfig { condition_dropout: -0.1, ..base() }),
    ] {
        let error = flow(config).expect_err(setting);
        assert!(matches!(error, Error::Setting { setting: named, .. } if named == setting), "{error}");
    }
    let data = trained_set(Some(22));
    let refiner = |config: RefinerConfig| {
        let loss = PopulationLoss::new(data.architecture().clone(), &points(), &Device::cpu())?;
        let proposal = noisy(&data, 0.4);
        let unknown = Condition::unknown();
        RefinerTrainer::new(config, (&proposal, &unknown), data.clone(), loss, Seed::new(8), &Device::cpu()).map(drop)
    };
    let base = refiner_config;
    for (setting, config) in [
        ("mu", RefinerConfig { mu: -1.0, ..base() }),
        ("shell", RefinerConfig { shell: f64::NAN, ..base() }),
        ("repulsion", RefinerConfig { repulsion: f64::INFINITY, ..base() }),
        ("steps", RefinerConfig { steps: 0, ..base() }),
        ("batch-networks", RefinerConfig { batch_networks: 1, ..base() }),
        ("batch-examples", RefinerConfig { batch_examples: 0, ..base() }),
        ("pool", RefinerConfig { pool: 15, ..base() }),
        ("width", RefinerConfig { width: 20_000, ..base() }),
        ("blocks", RefinerConfig { blocks: 1_000, ..base() }),
        ("learning-rate", RefinerConfig { learning_rate: 0.0, ..base() }),
    ] {
        let error = refiner(config).expect_err(setting);
        assert!(matches!(error, Error::Setting { setting: named, .. } if named == setting), "{error}");
    }
}
