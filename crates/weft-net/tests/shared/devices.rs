//! The same adapters trained in two ways that differ by rounding alone, such as on two devices, step by step.
//!
//! How far rounding may take weights apart is measured beside it: a start that is moved by one part in a million, in the first way. Training
//! amplifies it: weights are comparable for some steps, and then losses alone are.

use std::io::Write as _;
use weft_core::{Duration, Monitor, Optimizer, Precision, Recipe, Schedule, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterTask, Adapters};

/// Steps after which weights are compared.
const STEPS: [u64; 5] = [1, 2, 4, 16, 64];
/// How much farther apart two ways may be than a moved start is from itself.
const TIMES: f64 = 100.0;
/// What is no distance, and what two unrelated trainings of one task would hardly be, as a share of the way that training went.
const NOTHING: f64 = 1e-5;
const UNRELATED: f64 = 1.2;
/// How much losses may differ, and how much more than those from a moved start do.
const OF_LOSSES: f64 = 0.01;
const TIMES_OF_LOSSES: f64 = 3.0;

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A GPU, or a word that there is none.
pub(crate) fn gpu(topic: &str) -> Option<Device> {
    let opened = Device::open("cuda:0").ok();
    if opened.is_none() {
        say(&format!("skipped: {topic}: no GPU"));
    }
    opened
}

pub(crate) fn recipe(learning_rate: f64, batch_size: usize) -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAMW,
        learning_rate,
        schedule: Schedule::Constant,
        weight_decay: 0.01,
        batch_size,
        duration: Duration::Steps(1),
        snapshot_steps: Vec::new(),
        precision: Precision::Single,
    }
}

fn rms(a: &[f32], b: &[f32]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Adapters of tasks, trained from one start in two ways; in the second, in the company of others.
///
/// After 1, 2, 4, 16 and 64 steps, the root mean square distance of weights between the two ways, over that which training took them, is at most
/// a hundred times what a moved start makes of it, and less than that of unrelated trainings. The mean losses of all adapters agree to 1 %, or to
/// three times what a moved start makes of them where that is more, as it may be of a single adapter.
pub(crate) fn trainings_agree(
    name: &str,
    [one, other]: [&Adapters; 2],
    (tasks, company): (&[AdapterTask], &[AdapterTask]),
    recipe: &Recipe,
    start: &[f32],
) {
    let moved: Vec<f32> = start.iter().zip(Seed::new(70).normals(start.len())).map(|(w, n)| w * (1.0 + 1e-6 * n)).collect();
    let all = [tasks, company].concat();
    let starts = start.repeat(tasks.len());
    for steps in STEPS {
        let recipe = Recipe { duration: Duration::Steps(steps), ..recipe.clone() };
        let train = |on: &Adapters, start: &[f32], tasks: &[AdapterTask]| {
            let on = on.clone().with_start(start).expect("a start of the layout");
            on.train(tasks, &recipe, Seed::new(71), &Monitor::silent()).expect("sound tasks").into_data()
        };
        let (first, from_moved) = (train(one, start, tasks), train(one, &moved, tasks));
        let second = &train(other, start, &all)[..first.len()];
        let way = rms(&first, &starts);
        let [apart, by_moving] = [rms(&first, second) / way, rms(&first, &from_moved) / way];
        let loss = |on: &Adapters, rows: &[f32]| {
            let measured = on.measure(rows, &tasks.iter().collect::<Vec<_>>()).expect("rows of the layout");
            measured.iter().map(|m| m.loss).sum::<f64>() / tasks.len() as f64
        };
        let losses = [loss(one, &first), loss(other, second), loss(one, &from_moved)];
        let [of_other, of_moved] = [losses[1], losses[2]].map(|loss| (loss / losses[0] - 1.0).abs());
        let figures = format!(
            "{name}: {steps} steps: {apart:.2e} apart of the way {way:.2e} a weight, a moved start {by_moving:.2e}; losses {losses:.5?}"
        );
        say(&figures);
        assert!(way > 1e-4 && apart <= (TIMES * by_moving + NOTHING).min(UNRELATED), "{figures}");
        assert!(of_other < OF_LOSSES.max(TIMES_OF_LOSSES * of_moved), "{figures}");
    }
}

/// The gradients of adapters at as many examples of each task, in two ways: losses agree to one part in 100,000, and gradients to one part in 10,000 of the
/// greatest.
pub(crate) fn gradients_agree(name: &str, [one, other]: [&Adapters; 2], tasks: &[AdapterTask], examples: usize, start: &[f32]) {
    let noise = Seed::new(72).normals(tasks.len() * start.len());
    let rows: Vec<f32> = start.iter().cycle().zip(noise).map(|(w, n)| w + 0.01 * n).collect();
    let drawn: Vec<Vec<u32>> =
        tasks.iter().zip(0..).map(|(task, i)| Seed::new(73).index(i).indices(examples, task.len())).collect();
    let drawn: Vec<_> = tasks.iter().zip(&drawn).map(|(task, drawn)| (task, drawn.as_slice())).collect();
    let [one, other] = [one, other].map(|on| on.gradients(&rows, &drawn).expect("sound tasks"));
    let greatest = one.gradient.iter().fold(0.0, |most: f32, g| most.max(g.abs()));
    let apart = one.gradient.iter().zip(&other.gradient).fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / greatest;
    let of_losses = one.losses.iter().zip(&other.losses).fold(0.0, |most: f64, (a, b)| most.max((b / a - 1.0).abs()));
    let figures = format!("{name}: gradients {apart:.2e} apart of the greatest {greatest:.2e}, losses {of_losses:.2e}");
    say(&figures);
    assert!(greatest > 0.0 && apart < 1e-4 && of_losses < 1e-5, "{figures}");
}
