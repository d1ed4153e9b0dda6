//! Small training sets, settings and statistics that the tests share.

use std::sync::Arc;
use weft_codec::{Codec, CodecConfig, CodecKind, Normalization, Rank, Solver};
use weft_core::families::{Family, ResNet};
use weft_core::{
    Activation, Condition, Dataset, FieldSpec, FieldType, HeldOutTasks, Inputs, Monitor, Part, Population, Seed, Task, Value,
    Window,
};
use weft_gen::trivial::{Trivial, TrivialGenerator};
use weft_gen::{
    Artifact, FlowConfig, FlowTrainer, Generator as _, HyperConfig, HyperTrainer, RefinerConfig, RefinerTrainer, RidgeGenerator,
    Sampler, SamplerConfig, Trainer, TrainingSet,
};
use weft_net::{Device, PopulationLoss};

/// Networks of the random training set.
pub(crate) const NETWORKS: usize = 12;
/// Code length of its codec.
pub(crate) const RANK: usize = 6;

/// A codec of one kind or the other, fitted on these rows.
pub(crate) fn codec(rows: &Population, pca: Option<usize>) -> Arc<Codec> {
    let kind = pca.map_or(CodecKind::Identity, |rank| CodecKind::Pca { rank: Rank::Fixed(rank), solver: Solver::Auto });
    let config = CodecConfig { kind, normalize: Normalization::PerTensor };
    Arc::new(Codec::fit(rows, &config, Seed::new(0)).expect("these rows vary in every direction that is asked for"))
}

/// Random networks without meaning: two snapshots of each of [`NETWORKS`] runs, with known conditions.
pub(crate) fn random_set() -> TrainingSet {
    let architecture = weft_testkit::mlp(&[2, 4, 2], Activation::Relu);
    let finals = weft_testkit::random_population(&architecture, NETWORKS, Seed::new(1));
    let raw = weft_testkit::random_population(&architecture, NETWORKS, Seed::new(2));
    let mut all = finals.clone();
    all.data_mut().iter_mut().for_each(|w| *w *= 0.5);
    all.extend(&finals).expect("one architecture");
    let conditions = (0..2 * NETWORKS).map(|i| {
        let condition = Condition::unknown().with("accuracy", 0.5 + 0.02 * i as f64);
        condition.with("step", if i < NETWORKS { 50.0 } else { 100.0 })
    });
    TrainingSet::new(codec(&all, Some(RANK)), &all, finals, raw, conditions.collect()).expect("the codec fits its own rows")
}

/// Two tight clusters at `±2` in a space of two weights; the field `side` says which, `−1` or `1`.
pub(crate) fn two_clusters() -> TrainingSet {
    let architecture = weft_testkit::mlp(&[1, 1], Activation::Relu);
    let side = |i: usize| if i.is_multiple_of(2) { 1.0f32 } else { -1.0 };
    let noise = Seed::new(3).normals(2 * 200);
    let rows = noise.chunks_exact(2).enumerate().flat_map(|(i, g)| [2.0 * side(i) + 0.2 * g[0], 0.2 * g[1]]).collect();
    let finals = Population::new(architecture, rows).expect("two weights a network");
    let conditions = (0..finals.len()).map(|i| Condition::unknown().with("side", f64::from(side(i)))).collect();
    TrainingSet::new(Arc::new(Codec::raw(2)), &finals, finals.clone(), finals.clone(), conditions).expect("codes are weights")
}

/// A flow that is trained in a second.
pub(crate) fn flow_config(conditions: &[&str]) -> FlowConfig {
    FlowConfig {
        width: 48,
        blocks: 2,
        steps: 20,
        batch_size: 64,
        learning_rate: 3e-3,
        warmup_steps: 5,
        weight_decay: 0.01,
        clip_norm: 1.0,
        ema_decay: 0.99,
        conditions: conditions.iter().map(|&c| FieldSpec::scalar(c)).collect(),
        condition_dropout: 0.2,
        residual_noise: false,
    }
}

/// A sampler that leaves no error to speak of.
pub(crate) fn heun(steps: usize, guidance_scale: f64) -> SamplerConfig {
    SamplerConfig { sampler: Sampler::Heun, steps, guidance_scale }
}

/// A flow in training on the random set.
pub(crate) fn flow_trainer() -> FlowTrainer {
    FlowTrainer::new(flow_config(&["accuracy", "step"]), random_set().code_set(), Seed::new(7), &Device::cpu())
        .expect("the settings are in range")
}

/// Points of three classes in eight dimensions.
pub(crate) fn points() -> Dataset {
    let (examples, features, classes) = (360, 8, 3);
    let labels: Vec<u32> = (0..examples).map(|i| (i % classes) as u32).collect();
    let values = Seed::new(4).normals(examples * features).into_iter().enumerate().map(|(at, noise)| {
        let (example, feature) = (at / features, at % features);
        noise + if feature % classes == example % classes { 2.0 } else { 0.0 }
    });
    Dataset::new("points", Inputs::Floats(values.collect()), labels, classes, [240, 60]).expect("three parts of whole examples")
}

/// Networks that were trained on [`points`] from one start, so that they need no alignment; a codec of this rank, or the identity.
pub(crate) fn trained_set(pca: Option<usize>) -> TrainingSet {
    let architecture = weft_testkit::mlp(&[8, 6, 3], Activation::Relu);
    let loss = PopulationLoss::new(architecture.clone(), &points(), &Device::cpu()).expect("the architecture fits the points");
    let (n, seed) = (24, Seed::new(5));
    let mut rows = weft_testkit::random_row(&architecture, seed.fork("start")).repeat(n);
    let noise = seed.fork("noise").normals(rows.len());
    rows.iter_mut().zip(noise).for_each(|(w, g)| *w += 0.3 * g);
    for step in 0..150 {
        let chosen = seed.fork("step").index(step).indices(24 * n, loss.num_examples());
        let gradient = loss.gradients(&rows, &chosen).gradient;
        rows.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.2 * g);
    }
    let finals = Population::new(architecture, rows).expect("rows of whole networks");
    let conditions = vec![Condition::unknown(); finals.len()];
    TrainingSet::new(codec(&finals, pca), &finals, finals.clone(), finals.clone(), conditions).expect("the codec fits its own rows")
}

/// Untrained networks with batch norms for [`points`], whose running statistics vary too.
pub(crate) fn norm_set() -> TrainingSet {
    let stem = Window { size: [1, 3], stride: [1, 1], padding: [0, 1] };
    let family = ResNet { image: [2, 1, 4], stem, stem_pool: false, widths: vec![3], blocks: 1, num_classes: 3 };
    let architecture = Arc::new(Family::ResNet(family).build("blocks").expect("a small residual network"));
    let rows = (0..NETWORKS as u64).flat_map(|i| {
        let mut row = weft_net::initial_weights(&architecture, Seed::new(21).index(i));
        for range in architecture.statistics() {
            let values = Seed::new(22).index(i).fork(&format!("{}", range.start)).uniforms(range.len());
            row[range].iter_mut().zip(values).for_each(|(w, v)| *w += v);
        }
        row
    });
    let finals = Population::new(architecture.clone(), rows.collect()).expect("rows of whole networks");
    let conditions = vec![Condition::unknown(); finals.len()];
    TrainingSet::new(codec(&finals, Some(RANK)), &finals, finals.clone(), finals.clone(), conditions)
        .expect("the codec fits its own rows")
}

/// The fields that networks of many tasks are conditioned on.
pub(crate) fn task_fields() -> [FieldSpec; 1] {
    [FieldSpec::new(Task::LABEL, FieldType::Classes { num_classes: Some(4) })]
}

/// Noisy points of four classes.
pub(crate) fn four_classes() -> Dataset {
    let labels: Vec<u32> = (0..400).map(|i| i % 4).collect();
    let noise = Seed::new(14).normals(400 * 8);
    let values = noise.iter().enumerate().map(|(at, g)| 0.6 * g + if at % 4 == at / 8 % 4 { 1.5 } else { 0.0 });
    Dataset::new("points", Inputs::Floats(values.collect()), labels, 4, [280, 60]).expect("three parts of whole examples")
}

/// All binary tasks over [`four_classes`], those that are trained on and the pair that is held out.
pub(crate) fn binary_tasks() -> [Vec<Task>; 2] {
    let division = HeldOutTasks { pairs: 1, ..HeldOutTasks::default() }.divide(4).expect("four classes have seven pairs");
    let (held_out, trained): (Vec<_>, Vec<_>) = division.into_iter().partition(|(_, held_out)| *held_out);
    [trained, held_out].map(|sets| sets.iter().map(|(set, _)| Task::is_one_of(set, 4).expect("a proper subset")).collect())
}

/// The condition that asks for a task.
pub(crate) fn asks_for(task: &Task) -> Condition {
    Condition::unknown().with(Task::LABEL, Value::Classes(task.name().parse().expect("the name of a set")))
}

/// Three networks of each training task, trained from one start, so that they need no alignment.
pub(crate) fn task_set() -> TrainingSet {
    let architecture = weft_testkit::mlp(&[8, 6, 2], Activation::Relu);
    let loss = PopulationLoss::of_tasks(architecture.clone(), &four_classes(), &Device::cpu()).expect("eight features");
    let [tasks, _] = binary_tasks();
    let tasks = [&tasks[..], &tasks, &tasks].concat();
    let (n, seed) = (tasks.len(), Seed::new(15));
    let mut rows = weft_testkit::random_row(&architecture, seed.fork("start")).repeat(n);
    let noise = seed.fork("noise").normals(rows.len());
    rows.iter_mut().zip(noise).for_each(|(w, g)| *w += 0.1 * g);
    for step in 0..300 {
        let chosen = seed.fork("step").index(step).indices(24 * n, loss.num_examples());
        let gradient = loss.gradients(&rows, (&chosen[..], &tasks[..])).gradient;
        rows.iter_mut().zip(gradient).for_each(|(w, g)| *w -= 0.2 * g);
    }
    let finals = Population::new(architecture, rows).expect("rows of whole networks");
    let conditions: Vec<Condition> = tasks.iter().map(asks_for).collect();
    let set = TrainingSet::new(codec(&finals, Some(30)), &finals, finals.clone(), finals.clone(), conditions.clone());
    set.and_then(|set| set.with_tasks(&task_fields(), &conditions, tasks)).expect("the codec fits its own rows")
}

/// The mean accuracy of networks at their own tasks.
pub(crate) fn accuracy_at(networks: &Population, tasks: &[Task]) -> f64 {
    let accuracies = weft_net::accuracies(networks, (&four_classes(), tasks), Part::Test, &Device::cpu()).expect("own tasks");
    accuracies.iter().sum::<f64>() / accuracies.len() as f64
}

/// A refiner that is trained in a second.
pub(crate) fn refiner_config() -> RefinerConfig {
    RefinerConfig {
        mu: 0.01,
        hinge: false,
        shell: 0.0,
        repulsion: 0.0,
        own_data: false,
        steps: 20,
        batch_networks: 16,
        batch_examples: 32,
        learning_rate: 3e-3,
        width: 48,
        blocks: 1,
        pool: 1_024,
    }
}

/// Noisy copies of training networks: proposals with something left to mend.
pub(crate) fn noisy(data: &TrainingSet, scale: f64) -> TrivialGenerator {
    TrivialGenerator::new(Trivial::NoiseCopies { scale }, data.clone())
}

/// A refiner of rather noisy copies in training.
pub(crate) fn refiner_trainer(config: RefinerConfig, data: &TrainingSet) -> RefinerTrainer {
    refiner_of_copies(config, data, 0.4)
}

/// A refiner of copies with this much noise in training.
pub(crate) fn refiner_of_copies(config: RefinerConfig, data: &TrainingSet, scale: f64) -> RefinerTrainer {
    let loss =
        PopulationLoss::new(data.architecture().clone(), &points(), &Device::cpu()).expect("the architecture fits the points");
    let proposal = noisy(data, scale);
    let trainer = RefinerTrainer::new(config, (&proposal, &Condition::unknown()), data.clone(), loss, Seed::new(8), &Device::cpu());
    trainer.expect("the settings are in range")
}

/// Trains to the step, without a monitor.
pub(crate) fn train<T: Trainer>(mut trainer: T, until: u64) -> T {
    trainer.advance(until, &Monitor::silent()).expect("training on clean data goes through");
    trainer
}

/// The trainer at a saved state.
pub(crate) fn restored<T: Trainer>(mut trainer: T, saved: &Artifact) -> weft_gen::Result<T> {
    trainer.restore(saved).map(|()| trainer)
}

/// A vector of a saved state.
pub(crate) fn vector(saved: &Artifact, name: &str) -> Vec<f32> {
    saved.tensors[name].1.clone()
}

/// Mean and standard deviation of each column of `[n, columns]`, in `f64`.
pub(crate) fn moments(values: &[f32], columns: usize) -> (Vec<f64>, Vec<f64>) {
    let n = (values.len() / columns) as f64;
    let column = |c: usize| values.iter().skip(c).step_by(columns).map(|&v| f64::from(v));
    let mean: Vec<f64> = (0..columns).map(|c| column(c).sum::<f64>() / n).collect();
    let std = (0..columns).map(|c| (column(c).map(|v| (v - mean[c]).powi(2)).sum::<f64>() / n).sqrt()).collect();
    (mean, std)
}

/// The Euclidean distance of two rows.
pub(crate) fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// The distance of a row to the nearest of a population.
pub(crate) fn nearest(row: &[f32], among: &Population) -> f64 {
    among.rows().map(|other| distance(row, other)).fold(f64::INFINITY, f64::min)
}

/// The networks of [`task_set`], each shown by four draws.
pub(crate) fn shown_set(field: &str, ask: &dyn Fn(&Task, Seed) -> Condition) -> TrainingSet {
    let set = task_set();
    let tasks: Vec<Task> = set.tasks.as_ref().expect("networks of many tasks").tasks.clone();
    let seed = Seed::new(31);
    let draws = (0..4).flat_map(|draw| (0..tasks.len()).map(move |run| (draw, run)));
    let conditions: Vec<Condition> = draws.map(|(draw, run)| ask(&tasks[run], seed.index(draw).index(run as u64))).collect();
    let groups: Vec<u32> = (0..tasks.len() as u32).map(|run| run % (tasks.len() as u32 / 3)).collect();
    let set = TrainingSet { tasks: None, ..set }.with_draws(conditions.clone(), &groups).expect("four draws of each");
    let fields = [FieldSpec::new(field, FieldType::Vector)];
    set.with_tasks(&fields, &conditions, vec![tasks; 4].concat()).expect("a field that shows tasks")
}

/// Held-out tasks are solved by the hyper-decoder when they are shown, better than `at_least`, and their complements are not; ridge is above chance.
pub(crate) fn solved_when_shown(field: &str, ask: &dyn Fn(&Task, Seed) -> Condition, at_least: f64) {
    let data = shown_set(field, ask);
    let config = HyperConfig { steps: 400, ..crate::hyper::config() };
    let loss = PopulationLoss::of_tasks(data.architecture().clone(), &four_classes(), &Device::cpu()).expect("eight features");
    let trainer = HyperTrainer::new(config, data.clone(), loss, Seed::new(8), &Device::cpu()).expect("settings in range");
    let hyper = train(trainer, 400).finish().expect("the CPU gives its state");
    let [_, held_out] = binary_tasks();
    let conditions: Vec<Condition> = held_out.iter().map(|task| ask(task, Seed::new(99))).collect();
    let networks = hyper.sample_each(&conditions, Seed::new(0)).expect("conditions of the schema");
    let right = accuracy_at(&networks, &held_out);
    let exchanged = accuracy_at(&networks, &[held_out[1].clone(), held_out[0].clone()]);
    assert!(right > at_least && exchanged < 0.3, "{right} of what is shown, {exchanged} of its complement");
    let ridge = RidgeGenerator::fit(data, hyper.schema().clone(), Seed::new(4)).expect("a field that shows tasks");
    let of_ridge = ridge.sample(1, &conditions[0], Seed::new(0)).expect("a condition of the schema");
    assert!(accuracy_at(&of_ridge, &held_out[..1]) > 0.6);
}
