//! Examples as conditions: their order does not matter, a saved encoder is the same, and tasks that were never trained are solved when they
//! are shown.

use crate::hostile::{check, tensor, text, without};
use crate::support::{binary_tasks, four_classes, solved_when_shown};
use weft_core::{Condition, ExampleSet, Part, Seed, Task, Value};
use weft_gen::ExampleEncoder;
use weft_gen::examples::draw_examples;

fn encoder() -> ExampleEncoder {
    ExampleEncoder::fit(&four_classes(), 2).expect("four classes are few")
}

/// Training examples of a task, labelled.
pub(crate) fn shown(task: &Task, per_output: usize, seed: Seed) -> ExampleSet {
    let data = four_classes();
    let chosen = draw_examples(task, data.labels(Part::Train), per_output, seed);
    let inputs = chosen.iter().flat_map(|&i| data.gather(i as usize..i as usize + 1)).collect();
    ExampleSet::new(inputs, chosen.iter().map(|&i| task.output(data.label(i as usize))).collect()).expect("whole examples")
}

fn asks_by(encoder: &ExampleEncoder, task: &Task, seed: Seed) -> Condition {
    let vector = encoder.encode(&shown(task, 12, seed)).expect("examples of both outputs");
    Condition::unknown().with(ExampleEncoder::FIELD, Value::Vector(vector))
}

#[test]
fn draws_are_of_each_output_and_of_no_example_twice() {
    let task = Task::is_one_of(&"1".parse().expect("a class"), 4).expect("one of four");
    let classes = four_classes().labels(Part::Train).to_vec();
    let chosen = draw_examples(&task, &classes, 16, Seed::new(1));
    let of = |output: u32| chosen.iter().filter(|&&i| task.output(classes[i as usize]) == output).count();
    let distinct: std::collections::BTreeSet<_> = chosen.iter().collect();
    assert_eq!((of(0), of(1), distinct.len()), (16, 16, 32));
    assert_ne!(chosen, draw_examples(&task, &classes, 16, Seed::new(2)));
    // There are 70 of class 1, and all of them are taken where more are asked for.
    assert_eq!(draw_examples(&task, &classes, 100, Seed::new(1)).len(), 170);
}

#[test]
fn order_does_not_matter_and_labels_do() {
    let (encoder, [tasks, _]) = (encoder(), binary_tasks());
    let set = shown(&tasks[0], 8, Seed::new(2));
    let vector = encoder.encode(&set).expect("examples of both outputs");
    assert_eq!(vector.len(), encoder.len());
    let order = Seed::new(3).permutation(16);
    let rows: Vec<&[f32]> = set.inputs().chunks_exact(8).collect();
    let permuted = |labels: Vec<u32>| {
        let inputs = order.iter().flat_map(|&i| rows[i as usize]).copied().collect();
        encoder.encode(&ExampleSet::new(inputs, labels).expect("whole examples")).expect("examples of both outputs")
    };
    let apart = |other: &[f32]| vector.iter().zip(other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let labels: Vec<u32> = order.iter().map(|&i| set.labels()[i as usize]).collect();
    assert!(apart(&permuted(labels.clone())) < 1e-5);
    let exchanged = permuted(labels.into_iter().map(|label| 1 - label).collect());
    assert!(apart(&exchanged) > 0.1, "the labels say which is which");
    let (first, second) = vector.split_at(vector.len() / 2);
    let swapped = [second, first].concat();
    assert!(swapped.iter().zip(&exchanged).all(|(a, b)| (a - b).abs() < 1e-5), "and nothing else");
    let other = ExampleSet::new(vec![0.0; 6], vec![0, 1]).expect("whole examples");
    assert!(encoder.encode(&other).unwrap_err().to_string().contains("they have 3 values each, and networks read 8"));
}

#[test]
fn held_out_tasks_are_solved_from_what_is_shown() {
    let encoder = encoder();
    solved_when_shown(ExampleEncoder::FIELD, &|task, seed| asks_by(&encoder, task, seed), 0.85);
}

#[test]
fn a_saved_encoder_is_the_same_and_a_damaged_one_is_refused() {
    let encoder = encoder();
    let saved = encoder.save();
    assert_eq!(ExampleEncoder::load(&saved).expect("its own state"), encoder);
    let damages = vec![
        without("mean"),
        without("scale"),
        without("offset"),
        without("slopes"),
        without("outputs"),
        tensor("slopes", |values| values.truncate(3)),
        tensor("scale", |values| values[0] = 0.0),
        tensor("mean", |values| values[1] = f32::NAN),
        text("outputs", "0"),
        text("outputs", "99999999"),
        text("outputs", "two"),
    ];
    check(&saved, damages, |saved| ExampleEncoder::load(saved).map(drop));
}
