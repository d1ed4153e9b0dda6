//! Expressions that choose checkpoints: the language, its SQL, and what a hostile text can do to either (nothing).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use proptest::prelude::*;
use std::collections::BTreeMap;
use support::{architecture, runs};
use weft_core::{Digest, Record};
use weft_zoo::{Comparison, Entry, Error, Expr, Filter, Literal, Name, SortKey, Zoo};

fn name() -> impl Strategy<Value = Name> {
    prop_oneof!["[a-z_][a-z0-9_.-]{0,8}", "\\PC{1,6}", "and|or|not|is|true", "[`\"' ]{1,3}"]
        .prop_map(|text| Name { text, column: 0 })
}

fn literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        "\\PC{0,8}".prop_map(Literal::Text),
        "[\"'\\\\%\n]{0,4}".prop_map(Literal::Text),
        any::<f64>().prop_filter("a finite number", |x| x.is_finite()).prop_map(Literal::Number),
        any::<bool>().prop_map(Literal::Flag),
    ]
}

fn comparison() -> impl Strategy<Value = Comparison> {
    use Comparison::{AtLeast, AtMost, Equal, Greater, Less, Unequal};
    prop::sample::select(vec![Equal, Unequal, Less, AtMost, Greater, AtLeast])
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![
        name().prop_map(Expr::Flag),
        name().prop_map(Expr::Known),
        (name(), comparison(), literal()).prop_map(|(name, comparison, value)| Expr::Compare(name, comparison, value)),
        (name(), prop::collection::vec(literal(), 1..4)).prop_map(|(name, values)| Expr::In(name, values)),
        (name(), "[a-z\"%_\\\\]{0,6}").prop_map(|(name, pattern)| Expr::Like(name, pattern)),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::All),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Any),
            inner.prop_map(|term| Expr::Not(Box::new(term))),
        ]
    })
}

/// Words of the language in any order: far more of these reach the parser's depths than random characters do.
fn soup() -> impl Strategy<Value = String> {
    let words =
        ["and", "or", "not", "in", "like", "is", "known", "(", ")", ",", "=", "<=", "\"a\"", "'", "`", "run", "accuracy", "1", "-"];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..30).prop_map(|words| words.join(" "))
}

proptest! {
    #[test]
    fn what_is_printed_parses_back(expr in expr()) {
        let printed = expr.to_string();
        prop_assert_eq!(Expr::parse(&printed).map_err(|e| TestCaseError::fail(format!("{printed}: {e}")))?, expr);
    }

    #[test]
    fn random_texts_never_panic(text in prop_oneof!["\\PC{0,60}", "[()a=\"'` nordt<>!,.0-9-]{0,60}", soup()]) {
        if let Ok(expr) = Expr::parse(&text) {
            prop_assert_eq!(Expr::parse(&expr.to_string()).unwrap(), expr);
        }
    }

    /// Whatever parses is either refused by name or answered: SQLite never sees a statement that it cannot read.
    #[test]
    fn random_expressions_are_sound_sql(expr in expr(), fields in prop::collection::vec(0..FIELDS.len(), 1..40)) {
        let condition = Some(rename(expr, &mut fields.iter().cycle().map(|&i| FIELDS[i])));
        match SMALL.with(|(_, zoo)| zoo.records(&Filter { condition, ..Filter::default() })) {
            Ok(_) | Err(Error::Query { .. }) => {}
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}

thread_local! {
    /// A zoo for many cases; to make one takes longer than to ask it.
    static SMALL: (tempfile::TempDir, Zoo) = small();
}

const FIELDS: [&str; 12] = [
    "run",
    "step",
    "final",
    "accuracy",
    "split",
    "phrase",
    "label.phrase",
    "train-secs",
    "digest",
    "quarantined",
    "max-deviation",
    "absent",
];

/// The expression with names that a zoo may have.
fn rename(expr: Expr, names: &mut dyn Iterator<Item = &str>) -> Expr {
    let mut next = || Name::from(names.next().unwrap());
    match expr {
        Expr::Flag(_) => Expr::Flag(next()),
        Expr::Known(_) => Expr::Known(next()),
        Expr::Compare(_, comparison, value) => Expr::Compare(next(), comparison, value),
        Expr::In(_, values) => Expr::In(next(), values),
        Expr::Like(_, pattern) => Expr::Like(next(), pattern),
        Expr::Not(term) => Expr::Not(Box::new(rename(*term, names))),
        Expr::All(terms) => Expr::All(terms.into_iter().map(|term| rename(term, names)).collect()),
        Expr::Any(terms) => Expr::Any(terms.into_iter().map(|term| rename(term, names)).collect()),
    }
}

fn small() -> (tempfile::TempDir, Zoo) {
    let dir = tempfile::tempdir().unwrap();
    let mut zoo = Zoo::create(&dir.path().join("zoo"), "small", architecture(), None).unwrap();
    let (population, records) = runs(0, 8, 2);
    let _ = zoo.append(&population, &records).unwrap();
    let mut bad =
        Record { quarantine: Some("value 3 is not finite".to_owned()), ..Record::new(Digest::of_bytes(b"nan"), "run-bad") };
    bad.labels = BTreeMap::from([("phrase".to_owned(), "hey 1".to_owned())]);
    assert_eq!(zoo.quarantine(&[bad]).unwrap(), 1);
    (dir, zoo)
}

fn found(zoo: &Zoo, text: &str) -> Vec<Record> {
    let filter = Filter { condition: Some(Expr::parse(text).unwrap()), ..Filter::default() };
    let found: Vec<Record> = zoo.records(&filter).unwrap().into_iter().map(Entry::into_record).collect();
    assert_eq!(zoo.count(&filter).unwrap(), found.len(), "{text}");
    found
}

#[test]
fn conditions_select_what_they_say() {
    let (_dir, zoo) = small();
    let all: Vec<Record> = zoo.records(&Filter::default()).unwrap().into_iter().map(Entry::into_record).collect();
    let check = |text: &str, expected: &dyn Fn(&Record) -> bool| {
        let expected: Vec<Record> = all.iter().filter(|record| expected(record)).cloned().collect();
        assert!(!expected.is_empty(), "{text}");
        assert_eq!(found(&zoo, text), expected, "{text}");
    };
    let phrase = |r: &Record| r.labels["phrase"].clone();
    let accuracy = |r: &Record| r.metrics["validation-accuracy"];
    check("split = \"train\" and accuracy >= 0.1 and final", &|r| {
        r.split.unwrap().name() == "train" && accuracy(r) >= 0.1 && r.is_final
    });
    check("phrase in ('hey 1', \"hey 2\") or step = 10 and not synthetic", &|r| {
        ["hey 1", "hey 2"].contains(&phrase(r).as_str()) || r.step == Some(10) && !r.provenance.synthetic
    });
    check("not (phrase like 'HEY _' and phrase != 'hey 3')", &|r| phrase(r) == "hey 3");
    check("license = 'MIT' and metric.train-secs < 1 and max-deviation is unknown", &|_| true);
    check("not max-deviation > 3", &|_| true);
    check("synthetic = false and run like '%1'", &|r| !r.provenance.synthetic && r.run == "run-1");
    let digest = all[3].digest;
    check(&format!("digest = '{digest}'"), &|r| r.digest == digest);
    assert!(found(&zoo, "run = \"x' OR 1=1 --\"").is_empty());
    let bad = found(&zoo, "quarantined and phrase = 'hey 1'");
    assert!(bad.len() == 1 && bad[0].split.is_none() && !bad[0].is_final && bad[0].run == "run-bad", "{bad:?}");
    assert_eq!(found(&zoo, "status = 'quarantined' or reason is known"), bad);
    assert_eq!(found(&zoo, "quarantined or not quarantined").len(), 17);
}

#[test]
fn errors_name_the_place_and_what_there_is() {
    let (_dir, zoo) = small();
    let check = |text: &str, column: usize, expected: &[&str]| {
        let filter = Filter { condition: Some(Expr::parse(text).unwrap()), ..Filter::default() };
        match zoo.records(&filter).unwrap_err() {
            Error::Query { column: got, reason } => {
                assert!(got == column && expected.iter().all(|part| reason.contains(part)), "{text}: {got}: {reason}");
            }
            other => panic!("{other}"),
        }
    };
    check("final and phrse = 'x'", 11, &["unknown name `phrse`", "`digest`", "labels: `phrase`", "`validation-accuracy`"]);
    check("label.run = 'x'", 1, &["unknown name"]);
    check("accuracy = 'high'", 1, &["`accuracy` is a number"]);
    check("phrase = 3", 1, &["`phrase` is a text", "\"3\""]);
    check("final > true", 1, &["no order"]);
    check("step like '1%'", 1, &["`step` is a number"]);
    check("not accuracy", 5, &["is not yes or no"]);
    assert!(zoo.fields(["run", "phrase", "metric.train-secs"]).is_ok());
    assert!(zoo.fields(["nothing"]).unwrap_err().to_string().contains("unknown name `nothing`"));
}

#[test]
fn any_field_sorts_and_the_unknown_comes_last() {
    let (_dir, zoo) = small();
    let sorted = |keys: &[&str]| {
        let sort = keys.iter().map(|key| SortKey::parse(key).unwrap()).collect();
        let filter = Filter { sort, with_quarantined: true, ..Filter::default() };
        zoo.records(&filter).unwrap().into_iter().map(Entry::into_record).collect::<Vec<_>>()
    };
    let by_accuracy = sorted(&["-accuracy"]);
    assert!(by_accuracy[..16].is_sorted_by(|a, b| a.metrics["validation-accuracy"] >= b.metrics["validation-accuracy"]));
    assert!(by_accuracy[16].quarantine.is_some() && sorted(&["accuracy"])[16].quarantine.is_some());
    let by_phrase = sorted(&["phrase", "-step", "digest"]);
    let key = |r: &Record| (r.labels["phrase"].clone(), std::cmp::Reverse(r.step), r.digest);
    assert!(by_phrase.iter().filter(|r| r.quarantine.is_none()).is_sorted_by_key(key));
    assert!(SortKey::parse("-").is_err());
}

#[test]
fn fields_give_values() {
    let (_dir, zoo) = small();
    let record = zoo.records(&Filter::default()).unwrap().remove(0).into_record();
    let fields = zoo.fields(["run", "phrase", "accuracy", "final", "reason", "split", "metric.train-secs"]).unwrap();
    let values: Vec<Option<Literal>> = fields.iter().map(|field| field.value(&record)).collect();
    let text = |text: &str| Some(Literal::Text(text.to_owned()));
    let expected = [
        text("run-0"),
        text("hey 0"),
        Some(Literal::Number(0.5)),
        Some(Literal::Flag(false)),
        None,
        text("train"),
        Some(Literal::Number(0.25)),
    ];
    assert_eq!(values, expected);
}
