//! Adapters of stories260K for languages, on a CPU and on a GPU, from one adapter of all, as `configs/languages.toml` trains them.

use crate::on_devices::{gpu, gradients_agree, recipe, trainings_agree};
use crate::{adapters, data};
use weft_core::{Duration, Monitor, Recipe, Seed};
use weft_net::Device;
use weft_net::adapters::{AdapterLayout, AdapterTask, Adapters, LoraConfig, Windows};
use weft_zoo::Vocabulary;

/// Languages whose adapters are compared, and those that are trained among them on the GPU.
const COMPARED: usize = 12;
const AMONG: usize = 120;

#[test]
fn own_adapters_and_one_of_all() {
    let (Some(folder), Some(texts)) = (data("stories260k"), data("udhr2.zip")) else { return };
    let Some(device) = gpu("adapters of stories260K for languages") else { return };
    let vocabulary = Vocabulary::open(&folder.join("tok512.bin")).unwrap();
    let (base, _) = adapters::base(&folder.join("stories260K.bin"));
    let modules = ["q_proj", "v_proj"].map(str::to_owned).to_vec();
    let layout = AdapterLayout::new(&base, &LoraConfig { modules, rank: 4, alpha: 16.0 }).unwrap();
    let on = |device: &Device| Adapters::new(base.clone(), layout.clone(), device).unwrap();
    let (cpu, gpu) = (on(&Device::cpu()), on(&device));
    let languages = weft_zoo::data::languages(&texts).unwrap().read;
    let windows = |language: &weft_zoo::data::Language| {
        let (train, _) = language.split(0.3).unwrap();
        let documents: Vec<Vec<u32>> = train.iter().map(|passage| vocabulary.encode(passage)).collect();
        Windows::new(&documents, Vocabulary::START, 128).unwrap()
    };
    let windows: Vec<Windows> = languages.iter().step_by(languages.len() / AMONG).take(AMONG).map(windows).collect();
    let all = AdapterTask::Text(Windows::join(&windows[..COMPARED]).unwrap());
    let tasks: Vec<AdapterTask> = windows.into_iter().map(AdapterTask::Text).collect();
    let start = cpu.train(
        std::slice::from_ref(&all),
        &Recipe { duration: Duration::Steps(20), ..recipe(0.03, 32) },
        Seed::new(1),
        &Monitor::silent(),
    );
    let start = start.unwrap().into_data();
    gradients_agree("own", [&cpu, &gpu], &tasks, 4, &start);
    gradients_agree("of all", [&cpu, &gpu], std::slice::from_ref(&all), 32, &start);
    trainings_agree("own", [&cpu, &gpu], (&tasks[..COMPARED], &[]), &recipe(0.01, 4), &start);
    trainings_agree("own among many", [&cpu, &gpu], (&tasks[..COMPARED], &tasks[COMPARED..]), &recipe(0.01, 4), &start);
    trainings_agree("of all", [&cpu, &gpu], (std::slice::from_ref(&all), &[]), &recipe(0.03, 32), &start);
}
