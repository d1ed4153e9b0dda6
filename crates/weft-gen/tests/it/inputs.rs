//! Inputs without labels as conditions: their order does not matter, groupings are not told by them, a saved encoder is the same, and sets of classes
//! that were never trained are solved when some of their members are shown.

use crate::hostile::{check, tensor, text, without};
use crate::support::{binary_tasks, four_classes, solved_when_shown};
use weft_core::{Condition, InputSet, Part, Seed, Task, Value};
use weft_gen::inputs::draw_inputs;
use weft_gen::{ExampleEncoder, InputEncoder};

fn encoder() -> InputEncoder {
    InputEncoder::fit(&four_classes()).expect("four classes are few")
}

/// Training inputs that show a task.
fn shown(task: &Task, count: usize, seed: Seed) -> InputSet {
    let data = four_classes();
    let chosen = draw_inputs(task, data.labels(Part::Train), count, seed);
    let inputs = chosen.iter().flat_map(|&i| data.gather(i as usize..i as usize + 1)).collect();
    InputSet::new(inputs, chosen.len()).expect("whole inputs")
}

fn asks_by(encoder: &InputEncoder, task: &Task, seed: Seed) -> Condition {
    let vector = encoder.embed(&shown(task, 16, seed)).expect("inputs of the data");
    Condition::unknown().with(InputEncoder::FIELD, Value::Vector(vector))
}

#[test]
fn draws_are_of_members_and_of_no_input_twice() {
    let classes = four_classes().labels(Part::Train).to_vec();
    let task = Task::is_one_of(&"1+3".parse().expect("classes"), 4).expect("two of four");
    let members = classes.iter().filter(|&&class| class == 1 || class == 3).count();
    let drawn: Vec<Vec<u32>> = (0..200).map(|seed| draw_inputs(&task, &classes, 16, Seed::new(seed))).collect();
    for of_seed in &drawn {
        let distinct: std::collections::BTreeSet<_> = of_seed.iter().collect();
        assert_eq!((of_seed.len(), distinct.len()), (16, 16));
        assert!(of_seed.iter().all(|&i| task.output(classes[i as usize]) == 1));
    }
    // Each member is as likely as another, in the first place and in all.
    let of_class = |places: std::ops::Range<usize>| {
        let all = drawn.iter().flat_map(|of_seed| &of_seed[places.clone()]);
        all.filter(|&&i| classes[i as usize] == 1).count() as f64 / (200 * places.len()) as f64
    };
    let share = classes.iter().filter(|&&class| class == 1).count() as f64 / members as f64;
    assert!((of_class(0..16) - share).abs() < 0.04 && (of_class(0..1) - share).abs() < 0.12);
    let seen: std::collections::BTreeSet<_> = drawn.iter().flatten().collect();
    assert_eq!(seen.len(), members, "all of them come up");
    assert_eq!(draw_inputs(&task, &classes, 9_999, Seed::new(0)).len(), members, "there are no more");
    assert_eq!(drawn[0], draw_inputs(&task, &classes, 16, Seed::new(0)));
}

#[test]
fn inputs_of_groupings_are_of_all_classes_and_tell_none_from_another() {
    let classes = four_classes().labels(Part::Train).to_vec();
    let grouping = |name: &str, outputs: [u32; 4]| Task::new(name, outputs.to_vec(), 3).expect("below three");
    let (one, other) = (grouping("a", [0, 0, 1, 2]), grouping("b", [2, 1, 1, 0]));
    let drawn = draw_inputs(&one, &classes, 64, Seed::new(5));
    assert_eq!(drawn, draw_inputs(&other, &classes, 64, Seed::new(5)));
    let of: std::collections::BTreeSet<u32> = drawn.iter().map(|&i| classes[i as usize]).collect();
    assert_eq!(of.len(), 4);
}

#[test]
fn order_does_not_matter_and_what_is_shown_does() {
    let (encoder, [tasks, _]) = (encoder(), binary_tasks());
    let set = shown(&tasks[0], 16, Seed::new(2));
    let vector = encoder.embed(&set).expect("inputs of the data");
    assert_eq!((vector.len(), encoder.len()), (8, 8), "four classes, mean and deviation");
    let rows: Vec<&[f32]> = set.inputs().chunks_exact(8).collect();
    let permuted = Seed::new(3).permutation(16).iter().flat_map(|&i| rows[i as usize]).copied().collect();
    let permuted = encoder.embed(&InputSet::new(permuted, 16).expect("whole inputs")).expect("inputs of the data");
    let apart = |other: &[f32]| vector.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(apart(&permuted) < 1e-5);
    let other = encoder.embed(&shown(&tasks[1], 16, Seed::new(2))).expect("inputs of the data");
    assert!(apart(&other) > 0.1);
    // Twice the same inputs are the same distribution, and one input does not deviate from itself.
    let twice = InputSet::new([set.inputs(), set.inputs()].concat(), 32).expect("whole inputs");
    assert!(apart(&encoder.embed(&twice).expect("inputs of the data")) < 1e-5);
    let single = encoder.embed(&InputSet::new(rows[0].to_vec(), 1).expect("a whole input")).expect("an input of the data");
    assert!(single[4..].iter().all(|deviation| *deviation < 1e-3) && single[..4].iter().any(|mean| mean.abs() > 0.1));
    let refused = InputSet::new(vec![0.0; 6], 2).map(|other| encoder.embed(&other)).expect("whole inputs");
    assert!(refused.unwrap_err().to_string().contains("example inputs: they have 3 values each, and networks read 8"));
}

#[test]
fn held_out_sets_are_solved_from_members_that_are_shown() {
    let encoder = encoder();
    solved_when_shown(InputEncoder::FIELD, &|task, seed| asks_by(&encoder, task, seed), 0.75);
}

#[test]
fn a_saved_encoder_is_the_same_and_a_damaged_one_is_refused() {
    let encoder = encoder();
    let saved = encoder.save();
    assert_eq!(InputEncoder::load(&saved).expect("its own state"), encoder);
    let damages = vec![
        without("mean"),
        without("scale"),
        without("offset"),
        without("slopes"),
        without("kind"),
        tensor("slopes", |values| values.truncate(3)),
        tensor("offset", |values| values.resize(1_025, 0.0)),
        tensor("scale", |values| values[0] = -1.0),
        tensor("mean", |values| values[1] = f32::NAN),
        text("kind", "example-encoder"),
    ];
    check(&saved, damages, |saved| InputEncoder::load(saved).map(drop));
    let labelled = ExampleEncoder::fit(&four_classes(), 2).expect("four classes are few").save();
    let refused = InputEncoder::load(&labelled).unwrap_err().to_string();
    assert_eq!(refused, "saved state: `kind` is `example-encoder`, expected `input-encoder`");
}
