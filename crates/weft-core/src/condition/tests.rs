//! Fields of every type: what is encoded, what is refused, and what is said to lie beyond training.

use super::*;

fn spec(name: &str, kind: FieldType) -> FieldSpec {
    FieldSpec::new(name, kind)
}

fn with(name: &str, value: impl Into<Value>) -> Condition {
    Condition::unknown().with(name, value)
}

fn word(text: &str) -> Value {
    Value::Category(text.to_owned())
}

fn classes(text: &str) -> Value {
    Value::Classes(text.parse().unwrap())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn encodes_known_and_unknown_fields() {
    let specs = ["accuracy", "step", "absent"].map(FieldSpec::scalar);
    let conditions = [with("accuracy", 0.5).with("step", 10.0), with("accuracy", 0.9)];
    let schema = Schema::fit(&specs, &conditions).unwrap();
    assert_eq!(schema.fields.len(), 2);
    let code = schema.encode(&with("accuracy", 0.9)).unwrap();
    assert!((code[0] - 1.0).abs() < 1e-6);
    assert_eq!(code[1..], [1.0, 0.0, 0.0]);
}

#[test]
fn refuses_what_it_was_not_trained_on() {
    let schema = Schema::fit(&[FieldSpec::scalar("accuracy")], &[with("accuracy", 0.5)]).unwrap();
    let error = message(schema.encode(&with("acuracy", 0.5)));
    assert_eq!(error, "unknown condition field `acuracy`; known fields: `accuracy`");
    assert!(schema.encode(&with("accuracy", 7.0)).is_err());
    assert!(schema.encode(&with("accuracy", f64::NAN)).is_err());
    let error = message(schema.encode(&with("accuracy", word("high"))));
    assert_eq!(error, "condition field `accuracy` must be a number, got a word");
}

#[test]
fn every_type_has_its_place_and_is_dropped_alone() {
    let specs = [
        spec("optimizer", FieldType::Category),
        spec("task", FieldType::Classes { num_classes: Some(4) }),
        spec("place", FieldType::Vector),
        spec("phrase", FieldType::Text),
        FieldSpec::scalar("learning-rate"),
    ];
    let first = with("optimizer", word("sgd"))
        .with("task", classes("0+3"))
        .with("place", Value::Vector(vec![1.0, 5.0]))
        .with("phrase", text("hey jarvis"))
        .with("learning-rate", 1e-4);
    let second = with("optimizer", word("adam"))
        .with("task", classes("1"))
        .with("place", Value::Vector(vec![3.0, 5.0]))
        .with("learning-rate", 1e-2);
    let schema = Schema::fit(&specs, &[first.clone(), second.clone()]).unwrap();
    assert_eq!(schema.widths().collect::<Vec<_>>(), [3, 5, 3, TEXT_LEN + 1, 2]);
    let code = schema.encode(&first).unwrap();
    assert_eq!(code.len(), schema.encoded_len());
    // Words are in the order of the alphabet; an entry that does not vary is 0.
    assert_eq!(code[..11], [0.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, -1.0, 0.0, 1.0]);
    assert_eq!(code[11..11 + TEXT_LEN], embed_text("Hey Jarvis"));
    // 1e-4 and 1e-2 lie as far from 1e-3 as each other.
    assert!((code[12 + TEXT_LEN] + 1.0).abs() < 1e-6);
    assert_eq!(schema.encode(&second).unwrap()[11..12 + TEXT_LEN], [0.0; TEXT_LEN + 1]);
    assert_eq!(schema.encode(&Condition::unknown()).unwrap(), vec![0.0; schema.encoded_len()]);
}

#[test]
fn values_outside_of_a_type_name_the_field_and_what_it_wants() {
    let specs = [
        spec("optimizer", FieldType::Category),
        spec("task", FieldType::Classes { num_classes: None }),
        spec("place", FieldType::Vector),
        spec("phrase", FieldType::Text),
    ];
    let trained = with("optimizer", word("sgd"))
        .with("task", classes("0+3"))
        .with("place", Value::Vector(vec![1.0, 5.0]))
        .with("phrase", text("hey"));
    let schema = Schema::fit(&specs, &[trained]).unwrap();
    let check = |name: &str, value: Value, expected: &str| assert_eq!(message(schema.encode(&with(name, value))), expected);
    check("optimizer", word("adam"), "condition field `optimizer`: `adam` was not seen in training; known: `sgd`");
    check("task", classes("4"), "condition field `task` must be classes below 4, got `4`");
    check("place", Value::Vector(vec![0.0; 3]), "condition field `place` must be 2 numbers, got 3");
    check("place", Value::Vector(vec![0.0, f32::NAN]), "condition field `place` must be finite numbers, got NaN");
    check("phrase", text(" "), "condition field `phrase` must be a text with at least one character, got ` `");
    check("phrase", Value::Scalar(1.0), "condition field `phrase` must be a text, got a number");
}

#[test]
fn training_conditions_that_contradict_each_other_are_refused() {
    let fit = |kind, values: &[Value]| {
        let conditions: Vec<Condition> = values.iter().map(|v| with("x", v.clone())).collect();
        message(Schema::fit(&[spec("x", kind)], &conditions))
    };
    let vectors = [Value::Vector(vec![1.0]), Value::Vector(vec![1.0, 2.0])];
    assert_eq!(fit(FieldType::Vector, &vectors), "condition field `x` must be 1 numbers, as others have, got 2");
    assert!(fit(FieldType::Vector, &[Value::Vector(vec![f32::INFINITY])]).contains("finite"));
    assert!(fit(FieldType::Scalar(Scale::Linear), &[Value::Scalar(f64::NAN)]).contains("a finite number, got NaN"));
    assert!(fit(FieldType::Scalar(Scale::Log), &[Value::Scalar(-1.0)]).contains("not negative, got -1"));
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let error = fit(FieldType::Scalar(Scale::Log), &[Value::Scalar(value)]);
        assert!(error.contains(&format!("a finite number, got {value}")), "{error}");
    }
    assert!(fit(FieldType::Category, &[Value::Scalar(1.0)]).contains("must be a word"));
    assert!(fit(FieldType::Classes { num_classes: Some(3) }, &[classes("3")]).contains("classes below 3"));
    let error = fit(FieldType::Classes { num_classes: None }, &[classes("4000000000")]);
    assert_eq!(error, "condition field `x` takes 4000000001 numbers, more than 65535");
}

#[test]
fn a_weight_decay_of_zero_has_a_place_and_slack_is_a_ratio() {
    let specs = [FieldSpec::scalar("weight-decay")];
    let conditions = [0.0, 1e-4, 1e-2].map(|v| with("weight-decay", v));
    let schema = Schema::fit(&specs, &conditions).unwrap();
    let at = |v: f64| schema.encode(&with("weight-decay", v)).map(|code| code[0]);
    assert!(at(0.0).unwrap() < at(1e-4).unwrap() && at(1e-4).unwrap() < at(1e-2).unwrap());
    assert_eq!(at(0.0), at(1e-9));
    // The training range spans a ratio of 1e6, and so does the slack beyond it.
    assert!([1e-4, 1e-2, 0.1, 3.0].iter().all(|&v| Scale::Log.value_at(Scale::Log.of(v)).to_bits() == v.to_bits()));
    assert!(at(9e3).is_ok() && at(2e4).is_err() && at(-1e-3).is_err());
}

#[test]
fn texts_are_read_by_the_type_of_their_field() {
    let read = |kind, text: &str| spec("x", kind).read(text);
    let tasks = FieldType::Classes { num_classes: Some(10) };
    assert_eq!(read(FieldType::Scalar(Scale::Linear), " 0.5 "), Ok(Value::Scalar(0.5)));
    assert_eq!(read(tasks, "7+0"), Ok(classes("0+7")));
    assert_eq!(read(FieldType::Vector, "1, -2.5"), Ok(Value::Vector(vec![1.0, -2.5])));
    assert_eq!(read(FieldType::Category, "sgd"), Ok(word("sgd")));
    for value in [Value::Scalar(0.1), classes("0+7"), Value::Vector(vec![0.1, 1e-30]), text("hey, you")] {
        let kind = match value {
            Value::Scalar(_) => FieldType::Scalar(Scale::Linear),
            Value::Classes(_) => tasks,
            Value::Vector(_) => FieldType::Vector,
            _ => FieldType::Text,
        };
        assert_eq!(read(kind, &value.to_string()), Ok(value));
    }
    let check = |kind, text: &str, expected: &str| {
        assert_eq!(message(read(kind, text)), format!("condition field `x` must be {expected}, got `{text}`"));
    };
    check(FieldType::Scalar(Scale::Linear), "many", "a finite number");
    check(FieldType::Scalar(Scale::Linear), "NaN", "a finite number");
    check(tasks, "0+12", "a set of classes such as 0+3+7 (class 12 is not below 10)");
    check(tasks, "", "a set of classes such as 0+3+7 (`` is not a class)");
    check(FieldType::Vector, "1,inf", "finite numbers with commas between them");
    check(FieldType::Category, " ", "a word");
    check(FieldType::Text, "", "a text with at least one character");
}

#[test]
fn what_is_unlike_training_is_said_with_its_distance() {
    let specs =
        [FieldSpec::scalar("accuracy"), spec("task", FieldType::Classes { num_classes: Some(8) }), spec("phrase", FieldType::Text)];
    let tasks = ["0", "0+1", "0+1+2", "0+2"];
    let phrases = ["turn on the light", "turn off the light", "turn on the lights", "turn off the lights"];
    let conditions = tasks.iter().zip(phrases).enumerate();
    let conditions: Vec<Condition> = conditions
        .map(|(i, (task, phrase))| with("task", classes(task)).with("phrase", text(phrase)).with("accuracy", 0.9 + 0.01 * i as f64))
        .collect();
    let schema = Schema::fit(&specs, &conditions).unwrap();
    for condition in &conditions {
        assert_eq!(schema.extrapolations(condition), Ok(vec![]));
    }
    // One class away from a training task, as these are from each other.
    assert_eq!(schema.extrapolations(&with("task", classes("1+2"))), Ok(vec![]));
    let far = with("accuracy", 0.95).with("task", classes("5+6+7")).with("phrase", text("what is the weather"));
    let found = schema.extrapolations(&far).unwrap();
    assert_eq!(found.len(), 3);
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts[0], "extrapolating: `accuracy` = 0.95 lies 0.0200 from the nearest training value, 0.93");
    assert_eq!(
        texts[1],
        "extrapolating: `task` lies 2.000 from the nearest training value; 99 of 100 of these lie within 1.000 of another"
    );
    assert!(texts[2].starts_with("extrapolating: `phrase` lies 1."), "{}", texts[2]);
    assert!(schema.extrapolations(&with("accuracy", 2.0)).is_err());
}
