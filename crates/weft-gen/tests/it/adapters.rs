//! A hyper-decoder of adapters: it learns through their frozen base, and writes adapters for tasks that it never saw.

use crate::support::{asks_for, binary_tasks, codec, task_fields, train};
use std::sync::Arc;
use weft_core::families::{Family, Llama};
use weft_core::{Condition, Duration, Monitor, Optimizer, Precision, Recipe, RopePairs, Schedule, Seed, Task};
use weft_gen::{AdapterLoss, Error, Generator as _, HyperConfig, HyperTrainer, TaskLoss, Trainer as _, TrainingSet};
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

#[test]
fn it_writes_adapters_for_languages_that_it_never_saw() {
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
    let oracles = adapters.train(&texts, &recipe, Seed::new(3), &Monitor::silent()).unwrap();
    let conditions: Vec<Condition> = tasks.iter().map(asks_for).collect();
    let data = TrainingSet::new(codec(&oracles, Some(8)), &oracles, oracles.clone(), oracles.clone(), conditions.clone())
        .and_then(|set| set.with_tasks(&task_fields(), &conditions, tasks.clone()))
        .unwrap();
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
    };
    let trainer_on = |adapters: &Adapters, texts: Vec<AdapterTask>| {
        let loss: TaskLoss = AdapterLoss::new(adapters.clone(), texts).unwrap().into();
        HyperTrainer::new(config.clone(), data.clone(), loss, Seed::new(4), &Device::cpu())
    };
    let trainer = |texts: Vec<AdapterTask>| trainer_on(&adapters, texts);
    let trained = trainer(texts.clone()).unwrap();
    // A saved state goes on over the base and the texts that it is of, and over no others.
    let saved = trained.save().unwrap();
    trainer(texts.clone()).unwrap().restore(&saved).unwrap();
    let others = [trainer(languages(&tasks, Seed::new(9))), trainer_on(&self::adapters(2), texts.clone())];
    for other in others {
        assert!(matches!(other.unwrap().restore(&saved), Err(Error::Artifact { entry, .. }) if entry == "fingerprint"));
    }
    assert!(trained.flops() > 0.0);
    let hyper = train(trained, config.steps).finish().unwrap();
    let mean = |asked: &[Task], texts: &[AdapterTask]| {
        let made = hyper.sample_each(&asked.iter().map(asks_for).collect::<Vec<_>>(), Seed::new(5)).unwrap();
        let measured = adapters.measure(made.data(), &texts.iter().collect::<Vec<_>>()).unwrap();
        measured.iter().map(|m| m.loss).sum::<f64>() / texts.len() as f64
    };
    let base = |texts: &[AdapterTask]| {
        let zeros = vec![0.0; texts.len() * adapters.layout().num_parameters()];
        let measured = adapters.measure(&zeros, &texts.iter().collect::<Vec<_>>()).unwrap();
        measured.iter().map(|m| m.loss).sum::<f64>() / texts.len() as f64
    };
    let unseen = languages(&held_out, Seed::new(6));
    let (of_seen, of_unseen) = (mean(&tasks, &texts), mean(&held_out, &unseen));
    assert!(
        of_seen < base(&texts) - 0.3 && of_unseen < base(&unseen) - 0.2,
        "{of_seen} of {}, {of_unseen} of {}",
        base(&texts),
        base(&unseen)
    );
    let exchanged: Vec<Task> = held_out.iter().rev().cloned().collect();
    let of_others = mean(&exchanged, &unseen);
    assert!(of_others > of_unseen + 0.3, "told another's condition it loses {of_others}, and {of_unseen} told its own");
    assert!(trainer(texts[1..].to_vec()).unwrap_err().to_string().contains("tasks"), "a task for each run");
}
