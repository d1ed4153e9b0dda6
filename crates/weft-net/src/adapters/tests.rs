//! Adapters against the interpreter, central differences, and themselves in other company.

use super::task::Goal;
use super::*;
use crate::{interpret_f64, with_tokens};
use candle_core::Var;
use weft_core::families::{Bert, Family, Gpt, Llama};
use weft_core::{Architecture, Duration, Optimizer, RopePairs, Schedule};
use weft_testkit::{assert_close_f64, random_row};

fn llama(tied: bool, num_kv_heads: usize, pairs: RopePairs) -> Arc<Architecture> {
    let (vocabulary, length, d_model, depth, num_heads, d_hidden) = (13, 9, 16, 2, 4, 12);
    let family =
        Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied, theta: 50.0, pairs, epsilon: 1e-5 };
    Arc::new(Family::Llama(family).build("llama").unwrap())
}

fn bert(pooler: bool) -> Arc<Architecture> {
    let family = Bert { vocabulary: 13, length: 24, segments: 2, d_model: 8, depth: 2, num_heads: 2, d_hidden: 12, pooler };
    Arc::new(Family::Bert(family).build("bert").unwrap())
}

/// A base of random weights, and its row.
fn base_of(architecture: &Arc<Architecture>) -> (Arc<Base>, Vec<f32>) {
    let row = random_row(architecture, Seed::new(7));
    (Arc::new(Base::new(architecture, &row).unwrap()), row)
}

fn adapters_of(base: &Arc<Base>, modules: &[&str], precision: Precision) -> Adapters {
    let modules = modules.iter().map(|&m| m.to_owned()).collect();
    let layout = AdapterLayout::new(base, &LoraConfig { modules, rank: 2, alpha: 3.0 }).unwrap();
    Adapters::in_precision(base.clone(), layout, &Device::cpu(), precision).unwrap()
}

const OF_LLAMA: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const OF_BERT: [&str; 6] = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"];

fn texts(count: usize) -> Vec<AdapterTask> {
    let document = |seed: Seed, len| seed.indices(len, 12).into_iter().map(|id| id + 1).collect::<Vec<u32>>();
    let of_task = |task: u64| {
        let seed = Seed::new(3).index(task);
        AdapterTask::Text(Windows::new(&[document(seed.index(0), 11), document(seed.index(1), 16 + task as usize)], 1, 7).unwrap())
    };
    (0..count as u64).map(of_task).collect()
}

fn sentences(count: usize) -> Vec<AdapterTask> {
    let of_task = |task: u64| {
        let seed = Seed::new(4).index(task);
        let sentence = |i: u64, len: usize| seed.index(i).indices(len, 13);
        let classes = 2 + task as usize % 2;
        let names = (0..classes as u64).map(|c| sentence(100 + c, 1 + c as usize)).collect();
        let all = (0..6).map(|i| sentence(i, 1 + (i as usize * 5) % 18)).collect();
        let labels = (0..6).map(|i| i % classes as u32).collect();
        AdapterTask::Sentences(Sentences::new(names, all, labels).unwrap())
    };
    (0..count as u64).map(of_task).collect()
}

/// Adapters that are not small, one after the other.
fn random_adapters(adapters: &Adapters, n: usize) -> Vec<f32> {
    Seed::new(5).normals(n * adapters.layout().num_parameters()).into_iter().map(|v| 0.4 * v).collect()
}

/// The base with an adapter added to its maps: `W + s·B·A`.
fn merged(base: &Architecture, row: &[f32], layout: &AdapterLayout, adapter: &[f32]) -> Vec<f64> {
    let mut row: Vec<f64> = row.iter().map(|&w| f64::from(w)).collect();
    for (pair, update) in layout.architecture().tensors().chunks_exact(2).zip(layout.updates()) {
        let name = pair[0].name.replace(".lora_A", "");
        let tensor = base.tensors().iter().find(|tensor| tensor.name == name).unwrap();
        let [outputs, inputs] = [tensor.shape[0], tensor.shape[1]];
        let (a, b) = (&adapter[pair[0].range()], &adapter[pair[1].range()]);
        let rank = a.len() / inputs;
        let weight = &mut row[tensor.range()];
        for o in 0..outputs {
            for i in 0..inputs {
                let product: f64 = (0..rank).map(|k| f64::from(b[o * rank + k]) * f64::from(a[k * inputs + i])).sum();
                weight[o * inputs + i] += update.factors.scale * product;
            }
        }
    }
    row
}

fn log_softmax(z: &[f64], at: usize) -> f64 {
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    z[at] - max - z.iter().map(|z| (z - max).exp()).sum::<f64>().ln()
}

/// The loss of a task by the interpreter, one sequence at a time.
fn expected_loss(architecture: &Architecture, row: &[f64], task: &AdapterTask) -> f64 {
    let run = |ids: &[u32]| {
        let network = with_tokens(architecture, ids.len()).unwrap();
        let ids: Vec<f64> = ids.iter().map(|&id| f64::from(id)).collect();
        interpret_f64(&network, row.into(), &ids).unwrap()
    };
    match task {
        AdapterTask::Text(windows) => {
            let batch = TaskBatch::new(
                &base_of(&llama(true, 2, RopePairs::Halves)).0,
                &[(task, &(0..windows.len() as u32).collect::<Vec<_>>())],
            );
            let batch = batch.unwrap();
            let Goal::Next { targets, weights } = &batch.goal else { panic!("text") };
            let mut loss = 0.0;
            for (at, ids) in batch.ids.chunks_exact(batch.tokens).enumerate() {
                let logits = run(ids);
                let vocabulary = logits.len() / ids.len();
                for (t, z) in logits.chunks_exact(vocabulary).enumerate() {
                    let place = at * batch.tokens + t;
                    loss -= f64::from(weights[place]) * log_softmax(z, targets[place] as usize);
                }
            }
            loss
        }
        AdapterTask::Sentences(s) => {
            let (names, all, labels) = s.parts();
            let embed = |ids: &Vec<u32>| {
                let last = run(ids);
                let d = last.len() / ids.len();
                let mut mean = vec![0.0; d];
                last.chunks_exact(d).for_each(|token| mean.iter_mut().zip(token).for_each(|(m, v)| *m += v / ids.len() as f64));
                let length = mean.iter().map(|v| v * v).sum::<f64>().sqrt();
                mean.into_iter().map(|v| v / length).collect::<Vec<f64>>()
            };
            let names: Vec<_> = names.iter().map(embed).collect();
            let loss = |(sentence, &label): (&Vec<u32>, &u32)| {
                let e = embed(sentence);
                let z: Vec<f64> =
                    names.iter().map(|name| TEMPERATURE * e.iter().zip(name).map(|(a, b)| a * b).sum::<f64>()).collect();
                -log_softmax(&z, label as usize)
            };
            all.iter().zip(labels).map(loss).sum::<f64>() / labels.len() as f64
        }
    }
}

/// Both families, with all their options and updates of all their maps, are the interpreter's networks with the updates merged.
#[test]
fn adapters_are_the_interpreter_with_merged_weights() {
    for (architecture, modules, tasks) in [
        (llama(true, 2, RopePairs::Interleaved), &OF_LLAMA[..], texts(3)),
        (llama(false, 4, RopePairs::Halves), &OF_LLAMA[..2], texts(2)),
        (bert(false), &OF_BERT[..], sentences(3)),
    ] {
        let (base, row) = base_of(&architecture);
        let adapters = adapters_of(&base, modules, Precision::Single);
        let weights = random_adapters(&adapters, tasks.len());
        let refs: Vec<&AdapterTask> = tasks.iter().collect();
        let measured = adapters.measure(&weights, &refs).unwrap();
        let all: Vec<Vec<u32>> = tasks.iter().map(|task| (0..task.len() as u32).collect()).collect();
        let drawn: Vec<DrawnTask<'_>> = tasks.iter().zip(&all).map(|(task, all)| (task, all.as_slice())).collect();
        let together = adapters.gradients(&weights, &drawn).unwrap().losses;
        for (n, task) in tasks.iter().enumerate() {
            let adapter = &weights[n * adapters.layout().num_parameters()..][..adapters.layout().num_parameters()];
            let expected = expected_loss(&architecture, &merged(&architecture, &row, adapters.layout(), adapter), task);
            let unadapted = expected_loss(&architecture, &row.iter().map(|&w| f64::from(w)).collect::<Vec<_>>(), task);
            assert_close_f64(&[measured[n].loss, together[n]], &[expected; 2], 1e-4);
            assert!((expected - unadapted).abs() > 1e-3, "the adapter says something");
            let zeros = vec![0.0; adapter.len()];
            assert_close_f64(&[adapters.measure(&zeros, &[task]).unwrap()[0].loss], &[unadapted], 1e-4);
            assert_eq!(measured[n].count, task.num_targets());
        }
    }
}

/// The logits of each place are the interpreter's, in both orders of rotary pairs, and tokens that the base does not know are refused.
#[test]
fn logits_are_the_interpreters() {
    for pairs in [RopePairs::Interleaved, RopePairs::Halves] {
        let architecture = llama(false, 2, pairs);
        let (base, row) = base_of(&architecture);
        let adapters = adapters_of(&base, &OF_LLAMA[..], Precision::Single);
        let weights = random_adapters(&adapters, 1);
        let tokens = [1, 5, 12, 0, 7];
        let logits: Vec<f64> = adapters.logits(&weights, &tokens).unwrap().into_iter().map(f64::from).collect();
        let network = with_tokens(&architecture, tokens.len()).unwrap();
        let ids = tokens.map(f64::from);
        let expected =
            interpret_f64(&network, (&merged(&architecture, &row, adapters.layout(), &weights)[..]).into(), &ids).unwrap();
        assert_eq!(logits.len(), 5 * 13);
        assert_close_f64(&logits, &expected, 1e-4);
        let refused = |tokens: &[u32], expected: &str| {
            let message = adapters.logits(&weights, tokens).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        refused(&[], "no token");
        refused(&[1, 13], "token 13");
        refused(&[1; 10], "10 tokens");
    }
    let (base, _) = base_of(&bert(false));
    let adapters = adapters_of(&base, &["value"], Precision::Single);
    assert!(adapters.logits(&random_adapters(&adapters, 1), &[1, 2]).unwrap_err().to_string().contains("decoders"));
}

/// A pooler behind the tokens has no say.
#[test]
fn a_pooler_changes_nothing() {
    let [with, without] = [true, false].map(bert);
    let row = random_row(&with, Seed::new(7));
    let task = &sentences(1)[0];
    let losses = [(with, &row[..]), (without.clone(), &row[..without.num_parameters()])].map(|(architecture, row)| {
        let base = Arc::new(Base::new(&architecture, row).unwrap());
        let adapters = adapters_of(&base, &["value"], Precision::Single);
        adapters.measure(&random_adapters(&adapters, 1), &[task]).unwrap()[0]
    });
    assert_eq!(losses[0], losses[1]);
    assert!(losses[0].accuracy.is_some_and(|accuracy| (0.0..=1.0).contains(&accuracy)));
}

/// Gradients in `f64` against central differences of the loss, weight by weight all over the adapter.
#[test]
fn gradients_are_those_of_the_loss() {
    for (architecture, modules, tasks) in [
        (llama(true, 2, RopePairs::Interleaved), &OF_LLAMA[..], texts(2)),
        (llama(false, 4, RopePairs::Halves), &["gate_proj"][..], texts(1)),
        (bert(true), &OF_BERT[..], sentences(2)),
        (bert(true), &["value"][..], sentences(1)),
    ] {
        let (base, _) = base_of(&architecture);
        let adapters = adapters_of(&base, modules, Precision::Double);
        let weights = random_adapters(&adapters, tasks.len());
        let examples = [0, 2, 3];
        let drawn: Vec<DrawnTask<'_>> = tasks.iter().map(|task| (task, &examples[..])).collect();
        let Gradients { gradient, losses } = adapters.gradients(&weights, &drawn).unwrap();
        let dim = adapters.layout().num_parameters();
        let scale = gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for i in (0..weights.len()).step_by(weights.len().div_ceil(120)) {
            let at = |d: f32| {
                let mut weights = weights.clone();
                weights[i] += d;
                (adapters.gradients(&weights, &drawn).unwrap().losses[i / dim], f64::from(weights[i]))
            };
            let ((up, above), (down, below)) = (at(1e-3), at(-1e-3));
            let numeric = (up - down) / (above - below);
            let apart = (numeric - f64::from(gradient[i])).abs();
            assert!(apart < 2e-3 * f64::from(scale), "{modules:?} weight {i}: {} and {numeric} of {scale}", gradient[i]);
        }
        assert!(scale > 1e-3 && losses.iter().all(|loss| loss.is_finite()));
        let moved = gradient.iter().filter(|g| **g != 0.0).count();
        assert!(moved > gradient.len() / 2, "{moved} of {}", gradient.len());
    }
}

#[test]
fn the_loss_on_tensors_has_these_gradients() {
    let (base, _) = base_of(&llama(true, 2, RopePairs::Interleaved));
    let adapters = adapters_of(&base, &["q_proj", "v_proj"], Precision::Single);
    let (tasks, weights) = (texts(2), random_adapters(&adapters, 2));
    let drawn: Vec<DrawnTask<'_>> = tasks.iter().map(|task| (task, &[0, 1][..])).collect();
    let shape = (2, adapters.layout().num_parameters());
    let rows = Var::from_tensor(&Tensor::from_slice(&weights, shape, &candle_core::Device::Cpu).unwrap()).unwrap();
    let losses = adapters.loss(&rows, &drawn).unwrap();
    let factors = Tensor::new(&[2.0f32, -1.0], &candle_core::Device::Cpu).unwrap();
    let store = (&losses * factors).unwrap().sum_all().unwrap().backward().unwrap();
    let got = store.get(&rows).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let expected = adapters.gradients(&weights, &drawn).unwrap();
    let of = |i: usize| expected.gradient[i] * if i < shape.1 { 2.0 } else { -1.0 };
    assert!(got.iter().enumerate().all(|(i, g)| (g - of(i)).abs() < 1e-6));
    let values = losses.to_vec1::<f32>().unwrap();
    assert!(values.iter().zip(&expected.losses).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6));
}

fn recipe(steps: u64) -> Recipe {
    Recipe {
        optimizer: Optimizer::ADAMW,
        learning_rate: 0.02,
        schedule: Schedule::Cosine { warmup_steps: 5 },
        weight_decay: 0.01,
        batch_size: 3,
        duration: Duration::Steps(steps),
        snapshot_steps: Vec::new(),
        precision: weft_core::Precision::Single,
    }
}

/// Training lowers the loss of both kinds of task, is the same at any number of threads to the bit, and the same in groups of one but for
/// rounding.
#[test]
fn training_learns_and_does_not_depend_on_its_company() {
    for (architecture, modules, tasks) in [
        (llama(true, 2, RopePairs::Interleaved), &["q_proj", "v_proj", "down_proj"][..], texts(4)),
        (bert(true), &OF_BERT[..], sentences(3)),
    ] {
        let (base, _) = base_of(&architecture);
        let adapters = adapters_of(&base, modules, Precision::Single);
        let on = |adapters: &Adapters, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| adapters.train(&tasks, &recipe(60), Seed::new(1), &Monitor::silent()).unwrap())
        };
        let trained = on(&adapters, 1);
        assert_eq!(trained, on(&adapters, 3));
        let alone = on(&adapters.clone().with_group_bytes(1), 2);
        let apart = trained.data().iter().zip(alone.data()).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart < 5e-3 && trained != on(&adapters_of(&base, modules, Precision::Double), 1), "{apart}");
        let refs: Vec<&AdapterTask> = tasks.iter().collect();
        let before = adapters.measure(&vec![0.0; trained.data().len()], &refs).unwrap();
        let after = adapters.measure(trained.data(), &refs).unwrap();
        for (before, after) in before.iter().zip(&after) {
            assert!(after.loss < 0.95 * before.loss, "{} after {}", after.loss, before.loss);
        }
    }
}

/// By epochs, an adapter takes the steps that it would take alone, whatever the others have to read.
#[test]
fn epochs_are_each_adapters_own() {
    let (base, _) = base_of(&llama(true, 2, RopePairs::Interleaved));
    let adapters = adapters_of(&base, &["q_proj", "v_proj"], Precision::Single);
    let long = Seed::new(9).indices(200, 12).into_iter().map(|id| id + 1).collect();
    let short = texts(1).remove(0);
    let long = AdapterTask::Text(Windows::new(&[long], 1, 7).unwrap());
    let by_epochs = Recipe { duration: Duration::Epochs(4), ..recipe(0) };
    let train = |tasks: &[AdapterTask]| adapters.train(tasks, &by_epochs, Seed::new(1), &Monitor::silent()).unwrap();
    let (alone, beside) = (train(std::slice::from_ref(&short)), train(&[short, long]));
    let apart = alone.row(0).iter().zip(beside.row(0)).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(apart < 1e-5, "{apart}");
}

/// Adapters that are given a start begin there, all of them, and another length is refused.
#[test]
fn adapters_start_where_they_are_told() {
    let (base, _) = base_of(&llama(true, 2, RopePairs::Interleaved));
    let adapters = adapters_of(&base, &["q_proj"], Precision::Single);
    let start = Seed::new(7).normals(adapters.layout().num_parameters());
    assert!(adapters.clone().with_start(&start[1..]).is_err());
    let still = Recipe { learning_rate: 1e-12, weight_decay: 0.0, ..recipe(1) };
    let trained = adapters.with_start(&start).unwrap().train(&texts(3), &still, Seed::new(1), &Monitor::silent()).unwrap();
    assert!(trained.rows().all(|row| row.iter().zip(&start).all(|(a, b)| (a - b).abs() < 1e-6)));
}

#[test]
fn adapters_start_as_the_base() {
    let (base, _) = base_of(&bert(false));
    let adapters = adapters_of(&base, &["query", "value"], Precision::Single);
    let start = initial_adapter(adapters.layout(), Seed::new(1));
    let bound = 1.0 / 8.0f32.sqrt();
    assert!(start.iter().all(|v| v.abs() <= bound) && start.iter().filter(|v| **v != 0.0).count() == start.len() / 2);
    let task = &sentences(1)[0];
    let [with, without] = [start.clone(), vec![0.0; start.len()]].map(|row| adapters.measure(&row, &[task]).unwrap()[0].loss);
    assert!((with - without).abs() < 1e-12);
}

#[test]
fn misfits_are_refused_by_name() {
    let check = |result: Result<()>, expected: &str| {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let gpt = Gpt { vocabulary: 9, length: 3, d_model: 4, depth: 1, num_heads: 2, d_hidden: 3, tied: true };
    let gpt = Arc::new(Family::Gpt(gpt).build("gpt").unwrap());
    check(Base::new(&gpt, &random_row(&gpt, Seed::new(1))).map(|_| ()), "`llama` and `bert`");
    let architecture = bert(true);
    let mut row = random_row(&architecture, Seed::new(1));
    check(Base::new(&architecture, &row[1..]).map(|_| ()), "weights, got");
    row[5] = f32::NAN;
    check(Base::new(&architecture, &row).map(|_| ()), "weight 5 is NaN");
    let (base, _) = base_of(&architecture);
    let layout = |modules: &[&str], rank, alpha| {
        AdapterLayout::new(&base, &LoraConfig { modules: modules.iter().map(|&m| m.to_owned()).collect(), rank, alpha })
    };
    check(layout(&["query", "q_proj"], 2, 2.0).map(|_| ()), "encoder.layer.0.attention.self.query");
    check(layout(&["query"], 0, 2.0).map(|_| ()), "`rank`");
    check(layout(&[], 2, 2.0).map(|_| ()), "`modules`");
    check(layout(&["query"], 2, f64::INFINITY).map(|_| ()), "`alpha`");
    let of_llama = adapters_of(&base_of(&llama(true, 2, RopePairs::Halves)).0, &["q_proj"], Precision::Single);
    check(AdapterLayout::of(&base, of_llama.layout().architecture().clone()).map(|_| ()), "no such module");
    let adapters = adapters_of(&base, &["query"], Precision::Single);
    let weights = random_adapters(&adapters, 1);
    check(adapters.measure(&weights, &[&texts(1)[0]]).map(|_| ()), "sentences are for encoders");
    let long = AdapterTask::Sentences(Sentences::new(vec![vec![1], vec![2]], vec![vec![3; 25]], vec![0]).unwrap());
    check(adapters.measure(&weights, &[&long]).map(|_| ()), "25 tokens");
    let strange = AdapterTask::Sentences(Sentences::new(vec![vec![1], vec![13]], vec![vec![3]], vec![0]).unwrap());
    check(adapters.measure(&weights, &[&strange]).map(|_| ()), "token 13");
    check(adapters.measure(&weights[1..], &[&sentences(1)[0]]).map(|_| ()), "weight row");
    check(adapters.gradients(&weights, &[(&sentences(1)[0], &[6])]).map(|_| ()), "example 6");
    check(adapters.train(&[], &recipe(1), Seed::new(1), &Monitor::silent()).map(|_| ()), "no task");
    let snapshots = Recipe { snapshot_steps: vec![1], ..recipe(2) };
    let half = Recipe { precision: weft_core::Precision::Bfloat16, ..recipe(1) };
    check(adapters.train(&sentences(1), &half, Seed::new(1), &Monitor::silent()).map(|_| ()), "precision");
    check(adapters.train(&sentences(1), &snapshots, Seed::new(1), &Monitor::silent()).map(|_| ()), "snapshot-steps");
}

/// An imported adapter's layout is the one that was exported.
#[test]
fn a_layout_is_read_off_an_architecture() {
    let (base, _) = base_of(&llama(true, 2, RopePairs::Halves));
    let layout = AdapterLayout::new(&base, &LoraConfig::query_and_value(&base, 4)).unwrap();
    let again = AdapterLayout::of(&base, layout.architecture().clone()).unwrap();
    let of = |layout: &AdapterLayout| layout.updates().iter().map(|u| u.factors).collect::<Vec<_>>();
    assert_eq!(of(&layout), of(&again));
    assert_eq!(layout.updates()[1].factors.first, 24, "values lie behind queries and keys");
    // Per block q maps 16 to 16 and v 16 to 8: 4·(16 + 16) + 4·(16 + 8).
    assert_eq!(layout.num_parameters(), 2 * (128 + 96));
}

/// A joined task is its parts: each sentence among its own task's classes, equal names once.
#[test]
fn joined_sentences_are_told_among_their_own_classes() {
    let (base, _) = base_of(&bert(true));
    let adapters = adapters_of(&base, &["query", "value"], Precision::Double);
    let [one, other] = [[vec![1, 2], vec![3]], [vec![3], vec![4, 5, 6]]].map(|names| {
        let texts = (0..3).map(|i| Seed::new(9).fork("text").index(i).indices(4, 13)).collect();
        Sentences::new(names.to_vec(), texts, vec![0, 1, 1]).unwrap()
    });
    let joined = Sentences::join([&one, &other]).unwrap();
    assert_eq!((joined.num_classes(), joined.len()), (3, 6), "`3` is a class of both");
    assert!(Sentences::join([&joined]).is_err() && Sentences::join([]).is_err());
    let row = random_adapters(&adapters, 1);
    let [one, other, joined] = [one, other, joined].map(AdapterTask::Sentences);
    let of = |tasks: &[&AdapterTask]| adapters.measure(&row.repeat(tasks.len()), tasks).unwrap();
    let (apart, together) = (of(&[&one, &other]), of(&[&joined])[0]);
    assert!((together.loss - f64::midpoint(apart[0].loss, apart[1].loss)).abs() < 1e-9);
    let accuracy = f64::midpoint(apart[0].accuracy.unwrap(), apart[1].accuracy.unwrap());
    assert!((together.accuracy.unwrap() - accuracy).abs() < 1e-12);
    let gradient = |task: &AdapterTask, examples: &[u32]| adapters.gradients(&row, &[(task, examples)]).unwrap().gradient;
    let (whole, parts) = (gradient(&joined, &[0, 5]), [gradient(&one, &[0]), gradient(&other, &[2])]);
    let apart = whole.iter().zip(parts[0].iter().zip(&parts[1])).map(|(w, (a, b))| (w - f32::midpoint(*a, *b)).abs());
    assert!(apart.fold(0.0, f32::max) < 1e-5 && whole.iter().any(|g| g.abs() > 1e-4));
}

/// Vectors whose cosines are the logits that sentences are told by, whatever they run beside.
#[test]
fn sentences_become_the_vectors_that_classes_are_told_by() {
    let (base, _) = base_of(&bert(false));
    let adapters = adapters_of(&base, &["query"], Precision::Double);
    let row = random_adapters(&adapters, 1);
    let sentences = [vec![1, 2], vec![3], (0..20).map(|i| i % 13).collect()];
    let vectors = adapters.encode(&row, &sentences).unwrap();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
    assert!(vectors.iter().all(|v| v.len() == 8 && (dot(v, v) - 1.0).abs() < 1e-5));
    let alone = adapters.clone().with_group_bytes(1).encode(&row, &sentences).unwrap();
    assert!(vectors.iter().zip(&alone).all(|(a, b)| (dot(a, b) - 1.0).abs() < 1e-5));
    let task = AdapterTask::Sentences(Sentences::new(sentences[..2].to_vec(), sentences[2..].to_vec(), vec![1]).unwrap());
    let [z0, z1] = [0, 1].map(|c| TEMPERATURE * dot(&vectors[c], &vectors[2]));
    let loss = adapters.measure(&row, &[&task]).unwrap()[0].loss;
    assert!((loss - ((z0 - z1).exp() + 1.0).ln()).abs() < 1e-4, "{loss} of {z0} and {z1}");
    assert!(adapters.encode(&row, &[vec![13]]).unwrap_err().to_string().contains("token 13"));
    assert!(adapters.encode(&row[1..], &sentences).is_err() && adapters.encode(&row, &[]).unwrap().is_empty());
}
