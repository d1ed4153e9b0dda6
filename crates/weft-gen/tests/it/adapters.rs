//! Generators of adapters that learn through their frozen base, and write adapters for tasks that they never saw.

use crate::support::{asks_for, binary_tasks, codec, flow_config, heun, refiner_config, task_fields, train};
use std::sync::Arc;
use weft_core::families::{Family, Llama};
use weft_core::{Condition, Duration, Monitor, Optimizer, Precision, Recipe, RopePairs, Schedule, Seed, Task};
use weft_gen::{
    AdapterLoss, Error, FlowConfig, FlowTrainer, Generator, HyperConfig, HyperTrainer, Refined, RefinerConfig, RefinerTrainer,
    TaskLoss, Trainer as _, TrainingSet,
};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, Base, LoraConfig, Windows};

fn adapters(base: u64) -> Adapters {
    let (vocabulary, length, d_model, depth, d_hidden) = (9, 12, 16, 1, 12);
    let (num_heads, num_kv_heads, theta, pairs, epsilon) = (2, 1, 100.0, RopePairs::Halves, 1e-5);
    let family =
        Llama { vocabulary, length, d_model, depth, num_heads, num_kv_heads, d_hidden, tied: false, theta, pairs, epsilon };
    let architecture = Arc::new(Family::Llama(family).build("tiny").expect("the sizes fit"));
    let row = weft_testkit::random_row(&architecture, Seed::new(base));
    let base = Arc::new(Base::new(&architecture, &row).expect("a decoder"));
    let config = LoraConfig { modules: vec!["v_proj".to_owned(), "down_proj".to_owned()], rank: 2, alpha: 4.0 };
    let layout = AdapterLayout::new(&base, &config).expect("modules of the base");
    Adapters::new(base, layout, &Device::cpu()).expect("the CPU is there")
}

/// A language whose words are those of some classes, two of each.
fn language(task: &Task, seed: Seed) -> AdapterTask {
    let words: Vec<u32> =
        (0..4).filter(|&class| task.output(class) == 1).flat_map(|class| [1 + 2 * class, 2 + 2 * class]).collect();
    let text = seed.indices(60, words.len()).into_iter().map(|word| words[word as usize]).collect();
    AdapterTask::Text(Windows::new(&[text], 0, 12).expect("there is text"))
}

fn languages(tasks: &[Task], seed: Seed) -> Vec<AdapterTask> {
    tasks.iter().enumerate().map(|(i, task)| language(task, seed.index(i as u64))).collect()
}

/// Adapters of languages that generators learn from, and of some that they do not see.
struct Zoo {
    adapters: Adapters,
    data: TrainingSet,
    texts: Vec<AdapterTask>,
    held_out: Vec<Task>,
    unseen: Vec<AdapterTask>,
}

impl Zoo {
    fn new() -> Self {
        let adapters = adapters(1);
        let [tasks, held_out] = binary_tasks();
        let texts = languages(&tasks, Seed::new(2));
        let recipe = Recipe {
            optimizer: Optimizer::ADAMW,
            learning_rate: 0.02,
            schedule: Schedule::Constant,
            weight_decay: 0.0,
            batch_size: 4,
            duration: Duration::Steps(40),
            snapshot_steps: Vec::new(),
            precision: Precision::Single,
        };
        let oracles = adapters.train(&texts, &recipe, Seed::new(3), &Monitor::silent()).expect("sound tasks");
        let conditions: Vec<Condition> = tasks.iter().map(asks_for).collect();
        let data = TrainingSet::new(codec(&oracles, Some(8)), &oracles, oracles.clone(), oracles.clone(), conditions.clone())
            .and_then(|set| set.with_tasks(&task_fields(), &conditions, tasks))
            .expect("a condition for each");
        let unseen = languages(&held_out, Seed::new(6));
        Self { adapters, data, texts, held_out, unseen }
    }

    fn through_base(&self) -> TaskLoss {
        AdapterLoss::new(self.adapters.clone(), self.texts.clone()).expect("there are texts").into()
    }

    /// The mean loss of adapters, each at its own text; a row of zeros is the base.
    fn mean(&self, rows: &[f32], texts: &[AdapterTask]) -> f64 {
        let measured = self.adapters.measure(rows, &texts.iter().collect::<Vec<_>>()).expect("rows of the layout");
        measured.iter().map(|m| m.loss).sum::<f64>() / texts.len() as f64
    }

    fn base(&self, texts: &[AdapterTask]) -> f64 {
        self.mean(&vec![0.0; texts.len() * self.adapters.layout().num_parameters()], texts)
    }

    /// The mean loss of adapters that are made for tasks, at texts.
    fn made(&self, generator: &dyn Generator, asked: &[Task], texts: &[AdapterTask]) -> f64 {
        let asked: Vec<Condition> = asked.iter().map(asks_for).collect();
        self.mean(generator.sample_each(&asked, Seed::new(5)).expect("conditions of the schema").data(), texts)
    }
}

#[test]
fn it_writes_adapters_for_languages_that_it_never_saw() {
    let zoo = Zoo::new();
    let config = HyperConfig {
        code_weight: 0.0,
        task_weight: 1.0,
        steps: 300,
        batch_networks: 8,
        batch_examples: 3,
        learning_rate: 1e-2,
        weight_decay: 0.0,
        ema_decay: 0.9,
        width: 32,
        blocks: 1,
        mix: 0.0,
        condition_noise: 0.0,
        members: 1,
    };
    let trainer = |loss: TaskLoss| HyperTrainer::new(config.clone(), zoo.data.clone(), loss, Seed::new(4), &Device::cpu());
    let trained = trainer(zoo.through_base()).unwrap();
    assert!(trained.flops() > 0.0);
    // A saved state goes on over the base and the texts that it is of, and over no others.
    let saved = trained.save().unwrap();
    trainer(zoo.through_base()).unwrap().restore(&saved).unwrap();
    let other_texts = zoo.texts.iter().rev().cloned().collect();
    for (base, texts) in [(zoo.adapters.clone(), other_texts), (adapters(2), zoo.texts.clone())] {
        let loss = AdapterLoss::new(base, texts).unwrap();
        let restored = trainer(loss.into()).unwrap().restore(&saved);
        assert!(matches!(restored, Err(Error::Artifact { entry, .. }) if entry == "fingerprint"));
    }
    let hyper = train(trained, config.steps).finish().unwrap();
    let seen = &zoo.data.tasks.as_ref().unwrap().tasks;
    let (of_seen, of_unseen) = (zoo.made(&hyper, seen, &zoo.texts), zoo.made(&hyper, &zoo.held_out, &zoo.unseen));
    let [base_of_seen, base_of_unseen] = [&zoo.texts, &zoo.unseen].map(|texts| zoo.base(texts));
    assert!(
        of_seen < base_of_seen - 0.3 && of_unseen < base_of_unseen - 0.2,
        "{of_seen} of {base_of_seen}, {of_unseen} of {base_of_unseen}"
    );
    let exchanged: Vec<Task> = zoo.held_out.iter().rev().cloned().collect();
    let of_others = zoo.made(&hyper, &exchanged, &zoo.unseen);
    assert!(of_others > of_unseen + 0.3, "told another's condition it loses {of_others}, and {of_unseen} told its own");
    // Two members on mixtures of languages do as well.
    let mixed = HyperConfig { mix: 0.5, members: 2, ..config.clone() };
    let mixed = HyperTrainer::new(mixed, zoo.data.clone(), zoo.through_base(), Seed::new(4), &Device::cpu()).unwrap();
    let mixed = train(mixed, config.steps).finish().unwrap();
    let of_unseen = zoo.made(&mixed, &zoo.held_out, &zoo.unseen);
    assert!(of_unseen < base_of_unseen - 0.2, "{of_unseen} of {base_of_unseen}");
    let fewer = AdapterLoss::new(zoo.adapters.clone(), zoo.texts[1..].to_vec()).unwrap();
    assert!(trainer(fewer.into()).unwrap_err().to_string().contains("tasks"), "a task for each run");
}

#[test]
fn a_refiner_of_adapters_learns_through_their_base() {
    let zoo = Zoo::new();
    // A flow that is told which language, and barely trained: what it proposes is hardly better than any adapter.
    let flow = FlowConfig { conditions: task_fields().to_vec(), steps: 40, ..flow_config(&[]) };
    let steps = flow.steps;
    let trainer = FlowTrainer::new(flow, zoo.data.code_set(), Seed::new(7), &Device::cpu()).unwrap();
    let flow = train(trainer, steps).finish(heun(8, 1.0)).unwrap().decoded_by(&zoo.data).unwrap();
    let config = RefinerConfig { steps: 200, batch_networks: 8, batch_examples: 3, pool: 128, ..refiner_config() };
    let unknown = Condition::unknown();
    let trainer = |config: &RefinerConfig, data: &TrainingSet, loss: TaskLoss| {
        RefinerTrainer::new(config.clone(), (&flow, &unknown), data.clone(), loss, Seed::new(8), &Device::cpu())
    };
    let trained = trainer(&config, &zoo.data, zoo.through_base()).unwrap();
    assert!(trained.flops() > 0.0);
    let refined = Refined::new(Arc::new(flow.clone()), train(trained, config.steps).finish().unwrap());
    let (before, after) = (zoo.made(&flow, &zoo.held_out, &zoo.unseen), zoo.made(&refined, &zoo.held_out, &zoo.unseen));
    assert!(after < before - 0.1, "refined adapters of unseen languages lose {after}, proposals {before}");
    let exchanged: Vec<Task> = zoo.held_out.iter().rev().cloned().collect();
    let of_others = zoo.made(&refined, &exchanged, &zoo.unseen);
    assert!(of_others > after + 0.1, "told another's condition it loses {of_others}, and {after} told its own");
    // What adapters leave undefined is refused by name.
    let refused = |config: RefinerConfig, data: &TrainingSet, loss: TaskLoss, expected: &str| {
        let message = trainer(&config, data, loss).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    refused(RefinerConfig { own_data: true, ..config.clone() }, &zoo.data, zoo.through_base(), "own-data");
    let alone = TrainingSet { tasks: None, ..zoo.data.clone() };
    refused(config.clone(), &alone, zoo.through_base(), "tasks");
    let fewer = AdapterLoss::new(zoo.adapters.clone(), zoo.texts[1..].to_vec()).unwrap();
    refused(config, &zoo.data, fewer.into(), "tasks");
}
