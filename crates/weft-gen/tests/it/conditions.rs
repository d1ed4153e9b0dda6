//! Flows under conditions of every type: what they learn from them, and what is saved of them.

use crate::hostile::{check, tensor, text, without};
use crate::support::{flow_config, heun, train};
use proptest::prelude::*;
use std::sync::Arc;
use weft_core::{ClassSet, Condition, FieldSpec, FieldType, Seed, Value};
use weft_gen::{Artifact, CodeFlow, CodeSet, FlowConfig, FlowTrainer};
use weft_net::Device;

fn condition(optimizer: &str, task: &str, place: [f32; 2], phrase: &str) -> Condition {
    let known = Condition::unknown().with("optimizer", Value::Category(optimizer.to_owned()));
    let known = known.with("task", task.parse::<ClassSet>().expect("a set of classes"));
    known.with("place", Value::Vector(place.to_vec())).with("phrase", Value::Text(phrase.to_owned()))
}

fn fields() -> Vec<FieldSpec> {
    let typed = [
        ("optimizer", FieldType::Category),
        ("task", FieldType::Classes { num_classes: Some(4) }),
        ("place", FieldType::Vector),
        ("phrase", FieldType::Text),
    ];
    typed.map(|(name, kind)| FieldSpec::new(name, kind)).to_vec()
}

/// Two tight clusters of codes at `±2`, with conditions of every type that say which.
fn clusters() -> CodeSet {
    let noise = Seed::new(3).normals(2 * 200);
    let codes: Vec<f32> = noise
        .chunks_exact(2)
        .enumerate()
        .flat_map(|(i, g)| [if i % 2 == 0 { 2.0 } else { -2.0 } + 0.2 * g[0], 0.2 * g[1]])
        .collect();
    let sides = [condition("adam", "0+1", [1.0, 0.3], "to the right side"), condition("sgd", "3", [-1.0, 0.2], "left, please")];
    let conditions = (0..200).map(|i| sides[i % 2].clone()).collect();
    let codes = Arc::new(codes);
    CodeSet { code_len: 2, codes: codes.clone(), final_codes: codes, conditions: Arc::new(conditions) }
}

fn trainer(steps: u64) -> FlowTrainer {
    let config = FlowConfig { conditions: fields(), condition_dropout: 0.5, steps, ..flow_config(&[]) };
    FlowTrainer::new(config, clusters(), Seed::new(7), &Device::cpu()).expect("the settings are in range")
}

#[test]
fn each_field_alone_says_where_samples_go() {
    let flow = train(trainer(4_000), 4_000).finish(heun(24, 1.0)).expect("the CPU gives its state");
    let right = |field: &str, value: Value| {
        let codes = flow.sample_codes(400, &Condition::unknown().with(field, value), Seed::new(4)).expect("a known condition");
        codes.chunks_exact(2).filter(|code| code[0] > 0.0).count()
    };
    let check = |field: &str, to_the_right: Value, to_the_left: Value| {
        let (right, left) = (right(field, to_the_right), right(field, to_the_left));
        assert!(right > left + 200, "`{field}`: {right} and {left} of 400 on the right");
    };
    let set = |text: &str| Value::Classes(text.parse().expect("a set of classes"));
    check("optimizer", Value::Category("adam".to_owned()), Value::Category("sgd".to_owned()));
    check("task", set("0+1"), set("3"));
    check("place", Value::Vector(vec![1.0, 0.25]), Value::Vector(vec![-1.0, 0.25]));
    // Words that training did not see in this form.
    check("phrase", Value::Text("on the right side".to_owned()), Value::Text("Left please".to_owned()));
    let error = flow.sample_codes(1, &Condition::unknown().with("optimizer", Value::Category("adamw".to_owned())), Seed::new(1));
    let error = error.expect_err("a word that was not seen").to_string();
    assert_eq!(error, "condition field `optimizer`: `adamw` was not seen in training; known: `adam`, `sgd`");
}

fn load(saved: &Artifact) -> weft_gen::Result<CodeFlow> {
    CodeFlow::load(saved, 2, heun(4, 1.0), &Device::cpu())
}

#[test]
fn a_saved_schema_is_the_same_and_damages_are_named() {
    let flow = train(trainer(4), 4).finish(heun(4, 1.0)).expect("the CPU gives its state");
    let saved = flow.save();
    let loaded = load(&saved).expect("its own state");
    assert_eq!((loaded.schema(), loaded.save()), (flow.schema(), saved.clone()));
    let damages = vec![
        text("field.optimizer", "category"),
        text("field.optimizer", "category\nsgd\nadam"),
        text("field.optimizer", "category\nsgd\nsgd"),
        text("field.task", "classes 0"),
        text("field.task", "classes -4"),
        text("field.task", "classes 18446744073709551615"),
        text("field.task", "classes 65536"),
        text("field.task", "sets 4"),
        text("field.phrase", "text\nmore"),
        text("spacing.place", "NaN"),
        text("spacing.place", "-1"),
        tensor("field.task.seen", |v| v.truncate(7)),
        tensor("field.task.seen", Vec::clear),
        tensor("field.phrase.seen", |v| v[3] = f32::NAN),
        tensor("field.place.mean", |v| v.push(0.0)),
        tensor("field.place.std", |v| v[1] = 0.0),
        without("field.place.std"),
        without("field.phrase.seen"),
        without("spacing.task"),
        without("field.task"),
    ];
    check(&saved, damages, |saved| load(saved).map(drop));
    // More classes than the network was laid out for: whatever is looked at first is named.
    let mut wider = saved;
    wider.metadata.insert("field.task".to_owned(), "classes 5".to_owned());
    assert!(load(&wider).is_err());
}

#[test]
fn names_that_look_like_entries_of_others_are_saved() {
    let names = ["a", "a.spacing", "a.seen", "spacing.a", "field.a"];
    let conditions = (0..12).map(|i| {
        let value = |at: usize| Value::Vector(vec![(i * (at + 1)) as f32, 0.5]);
        names.iter().enumerate().fold(Condition::unknown(), |known, (at, name)| known.with(name, value(at)))
    });
    let codes = Arc::new(Seed::new(1).normals(12));
    let data = CodeSet { code_len: 1, codes: codes.clone(), final_codes: codes, conditions: Arc::new(conditions.collect()) };
    let conditions = names.map(|name| FieldSpec::new(name, FieldType::Vector)).to_vec();
    let config = FlowConfig { conditions, ..flow_config(&[]) };
    let trainer = FlowTrainer::new(config, data, Seed::new(7), &Device::cpu()).expect("the settings are in range");
    let flow = trainer.finish(heun(4, 1.0)).expect("the CPU gives its state");
    let loaded = CodeFlow::load(&flow.save(), 1, heun(4, 1.0), &Device::cpu()).expect("its own state");
    assert_eq!(loaded.schema(), flow.schema());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn words_and_names_of_any_letters_are_saved(name in "\\PC{1,6}[\n\\\\]?\\PC{1,3}", words in prop::collection::btree_set("(?s).{1,8}", 1..6)) {
        let conditions: Vec<Condition> =
            words.iter().map(|word| Condition::unknown().with(&name, Value::Category(word.clone()))).collect();
        let codes = Arc::new(Seed::new(1).normals(conditions.len()));
        let data = CodeSet { code_len: 1, codes: codes.clone(), final_codes: codes, conditions: Arc::new(conditions) };
        let config = FlowConfig { conditions: vec![FieldSpec::new(&name, FieldType::Category)], ..flow_config(&[]) };
        let trainer = FlowTrainer::new(config, data, Seed::new(7), &Device::cpu()).expect("the settings are in range");
        let flow = trainer.finish(heun(4, 1.0)).expect("the CPU gives its state");
        let loaded = CodeFlow::load(&flow.save(), 1, heun(4, 1.0), &Device::cpu()).expect("its own state");
        prop_assert_eq!(loaded.schema(), flow.schema());
    }
}
