//! Whole evaluations of tiny zoos whose answers are known by construction.

#![expect(clippy::unwrap_used, clippy::float_cmp, reason = "the input is known to be good, and zeros and ones are exact")]

use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use weft_canon::Group;
use weft_core::{Activation, Architecture, Dataset, Inputs, Monitor, Population, Seed};
use weft_eval::{Context, ContextInput, Costs, Error, Evaluation, Finding, Options, Row, RowInput, RowKind};

const FEATURES: usize = 6;
const CLASSES: usize = 3;
/// Runs of the zoo, with two snapshots each.
const RUNS: usize = 8;

/// A zoo of independent random networks with one dead unit each, on data whose inputs 1 and 4 do not vary.
struct Zoo {
    train: Population,
    is_final: Vec<bool>,
    run: Vec<u32>,
    held_out: Population,
    dataset: Dataset,
    device: weft_net::Device,
}

impl Zoo {
    fn new(widths: &[usize]) -> Self {
        let architecture = Arc::new(Architecture::mlp("tiny", widths, Activation::Relu).unwrap());
        let finals = networks(&architecture, RUNS, Seed::new(1));
        // The first snapshot of each run is near its last.
        let d = finals.dim();
        let noise = Seed::new(2).normals(RUNS * d);
        let early: Vec<f32> = finals.data().iter().zip(&noise).map(|(w, z)| w + 0.05 * z).collect();
        let data = (0..RUNS).flat_map(|i| [&early[i * d..(i + 1) * d], finals.row(i)].concat()).collect();
        Self {
            train: Population::new(architecture.clone(), data).unwrap(),
            is_final: [false, true].repeat(RUNS),
            run: (0..RUNS as u32).flat_map(|r| [r, r]).collect(),
            held_out: networks(&architecture, 5, Seed::new(3)),
            dataset: dataset(),
            device: weft_net::Device::cpu(),
        }
    }

    fn context(&self) -> Context<'_> {
        let options = Options { fixed_bars: vec![0.0], ..Options::default() };
        Context::new(self.input(), &options, &Monitor::silent()).unwrap()
    }

    fn input(&self) -> ContextInput<'_> {
        let Self { train, is_final, run, held_out, dataset, device } = self;
        ContextInput { train, train_is_final: is_final, train_run: run, held_out, dataset, device }
    }

    fn finals(&self) -> Population {
        self.train.select(&(0..RUNS).map(|i| 2 * i + 1).collect::<Vec<_>>())
    }
}

fn dataset() -> Dataset {
    let examples = 120;
    let mut inputs = Seed::new(5).normals(examples * FEATURES);
    for row in inputs.chunks_exact_mut(FEATURES) {
        row[1] = 0.0;
        row[4] = 1.5; // a constant that acts as a bias
    }
    let labels = Seed::new(6).indices(examples, CLASSES);
    Dataset::new("noise", Inputs::Floats(inputs), labels, CLASSES, [60, 30]).unwrap()
}

/// Random networks whose first hidden unit is dead: its bias is far below 0.
fn networks(architecture: &Arc<Architecture>, n: usize, seed: Seed) -> Population {
    let mut data = seed.normals(n * architecture.num_parameters());
    let bias = architecture.tensors()[1].range().start;
    data.chunks_exact_mut(architecture.num_parameters()).for_each(|row| row[bias] = -100.0);
    Population::new(architecture.clone(), data).unwrap()
}

fn row(context: &Context<'_>, name: &str, kind: RowKind, sets: &[Population]) -> Row {
    context.row(RowInput { name, kind, sets, costs: Costs::default() }, &Monitor::silent()).unwrap()
}

/// NPD at the bar 0, at each threshold.
fn npd(row: &Row) -> Vec<f64> {
    row.curves.iter().find(|c| c.bar == "0").unwrap().npd.iter().map(|e| e.mean).collect()
}

/// N&P at the bar 0, at each threshold.
fn np(row: &Row) -> Vec<f64> {
    row.curves.iter().find(|c| c.bar == "0").unwrap().np.iter().map(|e| e.mean).collect()
}

fn shallow() -> Zoo {
    Zoo::new(&[FEATURES, 5, CLASSES])
}

#[test]
fn held_out_runs_measure_one() {
    let (zoo, units) = (shallow(), shallow().context().units().clone());
    let context = zoo.context();
    assert!(units.exact);
    assert_eq!((units.num_train, units.num_train_runs, units.num_held_out, units.num_dead_inputs), (16, 8, 5, 2));
    assert!((context.held_out_row().distance.mean - 1.0).abs() < 1e-12);
    assert!((context.held_out_row().functional.mean - 1.0).abs() < 1e-12);
    assert!((context.held_out_row().distance_weighted.unwrap().mean - 1.0).abs() < 1e-12);
    assert!((context.training_row().pairwise.mean - 1.0).abs() < 1e-12);
    assert!(units.orbit_check < 0.01, "{}", units.orbit_check);
    // Snapshots of one run are near each other, those of other runs are not; the training row leaves its own run out.
    assert!(units.d1_snapshots < 0.3 * units.d1, "{} against {}", units.d1_snapshots, units.d1);
    assert!(context.training_row().distance.mean > 0.5);
}

#[test]
fn copies_score_nothing() {
    let zoo = shallow();
    let context = zoo.context();
    let copies = row(&context, "nearest", RowKind::Baseline, &[zoo.finals()]);
    assert!(copies.distance.mean < 1e-6 && copies.functional.mean == 0.0 && copies.distance_weighted.unwrap().mean < 1e-6);
    assert_eq!(npd(&copies), [0.0; 5]);
    assert_eq!(np(&copies), [0.0; 5]);
    assert!((copies.max_iou.mean - 1.0).abs() < 1e-12);
    assert!((copies.pairwise.mean - 1.0).abs() < 1e-6, "copies are as diverse as the zoo: {}", copies.pairwise.mean);
    let found = context.measure("nearest", &zoo.finals(), &Monitor::silent()).unwrap();
    assert_eq!(found.nearest, (0..RUNS).map(|i| 2 * i + 1).collect::<Vec<_>>());
}

#[test]
fn null_copies_score_nothing() {
    let zoo = shallow();
    let context = zoo.context();
    let copies = context.null_copies(20, Seed::new(9)).unwrap();
    let raw: Vec<f64> = copies.rows().map(|c| zoo.train.rows().map(|t| raw_distance(c, t)).fold(f64::INFINITY, f64::min)).collect();
    assert!(raw.iter().all(|&d| d > 0.5 * context.units().d1), "without the projection they would look new: {raw:?}");
    let nulls = row(&context, "null", RowKind::NullCopy, &[copies]);
    assert!(nulls.distance.mean < 1e-3 && nulls.functional.mean < 1e-3, "{nulls:?}");
    assert!(nulls.distance_weighted.unwrap().mean < 1e-3);
    assert_eq!(npd(&nulls), [0.0; 5]);
}

#[test]
fn null_copies_change_all_that_the_data_cannot_see_and_nothing_else() {
    let zoo = shallow();
    let context = zoo.context();
    let copies = context.null_copies(10, Seed::new(12)).unwrap();
    let sources = zoo.train.select(&context.measure("null", &copies, &Monitor::silent()).unwrap().nearest);
    let centered = |networks: &Population| {
        let mut logits = weft_net::logits(networks, &zoo.dataset.gather(0..60), &weft_net::Device::cpu()).unwrap();
        for example in logits.chunks_exact_mut(CLASSES) {
            let mean = example.iter().sum::<f32>() / CLASSES as f32;
            for z in example.iter_mut() {
                *z -= mean;
            }
        }
        logits
    };
    let largest = centered(&copies).iter().zip(&centered(&sources)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(largest < 1e-3, "on training images only the common shift of logits may change: {largest}");
    let hidden = 5;
    let [weight, output] = [0, 2].map(|t| zoo.train.architecture().tensors()[t].range());
    for (copy, source) in copies.rows().zip(sources.rows()) {
        let change = |at: usize| copy[at] - source[at];
        let output_change = |c: usize, unit: usize| change(output.start + c * hidden + unit);
        assert!((0..hidden).all(|u| change(weight.start + u * FEATURES + 1) != 0.0), "dead inputs");
        assert!((output_change(0, 0) - output_change(1, 0)).abs() > 1e-4, "dead unit");
        assert!(output_change(0, 2).abs() > 1e-4 && (output_change(0, 2) - output_change(1, 2)).abs() < 1e-5, "softmax shift");
        assert!(change(weight.start + FEATURES + 2) == 0.0, "a live unit's live input");
    }
}

fn raw_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn collapsed_samples_are_not_distinct() {
    let zoo = shallow();
    let context = zoo.context();
    let one = networks(zoo.train.architecture(), 1, Seed::new(40));
    let same = one.select(&[0; 24]);
    let collapsed = row(&context, "collapsed", RowKind::Generator, &[same.clone(), same]);
    assert!(np(&collapsed)[1] > 0.99, "a new network is novel: {:?}", collapsed.curves);
    assert_eq!(npd(&collapsed), [0.0; 5]);
    assert!(collapsed.fellow_distance.mean < 1e-6 && collapsed.pairwise.mean < 1e-6);
    assert!(collapsed.disagreement.mean == 0.0 && collapsed.vote_gain.mean.abs() < 1e-12);
}

#[test]
fn fresh_networks_are_found_novel_and_copies_replay() {
    let zoo = shallow();
    let context = zoo.context();
    let fresh: Vec<Population> = (0..3).map(|s| networks(zoo.train.architecture(), 40, Seed::new(50 + s))).collect();
    let evaluation = |ours: &[Population]| -> Evaluation {
        let baseline = row(&context, "copies", RowKind::Baseline, &[zoo.finals()]);
        context.evaluate(vec![baseline, row(&context, "ours", RowKind::Generator, ours)])
    };
    let at = |e: &Evaluation, threshold: f64| {
        e.verdicts.iter().find(|v| v.bar == "0" && v.threshold == threshold).map(|v| v.finding).unwrap()
    };
    let found = evaluation(&fresh);
    assert_eq!(at(&found, 0.5), Finding::Novel);
    assert_eq!((found.rows[0].name.as_str(), found.rows[1].name.as_str()), ("held-out runs", "training runs"));
    assert_eq!(found.verdicts.len(), 3 * 5);
    assert_eq!(at(&evaluation(&[zoo.finals()]), 0.5), Finding::Replay);
}

#[test]
fn samples_that_cannot_be_measured_are_counted_out() {
    let zoo = shallow();
    let context = zoo.context();
    let mut samples = networks(zoo.train.architecture(), 10, Seed::new(60));
    let whole = npd(&row(&context, "whole", RowKind::Generator, std::slice::from_ref(&samples)));
    let d = samples.dim();
    samples.data_mut()[2 * d] = f32::NAN;
    samples.data_mut()[5 * d + 1] = f32::INFINITY;
    samples.data_mut()[6 * d..7 * d].fill(1e30);
    let broken = row(&context, "broken", RowKind::Generator, &[samples]);
    assert_eq!((broken.num_invalid, broken.num_samples), (3, 10));
    assert!(npd(&broken)[0] <= 0.7 && whole[0] > npd(&broken)[0]);
    let text = serde_json::to_string(&context.evaluate(vec![broken])).unwrap();
    let read: Evaluation = serde_json::from_str(&text).unwrap();
    assert_eq!(read.rows[2].num_invalid, 3, "every figure is finite, so that a report can hold it");
}

#[test]
fn deeper_networks_have_upper_bounds() {
    let zoo = Zoo::new(&[FEATURES, 5, 4, CLASSES]);
    let context = zoo.context();
    assert!(!context.units().exact);
    let copies = row(&context, "copies", RowKind::Baseline, &[zoo.finals()]);
    assert!(copies.distance.mean < 1e-6);
    assert_eq!(npd(&copies), [0.0; 5]);
    let nulls = row(&context, "null", RowKind::NullCopy, &[context.null_copies(12, Seed::new(2)).unwrap()]);
    assert!(nulls.distance.mean < 1e-3, "{}", nulls.distance.mean);
}

/// Without hidden units the data-weighted distance is the root mean square change of centered logits on training images, but for the
/// cross term of weights and biases.
#[test]
fn weighted_distance_by_hand() {
    let zoo = Zoo::new(&[FEATURES, CLASSES]);
    let context = zoo.context();
    let mut moved = zoo.finals();
    let change: Vec<f32> = Seed::new(80).normals(moved.dim()).iter().map(|z| 0.01 * z).collect();
    let d = moved.dim();
    moved.data_mut().chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&change).for_each(|(w, c)| *w += c));
    let found = context.measure("moved", &moved, &Monitor::silent()).unwrap();
    let center = |v: [f32; CLASSES]| v.map(|x| f64::from(x) - v.iter().map(|&x| f64::from(x)).sum::<f64>() / CLASSES as f64);
    let (weights, bias) = change.split_at(FEATURES * CLASSES);
    let dot = |c: usize, x: &[f32]| (0..FEATURES).filter(|&i| i != 4).map(|i| weights[c * FEATURES + i] * x[i]).sum::<f32>();
    let shifts = center(std::array::from_fn(|c| bias[c] + 1.5 * weights[c * FEATURES + 4]));
    let mut square: f64 = shifts.iter().map(|s| s * s).sum();
    for x in zoo.dataset.gather(0..60).chunks_exact(FEATURES) {
        square += center(std::array::from_fn(|c| dot(c, x))).iter().map(|s| s * s).sum::<f64>() / 60.0;
    }
    for (i, &distance) in found.distance_weighted.iter().enumerate() {
        assert_eq!(found.nearest[i], 2 * i + 1);
        assert!((distance / square.sqrt() - 1.0).abs() < 1e-3, "{distance} is not {}", square.sqrt());
    }
}

#[test]
fn the_same_at_any_thread_count() {
    let zoo = shallow();
    let samples = networks(zoo.train.architecture(), 150, Seed::new(70));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let context = zoo.context();
            let rows = vec![row(&context, "ours", RowKind::Generator, std::slice::from_ref(&samples))];
            (context.measure("ours", &samples, &Monitor::silent()).unwrap(), context.evaluate(rows))
        })
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn misfits_are_refused() {
    let zoo = shallow();
    let silent = Monitor::silent();
    let options = Options::default();
    let refused = |input: ContextInput<'_>| Context::new(input, &options, &silent).unwrap_err();
    let flags = ContextInput { train_is_final: &zoo.is_final[1..], ..zoo.input() };
    assert!(matches!(refused(flags), Error::Length { what: "train_is_final", expected: 16, got: 15 }));
    let one_run = ContextInput { train_run: &[0; 16], ..zoo.input() };
    assert!(matches!(refused(one_run), Error::TooFew { got: 1, least: 2, .. }));
    let one = zoo.held_out.select(&[0]);
    assert!(matches!(refused(ContextInput { held_out: &one, ..zoo.input() }), Error::TooFew { .. }));
    let finals = zoo.finals();
    assert!(matches!(refused(ContextInput { held_out: &finals, ..zoo.input() }), Error::Unit { .. }));
    let mut broken = zoo.held_out.clone();
    let d = broken.dim();
    broken.data_mut()[d] = f32::NAN;
    assert!(matches!(refused(ContextInput { held_out: &broken, ..zoo.input() }), Error::NonFinite { what: "held-out", index: 1 }));
    let other = Zoo::new(&[FEATURES, 4, CLASSES]);
    assert!(matches!(refused(ContextInput { held_out: &other.held_out, ..zoo.input() }), Error::Architecture { .. }));
    let wide = Zoo::new(&[FEATURES + 1, 5, CLASSES]);
    assert!(matches!(refused(ContextInput { dataset: &zoo.dataset, ..wide.input() }), Error::Dataset { inputs: 7, .. }));
    let bad = Options { thresholds: vec![-1.0], ..Options::default() };
    assert!(matches!(Context::new(zoo.input(), &bad, &silent), Err(Error::Option { option: "thresholds", .. })));
    let context = zoo.context();
    assert!(matches!(context.measure("x", &other.held_out, &silent), Err(Error::Architecture { .. })));
    let uneven = [zoo.finals(), zoo.held_out.clone()];
    let input = RowInput { name: "x", kind: RowKind::Baseline, sets: &uneven, costs: Costs::default() };
    assert!(matches!(context.row(input, &silent), Err(Error::Length { expected: 8, got: 5, .. })));
}

#[test]
fn a_stop_is_heard() {
    let (zoo, stop) = (shallow(), AtomicBool::new(true));
    let found = Context::new(zoo.input(), &Options::default(), &Monitor::new(&|_| {}, &stop));
    assert!(matches!(found, Err(Error::Stopped)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Neither a group element nor an invisible change moves any distance.
    #[test]
    fn distances_are_those_of_orbits(seed in any::<u64>()) {
        let zoo = shallow();
        let context = zoo.context();
        let group = Group::derive(zoo.train.architecture().clone());
        let samples = networks(zoo.train.architecture(), 6, Seed::new(seed));
        let mut moved = weft_eval::null_copies(context.projection(), &samples.select(&[0]), 1, Seed::new(seed)).unwrap();
        moved.extend(&samples.select(&[1, 2, 3, 4, 5])).unwrap();
        for (i, row) in moved.data_mut().chunks_exact_mut(samples.dim()).enumerate() {
            group.apply(&group.random(Seed::new(seed).index(i as u64)), row).unwrap();
        }
        let [a, b] = [&samples, &moved].map(|s| context.measure("x", s, &Monitor::silent()).unwrap());
        let pairs = [
            (&a.distance, &b.distance),
            (&a.distance_weighted, &b.distance_weighted),
            (&a.fellow_distance, &b.fellow_distance),
            (&a.pairwise, &b.pairwise),
        ];
        for (a, b) in pairs {
            for (a, b) in a.iter().zip(b) {
                prop_assert!((a - b).abs() < 1e-3 * (1.0 + a), "{} became {}", a, b);
            }
        }
        prop_assert_eq!(&a.nearest, &b.nearest);
    }
}
