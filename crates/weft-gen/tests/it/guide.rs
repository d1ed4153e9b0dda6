//! Guidance by examples: its gradient is that of the loss, it makes samples do what the examples show, and it does so in the right amount.

use crate::examples::shown;
use crate::support::{accuracy_at, asks_for, binary_tasks, flow_config, heun, task_fields, task_set, train};
use weft_core::{Condition, ExampleSet, Seed};
use weft_gen::{Flow, FlowConfig, FlowTrainer, Generator as _, Guide, Guided, SamplerConfig};
use weft_net::Device;

/// A flow over networks of all training tasks.
fn flow(sampler: SamplerConfig) -> Flow {
    let data = task_set();
    let config = FlowConfig { conditions: task_fields().to_vec(), steps: 300, ..flow_config(&[]) };
    let trainer = FlowTrainer::new(config, data.code_set(), Seed::new(7), &Device::cpu()).expect("the settings are in range");
    train(trainer, 300).finish(sampler).and_then(|codes| codes.decoded_by(&data)).expect("the codec of its own codes")
}

fn guided(sampler: SamplerConfig, examples: &ExampleSet, scale: f64) -> Guided {
    let architecture = task_set().architecture().clone();
    let guide = Guide::new(architecture, examples, scale, &Device::cpu()).expect("examples of both outputs");
    Guided::new(flow(sampler), guide).expect("the codec of its own codes")
}

#[test]
fn the_gradient_is_that_of_the_loss() {
    let [tasks, held_out] = binary_tasks();
    let guided = guided(heun(4, 1.5), &shown(&held_out[0], 8, Seed::new(1)), 1.0);
    let x_t = Seed::new(2).normals(30);
    for (time, condition) in [(0.3, Condition::unknown()), (0.8, asks_for(&tasks[3]))] {
        let loss = |x: &[f32]| f64::from(guided.loss_and_gradient(x, time, &condition).expect("known fields").0[0]);
        let (_, gradient) = guided.loss_and_gradient(&x_t, time, &condition).expect("known fields");
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.1, "there is something to check: {norm}");
        // Along random directions: single codes move the loss by little more than it is rounded.
        for seed in 0..8 {
            let direction = Seed::new(100 + seed).normals(30);
            let at = |h: f32| loss(&x_t.iter().zip(&direction).map(|(x, d)| x + h * d).collect::<Vec<f32>>());
            let h = 2e-3;
            let measured = (at(h) - at(-h)) / f64::from(2.0 * h);
            let computed: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            assert!((measured - computed).abs() < 0.03 * norm, "at {time}: {measured} measured, {computed} computed of {norm}");
        }
    }
}

#[test]
fn samples_do_what_the_examples_show() {
    let [_, held_out] = binary_tasks();
    let examples = shown(&held_out[0], 16, Seed::new(1));
    let sampler = heun(20, 1.0);
    let accuracy = |scale: f64| {
        let networks = guided(sampler, &examples, scale).sample(12, &Condition::unknown(), Seed::new(3)).expect("no condition");
        accuracy_at(&networks, &vec![held_out[0].clone(); 12])
    };
    let (free, little, full) = (accuracy(0.0), accuracy(0.05), accuracy(1.0));
    assert!(full > free + 0.25 && full > 0.8, "unguided {free}, guided {little}, by Bayes' rule {full}");
    assert!(little > free, "unguided {free}, guided a little {little}");
    // A scale of 0 is the flow itself.
    let unguided = flow(sampler).sample(4, &Condition::unknown(), Seed::new(5)).expect("no condition");
    let none = guided(sampler, &examples, 0.0).sample(4, &Condition::unknown(), Seed::new(5)).expect("no condition");
    assert!(unguided.data().iter().zip(none.data()).all(|(a, b)| (a - b).abs() < 1e-5));
}

#[test]
fn samples_of_one_condition_are_those_of_a_batch_and_cost_more() {
    let [tasks, held_out] = binary_tasks();
    let guided = guided(heun(4, 1.0), &shown(&held_out[0], 8, Seed::new(1)), 1.0);
    let alone = guided.sample(3, &asks_for(&tasks[0]), Seed::new(3)).expect("a task of the schema");
    let each = guided.sample_each(&vec![asks_for(&tasks[0]); 3], Seed::new(3)).expect("a task of the schema");
    assert_eq!(alone, each);
    assert_eq!(guided.name(), "flow, guided");
    assert!(guided.flops_per_sample() > 3.0 * flow(heun(4, 1.0)).flops_per_sample());
}

#[test]
fn what_cannot_guide_is_refused() {
    let architecture = task_set().architecture().clone();
    let refusal = |examples: &ExampleSet, scale: f64| {
        Guide::new(architecture.clone(), examples, scale, &Device::cpu()).expect_err("no guide").to_string()
    };
    let [_, held_out] = binary_tasks();
    let examples = shown(&held_out[0], 8, Seed::new(1));
    assert!(refusal(&examples, -1.0).contains("`guide-scale` must be 0 or more, got -1"));
    assert!(refusal(&examples, f64::NAN).contains("`guide-scale`"));
    let one_sided = ExampleSet::new(vec![0.0; 16], vec![1, 1]).expect("whole examples");
    assert!(refusal(&one_sided, 1.0).contains("none has the label 0"));
}
